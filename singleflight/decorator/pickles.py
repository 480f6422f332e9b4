"""How decorated functions travel to other processes: by reference, or by value where that is asked for.

Plain pickle takes a function by reference: its module and its name. cloudpickle (and with it dask, Ray,
joblib and Spark) copies functions of `__main__`, of notebooks and of other functions by value. It tells a
function by `isinstance`, which asks for `__class__`, and would then copy the undecorated one, silently. It
asks in `reducer_override`, the hook that Python's picklers call first for each object. So there we say what
we really are, it goes on to `__reduce_ex__`, and that tells how to decorate anew in the other process.

Each function that was pickled by value has an identity: what comes back to its own process, or comes twice to
another one, is one function with one cache.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from functools import reduce
from typing import Any

__all__ = ["arrived", "by_value", "identity_of", "is_asked", "known", "when_here"]

# `function`: the one whose class a pickler has just asked for, to copy it by value.
_asked = threading.local()
# Single operations of a dictionary only: no lock that a fork or a destructor could meet.
_alive: dict[str, weakref.ref[Any]] = {}


def is_asked(function: Any) -> bool:
    """Return True if the caller's caller is a pickler that looks what kind of object this is."""
    frame = sys._getframe(2)
    if frame.f_code.co_name != "reducer_override":
        return False
    registered = frame.f_globals.get("list_registry_pickle_by_value")  # of cloudpickle, or of a copy of it
    modules = registered() if callable(registered) else ()
    _asked.function = function if _is_dynamic(function, modules) else None
    return True


def by_value(function: Any) -> bool:
    """Return True if the pickler that now asks how to pickle this function copies such functions by value."""
    asked, _asked.function = getattr(_asked, "function", None), None
    return asked is function


def _is_dynamic(function: Any, by_value: Any) -> bool:
    """Return True if another process could not import it under its name, or is not to."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if module is None or name is None or module == "__main__":
        return True
    parts = module.split(".")
    if any(".".join(parts[:end]) in by_value for end in range(1, len(parts) + 1)):
        return True
    try:
        found = reduce(getattr, name.split("."), sys.modules[module])
    except (AttributeError, KeyError):
        return True
    return found is not function


def identity_of(function: Any) -> str:
    """What this function is called by all processes that it is sent to."""
    identity: str | None = function._self_identity
    if identity is None:
        identity = function._self_identity = os.urandom(16).hex()
    _remember(identity, function)
    return identity


def known(identity: str, make: Callable[[], Any]) -> Any:
    """The function of this identity; where there is none, one is made that waits for its content.

    What a function consists of is pickled after it, since that may refer to the function itself: a recursive
    one is among its own globals, a method in the class that is among its globals.
    """
    ref = _alive.get(identity)
    function = None if ref is None else ref()
    if function is None:
        function = make()
        function._self_identity, function._self_waiting = identity, []
        _remember(identity, function)
    return function


def _remember(identity: str, function: Any) -> None:
    def forget(ref: weakref.ref[Any]) -> None:
        if _alive.get(identity) is ref:
            del _alive[identity]

    if identity not in _alive:
        _alive[identity] = weakref.ref(function, forget)


def when_here(function: Any, then: Callable[[], Any]) -> None:
    """Have `then` called as soon as this function has its content."""
    if function._self_waiting is None:
        then()
    else:
        function._self_waiting.append(then)


def arrived(function: Any) -> None:
    """It has its content now; what waited for that is called."""
    waiting, function._self_waiting = function._self_waiting, None
    for then in waiting or ():
        then()
