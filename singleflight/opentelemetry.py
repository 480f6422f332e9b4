"""Metrics and traces for OpenTelemetry: counts of all decorated functions, and a span for each execution.

It needs the extra `opentelemetry`, which has the API alone. Your program configures the SDK and exporters.

>>> from singleflight import single_flight_ttl
>>> from singleflight.opentelemetry import instrument
>>> undo = instrument()
>>> @single_flight_ttl(ttl=60)
... def price(symbol):
...     return 984.75
>>> price("ASML")
984.75
>>> undo()
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from .common.messages import shown
from .locks.mutex import new_lock
from .process.registry import observe
from .process.totals import BUCKETS, COUNTERS, GAUGES, RESULTS, SHARED, Total, begin, printable, read
from .telemetry.executions import Execution

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.trace import Status, StatusCode
except ImportError as _missing:
    raise ImportError(
        "singleflight.opentelemetry needs opentelemetry-api: "
        "install the extra `opentelemetry` of singleflight-kit"
    ) from _missing

__all__ = ["instrument"]

_NAME, _RESULT = "singleflight.name", "singleflight.result"
_UNITS = {"evictions": "{entry}", "expirations": "{entry}", "uncached": "{value}", "refused": "{value}"}
_UNITS |= {"entries": "{entry}", "in_flight": "{flight}", "locks": "{lock}", "idle_locks": "{lock}"}


def instrument(
    meter_provider: metrics.MeterProvider | None = None,
    tracer_provider: trace.TracerProvider | None = None,
    *,
    keys: bool = False,
) -> Callable[[], None]:
    """Export counts and executions of all decorated functions, also future ones. Return what undoes it.

    Args:
        meter_provider: makes the instruments; None (default): the global one.
        tracer_provider: makes the tracer; None (default): the global one.
        keys: whether spans have their keys as the attribute `singleflight.keys` (default False: keys may tell
            who your users are). Each is cut to 200 characters.

    Returns a callable that ends it; it may be called more than once. While the same two providers are in use
    already, with the same `keys`, this changes nothing and returns the same callable.

    *Metrics*: `singleflight.gets` counts the calls received, by the attributes `singleflight.name` and
    `singleflight.result` ("hit", "stale_hit", "wait", "fetch", "error" or "timeout"). `singleflight.calls`,
    `.failures`, `.refreshes`, `.uncached`, `.evictions` and `.expirations` count, `.entries`, `.in_flight`,
    `.locks` and `.idle_locks` are current numbers, and functions with `store=` have their counts in addition:
    all as `stats()` has them, by name, and read when the SDK collects. A count never goes backwards: what a
    function has counted stays when it is gone, and when `cache_clear` zeroes its `stats()`. The histogram
    `singleflight.call.duration` has the seconds of each execution by the function's own `timer`, recorded
    within its span, so that the SDK can attach exemplars.

    *Traces*: each execution, also in the background, is a span named after the function, a child of the span
    that was current where its leader called. It is current while the function runs, so that the spans of an
    HTTP client within become its children. An exception is recorded on it and sets its status. A loader's
    call is one span. The current span of each caller that waits gets a link to the span that it waits for,
    also where its call is gathered with those of others. Hits have no spans, and cost what they did.

    Raises `TypeError` for a provider that is none, and `ValueError` while the same two are in use with other
    `keys`. Safe to call from any thread.
    """
    for name, provider, method in (
        ("meter_provider", meter_provider, "get_meter"),
        ("tracer_provider", tracer_provider, "get_tracer"),
    ):
        if provider is not None and not callable(getattr(provider, method, None)):
            raise TypeError(f"{name}: expected a provider or None, got {shown(provider)}")
    if not isinstance(keys, bool):
        raise TypeError(f"keys: expected True or False, got {shown(keys)}")
    meters = metrics.get_meter_provider() if meter_provider is None else meter_provider
    tracers = trace.get_tracer_provider() if tracer_provider is None else tracer_provider
    with _instrumenting:
        for instrumentation in _active:
            if instrumentation.meters is meters and instrumentation.tracers is tracers:
                if instrumentation.keys is not keys:
                    raise ValueError(
                        f"keys: these providers are in use already with keys={not keys}: undo that first"
                    )
                return instrumentation.undo
        instrumentation = _Instrumentation(meters, tracers, keys)
        _active.append(instrumentation)
    return instrumentation.undo


class _Instrumentation:
    """One pair of providers, and what is exported to them."""

    def __init__(self, meters: metrics.MeterProvider, tracers: trace.TracerProvider, keys: bool) -> None:
        self.meters: metrics.MeterProvider = meters
        self.tracers: trace.TracerProvider = tracers
        self.keys: bool = keys
        self.undo: Callable[[], None] = self._undo  # one object, however often it is asked for
        instruments = _instruments.get(meters)
        if instruments is None:
            instruments = _instruments.setdefault(meters, _Instruments(meters.get_meter("singleflight")))
        self._instruments = instruments
        begin()
        self._stop = observe(_Tracing(tracers.get_tracer("singleflight"), instruments.seconds, keys))
        instruments.users.append(self)

    def _undo(self) -> None:
        """End it: nothing is exported any more. May be repeated."""
        self._stop()
        with _instrumenting:
            if self in _active:
                _active.remove(self)
                self._instruments.users.remove(self)


class _Instruments:
    """Those of one meter provider, made once: the SDK ignores the callbacks of a second one of a name."""

    def __init__(self, meter: metrics.Meter) -> None:
        self.users: list[_Instrumentation] = []  # without any, nothing is observed
        self._local = threading.local()
        text = "Calls received, by how they were served."
        meter.create_observable_counter("singleflight.gets", [self._gets], "{call}", text)
        for count, text in (COUNTERS | SHARED).items():
            unit = _UNITS.get(count, "{call}")
            reading = self._reading(count, count in SHARED)
            meter.create_observable_counter(f"singleflight.{count}", [reading], unit, text)
        for gauge, text in GAUGES.items():
            reading = self._reading(gauge)
            meter.create_observable_up_down_counter(f"singleflight.{gauge}", [reading], _UNITS[gauge], text)
        self.seconds: metrics.Histogram = meter.create_histogram(
            "singleflight.call.duration",
            "s",
            "How long executions of the function took.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )

    def _read(self, instrument: str) -> dict[str, Total]:
        """Return the totals, the same ones for all instruments of one collection.

        A collection asks for each instrument once, in one thread. So the first one that asks again begins a
        new collection.
        """
        if not self.users:
            return {}
        asked: set[str] = getattr(self._local, "asked", set())
        if not asked or instrument in asked:
            self._local.asked = asked = set()
            self._local.totals = read()
        asked.add(instrument)
        totals: dict[str, Total] = self._local.totals
        return totals

    def _gets(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(getattr(total.stats, count), {_NAME: name, _RESULT: result})
            for name, total in self._read("gets").items()
            for result, count in RESULTS.items()
        ]

    def _reading(
        self, count: str, of_shared: bool = False
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def reading(_options: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(getattr(total.stats, count), {_NAME: name})
                for name, total in self._read(count).items()
                if total.is_shared or not of_shared
            ]

        return reading


class _Tracing:
    """Observes all functions: spans around executions, and links from those who wait."""

    wants: frozenset[str] = frozenset({"wait", "share"})

    def __init__(self, tracer: trace.Tracer, seconds: metrics.Histogram, keys: bool) -> None:
        self.tracer, self.seconds, self.keys = tracer, seconds, keys

    def __call__(self, event: Any, /) -> None:
        """Link the current span of a follower to that of the execution that it waits for, once."""
        if event.execution is not None:
            self.gathered(event.execution)

    def gathered(self, execution: Execution) -> None:
        """Do the same for one whose call was gathered with others."""
        noted = execution.notes.get(self)
        if noted is None:  # it is not entered yet: `share` comes later
            return
        followed, linked = noted
        span = trace.get_current_span()
        mine = span.get_span_context().span_id
        if span.is_recording() and mine not in linked:
            linked.add(mine)
            span.add_link(followed, {_NAME: printable(execution.name)})

    def executing(self, execution: Execution) -> _Span:
        """Return what has a span around one execution."""
        return _Span(self, execution)


class _Span:
    """The span of one execution, current while the function runs."""

    __slots__ = ("_began", "_context", "_execution", "_name", "_span", "_token", "_tracing")

    def __init__(self, tracing: _Tracing, execution: Execution) -> None:
        self._tracing, self._execution = tracing, execution
        self._name = printable(execution.name)
        self._token: Any = None

    def __enter__(self) -> None:
        execution, tracing = self._execution, self._tracing
        attributes: dict[str, Any] = {
            _NAME: self._name,
            "singleflight.kind": execution.kind,
            "singleflight.background": execution.background,
        }
        if execution.kind == "bulk":
            attributes["singleflight.batch_size"] = len(execution.keys)
        if tracing.keys:
            attributes["singleflight.keys"] = [printable(shown(key)) for key in execution.keys]
        self._began = float(execution.timer())
        self._span = tracing.tracer.start_span(self._name, attributes=attributes)
        try:
            execution.notes[tracing] = self._span.get_span_context(), set()
            self._context = trace.set_span_in_context(self._span)
            self._token = context.attach(self._context)
        except BaseException:  # an interrupt
            self._leave(None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            attributes = {_NAME: self._name}
            if kind is not None:
                attributes["error.type"] = kind.__qualname__
            # In the span's context: the SDK takes it for an exemplar.
            seconds = float(self._execution.timer()) - self._began
            self._tracing.seconds.record(max(0.0, seconds), attributes)
        finally:
            self._leave(error)
            del error, traceback

    def _leave(self, error: BaseException | None) -> None:
        span, token = self._span, self._token
        try:
            # A coroutine that the collector closes may be in a context of somebody else, and not in its own.
            if token is not None and not (
                isinstance(error, GeneratorExit) and context.get_current() is not self._context
            ):
                self._token = None
                context.detach(token)
            if error is not None:
                span.set_attribute("error.type", type(error).__qualname__)
            if isinstance(error, Exception):
                span.set_status(Status(StatusCode.ERROR, shown(error)))
                span.record_exception(error)
        finally:
            span.end()
            del error


_instrumenting = new_lock()
_active: list[_Instrumentation] = []
_instruments: weakref.WeakKeyDictionary[metrics.MeterProvider, _Instruments] = weakref.WeakKeyDictionary()
