"""What one flight tells of its end, and what it lands with, of a server that is a script: nothing is sent."""

import logging
import time
from types import SimpleNamespace

import pytest

from singleflight import FlightDeadlock, FlightTimeout
from singleflight.core.flight import LANDED
from singleflight.core.landing import Verdict
from singleflight.fleet.claims import Release
from singleflight.fleet.envelopes import Envelope
from singleflight.fleet.failures import failure_bytes
from singleflight.fleet.replies import AGAIN
from singleflight.redis import passage
from singleflight.redis.entries import Brought
from singleflight.redis.passage import RUN
from singleflight.telemetry.emitter import Emitter

from .passages import (
    AWAY,
    HERE,
    NOT_TOLD,
    PERIOD,
    REFUSED,
    TOLD,
    Link,
    Made,
    Struck,
    leased,
)

# -- the end ---------------------------------------------------------------------------------------------


def test_a_value_with_all_that_may_be_said_of_it():
    """Its tags, its grace, and when a renewal begins travel with it."""
    made = Made(tags=lambda landing: ["blue"], grace=30, refresh_ahead=0.5)
    made.lead()
    packed = made.packed("value", b"x", 4, 60.0, 30.0, 30.0, tags=("blue",))
    assert made.steps.send((b"x", None)) == [made.publish(packed, 30_000, 90_000)]
    record = made.end(TOLD).arrival[3]
    assert record.tags == made.entries.marks(made.passage.digest, ("blue",))


def test_a_value_of_which_the_server_could_not_be_told_is_near():
    """It may be one message of the bus old, as any near value. A server that answers frees the lease."""
    for came in (([AWAY], None), (None, AWAY), ([REFUSED], None)):
        made = Made()
        made.lead()
        made.steps.send((b"x", None))
        assert made.end(came).arrival[3].born == 77
        (told,) = made.link.troubles
        refused = came == ([REFUSED], None)
        assert told == (REFUSED if refused else AWAY, PERIOD)
        assert made.link.keeper.orders == ([made.release(None)] if refused else [])
        assert made.counted() == {}
    made = Made()
    made.lead()
    made.link.connected = None
    assert made.end((b"x", None)).arrival[3] is not None
    assert (made.link.troubles, made.has_left()) == ([], True)
    assert made.link.keeper.orders == []


def test_a_value_whose_lease_has_ended_is_its_callers_alone():
    """It is counted and told."""
    made = Made()
    made.lead()
    made.steps.send((b"x", None))
    brought = made.end(NOT_TOLD)
    assert (brought.value, brought.arrival) == (b"x", (True, 60.0, 1000.0, None))
    assert made.counted() == {"refused": 1}
    assert (made.told(), made.events[1].value) == (["claimed", "refused"], b"x")
    assert made.events[1].flight_id == 12


def test_a_failure_whose_lease_has_ended_is_not_counted_as_a_value():
    """Nor told as one; it is not stored."""
    made = Made(failure_ttl=5)
    made.lead()
    made.steps.send((None, ValueError()))
    assert made.end(NOT_TOLD).verdict.ttl == 0.0
    assert (made.counted(), made.told()) == ({}, ["claimed"])


@pytest.mark.parametrize("cut", [True, False])
def test_a_value_that_is_not_stored_here_may_be_an_old_one(cut):
    """A tag was invalidated since: who has come since is to fly again."""
    made = Made(tags=lambda landing: ["blue"])
    made.lead()
    if cut:
        made.function.invalidate_tag("blue")
    made.steps.send((b"x", None))
    assert made.end(NOT_TOLD).arrival == (None if cut else True, 60.0, 1000.0, None)


def test_a_value_that_is_not_stored_is_passed_on():
    """Its ttl is 0: those who wait receive it."""
    made = Made(ttl=lambda landing: 0.0)
    made.lead()
    packed = made.packed("value", b"x", 4)
    assert made.steps.send((b"x", None)) == [made.pass_on(packed)]
    assert made.end(TOLD).arrival == (True, 0.0, 1000.0, None)


@pytest.mark.parametrize("retries", [0, 3, -1])
def test_a_value_that_is_refused_is_tried_again_elsewhere(retries):
    """With a retry less; with none left it is passed to those who wait."""
    made = Made(cache_if=lambda value: False, flight={"retries": None})
    made.lead(retries=retries)
    packed = made.packed("value", b"x", 4, refused=True)
    left = {0: None, 3: 2, -1: None}[retries]
    asked = made.steps.send((b"x", None))
    assert asked == [made.pass_on(packed) if retries == 0 else made.release(left)]
    assert made.end(TOLD).arrival == (False, 60.0, 1000.0, None)


