"""One gate for all requests that a service counts together: those of one key pair.

The service says how many requests are left until when (`X-Ratelimit-Remaining`, `-Reset`), and answers 429
when there are none. No request passes the gate that is sure to be refused: no more are in progress at a time
than are left, and after a 429 all wait until `Retry-After` or the reset. Then one request tries; with its
answer the gate opens.

A service that says less, or a limit of one's own below its limit, takes a bucket before the gate: so many
tokens as requests may be made in a minute. A request takes one, and it is back a minute after the answer. So
the service counts no more than that in any minute, however long requests travel and whenever its own minute
begins (the usual bucket, refilled steadily, lets up to twice as many pass in the minute after a pause).
"""

from __future__ import annotations

import heapq
import itertools
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

__all__ = ["LONGEST_PAUSE", "Gate", "GateShut", "gate_of"]

LONGEST_PAUSE = 120.0  # seconds: a service that names a longer one is not believed
_MINUTE = 60.0
_FOR_ORDERS = 0.1  # the part of the trading service's requests that only orders may use


class GateShut(Exception):
    """The request was not sent: the service takes no more for now, and its turn did not come in time."""


class Turn:
    """One request's place: in line, then in progress. Its fields are guarded by the gate's lock."""

    __slots__ = ("number", "urgent")
    urgent: bool
    number: int

    def __init__(self, urgent: bool, number: int) -> None:
        self.urgent, self.number = urgent, number

    def __lt__(self, other: Turn) -> bool:
        return (not self.urgent, self.number) < (not other.urgent, other.number)


