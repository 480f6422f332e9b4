"""The loader calls of one bulk call: what they bring lands key by key, on flights that one caller leads."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from ..common.keys import check_room
from ..common.messages import listed, shown
from ..locks.mutex import mutex
from ..locks.unsettled import After
from ..locks.waiters import Actor
from ..locks.waitgraph import waiting, waits
from . import transitions
from .cache import Cache
from .call import NONE, Call, new_call
from .current import landing_value
from .flight import FLYING, UNSEATED, Flight, Work
from .landing import (
    Arrival,
    Ending,
    Verdict,
    call_off,
    fail,
    judge,
    land,
    renew_later,
    say_unstored,
    settle_flight,
)
from .leaving import abandon, desert, done
from .renewal import begin_renewal, entrust_renewal
from .shareable import accepted
from .transitions import claim, disown, doom, finish, free, is_unclaimed, new_flight, occupy

__all__ = ["Batch", "Item", "uncalled"]


class Uncalled(BaseException):
    """Ends a flight for which the loader was never called, so that there is nothing to share."""


def uncalled(error: BaseException) -> BaseException:
    """What ends the flights that a failing bulk call leads and never called its loader for."""
    return Uncalled("the loader was not called") if isinstance(error, Exception) else error


class Asks(Protocol):
    """What a batch knows of the call that it is for; `bulk` has it."""

    spelt: dict[int, Any]
    """Every item as the loader is to be asked for it, by the identity of its key, which may be spoilt."""

    max_batch: int | None
    """How many items the loader takes at once."""

    def key_of(self, item: Any, /) -> Hashable:
        """The key of an item."""
        ...


class Item(NamedTuple):
    """What came for one flight of a batch: a value, or what it fails with; nothing if it is not `present`.

    With an `arrival` or a `verdict` it is known what is to become of it (see `landing`).
    """

    flight: Flight
    key: Hashable
    present: bool
    value: Any = None
    error: BaseException | None = None
    arrival: Arrival | None = None
    verdict: Verdict | None = None


class Batch:
    """The flights that one bulk call leads at once, and the loader calls that bring their values.

    Its fields are touched by whoever runs the loader; `flights` is read, and `spoiled` and `sealed` are
    written, by anybody, under the mutex.
    """

    __slots__ = (
        *("_call", "_called", "_extra", "_judged", "_pending", "_rest", "cache"),
        *("flights", "led", "name", "renews", "sealed", "spoiled", "values"),
    )

    def __init__(self, cache: Cache, led: list[Call], call: Asks, values: dict[int, Any]) -> None:
        self._call = call
        self.cache = cache
        self.name: str = cache.name
        self.led: list[Call] = led
        # Each with its key, the object that `spelt` knows. No key is hashed here: it may be spoilt.
        self._pending: dict[Flight, Hashable] = {call.flight: call.key for call in led}
        self._called: dict[Flight, Hashable] | None = None  # those that the loader is running for
        self._rest: dict[Hashable, Any] = {}  # what the loader has brought unasked
        # The error that the loader raised, with what a tier has found for the flights that it ran for.
        self._judged: tuple[BaseException | None, dict[Flight, Verdict]] = None, {}
        self._extra: Hashable = None  # the key that was claimed last, beside those
        self.flights: list[Flight] = list(self._pending)
        self.renews: bool = bool(led) and led[0].background  # whether its loader calls count as refreshes
        self.values = values  # where they go, by the identity of their keys
        self.spoiled: set[Hashable] = set()
        self.sealed = False

    def mark(self) -> None:
        """These flights are loaded together: all at once, none of them within another, and due together."""
        for flight in self.flights:
            flight.missing, flight.kind = False, "bulk"
            flight.number = self.flights[0].number
            flight.due = self.flights[-1].due

    def next_of(self, flights: Iterable[Flight]) -> list[Flight]:
        """Return as many of these as the loader takes at once."""
        return list(flights)[: self._call.max_batch]

    def begin(self, chosen: list[Flight] | None = None) -> list[Any]:
        """The loader is about to be called with these items; none when all is loaded.

        They are those of the `chosen` flights, where there is a choice (see `next_of`).
        """
        flights = self.next_of(self._pending) if chosen is None else chosen
        if not flights:
            return []
        cache, spelt = self.cache, self._call.spelt
        late = self._called is not None  # not the first call: its flights have waited for those before
        self._called = {flight: self._pending.pop(flight) for flight in flights}
        now, limit = cache.timer(), cache.options.flight_timeout
        due = None if limit is None else time.monotonic() + limit
        with mutex:
            cache.counts.calls += 1
            cache.counts.refreshes += self.renews
            cache.batches.add(self)
            self.spoiled.clear()
            for flight in flights if late else ():
                if flight.state is FLYING:
                    flight.started = now
                    flight.due = due
        for flight in flights:
            if flight.wants_events:
                cache.tell.fetching(flight, flights[0].ident)
        return [spelt[id(key)] for key in self._called.values()]

    def called(self) -> list[tuple[Any, Flight]]:
        """What the loader is running for: each flight with its item."""
        spelt = self._call.spelt
        return [(spelt[id(key)], flight) for flight, key in (self._called or {}).items() if id(key) in spelt]

    def running(self) -> AbstractContextManager[None]:
        """Return what is to be entered around a call of the loader, for what has begun."""
        cache = self.cache
        return cache.tell.running(list(self._called or ()) if cache.tell.around else (), cache.timer)

    def land(self, loaded: Any) -> None:
        """The loader returned: land each key of its answer, and what was asked for and is not there."""
        self.land_each(self.sort(loaded))

    def sort(self, loaded: Any, among: Iterable[Flight] | None = None) -> list[Item]:
        """Return what the loader has brought for each flight that it was called for; raises what is wrong.

        Also what it has brought for flights that it was not called for yet: all, or those `among` some. What
        nobody asked for is left for `land_each`.
        """
        cache = self.cache
        if not isinstance(loaded, Mapping):
            kind = type(loaded).__name__
            raise TypeError(f"{cache.name}: a bulk loader returns a mapping of items to values, not {kind!r}")
        called = self._called
        assert called is not None
        values = self._by_key(loaded)
        for flight in tuple(self._pending if among is None else among):
            if flight not in called and _has(values, self._pending[flight]):
                called[flight] = self._pending.pop(flight)
        self._rest = values
        items: list[Item] = []
        try:
            for flight, key in called.items():
                brought = _taken(values, key) or _found(loaded, self._call.spelt[id(key)])
                items.append(_item(cache.name, flight, key, brought))
            return items
        finally:
            del items  # or this frame and an exception would keep each other

    def land_each(self, items: list[Item], extra: bool = True) -> None:
        """Land these, and empty the list; with `extra` also what nobody asked for."""
        cache, called = self.cache, self._called
        assert called is not None
        rest, self._rest = self._rest, {}
        endings: list[Ending] = []
        struck: BaseException | None = None
        item = None
        try:
            for item in items:
                flight = item.flight
                if not item.present:
                    self._lack(flight, endings)
                    continue
                try:
                    if item.error is not None:
                        raise item.error
                    land(cache, flight, item.value, endings, item.arrival)
                except Exception as raised:  # of `cache_if` or `ttl` too: that flight's failure
                    ended = fail(cache, flight, raised, endings, verdict=item.verdict)
                    if struck is None or not isinstance(ended, Exception):
                        struck = ended
                    del ended
                else:
                    storable = endings[-1][4]
                    if storable or not flight.background:  # else the value that was to be renewed stays
                        self.values[id(item.key)] = item.value
            self._end(endings)
            if extra:
                self._add(rest, called)
            if struck is not None and self._raises(struck):
                raise struck
        finally:
            endings.clear()  # which the frame of `land` has too; an exception leads to all of these frames
            items.clear()
            del struck, item
        for flight in [flight for flight in called if flight.has_ended()]:
            del called[flight]

    def waiting_for(self) -> dict[Flight, Hashable]:
        """Return the flights that the loader was not called for yet, each with its key."""
        return dict(self._pending)

    def found(self, items: list[Item]) -> None:
        """Land what was found elsewhere, for which the loader is not called."""
        if self._called is None:
            self._called = {}
        called = {item.flight: item.key for item in items}  # no item in a variable: one may hold an error
        for flight in called:
            self._pending.pop(flight, None)
        self._called.update(called)
        self.land_each(items, extra=False)

    def leave(self, flight: Flight) -> None:
        """A flight has ended in another way, and is not loaded."""
        self._pending.pop(flight, None)

    def judged(self, error: BaseException, verdicts: dict[Flight, Verdict]) -> None:
        """The loader raised this, and a tier has found what is to become of it; `fail` is next."""
        self._judged = error, verdicts

    def fail(self, error: BaseException, overdue: bool = False) -> BaseException | None:
        """Nothing more is loaded: those it was called for end with the error, the rest with none to share.

        Renewals for which it could not even be called have failed, too: they are tried again after a pause.
        Does nothing to flights that have ended, so that a landing cut short by an interrupt can be mended. An
        error that says that the loader is overdue receives its message once they have ended: that runs the
        keys' `__repr__`.

        Returns an abort of `failure_ttl`, which took the place of the error.
        """
        cache, called = self.cache, self._called or {}
        keys = list((called or self._pending).values())
        rest = uncalled(error)
        endings: list[Ending] = []
        mine = tuple(called)  # in the order of the call
        struck: BaseException | None = None
        known, judged = self._judged
        self._judged = None, {}  # the error leads here
        if known is not error or not mine:  # the loader got no place in line
            judged = {}
        if not all(flight.has_ended() for flight in mine):
            if judged:  # what the tier does not know of is not stored
                others = Verdict(next(iter(judged.values())).error, 0.0)
            else:
                judged[mine[0]] = judge(cache, error)
                others = judged[mine[0]]._replace(fault=None)  # which is logged once
            struck = others.error
            judged = dict.fromkeys(mine, others) | judged
        for flight in (*mine, *(flight for flight in self.flights if flight not in called)):
            if flight.has_ended():  # but perhaps an interrupt struck before its key was free
                endings.append((flight, None, error, flight.started, False, None, [], None))
            else:
                fail(
                    cache,
                    flight,
                    error if flight in called or (flight.background and not called) else rest,
                    endings,
                    verdict=judged.pop(flight, None),
                )
        self._end(endings, (lambda: self._say_overdue(error, keys)) if overdue else None)
        endings.clear()  # a fault of `failure_ttl` leads to this frame
        if isinstance(error, Exception) and any(flight.kind != "shared" for flight in called):  # run here
            with mutex:
                cache.counts.failures += 1
        called.clear()
        self._pending.clear()
        try:
            return None if struck is error else struck
        finally:
            del struck  # or this frame and an exception would keep each other

    def settle(self, error: BaseException, after: After) -> None:
        """The same where there was no room for it. Call under the mutex; may be repeated."""
        rest = uncalled(error)
        mine = self._called or {}
        for flight in self.flights:
            settle_flight(self.cache, flight, error if flight in mine else rest, after)
        self._close(after)

    def never_began(self, work: Work) -> None:
        """The task that was to run the loader could not be made: its flights are no executions."""
        with mutex:
            for flight in self.flights:
                flight.work = work

    def _say_overdue(self, error: BaseException, keys: list[Hashable]) -> None:
        limit = self.cache.options.flight_timeout
        error.args = (f"{self.name}: {listed(keys)} took longer than {limit:g} s: cancelled",)

    def close(self) -> None:
        """All is loaded, or has failed. May be repeated."""
        after = After()
        try:
            with mutex:
                self._close(after)
        finally:
            after.run()

    def _close(self, after: After) -> None:
        self.cache.batches.discard(self)
        self.flights = []  # an exception's traceback leads here, and must not lead back to the exception
        free(self.cache, self._extra, after)  # an interrupt may have struck before it was claimed

    def _lack(self, flight: Flight, endings: list[Ending]) -> None:
        """The loader left its key out: nothing to store, and None for those who wait for it alone."""
        cache = self.cache
        now = cache.timer()
        flight.missing = True
        if flight.renews and not flight.detached:
            renew_later(cache, flight, now, None)
        endings.append((flight, None, None, now, False, None, [], None))

    def _end(self, endings: list[Ending], word: Callable[[], None] | None = None) -> None:
        """End these flights in one section, then open their latches, then word the error, then tell."""
        cache = self.cache
        after = After()
        ended: list[tuple[int, bool] | None] = []
        try:
            with mutex:
                self._note(endings, after)
                for flight, value, error, now, storable, ttl, *_ in endings:
                    ended.append(finish(cache, flight, value, error, now, storable, ttl is not None, after))
        finally:
            after.run()
        if word is not None:
            word()
        for (flight, value, error, now, _, ttl, gone, unstored), counts in zip(endings, ended, strict=True):
            if unstored is not None:
                say_unstored(cache, flight, unstored)
            if error is not None and counts is not None:
                cache.tell.failed(flight, counts, error, now)
            elif flight.wants_events and counts is not None:
                cache.tell.landed(flight, counts, value, now, ttl)
            cache.tell.gone(gone, now)

    def _note(self, endings: list[Ending], after: After) -> None:
        """These are about to end. Called under the mutex."""

    def _raises(self, _struck: BaseException) -> bool:
        """Return True if whoever runs the loader is to receive what one of the values ended with."""
        return True

    def _by_key(self, loaded: Mapping[Any, Any]) -> dict[Hashable, Any]:
        """What the loader returned, by key."""
        key_of = self._call.key_of
        values: dict[Hashable, Any] = {}
        for item, value in loaded.items():
            try:
                values[key_of(item)] = value
            except Exception:
                if all(map(_is_sound, (self._called or {}).values())):
                    raise
                # One of those that it was asked for has been spoilt meanwhile: the others are sound.
        return values

    def _add(self, values: Mapping[Hashable, Any], called: dict[Flight, Hashable]) -> None:
        """Store what nobody asked for."""
        cache = self.cache
        for key, value in values.items():
            try:
                flight = self._claim(key, called)
            except Exception:  # the key's own
                continue
            if flight is not None:
                try:
                    land(cache, flight, _checked(cache.name, flight, key, value))
                except Exception as error:  # of `cache_if` or `ttl` too: nobody asked for it
                    fail(cache, flight, error)
                del called[flight]

    def _claim(self, key: Hashable, called: dict[Flight, Hashable]) -> Flight | None:
        """A flight for a moment, which nobody is counted for; None if the key is not to be touched."""
        cache, like = self.cache, self.flights[0]
        now = cache.timer()
        flight = None
        with mutex:
            slot = cache.locks.slot(key)
            busy = slot is not None and not is_unclaimed(slot.turn)
            if not (busy or self.sealed or key in self.spoiled or like.lost):
                previous = cache.lookup(key)  # first: a key that raises leaves no slot
                self._extra = key
                slot = cache.locks.enter(key)
                flight = new_flight(cache, slot, cache.options.follower_retries)
                call = new_call(Call, key, like.leader, like.thread, like.leader)
                call.wants_events = like.wants_events
                claim(flight, call, now, previous, None)
                disown(flight)
                flight.missing, flight.kind = False, "bulk"
                flight.number = like.number  # as old as the loader's call
                called[flight] = key  # an interrupt finds it there
                occupy(flight)
        return flight

    # -- run by somebody else than its caller --------------------------------------------------------

    def hand_over(self, work: Work, leader: Actor) -> None:
        """From here on this work runs the loader, and the leader's caller waits for all of its flights."""
        first = self.led[0]
        with mutex:
            for flight in self.flights:
                flight.leader, flight.work = leader, work
            first.begin()
            first.before = waits(first.blocks)
            waiting[first.blocks] = (*waiting.get(first.blocks, ()), *self.flights)
            for call in self.led:
                call.decision = NONE

    def renew_in(self, thread: int) -> None:
        """This thread runs the renewals that it was made for: those that are still to be run."""
        begun = {renewal.flight for renewal in self.led if begin_renewal(self.cache, renewal, thread)}
        self._pending = {flight: key for flight, key in self._pending.items() if flight in begun}
        self.flights = list(self._pending)
        self.mark()

    def call_off(self, error: BaseException) -> None:
        """Renewals that an interrupt kept from being begun, or ended, end now."""
        for renewal in self.led:
            flight = renewal.flight
            with mutex:
                if flight.leader == renewal.actor and flight.kind == "refresh":  # nobody has taken it over
                    flight.kind = "bulk"  # the loader was not called: it is no execution
            call_off(self.cache, flight)
            abandon(self.cache, renewal, error)

    def renew_by(self, work: Work, task: Actor) -> None:
        """This task runs the renewals that it was made for."""
        for renewal in self.led:
            entrust_renewal(self.cache, renewal, work, task)
        self.mark()

    def desert(self, error: BaseException) -> None:
        """The leader's caller goes and leaves the flights to their followers; without any they stop."""
        for flight in self.flights:
            if desert(self.cache, flight):
                self.cache.tell.left(flight.key, error, "errors", flight.ident, leads=True)

    def end(self) -> None:
        """The leader's caller does not wait for it any more."""
        for call in self.led:
            done(self.cache, call)
        self.led = []

    def has_work(self) -> bool:
        """Return True if a task runs the loader, which ends the flights whatever becomes of the caller."""
        return any(flight.work is not None for flight in self.flights)

    def settle_desertion(self, flights: list[Flight], after: After) -> None:
        """The same where there was no room for it. Call under the mutex; may be repeated."""
        for flight in flights:
            transitions.desert(self.cache, flight, after)

    def may_stop(self) -> bool:
        """Return True if nobody wants any of it; then all of it is doomed. Called under the mutex."""
        flying = [flight for flight in self.flights if flight.state is FLYING or flight.state is UNSEATED]
        if any(flight.followers or not flight.deserted for flight in flying):
            return False
        for flight in flying:
            doom(flight)
        return True


