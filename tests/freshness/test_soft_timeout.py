"""`soft_timeout`: wait a little for the fresh value, then take the stale one; the renewal goes on."""

import asyncio
import threading
from datetime import timedelta

import pytest

import singleflight
from singleflight import single_flight_ttl
from singleflight.core import coordinator
from singleflight.testing import FakeClock

from ..bulk.conftest import BulkDriver
from ..drivers import InThread, until

LONG = 30  # seconds that no test waits
CALLERS = 4


@pytest.fixture
def stale(source):
    """A function whose value 0 is stale; execution 1 is held at `gate`."""

    def make(*then, **options):
        made = source(**{"ttl": 10, "grace": 100, "soft_timeout": LONG, **options})
        assert made.call() == 0
        made.clock.advance(11)
        made.gate = made.hold(1, *then)
        return made

    return make


def waiting(made, count):
    """Wait until so many callers follow the renewal."""
    until(lambda: sum(flight.followers for flight in made.fetch.flights()) == count)


def test_a_renewal_in_time_is_what_its_callers_get(stale):
    """Callers that find a stale value wait, and share the renewed one; one execution serves them all."""
    made = stale()
    callers = [made.driver.start(made.fetch) for _ in range(CALLERS)]
    waiting(made, CALLERS)
    made.gate.set()
    assert [caller.outcome() for caller in callers] == [1] * CALLERS
    stats = made.fetch.stats()
    assert (stats.waits, stats.stale_hits, stats.calls, stats.refreshes) == (CALLERS, 0, 2, 1)
    assert made.sums()


def test_after_the_soft_timeout_the_stale_value_is_served(stale):
    """A renewal that takes longer goes on; its callers are served the stale value, and it lands later."""
    made = stale(soft_timeout=0.01)
    callers = [made.driver.start(made.fetch) for _ in range(CALLERS)]
    assert [caller.outcome() for caller in callers] == [0] * CALLERS
    assert [flight.kind for flight in made.fetch.flights()] == ["refresh"]
    made.gate.set()
    made.settle()
    assert made.call() == 1
    stats = made.fetch.stats()
    assert (stats.stale_hits, stats.waits, stats.timeouts, stats.calls) == (CALLERS, 0, 0, 2)
    assert made.sums()


def test_a_failed_renewal_serves_the_stale_value(stale):
    """Nobody waits for a second try, nor gets the error: the value that is there is served at once."""
    made = stale(ValueError("down"))
    callers = [made.driver.start(made.fetch) for _ in range(CALLERS)]
    waiting(made, CALLERS)
    made.gate.set()
    assert [caller.outcome() for caller in callers] == [0] * CALLERS
    stats = made.fetch.stats()
    assert (stats.stale_hits, stats.errors, stats.failures) == (CALLERS, 0, 1)
    assert made.sums()
    assert made.call() == 0  # until it is tried again nobody waits
    assert made.executions.begun == 2


def test_without_retries_a_failed_renewal_serves_it_too(stale):
    """The failure that its followers would share is nobody's, whatever `follower_retries` says."""
    made = stale(ValueError("down"), follower_retries=0)
    callers = [made.driver.start(made.fetch) for _ in range(CALLERS)]
    waiting(made, CALLERS)
    made.gate.set()
    assert [caller.outcome() for caller in callers] == [0] * CALLERS
    assert made.fetch.stats().errors == 0
    assert made.sums()


def test_a_wait_timeout_that_is_shorter_serves_it(stale):
    """Where there is a stale value `wait_timeout` raises nothing."""
    made = stale(wait_timeout=0.01)
    assert made.call() == 0
    made.gate.set()
    assert (made.fetch.stats().timeouts, made.fetch.stats().stale_hits) == (0, 1)


def test_a_fresh_value_is_served_at_once(source):
    """Neither a hit nor a renewal ahead of time makes anybody wait."""
    made = source(ttl=10, grace=100, refresh_ahead=0.5, soft_timeout=LONG)
    made.call()
    made.clock.advance(6)
    gate = made.hold(1)
    assert made.call() == 0
    gate.set()


