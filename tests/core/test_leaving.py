"""How a caller goes before its call is served, and what becomes of the flight that it leaves."""

import pytest

from singleflight.core import coordinator, landing, leaving, transitions
from singleflight.core import renewal as renewals
from singleflight.core.call import HIT, JOIN, LEAD, NONE
from singleflight.core.flight import FLYING, LANDED, PASSED, UNCLAIMED, UNSEATED
from singleflight.core.transitions import new_flight
from singleflight.locks.latch import Latch
from singleflight.locks.mutex import inside
from singleflight.locks.slots import Hold
from singleflight.locks.unsettled import settle, unsettled
from singleflight.locks.waiters import Waiter, new_waiter
from singleflight.storage.record import AgeingRecord

from .conftest import Work, caller, in_flight, watched
from .windows import told_left


def follower(memo, *fields):
    call = caller(actor=f"follower {fields}", thread=5)
    assert coordinator.board(memo, call) is JOIN
    return call


def counted(memo):
    names = ("fetches", "waits", "errors", "timeouts", "calls", "failures")
    return {name: getattr(memo.counts, name) for name in names if getattr(memo.counts, name)}


# -- a follower gives up ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timed_out", "expected"), [(True, {"timeouts": 1}), (False, {"errors": 1}), (None, {})]
)
def test_a_follower_that_gives_up_is_counted_and_follows_no_more(memo, waiting, timed_out, expected):
    """As a timeout or as an error, or not at all where it is served in another way."""
    flight = in_flight(memo, due=False)
    first, second = follower(memo, 1), follower(memo, 2)
    assert leaving.leave(memo, first, timed_out) is True
    assert (first.decision, first.before, flight.followers, flight.state) == (NONE, None, 1, FLYING)
    assert counted(memo) == expected
    assert list(waiting) == [second.blocks]


def test_a_follower_whose_flight_has_landed_comes_too_late_to_give_up(memo, waiting):
    """It is served: nothing changes, and it was counted when its flight landed."""
    flight = in_flight(memo, due=False)
    call = follower(memo)
    landing.land(memo, flight, 7)
    assert leaving.leave(memo, call, timed_out=True) is False
    assert (call.decision, call.before) == (JOIN, 0)
    assert counted(memo) == {"fetches": 1, "waits": 1, "calls": 1}


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize(
    ("value", "error", "taken"), [(7, None, True), (None, None, False), (None, ValueError(), False)]
)
def test_a_follower_takes_back_what_is_no_value(memo, waiting, value, error, taken, moved):
    """It was counted among those who take it; the others still are."""
    flight = in_flight(memo, due=False)
    call, *_ = (follower(memo, number) for number in range(3))
    if moved:
        flight.due = 0.0
        assert coordinator.unseat(memo, flight)
        leader = caller(actor="next", thread=7)
        assert coordinator.board(memo, leader) is LEAD
        flight = leader.flight
    flight.retries = 0
    if error is None:
        landing.land(memo, flight, value)
    else:
        landing.fail(memo, flight, error)
    before = counted(memo)
    kind = "waits" if error is None else "errors"
    assert transitions.take_back(memo, call) is not taken
    assert counted(memo) == (before if taken else {**before, kind: before[kind] - 1})
    assert call.decision is (JOIN if taken else NONE)


def test_leaders_callers_that_time_out_are_counted_each(memo, waiting):
    """As those are that end with another error."""
    for number, key in enumerate("abc", 1):
        assert leaving.desert(memo, in_flight(memo, key, due=False), timed_out=True) is True
        assert counted(memo) == {"timeouts": number}


def test_a_follower_leaves_the_flight_that_it_follows_by_now(memo, waiting):
    """The one that it joined has ended without an outcome, and it has not noticed yet."""
    flight = in_flight(memo, due=False)
    first, _ = follower(memo, 1), follower(memo, 2)
    landing.fail(memo, flight, ValueError())
    successor = flight.slot.turn
    leaving.leave(memo, first, timed_out=False)
    assert (flight.followers, successor.followers, successor.state) == (0, 1, UNCLAIMED)


