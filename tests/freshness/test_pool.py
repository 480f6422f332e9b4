"""Who renews: the pool's threads, a task of the loop, or, where that is not to be had, the caller itself."""

import asyncio
import gc
import os
import threading
import time

import pytest

import singleflight
from singleflight import configure_renewal, single_flight_ttl
from singleflight.drivers import pool as renewing
from singleflight.testing import FakeClock

from ..amid import amid
from ..drivers import Gate, InThread, LoopThread, until


@pytest.fixture
def pool():
    """Configures the pool for one test."""
    yield configure_renewal
    configure_renewal()


@pytest.fixture
def make_gate():
    gates = []

    def make():
        gates.append(Gate())
        return gates[-1]

    yield make
    for gate in gates:
        gate.set()
    assert singleflight.drain_sync(timeout=10)


async def rounds(count):
    """Let everything that is ready run, so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


class Plain:
    """A plain function whose first value is stale; `runs` says which thread ran each execution."""

    def __init__(self, **options):
        self.clock, self.runs, self.steps = FakeClock(100.0), [], {}

        @single_flight_ttl(**{"ttl": 10, "grace": 50, "timer": self.clock, **options})
        def fetch(key="A"):
            number = len(self.runs)
            self.runs.append(threading.current_thread())
            step = self.steps.get(number)
            if isinstance(step, BaseException):
                raise step
            return number if step is None else step()

        self.fetch = fetch
        fetch()
        self.clock.advance(10)

    def in_line(self):
        return self.runs[-1] is threading.current_thread()


def refusing(monkeypatch):
    """A pool that takes nothing; how often it was asked."""
    asked = []
    monkeypatch.setattr("singleflight.drivers.threads.in_background", lambda run: asked.append(run))
    return asked


def test_where_it_runs():
    """A plain function is renewed by a thread of the pool, which is named and ends with the process."""
    plain = Plain()
    assert plain.fetch() == 0
    until(lambda: plain.fetch.entry().value == 1)
    assert plain.runs[1].name.startswith("singleflight-renewal")


@pytest.mark.parametrize("option", ["grace", "refresh_ahead"])
def test_a_refused_caller_renews_in_line(monkeypatch, option):
    """Nothing is lost: it gets the new value, which is stored."""
    asked = refusing(monkeypatch)
    plain = Plain(**({"grace": 50} if option == "grace" else {"grace": 0, "refresh_ahead": 0.5, "ttl": 20}))
    assert plain.fetch() == 1
    assert plain.in_line()
    assert plain.fetch() == 1
    assert len(asked) == 1
    stats = plain.fetch.stats()
    assert (stats.calls, stats.refreshes, stats.fetches, stats.hits + stats.stale_hits) == (2, 1, 1, 2)


def test_a_refused_caller_whose_renewal_fails(monkeypatch):
    """It gets the stale value, and the next ones do without trying for a while."""
    asked = refusing(monkeypatch)
    plain = Plain()
    plain.steps[1] = ValueError()
    assert [plain.fetch() for _ in range(5)] == [0] * 5
    assert (len(plain.runs), len(asked)) == (2, 1)
    plain.clock.advance(1)
    assert plain.fetch() == 2


def test_an_interrupt_while_renewing_in_line(monkeypatch):
    """Ctrl-C is the caller's own; the value stays and the next caller renews."""
    refusing(monkeypatch)
    plain = Plain()
    plain.steps[1] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        plain.fetch()
    assert plain.fetch.flights() == ()
    assert plain.fetch() == 2


def test_others_are_served_while_one_renews_in_line(monkeypatch, make_gate):
    """The stale value, at once."""
    refusing(monkeypatch)
    plain, gate, begun = Plain(), make_gate(), make_gate()
    plain.steps[1] = lambda: (begun.set(), gate.pass_(), 7)[-1]

    async def call():
        return plain.fetch()

    one = InThread(call, ())
    begun.pass_()
    assert [plain.fetch() for _ in range(5)] == [0] * 5
    gate.set()
    assert one.outcome() == 7
    assert plain.fetch() == 7


def test_a_full_pool(pool, make_gate):
    """With one thread and no queue a second renewal finds no place, until the first has ended."""
    pool(threads=1, queued=0)
    first, second, gate = Plain(), Plain(), make_gate()
    first.steps[1] = lambda: gate.pass_() or 1
    assert first.fetch() == 0
    assert second.fetch() == 1
    assert second.in_line()
    gate.set()
    until(lambda: not first.fetch.flights() and renewing._pool.under_way == 0)
    second.clock.advance(10)
    assert second.fetch() == 1
    until(lambda: second.fetch.entry().value == 2)


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, ValueError])
def test_a_renewal_that_raises_gives_its_place_back(pool, raised):
    """Whatever it raises: the next renewal is run by a thread again."""
    pool(threads=1, queued=0)
    first, second = Plain(), Plain()
    first.steps[1] = raised()
    assert first.fetch() == 0
    until(lambda: len(first.runs) == 2 and renewing._pool.under_way == 0)
    assert second.fetch() == 0
    until(lambda: second.fetch.entry().value == 1)


