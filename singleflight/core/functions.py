"""The colour of a function, plain or coroutine, and which functions cannot be decorated."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from typing import Any

from ..common.messages import shown
from .shareable import is_context_manager_function

__all__ = ["is_coroutine_function", "refuse_coroutine_functions", "refuse_unfit"]


def is_coroutine_function(function: Any) -> bool:
    """Return True if it is an `async def`, in a `partial` too, or an object whose `__call__` is one."""
    if inspect.iscoroutinefunction(function):  # `inspect.markcoroutinefunction` too, from Python 3.12 on
        return True
    return inspect.iscoroutinefunction(_body(function)) or _has_mark_of_asyncio(function)


def refuse_coroutine_functions(**options: Any) -> None:
    """Raise `TypeError` for an option that would have to be awaited, naming it."""
    for name, function in options.items():
        if callable(function) and is_coroutine_function(function):
            raise TypeError(f"{name}: expected a plain callable, got a coroutine function: {shown(function)}")


def refuse_unfit(function: Any, given_to: str = "single_flight_ttl") -> None:
    """Raise `TypeError` for what cannot be decorated, saying why and what to do.

    Args:
        function: what is to be decorated.
        given_to: "single_flight_ttl", "twin" or "bulk": what it was given to.
    """
    if not callable(function):
        raise TypeError(f"{given_to}: expected a function or another callable, got {shown(function)}")
    name = getattr(function, "__qualname__", shown(function))
    if given_to != "single_flight_ttl":
        name = f"{given_to}: {name}"
    if isinstance(function, type):
        raise TypeError(f"{name}: decorate a function or a method, not a class")
    if _is_generator_function(function):
        raise TypeError(
            f"{name}: a generator can be consumed once only, so it cannot be shared or stored; return a list "
            f"of what it yields, or decorate a wrapper that does"
        )
    if is_context_manager_function(function):
        raise TypeError(
            f"{name}: a context manager made of a generator can be entered once only, so it cannot be shared "
            f"or stored; decorate a function that returns what it yields"
        )
    body = _body(inspect.unwrap(function))
    if inspect.iscoroutinefunction(body) and not is_coroutine_function(function):
        raise TypeError(
            f"{name}: a plain wrapper around a coroutine function returns a coroutine, which can be awaited "
            f"once only, so it cannot be shared or stored; make the wrapper `async def`, or, if it runs the "
            f"coroutine itself, delete the `__wrapped__` that `functools.wraps` gave it"
        )


def _is_generator_function(function: Any) -> bool:
    """Return True if it certainly returns generators. A wrapper may return anything: its values tell."""
    while isinstance(function, partial):
        function = function.func
    # A function compiled by Cython says it itself, not its `__call__`.
    for each in (function, _body(function)):
        if each.__class__ is type(each) and (  # else it is a proxy, which says what the wrapped one is
            inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each)
        ):
            return True
    return False


def _has_mark_of_asyncio(function: Any) -> bool:
    """Return True if it has the mark that wrappers have to set on Python 3.11, and mocks on 3.12, too."""
    mark = getattr(sys.modules.get("asyncio.coroutines"), "_is_coroutine", None)
    return mark is not None and getattr(function, "_is_coroutine", None) is mark


def _body(function: Any) -> Any:
    """What Python runs: without partials, and the `__call__` of a callable object."""
    while isinstance(function, partial):
        function = function.func
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        # Its `__class__`, not its type: what is in a wrapt proxy counts.
        function = getattr(function.__class__, "__call__", function)  # noqa: B004
    return function
