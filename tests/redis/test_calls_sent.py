"""How commands are sent and what replies and errors become: with clients of a library that are stand-ins."""

import asyncio
import socket
from types import SimpleNamespace

import pytest

from singleflight.redis import clients as module
from singleflight.redis import scripts
from singleflight.redis.clients import Clients, Kind, Line, Trouble, raise_trouble, trouble_of

from ..drivers import PATIENCE

PLACE = scripts.place("sf:{f:k}")
RENEW = scripts.renew(PLACE, b"1", b"token", lease=9)
OTHER = scripts.renew(scripts.place("sf:{f:other}"), b"1", b"token", lease=9)
GET = scripts.command("GET", "plain")


class ResponseError(Exception):
    pass


class NoScriptError(ResponseError):
    pass


class NoPermissionError(ResponseError):
    pass


class TryAgainError(ResponseError):
    pass


class ClusterDownError(ResponseError):
    pass


class Struck(BaseException):
    pass


AWAY, REFUSED, RIGHTS = ConnectionError("gone"), ResponseError("OOM"), NoPermissionError("no right")


def by_digest(call):
    return ("EVALSHA", call.script.sha, len(call.keys), *call.keys, *call.args)


def by_text(call):
    return ("EVAL", call.script.text, len(call.keys), *call.keys, *call.args)


class Told:
    """What was done, in order; what is to come back."""

    def __init__(self, *replies):
        self.done, self.replies = [], [*replies]

    def next(self):
        reply = self.replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        return reply


class Connection:
    def __init__(self, told):
        self.told = told

    def pack_commands(self, commands):
        return list(commands)

    def send_packed_command(self, commands):
        self.told.done.append(commands)

    def read_response(self):
        return self.told.next()

    def disconnect(self):
        self.told.done.append("disconnect")


class Server:
    """A client with a pool."""

    def __init__(self, told):
        self.told, self.connection_pool = told, self

    def get_connection(self, *names):
        self.told.done.append(names)
        return Connection(self.told)

    def release(self, connection):
        self.told.done.append("release")

    def execute_command(self, *command, **options):
        self.told.done.append((command, options))
        return self.told.next()


class Pipeline:
    def __init__(self, told, transaction):
        self.told, self.commands = told, []
        assert transaction is False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.told.done.append("left")

    def execute_command(self, *command):
        self.commands.append(command)

    def execute(self, raise_on_error):
        assert raise_on_error is False
        self.told.done.append(self.commands)
        return self.told.next()


class Cluster:
    """A client without a pool."""

    nodes_manager = None

    def __init__(self, told):
        self.told = told

    execute_command = Server.execute_command

    def pipeline(self, transaction):
        return Pipeline(self.told, transaction)


class TaskPipeline(Pipeline):
    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.told.done.append("left")

    async def execute(self, raise_on_error):
        return Pipeline.execute(self, raise_on_error)


class OfLoop:
    """A client of an event loop."""

    def __init__(self, told):
        self.told = told

    async def execute_command(self, *command):
        self.told.done.append(command)
        return self.told.next()

    def pipeline(self, transaction):
        return TaskPipeline(self.told, transaction)

    async def aclose(self):
        self.told.done.append("closed")


def made(kind, *replies, library="redis"):
    """Clients that use this one, and what it was told."""
    told, clients = Told(*replies), Clients(f"{library}://localhost:1")
    clients._threads = kind(told)
    clients.source = SimpleNamespace(library=library, for_tasks=lambda: OfLoop(told))
    return clients, told


# -- threads -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("library", "names"), [("redis", ()), ("valkey", ("EVALSHA",))])
def test_a_call_by_a_connection_of_the_pool(library, names):
    """A script by its digest; by its text where the server does not know it."""
    clients, told = made(Server, 1, NoScriptError("unknown"), 2, b"plain", library=library)
    assert [clients.call(RENEW), clients.call(RENEW), clients.call(GET)] == [1, 2, b"plain"]
    assert told.done == [
        *(names, [by_digest(RENEW)], "release"),
        *(names, [by_digest(RENEW)], "release"),
        *(names, [by_text(RENEW)], "release"),
        *(names, [("GET", "plain")], "release"),
    ]


def test_a_call_to_a_cluster():
    """Its client finds the node; it needs no pipeline for one command."""
    clients, told = made(Cluster, 1, NoScriptError("unknown"), 2, b"plain")
    assert [clients.call(RENEW), clients.call(RENEW), clients.call(GET)] == [1, 2, b"plain"]
    sent = [by_digest(RENEW), by_digest(RENEW), by_text(RENEW), ("GET", "plain")]
    assert told.done == [(command, {}) for command in sent]


