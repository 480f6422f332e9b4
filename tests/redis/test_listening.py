"""What the bus's thread does with its connection, and the bells: with clients that are stand-ins."""

import asyncio
import math
import queue
import threading
from types import SimpleNamespace

import pytest

from singleflight.fleet.mailboxes import Mailbox, Mailboxes
from singleflight.fleet.replies import AGAIN
from singleflight.redis import bus as module
from singleflight.redis import scripts
from singleflight.redis.bus import Bell, Bus, TaskBell
from singleflight.redis.clients import Kind, Trouble

PATIENCE = 5.0
OWN, ALL = b"sf:p:1", b"sf:bus"
CONFIRMED = [("subscribe", OWN, b""), ("subscribe", ALL, b"")]
NEWS = b"d" + b"f" * 16 + b"k" * 16 + b"s" * 8 + b"12"


class Struck(BaseException):
    """An interrupt."""


class Line:
    """A connection that receives what a test has put down for it; then nothing, until it is cut."""

    def __init__(self, told, messages):
        self.told, self.messages = told, [*messages]
        self.waits, self.ended = [], threading.Event()

    def receive(self, timeout):
        self.waits.append(timeout)
        if self.messages:
            message = self.messages.pop(0)
            if isinstance(message, Exception):
                raise message
            return message
        self.told.put("idle")
        assert self.ended.wait(PATIENCE), "it was not cut"
        raise Trouble(Kind.AWAY, "it was cut")

    def send(self, *command):
        self.told.put(command)

    def cut(self):
        self.ended.set()

    def close(self):
        self.told.put("closed")


class Listening:
    """A bus and its clients: each attempt to connect takes the next of what a test has put down."""

    def __init__(self, *attempts):
        self.told, self.channels, self.attempts = queue.Queue(), [], [*attempts]
        self.mailboxes, self.lock, self.lines = Mailboxes(), threading.RLock(), []
        self.bus = Bus(
            self,
            (OWN, ALL),
            self.mailboxes,
            self.lock,
            heard=lambda news: self.told.put(news),
            gap=lambda first: self.told.put(("gap", first, self.bus.up)),
            silent=lambda text: self.told.put(("silent", text, self.bus.up)),
        )

    def subscribe(self, channels):
        self.channels.append(channels)
        attempt = self.attempts.pop(0) if self.attempts else []
        if isinstance(attempt, Exception):
            raise attempt
        self.lines.append(Line(self.told, attempt))
        return self.lines[-1]

    def tells(self, *expected):
        assert [self.told.get(timeout=PATIENCE) for _ in expected] == [*expected]


@pytest.fixture
def listening():
    made = []

    def make(*attempts):
        made.append(Listening(*attempts))
        return made[-1]

    yield make
    for each in made:
        each.bus.stop(PATIENCE)
        assert each.bus._thread is None or not each.bus._thread.is_alive()


def test_it_subscribes_and_listens(listening, monkeypatch):
    """To both channels; it is up once both are confirmed, and who waits is told of the gap before."""
    monkeypatch.setattr(module, "QUIET", 0.5)
    here = listening([("pong", b"", b""), *CONFIRMED, ("message", ALL, NEWS), ("pong", b"", NEWS)])
    rung = threading.Event()
    box = Mailbox(rung.set)
    here.mailboxes.register(b"name", box)
    assert here.bus.ready(PATIENCE)
    here.tells(("gap", True, False), scripts.news_of(NEWS), "idle")
    assert rung.wait(PATIENCE)
    assert box.take() == AGAIN
    assert here.channels == [(OWN, ALL)]
    assert (here.bus._thread.name, here.bus._thread.daemon) == ("singleflight-bus", True)
    assert here.bus.hears
    assert all(0.0 < wait <= module.QUIET for wait in here.lines[0].waits[:3])
    assert here.lines[0].waits[3:] == [module.QUIET] * 3
    here.bus.start()
    thread = here.bus._thread
    here.bus.stop(PATIENCE)
    here.tells("closed")
    assert (here.bus.up, here.bus.hears, here.told.empty()) == (False, False, True)
    here.bus.start()
    assert not here.bus.ready(0.0)
    assert here.bus._thread is thread


def test_for_how_long_it_waits_for_its_thread(listening):
    """As it is told; a second, where it is not."""
    here, joined = listening(), []
    here.bus._thread = SimpleNamespace(is_alive=lambda: True, join=joined.append)
    here.bus.stop(), here.bus.stop(7.0)
    here.bus._thread = None
    assert joined == [1.0, 7.0]


