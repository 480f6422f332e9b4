"""Bulk calls and single calls that are written alike are one, whatever the parameters are."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleflight import single_flight_ttl

VALUES = st.integers(0, 2)


@st.composite
def pairs(draw):
    """A getter and a loader of the same parameters, compiled, and the loader's names for the getter's.

    The loader brings a value for "X", too. What is given by place alone leaves its name to `**more`.
    """
    count = draw(st.integers(0, 3))
    required = draw(st.integers(0, count))
    defaults = ["" if number < required else f"={draw(VALUES)}" for number in range(count)]
    slash = draw(st.integers(0, count + 1))
    starred, named, extra = draw(st.booleans()), draw(st.integers(0, 2)), draw(st.booleans())
    behind = ["*rest"] if starred else ["*"] if named else []
    behind += [f"k{number}" + ("" if draw(st.booleans()) else f"={draw(VALUES)}") for number in range(named)]
    behind += ["**more"] if extra else []
    made = []
    for item, prefix in ("symbol", "p"), ("symbols", draw(st.sampled_from("pq"))):
        names = [f"{prefix}{number}" for number in range(count)]
        parts = [item, *map("".join, zip(names, defaults, strict=True))]
        if slash:
            parts.insert(slash, "/")
        told = [*names, *(["rest"] if starred else []), *(f"k{n}" for n in range(named))]
        told += ["sorted(more.items())"] if extra else []
        answer = f"[symbol, {', '.join(told)}]"
        if item == "symbols":
            answer = f"{{symbol: {answer} for symbol in [*symbols, 'X']}}"
        namespace = {}
        exec(f"def fetch({', '.join([*parts, *behind])}): return {answer}", namespace)
        made.append(namespace["fetch"])
    return *made, {f"p{number}": f"{prefix}{number}" for number in range(count) if number + 2 > slash}


CALLS = st.tuples(
    st.lists(VALUES, max_size=4).map(tuple),
    st.dictionaries(st.sampled_from(["p0", "p1", "p2", "k0", "k1", "x"]), VALUES, max_size=3),
)


def passing_on(function):
    """A decorator whose wrapper takes anything, and shows the function's parameters."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        return function(*args, **kwargs)

    return run


def outcome(function, *args, **words):
    try:
        return function(*args, **words)
    except TypeError:
        return TypeError


@pytest.mark.parametrize("wrapped", [(), ("getter",), ("loader",), ("getter", "loader")], ids=str)
@given(pair=pairs(), call=CALLS)
@settings(max_examples=80, deadline=None)
def test_what_one_of_them_fetched_the_other_one_finds(wrapped, pair, call):
    """Each gets what it would get undecorated, and nothing is fetched twice."""
    get, load, names = pair
    args, words = call
    renamed = {names.get(name, name): value for name, value in words.items()}
    one = single_flight_ttl(ttl=60)(passing_on(get) if "getter" in wrapped else get)
    many = one.bulk(passing_on(load) if "loader" in wrapped else load)
    expected = outcome(get, "A", *args, **words)
    if expected is TypeError:
        assert outcome(many, ["A"], *args, **renamed) is outcome(one, "A", *args, **words) is TypeError
        return
    loaded = many(["A"], *args, **renamed)
    assert loaded == {"A": expected}
    assert one("A", *args, **words) is loaded["A"]
    value = one("B", *args, **words)
    assert value == get("B", *args, **words)
    assert many(["B"], *args, **renamed)["B"] is value


@pytest.mark.parametrize("wrapped", [(), ("getter",), ("loader",), ("getter", "loader")], ids=str)
@given(pair=pairs(), call=CALLS)
@settings(max_examples=80, deadline=None)
def test_a_gathered_call_gets_what_its_function_returns(wrapped, pair, call):
    """And what comes unasked is found by calls that are written alike."""
    get, load, _ = pair
    args, words = call
    one = single_flight_ttl(ttl=60)(passing_on(get) if "getter" in wrapped else get)
    one.bulk(passing_on(load) if "loader" in wrapped else load, gather=0.0001)
    expected = outcome(get, "A", *args, **words)
    if expected is not TypeError:  # what its function does not take a loader with other names may take
        assert one("A", *args, **words) == expected
        assert one("X", *args, **words) == get("X", *args, **words)
        assert one.stats().calls == 1
