"""What a bulk call cannot end, for lack of room or for an interrupt, is ended by whoever comes next."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from singleflight import FlightDeadlock, configure_renewal, single_flight_ttl
from singleflight.core import batch
from singleflight.core.batch import Batch
from singleflight.core.bulk_call import BulkCall
from singleflight.core.call import NONE, SHARE
from singleflight.drivers import bulk_tasks, bulk_threads
from singleflight.drivers.tasks import Work
from singleflight.locks.mutex import mutex
from singleflight.locks.unsettled import settle, unsettled
from singleflight.testing import FakeClock, Recorder

from ..drivers import Driver, Executions, InThread, until
from ..striking import FAULTS, Struck, striking


class Failed(Exception):
    """What a loader raises."""


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


class Failing:
    """A loader that fails once, and a getter that is not to be called."""

    def __init__(self, driver, **options):
        self.seen, self.gate, self.begun = Recorder(), driver.gate(), Executions()

        async def price(symbol):
            raise AssertionError

        async def prices(symbols):
            number = self.begun.begin()
            await self.gate
            if number == 0:
                raise Failed
            return {symbol: symbol.lower() for symbol in symbols}

        self.price = driver.decorate(price, key=lambda symbol: symbol, listener=self.seen, **options)
        self.prices = driver.loader(self.price, prices)

    def settled(self):
        assert self.price.flights() == ()
        stats = self.price.stats()
        assert (stats.in_flight, stats.locks) == (0, stats.idle_locks)
        assert unsettled == {}
        return stats


@pytest.mark.parametrize(("owner", "name"), [(BulkCall, "give_up"), (Batch, "fail"), (Batch, "close")])
def test_who_followed_what_could_not_be_ended_is_served(driver, monkeypatch, fault, owner, name):
    """They receive the loader's error, or load what they need themselves; the keys are free."""
    failing = Failing(driver, follower_retries=0)
    caller = driver.start(failing.prices, ["A", "B"])
    failing.begun.wait_for(1)
    follower = driver.start(failing.prices, ["B"])
    failing.seen.wait_for("wait")
    left = striking(monkeypatch, owner, name, fault)
    failing.gate.set()
    outcome, other = caller.outcome(), follower.outcome()
    assert left == [0]
    assert type(outcome) in (Failed, Struck)
    assert other == {"B": "b"} or type(other) in (Failed, Struck)
    assert driver.call(failing.prices, ["A", "B"]) == {"A": "a", "B": "b"}
    failing.settled()


@pytest.mark.parametrize("fault", [RecursionError, MemoryError])
@pytest.mark.parametrize("name", ["give_up", "fail", "close"])
def test_where_there_is_no_room_the_caller_receives_its_own_error(driver, monkeypatch, fault, name):
    """And the keys are free when it does."""
    failing = Failing(driver)
    failing.gate.set()
    striking(monkeypatch, BulkCall if name == "give_up" else Batch, name, fault)
    with pytest.raises(Failed):
        driver.call(failing.prices, ["A", "B"])
    stats = failing.settled()
    assert (stats.errors, stats.calls) == (2, 1)


@pytest.mark.parametrize("name", ["give_up", "fail", "close"])
def test_an_interrupt_while_a_call_ends_is_its_callers(driver, monkeypatch, name):
    """And the keys are free when it arrives."""
    failing = Failing(driver)
    failing.gate.set()
    striking(monkeypatch, BulkCall if name == "give_up" else Batch, name, Struck)
    outcome = driver.start(failing.prices, ["A", "B"]).outcome()
    assert type(outcome) in (Struck, Failed)
    until(lambda: not failing.price.flights())
    stats = failing.settled()
    assert (stats.errors, stats.calls) == (2, 1)


