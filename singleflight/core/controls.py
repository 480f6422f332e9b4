"""The control surface's work: looking at one function's entries and flights, dropping, putting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from ..common.keys import InstanceKey, plain
from ..common.messages import shown
from ..locks.mutex import inside, mutex
from ..locks.slots import Slot, numbers
from ..locks.unsettled import After, settle
from ..locks.waiters import Actor, get_ident
from ..storage.record import Record
from ..storage.ttl import Landing, checked_tags
from .cache import Cache
from .current import Unchanged
from .flight import FLYING, Flight
from .landing import fits, new_record
from .options import switched_off
from .shareable import check_shareable
from .transitions import detach

if TYPE_CHECKING:
    from ..storage.entry import Entry
    from ..telemetry.views import Explanation, FlightInfo, Stats

__all__ = [
    "bypass",
    "clear",
    "counted",
    "cut",
    "detach_flight",
    "drop",
    "drop_here",
    "entry",
    "explain",
    "flights",
    "invalidate",
    "invalidate_here",
    "invalidate_tag",
    "invalidate_where",
    "put",
    "stats",
]


def invalidate(cache: Cache, key: Hashable) -> bool:
    """Detach the key's flight, then drop its value. Return True if there was either."""
    if cache.tier is None:
        return invalidate_here(cache, key)
    tell = cache.tier.drop(key)
    try:
        return invalidate_here(cache, key)
    finally:
        tell()


def invalidate_here(cache: Cache, key: Hashable) -> bool:
    """Do the same in this process alone."""
    settle()
    detached = _detach(cache, key)
    record = cache.store.drop(key)
    with mutex:
        idle = cache.locks.forget(key)  # nothing of ours is to keep the key alive; let go of after the mutex
    del idle
    dropped = detached or (record is not None and record.serves_for(cache.timer()) > 0)
    if dropped and cache.tell.wants("invalidate"):
        cache.tell.tell("invalidate", key)
    return dropped


def invalidate_where(cache: Cache, predicate: Callable[[Any], object]) -> int:
    """Invalidate every key that the predicate picks; how many there were. It runs under no lock."""
    if not callable(predicate):
        raise TypeError(f"predicate: expected a callable of the key, got {shown(predicate)}")
    if cache.tier is None:
        return _invalidate_where(cache, predicate)
    tell = cache.tier.drop_all()  # which keys others have is not known here
    try:
        return _invalidate_where(cache, predicate)
    finally:
        tell()


def _invalidate_where(cache: Cache, predicate: Callable[[Any], object]) -> int:
    with mutex:
        slots = cache.locks.live()
        for batch in cache.batches:
            batch.sealed = True  # what it brings unasked is not known yet, so none of that is stored
    records = cache.store.records()  # second: a flight is stored before it leaves its slot
    keys, spoilt = _keys_of(cache, slots, records)
    dropped = sum(invalidate_here(cache, key) for key in keys if predicate(plain(key)))
    return dropped + _drop_spoilt(cache, [of for of in spoilt if predicate(plain(of.key))])


def invalidate_tag(cache: Cache, tags: tuple[str, ...]) -> int:
    """Drop what has one of these tags, and keep what is on its way with one from being stored; how many."""
    static = cache.options.tags
    if not callable(static):
        return drop(cache) if any(tag in static for tag in tags) else 0
    if cache.tier is None:
        return cut(cache, tags)
    tell = cache.tier.cut(tags)
    try:
        return cut(cache, tags)
    finally:
        tell()


def cut(cache: Cache, tags: tuple[str, ...]) -> int:
    """Do the same in this process alone, for a function whose values have tags of their own."""
    settle()
    number = next(numbers)
    if cache.store.has_many_cuts():
        cache.store.forget_cuts(_oldest_in_flight(cache, number))
    now = cache.timer()
    dropped = [record for record in cache.store.cut(tags, number) if record.serves_for(now) > 0]
    if cache.tell.wants("invalidate"):
        for record in dropped:
            cache.tell.tell("invalidate", record.key)
    return len(dropped)


def _oldest_in_flight(cache: Cache, number: int) -> int:
    """The number of the oldest flight that may still be stored, or this one, if there is none."""
    with mutex:
        turns = [slot.turn for slot in cache.locks.live()]
        flights: list[Any] = [turn for turn in turns if _flying(turn)]
        for batch in cache.batches:
            flights += batch.flights
    return min((flight.number for flight in flights), default=number)


