"""Whether a thread that was seen earlier has ended.

Its identifier does not tell: another thread gets the same one. `threading.Thread.is_alive` does not tell of
threads that were not started by `threading`. So each thread that asks has a token, which only its own
thread-local storage refers to, and which goes with it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

__all__ = ["life_of_this_thread", "own"]


class _Token:
    """Is there for as long as its thread."""

    __slots__ = ("__weakref__",)


own = threading.local()
"""What each thread has of its own: `life`, once it asked."""


def life_of_this_thread() -> Callable[[], object]:
    """Something that returns None once this thread has ended; the same object each time."""
    try:
        life: Callable[[], object] = own.life
    except AttributeError:
        token = own.token = _Token()
        life = own.life = weakref.ref(token)
    return life
