"""Invalidate, put, refresh, clear and bypass while a call is in flight."""

import threading

import pytest

from singleflight import report, single_flight_ttl
from singleflight.locks.mutex import mutex
from singleflight.testing import FakeClock, Recorder

from ..drivers import until


@pytest.fixture
def held(crowd, gate):
    """A function held in its first call by one leader with one follower."""
    seen = Recorder()
    values = iter(range(1, 100))

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch(key="A"):
        value = next(values)
        if value == 1:
            gate.pass_()
        return value

    crowd.add(fetch)
    seen.wait_for("fetch")
    crowd.add(fetch)
    seen.wait_for("wait")
    return fetch


def test_invalidate_where_misses_nothing_that_lands_meanwhile(crowd, gate):
    """What was in flight when it began is dropped, also where it lands while the keys are gathered."""
    seen = Recorder(wants={"fetch"})

    class Trap:
        armed = False

        def __hash__(self):
            if self.armed:
                self.armed = False
                gate.set()
                crowd.join()
            return 1

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen)
    def fetch(key):
        if key == "A":
            gate.pass_()
        return key

    trap = Trap()
    fetch(trap)
    crowd.add(fetch, "A")
    seen.wait_for("fetch", 2)
    trap.armed = True
    assert fetch.invalidate_where(lambda key: key == "A") == 1
    assert gate.is_set()
    assert fetch.entry("A") is None


def test_the_switch_keeps_stored_values_back_too(monkeypatch):
    """Switched off, a value that was put is not served either, also after a bypass has ended."""
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")

    @single_flight_ttl(ttl=60)
    def fetch(key):
        return "ran"

    fetch.put("stored", 1)
    assert fetch(1) == "ran"
    with fetch.bypass():
        assert fetch(1) == "ran"
    assert fetch(1) == "ran"
    assert fetch.entry(1).value == "stored"
    assert fetch.explain(1).would == "fetch"


def test_a_bypass_within_a_bypass():
    """Until the outer one has ended, too, every call runs the function; afterwards none does."""
    fetch = single_flight_ttl(ttl=60)(lambda: object())
    stored = fetch()
    with fetch.bypass():
        with fetch.bypass():
            assert fetch() is not stored
        assert fetch() is not stored
    assert fetch() is stored


def test_one_bypass_may_be_entered_again():
    """Afterwards and within itself: it ends as often as it was entered."""
    fetch = single_flight_ttl(ttl=60)(lambda: object())
    stored, bypass = fetch(), fetch.bypass()
    for _ in range(2):
        with bypass:
            with bypass:
                assert fetch() is not stored
            assert fetch() is not stored
        assert fetch() is stored


class Struck(BaseException):
    """An interrupt."""


def test_a_bypass_that_is_interrupted_while_it_is_entered(monkeypatch):
    """It has not begun: values are served afterwards."""
    fetch = single_flight_ttl(ttl=60)(lambda: object())
    stored, cache = fetch(), fetch._self_cache

    def strike():
        raise Struck

    with monkeypatch.context() as patch:
        patch.setattr(cache, "shut", strike)
        with pytest.raises(Struck):
            fetch.bypass().__enter__()
    assert (cache.bypassed, fetch() is stored) == ([], True)


def test_a_bypass_that_is_interrupted_while_it_is_left(monkeypatch):
    """It has ended: values are served afterwards."""
    fetch = single_flight_ttl(ttl=60)(lambda: object())
    stored, cache, strikes = fetch(), fetch._self_cache, []

    class Switching:
        """Is struck before the section begins."""

        def __enter__(self):
            if strikes:
                raise strikes.pop()
            lock.acquire()

        def __exit__(self, *_):
            lock.release()

    lock = cache.switching
    monkeypatch.setattr(cache, "switching", Switching())
    with pytest.raises(Struck), fetch.bypass():
        assert fetch() is not stored
        strikes.append(Struck)
    assert (cache.bypassed, fetch() is stored) == ([], True)


