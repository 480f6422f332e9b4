"""What the members of a window get, how they go, and what they do when they are woken: step by step."""

from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from singleflight.common.errors import FlightDeadlock, FlightTimeout
from singleflight.core import batch, coordinator, landing, window
from singleflight.core.call import JOIN, NONE, SHARE
from singleflight.core.flight import FLYING, LANDED, UNSEATED
from singleflight.core.window import Stay
from singleflight.locks import waitgraph
from singleflight.locks.mutex import mutex
from singleflight.locks.unsettled import After

from .conftest import Work
from .windows import Held, Refused, counted, joins, leads, loads, told_left

pytestmark = pytest.mark.usefixtures("seconds")


# -- outcomes -----------------------------------------------------------------------------------------


def test_each_takes_what_there_is_for_it(opened):
    """Once; and before it has ended there is nothing."""
    one = opened()
    own, call = one.own, joins(one, "b")
    assert not one.has_outcome(own)
    loads(one, {"A": "value", "B": [1]})
    assert (one.has_outcome(own), one.has_outcome(call.flight)) == (True, True)
    assert (one.error_of(own), one.error_of(call.flight), one.take(own)) == (None, None, "value")
    assert (one.take(call.flight), one.has_outcome(call.flight)) == ([1], False)
    assert one.error_of(call.flight) is None
    assert counted(one.cache) == (2, 0, 0)
    assert [(one.is_unshared(each), one.is_overdue(each)) for each in (own, call.flight)] == [
        (False, False)
    ] * 2


def test_an_outcome_that_is_noted_is_not_there_before_its_flight_has_ended(opened):
    """Who looks in between waits on."""
    one = opened()
    (own,) = one.flights
    loads(one, {"A": 1})
    own.state = FLYING
    assert one.has_outcome(own) is False


def test_an_outcome_that_nobody_takes_is_let_go_of(opened):
    """It is not to be kept for as long as the window is."""
    one = opened()
    own, call = one.own, joins(one, "b")
    loads(one, {"A": 1, "B": 2})
    one.forget(None)
    one.forget(own)
    assert (one.has_outcome(own), one.has_outcome(call.flight)) == (False, True)
    one.forget(own)


def test_an_error_of_the_loader_is_each_members(opened):
    """Each raises it, from the loader's frame on."""
    one = opened()
    own, call = one.own, joins(one, "b")
    error = Refused("down")
    loads(one, error)
    assert one.error_of(own) is one.error_of(call.flight) is error
    raised = []
    for flight in (own, call.flight):
        with pytest.raises(Refused, match="down") as caught:
            one.take(flight)
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    assert one.is_unshared(call.flight) is False
    assert counted(one.cache) == (0, 2, 0)


class Gathers:
    """An observer of executions, and of those who are served by one that another call began."""

    wants = frozenset()

    def __init__(self):
        self.told = []

    def __call__(self, event):
        raise AssertionError

    def executing(self, execution):
        return nullcontext()

    def gathered(self, execution):
        self.told.append(execution)


@pytest.mark.parametrize("served", [True, False])
def test_who_is_served_by_an_execution_tells_that(opened, served):
    """A member that has its outcome; not while it waits, nor where it calls anew."""
    one, seen = opened(), Gathers()
    one.cache.tell.add(seen, False)
    call = joins(one, "b")
    flight, stay = call.flight, Stay(one, call)
    one.begin()
    with one.running():
        assert stay.woken(False) is JOIN
    assert seen.told == []
    if served:
        one.land({"A": 1, "B": 2})
    else:
        one.fail(FlightDeadlock("circle"))
    assert stay.woken(True) is (SHARE if served else NONE)
    assert seen.told == ([flight.execution] if served else [])


def test_where_an_error_was_raised_goes_with_it(opened):
    """As far as it is the loader's: the frame that received it is left out, if there is another one."""
    one = opened()
    own, call = one.own, joins(one, "b")

    def inner():
        raise Refused("down")

    one.begin()
    try:
        inner()
    except Refused as error:
        one.fail(error)
    for flight in (own, call.flight):
        with pytest.raises(Refused) as caught:
            one.take(flight)
        names = [entry.name for entry in caught.traceback]
        assert names[-1] == "inner"
        assert names.count("test_where_an_error_was_raised_goes_with_it") == 1


