"""How a caller leaves before its call is served: a follower, the caller of a leader, or one interrupted."""

from __future__ import annotations

from collections.abc import Hashable

from .boarding import HIT, JOIN, LEAD, NONE, Boarding
from .circles import begin_waiting, end_waiting, note, waiting, waits
from .flights import FLYING, LANDED, UNCLAIMED, UNSEATED, Flight, Work, is_nobodys
from .landing import NOTHING, Loose, let_go
from .turns import mutex
from .unseating import Unseater

__all__ = ["Leaver"]


class Leaver(Unseater):
    """Lets the callers of one decorated function go."""

    def leave(self, boarding: Boarding, timed_out: bool | None) -> bool:
        """A follower gives up; False if it came too late, for its flight has landed.

        It counts as a timeout or as an error, or (None) not at all: it is served in another way.
        """
        loose = NOTHING
        with mutex:
            flight = boarding.flight.latest()
            if flight is not None and flight.state is LANDED:
                return False
            # No call stands between these: an interrupt finds it among the followers, or gone and counted.
            boarding.verdict = NONE
            if flight is not None:
                flight.followers -= 1
            if timed_out:
                self.counts.timeouts += 1
            elif timed_out is not None:
                self.counts.errors += 1
            if flight is not None:
                loose = self._if_unwanted(flight)  # an interrupt: `abandon` sees to what is left
            self._waits_no_more(boarding)
        let_go(loose)
        return True

    def hand_over(self, boarding: Boarding, work: Work, leader: Hashable) -> None:
        """From here on the flight is run by this work, and its leader's caller waits for that."""
        with mutex:
            flight = boarding.flight
            flight.work = work
            flight.leader = leader
            boarding.begin()
            boarding.before = waits(boarding.waiter)
            begin_waiting(boarding.waiter, flight)
            boarding.verdict = NONE

    def desert(self, boarding: Boarding) -> None:
        """The leader's caller goes and leaves its flight to the followers; without any it is stopped."""
        loose = NOTHING
        with mutex:
            flight = boarding.flight
            if (flight.state is FLYING or flight.state is UNSEATED) and not flight.deserted:
                flight.deserted = True
                self.counts.errors += 1
                loose = self._stop_if_unwanted(flight)
        let_go(loose)

    def abandon(self, boarding: Boarding, error: BaseException) -> None:
        """The call ends with an exception: whatever it still holds is given up.

        Does nothing where everything has ended as it should, so that it can stand behind every call.
        """
        if boarding.verdict is LEAD:
            self.fail(boarding.flight, error)
        elif boarding.verdict is JOIN:
            self.leave(boarding, timed_out=False)
            if boarding.flight.has_opened(boarding.gate):
                boarding.gate.open()  # it may have been this follower's to let the next one through
        loose = NOTHING
        with mutex:
            slot = self.locks.slot(boarding.key)
            if slot is not None:  # an interrupt may have struck before a flight was claimed, or gone
                for turn in [turn for turn in slot.queue if is_nobodys(turn)]:
                    slot.step_out(turn)
                if is_nobodys(slot.turn):
                    loose = self._vacate(slot)
        let_go(loose)

    def done(self, boarding: Boarding) -> None:
        """The call is over, in whatever way."""
        if boarding.before is not None:
            self._waits_no_more(boarding)
        if boarding.verdict is HIT and boarding.renewal is not None:  # an interrupt
            flight = boarding.renewal.flight
            if flight is not None:  # else it is over
                self.call_off(flight)  # if nobody has begun it
            boarding.renewal = None
        boarding.verdict = NONE
        boarding.flight = boarding.gate = boarding.record = None
        # A task must not lead to itself through its exception.
        boarding.actor = boarding.waiter = boarding._above = None

    def _waits_no_more(self, boarding: Boarding) -> None:
        before = boarding.before
        if before is not None:
            if before:
                end_waiting(boarding.waiter, before)
            else:
                waiting.pop(boarding.waiter, None)
            boarding.before = None
            if boarding.noted:
                with mutex:
                    note(boarding, frozenset())

    def _if_unwanted(self, flight: Flight) -> Loose:
        """It has lost a follower: if nobody wants it any more it goes, or is stopped. May be repeated."""
        if flight.followers:
            return NOTHING
        if flight.state is not UNCLAIMED:
            return self._stop_if_unwanted(flight)
        if flight.slot.turn is flight:
            return self._vacate(flight.slot)
        flight.slot.step_out(flight)
        return NOTHING

    @staticmethod
    def _stop_if_unwanted(flight: Flight) -> Loose:
        if not flight.deserted or flight.followers or flight.doomed or flight.work is None:
            return NOTHING
        if not flight.work.may_stop():
            return NOTHING
        flight.doomed = flight.detached = True  # whoever comes now gets a flight of its own, after this one
        return flight.work.stop, None
