"""Hits served in C give the same answers as those in Python, lose none, and leak nothing."""

import asyncio
import gc
import importlib.util
import inspect
import itertools
import os
import subprocess
import sys
import threading
import time
import traceback
import weakref
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import singleflight
from singleflight import UnhashableKey, single_flight_ttl
from singleflight.decorator import accelerate
from singleflight.decorator.wrapt_types import wrapt_was_built
from singleflight.storage.record import Record
from singleflight.testing import FakeClock

NAMES = ("a", "b", "c")
built = pytest.mark.skipif(
    not singleflight.accelerated, reason="the hit path in C is not built, or switched off"
)


@pytest.fixture
def both(monkeypatch):
    """Decorates a function twice: as it is here, and in pure Python."""

    def decorate(function, **options):
        here = single_flight_ttl(**{"ttl": 60, **options})(function)
        with monkeypatch.context() as patched:
            patched.setattr(accelerate, "accelerated", False)
            pure = single_flight_ttl(**{"ttl": 60, **options})(function)
        assert here._self_assembly.in_c is singleflight.accelerated
        assert not pure._self_assembly.in_c
        return here, pure

    return decorate


def told(call, *args, **kwargs):
    """What a call returns or raises: the value, or the error's type, text and last line."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return type(error), str(error), traceback.format_exception_only(error)[-1]


values = st.one_of(
    st.integers(0, 3),
    st.sampled_from(["x", "y", 1.0, True, None, ("t",)]),
    st.just([]),
    st.floats(allow_nan=False),
)
calls = st.lists(
    st.tuples(
        st.lists(values, max_size=4), st.dictionaries(st.sampled_from([*NAMES, "d"]), values, max_size=3)
    ),
    min_size=1,
    max_size=12,
)
SHAPES = {
    "by place": lambda a, b=2, c=3: ("place", a, b, c),
    "place alone": lambda a, /, b=2, *, c=3: ("alone", a, b, c),
    "by name alone": lambda *, a, b=2, c=3: ("named", a, b, c),
    "nothing": lambda: "nothing",
}
OPTIONS = {
    "default key": {},
    "own key": {"key": lambda *args, **kwargs: (args, tuple(sorted(kwargs.items())))},
    "raising key": {"key": lambda *args, **kwargs: 1 // len(args)},
    "one name": {"key": "b"},
    "names": {"key": ("c", "a")},
    "left out": {"ignore": "b"},
}


@built
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@settings(max_examples=25, deadline=None)
@given(made=calls)
def test_the_same_calls_have_the_same_outcomes(shape, options, made):
    """Values, errors with their last line, keys, counts: as in pure Python, whatever is passed and how."""
    if not inspect.signature(shape).parameters and (
        "ignore" in options or isinstance(options.get("key"), (str, tuple))
    ):
        return
    with pytest.MonkeyPatch.context() as patched:
        here = single_flight_ttl(ttl=60, **options)(shape)
        patched.setattr(accelerate, "accelerated", False)
        pure = single_flight_ttl(ttl=60, **options)(shape)
    assert here._self_assembly.in_c
    for args, kwargs in made:
        assert told(here, *args, **kwargs) == told(pure, *args, **kwargs)
    assert here.stats() == pure.stats()
    assert {*map(repr, here._self_cache.store.index)} == {*map(repr, pure._self_cache.store.index)}


@built
@settings(max_examples=25, deadline=None)
@given(made=calls, own=st.booleans())
def test_methods_have_the_same_outcomes(made, own):
    """Called on instances, kept bound, or with the instance in front: one entry for each instance and key."""
    options = {"key": lambda self, a, b=2: (self.number, a, b)} if own else {}

    def kind():
        class Account:
            def __init__(self, number):
                self.number = number

            @single_flight_ttl(ttl=60, **options)
            def price(self, a, b=2):
                return self.number, a, b

        return Account

    here = kind()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(accelerate, "accelerated", False)
        pure = kind()
    assert here.price._self_assembly.in_c
    outcomes = []
    for of in (here, pure):
        accounts = [of(1), of(2)]
        kept = [account.price for account in accounts]
        seen = []
        for (args, kwargs), at in zip(made, itertools.cycle((0, 1)), strict=False):
            seen.append(told(accounts[at].price, *args, **kwargs))
            seen.append(told(kept[at], *args, **kwargs))
            seen.append(told(of.price, accounts[at], *args, **kwargs))
        text = repr(seen).replace(of.__qualname__, "")
        outcomes.append((text, of.price.stats()))
    assert outcomes[0] == outcomes[1]


@built
def test_a_coroutine_function_stays_one(both):
    """Called in C or not, it is a coroutine function whose call is a coroutine, and hits without a task."""

    async def fetch(key):
        return [key]

    for decorated in both(fetch):
        assert inspect.iscoroutinefunction(type(decorated).__call__)
        first = asyncio.run(decorated("a"))
        coroutine = decorated("a")
        assert inspect.iscoroutine(coroutine)
        with pytest.raises(StopIteration) as stopped:
            coroutine.send(None)
        assert stopped.value.value is first
        assert decorated.stats().hits == 1


@built
def test_a_key_is_asked_once(both):
    """Also where what it returns cannot be hashed."""
    for decorated in both(lambda a: a, key=lambda a: asked.append(a) or [a]):
        asked = []
        with pytest.raises(UnhashableKey):
            decorated(1)
        assert asked == [1]


@built
def test_an_error_says_what_it_says_in_python(both):
    """An unhashable argument: the same type, text and context, whoever looked."""
    seen = []
    for decorated in both(lambda a, b: a):
        with pytest.raises(UnhashableKey) as raised:
            decorated(1, b=[])
        error = raised.value
        seen.append((str(error), error.__cause__, error.__suppress_context__, type(error.__context__)))
    assert seen[0] == seen[1]


@built
def test_time_is_the_functions_own(both):
    """A clock of the user's decides; what it raises is raised, and counts nothing."""
    for decorated in both(lambda a: [a], timer=(clock := FakeClock())):
        first = decorated(1)
        clock.advance(59.999)
        assert decorated(1) is first
        clock.advance(0.001)
        assert decorated(1) is not first

    def broken():
        if fails:
            raise ValueError("no time")
        return 0.0

    for decorated in both(lambda a: a, timer=broken):
        fails = []
        decorated(1)
        fails.append(1)
        with pytest.raises(ValueError, match="no time"):
            decorated(1)


