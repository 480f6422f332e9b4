"""Coroutine functions at the worst moments: amid a section of their own thread."""

import asyncio
import gc
import threading

import pytest

from singleflight import single_flight_ttl
from singleflight.core import transitions
from singleflight.locks import slots
from singleflight.locks.mutex import inside, mutex

from ..drivers import PATIENCE, Gate, InThread, eventually
from .checks import struck_task


@pytest.mark.parametrize("section", ["the mutex", "its store"])
def test_a_loop_that_runs_amid_a_section(section):
    """A signal handler that runs a loop there neither waits nor keeps others out: it calls directly."""
    gate, entered, values = Gate(), threading.Event(), []

    @single_flight_ttl(ttl=60, key=lambda: "k")
    def plain():
        entered.set()
        gate.pass_()
        return "led"

    @plain.twin
    async def coroutine():
        return "directly"

    async def lead():
        return plain()

    async def handle():
        with mutex if section == "the mutex" else plain._self_cache.store._lock:
            values.append(asyncio.run(asyncio.wait_for(coroutine(), PATIENCE / 5)))

    leader = InThread(lead, ())
    assert entered.wait(PATIENCE)
    outcome = InThread(handle, ()).outcome()
    gate.set()
    assert leader.outcome() == "led"
    assert (outcome, values) == (None, ["directly"])


def test_a_follower_that_the_collector_destroys_amid_a_section(monkeypatch):
    """The only follower of an unclaimed flight goes just as somebody claims it: still one flight per key."""

    async def main():
        begun, running, most, go, gone = 0, 0, 0, asyncio.Event(), []

        @single_flight_ttl(ttl=60, key=lambda: "k", max_idle_locks=0)
        async def fetch():
            nonlocal begun, running, most
            begun += 1
            if begun == 1:
                await go.wait()
                raise ValueError
            running += 1
            most = max(most, running)
            for _ in range(10):
                await asyncio.sleep(0)
            running -= 1
            return begun

        leader = asyncio.create_task(fetch())
        await eventually(lambda: begun)
        follower = fetch()
        follower.send(None)
        go.set()
        with pytest.raises(ValueError):
            await leader

        class Numbers:
            def __next__(self):  # asked in the section that claims the flight
                if not gone:
                    gone.append(follower.close())
                return next(slots.numbers)

        monkeypatch.setattr(transitions, "numbers", Numbers())
        assert await asyncio.gather(*(asyncio.create_task(fetch()) for _ in range(3))) == [2, 2, 2]
        assert most == 1
        assert gone
        assert (fetch.flights(), len(fetch.locks)) == ((), 0)
        stats = fetch.stats()
        assert (stats.fetches, stats.waits, stats.errors) == (1, 2, 2)

    asyncio.run(main())


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("fails", [False, True])
def test_a_task_may_be_interrupted_while_its_flight_ends(waiting, fails):
    """Where its loop goes on all the same, its caller does not hang, and its key is free."""
    number, where, found = 0, "start", []
    while where is not None:

        @single_flight_ttl(ttl=60)
        async def fetch():
            if fails:
                raise ValueError

        with struck_task(number, fetch()) as (where, task):
            if not task.done() or fetch.flights() or waiting or inside():
                found.append(where)
        waiting.clear()
        number += 1
    gc.collect()  # coroutines that were struck before they had a task, and not in another test
    assert not found, "\n".join(found)
    assert number > 50
