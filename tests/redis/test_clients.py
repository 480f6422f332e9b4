"""Clients of ours: what they take from the user's, how they send, what errors mean, forks, loops."""

import asyncio
import gc
import logging
import socket
import time
from importlib import import_module
from urllib.parse import urlsplit

import pytest

from singleflight import single_flight_ttl
from singleflight.redis import RedisStore, scripts
from singleflight.redis.clients import Clients, Kind, Line, Trouble
from singleflight.redis.sources import source_of

from ..children import in_child
from ..drivers import PATIENCE
from ..sampling import one_in
from .proxy import Proxy
from .rights import RULES
from .waiting import wait_until

PLACE = scripts.place("sf:{f:k}")
OTHER = scripts.place("sf:{f:other}")
GET = scripts.command("GET", "plain")
LEASED = b"l"


def claim(token=b"a", mode="read", place=PLACE):
    return scripts.claim(place, b"1", token, mode, lease=60_000, channel=b"here", leader="me", most=1000)


def drop(place=PLACE):
    return scripts.drop(place, bus=b"bus", head=scripts.news_head(b"f" * 16, b"k" * 16, b"s" * 8))


def answers(caller):
    try:
        return caller.call(GET) is None
    except Trouble:
        return False


class Threads:
    """The calls of a thread."""

    def __init__(self, clients):
        self.clients = clients

    def call(self, call):
        return self.clients.call(call)

    def call_all(self, calls):
        return self.clients.call_all(calls)

    def settle(self):
        """What the kernel has is heard at once."""

    def close(self):
        self.clients.close()


class Tasks(Threads):
    """Those of a task, in a loop that is run for the test."""

    def __init__(self, clients):
        super().__init__(clients)
        self.runner = asyncio.Runner()

    def call(self, call):
        return self.runner.run(self.clients.acall(call))

    def call_all(self, calls):
        return self.runner.run(self.clients.acall_all(calls))

    def settle(self):
        """The loop hears what the kernel has."""
        for _ in range(3):
            self.runner.run(asyncio.sleep(0))

    def close(self):
        self.runner.close()
        self.clients.close()


@pytest.fixture(params=[Threads, Tasks])
def make(request, library):
    """Makes clients of either library for threads or tasks; they leave nothing open."""
    made = []

    def make(source, timeout=5.0):
        if isinstance(source, str):
            source = import_module(library).from_url(source)
        made.append(request.param(Clients(source, timeout=timeout)))
        return made[-1]

    yield make
    for caller in made:
        caller.close()
    gc.collect()  # so that what was left open complains now


def test_a_script_is_loaded_by_its_first_call(make, url, direct):
    """And by the first after the server has forgotten it."""
    caller = make(url)
    for _ in range(2):
        direct.script_flush()
        assert caller.call(claim())[:1] == LEASED
        assert caller.call(claim())[:1] == LEASED


@pytest.mark.parametrize("replies", [0, 1])
@pytest.mark.parametrize("asked", [[claim(place=OTHER)], [GET], [claim(place=OTHER), GET, GET]])
def test_an_interrupt_before_a_reply_leaves_none_behind(url, library, monkeypatch, asked, replies):
    """The replies that are still to come are nobody's: the next call gets its own."""
    clients = Clients(import_module(library).from_url(url), timeout=5.0)
    try:
        clients.call(claim())
        (connection,) = clients._threads.connection_pool._available_connections
        read, came = connection.read_response, []

        def strike():
            if len(came) == min(replies, len(asked) - 1):
                raise KeyboardInterrupt
            came.append(read())
            return came[-1]

        monkeypatch.setattr(connection, "read_response", strike)
        with pytest.raises(KeyboardInterrupt):
            clients.call_all(asked)
        monkeypatch.undo()
        assert connection._sock is None
        waiting = clients.call(claim(b"another"))
        assert waiting[:1] == b"w"
        assert clients._threads.connection_pool._available_connections == [connection]
    finally:
        clients.close()


def test_a_pipeline_keeps_order_though_scripts_are_unknown(make, url, direct):
    """A drop before a claim of the same key is executed before it, whichever of the two is known."""
    caller = make(url)
    for known in ([], [drop()], [claim()], [drop(), claim()]):
        direct.script_flush()
        for call in known:
            caller.call(call)
        dropped, claimed = caller.call_all([drop(), claim(b"mine")])
        assert isinstance(dropped, int)
        assert claimed[:1] == LEASED
        assert direct.hget(PLACE.flights, b"t\x011") == b"mine"


