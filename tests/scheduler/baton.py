"""A deterministic scheduler: real threads pass a baton, so that exactly one of them runs.

Each thread (an *actor*) runs until it comes to a scheduling point or blocks. There the scheduler may choose
among several *moves*: go on, let another actor go on, or let the time of somebody who waits run out. Move 0
is what plainly happens: go on; where that cannot be, the first actor that can; where there is none, the
earliest timer. A *schedule* is data that says where to choose otherwise: pairs `(gap, move)`, meaning
"after `gap` more choices make this move". `()` runs each actor until it blocks, so that a shrinking schedule
shrinks towards the fewest switches. The same schedule gives the same run.

A move is a *preemption* where what plainly happens was possible and something else was chosen: another
actor although this one could go on, or a timer although somebody could. (Whom a blocked actor makes way
for is a choice, and no preemption.) The idea of bounding them is that of CHESS (Musuvathi and Qadeer,
"Iterative context bounding for systematic testing of multithreaded programs", 2007).

Time is virtual: it passes only when a timer fires. A run in which nobody can go on is a `Deadlock`, one that
never ends a `Livelock`. The primitives that actors use are in `primitives`.
"""

from __future__ import annotations

import _thread
import contextvars
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Abort", "Actor", "Choice", "Deadlock", "Livelock", "Schedule", "Scheduler", "running"]

Schedule = Sequence[tuple[int, int]]
BEGIN = 1000.0  # what the clock says when a run begins
REAL_PATIENCE = 30.0  # seconds after which a run that uses none of our primitives to wait is given up
MOST_POINTS = 20_000


class Deadlock(AssertionError):
    """Everybody waits, and no time can run out."""


class Livelock(AssertionError):
    """A run does not end."""


class Abort(BaseException):
    """Ends the actors of a run that has failed."""


@dataclass(frozen=True)
class Choice:
    """A place in a run where several moves were possible."""

    moves: int
    free: int
    """How many of them, the first ones, are no preemption."""


class Worker(threading.Thread):
    """A thread that plays one actor after another; used again, for starting threads is slow."""

    idle: list[Worker] = []

    def __init__(self) -> None:
        super().__init__(daemon=True, name="actor")
        self.baton = _thread.allocate_lock()
        self.baton.acquire()
        self.job: Callable[[], None]
        self.start()

    def run(self) -> None:
        while True:
            self.baton.acquire()
            self.job()


class Actor:
    """One of those that a run is about. Touched by whoever has the baton."""

    def __init__(self, scheduler: Scheduler, number: int, name: str, run: Callable[[], Any]) -> None:
        self.number, self.name = number, name
        self.ended = False
        self.value: Any = None
        self.error: BaseException | None = None
        self.waits_for: object = None
        self.deadline: float | None = None  # of its wait
        self.timed_out = False
        self.lines: Any = None  # whether it is inside a tracer's callback
        self._run, self._scheduler = run, scheduler
        self.worker = Worker.idle.pop() if Worker.idle else Worker()
        self.worker.job = self._play

    def __repr__(self) -> str:
        return self.name

    def _play(self) -> None:
        scheduler = self._scheduler
        try:
            if scheduler.failure is None:
                if scheduler.tracer is not None:
                    scheduler.tracer.begin()
                self.value = contextvars.copy_context().run(self._run)  # nothing is left for the next
        except Abort:
            pass
        except BaseException as error:
            self.error = error
        finally:
            if scheduler.tracer is not None:
                scheduler.tracer.end()
        self.ended = True
        Worker.idle.append(self.worker)
        scheduler.actor_ended(self)


