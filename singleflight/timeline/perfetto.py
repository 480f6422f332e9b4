"""The same as a trace that ui.perfetto.dev and chrome://tracing open: JSON in the trace event format.

A function is a process there, and each row of bars of a key is a thread of it, so that slices of one thread
never overlap. Flows lead from a flight to the waits of its followers. Times are in microseconds since the
recording began.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU

Perfetto's reader is stricter than JSON is: it refuses a file in which a character is written as two escapes
(v52 to v58 at least, `src/trace_processor/util/json_parser.h`), and v52 shows most other escapes as they are
written. So the text is UTF-8 as far as JSON allows, and what cannot be printed is spelt out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..common.messages import visible
from .lanes import Bar, Chart, Function, Mark

__all__ = ["events_of", "trace_of", "written"]


def written(chart: Chart) -> bytes:
    """Return the whole trace as a file holds it."""
    return json.dumps(trace_of(chart), ensure_ascii=False, separators=(",", ":")).encode()


def trace_of(chart: Chart) -> dict[str, Any]:
    """Return the whole trace, to be written as JSON."""
    totals = chart.totals
    return {
        "traceEvents": list(events_of(chart)),
        "displayTimeUnit": "ms",
        "otherData": {
            "producer": "singleflight.timeline",
            "calls_received": totals.callers,
            "calls_made": totals.calls,
            "calls_saved": totals.saved,
            "events_not_kept": sum(chart.dropped.values()),
        },
    }


def events_of(chart: Chart) -> Iterator[dict[str, Any]]:
    """Yield the trace events, one function after another."""
    flows = iter(range(1, 1 << 62))
    for number, function in enumerate(chart.functions, 1):
        yield from _Process(number, function).events(flows)


class _Process:
    """One function as a process."""

    def __init__(self, pid: int, function: Function) -> None:
        self._pid, self._function = pid, function
        self._threads = 0

    def events(self, flows: Iterator[int]) -> Iterator[dict[str, Any]]:
        """Yield its events."""
        function = self._function
        yield self._meta("process_name", 0, function.name)
        if function.phases or function.marks:
            yield from self._rows("store", function.phases, {})
            yield from (self._instant(mark, self._threads) for mark in function.marks)
        for lane in function.lanes:
            places: dict[int, int] = {}  # the thread of each flight
            yield from self._rows(lane.key, lane.flights, places)
            if lane.marks:
                yield self._thread(f"{lane.key} · marks")
                yield from (self._instant(mark, self._threads) for mark in lane.marks)
            waits: dict[int, int] = {}
            yield from self._rows(f"{lane.key} · waits", lane.waits, waits)
            yield from self._flows_to_waits(lane.flights, lane.waits, places, waits, flows)

    def _rows(self, name: str, bars: list[Bar], places: dict[int, int]) -> Iterator[dict[str, Any]]:
        ends: list[tuple[float, int]] = []  # of each row, with its thread
        for bar in bars:
            for row, (end, thread) in enumerate(ends):
                if end <= bar.start:
                    ends[row] = bar.end, thread
                    break
            else:
                yield self._thread(name if not ends else f"{name} ({len(ends) + 1})")
                thread = self._threads
                ends.append((bar.end, thread))
            places[id(bar)] = thread
            yield self._slice(bar, thread)

    def _flows_to_waits(
        self,
        flights: list[Bar],
        waits: list[Bar],
        places: dict[int, int],
        of_waits: dict[int, int],
        flows: Iterator[int],
    ) -> Iterator[dict[str, Any]]:
        by_ident = {bar.flight_id: bar for bar in flights if bar.flight_id and bar.what != "shared"}
        for wait in waits:
            flight = by_ident.get(wait.flight_id)
            if flight is None or flight.start > wait.end:
                continue
            common = {"name": "is waited for", "cat": "wait", "id": next(flows), "pid": self._pid}
            # Each end of a flow lies within its slice, to which the moment when it is over no longer belongs.
            # A thread that was held up tells of its wait when the flight is over.
            began = max(_us(flight.start), min(_us(wait.start), _us(flight.end) - 1))
            arrived = max(_us(wait.start), began)
            yield {**common, "ph": "s", "ts": began, "tid": places[id(flight)]}
            yield {**common, "ph": "f", "bp": "e", "ts": arrived, "tid": of_waits[id(wait)]}

    def _slice(self, bar: Bar, thread: int) -> dict[str, Any]:
        args: dict[str, Any] = {"how": bar.how or "not over"}
        texts = {"by": bar.actor, "told": bar.told}
        numbers = {"followers": bar.waiters, "flight": bar.flight_id}
        args.update({name: visible(text) for name, text in texts.items() if text})
        args.update({name: number for name, number in numbers.items() if number})
        if bar.execution and bar.execution != bar.flight_id:
            args["execution"] = bar.execution
        if bar.began_before:
            args["began_before_the_recording"] = True
        start = _us(bar.start)
        return {
            "name": f"{bar.what}: {bar.how}" if bar.how in ("failed", "aborted", "timed out") else bar.what,
            "cat": bar.what,
            "ph": "X",
            "ts": start,
            "dur": max(0, _us(bar.end) - start),
            "pid": self._pid,
            "tid": thread,
            "args": args,
        }

    def _instant(self, mark: Mark, thread: int) -> dict[str, Any]:
        args = {name: visible(text) for name, text in (("by", mark.actor), ("told", mark.told)) if text}
        place = {"pid": self._pid, "tid": thread}
        return {
            "name": mark.what,
            "cat": "mark",
            "ph": "i",
            "s": "t",
            "ts": _us(mark.at),
            **place,
            "args": args,
        }

    def _thread(self, name: str) -> dict[str, Any]:
        self._threads += 1
        return self._meta("thread_name", self._threads, name)

    def _meta(self, what: str, thread: int, name: str) -> dict[str, Any]:
        place = {"pid": self._pid, "tid": thread}
        return {"name": what, "ph": "M", "ts": 0, **place, "args": {"name": visible(name)}}


def _us(seconds: float) -> int:
    """Return whole microseconds, so that slices that follow one another do not overlap by a rounding."""
    return round(seconds * 1_000_000)
