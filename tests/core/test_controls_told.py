"""What is dropped and put here is noted before and told after, once; also where it is cut short."""

import pytest
from cachetools import LRUCache

from singleflight import single_flight_ttl
from singleflight.core import controls
from singleflight.testing import FakeClock, Recorder

from ..spoilt import SPOIL, Frail, Key


class Struck(BaseException):
    """An interrupt."""


class Tier:
    """Notes what it is asked, and when it is told to send that; stored is what the cache has at that time."""

    def __init__(self, cache):
        self.cache, self.seen = cache, []

    def _note(self, *what):
        self.seen.append(("noted", *what, len(self.cache.store.index)))
        return lambda: self.seen.append(("told", *what, len(self.cache.store.index)))

    def drop(self, key):
        return self._note("drop", key)

    def put(self, key, record):
        return record, self._note("put", key, record.value)

    def drop_all(self):
        return self._note("all")

    def cut(self, tags):
        return self._note("cut", tags)

    def reset(self):
        self.seen.append("reset")


class Rude(LRUCache):
    refuses = False

    def __setitem__(self, key, value):
        if self.refuses:
            raise RuntimeError("rude")
        super().__setitem__(key, value)


def strike(*_):
    raise Struck


@pytest.fixture
def price():
    """A function with one stored value, and then with a tier."""
    options = {"tags": lambda landing: ["eu"], "policy": Rude, "maxsize": 9}
    made = single_flight_ttl(ttl=lambda landing: 60 if landing.value else 0, **options)(lambda symbol: symbol)
    made("ASML")
    made._self_cache.tier = Tier(made._self_cache)
    yield made
    made._self_cache.tier = None
    Rude.refuses = False


