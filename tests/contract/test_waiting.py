"""Nobody waits for ever: re-entry, cycles, and the two timeouts."""

import asyncio
import itertools
import time

import pytest

from singleflight import FlightDeadlock, FlightTimeout
from singleflight.testing import Recorder

from ..drivers import Executions, stubbornly, until
from ..patience import Patience

ABANDONED = 4


def test_asking_for_the_key_being_fetched(driver):
    """A function that asks for its own key gets FlightDeadlock at once, and the key is free after."""

    async def fetch(key):
        return await fetch(key)

    fetch = driver.decorate(fetch, key=lambda key: key)
    for _ in range(2):
        with pytest.raises(FlightDeadlock, match="'A' -> 'A'"):
            driver.call(fetch, "A")
    assert fetch.flights() == ()
    assert fetch.stats().errors == 4
    assert fetch.stats().locks == fetch.stats().idle_locks


@pytest.mark.parametrize("size", [2, 3])
def test_a_cycle_in_one_caller_names_every_key_in_order(driver, size):
    """A asks for B, which asks (for C, which asks) for A: the message goes round, wherever it begins."""
    keys = "ABC"[:size]
    rounds = [" -> ".join(map(repr, keys[start:] + keys[: start + 1])) for start in range(size)]

    async def fetch(key):
        return await fetch(keys[(keys.index(key) + 1) % size])

    fetch = driver.decorate(fetch, key=lambda key: key)
    with pytest.raises(FlightDeadlock, match="|".join(rounds)):
        driver.call(fetch, "A")
    assert fetch.flights() == ()


def test_a_cycle_over_two_callers_is_told_to_one_of_them(driver):
    """Who closes the cycle is told; the one that already waits gets the value once the other gives way."""
    seen, gates, told = Recorder(), {"A": driver.gate(), "B": driver.gate()}, []

    async def fetch(key):
        await gates[key]
        try:
            return key + await fetch("B" if key == "A" else "A")
        except FlightDeadlock as error:
            told.append((key, str(error)))
            return key

    fetch = driver.decorate(fetch, key=lambda key: key, listener=seen)
    driver.start(fetch, "A")
    driver.start(fetch, "B")
    seen.wait_for("fetch", 2)
    gates["A"].set()
    seen.wait_for("wait")
    gates["B"].set()
    assert driver.outcomes() == ["AB", "B"]
    ((key, message),) = told
    assert key == "B"
    assert "'B' -> 'A' -> 'B'" in message


def test_a_cycle_over_two_functions(driver):
    """Cycles are found across functions, and leave every key free."""
    seen, gate, circular = [Recorder(), Recorder()], driver.gate(), [True]

    async def bid():
        await gate
        return await ask() if circular else "bid"

    async def ask():
        await gate
        return await bid() if circular else "ask"

    bid = driver.decorate(bid, key=lambda: "bid", listener=seen[0])
    ask = driver.decorate(ask, key=lambda: "ask", listener=seen[1])
    driver.start(bid)
    driver.start(ask)
    for recorder in seen:
        recorder.wait_for("fetch")
    gate.set()
    outcomes = driver.outcomes()
    assert {type(outcome) for outcome in outcomes} == {FlightDeadlock}
    told = " and ".join(map(str, outcomes))
    assert "'bid' -> 'ask' -> 'bid'" in told or "'ask' -> 'bid' -> 'ask'" in told
    assert bid.flights() == ask.flights() == ()
    circular.clear()
    assert (driver.call(bid), driver.call(ask)) == ("bid", "ask")


def test_many_keys_that_ask_for_one_are_no_cycle(driver):
    """Many keys that ask for one more accuse nobody."""
    seen, gate = Recorder(), driver.gate()

    async def fetch(key):
        if key == "C":
            await gate
            return 1
        return await fetch("C") + 1

    fetch = driver.decorate(fetch, listener=seen)
    for key in range(6):
        driver.start(fetch, key)
    seen.wait_for("wait", 5)
    gate.set()
    assert driver.outcomes() == [2] * 6
    assert seen.count("deadlock") == 0


def test_a_deadlock_is_not_shared_with_followers(driver):
    """A leader that is refused fails alone; its followers call for themselves."""
    seen, gate, numbers = Recorder(), driver.gate(), itertools.count()

    async def fetch(key):
        if next(numbers) == 0:
            await gate
            return await fetch(key)
        return key

    fetch = driver.decorate(fetch, listener=seen, follower_retries=0, key=lambda key: key)
    driver.start(fetch, "A")
    seen.wait_for("fetch")
    driver.start(fetch, "A", count=4)
    seen.wait_for("wait", 4)
    gate.set()
    outcomes = driver.outcomes()
    assert isinstance(outcomes[0], FlightDeadlock)
    assert outcomes[1:] == ["A"] * 4


