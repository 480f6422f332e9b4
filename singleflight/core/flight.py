"""A flight: one execution of the wrapped function for a key, and those who wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from enum import Enum
from types import TracebackType
from typing import Any, Protocol

from ..locks.latch import Latch
from ..locks.slots import Slot, Told, Turn, ahead
from ..storage.record import Record

__all__ = [
    "FLYING",
    "LANDED",
    "PASSED",
    "UNCLAIMED",
    "UNSEATED",
    "Flight",
    "Owner",
    "State",
    "Work",
]


class State(Enum):
    """Where a flight is in its life.

    UNCLAIMED: nobody runs it yet; whoever comes first will (a follower of the flight before it, or a
    newcomer). FLYING: its leader runs the function. LANDED: it has an outcome, which its followers take.
    UNSEATED: its leader took too long or is gone; its followers are those of its `successor` now (or
    newcomers, without), and what it may still bring home is its own caller's alone. PASSED: it ended
    without an outcome to share; its followers are the successor's.
    """

    UNCLAIMED = "unclaimed"
    FLYING = "flying"
    LANDED = "landed"
    UNSEATED = "unseated"
    PASSED = "passed"


# Reading a member of an enum class runs Python code.
UNCLAIMED, FLYING, LANDED, UNSEATED, PASSED = State


class Work(Protocol):
    """What runs a flight without a caller's own stack: it can be stopped, and it can be dead."""

    loop: Any
    """The event loop that its task runs on."""

    began: bool
    """Whether the function has been called: a field."""

    def stop(self) -> None:
        """Have it cancelled; from any thread, under no lock."""
        ...

    def may_stop(self) -> bool:
        """Return True if nobody wants what else it fetches, which is doomed then. Called under the mutex."""
        ...

    def is_dead(self) -> bool:
        """Return True if it will never end by itself: its loop is closed, or that loop's thread has ended."""
        ...


class Owner(Protocol):
    """The cache whose flight it is."""

    def unseat(self, flight: Flight, /) -> bool:
        """Take the key from a flight that is due."""
        ...

    def time_or(self, otherwise: float, /) -> float:
        """Return the time by the function's own clock; where that raises, another one."""
        ...


_orphans: list[Flight] = []  # keeps their tasks from being destroyed, which would run their clean-up again


class Flight(Turn):
    """One execution. All fields are written by `transitions`, under the mutex.

    `value`, `error`, `traceback` and `landed` are written before the state becomes LANDED and read only
    after it. What `claim` sets is read of claimed flights alone. Made by `new_flight`.
    """

    __slots__ = (
        "background",
        "cache",
        "counted",
        "deserted",
        "detached",
        "doomed",
        "due",
        "error",
        "execution",
        "followers",
        "ident",
        "kind",
        "landed",
        "life",
        "lost",
        "missing",
        "previous",
        "renews",
        "retries",
        "slot",
        "started",
        "state",
        "stored",
        "successor",
        "timed_out",
        "traceback",
        "unbegun",
        "value",
        "wants_events",
        "work",
    )

    cache: Owner  # whose it is
    slot: Slot
    retries: int | None  # what is left of its chain's budget (None: no limit)
    followers: int
    ident: int  # among the flights of the process, for events; 0 until it is claimed
    state: State
    counted: bool  # so that a landing that is repeated after an interrupt counts once
    detached: bool  # set once; from then on it must not be stored
    deserted: bool  # set once, when its leader's caller has gone and left it to its followers
    doomed: bool  # set once, when these have gone too: its work was told to stop
    timed_out: bool  # set once, when its caller has timed out in line, and is counted so
    lost: bool  # set in a forked child that has only a copy of it
    kind: str  # "call", "refresh" or "bulk"
    renews: bool  # it was begun to renew a value that is still served, its `previous`
    background: bool  # nobody called for it
    unbegun: bool  # claimed, it waits for a thread to run it (whoever needs its outcome claims it instead:
    # that may be the very thread that it would wait for)
    missing: bool  # there where `kind` is "bulk", or it has landed: whether a bulk answer is without its key
    work: Work | None  # set once, by its leader, where a task runs it
    # Of the thread that claimed it, which runs it where no task does; see `lives`.
    life: Callable[[], object] | None
    due: float | None  # a time of `time.monotonic` after which it may be unseated
    wants_events: bool  # whether anybody may want its events
    # What observers know it by: set once, by its leader, and only where one of them enters it.
    execution: Any
    started: float  # when its leader came, by the function's clock
    previous: Record | None  # what was stored then
    stored: Record  # what it brought, set once that is stored
    successor: Flight | None  # which has its followers now, once it is PASSED or UNSEATED
    landed: float
    value: Any
    error: BaseException | None
    traceback: TracebackType | None
    latch: Latch | None

    def latest(self) -> Flight | None:
        """The flight that has this one's followers now; None where they are on their own."""
        flight: Flight | None = self
        while flight is not None and (flight.state is PASSED or flight.state is UNSEATED):
            flight = flight.successor
        return None if flight is None or flight.lost else flight

    def open_later(self) -> Latch:
        """The latch to wait at, made for the first follower."""
        if self.latch is None:
            self.latch = Latch()
        return self.latch

    def has_opened(self, latch: Latch) -> bool:
        """Return True if this latch, at which a follower waits, is open or about to be."""
        return self.latch is not latch or self.lost or self.is_over() or self.may_be_claimed()

    def may_be_claimed(self) -> bool:
        """Return True if whoever comes next is to lead it."""
        return self.state is UNCLAIMED and self.slot.turn is self

    def is_over(self) -> bool:
        """Return True if nothing is to be expected of it any more by those who wait."""
        return self.state is not FLYING and self.state is not UNCLAIMED

    def has_ended(self) -> bool:
        """Return True if its function has returned or raised, or runs in another process."""
        return self.lost or self.state is LANDED or self.state is PASSED

    def is_due(self) -> bool:
        """Return True if it is in flight for longer than it may be, or nobody is left to end it."""
        if self.state is not FLYING:
            return False
        if self.is_dead():
            return True
        return self.due is not None and time.monotonic() >= self.due

    def is_dead(self) -> bool:
        """Return True if nobody is left to end it: its loop is gone, or its thread has ended."""
        if self.work is not None:
            return self.work.is_dead()
        return not self.unbegun and self.life is not None and self.life() is None

    def see_to(self) -> None:
        """Unseat it if it is due."""
        if self.is_due():
            self.cache.unseat(self)

    def orphan(self) -> None:
        """In a forked child: its leader is elsewhere, or returns here and must change nothing."""
        self.lost = self.detached = True
        if self.work is not None:
            _orphans.append(self)

    def admit(self) -> Latch | None:
        """Its turn has come: wake its followers, one of which claims it; the others wait at a new latch."""
        latch, self.latch = self.latch, Latch()
        return latch

    def blockers(self, told: Told) -> Iterator[tuple[Hashable, Turn]]:
        """Its leader; before it has one, whoever is ahead of it; after it passed, its successor's."""
        flight = self.latest()
        if flight is None:
            return
        if flight.state is FLYING:
            yield flight.key, flight
        elif flight.state is UNCLAIMED and flight.slot.turn is not flight:
            yield from ahead(flight, flight.slot, told)

    def waiters(self) -> int:
        """Its followers."""
        return self.followers
