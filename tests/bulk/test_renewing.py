"""Bulk calls that renew stale values: one renewal at a time, whoever comes to run it."""

import threading

import pytest

from singleflight import configure_renewal, single_flight_ttl
from singleflight.testing import FakeClock, Recorder

from ..drivers import Driver, Executions, InThread, until


class Stale:
    """Two values in their grace; `loads` has what the loader was asked for, and waits at `gate`."""

    def __init__(self, **options):
        self.clock, self.seen, self.gate = FakeClock(), Recorder(), threading.Event()
        self.begun, self.loads, self.singles = Executions(), [], []

        @single_flight_ttl(ttl=60, grace=60, key=lambda s: s, timer=self.clock, listener=self.seen, **options)
        def price(symbol):
            self.singles.append(symbol)
            return "single"

        @price.bulk
        def prices(symbols):
            self.loads.append("".join(symbols))
            self.begun.begin()
            assert self.gate.wait(10)
            return dict.fromkeys(symbols, "bulk")

        self.price, self.prices = price, prices
        for symbol in "AB":
            price.put("old", symbol)
        self.clock.advance(61)


@pytest.fixture
def small_pool():
    configure_renewal(threads=1, queued=5)
    yield
    configure_renewal()


def call(run, *args):
    async def calling():
        return run(*args)

    return InThread(calling, ())


def test_a_renewal_that_runs_is_joined():
    """Whoever needs a value that a bulk renewal is fetching waits for it, and fetches nothing."""
    stale = Stale()
    assert stale.prices(["A", "B"]) == {"A": "old", "B": "old"}
    stale.begun.wait_for(1)
    caller = call(stale.price.refresh, "A")
    stale.seen.wait_for("wait")
    stale.gate.set()
    assert caller.outcome() == "bulk"
    assert (stale.loads, stale.singles) == (["AB"], [])
    until(lambda: not stale.price.flights())
    stats = stale.price.stats()
    assert (stats.calls, stats.refreshes, stats.stale_hits, stats.waits) == (1, 1, 2, 1)


def test_a_renewal_that_waits_for_a_thread_is_taken_over(small_pool):
    """Whoever needs a value whose renewal has no thread yet fetches it; the loader is asked for the rest."""
    stale, other = Stale(), Stale()
    other.prices(["A"])
    other.begun.wait_for(1)  # it has the only thread
    assert stale.prices(["A", "B"]) == {"A": "old", "B": "old"}
    assert stale.price.refresh("A") == "single"
    other.gate.set()
    stale.gate.set()
    until(lambda: stale.loads)
    until(lambda: not stale.price.flights())
    assert (stale.loads, stale.singles) == (["B"], ["A"])
    assert [stale.price.entry(symbol).value for symbol in "AB"] == ["single", "bulk"]


def test_a_renewal_that_lost_every_key_calls_nothing(small_pool):
    """If others have taken over all of it, or dropped it, the loader is not called."""
    stale, other = Stale(), Stale()
    other.prices(["A"])
    other.begun.wait_for(1)
    stale.prices(["A", "B"])
    assert stale.price.refresh("A") == "single"
    assert stale.price.invalidate("B")
    other.gate.set()
    stale.gate.set()
    until(lambda: not other.price.flights())
    until(lambda: not stale.price.flights())
    other.prices(["B"])  # the one thread is through with what came before
    until(lambda: other.loads == ["A", "B"])
    assert (stale.loads, stale.singles) == ([], ["A"])
    assert stale.price.entry("B") is None
    stats = stale.price.stats()
    assert (stats.in_flight, stats.locks) == (0, stats.idle_locks)


def test_a_failing_renewal_keeps_the_values():
    """A loader that fails, or leaves a key out, in the background: the stale values stay."""
    clock, runs, done = FakeClock(), [], Executions()

    @single_flight_ttl(ttl=60, grace=60, key=lambda s: s, timer=clock)
    def price(symbol):
        raise AssertionError

    @price.bulk
    def prices(symbols):
        runs.append(symbols)
        done.begin()
        if len(runs) == 1:
            raise ValueError("the broker is down")
        return {"A": "new"}

    for symbol in "AB":
        price.put("old", symbol)
    clock.advance(61)
    for round_ in (1, 2):
        assert prices(["A", "B"]) == {"A": "old", "B": "old"}
        done.wait_for(round_)
        until(lambda: not price.flights())
        assert len(runs) == round_
        if round_ == 1:
            prices(["A", "B"])
            assert len(runs) == 1  # no more often than a floor
            clock.advance(1)
    assert prices(["A", "B"]) == {"A": "new", "B": "old"}
    assert len(runs) == 2
    stats = price.stats()
    assert (stats.calls, stats.failures, stats.refreshes, stats.errors) == (2, 1, 2, 0)


