"""See what happens: record the calls of decorated functions, and draw them over time.

    from singleflight import timeline

    with timeline.record(price) as recording:
        ...  # the program runs
    recording.save("calls.html")

The page has a lane for each key: the calls of the function as bars, the callers that waited below them, hits
as ticks. It needs no other file, no network and no script.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from ..common.messages import shown
from ..process.registry import check_decorated, observe_each
from .drawing import Drawing
from .lanes import Chart, Source, Totals, chart_of
from .page import page_of
from .perfetto import written
from .recorder import Recorder
from .words import plural

__all__ = ["Timeline", "Totals", "record", "save_together", "svg_of"]

F = TypeVar("F", bound=Callable[..., Any])


class Timeline:
    """A recording of what decorated functions do; `record` makes it, a `with` block begins and ends it.

    Pages may be saved while it goes on, and at any time afterwards. Safe to use from any thread and task.
    """

    def __init__(self, functions: tuple[Any, ...], most: int, hits: bool, timer: Callable[[], float]) -> None:
        self._functions = functions
        self._recorder = Recorder(most, timer, hits)
        self._hits = hits
        self._stop: Callable[[], None] | None = None
        self._entered = False

    def __enter__(self) -> Self:
        """Record from now on. Raises `RuntimeError` if it has recorded before."""
        if self._entered:
            raise RuntimeError("a timeline records once: make another one with record()")
        self._entered = True
        self._recorder.open()
        self._stop = observe_each(self._recorder.listener_of, *self._functions, hits=self._hits)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Record nothing more; the functions are as they were."""
        self._recorder.close()
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()

    def track(self, function: F, *, name: str | None = None, key: Callable[..., Hashable] | None = None) -> F:
        """Return a function that does the same, and whose calls are drawn while the timeline records.

        It is for functions that are not decorated: what a decorated one calls in turn, or the same function
        without the decorator, to compare.

        Args:
            function: a plain or coroutine function.
            name: what it is called in the drawing; default: its qualified name.
            key: called with the arguments of a call, returns what names its lane; default: the arguments.

        Raises `TypeError` for what cannot be called. What `key` raises is passed on, before the call.

        >>> seen = record()
        >>> ask = seen.track(lambda symbol: 984.75, name="the broker")
        >>> with seen:
        ...     ask("ASML") + ask("AAPL")
        1969.5
        >>> seen.totals.tracked
        2
        """
        if not callable(function):
            raise TypeError(f"function: expected a callable, got {shown(function)}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name: expected a string, got {shown(name)}")
        if key is not None and not callable(key):
            raise TypeError(f"key: expected a callable, got {shown(key)}")
        called = getattr(function, "__qualname__", None) if name is None else name
        return self._recorder.track(function, called or type(function).__name__, key)

    @property
    def totals(self) -> Totals:
        """What callers received so far, as `stats()` counts it, with the number of executions.

        Events that were not kept (see `most`) are counted.
        """
        return self.chart().totals

    @property
    def dropped(self) -> int:
        """How many events were not kept, since there were more than `most`."""
        return sum(self._recorder.dropped.values())

    def chart(self) -> Chart:
        """Return what is drawn, as data: functions, their keys, and for each its bars and marks."""
        return chart_of(self.source())

    def source(self) -> Source:
        """Return what it is drawn from: the notes of all events so far."""
        recorder = self._recorder
        goes_on, notes = recorder.is_open, recorder.notes()
        return Source(
            notes,
            recorder.functions,
            recorder.lanes,
            recorder.actors,
            recorder.began,
            recorder.now(),
            recorder.first_flight,
            recorder.dropped,
            recorder.uncounted,
            goes_on,
        )

    def save(self, path: str | os.PathLike[str], *, title: str = "Calls over time") -> None:
        """Write the page: one HTML file, in light or dark as the reader prefers, with no script.

        Args:
            path: the file, which is replaced.
            title: its heading.

        Raises `TypeError` for wrong arguments, and `OSError` if the file cannot be written; what is recorded
        stays, and may be saved elsewhere.
        """
        save_together(path, {"": self}, title=title)

    def to_svg(self, *, title: str = "", width: int = 1080) -> str:
        """Return the drawing alone, for documents: an SVG with its legend, in light or dark.

        Args:
            title: its heading; default: none.
            width: in pixels, from 200 on.

        Raises `TypeError` and `ValueError` for wrong arguments.
        """
        return svg_of({"": self}, title=title, width=width)

    def to_perfetto(self, path: str | os.PathLike[str]) -> None:
        """Write a trace in the JSON format that https://ui.perfetto.dev and chrome://tracing open.

        Flows lead from calls to the callers that waited for them. What cannot be printed in a name
        or a key is spelt out, as `\\x00`.

        Args:
            path: the file, which is replaced.

        Raises `TypeError` for what is no path, and `OSError` if the file cannot be written.
        """
        _path(path).write_bytes(written(self.chart()))

    def __repr__(self) -> str:
        state = "recording" if self._recorder.is_open else "over" if self._entered else "not begun"
        return f"<Timeline: {state}, {plural(len(self._recorder.notes()), 'event')}>"


