"""The bus wakes who waits, passes news on, and tells of every gap before anything else."""

import asyncio
import queue
import threading
import time

import pytest

from singleflight.fleet.claims import Release
from singleflight.fleet.mailboxes import Mailbox, Mailboxes
from singleflight.fleet.replies import AGAIN
from singleflight.redis import bus as module
from singleflight.redis import scripts
from singleflight.redis.bus import Bell, Bus, TaskBell
from singleflight.redis.clients import Clients

from ..children import in_child
from .waiting import wait_until

PATIENCE = 20.0
OWN, ALL = b"sf:p:1", b"sf:bus"
PLACE = scripts.place("sf:{f:k}")
NAME = PLACE.waits(b"1")


class Listening:
    """A bus whose callbacks are heard, in order."""

    def __init__(self, url, library, **callbacks):
        self.clients = Clients(url.replace("redis://", f"{library}://"), timeout=1.0)
        self.told = queue.Queue()
        self.mailboxes, self.lock = Mailboxes(), threading.RLock()
        callbacks = {
            "heard": lambda news: self.told.put(("heard", news.kind, news.key)),
            "gap": lambda first: self.told.put(("gap", first)),
            "silent": lambda text: self.told.put(("silent",)),
            **callbacks,
        }
        self.bus = Bus(self.clients, (OWN, ALL), self.mailboxes, self.lock, **callbacks)

    def next(self):
        return self.told.get(timeout=PATIENCE)

    def up(self):
        assert self.bus.ready(PATIENCE)
        assert self.next() == ("gap", True)

    def waiter(self, name=NAME):
        bell = Bell()
        box = Mailbox(bell.ring)
        with self.lock:
            self.mailboxes.register(name, box)
        return bell, box

    def claim(self, token):
        call = scripts.claim(PLACE, b"1", token, "read", lease=60_000, channel=OWN, leader="me", most=1000)
        return scripts.claimed(self.clients.call(call))

    def drop(self):
        head = scripts.news_head(b"f" * 16, b"k" * 16, b"s" * 8)
        self.clients.call(scripts.drop(PLACE, bus=ALL, head=head))

    def close(self):
        self.bus.stop(PATIENCE)
        self.clients.close()


@pytest.fixture
def make(library):
    made = []

    def make(url, **callbacks):
        made.append(Listening(url, library, **callbacks))
        return made[-1]

    yield make
    for each in made:
        each.close()
        assert not any(thread is each.bus._thread for thread in threading.enumerate())


def test_who_waits_is_woken(make, url):
    """By the outcome of a flight that another claim led; nobody else is."""
    here = make(url)
    here.up()
    here.claim(b"a")
    bell, box = here.waiter()
    _, other_box = here.waiter(PLACE.waits(b"2"))
    here.claim(b"b")
    here.clients.call(scripts.pass_on(PLACE, b"1", b"a", b"outcome", lease=60_000))
    assert bell.wait(PATIENCE)
    assert box.take().found.envelope == b"outcome"
    assert other_box.take() is None


def test_news_is_heard(make, url):
    """That of one's own too."""
    here = make(url)
    here.up()
    here.drop()
    assert here.next() == ("heard", "drop", b"k" * 16)


@pytest.mark.parametrize(
    "payload", [b"", b"d", b"x" * 60, b"\xff" * 3, b"v\x01k\x011" + b"\0" * 10, b"d" + b"h" * 40]
)
def test_what_is_none_of_ours_is_ignored(make, url, direct, payload):
    """On either channel; what comes behind it is heard."""
    here = make(url)
    here.up()
    _, box = here.waiter()
    for channel in (OWN, ALL):
        direct.publish(channel, payload)
    here.drop()
    assert here.next() == ("heard", "drop", b"k" * 16)
    assert box.take() is None


def test_a_lost_connection_is_a_gap(make, proxy):
    """It is told before any message of the new one, and all who wait ask again."""
    here = make(proxy.url)
    here.up()
    bell, box = here.waiter()
    proxy.cut()
    assert here.next() == ("silent",)
    assert here.next() == ("gap", False)
    assert bell.wait(PATIENCE)
    assert box.take() == AGAIN
    wait_until(lambda: here.bus.up)
    here.drop()
    assert here.next() == ("heard", "drop", b"k" * 16)


def test_a_wake_that_comes_before_the_subscription_is_made_good(make, url):
    """Who registered while the bus was away is told to ask again when it is up."""
    here = make(url)
    here.claim(b"a")
    bell, box = here.waiter()
    here.claim(b"b")
    here.clients.call(scripts.release(PLACE, b"1", b"a", Release(None), lease=60_000))
    here.up()
    assert bell.wait(PATIENCE)
    assert box.take() == AGAIN


