"""Counts and events under threads, switches thrown in the midst of a flight, and what is let go of."""

import contextlib
import gc
import threading
import weakref
from collections import Counter

import pytest

from singleflight import single_flight_ttl
from singleflight.telemetry.counters import has_global_lock
from singleflight.testing import Recorder

from ..frozen import Uncopyable


def test_counts_are_exact_under_eight_threads(crowd):
    """What callers saw is what was counted, one by one."""
    start, lock, ran = threading.Barrier(8), threading.Lock(), Counter()

    @single_flight_ttl(ttl=60, maxsize=4, follower_retries=1)
    def fetch(key):
        with lock:
            ran[key] += 1
        if key == 0:
            raise ValueError
        return None if key == 1 else key

    def hammer():
        errors = 0
        start.wait(10)
        for number in range(3000):
            try:
                assert fetch(number % 8) in (None, number % 8)
            except ValueError:
                errors += 1
            if number % 500 == 0:
                fetch.invalidate(number % 8)
        return errors

    crowd.add(hammer, count=8)
    errors = sum(crowd.join())
    stats = fetch.stats()
    assert stats.calls == sum(ran.values())
    assert stats.failures == ran[0]
    assert stats.errors == errors
    assert stats.hits + stats.waits + stats.fetches + stats.errors == 24_000
    assert stats.uncached >= ran[1]
    assert stats.entries <= 4


def test_hits_are_counted_exactly(crowd):
    """No hit of eight threads is lost."""
    start = threading.Barrier(8)

    @single_flight_ttl(ttl=60)
    def fetch():
        return 1

    fetch()

    def hammer():
        start.wait(10)
        for _ in range(20_000):
            fetch()

    crowd.add(hammer, count=8)
    crowd.join()
    assert fetch.stats().hits == 160_000
    if has_global_lock():  # elsewhere an entry's own number is only about right
        assert fetch.entry().hits == 160_000


def test_sequence_numbers_have_no_gap_and_no_double(crowd):
    """However many threads tell, the numbers are 1, 2, 3 and so on."""
    start, seen = threading.Barrier(8), Recorder()

    @single_flight_ttl(ttl=60, listener=seen, maxsize=3)
    def fetch(key):
        return key

    def hammer():
        start.wait(10)
        for number in range(200):
            fetch(number % 5)

    crowd.add(hammer, count=8)
    crowd.join()
    assert [event.sequence for event in seen.events] == list(range(1, len(seen.events) + 1))


def test_the_events_agree_with_the_counts(crowd):
    """One event for each hit, wait served, fetch and landing."""
    start, seen = threading.Barrier(8), Recorder()

    @single_flight_ttl(ttl=60, listener=seen, maxsize=3)
    def fetch(key):
        return key

    def hammer():
        start.wait(10)
        for number in range(300):
            fetch(number % 5)

    crowd.add(hammer, count=8)
    crowd.join()
    stats = fetch.stats()
    assert seen.count("hit") == stats.hits
    assert seen.count("fetch") == seen.count("land") == stats.calls
    assert seen.count("share") == stats.waits
    assert seen.count("evict") == stats.evictions


def test_a_flights_events_come_in_its_order(crowd, gate):
    """fetch, then the waits, then land, then the shares."""
    seen = Recorder()

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch():
        gate.pass_()
        return 1

    crowd.add(fetch)
    seen.wait_for("fetch")
    crowd.add(fetch, count=3)
    seen.wait_for("wait", 3)
    gate.set()
    crowd.join()
    assert seen.count("land") == 1
    assert sorted(seen.kinds()[4:]) == ["land", "share", "share", "share"]
    assert seen.kinds()[:4] == ["fetch", "wait", "wait", "wait"]


def test_a_listener_that_does_not_want_hits_gets_none():
    """`wants` decides which kinds are told."""
    seen = Recorder(wants={"land"})

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch():
        return 1

    fetch(), fetch()
    assert seen.kinds() == ["land"]


