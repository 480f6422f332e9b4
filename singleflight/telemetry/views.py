"""Views for users: a flight in progress, and what a call would do now."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from ..common.messages import Shown, shown
from ..storage.entry import Entry

__all__ = ["Explanation", "FlightInfo"]


@dataclass(frozen=True, slots=True, repr=False)
class FlightInfo(Shown):
    """A flight in progress, as it was at one moment.

    `name` is the function's name. `leader` names the thread or task that runs the flight (such a task is
    named after the function). `elapsed` is in seconds. `followers` is the number of callers that wait.
    `kind` is "call", "refresh" or "bulk". The value of a `detached` flight will not be stored.
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
        if self.flight is not None:
            return (
                f"{key} would wait for the {self.flight.kind} by {self.flight.leader}, in flight for "
                f"{self.flight.elapsed:.3g} s with {self.flight.followers} waiting"
            )
        if self.would == "wait":
            return f"{key} would wait: somebody holds its lock"
        return f"{key} would be fetched: there is no value and nobody is fetching it"
