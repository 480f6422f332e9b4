"""Invalidate, put, refresh, clear and explain while a call is in flight."""

import asyncio
import itertools

import pytest

from singleflight.testing import FakeClock, Recorder

from ..drivers import Executions, until


@pytest.fixture
def held(driver):
    """A function held in its first call by one leader with one follower; it returns 0, 1, 2 and so on."""
    seen, gate, executions = Recorder(), driver.gate(), Executions()

    async def fetch(key="A"):
        value = executions.begin()
        if value == 0:
            await gate
        return value

    fetch = driver.decorate(fetch, listener=seen)
    fetch.open = gate.set
    driver.start(fetch)
    executions.wait_for(1)
    driver.start(fetch)
    seen.wait_for("wait")
    return fetch


def test_invalidate_detaches_the_flight(driver, held):
    """Its callers get the value, the next caller fetches again, and the old value is never stored."""
    assert held.invalidate()
    assert [flight.detached for flight in held.flights()] == [True]
    assert driver.call(held) == 1
    held.open()
    assert driver.outcomes() == [0, 0, 1]
    assert driver.call(held) == 1
    assert held.entry().value == 1


def test_invalidate_where_sees_flights_too(driver, held):
    """A key in flight counts as one that the predicate may pick."""
    assert held.invalidate_where(lambda key: key == ("B",)) == 0
    assert held.invalidate_where(lambda key: key == ("A",)) == 1
    held.open()
    assert driver.outcomes() == [0, 0]
    assert held.entry() is None


def test_put_discards_the_flight(driver, held):
    """A value put from outside is not overwritten by a call that began before."""
    held.put(99)
    assert driver.call(held) == 99
    held.open()
    assert driver.outcomes() == [0, 0, 99]
    assert driver.call(held) == 99


def test_cache_clear_detaches_everything(driver, held):
    """After cache_clear nothing of before is stored."""
    held.cache_clear()
    held.open()
    assert driver.outcomes() == [0, 0]
    assert held.entry() is None
    assert driver.call(held) == 1


def test_explain_and_flights_show_what_is_going_on(driver, held):
    """wait, hit and fetch, each with a sentence; a flight with its kind, followers and a leader's name."""
    assert held.explain().would == "wait"
    assert "1 waiting" in str(held.explain())
    assert held.explain("B").would == "fetch"
    (flight,) = held.flights()
    assert (flight.key, flight.kind, flight.followers, flight.detached) == (("A",), "call", 1, False)
    assert isinstance(flight.leader, str)
    assert flight.leader
    held.open()
    driver.outcomes()
    assert held.explain().would == "hit"
    assert "fresh for" in str(held.explain())
    assert held.flights() == ()


def test_refresh_joins_a_flight(driver, held):
    """Where a call is under way refresh waits for it; where there is none it calls, in any case."""
    third = driver.start(held.refresh)
    driver.start(held, "B").outcome()
    until(lambda: held.flights()[0].followers == 2)
    assert not third.done()
    held.open()
    assert driver.outcomes() == [0, 0, 0, 1]
    assert driver.call(held.refresh) == 2
    assert driver.call(held) == 2
    assert held.stats().refreshes == 1


def test_refresh_replaces_and_keeps_nobody_waiting(driver):
    """While it runs the old value is served, and after it the new one."""
    seen, gate, numbers = Recorder(wants={"fetch"}), driver.gate(), itertools.count()

    async def fetch():
        number = next(numbers)
        if number:
            await gate
        return number

    fetch = driver.decorate(fetch, listener=seen)
    assert driver.call(fetch) == 0
    refreshing = driver.start(fetch.refresh)
    seen.wait_for("fetch", 2)
    assert [driver.call(fetch) for _ in range(4)] == [0] * 4
    assert fetch.flights()[0].kind == "refresh"
    gate.set()
    assert refreshing.outcome() == 1
    assert driver.call(fetch) == 1
    assert fetch.stats().refreshes == 1


