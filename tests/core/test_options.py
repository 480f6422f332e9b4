"""Options and durations by table: what is taken, what is refused, and how the error names it."""

import math
import time
from datetime import timedelta

import pytest
from cachetools import LRUCache, TTLCache
from hypothesis import given
from hypothesis import strategies as st

from singleflight.common.durations import lifetime, patience, seconds
from singleflight.core import options
from singleflight.core.options import Options, is_not_none, switched_off, usual_idle
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


async def later(*_):
    """What no option can await."""


class Plain(LRUCache):
    """A cache class that cannot weigh."""

    def __init__(self, maxsize):
        super().__init__(maxsize)


CALLABLE = ["ttl", "cache_if", "timer", "listener", "copy", "failure_ttl", "grace", "tags", "weigh"]
REFUSED = [
    ("maxsize", 1.5, TypeError, "expected a whole number or None, got 1.5"),
    ("maxsize", 0, ValueError, "must be at least 1, got 0"),
    ("max_idle_locks", "1", TypeError, "expected a whole number or None, got '1'"),
    ("max_idle_locks", -1, ValueError, "must be at least 0, got -1"),
    ("follower_retries", 0.5, TypeError, "expected a whole number or None, got 0.5"),
    ("follower_retries", -1, ValueError, "must be at least 0, got -1"),
    ("max_flights", "1", TypeError, "expected a whole number or None, got '1'"),
    ("max_flights", 0, ValueError, "must be at least 1, got 0"),
    ("cache_if", 3, TypeError, "expected a callable, got 3"),
    ("timer", 3, TypeError, "expected a callable, got 3"),
    ("listener", 3, TypeError, "expected a callable or None, got 3"),
    ("copy", 3, TypeError, "expected True or a callable of the value, got 3"),
    ("weigh", 3, TypeError, "expected a callable of the value or None, got 3"),
    ("store", 3, TypeError, "expected a RedisStore or None, got 3"),
    ("policy", 3, TypeError, "expected a cache class of cachetools, as LRUCache, got 3"),
    ("tags", 3, TypeError, "expected strings, got 3"),
    ("jitter", "x", TypeError, "expected a number, got 'x'"),
    ("jitter", -0.1, ValueError, "must be at least 0 and less than 1, got -0.1"),
    ("jitter", 1, ValueError, "must be at least 0 and less than 1, got 1"),
    ("refresh_ahead", "x", TypeError, "expected a part of the ttl, \"xfetch\" or None, got 'x'"),
    ("refresh_ahead", 0, ValueError, "must be more than 0 and less than 1, got 0"),
    ("refresh_ahead", 1, ValueError, "must be more than 0 and less than 1, got 1"),
    ("soft_timeout", 1, ValueError, "needs `grace`: without it no stale value is served"),
    *(
        (option, -1, ValueError, "a duration cannot be negative, got -1")
        for option in ("ttl", "wait_timeout", "flight_timeout", "failure_ttl", "grace", "soft_timeout")
    ),
    *(
        (option, later, TypeError, "expected a plain callable, got a coroutine function: ")
        for option in (
            "ttl",
            "cache_if",
            "timer",
            "listener",
            "copy",
            "failure_ttl",
            "grace",
            "tags",
            "weigh",
        )
    ),
]


@pytest.mark.parametrize(("option", "value", "kind", "text"), REFUSED)
def test_what_a_refusal_says(option, value, kind, text):
    """Which option, what was expected, and what came."""
    with pytest.raises(kind) as raised:
        Options.checked(**{"ttl": 60, option: value})
    told = str(raised.value)
    assert (
        told.startswith(f"{option}: {text}<function later ")
        if value is later
        else told == f"{option}: {text}"
    )


