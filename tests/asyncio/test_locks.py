"""Keyed locks for tasks: the same registry as for threads, first come first served, and nothing leaks."""

import asyncio
import itertools
import time

import pytest

from singleflight import FlightDeadlock, FlightTimeout, KeyedLocks, UnhashableKey, single_flight_ttl

from ..drivers import PATIENCE, InThread, eventually, until
from ..patience import Patience


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


@pytest.mark.parametrize("max_idle", [0, 1, None])
def test_a_key_has_one_owner_at_a_time(loops, max_idle):
    """Tasks on two loops and threads, under contention: an unguarded counter stays exact."""
    locks, counts = KeyedLocks(max_idle), [0, 0, 0]

    async def hammer():
        for number in range(100):
            async with locks(number % 3):
                before = counts[number % 3]
                await asyncio.sleep(0)
                counts[number % 3] = before + 1

    async def hammer_plainly():
        for number in range(100):
            with locks(number % 3):
                before = counts[number % 3]
                time.sleep(0)
                counts[number % 3] = before + 1

    one, two = loops(), loops()
    callers = [loop.start(hammer) for loop in (one, two) for _ in range(3)]
    callers += [InThread(hammer_plainly, ()) for _ in range(3)]
    assert [caller.outcome(30) for caller in callers] == [None] * 9
    assert sorted(counts) == [297, 297, 306]
    assert len(locks) == locks.idle


def test_first_come_first_served(loops, make_gate):
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


def test_different_keys_do_not_block_one_another(play):
    """Ten tasks hold ten keys at once."""
    locks, together = KeyedLocks(), []

    async def hold(key):
        async with locks(key):
            together.append(key)
            await eventually(lambda: len(together) == 10)

    async def main():
        await asyncio.gather(*(hold(key) for key in range(10)))

    play(main)


def test_several_keys_in_any_order_never_deadlock(loops):
    """Statements that take several keys at once never block one another, in threads and tasks."""
    locks, inside, wrong = KeyedLocks(max_idle=0), dict.fromkeys("abcd", 0), []

    def keys_of(turn, number):
        return ["abcd"[(turn + number + step * (1 if turn % 2 else 3)) % 4] for step in range(3)]

    def enter(keys, change):
        for key in keys:
            inside[key] += change
            if inside[key] not in (0, 1):
                wrong.append(key)

    async def hammer(turn):
        for number in range(60):
            keys = keys_of(turn, number)
            async with locks(*keys, timeout=PATIENCE):
                enter(keys, 1)
                await asyncio.sleep(0)
                enter(keys, -1)

    async def hammer_plainly(turn):
        for number in range(60):
            keys = keys_of(turn, number)
            with locks(*keys, timeout=PATIENCE):
                enter(keys, 1)
                time.sleep(0)
                enter(keys, -1)

    one, two = loops(), loops()
    callers = [loop.start(hammer, turn) for loop in (one, two) for turn in range(2)]
    callers += [InThread(hammer_plainly, (turn,)) for turn in range(2)]
    assert [caller.outcome(30) for caller in callers] == [None] * 6
    assert not wrong
    assert len(locks) == 0


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


@pytest.mark.parametrize("timeout", [0, 0.02])
def test_a_timeout_leaks_nothing(play, timeout):
    """FlightTimeout is raised, the queue is as it was, and none of the other keys is held."""

    async def main():
        locks, open_ = KeyedLocks(max_idle=0), asyncio.Event()
        holder = asyncio.create_task(take(locks, "a", hold=open_.wait())())
        await eventually(lambda: locks.held("a"))
        for _ in range(3):
            with pytest.raises(FlightTimeout):
                async with locks("b", "a", timeout=timeout):
                    pass
            assert (locks.waiting("a"), locks.held("b")) == (0, False)
        open_.set()
        await holder
        async with locks("a", timeout=0):
            assert locks.held("a")
        assert len(locks) == 0

    play(main)


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


def test_an_exception_inside_the_block_releases_the_key(play):
    """Whatever ends the block, a cancellation included, the key is free."""

    async def main():
        locks = KeyedLocks()
        for kind in (ValueError, asyncio.CancelledError):
            with pytest.raises(kind):
                async with locks("a", "b"):
                    raise kind
            assert not locks.held("a")
            assert not locks.held("b")

    play(main)