def test_an_error_without_a_traceback(opened):
    """Nobody has raised it; it is raised all the same."""
    one = opened()
    (own,) = one.flights
    one.begin()
    one.fail(Refused("never raised"))
    with pytest.raises(Refused, match="never raised"):
        one.take(own)


@pytest.mark.parametrize(
    ("error", "unshared", "counts"),
    [(FlightDeadlock("circle"), True, (0, 1, 0)), (KeyboardInterrupt(), False, (0, 1, 0))],
)
def test_an_error_that_says_nothing_about_its_keys(opened, error, unshared, counts):
    """Its runner receives it and is counted; the members call anew: alone, if it is an `Exception`."""
    one = opened()
    call = joins(one, "b")
    loads(one, error)
    assert one.is_unshared(call.flight) is unshared
    assert (one.is_overdue(call.flight), one.has_outcome(call.flight)) == (False, False)
    assert counted(one.cache) == counts
    assert call.flight.has_ended()


@pytest.mark.parametrize("unseated", [False, True])
def test_a_loader_that_is_stopped_for_taking_too_long(opened, unseated):
    """Its flights have lost their keys before, and every caller receives that; else the members call anew."""
    one = opened()
    flights = one.flights[0], joins(one, "b").flight
    for flight in flights:
        if unseated:
            flight.due = 0.0
            assert coordinator.unseat(one.cache, flight)
    loads(one, FlightTimeout("late"))
    assert [(one.is_unshared(flight), one.is_overdue(flight)) for flight in flights] == [(True, unseated)] * 2
    assert counted(one.cache) == (0, 0, 2 if unseated else 1)


def test_a_stopped_loader_of_which_one_flight_has_lost_its_key(opened):
    """They are all due together: one is enough."""
    one = opened()
    call = joins(one, "b")
    one.flights[0].due = 0.0
    assert coordinator.unseat(one.cache, one.flights[0])
    loads(one, FlightTimeout("late"))
    assert one.is_overdue(call.flight) is True


@pytest.mark.parametrize(
    ("error", "late", "alone"),
    [
        (FlightTimeout("late"), True, True),
        (FlightDeadlock("circle"), False, True),
        (KeyboardInterrupt(), False, False),
    ],
)
def test_a_loader_that_was_called_for_a_part_fails(opened, waiting, error, late, alone):
    """What that says of the part is none of the others' business: for them it was not called.

    Nor is it its opener's, who calls anew, alone, and is counted then.
    """
    one = opened()
    opener = one.opener
    called, other = joins(one, "b"), joins(one, "c")
    stays = [Stay(one, call) for call in (called, other)]
    assert one.begin([called.flight]) == ["B"]
    if late:
        called.flight.due = 0.0
        assert coordinator.unseat(one.cache, called.flight)
    one.fail(error)
    assert [one.is_unshared(call.flight) for call in (called, other)] == [alone, False]
    if late:
        with pytest.raises(FlightTimeout, match=r"^model: 'b' took longer than 5 s$"):
            stays[0].woken(True)
    else:
        assert stays[0].woken(True) is NONE
    assert stays[1].woken(True) is NONE
    assert counted(one.cache) == (0, int(not alone), int(late))  # an abort is its opener's
    assert (one.skips(opener), one.is_unshared(opener.flight)) == (alone, alone)


def test_a_loader_that_was_given_up_fails_after_all(make, opened):
    """As where its loop stood still: no time was set that its flights might have exceeded."""
    one = opened(make(flight_timeout=None))
    call, work = joins(one, "b"), Work()
    stay = Stay(one, call)
    one.let_run_by(work, "task")
    work.dead = True
    for flight in one.flights:
        assert coordinator.unseat(one.cache, flight)
    work.dead = False
    loads(one, FlightTimeout("what it needs was late"))
    assert (one.is_unshared(call.flight), one.is_overdue(call.flight)) == (True, False)
    assert stay.woken(True) is NONE


