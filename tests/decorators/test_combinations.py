"""Every option together with every other: each pair works as each of the two does alone, or says why not."""

import asyncio
import inspect
import itertools
import os

import pytest
from cachetools import FIFOCache, LFUCache, LRUCache

from singleflight import Unchanged, drain, drain_sync, single_flight_ttl
from singleflight.testing import FakeClock, Recorder

from ..children import in_child
from ..sampling import one_in

TTL = 10
OPTIONS = {
    "key by name": {"key": "symbol"},
    "key by names": {"key": ("symbol", "venue")},
    "key of ours": {"key": lambda *args, **kwargs: args[-2]},
    "ignore": {"ignore": "venue"},
    "typed": {"typed": True},
    "copy": {"copy": True},
    "copy by": {"copy": list},
    "failure_ttl": {"failure_ttl": 5},
    "failure_ttl by": {"failure_ttl": lambda error: 5},
    "least recently": {"policy": LRUCache},
    "least frequently": {"policy": LFUCache},
    "first in": {"policy": FIFOCache},
    "weigh": {"weigh": len, "maxsize": 8},
    "tags": {"tags": "all"},
    "tags by": {"tags": lambda landing: ("all", str(landing.value))},
    "soft_timeout": {"soft_timeout": 5, "grace": 30},
    "max_flights": {"max_flights": 1},
    "grace": {"grace": 30},
    "refresh_ahead": {"refresh_ahead": 0.5},
    "xfetch": {"refresh_ahead": "xfetch"},
    "jitter": {"jitter": 0.1},
    "ttl by": {"ttl": lambda landing: TTL},
    "listener": {"listener": Recorder()},
    "no retries": {"follower_retries": 0},
    "wait_timeout": {"wait_timeout": 30},
    "flight_timeout": {"flight_timeout": 30},
    "cache_if": {"cache_if": lambda value: value is not None},
    "many": {"maxsize": None},
}
SHAPES = ["function", "method", "class method", "static method", "twin"]


def refused(*names):
    """What the error of a pair that makes no sense begins with."""
    given = set(names)
    if "ignore" in given and given & {"key by name", "key by names", "key of ours"}:
        return "ignore: "
    if "many" in given and given & {"least recently", "least frequently", "first in"}:
        return "policy: "
    if given == {"many", "weigh"}:
        return "weigh: "
    return None


def pairs():
    for one, other in itertools.combinations(OPTIONS, 2):
        first, second = OPTIONS[one], OPTIONS[other]
        if all(first[name] == second[name] for name in first.keys() & second.keys()):
            yield one, other
    yield from (
        ("weigh", "many"),
        ("ignore", "key by name"),
        ("ignore", "key by names"),
        ("ignore", "key of ours"),
    )


PAIRS = [pair for pair in dict.fromkeys(pairs()) if refused(*pair) is None]
MAKES_NO_SENSE = [pair for pair in dict.fromkeys(pairs()) if refused(*pair)]


