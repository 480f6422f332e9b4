"""The state machine of a flight, drawn from the table at the head of `core/transitions.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tools.pictures.svg import Drawing

SOURCE = Path(__file__).parents[2] / "singleflight" / "core" / "transitions.py"


class Transition(NamedTuple):
    """A row of the table."""

    state: str
    what: str
    then: str
    followers: str
    told: str


def table(source: str) -> list[Transition]:
    """Return the rows of the table in a module's docstring; its columns begin where its rules do."""
    lines = source.splitlines()
    (ruled,) = [number for number, line in enumerate(lines) if re.fullmatch(r"\s+(-+  ){4}-+", line)]
    starts = [found.start() for found in re.finditer(r"-+", lines[ruled])]
    rows = []
    for line in lines[ruled + 1 :]:
        if not line.strip():
            break
        cells = [line[begin:end].strip() for begin, end in zip(starts, [*starts[1:], None], strict=True)]
        rows.append(Transition(*cells))
    return rows


# Where each state stands; one that the table names and this does not is an error.
PLACES = {
    "(none)": (62, 64),
    "UNCLAIMED": (210, 64),
    "(dropped)": (358, 64),
    "FLYING": (210, 174),
    "LANDED": (62, 284),
    "PASSED": (210, 284),
    "UNSEATED": (358, 229),
}
HALF_WIDTH, HALF_HEIGHT = 48, 16


def draw(rows: list[Transition]) -> str:
    """Return the picture: boxes for states, arrows with numbers, and below them what happens."""
    drawing = Drawing(
        "The states of a flight",
        " ".join(f"{number}: {row.state} to {row.then}: {row.what}." for number, row in enumerate(rows, 1)),
    )
    drawing.text(14, 24, "The states of a flight", "title")
    arrows: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(rows, 1):
        arrows.setdefault((row.state, row.then), []).append(number)
    for (state, then), numbers in arrows.items():
        _arrow(drawing, state, then, ", ".join(map(str, numbers)))
    for state, (x, y) in PLACES.items():
        if state.startswith("("):
            drawing.text(x, y + 4, state, "small", "middle")
        else:
            drawing.bar(x - HALF_WIDTH, y - HALF_HEIGHT, 2 * HALF_WIDTH, 2 * HALF_HEIGHT, "box")
            drawing.text(x, y + 5, state, "strong", "middle")
    y = 336.0
    for number, row in enumerate(rows, 1):
        drawing.text(32, y, str(number), "strong", "end")
        drawing.text(42, y, row.what.replace("`", ""))
        drawing.text(42, y + 16, f"followers: {row.followers.strip('()')}", "small")
        y += 40
    return str(drawing)


def _arrow(drawing: Drawing, state: str, then: str, numbers: str) -> None:
    (x, y), (x2, y2) = PLACES[state], PLACES[then]
    if state == then:
        left = x - HALF_WIDTH
        drawing.path(f"M{left} {y - 8} C{left - 44} {y - 26} {left - 44} {y + 26} {left} {y + 8}", tip=True)
        drawing.text(left - 40, y + 5, numbers, "strong", "end")
        return
    begin, end = _edge(state, x2 - x, y2 - y), _edge(then, x - x2, y - y2)
    drawing.line(x + begin[0], y + begin[1], x2 + end[0], y2 + end[1], "ink", tip=True)
    middle = ((x + begin[0] + x2 + end[0]) / 2, (y + begin[1] + y2 + end[1]) / 2)
    if y == y2:
        drawing.text(middle[0], middle[1] - 7, numbers, "strong", "middle")
    else:
        drawing.text(middle[0] + 8, middle[1] + (14 if x2 < x else -6 if x2 > x else 4), numbers, "strong")


def _edge(state: str, right: float, down: float) -> tuple[float, float]:
    """Where the line from the middle of a box in that direction leaves it."""
    wide, high = (34, 8) if state.startswith("(") else (HALF_WIDTH, HALF_HEIGHT)
    scale = min(wide / abs(right) if right else 9.0, high / abs(down) if down else 9.0)
    return right * scale, down * scale


def picture() -> str:
    """The picture of the table as it is now."""
    return draw(table(SOURCE.read_text(encoding="utf-8")))


def used(rows: list[Transition]) -> set[str]:
    """All states that the table names."""
    return {row.state for row in rows} | {row.then for row in rows}
