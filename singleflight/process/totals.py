"""The counts of all decorated functions by name, as sums that never go backwards.

For whoever exports them: a monitoring system takes a counter that falls for one that has begun anew. So what
a function has counted is kept when it is gone, and when `cache_clear` zeroes its counts. Functions of one
name are one sum. It costs a call nothing: all is read when asked.

What is kept is added in one order: first what was lost, then what the living have. Whatever is lost meanwhile
is missing for a moment, and never counted twice; so the largest sum that was ever read is right, and is told.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from dataclasses import fields
from typing import Any, NamedTuple

from ..common.logs import log
from ..core import controls
from ..core.cache import Cache
from ..core.tier import Tier
from ..locks.mutex import new_lock
from ..storage.store import Store
from ..telemetry.counters import Counts
from ..telemetry.views import Stats
from .registry import attend

__all__ = ["BUCKETS", "COUNTERS", "GAUGES", "RESULTS", "SHARED", "Total", "begin", "printable", "read"]

_CURRENT = ("in_flight", "entries", "weight", "locks", "idle_locks")  # which are no counts
_COUNTS = tuple(field.name for field in fields(Stats) if field.name not in _CURRENT)
_OF_CALLS = (
    "stale_hits",
    "waits",
    "fetches",
    "errors",
    "timeouts",
    "calls",
    "failures",
    "uncached",
    "refreshes",
)

Sums = dict[str, float]

RESULTS: dict[str, str] = {
    "hit": "hits",
    "stale_hit": "stale_hits",
    "wait": "waits",
    "fetch": "fetches",
    "error": "errors",
    "timeout": "timeouts",
}
"""How a call was served, and its count."""
COUNTERS: dict[str, str] = {
    "calls": "Executions of the function, background ones included.",
    "failures": "Executions that raised an exception.",
    "refreshes": "Executions that renewed a stored value.",
    "uncached": "Values that were not stored.",
    "evictions": "Entries that were removed because the store was full.",
    "expirations": "Expired entries that were removed.",
}
SHARED: dict[str, str] = {
    "shared_hits": "Fetches that found the value of another process.",
    "shared_waits": "Fetches that waited for another process.",
    "refused": "Values that were not stored because their lease had ended.",
    "leases_lost": "Leases that ended while the function was running.",
    "degraded": "Fetches that could not ask the server.",
    "unreadable": "Values on the server that could not be read.",
}
"""The counts that only functions with a `store` have."""
GAUGES: dict[str, str] = {
    "entries": "Entries that are stored.",
    "in_flight": "Flights in progress.",
    "locks": "Keyed locks that are there, idle ones included.",
    "idle_locks": "Keyed locks that nobody holds or waits for.",
}
BUCKETS: tuple[float, ...] = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""The upper bounds of the buckets that executions fall into by how long they took, in seconds."""


class Total(NamedTuple):
    """What all functions of one name have counted and have now; `is_shared` if one has a `store`."""

    stats: Stats
    is_shared: bool


class Keeper:
    """Keeps what one function has counted when it goes. Nothing but the function's cache refers to it.

    It goes with the cache, and then says how much there was. It leads to values only by the store, which goes
    with it.
    """

    __slots__ = ("_counts", "_name", "_store", "_tier")

    def __init__(self, cache: Cache) -> None:
        self._name = printable(cache.name)
        self._counts: Counts = cache.counts
        self._store: Store = cache.store
        self._tier: Tier | None = cache.tier

    def counted(self) -> Sums:
        """Return its counts, but for those of calls: `keep` reads these."""
        store = self._store
        sums: Sums = {"evictions": store.evictions, "expirations": store.expirations}
        sums["hits"] = self._counts.all_hits(store)
        return sums if self._tier is None else sums | self._tier.counted()

    def keep(self, counted: Sums) -> None:
        """Its counts are zeroed. Only notes it: this may be called in any section, and by the collector.

        Those of calls are read only now: some may have been served since `counted`.
        """
        of_calls = {name: getattr(self._counts, name) for name in _OF_CALLS}
        _lost.append((self._name, counted | of_calls))

    def __del__(self) -> None:
        try:
            self.keep(self.counted())
        except Exception:  # the interpreter shuts down
            return


_lost: deque[tuple[str, Sums]] = deque()  # appended to by anybody, taken from under `_lock`
_lock = new_lock()
_kept: dict[str, Sums] = {}  # these three are guarded by it
_highest: dict[str, Sums] = {}
_living: weakref.WeakSet[Cache] = weakref.WeakSet()  # a cache may outlive its functions until it is collected
_failing: weakref.WeakSet[Cache] = weakref.WeakSet()  # those that could not be read; told once
_began = False


def begin() -> None:
    """From now on nothing that is counted is lost. May be repeated."""
    global _began
    if not _began:
        attend(_have_kept)  # an interrupt in it leaves it to the next one
        _began = True


def _have_kept(cache: Cache) -> None:
    with _lock:
        if cache.keeper is None:
            cache.keeper = Keeper(cache)
            _living.add(cache)
        if len(_lost) > 100:  # where functions come and go, and nobody reads
            _take_in()


def read() -> dict[str, Total]:
    """Return the sums of all functions by name, also of those that are gone; each as `printable`.

    Raises nothing: a function that cannot be read (its `timer` raises) is logged once, and its counts are
    read without the clock. It removes expired entries, as `stats()` does. Runs user code under no lock.
    """
    begin()
    with _lock:
        _take_in()
        sums = {name: kept.copy() for name, kept in _kept.items()}
        living = list(_living)
    shared: set[str] = set()
    for cache in living:
        name = printable(cache.name)
        _add(sums.setdefault(name, {}), _read_one(cache))
        if cache.tier is not None:
            shared.add(name)
    with _lock:
        for name, told in sums.items():
            highest = _highest.setdefault(name, {})
            for count in _COUNTS:
                told[count] = highest[count] = max(told.get(count, 0), highest.get(count, 0))
    every = [field.name for field in fields(Stats)]
    return {
        name: Total(Stats(**{each: told.get(each, 0) for each in every}), name in shared)  # type: ignore[arg-type]
        for name, told in sums.items()
    }


def _read_one(cache: Cache) -> Sums:
    for reading in (controls.stats, controls.counted):
        try:
            told = reading(cache)
        except Exception:
            if cache not in _failing:
                _failing.add(cache)
                log.exception("%s: its counts could not be read as usual; told once", cache.name)
        else:
            return {field.name: getattr(told, field.name) for field in fields(Stats)}
    return {}


def _take_in() -> None:
    """Add up what was lost. Call under the lock."""
    while _lost:
        name, counted = _lost.popleft()
        _add(_kept.setdefault(name, {}), counted)


def _add(sums: Sums, more: Sums) -> None:
    for name, number in more.items():
        sums[name] = sums.get(name, 0) + number


def printable(name: Any) -> str:
    """Return a function's name as text that can be written as UTF-8, whatever it is made of.

    >>> printable("prices"), printable("half of a pair: \\ud83d")
    ('prices', 'half of a pair: \\\\ud83d')
    """
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def _after_fork() -> None:
    """A forked child counts from zero."""
    global _lock
    _lock = new_lock()
    _lost.clear()
    _kept.clear()
    _highest.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
