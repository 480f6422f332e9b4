"""A key that raises at the n-th time that it is hashed or compared, for every n, leaves nothing behind."""

import asyncio
import inspect

import pytest

from singleflight import KeyedLocks, drain_sync, report, single_flight_ttl
from singleflight.testing import FakeClock

from ..sampling import one_in
from ..spoilt import Frail, SpoiltError

TIMES = one_in(3, range(1, 31))


@pytest.fixture(params=[False, True], ids=["once", "for good"])
def for_good(request):
    """Whether it goes on raising."""
    return request.param


@pytest.fixture(params=["plain", "coroutine"])
def make(request):
    """Makes a function that is called like a plain one, with room for three values and two idle locks."""
    clock = FakeClock()

    def make(body=lambda key: key.name, **options):
        if request.param == "plain":

            def fetch(key):
                return body(key)

            ask = single_flight_ttl(maxsize=3, max_idle_locks=2, timer=clock, **{"ttl": 60, **options})(fetch)
            return Asked(ask, ask, ask.refresh, clock)

        async def fetch(key):
            return body(key)

        ask = single_flight_ttl(maxsize=3, max_idle_locks=2, timer=clock, **{"ttl": 60, **options})(fetch)

        def run(of):
            def call(key):
                async def in_a_loop():
                    return await of(key)

                return asyncio.run(in_a_loop())

            return call

        return Asked(ask, run(ask), run(ask.refresh), clock)

    return make


class Asked:
    """A decorated function, how it is called, and what has to hold after every call."""

    def __init__(self, fetch, call, refresh, clock):
        self.fetch, self.call, self.refresh, self.clock = fetch, call, refresh, clock
        for name in "XYZ":
            call(Frail(name))

    def check(self, value=True):
        assert drain_sync(timeout=5)
        stats = self.fetch.stats()
        assert self.fetch.flights() == ()
        assert (stats.in_flight, stats.locks - stats.idle_locks) == (0, 0)
        assert stats.entries <= 3
        assert stats.idle_locks <= 2
        assert f"{stats.entries} entries, 0 flights" in report()
        for name in "XYZPQRS":
            assert self.call(Frail(name)) == name
            assert self.call(Frail(name)) == name
            assert self.fetch.stats().entries <= 3
        assert self.fetch.entry(Frail("S")).value == "S"


def attempt(run, *args):
    """What it returned, or None where the key raised its own error."""
    try:
        return run(*args)
    except SpoiltError:
        return None


@pytest.mark.parametrize("at", TIMES)
def test_a_call(make, at, for_good):
    """Its caller gets the value, or the key's error; nobody else gets anything."""
    asked = make()
    assert attempt(asked.call, Frail("K", at, for_good)) in ("K", None)
    asked.check()
    assert asked.fetch.stats().failures == 0


@pytest.mark.parametrize("at", TIMES)
def test_a_call_that_fails(make, at, for_good):
    """Stored or not, the failure is its caller's, or the key's error is."""

    def body(key):
        if key.name == "K":
            raise LookupError(key.name)
        return key.name

    asked = make(body, failure_ttl=60)
    with pytest.raises((LookupError, SpoiltError)):
        asked.call(Frail("K", at, for_good))
    asked.check()


@pytest.mark.parametrize("at", TIMES)
def test_a_hit_and_a_stale_hit(make, at, for_good):
    """What is stored under a key that raises later is served, renewed and dropped, or not found."""
    asked = make(grace=60)
    key = Frail("Z")
    asked.call(key)
    key.left, key.for_good = at, for_good
    assert attempt(asked.call, Frail("Z")) in ("Z", None)
    asked.clock.advance(61)
    assert attempt(asked.call, Frail("Z", at, for_good)) in ("Z", None)
    drain_sync(timeout=5)
    asked.clock.advance(121)
    asked.check()


@pytest.mark.parametrize("at", TIMES)
@pytest.mark.parametrize("control", ["refresh", "invalidate", "put", "entry", "explain", "invalidate_where"])
def test_a_control(make, at, for_good, control):
    """Whatever is asked for, the key's error is all that comes of it."""
    asked = make()
    key = Frail("Z", at, for_good)
    if control == "refresh":
        attempt(asked.refresh, key)
    elif control == "put":
        attempt(asked.fetch.put, "Z", key)
    elif control == "invalidate_where":
        attempt(asked.call, key)
        attempt(asked.fetch.invalidate_where, lambda of: True)
    else:
        attempt(getattr(asked.fetch, control), key)
    asked.check()


@pytest.mark.parametrize("at", TIMES)
def test_a_bulk_call(make, at, for_good):
    """The others are loaded, or can be."""
    asked = make()
    if inspect.iscoroutinefunction(asked.fetch.__wrapped__):

        @asked.fetch.bulk
        async def loader(keys):
            return {Frail(key.name): key.name for key in keys}

        def load(keys):
            answers = []  # no result of the task: `asyncio.run` may come to show that, spoilt keys and all

            async def in_a_loop():
                answers.append(await loader(keys))

            asyncio.run(in_a_loop())
            return answers[0]

    else:
        load = asked.fetch.bulk(lambda keys: {Frail(key.name): key.name for key in keys})
    got = attempt(load, [Frail("P"), Frail("K", at, for_good), Frail("Q")])
    assert got is None or {"P", "Q"} <= set(got.values())
    asked.check()


@pytest.mark.parametrize("at", TIMES)
def test_a_lock(at, for_good):
    """It is free after the block, or was never held."""
    locks = KeyedLocks(2)
    for name in "XYZ":
        with locks(Frail(name)):
            pass

    def hold(key, other):
        with locks(key, other):
            return True

    attempt(hold, Frail("K", at, for_good), Frail("L"))
    attempt(hold, Frail("L"), Frail("K", at, for_good))
    for name in "XYZKL":
        assert len(locks) == locks.idle <= 2
        with locks(Frail(name), timeout=5):
            assert locks.held(Frail(name))
    assert locks.evict_idle() == 2
    assert len(locks) == 0
