"""What one flight asks, and what it makes of an answer, of a server that is a script: nothing is sent."""

import logging
import struct
from math import inf

import pytest

from singleflight.core.landing import Verdict
from singleflight.fleet.cuts import Numbers
from singleflight.fleet.drops import Drop
from singleflight.fleet.failures import failure_bytes
from singleflight.fleet.replies import AGAIN
from singleflight.redis import RemoteFailure, UnportableKey, scripts
from singleflight.redis.cycles import LOOK
from singleflight.redis.entries import Brought
from singleflight.redis.passage import LISTEN, RUN, leading

from .passages import (
    AWAY,
    KEY,
    PERIOD,
    REFUSED,
    TOLD,
    WRITTEN,
    Made,
    Struck,
    leased,
    name_in,
    place_in,
)

# -- asking ----------------------------------------------------------------------------------------------


def test_a_flight_that_is_led_for_all():
    """It asks, runs its function under the lease, tells the server of the value, and lands it near."""
    made = Made()
    steps, flight = made.steps, made.flight
    asked = next(steps)
    assert asked == [made.claim()]
    assert made.entries.flying == {flight: made.passage}
    assert made.passage.digest == made.entries.known_as(WRITTEN)
    assert made.link.mailboxes.deliver(made.place.waits(made.entries.version), AGAIN) == [made.box]
    made.box.take()
    assert flight.number > 0
    made.now = 1001.0
    assert steps.send(leased(2, 77)) is RUN
    (lease,) = made.link.keeper.held
    assert (lease.place, lease.version, lease.token) == (made.place, made.entries.version, b"t1")
    assert (flight.kind, flight.retries, flight.started, flight.due) == ("call", 2, 1001.0, None)
    assert made.entries.led() == [made.passage]
    made.now = 1003.0
    packed = made.packed("value", b"x", 4, 60.0, refresh_after=inf)
    assert steps.send((b"x", None)) == [made.publish(packed, 60_000, 60_000)]
    assert made.link.keeper.held == [lease]
    brought = made.end(TOLD)
    assert made.link.keeper.held == []
    storable, ttl, now, record = brought.arrival
    assert (brought.value, brought.error, brought.missing) == (b"x", None, False)
    assert (storable, ttl, now) == (True, 60.0, 1003.0)
    assert (record.landed, record.ttl, record.born) == (1003.0, 10.0, 77)
    assert record.tags == made.entries.marks(made.passage.digest, ())
    assert made.has_left()
    assert made.link.keeper.orders == []
    assert made.told() == ["claimed"]
    assert made.events[0].flight_id == 12
    assert (made.counted(), made.link.troubles) == ({}, [])


def test_a_key_that_has_no_name_elsewhere_ends_its_flight():
    """Before anything is asked."""
    made = Made(key=(object(),))
    brought = made.end(None)
    assert isinstance(brought.error, UnportableKey)
    assert brought.verdict is None
    assert made.entries.flying == {}


def test_numbers_that_are_not_known_are_asked_for_first():
    """By them the entry is named, and the value carries the cut; they are learnt."""
    made = Made()
    made.entries.numbers.forget()
    assert next(made.steps) == [made.entries.ask_numbers()]
    place = place_in(6)
    assert made.steps.send(([[b"6", b"9"]], None)) == [made.claim(place=place)]
    assert made.entries.latest() == Numbers(6, 9)
    assert made.link.mailboxes.deliver(place.waits(made.entries.version), AGAIN) == [made.box]
    made.box.take()
    assert made.steps.send(leased()) is RUN
    made.place = place
    packed = made.packed("value", b"x", 9, 60.0, name=name_in(6))
    assert made.steps.send((b"x", None)) == [made.publish(packed, 60_000, 60_000)]
    made.end(TOLD)
    assert made.has_left()


def test_numbers_of_an_era_before_are_not_learnt():
    """A message may have been missed since."""
    made = Made()
    made.entries.numbers.forget()
    next(made.steps)
    made.link.era = 4
    assert made.steps.send(([[b"6", b"9"]], None)) == [made.claim(place=place_in(6))]
    assert made.entries.known_numbers() is None


def test_what_was_dropped_here_is_told_first():
    """In the same order; then the numbers are asked for, unless they are known."""
    made = Made()
    made.entries.settle()
    drops = {n: Drop("drop", made.entries.digest, b"%016d" % n, n, b"written") for n in (1, 2)}
    made.link.noted = {drop: drop for drop in drops.values()}
    for number in (1, 2):
        sent = made.entries.calls_of(drops[number], Numbers(0, 4))
        came = None if number == 1 else ([1, [b"0", b"4"]], None)
        assert (next(made.steps) if came is None else made.steps.send(came)) == sent
    assert made.steps.send(([0, [b"0", b"4"]], None)) == [made.claim()]
    assert made.link.asked_for == [(made.entries.digest, made.passage.digest)]
    assert made.link.confirmed == [(drops[1], 1), (drops[2], 0)]


