"""What recording costs, in processor time: `python tools/benchmarks/timeline.py`. All is one interleaved run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from singleflight import single_flight_ttl, timeline  # noqa: E402

ROUNDS, CALLS = 15, 1000


def seconds_each(run: Callable[[], Any]) -> float:
    """Return the seconds that one call takes, over some thousand calls."""
    began = time.thread_time()
    for _ in range(CALLS):
        run()
    return (time.thread_time() - began) / CALLS


def hits_and_misses() -> dict[str, tuple[float, float, float]]:
    """Return, for hits and misses, seconds without recording, while hits are left out, and with all of it."""
    hit = single_flight_ttl(ttl=60)(lambda symbol: 1)
    miss = single_flight_ttl(ttl=0)(lambda symbol: 1)
    taken: dict[str, list[tuple[float, ...]]] = {"a hit": [], "a miss": []}
    for _ in range(ROUNDS):
        for name, function in (("a hit", hit), ("a miss", miss)):
            function("ASML")
            times = [seconds_each(lambda: function("ASML"))]
            for hits in (False, True):
                with timeline.record(function, most=10 * CALLS, hits=hits):
                    function("ASML")
                    times.append(seconds_each(lambda: function("ASML")))
            taken[name].append(tuple(times))
    return {
        name: tuple(median(times) for times in zip(*rounds, strict=True))  # type: ignore[misc]
        for name, rounds in taken.items()
    }


def main() -> None:
    """Print the table."""
    print("microseconds           not recorded   hits=False   recorded")
    for name, times in hits_and_misses().items():
        plain, without, full = (1e6 * each for each in times)
        print(f"{name:22} {plain:12.2f} {without:12.2f} {full:10.2f}")


if __name__ == "__main__":
    main()
