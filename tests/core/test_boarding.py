"""What a call does first: it is served, leads a flight, or follows one; by table."""

import logging
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from singleflight.common.errors import FlightTimeout
from singleflight.core import controls, coordinator, landing, transitions
from singleflight.core.call import HIT, JOIN, LEAD
from singleflight.core.flight import FLYING, LANDED, UNCLAIMED, UNSEATED
from singleflight.locks.slots import Hold
from singleflight.storage.record import AgeingRecord

from .conftest import Work, caller, in_flight, watched

MOST = 4


class Elsewhere(Work):
    """What runs a flight on another loop."""

    loop = "another loop"


def stored(memo, clock, ttl=10.0, left=1.0):
    """A value with so many seconds left of its ttl."""
    record = AgeingRecord("k", "value", clock() + left - ttl, ttl)
    memo.store.put(record)
    return record


def held(memo, key="k", actor="owner"):
    """A plain lock on a key; returns the key's slot."""
    slot = memo.locks.enter(key)
    slot.turn = Hold((key,), caller(actor=actor, thread=3), None)
    slot.turn.slots = [slot]
    return slot


def test_a_stored_value_is_served(memo, clock, seen):
    """It is counted and told as a hit, and no slot is taken."""
    record, call = stored(memo, clock), caller()
    assert coordinator.board(memo, call) is HIT
    assert (call.decision, call.record, call.renewal) == (HIT, record, None)
    assert (controls.stats(memo).hits, [event.value for event in seen.of("hit")]) == (1, ["value"])
    assert memo.locks.live() == []


@pytest.mark.parametrize(("left", "decision"), [(0.5, HIT), (0.0, LEAD), (-0.5, LEAD)])
def test_a_value_is_served_until_its_ttl_ends(memo, clock, left, decision):
    """To the very moment; what has run out is what the new flight replaces."""
    record, call = stored(memo, clock, left=left), caller()
    assert coordinator.board(memo, call) is decision
    assert decision is HIT or call.flight.previous is record


def test_a_fresh_value_does_not_satisfy_a_refresh(memo, clock):
    """It leads a flight that replaces the value."""
    record, call = stored(memo, clock), caller(renew=True)
    assert coordinator.board(memo, call) is LEAD
    assert (call.flight.kind, call.flight.previous) == ("refresh", record)


def test_who_finds_nothing_leads_a_new_flight(memo, clock, seconds):
    """It has the key from then on, and all of its function's retries."""
    clock.set(107.0)
    call = caller()
    assert coordinator.board(memo, call) is LEAD
    flight = call.flight
    assert (call.decision, flight.slot.turn, memo.locks.slot("k")) == (LEAD, flight, flight.slot)
    assert (flight.cache, flight.key, flight.retries, flight.followers) == (memo, "k", 3, 0)
    assert (flight.state, flight.leader, flight.thread) == (FLYING, "caller", 2)
    assert (flight.started, flight.due, flight.previous, flight.kind) == (107.0, 1005.0, None, "call")


@pytest.mark.parametrize("listens", [False, True])
@pytest.mark.parametrize("logs", [False, True])
def test_whether_anybody_wants_to_be_told_is_asked_when_a_call_boards(make, seen, caplog, listens, logs):
    """A listener or the library's log; its flight is told to either."""
    memo, call = make(listener=seen if listens else None), caller()
    with caplog.at_level(logging.DEBUG if logs else logging.INFO, "singleflight"):
        coordinator.board(memo, call)
    assert (call.wants_events, call.flight.wants_events) == (listens or logs, listens or logs)


@pytest.mark.parametrize(
    ("levels", "logs", "asked", "wanted"),
    [({}, False, 1, False), ({}, True, 1, True), ({10: True}, True, 1, True), ({10: False}, True, 0, False)],
)
@pytest.mark.parametrize("begin", ["board", "lead_at_once"])
def test_the_log_is_asked_unless_it_has_said_no(make, begin, levels, logs, asked, wanted):
    """Its cache says whether it has; a usual miss looks there alone."""
    memo, call, asks = make(listener=None), caller(), []
    fake = SimpleNamespace(levels=levels, is_logging=lambda level: asks.append(level) or logs)
    with patch.object(coordinator, "logs", fake), patch.object(transitions, "logs", fake):
        assert getattr(coordinator if begin == "board" else transitions, begin)(memo, call)
    assert (asks[:1], call.wants_events, call.flight.wants_events) == ([10] * asked, wanted, wanted)


def test_a_slot_that_an_interrupt_left_to_a_flight_that_is_over_is_free(memo):
    """Its leader was struck between its end and what follows from it."""
    over = in_flight(memo, due=False, state=LANDED)
    call = caller()
    assert coordinator.board(memo, call) is LEAD
    assert call.flight is not over
    assert over.slot.turn is call.flight


