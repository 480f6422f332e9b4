"""The entries of a function: their names, marks, times and counts, and what the server is told of a drop."""

import logging
import threading
from fractions import Fraction
from math import inf
from types import SimpleNamespace

import pytest

from singleflight import single_flight_ttl
from singleflight.core.flight import Flight
from singleflight.core.landing import Verdict
from singleflight.fleet.cuts import Numbers
from singleflight.fleet.drops import Drop
from singleflight.fleet.envelopes import Envelope, Envelopes
from singleflight.fleet.keybytes import key_bytes
from singleflight.fleet.names import digest, entry_name
from singleflight.fleet.near import NearTimes
from singleflight.redis import scripts
from singleflight.redis.clients import Kind, Trouble
from singleflight.redis.entries import Brought, Entries, Terms, lives, mark_of, milliseconds
from singleflight.storage.record import TaggedRecord, WeighedRecord

ME, BUS = b"m" * 8, b"sf:bus"
SIGNING_KEY = b"a key that is long enough to sign"
MONTH = 30 * 86_400_000  # milliseconds
COUNTS = ("shared_hits", "shared_waits", "refused", "leases_lost", "degraded", "unreadable")


class Link:
    """What the entries ask of the link, and tell it."""

    prefix, me, bus_channel, era = "sf", ME, BUS, 3

    def __init__(self):
        self.lock, self.bus = threading.RLock(), SimpleNamespace(up=True)
        self.noted, self.confirmed, self.cuts = {}, [], []
        self.busy, self.taken, self.left = 0, [], []  # for how many looks another way is sending a drop
        self.mine = []  # what this thread is sending, further up
        self.keeper = SimpleNamespace(hand_over=lambda *orders: self.left.extend(orders))

    def current(self, drop):
        return self.noted.get(drop)

    def takes(self, drop, anyway):
        self.busy -= 1
        if self.busy >= 0 and not anyway:
            return None
        assert drop not in self.taken
        self.taken.append(drop)
        return drop

    def is_sending(self, drop):
        return drop in self.mine

    def sent(self, drop):
        self.taken.remove(drop)

    def orders(self, drop):
        assert not self.taken
        return ["order", drop]

    def confirm(self, drop, reply):
        self.confirmed.append((drop, reply))

    def raise_cut(self, name, number):
        self.cuts.append((name, number))


class Codec:
    """Of values that are bytes; its fingerprint is what it was asked for."""

    def __init__(self):
        self.asked = []

    def fingerprint(self, version):
        self.asked.append(version)
        return f"v{version}".encode().ljust(8)

    def enclose(self, value):
        return ("none", b"") if value is None else ("value", value)


def make(near_ttl=10.0, max_value=1000, version=7, **options):
    options = {"ttl": 60, "name": "prices", **options}
    function = single_flight_ttl(**options)(lambda key: key)
    terms = Terms(near_ttl, max_value, SIGNING_KEY, ())
    made = Entries(Link(), function._self_cache, terms, Codec(), version)
    made.function = function
    return made


def test_what_its_values_are_is_found_out_once():
    """At the first use."""
    entries = make()
    assert entries.version == b""
    entries.settle(), entries.settle()
    assert (entries.version, entries.codec.asked) == (b"v7      ", [7])
    packed = entries.envelopes.pack("name", b"key", Envelope("value", b"x"))
    assert packed == Envelopes(b"v7      ", 1000, SIGNING_KEY).pack("name", b"key", Envelope("value", b"x"))
    assert entries.flying == entries.alone == {}


def test_names():
    """Of keys, tags and the function: each is a digest of its own, whatever the epoch."""
    entries = make()
    assert entries.digest == digest("prices", b"")
    assert entries.known_as(b"written") == digest("prices", b"written")
    assert entries.tag_digest("half: \ud83d") == digest("prices", b"taghalf: \xed\xa0\xbd")
    assert mark_of(b"\x01\xff") == "\x0001ff"
    written = key_bytes(("a",))
    assert entries.place_of(("a",), 4) == scripts.place(entry_name("sf", "prices", written, 4))
    assert entries.place_of(("a",)) == scripts.place(entry_name("sf", "prices", written, 0))
    entries.learn(Numbers(5, 6), era=3)
    assert entries.place_of(("a",)) == scripts.place(entry_name("sf", "prices", written, 5))
    assert entries.place_of(("a",), 0) == scripts.place(entry_name("sf", "prices", written, 0))


