"""One gate for all requests that a service counts together: those of one key pair.

The service says how many requests are left until when (`X-Ratelimit-Remaining`, `-Reset`), and answers 429
when there are none. No request passes the gate that is sure to be refused: no more are on their way at a time
than are left, and after a 429 all wait until `Retry-After` or the reset. Then one request tries; with its
answer the gate opens.
"""

from __future__ import annotations

import heapq
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

__all__ = ["Gate", "GateShut", "gate_of"]

_LONGEST_PAUSE = 120.0  # seconds: nobody is believed who asks for more


class GateShut(Exception):
    """The request was not sent: the service takes no more for now, and its turn did not come in time."""


class Gate:
    """Lets requests pass while the service takes them, the urgent ones first and the others as they came.

    Args:
        pause: seconds for which a 429 shuts it that does not say until when.
        timer: a monotonic clock, in seconds.

    Safe to use from any thread. A caller waits in its own thread.

    >>> gate = Gate(pause=3)
    >>> with gate.passing() as answered:
    ...     answered(200, {"X-Ratelimit-Remaining": "199"})
    >>> gate.left
    199
    """

    def __init__(self, pause: float = 3.0, timer: Callable[[], float] = time.monotonic) -> None:
        self._pause = pause
        self._timer = timer
        self._changed = threading.Condition()  # guards all that follows
        self._line: list[tuple[bool, int]] = []  # a heap of those who wait: urgent ones are False, and first
        self._numbers = itertools.count()
        self._flying = 0
        self._shut_until = -math.inf
        self._must_try = False  # a 429 came, and no answer since
        self._is_trying = False  # one request is on its way that may pass all the same
        self._left: int | None = None  # requests that are left in the window; None: the service has not said
        self._limit: int | None = None
        self._window = -math.inf  # the reset that the service named
        self._window_ends = -math.inf  # the same, on our clock

    @property
    def left(self) -> int | None:
        """How many requests the service said are left; None where it says nothing."""
        return self._left

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._line)

    @property
    def is_shut(self) -> bool:
        """Return True if no request may pass but, perhaps, one that tries."""
        return self._must_try or self._timer() < self._shut_until

    @contextmanager
    def passing(
        self, urgent: bool = False, patience: float = _LONGEST_PAUSE
    ) -> Iterator[Callable[[int, Mapping[str, str]], None]]:
        """Wait for the request's turn, then hold its place until its answer is there.

        Args:
            urgent: whether it goes before those that are not, such as an order.
            patience: how many seconds it waits.

        Gives a function that is to be called with the status and headers of the answer. Raises `GateShut` if
        its turn does not come in time.
        """
        tries = self._enter(urgent, patience)
        answers: list[int] = []

        def answered(status: int, headers: Mapping[str, str]) -> None:
            answers.append(status)
            with self._changed:
                self._learn(status, headers)

        try:
            yield answered
        finally:
            with self._changed:
                self._flying -= 1
                if tries:
                    self._is_trying = False
                    if answers and answers[-1] != 429:
                        self._must_try = False
                self._changed.notify_all()

    def _enter(self, urgent: bool, patience: float) -> bool:
        """Wait until it may pass; return True if it is the one that tries."""
        ticket = (not urgent, next(self._numbers))
        with self._changed:
            until = self._timer() + patience
            heapq.heappush(self._line, ticket)
            try:
                while (pause := self._pause_before(ticket)) is None or pause > 0:
                    left = until - self._timer()
                    if left <= 0:
                        raise GateShut("too many requests; the service takes no more for now")
                    self._changed.wait(left if pause is None else min(left, pause))
                self._flying += 1
                self._is_trying = tries = self._must_try
                return tries
            finally:
                self._line.remove(ticket)
                heapq.heapify(self._line)
                self._changed.notify_all()  # the next in line may pass, too

    def _pause_before(self, ticket: tuple[bool, int]) -> float | None:
        """For how many seconds it has to wait; None: until something changes."""
        if self._line[0] != ticket:
            return None
        now = self._timer()
        if now < self._shut_until:
            return self._shut_until - now
        if self._must_try:
            return None if self._is_trying else 0.0
        if self._left is None:
            return 0.0
        if now >= self._window_ends:
            self._left = self._limit
        if self._left is None or self._flying < self._left:
            return 0.0
        return None if self._flying else self._window_ends - now

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
    return min(max(0.0, seconds), _LONGEST_PAUSE)


_gates: dict[
    Hashable, Gate
] = {}  # one for each process, service and key pair; never so many that they matter


def gate_of(service: str, origin: str, key: str | None, pause: float) -> Gate:
    """The gate of all clients of this process that ask this service with this key."""
    named = os.getpid(), service, origin, key
    return _gates.get(named) or _gates.setdefault(named, Gate(pause))
