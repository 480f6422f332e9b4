"""Cancelling bulk callers: the batch is spared as long as anybody wants any of it."""

import asyncio
import gc
import threading
import weakref

import pytest

from singleflight import FlightDeadlock, single_flight_ttl
from singleflight.testing import Recorder

from ..drivers import Driver, Executions, LoopThread, until


@pytest.fixture
def driver():
    """Tasks of one loop, and threads where a test starts them."""
    driver = Driver(0)
    try:
        yield driver
    finally:
        driver.close()
    assert driver.reports() == []


class Held:
    def __init__(self, driver, **options):
        self.seen, self.begun, self.cancelled = Recorder(), Executions(), []
        self.gate, self.loads = driver.gate(), []
        max_batch = options.pop("max_batch", None)

        @single_flight_ttl(ttl=60, key=lambda symbol: symbol, listener=self.seen, **options)
        async def price(symbol):
            self.begun.begin()
            await self.gate
            return symbol

        @price.bulk(max_batch=max_batch)
        async def prices(symbols):
            self.loads.append("".join(symbols))
            self.begun.begin()
            try:
                await self.gate
            except asyncio.CancelledError:
                self.cancelled.append("".join(symbols))
                raise
            return {symbol: symbol for symbol in symbols}

        @price.bulk
        def plain(symbols):
            self.gate.pass_()
            return {symbol: symbol for symbol in symbols}

        self.price, self.prices, self.plain = price, prices, plain

    def received(self):
        stats = self.price.stats()
        return stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts


def test_cancelling_the_leader_spares_its_followers(driver):
    """Who called first is cancelled; a bulk and a single caller that joined get what they asked for."""
    held = Held(driver)
    first = driver.start(held.prices, ["A", "B"])
    held.begun.wait_for(1)
    bulk, single = driver.start(held.prices, ["B"]), driver.start(held.price, "A")
    held.seen.wait_for("wait", 2)
    first.cancel()
    assert type(first.outcome()) is asyncio.CancelledError
    held.gate.set()
    assert (bulk.outcome(), single.outcome()) == ({"B": "B"}, "A")
    assert (held.loads, held.cancelled) == (["AB"], [])
    stats = held.price.stats()
    assert (stats.errors, stats.waits, stats.entries, held.received()) == (2, 2, 2, 4)


def test_cancelling_the_only_caller_cancels_the_loader(driver):
    """With nobody left who wants any of its keys the work is cancelled, and the keys are free."""
    held = Held(driver)
    only = driver.start(held.prices, ["A", "B"])
    held.begun.wait_for(1)
    only.cancel()
    assert type(only.outcome()) is asyncio.CancelledError
    until(lambda: held.cancelled == ["AB"])
    until(lambda: not held.price.flights())
    held.gate.set()
    assert driver.call(held.prices, ["A", "B"]) == {"A": "A", "B": "B"}
    assert held.price.stats().errors == 2


def test_the_last_follower_of_any_key_cancels_the_loader(driver):
    """The leader goes, then the follower of one key: that was the last one who wanted anything."""
    held = Held(driver)
    first = driver.start(held.prices, ["A", "B"])
    held.begun.wait_for(1)
    second = driver.start(held.price, "B")
    held.seen.wait_for("wait")
    first.cancel()
    first.outcome()
    assert held.cancelled == []
    second.cancel()
    second.outcome()
    until(lambda: held.cancelled == ["AB"])
    until(lambda: not held.price.flights())


def test_a_newcomer_of_any_key_keeps_the_loader(driver):
    """The leader has gone, one key has a follower: whoever comes for the other joins the same batch."""
    held = Held(driver)
    first = driver.start(held.prices, ["A", "B"])
    held.begun.wait_for(1)
    second = driver.start(held.price, "B")
    held.seen.wait_for("wait")
    first.cancel()
    first.outcome()
    third = driver.start(held.price, "A")
    held.seen.wait_for("wait", 2)
    second.cancel()
    second.outcome()
    held.gate.set()
    assert third.outcome() == "A"
    assert (held.loads, held.cancelled) == (["AB"], [])
    assert held.price.entry("B") is not None