def test_numbers_are_known_while_the_bus_is_up():
    """What was asked in an earlier era is not learnt."""
    entries = make()
    entries.saw(Numbers())
    assert (entries.known_numbers(), entries.latest(), entries.numbers.ever) == (None, Numbers(), Numbers())
    entries.learn(Numbers(1, 2), era=2)
    assert entries.known_numbers() is None
    entries.learn(Numbers(1, 2), era=3)
    assert entries.known_numbers() == entries.latest() == Numbers(1, 2)
    entries.saw(Numbers(0, 4))
    assert (entries.known_numbers(), entries.numbers.ever) == (Numbers(1, 4), Numbers(1, 4))
    entries.saw(Numbers(3, 0), 9)
    assert (entries.known_numbers(), entries.numbers.ever) == (Numbers(3, 4), Numbers(3, 9))
    entries.link.bus.up = False
    assert (entries.known_numbers(), entries.latest()) == (None, Numbers(3, 4))
    entries.after_fork()
    assert entries.latest() == Numbers()


def test_envelopes():
    """With the times that the record has from its landing, its tags, and the cut that was known."""
    entries = make()
    record = TaggedRecord(("a",), b"x", 100.0, 60.0, 20.0, 145.0)
    record.tags = ("blue",)
    assert entries.envelope_of(b"x", record, 5) == Envelope(
        "value", b"x", 5, 60.0, 20.0, 45.0, False, ("blue",)
    )
    assert entries.envelope_of(b"x", record, 5, True).refused is True
    assert entries.envelope_of(None, None, 6) == Envelope("none", b"", 6, 0.0, 0.0, inf, False, ())
    assert entries.envelope_of(None, None, 6, True) == Envelope("none", b"", 6, 0.0, 0.0, inf, True, ())


@pytest.mark.parametrize(
    ("ttl", "grace", "kept"),
    [
        (4.0, 6.0, (4.0, 6.0)),
        (4.0, 7.0, (4.0, 6.0)),
        (10.0, 1.0, (10.0, 0.0)),
        (60.0, 30.0, (10.0, 0.0)),
        (3.0, 0.0, (3.0, 0.0)),
        (inf, 0.0, (10.0, 0.0)),
    ],
)
def test_what_is_near_lives_no_longer_than_it_may(ttl, grace, kept):
    """Fresh first; all else is as it was, with its marks."""
    entries = make(near_ttl=10.0)
    record = WeighedRecord(("a",), b"x", 100.0, ttl, grace, 145.0)
    record.tags, record.weight = ("blue",), 3
    made = entries.near(record, b"named", 77)
    assert (made.ttl, made.grace) == kept
    assert (made.key, made.value, made.landed, made.refresh_at) == (("a",), b"x", 100.0, 145.0)
    assert (made.born, made.weight, made.error) == (77, 3, None)
    assert made.tags == entries.marks(b"named", ("blue",))


def test_what_was_found_is_marked():
    """And weighed, where the function weighs."""
    times = NearTimes(100.0, 4.0, 6.0, 145.0)
    entries = make()
    made = entries.marked(("a",), b"xyz", times, b"named", 77, ("blue",))
    assert (made.key, made.value, made.landed, made.ttl) == (("a",), b"xyz", 100.0, 4.0)
    assert (made.grace, made.refresh_at, made.born, made.weight) == (6.0, 145.0, 77, 1)
    assert made.tags == entries.marks(b"named", ("blue",))
    entries = make(weigh=lambda value: len(value) / 2, maxsize=100)
    assert entries.marked(("a",), b"xyz", times, b"named", 77, ()).weight == Fraction(3, 2)


def test_marks():
    """Of its key and its function; with tags these, as they are, and a mark of each."""
    entries = make()
    key, function = mark_of(b"named"), mark_of(entries.digest)
    assert entries.marks(b"named", ()) == (key, function)
    assert entries.marks(b"named", ("blue", "red")) == (
        *("blue", "red", key, function),
        *(mark_of(entries.tag_digest("blue")), mark_of(entries.tag_digest("red"))),
    )


