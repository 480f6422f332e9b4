"""`Unchanged` keeps the value that is there, and `current_flight` says which one that is."""

import asyncio
import copy
import pickle
import threading

import pytest

import singleflight
from singleflight import CurrentFlight, SingleFlightError, Unchanged, current_flight, single_flight_ttl
from singleflight.core import current
from singleflight.testing import FakeClock

from ..bulk.conftest import driving
from ..drivers import until

CALLERS = 4


class Feed:
    """A function that asks whether its value has changed; `seen` has the flights it ran in.

    `version` is what it returns, or `Unchanged` while the stored value is that very version.
    """

    def __init__(self, driver, **options):
        self.driver, self.clock, self.seen, self.version = driver, FakeClock(100.0), [], "v1"
        self.gates = {}

        async def fetch(key="A"):
            flight = current_flight()
            self.seen.append(flight)
            gate = self.gates.get(len(self.seen) - 1)
            if gate is not None:
                await gate
            return self.answer(flight.previous)

        async def load(keys):
            flight = current_flight()
            self.seen.append(flight)
            return {key: self.answer(flight.entries.get(key)) for key in keys}

        self.fetch = driver.decorate(
            fetch, timer=self.clock, key=lambda key="A": key, **{"ttl": 10, **options}
        )
        self.load = driver.loader(self.fetch, load)

    def answer(self, previous):
        return Unchanged if previous is not None and previous.value == self.version else self.version

    def call(self, *args):
        return self.driver.call(self.fetch, *args)

    def hold(self, number):
        self.gates[number] = self.driver.gate()
        return self.gates[number]


@pytest.fixture(params=[("thread",), (0,), ("thread", 0, "thread", 1)], ids=["threads", "tasks", "mixed"])
def driver(request):
    """Threads, tasks, or both; with loaders."""
    yield from driving(*request.param)


@pytest.fixture
def feed(driver):
    """Makes them."""
    return lambda **options: Feed(driver, **options)


def test_unchanged_keeps_the_value_for_another_ttl(feed):
    """After its ttl the function sees the entry, keeps it, and the value is fresh for a whole ttl more."""
    made = feed()
    assert made.call() == "v1"
    made.clock.advance(11)
    assert made.call() == "v1"
    assert (made.seen[1].previous.value, made.seen[1].previous.age) == ("v1", 11.0)
    made.clock.advance(9)
    assert made.call() == "v1"
    stats = made.fetch.stats()
    assert (stats.calls, stats.fetches, stats.hits, stats.uncached) == (2, 2, 1, 0)


def test_followers_share_what_was_kept(feed):
    """Those who wait for a flight that keeps its value receive that value."""
    made = feed()
    made.call()
    made.clock.advance(11)
    gate = made.hold(1)
    callers = [made.driver.start(made.fetch) for _ in range(CALLERS)]
    gate.set()
    assert [caller.outcome() for caller in callers] == ["v1"] * CALLERS
    assert made.fetch.stats().calls == 2


def test_a_refresh_and_a_renewal_may_keep_it(feed):
    """`refresh`, refresh-ahead and grace renew an unchanged value like any other."""
    made = feed(grace=100)
    made.call()
    made.clock.advance(3)
    assert made.driver.call(made.fetch.refresh) == "v1"
    assert (made.seen[1].kind, made.fetch.entry().age) == ("refresh", 0.0)
    made.clock.advance(11)
    assert made.call() == "v1"
    assert singleflight.drain_sync(timeout=10)
    assert (made.fetch.entry().age, made.fetch.entry().state) == (0.0, "fresh")
    assert made.fetch.stats().failures == 0


def test_a_change_replaces_it(feed):
    """Another value than the stored one is stored in its place."""
    made = feed()
    made.call()
    made.version = "v2"
    made.clock.advance(11)
    assert (made.call(), made.fetch.entry().value) == ("v2", "v2")


def test_nothing_to_keep_is_an_error(driver):
    """`Unchanged` without a stored value raises `SingleFlightError`, tried again like any failure."""
    runs = []

    async def fetch(key):
        runs.append(key)
        return Unchanged

    fetched = driver.decorate(fetch)
    with pytest.raises(SingleFlightError, match=r"fetch: Unchanged was .* for .*'A'.*no value to keep"):
        driver.call(fetched, "A")
    assert (fetched.entry("A"), fetched.flights(), fetched.stats().failures) == (None, (), 1)


