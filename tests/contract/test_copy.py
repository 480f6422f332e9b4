"""copy: every caller gets an object of its own, whatever way it is served, and nobody the stored one."""

import copy

import pytest

from singleflight import Unchanged, single_flight_ttl
from singleflight.testing import FakeClock, Recorder

from ..drivers import Executions, until


class Refusal(Exception):
    """Raised by a copy."""


@pytest.fixture
def held(driver):
    """A function that returns `[number of the execution]`, and is held at the gates of `holds`."""
    seen, executions = Recorder(), Executions()

    def make(copy=True, holds=(), **options):
        gates = {number: driver.gate() for number in holds}

        async def fetch(key="A"):
            number = executions.begin()
            if number in gates:
                await gates[number]
            return [number]

        made = driver.decorate(fetch, copy=copy, listener=seen, **options)
        made.seen, made.executions, made.gates = seen, executions, gates
        return made

    return make


def landed(made):
    """The objects that listeners saw land."""
    return [event.value for event in made.seen.events if event.kind == "land"]


def test_leader_followers_and_hits_get_copies(driver, held):
    """Equal objects, none of them the stored one; what callers do to theirs is not seen by others."""
    fetch = held(holds=[0])
    callers = [driver.start(fetch)]
    fetch.executions.wait_for(1)
    callers += [driver.start(fetch) for _ in range(3)]
    fetch.seen.wait_for("wait", 3)
    fetch.gates[0].set()
    values = [caller.outcome() for caller in callers] + [driver.call(fetch) for _ in range(3)]
    assert values == [[0]] * 7
    assert len({id(value) for value in [*values, *landed(fetch)]}) == 8
    for value in values:
        value.append("mine")
    assert driver.call(fetch) == [0]
    stats = fetch.stats()
    assert (stats.fetches, stats.waits, stats.hits, stats.errors) == (1, 3, 4, 0)


def test_stale_values_and_renewals_are_copied(driver, held):
    """Stale hits, refreshes and what a renewal brought."""
    clock = FakeClock()
    fetch = held(ttl=10, grace=50, timer=clock)
    values = [driver.call(fetch)]
    clock.advance(11)
    values.append(driver.call(fetch))
    fetch.executions.wait_for(2)
    until(lambda: not fetch.flights())
    values += [driver.call(fetch), driver.call(fetch.refresh)]
    assert values == [[0], [0], [1], [2]]
    assert len({id(value) for value in [*values, *landed(fetch)]}) == 7


def test_a_callable_makes_the_copies(driver, held):
    """It is called once for each caller with the stored object, and its result is what the caller gets."""
    copied = []
    fetch = held(copy=lambda value: (copied.append(value), tuple(value))[1])
    assert [driver.call(fetch) for _ in range(3)] == [(0,)] * 3
    assert [id(value) for value in copied] == [id(landed(fetch)[0])] * 3


def test_put_and_entry_hold_copies(driver, held):
    """What is put may be changed afterwards, and so may what `entry` shows."""
    fetch = held()
    mine = [99]
    fetch.put(mine)
    mine.append("later")
    fetch.entry().value.append("seen")
    assert driver.call(fetch) == [99] == fetch.entry().value


def test_what_is_not_stored_is_copied_too(driver, held):
    """With a ttl of 0, and where `cache_if` refuses."""
    for options in ({"ttl": 0}, {"cache_if": lambda value: False}):
        fetch = held(**options)
        assert driver.call(fetch) is not landed(fetch)[-1]


def test_bypassed_calls_get_the_functions_own_value(driver, held):
    """Nobody shares it, so nothing is copied."""
    copied = []
    fetch = held(copy=lambda value: copied.append(value))
    with fetch.bypass():
        assert driver.call(fetch) == [0]
    assert copied == []


