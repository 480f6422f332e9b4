"""How a thread waits for a flight and runs the function. No policy: `core` decides."""

from __future__ import annotations

import contextvars
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from sys import getrefcount
from typing import Any

from ..common import patches
from ..common.frames import looked_through
from ..core.call import JOIN, LEAD, NONE, SHARE, Boarding, Verdict
from ..core.coordinator import Memo
from ..core.options import environment, switch, switched_off
from ..core.outcome import bare_copy_of, raise_shared
from ..core.shareable import PLAIN, accepted, check_shareable
from ..locks import waiters
from ..locks.mutex import inside, inside_other
from ..locks.unsettled import settle, unsettled
from ..locks.waiters import InThread, current_actor, get_ident
from .pool import in_background

__all__ = ["ThreadBoarding", "call", "warn_of_blocking"]


class ThreadBoarding(InThread, Boarding):
    """A call of a thread."""

    __slots__ = ("job",)


@looked_through
def call(
    memo: Memo,
    run: Callable[..., Any],
    key: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    renew: bool = False,
) -> Any:
    """Serve a call that the first check could not; with `renew` one that a fresh value does not satisfy."""
    off = switch in environment and switched_off()  # a call only where it is set
    if off or memo.bypassed or inside() or memo.store.is_owned():
        return run(*args, **kwargs)
    if unsettled:
        settle()
    thread = get_ident()
    actor = thread if waiters.running_loop() is None else current_actor()
    boarding = ThreadBoarding()  # in line: `boarding_of`
    boarding.key = key
    boarding.actor = actor
    boarding.thread = boarding.waiter = thread
    boarding.renew = renew
    boarding.before = None
    verdict = boarding.verdict = NONE
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
                    raise_shared(boarding.flight.error, boarding.flight.traceback)
                return boarding.flight.value
        if verdict is LEAD:
            if boarding.flight.told:
                memo.tell.fetching(boarding.flight)
            value = run(*args, **kwargs) if kwargs else run(*args)
            if type(value) not in PLAIN and id(type(value)) not in accepted:
                check_shareable(memo.name, value, references=getrefcount(value))
            memo.land(boarding.flight, value)
            return value
        return _served(memo, run, boarding, args, kwargs)
    except BaseException as error:
        try:
            memo.give_up(boarding, error)
        except (RecursionError, MemoryError):  # the caller is to receive its own error
            unsettled[boarding] = memo.settle, boarding, error
        except BaseException:  # an interrupt
            unsettled[boarding] = memo.settle, boarding, error
            raise
        raise
    finally:
        if unsettled:
            try:  # noqa: SIM105  # `suppress` would be a call, for which there may be no room either
                settle()
            except RecursionError:  # the caller is to receive its own error
                pass


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
        raise_shared(bare_copy_of(record.error))
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
        if type(value) not in PLAIN and id(type(value)) not in accepted:
            check_shareable(memo.name, value, references=getrefcount(value))
        memo.land(flight, value)
    except BaseException as error:
        try:
            memo.call_off(flight)  # an interrupt: it has not begun
            memo.give_up(renewal, error)
        except (RecursionError, MemoryError):
            unsettled[flight] = memo.settle_flight, flight, error
        except BaseException:
            unsettled[flight] = memo.settle_flight, flight, error
            raise
        if not isinstance(error, Exception):
            raise
    finally:
        if not flight.detached:
            renewal.record = memo.store.find(renewal.key)
        del flight


@looked_through
def _wait(memo: Memo, boarding: Boarding, began: float) -> Verdict:
    """Wait at the gate, and at the next one, until there is something else to do."""
    warn_of_blocking(memo)
    if boarding.told:
        memo.tell.waiting(boarding.flight, boarding.place)
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
        if unsettled:
            settle()
    return verdict


def warn_of_blocking(memo: Memo) -> None:
    """In asyncio's debug mode, say once that waiting in a thread holds up the event loop that runs on it.

    And that threading was patched too late.
    """
    patches.tell("waiting")
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
            stacklevel=2,  # what is between is looked through
        )
