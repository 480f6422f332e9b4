"""How one flight waits for another process, by a clock that the test sets: no server is asked."""

from types import SimpleNamespace

import pytest

from singleflight import FlightDeadlock, FlightTimeout
from singleflight.fleet.replies import AGAIN, Found, Wake
from singleflight.redis import passage, scripts
from singleflight.redis.cycles import LOOK, PAUSE
from singleflight.redis.entries import Brought, SharedRecord
from singleflight.redis.passage import RUN, leading
from singleflight.storage.record import TaggedRecord

from .passages import AWAY, KEY, Made, Struck, leased, waiting


@pytest.fixture
def clock(monkeypatch):
    """The monotonic time that a passage sees: the test sets it."""
    now = SimpleNamespace(at=100.0)
    monkeypatch.setattr(passage, "time", SimpleNamespace(monotonic=lambda: now.at))
    return now


# -- waiting for another process -------------------------------------------------------------------------


def test_it_waits_for_as_long_as_the_lease_lasts(clock):
    """It looks who waits for it meanwhile, tells once that it waits, and its own time does not run."""
    made = Made(flight={"retries": 3, "kind": "call"})
    assert made.wait(left=600) == LOOK
    flight = made.flight
    assert (flight.kind, flight.retries, flight.due) == ("shared", 3, None)
    assert (made.passage.leader, made.passage.waited) == ("process 2", True)
    (event,) = made.events
    assert (event.kind, event.leader, event.flight_id) == ("shared_wait", "process 2", 12)
    clock.at = 100.5
    assert made.steps.send((False, None)) == pytest.approx(0.12)  # of 0.6 s and a little
    clock.at = 100.63
    assert made.steps.send((False, None)) == [made.claim(chain=b"c")]
    assert made.passage.leader is None
    assert made.steps.send(waiting(left=100, leader="process 3")) == pytest.approx(0.12)
    assert made.passage.leader == "process 3"
    assert made.told() == ["shared_wait"]
    assert made.counted() == {"shared_waits": 1}
    assert made.entries.led() == []
    clock.at = 101.0
    assert made.steps.send((False, None)) == [made.claim(chain=b"c")]
    assert made.steps.send(leased(2)) is RUN
    assert (flight.kind, flight.retries) == ("call", 2)
    assert made.link.keeper.orders == []


def test_who_hears_nothing_asks_again_and_again(clock):
    """On the bus's own thread no wake would be heard."""
    made = Made()
    made.link.bus.hears = False
    assert made.wait() == pytest.approx(0.05)


@pytest.mark.parametrize("wake", ["value", "passed", "nothing", "again", "another chain"])
def test_a_wake_ends_the_wait(wake, clock):
    """It brings the value, or what is not stored; or has it ask again, or run its function."""
    made = Made()
    made.wait()
    value = Found(made.packed("value", b"x", 4, 60.0), 60_000, 60_000, 55)
    refused = Found(made.packed("value", b"y", 4, refused=True), 0, 0, 0)
    made.box.wake = {
        "value": Wake("value", value, b"c"),
        "passed": Wake("passed", refused, b"c"),
        "nothing": Wake("passed", chain=b"c"),
        "again": AGAIN,
        "another chain": Wake("value", value, b"d"),
    }[wake]
    assert made.passage.is_rung
    made.now = 1005.0
    if wake == "value":
        brought = made.end((True, None))
        assert (brought.value, brought.arrival[3].born) == (b"x", 55)
        assert made.counted() == {"shared_waits": 1}
    elif wake == "passed":
        brought = made.end((True, None))
        assert brought == Brought(b"y", arrival=(False, 0.0, 1005.0, None))
        assert (made.flight.kind, made.flight.retries) == ("shared", 0)
        assert made.told() == ["shared_wait"]
    else:
        asked = made.steps.send((True, None))
        assert asked is RUN if wake == "nothing" else asked == [made.claim(chain=b"c")]
        assert not made.passage.is_rung


def test_a_value_that_was_stored_and_has_nothing_left_is_its_callers_alone():
    """It may be stored: it was not refused."""
    made = Made()
    made.ask()
    brought = made.end(made.found("value", b"x", left=0))
    assert brought == Brought(b"x", arrival=(True, 0.0, 1000.0, None))
    assert made.counted() == {"shared_hits": 1}


def test_none_that_is_shared_and_not_stored_is_missing_in_a_bulk_answer():
    """A loader may have left it out."""
    made = Made()
    made.ask()
    assert made.end(([b"p" + made.packed("none", refused=True)], None)).missing


