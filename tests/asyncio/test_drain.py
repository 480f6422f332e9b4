"""drain and drain_sync wait for the flights in progress, whoever runs them."""

import asyncio
import gc
import time
import weakref
from datetime import timedelta

import pytest

import singleflight
from singleflight import single_flight_ttl

from ..drivers import InThread, until
from ..patience import Patience
from . import steps


def test_nothing_to_wait_for(play):
    """Without flights both return True at once, also with no time to wait."""

    async def main():
        return await singleflight.drain(), await singleflight.drain(timeout=0)

    assert play(main) == (True, True)
    assert singleflight.drain_sync() is True
    assert singleflight.drain_sync(timeout=0) is True


@pytest.mark.parametrize("leader", ["task", "thread"])
@pytest.mark.parametrize("waiter", ["task", "thread"])
def test_draining(loops, make_gate, leader, waiter):
    """False at the timeout while a flight of a task or a thread goes on, True once it has ended."""
    gate = make_gate()

    async def body():
        await gate
        return 1

    if leader == "task":
        fetch = single_flight_ttl(ttl=60)(body)
        flight = loops().start(fetch)
    else:

        @single_flight_ttl(ttl=60)
        def fetch():
            gate.pass_()
            return 1

        async def lead():
            return fetch()

        flight = InThread(lead, ())
    until(lambda: fetch.flights())

    async def drain_in_thread(timeout):
        return singleflight.drain_sync(timeout=timeout)

    def start(timeout):
        if waiter == "task":
            return other.start(lambda: singleflight.drain(timeout=timeout))
        return InThread(drain_in_thread, (timeout,))

    other = loops()
    began = time.monotonic()
    assert start(0).outcome() is False
    assert start(timedelta(milliseconds=30)).outcome() is False
    assert time.monotonic() - began >= 0.03
    draining = start(None), start(10)
    assert other.run(asyncio.sleep, 0, "alive") == "alive"
    assert not any(each.done() for each in draining)
    gate.set()
    assert [each.outcome() for each in draining] == [True, True]
    assert flight.outcome() == 1
    assert fetch.flights() == ()


def test_draining_waits_for_detached_flights(loops, make_gate):
    """A flight that was invalidated is still work in progress."""
    gate = make_gate()

    async def fetch():
        await gate

    fetch = single_flight_ttl(ttl=60)(fetch)
    loop = loops()
    flight = loop.start(fetch)
    until(lambda: fetch.flights())
    fetch.invalidate()
    assert singleflight.drain_sync(timeout=0.01) is False
    gate.set()
    assert singleflight.drain_sync(timeout=10) is True
    assert flight.outcome() is None


def test_draining_waits_for_cancelled_work(play):
    """Work whose callers have all gone is waited for until it has unwound."""

    async def main():
        begun, unwind, ended = asyncio.Event(), asyncio.Event(), []

        @single_flight_ttl(ttl=60)
        async def fetch():
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                await unwind.wait()
                ended.append(1)

        task = asyncio.create_task(fetch())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await singleflight.drain(timeout=0.01) is False
        unwind.set()
        assert await singleflight.drain(timeout=10) is True
        assert ended == [1]

    play(main)


def test_a_bad_timeout_is_refused(play):
    """Negative and nonsensical times raise, naming the argument."""

    async def main():
        for bad in (-1, float("nan")):
            with pytest.raises(ValueError, match=r"^timeout: "):
                await singleflight.drain(timeout=bad)

    play(main)
    with pytest.raises(ValueError, match=r"^timeout: "):
        singleflight.drain_sync(timeout=-1)


@pytest.mark.parametrize("cancelled", [False, True])
def test_whoever_drains_no_more_is_let_go_of(play, cancelled):
    """While the flight goes on: a watchdog that asks every second does not gather what it asked with."""

    async def main():
        open_, gone = asyncio.Event(), []

        @single_flight_ttl(ttl=60)
        async def fetch():
            await open_.wait()

        flight = asyncio.create_task(fetch())
        while not fetch.flights():
            await asyncio.sleep(0)
        for _ in range(10):
            draining = asyncio.create_task(singleflight.drain(timeout=10 if cancelled else 0.001))
            gone.append(weakref.ref(draining))
            if cancelled:
                await asyncio.sleep(0)
                draining.cancel()
            await asyncio.wait([draining])
            del draining
        await asyncio.sleep(0)
        gc.collect()
        assert [task() for task in gone] == [None] * 10
        open_.set()
        await flight

    play(main)


def test_a_cancelled_drain_disturbs_nothing(play):
    """The flight that it waited for goes on."""

    async def main():
        open_ = asyncio.Event()

        @single_flight_ttl(ttl=60)
        async def fetch():
            await open_.wait()
            return 1

        flight = asyncio.create_task(fetch())
        while not fetch.flights():
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await singleflight.drain()
        open_.set()
        assert await flight == 1

    play(main)


