"""`policy` and `weigh`: who is evicted, what is too heavy, and what an entry weighs, whatever way it came."""

import asyncio
import logging
from fractions import Fraction

import cachetools
import pytest

from singleflight import Unchanged, single_flight_ttl
from singleflight.testing import FakeClock, Recorder

from ..bulk.conftest import driving
from ..drivers import Executions, Pair, until
from .conftest import TURNS

POLICIES = [
    *(cachetools.TTLCache, cachetools.LRUCache, cachetools.LFUCache, cachetools.FIFOCache),
    *(cachetools.RRCache, cachetools.TLRUCache, type("Aged", (cachetools.TTLCache,), {})),
]
EACH = pytest.mark.parametrize("policy", POLICIES, ids=lambda kind: kind.__name__)


class Newest(cachetools.FIFOCache):
    """The last that came is the first to go."""

    def popitem(self):
        key = list(self)[-1]
        return key, self.pop(key)


@pytest.fixture(params=TURNS.values(), ids=TURNS)
def driver(request):
    """Threads, tasks or both; with loaders."""
    yield from driving(*request.param)


class Words:
    """A function that returns its key, or what `answers` has for it; its loader may bring more."""

    def __init__(self, driver, **options):
        self.driver, self.runs, self.gates, self.answers = driver, Executions(), {}, {}
        self.clock, self.seen, self.weighed = FakeClock(), Recorder(), []

        async def fetch(key):
            number = self.runs.begin()
            if number in self.gates:
                await self.gates[number]
            answer = self.answers.get(key, key)
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def load(keys):
            self.runs.begin()
            return {key: self.answers.get(key, key) for key in [*keys, *self.answers.get("extra", ())]}

        weigh = options.pop("weigh", None)
        if weigh is not None:
            options["weigh"] = lambda value: (self.weighed.append(value), weigh(value))[1]
        options = {"timer": self.clock, "listener": self.seen, "key": "key", **options}
        self.fetch = driver.decorate(fetch, **options)
        self.fetches = self.fetch.plain, self.fetch.coroutine
        self.load = driver.loader(self.fetch, load)

    def call(self, *keys):
        """The last value."""
        return [self.driver.call(self.fetch, key) for key in keys][-1]

    def many(self, *keys):
        return self.driver.call(self.load, list(keys))

    def stored(self):
        return "".join(sorted(record.key for record in self.fetch._self_cache.store.records()))


@pytest.fixture
def words(driver):
    """Makes them."""
    return lambda **options: Words(driver, **options)


# -- policy -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (cachetools.TTLCache, "acd"),
        (cachetools.LRUCache, "acd"),
        (cachetools.LFUCache, "acd"),
        (cachetools.FIFOCache, "bcd"),
        (Newest, "abd"),
    ],
)
def test_a_class_decides_who_goes(words, policy, left, listens):
    """Hits on `a` keep it where the class looks at reads, also where a listener sees each hit."""
    made = words(policy=policy, maxsize=3, **({} if listens else {"listener": None}))
    made.call("a", "b", "c", "a", "a", "d")
    assert made.stored() == left
    assert made.fetch.stats().evictions == 1
    assert made.seen.count("evict") == listens


def test_every_way_of_being_served_is_told(words):
    """A hit, a stale hit, a hit in a bulk call, and `answer`, each keeps its entry in an `LRUCache`."""
    made = words(policy=cachetools.LRUCache, maxsize=2, ttl=10, grace=1000, listener=None)
    ways = [
        lambda: made.call("a"),
        lambda: made.many("a"),
        lambda: made.driver.call(Pair(*(each and each.answer for each in made.fetches)), "a"),
    ]
    for number, way in enumerate(ways):
        made.call("a")
        made.fetch.put(f"other {number}", f"{number}")
        way()
        made.fetch.put("more", "z")
        assert made.stored() == "az", number
    made.fetch.put("b", "b")
    made.call("a", "b")  # `a` is here again, and the older one
    made.clock.advance(11)
    made.gates[made.runs.begun] = made.driver.gate()  # its renewal does not end here
    made.call("a")
    made.fetch.put("more", "z")
    assert made.stored() == "az"


def test_frequency_counts_hits(words):
    """In an `LFUCache` who was read most stays, however long ago."""
    made = words(policy=cachetools.LFUCache, maxsize=2)
    made.call("a", "a", "a", "b", "c", "d", "e")
    assert made.stored() == "ae"


