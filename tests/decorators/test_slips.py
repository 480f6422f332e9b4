"""Options, kinds and attributes that do not exist: the message says which was probably meant."""

import asyncio
import inspect
import logging
import subprocess
import sys
from unittest.mock import Mock

import pytest

from singleflight import KeyedLocks, LoggingListener, single_flight_ttl
from singleflight.telemetry.events import ALL_KINDS


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("tll", "; did you mean 'ttl'?"),
        ("TTL", "; did you mean 'ttl'?"),
        ("ttl_seconds", "; did you mean 'ttl'?"),
        ("max_size", "; did you mean 'maxsize'?"),
        ("max_idle_lock", "; did you mean 'max_idle_locks'?"),
        ("on_event", "; did you mean 'listener'?"),
        (
            "timeout",
            "; did you mean 'ttl' (of a value), 'wait_timeout' (of who waits) "
            "or 'flight_timeout' (of a call)?",
        ),
        ("lock", "; concurrent calls are one call without"),
        ("condition", "; concurrent calls are one call without"),
        ("cache", "; each function has values and stats of its own"),
        ("quux", f"; there are {', '.join(list(inspect.signature(single_flight_ttl).parameters)[1:])}"),
    ],
)
@pytest.mark.parametrize("others", [{}, {"ttl": 60}])
def test_an_unknown_option(option, meant, others):
    """It is named, and so is what was meant, whether or not `ttl` is there."""
    for arguments in ((), (int,)):
        with pytest.raises(TypeError) as raised:
            single_flight_ttl(*arguments, **{option: 60}, **others)
        assert str(raised.value) == f"single_flight_ttl: unknown option {option!r}{meant}"


def test_its_signature_is_shown():
    """To `inspect` as it is written: every option by name, nothing beside them, `ttl` without a default."""
    parameters = inspect.signature(single_flight_ttl).parameters
    assert parameters["ttl"].default is inspect.Parameter.empty
    assert {parameter.kind for parameter in parameters.values()} == {
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.KEYWORD_ONLY,
    }
    assert single_flight_ttl.__doc__.startswith("Make concurrent calls")
    with pytest.raises(TypeError, match="'ttl'"):
        single_flight_ttl()
    with pytest.raises(TypeError, match=r"^single_flight_ttl: options are given by name, as in "):
        single_flight_ttl(60)


def heard(**attributes):
    """A listener with these attributes."""

    def listener(event):
        listener.events.append(event.kind)

    listener.events = []
    for name, value in attributes.items():
        setattr(listener, name, value)
    return listener


@pytest.mark.parametrize("make", [lambda kinds: {"wants": kinds}, None])
def test_an_unknown_kind_is_refused(make):
    """At decoration, with the kinds that there are; for the logging listener when it is made."""
    with pytest.raises(
        ValueError, match=r"wants: no such kinds of events: 'lands', \[\]; there are abort, "
    ) as raised:
        if make is None:
            LoggingListener(wants=["land", "lands", []])
        else:
            single_flight_ttl(ttl=60, listener=heard(**make(["land", "lands", []])))
    assert str(raised.value).endswith(f": 'lands', []; there are {', '.join(sorted(ALL_KINDS))}")


@pytest.mark.parametrize("kinds", ["land", b"land", None, 7, iter(["land"]), (kind for kind in ["land"])])
def test_no_collection_of_kinds_is_refused(kinds):
    """A string would be asked for its parts, and an iterator can answer once."""
    for make in (
        lambda: single_flight_ttl(ttl=60, listener=heard(wants=kinds)),
        lambda: LoggingListener(wants=kinds),
    ):
        with pytest.raises(TypeError, match="wants: expected a collection of kinds of events, got "):
            make()


def test_a_listener_without_wants_that_can_be_read():
    """A property that raises is the listener's own fault, as before: told once, in the log."""

    class Listener:
        @property
        def wants(self):
            raise OSError

        def __call__(self, event):
            raise AssertionError

    @single_flight_ttl(ttl=60, listener=Listener())
    def fetch():
        return 1

    assert fetch() == 1
    with pytest.raises(TypeError, match=r"^listener: wants: "):
        single_flight_ttl(ttl=60, listener=Mock())


@pytest.mark.parametrize("kinds", [{"land"}, ["land"], {"land": 1}, ("land", "hit"), frozenset(), ALL_KINDS])
def test_kinds_that_are_known(kinds):
    """Any collection, also an empty one; one that changes later may name what it likes."""
    listener = heard(wants=kinds)

    @single_flight_ttl(ttl=60, listener=listener)
    def fetch(key):
        return key

    fetch(1)
    assert ("land" in listener.events) == ("land" in kinds)
    listener.wants = ["lands"]
    listener.events.clear()
    fetch(2)
    assert listener.events == []