def test_what_follows_an_unknown_script_on_its_keys_is_asked_again(make, url, direct):
    """A plain command, too: it sees what the script has done."""
    caller, function = make(url), b"f" * 16
    last, tag = scripts.last_cut_key("sf", function), scripts.cut_key("sf", b"t" * 16)
    head = scripts.news_head(function, b"t" * 16, b"m" * 8)
    direct.script_flush()
    number, before, told, at = caller.call_all(
        [
            scripts.cut(last, tag, known=0, life=60_000, bus=b"sf:bus", head=head),
            scripts.command("GET", "another"),
            scripts.command("MGET", "another", last),
            scripts.command("PING"),
        ]
    )
    assert (before, scripts.number(told[1])) == (None, number)
    assert at in (True, b"PONG")


def test_a_pipeline_tells_each_error_in_its_place(make, url, direct):
    """The others are answered."""
    direct.set("sf:{f:bad}:f", "not ours", px=60_000)
    first, bad, last = make(url).call_all([claim(), claim(place=scripts.place("sf:{f:bad}")), GET])
    assert first[:1] == LEASED
    assert isinstance(bad, Trouble)
    assert bad.kind is Kind.REFUSED
    assert last is None


def test_only_what_is_needed_is_sent(make, proxy):
    """No greetings: a plain call is one command on its connection."""
    caller = make(proxy.url)
    caller.call(GET)
    assert proxy.passed == len(b"*2\r\n$3\r\nGET\r\n$5\r\nplain\r\n")
    assert proxy.opened == 1


@pytest.mark.parametrize("fault", ["killed", "paused", "deaf", "refusing"])
def test_a_lost_server_is_trouble_soon(make, own_server, fault):
    """Within the time-out, without a second attempt; and the server is asked again when it is back."""
    proxy = Proxy(own_server.port)
    try:
        caller = make(proxy.url, timeout=0.3)
        wait_until(lambda: answers(caller))
        harm, repair = {
            "killed": (own_server.kill, own_server.start),
            "paused": (own_server.pause, own_server.resume),
            "deaf": (lambda: setattr(proxy, "deaf", True), lambda: setattr(proxy, "deaf", False)),
            "refusing": (proxy.refuse, proxy.accept),
        }[fault]
        harm()
        began = time.monotonic()
        with pytest.raises(Trouble) as caught:
            caller.call(GET)
        assert time.monotonic() - began < 3.0  # far from both: a busy machine, and retries of the library's
        assert caught.value.kind is Kind.AWAY
        repair()
        wait_until(lambda: answers(caller))
    finally:
        proxy.close()


def test_a_connection_that_has_ended_is_not_used(make, proxy):
    """The pool notices, so that it costs nobody an error."""
    caller = make(proxy.url)
    caller.call(GET)
    proxy.cut()
    caller.settle()
    assert caller.call(GET) is None
    assert proxy.opened == 2


def test_no_memory_leaves_reads(make, make_server):
    """Claims that find a value are answered; the others are refused, and so is storing."""
    server = make_server("--maxmemory-policy", "noeviction")
    caller = make(server.url)
    caller.call(claim())
    publish = scripts.publish(PLACE, b"1", b"a", scripts.Publish(b"value", 60_000, 60_000), **ENDING)
    assert caller.call(publish) == 0
    assert server.do("CONFIG", "SET", "maxmemory", "1") == b"+OK"
    assert scripts.claimed(caller.call(claim())).envelope == b"value"
    with pytest.raises(Trouble) as caught:
        caller.call(claim(mode="force"))
    assert caught.value.kind is Kind.REFUSED


def test_a_replica_leaves_reads(make, make_server):
    """As a server that lacks replicas does."""
    master = make_server()
    caller = make(master.url)
    caller.call(claim())
    caller.call(scripts.publish(PLACE, b"1", b"a", scripts.Publish(b"value", 60_000, 60_000), **ENDING))
    assert master.do("CONFIG", "SET", "min-replicas-to-write", "1") == b"+OK"
    assert scripts.claimed(caller.call(claim())).envelope == b"value"
    with pytest.raises(Trouble) as caught:
        caller.call(claim(mode="force"))
    assert caught.value.kind is Kind.REFUSED
    assert master.do("CONFIG", "SET", "min-replicas-to-write", "0") == b"+OK"
    assert master.do("CONFIG", "SET", "replica-serve-stale-data", "yes") == b"+OK"
    assert master.do("REPLICAOF", "127.0.0.1", "1") == b"+OK"
    assert scripts.claimed(caller.call(claim())).envelope == b"value"
    with pytest.raises(Trouble) as caught:
        caller.call(claim(mode="force"))
    assert caught.value.kind is Kind.REFUSED


