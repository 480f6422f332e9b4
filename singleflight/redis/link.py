"""What one process has in common with the server, for all functions of a store: connections, breaker, drops.

`lock` guards the breaker, the drops, the cuts and the claims of all flights. It is never held together with
the mutex or a cache's lock, and nothing is sent and nothing of the user's runs under it.
"""

from __future__ import annotations

import os
import random
import socket
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..common.logs import log
from ..common.messages import shown
from ..core.cache import Cache
from ..fleet.breaker import CONNECTED, Breaker, Change
from ..fleet.cuts import Known, Numbers
from ..fleet.drops import Drop, Drops
from ..fleet.mailboxes import Mailboxes
from ..locks.mutex import ask_too, new_lock
from ..locks.waiters import get_ident, running_loop
from . import scripts
from .bus import Bus
from .clients import Clients, Kind, Trouble
from .forks import renew_in_children
from .keeper import Keeper, Order

__all__ = ["Link"]

_chance = random.Random().random  # not the shared one: programs seed that, and compare
_MOST_CUTS = 10_000  # tags of which this process remembers the last cut
_RETRY = 1.0  # seconds until the server is told again what it has refused
_TRIPS = 3  # times that one may wait for the server to send one thing: connect, by digest, by text


class Function(Protocol):
    """A function that shares through a link."""

    cache: Cache
    digest: bytes
    numbers: Known

    def is_again(self, other: Any, /) -> bool:
        """Return True if the other one is this function, defined once more."""
        ...

    def tag_digest(self, tag: str, /) -> bytes:
        """Return what a tag of it is known by."""
        ...

    def latest(self) -> Numbers:
        """Return epoch and last cut as far as they are known."""
        ...

    def calls_of(self, drop: Drop, numbers: Numbers, /) -> list[scripts.Call]:
        """Return what tells the server of a drop."""
        ...

    def told(
        self, drop: Drop, era: int, sent: Numbers, replies: list[Any], again: bool = False, /
    ) -> Numbers | None:
        """The server has answered: None if the drop is confirmed, else its numbers, to be told again with."""
        ...

    def confirmed(self, drop: Drop, reply: Any, /) -> None:
        """The server has done it."""
        ...

    def heard(self, news: scripts.News, /) -> None:
        """The bus tells of a change by another process."""
        ...

    def led(self) -> list[Any]:
        """Return the passages that lead for all now; under the link's lock."""
        ...

    def forget_near(self) -> None:
        """Messages may have been lost: nothing that is near is to be served."""
        ...


@dataclass(eq=False, slots=True)
class Sending:
    """A change that is on its way to the server, until then at most. Compared by identity.

    The same change may be on its way twice: it was taken anew when the first could be answered no more.
    """

    drop: Drop
    until: float
    thread: int | None  # the one that waits for the answer; None if it is a task that does
    left: list[Drop] = field(default_factory=list)  # what the keeper has for when it was answered