@pytest.mark.parametrize("trouble", [AWAY, REFUSED])
def test_where_a_drop_cannot_be_told_nothing_is_asked(trouble):
    """What is stored was dropped: the function runs here."""
    made = Made()
    made.entries.numbers.forget()
    next(made.steps)
    came = ([trouble], None) if trouble is REFUSED else (None, trouble)
    assert made.steps.send(came) is RUN
    assert made.link.troubles == [(trouble, PERIOD)]
    assert made.counted() == ({"degraded": 1} if trouble is AWAY else {})


def test_it_listens_before_it_asks():
    """Where the bus does not: what it is told then would be missed."""
    made = Made()
    made.link.bus.up = False
    assert next(made.steps) is LISTEN
    made.link.bus.up = True
    assert made.steps.send((True, None)) == [made.claim()]


def test_without_a_bus_it_asks_all_the_same():
    """It cannot have a thread: numbers are asked for, as nothing tells of newer ones."""
    made = Made()
    made.link.bus.up = False
    assert next(made.steps) is LISTEN
    assert made.steps.send((None, RuntimeError("no thread"))) == [made.entries.ask_numbers()]
    assert made.steps.send(([[None, b"4"]], None)) == [made.claim()]


@pytest.mark.parametrize("where", ["listening", "numbers", "claim", "wait", "edges"])
def test_an_interrupt_ends_it(where):
    """Wherever it comes; a lease that may be out is given back, and nothing of it is left."""
    made = Made()
    struck = Struck()
    if where == "listening":
        made.link.bus.up = False
        assert next(made.steps) is LISTEN
    elif where == "numbers":
        made.entries.numbers.forget()
        next(made.steps)
    elif where == "claim":
        made.ask()
    elif where == "wait":
        assert made.wait() == LOOK
    else:
        outer = Made()
        outer.lead()
        outer.link, outer.entries.link = made.link, made.link
        token = leading.set((outer.passage,))
        made.wait()
        leading.reset(token)
    brought = made.end((None, struck))
    assert brought == Brought(None, error=struck)
    assert brought.error is struck
    assert made.has_left()
    orders = made.link.keeper.orders
    if where == "claim":
        assert orders == [made.release(None)]
    elif where != "edges":
        assert orders == []


def test_while_the_server_is_not_asked_the_function_runs_here():
    """Its value lands near, and nobody is told."""
    made = Made()
    made.link.connected = None
    assert next(made.steps) is RUN
    assert made.counted() == {"degraded": 1}
    assert (made.link.keeper.held, made.told()) == ([], [])
    brought = made.end((b"x", None))
    assert brought.arrival[3].born == 0
    assert made.has_left()
    assert made.link.keeper.orders == []


@pytest.mark.parametrize("came", [([AWAY], None), (None, AWAY)], ids=["answered", "lost"])
def test_where_the_server_is_lost_the_function_runs_here(came):
    """As its claim fails."""
    made = Made()
    made.ask()
    assert made.steps.send(came) is RUN
    assert made.link.troubles == [(AWAY, PERIOD)]
    assert made.counted() == {"degraded": 1}
    assert made.end((b"x", None)).arrival[3] is not None


def test_where_the_server_takes_no_writes_nothing_more_is_asked():
    """A claim that finds a value writes nothing: so there is none, and the function runs here."""
    made = Made()
    made.ask()
    assert made.steps.send(([REFUSED], None)) is RUN
    assert made.link.troubles == [(REFUSED, PERIOD)]
    assert made.counted() == {}
    assert made.entries.led() == []


def test_an_answer_that_is_too_large(caplog):
    """It is counted and said once, and a lease is asked for whatever is stored; the second time none is."""
    made = Made()
    made.ask()
    large = ([b"o" + struct.pack(">Q", 5000)], None)
    with caplog.at_level(logging.WARNING, "singleflight"):
        assert made.steps.send(large) == [made.claim("force")]
        assert made.steps.send(large) is RUN
    assert made.counted() == {"unreadable": 2}
    assert caplog.messages == [
        "prices: the value of ('a',) is stored in a way that cannot be read (too large); said once"
    ]


# -- what is found --------------------------------------------------------------------------------------


