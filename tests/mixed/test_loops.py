"""Several loops and threads on one key: one call, no blocked loop, and no loop that hurts another."""

import asyncio
import gc
import itertools
import threading
import time

import pytest

from singleflight import FlightDeadlock, KeyedLocks, single_flight_ttl
from singleflight.locks.waitgraph import below
from singleflight.testing import Recorder

from ..drivers import Executions, InThread, eventually, until

SOON = 5.0  # seconds: what is noticed within one must be over by then, also on a busy machine


def twins(body, **options):
    """A plain function and its coroutine twin, both of which run `body(colour)`, a coroutine function."""
    seen = Recorder()

    @single_flight_ttl(ttl=60, listener=seen, **options)
    def plain():
        return asyncio.run(body("thread"))

    @plain.twin
    async def coroutine():
        return await body("task")

    return plain, coroutine, seen


def in_thread(plain):
    async def run():
        return plain()

    return InThread(run, ())


def test_four_loops_and_four_threads_make_one_call(loops, make_gate):
    """On one cold key, whoever is first: one call, and all get its value."""
    for round_ in range(5):
        gate, calls = make_gate(), []

        async def body(colour, gate=gate, calls=calls):
            calls.append(colour)
            while not gate.is_set():
                await asyncio.sleep(0.001)
            return object()

        plain, coroutine, seen = twins(body)
        start = threading.Barrier(8)

        async def run_plain(start=start, plain=plain):
            start.wait(10)
            return plain()

        async def run_coroutine(start=start, coroutine=coroutine):
            start.wait(10)
            return await coroutine()

        callers = [loops().start(run_coroutine) for _ in range(4)]
        callers += [InThread(run_plain, ()) for _ in range(4)]
        seen.wait_for("wait", 7)
        gate.set()
        assert len({id(caller.outcome()) for caller in callers}) == 1, round_
        assert len(calls) == 1
        stats = plain.stats()
        assert (stats.calls, stats.fetches, stats.waits, stats.in_flight) == (1, 1, 7, 0)
        assert stats == coroutine.stats()


def test_many_loops_ask_for_many_keys(loops):
    """Four loops and four threads that hammer the same keys: each key is fetched once."""
    calls, lock = [], threading.Lock()

    @single_flight_ttl(ttl=60)
    def plain(key):
        with lock:
            calls.append(key)
        return key

    @plain.twin
    async def coroutine(key):
        with lock:
            calls.append(key)
        await asyncio.sleep(0)
        return key

    async def ask_plainly():
        return [plain(key) for key in range(100)]

    async def ask():
        return [(await asyncio.gather(coroutine(key), coroutine(key)))[0] for key in range(100)]

    callers = [loops().start(ask) for _ in range(4)] + [InThread(ask_plainly, ()) for _ in range(4)]
    assert [caller.outcome(20) for caller in callers] == [list(range(100))] * 8
    assert sorted(calls) == list(range(100))
    stats = plain.stats()
    assert stats.hits + stats.waits + stats.fetches == 4 * 100 + 4 * 200
    assert (stats.locks, stats.in_flight) == (stats.idle_locks, 0)


def test_waiting_across_loops_blocks_neither(loops, make_gate):
    """While one loop waits for another's flight, both go on with other things."""
    gate, seen = make_gate(), Recorder()

    @single_flight_ttl(ttl=60, listener=seen)
    async def fetch(key):
        if key == "slow":
            await gate
        return key

    one, other = loops(), loops()
    leader = one.start(fetch, "slow")
    seen.wait_for("fetch")
    follower = other.start(fetch, "slow")
    seen.wait_for("wait")
    assert (one.run(fetch, "x"), other.run(fetch, "y"), other.run(fetch, "x")) == ("x", "y", "x")
    assert not leader.done()
    assert not follower.done()
    gate.set()
    assert (leader.outcome(), follower.outcome()) == ("slow", "slow")


def test_a_follower_on_another_loop_takes_over(loops, make_gate):
    """When the leader's work aborts, the retry runs on the loop of the follower who leads it."""
    gate, seen, ran = make_gate(), Recorder(), []

    @single_flight_ttl(ttl=60, listener=seen)
    async def fetch():
        ran.append(asyncio.get_running_loop())
        await gate
        if len(ran) == 1:
            raise ValueError
        return "value"

    one, other = loops(), loops()
    leader = one.start(fetch)
    seen.wait_for("fetch")
    follower = other.start(fetch)
    seen.wait_for("wait")
    gate.set()
    assert isinstance(leader.outcome(), ValueError)
    assert follower.outcome() == "value"
    assert ran == [one.loop, other.loop]


