"""The tier of one decorated function: how a thread and a task lead its flights, and what is told to others.

The two small loops `lead` and `lead_in_task` carry out what a `Passage` asks.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Hashable, Sequence
from functools import partial
from typing import Any

from ..common.keys import plain
from ..core.batch import Batch
from ..core.cache import Cache
from ..core.controls import cut, detach_flight, drop_here
from ..core.flight import Flight
from ..core.landing import Arrival, fail, land, postpone
from ..fleet import claims
from ..fleet.drops import Drop
from ..fleet.keybytes import key_bytes
from ..fleet.mailboxes import Mailbox
from ..fleet.serializers import Codec
from ..locks.mutex import inside, inside_other, mutex
from ..locks.waiters import running_loop
from ..storage.record import Record
from ..telemetry.views import FleetExplanation
from . import scripts
from .bus import Bell, TaskBell
from .clients import Trouble, raise_trouble
from .convoy import Convoy
from .entries import Brought, Entries, Terms, mark_of
from .link import Link
from .passage import LISTEN, Passage, leading

__all__ = ["SharedFunction"]

Steps = Generator[Any, Any, Any]
Asking = Generator[list[scripts.Call], list[Any], Any]


class SharedFunction(Entries):
    """The tier of one function.

    Args:
        identity: what the function is, whatever object stands for it.
    """

    def __init__(
        self,
        link: Link,
        cache: Cache,
        terms: Terms,
        codec: Codec,
        version: str | int | None,
        identity: str,
    ) -> None:
        super().__init__(link, cache, terms, codec, version)
        self.identity = identity
        link.add(self)

    def is_again(self, other: Any) -> bool:
        """Return True if the other one is this function, defined once more (a reload, a notebook's cell)."""
        return bool(self.identity == other.identity)

    # -- flights ------------------------------------------------------------------------------------

    def lead(self, flight: Flight, execute: Callable[[], Any]) -> Any:
        """Land a flight of a thread and return its value; raise what it is to end with."""
        if self.link.is_away():
            return self._lead_alone(flight, execute)
        bell = Bell()
        passage = Passage(self, flight, Mailbox(bell.ring))
        brought = self._drive(passage.steps(), bell, (passage,), execute)
        try:
            return self._land(flight, brought)
        finally:
            del flight, passage, brought, execute  # an exception that callers receive leads to this frame

    async def lead_in_task(self, flight: Flight, execute: Callable[[], Awaitable[Any]]) -> Any:
        """Do the same in the task that runs the flight."""
        if self.link.is_away():
            return await self._lead_alone_in_task(flight, execute)
        bell = TaskBell()
        passage = Passage(self, flight, Mailbox(bell.ring))
        brought = await self._drive_in_task(passage.steps(), bell, (passage,), execute)
        try:
            return self._land(flight, brought)
        finally:
            del flight, passage, brought, execute  # an exception that callers receive leads to this frame

    def _lead_alone(self, flight: Flight, execute: Callable[[], Any]) -> Any:
        """Land a flight of a thread without the server: it is neither asked nor told."""
        named = self.set_out_alone(flight)
        failed: Brought | None = None
        value: Any = None
        arrival: Arrival | None = None
        try:
            self.alone[flight] = named
            value = execute()
            arrival = self.arrival_of(flight, value, named)
        except Exception as error:
            failed = self.failed(flight, error, named)
        finally:
            self.alone.pop(flight, None)
        try:
            if failed is not None:
                return self._land(flight, failed)
            land(self.cache, flight, value, arrival=arrival)
            return value
        finally:
            del flight, execute, failed  # an exception that callers receive leads to this frame

    async def _lead_alone_in_task(self, flight: Flight, execute: Callable[[], Awaitable[Any]]) -> Any:
        """Do the same in the task that runs the flight."""
        named = self.set_out_alone(flight)
        failed: Brought | None = None
        value: Any = None
        arrival: Arrival | None = None
        try:
            self.alone[flight] = named
            value = await execute()
            arrival = self.arrival_of(flight, value, named)
        except Exception as error:
            failed = self.failed(flight, error, named)
        finally:
            self.alone.pop(flight, None)
        try:
            if failed is not None:
                return self._land(flight, failed)
            land(self.cache, flight, value, arrival=arrival)
            return value
        finally:
            del flight, execute, failed  # an exception that callers receive leads to this frame

    def load(self, batch: Batch, execute: Callable[[list[Any]], Any]) -> None:
        """Load the flights of a thread's bulk call, each here or by another process, and land them."""
        bell = Bell()
        convoy = Convoy(self, batch, bell.ring)
        self._drive(convoy.steps(), bell, convoy.loading, execute)

    async def load_in_task(self, batch: Batch, execute: Callable[[list[Any]], Awaitable[Any]]) -> None:
        """Do the same in the task that runs the loader."""
        bell = TaskBell()
        convoy = Convoy(self, batch, bell.ring)
        try:
            await self._drive_in_task(convoy.steps(), bell, convoy.loading, execute)
        finally:
            del batch, convoy, execute

    def _drive(self, steps: Steps, bell: Bell, runs: Sequence[Passage], execute: Callable[..., Any]) -> Any:
        """Carry out what a generator asks, in a thread. `runs` are the flights that the function runs for."""
        came: Any = None
        try:
            while True:
                todo = steps.send(came)
                try:
                    if type(todo) is list:
                        came = self.link.clients.call_all(todo), None
                    elif type(todo) is float:
                        came = bell.wait(todo), None
                    elif todo is LISTEN:
                        came = self.link.bus.ready(self.link.timeout), None
                    else:
                        inside_of = leading.set((*leading.get(), *runs))
                        try:
                            came = execute(*todo), None
                        finally:
                            leading.reset(inside_of)
                except BaseException as raised:
                    came = None, raised
        except StopIteration as ended:
            return ended.value
        finally:
            steps.close()
            del came

    async def _drive_in_task(
        self, steps: Steps, bell: TaskBell, runs: Sequence[Passage], execute: Callable[..., Any]
    ) -> Any:
        """The same in a task."""
        came: Any = None
        try:
            while True:
                todo = steps.send(came)
                try:
                    if type(todo) is list:
                        came = await self.link.clients.acall_all(todo), None
                    elif type(todo) is float:
                        came = await bell.wait(todo), None
                    elif todo is LISTEN:
                        came = await self.link.bus.aready(self.link.timeout), None
                    else:
                        inside_of = leading.set((*leading.get(), *runs))
                        try:
                            came = await execute(*todo), None
                        finally:
                            leading.reset(inside_of)
                except BaseException as raised:
                    came = None, raised
        except StopIteration as ended:
            return ended.value
        finally:
            steps.close()
            del came, steps, runs, execute  # an exception that callers receive leads to this frame

    def _land(self, flight: Flight, brought: Brought | None) -> Any:
        """Land a flight with what came for it, and return its value; raise what it is to end with."""
        cache = self.cache
        if brought is None:
            postpone(cache, flight, 1.0)
            return None
        error, verdict = brought.error, brought.verdict
        if error is None:
            land(cache, flight, brought.value, arrival=brought.arrival)
            return brought.value
        try:
            if verdict is not None:
                fail(cache, flight, error, verdict=verdict)
            raise error
        finally:
            del error, verdict, brought, flight  # or this frame and the exception would keep each other

    def unseated(self, flight: Flight) -> None:
        """A flight has lost its key here: whoever waits for its lease elsewhere is to go on."""
        with self.link.lock:
            passage = self.flying.get(flight)
            step = passage.claim.told_off() if passage is not None and passage.claim.renews else None
        if passage is not None and type(step) is claims.Release:
            passage.hand_over(step)

    def leader_of(self, flight: Flight) -> str | None:
        """Return a name for the process that a flight waits for, if it waits for one."""
        passage = self.flying.get(flight)
        return None if passage is None else passage.leader

    def explain(self, key: Hashable) -> Any:
        """Return what the server would answer now; on the thread of an event loop, an awaitable of that."""
        if running_loop() is None:
            return self._explained(key)
        return self._explained_in_task(key)

    def _explained(self, key: Hashable) -> FleetExplanation:
        period, shows = self.link.period(), plain(key)
        if period is not None:
            try:
                return self._explanation(shows, self._carry_out(self._look(key)))
            except Trouble as trouble:
                self.link.failed(trouble, period)
        return FleetExplanation(shows, "degraded")

    async def _explained_in_task(self, key: Hashable) -> FleetExplanation:
        period, shows = self.link.period(), plain(key)
        if period is not None:
            try:
                return self._explanation(shows, await self._carry_out_in_task(self._look(key)))
            except Trouble as trouble:
                self.link.failed(trouble, period)
        return FleetExplanation(shows, "degraded")

    def _carry_out(self, asking: Generator[list[scripts.Call] | float, list[Any], Any]) -> Any:
        """Send what a generator asks, in a thread, and wait where it wants; return what it returns."""
        try:
            todo = next(asking)
            while True:
                if not isinstance(todo, list):
                    time.sleep(todo)
                    todo = next(asking)
                    continue
                try:
                    replies = self.link.clients.call_all(todo)
                except Trouble as lost:
                    todo = asking.throw(lost)
                else:
                    todo = asking.send(replies)
        except StopIteration as ended:
            return ended.value
        finally:
            asking.close()  # an interrupt leads to this frame, and may be kept: what was taken is to be free

    async def _carry_out_in_task(self, asking: Asking) -> Any:
        try:
            calls = next(asking)
            while True:
                calls = asking.send(await self.link.clients.acall_all(calls))
        except StopIteration as ended:
            return ended.value

    def _look(self, key: Hashable) -> Asking:
        self.settle()
        numbers = self.known_numbers()
        if numbers is None:
            replies = yield [self.ask_numbers()]
            raise_trouble(replies)
            numbers = scripts.numbers(replies[0])
        return (yield scripts.looks(self.place_of(key, numbers.epoch), self.version))

    def _explanation(self, key: Hashable, replies: list[Any]) -> FleetExplanation:
        raise_trouble(replies)
        stored, led, leader = scripts.looked(replies)
        if stored > 0:
            return FleetExplanation(key, "shared_hit", stored / 1000)
        if led > 0:
            return FleetExplanation(key, "shared_wait", led / 1000, leader)
        return FleetExplanation(key, "fetch")

    # -- what was changed here ----------------------------------------------------------------------

    def drop(self, key: Hashable) -> Callable[[], None]:
        """A key is about to be invalidated here, and for every process."""
        written = key_bytes(key)
        return partial(self._send, self.link.note("drop", self, self.known_as(written), written))

    def put(self, key: Hashable, record: Record) -> tuple[Record, Callable[[], None]]:
        """A record is about to be put here, and for every process; returned as it is to be kept here.

        Raises `UnportableKey` and `UnportableValue`; nothing has changed then.
        """
        self.settle()
        written = key_bytes(key)
        named = self.known_as(written)
        envelope = self.envelope_of(record.value, record, 0)
        noted = self.link.note("put", self, named, (written, envelope))
        return self.near(record, named, 0), partial(self._send, noted)

    def drop_all(self) -> Callable[[], None]:
        """All keys are about to be invalidated, or some that only this process can name."""
        return partial(self._send, self.link.note("clear", self))

    def cut(self, tags: tuple[str, ...]) -> Callable[[], None]:
        """These tags are about to be invalidated."""
        return partial(self._send, *self.link.note_cut(self, tags))

    def _send(self, *drops: Drop) -> None:
        """Tell the server, or have the keeper do it where nobody may wait."""
        link = self.link
        try:
            period = link.period()
            if period is None:
                return  # they are replayed
            ordered = [each for drop in drops for each in link.in_order(drop)]
            if running_loop() is not None or inside() or inside_other() or any(map(link.is_sending, ordered)):
                self._hand_over(drops)
                return
            try:
                for drop in ordered:
                    self._carry_out(self.sending(drop))
            except Trouble as trouble:
                link.failed(trouble, period)
        except BaseException:  # an interrupt: nobody else would send them
            self._hand_over(drops)
            raise

    def _hand_over(self, drops: Sequence[Drop]) -> None:
        link = self.link
        link.keeper.hand_over(*(order for drop in drops for order in link.orders(drop)))

    # -- what others have changed -------------------------------------------------------------------

    def heard(self, news: scripts.News) -> None:
        """The bus tells of a change by another process."""
        if news.kind == "epoch":
            with self.link.lock:
                is_other = self.numbers.heard_epoch(news.number)
                if self.numbers.now is None:
                    self.link.era += 1  # an answer that is on its way may be older
            if is_other:
                drop_here(self.cache)
        elif news.kind == "new":
            self._renew_soon(mark_of(news.key), news.number)
        else:
            cut(self.cache, (mark_of(news.key),))
            if news.kind == "drop":
                with self.link.lock:
                    flights = [of for of, passage in self.flying.items() if passage.digest == news.key]
                flights += [of for of, named in self.alone.copy().items() if named == news.key]
                for flight in flights:
                    detach_flight(self.cache, flight)

    def _renew_soon(self, mark: str, birth: int) -> None:
        """Another process has stored a newer value: the next read looks for it, unless it is here already.

        News come by a connection of their own, so it may be. Which of two is newer no clock can tell.
        """
        records: list[Any] = self.cache.store.tagged(mark)
        now = self.cache.timer()
        with mutex:
            for record in records:
                if record.place is not None and record.error is None and record.born != birth:
                    record.renew_at(now)

    def forget_near(self) -> None:
        """Messages may have been lost: nothing near is to be served, nor what was asked for before.

        Nobody is to join a flight that runs here: its key may have been dropped. If this process leads it for
        all, its lease has ended then; else the others are to have its value.
        """
        with self.link.lock:
            self.numbers.forget()
            running = [passage for passage in self.flying.values() if passage.claim.runs]
            for passage in running:
                passage.fenced = True
        cut(self.cache, (mark_of(self.digest),))
        for flight in (*(passage.flight for passage in running), *self.alone.copy()):
            detach_flight(self.cache, flight)

    def after_fork(self) -> None:
        """In a forked child: nothing that the parent has under way is its own.

        Nor what is near: it may be dropped before this process listens.
        """
        for passage in self.flying.values():  # where this thread forked in a function: it returns here, too
            passage.claim.forked()
        super().after_fork()
        self.cache.store.discard(self.cache.store.records())
