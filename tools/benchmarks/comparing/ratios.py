"""How long the same work takes each library: in one process, in turns, the best of many rounds."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from comparing import peers as setups
from comparing.callers import PATIENCE, Caller, Work, settled, ticks
from comparing.cases import HERE
from comparing.peers import Peer
from comparing.variants import named

Times = dict[str, float]  # by the name of the library


def key(symbol):
    return symbol


def function(symbol):
    return 984.75


async def coroutine_function(symbol):
    return 984.75


def best_of(candidates: dict[str, Callable[[int], Callable[[], Any]]], rounds: int, size: int) -> Times:
    """Nanoseconds for each of `size` steps; a candidate makes ready what is then timed."""
    best = dict.fromkeys(candidates, float("inf"))
    gc.disable()
    try:
        for _ in range(rounds):
            for name, ready in candidates.items():
                run = ready(size)
                began = time.perf_counter_ns()
                run()
                best[name] = min(best[name], (time.perf_counter_ns() - began) / size)
            gc.collect(0)
    finally:
        gc.enable()
    return best


def taking(colour: str, peers: list[Peer]) -> list[Peer]:
    return [peer for peer in peers if colour in peer.colours]


def decorate(peer: Peer, function):
    return peer.decorate(function, key=None if peer.own_key else key)


def hits(peers: list[Peer], rounds: int) -> Times:
    def ready(call):
        def run():
            for _ in range(1000):
                call("ASML")

        call("ASML")
        return lambda size: run

    return best_of({peer.name: ready(decorate(peer, function)) for peer in peers}, rounds, 1000)


def misses(peers: list[Peer], rounds: int) -> Times:
    numbers = count()

    def ready(call):
        def fresh(size):
            symbols = [str(next(numbers)) for _ in range(size)]

            def run():
                for symbol in symbols:
                    call(symbol)

            return run

        fresh(2 * setups.SIZE)()  # from here on each miss evicts, where there is a limit
        return fresh

    return best_of({peer.name: ready(decorate(peer, function)) for peer in peers}, rounds, 500)


def coroutine_hits(peers: list[Peer], rounds: int) -> Times:
    with asyncio.Runner() as runner:

        def ready(call):
            async def many():
                for _ in range(500):
                    await call("ASML")

            runner.run(many())
            return lambda size: lambda: runner.run(many())

        return best_of({peer.name: ready(decorate(peer, coroutine_function)) for peer in peers}, rounds, 500)


def coroutine_misses(peers: list[Peer], rounds: int) -> Times:
    numbers = count()
    with asyncio.Runner() as runner:

        def ready(call):
            async def many(symbols):
                for symbol in symbols:
                    await call(symbol)

            def fresh(size):
                symbols = [str(next(numbers)) for _ in range(size)]
                return lambda: runner.run(many(symbols))

            fresh(2 * setups.SIZE)()
            return fresh

        return best_of({peer.name: ready(decorate(peer, coroutine_function)) for peer in peers}, rounds, 200)


def herd(peers: list[Peer], rounds: int, size: int = 100) -> Times:
    """From when the function may return to when the last of the threads has its value."""

    def once(peer) -> float:
        work = Work()
        call = decorate(peer, work.function("threads"))
        ended = []

        def ask():
            call("ASML")
            ended.append(time.perf_counter_ns())

        callers = [Caller(ask).begin()]
        work.started.wait(PATIENCE)
        callers += [Caller(ask).begin() for _ in range(size - 1)]
        settled(peer, call, callers[1:])
        began = time.perf_counter_ns()
        work.go.set()
        for caller in callers:
            caller.result()
        return (max(ended) - began) / size

    best = dict.fromkeys((peer.name for peer in peers), float("inf"))
    for _ in range(rounds):
        for peer in peers:
            best[peer.name] = min(best[peer.name], once(peer))
    return best


def task_herd(peers: list[Peer], rounds: int, size: int = 1000) -> Times:
    """All of it: from making the first task to when the last has its value."""

    async def main():
        release = asyncio.Event()

        async def slow(symbol):
            await release.wait()
            return 984.75

        async def once(call, symbol):
            release.clear()
            gc.collect()
            began = time.perf_counter_ns()
            tasks = [asyncio.create_task(call(symbol)) for _ in range(size)]
            await ticks(5)
            release.set()
            await asyncio.gather(*tasks)
            return (time.perf_counter_ns() - began) / size

        calls = {peer.name: decorate(peer, slow) for peer in peers}
        best = dict.fromkeys(calls, float("inf"))
        for number in range(rounds):
            for name, call in calls.items():
                best[name] = min(best[name], await once(call, str(number)))
        return best

    return asyncio.run(main())


ENTRIES = 50_000


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill(name: str) -> None:
    """In a process of its own: print how many bytes the process grows by for each entry."""
    peer = named(name)
    setups.SIZE = ENTRIES
    colour = peer.colours[0]
    with asyncio.Runner() as runner:
        if colour == "threads":
            call = decorate(peer, lambda symbol: float(symbol))
        else:

            async def coroutine(symbol):
                return float(symbol)

            awaited = decorate(peer, coroutine)

            def call(symbol):
                return runner.run(awaited(symbol))

        for number in range(100):
            call(str(number))
        gc.collect()
        before = resident()
        for number in range(100, ENTRIES):
            call(str(number))
        gc.collect()
        print((resident() - before) / (ENTRIES - 100), flush=True)
        os._exit(0)


def memory(peers: list[Peer], rounds: int) -> Times:
    """Bytes for each entry, key and value included; only where the system tells."""
    if not os.path.exists("/proc/self/statm"):
        return {}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}

    def grown(peer):
        program = [sys.executable, "-c", f"from comparing.ratios import fill; fill({peer.name!r})"]
        done = subprocess.run(
            program, capture_output=True, text=True, env=environment, timeout=120, check=True
        )
        return float(done.stdout)

    return {peer.name: min(grown(peer) for _ in range(rounds)) for peer in peers}


def imports(peers: list[Peer], rounds: int) -> Times:
    """With compiled files, as installed packages have them, whatever this environment says."""
    best = {peer.name: float("inf") for peer in peers}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder:
        environment["PYTHONPYCACHEPREFIX"] = folder
        for _ in range(rounds):
            for name in best:
                program = [sys.executable, "-c", f"from comparing.beginning import begin; begin({name!r})"]
                done = subprocess.run(
                    program, capture_output=True, text=True, env=environment, timeout=120, check=True
                )
                best[name] = min(best[name], float(done.stdout))
    return best


Measure = Callable[[list[Peer], int], Times]
# What is measured, for whom, in what, and in how many rounds, quick ones in brackets.
WORK: dict[str, tuple[str, Measure, str, int, int]] = {
    "hit": ("threads", hits, "ns", 150, 20),
    "miss": ("threads", misses, "ns", 60, 10),
    "100 threads on a key": ("threads", herd, "ns a thread", 8, 2),
    "coroutine hit": ("tasks", coroutine_hits, "ns", 100, 20),
    "coroutine miss": ("tasks", coroutine_misses, "ns", 60, 10),
    "1000 tasks on a key": ("tasks", task_herd, "ns a task", 15, 4),
    "memory": ("", memory, "bytes an entry", 2, 1),
    "import": ("", imports, "ms", 20, 5),
}


def measured(peers: list[Peer], quick: bool = False) -> dict[str, Times]:
    found = {}
    for title, (colour, measure, _, rounds, few) in WORK.items():
        chosen = taking(colour, peers) if colour else peers
        found[title] = measure(chosen, few if quick else rounds)
    return found
