"""A flight: one execution of the wrapped function for a key, and those who wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from enum import Enum
from types import TracebackType
from typing import Any, Protocol

from ..locks.latch import Latch
from ..locks.lives import life_of_this_thread, lives
from ..locks.slots import Slot, Told, Turn, ahead, numbers
from ..locks.waitgraph import waiting
from ..storage.entry import Record
from .call import JOIN, LEAD, Call
from .outcome import traceback_of

__all__ = [
    "FLYING",
    "LANDED",
    "PASSED",
    "UNCLAIMED",
    "UNSEATED",
    "Flight",
    "State",
    "Work",
    "is_nobodys",
    "new_flight",
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
    """Whether the function has been called."""

    def stop(self) -> None:
        """Have it cancelled; from any thread, under no lock."""
        ...

    def may_stop(self) -> bool:
        """Whether nobody wants what else it fetches (then that is doomed, too). Called under the mutex."""
        ...

    def is_dead(self) -> bool:
        """Whether it will never end by itself: its event loop is closed, or that loop's thread is gone."""
        ...


class Unseats(Protocol):
    """What decides over flights; the coordinator does."""

    def unseat(self, flight: Flight, /) -> bool:
        """Take the key from a flight that is due."""
        ...


_orphans: list[Flight] = []  # keeps their tasks from being destroyed, which would run their clean-up again


class Flight(Turn):
    """One execution. All fields are written under the mutex, but for those of the landing.

    `value`, `error`, `traceback` and `landed` are written before the state becomes LANDED and read only
    after it. What `claim` sets is read of claimed flights alone. Made by `new_flight`.
    """

    __slots__ = (
        "background",
        "counted",
        "deserted",
        "detached",
        "doomed",
        "due",
        "error",
        "followers",
        "kind",
        "landed",
        "life",
        "lost",
        "memo",
        "missing",
        "previous",
        "renews",
        "retries",
        "slot",
        "started",
        "state",
        "successor",
        "told",
        "traceback",
        "unbegun",
        "value",
        "work",
    )

    memo: Unseats  # whose it is
    slot: Slot
    retries: int | None  # what is left of its chain's budget (None: no limit)
    followers: int
    state: State
    counted: bool  # so that a landing that is repeated after an interrupt counts once
    detached: bool  # set once; from then on it must not be stored
    deserted: bool  # set once, when its leader's caller has gone and left it to its followers
    doomed: bool  # set once, when these have gone too: its work was told to stop
    lost: bool  # set in a forked child that has only a copy of it
    kind: str  # "call", "refresh" or "bulk"
    renews: bool  # it was begun to renew a value that is still served, its `previous`
    background: bool  # nobody called for it
    unbegun: bool  # claimed, it waits for a thread to run it (whoever needs its outcome claims it instead:
    # that may be the very thread that it would wait for)
    missing: bool  # there where `kind` is "bulk", or it has landed: whether a bulk answer is without its key
    work: Work | None  # set once, by its leader, where a task runs it
    life: (
        Callable[[], object] | None
    )  # of the thread that claimed it, which runs it where no task does; see `lives`
    due: float | None  # a time of `time.monotonic` after which it may be unseated
    told: bool  # whether anybody may want its events
    value: Any
    error: BaseException | None
    traceback: TracebackType | None

    def claim(self, call: Call, now: float, previous: Record | None, timeout: float | None) -> None:
        """It has a leader from now on: a newcomer, or one of its followers."""
        self.due = None if timeout is None else time.monotonic() + timeout
        self.number = next(numbers)
        thread = call.thread
        life = lives[thread] if thread in lives else life_of_this_thread()
        self.depth = len(waiting[thread]) if thread in waiting else 0
        # No call from here on: an interrupt finds it claimed, and its leader knows, or as it was.
        if call.decision is JOIN:
            self.followers -= 1
        call.flight, call.decision = self, LEAD
        self.told = call.told
        self.kind = "refresh" if call.renew else "call"
        self.background = call.background
        self.unbegun = False
        self.started = now
        self.previous = previous
        self.thread = thread
        self.life = life
        self.state = FLYING
        self.leader = call.actor

    def bring(self, value: Any, error: BaseException | None, now: float, storable: bool = True) -> None:
        """Give it its outcome, which is to be taken once it has landed.

        Where a key has no value a loader leaves it out, which `missing` says already. A getter can say so
        only by a value that `cache_if` refuses.
        """
        if self.kind != "bulk":
            self.missing = not storable
        self.value = value
        self.error = error
        self.landed = now
        self.traceback = None
        if error is not None:
            # Without the leader's own frame: a follower should see where the function failed.
            traceback = traceback_of(error)
            self.traceback = traceback and (traceback.tb_next or traceback)

    def pass_on(self, successor: Flight | None, state: State = PASSED) -> None:
        """It has ended without an outcome, or was unseated: its key and its followers are the successor's.

        Without a successor its followers are on their own, and its key is not touched.
        """
        if successor is not None:
            successor.latch = Latch()
            # No call from here on: an interrupt finds a flight with its followers and its key, or the other.
            self.slot.turn = successor
        self.successor = successor
        self.followers = 0
        self.state = state

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
        """Whether this latch, at which a follower waits, is open or about to be."""
        return self.latch is not latch or self.lost or self.is_over() or self.may_be_claimed()

    def may_be_claimed(self) -> bool:
        """Whether whoever comes next is to lead it."""
        return self.state is UNCLAIMED and self.slot.turn is self

    def is_over(self) -> bool:
        """Whether nothing is to be expected of it any more by those who wait."""
        return self.state is not FLYING and self.state is not UNCLAIMED

    def has_ended(self) -> bool:
        """Whether its function has returned or raised, or runs in another process."""
        return self.lost or self.state is LANDED or self.state is PASSED

    def is_due(self) -> bool:
        """Whether it is in flight for longer than it may be, or nobody is left to end it."""
        if self.state is not FLYING:
            return False
        if self.is_dead():
            return True
        return self.due is not None and time.monotonic() >= self.due

    def is_dead(self) -> bool:
        """Whether nobody is left to end it: its event loop is gone, or the thread that ran it has ended."""
        if self.work is not None:
            return self.work.is_dead()
        return not self.unbegun and self.life is not None and self.life() is None

    def see_to(self) -> None:
        """Unseat it if it is due."""
        if self.is_due():
            self.memo.unseat(self)

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


def new_flight(memo: Unseats, slot: Slot, retries: int | None, followers: int = 0) -> Flight:
    """One that nobody has claimed (no `__init__`: see `slots.new_slot`)."""
    flight = Flight()
    flight.memo = memo
    flight.key = slot.key
    flight.leader = None
    flight.latch = None
    flight.slot = slot
    flight.retries = retries
    flight.followers = followers
    flight.state = UNCLAIMED
    flight.number = 0
    flight.counted = False
    flight.detached = False
    flight.deserted = False
    flight.doomed = False
    flight.lost = False
    flight.kind = "call"
    flight.started = 0.0
    flight.renews = False
    flight.background = False
    flight.unbegun = False
    flight.error = None
    flight.work = None
    flight.life = None
    flight.due = None
    return flight


def is_nobodys(turn: Turn | None) -> bool:
    """Whether a slot with this turn is free, though it was not vacated."""
    if turn is None:
        return True
    return isinstance(turn, Flight) and turn.state is UNCLAIMED and not turn.followers
