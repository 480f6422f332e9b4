"""Keys that C puts together: which functions it knows by their code, and that they decide all the same."""

import asyncio
import functools
import sys
import traceback

import pytest

import singleflight
from singleflight import single_flight_ttl
from singleflight.decorator.keyforms import KeyForm
from singleflight.decorator.keyparts import KeyParts, parts_of

needs_c = pytest.mark.skipif(
    not singleflight.accelerated,
    reason="NOT TESTED: the hit path in C is not built here, or it is switched off",
)
OWN = KeyForm(own=True, owned=False)


def read(key, *known):
    return parts_of(OWN, key, known or ("a", "b"), False, False)


def several(a, b):
    """With a docstring."""
    return b, a, a.name.text


@pytest.mark.parametrize(
    ("key", "places", "paths", "lone"),
    [
        (lambda a, b: (a, b), (0, 1), ((), ()), False),
        (lambda a, b: (b,), (1,), ((),), False),
        (lambda a, b: b, (1,), ((),), True),
        (lambda a, b: b.real, (1,), (("real",),), True),
        (lambda x, y="bid": (x.id, y, x), (0, 1, 0), (("id",), (), ()), False),
        (lambda a, b: (a, a, a, b, b, b), (0, 0, 0, 1, 1, 1), ((),) * 6, False),
        (several, (1, 0, 0), ((), (), ("name", "text")), False),
    ],
)
def test_what_only_loads_and_returns_is_read(key, places, paths, lone):
    """Arguments and their attributes, alone or in a tuple, with any names and defaults."""
    assert read(key) == KeyParts(places, paths, lone, key.__code__)


def assigned(a, b):
    a = b
    return a, b


def branching(a, b):
    return (a, b) if a else (b, a)


def collecting(a, b):
    return (a, *[b for _ in (1,)])


def generating(a, b):
    yield a, b


def with_cells(a, b):
    def inner():
        return a

    inner()
    return a, b


def deleting(a, b):
    del a
    return b


class Calling:
    def __call__(self, a, b):
        return a, b


@pytest.mark.parametrize(
    "key",
    [
        lambda a, b: (a, (b, a)),
        lambda a, b: ((a, b), b),
        lambda a, b: [a, b],
        lambda a, b: (a, 1),
        lambda a, b: (a.upper(), b),
        lambda a, b: (a, b[0]),
        lambda a, b: (*a, b),
        lambda a, b: a + b,
        lambda a, b: (a, b).count,
        lambda a, b: (a, len),
        lambda a, b: None,
        lambda a, b: (),
        lambda a: a,
        lambda a, b, c=1: (a, b),
        lambda a, *b: (a, b),
        lambda a, b, *c: (a, b),
        lambda a, b, **c: (a, b),
        lambda a, *, b: (a, b),
        assigned,
        branching,
        collecting,
        generating,
        with_cells,
        deleting,
        Calling(),
        Calling().__call__,
        functools.partial(lambda a, b: (a, b)),
        max,
    ],
)
def test_what_does_anything_else_is_called(key):
    """It is not read at all, rather than nearly right."""
    assert read(key) is None


def test_the_default_key_is_all_arguments():
    """What stands for the instance in front, where there may be one; without what is left out."""
    known = ("self", "b", "c")
    assert parts_of(KeyForm(), None, known, False, False) == KeyParts((0, 1, 2), ((), (), ()))
    assert parts_of(KeyForm(), None, known, True, False) == KeyParts((-1, 1, 2), ((), (), ()))
    assert parts_of(KeyForm(owned=False), None, known, True, True) == KeyParts((0, 1, 2), ((), (), ()))
    assert parts_of(KeyForm(), None, (), True, True) == KeyParts((), ())
    left = KeyForm(left_out=frozenset("b"))
    assert parts_of(left, None, known, True, True) == KeyParts((-1, 2), ((), ()))
    assert parts_of(left, None, known, False, False) == KeyParts((0, 2), ((), ()))


def test_names_have_parts_too():
    """`key=("a", "b.name")`: the instance in front where there surely is one; where that depends, none."""
    form = KeyForm(names=("b", "c.name.text"))
    known = ("self", "b", "c")
    assert parts_of(form, None, known, False, False) == KeyParts((1, 2), ((), ("name", "text")))
    assert parts_of(form, None, known, True, True) == KeyParts((-1, 1, 2), ((), (), ("name", "text")))
    assert parts_of(form, None, known, True, False) is None
    lone = KeyForm(names=("b",), lone=True, owned=False)
    assert parts_of(lone, None, known, True, False) == KeyParts((1,), ((),), True)


