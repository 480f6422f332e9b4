"""How a stored value is served the longer way, and what is to be renewed meanwhile, and by whom."""

from contextlib import nullcontext
from math import inf

import pytest
from cachetools import LRUCache

from singleflight.core import coordinator, landing, leaving
from singleflight.core import renewal as renewals
from singleflight.core import renewal as serving
from singleflight.core.call import HIT, LEAD, Call, Nobody, new_call
from singleflight.core.flight import FLYING, LANDED, UNSEATED
from singleflight.drivers import threads
from singleflight.locks.waiters import get_ident
from singleflight.storage.record import AgeingRecord, record_of

from .conftest import Work, caller, in_flight


@pytest.fixture
def memo(make):
    """Values are fresh for ten seconds and in their grace for fifty more."""
    return make(grace=50)


def stored(memo, **fields):
    """An ageing value that came at 90: it is stale at 100, the time that it is."""
    record = AgeingRecord("k", "old", 90.0, 10.0, grace=50.0, refresh_at=100.0)
    for name, value in fields.items():
        setattr(record, name, value)
    memo.store.put(record)
    return record


def renewal_of(memo, **fields):
    """The renewal that the first who is served a stale value is to see to."""
    stored(memo)
    call = caller(**fields)
    assert coordinator.board(memo, call) is HIT
    return call.renewal


def counted(memo):
    names = ("hits", "stale_hits", "errors", "fetches", "calls")
    return {name: getattr(memo.counts, name) for name in names if getattr(memo.counts, name)}


# -- serving --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "count"), [(0.5, "hits"), (0.0, "stale_hits"), (-1.0, "stale_hits")])
def test_a_value_is_fresh_up_to_its_end_and_stale_from_there_on(memo, clock, seen, left, count):
    """What is counted and told says which."""
    record = stored(memo, refresh_at=inf, deadline=-inf)
    clock.set(100.0 - left)
    call = caller()
    assert coordinator.board(memo, call) is HIT
    assert (call.record, call.renewal, call.overdue) == (record, None, None)
    assert call.served == ("hit" if count == "hits" else "stale_hit")
    assert memo.store.hits() + memo.counts.hits == (count == "hits")
    assert memo.counts.stale_hits == (count == "stale_hits")
    assert seen.kinds() == ["hit" if count == "hits" else "stale_hit"]


@pytest.mark.parametrize("hits", [0.0, 1.0, 2.0])
def test_a_stale_hit_is_a_use(memo, hits):
    """Though it is no hit: the eviction passes over a value that was used since it came by last."""
    record = stored(memo, hits=hits, passed=hits)
    coordinator.board(memo, caller())
    assert record.passed not in (0, hits, hits + 1)


@pytest.mark.parametrize("landed", [95.0, 85.0])
def test_the_policy_is_told_of_what_is_served_the_longer_way(make, landed):
    """Be it fresh or stale: what was not used since goes first."""
    memo = make(grace=50, policy=LRUCache, maxsize=2)
    for key in ("k", "other"):
        memo.store.put(AgeingRecord(key, "old", landed, 10.0, grace=50.0))
    memo.store.index["k"].deadline = -inf
    assert coordinator.board(memo, caller()) is HIT
    memo.store.put(AgeingRecord("third", "new", 100.0, 10.0, grace=50.0))
    assert set(memo.store.index) == {"k", "third"}


def test_a_kept_failure_is_an_error_for_each_caller(memo, seen):
    """It is neither a hit nor renewed, and each is told."""
    memo.store.put(AgeingRecord("k", None, 95.0, 10.0, error=ValueError(), refresh_at=0.0))
    for number in (1, 2, 3):
        assert coordinator.board(memo, caller()) is HIT
        assert counted(memo) == {"errors": number}
    assert seen.kinds() == ["stored_failure"] * 3


@pytest.mark.parametrize("listens", [False, True])
def test_hits_take_the_fast_path_again_once_nobody_listens(make, clock, listens):
    """A value that came while somebody listened for hits is read the longer way as long as one does."""
    memo = make(**({} if listens else {"listener": None}))
    record = record_of("k", "value", 95.0, 10.0)
    memo.store.put(record)
    record.deadline = -inf
    assert coordinator.board(memo, caller()) is HIT
    assert record.deadline == (-inf if listens else 105.0)


