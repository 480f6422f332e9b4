"""What tests of endings share: how to use up the stack, and what must hold after everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from singleflight import drain_sync
from singleflight.locks.unsettled import unsettled
from singleflight.locks.waitgraph import below, waiting


def padded(frames: int, run: Callable[[], Any]) -> Any:
    """Run something so many frames further down."""
    return run() if frames <= 0 else padded(frames - 1, run)


def room() -> int:
    """How many more frames there is room for."""
    deepest = 0

    def down(frames: int) -> None:
        nonlocal deepest
        deepest = frames
        down(frames + 1)

    try:
        down(0)
    except RecursionError:
        return deepest
    raise AssertionError("the stack has no end")


def with_room_for(frames: int, run: Callable[[], Any]) -> Any:
    """Run something where there is room for so many frames; what it returned, or the exception it raised."""
    try:
        return padded(room() - frames, run)
    except Exception as error:
        return error


def assert_quiet(*functions: Any) -> None:
    """Nothing is in flight, no key is taken, nobody is noted as waiting, and a drain returns."""
    assert drain_sync(timeout=5) is True
    assert [function.flights() for function in functions] == [()] * len(functions)
    for function in functions:
        stats = function.stats()
        assert (stats.in_flight, function.locks.live()) == (0, [])
    assert (unsettled, waiting, below) == ({}, {}, {})


@pytest.fixture(autouse=True)
def nothing_noted():
    """Each test begins and ends with nothing left to settle."""
    yield
    assert unsettled == {}
