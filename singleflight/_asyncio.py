"""How a task waits for a flight, and how a flight runs in a task of its own. No policy: `memo` decides.

A flight that a task leads is *work* in a task of its own, in a copy of the leader's context. So whoever
called may be cancelled without anybody else noticing: the leader's caller waits for its work at a future
(`home`) of its own, as followers do at the flight's gate.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from ._threads import raise_shared
from .askers import descends
from .boarding import JOIN, LEAD, NONE, SHARE, Boarding
from .crowds import InTask, is_gone, running_task
from .errors import FlightTimeout
from .flights import LANDED, Flight
from .gates import LOOK
from .locks import late, settle_late
from .memo import Memo
from .options import switched_off
from .outcomes import copy_of
from .turns import Actor, get_ident, inside

__all__ = ["TaskBoarding", "Work", "at_once", "call", "task_boarding"]


class TaskBoarding(InTask, Boarding):
    """A call of a task."""

    __slots__ = ("crowd", "future", "loop", "timer")


B = TypeVar("B", bound=TaskBoarding)


def task_boarding(kind: type[B], key: Any, task: Any, thread: Actor, renew: bool) -> B:
    """A call of a task, as `boarding_of` makes others."""
    boarding = kind()
    boarding.key = key
    boarding.actor = boarding.waiter = task
    boarding.thread = thread
    boarding.renew = renew
    boarding.verdict = NONE
    boarding.before = None
    boarding.loop = task.get_loop()
    return boarding


class Work:
    """One flight's task, and the way back to the caller that leads it.

    All fields are touched on the loop's own thread alone, but for the two that say where it runs.
    """

    __slots__ = (
        "_thread",
        "began",
        "error",
        "flight",
        "home",
        "homeless",
        "loop",
        "memo",
        "overdue",
        "task",
        "value",
    )

    def __init__(self, memo: Memo | None, flight: Flight | None, loop: asyncio.AbstractEventLoop) -> None:
        self.memo = memo  # these two until the task has ended
        self.flight = flight
        self.loop = loop
        self._thread = threading.current_thread()
        self.home: asyncio.Future[None] = loop.create_future()
        self.task: asyncio.Task[None] | None = None
        self.value: Any = None
        self.error: BaseException | None = None
        self.began = False
        self.overdue = False
        self.homeless = False  # nobody waits for it at home: it renews a value

    def stop(self) -> None:
        """Have the task cancelled; from any thread."""
        if asyncio._get_running_loop() is self.loop:
            self._cancel()
            return
        with suppress(RuntimeError):  # the loop is closed, and the task gone with it
            self.loop.call_soon_threadsafe(self._cancel)

    def may_stop(self) -> bool:
        """It fetches nothing else."""
        return True

    def _cancel(self) -> None:
        self.overdue = not self.home.done()  # its caller still waits: it is stopped for taking too long
        if self.task is not None:
            self.task.cancel()

    def is_dead(self) -> bool:
        """Whether the loop is closed, or stands still on a thread that has ended."""
        if self.homeless and not self.loop.is_running():
            return True  # nobody keeps that loop running to see it end
        return is_gone(self.loop, self._thread)

    def told(self, memo: Memo, flight: Flight, error: BaseException) -> BaseException:
        """What the caller is told of an error: nobody cancelled it, if its work was for taking too long."""
        if self.overdue and isinstance(error, asyncio.CancelledError):
            limit = memo.options.flight_timeout
            return FlightTimeout(f"{memo.name}: {flight.key!r} took longer than {limit:g} s: cancelled")
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
        memo, flight = self.memo, self.flight
        self.memo = self.flight = None
        if memo is not None and flight is not None and not (flight.has_ended() and self.home.done()):
            error = self.told(memo, flight, asyncio.CancelledError())
            memo.fail(flight, error)
            self.bring_home(None, error)


async def call(
    memo: Memo,
    run: Callable[..., Coroutine[Any, Any, Any]],
    key: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    renew: bool = False,
) -> Any:
    """Serve a call that the first check could not; with `renew` one that a fresh value does not satisfy."""
    if memo.bypassed or inside() or memo.store.is_owned() or switched_off():
        return await run(*args, **kwargs)
    boarding = task_boarding(TaskBoarding, key, running_task(memo.name), get_ident(), renew)
    waited = False
    try:
        verdict = memo.board(boarding)
        if late:
            settle_late()
        if verdict is JOIN:
            waited = True
            began = time.monotonic()
            if boarding.told:
                memo.tell.waiting(boarding.flight)
            while verdict is JOIN:
                if memo.is_patient and not boarding.uneasy:
                    future = boarding.sit(LOOK, None)
                else:
                    future = boarding.sit(*memo.pauses(boarding, began))
                opened = await future
                if opened and boarding.flight.state is LANDED:
                    verdict = SHARE  # what `awake` says, in short: thousands may wake at once
                    break
                verdict = memo.awake(boarding) if opened else memo.look(boarding, began)
                if verdict is NONE:  # its flight was detached and had no outcome to share
                    verdict = memo.board(boarding)
            if verdict is SHARE:
                if boarding.told:
                    memo.tell.shared(boarding.flight, memo.timer(), time.monotonic() - began)
                if boarding.flight.error is None:
                    return boarding.flight.value
                raise_shared(copy_of(boarding.flight.error, boarding.flight.traceback))
        if verdict is LEAD:
            return await _lead(memo, boarding, run, args, kwargs)
        record = boarding.record
        if boarding.renewal is not None:
            _renew(memo, boarding, run, args, kwargs)
        if record.error is not None:
            raise_shared(copy_of(record.error, None))
        return record.value
    except BaseException as error:
        if waited:
            boarding.rise()
        at_once(memo.abandon, boarding, error)
        raise
    finally:
        try:  # as `at_once`, in line: thousands may come this way at once
            if inside():
                late.append(partial(memo.done, boarding))
            else:
                memo.done(boarding)  # a traceback must not lead back to the exception it belongs to
        except BaseException:  # an interrupt: once more, for what it left
            at_once(memo.done, boarding)
            raise
        if late:
            settle_late()


def _renew(
    memo: Memo, boarding: Boarding, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Have a value renewed by a task of this loop, which outlives the caller."""
    renewal: Any = boarding.renewal
    work, task = _set_off(memo, renewal.flight, run, args, kwargs)
    work.home.set_result(None)  # nobody waits there
    work.homeless = True
    memo.entrust(renewal, work, task)
    boarding.renewal = None


