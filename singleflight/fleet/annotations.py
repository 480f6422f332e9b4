"""What a function says that it returns, as the type of the value that its callers receive.

A string, as under `from __future__ import annotations`, is looked up in the function's module. What cannot be
found there yet, since it is defined further down, raises `NameError`; then the first call asks again.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable
from functools import partial
from typing import Any, Never, NoReturn, TypeVar, get_args, get_origin, get_type_hints

__all__ = ["returned"]


def returned(function: Any) -> Any:
    """Return the type of the value that callers of a function receive; `Any` if it does not say.

    Args:
        function: plain or coroutine, also a method, a partial or an object with `__call__`. A wrapper's names
            are looked up where the innermost function is defined.

    >>> def price(symbol: str) -> "float | None": ...
    >>> returned(price)
    float | None
    """
    while isinstance(function, partial):
        function = function.func
    if not inspect.isroutine(function) and not hasattr(function, "__annotations__"):
        function = getattr(type(function), "__call__", function)  # noqa: B004
    hint = _written(function).get("return", Any)
    innermost = inspect.unwrap(function)

    def alone() -> None: ...  # the other annotations may name what is there for type checkers only

    alone.__annotations__ = {"return": hint}
    local = {each.__name__: each for each in getattr(innermost, "__type_params__", ())}
    names = getattr(innermost, "__globals__", {})
    return _value_of(get_type_hints(alone, globalns=names, localns=local, include_extras=True)["return"])


def _written(function: Any) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        from annotationlib import Format, get_annotations

        return get_annotations(function, format=Format.FORWARDREF)
    return getattr(function, "__annotations__", {})


def _value_of(hint: Any) -> Any:
    """What comes of awaiting it, where it is an awaitable; `Any` for what says nothing of the type."""
    origin = get_origin(hint) or hint
    if isinstance(origin, type) and issubclass(origin, Awaitable):
        hint = get_args(hint)[-1] if get_args(hint) else Any
    if hint in (object, Never, NoReturn) or isinstance(hint, TypeVar):
        return Any
    return hint
