"""Who runs out next: the only room that knows cachetools. Every method is called under the store's lock.

Ends of lives are kept by a `TLRUCache`. It never evicts here (`maxsize=inf`): which entry goes when the
store is full is the store's affair. The clock that it sees stands still before all time, so nothing runs
out inside it until `expire` tells it the time, and no clock is read under the lock.

Both orders answer the same questions. `due` is the earliest time at which `expire` can find anything; until
then nobody need ask.
"""

from __future__ import annotations

from itertools import repeat
from math import inf
from typing import Any, Protocol

from cachetools import TLRUCache

from .entries import Record

__all__ = ["Order", "order_of"]

_PARTS = 64  # a batch takes what lands within this part of a life

_before_all_time = repeat(-inf).__next__


class Order(Protocol):
    """In which order records run out."""

    due: float

    def add(self, record: Record) -> None:
        """A record has landed; it is in no order yet."""

    def remove(self, record: Record) -> None:
        """A record of this order leaves before its time."""

    def expire(self, now: float) -> list[Record]:
        """Take out what has run out, and return it."""


def order_of(life: float | None) -> Order:
    """The order for entries that all live equally long (seconds), or (None) each for its own time."""
    return VaryingOrder() if life is None else FixedOrder(life)


class Batch:
    """Records that landed shortly after one another, and the head of the ring that they form.

    `later` is the one that landed first, `sooner` the last. An empty batch is its own neighbour.
    """

    __slots__ = ("landed", "later", "sooner")

    def __init__(self, landed: float) -> None:
        self.landed = landed  # when its first record did, which may have left since
        self.later: Any = self
        self.sooner: Any = self


class FixedOrder:
    """All records live equally long.

    An entry of cachetools for each record would be most of a miss and most of a record's memory. So
    records share one: those that land within a sixty-fourth of a life form a batch, which runs out when its
    first record does. From then on it *drains*: it is out of the cache, and its records go one by one, each
    at its own time. There are hardly ever more than sixty-five batches, however many records there are.
    """

    __slots__ = ("_batches", "_closes", "_draining", "_life", "_newest", "due")

    def __init__(self, life: float) -> None:
        self._life = life
        self._batches: Any = TLRUCache(inf, lambda batch, _value, _now: batch.landed + life, _before_all_time)
        self._draining: list[Batch] = []
        self._newest = Batch(inf)
        self._closes = -inf  # until when the newest batch takes records
        self.due = inf

    def add(self, record: Record) -> None:
        """The last of the newest batch, or the first of a new one (also where the clock stepped back)."""
        batch = self._newest
        if not batch.landed <= record.landed < self._closes:
            batch = self._open(record.landed)
        last = batch.sooner
        record.sooner, record.later = last, batch
        last.later = batch.sooner = record

    def remove(self, record: Record) -> None:
        """Out of its batch; an emptied batch goes with it."""
        sooner, later = record.sooner, record.later
        sooner.later, later.sooner = later, sooner
        record.sooner = record.later = None  # one that left must not keep its neighbours alive
        if sooner is later:
            self._close(sooner)

    def expire(self, now: float) -> list[Record]:
        """What has run out, in the order of landing."""
        life, draining = self._life, self._draining
        for batch, _ in self._batches.expire(now):
            draining.append(batch)
            if batch is self._newest:
                self._closes = -inf
        gone: list[Record] = []
        left: list[Batch] = []
        for batch in draining:
            while (first := batch.later) is not batch and not now < first.landed + life:
                batch.later = first.later
                first.later.sooner = batch
                first.sooner = first.later = None
                gone.append(first)
            if batch.later is batch:
                batch.later = batch.sooner = None  # the collector need not come for it
            else:
                left.append(batch)
        self._draining = left
        if left:
            self.due = min(batch.later.landed for batch in left) + life
        else:
            self.due = min((batch.landed for batch in self._batches), default=inf) + life
        return gone

    def _open(self, landed: float) -> Batch:
        batch = self._newest = Batch(landed)
        self._batches[batch] = None
        self._closes = landed + self._life / _PARTS
        self.due = min(self.due, landed + self._life)
        return batch

    def _close(self, batch: Batch) -> None:
        """It is empty. (One that drains is in the cache no more, and found empty the next time.)"""
        if batch in self._batches:
            del self._batches[batch]
            batch.later = batch.sooner = None  # the collector need not come for it
        if batch is self._newest:
            self._closes = -inf
        self.due = -inf  # unknown: whoever asks next finds out


class VaryingOrder:
    """Each record has a life of its own and an entry of cachetools.

    That is kept by the record's identity: cachetools may hold on to a key for some time after it was
    taken out, and a number keeps nothing alive.
    """

    __slots__ = ("_records", "due")

    def __init__(self) -> None:
        self._records: Any = TLRUCache(inf, _end, _before_all_time)
        self.due = -inf  # cachetools alone knows

    def add(self, record: Record) -> None:
        """Among the others, by its end."""
        self._records[id(record)] = record

    def remove(self, record: Record) -> None:
        """No longer among the others."""
        del self._records[id(record)]

    def expire(self, now: float) -> list[Record]:
        """What has run out, the earliest end first."""
        return [record for _, record in self._records.expire(now)]


def _end(_identity: int, record: Record, _now: float) -> float:
    return record.landed + record.ttl
