"""The short ways of a usual miss: what they do by themselves, and what they leave to the long ones."""

import os
import time
from threading import get_ident
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from singleflight.core import coordinator, landing, transitions
from singleflight.core.batch import Batch
from singleflight.core.call import LEAD, NONE, Call, new_call
from singleflight.core.flight import FLYING, LANDED
from singleflight.core.transitions import new_flight
from singleflight.locks.latch import Latch
from singleflight.locks.lives import life_of_this_thread, lives
from singleflight.storage.record import AgeingRecord
from singleflight.storage.store import Store

from .conftest import caller, in_flight

pytestmark = pytest.mark.skipif("LONG_WAY" in os.environ, reason="all calls go the long ways in this run")

KEYS = ["k", ("k", 1), 7]


@pytest.fixture
def plain(make):
    """A decision maker whose values may land at once."""
    memo = make(listener=None)
    assert memo.lands_at_once
    return memo


def flying(memo, key="k", **fields):
    return in_flight(memo, key, due=False, **{"wants_events": False, **fields})


def counted(memo):
    names = ("calls", "fetches", "errors", "waits", "uncached", "timeouts")
    return {name: count for name in names if (count := getattr(memo.counts, name))}


def fields(record):
    return {name: getattr(record, name) for name in type(record).__slots__ if name != "place"}


def stored(memo, clock, **others):
    record = AgeingRecord("k", "old", clock() - 10.0, 10.0, **others)
    memo.store.put(record)
    return record


@pytest.mark.parametrize("limit", [None, 5])
@pytest.mark.parametrize("renew", [False, True])
@pytest.mark.parametrize("waits", [0, 2])
@pytest.mark.parametrize("old", [False, True])
def test_what_begins_at_once_is_as_if_it_had_begun_the_long_way(
    make, clock, seconds, waiting, limit, renew, waits, old
):
    """All that is known of its flight, its call and its key; the flight is a later one."""
    seen = []
    for at_once in (True, False):
        memo = make(flight_timeout=limit, follower_retries=2)
        record = stored(memo, clock) if old else None
        call = new_call(Call, "k", "actor", get_ident(), get_ident(), renew)
        waiting.update({get_ident(): ("wait",) * waits} if waits else {})
        if at_once:
            assert transitions.lead_at_once(memo, call) is True
        else:
            assert coordinator.board(memo, call) is LEAD
        flight = call.flight
        assert (flight.cache, flight.slot.turn, flight.previous) == (memo, flight, record)
        assert (call.decision, memo.locks.slot("k")) == (LEAD, flight.slot)
        assert flight.ident == flight.number > 0
        names = set(type(flight).__slots__) | {"key", "leader", "thread", "depth", "latch"}
        names -= {"cache", "slot", "previous", "ident", "number"}
        seen.append({name: getattr(flight, name, "nothing") for name in names})
    assert seen[0] == seen[1]
    assert (seen[0]["state"], seen[0]["depth"]) == (FLYING, waits)
    assert seen[0]["life"] is life_of_this_thread()
    assert [type(value) for value in seen[0].values()] == [type(value) for value in seen[1].values()]


@pytest.mark.parametrize(("left", "leads"), [(-1.0, True), (0.0, True), (0.5, False), (3.0, False)])
def test_what_is_stored_is_served_the_long_way(memo, clock, left, leads):
    """Also what is stale, and for however short a time it may be served; or else it is fetched at once."""
    stored(memo, clock, grace=60.0 + left)
    clock.advance(60.0)
    call = caller()
    assert transitions.lead_at_once(memo, call) is leads
    assert (call.decision is LEAD, len(memo.locks.live())) == (leads, int(leads))


@pytest.mark.parametrize("renew", [False, True])
def test_a_call_that_wants_a_new_value_leads_at_once(memo, clock, renew):
    """Whatever is there."""
    stored(memo, clock, grace=60.0)
    call = caller(renew=renew)
    assert transitions.lead_at_once(memo, call) is renew


def test_a_key_that_is_taken_is_not_led_at_once(memo):
    """It is joined the long way."""
    flight, call = in_flight(memo, due=False), caller()
    assert transitions.lead_at_once(memo, call) is False
    assert (call.decision, flight.followers) == (NONE, 0)


def test_whose_thread_is_known_depends_on_its_life(memo):
    """Nobody else is asked."""
    call = new_call(Call, "k", "actor", 9, 9)
    with patch.dict(lives, {9: "the life of 9"}):
        assert transitions.lead_at_once(memo, call) is True
    assert call.flight.life == "the life of 9"


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_what_lands_at_once_is_as_if_it_had_landed_the_long_way(make, key):
    """Its record, its flight, its key and what is counted."""
    seen = []
    for at_once in (True, False):
        memo = make(listener=None)
        flight = flying(memo, key)
        if at_once:
            assert transitions.land_at_once(memo, flight, 5) is True
        else:
            landing.land(memo, flight, 5)
        record = memo.store.index[key]
        assert flight.stored is record
        assert record.place is not None
        state = (flight.state, flight.counted, flight.slot.turn, flight.detached, memo.locks.live())
        seen.append((fields(record), state, counted(memo), memo.locks.idle))
    assert seen[0] == seen[1]
    assert seen[0][1][0] is LANDED
    assert (seen[0][0]["landed"], seen[0][0]["deadline"]) == (100, 110)
    assert seen[0][2] == {"calls": 1, "fetches": 1}


