"""While leaders die, leases end and the server is away, callers see values, and no error of the server."""

import asyncio
import gc
import logging
import os
import queue
import threading
import time

import pytest

from singleflight import FlightTimeout, single_flight_ttl
from singleflight.fleet.keybytes import key_bytes
from singleflight.fleet.names import entry_name
from singleflight.redis import RedisStore, UnportableKey, scripts
from singleflight.redis.clients import Clients
from singleflight.redis.passage import Passage

from ..drivers import PATIENCE, until
from .fleets import Fleet, Loads, called, start, waits_elsewhere


@pytest.fixture
def own_fleet(own_server):
    """Processes on a server that the test may do harm."""
    made = Fleet(own_server.url)
    yield made
    made.close()


def place_of(function, *args):
    """Where an entry of a function is on the server, and the version of its values."""
    tier = function._self_cache.tier
    tier.settle()
    key = key_bytes(function.explain(*args).key)
    return scripts.place(entry_name("sf", "price", key, tier.latest().epoch)), tier.version


def state_of(fleet, function):
    return fleet.store_of(function).state


# -- leaders -----------------------------------------------------------------------------------------


def test_a_leader_that_is_gone_is_replaced_when_its_lease_ends(fleet, url, pool, colour):
    """Whoever waits for it runs the function then."""
    body = Loads()
    price = fleet(body, colour)
    place, version = place_of(price, "ASML")
    gone = Clients(url, timeout=2.0)
    gone.call(
        scripts.claim(place, version, b"gone", "read", lease=300, channel=b"sf:p:gone", leader="x", most=99)
    )
    gone.close()
    began = time.monotonic()
    waiting = start(pool, price, "ASML")
    waits_elsewhere(price)
    assert waiting.result(PATIENCE) == 984.75
    assert time.monotonic() - began >= 0.2
    assert body.calls == ["ASML"]


def test_a_landing_after_its_lease_is_refused(fleet, pool):
    """Its own caller receives the value; what the next leader has stored stays."""
    body = Loads(lambda n: n)
    a, b = fleet(body, lease=0.2), fleet(body, lease=0.2)
    fleet.store_of(a)._link.keeper.hold = lambda *_: None  # starved: nothing is renewed
    body.gate.clear()
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    second = start(pool, b, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)  # when the lease has ended
    body.gate.set()
    assert {first.result(PATIENCE), second.result(PATIENCE)} == {1, 2}
    until(lambda: not b.flights())
    assert a.stats().refused == 1
    kept = b.entry("ASML").value
    assert a("ASML") == kept
    assert len(body.calls) == 2


