"""What a bulk caller does next, step by step, and what becomes of what it holds when it goes."""

import cachetools
import pytest

from singleflight.common.errors import FlightDeadlock, FlightTimeout
from singleflight.core import bulk_call, coordinator, landing, leaving
from singleflight.core.batch import Uncalled
from singleflight.core.bulk_call import BulkCall
from singleflight.core.call import HIT, JOIN, LEAD, NONE, SHARE, new_call
from singleflight.core.coordinator import new_cache
from singleflight.core.flight import FLYING, LANDED, PASSED
from singleflight.core.options import Options
from singleflight.locks import waitgraph
from singleflight.locks.mutex import mutex
from singleflight.locks.unsettled import After
from singleflight.storage.record import AgeingRecord, TaggedRecord, record_of
from singleflight.telemetry.counters import ThreadedHits

from .conftest import Watched, Work, caller, in_flight


class ItemCall(Watched):
    """One key of a bulk call."""

    follows = True


def asks(memo, items, max_batch=None, awaited_by=frozenset()):
    """A bulk call for these; keys are items in small letters."""

    def make(key):
        call = new_call(ItemCall, key, "bulk", 2, "bulk")
        call.awaited_by = awaited_by
        return call

    return BulkCall(memo, [(item, item.lower()) for item in items], str.lower, make, max_batch)


def boarded(memo, items, **options):
    """One that has looked for all its keys."""
    one = asks(memo, items, **options)
    one.look()
    one.board()
    return one


def flown(memo, key, **fields):
    """The flight of another caller."""
    return in_flight(memo, key, due=False, **fields)


def counted(memo):
    names = ("fetches", "waits", "errors", "timeouts", "calls", "failures", "stale_hits")
    return {name: getattr(memo.counts, name) for name in names if getattr(memo.counts, name)}


def told(seen, kind, *names):
    return [(event.key, *(getattr(event, name) for name in names)) for event in seen.of(kind)]


def of(one, key):
    (call,) = (call for call in one._calls if call.key == key)
    return call


def stored(memo, key, value=1, **fields):
    record = record_of(key, value, 95.0, 60.0)
    memo.store.put(record)
    return record


# -- looking and boarding -----------------------------------------------------------------------------


@pytest.mark.parametrize("listened", [True, False])
def test_what_is_stored_is_found_at_the_first_look(make, seen, listened):
    """Without boarding, unless somebody listens to hits; the answer has every spelling, in order."""
    memo = make(listener=None)
    if listened:
        memo.tell.add(seen, True)
    for key in "abc":
        stored(memo, key, key * 2)
    one = asks(memo, ["C", "a", "A", "B"])
    assert one.look() is not listened
    one.board()
    assert (one.sweep(), one.led, one.failed, one.renewal()) == (None, [], None, None)
    assert list(one.answer().items()) == [("C", "cc"), ("a", "aa"), ("A", "aa"), ("B", "bb")]
    assert [memo.store.lookup(key).hits for key in "abc"] == [1, 1, 1]
    assert [event.key for event in seen.of("hit")] == ["c", "a", "b"] * listened
    assert seen.count("share") == 0
    asks(memo, "A").look() or boarded(memo, "A")
    assert memo.store.lookup("a").hits == 2


def test_what_has_just_expired_is_no_hit(memo, clock):
    """A value lives for less than its ttl."""
    stored(memo, "a")
    clock.advance(55.0)
    assert asks(memo, "A").look() is False


def test_hits_are_counted_where_threads_count_their_own(clock):
    """In builds without a global lock."""
    counts = ThreadedHits()
    memo = new_cache("model", Options.checked(ttl=60, timer=clock), counts)
    stored(memo, "a")
    stored(memo, "b")
    assert asks(memo, "AB").look() is True
    assert counts.all_hits(memo.store) == 2


def test_a_policy_is_told_of_hits(make):
    """What a bulk call has used stays when others come."""
    memo = make(maxsize=2, policy=cachetools.LRUCache, listener=None)
    for key in "abc":
        landing.land(memo, flown(memo, key), key)
        if key == "b":
            assert asks(memo, "A").look() is True
    assert [memo.store.lookup(key) is not None for key in "abc"] == [True, False, True]


