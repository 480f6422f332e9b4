"""With a `soft_timeout` a call waits for the renewal of a stale value: when, for how long, and what then."""

from unittest.mock import patch

import pytest

from singleflight.core import controls, coordinator, landing, leaving
from singleflight.core.call import HIT, JOIN, LEAD, SHARE
from singleflight.core.flight import FLYING, UNSEATED
from singleflight.locks.slots import Hold
from singleflight.storage.record import AgeingRecord

from .conftest import caller, in_flight, watched

pytestmark = pytest.mark.usefixtures("waiting", "seconds")


@pytest.fixture
def soft(make):
    """A decision maker whose calls wait for two seconds, where their value may be served for five more."""
    return make(grace=5, soft_timeout=2)


def stored(memo, clock, stale=2.0, refresh_at=None, error=None):
    """What has been stale for so many seconds; it is to be renewed since then, unless told otherwise."""
    landed = clock() - 10.0 - stale
    due = landed + 10.0 if refresh_at is None else refresh_at
    record = AgeingRecord("k", None if error else 1, landed, 10.0, 0.0 if error else 5.0, due, error)
    memo.store.put(record)
    return record


def renewing(memo):
    """A flight that nobody has called for is in progress."""
    call = caller(actor="leader", thread=1, renew=True)
    assert coordinator.board(memo, call) is LEAD
    call.flight.due, call.flight.background = None, True
    return call.flight


def follower(memo, actor="caller"):
    """A call that waits for it."""
    call = watched(actor)
    assert coordinator.board(memo, call) is JOIN
    return call


def counted(memo):
    counts = memo.counts
    return counts.stale_hits, counts.waits, counts.errors, counts.timeouts


def served(memo, call, decision):
    """It is served what is stale, and waits for nothing."""
    assert (decision, call.decision, call.record.value, call.before) == (HIT, HIT, 1, None)
    assert counted(memo) == (1, 0, 0, 0)
    return True


# -- when a call waits ------------------------------------------------------------------------------


@pytest.mark.parametrize("stale", [0.0, 2.0, 4.9])
def test_a_stale_value_has_its_renewal_waited_for(soft, clock, stale):
    """It is begun first; the call has it run, and follows it."""
    record = stored(soft, clock, stale)
    call = follower(soft)
    flight = call.renewal.flight
    assert (call.flight, call.latch, flight.followers, flight.previous) == (flight, flight.latch, 1, record)
    assert call.stood == (flight.latch, soft, flight)
    assert (flight.state, flight.slot.turn, flight.unbegun) == (FLYING, flight, True)
    assert counted(soft) == (0, 0, 0, 0)


def test_a_renewal_that_is_in_flight_is_joined(soft, clock):
    """Whoever began it."""
    stored(soft, clock)
    flight = renewing(soft)
    assert (follower(soft).flight, flight.followers) == (flight, 1)


@pytest.mark.parametrize("stale", [-0.5, -2.0])
def test_a_fresh_value_is_served_at_once(soft, clock, stale):
    """Though it is being renewed."""
    stored(soft, clock, stale)
    flight, call = renewing(soft), watched()
    assert coordinator.board(soft, call) is HIT
    assert (call.served, flight.followers) == ("hit", 0)


def test_a_failure_that_is_stored_is_raised_at_once(soft, clock):
    """Though another call tries again."""
    stored(soft, clock, stale=-2.0, error=ValueError())
    flight, call = renewing(soft), watched()
    assert coordinator.board(soft, call) is HIT
    assert (call.record.value, flight.followers) == (None, 0)


def test_who_has_waited_enough_does_not_wait_again(soft, clock):
    """It is served what is there; the renewal is begun all the same."""
    stored(soft, clock)
    call = watched()
    assert served(soft, call, coordinator.board(soft, call, soft=False))
    assert call.renewal.flight.followers == 0


def test_without_a_soft_timeout_nobody_waits(make, clock):
    """A stale value is served at once."""
    memo = make(grace=5)
    stored(memo, clock)
    renewing(memo)
    call = watched()
    assert served(memo, call, coordinator.board(memo, call))


def test_amid_a_section_nobody_waits(soft, clock):
    """A handler or finaliser has interrupted somebody who may be needed to go on."""
    stored(soft, clock)
    renewing(soft)
    call = watched()
    with patch.object(coordinator, "inside_other", lambda: True):
        assert served(soft, call, coordinator.board(soft, call))


