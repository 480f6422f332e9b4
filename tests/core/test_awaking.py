"""What a follower does whose gate has opened: shares, is served, leads, waits for another, or boards anew."""

import pytest

from singleflight.core import controls, coordinator, landing
from singleflight.core.call import HIT, JOIN, LEAD, NONE, SHARE
from singleflight.core.flight import FLYING, LANDED, PASSED, UNCLAIMED
from singleflight.locks.latch import Latch
from singleflight.locks.slots import Hold
from singleflight.locks.waitgraph import begin_waiting
from singleflight.storage.record import AgeingRecord

from .conftest import caller, in_flight, watched

pytestmark = pytest.mark.usefixtures("waiting")


def flying(memo, key="k"):
    return in_flight(memo, key, due=False)


def follower(memo, actor="caller", **fields):
    """A call that waits."""
    call = watched(actor, **fields)
    assert coordinator.board(memo, call) is JOIN
    return call


def put(memo, clock, left=1.0, error=None):
    """A value, or a failure, that is fresh for so many seconds."""
    record = AgeingRecord("k", None if error else "put", clock() + left - 10.0, 10.0, error=error)
    memo.store.put(record)
    return record


def counted(memo):
    counts = memo.counts
    return counts.waits, counts.errors, counts.timeouts


def test_an_outcome_is_shared(memo, waiting):
    """It waits no more; that it waited was counted when the flight landed."""
    flight = flying(memo)
    call = follower(memo)
    landing.land(memo, flight, "value")
    assert coordinator.awake(memo, call) is SHARE
    assert (call.decision, call.flight, call.flight.value) == (SHARE, flight, "value")
    assert (call.before, waiting, counted(memo)) == (None, {}, (1, 0, 0))


def test_the_first_to_wake_leads_after_a_flight_without_an_outcome(memo, clock, seconds, waiting):
    """It follows nobody then; what it replaces is the value of now."""
    first = flying(memo)
    calls = [follower(memo, "first", thread="first"), follower(memo, "second")]
    landing.land(memo, first, None)
    expired = put(memo, clock, left=0.0)
    clock.advance(1)
    seconds.now += 10
    assert coordinator.awake(memo, calls[0]) is LEAD
    flight = calls[0].flight
    assert (flight, calls[0].decision, calls[0].before) == (first.successor, LEAD, None)
    assert (flight.state, flight.leader, flight.slot.turn) == (FLYING, "first", flight)
    assert (flight.started, flight.due, flight.previous) == (101.0, 1015.0, expired)
    assert (flight.followers, waiting) == (1, {"second": (first,)})
    assert counted(memo) == (0, 0, 0)


def test_a_wait_that_is_over_does_not_hold_up_what_it_leads_now(memo, waiting):
    """So it is not below what it leads; one that it interrupted is."""
    first = flying(memo)
    under_way = flying(memo, "under way")
    begin_waiting("first", under_way)
    call = follower(memo, "first", thread="first")
    landing.land(memo, first, None)
    assert coordinator.awake(memo, call) is LEAD
    assert (call.flight.depth, waiting) == (1, {"first": (under_way,)})


def test_the_others_wait_for_whoever_leads_now(memo, waiting):
    """At the gate of the successor, noted as waiting for that, with a place at it."""
    first, under_way = flying(memo), flying(memo, "under way")
    begin_waiting("second", under_way)
    calls = [follower(memo, "first"), follower(memo, "second")]
    landing.land(memo, first, None)
    coordinator.awake(memo, calls[0])
    second, flight = calls[1], first.successor
    assert coordinator.awake(memo, second) is JOIN
    assert (second.decision, second.flight, second.latch) == (JOIN, flight, flight.latch)
    assert second.stood == (flight.latch, memo, flight)
    assert (flight.followers, second.before) == (1, 1)
    assert waiting == {"second": (under_way, flight)}


def test_a_bulk_call_follows_whoever_leads_now(memo, waiting):
    """It waits for nothing yet: nothing of it is noted."""
    first = flying(memo)
    calls = [follower(memo, "first"), follower(memo, "second", follows=True)]
    landing.land(memo, first, None)
    coordinator.awake(memo, calls[0])
    second, flight = calls[1], first.successor
    second.stood = None
    assert coordinator.awake(memo, second) is JOIN
    assert (second.decision, second.flight, second.latch) == (JOIN, flight, flight.latch)
    assert (second.stood, second.before, waiting) == (None, None, {})


