"""The clock of the fleet's server, which is set while it runs: by libfaketime, where that is installed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ServerClock", "Step", "library"]


@dataclass(frozen=True, slots=True)
class Step:
    """The clock was set between the two. `before` and `after` are seconds ahead of the true time."""

    began: float
    ended: float
    before: float
    after: float


def library() -> str | None:
    """Return the file that is to be loaded before all others; None if there is none."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return os.environ.get("SINGLEFLIGHT_FAKETIME") or (str(found[0]) if found else None)


class ServerClock:
    """The clock of a server that is started with `environment`; it goes on when that is started again.

    Args:
        loaded: what `library` returned.
        folder: where the file is kept by which it is set.
    """

    def __init__(self, loaded: str, folder: Path) -> None:
        self._file = folder / "clock"
        self.ahead = 0.0
        self.steps: list[Step] = []
        self.environment = {
            "LD_PRELOAD": loaded,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self._write(0.0)

    def step(self, ahead: float) -> None:
        """Set it to so many seconds ahead of the true time."""
        began = time.monotonic()
        self._write(ahead)
        self.steps.append(Step(began, time.monotonic() + 0.01, self.ahead, ahead))
        self.ahead = ahead

    def _write(self, ahead: float) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead:+.3f}\n")
        new.replace(self._file)  # at once: the server reads it whenever it asks for the time