def test_each_of_them_is_counted(plain):
    """With the others."""
    for number, key in enumerate(KEYS, 1):
        assert transitions.land_at_once(plain, flying(plain, key), 5) is True
        assert counted(plain) == {"calls": number, "fetches": number}


@pytest.mark.parametrize(
    ("value", "others"),
    [
        (None, {}),
        (5, {"followers": 1}),
        (5, {"wants_events": True}),
        (5, {"kind": "refresh"}),
        (5, {"kind": "bulk"}),
    ],
    ids=str,
)
def test_what_is_not_usual_takes_the_long_way(plain, value, others):
    """Nothing of it has happened then."""
    flight = flying(plain, **others)
    assert transitions.land_at_once(plain, flight, value) is False
    assert (flight.state, dict(plain.store.index), counted(plain)) == (FLYING, {}, {})


class Changing:
    """A key that changes while its flight is on its way."""

    def __init__(self):
        self.hash = 1

    def __hash__(self):
        return self.hash


@pytest.mark.parametrize("wrap", [lambda key: key, lambda key: (key, 1)], ids=["alone", "in a tuple"])
def test_what_has_a_spoilt_key_takes_the_long_way(plain, wrap):
    """So it is not filed as what its key is now."""
    changing = Changing()
    flight = flying(plain, wrap(changing))
    changing.hash = 2
    assert transitions.land_at_once(plain, flight, 5) is False
    assert (flight.state, dict(plain.store.index), counted(plain)) == (FLYING, {}, {})


def test_what_the_store_refuses_takes_the_long_way(plain):
    """As what was invalidated."""
    flight = flying(plain, detached=True)
    assert transitions.land_at_once(plain, flight, 5) is False
    assert (flight.state, dict(plain.store.index), counted(plain)) == (FLYING, {}, {})


HAPPENED = {
    "somebody follows": lambda flight: setattr(flight, "followers", 1),
    "somebody stands at its latch": lambda flight: setattr(flight, "latch", Latch()),
    "somebody queues": lambda flight: flight.slot.line_up(new_flight(flight.cache, flight.slot, 3, 1)),
    "it was invalidated": lambda flight: setattr(flight, "detached", True),
    "its caller has gone": lambda flight: setattr(flight, "deserted", True),
    "its key was taken from it": lambda flight: setattr(flight.slot, "turn", None),
}


def amid_landing(happens, flight):
    """The store, after whose `put` this happens to the flight."""
    put = Store.put

    def puts(store, record, publisher):
        gone = put(store, record, publisher)
        happens(flight)
        return gone

    return patch.object(Store, "put", puts)


@pytest.mark.parametrize("happens", HAPPENED.values(), ids=HAPPENED)
def test_what_something_has_happened_to_ends_as_the_long_way_ends_it(make, happens):
    """With the value that is stored already: as what was there before nothing else is noted."""
    seen = []
    for land in (transitions.land_at_once, landing.land):
        memo = make(listener=None)
        flight = flying(memo)
        latch = flight.open_later()
        with amid_landing(happens, flight):
            assert land(memo, flight, 5) is not False
        record = memo.store.index["k"]
        assert flight.stored is record
        assert flight.previous is None
        turn = flight.slot.turn
        state = flight.state, flight.counted, turn and turn.state, (flight.latch or latch).wait(0)
        seen.append((fields(record), state, counted(memo), memo.locks.idle))
    assert seen[0] == seen[1]
    assert seen[0][1][0] is LANDED


def test_who_follows_amid_its_landing_takes_the_value(plain):
    """And its latch is opened."""
    flight = flying(plain)
    latch = flight.open_later()
    with amid_landing(HAPPENED["somebody follows"], flight):
        assert transitions.land_at_once(plain, flight, 5) is True
    assert (flight.value, flight.error, flight.missing, latch.wait(0)) == (5, None, False, True)
    assert counted(plain) == {"calls": 1, "fetches": 1, "waits": 1}


def test_what_has_ended_meanwhile_is_not_ended_again(plain):
    """An interrupt's handler may have done that."""
    flight = flying(plain)
    with amid_landing(lambda flight: setattr(flight, "state", LANDED), flight):
        assert transitions.land_at_once(plain, flight, 5) is True
    assert counted(plain) == {}


@pytest.mark.parametrize("ends", ["at once", "with a value", "with an error"])
@pytest.mark.parametrize("usual", [True, False])
def test_how_long_its_lock_is_idle_is_known_by_the_clock_of_locks(make, usual, ends):
    """Which need not be the function's: then, or where that may have failed, it is read once more."""
    memo = make(listener=None, **({"timer": time.monotonic} if usual else {}))
    flight, told = flying(memo), []
    vacate = type(memo.locks).vacate

    def vacates(locks, slot, after, now=None):
        told.append(now)
        vacate(locks, slot, after, now)

    with patch.object(type(memo.locks), "vacate", vacates):
        if ends == "at once":
            assert transitions.land_at_once(memo, flight, 5) is True
        elif ends == "with a value":
            landing.land(memo, flight, 5)
        else:
            landing.fail(memo, flight, ValueError())
    known = usual and ends != "with an error"
    assert told == [memo.store.index["k"].landed if known else None]


def test_it_spoils_what_a_bulk_load_may_bring(plain):
    """Which was begun before."""
    batch = Batch(plain, [], SimpleNamespace(spelt={}), {})
    plain.batches.add(batch)
    assert transitions.land_at_once(plain, flying(plain), 5) is True
    assert batch.spoiled == {"k"}