def test_what_a_limit_is_needed_for():
    """Without one nothing is evicted, so nothing need be weighed; a policy that cannot weigh need not."""
    with pytest.raises(ValueError, match=r"^weigh: needs `maxsize`: without a limit nothing is evicted$"):
        Options.checked(ttl=60, weigh=len, maxsize=None)
    assert Options.checked(ttl=60, policy=Plain).policy is Plain
    with pytest.raises(TypeError, match=r"^policy: Plain cannot be made as "):
        Options.checked(ttl=60, policy=Plain, weigh=len)


def chosen(options, *, beside=("ageing",)):
    """What is kept of them; how values age is compared one by one."""
    told = {name: getattr(options, name) for name in Options.__slots__ if name not in beside}
    ageing = options.ageing
    told["ages"] = ageing.grace, ageing.refresh_ahead, ageing.jitter, ageing.failure_ttl
    return told


DEFAULTS = {
    "ttl": 60,
    "fixed_ttl": 60.0,
    "maxsize": 1024,
    "max_idle_locks": 1024,
    "cache_if": is_not_none,
    "follower_retries": 1,
    "wait_timeout": None,
    "flight_timeout": None,
    "timer": time.monotonic,
    "listener": None,
    "failure_ttl": 0.0,
    "grace": 0.0,
    "refresh_ahead": None,
    "jitter": 0.0,
    "copy": None,
    "tags": (),
    "max_flights": None,
    "soft_timeout": 0.0,
    "policy": TTLCache,
    "weigh": None,
    "store": None,
    "ages": (0.0, None, 0.0, 0.0),
}


def test_what_holds_where_nothing_is_said():
    """Every option but `ttl` has a default."""
    assert chosen(Options.checked(ttl=60)) == DEFAULTS


class Store:
    """Looks like one."""

    def tier_for(self, cache, function):
        raise AssertionError


@pytest.mark.parametrize(
    ("option", "value", "kept"),
    [
        ("maxsize", 1, {}),
        ("maxsize", None, {}),
        ("max_idle_locks", 0, {}),
        ("follower_retries", 0, {}),
        ("follower_retries", None, {}),
        ("max_flights", 1, {}),
        ("wait_timeout", 0, {"wait_timeout": 0.0}),
        ("wait_timeout", math.inf, {"wait_timeout": None}),
        ("flight_timeout", timedelta(minutes=1), {"flight_timeout": 60.0}),
        ("timer", time.time, {}),
        ("cache_if", bool, {}),
        ("listener", print, {}),
        ("failure_ttl", timedelta(seconds=2), {"failure_ttl": 2.0, "ages": (0.0, None, 0.0, 2.0)}),
        ("failure_ttl", len, {}),
        ("grace", 3, {"grace": 3.0, "ages": (3.0, None, 0.0, 0.0)}),
        ("grace", len, {"ages": (math.inf, None, 0.0, 0.0)}),
        ("refresh_ahead", 0.5, {"ages": (0.0, 0.5, 0.0, 0.0)}),
        ("refresh_ahead", "xfetch", {"ages": (0.0, "xfetch", 0.0, 0.0)}),
        ("jitter", 0.5, {"ages": (0.0, None, 0.5, 0.0)}),
        ("copy", True, {}),
        ("copy", False, {"copy": None}),
        ("copy", list, {}),
        ("tags", "eu", {"tags": ("eu",)}),
        ("tags", ["eu", "us", "eu"], {"tags": ("eu", "us")}),
        ("tags", len, {}),
        ("policy", LRUCache, {}),
        ("weigh", len, {}),
        ("store", Store(), {}),
    ],
)
def test_what_is_kept_of_an_option(option, value, kept):
    """As it came, or as a number of seconds; nothing else changes with it."""
    options = Options.checked(ttl=60, **{option: value})
    assert chosen(options) == {**DEFAULTS, option: value, **kept}


@pytest.mark.parametrize("grace", [2, lambda landing: 2])
def test_a_soft_timeout_needs_a_grace(grace):
    """A fixed one, or one that some values may have."""
    assert Options.checked(ttl=60, grace=grace, soft_timeout=timedelta(seconds=1)).soft_timeout == 1.0


