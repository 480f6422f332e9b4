"""Draws the pictures of the documentation, all of them from real runs or from the code: `nox -s pictures`.

Without options it draws again what was recorded; `--record` makes new runs first, which takes ten seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tools.pictures import states  # noqa: E402
from tools.pictures.drawings import DRAWINGS  # noqa: E402
from tools.pictures.recordings import RECORDINGS  # noqa: E402

RUNS = Path(__file__).with_name("runs.json")
FOLDER = ROOT / "docs" / "pictures"


def recorded() -> dict[str, Any]:
    """The runs that are stored, by the names of their pictures."""
    runs: dict[str, Any] = json.loads(RUNS.read_text(encoding="utf-8"))
    return runs


def record() -> None:
    """Make the runs, and store them; a line for each caller, read or change."""
    runs = {name: make() for name, make in RECORDINGS.items()}
    RUNS.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def pictures() -> dict[str, str]:
    """All pictures, by the names of their files."""
    runs = recorded()
    drawn = {f"{name}.svg": draw(runs[name]) for name, draw in DRAWINGS.items()}
    return {**drawn, "states.svg": states.picture()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--record", action="store_true", help="make new runs first")
    options = parser.parse_args()
    if options.record:
        record()
    FOLDER.mkdir(exist_ok=True)
    for name, picture in pictures().items():
        (FOLDER / name).write_text(picture, encoding="utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
