"""What the server tells this process: wakes on its own channel, drops and renewals on the bus of all.

One daemon thread listens. A bus that was away may have missed a drop or a wake: that is a *gap*. All who wait
are told to ask again, and whoever keeps near entries is told, before any message of the new subscription.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Final

from ..fleet.mailboxes import Mailboxes
from . import scripts
from .clients import Clients, Kind, Line, Trouble, trouble_of
from .forks import renew_in_children
from .scripts import News

__all__ = ["Bell", "Bus", "TaskBell"]

QUIET: Final = 1.0
"""Seconds without a message after which the server is asked if it is still there."""

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 10.0
"""Seconds before the thread connects again: the first time, and at most."""

_chance = random.Random().random  # not the shared one: programs seed that, and compare


class Bell:
    """What a thread waits for; its `ring` is that of a `fleet.mailboxes.Mailbox`."""

    __slots__ = ("_silent",)

    def __init__(self) -> None:
        self._silent = threading.Lock()  # made faster than an event, and most flights do not wait
        self._silent.acquire()

    def ring(self) -> None:
        """Wake whoever waits, or who comes next; any thread."""
        with suppress(RuntimeError):  # it was rung before
            self._silent.release()

    def wait(self, seconds: float) -> bool:
        """Return True if it was rung since the last wait, as soon as that is so; False if the time ended."""
        return self._silent.acquire(timeout=min(max(0.0, seconds), threading.TIMEOUT_MAX))


class TaskBell:
    """The same for a task of the running loop. A loop that is closed hears nothing."""

    __slots__ = ("_heard", "_loop", "_rung")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = False  # since the last wait; it and the next one are the loop's own thread's alone
        self._heard: asyncio.Future[None] | None = None  # what the task waits for

    def ring(self) -> None:
        """Wake whoever waits, or who comes next; any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._rung = True
        if self._heard is not None:
            _open(self._heard)

    async def wait(self, seconds: float) -> bool:
        """Return True if it was rung since the last wait, as soon as that is so; False if the time ended."""
        if not self._rung:
            self._heard = heard = self._loop.create_future()
            end = self._loop.call_later(seconds, _open, heard)
            try:
                await heard
            finally:
                end.cancel()
                self._heard = None
        rung, self._rung = self._rung, False
        return rung


