"""How a flight loses its key: what becomes of it, of its followers, and of what it was to renew."""

import logging
from unittest.mock import Mock

import pytest

from singleflight.core import coordinator
from singleflight.core.flight import FLYING, PASSED, UNCLAIMED, UNSEATED
from singleflight.locks.latch import Latch
from singleflight.locks.mutex import inside
from singleflight.locks.slots import Hold
from singleflight.storage.record import AgeingRecord

from .conftest import Work, caller, in_flight

MOST = 4


def told(seen):
    return [event.key for event in seen.of("unseat")]


def test_a_flight_that_is_in_time_keeps_its_key(memo, seen):
    """Whoever thought it due was too early: nothing happens."""
    flight = in_flight(memo, due=False, work=Work())
    latch = flight.open_later()
    assert coordinator.unseat(memo, flight) is True
    assert (flight.state, flight.detached, flight.slot.turn, flight.latch) == (FLYING, False, flight, latch)
    assert not latch.wait(0.0)
    assert (memo.adrift, told(seen), flight.work.stopped) == (set(), [], 0)


def test_whoever_sees_to_a_flight_takes_the_key_from_one_that_is_due(memo):
    """By its own decision maker, which the caller need not know; another one is left alone."""
    early, late = in_flight(memo, "early", due=False), in_flight(memo, "late")
    for flight in (early, late):
        flight.see_to()
    assert (early.state, late.state) == (FLYING, UNSEATED)


@pytest.mark.parametrize("work", [None, Work()])
def test_an_overdue_flight_without_followers_leaves_its_key_free(memo, seen, work):
    """It is still running, is not to be stored any more, and a task that runs it is told to stop."""
    flight = in_flight(memo, work=work)
    slot = flight.slot
    assert coordinator.unseat(memo, flight) is True
    assert (flight.state, flight.detached, flight.successor) == (UNSEATED, True, None)
    assert (slot.turn, memo.locks.live(), memo.adrift) == (None, [], {flight})
    assert told(seen) == ["k"]
    assert work is None or work.stopped == 1


def test_followers_move_over_to_a_successor(memo):
    """With what is left of their retries, and are woken: one of them is to lead it."""
    flight = in_flight(memo, followers=2)
    latch = flight.open_later()
    assert coordinator.unseat(memo, flight) is True
    successor = flight.slot.turn
    assert flight.successor is successor
    assert (successor.state, successor.followers, successor.retries) == (UNCLAIMED, 2, 3)
    assert (successor.cache, successor.slot, successor.key) == (memo, flight.slot, "k")
    assert (flight.state, flight.followers, flight.latch) == (UNSEATED, 0, None)
    assert latch.wait(0.0)


def test_what_has_lost_its_key_before_has_no_successor(memo):
    """It was invalidated: its followers are on their own."""
    flight = in_flight(memo, followers=2)
    newer = in_flight(memo, "other")
    flight.slot.turn = newer
    assert coordinator.unseat(memo, flight) is True
    assert (flight.state, flight.successor, flight.slot.turn) == (UNSEATED, None, newer)


def test_nothing_runs_any_more_of_what_is_dead(memo, seen):
    """It does not count as left running, and there is nothing to stop."""
    flight = in_flight(memo, due=False, work=Work(dead=True))
    memo.adrift.add(flight)
    assert coordinator.unseat(memo, flight) is True
    assert (flight.state, flight.detached, memo.adrift, flight.work.stopped) == (UNSEATED, True, set(), 0)
    assert told(seen) == ["k"]


def test_a_flight_that_is_found_dead_in_the_midst_of_it(memo):
    """Its loop may be closed at any moment, also after those adrift were looked through."""

    class Dying(Work):
        looks = 0

        def is_dead(self):
            self.looks += 1
            return self.looks > 1

    flight = in_flight(memo, due=False, work=Dying())
    memo.adrift.add(flight)
    assert coordinator.unseat(memo, flight) is True
    assert (flight.state, memo.adrift, flight.work.stopped) == (UNSEATED, set(), 0)