def test_a_value_that_is_found_is_near():
    """For as long as it lives there, and no longer than `near_ttl`; as old as it is there."""
    made = Made(flight={"retries": 3})
    made.ask()
    made.now = 1002.0
    brought = made.end(made.found("value", b"x", left=50_000))
    storable, ttl, now, record = brought.arrival
    assert (brought.value, brought.error, brought.verdict, brought.missing) == (b"x", None, None, False)
    assert (storable, ttl, now) == (True, 20.0, 1002.0)
    assert (record.key, record.value) == (KEY, b"x")
    assert (record.landed, record.ttl, record.grace, record.refresh_at) == (990.0, 20.0, 0.0, inf)
    assert (record.born, record.tags) == (55, made.entries.marks(made.passage.digest, ()))
    assert (made.flight.kind, made.flight.retries) == ("shared", 3)
    assert made.counted() == {"shared_hits": 1}
    (event,) = made.events
    assert made.told() == ["adopted"]
    assert (event.value, event.age, event.flight_id) == (b"x", 12.0, 12)
    assert made.has_left()
    assert made.link.keeper.orders == []


def test_a_value_with_a_grace_keeps_it():
    """It may be stale already; one that has nothing left is its callers' alone."""
    made = Made(near_ttl=100.0)
    made.ask()
    record = made.end(
        made.found("value", b"x", ttl=20.0, grace=10.0, left=5_000, refresh_after=16.0)
    ).arrival[3]
    assert (record.landed, record.ttl, record.grace, record.refresh_at) == (975.0, 20.0, 10.0, 991.0)
    for near_ttl, grace, kept in ((0.5, 10.0, True), (0.0, 0.0, False)):
        made = Made(near_ttl=near_ttl)
        made.ask()
        arrival = made.end(made.found("value", b"x", ttl=0.0, grace=grace, left=10_000)).arrival
        assert (arrival[0], arrival[3] is not None) == (True, kept)


def test_no_age_is_negative():
    """The clock was set back since it asked."""
    made = Made()
    made.ask()
    made.now = 900.0
    made.end(made.found("value", b"x"))
    assert made.events[0].age == 0.0


def test_none_is_a_value():
    """That is stored there."""
    made = Made()
    made.ask()
    brought = made.end(made.found("none"))
    assert (brought.value, brought.missing, brought.arrival[0]) == (None, False, True)


@pytest.mark.parametrize("again", ["read", "unreadable"])
def test_what_cannot_be_read_is_loaded_anew(again, caplog):
    """It is counted, and logged once; if the next one cannot be read either the function runs here."""
    made = Made()
    made.ask()
    with caplog.at_level(logging.WARNING, "singleflight"):
        bad = [b"v" + struct.pack(">QQQ", 60_000, 60_000, 55) + b"??"], None
        assert made.steps.send(bad) == [made.claim("force")]
        if again == "read":
            assert made.end(made.found("value", b"x")).value == b"x"
            assert made.counted() == {"unreadable": 1, "shared_hits": 1}
        else:
            assert made.steps.send(bad) is RUN
            assert made.counted() == {"unreadable": 2}
    assert caplog.messages == [
        "prices: the value of ('a',) is stored in a way that cannot be read (format); said once"
    ]


@pytest.mark.parametrize("limit", [None, 5.0])
def test_a_failure_that_is_found(limit):
    """It ends the flight, which nobody retries, and is near for as long as it lives there."""
    made = Made(errors=(ValueError,), flight={"retries": 3})
    made.ask()
    payload = failure_bytes(ValueError("no"), "process 2", (ValueError,))
    brought = made.end(made.found("failure", payload, left=4_000 if limit else 60_000, tags=("blue",)))
    assert isinstance(brought.error, ValueError)
    assert (brought.value, brought.arrival) == (None, None)
    marks = made.entries.marks(made.passage.digest, ())
    assert brought.verdict == Verdict(brought.error, 4.0 if limit else 10.0, marks=marks)
    assert (made.flight.kind, made.flight.retries) == ("shared", 0)
    made = Made()
    made.ask()
    assert isinstance(made.end(made.found("failure", payload)).error, RemoteFailure)


def test_a_failure_that_is_passed_on_is_not_kept():
    """It is for those who wait."""
    made = Made()
    made.ask()
    payload = failure_bytes(ValueError("no"), "process 2")
    brought = made.end(([b"p" + made.packed("failure", payload)], None))
    assert isinstance(brought.error, RemoteFailure)
    assert brought.verdict.ttl == 0.0


def test_a_function_without_cuts():
    """Its values carry none."""
    made = Made()
    made.entries.numbers.forget()
    next(made.steps)
    assert made.steps.send(([[None, None]], None)) == [made.claim()]
    assert made.steps.send(leased()) is RUN
    packed = made.packed("value", b"x", 0, 60.0)
    assert made.steps.send((b"x", None)) == [made.publish(packed, 60_000, 60_000)]


