"""Past its ttl a value is served while it is renewed: in its grace nobody waits, after it nobody gets it."""

import asyncio
import contextvars
import itertools
import logging

import pytest

from singleflight import FlightDeadlock, single_flight_ttl
from singleflight.testing import Recorder

from ..drivers import until

CALLERS = 6


@pytest.fixture
def stale(source):
    """A function whose value 0 is stale; its renewal, execution 1, is held at `gate`."""

    def make(*then, **options):
        made = source(**{"grace": 50, **options})
        assert made.call() == 0
        made.clock.advance(10)
        made.gate = made.hold(1, *then)
        return made

    return make


def test_stale_hits_never_wait(stale):
    """While the renewal is held everybody is served the old value at once; one renewal for all of them."""
    source = stale()
    assert [source.call() for _ in range(CALLERS)] == [0] * CALLERS
    source.executions.wait_for(2)
    (flight,) = source.fetch.flights()
    assert (flight.kind, flight.followers, flight.detached) == ("refresh", 0, False)
    assert "object at" not in flight.leader
    assert source.executions.begun == 2
    source.gate.set()
    source.settle()
    assert source.call() == 1
    stats = source.fetch.stats()
    assert (stats.stale_hits, stats.hits, stats.fetches, stats.calls) == (CALLERS, 1, 1, 2)
    assert (stats.refreshes, stats.failures, stats.waits) == (1, 0, 0)
    assert source.fetch.cache_info()[:2] == (CALLERS + 1, 1)
    assert source.sums()


def test_events(stale):
    """stale_hit with the value and its age, fetch with flight="refresh", land that is stored."""
    source = stale()
    assert source.call() == 0
    source.executions.wait_for(2)
    source.gate.set()
    source.settle()
    assert source.call() == 1
    seen = source.seen
    seen.wait_for("land", 2)
    assert sorted(seen.kinds()) == ["fetch", "fetch", "hit", "land", "land", "stale_hit"]
    (event,) = seen.of("stale_hit")
    assert (event.value, event.age) == (0, 10.0)
    assert [event.flight for event in seen.of("fetch")] == ["call", "refresh"]
    landing = seen.of("land")[1]
    assert (landing.value, landing.stored, landing.ttl, landing.followers) == (1, True, 10.0, 0)


def test_a_failed_renewal_keeps_the_value(stale, caplog):
    """It is counted, logged once per streak and retried after the floor, not at every read."""
    source = stale(ValueError("down"))
    source.gate.set()
    source.script.update({2: [ValueError("still down")], 4: [ValueError("down again")]})
    with caplog.at_level(logging.WARNING, "singleflight"):
        assert source.call() == 0
        until(lambda: source.fetch.stats().failures == 1)
        source.settle()
        assert [source.call() for _ in range(CALLERS)] == [0] * CALLERS
        assert source.executions.begun == 2
        source.clock.advance(0.999)
        assert source.call() == 0
        assert source.executions.begun == 2
        source.clock.advance(0.001)
        assert source.call() == 0
        until(lambda: source.fetch.stats().failures == 2)
        source.settle()
        assert len(caplog.records) == 1
        source.clock.advance(1)
        assert source.call() == 0
        until(lambda: source.fetch.entry().value == 3)
        source.clock.advance(10)
        assert source.call() == 3
        until(lambda: source.fetch.stats().failures == 3)
        source.settle()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "('A',) could not be renewed, its value is kept: ValueError('down')" in caplog.text
    stats = source.fetch.stats()
    assert (stats.errors, stats.calls) == (0, 5)
    assert source.sums()


def test_the_floor_is_failure_ttl_where_there_is_one(stale):
    """A renewal that failed is tried again after failure_ttl."""
    source = stale(ValueError(), failure_ttl=5)
    source.gate.set()
    assert source.call() == 0
    until(lambda: source.fetch.stats().failures == 1)
    source.settle()
    source.clock.advance(4.9)
    assert source.call() == 0
    assert source.executions.begun == 2
    assert source.fetch.entry().value == 0
    source.clock.advance(0.1)
    assert source.call() == 0
    until(lambda: source.fetch.entry().value == 2)


