"""Checks at decoration: does a function's signature fit its key, its twin and its loader?"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from typing import Any

from ..common.errors import UnhashableKey
from ..common.keys import plain
from ..common.messages import shown
from .keyforms import KeyForm
from .parameters import ANY, Parameters, names_by_place, shown_signature, signature_of

__all__ = [
    "check_key_function",
    "check_loader",
    "explain_unhashable",
    "have_equal_keys",
    "refuse_twin",
    "takes_any_number",
]


def explain_unhashable(
    error: TypeError,
    function: str,
    key: Hashable,
    arguments: Mapping[str, Any],
    form: KeyForm,
    defaults: Mapping[str, Any] | None = None,
) -> UnhashableKey | TypeError:
    """The error to raise when a key could not be looked up: the argument's name if hashing was the cause."""
    if form.own:
        try:
            hash(key)
        except TypeError:
            return UnhashableKey(f"{function}: the result of key= cannot be hashed: {shown(key)}")
        return error
    if form.names is not None:
        arguments = form.parts(plain(key))
    for name, value in _each(arguments):
        if name.lstrip("*").partition("[")[0] in form.left_out:
            continue
        try:
            hash(value)
        except TypeError:
            kind = type(value).__name__
            if defaults and defaults.get(name) is value:
                return UnhashableKey(
                    f"{function}: argument {name!r} was left out, and its default cannot be hashed ({kind}), "
                    f"so it cannot be part of the key; give it a default that can (None, a tuple), or pass "
                    f"key= to say what makes two calls the same"
                )
            if form.names is not None:
                return UnhashableKey(f"{function}: {name!r}, which key= names, cannot be hashed ({kind})")
            return UnhashableKey(
                f"{function}: argument {name!r} cannot be hashed ({kind}), so it cannot be "
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


def check_key_function(key: Callable[..., Hashable], function: str, parameters: Parameters) -> bool:
    """Return True if a `key` can take the function's arguments, defaults filled in; refused where it should.

    What a wrapper shows may not be what it takes (it may put an argument in front that callers never give),
    so there a key that does not fit gets the arguments as they come.
    """
    accepts, signature = signature_of(key), parameters.signature
    if accepts is None:
        return True  # a builtin that does not say what it takes
    positional: list[str] = []
    named: dict[str, None] = {}
    bind = accepts.bind
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            positional.append(parameter.name)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            named[parameter.name] = None
        else:
            bind = accepts.bind_partial  # there may be more in a call
    try:
        bind(*positional, **named)
    except TypeError as error:
        if not parameters.certain:
            return False
        raise TypeError(
            f"key: it is called with all arguments of {function}{shown_signature(signature)}, defaults "
            f"filled in, but takes {shown_signature(accepts)}: {error}"
        ) from None
    return parameters.certain or _agree(_shape(accepts)[0], positional)


def takes_any_number(key: Callable[..., Hashable]) -> bool:
    """Return True if a `key` has `*args`."""
    accepts = signature_of(key)
    return accepts is not None and _shape(accepts)[1]


def have_equal_keys(
    signature: inspect.Signature, other: inspect.Signature, ignored: Collection[str] = ()
) -> bool:
    """Return True if two functions of these parameters have the same default keys, some arguments ignored.

    Values have their place in a key by the position of their parameter, whatever that is called; where a
    name is used in both, it must have the same place.
    """
    places, others = _places(signature, ignored), _places(other, ignored)
    if [kind for kind, _ in places] != [kind for kind, _ in others]:
        return False
    return _agree(
        [name if kind == "value" else "" for kind, name in places],
        [name if kind == "value" else "" for kind, name in others],
    )


def refuse_twin(
    function: str,
    signature: inspect.Signature,
    first: str,
    other: inspect.Signature,
    names: tuple[str, ...] | None,
) -> None:
    """Raise `TypeError` for a twin whose keys, by default or by these names, are not those of the first."""
    if names is not None:
        raise TypeError(
            f"twin: {function}{shown_signature(signature)} and {first}{shown_signature(other)} need the same "
            f"parameters for {', '.join(names)}, which key= names, and both an instance or neither"
        )
    raise TypeError(
        f"twin: {function}{shown_signature(signature)} has other parameters than "
        f"{first}{shown_signature(other)}, so equal calls would not have equal keys; give it the same ones "
        f"in the same order, or pass key= to {first}"
    )


def check_loader(
    function: str, parameters: Parameters, getter: str, others: Parameters, of_instance: bool
) -> bool:
    """Return True if a bulk loader's arguments are its getter's, place by place; else refused.

    Where either is a wrapper whose parameters may be others than it shows, its calls decide.
    """
    signature, other = parameters.signature, others.signature
    if signature is ANY or other is ANY:
        return False
    (ones, *rest), (theirs, *other_rest) = _shape(signature), _shape(other)
    least = 2 if of_instance else 1
    if parameters.certain and (not signature.parameters or (len(ones) < least and not rest[0])):
        raise TypeError(
            f"bulk: {function}{shown_signature(signature)} has too few parameters: none is left for the items"
        )
    if len(ones) == len(theirs) and rest == other_rest and _agree(ones, theirs):
        return True
    if not (parameters.certain and others.certain):
        return False
    raise TypeError(
        f"bulk: {function}{shown_signature(signature)} has other parameters than "
        f"{getter}{shown_signature(other)}; give it the same ones in the same order, the first one after the "
        f"instance being the items"
    )


def _agree(names: list[str], others: list[str]) -> bool:
    """Return True if a name that is in both has the same place."""
    places = {name: place for place, name in enumerate(names) if name}
    return all(places.get(name, place) == place for place, name in enumerate(others) if name)


def _shape(signature: inspect.Signature) -> tuple[list[str], bool, frozenset[str], bool]:
    """The names of positional parameters; whether there are `*args`; keyword-only names; `**kwargs`."""
    parameters = signature.parameters.values()
    return (
        names_by_place(signature),
        any(p.kind is p.VAR_POSITIONAL for p in parameters),
        frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY),
        any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def _places(signature: inspect.Signature, ignored: Collection[str]) -> list[tuple[str, str]]:
    """The parts of a default key, in order: what kind of part, and the parameter's name."""
    parameters = [p for p in signature.parameters.values() if p.name not in ignored]
    ones = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parts = [("value", p.name) for p in parameters if p.kind in ones]
    parts += [("rest", "") for p in parameters if p.kind is p.VAR_POSITIONAL]
    parts += [("value", p.name) for p in parameters if p.kind is p.KEYWORD_ONLY]
    return parts + [("extra", "") for p in parameters if p.kind is p.VAR_KEYWORD]
