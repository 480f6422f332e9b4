"""Where values are kept: a cachetools cache, which evicts and expires, and a dictionary for lock-free hits.

`index` alone decides what is served: a reader does one look-up and one comparison, without the lock.
The cache holds the same records, under the lock; what it lets go of leaves the index in the same section.

Nothing of the user's runs under the lock but a key's `__hash__` and `__eq__`, and a class that was chosen as
policy; what is dropped is handed to the caller, who lets go of it after. A thread that comes back while it is
inside (the collector and signal handlers run anywhere) changes nothing; what it wanted dropped is dropped by
the section it interrupted.

A key may be *spoilt* after it was stored: it has changed, or raises when it is hashed or compared. A
dictionary lets go of nothing without that hash. So what is to leave is looked up by its key, and leaves if
that finds this very record; if not, `index` is made anew of those that are still found (`_without_spoilt`).
The new one takes the place of the old one as a whole: a reader without the lock looks into the one or the
other, both complete, and what has left is closed (`deadline`). So no reader misses what is stored, and none
finds it under another key than it was stored with. That costs a walk over all that is stored, and takes out
every spoilt entry at once; so a store that is full pays for it about once in `maxsize` evictions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from math import inf
from typing import Any, NamedTuple, Protocol

from ..common.keys import InstanceKey, check_room
from ..locks.mutex import new_lock, with_sections
from .expiry import HoldingCache
from .policy import USUAL, ChosenCache, new_cache
from .record import Record

__all__ = ["Store"]

_MOVED = object()  # no key: whoever leaves the section is to say that the index was replaced


_MANY_CUTS = 64  # invalidated tags that are remembered before it is looked which of them still matter


class _Cut(NamedTuple):
    """Tags that were invalidated amid a section of ours, which does it on leaving."""

    tags: tuple[str, ...]
    number: int


class Detachable(Protocol):
    """What may publish: refused once it is detached, or when another value has come since it began."""

    detached: bool
    previous: Record | None
    number: int
    """Which grows with the time at which it began."""


@with_sections
class Store:
    """The entries of one decorated function.

    Args:
        maxsize: entries kept; None for no limit.
        ttl: seconds, where all entries live equally long (`math.inf`: for ever); None where they do not.
        policy: a class of cachetools that decides who is evicted.
        weighed: `maxsize` limits the sum of the records' weights.
    """

    evictions: int
    expirations: int

    def __init__(
        self, maxsize: int | None, ttl: float | None = None, policy: Any = USUAL, weighed: bool = False
    ) -> None:
        self.index: dict[Hashable, Record] = {}  # read by anybody, written and replaced under the lock
        self.lookup: Callable[..., Any] = self.index.get  # replaced with it
        self.moved: Callable[[], object] = _nobody_follows  # called, without the lock, after that
        self._has_moved = False  # until it was called
        self.evictions = self.expirations = 0  # written under the lock
        self._hits_of_gone = 0.0  # the hits of records that have left; written under the lock
        self._most = inf if maxsize is None else maxsize
        self._new_cache = partial(new_cache, self._most, ttl, policy, weighed)
        self._new_lock()
        self._torn = False  # true inside a mutation; found true at its start, the last one never ended
        # Keys, InstanceKeys, records and cuts to drop, and `_MOVED`; appended to by anybody.
        self._unwanted: deque[Hashable] = deque()
        self._of_instance: dict[InstanceKey, set[Record]] = {}  # records go by identity: no key is hashed
        self._of_tag: dict[str, set[Record]] = {}
        self._cuts: dict[str, int] = {}  # tags that were invalidated, and when; written under the lock
        self.last_cut: int = 0  # the number of the last of these; written under the lock
        self._most_cuts = _MANY_CUTS
        self._rebuild()

    def records(self) -> list[Record]:
        """Everything that is stored, run out or not."""
        return list(self.index.values())

    def find(self, key: Hashable) -> Record | None:
        """What is stored for a key; None also where the key is spoilt and raises."""
        try:
            return self.index.get(key)
        except Exception:
            return None

    def records_of(self, owner: InstanceKey) -> list[Record]:
        """Everything that is stored for an instance with the default key, run out or not."""
        with self._lock:
            return list(self._of_instance.get(owner, ()))

    def tagged(self, tag: str) -> list[Record]:
        """Everything that is stored with this tag, run out or not."""
        with self._lock:
            return list(self._of_tag.get(tag, ()))

    def weight(self) -> float:
        """How much all that is stored weighs; without weights the number of records."""
        weight = sum(record.weight for record in self.records())
        return weight if type(weight) is int else float(weight)

    def hits(self) -> int:
        """How often a stored record has served (with a global interpreter lock; see `Record`)."""
        with self._lock:
            hits, records = self._hits_of_gone, list(self.index.values())
        return int(hits + sum(record.hits for record in records))

    # -- writing ------------------------------------------------------------------------------------

    def put(self, record: Record, publisher: Detachable | None = None) -> list[Record] | None:
        """Store a record; None if it was refused, else the records that went for it.

        Refused when the publisher was detached (`detached` is set before what it would replace is dropped,
        so a detached flight's value is either seen here or dropped there), when one of the record's tags was
        invalidated after the publisher had begun (`cut`: the same section), when what is here came after
        that, or when the policy does not keep it.
        """
        if self.is_owned():
            return None
        gone: list[Record] = []
        refused = False
        with self._lock:
            key, index = record.key, self.index
            old = index.get(key)
            if publisher is not None and (
                publisher.detached
                or (old is not None and old is not publisher.previous)
                or (record.tags and self.is_cut(record.tags, publisher.number))
            ):
                refused = True
            else:
                if self._torn:
                    self._rebuild()
                self._torn = True
                cache = self._cache
                ran_out = cache.run_out(record.landed)
                if ran_out:
                    gone = self._take_out(ran_out)
                    index = self.index
                    old = index.get(key)
                if old is not None:
                    record.key = old.key  # the very key object that the dictionary holds
                evicted = cache.hold(record, old, len(index) >= self._most)
                if evicted:
                    if record in evicted:  # its policy does not keep it
                        refused = True
                        evicted.remove(record)
                        evicted += [] if old is None else [old]
                    gone = gone + evicted if gone else evicted
                    self.evictions += len(evicted)
                    if not self._unlist(evicted):
                        gone += self._without_spoilt()
                        index = self.index
                if not refused:
                    index[key] = record
                    if old is not None:
                        self._leave(old)
                    if type(key) is tuple and key and type(key[0]) is InstanceKey:
                        if old is not None:
                            self._disown(old)
                        self._of_instance.setdefault(key[0], set()).add(record)
                    if record.tags:
                        self._tag(record)
                self._torn = False
        if self._unwanted:
            self.settle()
        return None if refused else gone

    def used(self, record: Record) -> list[Record]:
        """Tell the policy that a record has served; returns those that went for it. Passes on what it raises.

        Not where this thread is inside already (what interrupts a section changes nothing), nor before a torn
        cache is made anew.
        """
        gone: list[Record] = []
        if not self.is_owned():
            with self._lock:
                if record.place is not None and not self._torn:
                    self._torn = True
                    evicted = self._cache.use(record)
                    if evicted:
                        self._evict(evicted, gone)
                    self._torn = False
            if self._unwanted:
                self.settle()
        return gone

    def drop(self, key: Hashable) -> Record | None:
        """Take one entry out and return it."""
        if self.is_owned():
            self._unwanted.append(key)
            return self.index.get(key)
        spoilt: list[Record] = []  # destroyed outside the lock
        with self._lock:
            record = self.index.get(key)
            self._begin()
            if record is not None and not self._remove(record):
                spoilt = self._without_spoilt()
            self._torn = False
        if self._unwanted:
            self.settle()
        del spoilt
        return record

    def discard(self, records: list[Record]) -> list[Record]:
        """Take these very records out, whatever their keys have become; returns those that were there."""
        if self.is_owned():
            self._unwanted.extend(record.key for record in records)
            return [record for record in records if record.place is not None]
        spoilt: list[Record] = []  # destroyed outside the lock
        with self._lock:
            self._begin()
            stored = [record for record in records if record.place is not None]
            sound = True
            for record in stored:
                sound = self._remove(record) and sound
            if not sound:
                spoilt = self._without_spoilt()
            self._torn = False
        if self._unwanted:
            self.settle()
        del spoilt
        return stored

    def cut(self, tags: tuple[str, ...], number: int) -> list[Record]:
        """Take out what has one of these tags, and refuse from now on what began before `number` and has one.

        Returns what was there.
        """
        if self.is_owned():
            self._unwanted.append(_Cut(tags, number))
            return list({record for tag in tags for record in self._of_tag.get(tag, ())})
        gone: list[Record] = []
        with self._lock:
            self._begin()
            self._cut(tags, number, gone)
            self._torn = False
        if self._unwanted:
            self.settle()
        return gone

    def has_many_cuts(self) -> bool:
        """Return True if it is time to look which of them still matter: seldom, so it may take long."""
        return len(self._cuts) >= self._most_cuts

    def forget_cuts(self, oldest: int) -> None:
        """Forget those from before this flight: nothing that began earlier is to come any more."""
        if not self.is_owned():
            with self._lock:
                self._cuts = {tag: at for tag, at in self._cuts.items() if at > oldest}
                self._most_cuts = max(_MANY_CUTS, 2 * len(self._cuts))

    def is_cut(self, tags: tuple[str, ...], number: int) -> bool:
        """Return True if one of these tags was invalidated after what has this number began."""
        cuts = self._cuts
        if cuts:
            for tag in tags:
                if cuts.get(tag, 0) > number:
                    return True
        return False

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
                record.place = None
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
            gone = self._take_out(self._cache.run_out_exactly(now))
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
        """Drop what `forget` was told, unless somebody is inside, who then does it on leaving.

        And say that the index was replaced, if so.
        """
        while self._unwanted and not self.is_owned():
            gone: list[Record] = []
            try:
                try:
                    if not self._lock.acquire(blocking=False):
                        return
                    self._begin()
                    while self._unwanted:
                        self._drop_unwanted(self._unwanted[0], gone)
                        self._unwanted.popleft()  # after it: there may have been no room for that
                    self._torn = False
                finally:
                    self._let_go()
            finally:
                self._let_go()  # an interrupt may have struck in the other
            gone.clear()  # outside the lock: destructors may do anything
        while self._has_moved and not self.is_owned():
            self._has_moved = False
            try:
                self.moved()
            except BaseException:  # an interrupt: whoever comes next says it
                self._has_moved = True
                self._unwanted.append(_MOVED)
                raise

    def after_fork(self) -> None:
        """In a forked child, which counts for itself: a free lock, and a cache made anew."""
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

    def _remove(self, record: Record) -> bool:
        """Out of everything, before its time; False: see `_unlist`."""
        del self._cache[record.place]
        return self._unlist([record])

    def _take_out(self, ran_out: list[tuple[object, Record]]) -> list[Record]:
        """The cache has let these go, for they ran out; returns what has left."""
        gone = [record for _, record in ran_out]
        self.expirations += len(gone)
        return gone if self._unlist(gone) else gone + self._without_spoilt()

    def _evict(self, evicted: list[Record], gone: list[Record]) -> None:
        """The cache has let these go, and none came for them."""
        gone += evicted
        self.evictions += len(evicted)
        if not self._unlist(evicted):
            gone += self._without_spoilt()

    def _drop_unwanted(self, unwanted: Hashable, gone: list[Record]) -> None:
        if isinstance(unwanted, Record):  # its policy did not take it again
            if unwanted.place is not None:
                del self._cache[unwanted.place]
                self._evict([unwanted], gone)
            return
        if isinstance(unwanted, _Cut):
            self._cut(unwanted.tags, unwanted.number, gone)
            return
        if isinstance(unwanted, InstanceKey):
            records = list(self._of_instance.get(unwanted, ()))
        else:
            found = self.find(unwanted)
            records = [] if found is None else [found]
        self._remove_all(records, gone)

    def _cut(self, tags: tuple[str, ...], number: int, gone: list[Record]) -> None:
        self.last_cut = max(number, self.last_cut)
        for tag in tags:
            self._cuts[tag] = max(number, self._cuts.get(tag, 0))
            self._remove_all(list(self._of_tag.get(tag, ())), gone)

    def _remove_all(self, records: list[Record], gone: list[Record]) -> None:
        """Take these out, and whatever else has to leave for that."""
        gone += records
        sound = True
        for record in records:
            sound = self._remove(record) and sound
        if not sound:
            gone += self._without_spoilt()

    def _unlist(self, records: list[Record]) -> bool:
        """The cache has let these go: they leave all else. False: `_without_spoilt` is to follow."""
        index, sound = self.index, True
        for record in records:
            key = record.key
            try:
                if index[key] is record:
                    del index[key]
                else:
                    sound = False  # its key is spoilt, and leads to another
            except Exception as error:  # it has changed, or raises
                check_room(error)
                sound = False
            record.deadline = -inf  # in line: `_leave`
            record.place = None
            self._hits_of_gone += record.hits
            if record.tags:
                self._untag(record)
            if type(key) is tuple and key and type(key[0]) is InstanceKey:
                self._disown(record)
        return sound

    def _disown(self, record: Record) -> None:
        """It is none of its instance's any more."""
        key: Any = record.key
        records = self._of_instance.get(key[0])
        if records is not None:
            records.discard(record)
            if not records:
                del self._of_instance[key[0]]

    def _without_spoilt(self) -> list[Record]:
        """Make the index anew, of those that their keys lead to; returns those that have left now for that.

        `set` takes the keys over with the hashes that they were stored with, and compares those first (a
        dictionary may find a changed key by its identity). Whoever can be discarded still has the same hash;
        what is left is spoilt. A changed key is never filed as what it is now: others may ask for that.
        """
        index, kept, gone = self.index, dict[Hashable, Record](), list[Record]()
        try:
            left = set(index)
            for key in list(index):
                try:
                    left.discard(key)
                except Exception as error:  # the key's own
                    check_room(error)
            spoilt = set(map(id, left))
        except Exception as error:  # keys of one hash, whose comparison raises: nobody can tell them apart
            check_room(error)
            spoilt = set(map(id, index))
        for key, record in list(index.items()):
            if record.place is None:  # it has left all but the index
                continue
            try:
                sound = id(key) not in spoilt and kept.setdefault(key, record) is record
            except Exception as error:  # the key's own
                check_room(error)
                sound = False
            if not sound:
                gone.append(record)
        for record in gone:
            del self._cache[record.place]
            self._leave(record)
            key = record.key
            if type(key) is tuple and key and type(key[0]) is InstanceKey:
                self._disown(record)
            self.evictions += 1
        lookup = kept.get
        # No call between these: an interrupt finds the old ones or the new ones.
        self.index = kept
        self.lookup = lookup
        self._has_moved = True
        self._unwanted.append(_MOVED)
        return gone

    def _leave(self, record: Record) -> None:
        """From now on nobody's hit is counted in it (why this order: see `Record`)."""
        record.deadline = -inf
        record.place = None
        self._hits_of_gone += record.hits
        if record.tags:
            self._untag(record)

    def _tag(self, record: Record) -> None:
        of_tag = self._of_tag
        for tag in record.tags:
            records = of_tag.get(tag)
            if records is None:
                of_tag[tag] = {record}
            else:
                records.add(record)

    def _untag(self, record: Record) -> None:
        for tag in record.tags:
            records = self._of_tag.get(tag)
            if records is not None:
                records.discard(record)
                if not records:
                    del self._of_tag[tag]

    def _rebuild(self) -> None:
        """Make everything beside `index` anew from it: at birth, after a fork, after a torn mutation."""
        self._cache: HoldingCache | ChosenCache = self._new_cache()
        self._of_instance.clear()
        self._of_tag.clear()
        for record in sorted(self.index.values(), key=lambda record: record.landed):
            self._unwanted += self._cache.rejoin(record)
            key = record.key
            if type(key) is tuple and key and type(key[0]) is InstanceKey:
                self._of_instance.setdefault(key[0], set()).add(record)
            self._tag(record)
        self._torn = False


def _nobody_follows() -> None:
    """Nobody looks into the index by another way than the store's own."""
