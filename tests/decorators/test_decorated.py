"""A decorated function is the function it wraps, and binds as it does."""

import copy
import dataclasses
import functools
import gc
import inspect
import pickle
import sys
import typing
import weakref

import pytest

from singleflight import InstanceKey, UnhashableKey, caches, report, single_flight_ttl
from singleflight.process import registry

from ..builds import collects_classes


@single_flight_ttl(ttl=60)
def plain(a: int, b: int = 2) -> tuple[int, int]:
    """Adds nothing."""
    return a, b


class Base:
    def __init__(self, name="x"):
        self.name = name

    @single_flight_ttl(ttl=60)
    def method(self, a, b=2):
        """A method."""
        return [self.name, a, b]

    @single_flight_ttl(ttl=60)
    @classmethod
    def above(cls, a):
        return [cls, a]

    @classmethod
    @single_flight_ttl(ttl=60)
    def below(cls, a):
        return [cls, a]

    @single_flight_ttl(ttl=60)
    @staticmethod
    def static_above(a):
        return [a]

    @staticmethod
    @single_flight_ttl(ttl=60)
    def static_below(a):
        return [a]

    @single_flight_ttl(key=lambda self: "same", ttl=60)
    def overridden(self):
        return ["base"]


class Child(Base):
    @single_flight_ttl(key=lambda self: "same", ttl=60)
    def overridden(self):
        return [*super().overridden(), "child"]


def test_calls_that_mean_the_same_are_the_same():
    """Position, keyword and default make no difference."""
    plain.cache_clear()
    assert plain(1, 2) == plain(1) == plain(1, b=2) == plain(b=2, a=1)
    assert plain.stats().calls == 1
    assert plain(1, 2) is plain(1.0, True + 1)


def test_it_answers_like_the_wrapped_function():
    """Name, docstring, annotations and signature are those of the function."""
    assert (plain.__name__, plain.__qualname__, plain.__doc__) == ("plain", "plain", "Adds nothing.")
    assert str(inspect.signature(plain)) == "(a: int, b: int = 2) -> tuple[int, int]"
    assert typing.get_type_hints(plain)["b"] is int
    assert inspect.isfunction(plain)
    assert plain.__wrapped__(1) == (1, 2)
    bound = Base().method
    assert inspect.ismethod(bound)
    assert str(inspect.signature(bound)) == "(a, b=2)"
    assert (bound.__name__, bound.__doc__, bound.__module__) == ("method", "A method.", __name__)
    assert bound.__wrapped__(1) == ["x", 1, 2]


def test_wrong_arguments_raise_as_usual():
    """The message is Python's own, with the function's name."""
    for call, original in ((plain, plain.__wrapped__), (Base().method, Base().method.__wrapped__)):
        for args in ((), (1, 2, 3, 4)):
            with pytest.raises(TypeError) as ours:
                call(*args)
            with pytest.raises(TypeError) as theirs:
                original(*args)
            assert str(ours.value) == str(theirs.value)


def test_it_pickles_by_reference_and_copies_as_itself():
    """Functions and bound methods survive pickling; copies are the same object."""
    assert pickle.loads(pickle.dumps(plain)) is plain
    assert copy.copy(plain) is plain
    assert copy.deepcopy(plain) is plain
    bound = pickle.loads(pickle.dumps(Base("p").method))
    assert bound(1) == ["p", 1, 2]


def test_bound_and_unbound_are_one():
    """Class.method(instance, ...) and instance.method(...) have the same key and control surface."""
    base = Base()
    value = base.method(1)
    assert Base.method(base, 1) is value
    assert base.method.entry(1).value is value
    assert Base.method.invalidate(base, 1)
    assert base.method(1) is not value
    assert base.method == base.method
    assert hash(base.method) == hash(base.method)
    assert base.method != Base().method


def test_instances_are_told_apart():
    """Each instance has its own entries, though instances compare equal or cannot be hashed."""

    @dataclasses.dataclass
    class Point:
        x: int

        @single_flight_ttl(ttl=60)
        def where(self):
            return [self.x]

    first, second = Point(1), Point(1)
    assert first == second
    assert first.where() is first.where()
    assert first.where() is not second.where()
    assert type(first.where.entry().key[0]) is InstanceKey
    assert first.where.entry().key[0]() is first


def test_nothing_keeps_an_instance_alive():
    """A method's entries and values go with the instance, at once."""

    class Value:
        pass

    class Owner:
        @single_flight_ttl(ttl=60)
        def value(self):
            return Value()

    owner = Owner()
    gone, value = weakref.ref(owner), weakref.ref(owner.value())
    del owner
    assert gone() is None
    assert value() is None
    assert Owner.value.stats().entries == 0


