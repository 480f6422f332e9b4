"""What all decorated functions of this process are doing, as plain data: numbers, names and bounded texts.

However much a process has, a snapshot of it is small: the busiest functions, the oldest flights, a few
entries. What is left out is counted.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from heapq import nlargest
from itertools import count, islice
from typing import Any

from ..common.messages import cut, shown
from ..core import controls
from ..core.cache import Cache
from ..process.registry import all_caches
from ..telemetry.views import FlightInfo, Stats

__all__ = ["MOST_ENTRIES", "MOST_FLIGHTS", "MOST_FUNCTIONS", "check", "snapshot"]

MOST_FUNCTIONS = 200
MOST_FLIGHTS = 20  # of one function
MOST_ENTRIES = 1000  # of one function
_LOOKED_AT = 100_000  # entries of one function among which those with the most hits are found

_numbers: weakref.WeakKeyDictionary[Cache, int] = weakref.WeakKeyDictionary()
_next_number = count(1)


def snapshot(entries: int = 0, values: bool = False) -> dict[str, Any]:
    """Return what the decorated functions of this process are doing, as data that `json` can write.

    Args:
        entries: how many entries of each function are shown, those with the most hits; at most 1000.
        values: show the entries' values, too, each as text of at most 200 characters. Without this no value
            is looked at.

    The result has `pid`, `program`, `time` (seconds since 1970), `functions` (the 200 that were called the
    most) and `functions_left_out`. Each function has its `name`, an `id` (a number that no other function of
    this process has; names may be the same), the numbers of its `stats()` (that of the
    entries as `number_of_entries`), its `flights` (the 20 oldest, with keys as texts of at most 200
    characters) and `flights_left_out`, and, if asked for, its `entries`.

    Raises `TypeError` for `entries` that are no whole number or `values` that are not True or False, and
    `ValueError` for a negative number of entries, or more than 1000.

    A function whose `timer` raises is read without it: expired entries are among the others, and its flights
    are left out.

    Safe to call from any thread and task, and quick: it waits for no flight. The keys' (and values') own
    `__repr__` run in the calling thread, under no lock; what they raise is shown in their place.

    >>> from singleflight import single_flight_ttl
    >>> @single_flight_ttl(ttl=60, name="shown_price")
    ... def price(symbol):
    ...     return 984.75
    >>> price("ASML") == price("ASML")
    True
    >>> seen = next(f for f in snapshot(entries=5)["functions"] if f["name"] == "shown_price")
    >>> seen["hits"], seen["calls"], seen["entries"][0]["key"]
    (1, 1, "('ASML',)")
    """
    check(entries, values)
    every = [(cache, _stats_of(cache)) for cache in all_caches()]
    busiest = nlargest(MOST_FUNCTIONS, every, key=lambda pair: _received(pair[1]) + pair[1].calls)
    return {
        "pid": os.getpid(),
        "program": cut(os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"),
        "time": time.time(),
        "functions": [_function(cache, stats, entries, values) for cache, stats in busiest],
        "functions_left_out": len(every) - len(busiest),
    }


def check(entries: object, values: object) -> None:
    """Raise `TypeError` or `ValueError` if these are no arguments for a snapshot."""
    expected = f"expected a whole number from 0 to {MOST_ENTRIES}"
    if isinstance(entries, bool) or not isinstance(entries, int):
        raise TypeError(f"entries: {expected}, got {shown(entries)}")
    if not 0 <= entries <= MOST_ENTRIES:
        raise ValueError(f"entries: {expected}, got {shown(entries)}")
    if not isinstance(values, bool):
        raise TypeError(f"values: expected True or False, got {shown(values)}")


def _stats_of(cache: Cache) -> Stats:
    try:
        return controls.stats(cache)
    except Exception:  # of its own timer
        return controls.counted(cache)


def _flights_of(cache: Cache) -> tuple[FlightInfo, ...]:
    try:
        return controls.flights(cache)
    except Exception:  # of its own timer
        return ()


def _function(cache: Cache, stats: Stats, entries: int, values: bool) -> dict[str, Any]:
    """Return what one function does."""
    flights = _flights_of(cache)
    told = {
        "name": cut(cache.name),
        "id": _numbers.setdefault(cache, next(_next_number)),
        "maxsize": cache.options.maxsize,
        **{field: getattr(stats, field) for field in stats.__slots__},
        "received": _received(stats),
        "hit_rate": stats.hit_rate,
        "flights": [
            {
                "key": shown(flight.key),
                "leader": cut(flight.leader),
                "elapsed": flight.elapsed,
                "followers": flight.followers,
                "kind": flight.kind,
                "detached": flight.detached,
                "queued": flight.queued,
            }
            for flight in flights[:MOST_FLIGHTS]
        ],
        "flights_left_out": max(0, len(flights) - MOST_FLIGHTS),
    }
    told["number_of_entries"] = told.pop("entries")
    if entries:
        told["entries"] = _entries(cache, entries, values)
    return told


def _entries(cache: Cache, most: int, values: bool) -> list[dict[str, Any]]:
    """Return the entries that have served the most."""
    now = cache.time_or(0.0)
    told = []
    looked_at = islice(cache.store.records(), _LOOKED_AT)
    for record in nlargest(most, looked_at, key=lambda record: record.hits):
        entry = record.snapshot(now)
        one = {
            "key": shown(entry.key),
            "age": entry.age,
            "ttl": entry.ttl if entry.ttl != float("inf") else None,
            "state": entry.state,
            "hits": entry.hits,
        }
        if values:
            one["value"] = shown(entry.value if record.error is None else record.error)
        told.append(one)
    return told


def _received(stats: Stats) -> int:
    """Return the number of calls received."""
    return int(stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts)
