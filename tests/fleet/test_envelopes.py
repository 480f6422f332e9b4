"""What is stored and sent comes back as it was packed, or is unreadable for a reason that is named."""

from contextlib import suppress
from math import inf
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleflight.fleet.cuts import MOST
from singleflight.fleet.envelopes import Envelope, Envelopes, checked_signing_key
from singleflight.fleet.refusals import OversizedValue, Reason, UnportableValue, Unreadable

REASONS = set(get_args(Reason))
VERSION = b"version1"
NAME, KEY = "sf:{shop.price:00}", b"key bytes"
DURATIONS = st.integers(0, 10**9).map(lambda ms: ms / 1000)
ENVELOPES = st.builds(
    Envelope,
    st.sampled_from(["value", "failure"]),
    st.binary(max_size=40),
    st.integers(0, 2**48),
    DURATIONS | st.just(inf),
    DURATIONS,
    DURATIONS | st.just(inf),
    st.booleans(),
    st.lists(st.text(max_size=4), max_size=3).map(tuple),
) | st.builds(lambda cut, ttl: Envelope("none", b"", cut, ttl), st.integers(0, 2**48), DURATIONS)
SECRETS = st.sampled_from([None, b"a signing key of thirty-two bytes"])


def envelopes(secret=None, version=VERSION, max_value=100_000):
    return Envelopes(version, max_value, secret)


def reason_of(call, *args):
    with pytest.raises(Unreadable) as caught:
        call(*args)
    assert caught.value.reason in REASONS
    return caught.value.reason


@settings(deadline=None)
@given(ENVELOPES, SECRETS, st.text(max_size=20), st.binary(max_size=40))
def test_there_and_back(envelope, secret, name, key):
    """Every field, signed or not."""
    assert envelopes(secret).open(name, key, envelopes(secret).pack(name, key, envelope)) == envelope


@settings(max_examples=30, deadline=None)
@given(ENVELOPES, SECRETS)
def test_every_truncation_is_unreadable(envelope, secret):
    """However much is missing; and so is anything behind the end."""
    whole = envelopes(secret).pack(NAME, KEY, envelope)
    for end in range(len(whole)):
        assert reason_of(envelopes(secret).open, NAME, KEY, whole[:end]) == "truncated"
    assert reason_of(envelopes(secret).open, NAME, KEY, whole + b"\0") == "format"


@settings(max_examples=30, deadline=None)
@given(ENVELOPES, st.integers(1, 255))
def test_signed_every_changed_byte_is_unreadable(envelope, change):
    """Wherever it is: no part is read that is not signed."""
    whole = bytearray(envelopes(b"k" * 32).pack(NAME, KEY, envelope))
    for place in range(len(whole)):
        whole[place] ^= change
        assert reason_of(envelopes(b"k" * 32).open, NAME, KEY, bytes(whole)) in REASONS - {"payload", "key"}
        whole[place] ^= change


@settings(max_examples=30, deadline=None)
@given(ENVELOPES, st.integers(1, 255))
def test_unsigned_a_changed_byte_is_another_envelope_or_unreadable(envelope, change):
    """No other exception is raised, and never is it read for another key or version."""
    whole = bytearray(envelopes().pack(NAME, KEY, envelope))
    for place in range(len(whole)):
        whole[place] ^= change
        with suppress(Unreadable):
            read = envelopes().open(NAME, KEY, bytes(whole))
            assert read != envelope
            for other in (KEY[:-1], KEY + b"\0", b"other key"):
                assert reason_of(envelopes().open, NAME, other, bytes(whole)) == "key"
        whole[place] ^= change


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=120) | st.binary(max_size=120).map(lambda data: b"\xf1" + data), SECRETS)
def test_foreign_bytes(data, secret):
    """They are unreadable."""
    assert reason_of(envelopes(secret).open, NAME, KEY, data) in REASONS


