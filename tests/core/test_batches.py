"""The loader calls of one bulk call, step by step: what begins, lands, fails, and is left to others."""

from collections import defaultdict
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from singleflight.common.errors import FlightTimeout
from singleflight.core import batch as batches
from singleflight.core import coordinator
from singleflight.core.batch import Batch, Item, Uncalled, uncalled
from singleflight.core.call import JOIN, LEAD, NONE, background
from singleflight.core.current import Unchanged
from singleflight.core.flight import FLYING, LANDED, PASSED
from singleflight.core.landing import Verdict, land
from singleflight.core.renewal import begin_renewal
from singleflight.core.transitions import new_flight
from singleflight.locks.mutex import mutex
from singleflight.locks.slots import Hold
from singleflight.locks.unsettled import After
from singleflight.locks.waiters import Waiter, new_waiter
from singleflight.storage.record import AgeingRecord

from .conftest import Work, caller, watched


class Struck(BaseException):
    pass


class Frail:
    """A key that raises when hashed, once it is spoilt."""

    def __init__(self, name, error=LookupError):
        self.name, self.spoilt, self.error = name, False, error

    def __hash__(self):
        if self.spoilt:
            raise self.error(self.name)
        return hash(self.name)

    def upper(self):
        return self


def leads(memo, key, **fields):
    """A call of the one bulk caller that leads the flight of its key."""
    call = watched("leader", key=key, thread=1, **fields)
    assert coordinator.board(memo, call) is LEAD
    return call


def renews(memo, key):
    """A renewal of a stale value, which waits for somebody to run it."""
    memo.store.put(AgeingRecord(key, "old", 85.0, 10.0, grace=60.0, refresh_at=95.0))
    call = caller(key)
    coordinator.board(memo, call)
    assert call.renewal is not None
    return call.renewal


def loading(memo, led, max_batch=None):
    """Their batch; items are keys in capitals."""
    asked = SimpleNamespace(
        spelt={id(call.key): call.key.upper() for call in led}, max_batch=max_batch, key_of=str.lower
    )
    one = Batch(memo, led, asked, {})
    if not one.renews:  # those are marked when they begin
        one.mark()
    return one


@pytest.fixture
def batch(memo):
    """Makes batches of these keys."""

    def make(keys, max_batch=None, memo=memo):
        return loading(memo, [leads(memo, key) for key in keys], max_batch)

    return make


def followed(memo, key, count=1):
    """Callers that have joined the flight of a key."""
    calls = [caller(key, f"follower {number} of {key}", 5 + number) for number in range(count)]
    assert {coordinator.board(memo, call) for call in calls} == {JOIN}
    return calls


def states(one):
    return [call.flight.state for call in one.led]


def told(seen, kind, *names):
    return [(event.key, *(getattr(event, name) for name in names)) for event in seen.of(kind)]


# -- the loader is called -----------------------------------------------------------------------------


def test_the_loader_is_called_for_so_many_at_once(memo, batch):
    """In the order of the call, until all is loaded; each call is one execution."""
    one = batch("abc", max_batch=2)
    assert one.begin() == ["A", "B"]
    assert (memo.counts.calls, memo.counts.refreshes, memo.batches) == (1, 0, {one})
    one.land({"A": 1, "B": 2})
    assert one.begin() == ["C"]
    assert memo.counts.calls == 2
    one.land({"C": 3})
    assert one.begin() == []
    assert memo.counts.calls == 2
    one.close()
    assert (memo.batches, one.flights) == (set(), [])


def test_those_that_are_chosen_are_loaded_next(batch):
    """The others stay for later."""
    one = batch("abc", max_batch=2)
    a, b, c = one.flights
    assert one.next_of([a, b, c]) == [a, b]
    assert one.next_of(iter([c])) == [c]
    assert one.begin([c]) == ["C"]
    assert one.waiting_for() == {a: "a", b: "b"}
    one.leave(a)
    one.leave(a)  # again, it changes nothing
    assert one.begin() == ["B"]
    assert one.waiting_for() == {}


def test_who_asks_is_given_a_list_of_its_own(batch):
    """What waits is not changed by it."""
    one = batch("a")
    one.waiting_for().clear()
    assert one.begin() == ["A"]


def test_it_says_what_the_loader_runs_for(memo, batch):
    """Nothing before it is called; then each flight with its item, as the caller spelt it."""
    one = batch("abc", max_batch=2)
    a, b, _ = one.flights
    assert one.called() == []
    one.begin()
    assert one.called() == [("A", a), ("B", b)]


def test_what_is_brought_early_is_not_asked_for_again(memo, batch):
    """Unless only some are to be landed now: the others are loaded in their turn."""
    one = batch("abcd", max_batch=1)
    _, b, c, _ = one.flights
    one.begin()
    items = one.sort({"A": 1, "B": 2, "C": 3}, among=[c])
    assert [(item.key, item.present, item.value) for item in items] == [("a", True, 1), ("c", True, 3)]
    one.land_each(items)
    assert (states(one), items) == ([LANDED, FLYING, LANDED, FLYING], [])
    assert memo.store.lookup("b") is None  # somebody is at it
    assert one.begin([b]) == ["B"]
    one.land({"B": 2, "D": 4})
    assert (states(one), one.begin()) == ([LANDED] * 4, [])


