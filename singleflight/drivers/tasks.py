"""How a task waits for a flight, and how a flight runs in a task of its own. No policy: `core` decides.

A flight that a task leads is *work* in a task of its own, in a copy of the leader's context. So whoever
called may be cancelled without anybody else noticing: the leader's caller waits for its work at a future
(`home`) of its own, as followers do at the flight's latch.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from functools import partial
from sys import getrefcount
from typing import Any, TypeVar

from ..common.errors import FlightTimeout
from ..core import transitions
from ..core.asked import Asked
from ..core.cache import Cache
from ..core.call import JOIN, LEAD, NONE, SHARE, Call
from ..core.coordinator import board, join_at_once
from ..core.current import landing_value, runs
from ..core.flight import LANDED, Flight
from ..core.landing import fail, judge, land, settle_flight
from ..core.leaving import desert, end_wait, give_up, settle_call
from ..core.options import environment, switch, switched_off
from ..core.outcome import bare_copy_of, raise_shared
from ..core.renewal import entrust_renewal
from ..core.shareable import accepted
from ..core.transitions import land_at_once, lead_at_once
from ..locks.latch import LOOK
from ..locks.mutex import inside
from ..locks.task_waiters import InTask, is_gone, running_task
from ..locks.unsettled import settle, unsettled
from ..locks.waiters import Actor, descends, get_ident
from .seats import Seated
from .wait import Wait

__all__ = ["TaskCall", "Work", "call", "new_work", "start_task", "task_call"]


class TaskCall(InTask, Call):
    """A call of a task."""

    __slots__ = ("future", "group", "loop", "timer")


B = TypeVar("B", bound=TaskCall)


def task_call(kind: type[B], key: Any, task: Any, thread: Actor, renew: bool) -> B:
    """A call of a task, as `boarding_of` makes others."""
    call = kind()
    call.key = key
    call.actor = call.blocks = task
    call.thread = thread
    call.renew = renew
    call.decision = NONE
    call.before = call.renewal = None
    call.loop = task.get_loop()
    return call


class Work:
    """One flight's task, and the way back to the caller that leads it. Made by `new_work`.

    All fields are touched on the loop's own thread alone, but for the two that say where it runs.
    """

    __slots__ = (
        "__weakref__",
        "_thread",
        "began",
        "cache",
        "error",
        "flight",
        "home",
        "homeless",
        "loop",
        "overdue",
        "task",
        "value",
    )

    cache: Cache | None  # these two until the task has ended
    flight: Flight | None
    loop: asyncio.AbstractEventLoop
    _thread: threading.Thread
    home: asyncio.Future[None]
    task: asyncio.Task[None] | None
    began: bool
    overdue: bool
    homeless: bool  # nobody waits for it at home: it renews a value
    value: Any  # what it brings home: these two are there from then on
    error: BaseException | None

    def stop(self) -> None:
        """Have the task cancelled; from any thread."""
        if asyncio._get_running_loop() is self.loop:
            self._cancel()
            return
        try:
            self.loop.call_soon_threadsafe(self._cancel)
        except RecursionError:  # which is a RuntimeError, too
            raise
        except RuntimeError:  # the loop is closed, and the task gone with it
            pass

    def may_stop(self) -> bool:
        """It fetches nothing else."""
        return True

    def _cancel(self) -> None:
        self.overdue = not self.home.done()  # its caller still waits: it is stopped for taking too long
        if self.task is not None:
            self.task.cancel()

    def is_dead(self) -> bool:
        """Return True if the loop is closed, or its thread has ended or runs another loop now."""
        if self.homeless and not self.loop.is_running():
            return True  # nobody keeps that loop running to see it end
        return is_gone(self.loop, self._thread) or self._is_displaced()

    def _is_displaced(self) -> bool:
        """Return True if another loop runs on its loop's thread, so that it cannot go on while that one runs.

        It may go on afterwards. What it brings then is its own callers' alone, as after `flight_timeout`.
        """
        other = asyncio._get_running_loop()
        if other is None or other is self.loop or self.loop.is_running():
            return False
        return self._thread.ident == get_ident()

    def error_to_raise(self, error: BaseException) -> BaseException:
        """Return the error that its caller receives: `FlightTimeout` if its task took too long.

        That is without its message yet, which is made once the flight has ended.
        """
        if self.overdue and isinstance(error, asyncio.CancelledError):
            return FlightTimeout()
        return error

    def bring_home(self, value: Any, error: BaseException | None) -> bool:
        """Give the caller its outcome; False if it has gone."""
        if self.home.done():
            return False
        if not self.loop.is_closed():  # else the caller is gone with it
            self.value, self.error = value, error
            self.home.set_result(None)
        return True

    def ended(self, _task: asyncio.Task[None]) -> None:
        """The task is done. Usually all is settled; but it may have been cancelled before it began.

        Or an interrupt has struck while its flight ended.
        """
        cache, flight = self.cache, self.flight
        self.cache = self.flight = None
        if cache is not None and flight is not None and not (flight.has_ended() and self.home.done()):
            _end(cache, flight, self, asyncio.CancelledError())


W = TypeVar("W", bound=Work)


def new_work(kind: type[W], cache: Cache | None, flight: Flight | None) -> W:
    """The work of a task that is about to be made, for the running loop (no `__init__`: see `new_slot`)."""
    work = kind()
    work.cache = cache
    work.flight = flight
    work.loop = loop = asyncio.get_running_loop()
    work._thread = threading.current_thread()
    work.home = asyncio.Future(loop=loop)
    work.task = None
    work.began = work.overdue = work.homeless = False
    return work


@runs("call")
async def call(
    cache: Cache,
    run: Callable[..., Coroutine[Any, Any, Any]],
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
        return await run(*args, **kwargs)
    if unsettled:
        settle()
    call = task_call(TaskCall, key, running_task(cache.name), get_ident(), renew)
    waited, value = False, None
    try:
        at_once = join_at_once if key in cache.locks.by_key else lead_at_once
        decision = call.decision if cache.leads_at_once and at_once(cache, call) else board(cache, call)
        if decision is JOIN:
            waited, opened = True, None
            if call.renewal is not None:
                _renew(cache, call, run, args, kwargs)
            # Thousands may wait at once. The usual one has no pauses of its own and finds its flight landed.
            if cache.is_patient and not (call.awaited_outside or call.wants_events):
                opened = await call.sit(LOOK, None)
            if opened and call.flight.state is LANDED:
                decision = call.decision = SHARE  # its wait ends below
            else:  # also once it woke and found something else
                wait = Wait(cache, call)
                if opened is not None:
                    decision = wait.woken(opened)
                while decision is JOIN:
                    decision = wait.woken(await call.sit(*wait.pauses()))
                if decision is SHARE and call.wants_events:
                    cache.tell.shared(call.flight, cache.timer(), wait.seconds())
            if decision is SHARE:
                if call.flight.error is not None:
                    raise_shared(call.flight.error, call.flight.traceback)
                if asked is not None:
                    asked.flown("wait", call.flight)
                value = call.flight.value
        if decision is LEAD:
            flight = None if asked is None else call.flight
            if cache.is_direct or cache.gathering is None:
                value = await _lead(cache, call, run, args, kwargs)
            else:
                gather = cache.gathering.driver(True).gather
                decision, value = await gather(cache, call, (args, kwargs), alone)
                if decision is NONE:
                    return await _call_anew(cache, run, key, args, kwargs, renew, asked, value)
                if decision is LEAD:
                    value = await _lead(cache, call, run, args, kwargs)
            if asked is not None and flight is not None:
                asked.flown("fetch", flight)
        elif decision is not SHARE:
            record = call.record
            if call.renewal is not None:
                _renew(cache, call, run, args, kwargs)
            if record.error is not None:
                raise_shared(bare_copy_of(record.error))
            if asked is not None:
                asked.stored(call, record)
            value = record.value
    except BaseException as error:
        try:
            if waited:
                call.rise()
            if inside():  # the collector destroys a coroutine in the midst of a section
                unsettled[call] = settle_call, cache, call, error
            else:
                give_up(cache, call, error)
        except (RecursionError, MemoryError):  # the caller is to receive its own error
            unsettled[call] = settle_call, cache, call, error
        except BaseException:  # an interrupt
            unsettled[call] = settle_call, cache, call, error
            raise
        raise
    else:
        try:
            end_wait(call)
        except (RecursionError, MemoryError):
            unsettled[call] = settle_call, cache, call, None
        except BaseException:
            unsettled[call] = settle_call, cache, call, None
            raise
        return value if cache.copy is None else cache.copy(value)
    finally:
        if unsettled:
            try:  # noqa: SIM105  # `suppress` would be a call, for which there may be no room either
                settle()
            except RecursionError:  # the caller is to receive its own error
                pass


async def _call_anew(*arguments: Any) -> Any:
    """Serve a call whose flight ended without an outcome, together with those of others."""
    return await call(*arguments)


def _renew(
    cache: Cache, call: Call, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Have a value renewed by a task of this loop, which outlives the caller."""
    renewal: Any = call.renewal
    gathering = cache.gathering
    if gathering is None or not gathering.driver(True).renew(cache, renewal, (args, kwargs)):
        _renew_alone(cache, renewal, run, args, kwargs)
    call.renewal = None