def a_flight(entries, key=("a",)):
    flight = Flight()
    flight.key, flight.detached, flight.started, flight.followers = key, False, 0.0, 0
    flight.previous, flight.state, flight.lost = None, None, False
    return flight


def test_a_flight_alone():
    """It is counted, its function's values are known, and what it brings is marked."""
    entries = make(near_ttl=10.0, timer=lambda: 100.0)
    flight = a_flight(entries)
    named = entries.set_out_alone(flight)
    assert named == entries.known_as(key_bytes(("a",)))
    assert (entries.counted()["degraded"], entries.version) == (1, b"v7      ")
    assert entries.set_out_alone(flight) == named
    assert entries.counted()["degraded"] == 2
    storable, ttl, now, record = entries.arrival_of(flight, b"x", named)
    assert (storable, ttl, now) == (True, 60.0, 100.0)
    assert (record.ttl, record.born, record.value) == (10.0, 0, b"x")
    assert record.tags == entries.marks(named, ())
    flight.detached = True
    assert entries.arrival_of(flight, b"x", named) == (True, 60.0, 100.0, None)


@pytest.mark.parametrize(("failure_ttl", "ttl"), [(5.0, 5.0), (50.0, 10.0)])
def test_a_failure_alone(failure_ttl, ttl):
    """It is kept no longer than what is near, with its marks."""
    entries, error = make(near_ttl=10.0, failure_ttl=failure_ttl), OSError()
    verdict = Verdict(error, ttl, marks=entries.marks(b"named", ()))
    assert entries.failed(a_flight(entries), error, b"named") == Brought(None, error=error, verdict=verdict)
    flight = a_flight(entries)
    flight.lost = True  # it has ended: `failure_ttl` is not asked
    assert entries.failed(flight, error, b"named").verdict.ttl == 0.0


def test_who_leads():
    """The passages whose claims are renewed."""
    entries = make()
    passages = [SimpleNamespace(claim=SimpleNamespace(renews=renews)) for renews in (True, False, True)]
    entries.flying = dict(zip("abc", passages, strict=True))
    assert entries.led() == [passages[0], passages[2]]


# -- drops ---------------------------------------------------------------------------------------------


def drop_of(kind, payload=None, name=b"n" * 16):
    return Drop(kind, b"f" * 16, name, 1, payload)


def head(entries, name=b"n" * 16):
    return scripts.news_head(entries.digest, name, ME)


def ask(entries):
    digest = entries.digest
    return scripts.command("MGET", scripts.epoch_key("sf", digest), scripts.last_cut_key("sf", digest))


@pytest.fixture
def settled():
    entries = make(max_value=300)
    entries.settle()
    entries.learn(Numbers(5, 6), era=3)
    entries.saw(Numbers(), carried=9)
    return entries


def test_what_asks_for_the_numbers(settled):
    """One command for both."""
    assert settled.ask_numbers() == ask(settled)


def test_what_tells_of_a_cleared_function(settled):
    """Its epoch is raised above all that was known; the subject of the news is nothing but the function."""
    drop = drop_of("clear", name=b"")
    assert settled.calls_of(drop, Numbers(2, 3)) == [
        scripts.raise_epoch(
            scripts.epoch_key("sf", settled.digest),
            known=5,
            life=2 * MONTH,
            bus=BUS,
            head=head(settled, bytes(16)),
        )
    ]


def test_what_tells_of_a_cut(settled):
    """It is numbered above all that was known."""
    assert settled.calls_of(drop_of("cut"), Numbers(2, 3)) == [
        scripts.cut(
            scripts.last_cut_key("sf", settled.digest),
            scripts.cut_key("sf", b"n" * 16),
            known=9,
            life=2 * MONTH,
            bus=BUS,
            head=head(settled),
        )
    ]


def test_what_tells_of_a_drop(settled):
    """By the epoch that is said; and asks for the one that holds."""
    place = scripts.place(entry_name("sf", "prices", b"written", 2))
    assert settled.calls_of(drop_of("drop", b"written"), Numbers(2, 3)) == [
        scripts.drop(place, bus=BUS, head=head(settled)),
        ask(settled),
    ]


