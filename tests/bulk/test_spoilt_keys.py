"""A key that is spoilt while a loader runs harms only itself."""

import pytest

from singleflight import drain_sync
from singleflight.testing import FakeClock, Recorder

from ..drivers import Executions
from ..spoilt import SPOIL, Key, SpoiltError


@pytest.fixture(params=SPOIL.values(), ids=SPOIL)
def spoil(request):
    """What happens to a key."""
    return request.param


@pytest.fixture(params=["part of the key", "the key itself"])
def keyed(request):
    """Options: a default key, which is a tuple, and the user's own object."""
    return {} if request.param == "part of the key" else {"key": lambda key: key}


class Held:
    """A loader that waits in its first call, and answers with what its keys were called at first."""

    def __init__(self, driver, answer=None, max_batch=None, **options):
        self.driver, self.seen, gate, self.executions = driver, Recorder(), driver.gate(), Executions()
        answer = answer or (lambda keys: {key: key.first for key in keys})

        async def price(key):
            self.executions.begin()
            return key.first

        async def prices(keys):
            if self.executions.begin() == 0:
                await gate
            return answer(keys)

        self.price = driver.decorate(price, listener=self.seen, **options)
        self.prices = driver.loader(self.price, prices, max_batch=max_batch)
        self.open = gate.set

    def settled(self):
        stats = self.price.stats()
        assert self.price.flights() == ()
        assert (stats.in_flight, stats.locks - stats.idle_locks) == (0, 0)
        assert drain_sync(timeout=5)
        return stats


def values(outcome):
    """What a bulk call answered, or nothing where a spoilt key made that impossible."""
    if isinstance(outcome, SpoiltError):
        return None
    assert isinstance(outcome, dict), repr(outcome)
    return sorted(outcome.values())


def test_the_others_of_its_call_are_loaded(driver, spoil, keyed):
    """They are stored, and those who wait for them, and for the spoilt one, are served."""
    others = {}

    def answer(keys):
        # A loader that cannot hash what it was asked for answers with what it can.
        return {others.get(key.first, key): key.first for key in keys}

    held = Held(driver, answer, **keyed)
    keys = [Key(name) for name in "ABC"]
    others["B"] = Key("B")
    driver.start(held.prices, keys)
    held.executions.wait_for(1)
    single = driver.start(held.price, Key("A"))
    held.seen.wait_for("wait")
    spoil(keys[1])
    held.open()
    got = values(driver.callers[0].outcome())
    assert got is None or {"A", "C"} <= set(got)
    assert single.outcome() == "A"
    assert [driver.call(held.price, Key(name)) for name in "AC"] == ["A", "C"]
    stats = held.settled()
    assert (stats.hits, stats.waits) == (2, 1)


@pytest.mark.parametrize("max_batch", [None, 1])
def test_a_loader_that_fails_frees_every_key(driver, spoil, keyed, max_batch):
    """Also those that it was not called for."""

    def answer(keys):
        raise LookupError(len(keys))

    held = Held(driver, answer, max_batch, **keyed)
    keys = [Key(name) for name in "ABC"]
    driver.start(held.prices, keys)
    held.executions.wait_for(1)
    for key in keys[1:]:
        spoil(key)
    held.open()
    assert isinstance(driver.callers[0].outcome(), LookupError)
    held.settled()


def test_it_may_be_spoilt_before_its_turn(driver, spoil, keyed):
    """A loader that takes one item at a time is asked for each as it was passed."""
    held = Held(driver, lambda keys: {Key(key.first): key.first for key in keys}, max_batch=1, **keyed)
    keys = [Key(name) for name in "ABC"]
    driver.start(held.prices, keys)
    held.executions.wait_for(1)
    spoil(keys[1])
    held.open()
    got = values(driver.callers[0].outcome())
    assert got is None or {"A", "C"} <= set(got)
    assert [driver.call(held.price, Key(name)) for name in "AC"] == ["A", "C"]
    assert held.settled().hits == 2


def test_values_that_were_found_before_are_answered(driver, keyed):
    """Which of them a key belongs to is not asked of the key again."""
    held = Held(driver, **keyed)
    for name in "AB":
        held.price.put(name, Key(name))
    keys = [Key(name) for name in "ABC"]
    driver.start(held.prices, keys)
    held.executions.wait_for(1)
    keys[0].name += "'"
    held.open()
    assert values(driver.callers[0].outcome()) == ["A", "B", "C"]
    held.settled()


def test_a_renewal_of_spoilt_keys_ends(driver, spoil, keyed):
    """The stale values were served, and sound keys are renewed."""
    clock = FakeClock()
    held = Held(
        driver, lambda keys: {Key(key.first): key.first for key in keys}, grace=60, timer=clock, **keyed
    )
    keys = [Key(name) for name in "ABC"]
    for key in keys:
        held.price.put("old", key)
    clock.advance(61)
    assert values(driver.call(held.prices, keys)) == ["old"] * 3
    held.executions.wait_for(1)
    spoil(keys[1])
    held.open()
    assert drain_sync(timeout=10)
    held.settled()
    assert driver.call(held.price, Key("D")) == "D"
    clock.advance(200)
    assert held.settled().entries == 0


@pytest.mark.parametrize("failure_ttl", [0, 60])
def test_it_is_logged_once_all_flights_of_the_call_have_ended(driver, monkeypatch, failure_ttl):
    """What kept an outcome from being stored: that runs a key's `__repr__`, which nobody waits for."""
    flying = []

    class Seen(Key):
        def __repr__(self):
            flying.append(len(cache.locks.live()))
            return "Seen()"

    def answer(keys):
        if failure_ttl:
            raise LookupError
        return {key: key.first for key in keys}

    def put(record, publisher):
        if type(record.key) is Seen:
            raise SpoiltError("compare")
        return store(record, publisher)

    held = Held(driver, answer, key=lambda key: key, failure_ttl=failure_ttl)
    cache = held.price._self_cache
    store = cache.store.put
    monkeypatch.setattr(cache.store, "put", put)
    held.open()
    driver.start(held.prices, [Seen("A"), Key("B")])
    driver.outcomes()
    assert flying == [0]
    assert held.settled().entries == 1  # the value, or the failure, of "B"
