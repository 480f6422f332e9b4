"""The times that a value found on the server gets here."""

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleflight.fleet.near import near_times

SECONDS = st.floats(0, 1e6)
NEAR = st.just(inf) | st.floats(0.001, 1e6)


@settings(deadline=None)
@given(st.floats(0, 1e9), st.integers(-2, 10**10), SECONDS, SECONDS, SECONDS, NEAR)
def test_never_longer_than_there(asked, left, ttl, grace, refresh_after, near_ttl):
    """At most for what the server has left, its own times and `near_ttl`, counted from the question."""
    times = near_times(asked, left, ttl, grace, refresh_after, near_ttl)
    end = times.landed + times.ttl + times.grace
    close = 1e-6 * max(asked, 1e3)
    assert end <= asked + max(left, 0) / 1000 + close
    assert end <= asked + near_ttl + close
    assert asked - (ttl + grace) - close <= times.landed <= asked
    assert 0 <= times.ttl <= ttl
    assert 0 <= times.grace <= grace + close
    assert times.refresh_at == times.landed + refresh_after


@settings(deadline=None)
@given(st.integers(0, 10**7), st.floats(1, 1e4), SECONDS)
def test_it_is_fresh_as_long_as_there(left, ttl, grace):
    """Without a `near_ttl` that ends sooner it is stale when the server's entry is, and ends with it."""
    times = near_times(0.0, left, ttl, grace, inf, inf)
    there = min(left / 1000, ttl + grace)
    assert times.landed + times.ttl + times.grace == pytest.approx(there, abs=1e-6)
    assert times.landed + times.ttl == pytest.approx(there - grace, abs=1e-6)
    assert (times.ttl, times.grace) == pytest.approx((ttl, grace), abs=1e-6)


@pytest.mark.parametrize(
    ("left", "near_ttl", "landed", "ttl", "grace"),
    [
        (30_000, 60, 100.0, 20, 10),  # it has just landed
        (25_000, 60, 95.0, 20, 10),
        (8_000, 60, 78.0, 20, 10),  # stale: for 8 s more
        (8_000, 5, 78.0, 20, 7),  # stale, and to be asked for again in 5 s
        (25_000, 5, 95.0, 10, 0),
        (90_000, 60, 100.0, 20, 10),  # the server's clock was set back
        (0, 60, 70.0, 20, 10),  # it has expired
        (-2, 60, 70.0, 20, 10),
    ],
)
def test_by_table(left, near_ttl, landed, ttl, grace):
    """An entry of 20 s and 10 s of grace, asked for at 100."""
    assert near_times(100.0, left, 20.0, 10.0, inf, near_ttl) == (landed, ttl, grace, inf)


def test_for_ever():
    """A value without an end is near for `near_ttl`, or for what the server's entry has left."""
    assert near_times(100.0, 90_000, inf, 0.0, inf, 60.0) == (100.0, 60.0, 0.0, inf)
    assert near_times(100.0, 90_000, inf, 0.0, inf, inf) == (100.0, 90.0, 0.0, inf)
    assert near_times(100.0, 5_000, inf, 0.0, inf, 60.0) == (100.0, 5.0, 0.0, inf)