def test_a_start_that_is_interrupted(listening, monkeypatch):
    """The thread runs by then, and is known: a second one would listen beside it."""
    here, start, made = listening(CONFIRMED), threading.Thread.start, []

    def interrupted(thread):
        made.append(thread)
        start(thread)
        raise Struck

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(Struck):
        here.bus.start()
    monkeypatch.undo()
    assert here.bus.ready(PATIENCE)
    assert made == [here.bus._thread]
    here.tells(("gap", True, False), "idle")


def test_a_thread_that_cannot_start(listening, monkeypatch):
    """Nobody is told, nor waited for, and the next one who needs it starts it."""
    here = listening(CONFIRMED)

    def start(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        here.bus._tried.wait = None  # nobody waits for it
        assert not here.bus.ready(PATIENCE)
        assert not asyncio.run(asyncio.wait_for(here.bus.aready(math.inf), PATIENCE))
        del here.bus._tried.wait
        here.bus.stop(PATIENCE)
    here.bus._stopped = False
    assert here.bus.ready(PATIENCE)


def test_a_thread_waits_no_longer_than_it_is_told(listening):
    """The first attempt to connect goes on meanwhile, and may take much longer."""
    here, may = listening(), threading.Event()

    def subscribe(channels):
        assert may.wait(PATIENCE)
        here.attempts.append(CONFIRMED)
        return Listening.subscribe(here, channels)

    here.subscribe = subscribe
    assert not here.bus.ready(0.0)
    assert not here.bus._tried.is_set()
    may.set()
    assert here.bus.ready(PATIENCE)


def test_whether_it_is_asked_inside_of_a_section(listening):
    """A handler that interrupts a section waits for nobody."""
    here = listening()
    assert here.bus.is_owned() is False
    with here.bus._starting:
        assert here.bus.is_owned() is True


def test_on_its_own_thread_nothing_is_heard(listening):
    """Whoever waits there would wait in vain."""
    here, heard = listening([*CONFIRMED, ("message", ALL, NEWS)]), []
    here.bus._heard = lambda news: heard.append((here.bus.up, here.bus.hears))
    assert here.bus.ready(PATIENCE)
    here.tells(("gap", True, False), "idle")
    assert heard == [(True, False)]


def test_a_subscription_that_is_not_confirmed(listening):
    """One of both is not enough: it is given up, and made anew."""
    here = listening([CONFIRMED[0], None], [*CONFIRMED])
    here.bus.start()
    here.tells(("silent", "the bus is silent", False), "closed")
    here.bus.kick()
    here.tells(("gap", True, False), "idle")


def test_a_connection_that_is_quiet(listening):
    """It is asked, and asked again as long as it answers; without an answer it is given up."""
    here = listening([*CONFIRMED, None, ("pong", b"", b""), None, None], [*CONFIRMED])
    here.bus.start()
    here.tells(("gap", True, False), ("PING",), ("PING",), ("silent", "the bus is silent", False), "closed")
    here.tells(("gap", False, False), "idle")
    assert here.bus.up


class Kicked:
    """Instead of the event that the thread waits at: notes for how long, and says who is kicked."""

    def __init__(self, kicks, most, stop):
        self.kicks, self.most, self.stop, self.waits = kicks, most, stop, []

    def clear(self):
        pass

    def set(self):
        pass

    def wait(self, seconds):
        self.waits.append(seconds)
        if len(self.waits) == self.most:
            self.stop()
        return len(self.waits) in self.kicks


@pytest.mark.parametrize(
    ("chance", "kicks", "waits"),
    [
        (1.0, (), [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]),
        (0.0, (), [0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]),
        (1.0, (3,), [0.05, 0.1, 0.2, 0.05, 0.1]),
    ],
)
def test_how_long_it_waits_to_connect_again(listening, monkeypatch, chance, kicks, waits):
    """Twice as long each time, up to a limit, and half of it by chance; from the start after a kick."""
    monkeypatch.setattr(module, "_chance", lambda: chance)
    here = listening(*(Trouble(Kind.AWAY, "refused") for _ in range(20)))

    def stop():
        here.bus._stopped = True

    here.bus._kicked = Kicked(kicks, len(waits), stop)
    assert not here.bus.ready(PATIENCE)
    here.bus._thread.join(PATIENCE)
    assert not here.bus._thread.is_alive()
    assert here.bus._kicked.waits == pytest.approx(waits)
    here.tells(*[("silent", "refused", False)] * len(waits))


def test_a_connection_that_was_lost_is_made_at_once(listening, monkeypatch):
    """And after a first attempt that fails it waits as at the start."""
    monkeypatch.setattr(module, "_chance", lambda: 1.0)
    lost, away = Trouble(Kind.AWAY, "lost"), Trouble(Kind.AWAY, "refused")
    here = listening(away, away, [*CONFIRMED, lost], away, away)

    def stop():
        here.bus._stopped = True

    here.bus._kicked = Kicked((), 4, stop)
    here.bus.start()
    here.bus._thread.join(PATIENCE)
    assert here.bus._kicked.waits == pytest.approx([0.05, 0.1, 0.05, 0.1])
    here.tells(("silent", "refused", False), ("silent", "refused", False), ("gap", True, False))
    here.tells(("silent", "lost", False), "closed", ("silent", "refused", False))


def test_a_connection_that_is_lost_again_and_again(listening, monkeypatch):
    """It is made at once the first time; then after a short pause, until one has lasted."""
    monkeypatch.setattr(module, "_chance", lambda: 1.0)
    now = 0.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    lost = [*CONFIRMED, Trouble(Kind.AWAY, "lost")]
    here = listening(*([*lost] for _ in range(6)), Trouble(Kind.AWAY, "refused"))

    class Ages(Kicked):
        def wait(self, seconds):
            nonlocal now
            now += module.LONGEST_PAUSE if len(self.waits) == 3 else seconds
            return super().wait(seconds)

    def stop():
        here.bus._stopped = True

    here.bus._kicked = Ages((), 5, stop)
    here.bus.start()
    here.bus._thread.join(PATIENCE)
    assert not here.bus._thread.is_alive()
    assert here.bus._kicked.waits == pytest.approx([0.05, 0.05, 0.05, 0.05, 0.05])
    assert here.attempts == []  # after the fourth, one was made at once


@pytest.mark.parametrize("attempt", [Trouble(Kind.AWAY, "refused"), CONFIRMED], ids=["away", "up"])
def test_a_task_that_waits_for_the_first_attempt(listening, attempt):
    """It is woken by its end, whatever that is; later ones do not wait."""
    here, may = listening(), threading.Event()

    def subscribe(channels):
        assert may.wait(PATIENCE)
        here.attempts.append(attempt)
        return Listening.subscribe(here, channels)

    here.subscribe = subscribe

    async def wait():
        assert not await here.bus.aready(0.0)
        waiting = [asyncio.create_task(here.bus.aready(PATIENCE)) for _ in range(2)]
        await asyncio.sleep(0)
        may.set()
        return await asyncio.wait_for(asyncio.gather(*waiting), PATIENCE / 2)

    assert asyncio.run(wait()) == [attempt is CONFIRMED] * 2
    assert asyncio.run(here.bus.aready(PATIENCE)) is (attempt is CONFIRMED)


def test_a_bell():
    """It is heard once, however often it was rung; any number of seconds will do."""
    bell, waits = Bell(), []
    silent, bell._silent = bell._silent, SimpleNamespace(acquire=lambda timeout: waits.append(timeout))
    for seconds in (-1.0, 0.5, math.inf):
        bell.wait(seconds)
    assert waits == [0.0, 0.5, threading.TIMEOUT_MAX]
    bell._silent = silent
    assert not bell.wait(-1.0)
    bell.ring(), bell.ring()
    assert bell.wait(math.inf)
    assert not bell.wait(0.0)
    bell.ring()
    assert bell.wait(-1.0)


def test_a_bell_of_a_task():
    """The same; one that is rung when the time has ended is heard by the next wait."""

    async def main():
        bell = TaskBell()
        bell._ring()  # on the loop's own thread
        assert await bell.wait(0.0)
        assert not await bell.wait(0.0)
        bell._ring()
        assert await bell.wait(0.0)
        bell.ring(), bell.ring()
        assert await bell.wait(PATIENCE)
        assert not await bell.wait(0.0)
        waiting = asyncio.create_task(bell.wait(PATIENCE))
        await asyncio.sleep(0)
        bell.ring()
        assert await waiting
        waiting = asyncio.create_task(bell.wait(PATIENCE))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        bell.ring()
        await asyncio.sleep(0)
        assert await bell.wait(0.0)
        return bell

    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE)).ring()  # a loop that is closed hears nothing
