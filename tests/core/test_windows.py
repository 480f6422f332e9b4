"""A window, step by step: who is in it, who may wait for it, and who runs it."""

from types import SimpleNamespace

import pytest

from singleflight.common.errors import FlightTimeout
from singleflight.core import landing
from singleflight.core.call import LEAD, NONE
from singleflight.core.flight import FLYING, LANDED, PASSED, UNSEATED
from singleflight.core.window import Load
from singleflight.locks import waitgraph
from singleflight.locks.lives import life_of_this_thread
from singleflight.locks.mutex import mutex
from singleflight.locks.unsettled import After

from .conftest import Work, in_flight, watched
from .windows import Held, Refused, added, counted, joins, leads, renewal

pytestmark = pytest.mark.usefixtures("seconds")


# -- while it is open ---------------------------------------------------------------------------------


def test_a_window_is_open_for_its_time(unclaimed, seconds, registry):
    """What is left of it ends with its time, or once it is shut."""
    one = unclaimed()
    assert (one.group, one.is_open, one.closes_at, one.left()) == ("group", True, 1002.0, 2.0)
    assert (one.leader, one.depth) == (None, 0)
    seconds.now = 1001.5
    assert one.left() == 0.5
    seconds.now = 1003.0
    assert (one.left(), one.is_open) == (0.0, True)
    seconds.now = 1000.0
    one.shut()
    assert (one.is_open, one.left(), registry.told) == (False, 0.0, [("forget", one)])


def test_a_window_of_one_alone_closes_at_once(unclaimed):
    """Nobody else is to join it."""
    one = unclaimed(alone=True)
    assert (one.is_open, one.closes_at, one.left()) == (False, 1000.0, 0.0)


@pytest.mark.parametrize("waits", [0, 2])
def test_who_opens_a_window_runs_it(memo, opened, registry, waiting, waits):
    """It leads its flights, on top of what its thread waits for already."""
    waiting.update({1: ("wait",) * waits} if waits else {})
    one = opened()
    ((said, of, opener),) = registry.told
    (flight,) = one.flights
    assert (said, of, one.opener, one.own) == ("claimed", one, opener, opener.flight)
    assert opener.flight is flight
    life = life_of_this_thread()
    assert (one.leader, one.thread, one.life, one.depth, one.work) == ("opener", 1, life, waits, None)
    assert (flight.leader, flight.thread, flight.life, flight.depth, flight.work) == (
        "opener",
        1,
        life,
        waits,
        None,
    )
    assert (flight.kind, flight.missing, flight.unbegun, flight.due) == ("bulk", False, False, 1007.0)
    assert (opener.decision, one.renews) == (LEAD, False)


def test_a_flight_without_a_limit_is_never_due(make, opened):
    """In a window, either."""
    assert opened(make(flight_timeout=None)).flights[0].due is None


def test_a_member_waits_for_whoever_runs_it(opened, waiting):
    """At the window's latch, which the window watches; its flight is the runner's."""
    one = opened()
    call = joins(one, "b")
    flight = call.flight
    assert (call.decision, call.latch, call.stood, call.before) == (
        NONE,
        one.latch,
        (one.latch, one, None),
        0,
    )
    assert (flight.leader, flight.thread, flight.depth) == ("opener", 1, 0)
    assert (waiting, waitgraph.below) == ({"caller of b": (flight,)}, {})
    assert (one.flights[1], one.has(flight), len(one.flights)) == (flight, True, 2)
    assert not one.has(in_flight(one.cache, "c"))


def test_a_member_that_others_wait_for_outside_is_noted(opened, waiting):
    """So that the runner finds them; also where it waits on top of another wait."""
    one = opened()
    waiting["caller of b"] = ("wait",)
    call = joins(one, "b", "parent")
    assert (call.before, waiting["caller of b"]) == (1, ("wait", call.flight))
    assert waitgraph.below == {"parent": {call: None}}


def test_what_is_in_a_window_is_loaded_once(opened):
    """However often a call is added, and by its own item."""
    one = opened()
    call = joins(one, "b")
    added(one, call)
    assert len(one.flights) == 2
    assert one.begin() == ["A", "B"]


def test_a_window_renews_where_any_of_it_does(memo, opened):
    """Its loader calls count as refreshes then."""
    one = opened()
    added(one, leads(memo, "b"))
    assert one.renews is False
    added(one, leads(memo, "c", renew=True))
    assert one.renews is True
    added(one, leads(memo, "d"))
    assert one.renews is True