def test_a_function_that_invalidates_its_own_key_may_ask_for_it(driver):
    """After invalidate from inside, asking for the key is a new flight and no re-entry."""
    numbers = itertools.count()

    async def fetch():
        if next(numbers) == 0:
            fetch.invalidate()
            return await fetch() + 1
        return 10

    fetch = driver.decorate(fetch)
    assert driver.call(fetch) == 11
    assert driver.call(fetch) == 10


def test_wait_timeout_ends_one_caller_alone(driver):
    """A follower whose patience ends gets FlightTimeout; the leader and its value are not disturbed."""
    seen, gate = Recorder(), driver.gate()

    async def fetch():
        await gate
        return 1

    fetch = driver.decorate(fetch, wait_timeout=0.02, listener=seen)
    leader = driver.start(fetch)
    seen.wait_for("fetch")
    for _ in range(4):
        with pytest.raises(TimeoutError, match="waited") as told:
            driver.call(fetch)
        assert type(told.value) is FlightTimeout
    assert fetch.flights()[0].followers == 0
    gate.set()
    assert leader.outcome() == 1
    stats = fetch.stats()
    assert (stats.timeouts, stats.fetches, stats.calls) == (4, 1, 1)
    assert stats.locks == stats.idle_locks
    assert driver.call(fetch) == 1


def test_wait_timeout_zero_never_waits(driver):
    """With a patience of nothing a follower is turned away at once, and takes no retry with it."""
    seen, gate, numbers = Recorder(), driver.gate(), itertools.count()

    async def fetch():
        if next(numbers) == 0:
            await gate
            raise ValueError
        return 1

    fetch = driver.decorate(fetch, wait_timeout=0, listener=seen, max_idle_locks=0)
    leader = driver.start(fetch)
    seen.wait_for("fetch")
    others = [driver.start(fetch) for _ in range(4)]
    assert {type(other.outcome()) for other in others} == {FlightTimeout}
    gate.set()
    assert isinstance(leader.outcome(), ValueError)
    assert len(fetch.locks) == 0
    assert driver.call(fetch) == 1


@pytest.mark.parametrize("wait_timeout", [0.25, 7])
def test_no_pause_is_longer_than_wait_timeout(driver, monkeypatch, wait_timeout):
    """A follower looks again when its patience is over, and not at the next full second."""
    patience, seen, gate = Patience(monkeypatch), Recorder(), driver.gate()

    async def fetch():
        await gate
        return 1

    fetch = driver.decorate(fetch, wait_timeout=wait_timeout, listener=seen)
    driver.start(fetch)
    seen.wait_for("fetch")
    driver.start(fetch, count=3)
    until(lambda: len(patience.waits) == 3)
    assert patience.waits == [wait_timeout] * 3
    gate.set()
    assert driver.outcomes() == [1] * 4


def test_what_is_left_of_the_patience_goes_on_to_the_retry(driver, monkeypatch):
    """The patience is the call's: who waits for a second flight after a first has what is left of it."""
    patience, seen = Patience(monkeypatch), Recorder()
    gates, executions = [driver.gate(), driver.gate()], Executions()

    async def fetch():
        number = executions.begin()
        await gates[number]
        return number or None

    fetch = driver.decorate(fetch, wait_timeout=1000, listener=seen)
    driver.start(fetch)
    executions.wait_for(1)
    driver.start(fetch, count=2)
    seen.wait_for("wait", 2)
    until(lambda: len(patience.waits) == 2)
    patience.advance(300)
    gates[0].set()
    executions.wait_for(2)
    until(lambda: len(patience.waits) == 3)
    assert patience.waits == [1000, 1000, 700]
    gates[1].set()
    assert driver.outcomes() == [None, 1, 1]


def test_who_has_waited_long_enough_is_told_so_and_not_before(driver, monkeypatch):
    """FlightTimeout comes when `wait_timeout` seconds have passed, not a moment earlier."""
    patience, seen, gate = Patience(monkeypatch, look=0.005), Recorder(), driver.gate()

    async def fetch():
        await gate
        return 1

    fetch = driver.decorate(fetch, wait_timeout=1000, listener=seen)
    driver.start(fetch)
    seen.wait_for("fetch")
    follower = driver.start(fetch)
    until(lambda: patience.waits)
    patience.advance(999)
    looked = len(patience.waits)
    until(lambda: len(patience.waits) > looked + 2)
    assert not follower.done()
    patience.advance(1)
    assert isinstance(follower.outcome(), FlightTimeout)


@pytest.fixture
def overdue(driver):
    """A function whose first executions hang at their gates, through cancellations."""

    def make(hanging, **options):
        gates, executions = [driver.gate() for _ in range(hanging)], Executions()

        async def fetch():
            number = executions.begin()
            if number < hanging:
                await stubbornly(gates[number])
            return number

        fetch = driver.decorate(fetch, **{"flight_timeout": 0.05, **options})
        fetch.gates, fetch.executions = gates, executions
        driver.start(fetch)
        executions.wait_for(1)
        return fetch

    return make


