"""How a stored value is served the longer way: stale, while it is renewed, or with somebody listening."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

from ..locks.mutex import inside_other, mutex
from ..locks.waiters import get_ident
from ..storage.entry import AgeingRecord, Record
from .call import HIT, NONE, Call, background
from .flight import Flight, Work, new_flight
from .leaving import Leaver

__all__ = ["Server"]


class Server(Leaver):
    """Serves what one decorated function has stored, and sees that it is renewed."""

    def begin(self, renewal: Call, thread: int) -> bool:
        """A renewal is run from now on by this thread; False if it is not to be run any more.

        Somebody who needed its outcome runs it, or it lost its key while it waited for a thread.
        """
        now = self.timer()
        with mutex:
            flight = renewal.flight
            wanted = flight.unbegun and not flight.detached
            if wanted:
                self._set_out(renewal, thread, thread, now)
        if not wanted:
            self.call_off(flight)
        return wanted

    def entrust(self, renewal: Call, work: Work, task: Hashable) -> None:
        """A renewal is run from now on by this task of the loop that runs on this thread."""
        with mutex:
            renewal.flight.work = work
            now = renewal.flight.started
            self._set_out(renewal, task, get_ident(), now)

    def _set_out(self, renewal: Call, actor: Hashable, thread: int, now: float) -> None:
        flight = renewal.flight
        renewal.actor, renewal.thread = actor, thread
        flight.claim(renewal, now, flight.previous, self.options.flight_timeout)

    def _serve(self, call: Call, record: Record, now: float) -> None:
        """Serve a record, and have it renewed if it is time; call under the mutex."""
        call.renewal = call.overdue = None
        call.record = record
        call.decision = HIT
        if record.error is not None:
            self.counts.errors += 1
        elif record.fresh_for(now) <= 0:
            self.counts.stale_hits += 1
            record.passed = -1  # it was used, though that is no hit
        if not isinstance(record, AgeingRecord):
            return
        due = record.refresh_at <= now
        renewed = record.refresh_at == inf and not record.fresh_for(now) > 0  # by somebody, already
        if not (due or renewed) or inside_other():
            return
        if due:
            self._claim_renewal(call, record, now)
        else:
            slot = self.locks.slot(call.key)
            if slot is not None and isinstance(slot.turn, Flight) and slot.turn.is_due():
                call.overdue = slot.turn  # what renews it takes too long: see `_served`

    def _claim_renewal(self, call: Call, record: AgeingRecord, now: float) -> None:
        # By the caller's key, which has just been looked up: that of the record may be spoilt.
        slot = self.locks.enter(call.key)
        if slot.turn is not None:
            return
        renewal = background(call.key)
        renewal.told = call.told
        flight = renewal.flight = new_flight(self, slot, self.options.follower_retries)
        flight.claim(renewal, now, record, self.options.flight_timeout)
        renewal.decision = NONE  # until it begins
        flight.renews = True
        flight.unbegun = call.loop is None  # a task's begins for certain, as soon as its loop goes on
        call.renewal = renewal  # from here on `done` sees to it if nobody begins it
        slot.turn = flight
        record.renew_at(inf)

    def _unseat_overdue(self, call: Call) -> bool:
        """See `unseat`; the call lets go of it."""
        overdue, call.overdue = call.overdue, None
        return self.unseat(overdue)

    def _served(self, call: Call, now: float) -> None:
        """After the mutex: count and tell."""
        record = call.record
        if call.overdue is not None:
            self._unseat_overdue(call)
        if record.error is not None:
            return
        if record.fresh_for(now) <= 0:
            self.tell.stale_hit(record, now)
            return
        self.counts.served(record)
        if not self.tell.hit(record, now) and record.deadline == -inf:
            record.reopen()  # nobody listens any more