@pytest.mark.parametrize("kind", [Server, Cluster])
@pytest.mark.parametrize(
    ("error", "is_kind"), [(AWAY, Kind.AWAY), (REFUSED, Kind.REFUSED), (RIGHTS, Kind.RIGHTS)]
)
def test_an_error_of_a_call(kind, error, is_kind):
    """Is a trouble; the connection is given back as it is where the server has answered."""
    clients, told = made(kind, error)
    with pytest.raises(Trouble) as caught:
        clients.call(RENEW)
    assert (caught.value.kind, caught.value.text) == (is_kind, str(error))
    ends = ["disconnect", "release"] if error is AWAY else [[by_digest(RENEW)], "release"]
    assert told.done[-2:] == (ends if kind is Server else [(by_digest(RENEW), {})])


@pytest.mark.parametrize(("struck", "raised"), [(Struck(), Struck), (ValueError("a handler's"), Trouble)])
def test_an_interrupt_of_a_call(struck, raised):
    """The connection is closed before it is given back: replies are still to come, to whoever is next."""
    clients, told = made(Server, 1, struck)
    with pytest.raises(raised):
        clients.call_all([RENEW, GET, GET])
    assert told.done[-2:] == ["disconnect", "release"]


@pytest.mark.parametrize("kind", [Server, Cluster])
def test_several_calls_go_in_one_pipeline(kind):
    """Errors of the server have their places."""
    replies = [1, REFUSED, b"plain"]
    clients, told = made(kind, *(replies if kind is Server else [replies]))
    first, refused, plain = clients.call_all([RENEW, OTHER, GET])
    assert (first, refused.kind, plain) == (1, Kind.REFUSED, b"plain")
    sent = [by_digest(RENEW), by_digest(OTHER), ("GET", "plain")]
    assert told.done == ([(), sent, "release"] if kind is Server else [sent, "left"])


def test_what_met_an_unknown_script_is_asked_again():
    """And what came after it on the same keys."""
    get = scripts.command("GET", PLACE.values)
    clients, told = made(Server, NoScriptError("unknown"), 5, b"old", b"plain", 1, b"new")
    assert clients.call_all([RENEW, OTHER, get, GET]) == [1, 5, b"new", b"plain"]
    assert told.done[4] == [by_text(RENEW), ("GET", PLACE.values)]


@pytest.mark.parametrize("calls", [[RENEW], [RENEW, GET]])
@pytest.mark.parametrize("kind", [Server, Cluster])
def test_several_calls_to_a_server_that_is_lost(kind, calls):
    """Raise that."""
    clients, _ = made(kind, AWAY)
    with pytest.raises(Trouble) as caught:
        clients.call_all(calls)
    assert (caught.value.kind, caught.value.text) == (Kind.AWAY, "gone")


def test_one_of_several_calls_that_is_one():
    """It is refused in its place, and raises where the server is lost, also by what it replies."""
    clients, _ = made(Server, REFUSED, ResponseError("BUSY running a script"))
    [refused] = clients.call_all([RENEW])
    assert refused.kind is Kind.REFUSED
    with pytest.raises(Trouble, match="BUSY") as caught:
        clients.call_all([RENEW])
    assert caught.value.kind is Kind.AWAY


def test_whether_it_is_asked_inside_of_a_section():
    """A handler that interrupts a section waits for nobody."""
    clients, _ = made(Server)
    assert clients.is_owned() is False
    with clients._lock:
        assert clients.is_owned() is True


# -- tasks ---------------------------------------------------------------------------------------------