def test_a_leader_that_is_cancelled_leaves_the_work_on_its_loop(loops, make_gate):
    """The followers of other loops and threads get the value of the same execution."""
    gate, calls = make_gate(), []

    async def body(colour):
        calls.append(colour)
        await gate
        return len(calls)

    plain, coroutine, seen = twins(body)
    leader = loops().start(coroutine)
    seen.wait_for("fetch")
    followers = [loops().start(coroutine), in_thread(plain)]
    seen.wait_for("wait", 2)
    leader.cancel()
    assert isinstance(leader.outcome(), asyncio.CancelledError)
    gate.set()
    assert [follower.outcome() for follower in followers] == [1, 1]
    assert calls == ["task"]


def test_when_all_have_gone_the_work_on_another_loop_is_cancelled(loops, make_gate):
    """The last caller may be on another loop than the one that runs the flight."""
    gate, cancelled, seen, executions = make_gate(), [], Recorder(), Executions()

    @single_flight_ttl(ttl=60, listener=seen)
    async def fetch():
        executions.begin()
        try:
            await gate
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    leader = loops().start(fetch)
    executions.wait_for(1)
    follower = loops().start(fetch)
    seen.wait_for("wait")
    leader.cancel()
    assert isinstance(leader.outcome(), asyncio.CancelledError)
    assert not cancelled
    follower.cancel()
    assert isinstance(follower.outcome(), asyncio.CancelledError)
    until(lambda: cancelled)
    until(lambda: fetch.flights() == ())
    assert len(fetch.locks) == fetch.locks.idle


def test_followers_recover_when_the_leaders_loop_is_closed(loops, make_gate):
    """In mid-flight: those on other loops and in threads notice soon, and make one call together."""
    gate, executions = make_gate(), Executions()

    async def body(colour):
        number = executions.begin()
        if number == 0:
            await gate
        return number

    plain, coroutine, seen = twins(body, max_idle_locks=0)
    dying, alive = loops(), loops()
    dying.start(coroutine)
    executions.wait_for(1)
    callers = [alive.start(coroutine), alive.start(coroutine), in_thread(plain), in_thread(plain)]
    seen.wait_for("wait", 4)
    dying.kill()
    began = time.monotonic()
    assert [caller.outcome() for caller in callers] == [1] * 4
    assert time.monotonic() - began < SOON
    assert alive.run(coroutine) == plain() == 1
    assert executions.begun == 2
    assert (plain.flights(), len(plain.locks)) == ((), 0)
    gc.collect()  # what is left of the dead loop's tasks changes nothing
    assert plain() == 1


@pytest.mark.parametrize("newcomer", ["thread", "task"])
def test_a_newcomer_recovers_from_a_closed_loop(loops, make_gate, newcomer):
    """Where nobody waited, whoever arrives sees that the flight is dead and makes a new one."""
    gate, executions = make_gate(), Executions()

    async def body(colour):
        number = executions.begin()
        if number == 0:
            await gate
        return number

    plain, coroutine, _ = twins(body)
    dying, alive = loops(), loops()
    dying.start(coroutine)
    executions.wait_for(1)
    dying.kill()
    caller = in_thread(plain) if newcomer == "thread" else alive.start(coroutine)
    assert caller.outcome(SOON) == 1
    assert plain.flights() == ()


def test_a_closed_follower_loop_never_hurts_the_leader(loops, make_gate):
    """Followers whose loop is gone are nobody's concern: the leader's caller and the others get the value."""
    gate, calls = make_gate(), []

    async def body(colour):
        calls.append(colour)
        while not gate.is_set():
            await asyncio.sleep(0.001)
        return 1

    for lead_in_thread in (True, False):
        gate, calls[:] = make_gate(), []
        plain, coroutine, seen = twins(body, max_idle_locks=0)
        dying, alive = loops(), loops()
        leader = in_thread(plain) if lead_in_thread else alive.start(coroutine)
        seen.wait_for("fetch")
        for _ in range(3):
            dying.start(coroutine)
        followers = [alive.start(coroutine), in_thread(plain)]
        seen.wait_for("wait", 5)
        dying.kill()
        gate.set()
        assert [leader.outcome(), *(follower.outcome() for follower in followers)] == [1, 1, 1]
        assert calls == ["thread" if lead_in_thread else "task"]
        assert plain() == 1
        assert (plain.flights(), len(plain.locks)) == ((), 0)


