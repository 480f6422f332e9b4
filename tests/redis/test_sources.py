"""What is taken of a user's client, and what clients are made of it: with libraries that are stand-ins."""

from types import SimpleNamespace

import pytest

from singleflight.redis import sources
from singleflight.redis.sources import Source, source_of

LIMITS = {"socket_timeout": 0.2, "socket_connect_timeout": 0.2, "protocol": 2}


class Single:
    """A client that takes what the older libraries take."""

    def __init__(self, host=None, port=None, driver_info=None, **more):
        self.given = {"host": host, "port": port, "driver_info": driver_info, **more}


class Older:
    """One that says its name in two words, and knows no other settings."""

    def __init__(
        self,
        host=None,
        port=None,
        db=0,
        ssl=False,
        retry=None,
        protocol=None,
        socket_timeout=None,
        socket_connect_timeout=None,
        lib_name="name",
        lib_version="1",
    ):
        self.given = {key: value for key, value in locals().items() if key not in ("self", "__class__")}


class Cluster:
    def __init__(self, startup_nodes, address_remap=None, **given):
        self.nodes, self.remap, self.given = startup_nodes, address_remap, given


class Sentinel:
    def __init__(self, nodes, sentinel_kwargs, **given):
        self.nodes, self.of_sentinels, self.given = nodes, sentinel_kwargs, given

    def master_for(self, service):
        self.service = service
        return self


@pytest.fixture(autouse=True)
def libraries(monkeypatch):
    """Has redis and valkey be these, also for tasks."""
    modules = {}
    for library, kind in (("redis", Single), ("valkey", Older)):
        for name in (library, f"{library}.asyncio"):
            modules[name] = SimpleNamespace(__name__=name, **{library.capitalize(): kind})
            modules[f"{name}.retry"] = SimpleNamespace(
                Retry=lambda backoff, count, of=name: (of, backoff, count)
            )
            modules[f"{name}.sentinel"] = SimpleNamespace(Sentinel=Sentinel)
            modules[f"{name}.cluster"] = SimpleNamespace(
                ClusterNode=lambda host, port: (host, port), **{f"{library.capitalize()}Cluster": Cluster}
            )
        modules[f"{library}.backoff"] = SimpleNamespace(NoBackoff=lambda of=library: f"none of {of}")
    monkeypatch.setattr(sources, "import_module", modules.__getitem__)
    return modules


def never(name):
    return {"retry": (name, f"none of {name.partition('.')[0]}", 0)}


# -- clients of ours -----------------------------------------------------------------------------------


def test_a_client_of_a_server():
    """Times are ours, nothing is tried twice, and it does not say what it is."""
    source = Source("redis", "server", {"host": "h", "port": 1, "db": 2, "driver_info": "theirs"}, 0.2)
    settings = {"host": "h", "port": 1, "db": 2, "driver_info": None, **LIMITS}
    assert source.for_threads().given == {**settings, **never("redis")}
    assert source.for_tasks().given == {**settings, **never("redis.asyncio")}
    assert repr(source) == "<redis server>"


def test_a_client_of_the_other_library():
    """It says its name in two words, or not."""
    source = Source("valkey", "server", {"host": "h", "port": 1}, 0.2)
    named = {"host": "h", "port": 1, "db": 0, "ssl": False, "lib_name": None, "lib_version": None}
    assert source.for_threads().given == {**named, **LIMITS, **never("valkey")}
    source = Source("valkey", "server", {"host": "h", "port": 1, "ssl": True}, 0.2)
    given = source.for_tasks().given
    assert (given["ssl"], given["lib_name"], given["lib_version"]) == (True, "name", "1")


def test_with_tls_the_library_says_its_name():
    """Or it would take what waits to be read for a connection that is broken."""
    source = Source("redis", "server", {"host": "h", "ssl": True}, 0.2)
    assert source.for_threads().given == {
        "host": "h",
        "port": None,
        "driver_info": None,
        "ssl": True,
        **LIMITS,
        **never("redis"),
    }
    sentinel = Source("redis", "sentinel", {"ssl": True}, 0.2, sentinel={"username": "u"}).for_threads()
    assert "driver_info" not in sentinel.given
    assert sentinel.of_sentinels["driver_info"] is None


def test_a_setting_that_a_client_does_not_know(libraries):
    """Is refused where it was set, and left out where not."""
    source = Source("valkey", "server", {"host": "h", "username": "u"}, 0.2)
    with pytest.raises(TypeError, match=f"^{__name__} does not know the setting username$"):
        source.for_threads()
    given = Source("valkey", "server", {"host": "h", "username": ""}, 0.2).for_threads().given
    assert "username" not in given
    libraries["valkey.cluster"].ValkeyCluster = Older
    with pytest.raises(TypeError, match=f"^{__name__} does not know the setting username$"):
        Source("valkey", "cluster", {"username": "u"}, 0.2).for_threads()


