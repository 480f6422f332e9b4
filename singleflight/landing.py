"""How a flight ends: publish, then free the key, then tell. The other half of the decision maker."""

from __future__ import annotations

from math import inf
from typing import Any

from .entries import Record
from .errors import FlightDeadlock, FlightTimeout
from .flights import FLYING, Flight
from .freshness import Landing
from .remembered import Remembered
from .turns import Gate, mutex

__all__ = ["NOTHING", "Lander", "Loose", "open_gate"]

Loose = tuple[Gate | None, object]  # to open and to let go of, once the mutex is free
NOTHING: Loose = (None, None)


class Lander(Remembered):
    """Ends the flights of one decorated function."""

    def land(self, flight: Flight, value: Any) -> None:
        """The function returned: publish the value, then free the key, then tell.

        Passes on what `cache_if` and `ttl` raise: the flight has not ended then, and is to `fail` with it.
        """
        options = self.options
        storable = bool(options.cache_if(value))
        ttl = options.fixed_ttl
        if ttl is None:
            ttl = self._asked_ttl(flight, value) if storable else 0.0
        now = self.timer()
        stored = False
        gone: list[Record] | None = None
        quiet = self.tell.quiet()
        if storable and ttl > 0 and not flight.detached:
            record = Record(flight.key, value, now, ttl)
            if not quiet and self.tell.wants("hit"):
                record.deadline = -inf
            gone = self.store.put(record, flight)
            stored = gone is not None
        ended = self._finish(flight, value, None, now, storable, stored)
        if quiet:
            return
        if ended is not None:
            self.tell.landed(flight, ended, value, now, ttl if stored else None)
        self.tell.gone(gone or [], now)

    def fail(self, flight: Flight, error: BaseException) -> None:
        """The function raised: an Exception is shared or tried again, anything else is an abort.

        Does nothing to a flight that has ended, so that a landing cut short by an interrupt can be mended.
        """
        try:
            now = self.timer()
        except Exception:  # a broken clock must not keep the key
            now = flight.started
        ended = self._finish(flight, None, error, now, storable=False, stored=False)
        if ended is not None:
            self.tell.failed(flight, ended, error, now)

    def _asked_ttl(self, flight: Flight, value: Any) -> float:
        now = self.timer()
        previous = flight.previous.snapshot(now) if flight.previous is not None else None
        landing = Landing(flight.key, value, None, max(0.0, now - flight.started), flight.followers, previous)
        return self.options.ttl_of(landing)

    def _finish(
        self,
        flight: Flight,
        value: Any,
        error: BaseException | None,
        now: float,
        storable: bool,
        stored: bool,
    ) -> tuple[int, bool] | None:
        """End a flight; how many followers it had and whether they fly again, or None if it has ended."""
        loose = NOTHING
        with mutex:
            if flight.state is not FLYING or flight.lost:
                # Perhaps an interrupt struck between its end and what follows from it: that is done now.
                if flight.gate is not None:
                    flight.gate.open()
                if flight.slot.turn is flight and not flight.lost:
                    loose = self.locks.vacate(flight.slot)
                    open_gate(loose)
                return None
            self.adrift.discard(flight)
            slot, followers = flight.slot, flight.followers
            current = slot.turn is flight
            aborted = error is not None and not isinstance(error, Exception)
            unshared = aborted or isinstance(error, (FlightDeadlock, FlightTimeout))
            self._count(flight, error, stored)
            again = followers > 0 and (unshared or (current and not storable and flight.retries != 0))
            if again and current:
                retries = flight.retries if unshared or flight.retries is None else flight.retries - 1
                slot.turn = Flight(slot, retries, followers)
                flight.pass_on(slot.turn)
            elif again:
                flight.pass_on(None)
            else:
                if followers:
                    served = "waits" if error is None else "errors"
                    setattr(self.counts, served, getattr(self.counts, served) + followers)
                flight.land(value, error, now)
                if current:
                    loose = self.locks.vacate(slot)
            gate = flight.gate
        if gate is not None:
            gate.open()
        if loose[0] is not None:
            loose[0].open()
        return followers, again

    def _count(self, flight: Flight, error: BaseException | None, stored: bool) -> None:
        """Count an execution and its leader, once."""
        if flight.counted:
            return
        failed = isinstance(error, Exception)
        counts = self.counts
        flight.counted = True
        counts.calls += 1
        counts.refreshes += flight.kind == "refresh"
        if error is None:
            counts.fetches += 1
            counts.uncached += not stored
        else:
            counts.failures += failed
            counts.errors += 1


def open_gate(loose: Loose) -> None:
    """After the mutex: open the gate that a vacated slot's next turn waits behind."""
    if loose[0] is not None:
        loose[0].open()
