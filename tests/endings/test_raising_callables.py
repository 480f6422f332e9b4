"""Whatever is raised by what users hand in, and whenever: every flight ends, and nobody waits for ever."""

import asyncio
import contextlib
import threading

import pytest

from singleflight import single_flight_ttl

from ..drivers import LoopThread, until
from .conftest import assert_quiet

PATIENCE = 10.0
MOST = 12  # more often than any of them is called by one story


class Struck(Exception):
    """What a callable raises."""


class StruckHard(BaseException):
    """The same, past `except Exception`."""


class Nth:
    """Calls a function, and raises instead at the n-th call."""

    def __init__(self, function, error):
        self.function, self.error = function, error
        self.calls, self.strike_at = 0, 0

    def __call__(self, *args):
        self.calls += 1
        if self.calls == self.strike_at:
            raise self.error(f"at call {self.calls}")
        return self.function(*args)


def timer_of(clock=None):
    ticks = iter(range(10**6))
    return lambda: float(next(ticks)) / 1000


# Which option is struck, and what it does as long as it is not.
CALLABLES = {
    "timer": timer_of,
    "ttl": lambda: lambda landing: 60,
    "cache_if": lambda: lambda value: value is not None,
    "listener": lambda: lambda event: None,
    "key": lambda: lambda key: key,
}


def decorated(which, error, body, **options):
    struck = Nth(CALLABLES[which](), error)
    options = {"ttl": 60, "grace": 5, which: struck, **options}
    return single_flight_ttl(**options)(body), struck


def tried(run, *args):
    with contextlib.suppress(Struck, StruckHard, ConnectionError):
        run(*args)


def follow(function, first, second, gate):
    """One caller leads, another follows it where it can; both must come back."""
    live = function._self_cache.locks.live  # not `flights`, which reads the clock
    callers = [threading.Thread(target=tried, args=call, daemon=True) for call in (first, second)]
    callers[0].start()
    until(lambda: live() or not callers[0].is_alive())
    callers[1].start()
    until(
        lambda: (
            not all(caller.is_alive() for caller in callers)
            or any(slot.turn and slot.turn.waiters() for slot in live())
        )
    )
    gate.set()
    for caller in callers:
        caller.join(PATIENCE)
        assert not caller.is_alive(), "a caller waits for ever"


@pytest.mark.parametrize("error", [Struck, StruckHard])
@pytest.mark.parametrize("which", CALLABLES)
def test_a_leader_and_a_follower_in_threads(which, error):
    """A leader and a follower in threads, with a value and a failure: both come back, the key is free."""
    gate = threading.Event()

    def fetch(key):
        assert gate.wait(PATIENCE)
        if key == "bad":
            raise ConnectionError(key)
        return key

    for number in range(1, MOST):
        function, struck = decorated(which, error, fetch, failure_ttl=1)
        for key in ("good", "bad"):
            gate.clear()
            struck.strike_at = struck.calls + number
            follow(function, (function, key), (function, key), gate)
            struck.strike_at = 0
            assert_quiet(function)
            tried(function, key)
        assert_quiet(function)


@pytest.mark.parametrize("error", [Struck, StruckHard])
@pytest.mark.parametrize("which", CALLABLES)
def test_a_leader_and_a_follower_in_tasks(which, error):
    """The same for tasks of one loop."""

    async def story(number):
        gate = asyncio.Event()

        async def fetch(key):
            await gate.wait()
            if key == "bad":
                raise ConnectionError(key)
            return key

        async def ask(key):
            with contextlib.suppress(Struck, StruckHard, ConnectionError):
                await function(key)

        function, struck = decorated(which, error, fetch, failure_ttl=1)
        for key in ("good", "bad"):
            gate.clear()
            struck.strike_at = struck.calls + number
            callers = [asyncio.create_task(ask(key)) for _ in range(2)]
            for _ in range(10):
                await asyncio.sleep(0)
            gate.set()
            _, hanging = await asyncio.wait(callers, timeout=PATIENCE)
            assert not hanging, "a caller waits for ever"
            struck.strike_at = 0
            await ask(key)
        return function

    for number in range(1, MOST):
        loop = LoopThread()
        try:
            function = loop.run(story, number)
        finally:
            loop.close()
        assert_quiet(function)


@pytest.mark.parametrize("error", [Struck, StruckHard])
@pytest.mark.parametrize("which", CALLABLES)
@pytest.mark.parametrize("colour", ["thread", "task"])
def test_a_bulk_call_and_who_follows_it(colour, which, error):
    """The same for a bulk call and a single caller that follows one of its keys."""
    gate = threading.Event()

    def fetch(key):
        return key

    def plain(keys):
        assert gate.wait(PATIENCE)
        return {key: key for key in [*keys, "extra"]}

    async def coroutine(keys):
        return plain(keys)

    for number in range(1, 2 * MOST):
        function, struck = decorated(which, error, fetch)
        loader = function.bulk(plain if colour == "thread" else coroutine)
        load = loader if colour == "thread" else lambda keys, loader=loader: asyncio.run(loader(keys))
        gate.clear()
        struck.strike_at = struck.calls + number
        follow(function, (load, ["a", "b"]), (function, "a"), gate)
        struck.strike_at = 0
        assert_quiet(function)
        assert load(["a", "b"]) == {"a": "a", "b": "b"}
        assert_quiet(function)
