"""Who is evicted, where the user chooses: a class of cachetools decides, and entries may be weighed.

Two caches hold the same records under the same places (see `expiry`): one without a limit knows who has run
out, and one of the chosen class knows who goes when the store is full. Weighed entries are evicted like those
of the usual store, by the CLOCK that is in `HoldingCache`.

The class may be the user's own, and runs under the store's lock. So it is not trusted. What it raises leaves
the store torn, and it is made anew; what it lets go of unasked leaves the index too; what it does not keep is
not stored.
"""

from __future__ import annotations

from math import inf, isnan
from typing import Any

from cachetools import Cache, TLRUCache, TTLCache

from ..common.durations import real
from ..common.keys import check_room
from ..common.messages import shown
from .expiry import HoldingCache, cache_for
from .record import Record

__all__ = ["USUAL", "ChosenCache", "Policy", "checked_policy", "new_cache", "wants_hits", "weight_from"]

Policy = type[Cache[Any, Any]]
"""The types that the option `policy` accepts."""
USUAL: Any = TTLCache
"""The policy of who chooses none: not cachetools' own order, but one that no hit has to be told to."""


def checked_policy(policy: Any, maxsize: int | None, weighed: bool) -> Any:
    """Return the class, or raise `TypeError` or `ValueError`, naming the option."""
    if policy is USUAL:
        return policy
    if not isinstance(policy, type) or not issubclass(policy, Cache):
        raise TypeError(f"policy: expected a cache class of cachetools, as LRUCache, got {shown(policy)}")
    if maxsize is None:
        raise ValueError("policy: needs `maxsize`: without a limit nothing is evicted")
    try:
        made = _made(policy, maxsize, weighed)
        empty = Cache.__len__(made) == 0
    except Exception as error:
        raise TypeError(
            f"policy: {policy.__qualname__} cannot be made as classes of cachetools are, with maxsize, "
            f"getsizeof (if there is `weigh`) and, below TTLCache, ttl and timer: {shown(error)}"
        ) from error
    if made.getsizeof is not (_weight_of if weighed else Cache.getsizeof):
        raise TypeError(
            f"policy: {policy.__qualname__} has a getsizeof of its own; pass it as `weigh`, which is asked "
            f"for the weight of each value once, under no lock"
        )
    if not empty or made.maxsize != maxsize:
        raise TypeError(f"policy: {policy.__qualname__} is not empty when it is made, or has another maxsize")
    return policy


def wants_hits(policy: Any) -> bool:
    """Return True if a hit can change who goes: then each is told to the class."""
    return policy is not USUAL and policy.__getitem__ is not Cache.__getitem__


def weight_from(value: object) -> Any:
    """Return what `weigh` returned as an exact number, so that no sum drifts; `inf` is more than any limit.

    >>> weight_from(3), weight_from(2.0), weight_from(0.25)
    (3, 2, Fraction(1, 4))
    """
    number: Any = value if type(value) is int else real(value, "weigh", "a number")
    if isnan(number) or number < 0:
        raise ValueError(f"weigh: expected a number that is not negative, got {shown(value)}")
    if type(number) is int or number == inf:
        return number
    from fractions import Fraction  # here, for it takes long to import

    return int(number) if number.is_integer() else Fraction(number)


def new_cache(maxsize: float, ttl: float | None, policy: Any, weighed: bool) -> HoldingCache | ChosenCache:
    """A cache for a store; for its ttl see `cache_for`."""
    if policy is USUAL and not weighed:
        return cache_for(maxsize, ttl)
    return ChosenCache(HoldingCache if policy is USUAL else policy, maxsize, ttl, weighed)


def _weight_of(record: Record) -> Any:
    return record.weight


