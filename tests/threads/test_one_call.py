"""Many threads, one call."""

import threading

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import FakeClock, Recorder


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


@pytest.mark.parametrize("keys", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_many_keys_pass_through_in_bounded_memory(keys):
    """Neither entries nor idle locks grow past their limits."""

    @single_flight_ttl(ttl=60, maxsize=100, max_idle_locks=100)
    def fetch(key):
        return key

    for key in range(keys):
        fetch(key)
    stats = fetch.stats()
    assert (stats.entries, stats.idle_locks, stats.locks) == (100, 100, 100)
    assert stats.evictions == keys - 100


def test_no_idle_locks_are_kept_with_zero():
    """max_idle_locks=0 leaves an empty registry when all is quiet."""

    @single_flight_ttl(ttl=60, max_idle_locks=0)
    def fetch(key):
        return key

    for key in range(10):
        fetch(key)
    assert len(fetch.locks) == 0
