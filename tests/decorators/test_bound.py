"""A decorated method on its instance shows what its function shows, and behaves as a bound method does."""

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
