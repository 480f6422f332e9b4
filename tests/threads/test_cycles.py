"""Cycles over functions, keys and plain locks: the message, the followers, and the way out."""

import pytest

from singleflight import FlightDeadlock, FlightTimeout, KeyedLocks, single_flight_ttl
from singleflight.testing import Recorder


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_cycle_in_one_thread_names_every_key_in_order(size):
    """A -> B -> C -> A within one thread is told at its end, with the keys in the order of asking."""
    keys = "ABC"[:size]

    @single_flight_ttl(ttl=60, key=lambda key: key)
    def fetch(key):
        return fetch(keys[(keys.index(key) + 1) % size])

    with pytest.raises(FlightDeadlock, match=r" -> ".join(repr(key) for key in [*keys, keys[0]])):
        fetch("A")
    assert fetch.flights() == ()


def test_only_the_caller_that_closes_the_cycle_is_told(crowd, make_gate, until):
    """The one that already waits gets the value once the other has given way."""
    seen, go = Recorder(), {"A": make_gate(), "B": make_gate()}
    told = []

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen)
    def fetch(key):
        go[key].pass_()
        try:
            return key + fetch("B" if key == "A" else "A")
        except FlightDeadlock:
            told.append(key)
            return key

    crowd.add(fetch, "A")
    crowd.add(fetch, "B")
    seen.wait_for("fetch", 2)
    go["A"].set()
    seen.wait_for("wait")
    go["B"].set()
    assert crowd.join() == ["AB", "B"]
    assert told == ["B"]


def test_the_message_begins_with_the_key_of_the_refused_caller(crowd, make_gate):
    """Who leads B and asks for A, whose leader waits for B, reads 'B' -> 'A' -> 'B'."""
    seen, go = Recorder(), {"A": make_gate(), "B": make_gate()}

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen, follower_retries=0)
    def fetch(key):
        go[key].pass_()
        return fetch("B" if key == "A" else "A")

    crowd.add(fetch, "A")
    crowd.add(fetch, "B")
    seen.wait_for("fetch", 2)
    go["A"].set()
    seen.wait_for("wait")
    go["B"].set()
    outcomes = crowd.join()
    assert "'B' -> 'A' -> 'B'" in str(outcomes[1])


def test_a_follower_of_a_cycle_gets_its_value(crowd, make_gate):
    """A bystander that waits for a key of the cycle is served when the cycle has come apart."""
    seen, go = Recorder(), {"A": make_gate(), "B": make_gate()}

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen)
    def fetch(key):
        go[key].pass_()
        try:
            return key + fetch("B" if key == "A" else "A")
        except FlightDeadlock:
            return key

    crowd.add(fetch, "A")
    crowd.add(fetch, "B")
    seen.wait_for("fetch", 2)
    crowd.add(fetch, "A", count=3)
    seen.wait_for("wait", 3)
    go["A"].set()
    seen.wait_for("wait", 4)
    go["B"].set()
    assert crowd.join() == ["AB", "B", "AB", "AB", "AB"]


def test_a_key_of_a_cycle_can_be_fetched_afterwards(crowd, make_gate):
    """A refused cycle leaves every key free."""
    seen, go, circular = Recorder(), make_gate(), [True]

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen)
    def fetch(key):
        go.pass_()
        return fetch("B" if key == "A" else "A") if circular else key

    crowd.add(fetch, "A")
    crowd.add(fetch, "B")
    seen.wait_for("fetch", 2)
    go.set()
    crowd.join()
    circular.clear()
    assert (fetch("A"), fetch("B")) == ("A", "B")


def test_a_cycle_through_two_registries_of_plain_locks(crowd, make_gate):
    """Locks of different registries close a cycle as those of one do."""
    one, two = KeyedLocks(), KeyedLocks()
    mine = [make_gate(), make_gate()]

    def nest(place, first, second):
        with first("k"):
            mine[place].set()
            mine[1 - place].pass_()
            with second("k"):
                return "both"

    crowd.add(nest, 0, one, two)
    crowd.add(nest, 1, two, one)
    outcomes = crowd.join()
    assert outcomes.count("both") == 1
    assert sum(isinstance(outcome, FlightDeadlock) for outcome in outcomes) == 1
    assert (len(one), len(two)) == (one.idle, two.idle)


def test_a_cycle_closed_by_a_hold_of_several_keys(crowd, make_gate, until):
    """Who waits for two keys has its place at both: asking for one of them from behind is a cycle."""
    locks, go = KeyedLocks(), make_gate()

    def both():
        with locks("a", "b"):
            return "both"

    with locks("b"):
        crowd.add(both)
        until(lambda: locks.waiting("b") == 1)
        with pytest.raises(FlightDeadlock, match="'b' -> 'a' -> 'b'"), locks("a"):
            pass
    go.set()
    assert crowd.join() == ["both"]


def test_a_cycle_through_a_flight_queued_behind_a_lock(crowd, make_gate):
    """A flight that waits for a lock, and the lock's owner waiting for that flight's caller."""
    seen, go = Recorder(), make_gate()

    @single_flight_ttl(ttl=60, key=lambda key: key, listener=seen)
    def fetch(key):
        if key == "outer":
            go.pass_()
            return fetch("inner")
        return key

    with fetch.locks("inner"):
        crowd.add(fetch, "outer")
        seen.wait_for("fetch")
        go.set()
        seen.wait_for("wait")
        with pytest.raises(FlightDeadlock, match="'inner' -> 'outer' -> 'inner'"):
            fetch("outer")
    assert crowd.join() == ["inner"]


def test_a_deadlock_counts_as_an_error_of_its_caller(crowd):
    """The six counts include the refused call, and the flight it spoiled."""

    @single_flight_ttl(ttl=60)
    def fetch():
        return fetch()

    with pytest.raises(FlightDeadlock):
        fetch()
    stats = fetch.stats()
    assert (stats.errors, stats.calls, stats.failures, stats.fetches) == (2, 1, 1, 0)


def test_waiters_behind_a_held_key_are_no_cycle(crowd, make_gate, until):
    """A long chain of waiting that does not close raises nothing."""
    locks, go = KeyedLocks(), make_gate()

    def hold(number):
        with locks(number):
            if number == 0:
                go.pass_()
                return number
            with locks(number - 1):
                return number

    for number in range(10):
        crowd.add(hold, number)
        until(lambda n=number: locks.held(n) and (n == 0 or locks.waiting(n - 1) == 1))
    go.set()
    assert crowd.join() == list(range(10))


def test_a_timeout_inside_a_flight_is_not_shared(crowd, make_gate, until):
    """A leader whose own wait timed out fails alone; its followers call for themselves."""
    seen, go, locks, first = Recorder(), make_gate(), KeyedLocks(), [True]

    @single_flight_ttl(ttl=60, listener=seen, follower_retries=0)
    def fetch():
        go.pass_()
        if first.pop() if first else False:
            with locks("k", timeout=0):
                pass
        return 1

    with locks("k"):
        crowd.add(fetch)
        seen.wait_for("fetch")
        crowd.add(fetch, count=3)
        seen.wait_for("wait", 3)
        go.set()
        outcomes = crowd.join()
    assert isinstance(outcomes[0], FlightTimeout)
    assert outcomes[1:] == [1, 1, 1]