@pytest.mark.parametrize("name", ["redis", "redis.asyncio"])
def test_a_client_of_a_master_that_sentinels_know(name):
    """They are asked with settings of their own, and in as short a time."""
    nodes = [("s", 1), ("t", 2)]
    source = Source("redis", "sentinel", {"db": 2}, 0.2, nodes, service="main", sentinel={"username": "u"})
    made = source.for_threads() if name == "redis" else source.for_tasks()
    assert (made.nodes, made.service) == (nodes, "main")
    assert made.given == {"db": 2, "driver_info": None, **LIMITS, **never(name)}
    assert made.of_sentinels == {"username": "u", "driver_info": None, **LIMITS, **never(name)}
    assert repr(source) == "<redis sentinel>"


@pytest.mark.parametrize(
    ("name", "attempts"),
    [
        ("redis", {}),
        ("redis.asyncio", {}),
        ("valkey", {"cluster_error_retry_attempts": 0}),
        ("valkey.asyncio", {"cluster_error_retry_attempts": 1}),
    ],
)
def test_a_client_of_a_cluster(name, attempts):
    """It has one database, and its own count of attempts.

    By 0 the asyncio client of valkey-py 6.2.0 sends no pipeline at all:
    findings/valkey-asyncio-cluster-pipeline-without-retries.sh
    """
    library = name.partition(".")[0]
    source = Source(
        library, "cluster", {"db": 0, "username": "u"}, 0.2, [("h", 1)], more={"address_remap": "map"}
    )
    made = source.for_tasks() if "." in name else source.for_threads()
    words = dict.fromkeys(["driver_info"] if library == "redis" else ["lib_name", "lib_version"])
    assert (made.nodes, made.remap) == ([("h", 1)], "map")
    assert made.given == {"username": "u", **words, **LIMITS, **never(name), **attempts}


# -- what is taken of theirs ---------------------------------------------------------------------------


def theirs(library="redis", **attributes):
    """A client of the user's, of a class that he has derived."""
    base = type("Client", (), {"__module__": f"{library}.client"})
    made = type("Mine", (base,), {"__module__": "shop.clients"})()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


class Connection:
    pass


class SSLConnection:
    pass


def pool(connection=Connection, **kwargs):
    return SimpleNamespace(connection_class=connection, connection_kwargs=kwargs)


def test_a_client_of_a_server_is_copied():
    """Where the server is and who logs in; none of its habits."""
    kept = {
        "host": "h",
        "port": 1,
        "db": 2,
        "username": "u",
        "password": "p",
        "credential_provider": "c",
        "socket_keepalive": True,
        "socket_keepalive_options": {1: 2},
    }
    client = theirs(connection_pool=pool(**kept, socket_timeout=9, decode_responses=True, ssl_keyfile="k"))
    assert source_of(client, 0.2) == Source("redis", "server", kept, 0.2)
    client = theirs("valkey.asyncio", connection_pool=pool(host="h", username=None, path="/sock"))
    assert source_of(client, 0.3) == Source(
        "valkey", "server", {"host": "h", "unix_socket_path": "/sock"}, 0.3
    )


@pytest.mark.parametrize("how", ["by its class", "by a setting", "by a class among the settings"])
def test_tls_is_copied(how):
    """With all that belongs to it."""
    settings = {"host": "h", "ssl_certfile": "c", "ssl_keyfile": None, "other": 1}
    client = theirs(
        connection_pool={
            "by its class": lambda: pool(SSLConnection, **settings),
            "by a setting": lambda: pool(**settings, ssl=True),
            "by a class among the settings": lambda: pool(**settings, connection_class=SSLConnection),
        }[how]()
    )
    kept = {"host": "h", "ssl_certfile": "c", "ssl_keyfile": None, "ssl": True}
    assert source_of(client, 0.2).settings == kept


def test_a_client_of_a_cluster_is_copied():
    """By the nodes that it was made with; they say where the others are."""
    nodes = {"a": SimpleNamespace(host="h", port=1), "b": SimpleNamespace(host="i", port=2)}
    manager = SimpleNamespace(
        startup_nodes=nodes, connection_kwargs={"host": "h", "port": 1, "username": "u"}, address_remap="map"
    )
    made = source_of(theirs("valkey", nodes_manager=manager), 0.2)
    assert made == Source(
        "valkey", "cluster", {"username": "u"}, 0.2, [("h", 1), ("i", 2)], more={"address_remap": "map"}
    )
    manager.address_remap, manager.connection_kwargs = None, {"ssl": True, "ssl_ca_certs": "c"}
    made = source_of(theirs(nodes_manager=manager), 0.2)
    assert (made.more, made.settings) == ({}, {"ssl": True, "ssl_ca_certs": "c"})
    del manager.address_remap
    assert source_of(theirs(nodes_manager=manager), 0.2).more == {}


