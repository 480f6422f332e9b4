"""What a call cannot end, for lack of room or for an interrupt, is ended by whoever comes next."""

import asyncio

import pytest

from singleflight import single_flight_ttl
from singleflight.drivers import tasks, threads
from singleflight.locks.mutex import mutex
from singleflight.locks.unsettled import unsettled
from singleflight.locks.waitgraph import waiting
from singleflight.testing import FakeClock, Recorder

from ..drivers import Driver, Executions, until
from ..striking import FAULTS, Struck, striking


class Failed(Exception):
    """What a function raises."""


@pytest.fixture(params=FAULTS.values(), ids=FAULTS)
def fault(request):
    """What strikes while a call ends."""
    return request.param


@pytest.fixture(autouse=True)
def nothing_noted():
    """Each test begins and ends with nothing left to settle."""
    assert unsettled == {}
    yield
    assert unsettled == {}


@pytest.fixture
def on_loop():
    """Tasks of one loop."""
    driver = Driver(0)
    try:
        yield driver
    finally:
        driver.close()
    assert driver.reports() == []


class Failing:
    """A function that fails once, and is held at a gate until then."""

    def __init__(self, driver, **options):
        self.seen, self.gate, self.begun = Recorder(), driver.gate(), Executions()

        async def price(symbol):
            number = self.begun.begin()
            await self.gate
            if number == 0:
                raise Failed
            return symbol.lower()

        self.price = driver.decorate(price, listener=self.seen, **options)

    def settled(self):
        assert self.price.flights() == ()
        stats = self.price.stats()
        assert (stats.in_flight, stats.locks) == (0, stats.idle_locks)
        assert unsettled == {}
        return stats


def strike_all(monkeypatch, name, fault):
    """The same in both drivers: whichever comes first."""
    return [
        striking(monkeypatch, module, name, fault) for module in (threads, tasks) if hasattr(module, name)
    ]


def test_who_followed_what_could_not_be_ended_is_served(driver, monkeypatch, fault):
    """The caller receives the function's error, unless it was interrupted; its follower flies again."""
    failing = Failing(driver)
    caller = driver.start(failing.price, "A")
    failing.begun.wait_for(1)
    follower = driver.start(failing.price, "A")
    failing.seen.wait_for("wait")
    strike_all(monkeypatch, "give_up", fault)
    failing.gate.set()
    assert type(caller.outcome()) is (Struck if fault is Struck else Failed)
    assert follower.outcome() == "a"
    stats = failing.settled()
    assert (stats.errors, stats.calls, stats.fetches + stats.waits) == (1, 2, 1)


def test_the_key_is_free_when_the_caller_receives_its_error(driver, monkeypatch, fault):
    """Whatever kept it from being given up."""
    failing = Failing(driver)
    failing.gate.set()
    strike_all(monkeypatch, "give_up", fault)
    caller = driver.start(failing.price, "A")
    assert type(caller.outcome()) is (Struck if fault is Struck else Failed)
    stats = failing.settled()
    assert (stats.errors, stats.calls, stats.failures) == (1, 1, 1)


def test_what_there_is_no_room_to_settle_is_settled_by_the_next_call(driver, monkeypatch):
    """Of any function; its caller receives its own error."""
    failing, other = Failing(driver), Failing(driver)
    failing.gate.set()
    other.gate.set()
    other.begun.begin()  # it does not fail
    with monkeypatch.context() as patched:
        strike_all(patched, "give_up", RecursionError)
        strike_all(patched, "settle", RecursionError)
        with pytest.raises(Failed):
            driver.call(failing.price, "A")
        assert len(unsettled) == 1
    assert driver.call(other.price, "A") == "a"
    failing.settled()


