"""`single_flight_ttl` itself: its options, documented and checked."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Hashable
from datetime import timedelta
from typing import Any, Literal, ParamSpec, TypeVar, overload

from ..common.messages import shown
from ..common.slips import meant_by_option
from ..core.functions import refuse_coroutine_functions
from ..core.options import Options, is_not_none
from ..storage.ttl import TTL
from .function import SingleFlightDecorator, SingleFlightFunction, decorate

__all__ = ["single_flight_ttl"]

P = ParamSpec("P")
R = TypeVar("R")

_AS_MAXSIZE: Any = object()
_MOST_IDLE = 1024  # locks, where `maxsize` sets no limit


def _naming_unknown(function: Any) -> Any:
    """The function, with a better message for options that it has not."""
    known = [name for name in inspect.signature(function).parameters if name != "func"]

    @functools.wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        for name in options:
            if name not in known:
                raise TypeError(f"{function.__name__}: unknown option {name!r}{meant_by_option(name, known)}")
        if arguments and "ttl" not in options and not callable(arguments[0]):
            name = function.__name__
            raise TypeError(f"{name}: options are given by name, as in {name}(ttl=60)")
        return function(*arguments, **options)

    return checked


@overload
def single_flight_ttl(
    func: Callable[P, R],
    /,
    *,
    ttl: TTL,
    key: Callable[..., Hashable] | None = ...,
    maxsize: int | None = ...,
    max_idle_locks: int | None = ...,
    cache_if: Callable[[Any], object] = ...,
    follower_retries: int | None = ...,
    wait_timeout: float | timedelta | None = ...,
    flight_timeout: float | timedelta | None = ...,
    timer: Callable[[], float] = ...,
    listener: Callable[[Any], object] | None = ...,
    name: str | None = ...,
    failure_ttl: float | timedelta = ...,
    grace: float | timedelta = ...,
    refresh_ahead: float | Literal["xfetch"] | None = ...,
    jitter: float = ...,
) -> SingleFlightFunction[P, R]: ...
@overload
def single_flight_ttl(
    *,
    ttl: TTL,
    key: Callable[..., Hashable] | None = ...,
    maxsize: int | None = ...,
    max_idle_locks: int | None = ...,
    cache_if: Callable[[Any], object] = ...,
    follower_retries: int | None = ...,
    wait_timeout: float | timedelta | None = ...,
    flight_timeout: float | timedelta | None = ...,
    timer: Callable[[], float] = ...,
    listener: Callable[[Any], object] | None = ...,
    name: str | None = ...,
    failure_ttl: float | timedelta = ...,
    grace: float | timedelta = ...,
    refresh_ahead: float | Literal["xfetch"] | None = ...,
    jitter: float = ...,
) -> SingleFlightDecorator: ...
@_naming_unknown
def single_flight_ttl(
    func: Any = None,
    /,
    *,
    ttl: TTL,
    key: Callable[..., Hashable] | None = None,
    maxsize: int | None = 1024,
    max_idle_locks: Any = _AS_MAXSIZE,
    cache_if: Callable[[Any], object] = is_not_none,
    follower_retries: int | None = 1,
    wait_timeout: float | timedelta | None = None,
    flight_timeout: float | timedelta | None = None,
    timer: Callable[[], float] = time.monotonic,
    listener: Callable[[Any], object] | None = None,
    name: str | None = None,
    failure_ttl: float | timedelta = 0,
    grace: float | timedelta = 0,
    refresh_ahead: float | Literal["xfetch"] | None = None,
    jitter: float = 0,
) -> Any:
    """Make concurrent calls of threads and tasks for the same thing one call, and keep its value for a while.

    Args:
        ttl: how long a value is served, counted from when it landed: seconds, a `timedelta`, or a callable
            of the `Landing` that returns one of these. None: for ever. 0: concurrent callers share one
            call, and nothing is stored (so too where a callable returns less than 0).
        key: called with the function's arguments, defaults filled in; calls with equal results are the
            same call. By default all arguments count, and on a method the instance, by identity and
            without being kept alive.
        maxsize: entries kept, all instances together (default 1024, None: no limit). When full, an old
            one goes that was not used lately.
        max_idle_locks: how many locks that nobody uses are kept (default: as `maxsize`, or 1024 where that
            is None; None: all).
        cache_if: called with each value; whether to store it (default: all but None).
        follower_retries: how often those who waited for a flight that failed, or whose value `cache_if`
            refused, try again, one after another, before the rest share the outcome (default 1; None:
            each tries).
        wait_timeout: how long a caller waits for another's flight, in seconds (default None: no limit, 0:
            never); then `FlightTimeout` in that caller alone. Who leads is not bounded.
        flight_timeout: how long a flight may take, in seconds (default None: no limit). A longer one loses
            its key as soon as anybody waits or comes; they move on to a new flight. A coroutine function is
            then cancelled and its caller gets `FlightTimeout`; a thread runs on, and what it brings home is
            its caller's alone. At most four per key run on; after that others get `FlightTimeout`.
        timer: the clock of all ages and durations, in seconds; monotonic.
        listener: called with an event for each thing that happens (see `Listener`).
        name: what events, log lines and `report()` call the function (default: its qualified name).
        failure_ttl: for how many seconds an exception is stored and raised to later callers, as a copy,
            where there is no value (default 0: not at all).
        grace: for how many seconds past its ttl a value is still served, at once, while it is renewed in
            the background, or while renewing it fails (default 0).
        refresh_ahead: the part of the ttl (0 < x < 1) after which the first reader has the value renewed in
            the background while all are served the fresh one; or "xfetch": at a moment drawn by chance,
            earlier for slow functions (default None: not ahead of time).
        jitter: by which part of the ttl lives are shortened by chance, at most (0 <= x < 1, default 0), so
            that what landed together does not run out together.

    Returns the decorated function with its control surface (`invalidate`, `put`, `refresh`, `stats`, ...).
    All callers of a key receive the same object: a mutable value is shared. No value is served past its ttl
    and grace.

    Raises `TypeError` or `ValueError` at decoration, naming the option that is wrong. A call raises what
    the function raises (its followers receive a copy), `FlightDeadlock` where waiting would never end,
    `FlightTimeout`, and `UnhashableKey`, naming the argument. Exceptions are stored for `failure_ttl` only,
    and these three are neither stored nor shared.

    Safe to use from any thread and event loop; the function and the options run under no lock. A coroutine
    function runs in a task of its own, in a copy of its leader's context. Cancelling a caller disturbs no
    other; when the last has gone, that task is cancelled. A plain one blocks its thread.

    >>> @single_flight_ttl(key=lambda symbol: symbol.upper(), ttl=60)
    ... def price(symbol):
    ...     print("asking the broker")
    ...     return 984.75
    >>> price("ASML"), price("asml")
    asking the broker
    (984.75, 984.75)
    >>> import asyncio
    >>> @single_flight_ttl(ttl=60)
    ... async def rate(currency):
    ...     return 1.08
    >>> asyncio.run(rate("EUR"))
    1.08
    """
    if max_idle_locks is _AS_MAXSIZE:
        max_idle_locks = _MOST_IDLE if maxsize is None else maxsize
    options = Options.checked(
        ttl=ttl,
        maxsize=maxsize,
        max_idle_locks=max_idle_locks,
        cache_if=cache_if,
        follower_retries=follower_retries,
        wait_timeout=wait_timeout,
        flight_timeout=flight_timeout,
        timer=timer,
        listener=listener,
        failure_ttl=failure_ttl,
        grace=grace,
        refresh_ahead=refresh_ahead,
        jitter=jitter,
    )
    if key is not None and not callable(key):
        raise TypeError(f"key: expected a callable of the arguments, got {shown(key)}")
    refuse_coroutine_functions(key=key)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name: expected a string, got {shown(name)}")
    decorator = functools.partial(decorate, options=options, key=key, name=name)
    return decorator if func is None else decorator(func)
