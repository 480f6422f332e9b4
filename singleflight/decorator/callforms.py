"""The body of a decorated call, compiled with the function's exact parameters, in its colour.

A hit should cost one look-up, one clock read, one comparison and one mark. Collecting `*args, **kwargs` and
binding them to parameters costs more than all of these, so each function gets calls of its own:
`function` (called plainly), `method` (called on a bound object) and `split` (a call's key and canonical
arguments, for the control surface). The text depends on the parameters alone and is compiled once for
each shape; it can be seen in tracebacks.

That is for functions whose parameters are known for certain. A wrapper (`functools.wraps`), a proxy or a
callable of C shows parameters that may not be those it takes, and it may treat what was left out in its own
way. Such a call takes `*args, **kwargs`, which are handed on as they came; the parameters shown make the key
alone, and where the arguments do not fit them, the key goes by their spelling.
"""

from __future__ import annotations

import builtins
import inspect
import sys
import types
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from ..common.keys import typed_throughout
from ..telemetry.counters import has_global_lock
from .binding import Binder, Shape, code_of, header, shapes_of, with_defaults
from .keyforms import KeyForm
from .parameters import ANY, Parameters

__all__ = ["CallForms", "can_bind"]

# Names of ours in the compiled text begin with `_sf_`; a function that uses such names itself is called
# through `*args, **kwargs`.
_HIT = """\
    try:
        if _sf_timer() < (_sf_record := _sf_lookup(_sf_key, _sf_absent)).deadline:
            _sf_record.hits += 1.0{count}
            return _sf_record.value
    except _sf_TypeError as _sf_error:
        raise _sf_unhashable(_sf_error, _sf_key, {named}) from None
    return {call}(_sf_cache, {run}, _sf_key, {args}, {kwargs})
"""
# The same where `_hits` was built: `find` does all that without a call of Python's.
_FOUND = """\
    try:
        if (_sf_value := _sf_find(_sf_key)) is not _sf_nowhere:
            return _sf_value
    except _sf_TypeError as _sf_error:
        raise _sf_unhashable(_sf_error, _sf_key, {named}) from None
    return {call}(_sf_cache, {run}, _sf_key, {args}, {kwargs})
"""
# And where the key is arguments and attributes alone (`keyparts`): `seek` makes it, too.
_SEEK = """\
    if (_sf_value := _sf_seek({args})) is not _sf_nowhere:
        return _sf_value"""
# With `copy`: what that raises is its own, so it is called outside the guard around the key's hash.
_COPIED_HIT = """\
    try:
        if _sf_timer() < (_sf_record := _sf_lookup(_sf_key, _sf_absent)).deadline:
            _sf_record.hits += 1.0{count}
        else:
            _sf_record = None
    except _sf_TypeError as _sf_error:
        raise _sf_unhashable(_sf_error, _sf_key, {named}) from None
    if _sf_record is None:
        return {call}(_sf_cache, {run}, _sf_key, {args}, {kwargs})
    return _sf_copy(_sf_record.value)
"""
# Where the policy of the store is to know of each hit (and with `copy`, too).
_TOLD_HIT = _COPIED_HIT.replace("_sf_copy(_sf_record.value)", "_sf_told(_sf_record)")
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
_KEY = """\
    return _sf_key
"""
# A call whose parameters are a guess: what is handed on is what came. `_sf_spelt` is that, with what stands
# for the instance in its place; only an argument given twice raises in `_sf_bind`.
_LOOSE_KEY = """\
    try:
        {meant} = {guard}{bind}(*{spelt}, **{words}) if {words} else {bind}(*{spelt})
    except _sf_TypeError:
        {meant} = None
"""
_BY_PLACE = """\
    if not {words} and {least} <= _sf_len({spelt}) <= {most}:
        _sf_key = {typed}{spelt} + _sf_tails[_sf_len({spelt})]{end}
    else:
"""
_SPELL = """\
    if _sf_key is None:
        _sf_key = _sf_spell{owned}({spelt}, {words})
"""
_TYPE = """\
    else:
        _sf_key = _sf_typed(_sf_key)
"""
_ASK = """\
    if _sf_given is None:
        _sf_key = {make}(*args, **kwargs){end}
    else:
        _sf_key = {make}(*_sf_given[0], **_sf_given[1]){end}
"""
# The clock is read first: with nothing between the look-up and the comparison, CPython has less to do. A
# value that was fresh at some moment of the call may be served.
# With a global lock the additions to records are the count of hits: the store's owner sums them up. So
# nothing that lets another thread run (no call, no backward jump) may stand between the comparison with
# `deadline` and the addition: a record that is dropped in between would take a hit with it uncounted.
_COUNT = "" if has_global_lock() else "\n            _sf_counts.hit()"
# Under names of ours: a parameter may be called `sorted`.
# (`nothing` is one empty dictionary for all calls without keyword arguments; nobody writes to it.)
_BUILTINS = {
    "nothing": {},
    "hash": hash,
    "id": id,
    "len": len,
    "sorted": sorted,
    "tuple": tuple,
    "TypeError": TypeError,
}
_TAKERS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


