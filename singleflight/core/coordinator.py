"""The decision maker: what each call does next. No blocking, no `await`, no user code under a lock.

A call goes: *check* (the compiled call looks into the store's index, lock-free), *board* (under the mutex:
check again, then join the key's flight or lead a new one), and then either wait and *awake*, or run the
function and *land*. The drivers do the waiting and the running, and nothing else.

The rules, and why they hold:

1. One flight per key: a flight is made and claimed in the same critical section that finds the slot free.
2. Publish before freeing: `land` stores first and frees the slot after, so whoever finds the slot free and
   looks into the index (in that order of events, `board`) finds the value.
3. A detached flight never publishes: whoever detaches sets `detached` before it takes the store's lock to
   drop the old value; the store looks at `detached` under that lock. Either order ends without the value.
4. A flight acts on its slot only while it is the slot's turn; that is asked by identity.
5. A flight without an outcome leaves an unclaimed successor that has its followers and what is left of
   its retries. No follower is handed anything: they all wake, and whoever comes first claims it.
6. A landed flight owns its followers: they are counted when it lands, and `leave` finds them served.
7. A flight that a task runs is stopped by whoever leaves it last: its leader's caller or a follower. It
   keeps its key until it has really ended; whoever comes meanwhile follows it, and flies after it.

Lock order: the mutex and a store's lock are never held together.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any

from ..common import logs, patches
from ..common.errors import FlightDeadlock, FlightTimeout
from ..common.logs import DEBUG
from ..common.messages import shown
from ..locks.latch import LOOK, LOOK_AGAIN, Latch
from ..locks.mutex import inside_other, mutex
from ..locks.slots import Slot
from ..locks.table import keys_of
from ..locks.unsettled import After
from ..locks.waiters import NOBODY, current_actor, is_descendant
from ..locks.waitgraph import (
    Cycle,
    below,
    cycle,
    describe,
    forget_the_gone,
    keep_waiting,
    note,
    refusal,
    waiting,
)
from ..storage.record import Record
from ..telemetry.counters import Counts
from .cache import Cache
from .call import HIT, JOIN, NONE, SHARE, Call, Decision
from .flight import FLYING, LANDED, Flight
from .landing import renew_later
from .leaving import end_wait, leave
from .options import Options
from .renewal import see_to_renewal, serve, served
from .transitions import (
    claim,
    claim_slot,
    follow,
    forget_the_dead,
    new_flight,
    serve_follower,
    take_back,
    take_key,
)

__all__ = [
    "awake",
    "board",
    "join_at_once",
    "look",
    "may_be_stale",
    "new_cache",
    "pauses",
    "refuse",
    "unseat",
    "watch",
]


def new_cache(name: str, options: Options, counts: Counts, rule: Any = None) -> Cache:
    """Return the cache of one decorated function, whose flights are decided over here."""
    return Cache(name, options, counts, rule, unseat=unseat, watch=watch)


def board(cache: Cache, call: Call, soft: bool = True) -> Decision:
    """Check again, then join the key's flight or lead a new one.

    A call that is `soft` waits for the renewal of a stale value, where the function has a `soft_timeout`; its
    driver has that renewal run. It is when it boards for the first time.

    Raises `FlightDeadlock` if waiting would never end, and `FlightTimeout` if too many executions for
    this key took too long and are still running.
    """
    timer = cache.timer  # CPython is slow to call what an attribute holds
    now = timer()
    call.wants_events = cache.tell.has_listener or (logs.levels.get(DEBUG, True) and logs.is_logging(DEBUG))
    key = call.key
    slot: Any = None
    turn: Any = None
    found: list[Hashable] | None = None
    due = False
    with mutex:
        lookup = cache.store.lookup  # not before: it may have been replaced, and a value landed since
        record = lookup(key)
        if record is not None and not call.renew and record.serves_for(now) > 0:
            if not (soft and cache.soft_timeout and _joins_renewal(cache, call, record, now)):
                serve(cache, call, record, now)
        else:
            slot = cache.locks.enter(key)
            turn = slot.turn
            if turn is None or (turn.state is not FLYING and turn.is_over()):
                turn = new_flight(cache, slot, cache.options.follower_retries)
                claim_slot(turn, call, now, record, cache.options.flight_timeout)
            elif turn.leader is None or turn.unbegun:
                claim(turn, call, now, record, cache.options.flight_timeout)
            else:
                if type(turn) is not Flight:
                    turn = _queued(cache, slot)
                work, life = turn.work, turn.life
                if turn.due is not None:
                    due = turn.is_due()
                elif work is not None:
                    due = work.loop is not call.loop and turn.is_due()
                elif life is not None and life() is None:
                    due = turn.is_due()  # the thread that led it has ended without a word
                if not due:
                    found = _join(cache, call, turn)
                    if found is not None:
                        cache.counts.errors += 1
    if call.decision is HIT:
        if call.overdue is not None:
            _unseat_overdue(cache, call)
        served(cache, call, now)
    elif found is not None:
        slot = turn = record = work = life = None  # they may come to hold an error raised from this one
        refuse(cache, key, found)
    elif due:
        call.overdue = turn
        slot = turn = record = work = life = None
        return _board_after(cache, call)
    return call.decision


def _board_after(cache: Cache, call: Call) -> Decision:
    """Board once more, the flight in the way being due to lose the key."""
    if not _unseat_overdue(cache, call):
        with mutex:
            cache.counts.timeouts += 1
        cache.tell.timed_out(call.key, 0.0)
        raise FlightTimeout(_too_many(cache, call.key))
    return board(cache, call)


def awake(cache: Cache, call: Call) -> Decision:
    """Decide again for a follower whose latch has opened."""
    before = call.flight  # let go of after the mutex
    if cache.soft_timeout:
        decision = _served_stale(cache, call, before)
        if decision is not None:
            return decision
    if before.state is LANDED:
        call.decision = SHARE
        end_wait(call)
        return SHARE
    now = cache.timer()
    after = After()
    with mutex:
        flight = before.latest()
        record = cache.store.index.get(call.key)
        if flight is not None and flight.state is not LANDED and not flight.may_be_claimed():
            call.flight, call.latch = flight, flight.open_later()
            if call.before is None:
                return JOIN  # it follows, and waits for nothing yet
            keep_waiting(call.blocks, flight)
            call.stand_at(call.latch, cache, flight)
            return JOIN
        if flight is None:
            call.decision = NONE
        elif flight.state is LANDED:
            call.flight = flight
            call.decision = SHARE
        elif record is not None and not call.renew and record.fresh_for(now) > 0:
            serve_follower(cache, call, flight, record, after)
        else:
            end_wait(call)  # first: a wait that is over does not hold up what it leads now
            claim(flight, call, now, record, cache.options.flight_timeout)
        end_wait(call)
    after.run()
    return call.decision


def _served_stale(cache: Cache, call: Call, before: Flight) -> Decision | None:
    """Board anew where the renewal that a call waited for has brought nothing; None if it did, or may."""
    latest = before.latest()
    over = latest is None or latest.state is LANDED or latest.may_be_claimed()
    if not over or not may_be_stale(cache, call):
        return None
    if not leave(cache, call, timed_out=None):
        if not take_back(cache, call):
            return None  # it has landed with a value, perhaps only just now
        end_wait(call)
    return board(cache, call, soft=False)


def look(cache: Cache, call: Call, began: float) -> Decision:
    """A follower whose pause is over looks whether to go on waiting; what it does next.

    Raises `FlightTimeout` or `FlightDeadlock`; it has left then.
    """
    limit, waited = cache.options.wait_timeout, time.monotonic() - began
    if waited >= _least(cache.soft_timeout, limit) and may_be_stale(cache, call):
        if not leave(cache, call, timed_out=None):
            return awake(cache, call)
        return board(cache, call, soft=False)
    if limit is not None and waited >= limit:
        if not leave(cache, call, timed_out=True):
            return awake(cache, call)
        cache.tell.timed_out(call.key, waited)
        raise FlightTimeout(f"{cache.name}: waited {waited:.3g} s for {shown(call.key)}")
    too_many, found = _look_round(cache, call)
    if too_many and leave(cache, call, timed_out=True):
        cache.tell.timed_out(call.key, waited)
        raise FlightTimeout(_too_many(cache, call.key))
    if found is not None and leave(cache, call, timed_out=False):
        refuse(cache, call.key, found)
    return JOIN


def _look_round(cache: Cache, call: Call) -> tuple[bool, list[Hashable] | None]:
    """Take the key from a flight that is due. Return True if too many are left running, and a closed cycle.

    Not within `look`: no flight is to be in the frames of what that raises.
    """
    flight, found = call.flight, None
    _see_to_the_one_before(flight)
    if flight.is_due():
        return not unseat(cache, flight), None
    if call.awaited_outside:
        with mutex:
            call.look_again()
            note(call, call.climb())
            found = keys_of(cycle(call, flight, cache.options.wait_timeout is not None), flight)
    return False, found


def pauses(cache: Cache, call: Call, began: float) -> tuple[float, float | None]:
    """For how many seconds a follower may wait before somebody looks, and before it looks itself.

    The second is None where it is enough that anybody does, on behalf of all that wait for this flight.
    """
    flight, limit = call.flight, cache.options.wait_timeout
    pause = _until_due(flight)
    if cache.soft_timeout and may_be_stale(cache, call):
        limit = _least(cache.soft_timeout, limit)
    if limit is None and not call.awaited_outside:
        return pause, None
    own_pause = LOOK_AGAIN if call.awaited_outside else LOOK
    if limit is not None:
        own_pause = min(own_pause, max(0.0, began + limit - time.monotonic()))
    return pause, own_pause


def _least(soft_timeout: float, limit: float | None) -> float:
    """For how many seconds a call may wait that can be served a stale value."""
    return soft_timeout if limit is None else min(soft_timeout, limit)


def watch(cache: Cache, flight: Flight) -> float | None:
    """Look on behalf of all tasks of a loop that wait for a flight; after how many seconds again.

    None: each of them has to look for itself.
    """
    if flight.is_over() or flight.may_be_claimed():
        return None  # their latch is open, or about to be: the wake-up may have fallen to an interrupt
    _see_to_the_one_before(flight)
    if flight.is_due() and not unseat(cache, flight):
        return None
    return _until_due(flight)


def _unseat_overdue(cache: Cache, call: Call) -> bool:
    """See `unseat`; the call lets go of the flight."""
    overdue, call.overdue = call.overdue, None
    return unseat(cache, overdue)


def unseat(cache: Cache, flight: Flight, /) -> bool:
    """Take the key from a flight that is due; False if too many of that key are left running already.

    Its followers move over to a successor. What it may still bring home is its own caller's alone.
    """
    after = After()
    unseated = dead = False
    try:
        with mutex:
            forget_the_dead(cache, after)
            if flight.is_due():
                dead = flight.is_dead()
                unseated = take_key(cache, flight, dead, after)
                if not unseated:
                    return False
    finally:
        after.run()
    if unseated:
        if dead:
            forget_the_gone()
        if flight.renews:
            limit = cache.options.flight_timeout
            why = KeyboardInterrupt() if dead else FlightTimeout(f"it took longer than {limit:g} s")
            renew_later(cache, flight, cache.time_or(flight.started), why)
        cache.tell.unseated(flight)
        if cache.tier is not None:
            cache.tier.unseated(flight)
    return True


def _see_to_the_one_before(flight: Flight) -> None:
    before = flight.slot.turn
    if before is not None and before is not flight:
        before.see_to()


def _until_due(flight: Flight) -> float:
    if flight.due is None or flight.state is not FLYING:
        return LOOK
    return min(LOOK, max(0.0, flight.due - time.monotonic()))


def refuse(cache: Cache, key: Hashable, found: list[Hashable]) -> None:
    """Tell and raise that waiting would never end."""
    cache.tell.refused(key, describe(found))
    why = refusal(found)
    if not patches.hint() and _leads(cache, found):
        why += (
            "; this very caller is fetching it, further out: what a getter and its bulk loader (or its "
            "twin) both need to fetch belongs in an undecorated function that both call"
        )
    raise FlightDeadlock(f"{cache.name}: {why}")


def _leads(cache: Cache, keys: list[Hashable]) -> bool:
    """Return True if the caller leads the flights of all these keys."""
    actor = current_actor()
    with mutex:
        turns = [None if slot is None else slot.turn for slot in map(cache.locks.slot, keys)]
        leads = all(type(turn) is Flight and turn.leader == actor for turn in turns)
    return leads  # noqa: RET504  # not within: an interrupt before the return may leave the mutex held


def _too_many(cache: Cache, key: Hashable) -> str:
    limit = cache.options.flight_timeout
    return f"{cache.name}: several calls for {shown(key)} took longer than {limit:g} s and are still running"


# -- under the mutex ----------------------------------------------------------------------------------


def _queued(cache: Cache, slot: Slot) -> Flight:
    """The flight that queues behind a plain hold (all callers together), or a new one, not yet there."""
    for turn in slot.queue:
        if type(turn) is Flight:
            return turn
    return new_flight(cache, slot, cache.options.follower_retries)


def _joins_renewal(cache: Cache, call: Call, record: Record, now: float) -> bool:
    """Follow the renewal of a stale value, which is begun if it is time; False if it is to be served."""
    if record.error is not None or record.fresh_for(now) > 0 or inside_other():
        return False
    see_to_renewal(cache, call, record, now)
    slot = cache.locks.slot(call.key)
    turn = None if slot is None else slot.turn
    if type(turn) is not Flight or turn.state is not FLYING or call.overdue is not None:
        return False
    return _join(cache, call, turn) is None  # else waiting would close a cycle


def may_be_stale(cache: Cache, call: Call) -> bool:
    """Return True if there is a stale value that a waiting call may be served."""
    if not cache.soft_timeout or call.renew:
        return False
    record = cache.store.find(call.key)
    return record is not None and record.error is None and record.serves_for(cache.timer()) > 0


def _join(cache: Cache, call: Call, flight: Flight) -> list[Hashable] | None:
    """Follow a flight, unless waiting for it would close a cycle: then that cycle."""
    if call.follows:
        call.flight, call.latch = flight, flight.open_later()
        follow(call, flight)
        return None
    call.awaited_outside, call._above, call.noted = False, None, NOBODY  # as `begin`, in line
    blocks = call.blocks
    # The usual case in short: nobody but its own function holds the flight up.
    leader = flight.leader
    if flight.state is FLYING and not (leader in waiting or flight.thread in waiting or leader in below):
        mine = leader == blocks or flight.thread == blocks or call.is_below(flight)
        closed: Cycle | None = [(flight.key, flight)] if mine else None
    else:
        closed = cycle(call, flight, cache.options.wait_timeout is not None)
    if closed is not None:
        return keys_of(closed, flight)
    latch = flight.latch
    if latch is None:
        latch = flight.latch = Latch()
    call.flight, call.latch = flight, latch
    # `before` first: it is what an interrupt goes back to.
    if blocks in waiting:
        under_way = waiting[blocks]
        call.before = len(under_way)
        waiting[blocks] = (*under_way, flight)
    else:
        call.before = 0
        if latch.alone is None:
            latch.alone = (flight,)
        waiting[blocks] = latch.alone
    call.stand_at(latch, cache, flight)
    if call.awaited_outside:
        note(call, call.climb())
    follow(call, flight)
    return None


def join_at_once(cache: Cache, call: Call) -> bool:
    """The usual joining in one piece: a task follows what a task of its own loop fetches; else False.

    It does what `board` does then, with `_join`, where nothing is stored, the wait has no limit
    that its loop is not to see to for all, and neither of the two tasks may be part of a cycle.
    """
    key, blocks = call.key, call.blocks
    call.wants_events = cache.tell.has_listener or (logs.levels.get(DEBUG, True) and logs.is_logging(DEBUG))
    if call.wants_events or not cache.is_patient or blocks in waiting or is_descendant():
        return False
    with mutex:
        lookup = cache.store.lookup  # not before: it may have been replaced, and a value landed since
        slot = cache.locks.by_key.get(key)
        flight: Any = None if slot is None else slot.turn
        if (
            type(flight) is Flight
            and flight.state is FLYING
            and not flight.unbegun
            and flight.due is None
            and flight.work is not None
            and flight.work.loop is call.loop
            and lookup(key) is None
        ):
            leader = flight.leader
            if not (leader in waiting or flight.thread in waiting or leader in below or leader == blocks):
                call.awaited_outside, call._above, call.noted = False, None, NOBODY
                latch = flight.latch
                if latch is None:
                    latch = flight.latch = Latch()
                if latch.alone is None:
                    latch.alone = (flight,)
                call.flight, call.latch = flight, latch
                call.before = 0  # first: it is what an interrupt goes back to
                waiting[blocks] = latch.alone
                call.stand_at(latch, cache, flight)
                follow(call, flight)
    return call.decision is JOIN
