"""What the promises are shown on: a function held in mid-flight; threads, tasks or both that call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import singleflight

from ..bulk.conftest import BulkDriver
from ..contract.conftest import TURNS
from ..freshness.conftest import Source
from ..redis.conftest import (  # noqa: F401  # fixtures
    binary,
    direct,
    fleet,
    make_server,
    own_server,
    pool,
    shared_server,
    url,
)


class Scene(Source):
    """A decorated function whose execution number `n` returns `n`; `Source` says how it is told otherwise."""

    @property
    def runs(self) -> int:
        """How many executions have begun."""
        return self.executions.begun

    def ask(self, *args: Any) -> Any:
        """One caller more, which is started and not waited for; it leads a new flight."""
        runs = self.runs
        caller = self.driver.start(self.fetch, *args)
        self.executions.wait_for(runs + 1)
        return caller

    def join(self, *args: Any, count: int = 1) -> list[Any]:
        """So many callers more, which wait for a flight in progress."""
        waits = self.seen.count("wait")
        callers = [self.driver.start(self.fetch, *args) for _ in range(count)]
        self.seen.wait_for("wait", waits + count)
        return callers

    def herd(self, callers: int, *args: Any) -> list[Any]:
        """A leader and its followers, all of them waiting for the leader's flight."""
        return [self.ask(*args), *self.join(*args, count=callers - 1)]

    def clean(self) -> bool:
        """Whether nothing is in flight, and no lock is held or awaited."""
        stats = self.fetch.stats()
        return self.fetch.flights() == () and stats.locks == stats.idle_locks and stats.in_flight == 0


def outcomes(callers: list[Any]) -> list[Any]:
    """What they returned or raised."""
    return [caller.outcome() for caller in callers]


def closing(driver: BulkDriver) -> Iterator[BulkDriver]:
    try:
        yield driver
    finally:
        driver.close()
        assert singleflight.drain_sync(timeout=10)
    assert driver.reports() == []


@pytest.fixture(params=TURNS.values(), ids=TURNS)
def driver(request: pytest.FixtureRequest) -> Iterator[BulkDriver]:
    """Callers that are threads, tasks, or both at once on several loops."""
    yield from closing(BulkDriver(*request.param))


@pytest.fixture
def tasks() -> Iterator[BulkDriver]:
    """Callers that are tasks of one loop."""
    yield from closing(BulkDriver(0))


@pytest.fixture
def scene(driver: BulkDriver) -> Callable[..., Scene]:
    """Makes decorated functions for each kind of callers."""
    return lambda **options: Scene(driver, **{"ttl": 60, **options})


@pytest.fixture
def task_scene(tasks: BulkDriver) -> Callable[..., Scene]:
    """The same for tasks of one loop."""
    return lambda **options: Scene(tasks, **{"ttl": 60, **options})
