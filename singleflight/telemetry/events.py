"""Events as typed records, the protocol of listeners, and the listener that writes log lines.

Events are delivered after the transition that they describe is complete, and outside every lock. Each has a
sequence number of its function, taken at the transition: several threads may deliver their events out of
order, and sorting by `sequence` restores it.

Events that concern a flight have its `flight_id`, which no other flight of the process has; 0 where it has
no leader yet. So a landing is known to belong to a fetch, and a wait to the flight that it is for. Each
`Wait` is ended by one `Share`, `Resume`, `Timeout`, `Deadlock` or `Left`, on the same thread or in the same
task. The sums of `stats()` can be made from events. Each caller ends with one of these: `Hit`, `StaleHit`,
`StoredFailure`, `Share`; `Left`; a `Timeout` or `Deadlock` whose `leads` is False; or the `Land` or `Abort`
of the flight that it led, whose `counted` is not None.

These classes take long to make, and most programs want no event: only `Emitter.tell` imports this module, and
whoever names one of its classes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Hashable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, runtime_checkable

from ..common.logs import logger
from ..common.messages import Shown, shown
from .executions import Execution
from .kinds import ALL_KINDS, check_kinds

__all__ = [
    "BY_KIND",
    "Abort",
    "Adopted",
    "Claimed",
    "Deadlock",
    "Degraded",
    "Event",
    "Evict",
    "Execution",
    "Expire",
    "Fetch",
    "Gap",
    "Hit",
    "Invalidate",
    "Land",
    "LeaseLost",
    "Left",
    "Listener",
    "LoggingListener",
    "Put",
    "Recovered",
    "Refused",
    "Resume",
    "Share",
    "SharedWait",
    "StaleHit",
    "StoredFailure",
    "Timeout",
    "Unseat",
    "Wait",
    "to_log",
]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Event(Shown):
    """The base of all events: something happened to one key of one decorated function.

    `kind` is the short name that listeners put into `wants`; `name` is the function's name; `sequence`
    counts the function's events from 1.
    """

    kind: ClassVar[str] = "event"
    name: str
    key: Hashable
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Hit(Event):
    """A caller was served by a fresh entry without waiting. `age` is in seconds."""

    kind: ClassVar[str] = "hit"
    value: Any
    age: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StaleHit(Event):
    """A caller was served at once by a value past its ttl, within its grace. `age` is in seconds."""

    kind: ClassVar[str] = "stale_hit"
    value: Any
    age: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StoredFailure(Event):
    """A caller received a stored exception, `age` seconds old (see `failure_ttl`)."""

    kind: ClassVar[str] = "stored_failure"
    error: BaseException
    age: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Wait(Event):
    """A caller begins to wait; then `followers` callers wait for this flight.

    `execution` is the `Execution` that it waits for, if there is one already that an observer has entered
    (see `Listener`).
    """

    kind: ClassVar[str] = "wait"
    followers: int
    execution: Execution | None = field(default=None, repr=False)
    flight_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Share(Event):
    """A caller that waited receives another caller's outcome: a value, or an error (then `error`).

    `age` is the time since the flight landed, and `waited` the time that this caller waited, in seconds. The
    flight may be a later one than that of its `Wait`; `flight_id` is 0 if the value was put meanwhile.
    `execution` is the `Execution` that brought it, if an observer has entered that (see `Listener`).
    """

    kind: ClassVar[str] = "share"
    value: Any = None
    error: BaseException | None = None
    age: float
    waited: float
    execution: Execution | None = field(default=None, repr=False)
    flight_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Resume(Event):
    """A caller that waited for `waited` seconds waits no more, and has not been served by that flight.

    It leads a flight of its own, takes a stored value or asks anew, which other events tell.
    """

    kind: ClassVar[str] = "resume"
    waited: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Left(Event):
    """A caller's call was ended in the middle by `error`: its task was cancelled, its thread interrupted.

    Or it asked for several keys, and `error` is that of another one. Its flight goes on for the others. With
    `leads` it led that flight, otherwise it followed. `counted` names what `stats()` counts it as: "errors",
    "timeouts", or "waits" if the flight that it followed had landed with a value already.
    """

    kind: ClassVar[str] = "left"
    error: BaseException
    counted: str
    flight_id: int = 0
    leads: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Fetch(Event):
    """A flight starts: its leader is about to run the function.

    `flight` is "call", "refresh" or "bulk". All flights of one loader call have the same `execution_id`, that
    of other flights is their own. A `background` flight renews a stored value and no caller leads it.
    """

    kind: ClassVar[str] = "fetch"
    flight: str
    flight_id: int = 0
    execution_id: int = 0
    background: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Land(Event):
    """A flight ended with a value or an exception.

    `stored` is True if the value was stored, for `ttl` seconds. `followers` callers waited for the flight; if
    `retried` is True, they try again instead of sharing this outcome. `counted` names what `stats()` counts
    the caller that led it as: "fetches", "errors" or "timeouts". It is None if no caller leads it: it renewed
    in the background, its caller has left, or calls anew.
    """

    kind: ClassVar[str] = "land"
    value: Any = None
    error: BaseException | None = None
    duration: float
    followers: int
    stored: bool
    ttl: float | None = None
    retried: bool
    flight_id: int = 0
    counted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Abort(Event):
    """A flight ended without an outcome to share; a follower or a newcomer takes over.

    `counted` is as in `Land`.
    """

    kind: ClassVar[str] = "abort"
    error: BaseException
    duration: float
    followers: int
    flight_id: int = 0
    counted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Timeout(Event):
    """A caller gave up after waiting for `waited` seconds.

    With `leads` it leads a flight that waits: in line (`max_flights`), or for another process. The landing of
    that follows.
    """

    kind: ClassVar[str] = "timeout"
    waited: float
    leads: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Unseat(Event):
    """A flight lost its key: it took longer than `flight_timeout`, or its event loop is gone."""

    kind: ClassVar[str] = "unseat"
    flight_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Deadlock(Event):
    """A caller got `FlightDeadlock`, since its wait would have closed a cycle; `cycle` names the keys.

    With `leads` it leads a flight that waits for another process; its landing follows.
    """

    kind: ClassVar[str] = "deadlock"
    cycle: str
    leads: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Invalidate(Event):
    """A key's value was removed, or its flight detached, on request."""

    kind: ClassVar[str] = "invalidate"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Put(Event):
    """A value was stored by `put`."""

    kind: ClassVar[str] = "put"
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Evict(Event):
    """An entry was evicted because the store was full."""

    kind: ClassVar[str] = "evict"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Expire(Event):
    """An expired entry was removed. (It was no longer served since it expired.)"""

    kind: ClassVar[str] = "expire"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Claimed(Event):
    """With `store=`: this process runs the flight for all; no other does."""

    kind: ClassVar[str] = "claimed"
    flight_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Adopted(Event):
    """With `store=`: a flight found its value on the server, or another process sent it."""

    kind: ClassVar[str] = "adopted"
    value: Any
    age: float
    flight_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SharedWait(Event):
    """With `store=`: a flight begins to wait for another process, which `leader` names."""

    kind: ClassVar[str] = "shared_wait"
    leader: str
    flight_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Refused(Event):
    """With `store=`: a value was not stored, since its flight's lease had ended."""

    kind: ClassVar[str] = "refused"
    value: Any
    flight_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LeaseLost(Event):
    """With `store=`: the lease of a flight ended while its function was still running."""

    kind: ClassVar[str] = "lease_lost"
    flight_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Degraded(Event):
    """With `store=`: the server is not asked from now on; this process works alone. `key` is None."""

    kind: ClassVar[str] = "degraded"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Recovered(Event):
    """With `store=`: the server is asked again, `lasted` seconds after it was lost. `key` is None."""

    kind: ClassVar[str] = "recovered"
    lasted: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Gap(Event):
    """With `store=`: messages may have been lost, so all near entries went. `key` is None."""

    kind: ClassVar[str] = "gap"


