"""Connections to the server, of threads and of event loops, and what their errors mean.

redis-py and valkey-py are taken by duck type; `sources` makes the clients. Each script is sent by its digest,
and by its text to a server that does not know it.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from . import scripts
from .forks import renew_in_children
from .scripts import Call
from .sources import Source, source_of

_SOON = ("BUSY", "MASTERDOWN", "LOADING", "CLUSTERDOWN", "TRYAGAIN")  # errors of a server that will answer
_AT_ONCE = 65_536  # bytes that are read
_SHORTEST = 0.001  # seconds that are waited; 0 would be another kind of wait

__all__ = ["Clients", "Kind", "Line", "Trouble", "raise_trouble", "replies_of", "trouble_of"]


class Kind(Enum):
    """What an error of the server means for the one who asked."""

    AWAY = "away"  # it does not answer: degrade, ask nothing until a probe succeeds
    REFUSED = "refused"  # it answers, but not this: no memory, no replicas, a replica: reads go on
    RIGHTS = "rights"  # as REFUSED, by a missing right: to be named once


class Trouble(Exception):
    """The only error that `Clients` raise: its kind, and one line without credentials."""

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text

    def __str__(self) -> str:
        return self.text


class Clients:
    """All connections of one store: a client with a pool for threads, and one for each event loop.

    Nothing connects before the first call. Threads and loops may use it at the same time. `asyncio.run`, or
    `loop.shutdown_asyncgens`, closes a loop's connections.

    Args:
        source: a URL, or a client of redis-py or valkey-py (sync or asyncio, Sentinel, Cluster).
        timeout: seconds for connecting and for each answer.

    Raises `TypeError` or `ValueError` if it is neither, `ImportError` if no client library is installed.
    """

    def __init__(self, source: Any, *, timeout: float = 0.2) -> None:
        self.source: Source = source_of(source, timeout)
        self._closed = False
        self._begin()
        renew_in_children(self)

    def _begin(self) -> None:
        self._lock: Any = threading.RLock()  # guards the three; no I/O under it
        self._threads: Any = None
        self._loops: WeakKeyDictionary[Any, tuple[Any, AsyncGenerator[None]]] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<Clients of {self.source!r}>"

    def is_owned(self) -> bool:
        """Return True if this very thread is inside a section."""
        return bool(self._lock._is_owned())

    # -- threads

    def call(self, call: Call) -> Any:
        """Return the raw reply. Raises `Trouble`. Not on an event loop's thread."""
        try:
            [reply] = self._run([_packed(call)])
            if _is_unknown(reply):
                [reply] = self._run([_packed(call, text=True)])
        except Exception as error:
            raise trouble_of(error) from None
        if isinstance(reply, Exception):
            raise trouble_of(reply)
        return reply

    def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """Return the replies to several calls in one pipeline, in order, with a `Trouble` for a failed one.

        Raises `Trouble` if the server was lost. Calls with the same keys are executed in order; one that
        follows a script that the server does not know may be executed twice.
        """
        if len(calls) == 1:
            try:
                return [self.call(calls[0])]
            except Trouble as trouble:
                return [_unless_lost(trouble)]
        try:
            rounds = _rounds(calls)
            commands = next(rounds)
            while True:
                commands = rounds.send(self._run(commands))
        except StopIteration as end:
            return _replies(end)
        except Exception as error:
            raise trouble_of(error) from None

    def _run(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send commands by a connection of the pool; a cluster's client finds the nodes itself.

        Errors of the server are among the replies. What the libraries' own ways add (retries, metrics, parsed
        replies) takes a fifth of the round trip, and an interrupt may leave a reply behind, for another call.
        """
        client = self._threads or self._connect()
        pool = getattr(client, "connection_pool", None)
        if pool is None:
            if len(commands) == 1:  # a pipeline takes longer, and sends no command that has no key
                return [_reply(partial(client.execute_command, *commands[0]))]
            with client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                replies: list[Any] = pipeline.execute(raise_on_error=False)
                return replies
        names = ("EVALSHA",) if self.source.library == "valkey" else ()
        connection = pool.get_connection(*names)
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            return [_reply(connection.read_response) for _ in commands]
        except BaseException:  # also what a signal handler raises: replies are still to come
            connection.disconnect()
            raise
        finally:
            pool.release(connection)

    def _connect(self) -> Any:
        """Make the client of the threads; under no lock, since a cluster's is asked for its slots."""
        client = self.source.for_threads()
        with self._lock:
            if self._threads is None and not self._closed:
                self._threads = client
        if self._threads is not client:
            for each in _parts(client):
                each.close()
        if self._closed:
            raise Trouble(Kind.AWAY, "the store is closed")
        return self._threads

    # -- tasks

    async def acall(self, call: Call) -> Any:
        """Return the raw reply, by the running loop's own client. Raises `Trouble`."""
        try:
            client = await self._of_loop()
            try:
                return await _asked(client, call)
            except Exception as error:
                if not _is_unknown(error):
                    raise
            return await _asked(client, call, text=True)
        except Exception as error:
            raise trouble_of(error) from None

    async def acall_all(self, calls: Sequence[Call]) -> list[Any]:
        """Return the replies to several calls, as `call_all`."""
        if len(calls) == 1:
            try:
                return [await self.acall(calls[0])]
            except Trouble as trouble:
                return [_unless_lost(trouble)]
        try:
            client = await self._of_loop()
            rounds = _rounds(calls)
            commands = next(rounds)
            while True:
                async with client.pipeline(transaction=False) as pipeline:
                    for command in commands:
                        pipeline.execute_command(*command)
                    replies = await pipeline.execute(raise_on_error=False)
                try:
                    commands = rounds.send(replies)
                except StopIteration as end:  # a coroutine may not raise it
                    return _replies(end)
        except Exception as error:
            raise trouble_of(error) from None

    async def _of_loop(self) -> Any:
        loop = asyncio.get_running_loop()
        known = self._loops.get(loop)
        if known is not None and not self._closed:  # else the loop may be about to close its connections
            return known[0]
        client = self.source.for_tasks()  # which does not connect
        guard = self._until_loop_ends(loop, client)
        with self._lock:
            if self._closed:
                raise Trouble(Kind.AWAY, "the store is closed")
            for other in [each for each in self._loops if each.is_closed()]:
                del self._loops[other]
            self._loops[loop] = client, guard  # nobody else writes this loop's: it does not wait in between
        await anext(guard)
        return client

    async def _until_loop_ends(self, loop: Any, client: Any) -> AsyncGenerator[None]:
        """Close the client when the loop shuts down: asynchronous generators are what it tells."""
        try:
            yield
        finally:
            with self._lock:
                self._loops.pop(loop, None)
            for each in _parts(client):
                with suppress(Exception):
                    await each.aclose()

    # -- all of them

    def subscribe(self, channels: Sequence[bytes]) -> Line:
        """Return a new connection that listens to these channels; messages confirm them. Raises `Trouble`."""
        try:
            client = self._threads or self._connect()
            if hasattr(client, "nodes_manager"):
                node = random.Random().choice(client.get_primaries())
                client = getattr(client, f"get_{self.source.library}_connection")(node)
            pool = client.connection_pool
            line = Line(pool.connection_class(**pool.connection_kwargs))
            line.send("SUBSCRIBE", *channels)
            return line
        except Exception as error:
            raise trouble_of(error) from None

    def identity(self) -> str | None:
        """Return what tells this run of the server, and its role, from another; None if it does not say.

        Raises `Trouble` if it does not answer.
        """
        try:
            client = self._threads or self._connect()
            nodes = {"target_nodes": "primaries"} if hasattr(client, "nodes_manager") else {}
            info = client.execute_command("INFO", "server", "replication", **nodes)
        except Exception as error:
            trouble = trouble_of(error)
            if trouble.kind is Kind.AWAY:
                raise trouble from None
            return None
        runs = [info] if "run_id" in info else info.values()
        try:
            said = sorted(f"{each['run_id']} {each['role']}" for each in runs)
        except (KeyError, TypeError):  # a server that only speaks as Redis does
            return None
        return " ".join(said) or None

    def missing(self, prefix: str, channels: Sequence[bytes]) -> list[str]:
        """Return the rights that the user lacks, each as an ACL rule would grant it. Raises `Trouble`."""
        try:
            reply = self.call(scripts.check(prefix, channels))
        except Trouble as trouble:
            if trouble.kind is Kind.RIGHTS:
                return [f"+evalsha ~{prefix}:*", f"+eval ~{prefix}:*"]
            raise
        return scripts.missing(reply, prefix)

    def close(self) -> None:
        """Close all connections; those of loops that run are closed by them, soon."""
        with self._lock:
            self._closed = True
            client, self._threads = self._threads, None
            loops = list(self._loops.items())
        for each in _parts(client):
            each.close()
        for loop, (_, guard) in loops:
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(_run_soon, loop, guard)

    def after_fork(self) -> None:
        """Forget all connections, in a forked child: they are its parent's.

        They are not even finalised here: that of a loop would be taken out of the parent's selector.
        """
        _of_parents.append((self._threads, list(self._loops.values())))
        self._begin()