@pytest.mark.parametrize("inner", ["async", "sync"])
@pytest.mark.parametrize("outer", ["async", "sync"])
def test_taking_a_held_key_again(play, outer, inner):
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


def test_nested_locks_in_opposite_orders(loops, make_gate):
    """A task and a thread that nest two keys in opposite orders: one is told, the other gets both."""
    locks, mine = KeyedLocks(), {"a": make_gate(), "b": make_gate()}

    async def nest():
        async with locks("a"):
            mine["a"].set()
            await mine["b"]
            async with locks("b"):
                return "both"

    async def nest_plainly():
        with locks("b"):
            mine["b"].set()
            await mine["a"]
            with locks("a"):
                return "both"

    callers = [loops().start(nest), InThread(nest_plainly, ())]
    outcomes = [caller.outcome() for caller in callers]
    assert outcomes.count("both") == 1
    assert sum(isinstance(outcome, FlightDeadlock) for outcome in outcomes) == 1
    assert len(locks) == locks.idle


def test_tasks_that_nest_two_keys_in_opposite_orders(play):
    """The same with two tasks of one loop."""

    async def main():
        locks, mine = KeyedLocks(), {"a": asyncio.Event(), "b": asyncio.Event()}

        async def nest(first, second):
            async with locks(first):
                mine[first].set()
                await mine[second].wait()
                async with locks(second):
                    return "both"

        outcomes = await asyncio.gather(nest("a", "b"), nest("b", "a"), return_exceptions=True)
        assert outcomes.count("both") == 1
        assert sum(isinstance(outcome, FlightDeadlock) for outcome in outcomes) == 1
        assert len(locks) == locks.idle

    play(main)


def test_a_held_lock_keeps_flights_out(play):
    """While a task holds fn.locks(key) callers wait; after it they make one call together."""

    async def main():
        calls = []

        @single_flight_ttl(ttl=60, key=lambda key: key)
        async def fetch(key):
            calls.append(key)
            return key

        async with fetch.locks("A"):
            callers = [asyncio.create_task(fetch("A")) for _ in range(3)]
            await eventually(lambda: fetch.locks.waiting("A") == 3)
            assert calls == []
            assert await fetch("B") == "B"
        assert await asyncio.gather(*callers) == ["A"] * 3
        assert calls == ["B", "A"]

    play(main)


def test_a_flight_keeps_the_lock_out(play):
    """While a key is being fetched no task gets its lock; the queue is one for both."""

    async def main():
        open_, order = asyncio.Event(), []

        @single_flight_ttl(ttl=60, key=lambda key: key)
        async def fetch(key):
            await open_.wait()
            order.append("flight")

        flight = asyncio.create_task(fetch("A"))
        await eventually(lambda: fetch.flights())
        with pytest.raises(FlightTimeout):
            async with fetch.locks("A", timeout=0):
                pass
        lock = asyncio.create_task(take(fetch.locks, "A", note=lambda: order.append("lock"))())
        await eventually(lambda: fetch.locks.waiting("A") == 1)
        open_.set()
        await asyncio.gather(flight, lock)
        assert order == ["flight", "lock"]

    play(main)


@pytest.mark.parametrize("timeout", [0.25, 7])
def test_no_pause_is_longer_than_the_timeout(play, monkeypatch, timeout):
    """A task that waits for a key looks again when its time is over, and not at the next full second."""
    patience, locks = Patience(monkeypatch), KeyedLocks()

    async def main():
        held = asyncio.Event()

        async def wait():  # it does not begin within the block, whose children are looked after more often
            await held.wait()
            return await take(locks, "a", timeout=timeout)()

        waiting = asyncio.create_task(wait())
        async with locks("a"):
            held.set()
            await eventually(lambda: patience.waits)
            assert set(patience.waits) == {timeout}
        assert await waiting == "had it"

    play(main)


def test_a_lock_taken_inside_its_own_flight(play):
    """The coroutine that asks for its own key's lock would wait for itself."""

    async def main():
        @single_flight_ttl(ttl=60, key=lambda key: key)
        async def fetch(key):
            async with fetch.locks(key, timeout=5):
                return key

        with pytest.raises(FlightDeadlock, match="'A' -> 'A'"):
            await fetch("A")
        assert len(fetch.locks) == fetch.locks.idle

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
