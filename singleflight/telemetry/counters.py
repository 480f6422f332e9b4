"""Exact counts of the calls that were received and of the function's executions.

Everything but hits is counted under the mutex. A hit takes no lock. Where the interpreter has its global
lock, an addition to an attribute cannot be torn (no other thread gets to run between its load and its
store): a hit is counted in its record alone, and the store adds up its records (`Record` says why none is
lost). On free-threaded builds every thread counts for itself as well, and the sum is taken when asked.
`new_counts` chooses, once for each function.
"""

from __future__ import annotations

import sys
import threading
import weakref
from typing import TYPE_CHECKING

from ..locks.mutex import new_lock

if TYPE_CHECKING:
    from ..storage.record import Record
    from ..storage.store import Store

__all__ = ["Counts", "ThreadedHits", "has_global_lock", "new_counts"]


class Counts:
    """The counters of one function. `hits` counts the hits that no stored record counts."""

    __slots__ = (
        "calls",
        "errors",
        "failures",
        "fetches",
        "hits",
        "refreshes",
        "resets",
        "stale_hits",
        "timeouts",
        "uncached",
        "waits",
    )
    calls: int
    errors: int
    failures: int
    fetches: int
    hits: int
    refreshes: int
    stale_hits: int
    timeouts: int
    uncached: int
    waits: int

    def __init__(self) -> None:
        self.resets: int = -1  # how often they were zeroed
        self.reset()

    def reset(self) -> None:
        """Set all counts to zero."""
        self.resets += 1
        self.hits = self.stale_hits = self.waits = self.fetches = self.errors = self.timeouts = 0
        self.calls = self.failures = self.uncached = self.refreshes = 0

    def after_fork(self) -> None:
        """Set all counts to zero in a forked child."""
        self.reset()

    def served(self, record: Record) -> None:
        """Count one hit the longer way: no call may stand between the look and the addition."""
        if record.place is None:  # it has left the store, and its hits have been added up
            self.hits += 1
        else:
            record.hits += 1.0

    def all_hits(self, store: Store) -> int:
        """Return the number of hits."""
        return self.hits + store.hits()


class ThreadedHits(Counts):
    """Counters for builds without a global lock: each thread adds to its own cell.

    `hits` has the hits of threads that have ended. The counts of records are approximate here.
    """

    __slots__ = ("_cells", "_local", "_lock")
    hits: int

    def __init__(self) -> None:
        self._lock = new_lock()  # re-entrant: a finaliser may count its first hit in here
        self._local = threading.local()
        self._cells: list[tuple[weakref.ref[threading.Thread], list[int]]] = []
        super().__init__()

    def reset(self) -> None:
        """Set all counts to zero. Threads get new cells; additions in progress are lost with the old ones."""
        super().reset()
        with self._lock:
            self._cells.clear()
            self._local = threading.local()

    def after_fork(self) -> None:
        """Set all counts to zero in a forked child, where no other thread can hold the lock."""
        self._lock = new_lock()
        self.reset()

    def served(self, record: Record) -> None:
        """Count one hit the longer way."""
        record.hits += 1.0
        self.hit()

    def hit(self) -> None:
        """Count one hit of this thread; the compiled call does this too."""
        try:
            cell = self._local.cell
        except AttributeError:
            cell = self._new_cell()
        cell[0] += 1

    def all_hits(self, store: Store) -> int:  # noqa: ARG002
        """Return the sum over all threads, also those that have ended."""
        with self._lock:
            return self.hits + sum(cell[0] for _, cell in self._cells)

    def _new_cell(self) -> list[int]:
        cell = [0]
        with self._lock:
            for thread, ended in [pair for pair in self._cells if pair[0]() is None]:
                if (thread, ended) in self._cells:
                    self._cells.remove((thread, ended))
                    self.hits += ended[0]
            self._cells.append((weakref.ref(threading.current_thread()), cell))
            self._local.cell = cell
        return cell


_FREE_THREADED = "free-threading build" in sys.version  # as `sysconfig` says, which takes long to import


def has_global_lock() -> bool:
    """Return True if this interpreter was built to run one thread at a time.

    This depends on the build, not on the current state: a free-threaded build may enable the lock for a
    while, for example when a module without support for it is imported, and compiled calls must work in both
    states.
    """
    return not _FREE_THREADED


def new_counts() -> Counts:
    """Return the counters for one function that this interpreter needs."""
    return Counts() if has_global_lock() else ThreadedHits()
