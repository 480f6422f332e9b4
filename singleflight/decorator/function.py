"""The decorated function, and its bound method on an instance or class."""

from __future__ import annotations

import inspect
import sys
import types
import weakref
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from functools import WRAPPER_ASSIGNMENTS, update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from ..common import patches
from ..common.frames import looked_through
from ..common.keys import InstanceKey
from ..common.messages import shown
from ..common.slips import SLIPS, Slip, no_such_attribute
from ..core.options import Options
from ..process.registry import functions
from . import pickles
from .assembly import Assembly
from .display import Documented, called, doc_for, public_names
from .keyforms import KeyRule
from .loader import MakesLoaders
from .surface import MYPY, Controls
from .wrapt_types import Annotations, FunctionWrapper

if TYPE_CHECKING:
    from ..core.cache import Cache
    from .surface import (
        NamesSelf,
        Returns,
        ReturnsAnything,
        TakesClass,
        TakesInstance,
        TakesVariable,
        TakesVariableClass,
    )

__all__ = ["BoundSingleFlight", "SingleFlightDecorator", "SingleFlightFunction", "caches", "decorate"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")
K = TypeVar("K")


class SingleFlightFunction(Controls[P, R], MakesLoaders, FunctionWrapper, Generic[P, R]):
    """A decorated function: called (or awaited) like the original, with control methods in addition.

    Everything else about it (name, docstring, signature, annotations, `isinstance` answers) is that of
    the wrapped function, which is its `__wrapped__`.
    """

    # Each decorated function has a class of its own below this one, made by `decorate`, with its cache and
    # its compiled `__call__` and `__get__`: Python looks these up on the class.
    _self_held: weakref.ref[Any] | None = None  # what a class holds in its place: see `_held`

    if TYPE_CHECKING:
        _self_assembly: Assembly
        __name__: str
        __qualname__: str

        @property
        def __wrapped__(self) -> Callable[P, R]: ...
        def _self_keep(self, value: R, /) -> None: ...

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

        # Checkers do not say whether a `classmethod` or `staticmethod` is above it. So a parameter that takes
        # the class first means a class method, and one that cannot take the instance a static method.
        # Where a method returns nothing but `Self` or its own `self: T`, mypy 2.4 leaves a type variable in
        # our P and R, which no argument fits; those after that find these methods by what they return, and
        # leave out the static methods that return an instance or what they are given.
        @overload
        def __get__(
            self: TakesClass[S, Q, R], instance: S | None, owner: type[S], /
        ) -> BoundSingleFlight[Q, R]: ...
        @overload
        def __get__(
            self: TakesVariableClass[S, Q], instance: S | None, owner: type[K], /
        ) -> BoundSingleFlight[Q, K]: ...
        @overload
        def __get__(self, instance: None, owner: Any = None, /) -> SingleFlightFunction[P, R]: ...
        @overload
        def __get__(
            self: TakesInstance[S, Q, R], instance: S, owner: Any = None, /
        ) -> BoundSingleFlight[Q, R]: ...
        @overload
        def __get__(self: Returns[T], instance: T, owner: Any = None, /) -> SingleFlightFunction[P, R]: ...
        @overload
        def __get__(
            self: ReturnsAnything, instance: object, owner: Any = None, /
        ) -> SingleFlightFunction[P, R]: ...
        @overload
        def __get__(
            self: TakesVariable[S, T, Q], instance: S, owner: type[K], /
        ) -> BoundSingleFlight[Q, K]: ...
        @overload
        def __get__(  # type: ignore[overload-cannot-match]  # mypy looks at two parameters of three
            self, instance: object, owner: Any = None, /
        ) -> SingleFlightFunction[P, R]: ...
        def __get__(self, instance: Any, owner: Any = None, /) -> Any: ...

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._self_assembly.named(owner)

    if not TYPE_CHECKING:

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if not name.startswith("_self_") and self._self_assembly.bound_kind is not None:
                show(self._self_assembly.bound_kind, name)  # from now on its bound methods show it too

        def _shown_class(self) -> type[Any]:
            if self._self_face is None:
                return self.__wrapped__.__class__
            return classmethod if self._self_assembly.of_class else staticmethod

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)  # what the wrapped function has
            except AttributeError:
                if name.startswith("_"):  # tools ask for these, and often
                    raise
            known = [control for control in dir(type(self)) if not control.startswith("_")]
            raise AttributeError(no_such_attribute(self._self_cache.name, name, known))

        @property
        def __func__(self) -> Any:
            """The function inside a class or static method; decorators that read it find it decorated."""
            return self.__wrapped__.__func__ if self._self_face is None else self._self_face

        def __dir__(self) -> list[str]:
            return sorted({*dir(self.__wrapped__), *public_names(type(self))})

        def _self_shared(self) -> Cache:
            return self._self_cache

    def __repr__(self) -> str:
        return f"<single-flight {called(self._self_cache)}: {shown(self.__wrapped__)}>"

    if TYPE_CHECKING and not MYPY:

        @overload
        def twin(self, func: NamesSelf[S, Q, T], /) -> SingleFlightMethod[S, Q, T]: ...

    @overload
    def twin(self, func: classmethod[S, Q, T], /) -> SingleFlightFunction[Concatenate[type[S], Q], T]: ...
    @overload
    def twin(self, func: staticmethod[Q, T], /) -> SingleFlightFunction[Q, T]: ...
    @overload
    def twin(self, func: Callable[Q, T], /) -> SingleFlightFunction[Q, T]: ...
    def twin(self, func: Any, /) -> Any:
        """Decorate a second function that fetches the same values, usually a coroutine function.

        The twin has its own parameters, and may be plain or a coroutine function. Everything else is shared:
        key, options, values, locks, flights, counts and name. The first caller leads, with the function that
        it called, and its value serves both.

        Args:
            func: a plain or a coroutine function, method, class or static method. The `key` of the first is
                called with its arguments too. Default keys go by the position of the parameters.

        Returns the decorated function. `invalidate`, `put`, `stats` and so on do the same on both; `refresh`
        calls the function on which it is called.

        Raises `TypeError` if the calls of both cannot have the same keys, and the errors of
        `single_flight_ttl` for functions that cannot be decorated. Safe to call from any thread, and
        so are both functions.

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
        cache = self._self_cache
        return decorate(func, cache.options, cache.rule, twin_of=self._self_assembly)

    def _split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
        return self._self_assembly.split(False)(*args, **kwargs)

    @looked_through
    def _renew(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._self_assembly.renew(False, *self._split(args, kwargs))

    @looked_through
    def _answer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._self_assembly.answer(False, *self._split(args, kwargs))

    def _taken_apart(self) -> tuple[Any, ...]:
        """Return how another process decorates the function anew, for `pickle`."""
        if self._self_face is not None:
            return _held, (self._self_face,)
        assembly = self._self_assembly
        first = assembly.twins.assemblies[0]
        options = {**self.cache_parameters(), "of_methods": assembly.twins.of_methods}
        state = assembly.wrapped, options if first is assembly else first.decorated()
        return _empty, (pickles.identity_of(self),), state, None, None, _fill


if TYPE_CHECKING and not MYPY:
    S_co = TypeVar("S_co", covariant=True)
    R_co = TypeVar("R_co", covariant=True)

    class SingleFlightMethod(
        SingleFlightFunction[Concatenate[S_co, Q], R_co],  # pyright: ignore[reportInvalidTypeArguments]
        Generic[S_co, Q, R_co],
    ):
        """What pyright sees in a class where a decorated method is defined; no instance exists.

        pyright compares this with the method of a Protocol, and does not bind it first. So it can be called
        without the instance, too. S and R are covariant so that a decorated method may override another one.
        """

        @overload
        def __call__(self, instance: Any = ..., /, *args: Q.args, **kwargs: Q.kwargs) -> R_co: ...
        @overload
        def __call__(
            self: SingleFlightMethod[Any, Concatenate[Any, ...], Any], *args: Q.args, **kwargs: Q.kwargs
        ) -> R_co: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

        @overload
        def __get__(
            self, instance: None, owner: Any = None, /
        ) -> SingleFlightFunction[Concatenate[S_co, Q], R_co]: ...
        @overload
        def __get__(
            self: SingleFlightMethod[S, Q, R], instance: S, owner: Any = None, /
        ) -> BoundSingleFlight[Q, R]: ...
        @overload
        def __get__(
            self, instance: object, owner: Any = None, /
        ) -> SingleFlightFunction[Concatenate[S_co, Q], R_co]: ...
        def __get__(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, instance: Any, owner: Any = None, /
        ) -> Any: ...


class SingleFlightDecorator(Protocol):
    """The result of `single_flight_ttl(...)`: decorates functions, methods, class and static methods."""

    if TYPE_CHECKING and not MYPY:

        @overload
        def __call__(self, func: NamesSelf[S, P, R], /) -> SingleFlightMethod[S, P, R]: ...

    @overload
    def __call__(self, func: classmethod[S, P, R], /) -> SingleFlightFunction[Concatenate[type[S], P], R]: ...
    @overload
    def __call__(self, func: staticmethod[P, R], /) -> SingleFlightFunction[P, R]: ...
    @overload
    def __call__(self, func: Callable[P, R], /) -> SingleFlightFunction[P, R]: ...


def decorate(
    wrapped: Any, options: Options, rule: KeyRule, name: str | None = None, twin_of: Assembly | None = None
) -> SingleFlightFunction[..., Any]:
    """Return the function decorated with these options, or as a twin of another one."""
    patches.tell("decorating")
    assembly = Assembly(wrapped, options, rule, name, twin_of)
    _furnish(_new_kind(), assembly)
    assembly.call_in_c()
    made: SingleFlightFunction[..., Any] = assembly.make()
    return _held(made) if assembly.static or assembly.of_class else made


def _new_kind() -> Any:
    members = {"__annotations__": Annotations(), "__doc__": Documented(SingleFlightFunction.__doc__)}
    return type("SingleFlightFunction", (SingleFlightFunction,), members)


def _furnish(kind: Any, assembly: Assembly) -> None:
    """Fill the class of one decorated function."""

    def first_bind(self: Any, instance: Any, owner: Any = None) -> Any:
        """Compile the bound form at the first access, and replace this method by it."""
        assembly.seen_on(owner)
        if instance is None and not (assembly.of_class or assembly.static):
            return self
        if assembly.bindable:
            assembly.bound_kind, kind.__get__ = binder(assembly)
        else:
            function = assembly.decorated() if assembly.static else None
            kind.__get__ = lambda self, _instance, _owner=None: self if function is None else function
        return kind.__get__(self, instance, owner)

    assembly.kind = kind
    kind._self_assembly, kind._self_cache = assembly, assembly.cache
    kind.__call__, kind.__get__ = assembly.plain_call(), first_bind
    mark: Any = getattr(inspect, "markcoroutinefunction", None)  # Python 3.12
    if assembly.coroutine and mark is not None:
        # Callable objects do not show it of themselves. On the class: the function itself is the user's.
        for name, value in vars(mark(lambda: None)).items():
            setattr(kind, name, value)


def _held(function: Any) -> Any:
    """Return the object that stands in a class for its class or static method, and looks like one.

    It is another object than the function, since `isinstance` tells functions from class and static methods
    by `__class__`: Python, mock and other decorators look into the class for these.
    """
    kind: Any = type(function)
    held = kind._self_held and kind._self_held()
    if held is None:
        held = kind.__new__(kind)
        held._self_face = function
        kind._self_held = weakref.ref(held)
        pickles.when_here(function, lambda: function._self_assembly.wrap(held))
    return held


def _empty(identity: str) -> Any:
    """Return a function that was pickled by value, still without its content."""

    def make() -> Any:
        kind = _new_kind()
        return kind.__new__(kind)

    return pickles.known(identity, make)


def _fill(function: Any, state: tuple[Any, ...]) -> None:
    """Decorate the function anew; a twin as soon as its first function has arrived."""
    wrapped, shared = state

    def fill() -> None:
        if function._self_waiting is None:  # it is known here, with its values
            return
        if isinstance(shared, dict):
            rule = KeyRule.checked(**{option: shared.pop(option) for option in ("key", "ignore", "typed")})
            name = shared.pop("name")
            of_methods = shared.pop("of_methods")
            assembly = Assembly(wrapped, Options.checked(**shared), rule, name)
            if of_methods:
                assembly.twins.has_methods()
        else:
            cache = shared._self_cache
            assembly = Assembly(wrapped, cache.options, cache.rule, None, shared._self_assembly)
        _furnish(type(function), assembly)
        assembly.fill(function)
        pickles.arrived(function)

    if isinstance(shared, dict):
        fill()
    else:
        pickles.when_here(shared, fill)


def caches() -> tuple[SingleFlightFunction[..., Any], ...]:
    """Return every living decorated function of the process, in the order of decoration.

    >>> from singleflight import single_flight_ttl
    >>> @single_flight_ttl(ttl=60, name="prices")
    ... def price(symbol):
    ...     return 984.75
    >>> "prices" in [cached.cache_parameters()["name"] for cached in caches()]
    True

    Safe to call from any thread.
    """
    return functions()


# What a bound method shows of its function, where the function has it.
_STANDARD = (
    *("__name__", "__annotate__", "__dict__"),
    *("__defaults__", "__kwdefaults__", "__code__", "__globals__", "__closure__", "__type_params__"),
    *("__signature__", "__text_signature__", "__isabstractmethod__"),
)


class Shown:
    """An attribute of the function that its bound methods show.

    There is one for each attribute, instead of one `__getattr__` for all: CPython has no fast attribute
    reads for a class with `__getattr__`, and every call of a method reads its instance.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else getattr(instance.__func__, self.name)