def test_a_refused_value_is_no_renewal(stale, caplog):
    """What cache_if refuses, None by default, leaves the value as it was, and is retried after the floor."""
    source = stale(None)
    source.gate.set()
    assert source.call() == 0
    until(lambda: source.fetch.stats().uncached == 1)
    source.settle()
    assert source.call() == 0
    assert (source.executions.begun, len(caplog.records)) == (2, 1)
    source.clock.advance(1)
    assert source.call() == 0
    until(lambda: source.fetch.entry().value == 2)


def test_the_last_moment_of_grace(source):
    """One moment before it the value is served, and from then on the error of the call is everybody's."""
    source = source(grace=50)
    assert source.call() == 0
    source.script = {number: [ValueError(number)] for number in range(1, 100)}
    source.clock.advance(59.999)
    assert source.call() == 0
    until(lambda: source.fetch.stats().failures == 1)
    source.settle()
    source.clock.advance(0.001)
    assert source.fetch.entry() is None
    assert source.fetch.explain().would == "fetch"
    with pytest.raises(ValueError, match="2"):
        source.call()
    stats = source.fetch.stats()
    assert (stats.entries, stats.expirations, stats.errors) == (0, 1, 1)
    assert source.sums()


def test_a_miss_after_the_grace_joins_the_renewal(driver, stale):
    """Whoever comes when nothing may be served any more waits for what is on its way."""
    source = stale()
    assert source.call() == 0
    source.executions.wait_for(2)
    source.clock.advance(50)
    assert source.fetch.explain().would == "wait"
    driver.start(source.fetch, count=CALLERS)
    source.seen.wait_for("wait", CALLERS)
    source.gate.set()
    assert driver.outcomes() == [0, 0, *[1] * CALLERS]
    stats = source.fetch.stats()
    assert (stats.waits, stats.stale_hits, stats.calls, stats.fetches) == (CALLERS, 1, 2, 1)
    assert source.sums()


def test_those_who_joined_a_renewal_that_fails_try_again(driver, stale, caplog):
    """As behind any other flight; and no value that is gone is said to be kept."""
    source = stale(ValueError())
    assert source.call() == 0
    source.executions.wait_for(2)
    source.clock.advance(50)
    driver.start(source.fetch, count=CALLERS)
    source.seen.wait_for("wait", CALLERS)
    source.gate.set()
    assert driver.outcomes() == [0, 0, *[2] * CALLERS]
    assert caplog.records == []
    assert source.sums()


@pytest.mark.parametrize("how", ["invalidate", "put", "clear", "where"])
def test_what_a_renewal_brings_is_discarded(driver, stale, how, caplog):
    """After invalidate, put or cache_clear the renewal in flight stores nothing and disturbs nobody."""
    source = stale()
    assert source.call() == 0
    source.executions.wait_for(2)
    if how == "put":
        source.fetch.put(99)
    elif how == "clear":
        source.fetch.cache_clear()
    elif how == "where":
        assert source.fetch.invalidate_where(lambda key: True) == 1
    else:
        assert source.fetch.invalidate()
    assert [flight.detached for flight in source.fetch.flights()] == [True]
    expected = 99 if how == "put" else 2
    assert source.call() == expected
    source.gate.set()
    source.settle()
    assert source.call() == expected
    assert source.fetch.entry().value == expected
    assert caplog.records == []


def test_refresh_joins_the_renewal(driver, stale):
    """It waits for the renewal in flight and returns what that brings; where that fails it calls itself."""
    source = stale()
    assert source.call() == 0
    source.executions.wait_for(2)
    refreshing = driver.start(source.fetch.refresh)
    source.seen.wait_for("wait")
    assert source.call() == 0
    source.gate.set()
    assert refreshing.outcome() == 1
    assert source.executions.begun == 2


