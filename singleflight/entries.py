"""A stored value: as users see it, and as the store keeps it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from .freshness import fresh_for

__all__ = ["Entry", "Record"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored value with its times, as it was at one moment.

    `age` and `ttl` are in seconds (`math.inf`: never runs out), `state` is "fresh" or "stale", and `hits`
    counts the callers it has served. The value is the very object that all callers receive.
    """

    key: Hashable
    value: Any
    age: float
    ttl: float
    state: str
    hits: int


class Record:
    """The store's own form of an entry.

    The writer fills it before it is published; afterwards readers write `hits` only, and the holder of the
    store's lock everything else. A read is a hit while `now < deadline`: the end of its ttl, or earlier
    where reads are to take the longer way (a listener that wants hits).
    """

    __slots__ = ("deadline", "hits", "key", "landed", "newer", "older", "passed", "ttl", "value")
    newer: Record
    older: Record

    def __init__(self, key: Hashable, value: Any, landed: float, ttl: float) -> None:
        self.key, self.value, self.landed, self.ttl = key, value, landed, ttl
        self.deadline = landed + ttl
        self.hits = self.passed = 0

    def fresh_for(self, now: float) -> float:
        """For how many more seconds it is fresh; 0 or less when it is not."""
        return fresh_for(self.landed, self.ttl, now)

    def snapshot(self, now: float) -> Entry:
        """What users see of it."""
        state = "fresh" if self.fresh_for(now) > 0 else "expired"
        return Entry(self.key, self.value, max(0.0, now - self.landed), self.ttl, state, self.hits)
