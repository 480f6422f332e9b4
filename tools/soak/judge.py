"""Judges what the processes of the fleet's soak have noted. All times are those of one machine's clock.

- A value belongs to the key that was asked for.
- It was not loaded before a drop of it that this process had made, and that had returned when the call began.
  Not of a tag: who joins a flight after that flies again, but for want of retries.
- It was not loaded before a drop of any process that the server had confirmed for longer than the *bound*
  when the call began: `BOUND`, and for a process that was cut off or stood still lately, as long as near
  entries live besides.
- It is not older than it may be served, and than the server's clock was set back since it was loaded.
- No two loads of a key run at once, unless one was dropped, or something was disturbed, or the server's clock
  was set forward during the first: then its lease may have ended early.
- An error is one that the function raises.

Nothing else is excused by a clock that was set: no old value after a drop.

A value that was put counts as loaded when the server had confirmed that: a put of a process that was cut off
takes effect when it is back. So the order of its changes and those of others is not judged.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any

from .clock import Step
from .members import GRACE, NEAR, TTL, group_of

__all__ = ["BOUND", "Judge", "Span"]

BOUND = 0.3  # seconds; a few milliseconds, but for busy cores
_SETTLING = 2.5  # seconds after a disturbance in which it may still be felt
_LEASED = 0.1  # seconds from the server's answer that gives a lease to the load's first line
_SLOW = 1.5  # seconds that a load, its way and a pause of this machine may take together


@dataclass(frozen=True, slots=True)
class Span:
    """Something was done to a process, or (None) to the server or to all."""

    began: float
    ended: float
    to: int | None


@dataclass(slots=True)
class Drop:
    """A change: a drop, or a put."""

    by: int
    what: str
    began: float
    returned: float = inf
    confirmed: float = inf


@dataclass(slots=True)
class Load:
    """One run of the function."""

    by: int
    began: float
    ended: float = inf


class Judge:
    """Reads all notes, then says what was wrong."""

    def __init__(self, lines: Iterable[str], disturbances: list[Span], steps: Sequence[Step] = ()) -> None:
        self._steps = steps
        self.counts: Counter[str] = Counter()
        self.complaints: list[str] = []
        self._disturbed = disturbances
        self._drops: dict[tuple[int, int], Drop] = {}
        self._of: dict[str, list[Drop]] = defaultdict(list)
        self._loads: dict[str, dict[tuple[int, int], Load]] = defaultdict(dict)
        self._received: list[tuple[int, str, str, float, float, Any]] = []
        for line in lines:
            what, by, *details = json.loads(line)
            self.counts[what] += 1
            getattr(self, f"_{what}", self._other)(by, *details)
        for drops in self._of.values():
            drops.sort(key=lambda drop: drop.began)

    # -- notes

    def _other(self, by: int, *details: Any) -> None:
        pass

    def _load(self, by: int, number: int, symbol: str, began: float) -> None:
        self._loads[symbol][by, number] = Load(by, began)

    def _loaded(self, by: int, number: int, symbol: str, ended: float) -> None:
        self._loads[symbol][by, number].ended = ended

    def _drop(self, by: int, number: int, what: str, of: str, began: float) -> None:
        self._drops[by, number] = drop = Drop(by, what, began)
        self._of[of].append(drop)

    def _dropped(self, by: int, number: int, when: float) -> None:
        self._drops[by, number].returned = when

    def _confirmed(self, by: int, numbers: list[int], when: float) -> None:
        for number in numbers:
            drop = self._drops[by, number]
            drop.confirmed = when

    def _got(self, by: int, how: str, symbol: str, began: float, ended: float, value: Any) -> None:
        self._received.append((by, how, symbol, began, ended, value))

    def _error(
        self, by: int, how: str, symbol: str, began: float, ended: float, kind: str, text: str
    ) -> None:
        if kind == "Failed" or (kind == "RemoteFailure" and "Failed" in text):
            return
        self.complaints.append(f"{how} of {symbol} by {by} raised {kind}: {text}")

    def _left(self, by: int, left: dict[str, int]) -> None:
        threads = left.pop("threads")
        if any(left.values()) or threads > 12:
            self.complaints.append(f"process {by} has left {left}, and {threads} threads")

    # -- the verdict

    def is_calm(self, began: float, ended: float, *processes: int) -> bool:
        """Return True if nothing was disturbed for these processes then or shortly before."""
        return not any(
            span.began <= ended
            and began <= span.ended + _SETTLING
            and (span.to is None or span.to in processes)
            for span in self._disturbed
        )

    def verdict(self) -> list[str]:
        """Return what was wrong."""
        for received in self._received:
            wrong = self._wrong(*received)
            if wrong:
                by, how, symbol, began, ended, value = received
                self.complaints.append(
                    f"{how} of {symbol} by {by} [{began:.3f}, {ended:.3f}]: {wrong}; {value}"
                )
        for symbol, loads in self._loads.items():
            self._look_for_two(symbol, sorted(loads.values(), key=lambda load: load.began))
        return self.complaints

    def _wrong(self, by: int, how: str, symbol: str, began: float, ended: float, value: Any) -> str:
        if value is None:
            return ""
        if value["symbol"] != symbol:
            return "the value of another key"
        loaded = value["began"]
        put = self._drops.get((value["by"], value["number"]))
        if put is not None:
            loaded = put.confirmed
        calm = self.is_calm(loaded, ended, by, value["by"])
        if calm and began - value["began"] > TTL + GRACE + _SLOW + self._set_back(value["began"], ended):
            return f"it is {began - value['began']:.2f} s old"
        bound = BOUND if calm else BOUND + NEAR + _SETTLING
        for drop in self._later(symbol, loaded):
            if drop.by == by and drop.returned < began and drop.what != "tag":
                return f"this process had dropped it ({drop.what} at {drop.began:.3f})"
            if drop.confirmed + bound < began:
                return f"it was dropped ({drop.what} by {drop.by} at {drop.began:.3f}, {drop.confirmed:.3f})"
        return ""

    def _set_back(self, began: float, ended: float) -> float:
        """Return by how many seconds at most the server's clock was set back in this time, in all."""
        farthest, highest = 0.0, -inf
        for step in self._steps:
            if step.ended >= began and step.began <= ended:
                highest = max(highest, step.before)
                farthest = max(farthest, highest - step.after)
        return farthest

    def _later(self, symbol: str, moment: float) -> Iterable[Drop]:
        """Every drop of a symbol that began after this moment."""
        for of in (symbol, group_of(symbol), "*"):
            drops = self._of[of]
            yield from drops[bisect_right(drops, moment, key=lambda drop: drop.began) :]

    def _look_for_two(self, symbol: str, loads: list[Load]) -> None:
        for load, other in pairwise(loads):
            if other.began >= load.ended or not self.is_calm(load.began - 1, other.began, load.by, other.by):
                continue
            changes = (drop for of in (symbol, group_of(symbol), "*") for drop in self._of[of])
            if any(drop.began <= other.began and load.began - _LEASED <= drop.confirmed for drop in changes):
                continue
            forward = (step for step in self._steps if step.after > step.before)
            if any(step.began <= other.began and load.began - _LEASED <= step.ended for step in forward):
                continue
            self.complaints.append(
                f"{symbol}: two loads at once, by {load.by} at {load.began:.3f} and by {other.by} at "
                f"{other.began:.3f}"
            )
