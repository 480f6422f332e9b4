"""What becomes of an exception: whether it is kept, what it means for a renewal, and who is told."""

import asyncio
import logging
from math import inf

import pytest

from singleflight import FlightDeadlock, FlightTimeout
from singleflight.core import controls, coordinator, landing
from singleflight.core.call import HIT
from singleflight.core.flight import FLYING, LANDED, PASSED, UNCLAIMED
from singleflight.locks.mutex import mutex
from singleflight.locks.unsettled import After
from singleflight.storage.record import AgeingRecord, record_of

from ..frozen import Uncopyable
from .conftest import caller, in_flight


def raised(error=None):
    """An exception that was raised, or this one."""
    try:
        raise ValueError("down") if error is None else error
    except BaseException as caught:
        return caught


def renewal(memo, landed=95.0, **fields):
    """A flight that renews a value, with 10 seconds to live and 60 of grace."""
    flight = in_flight(memo, **{"renews": True, "background": True, **fields})
    flight.previous = record = AgeingRecord("k", "old", landed, 10.0, grace=60.0)
    memo.store.put(record)
    return flight, record


def kept(memo):
    """The exception that is stored."""
    record = memo.store.index.get("k")
    return record and record.error


def test_a_failure_is_told(memo, seen, clock):
    """With how long it took and who waited; an abort as one."""
    flight, error = in_flight(memo), ValueError()
    clock.advance(2.5)
    landing.fail(memo, flight, error)
    (event,) = seen.of("land")
    assert (event.error, event.duration, event.followers, event.stored) == (error, 2.5, 0, False)
    assert (event.retried, flight.state, memo.locks.live()) == (False, LANDED, [])
    abort = KeyboardInterrupt()
    landing.fail(memo, in_flight(memo, followers=2), abort)
    (event,) = seen.of("abort")
    assert (event.error, event.duration, event.followers) == (abort, 0.0, 2)


@pytest.mark.parametrize(("value", "kept"), [(7, [7]), (None, [])])
def test_a_flight_that_has_ended_does_not_fail(make, seen, value, kept):
    """Nothing more is counted, told or kept: it is only made sure that its key is free."""
    memo = make(failure_ttl=5)
    flight = in_flight(memo)
    landing.land(memo, flight, value)
    before = seen.kinds()
    landing.fail(memo, flight, ValueError())
    assert (flight.state, flight.error, seen.kinds()) == (LANDED, None, before)
    assert [record.value for record in memo.store.index.values()] == kept
    assert (memo.counts.failures, memo.counts.errors, memo.counts.calls) == (0, 0, 1)


@pytest.mark.parametrize("value", [7, None])
def test_a_verdict_on_a_flight_that_has_ended_is_not_stored(make, value):
    """It is known what its failure would have become, and an interrupt struck after it had landed."""
    memo = make(failure_ttl=5)
    flight, error = in_flight(memo), ValueError()
    landing.land(memo, flight, value)
    memo.store.forget("k")
    landing.fail(memo, flight, error, verdict=landing.Verdict(error, 5.0))
    assert memo.store.index == {}


def test_a_broken_clock_does_not_keep_the_key(make, seen):
    """The flight fails at the time at which it began."""
    broken = []

    def timer():
        if broken:
            raise OSError("no clock")
        return 100.0

    memo = make(timer=timer, failure_ttl=5)
    flight = in_flight(memo)
    broken.append(True)
    landing.fail(memo, flight, ValueError())
    assert (flight.state, memo.locks.live(), memo.store.index["k"].landed) == (LANDED, [], 100.0)
    assert [event.duration for event in seen.of("land")] == [0.0]


def test_several_fail_before_any_of_them_ends(make, seen):
    """What is left to be done is all in the list; what is to be kept is kept already."""
    memo = make(failure_ttl=5)
    flight, error, later = in_flight(memo), ValueError(), []
    landing.fail(memo, flight, error, later)
    assert later == [(flight, None, error, 100.0, False, None, [], None)]
    assert (flight.state, flight.slot.turn, seen.kinds(), memo.counts.calls) == (FLYING, flight, [], 0)
    assert type(kept(memo)) is ValueError


# -- kept for a while ---------------------------------------------------------------------------------


def test_an_exception_is_kept_as_a_copy_without_frames(make):
    """The original and its traceback are its caller's; what is stored leads to no frame, and to no value."""
    memo = make(failure_ttl=5, listener=None)
    error = raised()
    traceback = error.__traceback__
    landing.fail(memo, in_flight(memo), error)
    record = memo.store.index["k"]
    assert (repr(record.error), record.error.__traceback__) == (repr(error), None)
    assert (record.error is error, error.__traceback__) == (False, traceback)
    assert (record.key, record.value, record.landed, record.ttl) == ("k", None, 100.0, 5.0)
    assert (record.grace, record.refresh_at, record.deadline) == (0.0, inf, -inf)