def test_what_the_callables_are_asked():
    """The landing, or the error; what they answer is turned into seconds, and checked by name."""
    asked, answers = [], {}

    def answering(option):
        return lambda given: (asked.append((option, given)), answers[option])[1]

    options = Options.checked(**{option: answering(option) for option in ("ttl", "grace", "failure_ttl")})
    landing, error = Landing("k", 1), ValueError()
    ways = {"ttl": (options.ttl_of, landing), "grace": (options.grace_of, landing)}
    ways["failure_ttl"] = (options.failure_ttl_of, error)
    for option, (of, shown) in ways.items():
        answers[option] = timedelta(seconds=2)
        assert of(shown) == 2.0
        assert asked[-1] == (option, shown)
        answers[option] = "soon"
        with pytest.raises(TypeError, match=f"^{option}: expected seconds"):
            of(shown)
    answers["ttl"] = -1  # it is over already
    assert options.ttl_of(landing) == 0.0
    fixed = Options.checked(ttl=0.5, failure_ttl=3)
    assert (fixed.ttl_of(landing), fixed.failure_ttl_of(error)) == (0.5, 3.0)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, {}),
        ({"maxsize": 7, "max_idle_locks": 7}, {"maxsize": 7}),
        ({"maxsize": 7, "max_idle_locks": 1024}, {"maxsize": 7, "max_idle_locks": 1024}),
        ({"maxsize": 7, "weigh": len}, {"maxsize": 7, "weigh": len}),
        ({"maxsize": None}, {"maxsize": None}),
        ({"max_idle_locks": None}, {"max_idle_locks": None}),
        ({"grace": 0.0, "jitter": 0, "failure_ttl": timedelta(0), "follower_retries": 1}, {}),
        ({"copy": False, "tags": [], "timer": time.monotonic, "wait_timeout": math.inf}, {}),
        ({"copy": True, "tags": "eu", "grace": 5}, {"copy": True, "tags": ("eu",), "grace": 5.0}),
    ],
)
def test_the_options_that_differ_from_their_defaults(given, told):
    """As many locks are kept as entries by default; with weights, or without a limit, 1024."""
    assert Options.checked(ttl=60, **given).differing() == {"ttl": 60, **told}


def test_an_option_is_asked_for_no_more_than_what_it_is():
    """Only numbers are compared: what else is not the default itself differs."""

    class Odd:
        def __eq__(self, other):
            raise AssertionError

        __hash__ = None

        def __call__(self, value):
            return value

    odd = Odd()
    assert Options.checked(ttl=60, copy=odd).differing()["copy"] is odd


@pytest.mark.parametrize(
    ("maxsize", "weigh", "usual"), [(7, None, 7), (None, None, 1024), (7, len, 1024), (4096, None, 4096)]
)
def test_how_many_locks_are_kept_idle(maxsize, weigh, usual):
    """As many as entries, where their number is limited."""
    assert usual_idle(maxsize, weigh) == usual


@pytest.mark.parametrize("off", [None, "", "0", "false", "FALSE", "No", "off", "OFF"])
def test_the_switch_is_not_set(monkeypatch, off):
    """Without a word in the environment, or with one that denies it."""
    monkeypatch.delenv("SINGLEFLIGHT_DISABLED", raising=False)
    if off is not None:
        monkeypatch.setenv("SINGLEFLIGHT_DISABLED", off)
    assert switched_off() is False


@pytest.mark.parametrize("on", ["1", "yes", "TRUE", "anything"])
def test_the_switch_is_set(monkeypatch, on):
    """By any other word."""
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", on)
    assert switched_off() is True


def test_the_switch_is_taken_away_while_it_is_looked_at(monkeypatch):
    """By another thread, say: then it is not set."""
    monkeypatch.delenv("SINGLEFLIGHT_DISABLED", raising=False)
    monkeypatch.setattr(options, "environment", {options.switch: b"1"})
    assert switched_off() is False


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
