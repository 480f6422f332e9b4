"""A decorated function under the scheduler, and what actors do with it.

A *scene* fills a world with actors. `explored` runs it under every schedule with a few preemptions, and the
rules of the design are checked after each: what `oracle` says of every value; every call is counted; nobody
waited for time to pass; nothing is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable
from typing import Any

from ..children import in_child
from ..scheduler import primitives
from ..scheduler.baton import Abort, Actor, Schedule, Scheduler
from ..scheduler.explore import Model, explore
from ..scheduler.library import Library
from ..scheduler.loops import ActorLoop, play
from .oracle import Execution, Oracle, Refused

__all__ = ["Scene", "World", "explored", "model"]


class World:
    """One run.

    Args:
        fails: which executions raise `Refused`, in their order.
        nested: which key a key's function asks for, before it returns.
        listens: whether somebody listens to who waits.
        gather, max_batch: the loaders'; with the first, single calls are loaded together.
        lasts: how long an execution takes, in seconds; 0 for a mere scheduling point.
        options: the decorator's.
    """

    def __init__(
        self,
        library: Library,
        schedule: Schedule,
        tracer: Any = None,
        *,
        fails: tuple[bool, ...] = (),
        nested: dict[Any, Any] | None = None,
        lasts: float = 0,
        listens: bool = False,
        gather: float | None = None,
        max_batch: int | None = None,
        **options: Any,
    ) -> None:
        self.library, self.scheduler = library, Scheduler(schedule, tracer)
        options = {"ttl": 60, "max_idle_locks": 0, "key": lambda key: key, "timer": self.now, **options}
        self.oracle = Oracle(
            self.now,
            lives=options["ttl"] + options.get("grace", 0),
            overdue=options.get("flight_timeout"),
            stores_failures="failure_ttl" in options,
        )
        if listens:
            self.oracle.retries = options.get("follower_retries", 1)
            listener = options["listener"] = lambda event: self.oracle.told(event)
            listener.wants = {"wait"}
        self.plain = library.package.single_flight_ttl(**options)(self._execute)
        self.coroutine = self.plain.twin(self._execute_in_task)
        self._gather = gather
        self._nested = nested or {}
        self.loader, self.task_loader = self._loaders(gather=gather, max_batch=max_batch)
        self.locks = library.package.KeyedLocks(max_idle=0)
        self.received = 0  # how many keys were asked for, in all calls
        self.may_raise: tuple[type[BaseException], ...] = (Refused,)
        self.may_wait_out = False  # whether somebody may have to wait for time to pass
        self.most_executions: int | None = None  # for all keys together; None: one for each key asked for
        self.loops: list[ActorLoop] = []
        self._fails, self._lasts = iter(fails), lasts
        self._inside: set[Any] = set()

    def now(self) -> float:
        return self.scheduler.now

    # -- the function ---------------------------------------------------------------------------------

    def _loaders(self, **options: Any) -> tuple[Any, Any]:
        def load(keys: list[Any]) -> dict[Any, int]:
            with self.oracle.executing(*keys) as mine:
                primitives.sleep(self._lasts)
                for key in keys:
                    if key in self._nested:
                        self.call(self._nested[key], may_raise=())
                return dict(zip(keys, self._outcome(mine), strict=True))

        async def load_in_task(keys: list[Any]) -> dict[Any, int]:
            with self.oracle.executing(*keys) as mine:
                await asyncio.sleep(self._lasts)
                for key in keys:
                    if key in self._nested:
                        await self.call_in_task(self._nested[key], may_raise=())
                return dict(zip(keys, self._outcome(mine), strict=True))

        return self.plain.bulk(load, **options), self.coroutine.bulk(load_in_task, **options)

    def _execute(self, key: Any) -> int:
        with self.oracle.executing(key) as mine:
            primitives.sleep(self._lasts)
            if key in self._nested:
                self.call(self._nested[key], may_raise=())
            return self._outcome(mine)[0]

    async def _execute_in_task(self, key: Any) -> int:
        with self.oracle.executing(key) as mine:
            await asyncio.sleep(self._lasts)
            if key in self._nested:
                await self.call_in_task(self._nested[key], may_raise=())
            return self._outcome(mine)[0]

    def _outcome(self, mine: list[Execution]) -> list[int]:
        if next(self._fails, False):
            raise Refused(*(execution.number for execution in mine))
        return [execution.number for execution in mine]

    # -- what actors do -------------------------------------------------------------------------------

    def call(self, *keys: Any, may_raise: tuple[type[BaseException], ...] | None = None) -> None:
        """Ask for these keys, one after another."""
        for key in keys:
            self.received += 1
            with self.oracle.calling(key, may_raise=self.may_raise if may_raise is None else may_raise) as (
                call,
            ):
                call.value = self.plain(key)

    async def call_in_task(
        self, *keys: Any, may_raise: tuple[type[BaseException], ...] | None = None
    ) -> None:
        for key in keys:
            self.received += 1
            with self.oracle.calling(key, may_raise=self.may_raise if may_raise is None else may_raise) as (
                call,
            ):
                call.value = await self.coroutine(key)

    def load(self, *keys: Any) -> None:
        """Ask for all of these keys at once."""
        self.received += len(keys)
        with self.oracle.calling(*keys, may_raise=self.may_raise) as calls:
            loaded = self.loader(keys)
            for call in calls:
                call.value = loaded[call.key]

    async def load_in_task(self, *keys: Any) -> None:
        self.received += len(keys)
        with self.oracle.calling(*keys, may_raise=self.may_raise) as calls:
            loaded = await self.task_loader(keys)
            for call in calls:
                call.value = loaded[call.key]

    def invalidate(self, key: Any) -> None:
        with self.oracle.touching(key):
            self.plain.invalidate(key)

    def put(self, key: Any) -> None:
        with self.oracle.putting(key) as value:
            self.plain.put(value, key)

    def take(self, *keys: Any) -> None:
        """Hold these keys of `locks` for a moment."""
        with self.locks(*keys):
            self._hold(keys)
            primitives.sleep(0)
            self._inside.difference_update(keys)

    async def take_in_task(self, *keys: Any) -> None:
        async with self.locks(*keys):
            self._hold(keys)
            try:
                await asyncio.sleep(0)
            finally:
                self._inside.difference_update(keys)

    def _hold(self, keys: tuple[Any, ...]) -> None:
        assert not self._inside.intersection(keys), f"two hold one of {keys} at once"
        self._inside.update(keys)

    def fork(self, *keys: Any) -> None:
        """A forked child asks for these keys; nobody else is there."""

        def ask() -> None:
            self.scheduler.forked()
            self.library.after_fork()
            self.oracle.forked()
            try:
                self.call(*keys, may_raise=())
            except Abort:
                raise self.scheduler.failure or AssertionError from None
            assert self.plain.stats().in_flight == 0

        told = in_child(ask)
        assert told == "None", f"in the child: {told}"

    # -- actors ---------------------------------------------------------------------------------------

    def thread(self, run: Callable[..., Any], *args: Any, after: Actor | None = None) -> None:
        """One that runs this, at any time or when another actor has ended."""

        def begin() -> None:
            if after is not None:
                self.scheduler.join(after)
            run(*args)

        self.scheduler.spawn(begin)

    def tasks(self, *runs: tuple[Any, ...], cancels: int | None = None, dies: int = 0) -> Actor:
        """A loop in a thread of its own, with a task for each of these `(function, *arguments)`.

        A thread of its own cancels that of number `cancels`, or the loop is closed after `dies` rounds.
        """
        tasks: list[asyncio.Task[Any]] = []

        async def main(loop: ActorLoop) -> None:
            self.loops.append(loop)
            tasks.extend(loop.create_task(run(*args)) for run, *args in runs)
            if dies:
                loop.died = True
                for _ in range(dies):
                    await asyncio.sleep(0)
                return
            await asyncio.wait(tasks)
            while work := asyncio.all_tasks(loop) - {asyncio.current_task()}:
                await asyncio.wait(work)
            for task in tasks:
                if not (task.cancelled() and cancels is not None):
                    task.result()

        def cancel() -> None:
            if tasks:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self.loops[0].call_soon_threadsafe(tasks[cancels or 0].cancel)

        def run() -> None:
            play(main)()
            if dies:
                self.oracle.stopped(self.loops[-1])

        actor = self.scheduler.spawn(run)
        if cancels is not None:
            self.scheduler.spawn(cancel)
        return actor

    # -- the end --------------------------------------------------------------------------------------

    def run(self) -> World:
        try:
            self.scheduler.run()
            self.oracle.check()
            self._check_counts()
            self._check_nothing_left()
            waited_out = self.scheduler.waited_out
            if self._gather is not None and self.scheduler.longest_pause < 2 * self._gather:
                waited_out = []  # for a window to close
            assert self.may_wait_out or not waited_out, f"{waited_out} had to wait for time: a lost wake-up"
        except BaseException as error:
            self.library.reset()
            error.add_note("\n".join(("what happened, at which point:", *self.scheduler.trace[:60])))
            raise
        return self

    def _check_counts(self) -> None:
        stats = self.plain.stats()
        counted = stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts
        unfinished = self.oracle.unfinished  # on loops that died: those are counted if that is noticed
        received = range(self.received - unfinished, self.received + 1)
        assert counted in received, f"{self.received} calls were made: {stats}"
        ran = range(self.oracle.runs - self.oracle.lost, self.oracle.runs + 1)
        assert stats.calls in ran, f"{self.oracle.runs} executions: {stats}"
        executed = [execution for execution in self.oracle.executions if not execution.was_put]
        asked = {call.key for call in self.oracle.calls}
        most = len(asked) if self.most_executions is None else self.most_executions
        assert len(executed) <= most, f"at most {most} executions were expected: {executed}"

    def _check_nothing_left(self) -> None:
        module = self.library.module
        live = self.plain.locks.live()
        if any(loop.died for loop in self.loops):  # what was there is left until somebody finds it
            module("waitgraph").forget_the_gone()
            live = [slot for slot in live if slot.turn.leader is not None]
        gathering = self.plain._self_cache.gathering
        assert gathering is None or gathering.open == {} or any(loop.died for loop in self.loops)
        assert self.plain.flights() == ()
        assert live == []
        assert (self.plain.locks.idle, len(self.locks)) == (0, 0)
        assert module("waitgraph").waiting == {}
        assert module("waitgraph").below == {}
        assert not module("unsettled").unsettled
        assert not self._inside
        assert not any(loop.reports for loop in self.loops)


Scene = Callable[[World], None]


def model(library: Library, scene: Scene, tracer: Any = None, **options: Any) -> Model:
    """What `explore` runs."""

    def run(schedule: Schedule) -> Scheduler:
        gc.disable()  # nothing is to run at a moment that is not the schedule's
        try:
            world = World(library, schedule, tracer, **options)
            scene(world)
            return world.run().scheduler
        finally:
            gc.enable()

    return run


def explored(library: Library, scene: Scene, preemptions: int = 2, **options: Any) -> int:
    """How many schedules there are with so many preemptions; under all of them the scene went well."""
    return explore(model(library, scene, **options), preemptions)
