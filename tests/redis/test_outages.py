"""Servers that are slow, deaf, read-only, replaced or foreign: callers see values, and no error of theirs."""

import logging
import shutil
import subprocess
import time

import pytest

from singleflight.redis.sources import source_of

from ..drivers import PATIENCE, until
from .conftest import BINARIES
from .fleets import Loads, called, link_of, never_probe, start, waits_elsewhere
from .proxy import Proxy
from .server import Server
from .waiting import wait_until

# -- the network -------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.05, 0.15, 0.3])
def test_a_slow_network_costs_time_and_no_errors(proxy, fleet_of, pool, colour, delay):
    """Within the timeout values are shared; beyond it each process works alone."""
    body = Loads(lambda n: n)
    fleet = fleet_of(proxy.url)
    a, b = (fleet(body, colour, terms={"timeout": 0.4}) for _ in range(2))
    assert (called(a, "warm"), called(b, "warm")) == (1, 1)
    proxy.delay = delay
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    values = {first.result(PATIENCE), start(pool, b, "ASML").result(PATIENCE)}
    if delay == 0.3:  # there and back is more than the timeout
        assert values == {2, 3}
        assert link_of(a).state(time.monotonic()).startswith("degraded")
    else:
        assert values == {2}
        assert len(body.calls) == 2
    proxy.delay = 0.0
    never_probe(a), never_probe(b)  # which would go on after the test


def test_a_network_that_swallows_all_is_asked_once(proxy, fleet_of, colour):
    """Then callers send nothing: the keeper alone asks."""
    body = Loads(lambda n: n)
    price = fleet_of(proxy.url)(body, colour, terms={"timeout": 0.2})
    assert called(price, "warm") == 1
    proxy.deaf = True
    assert called(price, "A") == 2
    never_probe(price)
    link_of(price).bus.stop()
    passed, opened = proxy.passed, proxy.opened
    assert [called(price, f"S{number}") for number in range(50)] == list(range(3, 53))
    assert (proxy.passed, proxy.opened) == (passed, opened)
    assert price.stats().degraded == 51


def test_a_refusing_server_is_an_outage_until_it_accepts(proxy, fleet_of):
    """What was dropped meanwhile is dropped for all."""
    body = Loads(lambda n: n)
    fleet = fleet_of(proxy.url)
    a, b = fleet(body), fleet(body, url=f"redis://127.0.0.1:{proxy.target}")
    assert (a("ASML"), b("ASML")) == (1, 1)
    proxy.refuse()
    a.invalidate("ASML")
    assert a("ASML") == 2
    assert b("ASML") == 1
    proxy.accept()
    until(lambda: fleet.store_of(a).state == "connected")
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 3
    assert a("ASML") == 3  # what it had loaded alone is older than the drop


def test_a_wake_that_is_lost_with_the_bus_is_made_good(fleet, direct, pool, colour):
    """Those who wait ask again as soon as it is back, long before the lease ends."""
    body = Loads()
    a, b = fleet(body, lease=60), fleet(body, colour, lease=60)
    body.gate.clear()
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    second = start(pool, b, "ASML")
    waits_elsewhere(b)
    bus = link_of(b).bus
    deliver, bus._deliver = bus._deliver, lambda *message: None  # the wake does not arrive
    body.gate.set()
    assert first.result(PATIENCE) == 984.75
    bus._deliver = deliver
    direct.client_kill_filter(_type="pubsub")
    assert second.result(PATIENCE) == 984.75
    assert body.calls == ["ASML"]


# -- the server --------------------------------------------------------------------------------------


def test_a_server_that_forgets_its_scripts_is_sent_them(fleet, direct, pool):
    """In the middle of a flight, too."""
    body = Loads()
    a, b = fleet(body), fleet(body)
    body.gate.clear()
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    second = start(pool, b, "ASML")
    waits_elsewhere(b)
    direct.script_flush()
    body.gate.set()
    assert first.result(PATIENCE) == second.result(PATIENCE) == 984.75
    assert body.calls == ["ASML"]
    assert a.stats().degraded == b.stats().degraded == 0