def _set_off(
    memo: Memo, flight: Flight, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Work, asyncio.Task[None]]:
    """Have a flight run in a task of its own."""
    loop = asyncio.get_running_loop()
    work = Work(memo, flight, loop)
    flown = _fly(memo, flight, work, run, args, kwargs)
    try:
        task = work.task = loop.create_task(flown, name=memo.name)
    except BaseException:
        flown.close()
        raise
    task.add_done_callback(work.ended)
    return work, task


def at_once(end: Callable[..., object], *arguments: object) -> None:
    """End something; later, if the collector destroys a coroutine in the midst of a section."""
    if inside():
        late.append(partial(end, *arguments))
    else:
        end(*arguments)


async def _lead(
    memo: Memo, boarding: Boarding, run: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Have the flight run in a task of its own, and wait for what it brings home."""
    work, task = _set_off(memo, boarding.flight, run, args, kwargs)
    memo.hand_over(boarding, work, task)
    try:
        await work.home
    except BaseException:
        if not work.loop.is_closed():
            work.home.cancel()  # where it was not cancelled but closed, nobody waits there any more either
        at_once(memo.desert, boarding)
        raise
    error, value = work.error, work.value
    work.error = work.value = None
    if error is not None:
        try:
            raise error
        finally:
            del error  # or this frame and the exception would keep each other
    return value


async def _fly(
    memo: Memo,
    flight: Flight,
    work: Work,
    run: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """The work: run the function and land its flight."""
    descends.set(True)
    try:
        if flight.background:
            await asyncio.sleep(0)  # where tasks start eagerly, its caller must not be held up
        work.began = True
        if flight.told:
            memo.tell.fetching(flight)
        value = await run(*args, **kwargs)
        memo.land(flight, value)
        work.bring_home(value, None)
    except BaseException as error:
        told = work.told(memo, flight, error)
        at_once(memo.fail, flight, told)
        if not work.bring_home(None, told) and isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise  # nobody is left to raise it but the loop itself
        del told
    finally:
        del flight, work  # an exception that callers receive leads to this frame
