"""Helpers for tests of code that uses the decorator: a clock, a recording listener, a stampede."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Hashable
from math import isfinite
from typing import TYPE_CHECKING

from ..common.messages import shown
from ..telemetry.kinds import ALL_KINDS, check_kinds
from .callers import Caller
from .stampede import Stampede, stampede

if TYPE_CHECKING:
    from ..telemetry.events import Event

__all__ = ["Caller", "FakeClock", "Recorder", "Stampede", "stampede"]


class FakeClock:
    """A clock that only moves when it is told to: pass it as `timer`.

    Args:
        now: the time at which it starts, in seconds.

    Raises `TypeError` and `ValueError`, as its methods do, for what is no finite number.

    >>> from singleflight import single_flight_ttl
    >>> clock = FakeClock()
    >>> @single_flight_ttl(ttl=60, timer=clock)
    ... def price(symbol):
    ...     return clock()
    >>> price("ASML"), clock.advance(59), price("ASML"), clock.advance(1), price("ASML")
    (0.0, None, 0.0, None, 60.0)

    Safe to use from any thread.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = _finite("now", now)
        self._lock = threading.RLock()  # for who moves it; re-entrant, as signal handlers may

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the time by this many seconds; a negative number moves it back."""
        more = _finite("seconds", seconds)
        with self._lock:
            self._now += more

    def set(self, now: float) -> None:
        """Move the time to `now` seconds."""
        time = _finite("now", now)
        with self._lock:
            self._now = time

    def __repr__(self) -> str:
        return f"FakeClock({self._now!r})"


def _finite(name: str, given: object) -> float:
    if isinstance(given, (str, bytes, bytearray)):  # which `float` would read
        raise TypeError(f"{name}: expected seconds (a number), got {shown(given)}")
    try:
        number = float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected seconds (a number), got {shown(given)}") from None
    except OverflowError:
        raise ValueError(f"{name}: {shown(given)} is too large") from None
    if not isfinite(number):
        raise ValueError(f"{name}: expected a finite number of seconds, got {shown(given)}")
    return number


class Recorder:
    """A listener that keeps every event and lets a test wait for them: pass it as `listener`.

    Args:
        wants: the kinds to record; by default all of them.

    >>> from singleflight import single_flight_ttl
    >>> seen = Recorder()
    >>> @single_flight_ttl(ttl=60, listener=seen)
    ... def price(symbol):
    ...     return 984.75
    >>> price("ASML") == price("ASML")
    True
    >>> seen.kinds()
    ['fetch', 'land', 'hit']

    Safe to use from any thread.
    """

    def __init__(self, wants: Collection[str] = ALL_KINDS) -> None:
        check_kinds(wants)
        self.wants: frozenset[str] = frozenset(wants)
        self._changed = threading.Condition()
        self._events: list[Event] = []

    def __call__(self, event: Event, /) -> None:
        """Record the event."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    @property
    def events(self) -> list[Event]:
        """The events recorded so far, in the order of their sequence numbers."""
        with self._changed:
            return sorted(self._events, key=lambda event: event.sequence)

    def kinds(self) -> list[str]:
        """Return the kinds of the recorded events, in order."""
        return [event.kind for event in self.events]

    def of(self, kind: str, key: Hashable = ...) -> list[Event]:
        """Return the recorded events of one kind (and of one key, if given), in order."""
        return [e for e in self.events if e.kind == kind and (key is ... or e.key == key)]

    def count(self, kind: str) -> int:
        """Return how many events of this kind were recorded."""
        with self._changed:
            return self._count(kind)

    def wait_for(self, kind: str, count: int = 1, timeout: float = 10.0) -> None:
        """Return as soon as `count` events of this kind were recorded.

        Raises `TimeoutError` after `timeout` seconds, naming what was seen instead; `ValueError` for a
        kind that this recorder does not record.
        """
        if kind not in self.wants:
            raise ValueError(f"kind: this recorder does not record {kind!r}")
        give_up = time.monotonic() + timeout
        with self._changed:
            while self._count(kind) < count:
                if not self._changed.wait(give_up - time.monotonic()):
                    seen = [event.kind for event in self._events]
                    raise TimeoutError(f"waited {timeout}s for {count} x {kind!r}; seen: {seen}")

    def clear(self) -> None:
        """Remove all recorded events."""
        with self._changed:
            self._events.clear()

    def _count(self, kind: str) -> int:
        return sum(event.kind == kind for event in self._events)
