"""locks: one owner for each key, first come, first served; cycles raise instead of waiting for ever."""

import asyncio
import itertools
import threading

import pytest

from singleflight import FlightDeadlock, FlightTimeout, KeyedLocks, report, single_flight_ttl
from singleflight.testing import Recorder, stampede

from ..drivers import InThread, until
from .conftest import outcomes


def holding(locks, *keys, gate=None, note=None):
    """A body that takes the keys, notes that, and holds them until the gate opens."""

    async def run():
        with locks(*keys):
            if note is not None:
                note()
            if gate is not None:
                gate.pass_()
        return "had it"

    return run


def held(locks, key, gate):
    """A thread that holds the key."""
    thread = InThread(holding(locks, key, gate=gate), ())
    until(lambda: locks.held(key))
    return thread


def test_the_registry_is_empty_when_idle(driver, scene):
    """With `max_idle_locks=0` no lock of a key is left once no caller holds or waits for it."""
    one = scene(max_idle_locks=0)
    for key in range(5):
        driver.start(one.fetch, key, count=4)
    driver.outcomes()
    assert len(one.fetch.locks) == 0


def test_a_waiter_that_gives_up_leaks_nothing(loops, gate):
    """A waiter that is cancelled or times out leaves the queue, and the key goes to the next one."""
    locks, loop = KeyedLocks(max_idle=0), loops()

    async def take(timeout=None):
        async with locks("A", timeout=timeout):
            return "had it"

    holder = held(locks, "A", gate)
    cancelled = loop.start(take)
    until(lambda: locks.waiting("A") == 1)
    behind = loop.start(take)
    until(lambda: locks.waiting("A") == 2)
    with pytest.raises(FlightTimeout), locks("A", timeout=0.01):
        pass
    cancelled.cancel()
    assert isinstance(cancelled.outcome(), asyncio.CancelledError)
    assert locks.waiting("A") == 1
    gate.set()
    assert outcomes([holder, behind]) == ["had it"] * 2
    assert len(locks) == 0


def test_a_timeout_of_zero(gate):
    """With a timeout of 0 a free key is taken, and a taken one raises `FlightTimeout` at once."""
    locks = KeyedLocks()
    with locks("A", timeout=0):
        assert locks.held("A")
    holder = held(locks, "A", gate)
    with pytest.raises(FlightTimeout), locks("A", timeout=0):
        pass
    gate.set()
    assert holder.outcome() == "had it"


def test_a_key_that_is_used_while_its_lock_is_evicted():
    """However often idle locks are evicted meanwhile, a key never has two locks: a counter stays exact."""
    locks, counts, ended = KeyedLocks(max_idle=1), [0, 0], threading.Event()

    def evict():
        while not ended.wait(0.0002):  # a spin would keep others out, without a global lock
            locks.evict_idle()

    evicting = threading.Thread(target=evict, daemon=True)
    evicting.start()

    def count():
        for number in range(200):
            with locks(number % 2):
                before = counts[number % 2]
                stop.wait(0)  # lets others run between the two
                counts[number % 2] = before + 1

    stop = threading.Event()
    stampede(count, 4).raise_first()
    ended.set()
    evicting.join(10)
    assert counts == [400, 400]


def test_a_lock_that_is_held_is_never_evicted(gate):
    """A lock held for longer than any idle limit stays exclusive."""
    locks = KeyedLocks(max_idle=0)
    holder = held(locks, "A", gate)
    locks.evict_idle(older_than=0)
    for other in range(50):
        with locks(other):
            pass
    with pytest.raises(FlightTimeout), locks("A", timeout=0):
        pass
    gate.set()
    assert holder.outcome() == "had it"


