"""What the soak is made of: functions, calls, executions, values, and a clock that is moved in steps."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from math import inf

__all__ = ["Broken", "Call", "Clock", "Execution", "Kind", "Value"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One decorated function, as far as the oracle has to know it."""

    name: str
    life: float  # for how many seconds a value may be served at most
    failure_life: float = 0.0  # the same for an exception
    may_time_out: bool = False
    keeps: bool = False  # whether every value is kept for its whole life, and fetched only when there is none


@dataclass(slots=True, eq=False)
class Execution:
    """One run of the function for one key, or one `put`."""

    kind: Kind
    key: Hashable
    number: int
    asked: int  # when the call that leads it began
    began: int
    ended: int | None = None
    over: float = inf  # when its flight had ended for certain: its function returns a little before that
    outcome: str = "running"
    landed: float = -inf  # what the clock said at most when its value was stored
    landed_from: float = inf  # and at least: the values of one loader call land one after another
    is_put: bool = False
    received: int | None = None  # when somebody first had its value
    others: tuple[Hashable, ...] = ()  # the other keys of the same loader call

    def __str__(self) -> str:
        what = "put" if self.is_put else "execution"
        name = f"{what} {self.number} of {self.kind.name}({self.key!r})"
        return f"{name} [{self.began}, {self.ended}] {self.outcome}"


@dataclass(frozen=True, slots=True)
class Value:
    """What the functions under load return."""

    source: Execution


class Broken(Exception):
    """What the functions under load raise; `source` is the execution that did."""

    def __init__(self, source: Execution) -> None:
        super().__init__(str(source))
        self.source = source


@dataclass(slots=True, eq=False)
class Call:
    """One call for one key."""

    kind: Kind
    key: Hashable
    how: str
    began: int
    barrier: int  # when the last of the drops began that were over when the call began
    cancelled: bool = False
    ended: bool = False
    led: list[Execution] = field(default_factory=list)


class Clock:
    """The clock of the functions: it stands still but for the steps, forwards and backwards, that it is told.

    Whoever ends an execution says so (`lands`): what this thread reads next is when the value landed.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self._landing = threading.local()

    def lands(self, executions: list[Execution]) -> None:
        """These end now; the next readings, one for each (and one more for what was unasked), are when."""
        unasked = sum(execution.outcome == "extra" for execution in executions)
        self._landing.pending = (executions, len(executions) + unasked)

    def __call__(self) -> float:
        now = self.now
        pending = getattr(self._landing, "pending", None)
        if pending is not None:
            executions, left = pending
            for execution in executions:
                execution.landed = max(execution.landed, now)
                execution.landed_from = min(execution.landed_from, now)
            self._landing.pending = (executions, left - 1) if left > 1 else None
        return now
