"""Waiting for the flights in progress to end, before a process or an event loop shuts down."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..common import patches
from ..common.durations import patience
from ..common.errors import FlightDeadlock
from ..common.messages import shown
from ..core.flight import Flight
from ..locks.latch import LOOK, LOOK_AGAIN, Latch
from ..locks.mutex import mutex
from ..locks.unsettled import settle
from ..locks.waiters import Waiter, thread_waiter
from ..locks.waitgraph import cycle
from .registry import all_caches

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["drain", "drain_sync"]


async def drain(timeout: float | timedelta | None = None) -> bool:
    """Wait in a task until no decorated function has a flight in progress. Return False on timeout.

    Args:
        timeout: how long to wait, in seconds; None (default) without a limit, 0 not at all.

    Returns True once no flight is in progress in the process (on this loop, on others, in threads), or False
    when the time ran out first. It also waits for flights that begin meanwhile: stop calling first. Detached
    flights, and those that are being cancelled, count as well; flights whose event loop is closed do not. The
    flights have landed then; tasks that waited for them may not have been resumed yet.

    This cancels nothing, and cancelling it affects no flight. Raises `FlightDeadlock` when called from
    within a flight, since it would wait for itself, `SingleFlightError` where no asyncio task runs, and
    `TypeError` or `ValueError` for a bad `timeout`. Does not block the event loop.

    >>> import asyncio
    >>> asyncio.run(drain(timeout=5))
    True
    """
    from ..locks.task_waiters import task_waiter

    waiter = task_waiter("drain")
    waiting = _Draining(waiter, timeout)
    while (next_one := waiting.next_one()) is not None:
        try:
            opened = await waiter.sit(LOOK, waiting.pause())
        finally:
            waiter.rise()
        if not opened and waiting.is_over() and not next_one[0].has_ended():
            return False
    return True


def drain_sync(timeout: float | timedelta | None = None) -> bool:
    """Wait in a thread until no decorated function has a flight in progress. Return False on timeout.

    Args:
        timeout: how long to wait, in seconds; None (default) without a limit, 0 not at all.

    Returns and raises what `drain` does. It blocks its thread: use `drain` where an event loop runs. On the
    thread of a loop that runs a flight it raises `FlightDeadlock`.

    >>> drain_sync(timeout=5)
    True
    """
    waiting = _Draining(thread_waiter(), timeout)
    while (next_one := waiting.next_one()) is not None:
        flight, latch = next_one
        if not latch.wait(waiting.pause()) and waiting.is_over() and not flight.has_ended():
            return False
    return True


class _Draining:
    """A caller that waits for all flights, one after another."""

    def __init__(self, waiter: Waiter, timeout: float | timedelta | None) -> None:
        seconds = patience(timeout, "timeout")
        self._asker = waiter
        self._give_up = None if seconds is None else time.monotonic() + seconds

    def next_one(self) -> tuple[Flight, Latch] | None:
        """Return a flight in progress and the latch that opens when it ends; None if there is none."""
        settle()
        waiter, bounded = self._asker, self._give_up is not None
        with mutex:
            if waiter.awaited_outside:
                waiter.look_again()  # somebody may have begun to wait for this very task
            flights = list(_in_progress())
            own = [flight for flight in flights if cycle(waiter, flight, bounded) is not None]
            if not own:
                if not flights:
                    return None
                latch = flights[0].open_later()
                waiter.stand_at(latch)
                return flights[0], latch
        flight = own[0]
        why = f"draining from within the flight of {shown(flight.key)} would never end"
        raise FlightDeadlock(f"{why}{patches.hint()}")

    def pause(self) -> float:
        """Return how many seconds to wait before looking again."""
        pause = LOOK_AGAIN if self._asker.awaited_outside else LOOK
        return pause if self._give_up is None else max(0.0, min(pause, self._give_up - time.monotonic()))

    def is_over(self) -> bool:
        """Return True if the time has run out."""
        return self._give_up is not None and time.monotonic() >= self._give_up


def _in_progress() -> Iterator[Flight]:
    """Yield every flight that runs, also detached ones, except those whose loop or thread is gone."""
    for cache in all_caches():
        for turn in [slot.turn for slot in cache.locks.live()] + list(cache.adrift):
            if (
                isinstance(turn, Flight)
                and turn.leader is not None
                and not turn.has_ended()
                and not turn.is_dead()
            ):
                yield turn
