"""How a thread waits for a flight and runs the function. No policy: `memo` decides."""

from __future__ import annotations

import time
from typing import Any

from .boarding import Boarding, Verdict
from .errors import FlightTimeout
from .memo import Memo
from .outcomes import copy_of
from .store import any_store_inside
from .turns import current_actor, end_waiting

__all__ = ["call"]


LOOK = 1.0  # seconds after which a waiting thread looks for itself whether its gate has opened


def call(memo: Memo, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], renew: bool = False) -> Any:
    """Serve a call that the first check could not; with `renew` one that a fresh value does not satisfy."""
    if memo.direct():
        return memo.run(*args, **kwargs)
    boarding = Boarding(key, current_actor())
    try:
        verdict = memo.board(boarding, renew)
        if verdict is Verdict.JOIN:
            if any_store_inside():  # in a finaliser or signal handler: waiting here could hang others
                memo.leave(boarding, timed_out=False)
                end_waiting(boarding.actor)
                return memo.run(*args, **kwargs)
            began = time.monotonic()
            verdict = _wait(memo, boarding, began)
            if verdict is Verdict.SHARE:
                memo.tell.shared(boarding.flight, memo.timer(), time.monotonic() - began)
                if boarding.flight.error is not None:
                    raise copy_of(boarding.flight.error, boarding.flight.traceback)
                return boarding.flight.value
        if verdict is Verdict.LEAD:
            memo.tell.fetching(boarding.flight)
            value = memo.run(*args, **kwargs)
            memo.land(boarding.flight, value)
            return value
        return boarding.record.value
    except BaseException as error:
        memo.abandon(boarding, error)
        raise
    finally:
        boarding.clear()  # a traceback must not lead back to the exception it belongs to


def _wait(memo: Memo, boarding: Boarding, began: float) -> Verdict:
    """Wait at the gate, and at the next one, until there is something else to do."""
    limit = memo.options.wait_timeout
    noted = True  # that this thread waits; `board` does it
    try:
        memo.tell.waiting(boarding.flight)
        verdict = Verdict.JOIN
        while verdict is Verdict.JOIN:
            left = LOOK if limit is None else min(LOOK, began + limit - time.monotonic())
            if boarding.gate.wait(left) or boarding.flight.has_opened(boarding.gate):
                verdict = memo.awake(boarding)
            elif left < LOOK and memo.leave(boarding, timed_out=True):
                waited = time.monotonic() - began
                memo.tell.timed_out(boarding.key, waited)
                raise FlightTimeout(f"{memo.name}: waited {waited:.3g} s for {boarding.key!r}")
            if verdict is Verdict.NONE:  # its flight was detached and had no outcome to share
                end_waiting(boarding.actor)
                noted = False
                verdict = memo.board(boarding)
                noted = verdict is Verdict.JOIN
        return verdict
    finally:
        if noted:
            end_waiting(boarding.actor)