def test_a_follower_that_is_on_its_own_has_nothing_to_leave(memo, waiting):
    """Its flight was invalidated, and brought nothing."""
    flight = in_flight(memo, due=False)
    call = follower(memo)
    flight.slot.turn = None
    landing.fail(memo, flight, KeyboardInterrupt())
    assert leaving.leave(memo, call, timed_out=True) is True
    assert (call.decision, call.before, memo.counts.timeouts) == (NONE, None, 1)


def test_the_last_follower_takes_a_flight_that_nobody_leads_with_it(memo, waiting):
    """Its key is free."""
    flight = in_flight(memo, due=False)
    call = follower(memo)
    landing.fail(memo, flight, ValueError())
    assert leaving.leave(memo, call, timed_out=False) is True
    assert memo.locks.live() == []


def test_the_last_follower_takes_a_flight_that_queues_with_it(memo, waiting):
    """Behind a lock: whoever comes next queues anew."""
    with memo.locks("k"):
        slot = memo.locks.slot("k")
        first, second = follower(memo, 1), follower(memo, 2)
        (queued,) = slot.queue
        leaving.leave(memo, first, timed_out=False)
        assert list(slot.queue) == [queued]
        leaving.leave(memo, second, timed_out=False)
        assert list(slot.queue) == []
        assert isinstance(slot.turn, Hold)


def test_whoever_queued_behind_an_unwanted_flight_is_let_in(memo, waiting):
    """Its gate is opened once the mutex is free."""
    flight = in_flight(memo, due=False)
    call = follower(memo)
    landing.fail(memo, flight, ValueError())
    hold = Hold(("k",), new_waiter(Waiter, 8, 8, 8))
    memo.locks._queue_for(hold, None)
    opened = hold.latch.open
    seen = []
    hold.latch = Latch()
    hold.latch.groups["loop"] = LoopWaiters(seen)
    leaving.leave(memo, call, timed_out=False)
    assert not hold.missing
    assert seen == [False]
    opened()


class LoopWaiters:
    """Notes whether it is woken under the mutex."""

    def __init__(self, seen):
        self.seen = seen

    def open(self):
        self.seen.append(inside())


# -- work that nobody wants is stopped ----------------------------------------------------------------


@pytest.mark.parametrize("deserted", [True, False])
@pytest.mark.parametrize("followers", [0, 1])
@pytest.mark.parametrize("doomed", [True, False])
@pytest.mark.parametrize("work", [None, True, False])
def test_work_is_stopped_when_all_have_left_and_once(memo, waiting, deserted, followers, doomed, work):
    """Its caller and its followers, if it fetches nothing else. Whoever comes then gets another flight."""
    flight = in_flight(memo, due=False, deserted=deserted, doomed=doomed)
    call = follower(memo)
    flight.followers += followers
    flight.work = None if work is None else Work(may=work)
    stopped = deserted and not followers and not doomed and bool(work)
    leaving.leave(memo, call, timed_out=False)
    assert (flight.doomed, flight.detached) == (doomed or stopped, stopped)
    assert flight.work is None or flight.work.stopped == stopped
    assert (flight.state, flight.slot.turn) == (FLYING, flight)


# -- a leader's caller goes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "goes"), [(FLYING, 1), (UNSEATED, 1), (UNCLAIMED, 0), (LANDED, 0), (PASSED, 0)]
)
def test_a_leaders_caller_goes_once(memo, state, goes):
    """It is counted then, unless its flight has ended, and was counted with it."""
    flight = in_flight(memo, due=False, work=Work(), state=state)
    call = caller()
    call.flight = flight
    for _ in range(2):
        leaving.desert(memo, call.flight)
        assert (flight.deserted, memo.counts.errors, flight.work.stopped) == (bool(goes), goes, goes)
    other = caller()
    other.flight = in_flight(memo, "other", due=False)
    leaving.desert(memo, other.flight)
    assert memo.counts.errors == goes + 1