def drop(cache: Cache, owner: InstanceKey | None = None) -> int:
    """Drop the entries and detach the flights of one instance, or of all; how many entries there were."""
    if cache.tier is None:
        return drop_here(cache, owner)
    tell = cache.tier.drop_all()
    try:
        return drop_here(cache, owner)
    finally:
        tell()


def drop_here(cache: Cache, owner: InstanceKey | None = None) -> int:
    """Do the same in this process alone."""
    settle()
    with mutex:
        slots = cache.locks.live()
        for batch in cache.batches:
            batch.sealed = True  # as in `invalidate_where`
    detached = [of.key for of in slots if _is_of(of.key, owner) and _detach_slot(cache, of)]
    # Second: none of these flights can store anything any more.
    records = cache.store.records() if owner is None else cache.store.records_of(owner)
    now = cache.timer()
    dropped = [of.key for of in cache.store.discard(records) if of.serves_for(now) > 0]
    with mutex:
        idle = [cache.locks.forget(key) for key in dropped]  # let go of after the mutex
    del idle
    if cache.tell.wants("invalidate"):
        for key in _once([*detached, *dropped]):
            cache.tell.tell("invalidate", key)
    return len(dropped)


def _once(keys: list[Hashable]) -> list[Hashable]:
    """Return keys without those that are there twice; a spoilt one may be equal to none, and stays."""
    told: dict[Hashable, None] = {}
    spoilt = []
    for key in keys:
        try:
            told[key] = None
        except Exception:  # the key's own
            spoilt.append(key)
    return [*told, *spoilt]


def _is_of(key: Any, owner: InstanceKey | None) -> bool:
    return owner is None or (type(key) is tuple and len(key) > 0 and key[0] is owner)


def _keys_of(
    cache: Cache, slots: list[Slot], records: list[Record]
) -> tuple[dict[Hashable, None], list[Slot | Record]]:
    """Every key once; and what is not found by its own key any more, which has changed, or raises."""
    keys: dict[Hashable, None] = {}
    taken: dict[tuple[type, Hashable], Slot | Record] = {}  # two that have become equal are not one
    spoilt: list[Slot | Record] = []
    found: list[Slot | Record] = [*slots, *records]
    for of in found:
        try:
            sound = cache.locks.slot(of.key) is of if isinstance(of, Slot) else cache.store.find(of.key) is of
            sound = sound and taken.setdefault((type(of), of.key), of) is of
            if sound:
                keys[of.key] = None
        except Exception:  # the key's own
            sound = False
        if not sound:
            spoilt.append(of)
    return keys, [of for of in spoilt if isinstance(of, Slot) or of.place is not None]


def _drop_spoilt(cache: Cache, picked: list[Slot | Record]) -> int:
    """Detach the flights in these slots and drop these entries, whatever their keys are now; how many."""
    detached = [slot.key for slot in picked if isinstance(slot, Slot) and _detach_slot(cache, slot)]
    records = [of for of in picked if isinstance(of, Record)]
    stored = cache.store.discard(records)
    now = cache.timer()
    dropped = detached + [record.key for record in stored if record.serves_for(now) > 0]
    if cache.tell.wants("invalidate"):
        for key in dropped:
            cache.tell.tell("invalidate", key)
    return len(dropped)


