"""Binding and keys, for every way in which a function gets into a class."""

import copy
import functools
import gc
import inspect
import pydoc
import sys
import weakref
from abc import ABC, ABCMeta
from typing import Protocol

import pytest
import wrapt

from singleflight import InstanceKey, UnhashableKey, single_flight_ttl


class Value:
    """Something that can be weakly referenced."""


class Owner:
    """`method` and `of_class`, undecorated in `Bare`."""

    def __init__(self, name="x"):
        self.name = name

    @single_flight_ttl(ttl=60)
    def method(self, a=1):
        """A method."""
        return [self.name, a]

    @single_flight_ttl(ttl=60)
    @classmethod
    def of_class(cls, a=1):
        """A class method."""
        return [cls, a]


class Bare:
    def method(self, a=1):
        return a

    def positional(self, a=1, /):
        return a

    @classmethod
    def of_class(cls, a=1):
        return a


# -- (*args) ----------------------------------------


@pytest.mark.parametrize("key", [None, lambda *args: args[1:]], ids=["default key", "own key"])
def test_a_method_of_starred_arguments_gets_its_instance(key):
    """`def method(*args)` is bound as Python binds it."""

    class Starred:
        @single_flight_ttl(ttl=60, key=key)
        def method(*args):
            return args

    instance = Starred()
    assert instance.method(1, 2) == (instance, 1, 2)
    assert Starred.method(instance, 1, 2) is instance.method(1, 2)
    assert instance.method.stats().calls == 1
    assert instance.method.invalidate(1, 2)


def test_starred_methods_keep_no_instance_alive():
    """The instance is told by its identity there too."""

    class Starred:
        @single_flight_ttl(ttl=60)
        def method(*args, **more):
            return Value()

    first, second = Starred(), Starred()
    assert first.method(1, x=2) is first.method(1, x=2)
    assert first.method(1, x=2) is not second.method(1, x=2)
    assert type(first.method.entry(1, x=2).key[0]) is InstanceKey
    gone = weakref.ref(first)
    del first
    assert gone() is None
    with pytest.raises(UnhashableKey, match=r"'\*args\[1\]'"):
        second.method(1, [])


# -- decorators below and above ----------------------------------------


def told_instance(seen):
    @wrapt.decorator
    def decorator(wrapped, instance, args, kwargs):
        seen.append(instance)
        return wrapped(*args, **kwargs)

    return decorator


@pytest.mark.parametrize("key", [None, lambda self: id(self)], ids=["default key", "own key"])
def test_a_wrapt_decorator_below_is_told_the_instance(key):
    """What is below is called as it would be without us: bound."""
    seen = []

    class Wrapped:
        @single_flight_ttl(ttl=60, key=key)
        @told_instance(seen)
        def method(self):
            return [self]

    instance, other = Wrapped(), Wrapped()
    assert instance.method() == [instance]
    assert Wrapped.method(other) == [other]
    assert instance.method.refresh() == [instance]
    assert seen == [instance, other, instance]


def test_a_wrapt_decorator_below_is_told_the_class():
    """The same for class methods."""
    seen = []

    class Wrapped:
        @single_flight_ttl(ttl=60)
        @classmethod
        @told_instance(seen)
        def method(cls):
            return [cls]

    class Child(Wrapped):
        pass

    assert (Wrapped.method(), Child.method()) == ([Wrapped], [Child])
    # From Python 3.13 on a class method no longer binds what is below it by itself.
    assert seen == [Wrapped, Child] or (sys.version_info >= (3, 13) and seen == [None, None])


def passing_on(function):
    @functools.wraps(function)
    def wrapper(self, *args):
        return function(self, *args)

    return wrapper


class UnderProperty:
    __hash__ = None

    @property
    @single_flight_ttl(ttl=60)
    def value(self):
        return Value()


class UnderWrapper:
    __hash__ = None

    @passing_on
    @single_flight_ttl(ttl=60)
    def method(self):
        return Value()

    value = property(lambda self: self.method())


@pytest.mark.parametrize("kind", [UnderProperty, UnderWrapper])
def test_what_stands_above_hides_no_instance(kind):
    """Under a property or a plain wrapper instances are told apart and not kept alive either."""
    first, second = kind(), kind()
    value = first.value
    assert first.value is value
    assert second.value is not value
    gone = weakref.ref(first), weakref.ref(value)
    del first, value
    assert [ref() for ref in gone] == [None, None]


# -- functions from elsewhere ----------------------------------------


def make():
    @single_flight_ttl(ttl=60)
    def method(owner):
        return Value()

    return method


def test_a_function_from_elsewhere_has_one_key_bound_and_unbound():
    """Assigned in the class body, or afterwards: instance and class ask for the same."""

    class Body:
        method = make()

    class Later:
        pass

    Later.method = make()
    for kind in (Body, Later):
        first, second = kind(), kind()
        assert kind.method(first) is first.method()
        assert second.method() is kind.method(second)
        assert kind.method.entry(first) is not None
        gone = weakref.ref(first)
        del first
        assert gone() is None