@built
def test_hits_are_exact_whoever_reads_them_meanwhile(both):
    """A count that somebody has in hand stays what it was."""
    for decorated in both(lambda a: a):
        decorated(1)
        (record,) = decorated._self_cache.store.records()
        in_hand = [record.hits]
        for _ in range(5):
            decorated(1)
            in_hand.append(record.hits)
        assert in_hand == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


@built
def test_a_key_that_replaces_the_index_while_it_is_compared_does_no_harm(both):
    """Its `__eq__` clears the cache in the midst of the look-up."""

    class Key:
        def __init__(self, clears=False):
            self.clears = clears

        def __hash__(self):
            return 7

        def __eq__(self, other):
            if self.clears or other.clears:
                decorated._self_cache.store.index.clear()
                decorated._self_cache.follow()
            return True

    for decorated in both(lambda a: a, key=lambda a: a):
        decorated(Key())
        for _ in range(100):
            decorated(Key(clears=True))


@built
def test_a_function_and_its_values_can_be_collected():
    """What C refers to leads back to the function, and goes with it."""

    class Value:
        pass

    def make():
        value = Value()

        @single_flight_ttl(ttl=60)
        def fetch(a, *, b=None):
            return value

        fetch(1), fetch(1)
        value.function = fetch
        return weakref.ref(fetch), weakref.ref(value)

    made = [make() for _ in range(10)]
    gc.collect()
    assert [ref() for pair in made for ref in pair] == [None] * 20


