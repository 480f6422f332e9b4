"""What one decorated function has: its entries, locks, counts and flights; and whether it is switched off."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Hashable
from copy import deepcopy
from functools import partial
from typing import Any, Protocol

from ..common.keys import check_room
from ..common.logs import log
from ..common.messages import shown
from ..locks.keyed import KeyedLocks
from ..locks.line import Line
from ..locks.mutex import mutex, new_lock
from ..locks.waiters import get_ident
from ..storage.policy import wants_hits
from ..storage.record import AgeingRecord, Record
from ..storage.store import Store
from ..storage.ttl import Landing
from ..telemetry.counters import Counts
from ..telemetry.emitter import Emitter
from .flight import Flight
from .options import Options, switched_off
from .shareable import is_not_none
from .tier import Tier

__all__ = ["Cache"]


class Batch(Protocol):
    """A bulk load in progress, which may bring values for keys that nobody asked for."""

    spoiled: set[Hashable]
    """Keys that were dropped, put or landed since it began: its values are no news for them."""

    sealed: bool
    """The same for every key."""

    flights: list[Flight]
    """Those that it loads, which are as old as it is."""


class Keeper(Protocol):
    """Keeps what a function has counted for somebody who adds it up: see `process.totals`."""

    def counted(self) -> Any:
        """Return the counts; under no lock."""
        ...

    def keep(self, counted: Any) -> None:
        """These counts are about to be zeroed. Called under the mutex."""
        ...


class Cache:
    """All that is known of one decorated function. What happens to it is decided in `coordinator`.

    Args:
        name: the function's, for messages and events.
        options: as they were passed.
        counts: where its calls are counted.
        rule: what makes two calls the same call, for whoever makes the keys.
        unseat, watch: what is asked of its flights while somebody waits (see `coordinator`).
    """

    keeper: Keeper | None = None  # what keeps its counts when they are lost, if anybody wants that
    gathering: Any = None  # what gathers single calls for a loader: see `gathering`, which sets it
    is_plain: bool
    lands_at_once: bool

    def __init__(
        self,
        name: str,
        options: Options,
        counts: Counts,
        rule: Any,
        *,
        unseat: Callable[[Cache, Flight], bool],
        watch: Callable[[Cache, Flight], float | None],
    ) -> None:
        self._unseat, self._watch = unseat, watch
        self.name = name
        self.rule = rule
        self.options = options
        self.counts = counts
        self.timer: Callable[[], float] = options.timer
        self.has_usual_clock: bool = options.timer is time.monotonic  # which idle locks go by, too
        copy = options.copy  # what each caller gets is a copy, or (None) the value
        self.copy: Callable[[Any], Any] | None = copy if callable(copy) else deepcopy if copy else None
        self.soft_timeout: float = options.soft_timeout
        waits_for_ever = options.wait_timeout is None and options.flight_timeout is None
        self.is_patient: bool = waits_for_ever and not options.soft_timeout
        self.tags_of: Callable[[Landing], object] | None = options.tags if callable(options.tags) else None
        ages_alike = options.ageing.is_plain and not callable(options.failure_ttl)
        self.stores_failures: bool = callable(options.failure_ttl) or options.failure_ttl != 0
        self.tier: Tier | None = None  # set before the first call, where there is a `store`
        self.weigh: Callable[[Any], float] | None = options.weigh
        self.is_plain = ages_alike and self.tags_of is None and self.weigh is None and options.store is None
        self.fixed_ttl: float = options.fixed_ttl or 0.0
        # Whether the usual miss may go the short ways (`lead_at_once`, `join_at_once`, `land_at_once`): what
        # has more to be done when a flight begins, or when a value has come, switches that off here.
        self.leads_at_once = True
        self.lands_at_once = (
            self.is_plain
            and self.fixed_ttl > 0.0
            and options.cache_if is is_not_none
            and options.listener is None
        )
        ages_alike = ages_alike and options.store is None  # what others stored has lived for a while
        self.store: Store = Store(
            options.maxsize,
            options.fixed_ttl if ages_alike else None,
            options.policy,
            weighed=self.weigh is not None,
        )
        self.tells_hits: bool = wants_hits(options.policy)
        self._blamed = False  # that its policy failed; told once
        self.varies_grace: bool = callable(options.grace)
        self.renews: bool = bool(options.grace) or options.refresh_ahead is not None
        self.store.moved = partial(_follow, weakref.ref(self))  # the store does not lead back to here
        self.locks: KeyedLocks = KeyedLocks(options.max_idle_locks)
        self.line: Line | None = None if options.max_flights is None else Line(options.max_flights)
        # Whether a leader runs the function at once, by itself, and no observer enters that.
        self.is_direct: bool = True
        self.tell: Emitter = Emitter(name, options.listener)
        self.choose_way()
        # The open `bypass()` blocks: thread and token; under `switching`.
        self.bypassed: list[tuple[int, object]] = []
        self.switching: Any = new_lock()  # re-entrant: a signal handler may open a block within one
        self.fast_paths: list[Any] = []  # the namespaces in which compiled calls find `lookup`
        self.adrift: set[Flight] = set()  # detached and still flying; guarded by the mutex
        self.batches: set[Batch] = set()  # bulk loads in progress; guarded by the mutex
        self.warned = False  # that it blocks an event loop; once

    def choose_way(self) -> None:
        """Have leaders run the function at once, unless there is more to be done: see `is_direct`."""
        plain = self.line is None and self.tier is None and self.gathering is None
        self.is_direct = plain and not self.tell.around

    def spoil(self, key: Hashable) -> None:
        """What a bulk load in progress may bring for this key, unasked, is not to be stored any more."""
        with mutex:
            for batch in self.batches:
                try:
                    batch.spoiled.add(key)
                except Exception:  # the key's own: nothing that it brings unasked is to be stored
                    batch.sealed = True

    def used(self, record: Record) -> None:
        """Tell the policy, if it wants to know, that a record has served. What it raises is logged once."""
        try:
            gone = self.store.used(record)
        except Exception as error:
            check_room(error)
            if not self._blamed:
                self._blamed = True
                policy = shown(self.options.policy)
                log.warning("%s: its policy %s failed; told once", self.name, policy, exc_info=error)
        else:
            if gone:
                self.tell.gone(gone, self.time_or(record.landed))

    def told(self, record: Record) -> Any:
        """Return the value of a record that has served, after its policy was told."""
        value = record.value
        self.used(record)
        return value if self.copy is None else self.copy(value)

    def unseat(self, flight: Flight, /) -> bool:
        """Take the key from a flight that is due; see `coordinator.unseat`."""
        return self._unseat(self, flight)

    def watch(self, flight: Flight, /) -> float | None:
        """Look on behalf of all tasks of a loop that wait for a flight; see `coordinator.watch`."""
        return self._watch(self, flight)

    def time_or(self, otherwise: float) -> float:
        """Return the time by the function's own clock; where that raises, another one: the call goes on."""
        try:
            return self.timer()
        except Exception:
            return otherwise

    @property
    def lookup(self) -> Callable[..., Any]:
        """What finds the record of a key; the store may replace it."""
        return self.store.lookup

    def shut(self) -> None:
        """Send every call the longer way."""
        for namespace in self.fast_paths:
            namespace["_sf_lookup"] = {}.get

    def reopen(self) -> None:
        """Let hits take the fast path again, unless everything is switched off or somebody watches hits."""
        if switched_off() or self.tell.watches_hits:
            return
        for namespace in self.fast_paths:
            namespace["_sf_lookup"] = self.store.lookup

    def observe(self, listener: Callable[[Any], object], hits: bool) -> None:
        """Have a listener told of events from now on; with `hits` every call goes the longer way."""
        with self.switching:
            self.tell.add(listener, hits)
            self.choose_way()
            if hits:
                self.shut()

    def unobserve(self, listener: Callable[[Any], object]) -> None:
        """A listener that `observe` added is not told any more."""
        with self.switching:
            self.tell.remove(listener)
            self.choose_way()
            if not self.bypassed:
                self.reopen()

    def follow(self) -> None:
        """The store has another index: compiled calls are to look there, unless they look nowhere."""
        with self.switching:
            if not self.bypassed:
                self.reopen()

    def after_fork(self) -> None:
        """In a forked child: the inherited values, no flights, counts from zero."""
        for flight in self.adrift:
            flight.orphan()
        self.adrift.clear()
        for batch in self.batches:
            batch.sealed = True
        self.batches.clear()
        if self.gathering is not None:
            self.gathering.after_fork()
        self.counts.after_fork()
        self.store.after_fork()
        if self.tier is not None:
            self.tier.after_fork()
        if self.renews:
            for record in self.store.records():  # what was being renewed is not, here
                if isinstance(record, AgeingRecord):
                    record.renew_at(min(record.refresh_at, record.landed + record.ttl))
        self.switching = new_lock()
        me = get_ident()  # blocks of threads that do not exist here are over
        self.bypassed = [block for block in self.bypassed if block[0] == me]
        if not self.bypassed:
            self.reopen()


def _follow(owner: weakref.ref[Cache]) -> None:
    cache = owner()
    if cache is not None:
        cache.follow()
