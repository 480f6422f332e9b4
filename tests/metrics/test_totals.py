"""The sums that are exported: all that functions of a name have counted, whatever has become of these."""

import gc
import logging
import weakref
from dataclasses import fields

import pytest

from singleflight import single_flight_ttl
from singleflight.core.landing import land
from singleflight.process import totals
from singleflight.telemetry.views import Stats
from singleflight.testing import FakeClock

from ..builds import collects_classes


class Shared:
    """A `store` that shares nothing, and says that it did; the tier of its one function, too."""

    def tier_for(self, cache, function):
        self.cache, self.found = weakref.ref(cache), 0
        return self

    def lead(self, flight, execute):
        self.found += 1
        value = execute()
        land(self.cache(), flight, value)
        return value

    def counted(self):
        return {"shared_hits": self.found}

    def drop_all(self):
        return lambda: None

    def reset(self):
        self.found = 0


@pytest.fixture(autouse=True)
def begun():
    totals.begin()


def sums(**counts):
    return Stats(**{**dict.fromkeys((field.name for field in fields(Stats)), 0), **counts})


def used(name, **options):
    """A function with a hit, a fetch, an eviction, an expiration and a failure."""
    clock = FakeClock()

    @single_flight_ttl(ttl=60, maxsize=1, name=name, timer=clock, **options)
    def fetch(key):
        if key == "c":
            raise ValueError
        return key

    fetch("a"), fetch("a"), fetch("b")
    clock.advance(60)
    with pytest.raises(ValueError):
        fetch("c")
    assert fetch.stats().expirations == 1
    return fetch


COUNTED = {"hits": 1, "fetches": 2, "errors": 1, "calls": 3, "failures": 1, "evictions": 1, "expirations": 1}
LOCKS = {"locks": 1, "idle_locks": 1}


@pytest.mark.parametrize(
    "end", ["it is there", "it was cleared", pytest.param("it is gone", marks=collects_classes)]
)
def test_all_that_it_has_counted_is_kept(name, end):
    """Evictions and expirations, too; what it has now goes with it."""
    fetch = used(name)
    if end == "it was cleared":
        fetch.cache_clear()
    elif end == "it is gone":
        del fetch
        gc.collect()
    now = LOCKS if end == "it is there" else {}
    assert totals.read()[name] == (sums(**COUNTED, **now), False)


@collects_classes
def test_what_is_counted_afterwards_is_added(name):
    """After it was cleared, and by another one of its name after it has gone."""
    fetch = used(name)
    fetch.cache_clear()
    fetch("a")
    assert totals.read()[name].stats.calls == 4
    del fetch
    gc.collect()
    assert totals.read()[name] == (sums(**{**COUNTED, "fetches": 3, "calls": 4}), False)
    again = used(name)
    assert totals.read()[name].stats.calls == 7
    assert again.stats().calls == 3


@collects_classes
def test_so_is_what_was_shared(name):
    """A function with a `store` says so as long as it is there."""
    fetch = used(name, store=Shared())
    fetch.cache_clear()
    fetch("a")
    told = totals.read()[name]
    assert (told.stats.shared_hits, told.is_shared) == (4, True)
    del fetch
    gc.collect()
    told = totals.read()[name]
    assert (told.stats.shared_hits, told.is_shared) == (4, False)


def test_no_sum_ever_falls(name):
    """What is lost and not noted yet is told as it was: it is missing for a moment."""
    fetch = used(name)
    assert totals.read()[name].stats.calls == 3
    fetch._self_cache.counts.reset()
    assert totals.read()[name].stats.calls == 3
    fetch("a"), fetch("b"), fetch("a"), fetch("b")
    assert totals.read()[name].stats.calls == 4


def test_sums_are_read_whatever_the_clock_and_the_log_do(name):
    """A function that cannot be read is logged once; what a filter of the log raises is dropped."""
    lines, logger = [], logging.getLogger("singleflight")

    def timer():
        if broken:
            raise LookupError
        return 0.0

    def no_log(record):
        lines.append(record.getMessage())
        raise OSError

    broken = []
    fetch = single_flight_ttl(ttl=60, name=name, timer=timer)(lambda: 1)
    assert fetch() == 1
    broken.append(1)
    logger.addFilter(no_log)
    try:
        assert [totals.read()[name].stats.fetches for _ in range(2)] == [1, 1]
    finally:
        logger.removeFilter(no_log)
    assert lines == [f"{name}: its counts could not be read as usual; told once"]