def test_a_failing_listener_disturbs_no_caller(crowd, gate, caplog):
    """Leader and followers get the value, and the log has one complaint."""
    waiting = Recorder(wants={"wait"})

    def listener(event):
        if event.kind == "wait":
            waiting(event)
        raise RuntimeError("listener")

    @single_flight_ttl(ttl=60, listener=listener)
    def fetch():
        gate.pass_()
        return 1

    crowd.add(fetch, count=5)
    waiting.wait_for("wait", 4)
    gate.set()
    assert crowd.join() == [1] * 5
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


def test_bypass_does_not_touch_a_flight(crowd, gate):
    """A call in bypass runs beside the flight, whose callers share its outcome as before."""
    seen, numbers = Recorder(), iter(range(10))

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch():
        number = next(numbers)
        if number == 0:
            gate.pass_()
        return number

    crowd.add(fetch, count=2)
    seen.wait_for("wait")
    with fetch.bypass():
        assert fetch() == 1
    gate.set()
    assert crowd.join() == [0, 0]
    assert fetch() == 0


def test_the_switch_thrown_in_the_midst_of_a_flight(crowd, gate, monkeypatch):
    """Callers of the flight share it; new ones run the function; nothing is counted for them."""
    seen, numbers = Recorder(), iter(range(10))

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch():
        number = next(numbers)
        if number == 0:
            gate.pass_()
        return number

    crowd.add(fetch, count=2)
    seen.wait_for("wait")
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")
    assert fetch() == 1
    gate.set()
    assert crowd.join() == [0, 0]
    assert fetch.stats().calls == 1


class Local:
    """Something whose death can be seen."""


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_failing_frame_dies_with_its_exception(no_collector, kind):
    """No reference cycle keeps what the function held."""
    alive = []

    @single_flight_ttl(ttl=60)
    def fetch():
        local = Local()
        alive.append(weakref.ref(local))
        raise kind

    with contextlib.suppress(kind):
        fetch()
    assert alive[0]() is None


def test_a_refused_cycle_leaves_no_reference_cycle(no_collector):
    """The frames of a re-entry die with their exception too."""
    alive = []

    @single_flight_ttl(ttl=60)
    def fetch():
        local = Local()
        alive.append(weakref.ref(local))
        return fetch()

    with contextlib.suppress(RuntimeError):
        fetch()
    assert alive[0]() is None


def test_a_refused_value_is_let_go_of(no_collector):
    """What is not stored dies when its callers drop it."""

    @single_flight_ttl(ttl=60, cache_if=lambda value: False)
    def fetch():
        return Local()

    value = weakref.ref(fetch())
    assert value() is None


def test_an_invalidated_value_is_let_go_of(no_collector):
    """Nothing of the library refers to a value that was dropped, put aside or evicted."""

    @single_flight_ttl(ttl=60, maxsize=1)
    def fetch(key):
        return Local()

    for drop in (lambda: fetch.invalidate(1), lambda: fetch.put(2, 1), lambda: fetch(2), fetch.cache_clear):
        fetch.cache_clear()
        value = weakref.ref(fetch(1))
        assert value() is not None
        drop()
        assert value() is None


def test_a_shared_traceback_does_not_grow_with_the_callers(crowd, gate):
    """Where no copy can be made the object itself is shared, and its traceback stays that of the flight."""
    seen = Recorder(wants={"fetch", "wait"})

    @single_flight_ttl(ttl=60, follower_retries=0, listener=seen)
    def fetch():
        gate.pass_()
        raise Uncopyable("x")

    crowd.add(fetch)
    seen.wait_for("fetch")
    crowd.add(fetch, count=20)
    seen.wait_for("wait", 20)
    gate.set()
    outcomes = crowd.join()
    assert len(set(map(id, outcomes))) == 1
    depth, traceback = 0, outcomes[0].__traceback__
    while traceback is not None:
        depth, traceback = depth + 1, traceback.tb_next
    assert depth < 12