def test_a_value_whose_flight_was_detached_is_given_to_nobody_else():
    """Its key was dropped: who has come since must not have it."""
    made = Made(ttl=0.5)
    made.lead()
    made.flight.detached = True
    assert made.steps.send((b"x", None)) == [made.release(None)]
    assert made.end(TOLD).arrival == (True, 0.5, 1000.0, None)


@pytest.mark.parametrize("noted", [False, True])
def test_a_value_whose_flight_is_fenced_is_given_to_others(noted):
    """It was detached for what it may have missed; but not where this process has dropped its key."""
    made = Made()
    made.lead()
    made.flight.detached = made.passage.fenced = True
    if noted:
        made.link.noted["drop"] = "drop"
    told = made.publish(made.packed("value", b"x", 4, 60.0), 60_000, 60_000)
    assert made.steps.send((b"x", None)) == [made.release(None) if noted else told]
    assert made.link.asked_for == [(made.entries.digest, made.passage.digest)]


def test_a_value_that_is_too_large_is_not_shared(caplog):
    """Each process loads its own; here it is near. It is said once."""
    made = Made(max_value=100)
    made.lead()
    with caplog.at_level(logging.WARNING, "singleflight"):
        assert made.steps.send((b"x" * 200, None)) == [made.pass_on(b"")]
    assert made.end(TOLD).arrival[3].value == b"x" * 200
    (line,) = caplog.messages
    assert line.startswith("prices: the value of ('a',) cannot be shared: 2")
    assert line.endswith("; said once")


def failure(error, **fields):
    return Envelope("failure", failure_bytes(error, HERE, (ValueError,)), 4, **fields)


@pytest.mark.parametrize("retries", [0, 3])
def test_a_failure_is_told(retries):
    """It is tried again elsewhere while retries are left, and then passed to all who wait."""
    made = Made(errors=(ValueError,))
    made.lead(retries=retries)
    error = ValueError("no")
    packed = made.packed(*failure(error, ttl=0.0))
    asked = made.steps.send((None, error))
    assert asked == [made.release(2) if retries else made.pass_on(packed)]
    brought = made.end(TOLD)
    assert (brought.error, brought.arrival) == (error, None)
    assert brought.verdict == Verdict(error, 0.0, marks=made.entries.marks(made.passage.digest, ()))
    assert made.has_left()


@pytest.mark.parametrize("failure_ttl", [5.0, 50.0])
def test_a_failure_that_is_kept(failure_ttl):
    """On the server for as long as `failure_ttl` says, here no longer than what is near."""
    made = Made(errors=(ValueError,), failure_ttl=failure_ttl)
    made.lead(retries=2)
    error = ValueError("no")
    packed = made.packed(*failure(error, ttl=failure_ttl))
    life = round(failure_ttl * 1000)
    assert made.steps.send((None, error)) == [made.publish(packed, life, life, Release(1))]
    assert made.end(TOLD).verdict.ttl == min(failure_ttl, 10.0)


@pytest.mark.parametrize("retries", [0, 3])
def test_a_failure_that_is_too_large_is_its_callers_all_the_same(retries, caplog):
    """Others try again while retries are left, and then each for itself. It is said once."""
    made = Made(max_value=300, failure_ttl=5)
    made.lead(retries=retries)
    error = ValueError("no" * 200)
    with caplog.at_level(logging.WARNING, "singleflight"):
        asked = made.steps.send((None, error))
    assert asked == [made.release(2) if retries else made.pass_on(b"")]
    brought = made.end(TOLD)
    assert brought.error is error
    assert brought.verdict == Verdict(error, 5.0, marks=made.entries.marks(made.passage.digest, ()))
    (line,) = caplog.messages
    assert line.startswith("prices: the value of ('a',) is an error that cannot be shared: ")
    assert line.endswith(" bytes are more than max_value=300 allows to share; said once")
    assert made.has_left()


def test_a_failure_that_was_judged_is_judged_once():
    """For all that the loader ran for."""
    asked = []
    made = Made(errors=(ValueError,), failure_ttl=lambda error: asked.append(error) or 5.0)
    made.lead(retries=0)
    error, other = ValueError("no"), ValueError("another")
    made.passage.judged = Verdict(other, 3.0)
    packed = made.packed(*failure(other, ttl=3.0))
    assert made.steps.send((None, error)) == [made.publish(packed, 3000, 3000)]
    brought = made.end(TOLD)
    assert (brought.error, brought.verdict.error, asked) == (other, other, [])