@pytest.mark.parametrize("brought", [{}, {"A": None}], ids=["left out", "refused"])
def test_a_key_that_a_renewal_does_not_bring_is_tried_again(driver, brought):
    """A second later, by whoever asks then, and as often as it takes; not before, and not by every caller."""
    clock, loads, done = FakeClock(), [], Executions()

    async def price(symbol):
        raise AssertionError

    async def prices(symbols):
        loads.append(symbols)
        done.begin()
        return brought

    price = driver.decorate(price, grace=600, key=lambda symbol: symbol, timer=clock)
    prices = driver.loader(price, prices)
    price.put("old", "A")
    clock.advance(60)
    for round_ in range(1, 4):
        assert driver.call(prices, ["A"]) == {"A": "old"}
        done.wait_for(round_)
        until(lambda: not price.flights())
        assert driver.call(prices, ["A"]) == {"A": "old"}
        assert not price.flights()
        clock.advance(0.5)
        assert driver.call(prices, ["A"]) == {"A": "old"}
        assert (loads, price.flights()) == ([["A"]] * round_, ())
        clock.advance(0.5)
    stats = price.stats()
    assert (stats.stale_hits, stats.refreshes, stats.calls, stats.uncached) == (9, 3, 3, 3)


def test_a_task_renews_in_the_background():
    """Stale values are served to a task at once; one load in a task of its own renews them, and is joined."""
    driver = Driver(0)
    clock, seen, gate, loads = FakeClock(), Recorder(), driver.gate(), []

    @single_flight_ttl(ttl=60, grace=60, key=lambda s: s, timer=clock, listener=seen)
    async def price(symbol):
        raise AssertionError

    @price.bulk
    async def prices(symbols):
        loads.append("".join(symbols))
        await gate
        return dict.fromkeys(symbols, "new")

    for symbol in "AB":
        price.put("old", symbol)
    clock.advance(61)
    assert driver.call(prices, ["A", "B"]) == {"A": "old", "B": "old"}
    assert driver.call(prices, ["B", "A"]) == {"B": "old", "A": "old"}
    assert {flight.kind for flight in price.flights()} == {"bulk"}
    clock.advance(60)  # past their grace
    late = driver.start(prices, ["A", "B"])
    seen.wait_for("wait")
    gate.set()
    assert late.outcome() == {"A": "new", "B": "new"}
    assert loads == ["AB"]
    stats = price.stats()
    assert (stats.calls, stats.refreshes, stats.stale_hits, stats.waits) == (1, 1, 4, 2)
    driver.close()
    assert driver.reports() == []


@pytest.mark.parametrize("how", ["invalidate", "put"])
def test_a_renewal_that_was_overtaken_complains_of_nothing(how, caplog):
    """A key that was dropped or put while it was renewed, and is then left out, is no failed renewal."""
    clock, begun, gate = FakeClock(), Executions(), threading.Event()

    @single_flight_ttl(ttl=60, grace=60, key=lambda s: s, timer=clock)
    def price(symbol):
        return "single"

    @price.bulk
    def prices(symbols):
        begun.begin()
        assert gate.wait(10)
        return {}

    price.put("old", "A")
    clock.advance(60)
    assert prices(["A"]) == {"A": "old"}
    begun.wait_for(1)
    if how == "invalidate":
        assert price.invalidate("A")
    else:
        price.put("put", "A")
    gate.set()
    until(lambda: not price.flights())
    assert caplog.records == []
    assert price("A") == ("single" if how == "invalidate" else "put")


def test_what_was_served_stale_stays_as_it_was_served(driver):
    """A renewal that lands while its caller still waits for other keys does not change the answer."""
    clock, gate, renewed = FakeClock(), driver.gate(), Executions()

    async def price(symbol):
        raise AssertionError

    async def prices(symbols):
        if symbols == ["C"]:
            await gate
        renewed.begin()
        return dict.fromkeys(symbols, "new")

    price = driver.decorate(price, grace=60, key=lambda symbol: symbol, timer=clock)
    prices = driver.loader(price, prices)
    price.put("old", "A")
    clock.advance(60)
    caller = driver.start(prices, ["A", "C"])
    renewed.wait_for(1)
    until(lambda: price.entry("A").value == "new")
    gate.set()
    assert caller.outcome() == {"A": "old", "C": "new"}
    assert price.stats().stale_hits == 1
