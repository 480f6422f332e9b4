"""Keyed locks for tasks: the same registry as for threads, first come first served, and nothing leaks."""

import asyncio
import itertools

import pytest

from singleflight import FlightDeadlock, FlightTimeout, KeyedLocks, UnhashableKey

from ..drivers import InThread, eventually, until


def take(locks, *keys, hold=None, note=None, timeout=None):
    """A coroutine function that takes keys, notes it, and holds them until a gate opens."""

    async def run():
        async with locks(*keys, timeout=timeout):
            if note is not None:
                note()
            if hold is not None:
                await hold
        return "had it"

    return run


def take_plainly(locks, *keys, hold=None, note=None):
    """The same for a thread."""

    async def run():
        with locks(*keys):
            if note is not None:
                note()
            if hold is not None:
                await hold
        return "had it"

    return run


def test_threads_and_tasks_stand_in_one_queue(loops, make_gate):
    """Threads and tasks on two loops get the key in the order in which they asked for it."""
    locks, gate, order = KeyedLocks(max_idle=0), make_gate(), []
    one, two = loops(), loops()
    callers = [one.start(take(locks, "a", hold=gate))]
    until(lambda: locks.held("a"))
    for number in range(9):

        def note(number=number):
            order.append(number)

        if number % 3 == 0:
            callers.append(InThread(take_plainly(locks, "a", note=note), ()))
        else:
            callers.append((one, two)[number % 3 - 1].start(take(locks, "a", note=note)))
        until(lambda number=number: locks.waiting("a") == number + 1)
    gate.set()
    assert [caller.outcome() for caller in callers] == ["had it"] * 10
    assert order == list(range(9))
    assert len(locks) == 0


def test_waiting_does_not_block_the_loop(loops, make_gate):
    """While a task waits for a key that a thread holds, its loop goes on."""
    locks, gate = KeyedLocks(), make_gate()
    holder = InThread(take_plainly(locks, "a", hold=gate), ())
    until(lambda: locks.held("a"))
    loop = loops()
    waiter = loop.start(take(locks, "a"))
    until(lambda: locks.waiting("a") == 1)
    assert loop.run(asyncio.sleep, 0, "alive") == "alive"
    assert not waiter.done()
    gate.set()
    assert (holder.outcome(), waiter.outcome()) == ("had it", "had it")


def test_a_thread_waits_for_a_task(loops, make_gate):
    """A plain `with` keeps out of a key that a task of another thread's loop holds."""
    locks, gate = KeyedLocks(), make_gate()
    holder = loops().start(take(locks, "a", hold=gate))
    until(lambda: locks.held("a"))
    waiter = InThread(take_plainly(locks, "a"), ())
    until(lambda: locks.waiting("a") == 1)
    with pytest.raises(FlightTimeout), locks("a", timeout=0.01):
        pass
    assert not waiter.done()
    gate.set()
    assert (holder.outcome(), waiter.outcome()) == ("had it", "had it")


def test_a_key_named_twice_is_taken_once(play):
    """Equal keys are one key, as in a dictionary."""

    async def main():
        locks = KeyedLocks()
        async with locks(1, 1.0, True, "b"):
            assert len(locks) == 2
            assert locks.held(1)
        assert not locks.held(1)

    play(main)


def test_bad_arguments_raise_before_anything_is_awaited():
    """No key, an unhashable key or a bad timeout raise at once, as for threads."""
    locks = KeyedLocks()
    with pytest.raises(TypeError, match="at least one"):
        locks()
    with pytest.raises(UnhashableKey):
        locks([])
    with pytest.raises(ValueError, match="timeout"):
        locks("a", timeout=-1)


