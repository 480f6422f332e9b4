"""Handing one flight's exception to many callers without tying them together.

Raising the same exception object in many threads makes its traceback grow with each of them and lets
one caller's handler change what another sees. So each follower gets a copy, made without running any of
the exception's own code, and the original object only where such a copy would not be faithful.

Everything is read and written through the descriptors of `BaseException`, which ask no `__setattr__`: that
of a frozen dataclass refuses. (Python's own `raise` does the same.)
"""

from __future__ import annotations

import builtins
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

__all__ = ["bare_copy_of", "copy_of", "raise_shared", "traceback_of", "without_drivers"]

_FIELDS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_own: Any = vars(BaseException)
_args, _cause, _context, _suppress, _traceback, _attributes = (
    _own[name]
    for name in ("args", "__cause__", "__context__", "__suppress_context__", "__traceback__", "__dict__")
)
_group: Any = vars(BaseExceptionGroup)
_message, _members = _group["message"], _group["exceptions"]
_NO_FIELDS = ("__dict__", "__weakref__")  # which classes beside exceptions may bring in
_UNSET = object()
_DRIVERS = tuple(f"{__name__.partition('.')[0]}.{room}." for room in ("drivers", "redis"))  # modules' names

traceback_of: Callable[[BaseException], types.TracebackType | None] = _traceback.__get__
"""Where an exception was raised, whatever its class makes of the name `__traceback__`."""


def copy_of(error: BaseException, traceback: types.TracebackType | None) -> BaseException:
    """A faithful copy of an exception with this traceback; the same object where none can be made.

    The copy has the same type, args, attributes (slots and built-in fields included), cause, context
    and notes. Neither `__init__` nor a Python `__new__` is run.
    """
    try:
        copy = _copy(error, None)
    except Exception:  # a type whose fields cannot be written: share the object itself, reset
        copy = error
    _traceback.__set__(copy, traceback)
    return copy


def bare_copy_of(error: BaseException) -> BaseException:
    """A copy that refers to no frames, to be kept; the same object, as it is, where none can be made.

    Tracebacks lead to frames, and these to all that is local to them. So not only the exception is copied,
    but also its cause and context, a group's members, the exceptions in its args and attributes, and theirs.
    One of these that cannot be copied is shared as it is, frames and all.
    """
    try:
        return _copy_all(error)
    except Exception:
        return error


def without_drivers(traceback: types.TracebackType) -> types.TracebackType:
    """Return the part below the frames that ran the function: a follower should see where that failed."""
    below = traceback.tb_next or traceback
    while below.tb_next is not None and _is_driver(below.tb_frame):
        below = below.tb_next
    return below


def raise_shared(error: BaseException, traceback: types.TracebackType | None = None) -> NoReturn:
    """Raise a copy of a shared error, with the context it has also where this caller handles another one."""
    copy = copy_of(error, traceback)
    shared, context = copy is error, _context.__get__(copy)
    del error
    try:
        raise copy
    finally:
        if context is not None or shared:  # what this caller handles is not to be seen by the others
            _context.__set__(copy, context)
        del copy, context, traceback


def _is_driver(frame: types.FrameType) -> bool:
    name = dict.get(frame.f_globals, "__name__")  # in a user's module it may be anything, and missing
    return type(name) is str and name.startswith(_DRIVERS)


def _copy(error: BaseException, members: tuple[BaseException, ...] | None) -> BaseException:
    """A copy of one exception; with `members` in place of a group's own."""
    kind = type(error)
    built_in = next(base for base in kind.__mro__ if vars(builtins).get(base.__name__) is base)
    args = _args.__get__(error)
    if _is_group(error):  # whose args may be any
        given: tuple[Any, ...] = _message.__get__(error), members or _members.__get__(error)
    else:
        given = args
    copy: BaseException = built_in.__new__(kind, *given)
    _args.__set__(copy, args)
    for field in _fields(kind):
        value = _read(field, error)
        if value is not _UNSET and value is not _read(field, copy):
            field.__set__(copy, value)
    attributes = dict(_attributes.__get__(error))
    if type(attributes.get("__notes__")) is list:  # add_note on one must not show on the others
        attributes["__notes__"] = list(attributes["__notes__"])
    _attributes.__get__(copy).update(attributes)
    _cause.__set__(copy, _cause.__get__(error))
    _context.__set__(copy, _context.__get__(error))
    _suppress.__set__(copy, _suppress.__get__(error))  # last: writing the cause also sets it
    return copy


