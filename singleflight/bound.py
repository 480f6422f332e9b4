"""A decorated method on its instance or class: a bound method with the control surface beside."""

from __future__ import annotations

import types
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from .frames import looked_through
from .messages import shown
from .slips import SLIPS, Slip
from .surface import Controls

if TYPE_CHECKING:
    from .decorator import SingleFlightFunction
    from .wiring import Home

__all__ = ["BoundSingleFlight", "Shown", "binder", "show"]

P = ParamSpec("P")
R = TypeVar("R")

# What a bound method shows of its function, where the function has it.
_STANDARD = (
    *("__doc__", "__name__", "__annotate__", "__dict__"),
    *("__defaults__", "__kwdefaults__", "__code__", "__globals__", "__closure__", "__type_params__"),
    *("__signature__", "__text_signature__", "__isabstractmethod__"),
)


class Shown:
    """An attribute of the function, seen through what is bound to it.

    One for each attribute, instead of one `__getattr__` for all: a class that has that is never given
    CPython's fast attribute reads, which every call of a method needs for its instance.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else getattr(instance.__func__, self.name)


class _Annotations(dict[str, Any]):
    """The function's annotations, in the class of its bound methods: see `proxies.Annotations`."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return {} if instance is None else instance.__func__.__annotations__


def show(kind: type, name: str) -> None:
    """From now on the bound methods of this kind have this attribute of their function's."""
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
        _self_home: Home
        __self__: Any
        __name__: str
        __qualname__: str

        def __init__(self, function: Any, instance: Any, /) -> None: ...
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    else:
        __class__ = property(lambda _: types.MethodType)  # so that `inspect` takes it for a method

    @property
    def __func__(self) -> SingleFlightFunction[..., R]:
        function: SingleFlightFunction[..., R] = self._self_home.decorated()
        return function

    @property
    def __wrapped__(self) -> Callable[P, R]:
        wrapped, self_or_class = self._self_home.wrapped, self.__self__
        if self._self_home.of_class:
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

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return type(self)(self.__func__, deepcopy(self.__self__, memo))

    def __repr__(self) -> str:
        return f"<bound single-flight method {self.__qualname__} of {shown(self.__self__)}>"

    def _split(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any, Any]:
        return self._self_home.split(True)(self.__self__, *args, **kwargs)

    @looked_through
    def _renew(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._self_home.renew(True, *self._split(args, kwargs))


for _name in SLIPS:
    setattr(BoundSingleFlight, _name, Slip(_name))


def binder(home: Home) -> tuple[type, Callable[..., Any]]:
    """The class of one function's bound methods, and the `__get__` that makes them."""
    call = home.forms.method()
    function = home.decorated()
    qualname = getattr(function, "__qualname__", type(function.__wrapped__).__qualname__)
    members = {"__slots__": (), "__call__": call, "__module__": getattr(function, "__module__", None)}
    members |= {"_self_home": home, "_self_memo": home.memo, **{name: Shown(name) for name in _STANDARD}}
    members["__annotations__"] = _Annotations()
    kind: Any = _Kind("BoundSingleFlight", (BoundSingleFlight,), members)
    for name in getattr(function, "__dict__", ()):
        show(kind, name)
    # `type.__call__` on this class, without looking at its metaclass: the cheapest way to make one.
    make = type.__call__.__get__(kind)

    def bind_to_instance(self: Any, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            home.seen_on(owner)
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

    return kind, bind_to_class if home.of_class else bind_to_instance