class CallForms:
    """The compiled calls of one function.

    Args:
        function: gives the calls its name.
        parameters: what it takes, or is thought to take.
        form: how the key is made.
        coroutine: whether the calls are coroutine functions, which await the driver.
        names: what the text refers to: `lookup`, `absent` (what to find where nothing is), `timer`, `counts`
            and `unhashable`; `driver`, `cache`, `run` and `run_bound` for what is not a hit; `make_key` for a
            key of the user's, or `known`, `meet`, `first` and `instance` for the keys of instances (`meet`:
            it is one; `first`: of a first argument that may be one; `instance`: the same, None if it is
            none); `typed` for keys that tell types apart; `copy` and `told`, which hits go through; `find`,
            `seek` and `nowhere`, where hits are served in C.
    """

    namespace: dict[str, Any]

    def __init__(
        self, function: Any, parameters: Parameters, form: KeyForm, coroutine: bool, **names: Any
    ) -> None:
        self.namespace = {f"_sf_{name}": value for name, value in {**_BUILTINS, **names}.items()}
        # C functions that import (a key's, a timer's) ask the globals of the frame below them for these.
        self.namespace["__builtins__"] = builtins.__dict__
        self._name = getattr(function, "__name__", type(function).__name__)
        self._qualname = getattr(function, "__qualname__", self._name)
        self._parameters = tuple(parameters.signature.parameters.values())
        self._shapes = shapes_of(parameters.signature)
        self._form = form
        self._coroutine = coroutine
        told, copied = names.get("told") is not None, names.get("copy") is not None
        self._hit = _FOUND if "find" in names else _TOLD_HIT if told else _COPIED_HIT if copied else _HIT
        self._binder: Binder | None = None
        if not (parameters.exact or parameters.signature is ANY):
            self._binder = binder = Binder(parameters, form.own or form.by_name)
            self.namespace["_sf_bind"] = binder.bind
            self.namespace["_sf_bind_owned"] = binder.bind_owned
            self.namespace["_sf_repeats"] = binder.repeats
            self.namespace["_sf_named"] = binder.named
            self.namespace["_sf_tails"] = binder.tails
            for spell in (binder.spell, binder.spell_owned):
                self.namespace[f"_sf_{spell.__name__}"] = _typing(spell) if form.typed else spell

    def function(self, by_instance: bool, seeks: bool = False) -> types.FunctionType:
        """For plain calls; by instance: the first argument may be one; seeks: `seek` is asked first."""
        return self._make(self._hit, "first" if by_instance else "", seeks=seeks)

    def method(self) -> types.FunctionType:
        """For calls on a bound object, which is the first argument and whose `__self__` replaces it."""
        return self._make(self._hit, "meet", bound=True)

    def split(self, by_instance: bool, bound: bool) -> types.FunctionType:
        """For the control surface: returns key, args and kwargs of a plain or bound call."""
        return self._make(_SPLIT, "meet" if bound else "first" if by_instance else "")

    def arguments(self) -> types.FunctionType:
        """For bulk loaders: returns args and kwargs of a call, in their canonical form."""
        return self._make(_ARGUMENTS)

    def _make(
        self, body: str, meet: str = "", bound: bool = False, seeks: bool = False
    ) -> types.FunctionType:
        waits = self._coroutine and body is self._hit
        meet = meet if self._form.owned else ""
        if self._binder is not None:
            return self._compiled(self._loose(self._binder, body, meet, bound, waits))
        return self._exact(_text(self._shapes, body, meet, self._form, bound, waits, seeks))

    def _compiled(self, text: str) -> types.FunctionType:
        code = code_of(text).replace(co_name=self._name, co_qualname=self._qualname)
        return types.FunctionType(code, self.namespace)

    def _exact(self, text: str) -> types.FunctionType:
        made = self._compiled(text)
        with_defaults(made, self._parameters)
        return made

    def _loose(self, binder: Binder, body: str, meet: str, bound: bool, waits: bool) -> str:
        """The source of a call form that hands on what it is given."""
        guard, form, make, named = "", self._form, "_sf_make_key", "_sf_named"
        if form.by_name:  # a function makes the key that has the parameters shown
            make += f"_{meet}"
            self.namespace[make] = self._exact(_text(self._shapes, _KEY, meet, form))
            if meet:
                named += f"_{meet}"
                self.namespace[named] = partial(_named, binder, self.namespace[f"_sf_{meet}"])
            meet = ""
        if binder.guarded:
            spelt = "_sf_spelt" if meet else "args"
            guard = f"None if _sf_len({spelt}) > {binder.least} and _sf_repeats({spelt}) else "
        places = binder.least, binder.most
        asked = make if form.own or form.by_name else ""
        typed = form.typed and not form.by_name
        return _loose_text(body, meet, asked, typed, bound, waits, binder.first, guard, places, named)


