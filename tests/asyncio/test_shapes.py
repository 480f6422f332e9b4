"""A leader that waits for what asks for the leader's own key is told; who does not wait is not accused."""

import asyncio
import contextvars
import functools
import threading

import pytest

from singleflight import FlightDeadlock, single_flight_ttl
from singleflight.testing import Recorder

from ..drivers import eventually

CONTENT = 1.2  # seconds for which somebody is given the time to accuse the innocent


class Case:
    """A coroutine function that asks for its own key in some shape; `told` holds who was refused."""

    def __init__(self, shape):
        self.seen, self.told, self.values, self.later = Recorder(), [], [], []
        self.shape = shape
        self.fetch = single_flight_ttl(self.run, ttl=60, key=lambda: "A", listener=self.seen)
        self.plain = self.fetch.twin(self.run_plainly)

    async def run(self):
        outcome = "done"
        try:
            await self.shape(self)
        except* FlightDeadlock:  # alone, or in the groups that task groups raise
            outcome = "told"
        return outcome

    def run_plainly(self):
        raise AssertionError("nobody leads this way")

    async def ask(self):
        """What asks for the key; who is refused notes what it was told."""
        try:
            self.values.append(await self.fetch())
        except FlightDeadlock as error:
            self.told.append(str(error))
            raise

    def ask_plainly(self):
        try:
            self.values.append(self.plain())
        except FlightDeadlock as error:
            self.told.append(str(error))
            raise

    async def waits(self):
        """Return once somebody waits for the flight."""
        await eventually(lambda: self.seen.count("wait"))


async def awaited(case):
    await case.ask()


async def in_a_task(case):
    await asyncio.create_task(case.ask())


async def in_a_task_of_a_task(case):
    await asyncio.create_task(in_a_task(case))


async def asked_first_and_awaited_later(case):
    task = asyncio.create_task(case.ask())
    await case.waits()
    await task


async def gathered(case):
    await asyncio.gather(asyncio.sleep(0), case.ask())


async def gathered_twice(case):
    await asyncio.gather(asyncio.gather(case.ask()), asyncio.sleep(0))


async def gathered_later(case):
    task = asyncio.create_task(case.ask())
    await case.waits()
    await asyncio.gather(task, asyncio.sleep(0))


async def in_a_task_group(case):
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0))
        group.create_task(case.ask())


async def in_a_task_group_in_a_task_group(case):
    async with asyncio.TaskGroup() as group:
        group.create_task(in_a_task_group(case))


async def waited_for_all(case):
    done, _ = await asyncio.wait([asyncio.create_task(case.ask()), asyncio.create_task(asyncio.sleep(0))])
    for task in done:
        task.result()


async def waited_for_all_later(case):
    task = asyncio.create_task(case.ask())
    await case.waits()
    await asyncio.wait([task])
    task.result()


async def with_wait_for(case):
    await asyncio.wait_for(case.ask(), 30)


async def with_a_timeout(case):
    async with asyncio.timeout(30):
        await case.ask()


async def shielded(case):
    await asyncio.shield(case.ask())


async def in_a_worker_thread(case):
    await asyncio.to_thread(case.ask_plainly)


async def in_a_worker_thread_of_a_task(case):
    await asyncio.create_task(asyncio.to_thread(case.ask_plainly))


async def in_a_worker_thread_awaited_later(case):
    task = asyncio.create_task(asyncio.to_thread(case.ask_plainly))
    await case.waits()
    await task


GUILTY = [
    awaited,
    in_a_task,
    in_a_task_of_a_task,
    asked_first_and_awaited_later,
    gathered,
    gathered_twice,
    gathered_later,
    in_a_task_group,
    in_a_task_group_in_a_task_group,
    waited_for_all,
    waited_for_all_later,
    with_wait_for,
    with_a_timeout,
    shielded,
    in_a_worker_thread,
    in_a_worker_thread_of_a_task,
    in_a_worker_thread_awaited_later,
]


