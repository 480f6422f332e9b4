"""Who asks, for threads and for tasks: what each wait holds up, and who may wait for the asker itself."""

from __future__ import annotations

import sys
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from typing import Any

from .turns import Actor, Asker, Turn, current_actor, get_ident

__all__ = ["TaskAsker", "ThreadAsker", "descends", "task_asker", "thread_asker"]

descends: ContextVar[bool] = ContextVar("singleflight_descends", default=False)
"""Whether this context comes from the work of a flight that a task runs, which may come to wait for it."""


class ThreadAsker(Asker):
    """A thread, which waits as a whole; perhaps on behalf of a task that runs on it."""

    __slots__ = ()

    def above(self, _turn: Turn, /) -> AbstractSet[Actor]:
        """Who waits for this thread, where it works for an executor."""
        if "concurrent.futures.thread" not in sys.modules:
            return frozenset()
        from .awaiting import above_thread

        above = above_thread()
        self.uneasy = bool(above)
        return above


class TaskAsker(Asker):
    """A task, which waits alone."""

    __slots__ = ()

    def above(self, turn: Turn, /) -> AbstractSet[Actor]:
        """Who waits for this task, where it comes from a flight, or a leader may be beneath its loop."""
        if not descends.get() and turn.leader != self.thread:
            return frozenset()
        from .awaiting import above_task

        self.uneasy = True
        task: Any = self.actor
        return above_task(task)


def thread_asker() -> ThreadAsker:
    """Whoever runs on this thread now."""
    thread = get_ident()
    return ThreadAsker(current_actor(), thread, thread)


def task_asker() -> TaskAsker:
    """The task that runs now."""
    task = current_actor()
    return TaskAsker(task, get_ident(), task)