def _named(binder: Binder, owner: Callable[[Any], Any], args: tuple[Any, ...], kwargs: Any) -> dict[str, Any]:
    """The arguments of a call as an error names them: of an instance, what stands for it."""
    if args:
        args = (owner(args[0]), *args[1:])
    elif binder.first in kwargs:
        kwargs = {**kwargs, binder.first: owner(kwargs[binder.first])}
    return binder.named(args, kwargs)


def can_bind(function: Callable[..., Any], parameters: Parameters) -> bool:
    """Return True if Python binds it to the instances of a class, and it has a parameter for them."""
    if not hasattr(type(function), "__get__"):
        return False
    if type(function) is partial and sys.version_info < (3, 14):
        return False  # it binds nothing yet, though on 3.13 it has a `__get__`, which warns
    if type(function) is types.FunctionType:
        return bool(function.__code__.co_argcount or function.__code__.co_flags & inspect.CO_VARARGS)
    if not parameters.certain:
        return True
    first = next(iter(parameters.signature.parameters.values()), None)
    return first is not None and first.kind in (inspect.Parameter.POSITIONAL_ONLY, *_TAKERS)


@lru_cache(maxsize=256)
def _text(
    shapes: tuple[Shape, ...],
    body: str,
    meet: str,
    form: KeyForm,
    bound: bool = False,
    waits: bool = False,
    seeks: bool = False,
) -> str:
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
    # What the key has of each argument.
    keyed = {name: name for name, _, _ in shapes}
    if extra:
        keyed[extra] = f"_sf_tuple(_sf_sorted({extra}.items())) if {extra} else ()"
    # By default what may be an instance has the place of one; not so by name, nor where `*args` collects it.
    unsure = meet == "first" and (form.names is not None or not positional)
    of_instance = "instance" if unsure else meet
    plainly, owned = keyed.copy(), bool(meet) and not positional
    lines = [_SEEK.format(args=", ".join([*positional, *named]))] if seeks else []
    if bound and positional:
        lines.append(f"    {positional[0]} = {positional[0]}.__self__")
    elif bound:
        lines.append(f"    {starred} = (_sf_bound.__self__, *{starred})")
    if meet and positional:
        lines += _instance_key(positional[0], of_instance)
        keyed[positional[0]] = "_sf_owner"
    elif meet:  # the instance is the first of `*args`, where there are any
        lines.append("    _sf_owner = None")
        if starred:
            lines.append(f"    if {starred}:")
            lines += [f"    {line}" for line in _instance_key(f"{starred}[0]", of_instance)]
            keyed[starred] = f"{starred}[1:]"
    if form.own:
        key = f"_sf_make_key({', '.join(passed)})"
    elif form.names is None:
        key = _by_default(form, keyed, owned)
    else:
        key = _by_name(form, keyed, bool(meet))
    if unsure:
        make = _by_default if form.names is None else _by_name
        key += f" if _sf_owner else {make(form, plainly, False)}"
    lines.append(f"    _sf_key = _sf_typed({key})" if form.typed else f"    _sf_key = {key}")
    # The arguments as an error names them: of an instance, what stands for it.
    told = [f"{name!r}: {keyed[name]}" for name in positional]
    if starred:
        plain = f" if _sf_owner else {starred}" if unsure else ""
        told.append(f"'*{starred}': {keyed[starred]}{plain}")
    told += [f"{name!r}: {name}" for name in named]
    told += [f"**{extra}"] if extra and extra not in form.left_out else []
    words = [f"{name!r}: {name}" for name in named]
    more = [f"**{extra}"] if extra else []
    values = {
        "named": "{" + ", ".join(told) + "}",
        "args": _tuple(call),
        "kwargs": "{" + ", ".join([*words, *more]) + "}" if words or more else "_sf_nothing",
        "count": _COUNT,
        "call": ("await " if waits else "") + "_sf_driver",
        "run": "_sf_run_bound" if bound else "_sf_run",
    }
    first = "_sf_bound, /, " if bound and not positional else ""
    head = f"{'async ' if waits else ''}def call({first}{header(shapes)}):\n"
    return head + "\n".join(lines) + "\n" + body.format(**values)


