"""What a key is put together from, where that is arguments and their attributes alone: then C can do it.

Most keys are: the default key, names (`key=("self.id", "symbol")`), and functions that do no more than return
arguments or attributes of them, as `lambda self, symbol: (self.id, symbol)`. Such a function is known by its
code: it loads, it builds one tuple, it returns. To call it costs more than all the rest of a hit.

It is still what decides. What C puts together only finds; before anything is called or stored, the function
itself is asked. So it is when an attribute is missing, and for good once it was given other code.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from .keyforms import KeyForm

__all__ = ["OWNER", "KeyParts", "parts_of"]

OWNER = -1  # among the places: what stands for the instance

_STARRED = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
_UNIMPORTANT = ("RESUME", "NOP")
# From 3.13 on two names at a time may be loaded, and from 3.14 on without counting the reference.
_LOADS = (
    "LOAD_FAST",
    "LOAD_FAST_LOAD_FAST",
    "LOAD_FAST_BORROW",
    "LOAD_FAST_BORROW_LOAD_FAST_BORROW",
)


class KeyParts(NamedTuple):
    """How a key is put together.

    Args:
        places: for each part the place of its parameter, or `OWNER`.
        paths: for each part the attributes to follow from there.
        lone: the key is the one part, and no tuple.
        code: what the user's function ran when this was read from it; None: it is not made by one.
    """

    places: tuple[int, ...]
    paths: tuple[tuple[str, ...], ...]
    lone: bool = False
    code: CodeType | None = None


def parts_of(form: KeyForm, key: Any, known: tuple[str, ...], owned: bool, sure: bool) -> KeyParts | None:
    """Return the parts of the keys of a function; None where they depend on the call, or on the user's code.

    Args:
        key: the user's function, if the form says that there is one.
        known: the names of the parameters.
        owned: the first argument may be an instance.
        sure: it is one.
    """
    if form.own:
        return _read(key, known)
    if form.names is None:
        places = tuple(place for place, name in enumerate(known) if name not in form.left_out)
        if owned and form.owned and known:
            places = (OWNER, *places[1:])
        return KeyParts(places, ((),) * len(places))
    roots, paths = [], []
    for name in form.names:
        root, *path = name.split(".")
        roots.append(known.index(root))
        paths.append(tuple(path))
    if not (owned and form.owned):
        return KeyParts(tuple(roots), tuple(paths), form.lone)
    return KeyParts((OWNER, *roots), ((), *paths)) if sure else None


def _read(key: Callable[..., Any], known: tuple[str, ...]) -> KeyParts | None:
    """Return the parts of what a function returns, if it does nothing else."""
    if type(key) is not FunctionType:
        return None
    code = key.__code__
    if code.co_argcount != len(known) or code.co_kwonlyargcount or code.co_flags & _STARRED:
        return None
    loaded: list[tuple[int, tuple[str, ...]]] = []
    lone = True
    for step in dis.get_instructions(code):
        name = step.opname
        if name in _UNIMPORTANT:
            continue
        if name in _LOADS and lone:
            several = step.argval if type(step.argval) is tuple else (step.argval,)
            loaded += [(code.co_varnames.index(each), ()) for each in several]
        elif name == "LOAD_ATTR" and lone:
            place, path = loaded.pop()
            loaded.append((place, (*path, step.argval)))
        elif name == "BUILD_TUPLE" and lone and step.argval == len(loaded):
            lone = False
        elif name == "RETURN_VALUE" and (not lone or len(loaded) == 1):
            return KeyParts(
                tuple(place for place, _ in loaded), tuple(path for _, path in loaded), lone, code
            )
        else:
            return None
    return None
