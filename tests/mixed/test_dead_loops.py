"""A loop that is gone in the midst of something: whoever waits elsewhere notices within a second."""

import asyncio
import threading

import pytest

import singleflight
from singleflight import KeyedLocks, single_flight_ttl
from singleflight.locks.task_waiters import is_gone
from singleflight.locks.waitgraph import below, waiting
from singleflight.testing import FakeClock, Recorder

from ..drivers import Executions, InThread, LoopThread, stubbornly, until

SOON = 5.0  # seconds: what is noticed within one must be over by then, also on a busy machine


def held(executions, gate):
    """A body whose first execution waits at a gate."""

    async def body():
        number = executions.begin()
        if number == 0:
            await gate
        return number

    return body


@pytest.mark.parametrize("then", ["the loop is closed", "it takes too long"])
def test_who_follows_where_somebody_drains_already(loops, make_gate, then):
    """The first to wait on a loop is `drain`, which looks at nothing; a follower beside it has to."""
    gate, executions, seen = make_gate(), Executions(), Recorder()
    timeout = 0.2 if then == "it takes too long" else None
    coroutine = single_flight_ttl(
        held(executions, gate), ttl=60, key=lambda: "k", listener=seen, flight_timeout=timeout
    )
    dying, alive = loops(), loops()
    dying.start(coroutine)
    executions.wait_for(1)
    draining = alive.start(singleflight.drain)
    (slot,) = coroutine.locks.live()
    until(lambda: slot.turn.latch is not None and slot.turn.latch.groups)
    follower = alive.start(coroutine)
    seen.wait_for("wait")
    if timeout is None:
        dying.kill()
    assert follower.outcome(SOON) == 1
    gate.set()
    assert draining.outcome() is True


@pytest.mark.parametrize("held_when", ["it comes", "it waits"])
def test_a_task_that_asks_behind_a_dead_hold(loops, make_gate, held_when):
    """A keyed lock that a task of a closed loop held is given up for followers that are tasks, too."""
    gate, executions, seen, entered = make_gate(), Executions(), Recorder(), threading.Event()
    executions.begin()  # none of them waits
    coroutine = single_flight_ttl(held(executions, gate), ttl=60, key=lambda: "k", listener=seen)
    dying, alive = loops(), loops()

    async def hold():
        async with coroutine.locks("k"):
            entered.set()
            await gate

    dying.start(hold)
    assert entered.wait(SOON)
    if held_when == "it comes":
        dying.kill()
        asking = alive.start(coroutine)
    else:
        asking = alive.start(coroutine)
        seen.wait_for("wait")
        dying.kill()
    assert asking.outcome(SOON) == 1


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "stopped"])
def test_a_lock_behind_callers_that_are_gone(loops, make_gate, closed):
    """A hold that queues behind callers of a dead loop gets the key that they cannot take."""
    gate, executions, seen = make_gate(), Executions(), Recorder()
    coroutine = single_flight_ttl(held(executions, gate), ttl=60, key=lambda: "k", listener=seen)
    locks, dying = coroutine.locks, loops()

    async def hold():
        with locks("k"):
            await gate

    async def take():
        with locks("k", timeout=SOON):
            return "had it"

    holder = InThread(hold, ())
    until(lambda: locks.held("k"))
    dying.start(coroutine)
    seen.wait_for("wait")
    behind = InThread(take, ())
    until(lambda: locks.waiting("k") == 2)
    if closed:
        dying.kill()
    else:
        dying.stop()
    gate.set()
    assert holder.outcome() is None
    assert behind.outcome() == "had it"
    dying.kill()