class Link:
    """All that the functions of one `RedisStore`, and of what `with_` made of it, have in common.

    Args:
        source: a URL or a client; it is asked for its settings alone.
        prefix: what all names on the server begin with.
        lease: for how many seconds a flight has the right to load, renewed while it goes on.
        timeout: seconds for connecting and for each answer.
    """

    prefix: str
    lease: float
    timeout: float
    clients: Clients
    lock: Any
    era: int
    me: bytes
    name: str
    channel: bytes
    breaker: Breaker
    drops: Drops
    mailboxes: Mailboxes
    bus: Bus
    keeper: Keeper

    def __init__(self, source: Any, *, prefix: str, lease: float, timeout: float) -> None:
        self.prefix, self.lease, self.timeout = prefix, lease, timeout
        self.bus_channel: bytes = f"{prefix}:bus".encode()
        self._source = source
        self._functions: dict[bytes, tuple[weakref.ref[Function], ...]] = {}
        self._begin()
        ask_too(self)
        renew_in_children(self)

    def _begin(self, period: int = 0, drops: Drops | None = None) -> None:
        """All that is this process's own; nothing connects yet. `drops` are still to be told."""
        self.clients = Clients(self._source, timeout=self.timeout)
        if drops is None:
            self.lock = new_lock()  # else somebody may be changing these under the present one
        self.era = 0  # how often what was heard became doubtful
        self.me = os.urandom(8)
        self.name = f"process {os.getpid()} on {socket.gethostname()}"
        self.channel = f"{self.prefix}:p:{self.me.hex()}".encode()
        self.breaker = Breaker(time.monotonic())
        self.breaker.period = period
        self.drops = Drops() if drops is None else drops
        self._refused: set[int] = set()  # numbers of drops that the server has refused
        self._again_at: float | None = time.monotonic() if drops else None  # when it is told them again
        self._sending: dict[tuple[bytes, bytes], Sending] = {}  # by function and key
        self.cuts: dict[bytes, int] = {}
        self._numbers = 0
        self._named: set[str] = set()  # rights that were found missing, each told once
        self._checked = False
        self.mailboxes = Mailboxes()
        self.bus = Bus(
            self.clients,
            (self.channel, self.bus_channel),
            self.mailboxes,
            self.lock,
            heard=self._heard,
            gap=self._gap,
            silent=self._silent,
        )
        self.keeper = Keeper(self.clients, self, lease=round(self.lease * 1000))
        parts = self.clients, self.bus, self.keeper
        self._sections: list[Callable[[], bool]] = [self.lock._is_owned, *(part.is_owned for part in parts)]

    def is_owned(self) -> bool:
        """Return True if this very thread is inside a section: then a handler or finaliser may not wait."""
        return any(is_owned() for is_owned in self._sections)

    # -- functions ----------------------------------------------------------------------------------

    def add(self, function: Function) -> None:
        """Add a function; raises `ValueError` if another one of that name is alive."""
        with self.lock:
            known = self._living(function.digest)
            if not all(other.is_again(function) for other in known):
                raise ValueError(
                    f"store: {shown(function.cache.name)} is the name of two functions, which would share "
                    f"their values; give one of them another `name`"
                )
            self._functions[function.digest] = tuple(map(weakref.ref, (*known, function)))

    def functions(self) -> list[Function]:
        """Return those that are alive."""
        with self.lock:
            return [function for digest in self._functions for function in self._living(digest)]

    def _living(self, digest: bytes) -> list[Function]:
        """Return the functions of this name: several where it was defined again. Under the lock."""
        return [function for ref in self._functions.get(digest, ()) if (function := ref()) is not None]

    def _function(self, digest: bytes) -> Function | None:
        with self.lock:
            known = self._living(digest)
        return known[-1] if known else None

    # -- may the server be asked? -------------------------------------------------------------------

    def period(self) -> int | None:
        """Return the number of the connection's period if the server may be asked, else None."""
        with self.lock:
            return self.breaker.period if self.breaker.state == CONNECTED else None

    def is_away(self) -> bool:
        """Return True if the server is not to be asked now; a moment later that may be otherwise."""
        return self.breaker.state != CONNECTED

    def state(self, now: float) -> str:
        """Return the breaker's state in words."""
        with self.lock:
            state, since = self.breaker.state, self.breaker.since
        return f"degraded since {now - since:.3g} s ago" if state == "degraded" else state

    def new_token(self) -> bytes:
        """Return what names one lease: no other claim has the same."""
        with self.lock:
            self._numbers += 1
            return self.me + self._numbers.to_bytes(8)

    def failed(self, trouble: Trouble, period: int) -> bool:
        """A question of a flight failed. Return True if the server takes no writes, but answers."""
        if trouble.kind is Kind.AWAY:
            with self.lock:
                change = self.breaker.failed(period, time.monotonic(), _chance())
            self._tell(change, trouble)
            return False
        self._name_once(trouble)
        self._retry_later()
        return True

    def _name_once(self, trouble: Trouble) -> None:
        text = str(trouble)
        with self.lock:
            known = text in self._named
            self._named.add(text)
        if not known:
            log.warning("%s: %s; values are loaded by each process for itself", self.prefix, text)

    def _tell(self, change: Change | None, trouble: Trouble | None = None) -> None:
        """Log a change of the breaker, tell it as an event, and wake who waits for the server."""
        if change is None:
            return
        if change.before == CONNECTED:  # first: what is told below is the user's, and may raise
            self.keeper.nudge()
            with self.lock:
                boxes = self.mailboxes.gap()
            for box in boxes:
                box.ring()
        if change.after == CONNECTED:
            log.warning("%s: the server is asked again, after %.3g s", self.prefix, change.lasted)
            self._tell_all("recovered", lasted=change.lasted)
        elif change.before == CONNECTED:
            log.warning("%s: %s; this process works alone until it answers", self.prefix, trouble)
            self._tell_all("degraded", reason=str(trouble))

    def _tell_all(self, kind: str, **details: Any) -> None:
        for function in self.functions():
            tell = function.cache.tell
            if tell.wants(kind):
                tell.tell(kind, None, **details)

    # -- drops --------------------------------------------------------------------------------------

    def note(self, kind: Any, function: Function, name: bytes = b"", payload: object = None) -> Drop:
        """Note a change that the server is to be told of."""
        with self.lock:
            return self.drops.note(kind, function.digest, name, payload)

    def note_cut(self, function: Function, tags: tuple[str, ...]) -> list[Drop]:
        """Note that these tags were invalidated; what was put before with one of them is dropped instead.

        Sent after this it would know of the cut, and outlast it.
        """
        names = [function.tag_digest(tag) for tag in tags]
        with self.lock:
            noted = [self.drops.note("cut", function.digest, name) for name in names]
            for put in self.drops.puts(function.digest):
                written, envelope = put.payload
                if not set(tags).isdisjoint(envelope.tags):
                    noted.append(self.drops.note("drop", function.digest, put.name, written))
        return noted

    def in_order(self, drop: Drop) -> list[Drop]:
        """Return what is to be sent for a drop: before a put, all that it is to outlast."""
        return self.first_for(drop.function, drop.name) if drop.kind == "put" else [drop]

    def first_for(self, function: bytes, name: bytes) -> list[Drop]:
        """Return what is to be sent before a claim of this key."""
        with self.lock:
            return self.drops.first_for(function, name)

    def current(self, drop: Drop) -> Drop | None:
        """Return what is to be sent for a drop by now; None if it is confirmed."""
        with self.lock:
            return self.drops.current(drop)

    def takes(self, drop: Drop, anyway: bool = False, leaves: bool = False) -> Sending | None:
        """Return what is given back with `sent` when a drop was answered, if whoever asks is to send it.

        What concerns one key (or one tag, or all of a function) is sent by one at a time: of two connections
        the older change might arrive last, and a put that is sent twice might take the place of what others
        have put since. Nor is a put sent before what it is to outlast. So None means: wait and see what comes
        of that, for no longer than it can take; or (`leaves`) leave it to whoever sends. The keeper looks for
        itself when that one can be answered no more: it may have been interrupted.
        """
        thread = None if running_loop() is not None else get_ident()
        with self.lock:
            now = time.monotonic()
            busy = None if anyway else self._ahead(drop, now)
            if busy is not None:
                if leaves:
                    busy.left.append(drop)
                    self._send_again(busy.until)
                return None
            taken = Sending(drop, now + _TRIPS * self.timeout, thread)
            self._sending[drop.function, drop.name] = taken
        return taken

    def _ahead(self, drop: Drop, now: float) -> Sending | None:
        """Return what is on its way and is to arrive first; under the lock.

        What a put is to outlast may be on its way by this very thread: it arrives first then.
        """
        me = get_ident()
        for each in self.drops.first_for(drop.function, drop.name) if drop.kind == "put" else ():
            busy = self._sending.get((each.function, each.name))
            if busy is not None and busy.until > now and busy.thread != me:
                return busy
        busy = self._sending.get((drop.function, drop.name))
        return busy if busy is not None and busy.until > now else None

    def is_sending(self, drop: Drop) -> bool:
        """Return True if this very thread is sending a change of the same key, further up: not to be awaited.

        That was interrupted by a signal handler or finaliser.
        """
        busy = self._sending.get((drop.function, drop.name))
        return busy is not None and busy.thread == get_ident()

    def sent(self, taken: Sending) -> None:
        """What was taken is not on its way any more. The keeper is given what it has left to this one."""
        key = taken.drop.function, taken.drop.name
        with self.lock:
            if self._sending.get(key) is not taken:
                return  # another one has taken it, when this was to be answered no more
            self._sending.pop(key, None)
            later = [current for drop in taken.left if (current := self.drops.current(drop)) is not None]
        for drop in dict.fromkeys(later):
            self.keeper.hand_over(*self.orders(drop))

    def confirm(self, drop: Drop, reply: Any) -> None:
        """The server has done it."""
        function = self._function(drop.function)
        if function is not None:
            function.confirmed(drop, reply)
        with self.lock:
            self.drops.confirmed(drop)
            left = len(self.drops)
        if not left:
            self.keeper.nudge()  # whoever flushes waits for this

    def orders(self, drop: Drop, newest: Numbers | None = None, replay: bool = False) -> list[Order]:
        """Return what the keeper sends for it, again with `newest`; nothing where its function is gone.

        In a `replay`, whoever is sending it may never be answered.
        """
        function = self._function(drop.function)
        if function is None:
            with self.lock:
                self.drops.confirmed(drop)
            return []
        era, again = self.era, newest is not None
        sent = function.latest() if newest is None else newest
        calls = function.calls_of(drop, sent)
        replies: list[Any] = []
        taken: Sending | None = None

        def wanted() -> bool:
            nonlocal taken
            if taken is None and self.current(drop) is drop:
                taken = self.takes(drop, replay, leaves=True)
            return taken is not None

        def done(reply: Any) -> None:
            replies.append(reply)
            if len(replies) == len(calls):
                try:
                    later = function.told(drop, era, sent, replies, again)
                except Trouble as trouble:
                    self._was_refused(drop, trouble)
                else:
                    if later is not None:
                        self.keeper.hand_over(*self.orders(drop, later))
                finally:
                    if taken is not None:
                        self.sent(taken)

        return [Order(call, done, wanted) for call in calls]

    def _was_refused(self, drop: Drop, trouble: Trouble) -> None:
        if trouble.kind is not Kind.AWAY:
            with self.lock:
                self._refused.add(drop.number)
            self._retry_later()

    def _retry_later(self) -> None:
        """The server has refused something: if drops are among that, they are sent again after a pause."""
        with self.lock:
            if len(self.drops):
                self._send_again(time.monotonic() + _RETRY)
        self.keeper.nudge()

    def _send_again(self, at: float) -> None:
        """What is not confirmed is sent again at this time, or before. Under the lock."""
        self._again_at = at if self._again_at is None else min(at, self._again_at)

    # -- what the keeper asks -------------------------------------------------------------------------

    def probe_at(self) -> float | None:
        """Return the monotonic time of the next probe; None while the server is asked as usual."""
        with self.lock:
            return None if self.breaker.state == CONNECTED else self.breaker.probe_at

    def answered(self) -> None:
        """A probe was answered: what is owed is asked for next."""
        with self.lock:
            if self.breaker.answered(time.monotonic()) is not None:
                self._refused.clear()

    def owed(self) -> list[Order]:
        """Return, in order, what must reach the server before it is asked as usual.

        Where that is nothing the server is asked as usual from then on. What is near may be old by now. What
        the server refuses does not hold that up: claims of these keys send it first.
        """
        with self.lock:
            drops = [drop for drop in self.drops.unconfirmed() if drop.number not in self._refused]
            change = None if drops else self.breaker.recovered(time.monotonic())
        orders = [order for drop in drops for order in self.orders(drop, replay=True)]
        if change is not None:
            self._forget_near()
            self._tell(change)
            self.bus.kick()
        return orders

    def again_at(self) -> float | None:
        """Return the monotonic time at which `again` is to be sent."""
        return self._again_at

    def again(self) -> list[Order]:
        """Return what the server has refused."""
        with self.lock:
            self._again_at = None
            self._refused.clear()
            drops = self.drops.unconfirmed()
        return [order for drop in drops for order in self.orders(drop)]

    def troubled(self, trouble: Trouble) -> None:
        """A probe, a renewal or an order failed."""
        if trouble.kind is not Kind.AWAY:
            self._name_once(trouble)
            return
        with self.lock:
            change = self.breaker.probe_failed(time.monotonic(), _chance())
        self._tell(change, trouble)

    def changed(self) -> None:
        """Another run of the server answers than before; what is heard may still come from that one."""
        self._gap(False)
        self.bus.renew()

    def pending(self) -> bool:
        """Return True if the server has not yet confirmed all that it was sent."""
        with self.lock:
            return len(self.drops) > 0

    # -- what the bus tells ---------------------------------------------------------------------------

    def _heard(self, news: scripts.News) -> None:
        lost = False
        with self.lock:
            functions = self._living(news.function)
            if news.kind == "cut":
                self._remember_cut(news.key, news.number)
                heard = [function.numbers.heard_cut(news.number) for function in functions]  # all hear it
                lost = any(heard)
                if lost:  # where it was defined again, what either knows: the last one tells the server
                    highest = max(function.numbers.ever.cut for function in functions)
                    functions[-1].numbers.saw(Numbers(), carried=highest)
        if lost:  # on the server, the number that this one should have followed on
            self.keeper.hand_over(*self.orders(self.note("cut", functions[-1], news.key)))
        if news.sender != self.me or len(functions) > 1:  # defined twice, it is told by the other one too
            for function in functions:
                function.heard(news)

    def _remember_cut(self, tag: bytes, number: int) -> None:
        if len(self.cuts) >= _MOST_CUTS:
            self.cuts.clear()  # what is not known is asked for
        self.cuts[tag] = max(number, self.cuts.get(tag, 0))

    def learn_cuts(self, found: dict[bytes, int], era: int) -> None:
        """These tags were asked for in this era: the number of the last cut of each, 0 if there was none."""
        with self.lock:
            if era == self.era:
                for tag, number in found.items():
                    self._remember_cut(tag, number)

    def raise_cut(self, tag: bytes, number: int) -> None:
        """This process has invalidated a tag; what is not known of it stays so."""
        with self.lock:
            if tag in self.cuts:
                self._remember_cut(tag, number)

    def known_cuts(self, tags: list[bytes]) -> dict[bytes, int]:
        """Return the last cuts of those of these tags of which they are known; none while deaf."""
        if not self.bus.up:
            return {}
        with self.lock:
            return {tag: self.cuts[tag] for tag in tags if tag in self.cuts}

    def _gap(self, first: bool) -> None:
        """The bus was away: drops and wakes may have been missed."""
        self._forget_near()
        if first:
            self._check_rights()
        else:
            self._tell_all("gap")

    def _forget_near(self) -> None:
        with self.lock:
            self.era += 1
            self.cuts.clear()
        for function in self.functions():
            function.forget_near()

    def _silent(self, line: str) -> None:
        log.info("%s: %s", self.prefix, line)
        self._check_rights()

    def _check_rights(self) -> None:
        """Have the keeper ask, once, what the server's user may not do."""
        with self.lock:
            asked, self._checked = self._checked, True
        if not asked:
            call = scripts.check(self.prefix, [self.channel, self.bus_channel])
            self.keeper.hand_over(Order(call, self._checked_rights))

    def _checked_rights(self, reply: Any) -> None:
        if isinstance(reply, Trouble):
            if reply.kind is not Kind.RIGHTS:
                self._checked = False
            return
        for right in scripts.missing(reply, self.prefix):
            log.warning("%s: the server's user lacks a right: %s", self.prefix, right)

    # -- processes ------------------------------------------------------------------------------------

    def after_fork(self) -> None:
        """In a forked child: another process, without threads, connections, leases and waiters."""
        self._begin()

    def close(self) -> None:
        """End the threads and close the connections; the next call makes new ones.

        What was changed here is told before that, or else by these.
        """
        if self.pending() and not self.is_away():
            self.keeper.flush(self.timeout)
        keeper, bus, clients = self.keeper, self.bus, self.clients
        # What is asked now fails, which says nothing of the server.
        self._begin(self.breaker.period + 1, self.drops)
        keeper.stop()
        bus.stop()
        clients.close()
