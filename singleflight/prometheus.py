"""Metrics for Prometheus: one collector over all decorated functions (extra `prometheus`).

>>> from prometheus_client import CollectorRegistry
>>> from singleflight import single_flight_ttl
>>> from singleflight.prometheus import register
>>> registry = CollectorRegistry()
>>> collector = register(registry)
>>> @single_flight_ttl(ttl=60, name="shown_prices")
... def price(symbol):
...     return 984.75
>>> price("ASML") == price("ASML")
True
>>> registry.get_sample_value("singleflight_gets_total", {"name": "shown_prices", "result": "hit"})
1.0
>>> collector.unregister()
"""

from __future__ import annotations

import os
import weakref
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from math import inf
from types import TracebackType
from typing import Any

from .common.messages import shown
from .locks.mutex import new_lock
from .process.registry import observe
from .process.totals import BUCKETS, COUNTERS, GAUGES, RESULTS, SHARED, begin, printable, read
from .telemetry.executions import Execution

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.metrics_core import Metric
except ImportError as _missing:
    raise ImportError(
        "singleflight.prometheus needs prometheus-client: install the extra `prometheus` of singleflight-kit"
    ) from _missing

__all__ = ["Collector", "register"]


def register(registry: CollectorRegistry | None = None, *, buckets: Sequence[float] = BUCKETS) -> Collector:
    """Have a registry of prometheus-client export the counts of all decorated functions, also future ones.

    Args:
        registry: where the collector is registered; None (default): `prometheus_client.REGISTRY`.
        buckets: upper bounds of the buckets of `singleflight_call_seconds`, in seconds, rising.

    Returns the collector, whose `unregister()` ends it. A registry has one: registering again returns it.

    Every metric has the label `name`. `singleflight_gets_total` counts the calls received by `result` ("hit",
    "stale_hit", "wait", "fetch", "error" or "timeout"). `singleflight_calls_total`, `_failures_total`,
    `_refreshes_total`, `_uncached_total`, `_evictions_total`, `_expirations_total`, `_entries`, `_in_flight`,
    `_locks` and `_idle_locks` are what `stats()` says, and with `store=` so are `_shared_hits_total`,
    `_shared_waits_total`, `_refused_total`, `_leases_lost_total`, `_degraded_total` and `_unreadable_total`.
    `singleflight_call_seconds` is a histogram of the executions from now on, by the function's own `timer`.

    All is read when scraped, so a hit costs what it did. A miss takes a few microseconds more, since its
    execution is timed. Functions of one name are one sum, twins are counted once. A counter never goes
    backwards: what a function has counted stays when it is gone, and when `cache_clear` zeroes its `stats()`.
    A forked child counts from zero.

    Raises `TypeError` for a registry that is none, and `ValueError` if it has other metrics of these names,
    for buckets that do not rise, and for other buckets than those that the registry has already.

    Safe to call from any thread. A scrape runs user code (a `timer`, destructors of expired values) under no
    lock, and a function whose `timer` raises is read without it.
    """
    if registry is None:
        registry = REGISTRY
    if not isinstance(registry, CollectorRegistry):
        raise TypeError(f"registry: expected a CollectorRegistry or None, got {shown(registry)}")
    bounds = _checked(buckets)
    with _registering:
        collector = _collectors.get(registry)
        if collector is None:
            collector = Collector(registry, bounds)
        elif collector.bounds != bounds:
            raise ValueError("buckets: this registry has singleflight's collector already, with other ones")
        collector._register()
        _collectors[registry] = collector
    return collector


def _checked(buckets: Iterable[float]) -> tuple[float, ...]:
    try:
        bounds = tuple(float(bound) for bound in buckets)
    except (TypeError, ValueError):
        raise TypeError(f"buckets: expected numbers, got {shown(buckets)}") from None
    if bounds and bounds[-1] == inf:
        bounds = bounds[:-1]
    rising = all(lower < upper for lower, upper in zip((0.0, *bounds), bounds, strict=False))
    if not bounds or not rising or bounds[-1] == inf:
        raise ValueError(f"buckets: expected upper bounds above 0 that rise, got {shown(buckets)}")
    return bounds