def test_the_keeper_finds_that_a_lease_is_lost(fleet, direct, pool):
    """It is counted; the flight goes on for its own callers."""
    body = Loads()
    price = fleet(body, lease=0.3)
    body.gate.clear()
    call = start(pool, price, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    direct.delete(place_of(price, "ASML")[0].flights)
    until(lambda: price.stats().leases_lost == 1)
    body.gate.set()
    assert call.result(PATIENCE) == 984.75
    assert price.entry("ASML") is None
    assert price.stats().refused == 0  # the server was not told


def test_a_flight_that_takes_too_long_frees_its_lease(fleet, pool):
    """Another process takes over before the lease ends; the keeper would renew it for ever."""
    body = Loads(lambda n: n)
    a, b = fleet(body, lease=30, flight_timeout=0.1), fleet(body, lease=30)
    body.gate.clear()
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    other = start(pool, b, "ASML")
    waits_elsewhere(b)
    again = start(pool, a, "ASML")  # finds that the first one is due
    assert body.entered.acquire(timeout=PATIENCE)
    body.gate.set()
    assert first.result(PATIENCE) == 1
    assert other.result(PATIENCE) == again.result(PATIENCE) == 2
    assert body.calls == ["ASML"] * 2


def test_a_leader_that_takes_too_long_is_replaced_without_other_callers(fleet, pool, colour):
    """Its own process sees to it, though nobody there asks for the key."""
    body = Loads(lambda n: n)
    a, b = fleet(body, colour, lease=0.3, flight_timeout=0.2), fleet(body, lease=0.3)
    body.gate.clear()
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    other = start(pool, b, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    body.gate.set()
    assert other.result(PATIENCE) == 2
    if colour == "threads":
        assert first.result(PATIENCE) == 1
    else:
        assert isinstance(first.exception(PATIENCE), FlightTimeout)


def test_a_leader_whose_loop_was_closed_is_replaced(fleet, pool):
    """Its task was neither ended nor cancelled, and is kept alive."""
    body = Loads()
    price = fleet(body, lease=0.3)
    store = RedisStore(fleet.url, lease=0.3, timeout=2.0)
    fleet.stores.append(store)

    @single_flight_ttl(ttl=60, store=store, name="price")
    async def led(symbol):
        loop.stop()
        await asyncio.Future()

    loop = asyncio.new_event_loop()
    calls = [loop.create_task(led("ASML"))]
    loop.run_forever()
    calls += asyncio.all_tasks(loop)
    loop.run_until_complete(loop.shutdown_asyncgens())  # which closes its connections
    loop.close()
    assert start(pool, price, "ASML").result(PATIENCE) == 984.75
    for task in calls:
        task._log_destroy_pending = False
    del calls, task
    gc.collect()


@pytest.mark.parametrize("where", ["_close_box", "_let_go"])
def test_an_interrupt_while_a_flight_leaves_frees_its_lease(fleet, monkeypatch, where):
    """Nothing renews it from then on, nor is anything left of it."""
    body = Loads()
    a, b = fleet(body, lease=0.3), fleet(body, lease=0.3)
    whole = getattr(Passage, where)
    struck = []

    def interrupted(self):
        if struck == ["armed"]:
            struck.append("struck")
            raise KeyboardInterrupt
        return whole(self)

    def failing(symbol):
        struck.append("armed")
        raise SystemExit

    monkeypatch.setattr(Passage, where, interrupted)
    price = fleet(failing, lease=0.3)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        price("ASML")
    assert struck == ["armed", "struck"]
    tier = price._self_cache.tier
    assert not tier.flying
    assert len(tier.link.mailboxes) == 0
    assert not tier.link.keeper._leases
    assert b("ASML") == a("ASML") == 984.75


def test_a_listener_on_the_bus_may_call(fleet, pool):
    """It waits for another process there, though nothing is heard meanwhile."""
    body, other = Loads(), Loads(7)
    answers = queue.Queue()

    class Listener:
        wants = ("invalidate",)

        def __call__(self, event):
            answers.put(rest("SAP"))

    a, b = fleet(body, lease=30), fleet(body, lease=30, listener=Listener())
    leads = fleet(other, lease=30, name="rest")
    rest = single_flight_ttl(ttl=60, store=fleet.store_of(b), name="rest")(other)
    assert (a("ASML"), b("ASML")) == (984.75, 984.75)
    other.gate.clear()
    first = start(pool, leads, "SAP")
    assert other.entered.acquire(timeout=PATIENCE)
    a.invalidate("ASML")
    waits_elsewhere(rest)
    other.gate.set()
    assert answers.get(timeout=PATIENCE) == first.result(PATIENCE) == 7
    assert other.calls == ["SAP"]


def test_a_listener_that_ends_the_thread_does_not_keep_a_process_alone(own_server, own_fleet):
    """It is told of the outage after what ends that is under way."""

    class Listener:
        wants = ("degraded",)

        def __call__(self, event):
            raise SystemExit

    price = own_fleet(Loads(), listener=Listener(), terms={"timeout": 0.2})
    own_server.pause()
    with pytest.raises(SystemExit):
        price("ASML")
    own_server.resume()
    until(lambda: state_of(own_fleet, price) == "connected")


# -- the server --------------------------------------------------------------------------------------


def test_without_a_server_each_process_works_alone(own_server, own_fleet, colour, caplog):
    """No error, one line of the log, and the server is not asked again by callers."""
    body = Loads(lambda n: n)
    price = own_fleet(body, colour)
    own_server.kill()
    with caplog.at_level(logging.WARNING, "singleflight"):
        assert [called(price, symbol) for symbol in ("A", "B", "A")] == [1, 2, 1]
        # The keeper may have found it out first, which asks for missing rights: it says so a moment later.
        until(lambda: any("works alone" in line.getMessage() for line in caplog.records.copy()))
    assert state_of(own_fleet, price).startswith("degraded since")
    assert sum("works alone" in line.getMessage() for line in caplog.records) == 1
    assert price.stats().degraded == 2


def test_a_server_that_is_away_explains_nothing(own_server, own_fleet, colour):
    """That this was found out counts: nobody asks it again until it is back."""
    body = Loads()
    price = own_fleet(body)
    assert price("ASML") == 984.75
    own_server.kill()

    async def main():
        return await price.explain_fleet("ASML")

    for _ in range(2):
        would = price.explain_fleet("ASML") if colour == "threads" else asyncio.run(main())
        assert (would.key, would.would, would.left, would.leader) == (("ASML",), "degraded", 0.0, None)
        assert state_of(own_fleet, price).startswith("degraded since")


def test_a_server_that_does_not_answer_costs_one_time_out(own_server, own_fleet):
    """After that the function is all that a call takes."""
    body = Loads()
    price = own_fleet(body, terms={"timeout": 0.2})
    assert price("warm") == 984.75
    own_server.pause()
    assert price("A") == 984.75
    before = len(body.calls)
    assert price("B") == 984.75
    assert len(body.calls) == before + 1
    own_server.resume()
    until(lambda: state_of(own_fleet, price) == "connected")


def test_a_server_that_goes_while_processes_wait_for_each_other(own_server, own_fleet, pool, colour):
    """The leader has its value, and those who wait run the function by themselves."""
    body = Loads(lambda n: n)
    a, b = own_fleet(body, colour, lease=0.5), own_fleet(body, colour, lease=0.5)
    body.gate.clear()
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    second = start(pool, b, "ASML")
    waits_elsewhere(b)
    own_server.kill()
    assert body.entered.acquire(timeout=PATIENCE)
    body.gate.set()
    assert {first.result(PATIENCE), second.result(PATIENCE)} <= {1, 2}
    assert len(body.calls) == 2


def test_drops_of_an_outage_are_replayed_before_the_server_is_asked(own_server, own_fleet, pool):
    """No value from before a drop is served by a process that asks after the outage."""
    body = Loads(lambda n: n)
    a, b = own_fleet(body), own_fleet(body)
    assert (a("ASML"), b("ASML")) == (1, 1)
    own_server.pause()
    a.invalidate("ASML")
    a.put(70, "SAP")
    assert state_of(own_fleet, a).startswith("degraded")
    own_server.resume()
    until(lambda: state_of(own_fleet, a) == state_of(own_fleet, b) == "connected")
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 2
    assert b("SAP") == 70


def test_a_server_that_comes_back_empty(own_server, own_fleet, pool):
    """Near entries go, and one process calls anew."""
    body = Loads(lambda n: n)
    a, b = own_fleet(body), own_fleet(body)
    assert (a("ASML"), b("ASML")) == (1, 1)
    own_server.kill()
    own_server.start()
    until(lambda: a.entry("ASML") is None and b.entry("ASML") is None)
    until(lambda: state_of(own_fleet, a) == state_of(own_fleet, b) == "connected")
    assert (a("ASML"), b("ASML")) == (2, 2)


def test_a_bus_that_is_cut_is_a_gap(fleet, direct):
    """What was missed may have been a drop: near entries go, and the bus is heard again."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert (a("ASML"), b("ASML")) == (1, 1)
    direct.client_kill_filter(_type="pubsub")
    until(lambda: a.entry("ASML") is None and b.entry("ASML") is None)
    assert (a("ASML"), b("ASML")) == (1, 1)
    a.invalidate("ASML")
    until(lambda: b.entry("ASML") is None)


def test_a_server_without_memory_serves_what_it_has(make_server, pool):
    """What is not there is run by each process; the server's refusal is told once."""
    server = make_server("--maxmemory-policy", "noeviction")
    fleet = Fleet(server.url)
    try:
        body = Loads(lambda n: n)
        a, b = fleet(body), fleet(body)
        assert a("ASML") == 1
        server.do("CONFIG", "SET", "maxmemory", "1")
        assert b("ASML") == 1
        assert (a("SAP"), b("SAP")) == (2, 3)
        assert state_of(fleet, a) == state_of(fleet, b) == "connected"
    finally:
        fleet.close()


def test_a_server_that_has_no_memory_for_a_value_frees_the_lease(make_server, pool):
    """Or who waits elsewhere would do so until it ends."""
    server = make_server("--maxmemory-policy", "noeviction")
    fleet = Fleet(server.url)
    try:
        body = Loads(lambda n: n)
        a, b = (fleet(body, lease=1000 * PATIENCE) for _ in range(2))
        body.gate.clear()
        first = pool.submit(a, "ASML")
        assert body.entered.acquire(timeout=PATIENCE)
        second = pool.submit(b, "ASML")
        waits_elsewhere(b)
        server.do("CONFIG", "SET", "maxmemory", "1")
        body.gate.set()
        assert (first.result(PATIENCE), second.result(PATIENCE)) == (1, 2)
        assert a("ASML") == 1
    finally:
        fleet.close()


def test_a_flight_without_a_lease_that_takes_too_long_loses_its_key(make_server, pool):
    """Nothing is to be freed on a server that took no claim; that one is not told."""
    server = make_server("--maxmemory-policy", "noeviction")
    fleet = Fleet(server.url)
    try:
        body = Loads(lambda n: n)
        price = fleet(body, flight_timeout=0.1)
        assert price("warm") == 1
        assert body.entered.acquire(timeout=PATIENCE)
        server.do("CONFIG", "SET", "maxmemory", "1")
        body.gate.clear()
        first = start(pool, price, "ASML")
        assert body.entered.acquire(timeout=PATIENCE)
        again = start(pool, price, "ASML")
        assert body.entered.acquire(timeout=PATIENCE)
        body.gate.set()
        assert (first.result(PATIENCE), again.result(PATIENCE)) == (2, 3)
        assert state_of(fleet, price) == "connected"
    finally:
        fleet.close()


# -- what is on the server ---------------------------------------------------------------------------


def test_foreign_bytes_are_a_miss(fleet, direct):
    """Counted, told once, and replaced by what the function returns."""
    body = Loads(lambda n: n)
    a, b, c = (fleet(body) for _ in range(3))
    assert a("ASML") == 1
    place, version = place_of(a, "ASML")
    field = b"v" + bytes([len(version)]) + version
    assert direct.hexists(place.values, field)
    direct.hset(place.values, field, b"what is this?")
    assert b("ASML") == 2
    assert b.stats().unreadable == 1
    assert c("ASML") == 2


def test_values_of_another_version_are_not_read(fleet):
    """Old and new code have values side by side; one drop clears both."""
    body = Loads(lambda n: n)
    old, new = fleet(body, terms={"version": 1}), fleet(body, terms={"version": 2})
    assert (old("ASML"), new("ASML"), old("ASML"), new("ASML")) == (1, 2, 1, 2)
    new.invalidate("ASML")
    until(lambda: old.entry("ASML") is None)
    assert (old("ASML"), new("ASML")) == (3, 4)
    assert old.stats().unreadable == new.stats().unreadable == 0


def test_what_was_not_signed_is_not_read(fleet):
    """A process with a signing key and one without have nothing in common."""
    body = Loads(lambda n: n)
    plain, signed = fleet(body), fleet(body, terms={"signing_key": bytes(16)})
    assert (plain("ASML"), signed("ASML")) == (1, 2)
    assert signed.stats().unreadable == 1


def test_a_value_that_is_too_large_is_each_process_s_own(fleet, pool):
    """It is returned and kept near; those who wait do not wait one for another."""
    body = Loads("x" * 2000)
    a, b = (fleet(body, terms={"max_value": 1000}) for _ in range(2))
    body.gate.clear()
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    second = start(pool, b, "ASML")
    waits_elsewhere(b)
    body.gate.set()
    assert first.result(PATIENCE) == second.result(PATIENCE) == "x" * 2000
    assert len(body.calls) == 2
    assert a("ASML") == b("ASML") == "x" * 2000
    assert len(body.calls) == 2


def test_a_value_that_would_not_come_back_as_it_is_is_an_error(fleet):
    """It says to annotate the return type; nothing is stored."""
    price = fleet(Loads((1, 2)))
    with pytest.raises(TypeError, match="annotate"):
        price("ASML")
    assert price.entry("ASML") is None


# -- event loops and forks -----------------------------------------------------------------------------


def test_on_an_event_loop_drops_are_handed_over(fleet):
    """`await store.flush()` waits until the server has them."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert (a("ASML"), b("ASML")) == (1, 1)

    async def main():
        a.invalidate("ASML")
        assert await fleet.store_of(a).flush()

    asyncio.run(main())
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 2
    assert fleet.store_of(a).flush(0.5)


def test_a_key_that_means_nothing_elsewhere_is_an_error(fleet):
    """Nothing is called; the message names the part."""
    body = Loads()
    with pytest.raises(UnportableKey, match=r"key\[1\]"):
        fleet(body, key=lambda symbol: (symbol, [symbol].__len__))("ASML")
    assert body.calls == []


def test_a_method_needs_a_key(url):
    """Its instance has no name in other processes."""
    store = RedisStore(url)
    with pytest.raises((TypeError, RuntimeError), match="store"):

        class Account:
            @single_flight_ttl(ttl=60, store=store)
            def price(self, symbol):
                return 1.0

    class Other:
        def __init__(self, number):
            self.id = number

        @single_flight_ttl(ttl=60, store=store, key=("self.id", "symbol"))
        def price(self, symbol) -> float:
            return 1.0

    assert Other(1).price("ASML") == 1.0
    store.close()


def test_two_functions_of_one_name_are_refused(url):
    """They would share their values."""
    store = RedisStore(url)

    @single_flight_ttl(ttl=60, store=store, name="price")
    def price(symbol):
        return 1.0

    with pytest.raises(ValueError, match="two functions"):

        @single_flight_ttl(ttl=60, store=store, name="price")
        def quote(symbol):
            return 2.0

    store.close()
    assert price("ASML") == 1.0


def test_a_forked_child_has_nothing_of_its_parent(fleet, pool):
    """It neither renews nor releases its parent's lease, and asks the server for itself."""
    body = Loads(lambda n: os.getpid())
    a = fleet(body)
    body.gate.clear()
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            body.gate = threading.Event()
            body.gate.set()
            os.write(writing, str(a("SAP")).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    assert int(os.read(reading, 100)) == child
    os.close(reading)
    body.gate.set()
    assert first.result(PATIENCE) == os.getpid()
    assert a.stats().refused == 0
    assert a("SAP") == child
