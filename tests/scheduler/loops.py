"""An event loop that runs as an actor: a scheduling point before every callback, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from .baton import Scheduler, running

__all__ = ["ActorLoop", "play"]


class ActorLoop(asyncio.BaseEventLoop):
    """Knows callbacks and timers, no files. `reports` holds what its exception handler was told."""

    # It works on `_ready` and `_scheduled` of asyncio's own loop, which is as deep as a test may go.
    _ready: Any
    _scheduled: Any

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._selector = self  # type: ignore[assignment]
        self._clock_resolution = 2.0**-40  # or a timer may be due before its time, which does not pass then
        self.died = False  # whether it is closed before its tasks have ended
        self.reports: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.reports.append(context))

    def time(self) -> float:
        return self._scheduler.now

    def select(self, timeout: float | None) -> list[Any]:
        """As a selector: wait until somebody writes to the loop, or the next timer is due."""
        if timeout is None or timeout > 0:
            due = self._scheduled[0].when() - self.time() if self._scheduled else None
            self._scheduler.block(self, due)
        return []

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        scheduler = running()
        if scheduler is not None:
            scheduler.wake(self)
            scheduler.point()

    def _run_once(self) -> None:
        """One callback, where asyncio runs all that are ready, in the same order; a point before each."""
        ready = self._ready
        if len(ready) > 1:
            rest = list(ready)[1:]
            first = ready[0]
            ready.clear()
            ready.append(first)
            try:
                self._run_first()
            finally:
                new = list(ready)
                ready.clear()
                ready.extend(rest + new)
        else:
            self._run_first()

    def _run_first(self) -> None:
        if self._ready:
            self._scheduler.point()
        super()._run_once()  # type: ignore[misc]


def play(main: Callable[[ActorLoop], Coroutine[Any, Any, Any]]) -> Callable[[], Any]:
    """What an actor runs: `main(loop)` on a loop of its own, which is closed at the end."""

    def run() -> Any:
        scheduler = running()
        assert scheduler is not None
        loop = ActorLoop(scheduler)
        try:
            return loop.run_until_complete(main(loop))
        finally:
            for task in asyncio.all_tasks(loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]
            loop.close()

    return run