ENDING = {"birth": 1, "lease": 60_000, "bus": b"bus", "head": b"h" * 40}


@pytest.fixture
def as_user(own_server):
    """Makes a user with these rules, and returns the URL by which it logs in."""

    def make(*rules):
        assert own_server.do("ACL", "SETUSER", "app", "reset", "on", ">secret", "-@all", *rules) == b"+OK"
        return f"redis://app:secret@127.0.0.1:{own_server.port}"

    return make


def test_the_least_rights_are_enough(make, as_user):
    """Those of the documentation: every script runs, nothing is missing."""
    caller = make(as_user("~sf:*", "&sf:*", *RULES))
    assert caller.clients.missing("sf", [b"sf:p:1", b"sf:bus"]) == []
    caller.call(claim())
    publish = scripts.publish(PLACE, b"1", b"a", scripts.Publish(b"v", 60_000, 60_000), **ENDING)
    numbering = {"known": 0, "life": 1000, "bus": b"sf:bus", "head": b"h" * 40}
    for call in (publish, drop(), claim(), scripts.pass_on(PLACE, b"1", b"a", b"x", lease=1000),
                 scripts.raise_epoch(scripts.epoch_key("sf", b"f"), **numbering),
                 scripts.cut(scripts.last_cut_key("sf", b"f"), scripts.cut_key("sf", b"t"), **numbering),
                 scripts.command("MGET", scripts.cut_key("sf", b"t"))):  # fmt: skip
        caller.call(call)
    assert caller.clients.identity() is None  # it may not ask, and that is no trouble


@pytest.mark.parametrize("rule", one_in(3, RULES))
def test_a_missing_right_is_named(make, as_user, rule):
    """As the rule that would grant it; nobody has to guess."""
    caller = make(as_user("~sf:*", "&sf:*", *(each for each in RULES if each != rule)))
    named = caller.clients.missing("sf", [b"sf:p:1", b"sf:bus"])
    if rule in ("+evalsha", "+eval"):  # without both nothing can be asked of a server that knows no script
        assert named == ["+evalsha ~sf:*", "+eval ~sf:*"]
    else:
        assert [each.split()[0] for each in named] == [rule]


def test_missing_names_and_channels_are_named(make, as_user):
    """With the pattern that would grant them."""
    caller = make(as_user("~other:*", "&sf:*", *RULES))
    with pytest.raises(Trouble) as caught:
        caller.call(claim())
    assert caught.value.kind is Kind.RIGHTS
    assert "+evalsha ~sf:*" in caller.clients.missing("sf", [b"sf:p:1", b"sf:bus"])
    caller = make(as_user("~sf:*", *RULES))
    assert caller.clients.missing("sf", [b"sf:p:1", b"sf:bus"]) == ["+publish &sf:*", "+subscribe &sf:*"]


def test_no_right_to_publish_undoes_nothing(make, as_user, own_server):
    """A value is stored and the lease ended though nobody can be told."""
    caller = make(as_user("~sf:*", "&sf:*", *(each for each in RULES if each != "+publish")))
    caller.call(claim())
    caller.call(claim(b"b"))
    publish = scripts.publish(PLACE, b"1", b"a", scripts.Publish(b"v", 60_000, 60_000), **ENDING)
    assert caller.call(publish) == 1
    assert scripts.claimed(caller.call(claim())).envelope == b"v"


def test_a_wrong_password_is_trouble_without_it(make, own_server):
    """The message says neither the password nor the URL."""
    own_server.do("CONFIG", "SET", "requirepass", "right")
    caller = make(f"redis://:wrong-word@127.0.0.1:{own_server.port}")
    with pytest.raises(Trouble) as caught:
        caller.call(GET)
    assert caught.value.kind is Kind.AWAY
    assert "wrong-word" not in str(caught.value) + repr(caught.value) + repr(caller.clients)


# -- what is taken from the user's client


