"""Chains of flights: who flies again, what newcomers inherit, and what refreshers and handlers see."""

import itertools

import pytest

from singleflight import FlightDeadlock, single_flight_ttl
from singleflight.testing import FakeClock, Recorder


@pytest.mark.parametrize("callers", [10, 100, 1000])
@pytest.mark.parametrize(("retries", "calls"), [(0, 1), (1, 2)])
def test_a_failing_herd_runs_as_often_as_the_budget_says(crowd, gate, callers, retries, calls):
    """However many callers wait, a failing function runs 1 + follower_retries times."""
    seen, ran = Recorder(), []

    @single_flight_ttl(ttl=60, follower_retries=retries, listener=seen)
    def fetch():
        ran.append(1)
        gate.pass_()
        raise ValueError("no")

    crowd.add(fetch, count=callers)
    seen.wait_for("wait", callers - 1)
    gate.set()
    assert {type(outcome) for outcome in crowd.join()} == {ValueError}
    assert len(ran) == calls


def test_the_first_success_ends_the_chain(crowd, gate):
    """When a retry succeeds, everybody who still waits gets its value, and the budget is not used up."""
    seen, numbers = Recorder(), itertools.count(1)

    @single_flight_ttl(ttl=60, follower_retries=None, listener=seen)
    def fetch():
        number = next(numbers)
        gate.pass_()
        if number < 3:
            raise ValueError(number)
        return number

    crowd.add(fetch, count=10)
    seen.wait_for("wait", 9)
    gate.set()
    outcomes = crowd.join()
    assert sum(isinstance(outcome, ValueError) for outcome in outcomes) == 2
    assert sum(outcome == 3 for outcome in outcomes if not isinstance(outcome, ValueError)) == 8
    assert fetch.stats().calls == 3


def test_a_newcomer_inherits_what_is_left_of_the_budget(crowd, make_gate):
    """Who joins the chain's last flight shares its failure instead of starting another."""
    gates, seen, numbers = [make_gate(), make_gate()], Recorder(), itertools.count()

    @single_flight_ttl(ttl=60, follower_retries=1, listener=seen)
    def fetch():
        number = next(numbers)
        gates[number].pass_()
        raise ValueError(number)

    crowd.add(fetch, count=2)
    seen.wait_for("wait")
    gates[0].set()
    seen.wait_for("fetch", 2)
    crowd.add(fetch, count=3)
    seen.wait_for("wait", 4)
    gates[1].set()
    outcomes = crowd.join()
    assert [outcome.args for outcome in outcomes[2:]] == [(1,)] * 3
    assert next(numbers) == 2


def test_a_call_after_the_chain_starts_afresh(crowd, gate):
    """The budget of a chain that has landed is not the next one's."""
    seen, ran = Recorder(), []

    @single_flight_ttl(ttl=60, follower_retries=1, listener=seen)
    def fetch():
        ran.append(1)
        gate.pass_()

    for _ in range(2):
        gate.clear()
        seen.clear()
        ran.clear()
        crowd.add(fetch, count=4)
        seen.wait_for("wait", 3)
        gate.set()
        assert set(crowd.join()) == {None}
        assert len(ran) == 2


@pytest.mark.parametrize("aborts", [1, 3])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_aborts_spend_nothing(crowd, gate, kind, aborts):
    """However many leaders are aborted, nobody else sees it, and somebody takes over each time."""
    seen, numbers = Recorder(), itertools.count()

    @single_flight_ttl(ttl=60, follower_retries=0, listener=seen)
    def fetch():
        number = next(numbers)
        gate.pass_()
        if number < aborts:
            raise kind
        return number

    crowd.add(fetch, count=8)
    seen.wait_for("wait", 7)
    gate.set()
    outcomes = crowd.join()
    assert sum(isinstance(outcome, kind) for outcome in outcomes) == aborts
    assert outcomes.count(aborts) == 8 - aborts
    assert fetch.stats().failures == 0


def test_an_abort_without_followers_leaves_the_key_free(crowd):
    """The next caller fetches."""
    first = [KeyboardInterrupt]

    @single_flight_ttl(ttl=60, max_idle_locks=0)
    def fetch():
        if first:
            raise first.pop()
        return 1

    with pytest.raises(KeyboardInterrupt):
        fetch()
    assert (fetch.flights(), len(fetch.locks)) == ((), 0)
    assert fetch() == 1


def test_the_followers_of_an_aborted_detached_flight_fetch_anew(crowd, make_gate):
    """A detached flight that is aborted has nothing to share: its followers make one call together."""
    gates, seen, numbers = [make_gate(), make_gate()], Recorder(), itertools.count()

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch():
        number = next(numbers)
        gates[number].pass_()
        if number == 0:
            raise KeyboardInterrupt
        return number

    crowd.add(fetch)
    seen.wait_for("fetch")
    crowd.add(fetch, count=5)
    seen.wait_for("wait", 5)
    fetch.invalidate()
    gates[0].set()
    seen.wait_for("abort")
    gates[1].set()
    outcomes = crowd.join()
    assert isinstance(outcomes[0], KeyboardInterrupt)
    assert outcomes[1:] == [1] * 5