@EACH
def test_entries_expire_by_their_ttl(words, policy):
    """With any class, also where lives differ; a full store lets go of what has run out first."""
    made = words(policy=policy, maxsize=3, ttl=lambda landing: 5 if landing.value == "a" else 50)
    made.call("a", "b", "c")
    made.clock.advance(6)
    assert made.fetch.entry("a") is None
    made.call("d")
    assert made.stored() == "bcd"
    made.clock.advance(100)
    stats = made.fetch.stats()
    assert (stats.entries, stats.expirations, stats.evictions) == (0, 4, 0)


@EACH
def test_invalidated_put_and_renewed(words, policy):
    """The control surface does what it does with the usual class."""
    made = words(policy=policy, maxsize=3)
    made.call("a", "b", "c")
    assert made.fetch.invalidate("a")
    made.fetch.put("new", "b")
    made.driver.call(made.fetch.refresh, "c")
    assert (made.call("b"), made.stored()) == ("new", "bc")
    assert made.fetch.invalidate_where(lambda key: key == "b") == 1
    made.call("d", "e", "f")
    assert made.fetch.stats().evictions == 1
    assert made.fetch.clear() == 3
    assert made.stored() == ""


@EACH
def test_instances_and_tags(driver, policy):
    """What belongs to an instance, or has a tag, leaves with it."""

    class Desk:
        pass

    async def price(self, symbol):
        return symbol

    fetch = driver.decorate(price, policy=policy, maxsize=4, tags=lambda landing: landing.value)
    method = type("Priced", (Desk,), {"price": fetch.plain or fetch.coroutine})
    one, other = method(), method()
    for desk in (one, other, one, other):
        driver.call(fetch.of(desk), "a")
        driver.call(fetch.of(desk), "b")
    assert fetch.invalidate_tag("a") == 2
    assert fetch.of(one).clear() == 1
    assert fetch.stats().entries == 1


def test_hits_and_evictions_at_the_same_time(driver):
    """Many callers at once: counts are exact, the limit holds, and the class holds what is served."""
    made = Words(driver, policy=cachetools.LRUCache, maxsize=5, listener=None)

    async def read(start):
        for number in range(60):
            await made.fetch(chr(97 + (start + number * number) % 9))

    for start in range(8):
        driver.start(read, start)
    assert driver.outcomes() == [None] * 8
    stats = made.fetch.stats()
    assert stats.hits + stats.misses == 8 * 60
    store = made.fetch._self_cache.store
    assert len(store.index) == 5
    assert dict(store._cache.items()) == {record.place: record for record in store.records()}


class Rude(cachetools.LRUCache):
    """Raises where it is told to."""

    where = ""

    def __getitem__(self, key):
        if self.where == "read":
            raise RuntimeError("rude")
        return super().__getitem__(key)

    def popitem(self):
        if self.where == "evict":
            raise RuntimeError("rude")
        return super().popitem()


@pytest.fixture
def rude():
    """Where the class raises."""
    yield lambda where: setattr(Rude, "where", where)
    Rude.where = ""


def test_a_class_that_raises_fails_no_call(words, rude, caplog):
    """Callers get their values; what it kept from being stored is logged, and it is made anew."""
    made = words(policy=Rude, maxsize=2)
    made.call("a", "b")
    rude("evict")
    with caplog.at_level(logging.WARNING, "singleflight"):
        assert made.call("c", "c") == "c"
    assert "could not be stored" in caplog.text
    assert made.stored() == "ab"
    assert made.fetch.stats().uncached == 2
    rude("")
    made.call("c")
    assert made.stored() == "bc"


def test_a_put_that_the_class_keeps_from_being_stored(words, rude):
    """Its caller receives the exception, and the old value is not served any more."""
    made = words(policy=Rude, maxsize=4, weigh=len)
    made.call("a", "b")
    rude("evict")
    with pytest.raises(RuntimeError, match="rude"):
        made.fetch.put("long", "a")
    assert made.fetch.entry("a") is None
    assert made.call("b") == "b"


def test_a_class_that_raises_on_reads_is_blamed_once(words, rude, caplog):
    """Hits are served and counted all the same."""
    made = words(policy=Rude, maxsize=2)
    made.call("a")
    rude("read")
    with caplog.at_level(logging.WARNING, "singleflight"):
        assert made.call("a", "a", "a") == "a"
    assert caplog.text.count("told once") == 1
    assert made.fetch.stats().hits == 3
    rude("")
    made.call("b", "a", "c")
    assert made.stored() == "ac"


def test_a_class_that_keeps_nothing(words):
    """Callers share calls; no value is stored, and each counts as uncached."""
    made = words(policy=type("Sieve", (cachetools.Cache,), {"__setitem__": lambda *_: None}), maxsize=2)
    assert made.call("a", "a") == "a"
    assert made.many("a", "b") == {"a": "a", "b": "b"}
    stats = made.fetch.stats()
    assert (stats.entries, stats.uncached, stats.evictions, stats.fetches) == (0, 4, 0, 4)