def test_a_client_is_copied_without_its_habits(library, url):
    """Its address and name are taken; its retries, time limits and decoding are not."""
    parts = urlsplit(url)
    for name in (library, f"{library}.asyncio"):
        module = import_module(name)
        kind = getattr(module, library.capitalize())
        theirs = kind(host=parts.hostname, port=parts.port, db=3, decode_responses=True, socket_timeout=77)
        source = source_of(theirs, 0.2)
        for ours in (source.for_threads(), source.for_tasks()):
            settings = ours.connection_pool.connection_kwargs
            assert (settings["host"], settings["port"], settings["db"]) == (parts.hostname, parts.port, 3)
            assert settings["socket_timeout"] == settings["socket_connect_timeout"] == 0.2
            assert not settings.get("decode_responses")
            assert settings["retry"]._retries == 0
        clients = Clients(theirs, timeout=5.0)
        clients.call(scripts.command("SET", "sf:plain", b"\xff\x00", "PX", 1000))
        assert clients.call(scripts.command("GET", "sf:plain")) == b"\xff\x00"
        clients.close()


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls_is_verified(scheme):
    """By certificate and by name, unless the URL says otherwise."""
    for ours in (
        source_of(f"{scheme}://host:1", 0.2).for_threads(),
        source_of(f"{scheme}://host:1", 0.2).for_tasks(),
    ):
        assert "SSL" in ours.connection_pool.connection_class.__name__
        settings = ours.connection_pool.connection_kwargs
        assert settings["ssl_cert_reqs"] == "required"
        assert settings["ssl_check_hostname"] is True


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=false"])
@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls_may_be_left_unverified(scheme, option):
    """By who says so."""
    ours = source_of(f"{scheme}://host:1?{option}", 0.2).for_threads()
    name, value = option.split("=")
    assert str(ours.connection_pool.connection_kwargs[name]).lower() == value


@pytest.mark.parametrize("scheme", ["redis", "valkey", "unix"])
def test_urls_are_read(scheme):
    """By redis-py or valkey-py, whichever is there; the first by the scheme."""
    source = source_of(
        "unix:///tmp/nowhere.sock?db=2" if scheme == "unix" else f"{scheme}://user:word@host:1/2", 0.2
    )
    assert source.library == ("valkey" if scheme == "valkey" else "redis")
    settings = source.for_threads().connection_pool.connection_kwargs
    assert settings["db"] == 2
    assert settings.get("path") == ("/tmp/nowhere.sock" if scheme == "unix" else None)
    assert "word" not in repr(source)


def test_urls_are_read_by_the_other_library(monkeypatch):
    """Where the first is not installed; without any the error says what to install."""
    import singleflight.redis.sources as sources

    absent = {"redis"}

    def import_some(name):
        if name in absent:
            raise ImportError(name)
        return import_module(name)

    monkeypatch.setattr(sources, "import_module", import_some)
    assert source_of("redis://host:1", 0.2).library == "valkey"
    absent.add("valkey")
    with pytest.raises(ImportError, match="singleflight-kit"):
        source_of("redis://host:1", 0.2)


@pytest.mark.parametrize("given", ["nonsense://:word@host", "redis://:word@host:port", "host:6379", ""])
def test_a_bad_url_is_refused_without_its_password(given):
    """At once, before anything connects."""
    with pytest.raises(ValueError, match=r"^store: the server's URL cannot be read") as caught:
        source_of(given, 0.2)
    assert "word" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("given", [None, 7, object(), ["redis://host"]])
def test_anything_else_is_refused(given):
    """With what would do."""
    with pytest.raises(TypeError, match="redis-py or valkey-py"):
        source_of(given, 0.2)


# -- loops and processes


@pytest.mark.parametrize("rounds", [3])
def test_each_loop_has_its_own(library, url, rounds, direct):
    """And leaves no connection when it ends."""
    clients = Clients(import_module(library).from_url(url), timeout=5.0)
    before = len(direct.client_list())
    for _ in range(rounds):

        async def both():
            await asyncio.gather(*(clients.acall(GET) for _ in range(5)))
            return len(direct.client_list())

        assert asyncio.run(both()) > before
        assert len(clients._loops) == 0
    wait_until(lambda: len(direct.client_list()) == before)
    clients.close()


def test_a_closed_store_says_so(library, url, direct):
    """Also to a loop that has connections, which it closes."""
    clients = Clients(import_module(library).from_url(url), timeout=5.0)
    before = len(direct.client_list())

    async def ask():
        await clients.acall(GET)
        await asyncio.to_thread(clients.close)
        with pytest.raises(Trouble, match="closed"):
            await clients.acall(GET)
        await asyncio.to_thread(wait_until, lambda: len(direct.client_list()) == before)

    asyncio.run(ask())
    with pytest.raises(Trouble, match="closed"):
        clients.call(GET)


def test_a_loop_knows_at_once_that_its_store_is_closed(library, url, monkeypatch):
    """Though it has not closed its connections yet."""
    clients = Clients(import_module(library).from_url(url), timeout=5.0)

    async def ask():
        await clients.acall(GET)
        client, _ = clients._loops[asyncio.get_running_loop()]
        monkeypatch.setattr(client, "execute_command", None)  # it is not asked
        clients.close()  # which leaves that to the loop, for later
        with pytest.raises(Trouble, match="closed"):
            await clients.acall(GET)

    asyncio.run(asyncio.wait_for(ask(), 30))


