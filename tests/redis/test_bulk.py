"""Bulk calls with `store=`: each key is loaded by one process, and the loader is called once for its own."""

import asyncio
import threading

import pytest

from singleflight import FlightTimeout, single_flight_ttl
from singleflight.redis import RedisStore, RemoteFailure, passage
from singleflight.testing import Recorder

from ..drivers import PATIENCE, until
from .fleets import link_of


class Loader:
    """Loads prices; counts its calls, and waits at a gate that a test may shut."""

    def __init__(self, prices=None):
        self.prices = prices
        self.calls = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, symbols):
        self.calls.append(list(symbols))
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        if isinstance(self.prices, BaseException):
            raise self.prices
        if self.prices is not None:
            return {symbol: self.prices[symbol] for symbol in symbols if symbol in self.prices}
        return {symbol: f"{symbol} {len(self.calls)}" for symbol in symbols}


@pytest.fixture
def fleet(url, colour):
    """Makes processes: each the bulk form of a function, over this loader."""
    stores = []

    def make(load, max_batch=None, lease=2.0, **options):
        store = RedisStore(url, lease=lease, timeout=2.0)
        stores.append(store)
        options = {"ttl": 60, "name": "price", **options}
        if colour == "tasks":

            @single_flight_ttl(store=store, **options)
            async def price(symbol):
                raise AssertionError(symbol)

            @price.bulk(max_batch=max_batch)
            async def prices(symbols):
                return await asyncio.to_thread(load, symbols)

            return lambda symbols: asyncio.run(prices(symbols)), price

        @single_flight_ttl(store=store, **options)
        def price(symbol):
            raise AssertionError(symbol)

        @price.bulk(max_batch=max_batch)
        def prices(symbols):
            return load(symbols)

        return prices, price

    yield make
    for store in stores:
        store.close()


def test_what_others_have_loaded_is_found(fleet):
    """Only the rest is loaded here, in one call."""
    load = Loader()
    (a, _), (b, _) = fleet(load), fleet(load)
    assert a(["A", "B"]) == {"A": "A 1", "B": "B 1"}
    assert b(["B", "C", "A"]) == {"B": "B 1", "C": "C 2", "A": "A 1"}
    assert load.calls == [["A", "B"], ["C"]]


def test_what_others_are_loading_is_awaited_last(fleet, pool):
    """A process loads what is free first, and lands it before it waits for another one."""
    first, second = Loader(), Loader()
    (a, _), (b, other) = fleet(first), fleet(second)
    first.gate.clear()
    one = pool.submit(a, ["A", "B"])
    assert first.entered.acquire(timeout=PATIENCE)
    two = pool.submit(b, ["B", "C"])
    assert second.entered.acquire(timeout=PATIENCE)
    until(lambda: other.entry("C") is not None)
    assert [flight.kind for flight in other.flights()] == ["shared"]
    first.gate.set()
    assert one.result(PATIENCE) == {"A": "A 1", "B": "B 1"}
    assert two.result(PATIENCE) == {"B": "B 1", "C": "C 1"}
    assert (first.calls, second.calls) == ([["A", "B"]], [["C"]])


def test_a_loader_takes_so_many_items_at_once(fleet):
    """Of what it is to load: what others have is not counted."""
    load = Loader()
    (a, _), (b, _) = fleet(load), fleet(load, max_batch=2)
    a(["B"])
    assert list(b(["A", "B", "C", "D"])) == ["A", "B", "C", "D"]
    assert load.calls == [["B"], ["A", "C"], ["D"]]


def test_what_a_loader_brings_early_is_not_asked_for_again(fleet):
    """Where it takes few items at once and returns more of what it was to be asked for; others find it."""
    load = Loader()
    (a, price), (b, _) = fleet(lambda symbols: load(symbols) | dict.fromkeys("BC", "early"), 1), fleet(load)
    assert a(["A", "B", "C"]) == {"A": "A 1", "B": "early", "C": "early"}
    assert load.calls == [["A"]]
    assert b(["C", "B"]) == {"B": "early", "C": "early"}
    assert load.calls == [["A"]]
    assert price.stats().in_flight == 0


def test_what_another_process_is_loading_is_taken_from_there(fleet, pool):
    """Also where the loader here returns it, for which it was not asked."""
    first, second = Loader(), Loader()
    (a, _), (b, other) = fleet(first), fleet(lambda symbols: second(symbols) | {"A": "early"})
    first.gate.clear()
    one = pool.submit(a, ["A"])
    assert first.entered.acquire(timeout=PATIENCE)
    two = pool.submit(b, ["A", "B"])
    until(lambda: other.entry("B") is not None)
    first.gate.set()
    assert one.result(PATIENCE) == {"A": "A 1"}
    assert two.result(PATIENCE) == {"A": "A 1", "B": "B 1"}
    assert second.calls == [["B"]]


