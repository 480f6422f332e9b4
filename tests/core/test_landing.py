"""What becomes of a value that a flight brings: whether and for how long it is stored, and who is told."""

from math import inf

import pytest

from singleflight.core import landing
from singleflight.core.flight import FLYING, LANDED, PASSED
from singleflight.locks.mutex import inside, mutex
from singleflight.locks.unsettled import After
from singleflight.storage.entry import Entry
from singleflight.storage.record import AgeingRecord, Record, record_of
from singleflight.storage.ttl import Landing
from singleflight.testing import Recorder

from .conftest import in_flight


def stored(memo, key="k"):
    """The value that is stored, when it landed and for how long it is fresh."""
    record = memo.store.index.get(key)
    return record and (record.value, record.landed, record.ttl)


class Batch:
    """A bulk load in progress."""

    sealed = False

    def __init__(self):
        self.spoiled = set()


@pytest.mark.parametrize(
    ("options", "value", "ttl"),
    [
        ({}, 7, 10.0),
        ({}, 0, 10.0),
        ({}, None, None),
        ({"cache_if": lambda value: value > 6}, 7, 10.0),
        ({"cache_if": lambda value: value > 7}, 7, None),
        ({"cache_if": lambda value: value is None}, None, 10.0),
        ({"ttl": None}, 7, inf),
        ({"ttl": 0.5}, 7, 0.5),
        ({"ttl": 0}, 7, None),
        ({"ttl": lambda landing: 20}, 7, 20.0),
        ({"ttl": lambda landing: 0}, 7, None),
    ],
)
def test_whether_a_value_is_stored_and_for_how_long(make, seen, options, value, ttl):
    """As `cache_if` says, by default all but None; as `ttl` says, and with a ttl of 0 not at all."""
    memo = make(**options)
    flight = in_flight(memo)
    landing.land(memo, flight, value)
    assert stored(memo) == (None if ttl is None else (value, 100.0, ttl))
    assert (flight.state, memo.locks.live(), memo.counts.uncached) == (LANDED, [], int(ttl is None))
    (event,) = seen.of("land")
    assert (event.value, event.error, event.stored, event.ttl) == (value, None, ttl is not None, ttl)
    assert event.retried is False


def test_a_detached_value_is_not_stored(memo, seen):
    """It was invalidated in flight: it is its callers' alone."""
    landing.land(memo, in_flight(memo, detached=True), 7)
    assert (stored(memo), memo.counts.uncached) == (None, 1)
    (event,) = seen.of("land")
    assert (event.stored, event.ttl) == (False, None)


def test_what_is_refused_lives_for_no_seconds(make):
    """Where its ttl would have been asked for, it is a number that others may calculate with."""
    memo = make(ttl=lambda landing: 10, cache_if=lambda value: value > 7)
    assert landing.appraise(memo, in_flight(memo), 7) == (False, 0.0, 100.0, None)


def test_followers_share_what_was_not_stored_for_another_reason_than_its_tags(make):
    """It is not older than they are: only a tag that was invalidated since would make it so."""
    memo = make(tags=lambda landing: ("t",))
    flight = in_flight(memo, followers=2)
    memo.store.put(record_of("k", "put", 100.0, 10.0))
    landing.land(memo, flight, 7)
    assert (flight.state, flight.value, flight.missing) == (LANDED, 7, False)
    assert stored(memo) == ("put", 100.0, 10.0)


def test_what_came_after_a_flight_had_begun_stays(memo):
    """It was put from outside; the store knows that the flight had not seen it."""
    flight = in_flight(memo)
    memo.store.put(record_of("k", "put", 100.0, 10.0))
    landing.land(memo, flight, 7)
    assert (stored(memo), memo.counts.uncached) == (("put", 100.0, 10.0), 1)


