"""Circles that are hard to see, and one that is none: told without need."""

import asyncio
import threading

import pytest

from singleflight import FlightDeadlock, KeyedLocks, single_flight_ttl
from singleflight.testing import Recorder

from ..drivers import PATIENCE, InThread

LONG = 1.0  # seconds after which who would wait for ever gives up


def test_a_leader_that_waits_for_a_loop_of_its_own():
    """Thread 1 leads A and runs a loop that asks for B; thread 2 leads B and asks for A."""
    seen, leading = Recorder(), threading.Event()

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen, wait_timeout=LONG)
    def plain(key):
        if key == "A":
            return "A" + asyncio.run(ask_for_b())
        leading.set()
        seen.wait_for("wait")
        return "B" + plain("A")

    @plain.twin
    async def coroutine(key):
        raise AssertionError("nobody leads this way")

    async def ask_for_b():
        return await coroutine("B")

    async def ask(key):
        return plain(key)

    second = InThread(ask, ("B",))
    assert leading.wait(PATIENCE)
    first = InThread(ask, ("A",))
    assert FlightDeadlock in [type(first.outcome()), type(second.outcome())]


def test_a_loop_inside_a_worker_thread():
    """A leader waits for a worker thread, which runs a loop of its own that asks for the leader's key."""

    @single_flight_ttl(ttl=60, key=lambda: "A", wait_timeout=LONG)
    async def fetch():
        return await asyncio.to_thread(lambda: asyncio.run(ask()))

    async def ask():
        return await fetch()

    with pytest.raises(FlightDeadlock):
        asyncio.run(ask())


def test_a_holder_that_waits_for_its_child():
    """A task holds a key and awaits a child that wants it."""
    locks = KeyedLocks()

    async def take():
        async with locks("a", timeout=LONG):
            raise AssertionError("it has the key")

    async def main():
        async with locks("a"):
            await asyncio.gather(take())

    with pytest.raises(FlightDeadlock):
        asyncio.run(main())


@pytest.mark.xfail(
    strict=True, reason="the walk sees shield and wait_for, but not that the wait goes on without it"
)
def test_a_shielded_child_that_is_waited_for_for_a_while():
    """`wait_for(shield(task), t)` goes on after t without the task: it is no circle."""
    later = []

    @single_flight_ttl(ttl=60, key=lambda: "A")
    async def fetch():
        later.append(asyncio.create_task(ask()))
        try:
            await asyncio.wait_for(asyncio.shield(later[0]), 0.2)
        except TimeoutError:
            return "stale"
        except FlightDeadlock:
            return "accused"

    async def ask():
        return await fetch()

    async def main():
        value = await fetch()
        await asyncio.wait(later)
        return value

    assert asyncio.run(main()) == "stale"
