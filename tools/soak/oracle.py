"""What the soak's oracle knows: it is told of every call, execution, drop and clock step, and objects.

Everything that happens gets a number, its *moment*, in one order, under one lock. A value carries the
execution that made it, so each value that a caller receives can be judged by what had happened before:

- it belongs to the caller's function and key;
- its execution did not begin before an `invalidate` or `put` that was over when the call began;
- at some moment of the call it was younger than its life (ttl and grace), or its flight ended within it;
- an exception was raised by an execution for that key, and is younger than `failure_ttl`;
- no execution begins while another one for that key runs, unless a drop came between that detached it;
- where values are kept for their whole ttl, none is fetched by a call that began when there was a fresh one.

What cannot be decided from outside is allowed: a drop and an execution that begin at the same time.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from .parts import Broken, Call, Clock, Execution, Kind, Value

__all__ = ["Oracle"]


@dataclass(slots=True)
class Story:
    """What has happened to one key of one function."""

    executions: int = 0
    barrier: int = 0
    dropping: int = 0  # drops under way
    dropped: int = 0  # when the last drop was over
    nothing: int = 0  # when the last flight that brought None was over
    landing: set[Execution] = field(default_factory=set)  # have ended, but their flights perhaps not yet
    running: dict[Execution, None] = field(default_factory=dict)
    kept: Execution | None = None  # whose value is stored, as far as anybody can know
    told: deque[str] = field(default_factory=lambda: deque(maxlen=30))


class Oracle:
    """Judges everything that it is told. Safe to use from any thread; `lock` is held across a fork."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.clock = Clock()
        self.complaints: list[str] = []
        self.moment = 0
        self.counts: dict[tuple[str, str], int] = {}
        self._stories: dict[tuple[str, Hashable], Story] = {}
        self._steps: list[tuple[int, float]] = [(0, self.clock.now)]

    # -- what happens --------------------------------------------------------------------------------

    def count(self, kind: Kind, what: str, by: int = 1) -> None:
        """Add to the numbers that are compared with `stats()`."""
        with self.lock:
            self.counts[kind.name, what] = self.counts.get((kind.name, what), 0) + by

    def step(self, seconds: float) -> None:
        """The clock moves."""
        with self.lock:
            self.clock.now += seconds
            self._steps.append((self._next(), self.clock.now))

    def call_begins(self, kind: Kind, key: Hashable, how: str) -> Call:
        with self.lock:
            self.count(kind, "received")
            return Call(kind, key, how, self._next(), self._story(kind, key).barrier)

    def call_ends(self, call: Call, outcome: Any) -> None:
        """A caller received a value (also None) or an exception."""
        with self.lock:
            now, story = self._next(), self._story(call.kind, call.key)
            story.told.append(f"{now}: {call.how} since {call.began} received {_name(outcome)}")
            self._is_over(call)
            if isinstance(outcome, BaseException):
                timed_out = isinstance(outcome, TimeoutError)
                self.count(call.kind, "timeouts" if timed_out else "errors")
                wrong = self._judge_error(call, outcome)
            elif isinstance(outcome, Value):
                source = outcome.source
                source.received = source.received or now
                wrong = self._judge(call, source, call.kind.life)
            elif outcome is None:
                none = any(execution.outcome == "nothing" for execution in story.landing)
                late = not none and story.nothing < call.began
                wrong = "received None, which no execution since its beginning returned" if late else ""
            else:
                wrong = f"received {outcome!r}"
            if wrong:
                self.complain(call.kind, call.key, f"{call.how} [{call.began}, {now}] {wrong}")

    def calls_fail(self, calls: list[Call], error: BaseException) -> None:
        """A caller that asked for many keys received one exception, of any of them."""
        source = getattr(error, "source", None)
        keys = () if source is None else (source.key, *source.others)
        with self.lock:
            for call in calls:
                self._is_over(call)
            self.call_ends(next((call for call in calls if call.key in keys), calls[0]), error)

    def execution_begins(self, kind: Kind, key: Hashable, call: Call | None, is_refresh: bool) -> Execution:
        with self.lock:
            now, story = self._next(), self._story(kind, key)
            story.executions += 1
            execution = Execution(kind, key, story.executions, call.began if call else now, now)
            for other in story.running:
                if not story.dropping and story.dropped < min(other.asked, execution.asked):
                    self.complain(kind, key, f"{execution} begins while {other} runs, which nobody detached")
            if kind.keeps and call is not None and not is_refresh:
                self._judge_need(execution, story)
            story.running[execution] = None
            if call is not None:
                call.led.append(execution)
            story.told.append(f"{now}: execution {execution.number} begins, asked for at {execution.asked}")
            return execution

    def unasked_begins(self, kind: Kind, key: Hashable) -> Execution:
        """A loader is going to bring this value, too, whoever fetches it meanwhile."""
        with self.lock:
            story = self._story(kind, key)
            story.executions += 1
            now = self._next()
            return Execution(kind, key, story.executions, now, now)

    def execution_ends(self, execution: Execution, outcome: str) -> None:
        """With "value", "extra" (a value that nobody asked for), "nothing", "failure" or "cancelled"."""
        with self.lock:
            now, story = self._next(), self._story(execution.kind, execution.key)
            execution.ended, execution.outcome = now, outcome
            story.running.pop(execution, None)
            story.landing.add(execution)
            if outcome == "value":
                story.kept = execution
            elif outcome == "extra":
                story.kept = None  # it may have replaced what was there, or not
            story.told.append(f"{now}: execution {execution.number} ends: {outcome}")

    def drop_begins(self, kind: Kind, keys: Iterable[Hashable], how: str) -> tuple[Kind, list[Hashable], int]:
        """An `invalidate`, `put` or the like begins."""
        with self.lock:
            now, keys = self._next(), list(keys)
            for key in keys:
                story = self._story(kind, key)
                story.dropping += 1
                story.kept = None
                story.told.append(f"{now}: {how} begins")
            return kind, keys, now

    def drop_ends(self, drop: tuple[Kind, list[Hashable], int], put: Execution | None = None) -> None:
        kind, keys, began = drop
        with self.lock:
            now = self._next()
            for key in keys:
                story = self._story(kind, key)
                story.dropping -= 1
                story.dropped = now
                story.kept = None
                story.barrier = max(story.barrier, began)
                story.told.append(f"{now}: what began at {began} is over")
            if put is not None:
                put.ended, put.outcome, put.over = now, "value", now

    def put_begins(self, kind: Kind, key: Hashable) -> Execution:
        """What is about to be put."""
        execution = self.unasked_begins(kind, key)
        execution.is_put = True
        return execution

    def quiet(self) -> None:
        """Nothing runs: what is only needed to judge what overlaps is forgotten."""
        with self.lock:
            self._steps = [(self._next(), self.clock.now)]
            for story in self._stories.values():
                story.kept = None
                for execution in list(story.landing):
                    self.flight_is_over(execution)

    def forget(self, kind: Kind, key: Hashable) -> None:
        """Nobody will ask for this key again."""
        with self.lock:
            self._stories.pop((kind.name, key), None)

    def alone(self) -> None:
        """In a forked child: what ran on other threads does not run here."""
        self.complaints.clear()
        for story in self._stories.values():
            story.running.clear()
            story.landing.clear()
            story.dropping = 0
            story.kept = None

    def complain(self, kind: Kind, key: Hashable, wrong: str) -> None:
        """Remember what is wrong, with what came before it."""
        with self.lock:
            before = "\n    ".join(self._story(kind, key).told)
            self.complaints.append(f"{kind.name}({key!r}): {wrong}\n    {before}")

    def flight_is_over(self, execution: Execution) -> None:
        """Whoever comes from now on comes too late to follow it."""
        with self.lock:
            now = self._next()
            execution.over = int(min(execution.over, now))
            story = self._story(execution.kind, execution.key)
            story.landing.discard(execution)
            if execution.outcome == "nothing":
                story.nothing = max(story.nothing, execution.over)

    def _is_over(self, call: Call) -> None:
        """The caller has what it led, so those flights have ended; others may come too late for them now.

        A leader that was cancelled went before: how long its flights take is not known then.
        """
        for execution in call.led if not call.ended else ():
            if execution.ended is not None:
                self.flight_is_over(execution)
        call.ended = True

    # -- judging; under the lock ---------------------------------------------------------------------

    def _judge(self, call: Call, source: Execution, life: float) -> str:
        if source.kind is not call.kind or (source.key != call.key and call.key not in source.others):
            return f"received what belongs to another key: {source}"
        if source.ended is None and not source.is_put:
            return f"received a value of an execution that has not ended: {source}"
        over = source.ended if source.is_put else source.began
        if over is not None and over < call.barrier:
            return f"received what was dropped at {call.barrier}: {source}"
        if source.over < call.began:
            lowest = self._lowest_since(call.began)
            if lowest >= source.landed + life:
                return f"received what landed at {source.landed} when it was at least {lowest}: {source}"
        return ""

    def _judge_error(self, call: Call, error: BaseException) -> str:
        if isinstance(error, Broken):
            if error.source.outcome != "failure":
                return f"received an exception of an execution that raised none: {error.source}"
            return self._judge(call, error.source, call.kind.failure_life)
        if isinstance(error, TimeoutError) and call.kind.may_time_out:
            return ""
        return "" if call.cancelled and type(error).__name__ == "CancelledError" else f"received {error!r}"

    def _judge_need(self, execution: Execution, story: Story) -> None:
        kept = story.kept
        if kept is None or kept.received is None or kept.ended is None or kept.received > execution.asked:
            return
        if story.dropping or story.dropped > kept.asked:
            return
        if self._highest_since(kept.ended) < kept.landed_from + execution.kind.life:
            self.complain(execution.kind, execution.key, f"{execution} begins though {kept} is fresh")

    def _lowest_since(self, moment: int) -> float:
        return min(value for _, value in self._steps[self._place(moment) :])

    def _highest_since(self, moment: int) -> float:
        return max(value for _, value in self._steps[self._place(moment) :])

    def _place(self, moment: int) -> int:
        return max(0, bisect_right(self._steps, moment, key=lambda step: step[0]) - 1)

    def _story(self, kind: Kind, key: Hashable) -> Story:
        return self._stories.setdefault((kind.name, key), Story())

    def _next(self) -> int:
        self.moment += 1
        return self.moment


def _name(outcome: Any) -> str:
    return str(outcome.source) if isinstance(outcome, Value) else repr(outcome)
