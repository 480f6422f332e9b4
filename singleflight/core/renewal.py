"""How a stored value is served the longer way: stale, while it is renewed, or with somebody listening."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

from ..locks.mutex import inside_other, mutex
from ..locks.waiters import get_ident
from ..storage.record import AgeingRecord, Record
from .cache import Cache
from .call import HIT, NONE, Call, background
from .flight import Flight, Work
from .landing import call_off
from .transitions import claim, new_flight, occupy

__all__ = ["begin_renewal", "entrust_renewal", "see_to_renewal", "serve", "served"]


def begin_renewal(cache: Cache, renewal: Call, thread: int) -> bool:
    """A renewal is run from now on by this thread; False if it is not to be run any more.

    Somebody who needed its outcome runs it, or it lost its key while it waited for a thread.
    """
    now = cache.timer()
    with mutex:
        flight = renewal.flight
        wanted = flight.unbegun and not flight.detached
        if wanted:
            _set_out(cache, renewal, thread, thread, now)
    if not wanted:
        call_off(cache, flight)
    return wanted


def entrust_renewal(cache: Cache, renewal: Call, work: Work, task: Hashable) -> None:
    """A renewal is run from now on by this task of the loop that runs on this thread."""
    with mutex:
        renewal.flight.work = work
        now = renewal.flight.started
        _set_out(cache, renewal, task, get_ident(), now)


def _set_out(cache: Cache, renewal: Call, actor: Hashable, thread: int, now: float) -> None:
    flight = renewal.flight
    renewal.actor, renewal.thread = actor, thread
    claim(flight, renewal, now, flight.previous, cache.options.flight_timeout)


def serve(cache: Cache, call: Call, record: Record, now: float) -> None:
    """Serve a record, and have it renewed if it is time; call under the mutex."""
    call.record = record
    call.served = "hit"
    call.decision = HIT
    if record.error is not None:
        cache.counts.errors += 1
    elif record.fresh_for(now) <= 0:
        cache.counts.stale_hits += 1
        call.served = "stale_hit"
        record.passed = -1  # it was used, though that is no hit
    see_to_renewal(cache, call, record, now)


def see_to_renewal(cache: Cache, call: Call, record: Record, now: float) -> None:
    """Have a record renewed if it is time; call under the mutex."""
    call.overdue = None
    if not isinstance(record, AgeingRecord):
        return
    due = record.refresh_at <= now
    renewed = record.refresh_at == inf and not record.fresh_for(now) > 0  # by somebody, already
    if due:
        if not inside_other():
            _claim_renewal(cache, call, record, now)
    elif renewed:
        slot = cache.locks.slot(call.key)
        turn = None if slot is None else slot.turn
        if isinstance(turn, Flight) and turn.is_due() and not inside_other():
            call.overdue = turn  # what renews it takes too long: see `coordinator.board`


def _claim_renewal(cache: Cache, call: Call, record: AgeingRecord, now: float) -> None:
    # By the caller's key, which has just been looked up: that of the record may be spoilt.
    slot = cache.locks.enter(call.key)
    if slot.turn is not None:
        return
    renewal = background(call.key)
    renewal.wants_events = call.wants_events
    flight = renewal.flight = new_flight(cache, slot, cache.options.follower_retries)
    claim(flight, renewal, now, record, cache.options.flight_timeout)
    renewal.decision = NONE  # until it begins
    flight.renews = True
    flight.unbegun = call.loop is None  # a task's begins for certain, as soon as its loop goes on
    call.renewal = renewal  # from here on `done` sees to it if nobody begins it
    occupy(flight)
    record.renew_at(inf)


def served(cache: Cache, call: Call, now: float) -> None:
    """After the mutex: count and tell."""
    record = call.record
    if record.error is not None:
        if call.wants_events:
            cache.tell.stored_failure(record, now)
        return
    fresh = record.fresh_for(now) > 0
    if fresh:
        cache.counts.served(record)
    if cache.tells_hits:
        cache.used(record)
    if not fresh:
        cache.tell.stale_hit(record, now)
    elif not cache.tell.hit(record, now) and record.deadline == -inf:
        record.reopen()  # nobody listens any more
