"""A hot key under constant load, on the real clock: who runs the function, and how often. No timings."""

import asyncio
import threading
import time

import pytest

import singleflight
from singleflight import single_flight_ttl

from ..drivers import LoopThread, until

TTL = 0.2
CALL = 0.04  # how long the function takes


class Load:
    """Callers in threads or in tasks of two loops, until told to stop; who ran the function is remembered."""

    def __init__(self, kind, **options):
        self.kind, self.stop, self.down = kind, threading.Event(), False
        self.calls, self.ran_by, self._lock = [], [], threading.Lock()
        self.served, self.refused, self.callers = 0, 0, set()
        options = {"ttl": TTL, "name": "hot", **options}
        self.fetch = single_flight_ttl(**options)(self._plain if kind == "threads" else self._coroutine)

    def _begin(self, who):
        self.calls.append(time.monotonic())
        self.ran_by.append(who)

    def _end(self):
        if self.down:
            raise ConnectionError
        return len(self.calls)

    def _plain(self):
        self._begin(threading.current_thread())
        time.sleep(CALL)
        return self._end()

    async def _coroutine(self):
        self._begin(asyncio.current_task())
        await asyncio.sleep(CALL)
        return self._end()

    def _call(self):
        self.callers.add(threading.current_thread())
        served = refused = 0
        while not self.stop.is_set():
            try:
                self.fetch()
                served += 1
            except ConnectionError:
                refused += 1
            self.stop.wait(0.001)
        self._count(served, refused)

    async def _await(self):
        self.callers.add(asyncio.current_task())
        served = refused = 0
        while not self.stop.is_set():
            try:
                await self.fetch()
                served += 1
            except ConnectionError:
                refused += 1
            await asyncio.sleep(0.001)
        self._count(served, refused)

    def _count(self, served, refused):
        with self._lock:
            self.served += served
            self.refused += refused

    def run(self, script):
        """Warm it up, start the callers, and follow the script."""
        if self.kind == "threads":
            self.fetch()
            threads = [threading.Thread(target=self._call) for _ in range(6)]
            for thread in threads:
                thread.start()
            try:
                script()
            finally:
                self.stop.set()
                for thread in threads:
                    thread.join(10)
        else:
            loops = [LoopThread() for _ in range(2)]
            try:
                loops[0].run(self.fetch)
                tasks = [loop.start(self._await) for loop in loops for _ in range(6)]
                try:
                    script()
                finally:
                    self.stop.set()
                    outcomes = [task.outcome() for task in tasks]
                assert outcomes == [None] * 12
                assert singleflight.drain_sync(timeout=10)
            finally:
                for loop in loops:
                    loop.close()
            assert [report for loop in loops for report in loop.reports] == []
        assert singleflight.drain_sync(timeout=10)


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_a_hot_key(kind):
    """After warm-up no caller leads or waits, and there is at most one call for each ttl."""
    load = Load(kind, grace=5, refresh_ahead=0.9)
    began = time.monotonic()
    load.run(lambda: time.sleep(6 * TTL))
    ttls = (time.monotonic() - began) / TTL
    stats = load.fetch.stats()
    assert (stats.fetches, stats.waits, stats.errors, stats.failures) == (1, 0, 0, 0)
    # A call, then 0.9 of a ttl, then a call: that is more than a ttl from one to the next.
    assert 3 <= stats.calls <= 1 + ttls
    assert load.callers.isdisjoint(load.ran_by[1:])
    assert stats.hits + stats.stale_hits == load.served > 100


@pytest.mark.parametrize(("kind", "failure_ttl"), [("threads", 0), ("tasks", 0.1)])
def test_ten_ttls_without_a_backend(kind, failure_ttl):
    """Everybody is served for the whole of it, nobody waits, retries keep to the floor, and it recovers."""
    ttl, floor, counted = 0.1, failure_ttl or 1.0, []
    load = Load(kind, ttl=ttl, grace=60, refresh_ahead=0.9, failure_ttl=failure_ttl)

    def outage():
        load.down = True
        began, before = time.monotonic(), len(load.calls)
        time.sleep(10 * ttl)
        counted.extend([len(load.calls) - before, time.monotonic() - began])
        load.down = False
        until(lambda: load.fetch.entry().age < ttl)

    load.run(outage)
    calls, took = counted
    assert 1 <= calls <= 2 + took / floor
    stats = load.fetch.stats()
    assert load.refused == 0
    assert (stats.fetches, stats.waits, stats.errors) == (1, 0, 0)
    assert stats.failures >= 1
    assert stats.stale_hits > 100
    assert stats.hits + stats.stale_hits == load.served
    assert load.callers.isdisjoint(load.ran_by[1:])
