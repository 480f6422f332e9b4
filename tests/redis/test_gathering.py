"""Gathered calls with `store=`: a window asks the server for all its keys, and loads what no process has."""

import asyncio
import concurrent.futures

import pytest

from singleflight import FlightTimeout, single_flight_ttl
from singleflight.redis import RedisStore

from ..drivers import PATIENCE, until
from .test_bulk import Loader

LONG = 30.0


@pytest.fixture
def executor():
    with concurrent.futures.ThreadPoolExecutor(8) as executor:
        yield executor


@pytest.fixture(params=["threads", "tasks"])
def fleet(request, url, executor):
    """Makes processes: each starts single calls of a function, whose loader gathers so many."""
    stores = []

    def make(load, size, **options):
        store = RedisStore(url, lease=2.0, timeout=2.0)
        stores.append(store)
        options = {"ttl": 60, "name": "price", **options}

        @single_flight_ttl(store=store, **options)
        def price(symbol):
            raise AssertionError(symbol)

        @price.twin
        async def price_in_task(symbol):
            raise AssertionError(symbol)

        @price.bulk(gather=LONG, max_batch=size)
        def prices(symbols):
            return load(symbols)

        @price.bulk(gather=LONG, max_batch=size)
        async def prices_in_task(symbols):
            return await asyncio.to_thread(load, symbols)

        async def ask(symbols):
            return await asyncio.gather(*map(price_in_task, symbols), return_exceptions=True)

        def start(*symbols):
            if request.param == "threads":
                return [executor.submit(price, symbol) for symbol in symbols]
            return [executor.submit(asyncio.run, ask(symbols))]

        return start, price

    yield make
    for store in stores:
        store.close()


def results(calls):
    """What they returned, in one list."""
    found = []
    for call in calls:
        value = call.result(PATIENCE)
        found += value if isinstance(value, list) else [value]
    return found


def test_only_what_no_process_has_is_loaded(fleet):
    """Two processes gather calls; the second loads what the first has not."""
    load = Loader({symbol: symbol.lower() for symbol in "ABC"})
    (one, _), (two, _) = fleet(load, 2), fleet(load, 3)
    assert results(one("A", "B")) == ["a", "b"]
    assert results(two("B", "C", "A")) == ["b", "c", "a"]
    assert [sorted(call) for call in load.calls] == [["A", "B"], ["C"]]


def test_each_caller_goes_on_with_its_own_key(fleet):
    """Whose key is loaded here does not wait for those that another process is loading."""
    first, second = Loader({"A": 1, "B": 2}), Loader({"C": 3, "D": 4})
    (one, _), (two, other) = fleet(first, 2), fleet(second, 2)
    first.gate.clear()
    held = one("A", "B")
    assert first.entered.acquire(timeout=PATIENCE)
    asked = two("B", "C")
    until(lambda: other.entry("C") is not None)
    if len(asked) == 2:
        assert asked[1].result(PATIENCE) == 3
        assert not asked[0].done()
    first.gate.set()
    assert results(held) == [1, 2]
    assert results(asked) == [2, 3]
    assert [sorted(call) for call in second.calls] == [["C"]]


def test_a_loader_that_fails_for_a_part_fails_its_callers_alone(fleet):
    """Whoever opened the window and asked for what another process is loading receives that."""
    first, second = Loader({"A": 1, "B": 2}), Loader(ValueError("no C"))
    (one, _), (two, price) = fleet(first, 2), fleet(second, 2)
    first.gate.clear()
    held = one("A", "B")
    assert first.entered.acquire(timeout=PATIENCE)
    opener = two("B")
    until(lambda: len(price.flights()) == 1)
    (failed,) = two("C")
    error = failed.exception(PATIENCE) or failed.result(PATIENCE)[0]
    assert (type(error), str(error)) == (ValueError, "no C")
    first.gate.set()
    assert results(held) == [1, 2]
    assert results(opener) == [2]
    assert second.calls == [["C"]]
    stats = price.stats()
    assert (stats.errors, stats.failures, stats.locks) == (1, 1, stats.idle_locks)


def test_who_waits_for_another_process_for_too_long(fleet):
    """The caller that opened the window receives that, too; what was loaded here is its caller's."""
    first, second = Loader({"A": 1, "B": 2}), Loader({"C": 3})
    (one, _), (two, price) = fleet(first, 2), fleet(second, 2, wait_timeout=2)
    first.gate.clear()
    held = one("A", "B")
    assert first.entered.acquire(timeout=PATIENCE)
    opener = two("B")
    until(lambda: len(price.flights()) == 1)
    assert results(two("C")) == [3]
    error = opener[0].exception(PATIENCE) or opener[0].result(PATIENCE)[0]
    assert type(error) is FlightTimeout
    assert "waited 2" in str(error)
    first.gate.set()
    assert results(held) == [1, 2]
    stats = price.stats()
    assert (stats.timeouts, stats.errors, stats.fetches, stats.locks) == (1, 0, 1, stats.idle_locks)


def test_a_failing_loader_fails_each_of_its_callers(fleet):
    """And nothing is stored, here or at the server."""
    load = Loader(ValueError("no prices"))
    (one, price), (two, _) = fleet(load, 2), fleet(Loader({"A": 1, "B": 2}), 2)
    for call in one("A", "B"):
        errors = call.exception(PATIENCE) or call.result(PATIENCE)
        for error in errors if isinstance(errors, list) else [errors]:
            assert (type(error), str(error)) == (ValueError, "no prices")
    assert (len(load.calls), price.flights()) == (1, ())
    assert results(two("A", "B")) == [1, 2]
