"""What a bulk answer holds, and what is missing from it, on whatever way a value comes to it."""

import pytest

from singleflight import configure_renewal
from singleflight.testing import FakeClock, Recorder

from ..drivers import Executions, until


class Outage:
    """A loader that answers with what `answers` has, and a getter with what `singles` has, or the same.

    Executions may be held, each at its gate.
    """

    def __init__(self, driver, answers, singles=None, **options):
        self.driver, self.answers, self.gates = driver, answers, {}
        self.begun, self.ran, self.seen = Executions(), [], Recorder()

        async def price(symbol):
            await self.hold(symbol)
            return (singles or self.answers)[symbol]

        async def prices(symbols):
            await self.hold("".join(symbols))
            return {symbol: self.answers[symbol] for symbol in symbols if symbol in self.answers}

        self.price = driver.decorate(price, key=lambda symbol: symbol, listener=self.seen, **options)
        self.prices = driver.loader(self.price, prices)

    async def hold(self, what):
        self.ran.append(what)
        gate = self.gates.get(self.begun.begin())
        if gate is not None:
            await gate

    def led(self, run, argument):
        """A caller whose execution has begun, and the gate that it is held at."""
        number = self.begun.begun
        gate = self.gates[number] = self.driver.gate()
        caller = self.driver.start(run, argument)
        self.begun.wait_for(number + 1)
        return caller, gate

    def followed(self, key, count):
        """Wait until so many callers follow the flight for a key."""
        until(lambda: {each.key: each.followers for each in self.price.flights()}.get(key) == count)


REFUSED = {
    "None, by default": (None, {}),
    "what cache_if refuses": (-1.0, {"cache_if": lambda price: price > 0}),
    "None, with a cache_if of one's own": (None, {"cache_if": lambda price: bool(price)}),
}


@pytest.fixture(params=REFUSED.values(), ids=REFUSED)
def refused(request):
    """A value that is not stored, and the options that say so."""
    return request.param


def test_what_two_single_callers_got_and_is_refused_is_missing(driver, refused):
    """One single caller leads, another one leads the retry: a bulk caller that followed has nothing."""
    value, options = refused
    outage = Outage(driver, {"A": value, "B": 2.0}, **options)
    first, landing = outage.led(outage.price, "A")
    second = driver.start(outage.price, "A")
    outage.followed("A", 1)
    bulk, busy = outage.led(outage.prices, ["A", "B"])  # busy with B, so that it does not lead the retry
    outage.followed("A", 2)
    landing.set()
    assert (first.outcome(), second.outcome()) == (value, value)
    busy.set()
    assert bulk.outcome() == {"B": 2.0}
    assert outage.ran == ["A", "B", "A"]
    assert (outage.price.entry("A"), outage.price.flights()) == (None, ())
    stats = outage.price.stats()
    assert (stats.fetches, stats.waits, stats.uncached, stats.errors) == (3, 1, 2, 0)


@pytest.mark.parametrize("how", ["call", "refresh"])
def test_what_a_single_caller_shares_and_is_refused_is_missing(driver, refused, how):
    """Without retries a bulk caller that waits for a single one shares what is refused, and leaves it out."""
    value, options = refused
    outage = Outage(driver, {"A": value}, follower_retries=0, **options)
    single, landing = outage.led(outage.price if how == "call" else outage.price.refresh, "A")
    bulk = driver.start(outage.prices, ["A"])
    outage.seen.wait_for("wait")
    landing.set()
    assert (single.outcome(), bulk.outcome()) == (value, {})
    assert outage.ran == ["A"]


@pytest.mark.parametrize("loaded", [{}, {"A": 1.0}])
def test_what_the_retry_of_a_single_call_brings_in_bulk(driver, refused, loaded):
    """A bulk caller that leads the retry of a single call asks its loader, whose word it then is."""
    value, options = refused
    outage = Outage(driver, loaded, {"A": value}, **options)
    single, landing = outage.led(outage.price, "A")
    bulk = driver.start(outage.prices, ["A"])
    outage.seen.wait_for("wait")
    landing.set()
    assert (single.outcome(), bulk.outcome()) == (value, loaded)
    assert outage.ran == ["A", "A"]


def test_what_is_refused_after_an_invalidation_is_missing(driver, refused):
    """Callers of a flight that was invalidated get its value, unless it is refused."""
    value, options = refused
    outage = Outage(driver, {"A": value, "B": 2.0}, follower_retries=0, **options)
    singles = [outage.led(outage.price, symbol) for symbol in "AB"]
    bulk = driver.start(outage.prices, ["A", "B"])
    outage.seen.wait_for("wait")
    assert outage.price.invalidate("A")
    assert outage.price.invalidate("B")
    for _, landing in singles:
        landing.set()
    assert [caller.outcome() for caller, _ in singles] == [value, 2.0]
    assert bulk.outcome() == {"B": 2.0}
    assert outage.price.entry("B") is None


