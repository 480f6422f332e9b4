"""How a flight ends: publish its value, then free its key (`transitions.finish`), then tell."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Any, NamedTuple

from ..common.keys import plain
from ..common.logs import log
from ..common.messages import shown
from ..locks.mutex import mutex
from ..locks.table import is_sound
from ..locks.unsettled import After
from ..storage.policy import weight_from
from ..storage.record import AgeingRecord, Record, TaggedRecord, WeighedRecord, record_of
from ..storage.ttl import Landing, checked_tags
from .cache import Cache
from .call import Nobody
from .flight import Flight
from .outcome import bare_copy_of
from .shareable import is_not_none
from .transitions import finish, is_unshared

__all__ = [
    "Arrival",
    "Ending",
    "Verdict",
    "appraise",
    "call_off",
    "fail",
    "fits",
    "judge",
    "land",
    "new_record",
    "postpone",
    "renew_later",
    "say_unstored",
    "settle_flight",
]

# A flight that is about to end together with others: the flight, its value and error, when, whether the value
# is storable, its ttl if it was stored, the records that went for it, and what kept it from being stored.
Ending = tuple[
    Flight, object, BaseException | None, float, bool | None, float | None, list[Record], Exception | None
]


# What is to become of a value that has come: whether it is storable, its ttl, when it came, and the record
# that is to be stored, if any.
Arrival = tuple[bool | None, float, float, Record | None]


def appraise(cache: Cache, flight: Flight, value: object, detached: bool | None = None) -> Arrival:
    """The function returned: ask `cache_if`, `ttl`, `tags` and `weigh` what is to become of the value.

    There is no record of a flight that is detached, unless a tier says that for others it is not.

    Passes on what they raise: the flight has not ended then, and is to `fail` with it.
    """
    options = cache.options
    cache_if = options.cache_if
    storable = value is not None if cache_if is is_not_none else bool(cache_if(value))
    ttl = options.fixed_ttl
    if ttl is None:
        ttl = cache.options.ttl_of(_landing(cache, flight, value)) if storable else 0.0
    timer = cache.timer
    now = timer()
    record: Record | None = None
    if storable and ttl > 0.0 and not (flight.detached if detached is None else detached):
        if cache.is_plain:
            record = record_of(flight.key, value, now, ttl)
        else:
            tags_of = cache.tags_of
            tags = () if tags_of is None else checked_tags(tags_of(_landing(cache, flight, value)))
            grace = options.grace_of(_landing(cache, flight, value)) if cache.varies_grace else None
            record = new_record(cache, flight.key, value, now, ttl, now - flight.started, tags, grace)
    return storable, ttl, now, record


def land(
    cache: Cache,
    flight: Flight,
    value: object,
    later: list[Ending] | None = None,
    arrival: Arrival | None = None,
) -> None:
    """A value has come: publish it, then free the key, then tell.

    It is appraised, unless its `arrival` is known; what that raises is passed on (see `appraise`). With
    `later` it only publishes, and adds there what is left to be done.
    """
    storable, ttl, now, record = arrival or appraise(cache, flight, value)
    gone: list[Record] | None = None
    unstored: Exception | None = None
    if record is not None:
        key: Any = flight.key
        if flight.wants_events and cache.tell.wants("hit"):
            record.deadline = -inf
        try:
            # A key that has changed must not be filed as what it is now: the value is its callers' alone.
            slot, by_key = flight.slot, cache.locks.by_key
            # In line: `is_sound`.
            sound = by_key[(*key,)] is slot if type(key) is tuple else hash(key) == slot.hash
            if sound and (cache.weigh is None or fits(cache, record)):
                gone = cache.store.put(record, flight)
        except Exception as error:  # the key's own, as when it is hashed
            unstored = error.with_traceback(None)
        if gone is not None:
            flight.stored = record
        elif record.tags and cache.store.is_cut(record.tags, flight.number):
            storable = None  # a value, but an old one: who came for it after that is to fly again
    stored = gone is not None
    if stored and cache.batches:
        cache.spoil(flight.key)
    if flight.renews and not stored and not flight.detached:
        renew_later(cache, flight, now, None)
    if later is not None:
        later.append((flight, value, None, now, storable, ttl if stored else None, gone or [], unstored))
        return
    after = After()
    try:
        with mutex:
            ended = finish(cache, flight, value, None, now, storable, stored, after)
    finally:
        if after:
            after.run()
    if unstored is not None:
        say_unstored(cache, flight, unstored)
    if flight.wants_events:
        if ended is not None:
            cache.tell.landed(flight, ended, value, now, ttl if stored else None)
        cache.tell.gone(gone or [], now)


class Verdict(NamedTuple):
    """What an execution that failed ends with, and for how many seconds that is stored.

    `fault` is what a callable `failure_ttl` raised, if that is to be logged; by `marks`, its tags, it goes.
    """

    error: BaseException
    ttl: float
    fault: Exception | None = None
    marks: tuple[str, ...] = ()


def judge(cache: Cache, error: BaseException, flight: Flight | None = None) -> Verdict:
    """Ask `failure_ttl`, once for each execution that failed; not for a flight that has ended already.

    A fault of a callable must not hide the error of the function: that is not stored then. An abort of it (an
    interrupt) takes the place of the error.
    """
    if is_unshared(error) or (flight is not None and flight.has_ended()):
        return Verdict(error, 0.0)
    assert isinstance(error, Exception)
    try:
        return Verdict(error, cache.options.failure_ttl_of(error))
    except Exception as fault:
        return Verdict(error, 0.0, fault)
    except BaseException as struck:
        return Verdict(struck, 0.0)


def fail(
    cache: Cache,
    flight: Flight,
    error: BaseException,
    later: list[Ending] | None = None,
    overdue: bool = False,
    verdict: Verdict | None = None,
) -> BaseException:
    """The function raised: an Exception is shared or tried again, anything else is an abort.

    Does nothing to a flight that has ended, so that a landing cut short by an interrupt can be mended.
    With `later` it ends nothing, but adds there what is left to be done. An error that says that the flight
    is `overdue` receives its message once that has ended: this runs the key's `__repr__`.

    Returns what the flight ended with: the error, or an abort of `failure_ttl`; without `later` that is
    raised.
    """
    now = cache.time_or(flight.started)
    raised, ttl, unstored = error, 0.0, None
    marks: tuple[str, ...] = ()
    try:
        if cache.stores_failures:
            error, ttl, unstored, marks = verdict or judge(cache, error, flight)
        if flight.renews and not flight.detached:
            renew_later(cache, flight, now, error, ttl)
        if ttl and not flight.background:
            assert isinstance(error, Exception)
            unstored = _store_failure(cache, flight, error, now, ttl, marks)
        if later is not None:
            later.append((flight, None, error, now, False, None, [], unstored))
            return error
        ended = _finish(cache, flight, error, now)
        if overdue:
            limit = cache.options.flight_timeout
            error.args = (f"{cache.name}: {shown(flight.key)} took longer than {limit:g} s: cancelled",)
        if unstored is not None:
            say_unstored(cache, flight, unstored)
        if ended is not None:
            cache.tell.failed(flight, ended, error, now)
        if error is not raised:
            raise error
        return error
    finally:
        del error, raised, unstored, verdict  # or this frame and an exception would keep each other


def new_record(
    cache: Cache,
    key: Hashable,
    value: object,
    now: float,
    ttl: float,
    duration: float,
    tags: tuple[str, ...] = (),
    grace: float | None = None,
) -> Record:
    """A value that has just landed, with the times that it ages by; `grace` where it is its own."""
    ageing = cache.options.ageing
    if cache.is_plain:
        return record_of(key, value, now, ttl)
    ttl = ageing.shortened(ttl)
    refresh_at = ageing.refresh_at(now, ttl, duration)
    if grace is None:
        grace = ageing.grace
    if grace:
        refresh_at = min(refresh_at, now + ttl)  # the first who finds it stale has it renewed
    if cache.weigh is not None:
        record: TaggedRecord = WeighedRecord(key, value, now, ttl, grace, refresh_at)
        record.weight = weight_from(cache.weigh(value))
    elif tags:
        record = TaggedRecord(key, value, now, ttl, grace, refresh_at)
    else:
        return AgeingRecord(key, value, now, ttl, grace, refresh_at)
    record.tags = tags
    return record


def fits(cache: Cache, record: Record) -> bool:
    """Return True if a record is not too heavy to be stored at all."""
    maxsize = cache.options.maxsize
    return maxsize is None or bool(record.weight <= maxsize)


def _store_failure(
    cache: Cache, flight: Flight, error: Exception, now: float, ttl: float, marks: tuple[str, ...] = ()
) -> Exception | None:
    """Keep an exception for a while, where there is no value and nobody is to try again at once.

    Returns what kept it from being stored, if its key raised.
    """
    with mutex:
        refused = flight.has_ended() or (flight.followers and flight.retries != 0)
    before = cache.store.find(flight.key)
    served = before is not None and before.error is None and before.serves_for(now) > 0
    if refused or served:
        return None
    kept = bare_copy_of(error)  # no frame is to live as long as it does
    try:
        if not is_sound(flight.slot, cache.locks.by_key):  # see `land`
            return None
        record = TaggedRecord(flight.key, None, now, ttl, error=kept)
        record.tags = marks
        gone = cache.store.put(record, flight)
    except Exception as raised:  # the key's own
        return raised.with_traceback(None)
    cache.tell.gone(gone or [], now)
    return None


def say_unstored(cache: Cache, flight: Flight, error: Exception) -> None:
    """Log that a key or `failure_ttl`, which raised this, kept an outcome from being stored.

    Call after the flight's end.
    """
    text = "%s: what %s brought could not be stored: %s"
    where = error if error.__traceback__ is not None else None  # in a callable of the user's
    log.warning(text, cache.name, shown(flight.key), shown(error), exc_info=where)


def renew_later(
    cache: Cache, flight: Flight, now: float, error: BaseException | None, pause: float = 0.0
) -> None:
    """A renewal brought nothing: the value stays, and is tried again after a pause."""
    record = flight.previous
    if not isinstance(record, AgeingRecord) or flight.has_ended():
        return
    failed = error is None or isinstance(error, Exception)  # or else it may be tried again at once
    with mutex:
        first = failed and not record.failed and record.serves_for(now) > 0
        if failed:
            record.failed = True
        record.renew_at(now + (pause or cache.options.ageing.retry_after) if failed else now)
    if first:
        why = "it returned what is not stored" if error is None else shown(error)
        key = shown(flight.key)
        log.warning("%s: %s could not be renewed, its value is kept: %s", cache.name, key, why)


def _landing(cache: Cache, flight: Flight, value: object) -> Landing:
    """What the user's `ttl` and `tags` are asked with."""
    now = cache.timer()
    before = flight.previous
    previous = before.snapshot(now) if before is not None and before.error is None else None
    duration = max(0.0, now - flight.started)
    return Landing(plain(flight.key), value, None, duration, flight.followers, previous)