def test_an_overdue_leader_loses_the_key(driver, overdue):
    """Its followers move to a new flight together; its late value is its own caller's and is not stored."""
    fetch = overdue(1)
    driver.start(fetch, count=5)
    assert [caller.outcome() for caller in driver.callers[1:]] == [1] * 5
    assert not driver.callers[0].done()
    assert [flight.detached for flight in fetch.flights()] == [True]
    assert fetch.entry().value == 1
    fetch.gates[0].set()
    assert driver.outcomes() == [0] + [1] * 5
    assert fetch.entry().value == 1
    assert driver.call(fetch) == 1
    stats = fetch.stats()
    assert (stats.calls, stats.in_flight, stats.timeouts) == (2, 0, 0)
    assert stats.hits + stats.waits + stats.fetches + stats.errors == 7
    assert fetch.flights() == ()
    assert stats.locks == stats.idle_locks


def test_nobody_needs_to_have_waited_for_an_overdue_flight(driver, overdue):
    """Nobody needs to have waited: who comes after the time leads a new flight."""
    fetch = overdue(1)
    until(lambda: fetch.flights()[0].elapsed > 0.06)
    assert driver.call(fetch) == 1
    fetch.gates[0].set()
    assert driver.outcomes() == [0, 1]
    assert fetch.entry().value == 1


def test_a_flight_that_is_in_time_is_left_alone(driver):
    """Waiters that look at the clock do not disturb a leader with time left."""
    seen, gate = Recorder(), driver.gate()

    async def fetch():
        await gate
        return 1

    fetch = driver.decorate(fetch, flight_timeout=30, listener=seen)
    driver.start(fetch, count=4)
    seen.wait_for("wait", 3)
    gate.set()
    assert driver.outcomes() == [1] * 4
    assert fetch.stats().calls == 1


def test_at_most_four_executions_are_abandoned(driver, overdue):
    """With four abandoned and a fifth overdue newcomers get FlightTimeout; when they end all is well."""
    fetch = overdue(ABANDONED + 1)
    for running in range(2, ABANDONED + 2):
        driver.start(fetch)
        fetch.executions.wait_for(running)
    for _ in range(4):
        with pytest.raises(FlightTimeout):
            driver.call(fetch)
    assert fetch.executions.begun == ABANDONED + 1
    assert fetch.stats().in_flight == ABANDONED + 1
    assert sum(flight.detached for flight in fetch.flights()) == ABANDONED
    assert fetch.entry() is None
    for gate in fetch.gates:
        gate.set()
    first = [caller.outcome() for caller in driver.callers[: ABANDONED + 1]]
    assert first == list(range(ABANDONED + 1))
    assert driver.call(fetch) == fetch.entry().value
    assert fetch.flights() == ()
    stats = fetch.stats()
    assert stats.timeouts == 4
    assert stats.hits + stats.waits + stats.fetches + stats.errors + stats.timeouts == len(driver.callers)


def test_overdue_async_work_is_cancelled(driver):
    """A coroutine that is overdue is cancelled, and its own caller is told; a thread's runs on."""
    gate, executions, cancelled = driver.gate(), Executions(), []

    async def fetch():
        if executions.begin():
            return 1
        try:
            await gate
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return 0

    fetch = driver.decorate(fetch, flight_timeout=0.5)
    leader = driver.start(fetch)
    executions.wait_for(1)
    assert driver.call(fetch) == 1
    if driver.turns[0] == "thread":
        gate.set()
        assert leader.outcome() == 0
        assert not cancelled
    else:
        assert isinstance(leader.outcome(), FlightTimeout | asyncio.CancelledError)
        assert cancelled
    assert fetch.entry().value == 1
    assert fetch.flights() == ()


def test_whoever_waited_is_told_how_long(driver):
    """A share event says for how many seconds this caller waited: no longer than the whole took."""
    seen, gate = Recorder(), driver.gate()

    async def fetch(key):
        await gate
        return key

    fetch = driver.decorate(fetch, listener=seen)
    began = time.monotonic()
    driver.start(fetch, "A")
    seen.wait_for("fetch")
    for _ in range(3):
        driver.start(fetch, "A")
    seen.wait_for("wait", 3)
    waiting = time.monotonic()
    until(lambda: time.monotonic() > waiting)
    least = time.monotonic() - waiting
    gate.set()
    assert driver.outcomes() == ["A"] * 4
    most = time.monotonic() - began
    assert all(least <= event.waited <= most for event in seen.of("share"))
    assert seen.count("share") == 3
