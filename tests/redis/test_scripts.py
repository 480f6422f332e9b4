"""What comes by the channels is read, or is none of ours: never an error, whatever the bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleflight.fleet.cuts import MOST, Numbers
from singleflight.fleet.replies import AGAIN, Found, Refused, Told, Wake
from singleflight.redis import scripts

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
    with pytest.raises(ValueError, match="claim"):
        scripts.claimed(reply)
