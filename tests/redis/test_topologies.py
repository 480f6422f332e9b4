"""Behind a Cluster or a Sentinel, calls go to the right server, and follow it when it changes."""

import asyncio
import os
from contextlib import suppress
from importlib import import_module

import pytest

from singleflight.fleet.claims import Publish
from singleflight.fleet.mailboxes import Mailboxes
from singleflight.redis import scripts
from singleflight.redis.bus import Bus
from singleflight.redis.clients import Clients, Kind, Trouble
from singleflight.redis.sources import source_of

from .test_clients import LEASED, Tasks, Threads
from .waiting import wait_until

PATIENCE = 20.0
PLACES = [scripts.place(f"sf:{{f:{number}}}") for number in range(30)]

# What both libraries' asyncio clients leave open of nodes that are gone is found whenever it is collected.
pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


def claim(place, token=b"a", mode="read"):
    return scripts.claim(place, b"1", token, mode, lease=60_000, channel=b"c", leader="me", most=1000)


def publish(place, token=b"a"):
    what = Publish(b"value", 60_000, 60_000)
    return scripts.publish(place, b"1", token, what, birth=1, lease=60_000, bus=b"bus", head=b"h" * 40)


@pytest.fixture(params=[Threads, Tasks])
def make(request):
    made = []

    def make(source, timeout=5.0):
        made.append(request.param(Clients(source, timeout=timeout)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def client_of(library, nodes):
    """A user's client of a cluster."""
    module = import_module(f"{library}.cluster")
    return getattr(module, f"{library.capitalize()}Cluster")(host="127.0.0.1", port=nodes[0].port)


@pytest.fixture
def their_cluster(library, cluster):
    client = client_of(library, cluster)
    yield client
    client.close()


@pytest.fixture
def their_own_cluster(library, own_cluster):
    client = client_of(library, own_cluster)
    yield client
    client.close()


@pytest.fixture
def their_sentinel(library, sentinel):
    """A user's client of the master that the sentinel names."""
    manager = import_module(f"{library}.sentinel").Sentinel([("127.0.0.1", sentinel[2].port)])
    client = manager.master_for("main")
    yield client
    client.close()
    for each in manager.sentinels:
        each.close()


def test_entries_are_spread_over_a_cluster(make, their_cluster, cluster):
    """Each call and each pipeline, by scripts that no node knows at first; all nodes get some."""
    caller = make(their_cluster)
    assert caller.clients.source.kind == "cluster"
    assert caller.call(claim(PLACES[0]))[:1] == LEASED
    replies = caller.call_all([claim(place) for place in PLACES])
    assert {reply[:1] for reply in replies} == {LEASED}
    assert caller.call_all([publish(place) for place in PLACES]) == [0] * len(PLACES)
    assert scripts.claimed(caller.call(claim(PLACES[7]))).envelope == b"value"
    assert all(int(node.do("DBSIZE").removeprefix(b":")) for node in cluster)


def test_cuts_and_epochs_of_a_cluster_are_read_at_once(make, their_cluster):
    """They are in one slot."""
    caller = make(their_cluster)
    last, *tags = (
        scripts.last_cut_key("sf", b"f" * 16),
        *(scripts.cut_key("sf", t * 16) for t in (b"t", b"u")),
    )
    for tag in tags:
        caller.call(scripts.cut(last, tag, known=0, life=60_000, bus=b"bus", head=b"h" * 40))
    keys = [last, *tags, scripts.epoch_key("sf", b"f" * 16)]
    numbers = [scripts.number(each) for each in caller.call(scripts.command("MGET", *keys))]
    assert 0 < numbers[1] < numbers[2] == numbers[0]
    assert numbers[3] == 0


def test_a_moved_slot_is_followed(make, their_own_cluster, own_cluster):
    """Without an error to anybody."""
    caller = make(their_own_cluster)
    place = PLACES[0]
    caller.call(claim(place))
    slot = int(own_cluster[0].do("CLUSTER", "KEYSLOT", place.flights).removeprefix(b":"))
    keeper = next(node for node in own_cluster if int(node.do("CLUSTER", "COUNTKEYSINSLOT", slot)[1:]))
    other = next(node for node in own_cluster if node is not keeper)
    keeper.do("DEL", place.flights)
    name = other.ask("CLUSTER", "MYID").strip().decode()
    for node in (other, *own_cluster):
        assert node.do("CLUSTER", "SETSLOT", slot, "NODE", name) == b"+OK"
    assert caller.call(claim(place))[:1] == LEASED
    assert caller.call_all([publish(place)]) == [0]


# redis-py's and valkey-py's asyncio clusters drop a node that has gone without closing its connections.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.long
def test_a_dead_node_is_trouble_for_its_keys(make, their_own_cluster, own_cluster):
    """And for nobody else's, with `cluster-require-full-coverage` off."""
    for node in own_cluster:
        assert node.do("CONFIG", "SET", "cluster-require-full-coverage", "no") == b"+OK"
    caller = make(their_own_cluster, timeout=0.5)
    caller.call_all([claim(place) for place in PLACES])
    own_cluster[2].kill()
    kinds = {kind_of(caller, place) for place in PLACES}
    assert kinds == {None, Kind.AWAY}


def kind_of(caller, place):
    try:
        caller.call(claim(place))
    except Trouble as trouble:
        return trouble.kind


def test_the_bus_reaches_all_of_a_cluster(library, their_cluster, cluster):
    """A drop on one node is heard by who is subscribed to another."""
    import queue
    import threading

    clients = Clients(their_cluster, timeout=5.0)
    heard = queue.Queue()
    bus = Bus(clients, (b"sf:p:1", b"sf:bus"), Mailboxes(), threading.RLock(),
              heard=heard.put, gap=lambda first: None, silent=lambda text: None)  # fmt: skip
    assert bus.ready(PATIENCE)
    for number, place in enumerate(PLACES):
        head = scripts.news_head(b"f" * 16, b"%16d" % number, b"s" * 8)
        clients.call(scripts.drop(place, bus=b"sf:bus", head=head))
    assert {int(heard.get(timeout=PATIENCE).key) for _ in PLACES} == set(range(len(PLACES)))
    bus.stop(PATIENCE)
    clients.close()


def test_what_a_cluster_is_known_by(their_cluster, cluster):
    """All its servers' runs together; its own answer is one."""
    clients = Clients(their_cluster, timeout=5.0)
    assert len(clients.identity().split(" master")) == 4
    assert clients.missing("sf", [b"sf:p:1", b"sf:bus"]) == []
    clients.call(scripts.command("PING"))
    clients.close()


def test_a_task_asks_a_cluster_once(library, their_cluster, monkeypatch):
    """What is not answered may have been done: done twice, the end of a flight would be refused."""
    connection = import_module(f"{library}.asyncio.connection").Connection
    lost = import_module(library).TimeoutError("it was not answered")
    read, unheard = connection.read_response, []

    async def reading(*args, **options):
        reply = await read(*args, **options)
        if unheard:
            raise unheard.pop()
        return reply

    async def main():
        clients = Clients(their_cluster, timeout=5.0)
        for place in PLACES[:2]:
            assert (await clients.acall(claim(place))).startswith(LEASED)
        assert await clients.acall(publish(PLACES[0])) == 0
        unheard.append(lost)
        with pytest.raises(Trouble) as caught:
            await clients.acall(publish(PLACES[1]))
        assert (caught.value.kind, unheard) == (Kind.AWAY, [])
        assert (await clients.acall(claim(PLACES[1], b"b"))).endswith(b"value")

    monkeypatch.setattr(connection, "read_response", reading)
    asyncio.run(main())


def test_settings_of_an_asyncio_cluster_are_taken(library, cluster):
    """By threads and tasks."""
    module = import_module(f"{library}.asyncio.cluster")

    async def theirs():
        client = getattr(module, f"{library.capitalize()}Cluster")(host="127.0.0.1", port=cluster[0].port)
        await client.initialize()
        try:
            return source_of(client, 5.0)
        finally:
            await client.aclose()

    source = asyncio.run(theirs())
    client = source.for_threads()
    assert len(client.get_primaries()) == 3
    client.close()


def test_a_sentinel_names_the_master(make, their_sentinel):
    """Of whom all is asked; the bus's connection too."""
    caller = make(their_sentinel)
    assert caller.clients.source.kind == "sentinel"
    assert caller.call(claim(PLACES[0]))[:1] == LEASED
    assert caller.call_all([publish(PLACES[0])]) == [0]
    line = caller.clients.subscribe([b"here"])
    assert line.receive(PATIENCE)[:2] == ("subscribe", b"here")
    line.close()


@pytest.mark.long
@pytest.mark.skipif(not os.environ.get("EXPLORE_FURTHER"), reason="a minute of sentinels at work")
def test_a_failover_is_followed(make, their_sentinel, sentinel):
    """The new master is asked, and is known to be another."""
    caller = make(their_sentinel, timeout=0.5)
    caller.call(claim(PLACES[0]))
    before = caller.clients.identity()
    _, replica, watcher = sentinel

    def promoted():
        # Again, if the last was given up; nothing while one is in progress.
        watcher.do("SENTINEL", "FAILOVER", "main")
        return b"role:master" in replica.ask("INFO", "replication")

    wait_until(promoted)

    def followed():
        with suppress(Trouble):
            return kind_of(caller, PLACES[0]) is None and caller.clients.identity() != before

    wait_until(followed)
