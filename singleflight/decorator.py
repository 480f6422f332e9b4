"""`single_flight_ttl`: from a function and options to a decorated function, bound through wrapt."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Hashable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from .bound import BoundSingleFlight, binder, show
from .colours import refuse_coroutine_functions
from .freshness import TTL
from .loader import MakesLoaders
from .options import Options, is_not_none
from .proxies import FunctionWrapper
from .surface import Controls
from .wiring import Home

if TYPE_CHECKING:
    from .surface import TakesClass, TakesInstance

__all__ = ["BoundSingleFlight", "SingleFlightFunction", "single_flight_ttl"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

_AS_MAXSIZE: Any = object()


class SingleFlightFunction(Controls[P, R], MakesLoaders, FunctionWrapper, Generic[P, R]):
    """A decorated function: called like the original, with the control surface beside.

    Everything else about it (name, docstring, signature, annotations, `isinstance` answers) is that of
    the wrapped function, which is its `__wrapped__`.
    """

    # Each decorated function has a class of its own below this one, made by `_decorate`, with its memo and
    # its compiled `__call__` and `__get__`: Python looks these up on the class.
    if TYPE_CHECKING:
        _self_home: Home
        __name__: str
        __qualname__: str

        @property
        def __wrapped__(self) -> Callable[P, R]: ...

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

        # Checkers do not say whether a `classmethod` or `staticmethod` is above it. So a parameter that takes
        # the class first means a class method, and one that cannot take the instance a static method.
        @overload
        def __get__(
            self: TakesClass[S, Q, R], instance: S | None, owner: type[S], /
        ) -> BoundSingleFlight[Q, R]: ...
        @overload
        def __get__(self, instance: None, owner: Any = None, /) -> SingleFlightFunction[P, R]: ...
        @overload
        def __get__(
            self: TakesInstance[S, Q, R], instance: S, owner: Any = None, /
        ) -> BoundSingleFlight[Q, R]: ...
        @overload
        def __get__(self, instance: object, owner: Any = None, /) -> SingleFlightFunction[P, R]: ...
        def __get__(self, instance: Any, owner: Any = None, /) -> Any: ...

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._self_home.named(owner)

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if self._self_home.bound_kind is not None:  # from now on its bound methods show it too
                show(self._self_home.bound_kind, name)

    def __reduce__(self) -> str:
        return self.__qualname__  # by reference, like any function

    def __reduce_ex__(self, protocol: Any) -> str:
        return self.__qualname__

    def __copy__(self) -> SingleFlightFunction[P, R]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SingleFlightFunction[P, R]:
        return self

    def __repr__(self) -> str:
        return f"<single-flight {self.__wrapped__!r}>"

    @overload
    def twin(self, func: classmethod[S, Q, T], /) -> SingleFlightFunction[Concatenate[type[S], Q], T]: ...
    @overload
    def twin(self, func: staticmethod[Q, T], /) -> SingleFlightFunction[Q, T]: ...
    @overload
    def twin(self, func: Callable[Q, T], /) -> SingleFlightFunction[Q, T]: ...
    def twin(self, func: Any, /) -> Any:
        """Decorate a second way to fetch the same values, usually of the other colour.

        The twin has parameters and a colour of its own; everything else is shared: key, options, values,
        locks, flights, counts and name. Whoever comes first leads, in its own way, and what it brings serves
        both.

        Args:
            func: a plain or a coroutine function, method, class or static method. The `key` of the first is
                called with its arguments; default keys go by the position of the parameters.

        Returns the decorated function. `invalidate`, `put`, `stats` and so on do the same on both; `refresh`
        calls the function that it is asked of.

        Raises `TypeError` if its calls could not have the same keys, and what `single_flight_ttl` raises for
        functions that cannot be decorated. Safe to call from any thread.

        >>> @single_flight_ttl(ttl=60)
        ... def price(symbol):
        ...     return 984.75
        >>> @price.twin
        ... async def aprice(symbol):
        ...     return 984.75
        >>> price("ASML"), aprice.entry("ASML").value
        (984.75, 984.75)
        """
        memo = self._self_memo
        return _decorate(func, memo.options, memo.own_key, twin_of=self._self_home)

    def _split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
        return self._self_home.split(False)(*args, **kwargs)

    def _renew(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._self_home.renew(False, *self._split(args, kwargs))


# What type checkers read above would be found before the wrapped function's own annotations.
for _class in (Controls, MakesLoaders, SingleFlightFunction):
    if "__annotations__" in vars(_class):
        del _class.__annotations__


class SingleFlightDecorator(Protocol):
    """What `single_flight_ttl(...)` returns: it decorates functions, methods, class and static methods."""

    @overload
    def __call__(self, func: classmethod[S, P, R], /) -> SingleFlightFunction[Concatenate[type[S], P], R]: ...
    @overload
    def __call__(self, func: staticmethod[P, R], /) -> SingleFlightFunction[P, R]: ...
    @overload
    def __call__(self, func: Callable[P, R], /) -> SingleFlightFunction[P, R]: ...


def _decorate(
    wrapped: Any, options: Options, key: Any, name: str | None = None, twin_of: Home | None = None
) -> SingleFlightFunction[..., Any]:
    home = Home(wrapped, options, key, name, twin_of)

    def first_bind(self: Any, instance: Any, owner: Any = None) -> Any:
        """Compile the bound form when it is first asked for, and be replaced by what then binds."""
        home.seen_on(owner)
        if instance is None and not home.of_class:
            return self
        if home.bindable:
            home.bound_kind, kind.__get__ = binder(home)
        else:
            kind.__get__ = lambda self, _instance, _owner=None: self
        return kind.__get__(self, instance, owner)

    shared = {"_self_home": home, "_self_memo": home.memo}
    members = {"__call__": home.plain_call(), "__get__": first_bind, **shared}
    mark = getattr(inspect, "_is_coroutine_mark", None)
    if home.coroutine and mark is not None:  # for callable objects, whose class alone says it
        members["_is_coroutine_mark"] = mark
    kind: Any = type("SingleFlightFunction", (SingleFlightFunction,), members)
    home.kind = kind
    decorated: SingleFlightFunction[..., Any] = home.make()
    return decorated


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
) -> SingleFlightDecorator: ...
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
) -> Any:
    """Make concurrent calls for the same thing one call, and keep its value for a while.

    Args:
        ttl: how long a value is served, counted from when it landed: seconds, a `timedelta`, or a callable
            of the `Landing` that returns one of these. None: for ever. 0: concurrent callers share one
            call, and nothing is stored.
        key: called with the function's arguments, defaults filled in; calls with equal results are the
            same call. By default all arguments count, and on a method the instance, by identity and
            without being kept alive.
        maxsize: entries kept, all instances together (default 1024, None: no limit). When full, an old
            one goes that was not used lately.
        max_idle_locks: how many locks that nobody uses are kept (default: as `maxsize`; None: all).
        cache_if: called with each value; whether to store it (default: all but None).
        follower_retries: how often those who waited for a flight that failed, or whose value `cache_if`
            refused, try again, one after another, before the rest share the outcome (default 1; None:
            each tries).
        wait_timeout: how long a caller waits for another's flight, in seconds (default None: no limit);
            then `FlightTimeout` in that caller alone.
        flight_timeout: how long a flight may take, in seconds (default None: no limit). A longer one loses
            its key: whoever waits, or comes, moves on to a new flight. Its own caller still gets what it
            brings home, which is not stored; a task that runs it is cancelled. At most four per key are left
            running like that; after that others get `FlightTimeout`.
        timer: the clock of all ages and durations, in seconds; monotonic.
        listener: called with an event for each thing that happens (see `Listener`).
        name: what events, log lines and `report()` call the function (default: its qualified name).

    Returns the decorated function with its control surface (`invalidate`, `put`, `refresh`, `stats`, ...).
    All callers of a key receive the same object: a mutable value is shared.

    Raises `TypeError` or `ValueError` at decoration, naming the option that is wrong. A call raises what
    the function raises (its followers receive a copy), `FlightDeadlock` where waiting would never end,
    `FlightTimeout`, and `UnhashableKey`, naming the argument. Exceptions are never stored.

    Safe to use from any thread; the function, `key`, `ttl`, `cache_if` and `listener` run under no lock.

    >>> @single_flight_ttl(key=lambda symbol: symbol.upper(), ttl=60)
    ... def price(symbol):
    ...     print("asking the broker")
    ...     return 984.75
    >>> price("ASML"), price("asml")
    asking the broker
    (984.75, 984.75)
    """
    options = Options.checked(
        ttl=ttl,
        maxsize=maxsize,
        max_idle_locks=maxsize if max_idle_locks is _AS_MAXSIZE else max_idle_locks,
        cache_if=cache_if,
        follower_retries=follower_retries,
        wait_timeout=wait_timeout,
        flight_timeout=flight_timeout,
        timer=timer,
        listener=listener,
    )
    if key is not None and not callable(key):
        raise TypeError(f"key: expected a callable of the arguments, got {key!r}")
    refuse_coroutine_functions(key=key)
    if name is not None and not isinstance(name, str):
        raise TypeError(f"name: expected a string, got {name!r}")
    decorate = partial(_decorate, options=options, key=key, name=name)
    return decorate if func is None else decorate(func)