def test_a_failure_of_a_flight_that_has_ended_is_not_judged():
    """It lost its key, and its callers have theirs."""
    made = Made(failure_ttl=lambda error: 1 / 0)
    made.lead(retries=0)
    made.flight.state = LANDED
    made.steps.send((None, ValueError("no")))
    assert made.end(TOLD).verdict.fault is None


@pytest.mark.parametrize("error", [FlightTimeout("late"), FlightDeadlock("a cycle")])
def test_what_says_nothing_of_the_key_is_told_to_nobody(error):
    """Others run the function, with as many retries."""
    made = Made()
    made.lead(retries=2)
    assert made.steps.send((None, error)) == [made.release(2)]
    assert made.end(TOLD).error is error


def test_an_abort_of_the_function_waits_for_nobody():
    """The keeper frees the lease; and the error goes to its callers as it is."""
    made = Made()
    made.lead(retries=2)
    struck = Struck()
    assert made.end((None, struck)) == Brought(None, error=struck)
    assert made.link.keeper.orders == [made.release(2)]
    assert made.has_left()


def test_an_abort_of_what_looks_at_the_value():
    """As one of the function."""

    def cache_if(value):
        raise Struck

    made = Made(cache_if=cache_if)
    made.lead(retries=2)
    brought = made.end((b"x", None))
    assert isinstance(brought.error, Struck)
    assert (brought.value, brought.verdict) == (None, None)
    assert made.link.keeper.orders == [made.release(2)]


def test_what_the_options_raise_is_the_flights_failure():
    """Of its value nothing is told."""

    def cache_if(value):
        raise ValueError("no")

    made = Made(cache_if=cache_if)
    made.lead(retries=2)
    assert made.steps.send((b"x", None)) == [made.release(1)]
    brought = made.end(TOLD)
    assert isinstance(brought.error, ValueError)
    assert brought.verdict.error is brought.error
    assert brought.value is None


def test_an_abort_of_what_judges_a_failure_takes_its_place():
    """Nobody is to wait for it."""

    def failure_ttl(error):
        raise Struck

    made = Made(failure_ttl=failure_ttl)
    made.lead(retries=2)
    brought = made.end((None, ValueError("no")))
    assert isinstance(brought.error, Struck)
    assert made.link.keeper.orders == [made.release(2)]


def test_an_interrupt_while_the_server_is_told_ends_it():
    """Whether it was told nobody knows: the lease is freed all the same."""
    made = Made()
    made.lead(retries=2)
    made.steps.send((b"x", None))
    with pytest.raises(Struck):
        made.steps.send((None, Struck()))
    assert made.link.keeper.orders == [made.release(2)]
    assert made.has_left()


def test_a_driver_that_stops_gives_the_lease_back():
    """While its function runs, or is asked for; not where it waits."""
    made = Made()
    made.lead(retries=2)
    made.steps.close()
    assert made.link.keeper.orders == [made.release(2)]
    assert made.has_left()
    made = Made()
    made.entries.numbers.forget()
    next(made.steps)
    made.steps.close()  # it has not found its place yet
    assert made.link.keeper.orders == []
    assert made.entries.flying == {}


@pytest.mark.parametrize("stopped", [False, True])
def test_an_interrupt_of_its_leaving_is_made_good(stopped):
    """What it left is done again, and a lease that it had is given back; the interrupt goes on."""
    made = Made()
    made.lead(retries=2)
    boxes, times = made.link.mailboxes, []

    def interrupted(name, box):
        times.append(name)
        if len(times) == 1:
            raise Struck
        boxes.leave(name, box)

    made.link.mailboxes = SimpleNamespace(leave=interrupted)
    if stopped:
        with pytest.raises(Struck):
            made.steps.close()
    else:
        made.steps.send((b"x", None))
        with pytest.raises(Struck):
            made.steps.send(TOLD)
    assert made.link.keeper.orders == ([made.release(2)] if stopped else [])
    assert len(times) == 2
    made.link.mailboxes = boxes
    assert made.has_left()


def test_a_key_that_the_loader_has_left_out():
    """Others hear that it is missing, with a retry less; nothing is stored."""
    made = Made(cache_if=lambda value: True)
    made.lead(retries=0)
    made.passage.lacks = True
    packed = made.packed("none", b"", 4, refused=True)
    assert made.steps.send((None, None)) == [made.pass_on(packed)]
    assert made.end(TOLD).arrival == (False, 0.0, 1000.0, None)


