"""Which window a call comes into, step by step: one that is open, one of its own, or none."""

import pytest

from singleflight.core.call import LEAD, NONE
from singleflight.core.gathering import Gathering, group_of
from singleflight.core.window import Load
from singleflight.locks.mutex import inside, mutex
from singleflight.locks.unsettled import After

from .conftest import Work, watched
from .windows import Refused, counted, leads, renewal, told_left

pytestmark = pytest.mark.usefixtures("seconds")


class Loader:
    """One that gathers: all calls with the same words, for what they are called with."""

    def __init__(self, coroutine, max_batch):
        self.coroutine, self.max_batch = coroutine, max_batch
        self.loads = []

    def part(self, arguments):
        (item,), words = arguments
        return (self.coroutine, *words), item

    def load(self, arguments):
        assert inside()
        self.loads.append((arguments, Load(str.lower, lambda items: None, 2.0, self.max_batch)))
        return self.loads[-1][1]


HOW = ("A",), {}
"""What a call is made with."""


@pytest.fixture
def gathers(memo):
    """Makes what gathers the calls of a function, for loaders of these colours."""

    def make(*colours, max_batch=None):
        made = Gathering(memo, str)
        for colour in colours:
            made.gather(Loader(colour, max_batch))
        return made

    return make


def enters(gathering, call, group="group", load=HOW, coroutine=False, alone=False):
    return gathering.enter(call, (group, str(call.key).upper()), load, coroutine, alone)


def renews(gathering, call, coroutine=False, group="group"):
    return gathering.enter_renewal(call, (group, call.key.upper()), HOW, coroutine)


def loader(gathering, coroutine=False):
    return gathering._loaders[coroutine]


# -- what is known of the loaders ---------------------------------------------------------------------


def test_loaders_of_each_colour(gathers):
    """One of each; they say what calls have in common, whichever is asked."""
    plain, both = gathers(False), gathers(True, False)
    assert [plain.has(colour) for colour in (False, True)] == [True, False]
    assert [both.has(colour) for colour in (False, True)] == [True, True]
    assert plain.part((("A",), {"kind": "bid"})) == ((False, "kind"), "A")
    assert both.part((("B",), {})) == ((True,), "B")
    assert plain.driver(True) == "True"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((1, "a"), (1, "a"), True),
        ((1, "a"), (1, "b"), False),
        ((1,), (1.0,), False),
        ((1,), (True,), False),
        (((1,),), ((True,),), False),
        ((("a", (1,)),), (("a", (1,)),), True),
        (([1],), ([1],), False),
        ((), (), True),
    ],
)
def test_what_stands_for_what_calls_have_in_common(one, other, same):
    """Equal and of the same types; what cannot be hashed is itself alone."""
    assert (group_of(one) == group_of(other)) is same
    assert group_of(one) == group_of(one)
    hash(group_of(one))


def test_the_same_object_is_the_same(gathers):
    """Also where it cannot be hashed."""
    mine = [1]
    assert group_of((mine, 2)) == group_of((mine, 2))


# -- calls --------------------------------------------------------------------------------------------


def test_the_first_call_opens_a_window(memo, gathers):
    """It runs that, with the loader of its colour, for what it was made with; others find it."""
    one, call = gathers(False), leads(memo, "a")
    window = enters(one, call)
    assert (window.opener, window.own, window.leader, call.decision) == (call, call.flight, call.actor, LEAD)
    assert (one.open, one.run_by) == ({"group": window}, {call: window})
    ((arguments, load),) = loader(one).loads
    assert (arguments, window.run, window.group, window.is_open) == (HOW, load.run, "group", True)
    assert (window.begin(), window.full.wait(0.0)) == (["A"], False)


def test_a_call_that_knows_how_its_loader_is_called(memo, gathers):
    """A bulk call for one key does."""
    one, load = gathers(False), Load(str.lower, lambda items: {}, 2.0, None)
    assert enters(one, leads(memo, "a"), load=load).run is load.run
    assert loader(one).loads == []


