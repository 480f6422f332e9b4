"""cancellation: tasks that call may be cancelled at any time, and the work ends with the last of them."""

import asyncio
import contextvars

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import Recorder

from ..drivers import eventually, until
from .conftest import outcomes

Cancelled = asyncio.CancelledError


def gone(caller):
    """Cancel a caller, and see it go."""
    caller.cancel()
    assert isinstance(caller.outcome(), Cancelled)


def test_a_cancelled_leader_leaves_its_followers_alone(task_scene):
    """When the leader is cancelled, the run continues for the others, and its value is stored.

    Elsewhere: in many asynchronous libraries the followers are cancelled with it.
    """
    one = task_scene()
    gate = one.hold(0)
    leader, *followers = one.herd(5)
    gone(leader)
    gate.set()
    assert outcomes(followers) == [0] * 4
    assert (one.call(), one.runs) == (0, 1)


def test_a_cancelled_follower_disturbs_nobody(task_scene):
    """A follower that is cancelled leaves alone; the leader and the others get the value."""
    one = task_scene()
    gate = one.hold(0)
    leader, follower, other = one.herd(3)
    gone(follower)
    gate.set()
    assert outcomes([leader, other]) == [0, 0]
    assert one.runs == 1


def held(tasks, **options):
    """A function whose first run waits to be cancelled, and what has become of it."""
    told, seen, gate = [], Recorder(), tasks.gate()

    async def fetch():
        told.append("begun")
        if len(told) > 1:
            return "anew"
        try:
            await gate
        except Cancelled:
            told.append("cancelled")
            raise

    fetch = tasks.decorate(fetch, listener=seen, **options)
    callers = [tasks.start(fetch)]
    until(lambda: told)
    callers += [tasks.start(fetch) for _ in range(2)]
    seen.wait_for("wait", 2)
    return fetch, told, callers


def test_when_all_are_cancelled_the_work_is(tasks):
    """The function is cancelled with its last caller, and not before."""
    fetch, told, callers = held(tasks)
    for caller in callers:
        assert told == ["begun"]
        gone(caller)
    until(lambda: told == ["begun", "cancelled"])
    until(lambda: not fetch.flights())
    assert fetch.entry() is None


def test_a_joiner_after_that_gets_a_fresh_flight(tasks):
    """A caller that comes after all others were cancelled gets a run of its own."""
    fetch, told, callers = held(tasks)
    for caller in callers:
        caller.cancel()
    outcomes(callers)
    assert tasks.call(fetch) == "anew"
    assert told.count("begun") == 2


def test_a_cancelled_caller_starts_nothing(loops):
    """A task that was cancelled before its first step runs nothing."""
    runs = []

    @single_flight_ttl(ttl=60)
    async def fetch():
        runs.append(1)

    async def main():
        task = asyncio.create_task(fetch())
        task.cancel()
        with pytest.raises(Cancelled):
            await task
        for _ in range(10):
            await asyncio.sleep(0)

    loops().run(main)
    assert runs == []
    assert fetch.flights() == ()


def test_a_loop_that_is_closed_in_mid_flight(loops):
    """If a loop is closed in mid-flight, waiting callers elsewhere notice in about a second and run once."""
    seen, runs = Recorder(), []

    @single_flight_ttl(ttl=60, listener=seen)
    async def fetch():
        runs.append(1)
        if len(runs) == 1:
            await asyncio.Event().wait()
        return "recovered"

    doomed, loop = loops(), loops()
    doomed.start(fetch)
    until(lambda: runs)
    followers = [loop.start(fetch) for _ in range(3)]
    seen.wait_for("wait", 3)
    doomed.kill()
    assert outcomes(followers) == ["recovered"] * 3
    assert len(runs) == 2


def test_the_function_sees_the_leaders_context(loops):
    """The function sees the leader's context variables; what it sets stays in its copy."""
    user = contextvars.ContextVar("user", default="nobody")

    @single_flight_ttl(ttl=60)
    async def fetch():
        found = user.get()
        user.set("somebody else")
        return found

    async def ask(name):
        user.set(name)
        return await fetch(), user.get()

    loop = loops()
    assert loop.run(ask, "Ann") == ("Ann", "Ann")
    assert loop.run(ask, "Bob") == ("Ann", "Bob")


def test_a_timeout_around_one_caller_is_its_own(loops):
    """`asyncio.timeout` ends the caller that it is around, leader or follower, and no other."""
    release, seen, limits = asyncio.Event(), Recorder(), []

    @single_flight_ttl(ttl=60, listener=seen)
    async def fetch():
        await release.wait()
        return 1

    async def impatient():
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            return await fetch()

    async def main():
        leader = asyncio.create_task(impatient())
        await eventually(lambda: seen.count("fetch") == 1)
        patient, follower = asyncio.create_task(fetch()), asyncio.create_task(impatient())
        await eventually(lambda: seen.count("wait") == 2)
        for limit, waiting in zip(limits, (leader, follower), strict=True):
            limit.reschedule(asyncio.get_running_loop().time())
            with pytest.raises(TimeoutError):
                await waiting
        release.set()
        assert await patient == 1

    loops().run(main)
    assert fetch.stats().calls == 1


def test_a_cancellation_inside_the_function_is_never_shared(task_scene):
    """A function that raises `CancelledError` itself ends its own caller; the others run again."""
    one = task_scene(follower_retries=0)
    gate = one.hold(0, Cancelled())
    leader, *followers = one.herd(4)
    gate.set()
    assert isinstance(leader.outcome(), Cancelled)
    assert outcomes(followers) == [1] * 3


def test_the_key_is_kept_until_cancelled_work_has_ended(tasks):
    """While cancelled work unwinds, no other run starts: new callers get one that starts after it."""
    unwinding, unwound, order = tasks.gate(), tasks.gate(), []

    async def fetch():
        if order:
            order.append("second")
            return 2
        order.append("first")
        try:
            await asyncio.Event().wait()
        finally:
            unwinding.set()
            await unwound
            order.append("first has ended")

    seen = Recorder()
    fetch = tasks.decorate(fetch, listener=seen)
    first = tasks.start(fetch)
    until(lambda: order)
    gone(first)
    unwinding.pass_()
    second = tasks.start(fetch)
    seen.wait_for("wait")
    unwound.set()
    assert second.outcome() == 2
    assert order == ["first", "first has ended", "second"]


def test_a_shielded_call_goes_on_without_its_caller(loops):
    """A call in a task under `asyncio.shield` ends without its caller, and its value is stored."""
    release, begun = asyncio.Event(), asyncio.Event()

    @single_flight_ttl(ttl=60)
    async def fetch():
        begun.set()
        await release.wait()
        return 1

    async def main():
        call = asyncio.create_task(fetch())

        async def ask():
            return await asyncio.shield(call)

        asking = asyncio.create_task(ask())
        await begun.wait()
        asking.cancel()
        with pytest.raises(Cancelled):
            await asking
        release.set()
        await call

    loops().run(main)
    assert fetch.entry().value == 1


def test_asyncio_run_ends_in_mid_flight():
    """`asyncio.run` cancels the remaining tasks of its loop, and the key is free for the next loop."""
    runs = []

    @single_flight_ttl(ttl=60)
    async def fetch():
        runs.append(1)
        if len(runs) == 1:
            await asyncio.Event().wait()
        return len(runs)

    async def leave():
        task = asyncio.create_task(fetch())
        await eventually(lambda: runs)
        return task

    assert asyncio.run(leave()).cancelled()
    assert fetch.flights() == ()
    assert asyncio.run(fetch()) == 2
