"""The locks of sections, and whether this very thread is inside one of another lock than the mutex.

A finaliser or signal handler runs anywhere, also while its own thread holds a store's lock. There it may
not wait: what it waits for may need that lock.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any, Protocol

__all__ = ["after_fork", "inside_other", "new_lock", "register"]


def new_lock() -> Any:
    """A `threading.RLock` whose `with` takes two thirds of the time.

    `with` looks for `__enter__` and `__exit__` on the type of what it enters, and binds them. Here the type
    is the lock's own, and has them bound already. Nothing else changes: no Python code runs on entering and
    leaving, so no interrupt can come between.
    """
    lock = threading.RLock()
    names = ("__enter__", "__exit__", "acquire", "release", "_is_owned", "_at_fork_reinit")
    bound = {name: getattr(lock, name) for name in names if hasattr(lock, name)}
    return type("RLock", (), {"__slots__": (), **bound})()


class Section(Protocol):
    """Something with a lock of its own."""

    def is_owned(self) -> bool:
        """Whether this very thread holds it."""
        ...


_sections: tuple[weakref.ref[Any], ...] = ()  # replaced as a whole, so that readers need no lock
_registering = threading.RLock()


def register(section: Section) -> None:
    """Remember it for as long as it lives."""
    global _sections
    with _registering:
        _sections = (*(ref for ref in _sections if ref() is not None), weakref.ref(section))


def inside_other() -> bool:
    """Whether this very thread is inside any of them: then it may not wait for anybody."""
    return any(section.is_owned() for section in (ref() for ref in _sections) if section is not None)


def after_fork() -> None:
    """In a forked child: nobody else is registering."""
    global _registering
    _registering = threading.RLock()