def test_an_exception_that_cannot_be_copied_is_kept_itself(make):
    """With its traceback, which its own caller is about to see."""
    memo = make(failure_ttl=5)
    error = Uncopyable()
    traceback = raised(error).__traceback__
    landing.fail(memo, in_flight(memo), error)
    assert kept(memo) is error
    assert error.__traceback__ is traceback is not None


@pytest.mark.parametrize("error", [FlightDeadlock(), FlightTimeout(), KeyboardInterrupt(), SystemExit()])
def test_what_says_nothing_about_its_key_is_not_kept(make, error):
    """Nor is a cancellation, nor anything where failures are not to be kept."""
    memo = make(failure_ttl=5)
    landing.fail(memo, in_flight(memo), error)
    landing.fail(memo, in_flight(memo), asyncio.CancelledError())
    assert memo.store.index == {}
    memo = make()
    landing.fail(memo, in_flight(memo), ValueError())
    assert memo.store.index == {}


@pytest.mark.parametrize(
    ("followers", "retries", "is_kept"),
    [(0, 3, True), (2, 0, True), (2, 1, False), (2, 3, False), (2, None, False)],
)
def test_a_failure_is_not_kept_while_somebody_tries_again(make, followers, retries, is_kept):
    """The last one of a chain is."""
    memo = make(failure_ttl=5)
    landing.fail(memo, in_flight(memo, followers=followers, retries=retries), ValueError())
    assert (kept(memo) is not None) is is_kept


@pytest.mark.parametrize("field", ["detached", "background"])
def test_a_failure_that_is_no_answer_is_not_kept(make, field):
    """It was invalidated, or nobody had called for it."""
    memo = make(failure_ttl=5)
    landing.fail(memo, in_flight(memo, **{field: True}), ValueError())
    assert memo.store.index == {}


@pytest.mark.parametrize(("landed", "is_kept"), [(95.0, False), (85.0, False), (30.5, False), (30.0, True)])
def test_a_value_that_is_served_is_not_replaced(make, landed, is_kept):
    """Be it fresh or stale, to its very end."""
    memo = make(failure_ttl=5, grace=60)
    flight, record = renewal(memo, landed, renews=False, background=False)
    landing.fail(memo, flight, ValueError())
    assert (memo.store.index["k"] is not record) is is_kept


def test_a_failure_replaces_the_one_before_it(make, seen):
    """It is kept from then on, and nothing is said to have gone."""
    memo = make(failure_ttl=5)
    flight, before = in_flight(memo), AgeingRecord("k", None, 98.0, 5.0, error=KeyError())
    flight.previous = before
    memo.store.put(before)
    landing.fail(memo, flight, ValueError())
    assert (type(kept(memo)), memo.store.index["k"].landed) == (ValueError, 100.0)
    assert seen.kinds() == ["land"]


@pytest.mark.parametrize("marks", [(), ("mark",)])
def test_a_stored_failure_goes_by_its_marks(make, marks):
    """The verdict on it names them."""
    memo = make(failure_ttl=5)
    error = ValueError()
    landing.fail(memo, in_flight(memo), error, verdict=landing.Verdict(error, 5.0, marks=marks))
    assert memo.store.index["k"].tags == marks
    controls.cut(memo, ("mark",))
    assert list(memo.store.index) == ([] if marks else ["k"])


class Spoilt:
    """A key that cannot be hashed any more once it is `broken`."""

    broken = False

    def __hash__(self):
        if self.broken:
            raise ValueError("spoilt")
        return 1

    def __repr__(self):
        return "<key>"


@pytest.mark.parametrize("fails", [True, False])
def test_a_key_that_keeps_an_outcome_from_being_stored_is_logged(make, caplog, fails):
    """In one line: where it was raised says nothing to users."""
    memo, key = make(failure_ttl=5), Spoilt()
    flight = in_flight(memo, key)
    key.broken = True
    if fails:
        landing.fail(memo, flight, KeyError())
    else:
        landing.land(memo, flight, 7)
    (record,) = caplog.records
    assert record.getMessage() == "model: what <key> brought could not be stored: ValueError('spoilt')"
    assert (record.levelname, record.exc_info, memo.store.index) == ("WARNING", None, {})


def test_a_failure_ttl_that_keeps_a_failure_from_being_stored_is_logged(make, caplog):
    """With the lines of it that raised; the flight ends with the function's error all the same."""
    fault, asked, error = LookupError("which"), [], ValueError()

    def failure_ttl(given):
        asked.append(given)
        raise fault

    memo = make(failure_ttl=failure_ttl)
    flight = in_flight(memo)
    assert landing.fail(memo, flight, error) is error
    (record,) = caplog.records
    assert record.getMessage() == "model: what 'k' brought could not be stored: LookupError('which')"
    assert (record.exc_info[1], asked, memo.store.index) == (fault, [error], {})