def test_a_silent_connection_is_noticed(make, proxy, monkeypatch):
    """A peer that is gone without a word answers no ping."""
    monkeypatch.setattr(module, "QUIET", 0.1)
    here = make(proxy.url)
    here.up()
    proxy.deaf = True
    assert here.next() == ("silent",)
    proxy.deaf = False
    while (told := here.next()) == ("silent",):
        pass
    assert told == ("gap", False)


def test_a_quiet_connection_is_kept(make, proxy, monkeypatch):
    """While it answers pings there is no gap."""
    monkeypatch.setattr(module, "QUIET", 0.02)
    here = make(proxy.url)
    here.up()
    before = proxy.passed
    wait_until(lambda: proxy.passed >= before + 5 * len("*1\r\n$4\r\nPING\r\n"))
    assert here.told.empty()
    assert proxy.opened == 1


def test_a_kick_connects_at_once(make, own_server, monkeypatch):
    """However long it would have waited."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 10_000.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 10_000.0)
    here = make(own_server.url)
    here.up()
    own_server.kill()
    assert here.next() == ("silent",)  # the connection
    assert here.next() == ("silent",)  # the attempt that is made at once
    own_server.start()
    assert not here.bus.up
    wait_until(lambda: here.bus.kick() or here.bus.up)
    assert here.next() == ("gap", False)


def test_an_error_of_a_callback_does_not_make_deaf(make, url):
    """It counts as a lost connection."""
    errors = [RuntimeError("a bug")]

    def heard(news):
        if errors:
            raise errors.pop()
        here.told.put(("heard", news.kind, news.key))

    here = make(url, heard=heard)
    here.up()
    here.drop()
    assert here.next() == ("silent",)
    assert here.next() == ("gap", False)
    wait_until(lambda: here.bus.up)
    here.drop()
    assert here.next() == ("heard", "drop", b"k" * 16)


def test_ready_waits_for_the_first_attempt_alone(make, library):
    """A server that is not there delays nobody until the time-out."""
    here = make("redis://127.0.0.1:1")
    began = time.monotonic()
    assert not here.bus.ready(PATIENCE)
    assert not asyncio.run(here.bus.aready(PATIENCE))
    assert time.monotonic() - began < PATIENCE / 2


def test_tasks_wait_until_it_listens(make, url):
    """Many at once, on a loop that goes on meanwhile."""
    here = make(url)

    async def ready():
        return await asyncio.gather(*(here.bus.aready(PATIENCE) for _ in range(5)))

    assert asyncio.run(ready()) == [True] * 5


def test_a_task_is_woken(make, url):
    """From the bus's thread."""
    here = make(url)

    async def wait():
        assert await here.bus.aready(PATIENCE)
        bell = TaskBell()
        box = Mailbox(bell.ring)
        assert not await bell.wait(0.0)
        with here.lock:
            here.mailboxes.register(NAME, box)
        await here.clients.acall(scripts.drop(PLACE, bus=ALL, head=b"h" * 40))
        here.claim(b"a")
        here.claim(b"b")
        here.clients.call(scripts.pass_on(PLACE, b"1", b"a", b"outcome", lease=60_000))
        assert await bell.wait(PATIENCE)
        assert box.take().kind == "passed"
        return bell

    asyncio.run(wait()).ring()  # and a loop that is closed is no trouble


def test_a_bell_that_was_rung_before_is_heard(make):
    """Once."""
    bell = Bell()
    bell.ring()
    bell.ring()
    assert bell.wait(PATIENCE)
    assert not bell.wait(0.0)


def test_a_stopped_bus_stays_so(make, url):
    """Its thread ends, and none begins."""
    here = make(url)
    here.up()
    here.bus.stop(PATIENCE)
    assert not here.bus._thread.is_alive()
    assert not here.bus.ready(0.0)
    assert here.told.empty()  # it was not lost


def test_a_child_listens_for_itself(make, url):
    """Its parent's connection is left alone."""
    here = make(url)
    here.up()
    thread = here.bus._thread

    def child():
        assert not here.bus.up
        assert here.bus._thread is None
        assert here.bus.ready(PATIENCE)
        here.drop()
        return here.told.get(timeout=PATIENCE), here.told.get(timeout=PATIENCE)

    assert in_child(child) == repr((("gap", True), ("heard", "drop", b"k" * 16)))
    assert here.next() == ("heard", "drop", b"k" * 16)  # of the child
    assert here.told.empty()
    assert here.bus._thread is thread
    assert thread.is_alive()
