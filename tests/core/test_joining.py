"""How a call comes to follow a flight: what is noted of its wait, and when it is refused."""

import gc
import weakref
from unittest.mock import patch

import pytest

from singleflight.common.errors import FlightDeadlock
from singleflight.core import coordinator, landing, leaving
from singleflight.core.call import JOIN, NONE
from singleflight.core.flight import UNCLAIMED
from singleflight.locks import waitgraph
from singleflight.locks.slots import Hold
from singleflight.locks.waitgraph import begin_waiting, note

from .conftest import Work, caller, entangled, in_flight, watched

pytestmark = pytest.mark.usefixtures("waiting")


@pytest.fixture
def without_collections():
    gc.disable()
    yield
    gc.enable()


def flying(memo, key="k"):
    return in_flight(memo, key, due=False)


def test_a_follower_waits_at_the_gate_of_its_flight(memo, waiting):
    """It is counted there, noted as waiting, and given its place: whoever looks on its behalf is told."""
    flight, call = flying(memo), watched()
    assert coordinator.board(memo, call) is JOIN
    assert (call.decision, call.flight, call.latch, call.before) == (JOIN, flight, flight.latch, 0)
    assert call.stood == (flight.latch, memo, flight)
    assert (flight.followers, waiting) == (1, {"caller": (flight,)})
    assert (call.awaited_outside, call.noted, waitgraph.below) == (False, frozenset(), {})


def test_all_followers_of_a_flight_share_its_gate_and_one_note(memo, waiting):
    """A thousand waits are to cost a thousand dictionary items, and no more."""
    flight, calls = flying(memo), [watched(name) for name in "abc"]
    for call in calls:
        coordinator.board(memo, call)
    assert [call.latch for call in calls] == [flight.latch] * 3
    assert (flight.followers, {id(note) for note in waiting.values()}) == (3, {id(flight.latch.alone)})
    assert flight.latch.alone == (flight,)


def test_a_wait_event_has_the_number_that_followed_when_it_joined(memo, seen):
    """Later ones may have joined before it is told: each number is told once."""
    flying(memo)
    calls = [watched(name) for name in "abc"]
    for call in calls:
        coordinator.board(memo, call)
    for call in calls:
        memo.tell.waiting(call.flight, call.place)
    assert [event.followers for event in seen.of("wait")] == [1, 2, 3]


def test_a_wait_on_top_of_another_is_noted_with_what_was_under_way(memo, waiting):
    """A signal handler waits while the thread that it interrupted waits, and goes back to that."""
    first, second, third = flying(memo, "first"), flying(memo, "second"), flying(memo)
    begin_waiting(2, first), begin_waiting(2, second)
    call = watched(2)
    assert coordinator.board(memo, call) is JOIN
    assert (call.before, waiting) == (2, {2: (first, second, third)})
    assert third.latch.alone is None
    leaving.done(memo, call)
    assert waiting == {2: (first, second)}


def test_who_waits_later_if_at_all_is_only_counted(memo, waiting):
    """A bulk call follows from the start what it needs, and asks for cycles once it waits."""
    flight = flying(memo)
    for number in (1, 2):
        call = watched("leader", follows=True)
        assert coordinator.board(memo, call) is JOIN
        assert (call.decision, call.flight, call.latch, call.before) == (JOIN, flight, flight.latch, None)
        assert (call.stood, flight.followers, waiting) == (None, number, {})
    assert flight.latch is not None


def test_who_waits_later_lines_up_behind_a_plain_lock_all_the_same(memo, waiting):
    """Its flight is there to be followed by others."""
    slot = memo.locks.enter("k")
    slot.turn = Hold(("k",), caller(actor="owner"), None)
    calls = [watched(name, follows=True) for name in "ab"]
    assert [coordinator.board(memo, call) for call in calls] == [JOIN] * 2
    flight = calls[0].flight
    assert (list(slot.queue), flight.state, flight.followers, waiting) == ([flight], UNCLAIMED, 2, {})


REFUSED = "model: waiting would never end: "


def refused(memo, seen, call, cycle):
    """It is told with every key in order, is counted as failed, and leaves nothing behind."""
    flight = memo.locks.slot(call.key).turn
    before = dict(waitgraph.waiting), flight.latch
    with pytest.raises(FlightDeadlock) as told:
        coordinator.board(memo, call)
    assert str(told.value) == REFUSED + cycle
    assert [(event.key, event.cycle) for event in seen.of("deadlock")] == [(call.key, cycle)]
    assert (memo.counts.errors, call.decision, call.before) == (1, NONE, None)
    assert (dict(waitgraph.waiting), flight.latch, getattr(flight, "followers", 0)) == (*before, 0)


def test_its_own_leader_is_refused(memo, seen):
    """It asks for the key that it is fetching."""
    flying(memo)
    refused(memo, seen, watched("leader"), "'k' -> 'k'")


def test_nothing_leads_from_a_refusal_to_the_flight_that_was_asked_for(make, without_collections):
    """Its function may raise another error from that, which the flight comes to hold for its followers."""
    memo, error = make(follower_retries=0), ValueError()

    def begin():
        flight = flying(memo)
        flight.previous = its_own = Work()  # anything that can be referenced weakly
        coordinator.board(memo, watched(follows=True))
        return weakref.ref(its_own)

    def fail():
        flight = memo.locks.slot("k").turn
        landing.fail(memo, flight, error)
        assert flight.error is error

    its_own = begin()  # frames lead to their callers': this one is not to know the flight
    try:
        coordinator.board(memo, watched("leader"))
    except FlightDeadlock as refusal:
        error.__cause__ = refusal
    fail()
    assert (error.__cause__.__traceback__ is not None, its_own()) == (True, None)


