"""The options of a store: each is checked at once, and named in the error. How long the server keeps what."""

from datetime import timedelta
from math import inf, nan

import pytest

from singleflight.fleet.envelopes import Envelope
from singleflight.redis import RedisStore
from singleflight.redis.entries import lives

URL = "redis://localhost:1"  # nobody connects
MONTH = 30 * 86_400_000
OF_ALL = [
    ("near_ttl", 0),
    ("near_ttl", inf),
    ("near_ttl", "60"),
    ("max_value", 100),
    ("max_value", True),
    ("max_value", 1e6),
    ("serializer", "json"),
    ("serializer", object()),
    ("version", 1.5),
    ("version", True),
    ("version", b"2"),
    ("errors", "ValueError"),
    ("errors", (ValueError, int)),
    ("errors", BaseException),
]
OF_THE_STORE = [
    ("prefix", ""),
    ("prefix", "a{b}"),
    ("prefix", 7),
    ("lease", 0),
    ("lease", nan),
    ("timeout", -1),
    ("timeout", None),
    ("signing_key", "a text of sixteen letters"),
    ("signing_key", b"too short"),
]


@pytest.mark.parametrize(("option", "value"), [*OF_ALL, *OF_THE_STORE])
def test_a_bad_option_is_named(option, value):
    """At once, before anything connects."""
    with pytest.raises((TypeError, ValueError), match=f"^{option}: "):
        RedisStore(URL, **{option: value})


@pytest.mark.parametrize(("option", "value"), OF_ALL)
def test_with_checks_the_same(option, value):
    """And leaves the store as it is."""
    store = RedisStore(URL)
    with pytest.raises((TypeError, ValueError), match=f"^{option}: "):
        store.with_(**{option: value})
    assert store.with_(near_ttl=timedelta(seconds=1)).state == "connected"


def test_no_error_shows_the_signing_key():
    """It is a secret, also where it is no good."""
    for bad in ("a secret text", b"secret"):
        with pytest.raises((TypeError, ValueError)) as caught:
            RedisStore(URL, signing_key=bad)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("ttl", "grace", "refresh_after", "milliseconds"),
    [
        (60.0, 0.5, inf, (60_000, 60_500)),
        (60.0, 0.5, 48.0, (48_000, 60_500)),
        (0.0, 0.0, inf, (0, 1)),
        (inf, 0.0, inf, (MONTH, MONTH)),
        (1e300, 0.0, inf, (MONTH, MONTH)),
        (60.0, inf, inf, (60_000, MONTH)),
    ],
)
def test_how_long_the_server_keeps_a_value(ttl, grace, refresh_after, milliseconds):
    """Until it is neither fresh nor stale, and never without an end."""
    assert lives(Envelope("none", ttl=ttl, grace=grace, refresh_after=refresh_after)) == milliseconds
