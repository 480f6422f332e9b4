"""Re-entry and cycles raise in the caller that would close them; everybody else goes on."""

import pytest

from singleflight import FlightDeadlock, FlightTimeout, KeyedLocks, UnhashableKey, single_flight_ttl
from singleflight.testing import Recorder


def test_asking_for_the_key_being_fetched():
    """A function that asks for its own key gets FlightDeadlock at once, and the key is free after."""

    @single_flight_ttl(ttl=60, key=lambda key: key)
    def fetch(key):
        return fetch(key)

    with pytest.raises(FlightDeadlock, match="'A' -> 'A'"):
        fetch("A")
    assert fetch.flights() == ()
    assert fetch.stats().errors == 2


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


def test_a_shared_dependency_is_no_cycle(crowd, gate):
    """Two keys that ask for a third accuse nobody."""

    @single_flight_ttl(ttl=60)
    def fetch(key):
        if key == "C":
            gate.pass_()
            return 1
        return fetch("C") + 1

    crowd.add(fetch, "A")
    crowd.add(fetch, "B")
    gate.set()
    assert crowd.join() == [2, 2]


def test_a_detached_flight_may_ask_again():
    """After invalidate from inside, asking for the key is a new flight and no re-entry."""
    calls = []

    @single_flight_ttl(ttl=60)
    def fetch():
        calls.append(1)
        if len(calls) == 1:
            fetch.invalidate()
            return fetch() + 1
        return 10

    assert fetch() == 11
    assert fetch() == 10


def test_taking_a_held_key_again():
    """A thread that takes a key it holds is told; the message names the key."""
    locks = KeyedLocks()
    with locks("a"), pytest.raises(FlightDeadlock, match="'a' -> 'a'"), locks("b", "a"):
        pass
    assert not locks.held("a")
    assert not locks.held("b")


def test_nested_locks_in_opposite_orders(crowd, make_gate):
    """Two threads that nest two keys in opposite orders: one is told, the other gets both."""
    locks = KeyedLocks()
    mine = {"a": make_gate(), "b": make_gate()}

    def nest(first, second):
        with locks(first):
            mine[first].set()
            mine[second].pass_()
            with locks(second):
                return "both"

    crowd.add(nest, "a", "b")
    crowd.add(nest, "b", "a")
    outcomes = crowd.join()
    assert "both" in outcomes
    assert any(isinstance(outcome, FlightDeadlock) for outcome in outcomes)


def test_several_keys_in_any_order_never_deadlock(crowd):
    """Statements that take several keys at once never block each other for ever."""
    locks = KeyedLocks(max_idle=0)
    inside = dict.fromkeys("abcd", 0)
    wrong = []

    def take(turn):
        for number in range(200):
            keys = ["abcd"[(turn + number + step * (1 if turn % 2 else 3)) % 4] for step in range(3)]
            with locks(*keys, timeout=15):
                for key in keys:
                    inside[key] += 1
                    if inside[key] != 1:
                        wrong.append(key)
                for key in keys:
                    inside[key] -= 1

    for turn in range(6):
        crowd.add(take, turn)
    assert crowd.join() == [None] * 6
    assert not wrong
    assert len(locks) == 0


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


def test_a_timeout_leaks_nothing(crowd, gate, until):
    """A waiter that gives up, at once or later, leaves the queue as it was."""
    locks = KeyedLocks(max_idle=0)

    def hold():
        with locks("a"):
            gate.pass_()

    crowd.add(hold)
    until(lambda: locks.held("a"))
    for timeout in (0, 0.01):
        with pytest.raises(FlightTimeout), locks("a", "b", timeout=timeout):
            pass
        assert (locks.waiting("a"), locks.held("b")) == (0, False)
    gate.set()
    crowd.join()
    assert len(locks) == 0


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


def test_a_held_lock_keeps_flights_out(crowd, gate):
    """While fn.locks(key) is held callers wait; after it they make one call together."""
    seen, calls = Recorder(), []

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen)
    def fetch(key):
        calls.append(key)
        return key

    with fetch.locks("A"):
        crowd.add(fetch, "A", count=5)
        seen.wait_for("wait", 5)
        assert fetch.locks.waiting("A") == 5
        assert calls == []
        with pytest.raises(FlightDeadlock):
            fetch("A")
    assert crowd.join() == ["A"] * 5
    assert calls == ["A"]
    assert fetch.locks.idle == len(fetch.locks) == 1


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
