"""How a flight ends: its state, its key, its followers, what is counted, and when gates open."""

import pytest

from singleflight import FlightDeadlock, FlightTimeout
from singleflight.core import controls, coordinator, landing, transitions
from singleflight.core.flight import FLYING, LANDED, PASSED, UNCLAIMED
from singleflight.core.transitions import new_flight
from singleflight.locks.mutex import inside, mutex
from singleflight.locks.unsettled import After, settle
from singleflight.storage.record import record_of

from .conftest import Work, in_flight


class LoopWaiters:
    """Tasks at a gate, which note whether the mutex was free when it was opened."""

    def __init__(self, latch):
        self.opened = []
        latch.groups[None] = self

    def open(self):
        self.opened.append("under the mutex" if inside() else "after it")


def counted(memo):
    """What was counted, without noughts."""
    names = ("calls", "refreshes", "fetches", "waits", "errors", "timeouts", "failures", "uncached")
    return {name: count for name in names if (count := getattr(memo.counts, name))}


def queued(memo, flight):
    """A flight that queues behind this one, and the gate that its followers wait at."""
    other = new_flight(memo, flight.slot, 3, 1)
    flight.slot.line_up(other)
    return other, other.open_later()


@pytest.mark.parametrize(
    ("cut", "follow", "again"),
    [("before", 1, False), ("between", 1, True), ("another", 1, False), ("between", 0, False)],
)
def test_who_comes_after_a_tag_was_invalidated_gets_no_older_value(make, cut, follow, again):
    """Also where that happens when the value is stored already, and its flight has not ended."""
    memo = make(tags=lambda landing: ("t",))
    if cut == "before":
        controls.cut(memo, ("t",))
    flight = in_flight(memo, followers=follow)
    endings = []
    landing.land(memo, flight, 7, endings)
    if cut != "before":
        controls.cut(memo, ("t" if cut == "between" else "u",))
    after = After()
    with mutex:
        ended = transitions.finish(memo, flight, 7, None, 100.0, True, True, after)
    after.run()
    assert (ended, flight.state) == ((follow, again), PASSED if again else LANDED)


@pytest.mark.parametrize("cut", [False, True])
def test_a_detached_flight_is_too_old_for_who_came_after_any_tag_was_invalidated(make, cut):
    """Its value was not stored, so nobody has asked for its tags."""
    memo = make(tags=lambda landing: ("t",))
    flight = in_flight(memo, followers=1)
    controls.invalidate(memo, "k")
    if cut:
        controls.cut(memo, ("u",))
    landing.land(memo, flight, 7)
    assert flight.state is (PASSED if cut else LANDED)


def test_an_error_of_a_detached_flight_is_its_followers_whatever_was_invalidated(make):
    """It has no tags, and says nothing about the time at which it came."""
    memo = make(tags=lambda landing: ("t",))
    flight = in_flight(memo, followers=1)
    controls.invalidate(memo, "k")
    controls.cut(memo, ("t",))
    landing.fail(memo, flight, ValueError())
    assert (flight.state, memo.adrift) == (LANDED, set())


def test_whoever_queues_for_a_key_that_was_invalidated_has_it(memo):
    """It is woken, and the flight is remembered for as long as it runs."""
    flight = in_flight(memo)
    _, latch = queued(memo, flight)
    assert controls.invalidate(memo, "k") is True
    assert (flight.detached, memo.adrift, latch.wait(0.0)) == (True, {flight}, True)
    landing.land(memo, flight, 7)
    assert memo.adrift == set()


@pytest.mark.parametrize("lands", [True, False])
def test_a_flight_that_no_caller_leads_counts_for_none(memo, lands):
    """What a loader brought unasked."""
    flight = in_flight(memo)
    transitions.disown(flight)
    if lands:
        landing.land(memo, flight, 7)
    else:
        landing.fail(memo, flight, ValueError())
    assert counted(memo) == {}
    after = After()
    with mutex:
        assert transitions.desert(memo, flight, after) is False