def test_another_error_of_flights_that_have_lost_their_keys(opened):
    """Nobody has taken too long, as far as it says."""
    one = opened()
    own = one.own
    own.due = 0.0
    assert coordinator.unseat(one.cache, own)
    loads(one, KeyboardInterrupt())
    assert (one.is_unshared(own), one.is_overdue(own)) == (False, False)


@pytest.mark.parametrize("field", ["deserted", "background"])
def test_nothing_is_kept_for_a_caller_that_is_not_there(opened, field):
    """It has gone, or there was none."""
    one = opened()
    call = joins(one, "b")
    setattr(call.flight, field, True)
    loads(one, {"A": 1, "B": 2})
    assert not one.has_outcome(call.flight)
    assert call.flight.state is LANDED


def test_what_had_ended_before_keeps_its_outcome(opened):
    """A landing that is repeated after an interrupt changes nothing."""
    one = opened()
    own, call = one.own, joins(one, "b")
    one.begin()
    one.land_each([batch.Item(own, "a", True, 1)], extra=False)
    loads_error = Refused("down")
    one.fail(loads_error)
    assert (one.error_of(own), one.take(own)) == (None, 1)
    assert one.error_of(call.flight) is loads_error
    one.fail(KeyboardInterrupt())
    assert one.error_of(call.flight) is loads_error


def test_the_loader_is_not_called_for_all(opened):
    """Who was not asked for calls anew, and is not counted; what was loaded before is."""
    one = opened(max_batch=1)
    own, call = one.own, joins(one, "b")
    loads(one, {"A": 1})
    one.fail(Refused("no seat"))
    assert (one.has_outcome(own), one.has_outcome(call.flight), call.flight.has_ended()) == (
        True,
        False,
        True,
    )
    assert counted(one.cache) == (1, 0, 0)


def test_a_part_is_loaded(opened):
    """Who has got nothing yet waits at another latch; with the last part all latches are open."""
    one = opened(max_batch=1)
    own, call = one.own, joins(one, "b")
    first = one.latch
    loads(one, {"A": 1})
    second = one.latch
    assert (first.wait(0.0), second is first, second.wait(0.0)) == (True, False, False)
    assert own.has_ended()
    assert one.stand_again(call) is True
    assert (call.latch, call.stood) == (second, (second, one, None))
    loads(one, {"B": 2})
    assert (one.latch, second.wait(0.0)) == (second, True)
    assert one.stand_again(call) is False
    assert (call.latch, one.take(call.flight)) == (second, 2)


def test_nobody_waits_on_in_a_window_that_has_ended(opened):
    """Whatever became of its flight."""
    one = opened()
    call = joins(one, "b")
    one.flights = []
    assert one.stand_again(call) is False


def test_a_value_that_fails_is_its_members_alone(opened):
    """Whoever runs the loader is not told, unless it is an abort."""
    one = opened()
    call = joins(one, "b")
    one.begin()
    items = [batch.Item(one.flights[0], "a", True, 1), batch.Item(call.flight, "b", True, error=Refused("b"))]
    one.land_each(items)
    assert type(one.error_of(call.flight)) is Refused


def test_an_abort_in_place_of_a_value_is_the_runners(make, opened):
    """It is not to be lost; its member calls anew."""

    def failure_ttl(error):
        raise KeyboardInterrupt

    one = opened(make(failure_ttl=failure_ttl))
    call = joins(one, "b")
    one.begin()
    with pytest.raises(KeyboardInterrupt):
        one.land_each([batch.Item(call.flight, "b", True, error=Refused("b"))])
    assert not one.has_outcome(call.flight)