def test_publish_then_free_then_tell(make, monkeypatch):
    """Whoever finds the key free finds the value, and a listener finds all done and no lock held."""
    found = []

    def look(event):
        if event.kind == "land":
            found.append(("told", memo.locks.live(), stored(memo), inside(), memo.store.is_owned()))

    memo = make(listener=look)
    flight, put = in_flight(memo), memo.store.put

    def publish(record, publisher):
        found.append(("published", flight.slot.turn is flight, publisher is flight, inside()))
        return put(record, publisher)

    monkeypatch.setattr(memo.store, "put", publish)
    landing.land(memo, flight, 7)
    assert found == [("published", True, True, False), ("told", [], (7, 100.0, 10.0), False, False)]


@pytest.mark.parametrize("known", [False, True])
def test_a_callable_ttl_sees_the_landing(make, clock, known):
    """Key, value, how long it took, who waits, and the entry that it replaces, as it is now."""
    asked = []
    memo = make(ttl=lambda landing: asked.append(landing) or 20)
    if known:
        memo.store.put(record_of("k", "old", 80.0, 10.0))
    flight = in_flight(memo, followers=3)
    clock.advance(2.5)
    landing.land(memo, flight, "new")
    old = Entry("k", "old", 22.5, 10.0, "expired", 0) if known else None
    assert asked == [Landing("k", "new", None, 2.5, 3, old)]
    assert stored(memo) == ("new", 102.5, 20.0)


def test_a_callable_ttl_sees_no_failure_and_no_time_that_runs_backwards(make, clock):
    """A stored exception is nothing that a value replaces."""
    asked = []
    memo = make(ttl=lambda landing: asked.append(landing) or 20)
    flight = in_flight(memo)
    flight.previous = AgeingRecord("k", None, 80.0, 10.0, error=ValueError())
    clock.advance(-5)
    landing.land(memo, flight, "new")
    assert asked == [Landing("k", "new", None, 0.0, 0, None)]


def test_a_callable_ttl_is_not_asked_about_what_is_refused(make):
    """There is nothing that it could say."""
    asked = []
    memo = make(ttl=asked.append)
    landing.land(memo, in_flight(memo), None)
    assert asked == []


@pytest.mark.parametrize("option", ["ttl", "cache_if"])
def test_what_an_option_raises_is_passed_on(make, seen, option):
    """Nothing has happened then: the flight is still to fail with it."""

    def refuse(_):
        raise LookupError(option)

    memo = make(**{option: refuse})
    flight = in_flight(memo)
    with pytest.raises(LookupError, match=option):
        landing.land(memo, flight, 7)
    assert (flight.state, flight.slot.turn, stored(memo), seen.kinds()) == (FLYING, flight, None, [])


@pytest.mark.parametrize(
    ("listener", "told", "deadline"),
    [
        (None, False, 110.0),
        (Recorder({"land"}), True, 110.0),
        (Recorder(), True, -inf),
        (Recorder(), False, 110.0),
    ],
)
def test_a_listener_that_wants_hits_sees_every_read(make, listener, told, deadline):
    """What lands while one listens has no fast path; for all else it lasts until the end of the ttl."""
    memo = make(listener=listener)
    landing.land(memo, in_flight(memo, wants_events=told), 7)
    assert memo.store.index["k"].deadline == deadline


@pytest.mark.parametrize(
    ("options", "ttl", "refresh_at"),
    [
        ({"grace": 60}, 10.0, 110.0),
        ({"refresh_ahead": 0.5}, 10.0, 105.0),
        ({"refresh_ahead": 0.5, "grace": 60}, 10.0, 105.0),
        ({"refresh_ahead": "xfetch"}, 10.0, 110.0 - 1.3862943611198906),
        ({"jitter": 0.5}, 7.5, inf),
        ({"jitter": 0.5, "grace": 60}, 7.5, 107.5),
        ({"failure_ttl": 5}, 10.0, inf),
    ],
)
def test_the_times_by_which_a_value_ages(make, clock, options, ttl, refresh_at):
    """From when on a reader renews it: ahead, or when it is stale where it may be served so, or never."""
    memo = make(listener=None, **options)
    memo.options.ageing.chance = lambda: 0.5
    clock.set(98.0)
    flight = in_flight(memo)
    clock.set(100.0)
    landing.land(memo, flight, 7)
    record = memo.store.index["k"]
    assert (type(record), record.value, record.landed) == (AgeingRecord, 7, 100.0)
    assert (record.ttl, record.grace, record.error) == (ttl, options.get("grace", 0.0), None)
    assert record.refresh_at == pytest.approx(refresh_at)


