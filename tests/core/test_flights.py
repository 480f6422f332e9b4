"""A flight's states and what each means to those who wait for it, by table."""

from types import SimpleNamespace
from unittest.mock import patch

import pytest

from singleflight.core import flight as flights
from singleflight.core import transitions
from singleflight.core.call import JOIN, LEAD, NONE, Call, background, new_call
from singleflight.core.flight import FLYING, LANDED, PASSED, UNCLAIMED, UNSEATED
from singleflight.core.transitions import is_unclaimed, new_flight
from singleflight.locks.latch import Latch
from singleflight.locks.lives import life_of_this_thread, lives
from singleflight.locks.slots import Hold
from singleflight.locks.table import new_slot
from singleflight.locks.waiters import Waiter, new_waiter
from singleflight.locks.waitgraph import waiting

STATES = [UNCLAIMED, FLYING, LANDED, UNSEATED, PASSED]


class Unseats:
    """Notes what it is asked to unseat."""

    def __init__(self):
        self.asked = []

    def unseat(self, flight):
        self.asked.append(flight)
        return True


class Work:
    """What runs a flight, dead or alive."""

    def __init__(self, dead=False):
        self.dead = dead

    def is_dead(self):
        return self.dead


@pytest.fixture
def clock():
    fake = SimpleNamespace(now=100.0)
    fake.monotonic = lambda: fake.now
    with patch.object(flights, "time", fake), patch.object(transitions, "time", fake):
        yield fake


def flight(state=UNCLAIMED, **fields):
    made = new_flight(Unseats(), fields.pop("slot", None) or new_slot("k"), 1)
    made.state = state
    made.thread, made.depth = 1, 0
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_what_a_flight_begins_as():
    """Unclaimed, a call, without followers, and nothing is to be expected of it before it is claimed."""
    slot = new_slot("k")
    made = new_flight(Unseats(), slot, 3)
    assert (made.key, made.slot, made.retries, made.followers, made.kind) == ("k", slot, 3, 0, "call")
    assert (made.leader, made.latch, made.error, made.work, made.due) == (None, None, None, None, None)
    marks = (made.counted, made.detached, made.deserted, made.doomed, made.lost)
    assert not any((*marks, made.renews, made.background, made.unbegun, made.timed_out))
    assert (made.number, made.ident, made.started) == (0, 0, 0.0)
    assert new_flight(Unseats(), slot, None, 4).waiters() == 4


@pytest.mark.parametrize("renew", [False, True])
def test_a_claim_sets_everything_that_is_read_of_a_leader(clock, renew):
    """Who leads it and where, since when, until when, and how many waits were under way on that thread."""
    made, call = flight(), new_call(Call, "k", "actor", 9, 9, renew)
    call.wants_events = True
    with patch.dict(waiting, {9: ("one", "two")}):
        transitions.claim(made, call, 7.0, "previous", 5.0)
    assert (made.state, made.leader, made.thread, made.depth) == (FLYING, "actor", 9, 2)
    assert (made.started, made.previous, made.due, made.wants_events) == (7.0, "previous", 105.0, True)
    assert made.kind == ("refresh" if renew else "call")
    later = flight()
    transitions.claim(later, call, 7.0, None, None)
    assert (later.due, later.depth) == (None, 0)
    assert later.number > made.number


def test_whose_life_a_flight_depends_on(clock):
    """That of the thread which claims it, also where nobody has asked for that before."""
    made, call = flight(), new_call(Call, "k", "actor", 9, 9)
    with patch.dict(lives, {9: "the life of 9"}):
        transitions.claim(made, call, 7.0, None, None)
        assert made.life == "the life of 9"
        del lives[9]
        transitions.claim(made, call, 7.0, None, None)
        assert made.life is life_of_this_thread()


@pytest.mark.parametrize("waits", [0, 2])
def test_a_flight_that_is_handed_to_a_work(clock, waits):
    """Its leader's caller waits for it, on top of what it waits for already; no note is left."""
    made, call, work = flight(FLYING), new_call(Call, "k", "actor", 9, 9), Work()
    call.flight, call.decision, call.awaited_outside = made, LEAD, True
    call.noted = call._above = {"somebody"}
    before = ("one", "two")[:waits]
    with patch.dict(waiting, {9: before} if waits else {}, clear=True):
        transitions.hand_over(call, work, "task")
        assert waiting == {9: (*before, made)}
    assert (made.work, made.leader, call.decision, call.before) == (work, "task", NONE, waits)
    assert (call.awaited_outside, call.noted, call._above) == (False, frozenset(), None)


@pytest.mark.parametrize(("decision", "followers"), [(JOIN, 1), (NONE, 2)])
def test_a_follower_that_comes_to_lead_follows_no_more(decision, followers):
    """A newcomer was not among them; either knows from then on that it leads, and which flight."""
    made, call = flight(followers=2), new_call(Call, "k", "actor", 9, 9)
    call.decision = decision
    transitions.claim(made, call, 7.0, None, None)
    assert (call.decision, call.flight, made.followers) == (LEAD, made, followers)


def test_whoever_claims_what_nobody_runs_yet_runs_it(clock):
    """Then it is a call like any other; or it was begun by whoever was to run it in the background."""
    made = flight(FLYING, unbegun=True, background=True, kind="refresh", renews=True)
    transitions.claim(made, new_call(Call, "k", "actor", 9, 9), 7.0, None, None)
    assert (made.unbegun, made.background, made.kind, made.renews) == (False, False, "call", True)
    transitions.claim(made, background("k"), 7.0, None, None)
    assert (made.unbegun, made.background, made.kind, made.renews) == (False, True, "refresh", True)


