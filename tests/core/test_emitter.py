"""What each event tells, and to whom: the emitter with flights and records that are stand-ins."""

import logging
import threading
from types import SimpleNamespace

import pytest

from singleflight import FlightTimeout
from singleflight.telemetry import emitter, events
from singleflight.telemetry.emitter import Emitter
from singleflight.telemetry.kinds import ALL_KINDS
from singleflight.testing import Recorder

FAILED, CANCELLED = ValueError("failed"), KeyboardInterrupt()
EXECUTION = object()


def a_flight(**others):
    flight = SimpleNamespace(key=("a",), ident=7, kind="refresh", background=False, value="v", error=None)
    flight.deserted = flight.timed_out = False
    flight.started, flight.landed = 10.0, 15.0
    vars(flight).update(others)
    return flight


def a_record(**others):
    record = SimpleNamespace(key=("a",), value="v", error=None, landed=15.0)
    vars(record).update(others)
    return record


TOLD = {
    "hit": (
        lambda tell: tell.hit(a_record(), 17.0),
        events.Hit(name="prices", key=("a",), sequence=1, value="v", age=2.0),
    ),
    "a hit by a clock that was set back": (
        lambda tell: tell.hit(a_record(), 14.0),
        events.Hit(name="prices", key=("a",), sequence=1, value="v", age=0.0),
    ),
    "stale_hit": (
        lambda tell: tell.stale_hit(a_record(), 17.0),
        events.StaleHit(name="prices", key=("a",), sequence=1, value="v", age=2.0),
    ),
    "a stale_hit by a clock that was set back": (
        lambda tell: tell.stale_hit(a_record(), 14.0),
        events.StaleHit(name="prices", key=("a",), sequence=1, value="v", age=0.0),
    ),
    "stored_failure": (
        lambda tell: tell.stored_failure(a_record(error=FAILED), 17.0),
        events.StoredFailure(name="prices", key=("a",), sequence=1, error=FAILED, age=2.0),
    ),
    "a stored_failure by a clock that was set back": (
        lambda tell: tell.stored_failure(a_record(error=FAILED), 14.0),
        events.StoredFailure(name="prices", key=("a",), sequence=1, error=FAILED, age=0.0),
    ),
    "deadlock": (
        lambda tell: tell.refused(("a",), "a -> b -> a"),
        events.Deadlock(name="prices", key=("a",), sequence=1, cycle="a -> b -> a", leads=False),
    ),
    "deadlock of a leader": (
        lambda tell: tell.refused(("a",), "a -> b -> a", leads=True),
        events.Deadlock(name="prices", key=("a",), sequence=1, cycle="a -> b -> a", leads=True),
    ),
    "fetch": (
        lambda tell: tell.fetching(a_flight(background=True)),
        events.Fetch(
            name="prices",
            key=("a",),
            sequence=1,
            flight="refresh",
            flight_id=7,
            execution_id=7,
            background=True,
        ),
    ),
    "fetch of several": (
        lambda tell: tell.fetching(a_flight(kind="bulk"), 5),
        events.Fetch(
            name="prices",
            key=("a",),
            sequence=1,
            flight="bulk",
            flight_id=7,
            execution_id=5,
            background=False,
        ),
    ),
    "wait": (
        lambda tell: tell.waiting(a_flight(), 3),
        events.Wait(name="prices", key=("a",), sequence=1, followers=3, execution=None, flight_id=7),
    ),
    "wait for an execution": (
        lambda tell: tell.waiting(a_flight(execution=EXECUTION), 3),
        events.Wait(name="prices", key=("a",), sequence=1, followers=3, execution=EXECUTION, flight_id=7),
    ),
    "share": (
        lambda tell: tell.shared(a_flight(execution=EXECUTION), 17.0, 1.5),
        events.Share(
            name="prices",
            key=("a",),
            sequence=1,
            value="v",
            age=2.0,
            waited=1.5,
            execution=EXECUTION,
            flight_id=7,
        ),
    ),
    "share of an error, by a clock that was set back": (
        lambda tell: tell.shared(a_flight(value=None, error=FAILED), 14.0, 1.5),
        events.Share(name="prices", key=("a",), sequence=1, error=FAILED, age=0.0, waited=1.5, flight_id=7),
    ),
    "share of what was put": (
        lambda tell: tell.shared_record(a_record(), 17.0, 1.5),
        events.Share(name="prices", key=("a",), sequence=1, value="v", age=2.0, waited=1.5, flight_id=0),
    ),
    "share of a stored error, by a clock that was set back": (
        lambda tell: tell.shared_record(a_record(value=None, error=FAILED), 14.0, 1.5),
        events.Share(name="prices", key=("a",), sequence=1, error=FAILED, age=0.0, waited=1.5),
    ),
    "resume": (
        lambda tell: tell.resumed(("a",), 1.5),
        events.Resume(name="prices", key=("a",), sequence=1, waited=1.5),
    ),
    "left": (
        lambda tell: tell.left(("a",), CANCELLED, "errors"),
        events.Left(name="prices", key=("a",), sequence=1, error=CANCELLED, counted="errors"),
    ),
    "left by a leader": (
        lambda tell: tell.left(("a",), CANCELLED, "errors", 7, True),
        events.Left(
            name="prices", key=("a",), sequence=1, error=CANCELLED, counted="errors", flight_id=7, leads=True
        ),
    ),
    "timeout": (
        lambda tell: tell.timed_out(("a",), 1.5),
        events.Timeout(name="prices", key=("a",), sequence=1, waited=1.5, leads=False),
    ),
    "timeout of a leader": (
        lambda tell: tell.timed_out(("a",), 1.5, leads=True),
        events.Timeout(name="prices", key=("a",), sequence=1, waited=1.5, leads=True),
    ),
    "land": (
        lambda tell: tell.landed(a_flight(), (3, False), "v", 17.0, 60.0),
        events.Land(
            name="prices",
            key=("a",),
            sequence=1,
            value="v",
            duration=7.0,
            followers=3,
            stored=True,
            ttl=60.0,
            retried=False,
            flight_id=7,
            counted="fetches",
        ),
    ),
    "land of what is not stored": (
        lambda tell: tell.landed(a_flight(), (3, True), "v", 17.0, None),
        events.Land(
            name="prices",
            key=("a",),
            sequence=1,
            value="v",
            duration=7.0,
            followers=3,
            stored=False,
            ttl=None,
            retried=True,
            flight_id=7,
            counted="fetches",
        ),
    ),
    "land of an error": (
        lambda tell: tell.failed(a_flight(), (3, True), FAILED, 17.0),
        events.Land(
            name="prices",
            key=("a",),
            sequence=1,
            error=FAILED,
            duration=7.0,
            followers=3,
            stored=False,
            retried=True,
            flight_id=7,
            counted="errors",
        ),
    ),
    "abort": (
        lambda tell: tell.failed(a_flight(), (3, True), CANCELLED, 17.0),
        events.Abort(
            name="prices",
            key=("a",),
            sequence=1,
            error=CANCELLED,
            duration=7.0,
            followers=3,
            flight_id=7,
            counted="errors",
        ),
    ),
    "unseat": (
        lambda tell: tell.unseated(a_flight()),
        events.Unseat(name="prices", key=("a",), sequence=1, flight_id=7),
    ),
    "evict": (
        lambda tell: tell.gone([a_record(fresh_for=lambda now: 18.0 - now)], 17.0),
        events.Evict(name="prices", key=("a",), sequence=1),
    ),
    "expire": (
        lambda tell: tell.gone([a_record(fresh_for=lambda now: 17.0 - now)], 17.0),
        events.Expire(name="prices", key=("a",), sequence=1),
    ),
}


