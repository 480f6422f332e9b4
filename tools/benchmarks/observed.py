"""What it costs to be observed: one function, with nothing, with Prometheus and with tracing, in turn.

All three are the same decorated function, in interleaved rounds; the best round of each counts.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count

from singleflight import single_flight_ttl

MODES = ("unobserved", "Prometheus registered", "tracing")
TARGETS = {"a hit": {"Prometheus registered": 1.02, "tracing": 1.5}}


@contextmanager
def registered() -> Iterator[None]:
    from prometheus_client import CollectorRegistry

    from singleflight.prometheus import register

    collector = register(CollectorRegistry())
    try:
        yield
    finally:
        collector.unregister()


def tracing() -> Callable[[], AbstractContextManager[None]]:
    """The SDK, whose spans go nowhere."""
    from opentelemetry.metrics import NoOpMeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    from singleflight.opentelemetry import instrument

    meters, tracers = NoOpMeterProvider(), TracerProvider()

    @contextmanager
    def instrumented() -> Iterator[None]:
        undo = instrument(meters, tracers)
        try:
            yield
        finally:
            undo()

    return instrumented


def best_of(run: Callable[[int], object], rounds: int, size: int) -> dict[str, float]:
    """Nanoseconds per call in each mode."""
    modes = dict(zip(MODES, (nullcontext, registered, tracing()), strict=True))
    best = dict.fromkeys(modes, float("inf"))
    gc.disable()
    try:
        for _ in range(rounds):
            for name, mode in modes.items():
                with mode():
                    run(10)
                    began = time.perf_counter_ns()
                    run(size)
                    best[name] = min(best[name], (time.perf_counter_ns() - began) / size)
            gc.collect(0)
    finally:
        gc.enable()
    return best


def table(title: str, best: dict[str, float]) -> None:
    print(f"\n{title}, observed")
    for name, nanoseconds in best.items():
        ratio = nanoseconds / best[MODES[0]]
        target = TARGETS.get(title, {}).get(name)
        verdict = "" if target is None else f"  target {target:g}: {'met' if ratio <= target else 'missed'}"
        print(f"  {name:34} {nanoseconds:9.0f} ns   to unobserved {ratio:5.2f}{verdict}")


def show(rounds: int) -> None:
    """Print what a hit, a miss, and a coroutine function's miss cost."""
    fetch = single_flight_ttl(ttl=60, key=lambda symbol: symbol)(lambda symbol: 984.75)
    numbers, loop = count(), asyncio.new_event_loop()

    def hit(size: int) -> None:
        for _ in range(size):
            fetch("ASML")

    def miss(size: int) -> None:
        for _ in range(size):
            fetch(next(numbers))

    @single_flight_ttl(ttl=60, key=lambda symbol: symbol)
    async def afetch(symbol):
        return 984.75

    async def misses(size: int) -> None:
        for _ in range(size):
            await afetch(next(numbers))

    table("a hit", best_of(hit, rounds, 5000))
    table("a miss", best_of(miss, rounds, 50))
    table(
        "a miss of a coroutine function",
        best_of(lambda size: loop.run_until_complete(misses(size)), rounds, 50),
    )
    loop.close()
