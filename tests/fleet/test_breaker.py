"""The breaker's table, who may ask when, and that each change is told once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleflight.fleet.breaker import CONNECTED, DEGRADED, RECOVERING, Breaker, Change


def breaker_in(state):
    breaker = Breaker(100.0)
    if state != CONNECTED:
        breaker.failed(0, 101.0, 0.0)
    if state == RECOVERING:
        breaker.answered(102.0)
    assert breaker.state == state
    return breaker


EVENTS = {
    "failed": lambda breaker: breaker.failed(breaker.period, 110.0, 0.0),
    "probe_failed": lambda breaker: breaker.probe_failed(110.0, 0.0),
    "answered": lambda breaker: breaker.answered(110.0),
    "recovered": lambda breaker: breaker.recovered(110.0),
}
TABLE = {
    (CONNECTED, "failed"): DEGRADED,
    (CONNECTED, "probe_failed"): DEGRADED,
    (DEGRADED, "answered"): RECOVERING,
    (RECOVERING, "probe_failed"): DEGRADED,
    (RECOVERING, "recovered"): CONNECTED,
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", [CONNECTED, DEGRADED, RECOVERING])
def test_the_table(state, event):
    """An event changes the state as the table says, and returns the change; or it returns nothing."""
    breaker = breaker_in(state)
    since = breaker.since
    then = TABLE.get((state, event), state)
    change = EVENTS[event](breaker)
    assert breaker.state == then
    assert change == (Change(state, then, 110.0 - since) if then != state else None)
    assert breaker.since == (110.0 if then != state and CONNECTED in (state, then) else since)


def test_only_the_first_failure_counts():
    """Those that were asked with it come later and change nothing, not the pause either."""
    breaker = Breaker(0.0)
    assert breaker.failed(0, 1.0, 0.0)
    at = breaker.probe_at
    assert breaker.failed(0, 1.1, 0.9) is None
    assert breaker.probe_at == at


def test_a_failure_of_an_earlier_period_is_old_news():
    """It was asked before the server was back."""
    breaker = breaker_in(RECOVERING)
    breaker.recovered(103.0)
    assert breaker.failed(0, 104.0, 0.0) is None
    assert breaker.state == CONNECTED
    assert breaker.failed(breaker.period, 104.0, 0.0)


def test_the_pause_doubles_up_to_the_cap():
    """And begins anew after a recovery."""
    breaker = Breaker(0.0, base=0.5, cap=10.0)
    breaker.failed(0, 0.0, 1.0)
    pauses = [breaker.probe_at]
    for _ in range(2000):
        breaker.probe_failed(0.0, 1.0)
        pauses.append(breaker.probe_at)
    assert pauses[:6] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]
    assert pauses[-1] == 10.0
    breaker.answered(0.0)
    breaker.recovered(0.0)
    breaker.failed(1, 0.0, 1.0)
    assert breaker.probe_at == 0.5


def test_an_answer_is_no_recovery():
    """A server that answers a probe and fails the replay is probed ever later."""
    breaker = Breaker(0.0)
    breaker.failed(0, 0.0, 1.0)
    breaker.answered(0.0)
    breaker.probe_failed(0.0, 1.0)
    assert breaker.probe_at == 1.0


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 8))
def test_half_of_the_pause_is_chance(chance, failures):
    """So that a fleet does not come back in one moment."""
    breaker = Breaker(0.0)
    breaker.failed(0, 0.0, chance)
    for _ in range(failures):
        breaker.probe_failed(0.0, chance)
    pause = min(10.0, 0.5 * 2**failures)
    assert pause / 2 <= breaker.probe_at <= pause


def test_the_keeper_probes_when_it_is_time():
    """Not before, not while connected, and not while it recovers."""
    breaker = Breaker(0.0)
    assert not breaker.may_probe(1000.0)
    breaker.failed(0, 1.0, 0.0)
    assert not breaker.may_probe(1.24)
    assert breaker.may_probe(1.25)
    breaker.answered(2.0)
    assert not breaker.may_probe(1000.0)
