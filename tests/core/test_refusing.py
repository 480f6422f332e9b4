"""What a caller is turned away with does not lead to the flight, which may come to hold it."""

import gc
import weakref

import pytest

from singleflight import FlightDeadlock, FlightTimeout
from singleflight.core import coordinator, landing, leaving
from singleflight.core.call import JOIN

from .conftest import Work, in_flight, watched

MOST = 4


@pytest.fixture(autouse=True)
def without_collector(waiting):
    """What is dropped goes at once, or stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def turn_of(memo):
    return memo.locks.slot("k").turn


def too_many(memo, call, seconds):
    """It finds an overdue flight in its way, and so many are left running already."""
    turn_of(memo).due = 0.0
    coordinator.board(memo, call)


def too_many_while_it_follows(memo, call, seconds):
    assert coordinator.board(memo, call) is JOIN
    turn_of(memo).due = 0.0
    coordinator.look(memo, call, 1000.0)


def patience(memo, call, seconds):
    """It has waited long enough."""
    assert coordinator.board(memo, call) is JOIN
    seconds.now += 1.5
    coordinator.look(memo, call, 1000.0)


def a_cycle(memo, call, seconds):
    """Whoever it waits for comes to wait for it."""
    assert coordinator.board(memo, call) is JOIN
    call.awaited_outside, call.awaited_by = True, frozenset({"leader"})
    coordinator.look(memo, call, 1000.0)


def a_cycle_at_once(memo, call, seconds):
    call.awaited_by = frozenset({"leader"})
    coordinator.board(memo, call)


WAYS = [too_many, too_many_while_it_follows, patience, a_cycle, a_cycle_at_once]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_leads_from_a_refusal_to_the_flight(make, seconds, way):
    """Its leader's function raises an error from the refusal, which the flight then holds."""
    memo = make(follower_retries=0, wait_timeout=1 if way is patience else None)
    for _ in range(MOST):
        assert coordinator.unseat(memo, in_flight(memo))
    error, call = ValueError(), watched("child")

    def begin():
        flight = in_flight(memo, due=False, followers=1)
        flight.previous = its_own = Work()
        return weakref.ref(its_own)

    def fail():
        flight = turn_of(memo)
        landing.fail(memo, flight, error)
        assert flight.error is error

    its_own = begin()
    try:
        way(memo, call, seconds)
    except (FlightDeadlock, FlightTimeout) as refusal:
        error.__cause__ = refusal
    leaving.abandon(memo, call, error.__cause__)
    leaving.done(memo, call)
    call.stood = None
    fail()
    assert error.__cause__.__traceback__ is not None
    assert its_own() is None
