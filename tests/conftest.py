"""Threads whose outcomes are collected and whose waits end."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any
from zlib import crc32

import pytest

from singleflight.core.cache import Cache
from singleflight.process import registry

from .drivers import LoopThread

# What was started in the background ignores Ctrl-C, and so would the processes that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

PATIENCE = 20.0

if os.environ.get("LONG_WAY"):
    # The usual miss takes short ways (`lead_at_once`, `join_at_once`, `land_at_once`): not here.
    _make = Cache.__init__

    def _make_long(cache: Cache, *args: Any, **kwargs: Any) -> None:
        _make(cache, *args, **kwargs)
        cache.leads_at_once = cache.lands_at_once = False

    Cache.__init__ = _make_long  # type: ignore[method-assign]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `SWEEP_PART=1/4` only the tests of that quarter are run, which are always the same."""
    part, _, parts = os.environ.get("SWEEP_PART", "0/1").partition("/")
    kept = [item for item in items if crc32(item.nodeid.encode()) % int(parts) == int(part)]
    chosen = set(kept)
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = kept


@pytest.fixture(scope="module", autouse=True)
def nothing_is_kept(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where counts are kept for metrics, Python code runs when a function goes, which interrupts may strike.

    Elsewhere nothing is kept of the functions that tests make, whatever an earlier test or page has begun.
    """
    if "metrics" in request.path.parts or request.path.name == "test_observed.py":
        yield
        return
    visits, registry._visits = registry._visits, ()
    yield
    registry._visits = (*visits, *(visit for visit in registry._visits if visit not in visits))


@pytest.fixture(scope="module", autouse=True)
def little_to_collect() -> Iterator[None]:
    """Collections, and walks over all objects, leave out what was there before this file's tests.

    In a long run that is nearly everything, and hundreds of tests collect.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()  # of this file's alone: or else its garbage, frozen with the rest, would stay
        gc.unfreeze()


class Crowd:
    """Threads that each run something; `outcomes` holds what they returned or raised, in order."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.outcomes: list[Any] = []

    def add(self, run: Callable[..., Any], *args: Any, count: int = 1) -> None:
        for _ in range(count):
            place = len(self.outcomes)
            self.outcomes.append(None)
            thread = threading.Thread(target=self._run, args=(place, run, args), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _run(self, place: int, run: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            self.outcomes[place] = run(*args)
        except BaseException as error:
            self.outcomes[place] = error

    def ended(self, count: int) -> bool:
        """Whether the first of them have ended, so many."""
        return not any(thread.is_alive() for thread in self.threads[:count])

    def join(self) -> list[Any]:
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{thread.name} hangs"
        return self.outcomes


class Gate(threading.Event):
    """An event whose `pass_` fails loudly when it is never set."""

    def pass_(self) -> None:
        assert self.wait(PATIENCE), "the gate was never opened"


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    """Threads that are joined at the end of the test."""
    crowd = Crowd()
    yield crowd
    crowd.join()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Something to hold a leader at; open at the end of the test, whatever happens."""
    gate = Gate()
    yield gate
    gate.set()


@pytest.fixture
def make_gate() -> Iterator[Callable[[], Gate]]:
    """More of them."""
    gates: list[Gate] = []

    def make() -> Gate:
        gates.append(Gate())
        return gates[-1]

    yield make
    for gate in gates:
        gate.set()


@pytest.fixture
def loops() -> Iterator[Callable[[], LoopThread]]:
    """Makes event loops, each in a thread of its own; nothing may have been reported to any of them."""
    made: list[LoopThread] = []

    def make() -> LoopThread:
        made.append(LoopThread())
        return made[-1]

    yield make
    for loop in made:
        loop.close()
    gc.collect()  # so that what complains when it is destroyed does it now
    assert [report for loop in made for report in loop.reports] == []
