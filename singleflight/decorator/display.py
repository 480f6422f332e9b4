"""What decorated functions, their bound methods and loaders show of themselves: `repr`, `dir` and `help`."""

from __future__ import annotations

import inspect
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..common.messages import cut, shown
from ..common.slips import Slip
from .wrapt_types import wrapt_was_built

if TYPE_CHECKING:
    from ..core.cache import Cache

__all__ = ["Documented", "called", "doc_for", "public_names"]


def called(cache: Cache) -> str:
    """Return the name of a function and the options that are not at their defaults; bounded and guarded."""
    # A callable is not asked whether it is true, which may raise.
    key = {name: value for name, value in cache.rule.options().items() if callable(value) or value}
    options = {**cache.options.differing(), **key}
    return f"{cut(cache.name)}({', '.join(f'{name}={shown(value)}' for name, value in options.items())})"


def public_names(kind: type) -> list[str]:
    """Return the public attributes of a class: for a decorated function its controls."""
    return [
        name
        for name in dir(kind)
        if not (name.startswith("_") or isinstance(inspect.getattr_static(kind, name, None), Slip))
    ]


def doc_for(asker: FrameType, doc: str | None, cache: Cache, kind: type) -> str | None:
    """Return a docstring; where `help` asks, followed by options and controls.

    The asker's frame is one of pydoc then, or from Python 3.15 on one of `inspect` that pydoc has called.
    """
    frame: FrameType | None = asker
    while frame is not None and frame.f_globals.get("__name__") == "inspect":
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__") != "pydoc":
        return doc
    import textwrap  # for few

    controls = textwrap.fill(f"Controls: {', '.join(public_names(kind))}", 80, subsequent_indent="    ")
    note = f"Single flight: {called(cache)}\n\n{controls}"
    return f"{inspect.cleandoc(doc)}\n\n{note}" if doc else note


class Documented:
    """The `__doc__` of a proxy: its function's, until it is given another one.

    It is for the class of each instance, since `type` gives every class a `__doc__` of its own.
    """

    def __init__(self, own: str | None) -> None:
        self.own = own

    if not wrapt_was_built:  # its metaclass keeps a class's own one elsewhere

        def __set_name__(self, owner: Any, name: str) -> None:
            owner.__doc__ = self.own

    def __get__(self, instance: Any, owner: Any = None) -> str | None:
        if instance is None:
            return self.own
        given = instance._self_doc
        doc = instance.__wrapped__.__doc__ if given is None else given[0]
        return doc_for(sys._getframe(1), doc, instance._self_shared(), type(instance))

    def __set__(self, instance: Any, value: Any) -> None:
        instance._self_doc = (value,)
