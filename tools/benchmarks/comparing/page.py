"""The page of the docs: everything on it is either found out by the run or says how the run was made."""

from __future__ import annotations

import datetime
import os
import platform
import re
import sys
from collections import Counter
from collections.abc import Iterable

from comparing.cases import cells, load
from comparing.notes import MADE_BY_HAND, notes
from comparing.peers import PEERS, Peer, installed
from comparing.ratios import WORK, Times, measured
from comparing.variants import VARIANTS

OURS = PEERS[0].name
COMMAND = "python tools/benchmarks/run.py --page docs/peers.md"
Cells = dict[tuple[str, str], str]


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell for cell in line) + " |" for line in lines)


def ratio(ours: float, theirs: float) -> str:
    """Under 1 this library is faster; where it is clearly slower, bold."""
    number = ours / theirs
    text = f"{number:.2f}" if number >= 0.095 else f"{number:.3f}"
    return f"**{text}**" if number >= 1.05 else text


def time_table(times: dict[str, Times], peers: list[Peer]) -> str:
    def row(peer):
        for title, found in times.items():
            if peer.name not in found:
                yield ""
            elif peer.name == OURS:
                yield absolute(found[OURS], WORK[title][2])
            else:
                yield ratio(found[OURS], found[peer.name])

    return table(["", *times], ([peer.name, *row(peer)] for peer in peers))


def absolute(number: float, unit: str) -> str:
    if unit.startswith("ns") and number >= 1000:
        return f"{number / 1000:.1f} µs{unit[2:]}"
    return f"{number:.0f} {unit}"


def unanswered(found: Cells) -> list[str]:
    """Cases that another library did not answer: they belong to those that this library plays alone."""
    counts = Counter(case for (peer, case), cell in found.items() if re.search(r"\b(hangs?|crashes)\b", cell))
    return [f"{case} has {count} cells without an answer: make it `alone`" for case, count in counts.items()]


def behaviour_table(found: Cells, peers: list[Peer], colour: str, alone: bool = False) -> str:
    """One colour's cases: those of all libraries, or those of this one alone."""
    columns = [peer for peer in peers if colour in peer.colours and (not alone or peer.name == OURS)]

    def rows():
        group = ""
        for case in load().values():
            if case.colour != colour or case.alone != alone:
                continue
            if case.group != group:
                group = case.group
                yield [f"**{group}**", *("" for _ in columns)]
            yield [case.title, *(found[peer.name, case.name] for peer in columns)]

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


def setups_table(peers: list[Peer]) -> str:
    rows = (
        [peer.name, peer.version or "", ". ".join(filter(None, [peer.setup, peer.note]))] for peer in peers
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
    print("\nWith every library; the ratio is ours to theirs\n\n" + time_table(measured(peers, quick), peers))


def print_behaviour() -> None:
    peers = installed(PEERS)
    found = cells(peers)
    for colour in ("threads", "tasks"):
        print(f"\n{colour.capitalize()} ask\n\n{behaviour_table(found, peers, colour)}")
        print(f"\n{colour.capitalize()} ask, this library alone\n")
        print(behaviour_table(found, peers, colour, alone=True))


def text(times: dict[str, Times], found: Cells, peers: list[Peer], variants: list[Peer]) -> str:
    better = [*slower(times), *notes(found, peers)]
    parts = {
        "MACHINE": machine(),
        "COMMAND": COMMAND,
        "DATE": datetime.date.today().isoformat(),
        "SETUPS": setups_table(peers),
        "OTHERS": "\n".join(f"- *{peer.name}*: {peer.setup}" for peer in variants),
        "TIMES": time_table(times, peers),
        "THREADS": behaviour_table(found, peers, "threads"),
        "TASKS": behaviour_table(found, peers, "tasks"),
        "VARIANTS": variants_table(found, peers) if variants else "A quick run leaves them out.",
        "BETTER": "\n".join(better) or "Nothing in this run.",
        "LEFT_OUT": "\n\n".join(left_out()),
    }
    page = MADE_BY_HAND
    for name, part in parts.items():
        page = page.replace(f"<{name}>", part)
    return re.sub(r"\n{3,}", "\n\n", page).rstrip() + "\n"


def write(path: str, quick: bool) -> None:
    """Measure, ask, and write the page. The times come first, while nothing else runs."""
    peers = installed(PEERS)
    variants = [] if quick else installed(VARIANTS)
    for line in left_out():
        print(line)
    print("measuring", file=sys.stderr, flush=True)
    times = measured(peers, quick)
    print("asking", file=sys.stderr, flush=True)
    found = cells(peers + variants)
    if problems := unanswered(found):
        raise SystemExit("\n".join(["nothing is written", *problems]))
    page = text(times, found, peers, variants)
    with open(path, "w", encoding="utf-8") as file:
        file.write(page)
    print(page)
