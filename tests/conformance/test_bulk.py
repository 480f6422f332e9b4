"""bulk: many keys in one call, shared with callers that ask for one of them."""

import asyncio

import pytest

from singleflight import UnhashableKey
from singleflight.testing import FakeClock, Recorder

from ..drivers import Executions, until
from .conftest import outcomes


class Shop:
    """A getter and a loader that answer in capitals; `loads` says what they were asked for."""

    def __init__(self, driver, respond=None, max_batch=None, **options):
        self.driver, self.seen, self.loads, self.begun = driver, Recorder(), [], Executions()
        self.gates, self.cancelled = {}, []
        respond = respond or (lambda items: {item: item.upper() for item in items})

        async def price(symbol):
            return (await self.load(respond, [symbol]))[symbol]

        async def prices(symbols):
            return await self.load(respond, symbols)

        self.price = driver.decorate(price, key=lambda symbol: symbol, listener=self.seen, **options)
        self.prices = driver.loader(self.price, prices, max_batch=max_batch)

    async def load(self, respond, items):
        self.loads.append("".join(items))
        gate = self.gates.get(self.begun.begin())
        try:
            if gate is not None:
                await gate
        except asyncio.CancelledError:
            self.cancelled.append("".join(items))
            raise
        return respond(items)

    def hold(self, number):
        """Hold this load, or single call, at a gate, which is returned."""
        self.gates[number] = self.driver.gate()
        return self.gates[number]

    def start(self, run, *args):
        """A caller that is not waited for, and whose call has begun."""
        before = self.begun.begun
        caller = self.driver.start(run, *args)
        self.begun.wait_for(before + 1)
        return caller

    def join(self, run, *args):
        """A caller that waits for what others fetch."""
        before = self.seen.count("wait")
        caller = self.driver.start(run, *args)
        self.seen.wait_for("wait", before + 1)
        return caller

    def ask(self, items):
        return self.driver.call(self.prices, items)


@pytest.fixture
def shop(driver):
    """Makes them."""
    return lambda *args, **options: Shop(driver, *args, **options)


def test_overlapping_batches_reuse_flights(shop):
    """A batch requests only keys that no caller is fetching, and waits for the rest."""
    one = shop()
    gate = one.hold(0)
    first = one.start(one.prices, list("abc"))
    second = one.join(one.prices, list("dbea"))
    gate.set()
    assert first.outcome() == {"a": "A", "b": "B", "c": "C"}
    assert second.outcome() == {"d": "D", "b": "B", "e": "E", "a": "A"}
    assert one.loads == ["abc", "de"]


def test_duplicates_collapse_and_the_order_is_kept(shop):
    """A key that is named twice is requested once, and the answer is in the order asked."""
    one = shop()
    assert list(one.ask(list("cabac")).items()) == [("c", "C"), ("a", "A"), ("b", "B")]
    assert one.loads == ["cab"]


def test_with_copy_each_item_is_a_copy(driver):
    """With `copy` each item of each bulk answer is an object of its own, however it came into the answer."""
    shop = Shop(driver, lambda items: {item: [item] for item in items}, copy=list)
    answers = [driver.call(shop.prices, ["a", "b"]) for _ in range(2)]
    for answer in answers:
        answer["a"].append("changed")
    assert driver.call(shop.prices, ["a"]) == {"a": ["a"]}


def test_extra_keys_are_stored(shop):
    """Extra items of a loader are not in the answer, and are served to later callers."""
    one = shop(lambda items: {"a": "A", "b": "B"})
    assert one.ask(["a"]) == {"a": "A"}
    assert one.ask(["b"]) == {"b": "B"}
    assert one.loads == ["a"]


def test_missing_keys(shop):
    """A key that the loader leaves out is not in the answer, None for a single caller, and not stored."""
    one = shop(lambda items: {item: item.upper() for item in items if item != "x"}, follower_retries=0)
    gate = one.hold(0)
    bulk = one.start(one.prices, list("ax"))
    single = one.join(one.price, "x")
    gate.set()
    assert (bulk.outcome(), single.outcome()) == ({"a": "A"}, None)
    assert one.price.entry("x") is None


def test_when_one_of_two_joined_flights_fails_the_error_surfaces(shop):
    """A bulk caller that waits for two flights of others gets the error of the one that fails."""

    def respond(items):
        if "b" in items:
            raise ValueError("no b")
        return {item: item.upper() for item in items}

    one = shop(respond, follower_retries=0)
    gates = [one.hold(0), one.hold(1)]
    good, bad = one.start(one.price, "a"), one.start(one.price, "b")
    both = one.join(one.prices, list("ab"))
    for gate in gates:
        gate.set()
    assert good.outcome() == "A"
    assert [error.args for error in outcomes([bad, both])] == [("no b",)] * 2


def test_a_raising_loader_frees_every_key(shop):
    """When a loader raises, its caller gets that, and all its keys can be fetched again."""
    fails = [True]

    def respond(items):
        if fails:
            raise ValueError("down")
        return dict.fromkeys(items, "up")

    one = shop(respond)
    with pytest.raises(ValueError, match="down"):
        one.ask(list("abc"))
    assert one.price.flights() == ()
    fails.clear()
    assert one.ask(list("abc")) == dict.fromkeys("abc", "up")


def test_cancelling_one_caller_spares_the_batch(tasks):
    """A batch continues while any caller wants any of its keys, and is cancelled when none does."""
    one = Shop(tasks)
    gate = one.hold(0)
    first = one.start(one.prices, list("ab"))
    others = [one.join(one.prices, ["b"]), one.join(one.price, "a")]
    first.cancel()
    first.outcome()
    gate.set()
    assert outcomes(others) == [{"b": "B"}, "A"]
    one.hold(1)
    only = one.start(one.prices, ["c"])
    only.cancel()
    only.outcome()
    until(lambda: one.cancelled == ["c"])