@pytest.mark.parametrize(
    ("error", "asks"), [(KeyboardInterrupt(), False), (FlightTimeout(), False), (ValueError(), True)]
)
@pytest.mark.parametrize("fault", [LookupError(), KeyboardInterrupt()])
def test_a_verdict_without_a_life_is_one_of_no_seconds(make, error, asks, fault):
    """A number that others may calculate with, whatever kept the failure from having a life."""

    def failure_ttl(_):
        raise fault

    verdict = landing.judge(make(failure_ttl=failure_ttl), error)
    is_abort = not isinstance(fault, Exception)
    assert verdict.error is (fault if asks and is_abort else error)
    assert verdict.fault is (fault if asks and not is_abort else None)
    assert (type(verdict.ttl), verdict.ttl, verdict.marks) == (float, 0.0, ())


def test_a_flight_that_has_ended_is_not_judged(make):
    """What `failure_ttl` says of its failure is of no use any more."""
    asked = []
    memo = make(failure_ttl=asked.append)
    flight = in_flight(memo)
    landing.land(memo, flight, 7)
    landing.fail(memo, flight, ValueError())
    assert asked == []


@pytest.mark.parametrize("overdue", [True, False])
def test_an_error_that_says_that_its_flight_is_overdue_is_worded_once_that_has_ended(make, overdue):
    """It names the key, whose text may take any time to make, and the limit."""
    memo, freed = make(flight_timeout=2.5), []

    class Slow:
        def __repr__(self):
            freed.append(memo.locks.live() == [])
            return "<slow>"

    flight, error = in_flight(memo, Slow()), FlightTimeout("as it was")
    landing.fail(memo, flight, error, overdue=overdue)
    assert str(error) == ("model: <slow> took longer than 2.5 s: cancelled" if overdue else "as it was")
    assert freed == ([True] if overdue else [])


@pytest.mark.parametrize("later", [None, []])
def test_an_abort_of_failure_ttl_takes_the_place_of_the_error(make, later):
    """It is raised to whoever ran the function, or returned where several flights end together."""
    abort = KeyboardInterrupt()

    def failure_ttl(_):
        raise abort

    memo = make(failure_ttl=failure_ttl)
    flight = in_flight(memo, followers=1)
    if later is None:
        with pytest.raises(KeyboardInterrupt) as raised:
            landing.fail(memo, flight, ValueError())
        assert (raised.value, flight.state) == (abort, PASSED)
    else:
        assert landing.fail(memo, flight, ValueError(), later) is abort
        assert later == [(flight, None, abort, 100.0, False, None, [], None)]
    assert memo.store.index == {}


def test_a_failure_that_came_after_the_flight_had_begun_stays(make, seen):
    """The store refuses the older one, and nothing is said to have gone."""
    memo = make(failure_ttl=5)
    flight = in_flight(memo)
    memo.store.put(AgeingRecord("k", None, 100.0, 5.0, error=KeyError()))
    landing.fail(memo, flight, ValueError())
    assert (type(kept(memo)), seen.kinds()) == (KeyError, ["land"])


@pytest.mark.parametrize(("landed", "kind"), [(95.0, "evict"), (80.0, "expire")])
def test_what_went_for_a_failure_is_told(make, seen, landed, kind):
    """It takes a place as values do."""
    memo = make(failure_ttl=5, maxsize=1)
    memo.store.put(record_of("other", 1, landed, 10.0))
    landing.fail(memo, in_flight(memo), ValueError())
    assert list(memo.store.index) == ["k"]
    assert [(event.kind, event.key) for event in seen.events] == [(kind, "other"), ("land", "k")]


# -- renewals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "refresh_at", "failed"),
    [
        ({}, ValueError("down"), 101.0, True),
        ({"failure_ttl": 5}, ValueError("down"), 105.0, True),
        ({}, FlightTimeout("long"), 101.0, True),
        ({"failure_ttl": 5}, KeyboardInterrupt(), 100.0, False),
    ],
)
def test_a_renewal_that_fails_is_tried_again(make, caplog, options, error, refresh_at, failed):
    """After a while, and that is said; at once where it was only aborted. Its value stays."""
    memo = make(grace=60, **options)
    flight, record = renewal(memo)
    with caplog.at_level(logging.WARNING):
        landing.fail(memo, flight, error)
    assert memo.store.index == {"k": record}
    assert (record.value, record.refresh_at, record.failed) == ("old", refresh_at, failed)
    text = f"model: 'k' could not be renewed, its value is kept: {error!r}"
    assert caplog.messages == ([text] if failed else [])