def test_a_class_that_calls_the_function(driver):
    """From within the store it runs directly: nothing hangs, nothing changes."""

    class Calling(cachetools.LRUCache):
        def popitem(self):
            if "thread" in driver.turns:
                found.append(made.fetch.plain("z"))
            return super().popitem()

    found = []
    made = Words(driver, policy=Calling, maxsize=2)
    made.call("a", "b", "c")
    assert made.stored() == "bc"
    assert found == ["z"] * ("thread" in driver.turns)


# -- weigh --------------------------------------------------------------------------------------------


@EACH
def test_maxsize_limits_the_sum_of_weights(words, policy):
    """Several entries go for a heavy one; what is shown are weights."""
    made = words(policy=policy, maxsize=6, weigh=len)
    made.answers = {"b": "bb", "c": "ccc", "d": "dddd"}
    made.call("a", "b", "c")
    assert (made.fetch.entry("c").weight, made.fetch.stats().weight) == (3, 6)
    assert made.fetch.cache_info()[2:] == (6, 6)
    made.call("d")
    stats = made.fetch.stats()
    assert stats.weight <= 6
    assert made.fetch.entry("d").weight == 4
    assert stats.entries + stats.evictions == 4


@pytest.mark.parametrize(
    ("weigh", "shown"), [(len, 2), (lambda value: 0.5, 0.5), (lambda value: Fraction(1, 4), 0.25)]
)
def test_weights_are_shown_as_plain_numbers(words, weigh, shown):
    """Whole numbers as they are, others as floats."""
    made = words(maxsize=6, weigh=weigh)
    made.answers = {"a": "aa"}
    made.call("a")
    weight = made.fetch.entry("a").weight
    assert (weight, type(weight)) == (shown, type(shown))


@EACH
def test_what_is_too_heavy_is_shared_and_not_stored(driver, words, policy):
    """It counts as uncached, evicts nothing, is no failure, and the next caller fetches again."""
    made = words(policy=policy, maxsize=3, weigh=len, follower_retries=5)
    made.answers = {"b": "bbbb"}
    made.call("a")
    made.gates[1] = driver.gate()
    callers = [driver.start(made.fetch, "b")]
    made.runs.wait_for(2)
    callers += [driver.start(made.fetch, "b") for _ in range(3)]
    made.seen.wait_for("wait", 3)
    made.gates[1].set()
    assert [caller.outcome() for caller in callers] == ["bbbb"] * 4
    stats = made.fetch.stats()
    assert (stats.uncached, stats.evictions, stats.failures, stats.waits) == (1, 0, 0, 3)
    assert made.stored() == "a"
    made.call("b")
    assert made.fetch.stats().calls == 3
    assert not any(event.stored for event in made.seen.events if event.kind == "land" and event.key == "b")


def test_it_is_asked_once_a_landing(words):
    """For a call, a loader's items and what it brings unasked, `put`, a refresh and `Unchanged`."""
    made = words(maxsize=100, weigh=len)
    made.call("a", "a")
    assert made.weighed == ["a"]
    made.answers["extra"] = ["x"]
    made.many("b", "c")
    assert sorted(made.weighed[1:]) == ["b", "c", "x"]
    made.fetch.put("put", "d")
    made.answers["a"] = "long"
    made.driver.call(made.fetch.refresh, "a")
    made.answers["a"] = Unchanged
    made.driver.call(made.fetch.refresh, "a")
    assert made.weighed[4:] == ["put", "long", "long"]
    assert made.fetch.entry("a").weight == 4
    assert made.fetch.stats().weight == 1 + 1 + 1 + 3 + 4
    assert made.call("a") == "long"
    assert len(made.weighed) == 7


def test_it_is_not_asked_for_what_is_not_stored(words):
    """Refused by `cache_if`, a ttl of 0, and what was invalidated in flight."""
    made = words(
        maxsize=9,
        weigh=len,
        cache_if=lambda value: value != "a",
        ttl=lambda landing: 9 * (landing.value != "b"),
    )
    made.call("a", "b")
    made.gates[2] = made.driver.gate()
    caller = made.driver.start(made.fetch, "c")
    made.runs.wait_for(3)
    made.fetch.invalidate("c")
    made.gates[2].set()
    assert caller.outcome() == "c"
    assert made.weighed == []
    assert made.fetch.stats().uncached == 3


