"""What the price board prints: within 80 columns, with colour and bars on a terminal, plain text elsewhere.

Colour and bars are rich's. Where it is not installed, or the output goes to a pipe or a file, the same lines
are plain text.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from command_line import told_as_part
from widgets import KINDS, Run, counted, shared_out, size_of

__all__ = ["COLUMNS", "Screen", "show"]

COLUMNS = 80
WORDINGS = (
    *("Fetching", "Cached new", "Another thread", "Another process", "Waiting for", "Returning cached"),
    "Failed",
)
STYLES = {  # of what stands in a line
    r"^  \d\d:\d\d:\d\d,\d\d\d \w+": "dim",
    r"\$[\d,.]*\d": "cyan",
    r"\bstale\b|\bWARNING\b": "yellow",
    r"\bDOWN\b|\bno price\b|\bHTTP [45]\d\d\b": "bold red",
    r" up ": "green",
}
BARS = {"undecorated": "yellow", "decorated": "green"}  # others: cyan
EIGHTHS = " ▏▎▍▌▋▊▉"


class Screen:
    """Standard output: rich's where it is a terminal, or plain.

    Args:
        is_rich: to say so instead of finding out.
    """

    def __init__(self, is_rich: bool | None = None) -> None:
        self._console: Any = None
        is_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        if is_terminal if is_rich is None else is_rich:
            try:
                from rich.console import Console
            except ImportError:
                return
            self._console = Console(highlight=False, soft_wrap=True)

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line; on a terminal with colours for what is known, or all of it in one style."""
        if self._console is None:
            print(text, flush=True)
            return
        from rich.text import Text

        shown = Text(text, style)
        for pattern, its_style in STYLES.items():
            shown.highlight_regex(pattern, its_style)
        self._console.print(shown)

    def paragraph(self, text: str, indent: str = "", more: str = "", style: str = "") -> None:
        """Print a text in as many lines as it needs; all after the first are indented by `more`, too."""
        broken = textwrap.wrap(
            text,
            COLUMNS,
            initial_indent=indent,
            subsequent_indent=indent + more,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in broken:
            self.line(line, style)

    def bars(self, title: str, numbers: dict[str, float], unit: str = "") -> None:
        """Print a bar for each number; nothing where there are no bars."""
        if self._console is None:
            return
        from rich.text import Text

        names = max(map(len, numbers))
        told = {name: f"{number:.2f}{unit}" if unit else f"{number:g}" for name, number in numbers.items()}
        space = COLUMNS - names - 3 - max(map(len, told.values()))
        most = max(numbers.values()) or 1.0
        self.line(f"{title}", "bold")
        for name, number in numbers.items():
            bar = bar_of(number / most, space, self._console.encoding)
            row = (
                Text(f"{name:{names}}  ").append(bar, BARS.get(name, "cyan")).append(f" {told[name]}", "bold")
            )
            self._console.print(row)
        self.line()


def bar_of(part: float, columns: int, encoding: str = "utf-8") -> str:
    """A bar over this part of so many columns, to an eighth of one where the encoding has such blocks.

    >>> bar_of(0.5, 5), bar_of(0.5, 5, "ascii")
    ('██▌', '##')
    """
    if not encoding.lower().startswith("utf"):
        return "#" * round(part * columns)
    whole, eighths = divmod(round(part * columns * 8), 8)
    return "█" * whole + EIGHTHS[eighths].strip()


def show(
    screen: Screen, runs: Sequence[Run], options: argparse.Namespace, lines: dict[str, list[str]]
) -> None:
    """Print what the runs took, and what was logged."""
    screen.paragraph(heading(options), style="bold")
    screen.line()
    missing = any(run.missing for run in runs)
    heads = ["requests", "wall time", "a widget waits (min/median/max)"] + ["no price"] * missing
    width = max(12, *(len(run.name) for run in runs))
    screen.line(f"{'':{width}}" + "".join(f" {head:>{len(head) + 1}}" for head in heads), "dim")
    for run in runs:
        spread = [min(run.waits), statistics.median(run.waits), max(run.waits)]
        waited = " / ".join(f"{seconds:.2f}" for seconds in spread) + " s"
        cells = [str(run.requests), f"{run.wall:.2f} s", waited] + [str(run.missing)] * missing
        row = "".join(f" {cell:>{len(head) + 1}}" for cell, head in zip(cells, heads, strict=True))
        screen.line(f"{run.name:{width}}{row}")
    screen.line()
    screen.bars("Requests", {run.name: run.requests for run in runs})
    screen.bars("Longest wait of a widget", {run.name: max(run.waits) for run in runs}, " s")
    for kind in KINDS:
        if lines[kind]:
            where = " in one process" if options.processes > 1 else ""
            screen.line(f"From the log of the {kind}s{where}:", "bold")
            for line in picked(lines[kind]):
                screen.paragraph(line, "  ", "    ")


def heading(options: argparse.Namespace) -> str:
    """What was run."""
    where = "Alpaca" if options.live else f"a loopback server with {options.latency:g} s of latency"
    kinds = dict(zip(KINDS, map(len, shared_out(options.widgets, options.mode)), strict=True))
    told = " and ".join(counted(number, kind) for kind, number in kinds.items() if number)
    way = ", each in one call" if options.bulk else ""
    processes = f"{options.processes} processes x " if options.processes > 1 else ""
    told += " in each" if processes else ""
    return f"{processes}{size_of(options.widgets, options.symbols)}, at once, by {told}{way}, against {where}"


def picked(lines: list[str]) -> list[str]:
    """One line of each wording that is there, the earliest first."""
    found = [next((line for line in lines if wording in line), None) for wording in WORDINGS]
    return sorted((line for line in found if line is not None), key=lambda line: line[:12])


if __name__ == "__main__":
    sys.exit(told_as_part(__doc__, "price_board.py"))