SHAPES_OF_CALLS = """
import asyncio, gc, sys
import singleflight
from singleflight import single_flight_ttl
assert singleflight.accelerated
times = int(sys.argv[1])

@single_flight_ttl(ttl=60)
def plain(a, b=2, *, c=3): return (a, b, c)

@single_flight_ttl(ttl=60, key=lambda a: a)
def own(a): return a

@single_flight_ttl(ttl=60, key="a")
def named(a, b=None): return a

@single_flight_ttl(ttl=60, key=lambda a, b=None: (a.__class__, b))
def read(a, b=None): return a

@single_flight_ttl(ttl=60, key=lambda a: (a.missing, a))
def missing(a): return a

@single_flight_ttl(ttl=60, key=lambda a: (a.missing, a))
async def never(a): return a

@single_flight_ttl(ttl=60)
async def awaited(a): return a

@single_flight_ttl(ttl=60)
def failing(a): raise ValueError(a)

class Account:
    @single_flight_ttl(ttl=60)
    def method(self, a): return a

account = Account()
kept = account.method
key = object()

def refused(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except (AttributeError, TypeError, ValueError):
        return
    raise AssertionError("not refused")

def once():
    plain(key); plain(key, 2); plain(a=key, c=3); plain(key, c=3)
    own(key); own(a=key); named(key, b=[]); account.method(key); kept(key); Account.method(account, a=key)
    refused(plain); refused(plain, 1, 2, 3); refused(plain, key, d=4); refused(plain, key, a=key)
    read(key); read(a=key, b=1); refused(missing, key)
    refused(never(key).send, None)
    refused(plain, [])
    refused(own, []); refused(account.method, []); refused(failing, key)
    try:
        awaited(key).send(None)
    except StopIteration:
        pass

async def first(): await awaited(key)
asyncio.run(first())
once()
for _ in range(times // 10):
    once()
gc.collect()
before, references = sys.getallocatedblocks(), sys.getrefcount(key)
for _ in range(times):
    once()
gc.collect()
grown = sys.getallocatedblocks() - before
assert sys.getrefcount(key) == references, (sys.getrefcount(key), references)
assert grown < 400, grown  # one block for each call of one shape would be `times`
if hasattr(sys, "gettotalrefcount"):
    print("debug build")
print("flat:", grown)
"""


@built
@pytest.mark.parametrize("times", [2000, pytest.param(50_000, marks=pytest.mark.long)])
def test_nothing_leaks(times):
    """References and allocated blocks stay flat over calls of every shape, errors included."""
    done = subprocess.run(
        [sys.executable, "-c", SHAPES_OF_CALLS, str(times)], capture_output=True, text=True, timeout=280
    )
    assert "flat:" in done.stdout, done.stderr


@built
def test_hits_from_many_threads_while_everything_changes():
    """Eight threads hit under bypass, clearing and eviction: values are right, and every call is counted."""
    stop, wrong, made, ran = threading.Event(), [], [0] * 8, itertools.count()

    @single_flight_ttl(ttl=60, maxsize=8)
    def fetch(key):
        next(ran)
        return key * 2

    def hit(number):
        for turn in itertools.count():
            if stop.is_set() and turn > 2000:
                break
            key = (turn * 7 + number) % 12
            if fetch(key) != key * 2:
                wrong.append(key)
            made[number] += 1

    threads = [threading.Thread(target=hit, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        with fetch.bypass():
            fetch(1)
        fetch.invalidate(3)
        fetch.clear()
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    stats = fetch.stats()
    received = stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts
    bypassing = next(ran) - stats.calls  # what ran inside a bypass is not counted
    assert wrong == []
    assert received + bypassing == sum(made) + 50


@built
def test_what_is_no_record_of_the_known_shape_is_refused():
    """C reads slots of a class that Python made, and nothing else."""
    hits = accelerate._hits

    class Loose:
        deadline = hits = value = 1.0

    with pytest.raises(TypeError, match="no slot"):
        hits.Core(Loose, {}, None, None)
    core = hits.Core(Record, {}, lambda: 0.0, None)
    with pytest.raises(TypeError, match="dictionary"):
        core.look_in([])
    with pytest.raises(ValueError, match="shape"):
        core.shape(("a",), (), 0, 1, None, (0,), ((),), False, *[None] * 2, {}, *[None] * 5)
    fitting = ("a",), (core,), 0, 1, None, (0,), ((),), False, *[None] * 2, {}, *[None] * 5
    core.shape(*fitting)
    with pytest.raises(ValueError, match="already"):
        core.shape(*fitting)
    for misused in (hits.attach, hits.become):
        with pytest.raises(TypeError):
            misused(len, core)
    with pytest.raises(TypeError, match="not made here"):
        hits.show(Record, "name", 1)


def test_the_environment_keeps_it_out():
    """With `SINGLEFLIGHT_PURE=1` at import hits are served in Python, with the same answers."""
    code = (
        "import singleflight; f = singleflight.single_flight_ttl(ttl=60)(lambda a: [a]); "
        "print(singleflight.accelerated, f(1) is f(a=1), f.stats().hits)"
    )
    for setting, expected in (("1", "False"), ("0", str(singleflight.accelerated))):
        environment = {**os.environ, "SINGLEFLIGHT_PURE": setting}
        if setting == "0" and "SINGLEFLIGHT_PURE" in os.environ:
            continue
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50
        )
        assert done.stdout.split() == [expected, "True", "1"], done.stderr


@built
@pytest.mark.parametrize("while_decorating", [True, False])
def test_a_clock_in_the_place_of_pythons_is_asked(monkeypatch, while_decorating):
    """What a test tool has put there is the clock, also if it was there while the function was decorated."""
    now = [1e12]
    decorate = None
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: now[0])
        decorate = single_flight_ttl(ttl=60, timer=time.monotonic)
        decorated = decorate(lambda a: [a]) if while_decorating else None
    decorated = decorated or decorate(lambda a: [a])
    first = decorated(1)
    assert decorated(1) is first
    now[0] += 60
    assert decorated(1) is not first


