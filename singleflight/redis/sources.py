"""What the user names a server by, and clients of ours that are made from it.

Of a client only its settings are taken: where the server is, who logs in, and TLS. Time limits are ours, and
nothing is ever tried twice. Nothing here connects, but for a cluster's client, which asks for the slots when
it is made. The types of client libraries end in this module and in `clients`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ..common.messages import shown

__all__ = ["Source", "source_of"]

LIBRARIES = ("redis", "valkey")
COPIED = (
    *("host", "port", "db", "username", "password", "credential_provider"),
    *("socket_keepalive", "socket_keepalive_options"),
)
Node = tuple[str, int]


@dataclass(frozen=True, repr=False)
class Source:
    """Where the server is, as a library is told it; `repr` says no more than the library and the kind."""

    library: str
    kind: str  # "server", "sentinel" or "cluster"
    settings: Mapping[str, Any]
    timeout: float
    nodes: Sequence[Node] = ()  # to be asked where the others are
    service: str = ""
    sentinel: Mapping[str, Any] = field(default_factory=dict)  # settings for the sentinels
    more: Mapping[str, Any] = field(default_factory=dict)  # settings for a cluster's client alone

    def __repr__(self) -> str:
        return f"<{self.library} {self.kind}>"

    def for_threads(self) -> Any:
        """Return a new client for threads."""
        return self._client(import_module(self.library))

    def for_tasks(self) -> Any:
        """Return a new client for tasks of one event loop."""
        return self._client(import_module(f"{self.library}.asyncio"))

    def _client(self, module: Any) -> Any:
        name = module.__name__
        settings = {**self.settings, **self._limits(module, self.settings)}
        if self.kind == "server":
            return _single(module)(**_accepted(_single(module), settings))
        if self.kind == "sentinel":
            sentinel = {**self.sentinel, **self._limits(module, self.sentinel)}
            manager = import_module(f"{name}.sentinel").Sentinel
            return manager(self.nodes, sentinel_kwargs=sentinel, **settings).master_for(self.service)
        cluster = import_module(f"{name}.cluster")
        kind = getattr(cluster, f"{self.library.capitalize()}Cluster")
        nodes = [cluster.ClusterNode(*node) for node in self.nodes]
        # It has a count of its own; by 0 its asyncio pipelines are never sent (valkey-py 6.2.0).
        if self.library == "valkey":
            settings["cluster_error_retry_attempts"] = int("asyncio" in name)
        settings = {key: value for key, value in settings.items() if key != "db"}
        return kind(startup_nodes=nodes, **_accepted(kind, settings), **self.more)

    def _limits(self, module: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is ours alone: times, no retries, the older protocol, no words about the library.

        But with TLS 1.3 the server sends session tickets after the handshake. redis-py with hiredis takes a
        new connection on which they wait to be read for a broken one, so there the library does say its name.
        """
        top = module.__name__
        retry = import_module(f"{top}.retry").Retry
        never = retry(import_module(f"{top.partition('.')[0]}.backoff").NoBackoff(), 0)
        limits = {"socket_timeout": self.timeout, "socket_connect_timeout": self.timeout}
        limits |= {"retry": never, "protocol": 2}
        known = inspect.signature(_single(module).__init__).parameters
        silent = ["driver_info"] if "driver_info" in known else ["lib_name", "lib_version"]
        return limits if settings.get("ssl") else limits | dict.fromkeys(silent)


def source_of(given: Any, timeout: float) -> Source:
    """Return what a URL, or a client of redis-py or valkey-py, says of the server.

    Raises `TypeError` or `ValueError` if it is neither, and `ImportError` if no library is installed. No
    message holds the URL, which may hold a password.
    """
    if isinstance(given, str):
        return _of_url(given, timeout)
    library = next((top for kind in type(given).__mro__ if (top := _top(kind)) in LIBRARIES), None)
    if library is not None and hasattr(given, "nodes_manager"):
        manager = given.nodes_manager
        nodes = [(node.host, node.port) for node in manager.startup_nodes.values()]
        remap = getattr(manager, "address_remap", None)
        more = {} if remap is None else {"address_remap": remap}
        settings = _settings(manager.connection_kwargs, None)
        return Source(library, "cluster", _without_place(settings), timeout, nodes, more=more)
    pool = getattr(given, "connection_pool", None)
    if library is None or pool is None:
        raise TypeError(f"store: expected a URL, or a client of redis-py or valkey-py, got {shown(given)}")
    settings = _settings(pool.connection_kwargs, pool.connection_class)
    if not hasattr(pool, "sentinel_manager"):
        return Source(library, "server", settings, timeout)
    pools = [each.connection_pool for each in pool.sentinel_manager.sentinels]
    nodes = [(each.connection_kwargs["host"], each.connection_kwargs["port"]) for each in pools]
    sentinel = _settings(pools[0].connection_kwargs, pools[0].connection_class) if pools else {}
    return Source(
        library,
        "sentinel",
        _without_place(settings),
        timeout,
        nodes,
        service=pool.service_name,
        sentinel=_without_place(sentinel),
    )


def _of_url(url: str, timeout: float) -> Source:
    scheme = url.partition("://")[0]
    for library in LIBRARIES[::-1] if scheme.startswith("valkey") else LIBRARIES:
        try:
            module = import_module(library)
        except ImportError:
            continue
        theirs = {"valkey": library, "valkeys": library + "s"}
        try:
            client = _single(module).from_url(theirs.get(scheme, scheme) + url[len(scheme) :])
        except ValueError:
            raise ValueError(
                "store: the server's URL cannot be read: expected redis://, rediss:// or unix://"
            ) from None
        kwargs = client.connection_pool.connection_kwargs
        if kwargs.get("ssl_cert_reqs", "required") == "required":
            kwargs.setdefault("ssl_check_hostname", True)  # which valkey-py leaves out
        return source_of(client, timeout)
    raise ImportError(
        "a shared store needs redis-py or valkey-py: install singleflight-kit[redis] or [valkey]"
    )


def _top(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _single(module: Any) -> Any:
    return getattr(module, module.__name__.partition(".")[0].capitalize())


def _settings(kwargs: Mapping[str, Any], connection: type | None) -> dict[str, Any]:
    """Return the settings that say where the server is and who we are, as a constructor takes them."""
    settings = {key: kwargs[key] for key in COPIED if kwargs.get(key) is not None}
    kind = kwargs.get("connection_class", connection)
    if kwargs.get("ssl") or "SSL" in getattr(kind, "__name__", ""):
        settings |= {key: value for key, value in kwargs.items() if key.startswith("ssl_")}
        settings["ssl"] = True
    if kwargs.get("path") is not None:
        settings["unix_socket_path"] = kwargs["path"]
    return settings


def _without_place(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in ("host", "port")}


def _accepted(kind: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what was not set and this client does not know. Raises `TypeError` if it was set."""
    known = inspect.signature(kind.__init__).parameters
    if any(each.kind is each.VAR_KEYWORD for each in known.values()):
        return dict(settings)
    for key, value in settings.items():
        if key not in known and value:
            raise TypeError(f"{kind.__module__} does not know the setting {key}")
    return {key: value for key, value in settings.items() if key in known}
