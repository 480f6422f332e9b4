"""What is fetched, and those who ask for it: threads and tasks whose outcomes are told in few words."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import Any

PATIENCE = float(os.environ.get("COMPARING_PATIENCE", "4"))  # seconds after which a caller is said to hang
HANGS = "hangs"
NAMES = {"old": "the old value"}


class Work:
    """The function that is fetched. It counts its calls, and waits at `go`, then returns or raises `result`."""

    def __init__(self, result: Any = "value") -> None:
        self.result = result
        self.calls = self.inside = self.most = 0
        self.started, self.go = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    @contextmanager
    def counted(self):
        with self._lock:
            self.calls += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
        self.started.set()
        try:
            yield
        finally:
            with self._lock:
                self.inside -= 1

    def plain(self, symbol):
        with self.counted():
            self.go.wait(2 * PATIENCE)
            return self._end()

    async def coroutine(self, symbol):
        with self.counted():
            while not self.go.is_set():
                await asyncio.sleep(0.001)
            return self._end()

    def _end(self):
        if isinstance(self.result, BaseException):
            raise type(self.result)(*self.result.args)
        return self.result

    def function(self, colour):
        """A function of its own, as libraries keep attributes on functions and make keys of their names."""

        def price(symbol):
            return self.plain(symbol)

        async def coroutine_price(symbol):
            return await self.coroutine(symbol)

        return price if colour == "threads" else coroutine_price

    def reset(self, result: Any = "value") -> None:
        self.calls = self.inside = self.most = 0
        self.result = result
        self.started.clear()
        self.go.clear()


class Caller(threading.Thread):
    """A thread that asks; `outcome` is what it got, an exception that it caught, or HANGS."""

    def __init__(self, call, *args) -> None:
        super().__init__(daemon=True)
        self.call, self.args, self.outcome = call, args, HANGS

    def run(self) -> None:
        try:
            self.outcome = self.call(*self.args)
        except BaseException as error:
            self.outcome = error

    def begin(self) -> Caller:
        self.start()
        return self

    def result(self) -> Any:
        self.join(PATIENCE)
        return self.outcome


def settled(peer, call, followers: list[Caller]) -> None:
    """Wait until nobody moves: the library says who waits, or else no thread has run for a while."""
    deadline = time.monotonic() + PATIENCE
    seen, since = None, time.monotonic()
    while time.monotonic() < deadline:
        alive = [thread for thread in followers if thread.is_alive()]
        counted = peer.waiting(call)
        if counted is not None and counted >= len(alive):
            return
        now = [(thread.native_id, _switches(thread.native_id)) for thread in alive]
        if now != seen:
            seen, since = now, time.monotonic()
        elif counted is None and time.monotonic() - since > 0.25:
            return
        time.sleep(0.02)


def _switches(thread: int) -> list[str]:
    """How often the system has let a thread run: a thread that waits, and not for its interpreter, is not let run."""
    try:
        with open(f"/proc/self/task/{thread}/status", encoding="ascii") as file:
            return [line for line in file if "ctxt_switches" in line]
    except OSError:
        return []


def ask_at_once(peer, call, work: Work, size: int = 10) -> list[Any]:
    """The first thread is inside the function when the others come; then it may go on. Their outcomes."""
    callers = [Caller(call, "ASML").begin()]
    work.started.wait(PATIENCE)
    callers += [Caller(call, "ASML").begin() for _ in range(size - 1)]
    settled(peer, call, callers[1:])
    work.go.set()
    return [caller.result() for caller in callers]


async def ticks(count: int = 100) -> None:
    """Long enough for every other task to come to where it waits for something else."""
    for _ in range(count):
        await asyncio.sleep(0)


async def started(work: Work) -> None:
    for _ in range(int(PATIENCE * 1000)):
        if work.started.is_set():
            return
        await asyncio.sleep(0.001)


async def outcome(task: asyncio.Task) -> Any:
    """What a task got; it is not cancelled here."""
    await asyncio.wait([task], timeout=PATIENCE)
    if not task.done():
        return HANGS
    if task.cancelled():
        return asyncio.CancelledError()
    return task.exception() or task.result()


async def tasks_at_once(call, work: Work, size: int = 10) -> list[asyncio.Task]:
    """Tasks that all wait, the first of them for the function itself."""
    tasks = [asyncio.create_task(call("ASML"))]
    await started(work)
    tasks += [asyncio.create_task(call("ASML")) for _ in range(size - 1)]
    await ticks()
    return tasks


async def outcomes(tasks) -> list[Any]:
    return list(await asyncio.gather(*(outcome(task) for task in tasks)))


def times(count: int, noun: str = "call") -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")


def kind(got: Any) -> str:
    return type(got).__name__ if isinstance(got, BaseException) else str(got)


def others(got: list[Any], wanted: str) -> list[str]:
    """Who got something else, by what it is."""
    counts = Counter(kind(one) for one in got if kind(one) != wanted)
    hung = counts.pop(HANGS, 0)
    parts = [f"{count} get {NAMES.get(name, name)}" for name, count in sorted(counts.items())]
    return parts + ([f"{hung} hang"] if hung else [])


def told(work: Work, got: list[Any], wanted: str) -> str:
    """`1 call`, and what else happened than that everybody got what was wanted."""
    cell = times(work.calls)
    if work.calls > 2:
        cell += " at once" if work.most > 1 else " in turn"
    return ", ".join([cell, *others(got, wanted)])


def tell(got: list[Any], wanted: str, fine: str) -> str:
    """`fine` where all got what was wanted, else what the others got."""
    return ", ".join(others(got, wanted)) or fine