def test_who_comes_while_it_is_being_cancelled_flies_after_it(driver):
    """A loader that takes its time to end keeps its keys; a newcomer waits and then fetches anew."""
    ending, begun, loads = driver.gate(), Executions(), []
    seen = Recorder()

    @single_flight_ttl(ttl=60, key=lambda symbol: symbol, listener=seen)
    async def price(symbol):
        return symbol

    @price.bulk
    async def prices(symbols):
        loads.append(symbols)
        if begun.begin() == 0:
            try:
                await asyncio.sleep(60)
            finally:
                await ending
        return dict.fromkeys(symbols, 1)

    first = driver.start(prices, ["A", "B"])
    begun.wait_for(1)
    first.cancel()
    first.outcome()
    second = driver.start(prices, ["A", "B"])
    seen.wait_for("wait")
    ending.set()
    assert second.outcome() == {"A": 1, "B": 1}
    assert loads == [["A", "B"]] * 2


def test_a_cancelled_follower_leaves_alone(driver):
    """A bulk caller that follows two flights and is cancelled is no more counted with either."""
    held = Held(driver)
    leaders = [driver.start(held.price, symbol) for symbol in "AB"]
    held.begun.wait_for(2)
    follower = driver.start(held.prices, ["A", "B"])
    held.seen.wait_for("wait")
    assert [flight.followers for flight in held.price.flights()] == [1, 1]
    follower.cancel()
    follower.outcome()
    assert [flight.followers for flight in held.price.flights()] == [0, 0]
    held.gate.set()
    assert [leader.outcome() for leader in leaders] == ["A", "B"]
    assert held.price.stats().errors == 2


def test_a_task_that_is_cancelled_before_its_work_began(driver):
    """Cancelled in the same step that it called: nothing is left, and nothing was called."""
    held = Held(driver)

    async def call_and_cancel():
        task = asyncio.ensure_future(held.prices(["A", "B"]))
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.sleep(0)
        return (await asyncio.gather(task, return_exceptions=True))[0]

    assert type(driver.start(call_and_cancel).outcome()) is asyncio.CancelledError
    until(lambda: not held.price.flights())
    stats = held.price.stats()
    assert stats.locks == stats.idle_locks


def test_the_work_cancelled_from_outside_is_an_abort(driver):
    """Somebody cancels every task of the loop's but the callers': who followed flies anew."""
    held = Held(driver)
    first = driver.start(held.prices, ["A", "B"])
    held.begun.wait_for(1)
    second = driver.start(held.prices, ["A", "B"])
    held.seen.wait_for("wait")

    async def strike():
        for task in asyncio.all_tasks():
            if task.get_name() == held.price.cache_parameters()["name"]:
                task.cancel()

    driver.start(strike).outcome()
    assert type(first.outcome()) is asyncio.CancelledError
    held.begun.wait_for(2)
    held.gate.set()
    assert second.outcome() == {"A": "A", "B": "B"}


def test_a_loop_that_dies_frees_the_keys_of_its_batch():
    """The loop of the work is closed in mid-flight: callers in other loops and threads fetch anew."""
    driver = Driver(0)
    held = Held(driver)
    dying = LoopThread()
    dying.start(held.prices, ["A", "B"])
    held.begun.wait_for(1)
    waiting = driver.start(held.prices, ["A", "B"])
    held.seen.wait_for("wait")
    dying.kill()
    held.gate.set()
    assert waiting.outcome() == {"A": "A", "B": "B"}
    assert held.plain(["A", "B"]) == {"A": "A", "B": "B"}
    assert held.loads == ["AB", "AB"]
    driver.close()


def test_a_cycle_through_a_batch_is_found(driver):
    """The caller waits for all of its batch: what the last part asks for cannot wait for that caller."""
    found = []

    @single_flight_ttl(ttl=60)
    async def outer(name):
        return await prices(["A", "B"])

    @single_flight_ttl(ttl=60)
    async def price(symbol):
        return symbol

    @price.bulk(max_batch=1)
    async def prices(symbols):
        if symbols == ["B"]:
            try:
                await outer("x")
            except FlightDeadlock as error:
                found.append(error)
        return {symbol: symbol for symbol in symbols}

    assert driver.call(outer, "x") == {"A": "A", "B": "B"}
    assert len(found) == 1


