"""Calls that are made where the stack ends: wherever there is no more room, no key stays taken."""

import asyncio
import threading

import pytest

from singleflight import KeyedLocks, single_flight_ttl
from singleflight.testing import FakeClock

from ..drivers import eventually, until
from .conftest import assert_quiet, padded, with_room_for

ROOM = range(45)  # from none at all to more than any call needs
PATIENCE = 10.0


def scenes():
    """One function with a loader, a twin, renewals and a stored failure, and what is done with it."""

    @single_flight_ttl(ttl=60, maxsize=4)
    def load(key):
        return key

    @load.bulk(max_batch=2)
    def load_all(keys):
        return {key: key for key in keys}

    @single_flight_ttl(ttl=60, failure_ttl=60)
    def fail(key):
        raise ConnectionError(key)

    locks = KeyedLocks()

    def lock(key):
        with locks(key):
            return key

    return {
        "call": (lambda key: load(key), [load]),
        "refresh": (lambda key: load.refresh(key), [load]),
        "bulk": (lambda key: load_all([key, (key, 1), (key, 2)]), [load]),
        "failure": (lambda key: fail(key), [fail]),
        "put": (lambda key: load.put(key, key), [load]),
        "invalidate": (lambda key: load.invalidate(key), [load]),
        "clear": (lambda key: load.cache_clear(), [load]),
        "locks": (lock, []),
    }


@pytest.mark.parametrize("scene", scenes())
def test_a_call_at_the_end_of_the_stack_leaves_nothing(scene):
    """Whatever finds no room, the key is free afterwards, and the same call works where there is room."""
    run, functions = scenes()[scene]
    outcomes = set()
    for frames in ROOM:
        outcome = with_room_for(frames, lambda key=frames: run(key))
        outcomes.add(type(outcome) is RecursionError)
        assert_quiet(*functions)
        if scene != "failure":
            run(frames)
    assert outcomes == {True, False}, "the sweep did not cross the end of the stack"


@pytest.mark.parametrize("scene", ["call", "bulk", "refresh"])
def test_a_stranger_is_not_held_up(scene):
    """Another thread that asks for the same key meanwhile, or later, is served."""
    run, functions = scenes()[scene]
    for frames in ROOM:
        with_room_for(frames, lambda key=frames: run(key))
        got = []
        stranger = threading.Thread(target=lambda key=frames, got=got: got.append(run(key)), daemon=True)
        stranger.start()
        stranger.join(PATIENCE)
        assert got, f"a stranger waits for ever after room for {frames} frames"
    assert_quiet(*functions)


def test_a_function_that_calls_itself_to_the_end_of_the_stack():
    """All of its flights have ended when the outermost call is left, wherever exactly the stack ended."""

    @single_flight_ttl(ttl=60)
    def size(level):
        return 1 + size(level + 1)

    @size.twin
    def shallow(level):
        return "fetched"

    for frames in range(8):
        with pytest.raises(RecursionError):
            padded(frames, lambda: size(0))
        assert_quiet(size)
        assert [shallow(level) for level in (0, 1, 100, 150, 200, 250, 300, 330)] == ["fetched"] * 8
        size.cache_clear()


def test_a_loader_that_calls_itself_to_the_end_of_the_stack():
    """The same for bulk calls, several keys each."""

    @single_flight_ttl(ttl=60)
    def load(key):
        return key

    @load.bulk
    def load_all(keys):
        return {key: load_all([key + 2, key + 3]) for key in keys}

    for frames in range(8):
        with pytest.raises(RecursionError):
            padded(frames, lambda: load_all([0, 1]))
        assert_quiet(load)
        assert [load(key) for key in range(4)] == list(range(4))
        load.cache_clear()


def test_a_renewal_that_finds_no_room(monkeypatch):
    """A stale value whose renewal runs in line at the end of the stack is renewed by whoever comes next."""
    monkeypatch.setattr("singleflight.drivers.threads.in_background", lambda run: False)
    for frames in ROOM:
        clock, runs = FakeClock(), []

        @single_flight_ttl(ttl=60, grace=600, timer=clock, key=lambda key, runs: key)
        def load(key, *, runs=runs):
            runs.append(key)
            return len(runs)

        assert load("k") == 1
        clock.advance(61)
        with_room_for(frames, lambda load=load: load("k"))
        clock.advance(2)
        assert_quiet(load)
        assert load("k") > 1
        assert_quiet(load)


@pytest.mark.parametrize("bulk", [False, True], ids=["single", "bulk"])
def test_a_coroutine_function_at_the_end_of_the_stack(bulk):
    """A loop that runs deep down: the flights of its tasks end, and so does the drain."""

    @single_flight_ttl(ttl=60)
    async def load(key):
        return key

    @load.bulk
    async def load_all(keys):
        return {key: key for key in keys}

    deep = []

    async def main():
        task = asyncio.current_task()
        run = (lambda key: load_all([key, (key, 1)])) if bulk else load
        for frames in ROOM:
            coroutine = run(frames)
            # Driven by hand, as a coroutine that awaits it would drive it: its frames are on this stack.
            outcome = with_room_for(frames, lambda coroutine=coroutine: coroutine.send(None))
            deep.append(type(outcome))
            if asyncio.isfuture(outcome):
                for _ in range(5):
                    await asyncio.sleep(0)
            coroutine.close()
            for _ in range(5):
                await asyncio.sleep(0)
            assert (await asyncio.wait_for(run(frames), PATIENCE)) is not None
            assert task is asyncio.current_task()

    asyncio.run(main())
    assert RecursionError in deep
    assert_quiet(load)


