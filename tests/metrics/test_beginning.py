"""When counts begin to be kept."""

import pytest

from singleflight import single_flight_ttl
from singleflight.process import registry, totals


def test_an_interrupted_beginning_is_made_good(monkeypatch, name):
    """The next reader begins, and misses no function that was made meanwhile."""
    monkeypatch.setattr(registry, "_visits", ())
    monkeypatch.setattr(totals, "_began", False)
    visit, interrupts = totals._have_kept, [KeyboardInterrupt()]

    def struck(cache):
        if interrupts:
            raise interrupts.pop()
        visit(cache)

    monkeypatch.setattr(totals, "_have_kept", struck)
    fetch = single_flight_ttl(ttl=60, name=name)(lambda key: key)
    with pytest.raises(KeyboardInterrupt):
        totals.begin()
    fetch(1)
    assert totals.read()[name].stats.calls == 1
    assert registry._visits == (struck,)


def test_beginning_twice_visits_once(name):
    """Nothing is added to what is done for each function."""
    totals.begin()
    visits = registry._visits
    registry.attend(visits[0])
    assert registry._visits == visits


def test_a_call_while_counts_are_zeroed_is_kept(monkeypatch, name):
    """One that is served between the reading of the counts and their zeroing."""
    fetch = single_flight_ttl(ttl=60, name=name)(lambda key: key)
    totals.begin()
    fetch("before")
    store = fetch._self_cache.store
    clear = store.clear

    def call_and_clear():
        fetch("meanwhile")
        return clear()

    monkeypatch.setattr(store, "clear", call_and_clear)
    fetch.cache_clear()
    fetch("after")
    total = totals.read()[name].stats
    assert (total.calls, total.fetches) == (3, 3)
    assert fetch.stats().calls == 1