def test_a_value_that_only_lives_for_its_ttl(make):
    """Its record has no room for more."""
    memo = make()
    landing.land(memo, in_flight(memo), 7)
    made = landing.new_record(memo, "k", 7, 100.0, 10.0, 0.0)
    assert type(memo.store.index["k"]) is type(made) is Record
    assert (made.key, made.value, made.landed, made.ttl) == ("k", 7, 100.0, 10.0)


@pytest.mark.parametrize("told", [False, True])
def test_what_went_for_it_is_told(make, seen, told):
    """After the landing, and only where somebody may want to know."""
    memo = make(maxsize=1)
    memo.store.put(record_of("other", 1, 95.0, 10.0))
    landing.land(memo, in_flight(memo, wants_events=told), 7)
    assert list(memo.store.index) == ["k"]
    assert [(event.kind, event.key) for event in seen.events] == (
        [("land", "k"), ("evict", "other")] if told else []
    )


@pytest.mark.parametrize("value", [7, None])
def test_a_value_spoils_what_a_bulk_load_may_bring(memo, value):
    """What was loaded before is no news for its key any more; where nothing was stored it still is."""
    batch = Batch()
    memo.batches.add(batch)
    landing.land(memo, in_flight(memo), value)
    assert batch.spoiled == ({"k"} if value else set())


def test_several_are_published_before_any_of_them_ends(make, seen):
    """What is left to be done is all in the list: what landed and when, and what it stored and displaced."""
    memo = make(maxsize=1, ttl=lambda landing: landing.value)
    other = record_of("other", 1, 95.0, 10.0)
    memo.store.put(other)
    kept, short, refused = (in_flight(memo, key) for key in ("k", "short", "refused"))
    later = []
    for flight, value in ((kept, 20), (short, 0), (refused, None)):
        landing.land(memo, flight, value, later)
        assert (flight.state, flight.slot.turn) == (FLYING, flight)
    assert later == [
        (kept, 20, None, 100.0, True, 20.0, [other], None),
        (short, 0, None, 100.0, True, None, [], None),
        (refused, None, None, 100.0, False, None, [], None),
    ]
    assert (stored(memo), seen.kinds(), memo.counts.calls) == ((20, 100.0, 20.0), [], 0)


@pytest.mark.parametrize(
    ("value", "detached", "failure_ttl", "refresh_at"),
    [(7, False, 0, 165.0), (None, False, 0, 101.0), (None, False, 5, 105.0), (None, True, 0, inf)],
)
def test_a_renewal_that_is_not_stored(make, caplog, value, detached, failure_ttl, refresh_at):
    """The value stays and is tried again later, as after a failure, unless it was dropped from outside."""
    memo = make(grace=60, ttl=65, failure_ttl=failure_ttl)
    flight = in_flight(memo, renews=True, detached=detached)
    flight.previous = before = AgeingRecord("k", "old", 95.0, 1.0, 60.0)
    memo.store.put(before)
    landing.land(memo, flight, value)
    record = memo.store.index["k"]
    assert (record.value, record.refresh_at) == (value or "old", refresh_at)
    text = "model: 'k' could not be renewed, its value is kept: it returned what is not stored"
    assert caplog.messages == ([text] if refresh_at in (101.0, 105.0) else [])


@pytest.mark.parametrize(("weight", "stored"), [(1.0, True), (4.0, True), (4.5, False)])
def test_what_has_a_weight(make, clock, caplog, weight, stored):
    """It is stored with its times and tags, unless it is too heavy for the whole store, which is no fault."""
    asked = []
    memo = make(
        weigh=lambda value: asked.append(value) or weight, tags=lambda landing: ("t",), grace=5, maxsize=4
    )
    flight = in_flight(memo, due=False)
    landing.land(memo, flight, 7)
    assert asked == [7]
    record = memo.store.index.get("k")
    assert (record is not None, memo.counts.uncached) == (stored, int(not stored))
    if record is not None:
        times = (record.landed, record.ttl, record.grace, record.refresh_at)
        assert (record.key, record.value, record.weight, record.tags) == ("k", 7, weight, ("t",))
        assert times == (100.0, 10.0, 5.0, 110.0)
        assert flight.stored is record
    assert caplog.messages == []


