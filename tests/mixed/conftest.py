"""Loops in threads of their own, and gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ..drivers import Gate, LoopThread


@pytest.fixture
def loops() -> Iterator[Callable[..., LoopThread]]:
    """Makes loops, which are closed at the end of the test; those that it killed are left as they are."""
    made: list[LoopThread] = []

    def make(*loop: object) -> LoopThread:
        made.append(LoopThread(*loop))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for loop in made:
        loop.close()
    assert [report for loop in made if not loop.killed for report in loop.reports] == []


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
