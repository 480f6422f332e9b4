"""The kinds of events: what each function needs to know if one is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..common.messages import listed, shown

__all__ = [
    "ALL_KINDS",
    "check_kinds",
    "executing_of",
    "refuse_unfit_listener",
    "wants_nothing",
]

ALL_KINDS = frozenset(
    (
        *("hit", "stale_hit", "stored_failure", "wait", "share", "resume", "left", "timeout", "deadlock"),
        *("fetch", "land", "abort", "unseat", "invalidate", "put", "evict", "expire"),
        *("claimed", "adopted", "shared_wait", "refused", "lease_lost", "degraded", "recovered", "gap"),
    )
)
"""Every kind of event; a listener without `wants` receives all of them."""


def check_kinds(wanted: Any, whose: str = "wants") -> None:
    """Raise `TypeError` if it is not a collection of kinds, and `ValueError` for unknown kinds.

    A string is refused because `in` would look for its parts, an iterator because the first `in` uses it up.
    """
    if isinstance(wanted, (str, bytes, Iterator)):
        raise TypeError(f"{whose}: expected a collection of kinds of events, got {shown(wanted)}")
    if not isinstance(wanted, Iterable):
        if hasattr(type(wanted), "__contains__"):
            return  # it answers for itself, and cannot be asked for what it has
        raise TypeError(f"{whose}: expected a collection of kinds of events, got {shown(wanted)}")
    unknown = [kind for kind in wanted if not (isinstance(kind, str) and kind in ALL_KINDS)]
    if unknown:
        known = ", ".join(sorted(ALL_KINDS))
        raise ValueError(f"{whose}: no such kinds of events: {listed(unknown)}; there are {known}")


def executing_of(listener: Callable[[Any], object]) -> Callable[[Any], Any] | None:
    """Return what a listener has entered around each execution; None if it has nothing, or raises."""
    try:
        executing: Callable[[Any], Any] | None = getattr(listener, "executing", None)
    except Exception:
        return None
    return executing if callable(executing) else None


def wants_nothing(listener: Callable[[Any], object]) -> bool:
    """Return True if a listener will never want any event."""
    try:
        wanted = getattr(listener, "wants", ALL_KINDS)
    except Exception:
        return False
    return type(wanted) is frozenset and not wanted


def refuse_unfit_listener(listener: Callable[[Any], object]) -> None:
    """Raise an error if a listener wants unknown kinds, as far as it says so, or is unfit for executions."""
    for name, default in (("wants", ALL_KINDS), ("executing", None), ("gathered", None)):
        try:
            found = getattr(listener, name, default)
        except Exception:  # it is blamed for that when there is something to tell
            continue
        if name == "wants":
            check_kinds(found, "listener: wants")
        elif found is not None and not callable(found):
            raise TypeError(f"listener: {name}: expected a callable, got {shown(found)}")
