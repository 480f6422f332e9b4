"""How a call ends before it is served: a follower leaves, a leader's caller goes, or an exception strikes."""

from __future__ import annotations

from ..locks.mutex import mutex
from ..locks.unsettled import After
from ..locks.waitgraph import end_waiting, note, waiting
from . import transitions
from .cache import Cache
from .call import JOIN, LEAD, NONE, Call, Nobody
from .flight import Flight
from .landing import call_off, fail, settle_flight
from .transitions import free, stop_following

__all__ = ["abandon", "desert", "done", "end_wait", "give_up", "leave", "settle_call"]


def leave(cache: Cache, call: Call, timed_out: bool | None) -> bool:
    """A follower gives up; False if it came too late, for its flight has landed.

    It counts as a timeout or as an error, or (None) not at all: it is served in another way.
    """
    after = After()
    try:
        with mutex:
            left = stop_following(cache, call, timed_out, after)
            if left:
                end_wait(call)
    finally:
        after.run()
    return left


def desert(cache: Cache, flight: Flight, timed_out: bool | None = False) -> bool:
    """The leader's caller goes and leaves its flight to the followers; see `transitions.desert`."""
    after = After()
    try:
        with mutex:
            deserted = transitions.desert(cache, flight, after, timed_out)
    finally:
        after.run()
    return deserted


def give_up(cache: Cache, call: Call, error: BaseException) -> None:
    """The call ends with an exception: whatever it holds, and its wait, is over."""
    abandon(cache, call, error)
    done(cache, call)


def settle_call(cache: Cache, call: Call, error: BaseException | None, after: After) -> None:
    """The same for a call that could not give up. Call under the mutex; may be repeated.

    Nothing of the user's runs, except for the key's `__hash__` and `__eq__`; what they raise is the key's
    own fault, and leaves nothing behind.
    """
    struck = KeyboardInterrupt() if error is None else error  # which is not asked whether it is true
    if call.decision is LEAD:
        settle_flight(cache, call.flight, struck, after)
    elif call.decision is JOIN:
        flight, latch = call.flight, call.latch
        opened = flight.has_opened(latch)
        stop_following(cache, call, False, after)
        if opened:
            after.append(latch.open)  # it may have been its own to let the next one through
    if call.renewal is not None:
        flight = call.renewal.flight
        if flight is not None and isinstance(flight.leader, Nobody):
            settle_flight(cache, flight, struck, after)
        call.renewal = None
    free(cache, call.key, after)
    end_wait(call)
    _forget(call)


def abandon(cache: Cache, call: Call, error: BaseException, struck: BaseException | None = None) -> None:
    """The call ends with an exception: whatever it still holds is given up.

    Does nothing where everything has ended as it should, so that it can stand behind every call. What
    `struck` it is told to listeners, if it is not what its flight is to end with.
    """
    if call.decision is LEAD:
        fail(cache, call.flight, error)  # raises an abort of `failure_ttl`: then `settle_call` does the rest
    elif call.decision is JOIN:
        left = leave(cache, call, timed_out=False)
        if call.wants_events:
            _tell_left(cache, call, left, error if struck is None else struck)
        if call.flight.has_opened(call.latch):
            call.latch.open()  # it may have been this follower's to let the next one through
    after = After()
    try:
        with mutex:
            free(cache, call.key, after)
    finally:
        after.run()


def _tell_left(cache: Cache, call: Call, left: bool, error: BaseException) -> None:
    """Tell that a follower's call has ended before it could take an outcome, and what it was counted as."""
    latest = call.flight if left else call.flight.latest() or call.flight
    counted = "errors" if left or latest.error is not None else "waits"
    cache.tell.left(call.key, error, counted, latest.ident)


def done(cache: Cache, call: Call) -> None:
    """The call is over, in whatever way."""
    if call.before is not None:
        end_wait(call)
    if call.renewal is not None:  # an interrupt
        flight = call.renewal.flight
        if flight is not None:  # else it is over
            call_off(cache, flight)  # if nobody has begun it
        call.renewal = None
    _forget(call)


def end_wait(call: Call) -> None:
    """It waits no more, in whatever way; may be called under the mutex."""
    before = call.before
    if before is not None:
        if before:
            end_waiting(call.blocks, before)
        else:
            waiting.pop(call.blocks, None)
        call.before = None
        if call.noted:
            with mutex:
                note(call, frozenset())


def _forget(call: Call) -> None:
    """Nothing is held any more. (A task must not lead to itself through its exception.)"""
    call.decision = NONE
    call.flight = call.latch = call.record = None
    call.actor = call.blocks = call._above = None
