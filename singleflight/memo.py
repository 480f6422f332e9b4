"""The decision maker: what each call does next. No blocking, no `await`, no user code under a lock.

A call goes: *check* (the compiled call looks into the store's index, lock-free), *board* (under the mutex:
check again, then join the key's flight or lead a new one), and then either wait and *awake*, or run the
function and *land*. The drivers do the waiting and the running, and nothing else.

The rules, and why they hold:

1. One flight per key: a flight is made and claimed in the same critical section that finds the slot free.
2. Publish before freeing: `land` stores first and frees the slot after, so whoever finds the slot free and
   looks into the index (in that order of events, `board`) finds the value.
3. A detached flight never publishes: whoever detaches sets `detached` before it takes the store's lock to
   drop the old value; the store looks at `detached` under that lock. Either order ends without the value.
4. A flight acts on its slot only while it is the slot's turn; that is asked by identity.
5. A flight without an outcome leaves an unclaimed successor that has its followers and what is left of
   its retries. No follower is handed anything: they all wake, and whoever comes first claims it.
6. A landed flight owns its followers: they are counted when it lands, and `leave` finds them served.

Lock order: the mutex and a store's lock are never held together.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Any

from .boarding import HIT, JOIN, LEAD, NONE, SHARE, Boarding, Verdict
from .entries import Record
from .errors import FlightDeadlock
from .flights import LANDED, UNCLAIMED, Flight, is_nobodys
from .landing import NOTHING, Lander, Loose, open_gate
from .locks import keys_of
from .turns import Slot, begin_waiting, circle, describe, end_waiting, keep_waiting, mutex, waits

__all__ = ["Memo"]


class Memo(Lander):
    """Decides for one decorated function."""

    # -- boarding -----------------------------------------------------------------------------------

    def board(self, boarding: Boarding) -> Verdict:
        """Check again, then join the key's flight or lead a new one.

        Raises `FlightDeadlock` if waiting would never end.
        """
        now = self.timer()
        slot: Any = None
        turn: Any = None
        found = None
        with mutex:
            record = self.store.index.get(boarding.key)
            if record is not None and not boarding.renew and record.fresh_for(now) > 0:
                boarding.record = record
                boarding.verdict = HIT
            else:
                slot = self.locks.enter(boarding.key)
                turn = slot.turn
                if turn is None or (type(turn) is Flight and turn.ended()):
                    turn = self._new_flight(slot)
                    slot.turn = turn
                elif type(turn) is not Flight:
                    turn = self._queued(slot)
                current = turn is slot.turn
                if current and turn.leader is None:
                    self._claim(boarding, turn, now, record)
                else:
                    found = self._join(boarding, turn)
        if boarding.verdict is HIT:
            self._served(boarding.record, now)
        elif found is not None:
            slot = turn = record = None  # the flight may come to hold this very error
            cycle = describe(found)
            self.tell.refused(boarding.key, cycle)
            raise FlightDeadlock(f"{self.name}: waiting would never end: {cycle}")
        return boarding.verdict

    def awake(self, boarding: Boarding) -> Verdict:
        """Decide again for a follower whose gate has opened."""
        now = self.timer()
        loose = NOTHING
        before = boarding.flight  # let go of after the mutex
        if before.state is LANDED:
            boarding.verdict = SHARE
            self._waits_no_more(boarding)
            return SHARE
        with mutex:
            flight = before.latest()
            record = self.store.index.get(boarding.key)
            if flight is not None and flight.state is not LANDED and not flight.may_be_claimed():
                keep_waiting(boarding.actor, flight)
                boarding.flight, boarding.gate = flight, flight.open_later()
                return JOIN
            if flight is None:
                boarding.verdict = NONE
            elif flight.state is LANDED:
                boarding.flight = flight
                boarding.verdict = SHARE
            elif record is not None and not boarding.renew and record.fresh_for(now) > 0:
                boarding.record = record  # put from outside, meanwhile
                boarding.verdict = HIT
                self.counts.waits += 1
                loose = self._unjoin(flight)
            else:
                flight.followers -= 1
                boarding.verdict = NONE
                self._claim(boarding, flight, now, record)
            self._waits_no_more(boarding)
        open_gate(loose)
        return boarding.verdict

    def leave(self, boarding: Boarding, timed_out: bool | None) -> bool:
        """A follower gives up; False if it came too late, for its flight has landed.

        It counts as a timeout or as an error, or (None) not at all: it is served in another way.
        """
        loose = NOTHING
        with mutex:
            flight = boarding.flight.latest()
            if flight is not None and flight.state is LANDED:
                return False
            boarding.verdict = NONE
            if flight is not None:
                loose = self._unjoin(flight)
            self._waits_no_more(boarding)
            if timed_out:
                self.counts.timeouts += 1
            elif timed_out is not None:
                self.counts.errors += 1
        open_gate(loose)
        return True

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
            if slot is not None and is_nobodys(slot.turn):
                loose = self.locks.vacate(slot)  # an interrupt struck between making it and claiming it
        open_gate(loose)

    def done(self, boarding: Boarding) -> None:
        """The call is over, in whatever way."""
        self._waits_no_more(boarding)
        boarding.clear()

    def _claim(self, boarding: Boarding, flight: Flight, now: float, record: Record | None) -> None:
        boarding.flight = flight
        boarding.verdict = LEAD
        flight.claim(boarding.actor, now, record, "refresh" if boarding.renew else "call")

    @staticmethod
    def _waits_no_more(boarding: Boarding) -> None:
        if boarding.before is not None:
            end_waiting(boarding.actor, boarding.before)
            boarding.before = None

    def _queued(self, slot: Slot) -> Flight:
        """The flight that queues behind a plain hold (all callers together), or a new one, not yet there."""
        for turn in slot.queue:
            if type(turn) is Flight:
                return turn
        return self._new_flight(slot)

    def _new_flight(self, slot: Slot) -> Flight:
        return Flight(slot, self.options.follower_retries)

    def _join(self, boarding: Boarding, flight: Flight) -> list[Hashable] | None:
        """Follow a flight, unless waiting for it would close a circle: then that circle."""
        found = keys_of(circle(boarding.actor, flight), flight)
        if found is not None:
            self.counts.errors += 1
            return found
        boarding.flight, boarding.gate = flight, flight.open_later()
        boarding.before = waits(boarding.actor)
        begin_waiting(boarding.actor, flight)
        flight.followers += 1
        boarding.verdict = JOIN  # no call stands between the two: an interrupt finds both or neither
        if flight.state is UNCLAIMED and flight not in flight.slot.queue:
            flight.slot.line_up(flight)
        return None

    def _unjoin(self, flight: Flight) -> Loose:
        """One follower less; an unclaimed flight without any is nobody's and goes."""
        flight.followers -= 1
        if flight.followers or flight.state is not UNCLAIMED:
            return NOTHING
        if flight.slot.turn is flight:
            return self.locks.vacate(flight.slot)
        flight.slot.step_out(flight)
        return NOTHING

    def _served(self, record: Record, now: float) -> None:
        """A caller was served the longer way by a fresh record."""
        self.counts.served(record)
        if not self.tell.hit(record, now) and record.deadline == -inf:
            record.reopen()  # nobody listens any more