def test_a_failed_refresh_leaves_a_stale_value(driver, stale):
    """Its caller gets the error, everybody else the old value, and the next reader renews."""
    source = stale(ValueError())
    source.gate.set()
    with pytest.raises(ValueError):
        driver.call(source.fetch.refresh)
    assert source.call() == 0
    until(lambda: source.fetch.entry().value == 2)


def test_bypass_while_renewing(driver, stale):
    """Inside the block calls run the function; the renewal lands, and is served after."""
    source = stale()
    assert source.call() == 0
    source.executions.wait_for(2)
    with source.fetch.bypass():
        assert source.call() == 2
        assert source.fetch.explain().would == "fetch"
        source.gate.set()
        source.settle()
    assert source.call() == 1


def test_looking_at_a_stale_value(stale):
    """entry, explain and their numbers, before and while it is renewed; looking renews and counts nothing."""
    source = stale()
    for _ in range(3):
        entry, told = source.fetch.entry(), source.fetch.explain()
        assert (entry.value, entry.age, entry.ttl, entry.state, entry.hits) == (0, 10.0, 10.0, "stale", 0)
        assert (told.would, told.entry, told.flight) == ("stale_hit", entry, None)
        assert (told.fresh_for, told.stale_for) == (0.0, 50.0)
        assert "stale" in str(told)
    assert source.executions.begun == 1
    assert source.call() == 0
    source.executions.wait_for(2)
    source.clock.advance(20)
    told = source.fetch.explain()
    assert (told.would, told.stale_for, told.flight.kind) == ("stale_hit", 30.0, "refresh")
    assert source.fetch.stats().in_flight == 1


def test_fresh_and_endless_values_say_how_long(source):
    """`stale_for` counts from the end of the ttl; it is a number also where the ttl never ends."""
    made = source(grace=50)
    made.call()
    made.clock.advance(4)
    assert (made.fetch.explain().fresh_for, made.fetch.explain().stale_for) == (6.0, 50.0)
    endless = source(ttl=None, grace=50)
    endless.call()
    told = endless.fetch.explain()
    assert (told.would, told.fresh_for, told.stale_for) == ("hit", float("inf"), 50.0)


def test_the_value_lands_while_the_clock_steps_back(stale):
    """A step back lengthens lives by the step, and loses and raises nothing."""
    source = stale()
    assert source.call() == 0
    source.executions.wait_for(2)
    source.clock.advance(-8)
    assert source.call() == 0
    source.gate.set()
    source.settle()
    assert source.call() == 1
    assert source.fetch.stats().stale_hits == 1
    assert source.sums()


def test_values_of_instances_go_stale_apart(driver):
    """Each instance has its own value and its own renewal."""
    from singleflight.testing import FakeClock

    clock, numbers = FakeClock(), itertools.count()

    class Account:
        pass

    async def fetch(self):
        return self, next(numbers)

    first, second = Account(), Account()
    fetch = driver.decorate(fetch, ttl=10, grace=50, timer=clock)
    assert driver.call(fetch.of(first)) == (first, 0)
    clock.advance(5)
    assert driver.call(fetch.of(second)) == (second, 1)
    clock.advance(5)
    assert driver.call(fetch.of(second)) == (second, 1)
    assert driver.call(fetch.of(first)) == (first, 0)
    until(lambda: fetch.of(first).entry().value == (first, 2))
    assert fetch.of(second).entry().state == "fresh"


def test_the_trigger_may_go(driver, stale):
    """The renewal is not cancelled with the task that triggered it, nor does it end with its thread."""
    source = stale()
    caller = driver.start(source.fetch)
    assert caller.outcome() == 0
    if hasattr(caller, "cancel"):
        caller.cancel()
    source.executions.wait_for(2)
    source.gate.set()
    until(lambda: source.fetch.entry().value == 1)