def test_a_wake_that_overtakes_the_answer_is_heeded(clock):
    """It has come to the box before the wait begins."""
    made = Made()
    made.ask()
    made.box.wake = Wake("value", Found(made.packed("value", b"x", 4, 60.0), 60_000, 60_000, 55), b"c")
    assert made.steps.send(waiting()) == LOOK
    assert made.end((True, None)).value == b"x"


def test_a_bell_without_a_wake_goes_on(clock):
    """Its lease may have ended: it asks."""
    made = Made()
    made.wait()
    assert made.steps.send((True, None)) == [made.claim(chain=b"c")]


def test_where_the_server_is_lost_while_it_waits_the_function_runs_here(clock):
    """It was woken for that, or its time is over."""
    made = Made()
    made.wait()
    made.link.breaker.state = "degraded"
    assert made.steps.send((True, None)) is RUN
    assert made.entries.led() == []


def test_a_caller_who_waits_no_longer_gives_up(clock):
    """After `wait_timeout` since it set out, but not while a wake is there."""
    made = Made(wait_timeout=0.3)
    clock.at = 100.1  # it has asked for that long
    assert made.wait() == pytest.approx(0.2)
    clock.at = 100.2
    assert made.steps.send((False, None)) == pytest.approx(0.1)
    clock.at = 100.3
    brought = made.end((False, None))
    assert isinstance(brought.error, FlightTimeout)
    assert str(brought.error) == "prices: waited 0.3 s for ('a',)"
    assert (made.told(), made.events[1].leads) == (["shared_wait", "timeout"], True)
    assert made.events[1].waited == pytest.approx(0.3)
    assert made.has_left()
    made = Made(wait_timeout=0.3)
    made.wait()
    made.box.wake = AGAIN
    clock.at = 101.0
    assert made.steps.send((True, None)) == [made.claim(chain=b"c")]
    assert made.end(waiting()).error is not None


def test_a_lease_that_ends_before_the_caller_gives_up(clock):
    """It is asked for again."""
    made = Made(wait_timeout=5)
    assert made.wait(left=100) == pytest.approx(0.12)
    clock.at = 100.12
    assert made.steps.send((False, None)) == [made.claim(chain=b"c")]


@pytest.mark.parametrize("error", [None, ValueError("no")])
def test_a_forked_child_runs_the_function_for_itself(error, clock):
    """The fork came while its flight waited: it is woken by nobody, and has the function's own outcome."""
    made = Made()
    made.wait(left=100)
    made.passage.claim.forked()
    clock.at = 101.0
    assert made.steps.send((False, None)) is RUN
    assert made.entries.led() == []
    assert made.end((None if error else b"x", error)) == Brought(None if error else b"x", error=error)
    assert made.link.keeper.orders == []
    assert made.has_left()


def a_renewal(made, born=44, **fields):
    record = SharedRecord(KEY, b"old", 900.0, 10.0, 100.0, 905.0)
    record.born = born
    return {"kind": "refresh", "background": True, "previous": record, **fields}


def test_a_renewal_that_another_process_does_is_left_to_it():
    """It asks for what is younger than the value that it has."""
    made = Made(flight=a_renewal(None))
    made.ask(mode="renew", seen=44)
    assert made.end(waiting(kind=b"n")) is None
    assert made.has_left()


def test_what_a_claim_asks_for():
    """A refresh whatever is stored; a renewal what is younger, if the value here came from the server."""
    made = Made(flight={"kind": "refresh"})
    made.ask(mode="force")
    record = TaggedRecord(KEY, b"old", 900.0, 10.0, 100.0, 905.0)
    made = Made(flight={"kind": "refresh", "background": True, "previous": record})
    made.ask(mode="renew")
    made = Made(flight={"previous": a_renewal(None)["previous"]})
    made.ask()


def test_a_forked_child_renews_nothing(clock):
    """Its parent does, or whoever that waits for."""
    made = Made(flight=a_renewal(None))
    made.ask(mode="renew", seen=44)
    made.passage.claim.forked()
    assert made.end((None, AWAY)) is None


def test_a_background_renewal_waits_without_a_look(clock):
    """Nobody waits for it, so it can close no cycle: it wakes once."""
    made = Made(flight=a_renewal(None))
    made.ask(mode="renew", seen=44)
    assert made.steps.send(waiting(left=600)) == pytest.approx(0.62)
    assert made.steps.send((False, None)) == [made.claim("renew", seen=44, chain=b"c")]
    assert made.steps.send(waiting(left=600)) == pytest.approx(0.62)
    struck = Struck()
    assert made.end((None, struck)).error is struck