def test_what_there_is_no_room_to_settle_is_settled_by_the_next_call(driver, monkeypatch):
    """Of any function; its caller receives its own error."""
    failing = Failing(driver)
    failing.gate.set()
    striking(monkeypatch, BulkCall, "give_up", RecursionError)
    for module in (bulk_threads, bulk_tasks):
        striking(monkeypatch, module, "settle", RecursionError)
    with pytest.raises(Failed):
        driver.call(failing.prices, ["A", "B"])
    assert len(unsettled) == 1
    for module in (bulk_threads, bulk_tasks):
        monkeypatch.undo()
    assert driver.call(failing.prices, ["A", "B"]) == {"A": "a", "B": "b"}
    failing.settled()


# -- coroutines that are closed amid a section ---------------------------------------------------------


class Held:
    """A coroutine loader that waits at its gate."""

    def __init__(self, driver):
        self.seen, self.gate, self.begun = Recorder(), driver.gate(), Executions()

        @single_flight_ttl(ttl=60, key=lambda symbol: symbol, listener=self.seen)
        async def price(symbol):
            self.begun.begin()
            await self.gate
            return symbol

        @price.bulk
        async def prices(symbols):
            self.begun.begin()
            await self.gate
            return dict.fromkeys(symbols, 1)

        self.price, self.prices = price, prices


@pytest.fixture
def tasks():
    """Tasks of one loop."""
    driver = Driver(0)
    try:
        yield driver
    finally:
        driver.close()
    assert driver.reports() == []


@pytest.mark.parametrize("waits", ["leads", "follows"])
def test_a_call_that_the_collector_closes_amid_a_section_leaves_as_soon_as_that_is_over(tasks, waits):
    """It is counted, its work is stopped, and what it followed is left."""
    held, calls = Held(tasks), []
    if waits == "follows":
        tasks.start(held.price, "A")
        held.begun.wait_for(1)

    async def begin():
        calls.append(held.prices(["A"]))
        calls[0].send(None)
        await asyncio.sleep(0)

    async def close():
        with mutex:
            calls.pop().close()
            assert unsettled
        assert await held.prices([]) == {}  # whoever comes next settles

    tasks.call(begin)
    held.begun.wait_for(1)
    tasks.call(close)
    assert unsettled == {}
    assert held.price.stats().errors == 1
    if waits == "leads":
        until(lambda: not held.price.flights())
    else:
        assert [flight.followers for flight in held.price.flights()] == [0]


def test_a_caller_that_cannot_leave_its_work_is_settled(tasks, monkeypatch, fault):
    """It is cancelled all the same, unless an interrupt strikes; its work is stopped, and it is counted."""
    held = Held(tasks)
    caller = tasks.start(held.prices, ["A", "B"])
    held.begun.wait_for(1)
    left = striking(monkeypatch, Batch, "desert", fault)
    caller.cancel()
    assert type(caller.outcome()) is (Struck if fault is Struck else asyncio.CancelledError)
    until(lambda: not held.price.flights())
    assert (left, unsettled, held.price.stats().errors) == ([0], {}, 2)


def test_who_leaves_its_work_is_told_with_what_struck(tasks):
    """For each key that it leads."""
    held = Held(tasks)
    caller = tasks.start(held.prices, ["A", "B"])
    held.begun.wait_for(1)
    caller.cancel()
    assert type(caller.outcome()) is asyncio.CancelledError
    until(lambda: held.seen.count("left") == 2)
    told = [(event.key, type(event.error), event.leads) for event in held.seen.of("left")]
    assert told == [("A", asyncio.CancelledError, True), ("B", asyncio.CancelledError, True)]


def test_a_bulk_call_outside_of_a_task_is_refused_by_name(tasks):
    """A callback of the loop has no task that could wait: nothing has begun."""
    held, errors = Held(tasks), []

    def step():
        try:
            held.prices(["A"]).send(None)
        except RuntimeError as error:
            errors.append(str(error))

    async def main():
        asyncio.get_running_loop().call_soon(step)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    tasks.call(main)
    (said,) = errors
    assert held.price.cache_parameters()["name"] in said
    assert (held.begun.begun, held.price.flights()) == (0, ())


