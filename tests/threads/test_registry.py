"""Keyed locks under threads: exclusive, fair, and empty when all is quiet."""

import threading
import weakref

import pytest

from singleflight import FlightTimeout, KeyedLocks, single_flight_ttl


def test_max_idle_zero_leaves_an_empty_registry(crowd):
    """When all is quiet nothing is left, whatever mixture of holds and timeouts there was."""
    locks, start = KeyedLocks(max_idle=0), threading.Barrier(8)

    def hammer():
        start.wait(10)
        for number in range(400):
            try:
                with locks(number % 5, (number + 1) % 5, timeout=0 if number % 2 else 15):
                    pass
            except FlightTimeout:
                pass

    crowd.add(hammer, count=8)
    assert crowd.join() == [None] * 8
    assert len(locks) == 0


def test_evicting_everything_spares_what_is_held_or_awaited(crowd, gate, until):
    """A lock in use stays the same lock, however long it is held."""
    locks = KeyedLocks(max_idle=0)

    def hold():
        with locks("a"):
            return locks.held("a")

    with locks("a"):
        crowd.add(hold)
        until(lambda: locks.waiting("a") == 1)
        assert locks.evict_idle() == 0
        assert (len(locks), locks.idle) == (1, 0)
        with pytest.raises(FlightTimeout):
            crowd_key(locks, crowd)
    assert crowd.join()[0] is True
    assert len(locks) == 0


def crowd_key(locks, crowd):
    """Another thread that tries the key at once; its outcome is raised here."""
    outcome = []

    def attempt():
        try:
            with locks("a", timeout=0):
                outcome.append(None)
        except FlightTimeout as error:
            outcome.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join(15)
    assert outcome
    if outcome[0] is not None:
        raise outcome[0]


def test_a_waiter_that_gives_up_keeps_nobody_waiting(crowd, gate, until):
    """The one behind it gets the key next."""
    locks = KeyedLocks(max_idle=0)

    def hold():
        with locks("a"):
            gate.pass_()
            return "first"

    def wait(timeout):
        with locks("a", timeout=timeout):
            return "had it"

    crowd.add(hold)
    until(lambda: locks.held("a"))
    crowd.add(wait, 0.05)
    until(lambda: locks.waiting("a") == 1)
    crowd.add(wait, 15)
    until(lambda: isinstance(crowd.outcomes[1], FlightTimeout))
    until(lambda: locks.waiting("a") == 1)
    gate.set()
    outcomes = crowd.join()
    assert (outcomes[0], outcomes[2]) == ("first", "had it")
    assert len(locks) == 0


def test_timeout_zero_takes_a_free_key():
    """Not waiting at all is no obstacle when there is nothing to wait for."""
    locks = KeyedLocks()
    with locks("a", timeout=0):
        assert locks.held("a")


def test_keys_with_equal_hashes_are_different_locks():
    """A collision in the dictionary is not a collision of locks."""

    class Collider:
        def __hash__(self):
            return 1

    locks = KeyedLocks()
    with locks(Collider()), locks(Collider(), timeout=0):
        assert len(locks) == 2


def test_equal_keys_are_one_lock():
    """As in a dictionary, 1, 1.0 and True are one key; named together they are taken once."""
    locks = KeyedLocks()
    with locks(1, 1.0, True):
        assert len(locks) == 1


def test_a_fresh_value_is_served_while_the_lock_is_held(gate):
    """Holding a key keeps flights out, not hits."""

    @single_flight_ttl(ttl=60, key=lambda key: key)
    def fetch(key):
        return key

    fetch("A")
    with fetch.locks("A"):
        assert fetch("A") == "A"


def test_waiting_callers_of_a_held_key_time_out_alone(crowd, until):
    """wait_timeout bounds also those who wait for a plain lock."""

    @single_flight_ttl(ttl=60, key=lambda key: key, wait_timeout=0, max_idle_locks=0)
    def fetch(key):
        return key

    with fetch.locks("A"):
        crowd.add(fetch, "A", count=3)
        assert all(isinstance(outcome, FlightTimeout) for outcome in crowd.join())
        assert fetch.locks.waiting("A") == 0
    assert len(fetch.locks) == 0
    assert fetch.stats().timeouts == 3


def test_an_invalidated_key_is_not_kept_alive():
    """Neither as an entry nor as an idle lock."""

    class Key:
        pass

    @single_flight_ttl(ttl=60, key=lambda key: key)
    def fetch(key):
        return "value"

    key = Key()
    seen = weakref.ref(key)
    fetch(key)
    assert fetch.locks.idle == 1
    fetch.invalidate(key)
    del key
    assert seen() is None
    assert fetch.locks.idle == 0
