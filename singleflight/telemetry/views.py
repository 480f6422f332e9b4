"""Views for users: counts, flights, and what a call would do now.

These classes take long to make. So this module is imported by the functions that make views, when they are
called, and by whoever names one of its classes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from ..common.messages import Shown, shown
from ..storage.entry import Entry

__all__ = ["CurrentFlight", "Explanation", "FleetExplanation", "FlightInfo", "Stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """The counts of one decorated function; exact once no call is running.

    `hits`, `stale_hits`, `waits`, `fetches`, `errors` and `timeouts` sum to the calls received. `timeouts`
    counts callers that received a `FlightTimeout`, `errors` those that received any other exception,
    cancellation included. `calls` counts executions (refreshes included), `failures` those that raised an
    Exception, and `uncached` those whose value was not stored. `evictions` and `expirations` count entries
    that were removed. `in_flight`, `entries`, `locks` and `idle_locks` are current numbers. `weight` is the
    sum of what `weigh` returned for the entries (without it their number).

    With `store=`, `shared_hits` counts the fetches that found another process's value, `shared_waits` those
    that waited for another process's flight; neither is an execution. `refused` counts values that were not
    stored because their lease had ended, `leases_lost` such leases, `degraded` the fetches that could not ask
    the server, and `unreadable` what the server had and could not be read. All are 0 without `store=`.
    """

    hits: int
    stale_hits: int
    waits: int
    fetches: int
    errors: int
    timeouts: int
    calls: int
    failures: int
    uncached: int
    evictions: int
    expirations: int
    refreshes: int
    in_flight: int
    entries: int
    locks: int
    idle_locks: int
    weight: float = 0
    shared_hits: int = 0
    shared_waits: int = 0
    refused: int = 0
    leases_lost: int = 0
    degraded: int = 0
    unreadable: int = 0

    @property
    def misses(self) -> int:
        """The number of callers that no stored value could serve: waits and fetches."""
        return self.waits + self.fetches

    @property
    def hit_rate(self) -> float:
        """The fraction of the calls received that a stored value served; 0.0 before the first call."""
        received = self.hits + self.stale_hits + self.misses + self.errors + self.timeouts
        return (self.hits + self.stale_hits) / received if received else 0.0


@dataclass(frozen=True, slots=True, repr=False)
class CurrentFlight(Shown):
    """The flight that the calling code runs in, as `current_flight` finds it.

    `kind` is "call", "refresh" or "bulk". `previous` is the entry that was stored for `key` when the flight
    began (perhaps past its ttl), or None. In a loader `key` is the tuple of the keys that this call of it is
    for, `previous` is None, and `entries` has the entries that were stored, by item.
    """

    key: Hashable
    kind: str
    previous: Entry[Any] | None
    entries: Mapping[Any, Entry[Any]]


@dataclass(frozen=True, slots=True, repr=False)
class FlightInfo(Shown):
    """A flight in progress, as it was at one moment.

    `name` is the function's name. `leader` names the thread or task that runs the flight (such a task is
    named after the function). `elapsed` is in seconds. `followers` is the number of callers that wait.
    `kind` is "call", "refresh", "bulk" or "shared" (it waits for another process, which `leader` names then).
    The value of a `detached` flight will not be stored.
    A `queued` one waits until fewer than `max_flights` others run.
    """

    name: str
    key: Hashable
    leader: str
    elapsed: float
    followers: int
    kind: str
    detached: bool
    queued: bool = False

    def __str__(self) -> str:
        waiting = f", {self.followers} waiting" if self.followers else ""
        call = f"{self.name} {shown(self.key)}: {self.kind} by {self.leader}, {self.elapsed:.3f} s"
        return f"{call}{waiting}{', detached' if self.detached else ''}{', in line' if self.queued else ''}"


@dataclass(frozen=True, slots=True, repr=False)
class Explanation(Shown):
    """What a call would do now: `would` is "hit", "stale_hit", "wait" or "fetch"; `str()` is a sentence.

    `fresh_for` is how many more seconds the value is fresh. `stale_for` is how many seconds after that (or
    from now on, if it is not fresh) it may be served stale. Both are 0.0 if there is no value. A "hit"
    without an `entry` raises the stored exception (`failure_ttl`).
    """

    key: Hashable
    would: str
    entry: Entry[Any] | None
    flight: FlightInfo | None
    fresh_for: float
    stale_for: float

    def __str__(self) -> str:
        key = shown(self.key)
        if self.would == "stale_hit" and self.entry is not None:
            return (
                f"{key} would be a stale hit: its value is {self.entry.age:.3g} s old and may be "
                f"served for {self.stale_for:.3g} s more, while it is renewed in the background"
            )
        if self.would == "hit" and self.entry is None:
            return f"{key} would raise the exception that is stored, for {self.fresh_for:.3g} s more"
        if self.entry is not None and self.would == "hit":
            left = "for ever" if self.fresh_for == float("inf") else f"for {self.fresh_for:.3g} s more"
            return (
                f"{key} would be a hit: its value is {self.entry.age:.3g} s old and fresh {left}, "
                f"and has served {self.entry.hits} callers"
            )
        if self.would == "wait" and self.flight is not None:
            return (
                f"{key} would wait for the {self.flight.kind} by {self.flight.leader}, in flight for "
                f"{self.flight.elapsed:.3g} s with {self.flight.followers} waiting"
            )
        if self.would == "wait":
            return f"{key} would wait: somebody holds its lock"
        if self.flight is not None:
            return (
                f"{key} would be fetched: it would not join the {self.flight.kind} by {self.flight.leader}, "
                f"in flight for {self.flight.elapsed:.3g} s"
            )
        return f"{key} would be fetched: there is no value to serve, and no flight to join"


@dataclass(frozen=True, slots=True, repr=False)
class FleetExplanation(Shown):
    """What the server would answer now, with `store=`; `str()` is a sentence.

    `would` is "shared_hit" (a value is stored, for `left` more seconds), "shared_wait" (`leader` calls the
    function; its lease has `left` seconds), "fetch" (nobody does) or "degraded" (the server is not asked).
    """

    key: Hashable
    would: str
    left: float = 0.0
    leader: str | None = None

    def __str__(self) -> str:
        key = shown(self.key)
        if self.would == "shared_hit":
            return f"{key} would be a shared hit: its value is on the server for {self.left:.3g} s more"
        if self.would == "shared_wait":
            return f"{key} would wait for {self.leader}, whose lease has {self.left:.3g} s left"
        if self.would == "degraded":
            return f"{key} would be fetched by this process alone: the server does not answer"
        return f"{key} would be fetched by this process for all"
