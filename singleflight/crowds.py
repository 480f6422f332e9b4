"""How a task waits at a gate: together with the other tasks of its event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .gates import Gate
from .turns import mutex

__all__ = ["wait_at"]


class Crowd:
    """The tasks of one loop at one gate. `futures` is touched on the loop's own thread alone.

    However many they are, opening costs one call into their loop, and one timer looks for all of them.
    """

    __slots__ = ("_look", "_timer", "futures", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, look: Callable[[], float]) -> None:
        self.loop = loop
        self.futures: dict[asyncio.Future[bool], None] = {}
        self._look = look
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Wake them; called from any thread."""
        if asyncio._get_running_loop() is self.loop:
            self._wake()
            return
        with suppress(RuntimeError):  # that loop is closed, and its tasks are gone with it
            self.loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        futures, self.futures = self.futures, {}
        for future in futures:
            if not future.done():
                future.set_result(True)

    def look_later(self, pause: float) -> None:
        """Have somebody look after so many seconds, if nobody is going to."""
        if self._timer is None:
            self._timer = self.loop.call_later(pause, self._look_now)

    def _look_now(self) -> None:
        self._timer = None
        pause = self._look()
        if self.futures:
            self.look_later(pause)


async def wait_at(
    gate: Gate, opened: Callable[[], bool], look: Callable[[], float], pause: float, own_pause: float | None
) -> bool:
    """Wait in a task until the gate opens; False when `own_pause` seconds passed first.

    Args:
        gate: where to wait.
        opened: whether it is open, or about to be; asked under the mutex.
        look: called now and then while any task of this loop waits here, first after `pause` seconds; returns
            the next pause.
        pause: see `look`.
        own_pause: how long this task itself waits at most; None without a limit.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()
    with mutex:
        if opened():
            return True
        crowd: Any = gate.crowds.get(loop)
        if crowd is None:
            crowd = gate.crowds[loop] = Crowd(loop, look)
        crowd.futures[future] = None
    crowd.look_later(pause)
    timer = None if own_pause is None else loop.call_later(own_pause, _time_is_up, future)
    try:
        return await future
    finally:
        crowd.futures.pop(future, None)
        if timer is not None:
            timer.cancel()


def _time_is_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
