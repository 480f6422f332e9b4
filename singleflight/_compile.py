"""The body of a decorated call, compiled with the function's exact parameters, in its colour.

A hit should cost one look-up, one clock read, one comparison and one mark. Collecting `*args, **kwargs` and
binding them to parameters costs more than all of these, so each function gets calls of its own:
`function` (called plainly), `method` (called on a bound object) and `split` (a call's key and canonical
arguments, for the control surface). The text depends on the parameters alone and is compiled once for
each shape; it can be seen in tracebacks.
"""

from __future__ import annotations

import inspect
import keyword
import linecache
import types
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from typing import Any

from .counts import has_global_lock
from .frames import MARK

__all__ = ["ANY", "CallForms", "can_bind", "parameters_of"]

ANY = inspect.Signature(
    [
        inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]
)
# Names of ours in the compiled text begin with `_sf_`; a function that uses such names itself is called
# through `*args, **kwargs`.
_HIT = """\
    try:
        if _sf_timer() < (_sf_record := _sf_lookup(_sf_key, _sf_absent)).deadline:
            _sf_record.hits += 1.0{count}
            return _sf_record.value
    except _sf_TypeError as _sf_error:
        raise _sf_unhashable(_sf_error, _sf_key, {named}) from None
    return {call}(_sf_memo, {run}, _sf_key, {args}, {kwargs})
"""
_SPLIT = """\
    try:
        _sf_hash(_sf_key)
    except _sf_TypeError as _sf_error:
        raise _sf_unhashable(_sf_error, _sf_key, {named}) from None
    return _sf_key, {args}, {kwargs}
"""
_ARGUMENTS = """\
    return {args}, {kwargs}
"""
# The clock is read first: with nothing between the look-up and the comparison, CPython has less to do. A
# value that was fresh at some moment of the call may be served.
# With a global lock the additions to records are the count of hits: the store's owner sums them up. So
# nothing that lets another thread run (no call, no backward jump) may stand between the comparison with
# `deadline` and the addition: a record that is dropped in between would take a hit with it uncounted.
_COUNT = "" if has_global_lock() else "\n            _sf_counts.hit()"
# Under names of ours: a parameter may be called `sorted`.
# (`nothing` is one empty dictionary for all calls without keyword arguments; nobody writes to it.)
_BUILTINS = {"nothing": {}, "hash": hash, "id": id, "sorted": sorted, "tuple": tuple, "TypeError": TypeError}
_TAKERS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
_Shape = tuple[str, Any, bool]  # a parameter's name and kind, and whether it has a default


