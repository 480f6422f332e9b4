"""Notes how one call is served, where its caller asks (`.answer`): the driver that serves it writes them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from ..common.keys import plain
from ..storage.record import Record
from .cache import Cache
from .call import Call
from .flight import Flight

if TYPE_CHECKING:
    from .answers import Answer

__all__ = ["Asked"]


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
        from .answers import Answer

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
