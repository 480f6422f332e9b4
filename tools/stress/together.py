"""The stress cases, and how they have threads do something at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import singleflight

__all__ = ["CASES", "case", "received", "together"]

CASES: dict[str, Callable[[float], object]] = {}

PATIENCE = 60.0


def case(run: Callable[[float], object]) -> Callable[[float], object]:
    """One of them; it takes the seconds that it may go on for."""
    CASES[run.__name__] = run
    return run


def together(seconds: float, *runs: Callable[[int], object]) -> list[int]:
    """Call each of these in a thread of its own, with 0, 1, 2, ..., for so long; how often each was.

    All begin at once. The first exception of any of them ends all and is raised here.
    """
    start = threading.Barrier(len(runs))
    stop = threading.Event()
    struck: list[BaseException] = []
    rounds = [0] * len(runs)

    def repeat(place: int, run: Callable[[int], object]) -> None:
        number = 0
        try:
            start.wait(PATIENCE)
            while not stop.is_set():
                run(number)
                number += 1
        except BaseException as error:
            struck.append(error)
            stop.set()
        rounds[place] = number

    threads = [
        threading.Thread(target=repeat, args=(place, run), daemon=True) for place, run in enumerate(runs)
    ]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    give_up = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))
        assert not thread.is_alive(), f"a thread hangs:\n{singleflight.report()}"
    if struck:
        raise struck[0]
    return rounds


def received(stats: singleflight.Stats) -> int:
    """The calls that were counted, in whatever way."""
    return stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts
