"""From notes to bars: which event begins and which one ends what is drawn. Nothing is read but the notes.

Notes of one function are taken in the order of their sequence numbers; times are those of delivery.

- A flight's bar begins with its `fetch` and ends with its `land` or `abort`. Latches open before a landing is
  told, so a follower may be served a moment earlier: then the bar ends there. It has its `flight_id`.
- A wait begins with a `wait` and ends with the next `share`, `resume`, `timeout`, `deadlock` or `left` of
  the same thread or task for the same key or flight. A thread may wait on top of a wait (in a signal
  handler): the last one that began ends first.
- A flight whose number is lower than that of the recording began before it: its bar is open on the left, and
  what no event has ended is open on the right.
- With `store=`: waiting for another process begins with `shared_wait`, and ends with what comes next of the
  flight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .notes import BEGAN, ENDED, RECEIVED, Lane, Note, counted_as

__all__ = ["Bar", "Chart", "Function", "KeyLane", "Mark", "Source", "Totals", "chart_of"]


@dataclass
class Bar:
    """Something that lasted, from `start` to `end`, in seconds since the recording began.

    `what` is "call", "refresh", "renewal" or "bulk" (executions), "wait", "shared" (a wait for another
    process), "tracked" (a call of a function that is not decorated) or "degraded". `how` says how it ended.
    `actor` names the thread or task. `began_before` and `goes_on` say that its begin or its end is not in the
    recording.
    """

    what: str
    start: float
    end: float
    how: str = ""
    actor: str = ""
    told: str = ""
    flight_id: int = 0
    execution: int = 0
    waiters: int = 0
    began_before: bool = False
    goes_on: bool = False

    @property
    def lasted(self) -> float:
        """Return its length in seconds."""
        return self.end - self.start


@dataclass(frozen=True)
class Mark:
    """Something that happened at one moment: `what` is the kind of the event."""

    what: str
    at: float
    actor: str = ""
    told: str = ""
    flight_id: int = 0


@dataclass
class KeyLane:
    """What happened to one key, which is `key` as text; its `label` is shorter."""

    key: str
    label: str
    flights: list[Bar] = field(default_factory=list)
    waits: list[Bar] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    @property
    def first(self) -> float:
        """Return when the first of it happened."""
        times = [bar.start for bar in self.flights + self.waits] + [mark.at for mark in self.marks]
        return min(times, default=0.0)

    @property
    def size(self) -> int:
        """Return how many bars and marks it has."""
        return len(self.flights) + len(self.waits) + len(self.marks)


@dataclass
class Totals:
    """What the callers of one function, or of all, received; the first six are as in `stats()`.

    `calls` counts executions, `longest_wait` is in seconds.
    """

    hits: int = 0
    stale_hits: int = 0
    waits: int = 0
    fetches: int = 0
    errors: int = 0
    timeouts: int = 0
    calls: int = 0
    tracked: int = 0
    longest_wait: float = 0.0

    @property
    def callers(self) -> int:
        """Return how many calls were received."""
        return sum(getattr(self, name) for name in RECEIVED)

    @property
    def saved(self) -> int:
        """Return how many more executions there would have been if every caller had made its own."""
        return max(0, self.callers - self.calls)

    def add(self, other: Totals) -> None:
        """Add the numbers of another function."""
        for name in (*RECEIVED, "calls", "tracked"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest_wait = max(self.longest_wait, other.longest_wait)


@dataclass
class Function:
    """One decorated function (or a tracked one), with its keys in the order in which they were first used."""

    name: str
    lanes: list[KeyLane] = field(default_factory=list)
    phases: list[Bar] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)


@dataclass(frozen=True)
class Chart:
    """All that is drawn. `lasted` is the length of the recording in seconds.

    `dropped` counts the events that were not kept, by kind; the totals have them all the same.
    """

    lasted: float
    functions: list[Function]
    totals: Totals
    dropped: dict[str, int]
    goes_on: bool = False


@dataclass(frozen=True)
class Source:
    """What a chart is made from: the notes, and the lists that they refer to (see `Recorder`)."""

    notes: Sequence[Note]
    functions: Sequence[str]
    lanes: Sequence[Lane]
    actors: Sequence[str]
    began: float
    ended: float
    first_flight: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    uncounted: dict[tuple[int, str], int] = field(default_factory=dict)
    goes_on: bool = False


def chart_of(source: Source) -> Chart:
    """Return what is to be drawn."""
    by_function: list[list[Note]] = [[] for _ in source.functions]
    for note in source.notes:
        by_function[note.function].append(note)
    functions, totals = [], Totals()
    for place, notes in enumerate(by_function):
        if not notes and not any(function == place for function, _ in source.uncounted):
            continue
        notes.sort(key=lambda note: (note.sequence, note.at))
        function = _Reader(source, source.functions[place]).read(notes)
        for (of, count), number in source.uncounted.items():
            if of == place:
                setattr(function.totals, count, getattr(function.totals, count) + number)
        functions.append(function)
        totals.add(function.totals)
    functions.sort(key=_first)
    lasted = max(0.0, source.ended - source.began)
    return Chart(lasted, functions, totals, dict(source.dropped), source.goes_on)


def _first(function: Function) -> float:
    return min((lane.first for lane in function.lanes), default=0.0)


_OUTCOMES = {
    "resume": "went on",
    "timeout": "timed out",
    "deadlock": "deadlock",
    "left": "left",
}
_ENDS_OF_WAITS = ("share", *_OUTCOMES)
_MARKS = frozenset(
    (
        *("hit", "stale_hit", "stored_failure", "invalidate", "put", "evict", "expire", "unseat"),
        *("claimed", "adopted", "refused", "lease_lost"),
    )
)


class _Flight:
    """A flight as far as it is known: its bar appears with its `fetch`, or at the end."""

    __slots__ = ("adopted", "bar", "first_share", "ident", "landed", "lane", "sharing")

    def __init__(self, ident: int, lane: int) -> None:
        self.ident, self.lane = ident, lane
        self.bar: Bar | None = None
        self.sharing: Bar | None = None  # the wait for another process
        self.first_share: float | None = None
        self.landed = self.adopted = False


class _Reader:
    """Reads the notes of one function, in order."""

    def __init__(self, source: Source, name: str) -> None:
        self._source = source
        self._function = Function(name)
        self._lanes: dict[int, KeyLane] = {}
        self._flights: dict[int, _Flight] = {}
        self._waiting: dict[int, list[tuple[int, Bar]]] = {}  # by actor; the last one that began last
        self._calls: dict[int, Bar] = {}
        self._phase: Bar | None = None
        self._end = max(0.0, source.ended - source.began)

    def read(self, notes: Iterable[Note]) -> Function:
        """Return the function with all its bars and marks."""
        totals = self._function.totals
        for note in notes:
            at = max(0.0, note.at - self._source.began)
            self._take(note, note.detail, at)
            counted = counted_as(note.kind, note.detail)
            if counted is not None:
                setattr(totals, counted, getattr(totals, counted) + 1)
        self._end_all()
        lanes = self._function.lanes = list(self._lanes.values())
        for lane in lanes:
            lane.flights.sort(key=lambda bar: (bar.start, bar.end))
            lane.waits.sort(key=lambda bar: (bar.start, bar.end))
            lane.marks.sort(key=lambda mark: mark.at)
        waits = (bar.lasted for lane in lanes for bar in lane.waits)
        totals.longest_wait = max(waits, default=0.0)
        return self._function

    def _take(self, note: Note, detail: Any, at: float) -> None:
        kind, lane = note.kind, note.lane
        if kind == "wait":
            self._begin_wait(note, detail, at)
        elif kind in _ENDS_OF_WAITS:
            self._end_wait(note, detail, at)
        elif kind == "fetch":
            self._fetch(note, detail, at)
        elif kind in ("land", "abort"):
            self._land(note, detail, at)
        elif kind == "shared_wait":
            flight = self._flight(detail["flight_id"], lane)
            flight.sharing = Bar("shared", at, at, told=detail["leader"], flight_id=flight.ident)
            self._lane(lane).flights.append(flight.sharing)
        elif kind in _MARKS:
            self._mark(note, detail, at)
        elif kind == "degraded":
            self._phase = Bar("degraded", at, at, told=detail["reason"])
            self._function.phases.append(self._phase)
        elif kind == "recovered":
            if self._phase is None:
                self._function.phases.append(Bar("degraded", 0.0, at, began_before=True))
            else:
                self._phase.end = max(self._phase.start, at)
            self._phase = None
        elif kind == "gap":
            self._function.marks.append(Mark("gap", at))
        elif kind == BEGAN:
            bar = self._calls[detail["call"]] = Bar("tracked", at, at, actor=self._source.actors[note.actor])
            self._lane(lane).flights.append(bar)
            self._function.totals.tracked += 1
        elif kind == ENDED:
            call = self._calls.pop(detail["call"], None)
            if call is not None:
                call.end = max(call.start, at)
                call.how = "returned" if detail["error"] is None else "failed"
                call.told = detail["error"] or ""

    # -- flights --------------------------------------------------------------------------------------

    def _fetch(self, note: Note, detail: Any, at: float) -> None:
        flight = self._flight(detail["flight_id"], note.lane)
        self._end_sharing(flight, at, "leads")
        what = "renewal" if detail["background"] else detail["flight"]
        if detail["execution_id"] == flight.ident:
            self._function.totals.calls += 1
        actor = self._source.actors[note.actor]
        execution = detail["execution_id"]
        flight.bar = Bar(what, at, at, actor=actor, flight_id=flight.ident, execution=execution)
        self._lane(note.lane).flights.append(flight.bar)

    def _land(self, note: Note, detail: Any, at: float) -> None:
        flight = self._flight(detail["flight_id"], note.lane)
        error = detail["error"]
        self._end_sharing(flight, at, "adopted" if error is None else "failed")
        flight.landed = True
        bar = flight.bar
        if bar is None:
            if flight.ident and flight.ident < self._source.first_flight:
                bar = self._began_before(flight)
            elif error is not None:
                self._mark_plain("abort" if note.kind == "abort" else "failed", note, at, error)
                return
            else:
                if not flight.adopted and flight.sharing is None:
                    self._mark_plain("adopted", note, at, "", flight.ident)
                return
        bar.end = max(bar.start, at)
        bar.waiters = detail["followers"]
        if note.kind == "abort":
            bar.how, bar.told = "aborted", error or ""
        elif error is not None:
            bar.how, bar.told = "failed", error
        else:
            bar.how = "stored" if detail["stored"] else "not stored"
            bar.told = "" if detail["ttl"] is None else f"for {detail['ttl']:.6g} s"
        if note.kind == "land" and detail["retried"]:
            bar.told = f"{bar.told}; its followers try again".removeprefix("; ")

    def _began_before(self, flight: _Flight) -> Bar:
        bar = flight.bar = Bar("call", 0.0, 0.0, flight_id=flight.ident, began_before=True)
        self._lane(flight.lane).flights.append(bar)
        return bar

    def _end_sharing(self, flight: _Flight, at: float, how: str) -> None:
        bar = flight.sharing
        if bar is not None and not bar.how:
            bar.end, bar.how = max(bar.start, at), how

    # -- waits ----------------------------------------------------------------------------------------

    def _begin_wait(self, note: Note, detail: Any, at: float) -> None:
        actor = self._source.actors[note.actor]
        bar = Bar("wait", at, at, actor=actor, flight_id=detail["flight_id"], waiters=detail["followers"])
        self._lane(note.lane).waits.append(bar)
        self._waiting.setdefault(note.actor, []).append((note.lane, bar))
        if detail["flight_id"]:
            self._flight(detail["flight_id"], note.lane)

    def _end_wait(self, note: Note, detail: Any, at: float) -> None:
        ident = detail.get("flight_id", 0)
        if note.kind == "share" and ident:
            flight = self._flight(ident, note.lane)
            if flight.first_share is None or at < flight.first_share:
                flight.first_share = at
        leads = detail.get("leads", False)
        bar = None if leads else self._pop_wait(note, ident, at)
        if bar is None:
            if note.kind in ("timeout", "deadlock", "left"):
                self._mark(note, detail, at)
            return
        bar.end = max(bar.start, at)
        if ident:
            bar.flight_id = ident
        error = detail.get("error")
        if note.kind == "share":
            bar.how = "served" if error is None else "failed"
        else:
            bar.how = _OUTCOMES[note.kind]
        bar.told = error or detail.get("cycle", "")

    def _pop_wait(self, note: Note, ident: int, at: float) -> Bar | None:
        """Return the wait that this event ends. Those on top of it have ended without a word."""
        stack = self._waiting.get(note.actor, [])
        for place in reversed(range(len(stack))):
            lane, bar = stack[place]
            if lane == note.lane or (ident and bar.flight_id == ident):
                for _, lost in stack[place + 1 :]:
                    lost.end, lost.how = max(lost.start, at), "ended unseen"
                del stack[place:]
                return bar
        return None

    # -- the rest -------------------------------------------------------------------------------------

    def _mark(self, note: Note, detail: Any, at: float) -> None:
        kind, ident = note.kind, detail.get("flight_id", 0)
        told = detail.get("error") or detail.get("cycle") or ""
        if kind in ("stale_hit", "adopted"):
            told = f"{detail['age']:.3g} s old"
        if ident:
            flight = self._flight(ident, note.lane)
            if kind == "adopted":
                flight.adopted = True
                self._end_sharing(flight, at, "adopted")
            elif kind == "claimed":
                self._end_sharing(flight, at, "leads")
            elif kind == "unseat" and flight.bar is not None:
                flight.bar.told = "lost its key (flight_timeout)"
        self._mark_plain(kind, note, at, told, ident)

    def _mark_plain(self, what: str, note: Note, at: float, told: str, ident: int = 0) -> None:
        mark = Mark(what, at, self._source.actors[note.actor], told, ident)
        (self._function if note.lane < 0 else self._lane(note.lane)).marks.append(mark)

    def _lane(self, place: int) -> KeyLane:
        lane = self._lanes.get(place)
        if lane is None:
            known = self._source.lanes[place]
            lane = self._lanes[place] = KeyLane(known.key, known.label)
        return lane

    def _flight(self, ident: int, lane: int) -> _Flight:
        flight = self._flights.get(ident)
        if flight is None:
            flight = self._flights[ident] = _Flight(ident, lane)
        return flight

    def _leave_open(self, flight: _Flight, bar: Bar) -> None:
        """Its landing is not among the notes: it goes on, or (one that began before) ended untold."""
        later = [other.start for other in self._lanes[flight.lane].flights if other.start > bar.start]
        if bar.began_before and later:
            bar.end, bar.how = min(later), "ended unseen"
        else:
            bar.end, bar.goes_on = self._end, True

    def _end_all(self) -> None:
        """What no event has ended: served followers show the end of a flight; else it is open."""
        end = self._end
        for flight in self._flights.values():
            if flight.bar is None and 0 < flight.ident < self._source.first_flight:
                self._began_before(flight)
            bar = flight.bar
            if bar is not None:
                if flight.first_share is not None and (not flight.landed or flight.first_share < bar.end):
                    bar.end = max(bar.start, flight.first_share)
                    bar.how = bar.how or "ended unseen"
                elif not flight.landed:
                    self._leave_open(flight, bar)
            if flight.sharing is not None and not flight.sharing.how:
                flight.sharing.end, flight.sharing.goes_on = end, True
        for stack in self._waiting.values():
            for _, bar in stack:
                bar.end, bar.goes_on = end, True
        for bar in self._calls.values():
            bar.end, bar.goes_on = end, True
        if self._phase is not None:
            self._phase.end, self._phase.goes_on = end, True
