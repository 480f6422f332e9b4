"""Options and durations by table: what is taken, what is refused, and how the error names it."""

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleflight.common.durations import lifetime, patience, seconds
from singleflight.core.options import Options, is_not_none
from singleflight.storage.freshness import fresh_for
from singleflight.storage.ttl import Landing

GOOD = {
    "ttl": 60,
    "maxsize": 10,
    "max_idle_locks": 10,
    "cache_if": is_not_none,
    "follower_retries": 1,
    "wait_timeout": None,
    "listener": None,
}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ttl", True),
        ("ttl", "60"),
        ("ttl", [60]),
        ("ttl", 1j),
        ("maxsize", 1.0),
        ("maxsize", True),
        ("maxsize", "1"),
        ("max_idle_locks", 2.5),
        ("max_idle_locks", False),
        ("follower_retries", "1"),
        ("follower_retries", True),
        ("wait_timeout", "1"),
        ("wait_timeout", False),
        ("cache_if", None),
        ("cache_if", 1),
        ("timer", 3.0),
        ("listener", "log"),
    ],
)
def test_options_of_a_wrong_type_are_named(option, value):
    """A TypeError that begins with the option's name."""
    with pytest.raises(TypeError, match=f"^{option}: "):
        Options.checked(**{**GOOD, option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ttl", -1),
        ("ttl", math.nan),
        ("ttl", -math.inf),
        ("ttl", timedelta(days=-1)),
        ("ttl", 10**400),
        ("maxsize", 0),
        ("maxsize", -5),
        ("max_idle_locks", -1),
        ("follower_retries", -1),
        ("wait_timeout", -0.1),
        ("wait_timeout", math.nan),
    ],
)
def test_options_out_of_range_are_named(option, value):
    """A ValueError that begins with the option's name."""
    with pytest.raises(ValueError, match=f"^{option}: "):
        Options.checked(**{**GOOD, option: value})


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [
        (0, 0.0),
        (0.0, 0.0),
        (-0.0, 0.0),
        (1, 1.0),
        (5e-324, 5e-324),
        (timedelta(milliseconds=1), 0.001),
        (timedelta.max, timedelta.max.total_seconds()),
        (math.inf, math.inf),
        (None, math.inf),
    ],
)
def test_lifetimes(ttl, expected):
    """Seconds, timedelta, and None for ever."""
    assert Options.checked(**{**GOOD, "ttl": ttl}).fixed_ttl == expected


@pytest.mark.parametrize("answer", [math.nan, "soon", True, 1j])
def test_what_a_callable_ttl_returns_is_checked(answer):
    """A bad answer is an error that names ttl, each time."""
    options = Options.checked(**{**GOOD, "ttl": lambda landing: answer})
    assert options.fixed_ttl is None
    with pytest.raises((TypeError, ValueError), match=r"^ttl: "):
        options.ttl_of(Landing("k", 1))


def test_a_callable_ttl_may_say_for_ever():
    """None means the same as in the option itself."""
    assert Options.checked(**{**GOOD, "ttl": lambda landing: None}).ttl_of(Landing("k", 1)) == math.inf


@given(st.floats(0, 1e9) | st.integers(0, 10**9))
def test_numbers_of_seconds_are_themselves(number):
    """No rounding on the way."""
    assert seconds(number, "x") == number
    assert lifetime(number) == number
    assert patience(number, "x") == number


@given(st.timedeltas(min_value=timedelta(0)))
def test_a_timedelta_is_its_seconds(delta):
    """As the standard library counts them."""
    assert seconds(delta, "x") == delta.total_seconds()


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 1e6))
def test_freshness_ends_at_the_deadline(landed, ttl, step):
    """A value is fresh before `landed + ttl` and not at it or after, whatever the clock did before."""
    end = landed + ttl
    assert fresh_for(landed, ttl, end) <= 0
    assert fresh_for(landed, ttl, end + step) <= 0
    assert (fresh_for(landed, ttl, end - step) > 0) == (end - step < end)