def _renew_alone(
    cache: Cache, renewal: Any, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    try:
        work, task = _set_off(cache, renewal.flight, run, args, kwargs)
    except Exception as error:  # of a task factory: the value is served all the same
        fail(cache, renewal.flight, error)
        return
    work.home.set_result(None)  # nobody waits there
    work.homeless = True
    entrust_renewal(cache, renewal, work, task)


def _set_off(
    cache: Cache, flight: Flight, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Work, asyncio.Task[None]]:
    """Have a flight run in a task of its own."""
    work = new_work(Work, cache, flight)
    try:
        return work, start_task(work, _fly(cache, flight, work, run, args, kwargs), cache.name)
    except BaseException:
        flight.work = work  # which has not begun: the function was not called
        raise


def start_task(work: Work, flown: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Have the loop's task factory, of whatever shape, make the task that this work is.

    A factory need take nothing but a loop and a coroutine, so the name is set afterwards. If it raises, the
    coroutine is closed, and nothing of it has run.
    """
    try:
        task = work.task = work.loop.create_task(flown)
        task.add_done_callback(work.ended)
    except BaseException:
        flown.close()
        raise
    set_name = getattr(task, "set_name", None)
    if set_name is not None:
        set_name(name)
    return task


async def _lead(
    cache: Cache, call: Call, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Have the flight run in a task of its own, and wait for what it brings home."""
    flight = call.flight
    work, task = _set_off(cache, flight, run, args, kwargs)
    transitions.hand_over(call, work, task)
    try:
        await work.home
    except BaseException as struck:
        try:
            if not work.loop.is_closed():
                work.home.cancel()  # where it was not cancelled but closed, nobody waits there either
            if inside():
                unsettled[work] = transitions.desert, cache, flight
            elif desert(cache, flight):
                cache.tell.left(flight.key, struck, "errors", flight.ident, leads=True)
        except (RecursionError, MemoryError):
            unsettled[work] = transitions.desert, cache, flight
        except BaseException:
            unsettled[work] = transitions.desert, cache, flight
            raise
        raise
    finally:
        del flight  # an exception that callers receive leads to this frame
    error, value = work.error, work.value
    work.error = work.value = None
    if error is not None:
        try:
            raise error
        finally:
            del error  # or this frame and the exception would keep each other
    return value


@runs("flight")
async def _fly(
    cache: Cache,
    flight: Flight,
    work: Work,
    run: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """The work: run the function and land its flight."""
    descends.set(weakref.ref(work))
    try:
        if flight.background:
            await asyncio.sleep(0)  # where tasks start eagerly, its caller must not be held up
        if cache.tier is None:
            if cache.is_direct:  # in line: `_run`
                work.began = True
                if flight.wants_events:
                    cache.tell.fetching(flight)
                value = await run(*args, **kwargs)
                if id(type(value)) not in accepted:
                    value = landing_value(cache.name, flight, value, getrefcount(value))
            else:
                value = await _run(cache, flight, work, run, args, kwargs)
            if not (cache.lands_at_once and land_at_once(cache, flight, value)):
                land(cache, flight, value)
        else:
            execute = partial(_run, cache, flight, work, run, args, kwargs)
            value = await cache.tier.lead_in_task(flight, execute)
        work.bring_home(value, None)
        if type(work.task) is asyncio.Task:  # and no task of a factory's own, nor one that started eagerly
            work.task.remove_done_callback(work.ended)  # for all is settled
            work.cache = work.flight = None
    except BaseException as error:
        if not _end(cache, flight, work, error) and isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise  # nobody is left to raise it but the loop itself
    finally:
        del flight, work  # an exception that callers receive leads to this frame


async def _run(
    cache: Cache,
    flight: Flight,
    work: Work,
    run: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run the function; return its value, if it can be shared."""
    try:
        if cache.line is not None or cache.tell.around:
            value = await _run_within(cache, flight, work, run, args, kwargs)
        else:
            work.began = True
            if flight.wants_events:
                cache.tell.fetching(flight)
            value = await run(*args, **kwargs)
        if id(type(value)) not in accepted:
            value = landing_value(cache.name, flight, value, getrefcount(value))
        return value
    finally:
        del flight, work  # an exception that callers receive leads to this frame


async def _run_within(
    cache: Cache,
    flight: Flight,
    work: Work,
    run: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run the function, in line where there is one, and within what observers have entered around it."""
    try:
        async with nullcontext() if cache.line is None else Seated(cache, [flight]):
            work.began = True
            if flight.wants_events:
                cache.tell.fetching(flight)
            with cache.tell.running((flight,), cache.timer):
                return await run(*args, **kwargs)
    finally:
        del flight, work  # an exception that callers receive leads to this frame


def _end(cache: Cache, flight: Flight, work: Work, error: BaseException) -> bool:
    """End a flight whose work ended with an error, and tell its caller; False if that has gone."""
    raised, verdict = work.error_to_raise(error), None
    try:
        if inside():
            unsettled[flight] = settle_flight, cache, flight, raised
        else:
            overdue = raised is not error
            if cache.stores_failures:
                verdict = judge(cache, raised, flight)
                raised = verdict.error  # an abort of `failure_ttl` is its caller's
            fail(cache, flight, raised, overdue=overdue, verdict=verdict)
    except (RecursionError, MemoryError):
        unsettled[flight] = settle_flight, cache, flight, raised
    except BaseException:
        unsettled[flight] = settle_flight, cache, flight, raised
        raise
    finally:
        brought = work.bring_home(None, raised)
        del raised, verdict, flight, work, error  # or this frame and the exception would keep each other
    return brought
