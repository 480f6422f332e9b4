"""What counts as a coroutine function, what is refused, and what a call returns."""

import asyncio
import functools
import gc
import inspect
import warnings

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import FakeClock

CALLED = []


async def plain(symbol):
    CALLED.append(symbol)
    return symbol * 2


class Price:
    async def __call__(self, symbol):
        return await plain(symbol)

    async def method(self, symbol):
        return await plain(symbol)

    @classmethod
    async def of_class(cls, symbol):
        return await plain(symbol)

    @staticmethod
    async def static(symbol):
        return await plain(symbol)


async def two(prefix, symbol):
    return await plain(symbol)


@pytest.mark.parametrize(
    "function",
    [
        plain,
        functools.partial(plain),
        functools.partial(functools.partial(two, "prefix")),
        Price(),
        functools.partial(Price()),
        Price().method,
        Price.of_class,
        Price.static,
    ],
    ids=lambda function: type(function).__name__,
)
def test_every_kind_of_coroutine_function_is_recognised(play, function):
    """The value is stored, not the coroutine: two awaited calls are one execution."""
    CALLED.clear()
    fetch = single_flight_ttl(ttl=60)(function)

    async def main():
        return await fetch("A"), await fetch("A"), await asyncio.gather(fetch("B"), fetch("B"))

    assert play(main) == ("AA", "AA", ["BB", "BB"])
    assert CALLED == ["A", "B"]
    assert fetch.stats().hits == 1


def test_coroutine_methods_of_every_kind(play):
    """Methods, class methods and static methods that are coroutine functions, each with its surface."""

    class Account:
        @single_flight_ttl(ttl=60)
        async def price(self, symbol):
            return symbol, self

        @single_flight_ttl(ttl=60)
        @classmethod
        async def of_class(cls, symbol):
            return symbol, cls

        @single_flight_ttl(ttl=60)
        @staticmethod
        async def static(symbol):
            return symbol

    async def main():
        one, other = Account(), Account()
        assert await one.price("A") == ("A", one)
        assert await other.price("A") == ("A", other)
        assert await one.price("A") == ("A", one)
        assert await Account.of_class("A") == await one.of_class("A") == ("A", Account)
        assert await Account.static("A") == await one.static("A") == "A"
        assert one.price.entry("A").value == ("A", one)
        assert one.price.invalidate("A")
        assert one.price.entry("A") is None
        assert other.price.entry("A") is not None
        assert await one.price.refresh("A") == ("A", one)
        assert inspect.iscoroutinefunction(one.price)

    play(main)
    assert (Account.price.stats().calls, Account.of_class.stats().calls, Account.static.stats().calls) == (
        3,
        1,
        1,
    )


def test_the_decorated_function_looks_like_a_coroutine_function():
    """Frameworks that ask `inspect` get the right answer, and the signature is kept."""
    fetch = single_flight_ttl(ttl=60)(plain)
    assert inspect.iscoroutinefunction(fetch)
    assert list(inspect.signature(fetch).parameters) == ["symbol"]
    assert fetch.__name__ == "plain"
    assert fetch.__wrapped__ is plain


def test_what_a_call_returns_can_be_made_a_task(play):
    """create_task, TaskGroup, gather and wait_for take a call, whether it is a hit or a miss."""
    fetch = single_flight_ttl(ttl=60)(plain)

    async def main():
        for _ in range(2):
            assert await asyncio.create_task(fetch("A")) == "AA"
            async with asyncio.TaskGroup() as group:
                task = group.create_task(fetch("B"))
            assert task.result() == "BB"
            assert await asyncio.wait_for(fetch("C"), 5) == "CC"
            assert await asyncio.gather(fetch("D"), fetch("E")) == ["DD", "EE"]

    play(main)


def test_asyncio_run_after_asyncio_run():
    """One decorated function serves one loop after another."""
    CALLED.clear()
    clock = FakeClock()
    fetch = single_flight_ttl(ttl=60, timer=clock)(plain)
    for _ in range(3):
        assert asyncio.run(fetch("A")) == "AA"
        clock.advance(30)
    assert CALLED == ["A", "A"]


def generator(symbol):
    yield symbol


async def async_generator(symbol):
    yield symbol


class Generates:
    async def __call__(self, symbol):
        yield symbol


@pytest.mark.parametrize(
    "function",
    [
        generator,
        async_generator,
        functools.partial(generator),
        functools.partial(async_generator, "A"),
        Generates(),
    ],
    ids=lambda function: type(function).__name__,
)
def test_generators_are_refused_at_decoration(function):
    """What can be consumed once only is no value to share."""
    with pytest.raises(TypeError, match="generator"):
        single_flight_ttl(ttl=60)(function)


def test_a_plain_function_that_returns_an_awaitable_is_refused(play):
    """The error says what to do; the awaitable is not stored, and a coroutine is closed without a warning."""

    def fetch(symbol):
        return plain(symbol)

    async def main():
        decorated = single_flight_ttl(ttl=60)(fetch)
        for _ in range(2):
            with pytest.raises(TypeError, match=r"(?i)async def|await"):
                decorated("A")
        assert decorated.entry("A") is None
        assert decorated.flights() == ()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        play(main)
        gc.collect()
    assert [str(each.message) for each in caught] == []


def test_a_twin_of_either_colour_is_recognised(play):
    """`.twin` takes a plain or a coroutine function, on both."""

    def plainly(symbol):
        return symbol

    async def main():
        for first, second in ((plainly, plain), (plain, plainly), (plain, plain), (plainly, plainly)):
            one = single_flight_ttl(ttl=60)(first)
            other = one.twin(second)
            assert inspect.iscoroutinefunction(other) is inspect.iscoroutinefunction(second)
            value = one("A")
            value = await value if inspect.isawaitable(value) else value
            again = other("A")
            again = await again if inspect.isawaitable(again) else again
            assert value == again
            assert one.stats() == other.stats()
            assert (one.stats().calls, one.stats().hits) == (1, 1)

    play(main)


def test_a_generator_is_no_twin():
    """What cannot be decorated cannot be a twin."""
    fetch = single_flight_ttl(ttl=60)(plain)
    for function in (generator, async_generator):
        with pytest.raises(TypeError, match="generator"):
            fetch.twin(function)