def test_beyond_its_grace_everybody_waits(stale):
    """An expired value is no way out: callers wait for the flight, however long it takes."""
    made = stale(soft_timeout=0.01)
    made.clock.advance(1000)
    caller = made.driver.start(made.fetch)
    made.executions.wait_for(2)
    follower = made.driver.start(made.fetch)
    waiting(made, 1)
    made.gate.set()
    assert (caller.outcome(), follower.outcome()) == (1, 1)


def test_what_was_invalidated_meanwhile_is_not_served(stale):
    """Who waits when the value is dropped gets the outcome of the renewal, and no stale value."""
    made = stale(soft_timeout=0.05)
    caller = made.driver.start(made.fetch)
    waiting(made, 1)
    made.executions.wait_for(2)
    made.fetch.invalidate()
    made.gate.set()
    assert caller.outcome() == 1
    assert made.fetch.entry() is None


def test_what_was_put_meanwhile_is_served(stale):
    """Who gives up waiting finds a value that was put in the meantime."""
    made = stale(soft_timeout=0.05)
    caller = made.driver.start(made.fetch)
    waiting(made, 1)
    made.executions.wait_for(2)
    made.fetch.put("put")
    made.gate.set()
    assert caller.outcome() in (1, "put")  # it is the renewal's follower, or too late for that
    assert made.call() == "put"


def test_refresh_waits_for_its_own(stale):
    """`refresh` wants a new value, and is not served a stale one."""
    made = stale(soft_timeout=0.01)
    caller = made.driver.start(made.fetch.refresh)
    made.executions.wait_for(2)
    made.gate.set()
    assert caller.outcome() == 1


def test_a_function_that_calls_itself_is_served_the_stale_value(driver):
    """A renewal that asks for its own key cannot be waited for, so it is served what is there."""
    clock, seen = FakeClock(), []

    async def fetch():
        if clock() < 10:
            return 0
        seen.append(await fetched())
        return 1

    fetched = driver.decorate(fetch, timer=clock, ttl=10, grace=100, soft_timeout=LONG)
    assert driver.call(fetched) == 0
    clock.advance(11)
    assert driver.call(fetched) == 1
    assert seen == [0]


@pytest.mark.parametrize("turns", [("thread",), (0,), ("thread", 0)], ids=["threads", "tasks", "mixed"])
@pytest.mark.parametrize("soft", [LONG, 0.01])
def test_a_bulk_call_waits_a_little_too(turns, soft):
    """All renewals in one loader call; the answer has the renewed values, or after a while the stale ones."""
    driver, clock, loads = BulkDriver(*turns), FakeClock(), []
    gate = driver.gate()

    async def fetch(key):
        raise AssertionError("not called")

    async def load(keys):
        loads.append("".join(keys))
        if len(loads) == 2:
            await gate
        return {key: f"{key}{len(loads)}" for key in keys}

    fetched = driver.decorate(fetch, key=lambda key: key, timer=clock, ttl=10, grace=100, soft_timeout=soft)
    loader = driver.loader(fetched, load)
    try:
        assert driver.call(loader, ["a", "b"]) == {"a": "a1", "b": "b1"}
        clock.advance(11)
        caller = driver.start(loader, ["a", "b"])
        if soft == LONG:
            until(lambda: sum(flight.followers for flight in fetched.flights()) == 2)
            gate.set()
            assert caller.outcome() == {"a": "a2", "b": "b2"}
        else:
            assert caller.outcome() == {"a": "a1", "b": "b1"}
            gate.set()
            until(lambda: not fetched.flights())
        assert driver.call(loader, ["a", "b"]) == {"a": "a2", "b": "b2"}
        assert loads == ["ab", "ab"]
        stats = fetched.stats()
        six = stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts
        assert six == 6
    finally:
        driver.close()
        assert singleflight.drain_sync(timeout=10)


