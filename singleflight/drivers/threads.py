"""How a thread waits for a flight and runs the function. No policy: `core` decides."""

from __future__ import annotations

import contextvars
import warnings
from collections.abc import Callable
from functools import partial
from sys import getrefcount
from typing import Any, Protocol

from ..common import patches
from ..common.frames import looked_through
from ..core.asked import Asked
from ..core.cache import Cache
from ..core.call import JOIN, LEAD, NONE, SHARE, Call, Decision
from ..core.coordinator import board
from ..core.current import landing_value, runs
from ..core.flight import Flight
from ..core.landing import call_off, land, settle_flight
from ..core.leaving import give_up, leave, settle_call
from ..core.options import environment, switch, switched_off
from ..core.outcome import bare_copy_of, raise_shared
from ..core.renewal import begin_renewal
from ..core.shareable import accepted
from ..core.transitions import land_at_once, lead_at_once
from ..locks import waiters
from ..locks.mutex import inside, inside_other
from ..locks.unsettled import settle, unsettled
from ..locks.waiters import InThread, current_actor, get_ident
from .pool import in_background
from .seats import Seated
from .wait import Wait

__all__ = ["ThreadCall", "call", "stand"]


class ThreadCall(InThread, Call):
    """A call of a thread."""

    __slots__ = ("job",)


@runs("call")
@looked_through
def call(
    cache: Cache,
    run: Callable[..., Any],
    key: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    renew: bool = False,
    asked: Asked | None = None,
    alone: bool = False,
) -> Any:
    """Serve a call that the first check could not; with `renew` one that a fresh value does not satisfy.

    Where somebody has `asked`, how it was served is noted there. With `alone` it is not gathered with others.
    """
    off = switch in environment and switched_off()  # a call only where it is set
    if off or cache.bypassed or inside() or cache.store.is_owned():
        return run(*args, **kwargs)
    if unsettled:
        settle()
    thread = get_ident()
    actor = thread if waiters.running_loop() is None else current_actor()
    call = ThreadCall()  # in line: `boarding_of`
    call.key = key
    call.actor = actor
    call.thread = call.blocks = thread
    call.renew = renew
    call.before = call.renewal = None
    decision = call.decision = NONE
    try:
        if cache.leads_at_once and key not in cache.locks.by_key and lead_at_once(cache, call):
            decision = LEAD
        else:
            decision = board(cache, call)
        if decision is JOIN:
            if inside_other():  # in a finaliser or signal handler: waiting here could hang others
                leave(cache, call, timed_out=None)
                return run(*args, **kwargs)
            if call.renewal is not None:
                _have_renewed(cache, run, call, args, kwargs)
            wait = Wait(cache, call)
            decision = stand(cache, call, wait)
            if decision is SHARE:
                if call.wants_events:
                    cache.tell.shared(call.flight, cache.timer(), wait.seconds())
                if call.flight.error is not None:
                    raise_shared(call.flight.error, call.flight.traceback)
                if asked is not None:
                    asked.flown("wait", call.flight)
                value = call.flight.value
                return value if cache.copy is None else cache.copy(value)
        if decision is LEAD:
            if not cache.is_direct:
                decision, value = _lead(cache, run, call, args, kwargs, alone)
                if decision is NONE:
                    return _call_anew(cache, run, key, args, kwargs, renew, asked, value)
            else:
                if call.flight.wants_events:
                    cache.tell.fetching(call.flight)
                value = run(*args, **kwargs) if kwargs else run(*args)
                if id(type(value)) not in accepted:
                    value = landing_value(cache.name, call.flight, value, getrefcount(value))
                if not (cache.lands_at_once and land_at_once(cache, call.flight, value)):
                    land(cache, call.flight, value)
            if asked is not None:
                asked.flown("fetch", call.flight)
            return value if cache.copy is None else cache.copy(value)
        return _served(cache, run, call, args, kwargs, asked)
    except BaseException as error:
        try:
            give_up(cache, call, error)
        except (RecursionError, MemoryError):  # the caller is to receive its own error
            unsettled[call] = settle_call, cache, call, error
        except BaseException:  # an interrupt
            unsettled[call] = settle_call, cache, call, error
            raise
        raise
    finally:
        if unsettled:
            try:  # noqa: SIM105  # `suppress` would be a call, for which there may be no room either
                settle()
            except RecursionError:  # the caller is to receive its own error
                pass


@looked_through
def _lead(
    cache: Cache,
    run: Callable[..., Any],
    call: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    alone: bool,
) -> tuple[Decision, Any]:
    """Lead where running the function is not all: together with others, by the tier, or in line.

    Returns SHARE and the value, once its flight has landed; or as `gather_threads.gather` does.
    """
    if cache.gathering is not None:
        decision, value = cache.gathering.driver(False).gather(cache, call, (args, kwargs), alone)
        if decision is not LEAD:
            return decision, value
    execute = partial(_run, cache, call.flight, run, args, kwargs)
    if cache.tier is not None:
        return SHARE, cache.tier.lead(call.flight, execute)
    value = execute()
    land(cache, call.flight, value)
    return SHARE, value