@pytest.mark.parametrize("timed_out", [False, True])
@pytest.mark.parametrize("twice", [False, True])
def test_members_that_were_counted_in_line_are_not_counted_so(opened, timed_out, twice):
    """They call anew and are counted then; the one that runs it stays counted, and so does who has gone."""
    one = opened()
    own, call = one.own, joins(one, "b")
    gone, nobody, uncounted = (joins(one, key).flight for key in "cde")
    gone.deserted, nobody.background = True, True
    for flight in (own, call.flight, gone, nobody):
        flight.counted, flight.timed_out = True, timed_out
    one.cache.counts.timeouts = one.cache.counts.errors = 5
    for _ in range(2 if twice else 1):
        with mutex:
            for flight in one.flights:
                one._spare(flight)
    assert counted(one.cache) == ((0, 5, 4) if timed_out else (0, 4, 5))
    assert [flight.deserted for flight in (own, call.flight, uncounted)] == [False, True, True]
    assert uncounted.counted


def test_a_window_is_closed_for_good(opened, registry):
    """Its members are woken, and it leads to nobody any more."""
    one = opened()
    latch = one.latch
    one.close()
    assert (one.flights, one.is_open, one.opener, latch.wait(0.0)) == ([], False, None, True)
    assert registry.told[-1] == ("ended", one)


def test_a_window_that_an_interrupt_left_with_a_key_of_an_unasked_item(opened):
    """It is free then, as are those that nobody has used since; those of its members stay theirs."""
    one = opened()
    locks = one.cache.locks
    for key in "xyz":
        landing.land(one.cache, leads(one.cache, key).flight, 1)
    with mutex:
        locks.enter("extra")
    one._extra = "extra"
    one.close()
    assert [slot.key for slot in locks.live()] == ["a"]


# -- members that go ----------------------------------------------------------------------------------


def test_a_members_call_ends_with_an_exception(opened, seen):
    """It counts as failed, which is told; its flight goes on without it."""
    one, error = opened(), Refused("gone")
    call = joins(one, "b")
    flight = call.flight
    one.part_with(call, error)
    assert told_left(seen) == [("b", error, "errors", flight.ident, True)]
    assert (flight.deserted, flight.state, counted(one.cache)) == (True, FLYING, (0, 1, 0))
    one.part_with(call, error)
    assert (len(told_left(seen)), counted(one.cache)) == (1, (0, 1, 0))


@pytest.mark.parametrize("room", [True, False])
def test_a_member_that_goes_when_its_flight_has_ended(opened, seen, room):
    """It was counted then; what there was for it is let go of."""
    one = opened()
    call = joins(one, "b")
    loads(one, {"A": 1, "B": 2})
    part(one, call, room)
    part(one, call, room)
    assert (told_left(seen), counted(one.cache), one.has_outcome(call.flight)) == ([], (2, 0, 0), False)


def part(one, call, room):
    if room:
        one.part_with(call, Refused("gone"))
        return
    after = After()
    with mutex:
        one.settle_member(call, after)
    after.run()


def test_a_member_goes_without_room_for_it(opened, seen):
    """The same, but that nobody is told; where nobody is left its task is stopped."""
    one, work = opened(), Work()
    call = joins(one, "b")
    one.let_run_by(work, "task")
    part(one, call, room=False)
    part(one, call, room=False)
    assert (call.flight.deserted, counted(one.cache), told_left(seen)) == (True, (0, 1, 0), [])
    assert (call.flight.doomed, work.stopped) == (True, 1)


@pytest.mark.parametrize("room", [True, False])
def test_a_call_that_holds_nothing_any_more(opened, seen, room):
    """It may end with an exception all the same."""
    one = opened()
    call = joins(one, "b")
    call.flight = None
    part(one, call, room)
    assert (told_left(seen), counted(one.cache)) == ([], (0, 0, 0))


# -- what a member looks for --------------------------------------------------------------------------


def test_when_somebody_looks_again_on_behalf_of_the_tasks(opened, seconds):
    """When its flights are due, but after a second at the latest; each for itself once none flies."""
    one = opened()
    call = joins(one, "b")
    one.flights[0].state = UNSEATED
    assert one.watch(None) == 1.0
    call.flight.due = 1000.25
    assert one.watch(None) == 0.25
    call.flight.due = None
    assert one.watch(None) == 1.0
    call.flight.state = LANDED
    assert one.watch(None) is None