def test_a_refresh_that_fails_keeps_the_old_value(driver):
    """The old value stays when refresh raises."""
    values = [1]

    async def fetch():
        return values.pop()

    fetch = driver.decorate(fetch)
    driver.call(fetch)
    with pytest.raises(IndexError):
        driver.call(fetch.refresh)
    assert driver.call(fetch) == 1


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
def test_a_refresh_that_joined_a_failed_one_calls_for_itself(driver, failure):
    """Two refreshes together: the first ends badly, and the second does not return the old value."""
    seen, gate, numbers = Recorder(), driver.gate(), itertools.count()

    async def fetch():
        number = next(numbers)
        if number == 1:
            await gate
            raise failure
        return number

    fetch = driver.decorate(fetch, listener=seen)
    assert driver.call(fetch) == 0
    first = driver.start(fetch.refresh)
    seen.wait_for("fetch", 2)
    second = driver.start(fetch.refresh)
    seen.wait_for("wait")
    gate.set()
    assert isinstance(first.outcome(), failure)
    assert second.outcome() == 2


def test_an_expired_reader_waits_for_the_refresh_in_flight(driver):
    """An entry that runs out during its refresh costs no second call."""
    clock, seen, gate, numbers = FakeClock(), Recorder(), driver.gate(), itertools.count()

    async def fetch():
        number = next(numbers)
        if number:
            await gate
        return number

    fetch = driver.decorate(fetch, timer=clock, listener=seen)
    driver.call(fetch)
    refreshing = driver.start(fetch.refresh)
    seen.wait_for("fetch", 2)
    clock.advance(61)
    reader = driver.start(fetch)
    seen.wait_for("wait")
    gate.set()
    assert (refreshing.outcome(), reader.outcome()) == (1, 1)
    assert fetch.stats().calls == 2


@pytest.mark.parametrize("control", ["invalidate", "cache_clear"])
def test_a_discarded_refresh_resurrects_nothing(driver, control):
    """What was dropped while it was refreshed stays dropped."""
    seen, gate, numbers = Recorder(), driver.gate(), itertools.count()

    async def fetch():
        number = next(numbers)
        if number == 1:
            await gate
        return number

    fetch = driver.decorate(fetch, listener=seen)
    driver.call(fetch)
    refreshing = driver.start(fetch.refresh)
    seen.wait_for("fetch", 2)
    getattr(fetch, control)()
    gate.set()
    assert refreshing.outcome() == 1
    assert fetch.entry() is None
    assert driver.call(fetch) == 2


def test_a_third_caller_joins_the_second_flight(driver):
    """After invalidate a new flight runs beside the old one, and who comes later joins the new one."""
    gates, seen, executions = [driver.gate(), driver.gate()], Recorder(), Executions()

    async def fetch():
        number = executions.begin()
        await gates[number]
        return number

    fetch = driver.decorate(fetch, listener=seen)
    driver.start(fetch)
    executions.wait_for(1)
    fetch.invalidate()
    driver.start(fetch)
    executions.wait_for(2)
    driver.start(fetch)
    seen.wait_for("wait")
    gates[0].set()
    seen.wait_for("land")
    assert [flight.detached for flight in fetch.flights()] == [False]
    gates[1].set()
    assert driver.outcomes() == [0, 1, 1]
    assert driver.call(fetch) == 1


@pytest.mark.parametrize("abort", [KeyboardInterrupt, asyncio.CancelledError])
def test_the_followers_of_an_aborted_detached_flight_fetch_anew(driver, abort):
    """A detached flight that is aborted has nothing to share: its followers make one call together."""
    gates, seen, numbers = [driver.gate(), driver.gate()], Recorder(), itertools.count()

    async def fetch():
        number = next(numbers)
        await gates[number]
        if number == 0:
            raise abort
        return number

    fetch = driver.decorate(fetch, listener=seen)
    driver.start(fetch)
    seen.wait_for("fetch")
    driver.start(fetch, count=5)
    seen.wait_for("wait", 5)
    fetch.invalidate()
    gates[0].set()
    seen.wait_for("abort")
    gates[1].set()
    outcomes = driver.outcomes()
    assert isinstance(outcomes[0], abort)
    assert outcomes[1:] == [1] * 5