def test_a_reused_id_never_serves_another_objects_value():
    """Many short-lived instances at the same addresses each get their own value."""

    class Owner:
        def __init__(self, number):
            self.number = number

        @single_flight_ttl(ttl=60)
        def value(self):
            return self.number

    ids = set()
    for number in range(2000):
        owner = Owner(number)
        ids.add(id(owner))
        assert owner.value() == number
        del owner
    assert len(ids) < 2000


def test_slots_need_a_weak_reference():
    """An instance that cannot be weakly referenced raises at its first call, naming self."""

    class Bare:
        __slots__ = ()

        @single_flight_ttl(ttl=60)
        def value(self):
            return 1

    class Fine(Bare):
        __slots__ = ("__weakref__",)

    with pytest.raises(TypeError, match=r"self.*__weakref__"):
        Bare().value()
    assert Fine().value() == 1


@pytest.mark.parametrize("name", ["above", "below"])
def test_class_methods(name):
    """A class method is per class, on the class and on instances."""
    base, child = getattr(Base, name), getattr(Child, name)
    assert base(1) == [Base, 1]
    assert child(1) == [Child, 1]
    assert getattr(Base(), name)(1) is base(1)
    # From Python 3.13 on, classmethod binds to what it wraps without asking it: see docs/howto/keys.md.
    applied = name == "above" or sys.version_info < (3, 13)
    assert base.entry(*(() if applied else (Base,)), 1).value == [Base, 1]
    assert base.invalidate(*(() if applied else (Base,)), 1)
    assert child.entry(*(() if applied else (Child,)), 1) is not None


@pytest.mark.parametrize("name", ["static_above", "static_below"])
def test_static_methods(name):
    """A static method is one function, however it is reached."""
    function = getattr(Base, name)
    assert function(1) is getattr(Base(), name)(1) is getattr(Child, name)(1)
    assert function.entry(1).value == [1]


def test_super_with_the_same_key_is_no_reentry():
    """An override that calls super() calls another function with its own entries."""
    assert Child().overridden() == ["base", "child"]


def test_every_kind_of_parameter():
    """Positional-only, keyword-only, starred: each call form finds the same key."""

    @single_flight_ttl(ttl=60)
    def function(a, /, b, *rest, c=3, d, **extra):
        return [a, b, rest, c, d, extra]

    value = function(1, 2, 5, d=4, z=1, y=2)
    assert value == [1, 2, (5,), 3, 4, {"z": 1, "y": 2}]
    assert function(1, 2, 5, y=2, z=1, d=4, c=3) is value
    assert function(1, 2, d=4) is not value


def test_callables_of_other_kinds():
    """functools.partial and callable objects can be decorated."""

    class Adder:
        def __call__(self, a):
            return [a]

    added = single_flight_ttl(ttl=60)(Adder())
    assert added(1) is added(a=1)
    part = single_flight_ttl(ttl=60)(functools.partial(lambda a, b: [a, b], 1))
    assert part(2) is part(2)


def test_unhashable_arguments_are_named():
    """The error names the argument, or says that it is the result of key."""
    with pytest.raises(UnhashableKey, match="argument 'b'"):
        plain(1, [])
    keyed = single_flight_ttl(key=lambda a: [a], ttl=60)(lambda a: a)
    with pytest.raises(UnhashableKey, match="key="):
        keyed(1)
    with pytest.raises(UnhashableKey, match="'b'"):
        plain.invalidate(1, [])