def test_a_replica_serves_what_it_has(make_server, fleet_of, caplog):
    """What it has not is loaded by each process; that it takes no writes is told once."""
    master = make_server("--repl-diskless-sync-delay", "0")
    replica = make_server("--replicaof", f"127.0.0.1 {master.port}")
    wait_until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"))
    body = Loads(lambda n: n)
    a, b = fleet_of(master.url)(body), fleet_of(replica.url)(body)
    assert a("ASML") == 1
    wait_until(lambda: int(replica.do("DBSIZE")[1:]) == int(master.do("DBSIZE")[1:]))
    with caplog.at_level(logging.WARNING, "singleflight"):
        assert (b("ASML"), b("SAP"), b("BMW")) == (1, 2, 3)
    assert link_of(b).state(0) == "connected"
    assert sum("loaded by each process" in line.message for line in caplog.records) == 1


def test_a_server_that_lacks_replicas_serves_what_it_has(make_server, fleet_of):
    """And takes drops again when it has enough."""
    server = make_server()
    body = Loads(lambda n: n)
    fleet = fleet_of(server.url)
    a, b = fleet(body), fleet(body)
    assert a("ASML") == 1
    server.do("CONFIG", "SET", "min-replicas-to-write", 1)
    assert (b("ASML"), a("SAP"), b("SAP")) == (1, 2, 3)
    a.invalidate("ASML")
    assert a("ASML") == 4
    server.do("CONFIG", "SET", "min-replicas-to-write", 0)
    assert fleet.store_of(a).flush(PATIENCE)
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 5


def is_named(line):
    return "lacks a right" in line or "no permissions" in line


@pytest.mark.parametrize("lacks", ["-hset", "-publish", "-subscribe", "-evalsha", "resetchannels"])
def test_a_right_that_is_missing_is_named_and_no_error(make_server, fleet_of, caplog, lacks):
    """Values come all the same, and drops reach whoever asks the server."""
    server = make_server()
    assert server.do("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", lacks) == b"+OK"
    url = f"redis://app:secret@127.0.0.1:{server.port}"
    body = Loads(lambda n: n)
    fleet = fleet_of(url)
    with caplog.at_level(logging.WARNING, "singleflight"):
        a, b = fleet(body, terms={"near_ttl": 0.001}), fleet(body, terms={"near_ttl": 0.001})
        first = a("ASML")
        assert b("ASML") in (first, first + 1)
        a.invalidate("ASML")
        until(lambda: b("ASML") > first and a("ASML") > first)  # near entries live for a moment
        until(lambda: any(is_named(line.message) for line in caplog.records))
    assert "secret" not in caplog.text
    named = [line.message for line in caplog.records if is_named(line.message)]
    assert max(map(named.count, named)) <= 2  # once for each process


def test_a_failover_that_loses_writes_costs_one_load_a_key(make_server, fleet_of):
    """What the new master has not is loaded once more; near entries go, since drops may be lost."""
    master = make_server("--repl-diskless-sync-delay", "0")
    replica = make_server("--replicaof", f"127.0.0.1 {master.port}")
    wait_until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"))
    body = Loads(lambda n: n)
    proxy = Proxy(master.port)
    try:
        fleet = fleet_of(proxy.url)
        a, b = fleet(body, lease=0.3), fleet(body, lease=0.3)
        assert (a("kept"), b("kept")) == (1, 1)
        wait_until(lambda: int(replica.do("DBSIZE")[1:]) == int(master.do("DBSIZE")[1:]))
        assert replica.do("REPLICAOF", "NO", "ONE") == b"+OK"  # it hears nothing more of the master
        assert (a("lost"), b("lost")) == (2, 2)
        a.invalidate("kept")
        assert a("kept") == 3
        master.kill()
        proxy.target = replica.port
        proxy.cut()
        until(lambda: a.entry("kept") is None and b.entry("lost") is None)
        until(lambda: link_of(a).state(0) == link_of(b).state(0) == "connected")
        values = {symbol: (a(symbol), b(symbol)) for symbol in ("kept", "lost")}
        assert values["lost"] == (4, 4)
        assert values["kept"] in [(1, 1), (3, 3)]  # its drop may be lost with the master
        assert len(body.calls) == 4
    finally:
        proxy.close()


