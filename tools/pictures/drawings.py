"""The pictures of the documentation, each drawn from a recorded run."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from typing import Any

from singleflight.timeline import drawing as timelines
from singleflight.timeline.lanes import Source, chart_of
from singleflight.timeline.notes import Lane, Note
from tools.pictures.svg import WIDTH, Drawing

LEFT, RIGHT = 14.0, WIDTH - 14.0


def burst(run: dict[str, Any]) -> str:
    """Callers over time: a lane for each, without the decorator and with it, on one scale."""
    callers = len(run["with"]["callers"])
    end = max(ask["served"] for side in ("without", "with") for lane in run[side]["callers"] for ask in lane)
    calls = {side: run[side]["calls"] for side in ("without", "with")}
    drawing = Drawing(
        f"{callers} callers, without and with the decorator",
        f"Each of {callers} threads asks for the same price twice. Without the decorator they make"
        f" {calls['without']} calls, of which the broker answers {run['at_once']} at a time; with it"
        f" {calls['with']}, and the others wait for that one or find its value.",
    )
    y = 24.0
    for side, heading in (("without", "without the decorator"), ("with", "with @single_flight_ttl")):
        drawing.text(LEFT, y, heading, "title")
        count = calls[side]
        drawing.text(RIGHT, y, f"{count} call{'s' * (count != 1)} to the broker", "strong", "end")
        y += 10
        for number, lane in enumerate(run[side]["callers"], 1):
            drawing.line(LEFT, y + 6, RIGHT, y + 6)
            for ask in lane:
                _ask(drawing, ask, number, y, (RIGHT - LEFT) / end)
            y += 15
        y += 26
    y -= 22
    marks = [(LEFT + (RIGHT - LEFT) * at / end, f"{at / 1000:g} s") for at in range(0, int(end), 500)]
    drawing.axis(y, LEFT, RIGHT, marks)
    drawing.legend(
        y + 42, [("call", "calls the broker"), ("wait", "waits for that call"), ("fresh", "finds the value")]
    )
    return str(drawing)


def _ask(drawing: Drawing, ask: dict[str, Any], number: int, y: float, scale: float) -> None:
    x, width = LEFT + ask["asked"] * scale, (ask["served"] - ask["asked"]) * scale
    took = f"{ask['served'] - ask['asked']:.0f} ms"
    if ask["called"] is not None:
        drawing.bar(x, y, width, 12, "call", f"caller {number} calls the broker: {took}")
    elif width >= 2:
        drawing.bar(x, y, width, 12, "wait", f"caller {number} waits for another one's call: {took}")
    else:
        drawing.bar(x - 1, y, 3, 12, "fresh", f"caller {number} finds the value")


def ages(run: dict[str, Any]) -> str:
    """An entry's life: fresh, stale, expired, what a reader gets and what that starts."""
    reads = run["reads"]
    last = reads[-1]["age"]
    drawing = Drawing(
        "The ages of an entry",
        f"With ttl={run['ttl']}, grace={run['grace']} and refresh_ahead={run['ahead']}: what a reader gets at"
        " each age of the entry, and from which age on that starts a call.",
    )

    def at(age: float) -> float:
        return LEFT + (RIGHT - LEFT) * age / last

    def stretches(key: Callable[[dict[str, Any]], Any]) -> list[tuple[Any, float, float]]:
        found = [(value, list(group)) for value, group in groupby(reads, key=key)]
        starts = [group[0]["age"] for _, group in found] + [last]
        return [(value, starts[place], starts[place + 1]) for place, (value, _) in enumerate(found)]

    drawing.text(LEFT, 24, f"ttl={run['ttl']}, grace={run['grace']}, refresh_ahead={run['ahead']}", "title")
    kinds = {"fresh": "fresh", "stale": "stale", "expired": "wait"}
    for state, begin, end in stretches(lambda read: read["state"]):
        drawing.bar(at(begin), 52, at(end) - at(begin) - 2, 16, kinds[state])
        drawing.text(at(begin), 46, state, "strong")
    words = {
        "hit": ["the value,", "a hit"],
        "stale_hit": ["the old value at once,", "a stale hit"],
        "fetch": ["waits for", "a new call"],
    }
    drawing.text(LEFT, 96, "a reader gets", "small")
    for served, begin, _ in stretches(lambda read: read["served"]):
        for line, part in enumerate(words[served]):
            drawing.text(at(begin), 114 + 16 * line, part)
    drawing.text(LEFT, 156, "and the first read starts", "small")
    starts = {"stale_hit": "a renewal", "fetch": "a call"}
    for (served, called), begin, end in stretches(lambda read: (read["served"], read["calls"])):
        drawing.bar(at(begin), 164, at(end) - at(begin) - 2, 6, "call" if called else "wait")
        if served in starts:
            drawing.text(at(begin), 188, starts[served])
    ahead = next(read["age"] for read in reads if read["calls"])
    ages_shown = sorted({0, ahead, run["ttl"], run["ttl"] + run["grace"], last})
    drawing.axis(206, LEFT, RIGHT, [(at(age), f"{age} s" if age == last else str(age)) for age in ages_shown])
    drawing.text(LEFT, 240, "age of the entry, in seconds", "small")
    return str(drawing)