def test_a_deserted_flight_goes_on_for_its_followers(memo, waiting):
    """Until the last of them has left, too."""
    flight = in_flight(memo, due=False, work=Work())
    call, leaders = follower(memo), caller()
    leaders.flight = flight
    leaving.desert(memo, leaders.flight)
    assert (flight.work.stopped, flight.doomed) == (0, False)
    leaving.leave(memo, call, timed_out=None)
    assert (flight.work.stopped, flight.doomed) == (1, True)


def test_a_flight_is_handed_over_to_its_work(memo, waiting):
    """From then on a task leads it, and its caller waits for that, on top of what it waits for already."""
    call, work = watched("me"), Work()
    assert coordinator.board(memo, call) is LEAD
    flight = call.flight
    waiting["me"] = ("before",)
    call.awaited_outside = True
    transitions.hand_over(call, work, "task")
    assert (flight.work, flight.leader, call.decision, call.before) == (work, "task", NONE, 1)
    assert (waiting["me"], call.awaited_outside) == (("before", flight), False)
    leaving.done(memo, call)
    assert waiting == {"me": ("before",)}


# -- whatever a call holds is given up ----------------------------------------------------------------


def test_a_leader_that_is_interrupted_fails_its_flight(memo, waiting):
    """Its followers fly again."""
    call = caller()
    assert coordinator.board(memo, call) is LEAD
    flight, _ = call.flight, follower(memo)
    leaving.abandon(memo, call, KeyboardInterrupt())
    assert (flight.state, flight.slot.turn.followers) == (PASSED, 1)
    assert counted(memo) == {"errors": 1, "calls": 1}


def test_a_follower_that_is_interrupted_leaves(memo, waiting):
    """And is counted as an error."""
    flight = in_flight(memo, due=False)
    call = follower(memo)
    leaving.abandon(memo, call, KeyboardInterrupt())
    assert (flight.followers, call.decision, call.latch.wait(0.0)) == (0, NONE, False)
    assert counted(memo) == {"errors": 1}


def test_a_follower_that_is_interrupted_at_an_open_gate_lets_the_next_one_through(memo, waiting):
    """It may have had the turnstile."""
    flight = in_flight(memo, due=False)
    call, _ = follower(memo, 1), follower(memo, 2)
    landing.land(memo, flight, 7)
    assert call.latch.wait(0.0)
    call.latch._turnstile.acquire(blocking=False)
    leaving.abandon(memo, call, KeyboardInterrupt())
    assert call.latch.wait(0.0)


@pytest.mark.parametrize("decision", [NONE, HIT])
def test_a_call_that_ended_as_it_should_gives_up_nothing(memo, decision):
    """Its failure came after it."""
    flight = in_flight(memo, due=False)
    call = caller()
    call.decision, call.flight = decision, flight
    leaving.abandon(memo, call, ValueError())
    assert (flight.state, flight.slot.turn, counted(memo)) == (FLYING, flight, {})


def test_a_key_that_an_interrupt_left_to_nobody_is_free(memo):
    """It struck when the key was live, and no flight was claimed."""
    slot = memo.locks.enter("k")
    leaving.abandon(memo, caller(), KeyboardInterrupt())
    assert memo.locks.live() == []
    slot = memo.locks.enter("k")
    slot.turn = new_flight(memo, slot, 1)
    leaving.abandon(memo, caller(), KeyboardInterrupt())
    assert memo.locks.live() == []


@pytest.mark.parametrize("room", [True, False])
def test_whoever_queues_for_a_key_that_an_interrupt_left_to_nobody_has_it(memo, room):
    """It is woken, also where there was no room to free the key."""
    slot = memo.locks.enter("k")
    wanted = new_flight(memo, slot, 1, 2)
    slot.line_up(wanted)
    latch, call = wanted.open_later(), caller()
    if room:
        leaving.abandon(memo, call, KeyboardInterrupt())
    else:
        unsettled[call] = leaving.settle_call, memo, call, KeyboardInterrupt()
        settle()
    assert (slot.turn, latch.wait(0.0)) == (wanted, True)


