"""A decorated method on its instance shows what its function shows, and behaves as a bound method does."""

import copy
import inspect
import types
from typing import get_type_hints

import pytest

from singleflight import BoundSingleFlight, single_flight_ttl


class Owner:
    def __init__(self, name="x"):
        self.name = name

    @single_flight_ttl(ttl=60)
    def method(self, a: int, b: int = 2) -> list[object]:
        """A method."""
        return [self.name, a, b]

    @single_flight_ttl(ttl=60)
    @classmethod
    def of_class(cls, a: int) -> list[object]:
        """A class method."""
        return [cls, a]


@pytest.mark.parametrize("bound", [Owner().method, Owner.of_class], ids=["method", "of_class"])
def test_it_shows_its_functions_attributes(bound):
    """Everything that Python's own bound method shows of its function is there."""
    assert type(bound).__mro__[1] is BoundSingleFlight
    for name in ("name", "qualname", "doc", "module", "annotations", "defaults", "code", "globals"):
        name = f"__{name}__"
        assert getattr(bound, name) == getattr(bound.__func__, name), name
    assert not hasattr(bound, "nothing")


@pytest.mark.parametrize("name", ["method", "of_class"])
def test_its_call_says_what_it_takes(name):
    """Tools (Litestar) that find a `__call__` which is a method look at that, and not at the bound method."""
    bound = getattr(Owner(), name)
    assert inspect.signature(bound.__call__) == inspect.signature(bound)
    assert get_type_hints(bound.__call__) == get_type_hints(bound) == get_type_hints(bound.__wrapped__)
    assert inspect.ismethod(bound.__call__)


def test_what_has_no_annotations_is_bound():
    """A callable object may have none, or something else under that name."""

    class Adder:
        def __call__(self, owner, a):
            return [a, self]

        def __get__(self, owner, kind=None):
            return self if owner is None else types.MethodType(self, owner)

    odd = Adder()
    odd.__annotations__ = odd.__annotate__ = "none"

    class Adding:
        plain, strange = single_flight_ttl(ttl=60)(Adder()), single_flight_ttl(ttl=60)(odd)

    adding = Adding()
    assert adding.plain(1)[0] == 1
    assert adding.strange(1) is adding.strange(a=1)
    assert adding.strange(1) == [1, odd]


def test_custom_attributes_show_whenever_they_are_set():
    """Set on the function before it is bound or after, they are its bound methods' too; deleted, they go."""

    class Fresh:
        def method(self):
            return 1

        method.before = "before"
        method = single_flight_ttl(ttl=60)(method)

    instance = Fresh()
    bound = instance.method
    assert bound.before == "before"
    Fresh.method.after = "after"
    assert bound.after == instance.method.after == "after"
    assert bound.__dict__ == {"before": "before", "after": "after"}
    Fresh.method.after = "later"
    assert instance.method.after == "later"
    del Fresh.method.after
    assert not hasattr(instance.method, "after")
    with pytest.raises(AttributeError):
        instance.method.own = 1


def test_a_custom_attribute_does_not_hide_the_control_surface():
    """What a method is called decides nothing about what can be done with it."""

    class Fresh:
        @single_flight_ttl(ttl=60)
        def method(self):
            return 1

    Fresh.method.stats = "mine"
    assert Fresh().method.stats().calls == 0
    del Fresh.method.stats  # others walk over all functions there are


def test_deep_copies_of_bound_methods_have_their_instance_once():
    """A list with an instance and two of its bound methods is copied with one instance."""
    owner = Owner()
    copied, *methods = copy.deepcopy([owner, owner.method, owner.method])
    assert copied is not owner
    assert [method.__self__ for method in methods] == [copied, copied]
    assert methods[0].__self__ is copied
    assert methods[0](1) == ["x", 1, 2]


def test_deep_copies_of_bound_loaders_have_their_instance_once():
    """The same with a bulk loader."""

    class Many(Owner):
        @Owner.method.bulk
        def many(self, symbols, b=2):
            return dict.fromkeys(symbols, self.name)

    owner = Many()
    copied, first, second = copy.deepcopy([owner, owner.many, owner.many])
    assert copied is not owner
    assert first.__self__ is copied
    assert second.__self__ is copied


@pytest.mark.parametrize("name", ["of_class", "method"])
def test_bound_by_hand_without_an_owner(name):
    """`function.__get__(instance)` knows the class by the instance."""
    owner = Owner()
    function = vars(Owner)[name]
    assert function.__get__(owner)(1) is getattr(owner, name)(1)
    assert function.__get__(owner) == getattr(owner, name)


def test_methods_of_equal_instances_are_two():
    """Bound methods go by the identity of their instances, which need be neither hashable nor unequal."""

    class Equal(Owner):
        __hash__ = None

        def __eq__(self, other):
            return True

    one, other = Equal(), Equal()
    assert one.method == one.method
    assert one.method != other.method
    assert hash(one.method) == hash(one.method)
    assert len({one.method, one.method, other.method}) == 2
