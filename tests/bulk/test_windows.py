"""Windows whose callers are cancelled, interrupted, late or gone; nobody else may notice."""

import asyncio
import functools
import inspect
import os
import pickle
import threading

import pytest

from singleflight import FlightDeadlock, FlightTimeout, drain_sync, single_flight_ttl
from singleflight.drivers import gather_threads
from singleflight.locks.mutex import mutex
from singleflight.locks.waitgraph import below, forget_the_gone, waiting
from singleflight.testing import FakeClock

from ..children import in_child
from ..drivers import Driver, Executions, LoopThread, until

LONG = 30.0


class Desk:
    """A function of both colours with a gathering loader of each; the getters' bodies never run.

    `loads` has what the loaders were asked for; `thread` and `task` start callers whose call is in a window.
    """

    def __init__(self, gather=LONG, max_batch=None, respond=None, **options):
        self.loads, self.begun, self.gates, self.threads = [], Executions(), {}, []
        self.cancelled, self.outcomes = [], {}
        self.died = False  # whether the loop of a loader is gone, with its batch
        self.driver = Driver(0)
        respond = respond or (lambda items: {item: item.upper() for item in items})
        options = {"ttl": 60, "key": lambda symbol: symbol, **options}

        @single_flight_ttl(**options)
        def price(symbol):
            raise AssertionError("the getter's body runs")

        @price.twin
        async def aprice(symbol):
            raise AssertionError("the getter's body runs")

        @price.bulk(gather=gather, max_batch=max_batch)
        def prices(symbols):
            gate = self.enter(symbols)
            if gate is not None:
                gate.pass_()
            return respond(symbols)

        @price.bulk(gather=gather, max_batch=max_batch)
        async def aprices(symbols):
            gate = self.enter(symbols)
            if gate is not None:
                try:
                    await gate
                except asyncio.CancelledError:
                    self.cancelled.append("".join(symbols))
                    raise
            return respond(symbols)

        self.price, self.aprice, self.prices, self.aprices = price, aprice, prices, aprices

    def enter(self, symbols):
        self.loads.append("".join(sorted(symbols)))
        return self.gates.get(self.begun.begin())

    def hold(self, number):
        self.gates[number] = self.driver.gate()
        return self.gates[number]

    def gathered(self):
        return sum(flight.kind == "bulk" for flight in self.price.flights())

    def waits_for(self, count):
        until(lambda: self.gathered() == count)

    def thread(self, symbol, joins=True, call=None):
        """A thread that asks for this."""
        before = self.gathered()

        def run():
            try:
                self.outcomes[symbol] = (call or self.price)(symbol)
            except BaseException as error:
                self.outcomes[symbol] = error

        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()
        if joins:
            self.waits_for(before + 1)
        return thread

    def task(self, symbol, loop=None, joins=True, call=None):
        """A task that asks for this."""
        before = self.gathered()
        started = (loop or self.driver.loops[0]).start(call or self.aprice, symbol)
        if joins:
            self.waits_for(before + 1)
        return started

    async def asks_for_one(self, symbol):
        """A bulk call of a task for this alone."""
        return await self.aprices([symbol])

    def join(self):
        """What the threads got."""
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive(), "a thread hangs"
        return self.outcomes

    def check(self):
        """Nothing is left; every call was counted, and each ended in one way."""
        assert drain_sync(timeout=10)
        assert self.price.flights() == ()
        assert self.died or not self.price._self_cache.batches
        assert not self.price._self_cache.gathering.open
        if self.died:
            forget_the_gone()  # it may have been found gone before it was closed
        assert (waiting, below) == ({}, {})
        stats = self.price.stats()
        assert stats.locks == stats.idle_locks
        assert not mutex._is_owned()
        assert self.driver.reports() == []


@pytest.fixture
def make():
    made = []

    def make(*args, **options):
        made.append(Desk(*args, **options))
        return made[-1]

    yield make
    for desk in made:
        desk.driver.close()
        desk.join()
        desk.check()


def received(desk):
    stats = desk.price.stats()
    return stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts


# -- cancellation --------------------------------------------------------------------------------------


def test_a_cancelled_member_is_not_loaded_for(make):
    """Its key is left out, and the others get theirs."""
    desk = make(max_batch=3)
    first, second = desk.task("a"), desk.task("b")
    second.cancel()
    assert type(second.outcome()) is asyncio.CancelledError
    third = desk.task("c", joins=False)
    assert (first.outcome(), third.outcome()) == ("A", "C")
    assert desk.loads == ["ac"]
    assert received(desk) == 3


def test_a_cancelled_opener_leaves_the_window_to_the_others(make):
    """The window goes on without the caller that opened it."""
    desk = make(max_batch=3)
    first, second = desk.task("a"), desk.task("b")
    first.cancel()
    assert type(first.outcome()) is asyncio.CancelledError
    assert desk.task("c", joins=False).outcome() == "C"
    assert second.outcome() == "B"
    assert desk.loads == ["bc"]
    assert desk.price.entry("a") is None


@pytest.mark.parametrize("in_bulk", [False, True])
def test_followers_keep_the_key_of_a_cancelled_caller(make, in_bulk):
    """Who joined its flight gets what is loaded."""
    desk = make(max_batch=2)
    first = desk.task("a", call=desk.asks_for_one if in_bulk else None)
    follower = desk.driver.loops[0].start(desk.aprice, "a")
    until(lambda: desk.price.flights()[0].followers == 1)
    first.cancel()
    assert type(first.outcome()) is asyncio.CancelledError
    assert desk.task("b", joins=False).outcome() == "B"
    assert follower.outcome() == "A"
    assert desk.loads == ["ab"]


