"""How a task asks for many keys at once. No policy: `bulk` decides.

What a task leads is loaded by *work* in a task of its own, as a single flight is (see `tasks`).
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext, suppress
from functools import partial
from sys import getrefcount
from types import CoroutineType
from typing import Any

from ..core.batch import Batch
from ..core.bulk_call import BulkCall, Request
from ..core.call import JOIN, NONE, Call
from ..core.current import runs
from ..core.flight import Flight
from ..core.options import switched_off
from ..core.outcome import raise_shared
from ..core.shareable import check_shareable
from ..locks.mutex import inside
from ..locks.task_waiters import running_task
from ..locks.unsettled import settle, unsettled
from ..locks.waiters import descends, get_ident
from .seats import Seated
from .tasks import TaskCall, Work, new_work, start_task, task_call
from .wait import Wait

__all__ = ["BatchWork", "call", "set_off"]

Loads = Callable[[list[Any]], Coroutine[Any, Any, Any]]


class ItemCall(TaskCall):
    """One key of a task's bulk call."""

    __slots__ = ()
    follows = True


class BatchWork(Work):
    """One batch's task, and the way back to the caller that leads it."""

    __slots__ = ("batch",)

    batch: Batch | None  # until the task has ended

    def may_stop(self) -> bool:
        """Return True if nobody wants any of its flights."""
        return self.batch is None or self.batch.may_stop()

    def ended(self, _task: asyncio.Task[None]) -> None:
        """The task is done. Usually all is settled; but it may have been cancelled before it began.

        Or an interrupt has struck while its flights ended.
        """
        batch, self.batch = self.batch, None
        if batch is not None and (batch.flights or not self.home.done()):
            _end(batch, self, asyncio.CancelledError())


async def call(request: Request) -> Any:
    """Serve a bulk call of a loader that is a coroutine function."""
    cache = request.cache
    if cache.bypassed or inside() or cache.store.is_owned() or switched_off():
        return await _direct(request)
    if unsettled:
        settle()
    thread = get_ident()
    bulk = request.bulk_call(lambda key: task_call(ItemCall, key, task, thread, False))
    if bulk.look():
        return bulk.answer()
    task = running_task(cache.name)  # for what is stored none is needed
    try:
        bulk.board()
        renewal = bulk.renewal()
        if renewal is not None:
            _renew(renewal, request.run)
            bulk.handed_over()
        alone = False
        while True:
            follower = bulk.sweep()
            if bulk.failed is not None:
                raise_shared(*bulk.failed)
            if bulk.led and request.gathers is not None and (lone := bulk.lone()):
                alone = await _gather(bulk, *request.gathers, *lone, alone)
            elif bulk.led:
                await _lead(bulk.batch(), request.run)
            elif follower is not None:
                await _wait(bulk, follower)
            else:
                return bulk.answer()
    except BaseException as error:
        try:
            if inside():  # the collector destroys a coroutine in the midst of a section
                unsettled[bulk] = bulk.settle, error
            else:
                bulk.give_up(error)
        except (RecursionError, MemoryError):  # the caller is to receive its own error
            unsettled[bulk] = bulk.settle, error
        except BaseException:  # an interrupt
            unsettled[bulk] = bulk.settle, error
            raise
        raise
    finally:
        if bulk not in unsettled:
            bulk.done()
        if unsettled:
            try:  # noqa: SIM105  # `suppress` would be a call, for which there may be no room either
                settle()
            except RecursionError:  # the caller is to receive its own error
                pass


@runs("")
async def _direct(request: Request) -> Any:
    """Run the loader for everything that is asked for, without looking, sharing or storing."""
    chunks = request.chunks()
    if chunks is None:
        return await request.run(request.items)
    loaded: dict[Any, Any] = {}
    for items in chunks:
        loaded.update(await request.run(items))
    return loaded


async def _gather(
    bulk: BulkCall, part: Callable[[Any], Any], load: Callable[[], Any], call: Call, item: Any, alone: bool
) -> bool:
    """Have its only key loaded together with others. Returns whether it is `alone` if called anew."""
    join = bulk.cache.gathering.driver(True).join
    decision, value = await join(bulk.cache, call, part(item), load(), alone)
    bulk.gathered(call, decision, value)
    return bool(value) if decision is NONE else alone