def test_a_stored_failure_is_nothing_to_keep(driver):
    """A failure kept by `failure_ttl` is no previous value."""
    clock, previous = FakeClock(), []

    async def fetch(key):
        previous.append(current_flight().previous)
        if len(previous) == 1:
            raise ValueError("down")
        return Unchanged

    fetched = driver.decorate(fetch, failure_ttl=5, timer=clock)
    with pytest.raises(ValueError, match="down"):
        driver.call(fetched, "A")
    clock.advance(6)
    with pytest.raises(SingleFlightError, match="no value to keep"):
        driver.call(fetched, "A")
    assert previous == [None, None]


def test_what_was_invalidated_meanwhile_is_not_stored_again(feed):
    """A flight that is invalidated and then keeps its value gives it to its own callers alone."""
    made = feed()
    made.call()
    made.clock.advance(11)
    gate = made.hold(1)
    caller = made.driver.start(made.fetch)
    until(lambda: len(made.seen) == 2)
    assert made.fetch.invalidate()
    gate.set()
    assert (caller.outcome(), made.fetch.entry()) == ("v1", None)


def test_the_ttl_and_the_policy_are_asked_again(driver):
    """A kept value lands: `cache_if` and a callable `ttl` see it once more."""
    clock, landings, asked = FakeClock(), [], []

    async def fetch(key):
        return 7 if current_flight().previous is None else Unchanged

    fetched = driver.decorate(
        fetch,
        timer=clock,
        ttl=lambda landing: landings.append(landing.value) or 5,
        cache_if=lambda v: asked.append(v) or 1,
    )
    driver.call(fetched, "A")
    clock.advance(6)
    assert driver.call(fetched, "A") == 7
    assert (landings, asked) == ([7, 7], [7, 7])


def test_a_loader_keeps_single_items(feed):
    """A loader sees what is stored by item, and may keep some values and bring others."""
    made = feed()
    assert made.driver.call(made.load, ["A", "B"]) == {"A": "v1", "B": "v1"}
    assert (made.seen[0].kind, made.seen[0].key, made.seen[0].entries) == ("bulk", ("A", "B"), {})
    made.clock.advance(11)
    assert made.driver.call(made.load, ["A", "B", "C"]) == {"A": "v1", "B": "v1", "C": "v1"}
    assert {item: entry.value for item, entry in made.seen[1].entries.items()} == {"A": "v1", "B": "v1"}
    assert made.fetch.entry("A").age == 0.0


def test_an_item_without_a_value_to_keep_fails_alone(driver):
    """`Unchanged` for an item that is not stored fails that item; the others land."""

    async def fetch(key):
        raise AssertionError("not called")

    async def load(keys):
        return {"A": 1, "B": Unchanged}

    fetched = driver.decorate(fetch, key=lambda key: key)
    loader = driver.loader(fetched, load)
    with pytest.raises(SingleFlightError, match="'B'"):
        driver.call(loader, ["A", "B"])
    assert (fetched.entry("A").value, fetched.entry("B")) == (1, None)


def test_the_innermost_flight_is_the_current_one():
    """Where one decorated function calls another each sees its own flight, and outside there is none."""
    seen = []

    @single_flight_ttl(ttl=60)
    def inner(key):
        seen.append(current_flight().key)
        return key

    @single_flight_ttl(ttl=60)
    def outer(key):
        inner("in")
        seen.append(current_flight().key)
        return key

    @single_flight_ttl(ttl=60)
    async def task(key):
        seen.append(current_flight().key)
        outer("out")
        seen.append(current_flight().key)
        return key

    asyncio.run(task("task"))
    assert seen == [("task",), ("in",), ("out",), ("task",)]
    assert current_flight() is None


def test_tasks_and_threads_of_a_flight_run_in_it():
    """What a coroutine function starts sees its flight until that has landed, and None afterwards."""
    later = []

    async def wait_and_look(gate):
        await gate.wait()
        later.append(current_flight())

    async def main():
        gate = asyncio.Event()

        @single_flight_ttl(ttl=60)
        async def fetch(key):
            async with fetch.locks("other"):
                child = await asyncio.gather(look())
            thread = await asyncio.to_thread(current_flight)
            tasks.append(asyncio.ensure_future(wait_and_look(gate)))
            return [child[0].key, thread.key]

        tasks = []
        assert await fetch("A") == [("A",), ("A",)]
        gate.set()
        await asyncio.wait_for(tasks[0], 10)

    async def look():
        return current_flight()

    asyncio.run(main())
    assert later == [None]