def test_an_answer_has_copies(make):
    """Each item one of its own, also those of one key; what is missing has none."""
    memo = make(copy=list)
    stored(memo, "a", [1])
    one = boarded(memo, ["A", "a", "B"])
    answer = one.answer()
    assert answer == {"A": [1], "a": [1]}
    assert len({id(each) for each in (*answer.values(), memo.store.lookup("a").value)}) == 3


@pytest.mark.parametrize("listened", [True, False])
def test_nothing_is_asked_for(make, seen, listened):
    """The first look is all there is to do."""
    memo = make(listener=None)
    if listened:
        memo.tell.add(seen, True)
    one = asks(memo, [])
    assert one.look() is True
    assert one.answer() == {}


def test_the_rest_is_boarded_in_order(memo, seen):
    """It leads what nobody fetches, follows what others fetch, and waits for nothing yet."""
    flight = flown(memo, "b")
    stored(memo, "d")
    one = boarded(memo, "CBDA")
    assert [call.key for call in one.led] == ["c", "a"]
    assert (flight.followers, of(one, "b").decision, waitgraph.waiting) == (1, JOIN, {})
    assert one.sweep() is None  # what it leads comes first
    batch = one.batch()
    assert one.loading is batch
    assert one.led == []
    assert batch.begin() == ["C", "A"]
    batch.land({"C": 3, "A": 1})
    assert one.sweep() is of(one, "b")
    landing.land(memo, flight, 2)
    assert one.sweep() is None
    assert list(one.answer().items()) == [("C", 3), ("B", 2), ("D", 1), ("A", 1)]
    one.done()
    assert (one.led, one.failed, one.loading) == ([], None, None)


def test_its_only_key_may_be_loaded_with_those_of_others(memo):
    """Where it asks for one key, in whatever spellings; it is had, missing, or boarded anew.

    Those have its flight from then on: it is not given up with the call.
    """
    assert boarded(memo, ["X", "Y"]).lone() is None
    one = boarded(memo, ["A", "a"])
    call = one.led[0]
    assert one.lone() == (call, "A")
    assert one.led == []
    call.flight.kind, call.flight.missing = "bulk", False
    one.gathered(call, LEAD, 7)
    assert (one.led, one.answer()) == ([], {"A": 7, "a": 7})
    other = boarded(memo, ["B"])
    call, _ = other.lone()
    call.flight.missing = True
    other.gathered(call, LEAD, None)
    assert (other.led, other.answer()) == ([], {})


def test_what_was_not_loaded_with_others_is_boarded_anew(memo):
    """Their loader was not called for it."""
    one = boarded(memo, ["A"])
    call, _ = one.lone()
    flight = call.flight
    landing.fail(memo, flight, KeyboardInterrupt())
    call.decision = NONE
    one.gathered(call, NONE, None)
    assert one.led == [call]
    assert call.flight is not flight


# -- what it finds ------------------------------------------------------------------------------------


def test_a_stored_failure_ends_the_boarding(memo):
    """It is raised as a copy; what comes after it is not looked at."""
    error = LookupError("b")
    record = TaggedRecord("b", None, 95.0, 60.0, error=error)
    record.tags = ()
    memo.store.put(record)
    one = boarded(memo, "ABC")
    raised, traceback = one.failed
    assert (type(raised), raised.args, traceback) == (LookupError, ("b",), None)
    assert raised is not error
    assert [call.key for call in one.led] == ["a"]
    assert one.sweep() is None


def test_a_flight_that_failed_ends_the_sweep(memo, seen):
    """Its error is raised, from where the function failed; the others are followed until it goes."""
    flights = [flown(memo, key) for key in "abc"]
    for flight in flights:
        flight.retries = 0
    one = boarded(memo, "ABC")
    try:
        raise LookupError("b")
    except LookupError as raised:
        error, traceback = raised, raised.__traceback__
        landing.fail(memo, flights[1], error)
    landing.land(memo, flights[2], 3)
    assert one.sweep() is None
    assert one.failed == (error, traceback)
    assert told(seen, "share", "error") == [("b", error)]
    assert flights[0].followers == 1
    one.give_up(error)
    assert flights[0].followers == 0
    assert told(seen, "left", "counted") == [("a", "errors"), ("c", "waits")]