def _fields(kind: type[BaseException]) -> Iterator[Any]:
    """The slots of its classes and the built-in ones' fields, but for what all exceptions have.

    Without a group's members, which nobody can write.
    """
    for base in kind.__mro__:
        if base is not BaseException and base is not object:
            for name, field in vars(base).items():
                if isinstance(field, _FIELDS) and name not in _NO_FIELDS and field is not _members:
                    yield field


def _read(field: Any, error: BaseException) -> Any:
    try:
        return field.__get__(error)
    except Exception:  # not set: built-in fields say so in several ways
        return _UNSET


def _copy_all(error: BaseException) -> BaseException:
    """Copies of an exception and of all that can be reached from it, which refer to each other."""
    found: dict[int, BaseException] = {}
    todo = [error]
    while todo:  # not recursive: a chain may be longer than the stack is deep, and lead back to itself
        each = todo.pop()
        if id(each) not in found:
            found[id(each)] = each
            with suppress(Exception):  # else it is shared as it is, with all that it refers to
                todo += _linked(each)
    copies: dict[int, BaseException] = {}
    for each in found.values():
        todo = [each]
        while todo:  # a group after its members, which it can be given only once
            if id(todo[-1]) in copies:
                todo.pop()
                continue
            members = _members_of(todo[-1])
            missing = [member for member in members if id(member) not in copies]
            if missing:
                todo += missing
                continue
            original = todo.pop()
            try:
                copy = _copy(original, tuple(copies[id(member)] for member in members) or None)
            except Exception:
                copy = original
            copies[id(original)] = copy

    for number, original in found.items():
        if copies[number] is not original:
            _relink(copies[number], copies)
    return copies[id(error)]


def _members_of(error: BaseException) -> tuple[BaseException, ...]:
    members: tuple[BaseException, ...] = _members.__get__(error) if _is_group(error) else ()
    return members


def _is_group(error: BaseException) -> bool:
    return issubclass(type(error), BaseExceptionGroup)


def _is_error(value: object) -> bool:
    return issubclass(type(value), BaseException)  # what it is, not what it says that it is


def _linked(error: BaseException) -> Iterator[BaseException]:
    """The exceptions that it refers to, also those in a list or tuple, as a group's args hold its members."""
    values = [_cause.__get__(error), _context.__get__(error), *_args.__get__(error)]
    values += _attributes.__get__(error).values()
    values += [_read(field, error) for field in _fields(type(error))]
    values += _members_of(error)
    for value in values:
        if _is_error(value):
            yield value
        elif type(value) is list or type(value) is tuple:
            yield from filter(_is_error, value)


def _relink(copy: BaseException, copies: dict[int, BaseException]) -> None:
    """Have a copy refer to other copies in place of the originals, and to no frames."""

    def replaced(value: Any) -> Any:
        if type(value) is list or type(value) is tuple:
            if any(id(each) in copies for each in value):
                return type(value)(copies.get(id(each), each) for each in value)
            return value
        return copies.get(id(value), value)

    _traceback.__set__(copy, None)
    suppressed = _suppress.__get__(copy)
    _cause.__set__(copy, replaced(_cause.__get__(copy)))
    _context.__set__(copy, replaced(_context.__get__(copy)))
    _suppress.__set__(copy, suppressed)
    _args.__set__(copy, tuple(map(replaced, _args.__get__(copy))))
    attributes = _attributes.__get__(copy)
    attributes.update({name: replaced(value) for name, value in attributes.items()})
    for field in _fields(type(copy)):
        value = _read(field, copy)
        if replaced(value) is not value:
            field.__set__(copy, replaced(value))
