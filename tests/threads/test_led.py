"""What a thread does with a flight that it leads for a tier, and what it says when it holds up a loop."""

import asyncio
import warnings

import pytest

from singleflight import single_flight_ttl
from singleflight.core.landing import land
from singleflight.testing import FakeClock, Recorder


class Tier:
    """What `store=` makes, with nothing behind it: notes the keys and runs the function."""

    def __init__(self, cache):
        self.cache, self.led = cache, []

    def lead(self, flight, execute):
        self.led.append(flight.key)
        value = execute()
        land(self.cache, flight, value)
        return value

    def counted(self):
        return {}


def with_tier(function, **options):
    decorated = single_flight_ttl(ttl=10, **options)(function)
    cache = decorated._self_cache
    cache.tier = Tier(cache)
    cache.choose_way()
    return decorated, cache.tier


def test_a_tier_leads_the_flight_of_a_thread():
    """It has the function run with the arguments as they came, and lands its value."""
    fetch, tier = with_tier(lambda symbol, side="bid": [symbol, side])
    value = fetch("A", side="ask")
    assert value == ["A", "ask"]
    assert fetch("A", "ask") is value
    assert tier.led == [("A", "ask")]
    assert fetch.refresh("A", "ask") == value
    assert tier.led == [("A", "ask")] * 2
    assert fetch.stats().calls == 2


def test_a_tier_leads_the_renewal_of_a_thread(until):
    """What it lands is served from then on."""
    clock, brought = FakeClock(), iter(range(10))
    fetch, tier = with_tier(lambda symbol: (symbol, next(brought)), grace=60, timer=clock)
    assert fetch("A") == ("A", 0)
    clock.advance(11)
    assert fetch("A") == ("A", 0)
    until(lambda: fetch.entry("A").value == ("A", 1))
    assert tier.led == [("A",)] * 2


def test_a_failure_of_a_tier_is_the_flights():
    """It reaches the caller, and the key is free."""
    fetch, tier = with_tier(lambda symbol: symbol)

    def fail(flight, execute):
        raise ConnectionError("no server")

    tier.lead, lead = fail, tier.lead
    with pytest.raises(ConnectionError, match="no server"):
        fetch("A")
    tier.lead = lead
    assert fetch("A") == "A"
    assert fetch.stats().errors == 1


@pytest.mark.parametrize("debug", [True, False])
def test_a_thread_that_holds_up_its_loop_says_so_once(crowd, make_gate, debug):
    """In asyncio's debug mode a wait for another caller warns, once for a function; without it none does."""
    entered, gates, seen = [], {key: make_gate() for key in "ABC"}, Recorder()

    @single_flight_ttl(ttl=60, listener=seen, name="prices")
    def fetch(key):
        entered.append(key)
        gates[key].pass_()
        return key

    def release(key, number):
        seen.wait_for("wait", count=number)
        gates[key].set()

    async def main():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert [fetch(key) for key in "AB"] == ["A", "B"]
        return caught

    for number, key in enumerate("AB", 1):
        crowd.add(fetch, key)
        seen.wait_for("fetch", count=number)
        crowd.add(release, key, number)
    caught = [each for each in asyncio.run(main(), debug=debug) if each.category is RuntimeWarning]
    assert [str(each.message) for each in caught] == [
        "prices waits for another caller on the thread of an event loop, which stands still meanwhile; await "
        "a coroutine function there (see .twin), or call it in asyncio.to_thread"
    ] * debug
    crowd.join()


def test_a_thread_without_a_loop_says_nothing(crowd, make_gate):
    """It holds up nobody."""
    gate, seen = make_gate(), Recorder()

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch():
        gate.pass_()
        return 1

    crowd.add(fetch)
    seen.wait_for("fetch")

    def release():
        seen.wait_for("wait")
        gate.set()

    crowd.add(release)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fetch() == 1
    crowd.join()
