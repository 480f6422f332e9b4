"""Functions of every kind under load, whose counts are known."""

import asyncio
import gc
import itertools
import threading
import weakref

import pytest

from singleflight import single_flight_ttl
from singleflight.process import totals

_numbers = itertools.count()


@pytest.fixture(autouse=True, scope="package")
def no_others():
    """Counts of the functions of these tests alone.

    In a run of all tests thousands of others are alive, and more are remembered by name: reading them takes
    longer than Prometheus waits, and OpenTelemetry's SDK keeps no more than 2000 series apart.
    """
    gc.collect()
    totals.read()
    others = totals._living, totals._kept, totals._highest
    totals._living, totals._kept, totals._highest = weakref.WeakSet(), {}, {}
    yield
    totals._living, totals._kept, totals._highest = others


@pytest.fixture
def name():
    """A name that no function had before: what is counted by name outlives its function."""
    return f"tests.metrics.{next(_numbers)}"


class Load:
    """A function and its twin, called by threads and tasks at once: hits, waits, failures, bulk calls."""

    def __init__(self, name):
        def fetch(key):
            if key % 7 == 3:
                raise ValueError(key)
            return key

        self.fetch = single_flight_ttl(ttl=60, name=name, maxsize=40, key=lambda key: key)(fetch)

        async def afetch(key):
            await asyncio.sleep(0)
            return fetch(key)

        self.afetch = self.fetch.twin(afetch)
        self.many = self.fetch.bulk(lambda keys: {key: fetch(key) for key in keys if key % 7 != 3})
        self.received = 0
        self._lock = threading.Lock()

    def run(self, threads=4, rounds=150):
        """Call it from threads and tasks."""
        crowd = [threading.Thread(target=self._in_thread, args=(n, rounds)) for n in range(threads)]
        crowd.append(threading.Thread(target=lambda: asyncio.run(self._in_tasks(rounds))))
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join(50)
            assert not thread.is_alive(), "hangs"

    def _in_thread(self, seed, rounds):
        received = 0
        for number in range(rounds):
            key = (number * (seed + 1)) % 60
            received += 1
            try:
                self.fetch(key)
            except ValueError:
                continue
            if number % 10 == 0:
                keys = [each for each in range(key, key + 5) if each % 7 != 3]
                received += len(keys)
                self.many(keys)
        with self._lock:
            self.received += received

    async def _in_tasks(self, rounds):
        calls = [self.afetch(number % 30) for number in range(rounds)]
        await asyncio.gather(*calls, return_exceptions=True)
        with self._lock:
            self.received += rounds


@pytest.fixture
def load(name):
    return Load(name)