def test_what_a_flight_was_to_bring_may_be_missing(memo, seen):
    """It is not in the answer; that it was shared is told."""
    flight = flown(memo, "a", retries=0)
    one = boarded(memo, "A")
    landing.land(memo, flight, None)
    assert one.sweep() is None
    assert one.answer() == {}
    assert [event.key for event in seen.of("share")] == ["a"]


def test_what_was_put_while_it_waited_is_told_as_shared(memo, seen):
    """With how long the caller has waited in all."""
    flight = flown(memo, "a")
    one = boarded(memo, "A")
    call = of(one, "a")
    assert one.begin(call) is True
    record = stored(memo, "a", 9)
    landing.fail(memo, flight, ValueError())
    one.has_waited(call, coordinator.awake(memo, call), 2.5)
    assert (one.answer(), one.waited) == ({"A": 9}, 2.5)
    assert told(seen, "share", "value", "waited") == [("a", record.value, 2.5)]
    assert one.sweep() is None


def test_what_was_shared_without_a_wait_is_told_so(memo, seen):
    """While it was busy with others; and later with how long it has waited in all."""
    flights = [flown(memo, key) for key in "abc"]
    one = boarded(memo, "ABC")
    landing.land(memo, flights[0], 1)
    assert one.sweep() is of(one, "b")
    assert one.waited == 0.0
    assert one.begin(of(one, "b")) is True
    landing.land(memo, flights[1], 2)
    landing.land(memo, flights[2], 3)
    one.has_waited(of(one, "b"), coordinator.awake(memo, of(one, "b")), 2.5)
    assert one.sweep() is None
    assert told(seen, "share", "waited") == [("a", 0.0), ("b", 2.5), ("c", 2.5)]


@pytest.fixture
def softly(make):
    """Stale values are waited for a little, and then served."""
    memo = make(grace=60, soft_timeout=1)

    def stale(key):
        memo.store.put(AgeingRecord(key, key * 2, 85.0, 10.0, grace=60.0, refresh_at=95.0))

    return memo, stale


def test_a_renewal_that_it_follows_it_has_run(softly):
    """In one batch with the others, once."""
    memo, stale = softly
    stale("a"), stale("b")
    one = boarded(memo, "AB")
    assert [call.decision for call in one._calls] == [JOIN, JOIN]
    assert [call.key for call in one.renewal().led] == ["a", "b"]
    one.handed_over()
    assert one.sweep() is of(one, "a")
    assert one.renewal() is None


@pytest.mark.parametrize("how", ["gathered", "taken"])
def test_what_boards_anew_waits_for_no_renewal(softly, how):
    """It has waited already: a stale value is served at once."""
    memo, stale = softly
    flight = flown(memo, "a")
    one = boarded(memo, "A") if how == "taken" else asks(memo, "A")
    if how == "taken":
        call = of(one, "a")
        flight.slot.turn = None
        landing.fail(memo, flight, Struck())
        assert coordinator.awake(memo, call) is NONE
    else:
        landing.fail(memo, flight, Struck())
        one.look()
        one.board()
        call, _ = one.lone()
        landing.fail(memo, call.flight, Struck())
        call.decision = NONE
    stale("a")
    if how == "gathered":
        one.gathered(call, NONE, None)
    else:
        one.take(call, NONE)  # its flight was detached, and had no outcome
    assert (call.decision, one.answer()) == (HIT, {"A": "aa"})


def test_what_it_renews_lands_with_values_of_its_own(make):
    """The loader is asked for the items as they were spelt."""
    memo = make(grace=60)
    memo.store.put(AgeingRecord("a", "aa", 85.0, 10.0, grace=60.0, refresh_at=95.0))
    one = boarded(memo, ["A"])
    renewal = one.renewal()
    one.handed_over()
    renewal.renew_in(7)
    assert renewal.begin() == ["A"]
    renewal.land({"A": "new"})
    assert list(renewal.values.values()) == ["new"]
    assert one.answer() == {"A": "aa"}


