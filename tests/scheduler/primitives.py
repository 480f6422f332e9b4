"""What actors use instead of `threading` and `time`: every operation is a scheduling point.

Outside a run, and on a thread that is no actor, the locks work as locks that nobody contends for.
"""

from __future__ import annotations

import threading
import time
import types
from typing import Any

from .baton import BEGIN, Deadlock, running

__all__ = ["Condition", "Event", "Lock", "RLock", "modules", "monotonic", "sleep"]

_OUTSIDE = "somebody outside a run"


class Lock:
    """As `threading.Lock`."""

    def __init__(self) -> None:
        self.owner: Any = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = running()
        if scheduler is None:
            return self._acquire_outside(blocking and timeout < 0)
        scheduler.point()
        give_up = None if timeout < 0 else scheduler.now + timeout
        while self.owner is not None:
            left = None if give_up is None else max(0.0, give_up - scheduler.now)
            if not blocking or not scheduler.block(self, left):
                return False
        self.owner = scheduler.actor
        return True

    def _acquire_outside(self, for_ever: bool) -> bool:
        if self.owner is not None:
            if for_ever:
                raise Deadlock(f"a lock of {self.owner!r} is wanted by {_OUTSIDE}")
            return False
        self.owner = _OUTSIDE
        return True

    def release(self) -> None:
        if self.owner is None:
            raise RuntimeError("release unlocked lock")
        self.owner = None
        scheduler = running()
        if scheduler is not None:
            scheduler.wake(self)
            scheduler.point()

    def locked(self) -> bool:
        return self.owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self.owner, self._depth = None, 0


class RLock(Lock):
    """As `threading.RLock`."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not self._is_owned() and not super().acquire(blocking, timeout):
            return False
        self._depth += 1
        return True

    __enter__ = acquire

    def release(self) -> None:
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        self._depth -= 1
        if not self._depth:
            super().release()

    def _is_owned(self) -> bool:
        scheduler = running()
        me = _OUTSIDE if scheduler is None else scheduler.actor
        return self.owner is me


class Condition:
    """As `threading.Condition`, with a lock of its own."""

    def __init__(self) -> None:
        self._lock = RLock()
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        scheduler = running()
        assert scheduler is not None
        self._lock.owner, depth, self._lock._depth = None, self._lock._depth, 0
        scheduler.wake(self._lock)
        notified = scheduler.block(self, timeout)
        self._lock.acquire()
        self._lock._depth = depth
        return notified

    def notify_all(self) -> None:
        scheduler = running()
        if scheduler is not None:
            scheduler.wake(self)


class Event:
    """As `threading.Event`."""

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        scheduler = running()
        if scheduler is not None:
            scheduler.wake(self)
            scheduler.point()

    def wait(self, timeout: float | None = None) -> bool:
        scheduler = running()
        assert scheduler is not None
        scheduler.point()
        return self._set or scheduler.block(self, timeout)


def monotonic() -> float:
    """The virtual time."""
    scheduler = running()
    if scheduler is None:
        return BEGIN
    scheduler.point()
    return scheduler.now


def sleep(seconds: float) -> None:
    """Virtually; `sleep(0)` is a mere scheduling point."""
    scheduler = running()
    assert scheduler is not None
    if seconds:
        scheduler.block("some time to pass", seconds)
    else:
        scheduler.point()


def modules() -> dict[str, types.ModuleType]:
    """Stand-ins for the modules of these names."""
    fakes = {}
    for module, own in (
        (threading, {"Lock": Lock, "RLock": RLock, "Condition": Condition, "Event": Event}),
        (time, {"monotonic": monotonic, "sleep": sleep}),
    ):
        fake = types.ModuleType(module.__name__)
        fake.__dict__.update(vars(module))
        fake.__dict__.update(own)
        fakes[module.__name__] = fake
    return fakes
