"""How an execution waits in line while `max_flights` others of its function run. No policy.

Whoever leads has claimed its key already: its followers wait for it as for any flight. Its own times count
from when it is let in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..common.errors import FlightDeadlock, FlightTimeout
from ..core.cache import Cache
from ..core.delays import count_uncalled, hold_back, set_out
from ..core.flight import Flight
from ..locks.keyed import Held
from ..locks.line import Seat
from ..locks.waiters import Waiter, thread_waiter

__all__ = ["Seated"]


class Seated(Held):
    """Inside its `with` or `async with` block these flights of one execution have a seat.

    Entering raises `FlightTimeout` or `FlightDeadlock` where there will be none; they are counted then. So
    are those `beside` them: flights of the same call that may wait for something else, and end with it.
    """

    __slots__ = ("_beside", "_cache", "_flights")

    def __init__(self, cache: Cache, flights: list[Flight], beside: Sequence[Flight] = ()) -> None:
        line: Any = cache.line
        super().__init__(line, (flights[0].key,), cache.options.wait_timeout)
        self._cache, self._flights, self._beside = cache, flights, beside

    def __enter__(self) -> None:
        try:
            self._hold = seat = self._stand(thread_waiter())
            self._locks.acquire(seat, self._timeout)
        except BaseException as error:
            self._say(error)
            raise
        self._set_out()

    async def __aenter__(self) -> None:
        from ..locks.task_waiters import task_waiter

        try:
            self._hold = seat = self._stand(task_waiter(self._cache.name))
            await self._locks.acquire_in_task(seat, self._timeout)
        except BaseException as error:
            self._say(error)
            raise
        self._set_out()

    def _stand(self, waiter: Waiter) -> Seat:
        hold_back(self._flights)
        line: Any = self._locks
        return Seat(line, self._flights[0].key, waiter, self._flights[0])

    def _set_out(self) -> None:
        try:
            set_out(self._cache, self._flights, self._cache.time_or(self._flights[0].started))
        except BaseException:  # an interrupt
            self.__exit__()
            raise

    def _say(self, error: BaseException) -> None:
        """They were not run, for this reason."""
        cache, self._hold = self._cache, None
        count_uncalled(cache, [*self._flights, *self._beside], error)
        most = cache.options.max_flights
        if isinstance(error, FlightTimeout):
            cache.tell.timed_out(self._keys[0], self._timeout or 0.0, leads=True)
            error.args = (f"{cache.name}: {error}, in line (max_flights={most})",)
        elif isinstance(error, FlightDeadlock):
            error.args = (f"{cache.name}: {error} (max_flights={most})",)
