"""A deterministic event loop: one callback at a time, in an order that is data, on a clock of its own.

`plan` is a sequence of numbers: wherever several callbacks are ready, the next number says which of them
runs (0 is the one that asyncio would run, so that a failing plan shrinks towards plain asyncio). `at(step,
action)` runs an action before the callback of that number. Where nothing is ready the clock jumps to the
next timer; where there is no timer either, or after very many steps, `Stuck` is raised: somebody hangs.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

LIMIT = 5_000


class Stuck(AssertionError):
    """Nothing is ready and nothing will be, or it never ends."""


class _Selector(selectors.DefaultSelector):
    loop: StepLoop

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            raise Stuck(f"nothing is ready after {self.loop.steps} steps, and there is no timer")
        self.loop.jump()
        return events


class StepLoop(asyncio.SelectorEventLoop):
    """See above. `steps` counts the callbacks run, `reports` holds what the exception handler was told."""

    # It works on `_ready` and `_scheduled` of asyncio's own loop, which is as deep as a test may go.
    _ready: Any
    _scheduled: Any

    def __init__(self, plan: Iterable[int] = ()) -> None:
        self.steps = 0
        self.reports: list[dict[str, Any]] = []
        self._now = 1000.0
        self._plan = iter(plan)
        self._actions: dict[int, list[Callable[[], object]]] = defaultdict(list)
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)
        self.set_exception_handler(lambda _, context: self.reports.append(context))

    def time(self) -> float:
        return self._now

    def jump(self) -> None:
        """To the time of the next timer."""
        self._now = max(self._now, self._scheduled[0].when())

    def at(self, step: int, action: Callable[[], object]) -> None:
        """Run the action before the callback of this number."""
        self._actions[step].append(action)

    def _run_once(self) -> None:
        ready = self._ready
        if ready:
            for action in self._actions.pop(self.steps, ()):
                action()
            self.steps += 1
            if self.steps > LIMIT:
                raise Stuck(f"still running after {LIMIT} steps")
        if len(ready) < 2:
            super()._run_once()  # type: ignore[misc]
            return
        chosen = next(self._plan, 0) % len(ready)
        rest = [each for position, each in enumerate(ready) if position != chosen]
        one = [ready[chosen]]
        ready.clear()
        ready.append(one.pop())  # nothing of it is kept here: tracebacks may lead to this frame
        try:
            super()._run_once()  # type: ignore[misc]
        finally:
            new = list(ready)
            ready.clear()
            ready.extend(rest + new)
            rest.clear()
            new.clear()


def run(loop: StepLoop, main: Coroutine[Any, Any, Any]) -> Any:
    """What `main` returns; afterwards no task may be left."""
    try:
        outcome = loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
    assert not left, f"left behind: {left}"
    return outcome