def test_a_single_caller_joins_a_batch(shop):
    """A single caller that asks for a key which a batch is fetching waits for that batch."""
    one = shop()
    gate = one.hold(0)
    bulk = one.start(one.prices, list("ab"))
    single = one.join(one.price, "b")
    gate.set()
    assert (bulk.outcome(), single.outcome()) == ({"a": "A", "b": "B"}, "B")
    assert one.loads == ["ab"]


def test_a_batch_joins_single_callers(shop):
    """A batch does not request a key that a single caller is fetching."""
    one = shop()
    gate = one.hold(0)
    single = one.start(one.price, "a")
    bulk = one.join(one.prices, list("ab"))
    gate.set()
    assert (single.outcome(), bulk.outcome()) == ("A", {"a": "A", "b": "B"})
    assert one.loads == ["a", "b"]


def test_batches_that_overlap_both_ways_never_block_each_other(shop):
    """Batches that overlap both ways land what they fetch before they wait for each other."""
    one = shop()
    gates = [one.hold(0), one.hold(1)]
    first = one.start(one.prices, list("ab"))
    second = one.start(one.prices, list("cba"))
    third = one.join(one.prices, list("ac"))
    for gate in reversed(gates):
        gate.set()
    assert outcomes([first, second, third]) == [
        {"a": "A", "b": "B"},
        {"c": "C", "b": "B", "a": "A"},
        {"a": "A", "c": "C"},
    ]
    assert one.loads == ["ab", "c"]


def test_fresh_values_are_not_asked_for(shop):
    """Stored values come from the store, and only the rest goes to the loader."""
    one = shop()
    one.driver.call(one.price, "a")
    assert one.ask(list("ab")) == {"a": "A", "b": "B"}
    assert one.loads == ["a", "b"]


def test_a_batch_is_no_longer_than_max_batch(shop):
    """More keys than `max_batch` are fetched in several calls."""
    one = shop(max_batch=2)
    assert one.ask(list("abcde")) == {item: item.upper() for item in "abcde"}
    assert one.loads == ["ab", "cd", "e"]


def test_each_key_of_a_batch_lands_by_itself(shop):
    """Each key of a batch lands with its own ttl and `cache_if`, as if it had been fetched alone."""
    one = shop(ttl=lambda landing: ord(landing.key), cache_if=lambda value: value != "C")
    one.ask(list("abc"))
    assert [one.price.entry(key).ttl for key in "ab"] == [97, 98]
    assert one.price.entry("c") is None


def test_bulk_calls_count_distinct_keys(shop):
    """In bulk calls each distinct key counts as a call received, each run of the loader as one execution."""
    one = shop()
    one.ask(list("aba"))
    one.ask(list("abc"))
    stats = one.price.stats()
    assert (stats.fetches, stats.hits, stats.calls) == (3, 2, 2)


def test_what_was_put_while_the_loader_ran_stays(shop):
    """An extra item of a loader does not replace a newer value of its key."""
    one = shop(lambda items: {"a": "A", "b": "old"})
    gate = one.hold(0)
    caller = one.start(one.prices, ["a"])
    one.price.put("new", "b")
    gate.set()
    assert caller.outcome() == {"a": "A"}
    assert one.driver.call(one.price, "b") == "new"


def test_bad_items_are_named_and_leave_nothing_behind(shop):
    """A string for a list, or an item that cannot be hashed, raises before anything is called."""
    one = shop()
    with pytest.raises(TypeError, match="symbols"):
        one.ask("abc")
    with pytest.raises(UnhashableKey):
        one.ask(["a", []])
    assert (one.loads, one.price.flights()) == ([], ())


def test_stale_values_are_renewed_in_one_call(shop):
    """Within their grace stale values are served at once, and renewed in one call in the background."""
    clock = FakeClock()
    one = shop(ttl=60, grace=600, timer=clock)
    one.ask(list("abc"))
    clock.advance(60)
    gate = one.hold(1)
    assert one.ask(list("abc")) == {"a": "A", "b": "B", "c": "C"}
    one.begun.wait_for(2)
    gate.set()
    until(lambda: not one.price.flights())
    assert one.loads == ["abc", "abc"]
    assert one.price.entry("a").state == "fresh"


def test_what_single_callers_would_not_store_is_missing(shop):
    """A bulk answer leaves out a key whose value, fetched by a single caller, `cache_if` refuses."""
    one = shop(follower_retries=0, cache_if=lambda value: value != "A")
    gate = one.hold(0)
    leader = one.start(one.price, "a")
    follower = one.driver.start(one.prices, ["a"])
    until(lambda: one.price.flights() and one.price.flights()[0].followers == 1)
    gate.set()
    assert (leader.outcome(), follower.outcome()) == ("A", {})


def test_a_loaders_keys_are_what_the_options_make(driver):
    """A loader's items have the keys that named, ignored and typed arguments give single calls."""

    async def price(symbol, session=None):
        return f"one {symbol}"

    async def prices(symbols, session=None):
        return {symbol: f"many {symbol}" for symbol in symbols}

    for options in ({"key": "symbol"}, {"ignore": "session"}, {"key": "symbol", "typed": True}):
        one = driver.decorate(price, **options)
        many = driver.loader(one, prices)
        assert driver.call(one, 1, "mine") == "one 1"
        assert driver.call(many, [1, 2], "yours") == {1: "one 1", 2: "many 2"}
        assert driver.call(one, 2) == "many 2"
        expected = "one 2.0" if "typed" in options else "many 2"
        assert driver.call(one, 2.0) == expected
