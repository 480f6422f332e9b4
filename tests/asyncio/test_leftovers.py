"""What is left when a call is over: nothing that only the collector could find."""

import asyncio
import gc
import weakref
from contextlib import suppress

import pytest

from singleflight import FlightDeadlock, FlightTimeout, single_flight_ttl
from singleflight.core import coordinator

from ..frozen import Uncopyable
from . import steps


class Thing:
    """Can be weakly referenced."""


@pytest.fixture
def without_collector():
    """What is dropped goes at once, or stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("callers", [1, 2, 3])
@pytest.mark.parametrize("error", [None, ValueError, Uncopyable])
def test_nothing_keeps_what_was_not_stored(without_collector, callers, error):
    """Neither a value nor the frames of a failure outlive the last caller."""
    things = []

    @single_flight_ttl(ttl=0, follower_retries=0)
    async def fetch():
        thing = Thing()
        things.append(weakref.ref(thing))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if error is not None:
            raise error(thing)
        return thing

    async def ask():
        try:
            await fetch()
        except error or ():
            pass

    async def main():
        tasks = [asyncio.create_task(ask()) for _ in range(callers)]
        await asyncio.wait(tasks)
        tasks.clear()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (thing,) = things
        assert thing() is None

    steps.run(steps.StepLoop(), main())


REFUSED = [
    "a child joins its parent",
    "a child waits for its parent",
    "two wait with it",
    "it asks for itself",
]


@pytest.mark.parametrize("how", REFUSED)
def test_nothing_leads_from_a_refusal_to_what_it_was_refused_for(without_collector, how):
    """A flight may come to hold an error raised from it; an exception's traceback leads to its task."""
    things, children, callers = [], [], []

    @single_flight_ttl(ttl=60, key=lambda: "k", follower_retries=0, listener=lambda event: None)
    async def fetch():
        thing = Thing()
        things.append(weakref.ref(thing))
        if how == "it asks for itself":  # and is cancelled when its work is done, before it goes on
            asyncio.get_running_loop().call_soon(callers.pop().cancel)
            await fetch()
        if how == "a child joins its parent":
            children.append(asyncio.create_task(joins()))
            await children.pop()
        children.append(asyncio.create_task(fetch()))
        await asyncio.sleep(0.01)
        try:
            await children.pop()
        except FlightDeadlock as error:
            raise ValueError from error

    async def joins():
        thing = Thing()
        things.append(weakref.ref(thing))
        await asyncio.sleep(0)
        await fetch()

    async def ask():
        callers.append(asyncio.current_task())
        with suppress(ValueError, FlightDeadlock):
            await fetch()

    async def main():
        tasks = [asyncio.create_task(ask()) for _ in range(2 if how == "two wait with it" else 1)]
        await asyncio.wait(tasks)
        tasks.clear()
        callers.clear()
        for _ in range(3):
            await asyncio.sleep(0)
        assert {thing() for thing in things} == {None}

    steps.run(steps.StepLoop(), main())


def test_a_caller_that_is_closed_by_hand():
    """A coroutine that is closed instead of cancelled leaves like any other: quietly."""
    ended = []

    @single_flight_ttl(ttl=60)
    async def fetch():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main():
        call = fetch()
        call.send(None)
        while not fetch.stats().in_flight:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.close()
        while fetch.flights():
            await asyncio.sleep(0)

    loop = steps.StepLoop()
    steps.run(loop, main())
    gc.collect()
    assert loop.reports == []
    assert ended == ["cancelled"]
    assert (fetch.stats().errors, fetch.stats().timeouts) == (1, 0)


def test_work_that_is_overdue_before_it_began():
    """A caller whose flight lost its key before the first step is told so; nobody has cancelled it."""
    loop = steps.StepLoop()

    @single_flight_ttl(ttl=60, flight_timeout=1000)
    async def fetch():
        return 1

    def unseat():
        (flight,) = (slot.turn for slot in fetch.locks.live())
        flight.due = 0.0
        assert coordinator.unseat(fetch._self_cache, flight)

    async def main():
        call = asyncio.create_task(fetch())
        loop.at(loop.steps + 1, unseat)  # after the caller's first step, which makes the work
        with pytest.raises(FlightTimeout):
            await call

    steps.run(loop, main())
    assert (fetch.stats().timeouts, fetch.stats().calls, fetch.flights()) == (1, 0, ())
