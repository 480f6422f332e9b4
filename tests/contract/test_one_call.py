"""Many callers, one call: what is shared, what is stored, and what is counted."""

import gc
import itertools
import threading
import weakref
from collections import Counter

import pytest

from singleflight import Landing, UnhashableKey
from singleflight.testing import FakeClock, Recorder

SIX = ("hits", "stale_hits", "waits", "fetches", "errors", "timeouts")


def received(stats):
    return sum(getattr(stats, name) for name in SIX)


@pytest.mark.parametrize("callers", [10, 100, 1000])
def test_a_cold_key_is_called_once(driver, callers):
    """However many callers ask for a cold key, the function runs once and all get its value."""
    seen, calls, gate = Recorder(), [], driver.gate()

    async def fetch(key):
        calls.append(key)
        await gate
        return object()

    fetch = driver.decorate(fetch, listener=seen)
    driver.start(fetch, "A", count=callers)
    seen.wait_for("wait", callers - 1)
    gate.set()
    assert len(set(map(id, driver.outcomes()))) == 1
    assert calls == ["A"]
    stats = fetch.stats()
    assert (stats.fetches, stats.waits, stats.in_flight, stats.calls) == (1, callers - 1, 0, 1)


def test_a_late_caller_finds_the_value(driver):
    """Who arrives after the landing is a hit, whatever its colour, until the ttl has passed."""
    clock, calls = FakeClock(), []

    async def fetch():
        calls.append(clock())
        return clock()

    fetch = driver.decorate(fetch, timer=clock)
    assert [driver.call(fetch) for _ in range(4)] == [0.0] * 4
    clock.advance(59.999)
    assert [driver.call(fetch) for _ in range(4)] == [0.0] * 4
    clock.advance(0.001)
    assert [driver.call(fetch) for _ in range(4)] == [60.0] * 4
    assert calls == [0.0, 60.0]
    assert fetch.stats().hits == 10


def test_ten_keys_overlap(driver):
    """Ten callers on ten keys are all inside the function at the same time."""
    arrived, gate = itertools.count(1), driver.gate()

    async def fetch(key):
        if next(arrived) == 10:
            gate.set()
        await gate
        return key

    fetch = driver.decorate(fetch)
    for key in range(10):
        driver.start(fetch, key)
    assert driver.outcomes() == list(range(10))


def test_a_flight_between_the_checks_is_found(driver):
    """A caller that boards while the value is being stored neither calls again nor waits for ever."""
    calls = Counter()

    async def fetch(key):
        calls[key] += 1
        return key

    async def ask():
        return [await fetch(key) for key in range(200)]

    fetch = driver.decorate(fetch)
    driver.start(ask, count=8)
    assert driver.outcomes() == [list(range(200))] * 8
    assert set(calls.values()) == {1}


def test_a_ttl_of_nothing_shares_and_stores_nothing(driver):
    """With a ttl of 0 concurrent callers share, and a later one calls again."""
    seen, gate = Recorder(), driver.gate()

    async def fetch():
        await gate
        return 1

    fetch = driver.decorate(fetch, ttl=0, listener=seen)
    driver.start(fetch, count=4)
    seen.wait_for("wait", 3)
    gate.set()
    assert driver.outcomes() == [1] * 4
    assert fetch.stats().calls == 1
    assert driver.call(fetch) == 1
    assert (fetch.stats().calls, fetch.stats().entries, fetch.entry()) == (2, 0, None)


def test_a_refused_value_is_shared_and_not_stored(driver):
    """None is handed to those who wait, within the budget of retries, and never stored."""
    seen, gate = Recorder(), driver.gate()

    async def fetch():
        await gate

    fetch = driver.decorate(fetch, listener=seen)
    driver.start(fetch, count=5)
    seen.wait_for("wait", 4)
    gate.set()
    assert driver.outcomes() == [None] * 5
    stats = fetch.stats()
    assert (stats.calls, stats.uncached, stats.entries) == (2, 2, 0)
    driver.call(fetch)
    assert fetch.stats().calls == 3


