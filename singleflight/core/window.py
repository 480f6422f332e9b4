"""A window: single calls that miss within some seconds of each other, and the loader call for all of them.

Each of them has claimed the flight of its own key, as always, and hands it to the window; so callers of the
same key follow it, and rule 1 of the coordinator holds. A window goes:

    unclaimed    only renewals are in it: no caller waits, and a thread of the pool is to run it
    claimed      somebody runs it: waits until it closes, then calls the loader. Others may join
    closed       no more join: its time is over, or it is full. It is a batch like any other from here on

Why it is built like this:

1. Who opens a window runs it, on the own thread, or in a task that outlives its caller. So there is one timer
   for each window. Whoever comes first to an unclaimed one runs that.
2. A member waits for its own flight, which the runner leads from then on: that is the edge in the wait-for
   graph. So a cycle over a window is found as any other. Who would close one by waiting runs alone instead.
3. A member is its flight's caller, and not a follower: it gets what its flight ends with at once, also an
   error that the followers do not share but try again after.
4. Where the runner ends before the loader does (an interrupt, a cancellation, a loop or thread that is
   gone), the flights end without an outcome and the members call anew: none hangs because another one went.
5. The loader may be called for a part, where another process loads the rest. If it fails, the others call
   anew. The runner, if it is one of them, does so alone: a window may not fail it for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Any, Protocol

from ..common.errors import FlightTimeout
from ..common.messages import shown
from ..locks.latch import LOOK, LOOK_AGAIN, Latch
from ..locks.lives import life_of_this_thread
from ..locks.mutex import mutex
from ..locks.table import keys_of
from ..locks.unsettled import After, settle, unsettled
from ..locks.waiters import Actor
from ..locks.waitgraph import begin_waiting, below, cycle, note, waiting, waits
from . import transitions
from .batch import Batch, Uncalled
from .cache import Cache
from .call import JOIN, LEAD, NONE, SHARE, Call, Decision
from .coordinator import refuse
from .delays import set_out
from .flight import FLYING, UNSEATED, Flight, Work
from .landing import Ending, call_off
from .leaving import desert, end_wait
from .outcome import raise_shared, traceback_of
from .transitions import doom, is_unshared, spare

__all__ = ["Load", "Stay", "Window"]

Outcome = tuple[Any, BaseException | None, TracebackType | None]


class Load:
    """How the loader is called for one window.

    Args:
        key_of: the key of an item.
        run: calls the loader with a list of items.
        gather: for how many seconds the window is open.
        max_batch: how many items the loader takes at once; None for all.
    """

    __slots__ = ("_key_of", "gather", "max_batch", "run", "spelt")
    gather: float
    max_batch: int | None
    run: Callable[[list[Any]], Any]

    def __init__(
        self,
        key_of: Callable[[Any], Hashable],
        run: Callable[[list[Any]], Any],
        gather: float,
        max_batch: int | None,
    ) -> None:
        self._key_of, self.run = key_of, run
        self.gather, self.max_batch = gather, max_batch
        self.spelt: dict[int, Any] = {}  # see `batch.Asks`

    def key_of(self, item: Any, /) -> Hashable:
        """The key of an item."""
        return self._key_of(item)


class Registry(Protocol):
    """Where a window is found by those who may join it; `Gathering` is one."""

    def claimed(self, window: Window, call: Call, /) -> None:
        """This call's driver runs it from now on. Called under the mutex."""
        ...

    def forget(self, window: Window, /) -> None:
        """Nobody is to join this one any more. Called under the mutex; may be repeated."""
        ...

    def ended(self, window: Window, /) -> None:
        """It has ended. Called under the mutex; may be repeated."""
        ...