def test_abandoned_work_of_closed_loops_does_not_use_up_the_key(loops, make_gate):
    """What took too long on loops that were closed later is not running any more: it does not count."""
    executions, gate = Executions(), make_gate()

    async def body():
        if executions.begin() < 5:
            await stubbornly(gate)
        return "value"

    coroutine = single_flight_ttl(body, ttl=60, key=lambda: "k", flight_timeout=0.01)
    dying = []
    for number in range(1, 6):
        loop = loops()
        started = loop.start(coroutine)  # unseats the one before
        executions.wait_for(number)
        (slot,) = coroutine.locks.live()
        until(slot.turn.is_due)
        if number < 5:
            dying.append(loop)
    for loop in dying:
        loop.kill()
    assert loops().run(coroutine) == "value"
    gate.set()
    assert started.outcome() == "value"
    assert coroutine.flights() == ()


def test_a_queued_hold_of_a_closed_loop_is_forgotten(loops, make_gate):
    """Nothing remembers a task that waited for a key on a loop that is closed."""
    locks, gate = KeyedLocks(), make_gate()
    before = dict(waiting)

    async def hold():
        with locks("a"):
            await gate

    async def take():
        async with locks("a"):
            pass

    holder, dying = InThread(hold, ()), loops()
    until(lambda: locks.held("a"))
    dying.start(take)
    until(lambda: locks.waiting("a") == 1)
    dying.kill()
    gate.set()
    assert holder.outcome() is None
    assert waiting.keys() <= before.keys()
    assert below == {}


@pytest.mark.parametrize("how", ["one", "many"])
def test_a_renewal_on_a_loop_that_stands_still_keeps_nobody(how):
    """Its loop was stopped in the midst of it, in this very thread: draining does not wait for it."""
    clock, loop = FakeClock(), asyncio.new_event_loop()

    @single_flight_ttl(ttl=10, grace=50, timer=clock)
    async def fetch(key):
        await asyncio.sleep(0)
        return "new"

    @fetch.bulk
    async def fetch_many(keys):
        await asyncio.sleep(0)
        return dict.fromkeys(keys, "new")

    async def go_on():
        while fetch.flights():
            await asyncio.sleep(0)

    fetch.put("old", "A")
    clock.advance(10)
    try:
        if how == "one":
            assert loop.run_until_complete(fetch("A")) == "old"
        else:
            assert loop.run_until_complete(fetch_many(["A"])) == {"A": "old"}
        assert [flight.key for flight in fetch.flights()] == [("A",)]
        assert singleflight.drain_sync(timeout=SOON) is True
        assert fetch.flights()
        loop.run_until_complete(go_on())
        assert fetch.entry("A").value == "new"
    finally:
        loop.close()


@pytest.mark.parametrize("what", ["a flight", "flights in bulk", "a lock"])
def test_a_loop_that_goes_on_in_another_thread_is_not_given_up(loops, make_gate, what):
    """The thread that it ran on has ended, and the loop runs elsewhere: who asks waits for its tasks."""
    gate, executions, seen, entered = make_gate(), Executions(), Recorder(), threading.Event()

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen)
    async def fetch(key):
        executions.begin()
        await gate
        return key

    @fetch.bulk
    async def fetch_many(keys):
        executions.begin()
        await gate
        return {key: key for key in keys}

    async def hold():
        async with fetch.locks("k"):
            entered.set()
            await gate
        return "held"

    moved, other = loops(), loops()
    if what == "a lock":
        first = moved.start(hold)
        assert entered.wait(SOON)
    else:
        first = moved.start(fetch, "k") if what == "a flight" else moved.start(fetch_many, ["j", "k"])
        executions.wait_for(1)
    moved.stop()
    elsewhere = LoopThread(moved.loop)
    try:
        assert elsewhere.run(asyncio.sleep, 0, "alive") == "alive"
        follower = other.start(fetch, "k")
        seen.wait_for("wait")
        (slot,) = (slot for slot in fetch.locks.live() if slot.key == "k")
        assert not is_gone(moved.loop, moved.thread)
        assert slot.turn.leader is not None
        gate.set()
        assert follower.outcome() == "k"
        assert first.outcome() == {"a lock": "held", "a flight": "k"}.get(what, {"j": "j", "k": "k"})
        assert executions.begun == 1
    finally:
        elsewhere.close()
    assert elsewhere.reports == []