def tag_key(made, tag="blue"):
    return scripts.cut_key("sf", made.entries.tag_digest(tag))


def test_a_tag_whose_last_cut_is_not_known_is_asked_for():
    """And learnt, in this era; those that are known are not."""
    made = Made()
    made.ask()
    made.link.cuts[made.entries.tag_digest("red")] = 2
    tagged = made.found("value", b"x", tags=("red", "blue"))
    assert made.steps.send(tagged) == [scripts.command("MGET", tag_key(made))]
    brought = made.end(([[b"3"]], None))
    assert brought.value == b"x"
    assert brought.arrival[3].tags == made.entries.marks(made.passage.digest, ("red", "blue"))
    assert made.link.learnt == [({made.entries.tag_digest("blue"): 3}, 3)]
    assert made.entries.numbers.ever.cut == 4


def test_a_value_whose_tag_was_invalidated_is_loaded_anew():
    """What it loads instead carries that cut, and what is known of cuts grows."""
    made = Made()
    made.ask()
    made.link.cuts[made.entries.tag_digest("blue")] = 5
    assert made.steps.send(made.found("value", b"x", tags=("blue",))) == [made.claim("force")]
    assert made.entries.latest().cut == made.entries.numbers.ever.cut == 5
    assert made.counted() == {}
    assert made.steps.send(leased()) is RUN
    packed = made.packed("value", b"y", 5, 60.0)
    assert made.steps.send((b"y", None)) == [made.publish(packed, 60_000, 60_000)]


def test_a_value_that_carries_a_later_cut_than_any_that_is_known():
    """The server has lost that one: it is remembered, and the value is served."""
    made = Made()
    made.ask()
    made.link.cuts[made.entries.tag_digest("blue")] = 3
    assert made.end(made.found("value", b"x", last_cut=8, tags=("blue",))).value == b"x"
    assert (made.entries.latest().cut, made.entries.numbers.ever.cut) == (4, 8)


def test_after_an_outdated_value_one_that_is_not_is_served():
    """Whoever leads next has found that out as well."""
    made = Made()
    made.ask()
    made.link.cuts[made.entries.tag_digest("blue")] = 5
    assert made.steps.send(made.found("value", b"x", tags=("blue",))) == [made.claim("force")]
    assert made.end(made.found("value", b"y", last_cut=5, tags=("blue",))).value == b"y"


def test_a_value_that_is_outdated_again_and_again_has_the_function_run():
    """Tags are invalidated faster than it is loaded: the fifth time it is loaded here."""
    made = Made()
    made.ask()
    made.link.cuts[made.entries.tag_digest("blue")] = 5
    for _ in range(4):
        assert made.steps.send(made.found("value", b"x", tags=("blue",))) == [made.claim("force")]
    assert made.steps.send(made.found("value", b"x", tags=("blue",))) is RUN


def test_after_an_outdated_value_one_that_cannot_be_read_has_the_function_run():
    """What was outdated before is not what it is now."""
    made = Made()
    made.ask()
    made.link.cuts[made.entries.tag_digest("blue")] = 5
    assert made.steps.send(made.found("value", b"x", tags=("blue",))) == [made.claim("force")]
    assert made.steps.send(([b"v" + struct.pack(">QQQ", 9, 9, 5) + b"??"], None)) is RUN


@pytest.mark.parametrize("came", [([AWAY], None), (None, AWAY)], ids=["answered", "lost"])
def test_where_a_tag_cannot_be_asked_for_the_value_is_not_served(came):
    """It may have been invalidated."""
    made = Made()
    made.ask()
    made.steps.send(made.found("value", b"x", tags=("blue",)))
    assert made.steps.send(came) == [made.claim("force")]


def test_an_interrupt_while_a_tag_is_asked_for_ends_the_flight():
    """Nothing more is asked, and nothing of it is left."""
    made = Made()
    made.ask()
    made.steps.send(made.found("value", b"x", tags=("blue",)))
    with pytest.raises(Struck):
        made.steps.send((None, Struck()))
    assert made.has_left()


def test_an_interrupt_as_it_sets_out_leaves_nothing_of_it():
    """It comes as soon as the lock is free again."""
    made = Made()
    lock = made.link.lock

    class Lock:
        entered = 0

        def __enter__(self):
            lock.acquire()

        def __exit__(self, *raised):
            lock.release()
            self.entered += 1
            if self.entered == 1:
                raise Struck

    made.link.lock = Lock()
    with pytest.raises(Struck):
        next(made.steps)
    assert made.link.lock.entered > 1
    assert made.has_left()
    assert made.passage.claim.state == "ended"