def test_cache_if_decides_what_is_stored(driver):
    """It may let None in and keep another value out."""
    calls = Counter()

    async def fetch(value):
        calls[value] += 1
        return value

    fetch = driver.decorate(fetch, cache_if=lambda value: value != "bad")
    for value in (None, "bad", "good"):
        assert [driver.call(fetch, value) for _ in range(3)] == [value] * 3
    assert calls == {None: 1, "bad": 3, "good": 1}


def test_a_callable_ttl_is_told_of_the_landing(driver):
    """Key, value, how long it took and how many waited; later the entry before; and of a put, no flight."""
    clock, seen, gate, landings = FakeClock(), Recorder(), driver.gate(), []

    async def fetch(key):
        await gate
        return key * 2

    def ttl(landing):
        landings.append(landing)
        return 10

    fetch = driver.decorate(fetch, ttl=ttl, timer=clock, listener=seen)
    driver.start(fetch, 3, count=4)
    seen.wait_for("wait", 3)
    clock.advance(2)
    gate.set()
    driver.outcomes()
    assert landings == [Landing((3,), 6, None, 2.0, 3, None)]
    clock.advance(11)
    driver.call(fetch, 3)
    assert landings[1].previous.value == 6
    fetch.put(8, 3)
    assert (landings[2].duration, landings[2].followers) == (0.0, 0)


def test_evictions_keep_the_store_within_its_limit(driver):
    """With max_idle_locks=0 the registry is empty when all is quiet, with maxsize the store bounded."""

    async def fetch(key):
        return key

    async def ask():
        return [await fetch(key) for key in range(50)]

    fetch = driver.decorate(fetch, maxsize=5, max_idle_locks=0)
    driver.start(ask, count=4)
    assert driver.outcomes() == [list(range(50))] * 4
    stats = fetch.stats()
    assert (stats.entries, stats.locks, stats.idle_locks, len(fetch.locks)) == (5, 0, 0, 0)
    assert stats.evictions == stats.calls - 5
    assert fetch.flights() == ()


@pytest.mark.parametrize("retries", [0, 1])
def test_the_six_counts_sum_to_the_calls(driver, retries):
    """Hits, stale hits, waits, fetches, errors and timeouts sum to the calls received, under contention."""
    ran, lock, start = Counter(), threading.Lock(), driver.gate()

    async def fetch(key):
        with lock:
            ran[key] += 1
        if key == 3:
            raise ValueError(key)
        return None if key == 4 else key

    async def ask(failures=0):
        await start
        for number in range(500):
            try:
                assert await fetch(number % 9) in (None, number % 9)
            except ValueError:
                failures += 1
        return failures

    fetch = driver.decorate(fetch, maxsize=5, follower_retries=retries)
    driver.start(ask, count=8)
    start.set()
    failures = sum(driver.outcomes())
    stats = fetch.stats()
    assert received(stats) == 8 * 500
    assert stats.errors == failures
    assert (stats.calls, stats.failures) == (sum(ran.values()), ran[3])
    assert (stats.in_flight, stats.locks) == (0, stats.idle_locks)


def test_bypass_runs_the_function_of_either_colour(driver):
    """Inside bypass every call of either colour is executed; after it the stored value is served again."""
    calls = itertools.count(1)

    async def fetch():
        return next(calls)

    fetch = driver.decorate(fetch)
    assert driver.call(fetch) == 1
    with fetch.bypass():
        assert [driver.call(fetch) for _ in range(4)] == [2, 3, 4, 5]
    assert [driver.call(fetch) for _ in range(4)] == [1] * 4
    assert received(fetch.stats()) == 5