@pytest.mark.parametrize("maxsize", [None, 1])
def test_what_has_no_weight_of_its_own_fits(make, maxsize):
    """It weighs one, which is the least limit, and there may be no limit."""
    assert landing.fits(make(maxsize=maxsize), record_of("k", 7, 100.0, 10.0)) is True


@pytest.mark.parametrize("ended", [False, True])
def test_a_renewal_that_another_process_sees_to(memo, clock, ended):
    """It counts for nothing, its key is free, and the value is looked at again after a pause."""
    record = AgeingRecord("k", "old", 95.0, 10.0, grace=60.0)
    flight = in_flight(memo, due=False, renews=True, background=True, followers=1)
    flight.previous = record
    before = record.refresh_at
    if ended:
        flight.state = PASSED
    latch = flight.open_later()
    landing.postpone(memo, flight, 3.0)
    assert (record.refresh_at, latch.wait(0.0)) == (before if ended else 103.0, True)
    assert (flight.state, flight.counted, memo.counts.calls, memo.counts.uncached) == (PASSED, True, 0, 0)
    assert memo.counts.waits == 0
    assert ended or (flight.successor.followers, flight.successor.retries) == (1, 3)


@pytest.mark.parametrize("detached", [False, True])
def test_a_renewal_is_postponed_whatever_the_clock_says(make, detached):
    """Where that raises, the time at which it began counts; what was dropped is not looked at again."""
    broken = []

    def timer():
        if broken:
            raise OSError("no clock")
        return 100.0

    memo = make(timer=timer)
    flight = in_flight(memo, due=False, renews=True, background=True, detached=detached)
    flight.previous = record = AgeingRecord("k", "old", 95.0, 10.0, grace=60.0)
    broken.append(True)
    landing.postpone(memo, flight, 3.0)
    assert (record.refresh_at, flight.state) == (inf if detached else 103.0, LANDED)


def test_what_had_no_value_is_not_looked_at_again(memo):
    """There is nothing to look at."""
    flight = in_flight(memo, due=False, renews=True)
    flight.previous = None
    landing.postpone(memo, flight, 3.0)
    assert (flight.state, flight.counted, memo.locks.live()) == (LANDED, True, [])


@pytest.mark.parametrize(
    ("fields", "at"),
    [({"renews": True}, 97.0), ({"renews": False}, 104.0), ({"renews": True, "detached": True}, 104.0)],
    ids=str,
)
def test_a_flight_that_ends_without_room_has_its_value_renewed_by_the_next(memo, fields, at):
    """If it was to renew that; and whoever was to share its outcome, if it has one, does."""
    record = AgeingRecord("k", "old", 95.0, 10.0, grace=60.0, refresh_at=104.0)
    flight = in_flight(memo, due=False, unbegun=True, followers=1, started=97.0, retries=0, **fields)
    flight.previous = record
    latch, error, after = flight.open_later(), ValueError(), After()
    with mutex:
        landing.settle_flight(memo, flight, error, after)
    after.run()
    assert (record.refresh_at, flight.unbegun, latch.wait(0.0)) == (at, False, True)
    assert (flight.state, flight.error, flight.landed) == (LANDED, error, 97.0)
    assert (memo.counts.errors, memo.counts.uncached) == (2, 0)


def test_a_flight_that_ends_without_room_is_tried_again(memo):
    """By its followers, while they have retries left, as after any other failure."""
    flight = in_flight(memo, due=False, followers=2)
    after = After()
    with mutex:
        landing.settle_flight(memo, flight, RecursionError(), after)
    after.run()
    successor = flight.slot.turn
    assert (flight.state, successor.followers, successor.retries) == (PASSED, 2, 2)