@pytest.mark.parametrize("max_flights", [None, 1])
def test_the_time_of_what_others_are_loading_does_not_run(fleet, pool, max_flights):
    """Though that of what is loaded here does, from when its loader is let in."""
    first, second = Loader(), Loader()
    (a, _), (b, other) = fleet(first), fleet(second, max_flights=max_flights, flight_timeout=60)
    first.gate.clear()
    second.gate.clear()
    one = pool.submit(a, ["A"])
    assert first.entered.acquire(timeout=PATIENCE)
    two = pool.submit(b, ["A", "B"])
    assert second.entered.acquire(timeout=PATIENCE)
    turns = [slot.turn for slot in other._self_cache.locks.live()]
    assert {flight.key: flight.due is not None for flight in turns} == {("A",): False, ("B",): True}
    for load in (second, first):
        load.gate.set()
    assert one.result(PATIENCE) == {"A": "A 1"}
    assert two.result(PATIENCE) == {"A": "A 1", "B": "B 1"}


@pytest.mark.parametrize("failure_ttl", [0, 60])
def test_a_loader_that_gets_no_place_in_line_was_not_called(fleet, pool, failure_ttl):
    """It is no execution, and none that failed; its caller has timed out, also for what others load."""
    load, held, seen = Loader(), Loader(), Recorder()
    options = {"max_flights": 1, "failure_ttl": failure_ttl}
    (prices, price), (elsewhere, _) = (
        fleet(load, listener=seen, wait_timeout=1, **options),
        fleet(held, **options),
    )
    load.gate.clear()
    held.gate.clear()
    first, other = pool.submit(prices, ["A"]), pool.submit(elsewhere, ["D"])
    assert load.entered.acquire(timeout=PATIENCE)
    assert held.entered.acquire(timeout=PATIENCE)
    with pytest.raises(FlightTimeout, match=r"in line \(max_flights=1\)"):
        prices(["B", "C", "D"])
    load.gate.set()
    held.gate.set()
    assert (first.result(PATIENCE), other.result(PATIENCE)) == ({"A": "A 1"}, {"D": "D 1"})
    assert load.calls == [["A"]]
    stats = price.stats()
    assert (stats.calls, stats.failures, stats.fetches, stats.timeouts) == (1, 0, 1, 3)
    assert [event.key for event in seen.of("fetch")] == [("A",)]
    assert prices(["B", "C"]) == {"B": "B 2", "C": "C 2"}


def test_a_failing_loader_fails_those_who_wait_elsewhere(fleet, pool):
    """With the budget of retries of one process: each key is tried twice."""
    load = Loader(ValueError("no prices"))
    (a, _), (b, price) = fleet(load), fleet(load)
    load.gate.clear()
    one = pool.submit(a, ["A", "B"])
    assert load.entered.acquire(timeout=PATIENCE)
    two = pool.submit(b, ["A", "B"])
    until(lambda: [flight.kind for flight in price.flights()] == ["shared"] * 2)
    load.gate.set()
    assert str(one.exception(PATIENCE)) == "no prices"
    assert isinstance(two.exception(PATIENCE), ValueError | RemoteFailure)
    assert load.calls[0] == ["A", "B"]
    assert len(load.calls) == 2
    assert set(load.calls[1]) <= {"A", "B"}  # both, if both wake-ups have come


def test_what_a_loader_leaves_out_is_missing_for_all(fleet):
    """It is not stored: the next call asks again."""
    load = Loader({"A": 1})
    (a, _), (b, _) = fleet(load), fleet(load)
    assert a(["A", "X"]) == {"A": 1}
    assert b(["A", "X"]) == {"A": 1}
    assert load.calls == [["A", "X"], ["X"]]


def test_what_a_loader_leaves_out_is_not_stored_whatever_cache_if_accepts(fleet):
    """There is no value to be asked about."""
    load = Loader({"A": 1})
    (a, _), (b, _) = (fleet(load, cache_if=lambda value: True) for _ in range(2))
    assert a(["A", "X"]) == {"A": 1}
    assert b(["A", "X"]) == {"A": 1}
    assert load.calls == [["A", "X"], ["X"]]


def test_a_value_that_cannot_be_weighed_fails_for_its_key(fleet):
    """The caller gets that error, and what was found for the other keys is here."""

    def weigh(value):
        return {"A 1": 1, "B 1": "heavy", "C 1": 1}[value]

    load = Loader()
    (a, _), (b, price) = fleet(load), fleet(load, weigh=weigh)
    a(["A", "B", "C"])
    with pytest.raises(TypeError):
        b(["A", "B", "C"])
    assert b(["A", "C"]) == {"A": "A 1", "C": "C 1"}
    assert price.stats().hits == 2
    assert load.calls == [["A", "B", "C"]]


