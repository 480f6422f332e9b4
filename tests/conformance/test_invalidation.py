"""invalidation: what is dropped, replaced or cleared, and what that means for calls in progress."""

import pytest

from singleflight.testing import FakeClock

from ..drivers import Executions
from .conftest import outcomes


def test_forget_and_call_again(scene):
    """After `invalidate` in mid-flight a second run begins, and a third caller joins that one."""
    one = scene()
    gates = [one.hold(0), one.hold(1)]
    first = one.ask()
    one.fetch.invalidate()
    second = one.ask()
    third = one.join()
    gates[1].set()
    assert outcomes([second, *third]) == [1, 1]
    gates[0].set()
    assert first.outcome() == 0


def test_what_is_invalidated_in_mid_flight_is_not_stored(scene):
    """The result of a flight that was invalidated goes to its callers, and to none that come later.

    Elsewhere: several libraries store it when it arrives.
    """
    one = scene()
    gate = one.hold(0)
    callers = one.herd(4)
    assert one.fetch.invalidate() is True
    gate.set()
    assert outcomes(callers) == [0] * 4
    assert one.fetch.entry() is None
    assert one.call() == 1


def test_put_replaces_what_is_on_its_way(scene):
    """A value that is put is served from then on, whatever an earlier call in progress returns."""
    one = scene()
    gate = one.hold(0)
    callers = one.herd(3)
    one.fetch.put("put")
    assert one.call() == "put"
    gate.set()
    assert outcomes(callers) == [0] * 3
    assert one.call() == "put"


def test_put_lands_as_a_call_does(scene):
    """In `put` a callable `ttl` sees a landing without followers; with a ttl of 0 `put` only invalidates."""
    landings = []
    one = scene(ttl=lambda landing: (landings.append(landing), 60)[1])
    one.fetch.put("put")
    ((landing,),) = [landings]
    assert (landing.value, landing.duration, landing.followers) == ("put", 0.0, 0)
    nothing = scene(ttl=0)
    nothing.fetch.put("put")
    assert nothing.fetch.entry() is None


def test_what_ttl_raises_at_a_put_changes_nothing(scene):
    """An exception of a callable `ttl` is raised by `put`, and the stored value stays."""
    one = scene(ttl=lambda landing: 1 / landing.value)
    one.script[0] = [0.5]
    one.call()
    with pytest.raises(ZeroDivisionError):
        one.fetch.put(0)
    assert one.call() == 0.5


def test_invalidate_says_whether_there_was_anything(scene):
    """`invalidate` returns True for a value or a flight, and False for neither."""
    one = scene()
    assert one.fetch.invalidate() is False
    one.call()
    assert [one.fetch.invalidate(), one.fetch.invalidate()] == [True, False]


def test_invalidate_where_sees_values_and_flights(scene):
    """`invalidate_where` drops each key that the predicate accepts, stored or in flight, and counts them."""
    one = scene(key=lambda key: key)
    one.call("stored")
    gate = one.hold(1)
    caller = one.ask("in flight")
    one.call("other")
    assert one.fetch.invalidate_where(lambda key: key != "other") == 2
    gate.set()
    assert caller.outcome() == 1
    assert [one.fetch.entry(key) is None for key in ("stored", "in flight", "other")] == [True, True, False]


def test_cache_clear_forgets_everything(scene):
    """`cache_clear` drops all values, detaches all flights, and zeroes the counts."""
    one = scene()
    one.call("stored")
    gate = one.hold(1)
    caller = one.ask()
    one.fetch.cache_clear()
    assert one.fetch.cache_info()[:2] == (0, 0)
    assert one.fetch.stats().calls == 0
    gate.set()
    assert caller.outcome() == 1
    assert one.fetch.entry() is None
    assert one.fetch.entry("stored") is None


def test_clear_keeps_the_counts(scene):
    """`clear` drops all values, detaches all flights and leaves the counts; it tells how many values went."""
    one = scene()
    one.call("stored")
    gate = one.hold(1)
    caller = one.ask()
    assert one.fetch.clear() == 1
    gate.set()
    assert caller.outcome() == 1
    assert one.fetch.stats().calls == 2
    assert one.fetch.entry() is one.fetch.entry("stored") is None


def test_clear_on_a_bound_method_is_its_instances(driver):
    """`account.price.clear()` drops the values and detaches the flights of that account alone."""
    gate, runs = driver.gate(), Executions()

    class Account:
        pass

    async def price(self, symbol):
        runs.begin()
        if symbol == "slow":
            await gate
        return symbol

    price, one, other = driver.decorate(price), Account(), Account()
    for account in (one, other):
        driver.call(price.of(account), "A")
    caller = driver.start(price.of(one), "slow")
    runs.wait_for(3)
    assert price.of(one).clear() == 1
    gate.set()
    assert caller.outcome() == "slow"
    assert [price.of(one).entry(symbol) for symbol in ("A", "slow")] == [None, None]
    assert price.of(other).entry("A").value == "A"


def test_controls_of_a_bound_method_are_its_instances(driver):
    """`account.price.invalidate("A")` drops the value of that account alone."""

    class Account:
        pass

    async def price(self, symbol):
        return symbol

    price, mine, yours = driver.decorate(price), Account(), Account()
    for account in (mine, yours):
        driver.call(price.of(account), "A")
    assert price.of(mine).invalidate("A") is True
    assert price.of(mine).entry("A") is None
    assert price.of(yours).entry("A").value == "A"


def test_a_detached_flight_may_ask_again(driver):
    """A function that invalidates its own call may call itself: that is a new flight, not re-entry."""
    clock = FakeClock()

    async def fetch():
        if clock():
            return "new"
        clock.advance(1)
        fetch.invalidate()
        return "old, then " + await fetch()

    fetch = driver.decorate(fetch)
    assert driver.call(fetch) == "old, then new"
    assert driver.call(fetch) == "new"


def test_the_failure_of_a_detached_flight_is_its_callers_alone(scene):
    """The failure of a detached flight is shared by its followers, and is not tried again."""
    one = scene(failure_ttl=60)
    gate = one.hold(0, ValueError("old"))
    callers = one.herd(3)
    one.fetch.invalidate()
    assert one.call() == 1
    gate.set()
    assert [error.args for error in outcomes(callers)] == [("old",)] * 3
    assert (one.call(), one.runs) == (1, 2)


def test_a_tag_drops_what_has_it_and_refuses_what_is_on_its_way(driver):
    """`invalidate_tag` drops what has the tag; a run from before that lands with it is not stored."""
    gates = {"held": driver.gate()}
    begun = Executions()

    async def fetch(key):
        begun.begin()
        if key in gates:
            await gates[key]
        return key

    fetch = driver.decorate(fetch, key=lambda key: key, tags=lambda landing: [landing.key, "any"])
    driver.call(fetch, "stays")
    driver.call(fetch, "goes")
    caller = driver.start(fetch, "held")
    begun.wait_for(3)
    assert fetch.invalidate_tag("goes", "held") == 1
    gates["held"].set()
    assert caller.outcome() == "held"
    assert [fetch.entry(key) is not None for key in ("stays", "goes", "held")] == [True, False, False]
