"""Keyed locks: one owner at a time, beside flights and other locks, and nothing is left behind."""

import asyncio
import itertools

import pytest

from singleflight import FlightDeadlock, FlightTimeout, KeyedLocks
from singleflight.testing import Recorder

from ..drivers import PATIENCE, Holding, give_way, until
from ..patience import Patience


def take(locks, *keys, hold=None, note=None, timeout=None):
    """A coroutine function that takes keys, notes it, and holds them until a gate opens."""

    async def run():
        async with Holding(locks, *keys, timeout=timeout):
            if note is not None:
                note()
            if hold is not None:
                await hold
        return "had it"

    return run


@pytest.mark.parametrize("max_idle", [0, 1, None])
def test_a_key_has_one_owner_at_a_time(driver, max_idle):
    """Under contention and eviction an unguarded counter stays exact."""
    locks, counts, start = KeyedLocks(max_idle), [0, 0, 0], driver.gate()

    async def hammer():
        await start
        for number in range(150):
            async with Holding(locks, number % 3):
                before = counts[number % 3]
                locks.evict_idle()
                await give_way()
                counts[number % 3] = before + 1

    driver.start(hammer, count=8)
    start.set()
    assert driver.outcomes() == [None] * 8
    assert counts == [400] * 3
    assert len(locks) == locks.idle


def test_different_keys_do_not_block_one_another(driver):
    """Ten callers hold ten keys at once."""
    locks, together, gate = KeyedLocks(), itertools.count(1), driver.gate()

    async def hold(key):
        async with Holding(locks, key):
            if next(together) == 10:
                gate.set()
            await gate

    for key in range(10):
        driver.start(hold, key)
    assert driver.outcomes() == [None] * 10


def test_several_keys_in_any_order_never_deadlock(driver):
    """Statements that take several keys at once never block each other for ever."""
    locks, inside, wrong, start = KeyedLocks(max_idle=0), dict.fromkeys("abcd", 0), [], driver.gate()

    def enter(keys, change):
        for key in keys:
            inside[key] += change
            if inside[key] not in (0, 1):
                wrong.append(key)

    async def hammer(turn):
        await start
        for number in range(100):
            keys = ["abcd"[(turn + number + step * (1 if turn % 2 else 3)) % 4] for step in range(3)]
            async with Holding(locks, *keys, timeout=PATIENCE):
                enter(keys, 1)
                await give_way()
                enter(keys, -1)

    for turn in range(6):
        driver.start(hammer, turn)
    start.set()
    assert driver.outcomes() == [None] * 6
    assert not wrong
    assert len(locks) == 0


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_a_timeout_leaks_nothing(driver, timeout):
    """FlightTimeout is raised, the queue is as it was, and none of the other keys is held."""
    locks, gate = KeyedLocks(max_idle=0), driver.gate()
    holder = driver.start(take(locks, "a", hold=gate))
    until(lambda: locks.held("a"))
    for keys in ("ba", "ab", "ba", "ab"):
        with pytest.raises(FlightTimeout):
            driver.call(take(locks, *keys, timeout=timeout))
        assert (locks.waiting("a"), locks.held("b")) == (0, False)
    gate.set()
    assert holder.outcome() == "had it"
    assert driver.call(take(locks, "a", timeout=0)) == "had it"
    assert len(locks) == 0


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, asyncio.CancelledError])
def test_an_exception_inside_the_block_releases_the_key(driver, kind):
    """Whatever ends the block, a cancellation included, the key is free."""
    locks = KeyedLocks()

    def end():
        raise kind

    for _ in range(4):
        with pytest.raises(kind):
            driver.call(take(locks, "a", "b", note=end))
        assert not locks.held("a")
        assert not locks.held("b")


def test_taking_a_held_key_again(driver):
    """A caller that takes a key it holds is told; the message names the key."""
    locks = KeyedLocks()

    async def again():
        async with Holding(locks, "a"):
            await take(locks, "b", "a")()

    for _ in range(4):
        with pytest.raises(FlightDeadlock, match="'a' -> 'a'"):
            driver.call(again)
        assert not locks.held("a")
        assert not locks.held("b")