def test_a_renewal_that_is_tried_later_is_not_waited_for(soft, clock):
    """There is none: the last one has failed."""
    stored(soft, clock, refresh_at=clock() + 0.5)
    call = watched()
    assert served(soft, call, coordinator.board(soft, call))
    assert (call.renewal, soft.locks.slot("k")) == (None, None)


def test_a_key_that_is_held_is_not_waited_for(soft, clock):
    """By whoever it is; nothing can be renewed meanwhile."""
    stored(soft, clock)
    slot = soft.locks.enter("k")
    slot.turn = Hold(("k",), caller(actor="owner"), None)
    call = watched()
    assert served(soft, call, coordinator.board(soft, call))


def test_a_renewal_that_nobody_runs_any_more_is_not_waited_for(soft, clock):
    """Its successor has no leader yet."""
    stored(soft, clock, refresh_at=clock() + 9)
    flight = renewing(soft)
    follower(soft, "other")
    landing.fail(soft, flight, KeyboardInterrupt())
    call = watched()
    assert served(soft, call, coordinator.board(soft, call))


def test_a_renewal_that_takes_too_long_is_not_waited_for(soft, clock, seconds):
    """It loses its key."""
    record = stored(soft, clock)
    flight = renewing(soft)
    record.renew_at(float("inf"))
    flight.due = seconds.now
    call = watched()
    assert served(soft, call, coordinator.board(soft, call))
    assert flight.state is UNSEATED


def test_whoever_would_wait_for_itself_is_served(soft, clock):
    """The function asks for its own key: what is stale is better than an error."""
    stored(soft, clock)
    flight = renewing(soft)
    call = watched("leader")
    assert served(soft, call, coordinator.board(soft, call))
    assert flight.followers == 0


# -- for how long ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "waited", "pause"),
    [(None, 0.0, 1.0), (None, 1.5, 0.5), (None, 3.0, 0.0), (1, 0.25, 0.75), (60, 1.5, 0.5)],
)
def test_how_long_it_waits(make, clock, seconds, limit, waited, pause):
    """Until its soft timeout ends, or its patience if that is shorter."""
    memo = make(grace=5, soft_timeout=2, wait_timeout=limit, flight_timeout=None)
    stored(memo, clock)
    renewing(memo)
    call = follower(memo)
    assert coordinator.pauses(memo, call, began=seconds.now - waited) == (1.0, pause)


@pytest.mark.parametrize(("limit", "pause"), [(None, None), (60, 1.0), (2, 0.5)])
def test_without_a_value_it_waits_as_others_do(make, seconds, limit, pause):
    """There is nothing that it could be served."""
    memo = make(grace=5, soft_timeout=2, wait_timeout=limit, flight_timeout=None)
    in_flight(memo, due=False)
    call = follower(memo)
    assert coordinator.pauses(memo, call, began=seconds.now - 1.5) == (1.0, pause)


@pytest.mark.parametrize(("limit", "over"), [(None, 2.0), (1, 1.0), (60, 2.0)])
def test_it_is_served_when_that_is_over(make, clock, seconds, limit, over):
    """To the moment; the renewal goes on without it, and nobody has timed out."""
    memo = make(grace=5, soft_timeout=2, wait_timeout=limit)
    stored(memo, clock)
    flight = renewing(memo)
    call = follower(memo)
    began = seconds.now
    seconds.now += over - 0.125
    assert coordinator.look(memo, call, began) is JOIN
    seconds.now = began + over
    assert served(memo, call, coordinator.look(memo, call, began))
    assert (flight.followers, flight.state) == (0, FLYING)


def test_what_has_landed_meanwhile_is_shared(soft, clock, seconds):
    """It was counted for that."""
    stored(soft, clock)
    flight = renewing(soft)
    call = follower(soft)
    landing.land(soft, flight, 7)
    soft.store.drop("k")
    stored(soft, clock)
    assert coordinator.look(soft, call, seconds.now - 2) is SHARE
    assert (call.flight.value, counted(soft)) == (7, (0, 1, 0, 0))