@pytest.mark.parametrize("error", [None, ValueError("down")])
def test_followers_share_the_outcome(memo, seen, error):
    """They are counted then, whenever they wake, and their gate is opened once the mutex is free."""
    flight, other = in_flight(memo, followers=2, retries=0), in_flight(memo, "other", followers=3, retries=0)
    group = LoopWaiters(flight.open_later())
    if error is None:
        landing.land(memo, flight, 7)
    else:
        landing.fail(memo, flight, error)
    assert (flight.state, flight.error, flight.landed) == (LANDED, error, 100.0)
    assert (flight.value, flight.followers) == (7 if error is None else None, 2)
    assert (memo.locks.live(), group.opened) == ([other.slot], ["after it"])
    assert (memo.counts.waits, memo.counts.errors) == ((2, 0) if error is None else (0, 3))
    (event,) = seen.of("land")
    assert (event.followers, event.retried) == (2, False)
    if error is None:
        landing.land(memo, other, 7)
    else:
        landing.fail(memo, other, error)
    assert (memo.counts.waits, memo.counts.errors) == ((5, 0) if error is None else (0, 7))


@pytest.mark.parametrize(
    ("kind", "value", "missing"),
    [("call", None, True), ("refresh", None, True), ("call", 7, False), ("bulk", None, False)],
)
def test_what_a_bulk_answer_is_without(memo, kind, value, missing):
    """What a getter brought and `cache_if` refuses; what a loader brought is there, whatever it is."""
    flight = in_flight(memo, followers=1, retries=0, kind=kind, missing=False)
    landing.land(memo, flight, value)
    assert (flight.state, flight.value, flight.missing) == (LANDED, value, missing)


def test_nobody_is_to_receive_what_a_flight_without_followers_brought(memo):
    """So it does not keep it alive."""
    flight = in_flight(memo)
    landing.land(memo, flight, 7)
    assert (flight.state, hasattr(flight, "value"), memo.counts.waits) == (LANDED, False, 0)


@pytest.mark.parametrize(
    ("outcome", "fields", "retries"),
    [
        (None, {}, 2),
        (None, {"retries": None}, None),
        (None, {"retries": 0}, "shared"),
        (7, {}, "shared"),
        (7, {"doomed": True}, 3),
        (ValueError(), {}, 2),
        (ValueError(), {"retries": 1}, 0),
        (ValueError(), {"retries": 0}, "shared"),
        (ValueError(), {"doomed": True}, 3),
        (FlightTimeout(), {}, 3),
        (FlightDeadlock(), {"retries": 0}, 0),
        (KeyboardInterrupt(), {"retries": 0}, 0),
        (KeyboardInterrupt(), {"retries": None}, None),
    ],
)
def test_who_flies_again(memo, seen, outcome, fields, retries):
    """A refused value and a failure cost a retry; what says nothing about the key costs none."""
    flight = in_flight(memo, followers=2, **fields)
    slot, latch = flight.slot, flight.open_later()
    group = LoopWaiters(latch)
    if isinstance(outcome, BaseException):
        landing.fail(memo, flight, outcome)
    else:
        landing.land(memo, flight, outcome)
    assert group.opened == ["after it"]
    successor = slot.turn
    if retries == "shared":
        assert (flight.state, flight.followers, successor) == (LANDED, 2, None)
        return
    assert (flight.state, flight.followers, flight.successor) == (PASSED, 0, successor)
    assert (successor.state, successor.followers, successor.retries) == (UNCLAIMED, 2, retries)
    assert (successor.cache, successor.key, successor.slot) == (memo, "k", slot)
    assert successor.latch not in (None, latch)
    for event in (*seen.of("land"), *seen.of("abort")):
        assert (event.followers, event.kind == "abort" or event.retried) == (2, True)


def test_a_value_that_is_good_but_not_stored_is_shared(make):
    """A ttl of 0 is no reason to try again."""
    memo = make(ttl=0)
    flight = in_flight(memo, followers=2)
    landing.land(memo, flight, 7)
    assert (flight.state, flight.value, counted(memo)) == (
        LANDED,
        7,
        {"calls": 1, "fetches": 1, "waits": 2, "uncached": 1},
    )


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_a_flight_that_was_invalidated(memo, error):
    """Its followers share what it brings; where there is nothing to share they are on their own."""
    flight, other = in_flight(memo, followers=2, detached=True), in_flight(memo, "other")
    memo.adrift = {flight, other}
    flight.slot.turn = other
    landing.fail(memo, flight, error)
    assert (memo.adrift, flight.slot.turn) == ({other}, other)
    if isinstance(error, Exception):
        assert (flight.state, flight.followers, flight.error) == (LANDED, 2, error)
    else:
        assert (flight.state, flight.followers, flight.successor) == (PASSED, 0, None)