def test_a_function_that_is_also_in_a_class_still_takes_anything():
    """Plain calls with first arguments that are no instances of the class are as they were."""
    function = make()

    class Body:
        method = function

    instance = Body()
    assert instance.method() is function(instance) is Body.method(instance)
    assert function("a") is function("a")
    assert function.entry("a").key == ("a",)


class Refusing(type):
    def __instancecheck__(cls, value):
        raise RuntimeError("not to be asked")


@pytest.mark.parametrize("kind", ["protocol", "abstract", "refusing"])
def test_no_class_is_asked_what_its_instances_are(kind):
    """A Protocol, or a metaclass, may refuse to say, and what an ABC takes in has no such method."""
    function = make()
    bases = {"protocol": (Protocol,), "abstract": (ABC,), "refusing": ()}[kind]
    metaclass = {"protocol": type(Protocol), "abstract": ABCMeta, "refusing": Refusing}[kind]
    body = metaclass("Body", bases, {"method": function})
    if kind == "abstract":
        body.register(str)
    concrete = type(body)("Concrete", (body,), {})
    instance = concrete()
    assert instance.method() is body.method(instance) is function(instance)
    assert function("a") is function("a") is body.method("a")
    assert function.entry("a").key == ("a",)
    assert type(function.entry(instance).key[0]) is InstanceKey


def test_no_class_is_asked_by_a_loader_either():
    """Its plain calls, too, look for an instance first."""

    def load(first, second):
        return dict.fromkeys(second, "of an instance") if second != "plain" else dict.fromkeys(first, "plain")

    function = single_flight_ttl(ttl=60)(lambda first, second: None)
    loader = function.bulk(load)

    class Body(Protocol):
        method, methods = function, loader

    class Concrete(Body):
        pass

    instance = Concrete()
    assert loader(instance, ["a"]) == {"a": "of an instance"}
    assert loader(["a"], "plain") == {"a": "plain"}
    assert (instance.method("a"), function("a", "plain")) == ("of an instance", "plain")


def test_binding_by_hand_changes_no_plain_call():
    """`function.__get__(instance)` says nothing about which class it belongs to."""
    function, instance = make(), Owner()
    assert function.__get__(instance)() is function.__get__(instance)()
    assert function("a") is function("a")
    assert function.entry("a").key == ("a",)


@pytest.mark.parametrize("starred", [False, True])
def test_the_controls_of_what_is_bound_by_hand_know_its_instance(starred):
    """`function.__get__(instance)` has the entries of its own calls, which no plain call has."""
    instance = Owner()
    function = single_flight_ttl(ttl=60)(lambda owner, *rest: Value()) if starred else make()
    bound = function.__get__(instance)
    value = bound()
    assert bound.entry().value is value
    assert function.entry(instance) is None
    assert function(instance) is not value
    assert bound.invalidate()
    assert bound() is not value


def test_functions_decorated_twice_are_bound_throughout():
    """Two of ours, one above the other: each with its own entries, neither keeping the instance."""

    class Twice:
        @single_flight_ttl(ttl=60)
        @single_flight_ttl(ttl=60)
        def method(self):
            return Value()

    instance = Twice()
    assert Twice.method(instance) is instance.method()
    gone = weakref.ref(instance)
    del instance
    assert gone() is None


def test_what_python_does_not_bind_is_not_bound():
    """Builtins, partials and callable objects take no instance when they are class attributes."""

    class Adder:
        def __call__(self, a):
            return [a]

    class Body:
        length = single_flight_ttl(ttl=60)(len)
        adder = single_flight_ttl(ttl=60)(Adder())

    assert Body().length("abc") == 3
    assert Body().adder(1) == Body.adder(1) == [1]


def test_a_function_without_a_parameter_for_an_instance_is_given_none():
    """It is called on the instance as on the class, wrapped or not."""

    def named(*, number=1):
        return number

    class Body:
        plain = single_flight_ttl(ttl=60)(named)
        wrapped = single_flight_ttl(ttl=60)(functools.wraps(named)(lambda **kwargs: sorted(kwargs)))

    assert Body().plain() == Body.plain() == 1
    assert Body().wrapped(number=2) == Body.wrapped(number=2) == ["number"]


def test_what_wraps_a_function_without_parameters_is_given_the_instance():
    """It may take another call than it shows: it is called as it is undecorated."""

    class Body:
        cached = single_flight_ttl(ttl=60)(functools.lru_cache(lambda: 1))

    assert Body.cached() == 1
    with pytest.raises(TypeError, match="1 was given"):
        Body().cached()


def test_a_callable_object_that_binds_itself_is_given_the_instance_if_it_takes_one():
    """Its `__get__` is asked, as Python asks it."""

    class Binding:
        def __get__(self, instance, owner=None):
            return self if instance is None else functools.partial(self, instance)

    class Symbol(Binding):
        def __call__(self, account, symbol="A"):
            return [account, symbol]

    class Nothing(Binding):
        def __call__(self):
            return 1

    class Body:
        symbol = single_flight_ttl(ttl=60)(Symbol())
        nothing = single_flight_ttl(ttl=60)(Nothing())

    one, two = Body(), Body()
    assert (one.symbol("B"), two.symbol("B")) == ([one, "B"], [two, "B"])
    assert Body.symbol(one, "B") is one.symbol(symbol="B") is one.symbol("B")
    assert one.nothing() == Body.nothing() == 1