def parameters_of(function: Callable[..., Any]) -> inspect.Signature:
    """The parameters to compile for; `*args, **kwargs` where they are unknown or no plain names."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ANY
    for name in signature.parameters:
        if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_sf_"):
            return ANY
    return signature


class CallForms:
    """The compiled calls of one function.

    Args:
        function: gives the calls its name.
        signature: the parameters.
        own_key: whether the key is the user's.
        coroutine: whether the calls are coroutine functions, which await the driver.
        names: what the text refers to: `lookup`, `absent` (what to find where nothing is), `timer`, `counts`
            and `unhashable`; `driver`, `memo`, `run` and `run_bound` for what is not a hit; `make_key` for a
            key of the user's, or `known`, `meet` and `first` for the keys of instances (`meet`: it is one;
            `first`: of a first argument that may be one).
    """

    def __init__(
        self, function: Any, signature: inspect.Signature, own_key: bool, coroutine: bool, **names: Any
    ) -> None:
        self.namespace = {f"_sf_{name}": value for name, value in {**_BUILTINS, **names}.items()}
        self._name = getattr(function, "__name__", type(function).__name__)
        self._qualname = getattr(function, "__qualname__", self._name)
        self._parameters = tuple(signature.parameters.values())
        self._own_key = own_key
        self._coroutine = coroutine

    def function(self, by_instance: bool) -> types.FunctionType:
        """For plain calls; by instance: the first argument may be one."""
        return self._make(_HIT, "first" if by_instance else "", bound=False)

    def method(self) -> types.FunctionType:
        """For calls on a bound object, which is the first argument and whose `__self__` replaces it."""
        return self._make(_HIT, "meet", bound=True)

    def split(self, by_instance: bool, bound: bool) -> types.FunctionType:
        """For the control surface: returns key, args and kwargs of a plain or bound call."""
        return self._make(_SPLIT, "meet" if bound else "first" if by_instance else "", bound=False)

    def arguments(self) -> types.FunctionType:
        """For bulk loaders: returns args and kwargs of a call, in their canonical form."""
        return self._make(_ARGUMENTS, "", bound=False)

    def _make(self, body: str, meet: str, bound: bool) -> types.FunctionType:
        shapes = tuple((p.name, p.kind, p.default is not p.empty) for p in self._parameters)
        waits = self._coroutine and body is _HIT
        code = _code(_text(shapes, body, "" if self._own_key else meet, self._own_key, bound, waits))
        code = code.replace(co_name=self._name, co_qualname=self._qualname)
        named_only = inspect.Parameter.KEYWORD_ONLY
        defaults = tuple(
            p.default for p in self._parameters if p.kind is not named_only and p.default is not p.empty
        )
        made = types.FunctionType(code, self.namespace, self._name, defaults)
        made.__kwdefaults__ = {
            p.name: p.default for p in self._parameters if p.kind is named_only and p.default is not p.empty
        }
        return made


def can_bind(function: Callable[..., Any], signature: inspect.Signature) -> bool:
    """Whether Python binds it to the instances of a class that has it, and there is a parameter for them."""
    first = next(iter(signature.parameters.values()), None)
    takers = (inspect.Parameter.POSITIONAL_ONLY, *_TAKERS)
    return hasattr(type(function), "__get__") and first is not None and first.kind in takers


@lru_cache(maxsize=256)
def _text(shapes: tuple[_Shape, ...], body: str, meet: str, own_key: bool, bound: bool, waits: bool) -> str:
    """The source of one call form for parameters of these names and kinds."""
    kinds = inspect.Parameter
    positional = [
        name for name, kind, _ in shapes if kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    starred = next((name for name, kind, _ in shapes if kind is kinds.VAR_POSITIONAL), None)
    named = [name for name, kind, _ in shapes if kind is kinds.KEYWORD_ONLY]
    extra = next((name for name, kind, _ in shapes if kind is kinds.VAR_KEYWORD), None)

    call = positional + ([f"*{starred}"] if starred else [])
    passed = call + [f"{name}={name}" for name in named] + ([f"**{extra}"] if extra else [])
    # The arguments that are part of the key themselves, as the key has them and as an error names them.
    keyed, told = [*positional, *([starred] if starred else [])], [f"{name!r}: {name}" for name in positional]
    rest = starred
    lines = []
    if bound and positional:
        lines.append(f"    {positional[0]} = {positional[0]}.__self__")
    elif bound:
        lines.append(f"    {starred} = (_sf_bound.__self__, *{starred})")
    if meet and positional:
        lines += _instance_key(positional[0], meet)
        keyed[0] = "_sf_owner"
        del told[0]
    elif meet:  # the instance is the first of `*args`, where there are any
        rest = f"{starred}[1:]"
        lines += ["    _sf_owner = None", f"    if {starred}:"]
        lines += [f"    {line}" for line in _instance_key(f"{starred}[0]", meet)]
        keyed = ["_sf_owner", rest]
    told += [f"'*{starred}': {rest}"] if starred else []
    told += [f"{name!r}: {name}" for name in named] + ([f"**{extra}"] if extra else [])
    if own_key:
        lines.append(f"    _sf_key = _sf_make_key({', '.join(passed)})")
    else:
        parts = keyed + named
        if extra:
            parts.append(f"_sf_tuple(_sf_sorted({extra}.items())) if {extra} else ()")
        lines.append(f"    _sf_key = ({', '.join(parts)}{',' if len(parts) == 1 else ''})")
    words = [f"{name!r}: {name}" for name in named]
    more = [f"**{extra}"] if extra else []
    values = {
        "named": "{" + ", ".join(told) + "}",
        "args": f"({', '.join(call)}{',' if len(call) == 1 else ''})",
        "kwargs": "{" + ", ".join([*words, *more]) + "}" if words or more else "_sf_nothing",
        "count": _COUNT,
        "call": ("await " if waits else "") + "_sf_driver",
        "run": "_sf_run_bound" if bound else "_sf_run",
    }
    first = "_sf_bound, /, " if bound and not positional else ""
    head = f"{'async ' if waits else ''}def call({first}{_header(shapes)}):\n"
    return head + "\n".join(lines) + "\n" + body.format(**values)


def _instance_key(instance: str, meet: str) -> list[str]:
    return [
        f"    _sf_owner = _sf_known.get(_sf_id({instance}))",
        "    if _sf_owner is None:",
        f"        _sf_owner = _sf_{meet}({instance})",
    ]


def _header(shapes: tuple[_Shape, ...]) -> str:
    """The parameter list; a default is written as None and filled in by the function object."""
    kinds = inspect.Parameter
    parts = []
    slash = sum(kind is kinds.POSITIONAL_ONLY for _, kind, _ in shapes)
    star = any(kind is kinds.VAR_POSITIONAL for _, kind, _ in shapes)
    for name, kind, has_default in shapes:
        if kind is kinds.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        stars = {kinds.VAR_POSITIONAL: "*", kinds.VAR_KEYWORD: "**"}.get(kind, "")
        parts.append(f"{stars}{name}{'=None' if has_default else ''}")
    if slash:
        parts.insert(slash, "/")
    return ", ".join(parts)


@lru_cache(maxsize=256)
def _code(text: str) -> types.CodeType:
    filename = f"<singleflight call {next(_numbers)}, {MARK}>"
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    module = compile(text, filename, "exec")
    return next(constant for constant in module.co_consts if isinstance(constant, types.CodeType))


_numbers = count(1)