def test_what_the_loader_has_brought_is_sorted_by_flight(memo, batch):
    """A value, nothing, the value that is there already, or what one use spends: each with its key."""
    memo.store.put(AgeingRecord("d", "old", 85.0, 10.0, grace=60.0))
    led = [leads(memo, key, renew=True) for key in "abcd"]
    one = loading(memo, led)
    a, b, c, d = one.flights
    one.begin()
    items = one.sort({"C": iter_once(), "A": 1, "D": Unchanged})
    error = items[2].error
    assert type(error) is TypeError
    assert items == [
        Item(a, "a", True, 1),
        Item(b, "b", False),
        Item(c, "c", True, error=error),
        Item(d, "d", True, "old"),
    ]


@pytest.mark.parametrize("late", [False, True])
def test_what_the_loader_returns_is_a_mapping(batch, late):
    """The error names the function and what came instead."""
    one = batch("ab", max_batch=1)
    one.begin()
    if late:
        one.land({"A": 1})
        one.begin()
    with pytest.raises(TypeError) as caught:
        one.land([1])
    assert str(caught.value) == "model: a bulk loader returns a mapping of items to values, not 'list'"


def test_a_key_that_is_spoilt_is_not_brought(memo):
    """It is asked for in its turn, whatever the loader has brought, and is missing then."""
    spoilt = Frail("b")
    led = [leads(memo, key) for key in ("a", spoilt)]
    one = loading(memo, led, max_batch=1)
    one._call.key_of = lambda item: item if item is spoilt else item.lower()
    one.begin()
    spoilt.spoilt = True
    one.land({"A": 1})
    assert one.begin() == [spoilt]
    one.land({"B": 2})
    assert (states(one), list(one.values.values())) == ([LANDED, LANDED], [1])


def test_what_no_key_is_made_of_fails_the_call(memo, batch):
    """The loader is to spell its items so that `key` takes them: what that raises is raised."""
    one = batch("a")
    one.begin()
    with pytest.raises(TypeError, match="lower"):
        one.land({"A": 1, 5: 2})
    assert states(one) == [FLYING]


def test_a_spoilt_key_fails_itself_alone(memo):
    """No key can be made of it: the others land."""
    spoilt = Frail("b")
    one = loading(memo, [leads(memo, key) for key in ("a", spoilt)])

    def key_of(item):
        hash(item)
        return item if item is spoilt else item.lower()

    one._call.key_of = key_of
    one.begin()
    loaded = {"A": 1, spoilt: 2, "X": 3}
    spoilt.spoilt = True
    one.land(loaded)
    assert (states(one), list(one.values.values())) == ([LANDED, LANDED], [1])
    assert memo.store.lookup("x").value == 3


@pytest.mark.parametrize("before", ["it is sorted", "its key is made"])
def test_where_the_stack_ends_no_key_is_spoilt(memo, before):
    """There no key can be hashed: the call fails, and no value of it is lost without a word."""
    frail = Frail("b", RecursionError)
    one = loading(memo, [leads(memo, key) for key in ("a", frail)])

    def key_of(item):
        frail.spoilt = frail.spoilt or before == "its key is made"
        hash(item)
        return item if item is frail else item.lower()

    one._call.key_of = key_of
    one.begin()
    loaded = {frail: 2, "A": 1}
    by_key = one._by_key

    def spoil(values):
        try:
            return by_key(values)
        finally:
            frail.spoilt = True

    with patch.object(Batch, "_by_key", lambda one, values: spoil(values)):
        with patch.object(batches, "check_room", check_no_room), pytest.raises(RecursionError):
            one.land(loaded)
    assert states(one) == [FLYING, FLYING]


def check_no_room(error):
    if isinstance(error, RecursionError):
        raise error


def test_what_was_asked_for_is_brought_though_its_item_has_another_key_by_now(memo, batch):
    """As where the key has the minute in it; what has the other key is stored with that, too."""
    one = batch("ab")
    assert one.begin() == ["A", "B"]
    one._call.key_of = lambda item: f"{item.lower()} later"
    one.land({"A": 1, "X": 3})
    assert (states(one), list(one.values.values())) == ([LANDED, LANDED], [1])
    found = [memo.store.lookup(key).value for key in ("a", "a later", "x later")]
    assert (found, memo.store.lookup("b")) == ([1, 1, 3], None)


def test_what_is_not_brought_is_not_made(batch):
    """By a mapping that makes what it does not have."""
    one = batch("ab")
    one.begin()
    loaded = defaultdict(int, A=1)
    one.land(loaded)
    assert (list(one.values.values()), dict(loaded)) == ([1], {"A": 1})