def test_what_is_below_a_flight_has_none_once_it_has_landed():
    """A task that goes on before the flight's own task is told of its end sees that it has landed."""
    seen = []

    async def main():
        landing = asyncio.get_running_loop().create_future()

        async def look():
            await landing
            seen.append(current_flight())

        @single_flight_ttl(ttl=60, cache_if=lambda value: landing.set_result(None) or True)
        async def fetch(key):
            tasks.append(asyncio.ensure_future(look()))
            await asyncio.sleep(0)
            seen.append(current_flight().entries)
            return key

        tasks = []
        await fetch("A")
        await asyncio.wait_for(tasks[0], 10)

    asyncio.run(main())
    assert seen == [{}, None]


def test_what_a_loader_starts_runs_in_its_flight():
    """A task of a loader's sees the keys that this call of it is for, and their entries."""
    seen = []

    async def look():
        seen.append(current_flight())

    @single_flight_ttl(ttl=60, key=lambda key: key)
    async def fetch(key):
        return key

    @fetch.bulk
    async def load(keys):
        await asyncio.ensure_future(look())
        return {key: key for key in keys}

    fetch.put("old", "A")
    assert asyncio.run(load(["A", "B"])) == {"A": "old", "B": "B"}
    assert [(flight.key, flight.kind, flight.entries) for flight in seen] == [(("B",), "bulk", {})]


def test_who_does_not_lead_has_none():
    """A `copy` that is made for a caller runs in no flight: it has landed, or is somebody else's."""
    clock, seen = FakeClock(100.0), []
    fetch = single_flight_ttl(
        ttl=10, grace=60, timer=clock, copy=lambda value: seen.append(current_flight()) or value
    )(lambda: 1)
    fetch()
    clock.advance(11)
    fetch()
    until(lambda: not fetch.flights())
    assert seen == [None, None]


def test_a_clock_that_fails_tells_the_age_when_the_flight_began():
    """`current_flight` does not raise what the clock does."""
    clock, broken, ages = FakeClock(100.0), [], []

    def timer():
        if broken:
            raise OSError(broken.pop())
        return clock()

    @single_flight_ttl(ttl=10, timer=timer)
    def fetch():
        clock.advance(5)
        broken.append("broken")
        flight = current_flight()
        ages.append(None if flight.previous is None else flight.previous.age)
        broken.clear()
        return 1

    fetch()
    clock.advance(20)
    fetch()
    assert ages == [None, 20.0]


def test_a_call_that_is_no_flight_has_none(monkeypatch):
    """Inside `bypass()`, and with the library switched off, there is no flight, also below one."""
    seen = []

    @single_flight_ttl(ttl=60)
    def inner(key):
        seen.append(current_flight())

    @inner.bulk
    def inners(keys):
        seen.append(current_flight())
        return {}

    @single_flight_ttl(ttl=60, key=lambda: "outer")
    def outer():
        with inner.bypass():
            inner("A")
            inners(["A"])
            seen.append(current_flight().key)
        return 1

    outer()
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")
    inner("A")
    assert seen == [None, None, "outer", None]


def test_a_thread_that_a_plain_function_starts_has_none():
    """Frames and contexts end at a new thread."""
    seen = []

    @single_flight_ttl(ttl=60)
    def fetch():
        thread = threading.Thread(target=lambda: seen.append(current_flight()))
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        return 1

    fetch()
    assert seen == [None]


def test_what_lands_is_looked_at(monkeypatch):
    """Anything but `Unchanged` is checked, by its function's name and by how it came, and lands itself."""
    seen, value = [], object()
    monkeypatch.setattr(current, "check_shareable", lambda *args: seen.append(args))
    assert current.landing_value("fetch", None, value) is value
    assert current.landing_value("fetch", None, value, 3, "its loader brought") is value
    assert seen == [("fetch", value, "returned", 0), ("fetch", value, "its loader brought", 3)]


def test_unchanged_is_one_object_and_no_value():
    """It survives copying and pickling as itself, and cannot be put."""
    assert (
        copy.deepcopy(Unchanged) is copy.copy(Unchanged) is pickle.loads(pickle.dumps(Unchanged)) is Unchanged
    )
    assert repr(Unchanged) == "Unchanged"

    @single_flight_ttl(ttl=60)
    def fetch(key):
        return key

    fetch("A")
    with pytest.raises(TypeError, match="Unchanged is what a function returns"):
        fetch.put(Unchanged, "A")
    assert fetch.entry("A").value == "A"
    assert CurrentFlight("A", "call", None, {}).previous is None
