"""The page of the docs: everything on it is either found out by the run or says how the run was made.

What a run has found is stored in `run.json`, so that the page's words and looks can be changed without another run.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from comparing.cases import cells, load
from comparing.marks import sign, wish_of
from comparing.notes import MADE_BY_HAND, notes
from comparing.peers import PEERS, Peer, installed
from comparing.ratios import WORK, Times, measured
from comparing.variants import VARIANTS

OURS = PEERS[0].name
COMMAND = "python tools/benchmarks/run.py --page docs/peers.md"
STORED = Path(__file__).with_name("run.json")
Cells = dict[tuple[str, str], str]
Run = dict[str, Any]  # what a run has found, as it is stored


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell for cell in line) + " |" for line in lines)


def ratio(ours: float, theirs: float) -> str:
    """Under 1 this library is faster; where it is clearly slower, bold."""
    number = ours / theirs
    text = f"{number:.2f}" if number >= 0.095 else f"{number:.3f}"
    return f"**{text}**" if number >= 1.05 else text


def shown_times(times: dict[str, Times]) -> dict[str, dict[str, str]]:
    """What the table of times shows, by column and library."""
    return {
        title: {
            name: absolute(number, WORK[title][2]) if name == OURS else ratio(found[OURS], number)
            for name, number in found.items()
        }
        for title, found in times.items()
    }


def time_table(shown: dict[str, dict[str, str]], peers: list[Peer]) -> str:
    rows = ([peer.name, *(found.get(peer.name, "") for found in shown.values())] for peer in peers)
    return table(["", *shown], rows)


def absolute(number: float, unit: str) -> str:
    if unit.startswith("ns") and number >= 1000:
        return f"{number / 1000:.1f} µs{unit[2:]}"
    return f"{number:.0f} {unit}"


def unanswered(found: Cells) -> list[str]:
    """Cases that another library did not answer: they belong to those that this library plays alone."""
    counts = Counter(case for (peer, case), cell in found.items() if re.search(r"\b(hangs?|crashes)\b", cell))
    return [f"{case} has {count} cells without an answer: make it `alone`" for case, count in counts.items()]


def in_words(_case: str, cell: str) -> str:
    return cell


def behaviour_table(
    found: Cells,
    peers: list[Peer],
    colour: str,
    alone: bool = False,
    glance: bool = False,
) -> str:
    """One colour's cases: those of all libraries, or those of this one alone; in words, or at a glance in marks."""
    show = sign if glance else in_words
    columns = [peer for peer in peers if colour in peer.colours and (not alone or peer.name == OURS)]

    def rows():
        group = ""
        for case in load().values():
            if case.colour != colour or case.alone != alone:
                continue
            if case.group != group:
                group = case.group
                yield [f"**{group}**", *("" for _ in columns)]
            yield [
                wish_of(case.name) if glance else case.title,
                *(show(case.name, found[peer.name, case.name]) for peer in columns),
            ]

    return table(["", *(peer.name for peer in columns)], rows())


def variants_table(found: Cells, peers: list[Peer]) -> str:
    """Only what differs from the same library's column."""

    def rows():
        for variant in VARIANTS:
            main = next((peer for peer in peers if peer.distribution == variant.distribution), None)
            if main is None:
                continue
            name = variant.name
            for case in load().values():
                cell = found.get((variant.name, case.name))
                usual = found.get((main.name, case.name))
                if cell is not None and cell != usual:
                    yield [name, f"{case.colour}: {case.title}", usual, cell]
                    name = ""
            if name:
                yield [name, "all", "", "the same"]

    return table(["set-up", "case", "as above", "so"], rows())


def setups_table(peers: list[Peer], versions: dict[str, str]) -> str:
    rows = (
        [peer.name, versions[peer.name], ". ".join(filter(None, [peer.setup, peer.note]))] for peer in peers
    )
    return table(["library", "version", "set up as"], rows)


def machine() -> str:
    return (
        f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} "
        f"({platform.machine()}), {os.cpu_count()} cores"
    )


def slower(times: dict[str, Times]) -> list[str]:
    """What others do clearly faster, or in less memory."""
    lines = []
    for title, found in times.items():
        better = {
            name: found[OURS] / number for name, number in found.items() if found[OURS] / number >= 1.05
        }
        if better:
            names = ", ".join(
                f"{name} ({by:.1f} times)" for name, by in sorted(better.items(), key=lambda it: -it[1])
            )
            lines.append(f"- {title}: {names}")
    return lines


