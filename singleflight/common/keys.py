"""What stands in a key for an instance, or tells types apart, and whether an error is the key's own."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import UnhashableKey

__all__ = ["EACH", "LONE", "InstanceKey", "Instances", "check_room", "plain", "typed", "typed_throughout"]


def check_room(error: BaseException) -> None:
    """Raise `RecursionError` where a key raised it because the stack is used up; call where it is caught.

    Else the error is the key's own: it is spoilt. Where the stack ends *every* key would seem to be.
    """
    if isinstance(error, RecursionError):
        _go_down(_ROOM)


_ROOM = 100  # frames; a key that needs more to be hashed or compared is taken for spoilt


def _go_down(frames: int) -> None:
    if frames:
        _go_down(frames - 1)


class InstanceKey(weakref.ref[Any]):
    """Stands for one instance in a default key: equal to itself alone, and does not keep it alive.

    Calling it returns the instance, or None once that is gone. It needs neither `__hash__` nor `__eq__`
    of the instance, and since it is never re-used, neither is what was stored under it.
    """

    __slots__ = ("identity",)
    identity: int

    if TYPE_CHECKING:

        def __eq__(self, other: object, /) -> bool: ...
        def __ne__(self, other: object, /) -> bool: ...
        def __hash__(self) -> int: ...
    else:  # in C, with no frame of ours
        __eq__ = object.__eq__
        __ne__ = object.__ne__
        __hash__ = object.__hash__

    def __repr__(self) -> str:
        instance = self()
        if instance is None:
            return f"<instance at {self.identity:#x}, gone>"
        return f"<{type(instance).__name__} at {self.identity:#x}>"


class Instances:
    """The instance keys of one function: one for each instance alive that it was called on.

    `known` maps `id(instance)` to its key. The weak reference's callback takes the key out before the
    interpreter can use the same id again, so a look-up never meets another object's key.

    Args:
        gone: called with the key of an instance that has died; runs wherever the collector happens to
            run, so it must not wait for anything.
    """

    __slots__ = ("_gone", "known")

    def __init__(self, gone: Callable[[InstanceKey], None]) -> None:
        # Single operations of a dict only, so that no lock is needed, and none is possible in a callback.
        self.known: dict[int, InstanceKey] = {}
        self._gone = gone

    def meet(self, instance: Any) -> InstanceKey:
        """The key of an instance seen for the first time (or, in a race, the one made first)."""
        try:
            key = InstanceKey(instance, self._forget)
        except TypeError:
            kind = type(instance)
            # Only a class made in Python that has slots could have one more; not those whose instances vary
            # in size, as subclasses of int, bytes and tuple.
            able = "__slots__" in vars(kind) and kind.__itemsize__ == 0
            way_out = "add '__weakref__' to its __slots__ or pass key=" if able else "pass key="
            raise UnhashableKey(
                f"self: a {kind.__name__} cannot be weakly referenced, so the default key cannot tell its "
                f"instances apart without keeping them alive; {way_out}"
            ) from None
        key.identity = id(instance)
        return self.known.setdefault(key.identity, key)

    def _forget(self, key: InstanceKey) -> None:
        if self.known.get(key.identity) is key:
            del self.known[key.identity]
        self._gone(key)


EACH, LONE = type("Each", (), {})(), type("Lone", (), {})()
"""Last in keys that tell types apart: behind its parts and the type of each, or behind it and its type."""


def typed(key: Any) -> tuple[Any, ...]:
    """A key with its type, or with that of each item of a tuple.

    >>> typed((1, "a")) == typed((1.0, "a"))
    False
    """
    if type(key) is tuple:
        return *key, *map(type, key), EACH
    return key, (type(key), *map(type, key)) if isinstance(key, tuple) else type(key), LONE


def typed_throughout(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A tuple with the types of its items, and of the items of tuples among them."""
    return *key, *map(_types_of, key), EACH


def _types_of(value: Any) -> Any:
    return tuple(map(_types_of, value)) if type(value) is tuple else type(value)


def plain(key: Any) -> Any:
    """A key as users know it, without types.

    >>> plain(typed((1, "a"))), plain(typed(1)), plain(1)
    ((1, 'a'), 1, 1)
    """
    if type(key) is tuple and key:
        if key[-1] is EACH:
            return key[: len(key) // 2]
        if key[-1] is LONE:
            return key[0]
    return key