def test_a_third_caller_joins_the_second_flight(crowd, make_gate):
    """After invalidate a new flight runs beside the old one, and who comes later joins the new one."""
    gates, seen, numbers = [make_gate(), make_gate()], Recorder(), itertools.count()

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch():
        number = next(numbers)
        gates[number].pass_()
        return number

    crowd.add(fetch)
    seen.wait_for("fetch")
    fetch.invalidate()
    crowd.add(fetch)
    seen.wait_for("fetch", 2)
    crowd.add(fetch)
    seen.wait_for("wait")
    gates[0].set()
    seen.wait_for("land")
    assert [flight.detached for flight in fetch.flights()] == [False]
    gates[1].set()
    assert crowd.join() == [0, 1, 1]
    assert fetch() == 1


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_refresh_that_joined_a_failed_one_does_not_return_the_old_value(crowd, gate, failure):
    """Two refreshes together: the first one ends badly, so the second calls the function itself."""
    seen, numbers = Recorder(), itertools.count()

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch():
        number = next(numbers)
        if number == 1:
            gate.pass_()
            raise failure
        return number

    assert fetch() == 0
    crowd.add(fetch.refresh)
    seen.wait_for("fetch", 2)
    crowd.add(fetch.refresh)
    seen.wait_for("wait")
    gate.set()
    outcomes = crowd.join()
    assert isinstance(outcomes[0], failure)
    assert outcomes[1] == 2


def test_a_refresh_does_not_keep_readers_waiting(crowd, gate):
    """While it runs the old value is served, and after it the new one."""
    seen, numbers = Recorder(wants={"fetch"}), itertools.count()

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch():
        number = next(numbers)
        if number:
            gate.pass_()
        return number

    assert fetch() == 0
    crowd.add(fetch.refresh)
    seen.wait_for("fetch", 2)
    assert fetch() == 0
    assert fetch.flights()[0].kind == "refresh"
    gate.set()
    assert crowd.join() == [1]
    assert fetch() == 1


def test_an_expired_reader_waits_for_the_refresh_in_flight(crowd, gate):
    """An entry that runs out during its refresh costs no second call."""
    clock, seen, numbers = FakeClock(), Recorder(), itertools.count()

    @single_flight_ttl(ttl=60, listener=seen, timer=clock)
    def fetch():
        number = next(numbers)
        if number:
            gate.pass_()
        return number

    fetch()
    crowd.add(fetch.refresh)
    seen.wait_for("fetch", 2)
    clock.advance(61)
    crowd.add(fetch)
    seen.wait_for("wait")
    gate.set()
    assert crowd.join() == [1, 1]
    assert fetch.stats().calls == 2


@pytest.mark.parametrize("control", ["invalidate", "cache_clear"])
def test_a_discarded_refresh_resurrects_nothing(crowd, gate, control):
    """What was dropped while it was refreshed stays dropped."""
    seen, numbers = Recorder(), itertools.count()

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch():
        number = next(numbers)
        if number == 1:
            gate.pass_()
        return number

    fetch()
    crowd.add(fetch.refresh)
    seen.wait_for("fetch", 2)
    getattr(fetch, control)()
    gate.set()
    assert crowd.join() == [1]
    assert fetch.entry() is None
    assert fetch() == 2


def test_a_follower_in_a_handler_sees_the_flights_context(crowd, gate):
    """A shared exception keeps its own context, also where the follower is handling another one."""
    seen = Recorder(wants={"fetch", "wait"})

    @single_flight_ttl(ttl=60, follower_retries=0, listener=seen)
    def fetch():
        gate.pass_()
        try:
            raise KeyError("the flight's")
        except KeyError:
            raise ValueError("shared")

    def in_a_handler():
        try:
            raise RuntimeError("the follower's")
        except RuntimeError:
            fetch()

    crowd.add(fetch)
    seen.wait_for("fetch")
    crowd.add(in_a_handler)
    seen.wait_for("wait")
    gate.set()
    outcomes = crowd.join()
    assert [type(outcome.__context__) for outcome in outcomes] == [KeyError, KeyError]


def test_a_deadlock_is_not_shared_with_followers(crowd, make_gate):
    """A leader that is refused fails alone; its followers call for themselves."""
    seen, go, numbers = Recorder(), make_gate(), itertools.count()

    @single_flight_ttl(ttl=60, listener=seen, follower_retries=0, key=lambda key: key)
    def fetch(key):
        if next(numbers) == 0:
            go.pass_()
            return fetch(key)
        return key

    crowd.add(fetch, "A")
    seen.wait_for("fetch")
    crowd.add(fetch, "A", count=4)
    seen.wait_for("wait", 4)
    go.set()
    outcomes = crowd.join()
    assert isinstance(outcomes[0], FlightDeadlock)
    assert outcomes[1:] == ["A"] * 4


def test_a_timed_out_follower_leaves_the_chain_to_the_rest(crowd, gate, until):
    """Whoever gives up takes no retry with it and leaves nobody behind."""
    seen, numbers = Recorder(), itertools.count()

    @single_flight_ttl(ttl=60, wait_timeout=0, listener=seen, max_idle_locks=0)
    def fetch():
        if next(numbers) == 0:
            gate.pass_()
            raise ValueError
        return 1

    crowd.add(fetch)
    seen.wait_for("fetch")
    crowd.add(fetch, count=5)
    seen.wait_for("timeout", 5)
    gate.set()
    outcomes = crowd.join()
    assert isinstance(outcomes[0], ValueError)
    assert all(isinstance(outcome, TimeoutError) for outcome in outcomes[1:])
    assert len(fetch.locks) == 0
    assert fetch() == 1
