"""Processes that meet at one key after another, with each contender in turn, and what they saw."""

from __future__ import annotations

import asyncio
import multiprocessing as mp
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from sharing.contenders import LOAD, Contender, Loads
from sharing.monitor import Monitor

PROCESSES = 8
SLEEP = "a process that only sleeps"
SOON = 0.03  # seconds after which all processes begin
PATIENCE = 60


@dataclass
class Seen:
    """What the processes saw of one contender."""

    loads: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    wakes: list[float] = field(default_factory=list)  # seconds from the end of the load, for each that waited
    calls: int = 0
    commands: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def most(self) -> int:
        return max(self.loads.values(), default=0)


def meet(url: str, kinds: list[type[Contender]], keys: int, processes: int = PROCESSES) -> dict[str, Seen]:
    """Have all processes ask for each key at once, the contenders taking turns at each key.

    In the last turn they only sleep, for as long as a load takes: how late they wake is the machine's doing.
    """
    context = mp.get_context("spawn")
    databases = {each.name: number for number, each in enumerate(kinds, 1)}
    pipes, crew = [], []
    seen = {name: Seen() for name in (*databases, SLEEP)}
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            crew.append(context.Process(target=_work, args=(theirs, url, kinds, databases), daemon=True))
            crew[-1].start()
            pipes.append(ours)
        for each in kinds:
            _once(pipes, each.name, "warm-up")
        with Monitor(url) as monitor:
            for number in range(keys):
                for each in kinds:
                    began = time.time()
                    reports = _once(pipes, each.name, f"key-{number}")
                    monitor.segment(each.name, databases[each.name], began, time.time())
                    _judge(seen[each.name], reports, f"key-{number}")
                seen[SLEEP].wakes += [late for _, late, _, _ in _once(pipes, SLEEP, "")]
        for name, commands in monitor.counts().items():
            seen[name].commands = commands
    finally:
        for process in crew:
            process.kill()
    return seen


def _once(pipes: list[Any], name: str, key: str) -> list[Any]:
    start = time.monotonic() + SOON
    for pipe in pipes:
        pipe.send((name, key, start))
    reports = []
    for pipe in pipes:
        if not pipe.poll(PATIENCE):
            raise RuntimeError(f"{name}: a process gave no answer in {PATIENCE} s")
        reports.append(pipe.recv())
    return reports


def _judge(seen: Seen, reports: list[Any], key: str) -> None:
    ended = [end for report in reports for end in report[2]]
    seen.loads[key] += len(ended)
    seen.calls += len(reports)
    for began, left, loaded, value in reports:
        if value != f"the value of {key}":
            seen.errors.append(f"{key}: {value}")
        elif not loaded and ended and began < min(ended):
            seen.wakes.append(left - max(end for end in ended if end <= left))


def _work(pipe: Any, url: str, kinds: list[type[Contender]], databases: dict[str, int]) -> None:
    loads = Loads()
    made = {each.name: each(f"{url}/{databases[each.name]}", loads) for each in kinds}
    with asyncio.Runner() as runner:
        while True:
            name, key, start = pipe.recv()
            if name == SLEEP:
                time.sleep(max(0.0, start + LOAD - time.monotonic()))
                pipe.send((start, time.monotonic() - start - LOAD, [], None))
                continue
            contender = made[name]
            loads.ended.clear()
            time.sleep(max(0.0, start - time.monotonic()))
            began = time.monotonic()
            try:
                value = runner.run(_awaited(contender, key)) if contender.awaited else contender.get(key)
            except Exception as error:
                value = repr(error)
            pipe.send((began, time.monotonic(), list(loads.ended), value))


async def _awaited(contender: Contender, key: str) -> Any:
    return await contender.get(key)