def test_the_renewal_has_the_context_of_its_trigger(driver):
    """The function sees the context variables of the caller that found the value stale."""
    from singleflight.testing import FakeClock

    clock, user = FakeClock(), contextvars.ContextVar("user", default="nobody")

    async def fetch():
        return user.get()

    fetch = driver.decorate(fetch, ttl=10, grace=50, timer=clock)

    async def ask(name):
        user.set(name)
        return await fetch()

    assert driver.call(ask, "Ann") == "Ann"
    clock.advance(10)
    assert driver.call(ask, "Bob") == "Ann"
    until(lambda: fetch.entry().value == "Bob")


def test_a_renewal_that_asks_for_its_own_key(driver):
    """That is a cycle, and a failed renewal; the value stays."""
    from singleflight.testing import FakeClock

    clock, told = FakeClock(), []

    async def fetch():
        if clock() > 0:
            clock.set(100.0)
            try:
                return await fetch()
            except FlightDeadlock as error:
                told.append(error)
                raise
            finally:
                clock.set(10.0)
        return 0

    fetch = driver.decorate(fetch, ttl=10, grace=50, timer=clock)
    assert driver.call(fetch) == 0
    clock.advance(10)
    assert driver.call(fetch) == 0
    until(lambda: told)
    until(lambda: not fetch.flights())
    assert "() -> ()" in str(told[0])
    assert driver.call(fetch) == 0


def test_a_listener_of_hits(stale):
    """Hits told one by one and stale hits together: every caller is told of once."""
    source = stale()
    source.gate.set()
    assert source.call() == 0
    source.settle()
    assert source.call() == 1
    stats = source.fetch.stats()
    assert source.seen.count("stale_hit") == stats.stale_hits
    assert source.seen.count("hit") == stats.hits
    assert source.sums()


def test_an_interrupt_of_a_renewal_is_unclaimed(driver, stale):
    """An abort in the background reaches no caller, counts as no failure, and the next reader renews."""
    source = stale(asyncio.CancelledError())
    source.gate.set()
    assert source.call() == 0
    until(lambda: source.seen.count("abort") == 1)
    source.settle()
    assert source.call() == 0
    until(lambda: source.fetch.entry().value == 2)
    assert source.fetch.stats().failures == 0


def test_many_readers_at_the_same_moment(driver, source):
    """However many find the value stale together, one renewal begins."""
    made = source(grace=50)
    made.call()
    made.clock.advance(10)
    made.hold(1)
    driver.start(made.fetch, count=30)
    assert driver.outcomes() == [0] * 31
    made.executions.wait_for(2)
    assert made.executions.begun == 2
    assert made.fetch.stats().stale_hits == 30


@pytest.mark.parametrize("grace", [0, 50])
def test_a_put_value_ages_like_a_fetched_one(source, grace):
    """What put stores has the same grace."""
    made = source(grace=grace)
    made.fetch.put(7)
    made.clock.advance(10)
    assert made.call() == (7 if grace else 0)


def test_a_plain_hold_keeps_renewals_out(source):
    """While somebody holds the key's lock stale values are served, and nobody renews or waits."""
    made = source(grace=50)
    made.call()
    made.clock.advance(10)
    with made.fetch.locks(("A",)):
        assert made.call() == 0
        assert made.fetch.flights() == ()
    assert made.call() == 0
    until(lambda: made.fetch.entry().value == 1)


def test_a_shared_listener_survives_its_own_calls():
    """A listener that calls the function on a stale hit gets the stale value too."""
    from singleflight.testing import FakeClock

    clock, got, seen = FakeClock(), [], Recorder()

    def listener(event):
        seen(event)
        if event.kind == "stale_hit":
            got.append(fetch())

    @single_flight_ttl(ttl=10, grace=50, timer=clock, listener=listener)
    def fetch():
        return clock()

    fetch()
    clock.advance(10)
    assert fetch() == 0.0
    assert got == [0.0]
    until(lambda: fetch.entry().value == 10.0)
