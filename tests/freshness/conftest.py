"""The drivers of the contract, for functions whose values outlive their ttl."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import singleflight
from singleflight.testing import FakeClock, Recorder

from ..contract.conftest import TURNS
from ..drivers import Driver, Executions, Pair, until


@pytest.fixture(params=TURNS.values(), ids=TURNS)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Threads with a plain function, tasks with a coroutine function, or both with a pair of twins."""
    driver = Driver(*request.param)
    try:
        yield driver
    finally:
        driver.close()
        assert singleflight.drain_sync(timeout=10)
    assert driver.reports() == []


class Source:
    """A function under a clock of its own, and what it is to do at each execution.

    `script[n]` is what execution `n` does: a gate is waited for first, an exception is raised, anything else
    is returned. An execution without an entry returns its own number.
    """

    def __init__(self, driver: Driver, **options: Any) -> None:
        self.driver = driver
        self.clock, self.seen, self.executions = FakeClock(100.0), Recorder(), Executions()
        self.script: dict[int, list[Any]] = {}

        async def fetch(key: str = "A") -> Any:
            number = self.executions.begin()
            for step in self.script.get(number, ()):
                if hasattr(step, "__await__"):
                    await step
                elif isinstance(step, BaseException):
                    raise step
                else:
                    return step
            return number

        self.fetch: Pair = driver.decorate(fetch, timer=self.clock, **{"listener": self.seen, **options})

    def call(self, *args: Any) -> Any:
        return self.driver.call(self.fetch, *args)

    def hold(self, number: int, *then: Any) -> Any:
        """Hold this execution at a gate, which is returned."""
        gate = self.driver.gate()
        self.script[number] = [gate, *then]
        return gate

    def settle(self) -> None:
        """Wait until nothing is in flight any more."""
        until(lambda: not self.fetch.flights())

    def sums(self) -> bool:
        """Whether the six counts sum to the calls received."""
        stats = self.fetch.stats()
        six = stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts
        return six == len(self.driver.callers)


@pytest.fixture
def source(driver: Driver) -> Callable[..., Source]:
    """Makes functions."""
    return lambda **options: Source(driver, **{"ttl": 10, **options})