@pytest.mark.parametrize("struck", [False, True])
def test_a_follower_that_an_exception_strikes_leaves(monkeypatch, struck):
    """It is counted once, and waits no more, whether it could give up itself or not."""
    driver = Driver("thread")
    failing = Failing(driver)
    caller = driver.start(failing.price, "A")
    failing.begun.wait_for(1)
    if struck:
        striking(monkeypatch, threads, "give_up", MemoryError)
    striking(monkeypatch, threads, "stand", Failed)
    assert type(driver.start(failing.price, "A").outcome()) is Failed
    assert [flight.followers for flight in failing.price.flights()] == [0]
    assert (failing.price.stats().errors, waiting) == (1, {})
    failing.gate.set()
    assert type(caller.outcome()) is Failed
    assert failing.settled().errors == 2
    driver.close()


# -- renewals in threads ------------------------------------------------------------------------------


class Stale:
    """A plain function with a value that is stale, whose renewals run on the caller's own thread."""

    def __init__(self, monkeypatch, error):
        self.clock, self.error, self.runs = FakeClock(), error, 0
        monkeypatch.setattr(threads, "in_background", lambda run: False)

        @single_flight_ttl(ttl=10, grace=60, timer=self.clock)
        def price(symbol):
            self.runs += 1
            if self.error is not None:
                raise self.error
            return "new"

        self.price = price
        price.put("old", "A")
        self.clock.advance(11)


def test_a_renewal_that_could_not_be_ended_leaves_the_value_and_the_key_free(monkeypatch, fault):
    """The caller is served, unless it was interrupted; the next one renews again."""
    stale = Stale(monkeypatch, Failed())
    left = striking(monkeypatch, threads, "give_up", fault)
    if fault is Struck:
        with pytest.raises(Struck):
            stale.price("A")
    else:
        assert stale.price("A") == "old"
    assert (left, unsettled, stale.price.flights(), stale.runs) == ([0], {}, (), 1)
    stale.error = None
    assert (stale.price("A"), stale.runs) == ("new", 2)
    stats = stale.price.stats()
    assert (stats.calls, stats.failures, stats.errors) == (2, 1, 0)


def test_a_renewal_that_is_struck_before_it_began(monkeypatch, fault):
    """It ends as if it had never been, and the next caller renews."""
    stale = Stale(monkeypatch, None)
    left = striking(monkeypatch, threads, "begin_renewal", fault)
    if fault is Struck:
        with pytest.raises(Struck):
            stale.price("A")
    else:
        assert stale.price("A") == "old"
    assert (left, unsettled, stale.price.flights(), stale.runs) == ([0], {}, (), 0)
    assert (stale.price.stats().calls, stale.price.stats().errors) == (0, 0)
    assert (stale.price("A"), stale.runs) == ("new", 1)


# -- coroutines ---------------------------------------------------------------------------------------


class Held:
    """A coroutine function that waits at its gate."""

    def __init__(self, driver):
        self.seen, self.gate, self.begun = Recorder(), driver.gate(), Executions()

        @single_flight_ttl(ttl=60, listener=self.seen)
        async def price(symbol):
            self.begun.begin()
            await self.gate
            return symbol.lower()

        self.price = price


@pytest.mark.parametrize("waits", ["leads", "follows"])
def test_a_call_that_the_collector_closes_amid_a_section_leaves_as_soon_as_that_is_over(on_loop, waits):
    """It is counted, its work is stopped, and what it followed is left."""
    held, calls = Held(on_loop), []
    if waits == "follows":
        on_loop.start(held.price, "A")
        held.begun.wait_for(1)

    async def begin():
        calls.append(held.price("A"))
        calls[0].send(None)
        await asyncio.sleep(0)

    async def close():
        with mutex:
            calls.pop().close()
            assert unsettled
        held.gate.set()
        assert await held.price("B") == "b"  # whoever comes next settles

    on_loop.call(begin)
    held.begun.wait_for(1)
    on_loop.call(close)
    assert unsettled == {}
    assert held.price.stats().errors == 1
    until(lambda: not held.price.flights())


