"""What Ctrl-C, a finaliser or a signal handler can do at every line of a stale hit."""

import sys
from pathlib import Path

import pytest

import singleflight
from singleflight import single_flight_ttl
from singleflight.testing import FakeClock

from ..drivers import until
from ..reentry.test_every_line import HOME, AtLine, finish

ROOMS = (
    "coordinator",
    "renewal",
    "threads",
    "wait",
    "pool",
    "landing",
    "leaving",
    "transitions",
    "call",
    "entry",
    "table",
    "flight",
)


class AtOurLine(AtLine):
    """In the rooms that a stale hit goes through."""

    def trace(self, frame, event, argument):
        path = frame.f_code.co_filename
        return self.local if path.startswith(HOME) and Path(path).stem in ROOMS else None


def make():
    clock, calls = FakeClock(), []

    @single_flight_ttl(ttl=10, grace=50, timer=clock)
    def fetch(key):
        calls.append(clock())
        return clock()

    fetch("A"), fetch("B")
    clock.advance(10)
    return fetch, clock, calls


def lines():
    fetch, _, _ = make()
    counter = AtOurLine(10**9, None)
    with counter:
        fetch("A")
    assert singleflight.drain_sync(timeout=10)
    return 10**9 - counter.left


def renewed(fetch, clock, key):
    """It serves, and is renewed sooner or later."""
    assert fetch(key) in (0.0, clock())
    until(lambda: fetch(key) == clock())
    assert singleflight.drain_sync(timeout=10)
    assert fetch.flights() == ()
    stats = fetch.stats()
    assert stats.locks == stats.idle_locks
    until(lambda: singleflight.drivers.pool._pool.under_way == 0)


def test_an_interrupt_at_any_line_of_a_stale_hit():
    """The value can still be served, no renewal is lost, and nothing is left behind."""
    for number in range(lines()):
        fetch, clock, calls = make()

        def strike():
            raise KeyboardInterrupt

        def run(number=number, fetch=fetch, clock=clock, strike=strike):
            try:
                with AtOurLine(number, strike):
                    fetch("A")
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(None)
            renewed(fetch, clock, "A")

        finish(run)
        assert 3 <= len(calls) <= 4


@pytest.mark.parametrize("inner", ["A", "B", "C"])
def test_coming_back(inner):
    """Another call at any line, for the same stale key, another stale one or a new one, breaks nothing."""
    for number in range(lines()):
        fetch, clock, _ = make()

        def run(number=number, fetch=fetch, clock=clock):
            with AtOurLine(number, lambda: fetch(inner)):
                assert fetch("A") in (0.0, 10.0)
            for key in ("A", "B", "C"):
                renewed(fetch, clock, key)

        finish(run)
