"""Which values can be handed to many callers and stored: all but those that one use spends.

A coroutine can be awaited once, a generator consumed once, and what `contextlib.contextmanager` makes
entered once: whoever comes second gets an error, or silently nothing. A `Future` or `Task` can be awaited
again, but on its own event loop alone; its failure would be served like a value, and who is cancelled while
awaiting it cancels it for all. So these are refused. Whatever else can be awaited (a client that connects
then) is a value like any other.

Drivers ask in line, `id(type(value)) not in accepted`, and only then call what is here. (By identity, since a
class need not be hashable: its metaclass may define `__eq__` alone.)
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import partial
from sys import getrefcount
from types import CoroutineType
from typing import Any

__all__ = ["accepted", "check_shareable", "is_context_manager_function", "is_not_none"]

_PLAIN = (type(None), bool, int, float, str, bytes, tuple, list, dict, set, frozenset)
accepted: dict[int, weakref.ref[type]] = {id(kind): weakref.ref(kind) for kind in _PLAIN}
"""Types that are fine: those of most values, and others that were looked at, for as long as they live."""

_ONCE_ONLY: tuple[tuple[type, str], ...] = (
    (
        Coroutine,
        "a coroutine, which can be awaited once only, so it cannot be shared or stored; decorate the "
        "`async def` function itself, or await it inside an `async def` of its own",
    ),
    (
        Generator,
        "a generator, which can be consumed once only, so it cannot be shared or stored; return `list(...)` "
        "or `tuple(...)` of it",
    ),
    (
        AsyncGenerator,
        "an asynchronous generator, which can be consumed once only, so it cannot be shared or stored; "
        "return `[item async for item in ...]` from an `async def`",
    ),
    (
        getattr(contextlib, "_GeneratorContextManagerBase", Coroutine),
        "a context manager that can be entered once only, so it cannot be shared or stored; decorate a "
        "function that returns what it yields",
    ),
)
_FUTURE = (
    "{}, which belongs to one event loop and is cancelled for all by whoever is cancelled, so it cannot be "
    "shared or stored; await it inside an `async def`, and decorate that"
)


def is_not_none(value: object) -> bool:
    """The default of `cache_if`: everything but None is stored."""
    return value is not None


def check_shareable(
    name: str, value: object, how: str | Callable[[], str] = "returned", references: int = 0
) -> None:
    """Raise `TypeError` for what one use spends, saying how it came and what to do instead.

    Args:
        name: the function's.
        value: what is to be handed to its callers.
        how: how it came, for the message; a function that says it where that is made from a user's key.
        references: what `getrefcount` says of it where one local variable should be all that has it: then a
            coroutine is closed, or the interpreter would complain that it was never awaited. One that
            somebody else has is left alone.
    """
    kind = type(value)
    try:
        why = _why_not(kind)
    except Exception:  # a metaclass of its own that does not answer
        why = None
    if why is None:
        accepted[id(kind)] = weakref.ref(kind, partial(accepted.pop, id(kind)))
        return
    if kind is CoroutineType and references == _BY_ONE_NAME:
        coroutine: Any = value
        coroutine.close()
    raise TypeError(f"{name}: {how if isinstance(how, str) else how()} {why}")


def is_context_manager_function(function: Any) -> bool:
    """Return True if `contextlib` made it of a generator function."""
    return getattr(function, "__code__", None) in _CONTEXT_MANAGERS


def _why_not(kind: type) -> str | None:
    for once_only, why in _ONCE_ONLY:
        if issubclass(kind, once_only):
            return why
    # As `asyncio.isfuture` does; of the class, since a mock has every attribute.
    return _FUTURE.format(f"a {kind.__name__}") if hasattr(kind, "_asyncio_future_blocking") else None


def _by_one_name() -> int:
    """What drivers count there, asking in the same way: how often the interpreter refers to it varies."""

    def counted(_name: str, _value: object, *, references: int) -> int:
        return references

    value = object()
    return counted("", value, references=getrefcount(value))


_BY_ONE_NAME = _by_one_name()
_makers: tuple[Any, ...] = (contextlib.contextmanager, contextlib.asynccontextmanager)
_CONTEXT_MANAGERS = frozenset(make(lambda: None).__code__ for make in _makers)
