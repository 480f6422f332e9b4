"""Everything that changes a flight: its state, its turn at its key, who leads it and who follows it.

    state      what happens                                then       its followers            what is told
    ---------  ------------------------------------------  ---------  -----------------------  ---------------
    (none)     a call finds the key free                   UNCLAIMED  none                     -
    UNCLAIMED  a call comes: `claim`                       FLYING     stay, but for that call  fetch
    UNCLAIMED  its last follower leaves: `stop_following`  (dropped)  none                     -
    FLYING     a value came: `finish`                      LANDED     share it                 land, share
    FLYING     it failed, retries are left: `finish`       PASSED     to a successor           land (retried)
    FLYING     it failed, none are left: `finish`          LANDED     share the error          land, share
    FLYING     it was aborted: `finish`                    PASSED     to a successor           abort
    FLYING     too late, or nobody is left: `take_key`     UNSEATED   to a successor           unseat
    UNSEATED   its function came back: `finish`            PASSED     (they have gone)         land, abort
    FLYING     invalidate, put, clear: `detach`            FLYING     stay; newcomers do not   invalidate, put
    FLYING     its last caller leaves: `doom`              FLYING     none: its work stops     -

A *successor* is an unclaimed flight that takes the key in the same section; whoever comes first claims it. A
detached flight has no key to pass on: without an outcome to share, its followers board anew.

Every function here is called under the mutex, but for those that say otherwise. CPython looks for signals at
calls and backward jumps only. So no call stands between a change's first and last write where a comment says
so: an interrupt finds the change made, or not begun. What follows once the mutex is free goes to `After`.

Of what else is assigned: `locks.table` assigns the turns of plain holds, and `flight.orphan` marks what a
forked child has only a copy of.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any

from ..common import logs
from ..common.errors import FlightDeadlock, FlightTimeout
from ..common.logs import DEBUG
from ..locks.latch import Latch
from ..locks.lives import life_of_this_thread, lives
from ..locks.mutex import mutex
from ..locks.slots import Slot, Turn, numbers
from ..locks.unsettled import After
from ..locks.waiters import NOBODY
from ..locks.waitgraph import begin_waiting, waiting
from ..storage.record import Record
from .cache import Cache
from .call import HIT, JOIN, LEAD, NONE, Call
from .flight import FLYING, LANDED, PASSED, UNCLAIMED, UNSEATED, Flight, Owner, State, Work
from .outcome import traceback_of, without_drivers

__all__ = [
    "bring",
    "claim",
    "claim_slot",
    "count_execution",
    "desert",
    "detach",
    "disown",
    "doom",
    "finish",
    "follow",
    "forget_the_dead",
    "free",
    "hand_over",
    "is_unclaimed",
    "is_unshared",
    "land_at_once",
    "lead_at_once",
    "new_flight",
    "occupy",
    "pass_on",
    "release_if_unwanted",
    "serve_follower",
    "spare",
    "stop_following",
    "take_back",
    "take_key",
]

_MOST_UNSEATED = 4  # executions of one key that may be left running at a time, so that they do not pile up


# -- a flight begins ----------------------------------------------------------------------------------


def new_flight(cache: Owner, slot: Slot, retries: int | None, followers: int = 0) -> Flight:
    """Return a flight that nobody has claimed (no `__init__`: see `table.new_slot`)."""
    flight = Flight()
    flight.cache = cache
    flight.key = slot.key
    flight.slot = slot
    flight.retries = retries
    flight.followers = followers
    flight.state = UNCLAIMED
    flight.number = flight.ident = 0
    flight.kind = "call"
    flight.started = 0.0
    flight.leader = flight.latch = flight.error = flight.work = flight.life = flight.due = None
    flight.counted = flight.detached = flight.deserted = flight.doomed = flight.lost = False
    flight.renews = flight.background = flight.unbegun = flight.timed_out = False
    return flight


def claim(flight: Flight, call: Call, now: float, previous: Record | None, timeout: float | None) -> None:
    """A newcomer, or one of its followers, leads the flight from now on."""
    flight.due = None if timeout is None else time.monotonic() + timeout
    flight.ident = flight.number = next(numbers)
    thread = call.thread
    life = lives[thread] if thread in lives else life_of_this_thread()
    flight.depth = len(waiting[thread]) if thread in waiting else 0
    # No call from here on: an interrupt finds it claimed, and its leader knows, or as it was.
    if call.decision is JOIN:
        flight.followers -= 1
    call.flight, call.decision = flight, LEAD
    flight.wants_events = call.wants_events
    flight.kind = "refresh" if call.renew else "call"
    flight.background = call.background
    flight.unbegun = False
    flight.started = now
    flight.previous = previous
    flight.thread = thread
    flight.life = life
    flight.state = FLYING
    flight.leader = call.actor


def occupy(flight: Flight) -> None:
    """It is a new flight's turn at its key."""
    flight.slot.turn = flight