@pytest.mark.parametrize(("say", "event"), TOLD.values(), ids=TOLD)
def test_what_it_tells(say, event):
    """To whoever wants this kind, and to nobody else."""
    wanted, others = Recorder({event.kind}), Recorder(ALL_KINDS - {event.kind})
    tell = Emitter("prices", wanted)
    tell.add(others, True)
    say(tell)
    assert (wanted.events, others.events) == ([event], [])
    tell.remove(wanted)
    say(tell)
    assert (wanted.events, others.events) == ([event], [])


def test_a_hit_says_whether_it_was_wanted():
    """So that hits are read the long way only while they are."""
    assert Emitter("prices", Recorder()).hit(a_record(), 17.0) is True
    assert Emitter("prices", Recorder({"land"})).hit(a_record(), 17.0) is False


@pytest.mark.parametrize(
    ("flight", "error", "counted"),
    [
        ({}, None, "fetches"),
        ({}, FAILED, "errors"),
        ({}, FlightTimeout("late"), "timeouts"),
        ({"timed_out": True}, None, "timeouts"),
        ({"timed_out": True}, FAILED, "timeouts"),
        ({"deserted": True}, None, None),
        ({"background": True}, FAILED, None),
        ({"deserted": True, "timed_out": True}, FlightTimeout("late"), None),
    ],
)
def test_what_its_leader_is_counted_as(flight, error, counted):
    """As `stats()` has it; as nothing where no caller leads it."""
    seen = Recorder()
    tell = Emitter("prices", seen)
    if error is None:
        tell.landed(a_flight(**flight), (0, False), "v", 17.0, 60.0)
    else:
        tell.failed(a_flight(**flight), (0, False), error, 17.0)
    assert [event.counted for event in seen.events] == [counted]