@pytest.mark.parametrize("error", [LookupError, RecursionError])
def test_an_item_that_raises_is_not_brought(memo, error):
    """Where it raises for want of stack the call fails: then no item could be found."""
    frail = Frail("b", error)
    one = loading(memo, [leads(memo, "b")])
    one._call.spelt = dict.fromkeys(one._call.spelt, frail)
    one.begin()
    frail.spoilt = True
    with patch.object(batches, "check_room", check_no_room):
        with nullcontext() if error is LookupError else pytest.raises(RecursionError):
            one.land({"A": 1})
    assert (states(one), one.values) == ([LANDED if error is LookupError else FLYING], {})


def test_of_what_came_unasked_the_rest_is_stored(memo, batch):
    """A key that has been spoilt since is in nobody's way."""
    one = batch("a")
    spoilt = Frail("x")
    one._call.key_of = lambda item: item if item is spoilt else item.lower()
    one.begin()
    items = one.sort({"A": 1, spoilt: 2, "Y": 3})
    spoilt.spoilt = True
    one.land_each(items)
    assert memo.store.lookup("y").value == 3
    assert [slot.key for slot in memo.locks.live()] == []


def test_what_came_unasked_may_say_that_nothing_has_changed(memo, batch):
    """Or what one use spends, which is told with its key."""
    memo.store.put(AgeingRecord("x", "old", 95.0, 10.0))
    one = batch("a")
    one.begin()
    follower = []

    def note(event):
        if event.kind == "land":
            follower.append((event.key, event.value, str(event.error or "")[:46]))

    memo.tell.add(note, False)
    one.land({"A": 1, "X": Unchanged, "Y": iter_once()})
    assert follower == [
        ("a", 1, ""),
        ("x", "old", ""),
        ("y", None, "model: its loader's value for 'y' is a generato"[:46]),
    ]


def iter_once():
    yield 1


def test_what_one_use_spends_fails_its_key_alone(memo, batch):
    """The error names the function and the key."""
    one = batch("abc")
    one.begin()
    with pytest.raises(TypeError, match=r"^model: its loader's value for 'a' is a generator"):
        one.land({"A": iter_once(), "C": 3})
    assert states(one) == [LANDED] * 3
    assert [memo.store.lookup(key) for key in "ab"] == [None, None]
    assert memo.store.lookup("c").value == 3


class Class:
    """Of no type that was seen before."""


@pytest.mark.parametrize("value", [1, None, [], Class()])
def test_what_can_be_shared_is_not_named(memo, batch, value):
    """Its key is not shown: that runs its `__repr__`."""
    one = batch("a")
    one.begin()
    with patch.object(batches, "shown", None):
        one.land({"A": value})
    assert list(one.values.values()) == [value]


def test_observers_are_entered_for_all_that_the_loader_is_called_for(make, clock):
    """They are told what it runs for, and by which clock."""
    memo, entered = make(), []

    class Observer:
        wants = ()

        def __call__(self, event):
            raise AssertionError

        def executing(self, execution):
            entered.append((execution.name, execution.keys, execution.kind, execution.timer))
            return nullcontext()

    one = loading(memo, [leads(memo, key) for key in "abc"], 2)
    memo.tell.add(Observer(), False)
    one.begin()
    with one.running():
        pass
    assert entered == [("model", ("a", "b"), "bulk", memo.timer)]


def test_all_that_is_loaded_together_is_one_execution(memo, batch, seen):
    """Its events have one number: that of the first flight."""
    one = batch("abc", max_batch=2)
    a, _, c = one.flights
    one.begin()
    one.land({})
    one.begin()
    assert told(seen, "fetch", "execution_id", "flight") == [
        ("a", a.ident, "bulk"),
        ("b", a.ident, "bulk"),
        ("c", c.ident, "bulk"),
    ]


def test_flights_that_are_loaded_together_are_due_together(make, clock, seconds):
    """The first ones from when the last was claimed, later ones from when they are loaded."""
    memo = make(flight_timeout=5)
    led = []
    for key in "abcd":
        led.append(leads(memo, key))
        seconds.now += 1
    one = loading(memo, led, 2)
    a, b, c, d = one.flights
    assert [flight.due for flight in one.flights] == [1008.0] * 4
    assert {flight.number for flight in one.flights} == {a.ident}
    assert [flight.missing for flight in one.flights] == [False] * 4
    one.begin()
    assert [flight.due for flight in one.flights] == [1008.0] * 4
    d.due, seconds.now = 0.0, 1010.0
    d.see_to()
    clock.advance(3)
    one.begin()
    assert [flight.due for flight in (a, b, c, d)] == [1008.0, 1008.0, 1015.0, 0.0]
    assert [flight.started for flight in (a, b, c, d)] == [100.0, 100.0, 103.0, 100.0]


def test_without_a_limit_none_is_due(make):
    """Also those that are loaded later."""
    memo = make(flight_timeout=None)
    one = loading(memo, [leads(memo, key) for key in "ab"], 1)
    one.begin()
    one.begin()
    assert [flight.due for flight in one.flights] == [None, None]


