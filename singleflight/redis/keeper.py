"""The thread that does what nobody waits for: renews leases, probes a lost server, sends what is left to it.

It decides nothing. What an answer or an error means is its `Duties`, which the store gives it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Protocol

from . import scripts
from .bus import TaskBell
from .clients import Clients, Kind, Trouble, trouble_of
from .forks import renew_in_children
from .scripts import Call, Place

__all__ = ["Duties", "Keeper", "Lease", "Order"]

BATCH: Final = 200
"""Calls in one pipeline."""
_LONGEST_SLEEP: Final = 10.0  # seconds; then it looks for itself, since an interrupt may have kept a nudge


class Duties(Protocol):
    """What the keeper asks and tells, on its own thread and under no lock of its."""

    def probe_at(self) -> float | None:
        """Return the monotonic time of the next probe; None while the server is asked as usual."""

    def answered(self) -> None:
        """A probe was answered: what is owed is asked for next."""

    def owed(self) -> Sequence[Order]:
        """Return, in order, what must reach the server before it is asked as usual.

        Asked after a probe was answered, until nothing is returned: then the breaker is closed, in the same
        section in which that was seen.
        """
        ...

    def again_at(self) -> float | None:
        """Return the monotonic time at which `again` is to be sent; None if nothing is."""

    def again(self) -> Sequence[Order]:
        """Return what the server has refused, and is to be told again."""
        ...

    def troubled(self, trouble: Trouble) -> None:
        """A probe, a renewal or an order failed."""

    def changed(self) -> None:
        """Another run of the server answers than before: what was heard from it is doubtful."""

    def pending(self) -> bool:
        """Return True if the server has not yet confirmed all that it is to be told."""
        ...


def _always() -> bool:
    return True


@dataclass(eq=False, slots=True)
class Lease:
    """A flight's right to load for the fleet; renewed while the keeper holds it. Compared by identity.

    `wanted` is asked, on the keeper's thread, before each renewal: one that nobody is left to end lapses.
    """

    place: Place
    version: bytes
    token: bytes
    lost: Callable[[Lease], object]  # called once, on the keeper's thread, if it is no longer ours
    wanted: Callable[[], bool] = _always
    renewed: float = 0.0  # monotonic; under the keeper's lock


@dataclass(eq=False, slots=True)
class Order:
    """A call that nobody waits for. `done` gets the reply, or the `Trouble`, on the keeper's thread.

    It is not sent, and `done` not called, if it is no longer `wanted` when its turn has come.
    """

    call: Call
    done: Callable[[Any], object]
    wanted: Callable[[], bool] = _always


class Keeper:
    """The thread. It starts with the first lease, order or probe.

    Args:
        clients: what it sends by.
        duties: whom it asks what to do.
        lease: milliseconds that a renewal adds; leases are renewed when a third has passed.
    """

    def __init__(self, clients: Clients, duties: Duties, *, lease: int) -> None:
        self._clients, self._duties, self._lease = clients, duties, lease
        self._third = lease / 3000
        self._begin()
        renew_in_children(self)

    def _begin(self) -> None:
        self._changed = threading.Condition()  # its lock guards all of these; re-entrant: see `mutex`
        self._leases: dict[Lease, None] = {}
        self._orders: list[Order] = []
        self._flushes: list[Callable[[], object]] = []  # called when nothing is left
        self._nudged = False
        self._held_at = -math.inf  # when the last lease was given to `hold`; not guarded
        self._asleep = False  # the thread does not wake by itself within a third of a lease
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._identity: str | None = ""  # of the server; None: it does not say. The thread's alone

    def is_owned(self) -> bool:
        """Return True if this very thread is inside a section."""
        return bool(self._changed._is_owned())  # type: ignore[attr-defined]

    # -- any thread; nothing here waits but `flush` and `stop`

    def hold(self, lease: Lease, asked: float | None = None) -> None:
        """Renew this lease from now on. It counts as renewed when it was `asked` for (monotonic; now)."""
        now = self._held_at = time.monotonic()
        lease.renewed = now if asked is None else asked
        with self._changed:
            self._leases[lease] = None
            # Else it sees this one in time: it wakes within a third. But the answer may have come late.
            self._wake(self._asleep or now - lease.renewed >= self._third)

    def let_go(self, lease: Lease) -> None:
        """Renew it no more; harmless if it was not held, or if it has ended."""
        with self._changed:
            self._leases.pop(lease, None)

    def hand_over(self, *orders: Order) -> None:
        """Have these sent soon, in this order."""
        with self._changed:
            self._orders += orders
            self._wake()

    def nudge(self) -> None:
        """Look again: `probe_at` or `pending` has changed."""
        with self._changed:
            self._nudged = True
            self._wake()

    def flush(self, timeout: float) -> bool:
        """Wait until nothing is left to send or to confirm; return False if the time ended first."""
        quiet = threading.Event()
        with self._flushing(quiet.set):
            return quiet.wait(timeout)

    async def aflush(self, timeout: float) -> bool:
        """Wait until nothing is left to send or to confirm; return False if the time ended first."""
        bell = TaskBell()
        with self._flushing(bell.ring):
            return await bell.wait(timeout)

    def stop(self, timeout: float = 1.0) -> None:
        """End the thread and wait for it. What it still has is not sent, and told so."""
        with self._changed:
            self._stopped = True
            thread, orders = self._thread, self._orders
            self._orders = []
            self._changed.notify()
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(timeout)
        _not_sent(orders, Trouble(Kind.AWAY, "the store is closed"))

    def after_fork(self) -> None:
        """Forget thread, leases and orders, in a forked child: they are its parent's."""
        self._begin()

    def _wake(self, needed: bool = True) -> None:
        """Have the thread look; under the lock."""
        if (self._thread is None or not self._thread.is_alive()) and not self._stopped:
            thread = threading.Thread(target=self._run, name="singleflight-keeper", daemon=True)
            self._thread = thread  # first: an interrupt may end `start` when it runs
            with suppress(RuntimeError):  # the interpreter ends, or it cannot have one more
                thread.start()
        elif needed:
            self._changed.notify()

    @contextmanager
    def _flushing(self, ring: Callable[[], object]) -> Iterator[None]:
        with self._changed:
            self._flushes.append(ring)
            self._nudged = True
            self._wake()
        try:
            yield
        finally:
            with self._changed:
                self._flushes.remove(ring)

    # -- the keeper's thread

    def _run(self) -> None:
        while (work := self._next()) is not None:
            try:
                self._work(*work)
            except Exception as error:  # a bug of a callback's too: leases are to be renewed all the same
                self._duties.troubled(trouble_of(error))
            self._tell_flushes()

    def _next(self) -> tuple[float | None, list[Lease], list[Order]] | None:
        """Wait until there is something to do. Return when a probe is due, leases that are, and orders."""
        while True:
            probe_at, again_at = self._duties.probe_at(), self._duties.again_at()  # under no lock of ours
            with self._changed:
                if self._stopped:
                    return None
                now = time.monotonic()
                end = min(self._ends(probe_at, again_at, now), default=math.inf)
                if end <= now or self._orders or self._nudged:
                    orders, self._orders, self._nudged = self._orders, [], False
                    return probe_at, self._due(now), orders
                self._asleep = end - now > self._third
                self._changed.wait(min(end - now, _LONGEST_SLEEP))
                self._asleep = False

    def _ends(self, probe_at: float | None, again_at: float | None, now: float) -> list[float]:
        """Return when to look again: also soon after a lease was held, for the next that will be."""
        if probe_at is not None:
            return [probe_at]
        latest = self._held_at + self._third
        ends = [lease.renewed + self._third for lease in self._leases]
        return [*ends, *([latest] if latest > now else ()), *([] if again_at is None else [again_at])]

    def _due(self, now: float) -> list[Lease]:
        """Return, if one is to be renewed, all that soon would be."""
        ages = {lease: now - lease.renewed for lease in self._leases}
        least = self._third / 2 if max(ages.values(), default=0.0) >= self._third else math.inf
        return [lease for lease, age in ages.items() if age >= least]

    def _work(self, probe_at: float | None, leases: list[Lease], orders: list[Order]) -> None:
        if probe_at is None:
            if leases:
                try:
                    self._renew(leases)
                except Exception as error:
                    _not_sent(orders, trouble_of(error))
                    raise
            self._send(orders)
            again_at = self._duties.again_at()
            if again_at is not None and again_at <= time.monotonic():
                self._send(self._duties.again())
            return
        _not_sent(orders, Trouble(Kind.AWAY, "the server was lost"))  # what must arrive is owed
        if probe_at <= time.monotonic():
            self._probe()

    def _renew(self, leases: list[Lease]) -> None:
        for lease in leases:
            if not lease.wanted():
                self.let_go(lease)
        with self._changed:
            leases = [lease for lease in leases if lease in self._leases]
            for lease in leases:
                lease.renewed = time.monotonic()
        calls = [scripts.renew(each.place, each.version, each.token, lease=self._lease) for each in leases]
        for lease, reply in zip(leases, self._replies(calls), strict=True):
            if isinstance(reply, Trouble):
                self._duties.troubled(reply)
            elif reply < 0:
                with self._changed:
                    held = lease in self._leases
                    self._leases.pop(lease, None)
                if held:
                    lease.lost(lease)
        self._compare()

    def _send(self, orders: Sequence[Order]) -> None:
        """Send them and tell what came back. Raises a `Trouble`, if there is one.

        That is the first by which the server was lost, else the first: what did not arrive for it is owed.
        """
        wanted = (order for order in orders if order.wanted())  # asked when its turn has come
        troubles = []
        while batch := list(islice(wanted, BATCH)):
            try:
                replies = self._clients.call_all([order.call for order in batch])
            except Trouble as trouble:
                replies = [trouble] * len(batch)
            for order, reply in zip(batch, replies, strict=True):
                order.done(reply)
            troubles += [reply for reply in replies if isinstance(reply, Trouble)]
        if troubles:
            raise min(troubles, key=lambda trouble: trouble.kind is not Kind.AWAY)

    def _replies(self, calls: list[Call]) -> list[Any]:
        return [
            reply
            for first in range(0, len(calls), BATCH)
            for reply in self._clients.call_all(calls[first : first + BATCH])
        ]

    def _probe(self) -> None:
        try:
            self._clients.call(scripts.command("PING"))
        except Trouble as trouble:  # what it refuses, it has answered
            if trouble.kind is Kind.AWAY:
                raise
        self._compare()
        self._duties.answered()
        while owed := self._duties.owed():
            self._send(owed)
        with self._changed:
            for lease in self._leases:
                lease.renewed = -math.inf

    def _compare(self) -> None:
        """Ask which run of the server answers, unless it does not say."""
        before = self._identity
        if before is not None:
            self._identity = self._clients.identity()
            if before and self._identity not in (None, before):
                self._duties.changed()

    def _tell_flushes(self) -> None:
        with self._changed:
            rings = [] if self._orders else list(self._flushes)
        if rings and not self._duties.pending():
            for ring in rings:
                ring()


def _not_sent(orders: Sequence[Order], trouble: Trouble) -> None:
    """Tell the owners of some orders why they are not sent."""
    for order in orders:
        order.done(trouble)