class Scheduler:
    """One run of some actors. `trace` tells, afterwards, who went on at which point, for reading.

    Args:
        schedule: where to make another move than what plainly happens.
        tracer: what adds a scheduling point at every line; see `lines`.
    """

    def __init__(self, schedule: Schedule = (), tracer: Any = None) -> None:
        self._plan = iter(schedule)
        self._gap, self._move = next(self._plan, (-1, 0))
        self.tracer = tracer
        self.actors: list[Actor] = []
        self.actor: Actor = None  # type: ignore[assignment]  # who has the baton
        self.now = BEGIN
        self.points = 0
        self.choices: list[Choice] = []
        self.waited_out: list[Actor] = []  # whose time ran out because nobody else could go on
        self.longest_pause = 0.0  # for how long nobody could go on, where the first timer ended it
        self.trace: list[str] = []
        self.failure: AssertionError | None = None
        self._over = _thread.allocate_lock()
        self._over.acquire()

    def spawn(self, run: Callable[[], Any], name: str = "") -> Actor:
        """One more actor: before the run, or by an actor within it."""
        number = len(self.actors)
        actor = Actor(self, number, name or "ABCDEFGHIJ"[number], run)
        self.actors.append(actor)
        return actor

    def run(self) -> list[Any]:
        """Run to the end; what the actors returned, in their order, or the first error that one raised."""
        _begin(self)
        try:
            self.actor = self.actors[0]
            self.actor.worker.baton.release()
            over = self._over.acquire(timeout=REAL_PATIENCE)
            assert over, f"a run stands still outside the scheduler: {self.told()}"
        finally:
            _end()
        if self.failure is not None:
            raise self.failure
        for actor in self.actors:
            if actor.error is not None:
                raise actor.error
        return [actor.value for actor in self.actors]

    # -- for primitives, which only the actor that has the baton calls ---------------------------------

    def point(self) -> None:
        """Another actor may go on here, or somebody's time run out."""
        if self.failure is not None:
            raise Abort
        self.points += 1
        if self.points > MOST_POINTS:
            self._fail(Livelock(f"still running after {self.points} points: {self.told()}"))
        me = self.actor
        others: list[Actor] = []
        timed: list[Actor] = []
        for actor in self.actors:
            if actor.ended or actor is me:
                continue
            if actor.waits_for is None:
                others.append(actor)
            elif actor.deadline is not None:
                timed.append(actor)
        if others or timed:
            timed.sort(key=_when)
            self._go(me, [me, *others, *timed], free=1)

    def block(self, on: object, timeout: float | None = None) -> bool:
        """Wait until somebody wakes those who wait for `on`; False when the time has run out first."""
        if self.failure is not None:
            raise Abort
        me = self.actor
        me.waits_for, me.timed_out = on, False
        me.deadline = None if timeout is None else self.now + timeout
        self._next(me)
        return not me.timed_out

    def wake(self, on: object) -> None:
        """Whoever waits for it may go on."""
        for actor in self.actors:
            if actor.waits_for is on:
                actor.waits_for = actor.deadline = None

    def join(self, actor: Actor) -> None:
        """Wait until an actor has ended."""
        while not actor.ended:
            self.block(actor)

    def actor_ended(self, actor: Actor) -> None:
        """It has, and goes away."""
        self.wake(actor)
        if self.failure is None:
            try:
                if any(not other.ended for other in self.actors):
                    self._next(actor)
                    return
            except Abort:
                pass
        left = next((other for other in self.actors if not other.ended), None)
        if left is None:
            self._over.release()
        else:  # a run that has failed: each of them is to end
            self.actor = left
            left.worker.baton.release()

    def forked(self) -> None:
        """In a forked child: only the actor that forked is here."""
        for actor in self.actors:
            actor.ended = actor is not self.actor

    def told(self) -> str:
        """Who waits for what, as text."""
        return ", ".join(
            f"{actor.name} {'has ended' if actor.ended else f'waits for {actor.waits_for!r}'}"
            for actor in self.actors
        )

    # -- who goes on ----------------------------------------------------------------------------------

    def _next(self, me: Actor) -> None:
        """This actor cannot go on: choose another."""
        live = [actor for actor in self.actors if not actor.ended]
        able = [actor for actor in live if actor.waits_for is None]
        timed = sorted((actor for actor in live if actor.deadline is not None), key=_when)
        if not able and not timed:
            self._fail(Deadlock(self.told()))
        self._go(me, able + timed, free=len(able) or 1, forced=not able)

    def _go(self, me: Actor, moves: list[Actor], free: int, forced: bool = False) -> None:
        chosen = moves[self._choose(len(moves), free)] if len(moves) > 1 else moves[0]
        if chosen.waits_for is not None:
            before, self.now = self.now, max(self.now, chosen.deadline or self.now)
            chosen.waits_for = chosen.deadline = None
            chosen.timed_out = True
            self.trace.append(f"{self.points}: the time of {chosen.name} runs out")
            if forced:
                self.waited_out.append(chosen)
                if chosen is moves[0]:  # else another one's time was to run out before
                    self.longest_pause = max(self.longest_pause, self.now - before)
        if chosen is me:
            return
        self.trace.append(f"{self.points}: {chosen.name} goes on")
        self.actor = chosen
        chosen.worker.baton.release()
        if me.ended:
            return
        me.worker.baton.acquire()
        if self.failure is not None:
            raise Abort

    def _choose(self, moves: int, free: int) -> int:
        self.choices.append(Choice(moves, free))
        if self._gap:
            self._gap -= 1
            return 0
        move = self._move % moves
        self._gap, self._move = next(self._plan, (-1, 0))
        return move

    def _fail(self, failure: AssertionError) -> None:
        self.failure = failure
        raise Abort


def _when(actor: Actor) -> tuple[float, int]:
    return actor.deadline or 0.0, actor.number


_current: Scheduler | None = None


def running() -> Scheduler | None:
    """The run that this thread is an actor of, if it is one and has the baton."""
    scheduler = _current
    if scheduler is None or scheduler.actor is None or scheduler.actor.worker.ident != _thread.get_ident():
        return None
    return scheduler


def _begin(scheduler: Scheduler) -> None:
    global _current
    assert _current is None, "a run within a run"
    _current = scheduler


def _end() -> None:
    global _current
    _current = None