# -- what is stored ----------------------------------------------------------------------------------


TAMPERED = {
    "truncated": lambda own, other: own[:-3],
    "cut short": lambda own, other: own[:10],
    "empty": lambda own, other: b"",
    "another key's": lambda own, other: other,
    "another format": lambda own, other: b"\xff" + own[1:],
    "with more behind": lambda own, other: own + b"x",
}


@pytest.mark.parametrize("signed", [False, True], ids=["plain", "signed"])
@pytest.mark.parametrize("how", TAMPERED)
def test_what_is_not_as_it_was_stored_is_a_miss(fleet, direct, how, signed):
    """Counted; never an exception, never that value."""
    body = Loads(lambda n: f"value {n}")
    terms = {"signing_key": bytes(16)} if signed else {}
    a, b = fleet(body, terms=terms), fleet(body, terms=terms)
    assert (a("ASML"), a("SAP")) == ("value 1", "value 2")
    tier = a._self_cache.tier
    field = b"v" + bytes([len(tier.version)]) + tier.version
    own, other = (direct.hget(tier.place_of((symbol,)).values, field) for symbol in ("ASML", "SAP"))
    direct.hset(tier.place_of(("ASML",)).values, field, TAMPERED[how](own, other))
    assert b("ASML") == "value 3"
    assert b.stats().unreadable == 1
    assert b("SAP") == "value 2"


def test_what_was_changed_is_a_miss_where_it_is_signed(fleet, direct):
    """Each byte of it counts."""
    body = Loads(lambda n: n)
    a, b = (fleet(body, terms={"signing_key": bytes(16), "near_ttl": 1e-6}) for _ in range(2))
    a("ASML")
    tier = a._self_cache.tier
    field = b"v" + bytes([len(tier.version)]) + tier.version
    values = tier.place_of(("ASML",)).values
    own = direct.hget(values, field)
    for at in range(len(own)):
        direct.hset(values, field, own[:at] + bytes([own[at] ^ 1]) + own[at + 1 :])
        assert b("ASML") == at + 2
        direct.hset(values, field, own)
    assert b.stats().unreadable == len(own)


def test_what_others_say_on_our_channels_means_nothing(fleet, direct, pool):
    """Bytes of any kind, on the bus and to the process itself."""
    body = Loads()
    a, b = fleet(body), fleet(body, terms={"signing_key": bytes(16)})
    for price in (a, b):
        assert price("ASML") == 984.75
    for channel in (link_of(a).channel, link_of(b).channel, link_of(a).bus_channel):
        for message in (
            b"",
            b"v",
            b"v\xff",
            b"d" * 41,
            bytes(300),
            b"e" + bytes(40) + b"9" * 400,
            "ä".encode(),
        ):
            assert direct.publish(channel, message) >= 1
    b.invalidate("ASML")
    until(lambda: b.entry("ASML") is None)
    assert link_of(a).bus.up
    assert link_of(b).bus.up
    assert a("ASML") == 984.75


# -- kinds of servers ----------------------------------------------------------------------------------


