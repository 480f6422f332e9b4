"""What looks into a class finds class and static methods there, and what wraps them keeps them decorated."""

import abc
import dataclasses
import doctest
import functools
import inspect
import types
from unittest import mock

import pytest

from singleflight import BulkLoader, SingleFlightFunction, caches, single_flight_ttl


def rates():
    class Rates:
        @single_flight_ttl(ttl=60)
        @classmethod
        def of(cls, currency):
            """Of a class."""
            return [cls, currency]

        @single_flight_ttl(ttl=60)
        @staticmethod
        def at(currency):
            """Static."""
            return [currency]

        @of.twin
        @classmethod
        async def aof(cls, currency):
            return [cls, currency]

        @at.twin
        @staticmethod
        async def aat(currency):
            return [currency]

        @of.bulk
        @classmethod
        def of_many(cls, currencies):
            return {currency: [cls, currency] for currency in currencies}

        @at.bulk
        @staticmethod
        def at_many(currencies):
            return {currency: [currency] for currency in currencies}

        @single_flight_ttl(ttl=60)
        def get(self, currency):
            return [self, currency]

        @get.bulk
        def get_many(self, currencies):
            return {currency: [self, currency] for currency in currencies}

        @classmethod
        @single_flight_ttl(ttl=60)
        def below_of(cls, currency):
            return [cls, currency]

        @staticmethod
        @single_flight_ttl(ttl=60)
        def below_at(currency):
            return [currency]

    return Rates


OF_CLASS, STATIC, PLAIN = (
    ["of", "aof", "of_many", "below_of"],
    ["at", "aat", "at_many", "below_at"],
    ["get", "get_many"],
)
EVERY = OF_CLASS + STATIC + PLAIN


@pytest.mark.parametrize("name", EVERY)
def test_the_class_holds_what_it_says(name):
    """`inspect` tells class methods, static methods and methods from each other, without calling them."""
    cls = rates()
    held = inspect.getattr_static(cls, name)
    kinds = {"class method": OF_CLASS, "static method": STATIC, "method": PLAIN}
    (kind,) = [kind for kind, names in kinds.items() if name in names]
    assert {each.name: each.kind for each in inspect.classify_class_attrs(cls)}[name] == kind
    assert isinstance(held, classmethod) is (kind == "class method")
    assert isinstance(held, staticmethod) is (kind == "static method")
    assert isinstance(held, types.FunctionType) is (kind == "method")


@pytest.mark.parametrize("name", EVERY)
def test_what_is_called_is_a_function_or_a_method(name):
    """On the class and on instances it answers as before."""
    cls = rates()
    on_class, on_instance = getattr(cls, name), getattr(cls(), name)
    assert inspect.ismethod(on_class) is (name in OF_CLASS)
    assert inspect.isfunction(on_class) is (name not in OF_CLASS)
    assert inspect.ismethod(on_instance) is (name not in STATIC)
    assert inspect.isfunction(on_instance) is (name in STATIC)
    for each in (on_class, on_instance):
        assert inspect.iscoroutinefunction(each) is (name in ("aof", "aat"))
    assert getattr(cls, name) == on_class
    parameter = "currencies" if name.endswith("many") else "currency"
    assert list(inspect.signature(on_instance).parameters) == [parameter]
    first = ["self"] if name in PLAIN else []
    assert list(inspect.signature(on_class).parameters) == [*first, parameter]


@pytest.mark.parametrize("name", STATIC[:3])
def test_a_static_method_is_one_function(name):
    """The class and its instances give the same object each time, which `caches()` lists."""
    cls = rates()
    assert getattr(cls, name) == getattr(cls(), name)
    if name != "at_many":
        assert getattr(cls, name) is getattr(cls(), name)
        assert any(each is getattr(cls, name) for each in caches())


@pytest.mark.parametrize("name", ["of", "at", "get", "below_of", "below_at"])
def test_autospec_takes_what_the_function_takes(name):
    """A mock made of a class checks calls as the class itself would."""
    for spec in (mock.create_autospec(rates()), mock.create_autospec(rates(), instance=True)):
        if name == "get" and not isinstance(spec, mock.NonCallableMock):
            continue
        method = getattr(spec, name)
        method("EUR")
        method(currency="EUR")
        for wrong in ((), ("EUR", 2)):
            with pytest.raises(TypeError):
                method(*wrong)


@pytest.mark.parametrize("name", ["of", "at", "below_of", "below_at", "of_many", "at_many"])
def test_patched_with_autospec_it_takes_what_it_took(name):
    """`patch.object(cls, name, autospec=True)` checks the calls, on the class and on instances."""
    cls = rates()
    before = vars(cls)[name]
    with mock.patch.object(cls, name, autospec=True) as patched:
        patched.return_value = 3
        assert getattr(cls, name)("EUR") == 3
        assert getattr(cls(), name)("EUR") == 3
        with pytest.raises(TypeError):
            getattr(cls, name)("EUR", 2)
        with pytest.raises(TypeError):
            getattr(cls, name)()
    assert vars(cls)[name] is before


def test_asynchronous_ones_become_asynchronous_mocks():
    """A coroutine class or static method is awaited in a mock, too."""
    spec = mock.create_autospec(rates())
    assert inspect.iscoroutinefunction(spec.aof)
    assert inspect.iscoroutinefunction(spec.aat)
    assert not inspect.iscoroutinefunction(spec.of)


