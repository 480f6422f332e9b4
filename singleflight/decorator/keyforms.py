"""Which calls are the same: the options `key`, `ignore` and `typed`, checked, and what becomes of them.

A `KeyRule` is what a user asked for. With a function's parameters it makes a `KeyForm`, which says how the
compiled calls make their keys. The names in it are those of parameters, with identifiers after a dot, so the
texts that are compiled from them (`callforms`) can hold nothing else.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

from ..common.keys import EACH, LONE, InstanceKey, typed
from ..common.messages import shown
from ..common.slips import meant_by_parameter
from ..core.functions import refuse_coroutine_functions
from .parameters import ANY, Parameters, shown_signature

__all__ = ["KeyForm", "KeyRule"]

_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class KeyForm(NamedTuple):
    """How the calls of one function make their keys.

    Args:
        own: a callable of the user's makes it.
        names: what it is made of, with attributes after a dot; None: of the arguments.
        lone: it is the one thing that is named, and no tuple.
        left_out: the arguments that are no part of it.
        owned: an instance that the function is called on stands first, by identity.
        typed: the types of its parts are a part of it.
        stars: which parts are collected by `*args` or `**kwargs`, counted from the end.
    """

    own: bool = False
    names: tuple[str, ...] | None = None
    lone: bool = False
    left_out: frozenset[str] = frozenset()
    owned: bool = True
    typed: bool = False
    stars: tuple[tuple[int, Any], ...] = ()

    @property
    def by_name(self) -> bool:
        """Return True if it needs what the parameters are called."""
        return self.names is not None or bool(self.left_out)

    def parts(self, key: Any) -> dict[str, Any]:
        """The parts of a key under the names that it is made of."""
        names = self.names or ()
        parts = (key,) if self.lone and not _has_owner(key) else key
        return dict(zip(names, parts[len(parts) - len(names) :], strict=True))

    def typing(self) -> Callable[[Any], Hashable]:
        """Return what adds the types to a key: those of arguments, not of what is in them."""
        if self.own:
            return typed
        stars = dict(self.stars)

        def typed_lone(key: Any) -> Hashable:
            if _has_owner(key):
                return typed_parts(key)
            return key, _types_in(key, stars[-1]) if stars else type(key), LONE

        def typed_parts(key: Any) -> Hashable:
            types: list[Any] = list(map(type, key))
            for place, kind in stars.items():
                types[place] = _types_in(key[place], kind)
            return *key, *types, EACH

        return typed_lone if self.lone else typed_parts if stars else _typed_each

    def filing(self) -> Callable[[Any], Hashable]:
        """Return the same for keys that users name a lock by: any, also those that no call has."""
        typing, whole = self.typing(), self.own or self.lone

        def filed(key: Any) -> Any:
            try:
                return typing(key) if whole or type(key) is tuple else key
            except (TypeError, ValueError, IndexError):
                return key

        return filed


class KeyRule(NamedTuple):
    """The options `key`, `ignore` and `typed`, as they were given and checked."""

    key: Any
    ignore: tuple[str, ...]
    typed: bool
    names: tuple[str, ...] | None

    @classmethod
    def checked(cls, key: Any, ignore: Any, typed: Any) -> KeyRule:
        """The options, or a `TypeError` or `ValueError` that names the one that is wrong."""
        if not isinstance(typed, bool):
            raise TypeError(f"typed: expected True or False, got {shown(typed)}")
        ignored = _names("ignore", ignore, dotted=False)
        if key is None or callable(key):
            refuse_coroutine_functions(key=key)
            names = None
        elif isinstance(key, (str, tuple)):
            names = _names("key", key, dotted=True)
            if not names:
                raise ValueError("key: expected at least one name of a parameter, got ()")
        else:
            raise TypeError(
                f"key: expected a callable of the arguments, the name of a parameter or a tuple of names, "
                f"got {shown(key)}"
            )
        if key is not None and ignored:
            raise TypeError("ignore: it is what the default key leaves out, so it cannot go with key=")
        return cls(key, ignored, typed, names)

    @property
    def own(self) -> bool:
        """Return True if a callable makes the keys."""
        return callable(self.key)

    def options(self) -> dict[str, Any]:
        """What was asked for, by the names of the options."""
        return {"key": self.key, "ignore": self.ignore, "typed": self.typed}

    def form(self, function: str, parameters: Parameters, is_twin: bool = False) -> KeyForm:
        """How this function's calls make their keys; a `TypeError` or `ValueError` if they cannot.

        A twin need not have what is left out.
        """
        if self.own:
            return KeyForm(own=True, owned=False, typed=self.typed)
        signature = parameters.signature
        known = signature.parameters
        first = next(iter(known.values()), None)
        named, left_out = self.names, frozenset(self.ignore)
        if named is None and not left_out:
            return KeyForm(typed=self.typed, stars=_stars(known, list(known)))
        if signature is ANY:
            raise TypeError(
                f"{'key' if named else 'ignore'}: the parameters of {function} are not known, so none can be "
                f"named; pass a callable, as in key=lambda *args, **kwargs: args[0]"
            )
        for name in named or () if is_twin else named or self.ignore:
            _check_known(name, "key" if named else "ignore", function, signature)
        roots = [name.partition(".")[0] for name in named or ()]
        return KeyForm(
            names=named,
            lone=isinstance(self.key, str),
            left_out=left_out.intersection(known),
            owned=first is None or first.kind not in _PLACED or first.name not in {*roots, *left_out},
            typed=self.typed,
            stars=_stars(known, [name for name in known if name not in left_out] if named is None else roots),
        )


def _names(option: str, given: Any, dotted: bool) -> tuple[str, ...]:
    """The names, each of them one that a parameter can have; perhaps with attributes after dots."""
    if not isinstance(given, Iterable) or isinstance(given, (bytes, bytearray)):
        raise TypeError(f"{option}: expected a parameter's name or several, got {shown(given)}")
    names = []
    for name in (given,) if isinstance(given, str) else tuple(given):
        if not isinstance(name, str):
            raise TypeError(f"{option}: expected names of parameters, got {shown(name)}")
        name = str.__str__(name)  # of a subclass, too
        parts = name.split(".")
        if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
            raise ValueError(f"{option}: {shown(name)} is not the name of a parameter")
        if len(parts) > 1 and not dotted:
            raise ValueError(f"{option}: {shown(name)} is an attribute; only whole arguments can be left out")
        if any(part.startswith("__") for part in parts[1:]):
            raise ValueError(f"{option}: {shown(name)} names an attribute that is private to its class")
        if name in names:
            raise ValueError(f"{option}: {shown(name)} is there twice")
        names.append(name)
    return tuple(names)


def _check_known(name: str, option: str, function: str, signature: inspect.Signature) -> None:
    known = signature.parameters
    root, dot, _ = name.partition(".")
    if root not in known:
        meant = meant_by_parameter(root, list(known))
        raise ValueError(f"{option}: {function}{shown_signature(signature)} has no parameter {root!r}{meant}")
    if dot and known[root].kind in _OPEN:
        raise ValueError(f"{option}: {root!r} collects arguments, so {name!r} is no attribute of one")


def _stars(known: Any, parts: list[str]) -> tuple[tuple[int, Any], ...]:
    """Which of these parts are collected by `*args` or `**kwargs`: in a key, `**kwargs` comes last."""
    kinds = [known[name].kind for name in parts]
    return tuple((place - len(parts), kind) for place, kind in enumerate(kinds) if kind in _OPEN)


def _has_owner(key: Any) -> bool:
    """Return True if a key of one name has the instance in front of it."""
    return type(key) is tuple and len(key) == 2 and type(key[0]) is InstanceKey


def _types_in(collected: Any, kind: Any) -> Hashable:
    """The types of what `*args` or `**kwargs` collected."""
    if kind is inspect.Parameter.VAR_KEYWORD:
        return tuple(type(value) for _, value in collected)
    return tuple(map(type, collected))


def _typed_each(key: Any) -> Hashable:
    return *key, *map(type, key), EACH
