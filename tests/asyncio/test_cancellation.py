"""Who owns the work: callers come and go, and it ends with the last of them."""

import asyncio
import contextlib
import itertools

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import Recorder

from ..drivers import eventually


class Held:
    """A coroutine function that is held at an event; what it did is remembered."""

    def __init__(self, **options):
        self.calls = self.running = self.most = self.cancelled = 0
        self.open, self.unwind = asyncio.Event(), asyncio.Event()
        self.unwind.set()
        self.at_the_end = None
        self.seen = Recorder()
        self.fetch = single_flight_ttl(self.run, **{"ttl": 60, "listener": self.seen, **options})

    async def run(self):
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        number = self.calls
        try:
            await self.open.wait()
            return number
        except asyncio.CancelledError:
            self.cancelled += 1
            await self.unwind.wait()
            if self.at_the_end is not None:
                return self.at_the_end(number)
            raise
        finally:
            self.running -= 1

    async def start(self, callers):
        """One leader and its followers, all of them waiting."""
        before = self.seen.count("wait")
        tasks = [asyncio.create_task(self.fetch())]
        await eventually(lambda: self.running)
        tasks += [asyncio.create_task(self.fetch()) for _ in range(callers - 1)]
        await eventually(lambda: self.seen.count("wait") == before + callers - 1)
        return tasks

    def quiet(self):
        """Whether nothing is left behind, and all were counted."""
        stats = self.fetch.stats()
        assert self.fetch.flights() == ()
        assert len(self.fetch.locks) == self.fetch.locks.idle
        assert self.most <= 1
        return stats.hits + stats.waits + stats.fetches + stats.errors + stats.timeouts


async def end_of(tasks):
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_the_work_goes_on_when_its_leader_is_cancelled(play):
    """The work goes on, everybody else gets its value, and it is stored."""

    async def main():
        held = Held()
        tasks = await held.start(5)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        assert (held.running, held.cancelled) == (1, 0)
        held.open.set()
        assert await end_of(tasks[1:]) == [1] * 4
        assert await held.fetch() == 1
        assert (held.calls, held.quiet()) == (1, 6)
        assert held.fetch.stats().errors == 1

    play(main)


def test_a_follower_leaves_alone_wherever_it_stands(play):
    """It leaves alone, whoever it is among the followers."""

    async def main():
        for gone in range(1, 4):
            held = Held()
            tasks = await held.start(4)
            tasks[gone].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[gone]
            assert held.fetch.flights()[0].followers == 2
            held.open.set()
            assert await end_of(tasks[:gone] + tasks[gone + 1 :]) == [1] * 3
            assert (held.calls, held.quiet()) == (1, 4)

    play(main)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_when_the_last_caller_goes_the_work_is_cancelled(play, order):
    """In whatever order they go; before the last it runs on."""

    async def main():
        held = Held()
        tasks = await held.start(3)
        for number, gone in enumerate(order):
            assert (held.running, held.cancelled) == (1, 0), number
            tasks[gone].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[gone]
        await eventually(lambda: not held.running)
        assert held.cancelled == 1
        await eventually(lambda: not held.fetch.flights())
        assert held.fetch.entry() is None
        held.open.set()
        assert await held.fetch() == 2
        assert held.quiet() == 4
        assert held.fetch.stats().failures == 0

    play(main)


def late_value(number):
    return -number


def late_failure(number):
    raise ValueError(number)