class Gate:
    """Lets requests pass while the service takes them, the urgent ones first and the others as they came.

    Args:
        pause: seconds for which a 429 shuts it that does not say until when.
        timer: a monotonic clock, in seconds.
        for_urgent: the part of the requests, 0 to 1, that only urgent ones may use, so that the others do not
            take the last ones.

    Safe to use from any thread. A caller waits in its own thread.

    >>> gate = Gate(pause=3)
    >>> with gate.passing() as answered:
    ...     answered(200, {"X-Ratelimit-Remaining": "199"})
    >>> gate.left
    199
    """

    def __init__(
        self,
        pause: float = 3.0,
        timer: Callable[[], float] = time.monotonic,
        for_urgent: float = 0.0,
    ) -> None:
        self._pause = pause
        self._timer = timer
        self._for_urgent = for_urgent
        self._changed = threading.Condition()  # guards all that follows
        self._line: list[Turn] = []  # a heap of those who wait
        self._numbers = itertools.count()
        self._flying: set[Turn] = set()  # those in progress
        self._trying: Turn | None = None  # the one of them that passed after a 429, to see
        self._shut_until = -math.inf
        self._must_try = False  # a 429 came, and no answer since
        self._left: int | None = None  # requests that are left in the window; None: the service has not said
        self._limit: int | None = None
        self._window = -math.inf  # the reset that the service named
        self._window_ends = -math.inf  # the same, on our clock
        self._rates: list[tuple[weakref.ref[Any], int]] = []  # who named which; replaced as a whole
        self._spent: deque[float] = deque()  # when the requests of the last minute ended

    @property
    def left(self) -> int | None:
        """Return how many requests the service said are left; None if it says nothing."""
        return self._left

    @property
    def waiting(self) -> int:
        """Return how many requests wait."""
        return len(self._line)

    @property
    def is_shut(self) -> bool:
        """Return True if no request may pass except, perhaps, one that tries."""
        return self._must_try or self._timer() < self._shut_until

    @property
    def requests_per_minute(self) -> int | None:
        """Return the rate that holds: the smallest of those that `keep_to` was given; None without one."""
        return min((rate for who, rate in self._rates if who() is not None), default=None)

    def keep_to(self, requests_per_minute: int, who: object) -> None:
        """Let no more requests pass in any minute, urgent ones included.

        Args:
            requests_per_minute: at least 1.
            who: for as long as this object lives. Of several rates the smallest holds.
        """
        if requests_per_minute < 1:
            raise ValueError(f"requests_per_minute: expected at least 1, got {requests_per_minute!r}")
        with self._changed:
            living = [named for named in self._rates if named[0]() is not None]
            self._rates = [*living, (weakref.ref(who), requests_per_minute)]

    @contextmanager
    def passing(
        self, urgent: bool = False, patience: float = LONGEST_PAUSE
    ) -> Iterator[Callable[[int, Mapping[str, str]], None]]:
        """Wait for the request's turn, then hold its place until its answer is there.

        Args:
            urgent: True if it goes before those that are not, such as an order.
            patience: how many seconds it waits.

        Gives a function that is to be called with the status and headers of the answer. Raises `GateShut` if
        its turn does not come in time.
        """
        turn = Turn(urgent, next(self._numbers))
        answers: list[int] = []

        def answered(status: int, headers: Mapping[str, str]) -> None:
            answers.append(status)
            with self._changed:
                self._learn(status, headers)

        try:
            self._wait(turn, patience)
            yield answered
        finally:  # also where an interrupt ends the wait: each step may be left out or repeated
            with self._changed:
                if turn in self._line:
                    self._line.remove(turn)
                    heapq.heapify(self._line)
                if turn in self._flying:
                    self._flying.remove(turn)
                    self._spent.append(self._timer())
                if self._trying is turn:
                    self._trying = None
                    if answers and answers[-1] != 429:
                        self._must_try = False
                self._changed.notify_all()

    def _wait(self, turn: Turn, patience: float) -> None:
        """Wait until it may pass."""
        with self._changed:
            until = self._timer() + patience
            heapq.heappush(self._line, turn)
            while (pause := self._pause_before(turn)) is None or pause > 0:
                left = until - self._timer()
                if left <= 0:
                    raise GateShut("too many requests; the service takes no more for now")
                self._changed.wait(left if pause is None else min(left, pause))
            self._flying.add(turn)
            if self._must_try:
                self._trying = turn
            heapq.heappop(self._line)
            self._changed.notify_all()  # the next in line may pass, too

    def _pause_before(self, turn: Turn) -> float | None:
        """For how many seconds it has to wait; None: until something changes."""
        if self._line[0] is not turn:
            return None
        now = self._timer()
        if now < self._shut_until:
            return self._shut_until - now
        if (pause := self._pause_for_token(turn, now)) is None or pause > 0:
            return pause
        if self._must_try:
            return None if self._trying else 0.0
        if self._left is None:
            return 0.0
        if now >= self._window_ends:
            self._left = self._limit
        if self._left is None or len(self._flying) < self._open_to(turn, self._left, self._limit):
            return 0.0
        return None if self._flying else self._window_ends - now

    def _pause_for_token(self, turn: Turn, now: float) -> float | None:
        """The same for the bucket."""
        rate, spent = self.requests_per_minute, self._spent
        while spent and spent[0] + _MINUTE <= now:
            spent.popleft()
        if rate is None:
            return 0.0
        lacking = len(self._flying) + len(spent) + 1 - self._open_to(turn, rate, rate)
        if lacking <= 0:
            return 0.0
        return spent[lacking - 1] + _MINUTE - now if lacking <= len(spent) else None

    def _open_to(self, turn: Turn, left: int, limit: int | None) -> int:
        """How many of the requests that are left it may be one of."""
        if turn.urgent:
            return left
        limit = limit or left
        return left - max(0, min(limit - 1, math.ceil(limit * self._for_urgent)))

    def _learn(self, status: int, headers: Mapping[str, str]) -> None:
        """Take over what the service said; call under the lock."""
        now = self._timer()
        reset = _number(headers.get("X-Ratelimit-Reset"))
        ends = None if reset is None else now + _pause(reset - _date(headers))
        left, limit = _number(headers.get("X-Ratelimit-Remaining")), _number(headers.get("X-Ratelimit-Limit"))
        if left is not None:
            window = self._window if reset is None else reset
            if window > self._window or self._left is None:
                self._window, self._left = window, int(left)
                self._window_ends = now + self._pause if ends is None else ends
            elif window == self._window:
                self._left = min(self._left, int(left))
        if limit is not None:
            self._limit = int(limit)
        if status == 429:
            after = _retry_after(headers)
            if after is not None:
                ends = now + _pause(after)
            self._shut_until = max(self._shut_until, now + self._pause if ends is None else ends)
            self._must_try = True


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(headers: Mapping[str, str]) -> float:
    """The service's own time, since its clock may not be ours; ours where they agree, which is finer."""
    now = time.time()
    try:
        date = parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return now
    return now if abs(now - date) < 2 else date


def _retry_after(headers: Mapping[str, str]) -> float | None:
    text = headers.get("Retry-After")
    seconds = _number(text)
    if seconds is None and text:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - _date(headers)
        except (TypeError, ValueError):
            return None
    return seconds


def _pause(seconds: float) -> float:
    return min(max(0.0, seconds), LONGEST_PAUSE)


# One for each process, service and key pair; never so many that they matter.
_gates: dict[Hashable, Gate] = {}


def gate_of(service: str, origin: str, key: str | None, pause: float) -> Gate:
    """Return the gate of all clients in this process that ask a service ("data" or "trading") with one key.

    A forked child has gates of its own, whose locks no thread of its parent holds.
    """
    named = os.getpid(), service, origin, key
    for_urgent = _FOR_ORDERS if service == "trading" else 0.0
    return _gates.get(named) or _gates.setdefault(named, Gate(pause, for_urgent=for_urgent))
