"""For how long a follower waits before it looks, and what it looks for: by table, to the second."""

from unittest.mock import patch

import pytest

from singleflight.common import patches
from singleflight.common.errors import FlightDeadlock, FlightTimeout
from singleflight.core import controls, coordinator, landing, leaving
from singleflight.core.call import JOIN, NONE, SHARE
from singleflight.core.flight import FLYING, LANDED, UNSEATED
from singleflight.locks import waitgraph
from singleflight.locks.slots import Hold
from singleflight.locks.waiters import current_actor

from .conftest import caller, entangled, in_flight, watched

pytestmark = pytest.mark.usefixtures("waiting")

MOST = 4
TOO_MANY = "model: several calls for 'k' took longer than 5 s and are still running"


def flying(memo):
    return in_flight(memo, due=False)


def follower(memo, actor="caller", *awaited_by, **fields):
    """A call that waits."""
    call = watched(actor, *awaited_by, **fields)
    assert coordinator.board(memo, call) is JOIN
    return call


def left_running(memo):
    """So many flights of a key have taken too long that no more may."""
    for _ in range(MOST):
        assert coordinator.unseat(memo, in_flight(memo))


def counted(memo):
    counts = memo.counts
    return counts.waits, counts.errors, counts.timeouts


# -- for how long -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "due", "awaited_outside", "pauses"),
    [
        (None, None, False, (1.0, None)),
        (None, 1000.25, False, (0.25, None)),
        (None, 1002.0, False, (1.0, None)),
        (None, 999.0, False, (0.0, None)),
        (None, None, True, (1.0, 0.05)),
        (None, 1000.25, True, (0.25, 0.05)),
        (60, None, False, (1.0, 1.0)),
        (60, 1000.25, False, (0.25, 1.0)),
        (60, None, True, (1.0, 0.05)),
        (10.5, None, False, (1.0, 0.5)),
        (10.5, None, True, (1.0, 0.05)),
        (10.03125, None, True, (1.0, 0.03125)),
        (10, None, False, (1.0, 0.0)),
        (9, None, False, (1.0, 0.0)),
        (0, None, True, (1.0, 0.0)),
    ],
)
def test_how_long_a_follower_may_wait(make, seconds, limit, due, awaited_outside, pauses):
    """Until somebody looks, for all who wait for its flight: a second, or until that is due. Until it looks
    itself, if it has to: a second, a twentieth where others may wait for it, or until its patience ends.
    """
    memo = make(wait_timeout=limit)
    flight = flying(memo)
    call = follower(memo)
    flight.due, call.awaited_outside = due, awaited_outside
    assert coordinator.pauses(memo, call, began=990.0) == pauses


@pytest.mark.parametrize(
    ("due", "state", "pause"),
    [
        (None, FLYING, 1.0),
        (1000.5, FLYING, 0.5),
        (1001.5, FLYING, 1.0),
        (1000.5, LANDED, None),
        (900.0, LANDED, None),
    ],
)
def test_when_somebody_looks_again_on_behalf_of_all(memo, seconds, due, state, pause):
    """When the flight is due, but after a second at the latest; at once each for itself, once it is over."""
    flight = flying(memo)
    flight.due, flight.state = due, state
    assert coordinator.watch(memo, flight) == pause


def test_whoever_watches_takes_the_key_from_a_flight_that_is_due(memo, seconds):
    """On behalf of all who wait; there is nothing to wait for any more."""
    flight = flying(memo)
    follower(memo)
    seconds.now = 1005.0
    assert coordinator.watch(memo, flight) == 1.0
    assert (flight.state, flight.slot.turn) == (UNSEATED, flight.successor)


def test_where_too_many_are_still_running_everybody_has_to_look_for_himself(memo, seconds):
    """Each of them is to be told that there are."""
    left_running(memo)
    flight = in_flight(memo)
    assert coordinator.watch(memo, flight) is None
    assert flight.state is FLYING


# -- patience ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("waited", "over"), [(2.75, False), (3.0, True), (3.25, True)])
def test_patience_ends_to_the_moment(make, seconds, seen, waited, over):
    """It leaves then, which is told and counted; its flight is not disturbed."""
    memo = make(wait_timeout=3)
    flight = flying(memo)
    call = follower(memo)
    seconds.now += waited
    if not over:
        assert coordinator.look(memo, call, began=1000.0) is JOIN
        assert (call.decision, flight.followers, seen.count("timeout")) == (JOIN, 1, 0)
        return
    with pytest.raises(FlightTimeout) as raised:
        coordinator.look(memo, call, began=1000.0)
    assert str(raised.value) == f"model: waited {waited:g} s for 'k'"
    assert [(event.key, event.waited) for event in seen.of("timeout")] == [("k", waited)]
    assert (call.decision, flight.followers, flight.state) == (NONE, 0, FLYING)
    assert (counted(memo), waitgraph.waiting) == ((0, 0, 1), {})


