"""Where values are kept: a dictionary for lock-free hits, and beside it who runs out next and who is to go.

`index` alone decides what is served: a reader does one look-up and one comparison, without the lock.
Beside it, under the lock, an `Order` knows who runs out next, and a ring through the records knows whose
turn it is to go when the store is full: second chance, also called CLOCK (F. J. Corbató, 1968).

Nothing of the user's runs under the lock but a key's `__hash__` and `__eq__`; what is dropped is handed to
the caller, who lets go of it after. A thread that comes back while it is inside (the collector and signal
handlers run anywhere) changes nothing; what it wanted dropped is dropped by the section it interrupted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from math import inf
from typing import Protocol

from .entries import Record, record_of
from .keys import InstanceKey
from .order import Order
from .sections import new_lock, register

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
    """

    def __init__(self, maxsize: int | None) -> None:
        self.index: dict[Hashable, Record] = {}  # read by anybody, written under the lock
        self.evictions = self.expirations = 0  # written under the lock
        self._hits_of_gone = 0.0  # the hits of records that have left; written under the lock
        self._maxsize = inf if maxsize is None else maxsize
        self._new_lock()
        self._torn = False  # true inside a mutation; found true at its start, the last one never ended
        self._unwanted: deque[Hashable] = deque()  # keys and InstanceKeys to drop; appended to by anybody
        self._of_instance: dict[InstanceKey, set[Hashable]] = {}
        self._ring = record_of(None, None, 0.0, 0.0)  # the sentinel: oldest is `newer`, newest `older`
        self._rebuild()
        register(self)

    def records(self) -> list[Record]:
        """Everything that is stored, run out or not."""
        return list(self.index.values())

    def hits(self) -> int:
        """How often a stored record has served (with a global interpreter lock; see `Record`)."""
        with self._lock:
            hits, records = self._hits_of_gone, list(self.index.values())
        return int(hits + sum(record.hits for record in records))

    # -- writing ------------------------------------------------------------------------------------

    def put(self, record: Record, publisher: Detachable | None = None) -> list[Record] | None:
        """Store a record; None if it was refused, else the records that went for it.

        Refused when the publisher was detached (`detached` is set before what it would replace is dropped,
        so a detached flight's value is either seen here or dropped there), or when what is here came after
        the publisher had begun.
        """
        if self.is_owned():
            return None
        gone: list[Record] = []
        refused = False
        with self._lock:
            key, index = record.key, self.index
            old = index.get(key)
            if publisher is not None and (
                publisher.detached or (old is not None and old is not publisher.previous)
            ):
                refused = True
            else:
                if self._torn:
                    self._rebuild()
                self._torn = True
                order, ring = self._order, self._ring
                if order.due <= record.landed:
                    gone = self._take_out(order.expire(record.landed))
                    old = index.get(key)
                order.add(record)
                if old is not None:
                    record.key = old.key  # the very key object that the dictionaries hold
                elif len(index) >= self._maxsize:
                    went = ring.newer
                    if went.hits != went.passed:
                        went = self._pass_over()
                    order.remove(went)
                    self._unlist(went)
                    self.evictions += 1
                    gone.append(went)
                newest = ring.older
                record.newer, record.older = ring, newest
                newest.newer = ring.older = record
                index[key] = record
                if old is not None:
                    order.remove(old)
                    self._leave(old)
                elif type(key) is tuple and key and type(key[0]) is InstanceKey:
                    self._of_instance.setdefault(key[0], set()).add(key)
                self._torn = False
        if self._unwanted:
            self.settle()
        return None if refused else gone

    def drop(self, key: Hashable) -> Record | None:
        """Take one entry out and return it."""
        if self.is_owned():
            self._unwanted.append(key)
            return self.index.get(key)
        with self._lock:
            self._begin()
            record = self.index.get(key)
            if record is not None:
                self._remove(record)
            self._torn = False
        if self._unwanted:
            self.settle()
        return record

    def clear(self) -> list[Record]:
        """Take everything out, and count from zero."""
        if self.is_owned():
            records = self.records()
            self._unwanted.extend(record.key for record in records)
            return records
        with self._lock:
            self._begin()
            records = self.records()
            self.index.clear()
            for record in records:
                record.deadline = -inf
                record.older = record.newer = record.sooner = record.later = None
            self.evictions = self.expirations = 0
            self._hits_of_gone = 0.0
            self._rebuild()
        if self._unwanted:
            self.settle()
        return records

    def expire(self, now: float) -> list[Record]:
        """Take out what has run out."""
        if self.is_owned():
            return []
        with self._lock:
            self._begin()
            gone = self._take_out(self._order.expire(now))
            self._torn = False
        if self._unwanted:
            self.settle()
        return gone

    def forget(self, unwanted: Hashable) -> None:
        """Have a key, or all keys of an instance, dropped as soon as possible; never waits.

        Called from weak-reference callbacks, that is from anywhere, also inside our own sections.
        """
        self._unwanted.append(unwanted)
        self.settle()

    def settle(self) -> None:
        """Drop what `forget` was told, unless somebody is inside, who then does it on leaving."""
        while self._unwanted and not self.is_owned():
            gone: list[Record] = []
            try:
                try:
                    if not self._lock.acquire(blocking=False):
                        return
                    self._begin()
                    while self._unwanted:
                        self._drop_unwanted(self._unwanted.popleft(), gone)
                    self._torn = False
                finally:
                    self._let_go()
            finally:
                self._let_go()  # an interrupt may have struck in the other
            gone.clear()  # outside the lock: destructors may do anything

    def after_fork(self) -> None:
        """In a forked child, which counts for itself: a free lock, and an order made anew."""
        self._new_lock()
        self._rebuild()
        self.evictions = self.expirations = 0
        self._hits_of_gone = -sum(record.hits for record in self.index.values())

    def _new_lock(self) -> None:
        self._lock = lock = new_lock()
        self.is_owned: Callable[[], bool] = lock._is_owned  # as threading.Condition asks it

    def _let_go(self) -> None:
        if self.is_owned():
            self._lock.release()

    # -- under the lock -----------------------------------------------------------------------------

    def _begin(self) -> None:
        """A mutation begins; it ends with `_torn = False`."""
        if self._torn:
            self._rebuild()
        self._torn = True

    def _pass_over(self) -> Record:
        """Those at the front that were used since the hand last passed go to the back; who is first then."""
        ring = self._ring
        oldest: Record = ring.newer
        chances = _CHANCES
        while chances and oldest.hits != oldest.passed:
            chances -= 1
            oldest.passed = oldest.hits
            following = oldest.newer
            ring.newer, following.older = following, ring
            newest = ring.older
            oldest.older, oldest.newer = newest, ring
            newest.newer = ring.older = oldest
            oldest = ring.newer
        return oldest

    def _remove(self, record: Record) -> None:
        """Out of everything, before its time."""
        self._order.remove(record)
        self._unlist(record)

    def _take_out(self, ran_out: list[Record]) -> list[Record]:
        """The order has let these go: they leave everything else."""
        for record in ran_out:
            self._unlist(record)
            self.expirations += 1
        return ran_out

    def _drop_unwanted(self, unwanted: Hashable, gone: list[Record]) -> None:
        keys = {unwanted}
        if isinstance(unwanted, InstanceKey):
            keys = self._of_instance.pop(unwanted, set())
        for key in keys:
            record = self.index.get(key)
            if record is not None:
                gone.append(record)
                self._remove(record)

    def _unlist(self, record: Record) -> None:
        key = record.key
        self.index.pop(key, None)
        self._leave(record)
        if type(key) is tuple and key and type(key[0]) is InstanceKey:
            keys = self._of_instance.get(key[0])
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._of_instance[key[0]]

    def _leave(self, record: Record) -> None:
        """Out of the ring; from now on nobody's hit is counted in it (why this order: see `Record`)."""
        record.deadline = -inf
        older, newer = record.older, record.newer
        older.newer, newer.older = newer, older
        record.older = record.newer = None  # one that left must not keep its neighbours alive
        self._hits_of_gone += record.hits

    def _rebuild(self) -> None:
        """Make everything beside `index` anew from it: at birth, after a fork, after a torn mutation."""
        ring = self._ring
        ring.newer = ring.older = ring
        self._order = Order()
        self._of_instance.clear()
        for record in sorted(self.index.values(), key=lambda record: record.landed):
            record.newer, record.older = ring, ring.older
            ring.older.newer = record
            ring.older = record
            self._order.add(record)
            key = record.key
            if type(key) is tuple and key and type(key[0]) is InstanceKey:
                self._of_instance.setdefault(key[0], set()).add(key)
        self._torn = False
