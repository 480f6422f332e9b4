"""Builds and delivers events, if a listener or the log wants them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol

from ..common import logs
from ..common.errors import FlightTimeout
from ..common.keys import plain
from ..common.logs import DEBUG, log
from ..common.messages import shown
from ..storage.record import Record
from .kinds import ALL_KINDS, executing_of, wants_nothing

__all__ = ["Emitter"]

Listener = Callable[[Any], object]


class Reported(Protocol):
    """The fields of a flight that events contain."""

    key: Hashable
    ident: int
    kind: str
    background: bool
    deserted: bool
    timed_out: bool
    started: float
    landed: float
    value: Any
    error: BaseException | None


class Emitter:
    """Delivers one function's events to its listeners and to the library's log.

    The first listener is the function's own, if it has one; the others observe it for a while. `around` has
    what is to be entered around each execution (see `executions`).
    """

    # `_telling.active` is per thread. `_listeners`, `has_listener`, `watches_hits` and `around` are replaced
    # under the cache's `switching`, and read by anybody.
    __slots__ = (
        "_blamed",
        "_listeners",
        "_numbers",
        "_telling",
        "_watching",
        "around",
        "has_listener",
        "name",
        "watches_hits",
    )

    def __init__(self, name: str, listener: Listener | None) -> None:
        self.name: str = name
        self._listeners: tuple[Listener, ...] = ()
        self.has_listener: bool = False
        self.around: tuple[tuple[Listener, Callable[[Any], Any]], ...] = ()
        self._watching: tuple[Listener, ...] = ()  # those of the observers that want hits
        self.watches_hits: bool = False
        self._numbers = itertools.count(1)
        self._telling = threading.local()
        self._blamed: tuple[object, ...] = ()  # whose failure was logged; one more or less does no harm
        if listener is not None:
            self.add(listener, False)

    def add(self, listener: Listener, hits: bool) -> None:
        """From now on it is told of events, and with `hits` of every read, and enters executions."""
        executing = executing_of(listener)
        if executing is not None:
            self.around = (*self.around, (listener, executing))
            if wants_nothing(listener):
                return
        self._listeners = (*self._listeners, listener)
        self.has_listener = True
        if hits:
            self._watching = (*self._watching, listener)
            self.watches_hits = True

    def remove(self, listener: Listener) -> None:
        """It is not told of events that begin from now on, and enters no execution."""
        executing = [place for place, (other, _) in enumerate(self.around) if other is listener]
        if executing:
            self.around = self.around[: executing[-1]] + self.around[executing[-1] + 1 :]
        self._listeners = _without(self._listeners, listener)
        self.has_listener = bool(self._listeners)
        self._watching = _without(self._watching, listener)
        self.watches_hits = bool(self._watching)

    def wants(self, kind: str) -> bool:
        """Return True if events of this kind are wanted now (never inside a listener of the function)."""
        listeners = self._listeners
        if not listeners:
            return logs.is_logging(DEBUG) and kind != "hit"
        if getattr(self._telling, "active", False):
            return False
        for listener in listeners:
            if self._listens(listener, kind):
                return True
        return kind != "hit" and logs.is_logging(DEBUG)

    def _listens(self, listener: Listener, kind: str) -> bool:
        """Return True if a listener wants this kind. If its `wants` raises, log that once; return False."""
        try:
            return kind in getattr(listener, "wants", ALL_KINDS)
        except Exception:
            self._blame(listener)
            return False

    def _blame(self, listener: object) -> None:
        """Log once that it raised the error that is being handled, if the log can and there is room."""
        with suppress(Exception):
            if not any(blamed is listener for blamed in self._blamed):
                self._blamed = (*self._blamed, listener)
                log.exception("%s: its listener %s failed; told once", self.name, shown(listener))

    def tell(self, kind: str, key: Hashable, **details: Any) -> None:
        """Build the event and deliver it. Call this only if `wants` returned True, and under no lock."""
        self._telling.active = True
        try:
            from .events import BY_KIND, to_log  # here alone: most programs want no event

            event = BY_KIND[kind](name=self.name, key=plain(key), sequence=next(self._numbers), **details)
            if kind != "hit" and logs.is_logging(DEBUG):
                to_log(event)
            for listener in self._listeners:
                if self._listens(listener, kind):
                    try:
                        listener(event)
                    except Exception:
                        self._blame(listener)
        except Exception:  # what is not a listener's: a filter of the log, or no stack left
            self._blame(log)
        finally:
            self._telling.active = False

    def running(
        self, flights: Sequence[Reported], timer: Callable[[], float]
    ) -> AbstractContextManager[None]:
        """Return what is to be entered around an execution for these flights, and the function called within.

        An execution that a listener or observer of this function causes itself is not told.
        """
        around = self.around
        if not around or not flights or getattr(self._telling, "active", False):
            return nullcontext()
        from .executions import Execution, Running  # here alone: most programs have no such observer

        return Running(Execution.of(flights, self.name, timer), around, self._blame, self._telling)

    def gathered(self, flight: object) -> None:
        """Tell what enters executions that a caller was served by one that somebody else's call began."""
        execution = getattr(flight, "execution", None)
        if execution is None or getattr(self._telling, "active", False):
            return
        self._telling.active = True
        try:
            for listener, _ in self.around:
                try:
                    told = getattr(listener, "gathered", None)
                    if told is not None:
                        told(execution)
                except Exception:
                    self._blame(listener)
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

    def stored_failure(self, record: Record, now: float) -> None:
        """Emit that a caller was given a stored exception."""
        if self.wants("stored_failure"):
            self.tell("stored_failure", record.key, error=record.error, age=max(0.0, now - record.landed))

    def refused(self, key: Hashable, cycle: str, leads: bool = False) -> None:
        """Emit that a caller would have closed a cycle."""
        if self.wants("deadlock"):
            self.tell("deadlock", key, cycle=cycle, leads=leads)

    def fetching(self, flight: Reported, execution: int = 0) -> None:
        """Emit that a leader is about to run the function: in an execution of several flights, or its own."""
        if self.wants("fetch"):
            ident = flight.ident
            background = flight.background
            execution = execution or ident
            self.tell(
                "fetch",
                flight.key,
                flight=flight.kind,
                flight_id=ident,
                execution_id=execution,
                background=background,
            )

    def waiting(self, flight: Reported, followers: int) -> None:
        """Emit that a follower begins to wait, as one of `followers`."""
        if self.wants("wait"):
            execution = getattr(flight, "execution", None)
            ident = flight.ident
            self.tell("wait", flight.key, followers=followers, flight_id=ident, execution=execution)

    def shared(self, flight: Reported, now: float, waited: float) -> None:
        """Emit that a follower has its flight's outcome."""
        if self.wants("share"):
            value, error, ident = flight.value, flight.error, flight.ident
            age = max(0.0, now - flight.landed)
            told = {"age": age, "waited": waited, "execution": getattr(flight, "execution", None)}
            self.tell("share", flight.key, value=value, error=error, flight_id=ident, **told)

    def shared_record(self, record: Record, now: float, waited: float) -> None:
        """Emit that a follower has what was put meanwhile."""
        if self.wants("share"):
            age = max(0.0, now - record.landed)
            self.tell("share", record.key, value=record.value, error=record.error, age=age, waited=waited)

    def resumed(self, key: Hashable, waited: float) -> None:
        """Emit that a follower waits no more, and is served in another way."""
        if self.wants("resume"):
            self.tell("resume", key, waited=waited)

    def left(
        self, key: Hashable, error: BaseException, counted: str, ident: int = 0, leads: bool = False
    ) -> None:
        """Emit that a caller's call has ended in the middle."""
        if self.wants("left"):
            self.tell("left", key, error=error, counted=counted, flight_id=ident, leads=leads)

    def timed_out(self, key: Hashable, waited: float, leads: bool = False) -> None:
        """Emit that a caller gave up."""
        if self.wants("timeout"):
            self.tell("timeout", key, waited=waited, leads=leads)

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
        told = _told(flight, ended, now, error)
        if not isinstance(error, Exception):
            if self.wants("abort"):
                self.tell("abort", flight.key, error=error, **told)
        elif self.wants("land"):
            self.tell("land", flight.key, error=error, stored=False, retried=ended[1], **told)

    def unseated(self, flight: Reported) -> None:
        """Emit that a flight took too long, or could not end, and has lost its key."""
        if self.wants("unseat"):
            self.tell("unseat", flight.key, flight_id=flight.ident)

    def gone(self, records: list[Record], now: float) -> None:
        """Emit that these records were evicted or have expired."""
        for record in records:
            kind = "evict" if record.fresh_for(now) > 0 else "expire"
            if self.wants(kind):
                self.tell(kind, record.key)


def _without(listeners: tuple[Listener, ...], one: Listener) -> tuple[Listener, ...]:
    """Return them without the last one that is this object, if it is among them."""
    for place in reversed(range(len(listeners))):
        if listeners[place] is one:
            return listeners[:place] + listeners[place + 1 :]
    return listeners


def _told(
    flight: Reported, ended: tuple[int, bool], now: float, error: BaseException | None = None
) -> dict[str, Any]:
    if flight.deserted or flight.background:
        counted = None
    elif flight.timed_out or isinstance(error, FlightTimeout):
        counted = "timeouts"
    else:
        counted = "fetches" if error is None else "errors"
    return {
        "duration": now - flight.started,
        "followers": ended[0],
        "flight_id": flight.ident,
        "counted": counted,
    }