@built
def test_a_function_without_its_core_is_refused():
    """Its slot is an attribute like others; what is written there is no reason to crash."""
    function = single_flight_ttl(ttl=60)(lambda a: a)
    core = function._self_core
    for wrong in ("no core", None):
        function._self_core = wrong
        with pytest.raises(TypeError, match="lost"):
            function(1)
    function._self_core = core
    assert function(1) == 1


def test_what_was_built_is_used():
    """The tests above are skipped where the extension is not there, but not where it is there and fails."""
    switched_off = os.environ.get("SINGLEFLIGHT_PURE", "") not in ("", "0")
    is_there = importlib.util.find_spec("singleflight.decorator._hits") is not None
    assert singleflight.accelerated is (is_there and wrapt_was_built and not switched_off)


def test_it_is_there_where_it_is_required():
    """`SINGLEFLIGHT_REQUIRE_SPEED=1`, with which a build fails without it, does the same to a test run."""
    if os.environ.get("SINGLEFLIGHT_REQUIRE_SPEED", "") not in ("", "0"):
        assert singleflight.accelerated


def run(*lines):
    """What a program prints, word by word."""
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=50
    )
    assert done.stdout, done.stderr
    return done.stdout.split()


UNEXPECTED = {
    "not there": "sys.modules['singleflight.decorator._hits'] = None",
    "another extension": "sys.modules['singleflight.decorator._hits'] = types.ModuleType('_hits')",
    "another record": "record.Record.hits = property(lambda self: 0.0, lambda self, value: None)",
}


@built
@pytest.mark.parametrize("change", UNEXPECTED.values(), ids=UNEXPECTED)
def test_what_is_not_as_expected_is_not_used(change):
    """Then hits are served in Python: nothing fails at import, and nothing at a call."""
    assert run(
        "import importlib.util, sys, types",
        "from pathlib import Path",
        f"sys.path[:] = {sys.path!r}",
        "package = types.ModuleType('singleflight')",  # so that its modules can be loaded before it
        f"package.__path__ = [{str(Path(singleflight.__file__).parent)!r}]",
        "sys.modules['singleflight'] = package",
        "from singleflight.storage import record",
        change,
        "from singleflight.decorator import accelerate, decorate",
        "fetch = decorate.single_flight_ttl(ttl=60)(lambda a: [a])",
        "print(accelerate.accelerated, fetch(1) is fetch(a=1))",
    ) == ["False", "True"]


@built
@pytest.mark.skipif(sys.version_info < (3, 13), reason="this way of making one is Python 3.13's")
def test_a_subinterpreter_with_a_lock_of_its_own_has_hits_in_python():
    """The extension does not say that it is made for such, so Python does not load it there."""
    assert run(
        "import _interpreters, sys",
        f"program = {f'import sys; sys.path[:] = {sys.path!r}; import singleflight; '!r}",
        "program += 'print(singleflight.accelerated, flush=True)'",
        "failed = _interpreters.exec(_interpreters.create('isolated'), program)",
        "print(failed and failed.formatted)",
    ) == ["False", "None"]
