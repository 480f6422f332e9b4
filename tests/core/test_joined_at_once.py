"""A task that joins what another one of its loop fetches, in one piece: as `board` does it, or not at all."""

from types import SimpleNamespace
from unittest.mock import patch

import pytest

from singleflight.core import coordinator
from singleflight.core.call import JOIN, NONE
from singleflight.core.flight import LANDED, UNCLAIMED
from singleflight.locks import waitgraph
from singleflight.locks.slots import Hold
from singleflight.locks.waitgraph import begin_waiting
from singleflight.storage.record import record_of

from .conftest import Work, caller, in_flight, watched

pytestmark = pytest.mark.usefixtures("waiting")

LOOP = object()


class OnTheLoop(Work):
    """Runs a flight on the loop of those who join."""

    loop = LOOP


@pytest.fixture
def patient(make):
    """Makes one whose calls wait without a limit, and who tells nobody."""
    return lambda **options: make(**{"listener": None, "flight_timeout": None, **options})


def flying(memo, key="k"):
    return in_flight(memo, key, due=False, work=OnTheLoop())


def task(actor="caller", **fields):
    return watched(actor, loop=LOOP, **fields)


def state(memo, flight, call):
    """All that following a flight changes; what stands for the flight itself is not compared."""
    latch = flight.latch
    assert (call.flight, call.latch, latch.alone) == (flight, latch, (flight,))
    assert call.stood == (latch, memo, flight)
    assert all(noted is latch.alone for noted in waitgraph.waiting.values())
    mine = call.decision, call.before, call.place, call.wants_events, call.awaited_outside, call.noted
    return *mine, flight.followers, set(waitgraph.waiting)


@pytest.mark.parametrize("followers", [0, 2])
def test_what_joins_at_once_is_as_if_it_had_joined_the_long_way(patient, followers):
    """In every field, for the first that follows and for later ones."""
    states = []
    for join in (lambda *given: coordinator.board(*given) is JOIN, coordinator.join_at_once):
        memo = patient()
        flight, call = flying(memo), task()
        for number in range(followers):
            assert join(memo, task(f"other {number}"))
        call.awaited_outside, call._above, call.noted = True, frozenset({"a"}), frozenset({"a"})
        assert join(memo, call) is True
        states.append(state(memo, flight, call))
        waitgraph.waiting.clear()
    assert states[0] == states[1]
    assert states[1][:3] == (JOIN, 0, followers + 1)
    assert call._above is None  # it was not asked: it is no descendant of a flight


def test_a_latch_that_nobody_stands_at_is_taken(patient):
    """As one that was made for whoever follows and does not wait."""
    memo = patient()
    flight, call = flying(memo), task()
    latch = flight.open_later()
    assert coordinator.join_at_once(memo, call)
    assert (call.latch, latch.alone) == (latch, (flight,))


def not_at_once(memo, call):
    """The long way decides: nothing has changed."""
    slot = memo.locks.slot("k")
    before = dict(waitgraph.waiting), slot and (slot.turn, getattr(slot.turn, "followers", 0))
    assert coordinator.join_at_once(memo, call) is False
    assert (call.decision, call.before) == (NONE, None)
    assert (dict(waitgraph.waiting), slot and (slot.turn, getattr(slot.turn, "followers", 0))) == before


@pytest.mark.parametrize(
    "options", [{"wait_timeout": 5}, {"flight_timeout": 5}, {"grace": 5, "soft_timeout": 2}], ids=repr
)
def test_whose_wait_has_a_limit_joins_the_long_way(patient, options):
    """It has to look by itself."""
    memo = patient(**options)
    flying(memo).due = None
    not_at_once(memo, task())


@pytest.mark.parametrize(
    ("listens", "levels", "logs", "asked", "wanted"),
    [
        (True, {}, False, 0, True),
        (False, {}, False, 1, False),
        (False, {}, True, 1, True),
        (False, {10: True}, True, 1, True),
        (False, {10: True}, False, 1, False),
        (False, {10: False}, True, 0, False),
    ],
)
def test_who_is_told_of_joins_the_long_way(patient, seen, listens, levels, logs, asked, wanted):
    """To a listener or the library's log, which is asked unless it has said no."""
    memo, asks = patient(listener=seen if listens else None), []
    flying(memo)
    call = task()
    fake = SimpleNamespace(levels=levels, is_logging=lambda level: asks.append(level) or logs)
    with patch.object(coordinator, "logs", fake):
        assert coordinator.join_at_once(memo, call) is not wanted
    assert (asks, call.wants_events, call.decision) == ([10] * asked, wanted, NONE if wanted else JOIN)


def test_who_waits_already_joins_the_long_way(patient):
    """On top of a wait that it has interrupted."""
    memo = patient()
    flying(memo)
    other = in_flight(memo, "other", due=False)
    begin_waiting("caller", other)
    not_at_once(memo, task())


def test_who_may_be_awaited_by_a_leader_joins_the_long_way(patient):
    """A cycle may be closed outside the library."""
    memo = patient()
    flying(memo)
    with patch.object(coordinator, "is_descendant", lambda: True):
        not_at_once(memo, task())


def none_flies(memo, flight):
    memo.locks.slot("k").turn = None


def a_hold(memo, flight):
    memo.locks.slot("k").turn = Hold(("k",), caller(actor="owner"), None)


def a_value(memo, flight):
    memo.store.put(record_of("k", 1, 0.0, 1000.0))


CHANGES = {
    "nothing flies": none_flies,
    "a plain lock is held": a_hold,
    "nobody leads it yet": lambda memo, flight: setattr(flight, "state", UNCLAIMED),
    "it is over": lambda memo, flight: setattr(flight, "state", LANDED),
    "nobody runs it yet": lambda memo, flight: setattr(flight, "unbegun", True),
    "it may take too long": lambda memo, flight: setattr(flight, "due", 1e12),
    "a thread runs it": lambda memo, flight: setattr(flight, "work", None),
    "another loop runs it": lambda memo, flight: setattr(flight, "work", Work()),
    "something is stored": a_value,
    "its leader waits": lambda memo, flight: begin_waiting("leader", flight),
    "its thread waits": lambda memo, flight: begin_waiting(1, flight),
    "its leader waits outside": lambda memo, flight: waitgraph.below.update(leader={task("child"): None}),
    "its leader asks": lambda memo, flight: setattr(flight, "leader", "caller"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_not_usual_is_joined_the_long_way(patient, change):
    """Each of these alone."""
    memo = patient()
    flight = flying(memo)
    change(memo, flight)
    not_at_once(memo, task())


def test_a_key_that_nobody_has_asked_for_is_not_joined(patient):
    """There is no lock for it."""
    not_at_once(patient(), task())
