"""Exact counting: what callers received and what was run.

Everything but hits is counted under the mutex. A hit takes no lock. Where the interpreter has its global
lock, an addition to an attribute cannot be torn (no other thread gets to run between its load and its
store): a hit is counted in its record alone, and the store adds up its records (`Record` says why none is
lost). On free-threaded builds every thread counts for itself as well, and the sum is taken when asked.
`new_counts` chooses, once for each function.
"""

from __future__ import annotations

import sysconfig
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..locks.mutex import new_lock

if TYPE_CHECKING:
    from ..storage.entry import Record
    from ..storage.store import Store

__all__ = ["Counts", "Stats", "ThreadedHits", "has_global_lock", "new_counts"]


@dataclass(frozen=True, slots=True)
class Stats:
    """What one decorated function has seen and done; exact once its callers are quiet.

    `hits`, `stale_hits`, `waits`, `fetches`, `errors` and `timeouts` sum to the calls received. `timeouts`
    are callers that received a `FlightTimeout`, `errors` those with any other exception, cancellation
    included. `calls` counts executions (refreshes included), `failures` those that raised an Exception, and
    `uncached` those that returned a value which was not stored. `evictions` and `expirations` count dropped
    entries. `in_flight`, `entries`, `locks` and `idle_locks` are of this moment.
    """

    hits: int
    stale_hits: int
    waits: int
    fetches: int
    errors: int
    timeouts: int
    calls: int
    failures: int
    uncached: int
    evictions: int
    expirations: int
    refreshes: int
    in_flight: int
    entries: int
    locks: int
    idle_locks: int

    @property
    def misses(self) -> int:
        """Callers that no stored value could serve: waits and fetches."""
        return self.waits + self.fetches

    @property
    def hit_rate(self) -> float:
        """The part of all calls received that was served by a stored value; 0.0 before the first."""
        received = self.hits + self.stale_hits + self.misses + self.errors + self.timeouts
        return (self.hits + self.stale_hits) / received if received else 0.0


class Counts:
    """The counters of one function; `hits` has those that no stored record has."""

    __slots__ = (
        "calls",
        "errors",
        "failures",
        "fetches",
        "hits",
        "refreshes",
        "stale_hits",
        "timeouts",
        "uncached",
        "waits",
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Back to zero."""
        self.hits = self.stale_hits = self.waits = self.fetches = self.errors = self.timeouts = 0
        self.calls = self.failures = self.uncached = self.refreshes = 0

    def after_fork(self) -> None:
        """A forked child counts for itself."""
        self.reset()

    def served(self, record: Record) -> None:
        """Count one hit the longer way: no call may stand between the look and the addition."""
        if record.place is None:  # it has left the store, and its hits have been added up
            self.hits += 1
        else:
            record.hits += 1.0

    def all_hits(self, store: Store) -> int:
        """How many hits there were."""
        return self.hits + store.hits()


class ThreadedHits(Counts):
    """The same for builds without a global lock: each thread adds to a cell of its own.

    `hits` has those of threads that have ended. What records count is approximate here.
    """

    __slots__ = ("_cells", "_local", "_lock")

    def __init__(self) -> None:
        self._lock = new_lock()  # re-entrant: a finaliser may count its first hit in here
        self._local = threading.local()
        self._cells: list[tuple[weakref.ref[threading.Thread], list[int]]] = []
        super().__init__()

    def reset(self) -> None:
        """Back to zero; threads get new cells, so that an addition under way is lost with the old one."""
        super().reset()
        with self._lock:
            self._cells.clear()
            self._local = threading.local()

    def after_fork(self) -> None:
        """A forked child counts for itself; no other thread holds the lock there."""
        self._lock = new_lock()
        self.reset()

    def served(self, record: Record) -> None:
        """Count one hit the longer way."""
        record.hits += 1.0
        self.hit()

    def hit(self) -> None:
        """Count one hit of this thread; the compiled call does so too."""
        try:
            cell = self._local.cell
        except AttributeError:
            cell = self._new_cell()
        cell[0] += 1

    def all_hits(self, store: Store) -> int:  # noqa: ARG002
        """The sum over all threads, those that have ended included."""
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


_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def has_global_lock() -> bool:
    """Whether this interpreter was built to run one thread at a time.

    Asked of the build, not of the moment: a free-threaded one may have the lock for a while, as when some
    module without support for it is imported, and what was compiled with one answer is used with the other.
    """
    return not _FREE_THREADED


def new_counts() -> Counts:
    """The counters for one function, as this interpreter needs them."""
    return Counts() if has_global_lock() else ThreadedHits()
