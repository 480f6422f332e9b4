"""fork: a child starts with the stored values, and without the calls in progress."""

import asyncio
import os

import pytest

from singleflight import KeyedLocks, drain_sync, single_flight_ttl
from singleflight.testing import FakeClock, Recorder, stampede

from ..children import answer, answered, in_child
from ..drivers import until

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    # Newer Pythons warn about forking with threads: that is what is tested.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def busy(crowd, gate):
    """A function with "stored" in its store, and "slow" in flight in the parent, with a follower."""
    seen, parent = Recorder(), os.getpid()

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch(key):
        if key == "slow" and os.getpid() == parent:
            gate.pass_()
        return key

    fetch("stored")
    crowd.add(fetch, "slow", count=2)
    seen.wait_for("wait")
    yield fetch
    gate.set()
    assert crowd.join() == ["slow", "slow"]
    assert fetch.stats().calls == 2


def test_a_child_may_ask_for_what_was_in_flight(busy):
    """A key that another thread was fetching at the fork is free in the child, which fetches it itself."""
    assert in_child(lambda: (busy.flights(), busy("slow"), busy.stats().calls)) == "((), 'slow', 1)"


def test_a_child_has_the_values_it_inherited(busy):
    """Values stored in the parent are hits in the child, which starts its own counts at zero."""

    def child():
        before = busy.stats()
        return busy("stored"), before.calls, before.hits, busy.stats().hits, busy.stats().calls

    assert in_child(child) == "('stored', 0, 0, 1, 0)"


def test_a_child_has_flights_of_its_own(busy):
    """A child's threads share calls as its parent's do; `drain_sync` waits for none of the parent's."""

    def child():
        result = stampede(busy, 5, args=("slow",))
        return result.calls, len(result.values), drain_sync(timeout=5)

    assert in_child(child) == "(1, 5, True)"


def test_a_child_may_ask_for_what_a_task_had_in_flight(loops):
    """The key of a task's flight is free in a child, which lacks its loop, for threads and tasks."""
    seen, parent, release = Recorder(), os.getpid(), asyncio.Event()

    @single_flight_ttl(ttl=0, listener=seen)
    async def fetch():
        if os.getpid() == parent:
            await release.wait()
        return 1

    @fetch.twin
    def plain():
        return 2

    loop = loops()
    caller = loop.start(fetch)
    seen.wait_for("fetch")
    assert in_child(lambda: (fetch.flights(), plain(), asyncio.run(fetch()))) == "((), 2, 1)"
    loop.loop.call_soon_threadsafe(release.set)
    assert caller.outcome() == 1


def test_a_fork_inside_the_function_stores_nothing_in_the_child():
    """After a fork inside the function, the child's call returns to its caller there and stores nothing."""
    reader, writer = os.pipe()

    @single_flight_ttl(ttl=60, max_idle_locks=0)
    def fetch():
        return os.fork()

    child = fetch()
    if child == 0:
        answer(writer, lambda: (fetch.entry(), fetch.flights(), len(fetch.locks)))
    assert answered(child, reader, writer) == "(None, (), 0)"
    assert fetch.entry().value == child


def test_locks_of_threads_that_are_gone_are_free(crowd, gate):
    """In the child only the thread that forked holds locks: those that it held before."""
    locks = KeyedLocks()

    def hold():
        with locks("theirs"):
            gate.pass_()

    crowd.add(hold)
    until(lambda: locks.held("theirs"))

    def child():
        with locks("theirs", timeout=5):
            return locks.held("mine"), locks.held("theirs")

    with locks("mine"):
        assert in_child(child) == "(True, True)"


def test_a_child_renews_by_itself(make_gate):
    """A child does not wait for a renewal in progress in the parent: it starts one of its own."""
    clock, held, parent = FakeClock(), make_gate(), os.getpid()

    @single_flight_ttl(ttl=60, grace=600, timer=clock)
    def fetch():
        if clock() and os.getpid() == parent:
            held.pass_()
        return clock()

    fetch()
    clock.advance(60)
    fetch()
    until(lambda: fetch.flights())

    def child():
        stale = fetch()
        return stale, drain_sync(timeout=10), fetch()

    assert in_child(child) == "(0.0, True, 60.0)"
    held.set()
    assert drain_sync(timeout=10)


def test_a_bypass_of_a_thread_that_is_gone_ends(crowd, gate):
    """A child caches again, even if another thread of the parent was inside `bypass()`."""
    inside = []

    @single_flight_ttl(ttl=60)
    def fetch():
        return object()

    def hold():
        with fetch.bypass():
            inside.append(1)
            gate.pass_()

    crowd.add(hold)
    until(lambda: inside)
    assert in_child(lambda: fetch() is fetch()) == "True"


@pytest.mark.parametrize("moment", range(1, 12))
def test_a_store_that_is_caught_in_mid_mutation_works(crowd, gate, moment):
    """After a fork while another thread is in a critical section, the child's store and locks work."""
    compared, parent = [], os.getpid()

    class Slow:
        def __init__(self, name):
            self.name = name

        def __hash__(self):
            return 1

        def __eq__(self, other):
            if "new" in (self.name, other.name) and os.getpid() == parent:
                compared.append(1)
                if len(compared) == moment:  # the first look takes no lock, and those after it do
                    gate.pass_()
            return self.name == other.name

    @single_flight_ttl(ttl=60, maxsize=2, max_idle_locks=None, key=lambda key: key)
    def fetch(key):
        return key.name

    fetch(Slow("stored")), fetch(Slow("older"))
    crowd.add(fetch, Slow("new"))
    until(lambda: len(compared) == moment)

    def child():
        values = [fetch(Slow(name)) for name in names]
        entries = [name for name in names if fetch.entry(Slow(name)) is not None]
        return values == names, len(entries), fetch.stats().entries, len(fetch.locks) - fetch.locks.idle

    names = ["new", "stored", "other", "older", "another"]
    assert in_child(child) == "(True, 2, 2, 0)"
    gate.set()
    assert crowd.join() == ["new"]