@pytest.mark.parametrize("shape", GUILTY, ids=lambda shape: shape.__name__)
def test_a_leader_that_waits_for_itself_is_told(play, shape):
    """FlightDeadlock is raised in the asking task or thread, in no other, and the key is free after."""

    async def main():
        case = Case(shape)
        assert await case.fetch() == "told"
        (message,) = case.told
        assert "'A' -> 'A'" in message
        assert case.values == []
        assert case.fetch.flights() == ()
        assert len(case.fetch.locks) == case.fetch.locks.idle

    play(main)


@pytest.mark.parametrize("shape", [in_a_task, gathered, in_a_worker_thread], ids=lambda shape: shape.__name__)
def test_bystanders_of_a_leader_that_waits_for_itself(play, shape):
    """Strangers that wait for the same flight are not told; they get its value."""

    async def main():
        ready = asyncio.Event()

        async def later(case):
            await ready.wait()
            await shape(case)

        case = Case(later)
        leader = asyncio.create_task(case.fetch())
        await eventually(lambda: case.seen.count("fetch"))
        strangers = [asyncio.create_task(case.fetch()) for _ in range(3)]
        await eventually(lambda: case.seen.count("wait") == 3)
        ready.set()
        assert await asyncio.gather(leader, *strangers) == ["told"] * 4
        assert len(case.told) == 1

    play(main)


async def fire_and_forget(case):
    case.later.append(asyncio.create_task(case.ask()))
    await case.waits()
    await asyncio.sleep(CONTENT)


async def fire_and_forget_from_a_task(case):
    await asyncio.create_task(fire_and_forget(case))


async def fire_and_forget_a_thread(case):
    case.later.append(asyncio.create_task(asyncio.to_thread(case.ask_plainly)))
    await case.waits()
    await asyncio.sleep(CONTENT)


async def fire_and_forget_a_bare_thread(case):
    run = functools.partial(contextvars.copy_context().run, case.ask_plainly)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    case.later.append(asyncio.get_running_loop().create_task(eventually(lambda: not thread.is_alive())))
    await case.waits()
    await asyncio.sleep(CONTENT)


async def waited_for_the_first(case):
    case.later.append(asyncio.create_task(case.ask()))
    other = asyncio.create_task(asyncio.sleep(CONTENT))
    done, _ = await asyncio.wait([case.later[0], other], return_when=asyncio.FIRST_COMPLETED)
    assert done == {other}


async def waited_for_the_first_error(case):
    async def fail():
        await asyncio.sleep(CONTENT)
        raise LookupError

    case.later.append(asyncio.create_task(case.ask()))
    other = asyncio.create_task(fail())
    done, _ = await asyncio.wait([case.later[0], other], return_when=asyncio.FIRST_EXCEPTION)
    assert done == {other}
    assert isinstance(other.exception(), LookupError)


async def waited_for_a_while(case):
    case.later.append(asyncio.create_task(case.ask()))
    done, _ = await asyncio.wait(case.later, timeout=CONTENT)
    assert not done


async def to_be_cancelled_by(case):
    case.later.append(asyncio.create_task(case.ask()))
    case.later[0].add_done_callback(asyncio.current_task().cancel)
    await case.waits()
    await asyncio.sleep(CONTENT)


async def named_to_a_callback(case):
    case.later.append(asyncio.create_task(case.ask()))
    case.later[0].add_done_callback(functools.partial(lambda *_: None, asyncio.current_task()))
    await case.waits()
    await asyncio.sleep(CONTENT)


INNOCENT = [
    fire_and_forget,
    fire_and_forget_from_a_task,
    fire_and_forget_a_thread,
    fire_and_forget_a_bare_thread,
    waited_for_the_first,
    waited_for_the_first_error,
    waited_for_a_while,
    to_be_cancelled_by,
    named_to_a_callback,
]