def test_the_callers_own_error_arrives():
    """An exception of the function is not replaced by the stack's end that its ending met."""

    @single_flight_ttl(ttl=60)
    def fail(key):
        raise ConnectionError(key)

    outcomes = [with_room_for(frames, lambda key=frames: fail(key)) for frames in ROOM]
    kinds = [type(outcome) for outcome in outcomes]
    assert set(kinds) == {RecursionError, ConnectionError}
    first = kinds.index(ConnectionError)
    assert set(kinds[first:]) == {ConnectionError}, "once the function was called, its error arrives"
    assert_quiet(fail)


def leading_in_a_thread(frames, *, bulk):
    """A thread leads where there is room for so many frames, and a task follows; what it receives."""
    called, go = threading.Event(), threading.Event()

    @single_flight_ttl(ttl=60)
    def load(key):
        called.set()
        assert go.wait(PATIENCE)
        return key

    @load.twin
    async def load_in_task(key):
        return key

    @load_in_task.bulk
    async def load_all(keys):
        return {key: key for key in keys}

    async def follow(leader):
        while leader.is_alive() and not called.is_set():
            await asyncio.sleep(0)
        follower = asyncio.create_task(load_all(["k"]) if bulk else load_in_task("k"))
        await eventually(lambda: all(flight.followers for flight in load.flights()))
        go.set()
        return await asyncio.wait_for(follower, PATIENCE)

    leader = threading.Thread(target=lambda: with_room_for(frames, lambda: load("k")))
    leader.start()
    received = asyncio.run(follow(leader))
    leader.join(PATIENCE)
    assert_quiet(load, load_in_task)
    return received


@pytest.mark.parametrize("bulk", [False, True], ids=["single", "bulk"])
def test_a_task_that_follows_a_thread_there_is_woken(bulk):
    """A task of a loop is served by a call that ends where hardly any room is left to wake it."""
    for frames in ROOM:
        assert leading_in_a_thread(frames, bulk=bulk) == ({"k": "k"} if bulk else "k")


class Deep:
    """A key that takes some frames to be hashed."""

    def __init__(self, name):
        self.name = name

    def __eq__(self, other):
        return isinstance(other, Deep) and other.name == self.name

    def __hash__(self):
        return padded(5, lambda: hash(self.name))


def failing_beside_others(frames):
    """A call that fails there, while another key is in flight; how often that other key was loaded."""
    called, go = threading.Event(), threading.Event()
    runs = []

    @single_flight_ttl(ttl=60)
    def load(key):
        runs.append(key.name)
        if key.name == "slow":
            called.set()
            assert go.wait(PATIENCE)
        if key.name == "fails":
            raise ConnectionError
        return key.name

    load(Deep("stored"))
    callers = [threading.Thread(target=load, args=(Deep("slow"),)) for _ in range(2)]
    callers[0].start()
    assert called.wait(PATIENCE)
    with_room_for(frames, lambda: load(Deep("fails")))
    callers[1].start()
    until(lambda: runs.count("slow") > 1 or load.flights()[0].followers)
    go.set()
    for caller in callers:
        caller.join(PATIENCE)
    assert load.entry(Deep("stored")) is not None
    assert_quiet(load)
    return runs.count("slow")


def test_other_calls_in_flight_are_still_shared():
    """Where there is no room to hash keys they are not taken for spoilt."""
    assert [failing_beside_others(frames) for frames in ROOM] == [1] * len(ROOM)


def dropping(frames, how):
    """One of four values goes there, by the limit, the clock or its caller; which are stored then."""
    clock = FakeClock()

    @single_flight_ttl(ttl=lambda landing: landing.value, maxsize=4, timer=clock)
    def load(key):
        return 10 if key.name == "short" else 60

    names = ["short", "a", "b", "c"]
    for name in names:
        load(Deep(name))
    if how == "clock":
        clock.advance(11)
    run = {"limit": lambda: load(Deep("another")), "caller": lambda: load.invalidate(Deep("short"))}
    with_room_for(frames, run.get(how, load.stats))
    assert load.stats().entries <= 4
    assert_quiet(load)
    return [name for name in names if load.entry(Deep(name)) is not None]


@pytest.mark.parametrize("how", ["limit", "clock", "caller"])
def test_what_is_stored_is_not_thrown_away(how):
    """Nor do other values go, because there was no room to hash the one that is to go."""
    assert {tuple(dropping(frames, how))[-3:] for frames in ROOM} == {("a", "b", "c")}


def test_no_value_of_a_loader_is_lost():
    """A bulk call there raises, or answers with everything."""

    @single_flight_ttl(ttl=60)
    def load(key):
        return key.name

    @load.bulk
    def load_all(keys):
        return {key: key.name for key in keys}

    kinds = set()
    for frames in range(70):
        keys = [Deep((frames, place)) for place in range(3)]
        outcome = with_room_for(frames, lambda keys=keys: load_all(keys))
        kinds.add(type(outcome))
        assert isinstance(outcome, RecursionError) or len(outcome) == 3
        assert_quiet(load)
    assert kinds == {RecursionError, dict}
