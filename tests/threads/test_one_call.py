"""Many threads, one call."""

import contextlib
import threading

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import FakeClock, Recorder


@pytest.mark.parametrize("callers", [10, 100, 1000])
def test_a_cold_key_is_called_once(crowd, gate, callers):
    """However many threads ask for a cold key, the function runs once and all get its value."""
    seen, calls = Recorder(), []

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch(key):
        calls.append(key)
        gate.pass_()
        return object()

    crowd.add(fetch, "A", count=callers)
    seen.wait_for("wait", callers - 1)
    gate.set()
    values = crowd.join()
    assert calls == ["A"]
    assert len(set(map(id, values))) == 1
    stats = fetch.stats()
    assert (stats.fetches, stats.waits, stats.in_flight, stats.calls) == (1, callers - 1, 0, 1)


def test_distinct_keys_overlap(crowd):
    """Ten threads on ten keys run at the same time."""
    together = threading.Barrier(10)

    @single_flight_ttl(ttl=60)
    def fetch(key):
        together.wait(10)
        return key

    for key in range(10):
        crowd.add(fetch, key)
    assert crowd.join() == list(range(10))


def test_keys_with_equal_hashes_do_not_share_a_lock(crowd):
    """Keys that collide in a dictionary are still two keys."""
    together = threading.Barrier(2)

    class Collider:
        def __hash__(self):
            return 1

    @single_flight_ttl(ttl=60)
    def fetch(key):
        together.wait(10)

    crowd.add(fetch, Collider())
    crowd.add(fetch, Collider())
    assert crowd.join() == [None, None]


def test_a_late_caller_finds_the_value(gate):
    """Who arrives after the landing is a hit, until the ttl has passed."""
    clock, calls = FakeClock(), []

    @single_flight_ttl(ttl=60, timer=clock)
    def fetch():
        calls.append(clock())
        return clock()

    assert fetch() == 0.0
    clock.advance(59.999)
    assert fetch() == 0.0
    clock.advance(0.001)
    assert fetch() == 60.0
    assert calls == [0.0, 60.0]


def test_a_ttl_that_ends_while_callers_wait(crowd, gate):
    """The lifetime counts from the landing, not from the start of the call."""
    clock, seen = FakeClock(), Recorder()

    @single_flight_ttl(ttl=1, timer=clock, listener=seen)
    def fetch():
        gate.pass_()
        return clock()

    crowd.add(fetch, count=2)
    seen.wait_for("wait")
    clock.advance(100)
    gate.set()
    assert crowd.join() == [100.0, 100.0]
    assert fetch() == 100.0
    assert fetch.stats().calls == 1


def test_ttl_zero_coalesces_and_stores_nothing(crowd, gate):
    """With a ttl of 0 concurrent callers share, and a later one calls again."""
    seen = Recorder()

    @single_flight_ttl(ttl=0, listener=seen)
    def fetch():
        gate.pass_()
        return 1

    crowd.add(fetch, count=3)
    seen.wait_for("wait", 2)
    gate.set()
    assert crowd.join() == [1, 1, 1]
    assert fetch.stats().calls == 1
    assert fetch() == 1
    assert (fetch.stats().calls, fetch.stats().entries, fetch.entry()) == (2, 0, None)


def test_wait_timeout_ends_one_caller_alone(crowd, gate):
    """A follower whose patience ends gets FlightTimeout; the leader and its value are not disturbed."""
    seen = Recorder()

    @single_flight_ttl(ttl=60, wait_timeout=0.02, listener=seen)
    def fetch():
        gate.pass_()
        return 1

    crowd.add(fetch)
    seen.wait_for("fetch")
    with pytest.raises(TimeoutError, match="waited"):
        fetch()
    gate.set()
    assert crowd.join() == [1]
    stats = fetch.stats()
    assert (stats.timeouts, stats.fetches, stats.locks - stats.idle_locks) == (1, 1, 0)
    assert fetch() == 1


def test_the_six_counts_sum_to_the_calls(crowd):
    """Hits, stale hits, waits, fetches, errors and timeouts sum to the calls received, under contention."""
    start = threading.Barrier(8)

    @single_flight_ttl(ttl=60, maxsize=5, follower_retries=0)
    def fetch(key):
        if key == 3:
            raise ValueError(key)
        return None if key == 4 else key

    def hammer():
        start.wait(10)
        for number in range(2000):
            with contextlib.suppress(ValueError):
                fetch(number % 9)

    crowd.add(hammer, count=8)
    assert crowd.join() == [None] * 8
    s = fetch.stats()
    assert s.hits + s.stale_hits + s.waits + s.fetches + s.errors + s.timeouts == 16_000
    assert s.in_flight == 0
    assert s.locks == s.idle_locks


def test_a_million_keys_pass_through_in_bounded_memory():
    """Neither entries nor idle locks grow past their limits."""

    @single_flight_ttl(ttl=60, maxsize=100, max_idle_locks=100)
    def fetch(key):
        return key

    for key in range(1_000_000):
        fetch(key)
    stats = fetch.stats()
    assert (stats.entries, stats.idle_locks, stats.locks) == (100, 100, 100)
    assert stats.evictions == 1_000_000 - 100


def test_no_idle_locks_are_kept_with_zero():
    """max_idle_locks=0 leaves an empty registry when all is quiet."""

    @single_flight_ttl(ttl=60, max_idle_locks=0)
    def fetch(key):
        return key

    for key in range(10):
        fetch(key)
    assert len(fetch.locks) == 0
