"""Whether a value that was written and read again is the same: equal, and of the same type in every part."""

from __future__ import annotations

import sys
import weakref
from collections import deque
from collections.abc import Iterable
from datetime import datetime, time
from decimal import Decimal
from functools import cached_property
from types import MemberDescriptorType, NoneType
from typing import Any

from ..common.messages import kind_of, shown

__all__ = ["difference"]

_SIMPLE = frozenset({int, str, float, bool, bytes, NoneType})
_AS_WRITTEN = (float, Decimal, complex)  # NaN equals nothing, and 1.0 a Decimal of another precision
_LOST = object()


def difference(value: Any, again: Any) -> str | None:
    """Return what is different in a value that was read again, and where; None if nothing is.

    Containers and objects are compared part by part; what a `cached_property` has left in one is no part.
    Raises whatever a part's `__eq__` raises.

    >>> difference([1, (2, 3)], [1, [2, 3]])
    'value[1]: a tuple would come back as a list'
    """
    found = _difference(value, again)
    return None if found is None else f"value{found}"


def _difference(value: Any, again: Any) -> str | None:
    kind = type(value)
    if kind is not type(again):
        becomes = "be lost" if again is _LOST else f"come back as {kind_of(again)}"
        return f": {kind_of(value)} would {becomes}"
    if kind in _SIMPLE and value == again:
        return None
    same, found = True, None
    if issubclass(kind, (list, tuple, deque)):
        found = _first("[{}]", zip(range(len(value)), value, again, strict=False))
        same = len(value) == len(again) and getattr(value, "maxlen", 0) == getattr(again, "maxlen", 0)
    elif issubclass(kind, dict):
        found = _first(", the key {}", zip(value, value, again, strict=False))
        found = found or _first("[{}]", zip(value, value.values(), again.values(), strict=False))
        same = len(value) == len(again) and _factory_of(value) is _factory_of(again)
    elif issubclass(kind, (set, frozenset)):
        there = {part: part for part in again}
        same = len(value) == len(again)
        found = _first(", {}", ((part, part, there.get(part, _LOST)) for part in value))
    elif kind.__module__.partition(".")[0] not in sys.stdlib_module_names:
        state, there = _state_of(value), _state_of(again)
        found = _first(".{}", ((name, part, there.get(name, _LOST)) for name, part in state.items()), str)
        same = len(state) == len(there) and (bool(state) or value == again)
    elif isinstance(value, (datetime, time)) and (value.tzinfo, value.fold) != (again.tzinfo, again.fold):
        return f": {shown(value)} would come back in {again.tzinfo}, convert it before"
    elif isinstance(value, _AS_WRITTEN):
        same = repr(value) == repr(again)
    else:
        same = value is again or bool(value == again)
    if found is None and not same:
        return f": {shown(value)} would come back as {shown(again)}"
    return found


def _first(where: str, parts: Iterable[tuple[Any, Any, Any]], told: Any = shown) -> str | None:
    """The first of these parts that is different, after its place."""
    for place, part, other in parts:
        kind = type(part)
        if kind not in _SIMPLE or kind is not type(other) or part != other:
            found = _difference(part, other)
            if found is not None:
                return where.format(told(place)) + found
    return None


_names: weakref.WeakKeyDictionary[type, tuple[list[str], list[str]]] = weakref.WeakKeyDictionary()


def _state_of(value: Any) -> dict[str, Any]:
    """What an object is made of, by name."""
    kind = type(value)
    if kind not in _names:
        members = [(name, member) for each in kind.__mro__ for name, member in vars(each).items()]
        slots = [name for name, member in members if isinstance(member, MemberDescriptorType)]
        computed = [name for name, member in members if isinstance(member, cached_property)]
        _names[kind] = [name for name in slots if name != "__pydantic_fields_set__"], computed
    slots, computed = _names[kind]
    state = dict(getattr(value, "__dict__", {}))
    for name in computed:
        state.pop(name, None)
    for name in slots:
        state[name] = getattr(value, name, None)
    return state


def _factory_of(value: Any) -> Any:
    return getattr(value, "default_factory", None)