def test_calls_of_a_task():
    """As in threads."""
    replies = [[1, REFUSED, b"plain"], [NoScriptError("unknown"), b"plain"], [2]]
    clients, told = made(
        Server, 7, NoScriptError("unknown"), 8, b"plain", *replies, AWAY, RIGHTS, REFUSED, AWAY
    )

    async def main():
        assert [await clients.acall(RENEW), await clients.acall(RENEW), await clients.acall(GET)] == [
            7,
            8,
            b"plain",
        ]
        first, refused, plain = await clients.acall_all([RENEW, OTHER, GET])
        assert (first, refused.kind, plain) == (1, Kind.REFUSED, b"plain")
        assert await clients.acall_all([RENEW, GET]) == [2, b"plain"]
        for calls, kind in (([RENEW, GET], Kind.AWAY), ([RENEW], Kind.RIGHTS), ([RENEW], Kind.REFUSED)):
            try:
                [trouble] = await clients.acall_all(calls)
            except Trouble as raised:
                trouble = raised
                assert (kind, trouble.text) == (Kind.AWAY, "gone")
            assert trouble.kind is kind
        with pytest.raises(Trouble, match="gone"):
            await clients.acall_all([RENEW])

    asyncio.run(main())
    assert told.done == [
        *(by_digest(RENEW), by_digest(RENEW), by_text(RENEW), ("GET", "plain")),
        *([by_digest(RENEW), by_digest(OTHER), ("GET", "plain")], "left"),
        *([by_digest(RENEW), ("GET", "plain")], "left", [by_text(RENEW)], "left"),
        *([by_digest(RENEW), ("GET", "plain")], "left", by_digest(RENEW), by_digest(RENEW), by_digest(RENEW)),
        "closed",
    ]


class Repeating(OfLoop):
    """One that repeats what is not answered, unless it is told the node."""

    cluster_error_retry_attempts = 1

    async def initialize(self):
        self.told.done.append("knows its nodes")

    def get_node_from_key(self, key):
        return f"the node of {key}"

    async def execute_command(self, *command, **options):
        self.told.done.append(options)
        return await super().execute_command(*command)


def test_a_call_of_a_task_to_a_cluster_that_would_repeat_it():
    """It names the node, but where there is no key to say which."""
    clients, told = made(Server, NoScriptError("unknown"), 8, "PONG")
    clients.source.for_tasks = lambda: Repeating(told)

    async def main():
        assert await clients.acall(RENEW) == 8
        assert await clients.acall(scripts.command("PING")) == "PONG"

    asyncio.run(main())
    named = ["knows its nodes", {"target_nodes": f"the node of {PLACE.values}"}]
    assert told.done == [*named, by_digest(RENEW), *named, by_text(RENEW), {}, ("PING",), "closed"]


def test_a_loop_that_runs_on_closes_its_client():
    """When the store is closed."""
    clients, told = made(Server, 7)

    async def main():
        assert await clients.acall(RENEW) == 7
        clients._threads = None
        await asyncio.to_thread(clients.close)
        async with asyncio.timeout(PATIENCE):
            while told.done[-1] != "closed" or module._closing:
                await asyncio.sleep(0)
        with pytest.raises(Trouble, match=r"^the store is closed$") as caught:
            await clients.acall(RENEW)
        assert caught.value.kind is Kind.AWAY

    asyncio.run(main())


# -- clients that begin and end ------------------------------------------------------------------------


class Closing:
    """A client, and what it asks sentinels by."""

    def __init__(self, done, name, *sentinels):
        self.done, self.name = done, name
        manager = SimpleNamespace(sentinels=sentinels)
        self.connection_pool = SimpleNamespace(sentinel_manager=manager) if sentinels else None

    def close(self):
        self.done.append(self.name)

    async def aclose(self):
        self.done.append(self.name)
        raise OSError("it was closed")


def closing(done, name):
    return Closing(done, name, Closing(done, f"{name}'s first"), Closing(done, f"{name}'s second"))


def test_a_client_is_made_at_the_first_call():
    """Of two that are made at once, one is used, and the other one closed."""
    clients, done = Clients("redis://localhost:1"), []
    first, second = closing(done, "first"), closing(done, "second")
    assert clients.source.timeout == 0.2

    def for_threads():
        clients._threads = first
        return second

    clients.source = SimpleNamespace(for_threads=lambda: first)
    assert clients._connect() is clients._threads is first
    clients.source = SimpleNamespace(for_threads=for_threads)
    assert clients._connect() is clients._threads is first
    assert done == ["second", "second's first", "second's second"]
    clients.close()
    assert done[3:] == ["first", "first's first", "first's second"]
    clients.source = SimpleNamespace(for_threads=lambda: second)
    with pytest.raises(Trouble, match=r"^the store is closed$") as caught:
        clients._connect()
    assert caught.value.kind is Kind.AWAY
    assert clients._threads is None
    assert len(done) == 9


def test_the_client_of_a_loop_ends_with_it():
    """Whatever its connections say to that, and though it is not known any more."""
    clients, done = Clients("redis://localhost:1"), []
    clients.source = SimpleNamespace(for_tasks=lambda: closing(done, "its own"))

    async def main():
        client = await clients._of_loop()
        assert await clients._of_loop() is client
        [(known, guard)] = clients._loops.values()
        assert known is client
        clients._loops.clear()
        await guard.aclose()

    asyncio.run(main())
    assert done == ["its own", "its own's first", "its own's second"]


