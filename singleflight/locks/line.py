"""A line for a limited number of seats: so many may be taken at once, first come, first served.

It is kept as keyed locks are, with one difference: whoever queues for a lock is held up by everybody ahead,
and whoever stands in line only while all seats are taken by somebody who is held up. So a cycle closes here
only if every seat leads back (`Turn.any_of`, see `waitgraph`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any

from .keyed import KeyedLocks
from .latch import Latch
from .lives import life_of_this_thread
from .mutex import mutex
from .slots import Hold, Slot, Told, Turn
from .unsettled import After
from .waiters import Waiter, get_ident

__all__ = ["Line", "Seat"]


class Seat(Hold):
    """A place in the line, and then a seat. All fields are guarded by the mutex.

    Args:
        line: where it stands.
        key: what is told of it, the key that it is for.
        waiter: who takes it.
        owner: what it is for, by which it is found.
    """

    __slots__ = ("any_of", "life", "line", "owner")
    line: Line
    any_of: object
    life: Callable[[], object] | None

    def __init__(self, line: Line, key: Hashable, waiter: Waiter, owner: object) -> None:
        super().__init__((key,), waiter, line.release)
        self.key = key
        self.any_of = self.line = line
        self.owner: object = owner
        self.life = life_of_this_thread() if waiter.blocks == waiter.thread else None

    @property
    def missing(self) -> bool:
        """Return True if it stands in line."""
        return self not in self.line.taken

    def is_over(self) -> bool:
        """Return True if it was let in, though its owner may not have noticed yet."""
        return not self.missing

    def in_the_way(self) -> list[Turn]:
        """Those who have the seats."""
        return list(self.line.taken)

    def is_dead(self) -> bool:
        """Return True if its owner will never give it up: its event loop is gone, or its thread."""
        return super().is_dead() or (self.life is not None and self.life() is None)

    def blockers(self, told: Told) -> Iterator[tuple[Hashable, Turn]]:  # noqa: ARG002
        """Those who have the seats; any of them lets the next one through."""
        if self.missing:
            for seat in self.line.taken:
                yield seat.key, seat


class Line(KeyedLocks):
    """So many seats, and those who stand in line for one. All fields are guarded by the mutex."""

    def __init__(self, seats: int) -> None:
        super().__init__(0)
        self._seats = seats
        self.taken: dict[Seat, None] = {}
        self.queue: deque[Seat] = deque()

    def is_queued(self, owner: object) -> bool:
        """Return True if somebody stands in line for this. Takes the mutex."""
        with mutex:  # without a global interpreter lock no copy of a deque is one operation
            queued = any(seat.owner is owner for seat in self.queue)
        return queued  # noqa: RET504  # not within: an interrupt before the return may leave the mutex held

    def _take(self, hold: Any) -> None:
        if len(self.taken) < self._seats and not self.queue:
            self.taken[hold] = None
        else:
            self.queue.append(hold)

    def _give_up(self, hold: Any, after: After) -> None:
        self.taken.pop(hold, None)
        if hold in self.queue:
            self.queue.remove(hold)
        while self.queue and len(self.taken) < self._seats:
            following = self.queue[0]
            latch: Latch | None = None
            if not following.is_dead():
                self.taken[following] = None  # this gives it the seat
                latch = following.latch
            self.queue.popleft()
            if latch is not None:
                after.append(latch.open)

    def live(self) -> list[Slot]:
        """No keys are locked here."""
        return []

    def after_fork(self) -> None:
        """In a forked child: the seats of the thread that forked are still taken."""
        me = get_ident()
        self.queue = deque()
        self.taken = {seat: None for seat in self.taken if seat.thread == me}