@pytest.mark.parametrize("fields", [{"kind": "refresh"}, {"background": True}])
def test_others_wait_with_a_look(fields, clock):
    """Somebody may wait for them."""
    made = Made(flight=fields)
    made.ask(mode="force" if "kind" in fields else "renew")
    assert made.steps.send(waiting()) == LOOK


# -- cycles ----------------------------------------------------------------------------------------------


class Outer:
    """A flight that another one is inside of, or that waits for it."""

    def __init__(self, name, link, renews=True):
        self.place, self.text = scripts.place(name), f"<{name}>"
        self.claim, self.flight, self.link = SimpleNamespace(renews=renews), object(), link

    def is_of(self, link):
        return link is self.link


@pytest.fixture
def inside():
    """Has what runs from now on be inside of these flights."""
    token = leading.set(())

    def enter(*outer):
        leading.set(outer)

    yield enter
    leading.reset(token)


def edge(of, target, text):
    """The reply of a hash with one edge: from a flight to what it waits for."""
    name = target.flights
    return {b"nonce of " + of: len(name).to_bytes(2, "big") + name + text.encode()}


def hash_of(place):
    return place.flights + b"w"


def commands(calls):
    return [call.args[:2] for call in calls]


def look(*places):
    return [scripts.command("HGETALL", hash_of(place)) for place in places]


NO_EDGE = ([{}], None)


def test_a_wait_inside_of_a_flight_notes_an_edge(clock, inside):
    """For as long as a lease and a second, and takes it back when it has ended."""
    made = Made()
    others = Outer("no lease", made.link, renews=False), Outer("elsewhere", object())
    outer = Outer("outer", made.link)
    inside(others[0], outer, others[1])
    noted = made.wait()
    assert commands(noted) == [("HSET", hash_of(outer.place)), ("PEXPIRE", hash_of(outer.place))]
    assert noted[1].args[2] == 3000
    nonce, value = noted[0].args[2:]
    assert value == len(made.place.flights).to_bytes(2, "big") + made.place.flights + b"('a',)"
    assert made.steps.send(([1, 1], None)) == look(made.place)
    assert made.steps.send(NO_EDGE) == LOOK
    assert made.steps.send((False, None)) == look(made.place)  # it is noted once
    assert made.steps.send(NO_EDGE) == LOOK
    assert made.link.keeper.orders == []
    made.steps.close()
    assert made.link.keeper.orders == [scripts.command("HDEL", hash_of(outer.place), nonce)]
    assert made.has_left()


def closing(made, outer):
    """The reply by which what it waits for waits for the flight that it is inside of."""
    return [edge(b"1", outer.place, "<b>")], None


def test_a_cycle_that_is_seen_twice_is_an_error(clock, inside):
    """The second time a moment later: what was read may have been old. It is told, by its keys."""
    made = Made()
    outer = Outer("outer", made.link)
    inside(outer)
    made.wait()
    made.steps.send(([1, 1], None))
    assert made.steps.send(closing(made, outer)) == PAUSE
    assert made.steps.send((False, None)) == look(made.place)
    brought = made.end(closing(made, outer))
    assert isinstance(brought.error, FlightDeadlock)
    assert str(brought.error) == (
        "prices: waiting would never end, over several processes: <outer> -> ('a',) -> <b>"
    )
    assert (made.told(), made.events[1].leads) == (["shared_wait", "deadlock"], True)
    assert made.events[1].cycle == "<outer> -> ('a',) -> <b>"
    assert commands(made.link.keeper.orders) == [("HDEL", hash_of(outer.place))]
    assert made.has_left()
    assert made.passage.leader is None


def test_a_cycle_that_has_gone_is_none(clock, inside):
    """Nor is one that has come anew since."""
    made = Made()
    outer = Outer("outer", made.link)
    inside(outer)
    made.wait()
    made.steps.send(([1, 1], None))
    assert made.steps.send(closing(made, outer)) == PAUSE
    made.steps.send((False, None))
    assert made.steps.send(([edge(b"2", outer.place, "<b>")], None)) == PAUSE
    made.steps.send((False, None))
    assert made.steps.send(NO_EDGE) == LOOK
    made.steps.send((False, None))
    assert made.steps.send(closing(made, outer)) == PAUSE