def test_a_cancelled_waiter_leaks_nothing(play):
    """Wherever it stands in the queue, the others get the key in their order."""

    async def main():
        for gone in itertools.chain.from_iterable(itertools.combinations(range(4), n) for n in range(5)):
            locks, open_, order = KeyedLocks(max_idle=0), asyncio.Event(), []
            holder = asyncio.create_task(take(locks, "a", hold=open_.wait())())
            await eventually(lambda locks=locks: locks.held("a"))
            waiters = []
            for number in range(4):
                note = lambda number=number, order=order: order.append(number)  # noqa: E731
                waiters.append(asyncio.create_task(take(locks, "a", "b", note=note)()))
                await eventually(lambda locks=locks, number=number: locks.waiting("a") == number + 1)
            for number in gone:
                waiters[number].cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            open_.set()
            outcomes = await asyncio.gather(holder, *waiters, return_exceptions=True)
            assert order == [number for number in range(4) if number not in gone]
            assert sum(outcome == "had it" for outcome in outcomes) == 5 - len(gone)
            assert len(locks) == 0

    play(main)


@pytest.mark.parametrize("steps", range(4))
def test_a_waiter_cancelled_as_it_gets_the_key(play, steps):
    """Cancelled at the moment of the hand-over, or a step or two later, it passes the key on."""

    async def main():
        locks, open_ = KeyedLocks(max_idle=0), asyncio.Event()
        holder = asyncio.create_task(take(locks, "a", hold=open_.wait())())
        await eventually(lambda: locks.held("a"))
        first = asyncio.create_task(take(locks, "a")())
        await eventually(lambda: locks.waiting("a") == 1)
        second = asyncio.create_task(take(locks, "a")())
        await eventually(lambda: locks.waiting("a") == 2)
        open_.set()
        holder.add_done_callback(lambda _: steps or first.cancel())
        for step in range(4):
            await asyncio.sleep(0)
            if step + 1 == steps:
                first.cancel()
        assert await second == "had it"
        await asyncio.gather(holder, first, return_exceptions=True)
        assert len(locks) == 0

    play(main)


@pytest.mark.parametrize("inner", ["async", "sync"])
@pytest.mark.parametrize("outer", ["async", "sync"])
def test_a_task_that_takes_its_key_again_in_either_way(play, outer, inner):
    """A task that takes a key which it holds is told, whichever way it took it and asks for it."""

    async def enter(locks, how):
        if how == "async":
            async with locks("b", "a", timeout=5):
                pass
        else:
            with locks("b", "a", timeout=5):
                pass

    async def main():
        locks = KeyedLocks()
        if outer == "async":
            async with locks("a"):
                with pytest.raises(FlightDeadlock, match="'a'"):
                    await enter(locks, inner)
        else:
            with locks("a"):
                with pytest.raises(FlightDeadlock, match="'a'"):
                    await enter(locks, inner)
        assert not locks.held("a")
        assert not locks.held("b")

    play(main)


def test_a_blocking_statement_against_a_task_of_the_same_loop(play):
    """A plain `with` on a loop's thread for a key that another task of that loop holds would freeze both."""

    async def main():
        locks, open_ = KeyedLocks(), asyncio.Event()
        holder = asyncio.create_task(take(locks, "a", hold=open_.wait())())
        await eventually(lambda: locks.held("a"))
        with pytest.raises(FlightDeadlock, match="'a'"), locks("a", timeout=5):
            pass
        assert locks.waiting("a") == 0
        open_.set()
        assert await holder == "had it"

    play(main)


def test_a_child_task_is_another_owner(play):
    """What a task holds its children do not: they wait for it like anybody else."""

    async def main():
        locks = KeyedLocks()
        async with locks("a"):
            child = asyncio.create_task(take(locks, "a")())
            await eventually(lambda: locks.waiting("a") == 1)
            assert not child.done()
        assert await child == "had it"

    play(main)


@pytest.mark.parametrize("shape", ["awaited", "gathered"])
def test_an_owner_that_awaits_a_child_which_wants_its_key(play, shape):
    """The child is told, as within a flight; and once the lock is free, a later child gets it."""
    locks = KeyedLocks()

    async def child():
        async with locks("a"):
            return "had it"

    async def main():
        with pytest.raises(FlightDeadlock, match="'a' -> 'a'"):
            async with locks("a"):
                if shape == "awaited":
                    await asyncio.create_task(child())
                else:
                    await asyncio.gather(child(), asyncio.sleep(0))
        async with locks("a"):
            later = asyncio.create_task(child())  # nobody waits for it: it is not accused
            await asyncio.sleep(0)
        assert await later == "had it"
        assert len(locks) == locks.idle

    play(main)
