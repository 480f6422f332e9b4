"""gathering: with `gather`, single calls become one call of a bulk loader."""

import asyncio
import threading

from singleflight.testing import FakeClock

from ..drivers import Executions, until
from .conftest import outcomes

LONG = 30.0


class Shop:
    """A getter that is never run and a loader that gathers; `loads` says what that was asked for."""

    def __init__(self, driver, respond=None, gather=LONG, max_batch=None, **options):
        self.driver, self.loads, self.begun = driver, [], Executions()
        respond = respond or (lambda items: {item: item.upper() for item in items})

        async def price(symbol):
            raise AssertionError("the getter runs")

        async def prices(symbols):
            self.loads.append("".join(sorted(symbols)))
            self.begun.begin()
            return respond(symbols)

        self.price = driver.decorate(price, key=lambda symbol: symbol, **options)
        self.prices = driver.loader(self.price, prices, gather=gather, max_batch=max_batch)

    def start(self, run, *args):
        """A caller whose call is in the window."""
        before = self.open()
        caller = self.driver.start(run, *args)
        until(lambda: self.open() == before + 1)
        return caller

    def open(self):
        return sum(flight.kind == "bulk" for flight in self.price.flights())

    def last(self, run, *args):
        """One that fills it."""
        return self.driver.start(run, *args)


def test_single_calls_are_gathered(driver):
    """Single calls that miss within `gather` seconds of each other are loaded by one call of the loader."""
    one = Shop(driver, max_batch=3)
    callers = [one.start(one.price, "a"), one.start(one.price, "b"), one.last(one.price, "c")]
    assert outcomes(callers) == ["A", "B", "C"]
    assert (one.loads, one.price.stats().calls) == (["abc"], 1)


def test_the_first_call_waits_for_no_longer_than_the_window(driver):
    """Without others a call is loaded alone once its window has closed."""
    one = Shop(driver, gather=0.005)
    assert driver.call(one.price, "a") == "A"
    assert one.loads == ["a"]


def test_each_key_of_a_window_is_a_flight(driver):
    """Callers of one key in a window share its flight; each key counts as a fetch of its own."""
    one = Shop(driver, max_batch=2)
    callers = [one.start(one.price, "a")]
    callers.append(driver.start(one.price, "a"))
    until(lambda: one.price.flights()[0].followers == 1)
    callers.append(one.last(one.price, "b"))
    assert outcomes(callers) == ["A", "A", "B"]
    assert (one.price.stats().fetches, one.price.stats().waits) == (2, 1)


def test_a_failing_loader_fails_each_of_its_callers(driver):
    """What a gathered call of the loader raises is raised to each of its callers, and the keys are free."""

    def respond(items):
        raise ValueError("down")

    one = Shop(driver, respond, max_batch=2)
    callers = [one.start(one.price, "a"), one.last(one.price, "b")]
    assert [error.args for error in outcomes(callers)] == [("down",)] * 2
    assert (one.price.flights(), one.price.stats().failures) == ((), 1)


def test_what_a_gathered_call_leaves_out(driver):
    """An item that a gathered call leaves out is None for its single caller, and not stored."""
    one = Shop(driver, lambda items: {"a": "A"}, max_batch=2)
    callers = [one.start(one.price, "a"), one.last(one.price, "x")]
    assert outcomes(callers) == ["A", None]
    assert one.price.entry("x") is None


def test_an_invalidated_key_of_a_window_is_not_stored(driver):
    """A key that is invalidated while it is in a window is loaded for its callers alone, and not stored."""
    one = Shop(driver, max_batch=2)
    callers = [one.start(one.price, "a")]
    assert one.price.invalidate("a") is True
    assert one.price.entry("a") is None
    callers.append(one.last(one.price, "b"))
    assert outcomes(callers) == ["A", "B"]
    assert (one.price.entry("a"), one.price.entry("b").value) == (None, "B")


def test_a_cancelled_caller_leaves_its_window_alone(tasks):
    """Cancelling any caller of a window, also the first, leaves its item out and serves the others."""
    one = Shop(tasks, max_batch=4)
    first, second, third = (one.start(one.price, symbol) for symbol in "abc")
    for caller in (first, second):
        caller.cancel()
        assert type(caller.outcome()) is asyncio.CancelledError
    last = one.last(one.price, "d")
    assert outcomes([third, last]) == ["C", "D"]
    assert one.loads == ["cd"]


def test_an_interrupted_caller_leaves_its_window_to_the_others(driver):
    """When whoever runs a gathered call is interrupted, its other callers are served by another call."""
    strikes = [True]
    lock = threading.Lock()

    def respond(items):
        with lock:
            if strikes:
                strikes.clear()
                raise KeyboardInterrupt
        return {item: item.upper() for item in items}

    one = Shop(driver, respond, gather=0.5, max_batch=2)
    callers = [one.start(one.price, "a"), one.last(one.price, "b")]
    first, second = outcomes(callers)
    assert (type(first), second) == (KeyboardInterrupt, "B")
    assert one.loads == ["ab", "b"]


def test_gathered_calls_with_grace(driver):
    """With `grace` stale values are served at once, and renewals are gathered with calls that wait."""
    clock = FakeClock()
    one = Shop(driver, max_batch=2, ttl=60, grace=600, timer=clock)
    one.price.put("old", "a")
    clock.advance(60)
    assert driver.call(one.price, "a") == "old"
    assert driver.call(one.price, "b") == "B"
    until(lambda: not one.price.flights())
    assert one.loads == ["ab"]
    assert one.price.entry("a").value == "A"
