"""What the promises are, whatever the schedule: checked from outside, by what happened in which order.

Times are *ticks*: the oracle gives each thing that it notes the next number. What is certain is only what
lies between two ticks, so that every check here is one that no right library can fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

__all__ = ["Call", "Execution", "Oracle", "Refused", "Touch"]


class Refused(Exception):
    """What an execution raises; carries its numbers, one for each key that it was for."""


@dataclass
class Call:
    """One call of the decorated function, and what it brought."""

    key: Any
    begun: int
    since: float  # on the scheduler's clock, as `until`
    ended: int = sys.maxsize
    until: float = inf
    value: Any = None
    error: BaseException | None = None
    joined: int | None = None
    """When it was known to follow a flight, if anybody listened."""


@dataclass
class Execution:
    """One run of the function for a key, or a value that was put. Its value is its number."""

    key: Any
    number: int
    call: Call
    """That it is for."""
    begun: int
    loop: Any
    ended: int | None = None
    was_put: bool = False


@dataclass
class Touch:
    """Somebody invalidated or put a value."""

    key: Any
    begun: int
    ended: int | None = None


_call: contextvars.ContextVar[Call] = contextvars.ContextVar("the call that is under way")


class Oracle:
    """Notes what executions, calls and touches do, and knows what may not be.

    Args:
        clock: the scheduler's.
        lives: for how many seconds a value may be served.
        overdue: after how many seconds an execution loses its key.
        stores_failures: whether a call may get an error that was there before it.
    """

    def __init__(
        self, clock: Callable[[], float], lives: float, overdue: float | None, stores_failures: bool
    ) -> None:
        self._clock, self._lives, self._overdue = clock, lives, overdue
        self._stores_failures = stores_failures
        self.retries: int | None = None  # `follower_retries`, where those who wait are told
        self.executions: list[Execution] = []
        self.calls: list[Call] = []
        self.runs = 0  # of the function or a loader
        self.lost = 0  # of these on loops that died
        self.unfinished = 0  # how many keys are asked for, by calls that have not ended
        self._touches: list[Touch] = []
        self._ticks = itertools.count(1)

    # -- what happens ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def calling(self, *keys: Any, may_raise: tuple[type[BaseException], ...]) -> Iterator[list[Call]]:
        """One call for a key, or for several; cancellations go on."""
        begun, before = next(self._ticks), _call.get(None)
        calls = [Call(key, begun, self._clock()) for key in keys]
        _call.set(calls[0])
        self.unfinished += len(keys)
        error: BaseException | None = None
        try:
            yield calls
        except BaseException as raised:
            error = raised
            if not isinstance(raised, may_raise):
                raise
        finally:
            if before is not None:
                _call.set(before)
            ended = next(self._ticks)
            for call in calls:
                call.ended, call.until, call.error = ended, self._clock(), error
            self.calls += calls
            self.unfinished -= len(keys)

    @contextlib.contextmanager
    def executing(self, *keys: Any) -> Iterator[list[Execution]]:
        """The function runs for a key, or a loader for several."""
        self.runs += 1
        call = _call.get()
        for key in keys:
            for other in self.executions:
                if other.key == key and other.ended is None and not self._detached(other, call):
                    raise AssertionError(f"a second execution of {key!r} begins within {other}")
        begun = next(self._ticks)
        mine = [self._new(key, call, begun) for key in keys]
        try:
            yield mine
        finally:
            ended = next(self._ticks)
            for execution in mine:
                execution.ended = ended

    def _new(self, key: Any, call: Call, begun: int) -> Execution:
        loop = asyncio._get_running_loop()
        execution = Execution(key, len(self.executions) + 1, call, begun, loop)
        self.executions.append(execution)
        return execution

    def _detached(self, other: Execution, call: Call) -> bool:
        """Whether its flight, or that of this call, may have lost its key."""
        since = min(other.call.begun, call.begun)
        if any(touch.key == other.key and (touch.ended or since) >= since for touch in self._touches):
            return True
        return self._overdue is not None and self._clock() >= other.call.since + self._overdue

    def stopped(self, loop: Any) -> None:
        """This loop is closed: what ran there runs no more."""
        for execution in self.executions:
            if execution.loop is loop and execution.ended is None:
                execution.ended = next(self._ticks)
                self.lost += 1

    def forked(self) -> None:
        """In a forked child: nothing runs."""
        for execution in self.executions:
            execution.ended = execution.ended or next(self._ticks)

    @contextlib.contextmanager
    def touching(self, key: Any) -> Iterator[Touch]:
        """Somebody invalidates."""
        touch = Touch(key, next(self._ticks))
        self._touches.append(touch)
        yield touch
        touch.ended = next(self._ticks)

    @contextlib.contextmanager
    def putting(self, key: Any) -> Iterator[int]:
        """Somebody puts the value that this yields."""
        with self.touching(key) as touch:
            call = Call(key, touch.begun, self._clock())
            value = self._new(key, call, sys.maxsize)  # as young as can be, until it is there
            value.was_put, value.ended = True, touch.begun
            yield value.number
        value.begun, call.until = touch.ended or 0, self._clock()

    def told(self, event: Any) -> None:
        """A listener that wants to know who waits; called by whoever does."""
        _call.get().joined = next(self._ticks)

    # -- what may not be ------------------------------------------------------------------------------

    def check(self) -> None:
        """Every call got an outcome of its own key that it may have got."""
        executions = {execution.number: execution for execution in self.executions}
        for call in self.calls:
            if isinstance(call.error, Refused):
                failed = [executions[number] for number in call.error.args]
                asked = {other.key for other in self.calls if other.begun == call.begun}  # of a bulk call all
                assert asked & {execution.key for execution in failed}, (
                    f"{call} got another key's error: {failed}"
                )
                landed = max(execution.call.ended for execution in failed)
                shared = landed >= call.begun or self._stores_failures
                assert shared, f"{call} got an error that was there before it: {failed}"
                self._check_chain(call, failed[-1])
            elif call.error is None:
                self._check_value(call, executions[call.value])

    def _check_chain(self, call: Call, last: Execution) -> None:
        """From the flight that it joined to the one that it got were no more than its retries allow."""
        if call.joined is None or self.retries is None or self._touches:
            return
        chain = [
            execution
            for execution in self.executions
            if execution.key == call.key
            and (execution.ended or 0) > call.joined
            and execution.number <= last.number
        ]
        assert len(chain) <= 1 + self.retries, f"{call} waited for more flights than it may: {chain}"

    def _check_value(self, call: Call, execution: Execution) -> None:
        assert execution.key == call.key, f"{call} got another key's value: {execution}"
        shared = execution.call.ended >= call.begun  # perhaps: it may have followed that very call
        fresh = call.since < execution.call.until + self._lives
        assert shared or fresh, f"{call} got {execution}, which is too old"
        for touch in self._touches:
            if touch.key == call.key and touch.ended is not None and touch.ended < call.begun:
                assert execution.begun > touch.begun, f"{call} got {execution}, which is older than {touch}"