def test_what_it_leaves_behind_without_a_leader_is_gone(soft, clock, seconds):
    """Its flight was aborted just now, and nobody else has followed it."""
    stored(soft, clock, refresh_at=clock() + 9)
    flight = renewing(soft)
    call = follower(soft)
    landing.fail(soft, flight, KeyboardInterrupt())
    assert served(soft, call, coordinator.look(soft, call, seconds.now - 2))
    assert soft.locks.slot("k") is None


@pytest.mark.parametrize(
    ("options", "stale", "renew", "failed", "may"),
    [
        ({}, 2.0, False, False, True),
        ({}, 4.9, False, False, True),
        ({}, 5.0, False, False, False),
        ({}, 4.0, False, False, True),
        ({}, -2.0, False, False, True),
        ({}, -2.0, False, True, False),
        ({}, 2.0, True, False, False),
        ({}, None, False, False, False),
        ({"soft_timeout": 0}, 2.0, False, False, False),
    ],
)
def test_what_a_waiting_call_may_be_served(make, clock, options, stale, renew, failed, may):
    """A value, as long as that is served; nothing that it wants to be new."""
    memo = make(**{"grace": 5, "soft_timeout": 2, **options})
    if stale is not None:
        stored(memo, clock, stale, error=ValueError() if failed else None)
    assert coordinator.may_be_stale(memo, caller(renew=renew)) is may


# -- when it wakes ---------------------------------------------------------------------------------


def test_a_renewed_value_is_shared(soft, clock):
    """It was waited for."""
    stored(soft, clock)
    flight = renewing(soft)
    call = follower(soft)
    landing.land(soft, flight, 7)
    assert coordinator.awake(soft, call) is SHARE
    assert (call.flight.value, counted(soft)) == (7, (0, 1, 0, 0))


@pytest.mark.parametrize("later", [0.0, 2.0])
@pytest.mark.parametrize("retries", [0, 3])
def test_where_a_renewal_fails_the_stale_value_is_served(make, clock, retries, later):
    """Without a second try, whoever might begin one by then; nobody counts as failed."""
    memo = make(grace=5, soft_timeout=2, follower_retries=retries)
    record = stored(memo, clock)
    flight = renewing(memo)
    call = follower(memo)
    landing.fail(memo, flight, ValueError())
    clock.advance(later)
    record.renew_at(clock())
    assert served(memo, call, coordinator.awake(memo, call))
    assert retries == 0 or flight.successor.followers == 0


def test_where_a_renewal_has_lost_its_key_and_is_aborted_the_stale_value_is_served(soft, clock):
    """Nobody follows it any more, and nothing is tried again."""
    stored(soft, clock)
    flight = renewing(soft)
    call = follower(soft)
    controls.invalidate(soft, "k")
    landing.fail(soft, flight, KeyboardInterrupt())
    stored(soft, clock, refresh_at=clock() + 9)
    assert served(soft, call, coordinator.awake(soft, call))


def test_where_nothing_is_stored_any_more_it_is_as_for_others(soft, clock):
    """The first to wake tries again."""
    stored(soft, clock)
    flight = renewing(soft)
    call = follower(soft)
    landing.fail(soft, flight, ValueError())
    soft.store.drop("k")
    assert coordinator.awake(soft, call) is LEAD
    assert (call.flight, call.flight.followers) == (flight.successor, 0)


def test_a_flight_that_goes_on_is_waited_for(soft, clock):
    """Another follower has come first, and leads."""
    stored(soft, clock)
    flight = renewing(soft)
    call = follower(soft)
    landing.fail(soft, flight, KeyboardInterrupt())
    first = caller(actor="first", renew=True)
    assert coordinator.board(soft, first) is LEAD
    assert coordinator.awake(soft, call) is JOIN
    assert (call.flight, first.flight.followers) == (first.flight, 1)


def test_what_lands_in_the_last_moment_with_a_value_is_shared(soft, clock):
    """Its successor has landed before the call has left it."""
    stored(soft, clock)
    flight = renewing(soft)
    call = follower(soft)
    landing.fail(soft, flight, KeyboardInterrupt())
    leave = leaving.leave

    def left(*arguments, **options):
        landing.land(soft, renewing(soft), 7)
        return leave(*arguments, **options)

    with patch.object(coordinator, "leave", left):
        assert coordinator.awake(soft, call) is SHARE
    assert (call.flight.value, call.before, counted(soft)) == (7, None, (0, 1, 0, 0))
