"""Who runs out next: the only room that knows cachetools. Every method is called under the store's lock.

An entry of cachetools for each record would be most of a miss and most of a record's memory. So records
whose lives end at about the same time share one: a *batch*, which runs out when the time begins in which
they end. From then on it *drains*: it is out of the cache, and its records go one by one, each at its own
end. That time is between a thirty-second and a sixty-fourth of their lives, so records that live about
equally long make some fifty batches, however many they are.

Batches are kept by a `TLRUCache`. It never evicts here (`maxsize=inf`): which entry goes when the store is
full is the store's affair. The clock that it sees stands still before all time, so nothing runs out inside
it until `expire` tells it the time, and no clock is read under the lock.
"""

from __future__ import annotations

from itertools import repeat
from math import frexp, inf, ldexp
from typing import Any

from cachetools import TLRUCache

from .entry import Record

__all__ = ["Order"]

_before_all_time = repeat(-inf).__next__


class Batch:
    """Records that end in the time that begins at `begin`, and the head of the ring that they form.

    `later` is the first, `sooner` the last, in the order in which they came, or once it drains in that of
    their ends. An empty batch is its own neighbour.
    """

    __slots__ = ("begin", "later", "sooner")

    def __init__(self, begin: float) -> None:
        self.begin = begin
        self.later: Any = self
        self.sooner: Any = self

    def add(self, record: Record) -> None:
        """Put it last."""
        last = self.sooner
        record.sooner, record.later = last, self
        last.later = self.sooner = record

    def sort(self) -> None:
        """By end, so that the first is the next to go."""
        records: list[Record] = []
        record = self.later
        while record is not self:
            records.append(record)
            record = record.later
        self.later = self.sooner = self
        for record in sorted(records, key=_end):
            self.add(record)


class Order:
    """Which records have run out, told exactly: at any time those whose end is not later.

    `due` is the earliest time at which `expire` can find anything; until then nobody need ask.
    """

    __slots__ = ("_batches", "_begins", "_draining", "_filling", "_ttl", "_width", "due")

    def __init__(self) -> None:
        self._batches: Any = TLRUCache(inf, lambda begin, _batch, _now: begin, _before_all_time)
        self._filling: dict[float, Batch] = {}  # the same batches: a look-up in the cache is slow
        self._draining: list[Batch] = []
        self._begins = inf  # when the first of the batches does, or earlier
        self._ttl, self._width = 0.0, 0.0  # of the last record that came
        self.due = inf

    def add(self, record: Record) -> None:
        """A record has landed; it is in no order yet."""
        if record.ttl != self._ttl:
            self._ttl, self._width = record.ttl, _width_of(record.ttl)
        end = record.landed + record.ttl + record.grace
        begin = end - end % self._width if end < inf else inf
        batch = self._filling.get(begin)
        if batch is None:
            batch = self._start(begin)
        last = batch.sooner  # in line: `Batch.add`
        record.sooner, record.later = last, batch
        last.later = batch.sooner = record

    def remove(self, record: Record) -> None:
        """A record of this order leaves before its time; a batch that is emptied goes with it."""
        sooner, later = record.sooner, record.later
        sooner.later, later.sooner = later, sooner
        record.sooner = record.later = None  # one that left must not keep its neighbours alive
        if sooner is later:
            self._close(sooner)

    def expire(self, now: float) -> list[Record]:
        """Take out what has run out, and return it."""
        if self._begins <= now:
            self._drain(now)
        gone: list[Record] = []
        left: list[Batch] = []
        due = self._begins
        for batch in self._draining:
            while (first := batch.later) is not batch and not now < _end(first):
                batch.later, first.later.sooner = first.later, batch
                first.sooner = first.later = None
                gone.append(first)
            if first is batch:
                batch.later = batch.sooner = None  # the collector need not come for it
            else:
                left.append(batch)
                due = min(due, _end(first))
        self._draining, self.due = left, due
        return gone

    def _start(self, begin: float) -> Batch:
        batch = self._filling[begin] = Batch(begin)
        self._batches[begin] = batch
        self._begins = min(self._begins, begin)
        self.due = min(self.due, begin)
        return batch

    def _drain(self, now: float) -> None:
        """The batches whose time has begun."""
        for begin, batch in self._batches.expire(now):
            del self._filling[begin]
            batch.sort()
            self._draining.append(batch)
        self._begins = min(self._filling, default=inf)

    def _close(self, batch: Batch) -> None:
        """It is empty. (One that drains is found empty the next time.)"""
        if self._filling.get(batch.begin) is batch:
            del self._filling[batch.begin], self._batches[batch.begin]
            batch.later = batch.sooner = None  # the collector need not come for it


def _end(record: Record) -> float:
    return record.landed + record.ttl + record.grace


def _width_of(ttl: float) -> float:
    """How long the time is in which the records of a batch end: a power of two, so that lives share them."""
    return ldexp(1.0, max(frexp(ttl)[1] - 6, -1000))