def _item(name: str, flight: Flight, key: Hashable, brought: tuple[Any, ...]) -> Item:
    """Return what the loader brought for a flight: one value, or none."""
    if not brought:
        return Item(flight, key, present=False)
    try:
        return Item(flight, key, True, _checked(name, flight, key, brought[0]))
    except Exception as error:
        return Item(flight, key, True, error=error)


def _checked(name: str, flight: Flight, key: Hashable, value: Any) -> Any:
    """What the loader brought for a key, if it can be shared."""
    if id(type(value)) not in accepted:
        return landing_value(name, flight, value, how=lambda: f"its loader's value for {shown(key)} is")
    return value


def _has(values: Mapping[Hashable, Any], key: Hashable) -> bool:
    """Return True if a key is there; a spoilt one, which raises, is not."""
    try:
        return key in values
    except Exception:  # the key's own
        return False


def _taken(values: dict[Hashable, Any], key: Hashable) -> tuple[Any, ...]:
    """The value of a key, taken out; nothing where it is not there, or is spoilt and raises."""
    try:  # usually nothing is raised: an interrupt as it is caught may leave an exception in `sys.exc_info`
        return (values.pop(key),) if key in values else ()
    except Exception as error:  # the key's own
        check_room(error)
        return ()


def _found(loaded: Mapping[Any, Any], item: Any) -> tuple[Any, ...]:
    """The value of an item, of which another key is made by now; nothing where it is not there, or raises."""
    try:
        return (loaded[item],) if item in loaded else ()
    except Exception as error:  # the item's own
        check_room(error)
        return ()


def _is_sound(key: Hashable) -> bool:
    """Return True if a key can still be hashed, and is equal to itself."""
    try:
        return key in {key}
    except Exception as error:  # the key's own
        check_room(error)
        return False