class Line:
    """A connection that listens. One thread uses it; any thread may `cut` it.

    The library connects and logs in. What comes then is read here: each message wakes somebody, and a library
    spends more time on one than all that is done about it.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        connection.connect()
        self._socket: Any = connection._sock
        self._rest = b""  # what has come of the next message
        self._patience: float | None = None  # the socket's, in seconds

    def send(self, *command: str | bytes) -> None:
        """Send a command without waiting for anything."""
        try:
            self._connection.send_command(*command)
        except Exception as error:
            raise trouble_of(error) from None

    def receive(self, timeout: float) -> tuple[str, bytes, bytes] | None:
        """Return the next message: its kind ("subscribe", "message", "pong"), channel and payload; or None.

        Raises `Trouble` if the connection has ended, or a channel was refused.
        """
        try:
            while (found := _message(self._rest)) is None:
                if timeout != self._patience:
                    self._socket.settimeout(max(timeout, _SHORTEST))
                    self._patience = timeout
                come = self._socket.recv(_AT_ONCE)
                if not come:
                    raise Trouble(Kind.AWAY, "the server has closed the connection")
                self._rest += come
        except TimeoutError:
            return None
        except Exception as error:
            raise trouble_of(error) from None
        (kind, channel, payload, *_), self._rest = found
        return kind.decode().lower(), channel, payload

    def cut(self) -> None:
        """End it from another thread: who receives gets `Trouble`."""
        with suppress(Exception):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give it back to the operating system."""
        with suppress(Exception):
            self._connection.disconnect()


