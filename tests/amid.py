"""To be inside a section of the library's, as finalisers and signal handlers find themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from singleflight.locks.mutex import mutex, with_sections

__all__ = ["amid"]

T = TypeVar("T")


@with_sections
class _Section:
    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self.is_owned = lock._is_owned

    def run(self, act: Callable[[], T]) -> T:
        with self._lock:
            return act()


def amid(lock: Any, act: Callable[[], T]) -> T:
    """Run something while this thread is inside a section of that lock (a store's, the pool's, the mutex)."""
    if lock is mutex:
        with mutex:
            return act()
    return _Section(lock).run(act)
