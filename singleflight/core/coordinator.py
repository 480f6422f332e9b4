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
7. A flight that a task runs is stopped by whoever leaves it last: its leader's caller or a follower. It
   keeps its key until it has really ended; whoever comes meanwhile follows it, and flies after it.

Lock order: the mutex and a store's lock are never held together.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from logging import DEBUG
from typing import Any

from ..common import patches
from ..common.errors import FlightDeadlock, FlightTimeout
from ..common.messages import shown
from ..locks.latch import LOOK, LOOK_AGAIN, Gate
from ..locks.mutex import mutex
from ..locks.slots import Slot
from ..locks.table import keys_of
from ..locks.unsettled import NOTHING, let_go
from ..locks.waiters import NOBODY, current_actor
from ..locks.waitgraph import Circle, below, circle, describe, keep_waiting, note, refusal, waiting
from ..telemetry.events import is_logging, levels
from .call import HIT, JOIN, NONE, SHARE, Boarding, Verdict
from .flight import FLYING, LANDED, UNCLAIMED, Flight, new_flight
from .renewal import Server

__all__ = ["Memo"]


class Memo(Server):
    """Decides for one decorated function."""

    # -- boarding -----------------------------------------------------------------------------------

    def board(self, boarding: Boarding) -> Verdict:
        """Check again, then join the key's flight or lead a new one.

        Raises `FlightDeadlock` if waiting would never end, and `FlightTimeout` if too many executions for
        this key took too long and are still running.
        """
        timer = self.timer  # CPython is slow to call what an attribute holds
        now = timer()
        boarding.told = self.tell.has_listener or (levels.get(DEBUG, True) and is_logging(DEBUG))
        key = boarding.key
        slot: Any = None
        turn: Any = None
        found: list[Hashable] | None = None
        due = False
        with mutex:
            lookup = self.store.lookup  # not before: it may have been replaced, and a value landed since
            record = lookup(key)
            if record is not None and not boarding.renew and record.serves_for(now) > 0:
                self._serve(boarding, record, now)
            else:
                slot = self.locks.enter(key)
                turn = slot.turn
                if turn is None or turn.is_over():
                    turn = new_flight(self, slot, self.options.follower_retries)
                    turn.claim(boarding, now, record, self.options.flight_timeout)
                    slot.turn = turn
                elif turn.leader is None or turn.unbegun:
                    turn.claim(boarding, now, record, self.options.flight_timeout)
                else:
                    if type(turn) is not Flight:
                        turn = self._queued(slot)
                    work, life = turn.work, turn.life
                    if turn.due is not None or (work and work.loop is not boarding.loop):
                        due = turn.is_due()
                    elif life is not None and life() is None:
                        due = turn.is_due()  # the thread that led it has ended without a word
                    if not due:
                        found = self._join(boarding, turn)
        if boarding.verdict is HIT:
            self._served(boarding, now)
        elif found is not None:
            slot = turn = record = work = life = None  # they may come to hold an error raised from this one
            self.refuse(key, found)
        elif due:
            boarding.overdue = turn
            slot = turn = record = work = life = None
            return self._board_after(boarding)
        return boarding.verdict

    def _board_after(self, boarding: Boarding) -> Verdict:
        """Board once more, the flight in the way being due to lose the key."""
        if not self._unseat_overdue(boarding):
            with mutex:
                self.counts.timeouts += 1
            raise FlightTimeout(self._too_many(boarding.key))
        return self.board(boarding)

    def awake(self, boarding: Boarding) -> Verdict:
        """Decide again for a follower whose gate has opened."""
        before = boarding.flight  # let go of after the mutex
        if before.state is LANDED:
            boarding.verdict = SHARE
            self._waits_no_more(boarding)
            return SHARE
        now = self.timer()
        loose = NOTHING
        with mutex:
            flight = before.latest()
            record = self.store.index.get(boarding.key)
            if flight is not None and flight.state is not LANDED and not flight.may_be_claimed():
                boarding.flight, boarding.gate = flight, flight.open_later()
                if boarding.before is None:
                    return JOIN  # it follows, and waits for nothing yet
                keep_waiting(boarding.waiter, flight)
                boarding.stand_at(boarding.gate, self, flight)
                return JOIN
            if flight is None:
                boarding.verdict = NONE
            elif flight.state is LANDED:
                boarding.flight = flight
                boarding.verdict = SHARE
            elif record is not None and not boarding.renew and record.fresh_for(now) > 0:
                boarding.record = record  # put from outside, meanwhile
                boarding.renewal = None
                boarding.verdict = HIT
                flight.followers -= 1
                if record.error is None:
                    self.counts.waits += 1
                else:
                    self.counts.errors += 1
                loose = self._if_unwanted(flight)  # last: see `leave`
            else:
                self._waits_no_more(boarding)  # first: a wait that is over does not hold up what it leads now
                flight.claim(boarding, now, record, self.options.flight_timeout)
            self._waits_no_more(boarding)
        let_go(loose)
        return boarding.verdict

    def look(self, boarding: Boarding, began: float) -> Verdict:
        """A follower whose pause is over looks whether to go on waiting; what it does next.

        Raises `FlightTimeout` or `FlightDeadlock`; it has left then.
        """
        limit, waited = self.options.wait_timeout, time.monotonic() - began
        if limit is not None and waited >= limit:
            if not self.leave(boarding, timed_out=True):
                return self.awake(boarding)
            self.tell.timed_out(boarding.key, waited)
            raise FlightTimeout(f"{self.name}: waited {waited:.3g} s for {shown(boarding.key)}")
        too_many, found = self._look_round(boarding)
        if too_many and self.leave(boarding, timed_out=True):
            raise FlightTimeout(self._too_many(boarding.key))
        if found is not None and self.leave(boarding, timed_out=False):
            self.refuse(boarding.key, found)
        return JOIN

    def _look_round(self, boarding: Boarding) -> tuple[bool, list[Hashable] | None]:
        """Unseat what takes too long: whether too many are left running; and a circle that has closed.

        Not within `look`: no flight is to be in the frames of what that raises.
        """
        flight, found = boarding.flight, None
        self._see_to_the_one_before(flight)
        if flight.is_due():
            return not self.unseat(flight), None
        if boarding.uneasy:
            with mutex:
                boarding.look_again()
                note(boarding, boarding.climb())
                found = keys_of(circle(boarding, flight, self.options.wait_timeout is not None), flight)
        return False, found

    def pauses(self, boarding: Boarding, began: float) -> tuple[float, float | None]:
        """For how many seconds a follower may wait before somebody looks, and before it looks itself.

        The second is None where it is enough that anybody does, on behalf of all that wait for this flight.
        """
        flight, limit = boarding.flight, self.options.wait_timeout
        pause = self._until_due(flight)
        if limit is None and not boarding.uneasy:
            return pause, None
        own_pause = LOOK_AGAIN if boarding.uneasy else LOOK
        if limit is not None:
            own_pause = min(own_pause, max(0.0, began + limit - time.monotonic()))
        return pause, own_pause

    def watch(self, flight: Flight) -> float | None:
        """Look on behalf of all tasks of a loop that wait for a flight; after how many seconds again.

        None: each of them has to look for itself.
        """
        if flight.is_over() or flight.may_be_claimed():
            return None  # their gate is open, or about to be: the wake-up may have fallen to an interrupt
        self._see_to_the_one_before(flight)
        if flight.is_due() and not self.unseat(flight):
            return None
        return self._until_due(flight)

    @staticmethod
    def _see_to_the_one_before(flight: Flight) -> None:
        before = flight.slot.turn
        if before is not None and before is not flight:
            before.see_to()

    @staticmethod
    def _until_due(flight: Flight) -> float:
        if flight.due is None or flight.state is not FLYING:
            return LOOK
        return min(LOOK, max(0.0, flight.due - time.monotonic()))

    def refuse(self, key: Hashable, found: list[Hashable]) -> None:
        """Tell and raise that waiting would never end."""
        self.tell.refused(key, describe(found))
        why = refusal(found)
        if not patches.hint() and self._leads(found):
            why += (
                "; this very caller is fetching it, further out: what a getter and its bulk loader (or its "
                "twin) both need to fetch belongs in an undecorated function that both call"
            )
        raise FlightDeadlock(f"{self.name}: {why}")

    def _leads(self, keys: list[Hashable]) -> bool:
        """Whether whoever runs here leads the flights of all these keys, and nobody else's are among them."""
        actor = current_actor()
        with mutex:
            turns = [None if slot is None else slot.turn for slot in map(self.locks.slot, keys)]
            leads = all(type(turn) is Flight and turn.leader == actor for turn in turns)
        return leads  # noqa: RET504  # not within: an interrupt before the return may leave the mutex held

    def _too_many(self, key: Hashable) -> str:
        limit = self.options.flight_timeout
        return (
            f"{self.name}: several calls for {shown(key)} took longer than {limit:g} s and are still running"
        )

    def too_long(self, key: Hashable) -> str:
        """What a caller is told whose work was cancelled for taking too long. Runs the key's `__repr__`."""
        return f"{self.name}: {shown(key)} took longer than {self.options.flight_timeout:g} s: cancelled"

    # -- under the mutex ----------------------------------------------------------------------------

    def _queued(self, slot: Slot) -> Flight:
        """The flight that queues behind a plain hold (all callers together), or a new one, not yet there."""
        for turn in slot.queue:
            if type(turn) is Flight:
                return turn
        return new_flight(self, slot, self.options.follower_retries)

    def _join(self, boarding: Boarding, flight: Flight) -> list[Hashable] | None:
        """Follow a flight, unless waiting for it would close a circle: then that circle."""
        if boarding.follows:
            boarding.flight, boarding.gate = flight, flight.open_later()
            self._count_in(boarding, flight)
            return None
        boarding.uneasy, boarding._above, boarding.noted = False, None, NOBODY  # as `begin`, in line
        waiter = boarding.waiter
        # The usual case in short: nobody but its own function holds the flight up.
        leader = flight.leader
        if flight.state is FLYING and not (leader in waiting or flight.thread in waiting or leader in below):
            mine = leader == waiter or flight.thread == waiter or boarding.is_below(flight)
            closed: Circle | None = [(flight.key, flight)] if mine else None
        else:
            closed = circle(boarding, flight, self.options.wait_timeout is not None)
        if closed is not None:
            self.counts.errors += 1
            return keys_of(closed, flight)
        gate = flight.gate
        if gate is None:
            gate = flight.gate = Gate()
        boarding.flight, boarding.gate = flight, gate
        # `before` first: it is what an interrupt goes back to.
        if waiter in waiting:
            under_way = waiting[waiter]
            boarding.before = len(under_way)
            waiting[waiter] = (*under_way, flight)
        else:
            boarding.before = 0
            if gate.alone is None:
                gate.alone = (flight,)
            waiting[waiter] = gate.alone
        boarding.stand_at(gate, self, flight)
        if boarding.uneasy:
            note(boarding, boarding.climb())
        self._count_in(boarding, flight)
        return None

    def _count_in(self, boarding: Boarding, flight: Flight) -> None:
        boarding.place = flight.followers = flight.followers + 1
        boarding.verdict = JOIN  # no call stands between the two: an interrupt finds both or neither
        if flight.state is UNCLAIMED and flight not in flight.slot.queue:
            flight.slot.line_up(flight)