@pytest.mark.parametrize(
    ("reader", "name", "key", "reason"),
    [
        (envelopes(b"k" * 32), NAME, b"other key", "key"),
        (envelopes(b"k" * 32, version=b"version2"), NAME, KEY, "version"),
        (envelopes(b"j" * 32), NAME, KEY, "signature"),
        (envelopes(b"k" * 32), NAME + "1", KEY, "signature"),
        (envelopes(), NAME, KEY, "signature"),
        (envelopes(b"k" * 32, max_value=100), NAME, KEY, "too large"),
    ],
)
def test_reasons(reader, name, key, reason):
    """What is wrong is named: a copied value, one of other code, of another signer, moved to another name."""
    whole = envelopes(b"k" * 32).pack(NAME, KEY, Envelope("value", b"payload" * 10, ttl=60.0))
    assert reason_of(reader.open, name, key, whole) == reason


def test_flags_of_another_version():
    """A bit that means nothing here, a kind that there is not, a None with a payload."""
    value = envelopes().pack(NAME, KEY, Envelope("value", b"payload"))
    for flags in (16, 128, 3, 1):
        assert reason_of(envelopes().open, NAME, KEY, value[:1] + bytes([flags]) + value[2:]) == "format"


def test_a_number_that_is_none():
    """Above what the server counts exactly; the highest is read."""
    for last_cut in (MOST, MOST + 1, 2**64 - 1):
        whole = envelopes().pack(NAME, KEY, Envelope("value", b"payload", last_cut))
        if last_cut == MOST:
            assert envelopes().open(NAME, KEY, whole).last_cut == MOST
        else:
            assert reason_of(envelopes().open, NAME, KEY, whole) == "format"


def test_an_unsigned_envelope_is_not_read_by_who_signs():
    """A process without a key cannot hand in values."""
    whole = envelopes().pack(NAME, KEY, Envelope("value", b"payload"))
    assert reason_of(envelopes(b"k" * 32).open, NAME, KEY, whole) == "signature"


def test_what_is_too_large_is_not_sent():
    """At `max_value` bytes it is, with the signature and all; the error says how many there are."""
    envelope = Envelope("value", b"a" * 100)
    whole = len(envelopes(b"k" * 32).pack(NAME, KEY, envelope))
    assert envelopes(b"k" * 32, max_value=whole).pack(NAME, KEY, envelope)
    with pytest.raises(
        OversizedValue, match=rf"^{whole} bytes are more than max_value={whole - 1} "
    ) as caught:
        envelopes(b"k" * 32, max_value=whole - 1).pack(NAME, KEY, envelope)
    assert isinstance(caught.value, UnportableValue)
    with pytest.raises(OversizedValue, match="a tag may have 65535 bytes"):
        envelopes().pack(NAME, KEY, envelope._replace(tags=("a" * 65_536,)))


def test_endless_grace_ends():
    """After a hundred years, so that all who read it know its age."""
    envelope = Envelope("value", ttl=60.0, grace=inf)
    read = envelopes().open(NAME, KEY, envelopes().pack(NAME, KEY, envelope))
    assert (read.ttl, read.grace) == (60.0, 3_153_600_000.0)


def test_tags_that_do_not_end():
    """A length that points behind the end, half a length, bytes that are no text; many take no time."""
    whole = envelopes().pack(NAME, KEY, Envelope("none", tags=("abc",)))
    for tags in (b"\0\4abc", b"\0\3ab\xff", b"\0\0\0\2a", b"\0\1a\0"):
        other = whole.replace(b"\0\0\0\5", len(tags).to_bytes(4, "big")).replace(b"\0\3abc", tags)
        assert reason_of(envelopes().open, NAME, KEY, other) == "format"
    many = envelopes(max_value=10**6).pack(NAME, KEY, Envelope("none", tags=("",) * 400_000))
    assert len(envelopes(max_value=10**6).open(NAME, KEY, many).tags) == 400_000


def test_signing_keys():
    """Bytes, at least sixteen; the error names the option and does not show the key."""
    assert checked_signing_key(None) is None
    assert checked_signing_key(b"k" * 16) == b"k" * 16
    for bad in ("a secret of sixteen bytes", b"too short", 1):
        with pytest.raises((TypeError, ValueError), match=r"^signing_key: expected ") as caught:
            checked_signing_key(bad)
        assert str(bad) not in str(caught.value) or bad == 1
