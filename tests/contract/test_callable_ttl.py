"""What a callable ttl answers neither loses a good value nor fails the call."""

import itertools
import math
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

import pytest

from singleflight.testing import FakeClock, Recorder

OVER = [-5, 0, -0.25, -math.inf, Decimal(-1), Fraction(-1, 2), timedelta(seconds=-3)]


def counting():
    numbers = itertools.count()

    async def fetch(key="A"):
        return next(numbers)

    return fetch


@pytest.mark.parametrize("answer", OVER, ids=repr)
def test_a_value_that_is_over_already_reaches_everybody_and_is_not_stored(driver, answer):
    """As a token that is nearly out: leader and followers get it, once, and the next caller fetches."""
    seen, gate, numbers = Recorder(), driver.gate(), itertools.count()

    async def fetch():
        number = next(numbers)
        await gate
        return number

    fetch = driver.decorate(fetch, ttl=lambda landing: answer, listener=seen)
    driver.start(fetch)
    seen.wait_for("fetch")
    driver.start(fetch, count=3)
    seen.wait_for("wait", 3)
    gate.set()
    assert driver.outcomes() == [0] * 4
    assert fetch.entry() is None
    assert driver.call(fetch) == 1
    stats = fetch.stats()
    assert (stats.errors, stats.failures, stats.uncached, stats.calls) == (0, 0, 2, 2)


@pytest.mark.parametrize("answer", [Decimal(20), Fraction(20), timedelta(seconds=20)], ids=repr)
def test_a_number_of_any_type_is_a_ttl(driver, answer):
    """It is kept for so many seconds."""
    clock = FakeClock(100.0)
    fetch = driver.decorate(counting(), ttl=lambda landing: answer, timer=clock)
    assert driver.call(fetch) == 0
    clock.advance(19.9)
    assert (driver.call(fetch), fetch.entry().ttl) == (0, 20.0)
    clock.advance(0.1)
    assert driver.call(fetch) == 1


@pytest.mark.parametrize("answer", [math.nan, "soon", True], ids=repr)
def test_what_says_nothing_is_the_flights_failure(driver, answer):
    """Nothing is stored, and the error names ttl."""
    fetch = driver.decorate(counting(), ttl=lambda landing: answer)
    with pytest.raises((TypeError, ValueError), match=r"^ttl: "):
        driver.call(fetch)
    assert (fetch.entry(), fetch.flights(), fetch.stats().failures) == (None, (), 1)


@pytest.mark.parametrize("answer", OVER, ids=repr)
def test_to_put_what_is_over_already_only_invalidates(driver, answer):
    """As a ttl of 0 does."""
    answers = iter([60, answer])
    fetch = driver.decorate(counting(), ttl=lambda landing: next(answers))
    assert driver.call(fetch) == 0
    fetch.put("put")
    assert fetch.entry() is None


@pytest.mark.parametrize("truth", [False, RuntimeError("asked")], ids=repr)
def test_a_stored_failure_is_no_previous_value_of_what_is_put(driver, truth):
    """Whatever the exception says where it is asked whether it is true."""

    class Untrue(Exception):
        def __bool__(self):
            if truth:
                raise truth
            return False

    async def fail():
        raise Untrue

    landings = []
    fetch = driver.decorate(fail, ttl=lambda landing: landings.append(landing) or 60, failure_ttl=60)
    with pytest.raises(Untrue):
        driver.call(fetch)
    fetch.put("put")
    assert (fetch.entry().value, [landing.previous for landing in landings]) == ("put", [None])


@pytest.mark.parametrize("answer", OVER, ids=repr)
def test_to_refresh_to_what_is_over_already_returns_it(driver, answer):
    """It is not stored; the value that is there keeps its own time."""
    answers = iter([60, answer])
    fetch = driver.decorate(counting(), ttl=lambda landing: next(answers))
    assert driver.call(fetch) == 0
    assert driver.call(fetch.refresh) == 1
    assert fetch.entry().value == 0
