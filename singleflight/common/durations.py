"""Durations as users may write them, checked once and turned into seconds."""

from __future__ import annotations

import math
import sys
from typing import Any, cast

from .messages import shown

__all__ = ["is_whole", "left", "lifetime", "patience", "real", "seconds"]


def seconds(value: object, option: str) -> float:
    """A duration as seconds, or an error that names the option.

    >>> from datetime import timedelta
    >>> seconds(timedelta(minutes=1), "ttl")
    60.0
    >>> seconds(-1, "ttl")
    Traceback (most recent call last):
    ValueError: ttl: a duration cannot be negative, got -1
    """
    number = _seconds(value, option)
    if number < 0:
        raise ValueError(f"{option}: a duration cannot be negative, got {shown(value)}")
    return number


def lifetime(value: object, option: str = "ttl") -> float:
    """A ttl as seconds, where None means for ever."""
    return math.inf if value is None else seconds(value, option)


def left(value: object, option: str = "ttl") -> float:
    """The ttl that a callable answered: nothing is left of what is over already, as a token that ran out."""
    return math.inf if value is None else max(0.0, _seconds(value, option))


def patience(value: object, option: str) -> float | None:
    """How long to wait, as seconds, where None means without a limit."""
    if value is None:
        return None
    number = seconds(value, option)
    return None if math.isinf(number) else number


def real(value: object, option: str, expected: str) -> float:
    """A real number of any type (numpy's, a `Fraction`, a `Decimal`) as a plain one, which may be NaN.

    Plain, because all that is done with it from then on is done at each call, and under locks.

    >>> from fractions import Fraction
    >>> real(Fraction(1, 2), "jitter", "a number")
    0.5
    """
    if type(value) is float:
        return value
    if type(value) is not int and (isinstance(value, bool) or not _is_real(value)):
        raise TypeError(f"{option}: expected {expected}, got {shown(value)}")
    anything: Any = value
    try:
        number = float(anything)
    except OverflowError:
        raise ValueError(f"{option}: {shown(value)} is too large") from None
    except ValueError:  # a signalling NaN
        return math.nan
    if math.isinf(number) and anything != number:
        raise ValueError(f"{option}: {shown(value)} is too large")
    return number


def _seconds(value: object, option: str) -> float:
    datetime, anything = sys.modules.get("datetime"), cast("Any", value)
    if datetime is not None and isinstance(value, datetime.timedelta):  # who has one has imported that
        return float(anything.total_seconds())
    number = real(value, option, "seconds (a number) or a timedelta")
    if math.isnan(number):
        raise ValueError(f"{option}: a duration cannot be NaN")
    return number


def is_whole(value: object) -> bool:
    """Return True for an integer of any type (numpy's too), but for a bool."""
    if isinstance(value, int):
        return not isinstance(value, bool)
    from numbers import Integral

    # numpy's timedelta64 passes for an Integral, in whatever unit.
    return isinstance(value, Integral) and hasattr(type(value), "__index__")


def _is_real(value: object) -> bool:
    from numbers import Complex, Integral, Number, Real

    if isinstance(value, Integral):
        return is_whole(value)
    # A Decimal is a number, and no more is said of it.
    return isinstance(value, Real) or (isinstance(value, Number) and not isinstance(value, Complex))