def test_whoever_watches_takes_the_keys_from_flights_that_are_due(opened, seconds):
    """From all of them, and everybody looks for himself then."""
    one = opened()
    own, call = one.own, joins(one, "b")
    seconds.now = 1007.0
    assert one.watch(None) is None
    assert (own.state, call.flight.state) == (UNSEATED, UNSEATED)


@pytest.mark.parametrize(
    ("limit", "due", "awaited_outside", "pauses", "pause"),
    [
        (None, None, False, (1.0, None), 1.0),
        (None, 1000.25, False, (0.25, None), 0.25),
        (None, 1002.0, False, (1.0, None), 1.0),
        (None, 999.0, False, (0.0, None), 0.0),
        (None, None, True, (1.0, 0.05), 0.05),
        (60, None, False, (1.0, 1.0), 1.0),
        (60, 1000.25, False, (0.25, 1.0), 0.25),
        (60, None, True, (1.0, 0.05), 0.05),
        (10.5, None, False, (1.0, 0.5), 0.5),
        (10.03125, None, True, (1.0, 0.03125), 0.03125),
        (9, None, False, (1.0, 0.0), 0.0),
    ],
)
def test_how_long_a_member_may_wait(make, opened, seconds, limit, due, awaited_outside, pauses, pause):
    """As a follower; see `test_looking`. A thread always looks itself."""
    one = opened(make(wait_timeout=limit))
    call = joins(one, "b")
    call.flight.due, call.awaited_outside = due, awaited_outside
    seconds.now = 990.0
    stay = Stay(one, call)
    seconds.now = 1000.0
    assert (stay.pauses(), stay.pause()) == (pauses, pause)


def test_what_is_over_is_not_due_any_more(opened):
    """Its caller is woken by its latch."""
    one = opened()
    call = joins(one, "b")
    call.flight.due, call.flight.state = 0.0, UNSEATED
    assert Stay(one, call).pause() == 1.0


@pytest.mark.parametrize("opens", [False, True])
def test_a_member_takes_what_there_is(opened, waiting, opens):
    """However it was woken; its wait is over."""
    one = opened()
    call = joins(one, "b")
    stay = Stay(one, call)
    assert stay.woken(False) is JOIN
    assert waiting == {"caller of b": (call.flight,)}
    loads(one, {"A": 1, "B": 2})
    assert stay.woken(opens) is SHARE
    assert (waiting, call.before) == ({}, None)


@pytest.mark.parametrize("opens", [False, True])
def test_a_member_for_which_there_is_nothing_calls_anew(opened, waiting, opens):
    """Its runner went; its wait is over."""
    one = opened()
    call = joins(one, "b")
    one.give_up(KeyboardInterrupt())
    assert Stay(one, call).woken(opens) is NONE
    assert (waiting, call.before) == ({}, None)


def test_a_member_waits_on_for_the_next_part(opened):
    """At the next latch."""
    one = opened(max_batch=1)
    call = joins(one, "b")
    stay = Stay(one, call)
    loads(one, {"A": 1})
    assert stay.woken(True) is JOIN
    assert (call.latch, call.before) == (one.latch, 0)


def test_a_member_that_is_woken_by_a_window_without_its_flight(opened, waiting, seen):
    """It ended, and the flight is nobody's: it is left, not counted, and called anew."""
    one = opened()
    call = joins(one, "b")
    one.flights = []
    assert Stay(one, call).woken(True) is NONE
    assert (call.flight.deserted, counted(one.cache), waiting) == (True, (0, 0, 0), {})
    assert (seen.count("timeout"), told_left(seen)) == (0, [])


def test_a_members_flight_that_takes_too_long(opened, seconds, seen, waiting):
    """It takes the key from it, counts as timed out and is told; not a moment before."""
    one = opened()
    call = joins(one, "b")
    stay = Stay(one, call)
    seconds.now = 1006.75
    assert stay.woken(False) is JOIN
    seconds.now = 1007.0
    with pytest.raises(FlightTimeout) as raised:
        stay.woken(False)
    assert str(raised.value) == "model: 'b' took longer than 5 s"
    assert [(event.key, event.waited) for event in seen.of("timeout")] == [("b", 7.0)]
    assert (call.flight.state, call.flight.deserted, counted(one.cache)) == (UNSEATED, True, (0, 0, 1))
    assert (waiting, call.before) == ({}, None)