def test_one_bypass_may_be_entered_by_several_threads(crowd, gate):
    """It ends when the last of them has left, in whatever order."""
    fetch, entered = single_flight_ttl(ttl=60)(lambda: object()), threading.Event()
    stored, bypass = fetch(), fetch.bypass()

    def stay():
        with bypass:
            entered.set()
            gate.pass_()

    with bypass:
        crowd.add(stay)
        assert entered.wait(10)
    assert fetch() is not stored
    gate.set()
    crowd.join()
    assert fetch() is stored


def test_put_with_ttl_zero_only_invalidates():
    """A lifetime of nothing stores nothing."""
    ttl = [10]

    @single_flight_ttl(ttl=lambda landing: ttl[0])
    def fetch():
        return 1

    fetch()
    ttl[0] = 0
    fetch.put(2)
    assert fetch.entry() is None


def test_a_listener_that_fails_is_logged_once(caplog):
    """Its exceptions are dropped, and told in the log once."""

    def listener(event):
        raise RuntimeError("listener")

    @single_flight_ttl(ttl=60, listener=listener)
    def fetch(key):
        return key

    assert [fetch(key) for key in (1, 2, 2)] == [1, 2, 2]
    assert len([record for record in caplog.records if "failed" in record.message]) == 1


def test_events_carry_numbers_in_order():
    """Sorted by sequence, events tell the story; a listener's own calls tell nothing."""
    seen = []

    def listener(event):
        seen.append(event)
        if event.kind == "land" and event.key == (1,):
            fetch(2)

    @single_flight_ttl(ttl=60, listener=listener)
    def fetch(key):
        return key

    fetch(1)
    fetch(1)
    assert [event.kind for event in seen] == ["fetch", "land", "hit"]
    assert [event.sequence for event in seen] == [1, 2, 3]
    assert fetch.entry(2).value == 2


def test_debug_logging_needs_no_listener(caplog):
    """With DEBUG on, the logger `singleflight` has a line for each step but hits."""

    @single_flight_ttl(ttl=60, name="prices")
    def fetch(key):
        return key

    fetch(1)
    assert not caplog.records
    with caplog.at_level("DEBUG", logger="singleflight"):
        fetch(2)
        fetch(2)
    assert [record.message.split()[:2] for record in caplog.records] == [
        ["prices", "fetch"],
        ["prices", "land"],
    ]


def test_the_oldest_flight_is_told_of_first(crowd, gate):
    """In flights() and report(), detached ones too, whatever the order in which their keys are known."""
    clock, seen = FakeClock(), Recorder(wants={"fetch"})

    @single_flight_ttl(ttl=60, timer=clock, listener=seen, key=lambda key: key, name="told in order")
    def fetch(key):
        gate.pass_()
        return key

    for number, key in enumerate(["first", "second", "third"], 1):
        crowd.add(fetch, key)
        seen.wait_for("fetch", number)
        clock.advance(10)
    assert fetch.invalidate("first")
    crowd.add(fetch, "first")
    seen.wait_for("fetch", 4)
    lines = report().partition("told in order: ")[2].splitlines()[1:5]
    wanted = ["'first'", "'second'", "'third'", "'first'"]
    assert [next(name for name in wanted if name in line) for line in lines] == wanted
    assert [repr(flight.key) for flight in fetch.flights()] == wanted
    assert [flight.elapsed for flight in fetch.flights()] == [30, 20, 10, 0]


def test_a_report_does_not_wait_for_a_section_to_end(crowd, gate):
    """Where somebody stays inside of one, as in a service that hangs, it is read all the same."""
    inside = threading.Event()

    @single_flight_ttl(ttl=60, name="told from outside")
    def fetch():
        return 1

    def stay():
        with mutex:
            inside.set()
            gate.pass_()

    assert fetch() == 1
    crowd.add(stay)
    assert inside.wait(10)
    crowd.add(report)
    until(lambda: crowd.outcomes[1] is not None)
    assert "told from outside: 1 entries, 0 flights" in crowd.outcomes[1]
