"""The decorated function: what is called and bound through wrapt, and how it is put together."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from . import patches
from .bound import BoundSingleFlight, binder, show
from .loader import MakesLoaders
from .options import Options
from .proxies import FunctionWrapper
from .slips import no_such_attribute
from .surface import Controls
from .wiring import Home

if TYPE_CHECKING:
    from .surface import TakesClass, TakesInstance

__all__ = ["BoundSingleFlight", "SingleFlightDecorator", "SingleFlightFunction", "decorate"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


class SingleFlightFunction(Controls[P, R], MakesLoaders, FunctionWrapper, Generic[P, R]):
    """A decorated function: called (or awaited) like the original, with the control surface beside.

    Everything else about it (name, docstring, signature, annotations, `isinstance` answers) is that of
    the wrapped function, which is its `__wrapped__`.
    """

    # Each decorated function has a class of its own below this one, made by `decorate`, with its memo and
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

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)  # what the wrapped function has
            except AttributeError:
                if name.startswith("_"):  # tools ask for these, and often
                    raise
            known = [control for control in dir(type(self)) if not control.startswith("_")]
            raise AttributeError(no_such_attribute(self._self_memo.name, name, known))

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
        functions that cannot be decorated. Safe to call from any thread, and so are both functions.

        >>> from singleflight import single_flight_ttl
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
        return decorate(func, memo.options, memo.own_key, twin_of=self._self_home)

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


def decorate(
    wrapped: Any, options: Options, key: Any, name: str | None = None, twin_of: Home | None = None
) -> SingleFlightFunction[..., Any]:
    """A decorated function of these options, or a twin of another one."""
    patches.tell("decorating")
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
    mark: Any = getattr(inspect, "markcoroutinefunction", None)  # Python 3.12
    if home.coroutine and mark is not None:
        # Callable objects do not show it of themselves. On the class: the function itself is the user's.
        members |= vars(mark(lambda: None))
    kind: Any = type("SingleFlightFunction", (SingleFlightFunction,), members)
    home.kind = kind
    decorated: SingleFlightFunction[..., Any] = home.make()
    return decorated
