"""Hits are counted once, in the record that served, and none is lost when records leave."""

import os
import sys
import threading
from unittest.mock import patch

import pytest

from singleflight import single_flight_ttl
from singleflight.storage.record import Record
from singleflight.telemetry.counters import ThreadedHits, has_global_lock
from singleflight.testing import FakeClock, Recorder

from ..children import in_child


@pytest.fixture
def eager():
    """Threads take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


DISTURBANCES = {
    "invalidate": lambda fetch, number: fetch.invalidate(number % 4),
    "evict": lambda fetch, number: fetch.refresh(100 + number),
    "put": lambda fetch, number: fetch.put(0, number % 4),
    "refresh": lambda fetch, number: fetch.refresh(number % 4),
    "look": lambda fetch, number: fetch.stats(),
}


@pytest.mark.parametrize("disturbance", DISTURBANCES)
@pytest.mark.parametrize("listened", [False, True])
def test_no_hit_is_lost_or_counted_twice(crowd, eager, disturbance, listened):
    """Whatever becomes of the records meanwhile, all calls received are counted, each once."""

    class Deaf:
        """Makes every hit take the longer way."""

        wants = frozenset({"hit"})

        def __call__(self, event):
            pass

    @single_flight_ttl(ttl=60, maxsize=8, key=lambda key: key, listener=Deaf() if listened else None)
    def fetch(key):
        return key

    start, rounds, done = threading.Barrier(4), 3000, threading.Event()

    def ask():
        start.wait(10)
        for number in range(rounds):
            fetch(number % 4)

    def disturb():
        start.wait(10)
        number = 0
        while not done.is_set():
            DISTURBANCES[disturbance](fetch, number)
            number += 1
        return number

    waiters = [threading.Thread(target=ask) for _ in range(3)]
    for thread in waiters:
        thread.start()
    crowd.add(disturb)
    for thread in waiters:
        thread.join(50)
        assert not thread.is_alive()
    done.set()
    (disturbed,) = crowd.join()
    stats = fetch.stats()
    received = stats.hits + stats.waits + stats.fetches + stats.errors
    assert received == 3 * rounds + (disturbed if disturbance in ("evict", "refresh") else 0)


def test_every_way_of_leaving_keeps_the_count():
    """Run out, evicted, replaced, invalidated: the total goes on; clearing zeroes it."""
    clock = FakeClock()

    @single_flight_ttl(ttl=60, maxsize=2, key=lambda key: key, timer=clock)
    def fetch(key):
        return key

    def hits(key, times):
        for _ in range(times):
            fetch(key)

    fetch("runs out"), hits("runs out", 1)
    clock.advance(60)
    assert fetch.stats().hits == 1
    fetch("evicted"), hits("evicted", 2)
    for key in range(4):
        fetch(key)
    assert fetch.entry("evicted") is None
    assert fetch.stats().hits == 3
    fetch.put(1, "replaced"), hits("replaced", 4)
    fetch.put(2, "replaced")
    assert fetch.stats().hits == 7
    hits("replaced", 8)
    fetch.invalidate("replaced")
    assert fetch.stats().hits == 15
    fetch.put(1, "cleared"), hits("cleared", 16)
    fetch.cache_clear()
    assert fetch.stats().hits == 0
    fetch("again"), hits("again", 3)
    assert fetch.stats().hits == 3


def test_users_see_whole_numbers():
    """Records count in floats; entries, statistics and their texts show integers."""

    @single_flight_ttl(ttl=60, key=lambda key: key)
    def fetch(key):
        return key

    for _ in range(3):
        fetch("k")
    assert "has served 2 callers" in str(fetch.explain("k"))
    counts = [fetch.entry("k").hits, fetch.stats().hits, fetch.cache_info().hits]
    fetch.invalidate("k")
    counts.append(fetch.stats().hits)
    fetch.cache_clear()
    counts.append(fetch.stats().hits)
    assert repr(counts) == "[2, 2, 2, 2, 0]"


@pytest.mark.skipif(not has_global_lock(), reason="a record that has left counts like any other there")
def test_a_late_reader_is_counted_elsewhere():
    """Who found a record, and comes to count in it after it has left, does so outside it."""

    @single_flight_ttl(ttl=60, key=lambda key: key)
    def fetch(key):
        return key

    fetch("k"), fetch("k")
    memo = fetch._self_cache
    record = memo.store.index["k"]
    assert isinstance(record, Record)
    fetch.invalidate("k")
    memo.counts.served(record)
    assert record.hits == 1
    assert fetch.stats().hits == 2
    record.reopen()
    assert record.deadline == -float("inf")


@pytest.mark.parametrize("enabled", [False, True])
def test_the_global_lock_may_come_and_go(monkeypatch, enabled):
    """Hits are counted whether a free-threaded interpreter has the lock at decoration or not."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: enabled, raising=False)

    @single_flight_ttl(ttl=60)
    def fetch():
        return "value"

    fetch(), fetch(), fetch()
    assert (fetch.stats().hits, fetch.entry().hits) == (2, 2)


def test_free_threaded_builds_count_for_each_thread(crowd):
    """The hits of threads that run and of those that have ended add up, and the ended ones' cells go."""
    counts = ThreadedHits()

    def hit():
        for _ in range(100):
            counts.hit()

    for _ in range(5):
        crowd.add(hit, count=3)
        crowd.join()
        crowd.threads.clear()
    counts.hit()
    assert counts.all_hits(None) == 1501
    assert len(counts._cells) <= 2
    counts.reset()
    assert counts.all_hits(None) == 0
    counts.hit()
    assert counts.all_hits(None) == 1


def test_a_listener_that_turns_away_gives_the_fast_path_back():
    """The longer way counts in the record, too; when nobody listens any more it is not taken again."""
    seen = Recorder()

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen)
    def fetch(key):
        return key

    fetch("k"), fetch("k"), fetch("k")
    assert fetch.entry("k").hits == fetch.stats().hits == 2
    seen.wants = frozenset()
    fetch("k"), fetch("k")
    with patch("singleflight.drivers.threads.board", side_effect=AssertionError("the longer way")):
        fetch("k")
    assert fetch.entry("k").hits == fetch.stats().hits == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_counts_from_zero():
    """It has the records, and not the hits of its parent; each record keeps what it has served."""

    @single_flight_ttl(ttl=60, key=lambda key: key, maxsize=2)
    def fetch(key):
        return key

    for key in ("a", "a", "a", "b", "b"):
        fetch(key)

    def count():
        seen = [fetch.stats().hits, fetch.stats().evictions]
        fetch("a")
        fetch.invalidate("a")
        fetch("b"), fetch("b")
        seen.append(fetch.stats().hits)
        fetch.cache_clear()
        return [*seen, fetch.stats().hits]

    assert in_child(count) == "[0, 0, 3, 0]"
    assert fetch.stats().hits == 3