def test_builtins_without_a_signature_take_a_key():
    """A key is not held against parameters that nobody knows."""
    largest = single_flight_ttl(ttl=60, key=lambda *values: values)(max)
    with pytest.raises(ValueError, match="signature"):
        inspect.signature(max)
    assert largest(1, 2) == largest(1, 2) == 2
    assert largest.stats().calls == 1
    assert single_flight_ttl(ttl=60, key=lambda first, second: first)(max)(1, 2) == 2


# -- a bound method in use ----------------------------------------


def test_copies_of_a_bound_method_are_bound():
    """deepcopy binds to a copy of the instance, as Python's own does; copy to the instance itself."""
    owner = Owner("one")
    deep = copy.deepcopy(owner.method)
    owner.name = "two"
    assert deep.__self__ is not owner
    assert deep(5) == ["one", 5]
    assert copy.copy(owner.method)(5) == ["two", 5]
    assert copy.copy(owner.method) == owner.method


def test_a_bound_method_is_weakly_held_by_weak_method():
    """WeakMethod gives an equal bound method while the instance lives."""
    owner = Owner()
    for bound in (owner.method, Owner.of_class):
        weak = weakref.WeakMethod(bound)
        assert weak() == bound
        assert weak()(3) is bound(3)
        assert weak().__qualname__ == bound.__qualname__
    weak = weakref.WeakMethod(owner.method)
    del owner, bound
    gc.collect()
    assert weak() is None


def test_a_bound_method_outlives_its_function():
    """Replaced on its class, the function is still there for those who hold a bound method."""

    class Replaced:
        @single_flight_ttl(ttl=60)
        def method(self):
            """Told."""
            return [1]

    bound = Replaced().method
    value = bound()
    Replaced.method = None
    gc.collect()
    assert (bound.__name__, bound.__doc__, bound.__qualname__[-15:]) == ("method", "Told.", "Replaced.method")
    assert "Replaced.method" in repr(bound)
    assert bound() is value
    assert bound.__func__(bound.__self__) is value


def test_help_shows_the_docstring():
    """help() of a class method, and of a method on an instance."""
    assert "A class method." in pydoc.render_doc(Owner.of_class)
    assert "A method." in pydoc.render_doc(Owner().method)
    assert inspect.getdoc(Owner.of_class) == "A class method."


@pytest.mark.parametrize("name", ["method", "positional", "of_class"])
def test_naming_the_instance_too_raises_as_usual(name):
    """`obj.method(1, self=obj)`: the message is Python's own."""
    raw = vars(Bare)[name]

    class Decorated:
        pass

    setattr(Decorated, name, single_flight_ttl(ttl=60)(raw))
    taken = "cls" if name == "of_class" else "self"
    with pytest.raises(TypeError) as theirs:
        getattr(Bare(), name)(1, **{taken: 2})
    for call in (getattr(Decorated(), name), getattr(Decorated(), name).invalidate):
        with pytest.raises(TypeError) as ours:
            call(1, **{taken: 2})
        assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("options", [{}, {"typed": True}, {"ignore": "more"}], ids=str)
@pytest.mark.parametrize("loose", [False, True])
def test_a_first_argument_at_fault_is_named_where_it_might_be_an_instance(options, loose):
    """In a function that is also in a class, what is no instance is at fault, and an instance is not."""

    def take(item, count=1, more=2):
        return [item, count]

    @functools.wraps(take)
    def passing_on(*args, **kwargs):
        return take(*args, **kwargs)

    shared = single_flight_ttl(ttl=60, **options)(passing_on if loose else take)

    class Unhashable:
        __hash__ = None
        method = shared

    instance = Unhashable()
    assert Unhashable.method is shared
    for call in (shared, shared.entry, shared.explain, shared.refresh):
        with pytest.raises(UnhashableKey, match="'item'"):
            call([])
        with pytest.raises(UnhashableKey, match="'item'"):
            call(item=[], count=2)
        with pytest.raises(UnhashableKey, match="'count'"):
            call(1, [])
        with pytest.raises(UnhashableKey, match="'count'"):
            call(instance, [])
    assert shared(instance) is shared(instance)
    assert shared(instance)[0] is instance


def test_the_argument_at_fault_is_named():
    """Not an instance that cannot be hashed, not the whole of **extra."""

    class Unhashable:
        __hash__ = None

        @single_flight_ttl(ttl=60)
        def method(self, a=1, *rest, **extra):
            return 1

    instance = Unhashable()
    for arguments, named, at_fault in (
        (([],), {}, "'a'"),
        ((1, 2, []), {}, r"'\*rest\[1\]'"),
        ((), {"x": 1, "y": []}, "'y'"),
    ):
        for call in (
            instance.method,
            instance.method.entry,
            functools.partial(Unhashable.method, instance),
        ):
            with pytest.raises(UnhashableKey, match=at_fault):
                call(*arguments, **named)
