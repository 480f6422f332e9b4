"""Who asks for a turn, where it is a thread (for tasks see `task_waiters`), and who may wait for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable
from collections.abc import Set as AbstractSet
from contextvars import ContextVar
from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .asyncio_edges import above_job, job_of_this_thread
from .latch import Latch

__all__ = [
    "NOBODY",
    "Actor",
    "InThread",
    "Waiter",
    "current_actor",
    "descends",
    "get_ident",
    "is_descendant",
    "new_waiter",
    "running_loop",
    "thread_waiter",
]

Actor = Hashable
"""Who holds and waits: a thread, by its identifier, an asyncio task, or a loop in one of its callbacks."""


def _running_loop_if_any() -> Any:
    """The event loop that runs on this thread; where nobody has imported asyncio there is none.

    Nor while somebody imports it: it lists its names last, when its functions are what they are to be.
    """
    global running_loop
    asyncio: Any = sys.modules.get("asyncio")
    if not hasattr(asyncio, "__all__"):
        return None
    running_loop = asyncio._get_running_loop  # from now on without this detour
    return running_loop()


running_loop: Callable[[], Any] = _running_loop_if_any


def current_actor() -> Actor:
    """The running task, or the thread where none runs.

    A loop's callback or signal handler is the loop: the thread is who waits for the loop to end.
    """
    loop: Actor | None = running_loop()
    if loop is None:
        return get_ident()
    task: Actor | None = sys.modules["asyncio"].current_task()
    return loop if task is None else task


NOBODY: AbstractSet[Actor] = frozenset()


class Led(Protocol):
    """What is waited for: a turn."""

    leader: Actor | None


class Waiter:
    """Somebody who asks for a turn and may have to wait for it.

    `actor` will lead what is claimed, `thread` is where it runs, and `blocks` is what a wait holds up: that
    whole thread, or one task alone. `awaited_outside` is true once it is known that somebody outside this
    library may wait for it, now or later.
    """

    __slots__ = ("_above", "actor", "awaited_outside", "blocks", "noted", "thread")
    actor: Actor
    thread: Actor
    blocks: Actor
    awaited_outside: bool
    noted: AbstractSet[Actor]  # what `waitgraph` knows to be above it
    _above: AbstractSet[Actor] | None

    def begin(self) -> None:
        """It is going to ask; nothing is known of who may be above it."""
        self.awaited_outside = False
        self._above = None
        self.noted = NOBODY

    def is_below(self, turn: Led) -> bool:
        """Return True if that turn's leader waits, outside this library, for this waiter."""
        if self._above is None:
            self._above = self.above(turn)
        return turn.leader in self._above

    def above(self, _turn: Led, /) -> AbstractSet[Actor]:
        """Everybody who waits, outside this library, for this waiter; empty where that cannot matter.

        The turn is what gave rise to the question. Asked by its own actor; `climb` by anybody.
        """
        return frozenset()

    def climb(self) -> AbstractSet[Actor]:
        """The same, whether it matters or not, as it is now."""
        return frozenset()

    def is_dead(self) -> bool:
        """Return True if it will never go on: its event loop is gone."""
        return False

    def stand_at(self, latch: Latch, watcher: Any = None, watched: Any = None) -> None:
        """Note that it is going to wait at a latch; called under the mutex. Threads need no place there.

        While any task waits there `watcher.watch(watched)` is called now and then.
        """

    def look_again(self) -> None:
        """See anew who is above: that changes while one waits."""
        self._above = self.climb()


A = TypeVar("A", bound=Waiter)

descends: ContextVar[object] = ContextVar("singleflight_descends", default=False)
"""True, or a weak reference to a flight's work, in contexts that come from a task that may wait for them."""
is_descendant: Callable[[], object] = descends.get  # bound once: every follower asks
"""Return what is true if this context comes from a flight's task, which may come to wait for it."""


class InThread:
    """What waiting is for a thread that asks: it stands still as a whole, with the tasks that it runs."""

    if TYPE_CHECKING:  # the fields are its subclasses'
        awaited_outside: bool
        job: Any  # what an executor runs on this thread, once it is awaited_outside
    else:
        __slots__ = ()

    def above(self, _turn: Led, /) -> AbstractSet[Actor]:
        """Who waits for this thread, where it works for an executor."""
        if "concurrent.futures.thread" not in sys.modules:
            return frozenset()
        self.job = job_of_this_thread()
        self.awaited_outside = self.job is not None
        return self.climb()

    def climb(self) -> AbstractSet[Actor]:
        """The same, as it is now; asked by anybody."""
        if not self.awaited_outside:
            return frozenset()
        return above_job(self.job)


class ThreadWaiter(InThread, Waiter):
    """A thread that asks for a plain hold."""

    __slots__ = ("job",)


def new_waiter(kind: type[A], actor: Actor, thread: Actor, blocks: Actor) -> A:
    """One of this kind that is going to ask (no `__init__`: see `slots.new_slot`)."""
    waiter = kind()
    waiter.actor = actor
    waiter.thread = thread
    waiter.blocks = blocks
    waiter.begin()
    return waiter


def thread_waiter() -> ThreadWaiter:
    """Whoever runs on this thread now."""
    thread = get_ident()
    return new_waiter(ThreadWaiter, current_actor(), thread, thread)