def outage(run: dict[str, Any]) -> str:
    """What a caller each second gets while the broker fails for some minutes, without grace and with it."""
    end = run["end"]
    failed = {
        side: sum(seconds for state, seconds in run[side]["seconds"] if state == "failed")
        for side in ("without", "with")
    }
    drawing = Drawing(
        "An outage, without grace and with it",
        f"The broker fails for {(run['up'] - run['down']) // 60} minutes, and a caller asks every second."
        f" Without grace {failed['without']} callers get an error, with it {failed['with']}: they get the"
        " last value.",
    )

    def at(second: float) -> float:
        return LEFT + (RIGHT - LEFT) * second / end

    drawing.text(LEFT, 24, "the broker", "title")
    for state, begin, until in (
        ("call", 0, run["down"]),
        ("failed", run["down"], run["up"]),
        ("call", run["up"], end),
    ):
        drawing.bar(at(begin), 32, at(until) - at(begin) - 1, 10, state)
    drawing.text(at(run["down"]), 58, "does not answer", "small")
    y = 88.0
    for side, options in (("without", ""), ("with", f", grace={run['grace']}")):
        drawing.text(LEFT, y, f"ttl={run['ttl']}{options}", "title")
        drawing.text(RIGHT, y, f"{failed[side]} callers get an error", "strong", "end")
        second = 0
        for state, seconds in run[side]["seconds"]:
            words = f"{seconds} s: {'an error' if state == 'failed' else f'a {state} value'}"
            drawing.bar(at(second), y + 8, at(second + seconds) - at(second), 20, state, words)
            second += seconds
        y += 58
    minutes = [(at(60 * minute), str(minute)) for minute in range(end // 60)]
    drawing.axis(y - 18, LEFT, RIGHT, [*minutes, (RIGHT, f"{end // 60} min")])
    drawing.legend(y + 24, [("fresh", "a fresh value"), ("stale", "the last value"), ("failed", "an error")])
    return str(drawing)


def timeline(run: dict[str, Any]) -> str:
    """What `singleflight.timeline` draws of widgets that ask at once."""
    charts = {}
    for side, name in (("without", "without the decorator"), ("with", "with it")):
        source = dict(run[side])
        source["notes"] = [Note(*json.loads(note)) for note in source["notes"]]
        source["lanes"] = [Lane(*lane) for lane in source["lanes"]]
        charts[name] = chart_of(Source(**source))
    return timelines.Drawing(charts, 420).svg(standalone=True, title="Six widgets ask for three prices")


DRAWINGS: dict[str, Callable[[dict[str, Any]], str]] = {
    "burst": burst,
    "ages": ages,
    "outage": outage,
    "timeline": timeline,
}
