"""The door to wrapt: proxies that bind as functions do, and what they show of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import pickles

__all__ = ["Annotations", "BoundFunctionWrapper", "FunctionWrapper"]


class Annotations(dict[str, Any]):
    """The wrapped function's annotations, for a class that would have its own found before them.

    Up to Python 3.13 a look at the annotations of a class puts an empty dictionary into it, and `Generic`
    stands before wrapt's classes among our bases. So this has to be in the very class of each instance.
    Nothing is evaluated before it is asked for. It is a dictionary, since `inspect` wants to find one there.
    """

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return {} if instance is None else instance.__wrapped__.__annotations__

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__wrapped__.__annotations__ = value

    def __delete__(self, instance: Any) -> None:
        del instance.__wrapped__.__annotations__


if TYPE_CHECKING:

    class FunctionWrapper:
        """What type checkers see instead; the classes below it say the rest."""

        _self_face: Any

        def __init__(self, wrapped: object, wrapper: object) -> None: ...
        def _taken_apart(self) -> tuple[Any, ...]: ...

    class BoundFunctionWrapper:
        """The same, bound."""

else:
    import wrapt

    class FunctionWrapper(wrapt.FunctionWrapper):
        """Compares by identity, copies as itself, is pickled by reference or taken apart."""

        _self_face = None  # where this is what a class holds of a class or static method: its function
        _self_identity = None  # see `pickles`
        _self_waiting = None
        _self_doc = None  # a docstring that it was given, in a tuple; see `display.Documented`

        __eq__ = object.__eq__
        __ne__ = object.__ne__
        __hash__ = object.__hash__

        @property
        def __class__(self):
            return type(self) if pickles.is_asked(self) else self._shown_class()

        @__class__.setter
        def __class__(self, cls):
            self.__wrapped__.__class__ = cls

        def _shown_class(self):
            return self.__wrapped__.__class__

        def __reduce__(self):
            return self.__qualname__  # by reference, like any function

        def __reduce_ex__(self, protocol):
            return self._taken_apart() if pickles.by_value(self) else self.__qualname__

        def __copy__(self):
            return self

        def __deepcopy__(self, cache):
            return self

    class BoundFunctionWrapper(wrapt.BoundFunctionWrapper):
        """Compares by function and instance."""

        _self_doc = None

        @property
        def __class__(self):
            return type(self) if pickles.is_asked(self) else self.__wrapped__.__class__

        def _self_bound_to(self):
            return getattr(self.__wrapped__, "__self__", None)

        def __eq__(self, other):
            return (
                type(other) is type(self)
                and other._self_parent is self._self_parent
                and other._self_bound_to() is self._self_bound_to()
            )

        def __ne__(self, other):
            return not self == other

        def __hash__(self):
            return hash((id(self._self_parent), id(self._self_bound_to())))
