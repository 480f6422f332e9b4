"""A forked child has working locks, no flights, and the values it inherited."""

import multiprocessing
import os

import pytest

from singleflight import KeyedLocks, single_flight_ttl
from singleflight.testing import Recorder

from ..children import answer, answered, in_child

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    # Newer Pythons warn about forking with threads: that is what is tested.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@single_flight_ttl(ttl=60)
def spawned(key):
    return os.getpid()


def test_a_child_may_ask_for_what_was_in_flight(crowd, gate):
    """The key in flight at the fork is free in the child; stored values are there; counts are its own."""
    seen, parent = Recorder(wants={"fetch"}), os.getpid()

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch(key):
        if key == "slow" and os.getpid() == parent:
            gate.pass_()
        return key

    fetch("quick")
    crowd.add(fetch, "slow")
    seen.wait_for("fetch", 2)

    def child():
        values = fetch("quick"), fetch("slow"), fetch.flights()
        stats = fetch.stats()
        return values, stats.hits, stats.fetches, stats.in_flight

    assert in_child(child) == "(('quick', 'slow', ()), 1, 1, 0)"
    gate.set()
    assert crowd.join() == ["slow"]


def test_a_fork_inside_the_function_stores_nothing_in_the_child():
    """The frame in the child returns to its caller, and its value is not stored there."""
    reader, writer = os.pipe()

    @single_flight_ttl(ttl=60)
    def fetch():
        return os.fork()

    child = fetch()
    if child == 0:
        answer(writer, lambda: (fetch.entry(), fetch.flights(), len(fetch.locks)))
    assert answered(child, reader, writer) == "(None, (), 0)"
    assert fetch.entry().value == child


def test_locks_held_by_others_are_free_in_the_child(crowd, gate):
    """The holds of the thread that forks stay; those of threads that are gone do not."""
    locks = KeyedLocks()

    def hold():
        with locks("theirs"):
            gate.pass_()

    crowd.add(hold)
    while not locks.held("theirs"):
        pass
    with locks("mine"):

        def child():
            with locks("theirs", timeout=5):
                return locks.held("mine"), locks.held("theirs")

        assert in_child(child) == "(True, True)"


def test_a_lock_that_is_held_over_a_fork_is_handed_on_in_the_child(crowd):
    """Who waits for it in the child gets it when the thread that forked gives it up there."""
    locks = KeyedLocks()

    def wait():
        with locks("mine", timeout=10):
            return "got it"

    held = locks("mine")
    held.__enter__()

    def child():
        crowd.add(wait)
        while not locks.waiting("mine"):
            pass
        held.__exit__(None, None, None)
        return crowd.join()

    try:
        assert in_child(child) == "['got it']"
    finally:
        held.__exit__(None, None, None)


def test_a_store_caught_in_mid_mutation_is_rebuilt():
    """A fork while another thread is inside the store: the child's store works."""

    @single_flight_ttl(ttl=60, maxsize=2)
    def fetch(key):
        return key

    fetch(1), fetch(2)
    store = fetch._self_memo.store
    with store._lock:
        store._torn = True
        result = in_child(lambda: [fetch(key) for key in (1, 2, 3, 4)])
        store._torn = False
    assert result == "[1, 2, 3, 4]"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing(method):
    """Decorated functions can be sent to worker processes."""
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert all(pid != os.getpid() for pid in pool.map_async(spawned, range(4)).get(40))


def test_a_bypass_of_another_thread_ends_at_the_fork(crowd, gate):
    """A child caches again, though a thread that it does not have was inside bypass()."""
    entered = []

    @single_flight_ttl(ttl=60)
    def fetch():
        return object()

    def hold():
        with fetch.bypass():
            entered.append(1)
            gate.pass_()

    crowd.add(hold)
    while not entered:
        pass
    assert in_child(lambda: fetch() is fetch()) == "True"
    with fetch.bypass():
        assert in_child(lambda: fetch() is fetch()) == "False"