def test_a_loop_that_is_closed_is_told_nothing():
    """It has closed its client, or cannot any more."""
    clients, loop, done = Clients("redis://localhost:1"), asyncio.new_event_loop(), []
    clients.source = SimpleNamespace(for_tasks=lambda: closing(done, "its own"))
    loop.run_until_complete(clients._of_loop())
    loop.close()
    clients.close()
    assert done == []


def test_a_child_keeps_its_parents_connections():
    """Ended there, they would be ended here."""
    clients, told = made(Server)
    parents, loops = clients._threads, clients._loops
    loop = asyncio.new_event_loop()
    loops[loop] = "client", "guard"
    clients.after_fork()
    assert module._of_parents.pop() == (parents, [("client", "guard")])
    assert (clients._threads, len(clients._loops), told.done) == (None, 0, [])
    loop.close()


# -- which run of the server ---------------------------------------------------------------------------


def test_which_run_of_the_server_answers():
    """And in which role."""
    clients, told = made(Server, {"run_id": "r1", "role": "master", "port": 1})
    assert clients.identity() == "r1 master"
    assert told.done == [(("INFO", "server", "replication"), {})]


def test_which_runs_of_a_cluster_answer():
    """In any order: only its primaries are asked."""
    runs = {"a": {"run_id": "r2", "role": "master"}, "b": {"run_id": "r1", "role": "master"}}
    clients, told = made(Cluster, runs)
    assert clients.identity() == "r1 master r2 master"
    assert told.done == [(("INFO", "server", "replication"), {"target_nodes": "primaries"})]


@pytest.mark.parametrize(
    ("kind", "info"),
    [
        (Server, {"redis_version": "7.4.0", "role": "master"}),
        (Server, {"run_id": "r1"}),
        (Server, {"redis_version": "7.4.0", "db0": {"keys": 1}}),
        (Server, {}),
        (Cluster, {"a": {"run_id": "r1", "role": "master"}, "b": {"role": "master"}}),
    ],
)
def test_a_server_that_has_no_runs(kind, info):
    """One that only speaks as Redis does may say nothing of them: that is no trouble."""
    clients, _ = made(kind, info)
    assert clients.identity() is None


def test_a_server_that_does_not_say():
    """By a missing right; a lost one is a trouble."""
    clients, _ = made(Server, RIGHTS, AWAY)
    assert clients.identity() is None
    with pytest.raises(Trouble, match=r"^gone$") as caught:
        clients.identity()
    assert caught.value.__suppress_context__


# -- what listens --------------------------------------------------------------------------------------


class Listener:
    """The connection of a line."""

    def __init__(self, **kwargs):
        self.kwargs, self.sent = kwargs, []
        if kwargs.get("fails"):
            raise AWAY

    def connect(self):
        self._sock = "socket"

    def send_command(self, *command):
        self.sent.append(command)


def of_pool(**kwargs):
    return SimpleNamespace(
        connection_pool=SimpleNamespace(connection_class=Listener, connection_kwargs=kwargs)
    )


def test_a_line_to_a_server():
    """By a connection of its own, with the settings of the pool."""
    clients, _ = made(Server)
    clients._threads = of_pool(host="h")
    line = clients.subscribe([b"own", b"all"])
    assert (line._connection.kwargs, line._socket) == ({"host": "h"}, "socket")
    assert line._connection.sent == [("SUBSCRIBE", b"own", b"all")]


@pytest.mark.parametrize("library", ["redis", "valkey"])
def test_a_line_to_a_cluster(library):
    """To any of its primaries."""
    clients, _ = made(Server, library=library)
    cluster = SimpleNamespace(nodes_manager=None, get_primaries=lambda: ["node"])
    setattr(cluster, f"get_{library}_connection", lambda node: of_pool(host=node))
    clients._threads = cluster
    assert clients.subscribe([b"own"])._connection.kwargs == {"host": "node"}


def test_a_line_that_cannot_be_made():
    """Is a trouble."""
    clients, _ = made(Server)
    clients._threads = of_pool(fails=True)
    with pytest.raises(Trouble, match=r"^gone$") as caught:
        clients.subscribe([b"own"])
    assert caught.value.__suppress_context__


