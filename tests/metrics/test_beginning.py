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
