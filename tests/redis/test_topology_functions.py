"""Decorated functions behind a Cluster or a Sentinel: every value is judged, through deaths and failovers."""

import os
from collections import Counter
from importlib import import_module

import pytest

from ..drivers import PATIENCE, until
from .fleets import Loads, called, start
from .test_topologies import client_of
from .waiting import wait_until

SYMBOLS = [f"S{number}" for number in range(30)]  # in slots of all nodes

# What both libraries' asyncio clients leave open of nodes that are gone is found whenever it is collected.
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Versions(Loads):
    """A body whose values say what they are: the symbol, and how often it had been loaded."""

    def __init__(self):
        super().__init__()
        self.loads = Counter()

    def __call__(self, symbol):
        super().__call__(symbol)
        with self.lock:
            self.loads[symbol] += 1
            return [symbol, self.loads[symbol]]


def connected(fleet, *functions):
    """Wait until their servers are asked again, and what they have dropped meanwhile is told."""
    for function in functions:
        store = fleet.store_of(function)
        wait_until(lambda store=store: store.state == "connected", 40)
        assert store.flush(PATIENCE)


def test_processes_share_by_a_cluster(library, cluster, fleet_of, pool, colour):
    """One load for each key, on whatever node; drops, tags and a clear reach all."""
    body = Versions()
    with client_of(library, cluster) as client:
        fleet = fleet_of(client)
        processes = [fleet(body, colour, tags=lambda landing: [landing.key[0][-1]]) for _ in range(3)]
        asked = [start(pool, each, symbol) for symbol in SYMBOLS for each in processes]
        values = [each.result(PATIENCE) for each in asked]
        assert values == [[symbol, 1] for symbol in SYMBOLS for _ in processes]
        a, b, c = processes
        a.invalidate("S3"), b.put(["S4", 70], "S4"), c.invalidate_tag("5")
        for each in processes:
            connected(fleet, each)
        expected = {"S3": 2, "S4": 70, "S5": 2, "S15": 2, "S25": 2, "S6": 1}
        for each in processes:
            until(lambda each=each: not any(each.entry(of) for of in expected if expected[of] == 2))
        until(lambda: all(each.entry("S4") is None for each in (a, c)))
        for symbol, number in expected.items():
            assert [called(each, symbol) for each in processes] == [[symbol, number]] * 3
        a.cache_clear()
        connected(fleet, a)
        until(lambda: b.entry("S6") is None and c.entry("S6") is None)
        assert [called(each, "S6") for each in processes] == [["S6", 2]] * 3


def test_a_node_of_a_cluster_that_dies_is_an_outage_for_nobody(library, own_cluster, fleet_of, colour):
    """No call fails or gets what it has dropped; when the node is back, drops made meanwhile reach all."""
    for node in own_cluster:
        assert node.do("CONFIG", "SET", "cluster-require-full-coverage", "no") == b"+OK"
    body = Versions()
    with client_of(library, own_cluster) as client:
        fleet = fleet_of(client)
        a, b = (fleet(body, colour, terms={"timeout": 0.5}) for _ in range(2))
        for symbol in SYMBOLS:
            assert called(a, symbol) == called(b, symbol) == [symbol, 1]
        own_cluster[1].kill()
        for symbol in SYMBOLS[:10]:  # a call of a task has a loop, and so a client, of its own
            a.invalidate(symbol)
            assert called(a, symbol)[1] >= 2
            assert called(b, symbol)[0] == symbol
        own_cluster[1].start()
        for node in own_cluster:
            wait_until(lambda node=node: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"), 40)
            wait_until(lambda node=node: b"cluster_slots_ok:16384" in node.ask("CLUSTER", "INFO"), 40)
        connected(fleet, a, b)
        for symbol in SYMBOLS[:10]:
            until(lambda symbol=symbol: called(b, symbol)[1] >= 2)
        a.invalidate("S1")
        connected(fleet, a)
        newest = body.loads["S1"]
        until(lambda: b.entry("S1") is None)
        values = [called(each, "S1") for each in (b, a)]
        assert all(symbol == "S1" and number > newest for symbol, number in values)


@pytest.mark.skipif(not os.environ.get("EXPLORE_FURTHER"), reason="a minute of sentinels at work")
def test_a_failover_costs_a_load_at_most(library, sentinel, fleet_of, colour):
    """Every value is its key's, none is one that the caller has dropped, and what follows is shared again."""
    master, replica, watcher = sentinel
    manager = import_module(f"{library}.sentinel").Sentinel([("127.0.0.1", watcher.port)])
    fleet = fleet_of(manager.master_for("main"))
    body = Versions()
    a, b = (fleet(body, colour, terms={"timeout": 0.5}) for _ in range(2))
    for symbol in SYMBOLS:
        assert called(a, symbol) == called(b, symbol) == [symbol, 1]

    def promoted():
        # Again, if the last was given up; nothing while one is in progress.
        watcher.do("SENTINEL", "FAILOVER", "main")
        for symbol in SYMBOLS:
            assert called(a, symbol)[0] == called(b, symbol)[0] == symbol
        return b"role:master" in replica.ask("INFO", "replication")

    wait_until(promoted, 60)
    a.invalidate("S1")
    assert called(a, "S1")[1] >= 2
    wait_until(lambda: b"role:slave" in master.ask("INFO", "replication"), 60)
    connected(fleet, a, b)
    until(lambda: b.entry("S1") is None or called(b, "S1")[1] >= 2)
    for symbol in SYMBOLS:
        assert called(a, symbol)[0] == called(b, symbol)[0] == symbol
    assert max(body.loads.values()) <= 6
    a.invalidate("S2")
    connected(fleet, a)
    until(lambda: b.entry("S2") is None)
    assert called(a, "S2") == called(b, "S2")