def test_a_flight_that_nobody_leads_is_claimed_by_whoever_comes_first(memo, clock, seconds):
    """With its followers and what is left of its retries; the value that it saw is the one there now."""
    first, second, call = in_flight(memo, due=False), caller(actor="second"), caller()
    coordinator.board(memo, second)
    landing.land(memo, first, None)
    record = stored(memo, clock, left=-1.0)
    clock.advance(1)
    assert coordinator.board(memo, call) is LEAD
    flight = call.flight
    assert (flight, call.decision, flight.slot.turn) == (first.successor, LEAD, flight)
    assert (flight.state, flight.leader, flight.followers, flight.retries) == (FLYING, "caller", 1, 2)
    assert (flight.started, flight.due, flight.previous, flight.kind) == (101.0, 1005.0, record, "call")


def test_a_renewal_that_nobody_runs_yet_is_taken_over(make, clock, seconds):
    """It might wait for a thread that this caller occupies: so it is this call's own from now on."""
    memo = make(grace=5)
    record, served = AgeingRecord("k", 1, 88.0, 10.0, grace=5.0, refresh_at=98.0), caller()
    memo.store.put(record)
    assert coordinator.board(memo, served) is HIT
    flight = served.renewal.flight
    assert (flight.unbegun, flight.background) == (True, True)
    clock.set(104.0)
    call = caller()
    assert coordinator.board(memo, call) is LEAD
    assert (call.flight, call.decision, flight.slot.turn) == (flight, LEAD, flight)
    assert (flight.unbegun, flight.background, flight.kind) == (False, False, "call")
    assert (flight.leader, flight.started, flight.due) == ("caller", 104.0, 1005.0)
    assert flight.previous is record
    assert coordinator.board(memo, caller(actor="another")) is JOIN


def test_behind_a_plain_lock_all_callers_are_one_flight(memo):
    """It lines up once, unclaimed, behind who was there before, and is led when its turn has come."""
    slot, calls = held(memo), [caller(actor=name) for name in "abc"]
    hold, other = slot.turn, Hold(("k",), caller(actor="other"), None)
    slot.line_up(other)
    assert [coordinator.board(memo, call) for call in calls] == [JOIN] * 3
    flight = calls[0].flight
    assert [call.flight for call in calls] == [flight] * 3
    assert (slot.turn, list(slot.queue)) == (hold, [other, flight])
    assert (flight.state, flight.leader, flight.followers, flight.retries) == (UNCLAIMED, None, 3, 3)
    assert (flight.cache, flight.slot, flight.key) == (memo, slot, "k")


@pytest.mark.parametrize(
    ("fields", "loop", "unseated"),
    [
        ({"due": 1000.0}, None, True),
        ({"due": 1000.1}, None, False),
        ({"due": None}, None, False),
        ({"due": 1000.0, "work": Work()}, None, True),
        ({"due": None, "work": Work(dead=True)}, None, False),  # it runs on the caller's own loop: which runs
        ({"due": None, "work": Elsewhere(dead=True)}, None, True),
        ({"due": None, "work": Elsewhere(dead=True)}, "another loop", False),
        ({"due": None, "work": Elsewhere()}, None, False),
        ({"due": 1000.1, "work": Elsewhere(dead=True)}, None, True),
        ({"due": None, "life": lambda: None}, None, True),
        ({"due": None, "life": lambda: "alive"}, None, False),
        ({"due": None, "life": None}, None, False),
    ],
)
def test_a_flight_in_the_way_that_is_due_loses_the_key_to_the_newcomer(
    memo, seconds, waiting, fields, loop, unseated
):
    """It takes too long, or its loop is gone, or its thread; otherwise it is followed."""
    before, call = in_flight(memo, due=False), watched(loop=loop)
    for name, value in fields.items():
        setattr(before, name, value)
    assert coordinator.board(memo, call) is (LEAD if unseated else JOIN)
    assert call.decision is (LEAD if unseated else JOIN)
    assert before.state is (UNSEATED if unseated else FLYING)
    assert (call.flight is before) is not unseated
    assert memo.locks.slot("k").turn is call.flight


def test_a_newcomer_is_turned_away_where_too_many_are_still_running(memo, seen, seconds, waiting):
    """It is told so and counted as timed out; whoever flies is left alone."""
    for _ in range(MOST):
        assert coordinator.unseat(memo, in_flight(memo))
    fifth, calls = in_flight(memo), [caller(), caller()]
    for number, call in enumerate(calls, 1):
        with pytest.raises(FlightTimeout) as told:
            coordinator.board(memo, call)
        said = "model: several calls for 'k' took longer than 5 s and are still running"
        assert (str(told.value), controls.stats(memo).timeouts) == (said, number)
        assert [(event.key, event.waited) for event in seen.of("timeout")] == [("k", 0.0)] * number
    assert (fifth.state, fifth.slot.turn, fifth.followers) == (FLYING, fifth, 0)
    assert waiting == {}