BY_KIND: dict[str, type[Event]] = {kind.kind: kind for kind in Event.__subclasses__()}


@runtime_checkable
class Listener(Protocol):
    """Anything that can be called with an event.

    A listener may have an attribute `wants`, a collection of the kinds that it receives. The attribute is
    read anew for each flight, so it may be a property. Without it the listener receives every kind, and hits
    then take a slower path: leave "hit" out of `wants` to keep them fast. Decorating raises `ValueError` for
    an unknown kind and `TypeError` for a single string.

    It may have an attribute `executing` too, a callable that takes an `Execution` and returns a context
    manager. That is entered right before the function (or its bulk loader) is called, in the thread or task
    and the context in which it runs, and exited right after: so a tracer makes its span current. Background
    renewals are executions, too. Calls inside `bypass()` are not told, nor are those that a listener makes
    itself. The attribute is read once. What the context manager raises is logged once and dropped, and it
    changes neither the value nor the exception of the function. With it a miss takes a slower path. With an
    empty frozenset as `wants` the listener receives executions alone.

    Beside `executing` it may have an attribute `gathered`, a callable that takes an `Execution`. It is called
    in the thread or task of a caller whose call was gathered with others (see `bulk`) and who began nothing,
    once that has been served: no event is delivered there.

    An exception raised by a listener is logged once per listener and dropped.
    """

    def __call__(self, event: Any, /) -> object:
        """Receive one event, on the thread (or event loop) where it happened and outside every lock."""


_LOG: logging.Logger = logger()


class LoggingListener:
    """Writes one line per event to a logger: by default at DEBUG to the logger `singleflight`.

    Args:
        logger: the logger that writes the lines.
        level: their level.
        wants: the kinds to write; by default all but hits, which would then take a slower path.

    Raises `ValueError` for an unknown kind, and `TypeError` if `wants` is not a collection.
    """

    def __init__(
        self,
        logger: logging.Logger = _LOG,
        level: int = logging.DEBUG,
        wants: Collection[str] = ALL_KINDS - {"hit"},
    ) -> None:
        check_kinds(wants)
        self._logger, self._level, self._kinds = logger, level, frozenset(wants)

    @property
    def wants(self) -> Collection[str]:
        """The kinds to write; empty while the logger's level hides them."""
        return self._kinds if self._logger.isEnabledFor(self._level) else ()

    def __call__(self, event: Event, /) -> None:
        """Write one line for the event."""
        told = {each.name: getattr(event, each.name) for each in fields(event) if each.repr}
        function, key, _ = told.pop("name"), told.pop("key"), told.pop("sequence")
        extra = " ".join(f"{name}={shown(value)}" for name, value in told.items() if value is not None)
        self._logger.log(self._level, "%s %s %s %s", function, event.kind, shown(key), extra)


to_log: LoggingListener = LoggingListener()
"""Writes the lines of the library's own log."""