def test_first_come_first_served(loops, gate):
    """Threads and tasks get a key in the order in which they asked for it."""
    locks, order, loop = KeyedLocks(), [], loops()

    def caller(number):
        async def take():
            async with locks("A"):
                order.append(number)

        if number % 2:
            return loop.start(take)
        return InThread(holding(locks, "A", note=lambda: order.append(number)), ())

    callers = [held(locks, "A", gate)]
    for number in range(6):
        callers.append(caller(number))
        until(lambda number=number: locks.waiting("A") == number + 1)
    gate.set()
    outcomes(callers)
    assert order == list(range(6))


def test_several_keys_are_taken_in_one_order():
    """Naming the same keys in any order never blocks; a key that is named twice is taken once."""
    locks = KeyedLocks()
    orders = itertools.cycle(itertools.permutations("ABC"))
    lock = threading.Lock()

    def take():
        for _ in range(50):
            with lock:
                keys = next(orders)
            with locks(*keys, keys[0]):
                assert all(map(locks.held, keys))

    stampede(take, 6).raise_first()
    assert len(locks) == locks.idle == 3


def test_taking_what_one_holds_is_told(loops):
    """A thread or task that takes a key again gets `FlightDeadlock`; no key at all is a `TypeError`."""
    locks = KeyedLocks()
    with locks("A"), pytest.raises(FlightDeadlock, match="'A'"), locks("A"):
        pass

    async def again():
        async with locks("A"), locks("A"):
            pass

    with pytest.raises(FlightDeadlock, match="'A'"):
        loops().run(again)
    with pytest.raises(TypeError), locks():
        pass
    assert not locks.held("A")


def test_idle_locks_are_kept_up_to_a_limit():
    """Idle locks are kept up to `max_idle`, the latest ones; `None` keeps all, `0` none."""
    for limit, left in ((2, 2), (None, 9), (0, 0)):
        locks = KeyedLocks(max_idle=limit)
        for key in range(9):
            with locks(key):
                pass
        assert len(locks) == locks.idle == left


def test_holding_a_functions_lock_keeps_its_flights_out(driver, scene, gate):
    """While `fn.locks(key)` is held no run of that key begins; afterwards its callers make one."""
    one = scene(key=lambda key: key)
    holder = held(one.fetch.locks, "A", gate)
    callers = [driver.start(one.fetch) for _ in range(4)]
    until(lambda: one.fetch.locks.waiting("A") == 4)
    assert one.runs == 0
    gate.set()
    assert outcomes([holder, *callers]) == ["had it", 0, 0, 0, 0]


# -- nobody waits for ever -----------------------------------------------------------------------------------


def test_re_entry_is_told(driver):
    """A function that asks for its own key gets `FlightDeadlock` at once, and the key is free after."""

    async def fetch(key):
        return await fetch(key)

    fetch = driver.decorate(fetch, key=lambda key: key)
    with pytest.raises(FlightDeadlock, match="'A' -> 'A'"):
        driver.call(fetch, "A")
    assert fetch.flights() == ()


def test_a_cycle_of_two_callers_is_told(driver):
    """If A's function asks for B and B's for A, the last one gets `FlightDeadlock`, the other its value."""
    seen, gates = Recorder(), {"A": driver.gate(), "B": driver.gate()}

    async def fetch(key):
        await gates[key]
        try:
            return key + await fetch("B" if key == "A" else "A")
        except FlightDeadlock as error:
            return f"{key}({error})"

    fetch = driver.decorate(fetch, key=lambda key: key, listener=seen)
    first, second = driver.start(fetch, "A"), driver.start(fetch, "B")
    seen.wait_for("fetch", 2)
    gates["A"].set()
    seen.wait_for("wait")
    gates["B"].set()
    assert "'B' -> 'A' -> 'B'" in second.outcome()
    assert first.outcome() == "A" + second.outcome()


def test_a_cycle_names_every_key_in_order(driver):
    """The message names the whole cycle: `'A' -> 'B' -> 'C' -> 'A'`, across functions too."""

    async def fetch(key):
        return await (other("B") if key == "A" else fetch("A"))

    async def other(key):
        return await fetch("C")

    fetch = driver.decorate(fetch, key=lambda key: key)
    other = driver.decorate(other, key=lambda key: key)
    rounds = ("'A' -> 'B' -> 'C' -> 'A'", "'B' -> 'C' -> 'A' -> 'B'", "'C' -> 'A' -> 'B' -> 'C'")
    with pytest.raises(FlightDeadlock, match=f"({'|'.join(rounds)})$"):
        driver.call(fetch, "A")
    assert fetch.flights() == other.flights() == ()


