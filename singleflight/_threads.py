"""How a thread waits for a flight and runs the function. No policy: `memo` decides."""

from __future__ import annotations

import time
from typing import Any

from .errors import FlightTimeout
from .flights import Flight
from .memo import Boarding, Memo, Verdict
from .outcomes import copy_of
from .store import any_store_inside
from .turns import Actor, Gate, current_actor, end_waiting

__all__ = ["call", "refresh"]


def call(memo: Memo, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Serve one call that the first check could not."""
    if memo.direct():
        return memo.run(*args, **kwargs)
    me = current_actor()
    return _follow(memo, memo.board(key, me), me, key, args, kwargs)


def refresh(memo: Memo, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Fetch now, or wait for the fetch that is under way."""
    if memo.direct():
        return memo.run(*args, **kwargs)
    me = current_actor()
    return _follow(memo, memo.board(key, me, renew=True), me, key, args, kwargs)


def _follow(
    memo: Memo, boarding: Boarding, me: Actor, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Do what the decision maker says until there is an outcome."""
    verdict, subject, gate = boarding
    began = 0.0
    try:
        if verdict is Verdict.JOIN:
            if any_store_inside():  # in a finaliser or signal handler: waiting here could hang others
                memo.leave(subject, timed_out=False)
                end_waiting(me)
                return memo.run(*args, **kwargs)
            began = time.monotonic()
            memo.waiting(subject)
            verdict, subject, gate = _wait(memo, subject, gate, me, began)
            if verdict is Verdict.AGAIN:
                return _follow(memo, memo.board(key, me), me, key, args, kwargs)
        if verdict is Verdict.LEAD:
            return _lead(memo, subject, args, kwargs)
        if verdict is Verdict.SHARE:
            memo.shared(subject, time.monotonic() - began)
            if subject.error is not None:
                raise copy_of(subject.error, subject.traceback)
        value = subject.value  # of the flight, or of a record
        return value
    finally:
        del subject, boarding, gate  # a traceback must not lead back to the exception it belongs to


def _wait(memo: Memo, flight: Flight, gate: Gate | None, me: Actor, began: float) -> Boarding:
    """Wait at the gate, and at the next one, until there is something else to do."""
    limit = memo.options.wait_timeout
    verdict: Verdict = Verdict.JOIN
    try:
        while verdict is Verdict.JOIN:
            assert gate is not None
            opened = gate.wait(None if limit is None else began + limit - time.monotonic())
            if not opened and memo.leave(flight, timed_out=True):
                verdict = Verdict.AGAIN  # it has left
                waited = time.monotonic() - began
                memo.timed_out(flight.key, waited)
                raise FlightTimeout(f"{memo.name}: waited {waited:.3g} s for {flight.key!r}")
            verdict, flight, gate = memo.awake(flight, me)
        return verdict, flight, gate
    except BaseException:
        if verdict is Verdict.JOIN:
            memo.leave(flight, timed_out=False)
            if gate is not None and flight.has_opened(gate):
                gate.open()  # it may be this follower that was to let the next one through
        raise
    finally:
        end_waiting(me)
        del flight, gate


def _lead(memo: Memo, flight: Flight, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the function and land the flight, whatever happens."""
    try:
        memo.fetching(flight)
        value = memo.run(*args, **kwargs)
        memo.land(flight, value)
        return value
    except BaseException as error:
        memo.fail(flight, error)
        raise
    finally:
        del flight  # a traceback must not lead back to the exception it belongs to