def test_a_successor_is_not_left_to_a_closed_loop(loops, make_gate):
    """A flight that fails while one follower's loop is gone is flown again by one who is alive."""
    gate, numbers = make_gate(), itertools.count()

    async def body(colour):
        number = next(numbers)
        if number == 0:
            while not gate.is_set():
                await asyncio.sleep(0.001)
            raise ValueError
        return number

    plain, coroutine, seen = twins(body)
    dying, alive = loops(), loops()
    leader = in_thread(plain)
    seen.wait_for("fetch")
    dying.start(coroutine)
    seen.wait_for("wait")
    others = [alive.start(coroutine), in_thread(plain)]
    seen.wait_for("wait", 3)
    dying.kill()
    gate.set()
    assert isinstance(leader.outcome(), ValueError)
    assert [other.outcome(SOON) for other in others] == [1, 1]


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often another thread wakes it."""

    def __init__(self):
        super().__init__()
        self.woken = 0

    def call_soon_threadsafe(self, *args, **kwargs):
        self.woken += 1
        return super().call_soon_threadsafe(*args, **kwargs)


def test_landing_wakes_each_loop_once(loops, make_gate):
    """However many followers a loop has, another thread's landing calls call_soon_threadsafe once."""
    gate, seen = make_gate(), Recorder()

    @single_flight_ttl(ttl=60, listener=seen)
    def plain():
        gate.pass_()
        return 1

    @plain.twin
    async def coroutine():
        raise AssertionError("never leads")

    leader = in_thread(plain)
    seen.wait_for("fetch")
    counting = [CountingLoop(), CountingLoop()]
    threads = [loops(loop) for loop in counting]

    async def many():
        return await asyncio.gather(*(coroutine() for _ in range(200)))

    followers = [thread.start(many) for thread in threads]
    seen.wait_for("wait", 400)
    before = [loop.woken for loop in counting]
    gate.set()
    assert leader.outcome() == 1
    assert [follower.outcome() for follower in followers] == [[1] * 200] * 2
    assert [loop.woken - woken for loop, woken in zip(counting, before, strict=True)] == [1, 1]


def test_followers_on_the_leaders_own_loop_cost_at_most_one_wake_up(loops):
    """Landing on the loop that runs the flight needs no other thread's wake-up for each follower."""
    seen, loop = Recorder(), CountingLoop()

    @single_flight_ttl(ttl=60, listener=seen)
    async def fetch():
        while seen.count("wait") < 199:
            await asyncio.sleep(0)
        return 1

    async def many():
        before = loop.woken
        assert await asyncio.gather(*(fetch() for _ in range(200))) == [1] * 200
        return loop.woken - before

    assert loops(loop).run(many) <= 1


def test_a_loop_that_is_merely_stopped_may_resume(loops, make_gate):
    """Its flight is not taken away: it lands when the loop runs again."""
    gate, numbers, seen = make_gate(), itertools.count(), Recorder()

    @single_flight_ttl(ttl=60, listener=seen)
    async def fetch():
        number = next(numbers)
        await gate
        return number

    loop = asyncio.new_event_loop()
    task = loop.create_task(fetch())
    loop.run_until_complete(asyncio.sleep(0))
    until(lambda: loop.run_until_complete(asyncio.sleep(0)) or seen.count("fetch"))
    follower = loops().start(fetch)
    seen.wait_for("wait")
    gate.set()
    assert not follower.done()
    assert loop.run_until_complete(task) == 0
    loop.close()
    assert follower.outcome() == 0


def test_a_waiter_for_a_lock_on_a_closed_loop_holds_nobody_up(loops, make_gate):
    """A task that waited for a keyed lock and will never run again does not get it instead of the others."""
    locks, gate = KeyedLocks(), make_gate()

    async def hold():
        with locks("a"):
            await gate

    async def take():
        async with locks("a"):
            return "had it"

    holder, dying, alive = InThread(hold, ()), loops(), loops()
    until(lambda: locks.held("a"))
    dying.start(take)
    until(lambda: locks.waiting("a") == 1)
    behind = alive.start(take)
    until(lambda: locks.waiting("a") == 2)
    dying.kill()
    gate.set()
    assert holder.outcome() is None
    assert behind.outcome(SOON) == "had it"


@pytest.mark.parametrize("leads", ["callback", "task"])
def test_a_plain_leader_on_a_loop_waits_for_no_task(leads):
    """What a callback or task leads as a plain function ends by itself, whatever else its loop waits for."""
    seen, may_ask, told = Recorder(), threading.Event(), []

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen)
    def plain(key):
        if key == "A":  # led by a callback, until the thread asks
            may_ask.set()
            until(lambda: plain.locks.waiting("A") or told)
            return "A"
        assert may_ask.wait(SOON)  # led by a thread
        try:
            return "B" + plain("A")
        except FlightDeadlock:
            told.append("B")
            raise

    @plain.twin
    async def coroutine(key):
        return key + await coroutine("B")

    async def ask():
        return plain("B")

    async def main():
        thread = threading.get_ident()

        async def have_it_lead():
            await eventually(lambda: thread in below)  # the thread waits for who waits for B
            if leads == "task":
                plain("A")
            else:
                asyncio.get_running_loop().call_soon(plain, "A")

        task = asyncio.create_task(have_it_lead())
        value = await coroutine("C")
        await task
        return value

    leader = InThread(ask, ())
    until(lambda: plain.flights())
    assert asyncio.run(main()) == "CBA"
    assert leader.outcome() == "BA"
    assert told == []
