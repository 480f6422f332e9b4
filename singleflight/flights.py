"""A flight: one execution of the wrapped function for a key, and those who wait for it."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any

from .entries import Entry, Record
from .turns import Actor, Gate, Slot, Told, Turn, ahead, numbers, waits

__all__ = [
    "FLYING",
    "LANDED",
    "PASSED",
    "UNCLAIMED",
    "Explanation",
    "Flight",
    "FlightInfo",
    "State",
    "is_nobodys",
    "name_of",
]


class State(Enum):
    """Where a flight is in its life.

    UNCLAIMED: nobody runs it yet; whoever comes first will (a follower of the flight before it, or a
    newcomer). FLYING: its leader runs the function. LANDED: it has an outcome, which its followers take.
    PASSED: it ended without one; its followers are those of its `successor` now (or newcomers, without).
    """

    UNCLAIMED = "unclaimed"
    FLYING = "flying"
    LANDED = "landed"
    PASSED = "passed"


UNCLAIMED, FLYING, LANDED, PASSED = State  # reading a member of an enum class runs Python code


class Flight(Turn):
    """One execution. All fields are written under the mutex, but for those of the landing.

    `value`, `error`, `traceback` and `landed` are written before the state becomes LANDED and read only
    after it. `retries` is what is left of its chain's budget (None: no limit).
    """

    __slots__ = (
        "counted",
        "detached",
        "error",
        "followers",
        "kind",
        "landed",
        "lost",
        "previous",
        "retries",
        "slot",
        "started",
        "state",
        "successor",
        "traceback",
        "value",
    )

    def __init__(self, slot: Slot, retries: int | None, followers: int = 0) -> None:
        self.key: Hashable = slot.key
        self.leader: Actor | None = None
        self.gate: Gate | None = None
        self.slot = slot
        self.retries = retries
        self.followers = followers
        self.state = UNCLAIMED
        self.depth = self.number = 0
        self.counted = False  # so that a landing that is repeated after an interrupt counts once
        self.detached = False  # set once; from then on it must not be stored
        self.lost = False  # set in a forked child that has only a copy of it
        self.kind = "call"
        self.error: BaseException | None = None

    def claim(self, me: Actor, now: float, previous: Record | None, kind: str) -> None:
        """`me` leads it from now on. (In this order: an interrupt leaves it unclaimed, or one to fail.)"""
        self.kind = kind
        self.depth = waits(me)
        self.number = next(numbers)
        self.started = now
        self.previous = previous
        self.state = FLYING
        self.leader = me

    def land(self, value: Any, error: BaseException | None, now: float) -> None:
        """Give it its outcome."""
        self.value = value
        self.error = error
        self.landed = now
        self.traceback: TracebackType | None = None
        if error is not None:
            # Without the leader's own frame: a follower should see where the function failed.
            traceback = error.__traceback__
            self.traceback = traceback and (traceback.tb_next or traceback)
        self.state = LANDED

    def pass_on(self, successor: Flight | None) -> None:
        """End it without an outcome; its followers are the successor's now."""
        if successor is not None:
            successor.gate = Gate()
        self.successor = successor
        self.state = PASSED

    def latest(self) -> Flight | None:
        """The flight that has this one's followers now; None where they are on their own."""
        flight: Flight | None = self
        while flight is not None and flight.state is PASSED:
            flight = flight.successor
        return None if flight is None or flight.lost else flight

    def open_later(self) -> Gate:
        """The gate to wait at, made for the first follower."""
        if self.gate is None:
            self.gate = Gate()
        return self.gate

    def has_opened(self, gate: Gate) -> bool:
        """Whether this gate, at which a follower waits, is open or about to be."""
        return self.gate is not gate or self.lost or self.ended() or self.may_be_claimed()

    def may_be_claimed(self) -> bool:
        """Whether whoever comes next is to lead it."""
        return self.state is UNCLAIMED and self.slot.turn is self

    def ended(self) -> bool:
        """Whether it is over, with or without an outcome."""
        return self.state is LANDED or self.state is PASSED

    def orphan(self) -> None:
        """In a forked child: its leader is elsewhere, or returns here and must change nothing."""
        self.lost = self.detached = True

    def admit(self) -> Gate | None:
        """Its turn has come: wake its followers, one of which claims it; the others wait at a new gate."""
        gate, self.gate = self.gate, Gate()
        return gate

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

    def info(self, name: str, now: float) -> FlightInfo:
        """What users see of it."""
        elapsed = max(0.0, now - self.started)
        return FlightInfo(
            name, self.key, name_of(self.leader), elapsed, self.followers, self.kind, self.detached
        )


@dataclass(frozen=True, slots=True)
class FlightInfo:
    """A flight in progress, as it was at one moment.

    `name` is the function's; `leader` names the thread that runs it; `elapsed` is in seconds; `followers`
    wait for it; `kind` is "call" or "refresh"; a `detached` one will not be stored.
    """

    name: str
    key: Hashable
    leader: str
    elapsed: float
    followers: int
    kind: str
    detached: bool

    def __str__(self) -> str:
        waiting = f", {self.followers} waiting" if self.followers else ""
        detached = ", detached" if self.detached else ""
        return (
            f"{self.name} {self.key!r}: {self.kind} by {self.leader}, {self.elapsed:.3f} s{waiting}{detached}"
        )


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a call would do now: `would` is "hit", "stale_hit", "wait" or "fetch"; `str()` is a sentence.

    `fresh_for` and `stale_for` are in seconds and 0.0 where there is no value.
    """

    key: Hashable
    would: str
    entry: Entry | None
    flight: FlightInfo | None
    fresh_for: float
    stale_for: float

    def __str__(self) -> str:
        if self.entry is not None and self.would in ("hit", "stale_hit"):
            left = "for ever" if self.fresh_for == float("inf") else f"for {self.fresh_for:.3g} s more"
            return (
                f"{self.key!r} would be a hit: its value is {self.entry.age:.3g} s old and fresh {left}, "
                f"and has served {self.entry.hits} callers"
            )
        if self.flight is not None:
            return (
                f"{self.key!r} would wait for the {self.flight.kind} by {self.flight.leader}, in flight for "
                f"{self.flight.elapsed:.3g} s with {self.flight.followers} waiting"
            )
        if self.would == "wait":
            return f"{self.key!r} would wait: somebody holds its lock"
        return f"{self.key!r} would be fetched: there is no value and nobody is fetching it"


def name_of(actor: Actor | None) -> str:
    """A name for people."""
    for thread in threading.enumerate():
        if thread.ident == actor:
            return f"thread {thread.name!r}"
    return f"thread {actor}"


def is_nobodys(turn: Turn | None) -> bool:
    """Whether a slot with this turn is free, though it was not vacated."""
    if turn is None:
        return True
    return isinstance(turn, Flight) and turn.state is UNCLAIMED and not turn.followers