def claim_slot(
    flight: Flight, call: Call, now: float, previous: Record | None, timeout: float | None
) -> None:
    """A newcomer leads a new flight, whose turn it is from now on."""
    claim(flight, call, now, previous, timeout)
    flight.slot.turn = flight


def lead_at_once(cache: Cache, call: Call) -> bool:
    """The usual beginning in one piece: nothing is stored, and the key is free; else False.

    It does what `coordinator.board` does then, with `new_flight` and `claim_slot`, and writes once what is
    written twice there.
    """
    timer, options, thread, key = cache.timer, cache.options, call.thread, call.key
    now = timer()
    timeout = options.flight_timeout
    call.wants_events = cache.tell.has_listener or (logs.levels.get(DEBUG, True) and logs.is_logging(DEBUG))
    with mutex:
        lookup = cache.store.lookup  # not before: it may have been replaced, and a value landed since
        record = lookup(key)
        if record is None or call.renew or record.serves_for(now) <= 0:
            slot = cache.locks.enter(key)
            if slot.turn is None:
                flight = Flight()
                flight.due = None if timeout is None else time.monotonic() + timeout
                flight.ident = flight.number = next(numbers)
                flight.life = lives[thread] if thread in lives else life_of_this_thread()
                flight.depth = len(waiting[thread]) if thread in waiting else 0
                # No call from here on: an interrupt finds it claimed, and its leader knows, or not there.
                flight.cache = cache
                flight.key = slot.key
                flight.slot = slot
                flight.retries = options.follower_retries
                flight.followers = 0
                flight.latch = flight.error = flight.work = None
                flight.counted = flight.detached = flight.deserted = flight.doomed = flight.lost = False
                flight.renews = flight.background = flight.unbegun = flight.timed_out = False
                flight.wants_events = call.wants_events
                flight.kind = "refresh" if call.renew else "call"
                flight.started = now
                flight.previous = record
                flight.thread = thread
                flight.state = FLYING
                flight.leader = call.actor
                call.flight, call.decision = flight, LEAD
                slot.turn = flight
    return call.decision is LEAD


def hand_over(call: Call, work: Work, leader: Hashable) -> None:
    """This work runs the flight from here on, and its leader's caller waits for that. Takes the mutex."""
    with mutex:
        flight, me = call.flight, call.blocks
        flight.work = work
        flight.leader = leader
        call.awaited_outside = False  # in line: `Waiter.begin`
        call._above = None
        call.noted = NOBODY
        if me in waiting:
            call.before = len(waiting[me])
            begin_waiting(me, flight)
        else:  # in line: the same
            call.before = 0
            waiting[me] = (flight,)
        call.decision = NONE


# -- followers ----------------------------------------------------------------------------------------


def follow(call: Call, flight: Flight) -> None:
    """The call is one of the flight's followers; its latch is written already."""
    call.place = flight.followers = flight.followers + 1
    call.decision = JOIN  # no call stands between the two: an interrupt finds both or neither
    if flight.state is UNCLAIMED and flight not in flight.slot.queue:
        flight.slot.line_up(flight)


def stop_following(cache: Cache, call: Call, timed_out: bool | None, after: After) -> bool:
    """A follower gives up; False if it came too late, for its flight has landed, which counted it.

    It counts as a timeout or as an error, or (None) not at all: it is served in another way.
    """
    flight = call.flight.latest()
    if flight is not None and flight.state is LANDED:
        return False
    # No call stands between these: an interrupt finds it among the followers, or gone and counted.
    call.decision = NONE
    if flight is not None:
        flight.followers -= 1
    if timed_out:
        cache.counts.timeouts += 1
    elif timed_out is not None:
        cache.counts.errors += 1
    if flight is not None:
        release_if_unwanted(cache, flight, after)
    return True


