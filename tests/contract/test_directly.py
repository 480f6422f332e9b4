"""Where the library stays out of the way a call is its function's own: nothing is waited for, nor kept."""

import asyncio

import pytest

from singleflight import single_flight_ttl
from singleflight.locks.mutex import mutex

from ..amid import amid

WHY = ["bypass", "switched off", "amid the mutex", "amid its own store"]


@pytest.mark.parametrize("coroutine", [False, True], ids=["plain", "coroutine"])
@pytest.mark.parametrize("why", WHY)
def test_a_call_is_made_directly(monkeypatch, why, coroutine):
    """With its very arguments; nothing is counted and no flight is seen."""
    given, flights = [], []

    def note(*args, **kwargs):
        given.append((args, kwargs))
        flights.append(fetch.flights())
        return "own"

    @single_flight_ttl(ttl=60)
    def plain(symbol, /, *more, side, **others):
        return note(symbol, *more, side=side, **others)

    @single_flight_ttl(ttl=60)
    async def awaited(symbol, /, *more, side, **others):
        return note(symbol, *more, side=side, **others)

    fetch = awaited if coroutine else plain

    def call():
        if not coroutine:
            return plain("A", 1, side="ask", venue="X")
        try:  # it never suspends
            awaited("A", 1, side="ask", venue="X").send(None)
        except StopIteration as ended:
            return ended.value
        raise AssertionError

    async def on_a_loop():
        if why == "bypass":
            with fetch.bypass():
                return call()
        if why == "switched off":
            monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")
            return call()
        return amid(mutex if why == "amid the mutex" else fetch._self_cache.store._lock, call)

    assert asyncio.run(on_a_loop()) == "own"
    monkeypatch.undo()
    assert given == [(("A", 1), {"side": "ask", "venue": "X"})]
    assert flights == [()]
    stats = fetch.stats()
    assert (stats.calls, stats.fetches, stats.entries, stats.locks) == (0, 0, 0, 0)


def test_a_plain_flight_is_led_by_the_task_that_calls_or_else_by_the_thread():
    """So `flights()` and the cycles that are looked for name the one that can be waited for."""
    led = []

    @single_flight_ttl(ttl=60)
    def fetch(key):
        (flight,) = fetch.flights()
        led.append(flight.leader)

    async def main():
        asyncio.current_task().set_name("the caller")
        fetch("in a task")

    fetch("in a thread")
    asyncio.run(main())
    assert ["the caller" in leader for leader in led] == [False, True]