def test_whoever_stands_still_with_the_thread_of_the_leader_is_refused(memo, seen):
    """A task leads, and what runs on top of it on its thread asks as that thread."""
    flying(memo)
    refused(memo, seen, watched("another", blocks=1), "'k' -> 'k'")


def test_whom_the_leader_waits_for_outside_is_refused(memo, seen):
    """The function awaits a task that asks for its key."""
    flying(memo)
    refused(memo, seen, watched("child", "leader"), "'k' -> 'k'")


def test_a_leader_has_more_than_one_key(memo, seen):
    """The others that it took meanwhile are told in between."""
    for key in ("before", "k", "within"):
        flying(memo, key)
    refused(memo, seen, watched("leader"), "'k' -> 'within' -> 'k'")


def owned(memo, key, actor, thread):
    """A flight of another leader."""
    call = caller(key, actor, thread)
    coordinator.board(memo, call)
    return call.flight


@pytest.mark.parametrize("waits", ["leader", 1])
def test_a_leader_that_waits_for_the_caller_closes_a_cycle(memo, seen, waiting, waits):
    """As a task, or with the whole thread that it runs on."""
    mine = owned(memo, "mine", "caller", 2)
    flying(memo)
    begin_waiting(waits, mine)
    refused(memo, seen, watched(), "'mine' -> 'k' -> 'mine'")


@pytest.mark.parametrize("waits", ["leader", 1])
def test_a_leader_that_waits_for_somebody_else_does_not(memo, waiting, waits):
    """It will go on."""
    theirs, flight = owned(memo, "theirs", "somebody", 3), flying(memo)
    begin_waiting(waits, theirs)
    call = watched()
    assert coordinator.board(memo, call) is JOIN
    assert (waiting["caller"], flight.followers, memo.counts.errors) == ((flight,), 1, 0)


@pytest.mark.parametrize("limit", [None, 60])
def test_who_has_patience_for_so_long_only_is_not_refused_in_doubt(make, waiting, limit):
    """Its wait has an end in any case; without a limit a lock of a job that may be over closes a cycle."""
    memo, asked = make(wait_timeout=limit), []
    theirs, flight, call = owned(memo, "theirs", "somebody", 3), flying(memo), watched()
    begin_waiting("leader", theirs)

    def cycle(*arguments):
        asked.append(arguments)

    with patch.object(coordinator, "cycle", cycle):
        assert coordinator.board(memo, call) is JOIN
    assert asked == [(call, flight, limit is not None)]


def test_a_leader_that_waits_outside_for_who_waits_for_the_caller_closes_a_cycle(memo, seen, waiting):
    """Its function awaits a child that waits, in the library, for what the caller has."""
    mine, child = owned(memo, "mine", "caller", 2), watched("child", "leader")
    child.begin()
    flying(memo)
    note(child, child.climb())
    begin_waiting("child", mine)
    refused(memo, seen, watched(), "'mine' -> 'k' -> 'mine'")


def test_a_child_of_a_leader_that_waits_for_nothing_is_in_nobodys_way(memo, waiting):
    """It is noted, but what it waited for has come."""
    child = watched("child", "leader")
    child.begin()
    flying(memo)
    note(child, child.climb())
    assert coordinator.board(memo, watched()) is JOIN


def test_who_has_a_plain_lock_and_asks_for_its_key_is_refused(memo, seen):
    """What it would follow is behind itself; nothing lines up."""
    slot = memo.locks.enter("k")
    slot.turn = Hold(("k",), caller(actor="owner", thread=3), None)
    refused(memo, seen, watched("owner"), "'k' -> 'k'")
    assert slot.queue == ()


def test_a_leader_that_stands_in_the_cycle_twice(memo, seen, waiting):
    """What is asked for is told where it comes in, and not once more as one of its leader's keys."""
    waits, cycle = entangled(memo)
    waiting.update(waits)
    refused(memo, seen, watched(), cycle)


def test_whom_somebody_may_wait_for_is_noted_with_them(memo, waiting):
    """They are awaited outside the library, so nobody could see that otherwise."""
    flight, call = flying(memo), watched("child", "parent", "grandparent")
    assert coordinator.board(memo, call) is JOIN
    assert (call.awaited_outside, call.noted) == (True, {"parent", "grandparent"})
    assert waitgraph.below == {"parent": {call: None}, "grandparent": {call: None}}
    assert (flight.followers, waiting) == (1, {"child": (flight,)})


def test_each_wait_begins_with_nothing_known_of_who_is_above(memo, waiting):
    """What was seen when it boarded before may have changed."""
    flight, call = flying(memo), caller()  # of a kind that nobody can wait for: it is not asked itself
    call.awaited_outside, call._above, call.noted = True, frozenset({"leader"}), frozenset({"leader"})
    assert coordinator.board(memo, call) is JOIN
    assert (call.awaited_outside, call._above, call.noted) == (False, frozenset(), frozenset())
    assert (flight.followers, coordinator.pauses(memo, call, began=0.0)[1]) == (1, None)
