"""The runs that the pictures show: real ones, of the library as it is, written down as numbers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from singleflight import drain_sync, single_flight_ttl, timeline
from singleflight.testing import FakeClock

CALLERS = 8
SPREAD = 0.02  # seconds from one caller to the next
TAKES = 0.2  # seconds for each answer of the broker
AT_ONCE = 3  # how many the broker answers at a time
AGAIN = 0.7  # seconds until all ask once more

WIDGETS, SYMBOLS = 6, ["ASML", "AAPL", "MSFT"]

TTL, GRACE, AHEAD = 60, 120, 0.8

OUTAGE_TTL, OUTAGE_GRACE = 60, 600
DOWN, UP, END = 150, 390, 540  # seconds


# -- callers over time ----------------------------------------------------------------------------------


def burst() -> dict[str, Any]:
    """Threads ask for one price within a moment, and again a little later, without and with the decorator."""
    return {
        "takes": TAKES,
        "at_once": AT_ONCE,
        "without": _burst(lambda function: function),
        "with": _burst(single_flight_ttl(key="symbol", ttl=60)),
    }


def _burst(decorate: Callable[[Any], Any]) -> dict[str, Any]:
    began = time.perf_counter()
    broker = threading.Semaphore(AT_ONCE)
    local = threading.local()

    def now() -> float:
        return round((time.perf_counter() - began) * 1000, 1)

    @decorate
    def price(symbol: str) -> float:
        local.called = [now()]
        with broker:
            time.sleep(TAKES)
        local.called.append(now())
        return 984.75

    lanes: list[list[dict[str, Any]]] = [[] for _ in range(CALLERS)]

    def ask(number: int) -> None:
        for moment in (0.05, AGAIN):
            time.sleep(max(0.0, moment + number * SPREAD - (time.perf_counter() - began)))
            local.called = None
            asked = now()
            price("ASML")
            lanes[number].append({"asked": asked, "called": local.called, "served": now()})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return {"callers": lanes, "calls": sum(ask["called"] is not None for lane in lanes for ask in lane)}


# -- the ages of an entry -------------------------------------------------------------------------------


def ages() -> dict[str, Any]:
    """What a reader gets at each age of an entry, and if that starts a call; on a clock that is set."""
    return {"ttl": TTL, "grace": GRACE, "ahead": AHEAD, "reads": [_read_at(age) for age in range(0, 241, 2)]}


def _read_at(age: int) -> dict[str, Any]:
    clock, calls = FakeClock(), []

    @single_flight_ttl(ttl=TTL, grace=GRACE, refresh_ahead=AHEAD, timer=clock)
    def price(symbol: str) -> float:
        calls.append(symbol)
        return 984.75

    price.put(984.75, "ASML")
    clock.advance(age)
    entry = price.entry("ASML")
    served = price.answer("ASML").served
    drain_sync(timeout=10)
    return {
        "age": age,
        "state": "expired" if entry is None else entry.state,
        "served": served,
        "calls": len(calls),
    }


# -- an outage ------------------------------------------------------------------------------------------


def outage() -> dict[str, Any]:
    """A caller every second, while the broker fails for some minutes; on a clock that is set."""
    return {
        "ttl": OUTAGE_TTL,
        "grace": OUTAGE_GRACE,
        "down": DOWN,
        "up": UP,
        "end": END,
        "without": _outage(),
        "with": _outage(grace=OUTAGE_GRACE),
    }


def _outage(**options: Any) -> dict[str, Any]:
    clock, calls = FakeClock(), [0]
    began = clock()

    @single_flight_ttl(ttl=OUTAGE_TTL, timer=clock, **options)
    def price(symbol: str) -> float:
        calls[0] += 1
        if DOWN <= clock() - began < UP:
            raise ConnectionError("the broker does not answer")
        return 984.75

    served = []
    for _ in range(END):
        try:
            answer = price.answer("ASML")
            served.append("stale" if answer.served == "stale_hit" else "fresh")
        except ConnectionError:
            served.append("failed")
        drain_sync(timeout=10)  # what that has started in the background
        clock.advance(1)
    return {"seconds": _runs(served), "calls": calls[0]}


def _runs(states: list[str]) -> list[list[Any]]:
    """Each state with how many seconds it lasted, in order."""
    runs: list[list[Any]] = []
    for state in states:
        if runs and runs[-1][0] == state:
            runs[-1][1] += 1
        else:
            runs.append([state, 1])
    return runs


# -- the drawing of `singleflight.timeline` -----------------------------------------------------------------


def widgets() -> dict[str, Any]:
    """Six widgets ask for three prices each, at the same moment, without and with the decorator."""
    sources = {}
    for side in ("without", "with"):
        price = single_flight_ttl(ttl=60, name="price")(_ask)
        seen = timeline.record(price)
        ask = seen.track(_ask, name="price") if side == "without" else price
        with seen:
            _at_once(ask)
        sources[side] = asdict(seen.source())
        # A note a line: these are many.
        sources[side]["notes"] = [json.dumps(note) for note in sources[side]["notes"]]
        sources[side]["uncounted"] = {}
    return sources


def _ask(symbol: str) -> float:
    time.sleep(TAKES * (1 + SYMBOLS.index(symbol) / 4))
    return 984.75


def _at_once(ask: Callable[[str], float]) -> None:
    start = threading.Barrier(WIDGETS)

    def widget(number: int) -> None:
        start.wait(30)
        first = number % len(SYMBOLS)  # each has an order of its own
        for symbol in SYMBOLS[first:] + SYMBOLS[:first]:
            ask(symbol)

    names = (f"widget-{number}" for number in range(WIDGETS))
    threads = [threading.Thread(target=widget, args=(n,), name=name) for n, name in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


RECORDINGS: dict[str, Callable[[], dict[str, Any]]] = {
    "burst": burst,
    "ages": ages,
    "outage": outage,
    "timeline": widgets,
}