def test_it_is_numbered_and_all_are_told_the_same():
    """One number for each event, whoever is told of it, in the order in which they began to listen."""
    heard = []
    tell = Emitter("prices", lambda event: heard.append(("first", event)))
    tell.add(lambda event: heard.append(("second", event)), False)
    tell.resumed(("a",), 1.0), tell.resumed(("a",), 2.0)
    assert [(who, event.sequence) for who, event in heard] == [
        *(("first", 1), ("second", 1), ("first", 2), ("second", 2)),
    ]
    assert heard[0][1] is heard[1][1]


def test_who_listens_to_hits():
    """Whoever asked for them when he began; the last one that goes takes that with him.

    The function's own is no such one: whether it wants hits is asked when a value lands.
    """
    assert not Emitter("prices", Recorder()).watches_hits
    tell, first, second = Emitter("prices", None), Recorder(), Recorder()
    assert (tell.has_listener, tell.watches_hits) == (False, False)
    tell.add(first, False)
    assert (tell.has_listener, tell.watches_hits) == (True, False)
    tell.add(second, True)
    assert (tell.has_listener, tell.watches_hits) == (True, True)
    tell.remove(first)
    assert (tell.has_listener, tell.watches_hits) == (True, True)
    tell.remove(first)  # who is not there
    assert (tell.has_listener, tell.watches_hits) == (True, True)
    tell.remove(second)
    assert (tell.has_listener, tell.watches_hits) == (False, False)


def test_the_one_that_goes():
    """Of those that are the same object the last; others that are equal to it stay."""

    class Alike(Recorder):
        def __eq__(self, other):
            return True

        __hash__ = None

    heard, alike = [], [Alike(), Alike(), Alike()]
    tell = Emitter("prices", None)
    for place in (0, 1, 2, 1, 2):
        tell.add(alike[place], True)
    tell.remove(alike[1])
    tell.resumed(("a",), 1.0)
    assert [len(one.events) for one in alike] == [1, 1, 2]
    tell.remove(alike[2]), tell.remove(alike[2])
    tell.resumed(("a",), 1.0)
    assert [len(one.events) for one in alike] == [2, 2, 2]
    first = Emitter("prices", heard.append)
    first.add(alike[0], True)
    first.remove(heard.append)  # another object, though an equal one
    assert first.has_listener


class Enters:
    """A listener that has something entered around each execution."""

    def __init__(self, wants):
        self.wants = wants

    def __call__(self, event):
        raise AssertionError

    def executing(self, execution):
        raise AssertionError


@pytest.mark.parametrize("wants", [frozenset(), frozenset({"land"})])
def test_who_enters_executions(wants):
    """Each time that it was added, until as many removals; whoever wants no event is no listener."""
    one, other = Enters(wants), Enters(wants)
    tell = Emitter("prices", None)
    for each in (one, other, one):
        tell.add(each, False)
    assert tell.around == ((one, one.executing), (other, other.executing), (one, one.executing))
    assert tell.has_listener is bool(wants)
    tell.remove(one)
    assert [listener for listener, _ in tell.around] == [one, other]
    tell.remove(one)
    assert [listener for listener, _ in tell.around] == [other]
    tell.remove(one)
    assert [listener for listener, _ in tell.around] == [other]
    tell.remove(other)
    assert (tell.around, tell.has_listener) == ((), False)


