"""What keeps a flight that is led from its function: it stands in line, or another process has its key.

Its own time does not run meanwhile. Every function here takes the mutex.
"""

from __future__ import annotations

import time

from ..common.errors import FlightTimeout
from ..locks.mutex import mutex
from ..locks.slots import numbers
from .cache import Cache
from .flight import Flight

__all__ = ["allot", "count_uncalled", "hold_back", "renumber", "set_out"]


def hold_back(flights: list[Flight]) -> None:
    """They stand in line: their time does not run."""
    with mutex:
        for flight in flights:
            flight.due = None


def set_out(cache: Cache, flights: list[Flight], now: float) -> None:
    """They begin now, not when they were claimed."""
    timeout = cache.options.flight_timeout
    due = None if timeout is None else time.monotonic() + timeout
    with mutex:
        for flight in flights:
            flight.started, flight.due = now, due


def allot(flight: Flight, kind: str, retries: int | None) -> None:
    """It is run here, or ("shared") elsewhere; all processes have these retries left."""
    with mutex:
        flight.kind, flight.retries = kind, retries


def renumber(flight: Flight) -> None:
    """What it will land with is as old as this moment: it is about to ask another process."""
    with mutex:
        flight.number = next(numbers)


def count_uncalled(cache: Cache, flights: list[Flight], error: BaseException) -> None:
    """Count those that came into a line, and not out of it to be run."""
    timed_out = isinstance(error, FlightTimeout)
    with mutex:
        for flight in flights:
            alone = flight.kind != "bulk" and flight.kind != "shared"
            if flight.counted or (alone and flight.work is not None):  # counted by `began`
                continue
            flight.counted, flight.timed_out = True, timed_out
            if flight.deserted or flight.background:
                continue
            if timed_out:
                cache.counts.timeouts += 1
            else:
                cache.counts.errors += 1
