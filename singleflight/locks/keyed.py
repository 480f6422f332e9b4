"""Keyed locks: the registry of slots, one for each key, and `with locks(key):` on top of it.

Idle slots are kept, least recently used first, up to a limit. Looking a slot up and taking or queueing for
it happen in one critical section of the `mutex`, so a slot that anybody looks at can be neither
evicted nor doubled. What is evicted is let go of after the mutex is free.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..common import patches
from ..common.durations import patience, seconds
from ..common.errors import FlightDeadlock, FlightTimeout, UnhashableKey
from ..common.messages import listed, shown
from . import jobs
from .jobs import job_of_loop, job_of_thread
from .latch import LOOK, LOOK_AGAIN, Latch
from .mutex import inside, inside_other, mutex
from .slots import Hold
from .table import Slots, keys_of, register, registries
from .unsettled import After, settle, unsettled
from .waiters import Waiter, descends, thread_waiter
from .waitgraph import begin_waiting, cycle, end_waiting, note, refusal, reset_after_fork, waits

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["Held", "KeyedLocks", "after_fork"]


class Queued:
    """A hold that waits for its keys, with the time at which its owner gives up."""

    __slots__ = ("_give_up", "hold", "latch", "timeout")
    hold: Hold
    latch: Latch
    timeout: float | None

    def __init__(self, hold: Hold, latch: Latch, timeout: float | None) -> None:
        self.hold, self.latch, self.timeout = hold, latch, timeout
        self._give_up = None if timeout is None else time.monotonic() + timeout

    def pause(self) -> float:
        """Return how many seconds to wait before looking again."""
        pause = LOOK_AGAIN if self.hold.waiter.awaited_outside else LOOK
        return pause if self._give_up is None else max(0.0, min(pause, self._give_up - time.monotonic()))

    def is_over(self) -> bool:
        """Return True if the time to wait has run out."""
        return self._give_up is not None and time.monotonic() >= self._give_up

    def cycle(self) -> list[Hashable] | None:
        """The keys of the cycle that its waiting closes, if it does; call under the mutex."""
        return keys_of(cycle(self.hold.waiter, self.hold, self._give_up is not None), self.hold)

    def look(self) -> bool:
        """Return True if it has its keys (an interrupt may have lost the wake-up); raise to give up."""
        hold, found = self.hold, None
        for turn in hold.in_the_way():
            turn.see_to()
        with mutex:
            granted = not hold.missing or (bool(hold.slots) and Slots.overtake(hold))
            if not granted and hold.waiter.awaited_outside:
                hold.waiter.look_again()
                note(hold.waiter, hold.waiter.climb())
                found = self.cycle()
        if found is not None:
            raise FlightDeadlock(refusal(found))
        if not granted and self.is_over():
            raise FlightTimeout(f"waited {self.timeout:g} s for {listed(hold.keys)}")
        return granted


class KeyedLocks(Slots):
    """A lock for every key, made when it is needed and forgotten when it is idle.

    A thread in a `with` block, or a task in an `async with` block, holds its keys and excludes all other
    callers from these keys alone, first come, first served. A lock that is held or awaited is never evicted,
    and a key never has two locks.

    Args:
        max_idle: how many idle locks, which no caller holds or waits for, are kept; the least recently used
            are evicted first. None (default) keeps all, 0 none.

    >>> locks = KeyedLocks(max_idle=100)
    >>> with locks("AAPL"):
    ...     locks.held("AAPL"), locks.held("MSFT")
    (True, False)
    >>> with locks("AAPL", "MSFT", timeout=1):
    ...     len(locks)
    2

    >>> import asyncio
    >>> async def in_a_task():
    ...     async with locks("AAPL", timeout=1):
    ...         return locks.held("AAPL")
    >>> asyncio.run(in_a_task())
    True

    Safe to use from any thread and event loop. Two statements that take several keys each never block one
    another for ever, in whatever order they name them. Nested statements can; the one that would close the
    cycle raises `FlightDeadlock`, as does taking a key that this thread or task already holds. A task
    that waits in `async with` does not block its event loop, and may be cancelled; a plain `with` blocks it.
    A child task does not share what its parent holds.

    A block may be left on another thread than it was entered on, as web frameworks do with dependencies that
    `yield`. A lock that a thread of `concurrent.futures` or anyio (FastAPI, Starlette) took belongs to the
    job that it ran then; a later job of that thread waits like any other caller. Other pools are not
    recognised: there a block in a generator or an `__enter__` needs a `timeout`, and a caller that asks for
    the key again on the same thread waits that long instead of raising.
    """

    def __init__(self, max_idle: int | None = None) -> None:
        if max_idle is not None and (isinstance(max_idle, bool) or not isinstance(max_idle, int)):
            raise TypeError(f"max_idle: expected a whole number or None, got {shown(max_idle)}")
        if max_idle is not None and max_idle < 0:
            raise ValueError(f"max_idle: cannot be negative, got {max_idle}")
        super().__init__(max_idle)
        self.filed: Callable[[Any], Hashable] | None = None  # makes of a key the one that it is known by
        register(self)

    def __call__(self, *keys: Hashable, timeout: float | timedelta | None = None) -> Held:
        """Return a context manager that holds these keys inside its `with` or `async with` block.

        Args:
            keys: one or more; a key named twice is taken once.
            timeout: how long to wait, in seconds; None (default) without a limit, 0 not at all.

        Entering raises `FlightTimeout` when the time runs out and `FlightDeadlock` when waiting would
        never end, and `async with` a `SingleFlightError` where no asyncio task runs; none of the keys is held
        then. Bad arguments (`TypeError`, `UnhashableKey`) raise here.
        """
        if not keys:
            raise TypeError("locks() needs at least one key")
        known = dict.fromkeys(self._known(key, f"key {place}") for place, key in enumerate(keys, 1))
        return Held(self, tuple(known), patience(timeout, "timeout"))

    def _known(self, key: Hashable, called: str) -> Hashable:
        """Return what a key is known by. Raises `UnhashableKey`, naming it."""
        try:
            hash(key)
        except TypeError:
            raise UnhashableKey(f"{called}: {shown(key)} cannot be hashed") from None
        return key if self.filed is None else self.filed(key)

    def held(self, key: Hashable) -> bool:
        """Return True if a thread or task holds this key now."""
        key = self._known(key, "key")
        settle()
        with mutex:
            slot = self.by_key.get(key)
            return slot is not None and slot.turn is not None and slot.turn.leader is not None

    def waiting(self, key: Hashable) -> int:
        """Return how many callers wait for this key now."""
        key = self._known(key, "key")
        settle()
        with mutex:
            slot = self.by_key.get(key)
            if slot is None:
                return 0
            waiting = sum(turn.waiters() + (turn.leader is not None) for turn in slot.queue)
            waiting += slot.turn.waiters() if slot.turn is not None else 0
        return waiting  # not within: an interrupt between a call and a return may leave the mutex held

    @property
    def idle(self) -> int:
        """The number of locks that no caller holds or waits for."""
        return len(self._idle)

    def __len__(self) -> int:
        """Return the number of locks, including idle ones."""
        with mutex:
            live, idle = len(self.by_key) + len(self._spoilt), len(self._idle)
        return live + idle

    def __bool__(self) -> bool:
        """Return True, also without locks."""
        return True

    def __repr__(self) -> str:
        return f"<KeyedLocks: {len(self.by_key) + len(self._spoilt)} live, {len(self._idle)} idle>"

    def evict_idle(self, older_than: float | timedelta = 0) -> int:
        """Evict the locks that have been idle for at least `older_than` seconds. Return how many."""
        since = time.monotonic() - seconds(older_than, "older_than")
        if inside():
            return 0
        with mutex:
            evicted = self._idle.pop_older(since)  # destroyed after the mutex is free
        return len(evicted)

    # -- plain holds ---------------------------------------------------------------------------------

    def acquire(self, hold: Hold, timeout: float | None) -> None:
        """Wait in this thread until the hold has all its keys. If this raises, it has none."""
        before = waits(hold.waiter.blocks)
        try:
            queued = self._queue_for(hold, timeout)
            if queued is not None:
                patches.tell("waiting")
            while queued is not None and not queued.latch.wait(queued.pause()) and not queued.look():
                settle()
            self._waits_no_more(hold.waiter, before)
        except BaseException:
            try:
                self.release(hold)
                self._waits_no_more(hold.waiter, before)
            except (RecursionError, MemoryError):
                unsettled[hold] = self._settle, hold, before
            except BaseException:
                unsettled[hold] = self._settle, hold, before
                raise
            raise

    async def acquire_in_task(self, hold: Hold, timeout: float | None) -> None:
        """The same in a task."""
        waiter: Any = hold.waiter
        before = waits(waiter.blocks)
        queued = None
        try:
            queued = self._queue_for(hold, timeout)
            while queued is not None and not await waiter.sit(LOOK, queued.pause()) and not queued.look():
                pass
            if queued is not None:
                waiter.rise()
            self._waits_no_more(waiter, before)
        except BaseException:
            try:
                if queued is not None:
                    waiter.rise()
                self.release(hold)
                self._waits_no_more(waiter, before)
            except (RecursionError, MemoryError):
                unsettled[hold] = self._settle, hold, before
            except BaseException:
                unsettled[hold] = self._settle, hold, before
                raise
            raise

    @staticmethod
    def _waits_no_more(waiter: Waiter, before: int) -> None:
        end_waiting(waiter.blocks, before)
        if waiter.noted:
            with mutex:
                note(waiter, frozenset())

    def _queue_for(self, hold: Hold, timeout: float | None) -> Queued | None:
        """Take or queue for every key; None when nothing is missing."""
        if inside():
            raise FlightDeadlock("a keyed lock cannot be taken from inside the library's own section")
        if unsettled:
            settle()
        waiter = hold.waiter
        hold.depth = waits(waiter.thread)
        found = queued = None
        with mutex:
            self._take(hold)
            if hold.missing:
                hold.latch = Latch()
                queued = Queued(hold, hold.latch, timeout)
                found = queued.cycle()
                if found is None:
                    begin_waiting(waiter.blocks, hold)
                    waiter.stand_at(hold.latch)
                    if waiter.awaited_outside:
                        note(waiter, waiter.climb())
        if found is not None:
            raise FlightDeadlock(refusal(found))
        if queued is not None and inside_other():
            raise FlightDeadlock("a keyed lock cannot be waited for from inside the library's own section")
        return queued

    def _take(self, hold: Hold) -> None:
        """Take every key, or queue for it."""
        for key in hold.keys:
            self.place(hold, self.enter(key))

    def release(self, hold: Hold) -> None:
        """Give up every slot that a hold has or queues for; may be repeated."""
        try:
            if inside():  # a finaliser in the midst of a section: whoever leaves it does this then
                unsettled[hold] = self._settle, hold, None
                return
            after = After()
            try:
                with mutex:
                    self._give_up(hold, after)
            finally:
                after.run()
        except (RecursionError, MemoryError):
            unsettled[hold] = self._settle, hold, None
        except BaseException:  # an interrupt
            unsettled[hold] = self._settle, hold, None
            raise
        finally:
            if unsettled:
                settle()

    def _give_up(self, hold: Hold, after: After) -> None:
        for slot in hold.slots:
            if slot.turn is hold:
                self.vacate(slot, after)
            else:
                slot.step_out(hold)
        hold.slots = []

    def _settle(self, hold: Hold, before: int | None, after: After) -> None:
        """Give up a hold whose owner could not, and its wait. Call under the mutex; may be repeated."""
        self._give_up(hold, after)
        if before is not None:
            end_waiting(hold.waiter.blocks, before)
            note(hold.waiter, frozenset())


class Held:
    """Holds keys inside its `with` or `async with` block. Made by `KeyedLocks`; may be used again."""

    __slots__ = ("_hold", "_keys", "_locks", "_timeout")

    def __init__(self, locks: KeyedLocks, keys: tuple[Hashable, ...], timeout: float | None) -> None:
        self._locks, self._keys, self._timeout = locks, keys, timeout
        self._hold: Hold | None = None  # written by whoever holds the keys

    def __enter__(self) -> None:
        hold = Hold(self._keys, thread_waiter(), self._locks.release)
        if hold.thread != jobs.main:
            hold.job = job_of_thread(sys._getframe(1))
        self._locks.acquire(hold, self._timeout)
        self._hold = hold

    def __exit__(self, *_: object) -> None:
        hold = self._hold
        self._hold = None
        if hold is not None:
            try:
                self._locks.release(hold)
            except RecursionError:  # there was no room to enter it
                unsettled[hold] = self._locks._settle, hold, None
            except BaseException:  # an interrupt at its entry
                unsettled[hold] = self._locks._settle, hold, None
                raise

    async def __aenter__(self) -> None:
        from .task_waiters import task_waiter

        hold = Hold(self._keys, task_waiter("async with locks(...)"), self._locks.release)
        hold.job = job_of_loop()
        await self._locks.acquire_in_task(hold, self._timeout)
        # Tasks that begin inside may come to be waited for by this one.
        hold.token = descends.set(descends.get() or True)
        self._hold = hold

    async def __aexit__(self, *_: object) -> None:
        hold = self._hold
        self.__exit__()
        if hold is not None and hold.token is not None:
            with suppress(ValueError):  # left in another context than it was entered in
                descends.reset(hold.token)


def after_fork() -> None:
    """In a forked child: nobody else holds or waits for anything."""
    reset_after_fork()
    unsettled.clear()
    jobs.after_fork()
    for locks in registries():
        locks.after_fork()