def test_what_is_entered_around_an_execution():
    """Nothing where nobody enters, or for no flights, or where a listener of the function causes it."""

    def nothing(tell, flights):
        return type(tell.running(flights, lambda: 0.0)).__name__ == "nullcontext"

    def listen(event):
        inside.append(nothing(tell, [a_flight()]))

    inside, tell = [], Emitter("prices", listen)
    assert nothing(tell, [a_flight()])
    tell.add(Enters(frozenset()), False)
    assert nothing(tell, [])
    assert not nothing(tell, [a_flight()])
    tell.resumed(("a",), 1.0)
    assert inside == [True]
    assert not nothing(tell, [a_flight()])


class Gathers(Enters):
    """One that is told of gathered callers, too."""

    def __init__(self, gathered):
        super().__init__(frozenset())
        self.gathered = gathered


def test_who_is_told_of_gathered_callers(caplog):
    """Whoever enters executions and has a `gathered`: of the flight's execution, if it had one."""
    told, tell = [], Emitter("prices", None)
    for each in (Enters(frozenset()), Gathers(told.append), Gathers(told.append)):
        tell.add(each, False)
    tell.gathered(SimpleNamespace())
    tell.gathered(SimpleNamespace(execution=None))
    assert told == []
    tell.gathered(SimpleNamespace(execution=EXECUTION))
    assert told == [EXECUTION] * 2
    assert caplog.messages == []


def test_what_is_told_of_gathered_callers_causes_no_events():
    """Nothing is wanted, entered or told that it causes itself; afterwards everything is, as before."""

    def gathered(execution):
        told.append(execution)
        tell.gathered(flight)
        inside.append((tell.wants("resume"), tell.running([a_flight()], lambda: 0.0)))

    told, inside, flight = [], [], SimpleNamespace(execution=EXECUTION)
    tell = Emitter("prices", seen := Recorder())
    tell.add(Gathers(gathered), False)
    tell.gathered(flight)
    assert told == [EXECUTION]
    ((wanted, around),) = inside
    assert (wanted, type(around).__name__) == (False, "nullcontext")
    tell.resumed(("a",), 1.5)
    assert seen.count("resume") == 1
    tell.gathered(flight)
    assert told == [EXECUTION] * 2


def test_a_listener_of_an_event_is_told_of_no_gathered_callers(caplog):
    """Those that it causes itself; and whoever raises is blamed, once."""

    def fails(execution):
        told.append(execution)
        raise OSError

    def listen(event):
        tell.gathered(SimpleNamespace(execution=EXECUTION))

    told, tell = [], Emitter("prices", listen)
    tell.add(Gathers(fails), False)
    tell.resumed(("a",), 1.5)
    assert told == []
    for _ in range(2):
        tell.gathered(SimpleNamespace(execution=EXECUTION))
        assert tell.wants("resume")
    assert told == [EXECUTION] * 2
    assert len(caplog.messages) == 1


def test_inside_a_listener_nothing_is_wanted():
    """What it causes itself is not told, on its thread; on others it is."""

    def listen(event):
        if event.waited == 1.0:
            inside.extend(tell.wants(kind) for kind in ALL_KINDS)
            other = threading.Thread(target=tell.resumed, args=(("b",), 2.0))
            other.start()
            other.join(20)
            assert not other.is_alive()
        else:
            elsewhere.append(event.key)
            raise OSError

    inside, elsewhere, tell = [], [], Emitter("prices", listen)
    assert all(tell.wants(kind) for kind in ALL_KINDS)
    tell.resumed(("a",), 1.0)
    assert not any(inside)
    assert elsewhere == [("b",)]
    assert all(tell.wants(kind) for kind in ALL_KINDS)


@pytest.fixture
def debugged(caplog):
    """The lines of the log, at DEBUG."""
    with caplog.at_level(logging.DEBUG, "singleflight"):
        yield caplog