def test_a_plain_call_on_the_loop_that_loads_its_key_is_refused():
    """It would keep the loop from ever bringing the value; the load goes on."""

    @single_flight_ttl(ttl=60, wait_timeout=1, key=lambda symbol: symbol)
    async def price(symbol):
        raise AssertionError

    @price.bulk
    async def prices(symbols):
        await gates[0].wait()
        return dict.fromkeys(symbols, 1)

    @price.bulk
    def plain(symbols):
        raise AssertionError

    gates = []

    async def main():
        gates.append(asyncio.Event())
        caller = asyncio.create_task(prices(["A"]))
        while not price.flights():
            await asyncio.sleep(0)
        with pytest.raises(FlightDeadlock):
            plain(["A"])
        gates[0].set()
        return await caller

    assert asyncio.run(main()) == {"A": 1}


class Loading:
    """A batch and its work, which note how they end."""

    def __init__(self):
        self.settled, self.home = [], []

    def settle(self, error, after):
        self.settled.append(error)

    def error_to_raise(self, error):
        return error

    def bring_home(self, value, error):
        self.home.append((value, error))
        return True


def test_work_that_is_destroyed_amid_a_section_is_settled_after_it():
    """Its caller is told at once; nothing else is done there."""
    loading, error = Loading(), Failed()
    with mutex:
        assert bulk_tasks._end(loading, loading, error) is True
        assert (loading.settled, loading.home) == ([], [(None, error)])
    settle()
    assert loading.settled == [error]


def test_work_that_is_cancelled_before_it_began_ends_its_call(tasks):
    """By somebody who cancels all tasks of the loop: the caller is told, and the keys are free."""
    held = Held(tasks)

    async def strike():
        caller = asyncio.ensure_future(held.prices(["A", "B"]))
        await asyncio.sleep(0)
        work = [
            task for task in asyncio.all_tasks() if task.get_name() == held.price.cache_parameters()["name"]
        ]
        assert (len(work), held.begun.begun) == (1, 0)
        work[0].cancel()
        return (await asyncio.gather(caller, return_exceptions=True))[0]

    assert type(tasks.start(strike).outcome()) is asyncio.CancelledError
    assert held.price.flights() == ()
    stats = held.price.stats()
    assert (stats.errors, stats.calls, stats.locks) == (2, 0, stats.idle_locks)


def test_a_call_that_is_closed_before_its_work_began_runs_nothing(tasks):
    """Its work is stopped, and the keys are free."""
    held = Held(tasks)

    async def begin_and_close():
        coroutine = held.prices(["A", "B"])
        coroutine.send(None)
        coroutine.close()
        for _ in range(3):
            await asyncio.sleep(0)

    tasks.call(begin_and_close)
    assert held.price.flights() == ()
    stats = held.price.stats()
    assert (held.begun.begun, stats.errors, stats.calls, stats.locks) == (0, 2, 0, stats.idle_locks)


@pytest.mark.parametrize("times", [1, 2])
def test_a_caller_whose_work_was_struck_on_its_way_home_is_told(monkeypatch, times):
    """Its task sees to that when it is done; what was loaded is stored."""
    driver = Driver(0)
    held = Held(driver)
    held.gate.set()
    left = striking(monkeypatch, Work, "bring_home", Struck, times)
    outcome = driver.start(held.prices, ["A"]).outcome()
    assert (type(outcome), left) == (Struck if times == 1 else asyncio.CancelledError, [0])
    assert held.price.flights() == ()
    assert held.price.entry("A").value == 1
    driver.close()


def test_an_abort_of_failure_ttl_takes_the_place_of_the_loaders_error(driver):
    """It is its caller's."""

    def strike(error):
        raise Struck

    failing = Failing(driver, failure_ttl=strike)
    failing.gate.set()
    assert type(driver.start(failing.prices, ["A", "B"]).outcome()) is Struck
    failing.settled()