@pytest.mark.parametrize("in_bulk", [False, True])
@pytest.mark.parametrize("drops", [False, True])
def test_a_caller_that_goes_leaves_its_key_to_the_loader(make, in_bulk, drops):
    """Which is running: who comes waits for what it brings; a drop of the key means that, too."""
    desk = make(max_batch=2)
    gate = desk.hold(0)
    first = desk.task("a")
    second = desk.task("b", joins=False, call=desk.asks_for_one if in_bulk else None)
    desk.begun.wait_for(1)
    second.cancel()
    assert type(second.outcome()) is asyncio.CancelledError
    if drops:
        assert desk.price.invalidate("b")
    else:
        comer = desk.driver.loops[0].start(desk.aprice, "b")
        until(lambda: any(flight.followers for flight in desk.price.flights()))
    gate.set()
    assert first.outcome() == "A"
    assert desk.loads == ["ab"]
    if drops:
        assert desk.price.entry("b") is None
    else:
        assert comer.outcome() == "B"
        assert desk.price.entry("b").value == "B"
    assert received(desk) == (2 if drops else 3)


def test_the_last_caller_cancels_the_window(make):
    """With nobody left the loader is not called, and the keys are free."""
    desk = make()
    callers = [desk.task("a"), desk.task("b")]
    for caller in callers:
        caller.cancel()
        assert type(caller.outcome()) is asyncio.CancelledError
    until(lambda: not desk.price.flights())
    assert desk.loads == []
    assert not desk.price._self_cache.gathering.open


def test_the_last_caller_cancels_the_loader(make):
    """The same while the loader runs; a member in a thread keeps it."""
    desk = make(max_batch=2)
    gate = desk.hold(0)
    callers = [desk.task("a"), desk.task("b", joins=False)]
    desk.begun.wait_for(1)
    for caller in callers:
        caller.cancel()
        caller.outcome()
    until(lambda: desk.cancelled)
    gate.set()
    second = desk.hold(1)
    first = desk.task("a")
    desk.thread("b", joins=False)
    desk.begun.wait_for(2)
    first.cancel()
    assert type(first.outcome()) is asyncio.CancelledError
    second.set()
    assert desk.join() == {"b": "B"}
    assert len(desk.cancelled) == 1


def test_a_loader_that_cancels_itself(make):
    """A `CancelledError` out of the loader is its opener's; the others call it anew."""
    fails = [True]

    def respond(items):
        if fails:
            fails.clear()
            raise asyncio.CancelledError
        return {item: item.upper() for item in items}

    desk = make(gather=0.05, max_batch=2, respond=respond)
    first = desk.task("a")
    second = desk.task("b", joins=False)
    assert type(first.outcome()) is asyncio.CancelledError
    assert second.outcome() == "B"
    assert desk.loads == ["ab", "b"]
    assert received(desk) == 2


# -- interrupts ----------------------------------------------------------------------------------------


def test_an_interrupted_loader_is_called_anew(make):
    """The thread that ran the loader gets the `KeyboardInterrupt`; the others share another call."""
    strikes = [True]

    def respond(items):
        if strikes:
            strikes.clear()
            raise KeyboardInterrupt
        return {item: item.upper() for item in items}

    desk = make(gather=1.0, max_batch=3, respond=respond)
    desk.thread("a")
    second = desk.task("b")
    desk.thread("c", joins=False)
    outcomes = desk.join()
    assert (type(outcomes["a"]), outcomes["c"], second.outcome()) == (KeyboardInterrupt, "C", "B")
    assert desk.loads == ["abc", "bc"]
    assert received(desk) == 3


def test_a_window_that_closes_without_its_thread(make):
    """A thread that is interrupted while its window is open leaves it; the others open another."""
    desk = make(gather=0.2)
    cache = desk.price._self_cache

    def interrupted(symbol):
        gathering = cache.gathering
        driver = gathering.driver(False)
        run, calls = driver._run, []

        def strike(window, own):
            desk.thread("b")
            calls.append(window)
            raise KeyboardInterrupt

        driver._run = strike
        try:
            return desk.price(symbol)
        finally:
            driver._run = run

    with pytest.raises(KeyboardInterrupt):
        interrupted("a")
    assert desk.join() == {"b": "B"}
    assert desk.loads == ["b"]
    assert received(desk) == 2


# -- dead loops, forks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("open_still", [True, False])
def test_a_loop_that_dies_with_a_window(make, open_still):
    """Its members in threads and other loops call anew, and so does who asks for what was in it."""
    desk = make(gather=0.2, max_batch=3)
    desk.died = True
    dying = LoopThread()
    gate = desk.hold(0)
    desk.task("a", dying)
    desk.thread("b")
    third = desk.task("c", joins=False)
    if open_still:
        dying.kill()
    else:
        desk.begun.wait_for(1)
        dying.kill()
        gate.set()
    gate.set()
    assert third.outcome() == "C"
    assert desk.join() == {"b": "B"}
    assert [desk.price.entry(symbol).value for symbol in "bc"] == ["B", "C"]
    assert desk.price("a") == "A"  # its only caller is gone: whoever asks for it finds that out