def test_a_members_flight_whose_runner_is_gone(opened, seen):
    """It has lost its key, but is not late: it is called anew, and not counted."""
    one = opened()
    call = joins(one, "b")
    one.let_run_by(Work(dead=True), "task")
    assert Stay(one, call).woken(False) is NONE
    assert (call.flight.state, counted(one.cache), seen.count("timeout")) == (UNSEATED, (0, 0, 0), 0)


def test_a_flight_without_a_limit_whose_runner_is_gone(make, opened):
    """The same."""
    one = opened(make(flight_timeout=None))
    call = joins(one, "b")
    one.let_run_by(Work(dead=True), "task")
    assert Stay(one, call).woken(False) is NONE
    assert counted(one.cache) == (0, 0, 0)


def test_a_member_of_a_window_that_was_stopped_for_taking_too_long(opened, seen):
    """Every caller receives that; it was counted and told with its flight."""
    one = opened()
    call = joins(one, "b")
    for flight in one.flights:
        flight.due = 0.0
        assert coordinator.unseat(one.cache, flight)
    loads(one, FlightTimeout("late"))
    with pytest.raises(FlightTimeout, match=r"^model: 'b' took longer than 5 s$"):
        Stay(one, call).woken(True)
    assert (counted(one.cache), seen.count("timeout")) == ((0, 0, 2), 0)


def test_a_member_that_has_its_outcome_though_others_were_late(opened):
    """What is there for it is its own."""
    one = opened()
    call = joins(one, "b")
    assert one.begin([call.flight]) == ["B"]
    one.land({"B": 2})
    one.begin()
    one.own.due = 0.0
    assert coordinator.unseat(one.cache, one.own)
    one.fail(FlightTimeout("late"))
    assert one.is_overdue(one.own)
    assert Stay(one, call).woken(True) is SHARE


def lands_first(one, values):
    """The window lands before a member that gives up is through with it."""
    desert = window.desert

    def deserts(*args, **kwargs):
        loads(one, values)
        return desert(*args, **kwargs)

    return patch.object(window, "desert", deserts)


def test_a_flight_that_lands_while_its_member_gives_it_up_as_too_long(opened, seconds, seen):
    """What it brought is the member's."""
    one = opened()
    call = joins(one, "b")
    stay = Stay(one, call)
    seconds.now = 1007.0
    with lands_first(one, {"A": 1, "B": 2}):
        assert stay.woken(False) is SHARE
    assert (seen.count("timeout"), counted(one.cache)) == (0, (2, 0, 0))


@pytest.mark.parametrize(("waited", "over"), [(2.75, False), (3.0, True), (3.25, True)])
def test_a_members_patience_ends_to_the_moment(make, opened, seconds, seen, waiting, waited, over):
    """It leaves then, which is told and counted; its flight is not disturbed."""
    one = opened(make(wait_timeout=3))
    call = joins(one, "b")
    stay = Stay(one, call)
    seconds.now += waited
    if not over:
        assert stay.woken(False) is JOIN
        assert (call.flight.deserted, seen.count("timeout"), call.before) == (False, 0, 0)
        return
    with pytest.raises(FlightTimeout) as raised:
        stay.woken(False)
    assert str(raised.value) == f"model: waited {waited:g} s for 'b'"
    assert [(event.key, event.waited) for event in seen.of("timeout")] == [("b", waited)]
    assert (call.flight.deserted, call.flight.state, counted(one.cache)) == (True, FLYING, (0, 0, 1))


def test_what_a_member_says_of_its_wait_is_short(make, opened, seconds):
    """Nobody needs more than three digits."""
    one = opened(make(wait_timeout=0))
    stay = Stay(one, joins(one, "b"))
    seconds.now += 1.23456
    with pytest.raises(FlightTimeout, match=r"^model: waited 1\.23 s for 'b'$"):
        stay.woken(False)


