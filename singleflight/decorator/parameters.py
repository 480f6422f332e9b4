"""Which parameters a callable takes, found without evaluating an annotation or importing anything.

`inspect.signature` follows `__wrapped__`, so of a wrapper it tells what the innermost function takes. What is
called is the outermost one. Where that says itself what it takes, that counts; where it takes anything
(`*args, **kwargs`), the inner names are what its callers most probably mean, and no more than that: it may
put an argument in front, provide one, or drop one.
"""

from __future__ import annotations

import inspect
import keyword
import sys
import types
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from ..common.messages import shown

__all__ = [
    "ANY",
    "UNKNOWN",
    "Parameters",
    "names_by_place",
    "parameters_of",
    "places_by_name",
    "shown_signature",
    "signature_of",
]

ANY = inspect.Signature(
    [
        inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]
)
_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_DEEPEST = 100  # wrappers around one another
# From Python 3.14 on annotations are evaluated when they are asked for; as text they are not.
_AS_TEXT: dict[str, Any] = {}
if sys.version_info >= (3, 14):
    _AS_TEXT["annotation_format"] = import_module("annotationlib").Format.STRING


class Parameters(NamedTuple):
    """What is known of a callable's parameters.

    Args:
        signature: names, kinds and defaults, without annotations where they would have to be evaluated.
        exact: Python itself binds them, so that to give a default and to leave it out are the same.
        certain: it takes no calls but these; else they are a guess at what a call means.
    """

    signature: inspect.Signature
    exact: bool
    certain: bool


UNKNOWN = Parameters(ANY, exact=False, certain=False)


def names_by_place(signature: inspect.Signature) -> list[str]:
    """Return the names of the parameters to which arguments go by their place, but for `*args`."""
    return [parameter.name for parameter in signature.parameters.values() if parameter.kind in _PLACED]


def places_by_name(signature: inspect.Signature) -> dict[str, int]:
    """Return the places of the parameters that may be given by name as well."""
    shown = enumerate(signature.parameters.values())
    return {p.name: place for place, p in shown if p.kind is p.POSITIONAL_OR_KEYWORD}


def parameters_of(function: Any) -> Parameters:
    """The parameters that calls are compiled for; `UNKNOWN` where they are no plain names."""
    found = _found(function, 0)
    for name in found.signature.parameters:
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_sf_"):
            return UNKNOWN
    return found


def signature_of(function: Any) -> inspect.Signature | None:
    """What a callable says of its parameters; None where it says nothing."""
    signature = _found(function, 0).signature
    return None if signature is ANY else signature


def shown_signature(signature: inspect.Signature) -> str:
    """A signature as text, its defaults guarded and bounded."""
    return str(
        inspect.Signature(
            [
                p.replace(
                    annotation=p.empty, default=p.default if p.default is p.empty else _Text(shown(p.default))
                )
                for p in signature.parameters.values()
            ]
        )
    )


