"""Durations as users may write them, checked once and turned into seconds."""

from __future__ import annotations

import math
from datetime import timedelta

__all__ = ["lifetime", "patience", "seconds"]


def seconds(value: object, option: str) -> float:
    """A duration as seconds, or an error that names the option.

    >>> seconds(timedelta(minutes=1), "ttl")
    60.0
    >>> seconds(-1, "ttl")
    Traceback (most recent call last):
    ValueError: ttl: a duration cannot be negative, got -1
    """
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{option}: expected seconds (int or float) or a timedelta, got {value!r}")
    else:
        try:
            number = float(value)
        except OverflowError:
            raise ValueError(f"{option}: {value!r} is too large") from None
    if math.isnan(number):
        raise ValueError(f"{option}: a duration cannot be NaN")
    if number < 0:
        raise ValueError(f"{option}: a duration cannot be negative, got {value!r}")
    return number


def lifetime(value: object, option: str = "ttl") -> float:
    """A ttl as seconds, where None means for ever."""
    return math.inf if value is None else seconds(value, option)


def patience(value: object, option: str) -> float | None:
    """How long to wait, as seconds, where None means without a limit."""
    if value is None:
        return None
    number = seconds(value, option)
    return None if math.isinf(number) else number
