"""Tags: what has one of them is dropped, and what is on its way with one is not stored."""

import asyncio
import gc
import weakref

import pytest

from singleflight import invalidate_tag, single_flight_ttl
from singleflight.testing import FakeClock, Recorder

from ..bulk.conftest import driving
from ..drivers import Executions, InThread, until
from .conftest import TURNS


@pytest.fixture(params=TURNS.values(), ids=TURNS)
def driver(request):
    """Threads, tasks or both; with loaders."""
    yield from driving(*request.param)


class Users:
    """A function whose values have the tags that `tags` says of their keys; each says which run made it."""

    def __init__(self, driver, tags=lambda key: [f"tag:{key[0]}", "all"], **options):
        self.driver, self.runs, self.seen, self.gates = driver, Executions(), Recorder(), {}
        self.clock = FakeClock()

        async def fetch(key):
            number = self.runs.begin()
            gate = self.gates.get(number)
            if gate is not None:
                await gate
            return f"{key}{number}"

        async def load(keys):
            number = self.runs.begin()
            gate = self.gates.get(number)
            if gate is not None:
                await gate
            return {key: f"{key}{number}" for key in [*keys, "extra"]}

        asked = tags if not callable(tags) else lambda landing: tags(landing.key)
        options = {"timer": self.clock, "listener": self.seen, "tags": asked, **options}
        self.fetch = driver.decorate(fetch, key=lambda key: key, **options)
        self.load = driver.loader(self.fetch, load)

    def call(self, key):
        return self.driver.call(self.fetch, key)

    def hold(self, number):
        self.gates[number] = self.driver.gate()
        return self.gates[number]

    def begin(self, key, run=None):
        """A caller whose run has begun."""
        before = self.runs.begun
        caller = self.driver.start(run or self.fetch, key)
        self.runs.wait_for(before + 1)
        return caller

    def join(self, key):
        """A caller that waits for a run in progress."""
        before = self.seen.count("wait")
        caller = self.driver.start(self.fetch, key)
        self.seen.wait_for("wait", before + 1)
        return caller

    def stored(self):
        return {key for key in ("a1", "a2", "b1", "extra") if self.fetch.entry(key) is not None}


@pytest.fixture
def users(driver):
    """Makes them."""
    return lambda *args, **options: Users(driver, *args, **options)


def test_what_has_the_tag_goes_and_the_rest_stays(users):
    """`invalidate_tag` drops the entries with the tag and says how many; entries with others stay."""
    made = users()
    for key in ("a1", "a2", "b1"):
        made.call(key)
    assert made.fetch.invalidate_tag("tag:a") == 2
    assert made.stored() == {"b1"}
    assert (made.fetch.invalidate_tag("tag:a"), made.fetch.invalidate_tag("none")) == (0, 0)
    assert made.seen.count("invalidate") == 2
    assert made.fetch.stats().entries == 1


def test_several_tags_drop_an_entry_once(users):
    """An entry with two of the tags counts once."""
    made = users()
    made.call("a1")
    made.call("b1")
    assert made.fetch.invalidate_tag("tag:a", "all", "all") == 2
    assert made.stored() == set()


def test_a_flight_that_began_before_is_not_stored(users):
    """Its caller gets its value; the next caller makes a new call, whose value is stored."""
    made = users()
    gate = made.hold(0)
    caller = made.begin("a1")
    assert made.fetch.invalidate_tag("tag:a") == 0
    gate.set()
    assert caller.outcome() == "a10"
    assert made.stored() == set()
    assert made.call("a1") == "a11"
    assert made.stored() == {"a1"}


def test_a_flight_with_other_tags_is_stored(users):
    """Only a landing with the invalidated tag is refused."""
    made = users()
    gate = made.hold(0)
    caller = made.begin("b1")
    made.fetch.invalidate_tag("tag:a")
    gate.set()
    assert (caller.outcome(), made.stored()) == ("b10", {"b1"})