def test_what_it_says_of_its_wait_is_short(make, seconds):
    """Nobody needs more than three digits."""
    memo = make(wait_timeout=0)
    flying(memo)
    call = follower(memo)
    seconds.now += 1.23456
    with pytest.raises(FlightTimeout, match=r"^model: waited 1\.23 s for 'k'$"):
        coordinator.look(memo, call, began=1000.0)


def test_without_a_limit_patience_does_not_end(memo, seconds):
    """However long it waits, as long as its flight is not due."""
    flight = flying(memo)
    call = follower(memo)
    flight.due = None
    seconds.now += 1e9
    assert coordinator.look(memo, call, began=0.0) is JOIN
    assert (flight.followers, counted(memo)) == (1, (0, 0, 0))


def test_an_outcome_that_has_come_is_taken_though_patience_has_ended(make, seconds, seen):
    """It was counted among those who share it."""
    memo = make(wait_timeout=3)
    flight = flying(memo)
    call = follower(memo)
    landing.land(memo, flight, "value")
    seconds.now += 3
    assert coordinator.look(memo, call, began=1000.0) is SHARE
    assert (call.decision, counted(memo), seen.count("timeout")) == (SHARE, (1, 0, 0), 0)


# -- a flight that is due ---------------------------------------------------------------------------


def test_a_follower_takes_the_key_from_a_flight_that_is_due(memo, seconds):
    """And finds, once it wakes, that it is to lead."""
    flight = flying(memo)
    call = follower(memo)
    seconds.now = 1004.75
    assert coordinator.look(memo, call, began=1000.0) is JOIN
    assert flight.state is FLYING
    seconds.now = 1005.0
    assert coordinator.look(memo, call, began=1000.0) is JOIN
    assert (flight.state, flight.successor.followers, call.decision) == (UNSEATED, 1, JOIN)
    assert call.latch.wait(0.0)


def test_a_follower_gives_up_where_too_many_are_still_running(memo, seconds, seen):
    """It is told so and counted as timed out."""
    left_running(memo)
    flight = flying(memo)
    call = follower(memo)
    flight.due = 0.0
    seconds.now += 1.5
    with pytest.raises(FlightTimeout) as raised:
        coordinator.look(memo, call, began=1000.0)
    assert [(event.key, event.waited) for event in seen.of("timeout")] == [("k", 1.5)]
    assert (str(raised.value), call.decision, waitgraph.waiting) == (TOO_MANY, NONE, {})
    assert (flight.state, flight.followers, counted(memo)) == (FLYING, 0, (0, 0, 1))


def lands_first(memo, flight):
    """The flight lands before a follower that gives up is through with it."""
    leave = leaving.leave

    def left(*args, **kwargs):
        landing.land(memo, flight, "value")
        return leave(*args, **kwargs)

    return patch.object(coordinator, "leave", left)


def test_a_flight_that_lands_in_the_last_moment_is_not_given_up_as_too_long(memo, seconds):
    """What it brought is the follower's as soon as it wakes."""
    left_running(memo)
    flight = flying(memo)
    call = follower(memo)
    flight.due = 0.0
    with lands_first(memo, flight):
        assert coordinator.look(memo, call, began=1000.0) is JOIN
    assert coordinator.awake(memo, call) is SHARE
    assert counted(memo) == (1, 0, 0)


# -- what is in the way -----------------------------------------------------------------------------


def look(memo, call):
    """As the follower does."""
    assert coordinator.look(memo, call, began=0.0) is JOIN


def watch(memo, call):
    """As somebody does on behalf of all who wait."""
    assert coordinator.watch(memo, call.flight) == 1.0


@pytest.mark.parametrize("see", [look, watch])
@pytest.mark.parametrize("dead", [False, True])
def test_whoever_looks_sees_to_what_the_flight_waits_for(memo, see, dead):
    """A plain lock of a task whose loop is gone is given up on its behalf."""
    released, slot = [], memo.locks.enter("k")
    slot.turn = hold = Hold(("k",), watched("owner", thread=3, dead=dead), released.append)
    see(memo, follower(memo))
    assert released == ([hold] if dead else [])


@pytest.mark.parametrize("see", [look, watch])
def test_a_flight_that_was_detached_has_nothing_before_it(memo, see):
    """Its slot is nobody's any more; its followers go on waiting for it."""
    flight = flying(memo)
    call = follower(memo)
    controls.invalidate(memo, "k")
    see(memo, call)
    assert (flight.slot.turn, flight.state, flight.followers) == (None, FLYING, 1)


