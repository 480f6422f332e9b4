"""The control surface: what a decorated function and its bound methods offer beside being called."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import _CacheInfo
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar

from ..common.frames import looked_through
from ..core import controls
from ..locks.keyed import KeyedLocks
from ..storage.entry import Entry
from ..telemetry.counters import Stats
from ..telemetry.views import Explanation, FlightInfo

if TYPE_CHECKING:
    from ..core.cache import Cache

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
        """A function whose values are a T; and one that returns a type variable does not return its bound."""

        def _self_keep(self, value: T_contra, /) -> None: ...

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

    `invalidate`, `entry`, `put`, `refresh` and `explain` take the arguments of a call (on a bound method
    without the instance); the others concern the whole function, all instances, and its twins. All of them
    may be used from any thread and event loop, none but `refresh` waits for a flight, and none runs anything
    of the user's under a lock.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        _self_home: Any
        _self_cache: Cache

    def _split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
        """The key and the canonical arguments of a call."""
        raise NotImplementedError

    def _renew(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the function for this call, whatever is stored."""
        raise NotImplementedError

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Drop the value of this call and detach its flight; whether there was either.

        The callers of a flight in progress still get its outcome; it is not stored, and the next caller
        fetches anew.
        """
        return controls.invalidate(self._self_cache, self._split(args, kwargs)[0])

    def invalidate_where(self, predicate: Callable[[Any], object]) -> int:
        """Invalidate every key that the predicate says yes to; how many there were."""
        return controls.invalidate_where(self._self_cache, predicate)

    def entry(self, /, *args: P.args, **kwargs: P.kwargs) -> Entry | None:
        """The stored value of this call with its times, or None; calls and counts nothing."""
        return controls.entry(self._self_cache, self._split(args, kwargs)[0])

    def put(self, value: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Store a value for this call, as if it had just landed, in place of what is there or on its way.

        A callable `ttl` sees a landing with a duration of 0 and no followers; what it raises is raised here
        and nothing has changed; so is `TypeError` where one use would spend the value (a generator, say).
        With a ttl of 0 this only invalidates.
        """
        controls.put(self._self_cache, self._split(args, kwargs)[0], value)

    @looked_through
    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function now, store what it returns, and return it; on a coroutine function, await this.

        Joins the flight for this key if there is one. Readers are served the old value meanwhile, and
        keep it if the function raises. Counts as a call received (a fetch, or a wait).

        Returns what every caller that joined gets, the same object; raises what a call raises.

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

    def explain(self, /, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """What this call would do now, and why; `str()` of it is a sentence. Calls and counts nothing."""
        return controls.explain(self._self_cache, self._split(args, kwargs)[0])

    def stats(self) -> Stats:
        """What was received and done so far; exact once the callers are quiet."""
        return controls.stats(self._self_cache)

    def flights(self) -> tuple[FlightInfo, ...]:
        """The flights in progress, oldest first."""
        return controls.flights(self._self_cache)

    def cache_info(self) -> _CacheInfo:
        """Hits, misses, maxsize and current size, as `functools.lru_cache` has them."""
        stats = self.stats()
        hits, size = stats.hits + stats.stale_hits, stats.entries
        return _CacheInfo(hits, stats.misses, self._self_cache.options.maxsize, size)

    def cache_clear(self) -> None:
        """Drop all entries, detach all flights and zero the counts."""
        controls.clear(self._self_cache)

    def cache_parameters(self) -> dict[str, Any]:
        """The options that this function was decorated with, `name` included."""
        options = self._self_cache.options
        hidden = ("fixed_ttl", "ageing")
        told = {name: getattr(options, name) for name in options.__slots__ if name not in hidden}
        return {**told, "key": self._self_cache.own_key, "name": self._self_cache.name}

    def bypass(self) -> AbstractContextManager[None]:
        """A `with` block in which every call, by whomever, runs the function directly.

        Nothing is looked up, shared, stored or counted meanwhile; what was stored is served again after.
        """
        return controls.bypass(self._self_cache)

    @property
    def locks(self) -> KeyedLocks:
        """The keyed locks it runs on; `with` or `async with fn.locks(key):` keeps flights of that key out."""
        return self._self_cache.locks