def test_the_environment_switches_off(driver, monkeypatch):
    """SINGLEFLIGHT_DISABLED=1 makes every call run its function; the control surface stays."""
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")
    calls = itertools.count(1)

    async def fetch():
        return next(calls)

    fetch = driver.decorate(fetch)
    assert [driver.call(fetch) for _ in range(4)] == [1, 2, 3, 4]
    assert fetch.stats().entries == 0


@pytest.mark.parametrize("word", ["", "0", "False"])
def test_the_environment_may_say_no(driver, monkeypatch, word):
    """SINGLEFLIGHT_DISABLED=0 is as if it was not set."""
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", word)
    calls = itertools.count(1)

    async def fetch():
        return next(calls)

    fetch = driver.decorate(fetch)
    assert [driver.call(fetch) for _ in range(4)] == [1] * 4
    assert fetch.stats().calls == 1


def test_events_tell_the_story_in_order(driver):
    """fetch, then the waits, then land and the shares; later a hit; the numbers have no gap."""
    seen, gate = Recorder(), driver.gate()

    async def fetch():
        await gate
        return 1

    fetch = driver.decorate(fetch, listener=seen)
    driver.start(fetch)
    seen.wait_for("fetch")
    driver.start(fetch, count=3)
    seen.wait_for("wait", 3)
    gate.set()
    driver.outcomes()
    driver.call(fetch)
    assert seen.kinds()[:4] == ["fetch", "wait", "wait", "wait"]
    assert sorted(seen.kinds()[4:8]) == ["land", "share", "share", "share"]
    assert seen.kinds()[8:] == ["hit"]
    assert [event.sequence for event in seen.events] == list(range(1, 10))
    assert sorted(event.followers for event in seen.of("wait")) == [1, 2, 3]
    (land,) = seen.of("land")
    assert (land.followers, land.stored, land.retried, land.error) == (3, True, False, None)


def test_events_of_a_retry(driver):
    """A failure that is tried again says so, and the retry is a fetch of its own."""
    seen, gate, numbers = Recorder(), driver.gate(), itertools.count()

    async def fetch():
        await gate
        if next(numbers) == 0:
            raise ValueError
        return 1

    fetch = driver.decorate(fetch, listener=seen)
    driver.start(fetch)
    seen.wait_for("fetch")
    driver.start(fetch)
    seen.wait_for("wait")
    gate.set()
    driver.outcomes()
    # A landing is told after its transition: the retry may be told before it.
    assert seen.kinds()[:2] == ["fetch", "wait"]
    assert sorted(seen.kinds()) == ["fetch", "fetch", "land", "land", "resume", "wait"]
    assert sorted(land.retried for land in seen.of("land")) == [False, True]


def test_an_unhashable_argument_is_named(driver):
    """UnhashableKey is raised to the caller, and nothing has changed."""

    async def fetch(symbol, options):
        return symbol

    fetch = driver.decorate(fetch)
    for _ in range(2):
        with pytest.raises(UnhashableKey, match="options"):
            driver.call(fetch, "A", [])
    assert (received(fetch.stats()), fetch.flights()) == (0, ())


def test_a_methods_entries_go_with_their_instance(driver):
    """With the default key nothing keeps an instance alive, neither its values nor its flights."""

    async def price(self, symbol):
        return symbol, id(self)

    price = driver.decorate(price)

    class Account:
        pass

    one, other = Account(), Account()
    assert driver.call(price.of(one), "A") == ("A", id(one))
    assert driver.call(price.of(one), "A") == ("A", id(one))
    assert driver.call(price.of(other), "A") == ("A", id(other))
    assert (price.stats().calls, price.stats().entries) == (2, 2)
    alive = weakref.ref(one)
    del one
    driver.callers.clear()
    driver.call(price.of(other), "B")  # so that no thread's or loop's last step holds it
    gc.collect()
    assert alive() is None
    assert driver.call(price.of(other), "A") == ("A", id(other))
    assert price.stats().entries == 2
