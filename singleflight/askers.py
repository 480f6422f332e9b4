"""Who asks, where it is a thread (for tasks see `crowds`), and who may wait for the asker itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from .turns import Actor, Asker, Turn, current_actor, get_ident

__all__ = ["InThread", "asker_of", "descends", "is_descendant", "thread_asker"]

A = TypeVar("A", bound=Asker)

descends: ContextVar[bool] = ContextVar("singleflight_descends", default=False)
is_descendant: Callable[[], bool] = descends.get  # bound once: every follower asks
"""Whether this context comes from the work of a flight that a task runs, which may come to wait for it."""


class InThread:
    """What waiting is for a thread that asks: it stands still as a whole, with the tasks that it runs."""

    if TYPE_CHECKING:  # the fields are its subclasses'
        uneasy: bool
        job: Any  # what an executor runs on this thread, once it is uneasy
    else:
        __slots__ = ()

    def above(self, _turn: Turn, /) -> AbstractSet[Actor]:
        """Who waits for this thread, where it works for an executor."""
        if "concurrent.futures.thread" not in sys.modules:
            return frozenset()
        from .awaiting import job_of_this_thread

        self.job = job_of_this_thread()
        self.uneasy = self.job is not None
        return self.climb()

    def climb(self) -> AbstractSet[Actor]:
        """The same, as it is now; asked by anybody."""
        if not self.uneasy:
            return frozenset()
        from .awaiting import above_job

        return above_job(self.job)


class ThreadAsker(InThread, Asker):
    """A thread that asks for a plain hold."""

    __slots__ = ("job",)


def asker_of(kind: type[A], actor: Actor, thread: Actor, waiter: Actor) -> A:
    """One of this kind that is going to ask (no `__init__`: see `turns.new_slot`)."""
    asker = kind()
    asker.actor = actor
    asker.thread = thread
    asker.waiter = waiter
    asker.begin()
    return asker


def thread_asker() -> ThreadAsker:
    """Whoever runs on this thread now."""
    thread = get_ident()
    return asker_of(ThreadAsker, current_actor(), thread, thread)