def test_whoever_waits_keeps_what_nobody_leads(memo, waiting):
    """The next of them claims it, also behind a lock; what nobody waits for there goes."""
    flight = in_flight(memo, due=False)
    follower(memo)
    landing.fail(memo, flight, ValueError())
    leaving.abandon(memo, caller(), KeyboardInterrupt())
    assert [slot.turn.followers for slot in memo.locks.live()] == [1]
    slot = memo.locks.slot("k")
    unwanted, wanted = new_flight(memo, slot, 1), new_flight(memo, slot, 1, 2)
    for each in (unwanted, wanted):
        slot.line_up(each)
    leaving.abandon(memo, caller(), KeyboardInterrupt())
    assert list(slot.queue) == [wanted]


class Untrue(Exception):
    """An exception that is not to be asked whether it is true."""

    def __bool__(self):
        raise AssertionError


def test_what_struck_a_follower_is_told_whatever_its_truth(memo, waiting, seen):
    """Its flight is to end with something else; a listener hears what its caller receives."""
    in_flight(memo, due=False)
    call, struck = follower(memo), Untrue()
    leaving.abandon(memo, call, KeyboardInterrupt(), struck)
    assert [event.error for event in seen.of("left")] == [struck]


@pytest.mark.parametrize(
    ("outcome", "retries", "told"),
    [(None, 0, "errors"), (7, 0, "waits"), (ValueError(), 0, "errors"), (ValueError(), 3, "errors")],
)
def test_what_an_interrupted_follower_was_counted_as_is_told(memo, waiting, seen, outcome, retries, told):
    """With its flight's end if that has landed, which is then what it followed; else as an error now."""
    flight, struck = in_flight(memo, due=False, retries=retries), KeyboardInterrupt()
    call, _ = follower(memo, 1), follower(memo, 2)
    if isinstance(outcome, Exception):
        landing.fail(memo, flight, outcome)
    elif outcome is not None:
        landing.land(memo, flight, outcome)
    leaving.abandon(memo, call, struck)
    assert told_left(seen) == [("k", struck, told, flight.ident, False)]


def test_a_follower_that_was_moved_to_another_flight_is_told_with_that(memo, waiting, seen):
    """Where it came too late to leave: that one has counted it."""
    flight, struck = in_flight(memo, due=False), KeyboardInterrupt()
    call = follower(memo)
    flight.due = 0.0
    assert coordinator.unseat(memo, flight)
    leader = caller(actor="next", thread=7)
    assert coordinator.board(memo, leader) is LEAD
    landing.land(memo, leader.flight, 7)
    leaving.abandon(memo, call, struck)
    assert told_left(seen) == [("k", struck, "waits", leader.flight.ident, False)]


def test_nothing_is_told_of_a_follower_where_nobody_listened_when_it_came(memo, waiting, seen):
    """Its beginning was not told either."""
    in_flight(memo, due=False)
    call = follower(memo)
    call.wants_events = False
    leaving.abandon(memo, call, KeyboardInterrupt())
    assert told_left(seen) == []


# -- what could not be given up is noted --------------------------------------------------------------


def settled(memo, call, error):
    """A call that ends so."""
    unsettled[call] = leaving.settle_call, memo, call, error
    settle()
    held = (call.flight, call.latch, call.record, call.actor, call.blocks, call.renewal)
    assert (held, call.decision, call.before) == ((None,) * 6, NONE, None)


def test_a_noted_leader_without_an_error_was_aborted(memo, waiting):
    """It has brought no value: its followers fly again, and spend no retry on it."""
    leader = watched("leader", key="k", thread=1)
    assert coordinator.board(memo, leader) is LEAD
    flight, _ = leader.flight, follower(memo)
    settled(memo, leader, None)
    successor = flight.slot.turn
    assert (flight.state, successor.followers, successor.retries) == (PASSED, 1, 3)
    assert counted(memo) == {"errors": 1, "calls": 1}


