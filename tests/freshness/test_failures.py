"""failure_ttl: where there is no value, the exception is kept for a while and raised to those who come."""

import asyncio

import pytest

from singleflight import FlightDeadlock, FlightTimeout
from singleflight.testing import FakeClock

from ..drivers import until


class Refused(Exception):
    """One with an attribute."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


@pytest.fixture
def failed(source):
    """A function whose first execution has failed with `Refused(7)`; the others return their number."""

    def make(error=None, **options):
        made = source(**{"failure_ttl": 5, **options})
        made.script[0] = [Refused(7) if error is None else error]
        with pytest.raises(BaseException) as raised:
            made.call()
        made.first = raised.value
        return made

    return make


def test_later_callers_get_copies_until_it_ends(failed):
    """Same type, args and attributes, an object and a traceback of their own; then the function is called."""
    source = failed()
    told = []
    for _ in range(4):
        with pytest.raises(Refused) as raised:
            source.call()
        told.append(raised.value)
    assert len({id(error) for error in [source.first, *told]}) == 5
    assert {(error.args, error.code) for error in told} == {((7,), 7)}
    for error in told:
        length, traceback = 0, error.__traceback__
        while traceback is not None:
            length, traceback = length + 1, traceback.tb_next
        assert length < 15
    assert source.executions.begun == 1
    source.clock.advance(4.999)
    with pytest.raises(Refused):
        source.call()
    source.clock.advance(0.001)
    assert source.call() == 1
    stats = source.fetch.stats()
    assert (stats.errors, stats.failures, stats.fetches, stats.hits, stats.calls) == (6, 1, 1, 0, 2)
    assert source.sums()


def test_without_it_nothing_is_kept(failed):
    """The next caller calls."""
    source = failed(failure_ttl=0)
    assert source.call() == 1


def test_looking_at_a_stored_failure(failed):
    """There is no entry; explain says what would be raised and for how long."""
    source = failed()
    source.clock.advance(2)
    assert source.fetch.entry() is None
    told = source.fetch.explain()
    assert (told.would, told.entry, told.fresh_for, told.stale_for) == ("hit", None, 3.0, 0.0)
    assert str(told) == "('A',) would raise the exception that is stored, for 3 s more"


@pytest.mark.parametrize("how", ["invalidate", "put", "clear", "refresh"])
def test_what_ends_it(driver, failed, how):
    """invalidate, put and cache_clear; refresh calls in any case."""
    source = failed()
    if how == "invalidate":
        assert source.fetch.invalidate()
    elif how == "put":
        source.fetch.put(1)
    elif how == "clear":
        source.fetch.cache_clear()
    else:
        assert driver.call(source.fetch.refresh) == 1
    assert source.call() == 1


def test_a_failed_refresh_keeps_it_no_longer(driver, failed):
    """The new failure is kept from then on."""
    source = failed()
    source.script[1] = [Refused(8)]
    source.clock.advance(4)
    with pytest.raises(Refused, match="8"):
        driver.call(source.fetch.refresh)
    source.clock.advance(4)
    with pytest.raises(Refused, match="8"):
        source.call()
    source.clock.advance(1)
    assert source.call() == 2


def test_not_over_a_value(driver, source):
    """Where there is a value, fresh or stale, a failing refresh leaves it."""
    made = source(grace=50, failure_ttl=5)
    made.call()
    for number, age in ((1, 5), (2, 6)):
        made.script[number] = [Refused(number)]
        made.clock.advance(age)
        with pytest.raises(Refused):
            driver.call(made.fetch.refresh)
        assert made.fetch.entry().value == 0
        assert made.fetch.explain().would == ("hit" if number == 1 else "stale_hit")


def test_a_failure_after_the_grace_is_kept(source):
    """The value is gone then, and its place is taken by the failure."""
    made = source(grace=5, failure_ttl=5)
    made.call()
    made.script[1] = [Refused(1)]
    made.clock.advance(15)
    for _ in range(3):
        with pytest.raises(Refused):
            made.call()
    assert made.executions.begun == 2
    made.clock.advance(5)
    assert made.call() == 2


@pytest.mark.parametrize(
    "error", [FlightDeadlock("x"), FlightTimeout("x"), KeyboardInterrupt(), asyncio.CancelledError()]
)
def test_what_is_never_kept(failed, error):
    """FlightDeadlock, FlightTimeout and aborts say nothing about the key."""
    source = failed(error)
    assert type(source.first) is type(error)
    assert source.call() == 1


def test_values_that_are_refused_are_not_kept(source):
    """failure_ttl stores exceptions only."""
    made = source(failure_ttl=5)
    made.script[0] = [None]
    assert made.call() is None
    assert made.call() == 1


@pytest.mark.parametrize(("retries", "calls"), [(0, 1), (1, 2)])
def test_followers_try_first(driver, source, retries, calls):
    """Those who waited have their retries, and the last failure is what is kept."""
    made = source(failure_ttl=5, follower_retries=retries)
    gate = made.hold(0, Refused(0))
    made.script[1] = [Refused(1)]
    driver.start(made.fetch)
    made.executions.wait_for(1)
    driver.start(made.fetch, count=4)
    made.seen.wait_for("wait", 4)
    gate.set()
    assert {type(outcome) for outcome in driver.outcomes()} == {Refused}
    with pytest.raises(Refused, match=str(retries)):
        made.call()
    assert made.executions.begun == calls
    assert made.sums()


def test_a_detached_failure_is_not_kept(driver, source):
    """After invalidate the flight's failure is its callers' alone."""
    made = source(failure_ttl=5)
    gate = made.hold(0, Refused(0))
    caller = driver.start(made.fetch)
    made.executions.wait_for(1)
    made.fetch.invalidate()
    gate.set()
    assert isinstance(caller.outcome(), Refused)
    assert made.call() == 1


def test_it_keeps_no_frames(driver):
    """What the failing frames held is not kept for as long as the exception."""
    import gc
    import weakref

    clock, held = FakeClock(), []

    class Big:
        pass

    async def fetch():
        big = Big()
        held.append(weakref.ref(big))
        raise Refused(1)

    fetch = driver.decorate(fetch, ttl=10, failure_ttl=5, timer=clock)

    async def ask():
        try:
            await fetch()
        except Refused:
            return "refused"

    assert driver.call(ask) == "refused"
    assert driver.call(ask) == "refused"
    gc.collect()
    assert len(held) == 1
    until(lambda: gc.collect() is None or held[0]() is None)


def test_it_is_evicted_and_expires_like_an_entry(source):
    """It takes a place among maxsize."""
    made = source(failure_ttl=5, maxsize=2)
    made.script[0] = [Refused(0)]
    with pytest.raises(Refused):
        made.call("bad")
    made.call("B")
    made.call("C")
    assert made.call("bad") == 3
    made.clock.advance(20)
    assert made.fetch.stats().entries == 0
