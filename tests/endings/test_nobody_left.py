"""Flights that nobody is left to end: the thread has ended, or its loop stands still under another one."""

import asyncio
import threading

import pytest

from singleflight import FlightDeadlock, drain_sync, single_flight_ttl
from singleflight.core import coordinator
from singleflight.core.call import LEAD, Call, new_call
from singleflight.locks.lives import life_of_this_thread
from singleflight.locks.waiters import get_ident

from ..drivers import InThread, LoopThread, until
from .conftest import assert_quiet

SOON = 5.0


def in_a_thread_that_ends(run):
    """Run something in a thread; its identifier, which is free again."""
    idents = []
    thread = threading.Thread(target=lambda: (idents.append(get_ident()), run()))
    thread.start()
    thread.join(SOON)
    assert not thread.is_alive()
    return idents[0]


def test_a_life_ends_with_its_thread():
    """It is the same object each time, and returns None once its thread has ended."""
    lives = []
    in_a_thread_that_ends(lambda: lives.extend([life_of_this_thread(), life_of_this_thread()]))
    until(lambda: lives[0]() is None)
    assert lives[0] is lives[1]
    assert life_of_this_thread()() is not None


def left_behind(function, key):
    """A flight that a thread claims and never ends."""
    memo = function._self_cache

    def claim():
        me = get_ident()
        assert coordinator.board(memo, new_call(Call, key, me, me, me)) is LEAD

    ident = in_a_thread_that_ends(claim)
    (slot,) = memo.locks.live()
    until(slot.turn.is_dead)
    return ident


@pytest.mark.parametrize("how", ["call", "refresh", "bulk", "drain"])
def test_a_flight_whose_thread_has_ended_is_given_up(how):
    """Whoever comes next leads a flight of its own, and a drain does not wait."""

    @single_flight_ttl(ttl=60)
    def load(key):
        return "loaded"

    @load.bulk
    def load_all(keys):
        return dict.fromkeys(keys, "loaded")

    left_behind(load, ("k",))
    ways = {
        "call": lambda: load("k"),
        "refresh": lambda: load.refresh("k"),
        "bulk": lambda: load_all(["k"])["k"],
        "drain": lambda: "loaded" if drain_sync(timeout=SOON) else "in flight",
    }
    assert InThread(lambda: blocking_value(ways[how]), ()).outcome(SOON) == "loaded"
    load("k")
    assert_quiet(load)


async def blocking_value(run):
    return run()


def test_a_follower_notices_that_the_thread_has_ended():
    """One that waits already looks once a second, and takes over."""

    @single_flight_ttl(ttl=60)
    def load(key):
        return "loaded"

    memo, claimed, end = load._self_cache, threading.Event(), threading.Event()

    def claim_and_linger():
        me = get_ident()
        assert coordinator.board(memo, new_call(Call, ("k",), me, me, me)) is LEAD
        claimed.set()
        end.wait(SOON)

    leader = threading.Thread(target=claim_and_linger)
    leader.start()
    assert claimed.wait(SOON)
    follower = InThread(lambda: blocking_value(lambda: load("k")), ())
    until(lambda: load.flights()[0].followers == 1)
    end.set()
    leader.join(SOON)
    assert follower.outcome(SOON) == "loaded"
    assert_quiet(load)


def test_a_thread_with_the_same_identifier_is_a_stranger():
    """A thread that got the identifier of one that has ended is not told that it waits for itself."""

    @single_flight_ttl(ttl=60)
    def load(key):
        return "loaded"

    for _ in range(200):
        ident = left_behind(load, ("k",))
        outcome = []

        def ask(outcome=outcome):
            try:
                outcome.append((get_ident(), load("k")))
            except FlightDeadlock as error:
                outcome.append((get_ident(), error))

        waiter = threading.Thread(target=ask, daemon=True)
        waiter.start()
        waiter.join(SOON)
        assert outcome, "the asker waits for ever"
        assert outcome[0][1] == "loaded"
        load.cache_clear()
        if outcome[0][0] == ident:
            return
    pytest.skip("this system gave no identifier twice")


@pytest.mark.parametrize("bulk", [False, True], ids=["single", "bulk"])
def test_a_flight_on_a_stopped_loop_of_this_very_thread(bulk):
    """Its loop cannot go on while another runs on the thread: whoever asks there leads a flight of its own.

    Once it goes on, what it brings is its own caller's, and the newer value stays.
    """
    answers = iter(["first", "second"])
    gate = None

    @single_flight_ttl(ttl=60)
    async def load(key):
        answer = next(answers)
        if answer == "first":
            await gate.wait()
        return answer

    @load.bulk
    async def load_all(keys):
        return dict.fromkeys(keys, await load.__wrapped__("k"))

    def story():
        nonlocal gate
        stopped, running = asyncio.new_event_loop(), asyncio.new_event_loop()
        gate = asyncio.Event()
        ask = (lambda: load_all(["k"])) if bulk else (lambda: load("k"))

        async def begin():
            task = asyncio.ensure_future(ask())
            for _ in range(5):
                await asyncio.sleep(0)
            return task

        first = stopped.run_until_complete(begin())
        second = running.run_until_complete(asyncio.wait_for(load("k"), SOON))
        stopped.call_soon(gate.set)
        outcome = stopped.run_until_complete(first), second
        entry = load.entry("k").value
        for loop in (stopped, running):
            loop.close()
        return outcome, entry

    outcome, entry = InThread(lambda: blocking_value(story), ()).outcome(2 * SOON)
    assert outcome == ({"k": "first"} if bulk else "first", "second")
    assert entry == "second"
    assert_quiet(load)


def test_a_loop_that_runs_on_another_thread_is_not_given_up():
    """A flight on a loop that is merely busy elsewhere is waited for."""

    @single_flight_ttl(ttl=60)
    async def load(key):
        await asyncio.to_thread(release.wait, SOON)
        return "first"

    release = threading.Event()
    elsewhere, here = LoopThread(), LoopThread()
    try:
        leader = elsewhere.start(load, "k")
        until(load.flights)
        follower = here.start(load, "k")
        until(lambda: load.flights()[0].followers == 1)
        release.set()
        assert (leader.outcome(), follower.outcome()) == ("first", "first")
        assert load.stats().calls == 1
    finally:
        elsewhere.close()
        here.close()


@pytest.mark.parametrize("struck", [KeyboardInterrupt, RecursionError])
def test_a_flight_whose_invalidation_was_cut_short_ends(struck, monkeypatch):
    """Its key is free, and it is counted out, once it has ended."""
    called, go = threading.Event(), threading.Event()

    @single_flight_ttl(ttl=60)
    def load(key):
        called.set()
        assert go.wait(SOON)
        return key

    def strike(_slot, _after):
        raise struck

    caller = threading.Thread(target=load, args=("k",))
    caller.start()
    assert called.wait(SOON)
    with monkeypatch.context() as patched, pytest.raises(struck):
        patched.setattr(load.locks, "vacate", strike)
        load.invalidate("k")
    go.set()
    caller.join(SOON)
    assert_quiet(load)
    assert load.entry("k") is None