def test_a_window_is_full_with_what_its_loader_takes(opened, registry):
    """It closes then, once."""
    one = opened(max_batch=2)
    del registry.told[:]
    assert (one.is_full(), one.is_open, registry.told) == (False, True, [])
    joins(one, "b")
    assert (one.is_full(), one.is_open, registry.told) == (True, False, [("forget", one)])
    assert one.is_full() is False


def test_without_a_limit_a_window_is_never_full(opened):
    """It closes when its time is over."""
    one = opened()
    joins(one, "b")
    assert (one.is_full(), one.is_open) == (False, True)


class Spoilt:
    def __hash__(self):
        raise Refused


def test_what_may_be_in_a_window(opened):
    """Any key that is not in it, as long as it is to end."""
    one = opened()
    assert [one.is_fit(key) for key in ("a", "b", Spoilt())] == [False, True, False]
    one.life = lambda: None
    assert (one.is_dead(), one.is_fit("b")) == (True, False)
    one.work = Work()
    assert (one.is_dead(), one.is_fit("b")) == (False, True)
    one.work = Work(dead=True)
    assert (one.is_dead(), one.is_fit("b")) == (True, False)


def test_nobody_runs_an_unclaimed_window_and_it_is_not_dead(unclaimed):
    """It waits for whoever comes."""
    one = unclaimed()
    assert one.is_dead() is False
    assert (one.leader, one.thread, one.life, one.work, one.opener, one.own) == (None,) * 6


def test_a_loader_of_another_colour(opened):
    """Whoever runs a window calls it with its own loader, for all that is in it."""
    one = opened()
    joins(one, "b")

    def run(items):
        raise AssertionError

    one.call_with(Load(str.lower, run, 2.0, 1))
    assert (one.run, one.is_full()) == (run, True)
    assert (one.begin(), one.begin()) == (["A"], ["B"])


# -- who can wait -------------------------------------------------------------------------------------


def may_wait(one, call):
    with mutex:
        return one.may_wait(call)


def test_nobody_waits_for_a_window_in_which_nothing_flies(opened):
    """Its flights have ended, or have lost their keys."""
    one = opened()
    one.flights[0].state = UNSEATED
    assert may_wait(one, leads(one.cache, "b")) is False


@pytest.mark.parametrize(
    ("blocks", "awaited_by", "may"),
    [
        ("other", (), True),
        ("opener", (), False),
        (1, (), False),
        ("other", ("opener",), False),
        ("other", ("somebody",), True),
    ],
)
def test_who_may_wait_for_a_window(opened, blocks, awaited_by, may):
    """Everybody but its runner, who stands on its thread, and whom it waits for outside the library."""
    one = opened()
    call = leads(one.cache, "b", "other", *awaited_by, blocks=blocks)
    call._above = frozenset({"opener"})  # of another question: it asks anew
    assert may_wait(one, call) is may


@pytest.mark.parametrize("waits", ["opener", 1])
@pytest.mark.parametrize("mine", [True, False])
def test_who_its_runner_waits_for_may_not_wait_for_it(opened, waiting, waits, mine):
    """Whether that is the runner's task or its thread; who does not hold it up may."""
    one = opened()
    call = leads(one.cache, "b", "other" if mine else "another")
    waiting[waits] = (Held(),)
    assert may_wait(one, call) is not mine


def test_who_waits_for_somebody_that_its_runner_waits_for_outside(opened, waiting):
    """A task of the runner's waits for the other caller: that closes a cycle, too."""
    one = opened()
    child = watched("child", "opener")
    child.begin()
    waiting["child"] = (Held(),)
    with mutex:
        waitgraph.note(child, frozenset({"opener"}))
    assert may_wait(one, leads(one.cache, "b", "other")) is False
    assert may_wait(one, leads(one.cache, "c", "another")) is True


@pytest.mark.parametrize(("limit", "may"), [(None, False), (60, True)])
def test_a_cycle_in_doubt_holds_up_nobody_whose_patience_ends(make, opened, waiting, limit, may):
    """With `wait_timeout` it waits, and sees."""
    one = opened(make(wait_timeout=limit))
    job = SimpleNamespace(is_over=lambda: False, is_in_doubt=lambda: True)
    waiting["opener"] = (Held(job),)
    assert may_wait(one, leads(one.cache, "b", "other")) is may


# -- renewals, until somebody runs them ---------------------------------------------------------------


