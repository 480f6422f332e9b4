"""grace as a callable: each landing has a grace of its own."""

from datetime import timedelta

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import FakeClock


@pytest.fixture
def read():
    """A function whose values are their own grace, on a clock of its own; `answers` are what it returns."""
    clock, answers, seen = FakeClock(), [], []

    def grace(landing):
        seen.append(landing)
        return landing.value

    @single_flight_ttl(ttl=10, grace=grace, timer=clock)
    def read(key="a"):
        return answers.pop()  # an IndexError is a failure

    read.clock, read.answers, read.seen = clock, answers, seen
    return read


@pytest.mark.parametrize(("grace", "stale_for"), [(5, 5), (timedelta(seconds=7), 7), (0, 0)])
def test_each_landing_has_its_own(read, grace, stale_for):
    """Seconds or a timedelta; without one the value ends with its ttl."""
    read.answers.append(grace)
    assert read() == grace
    (landing,) = read.seen
    assert landing.value == grace
    read.clock.advance(9)
    assert read.explain().would == "hit"
    read.clock.advance(1)
    if stale_for:
        assert read.explain().would == "stale_hit"
        assert read.explain().stale_for == stale_for
        assert read.entry().state == "stale"
        assert read() == grace
        read.clock.advance(stale_for)
    with pytest.raises(IndexError):
        read()


def test_a_value_from_outside_is_asked_about_too(read):
    """`put` has a landing."""
    read.put(5)
    read.clock.advance(12)
    assert read.entry().state == "stale"


def test_many_at_once(read):
    """Each of them has its own."""

    @read.bulk
    def reads(keys):
        return {key: {"a": 5, "b": 0}[key] for key in keys}

    assert reads(["a", "b"]) == {"a": 5, "b": 0}
    read.clock.advance(12)
    assert (read.explain("a").would, read.explain("b").would) == ("stale_hit", "fetch")


@pytest.mark.parametrize("grace", ["long", -1, float("nan")])
def test_what_is_no_time_fails_the_flight(read, grace):
    """As what a callable ttl returns; nothing is stored and the key is free."""
    read.answers.extend([3, grace])
    with pytest.raises((TypeError, ValueError), match=r"^grace: "):
        read()
    assert read() == 3


def test_a_coroutine_function_is_refused():
    """At decoration."""

    async def grace(landing):
        return 5

    with pytest.raises(TypeError, match="grace: expected a plain callable"):
        single_flight_ttl(lambda: 1, ttl=1, grace=grace)


def test_it_is_shown(read):
    """As it was given."""
    assert callable(read.cache_parameters()["grace"])