def _call_anew(*arguments: Any) -> Any:
    """Serve a call whose flight ended without an outcome, together with those of others."""
    return call(*arguments)


def _served(
    cache: Cache,
    run: Callable[..., Any],
    call: Call,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    asked: Asked | None = None,
) -> Any:
    """What is stored, whose renewal this caller may have to see to."""
    record, renewal = call.record, call.renewal
    if renewal is not None:
        accepted = _have_renewed(cache, run, call, args, kwargs)
        if not accepted and renewal.record is not None:
            record = renewal.record
    if record.error is not None:
        raise_shared(bare_copy_of(record.error))
    if asked is not None:
        asked.stored(call, record)
    return record.value if cache.copy is None else cache.copy(record.value)


@looked_through
def _run(
    cache: Cache, flight: Flight, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run the function; return its value, if it can be shared."""
    if cache.line is not None:
        value = _run_in_line(cache, flight, run, args, kwargs)
    else:
        value = _run_observed(cache, flight, run, args, kwargs)
    if id(type(value)) not in accepted:
        value = landing_value(cache.name, flight, value, getrefcount(value))
    return value


@looked_through
def _run_in_line(
    cache: Cache, flight: Flight, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    with Seated(cache, [flight]):
        return _run_observed(cache, flight, run, args, kwargs)


@looked_through
def _run_observed(
    cache: Cache, flight: Flight, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if flight.wants_events:
        cache.tell.fetching(flight)
    if not cache.tell.around:
        return run(*args, **kwargs)
    with cache.tell.running((flight,), cache.timer):
        return run(*args, **kwargs)


def _have_renewed(
    cache: Cache, run: Callable[..., Any], call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    """Have a value renewed by a thread of the pool; False if there was no room, so that it is done by now."""
    renewal: Any = call.renewal
    accepted: bool | None = None
    if cache.gathering is not None:
        accepted = cache.gathering.driver(False).renew(cache, renewal, (args, kwargs))
    if accepted is None:
        renew = partial(contextvars.copy_context().run, partial(_renew, cache, run, renewal, args, kwargs))
        accepted = in_background(renew)
        if not accepted:
            renew()
    call.renewal = None
    return accepted


@runs("flight")
def _renew(
    cache: Cache, run: Callable[..., Any], renewal: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Run a renewal on this thread; `renewal.record` is then what is stored, by whomever.

    What it raises is counted and logged, and nobody's to see: it is nobody's call.
    """
    flight = renewal.flight
    try:
        if not begin_renewal(cache, renewal, get_ident()):
            return
        execute = partial(_run, cache, flight, run, args, kwargs)
        if cache.tier is not None:
            cache.tier.lead(flight, execute)
        else:
            land(cache, flight, execute())
    except BaseException as error:
        try:
            call_off(cache, flight)  # an interrupt: it has not begun
            give_up(cache, renewal, error)
        except (RecursionError, MemoryError):
            unsettled[flight] = settle_flight, cache, flight, error
        except BaseException:
            unsettled[flight] = settle_flight, cache, flight, error
            raise
        if not isinstance(error, Exception):
            raise
    finally:
        if not flight.detached:
            renewal.record = cache.store.find(renewal.key)
        del flight


class Waits(Protocol):
    """What `wait.Wait` is for a follower, and `core.window.Stay` for the member of a window."""

    def pause(self) -> float:
        """For how many seconds to wait."""
        ...

    def woken(self, opened: bool, /) -> Decision:
        """What to do then."""
        ...


@looked_through
def stand(cache: Cache, call: Call, wait: Waits) -> Decision:
    """Wait at the latch, and at the next one, until there is something else to do."""
    warn_of_blocking(cache)
    decision = JOIN
    while decision is JOIN:
        decision = wait.woken(call.latch.wait(wait.pause()))
    return decision


def warn_of_blocking(cache: Cache) -> None:
    """In asyncio's debug mode, say once that waiting in a thread holds up the event loop that runs on it.

    And that threading was patched too late.
    """
    patches.tell("waiting")
    if cache.warned:
        return
    loop = waiters.running_loop()
    if loop is not None and loop.get_debug():
        cache.warned = True
        warnings.warn(
            f"{cache.name} waits for another caller on the thread of an event loop, which stands still "
            f"meanwhile; await a coroutine function there (see .twin), or call it in asyncio.to_thread",
            RuntimeWarning,
            stacklevel=2,  # what is between is looked through
        )
