"""The options of a store: each is checked at once, and named in the error. How long the server keeps what."""

import asyncio
import time
from datetime import timedelta
from functools import partial
from math import inf, nan
from re import fullmatch
from types import SimpleNamespace

import pytest

from singleflight import single_flight_ttl
from singleflight.fleet.envelopes import Envelope
from singleflight.fleet.serializers import Codec
from singleflight.redis import RedisStore
from singleflight.redis.entries import Terms, lives

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
    ("lease", 0.0004),
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


@pytest.mark.parametrize("size", [256, 512 * 1024 * 1024])
def test_the_least_and_the_most_that_a_value_may_have(size):
    """In bytes; one less or more is refused."""
    assert RedisStore(URL, max_value=size)._terms.max_value == size
    other = 255 if size == 256 else size + 1
    with pytest.raises(ValueError, match=rf"^max_value: must be from 256 bytes to 512 MiB, got {other}$"):
        RedisStore(URL, max_value=other)


def test_what_is_said_of_a_bad_option():
    """What was expected, and what came."""
    for options, text in (
        ({"lease": 0}, "lease: must be positive and finite, got 0"),
        ({"lease": 0.0009}, "lease: must be at least a millisecond, got 0.0009"),
        ({"max_value": "1"}, "max_value: expected a whole number of bytes, got '1'"),
        ({"version": 1.5}, "version: expected a string, a whole number or None, got 1.5"),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{text}$"):
            RedisStore(URL, **options)


def test_what_holds_where_nothing_is_said():
    """As the documentation has it."""
    store = RedisStore(URL)
    assert store._terms == Terms(60.0, 1_048_576, None, ())
    assert (store._serializer, store._version) == (None, None)
    link = store._link
    assert (link.prefix, link.lease, link.timeout) == ("sf", 5.0, 0.2)
    assert repr(store) == "<RedisStore 'sf', connected>"


class Words:
    """A serializer."""

    name = "words"

    def dumps(self, value):
        return str(value).encode()

    def loads(self, payload):
        return payload.decode()


def test_what_is_said_holds():
    """With the same connections, `with_` says something else for some functions."""
    key, words, others = b"k" * 32, Words(), Words()
    store = RedisStore(
        URL,
        prefix="shop",
        near_ttl=timedelta(seconds=30),
        lease=timedelta(seconds=7),
        timeout=1.5,
        max_value=1000,
        serializer=words,
        signing_key=key,
        version=3,
        errors=KeyError,
    )
    link = store._link
    assert (link.prefix, link.lease, link.timeout) == ("shop", 7.0, 1.5)
    assert store._terms == Terms(30.0, 1000, key, (KeyError,))
    assert (store._serializer, store._version) == (words, 3)
    same = store.with_()
    assert (same._terms, same._serializer, same._version) == (store._terms, words, 3)
    other = store.with_(near_ttl=9, max_value=2000, serializer=others, version="four", errors=(OSError,))
    assert type(other) is RedisStore
    assert other._link is same._link is link
    assert other._terms == Terms(9.0, 2000, key, (OSError,))
    assert (other._serializer, other._version) == (others, "four")
    none = store.with_(serializer=None, version=None, errors=())
    assert (none._serializer, none._version, none._terms.errors) == (None, None, ())


def test_the_tier_of_a_function():
    """It is known by where it was defined: defined again it is the same."""
    words = Words()
    store = RedisStore(URL, serializer=words, version=3, near_ttl=9)
    price = single_flight_ttl(ttl=60, name="price")(lambda symbol: symbol)
    cache = price._self_cache
    tier = store.tier_for(cache, test_the_tier_of_a_function)
    assert tier.identity == f"{__name__}.test_the_tier_of_a_function"
    assert (tier.link, tier.cache, tier.terms) == (store._link, cache, store._terms)
    tier.settle()
    other = store.with_(version=4).tier_for(cache, test_the_tier_of_a_function)
    other.settle()
    assert tier.version != other.version
    assert tier.codec.enclose(7)[1] == b"7"
    with pytest.raises(ValueError, match="is the name of two functions"):
        store.tier_for(cache, partial(print))
    for nameless, identity in ((partial(print), "functools.None"), (str.upper, "None.str.upper")):
        assert RedisStore(URL).tier_for(cache, nameless).identity == identity


def test_the_annotation_of_a_function_types_its_values():
    """Where no serializer is named."""

    def price(symbol) -> dict[str, float]:
        raise AssertionError

    cache = single_flight_ttl(ttl=60, name="price")(price)._self_cache
    tier = RedisStore(URL).tier_for(cache, price)
    tier.settle()
    assert tier.version == Codec(price, None).fingerprint(None)


def test_a_flush_waits_for_as_long_as_it_is_told():
    """In a thread; on the thread of an event loop, who awaits it waits."""
    store, waited = RedisStore(URL), []

    async def aflush(limit):
        waited.append(("task", limit))
        return True

    store._link.keeper = SimpleNamespace(
        flush=lambda limit: waited.append(("thread", limit)) or False, aflush=aflush
    )
    assert store.flush() is False
    assert store.flush(timedelta(seconds=2)) is False

    async def main():
        return await store.flush(), await store.flush(0.5)

    assert asyncio.run(main()) == (True, True)
    assert waited == [("thread", 5.0), ("thread", 2.0), ("task", 5.0), ("task", 0.5)]
    with pytest.raises(TypeError, match=r"^timeout: "):
        store.flush("5")


def test_a_store_shows_how_its_server_is():
    """For how long it has been lost; after a `close` that is forgotten."""
    store = RedisStore(URL, prefix="shop")
    link = store._link
    with link.lock:
        link.breaker.failed(0, time.monotonic() - 7, 0.0)
    assert fullmatch(r"degraded since 7(\.\d+)? s ago", store.state)
    assert repr(store) == f"<RedisStore 'shop', {store.state}>"
    me = link.me
    store.close()
    assert (store.state, link.me == me) == ("connected", False)
