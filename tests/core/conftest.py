"""What the tests of the decision maker share: one whose clock stands still, and flights in it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from singleflight.core import batch, coordinator, delays, transitions, window
from singleflight.core import flight as flights
from singleflight.core.cache import Cache
from singleflight.core.call import LEAD, Call, new_call
from singleflight.core.coordinator import new_cache
from singleflight.core.flight import Flight
from singleflight.core.options import Options, is_not_none
from singleflight.core.window import Load, Window
from singleflight.locks import waitgraph
from singleflight.locks.mutex import inside, mutex
from singleflight.telemetry.counters import Counts
from singleflight.testing import FakeClock, Recorder


class Work:
    """What runs a flight."""

    loop = None
    began = True

    def __init__(self, dead: bool = False, may: bool = True) -> None:
        self.dead, self.may, self.stopped = dead, may, 0

    def is_dead(self) -> bool:
        return self.dead

    def may_stop(self) -> bool:
        return self.may

    def stop(self) -> None:
        assert not inside()
        self.stopped += 1


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(100.0)


@pytest.fixture
def seen() -> Recorder:
    return Recorder()


@pytest.fixture
def make(clock: FakeClock, seen: Recorder) -> Callable[..., Cache]:
    """Makes decision makers."""

    def make(**options: Any) -> Cache:
        wanted = {
            "ttl": 10,
            "maxsize": 4,
            "max_idle_locks": 2,
            "cache_if": is_not_none,
            "follower_retries": 3,
            "wait_timeout": None,
            "flight_timeout": 5,
            "timer": clock,
            "listener": seen,
            **options,
        }
        return new_cache("model", Options.checked(**wanted), Counts())

    return make


@pytest.fixture
def memo(make: Callable[..., Cache]) -> Cache:
    return make()


@pytest.fixture
def seconds() -> Iterator[SimpleNamespace]:
    """What `time.monotonic` says to the decision maker and its flights: it stands still at `now`."""
    fake = SimpleNamespace(now=1000.0)
    fake.monotonic = lambda: fake.now
    with (
        patch.object(coordinator, "time", fake),
        patch.object(flights, "time", fake),
        patch.object(transitions, "time", fake),
        patch.object(window, "time", fake),
        patch.object(batch, "time", fake),
        patch.object(delays, "time", fake),
    ):
        yield fake


@pytest.fixture
def waiting() -> Iterator[dict[Any, Any]]:
    """Who waits for what; nobody else does meanwhile."""
    with patch.dict(waitgraph.waiting, clear=True), patch.dict(waitgraph.below, clear=True):
        yield waitgraph.waiting


@pytest.fixture(autouse=True)
def nobody_is_left_waiting(waiting: dict[Any, Any]) -> None:
    """What these tests begin they need not end."""


class Watched(Call):
    """A call that notes where it is to stand, and that others may wait for outside the library."""

    awaited_by: frozenset[Hashable] = frozenset()
    stood: Any = None
    dead = False

    def is_dead(self) -> bool:
        return self.dead

    def above(self, turn: Any) -> frozenset[Hashable]:
        self.awaited_outside = bool(self.awaited_by)
        return self.awaited_by

    def climb(self) -> frozenset[Hashable]:
        return self.awaited_by

    def stand_at(self, latch: Any, watcher: Any = None, watched: Any = None) -> None:
        self.stood = latch, watcher, watched


def watched(actor: Hashable = "caller", *awaited_by: Hashable, key: Hashable = "k", **fields: Any) -> Watched:
    """Such a call: `waiter` is its actor unless told otherwise."""
    renew, waiter = fields.pop("renew", False), fields.pop("blocks", actor)
    made = new_call(Watched, key, actor, fields.pop("thread", 2), waiter, renew)
    made.awaited_by = frozenset(awaited_by)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def caller(key: Hashable = "k", actor: Hashable = "caller", thread: int = 2, renew: bool = False) -> Call:
    """A call for which nothing is decided yet."""
    return new_call(Call, key, actor, thread, actor, renew)


def in_flight(memo: Cache, key: Hashable = "k", due: bool = True, **fields: Any) -> Flight:
    """A flight that is led, and due or not."""
    call = caller(key, "leader", 1)
    assert coordinator.board(memo, call) is LEAD
    flight: Flight = call.flight
    if due:
        flight.due = 0.0
    for name, value in fields.items():
        setattr(flight, name, value)
    return flight


def entangled(memo: Cache) -> tuple[dict[Any, Any], str]:
    """Who leads "k" waits for "mine", the caller's, and is in a cycle that was closed outside the library.

    Returns who waits for what, to be noted in `waiting`, and the way round from "mine", as it is told.
    """
    first, _ = in_flight(memo, "first", due=False), in_flight(memo, due=False)
    others = [caller("mine"), caller("another", "somebody", 3)]
    for call in others:
        coordinator.board(memo, call)
    mine, another = (call.flight for call in others)
    waits = {"leader": (mine, another), "somebody": (first,)}
    return waits, "'mine' -> 'k' -> 'another' -> 'first' -> 'mine'"


class Registry:
    """Notes what windows tell it."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def claimed(self, one: Window, call: Call) -> None:
        assert inside()
        self.told.append(("claimed", one, call))

    def forget(self, one: Window) -> None:
        self.told.append(("forget", one))

    def ended(self, one: Window) -> None:
        assert inside()
        self.told.append(("ended", one))


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def unclaimed(memo: Cache, registry: Registry) -> Callable[..., Window]:
    """Makes windows of two seconds that nobody runs yet; their items are keys in capitals."""

    def make(cache: Cache = memo, alone: bool = False, max_batch: int | None = None) -> Window:
        load = Load(str.lower, lambda items: None, 2.0, max_batch)
        return Window(cache, registry, "group", load, alone)

    return make


@pytest.fixture
def opened(memo: Cache, unclaimed: Callable[..., Window]) -> Callable[..., Window]:
    """Makes windows that the caller of "a" runs."""

    def make(cache: Cache = memo, **options: Any) -> Window:
        one = unclaimed(cache, **options)
        opener = watched("opener", key="a", thread=1)
        assert coordinator.board(cache, opener) is LEAD
        with mutex:
            one.claim(opener)
            one.add(opener, "A")
        return one

    return make