def call_off(cache: Cache, flight: Flight) -> None:
    """A renewal that nobody has begun, if so, ends as if it had never been."""
    after = After()
    try:
        with mutex:
            if isinstance(flight.leader, Nobody):
                settle_flight(cache, flight, KeyboardInterrupt(), after)
    finally:
        after.run()


def postpone(cache: Cache, flight: Flight, pause: float) -> None:
    """A renewal is not run here: another process does that. It is looked at again after a pause."""
    now = cache.time_or(flight.started)
    after = After()
    try:
        with mutex:
            flight.counted = True
            settle_flight(cache, flight, KeyboardInterrupt(), after, now + pause)
    finally:
        after.run()


def settle_flight(
    cache: Cache, flight: Flight, error: BaseException, after: After, again_at: float | None = None
) -> None:
    """End a flight whose leader could not. Call under the mutex; may be repeated.

    It tells nobody, stores no failure and reads no clock: nothing of the user's runs. If it was to renew a
    value, the next read starts another renewal, or the first one from `again_at` on. One that nobody has
    begun is no execution, and the error is not its own: its followers fly again.
    """
    if isinstance(flight.leader, Nobody):
        flight.counted, error = True, KeyboardInterrupt()
    record = flight.previous if flight.renews and not flight.detached else None
    if isinstance(record, AgeingRecord) and not flight.has_ended():
        record.renew_at(flight.started if again_at is None else again_at)
    flight.unbegun = False
    finish(cache, flight, None, error, flight.started, False, False, after)


def _finish(cache: Cache, flight: Flight, error: BaseException, now: float) -> tuple[int, bool] | None:
    """See `transitions.finish`: it has failed."""
    after = After()
    try:
        with mutex:
            ended = finish(cache, flight, None, error, now, False, False, after)
    finally:
        if after:
            after.run()
    return ended
