"""Has a thread ended that was seen earlier?

Its identifier does not tell: another thread gets the same one. `threading.Thread.is_alive` does not tell of
threads that were not started by `threading`. So each thread that asks has a token, which only its own
thread-local storage refers to, and which goes with it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import Any

__all__ = ["life_of_this_thread", "lives"]


class _Token:
    """Is there for as long as its thread."""

    __slots__ = ("__weakref__",)


_own = threading.local()
lives: dict[Any, Callable[[], object]] = {}
"""By the identifier of each thread that has asked and not ended. Single operations of a dictionary only."""


def life_of_this_thread() -> Callable[[], object]:
    """Something that returns None once this thread has ended; the same object each time."""
    me = get_ident()
    life = lives.get(me)
    if life is None:
        token = _own.token = _Token()
        life = lives[me] = weakref.ref(token, partial(_forget, me))
    return life


def _forget(thread: int, life: object) -> None:
    """A thread has ended; its identifier may be another's by now."""
    if lives.get(thread) is life:
        del lives[thread]
