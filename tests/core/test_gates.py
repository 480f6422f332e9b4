"""How long a thread stands at a gate."""

import asyncio
import threading

import pytest

from singleflight import single_flight_ttl
from singleflight.locks.latch import Latch
from singleflight.locks.task_waiters import LoopWaiters

PATIENCE = 10.0


class Turnstile:
    """A lock that is never free, and notes for how long it was waited for."""

    def __init__(self):
        self.asked = []

    def acquire(self, timeout):
        self.asked.append(timeout)
        return False


@pytest.mark.parametrize(
    ("timeout", "asked"), [(0.25, 0.25), (0.0, 0.0), (-1.0, 0.0), (float("inf"), threading.TIMEOUT_MAX)]
)
def test_a_wait_is_as_long_as_it_is_asked_to_be(timeout, asked):
    """Not at all where the time is over, and no longer than the platform can."""
    latch = Latch()
    latch._turnstile = Turnstile()
    assert latch.wait(timeout) is False
    assert latch._turnstile.asked == [asked]


def test_everybody_passes_an_open_gate():
    """One after another, and however often it is opened."""
    latch = Latch()
    assert not latch.wait(0.0)
    latch.open(), latch.open()
    assert latch.wait(0.0)
    assert latch.wait(0.0)


class Member:
    """One of a crowd that waits."""

    timer = None

    def __init__(self, loop):
        self.future = asyncio.Future(loop=loop)


class Strikes:
    """A loop, or a future, whose call strikes once; then it is what it stands for."""

    def __init__(self, inside, method, error):
        self._inside, self._method, self._error = inside, method, error

    def __getattr__(self, name):
        if name == self._method and self._error is not None:
            error, self._error = self._error, None
            raise error
        return getattr(self._inside, name)


@pytest.mark.parametrize("where", ["own loop", "another thread"])
@pytest.mark.parametrize("error", [RecursionError, MemoryError, KeyboardInterrupt])
def test_a_gate_whose_opening_was_cut_short_is_opened_again(where, error):
    """All of its tasks are woken by the second attempt, whom the first had reached or not."""

    async def main():
        loop = asyncio.get_running_loop()
        latch = Latch()
        group = latch.groups[loop] = LoopWaiters(loop)
        group.members = members = [Member(loop) for _ in range(3)]
        if where == "own loop":
            members[1].future = Strikes(members[1].future, "set_result", error)
            with pytest.raises(error):
                latch.open()
            latch.open()
        else:
            group.loop = Strikes(loop, "call_soon_threadsafe", error)
            with pytest.raises(error):
                await asyncio.to_thread(latch.open)
            await asyncio.to_thread(latch.open)
            await asyncio.sleep(0)
        assert [member.future.done() for member in members] == [True] * 3
        assert latch.groups == {}

    asyncio.run(main())


@pytest.mark.parametrize("bulk", [False, True], ids=["single", "bulk"])
@pytest.mark.parametrize("options", [{}, {"wait_timeout": 60}, {"flight_timeout": 60}], ids=str)
def test_a_task_sees_for_itself_that_its_gate_was_never_opened(bulk, options, monkeypatch):
    """As threads do, once in a while: a wake-up may be lost, and nobody waits for ever for it."""
    monkeypatch.setattr("singleflight.core.coordinator.LOOK", 0.01)
    monkeypatch.setattr("singleflight.drivers.wait.LOOK", 0.01)
    monkeypatch.setattr(LoopWaiters, "open", lambda self: None)

    @single_flight_ttl(ttl=60, **options)
    async def load(key):
        await go.wait()
        return key

    @load.bulk
    async def load_all(keys):
        return {key: key for key in keys}

    async def main():
        leader = asyncio.create_task(load("k"))
        await asyncio.sleep(0)
        follower = asyncio.create_task(load_all(["k"]) if bulk else load("k"))
        while not load.stats().in_flight or not load.flights()[0].followers:
            await asyncio.sleep(0)
        go.set()
        assert await leader == "k"
        assert await asyncio.wait_for(follower, PATIENCE) == ({"k": "k"} if bulk else "k")

    go = asyncio.Event()
    asyncio.run(main())
