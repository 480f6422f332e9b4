"""`single_flight_ttl` itself: its options, documented and checked."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, overload

from ..common.messages import shown
from ..common.slips import meant_by_option
from ..core.shareable import is_not_none
from ..storage.policy import USUAL, Policy

if TYPE_CHECKING:
    from datetime import timedelta

    from ..core.options import Copy, FailureTTL, Grace
    from ..core.tier import Backend
    from ..storage.ttl import TTL, Landing
    from .function import SingleFlightDecorator, SingleFlightFunction

__all__ = ["single_flight_ttl"]

P = ParamSpec("P")
R = TypeVar("R")

_AS_MAXSIZE: Any = object()


def _naming_unknown(function: Any) -> Any:
    """Return the function with a better message for unknown options."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    known = [name for name in names if name != "func"]

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
    key: Callable[..., Hashable] | str | tuple[str, ...] | None = ...,
    ignore: str | Iterable[str] = ...,
    typed: bool = ...,
    maxsize: int | None = ...,
    max_idle_locks: int | None = ...,
    cache_if: Callable[[Any], object] = ...,
    follower_retries: int | None = ...,
    wait_timeout: float | timedelta | None = ...,
    flight_timeout: float | timedelta | None = ...,
    timer: Callable[[], float] = ...,
    listener: Callable[[Any], object] | None = ...,
    name: str | None = ...,
    failure_ttl: FailureTTL = ...,
    grace: Grace = ...,
    refresh_ahead: float | Literal["xfetch"] | None = ...,
    jitter: float = ...,
    copy: Copy = ...,
    policy: Policy = ...,
    weigh: Callable[[Any], float] | None = ...,
    tags: str | Iterable[str] | Callable[[Landing], str | Iterable[str]] = ...,
    soft_timeout: float | timedelta = ...,
    max_flights: int | None = ...,
    store: Backend | None = ...,
) -> SingleFlightFunction[P, R]: ...
@overload
def single_flight_ttl(
    *,
    ttl: TTL,
    key: Callable[..., Hashable] | str | tuple[str, ...] | None = ...,
    ignore: str | Iterable[str] = ...,
    typed: bool = ...,
    maxsize: int | None = ...,
    max_idle_locks: int | None = ...,
    cache_if: Callable[[Any], object] = ...,
    follower_retries: int | None = ...,
    wait_timeout: float | timedelta | None = ...,
    flight_timeout: float | timedelta | None = ...,
    timer: Callable[[], float] = ...,
    listener: Callable[[Any], object] | None = ...,
    name: str | None = ...,
    failure_ttl: FailureTTL = ...,
    grace: Grace = ...,
    refresh_ahead: float | Literal["xfetch"] | None = ...,
    jitter: float = ...,
    copy: Copy = ...,
    policy: Policy = ...,
    weigh: Callable[[Any], float] | None = ...,
    tags: str | Iterable[str] | Callable[[Landing], str | Iterable[str]] = ...,
    soft_timeout: float | timedelta = ...,
    max_flights: int | None = ...,
    store: Backend | None = ...,
) -> SingleFlightDecorator: ...
@_naming_unknown
def single_flight_ttl(
    func: Any = None,
    /,
    *,
    ttl: TTL,
    key: Callable[..., Hashable] | str | tuple[str, ...] | None = None,
    ignore: str | Iterable[str] = (),
    typed: bool = False,
    maxsize: int | None = 1024,
    max_idle_locks: int | None = _AS_MAXSIZE,
    cache_if: Callable[[Any], object] = is_not_none,
    follower_retries: int | None = 1,
    wait_timeout: float | timedelta | None = None,
    flight_timeout: float | timedelta | None = None,
    timer: Callable[[], float] = time.monotonic,
    listener: Callable[[Any], object] | None = None,
    name: str | None = None,
    failure_ttl: FailureTTL = 0,
    grace: Grace = 0,
    refresh_ahead: float | Literal["xfetch"] | None = None,
    jitter: float = 0,
    copy: Copy = None,
    policy: Policy = USUAL,
    weigh: Callable[[Any], float] | None = None,
    tags: str | Iterable[str] | Callable[[Landing], str | Iterable[str]] = (),
    soft_timeout: float | timedelta = 0,
    max_flights: int | None = None,
    store: Backend | None = None,
) -> Any:
    """Make concurrent calls of threads and tasks for the same key one call, and store its value for a while.

    Args:
        ttl: how long a value is fresh, counted from its landing: seconds, a `timedelta`, or a callable that
            receives the `Landing` and returns one of these. None: for ever. 0: concurrent callers share one
            call, and nothing is stored (also if a callable returns less than 0).
        key: called with the function's arguments, defaults filled in. Calls with equal results are the
            same call. By default the key is all arguments; on a method also the instance, by identity and
            without keeping it alive. Or the name of a parameter, or a tuple of names, with attributes after a
            dot: `"symbol"`, `("self.id", "symbol")`. On a method the instance stays in the key as by default,
            unless it or an attribute of it is named.
        ignore: the name of a parameter, or several, that the default key leaves out (default: none).
        typed: True: equal arguments of different types are different keys, as in `functools.lru_cache` (of a
            `key` that is a callable: its result, or each item of a tuple; default False).
        maxsize: how many entries are kept, all instances together (default 1024, None: no limit). When it is
            full, an entry that was not used recently is evicted.
        max_idle_locks: how many unused locks are kept (default: as `maxsize`, or 1024 if that is None or
            entries are weighed; None: all).
        cache_if: called with each value. A true result stores the value (default: all but None).
        follower_retries: how often the followers of a flight try again, one after another, if it failed or
            `cache_if` refused its value, before the rest share the outcome (default 1; None: each tries).
        wait_timeout: how many seconds a caller waits for another caller's flight (default None: no limit, 0:
            not at all). Then that caller alone gets `FlightTimeout`. A leader is not limited.
        flight_timeout: how many seconds a flight may keep its key (default None: no limit). A longer flight
            loses it as soon as another caller waits or comes; these move on to a new flight. A coroutine
            function is then cancelled and its caller gets `FlightTimeout`. A thread runs on, and only its own
            caller gets the result. At most four per key run on; after that others get `FlightTimeout`.
        timer: the clock of all ages and durations, in seconds; monotonic.
        listener: called with an event for each thing that happens (see `Listener`).
        name: the name of the function in events, log lines and `report()` (default: its qualified name).
        failure_ttl: how many seconds an exception is stored, and a copy raised to later callers, if there is
            no value (default 0: not at all). Or a callable of the exception that returns seconds or a
            `timedelta`. If it raises or returns something else, that is logged, the exception is not stored,
            and callers receive the exception.
        grace: how many seconds past its ttl a value is still served at once, while it is renewed in the
            background or while renewal fails (default 0). Or a callable that receives the `Landing` and
            returns seconds or a `timedelta`. What it raises fails the flight.
        refresh_ahead: fraction of the ttl (0 < x < 1) after which the next read triggers a background
            refresh; readers still get the current value. "xfetch": at a random moment, earlier for slow
            functions (default None: not ahead of time).
        jitter: the largest fraction of the ttl by which it is randomly shortened (0 <= x < 1, default 0), so
            that values which landed together do not expire together.
        copy: True (`copy.deepcopy`) or a callable of the value: every caller receives a copy of its own
            (default None: all receive the same object). What it raises, that caller receives.
        policy: the cachetools class that decides who is evicted: `LRUCache`, `LFUCache`, `FIFOCache`,
            `RRCache` or one of your own (default `TTLCache`: as under `maxsize`). Entries expire by `ttl` all
            the same. A class that follows reads is told of each hit, under the store's lock: slower hits.
        weigh: called once with each value that is to be stored; returns a number, 0 or more. `maxsize` then
            limits the sum of these weights (default None: each entry weighs 1, as a stored exception does). A
            value heavier than `maxsize` is returned and not stored. What `weigh` raises fails the flight.
        tags: strings by which entries can be removed (see `invalidate_tag`), or a callable that receives the
            `Landing` and returns them. What it raises fails the flight (default: none).
        soft_timeout: with `grace`, how many seconds a caller that finds a stale value waits for its renewal
            before it is served the stale one (default 0: not at all). The renewal goes on.
        max_flights: how many executions of the function may run at once, over all keys (default None: no
            limit). Further leaders wait in line, first come, first served, for at most `wait_timeout`; their
            `flight_timeout` counts from when they are let in. A bulk call is one execution.
        store: a `singleflight.redis.RedisStore`, through which all processes that have the function share its
            values and flights (default None: this process alone). A method needs `key` then.

    Returns the decorated function with its control methods (`invalidate`, `put`, `refresh`, `stats`, ...).
    Without `copy` all callers of a key receive the same object: a mutable value is shared. No value is served
    past its ttl and grace.

    Raises `TypeError` or `ValueError` at decoration, naming the wrong option. A call raises the function's
    exception (its followers receive a copy), `FlightDeadlock` if waiting would never end, `FlightTimeout`,
    and `UnhashableKey`, naming the argument. Exceptions are stored for `failure_ttl` only; these three are
    neither stored nor shared.

    Safe to use from any thread and event loop; the function and the options run under no lock. A coroutine
    function runs in a task of its own, in a copy of its leader's context. Cancelling a caller affects no
    other; when the last caller is gone, that task is cancelled. A plain function blocks its thread.

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
    from ..core.options import Options, usual_idle  # with all that a decorated function needs
    from .function import decorate
    from .keyforms import KeyRule

    if max_idle_locks is _AS_MAXSIZE:
        max_idle_locks = usual_idle(maxsize, weigh)
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
        copy=copy,
        policy=policy,
        weigh=weigh,
        tags=tags,
        soft_timeout=soft_timeout,
        max_flights=max_flights,
        store=store,
    )
    rule = KeyRule.checked(key, ignore, typed)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name: expected a string, got {shown(name)}")
    decorator = functools.partial(decorate, options=options, rule=rule, name=name)
    return decorator if func is None else decorator(func)