# -- leases ----------------------------------------------------------------------------------------------


def test_a_lease_that_is_lost_is_counted_and_told_once():
    """The function's value is then its callers' alone; nobody is told of it."""
    made = Made()
    made.lead()
    (lease,) = made.link.keeper.held
    lease.lost(lease), lease.lost(lease)
    assert made.counted() == {"leases_lost": 1}
    assert (made.told(), made.events[1].flight_id) == (["claimed", "lease_lost"], 12)
    assert made.entries.led() == []
    brought = made.end((b"x", None))
    assert brought.arrival == (True, 60.0, 1000.0, None)
    assert made.link.keeper.orders == []


def test_a_failure_without_a_lease_is_told_to_nobody():
    """Neither an abort."""
    for error in (ValueError("no"), Struck()):
        made = Made()
        made.lead()
        (lease,) = made.link.keeper.held
        lease.lost(lease)
        brought = made.end((None, error))
        assert brought.error is error
        assert made.link.keeper.orders == []


def test_a_lease_counts_from_when_it_was_asked_for(monkeypatch):
    """The answer may have waited for a loop that was busy, or for a slow server."""
    now = SimpleNamespace(at=100.0)
    monkeypatch.setattr(passage, "time", SimpleNamespace(monotonic=lambda: now.at))
    made = Made()
    made.ask()
    now.at = 104.0
    assert made.steps.send(leased()) is RUN
    (lease,) = made.link.keeper.held
    assert lease.renewed == 100.0


def test_a_lease_is_renewed_while_its_value_is_looked_at():
    """That may take long, and so may the values of others, which are told in the same pipeline."""
    held = []
    made = Made(cache_if=lambda value: held.extend(made.link.keeper.held) or True)
    made.lead()
    made.steps.send((b"x", None))
    assert held == made.link.keeper.held != []
    made.passage._lost(held[0])  # the keeper renews it when the server has been told
    made.end(TOLD)
    assert made.has_left()
    assert (made.counted(), made.told()) == ({}, ["claimed"])


def test_a_lease_is_renewed_while_somebody_is_left_to_end_its_flight():
    """One that takes too long loses its key when the keeper asks."""
    made = Made()
    made.lead()
    (lease,) = made.link.keeper.held
    assert lease.wanted()
    made.flight.due = time.monotonic() + 1000
    assert lease.wanted()
    unseated = []
    made.flight.cache = SimpleNamespace(unseat=unseated.append)
    made.flight.due = time.monotonic() - 1
    assert lease.wanted()
    assert unseated == [made.flight]
    made.flight.state = LANDED
    assert not lease.wanted()


def test_a_failure_of_what_has_not_asked_is_told_to_nobody():
    """It has no place on the server."""
    made = Made()
    made.link.connected = None
    assert next(made.steps) is RUN
    error = ValueError("no")
    assert made.end((None, error)).error is error
    assert made.link.keeper.orders == []


def test_where_the_clock_raises_a_flight_began_when_it_was_claimed():
    """That is known."""
    made = Made()
    made.ask()
    made.now = None

    def broken():
        raise LookupError

    made.cache.timer = broken
    assert made.steps.send(leased()) is RUN
    assert made.flight.started == 900.0


def test_what_others_see_of_it():
    """Its key, by a name that has a bound; where its entry is; whose it is."""
    made = Made(flight={"retries": 1})
    made.ask()
    assert (made.passage.text, made.passage.place) == ("('a',)", made.place)
    assert made.passage.is_of(made.link)
    assert not made.passage.is_of(Link())
    assert not made.passage.waited
    assert made.passage.leader is None
    assert made.passage.claim.retries == 1
    assert not made.passage.lacks


def test_where_nobody_listens_nothing_is_told(monkeypatch):
    """No event is made: what is asked first is whether one is wanted."""
    monkeypatch.setattr(Emitter, "tell", None)
    made = Made(listener=None)
    made.lead()
    made.steps.send((b"x", None))
    made.end(NOT_TOLD)
    made = Made(listener=None)
    made.wait()
    made.box.wake = AGAIN
    made.steps.send((True, None))
    made.end(made.found("value", b"x"))
    made = Made(listener=None)
    made.lead()
    (lease,) = made.link.keeper.held
    lease.lost(lease)
    assert made.counted() == {"leases_lost": 1}