def test_a_child_has_connections_of_its_own(library, url, direct):
    """And leaves its parent's as they are, those of threads and those of a loop that runs."""
    clients = Clients(import_module(library).from_url(url), timeout=5.0)
    direct.set("sf:whose", "1", px=60_000)
    own = scripts.command("CLIENT", "ID")

    async def both():
        here = clients.call(own), await clients.acall(own)
        child = in_child(
            lambda: (clients.call(own), gc.collect() and None, asyncio.Runner().run(clients.acall(own)))
        )
        assert (clients.call(own), await clients.acall(own)) == here
        assert child.startswith("(")
        assert not {str(each) for each in here} & set(child.strip("()").split(", "))

    asyncio.run(both())
    clients.close()


def test_a_right_to_read_that_is_missing_is_no_error(as_user):
    """The server cannot be asked which epoch it is: calls load alone, and the explanation says so."""
    store = RedisStore(as_user("~sf:*", "&sf:*", *(rule for rule in RULES if rule != "+mget")), timeout=2)
    price = single_flight_ttl(ttl=60, name="price", store=store)(lambda symbol: 984.75)
    assert price.explain_fleet("ASML").would == "degraded"
    assert price("ASML") == 984.75
    store.close()


def test_a_process_names_the_rights_that_its_user_lacks(as_user, caplog):
    """Each once, when it first connects, as the rule that would grant it; calls go on."""
    store = RedisStore(as_user("~sf:*", "&sf:*", *(rule for rule in RULES if rule != "+hgetall")), timeout=2)
    price = single_flight_ttl(ttl=60, name="price", store=store)(lambda symbol: 984.75)
    with caplog.at_level(logging.WARNING, "singleflight"):
        assert price("ASML") == 984.75
        wait_until(lambda: caplog.records)
        assert price("SAP") == 984.75
        assert store.flush(PATIENCE)
    store.close()
    assert [line.message for line in caplog.records] == [
        "sf: the server's user lacks a right: +hgetall ~sf:*"
    ]


# -- what a line reads -------------------------------------------------------------------------------


class Wire:
    """A connection of a library's whose other end is the test's."""

    def __init__(self):
        self._sock, self.server = socket.socketpair()

    def connect(self):
        pass

    def disconnect(self):
        self._sock.close()


@pytest.fixture
def wire():
    wire = Wire()
    yield wire
    wire._sock.close(), wire.server.close()


MESSAGES = (
    b"*3\r\n$9\r\nsubscribe\r\n$4\r\nhere\r\n:1\r\n"
    b"*3\r\n$7\r\nmessage\r\n$4\r\nhere\r\n$6\r\na\r\n\x00*1\r\n"
    b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
    b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"
)
READ = [
    ("subscribe", b"here", b"1"),
    ("message", b"here", b"a\r\n\x00*1"),
    ("pong", b"", b""),
    ("unsubscribe", b"", b"0"),
]


@pytest.mark.parametrize("cut_at", range(len(MESSAGES) + 1))
def test_a_message_is_read_as_a_whole_wherever_it_was_torn(wire, cut_at):
    """What came of one before the time was over is not lost."""
    line = Line(wire)
    wire.server.sendall(MESSAGES[:cut_at])
    read = []
    while (message := line.receive(0)) is not None:
        read.append(message)
    assert read == READ[: len(read)]
    wire.server.sendall(MESSAGES[cut_at:])
    read += [line.receive(PATIENCE) for _ in READ[len(read) :]]
    assert read == READ
    assert line.receive(0) is None


@pytest.mark.parametrize(
    ("sent", "kind", "text"),
    [
        (b"-NOPERM this user may not\r\n", Kind.RIGHTS, "NOPERM"),
        (b"-LOADING the dataset\r\n", Kind.AWAY, "LOADING"),
        (b"-ERR unknown command\r\n", Kind.REFUSED, "unknown"),
        (b"+OK\r\n", Kind.AWAY, "no message"),
        (b"*1\r\n*0\r\n", Kind.AWAY, "no message"),
        (b"*x\r\n", Kind.AWAY, "invalid literal"),
        (b"*1\r\n$", Kind.AWAY, "closed"),
    ],
)
def test_what_is_no_message_is_a_trouble(wire, sent, kind, text):
    """A refusal as what it means, the rest and the connection's end as a lost server."""
    line = Line(wire)
    wire.server.sendall(sent)
    wire.server.shutdown(socket.SHUT_WR)
    with pytest.raises(Trouble, match=text) as raised:
        line.receive(PATIENCE)
    assert raised.value.kind is kind