def _message(data: bytes) -> tuple[list[bytes], bytes] | None:
    """Return the parts of the message that some bytes begin with, three at least, and the rest of the bytes.

    None if it has not come as a whole. Raises `Trouble` for an error, and `ValueError` for anything else than
    an array of strings and numbers, as RESP2 has them.
    """
    at = data.find(b"\r\n")
    if at < 0:
        return None
    if data[:1] == b"-":
        raise _refusal(data[1:at].decode(errors="replace"))
    if data[:1] != b"*":
        raise ValueError("the bus was answered with what is no message")
    parts: list[bytes] = []
    for _ in range(int(data[1:at])):
        start = at + 2
        at = data.find(b"\r\n", start)
        if at < 0:
            return None
        part, kind = data[start + 1 : at], data[start : start + 1]
        if kind == b"$" and part == b"-1":  # nothing
            part = b""
        elif kind == b"$":
            start, at = at + 2, at + 2 + int(part)
            if at + 2 > len(data):
                return None
            part = data[start:at]
        elif kind not in (b":", b"+"):
            raise ValueError("the bus was answered with what is no message")
        parts.append(part)
    return [*parts, b"", b""], data[at + 2 :]


_of_parents: list[Any] = []


def trouble_of(error: Exception) -> Trouble:
    """Return what an error of a client library means.

    The classes are known by name, which both libraries share.
    """
    if isinstance(error, Trouble):
        return error
    names = _names(error)
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if "NoPermissionError" in names or "NOPERM" in text:
        return Trouble(Kind.RIGHTS, text)
    soon = names & {"ClusterDownError", "TryAgainError"} or text.startswith(_SOON)
    return Trouble(Kind.REFUSED if "ResponseError" in names and not soon else Kind.AWAY, text)