class Window(Batch):
    """A batch that others may join until it closes. Its own fields are guarded by the mutex.

    Args:
        alone: it takes nobody in, and closes at once.
    """

    __slots__ = (
        *(
            "_alone",
            "_keys",
            "_load",
            "_outcomes",
            "_overdue",
            "_registry",
            "_skips_own",
            "closes_at",
            "depth",
            "full",
            "group",
            "is_open",
        ),
        *("latch", "leader", "life", "opener", "own", "thread", "work"),
    )
    group: Hashable
    flights: list[Flight]
    renews: bool

    def __init__(self, cache: Cache, registry: Registry, group: Hashable, load: Load, alone: bool) -> None:
        super().__init__(cache, [], load, {})
        self._registry, self.group = registry, group
        self._load = load
        self._keys: set[Hashable] = set()  # also keeps them, which `spelt` knows by identity
        self._outcomes: dict[Flight, Outcome] = {}  # for members; taken by each
        # Those that ended with an Exception that says nothing about their keys, and those that were stopped
        # for taking too long. That need not be all: the loader may be called for a part at a time.
        self._alone: set[Flight] = set()
        self._overdue: set[Flight] = set()
        self._skips_own: bool = False  # whether the loader failed for others, before it came to its opener's
        self.closes_at: float = time.monotonic() + (0.0 if alone else load.gather)
        self.full: Latch = Latch()  # opens early where it is full; its runner waits there
        self.latch: Latch = Latch()  # opens when some or all of its flights end; its members wait there
        self.is_open: bool = not alone
        # Who runs it: see `Turn`. None: nobody yet.
        self.leader: Actor | None = None
        self.thread: Actor | None = None
        self.life: Callable[[], object] | None = None
        self.depth: int = 0
        self.work: Work | None = None
        self.opener: Call | None = None  # the call whose driver runs it
        self.own: Flight | None = None  # that call's flight

    # -- under the mutex ------------------------------------------------------------------------------

    def claim(self, call: Call) -> list[Flight]:
        """This call's driver runs it from now on. Returns the renewals that are not to be run any more."""
        self.opener = call  # first: an interrupt finds whose it is
        self._registry.claimed(self, call)
        flight = call.flight if call.decision is LEAD else None
        gone = [other for other in self.flights if other is not flight and not _is_wanted(other)]
        for other in gone:
            self._pending.pop(other, None)
        self.flights = [other for other in self.flights if other in self._pending]
        self.own = flight
        self.thread, self.life = call.thread, life_of_this_thread()
        self.depth = waits(call.thread)
        self._let_run(call.actor)
        return gone

    def _let_run(self, leader: Actor) -> None:
        self.leader = leader
        for flight in self.flights:
            self._entrust(flight)

    def _entrust(self, flight: Flight) -> None:
        # No call from here on: an interrupt finds it led by its caller, or by the runner.
        flight.thread, flight.life, flight.depth, flight.work = self.thread, self.life, self.depth, self.work
        flight.unbegun = False
        flight.leader = self.leader

    def add(self, call: Call, item: Any, joins: bool = False) -> None:
        """This call's flight is loaded too; with `joins` its caller becomes a member."""
        flight, key = call.flight, call.key
        limit = self.cache.options.flight_timeout
        self.renews = self.renews or call.renew
        flight.kind, flight.missing = "bulk", False
        flight.due = None if limit is None else self.closes_at + limit
        self._keys.add(key)
        self._load.spelt[id(key)] = item
        if flight not in self._pending:
            self.flights.append(flight)
        # No call from here on: an interrupt finds its caller leading it, or as a member that may go.
        self._pending[flight] = key
        if joins:
            call.decision = NONE
        if self.leader is not None:
            self._entrust(flight)
        else:
            flight.unbegun = True  # a renewal that waits for a thread, though it may be a task's

    def is_full(self) -> bool:
        """Return True if the loader takes no more at once; it closes then."""
        most = self._load.max_batch
        full = self.is_open and most is not None and len(self._pending) >= most
        if full:
            self.shut()
        return full

    def shut(self) -> None:
        """Nobody joins it any more. May be repeated."""
        self.is_open = False
        self._registry.forget(self)

    def is_fit(self, key: Hashable) -> bool:
        """Return True if it will end, and has no older flight of this key (one that was detached)."""
        try:
            return not self.is_dead() and key not in self._keys
        except Exception:  # the key's own
            return False

    def has(self, flight: Flight) -> bool:
        """Return True if this very flight is in it."""
        return flight in self._pending

    def call_with(self, load: Load) -> None:
        """Call the loader in this way instead, for all that is in it."""
        load.spelt = self._load.spelt
        self._load = self._call = load

    def may_wait(self, call: Call) -> bool:
        """Return True if this call can wait for the runner: that closes no cycle."""
        led = next((flight for flight in self.flights if flight.state is FLYING), None)
        if led is None:
            return False
        call.begin()
        leader, thread = self.leader, self.thread
        if leader in waiting or thread in waiting or leader in below:
            return cycle(call, led, self.cache.options.wait_timeout is not None) is None
        # The usual case in short, as in `coordinator`.
        return not (leader == call.blocks or thread == call.blocks or call.is_below(led))

    def take_in(self, call: Call, item: Any) -> None:
        """The call is a member: its flight is the runner's, and it waits until that has ended."""
        call.latch = self.latch
        call.stand_at(self.latch, self)
        call.before = waits(call.blocks)
        begin_waiting(call.blocks, call.flight)
        if call.awaited_outside:
            note(call, call.climb())
        self.add(call, item, joins=True)

    def is_dead(self) -> bool:
        """Return True if whoever runs it will never go on."""
        if self.work is not None:
            return self.work.is_dead()
        return self.life is not None and self.life() is None

    def may_stop(self) -> bool:
        """Return True if nobody wants any of it; then all of it is doomed."""
        stops = super().may_stop()
        if stops:
            self.shut()
        return stops

    # -- its runner -----------------------------------------------------------------------------------

    @property
    def run(self) -> Callable[[list[Any]], Any]:
        """Calls the loader with a list of items."""
        return self._load.run

    def left(self) -> float:
        """Return for how many seconds it is open."""
        return max(0.0, self.closes_at - time.monotonic()) if self.is_open else 0.0

    def let_run_by(self, work: Work, task: Actor) -> None:
        """From here on this task runs it, whatever becomes of its caller."""
        with mutex:
            self.work = work
            self._let_run(task)

    def wait_as_opener(self, call: Call) -> None:
        """The caller of the task that runs it waits for its own flight."""
        with mutex:
            call.begin()
            call.before = waits(call.blocks)
            begin_waiting(call.blocks, call.flight)
            call.decision = NONE

    def send_off(self) -> None:
        """Its time is over: what is still wanted is about to be loaded."""
        with mutex:
            self.shut()
            gone = [flight for flight in self.flights if _is_over(flight)]
            for flight in gone:
                self._pending.pop(flight, None)
            self.flights = [flight for flight in self.flights if flight in self._pending]
            for flight in gone:
                if not flight.has_ended():
                    doom(flight)
        self._end([_aborted(flight, Uncalled("nobody wants it")) for flight in gone])
        if self.cache.line is None and self.flights:
            set_out(self.cache, self.flights, self.cache.time_or(self.flights[0].started))

    def drop(self, gone: list[Flight]) -> None:
        """These were to be renewed, and are not."""
        for flight in gone:
            call_off(self.cache, flight)

    def fail(self, error: BaseException, overdue: bool = False) -> BaseException | None:
        """As any batch, but that nobody is to join it meanwhile."""
        with mutex:
            self.shut()
        return super().fail(error, overdue)

    def give_up(self, error: BaseException) -> None:
        """Its runner could not: its members call anew. May be repeated."""
        if self.flights:
            self.fail(error)
        self.close()

    # -- its end --------------------------------------------------------------------------------------

    def _note(self, endings: list[Ending], after: After) -> None:
        # Without a limit they were given up because nobody seemed to be left to end them.
        limited = self.cache.options.flight_timeout is not None
        unseated = limited and any(flight.state is UNSEATED for flight, *_ in endings)
        # The loader was called for some of them, and failed.
        failing = any(not flight.has_ended() for flight in self._called or ())
        for flight, value, error, *_ in endings:
            if flight.has_ended():
                continue
            unshared = error is not None and is_unshared(error)
            if unshared:
                self._skips_own |= flight is self.own and failing and isinstance(error, Uncalled)
                if isinstance(error, Exception) or (flight is self.own and self._skips_own):
                    self._alone.add(flight)
                if unseated and isinstance(error, FlightTimeout):
                    self._overdue.add(flight)
                else:
                    self._spare(flight)
            own = flight is self.own and isinstance(error, Exception)  # which is its opener's, who led it
            if (own or not unshared) and not (flight.deserted or flight.background):
                self._outcomes[flight] = value, error, None if error is None else traceback_of(error)
        latch, ending = self.latch, {flight for flight, *_ in endings}
        if any(not (flight in ending or flight.has_ended()) for flight in self.flights):
            self.latch = Latch()  # for those whose flights go on: a part was loaded, or came from elsewhere
        after.append(latch.open)

    def _spare(self, flight: Flight) -> None:
        """It ends without an outcome: its caller calls anew, and is counted then."""
        if flight is not self.own or self._skips_own:
            spare(self.cache, flight)

    def _raises(self, struck: BaseException) -> bool:
        return not isinstance(struck, Exception)  # each member receives its own

    def settle(self, error: BaseException, after: After) -> None:
        """As `give_up`, where there was no room for it. Call under the mutex; may be repeated."""
        for flight in self.flights:
            if not flight.has_ended():
                self._spare(flight)
        super().settle(error, after)

    def _close(self, after: After) -> None:
        super()._close(after)
        self.is_open = False
        self._registry.ended(self)
        self.opener = None
        after.append(self.latch.open)

    # -- its members ----------------------------------------------------------------------------------

    def has_outcome(self, flight: Flight) -> bool:
        """Return True if there is something to take for a flight."""
        return flight in self._outcomes and flight.has_ended()

    def is_unshared(self, flight: Flight) -> bool:
        """Return True if its error says nothing about its key: the next call of it is not gathered."""
        return flight in self._alone

    def is_overdue(self, flight: Flight) -> bool:
        """Return True if it was stopped for taking too long: its callers receive that, and are counted."""
        return flight in self._overdue

    def skips(self, call: Call) -> bool:
        """Return True if its opener calls anew: the loader has failed for what others asked for."""
        if self._skips_own:
            end_wait(call)
            call.decision = NONE
        return self._skips_own

    def error_of(self, flight: Flight) -> BaseException | None:
        """Return what a flight failed with, if it did."""
        outcome = self._outcomes.get(flight)
        return None if outcome is None else outcome[1]

    def forget(self, flight: Flight | None) -> None:
        """Nobody is going to take what there is for a flight."""
        if flight is not None:
            self._outcomes.pop(flight, None)

    def take(self, flight: Flight) -> Any:
        """Return the value of a member's flight, or raise its error, or a copy of it."""
        value, error, traceback = self._outcomes.pop(flight)
        if error is not None:
            try:
                raise_shared(error, traceback and (traceback.tb_next or traceback))
            finally:
                del error, traceback  # or this frame and the exception would keep each other
        return value

    def stand_again(self, call: Call) -> bool:
        """A member whose latch has opened waits at the next one, if its flight goes on; else False."""
        with mutex:
            goes_on = bool(self.flights) and not call.flight.has_ended()
            if goes_on:
                call.latch = self.latch
                call.stand_at(call.latch, self)
        return goes_on

    def part_with(self, call: Call, error: BaseException) -> None:
        """A member's call ends with an exception."""
        flight = call.flight
        if flight is not None:
            if desert(self.cache, flight):
                self.cache.tell.left(flight.key, error, "errors", flight.ident, leads=True)
            self._outcomes.pop(flight, None)

    def settle_member(self, call: Call, after: After) -> None:
        """The same where there was no room for it. Call under the mutex; may be repeated."""
        flight = call.flight
        if flight is not None:
            transitions.desert(self.cache, flight, after)
            self._outcomes.pop(flight, None)

    def watch(self, _watched: Any) -> float | None:
        """Look on behalf of the members that are tasks of one loop; see `coordinator.watch`."""
        flight = next((flight for flight in self.flights if flight.state is FLYING), None)
        if flight is None:
            return None
        if flight.is_due():
            for each in self.flights:
                each.see_to()
            return None
        return _until_due(flight)