@pytest.mark.parametrize("outcome", [7, None, ValueError()])
def test_a_flight_that_was_unseated(memo, seen, outcome):
    """Its followers have gone over to another; what it brings is its own caller's, and is counted."""
    flight = in_flight(memo, followers=2)
    assert coordinator.unseat(memo, flight)
    successor = flight.successor
    if isinstance(outcome, Exception):
        landing.fail(memo, flight, outcome)
        assert counted(memo) == {"calls": 1, "failures": 1, "errors": 1}
    else:
        landing.land(memo, flight, outcome)
        assert counted(memo) == {"calls": 1, "fetches": 1, "uncached": 1}
    assert (flight.state, flight.slot.turn, flight.successor) == (PASSED, successor, successor)
    assert (successor.followers, memo.adrift, memo.store.index) == (2, set(), {})
    (event,) = seen.of("land")
    assert (event.followers, event.retried) == (0, False)


@pytest.mark.parametrize("state", [LANDED, PASSED])
def test_a_flight_that_has_ended_frees_its_key(memo, seen, state):
    """An interrupt struck between its end and that: whoever is next gets the key, and no more happens."""
    flight = in_flight(memo, followers=2, state=state)
    group = LoopWaiters(flight.open_later())
    other, latch = queued(memo, flight)
    memo.adrift.add(flight)
    next_crowd = LoopWaiters(latch)
    landing.fail(memo, flight, ValueError())
    assert (flight.state, flight.followers, flight.slot.turn, memo.adrift) == (state, 2, other, {flight})
    assert group.opened == next_crowd.opened == ["after it"]
    assert (counted(memo), seen.kinds()) == ({}, [])


def test_a_flight_that_has_ended_leaves_the_key_to_who_has_it_now(memo):
    """Its key was free for a moment."""
    flight = in_flight(memo)
    landing.land(memo, flight, 7)
    newer = in_flight(memo, "other")
    flight.slot.turn = newer
    landing.fail(memo, flight, ValueError())
    assert flight.slot.turn is newer


def test_a_copy_in_a_forked_child_changes_nothing(memo, seen):
    """The flight is the parent's; here it returns."""
    flight = in_flight(memo, followers=2)
    flight.orphan()
    memo.adrift.add(flight)
    landing.land(memo, flight, 7)
    assert (flight.state, flight.slot.turn, flight.followers, memo.adrift) == (FLYING, flight, 2, {flight})
    assert (memo.store.index, counted(memo), seen.kinds()) == ({}, {}, [])


def test_whoever_queues_is_next(memo):
    """The key is theirs, and their gate is opened once the mutex is free."""
    flight = in_flight(memo)
    other, latch = queued(memo, flight)
    group = LoopWaiters(latch)
    landing.land(memo, flight, 7)
    assert (flight.slot.turn, group.opened) == (other, ["after it"])


def test_what_a_key_displaces_is_destroyed_outside_the_mutex(memo):
    """Destructors may do anything."""
    seen = []

    class Key:
        def __del__(self):
            seen.append(inside())

    memo.locks.vacate(memo.locks.enter(Key()), After())
    for key in ("a", "b"):
        landing.land(memo, in_flight(memo, key), 7)
    assert seen == [False]


@pytest.mark.parametrize("state", [FLYING, LANDED])
def test_under_the_mutex_a_flight_ends_and_opens_nothing(memo, state):
    """What is to be opened and let go of then is added to a list, also where it has ended before."""
    seen, after = [], After()

    class Key:
        def __del__(self):
            seen.append(inside())

    memo.locks.vacate(memo.locks.enter(Key()), After())
    memo.locks.vacate(memo.locks.enter("idle"), After())
    flight, alone = in_flight(memo, followers=2, state=state), in_flight(memo, "alone")
    group = LoopWaiters(flight.open_later())
    other, latch = queued(memo, flight)
    groups = [group, LoopWaiters(latch)]
    flight.stored = record_of(flight.key, 7, 100.0, 10.0)
    with mutex:
        ended = transitions.finish(memo, flight, 7, None, 100.0, True, True, after)
        assert ended == (None if state is LANDED else (2, False))
        assert transitions.finish(memo, alone, 7, None, 100.0, True, True, after) == (0, False)
        assert [each.opened for each in groups] == [[], []]
        assert seen == []
    after.run()
    assert [each.opened for each in groups] == [["after it"], ["after it"]]
    assert not after
    assert (seen, flight.state, flight.slot.turn, memo.locks.slot("alone")) == ([False], LANDED, other, None)