def _names(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _refusal(text: str) -> Trouble:
    """Return what an error means that no library has made an exception of."""
    kind = Kind.RIGHTS if text.startswith("NOPERM") else Kind.AWAY if text.startswith(_SOON) else Kind.REFUSED
    return Trouble(kind, text[:300])


def raise_trouble(replies: Sequence[Any]) -> None:
    """Raise the first `Trouble` among some replies, if there is one."""
    for reply in replies:
        if isinstance(reply, Trouble):
            raise reply


def replies_of(asking: Generator[Any, Any, Any]) -> Generator[Any, Any, tuple[Any, BaseException | None]]:
    """Carry out what another generator asks, which hears of no errors but that the server was lost."""
    try:
        todo = asking.send(None)
        while True:
            came, error = yield todo
            if error is not None and not isinstance(error, Trouble):
                asking.close()
                return None, error
            todo = asking.send(came) if error is None else asking.throw(error)
    except StopIteration as ended:
        return ended.value, None
    except Trouble as trouble:
        return None, trouble


def _parts(client: Any) -> list[Any]:
    """Return what is to be closed with a client: also those by which it asks sentinels."""
    if client is None:
        return []
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return [client, *(() if manager is None else manager.sentinels)]


async def _asked(client: Any, call: Call, *, text: bool = False) -> Any:
    """Send a call by a loop's client, once.

    valkey-py's for a cluster sends again what was not answered, unless it is told the node (6.2.0).
    """
    named = {}
    if getattr(client, "cluster_error_retry_attempts", 0) and call.keys:
        await client.initialize()  # or it may not know the node yet, or not any more
        named = {"target_nodes": client.get_node_from_key(call.keys[0])}
    return await client.execute_command(*_packed(call, text=text), **named)


def _is_unknown(error: object) -> bool:
    """Return True if the server does not know the script by its digest."""
    return type(error).__name__ == "NoScriptError"


def _reply(ask: Callable[[], Any]) -> Any:
    """Return the reply, also one that is an error."""
    try:
        return ask()
    except Exception as error:
        if "ResponseError" not in _names(error):
            raise
        return error


def _packed(call: Call, *, text: bool = False) -> Sequence[Any]:
    script, keys, args = call
    if script is None:
        return args
    return ("EVAL" if text else "EVALSHA", script.text if text else script.sha, len(keys), *keys, *args)


def _rounds(calls: Sequence[Call]) -> Generator[list[Sequence[Any]], list[Any], list[Any]]:
    """Yield the commands of each pipeline, take its replies, and return those that count.

    What met an unknown script is sent again, and so is what came after it on the same keys.
    """
    replies = list((yield [_packed(call) for call in calls]))
    behind: set[bytes] = set()
    again = []
    for place, call in enumerate(calls):
        if _is_unknown(replies[place]) or not behind.isdisjoint(call.keys):
            behind.update(call.keys)
            again.append(place)
    if again:
        second = yield [_packed(calls[place], text=True) for place in again]
        for place, reply in zip(again, second, strict=True):
            replies[place] = reply
    return replies


def _unless_lost(trouble: Trouble) -> Trouble:
    """Return it as the reply to its call; raise it if the server was lost."""
    if trouble.kind is Kind.AWAY:
        raise trouble
    return trouble


def _replies(end: StopIteration) -> list[Any]:
    return [trouble_of(each) if isinstance(each, Exception) else each for each in end.value]


def _run_soon(loop: Any, guard: AsyncGenerator[None]) -> None:
    """On the loop's thread: have it close its client."""
    task = loop.create_task(guard.aclose())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_closing: set[Any] = set()