def serve_follower(cache: Cache, call: Call, flight: Flight, record: Record, after: After) -> None:
    """A follower takes a value that was put from outside meanwhile."""
    call.record = record
    call.renewal = None
    call.served = "wait"
    call.decision = HIT
    flight.followers -= 1
    if record.error is None:
        cache.counts.waits += 1
    else:
        cache.counts.errors += 1
    release_if_unwanted(cache, flight, after)  # last: see `stop_following`


def take_back(cache: Cache, call: Call) -> bool:
    """A follower does not take what its flight has landed with, for it is no value; False if it is one.

    The landing has counted it among those who do. Takes the mutex.
    """
    with mutex:
        flight = call.flight.latest()
        failed, taken = flight.error is not None, flight.error is None and not flight.missing
        if not taken:
            # No call stands between these: an interrupt finds it counted as a follower, or not at all.
            if failed:
                cache.counts.errors -= 1
            else:
                cache.counts.waits -= 1
            call.decision = NONE
    return not taken


def release_if_unwanted(cache: Cache, flight: Flight, after: After) -> None:
    """The flight has lost a follower: if nobody wants it any more it goes, or is stopped. May be repeated."""
    if flight.followers:
        return
    if flight.state is not UNCLAIMED:
        _stop_if_unwanted(flight, after)
    elif flight.slot.turn is flight:
        cache.locks.vacate(flight.slot, after)
    else:
        flight.slot.step_out(flight)


def desert(cache: Cache, flight: Flight, after: After, timed_out: bool | None = False) -> bool:
    """The leader's caller goes and leaves its flight to the followers; without any it is stopped.

    It is counted as in `stop_following`. False: the flight has ended, or it had gone already.
    """
    if (flight.state is not FLYING and flight.state is not UNSEATED) or flight.deserted:
        return False
    flight.deserted = True
    if timed_out:
        cache.counts.timeouts += 1
    elif timed_out is not None:
        cache.counts.errors += 1
    _stop_if_unwanted(flight, after)
    return True


def disown(flight: Flight) -> None:
    """No caller leads it: none is counted with its end."""
    flight.counted = flight.deserted = True


def spare(cache: Cache, flight: Flight) -> None:
    """Its caller calls anew: what it was counted as in line (see `count_uncalled`) is taken back."""
    gone = flight.deserted or flight.background
    # No call stands between these: an interrupt finds it counted so, or not at all.
    if flight.counted and not gone:
        if flight.timed_out:
            cache.counts.timeouts -= 1
        else:
            cache.counts.errors -= 1
    flight.counted = flight.deserted = True


def _stop_if_unwanted(flight: Flight, after: After) -> None:
    if not flight.deserted or flight.followers or flight.doomed or flight.work is None:
        return
    if flight.work.may_stop():
        doom(flight)
        after.append(flight.work.stop)


def doom(flight: Flight) -> None:
    """Nobody wants it. It keeps its key until it has ended; whoever comes now flies after it."""
    flight.doomed = flight.detached = True


# -- a flight ends, or loses its key ------------------------------------------------------------------


def finish(
    cache: Cache,
    flight: Flight,
    value: object,
    error: BaseException | None,
    now: float,
    storable: bool | None,
    stored: bool,
    after: After,
) -> tuple[int, bool] | None:
    """End a flight; how many followers it had and whether they fly again, or None if it had ended.

    It is `storable` if its value may be stored; None: it might, but for a tag that was invalidated meanwhile.
    """
    slot, followers, latch = flight.slot, flight.followers, flight.latch
    state = flight.state
    current = slot.turn is flight
    if flight.lost or (state is not FLYING and state is not UNSEATED):
        # Perhaps an interrupt struck between its end and what follows from it: that is done now.
        if latch is not None:
            after.append(latch.open)
        if current and not flight.lost:
            cache.locks.vacate(slot, after)
        return None
    if flight.detached:
        cache.adrift.discard(flight)
    if not flight.counted:
        count_execution(cache, flight, error, stored)
    again = unshared = old = False
    if followers:
        if error is None and (flight.stored.tags if stored else flight.detached):
            old = _is_old(cache, flight, stored)
        unshared = flight.doomed or (error is not None and is_unshared(error))
        again = unshared or (flight.retries != 0 and (old or (current and not storable)))
    if state is UNSEATED:
        flight.state = PASSED
    elif again:
        pass_on(flight, None if not current else _successor(cache, flight, spent=not unshared))
    else:
        if followers:  # else nobody is to receive what it brought
            bring(flight, value, error, now, storable)
            # No call stands between these: an interrupt finds it in flight, or landed and counted.
            if error is None:
                cache.counts.waits += followers
            else:
                cache.counts.errors += followers
        flight.state = LANDED
        if latch is not None:
            after.append(latch.open)
        if current:
            cache.locks.vacate(slot, after, now if error is None and cache.has_usual_clock else None)
        return followers, False
    if latch is not None:
        after.append(latch.open)
    return followers, again