def test_threads_and_tasks_share_one_batch(driver):
    """A thread's plain loader and a task's coroutine loader join each other's flights."""
    held = Held(driver)
    first = driver.start(held.prices, ["A", "B"])
    held.begun.wait_for(1)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(held.plain(["B", "A"])), daemon=True)
    thread.start()
    held.seen.wait_for("wait")
    held.gate.set()
    thread.join(10)
    assert answers == [{"B": "B", "A": "A"}]
    assert first.outcome() == {"A": "A", "B": "B"}
    assert held.loads == ["AB"]


def test_a_call_that_is_closed_by_hand_leaves_as_one_that_is_cancelled(driver):
    """Its work is stopped if nobody else wants any of it, and goes on if somebody does."""
    held = Held(driver)
    calls = []

    async def begin(symbols):
        calls.append(held.prices(symbols))
        calls[-1].send(None)

    async def close():
        calls.pop(0).close()

    driver.call(begin, ["A", "B"])
    held.begun.wait_for(1)
    driver.call(close)
    until(lambda: held.cancelled == ["AB"])
    until(lambda: not held.price.flights())
    driver.call(begin, ["A", "B"])
    held.begun.wait_for(2)
    follower = driver.start(held.price, "B")
    held.seen.wait_for("wait")
    driver.call(close)
    held.gate.set()
    assert follower.outcome() == "B"
    assert held.loads == ["AB", "AB"]
    assert held.received() == 5


class Refused(Exception):
    pass


def test_a_failed_coroutine_loader_leaves_no_garbage():
    """What a coroutine loader raises does not hang in a cycle with what the call was made of."""
    refs = []

    @single_flight_ttl(ttl=60)
    async def price(symbol):
        return 1

    @price.bulk
    async def prices(symbols):
        raise Refused

    async def call():
        try:
            await prices(["A"])
        except Refused as error:
            refs.append(weakref.ref(error))

    async def calls():
        gc.collect()
        gc.disable()
        try:
            await call()
            await asyncio.sleep(0)
            assert refs[0]() is None
        finally:
            gc.enable()

    asyncio.run(calls())


@pytest.mark.parametrize("how", ["one", "many"])
def test_a_loop_that_makes_no_task_fails_the_call_alone(driver, how):
    """A task factory that raises: its caller is told, nothing was called, the keys are free for others."""
    held = Held(driver)
    held.gate.set()

    def refuse(loop, coroutine, **options):
        raise OSError("no more tasks")

    async def call():
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        loop.set_task_factory(refuse)
        try:
            return await (held.prices(["A", "B"]) if how == "many" else held.price("A"))
        finally:
            loop.set_task_factory(before)

    with pytest.raises(OSError, match="no more tasks"):
        driver.call(call)
    assert held.price.flights() == ()
    stats = held.price.stats()
    assert (stats.fetches, stats.locks, stats.in_flight) == (0, stats.idle_locks, 0)
    if how == "many":
        assert (stats.errors, stats.calls, stats.failures) == (2, 0, 0)
    assert driver.call(held.prices, ["A", "B"]) == {"A": "A", "B": "B"}
    gc.collect()


def test_a_cycle_is_told_to_who_closes_it(driver):
    """A flight awaits a bulk call that waits for A: the leader of A, who then asks for it, is refused."""
    go, told, seen = driver.gate(), [], Recorder()

    @single_flight_ttl(ttl=60, key=lambda symbol: symbol, listener=seen)
    async def price(symbol):
        await go
        try:
            await outer()
        except FlightDeadlock as error:
            told.append(str(error))
        return symbol

    @price.bulk
    async def prices(symbols):
        raise AssertionError

    @single_flight_ttl(ttl=60, key=lambda: "outer")
    async def outer():
        return await asyncio.create_task(prices(["A"]))

    leader = driver.start(price, "A")
    seen.wait_for("fetch")
    waiting = driver.start(outer)
    seen.wait_for("wait")
    go.set()
    assert (leader.outcome(), waiting.outcome()) == ("A", {"A": "A"})
    (message,) = told
    assert "'outer' -> 'A'" in message or "'A' -> 'outer'" in message
