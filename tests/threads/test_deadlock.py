"""Re-entry and cycles raise in the caller that would close them; everybody else goes on."""

import pytest

from singleflight import FlightDeadlock, KeyedLocks, UnhashableKey, single_flight_ttl
from singleflight.testing import Recorder


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_cycle_over_threads(crowd, make_gate, size):
    """Each thread leads one key and asks for the next; one of them is told, the rest recover, none hangs."""
    keys = "ABCDE"[:size]
    seen = Recorder()
    go = make_gate()

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen)
    def fetch(key):
        go.pass_()
        return fetch(keys[(keys.index(key) + 1) % size])

    for key in keys:
        crowd.add(fetch, key)
    seen.wait_for("fetch", size)
    go.set()
    outcomes = crowd.join()
    assert all(isinstance(outcome, FlightDeadlock) for outcome in outcomes)
    assert seen.of("deadlock")
    first = seen.of("deadlock")[0].cycle
    named = first.replace("'", "").split(" -> ")
    assert named[0] == named[-1]
    start = keys.index(named[0])
    assert named[:-1] == [keys[(start + step) % size] for step in range(size)]
    assert fetch.flights() == ()
    assert fetch.stats().locks == fetch.stats().idle_locks


def test_a_cycle_over_functions_and_plain_locks(crowd, make_gate):
    """A lock held by one thread and a flight led by another close a cycle too."""
    locks = KeyedLocks()
    seen, holding, go = Recorder(), make_gate(), make_gate()

    @single_flight_ttl(ttl=60, key=lambda: "F", listener=seen)
    def fetch():
        go.pass_()
        with locks("L"):
            return 1

    def hold():
        with locks("L"):
            holding.set()
            go.pass_()
            return fetch()

    crowd.add(fetch)
    seen.wait_for("fetch")
    crowd.add(hold)
    holding.pass_()
    go.set()
    outcomes = crowd.join()
    assert any(isinstance(outcome, FlightDeadlock) for outcome in outcomes)
    assert len(locks) == locks.idle


def test_locks_are_first_come_first_served(crowd, make_gate, until):
    """Waiters get the key in the order in which they came."""
    locks, order, go = KeyedLocks(), [], make_gate()

    def take(number):
        with locks("a"):
            order.append(number)

    def hold():
        with locks("a"):
            go.pass_()

    crowd.add(hold)
    until(lambda: locks.held("a"))
    for number in range(5):
        crowd.add(take, number)
        until(lambda n=number: locks.waiting("a") == n + 1)
    go.set()
    crowd.join()
    assert order == list(range(5))


def test_locks_refuse_bad_arguments():
    """No key, an unhashable key or a bad timeout raise at once, naming it."""
    locks = KeyedLocks()
    with pytest.raises(TypeError, match="at least one"):
        locks()
    with pytest.raises(UnhashableKey, match="key 2"):
        locks("a", [])
    with pytest.raises(ValueError, match="timeout"):
        locks("a", timeout=-1)
    with pytest.raises(ValueError, match="max_idle"):
        KeyedLocks(max_idle=-1)


def test_evict_idle_forgets_what_is_idle_long_enough():
    """Only idle locks go, and only those that are old enough."""
    locks = KeyedLocks()
    with locks("a"), locks("b"):
        pass
    with locks("c"):
        assert locks.evict_idle(older_than=3600) == 0
        assert locks.evict_idle() == 2
        assert locks.held("c")
    assert locks.idle == 1


def test_idle_locks_are_evicted_least_recently_used_first():
    """max_idle keeps the latest."""
    locks = KeyedLocks(max_idle=2)
    for key in "abcab":
        with locks(key):
            pass
    assert locks.idle == 2
    assert len(locks) == 2
