"""What the examples' command lines share: `--help`, numbers, and what a part of other examples says."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

__all__ = ["number_in", "parser_for", "place_for", "told_as_part", "within_columns"]


def parser_for(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose `--help` has a module's docstring as it is written."""
    summary, _, rest = within_columns(doc).partition("\n\n")
    return argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def within_columns(doc: str | None) -> str:
    """A docstring within 80 columns; indented paragraphs, such as commands, stay as they are."""
    paragraphs = (doc or "").strip().split("\n\n")
    return "\n\n".join(each if each.startswith(" ") else textwrap.fill(each, 80) for each in paragraphs)


def told_as_part(doc: str | None, *wholes: str) -> int:
    """Answer the command line of a module that others import: what it is, and which commands show it."""
    parser_for(doc).parse_args()
    print(within_columns(doc))
    print("\nIt is a part of other examples. To see it at work:\n")
    for whole in wholes:
        print(f"    python {Path(sys.argv[0]).parent / whole}")
    return 0


def number_in(text: str, least: float, most: float, whole: bool = False) -> float:
    """The number that a flag was given, or an error that says what it expects."""
    span = f"from {least:g} to {most:g}" if most < float("inf") else f"of at least {least:g}"
    try:
        number = float(int(text) if whole else float(text))
    except ValueError:
        number = float("nan")
    if not least <= number <= most or number == float("inf"):
        raise argparse.ArgumentTypeError(f"expected a {'whole ' * whole}number {span}, got {text!r}")
    return number


def place_for(text: str) -> Path:
    """The file that a flag names, if it can be made there: known before the work, not after it."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that is there, got {text!r}")
    return path


if __name__ == "__main__":
    sys.exit(told_as_part(__doc__, "price_board.py", "desk.py"))
