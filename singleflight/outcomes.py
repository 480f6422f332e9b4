"""Handing one flight's exception to many callers without tying them together.

Raising the same exception object in many threads makes its traceback grow with each of them and lets
one caller's handler change what another sees. So each follower gets a copy, made without running any of
the exception's own code, and the original object only where such a copy would not be faithful.
"""

from __future__ import annotations

import types
from typing import Any

__all__ = ["copy_of"]

_FIELDS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_SET_APART = frozenset({"__dict__", "__weakref__", "__traceback__", "args"})


def copy_of(error: BaseException, traceback: types.TracebackType | None) -> BaseException:
    """A faithful copy of an exception with this traceback; the same object where none can be made.

    The copy has the same type, args, attributes (slots and built-in fields included), cause, context
    and notes. Neither `__init__` nor a Python `__new__` is run.
    """
    try:
        copy = _copy(error)
    except Exception:  # a type whose fields cannot be written: share the object itself, reset
        return error.with_traceback(traceback)
    return copy.with_traceback(traceback)


def _copy(error: BaseException) -> BaseException:
    kind = type(error)
    built_in = next(base for base in kind.__mro__ if base.__module__ == "builtins")
    copy: BaseException = built_in.__new__(kind, *error.args)
    copy.args = error.args
    for base in kind.__mro__:
        if base is object:
            continue
        for name, field in vars(base).items():
            if isinstance(field, _FIELDS) and name not in _SET_APART:
                _copy_field(field, error, copy)
    attributes = dict(vars(error))
    if "__notes__" in attributes:  # a list: add_note on one must not show on the others
        attributes["__notes__"] = list(attributes["__notes__"])
    vars(copy).update(attributes)
    # Last: writing __cause__ also sets __suppress_context__.
    copy.__cause__, copy.__context__ = error.__cause__, error.__context__
    copy.__suppress_context__ = error.__suppress_context__
    return copy


def _copy_field(field: Any, error: BaseException, copy: BaseException) -> None:
    try:
        value = field.__get__(error)
    except AttributeError:  # not set on the original
        return
    try:
        already = field.__get__(copy)
    except AttributeError:
        already = _SET_APART  # nothing that an exception could hold
    same_group = type(value) is tuple and already == value  # ExceptionGroup.exceptions is read-only
    if already is not value and not same_group:
        field.__set__(copy, value)