class _Text(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _found(function: Any, depth: int) -> Parameters:
    if depth > _DEEPEST:
        return UNKNOWN
    kind = type(function)
    below = _attribute(function, "__wrapped__")
    declared = _attribute(function, "__signature__")
    if isinstance(declared, inspect.Signature) and declared is not _attribute(below, "__signature__"):
        return Parameters(declared, exact=False, certain=True)
    if kind is types.FunctionType:
        own = inspect.signature(_bare(function))
        return _of_function(own, None if below is None else _found(below, depth + 1))
    if kind is types.MethodType:
        return _applied(
            _found(function.__func__, depth + 1), lambda stub: types.MethodType(stub, function.__self__)
        )
    if issubclass(kind, partial):
        return _applied(
            _found(function.func, depth + 1), lambda stub: partial(stub, *function.args, **function.keywords)
        )
    if callable(below) or isinstance(below, (classmethod, staticmethod)):
        return Parameters(_found(below, depth + 1).signature, exact=False, certain=False)
    maker = _maker(function) if issubclass(kind, type) else getattr(kind, "__call__", None)  # noqa: B004
    if type(maker) is types.FunctionType:
        return _applied(_found(maker, depth + 1), lambda stub: types.MethodType(stub, function))
    try:
        return Parameters(inspect.signature(function, **_AS_TEXT), exact=False, certain=False)
    except Exception:  # of whatever kind: it does not say
        return UNKNOWN


def _attribute(function: Any, name: str) -> Any:
    """An attribute, or None; a proxy may raise anything where there is nothing behind it."""
    try:
        return getattr(function, name, None)
    except Exception:
        return None


def _bare(function: types.FunctionType) -> types.FunctionType:
    """The function without its annotations."""
    bare = types.FunctionType(
        function.__code__, {}, function.__name__, function.__defaults__, function.__closure__
    )
    bare.__kwdefaults__ = function.__kwdefaults__
    return bare


def _maker(kind: type) -> Any:
    """The function that takes the arguments when a class is called; None where that is not plain."""
    if type(kind).__call__ is not type.__call__:
        return None
    new: Any = kind.__new__
    init: Any = kind.__init__  # type: ignore[misc]
    if new is object.__new__:
        return init
    return new if init is object.__init__ else None


def _applied(found: Parameters, apply: Any) -> Parameters:
    """What is left of the parameters when some of the arguments are given already."""

    def stub(*args: Any, **kwargs: Any) -> None:
        pass

    stub.__signature__ = found.signature  # type: ignore[attr-defined]
    try:
        return Parameters(inspect.signature(apply(stub)), found.exact, found.certain)
    except (TypeError, ValueError):
        return UNKNOWN


def _of_function(own: inspect.Signature, below: Parameters | None) -> Parameters:
    """A function's parameters: its own, and where they take anything, those of what it wraps."""
    exact = Parameters(own, exact=True, certain=True)
    if below is None or not any(p.kind in _OPEN for p in own.parameters.values()):
        return exact
    try:
        merged = _merged(own, below.signature)
    except ValueError:  # parameters that cannot stand in this order
        return exact
    if merged is None or merged == own:
        return exact
    return Parameters(merged, exact=False, certain=False)


def _is_private(parameter: inspect.Parameter) -> bool:
    """Return True if callers are not to give it: a wrapper keeps something of its own in the default.

    beartype does so, with objects that cannot be hashed. A call that gives it nevertheless does not fit, so
    its key goes by the spelling.
    """
    return parameter.name.startswith("_") and parameter.default is not parameter.empty


def _merged(own: inspect.Signature, inner: inspect.Signature) -> inspect.Signature | None:
    """A wrapper's parameters, with those below in place of its stars; None where they contradict."""
    kinds = inspect.Parameter
    ours, theirs = list(own.parameters.values()), list(inner.parameters.values())
    placed = [p for p in ours if p.kind in _PLACED]
    others = [p for p in theirs if p.kind in _PLACED]
    if [p.name for p in placed] != [p.name for p in others[: len(placed)]]:
        return None
    known = {p.name for p in theirs}
    named = [p for p in ours if p.kind is kinds.KEYWORD_ONLY and (p.name in known or not _is_private(p))]
    taken = {p.name for p in named}
    rest = [p for p in others[len(placed) :] if p.name not in taken]
    starred = any(p.kind is kinds.VAR_POSITIONAL for p in ours)
    extra = any(p.kind is kinds.VAR_KEYWORD for p in ours)
    made = [*placed]
    if starred:
        made += rest + [p for p in theirs if p.kind is kinds.VAR_POSITIONAL]
    else:
        made += [p.replace(kind=kinds.KEYWORD_ONLY) for p in rest]
    made += named
    if extra:
        made += [p for p in theirs if p.kind is kinds.KEYWORD_ONLY and p.name not in taken]
        made += [p for p in theirs if p.kind is kinds.VAR_KEYWORD]
    return inspect.Signature(made)
