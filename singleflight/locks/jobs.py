"""In which job of a thread a lock was taken: a pool's thread serves one after another, under one identifier.

A context manager may be entered in one job and left in another, on another thread: that is how web
frameworks run plain dependencies with a `yield`. So the identifier of a thread does not say who has a lock.
Two things do: the life of the thread, because the system gives the identifier of one that has ended to a new
one, and the future of the job that it ran then, read from the frames of `concurrent.futures` and anyio.

Of other pools nothing is known but how the lock was taken. Taken in a generator or in an `__enter__` it may
have been left to somebody else: that is in doubt unless whoever entered it is still on this thread's stack.

Nothing here runs code of the user's or takes a lock, so it may be asked under the mutex.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from inspect import CO_GENERATOR
from threading import get_ident
from typing import Any

from .lives import life_of_this_thread

__all__ = ["Job", "after_fork", "future_of_this_thread", "job_of_loop", "job_of_thread"]

main: Any = threading.main_thread().ident
"""The identifier of the main thread."""

_EXECUTORS, _ANYIO = _POOLS = ("concurrent.futures.thread", "anyio._backends._asyncio")
_COPIES = sys.version_info < (3, 13)  # whether `f_locals` of a function is a dictionary of its own


Entered = tuple[int, int, Any]
"""A frame: its identity, where in its code it was, and that code. Kept itself it would keep its variables."""


class Nobody:
    """Whoever has a lock that was taken in a job that is over: no thread in particular."""

    __slots__ = ("_thread",)

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def __str__(self) -> str:
        return f"a job of thread {self._thread} that is over"


class Job:
    """What a thread was doing when it took a lock. Never changed.

    Args:
        life: the thread's.
        future: the job's, where a pool is known to run one.
        entered: who entered the context manager that took the lock, where it may be left by somebody else.
    """

    __slots__ = ("_entered", "_future", "_life", "_thread")

    def __init__(
        self, life: Callable[[], object], future: Any = None, entered: Entered | None = None
    ) -> None:
        self._thread = get_ident()
        self._life = life
        self._future = None if future is None else weakref.ref(future)
        self._entered = entered

    def nobody(self) -> Nobody:
        """Who has the lock once the job is over."""
        return Nobody(self._thread)

    def is_over(self) -> bool:
        """Return True if its thread has ended, or serves another job by now."""
        if self._life() is None:
            return True
        if self._future is not None:
            future = self._future()
            if future is None or _has_ended(future):
                return True
            return self._thread == get_ident() and not _is_running(future)
        return False

    def is_in_doubt(self) -> bool:
        """Return True if it may be over, for all that can be seen from this thread.

        False on other threads. There the worst is a wait that is refused while it might have ended.
        """
        if self._entered is None or self._thread != get_ident():
            return False
        identity, place, code = self._entered
        frame: Any = sys._getframe()
        while frame is not None:
            if id(frame) == identity and frame.f_code is code and frame.f_lasti != place:
                return False  # whoever entered has gone on, and has not returned
            frame = frame.f_back
        return True


def _has_ended(future: Any) -> bool:
    """Return True if that job has ended. A cancelled one may go on in its thread."""
    return getattr(future, "_state", None) == "FINISHED"  # `done()` would take the future's lock


def _is_pooled() -> bool:
    """Return True if this thread is one of a known pool's: its outermost frames say so, and never change."""
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") in _POOLS:
            return True
        frame = frame.f_back
    return False


# No subclass of it: Temporal's sandbox shows modules a stand-in, which cannot be one's base.
_local = threading.local()


def _own_job() -> Job:
    """What this thread is doing, for all that is known of a thread of no pool; the same object each time."""
    try:
        job: Job = _local.job
    except AttributeError:  # once for each thread
        _local.is_pooled = _is_pooled()
        job = _local.job = Job(life_of_this_thread())
    return job


def job_of_thread(block: Any) -> Job | None:
    """What this thread is doing; None on the main thread, which serves no pool and never ends.

    Args:
        block: the frame that takes the lock.
    """
    if get_ident() == main:
        return None
    job = _own_job()
    future = future_of_this_thread() if _local.is_pooled else None
    if future is not None and not _has_ended(future):  # else a callback of that job runs here, after it
        return Job(life_of_this_thread(), future)
    entered = _entered(block)
    return job if entered is None else Job(life_of_this_thread(), None, entered)


def job_of_loop() -> Job | None:
    """The same for a task: the loop that it runs on may be stopped, and then its thread may end."""
    return None if get_ident() == main else _own_job()


def future_of_this_thread() -> Any:
    """The future of the job that a pool runs on this thread, or None where none is known.

    Found in the thread's own frames. (`sys._current_frames`, which would show those of any thread, can
    deadlock the interpreter while threads start or end.)
    """
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "run" and (future := _future_in(frame)) is not None:
            return future
        frame = frame.f_back
    return None


def _is_running(future: Any) -> bool:
    """Return True if this very thread is in that job, or in one within it."""
    frame: Any = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "run" and _future_in(frame) is future:
            return True
        frame = frame.f_back
    return False


def _future_in(frame: Any) -> Any:
    """The future of the job that this frame runs, if it is one of the pools that are known."""
    module = frame.f_globals.get("__name__")
    if module == _EXECUTORS:
        return getattr(_variable(frame, "self"), "future", None)
    return _variable(frame, "future") if module == _ANYIO else None


def _variable(frame: Any, name: str) -> Any:
    variables = frame.f_locals
    value = variables.get(name)
    if _COPIES:
        variables.clear()  # the frame would keep that copy, and what is in it
    return value


def _entered(frame: Any) -> Entered | None:
    """Who entered the context manager in which a lock is taken; None where it is taken for a block."""
    left_open = False
    while frame is not None:
        code = frame.f_code
        if code.co_flags & CO_GENERATOR or code.co_name == "__enter__":
            left_open = True
        elif frame.f_globals.get("__name__") != "contextlib":
            return (id(frame), frame.f_lasti, code) if left_open else None
        frame = frame.f_back
    return None


def after_fork() -> None:
    """In a forked child the thread that forked is the main one."""
    global main
    main = get_ident()