def test_who_waits_for_a_refused_flight_flies_again(users):
    """A follower, which may have come after the invalidation, receives a newer value."""
    made = users()
    gate = made.hold(0)
    leader = made.begin("a1")
    early = made.join("a1")
    made.fetch.invalidate_tag("tag:a")
    late = made.join("a1")
    gate.set()
    assert (leader.outcome(), early.outcome(), late.outcome()) == ("a10", "a11", "a11")
    assert made.fetch.entry("a1").value == "a11"


@pytest.mark.parametrize("drop", ["invalidate", "put"])
def test_who_waits_for_a_detached_flight_from_before_flies_again(users, drop):
    """A follower that came after the invalidation is not served the older value, though the key went, too."""
    made = users()
    gate = made.hold(0)
    leader = made.begin("a1")
    made.fetch.invalidate_tag("tag:a")
    late = made.join("a1")
    if drop == "put":
        made.fetch.put("put", "a1")
    else:
        made.fetch.invalidate("a1")
    gate.set()
    assert leader.outcome() == "a10"
    assert late.outcome() == ("put" if drop == "put" else "a11")


def test_without_retries_the_refused_value_is_shared(users):
    """With `follower_retries=0` followers share the leader's value, which is still not stored."""
    made = users(follower_retries=0)
    gate = made.hold(0)
    leader = made.begin("a1")
    follower = made.join("a1")
    made.fetch.invalidate_tag("tag:a")
    gate.set()
    assert (leader.outcome(), follower.outcome(), made.stored()) == ("a10", "a10", set())


@pytest.mark.parametrize("loads", [False, True], ids=["call", "bulk"])
def test_who_comes_for_a_value_that_was_stored_and_dropped_flies_again(loads):
    """The tag is invalidated between a flight's storing and its end: who joins it then does not share."""
    runs, seen, late = Executions(), Recorder(), []
    fetch = single_flight_ttl(ttl=60, key=lambda key: key, listener=seen, tags=lambda landing: "all")(
        lambda key: runs.begin()
    )
    load = fetch.bulk(lambda keys: {key: runs.begin() for key in keys})
    store = fetch._self_cache.store
    put = store.put

    async def call(key):
        return fetch(key)

    def put_and_invalidate(*args):
        gone = put(*args)
        if not late:
            assert fetch.invalidate_tag("all") == 1
            late.append(InThread(call, ("a",)))
            seen.wait_for("wait", 1)
        return gone

    store.put = put_and_invalidate
    assert (load(["a"])["a"] if loads else fetch("a")) == 0
    assert late[0].outcome() == 1
    assert fetch.entry("a").value == 1


def test_fixed_tags_are_those_of_every_entry(users):
    """A function with fixed tags loses all entries, and its flights are detached at once."""
    made = users(tags=("prices", "slow"))
    made.call("a1")
    gate = made.hold(1)
    old = made.begin("b1")
    assert made.fetch.invalidate_tag("other") == 0
    assert made.fetch.invalidate_tag("slow") == 1
    new = made.call("b1")  # it does not wait for the old one
    gate.set()
    assert (old.outcome(), new, made.fetch.entry("b1").value) == ("b11", "b12", "b12")


def test_one_string_is_one_tag(users):
    """A single string is taken for one tag, fixed or asked."""
    for tags in ("prices", lambda key: "prices"):
        made = users(tags=tags)
        made.call("a1")
        assert (made.fetch.invalidate_tag("p"), made.fetch.invalidate_tag("prices")) == (0, 1)


def test_a_put_value_has_tags(users):
    """What is put is tagged as what lands, and goes with its tag."""
    made = users()
    made.fetch.put("x", "a1")
    assert made.fetch.invalidate_tag("tag:a") == 1


