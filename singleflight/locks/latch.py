"""Latches: where those who wait for a turn stand, threads and tasks alike, until somebody opens.

A latch is a turnstile for threads: whoever opens it releases one lock once, and every waiter that passes
lets the next one through, so that opening costs the same for one waiter as for a thousand. The tasks of
each event loop stand there as one group, which is woken by one call into its loop.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

__all__ = ["LOOK", "LOOK_AGAIN", "Latch", "LoopWaiters"]

LOOK = 1.0  # seconds after which a waiter looks for itself whether its latch has opened, and why not
LOOK_AGAIN = 0.05  # the same, where somebody may begin to wait for the waiter itself


class LoopWaiters(Protocol):
    """The tasks of one event loop that wait at a latch."""

    def open(self) -> None:
        """Let them through; called from any thread."""
        ...


class Latch:
    """Shut until it is opened, once; then everybody passes.

    `open` may be called again: a waiter that is interrupted at the wrong moment cannot know whether it has
    the turnstile, so it opens, and a second release does no harm.

    Tasks wait in `task_waiters`, one for each of their loops. A group is added under the mutex, and only
    while whatever opens the latch has not happened; so no group can miss it.
    """

    __slots__ = ("_turnstile", "alone", "groups")

    def __init__(self) -> None:
        self._turnstile = threading.Lock()
        self._turnstile.acquire()
        self.groups: dict[Any, LoopWaiters] = {}
        self.alone: tuple[Any] | None = None  # the turn that all wait for: one note for a thousand waits

    def open(self) -> None:
        """Let everybody through."""
        try:
            self._turnstile.release()
        except RecursionError:  # which is a RuntimeError, too
            raise
        except RuntimeError:  # open already
            pass
        self.alone = None  # and no group from here on: they lead to the turn, which has this latch
        if self.groups:
            for loop, group in list(self.groups.items()):
                group.open()
                self.groups.pop(loop, None)  # after it: if there is no room for that, it is opened again

    def wait(self, timeout: float) -> bool:
        """Wait in a thread until the latch is open; False when `timeout` seconds passed first."""
        passed = self._turnstile.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        if passed:
            self.open()  # for the next one
        return passed
