"""Methods of instances that cannot be weakly referenced: the error names a way out that there is."""

import asyncio
import enum
from typing import NamedTuple

import pytest

from singleflight import UnhashableKey, single_flight_ttl


class Decorated:
    __slots__ = ()

    @single_flight_ttl(ttl=60)
    def get(self, symbol):
        return symbol

    @get.twin
    async def aget(self, symbol):
        return symbol

    @get.bulk
    def many(self, symbols):
        return dict.fromkeys(symbols, 1)

    @single_flight_ttl(ttl=60, key=lambda self, symbol: symbol)
    def keyed(self, symbol):
        return [symbol]


class OfInt(Decorated, int):
    pass


class OfIntWithSlots(Decorated, int):
    __slots__ = ()


class OfBytes(Decorated, bytes):
    pass


class OfTuple(Decorated, tuple):
    __slots__ = ()


class Fields(NamedTuple):
    x: int


class OfNamedTuple(Decorated, Fields):
    __slots__ = ()


class Levels(Decorated, enum.IntEnum):
    LOW = 1


class Flags(Decorated, enum.IntFlag):
    ON = 1


FIXED = [OfInt(1), OfIntWithSlots(1), OfBytes(b"a"), OfTuple((1,)), OfNamedTuple(1), Levels.LOW, Flags.ON]


class Calls:
    """Each way to call a method of an instance."""

    @staticmethod
    def plain(instance):
        return instance.get("A")

    @staticmethod
    def by_class(instance):
        return Decorated.get(instance, "A")

    @staticmethod
    def coroutine(instance):
        return asyncio.run(instance.aget("A"))

    @staticmethod
    def loader(instance):
        return instance.many(["A"])

    @staticmethod
    def control(instance):
        return instance.get.entry("A")


EACH = ["plain", "by_class", "coroutine", "loader", "control"]


@pytest.mark.parametrize("call", EACH)
@pytest.mark.parametrize("instance", FIXED, ids=lambda instance: type(instance).__name__)
def test_what_cannot_have_weak_references_is_told_to_pass_a_key(instance, call):
    """Classes whose instances vary in size cannot add `__weakref__`, so that is not what they are told."""
    with pytest.raises(
        UnhashableKey, match=f"{type(instance).__name__} cannot be weakly.*pass key=$"
    ) as caught:
        getattr(Calls, call)(instance)
    assert "__slots__" not in str(caught.value)
    assert instance.keyed("A") is instance.keyed("A")


@pytest.mark.parametrize("instance", [object(), 3, "text"], ids=["object", "int", "str"])
def test_what_is_not_made_in_python_is_told_to_pass_a_key(instance):
    """So are instances of classes that have no slots to add to."""
    with pytest.raises(UnhashableKey, match=r"; pass key=$") as caught:
        Decorated.get(instance, "A")
    assert "__slots__" not in str(caught.value)


@pytest.mark.parametrize("call", EACH)
def test_slots_are_told_what_to_add(call):
    """A class with `__slots__` can add `__weakref__`, which helps."""

    class Slots(Decorated):
        __slots__ = ("x",)

    class Mended(Decorated):
        __slots__ = ("__weakref__", "x")

    with pytest.raises(UnhashableKey, match=r"add .__weakref__. to its __slots__ or"):
        getattr(Calls, call)(Slots())
    assert getattr(Calls, call)(Mended()) in ("A", {"A": 1}, None)
