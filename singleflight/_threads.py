"""How a thread waits for a flight and runs the function. No policy: `memo` decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NoReturn

from .boarding import JOIN, LEAD, NONE, SHARE, Boarding, Verdict
from .errors import FlightTimeout
from .locks import late, settle_late
from .memo import Memo
from .outcomes import copy_of
from .sections import inside_other
from .turns import LOOK, current_actor

__all__ = ["call"]


def call(
    memo: Memo,
    run: Callable[..., Any],
    key: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    renew: bool = False,
) -> Any:
    """Serve a call that the first check could not; with `renew` one that a fresh value does not satisfy."""
    if memo.direct():
        return run(*args, **kwargs)
    boarding = Boarding(key, current_actor(), renew)
    try:
        verdict = memo.board(boarding)
        if verdict is JOIN:
            if inside_other():  # in a finaliser or signal handler: waiting here could hang others
                memo.leave(boarding, timed_out=None)
                return run(*args, **kwargs)
            began = time.monotonic()
            verdict = _wait(memo, boarding, began)
            if verdict is SHARE:
                memo.tell.shared(boarding.flight, memo.timer(), time.monotonic() - began)
                if boarding.flight.error is not None:
                    _raise(copy_of(boarding.flight.error, boarding.flight.traceback))
                return boarding.flight.value
        if verdict is LEAD:
            memo.tell.fetching(boarding.flight)
            value = run(*args, **kwargs)
            memo.land(boarding.flight, value)
            return value
        return boarding.record.value
    except BaseException as error:
        try:
            memo.abandon(boarding, error)
        except BaseException as struck:  # an interrupt in its midst: once more, for what it left
            memo.abandon(boarding, struck)
            raise
        raise
    finally:
        memo.done(boarding)  # a traceback must not lead back to the exception it belongs to
        if late:
            settle_late()


def _raise(error: BaseException) -> NoReturn:
    """Raise a shared error with the context it has, also where this caller is handling another one."""
    context = error.__context__
    try:
        raise error
    finally:
        if context is not None:
            error.__context__ = context
        del error, context


def _wait(memo: Memo, boarding: Boarding, began: float) -> Verdict:
    """Wait at the gate, and at the next one, until there is something else to do."""
    limit = memo.options.wait_timeout
    memo.tell.waiting(boarding.flight)
    verdict = JOIN
    while verdict is JOIN:
        left = LOOK if limit is None else min(LOOK, began + limit - time.monotonic())
        if boarding.gate.wait(left) or boarding.flight.has_opened(boarding.gate):
            verdict = memo.awake(boarding)
        elif left < LOOK and memo.leave(boarding, timed_out=True):
            waited = time.monotonic() - began
            memo.tell.timed_out(boarding.key, waited)
            raise FlightTimeout(f"{memo.name}: waited {waited:.3g} s for {boarding.key!r}")
        if verdict is NONE:  # its flight was detached and had no outcome to share
            verdict = memo.board(boarding)
        if late:
            settle_late()
    return verdict