def _by_default(form: KeyForm, keyed: dict[str, str], owned: bool) -> str:
    """The key of what is not left out, the instance in front of it if it has no other place."""
    owner = ["_sf_owner"] if owned else []
    return _tuple([*owner, *(part for name, part in keyed.items() if name not in form.left_out)])


def _by_name(form: KeyForm, keyed: dict[str, str], owned: bool) -> str:
    """The key of what is named, the instance in front of it where there is one."""
    parts = ["_sf_owner"] if owned else []
    for name in form.names or ():
        root, dot, path = name.partition(".")
        parts.append(keyed[root] + dot + path)
    return f"({parts[0]})" if form.lone and not owned else _tuple(parts)


def _tuple(parts: list[str]) -> str:
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def _typing(spell: Callable[..., Any]) -> Callable[..., Any]:
    return lambda args, kwargs: typed_throughout(spell(args, kwargs))


def _instance_key(instance: str, meet: str) -> list[str]:
    return [
        f"    _sf_owner = _sf_known.get(_sf_id({instance}))",
        "    if _sf_owner is None:",
        f"        _sf_owner = _sf_{meet}({instance})",
    ]


@lru_cache(maxsize=256)
def _loose_text(
    body: str,
    meet: str,
    make: str,
    typed: bool,
    bound: bool,
    waits: bool,
    first: str | None,
    guard: str,
    places: tuple[int, int],
    named: str,
) -> str:
    """The source of one call form for a callable that may take anything."""
    spelt, words, given, lines = "args", "kwargs", "args", []
    if bound and meet:
        spelt, given = "_sf_spelt", "(_sf_self, *args)"
        lines += ["    _sf_self = _sf_bound.__self__", *_instance_key("_sf_self", meet)]
        lines.append("    _sf_spelt = (_sf_owner, *args)")
    elif bound:
        lines.append("    args = (_sf_bound.__self__, *args)")
    elif meet:
        spelt = "_sf_spelt"
        lines += ["    _sf_spelt = args", "    if args:"]
        lines += [f"    {line}" for line in _instance_key("args[0]", meet)]
        lines.append("        _sf_spelt = (_sf_owner, *args[1:])")
        if first is not None:  # the instance may be given by name
            words = "_sf_words"
            met = f"{{**kwargs, {first!r}: _sf_{meet}(kwargs[{first!r}])}}"
            lines += ["    _sf_words = kwargs", f"    if not args and {first!r} in kwargs:"]
            lines.append(f"        _sf_words = {met}")
    meant = "_sf_given" if make else "_sf_key"
    call, end = ("_sf_typed(", ")") if typed else ("", "")
    bind = "_sf_bind_owned" if meet else "_sf_bind"
    made = _LOOSE_KEY.format(meant=meant, guard=guard, bind=bind, spelt=spelt, words=words)
    if make:
        made += _ASK.format(make=call + make, end=end)
    else:
        made += _SPELL.format(owned="_owned" if meet else "", spelt=spelt, words=words)
        made += _TYPE if typed else ""
    if not make and places[1] >= 0:
        by_place = _BY_PLACE.format(
            least=places[0], most=places[1], spelt=spelt, words=words, typed=call, end=end
        )
        made = by_place + "".join(f"    {line}\n" for line in made.splitlines())
    values = {
        "named": f"{named}({spelt}, {words})",
        "args": given,
        "kwargs": "kwargs",
        "count": _COUNT,
        "call": ("await " if waits else "") + "_sf_driver",
        "run": "_sf_run_bound" if bound else "_sf_run",
    }
    head = f"{'async ' if waits else ''}def call({'_sf_bound, /, ' if bound else ''}*args, **kwargs):\n"
    return head + "".join(f"{line}\n" for line in lines) + made + body.format(**values)
