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
    served: str | None = None
    """How, if it asked."""
    ahead: tuple[Any, ...] = ()
    """Who stood in line when it came."""


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
    unasked: bool = False
    """A loader brought it besides what it was asked for."""
    failed: bool = False
    confirms: int | None = None
    """The number of the value that it left as it was."""

    def over(self) -> float:
        """When it was there for certain, if it is stored."""
        return self.begun if self.was_put else max(self.call.ended, self.ended or inf)


@dataclass
class Touch:
    """Somebody invalidated or put a value, or cleared an instance, or invalidated a tag."""

    key: Any
    begun: int
    ended: int | None = None
    detaches: bool = True
    """Whether a flight in progress loses its key."""


_call: contextvars.ContextVar[Call] = contextvars.ContextVar("the call that is under way")


class Oracle:
    """Notes what executions, calls and touches do, and knows what may not be.

    Args:
        clock: the scheduler's.
        lives: for how many seconds a value may be served.
        overdue: after how many seconds an execution loses its key.
        stores_failures: whether a call may get an error that was there before it.
        fresh: for how many of these seconds it is fresh.
        soft: how many seconds a call waits before it is served a value that is not.
        patience: how many seconds a call waits before it gives up; None for no limit.
        seats: how many executions may run at once; None for no limit.
        in_line: who stands in line for one.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        lives: float,
        overdue: float | None,
        stores_failures: bool,
        *,
        fresh: float = inf,
        soft: float = 0,
        patience: float | None = None,
        seats: int | None = None,
        in_line: Callable[[], tuple[Any, ...]] = tuple,
    ) -> None:
        self._clock, self._lives, self._overdue = clock, lives, overdue
        self._stores_failures = stores_failures
        self._fresh, self._soft, self._patience = fresh, soft, patience
        self._seats, self._in_line = seats, in_line
        self._running: dict[int, Any] = {}  # runs that have not ended, each with its loop
        self.retries: int | None = None  # `follower_retries`, where those who wait are told
        self.executions: list[Execution] = []
        self.calls: list[Call] = []
        self.runs = 0  # of the function or a loader
        self.lost = 0  # of these on loops that died
        self._died = False  # whether a loop did
        self.unfinished = 0  # how many keys are asked for, by calls that have not ended
        self._touches: list[Touch] = []
        self._ticks = itertools.count(1)

    # -- what happens ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def calling(self, *keys: Any, may_raise: tuple[type[BaseException], ...]) -> Iterator[list[Call]]:
        """One call for a key, or for several; cancellations go on."""
        begun, before = next(self._ticks), _call.get(None)
        ahead = self._in_line()
        calls = [Call(key, begun, self._clock(), ahead=ahead) for key in keys]
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
        self._running[begun] = asyncio._get_running_loop()
        self._check_line(call)
        try:
            yield mine
        except BaseException:
            for execution in mine:
                execution.failed = True
            raise
        finally:
            ended = next(self._ticks)
            self._running.pop(begun, None)
            for execution in mine:
                execution.ended = ended

    def brought(self, like: Execution, *keys: Any) -> list[Execution]:
        """What a loader brings besides; as old as what it was asked for."""
        more = [self._new(key, like.call, like.begun) for key in keys]
        for execution in more:
            execution.unasked, execution.ended = True, execution.begun
        return more

    def _check_line(self, call: Call) -> None:
        """No more run at once than may, and whoever came first was let in first."""
        if self._seats is None:
            return
        assert len(self._running) <= self._seats, f"{len(self._running)} run at once: {self.executions}"
        passed = set(call.ahead).intersection(self._in_line())
        assert not passed, f"{call} was let in before {[seat.key for seat in passed]}"

    def _new(self, key: Any, call: Call, begun: int) -> Execution:
        loop = asyncio._get_running_loop()
        execution = Execution(key, len(self.executions) + 1, call, begun, loop)
        self.executions.append(execution)
        return execution

    def _detached(self, other: Execution, call: Call) -> bool:
        """Whether its flight, or that of this call, may have lost its key."""
        since = min(other.call.begun, call.begun)
        touches = [touch for touch in self._touches if touch.key == other.key and touch.detaches]
        if any((touch.ended or since) >= since for touch in touches):
            return True
        return self._overdue is not None and self._clock() >= other.call.since + self._overdue

    def stopped(self, loop: Any) -> None:
        """This loop is closed: what ran there runs no more."""
        for execution in self.executions:
            if execution.loop is loop and execution.ended is None:
                execution.ended, execution.failed = next(self._ticks), True
                self.lost += 1
        self._running = {begun: on for begun, on in self._running.items() if on is not loop}
        self._died = True

    def forked(self) -> None:
        """In a forked child: nothing runs."""
        for execution in self.executions:
            execution.ended = execution.ended or next(self._ticks)
        self._running.clear()

    @contextlib.contextmanager
    def touching(self, *keys: Any, detaches: bool = True) -> Iterator[Touch]:
        """Somebody invalidates; yields the first key's."""
        begun = next(self._ticks)
        touches = [Touch(key, begun, detaches=detaches) for key in keys]
        self._touches += touches
        yield touches[0]
        ended = next(self._ticks)
        for touch in touches:
            touch.ended = ended

    @contextlib.contextmanager
    def putting(self, key: Any) -> Iterator[int]:
        """Somebody puts the value that this yields."""
        with self.touching(key) as touch:
            call = Call(key, touch.begun, self._clock())
            value = self._new(key, call, sys.maxsize)  # as young as can be, until it is there
            value.was_put, value.ended = True, touch.begun
            yield value.number
        value.begun = call.ended = touch.ended or 0
        call.until = self._clock()

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
            elif isinstance(call.error, TimeoutError) and self._patience is not None:
                waited = call.until - call.since
                assert self._overdue is not None or waited >= self._patience, f"{call} was not patient"

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
        said = [execution, *(other for other in self.executions if other.confirms == execution.number)]
        shared = any(each.call.ended >= call.begun for each in said)  # perhaps: it may have followed it
        fresh = any(call.since < each.call.until + self._lives for each in said)
        assert shared or fresh, f"{call} got {execution}, which is too old"
        self._check_touches(call.begun, f"{call} got", said)
        if not shared:
            self._check_soft(call, said)
            self._check_newer(call, execution)
        if call.served is not None:
            self._check_served(call, said)
        for other in said[1:]:
            before = [each for each in said if each.begun < other.begun]
            self._check_touches(other.call.begun, f"{other} kept", before)

    def _check_touches(self, since: int, who: str, said: list[Execution]) -> None:
        """What came then is none of what had been dropped before, unless it was found to be right since."""
        for touch in self._touches:
            if touch.key == said[0].key and touch.ended is not None and touch.ended < since:
                newest = max(each.begun for each in said)
                assert newest > touch.begun, f"{who} {said}, which is older than {touch}"

    def _check_soft(self, call: Call, said: list[Execution]) -> None:
        """It was not served a stale value before it had waited, unless the renewal brought nothing."""
        stale = all(call.since >= each.call.until + self._fresh for each in said)
        if not self._soft or not stale or call.until - call.since >= self._soft:
            return
        nothing = any(other.key == call.key and other.failed for other in self.executions)
        excused = nothing or self._died or self._overdue is not None or self._touched(call.key)
        assert excused, f"{call} got {said}, which is stale, and it did not wait"

    def _check_newer(self, call: Call, execution: Execution) -> None:
        """Nobody had received a newer value before it began, unless that was not stored."""
        if self._overdue is not None or self._touched(call.key):
            return
        for other in self.calls:
            if other.key == call.key and other.error is None and other.ended < call.begun:
                newer = next(each for each in self.executions if each.number == other.value)
                known = newer is execution or newer.begun < execution.over()
                assert known, f"{call} got {execution}, and {other} {newer}"

    def _touched(self, key: Any) -> bool:
        """Whether somebody did since the first call began."""
        first = min(call.begun for call in self.calls)
        return any(touch.key == key and (touch.ended or first) >= first for touch in self._touches)

    def _check_served(self, call: Call, said: list[Execution]) -> None:
        """It was told how: by its own execution, another's, or what was stored."""
        mine = any(each.call is call for each in said)
        renewed = self._fresh < self._lives  # or else perhaps in the background
        assert mine == (call.served == "fetch") or (mine and renewed), f"{call} got {said}"
        if call.served in ("hit", "stale_hit"):
            assert any(each.ended is not None for each in said), f"{call} got {said}, which is not stored"