def test_who_does_not_wait_is_not_accused(play):
    """Background tasks and threads that ask, and waiting for the first of several, get the value."""

    async def one(shape):
        case = Case(shape)
        assert await case.fetch() == "done", shape.__name__
        await asyncio.gather(*case.later)
        assert case.told == [], shape.__name__
        assert case.values == ["done"], shape.__name__
        assert case.fetch.stats().calls == 1

    async def main():
        await asyncio.gather(*(one(shape) for shape in INNOCENT))

    play(main)


async def directly(call):
    return await call


async def by_gather(call):
    return (await asyncio.gather(call, asyncio.sleep(0)))[0]


async def by_task(call):
    return await asyncio.create_task(call)


@pytest.mark.parametrize("first", [directly, by_gather, by_task], ids=lambda how: how.__name__)
@pytest.mark.parametrize("second", [directly, by_gather, by_task], ids=lambda how: how.__name__)
def test_a_cycle_over_two_keys(play, first, second):
    """Two leaders that wait for each other, in whatever way: one is told, the other gets a value."""

    async def main():
        seen, told = Recorder(), []
        ready = {"A": asyncio.Event(), "B": asyncio.Event()}

        @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen)
        async def fetch(key):
            await ready[key].wait()
            how, other = (first, "B") if key == "A" else (second, "A")
            try:
                return key + await how(fetch(other))
            except FlightDeadlock:
                told.append(key)
                return key

        callers = [asyncio.create_task(fetch(key)) for key in "AB"]
        await eventually(lambda: seen.count("fetch") == 2)
        ready["A"].set()
        await eventually(lambda: seen.count("wait"))
        ready["B"].set()
        outcomes = await asyncio.gather(*callers)
        assert (outcomes, told) in ((["AB", "B"], ["B"]), (["A", "BA"], ["A"]))
        assert fetch.flights() == ()

    play(main)


def test_a_cycle_over_a_task_and_a_worker_thread(play):
    """A coroutine that waits in a thread for a key whose plain function asks for the first one."""

    async def main():
        told = []

        @single_flight_ttl(ttl=60, key=lambda key: key)
        async def fetch(key):
            try:
                return key + await asyncio.to_thread(plain, "B")
            except FlightDeadlock:
                told.append(key)
                raise

        @fetch.twin
        def plain(key):
            try:
                return key + plain("A")
            except FlightDeadlock:
                told.append(key)
                return key

        assert await fetch("A") == "AB"
        assert told == ["B"]
        assert fetch.flights() == ()

    play(main)


def test_a_dependency_in_a_group_is_no_cycle(play):
    """Leaders that gather other keys, one of them in common, accuse nobody."""

    async def main():
        calls = []

        @single_flight_ttl(ttl=60)
        async def fetch(key):
            calls.append(key)
            await asyncio.sleep(0)
            if key > 0:
                values = await asyncio.gather(*(fetch(below) for below in range(key)))
                return sum(values) + 1
            return 1

        values = await asyncio.gather(*(fetch(key) for key in range(6)))
        assert values == [2**key if key else 1 for key in range(6)]
        assert sorted(calls) == list(range(6))

    play(main)


def test_a_background_task_may_ask_after_the_flight(play):
    """A task that was started inside a flight and outlives it asks like anybody else."""

    async def main():
        after, tasks = asyncio.Event(), []

        @single_flight_ttl(ttl=0)
        async def fetch():
            if not tasks:
                tasks.append(asyncio.create_task(ask()))
            return 1

        async def ask():
            await after.wait()
            return await asyncio.gather(fetch(), fetch())

        assert await fetch() == 1
        after.set()
        assert await tasks[0] == [1, 1]

    play(main)


def test_a_cycle_through_a_loop_in_a_worker_thread(play):
    """A flight awaits a worker thread that runs a loop of its own, whose task asks for the flight's key."""

    async def main():
        @single_flight_ttl(ttl=60)
        async def fetch():
            return await asyncio.to_thread(lambda: asyncio.run(fetch()))

        with pytest.raises(FlightDeadlock):
            await fetch()
        assert fetch.flights() == ()

    play(main)