def set_off(
    batch: Batch, run: Loads, first: Callable[[], Awaitable[None]] | None = None
) -> tuple[BatchWork, asyncio.Task[None]]:
    """Have a batch loaded in a task of its own, which begins with what is `first`."""
    work = new_work(BatchWork, None, None)
    work.batch = batch
    try:
        return work, start_task(work, _fly(batch, work, run, first), batch.name)
    except BaseException as struck:
        batch.never_began(work)  # the loader was not called
        batch.fail(struck)
        raise


def _renew(renewal: Batch, run: Loads) -> None:
    """Have values renewed by a task of this loop, which outlives the caller."""
    with suppress(Exception):  # of a task factory: the values are served all the same
        # Where tasks start eagerly, its caller must not be held up.
        work, task = set_off(renewal, run, first=partial(asyncio.sleep, 0))
        work.home.set_result(None)  # nobody waits there
        work.homeless = True
        renewal.renew_by(work, task)


async def _lead(batch: Batch, run: Loads) -> None:
    """The same, and wait until it is home."""
    work, task = set_off(batch, run)
    batch.hand_over(work, task)
    try:
        await work.home
    except BaseException as struck:
        try:
            if not work.loop.is_closed():
                work.home.cancel()  # where it was not cancelled but closed, nobody waits there either
            if inside():
                unsettled[work] = batch.settle_desertion, batch.flights
            else:
                batch.desert(struck)
        except (RecursionError, MemoryError):
            unsettled[work] = batch.settle_desertion, batch.flights
        except BaseException:
            unsettled[work] = batch.settle_desertion, batch.flights
            raise
        raise
    batch.end()
    error = work.error
    work.error = None
    if error is not None:
        try:
            raise error
        finally:
            del error  # or this frame and the exception would keep each other


@runs("batch")
async def _fly(
    batch: Batch, work: BatchWork, run: Loads, first: Callable[[], Awaitable[None]] | None
) -> None:
    """The work: run the loader until all is loaded, and land what it brings."""
    descends.set(weakref.ref(work))
    try:
        if first is not None:
            await first()
        if batch.cache.tier is not None:
            work.began = True
            await batch.cache.tier.load_in_task(batch, partial(_load_in_line, batch, run))
        else:
            async with nullcontext() if batch.cache.line is None else Seated(batch.cache, batch.flights):
                work.began = True
                while items := batch.begin():
                    batch.land(await _load(batch, run, items))
        batch.close()
        work.bring_home(None, None)
    except BaseException as error:
        if not _end(batch, work, error) and isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise  # nobody is left to raise it but the loop itself
    finally:
        del batch, work  # an exception that callers receive leads to this frame


async def _load(batch: Batch, run: Loads, items: list[Any]) -> Any:
    try:
        with batch.running():
            return _checked(batch, await run(items))
    finally:
        del batch  # an exception that callers receive leads to this frame


def _checked(batch: Batch, loaded: Any) -> Any:
    if type(loaded) is CoroutineType:
        check_shareable(batch.name, loaded, "its loader returned", getrefcount(loaded))
    return loaded


async def _load_in_line(
    batch: Batch, run: Callable[[list[Any]], Coroutine[Any, Any, Any]], flights: list[Flight]
) -> Any:
    try:
        async with nullcontext() if batch.cache.line is None else Seated(batch.cache, flights, batch.flights):
            return await _load(batch, run, batch.begin(flights))
    finally:
        del batch  # an exception that callers receive leads to this frame


def _end(batch: Batch, work: BatchWork, error: BaseException) -> bool:
    """End the flights of a batch whose work ended with an error, and tell its caller; False if that went."""
    raised, struck = work.error_to_raise(error), None
    try:
        if inside():
            unsettled[batch] = batch.settle, raised
        else:
            struck = batch.fail(raised, overdue=raised is not error)
            if struck is not None:  # not its truth: that is the user's
                raised = struck
            batch.close()
    except (RecursionError, MemoryError):
        unsettled[batch] = batch.settle, raised
    except BaseException:
        unsettled[batch] = batch.settle, raised
        raise
    finally:
        brought = work.bring_home(None, raised)
        del raised, struck, batch, work, error  # or this frame and the exception would keep each other
    return brought


async def _wait(bulk: BulkCall, call: Call) -> None:
    """Wait for a flight that is followed, until there is something else to do."""
    if not bulk.begin(call):
        return
    assert isinstance(call, ItemCall)
    try:
        wait = Wait(bulk.cache, call, bulk.waited)
        decision = JOIN
        while decision is JOIN:
            decision = wait.woken(await call.sit(*wait.pauses()))
    except BaseException:
        call.rise()
        raise
    bulk.has_waited(call, decision, wait.seconds())