def record(
    *functions: Any,
    most: int = 100_000,
    hits: bool = True,
    timer: Callable[[], float] = time.perf_counter,
) -> Timeline:
    """Return a timeline that records these decorated functions inside its `with` block.

    Args:
        functions: decorated functions or bound methods (which stand for their function, with all its
            instances); none: all of the process, also those that are decorated meanwhile.
        most: how many events are kept (default 100,000, some 30 MB). Later ones are counted in the numbers,
            and the page says how many there were. No values and arguments are kept: keys are kept as text of
            at most 200 characters, and errors as the names of their types.
        hits: whether hits are recorded (default True). A function whose hits are recorded serves them the
            longer way meanwhile; False leaves them as fast as ever, and out of the numbers.
        timer: a clock, in seconds (default `time.perf_counter`).

    Calls that are in progress when it begins are drawn as far as they are seen: followers that come later,
    and the end. Their bars are open on the left, and what is in progress at the end is open on the right.

    Raises `TypeError` and `ValueError` for wrong arguments, before anything is recorded.

    >>> from singleflight import single_flight_ttl
    >>> @single_flight_ttl(ttl=60)
    ... def price(symbol):
    ...     return 984.75
    >>> with record(price) as seen:
    ...     price("ASML") == price("ASML")
    True
    >>> seen.totals.callers, seen.totals.calls, seen.totals.saved
    (2, 1, 1)
    """
    check_decorated("record", functions)
    if isinstance(most, bool) or not isinstance(most, int):
        raise TypeError(f"most: expected a whole number, got {shown(most)}")
    if most < 1:
        raise ValueError(f"most: expected at least 1, got {most}")
    if not isinstance(hits, bool):
        raise TypeError(f"hits: expected True or False, got {shown(hits)}")
    if not callable(timer):
        raise TypeError(f"timer: expected a callable, got {shown(timer)}")
    return Timeline(functions, most, hits, timer)


def save_together(
    path: str | os.PathLike[str], timelines: Mapping[str, Timeline], *, title: str = "Calls over time"
) -> None:
    """Write one page with several timelines, one below the other, on one scale; see `Timeline.save`.

    Args:
        path: the file, which is replaced.
        timelines: each with its name, as {"without": ..., "with": ...}.
        title: its heading.

    Raises `TypeError` and `ValueError` for wrong arguments, and `OSError` if the file cannot be written.
    """
    file = _path(path)
    charts = {name: timeline.chart() for name, timeline in _checked(timelines, title).items()}
    text = page_of(charts, title, "Recorded and drawn by singleflight.timeline.")
    file.write_text(text, encoding="utf-8")


def svg_of(timelines: Mapping[str, Timeline], *, title: str = "", width: int = 1080) -> str:
    """Return one drawing of several timelines, one below the other, on one scale; see `Timeline.to_svg`."""
    if isinstance(width, bool) or not isinstance(width, int):
        raise TypeError(f"width: expected a whole number, got {shown(width)}")
    if width < 200:
        raise ValueError(f"width: expected at least 200, got {width}")
    charts = {name: timeline.chart() for name, timeline in _checked(timelines, title).items()}
    return Drawing(charts, width).svg(standalone=True, title=title)


def _path(path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: expected a path, got {shown(path)}")
    return Path(path)


def _checked(timelines: Mapping[str, Timeline], title: object) -> Mapping[str, Timeline]:
    if not isinstance(title, str):
        raise TypeError(f"title: expected a string, got {shown(title)}")
    if not isinstance(timelines, Mapping):
        raise TypeError(f"timelines: expected timelines by name, got {shown(timelines)}")
    if not timelines:
        raise ValueError("timelines: expected at least one")
    for name, timeline in timelines.items():
        if not isinstance(name, str) or not isinstance(timeline, Timeline):
            raise TypeError(f"timelines: expected timelines by name, got {shown(timelines)}")
    return timelines