def test_a_cancelled_caller_disturbs_nobody():
    """A task that is cancelled while it waits softly leaves; the renewal and the others go on."""

    async def main():
        gate, clock, runs = asyncio.Event(), FakeClock(), []

        @single_flight_ttl(ttl=10, grace=100, soft_timeout=LONG, timer=clock)
        async def fetch():
            runs.append(1)
            if len(runs) == 2:
                await gate.wait()
            return len(runs)

        await fetch()
        clock.advance(11)
        first, second = asyncio.ensure_future(fetch()), asyncio.ensure_future(fetch())
        while sum(flight.followers for flight in fetch.flights()) < 2:
            await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.set()
        assert await second == 2
        assert fetch.stats().errors == 1

    asyncio.run(asyncio.wait_for(main(), 10))


def test_an_interrupted_caller_leaves_the_renewal_to_others(monkeypatch):
    """An interrupt before the renewal was handed over calls it off, and the key is free."""
    clock, runs = FakeClock(), []

    @single_flight_ttl(ttl=10, grace=100, soft_timeout=LONG, timer=clock)
    def fetch():
        runs.append(1)
        return len(runs)

    fetch()
    clock.advance(11)

    def struck(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("singleflight.drivers.threads._have_renewed", struck)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    assert fetch.flights() == ()
    done = []
    thread = threading.Thread(target=lambda: done.append(fetch()), daemon=True)
    thread.start()
    thread.join(10)
    assert done == [2]


@pytest.mark.parametrize("bad", [-1, float("nan"), None, True, "1"])
def test_a_bad_soft_timeout_is_named(bad):
    """`soft_timeout` is a number of seconds or a `timedelta`, at least 0, and needs `grace`."""
    with pytest.raises((TypeError, ValueError), match="soft_timeout"):
        single_flight_ttl(ttl=60, grace=60, soft_timeout=bad)(len)
    with pytest.raises(ValueError, match="soft_timeout: needs `grace`"):
        single_flight_ttl(ttl=60, soft_timeout=timedelta(seconds=1))(len)


@pytest.mark.parametrize("outcome", ["a value", "nothing to store", "another error"])
def test_what_lands_before_a_caller_has_left_is_counted_once(monkeypatch, outcome):
    """A renewal failed, and before its caller leaves a refresh takes its place and lands."""
    clock, gate, runs, refreshed = FakeClock(), threading.Event(), [], []

    @single_flight_ttl(ttl=10, grace=100, soft_timeout=LONG, follower_retries=2, timer=clock)
    def fetch():
        runs.append(len(runs))
        if len(runs) == 2:
            assert gate.wait(10)
            raise ValueError("down")
        if len(runs) > 2 and outcome == "another error":
            raise ValueError("no")
        return None if len(runs) > 2 and outcome == "nothing to store" else len(runs)

    leave = coordinator.leave

    def late(cache, call, timed_out):
        if not refreshed:
            refreshed.append(InThread(refresh, ()))
            refreshed[0].outcome()
        return leave(cache, call, timed_out)

    async def refresh():
        return fetch.refresh()

    async def call():
        return fetch()

    assert fetch() == 1
    clock.advance(11)
    monkeypatch.setattr(coordinator, "leave", late)
    caller = InThread(call, ())
    until(lambda: sum(flight.followers for flight in fetch.flights()) == 1)
    gate.set()
    assert caller.outcome() == (3 if outcome == "a value" else 1)
    stats = fetch.stats()
    six = (stats.hits, stats.stale_hits, stats.waits, stats.fetches, stats.errors, stats.timeouts)
    assert sum(six) == 3
    assert min(six) >= 0


@pytest.mark.parametrize("retries", [0, 1])
def test_a_renewal_that_brings_nothing_serves_the_stale_value(stale, retries):
    """A value that `cache_if` refuses is no renewal: whoever waited for it is served what is there."""
    made = stale(None, follower_retries=retries)
    callers = [made.driver.start(made.fetch) for _ in range(CALLERS)]
    waiting(made, CALLERS)
    made.gate.set()
    assert [caller.outcome() for caller in callers] == [0] * CALLERS
    stats = made.fetch.stats()
    assert (stats.stale_hits, stats.waits, stats.errors) == (CALLERS, 0, 0)
    assert made.sums()