class Collector:
    """What a registry of prometheus-client asks when it is scraped. Made by `register`."""

    def __init__(self, registry: CollectorRegistry, bounds: tuple[float, ...]) -> None:
        self._registry = weakref.ref(registry)
        self.bounds: tuple[float, ...] = bounds
        """Upper bounds of the histogram's buckets, in seconds."""
        self._times = _Times(bounds)
        self._stop: Callable[[], None] | None = None

    def _register(self) -> None:
        registry = self._registry()
        assert registry is not None
        try:
            registry.register(self)
        except ValueError:  # there are metrics of these names: unless they are its own
            if self._stop is None:
                raise
        if self._stop is None:
            begin()
            self._stop = observe(self._times)
            weakref.finalize(registry, self._stop).atexit = False

    def unregister(self) -> None:
        """Take it out of its registry, and time no more executions. May be repeated, in any thread."""
        with _registering:
            stop, self._stop = self._stop, None
            registry = self._registry()
        if stop is not None:
            stop()
            if registry is not None:
                try:
                    registry.unregister(self)
                except KeyError:  # somebody has done that
                    return

    def describe(self) -> list[Metric]:
        """Return the metrics without samples: what prometheus-client looks at when it is registered."""
        return [*self._families().values()]

    def collect(self) -> list[Metric]:
        """Return all metrics, read at one moment; each function's numbers are consistent."""
        totals, times = read(), self._times.read()
        families = self._families()
        for name in sorted(totals):
            stats, is_shared = totals[name]
            for result, count in RESULTS.items():
                families["gets"].add_metric([name, result], float(getattr(stats, count)))
            for count in (*COUNTERS, *GAUGES, *(SHARED if is_shared else ())):
                families[count].add_metric([name], float(getattr(stats, count)))
            counts, seconds = times.get(name) or ([0] * (len(self.bounds) + 1), 0.0)
            cumulative, buckets = 0, []
            for bound, number in zip((*self.bounds, inf), counts, strict=True):
                cumulative += number
                buckets.append(("+Inf" if bound == inf else repr(bound), cumulative))
            families["call_seconds"].add_metric([name], buckets, seconds)
        return [family for family in families.values() if family.samples]

    @staticmethod
    def _families() -> dict[str, Any]:
        named = "singleflight_{}".format
        return {
            "gets": CounterMetricFamily(
                named("gets"), "Calls received, by how they were served.", labels=["name", "result"]
            ),
            **{
                count: CounterMetricFamily(named(count), text, labels=["name"])
                for count, text in (COUNTERS | SHARED).items()
            },
            "call_seconds": HistogramMetricFamily(
                named("call_seconds"), "How long executions of the function took.", labels=["name"]
            ),
            **{
                gauge: GaugeMetricFamily(named(gauge), text, labels=["name"])
                for gauge, text in GAUGES.items()
            },
        }


class _Times:
    """Observes all functions, and counts how long their executions take, by name."""

    wants: frozenset[str] = frozenset()  # no events

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._lock = new_lock()
        self._by_name: dict[str, list[Any]] = {}  # the buckets' counts, then the sum; guarded by it

    def __call__(self, event: Any, /) -> None:
        """It wants no event."""

    def executing(self, execution: Execution) -> _Timing:
        """Return what measures one execution."""
        return _Timing(self, execution)

    def note(self, name: str, seconds: float) -> None:
        """Count one execution."""
        if not 0.0 <= seconds < inf:  # the clock stepped back, or is none
            seconds = 0.0
        place = bisect_left(self._bounds, seconds)
        with self._lock:
            numbers = self._by_name.get(name)
            if numbers is None:
                numbers = self._by_name.setdefault(name, [*[0] * (len(self._bounds) + 1), 0.0])
            numbers[place] += 1  # no call: a handler that interrupts finds both counted, or none
            numbers[-1] += seconds

    def read(self) -> dict[str, tuple[list[int], float]]:
        """Return by printable name how many executions fell into each bucket, and their seconds together."""
        with self._lock:
            every = [(name, numbers.copy()) for name, numbers in self._by_name.items()]
        told: dict[str, tuple[list[int], float]] = {}
        for name, numbers in every:
            shows = printable(name)
            before, seconds = told.get(shows, ([0] * (len(numbers) - 1), 0.0))
            told[shows] = [a + b for a, b in zip(before, numbers, strict=False)], seconds + numbers[-1]
        return told

    def after_fork(self) -> None:
        """In a forked child: from zero, and no other thread can hold the lock."""
        self._lock = new_lock()
        self._by_name.clear()


class _Timing:
    """Measures one execution by the function's own clock."""

    __slots__ = ("_began", "_execution", "_times")

    def __init__(self, times: _Times, execution: Execution) -> None:
        self._times, self._execution = times, execution

    def __enter__(self) -> None:
        self._began = float(self._execution.timer())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        execution = self._execution
        self._times.note(execution.name, float(execution.timer()) - self._began)


_registering = new_lock()
_collectors: weakref.WeakKeyDictionary[CollectorRegistry, Collector] = weakref.WeakKeyDictionary()


def _after_fork() -> None:
    global _registering
    _registering = new_lock()
    for collector in list(_collectors.values()):
        collector._times.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
