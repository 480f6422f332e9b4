"""What comes by the channels is read, or is none of ours: never an error, whatever the bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleflight.fleet.claims import Release
from singleflight.fleet.cuts import MOST, Numbers
from singleflight.fleet.replies import AGAIN, Found, Refused, Renewing, Told, Waiting, Wake
from singleflight.redis import scripts
from singleflight.redis.texts import CHECK

PLACE = scripts.place("sf:{f:k}")
NAME = PLACE.waits(b"1")
FRAMED = bytes([len(PLACE.flights)]) + PLACE.flights + b"\x011"
TIMES = (60_000).to_bytes(8, "big") + (5).to_bytes(8, "big") + (7).to_bytes(8, "big")


@pytest.mark.parametrize(
    ("message", "wake"),
    [
        (
            b"v" + FRAMED + b"\x05chain" + TIMES + b"value",
            Wake("value", Found(b"value", 60_000, 5, 7), b"chain"),
        ),
        (b"v" + FRAMED + b"\x05chain" + TIMES, Wake("value", Found(b"", 60_000, 5, 7), b"chain")),
        (b"p" + FRAMED + b"\x05chain" + b"value", Wake("passed", Found(b"value", 0, 0, 0), b"chain")),
        (b"p" + FRAMED + b"\x00", Wake("passed", Found(b"", 0, 0, 0))),
        (b"a" + FRAMED + b"\x05chain", AGAIN),
    ],
)
def test_wakes_are_read(message, wake):
    """With the name under which the claim waits; cut short they are none of ours, or hold less."""
    assert scripts.wake_of(message) == (NAME, wake)
    header = len(message) - len(wake.found.envelope)
    for end in range(header):
        assert scripts.wake_of(message[:end]) is None
    assert scripts.wake_of(b"z" + message[1:]) is None


@pytest.mark.parametrize("framed", [b"\x00\x011", b"\x04name\x00"])
def test_a_wake_for_nobody_is_none_of_ours(framed):
    """Without the name of an entry, or of a version."""
    assert scripts.wake_of(b"p" + framed + b"\x05chain" + b"value") is None


@given(st.binary(max_size=200))
def test_no_bytes_are_an_error(message):
    """On either channel."""
    for kind in (b"v", b"p", b"a", b""):
        woken = scripts.wake_of(kind + message)
        assert woken is None or isinstance(woken[1], Wake)
    for kind in (b"d", b"n", b"e", b"c", b""):
        news = scripts.news_of(kind + message)
        assert news is None or len(news.sender) == 8


@given(st.sampled_from("dnec"), st.binary(min_size=40, max_size=40), st.integers(0, 10**16 - 1))
def test_news_is_read(kind, head, number):
    """All of it."""
    news = scripts.news_of(kind.encode() + head + str(number).encode())
    assert news.kind[0] == kind
    assert news.function + news.key + news.sender == head
    assert news.number == number


def test_a_number_that_is_too_long_is_no_news():
    """Nobody has sent it."""
    assert scripts.news_of(b"d" + bytes(40) + b"1" * 16).number == int("1" * 16)
    assert scripts.news_of(b"d" + bytes(40) + b"1" * 17) is None


@pytest.mark.parametrize(
    ("held", "number"),
    [
        (None, 0),
        (b"", 0),
        (b"0", 0),
        (b"1796008563000", 1796008563000),
        (b"%d" % MOST, MOST),
        (b"%d" % (MOST + 1), 0),
        (b"9" * 17, 0),
        (b"1".zfill(16), 1),
        (b"1".zfill(17), 0),
        (b"9" * 5000, 0),
        (b"-1", 0),
        (b"1e3", 0),
        ("7", 0),
    ],
)
def test_numbers_are_read(held, number):
    """What is none counts as if there were nothing."""
    assert scripts.number(held) == number
    assert scripts.numbers([held, b"3"]) == Numbers(number, 3)
    assert scripts.numbers([b"3", held]) == Numbers(3, number)


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=2, max_size=2, unique=True))
def test_versions_have_names_of_their_own(versions):
    """No two wait for the same, whatever one begins with."""
    assert PLACE.waits(versions[0]) != PLACE.waits(versions[1])


@pytest.mark.parametrize("version", [b"", b"x" * 256])
def test_a_version_that_has_no_frame_is_refused(version):
    """Rather than cut."""
    with pytest.raises(ValueError, match="1 to 255"):
        PLACE.waits(version)


def test_what_is_too_long_is_refused():
    """A name, and the head of a message."""
    with pytest.raises(ValueError, match="too long"):
        scripts.place("x" * 251)
    with pytest.raises(ValueError, match="16, 16 and 8"):
        scripts.news_head(b"f", b"k", b"s")


def test_the_end_of_a_flight_is_told_or_refused():
    """Nobody woken is not refused."""
    assert scripts.told(0) == Told(0)
    assert scripts.told(-1) == Refused()


@pytest.mark.parametrize("reply", [None, [], b"", b"z", b"v" + b"0" * 20, b"l" + b"0" * 15, b"o", b"w", 7])
def test_an_answer_that_is_none_is_refused(reply):
    """It is not guessed at."""
    with pytest.raises(ValueError, match=r"^not the answer to a claim$"):
        scripts.claimed(reply)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (b"w" + b"\xff" * 8 + b"\x02me\x05chain", Waiting(2**64 - 1, "me", b"chain")),
        (b"w" + bytes(8) + b"\x00\x00", Waiting(0, "", b"")),
        (b"w" + bytes(8) + b"\x01\xff\x00", Waiting(0, "\ufffd", b"")),
        (b"n" + bytes(7) + b"\x07\x02me", Renewing(7, "me")),
    ],
)
def test_who_has_the_lease_is_read(reply, answer):
    """A leader's name may be any bytes, or none."""
    assert scripts.claimed(reply) == answer


