"""How a thread waits for a flight and runs the function. No policy: `memo` decides."""

from __future__ import annotations

import contextvars
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from . import turns
from .askers import InThread
from .boarding import JOIN, LEAD, NONE, SHARE, Boarding, Verdict, boarding_of
from .locks import late, settle_late
from .memo import Memo
from .options import switched_off
from .outcomes import copy_of
from .renewing import in_background
from .sections import inside_other
from .turns import current_actor, get_ident, inside

__all__ = ["ThreadBoarding", "call", "raise_shared", "refuse_awaitable", "warn_of_blocking"]


# Asking a class for what it has not is slow: CPython makes an error of it and throws that away.
_NEVER_AWAITED = frozenset((type(None), bool, int, float, str, bytes, tuple, list, dict, set, frozenset))


class ThreadBoarding(InThread, Boarding):
    """A call of a thread."""

    __slots__ = ("job",)


def call(
    memo: Memo,
    run: Callable[..., Any],
    key: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    renew: bool = False,
) -> Any:
    """Serve a call that the first check could not; with `renew` one that a fresh value does not satisfy."""
    if memo.bypassed or inside() or memo.store.is_owned() or switched_off():
        return run(*args, **kwargs)
    thread = get_ident()
    actor = thread if turns.running_loop() is None else current_actor()
    boarding = boarding_of(ThreadBoarding, key, actor, thread, thread, renew)
    verdict = NONE
    try:
        verdict = memo.board(boarding)
        if verdict is JOIN:
            if inside_other():  # in a finaliser or signal handler: waiting here could hang others
                memo.leave(boarding, timed_out=None)
                return run(*args, **kwargs)
            began = time.monotonic()
            verdict = _wait(memo, boarding, began)
            if verdict is SHARE:
                if boarding.told:
                    memo.tell.shared(boarding.flight, memo.timer(), time.monotonic() - began)
                if boarding.flight.error is not None:
                    raise_shared(copy_of(boarding.flight.error, boarding.flight.traceback))
                return boarding.flight.value
        if verdict is LEAD:
            if boarding.flight.told:
                memo.tell.fetching(boarding.flight)
            value = run(*args, **kwargs) if kwargs else run(*args)
            if type(value) not in _NEVER_AWAITED and hasattr(type(value), "__await__"):
                refuse_awaitable(memo.name, value)
            memo.land(boarding.flight, value)
            return value
        return _served(memo, run, boarding, args, kwargs)
    except BaseException as error:
        try:
            memo.abandon(boarding, error)
        except BaseException as struck:  # an interrupt in its midst: once more, for what it left
            memo.abandon(boarding, struck)
            raise
        finally:
            memo.done(boarding)  # a traceback must not lead back to the exception it belongs to
        raise
    finally:
        if verdict is not LEAD:  # a leader that has landed holds nothing any more
            memo.done(boarding)
        if late:
            settle_late()


def _served(
    memo: Memo, run: Callable[..., Any], boarding: Boarding, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What is stored, whose renewal this caller may have to see to."""
    record, renewal = boarding.record, boarding.renewal
    if renewal is not None:
        renew = partial(contextvars.copy_context().run, partial(_renew, memo, run, renewal, args, kwargs))
        accepted = in_background(renew)
        if not accepted:
            renew()
        boarding.renewal = None
        if not accepted and renewal.record is not None:
            record = renewal.record
    if record.error is not None:
        raise_shared(copy_of(record.error, None))
    return record.value


def _renew(
    memo: Memo, run: Callable[..., Any], renewal: Boarding, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Run a renewal on this thread; `renewal.record` is then what is stored, by whomever.

    What it raises is counted and logged, and nobody's to see: it is nobody's call.
    """
    flight = renewal.flight
    try:
        if not memo.begin(renewal, get_ident()):
            return
        if flight.told:
            memo.tell.fetching(flight)
        value = run(*args, **kwargs)
        if hasattr(type(value), "__await__"):
            refuse_awaitable(memo.name, value)
        memo.land(flight, value)
    except BaseException as error:
        memo.call_off(flight)  # an interrupt: it has not begun
        memo.abandon(renewal, error)
        if not isinstance(error, Exception):
            raise
    finally:
        memo.done(renewal)
        if not flight.detached:
            renewal.record = memo.store.find(renewal.key)
        del flight


def raise_shared(error: BaseException) -> NoReturn:
    """Raise a shared error with the context it has, also where this caller is handling another one."""
    context = error.__context__
    try:
        raise error
    finally:
        if context is not None:
            error.__context__ = context
        del error, context


def refuse_awaitable(name: str, value: Any) -> NoReturn:
    """A plain function returned what can be awaited once only: say so, instead of storing it."""
    if hasattr(value, "close"):
        value.close()  # or the interpreter would complain that it was never awaited
    raise TypeError(
        f"{name}: returned {type(value).__name__!r}, which has to be awaited, so it cannot be shared or "
        f"stored; decorate the `async def` function itself, or await it inside an `async def` of its own"
    )


def _wait(memo: Memo, boarding: Boarding, began: float) -> Verdict:
    """Wait at the gate, and at the next one, until there is something else to do."""
    warn_of_blocking(memo)
    if boarding.told:
        memo.tell.waiting(boarding.flight)
    verdict = JOIN
    while verdict is JOIN:
        pause, own_pause = memo.pauses(boarding, began)
        pause = pause if own_pause is None else min(pause, own_pause)
        if boarding.gate.wait(pause) or boarding.flight.has_opened(boarding.gate):
            verdict = memo.awake(boarding)
        else:
            verdict = memo.look(boarding, began)
        if verdict is NONE:  # its flight was detached and had no outcome to share
            verdict = memo.board(boarding)
        if late:
            settle_late()
    return verdict


def warn_of_blocking(memo: Memo) -> None:
    """In asyncio's debug mode, say once that waiting in a thread holds up the event loop that runs on it."""
    if memo.warned:
        return
    events = sys.modules.get("asyncio.events")
    loop = None if events is None else events._get_running_loop()
    if loop is not None and loop.get_debug():
        memo.warned = True
        warnings.warn(
            f"{memo.name} waits for another caller on the thread of an event loop, which stands still "
            f"meanwhile; await a coroutine function there (see .twin), or call it in asyncio.to_thread",
            RuntimeWarning,
            stacklevel=4,
        )
