"""Waiting for what has no event of its own."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Return once the condition is true; fail loudly when it never is."""

    def wait(condition: Callable[[], object]) -> None:
        give_up = time.monotonic() + 15.0
        while not condition():
            assert time.monotonic() < give_up, "waited 15 s in vain"
            time.sleep(0)

    return wait
