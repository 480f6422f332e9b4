"""How a task asks for many keys at once. No policy: `bulk` decides.

What a task leads is loaded by *work* in a task of its own, as a single flight is (see `_asyncio`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from ._asyncio import TaskBoarding, Work, at_once, task_boarding
from ._threads import raise_shared
from .askers import descends
from .batches import Batch
from .boarding import JOIN, Boarding
from .bulk import BulkCall
from .crowds import running_task
from .errors import FlightTimeout
from .locks import late, settle_late
from .options import switched_off
from .requested import Request
from .turns import get_ident, inside

__all__ = ["call"]


class ItemBoarding(TaskBoarding):
    """One key of a task's bulk call."""

    __slots__ = ()
    follows = True


class BatchWork(Work):
    """One batch's task, and the way back to the caller that leads it."""

    __slots__ = ("batch",)

    def __init__(self, batch: Batch, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(None, None, loop)
        self.batch: Batch | None = batch  # until the task has ended

    def may_stop(self) -> bool:
        """Whether nobody wants any of its flights."""
        return self.batch is None or self.batch.may_stop()

    def told_of(self, batch: Batch, error: BaseException) -> BaseException:
        """What the caller is told of an error: nobody cancelled it, if its work was for taking too long."""
        if self.overdue and isinstance(error, asyncio.CancelledError):
            return FlightTimeout(batch.too_long())
        return error

    def ended(self, _task: asyncio.Task[None]) -> None:
        """The task is done. Usually all is settled; but it may have been cancelled before it began.

        Or an interrupt has struck while its flights ended.
        """
        batch, self.batch = self.batch, None
        if batch is not None and (batch.flights or not self.home.done()):
            error = self.told_of(batch, asyncio.CancelledError())
            batch.fail(error)
            batch.close()
            self.bring_home(None, error)


async def call(request: Request) -> Any:
    """Serve a bulk call of a loader that is a coroutine function."""
    memo = request.memo
    if memo.bypassed or inside() or memo.store.is_owned() or switched_off():
        return await _direct(request)
    thread = get_ident()
    bulk = request.bulk_call(lambda key: task_boarding(ItemBoarding, key, task, thread, False))
    if bulk.look():
        return bulk.answer()
    task = running_task(memo.name)  # for what is stored none is needed
    try:
        bulk.board()
        if late:
            settle_late()
        renewal = bulk.renewal()
        if renewal is not None:
            work, task = _set_off(renewal, request.run, background=True)
            work.home.set_result(None)  # nobody waits there
            work.homeless = True
            renewal.renew_by(work, task)
            bulk.handed_over()
        while True:
            follower = bulk.sweep()
            if bulk.failed is not None:
                raise_shared(bulk.failure())
            if bulk.led:
                await _lead(bulk.batch(), request.run)
            elif follower is not None:
                await _wait(bulk, follower)
            else:
                return bulk.answer()
    except BaseException as error:
        at_once(bulk.give_up, error)
        raise
    finally:
        at_once(bulk.done)
        if late:
            settle_late()


async def _direct(request: Request) -> Any:
    """Run the loader for everything that is asked for, without looking, sharing or storing."""
    chunks = request.chunks()
    if chunks is None:
        return await request.run(request.items)
    loaded: dict[Any, Any] = {}
    for items in chunks:
        loaded.update(await request.run(items))
    return loaded


def _set_off(
    batch: Batch, run: Callable[[list[Any]], Coroutine[Any, Any, Any]], background: bool = False
) -> tuple[BatchWork, asyncio.Task[None]]:
    """Have a batch loaded in a task of its own."""
    loop = asyncio.get_running_loop()
    work = BatchWork(batch, loop)
    flown = _fly(batch, work, run, background)
    try:
        task = work.task = loop.create_task(flown, name=batch.name)
    except BaseException as struck:
        flown.close()
        batch.fail(struck)
        raise
    task.add_done_callback(work.ended)
    return work, task


async def _lead(batch: Batch, run: Callable[[list[Any]], Coroutine[Any, Any, Any]]) -> None:
    """The same, and wait until it is home."""
    work, task = _set_off(batch, run)
    batch.hand_over(work, task)
    try:
        await work.home
    except BaseException:
        if not work.loop.is_closed():
            work.home.cancel()  # where it was not cancelled but closed, nobody waits there any more either
        at_once(batch.desert)
        raise
    finally:
        at_once(batch.end)
    error = work.error
    work.error = None
    if error is not None:
        try:
            raise error
        finally:
            del error  # or this frame and the exception would keep each other


async def _fly(
    batch: Batch, work: BatchWork, run: Callable[[list[Any]], Coroutine[Any, Any, Any]], background: bool
) -> None:
    """The work: run the loader until all is loaded, and land what it brings."""
    descends.set(True)
    try:
        if background:
            await asyncio.sleep(0)  # where tasks start eagerly, its caller must not be held up
        work.began = True
        while items := batch.begin():
            batch.land(await run(items))
        batch.close()
        work.bring_home(None, None)
    except BaseException as error:
        told = work.told_of(batch, error)
        at_once(batch.fail, told)
        at_once(batch.close)
        if not work.bring_home(None, told) and isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise  # nobody is left to raise it but the loop itself
        del told
    finally:
        del batch, work  # an exception that callers receive leads to this frame


async def _wait(bulk: BulkCall, boarding: Boarding) -> None:
    """Wait for a flight that is followed, until there is something else to do."""
    memo, seat = bulk.memo, boarding
    began = time.monotonic() - bulk.waited
    if not bulk.begin(boarding):
        return
    assert isinstance(seat, ItemBoarding)
    try:
        if boarding.told:
            memo.tell.waiting(boarding.flight)
        verdict = JOIN
        while verdict is JOIN:
            future = seat.sit(*memo.pauses(boarding, began))
            verdict = memo.awake(boarding) if await future else memo.look(boarding, began)
    except BaseException:
        seat.rise()
        raise
    bulk.has_waited(boarding, verdict, began)
