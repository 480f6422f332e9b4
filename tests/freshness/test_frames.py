"""A stored failure keeps nothing alive of the calls that it came from."""

import gc
import weakref

import pytest

from singleflight import single_flight_ttl


class Local:
    """Something big that a function works on."""


def forget(driver):
    """Let go of what the callers were told."""
    driver.outcomes()
    driver.callers.clear()

    async def nothing():
        return None

    driver.call(driver.decorate(nothing, ttl=0))  # a thread that stands still may own what others let go of
    driver.callers.clear()
    gc.collect()


def causes(error):
    raise ValueError from error


def contexts(error):
    raise ValueError  # while the other one is handled


def members(error):
    raise ExceptionGroup("g", [error, ExceptionGroup("h", [KeyError()])])


def cycles(error):
    error.__cause__ = later = ValueError()
    raise later from error


def wraps(error):
    raise OSError(error)


def carries(error):
    later = ValueError()
    later.errors = [error]
    raise later


WAYS = [causes, contexts, members, cycles, wraps, carries]


def chain(error):
    """An exception and its causes and contexts, each once."""
    found = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("served", [0, 2])
def test_no_frame_is_kept(driver, way, served):
    """Neither by its traceback nor by those of what it came from, also once it was served."""
    watched = []

    async def fetch():
        local = Local()
        watched.append(weakref.ref(local))
        try:
            raise LookupError(1)
        except LookupError as error:
            way(error)

    fetch = driver.decorate(fetch, failure_ttl=60)
    for _ in range(1 + served):
        with pytest.raises((ValueError, ExceptionGroup, OSError)) as caught:
            driver.call(fetch)
        if served:  # as whoever unwraps it does
            inner = caught.value.__cause__ or caught.value.__context__
            with pytest.raises(LookupError):
                raise inner if isinstance(inner, LookupError) else LookupError
    del caught
    inner = None
    forget(driver)
    assert [local() for local in watched] == [None]
    assert fetch.stats().calls == 1


@pytest.mark.parametrize("way", WAYS)
def test_an_instance_is_not_kept(way):
    """It goes though its failure was stored a moment ago."""

    class Broker:
        @single_flight_ttl(ttl=60, failure_ttl=60)
        def price(self):
            try:
                raise LookupError(self)
            except LookupError as error:
                error.args = ()
                way(error)

    broker = Broker()
    for _ in range(2):
        with pytest.raises((ValueError, ExceptionGroup, OSError)):
            broker.price()
    gone = weakref.ref(broker)
    assert Broker.price.stats().calls == 1
    del broker
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("way", WAYS[:3])
def test_the_leader_keeps_its_tracebacks(driver, way):
    """What it is told says where each exception was raised, while the store's copies say nothing."""

    async def fetch():
        try:
            raise LookupError(1)
        except LookupError as error:
            way(error)

    fetch = driver.decorate(fetch, failure_ttl=60)
    with pytest.raises((ValueError, ExceptionGroup)) as first:
        driver.call(fetch)
    with pytest.raises((ValueError, ExceptionGroup)) as second:
        driver.call(fetch)
    assert {error.__traceback__ is not None for error in chain(first.value)} == {True}
    assert {error.__traceback__ is not None for error in chain(second.value)[1:]} <= {False}
    assert [type(error) for error in chain(first.value)] == [type(error) for error in chain(second.value)]


def test_a_caller_who_raises_the_cause_again_changes_nothing_for_the_others(driver):
    """Nor do its frames live as long as the stored failure does."""

    async def fetch():
        raise ValueError from LookupError(1)

    fetch = driver.decorate(fetch, failure_ttl=60)
    watched = []

    async def ask():
        local = Local()
        watched.append(weakref.ref(local))
        try:
            await fetch()
        except ValueError as error:
            cause = error.__cause__
            cause.add_note("seen")
            raise cause from None

    for _ in range(3):
        with pytest.raises(LookupError) as caught:
            driver.call(ask)
        assert caught.value.__notes__ == ["seen"]
    del caught
    forget(driver)
    assert [local() for local in watched] == [None] * 3
