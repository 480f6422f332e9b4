"""How a caller leaves before its call is served: a follower, the caller of a leader, or one interrupted."""

from __future__ import annotations

from collections.abc import Hashable

from ..locks.mutex import mutex
from ..locks.unsettled import NOTHING, Loose, let_go
from ..locks.waitgraph import begin_waiting, end_waiting, note, waiting, waits
from .call import HIT, JOIN, LEAD, NONE, Call, Nobody
from .flight import FLYING, LANDED, UNCLAIMED, UNSEATED, Flight, Work, is_nobodys
from .unseating import Unseater

__all__ = ["Leaver"]


class Leaver(Unseater):
    """Lets the callers of one decorated function go."""

    def leave(self, call: Call, timed_out: bool | None) -> bool:
        """A follower gives up; False if it came too late, for its flight has landed.

        It counts as a timeout or as an error, or (None) not at all: it is served in another way.
        """
        loose = NOTHING
        with mutex:
            flight = call.flight.latest()
            if flight is not None and flight.state is LANDED:
                return False
            loose = self._leave(call, timed_out)
            self._waits_no_more(call)
        let_go(loose)
        return True

    def _leave(self, call: Call, timed_out: bool | None) -> Loose:
        flight = call.flight.latest()
        if flight is not None and flight.state is LANDED:
            return NOTHING  # it owns its followers, and has counted them
        # No call stands between these: an interrupt finds it among the followers, or gone and counted.
        call.decision = NONE
        if flight is not None:
            flight.followers -= 1
        if timed_out:
            self.counts.timeouts += 1
        elif timed_out is not None:
            self.counts.errors += 1
        return NOTHING if flight is None else self._if_unwanted(flight)

    def hand_over(self, call: Call, work: Work, leader: Hashable) -> None:
        """From here on the flight is run by this work, and its leader's caller waits for that."""
        with mutex:
            flight = call.flight
            flight.work = work
            flight.leader = leader
            call.begin()
            call.before = waits(call.blocks)
            begin_waiting(call.blocks, flight)
            call.decision = NONE

    def desert(self, flight: Flight) -> None:
        """The leader's caller goes and leaves its flight to the followers; without any it is stopped."""
        loose = NOTHING
        with mutex:
            loose = self._desert(flight)
        let_go(loose)

    def _desert(self, flight: Flight) -> Loose:
        if (flight.state is not FLYING and flight.state is not UNSEATED) or flight.deserted:
            return NOTHING
        flight.deserted = True
        self.counts.errors += 1
        return self._stop_if_unwanted(flight)

    def give_up(self, call: Call, error: BaseException) -> None:
        """The call ends with an exception: whatever it holds, and its wait, is over."""
        self.abandon(call, error)
        self.done(call)

    def settle(self, call: Call, error: BaseException | None, loose: list[Loose]) -> None:
        """The same for a call that could not give up. Call under the mutex; may be repeated.

        Nothing of the user's runs, except for the key's `__hash__` and `__eq__`; what they raise is the key's
        own fault, and leaves nothing behind.
        """
        struck = error or KeyboardInterrupt()
        if call.decision is LEAD:
            self.settle_flight(call.flight, struck, loose)
        elif call.decision is JOIN:
            flight, latch = call.flight, call.latch
            opened = flight.has_opened(latch)
            loose.append(self._leave(call, timed_out=False))
            if opened:
                loose.append((latch.open, None))  # it may have been its own to let the next one through
        elif call.decision is HIT and call.renewal is not None:
            flight = call.renewal.flight
            if flight is not None and isinstance(flight.leader, Nobody):
                flight.counted = True
                self.settle_flight(flight, struck, loose)
            call.renewal = None
        loose.append(self._free(call.key))
        self._waits_no_more(call)
        _forget(call)

    def settle_desertion(self, flight: Flight, loose: list[Loose]) -> None:
        """See `desert`, for a caller that could not say so. Call under the mutex; may be repeated."""
        loose.append(self._desert(flight))

    def abandon(self, call: Call, error: BaseException) -> None:
        """The call ends with an exception: whatever it still holds is given up.

        Does nothing where everything has ended as it should, so that it can stand behind every call.
        """
        if call.decision is LEAD:
            self.fail(call.flight, error)
        elif call.decision is JOIN:
            self.leave(call, timed_out=False)
            if call.flight.has_opened(call.latch):
                call.latch.open()  # it may have been this follower's to let the next one through
        loose = NOTHING
        with mutex:
            loose = self._free(call.key)
        let_go(loose)

    def _free(self, key: Hashable) -> Loose:
        """Free a key for which an interrupt struck before a flight was claimed, or gone."""
        slot = self.locks.slot(key)
        if slot is None:
            return NOTHING
        for turn in [turn for turn in slot.queue if is_nobodys(turn)]:
            slot.step_out(turn)
        return self._vacate(slot) if is_nobodys(slot.turn) else NOTHING

    def done(self, call: Call) -> None:
        """The call is over, in whatever way."""
        if call.before is not None:
            self._waits_no_more(call)
        if call.decision is HIT and call.renewal is not None:  # an interrupt
            flight = call.renewal.flight
            if flight is not None:  # else it is over
                self.call_off(flight)  # if nobody has begun it
            call.renewal = None
        _forget(call)

    def _waits_no_more(self, call: Call) -> None:
        before = call.before
        if before is not None:
            if before:
                end_waiting(call.blocks, before)
            else:
                waiting.pop(call.blocks, None)
            call.before = None
            if call.noted:
                with mutex:
                    note(call, frozenset())

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


def _forget(call: Call) -> None:
    """Nothing is held any more. (A task must not lead to itself through its exception.)"""
    call.decision = NONE
    call.flight = call.latch = call.record = None
    call.actor = call.blocks = call._above = None
