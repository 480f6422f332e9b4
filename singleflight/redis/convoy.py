"""The flights of one bulk call on their way by the server: claimed, awaited and told of together.

Each is a `Passage` of its own. What they ask at the same time goes in one pipeline, what is to be loaded in
one call of the loader, and what other processes load is awaited last.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any

from ..core.batch import Batch, Item
from ..core.flight import Flight
from ..core.landing import Verdict, judge, postpone
from ..fleet.mailboxes import Mailbox
from .clients import Trouble, replies_of
from .entries import Brought, Entries
from .passage import LISTEN, Passage

__all__ = ["Convoy"]


class Convoy:
    """The flights of one batch. Its driver's alone.

    Args:
        ring: wakes the driver; a wake for any of them does.
    """

    __slots__ = ("_batch", "_entries", "_keys", "_on", "_ring", "loading")

    def __init__(self, entries: Entries, batch: Batch, ring: Callable[[], object]) -> None:
        self._entries, self._batch, self._ring = entries, batch, ring
        self._keys = batch.waiting_for()
        self._on: dict[Passage, Generator[Any, Any, Brought | None]] = {}
        self.loading: list[Passage] = []  # those that the loader runs for

    def steps(self) -> Generator[Any, Any, None]:
        """Yield what is to be done, as `Passage.steps` does; `RUN` with the flights that are to be loaded."""
        asks: dict[Passage, Any] = {}  # what each wants next
        try:
            yield from self._settle()
            for flight in self._keys:
                passage = Passage(self._entries, flight, Mailbox(self._ring))
                self._on[passage] = passage.steps()
                asks[passage] = None
            self._advance(asks, dict.fromkeys(asks))
            while asks:
                if any(type(todo) is list or todo is LISTEN for todo in asks.values()):
                    yield from self._ask(asks)
                elif any(type(todo) is tuple for todo in asks.values()):
                    yield from self._load(asks)
                else:
                    yield from self._wait(asks)
        finally:
            for steps in self._on.values():
                steps.close()
            self._on.clear()

    def _settle(self) -> Generator[Any, Any, None]:
        """Tell the server what was dropped of the whole function: once, not by each of them."""
        entries, link = self._entries, self._entries.link
        for drop in [] if link.is_away() else link.first_for(entries.digest, b""):
            _, error = yield from replies_of(entries.sending(drop))
            if error is not None and not isinstance(error, Trouble):
                raise error

    def _advance(self, asks: dict[Passage, Any], came: dict[Passage, Any]) -> None:
        """Go on with these, each with what came of what it wanted, and empty that; land what is there."""
        found: list[Item] = []
        try:
            for passage in tuple(came):
                try:
                    asks[passage] = self._on[passage].send(came.pop(passage))
                except StopIteration as ended:
                    del asks[passage], self._on[passage]
                    found += self._items(passage, ended.value)
            if found:
                self._batch.found(found)
        finally:
            found.clear()  # an exception leads to this frame
            came.clear()

    def _items(self, passage: Passage, brought: Brought | None) -> list[Item]:
        """Return what is to land, if anything is; raise what ends all of them."""
        flight = passage.flight
        key = self._keys[flight]
        if brought is None:  # a renewal that another process does
            self._batch.leave(flight)
            postpone(self._entries.cache, flight, 1.0)
            return []
        try:
            if brought.error is not None and not isinstance(brought.error, Exception):
                raise brought.error
            if brought.missing or passage.lacks:
                return [Item(flight, key, False)]
            return [Item(flight, key, True, brought.value, brought.error, brought.arrival, brought.verdict)]
        finally:
            del brought  # or this frame and the exception would keep each other

    def _ask(self, asks: dict[Passage, Any]) -> Generator[Any, Any, None]:
        """Send what all of them want to be sent, in one pipeline."""
        listening = [passage for passage, todo in asks.items() if todo is LISTEN]
        if listening:
            came = yield LISTEN
            self._advance(asks, dict.fromkeys(listening, came))
            return
        asking = {passage: todo for passage, todo in asks.items() if type(todo) is list}
        came = yield from self._send(asking)
        self._advance(asks, came)

    @staticmethod
    def _send(asking: dict[Passage, Any]) -> Generator[Any, Any, dict[Passage, Any]]:
        """Send what these want to be sent, in one pipeline; return what came for each."""
        replies, error = yield [call for todo in asking.values() for call in todo]
        at = 0
        came: dict[Passage, Any] = {}
        for passage, todo in asking.items():
            came[passage] = (None, error) if error is not None else (replies[at : at + len(todo)], None)
            at += len(todo)
        return came

    def _load(self, asks: dict[Passage, Any]) -> Generator[Any, Any, None]:
        """Have the loader called for those that this process is to load; tell the server, and land them."""
        ready = [passage for passage, todo in asks.items() if type(todo) is tuple]
        flights = self._batch.next_of(passage.flight for passage in ready)
        self.loading[:] = ready[: len(flights)]
        loaded, error = yield (flights,)
        came: dict[Passage, Any] = {}
        try:
            if error is None:
                try:
                    came = self._brought(ready, self._batch.sort(loaded, [each.flight for each in ready]))
                except Exception as raised:
                    error = raised
            if error is not None:
                yield from self._fail(error)
                raise error
            self._advance(asks, came)
        finally:
            self.loading.clear()
            flights.clear()  # which frames of the error have, too
            del loaded, error, came  # or this frame and an exception would keep each other

    @staticmethod
    def _brought(ready: list[Passage], items: list[Item]) -> dict[Passage, Any]:
        """Return what the loader has brought, for each that it ran for and for others that are ready."""
        of = {item.flight: item for item in items}
        try:
            loaded = [passage for passage in ready if passage.flight in of]
            for passage in loaded:
                passage.lacks = not of[passage.flight].present
            return {each: (of[each.flight].value, of[each.flight].error) for each in loaded}
        finally:
            items.clear()
            of.clear()

    def _fail(self, error: BaseException) -> Generator[Any, Any, None]:
        """The loader raised: tell the server of each, and the batch what is to become of the error."""
        verdict: Verdict | None = None
        verdicts: dict[Flight, Verdict] = {}
        came: dict[Passage, Any] = {}
        try:
            for passage in self.loading:
                if isinstance(error, Exception) and not passage.flight.has_ended():
                    passage.judged = verdict or judge(self._batch.cache, error)
                    verdict = passage.judged._replace(fault=None)  # which is logged once
                came[passage] = None, error
            while came:
                asking: dict[Passage, Any] = {}
                for passage in tuple(came):
                    try:
                        asking[passage] = self._on[passage].send(came.pop(passage))
                    except StopIteration as ended:
                        if passage.judged is not None:
                            verdicts[passage.flight] = ended.value.verdict
                if asking:
                    came = yield from self._send(asking)
            self._batch.judged(error, verdicts)
        finally:
            came.clear()
            for passage in self.loading:
                passage.judged = None
            del error, verdict, verdicts  # or this frame and the exception would keep each other

    def _wait(self, asks: dict[Passage, Any]) -> Generator[Any, Any, None]:
        """Wait until there is something for one of them, or one has waited for as long as it wanted."""
        now = time.monotonic()
        until = {passage: now + todo for passage, todo in asks.items()}
        woken: list[Passage] = []
        while not woken:
            pause = max(0.0, min(until.values()) - time.monotonic())
            _, error = yield pause
            if error is not None:
                raise error
            now = time.monotonic()
            woken = [passage for passage in asks if passage.is_rung or now >= until[passage]]
        came = {passage: (passage.is_rung, None) for passage in woken}
        rest = {passage: until[passage] - now for passage in asks if passage not in came}
        self._advance(asks, came)
        asks.update({passage: max(0.0, left) for passage, left in rest.items()})