def test_failure_ttl_is_asked_once_for_a_loader_call(fleet):
    """Its answer holds for each key that the loader was called for, here and elsewhere."""
    asked = []
    load, options = Loader(ValueError("no prices")), {"follower_retries": 0}
    options["failure_ttl"] = lambda error: (asked.append(error), 60)[1]
    (a, _), (b, _) = fleet(load, **options), fleet(load, **options)
    for _ in range(2):
        with pytest.raises(ValueError, match="no prices"):
            a(["A", "B"])
    with pytest.raises(RemoteFailure, match="no prices"):
        b(["A", "B"])
    assert load.calls == [["A", "B"]]
    assert len(asked) == 1


def test_a_fault_of_failure_ttl_is_logged_once(fleet, caplog):
    """The caller gets the loader's error, and nothing is stored."""
    load = Loader(ValueError("no prices"))
    a, price = fleet(load, failure_ttl=lambda error: "soon")
    with pytest.raises(ValueError, match="no prices"):
        a(["A", "B"])
    assert sum("failure_ttl" in record.getMessage() for record in caplog.records) == 1
    assert price.stats().entries == 0


def test_an_abort_of_failure_ttl_aborts_the_loader_call(fleet):
    """The caller gets it, and the keys are free in all processes."""

    class Abort(BaseException):
        pass

    def abort(error):
        raise Abort

    load = Loader(ValueError("no prices"))
    (a, price), (b, _) = fleet(load, failure_ttl=abort), fleet(load)
    with pytest.raises(Abort):
        a(["A", "B"])
    assert price.stats().in_flight == price.stats().entries == 0
    load.prices = None
    assert b(["A", "B"]) == {"A": "A 2", "B": "B 2"}


def test_a_stored_failure_of_a_loader_is_invalidated_by_others(fleet):
    """As one of the function itself; the other keys' failures stay."""
    load = Loader(ValueError("no prices"))
    (a, price), (_, other) = (fleet(load, failure_ttl=60, follower_retries=0) for _ in range(2))
    with pytest.raises(ValueError, match="no prices"):
        a(["A", "B"])
    assert price.stats().entries == 2
    other.invalidate("A")
    until(lambda: price.stats().entries == 1)
    load.prices = None
    assert a(["A"]) == {"A": "A 2"}
    with pytest.raises(ValueError, match="no prices"):
        a(["B"])


def test_a_stored_failure_of_a_loader_is_near_for_near_ttl(fleet):
    """Then the server is asked again."""
    load, now = Loader(ValueError("no prices")), [0.0]
    a, price = fleet(load, failure_ttl=600, follower_retries=0, timer=lambda: now[0])
    near_ttl = price._self_cache.tier.terms.near_ttl
    assert near_ttl < 600
    with pytest.raises(ValueError, match="no prices"):
        a(["A", "B"])
    now[0] = near_ttl
    with pytest.raises(RemoteFailure, match="no prices"):
        a(["A"])
    assert len(load.calls) == 1


def test_an_interrupt_while_the_server_is_told_of_a_failure_is_not_lost(fleet, monkeypatch):
    """It takes the place of the loader's error, as a cancellation does; the keys are free."""

    class Struck(BaseException):
        pass

    def strike(calls):
        if load.calls:
            monkeypatch.undo()
            raise Struck
        return ask(calls)

    async def strike_in_task(calls):
        if load.calls:
            monkeypatch.undo()
            raise Struck
        return await ask_in_task(calls)

    load = Loader(ValueError("no prices"))
    (a, price), (b, _) = fleet(load), fleet(load)
    clients = link_of(price).clients
    ask, ask_in_task = clients.call_all, clients.acall_all
    monkeypatch.setattr(clients, "call_all", strike, raising=True)
    monkeypatch.setattr(clients, "acall_all", strike_in_task, raising=True)
    with pytest.raises(Struck):
        a(["A", "B"])
    assert price.stats().in_flight == 0
    load.prices = None
    assert b(["A", "B"]) == {"A": "A 2", "B": "B 2"}


def test_what_a_loader_failed_with_is_shared_without_retries(fleet, pool):
    """Those who wait elsewhere do not call theirs, and count no failure of it."""
    first, second = Loader(ValueError("no prices")), Loader()
    (a, _), (b, other) = fleet(first, follower_retries=0), fleet(second, follower_retries=0)
    first.gate.clear()
    one = pool.submit(a, ["A", "B"])
    assert first.entered.acquire(timeout=PATIENCE)
    two = pool.submit(b, ["A", "B"])
    until(lambda: [flight.kind for flight in other.flights()] == ["shared"] * 2)
    first.gate.set()
    assert str(one.exception(PATIENCE)) == "no prices"
    error = two.exception(PATIENCE)
    assert isinstance(error, RemoteFailure)
    assert error.message == "no prices"
    assert second.calls == []
    stats = other.stats()
    assert (stats.calls, stats.failures, stats.in_flight) == (0, 0, 0)