def put(cache: Cache, key: Hashable, value: Any) -> None:
    """Store a value from outside, in place of whatever is there or on its way."""
    if value is Unchanged:
        raise TypeError("put: expected a value; Unchanged is what a function returns")
    check_shareable(cache.name, value, "put was given")
    if cache.copy is not None:
        value = cache.copy(value)  # what its caller changes later is not what is stored
    now = cache.timer()
    old = cache.store.index.get(key)
    before = old.snapshot(now) if old is not None and old.error is None else None
    landing = Landing(plain(key), value, previous=before)
    ttl = cache.options.ttl_of(landing)
    if ttl == 0:
        invalidate(cache, key)
        return
    tags = () if cache.tags_of is None else checked_tags(cache.tags_of(landing))
    grace = cache.options.grace_of(landing) if cache.varies_grace else None
    record = new_record(cache, key, value, now, ttl, 0.0, tags, grace)
    if not fits(cache, record):
        invalidate(cache, key)
        return
    tell = None
    if cache.tier is not None:
        record, tell = cache.tier.put(key, record)  # raises what cannot be shared: then nothing has changed
    try:
        _detach(cache, key)
        if cache.tell.wants("hit"):
            record.deadline = -inf
        try:
            gone = cache.store.put(record)
        except Exception:  # of a policy: what it took the place of goes all the same
            cache.store.forget(key)
            if cache.tier is not None:
                tell = cache.tier.drop(key)
            raise
        # A flight that began in between is refused by the store; nobody is to join it now.
        _detach(cache, key)
        if cache.tell.wants("put"):
            cache.tell.tell("put", key, value=value)
        cache.tell.gone(gone or [], now)
    finally:
        if tell is not None:
            tell()


def clear(cache: Cache) -> None:
    """Drop all entries, detach all flights, forget idle locks and zero the counts."""
    if cache.tier is None:
        _clear(cache)
        return
    tell = cache.tier.drop_all()
    try:
        _clear(cache)
        cache.tier.reset()
    finally:
        tell()


def _clear(cache: Cache) -> None:
    settle()
    keeper, resets = cache.keeper, cache.counts.resets
    before = None if keeper is None else keeper.counted()
    with mutex:
        slots = cache.locks.live()
        for batch in cache.batches:
            batch.sealed = True
    for slot in slots:
        _detach_slot(cache, slot)
    records = cache.store.clear()  # held until here: destroyed under no lock
    del records
    cache.locks.evict_idle()
    with mutex:
        if keeper is not None and cache.counts.resets == resets:  # once, whoever else clears at this moment
            keeper.keep(before)
        cache.counts.reset()


def entry(cache: Cache, key: Hashable) -> Entry[Any] | None:
    """The entry that would be served now, without calling or counting anything."""
    record = cache.store.index.get(key)
    now = cache.timer()
    served = record is not None and record.error is None and record.serves_for(now) > 0
    if record is None or not served:
        return None
    found = record.snapshot(now)
    return found if cache.copy is None else replace(found, value=cache.copy(found.value))


def flights(cache: Cache) -> tuple[FlightInfo, ...]:
    """The flights in progress, detached ones included, oldest first."""
    settle()
    now = cache.timer()
    with mutex:
        flying = [turn for slot in cache.locks.live() if _flying(turn := slot.turn)] + list(cache.adrift)
    # Outside the mutex: naming their leaders asks the threading module, which has a lock of its own.
    told = sorted((turn for turn in flying if isinstance(turn, Flight)), key=lambda flight: flight.started)
    return tuple(info(flight, cache, now) for flight in told)


def explain(cache: Cache, key: Hashable) -> Explanation:
    """What a call with this key would do now."""
    from ..telemetry.views import Explanation  # here and below: see there

    settle()
    now = cache.timer()
    record = cache.store.index.get(key)
    shows = plain(key)
    with mutex:
        slot = cache.locks.slot(key)
        turn = slot.turn if slot is not None else None
        flying = _flying(turn)
        waits = turn is not None and turn.leader is not None  # as `coordinator.board` decides
        if isinstance(turn, Flight):
            waits = flying and not turn.unbegun and not turn.is_due()
    flight = info(turn, cache, now) if flying and isinstance(turn, Flight) else None
    direct = bool(cache.bypassed) or switched_off()
    if record is not None and record.serves_for(now) > 0 and not direct:
        fresh_for = max(0.0, record.fresh_for(now))
        entry = None if record.error is not None else record.snapshot(now)
        would = "hit" if fresh_for else "stale_hit"
        return Explanation(shows, would, entry, flight, fresh_for, min(record.grace, record.serves_for(now)))
    would = "wait" if waits and not direct else "fetch"
    return Explanation(shows, would, None, flight, 0.0, 0.0)


def stats(cache: Cache) -> Stats:
    """What was seen and done so far."""
    settle()
    now = cache.timer()
    cache.tell.gone(cache.store.expire(now), now)
    return counted(cache)


