"""Tasks: how many there are, in which context the function runs, and who is warned."""

import asyncio
import contextvars
import gc
import itertools
import logging
import warnings
import weakref

import pytest

from singleflight import FlightDeadlock, report, single_flight_ttl
from singleflight.testing import Recorder

from ..drivers import InThread, eventually

USER = contextvars.ContextVar("user", default="nobody")


def test_ten_thousand_tasks_make_one_call_and_one_task(play):
    """No task is made per follower: there are the callers' own, and one for the work."""

    async def main():
        seen, calls, open_ = Recorder(wants={"wait"}), itertools.count(1), asyncio.Event()

        @single_flight_ttl(ttl=60, listener=seen)
        async def fetch():
            number = next(calls)
            await open_.wait()
            return number

        callers = [asyncio.create_task(fetch()) for _ in range(10_000)]
        await eventually(lambda: seen.count("wait") == 9_999)
        assert len(asyncio.all_tasks()) <= 10_000 + 1 + 1  # with this one
        open_.set()
        assert set(await asyncio.gather(*callers)) == {1}
        stats = fetch.stats()
        assert (stats.calls, stats.waits, stats.fetches) == (1, 9_999, 1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    play(main, timeout=30)


def test_a_hit_does_not_suspend(play):
    """A fresh value is returned without suspending."""

    async def main():
        @single_flight_ttl(ttl=60)
        async def fetch():
            return 1

        await fetch()
        steps = []
        asyncio.get_running_loop().call_soon(steps.append, 1)
        call = fetch()
        with pytest.raises(StopIteration) as ended:
            call.send(None)
        assert ended.value.value == 1
        assert await fetch() == 1
        assert not steps

    play(main)


def test_the_context_is_the_leaders_and_what_is_set_stays_in_its_copy(play):
    """Context variables are those of the caller that leads; what the function sets stays in its copy."""

    async def main():
        seen, open_ = Recorder(), asyncio.Event()

        @single_flight_ttl(ttl=60, listener=seen)
        async def fetch():
            await open_.wait()
            user = USER.get()
            USER.set("changed")
            return user

        async def ask(user):
            USER.set(user)
            return await fetch(), USER.get()

        leader = asyncio.create_task(ask("leader"))
        await eventually(lambda: seen.count("fetch"))
        follower = asyncio.create_task(ask("follower"))
        await eventually(lambda: seen.count("wait"))
        open_.set()
        assert await leader == ("leader", "leader")
        assert await follower == ("leader", "follower")

    play(main)


def test_a_retry_sees_the_context_of_who_leads_it(play):
    """The second flight of a chain runs for a follower, in the follower's context."""

    async def main():
        seen, open_, users = Recorder(), asyncio.Event(), []

        @single_flight_ttl(ttl=60, listener=seen)
        async def fetch():
            await open_.wait()
            users.append(USER.get())
            raise ValueError

        async def ask(user):
            USER.set(user)
            with pytest.raises(ValueError):
                await fetch()

        leader = asyncio.create_task(ask("leader"))
        await eventually(lambda: seen.count("fetch"))
        follower = asyncio.create_task(ask("follower"))
        await eventually(lambda: seen.count("wait"))
        open_.set()
        await asyncio.gather(leader, follower)
        assert users == ["leader", "follower"]

    play(main)


@pytest.mark.parametrize("end", ["it fails", "it is aborted", "a value"])
def test_who_waits_for_a_flight_that_nobody_listens_to(play, end):
    """Followers without timeouts share what comes, and fly again together where there is nothing to share."""

    class Aborted(BaseException):
        pass

    async def main():
        numbers, open_ = itertools.count(1), asyncio.Event()

        @single_flight_ttl(ttl=60)
        async def fetch():
            number = next(numbers)
            await open_.wait()
            if number == 1 and end != "a value":
                raise ValueError if end == "it fails" else Aborted
            return number

        callers = [asyncio.create_task(fetch()) for _ in range(3)]
        await eventually(lambda: [flight.followers for flight in fetch.flights()] == [2])
        open_.set()
        first, *others = await asyncio.gather(*callers, return_exceptions=True)
        if end == "a value":
            assert [first, *others] == [1, 1, 1]
        else:
            assert type(first) is (ValueError if end == "it fails" else Aborted)
            assert others == [2, 2]
        stats = fetch.stats()
        assert (stats.fetches, stats.errors) == (1, 0 if end == "a value" else 1)
        assert stats.waits == (2 if end == "a value" else 1)

    play(main)


def test_a_sync_caller_on_the_loops_own_thread_is_refused(play):
    """Waiting there for a flight of this loop would freeze both, so it raises; the flight goes on."""

    async def main():
        seen, open_ = Recorder(), asyncio.Event()

        @single_flight_ttl(ttl=60, listener=seen, key=lambda: "A")
        async def fetch():
            await open_.wait()
            return 1

        @fetch.twin
        def plain():
            return 2

        leader = asyncio.create_task(fetch())
        await eventually(lambda: seen.count("fetch"))
        with pytest.raises(FlightDeadlock, match="'A'"):
            plain()
        open_.set()
        assert await leader == 1
        assert plain() == 1  # a hit
        assert plain.refresh() == 2  # nobody to wait for
        stats = fetch.stats()
        assert (stats.errors, stats.in_flight, stats.locks) == (1, 0, stats.idle_locks)

    play(main)


def test_a_sync_caller_of_another_thread_may_wait_for_the_loop(play):
    """Only the loop's own thread is refused: one in a worker thread waits and is served."""

    async def main():
        seen, open_ = Recorder(), asyncio.Event()

        @single_flight_ttl(ttl=60, listener=seen)
        async def fetch():
            await open_.wait()
            return 1

        @fetch.twin
        def plain():
            return 2

        leader = asyncio.create_task(fetch())
        await eventually(lambda: seen.count("fetch"))
        worker = asyncio.create_task(asyncio.to_thread(plain))
        await eventually(lambda: seen.count("wait"))
        open_.set()
        assert (await leader, await worker) == (1, 1)
        assert fetch.stats().calls == 1

    play(main)


@pytest.mark.parametrize(("debug", "expected"), [(False, 0), (True, 1)])
def test_waiting_on_a_loops_thread_is_told_once_in_debug_mode(play, caplog, make_gate, debug, expected):
    """A sync decorated function that waits there blocks the loop: asyncio's debug mode says so, once."""
    gates, seen = {1: make_gate(), 2: make_gate()}, Recorder()

    @single_flight_ttl(ttl=60, listener=seen, name="prices")
    def plain(key):
        gates[key].pass_()
        return key

    async def in_thread(key):
        return plain(key)

    async def open_later(key):
        seen.wait_for("wait", key)
        gates[key].set()

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_debug(debug)
        loop.slow_callback_duration = 60
        for key in gates:
            leader = InThread(in_thread, (key,))
            seen.wait_for("fetch", key)
            opener = InThread(open_later, (key,))
            assert plain(key) == key
            assert (leader.outcome(), opener.outcome()) == (key, None)
        loop.set_debug(False)

    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        play(main)
    assert len(caught) + len(caplog.records) == expected


def test_refresh_is_awaited_and_the_rest_is_plain(play):
    """put, entry, invalidate, explain and stats of a coroutine function are ordinary calls."""

    async def main():
        numbers = itertools.count(1)

        @single_flight_ttl(ttl=60)
        async def fetch(key):
            return next(numbers)

        assert await fetch("A") == 1
        assert await fetch.refresh("A") == 2
        assert fetch.entry("A").value == 2
        fetch.put(7, "A")
        assert await fetch("A") == 7
        assert fetch.explain("A").would == "hit"
        assert fetch.invalidate("A") is True
        assert fetch.explain("A").would == "fetch"
        assert fetch.invalidate_where(lambda key: True) == 0
        assert await fetch("A") == 3
        fetch.cache_clear()
        assert fetch.cache_info() == (0, 0, 1024, 0)
        with fetch.bypass():
            assert (await fetch("A"), await fetch("A")) == (4, 5)

    play(main)


def test_the_leader_of_an_async_flight_has_a_name(play):
    """flights() and report() name it for people."""

    async def main():
        seen, open_ = Recorder(), asyncio.Event()

        @single_flight_ttl(ttl=60, listener=seen)
        async def fetch():
            await open_.wait()

        task = asyncio.create_task(fetch(), name="dashboard")
        await eventually(lambda: seen.count("fetch"))
        (flight,) = fetch.flights()
        assert flight.leader
        assert " object at 0x" not in flight.leader
        assert "1 flights" in report()
        open_.set()
        await task

    play(main)


def test_a_failure_keeps_no_frame_alive(play):
    """Once nobody has the exceptions any more, what the failing frames held is gone without the collector."""

    class Local:
        pass

    async def main():
        alive, entered = [], asyncio.Event()

        @single_flight_ttl(ttl=60, follower_retries=0)
        async def fetch():
            local = Local()
            alive.append(weakref.ref(local))
            await entered.wait()
            raise ValueError(local.__class__)

        gc.collect()
        gc.disable()
        try:
            callers = [asyncio.create_task(fetch()) for _ in range(3)]
            await eventually(lambda: fetch.flights() and fetch.flights()[0].followers == 2)
            entered.set()
            outcomes = await asyncio.gather(*callers, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [ValueError] * 3
            del callers, outcomes
            await asyncio.sleep(0)
            assert [ref() for ref in alive] == [None]
        finally:
            gc.enable()

    play(main)


@pytest.mark.parametrize("left", [1, 49, 51, 70, 99])
def test_who_waits_no_more_is_let_go_of(play, left):
    """Of a hundred tasks that wait some are cancelled: at most as many of these are kept as still wait."""

    async def main():
        seen, open_ = Recorder(wants={"wait"}), asyncio.Event()

        @single_flight_ttl(ttl=60, listener=seen)
        async def fetch():
            await open_.wait()
            return 1

        tasks = [asyncio.create_task(fetch()) for _ in range(101)]
        await eventually(lambda: seen.count("wait") == 100)
        (slot,) = fetch.locks.live()
        (group,) = slot.turn.latch.groups.values()
        assert len(group.members) == 100
        for task in tasks[1 : left + 1]:
            task.cancel()
        await eventually(lambda: slot.turn.followers == 100 - left)
        assert 100 - left <= len(group.members) <= 2 * (100 - left)
        assert sum(member.group is group for member in group.members) == 100 - left
        open_.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert outcomes.count(1) == 101 - left

    play(main)
