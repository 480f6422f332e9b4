"""`.bulk`: a decorated function that loads many keys in one call, for the values of another one."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from ..common.messages import shown
from . import pickles
from .display import Documented, called, public_names
from .surface import MYPY
from .wrapt_types import Annotations, BoundFunctionWrapper, FunctionWrapper

if TYPE_CHECKING:
    from datetime import timedelta

    from .assembly import Assembly
    from .surface import NamesSelf, TakesClass, TakesInstance

    Gather = float | timedelta | None

__all__ = ["BoundBulkLoader", "BulkDecorator", "BulkLoader", "MakesLoaders"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


def _check_max_batch(max_batch: Any) -> None:
    """Raise `TypeError` or `ValueError`, naming the option, if it is not a number of items."""
    if max_batch is None:
        return
    if isinstance(max_batch, bool) or not isinstance(max_batch, int):
        raise TypeError(f"max_batch: expected a whole number or None, got {shown(max_batch)}")
    if max_batch < 1:
        raise ValueError(f"max_batch: must be at least 1, got {max_batch}")


def _loading(wrapped: Any, assembly: Assembly, max_batch: int | None, gather: Any) -> Any:
    """What serves the calls of a loader."""
    _check_max_batch(max_batch)
    if gather is None:
        from .loading import Loading  # with all that bulk calls need, where there is a loader

        return Loading(wrapped, assembly, max_batch)
    from .gathered import Gathered, check_gather

    return Gathered(wrapped, assembly, max_batch, check_gather(gather, max_batch))


class BoundBulkLoader(BoundFunctionWrapper, Generic[P, R]):
    """A loader on its instance or class."""

    if TYPE_CHECKING:
        __self__: Any
        __name__: str
        __qualname__: str

        @property
        def max_batch(self) -> int | None: ...
        @property
        def gather(self) -> float | None: ...
        @property
        def name(self) -> str: ...

        @property
        def __wrapped__(self) -> Callable[P, R]: ...

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    else:
        __doc__ = Documented(__doc__)

        @property
        def max_batch(self):
            return self._self_parent.max_batch

        @property
        def gather(self):
            return self._self_parent.gather

        @property
        def name(self):
            return self._self_parent.name

        def _self_shared(self):
            return self._self_parent._self_shared()

        def __reduce__(self):
            owner = self._self_owner if self._self_instance is None else self._self_instance
            return getattr, (owner, self.__name__)

        def __reduce_ex__(self, protocol):
            return self.__reduce__()

        def __copy__(self):
            return self

        def __deepcopy__(self, cache):
            if self._self_instance is None:
                return self
            return getattr(deepcopy(self._self_instance, cache), self.__name__)

        def __repr__(self):
            return f"<bound bulk loader of {called(self._self_shared())}: {shown(self.__wrapped__)}>"

        def __dir__(self):
            return sorted({*dir(self.__wrapped__), *public_names(type(self))})


class BulkLoader(FunctionWrapper, Generic[P, R]):
    """A function that loads many keys in one call, except those that are stored or in flight already.

    It has the name, docstring, signature and other attributes of the wrapped function, which is its
    `__wrapped__`. Its values, flights and counts are those of the function whose `bulk` made it, and that
    function has the control methods.
    """

    if TYPE_CHECKING:
        __name__: str
        __qualname__: str

        @property
        def max_batch(self) -> int | None:
            """The largest number of items in one call of the loader; None: no limit."""

        @property
        def gather(self) -> float | None:
            """For how many seconds single calls are gathered; None: not at all."""

        @property
        def name(self) -> str:
            """The name of the function whose values it loads, in events, log lines and `report()`."""
            ...

        @property
        def __wrapped__(self) -> Callable[P, R]: ...

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

        # As for decorated functions: see `SingleFlightFunction`.
        @overload
        def __get__(
            self: TakesClass[S, Q, R], instance: S | None, owner: type[S], /
        ) -> BoundBulkLoader[Q, R]: ...
        @overload
        def __get__(self, instance: None, owner: Any = None, /) -> BulkLoader[P, R]: ...
        @overload
        def __get__(
            self: TakesInstance[S, Q, R], instance: S, owner: Any = None, /
        ) -> BoundBulkLoader[Q, R]: ...
        @overload
        def __get__(self, instance: object, owner: Any = None, /) -> BulkLoader[P, R]: ...
        def __get__(self, instance: Any, owner: Any = None, /) -> Any: ...

    else:
        __doc__ = Documented(__doc__)

        __bound_function_wrapper__ = BoundBulkLoader

        @property
        def max_batch(self):
            return self._self_wrapper.max_batch

        @property
        def gather(self):
            return self._self_wrapper.gather

        @property
        def name(self):
            return self._self_shared().name

        def _self_shared(self):
            return self._self_wrapper.assembly.cache

        @property
        def __func__(self):
            """The function inside a class or static method; decorators that read it find a loader."""
            wrapped = self.__wrapped__
            if not isinstance(wrapped, (classmethod, staticmethod)):
                return wrapped.__func__
            if self._self_face is None:
                self._self_face = BulkLoader(wrapped.__func__, self._self_wrapper)
            return self._self_face

        def _taken_apart(self):
            options = self.max_batch, self.gather
            state = self.__wrapped__, self._self_wrapper.assembly.decorated(), options
            return _empty_loader, (pickles.identity_of(self),), state, None, None, _fill_loader

        def __repr__(self):
            return f"<bulk loader of {called(self._self_shared())}: {shown(self.__wrapped__)}>"

        def __dir__(self):
            return sorted({*dir(self.__wrapped__), *public_names(type(self))})


if not TYPE_CHECKING:
    for _class in (BoundBulkLoader, BulkLoader):
        _class.__annotations__ = Annotations()


def _empty_loader(identity: str) -> Any:
    """Return a loader that was pickled by value, still without its content."""
    return pickles.known(identity, partial(BulkLoader.__new__, BulkLoader))


def _fill_loader(loader: Any, state: tuple[Any, ...]) -> None:
    """Decorate the loader anew as soon as the function whose values it loads has arrived."""
    wrapped, function, options = state

    def fill() -> None:
        if loader._self_waiting is not None:
            BulkLoader.__init__(loader, wrapped, _loading(wrapped, function._self_assembly, *options))
            pickles.arrived(loader)

    pickles.when_here(function, fill)


if TYPE_CHECKING and not MYPY:
    S_co = TypeVar("S_co", covariant=True)
    R_co = TypeVar("R_co", covariant=True)

    class BulkLoaderMethod(
        BulkLoader[Concatenate[S_co, Q], R_co],  # pyright: ignore[reportInvalidTypeArguments]
        Generic[S_co, Q, R_co],
    ):
        """What pyright sees in a class where a bulk method is defined; no instance exists.

        pyright compares this with the method of a Protocol, and does not bind it first. So it can be called
        without the instance, too. S and R are covariant so that a bulk method may override another one.
        """

        @overload
        def __call__(self, instance: Any = ..., /, *args: Q.args, **kwargs: Q.kwargs) -> R_co: ...
        @overload
        def __call__(
            self: BulkLoaderMethod[Any, Concatenate[Any, ...], Any], *args: Q.args, **kwargs: Q.kwargs
        ) -> R_co: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

        @overload
        def __get__(self, instance: None, owner: Any = None, /) -> BulkLoader[Concatenate[S_co, Q], R_co]: ...
        @overload
        def __get__(
            self: BulkLoaderMethod[S, Q, R], instance: S, owner: Any = None, /
        ) -> BoundBulkLoader[Q, R]: ...
        @overload
        def __get__(
            self, instance: object, owner: Any = None, /
        ) -> BulkLoader[Concatenate[S_co, Q], R_co]: ...
        def __get__(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, instance: Any, owner: Any = None, /
        ) -> Any: ...


class BulkDecorator(Protocol):
    """The result of `.bulk(max_batch=...)`: decorates functions, methods, class and static methods."""

    if TYPE_CHECKING and not MYPY:

        @overload
        def __call__(self, func: NamesSelf[S, P, R], /) -> BulkLoaderMethod[S, P, R]: ...

    @overload
    def __call__(self, func: classmethod[S, P, R], /) -> BulkLoader[Concatenate[type[S], P], R]: ...
    @overload
    def __call__(self, func: staticmethod[P, R], /) -> BulkLoader[P, R]: ...
    @overload
    def __call__(self, func: Callable[P, R], /) -> BulkLoader[P, R]: ...


class MakesLoaders:
    """The part of a decorated function that makes bulk loaders for its values."""

    __slots__ = ()

    if TYPE_CHECKING:
        _self_assembly: Assembly

    if TYPE_CHECKING and not MYPY:

        @overload
        def bulk(
            self, fn: NamesSelf[S, P, R], /, *, max_batch: int | None = ..., gather: Gather = ...
        ) -> BulkLoaderMethod[S, P, R]: ...

    @overload
    def bulk(
        self, fn: classmethod[S, P, R], /, *, max_batch: int | None = ..., gather: Gather = ...
    ) -> BulkLoader[Concatenate[type[S], P], R]: ...
    @overload
    def bulk(
        self, fn: staticmethod[P, R], /, *, max_batch: int | None = ..., gather: Gather = ...
    ) -> BulkLoader[P, R]: ...
    @overload
    def bulk(
        self, fn: Callable[P, R], /, *, max_batch: int | None = ..., gather: Gather = ...
    ) -> BulkLoader[P, R]: ...
    @overload
    def bulk(
        self, fn: None = ..., /, *, max_batch: int | None = ..., gather: Gather = ...
    ) -> BulkDecorator: ...
    def bulk(self, fn: Any = None, /, *, max_batch: int | None = None, gather: Gather = None) -> Any:
        """Decorate a loader of many keys: one call for all that are neither stored nor in flight.

        It takes the same parameters in the same order, except that the first one (after `self`) is an
        iterable of items. It may be plain or a coroutine function, whatever this one is.

        Args:
            fn: called with a list of items, each key once; returns a mapping of items to values. Items that
                it leaves out are missing: they are not in the answer, and single callers that waited for them
                receive None. A value that a single caller fetched and `cache_if` refuses is missing too.
                Extra items that it returns are stored too, unless a newer value exists or is being fetched
                (with `store=` they are not: this process has no right to load them for all).
            max_batch: the largest number of items in one call (default None: no limit). More are fetched in
                several calls, one after another.
            gather: for how many seconds (or a `timedelta`) the first single call that misses waits for
                others; one call of the loader then serves all (default None: each runs this function). It is
                made earlier when `max_batch` items have come. Bulk calls for one key are gathered too. One
                loader of each colour may gather; a call needs one of its own colour to begin, and may join
                any. Who joins waits for no longer than `wait_timeout`; what the loader raises fails them all.

        Returns the loader. A call of it returns a dict of the items that have a value, in the order asked
        and as they were spelt. Each key lands by itself, with its own ttl, on a flight that others may join.

        A call raises the loader's exception, which fails the keys that it was called for and no others; a
        copy of the exception of another caller's flight; `TypeError` for a string in place of items, or a
        loader that returns no mapping; and `UnhashableKey`, `FlightDeadlock` and `FlightTimeout`. Decorating
        raises `TypeError` or `ValueError` if the parameters do not match, `max_batch` or `gather` is bad, or
        no call could be gathered. Safe to use from any thread.

        >>> from singleflight import single_flight_ttl
        >>> @single_flight_ttl(ttl=60)
        ... def price(symbol):
        ...     return 984.75
        >>> @price.bulk(max_batch=50)
        ... def prices(symbols):
        ...     print("asking for", symbols)
        ...     return {symbol: 984.75 for symbol in symbols}
        >>> price("ASML"), prices(["ASML", "AAPL"])
        asking for ['AAPL']
        (984.75, {'ASML': 984.75, 'AAPL': 984.75})
        """
        _check_max_batch(max_batch)
        if fn is None:
            if gather is not None:
                from .gathered import check_gather

                check_gather(gather, max_batch)
            return partial(self.bulk, max_batch=max_batch, gather=gather)
        return BulkLoader(fn, _loading(fn, self._self_assembly, max_batch, gather))