@pytest.mark.parametrize("at_the_end", [None, late_value, late_failure])
@pytest.mark.parametrize("newcomers", [1, 3])
def test_a_newcomer_during_the_unwinding_gets_a_new_flight(play, at_the_end, newcomers):
    """It starts when the old one has ended, however that ends, and is one flight for all newcomers."""

    async def main():
        held = Held(follower_retries=0)
        held.at_the_end = at_the_end
        held.unwind.clear()
        tasks = await held.start(2)
        for task in tasks:
            task.cancel()
        await end_of(tasks)
        await eventually(lambda: held.cancelled)
        fresh = [asyncio.create_task(held.fetch()) for _ in range(newcomers)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert (held.calls, held.running) == (1, 1)
        held.open.set()
        held.unwind.set()
        assert await end_of(fresh) == [2] * newcomers
        assert (held.calls, held.quiet()) == (2, 2 + newcomers)
        assert held.fetch.entry().value == 2

    play(main)


def test_a_newcomer_of_an_unwinding_flight_may_go_again(play):
    """If it is cancelled too, nothing is started for it."""

    async def main():
        held = Held()
        held.unwind.clear()
        (task,) = await held.start(1)
        task.cancel()
        await end_of([task])
        await eventually(lambda: held.cancelled)
        newcomer = asyncio.create_task(held.fetch())
        for _ in range(10):
            await asyncio.sleep(0)
        newcomer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await newcomer
        held.unwind.set()
        await eventually(lambda: not held.fetch.flights())
        for _ in range(10):
            await asyncio.sleep(0)
        assert (held.calls, held.quiet()) == (1, 2)

    play(main)


def test_a_timeout_around_a_follower(play):
    """asyncio.timeout ends that follower alone, with TimeoutError."""

    async def main():
        held = Held()
        tasks = await held.start(2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await held.fetch()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(held.fetch(), 0.01)
        assert (held.calls, held.cancelled) == (1, 0)
        held.open.set()
        assert await end_of(tasks) == [1, 1]
        assert held.quiet() == 4

    play(main)


def test_a_timeout_around_the_leader(play):
    """asyncio.timeout around the leader leaves the work to its followers, and ends it without any."""

    async def main():
        async def impatient():
            async with asyncio.timeout(0.01):
                return await held.fetch()

        held = Held()
        leader = asyncio.create_task(impatient())
        await eventually(lambda: held.running)
        follower = asyncio.create_task(held.fetch())
        with pytest.raises(TimeoutError):
            await leader
        assert held.cancelled == 0
        held.open.set()
        assert await follower == 1

        held = Held()
        with pytest.raises(TimeoutError):
            await impatient()
        await eventually(lambda: held.cancelled)
        await eventually(lambda: not held.fetch.flights())
        assert held.quiet() == 1

    play(main)


def test_a_caller_that_was_cancelled_before_it_began_starts_nothing(play):
    """A task that is cancelled before its first step makes no call."""

    async def main():
        held = Held()
        task = asyncio.create_task(held.fetch())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(10):
            await asyncio.sleep(0)
        assert (held.calls, held.quiet()) == (0, 0)

    play(main)


def test_a_caller_with_a_cancellation_on_its_way_leaves_nothing_behind(play):
    """Who asks although its task is about to be cancelled gets CancelledError, and no work goes on for it."""

    async def main():
        held = Held()

        async def ask():
            asyncio.current_task().cancel()
            return await held.fetch()

        task = asyncio.create_task(ask())
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: not held.fetch.flights())
        await eventually(lambda: not held.running)
        held.quiet()
        held.open.set()
        assert await held.fetch() == held.calls

    play(main)


def test_a_call_in_the_cleanup_of_a_cancelled_task(play):
    """A task that has received its cancellation may still ask, and is served."""

    async def main():
        held, values = Held(), []
        held.open.set()

        async def ask():
            try:
                await asyncio.Event().wait()
            finally:
                values.append(await held.fetch())

        task = asyncio.create_task(ask())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert values == [1]
        assert held.quiet() == 1

    play(main)


def test_a_cancelled_refresh_keeps_the_value(play):
    """The old value is served on, and the renewal is cancelled with its only caller."""

    async def main():
        held = Held()
        held.open.set()
        assert await held.fetch() == 1
        held.open.clear()
        task = asyncio.create_task(held.fetch.refresh())
        await eventually(lambda: held.running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: held.cancelled == 1)
        assert await held.fetch() == 1
        await eventually(lambda: not held.fetch.flights())
        assert held.quiet() == 3

    play(main)


def test_a_cancelled_member_of_a_task_group(play):
    """A task group whose member fails cancels its other members, and no stranger."""

    async def main():
        held = Held()
        tasks = await held.start(1)

        async def fail():
            await eventually(lambda: held.fetch.flights()[0].followers == 2)
            raise LookupError

        with contextlib.suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(held.fetch())
                group.create_task(held.fetch())
                group.create_task(fail())
        assert held.fetch.flights()[0].followers == 0
        held.open.set()
        assert await end_of(tasks) == [1]
        assert held.quiet() == 3

    play(main)


def test_a_failure_after_everybody_has_gone_is_dropped(play):
    """Work that fails while it is cancelled has nobody to tell, and nothing is reported."""

    async def main():
        held = Held(follower_retries=0)
        held.at_the_end = late_failure
        tasks = await held.start(3)
        for task in tasks:
            task.cancel()
        await end_of(tasks)
        await eventually(lambda: not held.fetch.flights())
        assert held.cancelled == 1
        assert held.quiet() == 3

    play(main)
    # The fixture collects garbage and looks at what the loop's exception handler was told.


def test_failures_are_retrieved(play):
    """A shared failure is never reported as one that nobody looked at, whoever was cancelled before it."""

    async def main():
        for gone in range(4):
            open_, seen = asyncio.Event(), Recorder()

            async def fetch(open_=open_):
                await open_.wait()
                raise ValueError("no")

            fetch = single_flight_ttl(fetch, ttl=60, follower_retries=1, listener=seen)
            tasks = [asyncio.create_task(fetch()) for _ in range(4)]
            await eventually(lambda seen=seen: seen.count("wait") == 3)
            tasks[gone].cancel()
            await asyncio.sleep(0)
            open_.set()
            outcomes = await end_of(tasks)
            assert isinstance(outcomes.pop(gone), asyncio.CancelledError)
            assert {type(outcome) for outcome in outcomes} == {ValueError}
            assert fetch.flights() == ()

    play(main)


def test_work_that_takes_too_long_may_say_itself_what_was_wrong(play):
    """What it raises where it is stopped is its caller's; those who waited have called again by then."""

    async def main():
        calls = []

        @single_flight_ttl(ttl=60, flight_timeout=0.01)
        async def fetch():
            calls.append(1)
            if len(calls) > 1:
                return len(calls)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ConnectionError("cut off") from None

        leader, follower = asyncio.create_task(fetch()), asyncio.create_task(fetch())
        outcomes = await end_of([leader, follower])
        assert isinstance(outcomes[0], ConnectionError)
        assert outcomes[1] == 2
        stats = fetch.stats()
        assert (stats.calls, stats.failures, stats.errors, stats.timeouts) == (2, 1, 1, 0)

    play(main)
