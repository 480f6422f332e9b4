"""The small pool of threads in which plain functions renew values in the background.

It is made when the first value is renewed, shared by all functions, and bounded: a renewal that finds no
place is refused, and its caller renews in line. The executor is the standard library's, which waits at
exit for what has begun.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..common.messages import shown
from ..locks.mutex import new_lock, with_sections

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["after_fork", "configure_renewal", "in_background"]


@with_sections  # nobody renews anything from within: see `inside_other`
class _Pool:
    """All fields are guarded by `lock`, which is re-entrant only so that a handler finds out (`is_owned`)."""

    def __init__(self, threads: int, queued: int) -> None:
        self.lock = new_lock()
        self.is_owned: Callable[[], bool] = self.lock._is_owned
        self.threads, self.queued = threads, queued
        self._jobs: dict[int, list[Callable[[], object]]] = {}  # that have a place, by identity
        self.executor: ThreadPoolExecutor | None = None

    @property
    def under_way(self) -> int:
        """How many renewals run or wait for a thread."""
        return len(self._jobs)

    def submit(self, run: Callable[[], object]) -> bool:
        """Have it run by a thread; False where there is no place, or no more at all."""
        try:
            kind = executor_kind()  # under no lock
        except (ImportError, RuntimeError):  # the interpreter shuts down
            return False
        with self.lock:
            if self.under_way >= self.threads + self.queued:
                return False
            if self.executor is None:
                self.executor = kind(self.threads, thread_name_prefix="singleflight-renewal")
            return self._hand_over([run], self.executor)

    def _hand_over(self, job: list[Callable[[], object]], executor: ThreadPoolExecutor) -> bool:
        try:
            self._jobs[id(job)] = job
            executor.submit(self._run, job)
        except BaseException as error:
            job.clear()  # it may have been queued all the same
            self._jobs.pop(id(job), None)
            if isinstance(error, RuntimeError):  # the interpreter shuts down, or it cannot start a thread
                return False
            raise  # an interrupt
        return True

    def _run(self, job: list[Callable[[], object]]) -> None:
        with self.lock:
            if not job:
                return
        try:
            job.pop()()
        finally:
            with self.lock:
                del self._jobs[id(job)]


def executor_kind() -> type[ThreadPoolExecutor]:
    """What has the threads: imported where a value is to be renewed, and not before."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor


_pool = _Pool(threads=4, queued=60)


def in_background(run: Callable[[], object]) -> bool:
    """Have something run by a thread of the pool; False if it was refused, and will not be."""
    return _pool.submit(run)


def configure_renewal(*, threads: int = 4, queued: int = 60) -> None:
    """Set how plain functions renew values in the background, for the whole process.

    Args:
        threads: how many renewals may run at a time (default 4).
        queued: how many more may wait for a thread (default 60); the caller of a further one renews its
            value itself, and waits for it.

    Renewals that are under way go on in the threads that they have. Coroutine functions do not use them:
    they renew in a task of the event loop that they are called on. Raises `TypeError` or `ValueError`,
    naming the argument. Safe to call from any thread.

    >>> configure_renewal(threads=8)
    """
    global _pool
    for name, value, least in (("threads", threads, 1), ("queued", queued, 0)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name}: expected a whole number, got {shown(value)}")
        if value < least:
            raise ValueError(f"{name}: must be at least {least}, got {value}")
    before, _pool = _pool, _Pool(threads, queued)
    with before.lock:
        executor = before.executor
    if executor is not None:
        executor.shutdown(wait=False)


def after_fork() -> None:
    """In a forked child: none of its threads are here."""
    global _pool
    _pool = _Pool(_pool.threads, _pool.queued)
