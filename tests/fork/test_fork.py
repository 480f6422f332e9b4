"""A forked child has working locks, no flights, and the values it inherited."""

import multiprocessing
import os
import threading
from contextlib import contextmanager

import pytest

from singleflight import KeyedLocks, caches, configure_renewal, single_flight_ttl
from singleflight.drivers import pool as renewing
from singleflight.locks.mutex import mutex
from singleflight.process import registry
from singleflight.testing import FakeClock, Recorder

from ..children import answer, answered, in_child

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    # Newer Pythons warn about forking with threads: that is what is tested.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@single_flight_ttl(ttl=60)
def spawned(key):
    return os.getpid()


def test_a_childs_keys_values_and_counts_beside_a_thread(crowd, gate):
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


def test_a_frame_that_forks_returns_in_its_child_and_stores_nothing():
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


def test_a_fork_inside_a_loader_stores_nothing_in_the_child():
    """The frame in the child returns to its caller: nothing is stored, not even what came unasked."""
    reader, writer = os.pipe()

    @single_flight_ttl(ttl=60, key=lambda key: key)
    def fetch(key):
        return key

    @fetch.bulk(max_batch=2)
    def fetch_many(keys):
        if "A" in keys:
            pids.append(os.fork())
        return dict.fromkeys([*keys, "X"], "loaded")

    pids = []
    answered_ = fetch_many(["A", "B", "C"])
    if pids[0] == 0:
        answer(
            writer,
            lambda: (
                answered_,
                [fetch.entry(key) for key in "ABX"],
                fetch.flights(),
                fetch("X"),
                fetch.stats().in_flight,
            ),
        )
    told = answered(pids[0], reader, writer)
    assert told == "({'A': 'loaded', 'B': 'loaded', 'C': 'loaded'}, [None, None, None], (), 'X', 0)"
    assert {fetch.entry(key).value for key in "ABCX"} == {"loaded"}


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


def test_the_thread_that_forked_is_the_main_one_of_the_child(crowd):
    """It serves no pool: what it has it does not wait for, whoever has taken it and is gone."""
    locks = KeyedLocks()

    @contextmanager
    def block():
        with locks("a", timeout=0.01):
            yield

    def child():
        first = block()
        (lambda: first.__enter__())()
        block().__enter__()

    crowd.add(in_child, child)
    (told,) = crowd.join()
    assert told.startswith("FlightDeadlock(")


def test_a_store_caught_in_mid_mutation_is_rebuilt():
    """A fork while another thread is inside the store: the child's store works."""

    @single_flight_ttl(ttl=60, maxsize=2)
    def fetch(key):
        return key

    fetch(1), fetch(2)
    store = fetch._self_cache.store
    with store._lock:
        store._torn = True
        result = in_child(lambda: [fetch(key) for key in (1, 2, 3, 4)])
        store._torn = False
    assert result == "[1, 2, 3, 4]"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_functions_can_be_sent_to_worker_processes(method):
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


def test_a_bypass_that_another_thread_has_entered_too_ends_at_the_fork(crowd, gate):
    """Also where the thread that forks was inside of that very one before, and has left."""
    fetch, entered = single_flight_ttl(ttl=60)(lambda: object()), threading.Event()
    bypass = fetch.bypass()

    def hold():
        with bypass:
            entered.set()
            gate.pass_()

    with bypass:
        crowd.add(hold)
        assert entered.wait(10)
    assert fetch() is not fetch()
    assert in_child(lambda: fetch() is fetch()) == "True"


class Held:
    """Something of the library that another thread has in the midst of a section while this one forks."""

    def __init__(self, name):
        @single_flight_ttl(ttl=60, grace=60)
        def fetch(key="A"):
            return key

        fetch()
        memo = fetch._self_cache
        self.fetch = fetch
        self.lock = {
            "the registry of functions": registry._registering,
            "the mutex": mutex,
            "the store": memo.store._lock,
            "the off switch": memo.switching,
            "the pool of renewals": renewing._pool.lock,
        }[name]


HELD = [
    *("the registry of functions", "the mutex"),
    *("the store", "the off switch", "the pool of renewals"),
]


@pytest.mark.parametrize("name", HELD)
def test_what_another_thread_was_in_the_midst_of_is_free_in_the_child(crowd, gate, name):
    """Whatever lock of the library another thread had at the fork: the child decorates, calls and renews."""
    held, entered = Held(name), threading.Event()
    fetch = held.fetch

    def hold():
        with held.lock:
            entered.set()
            gate.pass_()

    def child():
        @single_flight_ttl(ttl=60)
        def decorated():
            return "decorated"

        renewed = threading.Event()
        accepted = renewing.in_background(renewed.set)
        with fetch.bypass():
            fetch("A")
        fetch.invalidate("A")
        called = fetch("A"), fetch("B"), decorated()
        return called, accepted and renewed.wait(5), decorated in caches()

    crowd.add(hold)
    assert entered.wait(5)
    assert in_child(child) == "(('A', 'B', 'decorated'), True, True)"


def test_a_child_has_the_pool_that_was_configured():
    """It renews in as many threads, and queues as much, as its parent was told to."""
    clock, caller = FakeClock(), threading.current_thread()
    goes_on = threading.Event()

    @single_flight_ttl(ttl=60, grace=60, timer=clock)
    def fetch(key):
        if clock() and threading.current_thread() is not caller:
            goes_on.wait(10)
        return clock()

    def child():
        return [fetch(key) for key in range(5)]  # what finds no place is renewed by the caller itself

    for key in range(5):
        fetch(key)
    clock.advance(60)
    configure_renewal(threads=2, queued=1)
    try:
        assert in_child(child) == "[0.0, 0.0, 0.0, 60.0, 60.0]"
    finally:
        configure_renewal()