def test_only_what_was_sent_the_longer_way_is_sent_back(make):
    """Another deadline has another reason, and stays."""
    memo = make(listener=None)
    record = record_of("k", "value", 95.0, 10.0)
    memo.store.put(record)
    record.deadline = 99.0
    assert coordinator.board(memo, caller()) is HIT
    assert record.deadline == 99.0


# -- who is to renew it -----------------------------------------------------------------------------------


def test_the_first_who_finds_it_due_sees_to_a_renewal(memo):
    """It is a flight of its own with everything a flight has, that nobody runs yet and nobody called for."""
    renewal = renewal_of(memo)
    flight = renewal.flight
    record = flight.previous
    assert (flight.state, flight.kind, flight.renews, flight.background) == (FLYING, "refresh", True, True)
    assert (flight.cache, flight.key, flight.retries, flight.followers) == (memo, "k", 3, 0)
    assert (flight.unbegun, flight.slot.turn, flight.wants_events) == (True, flight, True)
    assert isinstance(flight.leader, Nobody)
    assert flight.due is not None
    assert (record.value, record.refresh_at) == ("old", inf)
    second = caller()
    assert coordinator.board(memo, second) is HIT
    assert second.renewal is None


def test_a_tasks_renewal_begins_for_certain(memo):
    """As soon as its loop goes on; so nobody else is to begin it."""

    class TaskCall(Call):
        loop = "a loop"

    stored(memo)
    call = new_call(TaskCall, "k", "task", 2, "task")
    assert coordinator.board(memo, call) is HIT
    assert call.renewal.flight.unbegun is False


def test_nothing_is_renewed_before_its_time(memo):
    """It is read the longer way for another reason."""
    stored(memo, refresh_at=100.5)
    call = caller()
    assert coordinator.board(memo, call) is HIT
    assert call.renewal is None


def test_nothing_is_renewed_by_whoever_may_not_wait(memo, monkeypatch):
    """A finaliser within a section of a store: what it would begin might need that very lock."""
    record = stored(memo)
    monkeypatch.setattr(serving, "inside_other", lambda: True)
    call = caller()
    assert coordinator.board(memo, call) is HIT
    assert (call.renewal, record.refresh_at) == (None, 100.0)


def test_who_is_served_while_it_is_renewed_does_not_look_where_it_is(memo, monkeypatch):
    """Looking takes longer the deeper the stack is, and all stale hits do this under the mutex."""
    looks = []
    monkeypatch.setattr(serving, "inside_other", lambda: looks.append(1))
    stored(memo)
    for _ in range(5):
        assert coordinator.board(memo, caller()) is HIT
    assert looks == [1]  # whoever begins it


def test_nothing_is_renewed_while_somebody_has_the_key(memo):
    """A lock's holder, or a call: whoever is served afterwards sees to it."""
    flight = in_flight(memo, due=False)
    record = stored(memo)
    call = caller()
    assert coordinator.board(memo, call) is HIT
    assert (call.renewal, record.refresh_at, flight.slot.turn) == (None, 100.0, flight)


# -- a renewal that takes too long ------------------------------------------------------------------------


def test_whoever_finds_a_stale_value_looks_whether_its_renewal_takes_too_long(memo, seen):
    """It loses the key then, and the value is renewed anew after a while."""
    flight = in_flight(memo, renews=True)
    flight.previous = record = stored(memo, refresh_at=inf)
    call = caller()
    assert coordinator.board(memo, call) is HIT
    assert (flight.state, flight.slot.turn, record.refresh_at) == (UNSEATED, None, 101.0)
    assert call.overdue is None
    assert seen.count("unseat") == 1


@pytest.mark.parametrize("left", [0.0, 0.5])
def test_a_renewal_is_left_alone_in_time_and_while_the_value_is_fresh(memo, clock, left):
    """Nobody misses anything yet."""
    clock.set(100.0 - left)
    flight = in_flight(memo, due=left > 0)
    stored(memo, refresh_at=inf)
    assert coordinator.board(memo, caller()) is HIT
    assert (flight.state, flight.slot.turn) == (FLYING, flight)