def test_a_copy_of_a_stale_value_that_raises(driver):
    """The caller gets that, and the renewal that it has started goes on."""
    clock, refusals, numbers = FakeClock(), [], Executions()

    def refuse(value):
        if refusals:
            raise refusals.pop()
        return list(value)

    async def fetch():
        return [numbers.begin()]

    fetch = driver.decorate(fetch, ttl=10, grace=60, timer=clock, copy=refuse)
    fetch.put(["stale"])
    clock.advance(11)
    refusals.append(Refusal("copy"))
    with pytest.raises(Refusal, match="copy"):
        driver.call(fetch)
    until(lambda: not fetch.flights())
    assert driver.call(fetch) == [0]
    assert numbers.begun == 1


@pytest.mark.parametrize("error", [Refusal, TypeError, KeyboardInterrupt])
def test_what_a_copy_raises_is_its_callers(driver, held, error):
    """That caller gets it, and has been counted as served; the entry stays, for the others."""
    raising = []

    def refuse(value):
        if raising:
            raise raising.pop()
        return list(value)

    fetch = held(copy=refuse, holds=[0])
    raising.append(error("copy"))
    callers = [driver.start(fetch)]
    fetch.executions.wait_for(1)
    callers.append(driver.start(fetch))
    fetch.seen.wait_for("wait", 1)
    fetch.gates[0].set()
    ended = [caller.outcome() for caller in callers]
    assert sorted(type(each).__name__ for each in ended) == sorted([error.__name__, "list"])
    raising.append(error("copy"))
    with pytest.raises(error, match="copy") as raised:
        driver.call(fetch)
    assert type(raised.value) is error  # no UnhashableKey, though that is a TypeError
    assert driver.call(fetch) == [0]
    raising.append(error("copy"))
    with pytest.raises(error):
        fetch.put([1])
    assert driver.call(fetch) == [0]
    stats = fetch.stats()
    assert (stats.fetches, stats.waits, stats.hits, stats.errors, stats.failures) == (1, 1, 3, 0, 0)
    assert fetch.flights() == ()
    assert stats.locks == stats.idle_locks


def test_it_runs_under_no_lock(driver, held):
    """A copy may use the function, also for its own key."""
    fetch = held(copy=lambda value: (fetch.stats(), fetch.entry("B"), fetch.invalidate("B"), list(value))[3])
    assert [driver.call(fetch) for _ in range(2)] == [[0], [0]]


def test_a_value_that_is_kept_is_copied(driver):
    """`Unchanged` keeps the stored object, of which each caller gets a copy."""
    executions = Executions()

    async def fetch():
        return Unchanged if executions.begin() else ["value"]

    fetch = driver.decorate(fetch, copy=True)
    values = [driver.call(fetch), driver.call(fetch.refresh), driver.call(fetch)]
    assert values == [["value"]] * 3
    assert len({id(value) for value in values}) == 3


def test_methods_get_copies(driver):
    """Bound and unbound."""

    async def fetch(self, key="A"):
        return [key]

    made = driver.decorate(fetch, copy=True)

    class Owner:
        pass

    one = Owner()
    values = [driver.call(made.of(one)), driver.call(made.of(one)), driver.call(made, one)]
    assert values == [["A"]] * 3
    assert len({id(value) for value in values}) == 3


def test_functions_without_copy_have_the_same_compiled_call():
    """The option costs nothing where it is not used."""

    def plain(symbol):
        return symbol

    def code(**options):
        return type(single_flight_ttl(plain, ttl=60, **options)).__dict__["__call__"].__func__.__code__

    assert code().co_code == code(copy=None).co_code == code(copy=False).co_code
    assert "_sf_copy" not in code().co_names
    assert "_sf_copy" in code(copy=True).co_names


@pytest.mark.parametrize("wrong", [1, "deep", copy])
def test_wrong_values_are_refused(wrong):
    """At decoration, naming the option."""
    with pytest.raises(TypeError, match="copy: "):
        single_flight_ttl(ttl=60, copy=wrong)


def test_a_coroutine_function_cannot_copy():
    """As for the other callables."""

    async def later(value):
        return value

    with pytest.raises(TypeError, match="copy: expected a plain callable"):
        single_flight_ttl(ttl=60, copy=later)
