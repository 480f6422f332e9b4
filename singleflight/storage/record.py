"""A stored value as the store keeps it."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import TYPE_CHECKING, Any

from ..common.keys import plain
from .freshness import fresh_for

if TYPE_CHECKING:
    from .entry import Entry

__all__ = ["ABSENT", "AgeingRecord", "Record", "TaggedRecord", "WeighedRecord", "record_of"]


class Record:
    """The store's own form of an entry.

    Made by `record_of`. The writer fills it before it is published; afterwards readers write `hits` only, and
    the holder of the store's lock everything else, but for `reopen`. A read is a hit while `now < deadline`:
    the end of its ttl, or earlier where reads are to take the longer way (a listener that wants hits).

    `place` is where the store's cache holds it, None once it has left. `passed` is what `hits` was when it
    was last spared. Both are floats, which CPython adds faster than integers and exactly up to 2**53.

    No hit is lost or counted twice (with a global interpreter lock; other builds count in `ThreadedHits`).
    A record that leaves gets `deadline = -inf` and no place, and only then its hits are added up. A
    reader may have found it before and be anywhere. But the interpreter lets other threads and signal
    handlers run at calls and at backward jumps only, and a reader makes neither between its comparison with
    `deadline` (or its look at `place`: `Counts.served`) and `hits += 1`. So either its addition was there
    to be added up, or it sees that the record has left and counts elsewhere. (Clocks are taken to return
    plain numbers: comparing them calls nothing.)
    """

    __slots__ = (
        "deadline",
        "hits",
        "key",
        "landed",
        "passed",
        "place",
        "ttl",
        "value",
    )
    key: Hashable
    value: Any
    landed: float
    ttl: float
    deadline: float
    hits: float
    passed: float
    place: object

    # What only an `AgeingRecord` has; here they take no room.
    grace: float = 0.0
    refresh_at = inf
    failed = False
    error: BaseException | None = None
    tags: tuple[str, ...] = ()  # only a `TaggedRecord` has any
    weight: Any = 1  # only a `WeighedRecord` has another: exact, an integer or a fraction

    def fresh_for(self, now: float) -> float:
        """For how many more seconds it is fresh; 0 or less when it is not."""
        return fresh_for(self.landed, self.ttl, now)

    def serves_for(self, now: float) -> float:
        """For how many more seconds it may be served, fresh or stale; 0 or less when it may not."""
        return self.landed + self.ttl + self.grace - now

    def fast_until(self) -> float:
        """Until when reads may take the fast path."""
        return self.landed + self.ttl

    def reopen(self) -> None:
        """Reads may take the fast path again, for as long as it allows; but not once it has left."""
        if self.place is not None:
            self.deadline = self.fast_until()
            if self.place is None:  # it left in between, where threads run at the same time
                self.deadline = -inf

    def snapshot(self, now: float) -> Entry[Any]:
        """What users see of it."""
        from .entry import Entry

        state = "fresh" if self.fresh_for(now) > 0 else "stale" if self.serves_for(now) > 0 else "expired"
        age = max(0.0, now - self.landed)
        weight = self.weight if type(self.weight) is int else float(self.weight)
        return Entry(plain(self.key), self.value, age, self.ttl, state, int(self.hits), weight)


class AgeingRecord(Record):
    """One that may be served past its ttl, renewed ahead of it, or that holds an exception.

    `refresh_at` is when a reader is to start a renewal; `failed` whether one has failed since it landed.
    Both are written under the mutex.
    """

    __slots__ = ("error", "failed", "grace", "refresh_at")
    key: Hashable
    value: Any
    landed: float
    ttl: float
    grace: float
    refresh_at: float
    error: BaseException | None
    failed: bool
    hits: float
    passed: float

    def __init__(
        self,
        key: Hashable,
        value: Any,
        landed: float,
        ttl: float,
        grace: float = 0.0,
        refresh_at: float = inf,
        error: BaseException | None = None,
    ) -> None:
        self.key, self.value, self.landed, self.ttl = key, value, landed, ttl
        self.grace, self.refresh_at, self.error = grace, refresh_at, error
        self.failed = False
        self.hits = self.passed = 0.0
        self.place: object = None
        self.deadline: float = self.fast_until()

    def renew_at(self, when: float) -> None:
        """From then on, and not before, a reader starts a renewal; call under the mutex."""
        self.refresh_at = when
        if self.deadline != -inf:
            self.reopen()

    def fast_until(self) -> float:
        """Until when reads may take the fast path."""
        if self.error is not None:
            return -inf
        return min(self.landed + self.ttl, self.refresh_at)


class TaggedRecord(AgeingRecord):
    """One that is dropped when one of its tags is invalidated."""

    __slots__ = ("tags",)


class WeighedRecord(TaggedRecord):
    """One that takes more room than others, or less."""

    __slots__ = ("weight",)


def record_of(key: Hashable, value: Any, landed: float, ttl: float) -> Record:
    """A value that has just landed, held nowhere yet (no `__init__`: see `slots.new_slot`)."""
    record = Record()
    record.key = key
    record.value = value
    record.landed = landed
    record.ttl = ttl
    record.deadline = landed + ttl
    record.hits = record.passed = 0.0
    record.place = None
    return record


ABSENT = record_of(None, None, 0.0, -inf)
"""What a look-up finds where there is no record: it has run out before all time."""
