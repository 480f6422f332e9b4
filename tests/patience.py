"""How long callers are willing to wait: what a wait was told, on a clock that stands still."""

from __future__ import annotations

import asyncio
import importlib
import types
from typing import Any

import pytest

from singleflight.locks.latch import Latch
from singleflight.locks.task_waiters import InTask
from singleflight.testing import FakeClock

__all__ = ["Patience"]

# Who reads `time.monotonic`: all but the timers of values, which are the functions' own.
_READERS = (
    *("drivers.wait", "core.batch", "core.flight", "core.transitions", "core.delays", "core.coordinator"),
    *("process.drain", "locks.keyed"),
)
LONG = 10_000.0  # seconds: nobody waits that long in a test


class Patience:
    """The clock of all waits, and for how long each of them would have waited before it looked for itself.

    Usually waiters look once a second: with `look` seconds instead, which by default never come. The clock
    stands still unless it is advanced, so the numbers in `waits` are exact. Waits of tasks that leave the
    looking to others are not among them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, look: float = LONG) -> None:
        self.clock = FakeClock(1000.0)
        self.waits: list[float] = []
        for name in _READERS:
            module = importlib.import_module(f"singleflight.{name}")
            monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=self.clock))
            if hasattr(module, "LOOK"):
                monkeypatch.setattr(module, "LOOK", look)
        wait, call_later = Latch.wait, asyncio.BaseEventLoop.call_later

        def told_thread(latch: Latch, timeout: float) -> bool:
            self.waits.append(timeout)
            return wait(latch, timeout)

        def told_loop(loop: Any, delay: float, callback: Any, *args: Any, **options: Any) -> Any:
            if isinstance(getattr(callback, "__self__", None), InTask):
                self.waits.append(delay)
            return call_later(loop, delay, callback, *args, **options)

        monkeypatch.setattr(Latch, "wait", told_thread)
        monkeypatch.setattr(asyncio.BaseEventLoop, "call_later", told_loop)

    def advance(self, seconds: float) -> None:
        """Let so much time pass for all who wait."""
        self.clock.advance(seconds)