def test_what_tells_of_a_put(settled):
    """It carries the cut that is said; what is too large for others is dropped there."""
    name = entry_name("sf", "prices", b"written", 2)
    place, envelope = scripts.place(name), Envelope("value", b"x", 1, 60.0, 30.0, 45.0)
    packed = settled.envelopes.pack(name, b"written", envelope._replace(last_cut=3))
    assert settled.calls_of(drop_of("put", (b"written", envelope)), Numbers(2, 3)) == [
        scripts.put(place, settled.version, packed, fresh=45_000, life=90_000, bus=BUS, head=head(settled)),
        ask(settled),
    ]
    large = envelope._replace(payload=b"x" * 300)
    assert settled.calls_of(drop_of("put", (b"written", large)), Numbers(2, 3)) == [
        scripts.drop(place, bus=BUS, head=head(settled)),
        ask(settled),
    ]


def a_put(tags):
    return drop_of("put", (b"written", Envelope("value", b"x", 0, 60.0, tags=tags)))


@pytest.mark.parametrize(
    ("drop", "sent", "newest", "again", "learnt"),
    [
        (drop_of("drop", b"written"), (5, 6), (5, 6), False, False),
        (drop_of("drop", b"written"), (5, 6), (7, 6), False, True),
        (drop_of("drop", b"written"), (5, 6), (4, 6), True, True),
        (drop_of("drop", b"written"), (5, 6), (5, 8), False, False),
        (a_put(()), (5, 6), (5, 8), False, False),
        (a_put(("blue",)), (5, 6), (5, 8), False, True),
        (a_put(("blue",)), (5, 6), (5, 8), True, False),
        (a_put(("blue",)), (5, 6), (5, 6), False, False),
        (a_put(("blue",)), (5, 6), (5, 4), False, False),
    ],
)
def test_what_the_server_says_of_a_drop(settled, drop, sent, newest, again, learnt):
    """By another epoch, or a put with tags by a later cut (once), it is to be told again."""
    replies = [1, [str(number).encode() for number in newest]]
    told = settled.told(drop, 3, Numbers(*sent), replies, again)
    if learnt:
        assert told == Numbers(*newest)
        assert settled.latest() == Numbers(5, 6).raised(Numbers(*newest))
        assert settled.link.confirmed == []
    else:
        assert told is None
        assert settled.link.confirmed == [(drop, 1)]
        assert settled.latest() == Numbers(5, 6)


def test_what_the_server_says_once_is_learnt_in_its_era(settled):
    """And not in a later one; what it was asked once for counts once."""
    drop, replies = a_put(("blue",)), [1, [b"5", b"8"]]
    assert settled.told(drop, 2, Numbers(5, 6), replies) == Numbers(5, 8)
    assert settled.latest() == Numbers(5, 6)


def test_a_server_that_refuses(settled):
    """The drop is not confirmed."""
    refused = Trouble(Kind.REFUSED, "no")
    with pytest.raises(Trouble):
        settled.told(drop_of("clear"), 3, Numbers(), [refused])
    assert settled.link.confirmed == []


def steps(sending, *replies):
    """What is sent, until it needs no more."""
    sent = [next(sending)]
    for reply in replies:
        try:
            sent.append(sending.send(reply))
        except StopIteration:
            break
    return sent


def test_sending_a_drop(settled):
    """Until it is confirmed by the numbers that hold: a put with a later cut once more."""
    put = a_put(("blue",))
    settled.link.noted[put] = put
    sent = steps(settled.sending(put), [1, [b"5", b"8"]], [1, [b"5", b"9"]], [1, [b"5", b"9"]])
    assert sent == [settled.calls_of(put, Numbers(5, 6)), settled.calls_of(put, Numbers(5, 8))]
    assert settled.latest() == Numbers(5, 8)
    assert settled.link.confirmed == [(put, 1)]


def test_sending_what_took_its_place(settled):
    """What is noted by then is told; nothing if another way has confirmed it."""
    drop, clear = drop_of("drop", b"written"), drop_of("clear", name=b"")
    settled.link.noted[drop] = clear
    assert steps(settled.sending(drop), [8]) == [settled.calls_of(clear, Numbers(5, 6))]
    assert settled.link.confirmed == [(clear, 8)]
    assert list(settled.sending(drop_of("cut"))) == []
    assert settled.link.taken == settled.link.left == []


