"""Warnings point at the line of whoever called, as if the function were not decorated."""

import asyncio
import inspect
import linecache
import traceback
import warnings
from functools import partial

import pytest

from singleflight import single_flight_ttl
from singleflight.common.frames import MARK, looked_through
from singleflight.drivers import threads

from ..builds import wrapt_built
from ..drivers import until


def plain(symbol="A"):
    warnings.warn("old", DeprecationWarning, stacklevel=2)
    return symbol


class Account:
    @single_flight_ttl(ttl=60)
    def method(self, symbol):
        return plain_below(symbol)

    @single_flight_ttl(ttl=60)
    @classmethod
    def of_class(cls, symbol):
        warnings.warn("old", DeprecationWarning, stacklevel=2)
        return symbol

    @single_flight_ttl(ttl=60)
    @staticmethod
    def static(symbol):
        warnings.warn("old", DeprecationWarning, stacklevel=2)
        return symbol

    @single_flight_ttl(ttl=60)
    def get(self, symbol):
        raise AssertionError("not to be called")

    @get.bulk
    def load(self, symbols):
        warnings.warn("old", DeprecationWarning, stacklevel=2)
        return dict.fromkeys(symbols, 1)


def plain_below(symbol):
    warnings.warn("old", DeprecationWarning, stacklevel=3)  # for whoever called the method
    return symbol


function = single_flight_ttl(ttl=60)(plain)


@single_flight_ttl(ttl=60)
def getter(symbol):
    raise AssertionError("not to be called")


@getter.bulk(max_batch=1)
def loader(symbols):
    warnings.warn("old", DeprecationWarning, stacklevel=2)
    return dict.fromkeys(symbols, 1)


def bypassed():
    with function.bypass():
        return function()  # the line


def disabled():
    return loader(["C", "D"])  # the line


def beyond_wrapt(how):
    """A way to call; those that go through wrapt's own call need its C extension (see docs/limits.md)."""
    through_wrapt = how in ("loader", "loader of an instance", "disabled")
    return pytest.param(how, marks=[wrapt_built] if through_wrapt else [], id=how)


CALLS = {
    "function": lambda: function("B"),
    "partial below": lambda: single_flight_ttl(ttl=60)(partial(plain))(),
    "method": lambda: Account().method("B"),
    "class method": lambda: Account.of_class("B"),
    "static method": lambda: Account.static("B"),
    "refresh": lambda: function.refresh("B"),
    "refresh of a method": lambda: Account().method.refresh("B"),
    "loader": lambda: loader(["A", "B"]),
    "loader of an instance": lambda: Account().load(["A", "B"]),
    "key": lambda: single_flight_ttl(ttl=60, key=plain)(lambda symbol: 1)("B"),
    "bypassed": bypassed,
    "disabled": disabled,
}


@pytest.mark.parametrize("how", [beyond_wrapt(how) for how in CALLS])
def test_a_warning_of_the_function_points_at_its_caller(how, monkeypatch):
    """With `stacklevel=2`, however it is called; so it is shown where it concerns somebody."""
    function.cache_clear()
    getter.cache_clear()
    if how == "disabled":
        monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CALLS[how]()
    assert caught
    for each in caught:
        assert (str(each.message), each.filename) == ("old", __file__)
        line = linecache.getline(each.filename, each.lineno)
        assert line.strip().startswith(f'"{how}": lambda') or "# the line" in line


def wait_for_another(call, of, crowd, gate, entered):
    """Wait for a thread that leads, on the thread of an event loop in debug mode; what was warned of."""

    def release():
        until(lambda: any(flight.followers for flight in of.flights()))
        gate.set()

    async def main():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        return [each for each in caught if each.category is RuntimeWarning]

    crowd.add(call)
    entered.pass_()
    crowd.add(release)
    return asyncio.run(main(), debug=True)


@pytest.mark.parametrize(
    "how", [beyond_wrapt(how) for how in ("function", "method", "refresh", "loader", "loader of an instance")]
)
def test_our_own_warning_points_at_the_caller(how, crowd, gate, make_gate):
    """Who waits for another caller on the thread of an event loop is told so at the line of the call."""
    entered = make_gate()

    def held(result):
        entered.set()
        gate.pass_()
        return result

    class Broker:
        @single_flight_ttl(ttl=60)
        def price(self, symbol):
            return held(1)

        @price.bulk
        def prices(self, symbols):
            return held(dict.fromkeys(symbols, 1))

    broker = Broker()
    fetch = single_flight_ttl(ttl=60)(lambda symbol: held(1))
    load = fetch.bulk(lambda symbols: held(dict.fromkeys(symbols, 1)))
    calls = {
        "function": lambda: fetch("A"),
        "method": lambda: broker.price("A"),
        "refresh": lambda: fetch.refresh("A"),
        "loader": lambda: load(["A"]),
        "loader of an instance": lambda: broker.prices(["A"]),
    }
    of = Broker.price if how in ("method", "loader of an instance") else fetch
    caught = wait_for_another(calls[how], of, crowd, gate, entered)
    assert ["stands still" in str(each.message) for each in caught] == [True]
    assert caught[0].filename == __file__
    line = linecache.getline(__file__, caught[0].lineno).strip()
    assert line.startswith(f'"{how}": lambda')


def test_tracebacks_show_our_lines_all_the_same():
    """Also after `linecache` was told to look whether files have changed."""

    @single_flight_ttl(ttl=60)
    def fail(*_):  # a call that is always compiled in Python
        raise ValueError("x")

    with pytest.raises(ValueError, match="x") as caught:
        fail()
    linecache.checkcache()
    shown = "".join(traceback.format_exception(caught.value))
    assert MARK in shown
    assert "value = run(*args, **kwargs) if kwargs else run(*args)" in shown
    assert "_sf_driver(_sf_cache, _sf_run" in shown


def test_the_source_is_still_found():
    """Of the functions whose frames are left out."""
    assert inspect.getsource(threads.call).startswith('@runs("call")\n@looked_through\ndef call(')


def test_a_function_within_is_looked_through_as_well():
    """What it calls is called from its own caller's line, as far as warnings count."""

    @looked_through
    def outer():
        def inner():
            return plain()

        return inner

    inner = outer()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inner()  # here
    assert [(each.filename, linecache.getline(each.filename, each.lineno).strip()) for each in caught] == [
        (__file__, "inner()  # here")
    ]
    assert MARK in inner.__code__.co_filename