def share_and_drop(fleet, pool):
    """What a fleet is for, once: one load, a wake, a drop, tags, a clear."""
    body = Loads(lambda n: n)
    a, b = (fleet(body, tags=lambda landing: ["eu"]) for _ in range(2))
    body.gate.clear()
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    second = start(pool, b, "ASML")
    waits_elsewhere(b)
    body.gate.set()
    assert first.result(PATIENCE) == second.result(PATIENCE) == 1
    last = 1
    for drop in (lambda: a.invalidate("ASML"), lambda: a.invalidate_tag("eu"), a.cache_clear):
        drop()
        until(lambda: b.entry("ASML") is None)
        last += 1
        assert (b("ASML"), a("ASML")) == (last, last)
    assert link_of(a).state(0) == link_of(b).state(0) == "connected"


@pytest.mark.parametrize("name", sorted(BINARIES))
def test_every_server_that_is_here_will_do(make_server, fleet_of, pool, name):
    """Redis 7.0 and Valkey alike."""
    share_and_drop(fleet_of(make_server(binary=BINARIES[name]).url), pool)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate of its own authority, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", folder / "key.pem", "-out", folder / "ca.pem", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def tls_port(certificate):
    """A server that speaks TLS, where one here can."""
    for binary in BINARIES.values():
        files = {"cert": "ca", "key": "key", "ca-cert": "ca"}
        options = [
            part for what, of in files.items() for part in (f"--tls-{what}-file", certificate / f"{of}.pem")
        ]
        try:
            server = Server(binary, "--tls-port", "0", *map(str, options), "--tls-auth-clients", "no")
        except AssertionError:  # it was built without
            continue
        try:
            port = server.port + 1
            if server.do("CONFIG", "SET", "tls-port", port) == b"+OK":
                yield port
                return
        finally:
            server.close()
    pytest.skip("no server here speaks TLS")


def test_values_are_shared_by_tls(tls_port, certificate, fleet_of, pool):
    """With an authority of one's own."""
    share_and_drop(fleet_of(f"rediss://127.0.0.1:{tls_port}?ssl_ca_certs={certificate}/ca.pem"), pool)


@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_a_new_connection_has_read_what_tls_sends_after_the_handshake(tls_port, certificate, library):
    """Or redis-py with hiredis would take it for a broken one, and the server for lost.

    Seen with redis-py 8.1.0 and hiredis 3.5.0: findings/redis-hiredis-tickets-look-like-data.sh
    """
    scheme = {"redis": "rediss", "valkey": "valkeys"}[library]
    source = source_of(f"{scheme}://127.0.0.1:{tls_port}?ssl_ca_certs={certificate}/ca.pem", 5.0)
    assert source.library == library
    pool = source.for_threads().connection_pool
    connection = pool.connection_class(**pool.connection_kwargs)
    connection.connect()
    try:
        assert connection._sock.version() == "TLSv1.3"
        assert connection._sock.session.has_ticket
    finally:
        connection.disconnect()


def test_a_certificate_that_nobody_vouches_for_is_an_outage(tls_port, fleet_of):
    """It is verified, unless the URL says otherwise."""
    price = fleet_of(f"rediss://127.0.0.1:{tls_port}")(Loads())
    assert price("ASML") == 984.75
    assert link_of(price).state(0).startswith("degraded")


def test_where_another_server_answers_that_one_is_listened_to(make_server, fleet_of, pool):
    """As behind an address that has moved on, where the server that it led to before is still there."""
    old, new = make_server(), make_server()
    between = Proxy(old.port)
    try:
        body = Loads(lambda n: n)
        a, b = fleet_of(between.url)(body), fleet_of(new.url)(body)
        assert a("ASML") == 1
        keeper, clients = link_of(a).keeper, link_of(a).clients
        keeper._compare()
        between.target = new.port
        clients._threads.connection_pool.disconnect()
        keeper._compare()
        until(lambda: a.entry("ASML") is None and link_of(a).bus.up)
        assert (a("ASML"), b("ASML")) == (2, 2)
        until(lambda: link_of(a).bus.up)
        b.invalidate("ASML")
        until(lambda: a.entry("ASML") is None)
        assert a("ASML") == 3
    finally:
        between.close()