def test_an_entry_that_is_replaced_loses_its_tags(users):
    """The tags of a value go with it: those of the next one count."""
    tags = {"a1": ["old"]}
    made = users(tags=lambda key: tags[key])
    made.call("a1")
    tags["a1"] = ["new"]
    made.driver.call(made.fetch.refresh, "a1")
    assert (made.fetch.invalidate_tag("old"), made.fetch.invalidate_tag("new")) == (0, 1)


def test_every_item_of_a_bulk_call_has_its_tags(users):
    """Items are stored, refused and dropped one by one; what came unasked is as old as the loader's call."""
    made = users()
    gate = made.hold(0)
    caller = made.begin(["a1", "b1"], made.load)
    made.fetch.invalidate_tag("tag:a", "tag:e")
    gate.set()
    assert caller.outcome() == {"a1": "a10", "b1": "b10"}
    assert made.stored() == {"b1"}


def test_a_bulk_follower_of_a_refused_flight_has_a_value(users):
    """A value that a tag kept from being stored is a value: a bulk answer that shares it holds it."""
    made = users(follower_retries=0)
    gate = made.hold(0)
    leader = made.begin("a1")
    before = made.seen.count("wait")
    bulk = made.driver.start(made.load, ["a1"])
    made.seen.wait_for("wait", before + 1)
    made.fetch.invalidate_tag("tag:a")
    gate.set()
    assert (leader.outcome(), bulk.outcome()) == ("a10", {"a1": "a10"})


def test_a_renewal_that_began_before_is_not_stored(users):
    """A background renewal lands with the tag, and leaves nothing behind."""
    made = users(ttl=10, grace=100)
    made.call("a1")
    made.clock.advance(11)
    gate = made.hold(1)
    assert made.call("a1") == "a10"
    made.runs.wait_for(2)
    assert made.fetch.invalidate_tag("tag:a") == 1
    gate.set()
    until(lambda: not made.fetch.flights())
    assert made.stored() == set()
    assert made.call("a1") == "a12"


def test_tags_go_with_what_leaves(users):
    """Evicted, expired and invalidated entries take their tags along."""
    made = users(maxsize=2, ttl=10)
    for key in ("a1", "a2", "b1"):
        made.call(key)
    assert made.fetch.invalidate_tag("all") == 2
    made.call("a1")
    made.clock.advance(11)
    made.call("b1")
    assert made.fetch.invalidate_tag("tag:a") == 0
    made.fetch.cache_clear()
    assert made.fetch.invalidate_tag("all") == 0


def test_what_tags_raises_fails_the_flight(users):
    """An exception of `tags`, or a result that is no strings, reaches the caller; the key is free again."""

    def tags(key):
        if key == "a1":
            raise ValueError("no tags")
        return [7]

    made = users(tags=tags)
    with pytest.raises(ValueError, match="no tags"):
        made.call("a1")
    with pytest.raises(TypeError, match="tags: expected strings, got 7"):
        made.call("a2")
    assert (made.stored(), made.fetch.flights()) == (set(), ())
    with pytest.raises(ValueError, match="no tags"):
        made.fetch.put("x", "a1")


@pytest.mark.parametrize("tags", [7, None, [7], ["a", None], b"bytes"])
def test_bad_tags_are_named_at_decoration(tags):
    """Anything but strings or a callable is a `TypeError` that names the option."""
    with pytest.raises(TypeError, match="tags: expected strings"):
        single_flight_ttl(ttl=60, tags=tags)(len)

    async def of(landing):
        return []

    with pytest.raises(TypeError, match="tags"):
        single_flight_ttl(ttl=60, tags=of)(len)


def test_bad_tags_to_invalidate_are_named():
    """`invalidate_tag` wants at least one string, and changes nothing otherwise."""

    @single_flight_ttl(ttl=60, tags="t")
    def fetch(key):
        return key

    fetch(1)
    for invalidate in (fetch.invalidate_tag, invalidate_tag):
        with pytest.raises(TypeError, match="at least one tag"):
            invalidate()
        with pytest.raises(TypeError, match="invalidate_tag: expected strings, got 7"):
            invalidate("t", 7)
    assert fetch.stats().entries == 1