@pytest.mark.parametrize(
    ("arrival", "background", "answered"),
    [
        ((True, 0.0, 100.0, None), False, True),
        ((False, 0.0, 100.0, None), False, True),
        ((True, 0.0, 100.0, None), True, True),
        ((False, 0.0, 100.0, None), True, False),
    ],
)
def test_what_is_known_of_a_value_is_not_asked_again(make, arrival, background, answered):
    """A renewal of which nothing may be stored leaves the value that is served."""

    def refuse(value):
        raise AssertionError

    memo = make(cache_if=refuse)
    one = loading(memo, [leads(memo, "a")])
    (flight,) = one.flights
    flight.background = background
    one.found([Item(flight, "a", True, 7, arrival=arrival)])
    assert list(one.values.values()) == [7] * answered
    assert flight.state is LANDED


def test_what_is_known_of_a_failure_is_not_asked_again(make):
    """It is stored for as long as that says."""

    def refuse(error):
        raise AssertionError

    memo = make(failure_ttl=refuse)
    one = loading(memo, [leads(memo, "a")])
    error = ValueError("a")
    with pytest.raises(ValueError, match="a"):
        one.found([Item(one.flights[0], "a", True, error=error, verdict=Verdict(error, 7.0))])
    assert memo.store.lookup("a").ttl == 7.0


def test_what_a_key_keeps_from_being_stored_is_logged(memo, caplog):
    """Once its flight has ended, with the key and what it raised."""
    spoilt = Frail("b", ValueError)
    one = loading(memo, [leads(memo, key) for key in ("a", spoilt)])
    flight = one.led[1].flight
    one.begin()
    spoilt.spoilt = True
    one.found([Item(flight, spoilt, True, 7)])
    (record,) = caplog.records
    assert record.getMessage().startswith("model: what ")
    assert "could not be stored: ValueError('b')" in record.getMessage()
    assert flight.state is LANDED


def test_counts_add_up(make):
    """Over all loader calls of all batches."""
    memo = make(grace=60)
    for round_ in (1, 2):
        one = loading(memo, [renews(memo, key) for key in "ab"], 1)
        one.renew_in(7)
        one.begin()
        one.land({"A": 1})
        one.begin()
        one.fail(ValueError())
        counts = memo.counts
        assert (counts.calls, counts.refreshes, counts.failures) == (2 * round_, 2 * round_, round_)
        memo.store.clear()


def test_a_loader_that_took_too_long_is_named_with_its_keys(memo, batch):
    """Those that it was called for."""
    one = batch("abc", max_batch=2)
    assert one.name == "model"
    one.begin()
    error = FlightTimeout()
    one.fail(error, overdue=True)
    assert str(error) == "model: 'a', 'b' took longer than 5 s: cancelled"


def test_whoever_runs_it_may_be_spared_what_its_values_end_with(memo):
    """And see what is about to end, in the section in which it does."""
    seen = []

    class Sparing(Batch):
        def _note(self, endings, after):
            seen.append((len(endings), type(after)))

        def _raises(self, struck):
            seen.append(struck)
            return False

    led = [leads(memo, key) for key in "ab"]
    one = Sparing(memo, led, SimpleNamespace(spelt={}, max_batch=None, key_of=str.lower), {})
    one.mark()
    error = ValueError("a")
    a, b = one.flights
    one.found([Item(a, "a", True, error=error), Item(b, "b", True, 2)])
    assert seen == [(2, After), error]


def test_what_came_unasked_lands_on_a_flight_of_its_own(make, batch, waiting):
    """As old as the loader's call and of its caller, who is not counted for it; others may join it."""
    names = ("state", "cache", "key", "retries", "leader", "thread", "number", "kind", "missing", "due")
    names += ("previous", "started", "wants_events")
    seen, followers = [], []

    def cache_if(value):
        if value == 2:
            flight = memo.locks.slot("x").turn
            seen.append([getattr(flight, name) for name in names])
            call = caller("x", "follower", 5, renew=True)
            assert coordinator.board(memo, call) is JOIN
            followers.append(call)
        return True

    memo = make(cache_if=cache_if)
    before = AgeingRecord("x", "old", 95.0, 10.0)
    memo.store.put(before)
    one = batch("a", memo=memo)
    number = one.flights[0].number
    one.begin()
    one.land({"A": 1, "X": 2})
    assert seen == [[FLYING, memo, "x", 3, "leader", 1, number, "bulk", False, None, before, 100.0, True]]
    flight = followers[0].flight
    assert (flight.state, flight.value, memo.store.lookup("x").value) == (LANDED, 2, 2)
    counts = memo.counts
    assert (counts.calls, counts.fetches, counts.waits, counts.errors) == (1, 1, 1, 0)


def test_what_is_raised_for_what_came_unasked_is_shared_with_those_who_joined(make, batch):
    """And with nobody else."""
    followers = []

    def cache_if(value):
        if value == 2:
            followers.extend(followed(memo, "x"))
            raise LookupError
        return True

    memo = make(cache_if=cache_if, follower_retries=0)
    one = batch("a", memo=memo)
    one.begin()
    one.land({"A": 1, "X": 2, "Y": 3})
    assert type(followers[0].flight.error) is LookupError
    assert (memo.store.lookup("x"), memo.store.lookup("y").value) == (None, 3)
    assert memo.locks.live() == []
    assert one.called() == []