def test_a_noted_follower_leaves(memo, waiting):
    """It counts as an error, its wait is over, and its latch is left shut for the others."""
    flight = in_flight(memo, due=False)
    call, other = follower(memo, 1), follower(memo, 2)
    settled(memo, call, KeyboardInterrupt())
    assert (flight.followers, flight.state, other.latch.wait(0.0)) == (1, FLYING, False)
    assert (counted(memo), list(waiting)) == ({"errors": 1}, [other.blocks])


def test_the_last_noted_follower_has_work_stopped_that_nobody_wants(memo, waiting):
    """Once the mutex is free."""
    flight = in_flight(memo, due=False, work=Work(), deserted=True)
    settled(memo, follower(memo), KeyboardInterrupt())
    assert (flight.doomed, flight.work.stopped) == (True, 1)


@pytest.mark.parametrize("over", [True, False])
def test_a_noted_call_leaves_a_renewal_alone_that_somebody_runs(make, waiting, over):
    """Or that is over already."""
    memo, call, _ = served_stale(make)
    renewal = call.renewal
    flight = renewal.flight
    assert renewals.begin_renewal(memo, renewal, 77)
    if over:
        landing.land(memo, flight, "new")
        leaving.done(memo, renewal)
    settled(memo, call, KeyboardInterrupt())
    assert (flight.state, flight.counted) == ((LANDED, True) if over else (FLYING, False))


def test_a_noted_follower_at_an_open_gate_lets_the_next_one_through(memo, waiting):
    """It may have had the turnstile, and had no room to open it."""
    flight = in_flight(memo, due=False)
    call, _ = follower(memo, 1), follower(memo, 2)
    latch = call.latch
    landing.land(memo, flight, 7)
    assert latch.wait(0.0)
    latch._turnstile.acquire(blocking=False)
    unsettled[call] = leaving.settle_call, memo, call, RecursionError()
    settle()
    assert latch.wait(0.0)


def test_a_noted_leaders_caller_has_its_work_stopped(memo, waiting):
    """Once the mutex is free, and if nobody follows; a second note changes nothing."""
    flight = in_flight(memo, due=False, work=Work())
    for _ in range(2):
        unsettled[flight.work] = transitions.desert, memo, flight
        settle()
        assert (flight.work.stopped, flight.doomed, counted(memo)) == (1, True, {"errors": 1})
    followed = in_flight(memo, "other", due=False, work=Work(), followers=1)
    unsettled[followed.work] = transitions.desert, memo, followed
    settle()
    assert (followed.work.stopped, followed.doomed, followed.deserted) == (0, False, True)


def test_a_noted_leaders_error_is_its_flights_whatever_its_truth(memo, waiting):
    """Nothing of the user's runs: its followers share that error."""
    leader, error = watched("leader", key="k", thread=1), Untrue()
    assert coordinator.board(memo, leader) is LEAD
    flight = leader.flight
    call = follower(memo)
    flight.retries = 0
    unsettled[leader] = leaving.settle_call, memo, leader, error
    settle()
    assert (flight.state, flight.error, call.flight) == (LANDED, error, flight)


def test_a_noted_renewal_that_nobody_has_begun_was_never_run(make, waiting):
    """It counts as no execution and no failure, its key is free, and whoever comes next has it renewed."""
    memo = make(grace=50)
    memo.store.put(AgeingRecord("k", "old", 90.0, 10.0, grace=50.0, refresh_at=100.0))
    call = caller()
    assert coordinator.board(memo, call) is HIT
    unsettled[call] = leaving.settle_call, memo, call, KeyboardInterrupt()
    settle()
    assert (counted(memo), memo.locks.live(), call.renewal) == ({}, [], None)
    other = caller()
    assert (coordinator.board(memo, other), other.renewal is None) == (HIT, False)