@pytest.mark.parametrize("ttl", [0, lambda landing: 0])
def test_what_is_not_stored_for_its_ttl_alone_is_there(driver, ttl):
    """With a ttl of 0 values are shared and not stored: they are in the answer, whoever fetched them."""
    outage = Outage(driver, {"A": 1.0, "B": 2.0}, ttl=ttl)
    single, landing = outage.led(outage.price, "A")
    bulk = driver.start(outage.prices, ["A", "B"])
    outage.seen.wait_for("wait")
    landing.set()
    assert single.outcome() == 1.0
    assert bulk.outcome() == {"A": 1.0, "B": 2.0}
    assert outage.price.stats().entries == 0


def test_what_a_loader_brings_is_the_same_for_all_who_follow_it(driver, refused):
    """Its word for a key it was asked for stands, though refused: who calls it and who follows agree."""
    value, options = refused
    outage = Outage(driver, {"A": value}, follower_retries=0, **options)
    leader, landing = outage.led(outage.prices, ["A", "B"])
    follower = driver.start(outage.prices, ["B", "A"])
    single = driver.start(outage.price, "A")
    outage.seen.wait_for("wait", 2)
    landing.set()
    assert leader.outcome() == follower.outcome() == {"A": value}
    assert single.outcome() == value
    assert outage.price.entry("A") is None


def test_what_was_put_is_there(driver):
    """A stored value is a value, whatever `cache_if` would have said."""
    outage = Outage(driver, {"B": 2.0})
    outage.price.put(None, "A")
    assert driver.call(outage.prices, ["A", "B"]) == {"A": None, "B": 2.0}


def test_what_is_put_meanwhile_is_there(driver):
    """A bulk caller that wakes to a refused value, and finds another one stored, takes that."""
    outage = Outage(driver, {"A": None, "B": 2.0})
    single, landing = outage.led(outage.price, "A")
    bulk, busy = outage.led(outage.prices, ["A", "B"])
    landing.set()
    assert single.outcome() is None
    outage.price.put(3.0, "A")
    busy.set()
    assert bulk.outcome() == {"A": 3.0, "B": 2.0}
    assert outage.ran == ["A", "B"]


@pytest.fixture
def no_pool():
    """Renewals find no thread: a thread that is blocked has the only one."""
    configure_renewal(threads=1, queued=0)
    yield
    configure_renewal()


class Renewed(Outage):
    """Two stale values, and no thread in the pool that could renew them."""

    def __init__(self, driver, answers, **options):
        clock = FakeClock()
        super().__init__(driver, answers, timer=clock, grace=60, **options)
        blocker = Outage(driver, {"A": 1.0}, timer=clock, grace=60)
        for outage, symbols in ((self, "AB"), (blocker, "A")):
            for symbol in symbols:
                outage.price.put(0.5, symbol)
        clock.advance(61)
        blocker.gates[0] = driver.gate()
        blocker.price.plain("A")
        blocker.begun.wait_for(1)
        self.release = blocker.gates[0].set


@pytest.fixture
def threads(no_pool):
    """Callers that are threads."""
    from .conftest import BulkDriver

    driver = BulkDriver("thread")
    yield driver
    driver.close()


def test_a_renewal_in_line_is_answered(threads):
    """Where the pool is full a bulk caller renews stale values itself, and answers what it has fetched."""
    outage = Renewed(threads, {"A": 1.0, "B": 2.0, "C": 3.0})
    assert threads.call(outage.prices, list("CAB")) == {"C": 3.0, "A": 1.0, "B": 2.0}
    assert sorted(outage.ran) == ["AB", "C"]
    assert threads.call(outage.prices, list("AB")) == {"A": 1.0, "B": 2.0}
    assert threads.call(outage.price, "A") == 1.0
    stats = outage.price.stats()
    assert (stats.stale_hits, stats.hits, stats.refreshes, stats.calls) == (2, 3, 1, 2)


def test_a_renewal_in_line_that_brings_what_is_refused_keeps_the_value(threads, refused):
    """As in the background, and as for a single caller: the stale value is there and is answered."""
    value, options = refused
    outage = Renewed(threads, {"A": value, "B": 2.0}, **options)
    assert threads.call(outage.prices, ["A", "B"]) == {"A": 0.5, "B": 2.0}
    assert outage.price.entry("A").value == 0.5


def test_a_renewal_in_line_that_leaves_a_key_out_keeps_the_value(threads):
    """What the loader left out is answered with what is there."""
    outage = Renewed(threads, {"B": 2.0})
    assert threads.call(outage.prices, ["A", "B"]) == {"A": 0.5, "B": 2.0}


@pytest.mark.parametrize("option", ["ttl", "cache_if"])
def test_a_renewal_in_line_whose_landing_fails_keeps_the_value(threads, option):
    """What `ttl` or `cache_if` raises for a key in line is counted, and its old value is answered."""

    def refuse(landing):
        price = landing if option == "cache_if" else landing.value
        if price == 1.0:
            raise LookupError(price)
        return 60

    outage = Renewed(threads, {"A": 1.0, "B": 2.0}, **{option: refuse})
    assert threads.call(outage.prices, ["A", "B"]) == {"A": 0.5, "B": 2.0}
    assert outage.price.stats().failures == 1