def test_what_it_is_served_stale_it_has_renewed(make):
    """In one batch, until somebody sees to that."""
    memo = make(grace=60)
    for key in "ab":
        memo.store.put(AgeingRecord(key, key * 2, 85.0, 10.0, grace=60.0, refresh_at=95.0))
    one = boarded(memo, "AB")
    assert one.answer() == {"A": "aa", "B": "bb"}
    renewal = one.renewal()
    assert [call.key for call in renewal.led] == ["a", "b"]
    assert renewal.renews
    assert renewal.values is not one.values
    one.handed_over()
    assert one.renewal() is None
    assert [flight.has_ended() for flight in renewal.flights] == [False, False]
    one.done()
    assert [flight.has_ended() for flight in renewal.flights] == [False, False]


def test_what_nobody_sees_to_is_called_off_in_the_end(make):
    """An interrupt has struck before it was handed over."""
    memo = make(grace=60)
    memo.store.put(AgeingRecord("a", "aa", 85.0, 10.0, grace=60.0, refresh_at=95.0))
    one = boarded(memo, "A")
    (flight,) = one.renewal().flights
    one.done()
    assert flight.has_ended()


# -- it waits -----------------------------------------------------------------------------------------


def test_it_waits_for_one_flight_at_a_time(memo, waiting):
    """That is noted, and where it stands; what it follows besides is not."""
    a, _ = flown(memo, "a"), flown(memo, "b")
    one = boarded(memo, "AB")
    call = of(one, "a")
    assert one.begin(call) is True
    assert (waiting, call.before, call.latch) == ({"bulk": (a,)}, 0, a.latch)
    assert call.stood == (a.latch, memo, a)
    assert waitgraph.below == {}


def test_its_wait_comes_on_top_of_others(memo, waiting):
    """Those of what it interrupted, which are there after it."""
    a, before = flown(memo, "a"), flown(memo, "before")
    waiting["bulk"] = (before,)
    one = boarded(memo, "A")
    call = of(one, "a")
    assert one.begin(call) is True
    assert (waiting, call.before) == ({"bulk": (before, a)}, 1)
    landing.land(memo, a, 1)
    one.has_waited(call, coordinator.awake(memo, call), 1.0)
    assert waiting == {"bulk": (before,)}


def test_who_awaits_it_is_noted(memo, waiting):
    """As for single calls."""
    flown(memo, "a")
    one = boarded(memo, "A", awaited_by=frozenset(["above"]))
    call = of(one, "a")
    assert one.begin(call) is True
    assert waitgraph.below == {"above": {call: None}}


def test_it_waits_for_the_flight_that_took_the_place(memo, waiting):
    """And stands at its latch."""
    first = flown(memo, "a")
    one = boarded(memo, "A")
    call = of(one, "a")
    landing.fail(memo, first, ValueError())
    newcomer = caller("a", "newcomer", 7)
    assert coordinator.board(memo, newcomer) is LEAD
    assert one.begin(call) is True
    assert (call.flight, call.latch) == (newcomer.flight, newcomer.flight.latch)
    assert waiting["bulk"] == (newcomer.flight,)


@pytest.mark.parametrize(
    "end",
    [
        lambda memo, flight: landing.land(memo, flight, 1),
        lambda memo, flight: landing.fail(memo, flight, ValueError()),
        lambda memo, flight: (
            setattr(flight.slot, "turn", None),
            landing.fail(memo, flight, KeyboardInterrupt()),
        ),
    ],
    ids=["landed", "to be claimed", "gone"],
)
def test_it_does_not_wait_for_what_has_ended(memo, waiting, end):
    """The next sweep sees to it."""
    flight = flown(memo, "a")
    one = boarded(memo, "A")
    end(memo, flight)
    assert one.begin(of(one, "a")) is False
    assert waiting == {}
    assert one.sweep() is None
    assert one.led or one.answer() == {"A": 1}


def entangle(memo, waiting):
    """Who leads "k" waits for "mine", which the bulk caller leads."""
    mine = caller("mine", "bulk", 2)
    assert coordinator.board(memo, mine) is LEAD
    flight = flown(memo, "k")
    waiting["leader"] = (mine.flight,)
    return flight