@pytest.mark.parametrize("name", ["new_flight", "claim", "occupy"])
def test_an_interrupt_while_what_came_unasked_is_claimed_leaves_its_key_free(memo, batch, name):
    """Wherever it strikes."""
    one = batch("a")
    one.begin()

    def strike(*_):
        raise Struck

    with patch.object(batches, name, strike), pytest.raises(Struck) as caught:
        one.land({"A": 1, "X": 2})
    one.fail(caught.value)
    one.close()
    assert memo.locks.live() == []
    assert memo.locks.slot("x") is None


@pytest.mark.parametrize("how", ["spoiled", "sealed", "lost", "busy"])
def test_what_came_unasked_and_is_not_to_be_touched_is_dropped(memo, batch, how):
    """Its key was touched since, or is somebody's, or this is a forked child."""
    one = batch("a")
    one.begin()
    if how == "spoiled":
        one.spoiled.add("x")
    elif how == "sealed":
        one.sealed = True
    elif how == "busy":
        leads(memo, "x")
    else:
        one.flights[0].lost = True
    one.land({"A": 1, "X": 2})
    assert memo.store.lookup("x") is None
    assert (memo.locks.slot("x") is not None) is (how == "busy")


def test_what_came_unasked_takes_a_key_that_nobody_is_at(memo, batch):
    """Though a flight is there that all have left: it is nobody's."""
    one = batch("a")
    one.begin()
    with mutex:
        slot = memo.locks.enter("x")
        slot.turn = new_flight(memo, slot, 0)
    one.land({"A": 1, "X": 2})
    assert memo.store.lookup("x").value == 2


def test_what_came_unasked_is_of_the_last_loader_call(memo, batch):
    """What was touched before that is not in its way."""
    one = batch("ab", max_batch=1)
    one.begin()
    one.spoiled.add("x")
    one.land({"A": 1})
    one.begin()
    one.land({"B": 2, "X": 3})
    assert memo.store.lookup("x").value == 3


def test_what_came_unasked_is_nothing_that_the_loader_runs_for(make, batch):
    """Not even while it lands."""
    runs_for = {}
    memo = make(cache_if=lambda value: runs_for.update({value: [item for item, _ in one.called()]}) is None)
    one = batch("a", memo=memo)
    one.begin()
    one.land({"A": 1, "X": 2})
    assert runs_for == {1: ["A"], 2: ["A"]}


# -- what was found elsewhere -------------------------------------------------------------------------


def test_what_is_found_elsewhere_is_not_loaded(memo, batch):
    """It lands, and the loader is called for the rest."""
    one = batch("abc")
    a, _, _ = one.flights
    one.found([Item(a, "a", True, 1)])
    assert (states(one), list(one.values.values())) == ([LANDED, FLYING, FLYING], [1])
    assert memo.store.lookup("a").value == 1
    assert one.begin() == ["B", "C"]
    assert memo.counts.calls == 1


def test_what_is_found_counts_as_called_for_until_it_has_landed(make, batch):
    """That is what `cache_if` sees, in whatever order they come."""
    runs_for = []
    memo = make(cache_if=lambda value: runs_for.append([item for item, _ in one.called()]) is None)
    one = batch("ab", memo=memo, max_batch=1)
    a, b = one.flights
    one.found([Item(b, one.led[1].key, True, 2)])
    one.begin()
    one.found([Item(a, one.led[0].key, True, 1)])
    assert (runs_for, one.called()) == ([["B"], ["A"]], [])


@pytest.mark.parametrize(("kind", "failures"), [("shared", 0), ("bulk", 1)])
def test_a_failure_that_was_found_is_counted_where_the_loader_was_run(memo, batch, kind, failures):
    """Not where another process has run it. That it is told again changes nothing."""
    one, error = batch("ab"), ValueError("x")
    for flight in one.flights:
        flight.kind = kind
    with pytest.raises(ValueError, match="x"):
        one.found([Item(flight, flight.key, True, error=error) for flight in one.flights])
    assert one.fail(error) is None
    assert (memo.counts.failures, memo.counts.errors) == (failures, 2)
    assert one.fail(error) is None
    assert (memo.counts.failures, memo.counts.errors) == (failures, 2)


def test_what_is_found_while_the_loader_runs_for_others_leaves_these_alone(memo, batch):
    """They are still what the loader runs for."""
    one = batch("abc", max_batch=1)
    _, b, _ = one.flights
    one.begin()
    one.found([Item(b, "b", True, 2)])
    assert [item for item, _ in one.called()] == ["A"]
    one.land({"A": 1})
    assert one.begin() == ["C"]
    assert states(one) == [LANDED, LANDED, FLYING]


def test_what_the_loader_brought_for_those_it_ran_for_may_be_found(memo, batch):
    """A tier has told others of it meanwhile. Nothing that came unasked is stored then."""
    one = batch("a")
    one.begin()
    items = one.sort({"A": 1, "X": 2})
    one.found(items)
    assert (states(one), list(one.values.values()), items) == ([LANDED], [1], [])
    assert memo.store.lookup("x") is None