def test_a_renewal_whose_thread_cannot_be_started(pool, monkeypatch):
    """No new thread: the caller renews, and what was queued meanwhile is not run a second time."""
    pool(threads=2)
    with monkeypatch.context() as patched:

        def refuse(self):
            raise RuntimeError("can't start new thread")

        patched.setattr(threading.Thread, "start", refuse)
        plain = Plain()
        assert plain.fetch() == 1
        assert plain.in_line()
    other = Plain()
    assert other.fetch() == 0
    until(lambda: other.fetch.entry().value == 1 and renewing._pool.under_way == 0)
    assert len(plain.runs) == 2


def test_whoever_needs_a_renewal_that_waits_for_a_thread_runs_it(pool, make_gate):
    """A miss does not wait for the pool behind a renewal that nobody runs yet; it is not run twice."""
    pool(threads=1, queued=10)
    busy, gate = Plain(), make_gate()
    busy.steps[1] = lambda: gate.pass_() or 1
    assert busy.fetch() == 0
    plain = Plain()
    assert plain.fetch() == 0
    (flight,) = plain.fetch.flights()
    assert (flight.kind, flight.leader) == ("refresh", "nobody yet")
    plain.clock.advance(50)
    assert plain.fetch() == 1
    assert plain.in_line()
    gate.set()
    until(lambda: renewing._pool.under_way == 0)
    assert len(plain.runs) == 2
    stats = plain.fetch.stats()
    assert (stats.fetches, stats.stale_hits, stats.refreshes, stats.calls) == (2, 1, 0, 2)


def test_refresh_runs_a_renewal_that_waits_for_a_thread(pool, make_gate):
    """And when it fails the value is still there, and is renewed by later readers."""
    pool(threads=1, queued=10)
    busy, gate = Plain(), make_gate()
    busy.steps[1] = lambda: gate.pass_() or 1
    assert busy.fetch() == 0
    plain = Plain()
    plain.steps[1] = ValueError()
    assert plain.fetch() == 0
    with pytest.raises(ValueError):
        plain.fetch.refresh()
    assert plain.fetch() == 0
    gate.set()
    until(lambda: renewing._pool.under_way == 0)
    plain.clock.advance(1)
    assert plain.fetch() == 0
    until(lambda: plain.fetch.entry().value == 2)
    assert len(plain.runs) == 3


def test_a_renewal_that_needs_another_one(pool):
    """In a pool of one thread a renewal may need what waits for that very thread."""
    pool(threads=1, queued=10)
    clock, began = FakeClock(), threading.Event()

    @single_flight_ttl(ttl=10, grace=10, timer=clock)
    def inner():
        return clock()

    @single_flight_ttl(ttl=10, grace=50, timer=clock)
    def outer():
        if clock() > 0:
            assert began.wait(10)
            clock.set(30.0)  # the inner value's grace is over, and its renewal waits for this thread
        return inner()

    assert outer() == 0.0
    clock.set(10.0)
    assert (outer(), inner()) == (0.0, 0.0)
    began.set()
    until(lambda: outer.entry().value == 30.0)


@pytest.mark.parametrize("how", ["invalidate", "put", "clear"])
def test_dropping_what_waits_for_a_thread(pool, make_gate, how):
    """A renewal that nobody has begun is not begun for nothing."""
    pool(threads=1, queued=10)
    busy, gate = Plain(), make_gate()
    busy.steps[1] = lambda: gate.pass_() or 1
    assert busy.fetch() == 0
    plain = Plain()
    assert plain.fetch() == 0
    {
        "invalidate": plain.fetch.invalidate,
        "put": lambda: plain.fetch.put(9),
        "clear": plain.fetch.cache_clear,
    }[how]()
    gate.set()
    until(lambda: renewing._pool.under_way == 0)
    assert len(plain.runs) == 1
    stats = plain.fetch.stats()
    assert (stats.calls, stats.failures, stats.in_flight) == (0 if how == "clear" else 1, 0, 0)
    assert plain.fetch() == (9 if how == "put" else 1)