class Tier:
    """Has the loader run for all that is led, as a store does."""

    def load(self, batch, execute):
        while flights := self.unloaded(batch):
            batch.land(execute(flights))

    def leader_of(self, flight):
        return None

    async def load_in_task(self, batch, execute):
        while flights := self.unloaded(batch):
            batch.land(await execute(flights))

    def unloaded(self, batch):
        return batch.next_of(flight for flight in batch.flights if not flight.has_ended())


@pytest.mark.parametrize("limit", [None, 1])
def test_a_loader_that_a_tier_has_run_stands_in_line_too(driver, limit):
    """With `max_flights` the second one begins when the first has ended."""
    gates, begun, seen = [driver.gate(), driver.gate()], Executions(), Recorder()

    async def price(symbol):
        raise AssertionError

    async def prices(symbols):
        await gates[begun.begin()]
        return dict.fromkeys(symbols, 1)

    price = driver.decorate(price, key=lambda symbol: symbol, max_flights=limit, listener=seen)
    prices = driver.loader(price, prices)
    price._self_cache.tier = Tier()
    first = driver.start(prices, ["A"])
    begun.wait_for(1)
    second = driver.start(prices, ["B"])
    if limit is None:
        begun.wait_for(2)
    else:
        until(lambda: [flight.queued for flight in price.flights()] == [False, True])
        assert begun.begun == 1
    gates[1].set()
    gates[0].set()
    assert (first.outcome(), second.outcome()) == ({"A": 1}, {"B": 1})
    assert begun.begun == 2


# -- windows -------------------------------------------------------------------------------------------


class Gathering:
    """A bulk call for one key, and its window, which ends like this."""

    def __init__(self, decision, value):
        self.ends, self.asked, self.came = (decision, value), [], None
        self.cache = SimpleNamespace(gathering=self)

    def driver(self, coroutine):
        async def join(*asked):
            return self.join(*asked)

        return SimpleNamespace(join=join if coroutine else self.join)

    def join(self, *asked):
        self.asked.append(asked)
        return self.ends

    def gathered(self, call, decision, value):
        self.came = call, decision, value


@pytest.mark.parametrize("module", [bulk_threads, bulk_tasks])
@pytest.mark.parametrize(
    ("decision", "value", "alone", "then"),
    [
        (SHARE, "value", False, False),
        (SHARE, None, True, True),
        (NONE, True, False, True),
        (NONE, False, True, False),
    ],
)
def test_who_calls_anew_is_alone_if_its_window_says_so(module, decision, value, alone, then):
    """Else it is as it was; the bulk call takes what came."""
    gathering = Gathering(decision, value)
    result = module._gather(gathering, lambda item: ("group", item), lambda: "load", "call", "item", alone)
    assert (asyncio.run(result) if module is bulk_tasks else result) is then
    assert gathering.asked == [(gathering.cache, "call", ("group", "item"), "load", alone)]
    assert gathering.came == ("call", decision, value)


# -- renewals ------------------------------------------------------------------------------------------


def stale_in_tasks(**options):
    """A value that is stale, a coroutine loader and a plain one, and what they were asked for."""
    clock, loads = FakeClock(), []

    @single_flight_ttl(ttl=60, grace=60, timer=clock, key=lambda symbol: symbol, **options)
    async def price(symbol):
        raise AssertionError

    @price.bulk
    async def prices(symbols):
        loads.append("".join(symbols))
        await asyncio.sleep(0)
        return dict.fromkeys(symbols, "new")

    @price.bulk
    def plain(symbols):
        loads.append("plain")
        return dict.fromkeys(symbols, "plain")

    price.put("old", "A")
    clock.advance(61)
    return price, prices, plain, clock, loads


def test_a_renewal_in_a_task_begins_as_soon_as_its_loop_goes_on():
    """Its leader is that task."""
    price, prices, _, _, loads = stale_in_tasks()
    leaders = []

    async def main():
        assert await prices(["A"]) == {"A": "old"}
        leaders.extend(flight.leader for flight in price.flights())
        for _ in range(3):
            await asyncio.sleep(0)
        assert loads == ["A"]
        while price.flights():
            await asyncio.sleep(0)
        return await prices(["A"])

    assert asyncio.run(main()) == {"A": "new"}
    (leader,) = leaders
    assert price.cache_parameters()["name"] in leader


