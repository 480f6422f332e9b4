"""What must hold however threads run at the same time: with a global interpreter lock, and without one.

Each case takes the seconds that it may go on for. They share as little as they can beside what they test:
what would keep the threads apart would hide what they are looking for.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque

import singleflight
from singleflight import single_flight_ttl

from .together import case, received, together


@case
def every_hit_is_counted(seconds: float) -> None:
    """Readers beside one who invalidates, puts, evicts and looks: all calls are counted, once."""

    @single_flight_ttl(ttl=60, maxsize=8, key=lambda key: key)
    def fetch(key):
        return key

    def read(number):
        for key in range(4):
            assert fetch(key) == key

    def disturb(number):
        fetch.invalidate(number % 4)
        fetch.put((number + 1) % 4, (number + 1) % 4)
        fetch.refresh(100 + number % 50)
        fetch.stats(), fetch.entry(number % 4)

    *reads, disturbed = together(seconds, read, read, read, disturb)
    stats = fetch.stats()
    assert received(stats) == 4 * sum(reads) + disturbed, stats
    assert len(fetch._self_cache.store.index) == stats.entries <= 8


@case
def threads_that_come_and_go_are_counted(seconds: float) -> None:
    """The hits of threads that have ended are kept."""

    @single_flight_ttl(ttl=60)
    def fetch():
        return "value"

    def live_shortly(number):
        thread = threading.Thread(target=lambda: [fetch() for _ in range(5)])
        thread.start()
        thread.join()

    assert received(fetch.stats()) == 0
    lives = together(seconds, live_shortly, live_shortly, live_shortly)
    assert received(fetch.stats()) == 5 * sum(lives)


@case
def one_flight_for_a_key(seconds: float) -> None:
    """However many ask, one runs at a time; all get a whole outcome, and every call is counted."""
    running, calls = set(), deque()

    class Failed(Exception):
        pass

    @single_flight_ttl(ttl=0, key=lambda key: key)
    def fetch(key):
        assert key not in running
        running.add(key)
        calls.append(key)
        value = [key, len(calls)]
        running.discard(key)
        if len(calls) % 5 == 0:
            raise Failed(*value)
        return value

    def ask(number):
        key = number % 2
        try:
            got = fetch(key)
        except Failed as error:
            got = [*error.args, error.__traceback__.tb_next]
        assert got[0] == key
        assert isinstance(got[1], int)

    asked = together(seconds, *[ask] * 6)
    stats = fetch.stats()
    assert (received(stats), stats.calls) == (sum(asked), len(calls)), stats


@case
def what_is_invalidated_is_gone(seconds: float) -> None:
    """Whoever asks after an invalidate has ended receives what was fetched after it had begun."""
    version = [0]  # written by one thread alone

    @single_flight_ttl(ttl=60)
    def fetch():
        return version[0]

    known = [0]

    def change(number):
        version[0] += 1
        fetch.invalidate()
        known[0] = version[0]

    def ask(number):
        least = known[0]
        assert fetch() >= least

    together(seconds, change, *[ask] * 4)


@case
def instances_have_values_of_their_own(seconds: float) -> None:
    """Instances that come and go, also when several threads meet one at once; none is kept."""

    class Account:
        def __init__(self, name):
            self.name = name

        @single_flight_ttl(ttl=60, maxsize=None)
        def fetch(self, item):
            return self.name, item

    shared = [Account("first")]

    def meet(number):
        account = shared[0]
        assert account.fetch(1) == (account.name, 1)
        own = Account(number)
        assert own.fetch(2) == own.fetch(2) == (number, 2)

    def renew(number):
        shared[0] = Account(f"shared {number}")

    together(seconds, meet, meet, meet, renew)
    del shared[0]
    gc.collect()
    Account("last").fetch(1)  # the next one inside drops what was left to be dropped
    gc.collect()
    Account.fetch.invalidate_where(lambda key: False)
    memo = Account.fetch._self_cache
    memo.store.settle()
    assert (len(memo.store.index), memo.store._of_instance, len(memo.locks)) == (0, {}, 0)


@case
def loops_and_threads_share(seconds: float) -> None:
    """Tasks of two loops and two threads want the same keys, one by one and in bulk; some are cancelled."""
    calls = deque()

    @single_flight_ttl(ttl=60, key=lambda key: key)
    def fetch(key):
        calls.append(key)
        return [key]

    @fetch.twin
    async def twin(key):
        calls.append(key)
        await asyncio.sleep(0)
        return [key]

    @fetch.bulk
    async def load(keys):
        calls.append(keys)
        await asyncio.sleep(0)
        return {key: [key] for key in keys}

    async def ask():
        tasks = [asyncio.create_task(twin(key % 3)) for key in range(9)]
        many = asyncio.create_task(load([0, 1, 2, 3]))
        await asyncio.sleep(0)
        tasks[4].cancel()
        got = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(value in ([key % 3], got[4]) for key, value in enumerate(got)), got
        assert await many == {key: [key] for key in range(4)}
        assert not isinstance(got[4], Exception)  # its value, or its cancellation
        for key in range(4):
            fetch.invalidate(key)

    def in_loop(number):
        asyncio.run(ask())

    def in_thread(number):
        for key in range(4):
            assert fetch(key) == [key]
            fetch.invalidate(key)

    together(seconds, in_loop, in_loop, in_thread, in_thread)
    stats = fetch.stats()
    assert (stats.calls, stats.in_flight, stats.locks) == (len(calls), 0, stats.idle_locks), stats
    assert not singleflight.locks.waitgraph.waiting


@case
def chains_over_loops(seconds: float) -> None:
    """Flights wait for one another through tasks of several loops; each wait looks for a cycle."""

    @single_flight_ttl(ttl=0, key=lambda key: key)
    async def fetch(key):
        await asyncio.sleep(0)
        if key == 5:
            return [key]
        tasks = [asyncio.create_task(fetch(key + step)) for step in (1, 2) if key + step <= 5]
        return [key, *(await asyncio.gather(*tasks))[0]]

    async def ask(number):
        first = number % 3
        for got in await asyncio.gather(*[fetch(first) for _ in range(3)]):
            assert got == list(range(first, 6))

    together(seconds, *[lambda number: asyncio.run(ask(number))] * 3)
    assert fetch.stats().errors == 0
    assert not singleflight.locks.waitgraph.waiting
    assert not singleflight.locks.waitgraph.below