def test_nested_locks_in_opposite_orders(driver):
    """Two callers that nest two keys in opposite orders: one is told, the other gets both."""
    locks, mine = KeyedLocks(), {"a": driver.gate(), "b": driver.gate()}

    async def nest(first, second):
        async with Holding(locks, first):
            mine[first].set()
            await mine[second]
            async with Holding(locks, second):
                return "both"

    driver.start(nest, "a", "b")
    driver.start(nest, "b", "a")
    outcomes = driver.outcomes()
    assert outcomes.count("both") == 1
    assert sum(isinstance(outcome, FlightDeadlock) for outcome in outcomes) == 1
    assert len(locks) == locks.idle


def test_a_held_lock_keeps_flights_out(driver):
    """While fn.locks(key) is held callers wait, and its holder is told; then they make one call together."""
    seen, calls, gate = Recorder(), [], driver.gate()

    async def fetch(key):
        calls.append(key)
        return key

    async def hold():
        async with Holding(fetch.locks, "A"):
            assert await fetch("B") == "B"
            await gate
            with pytest.raises(FlightDeadlock):
                await fetch("A")

    fetch = driver.decorate(fetch, key=lambda key: key, listener=seen)
    holder = driver.start(hold)
    until(lambda: fetch.entry("B"))
    callers = [driver.start(fetch, "A") for _ in range(5)]
    seen.wait_for("wait", 5)
    assert fetch.locks.waiting("A") == 5
    assert calls == ["B"]
    gate.set()
    assert holder.outcome() is None
    assert [caller.outcome() for caller in callers] == ["A"] * 5
    assert calls == ["B", "A"]
    assert fetch.locks.idle == len(fetch.locks) == 2


def test_a_flight_keeps_the_lock_out(driver):
    """While a key is being fetched nobody gets its lock; flights and locks stand in one queue."""
    seen, order, gate = Recorder(), [], driver.gate()

    async def fetch(key):
        await gate
        order.append("flight")
        return key

    fetch = driver.decorate(fetch, key=lambda key: key, listener=seen)
    flight = driver.start(fetch, "A")
    seen.wait_for("fetch")
    for _ in range(4):
        with pytest.raises(FlightTimeout):
            driver.call(take(fetch.locks, "A", timeout=0))
    lock = driver.start(take(fetch.locks, "A", note=lambda: order.append("lock")))
    until(lambda: fetch.locks.waiting("A") == 1)
    gate.set()
    assert (flight.outcome(), lock.outcome()) == ("A", "had it")
    assert order == ["flight", "lock"]
    assert driver.call(take(fetch.locks, "A", timeout=0)) == "had it"


@pytest.mark.parametrize("timeout", [0.25, 7])
def test_no_pause_is_longer_than_the_timeout(driver, monkeypatch, timeout):
    """Who waits for a key looks again when its time is over, and not at the next full second."""
    patience, locks, gate = Patience(monkeypatch), KeyedLocks(), driver.gate()
    holder = driver.start(take(locks, "a", hold=gate))
    until(lambda: locks.held("a"))
    waiting = driver.start(take(locks, "a", "b", timeout=timeout))
    until(lambda: patience.waits)
    assert set(patience.waits) == {timeout}
    gate.set()
    assert (holder.outcome(), waiting.outcome()) == ("had it", "had it")


def test_a_lock_taken_inside_its_own_flight(driver):
    """The function that asks for its own key's lock would wait for itself."""

    async def fetch(key):
        async with Holding(fetch.locks, key):
            return key

    fetch = driver.decorate(fetch, key=lambda key: key)
    for _ in range(4):
        with pytest.raises(FlightDeadlock, match="'A' -> 'A'"):
            driver.call(fetch, "A")
        assert len(fetch.locks) == fetch.locks.idle
