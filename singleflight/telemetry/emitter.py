"""Builds and delivers events, if the listener or the log wants them."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from ..common.keys import plain
from ..common.messages import shown
from ..storage.entry import Record
from .kinds import ALL_KINDS, log

__all__ = ["Emitter"]


class Reported(Protocol):
    """The fields of a flight that events contain."""

    key: Hashable
    kind: str
    started: float
    landed: float
    value: Any
    error: BaseException | None


class Emitter:
    """Delivers one function's events to its listener and to the library's log."""

    # `_telling.active` is per thread; the other fields are written once, `_blamed` by whoever is first.
    __slots__ = ("_blamed", "_listener", "_numbers", "_telling", "has_listener", "name")

    def __init__(self, name: str, listener: Callable[[Any], object] | None) -> None:
        self.name = name
        self._listener = listener
        self.has_listener = listener is not None
        self._numbers = itertools.count(1)
        self._telling = threading.local()
        self._blamed = False

    def wants(self, kind: str) -> bool:
        """Return True if events of this kind are wanted now (never inside the function's own listener)."""
        listener = self._listener
        if listener is None:
            return log.isEnabledFor(logging.DEBUG) and kind != "hit"
        if getattr(self._telling, "active", False):
            return False
        return self._listens(kind) or (kind != "hit" and log.isEnabledFor(logging.DEBUG))

    def _listens(self, kind: str) -> bool:
        """Return True if the listener wants this kind. If its `wants` raises, log that once; return False."""
        try:
            return kind in getattr(self._listener, "wants", ALL_KINDS)
        except Exception:
            self._blame()
            return False

    def _blame(self) -> None:
        if not self._blamed:
            self._blamed = True
            log.exception("%s: its listener %s failed; told once", self.name, shown(self._listener))

    def tell(self, kind: str, key: Hashable, **details: Any) -> None:
        """Build the event and deliver it. Call this only if `wants` returned True, and under no lock."""
        self._telling.active = True
        try:
            from .events import BY_KIND, to_log  # here alone: most programs want no event

            event = BY_KIND[kind](name=self.name, key=plain(key), sequence=next(self._numbers), **details)
            if kind != "hit" and log.isEnabledFor(logging.DEBUG):
                to_log(event)
            listener = self._listener
            if listener is not None and self._listens(kind):
                listener(event)
        except Exception:
            self._blame()
        finally:
            self._telling.active = False

    # -- one method a kind; each is called after the transition, under no lock ----------------------------

    def hit(self, record: Record, now: float) -> bool:
        """Emit a hit that took the longer path. Return True if it was wanted."""
        wanted = self.wants("hit")
        if wanted:
            self.tell("hit", record.key, value=record.value, age=max(0.0, now - record.landed))
        return wanted

    def stale_hit(self, record: Record, now: float) -> None:
        """Emit that a caller was served a value past its ttl."""
        if self.wants("stale_hit"):
            self.tell("stale_hit", record.key, value=record.value, age=max(0.0, now - record.landed))

    def refused(self, key: Hashable, cycle: str) -> None:
        """Emit that a caller would have closed a cycle."""
        if self.wants("deadlock"):
            self.tell("deadlock", key, cycle=cycle)

    def fetching(self, flight: Reported) -> None:
        """Emit that a leader is about to run the function."""
        if self.wants("fetch"):
            self.tell("fetch", flight.key, flight=flight.kind)

    def waiting(self, flight: Reported, followers: int) -> None:
        """Emit that a follower begins to wait, as one of `followers`."""
        if self.wants("wait"):
            self.tell("wait", flight.key, followers=followers)

    def shared(self, flight: Reported, now: float, waited: float) -> None:
        """Emit that a follower has its flight's outcome."""
        if self.wants("share"):
            value, error = flight.value, flight.error
            age = max(0.0, now - flight.landed)
            self.tell("share", flight.key, value=value, error=error, age=age, waited=waited)

    def timed_out(self, key: Hashable, waited: float) -> None:
        """Emit that a follower gave up."""
        if self.wants("timeout"):
            self.tell("timeout", key, waited=waited)

    def landed(
        self, flight: Reported, ended: tuple[int, bool], value: Any, now: float, ttl: float | None
    ) -> None:
        """Emit that a flight ended with a value, stored for `ttl` seconds or (None) not stored."""
        if self.wants("land"):
            told = _told(flight, ended, now)
            self.tell(
                "land", flight.key, value=value, stored=ttl is not None, ttl=ttl, retried=ended[1], **told
            )

    def failed(self, flight: Reported, ended: tuple[int, bool], error: BaseException, now: float) -> None:
        """Emit that a flight ended with an exception, or was aborted by one."""
        told = _told(flight, ended, now)
        if not isinstance(error, Exception):
            if self.wants("abort"):
                self.tell("abort", flight.key, error=error, **told)
        elif self.wants("land"):
            self.tell("land", flight.key, error=error, stored=False, retried=ended[1], **told)

    def unseated(self, flight: Reported) -> None:
        """Emit that a flight took too long, or could not end, and has lost its key."""
        if self.wants("unseat"):
            self.tell("unseat", flight.key)

    def gone(self, records: list[Record], now: float) -> None:
        """Emit that these records were evicted or have expired."""
        for record in records:
            kind = "evict" if record.fresh_for(now) > 0 else "expire"
            if self.wants(kind):
                self.tell(kind, record.key)


def _told(flight: Reported, ended: tuple[int, bool], now: float) -> dict[str, Any]:
    return {"duration": now - flight.started, "followers": ended[0]}
