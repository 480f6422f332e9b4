"""How a thread asks for many keys at once. No policy: `bulk` decides."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from sys import getrefcount
from types import CoroutineType
from typing import Any

from ..common.frames import looked_through
from ..core.batch import Batch
from ..core.bulk_call import BulkCall, Request
from ..core.call import NONE, Call, new_call
from ..core.current import runs
from ..core.flight import Flight
from ..core.options import switched_off
from ..core.outcome import raise_shared
from ..core.shareable import check_shareable
from ..locks import waiters
from ..locks.mutex import inside, inside_other
from ..locks.unsettled import settle, unsettled
from ..locks.waiters import current_actor, get_ident
from .pool import in_background
from .seats import Seated
from .threads import ThreadCall, stand
from .wait import Wait

__all__ = ["call", "fly"]


class ItemCall(ThreadCall):
    """One key of a thread's bulk call."""

    __slots__ = ()
    follows = True


@looked_through
def call(request: Request) -> Any:
    """Serve a bulk call of a plain loader."""
    cache = request.cache
    if cache.bypassed or inside() or cache.store.is_owned() or switched_off():
        return _direct(request)
    if unsettled:
        settle()
    thread = get_ident()
    actor = thread if waiters.running_loop() is None else current_actor()
    bulk = request.bulk_call(lambda key: new_call(ItemCall, key, actor, thread, thread))
    if bulk.look():
        return bulk.answer()
    if inside_other():  # in a finaliser or signal handler: waiting here could hang others
        return _direct(request)
    try:
        bulk.board()
        renewal = bulk.renewal()
        if renewal is not None:
            _renew(bulk, renewal, request.run)
        alone = False
        while True:
            follower = bulk.sweep()
            if bulk.failed is not None:
                raise_shared(*bulk.failed)
            if bulk.led and request.gathers is not None and (lone := bulk.lone()):
                alone = _gather(bulk, *request.gathers, *lone, alone)
            elif bulk.led:
                fly(bulk.batch(), request.run)
            elif follower is not None:
                _wait(bulk, follower)
            else:
                return bulk.answer()
    except BaseException as error:
        try:
            bulk.give_up(error)
            if bulk.loading is not None:
                bulk.loading.close()  # an interrupt may have kept it open
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
@looked_through
def _direct(request: Request) -> Any:
    """Run the loader for everything that is asked for, without looking, sharing or storing."""
    chunks = request.chunks()
    if chunks is None:
        return request.run(request.items)
    loaded: dict[Any, Any] = {}
    for items in chunks:
        loaded.update(request.run(items))
    return loaded


@runs("batch")
@looked_through
def fly(batch: Batch, run: Callable[[list[Any]], Any]) -> None:
    """Run the loader until all is loaded, and land what it brings."""
    try:
        if batch.cache.tier is not None:
            batch.cache.tier.load(batch, partial(_load_in_line, batch, run))
        else:
            with nullcontext() if batch.cache.line is None else Seated(batch.cache, batch.flights):
                while items := batch.begin():
                    batch.land(_load(batch, run, items))
    except BaseException as error:
        try:
            struck = batch.fail(error)
            batch.close()
            if struck is not None:
                try:
                    raise struck
                finally:
                    del struck  # or this frame and the exception would keep each other
        except (RecursionError, MemoryError):
            unsettled[batch] = batch.settle, error
        except BaseException:  # an interrupt
            unsettled[batch] = batch.settle, error
            raise
        raise
    batch.close()


@looked_through
def _gather(
    bulk: BulkCall, part: Callable[[Any], Any], load: Callable[[], Any], call: Call, item: Any, alone: bool
) -> bool:
    """Have its only key loaded together with others. Returns whether it is `alone` if called anew."""
    join = bulk.cache.gathering.driver(False).join
    decision, value = join(bulk.cache, call, part(item), load(), alone)
    bulk.gathered(call, decision, value)
    return bool(value) if decision is NONE else alone


@looked_through
def _load(batch: Batch, run: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    with batch.running():
        loaded = run(items)
    if type(loaded) is CoroutineType:
        check_shareable(batch.name, loaded, "its loader returned", getrefcount(loaded))
    return loaded


@looked_through
def _load_in_line(batch: Batch, run: Callable[[list[Any]], Any], flights: list[Flight]) -> Any:
    with nullcontext() if batch.cache.line is None else Seated(batch.cache, flights, batch.flights):
        return _load(batch, run, batch.begin(flights))


def _renew(bulk: BulkCall, batch: Batch, run: Callable[[list[Any]], Any]) -> None:
    """Have values renewed in the background, or, where there is no place, in line."""
    renew = partial(contextvars.copy_context().run, partial(_fly_for_nobody, batch, run))
    accepted = in_background(renew)
    if not accepted:
        renew()
        bulk.values.update(batch.values)
    bulk.handed_over()


def _fly_for_nobody(batch: Batch, run: Callable[[list[Any]], Any]) -> None:
    """What it raises is counted and logged, and nobody's to see: it is nobody's call."""
    try:
        batch.renew_in(get_ident())
        fly(batch, run)
    except BaseException as error:
        try:
            batch.call_off(error)
            batch.close()
        except (RecursionError, MemoryError):
            unsettled[batch] = batch.settle, error
        except BaseException:
            unsettled[batch] = batch.settle, error
            raise
        if not isinstance(error, Exception):
            raise


@looked_through
def _wait(bulk: BulkCall, call: Call) -> None:
    """Wait for a flight that is followed, until there is something else to do."""
    if bulk.begin(call):
        wait = Wait(bulk.cache, call, bulk.waited)
        bulk.has_waited(call, stand(bulk.cache, call, wait), wait.seconds())