@pytest.mark.parametrize("state", STATES)
def test_what_each_state_means(clock, state):
    """To those who wait, to those who drain, and to those who look at the clock."""
    made = flight(state, due=100.0)
    assert made.is_over() == (state in (LANDED, UNSEATED, PASSED))
    assert made.has_ended() == (state in (LANDED, PASSED))
    assert made.is_due() == (state is FLYING)
    assert not made.may_be_claimed()
    made.slot.turn = made
    assert made.may_be_claimed() == (state is UNCLAIMED)
    made.lost = True
    assert made.has_ended()


def test_when_a_flight_is_due(clock):
    """From its time on, without one never, or at once when nobody is left to end it; then it is seen to."""
    made = flight(FLYING, due=100.5, work=Work())
    assert not made.is_due()
    made.see_to()
    assert made.cache.asked == []
    clock.now = 100.5
    assert made.is_due()
    made.see_to()
    assert made.cache.asked == [made]
    assert not flight(FLYING).is_due()
    assert flight(FLYING, work=Work(dead=True)).is_due()
    assert not flight(LANDED, work=Work(dead=True)).is_due()


def test_a_gate_has_opened():
    """When it is another one's by now, or when there is nothing to wait for at it any more."""
    latch = Latch()
    made = flight(FLYING, latch=latch)
    made.slot.turn = made
    assert not made.has_opened(latch)
    assert made.has_opened(Latch())
    for state in (LANDED, UNSEATED, PASSED, UNCLAIMED):
        made.state = state
        assert made.has_opened(latch)
    made.slot.turn = None  # it is unclaimed, and not its turn yet
    assert not made.has_opened(latch)
    made.lost = True
    assert made.has_opened(latch)


def test_the_latest_of_a_chain():
    """Whose followers they are now; on their own where that is nobody's."""
    last = flight(FLYING)
    second = flight(UNSEATED, successor=last)
    first = flight(PASSED, successor=second)
    assert [made.latest() for made in (first, second, last)] == [last] * 3
    last.lost = True
    assert first.latest() is None
    assert flight(PASSED, successor=None).latest() is None


def test_followers_are_passed_on():
    """The successor has a gate for them, and the flight has none of them any more."""
    first, second = flight(FLYING, followers=3), flight()
    first.slot.turn = first
    transitions.pass_on(first, second, UNSEATED)
    assert first.slot.turn is second
    assert (first.state, first.followers, first.successor) == (UNSEATED, 0, second)
    assert isinstance(second.latch, Latch)
    alone = flight(FLYING)
    transitions.pass_on(alone, None)
    assert (alone.state, alone.successor) == (PASSED, None)


def test_a_gate_is_made_for_the_first_follower():
    """And a new one when its turn has come: whoever claims it is waited for there."""
    made = flight()
    latch = made.open_later()
    assert isinstance(latch, Latch)
    assert made.open_later() is latch
    assert made.admit() is latch
    assert isinstance(made.latch, Latch)
    assert made.latch is not latch


def raised():
    def inner():
        raise ValueError

    try:
        inner()
    except ValueError as error:
        return error


def test_a_failure_is_seen_where_the_function_failed():
    """Without the leader's own frame, where there is another; an error that was never raised has none."""
    error = raised()
    made = flight(FLYING)
    transitions.bring(made, None, error, 5.0, True)
    assert (made.state, made.error, made.landed, made.value) == (FLYING, error, 5.0, None)
    assert made.traceback is error.__traceback__.tb_next
    error.__traceback__ = error.__traceback__.tb_next
    transitions.bring(made, None, error, 5.0, True)
    assert made.traceback is error.__traceback__
    transitions.bring(made, None, ValueError(), 5.0, True)
    assert made.traceback is None
    transitions.bring(made, "value", None, 6.0, True)
    assert (made.value, made.error, made.traceback) == ("value", None, None)


def test_what_holds_up_those_who_wait():
    """Its leader; before it has one, whoever is ahead of it; after it passed, its successor's."""
    slot = new_slot("k")
    hold = Hold(("k",), new_waiter(Waiter, 1, 1, 1))
    queued, flying = flight(slot=slot), flight(FLYING)
    slot.turn = hold
    slot.line_up(queued)
    assert list(flying.blockers({})) == [("k", flying)]
    assert list(queued.blockers({})) == [("k", hold)]
    assert list(flight(PASSED, successor=queued).blockers({})) == [("k", hold)]
    assert list(flight(PASSED, successor=None).blockers({})) == []
    assert list(flight(LANDED, slot=slot).blockers({})) == []
    slot.step_out(queued)
    slot.turn = queued
    assert list(queued.blockers({})) == []


@pytest.mark.parametrize("work", [None, Work()])
def test_what_was_in_flight_elsewhere_at_a_fork(work):
    """It changes nothing here; its task, if any, is kept, or its clean-up would run here, too."""
    made = flight(FLYING, work=work)
    with patch.object(flights, "_orphans", []) as kept:
        made.orphan()
        assert kept == ([] if work is None else [made])
    assert (made.lost, made.detached) == (True, True)


def test_whether_a_slot_is_unclaimed():
    """Empty, or of a flight that nobody leads nor waits for."""
    assert is_unclaimed(None)
    assert is_unclaimed(flight())
    assert not is_unclaimed(flight(followers=1))
    assert not any(is_unclaimed(flight(state)) for state in STATES[1:])
    assert not is_unclaimed(Hold(("k",), new_waiter(Waiter, 1, 1, 1)))