@pytest.mark.parametrize("listeners", [[], [{"land"}]], ids=["nobody listens", "somebody does"])
def test_the_log_wants_all_but_hits(debugged, listeners):
    """At DEBUG, whoever listens; else it wants nothing."""
    tell = Emitter("prices", None)
    for wants in listeners:
        tell.add(Recorder(wants), False)
    assert {kind for kind in ALL_KINDS if tell.wants(kind)} == ALL_KINDS - {"hit"}
    tell.resumed(("a",), 1.5)
    assert debugged.messages == ["prices resume ('a',) waited=1.5"]
    with debugged.at_level(logging.INFO, "singleflight"):
        wanted = {kind for kind in ALL_KINDS if tell.wants(kind)}
        tell.tell("resume", ("a",), waited=1.5)
    assert wanted == {kind for wants in listeners for kind in wants}
    assert len(debugged.messages) == 1


def test_hits_are_not_logged(debugged):
    """Though somebody listens to them."""
    seen = Recorder()
    assert Emitter("prices", seen).hit(a_record(), 17.0)
    assert (seen.kinds(), debugged.messages) == (["hit"], [])


def test_a_listener_that_fails_is_blamed_once(caplog):
    """By what it is; the others are told of each event."""

    class Broken:
        def __call__(self, event):
            raise OSError("no room")

        def __repr__(self):
            return "<the broken one>"

    seen = Recorder()
    tell = Emitter("prices", Broken())
    tell.add(seen, False), tell.add(Broken(), False)
    for _ in range(2):
        tell.resumed(("a",), 1.5)
    assert seen.count("resume") == 2
    assert caplog.messages == ["prices: its listener <the broken one> failed; told once"] * 2
    assert caplog.records[0].exc_info[0] is OSError


def test_a_listener_that_cannot_say_what_it_wants(caplog):
    """It is blamed for that once, and gets nothing."""

    class Odd(Recorder):
        @property
        def wants(self):
            raise OSError("no idea")

        @wants.setter
        def wants(self, _):
            pass

        def __repr__(self):
            return "<the odd one>"

    odd, seen = Odd(), Recorder()
    tell = Emitter("prices", odd)
    assert not tell.wants("resume")
    tell.add(seen, False)
    for _ in range(2):
        tell.resumed(("a",), 1.5)
    assert (odd.events, seen.count("resume")) == ([], 2)
    assert caplog.messages == ["prices: its listener <the odd one> failed; told once"]


def test_where_nobody_can_be_blamed_nothing_is_raised(monkeypatch):
    """As where no stack is left for the line."""

    def fails(event):
        raise ValueError

    def shown(listener):
        blamed.append(listener)
        raise RecursionError

    blamed, tell = [], Emitter("prices", fails)
    monkeypatch.setattr(emitter, "shown", shown)
    tell.resumed(("a",), 1.5)
    assert blamed == [fails]


@pytest.mark.parametrize("level", [logging.DEBUG, logging.ERROR])
def test_a_log_that_fails_harms_nobody(caplog, level):
    """A filter that raises is not the caller's; the next event is told again."""

    def broken(record):
        filtered.append(record.levelno)
        raise OSError("no log")

    def fails(event):
        raise ValueError

    filtered, logger = [], logging.getLogger("singleflight")
    tell = Emitter("prices", fails)
    logger.addFilter(broken)
    try:
        with caplog.at_level(level, "singleflight"):
            for _ in range(2):
                tell.resumed(("a",), 1.5)
                assert tell.wants("resume")
    finally:
        logger.removeFilter(broken)
    assert filtered == {logging.DEBUG: [10, 40, 10], logging.ERROR: [40]}[level]


def test_the_log_is_blamed_once(debugged):
    """For a line that it could not write."""

    def broken(record):
        if record.levelno == logging.DEBUG:
            raise OSError("no log")
        return True

    tell, logger = Emitter("prices", None), logging.getLogger("singleflight")
    logger.addFilter(broken)
    try:
        for _ in range(2):
            tell.resumed(("a",), 1.5)
    finally:
        logger.removeFilter(broken)
    assert debugged.messages == ["prices: its listener <Logger singleflight (DEBUG)> failed; told once"]