def test_a_failure_that_is_found_is_raised(memo, batch):
    """The first one, when all have landed; each flight has its own."""
    one = batch("abc")
    a, b, c = one.flights
    first, second = ValueError("a"), ValueError("b")
    followers = [followed(memo, key)[0] for key in "abc"]
    for flight in one.flights:
        flight.retries = 0
    items = [Item(a, "a", True, error=first), Item(b, "b", True, error=second), Item(c, "c", True, 3)]
    with pytest.raises(ValueError, match="a") as caught:
        one.found(items)
    assert caught.value is first
    assert [call.flight.error for call in followers] == [first, second, None]
    assert states(one) == [LANDED] * 3


# -- the loader fails ---------------------------------------------------------------------------------


def test_a_failing_loader_ends_those_it_was_called_for(memo, batch, seen):
    """Their followers share the error; the others' fly anew, for nothing was run for them."""
    one = batch("abc", max_batch=2)
    for key in "abc":
        followed(memo, key)
    for flight in one.flights:
        flight.retries = 0
    one.begin()
    error = ValueError("x")
    assert one.fail(error) is None
    assert [call.flight.error for call in one.led][:2] == [error, error]
    assert states(one) == [LANDED, LANDED, PASSED]
    assert told(seen, "land", "error") == [("a", error), ("b", error)]
    ((key, struck),) = told(seen, "abort", "error")
    assert (key, type(struck), str(struck)) == ("c", Uncalled, "the loader was not called")
    assert (memo.counts.calls, memo.counts.failures, memo.counts.errors) == (1, 1, 5)
    assert one.begin() == []


def test_a_call_that_fails_before_its_loader_is_called_is_no_failure(memo, batch):
    """All its flights end without an outcome to share."""
    one = batch("ab")
    followed(memo, "a")
    assert one.fail(ValueError("x")) is None
    assert states(one) == [PASSED, LANDED]
    assert (memo.counts.calls, memo.counts.failures) == (0, 0)


def test_an_interrupt_is_an_abort_of_all(memo, batch, seen):
    """And no failure."""
    one, error = batch("ab", max_batch=1), Struck()
    one.begin()
    assert one.fail(error) is None
    assert told(seen, "abort", "error") == [("a", error), ("b", error)]
    assert (memo.counts.calls, memo.counts.failures) == (1, 0)
    assert uncalled(error) is error


def test_what_a_tier_has_found_about_a_failure_is_what_is_stored(make, batch):
    """For the keys that it knows of; the others' is not stored, and `failure_ttl` is not asked again."""
    asked = []
    memo = make(failure_ttl=lambda error: asked.append(error) or 60)
    one = batch("abc", memo=memo)
    a, b, _ = one.flights
    one.begin()
    error = ValueError("x")
    one.judged(error, {a: Verdict(error, 7.0), b: Verdict(error, 0.0)})
    assert one.fail(error) is None
    stored = [memo.store.lookup(key) for key in "abc"]
    assert [record and record.ttl for record in stored] == [7.0, None, None]
    assert asked == []


def test_what_a_tier_found_about_another_error_does_not_count(make, batch):
    """Nor does it the next time."""
    asked = []
    memo = make(failure_ttl=lambda error: asked.append(error) or 60)
    one = batch("ab", memo=memo)
    one.begin()
    error, other = ValueError("x"), ValueError("y")
    one.judged(other, {flight: Verdict(other, 7.0) for flight in one.flights})
    assert one.fail(error) is None
    assert [memo.store.lookup(key).ttl for key in "ab"] == [60, 60]
    assert asked == [error]


def test_what_a_tier_found_where_the_loader_was_not_called_does_not_count(make, batch, seen):
    """It got no place in line: that says nothing about the keys."""
    one, error = batch("ab", memo=make(failure_ttl=5)), FlightTimeout("in line")
    one.judged(error, {flight: Verdict(error, 0.0) for flight in one.flights})
    assert one.fail(error) is None
    assert [type(ended) for _, ended in told(seen, "abort", "error")] == [Uncalled, Uncalled]


def test_an_abort_that_a_tier_has_met_takes_the_place_of_the_error(make, batch, seen):
    """As one of `failure_ttl` does; it is returned, to be raised."""
    one = batch("ab", memo=make(failure_ttl=5))
    a, _ = one.flights
    one.begin()
    error, struck = ValueError("x"), Struck()
    one.judged(error, {a: Verdict(struck, 0.0)})
    assert one.fail(error) is struck
    assert told(seen, "abort", "error") == [("a", struck), ("b", struck)]


# -- what could not be ended --------------------------------------------------------------------------


def settled(one, error):
    after = After()
    with mutex:
        one.settle(error, after)
    after.run()


