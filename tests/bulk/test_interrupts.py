"""Ctrl-C at every line of a bulk call: no key stays occupied, and nobody who waits is forgotten."""

import gc
import sys
import threading
import weakref
from pathlib import Path

import pytest

from singleflight import single_flight_ttl
from singleflight.locks.mutex import mutex

from ..drivers import until
from ..reentry.test_every_line import HOME, AtLine, finish

WATCHED = {
    "bulk_call",
    "batch",
    "bulk_threads",
    "wait",
    "coordinator",
    "leaving",
    "transitions",
    "landing",
    "flight",
    "renewal",
}


class AtBulkLine(AtLine):
    def trace(self, frame, event, argument):
        path = frame.f_code.co_filename
        return self.local if path.startswith(HOME) and Path(path).stem in WATCHED else None


where = []


def interrupt():
    frame = sys._getframe(2)
    where[:] = [f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"]
    raise KeyboardInterrupt


class Scene:
    """A bulk call, and what else is going on; `others` are threads that must end."""

    def __init__(self, kind):
        self.others, self.gate, self.kind = [], threading.Event(), kind
        self.outcomes = []

        @single_flight_ttl(ttl=60, key=lambda symbol: symbol)
        def price(symbol):
            assert self.gate.wait(5)
            return symbol

        @price.bulk(max_batch=2)
        def prices(symbols):
            if kind == "is joined" and not self.others:
                self.start(lambda: prices(["A", "B", "C"]), lambda: price("A"))
                until(lambda: sum(flight.followers for flight in price.flights()) >= 4)
            if kind == "joins":
                self.gate.set()
            return {symbol: symbol for symbol in [*symbols, "X"] if symbol != "M"}

        self.price, self.prices = price, prices
        if kind == "joins":
            self.start(lambda: price("A"))
            until(price.flights)

    def start(self, *runs):
        for run in runs:
            thread = threading.Thread(target=lambda run=run: self.outcomes.append(run()), daemon=True)
            self.others.append(thread)
            thread.start()

    def run(self):
        try:
            return self.prices(["A", "B", "M", "C"])
        finally:
            self.gate.set()

    def check(self):
        for thread in self.others:
            thread.join(20)
            assert not thread.is_alive(), "a follower hangs"
        assert len(self.outcomes) == len(self.others)
        finish(lambda: self.prices(["A", "B", "C", "M", "X"]))
        assert self.price.flights() == ()
        stats = self.price.stats()
        assert stats.locks == stats.idle_locks
        assert not self.price._self_cache.batches
        assert not mutex._is_owned()


@pytest.mark.timeout(300)
@pytest.mark.long
@pytest.mark.parametrize("kind", ["alone", "is joined", "joins"])
def test_an_interrupt_at_any_line_leaves_nothing_behind(kind):
    """Whatever line it strikes at, its caller gets it, the keys are free and the followers are served."""
    scene = Scene(kind)
    counter = AtBulkLine(10**9, None)
    with counter:
        scene.run()
    scene.check()
    total, struck = 10**9 - counter.left, 0
    for number in range(total):
        scene = Scene(kind)
        with AtBulkLine(number, interrupt):
            try:
                scene.run()
            except KeyboardInterrupt:
                struck += 1
        assert sys.gettrace() is None
        scene.gate.set()
        try:
            scene.check()
        except BaseException as error:
            error.add_note(f"struck at step {number} of {total}: {where}")
            raise
    assert struck > total * 0.8


class Refused(Exception):
    pass


def test_a_failed_call_leaves_no_garbage():
    """An exception that a bulk call raises does not hang in a cycle with what the call was made of."""
    refs = []

    @single_flight_ttl(ttl=60)
    def price(symbol):
        return 1

    @price.bulk
    def prices(symbols):
        raise Refused

    def call():
        try:
            prices(["A"])
        except Refused as error:
            refs.append(weakref.ref(error))

    gc.collect()
    gc.disable()
    try:
        call()
        assert refs[0]() is None
    finally:
        gc.enable()