# -- cycles ----------------------------------------------------------------------------------------


def test_a_cycle_that_was_closed_outside_is_found_when_it_looks(memo, seen):
    """Its flight's function has come to await it: it leaves, is told why, and counts as failed."""
    flight = flying(memo)
    call = follower(memo, "child", "parent")
    call.awaited_by = frozenset({"leader"})
    with pytest.raises(FlightDeadlock) as raised:
        coordinator.look(memo, call, began=1000.0)
    assert str(raised.value) == "model: waiting would never end: 'k' -> 'k'"
    assert [(event.key, event.cycle) for event in seen.of("deadlock")] == [("k", "'k' -> 'k'")]
    assert (call.decision, flight.followers, flight.state) == (NONE, 0, FLYING)
    assert (counted(memo), waitgraph.waiting, waitgraph.below) == ((0, 1, 0), {}, {})


def test_a_leader_that_stands_in_a_cycle_twice(memo, waiting):
    """What is waited for is told where it comes in, and not once more as one of its leader's keys."""
    waits, cycle = entangled(memo)
    call = follower(memo, "caller", "parent")
    waiting.update(waits)
    with pytest.raises(FlightDeadlock, match=f"^model: waiting would never end: {cycle}$"):
        coordinator.look(memo, call, began=1000.0)


@pytest.mark.parametrize("limit", [None, 60])
def test_who_has_patience_for_so_long_only_is_not_refused_in_doubt(make, seconds, limit):
    """Its wait has an end in any case; without a limit a lock of a job that may be over closes a cycle."""
    memo, asked = make(wait_timeout=limit), []
    flight = flying(memo)
    call = follower(memo, "child", "parent")

    def cycle(*arguments):
        asked.append(arguments)

    with patch.object(coordinator, "cycle", cycle):
        assert coordinator.look(memo, call, began=1000.0) is JOIN
    assert asked == [(call, flight, limit is not None)]


OWN = (
    "; this very caller is fetching it, further out: what a getter and its bulk loader (or its twin) both "
    "need to fetch belongs in an undecorated function that both call"
)


@pytest.mark.parametrize(
    ("leaders", "patched", "hint"),
    [
        (["me"], "", OWN),
        (["me", "me"], "", OWN),
        (["me", "other"], "", ""),
        (["other", "me"], "", ""),
        (["me", "nobody"], "", ""),
        (["me", "holder"], "", ""),
        (["me"], "; patched", "; patched"),
    ],
)
def test_who_waits_for_itself_is_told_what_to_do(memo, seen, leaders, patched, hint):
    """If it leads all that is in the cycle, and is nobody else who looks like it."""
    keys = [f"key {number}" for number in range(len(leaders))]
    for key, leader in zip(keys, leaders, strict=True):
        if leader == "holder":
            memo.locks.enter(key).turn = Hold((key,), caller(actor=current_actor()), None)
        elif leader != "nobody":
            flight = in_flight(memo, key, due=False)
            flight.leader = current_actor() if leader == "me" else "other"
    cycle = " -> ".join(map(repr, keys))
    with patch.object(patches, "hint", lambda: patched), pytest.raises(FlightDeadlock) as raised:
        coordinator.refuse(memo, "k", keys)
    assert str(raised.value) == f"model: waiting would never end: {cycle}{hint}"
    assert [(event.key, event.cycle) for event in seen.of("deadlock")] == [("k", cycle)]


def test_who_has_come_to_wait_for_it_is_noted(memo):
    """For those who ask about themselves."""
    flying(memo)
    call = follower(memo, "child", "parent")
    assert waitgraph.below == {"parent": {call: None}}
    call.awaited_by = frozenset({"another"})
    assert coordinator.look(memo, call, began=1000.0) is JOIN
    assert (waitgraph.below, call.noted) == ({"another": {call: None}}, {"another"})


def test_whom_nobody_can_have_come_to_wait_for_does_not_ask(memo):
    """A thread of its own, say: it would cost all others the mutex, each second."""
    flying(memo)
    call = follower(memo)
    call.awaited_by = frozenset({"leader"})
    assert (call.awaited_outside, coordinator.look(memo, call, began=1000.0)) == (False, JOIN)
    assert waitgraph.below == {}


def test_a_flight_that_lands_in_the_last_moment_closes_no_cycle(memo, seen):
    """What it brought is the follower's as soon as it wakes."""
    flight = flying(memo)
    call = follower(memo, "child", "parent")
    call.awaited_by = frozenset({"leader"})
    with lands_first(memo, flight):
        assert coordinator.look(memo, call, began=1000.0) is JOIN
    assert coordinator.awake(memo, call) is SHARE
    assert (counted(memo), seen.of("deadlock")) == ((1, 0, 0), [])
