"""A loop in a thread of its own, so that a test of something that blocks it still ends, and is quiet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ..drivers import Gate, LoopThread


@pytest.fixture
def play(loops: Callable[[], LoopThread]) -> Callable[..., Any]:
    """Runs `main(...)` on a loop to its end."""
    return loops().run


@pytest.fixture
def make_gate() -> Iterator[Callable[[], Gate]]:
    """Makes gates, which are open at the end of the test."""
    gates: list[Gate] = []

    def make() -> Gate:
        gates.append(Gate())
        return gates[-1]

    yield make
    for gate in gates:
        gate.set()
