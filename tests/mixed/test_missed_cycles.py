"""Cycles that are hard to see, and one that is none and is told all the same."""

import asyncio

import pytest

from singleflight import FlightDeadlock, KeyedLocks, single_flight_ttl

LONG = 1.0  # seconds after which who would wait for ever gives up


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
    """`wait_for(shield(task), t)` goes on after t without the task: it is no cycle."""
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
