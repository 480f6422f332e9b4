"""Callers that start together, in threads or in the tasks of a loop, and their outcomes."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Caller", "in_tasks", "in_threads"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
NAMED = 20  # how many of those that hang are named
TIDYING = 1.0  # how long cancelled tasks may take to leave, in seconds


@dataclass(frozen=True, slots=True)
class Caller(Generic[R_co]):
    """The outcome of one caller: its `number` from 0, how many seconds it `waited`, and what it got.

    `error` is the exception that it received, or None. `value` is the returned value, or None if it raised.
    """

    number: int
    waited: float
    value: R_co | None
    error: BaseException | None = None

    @property
    def outcome(self) -> Any:
        """The value, or the exception itself."""
        return self.value if self.error is None else self.error


def _late(patience: float, hanging: Sequence[int], n: int, where: Sequence[str]) -> TimeoutError:
    named = ", ".join(map(str, hanging[:NAMED])) + (", ..." if len(hanging) > NAMED else "")
    told = f"after {patience:g} s, {len(hanging)} of the {n} callers hang: {named}"
    if where:
        told += f"\ncaller {hanging[0]} is at\n{''.join(where).rstrip()}"
    return TimeoutError(told)


# -- threads ---------------------------------------------------------------------------------------------


class _Start:
    """Holds threads until all of them have arrived."""

    def __init__(self) -> None:
        self.ready = threading.Semaphore(0)
        self.open = threading.Event()
        self.called_off = False  # written before `open` is set

    def pass_(self) -> bool:
        """Wait for the start. Return False if it was called off."""
        self.ready.release()
        self.open.wait()
        return not self.called_off


def in_threads(call: Callable[[], R], n: int, patience: float) -> tuple[list[Caller[R]], float]:
    """Call it in `n` threads. Return their outcomes, and the seconds from their release to the last one."""
    give_up = time.monotonic() + patience
    start, ended = _Start(), dict[int, Caller[R]]()

    def run(number: int, context: contextvars.Context) -> None:
        if start.pass_():
            ended[number] = context.run(_ask, call, number)

    threads = []
    try:
        for number in range(n):
            given = (number, contextvars.copy_context())
            threads.append(threading.Thread(target=run, args=given, name=f"stampede-{number}", daemon=True))
            threads[-1].start()
        there = all(start.ready.acquire(timeout=max(0, give_up - time.monotonic())) for _ in range(n))
    except BaseException:
        start.called_off = True
        start.open.set()
        raise
    released = time.perf_counter()
    start.called_off = not there
    start.open.set()
    for thread in threads:
        thread.join(max(0, give_up - time.monotonic()))
    took = time.perf_counter() - released
    hanging = [number for number in range(n) if number not in ended]
    if hanging:
        raise _late(patience, hanging, n, _where(threads[hanging[0]]))
    return [ended[number] for number in range(n)], took


def _where(thread: threading.Thread) -> list[str]:
    """Return the stack of a thread. On 3.11 `sys._current_frames` can deadlock in a garbage collection."""
    collects = gc.isenabled()
    gc.disable()
    try:
        frame = sys._current_frames().get(thread.ident or 0)
    finally:
        if collects:
            gc.enable()
    return traceback.format_stack(frame) if frame else []


def _ask(call: Callable[[], R], number: int) -> Caller[R]:
    began = time.perf_counter()
    try:
        value = call()
    except BaseException as error:
        return Caller(number, time.perf_counter() - began, None, error)
    return Caller(number, time.perf_counter() - began, value)


# -- tasks -----------------------------------------------------------------------------------------------


async def in_tasks(
    call: Callable[[], Awaitable[R]], n: int, patience: float
) -> tuple[list[Caller[R]], float]:
    """Do the same in tasks of the running loop."""
    everybody, there, released = asyncio.Event(), 0, 0.0

    async def run(number: int) -> Caller[R]:
        nonlocal there, released
        there += 1
        if there == n:
            released = time.perf_counter()
            everybody.set()
        await everybody.wait()
        return await _ask_awaiting(call, number)

    tasks = [asyncio.create_task(run(number), name=f"stampede-{number}") for number in range(n)]
    try:
        _, late = await asyncio.wait(tasks, timeout=patience)
        took = time.perf_counter() - released
        if late:
            hanging = [number for number, task in enumerate(tasks) if task in late]
            raise _late(patience, hanging, n, _stack(tasks[hanging[0]].get_coro()))
    finally:
        left = [task for task in tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=TIDYING)
    return [task.result() for task in tasks], took


def _stack(coroutine: Any) -> list[str]:
    """Return the stack of a suspended coroutine, through everything that it awaits."""
    frames = traceback.StackSummary()
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        frames.extend(traceback.extract_stack(frame, 1))
        coroutine = coroutine.cr_await
    return frames.format()


async def _ask_awaiting(call: Callable[[], Awaitable[R]], number: int) -> Caller[R]:
    began = time.perf_counter()
    try:
        value = await call()
    except BaseException as error:
        return Caller(number, time.perf_counter() - began, None, error)
    return Caller(number, time.perf_counter() - began, value)