def test_a_new_pool_lets_the_old_one_finish(pool, make_gate):
    """Renewals that are under way go on."""
    pool(threads=1)
    plain, gate = Plain(), make_gate()
    plain.steps[1] = lambda: gate.pass_() or 5
    assert plain.fetch() == 0
    until(lambda: len(plain.runs) == 2)
    pool(threads=3, queued=1)
    other = Plain()
    assert other.fetch() == 0
    until(lambda: other.fetch.entry().value == 1)
    gate.set()
    until(lambda: plain.fetch.entry().value == 5)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"threads": 0}, ValueError),
        ({"threads": True}, TypeError),
        ({"threads": 1.5}, TypeError),
        ({"queued": -1}, ValueError),
        ({"queued": None}, TypeError),
    ],
)
def test_bad_configurations_are_named(arguments, error):
    """And change nothing."""
    before = renewing._pool
    with pytest.raises(error, match=f"^{next(iter(arguments))}: "):
        configure_renewal(**arguments)
    assert renewing._pool is before


def test_coming_back_while_the_pool_is_busy_with_itself(pool):
    """A finaliser that strikes inside the pool's own section is served, and renews nothing."""
    pool(threads=1)
    plain = Plain()
    assert amid(renewing._pool.lock, lambda: (plain.fetch(), plain.fetch.flights())) == (0, ())
    assert plain.fetch() == 0
    until(lambda: plain.fetch.entry().value == 1)


# -- renewals that do not end ---------------------------------------------------------------------------


def test_a_plain_renewal_that_hangs(make_gate, caplog):
    """After flight_timeout it loses the key and a further one begins; what it brings late is not stored."""
    plain, gate = Plain(flight_timeout=0.02), make_gate()
    plain.steps[1] = lambda: gate.pass_() or "late"
    assert plain.fetch() == 0
    until(lambda: len(plain.runs) == 2)
    until(lambda: plain.fetch() == 0 and plain.fetch.flights()[0].detached)
    assert plain.fetch() == 0
    assert len(plain.runs) == 2  # not before the floor
    plain.clock.advance(1)
    assert plain.fetch() == 0
    until(lambda: plain.fetch.entry().value == 2)
    gate.set()
    until(lambda: not plain.fetch.flights())
    assert plain.fetch.entry().value == 2
    assert "took longer than 0.02 s" in caplog.text
    assert len(caplog.records) == 1


def test_a_coroutine_renewal_that_hangs():
    """It is cancelled, and a further one begins."""
    clock, runs, cancelled = FakeClock(), [], []
    loop = LoopThread()

    @single_flight_ttl(ttl=10, grace=50, timer=clock, flight_timeout=0.02)
    async def fetch():
        runs.append(clock())
        if len(runs) == 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise
        return len(runs)

    try:
        assert loop.run(fetch) == 1
        clock.advance(10)
        until(lambda: loop.run(fetch) == 1 and cancelled)
        clock.advance(1)
        until(lambda: loop.run(fetch) == 3)
        assert len(runs) == 3
        assert loop.reports == []
    finally:
        loop.close()


@pytest.mark.parametrize("grace_over", [False, True])
def test_a_loop_that_is_closed_while_renewing(grace_over):
    """The renewal died with it: readers elsewhere renew, and a miss does not wait for it."""
    clock, gate, runs = FakeClock(), Gate(), []
    first, second = LoopThread(), LoopThread()

    @single_flight_ttl(ttl=10, grace=50, timer=clock)
    async def fetch():
        runs.append(clock())
        if len(runs) == 2:
            await gate
        return len(runs)

    try:
        assert first.run(fetch) == 1
        clock.advance(10)
        assert first.run(fetch) == 1
        until(lambda: len(runs) == 2)
        first.kill()
        clock.advance(50 if grace_over else 0)
        until(lambda: second.run(fetch) == 3)
        assert fetch.flights() == ()
        assert len(runs) == 3
    finally:
        second.close()
        gc.collect()
    assert second.reports == []


def test_a_loop_that_does_not_run_any_more():
    """A renewal on a loop that was stopped and not closed is nobody's: others go on without it."""
    clock, runs = FakeClock(), []
    loop = asyncio.new_event_loop()

    @single_flight_ttl(ttl=10, grace=5, timer=clock)
    def fetch():
        runs.append("plain")
        return len(runs)

    @fetch.twin
    async def afetch():
        runs.append("coroutine")
        await asyncio.sleep(0)
        return len(runs)

    try:
        assert loop.run_until_complete(afetch()) == 1
        clock.advance(10)
        assert loop.run_until_complete(afetch()) == 1
        clock.advance(5)
        assert fetch() == len(runs)  # not for ever behind a task that never goes on
        assert runs[-1] == "plain"
        value = fetch()
        loop.run_until_complete(rounds(5))
        assert fetch() == value
        assert fetch.flights() == ()
    finally:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