def _open(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Bus:
    """The thread that listens, from the first `start` on.

    Args:
        clients: where its connection comes from.
        channels: the process's own, for wakes, and that of all, for news.
        mailboxes: who waits; claims register and leave there under `lock`.
        lock: guards the mailboxes.
        heard: called with each piece of news, own ones included.
        gap: called after each subscription; True at the first. What was asked before it must not be kept.
        silent: called with one line when the connection was lost or could not be made.

    The three are called on the bus's thread, under no lock, and must not wait: wakes stand behind them.
    """

    up: bool

    def __init__(
        self,
        clients: Clients,
        channels: Sequence[bytes],
        mailboxes: Mailboxes,
        lock: Any,
        *,
        heard: Callable[[News], object],
        gap: Callable[[bool], object],
        silent: Callable[[str], object],
    ) -> None:
        self._clients, self._mailboxes, self._lock = clients, mailboxes, lock
        self._own, self._all = channels
        self._heard, self._gap, self._silent = heard, gap, silent
        self._begin()
        renew_in_children(self)

    def _begin(self) -> None:
        self.up = False  # it listens; the bus's thread writes it, as the line
        self._line: Line | None = None
        self._first = True
        self._thread: threading.Thread | None = None  # written under `_starting`
        self._starting: Any = threading.RLock()  # re-entrant: see `mutex`
        self._kicked = threading.Event()
        self._stopped = False
        self._tried = threading.Event()  # the first attempt has ended
        self._awaiting: list[Callable[[], object]] = []  # called when it has; under `_starting`

    def is_owned(self) -> bool:
        """Return True if this very thread is inside a section of its own."""
        return bool(self._starting._is_owned())

    # -- any thread

    def start(self) -> None:
        """Have the thread run; nothing if it does. Never waits."""
        if not self._runs():
            with self._starting:
                if not self._runs() and not self._stopped:
                    thread = threading.Thread(target=self._run, name="singleflight-bus", daemon=True)
                    self._thread = thread  # first: an interrupt may end `start` when it runs
                    with suppress(RuntimeError):  # the interpreter ends, or it cannot have one more
                        thread.start()

    def _runs(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def hears(self) -> bool:
        """Return True if what is waited for on this thread is heard: on the bus's own nothing would be."""
        return self.up and threading.current_thread() is not self._thread

    def ready(self, timeout: float) -> bool:
        """Start it and wait until it listens, but no longer than its first attempt; return `up`."""
        self.start()
        if self._runs():  # else there is no room for one more thread: nobody is to wait for it
            self._tried.wait(timeout)
        return self.up

    async def aready(self, timeout: float) -> bool:
        """Start it and wait until it listens, but no longer than its first attempt; return `up`."""
        self.start()
        if self._runs() and not self._tried.is_set():
            bell = TaskBell()
            with self._starting:
                self._awaiting.append(bell.ring)
            if not self._tried.is_set():
                await bell.wait(timeout)
        return self.up

    def kick(self) -> None:
        """Connect now if it waits to do so: the server answers again."""
        self._kicked.set()

    def renew(self) -> None:
        """Listen by another connection: this one may lead to a server that is not the one that is asked."""
        line = self._line
        if line is not None:
            line.cut()

    def stop(self, timeout: float = 1.0) -> None:
        """End the thread for good, and wait for it."""
        with self._starting:
            self._stopped = True
            thread = self._thread
        self._kicked.set()
        self.renew()
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(timeout)

    def after_fork(self) -> None:
        """Forget thread and connection, in a forked child; the next `start` makes new ones."""
        self._begin()

    # -- the bus's thread

    def _run(self) -> None:
        # A connection that is made after `at_once` is made again at once where it is lost. One that is lost
        # again and again is no load, and near values need not wait long for the next one.
        pause, at_once = FIRST_PAUSE, -inf
        while not self._stopped:
            self._kicked.clear()
            try:
                self._line = self._clients.subscribe((self._own, self._all))
                self._subscribe(self._line)
                now = time.monotonic()
                pause = 0.0 if now >= at_once else FIRST_PAUSE
                at_once = now + LONGEST_PAUSE
                self._listen(self._line)
            except Exception as error:  # a bug of a callback's too: it must not make the process deaf
                self.up = False
                if not self._stopped:
                    self._silent(str(trouble_of(error)))
            finally:
                self.up = False
                line, self._line = self._line, None
                if line is not None:
                    line.close()
                self._first_attempt_ended()
            if pause and not self._stopped and self._kicked.wait(pause * (0.5 + _chance() / 2)):
                pause = 0.0
            pause = min(LONGEST_PAUSE, 2 * pause) or FIRST_PAUSE

    def _subscribe(self, line: Line) -> None:
        """Wait until the server has confirmed both channels; what came before is not heard."""
        end = time.monotonic() + QUIET
        confirmed = 0
        while confirmed < 2:
            message = line.receive(max(0.0, end - time.monotonic()))
            if message is None:
                raise Trouble(Kind.AWAY, "the bus is silent")
            confirmed += message[0] == "subscribe"
        self._gap(self._first)
        self._first = False
        self.up = True
        with self._lock:
            boxes = self._mailboxes.gap()
        for box in boxes:
            box.ring()
        self._first_attempt_ended()

    def _first_attempt_ended(self) -> None:
        if not self._tried.is_set():
            self._tried.set()
            with self._starting:
                awaiting, self._awaiting = self._awaiting, []
            for ring in awaiting:
                ring()

    def _listen(self, line: Line) -> None:
        asked = False
        while not self._stopped:
            message = line.receive(QUIET)
            if message is None:
                if asked:
                    raise Trouble(Kind.AWAY, "the bus is silent")
                line.send("PING")
            else:
                self._deliver(*message)
            asked = message is None

    def _deliver(self, kind: str, channel: bytes, payload: bytes) -> None:
        if kind != "message":
            return
        if channel == self._all:
            news = scripts.news_of(payload)
            if news is not None:
                self._heard(news)
        elif (woken := scripts.wake_of(payload)) is not None:
            with self._lock:
                boxes = self._mailboxes.deliver(*woken)
            for box in boxes:
                box.ring()