def test_renewals_wait_for_somebody_to_run_them(memo, unclaimed):
    """They have not begun, whoever they are for."""
    one = unclaimed()
    flight = added(one, renewal(memo, "a")).flight
    assert (flight.unbegun, flight.kind, one.flights, one.renews) == (True, "bulk", [flight], True)
    assert not flight.is_dead()


def test_a_thread_of_the_pool_runs_what_is_still_wanted(memo, unclaimed):
    """What has lost its key, has ended or was begun by its caller is left out, and returned."""
    one = unclaimed()
    kept, detached, unseated, begun = (added(one, renewal(memo, key)).flight for key in "abcd")
    detached.detached, unseated.state, begun.unbegun = True, UNSEATED, False
    call = watched("thread", key=None, thread=3)
    with mutex:
        assert one.claim(call) == [detached, unseated, begun]
    assert (one.flights, one.own, one.opener, one.leader, one.thread) == ([kept], None, call, "thread", 3)
    assert (kept.unbegun, kept.leader, kept.thread) == (False, "thread", 3)
    assert one.begin() == ["A"]


def test_who_needs_a_renewal_runs_it(memo, unclaimed):
    """Its flight has begun by then, and stays; a flight of the caller's that is not in it is no matter."""
    one = unclaimed()
    mine, other = (added(one, renewal(memo, key)) for key in "ab")
    mine.flight.unbegun = False
    with mutex:
        assert one.claim(mine) == []
    assert (one.own, one.flights) == (mine.flight, [mine.flight, other.flight])


def test_a_renewal_that_is_dropped_ends(memo, unclaimed):
    """As if it had never been; the value that it was to renew is renewed by whoever reads it next."""
    one = unclaimed()
    call = added(one, renewal(memo, "a"))
    one.drop([call.flight])
    assert (call.flight.state, memo.locks.live(), counted(memo)) == (LANDED, [], (0, 0, 0))


# -- its runner ---------------------------------------------------------------------------------------


def test_a_task_runs_it_from_now_on(opened):
    """All that is in it, and what comes."""
    one, work = opened(), Work()
    before = joins(one, "b").flight
    one.let_run_by(work, "task")
    after = joins(one, "c").flight
    assert (one.work, one.leader) == (work, "task")
    assert [(flight.work, flight.leader) for flight in (*one.flights[:1], before, after)] == [
        (work, "task")
    ] * 3


@pytest.mark.parametrize("before", [(), ("wait",)])
def test_the_opener_waits_for_its_task(opened, waiting, before):
    """For its own flight, on top of what it waits for already."""
    one = opened()
    call = one.opener
    call._above, call.awaited_outside = frozenset({"somebody"}), True
    waiting.update({"opener": before} if before else {})
    one.wait_as_opener(call)
    assert (call.before, waiting) == (len(before), {"opener": (*before, call.flight)})
    assert (call.decision, call._above, call.awaited_outside) == (NONE, None, False)


def test_what_is_still_wanted_when_its_time_is_over(opened, registry, clock, seconds):
    """Who has gone without a follower has its key freed; what has ended is left out."""
    one = opened()
    gone, followed, ended = (joins(one, key).flight for key in "bcd")
    gone.deserted = followed.deserted = True
    followed.followers = 1
    landing.land(one.cache, ended, "put")
    clock.advance(1.0)
    seconds.now = 1001.0
    one.send_off()
    (first,) = {*one.flights} - {followed}
    assert (one.flights, one.is_open, registry.told[-1]) == ([first, followed], False, ("forget", one))
    assert (gone.doomed, gone.detached, gone.has_ended()) == (True, True, True)
    assert (ended.doomed, ended.state, followed.doomed, followed.state) == (False, LANDED, False, FLYING)
    assert [(flight.started, flight.due) for flight in one.flights] == [(101.0, 1006.0)] * 2
    assert (gone.started, one.begin()) == (100.0, ["A", "C"])
    assert "b" not in [slot.key for slot in one.cache.locks.live()]
    assert one.cache.counts.uncached == 0
    assert counted(one.cache) == (1, 0, 0)


@pytest.mark.parametrize("step", ["claim", "send off"])
def test_a_call_that_an_interrupt_kept_out(memo, unclaimed, opened, step):
    """It was about to be in the window: whoever runs that does not mind."""
    one = unclaimed() if step == "claim" else opened()
    flight = leads(memo, "b").flight
    one.flights.append(flight)
    landing.fail(memo, flight, KeyboardInterrupt())
    if step == "claim":
        with mutex:
            assert one.claim(watched("thread", key=None, thread=3)) == [flight]
    else:
        one.send_off()
    assert flight not in one.flights