def test_draining_is_as_patient_as_it_was_asked_to_be(loops, make_gate, monkeypatch):
    """It looks again when its time is over, and not at the next full second."""
    patience, gate = Patience(monkeypatch), make_gate()

    async def fetch():
        await gate

    fetch = single_flight_ttl(ttl=60)(fetch)
    flight, other = loops().start(fetch), loops()
    until(lambda: fetch.flights())

    async def drain_in_thread():
        return singleflight.drain_sync(timeout=0.25)

    draining = other.start(lambda: singleflight.drain(timeout=7)), InThread(drain_in_thread, ())
    until(lambda: set(patience.waits) == {0.25, 7})
    gate.set()
    assert draining[0].outcome() is True
    assert draining[1].outcome() in (True, False)  # it looks at a clock that stands still
    assert flight.outcome() is None


@pytest.mark.parametrize("leader", ["task", "thread"])
def test_draining_is_over_as_soon_as_the_flight_is(loops, make_gate, monkeypatch, leader):
    """Where nobody follows, too: whoever drains is woken, and does not have to look for itself."""
    patience, gate = Patience(monkeypatch), make_gate()

    def load():
        gate.pass_()
        return 1

    async def aload():
        await gate
        return 1

    fetch = single_flight_ttl(ttl=60)(aload if leader == "task" else load)

    async def lead():
        return fetch()

    async def drain_in_thread():
        return singleflight.drain_sync()

    flight = loops().start(fetch) if leader == "task" else InThread(lead, ())
    until(lambda: fetch.flights())
    draining = loops().start(singleflight.drain), InThread(drain_in_thread, ())
    until(lambda: len(patience.waits) == 2)
    gate.set()
    assert flight.outcome() == 1
    assert [each.outcome() for each in draining] == [True, True]


def test_draining_looks_again_and_waits_on(make_gate, monkeypatch):
    """Each time that it looks for itself it sees that its time is not over, and that the flight goes on."""
    patience, gate = Patience(monkeypatch, look=0.01), make_gate()

    fetch = single_flight_ttl(ttl=60)(lambda: gate.pass_())

    async def lead():
        fetch()

    async def drain_in_thread(timeout):
        return singleflight.drain_sync(timeout=timeout)

    flight = InThread(lead, ())
    until(lambda: fetch.flights())
    draining = [InThread(drain_in_thread, (timeout,)) for timeout in (7, None)]
    until(lambda: patience.waits.count(0.01) >= 6 or any(each.done() for each in draining))
    assert not any(each.done() for each in draining)
    patience.advance(7)
    assert draining[0].outcome() is False
    gate.set()
    assert draining[1].outcome() is True
    assert flight.outcome() is None


def test_no_time_at_all_is_over_at_once(make_gate, monkeypatch):
    """Also by a clock that has not moved on since."""
    Patience(monkeypatch)
    gate = make_gate()
    fetch = single_flight_ttl(ttl=60)(lambda: gate.pass_())

    async def lead():
        fetch()

    async def drain_in_thread():
        return singleflight.drain_sync(timeout=0)

    flight = InThread(lead, ())
    until(lambda: fetch.flights())
    assert InThread(drain_in_thread, ()).outcome() is False
    gate.set()
    assert flight.outcome() is None


def test_a_lock_is_no_flight():
    """Whoever holds a key of a function's locks is not waited for."""
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    with fetch.locks("a"):
        assert singleflight.drain_sync(timeout=0) is True


@pytest.mark.parametrize("how", ["drain", "a follower", "a lock"])
def test_what_a_flight_awaits_later_is_refused_soon(how):
    """Who waits within a flight looks again after a twentieth of a second whether that awaits it now."""
    loop = steps.StepLoop()

    @single_flight_ttl(ttl=60, key=lambda: "k")
    async def fetch():
        waits = {"drain": singleflight.drain, "a follower": fetch, "a lock": lock}[how]
        waiting = asyncio.create_task(waits())
        await asyncio.sleep(0)
        return await waiting

    async def lock():
        async with fetch.locks("k"):
            raise AssertionError

    async def main():
        began = loop.time()
        said = r"^draining from within the flight of 'k' would never end" if how == "drain" else None
        with pytest.raises(singleflight.FlightDeadlock, match=said):
            await fetch()
        return loop.time() - began

    assert steps.run(loop, main()) < 0.11


def test_draining_where_a_follower_has_come_and_gone():
    """Whoever looked on its loop for those who follow has found nobody, and looks no more."""
    loop = steps.StepLoop()

    @single_flight_ttl(ttl=60)
    async def fetch():
        await asyncio.sleep(5)
        return 1

    async def main():
        began = loop.time()
        flight = asyncio.create_task(fetch())
        await asyncio.sleep(0.1)
        follower = asyncio.create_task(fetch())
        await asyncio.sleep(0.1)
        assert fetch.flights()[0].followers == 1
        follower.cancel()
        await asyncio.sleep(2)
        assert await singleflight.drain() is True
        assert await flight == 1
        return loop.time() - began

    assert 5 <= steps.run(loop, main()) < 5.1


def test_draining_within_a_flight_that_awaits_it_later(play):
    """A drain that was begun before its flight awaited it is told, too."""

    async def main():
        @single_flight_ttl(ttl=60)
        async def fetch():
            draining = asyncio.create_task(singleflight.drain())
            await asyncio.sleep(0)
            return await draining

        with pytest.raises(singleflight.FlightDeadlock):
            await fetch()
        assert fetch.flights() == ()

    play(main)