class Scene:
    """A decorated function in one shape and colour; each value says which execution made it."""

    def __init__(self, shape, coroutine, options):
        self.options = {"ttl": TTL, "maxsize": 4, **options}
        self.shape, self.coroutine = shape, coroutine
        self.loop = asyncio.new_event_loop() if coroutine else None
        self.clock, self.runs, self.received = FakeClock(), 0, 0
        self._build()

    def answer_for(self, symbol):
        self.runs += 1
        if symbol == "bad":
            raise ConnectionError(symbol)
        return Unchanged if symbol == "same" and self.runs > self.first_same else [symbol, self.runs]

    first_same = 10**9

    def answers_for(self, symbols):
        self.runs += 1
        return {symbol: [symbol, self.runs] for symbol in symbols}

    def _build(self):
        decorate = single_flight_ttl(**self.options, timer=self.clock)

        def plain(first, second):
            return (lambda *given: first(given[-2])), (lambda *given: second(given[-2]))

        get, load = plain(self.answer_for, self.answers_for)
        getter, loader = self._functions(get, load)
        if self.shape == "twin":
            other = (lambda symbol, venue="XAMS": None) if self.coroutine else _never
            self.function = decorate(other).twin(getter)
        elif self.shape in ("class method", "static method"):
            kind = classmethod if self.shape == "class method" else staticmethod
            self.function = decorate(kind(getter))
            loader = kind(loader)
        else:
            self.function = decorate(getter)
        self.bulk = self.function.bulk(loader) if self.shape != "static method" else None
        if "method" in self.shape:
            owner = type("Desk", (), {"get": self.function, "load": self.bulk})
            if self.bulk is None:
                owner.load = owner.get.bulk(staticmethod(self._functions(get, load)[1]))
            self.desk = owner()
            self.call_it, self.load_it = self.desk.get, self.desk.load
        else:
            self.call_it, self.load_it = self.function, self.bulk

    def _functions(self, get, load):
        first = {"method": "self, ", "class method": "cls, "}.get(self.shape, "")
        colour = "async " if self.coroutine else ""
        text = f"{colour}def getter({first}symbol, venue='XAMS'): return get(symbol, venue)\n"
        text += f"{colour}def loader({first}symbols, venue='XAMS'): return load(symbols, venue)\n"
        made = {"get": get, "load": load}
        exec(text, made)
        return made["getter"], made["loader"]

    def run(self, value):
        return self.loop.run_until_complete(value) if inspect.isawaitable(value) else value

    def call(self, symbol="A", venue="XAMS"):
        self.received += 1
        return self.run(self.call_it(symbol, venue))

    def load(self, *symbols):
        self.received += len(symbols)
        return self.run(self.load_it(list(symbols)))

    def refresh(self, symbol="A"):
        self.received += 1
        return self.run(self.call_it.refresh(symbol))

    def settle(self):
        if self.loop:
            self.run(drain(timeout=10))
        else:
            assert drain_sync(timeout=10)

    def close(self):
        if self.loop:
            self.loop.close()


async def _never(symbol, venue="XAMS"):
    raise AssertionError


