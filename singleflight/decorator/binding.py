"""Compiled parameter lists, and what a call is called where its parameters are only a guess.

A `Binder` says which parameters the arguments of a call stand for, or that they do not fit. It never runs the
function, and what it finds is for keys alone: the call itself gets its arguments as they came.
"""

from __future__ import annotations

import inspect
import linecache
import types
import weakref
from collections.abc import Callable, Collection, Hashable, Mapping
from functools import lru_cache
from itertools import count
from typing import Any

from ..common.frames import MARK
from ..common.keys import InstanceKey, check_room
from .parameters import Parameters

__all__ = ["Binder", "Shape", "code_of", "header", "shapes_of", "with_defaults"]

Shape = tuple[str, Any, bool]  # a parameter's name and kind, and whether it has a default
_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


_LEFT_OUT = object()  # stands in a compiled parameter list for what has no default


class Binder:
    """What calls mean by parameters that a callable shows, but may not have.

    Args:
        parameters: those that it shows.
        own_key: whether the key is the user's.

    Where parameters are uncertain, two calls that differ must not become one. A wrapper that puts an argument
    in front moves all others by a place: then `page(9, 50)` may mean a limit of 50, and `page(9, 50, 100)` an
    offset of 100 too, though the parameters shown say that 50 is an offset and 100 the limit's default. So
    where a default that is given by place may have moved (`repeats`), the key goes by the spelling.
    """

    def __init__(self, parameters: Parameters, own_key: bool) -> None:
        self._signature = signature = parameters.signature
        shown = signature.parameters.values()
        shapes = shapes_of(signature)
        placed = [p for p in shown if p.kind in _PLACED]
        by_name = bool(placed) and placed[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.first: str | None = placed[0].name if by_name else None  # if the first may be given so
        self.bind: Callable[..., Any] = _compiled(signature, shapes, own_key)
        self._length = self._owned_length = len(shapes)
        self.bind_owned: Callable[..., Any] = self.bind
        if not placed:  # the instance is the first of `*args`, and has a place of its own in the key
            owner = inspect.Parameter("_sf_owner", inspect.Parameter.POSITIONAL_ONLY)
            owned = inspect.Signature([owner, *shown])
            self.bind_owned = self._bind_collected
            self._bind_instance: Callable[..., Any] = _compiled(owned, shapes_of(owned))
            self._owned_length += 1
        starred = any(p.kind is p.VAR_POSITIONAL for p in shown)
        optional = [p for p in placed if p.default is not p.empty]
        self.least: int = len(placed) - len(optional)
        self.guarded: bool = not parameters.certain and len(optional) > (0 if starred else 1)
        self._defaults = [_alone(p.default) for p in placed]
        # What follows in the key after so many arguments given by place: such calls need not be bound.
        named = [p for p in shown if p.kind is p.KEYWORD_ONLY]
        self.most: int = -1
        self.tails: tuple[tuple[Any, ...], ...] = ()
        if placed and not starred and all(p.default is not p.empty for p in named):
            self.most = self.least if self.guarded else len(placed)
            words = ((),) if any(p.kind is p.VAR_KEYWORD for p in shown) else ()
            given = [p.default for p in (*placed, *named)]
            behind = given[len(placed) :]
            self.tails = tuple(
                (*given[count : len(placed)], *behind, *words) for count in range(len(placed) + 1)
            )

    def _bind_collected(self, *args: Any, **kwargs: Any) -> Any:
        return (self._bind_instance if _has_instance(args) else self.bind)(*args, **kwargs)

    def repeats(self, args: tuple[Any, ...]) -> bool:
        """Return True if the last argument given by place is what stands there by default."""
        place = len(args) - 1
        if place >= len(self._defaults):
            return False
        defaults = self._defaults[place]
        try:
            return args[place] in defaults
        except Exception as error:  # it cannot be hashed, so it cannot be part of a key either
            check_room(error)
            return False

    def spell(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """The key of a call by its spelling; no key by parameters has this length."""
        return _spelt((args,), kwargs, self._length)

    def spell_owned(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable:
        """The same where the first argument may stand for an instance, which is to come first then."""
        owner = args[0] if args else kwargs.get(self.first)  # type: ignore[arg-type]
        if type(owner) is not InstanceKey:
            return self.spell(args, kwargs)
        return _spelt((owner, args[1:]), kwargs, self._owned_length)

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call under the names that an error tells."""
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError:
            return {"*args": args, **kwargs}
        bound.apply_defaults()
        told = {}
        for name, value in bound.arguments.items():
            kind = self._signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                told.update(value)
            else:
                told[f"*{name}" if kind is inspect.Parameter.VAR_POSITIONAL else name] = value
        return told


def shapes_of(signature: inspect.Signature) -> tuple[Shape, ...]:
    """What a text is compiled for."""
    return tuple((p.name, p.kind, p.default is not p.empty) for p in signature.parameters.values())


def header(shapes: Collection[Shape]) -> str:
    """The parameter list, without the defaults, which the function object fills in."""
    kinds = inspect.Parameter
    parts = []
    slash = sum(kind is kinds.POSITIONAL_ONLY for _, kind, _ in shapes)
    star = any(kind is kinds.VAR_POSITIONAL for _, kind, _ in shapes)
    for name, kind, _ in shapes:
        if kind is kinds.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        stars = {kinds.VAR_POSITIONAL: "*", kinds.VAR_KEYWORD: "**"}.get(kind, "")
        parts.append(stars + name)
    if slash:
        parts.insert(slash, "/")
    return ", ".join(parts)


def with_defaults(made: types.FunctionType, parameters: Any, required: Any = inspect.Parameter.empty) -> None:
    """Give a compiled function the defaults of its parameters."""
    placed, named = [], {}
    for parameter in parameters:
        value = required if parameter.default is parameter.empty else parameter.default
        if value is parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        else:
            placed.append(value)
    made.__defaults__ = tuple(placed)
    made.__kwdefaults__ = named


@lru_cache(maxsize=256)
def code_of(text: str) -> types.CodeType:
    """The compiled function of a text, which tracebacks can show as long as it is kept here."""
    filename = f"<singleflight call {next(_numbers)}, {MARK}>"
    module = compile(text, filename, "exec")
    code = next(constant for constant in module.co_consts if isinstance(constant, types.CodeType))
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    gone = weakref.finalize(code, linecache.cache.pop, filename, None)
    gone.atexit = False
    return code


_numbers = count(1)


def _spelt(parts: tuple[Any, ...], kwargs: Mapping[str, Any], length: int) -> Hashable:
    key = (*parts, tuple(sorted(kwargs.items())))
    return (*key, ()) if len(key) == length else key


def _has_instance(args: tuple[Any, ...]) -> bool:
    """Return True if the first argument stands for an instance; keys of other calls have no place for it."""
    return bool(args) and type(args[0]) is InstanceKey


def _alone(default: Any) -> frozenset[Any]:
    """What equals a default; nothing does where it cannot be hashed."""
    try:
        return frozenset((default,))
    except Exception:  # of whatever kind: a writable memoryview raises ValueError
        return frozenset()


def _compiled(
    signature: inspect.Signature, shapes: tuple[Shape, ...], own_key: bool = False
) -> types.FunctionType:
    code = code_of(_text(shapes, own_key)).replace()  # a copy: the first goes with its lines
    made = types.FunctionType(code, {"_sf_left_out": _LEFT_OUT, "_sf_tuple": tuple, "_sf_sorted": sorted})
    with_defaults(made, signature.parameters.values(), _LEFT_OUT)
    return made


@lru_cache(maxsize=256)
def _text(shapes: tuple[Shape, ...], own_key: bool) -> str:
    """The source of a binder: it returns None for arguments that do not fit.

    An error costs a microsecond to make, so it takes whatever comes and looks for what is missing or too
    much. Only an argument given twice is Python's to find.
    """
    kinds = inspect.Parameter
    placed = [name for name, kind, _ in shapes if kind in _PLACED]
    named = [name for name, kind, _ in shapes if kind is kinds.KEYWORD_ONLY]
    starred = next((name for name, kind, _ in shapes if kind is kinds.VAR_POSITIONAL), None)
    extra = next((name for name, kind, _ in shapes if kind is kinds.VAR_KEYWORD), None)
    unfit = [
        f"{name} is _sf_left_out"
        for name, kind, given in shapes
        if not given and kind not in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
    ]
    taken = list(shapes)
    if starred is None:
        taken.insert(len(placed), ("_sf_rest", kinds.VAR_POSITIONAL, False))
        unfit.append("_sf_rest")
    if extra is None:
        taken.append(("_sf_extra", kinds.VAR_KEYWORD, False))
        unfit.append("_sf_extra")
    if own_key:
        call = placed + ([f"*{starred}"] if starred else [])
        words = [f"{name!r}: {name}" for name in named] + ([f"**{extra}"] if extra else [])
        answer = f"({_tuple(call)}, {{{', '.join(words)}}})"
    else:
        parts = [*placed, *([starred] if starred else []), *named]
        if extra:
            parts.append(f"_sf_tuple(_sf_sorted({extra}.items())) if {extra} else ()")
        answer = _tuple(parts)
    lines = [f"def bind({header(taken)}):"]
    if unfit:
        lines += [f"    if {' or '.join(unfit)}:", "        return None"]
    return "\n".join([*lines, f"    return {answer}"]) + "\n"


def _tuple(parts: list[str]) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