class Account:
    """One with a key that is read; it counts how often its attribute is."""

    def __init__(self, number="a"):
        self._number, self.looked, self.asked = number, 0, 0

    @property
    def number(self):
        self.looked += 1
        if isinstance(self._number, BaseException):
            raise self._number
        return self._number

    @single_flight_ttl(key=lambda self, symbol: (self.number, symbol), ttl=60)
    def price(self, symbol):
        self.asked += 1
        return [symbol]

    @single_flight_ttl(key=("self.number", "symbol"), ttl=60)
    def named(self, symbol):
        self.asked += 1
        return [symbol]

    @single_flight_ttl(key=lambda self, symbol: (self.number, symbol), ttl=60)
    async def awaited(self, symbol):
        self.asked += 1
        return [symbol]


async def of(account, name, symbol):
    value = getattr(account, name)(symbol)
    return await value if name == "awaited" else value


@pytest.mark.parametrize("name", ["price", "named", "awaited"])
def test_equal_keys_share_a_value(name):
    """Also where instances differ; a hit reads each attribute once."""

    async def main():
        first, second, other = Account(), Account(), Account("b")
        value = await of(first, name, "ASML")
        assert await of(second, name, "ASML") is value
        assert (second.asked, second.looked) == (0, 1)
        assert await of(other, name, "ASML") is not value
        assert await of(first, name, symbol="VOD") is not value

    getattr(Account, name).cache_clear()
    asyncio.run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize("name", ["price", "named", "awaited"])
@pytest.mark.parametrize("kind", [ValueError, AttributeError, TypeError])
def test_what_an_attribute_raises_is_raised(name, kind):
    """As it is, with the key function in its traceback; nothing is called or stored."""
    account = Account(error := kind("no number"))
    with pytest.raises(kind) as raised:
        asyncio.run(asyncio.wait_for(of(account, name, "ASML"), 10))
    assert raised.value is error
    frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert frames[-1] == "number"
    if name != "named":
        assert frames[-2] == "<lambda>"
    assert account.asked == 0


def test_a_missing_attribute_is_told_as_python_tells_it():
    """The error of the key function itself."""

    @single_flight_ttl(key=lambda item: item.identity, ttl=60)
    def load(item):
        return item

    with pytest.raises(AttributeError, match="'int' object has no attribute 'identity'"):
        load(1)


@needs_c
def test_an_abort_in_an_attribute_is_not_tried_again():
    """`KeyboardInterrupt` passes at once."""
    account = Account(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        account.price("ASML")
    assert account.looked == 1


@pytest.mark.parametrize("waits", [False, True])
def test_other_code_decides_from_then_on(waits):
    """Reloaders give functions other code in place: what is read of the old one is not used any more."""

    def key(symbol, kind="bid"):
        return symbol, kind

    def other(symbol, kind="bid"):
        return symbol.upper()

    def load(symbol, kind="bid"):
        return [symbol]

    async def awaited(symbol, kind="bid"):
        return [symbol]

    decorated = single_flight_ttl(key=key, ttl=60)(awaited if waits else load)

    async def main():
        async def ask(symbol):
            return await decorated(symbol) if waits else decorated(symbol)

        first = await ask("asml")
        assert await ask("asml") is first
        key.__code__ = other.__code__
        second = await ask("asml")
        assert second is not first
        assert await ask("ASML") is second
        assert decorated.invalidate("asml")

    asyncio.run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize("waits", [False, True])
def test_the_function_itself_makes_the_key_that_is_stored(waits):
    """What is put together only finds: a miss runs the user's function, once."""
    ran = []

    def key(symbol, kind="bid"):
        return symbol, kind

    def load(symbol, kind="bid"):
        return [symbol]

    async def awaited(symbol, kind="bid"):
        return [symbol]

    decorated = single_flight_ttl(key=key, ttl=60)(awaited if waits else load)

    def watch(frame, event, _):
        if event == "call" and frame.f_code is key.__code__:
            ran.append(frame.f_locals["symbol"])

    async def main():
        async def ask(symbol):
            return await decorated(symbol) if waits else decorated(symbol)

        before = sys.getprofile()
        sys.setprofile(watch)
        try:
            await ask("ASML")
            missed = list(ran)
            await ask("ASML")
        finally:
            sys.setprofile(before)
        assert missed == ["ASML"]
        assert ran == (missed if singleflight.accelerated else missed * 2)

    asyncio.run(asyncio.wait_for(main(), 10))
