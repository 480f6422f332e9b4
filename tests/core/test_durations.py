"""Seconds as any real number: what numpy, pandas, a Decimal or a Fraction hands over."""

import math
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Number, Real

import pytest

from singleflight import AdaptiveTTL, KeyedLocks, drain_sync, single_flight_ttl
from singleflight.common.durations import left, lifetime, patience, real, seconds
from singleflight.core.options import Options
from singleflight.core.shareable import is_not_none
from singleflight.storage.ttl import Landing


class Scalar:
    """A number of an extension: it is none of Python's own, and says what it is by registration alone."""

    def __init__(self, value):
        self.value = value

    def __float__(self):
        return float(self.value)

    def __eq__(self, other):
        return self.value == other

    __hash__ = None

    def __repr__(self):
        return f"{type(self).__name__}({self.value!r})"


@Real.register
class Float32(Scalar):
    pass


@Integral.register
class Int64(Scalar):
    def __index__(self):
        return self.value


@Integral.register
class Timedelta64(Scalar):
    """As numpy's, which passes for a whole number, though its unit may be anything."""


@Number.register
class Money(Scalar):
    pass


GOOD = {
    "ttl": 60,
    "maxsize": 10,
    "max_idle_locks": 10,
    "cache_if": is_not_none,
    "follower_retries": 1,
    "wait_timeout": None,
    "listener": None,
}
NUMBERS = [Fraction(1, 2), Decimal("0.5"), Float32(0.5), Money(0.5), 0.5]


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
@pytest.mark.parametrize(
    "option", ["ttl", "wait_timeout", "flight_timeout", "failure_ttl", "grace", "refresh_ahead", "jitter"]
)
def test_every_option_takes_any_real_number(option, number):
    """And keeps it as a plain float."""
    options = Options.checked(**{**GOOD, option: number})
    kept = getattr(options, "fixed_ttl" if option == "ttl" else option)
    assert (type(kept), kept) == (float, 0.5)


@pytest.mark.parametrize("number", [3, Int64(3), Float32(3.0), Decimal(3), Fraction(3)], ids=repr)
def test_every_reader_of_seconds_does(number):
    """Lifetimes, patience, what a callable ttl answers, and plain seconds."""
    for read in (lambda value: seconds(value, "x"), lifetime, lambda value: patience(value, "x"), left):
        assert (type(read(number)), read(number)) == (float, 3.0)


@pytest.mark.parametrize("option", ["maxsize", "max_idle_locks", "follower_retries"])
def test_numbers_of_things_take_any_whole_number(option):
    """And keep it as a plain one; no other."""
    options = Options.checked(**{**GOOD, option: Int64(3)})
    assert (type(getattr(options, option)), getattr(options, option)) == (int, 3)
    for number in (Float32(3.0), Timedelta64(3), Decimal(3), Fraction(3)):
        with pytest.raises(TypeError, match=f"^{option}: "):
            Options.checked(**{**GOOD, option: number})


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (True, TypeError),
        (1j, TypeError),
        ("1", TypeError),
        (Timedelta64(5), TypeError),
        (Decimal("NaN"), ValueError),
        (Decimal("sNaN"), ValueError),
        (Float32(math.nan), ValueError),
        (Decimal(-1), ValueError),
        (Fraction(-1, 3), ValueError),
        (Int64(-1), ValueError),
        (Fraction(10**400), ValueError),
        (Decimal("1e400"), ValueError),
        (Decimal("-Infinity"), ValueError),
    ],
    ids=repr,
)
def test_what_is_no_duration_is_refused_as_before(number, error):
    """A TypeError or ValueError that begins with the option's name."""
    for option in ("ttl", "wait_timeout", "failure_ttl", "grace"):
        with pytest.raises(error, match=f"^{option}: "):
            Options.checked(**{**GOOD, option: number})
    for option in ("jitter", "refresh_ahead"):
        with pytest.raises((TypeError, ValueError), match=f"^{option}: "):
            Options.checked(**{**GOOD, option: number})


def test_for_ever_may_be_said_in_any_type():
    """Infinite is no mistake."""
    assert lifetime(Decimal("Infinity")) == lifetime(Float32(math.inf)) == math.inf
    assert patience(Decimal("Infinity"), "x") is None


def test_a_part_that_is_rounded_to_the_whole_is_refused():
    """What counts is the float that is kept."""
    with pytest.raises(ValueError, match=r"^jitter: "):
        Options.checked(**GOOD, jitter=Fraction(10**20 - 1, 10**20))


@pytest.mark.parametrize(
    "answer", [-5, -0.5, 0, -math.inf, Decimal(-1), Int64(-1), timedelta(seconds=-1)], ids=repr
)
def test_an_answer_that_is_over_already_leaves_nothing(answer):
    """A token that has run out is a value all the same: it is not stored."""
    assert Options.checked(**{**GOOD, "ttl": lambda landing: answer}).ttl_of(Landing("k", 1)) == 0.0


@pytest.mark.parametrize("answer", [math.nan, Decimal("NaN"), "soon", True, Timedelta64(5), [1]], ids=repr)
def test_an_answer_that_says_nothing_is_an_error(answer):
    """It names ttl."""
    with pytest.raises((TypeError, ValueError), match=r"^ttl: "):
        Options.checked(**{**GOOD, "ttl": lambda landing: answer}).ttl_of(Landing("k", 1))


def test_an_adaptive_ttl_takes_any_real_number():
    """Base, maximum and factor; what it answers are floats."""
    ttl = AdaptiveTTL(base=Decimal(10), maximum=Fraction(60), factor=Float32(2.0))
    assert [ttl(Landing("k", 1, followers=count)) for count in (0, 50)] == [10.0, 20.0]
    assert AdaptiveTTL(10, 60, factor=Decimal("1.5"))(Landing("k", 1, followers=50)) == 15.0
    with pytest.raises(ValueError, match=r"^factor: "):
        AdaptiveTTL(10, 60, factor=Decimal("NaN"))


def test_timeouts_and_ages_do_too():
    """Of locks, of drain, and the age of idle locks."""
    locks = KeyedLocks()
    with locks("k", timeout=Decimal(5)):
        pass
    assert locks.evict_idle(older_than=Fraction(3600)) == 0
    assert locks.evict_idle(older_than=Int64(0)) == 1
    assert drain_sync(timeout=Decimal("0.5")) is True


def test_numbers_are_made_plain_for_good():
    """A Decimal in place of a float would fail where it meets the clock's floats."""
    fetch = single_flight_ttl(
        ttl=Decimal(60), grace=Decimal(60), jitter=Decimal("0.1"), refresh_ahead=Fraction(1, 2)
    )(lambda: 1)
    assert (fetch(), fetch(), fetch.refresh(), fetch.stats().hits) == (1, 1, 1, 1)
    assert real(True + 1, "x", "a number") == 2.0
