"""What a recording consists of: one note for each event, without the values, and what it counts as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["BEGAN", "ENDED", "KEPT", "RECEIVED", "WITHOUT_KEY", "Lane", "Note", "counted_as", "detail_of"]

BEGAN, ENDED = "began", "ended"
"""The kinds of notes of calls of functions that are not decorated (`Timeline.track`)."""

WITHOUT_KEY = frozenset(("degraded", "recovered", "gap"))
"""Kinds of events that concern no key."""

RECEIVED = ("hits", "stale_hits", "waits", "fetches", "errors", "timeouts")
"""What `stats()` counts callers as; and so do the totals of a recording."""


class Lane(NamedTuple):
    """One key of one function: the place of the function among those recorded, and the key as text.

    The `label` is shorter: an only argument as itself.
    """

    function: int
    key: str
    label: str


class Note(NamedTuple):
    """One event, as it was recorded.

    `function`, `lane` and `actor` are places in the lists of the recording: of functions, of keys (-1 where
    there is none), and of the threads and tasks on which events were told. `at` is in seconds, by the clock
    of the recording. `detail` has what else is kept of the event, by name.
    """

    function: int
    kind: str
    sequence: int
    at: float
    lane: int
    actor: int
    detail: Mapping[str, Any]


# What is kept of an event, besides that it happened. An error is kept by the name of its type.
KEPT: dict[str, tuple[str, ...]] = {
    "hit": (),
    "stale_hit": ("age",),
    "stored_failure": ("error", "age"),
    "wait": ("flight_id", "followers"),
    "share": ("flight_id", "error", "age"),
    "resume": (),
    "left": ("flight_id", "error", "counted", "leads"),
    "timeout": ("leads", "waited"),
    "deadlock": ("cycle", "leads"),
    "fetch": ("flight_id", "flight", "execution_id", "background"),
    "land": ("flight_id", "error", "followers", "stored", "ttl", "retried", "counted"),
    "abort": ("flight_id", "error", "followers", "counted"),
    "unseat": ("flight_id",),
    "invalidate": (),
    "put": (),
    "evict": (),
    "expire": (),
    "claimed": ("flight_id",),
    "adopted": ("flight_id", "age"),
    "shared_wait": ("flight_id", "leader"),
    "refused": ("flight_id",),
    "lease_lost": ("flight_id",),
    "degraded": ("reason",),
    "recovered": ("lasted",),
    "gap": (),
}

_NOTHING: Mapping[str, Any] = {}


def detail_of(event: Any) -> Mapping[str, Any]:
    """Return what is kept of an event.

    >>> from singleflight.telemetry.events import Share
    >>> detail_of(Share(name="price", key="ASML", sequence=2, value=984.75, age=0.0, waited=0.2, flight_id=7))
    {'flight_id': 7, 'error': None, 'age': 0.0}
    """
    kept = KEPT.get(event.kind)
    if not kept:
        return _NOTHING
    detail = {name: getattr(event, name) for name in kept}
    error = detail.get("error")
    if error is not None:
        detail["error"] = type(error).__name__
    return detail


def counted_as(kind: str, detail: Mapping[str, Any]) -> str | None:
    """Return which count of `stats()` a caller's call ended with, or None for an event that ends no call."""
    if kind == "hit":
        return "hits"
    if kind == "stale_hit":
        return "stale_hits"
    if kind == "share":
        return "waits" if detail["error"] is None else "errors"
    if kind == "stored_failure":
        return "errors"
    if kind in ("left", "land", "abort"):
        counted: str | None = detail["counted"]
        return counted
    if kind in ("timeout", "deadlock"):
        return None if detail["leads"] else "timeouts" if kind == "timeout" else "errors"
    return None