class Socket:
    """Of a line: what it receives, and what was done with it."""

    def __init__(self, *received):
        self.received, self.done = [*received], []

    def settimeout(self, seconds):
        self.done.append(seconds)

    def recv(self, most):
        assert most == 65_536
        come = self.received.pop(0)
        if isinstance(come, Exception):
            raise come
        return come

    def shutdown(self, how):
        self.done.append(how)
        raise OSError("it has ended")


def line_of(*received):
    sock = Socket(*received)

    def fail(*_):
        raise AWAY

    return Line(SimpleNamespace(connect=lambda: None, _sock=sock, send_command=fail, disconnect=fail)), sock


MESSAGE = b"*3\r\n$7\r\nMESSAGE\r\n$3\r\nown\r\n$5\r\nhello\r\n"


def test_how_long_a_line_waits():
    """It is told the system where it changes, and is never nothing, which would be another kind of wait."""
    line, sock = line_of(MESSAGE[:20], MESSAGE[20:], TimeoutError(), MESSAGE, TimeoutError())
    assert line.receive(1.0) == ("message", b"own", b"hello")
    assert line.receive(1.0) is None
    assert sock.done == [1.0]
    assert line.receive(0.0) == ("message", b"own", b"hello")
    assert line.receive(0.0) is None
    assert sock.done == [1.0, 0.001]


def test_a_line_that_has_ended():
    """Who receives or sends gets a trouble; who ends it, nothing."""
    line, sock = line_of(b"")
    with pytest.raises(Trouble, match=r"^the server has closed the connection$"):
        line.receive(1.0)
    with pytest.raises(Trouble, match=r"^gone$"):
        line.send("PING")
    line.cut(), line.close()
    assert sock.done[1:] == [socket.SHUT_RDWR]


@pytest.mark.parametrize(
    ("data", "parts", "rest"),
    [
        (MESSAGE, [b"MESSAGE", b"own", b"hello", b"", b""], b""),
        (MESSAGE + b"*", [b"MESSAGE", b"own", b"hello", b"", b""], b"*"),
        (b"*1\r\n+OK\r\n", [b"OK", b"", b""], b""),
        (b"*4\r\n:1\r\n$-1\r\n$0\r\n\r\n:22\r\n", [b"1", b"", b"", b"22", b"", b""], b""),
    ],
)
def test_a_message_of_its_own(data, parts, rest):
    """Is read as soon as its last byte has come, and not before."""
    found, left = module._message(data)
    assert (found, left) == (parts, rest)
    for end in range(len(data) - len(rest)):
        assert module._message(data[:end]) is None


@pytest.mark.parametrize("data", [b"\r\n", b"+OK\r\n", b"*1\r\n,1.5\r\n"])
def test_what_is_no_message(data):
    """Though it may look as if more were to come."""
    with pytest.raises(ValueError, match=r"^the bus was answered with what is no message$"):
        module._message(data)


@pytest.mark.parametrize(("data", "text"), [(b"ERR \xff", "ERR \ufffd"), (b"x" * 301, "x" * 300)])
def test_an_error_on_a_line(data, text):
    """In whatever bytes."""
    with pytest.raises(Trouble) as caught:
        module._message(b"-" + data + b"\r\n")
    assert (caught.value.kind, caught.value.text) == (Kind.REFUSED, text)


# -- what errors mean ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (NoPermissionError("may not"), Kind.RIGHTS, "may not"),
        (ResponseError("NOPERM may not"), Kind.RIGHTS, "NOPERM may not"),
        (ResponseError("OOM  no\nmemory"), Kind.REFUSED, "OOM no memory"),
        (ResponseError("LOADING the data"), Kind.AWAY, "LOADING the data"),
        (TryAgainError("soon"), Kind.AWAY, "soon"),
        (ClusterDownError("soon"), Kind.AWAY, "soon"),
        (OSError(), Kind.AWAY, "OSError"),
        (ResponseError("x" * 301), Kind.REFUSED, "x" * 300),
    ],
)
def test_what_an_error_means(error, kind, text):
    """In one line."""
    trouble = trouble_of(error)
    assert (trouble.kind, trouble.text, str(trouble), trouble.args) == (kind, text, text, (kind, text))
    assert trouble_of(trouble) is trouble


def test_the_first_trouble_is_raised():
    """Among replies."""
    raise_trouble([1, None, ValueError()])
    first = Trouble(Kind.AWAY, "first")
    with pytest.raises(Trouble, match="first"):
        raise_trouble([1, first, Trouble(Kind.AWAY, "second")])
