"""The control surface: the methods of a decorated function and of its bound methods."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from functools import _CacheInfo
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from ..common.frames import looked_through
from ..common.keys import InstanceKey
from ..core import controls
from ..locks.keyed import KeyedLocks
from ..storage.ttl import named_tags

if TYPE_CHECKING:
    from ..core.answers import Answer
    from ..core.cache import Cache
    from ..storage.entry import Entry
    from ..telemetry.views import Explanation, FlightInfo, Stats

__all__ = ["Controls"]

P = ParamSpec("P")
R = TypeVar("R")

# mypy takes it for True; other checkers cannot tell, look at both branches, and keep the last declaration.
MYPY = False

if TYPE_CHECKING:
    S_contra = TypeVar("S_contra", contravariant=True)
    R_co = TypeVar("R_co", covariant=True)
    S = TypeVar("S")
    T = TypeVar("T")
    T_contra = TypeVar("T_contra", contravariant=True)

    class TakesClass(Protocol[S_contra, P, R_co]):
        """A callable whose first parameter takes a class."""

        def __call__(self, cls: type[S_contra], /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    class TakesInstance(Protocol[S_contra, P, R_co]):
        """A callable whose first parameter takes an instance."""

        def __call__(self, instance: S_contra, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    class NamesSelf(Protocol[S_contra, P, R_co]):
        """A function whose first parameter is named self: a method."""

        def __call__(
            _,  # noqa: N805  # pyright: ignore[reportSelfClsParameterName]
            self: S_contra,
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> R_co: ...

    class _HasClass(Protocol[S]):
        """An object of just this class: of its bound, where a type variable stands for it."""

        __class__: type[S]  # type: ignore[assignment]

    class TakesVariableClass(Protocol[S, P]):
        """A function that takes a class first, named cls, and returns an instance, whatever it is below S."""

        @property
        def _self_returned(self) -> _HasClass[S]: ...
        def __call__(
            _,  # noqa: N805  # pyright: ignore[reportSelfClsParameterName]
            cls: type[Any],
            *args: P.args,
            **kwargs: P.kwargs,
        ) -> Any: ...

    class Returns(Protocol[T_contra]):
        """A function that returns a T; one that returns a type variable does not return its bound."""

        def _self_keep(self, value: T_contra, /) -> None: ...

    class Awaits(Protocol[R_co]):
        """A coroutine function."""

        @property
        def _self_returned(self) -> Coroutine[Any, Any, R_co]: ...

    class ReturnsAnything(Protocol):
        """A function that returns an object of any class."""

        @property
        def _self_returned(self) -> _HasClass[object]: ...

    class TakesVariable(Protocol[S, T, P]):
        """A function that returns what it takes first, whatever it is below S."""

        @property
        def _self_returned(self) -> _HasClass[S]: ...
        def __call__(self, instance: T, /, *args: P.args, **kwargs: P.kwargs) -> T: ...


class Controls(Generic[P, R]):
    """Control methods, the same on a decorated function and on a bound method.

    `invalidate`, `entry`, `put`, `refresh`, `answer` and `explain` take the arguments of a call (on a bound
    method without the instance), and `clear` of a bound method concerns its instance. The others concern the
    whole function, all instances, and its twins. All of them may be used from any thread and event loop. Only
    `refresh` and `answer` wait for a flight, and none runs your code under a lock.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        _self_assembly: Any
        _self_cache: Cache

        @property
        def _self_returned(self) -> R: ...

    def _split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Return the key and the canonical arguments of a call."""
        raise NotImplementedError

    def _renew(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the function for this call, whatever is stored."""
        raise NotImplementedError

    def _answer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Serve this call, and say how that was done."""
        raise NotImplementedError

    def _owner(self) -> InstanceKey | None:
        """Return what stands for the instance in keys; None: all are meant."""
        return None

    @property
    def name(self) -> str:
        """The name of the function in events, log lines and `report()`; a twin has that of its function."""
        return self._self_cache.name

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Remove the value of this call and detach its flight. Return True if there was either.

        The callers of a flight in progress still get its outcome, but it is not stored, and the next caller
        fetches anew.
        """
        return controls.invalidate(self._self_cache, self._split(args, kwargs)[0])

    def invalidate_where(self, predicate: Callable[[Any], object]) -> int:
        """Invalidate every key for which the predicate is true. Return how many there were.

        The predicate is called with each key as `entry(...).key` shows it.
        """
        return controls.invalidate_where(self._self_cache, predicate)

    def clear(self) -> int:
        """Drop all entries and detach all flights; on a bound method those of its instance (or class).

        The callers of a flight in progress still get its outcome, but it is not stored. Counts stay as they
        are (`cache_clear` sets them to zero). Return how many entries were dropped.

        Raises `TypeError` on a bound method if the function has a `key` of its own, which does not tell what
        belongs to the instance: use `invalidate_where` there. Safe to use from any thread.

        >>> from singleflight import single_flight_ttl
        >>> class Account:
        ...     @single_flight_ttl(ttl=60)
        ...     def price(self, symbol):
        ...         return 984.75
        >>> first, second = Account(), Account()
        >>> first.price("ASML"), second.price("ASML")
        (984.75, 984.75)
        >>> first.price.clear(), Account.price.clear()
        (1, 1)
        """
        return controls.drop(self._self_cache, self._owner())

    def invalidate_tag(self, *tags: str) -> int:
        """Remove all entries that have one of these tags (option `tags`). Return how many there were.

        A flight that began before and lands with such a tag is not stored: its caller receives the value, and
        those who wait for it have the function called again, within `follower_retries`. What has other tags
        stays, and is not looked at. `singleflight.invalidate_tag` does the same for all functions.
        """
        return controls.invalidate_tag(self._self_cache, named_tags(tags))

    @overload
    def entry(self: Awaits[T], /, *args: P.args, **kwargs: P.kwargs) -> Entry[T] | None: ...
    @overload
    def entry(self, /, *args: P.args, **kwargs: P.kwargs) -> Entry[R] | None: ...
    def entry(self, /, *args: P.args, **kwargs: P.kwargs) -> Entry[Any] | None:
        """Return the stored value of this call with its times, or None. Does not call or count anything.

        With `copy` the entry has a copy of the value.
        """
        return controls.entry(self._self_cache, self._split(args, kwargs)[0])

    @overload
    def put(self: Awaits[T], value: T, /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    @overload
    def put(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None: ...
    def put(self, value: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store a value for this call as if it had just landed, and detach its flight.

        A callable `ttl` receives a landing with a duration of 0 and no followers. With a ttl of 0 this only
        invalidates. With `copy` a copy of the value is stored. Raises the exceptions of a callable `ttl` or
        `copy`, and `TypeError` for a value that one use would spend, such as a generator; nothing has changed
        then.
        """
        controls.put(self._self_cache, self._split(args, kwargs)[0], value)

    @looked_through
    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function now, store its value, and return it; on a coroutine function, await this.

        Joins the flight for this key if there is one. Meanwhile readers get the old value, and keep it if
        the function raises. Counts as a call received (a fetch, or a wait).

        Returns the same object to all callers that joined. Raises the same exceptions as a call.

        >>> import asyncio
        >>> from singleflight import single_flight_ttl
        >>> @single_flight_ttl(ttl=60)
        ... async def rate(currency):
        ...     return 1.08
        >>> asyncio.run(rate.refresh("EUR"))
        1.08
        """
        result: R = self._renew(args, kwargs)
        return result

    @overload
    def answer(self: Awaits[T], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Answer[T]]: ...
    @overload
    def answer(self, /, *args: P.args, **kwargs: P.kwargs) -> Answer[R]: ...
    @looked_through
    def answer(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the function, and return its value with how this very call was served; or await this.

        It counts as a call, and raises what a call raises. Safe to call from any thread.

        >>> from singleflight import single_flight_ttl
        >>> @single_flight_ttl(ttl=60)
        ... def rate(currency):
        ...     return 1.08
        >>> rate.answer("EUR").served, rate.answer("EUR").served
        ('fetch', 'hit')
        >>> rate.answer("EUR").cache_status("rates")
        'rates; hit; ttl=59'
        """
        return self._answer(args, kwargs)

    def explain(self, /, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """Return what this call would do now, and why; `str()` gives a sentence. Does not call or count."""
        return controls.explain(self._self_cache, self._split(args, kwargs)[0])

    def explain_fleet(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Ask the server what it has for the key of these arguments, with `store=`.

        Returns a `FleetExplanation`; on the thread of an event loop an awaitable of one. Changes and counts
        nothing. Raises `TypeError` without `store=`. `explain` says what is known here, without asking.
        """
        tier = self._self_cache.tier
        if tier is None:
            raise TypeError(f"explain_fleet: {self._self_cache.name} has no store=")
        return tier.explain(self._split(args, kwargs)[0])

    def stats(self) -> Stats:
        """Return the counts so far; exact once no call is running."""
        return controls.stats(self._self_cache)

    def flights(self) -> tuple[FlightInfo, ...]:
        """Return the flights in progress, oldest first."""
        return controls.flights(self._self_cache)

    def cache_info(self) -> _CacheInfo:
        """Return hits, misses, maxsize and current size, as `functools.lru_cache` does."""
        stats = self.stats()
        hits, size = stats.hits + stats.stale_hits, stats.weight
        return _CacheInfo(hits, stats.misses, self._self_cache.options.maxsize, cast("int", size))

    def cache_clear(self) -> None:
        """Remove all entries, detach all flights and set the counts to zero."""
        controls.clear(self._self_cache)

    def cache_parameters(self) -> dict[str, Any]:
        """Return the options of this function, `key` and `name` included."""
        options = self._self_cache.options
        hidden = ("fixed_ttl", "ageing")
        told = {name: getattr(options, name) for name in options.__slots__ if name not in hidden}
        return {**told, **self._self_cache.rule.options(), "name": self._self_cache.name}

    def bypass(self) -> AbstractContextManager[None]:
        """Return a context manager in which every call, by any caller, runs the function directly.

        Inside it nothing is looked up, shared, stored or counted. Stored values are served again afterwards.
        It may be entered several times, also by other threads meanwhile, and ends when all have left.
        """
        return controls.bypass(self._self_cache)

    @property
    def locks(self) -> KeyedLocks:
        """The keyed locks of the function: inside `with fn.locks(key):` no flight of that key begins."""
        return self._self_cache.locks