def wrap_each(cls):
    """As class decorators that check or trace do: each function that the class holds is wrapped."""

    def wrapped(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        wrapper.seen = True
        return wrapper

    for name, held in list(vars(cls).items()):
        if isinstance(held, types.FunctionType):
            setattr(cls, name, wrapped(held))
        elif isinstance(held, (classmethod, staticmethod)):
            setattr(cls, name, held.__class__(wrapped(held.__func__)))
    return cls


@pytest.mark.parametrize("name", ["of", "at", "get", "below_of", "below_at"])
def test_a_decorator_of_the_whole_class_keeps_them(name):
    """Wrapped by a class decorator they bind as before, and what is below the wrapper still shares calls."""
    cls = wrap_each(rates())
    here = cls()
    assert getattr(cls, name).seen
    first = getattr(here, name)("EUR")
    assert first[-1] == "EUR"
    assert first[:-1] == {"of": [cls], "below_of": [cls], "get": [here]}.get(name, [])
    assert getattr(here, name)("EUR") is first


@pytest.mark.parametrize("name", ["of_many", "at_many", "get_many"])
def test_a_decorator_of_the_whole_class_keeps_loaders(name):
    """What a loader brought is there for single calls."""
    original = rates()
    single = {"of_many": original.of, "at_many": original.at}.get(name)
    cls = wrap_each(original)
    here = cls()
    loaded = getattr(here, name)(["EUR"])["EUR"]
    assert loaded[-1] == "EUR"
    if single is not None:
        assert single("EUR") is loaded
    else:
        assert here.get("EUR") is loaded


@pytest.mark.parametrize(("name", "bare"), [("of", [1]), ("at", [])])
def test_what_is_held_has_the_function_and_its_controls(name, bare):
    """`__func__` is the decorated function itself, with the same values."""
    cls = rates()
    held = vars(cls)[name]
    assert isinstance(held, SingleFlightFunction)
    assert isinstance(held.__func__, SingleFlightFunction)
    assert inspect.isfunction(held.__func__)
    assert held.__func__ is held.__func__
    assert held.__wrapped__ is held.__func__.__wrapped__
    assert held.__func__(*[cls for _ in bare], "EUR") is getattr(cls, name)("EUR")
    assert held.stats() == held.__func__.stats() == getattr(cls, name).stats()
    assert not hasattr(held.__func__, "__func__")
    assert not hasattr(vars(cls)["get"], "__func__")
    assert isinstance(vars(cls)["of_many"].__func__, BulkLoader)


def test_within_the_class_it_can_be_called_and_used():
    """While the class is being made, what is decorated above `staticmethod` is called like any function."""

    class Rates:
        @single_flight_ttl(ttl=60)
        @staticmethod
        def at(currency):
            return [currency]

        here = at("EUR")
        entry = at.entry("EUR")

    assert Rates.at("EUR") is Rates.here
    assert Rates.entry.value is Rates.here


def test_decorated_twice():
    """Above a decorated class or static method it binds as that does."""

    class Rates:
        @single_flight_ttl(ttl=60)
        @single_flight_ttl(ttl=60)
        @classmethod
        def of(cls, currency):
            return [cls, currency]

        @single_flight_ttl(ttl=60)
        @single_flight_ttl(ttl=60)
        @staticmethod
        def at(currency):
            return [currency]

    assert Rates.of("EUR") == Rates().of("EUR") == [Rates, "EUR"]
    assert Rates.at("EUR") == Rates().at("EUR") == ["EUR"]


def test_abstract_ones_stay_abstract():
    """`abc` still sees what has to be overridden, and is content with a decorated override."""

    class Base(abc.ABC):
        @single_flight_ttl(ttl=60)
        @classmethod
        @abc.abstractmethod
        def of(cls, currency): ...

        @single_flight_ttl(ttl=60)
        @staticmethod
        @abc.abstractmethod
        def at(currency): ...

    class Rates(Base):
        @single_flight_ttl(ttl=60)
        @classmethod
        def of(cls, currency):
            return currency

        @single_flight_ttl(ttl=60)
        @staticmethod
        def at(currency):
            return currency

    assert Base.__abstractmethods__ == {"of", "at"}
    assert Rates().of("EUR") == Rates().at("EUR") == "EUR"


def test_dataclasses_with_slots():
    """A class that is made a second time has them, too."""

    @dataclasses.dataclass(slots=True, weakref_slot=True)
    class Rates:
        base: str

        @single_flight_ttl(ttl=60)
        @classmethod
        def of(cls, currency):
            return [cls, currency]

        @single_flight_ttl(ttl=60)
        def get(self, currency):
            return [self.base, currency]

    assert Rates.of("EUR") == [Rates, "EUR"]
    assert Rates("USD").get("EUR") == ["USD", "EUR"]


def test_single_dispatch():
    """`functools.singledispatchmethod` above a decorated class or static method binds it."""

    class Rates:
        @functools.singledispatchmethod
        @single_flight_ttl(ttl=60)
        @classmethod
        def of(cls, currency):
            return [cls, currency]

        @of.register
        @single_flight_ttl(ttl=60)
        @classmethod
        def _(cls, currency: int):
            return [cls, -currency]

        @functools.singledispatchmethod
        @single_flight_ttl(ttl=60)
        @staticmethod
        def at(currency):
            return [currency]

        @at.register
        @single_flight_ttl(ttl=60)
        @staticmethod
        def _at_int(currency: int):
            return [-currency]

    assert Rates.of("EUR") == Rates().of("EUR") == [Rates, "EUR"]
    assert Rates.of(3) == Rates().of(3) == [Rates, -3]
    assert Rates.at("EUR") == Rates().at("EUR") == ["EUR"]
    assert Rates.at(3) == Rates().at(3) == [-3]


def test_doctest_finds_them():
    """The examples in their docstrings are those of the class."""
    cls = rates()
    cls.__module__ = __name__
    found = doctest.DocTestFinder(exclude_empty=False).find(cls, "Rates", module=inspect.getmodule(rates))
    assert {"Rates.of", "Rates.at", "Rates.get"} <= {each.name for each in found}
