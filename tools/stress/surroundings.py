"""The same for what stands around the calls: locks, registries, events, clocks, switches."""

from __future__ import annotations

from collections import deque

import singleflight
from singleflight import FlightDeadlock, FlightTimeout, KeyedLocks, single_flight_ttl
from singleflight.testing import FakeClock

from .together import case, received, together


@case
def keyed_locks_exclude(seconds: float) -> None:
    """One holder for a key, by one key or several, while others give up, and idle locks go."""
    locks = KeyedLocks(max_idle=2)
    holders = [0, 0, 0]

    def hold(*keys):
        for key in keys:
            holders[key] += 1
            assert holders[key] == 1
        for key in keys:
            holders[key] -= 1

    def one(number):
        with locks(number % 3):
            hold(number % 3)

    def several(number):
        with locks(2, number % 2):
            hold(2, number % 2)

    def impatient(number):
        try:
            with locks(number % 3, timeout=0):
                hold(number % 3)
        except FlightTimeout:
            locks.evict_idle()

    together(seconds, one, one, several, several, impatient)
    assert (holders, len(locks) - locks.idle) == ([0, 0, 0], 0)


@case
def cycles_are_told_while_registries_come_and_go(seconds: float) -> None:
    """Two who want each other's lock: one is refused; meanwhile other registries are made and forgotten."""
    locks, refused = KeyedLocks(), set()

    def cross(first, second):
        def run(number):
            try:
                with locks(first):
                    with locks(second):
                        pass
            except FlightDeadlock as error:
                refused.add(str(error))

        return run

    def make(number):
        for _ in range(10):
            with KeyedLocks()("other"):
                pass

    together(seconds, cross("A", "B"), cross("B", "A"), make, make)
    assert len(locks) == locks.idle == 2
    cycles = ("'A' -> 'B' -> 'A'", "'B' -> 'A' -> 'B'")
    assert refused <= {f"waiting would never end: {cycle}" for cycle in cycles}, refused


@case
def functions_come_and_go(seconds: float) -> None:
    """Decorated in several threads, while all of them are listed."""

    def make(number):
        @single_flight_ttl(ttl=60)
        def fetch(key=number % 7, *, other=1):
            return key, other

        assert fetch() == fetch(other=1) == (number % 7, 1)
        stats = fetch.stats()
        assert (stats.hits, stats.fetches) == (1, 1), stats

    def look(number):
        for cached in singleflight.caches():
            cached.stats()
        singleflight.report()

    together(seconds, make, make, make, look)


@case
def events_are_numbered(seconds: float) -> None:
    """Every event has a number of its own, and none is left out."""
    numbers: deque[int] = deque()

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=lambda event: numbers.append(event.sequence))
    def fetch(key):
        return key

    together(seconds, *[lambda number: fetch(number % 3)] * 3, lambda number: fetch.invalidate(number % 3))
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


@case
def a_clock_adds_up(seconds: float) -> None:
    """A fake clock that several threads advance."""
    clock = FakeClock()
    steps = together(seconds, *[lambda number: clock.advance(1)] * 4)
    assert clock() == sum(steps)


@case
def bypassing_while_others_ask(seconds: float) -> None:
    """Blocks that are entered and left leave the fast path as it was."""

    @single_flight_ttl(ttl=60)
    def fetch():
        return "value"

    def bypass(number):
        with fetch.bypass():
            assert fetch() == "value"

    def ask(number):
        assert fetch() == "value"

    together(seconds, bypass, bypass, ask, ask)
    before = fetch.stats()
    assert fetch() == fetch() == "value"
    assert received(fetch.stats()) == received(before) + 2
    assert fetch.stats().calls - before.calls <= 1