def test_a_plain_twin_on_the_loop_that_renews():
    """Waiting there would hold up the renewal for ever: the cycle is told instead."""
    clock, gate = FakeClock(), Gate()
    loop = LoopThread()

    @single_flight_ttl(ttl=10, grace=5, timer=clock)
    def fetch():
        return "plain"

    @fetch.twin
    async def afetch():
        if clock() > 0:
            await gate
        return "coroutine"

    async def ask():
        await asyncio.sleep(0)
        return fetch()

    try:
        assert loop.run(afetch) == "coroutine"
        clock.advance(10)
        assert loop.run(afetch) == "coroutine"
        clock.advance(5)
        with pytest.raises(singleflight.FlightDeadlock):
            loop.run(ask)
        gate.set()
        until(lambda: not fetch.flights())
        assert fetch() == "coroutine"
    finally:
        gate.set()
        loop.close()


@pytest.mark.parametrize("how", ["one", "many"])
def test_eager_tasks(how):
    """Where tasks start eagerly the caller is not held up by the first steps of the renewal."""
    clock, order = FakeClock(), []

    @single_flight_ttl(ttl=10, grace=50, timer=clock)
    async def fetch():
        order.append("runs")
        return clock()

    @single_flight_ttl(ttl=10, grace=50, timer=clock)
    async def fetch_one(key):
        raise AssertionError

    @fetch_one.bulk
    async def fetch_many(keys):
        return {key: await fetch.__wrapped__() for key in keys}

    async def ask():
        return await fetch() if how == "one" else (await fetch_many(["A"]))["A"]

    async def main():
        await ask()
        clock.advance(10)
        if hasattr(asyncio, "eager_task_factory"):
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        assert await ask() == 0.0
        order.append("served")
        while fetch.flights() or fetch_one.flights():
            await asyncio.sleep(0)
        assert await ask() == 10.0

    asyncio.run(main())
    assert order == ["runs", "served", "runs"]


def test_asyncio_run_ends_while_renewing():
    """The loop cancels the renewal; nothing is printed or kept, and the next loop renews."""
    clock, runs = FakeClock(), []

    @single_flight_ttl(ttl=10, grace=50, timer=clock)
    async def fetch():
        runs.append(clock())
        if len(runs) == 2:
            await asyncio.Event().wait()
        return len(runs)

    async def twice():
        value = await fetch()
        await rounds(5)  # the renewal begins
        return value

    assert asyncio.run(twice()) == 1
    clock.advance(10)
    assert asyncio.run(twice()) == 1
    assert fetch.flights() == ()
    assert fetch.stats().failures == 0
    assert asyncio.run(twice()) == 1
    assert asyncio.run(twice()) == 3


@pytest.mark.parametrize("strike", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("how", ["one", "many"])
def test_what_ends_a_process_ends_the_loop_that_renews(strike, how):
    """Ctrl-C and exit() in a renewal are raised by its loop, since nobody awaits it; the value stays."""
    clock, struck = FakeClock(), []

    @single_flight_ttl(ttl=10, grace=50, timer=clock)
    async def fetch(key):
        struck.append(asyncio.current_task())
        raise strike

    @fetch.bulk
    async def fetch_many(keys):
        return {key: await fetch.__wrapped__(key) for key in keys}

    async def main():
        if how == "one":
            assert await fetch("A") == "old"
        else:
            assert await fetch_many(["A"]) == {"A": "old"}
        await rounds(10)
        raise AssertionError("the loop went on")

    fetch.put("old", "A")
    clock.advance(10)
    with pytest.raises(strike):
        asyncio.run(main())
    assert isinstance(struck.pop().exception(), strike)
    assert fetch.entry("A").value == "old"
    assert fetch.flights() == ()
    assert fetch.stats().failures == 0


# -- fork and exit ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("option", ["grace", "refresh_ahead"])
def test_a_fork_while_renewing(make_gate, option):
    """The child has the value, no flights, and renews by itself with a pool of its own."""
    parent, gate = os.getpid(), make_gate()
    plain = Plain(**({} if option == "grace" else {"refresh_ahead": 0.5, "ttl": 20}))
    plain.steps[1] = lambda: gate.pass_() if os.getpid() == parent else "child's"
    assert plain.fetch() == 0
    until(lambda: len(plain.runs) == 2)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            plain.runs.pop()
            told = [plain.fetch.flights(), plain.fetch.entry().value]
            plain.clock.advance(10)
            told.append(plain.fetch())
            give_up = time.monotonic() + 10
            while plain.fetch.entry().value == 0 and time.monotonic() < give_up:
                time.sleep(0.001)
            told += [plain.fetch(), plain.runs[-1].name.startswith("singleflight-renewal")]
            os.write(writer, repr(told).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        assert answer.read() == '[(), 0, 0, "child\'s", True]'
    os.waitpid(child, 0)