def test_a_stale_value_that_nobody_renews_is_served_all_the_same(memo):
    """Its key is free, or a lock's."""
    stored(memo, refresh_at=inf)
    assert coordinator.board(memo, caller()) is HIT
    with memo.locks("k"):
        assert coordinator.board(memo, caller()) is HIT
    assert memo.counts.stale_hits == 2


# -- who runs it --------------------------------------------------------------------------------------------


def test_a_thread_begins_a_renewal(memo, clock):
    """From now on it is that thread's, and has its time from now on."""
    renewal = renewal_of(memo)
    flight = renewal.flight
    flight.due = 0.0
    clock.advance(1)
    assert renewals.begin_renewal(memo, renewal, 77) is True
    assert (flight.leader, flight.thread, flight.started, flight.unbegun) == (77, 77, 101.0, False)
    assert (flight.state, flight.previous.value, flight.is_due()) == (FLYING, "old", False)
    assert flight.due > 0


def test_a_renewal_is_begun_once(memo):
    """Somebody else has begun it: it goes on there."""
    renewal = renewal_of(memo)
    flight = renewal.flight
    assert renewals.begin_renewal(memo, renewal, 77) is True
    assert renewals.begin_renewal(memo, renewal, 78) is False
    assert (flight.leader, flight.thread, flight.state) == (77, 77, FLYING)


def test_a_renewal_that_lost_its_key_is_called_off(memo):
    """It was invalidated while it waited for a thread."""
    renewal = renewal_of(memo)
    flight = renewal.flight
    flight.detached, flight.slot.turn = True, None
    assert renewals.begin_renewal(memo, renewal, 77) is False
    assert (flight.state, flight.unbegun) == (LANDED, False)
    assert counted(memo) == {"stale_hits": 1}


def test_a_task_is_entrusted_with_a_renewal(memo):
    """It runs on the thread of its loop, and can be stopped and found dead."""
    renewal = renewal_of(memo)
    flight, work = renewal.flight, Work()
    started = flight.started
    renewals.entrust_renewal(memo, renewal, work, "task")
    assert (flight.work, flight.leader, flight.thread) == (work, "task", get_ident())
    assert (flight.started, flight.unbegun, flight.state) == (started, False, FLYING)


def test_whoever_needs_the_outcome_of_a_renewal_leads_it(memo, clock):
    """It is a call then, as it might wait for a thread that the caller occupies."""
    renewal = renewal_of(memo)
    clock.advance(60)
    call = caller(actor="me", thread=5)
    assert coordinator.board(memo, call) is LEAD
    flight = call.flight
    assert flight is renewal.flight
    assert (flight.kind, flight.background, flight.unbegun) == ("call", False, False)
    assert (flight.leader, flight.thread) == ("me", 5)
    assert renewals.begin_renewal(memo, renewal, 77) is False
    assert (flight.leader, flight.state) == ("me", FLYING)
    landing.land(memo, flight, "new")
    assert counted(memo) == {"stale_hits": 1, "fetches": 1, "calls": 1}


def test_nothing_is_told_where_nobody_listens(make):
    """Whether anybody may is asked when the call is boarded that sees to the renewal."""
    assert renewal_of(make(grace=50, listener=None)).flight.wants_events is False


@pytest.mark.parametrize("fails", [False, True])
def test_a_renewal_in_line_that_somebody_else_has_run_meanwhile(make, monkeypatch, clock, fails):
    """There was no place in the pool, and somebody needed it before its caller ran it: who gets that, too."""
    memo = make(grace=50, failure_ttl=5, follower_retries=0)
    stored(memo)
    call, other = caller(), caller(actor="other")
    assert coordinator.board(memo, call) is HIT

    def refuse(run):
        clock.advance(60)
        assert coordinator.board(memo, other) is LEAD
        if fails:
            leaving.abandon(memo, other, ValueError())
        else:
            landing.land(memo, other.flight, "new")
        return False

    monkeypatch.setattr(threads, "in_background", refuse)
    with pytest.raises(ValueError) if fails else nullcontext():
        assert threads._served(memo, pytest.fail, call, (), {}) == "new"
