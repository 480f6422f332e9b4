"""A decorated function under the scheduler, and what actors do with it.

A *scene* fills a world with actors. `explored` runs it under every schedule with a few preemptions, and the
rules of the design are checked after each: what `oracle` says of every value; every call is counted; nobody
waited for time to pass; nothing is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

from ..children import in_child
from ..scheduler import primitives
from ..scheduler.baton import Abort, Actor, Schedule, Scheduler
from ..scheduler.explore import Model, explore
from ..scheduler.library import Library
from ..scheduler.loops import ActorLoop, play
from .oracle import Call, Execution, Oracle, Refused

__all__ = ["Scene", "World", "explored", "model"]


class Copied:
    """A value of which each caller has a copy: it is copied by being made of another."""

    def __init__(self, value: Any) -> None:
        self.number = getattr(value, "number", value)


class World:
    """One run.

    Args:
        fails: which executions raise `Refused`, in their order.
        unchanged: which of those that have a value before them keep it, in their order.
        nested: which key a key's function asks for, before it returns.
        brings: what loaders bring that nobody asked for.
        owned: whether it is a method. A key is then the name of an instance, "x" or "y", and the argument.
        copies: whether every caller receives a copy of its own.
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
        unchanged: tuple[bool, ...] = (),
        brings: tuple[Any, ...] = (),
        owned: bool = False,
        copies: bool = False,
        nested: dict[Any, Any] | None = None,
        lasts: float = 0,
        listens: bool = False,
        gather: float | None = None,
        max_batch: int | None = None,
        **options: Any,
    ) -> None:
        self.library, self.scheduler = library, Scheduler(schedule, tracer)
        library.module("registry")._functions = ()  # of earlier worlds, which may not be destroyed yet
        options = {"ttl": 60, "max_idle_locks": 0, "timer": self.now, **options}
        if not owned:
            options["key"] = lambda key: key
        if copies:
            options["copy"] = Copied
        soft = min(options.get("soft_timeout", 0), options.get("wait_timeout", inf))
        self.oracle = Oracle(
            self.now,
            lives=options["ttl"] + options.get("grace", 0),
            overdue=options.get("flight_timeout"),
            stores_failures="failure_ttl" in options,
            fresh=options["ttl"],
            patience=options.get("wait_timeout"),
            soft=0 if nested else soft,  # who would close a cycle does not wait
            seats=options.get("max_flights"),
            in_line=self._in_line,
        )
        if listens:
            self.oracle.retries = options.get("follower_retries", 1)
            listener = options["listener"] = lambda event: self.oracle.told(event)
            listener.wants = {"wait"}
        self.owners: dict[str, Any] = {}
        self._brings, self._copies = brings, copies
        self._gather, self._nested = gather, nested or {}
        self.plain, self.coroutine = self._decorated(library.package.single_flight_ttl(**options), owned)
        self.line = self.plain._self_cache.line
        if not owned:
            self.loader, self.task_loader = self._loaders(gather=gather, max_batch=max_batch)
        self.locks = library.package.KeyedLocks(max_idle=0)
        self.received = 0  # how many keys were asked for, in all calls
        self.may_raise: tuple[type[BaseException], ...] = (Refused,)
        self.may_wait_out = False  # whether somebody may have to wait for time to pass
        self.most_executions: int | None = None  # for all keys together; None: one for each key asked for
        self.loops: list[ActorLoop] = []
        self._fails, self._unchanged = iter(fails), iter(unchanged)
        self._lasts = lasts
        self._inside: set[Any] = set()
        self._answered: Counter[str] = Counter()
        self._received: list[Any] = []  # the objects, where each is a copy

    def now(self) -> float:
        return self.scheduler.now

    def _in_line(self) -> tuple[Any, ...]:
        return () if self.line is None else tuple(seat for seat in self.line.queue if not seat.is_dead())

    # -- the function ---------------------------------------------------------------------------------

    def _decorated(self, decorate: Any, owned: bool) -> tuple[Any, Any]:
        if not owned:
            plain = decorate(self._execute)
            return plain, plain.twin(self._execute_in_task)

        class Owner:
            def __init__(self, name: str) -> None:
                self.name = name

            @decorate
            def fetch(owner, key: str) -> Any:
                return self._execute(owner.name + key)

            @fetch.twin
            async def fetch_in_task(owner, key: str) -> Any:
                return await self._execute_in_task(owner.name + key)

        self.owners = {name: Owner(name) for name in "xy"}
        return Owner.__dict__["fetch"], Owner.__dict__["fetch_in_task"]

    def _arguments(self, key: Any) -> tuple[Any, ...]:
        return (self.owners[key[0]], key[1:]) if self.owners else (key,)

    def _loaders(self, **options: Any) -> tuple[Any, Any]:
        def load(keys: list[Any]) -> dict[Any, int]:
            with self.oracle.executing(*keys) as mine:
                primitives.sleep(self._lasts)
                for key in keys:
                    if key in self._nested:
                        self.call(self._nested[key], may_raise=())
                return self._loaded(mine)

        async def load_in_task(keys: list[Any]) -> dict[Any, int]:
            with self.oracle.executing(*keys) as mine:
                await asyncio.sleep(self._lasts)
                for key in keys:
                    if key in self._nested:
                        await self.call_in_task(self._nested[key], may_raise=())
                return self._loaded(mine)

        return self.plain.bulk(load, **options), self.coroutine.bulk(load_in_task, **options)

    def _loaded(self, mine: list[Execution]) -> dict[Any, Any]:
        values = self._outcome(mine)
        more = self.oracle.brought(mine[0], *self._brings)
        found = dict(zip((each.key for each in mine), values, strict=True))
        return {**{each.key: each.number for each in more}, **found}

    def _execute(self, key: Any) -> Any:
        with self.oracle.executing(key) as mine:
            primitives.sleep(self._lasts)
            if key in self._nested:
                self.call(self._nested[key], may_raise=())
            return self._outcome(mine)[0]

    async def _execute_in_task(self, key: Any) -> Any:
        with self.oracle.executing(key) as mine:
            await asyncio.sleep(self._lasts)
            if key in self._nested:
                await self.call_in_task(self._nested[key], may_raise=())
            return self._outcome(mine)[0]

    def _outcome(self, mine: list[Execution]) -> list[Any]:
        if next(self._fails, False):
            raise Refused(*(execution.number for execution in mine))
        kept = next(self._unchanged, False)
        return [self._kept(execution) if kept else execution.number for execution in mine]

    def _kept(self, execution: Execution) -> Any:
        """What it returns that keeps what was there, if anything was."""
        flight = self.library.package.current_flight()
        if flight.kind == "bulk":
            assert execution.key in flight.key
            previous = flight.entries.get(execution.key)
        else:
            assert flight.key[-1] == execution.key[-1], f"{execution} runs in {flight}"
            previous = flight.previous
        if previous is None:
            return execution.number
        execution.confirms = getattr(previous.value, "number", previous.value)
        return self.library.package.Unchanged

    # -- what actors do -------------------------------------------------------------------------------

    def call(self, *keys: Any, may_raise: tuple[type[BaseException], ...] | None = None) -> None:
        """Ask for these keys, one after another."""
        for key in keys:
            self.received += 1
            with self.oracle.calling(key, may_raise=self.may_raise if may_raise is None else may_raise) as (
                call,
            ):
                call.value = self._got(self.plain(*self._arguments(key)))

    async def call_in_task(
        self, *keys: Any, may_raise: tuple[type[BaseException], ...] | None = None
    ) -> None:
        for key in keys:
            self.received += 1
            with self.oracle.calling(key, may_raise=self.may_raise if may_raise is None else may_raise) as (
                call,
            ):
                call.value = self._got(await self.coroutine(*self._arguments(key)))

    def answer(self, *keys: Any) -> None:
        """The same, and how it was served."""
        for key in keys:
            self.received += 1
            with self.oracle.calling(key, may_raise=self.may_raise) as (call,):
                self._note(call, self.plain.answer(*self._arguments(key)))

    async def answer_in_task(self, *keys: Any) -> None:
        for key in keys:
            self.received += 1
            with self.oracle.calling(key, may_raise=self.may_raise) as (call,):
                self._note(call, await self.coroutine.answer(*self._arguments(key)))

    def _note(self, call: Call, answer: Any) -> None:
        call.value, call.served = self._got(answer.value), answer.served
        self._answered[answer.served] += 1
        assert answer.stored or answer.served in ("fetch", "wait"), f"nothing is stored: {answer}"

    def refresh(self, key: Any) -> None:
        """Ask for a new value, whatever is stored."""
        self.received += 1
        with self.oracle.calling(key, may_raise=self.may_raise) as (call,):
            call.value = self._got(self.plain.refresh(*self._arguments(key)))

    def _got(self, value: Any) -> Any:
        """The number that a caller received."""
        if not self._copies:
            return value
        assert all(value is not other for other in self._received), "two received one object"
        self._received.append(value)
        return value.number

    def load(self, *keys: Any) -> None:
        """Ask for all of these keys at once."""
        self.received += len(keys)
        with self.oracle.calling(*keys, may_raise=self.may_raise) as calls:
            loaded = self.loader(keys)
            for call in calls:
                call.value = self._got(loaded[call.key])

    async def load_in_task(self, *keys: Any) -> None:
        self.received += len(keys)
        with self.oracle.calling(*keys, may_raise=self.may_raise) as calls:
            loaded = await self.task_loader(keys)
            for call in calls:
                call.value = self._got(loaded[call.key])

    def invalidate(self, key: Any) -> None:
        with self.oracle.touching(key):
            self.plain.invalidate(*self._arguments(key))

    def cut(self, tag: str, *keys: Any, detaches: bool = False, everywhere: bool = False) -> None:
        """Invalidate a tag, which values of these keys have."""
        with self.oracle.touching(*keys, detaches=detaches):
            (self.library.package if everywhere else self.plain).invalidate_tag(tag)

    def clear(self, name: str, *keys: Any) -> None:
        """Clear one instance, whose keys are these; all with the name ""."""
        with self.oracle.touching(*(name + key for key in keys)):
            (self.owners[name].fetch if name else self.plain).clear()

    def put(self, key: Any) -> None:
        with self.oracle.putting(key) as value:
            self.plain.put(Copied(value) if self._copies else value, *self._arguments(key))

    def look_on(self) -> None:
        """Look at everything that can be looked at."""
        flights = self.plain.flights()
        assert len({flight.key for flight in flights if not flight.detached}) <= len(flights)
        assert "flights" in self.library.package.report()
        assert self.plain.stats().in_flight >= 0

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

    def late(self, seconds: float, run: Callable[..., None], *args: Any) -> None:
        """Do this so much later."""
        primitives.sleep(seconds)
        run(*args)

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
        if self._answered:  # then all calls were answers
            told = (stats.hits, stats.stale_hits, stats.waits, stats.fetches)
            served = tuple(self._answered[name] for name in ("hit", "stale_hit", "wait", "fetch"))
            assert told == served, f"callers were told {self._answered}: {stats}"
        ran = range(self.oracle.runs - self.oracle.lost, self.oracle.runs + 1)
        assert stats.calls in ran, f"{self.oracle.runs} executions: {stats}"
        executions = self.oracle.executions
        executed = [each for each in executions if not (each.was_put or each.unasked)]
        asked = {call.key for call in self.oracle.calls}
        most = len(asked) if self.most_executions is None else self.most_executions
        assert len(executed) <= most, f"at most {most} executions were expected: {executed}"

    def _check_nothing_left(self) -> None:
        module = self.library.module
        if self.line is not None:
            dead = any(loop.died for loop in self.loops)
            assert all(dead and seat.is_dead() for seat in (*self.line.taken, *self.line.queue)), "a seat"
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
