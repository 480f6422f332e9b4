"""The soak: rounds of actors, and what must hold whenever none of them is left."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import singleflight
from singleflight.locks import waitgraph

from .actors import Disturber, InTasks, InThread, Stepper
from .oracle import Oracle
from .world import ITEMS, World

__all__ = ["Soak", "SoakFailed"]

WARM_UP = 2  # rounds until everything that is kept has been made once
PATIENCE = 60.0
CHILD_LIMIT = 10  # seconds that a forked child may take


class SoakFailed(AssertionError):
    """Something was wrong; the message is the account."""


class Soak:
    """A bounded, seeded load.

    The operations of each actor, and the fate of each execution, are drawn from the seed: they are the same
    in every run. How threads take turns is not, so a failure may need more than one run to come back.

    Args:
        operations: how many each actor does in a round.
    """

    def __init__(self, seed: int, operations: int = 200, threads: int = 4, tasks: int = 4) -> None:
        self.seed, self.operations, self.threads, self.tasks = seed, operations, threads, tasks
        self.oracle = Oracle()
        self.world = World(self.oracle, seed)
        self.rounds = self.forks = 0
        self.blocks: list[int] = []  # of memory, after each round
        self.received: list[int] = []  # calls, after each round

    def run(self, rounds: int | None = None, seconds: float = float("inf")) -> str:
        """Go on for so many rounds or seconds; returns what was done, raises `SoakFailed`."""
        began = time.monotonic()
        while (rounds is None or self.rounds < rounds) and time.monotonic() - began < seconds:
            self._round()
            self.rounds += 1
            self._check_quiet()
        self._check_memory()
        return self.account()

    def account(self) -> str:
        """What was done so far."""
        counts = self.oracle.counts
        lines = [
            f"seed {self.seed}: {self.rounds} rounds, {self.forks} forks, {self.received[-1]} calls, "
            f"{self.oracle.moment} moments; memory {self.blocks[0]} to {self.blocks[-1]} blocks"
        ]
        for kind, fetch in self.world.functions.items():
            stats = fetch.stats()
            lines.append(
                f"  {kind.name}: {counts[kind.name, 'received']} received = {stats.hits} hits + "
                f"{stats.stale_hits} stale + {stats.waits} waits + {stats.fetches} fetches + "
                f"{stats.errors} errors + {stats.timeouts} timeouts; "
                f"{stats.calls} executions, {stats.failures} failed"
            )
        return "\n".join(lines)

    # -- a round -------------------------------------------------------------------------------------

    def _round(self) -> None:
        name, world, count = f"{self.seed}/{self.rounds}", self.world, self.operations
        runs: list[Callable[[], object]] = [
            lambda each=each: InThread(world, f"{name}/thread {each}").run(count)
            for each in range(self.threads)
        ]
        runs += [lambda each=each: asyncio.run(self._tasks(f"{name}/loop {each}")) for each in range(2)]
        runs.append(lambda: Disturber(world, f"{name}/disturber").run(count // 2))
        runs.append(lambda: Stepper(world, f"{name}/stepper").run(count // 2))
        struck: list[BaseException] = []
        threads = [threading.Thread(target=_guarded, args=(run, struck), daemon=True) for run in runs]
        for thread in threads:
            thread.start()
        self._fork(f"{name}/fork")
        give_up = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, give_up - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            self._fail(f"somebody hangs:\n{singleflight.report()}")
        if not singleflight.drain_sync(PATIENCE):
            self._fail(f"flights that do not end:\n{singleflight.report()}")
        if struck:
            self._fail(f"an actor raised {struck[0]!r}")

    async def _tasks(self, name: str) -> None:
        actors = [InTasks(self.world, f"{name}/task {each}") for each in range(self.tasks)]
        await asyncio.gather(*(actor.run(self.operations // 2) for actor in actors))
        await singleflight.drain(PATIENCE)  # what renews values is not to be cut short

    def _fork(self, name: str) -> None:
        """In the midst of it all; the child makes some calls alone."""
        if not hasattr(os, "fork"):
            return
        with self.oracle.lock:
            child = os.fork()
            if child == 0:
                _live_alone(self.oracle, InThread(self.world, name))
        give_up = time.monotonic() + 2 * CHILD_LIMIT
        ended, status = os.waitpid(child, os.WNOHANG)
        while not ended and time.monotonic() < give_up:
            time.sleep(0.002)
            ended, status = os.waitpid(child, os.WNOHANG)
        if not ended:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self.forks += 1
        if not ended or status:
            self._fail(f"a forked child {'hangs' if not ended else f'ended with status {status:#x}'}")

    # -- between rounds ------------------------------------------------------------------------------

    def _check_quiet(self) -> None:
        counts = self.oracle.counts
        self.oracle.quiet()
        if self.oracle.complaints:
            self._fail("\n".join(self.oracle.complaints[:3]))
        for kind, fetch in self.world.functions.items():
            told = {what: counts.get((kind.name, what), 0) for what in ("received", "calls", "failures")}
            for wrong in miscounts(fetch.stats(), **told):
                self._fail(f"{kind.name}: {wrong}\n{fetch.stats()}")
            memo: Any = fetch._self_cache
            left = [*fetch.flights(), *memo.adrift, *memo.batches]
            if left:
                self._fail(f"{kind.name}: left over: {left}")
        if waitgraph.waiting or waitgraph.below:
            self._fail(f"still noted as waiting: {waitgraph.waiting} {waitgraph.below}")
        gc.collect()
        self.blocks.append(sys.getallocatedblocks())
        self.received.append(sum(counts.get((kind.name, "received"), 0) for kind in self.world.functions))

    def _check_memory(self) -> None:
        """Everything that is kept has been made after the warm-up; from then on nothing grows with the calls.

        Whatever leaked with each call, wait, flight or instance would be a block of memory at least. A block
        for every twenty calls is allowed, and 1500 for what is kept now and was not then: some 100 entries,
        idle locks and the oracle's notes of them.
        """
        if self.rounds <= WARM_UP:
            return
        growth = self.blocks[-1] - self.blocks[WARM_UP - 1]
        if growth > 1500 + (self.received[-1] - self.received[WARM_UP - 1]) / 20:
            self._fail(f"memory grows: {self.blocks} blocks after rounds with {self.received} calls in all")

    def _fail(self, wrong: str) -> None:
        raise SoakFailed(f"seed {self.seed}, round {self.rounds}: {wrong}")


def miscounts(stats: Any, received: int, calls: int, failures: int) -> list[str]:
    """What in a function's statistics does not add up, now that its callers are quiet."""
    six = stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts
    wrong = [f"{six} calls counted, {received} received"] if six != received else []
    wrong += [f"{stats.calls} executions counted, {calls} run"] if stats.calls != calls else []
    wrong += [f"{stats.failures} failures counted of {failures}"] if stats.failures != failures else []
    wrong += [f"{stats.in_flight} in flight"] if stats.in_flight else []
    wrong += [f"{stats.locks - stats.idle_locks} locks held"] if stats.locks != stats.idle_locks else []
    return wrong


def _guarded(run: Callable[[], object], struck: list[BaseException]) -> None:
    try:
        run()
    except BaseException as error:
        struck.append(error)


def _live_alone(oracle: Oracle, actor: InThread) -> None:
    """What a forked child does; it has a hard limit, and ends here."""
    status = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHILD_LIMIT)
        oracle.alone()
        actor.run(len(ITEMS))
        status = 2 if oracle.complaints else 0
        if status:
            os.write(2, "\n".join(["in a forked child:", *oracle.complaints[:2], ""]).encode())
    except BaseException as error:
        os.write(2, f"in a forked child: {error!r}\n".encode())
    finally:
        os._exit(status)
