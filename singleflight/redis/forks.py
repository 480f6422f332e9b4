"""What belongs to a process and not to its forked children: connections, threads, leases, who waits."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

__all__ = ["renew_in_children"]


class _Renewed(Protocol):
    def after_fork(self) -> None: ...


# Replaced as a whole under `_adding`, so that a fork at any moment finds it whole.
_living: tuple[weakref.ref[_Renewed], ...] = ()
_adding = threading.RLock()


def renew_in_children(thing: _Renewed) -> None:
    """Have a forked child call `after_fork` of this for as long as it lives."""
    global _living
    with _adding:
        _living = (*(ref for ref in _living if ref() is not None), weakref.ref(thing))


def _after_fork() -> None:
    global _adding
    _adding = threading.RLock()
    for ref in _living:
        thing = ref()
        if thing is not None:
            thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
