"""Keys by name, ignored arguments and typed keys: which calls are one, whoever makes them."""

import gc
import re
import weakref

import pytest

from singleflight import FlightTimeout, current_flight, single_flight_ttl
from singleflight.testing import FakeClock, Recorder


class Account:
    def __init__(self, number="mine"):
        self.id = number

    def __eq__(self, other):  # by identity all the same, where the instance stays in the key
        return isinstance(other, Account)

    __hash__ = None


def decorated(driver, **options):
    """A method, bound to two accounts; and what it was run with."""
    runs = []

    async def price(self, symbol, price_type="bid", session=None):
        runs.append((self.id, symbol, price_type))
        return symbol

    price = driver.decorate(price, **options)
    return price, runs


def test_only_what_is_named_counts(driver):
    """Calls that agree in what `key` names are one, by position, by keyword, and where it is left out."""
    runs = []

    async def price(symbol, price_type="bid", session=None):
        runs.append((symbol, price_type))
        return symbol

    price = driver.decorate(price, key=("symbol", "price_type"))
    for call in [("A",), ("A", "bid"), ("A", "bid", 1), ("A", "ask"), ("B",), ("A", "ask", 2)] * 2:
        assert driver.call(price, *call) == call[0]
    assert runs == [("A", "bid"), ("A", "ask"), ("B", "bid")]
    assert price.entry(session=3, symbol="A").key == ("A", "bid")


def test_callers_at_once_are_one_call(driver):
    """Callers whose named arguments are equal wait for one flight, whatever else they pass."""
    runs, gate, seen = [], driver.gate(), Recorder()

    async def price(symbol, session):
        runs.append(symbol)
        await gate
        return symbol

    price = driver.decorate(price, key="symbol", listener=seen)
    for session in range(8):
        driver.start(price, "A", session)
    seen.wait_for("wait", 7)
    assert {event.key for event in seen.events} == {"A"}
    gate.set()
    assert driver.outcomes() == ["A"] * 8
    assert runs == ["A"]


@pytest.mark.parametrize("key", ["symbol", ("symbol",), ("symbol", "price_type")])
def test_the_instance_stays_by_identity(driver, key):
    """On a method the instance is in the key unless it is named; nothing keeps it alive."""
    price, runs = decorated(driver, key=key)
    mine, yours = Account("mine"), Account("yours")
    for _ in range(2):
        for account in (mine, yours):
            assert driver.call(price.of(account), "A") == "A"
    assert runs == [("mine", "A", "bid"), ("yours", "A", "bid")]
    assert price.of(mine).entry("A").key[0]() is mine
    gone = weakref.ref(mine)
    del mine, account
    driver.callers.clear()
    gc.collect()
    assert gone() is None
    assert price.stats().entries == 1


def test_an_attribute_of_the_instance_stands_for_it(driver):
    """With an attribute of it in the key, equal attributes are one account."""
    price, runs = decorated(driver, key=("self.id", "symbol"))
    for account in (Account("one"), Account("one"), Account("two")):
        driver.call(price.of(account), "A")
    assert runs == [("one", "A", "bid"), ("two", "A", "bid")]
    assert price.of(Account("one")).entry("A").key == ("one", "A")


def test_an_attribute_that_is_not_there_raises(driver):
    """What reading it raises reaches the caller as it is, and nothing has changed."""
    price, runs = decorated(driver, key=("self.id", "symbol.name.deeper"))
    with pytest.raises(AttributeError, match="'str' object has no attribute 'name'"):
        driver.call(price.of(Account()), "A")
    assert runs == []
    stats = price.stats()
    assert (stats.entries, stats.in_flight, stats.locks, stats.calls) == (0, 0, 0, 0)


@pytest.mark.parametrize("ignore", ["session", ("session", "price_type"), ["session"]])
def test_what_is_ignored_does_not_count(driver, ignore):
    """Calls that differ in ignored arguments alone are one, even if these cannot be hashed."""
    price, runs = decorated(driver, ignore=ignore)
    mine, yours = Account("mine"), Account("yours")
    for account in (mine, yours):
        for session in ([], [1]):
            driver.call(price.of(account), "A", "bid", session)
    assert runs == [("mine", "A", "bid"), ("yours", "A", "bid")]
    assert price.of(mine).entry(symbol="A", session={}).value == "A"
    assert price.of(mine).invalidate("A") is True


