"""How one call was served: noted by the driver that serves it, where its caller asks (`.answer`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import floor, inf
from typing import Any, Generic, TypeVar

from ..common.keys import plain
from ..common.messages import Shown, shown
from ..storage.entry import Record
from .cache import Cache
from .call import Call
from .flight import Flight

__all__ = ["Answer", "Asked"]

R = TypeVar("R")

_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")  # RFC 8941: an sf-token


@dataclass(frozen=True, slots=True, repr=False)
class Answer(Shown, Generic[R]):
    """The value of one call, and how that very call was served, as `fn.answer(...)` returns it.

    `served` is "hit", "stale_hit", "wait" (by another caller's flight), "fetch" (by a flight of its own) or
    "bypass" (its function was run directly). `age` is in seconds, since the value landed. `fresh_for` is for
    how many more seconds it is fresh (`math.inf`: for ever), and `stale_for` for how many after that, or from
    now on if it is not fresh, it may be served stale. These three are 0.0 for a value that was not stored.
    """

    value: R
    served: str
    key: Hashable
    age: float
    fresh_for: float
    stale_for: float
    stored: bool = False
    """The value is an entry, or was stored when it landed."""
    replaced: bool = False
    """There had been a value before, which had run out."""
    overdue: float = 0.0
    """For how many seconds the value has been stale."""

    def cache_status(self, name: str, *, key: bool = False) -> str:
        """Return a member of the HTTP response header `Cache-Status` (RFC 9211).

        Args:
            name: names this cache; written as a token if it is one, else as a string.
            key: True adds the key as text (default False: keys often have what clients are not to see).

        `ttl` is in whole seconds, negative for a stale value, and left out for one that never runs out or
        was not stored. Raises `TypeError` for a name that is no string. Caches append their members to the
        header, the one nearest to the client last.

        >>> Answer(984.75, "hit", "ASML", 3.2, 56.8, 0.0, stored=True).cache_status("prices")
        'prices; hit; ttl=56'
        >>> Answer(984.75, "wait", "ASML", 0.0, 60.0, 0.0, stored=True).cache_status("my prices", key=True)
        '"my prices"; fwd=miss; stored; collapsed; ttl=60; key="\\'ASML\\'"'
        """
        if not isinstance(name, str):
            raise TypeError(f"name: expected a string, got {shown(name)}")
        parts = [name if _TOKEN.fullmatch(name) else _quoted(name)]
        if self.served in ("hit", "stale_hit"):
            parts.append("hit")
        elif self.served == "bypass":
            parts.append("fwd=bypass")
        else:
            parts.append("fwd=stale" if self.replaced else "fwd=miss")
            parts += ["stored"] * self.stored + ["collapsed"] * (self.served == "wait")
        left = self.fresh_for or -self.overdue
        if self.stored and left != inf:
            parts.append(f"ttl={floor(left)}")
        if key:
            parts.append(f"key={_quoted(shown(self.key))}")
        return "; ".join(parts)


def _quoted(text: str) -> str:
    """Return an sf-string: printable ASCII between quotes; all else as Python would escape it."""
    visible = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in text)
    return '"' + visible.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Asked:
    """Notes how one call is served. Its own caller's alone."""

    __slots__ = ("_cache", "_flight", "_record", "_served", "value")

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._served = "bypass"
        self._record: Record | None = None
        self._flight: Flight | None = None
        self.value: Any = None

    def look(self, lookup: Callable[..., Any], key: Hashable) -> bool:
        """Make the first check, as the compiled calls do. Return True for a hit."""
        cache = self._cache
        now, record = cache.timer(), lookup(key)
        if record is None or not now < record.deadline:
            return False
        record.hits += 1.0  # no call may stand between the comparison and the addition: see `Record`
        count = getattr(cache.counts, "hit", None)
        if count is not None:
            count()
        self._served, self._record = "hit", record
        if cache.tells_hits:
            cache.used(record)
        self.value = record.value if cache.copy is None else cache.copy(record.value)
        return True

    def flown(self, served: str, flight: Flight) -> None:
        """It was served by this flight, which has landed."""
        self._served, self._flight = served, flight
        self._record = getattr(flight, "stored", None)

    def stored(self, call: Call, record: Record) -> None:
        """It was served by a record, which the driver took or (a renewal in line) had renewed."""
        self._served, self._record = call.served, record

    def answer(self, key: Hashable) -> Answer[Any]:
        """Return the answer, as of now."""
        value, key = self.value, plain(key)
        served, record, flight = self._served, self._record, self._flight
        previous = None if flight is None else flight.previous
        replaced = previous is not None and previous.error is None
        if record is None:
            return Answer(value, served, key, 0.0, 0.0, 0.0, replaced=replaced)
        now = self._cache.timer()
        left = record.fresh_for(now)
        stale_for = min(record.grace, max(0.0, record.serves_for(now)))
        age = max(0.0, now - record.landed)
        return Answer(value, served, key, age, max(0.0, left), stale_for, True, replaced, max(0.0, -left))