def test_what_could_not_fail_is_settled(memo, batch, seen):
    """Those that the loader ran for end with the error, the rest with none to share; nothing is told."""
    one = batch("abc", max_batch=2)
    for key in "abc":
        followed(memo, key)
    for flight in one.flights:
        flight.retries = 0
    one.begin()
    before, error = len(seen.kinds()), ValueError("x")
    for _ in range(2):
        settled(one, error)
        assert states(one) == [LANDED, LANDED, PASSED]
        assert [call.flight.error for call in one.led][:2] == [error, error]
        assert (memo.batches, one.flights) == (set(), [])
    assert len(seen.kinds()) == before
    assert memo.counts.errors == 5


def test_what_had_not_begun_is_settled_without_an_outcome(memo, batch):
    """Its followers fly anew, whatever struck."""
    one = batch("ab")
    for key in "ab":
        followed(memo, key)
    settled(one, ValueError("x"))
    assert states(one) == [PASSED, PASSED]


@pytest.mark.parametrize("end", [lambda one: settled(one, ValueError()), lambda one: one.close()])
def test_a_key_that_was_about_to_be_claimed_is_free(memo, batch, end):
    """An interrupt has struck in the midst of storing what came unasked: whoever queued there is let in."""
    one = batch("a")
    one.begin()
    with mutex:
        one._extra = "x"
        slot = memo.locks.enter("x")
        slot.turn = new_flight(memo, slot, 0)
    hold = Hold(("x",), new_waiter(Waiter, 8, 8, 8))
    memo.locks._queue_for(hold, None)
    end(one)
    assert (slot.turn, hold.missing) == (hold, 0)


# -- run by somebody else than its caller -------------------------------------------------------------


def test_the_caller_of_a_task_waits_for_all_that_it_leads(batch, waiting):
    """And for what it waited for already, on the same thread or task."""
    one, work, before = batch("ab"), Work(), object()
    waiting["leader"] = (before,)
    one.hand_over(work, "task")
    a, b = one.flights
    assert waiting["leader"] == (before, a, b)
    assert [(flight.leader, flight.work) for flight in (a, b)] == [("task", work)] * 2
    assert [call.decision for call in one.led] == [NONE, NONE]
    one.end()
    assert waiting == {"leader": (before,)}
    assert one.led == []


def test_a_caller_that_goes_leaves_its_flights(memo, batch, seen):
    """It is counted and told for each key; the work goes on as long as anybody wants any of them."""
    one = batch("ab")
    one.hand_over(Work(may=False), "task")
    a, b = one.flights
    (follower,) = followed(memo, "b")
    error = Struck()
    one.desert(error)
    assert [(flight.deserted, flight.doomed) for flight in (a, b)] == [(True, False)] * 2
    assert told(seen, "left", "error", "counted", "flight_id", "leads") == [
        ("a", error, "errors", a.ident, True),
        ("b", error, "errors", b.ident, True),
    ]
    one.desert(error)  # it has gone
    assert (memo.counts.errors, len(seen.of("left"))) == (2, 2)
    assert follower.decision is JOIN


def test_a_caller_that_could_not_go_is_settled(memo, batch, seen):
    """The same, without a word."""
    one, work = batch("ab"), Work()
    one.hand_over(work, "task")
    after = After()
    with mutex:
        one.settle_desertion(one.flights, after)
        one.settle_desertion(one.flights, after)
    after.run()
    assert [(flight.deserted, flight.doomed) for flight in one.flights] == [(True, True)] * 2
    assert (memo.counts.errors, seen.of("left")) == (2, [])
    assert work.stopped


def test_it_says_whether_a_task_runs_it(batch):
    """Which ends the flights, whatever becomes of the caller."""
    one = batch("ab")
    assert one.has_work() is False
    one.hand_over(Work(), "task")
    assert one.has_work() is True
    one.close()
    assert one.has_work() is False


def test_it_may_stop_when_nobody_wants_any_of_it(memo, batch):
    """Neither its leader nor a follower; all of it is doomed then, but for what has ended."""
    one = batch("abc", max_batch=1)
    a, b, c = one.flights
    one.begin()
    one.land({"A": 1})
    with mutex:
        assert one.may_stop() is False
    b.deserted = c.deserted = True
    c.followers = 1
    with mutex:
        assert one.may_stop() is False
    c.followers = 0
    a.followers = 1  # which has landed
    with mutex:
        assert one.may_stop() is True
    assert [flight.doomed for flight in (a, b, c)] == [False, True, True]


def test_one_that_has_lost_its_key_may_stop_too(batch):
    """What was unseated is doomed as what flies is; while its leader wants it, it goes on."""
    one = batch("ab")
    a, b = one.flights
    a.due = 0.0
    a.see_to()
    b.deserted = True
    with mutex:
        assert one.may_stop() is False
        a.deserted = True
        assert one.may_stop() is True
    assert (a.doomed, b.doomed) == (True, True)


# -- renewals -----------------------------------------------------------------------------------------