@pytest.mark.parametrize("how", ["gather", "task", "group", "wait_for", "to_thread"])
def test_cycles_are_seen_through_what_a_task_awaits(loops, how):
    """A task, a group member or a worker thread that asks for its awaiter's key gets `FlightDeadlock`."""

    @single_flight_ttl(ttl=60, key=lambda: "A")
    async def fetch():
        if how == "gather":
            await asyncio.gather(asyncio.sleep(0), fetch())
        elif how == "task":
            await asyncio.create_task(fetch())
        elif how == "wait_for":
            await asyncio.wait_for(fetch(), None)
        elif how == "to_thread":
            await asyncio.to_thread(plain)
        else:
            async with asyncio.TaskGroup() as group:
                group.create_task(fetch())

    @fetch.twin
    def plain():
        raise AssertionError("the coroutine function leads")

    with pytest.raises((FlightDeadlock, ExceptionGroup)) as told:
        loops().run(fetch)
    error = told.value
    assert isinstance(error.exceptions[0] if isinstance(error, ExceptionGroup) else error, FlightDeadlock)
    assert fetch.flights() == ()


def test_a_lock_and_a_flight_may_close_a_cycle(crowd, make_gate):
    """A holder of a key that asks for a flight which waits for that key gets `FlightDeadlock`."""
    locks, seen, told, asks = KeyedLocks(), Recorder(), [], make_gate()

    @single_flight_ttl(ttl=60, key=lambda: "flight", listener=seen)
    def fetch():
        asks.pass_()
        with locks("lock"):
            return 1

    def hold():
        with locks("lock"):
            seen.wait_for("fetch")
            asks.set()
            until(lambda: locks.waiting("lock"))
            with pytest.raises(FlightDeadlock) as error:
                fetch()
            told.append(str(error.value))

    crowd.add(hold)
    crowd.add(fetch)
    assert crowd.join() == [None, 1]
    assert "'lock' -> 'flight' -> 'lock'" in told[0]


def test_a_shared_dependency_is_no_cycle(driver):
    """Many flights that ask for the same further key are served; none gets `FlightDeadlock`."""
    seen, gate = Recorder(), driver.gate()

    async def fetch(key):
        if key == "base":
            await gate
            return 1
        return await fetch("base") + 1

    fetch = driver.decorate(fetch, listener=seen)
    for key in range(5):
        driver.start(fetch, key)
    seen.wait_for("wait", 4)
    gate.set()
    assert driver.outcomes() == [2] * 5
    assert seen.count("deadlock") == 0


def test_a_plain_caller_on_the_loop_that_runs_the_flight_is_told(loops):
    """A plain caller on the loop that runs the flight gets `FlightDeadlock`; the flight continues."""

    @single_flight_ttl(ttl=60)
    async def fetch():
        begun.set()
        await release.wait()
        return 1

    @fetch.twin
    def plain():
        return 2

    async def main():
        task = asyncio.create_task(fetch())
        await begun.wait()
        with pytest.raises(FlightDeadlock):
            plain()
        release.set()
        return await task

    begun, release = asyncio.Event(), asyncio.Event()
    assert loops().run(main) == 1


def test_report_says_who_holds_a_key(gate):
    """`report()` names the thread or task that holds a function's lock, and how many wait for it."""
    fetch = single_flight_ttl(ttl=60, key=lambda: "A", name="slow report")(lambda: 1)
    holder = held(fetch.locks, "A", gate)
    assert f"lock 'A': held by thread '{holder.thread.name}', 0 queued" in report()
    gate.set()
    assert holder.outcome() == "had it"