def test_a_value_that_comes_when_a_members_patience_ends(make, opened, seconds, seen):
    """It is taken; it was counted when it came."""
    one = opened(make(wait_timeout=3))
    call = joins(one, "b")
    stay = Stay(one, call)
    seconds.now += 3
    with lands_first(one, {"A": 1, "B": 2}):
        assert stay.woken(False) is SHARE
    assert (counted(one.cache), seen.count("timeout")) == ((2, 0, 0), 0)


def test_a_cycle_over_a_window_that_was_closed_outside_is_found(opened, seen, waiting):
    """Its loader has come to await the member: it leaves, is told why, and counts as failed."""
    one = opened()
    call = joins(one, "b", "parent")
    call.awaited_by = frozenset({"opener"})
    with pytest.raises(FlightDeadlock) as raised:
        Stay(one, call).woken(False)
    assert str(raised.value) == "model: waiting would never end: 'b' -> 'b'"
    assert [(event.key, event.cycle) for event in seen.of("deadlock")] == [("b", "'b' -> 'b'")]
    assert (call.flight.deserted, call.flight.state, counted(one.cache)) == (True, FLYING, (0, 1, 0))


def test_a_runner_that_stands_in_a_cycle_twice(opened, waiting):
    """What is waited for is told where it comes in, and not once more as one of its runner's keys."""
    one = opened()
    call = joins(one, "b", "parent")
    mine = leads(one.cache, "mine", "caller of b")
    another = leads(one.cache, "another", "somebody", thread=3)
    waiting.update({"opener": (mine.flight, another.flight), "somebody": (one.own,)})
    cycle = "'mine' -> 'b' -> 'another' -> 'a' -> 'mine'"
    with pytest.raises(FlightDeadlock, match=f"^model: waiting would never end: {cycle}$"):
        Stay(one, call).woken(False)


def test_who_has_come_to_wait_for_a_member_is_noted(opened):
    """For those who ask about themselves; it goes on waiting."""
    one = opened()
    call = joins(one, "b", "parent")
    assert waitgraph.below == {"parent": {call: None}}
    call.awaited_by = frozenset({"another"})
    assert Stay(one, call).woken(False) is JOIN
    assert (waitgraph.below, call.noted) == ({"another": {call: None}}, {"another"})


def test_a_member_whom_nobody_can_have_come_to_wait_for_does_not_ask(opened):
    """It would cost all others the mutex, each second."""
    one = opened()
    call = joins(one, "b")
    call.awaited_by = frozenset({"opener"})
    assert Stay(one, call).woken(False) is JOIN
    assert waitgraph.below == {}


@pytest.mark.parametrize("limit", [None, 60])
def test_a_member_does_not_leave_for_a_cycle_in_doubt(make, opened, waiting, limit):
    """Where its patience ends; without a limit it is refused."""
    one = opened(make(wait_timeout=limit))
    call = joins(one, "b", "parent")
    job = SimpleNamespace(is_over=lambda: False, is_in_doubt=lambda: True)
    held = Held(job)
    held.leader = "caller of b"
    waiting["opener"] = (held,)
    if limit is None:
        with pytest.raises(FlightDeadlock):
            Stay(one, call).woken(False)
    else:
        assert Stay(one, call).woken(False) is JOIN


def test_a_value_that_comes_as_its_member_finds_a_cycle(opened, seen):
    """It closes no cycle any more: the value is taken once it is woken."""
    one = opened()
    call = joins(one, "b", "parent")
    call.awaited_by = frozenset({"opener"})
    stay = Stay(one, call)
    with lands_first(one, {"A": 1, "B": 2}):
        assert stay.woken(False) is JOIN
    assert stay.woken(True) is SHARE
    assert seen.of("deadlock") == []


def test_what_an_interrupt_left_is_settled_by_whoever_wakes(opened):
    """As everywhere."""
    one = opened()
    call = joins(one, "b")
    settled = []
    with patch.object(window, "unsettled", {1: 1}), patch.object(window, "settle", lambda: settled.append(1)):
        assert Stay(one, call).woken(False) is JOIN
    assert settled == [1]
