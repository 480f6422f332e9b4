"""How a flight ends: publish, then free the key, then tell. The other half of the decision maker."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from math import inf
from typing import TYPE_CHECKING, Any

from ..common.errors import FlightDeadlock, FlightTimeout
from ..common.messages import shown
from ..locks.latch import Latch
from ..locks.mutex import mutex
from ..locks.slots import Slot
from ..locks.table import is_sound
from ..locks.unsettled import Loose
from ..storage.entry import AgeingRecord, Record, record_of
from ..storage.ttl import Landing
from ..telemetry.events import log
from .call import Nobody
from .flight import FLYING, LANDED, PASSED, UNSEATED, Flight, new_flight
from .options import is_not_none
from .outcome import bare_copy_of
from .state import Remembered

__all__ = ["Ending", "Lander"]

# A flight that is about to end together with others: the flight, its value and error, when, whether the value
# is storable, its ttl if it was stored, and the records that went for it.
Ending = tuple[Flight, object, BaseException | None, float, bool, float | None, list[Record]]


class Lander(Remembered):
    """Ends the flights of one decorated function."""

    if TYPE_CHECKING:

        def unseat(self, flight: Flight, /) -> bool:
            """See `unseating`, which adds it."""
            ...

    def land(self, flight: Flight, value: object, later: list[Ending] | None = None) -> None:
        """The function returned: publish the value, then free the key, then tell.

        Passes on what `cache_if` and `ttl` raise: the flight has not ended then, and is to `fail` with it.
        With `later` it only publishes, and adds there what is left to be done.
        """
        options = self.options
        cache_if = options.cache_if
        storable = value is not None if cache_if is is_not_none else bool(cache_if(value))
        ttl = options.fixed_ttl
        if ttl is None:
            ttl = self._asked_ttl(flight, value) if storable else 0.0
        timer = self.timer
        now = timer()
        gone: list[Record] | None = None
        if storable and ttl > 0.0 and not flight.detached:
            key: Any = flight.key
            if self.is_plain:
                record = record_of(key, value, now, ttl)
            else:
                record = self.new_record(key, value, now, ttl, now - flight.started)
            if flight.told and self.tell.wants("hit"):
                record.deadline = -inf
            try:
                # A key that has changed must not be filed as what it is now: the value is its callers' alone.
                slot, by_key = flight.slot, self.locks.by_key
                # In line: `is_sound`.
                if by_key[(*key,)] is slot if type(key) is tuple else hash(key) == slot.hash:
                    gone = self.store.put(record, flight)
            except Exception as error:  # the key's own, as when it is hashed
                self._say_unstored(key, error)
        stored = gone is not None
        if stored and self.batches:
            self.spoil(flight.key)
        if flight.renews and not stored and not flight.detached:
            self._renew_later(flight, now, None)
        if later is not None:
            later.append((flight, value, None, now, storable, ttl if stored else None, gone or []))
            return
        ended = self._finish(flight, value, None, now, storable, stored)
        if flight.told:
            if ended is not None:
                self.tell.landed(flight, ended, value, now, ttl if stored else None)
            self.tell.gone(gone or [], now)

    def fail(
        self,
        flight: Flight,
        error: BaseException,
        later: list[Ending] | None = None,
        message: Callable[[Hashable], str] | None = None,
    ) -> None:
        """The function raised: an Exception is shared or tried again, anything else is an abort.

        Does nothing to a flight that has ended, so that a landing cut short by an interrupt can be mended.
        With `later` it ends nothing, but adds there what is left to be done. `message` makes the error's text
        from the key once the flight has ended: that runs the key's `__repr__`.
        """
        now = self.time_or(flight.started)
        if flight.renews and not flight.detached:
            self._renew_later(flight, now, error)
        if flight.background:
            pass
        elif self.options.failure_ttl and isinstance(error, Exception) and not is_unshared(error):
            self._store_failure(flight, error, now)
        if later is not None:
            later.append((flight, None, error, now, False, None, []))
            return
        ended = self._finish(flight, None, error, now, storable=False, stored=False)
        if message is not None:
            error.args = (message(flight.key),)
        if ended is not None:
            self.tell.failed(flight, ended, error, now)

    def time_or(self, otherwise: float) -> float:
        """The time by the function's own clock; where that raises, another one: no key is kept for it."""
        try:
            return self.timer()
        except Exception:
            return otherwise

    def new_record(self, key: Hashable, value: object, now: float, ttl: float, duration: float) -> Record:
        """A value that has just landed, with the times that it ages by."""
        ageing = self.options.ageing
        if self.is_plain:
            return record_of(key, value, now, ttl)
        ttl = ageing.shortened(ttl)
        refresh_at = ageing.refresh_at(now, ttl, duration)
        if ageing.grace:
            refresh_at = min(refresh_at, now + ttl)  # the first who finds it stale has it renewed
        return AgeingRecord(key, value, now, ttl, ageing.grace, refresh_at)

    def _store_failure(self, flight: Flight, error: Exception, now: float) -> None:
        """Keep an exception for a while, where there is no value and nobody is to try again at once."""
        with mutex:
            refused = flight.detached or flight.has_ended() or (flight.followers and flight.retries != 0)
        before = self.store.find(flight.key)
        served = before is not None and before.error is None and before.serves_for(now) > 0
        if refused or served:
            return
        ttl = self.options.failure_ttl
        kept = bare_copy_of(error)  # no frame is to live as long as it does
        try:
            if not is_sound(flight.slot, self.locks.by_key):  # see `land`
                return
            gone = self.store.put(AgeingRecord(flight.key, None, now, ttl, error=kept), flight)
        except Exception as raised:  # the key's own
            self._say_unstored(flight.key, raised)
            return
        self.tell.gone(gone or [], now)

    def _say_unstored(self, key: Hashable, error: Exception) -> None:
        log.warning("%s: what %s brought could not be stored: %s", self.name, shown(key), shown(error))

    def _renew_later(self, flight: Flight, now: float, error: BaseException | None) -> None:
        """A renewal brought nothing: the value stays, and is tried again after a while."""
        record = flight.previous
        if not isinstance(record, AgeingRecord) or flight.has_ended():
            return
        failed = error is None or isinstance(error, Exception)  # or else it may be tried again at once
        with mutex:
            first = failed and not record.failed and record.serves_for(now) > 0
            if failed:
                record.failed = True
            record.renew_at(now + self.options.ageing.retry_after if failed else now)
        if first:
            why = "it returned what is not stored" if error is None else shown(error)
            key = shown(flight.key)
            log.warning("%s: %s could not be renewed, its value is kept: %s", self.name, key, why)

    def call_off(self, flight: Flight) -> None:
        """A renewal that nobody has begun, if so, ends as if it had never been."""
        now = self.time_or(flight.started)
        called_off = KeyboardInterrupt()
        with mutex:
            if not isinstance(flight.leader, Nobody):
                return
            flight.counted = True
            flight.unbegun = False
        if not flight.detached:
            self._renew_later(flight, now, called_off)
        self._finish(flight, None, called_off, now, storable=False, stored=False)

    def _asked_ttl(self, flight: Flight, value: object) -> float:
        now = self.timer()
        before = flight.previous
        previous = before.snapshot(now) if before is not None and before.error is None else None
        landing = Landing(flight.key, value, None, max(0.0, now - flight.started), flight.followers, previous)
        return self.options.ttl_of(landing)

    def _finish(
        self,
        flight: Flight,
        value: object,
        error: BaseException | None,
        now: float,
        storable: bool,
        stored: bool,
        later: list[Loose] | None = None,
    ) -> tuple[int, bool] | None:
        """End a flight; how many followers it had and whether they fly again, or None if it has ended.

        With `later` it opens no latches, but adds them there: then it may be called under the mutex.
        """
        again = unshared = False
        next_gate = dropped = None  # to open, and to let go of, once the mutex is free
        with mutex:
            slot, followers, latch = flight.slot, flight.followers, flight.latch
            state = flight.state
            current = slot.turn is flight
            ended = flight.lost or (state is not FLYING and state is not UNSEATED)
            if ended:
                # Perhaps an interrupt struck between its end and what follows from it: that is done now.
                if current and not flight.lost:
                    next_gate, dropped = self.locks.vacate(slot)
            else:
                if not current or flight.detached:
                    self.adrift.discard(flight)
                if not flight.counted:
                    self._count(flight, error, stored)
                if followers:
                    unshared = flight.doomed or (error is not None and is_unshared(error))
                    again = unshared or (current and not storable and flight.retries != 0)
                if state is UNSEATED:
                    flight.state = PASSED
                elif again:
                    self._fly_again(flight, spent=not unshared)
                else:
                    if followers:  # else nobody is to receive what it brought
                        flight.bring(value, error, now, storable)
                    # No call stands between these: an interrupt finds it in flight, or landed and counted.
                    if error is None:
                        self.counts.waits += followers
                    else:
                        self.counts.errors += followers
                    flight.state = LANDED
                    if current:
                        next_gate, dropped = self.locks.vacate(slot)
        if later is not None:
            later += (_opening(latch, None), _opening(next_gate, dropped))
            return None if ended else (followers, again)
        if latch is not None:
            latch.open()
        if next_gate is not None:
            next_gate.open()
        del dropped
        return None if ended else (followers, again)

    def _fly_again(self, flight: Flight, spent: bool) -> None:
        """Its followers get an unclaimed successor, or, where it was detached, are on their own."""
        slot, retries = flight.slot, flight.retries
        if slot.turn is not flight:
            flight.pass_on(None)
            return
        if spent and retries is not None:
            retries -= 1
        flight.pass_on(new_flight(self, slot, retries, flight.followers))

    def _count(self, flight: Flight, error: BaseException | None, stored: bool) -> None:
        """Count an execution and its leader (a caller that has gone was counted then), once."""
        counts, work = self.counts, flight.work
        ran = work is None or work.began
        failed = error is not None and isinstance(error, Exception)
        timed_out = error is not None and isinstance(error, FlightTimeout)
        # No call from here on: an interrupt finds all of it counted, or nothing.
        flight.counted = True
        if flight.kind != "bulk":  # whose executions are counted by the batch
            if ran:
                counts.calls += 1
                if flight.kind == "refresh":
                    counts.refreshes += 1
            if ran and failed:
                counts.failures += 1
        if error is None and not stored:
            counts.uncached += 1
        if flight.deserted or flight.background:
            return
        if error is None:
            counts.fetches += 1
        elif timed_out:
            counts.timeouts += 1
        else:
            counts.errors += 1

    def settle_flight(self, flight: Flight, error: BaseException, loose: list[Loose]) -> None:
        """End a flight whose leader could not. Call under the mutex; may be repeated.

        It tells nobody, stores no failure and reads no clock: nothing of the user's runs.
        """
        record = flight.previous if flight.renews and not flight.detached else None
        if isinstance(record, AgeingRecord) and not flight.has_ended():
            record.renew_at(flight.started)  # whoever reads it next has it renewed
        flight.unbegun = False
        self._finish(flight, None, error, flight.started, storable=False, stored=False, later=loose)

    def _vacate(self, slot: Slot) -> Loose:
        return _opening(*self.locks.vacate(slot))


def is_unshared(error: BaseException) -> bool:
    """Whether it ends an execution without saying anything about its key."""
    return not isinstance(error, Exception) or isinstance(error, (FlightDeadlock, FlightTimeout))


def _opening(latch: Latch | None, dropped: object) -> Loose:
    return (None if latch is None else latch.open), dropped
