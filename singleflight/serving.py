"""How a stored value is served the longer way: stale, while it is renewed, or with somebody listening."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

from .boarding import HIT, Boarding, background
from .entries import AgeingRecord, Record
from .flights import Flight, Work
from .leaving import Leaver
from .sections import inside_other
from .turns import mutex

__all__ = ["Server"]


class Server(Leaver):
    """Serves what one decorated function has stored, and sees that it is renewed."""

    def begin(self, renewal: Boarding, thread: int) -> None:
        """A renewal in the background is run from now on by this thread."""
        with mutex:
            renewal.flight.leader = renewal.flight.thread = thread

    def entrust(self, renewal: Boarding, work: Work, task: Hashable) -> None:
        """A renewal in the background is run from now on by this task."""
        with mutex:
            renewal.flight.work = work
            renewal.flight.leader = task

    def _serve(self, boarding: Boarding, record: Record, now: float) -> None:
        """Serve a record, and have it renewed if it is time; call under the mutex."""
        boarding.renewal = None
        boarding.record = record
        boarding.verdict = HIT
        if record.error is not None:
            self.counts.errors += 1
        elif record.fresh_for(now) <= 0:
            self.counts.stale_hits += 1
            record.passed = -1  # it was used, though that is no hit
        if record.refresh_at <= now and isinstance(record, AgeingRecord) and not inside_other():
            self._claim_renewal(boarding, record, now)

    def _claim_renewal(self, boarding: Boarding, record: AgeingRecord, now: float) -> None:
        slot = self.locks.enter(record.key)
        turn = slot.turn
        if turn is not None:
            if isinstance(turn, Flight) and turn.is_due():
                boarding.flight = turn  # the one that renews it takes too long: see `_served`
            return
        renewal = background(record.key)
        renewal.told = boarding.told
        flight = Flight(self, slot, self.options.follower_retries)
        flight.background = True
        renewal.flight = flight
        boarding.renewal = renewal  # from here on `done` sees to it if nobody begins it
        flight.claim(renewal, now, record, self.options.flight_timeout)
        slot.turn = flight
        record.renew_at(inf)

    def _served(self, boarding: Boarding, now: float) -> None:
        """After the mutex: count and tell."""
        record = boarding.record
        if record.refresh_at <= now and boarding.renewal is None:
            turn = getattr(boarding, "flight", None)
            if turn is not None:
                self.unseat(turn)
        if record.error is not None:
            return
        if record.fresh_for(now) <= 0:
            self.tell.stale_hit(record, now)
            return
        self.counts.served(record)
        if not self.tell.hit(record, now) and record.deadline == -inf:
            record.reopen()  # nobody listens any more
