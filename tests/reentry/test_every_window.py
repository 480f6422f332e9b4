"""Ctrl-C at every signal check of a call that is gathered, with others in its window."""

import threading
import time

import pytest

from singleflight import FlightTimeout, single_flight_ttl
from singleflight.core.call import LEAD
from singleflight.core.coordinator import board
from singleflight.core.delays import count_uncalled
from singleflight.core.gathering import Gathering
from singleflight.core.window import Load
from singleflight.locks import waitgraph
from singleflight.locks.mutex import inside, mutex
from singleflight.locks.unsettled import After

from ..core.conftest import watched
from ..drivers import until
from .checks import struck, struck_task

GATHER = 0.03
KINDS = ["opens", "joins", "fails"]
CASES = [*((kind, 19) for kind in KINDS), *(pytest.param(kind, 1, marks=pytest.mark.long) for kind in KINDS)]
"""Which caller is struck, and at one in how many checks."""


class World:
    """A function whose loader gathers; a caller that is to be struck, and threads that ask for the rest.

    Args:
        kind: whether the caller that is struck "opens" the window, "joins" one, or its loader "fails".
    """

    def __init__(self, kind):
        self.kind, self.outcomes, self.threads, self.over = kind, {}, [], threading.Event()
        self.went_on = threading.Event()

        @single_flight_ttl(ttl=60, key=lambda symbol: symbol, follower_retries=0)
        def price(symbol):
            return symbol

        @price.twin
        async def aprice(symbol):
            return symbol

        def load(symbols):
            if kind == "fails" and not self.over.is_set():
                raise ValueError(symbols)
            return {symbol: symbol for symbol in symbols}

        @price.bulk(gather=GATHER, max_batch=2)
        def prices(symbols):
            if kind != "joins":  # a follower, while the loader runs
                self.follow()
            return load(symbols)

        @price.bulk(gather=GATHER, max_batch=2)
        async def aprices(symbols):
            return load(symbols)

        self.price, self.aprice, self.prices, self.aprices = price, aprice, prices, aprices

    def begin(self):
        """The other one asks for B: in a window of its own, or in the caller's."""
        if self.kind == "joins":
            self.start("B")
            until(lambda: self.gathered() or self.outcomes)
        else:
            self.start("B", until_open=True)

    def start(self, symbol, until_open=False):
        def run():
            while until_open and not (self.gathered() or self.over.is_set()):
                time.sleep(0.0005)
            try:
                self.outcomes[symbol] = self.price(symbol)
            except ValueError as error:
                self.outcomes[symbol] = error

        self.threads.append(threading.Thread(target=run, daemon=True))
        self.threads[-1].start()

    def follow(self):
        if len(self.threads) == 1:
            self.start("A")

    def gathered(self):
        return any(flight.kind == "bulk" for flight in self.price.flights())

    def wrong(self):
        """What is not as it should be, if anything."""
        self.over.set()
        for thread in self.threads:
            thread.join(20)
            if thread.is_alive():
                return f"another caller hangs: {self.price.flights()}"
        if inside():
            return "the mutex is held"
        if waitgraph.waiting or waitgraph.below:
            waitgraph.waiting.clear()
            return "somebody waits"
        if self.price.flights():
            return f"a flight is left: {self.price.flights()}"
        cache = self.price._self_cache
        if cache.batches or cache.gathering.open or cache.gathering.run_by:
            return "a window is open"
        stats = self.price.stats()
        if stats.locks != stats.idle_locks:
            return "a key is not free"
        counted = stats.hits + stats.waits + stats.fetches + stats.errors + stats.timeouts
        received = 1 + len(self.threads)
        if not received - 1 <= counted <= received:
            return f"counts {counted} of {received}: {stats}"
        for symbol, outcome in self.outcomes.items():
            if outcome != symbol and not (self.kind == "fails" and isinstance(outcome, ValueError)):
                return f"{symbol} got {outcome!r}"
        if self.price("A") != "A" or self.price("B") != "B":
            return "keys do not work any more"
        return None


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "step"), CASES)
def test_a_gathered_call_that_is_interrupted_leaves_the_others_what_they_need(kind, step):
    """Nobody hangs, every key is free in the end, and what came to a decision is counted, once."""
    number, where, found = 0, "start", []
    while where is not None:
        world = World(kind)
        world.begin()
        where = struck(number, lambda world=world: world.price("A"), times=1)
        if (problem := world.wrong()) is not None:
            found.append(f"{number} {where}: {problem}")
        number += step
    assert not found, "\n".join(found)
    assert number > 100


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("kind", "step"), CASES)
def test_a_gathered_task_that_is_interrupted_leaves_the_others_what_they_need(kind, step):
    """The same of a task, whose loop goes on all the same."""
    number, where, found = 0, "start", []
    while where is not None:
        world = World(kind)
        world.begin()

        async def call(world=world):
            return await world.aprice("A")

        with struck_task(number, call()) as (where, task):
            deadline = time.monotonic() + 5
            loop = task.get_loop()
            while not task.done() and time.monotonic() < deadline:
                loop.call_later(GATHER / 10, loop.stop)
                loop.run_forever()
            problem = None if task.done() else "its caller hangs"
        problem = problem or world.wrong()
        if problem is not None:
            found.append(f"{number} {where}: {problem}")
        number += step
    assert not found, "\n".join(found)
    assert number > 150


class Loader:
    coroutine = False


def test_members_that_did_not_come_out_of_a_line_are_counted_when_they_call_anew():
    """Their runner is interrupted as it gives up, which is settled later: only its own call counts."""
    number, where = 0, "start"
    while where is not None:

        @single_flight_ttl(ttl=60, key=lambda symbol: symbol)
        def price(symbol):
            raise AssertionError

        cache = price._self_cache
        gathering = Gathering(cache, None)
        gathering.gather(Loader())
        for key in "ab":
            call = watched(key, key=key)
            assert board(cache, call) is LEAD
            window = gathering.enter(call, ("group", key), Load(str, list, 1.0, None), False, False)
        error = FlightTimeout("no seat")
        count_uncalled(cache, window.flights, error)
        where = struck(number, lambda window=window, error=error: window.give_up(error))
        after = After()
        with mutex:
            window.settle(error, after)
            waitgraph.waiting.clear()
        after.run()
        assert (cache.counts.timeouts, cache.counts.errors, price.flights()) == (1, 0, ()), where
        number += 1
    assert number > 50