def test_a_wait_that_would_never_end_is_refused(memo, seen, waiting):
    """It is told with every key, counted as an error, and the flight is left."""
    flight = entangle(memo, waiting)
    one = boarded(memo, "K")
    call, before = of(one, "k"), dict(waiting)
    with pytest.raises(FlightDeadlock) as caught:
        one.begin(call)
    assert str(caught.value) == "model: waiting would never end: 'mine' -> 'k' -> 'mine'"
    assert (call.decision, flight.followers, counted(memo)) == (NONE, 0, {"errors": 1})
    assert (dict(waiting), [event.key for event in seen.of("deadlock")]) == (before, ["k"])
    one.give_up(caught.value)
    assert counted(memo) == {"errors": 1}


def test_what_has_landed_meanwhile_is_not_refused(memo, seen, waiting, monkeypatch):
    """Between the look for a cycle and the leaving: the next sweep takes it."""
    flight = entangle(memo, waiting)
    one = boarded(memo, "K")
    leave = leaving.leave

    def late(*args, **kwargs):
        landing.land(memo, flight, 7)
        return leave(*args, **kwargs)

    monkeypatch.setattr(bulk_call, "leave", late)
    assert one.begin(of(one, "k")) is False
    assert (one.sweep(), one.answer(), seen.count("deadlock")) == (None, {"K": 7}, 0)


@pytest.mark.parametrize("wait_timeout", [None, 1])
def test_a_wait_that_ends_by_itself_is_not_refused_where_a_cycle_is_in_doubt(make, monkeypatch, wait_timeout):
    """As for single calls."""
    memo, bounded = make(wait_timeout=wait_timeout), []
    flown(memo, "a")
    one = boarded(memo, "A")
    monkeypatch.setattr(bulk_call, "cycle", lambda call, flight, in_time: bounded.append(in_time))
    assert one.begin(of(one, "a")) is True
    assert bounded == [wait_timeout is not None]


def test_a_stale_value_ends_a_cycle(make, waiting):
    """With `soft_timeout` it is served, and nobody is refused."""
    memo = make(grace=60, soft_timeout=1)
    flight = entangle(memo, waiting)
    one = boarded(memo, "K")
    memo.store.put(AgeingRecord("k", "old", 85.0, 10.0, grace=60.0))
    assert one.begin(of(one, "k")) is False
    assert (one.answer(), flight.followers) == ({"K": "old"}, 0)
    assert counted(memo) == {"stale_hits": 1}
    assert one.sweep() is None


# -- it goes ------------------------------------------------------------------------------------------


class Struck(BaseException):
    pass


def half_boarded(memo, failing=None):
    """One that leads "a", follows "b", and was stopped before "c"."""
    flight = flown(memo, "b")
    one = asks(memo, "ABC")
    one.look()
    make = one._make

    def made(key):
        if key == "c":
            raise Struck
        return make(key)

    one._make = made
    with pytest.raises(Struck):
        one.board()
    return one, flight


@pytest.mark.parametrize(
    ("error", "counted_as"),
    [(ValueError("x"), "errors"), (Struck(), "errors"), (FlightTimeout("x"), "timeouts")],
)
def test_whatever_ends_it_nothing_is_held_any_more(memo, seen, error, counted_as):
    """Each key counts and is told; what it leads ends without an outcome, unless an abort is one."""
    one, flight = half_boarded(memo)
    led = one.led[0].flight
    follower = caller("a", "follower", 7)
    coordinator.board(memo, follower)
    for _ in range(2):
        one.give_up(error)
        assert (led.state, flight.followers) == (PASSED, 0)
        assert told(seen, "left", "error", "counted", "flight_id") == [
            ("c", error, counted_as, 0),
            ("b", error, counted_as, flight.ident),
        ]
        ((_, struck),) = told(seen, "abort", "error")
        assert type(struck) is (Struck if type(error) is Struck else Uncalled)
        assert counted(memo) == ({"errors": 3} if counted_as == "errors" else {"timeouts": 2, "errors": 1})
    one.done()
    assert memo.locks.slot("c") is None


