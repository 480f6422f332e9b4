"""The cachetools cache that holds the entries of a function: it evicts and expires.

Which class it is, `cache_for` decides. A record is held under a *place*, a bare object: no key of the user's
is hashed here, so a spoilt one can always be taken out; and what cachetools still refers to after something
has left (a `TLRUCache` does, for a while) are places and no values.

The store tells the time. Otherwise the clock that cachetools sees stands still before all time: nothing
runs out while it stores, evicts or is measured, and no clock of the user's is read under the store's lock.
Every method is called under that lock. One that is cut short may leave the cache in pieces: then the store
makes another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import Any

from cachetools import Cache, TLRUCache, TTLCache

from .record import Record

__all__ = ["HoldingCache", "cache_for"]

_LOOKS = 33  # at how many entries one eviction may look; bounds the time under the lock


def cache_for(maxsize: float, ttl: float | None) -> HoldingCache:
    """A cache for entries that all live for `ttl` seconds, or (None) each for a time of its own."""
    if ttl is None:
        return _OwnLives(maxsize)
    return HoldingCache(maxsize) if ttl == inf else _OneLife(maxsize, ttl)


class _Clock:
    """Shows `times[0]` as a call and on entering a `with`, which is how cachetools asks its own timers.

    What is called for that is not found on the type, as usual, but in the instance: functions of C, for
    several of Python would be a tenth of a miss.
    """

    __slots__ = ("__call__", "__enter__", "__exit__", "times")

    def __init__(self) -> None:
        self.times = [-inf]
        self.__call__ = self.__enter__ = partial(self.times.__getitem__, 0)
        self.__exit__ = "".format  # an empty string: nothing is suppressed


class _Included:
    """The ttl that cachetools adds to the time, where the time it is shown is that of the end already.

    So the number that it keeps is the record's own, `deadline`: 24 bytes less for each entry. (cachetools
    leaves it open what times and a ttl are. `float` returns the very float that it is given.)
    """

    __slots__ = ()
    __radd__ = float


class HoldingCache(Cache[object, Record]):
    """What the store asks of its cache: as it is, for entries that never run out; else before another class.

    Who goes when it is full: second chance, also called CLOCK (F. J. Corbató, 1968). A hand goes round over
    the places, from the oldest on; who was read since it last came by is spared. The new entry takes the
    place of the one that goes, as in CLOCK's ring: cachetools then replaces a value, which costs it half of
    what taking one out and setting another does.
    """

    # Of the class which this one comes before. (Found here, they are called without a detour.)
    _getitem: Callable[..., Any] = Cache.__getitem__  # the bare dictionary's: no clock, no reordering
    _setitem: Callable[..., Any] = Cache.__setitem__
    _delitem: Callable[..., Any] = Cache.__delitem__

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._most = self.maxsize
        self._hand: Iterator[object] = iter(())  # over the places of one moment; some are empty by now
        self._times = [-inf]  # what the clock shows, where one life serves all; else nobody looks
        self._latest = self._hides_until = -inf  # the latest landing; until when anything can be hidden

    def hold(self, record: Record, old: Record | None = None, is_full: bool | None = None) -> list[Record]:
        """A record has landed, in the place of an old one, if given; returns those that were evicted for it.

        The store knows whether it `is_full`. Those that go still have their `place`, which is another's now.
        """
        evicted = []
        if old is not None:
            record.place = place = old.place
            record.passed = -1.0  # it came just now, though the hand may be before it
        elif Cache.__len__(self) >= self._most if is_full is None else is_full:
            evicted.append(old := self._next_to_go())
            record.place = place = old.place
        else:
            record.place = place = object()
        landed = record.landed
        if landed < self._latest:
            self._hides_until = self._latest + record.ttl
        else:
            self._latest = landed
        times, end = self._times, record.deadline
        times[0] = landed + record.ttl if end == -inf else end
        self._setitem(place, record)
        times[0] = -inf
        return evicted

    def rejoin(self, record: Record) -> list[Record]:
        """The same for one that is in the index: the cache is being made anew."""
        return self.hold(record)

    def use(self, record: Record) -> list[Record]:  # noqa: ARG002
        """A record has served, which its `hits` say already; returns those that went for it."""
        return []

    def _next_to_go(self) -> Record:
        """The one to evict next, which is still held."""
        looks = _LOOKS
        while True:
            place = next(self._hand, None)
            if place is None:
                if not Cache.__len__(self):
                    raise KeyError("nothing is left to evict")
                self._hand = iter(list(Cache.__iter__(self)))  # about once in as many evictions as it has
                continue
            try:
                record: Record = self._getitem(place)
            except KeyError:  # it has left
                continue
            looks -= 1
            if record.hits == record.passed or not looks:
                return record
            record.passed = record.hits

    def popitem(self) -> tuple[object, Record]:
        """Evict one; cachetools calls it where entries are weighed."""
        record = self._next_to_go()
        place = record.place
        try:  # noqa: SIM105  # which would be calls
            del self[place]
        except KeyError:
            pass  # it was over and hidden (see `_OneLife`), which is told after it was taken out
        return place, record

    expire: Any = "".format  # what cachetools calls amid everything: nothing runs out but by `run_out`

    def run_out(self, now: float) -> Any:  # noqa: ARG002
        """Take out what has run out, as far as it is found at once; returns places and records."""
        return ()

    def run_out_exactly(self, now: float) -> Any:
        """Take out all that has run out; returns places and records."""
        return self.run_out(now)


_INCLUDED: Any = _Included()


class _OwnLives(HoldingCache, TLRUCache[object, Record]):
    """For entries that have each a ttl or a grace of their own."""

    timer: Any = _Clock()
    run_out: Any = TLRUCache.expire
    _setitem = TLRUCache.__setitem__
    _delitem = TLRUCache.__delitem__

    def __init__(self, maxsize: float) -> None:
        super().__init__(maxsize, _end_of, self.timer)


class _OneLife(HoldingCache, TTLCache[object, Record]):
    """For entries that live equally long.

    cachetools looks for what has run out in the order in which it came. What landed earlier than something
    before it (a clock has stepped back, or threads have overtaken each other) is hidden behind that.
    """

    timer: Any = None  # not the properties that these are in cachetools
    ttl: Any = None
    run_out: Any = TTLCache.expire
    _setitem = TTLCache.__setitem__
    _delitem = TTLCache.__delitem__

    def __init__(self, maxsize: float, ttl: float) -> None:
        self.timer = clock = _Clock()
        self.ttl = ttl
        super().__init__(maxsize, _INCLUDED, clock)
        self._times = clock.times

    def run_out_exactly(self, now: float) -> Any:
        """Take out all that has run out; returns places and records."""
        gone = self.run_out(now)
        if now < self._hides_until:
            for place in list(Cache.__iter__(self)):
                record = Cache.__getitem__(self, place)
                if not now < _end_of(place, record, now):
                    del self[place]
                    gone.append((place, record))
        return gone


def _end_of(place: object, record: Record, now: float) -> float:  # noqa: ARG001
    return record.landed + record.ttl + record.grace