@pytest.mark.parametrize("struck", [RecursionError, KeyboardInterrupt])
def test_what_follows_a_section_is_done_once(struck):
    """Where it is cut short the rest is done later, and not again what was done: a task is cancelled once."""
    seen, strikes = [], [struck()]

    def strike():
        if strikes:
            raise strikes.pop()
        seen.append("second")

    after = After([lambda: seen.append("first"), strike, lambda: seen.append("third")])
    if struck is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            after.run()
    else:
        after.run()
    assert seen == ["first"]
    settle()
    assert seen == ["first", "second", "third"]


# -- counted ------------------------------------------------------------------------------------------

CALL = {"calls": 1}
REFRESH = {"calls": 1, "refreshes": 1}
COUNTED = [
    ("call", {}, 7, {**CALL, "fetches": 1}),
    ("call", {}, None, {**CALL, "fetches": 1, "uncached": 1}),
    ("call", {}, ValueError(), {**CALL, "failures": 1, "errors": 1}),
    ("call", {}, FlightTimeout(), {**CALL, "failures": 1, "timeouts": 1}),
    ("call", {}, KeyboardInterrupt(), {**CALL, "errors": 1}),
    ("call", {"work": Work()}, 7, {**CALL, "fetches": 1}),
    ("call", {"work": Work(), "deserted": True}, 7, CALL),
    ("call", {"work": Work(), "deserted": True}, None, {**CALL, "uncached": 1}),
    ("call", {"work": Work(), "deserted": True}, ValueError(), {**CALL, "failures": 1}),
    ("refresh", {}, 7, {**REFRESH, "fetches": 1}),
    ("refresh", {"background": True}, 7, REFRESH),
    ("refresh", {"background": True}, None, {**REFRESH, "uncached": 1}),
    ("refresh", {"background": True}, ValueError(), {**REFRESH, "failures": 1}),
    ("refresh", {"background": True}, KeyboardInterrupt(), REFRESH),
    ("bulk", {}, 7, {"fetches": 1}),
    ("bulk", {}, None, {"fetches": 1, "uncached": 1}),
    ("bulk", {}, ValueError(), {"errors": 1}),
    ("bulk", {}, FlightTimeout(), {"timeouts": 1}),
    ("shared", {}, 7, {"fetches": 1}),
    ("shared", {}, ValueError(), {"errors": 1}),
]


@pytest.mark.parametrize(("kind", "fields", "outcome", "expected"), COUNTED)
def test_what_is_counted(memo, kind, fields, outcome, expected):
    """The execution, by itself or with its batch, what it brought, and what its caller received, if any."""
    for times, key in enumerate(("one", "another"), 1):
        flight = in_flight(memo, key, kind=kind, **fields)
        if isinstance(outcome, BaseException):
            landing.fail(memo, flight, outcome)
        else:
            landing.land(memo, flight, outcome)
        assert counted(memo) == {name: count * times for name, count in expected.items()}


@pytest.mark.parametrize("kind", ["call", "refresh"])
def test_what_was_stopped_before_it_called_is_no_execution(memo, kind):
    """Its caller is counted all the same."""
    work = Work()
    work.began = False
    landing.fail(memo, in_flight(memo, kind=kind, work=work), KeyboardInterrupt())
    assert counted(memo) == {"errors": 1}


def test_what_is_counted_already_is_not_counted_again(memo):
    """Nobody called for it, or it was called off."""
    landing.land(memo, in_flight(memo, counted=True), 7)
    assert counted(memo) == {}


def test_an_execution_is_counted_once_whatever_strikes(memo, monkeypatch):
    """Also where an interrupt cuts its end short, which is done once more then."""

    def interrupted(*_):
        monkeypatch.undo()
        raise KeyboardInterrupt

    flight = in_flight(memo, followers=2)
    monkeypatch.setattr(transitions, "pass_on", interrupted)
    with pytest.raises(KeyboardInterrupt) as struck:
        landing.land(memo, flight, None)
    landing.fail(memo, flight, struck.value)
    assert counted(memo) == {"calls": 1, "fetches": 1, "uncached": 1}
    assert (flight.state, flight.slot.turn.followers) == (PASSED, 2)
