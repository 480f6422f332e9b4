"""What decorating finds out about a function, and what it leaves alone."""

import functools
import gc
import inspect
import linecache
import pickle
import subprocess
import sys
import textwrap
import time
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleflight import UnhashableKey, single_flight_ttl

from ..builds import collects_classes

KINDS = inspect.Parameter
NEW = sys.version_info >= (3, 14)
VALUES = st.integers(0, 2)


# -- every signature, every spelling ----------------------------------------


@st.composite
def functions(draw):
    """A function of up to five parameters, compiled, that returns what it received."""
    placed = draw(st.integers(0, 3))
    slash = draw(st.integers(0, placed))
    required = draw(st.integers(0, placed))
    parts, names = [], []
    for number in range(placed):
        names.append(f"p{number}")
        parts.append(f"p{number}" if number < required else f"p{number}={draw(VALUES)}")
        if number + 1 == slash:
            parts.append("/")
    if draw(st.booleans()):
        parts.append("*rest")
        names.append("rest")
    named = draw(st.integers(0, 2))
    if named and "rest" not in names:
        parts.append("*")
    for number in range(named):
        names.append(f"k{number}")
        parts.append(f"k{number}" if draw(st.booleans()) else f"k{number}={draw(VALUES)}")
    if draw(st.booleans()):
        parts.append("**more")
        names.append("more")
    namespace = {}
    exec(f"def fetch({', '.join(parts)}): return [{', '.join(names)}]", namespace)
    return namespace["fetch"]


CALLS = st.tuples(
    st.lists(VALUES, max_size=4).map(tuple),
    st.dictionaries(st.sampled_from(["p0", "p1", "p2", "k0", "k1", "x"]), VALUES, max_size=3),
)


def outcome(function, args, kwargs):
    """What it returns, or that it does not take this."""
    try:
        return function(*args, **kwargs)
    except TypeError:
        return TypeError


