"""Chains of flights: who flies again, what newcomers inherit, and what refreshers and handlers see."""

import itertools

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import Recorder


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