def test_a_client_of_a_sentinel_is_copied():
    """By those that are asked, with their settings, and the service's name."""
    asked = [
        SimpleNamespace(connection_pool=pool(SSLConnection, host="s", port=1, username="u", ssl_keyfile="k")),
        SimpleNamespace(connection_pool=pool(host="t", port=2)),
    ]
    of_master = pool(SSLConnection, host="h", port=3, db=2, ssl_keyfile="l")
    of_master.sentinel_manager, of_master.service_name = SimpleNamespace(sentinels=asked), "main"
    client = theirs(connection_pool=of_master)
    assert source_of(client, 0.2) == Source(
        "redis",
        "sentinel",
        {"db": 2, "ssl_keyfile": "l", "ssl": True},
        0.2,
        [("s", 1), ("t", 2)],
        service="main",
        sentinel={"username": "u", "ssl_keyfile": "k", "ssl": True},
    )
    of_master.sentinel_manager.sentinels = []
    made = source_of(client, 0.2)
    assert (made.nodes, made.sentinel) == ([], {})


@pytest.mark.parametrize("given", [theirs(), theirs("rediscover", connection_pool=pool()), 7])
def test_what_is_no_client_is_refused(given):
    """Of no library, or without what it connects by."""
    text = "store: expected a URL, or a client of redis-py or valkey-py, got "
    with pytest.raises(TypeError) as caught:
        source_of(given, 0.2)
    assert str(caught.value) == text + repr(given)


# -- URLs ----------------------------------------------------------------------------------------------


@pytest.fixture
def read(libraries, monkeypatch):
    """What each library was given to read; a library that is not installed is left out by `absent`."""
    read = SimpleNamespace(urls=[], absent=set(), kwargs={"host": "h"})

    def of(library):
        def from_url(url):
            read.urls.append(url)
            if "bad" in url:
                raise ValueError(f"no URL: {url}")
            return theirs(library, connection_pool=pool(**read.kwargs))

        return from_url

    for library, kind in (("redis", Single), ("valkey", Older)):
        monkeypatch.setattr(kind, "from_url", staticmethod(of(library)), raising=False)

    def find(name):
        if name in read.absent:
            raise ImportError(name)
        return libraries[name]

    monkeypatch.setattr(sources, "import_module", find)
    return read


@pytest.mark.parametrize(
    ("url", "absent", "library", "as_read"),
    [
        ("redis://h", (), "redis", "redis://h"),
        ("rediss://h", (), "redis", "rediss://h"),
        ("unix:///sock", (), "redis", "unix:///sock"),
        ("valkey://h", (), "valkey", "valkey://h"),
        ("valkeys://h", (), "valkey", "valkeys://h"),
        ("valkey://h/valkey", ("valkey",), "redis", "redis://h/valkey"),
        ("valkeys://h", ("valkey",), "redis", "rediss://h"),
        ("valkey://h?client_name=a://b", ("valkey",), "redis", "redis://h?client_name=a://b"),
        ("redis://h", ("redis",), "valkey", "redis://h"),
    ],
)
def test_a_url_is_read_by_the_library_that_is_there(read, url, absent, library, as_read):
    """That of its scheme first; the other one is given a scheme that it knows."""
    read.absent.update(absent)
    source = source_of(url, 0.3)
    assert source == Source(library, "server", {"host": "h"}, 0.3)
    assert read.urls == [as_read]


@pytest.mark.parametrize(
    ("asked", "checked"),
    [({}, True), ({"ssl_cert_reqs": "required"}, True), ({"ssl_cert_reqs": "none"}, None)],
)
def test_a_url_has_names_checked(read, asked, checked):
    """Unless certificates are not."""
    read.kwargs = {"ssl": True, **asked}
    assert source_of("rediss://h", 0.2).settings.get("ssl_check_hostname") is checked
    read.kwargs = {"ssl": True, **asked, "ssl_check_hostname": False}
    assert source_of("rediss://h", 0.2).settings["ssl_check_hostname"] is False


def test_a_url_that_cannot_be_read(read):
    """Is not shown: it may hold a password."""
    text = "store: the server's URL cannot be read: expected redis://, rediss:// or unix://"
    with pytest.raises(ValueError, match=f"^{text}$") as caught:
        source_of("redis://:word@bad", 0.2)
    assert caught.value.__suppress_context__
    read.absent.update(["redis", "valkey"])
    text = r"a shared store needs redis-py or valkey-py: install singleflight-kit\[redis\] or \[valkey\]"
    with pytest.raises(ImportError, match=f"^{text}$"):
        source_of("redis://h", 0.2)
