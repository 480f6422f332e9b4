"""Calls that mean the same have the same key, whatever the parameters look like."""

import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleflight import UnhashableKey, single_flight_ttl
from singleflight.common.keys import Instances

NAMES = ("a", "b", "key", "cls", "call", "args", "hash", "id", "value")
VALUES = st.integers(0, 3) | st.text(max_size=2) | st.none() | st.tuples(st.integers(0, 1))
KINDS = inspect.Parameter


@st.composite
def functions(draw):
    """A function with a random signature that returns its own arguments as Python bound them."""
    names = draw(st.lists(st.sampled_from(NAMES), max_size=5, unique=True))
    kinds = sorted(
        draw(st.sampled_from([KINDS.POSITIONAL_ONLY, KINDS.POSITIONAL_OR_KEYWORD, KINDS.KEYWORD_ONLY]))
        for _ in names
    )
    parameters, optional = [], False
    for name, kind in zip(names, kinds, strict=True):
        has_default = draw(st.booleans())
        if kind is not KINDS.KEYWORD_ONLY:
            optional = has_default = has_default or optional
        default = draw(VALUES) if has_default else KINDS.empty
        parameters.append(KINDS(name, kind, default=default))
    if draw(st.booleans()):
        first_named = next((n for n, k in enumerate(kinds) if k is KINDS.KEYWORD_ONLY), len(parameters))
        parameters.insert(first_named, KINDS("rest", KINDS.VAR_POSITIONAL))
    if draw(st.booleans()):
        parameters.append(KINDS("more", KINDS.VAR_KEYWORD))
    signature = inspect.Signature(parameters)

    def fetch(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    fetch.__signature__ = signature
    return signature, single_flight_ttl(ttl=60)(fetch)


@st.composite
def calls(draw, signature):
    """Arguments that the signature takes, written in a random way."""
    args, kwargs, named = [], {}, False
    parameters = list(signature.parameters.values())
    for parameter in parameters:
        optional = parameter.default is not KINDS.empty
        if parameter.kind is KINDS.VAR_POSITIONAL:
            if not named:
                args += draw(st.lists(VALUES, max_size=2))
        elif parameter.kind is KINDS.VAR_KEYWORD:
            kwargs |= draw(st.dictionaries(st.sampled_from(["x", "y", "z"]), VALUES))
        elif optional and draw(st.booleans()):
            named = named or parameter.kind is not KINDS.KEYWORD_ONLY
        elif parameter.kind is KINDS.KEYWORD_ONLY:
            kwargs[parameter.name] = draw(VALUES)
        elif parameter.kind is KINDS.POSITIONAL_ONLY and named:
            continue
        elif parameter.kind is KINDS.POSITIONAL_ONLY or (not named and draw(st.booleans())):
            args.append(draw(VALUES))
        else:
            named = True
            kwargs[parameter.name] = draw(VALUES)
    return tuple(args), dict(draw(st.permutations(list(kwargs.items()))))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_calls_have_one_key_exactly_when_python_binds_them_alike(data):
    """Two calls are one call if, and only if, the function would see equal arguments."""
    signature, fetch = data.draw(functions())
    first, second = data.draw(calls(signature)), data.draw(calls(signature))
    seen = []
    for args, kwargs in (first, second):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        seen.append(bound.arguments)
    alike = seen[0] == seen[1]
    keys = [fetch.explain(*args, **kwargs).key for args, kwargs in (first, second)]
    assert (keys[0] == keys[1]) == alike
    assert fetch(*first[0], **first[1]) == seen[0]
    assert fetch(*second[0], **second[1]) == seen[1]
    assert fetch.stats().calls == (1 if alike else 2)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_naming_every_argument_changes_nothing(data):
    """A call that names what it can, defaults filled in, is the same call."""
    signature, fetch = data.draw(functions())
    args, kwargs = data.draw(calls(signature))
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    before = fetch.explain(*args, **kwargs).key
    assert fetch.explain(*bound.args, **bound.kwargs).key == before
    if not any(kind.kind is KINDS.VAR_POSITIONAL for kind in signature.parameters.values()):
        positional, named = [], {}
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if kind is KINDS.POSITIONAL_ONLY:
                positional.append(value)
            elif kind is KINDS.VAR_KEYWORD:
                named |= value
            else:
                named[name] = value
        reversed_names = dict(reversed(named.items()))
        assert fetch.explain(*positional, **reversed_names).key == before


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_twin_has_the_same_keys_whatever_its_colour(data):
    """For every signature, and under other names for what is positional."""
    signature, fetch = data.draw(functions())

    async def other(*args, **kwargs):
        raise AssertionError("never called")

    renamed = [
        each.replace(name=f"other_{each.name}") if each.kind is KINDS.POSITIONAL_ONLY else each
        for each in signature.parameters.values()
    ]
    other.__signature__ = signature.replace(parameters=renamed)
    twin = fetch.twin(other)
    args, kwargs = data.draw(calls(signature))
    assert twin.explain(*args, **kwargs).key == fetch.explain(*args, **kwargs).key


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_method_has_the_same_keys_bound_and_unbound(data):
    """For every signature, the instance first by name or as the first of `*args`."""
    signature, _ = data.draw(functions())
    parameters = list(signature.parameters.values())
    starred = bool(parameters) and parameters[0].kind is KINDS.VAR_POSITIONAL
    kind = KINDS.POSITIONAL_OR_KEYWORD
    if any(each.kind is KINDS.POSITIONAL_ONLY for each in parameters):
        kind = KINDS.POSITIONAL_ONLY

    def method(*args, **kwargs):
        return args, kwargs

    instance = KINDS("self", kind)
    method.__signature__ = signature.replace(parameters=parameters if starred else [instance, *parameters])

    class Owner:
        fetch = single_flight_ttl(ttl=60)(method)

    owner = Owner()
    args, kwargs = data.draw(calls(signature))
    key = owner.fetch.explain(*args, **kwargs).key
    assert Owner.fetch.explain(owner, *args, **kwargs).key == key
    assert key[0]() is owner
    value = owner.fetch(*args, **kwargs)
    assert value[0][0] is owner
    assert Owner.fetch(owner, *args, **kwargs) is value


@pytest.mark.parametrize("name", ["tuple", "sorted", "TypeError"])
def test_parameters_may_be_called_as_builtins_are(name):
    """A parameter that hides a builtin hides it from nobody but the function."""
    namespace = {}
    exec(f"def fetch({name}=1, **more): return {name}, more", namespace)
    fetch = single_flight_ttl(ttl=60)(namespace["fetch"])
    assert fetch(5, x=1) == (5, {"x": 1})
    assert fetch(x=1) == (1, {"x": 1})


@pytest.mark.parametrize("name", ["tuple", "sorted", "TypeError", "hash", "id"])
def test_an_unhashable_argument_of_any_name_is_named(name):
    """The error says which argument it was, also where its name is that of a builtin."""
    namespace = {}
    exec(f"def fetch({name}): return 1", namespace)
    fetch = single_flight_ttl(ttl=60)(namespace["fetch"])
    with pytest.raises(UnhashableKey, match=f"'{name}'"):
        fetch([])


class Thing:
    pass


def test_an_instance_has_one_key_while_it_lives():
    """Meeting an instance again gives the key that was made first."""
    instances, thing = Instances(lambda key: None), Thing()
    assert instances.meet(thing) is instances.meet(thing)
    assert instances.meet(thing)() is thing


def test_a_dead_instance_is_told_once_and_forgotten():
    """When an instance goes, its key is handed to the callback and no longer known."""
    gone = []
    instances, thing = Instances(gone.append), Thing()
    key = instances.meet(thing)
    del thing
    assert gone == [key]
    assert not instances.known
    assert "gone" in repr(key)


def test_keys_of_instances_are_equal_to_themselves_alone():
    """Neither equal instances nor dead ones have equal keys."""

    class Equal:
        def __eq__(self, other):
            return True

        def __hash__(self):
            return 1

    instances, one, two = Instances(lambda key: None), Equal(), Equal()
    first, second = instances.meet(one), instances.meet(two)
    assert first != second
    assert first == instances.meet(one)
    del one, two
    assert first != second


@pytest.mark.parametrize("control", ["invalidate", "entry", "explain", "refresh"])
def test_controls_take_a_parameter_called_self_by_name(control):
    """Whatever a call can be written as, the control surface takes too."""

    @single_flight_ttl(ttl=60)
    def fetch(*, self):
        return self

    assert fetch(self=1) == 1
    getattr(fetch, control)(self=1)
