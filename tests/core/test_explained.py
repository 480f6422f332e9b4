"""What a call would do, in each state that a key can be in; and a flight that loses its key from outside."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from singleflight import single_flight_ttl
from singleflight.core.controls import detach_flight
from singleflight.testing import FakeClock

from ..drivers import PATIENCE


class Source:
    """A function with a clock, and a gate that a test may shut."""

    def __init__(self):
        self.clock, self.gate, self.entered = FakeClock(), threading.Event(), threading.Semaphore(0)
        self.gate.set()
        self.fails = False
        self.read = single_flight_ttl(ttl=10, grace=20, failure_ttl=5, timer=self.clock, name="read")(
            self._load
        )

    def _load(self, symbol):
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        if self.fails:
            raise ValueError(symbol)
        return symbol

    def told(self):
        made = self.read.explain("ASML")
        assert made.key == ("ASML",)
        return made.would, made.entry and made.entry.value, made.flight, made.fresh_for, made.stale_for


@pytest.fixture
def source():
    return Source()


def test_a_value_that_ages(source):
    """To the moment: fresh, stale, and no longer there."""
    assert source.told() == ("fetch", None, None, 0.0, 0.0)
    source.read("ASML")
    for passed, told in [
        (0.0, ("hit", "ASML", None, 10.0, 20.0)),
        (9.5, ("hit", "ASML", None, 0.5, 20.0)),
        (0.5, ("stale_hit", "ASML", None, 0.0, 20.0)),
        (19.5, ("stale_hit", "ASML", None, 0.0, 0.5)),
        (0.5, ("fetch", None, None, 0.0, 0.0)),
    ]:
        source.clock.advance(passed)
        assert source.told() == told


def test_a_failure_that_is_stored(source):
    """It would be raised: there is no entry."""
    source.fails = True
    with pytest.raises(ValueError, match="ASML"):
        source.read("ASML")
    assert source.told() == ("hit", None, None, 5.0, 0.0)


def test_a_function_that_is_bypassed(source):
    """Every call runs it, whatever there is."""
    source.read("ASML")
    with source.read.bypass():
        assert source.told() == ("fetch", None, None, 0.0, 0.0)
    assert source.told()[0] == "hit"


def test_a_flight_and_one_that_has_lost_its_key(source):
    """It is waited for while it has its key, once; a flight that has ended has none to lose."""
    source.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(source.read, "ASML")
        assert source.entered.acquire(timeout=PATIENCE)
        try:
            would, entry, flight, *rest = source.told()
            assert (would, entry, flight.key, rest) == ("wait", None, ("ASML",), [0.0, 0.0])
            cache = source.read._self_cache
            [slot] = cache.locks.live()
            lost = slot.turn
            detach_flight(cache, lost)
            assert source.told()[:3] == ("fetch", None, None)
            second = pool.submit(source.read, "ASML")
            assert source.entered.acquire(timeout=PATIENCE)
            detach_flight(cache, lost)
            assert source.told()[0] == "wait"
        finally:
            source.gate.set()
        assert first.result(PATIENCE) == second.result(PATIENCE) == "ASML"
    assert source.told()[0] == "hit"
