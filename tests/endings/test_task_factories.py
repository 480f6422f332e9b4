"""Task factories of every shape: calls work, or fail with the factory's own error and leave nothing."""

import asyncio
import sys

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import FakeClock

from ..drivers import LoopThread, eventually
from .conftest import assert_quiet

PATIENCE = 10.0


class Slim(asyncio.Task):
    """A task that takes no name."""

    set_name = None


def plain(loop, coroutine):
    return asyncio.Task(coroutine, loop=loop)


def with_context(loop, coroutine, context=None):
    return asyncio.Task(coroutine, loop=loop, context=context)


def with_anything(loop, coroutine, **options):
    return asyncio.Task(coroutine, loop=loop, **options)


def nameless(loop, coroutine, **options):
    return Slim(coroutine, loop=loop)


FACTORIES = [plain, with_context, with_anything]
if sys.version_info[:2] != (3, 13):  # whose own loops name every task, and fail with one that takes no name
    FACTORIES.append(nameless)
if sys.version_info >= (3, 12):
    FACTORIES.append(asyncio.eager_task_factory)


@pytest.fixture
def loop():
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def functions():
    """A coroutine function, its loader, the clock that they age by, and how often they ran."""
    clock, runs = FakeClock(), []

    @single_flight_ttl(ttl=60, grace=600, timer=clock)
    async def load(key):
        runs.append(key)
        await asyncio.sleep(0)
        return len(runs)

    @load.bulk
    async def load_all(keys):
        runs.append(keys)
        await asyncio.sleep(0)
        return dict.fromkeys(keys, len(runs))

    return load, load_all, clock, runs


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)
def test_a_factory_of_any_shape_will_do(loop, functions, factory):
    """Single and bulk calls, followers and renewals run in whatever task it makes."""
    load, load_all, clock, _ = functions
    loop.loop.set_task_factory(factory)

    async def main():
        assert await asyncio.gather(load("a"), load("a")) == [1, 1]
        assert await load_all(["a", "b"]) == {"a": 1, "b": 2}
        clock.advance(61)
        assert (await load("a"), await load_all(["b"])) == (1, {"b": 2})
        for _ in range(20):
            await asyncio.sleep(0)
        return await load("a"), await load_all(["b"])

    renewed = loop.run(main)
    assert renewed[0] > 2
    assert renewed[1]["b"] > 2
    assert_quiet(load)
    assert load.stats().failures == 0


class Refusal(Exception):
    """What a factory raises."""


@pytest.mark.parametrize("bulk", [False, True], ids=["single", "bulk"])
@pytest.mark.parametrize("broken", ["it raises", "it returns nothing"])
def test_a_factory_that_makes_no_task(loop, functions, broken, bulk):
    """Its error is the caller's, no execution is counted, and the key is free."""
    load, load_all, _, _ = functions
    refusing = []

    def factory(loop, coroutine, **options):
        if not refusing:
            return asyncio.Task(coroutine, loop=loop)
        if broken == "it raises":
            raise Refusal
        coroutine.close()
        return None

    async def main():
        refusing.append(1)
        with pytest.raises(Refusal if broken == "it raises" else AttributeError):
            await (load_all(["a", "b"]) if bulk else load("a"))
        refusing.clear()
        return await load("a")

    loop.loop.set_task_factory(factory)
    assert loop.run(main) == 1
    stats = load.stats()
    assert (stats.calls, stats.failures, stats.fetches, stats.errors) == (1, 0, 1, 2 if bulk else 1)
    assert_quiet(load)


@pytest.mark.parametrize("how", ["single", "bulk", "gathered"])
def test_a_renewal_for_which_no_task_is_made(loop, how, caplog):
    """The stale value is served, no execution is counted, and the renewal is tried again after a while.

    The log says why it failed, once.
    """
    clock, runs, refusing, refused = FakeClock(), [], [], []

    @single_flight_ttl(ttl=60, grace=600, timer=clock, key=lambda key: key)
    async def load(key):
        runs.append(key)
        return len(runs)

    @load.bulk(gather=0.001 if how == "gathered" else None)
    async def load_all(keys):
        runs.append(keys)
        return dict.fromkeys(keys, len(runs))

    def factory(loop, coroutine, **options):
        if refusing:
            refused.append(1)
            raise Refusal("no task for you")
        return asyncio.Task(coroutine, loop=loop)

    async def ask():
        return (await load_all(["a"]))["a"] if how == "bulk" else await load("a")

    async def main():
        assert await ask() == 1
        clock.advance(61)
        refusing.append(1)
        stale = await ask(), await ask(), await ask()
        refusing.clear()
        clock.advance(2)
        await ask()
        await eventually(lambda: load.entry("a").value == 2)
        return stale

    loop.loop.set_task_factory(factory)
    assert loop.run(main) == (1, 1, 1)
    assert len(refused) == 1
    assert caplog.text.count("could not be renewed, its value is kept: Refusal('no task for you')") == 1
    stats = load.stats()
    assert (stats.calls, stats.refreshes, stats.failures) == (2, 1, 0)
    assert_quiet(load)
