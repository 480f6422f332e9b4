"""What a loader brings and one use spends."""

import asyncio
import gc
import warnings

import pytest

from ..contract.test_used_up import ONCE_ONLY, Client, inner, leave_no_coroutines

__all__ = ["leave_no_coroutines"]


async def none(item):
    raise AssertionError("not to be called")


@pytest.fixture(autouse=True)
def never_awaited():
    """What Python says of coroutines that nobody awaits."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
        gc.collect()


@pytest.mark.parametrize("kind", ONCE_ONLY)
def test_one_such_value_fails_the_call_and_is_not_stored(driver, kind):
    """The others are, whether they were asked for or not; and one that nobody asked for is left out."""
    make, way = ONCE_ONLY[kind]

    async def load(items):
        return {"A": make(), "B": 2, "C": 3, "D": make()}

    fetch = driver.decorate(none)
    loader = driver.loader(fetch, load)
    with pytest.raises(TypeError, match=f"loader's value for .*'A'.* is an? .*; .*({way})"):
        driver.call(loader, ["A", "B"])
    assert [fetch.entry(key) and fetch.entry(key).value for key in "ABCD"] == [None, 2, 3, None]
    assert (fetch.flights(), fetch.stats().errors) == ((), 1)


def test_no_key_is_shown_for_a_value_that_can_be_shared(driver):
    """Its `__repr__` may do anything, and the flights have not ended."""
    shown = []

    class Symbol:
        def __repr__(self):
            shown.append(self)
            return "<symbol>"

    class Value:
        """Of a type that was not seen before."""

    async def load(items):
        return {item: Value() for item in items}

    answer = driver.call(driver.loader(driver.decorate(none), load), [Symbol(), Symbol()])
    assert [type(value) for value in answer.values()] == [Value, Value]
    assert shown == []


def test_a_coroutine_among_its_values_is_left_alone(driver):
    """The loader may have it elsewhere."""
    kept = {"A": inner()}

    async def load(items):
        return kept

    with pytest.raises(TypeError, match="coroutine"):
        driver.call(driver.loader(driver.decorate(none), load), ["A"])
    assert asyncio.run(kept["A"]) == 42


def test_a_loader_that_forgets_to_await(driver, never_awaited):
    """Its answer is a coroutine: the error says what to do, and nothing else complains."""

    async def load(items):
        return inner()

    with pytest.raises(TypeError, match=r"its loader returned a coroutine.* await"):
        driver.call(driver.loader(driver.decorate(none), load), ["A"])
    driver.callers.clear()
    gc.collect()
    assert [str(each.message) for each in never_awaited] == []


def test_clients_that_may_be_awaited_are_values(driver):
    """As in a single call."""

    async def load(items):
        return {item: Client() for item in items}

    fetch = driver.decorate(none)
    loader = driver.loader(fetch, load)
    answer = driver.call(loader, ["A", "B"])
    assert driver.call(fetch, "A") is answer["A"]
    assert not answer["A"].closed
