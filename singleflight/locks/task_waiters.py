"""How a task waits at a latch: together with the other tasks of its event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Protocol

from ..common.errors import NoTask
from .asyncio_edges import above_task
from .latch import Latch
from .waiters import Actor, Led, Waiter, get_ident, is_descendant, new_waiter
from .waitgraph import forget_the_gone

__all__ = ["InTask", "TaskWaiter", "is_gone", "running_task", "task_waiter"]


class Watcher(Protocol):
    """Looks on behalf of a group; the coordinator does."""

    def watch(self, watched: Any) -> float | None:
        """Look now; returns after how many seconds again, or None to have each look for itself."""
        ...


class LoopWaiters:
    """The tasks of one loop at one latch. All fields are touched on the loop's own thread alone.

    However many they are, opening costs one call into their loop, and one timer looks for all of them.

    Args:
        loop: theirs.
    """

    __slots__ = ("_left", "_watched", "_watcher", "is_watched", "loop", "members", "opened", "timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop: asyncio.AbstractEventLoop = loop
        self.members: list[InTask] = []  # some of which may have left
        self._left = 0
        self.opened: bool = False
        self.is_watched: bool = False
        self._watcher: Watcher | None = None
        self._watched: Any = None
        self.timer: asyncio.TimerHandle | None = None

    def watch(self, watcher: Watcher, watched: Any) -> None:
        """Have this one look at that now and then, while any of them waits."""
        self._watcher, self._watched = watcher, watched
        self.is_watched = True

    def open(self) -> None:
        """Wake them; called from any thread, perhaps again."""
        if asyncio._get_running_loop() is self.loop:
            self._wake()
            return
        try:
            self.loop.call_soon_threadsafe(self._wake)
        except RecursionError:  # which is a RuntimeError, too
            raise
        except RuntimeError:  # that loop is closed, and its tasks are gone with it
            self._watcher = self._watched = None
            self.members.clear()
            forget_the_gone()

    def _wake(self) -> None:
        self.opened = True
        self._watcher = self._watched = None  # the flight leads to its latch, and so to here
        for member in self.members:
            future = member.future
            if future is not None and not future.done():
                future.set_result(True)
                if member.timer is not None:
                    member.timer.cancel()
        self.members = []  # after it: at the end of the stack it may take another call to wake them all
        if self.timer is not None:  # last: whom an interrupt forgets looks then
            self.timer.cancel()
            self.timer = None

    def leave(self) -> None:
        """One of them waits no more; now and then those that left are let go of."""
        self._left += 1
        if self._left * 2 > len(self.members):
            self.members = [member for member in self.members if member.group is self]
            self._left = 0

    def look_later(self, pause: float) -> None:
        """Have somebody look after so many seconds, if nobody is going to."""
        if self.timer is None and self._watcher is not None:
            self.timer = self.loop.call_later(pause, self._look)

    def _look(self) -> None:
        self.timer = None
        pause = None if self._watcher is None else self._watcher.watch(self._watched)
        if pause is None:
            for member in self.members:
                member.look_up()
        elif self.members:
            self.look_later(pause)


class InTask:
    """What waiting is for a task that asks: a place in the group of its loop, and a future.

    A place is taken under the mutex, in the section that finds out that there is something to wait for; so
    no opening can miss it. Only tasks of the group's loop touch it, and they run on its thread.
    """

    if TYPE_CHECKING:  # the fields are its subclasses', which have others beside
        actor: Actor
        thread: Actor
        awaited_outside: bool
        loop: asyncio.AbstractEventLoop
        group: Any  # None once it has risen
        future: asyncio.Future[bool] | None
        timer: asyncio.TimerHandle | None
    else:
        __slots__ = ()

    def is_below(self, turn: Led) -> bool:
        """Return True if that turn's leader waits, outside this library, for this task."""
        if turn.leader != self.thread and not is_descendant():
            return False  # the usual case, in short
        return super().is_below(turn)  # type: ignore[misc, no-any-return]

    def above(self, _turn: Led, /) -> AbstractSet[Actor]:
        """Who waits for this task. It comes from a flight, or a leader may be beneath its loop."""
        self.awaited_outside = True
        return self.climb()

    def climb(self) -> AbstractSet[Actor]:
        """The same, as it is now."""
        task: Any = self.actor
        return above_task(task)

    def stand_at(self, latch: Latch, watcher: Watcher | None = None, watched: Any = None) -> None:
        """Take a place; call under the mutex."""
        loop = self.loop
        group: Any = latch.groups.get(loop)
        if group is None:
            group = latch.groups[loop] = LoopWaiters(loop)
        if not group.is_watched and watcher is not None:  # without one it does not look, as in `drain`
            group.watch(watcher, watched)
        self.group = group
        self.future = self.timer = None
        group.members.append(self)  # last: whoever wakes them finds these two there

    def sit(self, pause: float, own_pause: float | None) -> asyncio.Future[bool]:
        """What to await: True when the latch opens, False when `own_pause` seconds have passed.

        `pause` is when somebody has to look on behalf of all.
        """
        group: LoopWaiters = self.group
        future: asyncio.Future[bool]
        future = self.future = asyncio.Future(loop=group.loop)
        if group.opened:  # by a finaliser or signal handler, between standing and sitting
            future.set_result(True)
            return future
        if group.timer is None:
            group.look_later(pause)
        if own_pause is not None:
            self.timer = group.loop.call_later(own_pause, self.look_up)
        return future

    def look_up(self) -> None:
        """Have it look for itself, though the latch is shut."""
        if self.future is not None and not self.future.done():
            self.future.set_result(False)

    def rise(self) -> None:
        """It stood somewhere, and waits no more, for whatever reason."""
        group, self.group = self.group, None
        if group is not None:
            group.leave()
        if self.timer is not None:
            self.timer.cancel()


class TaskWaiter(InTask, Waiter):
    """A task that asks for a plain hold."""

    __slots__ = ("_runs", "future", "group", "loop", "timer")

    loop: asyncio.AbstractEventLoop
    _runs: threading.Thread

    def is_dead(self) -> bool:
        """Return True if its loop is closed, or stands still on a thread that has ended."""
        return is_gone(self.loop, self._runs)


def is_gone(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> bool:
    """Return True if a loop that ran on this thread will never run its tasks again."""
    if asyncio._get_running_loop() is loop:
        return False
    return loop.is_closed() or not (thread.is_alive() or loop.is_running())


def running_task(what: str) -> Any:
    """The task that runs now; raises `NoTask`, naming what needs one, where something else drives this."""
    loop = asyncio._get_running_loop()
    task = None if loop is None else asyncio.current_task(loop)
    if task is None:
        raise NoTask(
            f"{what}: needs an asyncio task, and none runs here; await it inside asyncio.run(...) or "
            f"loop.create_task(...) (elsewhere: asyncio.run_coroutine_threadsafe, or under Twisted "
            f"Deferred.fromFuture(asyncio.ensure_future(...)))"
        )
    return task


def task_waiter(what: str) -> TaskWaiter:
    """The task that runs now; raises `NoTask`, naming what needs one, where there is none."""
    task = running_task(what)
    waiter = new_waiter(TaskWaiter, task, get_ident(), task)
    waiter.loop = task.get_loop()
    waiter._runs = threading.current_thread()
    return waiter