def test_so_many_of_a_key_are_left_running_and_no_more(memo):
    """Others' keys, and what was only invalidated, are not counted; what is dead goes in any case."""
    for key in [*["k"] * MOST, "other"]:
        assert coordinator.unseat(memo, in_flight(memo, key))
    memo.adrift.add(in_flight(memo, "another", due=False))
    fifth = in_flight(memo)
    assert coordinator.unseat(memo, fifth) is False
    assert (fifth.state, fifth.detached, fifth.slot.turn) == (FLYING, False, fifth)
    fifth.work = Work(dead=True)
    assert coordinator.unseat(memo, fifth) is True


def test_whoever_queues_for_a_key_that_is_taken_has_it(memo):
    """Behind a flight that nobody follows; it is woken."""
    flight = in_flight(memo)
    hold = Hold(("k",), caller(actor="owner", thread=3), None)
    hold.slots, hold.latch = [flight.slot], Latch()
    flight.slot.line_up(hold)
    assert coordinator.unseat(memo, flight) is True
    assert flight.slot.turn is hold
    assert hold.latch.wait(0.0)


def test_keys_are_one_where_they_are_equal(memo):
    """Whatever objects they are."""
    for number in range(MOST):
        assert coordinator.unseat(memo, in_flight(memo, ("k", float(number and 1)))) is True
    flights = [in_flight(memo, ("k", key)) for key in (True, False)]
    assert [coordinator.unseat(memo, flight) for flight in flights] == [True, True]
    assert coordinator.unseat(memo, in_flight(memo, ("k", 1))) is False
    assert coordinator.unseat(memo, in_flight(memo, ("k", 0))) is True


def test_a_key_that_cannot_be_compared_is_itself_alone(memo):
    """Those that are left running under such keys keep nothing else from being unseated."""

    class Spoilt:
        __hash__ = object.__hash__

        def __eq__(self, other):
            if self is not other:
                raise RuntimeError
            return True

    for _ in range(MOST):
        assert coordinator.unseat(memo, in_flight(memo, Spoilt())) is True
    assert coordinator.unseat(memo, in_flight(memo)) is True


def test_one_that_was_invalidated_is_not_counted_as_left_running(memo):
    """It may end in time."""
    for _ in range(MOST):
        flight = in_flight(memo, due=False)
        memo.adrift.add(flight)
        flight.slot.turn = None
    assert coordinator.unseat(memo, in_flight(memo)) is True


def test_what_is_found_dead_adrift_is_destroyed_outside_the_mutex(memo):
    """Destructors may do anything."""
    seen = []

    class Dead(Work):
        def __del__(self):
            seen.append(inside())

    alive = in_flight(memo, "alive", due=False, work=Work())
    plain = in_flight(memo, "plain", due=False)
    memo.adrift |= {in_flight(memo, "dead", due=False, state=PASSED, work=Dead(True)), alive, plain}
    for slot in memo.locks.live():
        slot.turn = None
    coordinator.unseat(memo, alive)
    assert memo.adrift == {alive, plain}
    assert seen == [False]


def test_a_tier_is_told_which_flight_has_lost_its_key(memo):
    """Others may have it from now on."""
    memo.tier = Mock()
    flight = in_flight(memo)
    assert coordinator.unseat(memo, flight) is True
    memo.tier.unseated.assert_called_once_with(flight)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("dead", [False, True])
def test_a_renewal_that_is_unseated_is_tried_again(memo, caplog, dead, broken):
    """After a while where it took too long, which is told; at once where its loop is gone.

    That is counted from when it began, if the function's clock does not say what time it is.
    """
    flight = in_flight(memo, due=not dead, renews=True, work=Work(dead))
    flight.previous = record = AgeingRecord("k", 1, 95.0, 10.0, grace=60.0)
    memo.store.put(record)
    if broken:
        memo.timer = Mock(side_effect=OSError)
    with caplog.at_level(logging.WARNING):
        assert coordinator.unseat(memo, flight) is True
    assert (record.refresh_at, record.failed) == ((100.0, False) if dead else (101.0, True))
    assert ("it took longer than 5 s" in caplog.text) is not dead