def left_out() -> list[str]:
    return [f"{peer.name} is not installed: left out" for peer in PEERS if not peer.version]


def print_times(quick: bool) -> None:
    peers = installed(PEERS)
    shown = shown_times(measured(peers, quick))
    print("\nWith every library; the ratio is ours to theirs\n\n" + time_table(shown, peers))


def print_behaviour() -> None:
    peers = installed(PEERS)
    found = cells(peers)
    for colour in ("threads", "tasks"):
        print(f"\n{colour.capitalize()} ask\n\n{behaviour_table(found, peers, colour)}")
        print(f"\n{colour.capitalize()} ask, this library alone\n")
        print(behaviour_table(found, peers, colour, alone=True))


def load_average() -> float | None:
    """How many processes wanted to run in the last minute, where the system tells."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def found_by(times: dict[str, Times], found: Cells, peers: list[Peer], before: float | None) -> Run:
    """A run, as it is stored: with what other libraries are compared in."""
    cases = load()
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "load": before,
        "versions": {peer.name: peer.version for peer in peers},
        "left_out": left_out(),
        "times": shown_times(times),
        "faster": slower(times),
        "cells": [[name, case, cell] for (name, case), cell in found.items() if not cases[case].alone],
    }


def text(run: Run) -> str:
    """The page of a run."""
    found: Cells = {(name, case): cell for name, case, cell in run["cells"]}
    played = {name for name, _ in found}
    peers = [peer for peer in PEERS if peer.name in run["versions"]]
    variants = [variant for variant in VARIANTS if variant.name in played]
    load_then = run["load"]
    parts = {
        "MACHINE": run["machine"],
        "LOAD": "The load of the machine was not noted."
        if load_then is None
        else f"The load average was {load_then:.1f} when it began.",
        "COMMAND": COMMAND,
        "DATE": run["date"],
        "SETUPS": setups_table(peers, run["versions"]),
        "OTHERS": "\n".join(f"- *{peer.name}*: {peer.setup}" for peer in variants),
        "TIMES": time_table(run["times"], peers),
        "THREADS_MARKS": behaviour_table(found, peers, "threads", glance=True),
        "TASKS_MARKS": behaviour_table(found, peers, "tasks", glance=True),
        "THREADS": behaviour_table(found, peers, "threads"),
        "TASKS": behaviour_table(found, peers, "tasks"),
        "VARIANTS": variants_table(found, peers) if variants else "A quick run leaves them out.",
        "BETTER": "\n".join([*run["faster"], *notes(found, peers)]) or "Nothing in this run.",
        "LEFT_OUT": "\n\n".join(run["left_out"]),
    }
    page = MADE_BY_HAND
    for name, part in parts.items():
        page = page.replace(f"<{name}>", part)
    return re.sub(r"\n{3,}", "\n\n", page).rstrip() + "\n"


def store(run: Run, path: Path = STORED) -> None:
    """A line for each cell, so that a comparison of two runs shows what has changed."""
    lines = ",\n".join(f"    {json.dumps(cell, ensure_ascii=False)}" for cell in run["cells"])
    rest = json.dumps({**run, "cells": []}, ensure_ascii=False, indent=2)
    path.write_text(rest.replace('"cells": []', f'"cells": [\n{lines}\n  ]') + "\n", encoding="utf-8")


def stored(path: Path = STORED) -> Run:
    run: Run = json.loads(path.read_text(encoding="utf-8"))
    return run


def write_stored(path: str) -> None:
    """Write the page of the run that is stored, without another run."""
    Path(path).write_text(text(stored()), encoding="utf-8")


def write(path: str, quick: bool) -> None:
    """Measure, ask, and write the page. The times come first, while nothing else runs."""
    peers = installed(PEERS)
    variants = [] if quick else installed(VARIANTS)
    for line in left_out():
        print(line)
    before = load_average()
    print("measuring", file=sys.stderr, flush=True)
    times = measured(peers, quick)
    print("asking", file=sys.stderr, flush=True)
    found = cells(peers + variants)
    if problems := unanswered(found):
        raise SystemExit("\n".join(["nothing is written", *problems]))
    run = found_by(times, found, peers, before)
    page = text(run)
    store(run)
    Path(path).write_text(page, encoding="utf-8")
    print(page)
