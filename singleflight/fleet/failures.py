"""What other processes are told of an exception: its type, its text and where it was raised. Never a pickle.

An exception may hold anything, so it stays where it is; the others raise `RemoteFailure`. Only a class that
the user names in `errors=`, and only one that is nothing but its arguments, is made anew there: it is called
with plain values (None, bool, int, float, str).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..common.messages import shown
from .keybytes import name_of_class
from .refusals import RemoteFailure, Unreadable

__all__ = ["checked_errors", "failure_bytes", "failure_from"]

_LONGEST = 2000  # characters of a message
_PLAIN = (type(None), bool, int, float, str)


def checked_errors(errors: object) -> tuple[type[Exception], ...]:
    """Return the classes that may be made anew, or raise `TypeError` naming the option `errors`."""
    classes: tuple[Any, ...] = errors if isinstance(errors, tuple) else (errors,)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise TypeError(f"errors: expected a class of exceptions or a tuple of them, got {shown(each)}")
        if name_of_class(each) is None:
            raise TypeError(f"errors: {each.__qualname__} is not found under its name in its module")
    return classes


def failure_bytes(error: BaseException, process: str, errors: tuple[type[Exception], ...] = ()) -> bytes:
    """Return what others are told of an exception.

    Args:
        error: the exception. Its `__str__` runs; what that raises is left out.
        process: where it was raised, as people are to read it.
        errors: the classes that may be made anew.
    """
    kind = type(error)
    record: dict[str, Any] = {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "message": _message_of(error),
        "process": process,
    }
    if kind in errors and _is_its_arguments(error):
        record["args"] = error.args
    return json.dumps(record).encode()


def failure_from(payload: bytes, errors: tuple[type[Exception], ...] = ()) -> Exception:
    """Return the exception to raise here, or raise `Unreadable("payload")`."""
    try:
        record = json.loads(payload)
        failure = RemoteFailure(*(record[name] for name in ("type", "message", "process")))
        args = record.get("args")
        if not all(type(text) is str for text in failure.args):
            raise Unreadable("payload")
    except Exception:
        raise Unreadable("payload") from None
    for each in errors:
        if type(args) is list and _are_plain(args) and name_of_class(each) == failure.type_name:
            try:
                return each(*args)
            except Exception:  # a class of another version may not take these arguments
                break
    return failure


def _is_its_arguments(error: BaseException) -> bool:
    """Return True if the class, called with the same plain arguments, makes an equal exception."""
    try:
        if not _are_plain(error.args) or len(json.dumps(error.args)) > _LONGEST:
            return False
        again = type(error)(*error.args)
        told = {name: value for name, value in vars(error).items() if name != "__notes__"}
        return again.args == error.args and vars(again) == told and str(again) == str(error)
    except Exception:
        return False


def _are_plain(values: Iterable[object]) -> bool:
    return all(type(value) in _PLAIN for value in values)


def _message_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as raised:
        return f"<its text raised {type(raised).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