def test_a_caller_that_cannot_leave_its_work_is_settled(on_loop, monkeypatch, fault):
    """It is cancelled all the same, unless an interrupt strikes; its work is stopped, and it is counted."""
    held = Held(on_loop)
    caller = on_loop.start(held.price, "A")
    held.begun.wait_for(1)
    left = striking(monkeypatch, tasks, "desert", fault)
    caller.cancel()
    assert type(caller.outcome()) is (Struck if fault is Struck else asyncio.CancelledError)
    until(lambda: not held.price.flights())
    assert (left, unsettled, held.price.stats().errors) == ([0], {}, 1)


def test_who_leaves_its_work_is_told_with_what_struck(on_loop):
    """As the one that led it."""
    held = Held(on_loop)
    caller = on_loop.start(held.price, "A")
    held.begun.wait_for(1)
    caller.cancel()
    assert type(caller.outcome()) is asyncio.CancelledError
    held.seen.wait_for("left")
    (left,), (fetch,) = held.seen.of("left"), held.seen.of("fetch")
    assert (left.key, left.counted, left.flight_id, left.leads) == (
        fetch.key,
        "errors",
        fetch.flight_id,
        True,
    )
    assert type(left.error) is asyncio.CancelledError


def test_a_value_arrives_though_the_wait_for_it_could_not_be_ended(on_loop, monkeypatch, fault):
    """Its caller waits no more once it has left the library."""
    held = Held(on_loop)
    held.gate.set()
    left = striking(monkeypatch, tasks, "end_wait", fault)
    outcome = on_loop.start(held.price, "A").outcome()
    assert outcome == "a" or type(outcome) is Struck is fault
    assert (left, unsettled, waiting) == ([0], {}, {})
    assert (held.price.entry("A").value, held.price.flights()) == ("a", ())


def test_work_that_could_not_be_ended_is_settled(on_loop, monkeypatch):
    """Its caller receives the function's error, and the key is free."""
    failing = Failing(on_loop)
    failing.gate.set()
    left = striking(monkeypatch, tasks, "fail", MemoryError)
    assert type(on_loop.start(failing.price, "A").outcome()) is Failed
    stats = failing.settled()
    assert (left, stats.calls, stats.failures, stats.errors) == ([0], 1, 1, 1)


@pytest.mark.parametrize("times", [1, 2])
def test_a_caller_whose_work_was_struck_on_its_way_home_is_told(on_loop, monkeypatch, times):
    """Its task sees to that when it is done; what came is stored."""
    held = Held(on_loop)
    held.gate.set()
    left = striking(monkeypatch, tasks.Work, "bring_home", Struck, times)
    outcome = on_loop.start(held.price, "A").outcome()
    assert (type(outcome), left) == (Struck if times == 1 else asyncio.CancelledError, [0])
    assert (held.price.flights(), held.price.entry("A").value) == ((), "a")


def test_work_that_is_cancelled_before_it_began_ends_its_call(on_loop):
    """By somebody who cancels all tasks of the loop: the caller is told, and the key is free."""
    held = Held(on_loop)

    async def strike():
        caller = asyncio.ensure_future(held.price("A"))
        await asyncio.sleep(0)
        name = held.price.cache_parameters()["name"]
        work = [task for task in asyncio.all_tasks() if task.get_name() == name]
        assert (len(work), held.begun.begun) == (1, 0)
        work[0].cancel()
        return (await asyncio.gather(caller, return_exceptions=True))[0]

    assert type(on_loop.start(strike).outcome()) is asyncio.CancelledError
    assert held.price.flights() == ()
    stats = held.price.stats()
    assert (stats.errors, stats.calls, stats.locks) == (1, 0, stats.idle_locks)


def test_a_call_that_is_closed_before_its_work_began_runs_nothing(on_loop):
    """Its work is stopped, and the key is free."""
    held = Held(on_loop)

    async def begin_and_close():
        coroutine = held.price("A")
        coroutine.send(None)
        coroutine.close()
        for _ in range(3):
            await asyncio.sleep(0)

    on_loop.call(begin_and_close)
    assert held.price.flights() == ()
    stats = held.price.stats()
    assert (held.begun.begun, stats.errors, stats.calls, stats.locks) == (0, 1, 0, stats.idle_locks)