def _is_old(cache: Cache, flight: Flight, stored: bool) -> bool:
    """Return True if a tag was invalidated, perhaps one of its own, and followers may have come after that.

    That is asked where `store.put` was not, or cannot have seen it: it lost its key before, or it was stored.
    """
    if stored:
        return cache.store.is_cut(flight.stored.tags, flight.number)
    return flight.number < cache.store.last_cut


def land_at_once(cache: Cache, flight: Flight, value: Any) -> bool:
    """The usual landing in one piece: of a call that nobody has joined, drains or left, and nobody listens.

    Where `Cache.lands_at_once` says so. It does what `landing.land` and `finish` do then. False: the flight
    is to land by these, which find it as it was. Where something happens to it amid this, `finish` ends it.
    """
    if value is None or flight.followers or flight.wants_events or flight.kind != "call":
        return False
    timer = cache.timer
    now = timer()
    key: Any = flight.key
    slot, locks, ttl = flight.slot, cache.locks, cache.fixed_ttl
    record = Record()  # in line: `record_of`
    record.key = key
    record.value = value
    record.landed = now
    record.ttl = ttl
    record.deadline = now + ttl
    record.hits = record.passed = 0.0
    record.place = None
    try:
        # In line: `is_sound`.
        sound = locks.by_key[(*key,)] is slot if type(key) is tuple else hash(key) == slot.hash
        if not sound or cache.store.put(record, flight) is None:
            return False
    except Exception:  # the key's own
        return False
    if cache.batches:
        cache.spoil(key)
    after: list[Any] = []  # to be destroyed after the mutex is free
    with mutex:
        alone = (
            flight.state is FLYING
            and slot.turn is flight
            and not (flight.followers or flight.latch or slot.queue or flight.detached or flight.deserted)
        )
        if alone:
            # No call until it has landed: an interrupt finds it in flight, or landed and counted.
            counts = cache.counts
            flight.counted = True
            counts.calls += 1
            counts.fetches += 1
            flight.stored = record
            flight.state = LANDED
            locks.vacate(slot, after, now if cache.has_usual_clock else None)
    if not alone:
        _finish_stored(cache, flight, record, now)
    return True


def _finish_stored(cache: Cache, flight: Flight, record: Record, now: float) -> None:
    """End a flight whose value was stored, as `landing.land` does. Takes the mutex."""
    after = After()
    try:
        with mutex:
            flight.stored = record
            finish(cache, flight, record.value, None, now, True, True, after)
    finally:
        after.run()


def forget_the_dead(cache: Cache, after: After) -> None:
    """Drop the detached flights of which nothing runs any more: their loops or threads are gone."""
    gone = [flight for flight in cache.adrift if flight.is_dead()]
    cache.adrift.difference_update(gone)
    after.extend((flight,) for flight in gone)


def take_key(cache: Cache, flight: Flight, dead: bool, after: After) -> bool:
    """Take the key from a flight that is due; False if too many of that key are left running already.

    Its followers move over to a successor. What it may still bring home is its own caller's alone.
    """
    if not dead and _left_running(cache, flight) >= _MOST_UNSEATED:
        return False
    flight.detached = True
    if dead:
        cache.adrift.discard(flight)
    else:
        cache.adrift.add(flight)
    latch, flight.latch = flight.latch, None
    if latch is not None:
        after.append(latch.open)
    slot = flight.slot
    if slot.turn is not flight:
        pass_on(flight, None, UNSEATED)
    elif flight.followers:
        pass_on(flight, _successor(cache, flight, spent=False), UNSEATED)
    else:
        pass_on(flight, None, UNSEATED)
        cache.locks.vacate(slot, after)
    if not dead and flight.work is not None:
        after.append(flight.work.stop)
    return True


