"""Drawing charts as SVG: a lane a key, bars in rows, marks in a strip; text beside every colour.

What does not fit is drawn as a whole, which is said: bars and marks of one kind that share a few pixels
become one, with their number; rows beyond the limit become an area as high as there are bars at a time; lanes
beyond the limit become one line of text. The resolution is lowered until there are at most `SHAPES` shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import floor, log10

from .lanes import Bar, Chart, Function, KeyLane, Mark
from .shapes import HATCH, MARKS, STYLE, cross, glyph, open_edge, px, swatch
from .words import (
    BAD,
    BARS,
    LEGEND,
    counts_of,
    duration,
    plural,
    safe,
    shortened,
    summary_line,
    told_of_bar,
    told_of_marks,
    written_on,
)

__all__ = ["LANES", "SHAPES", "Drawing"]

SHAPES = 12_000
"""How many shapes a drawing has at most, as far as a lower resolution can see to it."""
LANES = 120
"""How many keys of one function are drawn, those with most to show."""
_ROWS = 12  # of flights, and of waits, in one lane
_NARROW = 700  # below this width, names stand above their lanes
_RESOLUTIONS = (1.5, 3.0, 6.0, 12.0, 24.0, 48.0)  # pixels that one shape may stand for

_FLIGHT_HEIGHT, _WAIT_HEIGHT, _AREA_HEIGHT, _STRIP_HEIGHT, _GAP = 16.0, 8.0, 20.0, 13.0, 2.0


@dataclass
class _Scale:
    """Where times are: pixels from `left` on, `width` of them for the times from `first` to `last`."""

    left: float
    width: float
    first: float
    last: float

    def x(self, at: float) -> float:
        span = self.last - self.first
        place = (at - self.first) / span if span > 0 else 0.0
        return self.left + self.width * min(1.0, max(0.0, place))

    def ticks(self) -> list[float]:
        """Return round times, counted from the first, at a distance of some hundred pixels."""
        span = self.last - self.first
        if span <= 0:
            return [0.0]
        about = span / max(2.0, self.width / 110)
        unit = 10.0 ** floor(log10(about))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= about * 0.999)
        return [step * number for number in range(int(span / step + 1e-9) + 1)]


def extent(charts: Sequence[Chart]) -> float:
    """Return how many seconds the longest of them shows."""
    return max((last - first for first, last in map(shown_times, charts)), default=0.0)


def shown_times(chart: Chart) -> tuple[float, float]:
    """Return from when to when there is something to be seen."""
    times: list[float] = []
    for function in chart.functions:
        bars = [*function.phases]
        marks = [*function.marks]
        for lane in function.lanes:
            bars += lane.flights + lane.waits
            marks += lane.marks
        times += [bar.start for bar in bars] + [bar.end for bar in bars] + [mark.at for mark in marks]
    if not times:
        return 0.0, chart.lasted
    first, last = min(times), max(times)
    room = (last - first) * 0.01 or 0.001
    return first, last + room


@dataclass
class _Merged:
    """Bars of one kind that are drawn as one."""

    bar: Bar
    left: float
    right: float
    number: int = 1


@dataclass
class Drawing:
    """One drawing of charts, one below the other, with one scale.

    Args:
        parts: the charts, by name; an empty name is not written.
        width: in pixels.

    `svg()` makes it; `said` then has what was drawn as a whole, in sentences.
    """

    parts: Mapping[str, Chart]
    width: int = 1080
    said: list[str] = field(default_factory=list)
    _out: list[str] = field(default_factory=list)
    _bands: list[str] = field(default_factory=list)
    _y: float = 0.0
    _origin: float = 0.0
    _shapes: int = 0
    _resolution: float = _RESOLUTIONS[0]
    _merged: int = 0
    _areas: int = 0

    def svg(self, standalone: bool = False, title: str = "") -> str:
        """Return the SVG element. A `standalone` one has its style and a legend with it."""
        for resolution in _RESOLUTIONS:
            self._begin(resolution)
            if standalone and title:
                self._y += 18
                self._text(12, self._y, title, "head")
                self._y += 8
            span = extent(list(self.parts.values()))
            for name, chart in self.parts.items():
                self._chart(name, chart, span)
            if standalone:
                self._legend()
            if self._shapes <= SHAPES:
                break
        self._say()
        height = self._y + 6
        words = safe(title or "Calls over time")
        size = f'viewBox="0 0 {self.width} {px(height)}" width="{self.width}" height="{px(height)}"'
        drawn = "".join(self._out)
        if not standalone:  # a page has the style and the pattern once
            return f'<svg class="sf" {size} role="img" aria-label="{words}">{drawn}</svg>'
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="sf" {size} role="img"><title>{words}</title>'
            f"<desc>{safe(self._described())}</desc><style>{STYLE}</style>{HATCH}{drawn}</svg>\n"
        )

    def _described(self) -> str:
        """Return in words what is drawn, for those who cannot see it."""
        return " ".join(
            f"{name + ': ' if name else ''}{summary_line(chart)}, over {duration(chart.lasted)}."
            for name, chart in self.parts.items()
        )

    def used(self) -> list[tuple[str, str]]:
        """Return the lines of the legend that this drawing needs."""
        there: set[str] = set()
        for chart in self.parts.values():
            for function in chart.functions:
                there.update("degraded" for _ in function.phases)
                there.update(_class_of(mark) for mark in function.marks)
                for lane in function.lanes:
                    for bar in lane.flights + lane.waits:
                        there.add("call" if bar.what == "refresh" else bar.what)
                        if bar.how in BAD:
                            there.add("failed")
                    there.update(_class_of(mark) for mark in lane.marks)
        return [(kind, words) for kind, words in LEGEND if kind in there]

    # -- parts ----------------------------------------------------------------------------------------

    def _begin(self, resolution: float) -> None:
        self._out, self._y, self._shapes, self._resolution = [], 4.0, 0, resolution
        self._merged = self._areas = 0
        self.said = []

    def _say(self) -> None:
        if self._merged:
            near = f"{self._resolution:g} pixels"
            self.said.append(f"Bars and marks of one kind within {near} are drawn as one, with their number.")
        if self._areas:
            self.said.append(
                f"Where more than {_ROWS} bars of a key overlap, the others are drawn as an area."
            )

    def _chart(self, name: str, chart: Chart, span: float) -> None:
        first, _ = shown_times(chart)
        self._origin = first
        left = 12.0 if self.width < _NARROW else 176.0
        scale = _Scale(left, self.width - left - 16, first, first + span if span > 0 else first + 0.001)
        if name:
            self._y += 20
            self._text(12, self._y, name, "head")
            self._text(self.width - 16, self._y, summary_line(chart), "dim", anchor="end")
            self._y += 6
        if not chart.functions:
            self._y += 20
            self._text(12, self._y, "nothing happened", "dim")
        for function in chart.functions:
            self._function(function, scale)

    def _function(self, function: Function, scale: _Scale) -> None:
        self._y += 18
        most = 46 if self.width < _NARROW else 110
        self._text(12, self._y, shortened(function.name, most), "name", function.name)
        self._y += 6
        self._axis(scale)
        top = self._y
        for bar in function.phases:
            left, right = scale.x(bar.start), max(scale.x(bar.end), scale.x(bar.start) + 2)
            told = f"The server was not asked, for {duration(bar.lasted)}. {bar.told}"
            self._shape(
                f'<rect class="degraded" x="{px(left)}" y="{px(top)}" width="{px(right - left)}" '
                f'height="14"/>',
                told,
            )
            if right - left > 130:
                self._text(left + 4, top + 11, "the server is away", "dim small")
        if function.phases or function.marks:
            for mark in function.marks:
                self._glyph(mark.what, scale.x(mark.at), top + 7, told_of_marks([mark], self._origin))
            self._y += 16
        grid = len(self._out)
        self._out.append("")
        lanes = sorted(function.lanes, key=lambda lane: -lane.size)[:LANES]
        chosen = {id(lane) for lane in lanes}
        joints: dict[int, list[tuple[float, float]]] = {}
        for number, lane in enumerate(lane for lane in function.lanes if id(lane) in chosen):
            self._lane(lane, scale, number, joints)
        self._links(joints)
        left_out = [lane for lane in function.lanes if id(lane) not in chosen]
        if left_out:
            size = sum(lane.size for lane in left_out)
            words = f"and {plural(len(left_out), 'more key')}, with {size:,} bars and marks"
            self._y += 15
            self._text(12, self._y, words, "dim")
            if words not in self.said:
                self.said.append(
                    f"{function.name}: the {LANES} keys with most to show are drawn, {words} are not."
                )
        self._out[grid] = "".join(self._bands) + self._grid(scale, top, self._y)
        self._bands = []
        self._y += 6

    def _axis(self, scale: _Scale) -> None:
        self._y += 12
        for tick in scale.ticks():
            x = scale.x(scale.first + tick)
            self._text(
                x,
                self._y,
                "0" if not tick else duration(tick),
                "dim small",
                anchor="middle" if tick else "start",
            )
        self._y += 5

    def _grid(self, scale: _Scale, top: float, bottom: float) -> str:
        path = "".join(f"M{px(scale.x(scale.first + tick))} {px(top)}V{px(bottom)}" for tick in scale.ticks())
        return f'<path class="line" d="{path}"/>'

    # -- one lane -------------------------------------------------------------------------------------

    def _lane(
        self, lane: KeyLane, scale: _Scale, number: int, joints: dict[int, list[tuple[float, float]]]
    ) -> None:
        narrow = self.width < _NARROW
        top = self._y
        words = counts_of(lane)
        if narrow:
            self._text(12, top + 13, shortened(lane.label, 30), "", lane.key)
            self._text(self.width - 16, top + 13, words, "dim small", anchor="end")
            self._y = top + 18
        else:
            self._text(12, top + 15, shortened(lane.label, 24), "", lane.key)
            self._text(12, top + 29, shortened(words, 30), "dim small", words)
            self._y = top + 4
        self._bars(lane.flights, scale, _FLIGHT_HEIGHT, joints)
        self._bars(lane.waits, scale, _WAIT_HEIGHT, {})
        if lane.marks:
            self._strip(lane.marks, scale)
        self._y = max(self._y + 3, top + (24 if narrow else 36))
        if number % 2 == 0:
            height = self._y - top
            size = f'width="{self.width - 8}" height="{px(height)}"'
            self._bands.append(f'<rect class="band" x="4" y="{px(top)}" {size} rx="4"/>')

    def _bars(
        self, bars: list[Bar], scale: _Scale, height: float, joints: dict[int, list[tuple[float, float]]]
    ) -> None:
        rows, rest = _rows(bars, scale, self._resolution)
        for row in rows:
            for merged in self._merge(row, scale):
                self._bar(merged, height, joints)
            self._y += height + _GAP
        if rest:
            self._area(rest, scale)

    def _merge(self, row: list[Bar], scale: _Scale) -> list[_Merged]:
        """Bars of one kind that lie within the resolution become one."""
        found: list[_Merged] = []
        for bar in row:
            left = scale.x(bar.start)
            right = max(scale.x(bar.end), left + 2)
            last = found[-1] if found else None
            alike = last is not None and (last.bar.what, last.bar.how) == (bar.what, bar.how)
            if last is not None and alike and right - last.left <= self._resolution + 1:
                last.number += 1
                last.right = max(last.right, right)
                self._merged += 1
            else:
                found.append(_Merged(bar, left, right))
        return found

    def _bar(self, merged: _Merged, height: float, joints: dict[int, list[tuple[float, float]]]) -> None:
        bar, left, right, y = merged.bar, merged.left, merged.right, self._y
        width = right - left
        bad = bar.how in BAD
        kind = bar.what + (" bad" if bad else "")
        shape = (
            f'<rect class="{kind}" x="{px(left)}" y="{px(y)}" width="{px(width)}" height="{px(height)}" '
            f'rx="{2 if height > 10 else 1.5}"/>'
        )
        if bar.what in ("renewal", "shared"):
            shape += (
                f'<rect fill="url(#sf-hatch)" x="{px(left)}" y="{px(y)}" width="{px(width)}" '
                f'height="{px(height)}" pointer-events="none"/>'
            )
        if bar.began_before:
            shape += open_edge(left, y, height, -1)
        if bar.goes_on:
            shape += open_edge(right, y, height, 1)
        self._shape(shape, told_of_bar(bar, merged.number, self._origin))
        if bar.execution and bar.what in ("bulk", "renewal"):
            joints.setdefault(bar.execution, []).append((left, y + height / 2))
        words = written_on(bar, width) if height > 10 and merged.number == 1 else ""
        if bad and height <= 10 and width > 12:
            self._out.append(cross(right - 6, y + height / 2, 2.5))
        if words:
            self._text(left + 5, y + height - 4.5, words, "on")

    def _area(self, bars: list[Bar], scale: _Scale) -> None:
        """Draw how many of these there are at a time."""
        self._areas += 1
        steps = max(1, int(scale.width / max(2.0, self._resolution)))
        changes = [0] * (steps + 2)
        for bar in bars:
            first = int((scale.x(bar.start) - scale.left) / scale.width * steps)
            last = int((scale.x(bar.end) - scale.left) / scale.width * steps)
            changes[first] += 1
            changes[last + 1] -= 1
        level, top, points = 0, 0, []
        for change in changes[: steps + 1]:
            level += change
            points.append(level)
            top = max(top, level)
        bottom = self._y + _AREA_HEIGHT
        path, before = f"M{px(scale.left)} {px(bottom)}", 0
        for step, level in enumerate(points):
            if level != before:
                x, y = scale.left + scale.width * step / steps, bottom - _AREA_HEIGHT * level / max(1, top)
                path += f"H{px(x)}V{px(y)}"
                before = level
        path += f"H{px(scale.left + scale.width)}V{px(bottom)}Z"
        longest = max(bar.lasted for bar in bars)
        what = BARS[bars[0].what]
        told = f"{len(bars):,} more: {what}\nat most {top:,} at a time\nthe longest took {duration(longest)}"
        self._shape(f'<path class="area {bars[0].what}" d="{path}"/>', told)
        words = f"{len(bars):,} more, {top:,} at a time"
        self._text(scale.left + 4, bottom - 6, words, "small")
        self._y += _AREA_HEIGHT + _GAP

    def _strip(self, marks: list[Mark], scale: _Scale) -> None:
        """Draw marks; those of one kind within the resolution as one."""
        middle = self._y + _STRIP_HEIGHT / 2
        last: dict[str, tuple[float, list[Mark]]] = {}
        for mark in marks:
            x = scale.x(mark.at)
            group = last.get(mark.what)
            if group is not None and x - group[0] < self._resolution + 1:
                group[1].append(mark)
                self._merged += 1
                continue
            if group is not None:
                self._glyph(mark.what, group[0], middle, told_of_marks(group[1], self._origin))
            last[mark.what] = x, [mark]
        for what, (x, group_marks) in last.items():
            self._glyph(what, x, middle, told_of_marks(group_marks, self._origin))
        self._y += _STRIP_HEIGHT + _GAP

    def _glyph(self, what: str, x: float, y: float, told: str) -> None:
        kind = MARKS.get(what, "trouble")
        self._shape(glyph(kind, x, y), told)

    def _links(self, joints: dict[int, list[tuple[float, float]]]) -> None:
        """Draw a line over the lanes of each loader call."""
        for places in joints.values():
            if len(places) < 2:
                continue
            x = min(left for left, _ in places)
            top, bottom = min(y for _, y in places), max(y for _, y in places)
            knots = "".join(f'<circle class="knot" cx="{px(x)}" cy="{px(y)}" r="2.6"/>' for _, y in places)
            line = f'<path class="link" d="M{px(x)} {px(top)}V{px(bottom)}"/>'
            self._shape(line + knots, f"one loader call for {plural(len(places), 'key')}")

    def _legend(self) -> None:
        self._y += 10
        x = 12.0
        for kind, words in self.used():
            width = 24 + 6.4 * len(words) + 14
            if x + width > self.width and x > 12:
                x, self._y = 12.0, self._y + 18
            self._out.append(f'<g transform="translate({px(x)} {px(self._y)})">{swatch(kind)}</g>')
            self._text(x + 24, self._y + 10, words, "dim")
            x += width
        self._y += 18

    # -- writing --------------------------------------------------------------------------------------

    def _shape(self, shape: str, told: str) -> None:
        self._shapes += 1
        self._out.append(f'<g class="s">{shape}<title>{safe(told)}</title></g>')

    def _text(self, x: float, y: float, words: str, kind: str, told: str = "", anchor: str = "start") -> None:
        at = "" if anchor == "start" else f' text-anchor="{anchor}"'
        of = f' class="{kind}"' if kind else ""
        title = f"<title>{safe(told)}</title>" if told and told != words else ""
        self._out.append(f'<text{of} x="{px(x)}" y="{px(y)}"{at}>{safe(words)}{title}</text>')


def _rows(bars: list[Bar], scale: _Scale, resolution: float) -> tuple[list[list[Bar]], list[Bar]]:
    """Return the bars in rows in which none overlap, and those for which there is no row."""
    rows: list[list[Bar]] = []
    ends: list[float] = []
    rest: list[Bar] = []
    for bar in bars:
        left = scale.x(bar.start)
        for place, end in enumerate(ends):
            last = rows[place][-1]
            fits = bar.start >= last.end and left >= end
            merges = (last.what, last.how) == (bar.what, bar.how) and left - scale.x(last.start) < resolution
            if fits or (bar.start >= last.end and merges):
                rows[place].append(bar)
                ends[place] = max(end, scale.x(bar.end), left + 2)
                break
        else:
            if len(rows) < _ROWS:
                rows.append([bar])
                ends.append(max(scale.x(bar.end), left + 2))
            else:
                rest.append(bar)
    return rows, rest


def _class_of(mark: Mark) -> str:
    return MARKS.get(mark.what, "trouble")