def test_a_renewal_on_a_loop_that_has_stopped_is_not_waited_for():
    """Nobody keeps that loop running to see it end: who needs the value loads it."""
    price, prices, plain, clock, loads = stale_in_tasks()
    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(prices(["A"])) == {"A": "old"}
        assert len(price.flights()) == 1
        clock.advance(60)
        caller = InThread(as_coroutine(plain), (["A"],))
        assert caller.outcome() == {"A": "plain"}
        assert loads == ["plain"]
    finally:
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()


def as_coroutine(run):
    async def call(*args):
        return run(*args)

    return call


@pytest.fixture
def no_pool():
    """Renewals find no thread: a thread that is blocked has the only one."""
    configure_renewal(threads=1, queued=0)
    clock, hang, begun = FakeClock(), threading.Event(), threading.Event()

    @single_flight_ttl(ttl=60, grace=60, timer=clock)
    def blocker():
        begun.set()
        assert hang.wait(10)

    blocker.put(1)
    clock.advance(60)
    blocker()
    assert begun.wait(10)
    yield
    hang.set()
    configure_renewal()


class Stale:
    """Two stale values, whose loader fails once."""

    def __init__(self, **options):
        self.clock, self.loads, self.fails = FakeClock(), [], [Failed]

        @single_flight_ttl(ttl=60, grace=600, timer=self.clock, key=lambda symbol: symbol, **options)
        def price(symbol):
            raise AssertionError

        @price.bulk
        def prices(symbols):
            self.loads.append(symbols)
            if self.fails:
                raise self.fails.pop()
            return dict.fromkeys(symbols, "new")

        self.price, self.prices = price, prices
        for symbol in "AB":
            price.put("old", symbol)
        self.clock.advance(61)

    def renewed(self):
        """The values are renewed by whoever reads them a moment later."""
        assert unsettled == {}
        assert self.price.flights() == ()
        self.clock.advance(2)
        assert self.prices(["A", "B"]) == {"A": "new", "B": "new"}


@pytest.mark.parametrize("name", ["fail", "close", "renew_in", "call_off"])
def test_a_renewal_in_line_that_cannot_be_ended_is_settled(monkeypatch, no_pool, fault, name):
    """The stale values are served, unless an interrupt strikes, which is its caller's."""
    stale = Stale()
    striking(monkeypatch, Batch, name, fault)
    if name == "call_off":
        striking(monkeypatch, Batch, "renew_in", Failed)
    if fault is Struck:
        with pytest.raises(Struck):
            stale.prices(["A", "B"])
    else:
        assert stale.prices(["A", "B"]) == {"A": "old", "B": "old"}
        if unsettled:
            assert stale.price.stats().entries == 2
    assert stale.price.entry("A").value == "old"
    stale.fails.clear()
    stale.renewed()


def test_renewals_that_could_not_all_be_begun_fail_with_what_struck(monkeypatch, no_pool):
    """The stale values are served, no call is counted, and listeners are told the error."""
    seen = Recorder()
    stale, left = Stale(listener=seen), [1]
    begin = batch.begin_renewal

    def begin_one(*args):
        if not left:
            raise Failed
        left.pop()
        return begin(*args)

    monkeypatch.setattr(batch, "begin_renewal", begin_one)
    assert stale.prices(["A", "B"]) == {"A": "old", "B": "old"}
    assert [(event.key, type(event.error)) for event in seen.of("land")] == [("A", Failed)]
    stats = stale.price.stats()
    assert (stats.calls, stats.refreshes, stats.failures, stale.loads) == (0, 0, 0, [])
    monkeypatch.undo()
    stale.fails.clear()
    stale.renewed()