def detach(cache: Cache, flight: Flight, after: After, keep: bool) -> None:
    """The flight is its callers' alone from now on, and its key is free.

    With `keep` it is only marked: a handler or finaliser has interrupted a section, which may be at its slot.
    """
    flight.detached = True  # before the slot is free, and before the caller drops the value
    if not keep:
        cache.adrift.add(flight)
        cache.locks.vacate(flight.slot, after)


def free(cache: Cache, key: Hashable, after: After) -> None:
    """Free a key for which an interrupt struck before a flight was claimed, or gone. May be repeated."""
    slot = cache.locks.slot(key)
    if slot is not None:
        for turn in [turn for turn in slot.queue if is_unclaimed(turn)]:
            slot.step_out(turn)
        if slot.turn is None or is_unclaimed(slot.turn):
            cache.locks.vacate(slot, after)


def is_unclaimed(turn: Turn | None) -> bool:
    """Return True if a slot with this turn is free, though it was not vacated."""
    if turn is None:
        return True
    return isinstance(turn, Flight) and turn.state is UNCLAIMED and not turn.followers


def is_unshared(error: BaseException) -> bool:
    """Return True if an exception ends an execution without saying anything about its key."""
    return not isinstance(error, Exception) or isinstance(error, (FlightDeadlock, FlightTimeout))


def _left_running(cache: Cache, flight: Flight) -> int:
    return sum(other.state is UNSEATED and _are_equal(other.key, flight.key) for other in cache.adrift)


def _are_equal(key: Hashable, other: Hashable) -> bool:
    """Return True if a dictionary takes two keys for one; a spoilt key is itself alone."""
    try:
        return key is other or bool(key == other)
    except Exception:  # the keys' own
        return False


def _successor(cache: Cache, flight: Flight, spent: bool) -> Flight:
    """The flight that its followers claim instead, with what is left of its retries."""
    retries = flight.retries
    if spent and retries is not None:
        retries -= 1
    return new_flight(cache, flight.slot, retries, flight.followers)


def pass_on(flight: Flight, successor: Flight | None, state: State = PASSED) -> None:
    """It has ended without an outcome, or was unseated: its key and its followers are the successor's.

    Without a successor its followers are on their own, and its key is not touched.
    """
    if successor is not None:
        successor.latch = Latch()
        # No call from here on: an interrupt finds a flight with its followers and its key, or the other.
        flight.slot.turn = successor
    flight.successor = successor
    flight.followers = 0
    flight.state = state


def bring(
    flight: Flight, value: object, error: BaseException | None, now: float, storable: bool | None
) -> None:
    """Give it its outcome, which is to be taken once it has landed.

    Where a key has no value a loader leaves it out, which `missing` says already. A getter can say so only by
    a value that `cache_if` refuses.
    """
    if flight.kind != "bulk":
        flight.missing = storable is False
    flight.value = value
    flight.error = error
    flight.landed = now
    flight.traceback = None
    if error is not None:
        traceback = traceback_of(error)
        flight.traceback = traceback and without_drivers(traceback)


def count_execution(cache: Cache, flight: Flight, error: BaseException | None, stored: bool) -> None:
    """Count an execution and its leader (a caller that has gone was counted then), once."""
    counts, work = cache.counts, flight.work
    ran = work is None or work.began
    failed = error is not None and isinstance(error, Exception)
    timed_out = error is not None and isinstance(error, FlightTimeout)
    # No call from here on: an interrupt finds all of it counted, or nothing.
    flight.counted = True
    if flight.kind != "bulk" and flight.kind != "shared":  # those are counted where they are run
        if ran:
            counts.calls += 1
            if flight.kind == "refresh":
                counts.refreshes += 1
        if ran and failed:
            counts.failures += 1
    if error is None and not stored:
        counts.uncached += 1
    if flight.deserted or flight.background:
        return
    if error is None:
        counts.fetches += 1
    elif timed_out:
        counts.timeouts += 1
    else:
        counts.errors += 1