def test_plain_commands():
    """Their keys are the first argument, or all of MGET's; other arguments are none."""
    assert scripts.command("HMGET", b"k", b"a") == scripts.Call(None, (b"k",), ("HMGET", b"k", b"a"))
    assert scripts.command("MGET", b"k", b"a", "x") == scripts.Call(
        None, (b"k", b"a"), ("MGET", b"k", b"a", "x")
    )
    assert scripts.command("GET", "k") == scripts.Call(None, (), ("GET", "k"))
    assert scripts.command("PING") == scripts.Call(None, (), ("PING",))


def test_names():
    """Of an entry's two hashes; as long as fits into a byte with what is behind it."""
    assert scripts.place("sf:{f:k}") == (b"sf:{f:k}:e", b"sf:{f:k}:f")
    assert len(scripts.place("x" * 250).values) == 252


def test_a_look():
    """At the end of a value's life and of a lease, and at the server's clock."""
    assert scripts.looks(PLACE, b"1") == [
        scripts.command("HMGET", PLACE.values, b"l\x011"),
        scripts.command("HMGET", PLACE.flights, b"u\x011", b"n\x011"),
        scripts.command("TIME"),
    ]


@pytest.mark.parametrize(
    ("stored", "led", "leader", "at", "looked"),
    [
        (b"70004", b"70007", b"me", b"1000", (3, 6, "me")),
        (None, None, None, b"1000", (0, 0, "")),
        (b"69999", None, b"\xff", b"1500", (-2, 0, "\ufffd")),
    ],
)
def test_what_a_look_has_seen(stored, led, leader, at, looked):
    """For how long a value and a lease will live, by a clock of whole milliseconds."""
    assert scripts.looked([[stored], [led, leader], (b"70", at)]) == looked


def test_what_a_user_may_not_do():
    """Each right once, with what it is to be granted for."""
    assert scripts.check("sf", [b"sf:p:1"]) == scripts.Call(CHECK, (b"sf:{check}:e",), [b"sf:p:1"])
    lacks = [b"hget", b"publish", b"subscribe", b"hget", b"time", b"ping"]
    assert scripts.missing(lacks, "sf") == [
        "+hget ~sf:*",
        "+publish &sf:*",
        "+subscribe &sf:*",
        "+time",
        "+ping",
    ]
    assert scripts.missing([], "sf") == []


def test_what_is_not_said_of_a_claim():
    """It has seen nothing, and belongs to no chain; no retries are -1."""
    options = {"lease": 5, "channel": b"c", "leader": "me", "most": 9}
    call = scripts.claim(PLACE, b"1", b"token", "read", **options)
    assert call == scripts.claim(PLACE, b"1", b"token", "read", seen=0, chain=b"", **options)
    assert call != scripts.claim(PLACE, b"1", b"token", "read", seen=1, **options)
    retries = [scripts.release(PLACE, b"1", b"t", Release(n), lease=5).args[2] for n in (None, 0, 3)]
    assert retries == [-1, 0, 3]