def test_a_container_that_only_answers():
    """It cannot be asked for what it has, so it is believed."""

    class Most:
        def __contains__(self, kind):
            return kind != "hit"

    listener = heard(wants=Most())

    @single_flight_ttl(ttl=60, listener=listener)
    def fetch():
        return 1

    fetch()
    assert listener.events == ["fetch", "land"]


def test_a_hidden_logging_listener_is_known():
    """Whether or not its level is shown."""
    logger = logging.getLogger("singleflight.tests.slips")
    logger.setLevel(logging.ERROR)
    single_flight_ttl(ttl=60, listener=LoggingListener(logger))


def test_idle_locks_have_a_limit_where_entries_have_none():
    """1024 by default; an explicit None keeps them all."""
    limited = single_flight_ttl(ttl=0, maxsize=None)(lambda key: key)
    unlimited = single_flight_ttl(ttl=0, maxsize=None, max_idle_locks=None)(lambda key: key)
    for function in (limited, unlimited):
        for key in range(1100):
            function(key)
    assert (limited.locks.idle, unlimited.locks.idle) == (1024, 1100)
    assert limited.cache_parameters()["max_idle_locks"] == 1024
    assert single_flight_ttl(ttl=0, maxsize=7)(heard).cache_parameters()["max_idle_locks"] == 7


class Account:
    @single_flight_ttl(ttl=60, name="prices")
    def price(self, symbol):
        return symbol

    @single_flight_ttl(ttl=60)
    @classmethod
    def rate(cls, currency):
        return currency

    @single_flight_ttl(ttl=60)
    async def news(self):
        return 1


@single_flight_ttl(ttl=60, name="rates")
def rates():
    return 1


SLIPS = {
    "flush": "clear()",
    "cache": "entry(...)",
    "cache_key": "explain(...).key",
    "cache_lock": "locks",
    "delete": "invalidate(...)",
    "get": "entry(...)",
    "set": "put(value, ...)",
}


@pytest.mark.parametrize(("slip", "meant"), SLIPS.items())
def test_attributes_that_others_have(slip, meant):
    """The function is named and what there is instead, on functions and on bound methods."""
    for function, name in (
        (rates, "rates"),
        (Account.price, "prices"),
        (Account().price, "Account.price"),
        (Account.rate, "Account.rate"),
        (Account().news, "Account.news"),
    ):
        assert not hasattr(function, slip)
        assert slip not in dir(function)
        with pytest.raises(AttributeError) as raised:
            getattr(function, slip)
        assert str(raised.value).startswith(f"{name}: no attribute {slip!r}; did you mean '{meant}'")


def test_misspelt_attributes():
    """What is close to a control is suggested; what is close to none is named."""
    with pytest.raises(
        AttributeError, match=r"^rates: no attribute 'invalidat'; did you mean 'invalidate'\?$"
    ):
        rates.invalidat
    with pytest.raises(AttributeError, match=r"^rates: no attribute 'xyzzy'$"):
        rates.xyzzy
    with pytest.raises(AttributeError, match="'_private'"):
        rates._private
    assert getattr(rates, "__wrapped__", None).__name__ == "rates"


def test_what_the_function_has_goes_on_to_work():
    """Attributes of its own, also under such names, set before or after, on bound methods too."""

    def fetch(self):
        return 1

    fetch.flush = "before"

    class Owner:
        price = single_flight_ttl(ttl=60)(fetch)

    assert (Owner.price.flush, Owner().price.flush) == ("before", "before")
    Owner.price.cache = "after"
    assert (Owner.price.cache, Owner().price.cache, fetch.cache) == ("after", "after", "after")
    assert asyncio.run(Account().news()) == 1


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: KeyedLocks().evict_idle(older_than="long"), "older_than: "),
        (lambda: KeyedLocks().evict_idle(-1), "older_than: "),
        (lambda: KeyedLocks()("a", timeout="long"), "timeout: "),
        (lambda: KeyedLocks(max_idle="all"), "max_idle: "),
        (lambda: rates.invalidate_where("a"), "predicate: "),
        (lambda: single_flight_ttl(ttl="long"), "ttl: "),
        (lambda: single_flight_ttl(ttl=1, key=["k"]), "key: "),
        (lambda: single_flight_ttl(ttl=1, listener=3), "listener: "),
        (lambda: single_flight_ttl(ttl=1, name=3), "name: "),
        (lambda: rates.bulk(max_batch=0), "max_batch: "),
    ],
)
def test_bad_values_name_their_argument(call, named):
    """Wherever one is taken."""
    with pytest.raises((TypeError, ValueError), match=f"^{named}"):
        call()


def test_nothing_is_loaded_for_it():
    """`difflib` is imported when something was misspelt, and not before."""
    program = "import sys, singleflight; print('difflib' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False"]