def test_the_process_drops_a_tag_everywhere():
    """`singleflight.invalidate_tag` reaches all functions; those without tags keep everything."""

    @single_flight_ttl(ttl=60, tags="everywhere:1")
    def fixed(key):
        return key

    @single_flight_ttl(ttl=60, tags=lambda landing: f"everywhere:{landing.value}")
    def asked(key):
        return key

    @single_flight_ttl(ttl=60)
    def without(key):
        return key

    for function in (fixed, asked, without):
        function(1), function(2)
    assert invalidate_tag("everywhere:1") == 3
    assert [function.stats().entries for function in (fixed, asked, without)] == [0, 1, 2]
    assert without.invalidate_tag("everywhere:1") == 0


def test_a_method_has_tags_and_lets_its_instance_go():
    """Tags work with the default key of a method, and keep no instance alive."""

    class Account:
        @single_flight_ttl(ttl=60, tags=lambda landing: [landing.value])
        def name(self, number):
            return f"n{number}"

    first, second = Account(), Account()
    for account in (first, second):
        account.name(1), account.name(2)
    assert first.name.invalidate_tag("n1") == 2
    gone = weakref.ref(first)
    del first, account
    gc.collect()
    assert gone() is None
    assert second.name.invalidate_tag("n2") == 1


def test_many_invalidated_tags_are_forgotten():
    """What was invalidated is remembered only while a flight from before may land with it."""

    @single_flight_ttl(ttl=60, tags=lambda landing: [f"tag:{landing.key[0]}"])
    def fetch(key):
        if key == "slow":
            for number in range(1000):
                fetch.invalidate_tag(f"tag:{number}")
            fetch.invalidate_tag("tag:slow")
            for number in range(1000):
                fetch.invalidate_tag(f"tag:{number}")
        return key

    fetch("slow")
    assert fetch.entry("slow") is None
    for number in range(5000):
        fetch.invalidate_tag(f"tag:{number}")
    assert len(fetch._self_cache.store._cuts) <= 64


def invalidate_many(made):
    """So many that those are forgotten which nothing in progress can land with."""
    for number in range(1000):
        made.fetch.invalidate_tag(f"number {number}")


def test_a_tag_is_not_forgotten_while_any_flight_is_older(users):
    """Also where a loader's call has begun since."""
    made = users()
    gates = [made.hold(0), made.hold(1)]
    caller = made.begin("a1")
    made.fetch.invalidate_tag("tag:a")
    bulk = made.begin(["b1"], made.load)
    invalidate_many(made)
    for gate in gates:
        gate.set()
    assert (caller.outcome(), bulk.outcome()) == ("a10", {"b1": "b11"})
    assert made.stored() == {"b1", "extra"}


def test_a_tag_is_not_forgotten_while_a_loader_may_bring_it_unasked(users):
    """Also where all keys that the loader was called for have been invalidated."""
    made = users()
    gate = made.hold(0)
    bulk = made.begin(["a1"], made.load)
    made.fetch.invalidate_tag("tag:e")
    made.fetch.invalidate("a1")
    invalidate_many(made)
    gate.set()
    assert bulk.outcome() == {"a1": "a10"}
    assert made.stored() == set()


def test_tasks_and_their_tags_on_one_loop():
    """An invalidation amid many tasks refuses those that began before it alone."""

    async def main():
        gate = asyncio.Event()

        @single_flight_ttl(ttl=60, tags=lambda landing: ["all"])
        async def fetch(key):
            if key < 5:
                await gate.wait()
            return key

        before = [asyncio.ensure_future(fetch(key)) for key in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        fetch.invalidate_tag("all")
        after = [await fetch(key) for key in range(5, 10)]
        gate.set()
        assert [await each for each in before] + after == list(range(10))
        return [key for key in range(10) if fetch.entry(key) is not None]

    assert asyncio.run(main()) == [5, 6, 7, 8, 9]
