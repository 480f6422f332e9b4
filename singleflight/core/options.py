"""The decorator's options, checked once, at decoration; each error names its option."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import inf
from operator import index
from typing import TYPE_CHECKING, Any

from ..common.durations import is_whole, left, lifetime, patience, real, seconds
from ..common.messages import shown
from ..storage.freshness import Ageing
from ..storage.policy import USUAL, checked_policy
from ..storage.ttl import Landing, Tags, checked_tags
from ..telemetry.kinds import refuse_unfit_listener
from .functions import refuse_coroutine_functions
from .shareable import is_not_none
from .tier import Backend

if TYPE_CHECKING:
    from datetime import timedelta

    from ..storage.ttl import TTL

__all__ = [
    "OFF",
    "Copy",
    "Options",
    "environment",
    "switch",
    "switched_off",
    "usual_idle",
]

if TYPE_CHECKING:
    FailureTTL = float | timedelta | Callable[[Exception], float | timedelta]
    """The types that the option `failure_ttl` accepts."""

    Grace = float | timedelta | Callable[[Landing], float | timedelta]
    """The types that the option `grace` accepts."""
Copy = bool | Callable[[Any], Any] | None
"""The types that the option `copy` accepts."""

_MOST_IDLE = 1024  # locks, where `maxsize` does not limit the number of entries
_SWITCH = "SINGLEFLIGHT_DISABLED"
OFF = frozenset({"", "0", "false", "no", "off"})
# The dictionary behind os.environ: asking os.environ itself for a missing name takes half a microsecond.
environment: Any = getattr(os.environ, "_data", os.environ)
switch: Any = os.environ.encodekey(_SWITCH) if hasattr(os.environ, "encodekey") else _SWITCH


def switched_off() -> bool:
    """Return True if the environment says that every call is to run its function directly."""
    return switch in environment and os.environ.get(_SWITCH, "").lower() not in OFF


@dataclass(slots=True, eq=False, repr=False)  # never changed; to be frozen takes as long again to make
class Options:
    """Checked options. `fixed_ttl` is None where `ttl` is a callable, which `ttl_of` then asks."""

    ttl: TTL
    fixed_ttl: float | None
    maxsize: int | None
    max_idle_locks: int | None
    cache_if: Callable[[Any], object]
    follower_retries: int | None
    wait_timeout: float | None
    flight_timeout: float | None
    timer: Callable[[], float]
    listener: Callable[[Any], object] | None
    failure_ttl: FailureTTL  # in seconds, where it is no callable
    grace: float | Callable[[Landing], float | timedelta]  # in seconds, where it is no callable
    refresh_ahead: float | str | None
    jitter: float
    copy: Copy
    ageing: Ageing
    tags: Tags
    max_flights: int | None
    soft_timeout: float
    policy: Any
    weigh: Callable[[Any], float] | None
    store: Backend | None

    @classmethod
    def checked(
        cls,
        *,
        ttl: TTL,
        maxsize: int | None = 1024,
        max_idle_locks: int | None = 1024,
        cache_if: Callable[[Any], object] = is_not_none,
        follower_retries: int | None = 1,
        wait_timeout: float | timedelta | None = None,
        flight_timeout: float | timedelta | None = None,
        timer: Callable[[], float] = time.monotonic,
        listener: Callable[[Any], object] | None = None,
        failure_ttl: FailureTTL = 0,
        grace: Grace = 0,
        refresh_ahead: float | str | None = None,
        jitter: float = 0,
        copy: Copy = None,
        tags: Any = (),
        max_flights: int | None = None,
        soft_timeout: float | timedelta = 0,
        policy: Any = USUAL,
        weigh: Callable[[Any], float] | None = None,
        store: Any = None,
    ) -> Options:
        """The options, or a `TypeError` or `ValueError` that names the one that is wrong."""
        maxsize = _whole_number(maxsize, "maxsize", 1)
        max_idle_locks = _whole_number(max_idle_locks, "max_idle_locks", 0)
        follower_retries = _whole_number(follower_retries, "follower_retries", 0)
        for name, function in (("cache_if", cache_if), ("timer", timer)):
            if not callable(function):
                raise TypeError(f"{name}: expected a callable, got {shown(function)}")
        if listener is not None and not callable(listener):
            raise TypeError(f"listener: expected a callable or None, got {shown(listener)}")
        if not isinstance(copy, bool) and copy is not None and not callable(copy):
            raise TypeError(f"copy: expected True or a callable of the value, got {shown(copy)}")
        refuse_coroutine_functions(ttl=ttl, cache_if=cache_if, timer=timer, listener=listener, copy=copy)
        if weigh is not None and not callable(weigh):
            raise TypeError(f"weigh: expected a callable of the value or None, got {shown(weigh)}")
        refuse_coroutine_functions(failure_ttl=failure_ttl, grace=grace, tags=tags, weigh=weigh)
        if weigh is not None and maxsize is None:
            raise ValueError("weigh: needs `maxsize`: without a limit nothing is evicted")
        if store is not None and not callable(getattr(store, "tier_for", None)):
            raise TypeError(f"store: expected a RedisStore or None, got {shown(store)}")
        if listener is not None:
            refuse_unfit_listener(listener)
        ageing = Ageing(
            grace=inf if callable(grace) else seconds(grace, "grace"),  # inf: some have one
            refresh_ahead=_fraction_or_xfetch(refresh_ahead),
            jitter=_fraction(jitter, "jitter", 0.0),
            failure_ttl=0.0 if callable(failure_ttl) else seconds(failure_ttl, "failure_ttl"),
        )
        return cls(
            ttl=ttl,
            fixed_ttl=None if callable(ttl) else lifetime(ttl),
            maxsize=maxsize,
            max_idle_locks=max_idle_locks,
            cache_if=cache_if,
            follower_retries=follower_retries,
            wait_timeout=patience(wait_timeout, "wait_timeout"),
            flight_timeout=patience(flight_timeout, "flight_timeout"),
            timer=timer,
            listener=listener,
            failure_ttl=failure_ttl if callable(failure_ttl) else ageing.failure_ttl,
            grace=grace if callable(grace) else ageing.grace,
            refresh_ahead=ageing.refresh_ahead,
            jitter=ageing.jitter,
            copy=None if copy is False else copy,
            ageing=ageing,
            tags=tags if callable(tags) else checked_tags(tags),
            max_flights=_whole_number(max_flights, "max_flights", 1),
            soft_timeout=_soft(soft_timeout, ageing.grace),
            policy=checked_policy(policy, maxsize, weigh is not None),
            weigh=weigh,
            store=store,
        )

    def ttl_of(self, landing: Landing) -> float:
        """The lifetime, in seconds, of what has just landed; 0 where it is not to be stored."""
        if self.fixed_ttl is not None:
            return self.fixed_ttl
        assert callable(self.ttl)
        return left(self.ttl(landing))

    def grace_of(self, landing: Landing) -> float:
        """The grace, in seconds, of what has just landed; callable options alone are asked."""
        assert callable(self.grace)
        return seconds(self.grace(landing), "grace")

    def failure_ttl_of(self, error: Exception) -> float:
        """For how many seconds an exception is stored; 0 if it is not. Passes on what a callable raises."""
        ttl = self.failure_ttl
        if callable(ttl):
            return seconds(ttl(error), "failure_ttl")
        assert isinstance(ttl, float)
        return ttl

    def differing(self) -> dict[str, Any]:
        """The options that are not at their defaults."""
        defaults = {**_defaults(), "max_idle_locks": usual_idle(self.maxsize, self.weigh)}
        given = {name: getattr(self, name) for name in defaults}
        return {name: value for name, value in given.items() if not _is_default(value, defaults[name])}


def usual_idle(maxsize: int | None, weigh: object) -> int:
    """How many unused locks are kept where nobody says: as many as entries, where `maxsize` counts these."""
    return _MOST_IDLE if maxsize is None or weigh is not None else maxsize


@cache
def _defaults() -> dict[str, Any]:
    parameters = inspect.signature(Options.checked).parameters
    return {name: each.default for name, each in parameters.items()}


def _is_default(value: object, default: object) -> bool:
    return value is default or (isinstance(value, (int, float)) and value == default)


def _soft(value: object, grace: float) -> float:
    limit = seconds(value, "soft_timeout")
    if limit and not grace:
        raise ValueError("soft_timeout: needs `grace`: without it no stale value is served")
    return limit


def _fraction(value: object, option: str, least: float) -> float:
    number = real(value, option, "a number")
    if not least <= number < 1:
        raise ValueError(f"{option}: must be at least {least:g} and less than 1, got {shown(value)}")
    return number


def _fraction_or_xfetch(value: object) -> float | str | None:
    if value is None or (isinstance(value, str) and value == "xfetch"):
        return None if value is None else "xfetch"
    number = real(value, "refresh_ahead", 'a part of the ttl, "xfetch" or None')
    if not 0 < number < 1:
        raise ValueError(f"refresh_ahead: must be more than 0 and less than 1, got {shown(value)}")
    return number


def _whole_number(value: object, option: str, least: int) -> int | None:
    if value is None:
        return None
    if not is_whole(value):
        raise TypeError(f"{option}: expected a whole number or None, got {shown(value)}")
    anything: Any = value
    number = index(anything)
    if number < least:
        raise ValueError(f"{option}: must be at least {least}, got {value}")
    return number
