"""The library's logger, `singleflight`, and whether it writes debug lines now.

`logging` is imported when there is something to say, not before: until a program has imported it, nobody can
have asked for debug lines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

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


class _Log:
    """The logger, for whoever says something. What a filter or a handler raises is dropped.

    What is logged is said in the middle of a call, or on a thread that others rely on: a line that cannot be
    written must not end either.
    """

    __slots__ = ()

    def info(self, text: str, *args: object) -> None:
        _say("info", text, args, None)

    def warning(self, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        _say("warning", text, args, exc_info)

    def error(self, text: str, *args: object, exc_info: BaseException | None = None) -> None:
        _say("error", text, args, exc_info)

    def exception(self, text: str, *args: object) -> None:
        """Say what was raised, too: call it where that is handled."""
        _say("error", text, args, sys.exc_info()[1])

    def __repr__(self) -> str:
        return repr(logger())


def _say(how: str, text: str, args: tuple[object, ...], error: BaseException | None) -> None:
    with suppress(Exception):
        # Not the error by itself, of which `logging` would ask whether it is true.
        raised = None if error is None else (type(error), error, error.__traceback__)
        getattr(logger(), how)(text, *args, exc_info=raised, stacklevel=3)


log: _Log = _Log()

if "logging" in sys.modules:
    is_logging(DEBUG)
