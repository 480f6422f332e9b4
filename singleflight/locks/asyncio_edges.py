"""Who waits for a task or thread outside this library: read from CPython's own bookkeeping.

asyncio notes with each future what to call when it is done. From these callbacks one can walk upwards:
from a task to whoever awaits it, directly or through gather, TaskGroup, wait, wait_for, shield, a thread
of an executor, or the `run_until_complete` that a thread is blocked in. Nothing here is documented by
CPython, so this is the only module that does it, and what it does not recognise it leaves out: then a
caller waits that might have been refused. Only those count that cannot go on before the task is done; so
`wait(..., return_when=FIRST_COMPLETED)` and `wait(..., timeout=...)` do not.

This is a walk over private attributes on purpose. Python 3.14 has `asyncio.capture_call_graph`, which tells
direct awaiters only.

Callers in threads ask this too, under the mutex. So nothing is imported here: where there is a task or an
executor's job to walk from, the modules that know them are there.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator
from threading import get_ident
from typing import TYPE_CHECKING, Any

from .jobs import future_of_this_thread

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future as ThreadFuture

__all__ = ["above_job", "above_task", "job_of_this_thread"]

_AT_ONCE = ("FIRST_COMPLETED", "FIRST_EXCEPTION")  # asyncio's constants
_WAKE_UPS = ("task_wakeup", "__wakeup")  # of tasks written in C, and of those written in Python


def above_task(task: asyncio.Task[Any]) -> set[Any]:
    """Every task, and every thread by its identifier, that cannot go on before this task is done."""
    return _climb([task])


def job_of_this_thread() -> ThreadFuture[Any] | None:
    """The future of what an executor runs on this thread, or None where none does."""
    future = future_of_this_thread()
    futures: Any = sys.modules.get("concurrent.futures")
    return future if future is not None and isinstance(future, futures.Future) else None


def above_job(future: ThreadFuture[Any]) -> set[Any]:
    """Every task and thread that cannot go on before an executor's job is done."""
    return _climb(list(_of_thread_future(future)))


def _climb(todo: list[Any]) -> set[Any]:
    above: set[Any] = set()
    while todo:
        waiter = todo.pop()
        if waiter not in above:
            above.add(waiter)
            if isinstance(waiter, int):
                # A loop runs on top of what this very thread does; perhaps that is a job of an executor.
                job = job_of_this_thread() if waiter == get_ident() else None
                todo += [] if job is None else _of_thread_future(job)
            elif waiter is not None:
                todo += _awaiters(waiter)
    return above


def _awaiters(future: asyncio.Future[Any]) -> Iterator[Any]:
    """Whatever cannot be done before this future is."""
    asyncio: Any = sys.modules["asyncio"]
    for callback, *_ in getattr(future, "_callbacks", None) or ():
        owner: Any = getattr(callback, "__self__", None)
        if asyncio.isfuture(owner):
            if getattr(callback, "__name__", "") in _WAKE_UPS:  # and not, say, its `cancel`
                yield owner  # a task that awaits it
        elif isinstance(owner, asyncio.TaskGroup):
            if owner._on_completed_fut is not None:
                yield owner._on_completed_fut
        elif isinstance(callback, functools.partial):
            if getattr(callback.func, "__module__", "") == "asyncio.tasks":
                yield from _futures(callback.args)  # wait_for, Python 3.11
        elif getattr(callback, "__name__", "") == "_run_until_complete_cb":
            # The thread whose frames are beneath the loop.
            yield getattr(future.get_loop(), "_thread_id", None)
        elif asyncio.isfuture(home := getattr(owner, "home", None)):
            yield home  # our own: the caller whose flight this task runs
        else:
            yield from _futures(_closure(callback))


def _closure(callback: Any) -> list[Any]:
    """What gather, shield, wait and the bridges between loops and threads keep in their callbacks."""
    code, cells = getattr(callback, "__code__", None), getattr(callback, "__closure__", None)
    if code is None or not cells or not str(callback.__module__).startswith("asyncio."):
        return []
    variables = {}
    for name, cell in zip(code.co_freevars, cells, strict=True):
        try:
            variables[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    if variables.get("return_when") in _AT_ONCE or variables.get("timeout_handle") is not None:
        return []  # `wait` may go on before
    return list(variables.values())


def _futures(values: Iterable[Any]) -> Iterator[Any]:
    return (value for value in values if sys.modules["asyncio"].isfuture(value))


def _of_thread_future(future: ThreadFuture[Any]) -> Iterator[Any]:
    """The loops' futures that wait for what an executor runs."""
    for callback in list(getattr(future, "_done_callbacks", ())):
        yield from _futures(_closure(callback))