def test_others_join_it(memo, gathers):
    """Whatever their colour, if they have the same in common; the one that fills it sends it off."""
    one, other = gathers(False, max_batch=3), leads(memo, "x")
    window = enters(one, leads(memo, "a"))
    members = [leads(memo, key) for key in "bc"]
    assert enters(one, members[0], coroutine=True) is window
    assert (window.is_open, window.full.wait(0.0)) == (True, False)
    assert enters(one, other, group="another") is not window
    assert set(one.open) == {"group", "another"}
    assert enters(one, members[1]) is window
    assert (window.is_open, window.full.wait(0.0), set(one.open)) == (False, True, {"another"})
    assert [call.decision for call in members] == [NONE, NONE]
    assert window.begin() == ["A", "B", "C"]


def test_a_call_that_is_alone(memo, gathers):
    """It joins nobody, and nobody joins it."""
    one = gathers(False)
    window = enters(one, leads(memo, "a"))
    alone = enters(one, leads(memo, "b"), alone=True)
    assert (alone.is_open, alone.closes_at, window.is_open) == (False, 1000.0, True)
    assert one.open == {"group": window}
    assert (alone.begin(), set(one.run_by.values())) == (["B"], {window, alone})


def test_without_a_loader_of_its_colour_a_call_is_not_gathered(memo, gathers):
    """Unless it can join others; it leads as before."""
    one, call = gathers(False), leads(memo, "a")
    assert enters(one, call, coroutine=True) is None
    assert (call.decision, one.open, one.run_by) == (LEAD, {}, {})


@pytest.mark.parametrize("colour", [False, True])
def test_who_cannot_wait_runs_alone(memo, gathers, colour):
    """Where that would close a cycle; without a loader it is not gathered."""
    one = gathers(False)
    first = leads(memo, "a", "me")
    window = enters(one, first)
    call = leads(memo, "b", "me")
    alone = enters(one, call, coroutine=colour)
    assert (one.open, call.decision) == ({"group": window}, LEAD)
    if colour:
        assert alone is None
    else:
        assert (alone.is_open, alone.opener, alone.begin()) == (False, call, ["B"])


def test_a_window_that_a_call_cannot_be_in_is_open_no_more(memo, gathers):
    """It has an older flight of its key, or nobody will end it: the call opens another one."""
    one = gathers(False)
    window = enters(one, leads(memo, "a"))
    memo.locks.slot("a").turn = None  # it was invalidated
    second = enters(one, leads(memo, "a", "another"))
    assert (window.is_open, second.is_open, one.open) == (False, True, {"group": second})
    second.work = Work(dead=True)
    third = enters(one, leads(memo, "c"))
    assert (second.is_open, one.open) == (False, {"group": third})


def test_a_call_comes_twice(memo, gathers):
    """Its flight is in a window that somebody runs: it does not join that again."""
    one, call = gathers(False), leads(memo, "a")
    window = enters(one, call)
    assert enters(one, call) is not window
    assert window.is_open is False


class Spoilt:
    """Cannot be hashed once it is spoilt."""

    spoilt = False

    def __hash__(self):
        if self.spoilt:
            raise Refused
        return 1


def test_what_calls_have_in_common_is_spoilt(memo, gathers):
    """No window is found by it, and none is open any more."""
    one, group = gathers(False), Spoilt()
    window = enters(one, leads(memo, "a"), group=group)
    group.spoilt = True
    assert enters(one, leads(memo, "b"), group=group, coroutine=True) is None
    with mutex:
        window.shut()
    assert one.open == {}


# -- renewals -----------------------------------------------------------------------------------------


def test_renewals_of_plain_functions_wait_for_a_thread(memo, gathers):
    """The first of them opens a window, and is to have it run; the last one fills it."""
    one = gathers(False, max_batch=2)
    window, opened = renews(one, renewal(memo, "a"))
    assert (opened, window.opener, window.leader, one.open) == (True, None, None, {"group": window})
    assert (loader(one).loads[0][0], window.is_open, window.full.wait(0.0)) == (HOW, True, False)
    assert renews(one, renewal(memo, "b"), coroutine=True) == (window, False)
    assert (window.is_open, window.full.wait(0.0), one.open, one.run_by) == (False, True, {}, {})


