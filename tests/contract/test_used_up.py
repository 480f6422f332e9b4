"""Values that one use spends are handed to nobody; those that can be used again are values like any other."""

import asyncio
import contextlib
import functools
import gc
import itertools
import warnings
import weakref

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import FakeClock

from ..builds import collects_classes
from ..drivers import until


@pytest.fixture(scope="module", autouse=True)
def leave_no_coroutines():
    """Errors lead to coroutines that nobody awaits: they are collected here, and not in another test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.unfreeze()  # what was frozen (see conftest.py) may hold some of them
        gc.collect()


async def inner():
    return 42


async def agenerator():
    yield 1


def generator():
    yield 1


class Steps:
    """A generator that somebody else's compiler made: it is told by what it can do."""

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration

    def send(self, value):
        raise StopIteration

    def throw(self, *error):
        raise error[0]

    def close(self):
        raise AssertionError("not to be closed")


class Request:
    """As aiohttp's: a coroutine by what it can do, which is awaited to be sent."""

    def __await__(self):
        yield

    def send(self, value):
        raise AssertionError("not to be sent")

    throw = close = send


@contextlib.contextmanager
def managed():
    yield 1


@contextlib.asynccontextmanager
async def amanaged():
    yield 1


def in_a_loop():
    """A future of some loop."""
    loop = asyncio.new_event_loop()
    loop.close()
    return loop.create_future()


ONCE_ONLY = {
    "coroutine": (inner, "await"),
    "generator": (lambda: (number for number in range(3)), "list"),
    "async generator": (agenerator, "async for"),
    "compiled generator": (Steps, "list"),
    "request": (Request, "await"),
    "context manager": (managed, "what it yields|returns"),
    "async context manager": (amanaged, "what it yields|returns"),
    "future": (in_a_loop, "await"),
}


class Client:
    """As `redis.asyncio.Redis`: to await it connects, and gives the client itself, any number of times."""

    closed = False

    def close(self):
        self.closed = True

    def __await__(self):
        yield from ()
        return self


class Thrower:
    """It has one of the methods that generators have."""

    def throw(self):
        pass