def test_a_window_that_nobody_wants_any_more(opened):
    """Its only caller has gone: there is nothing to load."""
    one = opened()
    (flight,) = one.flights
    flight.deserted = True
    one.send_off()
    assert (one.flights, flight.has_ended(), one.begin()) == ([], True, [])


def test_in_line_its_time_runs_from_its_turn(make, opened, seconds):
    """With `max_flights` it is not set out yet when the window closes."""
    one = opened(make(max_flights=1))
    seconds.now = 1001.0
    one.send_off()
    assert one.flights[0].due == 1007.0


class Unclear(Exception):
    """The function's own clock."""


def test_a_clock_that_raises_when_a_window_closes(make, opened):
    """Its flights began when they were claimed, then."""
    broken = []

    def timer():
        if broken:
            raise Unclear
        return 100.0

    one = opened(make(timer=timer))
    broken.append(True)
    one.send_off()
    assert one.flights[0].started == 100.0


def test_a_window_that_may_stop_is_shut(opened, registry):
    """Nobody wants it: none is to join. Who still waits keeps it open."""
    one = opened()
    del registry.told[:]
    with mutex:
        assert one.may_stop() is False
    assert (one.is_open, registry.told) == (True, [])
    one.flights[0].deserted = True
    with mutex:
        assert one.may_stop() is True
    assert (one.is_open, registry.told, one.flights[0].doomed) == (False, [("forget", one)], True)


@pytest.mark.parametrize("overdue", [False, True])
def test_a_loader_that_fails(opened, registry, overdue):
    """None is to join meanwhile; an error that says that it is overdue is worded."""
    one = opened()
    one.begin()
    error = FlightTimeout("late")
    assert one.fail(error, overdue) is None
    assert str(error) == ("model: 'a' took longer than 5 s: cancelled" if overdue else "late")
    assert registry.told[-1] == ("forget", one)


def test_an_abort_of_failure_ttl_takes_the_errors_place(make, opened):
    """It is told to whoever runs the loader."""
    abort = KeyboardInterrupt()

    def failure_ttl(error):
        raise abort

    one = opened(make(failure_ttl=failure_ttl))
    one.begin()
    assert one.fail(Refused("down")) is abort


def test_a_runner_that_gives_up(opened, registry):
    """Its members call anew, and nothing is left; it may do so again."""
    one = opened()
    latch, call = one.latch, joins(one, "b")
    one.give_up(Refused("before the loader was called"))
    assert (one.flights, one.opener, one.is_open) == ([], None, False)
    assert call.flight.has_ended()
    assert not one.has_outcome(call.flight)
    assert latch.wait(0.0)
    assert registry.told[-2:] == [("forget", one), ("ended", one)]
    one.give_up(Refused("again"))
    assert registry.told[-1] == ("ended", one)
    assert registry.told.count(("ended", one)) == 2
    assert registry.told.count(("forget", one)) == 1


def test_a_runner_without_room_to_give_up(opened, registry):
    """All of it ends without an outcome, and the members call anew; it may do so again."""
    one = opened()
    own, call, ended = one.own, joins(one, "b"), joins(one, "c")
    joins(one, "d")
    landing.land(one.cache, ended.flight, "put")
    for _ in range(2):
        after = After()
        with mutex:
            one.settle(KeyboardInterrupt(), after)
        after.run()
    assert (own.has_ended(), call.flight.has_ended(), ended.flight.state) == (True, True, LANDED)
    assert (one.flights, one.is_open, one.opener) == ([], False, None)
    assert registry.told[-1] == ("ended", one)
    assert call.latch.wait(0.0)
    assert [slot for slot in one.cache.locks.live() if slot.turn is not None] == []
    assert counted(one.cache) == (1, 1, 0)  # of its own caller; the members call anew


def test_what_the_loader_was_called_for_ends_with_the_runners_error(opened):
    """Where there was no room, too: who follows one of its keys is told what went wrong with that."""
    one = opened(max_batch=1)
    own, call = one.own, joins(one, "b")
    own.followers = call.flight.followers = 1
    one.begin()
    after, error = After(), Refused("down")
    own.retries = call.flight.retries = 0
    with mutex:
        one.settle(error, after)
    after.run()
    assert (own.state, own.error) == (LANDED, error)
    assert (call.flight.state, call.flight.followers) == (PASSED, 0)
