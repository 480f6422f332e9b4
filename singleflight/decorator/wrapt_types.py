"""The door to wrapt: proxies that bind as functions do, and what they show of themselves."""

from __future__ import annotations

import sys
import threading
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from . import pickles

__all__ = ["Annotations", "BoundFunctionWrapper", "FunctionWrapper", "wrapt_was_built"]


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


class _Package(ModuleType):
    """The package wrapt, not run before somebody asks it for more than its submodules.

    Run, it imports asyncio, zipfile, email and more, for what is not used here: two thirds of the time that
    importing this library would take. This is the very module that everybody else's `import wrapt` gives.
    """

    def __getattr__(self, name: str) -> Any:
        with _running:  # other threads wait until it has run; whoever comes from within finds what there is
            run = vars(self).pop("_run", None)
            if run is not None:
                own = {key: value for key, value in vars(self).items() if not key.startswith("__")}
                try:
                    run(self)
                except BaseException:
                    self._run = run
                    raise
                vars(self).update(own)  # what others have set meanwhile stays
                object.__setattr__(self, "__class__", ModuleType)
        return ModuleType.__getattribute__(self, name)

    def __dir__(self) -> list[str]:
        return [*vars(self), *self.__all__]


_running = threading.RLock()


def _prepare() -> None:
    """Let the submodules of wrapt be imported without the rest of it, unless it is all there."""
    spec = None if "wrapt" in sys.modules else find_spec("wrapt")
    if spec is not None and spec.loader is not None:
        package = module_from_spec(spec)
        package.__class__, package._run = _Package, spec.loader.exec_module  # type: ignore[attr-defined]
        sys.modules.setdefault("wrapt", package)


if TYPE_CHECKING:

    class FunctionWrapper:
        """What type checkers see instead; the classes below it say the rest."""

        _self_face: Any

        def __init__(self, wrapped: object, wrapper: object) -> None: ...
        def _taken_apart(self) -> tuple[Any, ...]: ...

    class BoundFunctionWrapper:
        """The same, bound."""

    wrapt_was_built: bool
    """Whether wrapt has its C extension; for some builds, such as free-threaded ones, it has no wheel."""

else:
    _prepare()
    from wrapt.__wrapt__ import BoundFunctionWrapper as _BoundWrapper
    from wrapt.__wrapt__ import FunctionWrapper as _Wrapper

    wrapt_was_built = type(_Wrapper) is type  # else its classes are made by a metaclass in Python

    class FunctionWrapper(_Wrapper):
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

        if not wrapt_was_built:

            def __get__(self, instance, owner=None):
                # On Python 3.11 and 3.12 the `__get__` that a bound method shows is its function's.
                binds = hasattr(type(self.__wrapped__), "__get__")
                return super().__get__(instance, owner) if binds else self

    class BoundFunctionWrapper(_BoundWrapper):
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