def test_what_another_way_is_sending(settled):
    """It is awaited; then it is sent where it is not confirmed."""
    put = a_put(())
    settled.link.noted[put], settled.link.busy = put, 2
    sending = settled.sending(put)
    assert [next(sending), sending.send(True), sending.send(False)] == [
        *[0.002] * 2,
        settled.calls_of(put, Numbers(5, 6)),
    ]
    assert settled.link.taken == [put]
    sending.close()


def test_what_this_thread_is_sending_already(settled):
    """It was interrupted there, and goes on only after this: it is not awaited."""
    put = a_put(())
    settled.link.noted[put], settled.link.busy, settled.link.mine = put, 9, [put]
    assert steps(settled.sending(put), [1, [b"5", b"6"]]) == [settled.calls_of(put, Numbers(5, 6))]
    assert settled.link.confirmed == [(put, 1)]


@pytest.mark.parametrize(("error", "left"), [(Trouble(Kind.AWAY, "gone"), 0), (KeyboardInterrupt(), 2)])
def test_sending_that_is_cut_short(settled, error, left):
    """By an interrupt: the keeper is to send it. A lost server is asked by others."""
    put = a_put(())
    settled.link.noted[put] = put
    sending = settled.sending(put)
    next(sending)
    with pytest.raises(type(error)):
        sending.throw(error)
    assert settled.link.left == ["order", put][:left]
    assert settled.link.taken == []


def test_what_is_confirmed(settled):
    """The server's numbers are known now; a tag's cut is noted for what is near."""
    settled.confirmed(drop_of("drop", b"written"), 1)
    assert (settled.latest(), settled.link.cuts) == (Numbers(5, 6), [])
    settled.confirmed(drop_of("clear", name=b""), b"7")
    assert (settled.latest(), settled.link.cuts) == (Numbers(7, 6), [])
    settled.confirmed(drop_of("cut"), b"11")
    assert (settled.latest(), settled.link.cuts) == (Numbers(7, 11), [(b"n" * 16, 11)])


# -- counts --------------------------------------------------------------------------------------------


def test_counts():
    """One by one; what it does not know is not counted."""
    entries = make()
    none = dict.fromkeys(COUNTS, 0)
    assert entries.counted() == none
    for name in COUNTS:
        entries.count(name)
    entries.count("refused"), entries.count("hits")
    told = entries.counted()
    assert told == {**dict.fromkeys(COUNTS, 1), "refused": 2}
    told["refused"] = 9
    assert entries.counted()["refused"] == 2
    entries.reset()
    assert entries.counted() == none
    entries.count("refused")
    entries.flying, entries.alone = {"a": "flight"}, {"another": b"one"}
    entries.after_fork()
    assert (entries.counted(), entries.flying, entries.alone) == (none, {}, {})


def test_what_is_said_of_a_value_is_said_once(caplog):
    """For each reason; what cannot be read is counted each time."""
    entries = make()
    with caplog.at_level(logging.WARNING, "singleflight"):
        for key in ("a", "b"):
            entries.unread("too large", key)
            entries.say_once("oversized", key, "cannot be shared")
        entries.unread("signed by others", "c")
    assert entries.counted()["unreadable"] == 3
    assert caplog.messages == [
        "prices: the value of 'a' is stored in a way that cannot be read (too large); said once",
        "prices: the value of 'a' cannot be shared; said once",
        "prices: the value of 'c' is stored in a way that cannot be read (signed by others); said once",
    ]


@pytest.mark.parametrize(("seconds", "whole"), [(1.5, 1500), (0.0004, 0), (0.0006, 1), (-3.0, 0), (0.0, 0)])
def test_milliseconds(seconds, whole):
    """Whole ones, and none below 0."""
    assert milliseconds(seconds) == whole


@pytest.mark.parametrize(
    ("ttl", "grace", "refresh_after", "fresh", "life"),
    [
        (60.0, 30.0, inf, 60_000, 90_000),
        (60.0, 30.0, 45.0, 45_000, 90_000),
        (inf, 0.0, inf, MONTH, MONTH),
        (0.0, 0.0, inf, 0, 1),
        (0.0, 5.0, inf, 0, 5000),
    ],
)
def test_how_long_the_server_keeps_it(ttl, grace, refresh_after, fresh, life):
    """No longer than a month, and no shorter than the server can."""
    assert lives(Envelope("value", b"x", 0, ttl, grace, refresh_after)) == (fresh, life)
