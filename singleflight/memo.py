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

from .boarding import Boarding, Verdict
from .entries import Record
from .errors import FlightDeadlock, FlightTimeout
from .flights import Flight, State, is_nobodys
from .freshness import Landing
from .remembered import Remembered
from .turns import Gate, Slot, begin_waiting, circle, describe, keep_waiting, mutex

__all__ = ["Memo"]

_Loose = tuple[Gate | None, Slot | None]  # to open and to let go of, once the mutex is free
_NOTHING: _Loose = (None, None)


class Memo(Remembered):
    """Decides for one decorated function."""

    # -- boarding -----------------------------------------------------------------------------------

    def board(self, boarding: Boarding, renew: bool = False) -> Verdict:
        """Check again, then join the key's flight or lead a new one.

        With `renew` a fresh value does not count. Raises `FlightDeadlock` if waiting would never end.
        """
        now = self.timer()
        found = None
        key = boarding.key
        with mutex:
            record = self.store.index.get(key)
            if record is not None and not renew and record.fresh_for(now) > 0:
                boarding.record = record
                boarding.verdict = Verdict.HIT
            else:
                slot = self.locks.enter(key)
                turn: Any = slot.turn
                if turn is None or (type(turn) is Flight and turn.ended()):
                    turn = self._new_flight(slot)
                    slot.turn = turn
                elif type(turn) is not Flight:
                    turn = self._queued(slot)
                current = turn is slot.turn
                if current and turn.leader is None:
                    boarding.flight = turn
                    boarding.verdict = Verdict.LEAD
                    turn.claim(boarding.actor, now, record, "refresh" if renew else "call")
                else:
                    found = self._join(boarding, turn)
        if boarding.verdict is Verdict.HIT:
            self._served(boarding.record, now)
        elif found is not None:
            cycle = describe(found)
            self.tell.refused(key, cycle)
            raise FlightDeadlock(f"{self.name}: waiting would never end: {cycle}")
        return boarding.verdict

    def awake(self, boarding: Boarding) -> Verdict:
        """Decide again for a follower whose gate has opened."""
        if boarding.flight.state is State.LANDED:
            boarding.verdict = Verdict.SHARE
            return Verdict.SHARE
        now = self.timer()
        loose = _NOTHING
        with mutex:
            flight = boarding.flight.latest()
            record = self.store.index.get(boarding.key)
            if flight is None:
                boarding.verdict = Verdict.NONE
            elif flight.state is State.LANDED:
                boarding.flight = flight
                boarding.verdict = Verdict.SHARE
            elif flight.state is State.FLYING or flight.slot.turn is not flight:
                assert flight.gate is not None
                keep_waiting(boarding.actor, flight)
                boarding.flight, boarding.gate = flight, flight.gate
                boarding.verdict = Verdict.JOIN
            elif record is not None and record.fresh_for(now) > 0:  # put from outside, meanwhile
                boarding.record = record
                boarding.verdict = Verdict.HIT
                self.counts.waits += 1
                loose = self._unjoin(flight)
            else:
                flight.followers -= 1
                boarding.flight = flight
                boarding.verdict = Verdict.LEAD
                flight.claim(boarding.actor, now, record, "call")
        _open(loose)
        return boarding.verdict

    def leave(self, boarding: Boarding, timed_out: bool) -> bool:
        """A follower gives up; False if it came too late, for its flight has landed."""
        loose = _NOTHING
        with mutex:
            flight = boarding.flight.latest()
            if flight is not None and flight.state is State.LANDED:
                return False
            boarding.verdict = Verdict.NONE
            if flight is not None:
                loose = self._unjoin(flight)
            if timed_out:
                self.counts.timeouts += 1
            else:
                self.counts.errors += 1
        _open(loose)
        return True

    def abandon(self, boarding: Boarding, error: BaseException) -> None:
        """The call ends with an exception: whatever it still holds is given up.

        Does nothing where everything has ended as it should, so that it can stand behind every call.
        """
        if boarding.verdict is Verdict.LEAD:
            self.fail(boarding.flight, error)
        elif boarding.verdict is Verdict.JOIN:
            self.leave(boarding, timed_out=False)
            if boarding.flight.has_opened(boarding.gate):
                boarding.gate.open()  # it may have been this follower's to let the next one through
        with mutex:
            slot = self.locks.slot(boarding.key)
            if slot is not None and not slot.queue and is_nobodys(slot.turn):
                slot.turn = None  # an interrupt struck between making it and claiming it
                loose = self.locks.vacate(slot)
                del loose

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
        found = circle(boarding.actor, flight)
        if found is not None:
            self.counts.errors += 1
            return found
        boarding.flight, boarding.gate = flight, flight.join()
        boarding.verdict = Verdict.JOIN
        begin_waiting(boarding.actor, flight)
        if flight.state is State.UNCLAIMED and flight not in flight.slot.queue:
            flight.slot.queue.append(flight)
        return None

    def _unjoin(self, flight: Flight) -> _Loose:
        """One follower less; an unclaimed flight without any is nobody's and goes."""
        flight.followers -= 1
        if flight.followers or flight.state is not State.UNCLAIMED:
            return _NOTHING
        if flight.slot.turn is flight:
            return self.locks.vacate(flight.slot)
        flight.slot.queue.remove(flight)
        return _NOTHING

    # -- landing ------------------------------------------------------------------------------------

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
        now = self.timer()
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
        loose = _NOTHING
        with mutex:
            if flight.state is not State.FLYING or flight.lost:
                # Perhaps an interrupt struck between its end and what follows from it: that is done now.
                if flight.gate is not None:
                    flight.gate.open()
                if flight.slot.turn is flight and not flight.lost:
                    loose = self.locks.vacate(flight.slot)
                    _open(loose)
                return None
            self.adrift.discard(flight)
            slot, followers = flight.slot, flight.followers
            current = slot.turn is flight
            aborted = error is not None and not isinstance(error, Exception)
            unshared = aborted or isinstance(error, (FlightDeadlock, FlightTimeout))
            again = followers > 0 and (unshared or (current and not storable and flight.retries != 0))
            if again and current:
                retries = flight.retries if unshared or flight.retries is None else flight.retries - 1
                slot.turn = Flight(slot, retries, followers)
                flight.pass_on(slot.turn)
            elif again:
                flight.pass_on(None)
            else:
                flight.land(value, error, now)
                if current:
                    loose = self.locks.vacate(slot)
            self._count(flight, error, 0 if again else followers, stored)
            gate = flight.gate
        if gate is not None:
            gate.open()
        if loose[0] is not None:
            loose[0].open()
        return followers, again

    def _count(self, flight: Flight, error: BaseException | None, served: int, stored: bool) -> None:
        counts = self.counts
        counts.calls += 1
        counts.refreshes += flight.kind == "refresh"
        if error is None:
            counts.fetches += 1
            counts.uncached += not stored
            counts.waits += served
        else:
            counts.failures += isinstance(error, Exception)
            counts.errors += served + 1

    def _served(self, record: Record, now: float) -> None:
        """A caller was served the longer way by a fresh record."""
        record.hits += 1
        self.counts.hit()
        if not self.tell.hit(record, now) and record.deadline == -inf:
            record.deadline = record.landed + record.ttl  # nobody listens any more: back to the fast path


def _open(loose: _Loose) -> None:
    """After the mutex: open the gate that a vacated slot's next turn waits behind."""
    if loose[0] is not None:
        loose[0].open()
