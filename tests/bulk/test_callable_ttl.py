"""What a callable ttl answers about each value that a loader brought."""

from decimal import Decimal

import pytest


async def none(item):
    raise AssertionError("not to be called")


def test_values_that_are_over_already_are_answered_and_not_stored(driver):
    """One by one, also those that nobody asked for; a number of any type is taken for seconds."""
    ttls = {"A": -5, "B": Decimal(20), "C": 0, "D": -1, "E": Decimal(7)}

    async def load(items):
        return dict.fromkeys([*items, "D", "E"], 1)

    fetch = driver.decorate(none, ttl=lambda landing: ttls[landing.key[0]])
    loader = driver.loader(fetch, load)
    assert driver.call(loader, ["A", "B", "C"]) == {"A": 1, "B": 1, "C": 1}
    assert {key: entry and entry.ttl for key in ttls for entry in [fetch.entry(key)]} == {
        "A": None,
        "B": 20.0,
        "C": None,
        "D": None,
        "E": 7.0,
    }
    stats = fetch.stats()
    assert (stats.errors, stats.failures, stats.fetches) == (0, 0, 3)


def test_an_answer_that_says_nothing_fails_its_own_key(driver):
    """The call raises, and the other values are stored."""
    ttls = {"A": "soon", "B": 20}

    async def load(items):
        return dict.fromkeys(items, 1)

    fetch = driver.decorate(none, ttl=lambda landing: ttls[landing.key[0]])
    loader = driver.loader(fetch, load)
    with pytest.raises(TypeError, match=r"^ttl: "):
        driver.call(loader, ["A", "B"])
    assert (fetch.entry("A"), fetch.entry("B").value) == (None, 1)
