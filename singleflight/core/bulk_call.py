"""Many keys in one call: what a bulk caller does next. No waiting, no user code under a lock.

A bulk call goes: *look* (every fresh value, lock-free); *board* each of the other keys, which hits, leads
or follows; run the loader for what it leads (a `Batch`) and land each key on its own; and only then
*begin* to wait for what it follows. What it comes to lead meanwhile (after a failure, or an abort) it
first gathers in a *sweep*, so that retries travel together.

Why it is built like this:

1. A caller lands everything that it leads before it waits for anything. So {A, B} and {B, C, A} cannot
   block one another, whatever the order, and no wait edge is noted until there is a wait.
2. It follows from the start: it is counted among the followers of every flight that it will need. So a
   failing function runs 1 + follower_retries times for a key, and not once for every bulk caller that is
   still busy with a load of its own.
3. The flights of one loader call that end without a storable value end in one section of the mutex, and
   their latches open after it: whoever follows several of them finds them all, and retries them in one call.
4. An answer holds what is stored, what `cache_if` takes, and what a loader brought for a key it was asked
   for, even if that is refused. What a getter brought and `cache_if` refuses is missing, as is what a loader
   leaves out (`Flight.missing`). It does not matter who leads and who follows.
5. What the loader brings unasked is stored only if nothing has happened to its key since the loader was
   called (`Batch.spoiled`) and nobody is at it: under a flight of its own, made for that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from types import TracebackType
from typing import Any

from ..common.errors import FlightTimeout, UnhashableKey
from ..common.messages import shown
from ..locks.mutex import mutex
from ..locks.table import keys_of
from ..locks.unsettled import After
from ..locks.waitgraph import begin_waiting, cycle, note, waits
from .batch import Batch, uncalled
from .cache import Cache
from .call import HIT, JOIN, LEAD, NONE, SHARE, Call, Decision
from .coordinator import awake, board, may_be_stale, refuse
from .flight import LANDED
from .leaving import abandon, done, leave, settle_call
from .outcome import bare_copy_of

__all__ = ["BulkCall", "Request"]


Failure = tuple[BaseException, TracebackType | None]


class BulkCall:
    """One bulk call on its way. Its own caller's alone.

    Args:
        items: what was asked for, each with its key, in order.
        key_of: the key of an item.
        make: a call for a key, which follows (see `Call.follows`).
        max_batch: how many items the loader takes at once; None for all.
    """

    __slots__ = (
        "_calls",
        "_followed",
        "_items",
        "_key_of",
        "_keys",
        "_make",
        "_served",
        "_todo",
        "cache",
        "failed",
        "led",
        "loading",
        "max_batch",
        "spelt",
        "values",
        "waited",
    )

    def __init__(
        self,
        cache: Cache,
        items: list[tuple[Any, Hashable]],
        key_of: Callable[[Any], Hashable],
        make: Callable[[Hashable], Call],
        max_batch: int | None,
    ) -> None:
        self.cache: Cache = cache
        self._key_of = key_of
        self.max_batch: int | None = max_batch
        self._make = make
        # From here on a key is known by identity: it may be spoilt before the call is over.
        firsts: dict[Hashable, Hashable] = {}
        self._items = [(item, firsts.setdefault(key, key)) for item, key in items]
        self._keys = list(firsts)  # every one once
        self.spelt: dict[int, Any] = {}  # the first spelling of its item
        for item, key in self._items:
            self.spelt.setdefault(id(key), item)
        self.values: dict[int, Any] = {}  # what is found so far
        self.failed: Failure | None = None  # what a joined flight, or a stored failure, fails the call with
        self.waited: float = 0.0  # seconds, in all waits so far
        self.led: list[Call] = []
        self.loading: Batch | None = None  # the last one
        self._served: list[Call] = []  # by values that this caller is to have renewed
        self._todo: list[Hashable] = []  # not boarded yet, the first one last
        self._followed: list[Call] = []
        self._calls: list[Call] = []  # all of them, so that an interrupt finds what they hold

    def key_of(self, item: Any, /) -> Hashable:
        """The key of an item."""
        return self._key_of(item)

    def look(self) -> bool:
        """Make the first check: take every fresh value. Return True if that was all."""
        cache, values = self.cache, self.values
        if cache.tell.watches_hits:
            self._todo.extend(reversed(self._keys))
            return not self._todo
        lookup, now = cache.lookup, cache.timer()
        count = getattr(cache.counts, "hit", None)
        for key in self._keys:
            record = lookup(key)
            # As in the compiled calls, no call may stand between the comparison and the addition.
            if record is not None and now < record.deadline:
                record.hits += 1
                if count is not None:
                    count()
                values[id(key)] = record.value
                if cache.tells_hits:
                    cache.used(record)
            else:
                self._todo.append(key)
        self._todo.reverse()
        return not self._todo

    def board(self) -> None:
        """Hit, lead or follow each of the other keys; waits for nothing."""
        while self._todo and self.failed is None:
            call = self._make(self._todo[-1])
            self._calls.append(call)
            self._todo.pop()
            self.take(call, board(self.cache, call))

    def take(self, call: Call, decision: Decision) -> None:
        """Note what was decided for a key."""
        while decision is NONE:  # its flight was detached and had no outcome to share
            decision = board(self.cache, call, soft=False)
        if decision is HIT:
            record = call.record
            if call.renewal is not None:
                self._served.append(call)
            if record.error is not None:
                self.failed = bare_copy_of(record.error), None
            else:
                self.values[id(call.key)] = record.value
            if call.served == "wait" and call.wants_events:
                self.cache.tell.shared_record(record, self.cache.timer(), self.waited)
        elif decision is JOIN:
            self._followed.append(call)
            if call.renewal is not None:
                self._served.append(call)
        elif decision is LEAD:
            self.led.append(call)
        elif decision is SHARE:
            flight = call.flight
            if call.wants_events:
                self.cache.tell.shared(flight, self.cache.timer(), self.waited)
            if flight.error is not None:
                self.failed = flight.error, flight.traceback
            elif not flight.missing:
                self.values[id(call.key)] = flight.value

    def sweep(self) -> Call | None:
        """Take what was decided meanwhile, and lead what can be led, without waiting.

        Returns a follower that is to wait, or None where there is something else to do.
        """
        followed, self._followed = self._followed, []
        for call in followed:
            call.flight.see_to()  # one that takes too long loses its keys all at once
            if self.failed is None and call.flight.has_opened(call.latch):
                self.take(call, awake(self.cache, call))
            else:
                self._followed.append(call)
        if self.failed is not None or self.led or not self._followed:
            return None
        return self._followed[0]

    def begin(self, call: Call) -> bool:
        """One that follows begins to wait; False if there is nothing to wait for any more.

        Raises `FlightDeadlock` if waiting would never end; it has left then.
        """
        cache = self.cache
        found = None
        with mutex:
            flight = call.flight.latest()
            waits_for = False
            if flight is not None and flight.state is not LANDED and not flight.may_be_claimed():
                waits_for = True
                call.begin()
                bounded = cache.options.wait_timeout is not None
                found = keys_of(cycle(call, flight, bounded), flight)
                if found is None:
                    call.flight, call.latch = flight, flight.open_later()
                    call.before = waits(call.blocks)
                    begin_waiting(call.blocks, flight)
                    call.stand_at(call.latch, cache, flight)
                    if call.awaited_outside:
                        note(call, call.climb())
        if found is None:
            return waits_for
        flight = None  # it may come to hold this very error
        if may_be_stale(cache, call):
            if leave(cache, call, timed_out=None):
                self._followed.remove(call)
                self.take(call, board(cache, call, soft=False))
            return False
        if leave(cache, call, timed_out=False):
            refuse(cache, call.key, found)
        return False

    def has_waited(self, call: Call, decision: Decision, waited: float) -> None:
        """A wait is over, and this is what came of it."""
        self.waited = waited
        self._followed.remove(call)
        self.take(call, decision)

    def batch(self) -> Batch:
        """What it leads now is to be loaded."""
        led, self.led = self.led, []
        self.loading = Batch(self.cache, led, self, self.values)
        self.loading.mark()
        return self.loading

    def lone(self) -> tuple[Call, Any] | None:
        """The only key that it was asked for, which it leads, and its item; None if there are more.

        A window has it from then on, and whoever goes leaves it to that.
        """
        if len(self._keys) > 1:
            return None
        (call,), self.led = self.led, []
        return call, self.spelt[id(call.key)]

    def gathered(self, call: Call, decision: Decision, value: Any) -> None:
        """Its only key was loaded together with those of others, or (NONE) is to be boarded anew."""
        if decision is NONE:
            self.take(call, board(self.cache, call, soft=False))
        elif not call.flight.missing:
            self.values[id(call.key)] = value

    def renewal(self) -> Batch | None:
        """What it was served and is to have renewed, in one batch that it does not wait for."""
        renewals = [call.renewal for call in self._served if call.renewal is not None]
        return Batch(self.cache, renewals, self, {}) if renewals else None

    def handed_over(self) -> None:
        """Somebody sees to the renewals: until then `done` does."""
        for call in self._served:
            call.renewal = None

    def answer(self) -> dict[Any, Any]:
        """Every item that has a value, as its caller spelt it, in the order asked."""
        values, copy = self.values, self.cache.copy
        if copy is not None:
            return {item: copy(values[id(key)]) for item, key in self._items if id(key) in values}
        return {item: values[id(key)] for item, key in self._items if id(key) in values}

    def give_up(self, error: BaseException) -> None:
        """The call ends with an exception: whatever it still holds is given up. May be repeated.

        What its loader raised has ended the flights of that batch already: what it still leads was never
        called for.
        """
        cache = self.cache
        timed_out = isinstance(error, FlightTimeout)
        ends_with = uncalled(error)
        self._mark_uncalled()
        todo, counted = self._todo, "timeouts" if timed_out else "errors"
        if todo:
            with mutex:
                self._count_the_rest(timed_out)
            for key in todo:
                cache.tell.left(key, error, counted)
        if self.led:
            self.batch().fail(error)
        for call in self._calls:
            if call.decision is JOIN and timed_out and leave(cache, call, timed_out=True):
                cache.tell.left(call.key, error, counted, call.flight.ident)
            abandon(cache, call, ends_with, error)
            done(cache, call)  # here too, where it is repeated: it may have a renewal to call off

    def settle(self, error: BaseException, after: After) -> None:
        """The same where there was no room for it. Call under the mutex; may be repeated."""
        self._count_the_rest(isinstance(error, FlightTimeout))
        self._mark_uncalled()
        if self.loading is not None and not self.loading.has_work():
            self.loading.settle(error, after)
        for call in self._calls:
            settle_call(self.cache, call, None, after)  # its loader was not called for what it still leads
        self._forget()

    def _mark_uncalled(self) -> None:
        """What it leads and has not begun to load is no execution."""
        for call in self._calls:
            if call.decision is LEAD and call.flight.kind == "call":
                call.flight.kind = "bulk"

    def _count_the_rest(self, timed_out: bool) -> None:
        left, self._todo = len(self._todo), []
        if timed_out:
            self.cache.counts.timeouts += left
        else:
            self.cache.counts.errors += left

    def done(self) -> None:
        """The call is over, in whatever way. (Tracebacks must not lead back to their exceptions.)"""
        for call in self._calls:
            done(self.cache, call)
        self._forget()

    def _forget(self) -> None:
        self._calls, self._followed, self._served, self.led = [], [], [], []
        self.failed = self.loading = None


class Request:
    """What a bulk call asks for, and how.

    Args:
        items: as they were passed.
        name: what errors call them.
        key_of: the key of an item.
        run: calls the loader with a list of items.
        max_batch: how many items the loader takes at once; None for all.
    """

    __slots__ = ("_key_of", "_max_batch", "_name", "cache", "gathers", "items", "run")
    cache: Cache
    items: list[Any]
    run: Callable[[Any], Any]

    def __init__(
        self,
        cache: Cache,
        items: Any,
        name: str,
        key_of: Callable[[Any], Hashable],
        run: Callable[[Any], Any],
        max_batch: int | None,
    ) -> None:
        self.cache, self.items, self.run = cache, items, run
        self._name, self._key_of, self._max_batch = name, key_of, max_batch
        # Where calls for one key are gathered: what an item's is part of (see `gathering`), and its `Load`.
        self.gathers: tuple[Callable[[Any], Any], Callable[[], Any]] | None = None

    @property
    def key_of(self) -> Callable[[Any], Hashable]:
        """The key of an item."""
        return self._key_of

    def bulk_call(self, make: Callable[[Hashable], Call]) -> BulkCall:
        """The call, with all its keys; raises what is wrong with the items, and nothing has changed."""
        keyed = []
        self.items = self._listed()
        for place, item in enumerate(self.items):
            try:
                hash(item)
            except TypeError:
                kind = type(item).__name__
                raise UnhashableKey(
                    f"{self.cache.name}: argument '{self._name}[{place}]' cannot be hashed ({kind}), so it "
                    f"cannot have a place in the answer"
                ) from None
            keyed.append((item, self._key_of(item)))
        if self.cache.rule.typed and len({item for item, _ in keyed}) < len({key for _, key in keyed}):
            raise TypeError(
                f"{self.cache.name}: {self._name}: equal items of different types have one place in the "
                f"answer, and with typed=True a value each; ask for them in separate calls"
            )
        return BulkCall(self.cache, keyed, self._key_of, make, self._max_batch)

    def chunks(self) -> list[list[Any]] | None:
        """For a direct call: the items in parts that the loader can take; None for all, as they are."""
        size = self._max_batch
        if size is None:
            return None
        items = self._listed()
        return [items[start : start + size] for start in range(0, len(items), size)]

    def _listed(self) -> list[Any]:
        """The items, read once; a string is no collection of them."""
        items = self.items
        if isinstance(items, (str, bytes, bytearray)) or not isinstance(items, Iterable):
            raise TypeError(f"{self._name}: expected several, as in a list, got {shown(items)}")
        return list(items)
