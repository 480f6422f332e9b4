"""How a flight loses its key before it has ended: it takes too long, or nobody is left to end it."""

from __future__ import annotations

from collections.abc import Hashable

from ..common.errors import FlightTimeout
from ..locks.mutex import mutex
from ..locks.unsettled import NOTHING, let_go
from ..locks.waitgraph import forget_the_gone
from .flight import UNSEATED, Flight, new_flight
from .landing import Lander

__all__ = ["Unseater"]

_MOST_UNSEATED = 4  # executions of one key that may be left running at a time, so that they do not pile up


class Unseater(Lander):
    """Takes keys from the flights of one decorated function."""

    def unseat(self, flight: Flight, /) -> bool:
        """Take the key from a flight that is due; False if too many of that key are left running already.

        Its followers move over to a successor. What it may still bring home is its own caller's alone.
        """
        loose = NOTHING
        stop = latch = None
        dead = False
        with mutex:
            gone = self._clear_adrift()  # let go of after the mutex
            due = flight.is_due()
            if due:
                dead = flight.is_dead()
                slot, followers = flight.slot, flight.followers
                if not dead and self._left_running(flight) >= _MOST_UNSEATED:
                    return False
                flight.detached = True
                if not dead:
                    self.adrift.add(flight)
                    stop = flight.work
                else:
                    self.adrift.discard(flight)
                latch, flight.latch = flight.latch, None
                if slot.turn is not flight:
                    flight.pass_on(None, UNSEATED)
                elif followers:
                    flight.pass_on(new_flight(self, slot, flight.retries, followers), UNSEATED)
                else:
                    flight.pass_on(None, UNSEATED)
                    loose = self._vacate(slot)
        if latch is not None:
            latch.open()
        let_go(loose)
        del gone
        if stop is not None:
            stop.stop()
        if due:
            if dead:
                forget_the_gone()
            if flight.renews:
                limit = self.options.flight_timeout
                why = KeyboardInterrupt() if dead else FlightTimeout(f"it took longer than {limit:g} s")
                self._renew_later(flight, self.time_or(flight.started), why)
            self.tell.unseated(flight)
        return True

    def _clear_adrift(self) -> list[Flight]:
        """Drop the detached flights whose loops or threads are gone: nothing of them runs any more."""
        gone = [flight for flight in self.adrift if flight.is_dead()]
        self.adrift.difference_update(gone)
        return gone

    def _left_running(self, flight: Flight) -> int:
        return sum(other.state is UNSEATED and _are_equal(other.key, flight.key) for other in self.adrift)


def _are_equal(key: Hashable, other: Hashable) -> bool:
    """Whether two keys are the same key, as a dictionary sees it; a spoilt one is itself alone."""
    try:
        return key is other or bool(key == other)
    except Exception:  # the keys' own
        return False