class _Doc(Shown):
    """The function's docstring; see `display.doc_for`."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        return doc_for(sys._getframe(1), instance.__func__.__doc__, instance._self_cache, type(instance))


class _Annotations(dict[str, Any]):
    """The function's annotations, in the class of its bound methods: see `wrapt_types.Annotations`."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return {} if instance is None else instance.__func__.__annotations__


def show(kind: type, name: str) -> None:
    """Let the bound methods of this class show this attribute of their function from now on."""
    if not hasattr(kind, name):
        setattr(kind, name, Shown(name))


class _Kind(type):
    """Takes the arguments of `types.MethodType`, as `weakref.WeakMethod` does.

    A `__new__` or `__init__` would do that too, and slow down every binding: `binder` goes past this.
    """

    def __call__(cls, *arguments: Any) -> Any:
        made = super().__call__()
        if arguments:
            function, made.__self__ = arguments
            made.__qualname__ = function.__qualname__
        return made


class BoundSingleFlight(Controls[P, R], Generic[P, R], metaclass=_Kind):
    # Made anew by each attribute access, without a Python-level __init__. Each decorated function has a
    # class of its own below this one, made by `binder`. (No docstring: it shows its function's.)
    # `__qualname__` is written into each: Python takes it for a class's own name wherever a class has it.

    __slots__ = ("__qualname__", "__self__", "__weakref__")

    if TYPE_CHECKING:
        _self_assembly: Assembly
        __self__: Any
        __name__: str
        __qualname__: str

        def __init__(self, function: Any, instance: Any, /) -> None: ...
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    else:
        __class__ = property(lambda _: types.MethodType)  # so that `inspect` takes it for a method

    @property
    def __func__(self) -> SingleFlightFunction[..., R]:
        function: SingleFlightFunction[..., R] = self._self_assembly.decorated()
        return function

    @property
    def __wrapped__(self) -> Callable[P, R]:
        wrapped, self_or_class = self._self_assembly.wrapped, self.__self__
        if self._self_assembly.of_class:
            bound: Callable[P, R] = wrapped.__get__(None, self_or_class)
        else:
            bound = wrapped.__get__(self_or_class, type(self_or_class))
        return bound

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__self__ is self.__self__

    def __hash__(self) -> int:
        return hash((type(self), id(self.__self__)))

    def __reduce__(self) -> Any:
        return getattr, (self.__self__, self.__func__.__name__)

    def __deepcopy__(self, cache: dict[int, Any]) -> Any:
        return type(self)(self.__func__, deepcopy(self.__self__, cache))

    def __repr__(self) -> str:
        whose = f"{self.__qualname__} of {shown(self.__self__)}"
        return f"<bound single-flight method {whose}: {called(self._self_cache)}>"

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *public_names(type(self))})

    def _owner(self) -> InstanceKey:
        return self._self_assembly.owner_of(self.__self__)

    def _split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
        return self._self_assembly.split(True)(self.__self__, *args, **kwargs)

    @looked_through
    def _renew(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._self_assembly.renew(True, *self._split(args, kwargs))

    @looked_through
    def _answer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._self_assembly.answer(True, *self._split(args, kwargs))


for _name in SLIPS:
    setattr(BoundSingleFlight, _name, Slip(_name))


def _telling(call: types.FunctionType, function: Any) -> types.FunctionType:
    """Return the compiled call, which tells tools that look at a bound method's `__call__` what it takes."""
    with suppress(TypeError):  # a callable object may have other things under these names
        update_wrapper(call, function, assigned=_ANNOTATIONS, updated=())
    return call


_ANNOTATIONS = [name for name in WRAPPER_ASSIGNMENTS if name.startswith("__annot")]  # 3.14: not evaluated


def binder(assembly: Assembly) -> tuple[type, Callable[..., Any]]:
    """Return the class of one function's bound methods, and the `__get__` that makes them."""
    call = _telling(assembly.forms.method(), assembly.function)
    function = assembly.decorated()
    qualname = getattr(function, "__qualname__", type(function.__wrapped__).__qualname__)
    members = {"__slots__": (), "__call__": call, "__module__": getattr(function, "__module__", None)}
    members |= {
        "_self_assembly": assembly,
        "_self_cache": assembly.cache,
        **{name: Shown(name) for name in _STANDARD},
    }
    members |= {"__annotations__": _Annotations(), "__doc__": _Doc("__doc__")}
    kind: Any = _Kind("BoundSingleFlight", (BoundSingleFlight,), members)
    for name in getattr(function, "__dict__", ()):
        show(kind, name)
    # `type.__call__` on this class, without looking at its metaclass: the cheapest way to make one.
    make = type.__call__.__get__(kind)

    def bind_to_instance(self: Any, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            assembly.seen_on(owner)
            return self
        bound = make()
        bound.__self__ = instance
        bound.__qualname__ = qualname
        return bound

    def bind_to_class(_self: Any, instance: Any, owner: Any = None) -> Any:
        bound = make()
        bound.__self__ = type(instance) if owner is None else owner
        bound.__qualname__ = qualname
        return bound

    return kind, bind_to_class if assembly.of_class else bind_to_instance
