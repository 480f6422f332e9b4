"""Keys by name, without some arguments, and by type: against keys made by hand of bound calls."""

import functools
import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleflight import single_flight_ttl

KINDS = inspect.Parameter
VALUES = st.sampled_from([0, 0.0, False, 1, 1.0, True, "a", None, (1,), (1.0,)])


@st.composite
def signatures(draw):
    """Parameters of every kind in a legal order, with defaults or without."""
    made, optional = [], False
    names = iter("abcdefgh")
    for kind in (KINDS.POSITIONAL_ONLY, KINDS.POSITIONAL_OR_KEYWORD):
        for _ in range(draw(st.integers(0, 2))):
            optional = optional or draw(st.booleans())
            default = draw(VALUES) if optional else KINDS.empty
            made.append(KINDS(next(names), kind, default=default))
    if draw(st.booleans()):
        made.append(KINDS("args", KINDS.VAR_POSITIONAL))
    for _ in range(draw(st.integers(0, 2))):
        default = draw(VALUES) if draw(st.booleans()) else KINDS.empty
        made.append(KINDS(next(names), KINDS.KEYWORD_ONLY, default=default))
    if draw(st.booleans()):
        made.append(KINDS("kwargs", KINDS.VAR_KEYWORD))
    return inspect.Signature(made)


def function_of(signature, loose):
    """A function of these parameters that returns what it was called with; or a wrapper that shows them."""

    def answer(*args, **kwargs):
        return object()

    namespace = {"_answer": answer}
    names = [p.name for p in signature.parameters.values()]
    defaults = {f"_{p.name}": p.default for p in signature.parameters.values()}
    bare = [
        p if p.default is p.empty else p.replace(default=_Name(f"_{p.name}"))
        for p in signature.parameters.values()
    ]
    exec(
        f"def f{inspect.Signature(bare)}: return _answer({', '.join(names)})",
        {**namespace, **defaults},
        namespace,
    )
    function = namespace["f"]
    return functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs)) if loose else function


class _Name(str):
    __slots__ = ()

    def __repr__(self):
        return str(self)


@st.composite
def calls(draw, signature):
    """A call that the parameters take: by position and keyword, with arguments left out or given."""
    args, kwargs, by_place = [], {}, True
    for p in signature.parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            args += draw(st.lists(VALUES, max_size=2)) if by_place else []
        elif p.kind is p.VAR_KEYWORD:
            kwargs |= draw(st.dictionaries(st.sampled_from(["x", "y"]), VALUES, max_size=2))
        elif p.default is p.empty or draw(st.booleans()):
            if p.kind is p.POSITIONAL_ONLY or (
                p.kind is p.POSITIONAL_OR_KEYWORD and by_place and draw(st.booleans())
            ):
                if not by_place:
                    continue
                args.append(draw(VALUES))
            else:
                by_place = False
                kwargs[p.name] = draw(VALUES)
        else:
            by_place = False
    return args, kwargs


def parts(signature, call, named):
    """The named arguments of a call, as a key has them: defaults filled in, `**kwargs` sorted."""
    bound = signature.bind(*call[0], **call[1])
    bound.apply_defaults()
    found = []
    for name in named:
        value = bound.arguments[name]
        if signature.parameters[name].kind is KINDS.VAR_KEYWORD:
            value = tuple(sorted(value.items(), key=lambda item: item[0]))
        found.append((signature.parameters[name].kind, value))
    return found


def types(kind, value):
    if kind is KINDS.VAR_POSITIONAL:
        return tuple(map(type, value))
    return tuple(type(each) for _, each in value) if kind is KINDS.VAR_KEYWORD else type(value)


@pytest.mark.parametrize("loose", [False, True])
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_calls_are_one_if_their_keys_by_hand_are_equal(loose, data):
    """Calls of any function are one exactly if what is named, or not ignored, is equal, and typed alike."""
    signature = data.draw(signatures())
    names = list(signature.parameters)
    typed = data.draw(st.booleans())
    chosen = data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    way = data.draw(st.sampled_from(["names", "name", "ignore"])) if chosen else "ignore"
    if way == "ignore":
        options, named = {"ignore": chosen}, [name for name in names if name not in chosen]
    elif way == "name":
        options, named = {"key": chosen[0]}, chosen[:1]
    else:
        options, named = {"key": tuple(chosen)}, chosen
    loose = loose and bool(chosen)  # without names a wrapper's calls may go by their spelling
    function = single_flight_ttl(ttl=60, typed=typed, **options)(function_of(signature, loose))
    seen = {}
    for call in data.draw(st.lists(calls(signature), max_size=6)):
        found = parts(signature, call, named)
        values = tuple(value for _, value in found)
        key = values, tuple(types(*each) for each in found) if typed else ()
        value = function(*call[0], **call[1])
        assert seen.setdefault(key, value) is value
        shown = function.entry(*call[0], **call[1]).key
        assert shown == (values[0] if way == "name" else values)
    assert function.stats().entries == len(seen)
