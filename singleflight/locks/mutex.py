"""The process-wide mutex, locks like it, and whether this very thread is inside a section of one.

One `mutex` guards all slots and turns of all registries, because cycles of waiting cross functions. It is
held for microseconds, never together with a store's lock, and runs nothing of the user's but a key's
`__hash__` and `__eq__`. It is re-entrant only so that a finaliser or signal handler that comes back in the
midst of a section can notice (`inside`) and keep out, instead of hanging.

A finaliser or signal handler runs anywhere, also while its own thread holds a store's lock. There it may
not wait: what it waits for may need that lock.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from types import FunctionType
from typing import Any, Protocol, TypeVar

__all__ = ["ask_too", "inside", "inside_other", "mutex", "new_lock", "with_sections"]


def new_lock() -> Any:
    """A `threading.RLock` whose `with` takes two thirds of the time.

    `with` looks for `__enter__` and `__exit__` on the type of what it enters, and binds them. Here the type
    is the lock's own, and has them bound already. Nothing else changes: no Python code runs on entering and
    leaving, so no interrupt can come between.

    But on Python 3.14, where CPython looks for signals between such an `__enter__` and the block that is to
    leave again (its issue 148874). It does not after a Python function has returned, nor after an item was
    looked up; so there a function takes the lock as an item of itself.
    """
    lock = threading.RLock()
    names = ("__enter__", "__exit__", "acquire", "release", "_is_owned", "_at_fork_reinit")
    bound = {name: getattr(lock, name) for name in names if hasattr(lock, name)}
    if _LOOKS_BEFORE_BLOCKS:
        bound |= {"__enter__": _enter, "__getitem__": lock.acquire}
    return type("RLock", (), {"__slots__": (), **bound})()


_LOOKS_BEFORE_BLOCKS = sys.version_info[:2] == (3, 14)


def _enter(lock: Any) -> None:
    lock[True]  # `acquire(True)`; no call may stand here


mutex: Any = new_lock()
inside: Callable[[], bool] = mutex._is_owned
"""Return True if this very thread is inside a section of the mutex, as only a re-entry can find."""


_files: set[str] = set()
"""Where the classes are defined whose objects have a lock of their own."""

C = TypeVar("C", bound=type)


def with_sections(kind: C) -> C:
    """Class decorator: its objects have a lock, and say by `is_owned()` if this very thread holds it."""
    _files.update(each.__code__.co_filename for each in vars(kind).values() if isinstance(each, FunctionType))
    return kind


class Owner(Protocol):
    """What has locks that other objects enter as well."""

    def is_owned(self) -> bool:
        """Return True if this very thread is inside a section of one of them."""
        ...


_owners: tuple[weakref.ref[Owner], ...] = ()


def ask_too(owner: Owner) -> None:
    """Have `inside_other` ask this one as well, as long as it lives. There may only be a few of them."""
    global _owners
    with mutex:
        _owners = (*(ref for ref in _owners if ref() is not None), weakref.ref(owner))


def inside_other() -> bool:
    """Return True if this very thread is inside a section of such an object: then it may not wait.

    Whatever runs in there was called from a method of that object, so the frames show it. That costs the
    same however many decorated functions there are. Where others enter the lock as well it is asked itself.
    """
    for ref in _owners:
        owner = ref()
        if owner is not None and owner.is_owned():
            return True
    files, frame = _files, sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename in files:
            is_owned = getattr(frame.f_locals.get("self"), "is_owned", None)
            if is_owned is not None and is_owned():
                return True
        frame = frame.f_back  # type: ignore[assignment]
    return False