def shown(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def moving(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function("in front", *args, **kwargs)

    return wrapper


def dropping(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args[1:], **kwargs)

    return wrapper


def appending(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, "behind", **kwargs)

    return wrapper


@pytest.mark.parametrize("decorator", [lambda f: f, shown, moving, dropping, appending])
@given(functions(), st.lists(CALLS, min_size=1, max_size=6))
@settings(max_examples=80, deadline=None)
def test_every_call_gets_what_it_would_get_undecorated(decorator, function, calls):
    """Whatever is below, whatever was asked before; what the function does not take is not stored."""
    plain, fetch = decorator(function), single_flight_ttl(ttl=60, maxsize=None)(decorator(function))
    for args, kwargs in calls + calls:
        right = outcome(plain, args, kwargs)
        if right is not TypeError:
            assert outcome(fetch, args, kwargs) == right


@given(functions(), CALLS, CALLS)
@settings(max_examples=150, deadline=None)
def test_calls_that_mean_the_same_are_one(function, first, second):
    """For plain functions and below a wrapper alike, except where a default is given by place."""
    signature = inspect.signature(function)
    received = [outcome(function, *call) for call in (first, second)]
    if TypeError in received:
        return
    alike = received[0] == received[1]
    for decorator in (lambda f: f, shown):
        fetch = single_flight_ttl(ttl=60)(decorator(function))
        keys = [fetch.explain(*args, **kwargs).key for args, kwargs in (first, second)]
        by_place = decorator is shown and any(
            value == list(signature.parameters.values())[place].default
            for args, _ in (first, second)
            for place, value in enumerate(args[:3])
            if place < len(signature.parameters)
        )
        assert (keys[0] == keys[1]) == alike or (alike and by_place)


def test_a_keyword_that_a_wrapper_takes_itself_is_named_once():
    """A wrapper and what it wraps may both name it: the calls that mean the same still have one key."""
    calls = []

    def fetch(text, *, limit=1, start=0):
        calls.append((text, limit, start))
        return text

    @functools.wraps(fetch)
    def wrapper(*args, limit=2, **kwargs):
        return fetch(*args, limit=limit, **kwargs)

    get = single_flight_ttl(ttl=60)(wrapper)
    assert [get("a"), get(text="a"), get("a", limit=2), get("a", start=0, limit=2)] == ["a"] * 4
    assert calls == [("a", 2, 0)]
    get("a", limit=1)
    assert calls == [("a", 2, 0), ("a", 1, 0)]


# -- nothing is evaluated, nothing is imported ----------------------------------------


@pytest.mark.skipif(not NEW, reason="annotations are evaluated late from Python 3.14 on")
def test_no_annotation_is_evaluated():
    """Of the function, its twins, loaders, wrappers and methods, or of callables among the options."""
    source = """
        import functools

        def wrap(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return function(*args, **kwargs)
            return wrapper

        def fetch(x: 1 / 0, region: "Later" | None = "EU") -> Nowhere.at.all: return [x, region]
        async def afetch(x: 1 / 0, region: "Later" | None = "EU") -> Nowhere: return [x, region]
        def load(xs: 1 / 0, region: "Later" | None = "EU") -> Nowhere: return {x: [x, region] for x in xs}
        def key(x: 1 / 0, region: Nowhere = "EU") -> Nowhere: return x, region
        def told(event: Nowhere) -> 1 / 0: return None
        def ttl(landing: Nowhere) -> 1 / 0: return 60
        def stored(value: Nowhere) -> 1 / 0: return True

        class Key:
            def __init__(self, x: Nowhere, region: 1 / 0 = "EU") -> Nowhere: self.it = x
            def __hash__(self) -> Nowhere: return hash(self.it)
            def __eq__(self, other: Nowhere) -> 1 / 0: return self.it == other.it

        class Fetching:
            def __call__(self, x: 1 / 0, region: Nowhere = "EU") -> Nowhere: return [x, region]

        class Owner:
            def next(self, x: 1 / 0, region: Nowhere = "EU") -> Owner: return [x, region]
    """
    namespace = {"__name__": "annotated"}
    exec(textwrap.dedent(source), namespace)
    plain, wrap = namespace["fetch"], namespace["wrap"]
    options = {"ttl": namespace["ttl"], "cache_if": namespace["stored"], "listener": namespace["told"]}
    partial = functools.partial(plain, region="EU")
    for function in (plain, wrap(plain), wrap(wrap(plain)), partial, namespace["Fetching"]()):
        for key in (None, namespace["key"], namespace["Key"], functools.partial(namespace["key"])):
            get = single_flight_ttl(key=key, **options)(function)
            get.twin(namespace["afetch"] if function is not partial else partial)
            if function is not partial:
                get.bulk(namespace["load"])
            assert get(1) is get(x=1) is get(1, region="EU")
    owner = namespace["Owner"]
    owner.next = single_flight_ttl(ttl=60)(owner.next)
    owner.next.__set_name__(owner, "next")
    one = owner()
    assert one.next(1) is one.next(x=1) is one.next(1, "EU") is owner.next(one, 1)


@pytest.mark.skipif(sys.version_info < (3, 15), reason="lazy imports come with Python 3.15")
def test_nothing_lazy_is_imported():
    """A name that an annotation or a default's class uses stays unloaded until the function runs."""
    program = """
        lazy from colorsys import rgb_to_hsv
        import functools, sys
        from singleflight import single_flight_ttl

        def wrap(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return function(*args, **kwargs)
            return wrapper

        def key(x: rgb_to_hsv): return x

        class Key:
            def __init__(self, x: rgb_to_hsv): pass

        class Owner:
            @single_flight_ttl(ttl=60)
            def get(self, x: rgb_to_hsv): return x

        @single_flight_ttl(ttl=60)
        def get(x: rgb_to_hsv): return x

        @get.twin
        async def aget(x: rgb_to_hsv): return x

        @get.bulk
        def load(xs: rgb_to_hsv): return {}

        single_flight_ttl(ttl=60, key=key)(wrap(key))
        single_flight_ttl(ttl=60, key=Key)(wrap(key))
        Owner().get(1), get(x=1), load([2])
        print("colorsys" in sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stdout.split() == ["False"]


# -- what `key` takes ----------------------------------------


def test_a_key_is_checked_against_parameters_that_are_named_only():
    """They are given by name: a key without them is refused, one with them is taken."""

    def fetch(symbol, *, venue="X", depth=1):
        return [symbol, venue, depth]

    for unfit in (lambda symbol: symbol, lambda symbol, venue, /, depth: symbol, lambda symbol, *, venue: 1):
        with pytest.raises(
            TypeError, match=r"^key: it is called with all arguments of .*fetch\(symbol, \*, "
        ):
            single_flight_ttl(ttl=60, key=unfit)(fetch)
    for fit in (
        lambda symbol, *, venue, depth: (symbol, venue, depth),
        lambda symbol, depth, venue: (symbol, venue, depth),
        lambda symbol, **more: (symbol, more["venue"], more["depth"]),
    ):
        get = single_flight_ttl(ttl=60, key=fit)(fetch)
        assert get("A") is get(symbol="A", venue="X", depth=1)
        assert get("A", venue="Y") == ["A", "Y", 1]
        assert get.entry("A").key == ("A", "X", 1)


def test_a_key_may_take_what_a_functions_stars_bring():
    """Of `*args, **kwargs` nobody knows how many there are before a call."""
    by_star = single_flight_ttl(ttl=60, key=lambda symbol: symbol)(lambda *args: [*args])
    assert by_star("A") is by_star("A")
    by_name = single_flight_ttl(ttl=60, key=lambda symbol, *, venue: symbol)(lambda symbol, **more: [symbol])
    assert by_name("A", venue="X") is by_name("A", venue="Y")
    with pytest.raises(TypeError, match=r"^key: "):
        single_flight_ttl(ttl=60, key=lambda: 1)(lambda symbol, *args: 1)


def test_a_refusal_survives_a_default_that_cannot_be_shown():
    """And is no longer than a line or two."""

    class Unshown:
        def __repr__(self):
            raise RuntimeError("not bound to a session")

    def fetch(a, b=Unshown(), c="c" * 10_000):
        return a

    with pytest.raises(TypeError, match=r"^key: ") as refused:
        single_flight_ttl(ttl=60, key=lambda a: a)(fetch)
    assert len(str(refused.value)) < 1000
    get = single_flight_ttl(ttl=60)(fetch)
    for refuse in (get.twin, get.bulk):
        with pytest.raises(TypeError, match=r"^(twin|bulk): "):
            refuse(lambda b, a=Unshown(): 1)


# -- names ----------------------------------------


@pytest.mark.parametrize(
    "names", [("_sf_key", "_sf_cache"), ("_sf_lookup", "_sf_record"), ("a", "_sf_bound")]
)
def test_parameters_may_have_names_like_ours(names):
    """Functions, wrappers, methods and keys whose parameters begin with `_sf_`."""
    first, second = names
    namespace = {}
    exec(f"def fetch({first}, {second}=2): return [{first}, {second}]", namespace)
    exec(f"def method(self, {first}, {second}=2): return [{first}, {second}]", namespace)
    exec(f"def key({first}, {second}=2): return {first}, {second}", namespace)
    for function in (namespace["fetch"], shown(namespace["fetch"])):
        for key in (None, namespace["key"]):
            fetch = single_flight_ttl(ttl=60, key=key)(function)
            assert fetch(1, 2) is fetch(1, 2)
            assert fetch(**{second: 4, first: 3}) == [3, 4]
            assert fetch(3) == [3, 2]
            assert fetch.invalidate(1, 2)

    class Owner:
        method = single_flight_ttl(ttl=60)(namespace["method"])

    owner = Owner()
    assert owner.method(1, 2) is owner.method(1, 2) is Owner.method(owner, 1, 2)
    assert owner.method(3) == [3, 2]


# -- defaults that cannot be hashed ----------------------------------------


@pytest.mark.parametrize("decorator", [lambda f: f, shown])
def test_a_default_that_cannot_be_hashed_is_named(decorator):
    """A call that leaves it out says so; one that gives it works, and so does a key without it."""

    def search(text, *, options=[]):
        return [text, options]

    fetch = single_flight_ttl(ttl=60)(decorator(search))
    with pytest.raises(UnhashableKey, match=r"'options' was left out, and its default .*list.*key="):
        fetch("a")
    with pytest.raises(UnhashableKey, match=r"'options' cannot be hashed \(list\)"):
        fetch("a", options=[1])
    assert fetch("a", options=()) == ["a", ()]
    keyed = single_flight_ttl(ttl=60, key=lambda text, options: text)(decorator(search))
    assert keyed("a") is keyed("a")


@pytest.mark.parametrize("decorator", [lambda f: f, shown])
def test_what_equals_a_default_was_not_left_out(decorator):
    """An unhashable argument that was given is told as that, also where it equals the default."""

    def search(text, *, options=[]):
        return [text, options]

    with pytest.raises(UnhashableKey, match=r"'options' cannot be hashed \(list\)"):
        single_flight_ttl(ttl=60)(decorator(search))("a", options=[])


# -- what the compiled calls run in ----------------------------------------


class Order:
    def __init__(self, symbol):
        self.symbol = symbol


@pytest.mark.parametrize("key", [pickle.dumps, functools.partial(pickle.dumps)], ids=["builtin", "partial"])
def test_a_key_may_be_a_function_of_c_that_imports(key):
    """It finds the builtins in the calls that ask it: a call, the controls, a coroutine's, a loader's."""
    cost = single_flight_ttl(ttl=60, key=key)(lambda order: [order.symbol])
    value = cost(Order("ASML"))
    assert cost(Order("ASML")) is value
    assert cost.entry(Order("ASML")).value is value
    assert cost.bulk(lambda orders: {})([first := Order("ASML")]) == {first: value}
    assert cost.explain(Order("ASML")).would == "hit"
    assert cost.invalidate(Order("ASML"))
    wrapped = single_flight_ttl(ttl=60, key=key)(shown(lambda order: [order.symbol]))
    assert wrapped(Order("ASML")) is wrapped(Order("ASML"))


def test_a_key_may_import_at_its_first_use():
    """As `time.strptime` does, in a process that has not used it."""
    program = """
        import time
        from singleflight import single_flight_ttl
        fetch = single_flight_ttl(ttl=60, key=time.strptime)(lambda day, layout: [day])
        print(fetch("2026-01-02", "%Y-%m-%d") is fetch("2026-01-02", "%Y-%m-%d"))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert done.stdout.split() == ["True"]
    assert time.strptime("2026", "%Y")


def test_tracebacks_name_what_was_called():
    """A function by its name, and a callable without one by its class."""

    def fail(*args):
        raise LookupError

    for function, name in ((fail, "fail"), (functools.partial(fail, 1), "partial")):
        with pytest.raises(LookupError) as raised:
            single_flight_ttl(ttl=60)(function)(2)
        frames = traceback.extract_tb(raised.value.__traceback__)
        assert [each.name for each in frames if each.filename.startswith("<singleflight call")] == [name]


@collects_classes
def test_ever_new_parameters_do_not_fill_the_line_cache():
    """A compiled call's lines leave with the text that is kept for other functions of its shape."""

    def ours():
        return sum(name.startswith("<singleflight call") for name in linecache.cache)

    kept, before = [], ours()  # of functions that live elsewhere
    for number in range(400):
        namespace = {}
        exec(f"def fetch(parameter_{number}): return 1", namespace)
        kept.append(
            single_flight_ttl(ttl=60)(shown(namespace["fetch"]) if number % 2 else namespace["fetch"])
        )
        assert kept[-1](number) == 1
    gc.collect()
    assert 0 < ours() <= 256 + before
    again = single_flight_ttl(ttl=60)(lambda a, *rest: 1 / a)  # a call that is always compiled in Python
    with pytest.raises(ZeroDivisionError) as raised:
        again(0)
    assert "return _sf_driver(" in "".join(traceback.format_exception(raised.value))


@pytest.mark.filterwarnings("error")
def test_a_partial_in_a_class_binds_as_partials_do():
    """From Python 3.14 on they are given the instance; before, nothing binds them and nothing warns."""

    class Owner:
        get = single_flight_ttl(ttl=60)(functools.partial(lambda *args: [args], "first"))

    owner = Owner()
    assert owner.get(1) == [("first", owner, 1) if NEW else ("first", 1)]
    assert owner.get(1) is owner.get(1)
