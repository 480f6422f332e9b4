"""Who asks: each actor does a fixed number of things, drawn from its own seed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

from .parts import Call, Kind, Value
from .world import ITEMS, World, asking

__all__ = ["Disturber", "InTasks", "InThread", "Stepper"]


class Actor:
    """What threads and tasks have in common.

    Args:
        name: with the seed and the number of the round, what its choices are drawn from.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world, self.oracle = world, world.oracle
        self.chance = random.Random(name)
        self._serial = 0
        self._name = name

    def draw(self) -> tuple[str, Kind, int]:
        """What to do next, with which function and item."""
        world, chance = self.world, self.chance
        how = chance.choices(("call", "refresh", "bulk", "bulk alone", "method"), (70, 3, 6, 1, 12))[0]
        kind = world.plain if how.startswith("bulk") or chance.random() < 0.6 else world.ageing
        return how, kind, min(int(chance.expovariate(0.3)), len(ITEMS) - 1)

    def items(self) -> list[int]:
        return self.chance.sample(ITEMS, self.chance.randint(1, 6))

    def begin(self, kind: Kind, key: Any, how: str) -> Call:
        call = self.oracle.call_begins(kind, key, how)
        asking.set((call, how == "refresh"))
        return call

    def begin_all(self, items: list[int]) -> list[Call]:
        calls = [self.oracle.call_begins(self.world.plain, item, "bulk") for item in items]
        asking.set((calls[0], False))
        return calls

    def end_all(self, calls: list[Call], found: dict[int, Value | None]) -> None:
        for call in calls:
            self.oracle.call_ends(call, found.get(call.key))

    def new_account(self) -> Any:
        self._serial += 1
        return self.world.account((self._name, self._serial))

    def forget(self, account: Any) -> None:
        for item in range(2):
            self.oracle.forget(self.world.method, (account.serial, item))


class InThread(Actor):
    """A thread that makes one call after another."""

    def run(self, operations: int) -> None:
        for _ in range(operations):
            how, kind, item = self.draw()
            if how == "method":
                account = self.new_account()
                for each in (0, 1, 0):
                    self._call(self.world.method, (account.serial, each), how, account.fetch, each)
                self.forget(account)
            elif how.startswith("bulk"):
                self._load(self.items())
            else:
                fetch = self.world.functions[kind]
                self._call(kind, item, how, fetch.refresh if how == "refresh" else fetch, item)

    def _call(self, kind: Kind, key: Any, how: str, fetch: Callable[[int], Any], item: int) -> None:
        call = self.begin(kind, key, how)
        try:
            outcome = fetch(item)
        except Exception as error:
            self.oracle.call_ends(call, error)
        else:
            self.oracle.call_ends(call, outcome)

    def _load(self, items: list[int]) -> None:
        calls = self.begin_all(items)
        try:
            found = self.world.load(items)
        except Exception as error:
            self.oracle.calls_fail(calls, error)
        else:
            self.end_all(calls, found)


class InTasks(Actor):
    """A task that has its calls made by tasks of their own, some of which it cancels."""

    async def run(self, operations: int) -> None:
        for _ in range(operations):
            how, kind, item = self.draw()
            if how == "method":
                account = self.new_account()
                fetch = account.fetch_in_task
                keys = [(each, (account.serial, each)) for each in (0, 1, 0)]
                await self._each([self._call(self.world.method, key, how, fetch, each) for each, key in keys])
                self.forget(account)
            elif how.startswith("bulk"):
                await self._each([self._load(self.items())])
            else:
                twin = self.world.twins[kind]
                fetch = twin.refresh if how == "refresh" else twin
                await self._each([self._call(kind, item, how, fetch, item)])

    async def _each(self, calls: list[Any]) -> None:
        tasks = [asyncio.create_task(call) for call in calls]
        if self.chance.random() < 0.15:
            for _ in range(self.chance.randrange(4)):
                await asyncio.sleep(self.chance.choice((0, 0, 0.001)))
            tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _call(
        self, kind: Kind, key: Any, how: str, fetch: Callable[[int], Awaitable[Any]], item: int
    ) -> None:
        call = self.begin(kind, key, how)
        try:
            outcome = await fetch(item)
        except BaseException as error:
            call.cancelled = isinstance(error, asyncio.CancelledError) and _is_cancelling()
            self.oracle.call_ends(call, error)
        else:
            self.oracle.call_ends(call, outcome)

    async def _load(self, items: list[int]) -> None:
        calls = self.begin_all(items)
        try:
            found = await self.world.load_in_task(items)
        except BaseException as error:
            for call in calls:
                call.cancelled = isinstance(error, asyncio.CancelledError) and _is_cancelling()
            self.oracle.calls_fail(calls, error)
        else:
            self.end_all(calls, found)


class Disturber(Actor):
    """A thread that invalidates, puts and looks."""

    def run(self, operations: int) -> None:
        world = self.world
        for _ in range(operations):
            how = self.chance.choices(
                ("invalidate", "put", "invalidate_where", "stats", "explain"), (8, 5, 2, 1, 1)
            )[0]
            kind = self.chance.choice((world.plain, world.ageing))
            fetch, item = world.functions[kind], self.chance.choice(ITEMS)
            if how == "invalidate":
                drop = self.oracle.drop_begins(kind, [item], how)
                fetch.invalidate(item)
                self.oracle.drop_ends(drop)
            elif how == "put":
                put = self.oracle.put_begins(kind, item)
                drop = self.oracle.drop_begins(kind, [item], how)
                self.oracle.clock.lands([put])
                fetch.put(Value(put), item)
                self.oracle.drop_ends(drop, put)
            elif how == "invalidate_where":
                even = self.chance.randrange(2)
                drop = self.oracle.drop_begins(kind, [key for key in ITEMS if key % 2 == even], how)
                fetch.invalidate_where(lambda key, even=even: key % 2 == even)
                self.oracle.drop_ends(drop)
            elif how == "stats":
                fetch.stats(), fetch.flights()
            else:
                fetch.explain(item), fetch.entry(item)
            time.sleep(self.chance.choice((0, 0.001, 0.002)))


class Stepper(Actor):
    """A thread that moves the clock: mostly on, by less than a ttl, sometimes far, sometimes back."""

    def run(self, operations: int) -> None:
        for _ in range(operations):
            self.oracle.step(self.chance.choices((1.0, 3.0, 25.0, -2.0, -8.0), (12, 6, 1, 2, 1))[0])
            time.sleep(self.chance.choice((0, 0.001, 0.004)))


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