@pytest.fixture
def scene():
    """Makes one."""
    made = []

    def make(shape, coroutine, names):
        options = {name: value for each in names for name, value in OPTIONS[each].items()}
        made.append(Scene(shape, coroutine, options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def has(options, *names):
    return any(name in options for name in names)


def go_through(one):
    """All that a caller can see of a pair, one feature after another."""
    options = one.options
    copied = has(options, "copy")
    # Hits, and what is one key.
    first = one.call("A")
    assert first == ["A", 1]
    again = one.call("A")
    assert again == first
    assert (again is first) is not copied
    one.call("A", "XETR")
    by_symbol = has(options, "ignore") or options.get("key") == "symbol" or callable(options.get("key"))
    assert one.runs == (1 if by_symbol else 2)
    before = one.runs
    one.call(1), one.call(1.0)
    assert one.runs == before + 1 + has(options, "typed")
    # How it was served, and many at once.
    one.received += 1
    answer = one.run(one.call_it.answer("A"))
    assert (answer.value, answer.served) == (first, "hit")
    loaded = one.load("A", "B")
    assert loaded["A"] == first
    assert loaded["B"] == one.call("B") == ["B", one.runs]
    # Control.
    newer = one.refresh("A")
    assert newer == ["A", one.runs] == one.call("A")
    one.call_it.put(["A", "put"], "A")
    assert one.call("A") == ["A", "put"]
    assert one.call_it.entry("A").value == ["A", "put"]
    assert one.call_it.invalidate("A")
    assert one.call_it.entry("A") is None
    assert one.call("A") == ["A", one.runs]
    if has(options, "tags"):
        assert one.function.invalidate_tag("all") > 0
        assert one.function.stats().entries == 0
    # Failures.
    before = one.runs
    for _ in range(2):
        with pytest.raises(ConnectionError, match="bad"):
            one.call("bad")
    assert one.runs == before + (1 if has(options, "failure_ttl") else 2)
    # A value that has not changed.
    kept = one.call("same")
    one.first_same = one.runs
    assert one.refresh("same") == kept == one.call("same")
    # The limit.
    for number in range(8):
        one.call(f"more {number}")
    stats = one.function.stats()
    if options["maxsize"] is not None:
        assert stats.entries <= 4
        assert stats.weight <= options["maxsize"]
        assert stats.evictions > 0
    # Time.
    old = one.call("old")
    one.clock.advance(TTL + 1)
    later = one.call("old")
    one.settle()
    fresh = ["old", one.runs]
    if has(options, "grace") and not has(options, "soft_timeout"):
        assert later == old
    elif not has(options, "grace"):
        assert later == fresh
    assert one.call("old") == fresh
    one.settle()
    # Nobody's business.
    before, counted = one.runs, one.function.stats()
    with one.function.bypass():
        assert one.run(one.call_it("old")) == ["old", before + 1]
    assert one.function.stats() == counted
    # What is left.
    assert (
        counted.hits + counted.stale_hits + counted.misses + counted.errors + counted.timeouts == one.received
    )
    assert (counted.in_flight, one.function.flights(), counted.locks) == (0, (), counted.idle_locks)
    assert one.function.invalidate_where(lambda key: True) >= 0
    assert one.function.stats().entries == 0


CASES = [(shape, coroutine, pair) for pair in PAIRS for shape in SHAPES for coroutine in (False, True)]


def named(value):
    return value if isinstance(value, str) else " and ".join(value) if isinstance(value, tuple) else None


@pytest.mark.parametrize(("shape", "coroutine", "pair"), one_in(23, CASES), ids=named)
def test_a_pair_of_options(scene, shape, coroutine, pair):
    """Hits, copies, control, failures, limits, time and bypass, in each shape and colour."""
    go_through(scene(shape, coroutine, pair))


@pytest.mark.parametrize(("shape", "coroutine", "pair"), one_in(97, CASES), ids=named)
def test_a_pair_of_options_switched_off(scene, monkeypatch, shape, coroutine, pair):
    """Every call runs its function, and the control surface stays."""
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")
    one = scene(shape, coroutine, pair)
    assert [one.call("A"), one.call("A")] == [["A", 1], ["A", 2]]
    assert one.load("A", "B") == {"A": ["A", 3], "B": ["B", 3]}
    one.call_it.put(["A", "put"], "A")
    assert one.call_it.entry("A").value == ["A", "put"]
    assert one.call("A") == ["A", 4]
    assert one.function.stats().calls == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("pair", one_in(11, PAIRS, packed=False), ids=named)
def test_a_pair_of_options_in_a_forked_child(scene, pair):
    """It serves what it inherited, and goes on for itself; the parent does not notice."""
    one = scene("method", False, pair)
    first = one.call("A")

    def child():
        assert one.call("A") == first
        one.received = 1
        assert one.call("A") == first
        one.call_it.invalidate("A")
        assert one.call("A") == ["A", 2]
        stats = one.function.stats()
        return stats.hits, stats.fetches

    assert in_child(child) == "(2, 1)"
    assert one.call("A") == first
    assert one.function.stats().hits == 1


@pytest.mark.parametrize("pair", MAKES_NO_SENSE, ids=named)
def test_pairs_that_make_no_sense(scene, pair):
    """They raise at decoration, and say why."""
    with pytest.raises((TypeError, ValueError), match=refused(*pair)):
        options = {name: value for each in pair for name, value in OPTIONS[each].items()}
        single_flight_ttl(ttl=TTL, **options)(lambda symbol, venue="XAMS": symbol)


@pytest.mark.parametrize(
    "options", [{"soft_timeout": 1}, {"policy": LRUCache, "maxsize": None}, {"weigh": len, "maxsize": None}]
)
def test_options_that_need_another(options):
    """They raise at decoration, naming what is missing."""
    with pytest.raises(ValueError, match=f"^{next(iter(options))}: needs"):
        single_flight_ttl(ttl=TTL, **options)