@pytest.mark.parametrize("renew", [False, True])
def test_who_wakes_too_early_goes_on_waiting(memo, clock, waiting, renew):
    """Also where there is a value: its flight may bring a newer one."""
    flight = flying(memo)
    call = follower(memo, renew=renew)
    put(memo, clock)
    assert coordinator.awake(memo, call) is JOIN
    assert (call.flight, call.latch, flight.followers) == (flight, flight.latch, 1)
    assert (waiting, counted(memo)) == ({"caller": (flight,)}, (0, 0, 0))


def test_a_flight_that_is_unclaimed_behind_a_plain_lock_is_waited_for(memo, waiting):
    """Its turn has not come: nobody is to lead it."""
    slot = memo.locks.enter("k")
    slot.turn = hold = Hold(("k",), caller(actor="owner", thread=3), None)
    call = follower(memo)
    flight = call.flight
    assert coordinator.awake(memo, call) is JOIN
    assert (call.flight, flight.state, flight.followers) == (flight, UNCLAIMED, 1)
    assert (slot.turn, list(slot.queue), waiting) == (hold, [flight], {"caller": (flight,)})


def test_a_detached_flight_without_an_outcome_leaves_its_followers_to_themselves(memo, waiting):
    """They board anew."""
    flight = flying(memo)
    call = follower(memo)
    controls.invalidate(memo, "k")
    landing.land(memo, flight, None)
    flight.state, flight.successor = PASSED, None
    assert coordinator.awake(memo, call) is NONE
    assert (call.decision, call.before, waiting, counted(memo)[1:]) == (NONE, None, {}, (0, 0))


def test_a_successor_that_has_landed_is_shared(memo, waiting):
    """Others were quicker; this one was counted among its followers."""
    first = flying(memo)
    calls = [follower(memo, "first"), follower(memo, "second")]
    landing.land(memo, first, None)
    coordinator.awake(memo, calls[0])
    landing.land(memo, calls[0].flight, "value")
    assert coordinator.awake(memo, calls[1]) is SHARE
    assert (calls[1].decision, calls[1].flight) == (SHARE, first.successor)
    assert (calls[1].flight.state, waiting, counted(memo)) == (LANDED, {}, (1, 0, 0))


@pytest.mark.parametrize("error", [None, ValueError()])
def test_what_was_put_meanwhile_is_served(memo, clock, waiting, error):
    """It follows nobody any more, and counts as having waited, or, for a stored failure, as failed."""
    first = flying(memo)
    calls = [follower(memo, "first"), follower(memo, "second")]
    calls[0].renewal = "of another time"
    landing.land(memo, first, None)
    record = put(memo, clock, left=0.5, error=error)
    flight = first.successor
    assert coordinator.awake(memo, calls[0]) is HIT
    assert (calls[0].decision, calls[0].record, calls[0].renewal) == (HIT, record, None)
    assert calls[0].served == "wait"
    assert (calls[0].before, flight.followers, flight.state) == (None, 1, UNCLAIMED)
    assert counted(memo) == ((0, 1, 0) if error else (1, 0, 0))
    assert coordinator.awake(memo, calls[1]) is HIT
    assert counted(memo) == ((0, 2, 0) if error else (2, 0, 0))
    assert (flight.slot.turn, memo.locks.live(), waiting) == (None, [], {})


def test_who_is_served_last_frees_the_key_for_who_queues(memo, clock):
    """Its gate is opened, once the mutex is free."""
    first = flying(memo)
    call = follower(memo)
    hold = Hold(("k",), caller(actor="owner", thread=3), None)
    hold.slots, hold.latch = [first.slot], Latch()
    first.slot.line_up(hold)
    landing.land(memo, first, None)
    put(memo, clock)
    assert coordinator.awake(memo, call) is HIT
    assert first.slot.turn is hold
    assert hold.latch.wait(0.0)


@pytest.mark.parametrize(("left", "renew"), [(0.0, False), (0.5, True)])
def test_what_is_not_fresh_or_not_fresh_enough_is_fetched(memo, clock, left, renew):
    """A value that has run out, or any for a call that wants a new one."""
    first = flying(memo)
    call = follower(memo, renew=renew)
    landing.land(memo, first, None)
    record = put(memo, clock, left=left)
    assert coordinator.awake(memo, call) is LEAD
    assert (call.flight.previous, call.flight.kind) == (record, "refresh" if renew else "call")