def test_renewals_of_coroutine_functions_have_a_task(memo, gathers):
    """It is claimed for that."""
    one, call = gathers(True), renewal(memo, "a")
    window, opened = renews(one, call, coroutine=True)
    assert (opened, window.opener, window.own, one.run_by) == (True, call, call.flight, {call: window})
    assert one.open == {"group": window}


def test_a_renewal_that_nobody_gathers(memo, gathers):
    """No loader of its colour, and no window that is open."""
    one = gathers(False)
    assert renews(one, renewal(memo, "a"), coroutine=True) == (None, False)
    assert one.open == {}


def test_a_call_runs_the_window_that_waits_for_a_thread(memo, gathers):
    """With its own loader, what is still wanted of it, and itself; what is not wanted ends."""
    one = gathers(True, False, max_batch=3)
    window, _ = renews(one, renewal(memo, "a"))
    dropped = renewal(memo, "b")
    renews(one, dropped)
    dropped.flight.detached = True
    call = leads(memo, "c")
    assert enters(one, call, coroutine=True) is window
    assert (window.opener, window.own, call.decision, one.run_by) == (call, call.flight, LEAD, {call: window})
    assert (window.run, window.is_open) == (loader(one, True).loads[0][1].run, True)
    assert dropped.flight.has_ended()
    assert window.begin() == ["A", "C"]


def test_a_call_without_a_loader_leaves_the_window_that_waits_for_a_thread(memo, gathers):
    """It leads as before."""
    one = gathers(False)
    window, _ = renews(one, renewal(memo, "a"))
    call = leads(memo, "b")
    assert enters(one, call, coroutine=True) is None
    assert (window.opener, call.decision, window.is_open) == (None, LEAD, True)


def test_who_needs_a_renewal_that_waits_for_a_thread(memo, gathers):
    """It leads that very flight, and runs the window that it is in."""
    one, call = gathers(False), renewal(memo, "a")
    window, _ = renews(one, call)
    call.flight.unbegun = False
    assert enters(one, call) is window
    assert (window.opener, window.own, window.begin()) == (call, call.flight, ["A"])


def test_another_flight_of_a_key_that_waits_for_a_thread(memo, gathers):
    """The older one was invalidated: they are not loaded together."""
    one = gathers(False)
    window, _ = renews(one, renewal(memo, "a"))
    memo.locks.slot("a").turn = None
    memo.store.drop("a")
    assert enters(one, leads(memo, "a")) is not window
    assert window.is_open is False


def test_a_thread_begins_with_a_window_of_renewals(memo, gathers):
    """Once; what is not wanted any more ends."""
    one, thread = gathers(False), watched("thread", key=None, thread=3)
    window, _ = renews(one, renewal(memo, "a"))
    dropped = renewal(memo, "b")
    renews(one, dropped)
    dropped.flight.detached = True
    assert one.begin(window, thread) is True
    assert (window.opener, window.leader, one.run_by) == (thread, "thread", {thread: window})
    assert dropped.flight.has_ended()
    assert one.begin(window, watched("another", key=None, thread=4)) is False
    assert (window.opener, window.begin()) == (thread, ["A"])


def test_a_window_that_has_ended_is_not_begun(memo, gathers):
    """A caller has run it meanwhile."""
    one, thread = gathers(False), watched("thread", key=None, thread=3)
    window, _ = renews(one, renewal(memo, "a"))
    window.close()
    assert one.begin(window, thread) is False
    assert (window.opener, one.run_by) == (None, {})


# -- who goes -----------------------------------------------------------------------------------------


GONE = Refused("gone")


def goes(one, call, window, room):
    """It ends with an exception, for which there is room or not."""
    if room:
        one.leave(call, window, GONE)
        return
    after = After()
    with mutex:
        one.settle(call, window, GONE, after)
    after.run()


