"""Functions that ask, from within, for what they are fetching: the message says what to do about it."""

import asyncio

import pytest

from singleflight import FlightDeadlock, single_flight_ttl

from ..drivers import PATIENCE

WHAT_TO_DO = "belongs in an undecorated function that both call"


def plain():
    """A getter that calls its own loader, and a loader that calls its getter."""

    @single_flight_ttl(ttl=60, key=lambda key: key)
    def one(key):
        return many([key])[key]

    @one.bulk
    def many(keys):
        return {key: one(key) for key in keys}

    return one, many


def tasks():
    """The same as coroutine functions."""

    @single_flight_ttl(ttl=60, key=lambda key: key)
    async def one(key):
        return (await many([key]))[key]

    @one.bulk
    async def many(keys):
        return {key: await one(key) for key in keys}

    return one, many


def run(call, *args):
    outcome = call(*args)
    return asyncio.run(asyncio.wait_for(outcome, PATIENCE)) if asyncio.iscoroutine(outcome) else outcome


@pytest.mark.parametrize("make", [plain, tasks])
@pytest.mark.parametrize("bulk", [False, True])
def test_a_getter_that_needs_its_loader(make, bulk):
    """And a loader that needs its getter, for one key or many."""
    one, many = make()
    with pytest.raises(FlightDeadlock, match="'A' -> ") as raised:
        run(*((many, ["A", "B"]) if bulk else (one, "A")))
    assert str(raised.value).endswith(WHAT_TO_DO)
    assert (one.flights(), one.stats().locks - one.stats().idle_locks) == ((), 0)


def test_a_twin_that_needs_the_other():
    """The same of two ways to fetch the same."""

    @single_flight_ttl(ttl=60, key=lambda key: key)
    def one(key):
        return other(key)

    @one.twin
    def other(key):
        return one(key)

    for call in (one, other):
        with pytest.raises(FlightDeadlock, match="'A' -> 'A'.*" + WHAT_TO_DO):
            call("A")


def test_another_cycle_is_told_plainly():
    """Where it is a lock that stands in the way nothing of the kind is said."""

    @single_flight_ttl(ttl=60, key=lambda key: key)
    def one(key):
        return key

    with one.locks("A"), pytest.raises(FlightDeadlock) as raised:
        one("A")
    assert str(raised.value).endswith("waiting would never end: 'A' -> 'A'")