def test_who_comes_to_a_window_of_a_dead_loop(make):
    """A newcomer opens another window, also for a key that was in the old one."""
    desk = make(max_batch=2)
    desk.died = True
    dying = LoopThread()
    desk.task("a", dying)
    dying.kill()
    desk.thread("b")
    assert desk.task("c", joins=False).outcome() == "C"
    desk.thread("a", joins=False)
    assert desk.task("d", joins=False).outcome() == "D"
    assert desk.join() == {"a": "A", "b": "B"}
    assert desk.loads == ["bc", "ad"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_in_a_window(make):
    """The child has no windows and no flights, and opens its own."""
    desk = make(gather=0.3)
    desk.thread("a")

    def ask():
        cache = desk.price._self_cache
        assert (desk.price.flights(), cache.gathering.open) == ((), {})
        assert (desk.price("a"), desk.price("b")) == ("A", "B")

    assert in_child(ask) == "None"
    assert desk.join() == {"a": "A"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_in_a_gathered_loader(make):
    """The frame in the child returns to its caller, for its own key, and stores nothing."""
    told = []
    desk = make(max_batch=2, respond=lambda items: respond(items))

    def respond(items):
        told.append(in_child(lambda: None))
        return {item: item.upper() for item in items}

    desk.thread("a")
    desk.thread("b", joins=False)
    assert desk.join() == {"a": "A", "b": "B"}
    assert told == ["None"]


# -- time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_bulk", [False, True])
def test_a_member_waits_for_so_long(make, in_bulk):
    """`wait_timeout` bounds the wait for another caller's window; the caller that runs it is not bounded."""
    desk = make(max_batch=2, wait_timeout=0.05)
    gate = desk.hold(0)
    desk.thread("a")
    desk.thread("b", joins=False, call=(lambda symbol: desk.prices([symbol])) if in_bulk else None)
    until(lambda: "b" in desk.outcomes)
    assert type(desk.outcomes["b"]) is FlightTimeout
    assert "waited" in str(desk.outcomes["b"])
    assert desk.gathered() == 2  # its key is the window's still
    gate.set()
    assert desk.join()["a"] == "A"
    assert desk.price.entry("b").value == "B"
    stats = desk.price.stats()
    assert (stats.timeouts, stats.fetches, stats.calls) == (1, 1, 1)


def test_a_member_in_a_task_waits_for_so_long(make):
    """The same of tasks."""
    desk = make(max_batch=2, wait_timeout=0.05)
    gate = desk.hold(0)
    first, second = desk.task("a"), desk.task("b", joins=False)
    assert type(second.outcome()) is FlightTimeout
    gate.set()
    assert first.outcome() == "A"
    assert received(desk) == 2


@pytest.mark.parametrize("colour", ["thread", "task"])
def test_a_loader_that_takes_too_long(make, colour):
    """After `flight_timeout` every caller of the window receives `FlightTimeout`; the keys are free."""
    desk = make(max_batch=2, flight_timeout=0.05)
    gate = desk.hold(0)
    if colour == "thread":
        desk.thread("a")
        desk.thread("b", joins=False)
        until(lambda: "b" in desk.outcomes)
        assert type(desk.outcomes["b"]) is FlightTimeout
        gate.set()
        assert desk.join()["a"] == "A"
    else:
        first, second = desk.task("a"), desk.task("b", joins=False)
        assert [type(each.outcome()) for each in (second, first)] == [FlightTimeout] * 2
        gate.set()
    until(lambda: not desk.price.flights())
    assert desk.price.entry("b") is None
    assert received(desk) == 2


def test_the_time_of_a_flight_runs_from_the_loaders_call(make):
    """`flight_timeout` is for the loader, not for the window."""
    desk = make(gather=0.6, flight_timeout=0.5)
    desk.thread("a")
    desk.task("b")
    assert desk.join() == {"a": "A"}


def test_durations_are_the_loaders(make):
    """What `ttl` is told of as the duration leaves out the time in the window."""
    told = []
    desk = make(gather=0.5, ttl=lambda landing: told.append(landing.duration) or 60)
    desk.thread("a")
    desk.join()
    assert told[0] < 0.5


# -- who cannot wait -----------------------------------------------------------------------------------


def test_a_loop_thread_does_not_wait_for_its_own_loop(make):
    """A plain call on the thread of the loop that holds the window runs alone, at once."""
    desk = make(gather=0.3)

    async def scene():
        first = asyncio.ensure_future(desk.aprice("a"))
        while desk.gathered() < 1:
            await asyncio.sleep(0)
        return desk.price("b"), await first

    assert desk.driver.loops[0].run(scene) == ("B", "A")
    assert desk.loads == ["b", "a"]


def test_a_circle_over_a_window_is_refused(make):
    """The loader needs what a member's caller is fetching: it is told, and who waits in the window too."""
    found = []
    desk = make(max_batch=2, respond=lambda items: respond(items))

    @single_flight_ttl(ttl=60)
    def outer(name):
        return desk.price("b")

    def respond(items):
        if "a" in items:
            try:
                outer("x")
            except FlightDeadlock as error:
                found.append(str(error))
        return {item: item.upper() for item in items}

    desk.thread("a")
    desk.thread("x", joins=False, call=outer)
    assert desk.join() == {"a": "A", "x": "B"}
    assert len(found) == 1
    assert "'x'" in found[0]
    assert "'b'" in found[0] or "'a'" in found[0]


def test_a_refused_loader_is_called_by_each_alone(make):
    """A `FlightDeadlock` says nothing about the keys of others: they load by themselves, and at once."""
    desk = make(gather=1.0, max_batch=2, respond=lambda items: respond(items))

    @single_flight_ttl(ttl=60)
    def config(name):
        return desk.price("a")

    def respond(items):
        config("x")
        return {item: item.upper() for item in items}

    desk.thread("x", call=config)
    desk.thread("b", joins=False)
    outcomes = desk.join()
    assert type(outcomes["x"]) is FlightDeadlock
    assert type(outcomes["b"]) is FlightDeadlock or outcomes["b"] == "B"
    assert desk.loads[0] == "ab"


def test_a_line_over_a_window(make):
    """With `max_flights` a circle over the line is refused, though the member waits in a window."""
    desk = make(gather=0.1, max_batch=2, max_flights=1, respond=lambda items: respond(items))

    def respond(items):
        if "a" in items:
            desk.price("c")
        return {item: item.upper() for item in items}

    desk.thread("a")
    desk.thread("b", joins=False)
    outcomes = desk.join()
    assert type(outcomes["a"]) is FlightDeadlock
    assert outcomes["b"] == "B"
    stats = desk.price.stats()
    assert (stats.errors, stats.fetches, received(desk)) == (2, 1, 3)


# -- renewals ------------------------------------------------------------------------------------------


class FullPool:
    """Keeps what is to be renewed, until it is told to go on; or refuses it."""

    def __init__(self, monkeypatch, refuses=False):
        self.jobs, self.refuses = [], refuses
        monkeypatch.setattr(gather_threads, "in_background", self.take)

    def take(self, run):
        if not self.refuses:
            self.jobs.append(run)
        return not self.refuses


def stale(make, *symbols, **options):
    clock = FakeClock()
    desk = make(ttl=60, grace=600, timer=clock, **options)
    for symbol in symbols:
        desk.price.put(f"old {symbol}", symbol)
    clock.advance(60)
    return desk


def test_renewals_of_both_colours_wait_for_a_thread(make, monkeypatch):
    """Who finds stale values while no thread of the pool is free adds to the window that waits for one."""
    pool = FullPool(monkeypatch)
    desk = stale(make, "a", "b", max_batch=2)
    assert desk.price("a") == "old a"
    assert desk.task("b").outcome() == "old b"
    (run,) = pool.jobs
    run()
    assert desk.loads == ["ab"]
    assert desk.price.stats().refreshes == 1


def test_a_caller_does_not_wait_for_the_pool(make, monkeypatch):
    """Who needs a value runs the window that waits for a thread, and its renewals."""
    pool = FullPool(monkeypatch)
    desk = stale(make, "a", gather=0.05)
    assert desk.price("a") == "old a"
    assert desk.price("c") == "C"
    assert desk.loads == ["ac"]
    (run,) = pool.jobs
    run()
    assert desk.loads == ["ac"]
    assert desk.price.entry("a").value == "A"


def test_a_task_does_not_wait_for_the_pool(make, monkeypatch):
    """The same of a task, which runs it with its own loader."""
    pool = FullPool(monkeypatch)
    desk = stale(make, "a", gather=0.05)
    assert desk.price("a") == "old a"
    assert desk.task("c", joins=False).outcome() == "C"
    assert desk.loads == ["ac"]
    assert len(pool.jobs) == 1


def test_a_renewal_that_is_needed_or_dropped_meanwhile(make, monkeypatch):
    """What was invalidated is not renewed, and what was asked for is its caller's."""
    pool = FullPool(monkeypatch)
    desk = stale(make, "a", "b", gather=0.05)
    assert [desk.price(symbol) for symbol in "ab"] == ["old a", "old b"]
    desk.price.invalidate("a")
    assert desk.price.refresh("b") == "B"
    (run,) = pool.jobs
    run()
    assert desk.loads == ["b"]
    assert desk.price.flights() == ()


def test_a_pool_without_room(make, monkeypatch):
    """The caller renews its value itself, after the window, and gets the new one."""
    FullPool(monkeypatch, refuses=True)
    desk = stale(make, "a", gather=0.05)
    assert desk.price("a") == "A"
    assert desk.loads == ["a"]


# -- what is decorated ---------------------------------------------------------------------------------


class Account:
    def __init__(self, number):
        self.number, self.loads = number, []

    @single_flight_ttl(ttl=60)
    def price(self, symbol, kind="bid"):
        return self.prices.__wrapped__([symbol], kind).get(symbol)

    @price.bulk(gather=LONG, max_batch=2)
    def prices(self, symbols, kind="bid"):
        self.loads.append(sorted(symbols))
        return {symbol: (self.number, symbol, kind) for symbol in symbols}

    @classmethod
    def reset(cls):
        cls.asked = []

    @single_flight_ttl(ttl=60)
    @classmethod
    def rate(cls, currency):
        raise AssertionError

    @rate.bulk(gather=LONG, max_batch=2)
    @classmethod
    def rates(cls, currencies):
        cls.asked.append(sorted(currencies))
        return {currency: (cls.__name__, currency) for currency in currencies}

    @single_flight_ttl(ttl=60)
    @staticmethod
    def name(symbol):
        raise AssertionError

    @name.bulk(gather=LONG, max_batch=2)
    @staticmethod
    def names(symbols):
        return {symbol: symbol.lower() for symbol in symbols}


class Other(Account):
    pass


def together(*calls):
    outcomes = {}

    def run(place, call):
        outcomes[place] = call()

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a thread hangs"
    return [outcomes[place] for place in range(len(calls))]


def test_methods():
    """An instance's calls are gathered, bound or not, and not with another instance's."""
    one, two = Account(1), Account(2)
    got = together(
        lambda: one.price("A"),
        lambda: two.price("A"),
        lambda: Account.price(one, symbol="B"),
        lambda: two.price("B", kind="bid"),
    )
    assert got == [(1, "A", "bid"), (2, "A", "bid"), (1, "B", "bid"), (2, "B", "bid")]
    assert (one.loads, two.loads) == ([["A", "B"]], [["A", "B"]])
    with Account.price.bypass():
        assert one.price("A", "ask") == (1, "A", "ask")


def test_class_and_static_methods():
    """A class has its own windows, and a static method has one for all."""
    Account.reset(), Other.reset()
    got = together(
        lambda: Account.rate("EUR"),
        lambda: Other.rate("EUR"),
        lambda: Account(1).rate("USD"),
        lambda: Other.rate("USD"),
    )
    assert got == [("Account", "EUR"), ("Other", "EUR"), ("Account", "USD"), ("Other", "USD")]
    assert (Account.asked, Other.asked) == ([["EUR", "USD"]], [["EUR", "USD"]])
    assert together(lambda: Account.name("A"), lambda: Account(1).name("B")) == ["a", "b"]


class Binding:
    """A decorator of one's own: its function is called once it is bound, and not otherwise."""

    def __init__(self, function):
        functools.update_wrapper(self, function)

    def __get__(self, instance, owner):
        assert owner is type(instance)
        return functools.partial(self.__wrapped__, instance)

    def __call__(self, *args):
        raise AssertionError("it is not bound")


class Called:
    """An object that is called, which no class binds."""

    def __init__(self, function):
        self.function = function

    def __call__(self, owner, items):
        return self.function(owner, items)


def of_class(function):
    """An object that is called with the class."""
    return classmethod(Called(function))


def of_another(function):
    """A method that has its instance already."""
    return Called(function).__call__


@pytest.mark.parametrize(
    ("kind", "is_of_class"),
    [
        (lambda load: load, False),
        (Binding, False),
        (Called, False),
        (of_another, False),
        (classmethod, True),
        (of_class, True),
    ],
    ids=["function", "decorator", "object", "method of another", "class method", "object of the class"],
)
@pytest.mark.parametrize("bound", [False, True])
def test_a_loader_is_bound_for_single_calls_as_its_class_would_bind_it(kind, is_of_class, bound):
    """Through a decorator that has to be bound, too; what no class binds gets the instance first."""

    def load(owner, symbols):
        return {symbol: (owner, symbol) for symbol in symbols}

    def get(self, symbol):
        raise AssertionError

    class Account:
        price = single_flight_ttl(ttl=60)(classmethod(get) if is_of_class else get)
        prices = price.bulk(kind(load), gather=0.001)

    account = Account()
    if is_of_class:
        assert (account if bound else Account).price("A") == (Account, "A")
    else:
        assert (account.price("A") if bound else Account.price(account, "A")) == (account, "A")


@pytest.mark.parametrize("bound", [False, True])
def test_a_call_without_an_item_is_not_gathered(bound):
    """What is given by name to a parameter that is only known so is no item: the function is run."""
    loads = []

    @single_flight_ttl(ttl=60)
    def price(*args, kind="bid"):
        return len(args), kind

    @price.bulk(gather=0.001)
    def prices(*args, kind="bid"):
        loads.append((args, kind))
        return dict.fromkeys(args[-1], "bulk")

    class Owner:
        pass

    Owner.price = price
    call = Owner().price if bound else price
    assert call(kind="ask") == (int(bound), "ask")
    assert loads == []
    assert call("A", kind="ask") == "bulk"
    assert loads == [((*loads[0][0][:-1], ["A"]), "ask")]


def passing_on(function):
    """A decorator whose wrapper takes anything, and shows the function's parameters."""
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run(*args, **kwargs):
            return await function(*args, **kwargs)

    else:

        @functools.wraps(function)
        def run(*args, **kwargs):
            return function(*args, **kwargs)

    return run


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_a_wrapper_is_given_by_name_is_gathered(wrapped):
    """The loader may have other names for the same parameters, as for what is given by place."""
    loads = []

    @single_flight_ttl(ttl=60)
    @passing_on
    def price(symbol, kind="bid"):
        raise AssertionError

    def load(symbols, sort="bid"):
        loads.append((sorted(symbols), sort))
        return {symbol: (symbol, sort) for symbol in symbols}

    price.bulk(passing_on(load) if wrapped else load, gather=LONG, max_batch=3)
    got = together(
        lambda: price("A", "ask"),
        lambda: price(symbol="B", kind="ask"),
        lambda: price("C", kind="ask"),
    )
    assert got == [("A", "ask"), ("B", "ask"), ("C", "ask")]
    assert together(lambda: price("A"), lambda: price(symbol="B"), lambda: price("C", "bid")) == [
        ("A", "bid"),
        ("B", "bid"),
        ("C", "bid"),
    ]
    assert loads == [(["A", "B", "C"], "ask"), (["A", "B", "C"], "bid")]


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_a_wrapper_is_not_given_is_the_default(wrapped):
    """Given by place, by name or left out it is the same, also where another one is left out."""
    loads = []

    @single_flight_ttl(ttl=60)
    @passing_on
    def price(symbol, kind="bid", *, depth=1):
        raise AssertionError

    def load(symbols, kind="bid", *, depth=1):
        loads.append(sorted(symbols))
        return {symbol: (symbol, kind, depth) for symbol in symbols}

    price.bulk(passing_on(load) if wrapped else load, gather=LONG, max_batch=4)
    got = together(
        lambda: price("A"),
        lambda: price("B", "bid"),
        lambda: price("C", kind="bid", depth=1),
        lambda: price(symbol="D", depth=1),
    )
    assert got == [(symbol, "bid", 1) for symbol in "ABCD"]
    assert loads == [["A", "B", "C", "D"]]


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_item_may_have_a_default(wrapped):
    """An item that is given is none, so what a call leaves out behind it is known."""
    loads = []

    @single_flight_ttl(ttl=60)
    @passing_on
    def price(symbol=None, kind="bid"):
        raise AssertionError

    def load(symbols=None, kind="bid"):
        loads.append(sorted(symbols))
        return {symbol: (symbol, kind) for symbol in symbols}

    price.bulk(passing_on(load) if wrapped else load, gather=LONG, max_batch=2)
    assert together(lambda: price("A"), lambda: price("B", kind="bid")) == [("A", "bid"), ("B", "bid")]
    assert loads == [["A", "B"]]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_wrapped_twin_may_have_names_of_its_own(wrapped):
    """A call of it is gathered whatever it calls its parameters, and what comes unasked is stored."""
    loads = []

    @single_flight_ttl(ttl=60)
    @passing_on
    def price(symbol, kind="bid"):
        raise AssertionError

    @price.twin
    @passing_on
    async def aprice(ticker, side="bid"):
        raise AssertionError

    async def load(symbols, sort="bid"):
        loads.append((symbols, sort))
        return {symbol: (symbol, sort) for symbol in [*symbols, "X"]}

    price.bulk(passing_on(load) if wrapped else load, gather=0.001)
    assert asyncio.run(aprice(ticker="A", side="ask")) == ("A", "ask")
    assert loads == [(["A"], "ask")]
    assert asyncio.run(aprice(ticker="X", side="ask")) == price(symbol="X", kind="ask") == ("X", "ask")
    assert len(loads) == 1


def test_a_wrapped_twin_may_have_more_parameters():
    """With a `key` that leaves them out; the loader receives what both have."""
    loads = []

    @single_flight_ttl(ttl=60, key=lambda symbol, kind="bid", session=None: (symbol, kind))
    @passing_on
    def price(symbol, kind="bid"):
        raise AssertionError

    @price.twin
    @passing_on
    def other(ticker, side="bid", session=None):
        raise AssertionError

    @price.bulk(gather=0.001)
    def prices(symbols, sort="bid"):
        loads.append((symbols, sort))
        return dict.fromkeys(symbols, sort)

    assert other(ticker="A", side="ask") == "ask"
    assert other("B", side="ask") == "ask"
    assert loads == [(["A"], "ask"), (["B"], "ask")]


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_only_has_the_name_of_a_parameter_is_neither_the_item_nor_renamed(wrapped):
    """A parameter that can be given by place alone leaves its name to what `**more` collects."""
    loads = []

    @single_flight_ttl(ttl=60)
    @passing_on
    def price(symbol="all", kind="bid", /, **more):
        return symbol, kind, more

    def load(symbols, sort="bid", /, **more):
        loads.append(symbols)
        return {symbol: (symbol, sort, more) for symbol in [*symbols, "X"]}

    price.bulk(passing_on(load) if wrapped else load, gather=0.001)
    assert price("A", kind="ask") == ("A", "bid", {"kind": "ask"})
    assert price("X", kind="ask") == ("X", "bid", {"kind": "ask"})
    assert price(symbol="A") == ("all", "bid", {"symbol": "A"})
    assert loads == [["A"]]


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_is_given_by_name_is_not_the_item_that_is_missing(wrapped):
    """The function is run, and raises."""
    loads = []

    @single_flight_ttl(ttl=60)
    @passing_on
    def price(symbol, kind="bid"):
        raise AssertionError

    def load(symbols, kind="bid"):
        loads.append(symbols)
        return {}

    price.bulk(passing_on(load) if wrapped else load, gather=0.001)
    with pytest.raises(TypeError, match=r"price\(\) missing 1 required positional argument: 'symbol'"):
        price(kind="ask")
    assert loads == []


def test_a_loader_that_stands_in_no_order_gets_the_words_as_they_came():
    """Where a wrapper shows other parameters than it takes, no names are compared by place."""
    loads = []

    def with_session(function):
        @functools.wraps(function)
        def run(*args, **kwargs):
            return function("session", *args, **kwargs)

        return run

    @single_flight_ttl(ttl=60)
    @with_session
    def price(session, symbol, side="bid"):
        raise AssertionError

    @price.bulk(gather=0.001)
    def prices(symbols, side="bid", kind="all"):
        loads.append((symbols, side, kind))
        return dict.fromkeys(symbols, side)

    assert price("A", side="ask") == "ask"
    assert loads == [(["A"], "ask", "all")]


@pytest.mark.parametrize("in_bulk", [False, True])
def test_a_default_that_a_wrapper_may_have_moved_tells_windows_apart(in_bulk):
    """Behind an argument that is put in front the same value may be that of another parameter."""
    loads = []

    def with_session(function):
        @functools.wraps(function)
        def run(*args, **kwargs):
            return function("session", *args, **kwargs)

        return run

    @single_flight_ttl(ttl=60)
    @with_session
    def page(session, symbol, limit=10, offset=0):
        raise AssertionError

    @page.bulk(gather=LONG, max_batch=2)
    @with_session
    def pages(session, symbols, limit=10, offset=0):
        loads.append((sorted(symbols), limit, offset))
        return {symbol: (symbol, limit, offset) for symbol in symbols}

    def ask(symbol, *args):
        return pages([symbol], *args)[symbol] if in_bulk else page(symbol, *args)

    calls = [("A", 10), ("A", 10, 10), ("B", 10), ("B", 10, 10)]
    got = together(*(functools.partial(ask, *each) for each in calls))
    assert got == [("A", 10, 0), ("A", 10, 10), ("B", 10, 0), ("B", 10, 10)]
    assert sorted(loads) == [(["A", "B"], 10, 0), (["A", "B"], 10, 10)]


@pytest.mark.parametrize("kind", ["bid", "ask"])
def test_what_can_only_be_given_by_name_tells_windows_apart(kind):
    """In single calls and in bulk calls for one key."""
    loads = []

    @single_flight_ttl(ttl=60)
    def price(symbol, *, kind):
        raise AssertionError

    @price.bulk(gather=LONG, max_batch=2)
    def prices(symbols, *, kind):
        loads.append((sorted(symbols), kind))
        return dict.fromkeys(symbols, kind)

    other = {"bid": "ask", "ask": "bid"}[kind]
    got = together(
        lambda: price("A", kind=kind),
        lambda: prices(["A"], kind=other),
        lambda: prices(["B"], kind=kind),
        lambda: price("B", kind=other),
    )
    assert got == [kind, {"A": other}, {"B": kind}, other]
    assert sorted(loads) == [(["A", "B"], "ask"), (["A", "B"], "bid")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (([("kind", "bid")], {}), ([], {"kind": "bid"})),
        (([], {"kind": 1}), ([], {"kind": True})),
        (([(1,)], {}), ([(True,)], {})),
    ],
    ids=["by place and by name", "types by name", "types in a tuple"],
)
def test_calls_whose_other_arguments_make_other_keys_are_not_gathered(one, other):
    """A pair that is given by place is nothing given by name; what is equal may be of another type."""
    loads = []

    @single_flight_ttl(ttl=60, key=lambda *args, **words: repr((args, words)))
    def price(symbol, *rest, **more):
        raise AssertionError

    @price.bulk(gather=LONG, max_batch=2)
    def prices(symbols, *rest, **more):
        loads.append(sorted(symbols))
        return {symbol: repr((symbol, rest, more)) for symbol in symbols}

    calls = [(symbol, args, words) for symbol in "AB" for args, words in (one, other)]
    got = together(*(lambda c=each: price(c[0], *c[1], **c[2]) for each in calls))
    assert got == [repr((symbol, tuple(args), words)) for symbol, args, words in calls]
    assert loads == [["A", "B"]] * 2


def test_a_default_that_a_wrapped_loader_has_otherwise_costs_no_value():
    """What is left out is the loader's default then, whichever call of a window opens it."""
    loads = []

    @single_flight_ttl(ttl=60)
    @passing_on
    def price(symbol, kind="bid"):
        raise AssertionError

    @price.bulk(gather=LONG, max_batch=2)
    def prices(symbols, sort="all"):
        loads.append(sorted(symbols))
        return {symbol: (symbol, sort) for symbol in symbols}

    assert together(lambda: price("A"), lambda: price("B", "all")) == [("A", "all"), ("B", "all")]
    assert loads == [["A", "B"]]


@pytest.mark.parametrize("options", [{"typed": True}, {"key": repr}], ids=["typed", "own key"])
@pytest.mark.parametrize("in_bulk", [False, True])
def test_equal_items_of_different_types_are_not_gathered(options, in_bulk):
    """The loader could answer for one of them alone, as a mapping has one place for both."""
    loads = []

    @single_flight_ttl(ttl=60, **options)
    def price(symbol):
        raise AssertionError

    @price.bulk(gather=LONG, max_batch=2)
    def prices(symbols):
        loads.append(sorted(map(repr, symbols)))
        return {symbol: repr(symbol) for symbol in symbols}

    def ask(symbol):
        return prices([symbol])[symbol] if in_bulk else price(symbol)

    symbols = 1, True, 2, False
    assert together(*(functools.partial(ask, symbol) for symbol in symbols)) == ["1", "True", "2", "False"]
    assert sorted(loads) == [["1", "2"], ["False", "True"]]


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_instance_that_is_given_by_name_is_not_the_item(wrapped):
    """A wrapper takes it so; the loader receives it as it always does."""

    def load(self, symbols, sort="bid"):
        return {symbol: (self, symbol, sort) for symbol in symbols}

    class Account:
        @single_flight_ttl(ttl=60)
        @passing_on
        def price(self, symbol, kind="bid"):
            raise AssertionError

        prices = price.bulk(passing_on(load) if wrapped else load, gather=0.001)

    account = Account()
    assert Account.price(self=account, symbol="A", kind="ask") == (account, "A", "ask")
    assert Account.price(account, symbol="B") == (account, "B", "bid")
    assert account.price(symbol="C") == (account, "C", "bid")


@pytest.mark.parametrize("known", ["from the loader", "bound for another class", "bound by hand"])
def test_an_instance_that_no_class_has_shown_is_not_the_item(known):
    """A decorator above has bound the function to it, or the loader says so; what comes unasked is found."""
    loads = []

    @single_flight_ttl(ttl=60)
    def price(account, symbol):
        raise AssertionError

    def load(account, symbols):
        loads.append((account, symbols))
        return {symbol: (account, symbol) for symbol in [*symbols, "X"]}

    def load_of(self, symbols):
        return load(self, symbols)

    price.bulk(load_of if known == "from the loader" else load, gather=0.001)

    class Other:
        pass

    class Account:
        pass

    account = Account()
    if known == "from the loader":
        call = functools.partial(price, account)
    elif known == "bound by hand":
        call = price.__get__(account)
    else:
        Other.price = Account.price = functools.partialmethod(price)
        assert callable(Other().price)  # the first class that it is found on is known
        call = account.price
    assert (call("A"), call("X")) == ((account, "A"), (account, "X"))
    assert loads == [(account, ["A"])]


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_the_loader_would_be_given_twice_is_refused(wrapped):
    """By the name that the function has for it, and by its own: the error is Python's."""
    loads = []

    @single_flight_ttl(ttl=60)
    @passing_on
    def price(symbol, kind="bid", **more):
        raise AssertionError

    def load(symbols, sort="bid", **more):
        loads.append(symbols)
        return {}

    price.bulk(passing_on(load) if wrapped else load, gather=0.001)
    with pytest.raises(TypeError, match="multiple values for keyword argument 'sort'"):
        price("A", kind="ask", sort="bid")
    assert (loads, price.flights()) == ([], ())


def test_arguments_that_cannot_be_hashed():
    """What the key leaves out may be anything: calls with the same object are gathered."""
    loads = []

    @single_flight_ttl(ttl=60, ignore="session")
    def price(symbol, session):
        raise AssertionError

    @price.bulk(gather=LONG, max_batch=2)
    def prices(symbols, session):
        loads.append((sorted(symbols), session))
        return dict.fromkeys(symbols, 1)

    session: list[int] = []
    assert together(lambda: price("a", session), lambda: price("b", session=session)) == [1, 1]
    assert loads == [(["a", "b"], session)]


def test_loops_share_a_window(make):
    """Tasks of several loops and threads are loaded by one call."""
    desk = make(max_batch=4)
    other = LoopThread()
    try:
        callers = [desk.task("a"), desk.task("b", other)]
        desk.thread("c")
        callers.append(desk.task("d", other, joins=False))
        assert [caller.outcome() for caller in callers] == ["A", "B", "D"]
        assert desk.join() == {"c": "C"}
        assert desk.loads == ["abcd"]
    finally:
        other.close()


def test_the_loops_task_factory_fails(make):
    """Its caller is told, nothing is called, and the window is gone."""
    desk = make(gather=0.05)

    def refuse(loop, coroutine, **options):
        coroutine.close()
        raise OSError("no more tasks")

    async def call():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(refuse)
        try:
            return await desk.aprice("a")
        finally:
            loop.set_task_factory(None)

    with pytest.raises(OSError, match="no more tasks"):
        desk.driver.loops[0].run(call)
    assert (desk.loads, received(desk)) == ([], 1)
    assert desk.task("a", joins=False).outcome() == "A"


def test_eager_tasks(make):
    """Where tasks start at once a window is open for its time all the same."""
    if not hasattr(asyncio, "eager_task_factory"):
        pytest.skip("needs eager tasks")
    desk = make(max_batch=2)

    async def calls():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        try:
            return await asyncio.gather(desk.aprice("a"), desk.aprice("b"))
        finally:
            asyncio.get_running_loop().set_task_factory(None)

    assert desk.driver.loops[0].run(calls) == ["A", "B"]
    assert desk.loads == ["ab"]


# -- switches ------------------------------------------------------------------------------------------


def test_nothing_is_gathered_where_calls_are_direct(monkeypatch):
    """Under `bypass()` and with the library switched off each call runs its own function."""
    loads = []

    @single_flight_ttl(ttl=60)
    def price(symbol):
        return prices.__wrapped__([symbol])[symbol]

    @price.bulk(gather=LONG)
    def prices(symbols):
        loads.append(symbols)
        return dict.fromkeys(symbols, 1)

    with price.bypass():
        assert (price("a"), prices(["b"])) == (1, {"b": 1})
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")
    assert (price("a"), prices(["b"])) == (1, {"b": 1})
    assert loads == [["a"], ["b"], ["a"], ["b"]]


@single_flight_ttl(ttl=60)
def sent(symbol):
    raise AssertionError


@sent.bulk(gather=0.25, max_batch=7)
def sent_many(symbols):
    return {}


def test_a_loader_says_its_window():
    """`gather` is an attribute of the loader, bound or not, and goes with it by reference."""
    assert pickle.loads(pickle.dumps(sent_many)) is sent_many
    assert (sent_many.gather, sent_many.max_batch) == (0.25, 7)
    assert (Account.prices.gather, Account(1).prices.gather) == (LONG, LONG)


def test_a_loader_that_is_sent_by_value_gathers_there():
    """Taken apart and put together anew, as `cloudpickle` does, it has the same window."""
    cloudpickle = pytest.importorskip("cloudpickle")

    @single_flight_ttl(ttl=60)
    def price(symbol):
        raise AssertionError

    @price.bulk(gather=0.5)
    def prices(symbols):
        return dict.fromkeys(symbols, 1)

    arrived = in_child(lambda: pickle.loads(cloudpickle.dumps(prices)).gather)
    assert arrived == "0.5"


def test_a_window_is_paid_by_nobody_else():
    """A function without a gathering loader knows of no windows."""

    @single_flight_ttl(ttl=60)
    def price(symbol):
        return 1

    @price.bulk
    def prices(symbols):
        return {}

    assert price._self_cache.is_direct
    assert price._self_cache.gathering is None