def test_renewals_are_weighed(words):
    """A renewed value has its own weight; one that is too heavy is not stored, and the old one stays."""
    made = words(maxsize=3, weigh=len, ttl=10, grace=100)
    made.call("a")
    made.clock.advance(11)
    made.answers["a"] = "aaa"
    made.call("a")
    until(lambda: not made.fetch.flights())
    assert (made.call("a"), made.fetch.stats().weight) == ("aaa", 3)
    made.clock.advance(11)
    made.answers["a"] = "aaaa"
    made.call("a")
    until(lambda: not made.fetch.flights())
    assert made.call("a") == "aaa"
    assert made.fetch.stats().uncached == 1


def test_a_put_that_is_too_heavy_drops_what_is_there(words):
    """As a ttl of 0 does."""
    made = words(maxsize=3, weigh=len)
    made.call("a")
    made.fetch.put("aaaa", "a")
    assert made.fetch.entry("a") is None
    assert made.fetch.stats().weight == 0


@pytest.mark.parametrize("answer", [None, "1", -1, float("nan"), True, RuntimeError("no scales")])
def test_a_weigh_that_misbehaves_fails_the_flight(driver, words, answer):
    """Leader and followers receive what it raises, or an error that names it; nothing is stored."""

    def weigh(value):
        if isinstance(answer, Exception):
            raise answer
        return answer

    made = words(maxsize=3, weigh=weigh, follower_retries=0)
    made.gates[0] = driver.gate()
    callers = [driver.start(made.fetch, "a")]
    made.runs.wait_for(1)
    callers += [driver.start(made.fetch, "a") for _ in range(2)]
    made.seen.wait_for("wait", 2)
    made.gates[0].set()
    for caller in callers:
        outcome = caller.outcome()
        assert isinstance(outcome, (TypeError, ValueError, RuntimeError))
        assert str(outcome).startswith(("weigh: ", "no scales"))
    stats = made.fetch.stats()
    assert (stats.failures, stats.errors, stats.entries) == (1, 3, 0)
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        made.fetch.put("b", "a")
    assert made.stored() == ""


def test_a_weigh_that_fails_for_one_item(words):
    """That key's flight fails, and the loader's call with it; the other items are stored."""
    made = words(maxsize=9, weigh=lambda value: 1 if value == "a" else None)
    with pytest.raises(TypeError, match=r"^weigh: "):
        made.many("a", "b")
    assert made.stored() == "a"


def test_a_stored_failure_weighs_one(words):
    """It makes room for itself as an entry without weights does."""
    made = words(maxsize=2, weigh=lambda value: 2, failure_ttl=60)
    made.call("a")
    made.answers["b"] = ValueError("none")
    for _ in range(2):
        with pytest.raises(ValueError, match="none"):
            made.call("b")
    stats = made.fetch.stats()
    assert (stats.weight, stats.entries, stats.evictions, stats.calls) == (1, 1, 1, 2)
    assert made.weighed == ["a"]


def test_a_weigh_may_call_the_function(driver, words):
    """It runs under no lock."""
    made = words(
        maxsize=9, weigh=lambda value: 1 + (made.fetch.entry("a") is not None) + made.fetch.stats().entries
    )
    made.call("a", "b")
    assert (made.fetch.entry("a").weight, made.fetch.entry("b").weight) == (1, 3)


def test_fractions_add_up(words):
    """Ten tenths fill the whole."""
    made = words(maxsize=1, weigh=lambda value: 0.125)
    made.call(*"abcdefgh")
    assert (made.fetch.stats().weight, made.fetch.stats().evictions) == (1.0, 0)
    assert made.fetch.entry("a").weight == 0.125


# -- at decoration ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"policy": dict}, TypeError),
        ({"policy": cachetools.LRUCache(3)}, TypeError),
        ({"policy": None}, TypeError),
        ({"policy": cachetools.LRUCache, "maxsize": None}, ValueError),
        ({"weigh": len, "maxsize": None}, ValueError),
        ({"weigh": 3}, TypeError),
        ({"weigh": asyncio.sleep}, TypeError),
    ],
)
def test_what_is_refused(options, error):
    """At decoration, by an error that names the option."""
    with pytest.raises(error, match=f"^{next(iter(options))}: "):
        single_flight_ttl(ttl=60, **options)


def test_they_are_shown():
    """In `repr` and `cache_parameters`; idle locks are not kept by weight."""
    fetch = single_flight_ttl(ttl=60, policy=cachetools.LRUCache, maxsize=10**9, weigh=len)(lambda key: key)
    assert "LRUCache" in repr(fetch)
    assert "max_idle_locks" not in repr(fetch)
    told = fetch.cache_parameters()
    assert (told["policy"], told["weigh"], told["max_idle_locks"]) == (cachetools.LRUCache, len, 1024)
    usual = single_flight_ttl(ttl=60, policy=cachetools.TTLCache)(lambda key: key)
    assert "(ttl=60)" in repr(usual)
