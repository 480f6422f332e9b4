"""Where values are kept: a dictionary for lock-free hits, cachetools for running out in order.

`index` alone decides what is served: a reader does one look-up and one comparison, without the lock.
Beside it, under the lock, cachetools knows in which order entries run out (`TTLCache` where one ttl serves
all, `TLRUCache` where each has its own), and a ring through the records knows whose turn it is to go when
the store is full: second chance, also called CLOCK (F. J. Corbató, 1968). cachetools itself never evicts;
its least-recently-used order cannot be read without changing it, and putting an entry back would restart
its ttl.

Nothing of the user's runs under the lock but a key's `__hash__` and `__eq__`; what is dropped is handed to
the caller, who lets go of it after. A thread that comes back while it is inside (the collector and signal
handlers run anywhere) changes nothing; what it wanted dropped is dropped by the section it interrupted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from operator import getitem
from typing import Any, Protocol

from cachetools import TLRUCache, TTLCache

from .entries import Record
from .keys import InstanceKey
from .sections import register

__all__ = ["Store"]

_CHANCES = 32  # how many used entries one eviction may pass over; bounds the time under the lock


class Detachable(Protocol):
    """What may publish: refused once it is detached, or when another value has come since it began."""

    detached: bool
    previous: Record | None


class Store:
    """The entries of one decorated function.

    Args:
        maxsize: entries kept; None for no limit.
        ttl: the one ttl of all entries, in seconds, or None where each record has its own.
    """

    def __init__(self, maxsize: int | None, ttl: float | None) -> None:
        self.index: dict[Hashable, Record] = {}  # read by anybody, written under the lock
        self.evictions = self.expirations = 0  # written under the lock
        self._maxsize = inf if maxsize is None else maxsize
        self._ttl = ttl
        self._new_lock()
        # The time cachetools sees: that of the operation, so that it never reads a clock under the lock.
        self._now = [0.0]
        self._time: Any = partial(getitem, self._now, 0)
        self._expired: list[Record] = []
        self._torn = False  # true inside a mutation; found true at its start, the last one never ended
        self._unwanted: deque[Hashable] = deque()  # keys and InstanceKeys to drop; appended to by anybody
        self._of_instance: dict[InstanceKey, set[Hashable]] = {}
        self._rebuild()
        register(self)

    def records(self) -> list[Record]:
        """Everything that is stored, run out or not."""
        return list(self.index.values())

    # -- writing ------------------------------------------------------------------------------------

    def put(self, record: Record, publisher: Detachable | None = None) -> list[Record] | None:
        """Store a record; None if it was refused, else the records that went for it (evicted first).

        Refused when the publisher was detached: `detached` is set before what it would replace is
        dropped, so a detached flight's value is either seen here or dropped there.
        """
        if self.is_owned():
            return None
        gone: list[Record] = []
        with self._lock:
            refused = publisher is not None and self._outdated(record.key, publisher)
            if not refused:
                self._insert(record, gone)
        if self._unwanted:
            self.settle()
        return None if refused else gone

    def _outdated(self, key: Hashable, publisher: Detachable) -> bool:
        """Whether what it brings was asked for before what is here, or before it was dropped."""
        if publisher.detached:
            return True
        current = self.index.get(key)
        return current is not None and current is not publisher.previous

    def _insert(self, record: Record, gone: list[Record]) -> None:
        if self._torn:
            self._rebuild()
        self._torn = True
        key, index, ring = record.key, self.index, self._ring
        self._now[0] = record.landed
        self._order[key] = record  # first: it takes out what has run out, perhaps this key's old record
        old = index.get(key)
        if old is not None:
            record.key = old.key  # the very key object that the dictionaries hold
            old.older.newer, old.newer.older = old.newer, old.older
            del old.older, old.newer
        elif len(index) >= self._maxsize:
            self._make_room(gone)
        record.newer, record.older = ring, ring.older
        ring.older.newer = record
        ring.older = record
        index[key] = record
        if type(key) is tuple and key and type(key[0]) is InstanceKey:
            self._of_instance.setdefault(key[0], set()).add(key)
        if self._expired:
            gone += self._expired
            self._expired.clear()
        self._torn = False

    def drop(self, key: Hashable) -> Record | None:
        """Take one entry out and return it."""
        with self._section() as inside:
            if inside:
                record = self.index.get(key)
                if record is not None:
                    self._remove(record)
                return record
            self._unwanted.append(key)
        return self.index.get(key)

    def clear(self) -> list[Record]:
        """Take everything out, and count from zero."""
        with self._section() as inside:
            records = list(self.index.values())
            if inside:
                self.index.clear()
                for record in records:
                    del record.older, record.newer  # or they would keep one another alive
                self.evictions = self.expirations = 0
                self._rebuild()
            else:
                self._unwanted.extend(record.key for record in records)
            return records

    def expire(self, now: float) -> list[Record]:
        """Take out what has run out."""
        with self._section() as inside:
            if not inside:
                return []
            self._order.expire(now)
            gone, self._expired[:] = list(self._expired), []
            return gone

    def forget(self, unwanted: Hashable) -> None:
        """Have a key, or all keys of an instance, dropped as soon as possible; never waits.

        Called from weak-reference callbacks, that is from anywhere, also inside our own sections.
        """
        self._unwanted.append(unwanted)
        self.settle()

    def settle(self) -> None:
        """Drop what `forget` was told, unless somebody is inside, who then does it on leaving."""
        lock = self._lock
        while self._unwanted:
            if self.is_owned() or not lock.acquire(blocking=False):
                return
            gone: list[Record | None] = []
            try:
                if self._torn:
                    self._rebuild()
                self._torn = True
                while self._unwanted:
                    unwanted = self._unwanted.popleft()
                    keys = {unwanted}
                    if isinstance(unwanted, InstanceKey):
                        keys = self._of_instance.pop(unwanted, set())
                    for key in keys:
                        record = self.index.get(key)
                        if record is not None:
                            gone.append(record)
                            self._remove(record)
                self._torn = False
            finally:
                lock.release()
            gone.clear()  # outside the lock: destructors may do anything

    def after_fork(self) -> None:
        """Make the store usable in a forked child: nobody holds its lock, its order is made anew."""
        self._new_lock()
        self._expired.clear()
        self._rebuild()

    def _new_lock(self) -> None:
        lock: Any = threading.RLock()
        self._lock = lock
        self.is_owned: Callable[[], bool] = lock._is_owned  # as threading.Condition asks it

    # -- under the lock -----------------------------------------------------------------------------

    @contextmanager
    def _section(self) -> Iterator[bool]:
        """One critical section; yields False, holding nothing, when this thread is inside already."""
        if self.is_owned():
            yield False
            return
        with self._lock:
            if self._torn:
                self._rebuild()
            self._torn = True
            yield True
            self._torn = False
        if self._unwanted:
            self.settle()

    def _make_room(self, gone: list[Record]) -> None:
        """Free at least one place by the hand's choice; what has run out is gone already."""
        chances = _CHANCES
        while len(self.index) >= self._maxsize:
            oldest = self._ring.newer
            if chances and oldest.hits != oldest.passed:  # used since the hand last passed: to the back
                chances -= 1
                oldest.passed = oldest.hits
                ring = self._ring
                oldest.newer.older, ring.newer = ring, oldest.newer
                oldest.newer, oldest.older = ring, ring.older
                ring.older.newer = oldest
                ring.older = oldest
                continue
            self._remove(oldest)
            self.evictions += 1
            gone.append(oldest)

    def _remove(self, record: Record) -> None:
        self._unlink(record)
        try:  # noqa: SIM105  # on the path of every eviction
            del self._order[record.key]
        except KeyError:  # cachetools' answer for what has run out; it is deleted all the same
            pass

    def _unlink(self, record: Record) -> None:
        key = record.key
        self.index.pop(key, None)
        record.older.newer, record.newer.older = record.newer, record.older
        del record.older, record.newer  # a dropped record must not keep its neighbours alive
        if type(key) is tuple and key and type(key[0]) is InstanceKey:
            keys = self._of_instance.get(key[0])
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._of_instance[key[0]]

    def _ran_out(self, pairs: list[tuple[Hashable, Record]]) -> None:
        """cachetools took these out of its order: they leave the index too."""
        for _, record in pairs:
            self._unlink(record)
            self._expired.append(record)
        ran_out = len(pairs)
        self.expirations += ran_out

    def _rebuild(self) -> None:
        """Make everything beside `index` anew from it: at birth, after a fork, after a torn mutation."""
        ring = self._ring = Record(None, None, 0.0, 0.0)  # the sentinel: oldest is `newer`, newest `older`
        ring.newer = ring.older = ring
        self._order = _make_order(self._ttl, self._time, self._ran_out)
        self._of_instance.clear()
        for record in sorted(self.index.values(), key=lambda record: record.landed):
            record.newer, record.older = ring, ring.older
            ring.older.newer = record
            ring.older = record
            self._now[0] = record.landed
            self._order[record.key] = record
            key = record.key
            if type(key) is tuple and key and type(key[0]) is InstanceKey:
                self._of_instance.setdefault(key[0], set()).add(key)
        self._torn = False


def _make_order(
    ttl: float | None, timer: Callable[[], float], ran_out: Callable[[list[tuple[Hashable, Record]]], None]
) -> Any:
    """The cachetools cache that knows who runs out next; without a size limit of its own."""
    base: type[Any] = TLRUCache if ttl is None else TTLCache

    take_out = base.expire

    class Order(base):  # type: ignore[misc]
        def expire(self, time: float | None = None) -> list[tuple[Hashable, Record]]:
            pairs: list[tuple[Hashable, Record]] = take_out(self, time)
            if pairs:
                ran_out(pairs)
            return pairs

    if ttl is None:
        return Order(inf, lambda _key, record, _now: record.landed + record.ttl, timer)
    return Order(inf, ttl, timer)
