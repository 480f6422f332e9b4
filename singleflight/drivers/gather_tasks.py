"""How a task takes part in a window, and how a task of its own runs one. No policy: `window` decides."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..core.cache import Cache
from ..core.call import JOIN, LEAD, NONE, SHARE, Call, Decision
from ..core.gathering import Arguments
from ..core.window import Load, Stay, Window
from ..locks.latch import LOOK
from ..locks.mutex import inside, mutex
from ..locks.task_waiters import task_waiter
from ..locks.unsettled import unsettled
from .bulk_tasks import BatchWork, set_off

__all__ = ["gather", "join", "renew"]


async def gather(cache: Cache, call: Any, arguments: Arguments, alone: bool) -> tuple[Decision, Any]:
    """Have the flight that a call leads loaded together with those of others; see `gather_threads`."""
    part = cache.gathering.part(arguments)
    return (LEAD, None) if part is None else await join(cache, call, part, arguments, alone)


async def join(
    cache: Cache, call: Any, part: tuple[Any, Any], how: Load | Arguments, alone: bool
) -> tuple[Decision, Any]:
    """The same, where it is known what the call has in common with others, and its item."""
    window: Window | None = None
    flight = call.flight
    try:
        window = cache.gathering.enter(call, part, how, True, alone)
        if window is None:
            return LEAD, None
        decision = await (_run if window.opener is call else _stay)(window, call)
        if decision is NONE:
            return NONE, window.is_unshared(flight)
        return SHARE, window.take(flight)
    except BaseException as error:
        _leave(cache, call, window, error)
        raise
    finally:
        del flight  # an exception that callers receive leads to this frame


def renew(cache: Cache, renewal: Any, arguments: Arguments) -> bool:
    """Have a value renewed together with others; False if nobody gathers it."""
    part = cache.gathering.part(arguments)
    if part is None:
        return False
    window, opened = cache.gathering.enter_renewal(renewal, part, arguments, True)
    if window is None or not opened:
        return window is not None
    try:
        work = _set_off(window)
    except Exception:  # of a task factory: the value is served all the same
        return True
    except BaseException as error:
        _leave(cache, renewal, window, error)
        raise
    work.home.set_result(None)  # nobody waits there
    work.homeless = True
    return True


def _set_off(window: Window) -> BatchWork:
    """Have a window run by a task of its own, whatever becomes of its caller."""
    try:
        work, task = set_off(window, window.run, first=partial(_wait_out, window))
        window.let_run_by(work, task)
    except BaseException as error:
        window.give_up(error)
        raise
    return work


async def _wait_out(window: Window) -> None:
    """Wait until a window closes: one timer, however many are in it."""
    waiter = task_waiter(window.name)
    with mutex:
        is_open = window.is_open  # else it is full already
        if is_open:
            waiter.stand_at(window.full)
    if is_open:
        try:
            await waiter.sit(LOOK, window.left())
        finally:
            waiter.rise()
    window.send_off()


async def _run(window: Window, call: Any) -> Decision:
    """Have it run, and wait until that is home. SHARE: take what there is; NONE: call anew."""
    own = call.flight
    work = _set_off(window)
    window.wait_as_opener(call)
    try:
        await work.home
    except BaseException:
        if not work.loop.is_closed():
            work.home.cancel()  # where it was not cancelled but closed, nobody waits there either
        raise
    error, work.error = work.error, None
    if error is not None:
        try:
            if isinstance(error, Exception) and window.skips(call):
                return NONE
            if not window.has_outcome(own) or window.error_of(own) is error:
                raise error
        finally:
            del error  # or this frame and the exception would keep each other
    return SHARE


async def _stay(window: Window, call: Any) -> Decision:
    """Wait, as a member, until its flight has ended."""
    stay, decision = Stay(window, call), JOIN
    try:
        while decision is JOIN:
            decision = stay.woken(await call.sit(*stay.pauses()))
    except BaseException:
        call.rise()
        raise
    return decision


def _leave(cache: Cache, call: Call, window: Window | None, error: BaseException) -> None:
    """A call ends with an exception: whatever it holds of a window is given up."""
    try:
        if inside():  # the collector destroys a coroutine in the midst of a section
            unsettled[call] = cache.gathering.settle, call, window, error
        else:
            cache.gathering.leave(call, window, error)
    except (RecursionError, MemoryError):  # the caller is to receive its own error
        unsettled[call] = cache.gathering.settle, call, window, error
    except BaseException:  # an interrupt
        unsettled[call] = cache.gathering.settle, call, window, error
        raise
