"""Annotations are the function's, whoever looked at a class before, and whoever sets them."""

import contextlib
import functools
import inspect
import subprocess
import sys
import textwrap
import typing

import pytest

from singleflight import single_flight_ttl


def looked_at(*classes):
    """Have somebody look at the annotations of these classes and of all that they inherit from."""
    for cls in classes:
        for each in cls.__mro__:
            getattr(each, "__annotations__", None)
            with contextlib.suppress(ValueError):  # Python 3.14's answer for wrapt's classes (2.5.2)
                inspect.get_annotations(each)


def made():
    """One of each kind: plain and coroutine functions, methods, class and static methods, and loaders."""

    class Account:
        @single_flight_ttl(ttl=60)
        def get(self, symbol: str, *, exact: bool = False) -> float:
            return 1.0

        @get.twin
        async def aget(self, symbol: str, *, exact: bool = False) -> float:
            return 1.0

        @get.bulk
        def many(self, symbol: str, *, exact: bool = False) -> float: ...

        @single_flight_ttl(ttl=60)
        @classmethod
        def of(cls, symbol: str, *, exact: bool = False) -> float:
            return 1.0

        @of.bulk
        @classmethod
        async def of_many(cls, symbol: str, *, exact: bool = False) -> float: ...

        @single_flight_ttl(ttl=60)
        @staticmethod
        def at(symbol: str, *, exact: bool = False) -> float:
            return 1.0

        @at.bulk
        @staticmethod
        def at_many(symbol: str, *, exact: bool = False) -> float: ...

    @single_flight_ttl(ttl=60)
    def price(symbol: str, *, exact: bool = False) -> float:
        return 1.0

    @price.bulk
    def prices(symbol: str, *, exact: bool = False) -> float: ...

    account = Account()
    names = ["get", "aget", "many", "of", "of_many", "at", "at_many"]
    faces = {f"{name} of an instance": getattr(account, name) for name in names}
    faces |= {f"{name} of the class": getattr(Account, name) for name in names}
    return {**faces, "price": price, "prices": prices}


HINTS = {"symbol": str, "exact": bool, "return": float}


@pytest.mark.parametrize("name", made())
def test_they_survive_a_look_at_the_classes(name):
    """Reading the annotations of our classes, or of `typing.Generic`, hides nobody's annotations."""
    face = made()[name]
    looked_at(type(face))
    assert face.__annotations__ == HINTS
    assert typing.get_type_hints(face) == HINTS
    assert inspect.get_annotations(face) == HINTS
    parameters = inspect.signature(face).parameters
    assert {name: parameters[name].annotation for name in ("symbol", "exact")} == {
        "symbol": str,
        "exact": bool,
    }
    assert functools.wraps(face)(lambda: None).__annotations__ == HINTS


def test_they_survive_a_look_at_generic_first_of_all():
    """In a process where somebody looked before anything was decorated."""
    program = """
        import typing
        typing.Generic.__annotations__
        from singleflight import SingleFlightFunction, BulkLoader, single_flight_ttl
        from singleflight.decorator.surface import Controls
        for each in (typing.Generic, Controls, SingleFlightFunction, BulkLoader):
            each.__annotations__
        @single_flight_ttl(ttl=60)
        def price(symbol: str) -> float: ...
        @price.bulk
        def prices(symbols: list) -> dict: ...
        print(price.__annotations__, prices.__annotations__)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split("\n")[0] == str({"symbol": str, "return": float}) + " " + str(
        {"symbols": list, "return": dict}
    )


@pytest.mark.parametrize("name", ["price", "prices", "get of the class", "at of the class"])
def test_they_can_be_set(name):
    """What is assigned is the wrapped function's too; what is deleted is gone."""
    face = made()[name]
    looked_at(type(face))
    face.__annotations__ = {"symbol": int}
    assert face.__annotations__ == {"symbol": int}
    assert face.__wrapped__.__annotations__ == {"symbol": int}
    face.__annotations__["exact"] = str
    assert inspect.get_annotations(face) == {"symbol": int, "exact": str}
    del face.__annotations__
    assert face.__annotations__ == {}


def test_what_is_set_on_the_function_shows_on_its_bound_methods():
    """Also if somebody looked at the class of a bound method before."""

    class Account:
        @single_flight_ttl(ttl=60)
        def get(self, symbol: str) -> float:
            return 1.0

    account = Account()
    looked_at(type(account.get), type(Account.get))
    Account.get.__annotations__ = {"symbol": int}
    assert account.get.__annotations__ == {"symbol": int}


def test_callables_without_annotations_have_none():
    """What wraps a callable that has no annotations raises as that does."""
    part = single_flight_ttl(ttl=60)(functools.partial(int, "3"))
    looked_at(type(part))
    assert getattr(part, "__annotations__", None) == getattr(part.__wrapped__, "__annotations__", None)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated when asked for since 3.14")
def test_nothing_is_evaluated_before_it_is_asked_for():
    """A name in an annotation may be defined later, and a look at the class evaluates nothing."""
    space = {"single_flight_ttl": single_flight_ttl}
    source = """
        @single_flight_ttl(ttl=60)
        def get(x: Later): return x
    """
    exec(textwrap.dedent(source), space)
    looked_at(type(space["get"]))
    with pytest.raises(NameError):
        space["get"].__annotations__
    space["Later"] = int
    assert space["get"].__annotations__ == {"x": int}
