"""The library's logger, `singleflight`, and whether it writes debug lines now.

`logging` is imported when there is something to say, not before: until a program has imported it, nobody can
have asked for debug lines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["DEBUG", "is_logging", "levels", "log", "logger"]

DEBUG = 10  # logging's own

levels: dict[int, bool] = {}
"""The logger's cache of enabled levels, once there is one. A miss asks `is_logging` unless it says False."""


def _is_logging_if_any(level: int) -> bool:
    """Return True if the library's own log lines of this level are wanted now."""
    if not hasattr(sys.modules.get("logging"), "shutdown"):  # which is among the last things that it defines
        return False
    return logger().isEnabledFor(level)


is_logging: Callable[[int], bool] = _is_logging_if_any
"""Ask the module for this and for `levels` each time: they are replaced once `logging` is there."""


def logger() -> Logger:
    """Return it; from now on a miss asks it without a detour."""
    global is_logging, levels
    import logging

    ours = logging.getLogger("singleflight")
    if is_logging is _is_logging_if_any:
        ours.addHandler(logging.NullHandler())
        levels = getattr(ours, "_cache", {})
        is_logging = ours.isEnabledFor
    return ours


_SAYS = frozenset({"info", "warning", "error", "exception"})


class _Log:
    """The logger, for whoever says something. What a filter or a handler of the program's raises is dropped:

    callers, and the threads that say how the server is, go on as if the line had been written. Debug lines
    are events, whose emitter tells what went wrong with one.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        found = getattr(logger(), name)
        return partial(_say, found) if name in _SAYS else found

    def __repr__(self) -> str:
        return repr(logger())


def _say(write: Callable[..., None], *args: Any, **details: Any) -> None:
    with suppress(Exception):
        write(*args, stacklevel=2, **details)  # the line is that of whoever called this


log: Logger = cast("Logger", _Log())

if "logging" in sys.modules:
    is_logging(DEBUG)
