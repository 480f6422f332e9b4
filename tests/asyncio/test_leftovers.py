"""What is left when a call is over: nothing that only the collector could find."""

import asyncio
import gc
import weakref

import pytest

from singleflight import single_flight_ttl

from . import steps


class Thing:
    """Can be weakly referenced."""


class Uncopyable(Exception):
    """Reaches followers as the very object."""

    @property
    def __dict__(self):
        raise RuntimeError


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
