"""How a thread takes part in a window, and how it runs one. No policy: `window` and `gathering` decide."""

from __future__ import annotations

import contextvars
from functools import partial
from typing import Any

from ..common.frames import looked_through
from ..core.cache import Cache
from ..core.call import LEAD, NONE, SHARE, Call, Decision, new_call
from ..core.gathering import Arguments
from ..core.window import Load, Stay, Window
from ..locks.mutex import inside_other
from ..locks.unsettled import unsettled
from ..locks.waiters import current_actor, get_ident
from .bulk_threads import fly
from .pool import in_background
from .threads import ThreadCall, stand

__all__ = ["gather", "join", "renew"]


@looked_through
def gather(cache: Cache, call: Call, arguments: Arguments, alone: bool) -> tuple[Decision, Any]:
    """Have the flight that a call leads loaded together with those of others.

    Returns SHARE and its value; NONE if it has to be called anew, and whether `alone`; LEAD if nobody gathers
    this call. Raises what its flight failed with.
    """
    part = cache.gathering.part(arguments)
    return (LEAD, None) if part is None else join(cache, call, part, arguments, alone)


@looked_through
def join(
    cache: Cache, call: Call, part: tuple[Any, Any], how: Load | Arguments, alone: bool
) -> tuple[Decision, Any]:
    """The same, where it is known what the call has in common with others, and its item."""
    window: Window | None = None
    flight = call.flight
    try:
        alone = alone or inside_other()  # in a finaliser or signal handler: waiting here could hang others
        window = cache.gathering.enter(call, part, how, False, alone)
        if window is None:
            return LEAD, None
        decision = _run(window, call) if window.opener is call else stand(cache, call, Stay(window, call))
        if decision is NONE:
            return NONE, window.is_unshared(flight)
        return SHARE, window.take(flight)
    except BaseException as error:
        _leave(cache, call, window, error)
        raise


def renew(cache: Cache, renewal: Any, arguments: Arguments) -> bool | None:
    """Have a value renewed together with others; None if nobody gathers it.

    False: there was no room in the pool, so it is done by now, and `renewal.record` is what is stored.
    """
    part = cache.gathering.part(arguments)
    if part is None:
        return None
    window, opened = cache.gathering.enter_renewal(renewal, part, arguments, False)
    if window is None or not opened:
        return None if window is None else True
    run = partial(contextvars.copy_context().run, partial(_run_renewals, cache, window))
    if in_background(run):
        return True
    run()
    renewal.record = cache.store.find(renewal.key)
    return False


def _run_renewals(cache: Cache, window: Window) -> None:
    """Run a window of renewals on this thread, unless a caller does that by now.

    What it raises is counted and logged, and nobody's to see: it is nobody's call.
    """
    thread = get_ident()
    call = new_call(ThreadCall, None, current_actor(), thread, thread)
    try:
        if cache.gathering.begin(window, call):
            _run(window, None)
    except BaseException as error:
        _leave(cache, call, window, error)
        if not isinstance(error, Exception):
            raise


@looked_through
def _run(window: Window, call: Call | None) -> Decision:
    """Wait until a window closes, and run its loader. SHARE: take what there is; NONE: call anew."""
    own = None if call is None else call.flight
    window.full.wait(window.left())
    window.send_off()
    try:
        fly(window, window.run)
    except Exception as error:
        if call is not None and window.skips(call):
            return NONE
        if own is None or window.error_of(own) is error or not window.has_outcome(own):
            window.forget(own)
            raise
    return SHARE


def _leave(cache: Cache, call: Call, window: Window | None, error: BaseException) -> None:
    """A call ends with an exception: whatever it holds of a window is given up."""
    try:
        cache.gathering.leave(call, window, error)
    except (RecursionError, MemoryError):  # the caller is to receive its own error
        unsettled[call] = cache.gathering.settle, call, window, error
    except BaseException:  # an interrupt
        unsettled[call] = cache.gathering.settle, call, window, error
        raise