ROOM = pytest.mark.parametrize("room", [True, False])


@ROOM
@pytest.mark.parametrize("known", [True, False])
def test_whoever_runs_a_window_goes(memo, gathers, room, known):
    """All of it is given up, also where its driver does not know the window yet."""
    one, call = gathers(False), leads(memo, "a")
    window = enters(one, call)
    member = leads(memo, "b")
    enters(one, member)
    for _ in range(2):
        goes(one, call, window if known else None, room)
    assert (window.flights, one.open, one.run_by) == ([], {}, {})
    assert (call.flight.has_ended(), member.flight.has_ended()) == (True, True)
    assert counted(memo) == (0, 1, 0)


@ROOM
def test_a_member_goes(memo, gathers, waiting, seen, room):
    """Its wait is over, and the window goes on."""
    one = gathers(False)
    window = enters(one, leads(memo, "a"))
    member = leads(memo, "b")
    enters(one, member)
    goes(one, member, window, room)
    assert (member.flight.deserted, waiting, member.before) == (True, {}, None)
    assert (window.is_open, len(window.flights), counted(memo)) == (True, 2, (0, 1, 0))
    assert [left[:2] for left in told_left(seen)] == ([("b", GONE)] if room else [])


@ROOM
def test_the_last_one_stops_the_task(memo, gathers, room):
    """Nobody wants the window any more."""
    one, call, work = gathers(True), leads(memo, "a"), Work()
    window = enters(one, call, coroutine=True)
    window.let_run_by(work, "task")
    window.wait_as_opener(call)
    goes(one, call, window, room)
    assert (work.stopped, call.flight.doomed) == (1, True)


@ROOM
def test_the_caller_of_a_task_that_runs_a_window_goes(memo, gathers, waiting, room):
    """The window goes on, and its flight as long as somebody follows."""
    one, call = gathers(True), leads(memo, "a")
    window = enters(one, call, coroutine=True)
    enters(one, leads(memo, "b"))
    window.let_run_by(Work(may=False), "task")
    window.wait_as_opener(call)
    goes(one, call, window, room)
    assert (call.flight.deserted, call.flight.has_ended(), window.is_open) == (True, False, True)
    assert (call.actor in waiting, one.run_by) == (False, {call: window})


@ROOM
def test_a_call_that_leads_alone_is_not_left_here(memo, gathers, room):
    """It is in no window: what it leads is its driver's to give up. Nor where its task runs the window."""
    one, call = gathers(True), leads(memo, "a")
    goes(one, call, None, room)
    assert (call.decision, call.flight.has_ended(), counted(memo)) == (LEAD, False, (0, 0, 0))
    window = enters(one, call, coroutine=True)
    window.let_run_by(Work(), "task")
    goes(one, call, window, room)
    assert (call.flight.has_ended(), call.flight.deserted, window.is_open) == (False, False, True)


@ROOM
def test_a_wait_outside_of_windows_is_over_too(memo, gathers, waiting, room):
    """Whatever the call waits for."""
    one, call = gathers(False), watched("caller")
    call.begin()
    call.before, waiting["caller"] = 0, ("wait",)
    goes(one, call, None, room)
    assert (waiting, call.before) == ({}, None)


def test_a_window_is_shut_while_another_one_is_open(memo, gathers):
    """That stays."""
    one = gathers(False)
    first = enters(one, leads(memo, "a"))
    one.open = {}
    second = enters(one, leads(memo, "b"))
    with mutex:
        first.shut()
    assert one.open == {"group": second}
    first.close()
    assert (one.open, list(one.run_by.values())) == ({"group": second}, [second])


def test_a_forked_child_has_no_windows(memo, gathers):
    """Who runs them is elsewhere, or returns there: then they end as they are."""
    one = gathers(False)
    window = enters(one, leads(memo, "a"))
    one.after_fork()
    assert (one.open, one.run_by) == ({}, {})
    window.close()
    assert window.opener is None
