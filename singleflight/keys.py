"""How the arguments of a call become its key, and what stands for an instance in it."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from .errors import UnhashableKey
from .messages import shown

__all__ = [
    "InstanceKey",
    "Instances",
    "check_key_function",
    "check_loader",
    "check_twin",
    "explain_unhashable",
]


class InstanceKey(weakref.ref[Any]):
    """Stands for one instance in a default key: equal to itself alone, and does not keep it alive.

    Calling it returns the instance, or None once that is gone. It needs neither `__hash__` nor `__eq__`
    of the instance, and since it is never re-used, neither is what was stored under it.
    """

    __slots__ = ("identity",)
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__
    identity: int

    def __repr__(self) -> str:
        instance = self()
        if instance is None:
            return f"<instance at {self.identity:#x}, gone>"
        return f"<{type(instance).__name__} at {self.identity:#x}>"


class Instances:
    """The instance keys of one function: one for each instance alive that it was called on.

    `known` maps `id(instance)` to its key. The weak reference's callback takes the key out before the
    interpreter can use the same id again, so a look-up never meets another object's key.

    Args:
        gone: called with the key of an instance that has died; runs wherever the collector happens to
            run, so it must not wait for anything.
    """

    __slots__ = ("_gone", "known")

    def __init__(self, gone: Callable[[InstanceKey], None]) -> None:
        # Single operations of a dict only, so that no lock is needed, and none is possible in a callback.
        self.known: dict[int, InstanceKey] = {}
        self._gone = gone

    def meet(self, instance: Any) -> InstanceKey:
        """The key of an instance seen for the first time (or, in a race, the one made first)."""
        try:
            key = InstanceKey(instance, self._forget)
        except TypeError:
            kind = type(instance)
            # Only a class made in Python that has slots could have one more; not those whose instances vary
            # in size, as subclasses of int, bytes and tuple.
            able = "__slots__" in vars(kind) and kind.__itemsize__ == 0
            way_out = "add '__weakref__' to its __slots__ or pass key=" if able else "pass key="
            raise UnhashableKey(
                f"self: a {kind.__name__} cannot be weakly referenced, so the default key cannot tell its "
                f"instances apart without keeping them alive; {way_out}"
            ) from None
        key.identity = id(instance)
        return self.known.setdefault(key.identity, key)

    def _forget(self, key: InstanceKey) -> None:
        if self.known.get(key.identity) is key:
            del self.known[key.identity]
        self._gone(key)


def explain_unhashable(
    error: TypeError, function: str, key: Hashable, arguments: Mapping[str, Any], own_key: bool
) -> UnhashableKey | TypeError:
    """The error to raise when a key could not be looked up: the argument's name if hashing was the cause."""
    if own_key:
        try:
            hash(key)
        except TypeError:
            return UnhashableKey(f"{function}: the result of key= cannot be hashed: {shown(key)}")
        return error
    for name, value in _each(arguments):
        try:
            hash(value)
        except TypeError:
            return UnhashableKey(
                f"{function}: argument {name!r} cannot be hashed ({type(value).__name__}), so it cannot be "
                f"part of the key; pass key= to say what makes two calls the same"
            )
    return error


def _each(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names and values; those collected by `*args` one by one."""
    for name, value in arguments.items():
        if name.startswith("*"):
            yield from ((f"{name}[{place}]", each) for place, each in enumerate(value))
        else:
            yield name, value


def check_key_function(key: Callable[..., Hashable], function: str, signature: inspect.Signature) -> None:
    """Refuse a `key` that cannot take the function's arguments, at decoration instead of at each call."""
    try:
        accepts = inspect.signature(key)
    except (TypeError, ValueError):
        return  # a builtin that does not say what it takes
    positional: list[None] = []
    named: dict[str, None] = {}
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            positional.append(None)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = None
    try:
        accepts.bind(*positional, **named)
    except TypeError as error:
        raise TypeError(
            f"key: it is called with all arguments of {function}{signature}, defaults filled in, "
            f"but takes {accepts}: {error}"
        ) from None


def check_twin(function: str, signature: inspect.Signature, first: str, other: inspect.Signature) -> None:
    """Refuse a twin whose default keys would not be those of the first, at decoration.

    Values have their place in a key by the position of their parameter, whatever that is called; where a
    name is used in both, it must have the same place.
    """
    places, others = _places(signature), _places(other)
    names = {name: place for place, (kind, name) in enumerate(places) if kind == "value"}
    if [kind for kind, _ in places] == [kind for kind, _ in others] and all(
        names.get(name, place) == place for place, (_, name) in enumerate(others)
    ):
        return
    raise TypeError(
        f"twin: {function}{signature} has other parameters than {first}{other}, so equal calls would not "
        f"have equal keys; give it the same ones in the same order, or pass key= to {first}"
    )


def check_loader(
    function: str,
    signature: inspect.Signature,
    getter: str,
    other: inspect.Signature,
    of_instance: bool,
) -> None:
    """Refuse a bulk loader whose arguments are not those of its getter, place by place, at decoration."""
    (ones, *rest), (others, *other_rest) = _shape(signature), _shape(other)
    least = 2 if of_instance else 1
    if not signature.parameters or (len(ones) < least and not rest[0]):
        raise TypeError(f"bulk: {function}{signature} has too few parameters: none is left for the items")
    named = {name: place for place, name in enumerate(ones)}
    if (
        len(ones) != len(others)
        or rest != other_rest
        or any(named.get(name, place) != place for place, name in enumerate(others))
    ):
        raise TypeError(
            f"bulk: {function}{signature} has other parameters than {getter}{other}; give it the same ones "
            f"in the same order, the first one after the instance being the items"
        )


def _shape(signature: inspect.Signature) -> tuple[list[str], bool, frozenset[str], bool]:
    """The names of positional parameters; whether there are `*args`; keyword-only names; `**kwargs`."""
    parameters = signature.parameters.values()
    return (
        [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)],
        any(p.kind is p.VAR_POSITIONAL for p in parameters),
        frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY),
        any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def _places(signature: inspect.Signature) -> list[tuple[str, str]]:
    """The parts of a default key, in order: what kind of part, and the parameter's name."""
    parameters = signature.parameters.values()
    ones = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parts = [("value", p.name) for p in parameters if p.kind in ones]
    parts += [("rest", "") for p in parameters if p.kind is p.VAR_POSITIONAL]
    parts += [("value", p.name) for p in parameters if p.kind is p.KEYWORD_ONLY]
    return parts + [("extra", "") for p in parameters if p.kind is p.VAR_KEYWORD]