@pytest.mark.parametrize("retries", [0, 3])
def test_who_waits_for_a_noted_renewal_that_nobody_has_begun_flies_instead(make, waiting, retries):
    """No retry is spent on it, and the error of the call that was to see to it is that call's alone."""
    memo, call, _ = served_stale(make)
    flight = call.renewal.flight
    flight.followers, flight.retries, latch = 2, retries, flight.open_later()
    settled(memo, call, ValueError())
    successor = flight.slot.turn
    assert (flight.state, flight.counted, latch.wait(0.0)) == (PASSED, True, True)
    assert (successor.followers, successor.retries) == (2, retries)


def test_a_key_that_a_noted_call_left_to_nobody_is_free(memo):
    """It had no room to free it, and no flight was claimed."""
    memo.locks.enter("k")
    call = caller()
    unsettled[call] = leaving.settle_call, memo, call, RecursionError()
    settle()
    assert memo.locks.live() == []


# -- the call is over ---------------------------------------------------------------------------------


def test_a_call_that_is_over_holds_nothing(memo, waiting):
    """Neither its flight nor itself: what is known of who waits for it goes, too."""
    flight = in_flight(memo, due=False)
    call = watched("child", "parent")
    call.awaited_outside = True
    assert coordinator.board(memo, call) is JOIN
    assert call.noted == {"parent"}
    assert flight.leader not in waiting
    leaving.done(memo, call)
    assert waiting == {}
    assert call.noted == frozenset()
    held = (call.flight, call.latch, call.record, call.actor, call.blocks, call._above)
    assert (held, call.decision, call.before) == ((None,) * 6, NONE, None)


def test_a_call_that_gives_up_holds_nothing(make):
    """What it was to see to is called off."""
    memo, call, record = served_stale(make)
    flight = call.renewal.flight
    leaving.give_up(memo, call, KeyboardInterrupt())
    assert (flight.state, record.refresh_at, memo.locks.live()) == (LANDED, 100.0, [])
    assert (call.renewal, call.record, call.decision) == (None, None, NONE)


def test_a_call_that_waited_on_top_of_others_leaves_them_as_they_were(memo, waiting):
    """A signal handler's, on a thread that waits."""
    in_flight(memo, due=False)
    call = caller()
    waiting["caller"] = ("a", "b")
    assert coordinator.board(memo, call) is JOIN
    assert len(waiting["caller"]) == 3
    leaving.done(memo, call)
    assert waiting == {"caller": ("a", "b")}


def test_a_call_whose_waits_were_forgotten_is_over_all_the_same(memo, waiting):
    """Its loop was found closed meanwhile, or an interrupt struck when they were."""
    in_flight(memo, due=False)
    call = follower(memo)
    waiting.clear()
    leaving.done(memo, call)
    assert (waiting, call.before) == ({}, None)


def served_stale(make):
    memo = make(grace=50)
    record = AgeingRecord("k", "old", 90.0, 10.0, grace=50.0, refresh_at=100.0)
    memo.store.put(record)
    call = caller()
    assert coordinator.board(memo, call) is HIT
    return memo, call, record


def test_a_renewal_that_its_caller_did_not_come_to_begin_is_called_off(make):
    """An interrupt: the next who is served sees to one."""
    memo, call, record = served_stale(make)
    flight = call.renewal.flight
    leaving.done(memo, call)
    assert (flight.state, record.refresh_at, memo.locks.live(), call.renewal) == (LANDED, 100.0, [], None)


@pytest.mark.parametrize("over", [True, False])
def test_a_renewal_that_somebody_runs_is_left_alone(make, over):
    """Or that is over already."""
    memo, call, _ = served_stale(make)
    renewal = call.renewal
    flight = renewal.flight
    assert renewals.begin_renewal(memo, renewal, 77)
    if over:
        landing.land(memo, flight, "new")
        leaving.done(memo, renewal)
    leaving.done(memo, call)
    assert flight.state is (LANDED if over else FLYING)


def test_a_renewal_that_nobody_took_over_is_called_off_whatever_was_decided_since(make):
    """A call that waited for it, and left, is the only one that knows of it."""
    memo, call, _ = served_stale(make)
    flight = call.renewal.flight
    call.decision = NONE
    leaving.done(memo, call)
    assert flight.state is not FLYING