class Stay:
    """The wait of a member, as `Wait` is that of a follower. Its own caller's alone."""

    __slots__ = ("_call", "_window", "began")

    def __init__(self, window: Window, call: Call) -> None:
        self._window, self._call = window, call
        self.began: float = time.monotonic()

    def pauses(self) -> tuple[float, float | None]:
        """For how many seconds it may wait before somebody looks, and before it looks itself."""
        limit = self._window.cache.options.wait_timeout
        pause, own_pause = _until_due(self._call.flight), None
        if self._call.awaited_outside:
            own_pause = LOOK_AGAIN
        if limit is not None:
            own_pause = min(own_pause or LOOK, max(0.0, self.began + limit - time.monotonic()))
        return pause, own_pause

    def pause(self) -> float:
        """For how many seconds a thread may wait, which always looks itself."""
        pause, own_pause = self.pauses()
        return pause if own_pause is None else min(pause, own_pause)

    def woken(self, opened: bool) -> Decision:
        """What to do now. SHARE: take what there is; NONE: call anew; JOIN: wait on.

        Raises `FlightTimeout` or `FlightDeadlock`; it has left then.
        """
        if unsettled:
            settle()
        call, cache = self._call, self._window.cache
        flight: Flight = call.flight
        decision = self._over(flight)
        if decision is JOIN and opened:
            opened = not self._window.stand_again(call)
            decision = self._over(flight)
        elif decision is JOIN:
            flight.see_to()
            decision = self._over(flight)
        overdue = decision is NONE and self._window.is_overdue(flight)
        if decision is JOIN and (opened or flight.state is UNSEATED):
            overdue = not opened and flight.due is not None and time.monotonic() >= flight.due
            overdue = desert(cache, flight, timed_out=True if overdue else None) and overdue
            if overdue:  # otherwise its landing tells that
                cache.tell.timed_out(call.key, time.monotonic() - self.began)
            decision = self._over(flight, NONE)
        elif decision is JOIN:
            decision = self._look(flight)
        if decision is not JOIN:
            end_wait(call)
        if decision is SHARE and cache.tell.around:
            cache.tell.gathered(flight)
        if overdue:
            limit = cache.options.flight_timeout
            raise FlightTimeout(f"{cache.name}: {shown(call.key)} took longer than {limit:g} s")
        return decision

    def _over(self, flight: Flight, otherwise: Decision = JOIN) -> Decision:
        if not flight.has_ended():
            return otherwise
        return SHARE if self._window.has_outcome(flight) else NONE

    def _look(self, flight: Flight) -> Decision:
        """Look whether to go on waiting."""
        call, cache = self._call, self._window.cache
        limit, waited = cache.options.wait_timeout, time.monotonic() - self.began
        if limit is not None and waited >= limit:
            if not desert(cache, flight, timed_out=True):
                return self._over(flight)
            cache.tell.timed_out(call.key, waited)
            raise FlightTimeout(f"{cache.name}: waited {waited:.3g} s for {shown(call.key)}")
        if call.awaited_outside:
            with mutex:
                call.look_again()
                note(call, call.climb())
                found = keys_of(cycle(call, flight, limit is not None), flight)
            if found is not None and desert(cache, flight):
                refuse(cache, call.key, found)
        return JOIN


def _is_wanted(flight: Flight) -> bool:
    """Return True if a renewal that waits for somebody to run it is to be run."""
    return flight.unbegun and flight.state is FLYING and not flight.detached


def _is_over(flight: Flight) -> bool:
    """Return True if nobody wants what the loader would bring."""
    return flight.has_ended() or (flight.deserted and not flight.followers)


def _until_due(flight: Flight) -> float:
    if flight.due is None or flight.state is not FLYING:
        return LOOK
    return min(LOOK, max(0.0, flight.due - time.monotonic()))


def _aborted(flight: Flight, error: BaseException) -> Ending:
    return flight, None, error, flight.started, False, None, [], None