def test_equal_arguments_of_different_types(driver):
    """With `typed=True` they are different keys, on a method too; the keys that are shown are plain."""
    runs = []

    async def double(self, number, *more):
        runs.append((number, *more))
        return (number, *more)

    double = driver.decorate(double, typed=True)
    account = Account()
    calls = [(1,), (1.0,), (True,), (1, 2), (1, 2.0), ((1,),), (2, 1), (2, 1.0)]
    for call in calls * 2:
        assert repr(driver.call(double.of(account), *call)) == repr(call)
    assert list(map(repr, runs)) == list(map(repr, calls))
    assert driver.call(double.of(account), (1.0,)) == ((1,),)  # as in lru_cache: not what is in a tuple
    assert double.of(account).entry(1.0).key[1:] == (1.0, ())


FORMS = [
    {"key": "number"},
    {"key": ("number",)},
    {"key": "args"},
    {"key": "extra"},
    {"ignore": "unit"},
    {},
    {"key": lambda number, unit, *args, **extra: number},
    {"key": lambda number, unit, *args, **extra: (number, args, extra.get("more"))},
]


@pytest.mark.parametrize(
    "form", FORMS, ids=["name", "names", "args", "extra", "ignore", "default", "own", "own tuple"]
)
def test_every_control_tells_types_apart(driver, form):
    """In every form of key the controls find what calls of these very types stored, and show plain keys."""
    clock, seen, landings = FakeClock(), Recorder(), []

    async def double(number, unit="EUR", *args, **extra):
        return (number, args, extra)

    def ttl(landing):
        landings.append(landing.key)
        return 60

    double = driver.decorate(double, typed=True, ttl=ttl, timer=clock, listener=seen, **form)
    whole, real = ((1, "EUR", 1), {"more": 1}), ((1.0, "EUR", 1.0), {"more": 1.0})

    async def ask(run, args, kwargs):
        return await run(*args, **kwargs)

    driver.call(ask, double, *whole)
    plainly = single_flight_ttl(ttl=60, **form)(lambda number, unit="EUR", *args, **extra: 1)
    plainly(*whole[0], **whole[1])
    key = plainly.entry(*whole[0], **whole[1]).key
    entry = double.entry(*whole[0], **whole[1])
    assert (entry.key, entry.value[0]) == (key, 1)
    assert double.entry(*real[0], **real[1]) is None
    assert double.explain(*real[0], **real[1]).would == "fetch"
    explained = double.explain(*whole[0], **whole[1])
    assert (explained.would, repr(explained.key)) == ("hit", repr(key))
    assert repr(key) in str(explained)
    assert double.invalidate(*real[0], **real[1]) is False
    double.put("real", *real[0], **real[1])
    assert double.entry(*whole[0], **whole[1]).value[0] == 1
    assert double.entry(*real[0], **real[1]).value == "real"
    asked = []
    assert double.invalidate_where(lambda key: asked.append(key) or "1.0" in repr(key)) == 1
    assert asked == [key, key] == landings
    assert double.entry(*real[0], **real[1]) is None
    assert double.entry(*whole[0], **whole[1]) is not None
    driver.call(ask, double.refresh, *real)
    assert double.stats().entries == 2
    with double.locks(key):
        assert double.locks.held(key)
        double.invalidate(*whole[0], **whole[1])
        assert double.explain(*whole[0], **whole[1]).would == "wait"
        assert double.explain(*real[0], **real[1]).would == "hit"
    assert {repr(event.key) for event in seen.events} <= {repr(key), repr(key).replace("1", "1.0")}


def test_flights_and_errors_show_plain_keys(driver):
    """What is in flight, and what an error names, shows the key without the types."""
    gate, seen, within = driver.gate(), Recorder(), []

    async def fetch(number, more):
        within.append(current_flight().key)
        await gate
        return number

    fetch = driver.decorate(fetch, typed=True, listener=seen, wait_timeout=0)
    driver.start(fetch, 1, "x")
    seen.wait_for("fetch", 1)
    (flight,) = fetch.flights()
    assert flight.key == (1, "x")
    assert "(1, 'x'): call by" in str(flight)
    with pytest.raises(FlightTimeout, match=re.escape("s for (1, 'x')") + "$"):
        driver.call(fetch, 1, "x")
    gate.set()
    driver.outcomes()
    assert within == [(1, "x")]


@pytest.mark.parametrize("key", ["anything", (), (1,), ((1, 2), 3), 7, b"a", frozenset("a"), range(2)])
@pytest.mark.parametrize("collects", [True, False])
def test_any_key_may_be_locked(driver, key, collects):
    """Of a function with typed keys any key may be locked, also one that no call has."""

    async def fetch(number, *args, **extra):
        return number

    async def fetch_one(number):
        return number

    fetch = driver.decorate(fetch if collects else fetch_one, typed=True)
    with fetch.locks(key):
        assert fetch.locks.held(key)
        assert fetch.locks.waiting(key) == 0
        if not isinstance(key, (tuple, int)):
            assert not fetch.locks.held(tuple(key))
    assert not fetch.locks.held(key)
