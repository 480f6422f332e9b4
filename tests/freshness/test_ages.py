"""Pure functions from numbers to numbers: deadlines, the xfetch draw, jitter, AdaptiveTTL."""

from datetime import timedelta
from math import inf, isclose, log, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singleflight import AdaptiveTTL, Entry, Landing
from singleflight.core.options import Options
from singleflight.core.shareable import is_not_none
from singleflight.storage.freshness import Ageing
from singleflight.storage.record import AgeingRecord, record_of

CHANCES = st.floats(0, 1, exclude_max=True)
TTLS = st.floats(0.001, 1e6)


def checked(**options):
    return Options.checked(
        **{
            "ttl": 60,
            "maxsize": 10,
            "max_idle_locks": 10,
            "cache_if": is_not_none,
            "follower_retries": 1,
            "wait_timeout": None,
            "listener": None,
            **options,
        }
    )


@pytest.mark.parametrize(
    ("now", "state", "fresh_for", "serves_for"),
    [
        (99.0, "fresh", 11.0, 16.0),  # the clock stepped back: it lives longer by the step
        (100.0, "fresh", 10.0, 15.0),
        (109.999, "fresh", 0.001, 5.001),
        (110.0, "stale", 0.0, 5.0),
        (114.999, "stale", -4.999, 0.001),
        (115.0, "expired", -5.0, 0.0),
    ],
)
def test_states(now, state, fresh_for, serves_for):
    """Fresh while age < ttl, stale while age < ttl + grace, then expired; an end belongs to what follows."""
    record = AgeingRecord("A", 1, landed=100.0, ttl=10.0, grace=5.0)
    assert record.snapshot(now).state == state
    assert isclose(record.fresh_for(now), fresh_for, abs_tol=1e-9)
    assert isclose(record.serves_for(now), serves_for, abs_tol=1e-9)


def test_a_snapshot_is_never_younger_than_nothing():
    """Its age is 0 when the clock has stepped back behind its landing."""
    assert record_of("A", 1, 100.0, 10.0).snapshot(50.0) == Entry("A", 1, 0.0, 10.0, "fresh", 0)


@pytest.mark.parametrize(
    ("refresh_at", "error", "deadline"),
    [(inf, None, 110.0), (108.0, None, 108.0), (110.0, None, 110.0), (inf, ValueError(), -inf)],
)
def test_one_deadline_holds_everything(refresh_at, error, deadline):
    """Reads take the fast path until the end of the ttl or the time to renew; never for errors."""
    assert AgeingRecord("A", 1, 100.0, 10.0, 5.0, refresh_at, error).deadline == deadline
    assert record_of("A", 1, 100.0, 10.0).deadline == 110.0


def test_a_record_that_has_left_stays_closed():
    """Setting the time to renew does not reopen what is no longer stored."""
    record = AgeingRecord("A", 1, 100.0, 10.0)
    record.place = None
    record.deadline = -inf
    record.renew_at(105.0)
    assert (record.deadline, record.refresh_at) == (-inf, 105.0)


def test_a_record_that_leaves_while_it_is_reopened_is_closed():
    """Where threads run at the same time, the store may let go of it at any moment."""

    class Leaving(AgeingRecord):
        def fast_until(self):
            self.place = None
            return super().fast_until()

    record = Leaving("A", 1, 100.0, 10.0)
    record.place = object()
    record.reopen()
    assert record.deadline == -inf


@given(st.floats(0.01, 0.99), TTLS, CHANCES)
def test_jitter_shortens_within_bounds(jitter, ttl, chance):
    """A deadline is in [ttl * (1 - jitter), ttl], and all of it where the draw is 0."""
    shortened = Ageing(jitter=jitter, chance=lambda: chance).shortened(ttl)
    assert ttl * (1 - jitter) <= shortened * (1 + 1e-12)
    assert shortened <= ttl
    assert Ageing(jitter=jitter, chance=lambda: 0.0).shortened(ttl) == ttl


def test_jitter_is_uniform():
    """It goes by the draw in a straight line."""
    draws = iter([0.0, 0.25, 0.5, 1 - 2**-53])
    ageing = Ageing(jitter=0.2, chance=lambda: next(draws))
    assert [round(ageing.shortened(100.0), 9) for _ in range(4)] == [100.0, 95.0, 90.0, 80.0]


@pytest.mark.parametrize("ageing", [Ageing(), Ageing(jitter=0.5)])
def test_what_never_runs_out_is_not_shortened(ageing):
    """A ttl of None stays that, and without jitter nothing is drawn."""
    assert ageing.shortened(inf) == inf
    assert Ageing(chance=lambda: 1 / 0).shortened(60.0) == 60.0


@pytest.mark.parametrize(
    ("ahead", "ttl", "at"),
    [(None, 10.0, inf), (0.5, 10.0, 105.0), (0.9, 10.0, 109.0), (0.5, inf, inf), ("xfetch", inf, inf)],
)
def test_when_a_value_is_renewed_ahead(ahead, ttl, at):
    """At a part of the ttl; never without the option, nor where the value never runs out."""
    assert Ageing(refresh_ahead=ahead).refresh_at(100.0, ttl, 1.0) == at


@given(TTLS, st.floats(0, 1e6), CHANCES)
def test_xfetch_draws_as_the_paper_says(ttl, duration, chance):
    """`duration * -log(random)` before the end, but not before the landing; 1 - chance is never 0."""
    at = Ageing(refresh_ahead="xfetch", chance=lambda: chance).refresh_at(100.0, ttl, duration)
    assert 100.0 <= at <= 100.0 + ttl
    assert at == max(100.0, 100.0 + ttl + duration * log(1.0 - chance))


