"""The functions under load, and what becomes of each of their executions.

A value says which execution made it; `fate` says whether that fails, returns None or takes a while. It
depends on the seed, the function, the key and how many executions of that key there were before.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Hashable
from contextvars import ContextVar
from typing import Any

from singleflight import single_flight_ttl
from singleflight.telemetry.events import Event, Land

from .oracle import Oracle
from .parts import Broken, Call, Execution, Kind, Value

__all__ = ["ITEMS", "World", "asking"]

ITEMS = range(12)
TTL = 10.0

asking: ContextVar[tuple[Call, bool] | None] = ContextVar("asking", default=None)
"""The call that this context makes, and whether it is a refresh."""


class World:
    """Three functions, each in two colours: one plain, one whose values age in every way, and a method.

    The plain one keeps everything and has two bulk loaders. The ageing one has grace, refresh-ahead, jitter,
    stored failures, a listener, a small store and a short `wait_timeout`.
    """

    def __init__(self, oracle: Oracle, seed: int) -> None:
        self.oracle, self.seed = oracle, seed
        self.plain = Kind("plain", life=TTL, keeps=True)
        self.ageing = Kind("ageing", life=2 * TTL, failure_life=TTL / 5, may_time_out=True)
        self.method = Kind("method", life=TTL, keeps=True)
        self.functions: dict[Kind, Any] = {}
        self.twins: dict[Kind, Any] = {}
        self._make(self.plain, ttl=TTL, maxsize=None)
        self._make(
            self.ageing,
            ttl=TTL,
            grace=TTL,
            refresh_ahead=0.5,
            jitter=0.3,
            failure_ttl=TTL / 5,
            maxsize=len(ITEMS) // 2,
            max_idle_locks=3,
            wait_timeout=0.005,
            listener=self._hear,
        )
        self._make_loaders()
        self.account = self._make_class()

    # -- the functions -------------------------------------------------------------------------------

    def _make(self, kind: Kind, **options: Any) -> None:
        @single_flight_ttl(key=lambda item: item, timer=self.oracle.clock, name=kind.name, **options)
        def fetch(item: int) -> Value | None:
            return self._run(kind, item)

        @fetch.twin
        async def twin(item: int) -> Value | None:
            return await self._run_in_task(kind, item)

        self.functions[kind], self.twins[kind] = fetch, twin

    def _hear(self, event: Event) -> None:
        """A flight has ended, perhaps one that nobody called for."""
        if isinstance(event, Land) and (event.value is not None or event.error is not None):
            self.oracle.flight_is_over((event.error or event.value).source)

    def _make_class(self) -> type[Any]:
        world, kind = self, self.method

        class Account:
            def __init__(self, serial: int) -> None:
                self.serial = serial

            @single_flight_ttl(ttl=TTL, maxsize=None, timer=world.oracle.clock, name=kind.name)
            def fetch(self, item: int) -> Value | None:
                return world._run(kind, (self.serial, item))

            @fetch.twin
            async def fetch_in_task(self, item: int) -> Value | None:
                return await world._run_in_task(kind, (self.serial, item))

        self.functions[kind], self.twins[kind] = Account.fetch, Account.fetch_in_task
        return Account

    def _make_loaders(self) -> None:
        fetch, kind = self.functions[self.plain], self.plain

        @fetch.bulk(max_batch=4)
        def load(items: list[int]) -> dict[int, Value | None]:
            executions, extra = self._begin_all(kind, items)
            pause, struck = self.fate(kind, items[0], executions[0].number)
            time.sleep(pause)
            return self._end_all(kind, executions, extra, struck)

        @fetch.bulk
        async def load_in_task(items: list[int]) -> dict[int, Value | None]:
            executions, extra = self._begin_all(kind, items)
            try:
                pause, struck = self.fate(kind, items[0], executions[0].number)
                await asyncio.sleep(pause)
            except asyncio.CancelledError:
                for execution in executions:
                    self.oracle.execution_ends(execution, "cancelled")
                raise
            return self._end_all(kind, executions, extra, struck)

        self.load, self.load_in_task = load, load_in_task

    # -- their executions ----------------------------------------------------------------------------

    def fate(self, kind: Kind, key: Hashable, number: int) -> tuple[float, str]:
        """How long an execution takes, and its outcome."""
        chance = random.Random(f"{self.seed}/{kind.name}/{key}/{number}")
        pause = chance.choice((0.0, 0.0, 0.0, 0.001, 0.002, 0.01))
        return pause, chance.choices(("value", "nothing", "failure"), (20, 1, 3))[0]

    def _begin(self, kind: Kind, key: Hashable) -> tuple[Execution, float, str]:
        call, is_refresh = asking.get() or (None, False)
        self.oracle.count(kind, "calls")
        execution = self.oracle.execution_begins(kind, key, call, is_refresh)
        return execution, *self.fate(kind, key, execution.number)

    def _end(self, execution: Execution, outcome: str) -> Value | None:
        self.oracle.execution_ends(execution, outcome)
        if outcome == "nothing":
            return None
        self.oracle.clock.lands([execution])
        if outcome == "failure":
            self.oracle.count(execution.kind, "failures")
            raise Broken(execution)
        return Value(execution)

    def _run(self, kind: Kind, key: Hashable) -> Value | None:
        execution, pause, outcome = self._begin(kind, key)
        time.sleep(pause)
        return self._end(execution, outcome)

    async def _run_in_task(self, kind: Kind, key: Hashable) -> Value | None:
        execution, pause, outcome = self._begin(kind, key)
        try:
            await asyncio.sleep(pause)
        except asyncio.CancelledError:
            self.oracle.execution_ends(execution, "cancelled")
            raise
        return self._end(execution, outcome)

    def _begin_all(self, kind: Kind, items: list[int]) -> tuple[list[Execution], Execution | None]:
        """One execution for every key; now and then a value that nobody asked for comes beside."""
        call, is_refresh = asking.get() or (None, False)
        self.oracle.count(kind, "calls")
        executions = [self.oracle.execution_begins(kind, item, call, is_refresh) for item in items]
        unasked = (items[0] + 1) % len(ITEMS)
        if unasked in items or executions[0].number % 3:
            return executions, None
        extra = self.oracle.unasked_begins(kind, unasked)
        if call is not None:
            call.led.append(extra)
        return executions, extra

    def _end_all(
        self, kind: Kind, executions: list[Execution], extra: Execution | None, outcome: str
    ) -> dict[int, Value | None]:
        for execution in executions:
            self.oracle.execution_ends(execution, outcome)
        every = [*executions, extra] if extra is not None else executions
        if extra is not None:
            self.oracle.execution_ends(extra, "extra")
        if outcome == "failure":
            self.oracle.clock.lands(executions)
            self.oracle.count(kind, "failures")
            executions[0].others = tuple(execution.key for execution in executions)
            raise Broken(executions[0])
        if outcome == "nothing":  # the loader leaves them out
            return {}
        self.oracle.clock.lands(every)
        return {int(str(execution.key)): Value(execution) for execution in every}