@pytest.mark.parametrize(
    "end", [lambda one, error: one.give_up(error), lambda one, error: settled(one, error)]
)
def test_what_it_has_just_come_to_lead_is_no_execution(memo, monkeypatch, end):
    """An interrupt has struck before it was noted: its key is free, and no call is counted."""

    def strike(one, call, decision):
        assert decision is LEAD
        raise Struck

    monkeypatch.setattr(BulkCall, "take", strike)
    one = asks(memo, "A")
    one.look()
    with pytest.raises(Struck) as caught:
        one.board()
    end(one, caught.value)
    assert counted(memo) == {"errors": 1}
    assert memo.locks.live() == []


@pytest.mark.parametrize(
    "end", [lambda one, error: one.give_up(error), lambda one, error: settled(one, error)]
)
def test_what_it_has_just_come_to_lead_has_no_outcome(memo, monkeypatch, end):
    """Another error than an interrupt, too, is its own: a follower loads what it needs itself."""

    def fail(one, call, decision):
        follower = caller("a", "follower", 7)
        assert coordinator.board(memo, follower) is JOIN
        follower.flight.retries = 0
        raise ValueError

    monkeypatch.setattr(BulkCall, "take", fail)
    one = asks(memo, "A")
    one.look()
    with pytest.raises(ValueError) as caught:
        one.board()
    flight = one._calls[0].flight
    end(one, caught.value)
    assert (flight.state, flight.error) == (PASSED, None)


def test_its_renewals_are_called_off_when_it_goes(make):
    """The value is renewed by whoever reads it next."""
    memo = make(grace=60)
    memo.store.put(AgeingRecord("a", "aa", 85.0, 10.0, grace=60.0, refresh_at=95.0))
    one = boarded(memo, "A")
    (flight,) = one.renewal().flights
    one.give_up(KeyboardInterrupt())
    assert flight.has_ended()


def settled(one, error):
    after = After()
    with mutex:
        one.settle(error, after)
    after.run()


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ValueError("x"), {"errors": 3}),
        (FlightTimeout("x"), {"errors": 2, "timeouts": 1}),
    ],
)
def test_what_it_could_not_give_up_is_settled(memo, seen, error, counts):
    """The same, without a word."""
    one, flight = half_boarded(memo)
    led = one.led[0].flight
    follower = caller("a", "follower", 7)
    coordinator.board(memo, follower)
    before = len(seen.kinds())
    for _ in range(2):
        settled(one, error)
        assert (led.state, flight.followers, counted(memo)) == (PASSED, 0, counts)
        assert (one.led, one.failed, one.loading) == ([], None, None)
    assert len(seen.kinds()) == before


def test_what_its_loader_was_called_for_is_settled_with_its_error(memo):
    """The rest without an outcome; its batch is over."""
    one = boarded(memo, "AB", max_batch=1)
    followers = [caller(key, f"follower of {key}", 7) for key in "ab"]
    for follower in followers:
        coordinator.board(memo, follower)
        follower.flight.retries = 0
    flights = [follower.flight for follower in followers]
    one.batch().begin()
    error = ValueError("x")
    settled(one, error)
    assert [flight.state for flight in flights] == [LANDED, PASSED]
    assert flights[0].error is error
    assert memo.batches == set()


def test_what_a_task_loads_goes_on(memo):
    """It ends the flights itself."""
    one = boarded(memo, "AB")
    batch = one.batch()
    batch.hand_over(Work(), "task")
    flights = list(batch.flights)
    settled(one, ValueError("x"))
    assert [flight.state for flight in flights] == [FLYING, FLYING]


def test_a_shared_outcome_is_taken_once(memo):
    """By whoever finds it landed, also where it waits for another one."""
    a, b = flown(memo, "a"), flown(memo, "b")
    one = boarded(memo, "AB")
    first = of(one, "a")
    assert one.begin(first) is True
    landing.land(memo, b, 2)
    landing.land(memo, a, 1)
    one.has_waited(first, SHARE if coordinator.awake(memo, first) is SHARE else NONE, 1.0)
    assert one.values == {id(first.key): 1}
    assert one.sweep() is None
    assert one.answer() == {"A": 1, "B": 2}
