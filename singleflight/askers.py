"""Who asks, where it is a thread (for tasks see `crowds`), and who may wait for the asker itself."""

from __future__ import annotations

import sys
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from .turns import Actor, Asker, Turn, current_actor, get_ident

__all__ = ["InThread", "descends", "thread_asker"]

descends: ContextVar[bool] = ContextVar("singleflight_descends", default=False)
"""Whether this context comes from the work of a flight that a task runs, which may come to wait for it."""


class InThread:
    """What waiting is for a thread that asks: it stands still as a whole, with the tasks that it runs."""

    if TYPE_CHECKING:  # the fields are its subclasses'
        uneasy: bool
        thread: Any
    else:
        __slots__ = ()

    def above(self, _turn: Turn, /) -> AbstractSet[Actor]:
        """Who waits for this thread, where it works for an executor."""
        if "concurrent.futures.thread" not in sys.modules:
            return frozenset()
        above = self.climb()
        self.uneasy = bool(above)
        return above

    def climb(self) -> AbstractSet[Actor]:
        """The same, as it is now."""
        from .awaiting import above_thread

        return above_thread(self.thread)


class ThreadAsker(InThread, Asker):
    """A thread that asks for a plain hold."""

    __slots__ = ()


def thread_asker() -> ThreadAsker:
    """Whoever runs on this thread now."""
    thread = get_ident()
    return ThreadAsker(current_actor(), thread, thread)