CHANGES = {
    "invalidate": (lambda price: price.invalidate("ASML"), ("drop", ("ASML",)), True),
    "all": (lambda price: price.invalidate_where(lambda key: True), ("all",), 1),
    "tag": (lambda price: price.invalidate_tag("eu"), ("cut", ("eu",)), 1),
    "clear": (lambda price: price.cache_clear(), ("all",), None),
    "put": (lambda price: price.put(7, "SAP"), ("put", ("SAP",), 7), None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_noted_before_and_told_after(price, change):
    """And counts what it has dropped here."""
    make, what, dropped = CHANGES[change]
    assert make(price) == dropped
    stored = 2 if change == "put" else 0
    reset = ["reset"] if change == "clear" else []
    assert price._self_cache.tier.seen == [("noted", *what, 1), *reset, ("told", *what, stored)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_is_cut_short_is_told(price, change, monkeypatch):
    """What was noted is owed until it is told."""
    make, what, _ = CHANGES[change]
    with monkeypatch.context() as patch:
        for name in ("drop", "clear", "cut", "put"):
            patch.setattr(price._self_cache.store, name, strike)
        with pytest.raises(Struck):
            make(price)
    assert price._self_cache.tier.seen == [("noted", *what, 1), ("told", *what, 1)]


def test_a_predicate_that_raises(price):
    """The others are told."""
    with pytest.raises(Struck):
        price.invalidate_where(strike)
    assert price._self_cache.tier.seen == [("noted", "all", 1), ("told", "all", 1)]


def test_a_put_that_fails(price):
    """Is a drop: what it was to replace is gone here, and the others are not to have it either."""
    Rude.refuses = True
    with pytest.raises(RuntimeError, match="rude"):
        price.put(7, "ASML")
    assert price._self_cache.tier.seen == [
        ("noted", "put", ("ASML",), 7, 1),
        ("noted", "drop", ("ASML",), 0),
        ("told", "drop", ("ASML",), 0),
    ]


def test_a_put_that_is_not_stored_is_a_drop(price):
    """As one with a ttl of 0."""
    price.put(0, "ASML")
    assert price._self_cache.tier.seen == [
        ("noted", "drop", ("ASML",), 1),
        ("told", "drop", ("ASML",), 0),
    ]


class Account:
    @single_flight_ttl(ttl=60, timer=(clock := FakeClock()), tags=["eu"])
    def price(self, symbol):
        return symbol


@pytest.fixture
def accounts():
    """Two, with a stored value each, of a method with a tier."""
    made = [Account(), Account()]
    for each in made:
        each.price("ASML")
    cache = Account.__dict__["price"]._self_cache
    cache.tier = Tier(cache)
    yield made, cache
    cache.tier = None
    controls.clear(cache)


def test_what_is_dropped_of_all_is_told(accounts):
    """By a tag that all values have."""
    _, cache = accounts
    assert controls.invalidate_tag(cache, ("eu",)) == 2
    assert cache.tier.seen == [("noted", "all", 2), ("told", "all", 0)]


def test_what_is_dropped_of_one_instance_is_told(accounts):
    """The other one keeps its own here; the others, who do not know either, drop all."""
    made, cache = accounts
    owner = next(iter(cache.store.index))[0]
    assert controls.drop(cache, owner) == 1
    assert cache.tier.seen == [("noted", "all", 2), ("told", "all", 1)]
    assert [each.price.entry("ASML") is None for each in made].count(True) == 1


@pytest.mark.parametrize(("age", "dropped"), [(59.5, 1), (60.0, 0)])
def test_an_entry_whose_key_is_spoilt_is_told_as_others_are(age, dropped):
    """And counted, while it would have been served; it leaves in any case."""
    clock, seen, key = FakeClock(), Recorder(), Key("A")
    fetch = single_flight_ttl(ttl=60, timer=clock, listener=seen, key=lambda key: key)(lambda key: 1)
    fetch(key)
    SPOIL["raises when hashed"](key)
    clock.advance(age)
    assert fetch.invalidate_where(lambda key: True) == dropped
    assert [event.key for event in seen.of("invalidate")] == [key] * dropped
    assert fetch.stats().entries == 0


@pytest.mark.parametrize("left", range(1, 4))
def test_a_key_that_raises_once_is_dropped(left):
    """Whichever look at it that is."""
    fetch, key = single_flight_ttl(ttl=60, key=lambda key: key)(lambda key: 1), Frail("A")
    fetch(key)
    key.left = left
    assert fetch.invalidate_where(lambda key: True) == 1
    assert fetch.stats().entries == 0


def test_each_key_that_is_dropped_is_asked_once():
    """Also where it is stored and in flight; no lock keeps it alive."""
    asked, during = [], []

    def fetch(key):
        if during:
            during.pop()()
        return key

    fetch = single_flight_ttl(ttl=60, key=lambda key: key)(fetch)
    for key in "ABC":
        fetch(key)
    during.append(lambda: asked.append(fetch.invalidate_where(lambda key: asked.append(key) or True)))
    assert fetch.refresh("B") == "B"
    assert (sorted(asked[:3]), asked[3:]) == (["A", "B", "C"], [3])
    assert (fetch.stats().entries, fetch.stats().locks) == (0, 0)


def test_what_is_no_predicate_is_refused():
    """Nothing has changed then."""
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    fetch("A")
    with pytest.raises(TypeError) as refused:
        fetch.invalidate_where("A")
    assert str(refused.value) == "predicate: expected a callable of the key, got 'A'"
    assert fetch.stats().entries == 1


@pytest.mark.parametrize(("age", "dropped"), [(59.5, 1), (60.0, 0)])
def test_what_is_over_is_not_told_where_a_tag_is_invalidated(age, dropped):
    """To the moment; what is told has its key."""
    clock, seen = FakeClock(), Recorder()
    options = {"timer": clock, "listener": seen, "tags": lambda landing: ["eu"]}
    price = single_flight_ttl(ttl=60, **options)(lambda symbol: symbol)
    price("ASML")
    clock.advance(age)
    assert price.invalidate_tag("eu") == dropped
    assert [event.key for event in seen.of("invalidate")] == [("ASML",)] * dropped


@pytest.mark.parametrize(("age", "dropped"), [(59.5, 2), (60.0, 0)])
def test_what_is_over_is_not_counted_among_what_is_dropped(accounts, age, dropped):
    """To the moment."""
    _, cache = accounts
    Account.clock.advance(age)
    assert controls.drop_here(cache) == dropped
    assert len(cache.store.index) == 0
