"""What the controls show of a function: its entries, flights and counts; and what invalidating a key says."""

import pytest

from singleflight.core import controls, coordinator
from singleflight.core.call import JOIN
from singleflight.locks.slots import Hold
from singleflight.storage.entry import Entry
from singleflight.storage.record import AgeingRecord, record_of
from singleflight.telemetry.views import Stats

from .conftest import caller, in_flight


@pytest.mark.parametrize(
    ("age", "state"), [(0.0, "fresh"), (9.5, "fresh"), (10.0, "stale"), (14.5, "stale"), (15.0, None)]
)
def test_an_entry_that_ages(make, clock, age, state):
    """It is there as long as it would be served; looking counts nothing."""
    memo = make(grace=5)
    memo.store.put(AgeingRecord("k", value := object(), clock(), 10.0, grace=5.0, refresh_at=clock() + 10))
    clock.advance(age)
    entry = Entry("k", value, age, 10.0, state, 0, 1) if state else None
    assert controls.entry(memo, "k") == entry
    assert entry is None or controls.entry(memo, "k").value is value
    assert controls.entry(memo, "other") is None
    assert controls.counted(memo).hits == 0


def test_a_stored_failure_is_no_entry(memo, clock):
    """It has no value to show."""
    memo.store.put(AgeingRecord("k", None, clock(), 10.0, error=ValueError()))
    assert controls.entry(memo, "k") is None


def test_an_entry_shows_a_copy(make, clock):
    """Where callers get one; all else is as it is."""
    memo = make(copy=list)
    memo.store.put(record_of("k", value := [1], clock(), 10.0))
    clock.advance(2)
    entry = controls.entry(memo, "k")
    assert entry == Entry("k", [1], 2.0, 10.0, "fresh", 0, 1)
    assert entry.value is not value


def test_flights_are_shown_by_their_age(memo, clock):
    """Those that have lost their keys too; a key that is held or waited for is no flight."""
    flights = {}
    for key in ("b", "a", "c"):
        flights[key] = in_flight(memo, key, due=False)
        clock.advance(1)
    assert controls.invalidate(memo, "a")
    slot = memo.locks.enter("held")
    slot.turn = Hold(("held",), caller(actor="owner"), None)
    assert coordinator.board(memo, caller("held", actor="follower")) is JOIN
    told = [(each.key, each.elapsed, each.detached) for each in controls.flights(memo)]
    assert told == [("b", 3.0, False), ("a", 2.0, True), ("c", 1.0, False)]
    assert controls.counted(memo).in_flight == 3


def test_each_count_has_its_place(make, clock):
    """All of them, and what there is now."""
    memo = make(maxsize=9, weigh=len)
    counted = ["stale_hits", "waits", "fetches", "errors", "timeouts", "calls", "failures", "uncached"]
    for number, name in enumerate([*counted, "refreshes"], 11):
        setattr(memo.counts, name, number)
    memo.store.evictions, memo.store.expirations = 31, 32
    for key in ("a", "bb"):
        controls.put(memo, key, key)
    record = memo.store.index["a"]
    for _ in range(5):
        memo.counts.served(record)
    for key in ("c", "d", "e", "f"):
        in_flight(memo, key, due=False)
    assert controls.invalidate(memo, "f")
    idle = memo.locks.enter("idle")
    memo.locks.vacate(idle, [])
    counts = {name: getattr(memo.counts, name) for name in [*counted, "refreshes"]}
    now = {"in_flight": 4, "entries": 2, "weight": 3, "locks": 4, "idle_locks": 1}
    assert controls.stats(memo) == Stats(hits=5, evictions=31, expirations=32, **counts, **now)


def test_counts_of_what_is_shared_are_added(memo):
    """By the tier, where there is one."""

    class Tier:
        def counted(self):
            return {"shared_hits": 7}

    memo.tier = Tier()
    assert controls.counted(memo).shared_hits == 7


@pytest.mark.parametrize("look", ["stats", "counted"])
def test_who_looks_at_the_clock_sees_what_has_expired_leave(memo, clock, seen, look):
    """It is counted and told; without a look at the clock it is among the others."""
    controls.put(memo, "k", 7)
    clock.advance(10)
    stats = getattr(controls, look)(memo)
    expired = look == "stats"
    assert (stats.entries, stats.expirations) == (not expired, expired)
    assert [event.key for event in seen.of("expire")] == ["k"] * expired


@pytest.mark.parametrize("flying", [False, True])
@pytest.mark.parametrize(("age", "served"), [(None, False), (9.5, True), (10.0, False)])
def test_what_invalidating_a_key_says(memo, clock, seen, flying, age, served):
    """Return True, and tell it once, if there was a value that would be served, or a flight."""
    if age is not None:
        memo.store.put(record_of("k", 1, clock() - age, 10.0))
    flight = in_flight(memo, due=False) if flying and not served else None
    there = served or flight is not None
    assert controls.invalidate(memo, "k") is there
    assert [event.key for event in seen.of("invalidate")] == ["k"] * there
    assert (memo.store.records(), memo.locks.slot("k")) == ([], None)
    assert flight is None or flight.detached
    assert controls.invalidate(memo, "k") is False


def test_no_lock_of_a_key_that_was_invalidated_stays(memo):
    """Nor is one kept for a key that is not known."""
    for key in ("a", "b"):
        memo.locks.vacate(memo.locks.enter(key), [])
    assert controls.invalidate(memo, "a") is False
    assert (controls.counted(memo).idle_locks, controls.counted(memo).locks) == (1, 1)


@pytest.mark.parametrize("amid", [False, True])
def test_a_flight_that_is_detached_amid_a_section_keeps_its_key(memo, monkeypatch, amid):
    """A handler or finaliser has interrupted the section, which may be at its slot."""
    flight = in_flight(memo, due=False)
    monkeypatch.setattr(controls, "inside", lambda: amid)
    assert controls.invalidate(memo, "k") is True
    assert (flight.detached, flight.slot.turn is flight) == (True, amid)
    assert memo.adrift == (set() if amid else {flight})


def test_what_follows_a_detached_flight_is_woken(memo):
    """A lock that was waited for behind it is had."""
    flight = in_flight(memo, due=False)
    hold = Hold(("k",), caller(actor="owner", thread=3), None)
    hold.slots, hold.latch = [flight.slot], flight.open_later()
    flight.slot.line_up(hold)
    latch = hold.latch
    assert controls.invalidate(memo, "k") is True
    assert flight.slot.turn is hold
    assert latch.wait(0.0)