def _made(kind: Any, maxsize: float, weighed: bool) -> Any:
    """An object of the class that notes what leaves it. Its time stands still: nothing runs out there."""
    options: dict[str, Any] = {"getsizeof": _weight_of} if weighed else {}
    if issubclass(kind, TTLCache):
        options |= {"ttl": inf, "timer": float}
    elif issubclass(kind, TLRUCache):
        options |= {"ttu": _never, "timer": float}
    noting: Any = type(kind.__name__, (_Noting, kind), {"_sf_left": []})
    return noting(maxsize, **options)


def _never(_place: object, _record: Record, _now: float) -> float:
    return inf


class _Noting:
    """Comes before the class, whose objects take out by `del` whatever leaves."""

    _sf_left: list[object]  # each object has a class of its own

    def __delitem__(self, place: object) -> None:
        super().__delitem__(place)  # type: ignore[misc]
        self._sf_left.append(place)


class ChosenCache:
    """What the store asks of its cache, as a `HoldingCache` does it, where a class decides who goes."""

    def __init__(self, kind: Any, maxsize: float, ttl: float | None, weighed: bool) -> None:
        self._lives = cache_for(inf, ttl)
        try:
            self._order = _made(kind, maxsize, weighed)
        except Exception as error:  # it could be made at decoration
            check_room(error)
            self._order = _made(HoldingCache, maxsize, weighed)

    def hold(self, record: Record, old: Record | None = None, is_full: bool | None = None) -> list[Record]:  # noqa: ARG002
        """A record has landed, in the place of an old one, if given; returns those that were evicted for it.

        It is among them itself where the class does not keep it.
        """
        self._lives.hold(record, old)
        self._order[record.place] = record
        return self._let_go()

    def rejoin(self, record: Record) -> list[Record]:
        """The same for one that is in the index, which must not fail: the cache is being made anew."""
        try:
            return self.hold(record)
        except Exception as error:
            check_room(error)
            del self[record.place]
            return [record]

    def use(self, record: Record) -> list[Record]:
        """A record has served; returns those that went for it, as far as that is seen at once."""
        order = self._order
        try:
            order[record.place]
        except KeyError:
            if Cache.__contains__(order, record.place):
                raise
            return self._let_go()  # it has been taken out in a way of its own
        return self._let_go() if order._sf_left else []

    def __delitem__(self, place: object) -> None:
        if Cache.__contains__(self._lives, place):
            del self._lives[place]
        self._take_out(place)

    def run_out(self, now: float) -> Any:
        """Take out what has run out, as far as it is found at once; returns places and records."""
        return self._ran_out(self._lives.run_out(now))

    def run_out_exactly(self, now: float) -> Any:
        """Take out all that has run out; returns places and records."""
        return self._ran_out(self._lives.run_out_exactly(now))

    def items(self) -> Any:
        """What it holds: places and records."""
        return self._lives.items()

    def __len__(self) -> int:
        return Cache.__len__(self._lives)

    def _ran_out(self, gone: Any) -> Any:
        for place, _ in gone:
            self._take_out(place)
        return gone

    def _take_out(self, place: object) -> None:
        """One leaves the class, which is not asked whether it likes that."""
        order = self._order
        if Cache.__contains__(order, place):
            try:
                del order[place]
            except Exception:
                if Cache.__contains__(order, place):
                    Cache.__delitem__(order, place)
            if order._sf_left[-1:] == [place]:
                order._sf_left.pop()

    def _let_go(self) -> list[Record]:
        """Return those that the class has let go of, which leave."""
        order, lives = self._order, self._lives
        left = dict.fromkeys(order._sf_left)
        order._sf_left.clear()
        if Cache.__len__(order) != Cache.__len__(lives) - len(left):  # it took them out in its own way
            left = dict.fromkeys(Cache.__iter__(lives))
        gone = []
        for place in left:
            if not Cache.__contains__(order, place) and Cache.__contains__(lives, place):
                gone.append(Cache.__getitem__(lives, place))
                del lives[place]
        if Cache.__len__(order) != Cache.__len__(lives):
            raise RuntimeError("policy: it holds what it was not given")
        return gone