@pytest.mark.parametrize(
    ("landed", "failed", "said"), [(31.0, False, True), (31.0, True, False), (30.0, False, False)]
)
def test_that_a_renewal_failed_is_said_once(make, caplog, landed, failed, said):
    """And only of a value that is still served; it is tried again in any case."""
    memo = make(grace=60)
    flight, record = renewal(memo, landed)
    record.failed = failed
    landing.fail(memo, flight, ValueError())
    assert (record.refresh_at, record.failed, bool(caplog.messages)) == (101.0, True, said)


def test_an_abort_forgets_no_failure(make):
    """That a renewal had failed is remembered until one lands."""
    memo = make(grace=60)
    flight, record = renewal(memo)
    record.failed = True
    landing.fail(memo, flight, KeyboardInterrupt())
    assert (record.refresh_at, record.failed) == (100.0, True)


@pytest.mark.parametrize("fields", [{"detached": True}, {"state": LANDED}, {"state": PASSED}])
def test_a_value_that_is_renewed_or_dropped_is_left_alone(make, caplog, fields):
    """The renewal has ended, or what it was to renew has gone."""
    memo = make(grace=60)
    flight, record = renewal(memo, **fields)
    landing.fail(memo, flight, ValueError())
    assert (record.refresh_at, record.failed, caplog.messages) == (inf, False, [])


@pytest.mark.parametrize("previous", [None, record_of("k", "old", 95.0, 10.0)])
def test_there_may_be_nothing_to_renew(memo, previous, caplog):
    """A flight that replaces a value that does not age ends as any other does."""
    landing.fail(memo, in_flight(memo, renews=True, previous=previous), ValueError())
    assert (memo.locks.live(), caplog.messages) == ([], [])


# -- called off ---------------------------------------------------------------------------------------


@pytest.fixture
def unbegun(make, seen):
    """Makes a decision maker, a stale record in it and a renewal of it that nobody has begun."""

    def unbegun(**fields):
        memo = make(grace=60)
        record = AgeingRecord("k", "old", 80.0, 10.0, 60.0, refresh_at=90.0)
        memo.store.put(record)
        call = caller()
        assert coordinator.board(memo, call) is HIT
        seen.clear()
        for name, value in fields.items():
            setattr(call.renewal.flight, name, value)
        return memo, record, call.renewal.flight

    return unbegun


def test_a_renewal_that_nobody_has_begun_is_called_off(unbegun, seen, caplog):
    """As if it had never been: the next reader has the value renewed, and nothing is counted or told."""
    memo, record, flight = unbegun()
    landing.call_off(memo, flight)
    assert (flight.state, flight.unbegun, memo.locks.live()) == (LANDED, False, [])
    assert (record.refresh_at, record.failed, memo.store.index) == (100.0, False, {"k": record})
    assert (memo.counts.calls, memo.counts.refreshes, memo.counts.errors) == (0, 0, 0)
    assert (seen.kinds(), caplog.messages) == ([], [])


def test_who_waits_for_what_is_called_off_flies_instead(unbegun):
    """And no retry is spent on it."""
    memo, _, flight = unbegun(followers=2)
    latch = flight.open_later()
    landing.call_off(memo, flight)
    successor = flight.slot.turn
    assert latch.wait(0.0)
    assert (flight.state, flight.successor) == (PASSED, successor)
    assert (successor.state, successor.followers, successor.retries) == (UNCLAIMED, 2, 3)


@pytest.mark.parametrize("retries", [0, 3])
def test_a_renewal_that_nobody_has_begun_is_called_off_without_room_for_it(unbegun, retries):
    """Whatever struck: it is no execution that failed, so nobody shares that or spends a retry on it."""
    memo, record, flight = unbegun(followers=2, retries=retries)
    after = After()
    with mutex:
        landing.settle_flight(memo, flight, ValueError(), after)
    after.run()
    successor = flight.slot.turn
    assert (flight.state, successor.followers, successor.retries) == (PASSED, 2, retries)
    assert (record.refresh_at, memo.counts.calls, memo.counts.failures) == (100.0, 0, 0)


def test_what_was_dropped_is_not_renewed(unbegun):
    """Its record has left: it is not touched."""
    memo, record, flight = unbegun(detached=True)
    landing.call_off(memo, flight)
    assert (flight.state, record.refresh_at) == (LANDED, inf)


def test_what_somebody_runs_is_not_called_off(unbegun):
    """It has a leader, be it for a moment only."""
    memo, record, flight = unbegun(leader="thread")
    landing.call_off(memo, flight)
    assert (flight.state, flight.slot.turn, flight.unbegun, flight.counted) == (FLYING, flight, True, False)
    assert record.refresh_at == inf
