"""In a running process some cachetools cache holds exactly the entries that are counted, whatever happens."""

import gc
import itertools
import os
from math import inf

import cachetools
import pytest

from singleflight.testing import FakeClock

from ..children import in_child
from ..sampling import one_in
from ..spoilt import SPOIL, Key, become_another

LIVES = {
    "one life": {"ttl": 60},
    "own lives": {"ttl": lambda landing: 30 + 10 * len(str(landing.value))},
    "grace": {"ttl": 60, "grace": 30},
    "failures": {"ttl": 60, "failure_ttl": 5},
    "for ever": {"ttl": None},
}


@pytest.fixture(params=LIVES.values(), ids=LIVES)
def lives(request):
    """Options: how long values live."""
    return request.param


def holds_them(fetch):
    """Of all caches made meanwhile, one holds the records of this function, and nothing else."""
    entries = fetch.stats().entries
    index = fetch._self_cache.store.index
    records = set(index.values())
    found = []
    for cache in [held for held in gc.get_objects() if isinstance(held, cachetools.Cache)]:
        held = list(cache.values())
        if len(cache) == len(held) == entries and set(held) == records:
            found.append(cache)
    assert len(index) == entries
    assert len(found) >= 1
    assert entries == 0 or len(found) == 1
    return entries


async def echo(key):
    return getattr(key, "first", key)


def test_through_puts_evictions_expiry_and_invalidation(driver, lives):
    """After each of them, and after all is dropped."""
    clock = FakeClock()
    fetch = driver.decorate(echo, maxsize=4, key=lambda key: key, timer=clock, **lives)
    for number in range(10):
        assert driver.call(fetch, number % 6) == number % 6
        assert holds_them(fetch) <= 4
        clock.advance(7.5)
    fetch.put("put", 1), fetch.put("put again", 1)
    assert holds_them(fetch) == 4
    fetch.invalidate(1)
    assert holds_them(fetch) == 3
    fetch.invalidate_where(lambda key: key == 3)
    assert holds_them(fetch) == 2
    driver.call(fetch, 9)
    clock.advance(1000)
    assert holds_them(fetch) == (3 if lives["ttl"] is None else 0)
    fetch.put("put", 1)
    fetch.cache_clear()
    assert holds_them(fetch) == 0
    driver.call(fetch, 9)
    assert holds_them(fetch) == 1


def test_when_the_clock_steps_back(driver, lives):
    """What landed before the step lives longer by it; at any time what is not over is held, nothing else."""
    clock = FakeClock()
    fetch = driver.decorate(echo, maxsize=None, key=lambda key: key, timer=clock, **lives)
    driver.call(fetch, "a")
    clock.advance(-40)
    driver.call(fetch, "b")
    clock.advance(20)
    driver.call(fetch, "c")
    for _ in range(30):
        records = fetch._self_cache.store.records()
        left = sum(record.serves_for(clock()) > 0 for record in records)
        assert holds_them(fetch) == left
        clock.advance(5)
    assert holds_them(fetch) == (3 if lives["ttl"] is None else 0)


@pytest.mark.parametrize("spoil", one_in(4, SPOIL.values()), ids=SPOIL)
def test_with_spoilt_keys(driver, lives, spoil):
    """They are held like others, and leave like others."""
    clock = FakeClock()
    fetch = driver.decorate(echo, maxsize=4, key=lambda key: key, timer=clock, **lives)
    for number in range(12):
        key = Key(f"old {number}")
        driver.call(fetch, key)
        if number % 4 != 1:
            spoil(key)
        assert holds_them(fetch) <= 4
    fetch.invalidate_where(lambda key: key is not fetch)
    assert holds_them(fetch) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("spoil", [lambda key: None, become_another])
def test_in_a_forked_child(driver, lives, spoil):
    """It inherits them, and goes on for itself."""
    fetch = driver.decorate(echo, maxsize=3, key=lambda key: key, **lives)
    keys = [Key(name) for name in "ABC"]
    for key in keys:
        driver.call(fetch, key)
    spoil(keys[0])

    def look():
        counts = [holds_them(fetch)]
        fetch.put("D", Key("D")), fetch.invalidate(Key("C"))
        return [*counts, holds_them(fetch)]

    assert in_child(look) == "[3, 2]"
    assert holds_them(fetch) == 3


def test_the_limit_and_the_life_are_cachetools_own(driver):
    """A fixed ttl and a maxsize are those of the TTLCache that holds the entries."""
    for ttl, maxsize in itertools.product((60, 5.5), (2, None)):
        fetch = driver.decorate(echo, ttl=ttl, maxsize=maxsize)
        driver.call(fetch, f"only {ttl} {maxsize}")
        (record,) = fetch._self_cache.store.records()
        (cache,) = (
            held
            for held in gc.get_objects()
            if isinstance(held, cachetools.TTLCache) and record in list(held.values())
        )
        assert (cache.ttl, cache.maxsize) == (ttl, maxsize or inf)