def test_xfetch_with_durations_that_say_nothing():
    """A duration of 0, or less where the clock stepped back, renews at the end and not before."""
    ageing = Ageing(refresh_ahead="xfetch", chance=lambda: 0.9)
    assert [ageing.refresh_at(100.0, 10.0, duration) for duration in (0.0, -5.0)] == [110.0, 110.0]


@pytest.mark.parametrize(("failure_ttl", "floor"), [(0.0, 1.0), (0.2, 0.2), (30.0, 30.0)])
def test_the_floor_of_retries(failure_ttl, floor):
    """A second, or failure_ttl."""
    assert Ageing(failure_ttl=failure_ttl).retry_after == floor


@pytest.mark.parametrize("option", ["grace", "jitter", "failure_ttl", "refresh_ahead"])
def test_plain_is_without_all_of_them(option):
    """Each of the four makes a function's values age in their own way."""
    assert Ageing().is_plain
    assert not Ageing(**{option: 0.5}).is_plain


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("grace", -1, ValueError),
        ("grace", nan, ValueError),
        ("grace", None, TypeError),
        ("grace", True, TypeError),
        ("failure_ttl", -1, ValueError),
        ("failure_ttl", "1", TypeError),
        ("jitter", 1, ValueError),
        ("jitter", -0.1, ValueError),
        ("jitter", nan, ValueError),
        ("jitter", True, TypeError),
        ("jitter", None, TypeError),
        ("refresh_ahead", 0, ValueError),
        ("refresh_ahead", 1, ValueError),
        ("refresh_ahead", nan, ValueError),
        ("refresh_ahead", "always", TypeError),
        ("refresh_ahead", True, TypeError),
        ("refresh_ahead", timedelta(seconds=1), TypeError),
    ],
)
def test_bad_options_are_named(option, value, error):
    """The message begins with the option's name."""
    with pytest.raises(error, match=f"^{option}: "):
        checked(**{option: value})


def test_good_options():
    """Durations as numbers or timedeltas, parts as numbers, and the one word."""
    options = checked(grace=timedelta(minutes=1), failure_ttl=2, jitter=0.1, refresh_ahead="xfetch")
    assert (options.grace, options.failure_ttl) == (60.0, 2.0)
    assert (options.ageing.jitter, options.ageing.refresh_ahead) == (0.1, "xfetch")
    assert checked(grace=inf).grace == inf


class TestAdaptive:
    """AdaptiveTTL goes by the followers of a landing and by what it replaces."""

    def landing(self, followers, previous=None):
        before = None if previous is None else Entry("A", 0, 1.0, previous, "stale", 0)
        return Landing("A", 1, followers=followers, previous=before)

    @pytest.mark.parametrize(
        ("followers", "previous", "ttl"),
        [
            (0, None, 10),
            (5, None, 10),
            (6, None, 20),
            (6, 10, 20),
            (6, 20, 40),
            (6, 40, 70),
            (6, 70, 70),
            (6, inf, 70),
            (5, 40, 10),
            (0, 70, 10),
        ],
    )
    def test_levels(self, followers, previous, ttl):
        """Doubled while more than five pile up, never above the maximum, and at once back to the base."""
        assert AdaptiveTTL(base=10, maximum=70)(self.landing(followers, previous)) == ttl

    def test_jitter_does_not_lose_the_level(self):
        """A previous ttl that was shortened by chance counts as the level it came from."""
        adaptive = AdaptiveTTL(base=10, maximum=1000)
        assert [adaptive(self.landing(9, previous)) for previous in (19.1, 38.5, 9.9)] == [40, 80, 20]

    @given(st.lists(st.integers(0, 12), max_size=30), st.floats(0, 0.49), st.randoms())
    def test_it_stays_between_base_and_maximum(self, crowds, jitter, random):
        """Whatever comes, and with jitter; under constant load it reaches the maximum and stays there."""
        adaptive = AdaptiveTTL(base=timedelta(seconds=10), maximum=500, factor=3, followers=2)
        ageing, previous = Ageing(jitter=jitter, chance=random.random), None
        for followers in [*crowds, *[9] * 6]:
            ttl = adaptive(self.landing(followers, previous))
            assert 10 <= ttl <= 500
            previous = ageing.shortened(ttl)
        assert ttl == 500

    @pytest.mark.parametrize(
        ("name", "value", "error"),
        [
            ("base", 0, ValueError),
            ("base", -1, ValueError),
            ("base", inf, ValueError),
            ("base", "10", TypeError),
            ("maximum", 9, ValueError),
            ("maximum", None, TypeError),
            ("factor", 1, ValueError),
            ("factor", inf, ValueError),
            ("factor", nan, ValueError),
            ("factor", True, TypeError),
            ("factor", "2", TypeError),
            ("followers", -1, ValueError),
            ("followers", 2.5, TypeError),
            ("followers", False, TypeError),
        ],
    )
    def test_bad_ages_are_named(self, name, value, error):
        """A TypeError or ValueError that begins with the argument's name."""
        with pytest.raises(error, match=f"^{name}: "):
            AdaptiveTTL(**{"base": 10, "maximum": 60, name: value})

    def test_the_least_that_may_be_asked_for(self):
        """Less than a second, a maximum that is the base, and nobody who may wait without its growing."""
        adaptive = AdaptiveTTL(base=0.5, maximum=0.5, followers=0)
        assert [adaptive(self.landing(followers)) for followers in (0, 1)] == [0.5, 0.5]
        assert AdaptiveTTL(base=0.5, maximum=1, followers=0)(self.landing(1)) == 1.0

    def test_it_shows_itself(self):
        """Its repr is how to make it."""
        assert repr(AdaptiveTTL(10, inf)) == "AdaptiveTTL(base=10.0, maximum=inf, factor=2, followers=5)"