def test_an_abort_of_a_loader_reaches_its_caller_alone(fleet, pool):
    """Those who wait elsewhere call theirs; no retry is spent, and nothing is stored."""

    class Abort(BaseException):
        pass

    asked = []
    first, second = Loader(Abort()), Loader()
    options = {"follower_retries": 0, "failure_ttl": lambda error: (asked.append(error), 60)[1]}
    (a, price), (b, other) = fleet(first, **options), fleet(second, **options)
    first.gate.clear()
    one = pool.submit(a, ["A", "B"])
    assert first.entered.acquire(timeout=PATIENCE)
    two = pool.submit(b, ["A", "B"])
    until(lambda: [flight.kind for flight in other.flights()] == ["shared"] * 2)
    first.gate.set()
    assert isinstance(one.exception(PATIENCE), Abort)
    assert {symbol[0] for symbol in two.result(PATIENCE).values()} == {"A", "B"}
    assert (asked, price.stats().entries, price.stats().in_flight) == ([], 0, 0)


def test_a_loader_that_returns_no_mapping_fails_for_all(fleet, pool):
    """Those who wait elsewhere call theirs."""
    first, second = Loader(), Loader()
    (a, price), (b, other) = fleet(lambda symbols: list(first(symbols))), fleet(second)
    first.gate.clear()
    one = pool.submit(a, ["A", "B"])
    assert first.entered.acquire(timeout=PATIENCE)
    two = pool.submit(b, ["A"])
    until(lambda: [flight.kind for flight in other.flights()] == ["shared"])
    first.gate.set()
    with pytest.raises(TypeError, match="mapping"):
        one.result(PATIENCE)
    assert two.result(PATIENCE) == {"A": "A 1"}
    assert price.stats().in_flight == 0


def test_what_failed_in_another_process_is_loaded_here(fleet, pool):
    """Also where the loader here has returned it before, for which it was not asked."""
    first, second = Loader(ValueError("no prices")), Loader()
    (a, _), (b, other) = fleet(first), fleet(lambda symbols: second(symbols) | dict.fromkeys("A", "early"))
    first.gate.clear()
    one = pool.submit(a, ["A"])
    assert first.entered.acquire(timeout=PATIENCE)
    two = pool.submit(b, ["A", "B"])
    until(lambda: other.entry("B") is not None)
    first.gate.set()
    assert str(one.exception(PATIENCE)) == "no prices"
    assert two.result(PATIENCE) == {"A": "early", "B": "B 1"}
    assert second.calls == [["B"], ["A"]]


def test_a_wake_ends_the_wait_of_a_bulk_call(fleet, pool, monkeypatch):
    """Whoever is not woken would wait for as long as the leases last."""
    monkeypatch.setattr(passage, "PAUSE", 30.0)
    monkeypatch.setattr(passage, "LOOK", 30.0)
    first, second = Loader(), Loader()
    (a, _), (b, other) = fleet(first, lease=30.0), fleet(second, lease=30.0)
    first.gate.clear()
    one = pool.submit(a, ["A", "B"])
    assert first.entered.acquire(timeout=PATIENCE)
    two = pool.submit(b, ["A", "B"])
    until(lambda: [flight.kind for flight in other.flights()] == ["shared"] * 2)
    first.gate.set()
    assert one.result(PATIENCE) == two.result(PATIENCE) == {"A": "A 1", "B": "B 1"}


@pytest.mark.parametrize("colour", ["threads"])  # a renewal would end with its event loop
def test_stale_values_are_renewed_by_one_process(fleet):
    """The other ones serve theirs meanwhile, and ask again after a second."""
    load, now = Loader(), [0.0]
    options = {"ttl": 10, "grace": 50, "timer": lambda: now[0]}
    (a, _), (b, price) = fleet(load, **options), fleet(load, **options)
    assert a(["A", "B"]) == b(["A", "B"]) == {"A": "A 1", "B": "B 1"}
    assert load.entered.acquire(timeout=PATIENCE)
    load.gate.clear()
    now[0] = 11.0
    assert a(["A", "B"]) == {"A": "A 1", "B": "B 1"}
    assert load.entered.acquire(timeout=PATIENCE)
    assert b(["A", "B"]) == {"A": "A 1", "B": "B 1"}
    until(lambda: not price.flights())
    assert [record.refresh_at for record in price._self_cache.store.records()] == [12.0] * 2
    load.gate.set()
    until(lambda: a(["A", "B"]) == {"A": "A 2", "B": "B 2"})
    assert price.stats().calls == 0