def counted(cache: Cache) -> Stats:
    """The same without a look at the clock: expired entries may be among the others."""
    from ..telemetry.views import Stats

    counts, locks = cache.counts, cache.locks
    hits = counts.all_hits(cache.store)
    with mutex:
        in_flight = sum(_flying(slot.turn) for slot in locks.live()) + len(cache.adrift)
        told = Stats(
            hits=hits,
            stale_hits=counts.stale_hits,
            waits=counts.waits,
            fetches=counts.fetches,
            errors=counts.errors,
            timeouts=counts.timeouts,
            calls=counts.calls,
            failures=counts.failures,
            uncached=counts.uncached,
            evictions=cache.store.evictions,
            expirations=cache.store.expirations,
            refreshes=counts.refreshes,
            in_flight=in_flight,
            entries=len(cache.store.index),
            weight=cache.store.weight(),
            locks=len(locks),
            idle_locks=locks.idle,
            **({} if cache.tier is None else cache.tier.counted()),
        )
    return told  # noqa: RET504  # not within: an interrupt before the return may leave the mutex held


class bypass:  # noqa: N801  # used as a function
    """Until the block ends, every call of the function, by whomever, runs it directly."""

    __slots__ = ("_blocks", "_cache")

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._blocks: list[tuple[int, object]] = []  # several, where it is entered again within, or by others

    def __enter__(self) -> None:
        block = get_ident(), object()
        try:
            with self._cache.switching:
                self._blocks.append(block)
                self._cache.bypassed.append(block)
                self._cache.shut()
        except BaseException:  # an interrupt: the block is not entered
            self._end(block)
            raise

    def __exit__(self, *_: object) -> None:
        block = self._latest()
        try:
            self._end(block)
        except BaseException:  # an interrupt: once more, for what it left
            self._end(block)
            raise

    def _latest(self) -> tuple[int, object]:
        """The last block that this thread has entered; if it has none, as where a task moved, of all."""
        me = get_ident()
        mine = [block for block in self._blocks if block[0] == me]
        return (mine or self._blocks)[-1]

    def _end(self, block: tuple[int, object]) -> None:
        cache = self._cache
        with cache.switching:
            for blocks in (self._blocks, cache.bypassed):
                if block in blocks:
                    blocks.remove(block)
            if not cache.bypassed:
                cache.reopen()


def _flying(turn: object) -> bool:
    return isinstance(turn, Flight) and turn.state is FLYING


def _detach(cache: Cache, key: Hashable) -> bool:
    """Detach the flight in progress for a key; return True if there was one."""
    if cache.batches:
        cache.spoil(key)
    return _detach_slot(cache, None, key)


def detach_flight(cache: Cache, flight: Flight) -> None:
    """Detach a flight, if it is in progress: another process has dropped its key."""
    _detach_slot(cache, flight.slot, flight=flight)


def _detach_slot(cache: Cache, slot: Slot | None, key: Hashable = None, flight: Flight | None = None) -> bool:
    """The same for the flight in this slot, or else in that of the key; if given, for no other flight."""
    after = After()
    reentered = inside()  # by a finaliser or signal handler in the midst of a section
    try:
        with mutex:
            if slot is None:
                slot = cache.locks.slot(key)
            turn: Any = None if slot is None else slot.turn
            flying = _flying(turn) and (flight is None or turn is flight)
            if flying:
                detach(cache, turn, after, keep=reentered)
    finally:
        after.run()
    return flying


def info(flight: Flight, cache: Cache, now: float) -> FlightInfo:
    """What users see of a flight that has a leader."""
    from ..telemetry.views import FlightInfo

    elapsed = max(0.0, now - flight.started)
    leader = (cache.tier is not None and cache.tier.leader_of(flight)) or name_of(flight.leader)
    queued = cache.line is not None and cache.line.is_queued(flight)
    followers, kind = flight.followers, flight.kind
    key = plain(flight.key)
    return FlightInfo(cache.name, key, leader, elapsed, followers, kind, flight.detached, queued)


def name_of(actor: Actor | None) -> str:
    """A name for people."""
    if isinstance(actor, int):
        for thread in threading.enumerate():
            if thread.ident == actor:
                return f"thread {thread.name!r}"
        return f"thread {actor}"
    name = getattr(actor, "get_name", None)
    return f"task {name()!r}" if name is not None else str(actor)