def waits_here(made, monkeypatch, *names):
    """Flights that this process leads wait for this one."""
    others = [Outer(name, made.link) for name in names]
    made.flight.followers = 1
    made.link.all.append(SimpleNamespace(led=lambda: others))
    held = {other.flight for other in others}
    monkeypatch.setattr(passage, "holds_up", lambda flight, other: flight is made.flight and other in held)
    return others


def test_a_cycle_of_others_is_left_to_them_at_first(clock, inside, monkeypatch):
    """Who is inside of a flight of it sees it as well. The third time nobody has."""
    made = Made()
    (other,) = waits_here(made, monkeypatch, "other")
    noted = made.wait()
    assert commands(noted) == [("HSET", hash_of(other.place)), ("PEXPIRE", hash_of(other.place))]
    made.steps.send(([1, 1], None))
    assert made.steps.send(closing(made, other)) == PAUSE
    for _ in range(2):
        made.steps.send((False, None))
        assert made.steps.send(closing(made, other)) == LOOK
        made.steps.send((False, None))
        assert made.steps.send(closing(made, other)) == PAUSE
    made.steps.send((False, None))
    assert isinstance(made.end(closing(made, other)).error, FlightDeadlock)


def test_sightings_of_a_cycle_count_in_a_row(clock, inside, monkeypatch):
    """One that has gone and comes again is left to others anew."""
    made = Made()
    (other,) = waits_here(made, monkeypatch, "other")
    made.wait()
    made.steps.send(([1, 1], None))

    def seen(times):
        for _ in range(times):
            assert made.steps.send(closing(made, other)) == PAUSE
            made.steps.send((False, None))
            assert made.steps.send(closing(made, other)) == LOOK
            made.steps.send((False, None))

    seen(2)
    assert made.steps.send(NO_EDGE) == LOOK
    made.steps.send((False, None))
    seen(2)
    assert made.steps.send(closing(made, other)) == PAUSE
    made.steps.send((False, None))
    assert made.end(closing(made, other)).error is not None


def test_whoever_comes_to_wait_is_noted(clock, inside, monkeypatch):
    """And taken back when he has gone; one that it is inside of is noted once."""
    made = Made()
    assert made.wait() == LOOK
    (other,) = waits_here(made, monkeypatch, "other")
    noted = made.steps.send((False, None))
    assert commands(noted) == [("HSET", hash_of(other.place)), ("PEXPIRE", hash_of(other.place))]
    made.steps.send(([1, 1], None))
    assert made.steps.send(NO_EDGE) == LOOK
    inside(other)
    assert made.steps.send((False, None)) == look(made.place)
    made.steps.send(NO_EDGE)
    made.flight.followers = 0
    inside()
    assert commands(made.steps.send((False, None))) == [("HDEL", hash_of(other.place))]
    assert made.steps.send(([1], None)) == LOOK
    made.steps.close()
    assert made.link.keeper.orders == []


def test_nobody_is_looked_for_where_nobody_follows(clock, inside, monkeypatch):
    """Nor are those noted who do not wait for it."""
    made = Made()
    waits_here(made, monkeypatch, "other")
    made.flight.followers = 0
    assert made.wait() == LOOK
    made = Made()
    waits_here(made, monkeypatch, "other")
    monkeypatch.setattr(passage, "holds_up", lambda flight, other: False)
    assert made.wait() == LOOK


@pytest.mark.parametrize("where", ["note", "look"])
def test_where_edges_cannot_be_written_or_read_it_waits_all_the_same(where, clock, inside):
    """A cycle then ends with a lease."""
    made = Made()
    inside(Outer("outer", made.link))
    made.wait()
    assert made.steps.send((None, AWAY) if where == "note" else ([1, 1], None)) == look(made.place)
    assert made.steps.send((None, AWAY) if where == "look" else NO_EDGE) == LOOK


@pytest.mark.parametrize("where", ["note", "look", "wait"])
def test_an_interrupt_takes_the_edges_back(where, clock, inside):
    """It ends the flight."""
    made = Made()
    outer = Outer("outer", made.link)
    inside(outer)
    made.wait()
    if where != "note":
        made.steps.send(([1, 1], None))
    if where == "wait":
        made.steps.send(NO_EDGE)
    struck = Struck()
    assert made.end((None, struck)).error is struck
    assert commands(made.link.keeper.orders) == [("HDEL", hash_of(outer.place))]
    assert made.has_left()
