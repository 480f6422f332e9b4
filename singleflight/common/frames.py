"""Frames of ours that warnings look through, to the line of whoever called.

`warnings.warn(..., stacklevel=2)` in a decorated function is to point at its caller, as it does without the
decorator: a DeprecationWarning that points into a library is not even shown. But warnings count frames, and
some of ours stand between the two. One kind of frame they leave out: those with "importlib" and "_bootstrap"
in their file's name, which is meant for the import system (`warnings._is_internal_frame`, and the same in C;
seen on Python 3.11 to 3.15). So the few functions that call a user's plain function for its caller have such
a name.

Nothing else goes by it: tracebacks, `pdb` and `inspect.getsource` find the lines in `linecache`. Only a
breakpoint in one of these functions has to be set by the function's name, not by file and line.
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Callable
from functools import partial
from types import CodeType
from typing import Any, TypeVar

__all__ = ["MARK", "looked_through"]

F = TypeVar("F", bound=Callable[..., Any])
MARK = "as importlib._bootstrap"
"""What a file's name has to contain."""


def looked_through(function: F) -> F:
    """Have warnings not count the frames of this function, and of those within it."""
    made: Any = function
    code = made.__code__
    folder, name = os.path.split(code.co_filename)
    shown_as = os.path.join(folder, f"({MARK})", name)
    made.__code__ = _renamed(code, shown_as)
    if shown_as not in linecache.cache:  # read when a traceback asks for it
        linecache.cache[shown_as] = (partial(_text, code.co_filename, made.__globals__),)
    return function


def _renamed(code: CodeType, filename: str) -> CodeType:
    constants = tuple(
        _renamed(each, filename) if isinstance(each, CodeType) else each for each in code.co_consts
    )
    return code.replace(co_filename=filename, co_consts=constants)


def _text(filename: str, module_globals: dict[str, Any]) -> str:
    return "".join(linecache.getlines(filename, module_globals))
