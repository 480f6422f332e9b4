"""Every claim of the contract is made about each of these drivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from singleflight.process.registry import observe

from ..drivers import Driver

TURNS = {
    "threads": ("thread",),
    "tasks": (0,),
    "mixed": ("thread", 0, "thread", 1),
    "mixed, a task first": (0, "thread", 1, "thread"),
}


@pytest.fixture(params=TURNS.values(), ids=TURNS)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Threads with a plain function, tasks with a coroutine function, or both with a pair of twins."""
    driver = Driver(*request.param)
    try:
        yield driver
    finally:
        driver.close()
    assert driver.reports() == []


@pytest.fixture
def observing() -> Iterator[Callable[..., Callable[[], None]]]:
    """`observe`, ended with the test."""
    stops = []

    def begin(*arguments: Any) -> Callable[[], None]:
        stops.append(observe(*arguments))
        return stops[-1]

    yield begin
    for stop in stops:
        stop()