def test_a_key_that_raises_counts_and_holds_nothing():
    """An exception of the key function reaches the caller and nothing is counted or held."""

    @single_flight_ttl(key=lambda a: 1 / a, ttl=60)
    def function(a):
        return a

    with pytest.raises(ZeroDivisionError):
        function(0)
    stats = function.stats()
    assert (stats.calls, stats.errors, stats.locks) == (0, 0, 0)


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"ttl": -1}, ValueError, "ttl"),
        ({"ttl": float("nan")}, ValueError, "ttl"),
        ({"ttl": True}, TypeError, "ttl"),
        ({"ttl": "60"}, TypeError, "ttl"),
        ({}, TypeError, "ttl"),
        ({"ttl": 1, "maxsize": 0}, ValueError, "maxsize"),
        ({"ttl": 1, "maxsize": 1.5}, TypeError, "maxsize"),
        ({"ttl": 1, "max_idle_locks": -1}, ValueError, "max_idle_locks"),
        ({"ttl": 1, "cache_if": 3}, TypeError, "cache_if"),
        ({"ttl": 1, "follower_retries": -1}, ValueError, "follower_retries"),
        ({"ttl": 1, "follower_retries": True}, TypeError, "follower_retries"),
        ({"ttl": 1, "wait_timeout": -1}, ValueError, "wait_timeout"),
        ({"ttl": 1, "timer": 3}, TypeError, "timer"),
        ({"ttl": 1, "listener": 3}, TypeError, "listener"),
        ({"ttl": 1, "key": 3}, TypeError, "key"),
        ({"ttl": 1, "key": lambda: 1}, TypeError, "key"),
        ({"ttl": 1, "name": 3}, TypeError, "name"),
        ({"ttl": 1, "flight_timeout": -1}, ValueError, "flight_timeout"),
        ({"ttl": 1, "grace": -1}, ValueError, "grace"),
        ({"ttl": 1, "grace": None}, TypeError, "grace"),
        ({"ttl": 1, "failure_ttl": True}, TypeError, "failure_ttl"),
        ({"ttl": 1, "failure_ttl": float("nan")}, ValueError, "failure_ttl"),
        ({"ttl": 1, "refresh_ahead": 0}, ValueError, "refresh_ahead"),
        ({"ttl": 1, "refresh_ahead": 1.0}, ValueError, "refresh_ahead"),
        ({"ttl": 1, "refresh_ahead": "early"}, TypeError, "refresh_ahead"),
        ({"ttl": 1, "refresh_ahead": True}, TypeError, "refresh_ahead"),
        ({"ttl": 1, "jitter": 1}, ValueError, "jitter"),
        ({"ttl": 1, "jitter": -0.1}, ValueError, "jitter"),
        ({"ttl": 1, "jitter": "some"}, TypeError, "jitter"),
        ({"ttl": 1, "store": {}}, TypeError, "store"),
    ],
)
def test_every_wrong_option_is_named(options, error, named):
    """A wrong, missing or unknown option raises at once and is named."""
    with pytest.raises(error, match=named):
        single_flight_ttl(**options)(lambda a: a)


def test_what_cannot_be_shared_is_refused():
    """Generators, asynchronous ones too, classes and what cannot be called."""

    def generator():
        yield 1

    async def both():
        yield 1

    for unfit in (generator, both, Base, 3):
        with pytest.raises(TypeError):
            single_flight_ttl(ttl=60)(unfit)


def test_caches_and_report_know_it():
    """caches() lists it while it lives; report() names it."""
    assert any(cached is plain for cached in caches())
    assert "plain" in report()
    temporary = single_flight_ttl(ttl=60, name="temporary")(lambda: 1)
    assert "temporary" in report()
    del temporary
    gc.collect()
    assert "temporary" not in report()


def test_functions_that_are_gone_are_not_remembered():
    """However many were decorated and have died, as in a notebook: the next one that comes tidies up."""
    for _ in range(100):
        single_flight_ttl(ttl=60)(lambda: 1)
    gc.collect()
    kept = single_flight_ttl(ttl=60)(lambda: 1)
    assert caches()[-1] is kept
    assert None not in [remembered() for remembered in registry._functions]


@collects_classes
@pytest.mark.parametrize("kind", ["function", "twin", "loader"])
def test_classes_that_are_gone_are_not_remembered(kind):
    """However many had it as an attribute and have died: the next one that comes tidies up."""

    @single_flight_ttl(ttl=60)
    def fetch(instance, key):
        return key

    @fetch.twin
    async def afetch(instance, key):
        return key

    attribute = {"function": fetch, "twin": afetch, "loader": fetch.bulk(lambda instance, keys: {})}[kind]

    def class_with_it():
        return type("Temporary", (), {"get": fetch, "other": attribute})

    for _ in range(100):
        class_with_it()().get(1)
    gc.collect()
    kept = class_with_it()
    assert kept().get(1) == 1
    owners = fetch._self_assembly.twins.owners()
    assert (len(owners), None in owners, kept in owners) == (1, False, True)


def test_the_functools_trio():
    """cache_info, cache_parameters and cache_clear are there."""
    plain.cache_clear()
    plain(1), plain(1)
    assert plain.cache_info() == (1, 1, 1024, 1)
    assert plain.cache_parameters()["ttl"] == 60
    plain.cache_clear()
    assert plain.cache_info() == (0, 0, 1024, 0)
