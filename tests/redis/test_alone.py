"""While the server is not asked, flights run alone: only near entries change, and nothing is sent."""

import pytest

from singleflight.fleet.keybytes import key_bytes
from singleflight.redis import UnportableKey, UnportableValue
from singleflight.redis.clients import Kind, Trouble
from singleflight.redis.passage import leading
from singleflight.redis.scripts import News
from singleflight.testing import FakeClock

from ..drivers import PATIENCE, until
from .fleets import Fleet, Loads, called, link_of, never_probe, start


@pytest.fixture
def own_fleet(own_server):
    """Processes on a server that the test may do harm."""
    made = Fleet(own_server.url)
    yield made
    made.close()


def without_server(function):
    """Its server is away for its calls; its bus hears all the same, and its keeper does not ask."""
    link = link_of(function)
    link.failed(Trouble(Kind.AWAY, "as if"), link.period())
    never_probe(function)


def test_a_drop_that_is_heard_while_the_server_is_not_asked_counts(fleet, pool, colour):
    """What runs alone then has its value for those who came before; what it had loaded alone is dropped."""
    body = Loads(lambda n: n)
    a, b = fleet(body, colour), fleet(body)
    assert (called(a, "ASML"), called(a, "SAP")) == (1, 2)
    without_server(a)
    a.invalidate("ASML"), a.invalidate("SAP")
    assert called(a, "SAP") == 3
    body.gate.clear()
    flown = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    until(lambda: len(body.calls) == 4)
    b.invalidate("ASML"), b.invalidate("SAP")
    until(lambda: a.entry("SAP") is None and a.flights()[0].detached)
    body.gate.set()
    assert flown.result(PATIENCE) == 4
    assert a.entry("ASML") is None
    assert (called(a, "ASML"), called(a, "SAP")) == (5, 6)


def test_a_flight_that_ran_alone_is_not_near_when_the_server_is_back(own_server, own_fleet, pool, colour):
    """Drops that were not heard meanwhile may concern its value."""
    body = Loads(lambda n: n)
    price = own_fleet(body, colour, terms={"timeout": 0.2})
    assert called(price, "warm") == 1
    own_server.pause()
    assert called(price, "before") == 2
    body.gate.clear()
    flown = start(pool, price, "ASML")
    until(lambda: len(body.calls) == 3)
    own_server.resume()
    until(lambda: own_fleet.store_of(price).state == "connected")
    body.gate.set()
    assert flown.result(PATIENCE) == 3
    assert price.entry("ASML") is price.entry("before") is None


def test_alone_nothing_is_sent_so_what_cannot_be_sent_is_served(fleet, colour):
    """As without `store=`. A key that has no name in other processes has none then either."""
    body = Loads(lambda n: {1, 2})
    price = fleet(body, colour)
    with pytest.raises(UnportableValue, match="a set comes back"):
        called(price, "ASML")
    without_server(price)
    assert called(price, "ASML") == {1, 2}
    other = fleet(body, colour, name="other", key=lambda symbol: symbol.__len__)
    without_server(other)
    with pytest.raises(UnportableKey, match="key"):
        called(other, "ASML")
    assert len(body.calls) == 2


def test_alone_each_option_does_what_it_does_without_a_server(fleet, colour):
    """Failures are stored for as long as near entries live, values as they say; what is refused is not."""
    clock = FakeClock()
    body = Loads(lambda n: ValueError(n) if n == 1 else None if n == 2 else n)
    options = {"failure_ttl": 60, "ttl": 60, "grace": 30, "tags": lambda landing: [f"n{landing.value}"]}
    price = fleet(body, colour, terms={"near_ttl": 20}, timer=clock, follower_retries=0, **options)
    without_server(price)
    for _ in range(2):
        with pytest.raises(ValueError, match="1"):
            called(price, "ASML")
    clock.advance(21)
    assert called(price, "ASML") is None
    assert called(price, "ASML") == 3
    clock.advance(19)
    assert called(price, "ASML") == 3
    clock.advance(2)
    assert called(price, "ASML") == 4
    price.invalidate_tag("n4")
    assert called(price, "ASML") == 5
    assert price.stats().degraded == len(body.calls) == 5


def test_alone_callers_of_one_key_share_one_call(fleet, pool, colour):
    """Each receives its value; nothing is left of the flight."""
    body = Loads(lambda n: n)
    price = fleet(body, colour)
    without_server(price)
    body.gate.clear()
    first = start(pool, price, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    second = start(pool, price, "ASML")
    until(lambda: price.flights()[0].followers == 1)
    body.gate.set()
    assert first.result(PATIENCE) == second.result(PATIENCE) == 1
    assert price._self_cache.tier.alone == {}


def test_alone_a_flight_that_takes_too_long_loses_its_key(fleet, pool):
    """The next caller's flight runs alone, too: there is no lease to be freed."""
    body = Loads(lambda n: n)
    price = fleet(body, flight_timeout=0.1)
    without_server(price)
    body.gate.clear()
    first = start(pool, price, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    again = start(pool, price, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    body.gate.set()
    assert (first.result(PATIENCE), again.result(PATIENCE)) == (1, 2)
    assert price._self_cache.tier.alone == {}


def test_an_interrupt_of_what_runs_alone_reaches_its_caller_alone(fleet, pool):
    """Its key is free afterwards, and nothing of it is left."""
    body = Loads(lambda n: KeyboardInterrupt() if n == 1 else n)
    price = fleet(body)
    without_server(price)
    body.gate.clear()
    first = start(pool, price, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    second = start(pool, price, "ASML")
    until(lambda: price.flights()[0].followers == 1)
    body.gate.set()
    with pytest.raises(KeyboardInterrupt):
        first.result(PATIENCE)
    assert second.result(PATIENCE) == 2
    assert price._self_cache.tier.alone == {}


def test_alone_a_failure_of_a_flight_that_has_ended_is_not_judged(fleet, colour):
    """It is lost in a forked child, where nothing of it counts: `failure_ttl` is not asked."""
    asked = []

    def fails(n):
        (flight,) = price._self_cache.tier.alone
        flight.lost = True
        return ValueError(n)

    price = fleet(Loads(fails), colour, failure_ttl=lambda error: asked.append(error) or 5)
    without_server(price)
    with pytest.raises(ValueError, match="1"):
        called(price, "ASML")
    assert asked == []


def test_what_runs_knows_which_flights_it_is_inside_of(fleet, colour):
    """Those that this process leads for all, the outermost first; afterwards it is inside of none."""
    inside = []

    def nested(n):
        inside.append(leading.get())
        if n == 1:
            called(price, "SAP")
        inside.append(leading.get())
        return n

    price = fleet(Loads(nested), colour)
    assert called(price, "ASML") == 1
    assert leading.get() == ()
    outer, both, *rest = inside
    assert [passage.flight.key[0] for passage in both] == ["ASML", "SAP"]
    assert outer == both[:1]
    assert rest == [both, outer]


def test_a_newer_value_elsewhere_renews_values_alone(fleet):
    """A failure that is near lives on until its time is over, or it is dropped."""
    body = Loads(lambda n: ValueError(n))
    price = fleet(body, failure_ttl=60, follower_retries=0)
    with pytest.raises(ValueError, match="1"):
        called(price, "ASML")
    tier = price._self_cache.tier
    (record,) = tier.cache.store.records()
    before = record.refresh_at
    tier.heard(News("new", tier.digest, tier.known_as(key_bytes(("ASML",))), b"o" * 8, 0))
    assert record.refresh_at == before
    with pytest.raises(ValueError, match="1"):
        called(price, "ASML")