def test_a_thread_runs_the_renewals_that_are_still_to_be_run(make, clock):
    """Not those that were taken over or dropped meanwhile; its loader call counts as a refresh."""
    memo = make(grace=60)
    led = [renews(memo, key) for key in "abc"]
    one = loading(memo, led)
    a, b, c = one.flights
    b.detached = True
    clock.advance(1)
    one.renew_in(7)
    assert one.flights == [a, c]
    assert [(flight.leader, flight.thread, flight.unbegun) for flight in (a, c)] == [(7, 7, False)] * 2
    assert (a.number, a.due) == (c.number, c.due)
    assert b.has_ended()
    assert one.begin() == ["A", "C"]
    assert (memo.counts.calls, memo.counts.refreshes) == (1, 1)


def test_renewals_that_were_not_begun_are_called_off(make, clock):
    """As if they had never been: the values are renewed by whoever reads them next."""
    memo = make(grace=60)
    one = loading(memo, [renews(memo, key) for key in "ab"])
    flights = one.flights
    one.call_off(Struck())
    assert [flight.has_ended() for flight in flights] == [True, True]
    assert memo.counts.errors == memo.counts.calls == 0
    assert [memo.store.lookup(key).refresh_at for key in "ab"] == [clock(), clock()]
    assert memo.locks.live() == []


def test_a_renewal_that_somebody_has_taken_over_is_not_called_off(make):
    """An interrupt of whoever was to run it neither ends it nor changes what it counts as."""
    memo = make(grace=60)
    one = loading(memo, [renews(memo, key) for key in "ab"])
    taken, other = one.flights
    call = caller("a", "somebody", 5, renew=True)
    assert (coordinator.board(memo, call), call.flight) == (LEAD, taken)
    one.call_off(Struck())
    assert (taken.has_ended(), taken.kind, taken.leader) == (False, "refresh", "somebody")
    assert other.has_ended()
    land(memo, taken, "new")
    assert (memo.counts.calls, memo.counts.refreshes, memo.store.lookup("a").value) == (1, 1, "new")


def test_renewals_that_could_not_be_run_end_with_what_struck(make, clock, seen):
    """Where a thread had begun them."""
    memo = make(grace=60)
    one = loading(memo, [renews(memo, key) for key in "ab"])
    one.renew_in(7)
    error = Struck()
    one.call_off(error)
    assert [call.flight.has_ended() for call in one.led] == [True, True]
    assert told(seen, "abort", "error") == [("a", error), ("b", error)]


def test_renewals_that_could_not_all_be_begun_are_no_executions(make):
    """The clock has failed in between: the loader was not called, and those who joined are told of that."""
    memo, error = make(grace=60, follower_retries=0), LookupError("clock")
    one = loading(memo, [renews(memo, key) for key in "ab"])

    def begin(cache, renewal, thread):
        if renewal.key == "b":
            raise error
        return begin_renewal(cache, renewal, thread)

    with patch.object(batches, "begin_renewal", begin), pytest.raises(LookupError):
        one.renew_in(7)
    follower = caller("a", "follower", 5, renew=True)
    assert coordinator.board(memo, follower) is JOIN
    one.call_off(error)
    assert [call.flight.has_ended() for call in one.led] == [True, True]
    assert (memo.counts.calls, memo.counts.failures, follower.flight.error) == (0, 0, error)


@pytest.mark.parametrize("error", [LookupError("no task"), Struck()])
def test_renewals_whose_task_could_not_be_made_are_no_executions(make, caplog, error):
    """The loader was not called for them. They have failed, unless they were interrupted: that is said."""
    memo, work = make(grace=60), Work()
    work.began = False
    one = loading(memo, [renews(memo, key) for key in "ab"])
    one.never_began(work)
    one.fail(error)
    assert [call.flight.has_ended() for call in one.led] == [True, True]
    assert (memo.counts.calls, memo.counts.refreshes, memo.counts.failures) == (0, 0, 0)
    failed = isinstance(error, Exception)
    now = memo.timer()
    assert [memo.store.find(key).refresh_at > now for key in "ab"] == [failed] * 2
    assert caplog.text.count("could not be renewed, its value is kept: LookupError('no task')") == 2 * failed


def test_renewals_for_which_the_loader_was_not_called_yet_are_tried_again_at_once(make, caplog):
    """It failed for others, which says nothing about them."""
    memo = make(grace=60)
    one = loading(memo, [renews(memo, key) for key in "ab"], max_batch=1)
    assert one.begin() == ["A"]
    one.fail(LookupError("no server"))
    now = memo.timer()
    assert [memo.store.find(key).refresh_at > now for key in "ab"] == [True, False]
    assert caplog.text.count("could not be renewed, its value is kept") == 1


def test_a_task_runs_the_renewals_that_it_was_made_for(make):
    """It is their leader, and they are due together."""
    memo, work = make(grace=60), Work()
    one = loading(memo, [renews(memo, key) for key in "ab"])
    one.renew_by(work, "task")
    a, b = one.flights
    assert [(flight.leader, flight.work) for flight in (a, b)] == [("task", work)] * 2
    assert (a.number, a.due, a.kind, b.kind) == (b.number, b.due, "bulk", "bulk")
    assert one.begin() == ["A", "B"]
    assert memo.counts.refreshes == 1
    assert isinstance(one.led[0], type(background("a")))