@pytest.fixture(autouse=True)
def never_awaited():
    """What Python says of coroutines that nobody awaits."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
        gc.collect()


@pytest.mark.parametrize("limit", [None, 1], ids=["at once", "in line"])
@pytest.mark.parametrize("kind", ONCE_ONLY)
def test_what_one_use_spends_is_refused(driver, never_awaited, kind, limit):
    """Each time, saying what to do instead; nothing is stored, and Python complains of no coroutine."""
    make, way = ONCE_ONLY[kind]

    async def fetch():
        return make()

    fetch = driver.decorate(fetch, name="prices", max_flights=limit)
    for _ in range(2):
        with pytest.raises(TypeError, match=f"prices: returned an? .*cannot be shared or stored; .*({way})"):
            driver.call(fetch)
    assert (fetch.entry(), fetch.flights(), fetch.stats().failures) == (None, (), 2)
    driver.callers.clear()
    gc.collect()
    assert [str(each.message) for each in never_awaited] == []


@pytest.mark.parametrize("kind", ONCE_ONLY)
def test_it_cannot_be_put_either(driver, kind):
    """What is there stays, and what was given is as it was."""
    make, _ = ONCE_ONLY[kind]

    async def fetch():
        return 7

    fetch = driver.decorate(fetch)
    assert driver.call(fetch) == 7
    value = make()
    with pytest.raises(TypeError, match=r"put was given an? .*cannot be shared or stored"):
        fetch.put(value)
    assert fetch.entry().value == 7
    if kind == "coroutine":
        assert asyncio.run(value) == 42


@pytest.mark.parametrize("kind", ONCE_ONLY)
def test_a_renewal_that_brings_it_fails(driver, kind):
    """The old value stays and is served on."""
    make, _ = ONCE_ONLY[kind]
    numbers, clock = itertools.count(), FakeClock(100.0)

    async def fetch():
        return make() if next(numbers) else "old"

    fetch = driver.decorate(fetch, ttl=10, grace=60, timer=clock)
    assert driver.call(fetch) == "old"
    clock.advance(11)
    assert driver.call(fetch) == "old"
    until(lambda: not fetch.flights())
    assert (driver.call(fetch), fetch.entry().value) == ("old", "old")
    assert (fetch.stats().failures, fetch.stats().calls) == (1, 2)


def test_a_coroutine_that_somebody_else_has_is_left_alone(driver):
    """It can still be awaited."""
    kept = []

    async def fetch():
        kept.append(inner())
        return kept[-1]

    fetch = driver.decorate(fetch)
    with pytest.raises(TypeError, match="coroutine"):
        driver.call(fetch)
    assert asyncio.run(kept.pop()) == 42


def test_a_generator_that_somebody_else_has_is_left_alone(driver):
    """It can still be consumed."""
    kept = [generator()]

    async def fetch():
        return kept[0]

    with pytest.raises(TypeError, match="generator"):
        driver.call(driver.decorate(fetch))
    assert list(kept[0]) == [1]


class Comparing(type):
    """Its classes cannot be hashed."""

    def __eq__(cls, other):
        return NotImplemented


class Unhashable(metaclass=Comparing):
    """A value whose class cannot be."""


@pytest.mark.parametrize("make", [Client, Thrower, Unhashable, object], ids=lambda made: made.__name__)
def test_what_can_be_used_again_is_a_value(driver, make):
    """A client that may be awaited, too: it is shared, stored and not closed."""
    made = []

    async def fetch():
        made.append(make())
        return made[-1]

    fetch = driver.decorate(fetch, ttl=None)
    assert driver.call(fetch) is driver.call(fetch) is made[0]
    assert len(made) == 1
    fetch.put(other := make())
    assert driver.call(fetch) is other
    if make is Client:
        assert not made[0].closed

        async def use():
            return [await made[0], await made[0]]

        assert asyncio.run(use()) == made * 2


@collects_classes
def test_a_type_that_was_seen_is_not_kept_alive(driver):
    """Nor is another one taken for it."""
    kinds = []

    async def fetch(number):
        kind = type("Kind", (), {"throw": None} if number % 2 else {})
        kinds.append(weakref.ref(kind))
        return kind()

    fetch = driver.decorate(fetch, ttl=0)
    for number in range(6):
        driver.call(fetch, number)
    driver.callers.clear()
    gc.collect()
    assert len(kinds) == 6
    assert not [kind for kind in kinds if kind() is not None]


# -- at decoration ------------------------------------------------------------------------------------


def to_list(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return list(function(*args, **kwargs))

    return wrapper


def to_list_async(function):
    @functools.wraps(function)
    async def wrapper(*args, **kwargs):
        return [item async for item in function(*args, **kwargs)]

    return wrapper


def test_a_wrapper_that_collects_what_a_generator_yields_is_decorated():
    """Plain and asynchronous; what counts is what the wrapper returns."""
    assert single_flight_ttl(ttl=60)(to_list(generator))() == [1]
    assert asyncio.run(single_flight_ttl(ttl=60)(to_list_async(agenerator))()) == [1]
    assert single_flight_ttl(ttl=60)(functools.partial(to_list(generator)))() == [1]


def test_a_wrapper_that_does_not_collect_is_told_so_when_it_is_called():
    """Its value is a generator."""

    @functools.wraps(generator)
    def wrapper():
        return generator()

    for function in (wrapper, functools.lru_cache(generator), lambda: generator()):
        with pytest.raises(TypeError, match="returned a generator"):
            single_flight_ttl(ttl=60)(function)()


def test_generator_functions_are_refused_at_decoration_with_a_way_out():
    """Whatever calls them: a partial, a callable object, a function that says so itself."""

    class Calls:
        def __call__(self):
            yield 1

    for function in (generator, agenerator, functools.partial(generator), Calls(), Calls().__call__):
        with pytest.raises(TypeError, match=r"generator .* return a list"):
            single_flight_ttl(ttl=60)(function)


def test_context_managers_made_of_generators_are_refused_at_decoration():
    """They can be entered once only."""
    for function in (managed, amanaged):
        with pytest.raises(TypeError, match="entered once only"):
            single_flight_ttl(ttl=60)(function)
