"""uvloop and anyio on asyncio: other loops, the same contract in short."""

import asyncio

import pytest

from singleflight import KeyedLocks, single_flight_ttl
from singleflight.testing import Recorder

from ..drivers import InThread, LoopThread, eventually


async def story(seen, fetch, plain, open_):
    """Leader and follower, a cancelled one, a value, a failure and a lock, on whatever loop this runs."""
    tasks = [asyncio.create_task(fetch("A")) for _ in range(3)]
    thread = asyncio.create_task(asyncio.to_thread(plain, "A"))
    await eventually(lambda: seen.count("wait") == 3)
    tasks[0].cancel()
    open_.set()
    outcomes = await asyncio.gather(*tasks, thread, return_exceptions=True)
    with pytest.raises(ValueError):
        await fetch("bad")
    async with fetch.locks("B"):
        waiting = asyncio.create_task(fetch("B"))
        await eventually(lambda: fetch.locks.waiting("B") == 1)
    return outcomes[1:], await waiting


def functions(open_):
    seen, calls = Recorder(), []

    @single_flight_ttl(ttl=60, listener=seen, key=lambda key: key)
    async def fetch(key):
        calls.append(key)
        await eventually(open_.is_set)
        if key == "bad":
            raise ValueError
        return key * 2

    @fetch.twin
    def plain(key):
        raise AssertionError("a task was first")

    return seen, calls, fetch, plain


def tell(story_of):
    """Run it, and check what it did."""
    open_ = asyncio.Event()
    seen, calls, fetch, plain = functions(open_)
    outcomes, locked = story_of(seen, fetch, plain, open_)
    assert outcomes == ["AA", "AA", "AA"]
    assert locked == "BB"
    assert calls == ["A", "bad", "B"]
    assert fetch.flights() == ()
    assert len(fetch.locks) == fetch.locks.idle


def test_uvloop():
    """The whole story runs on uvloop, and a flight of it is shared with an asyncio loop."""
    uvloop = pytest.importorskip("uvloop")
    loop = LoopThread(uvloop.new_event_loop())
    try:
        tell(lambda *args: loop.run(story, *args))
    finally:
        loop.close()
    assert loop.reports == []


def test_uvloop_and_asyncio_share_a_flight():
    """One call for two kinds of loop and a thread."""
    uvloop = pytest.importorskip("uvloop")
    seen, locks = Recorder(), KeyedLocks()

    @single_flight_ttl(ttl=60, listener=seen)
    async def fetch():
        await eventually(lambda: seen.count("wait") == 2)
        return [1]

    @fetch.twin
    def plain():
        raise AssertionError("a task was first")

    async def in_thread():
        return plain()

    async def take():
        for _ in range(20):
            async with locks("a"):
                await asyncio.sleep(0)

    fast, slow = LoopThread(uvloop.new_event_loop()), LoopThread()
    try:
        leader = fast.start(fetch)
        seen.wait_for("fetch")
        followers = slow.start(fetch), InThread(in_thread, ())
        value = leader.outcome()
        assert value == [1]
        assert all(follower.outcome() is value for follower in followers)
        taking = fast.start(take), slow.start(take)
        assert [each.outcome() for each in taking] == [None, None]
    finally:
        fast.close()
        slow.close()
    assert fast.reports == slow.reports == []


def test_anyio_on_asyncio():
    """Task groups, cancel scopes and worker threads of anyio's asyncio backend."""
    anyio = pytest.importorskip("anyio")

    async def main(seen, fetch, plain, open_):
        values = []

        async def ask():
            values.append(await fetch("A"))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await eventually(lambda: seen.count("fetch"))
            with anyio.move_on_after(0.01) as scope:
                await ask()
            assert scope.cancelled_caught
            group.start_soon(ask)
            group.start_soon(lambda: anyio.to_thread.run_sync(plain, "A"))
            await eventually(lambda: seen.count("wait") == 3)
            open_.set()
        assert values == ["AA", "AA"]

        with anyio.CancelScope() as scope:
            scope.cancel()
            await fetch("C")
        assert scope.cancelled_caught
        await eventually(lambda: not fetch.flights())

    open_ = asyncio.Event()
    seen, calls, fetch, plain = functions(open_)
    loop = LoopThread()
    try:
        loop.run(run_in_anyio, anyio, main, (seen, fetch, plain, open_))
    finally:
        loop.close()
    assert calls[0] == "A"
    assert calls.count("A") == 1
    assert fetch.flights() == ()
    assert loop.reports == []


async def run_in_anyio(anyio, main, args):
    """`anyio.run` makes a loop of its own, so it gets a thread of its own."""
    await asyncio.to_thread(anyio.run, main, *args, backend="asyncio")
