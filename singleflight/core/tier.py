"""What stands behind the entries of one function: values that other processes have, too (`store=`).

A flight is claimed here as always. Between that and running the function, its driver asks the tier, which
finds the value elsewhere, waits for another process, or has the function run, and lands the flight. All of
this happens under no lock. Nothing here is imported, and nothing asked, for a function without `store=`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Protocol

from ..storage.record import Record
from .flight import Flight

__all__ = ["Backend", "Tier"]


class Tier(Protocol):
    """The tier of one decorated function. Every method may be called from any thread and loop."""

    def lead(self, flight: Flight, execute: Callable[[], Any]) -> Any:
        """Land a flight of a thread and return its value; raise what it is to end with.

        `execute` runs the function, if it is to be run here.
        """
        ...

    def lead_in_task(self, flight: Flight, execute: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        """Do the same in the task that runs the flight."""
        ...

    def load(self, batch: Any, execute: Callable[[list[Any]], Any]) -> None:
        """Load and land the flights of a thread's bulk call; `execute` calls the loader with items."""
        ...

    def load_in_task(self, batch: Any, execute: Callable[[list[Any]], Awaitable[Any]]) -> Awaitable[None]:
        """Do the same in the task that runs the loader."""
        ...

    def unseated(self, flight: Flight) -> None:
        """A flight has lost its key: others are not to wait for it."""
        ...

    # Each of these notes a change before it is made here, so that no flight that begins from then on finds
    # what was there before. Once it is made here, or was cut short, what they return is called, to tell the
    # other processes: what is noted and never told would be owed for good.

    def drop(self, key: Hashable) -> Callable[[], object]:
        """A key is about to be invalidated here, and for every process."""
        ...

    def put(self, key: Hashable, record: Record) -> tuple[Record, Callable[[], object]]:
        """A record is about to be put here, and for every process; returned as it is to be kept here.

        Raises what is wrong with its value; nothing has changed then.
        """
        ...

    def drop_all(self) -> Callable[[], object]:
        """All keys are about to be invalidated, or some that only this process can name."""
        ...

    def cut(self, tags: tuple[str, ...]) -> Callable[[], object]:
        """These tags are about to be invalidated."""
        ...

    def leader_of(self, flight: Flight) -> str | None:
        """Return a name for the process that a flight waits for, if it waits for one."""
        ...

    def explain(self, key: Hashable) -> Any:
        """Return what the server would answer now; on the thread of an event loop, an awaitable of that."""
        ...

    def counted(self) -> dict[str, int]:
        """Return the counts that `Stats` has for it."""
        ...

    def reset(self) -> None:
        """Count from zero."""
        ...

    def after_fork(self) -> None:
        """In a forked child: nothing that the parent has under way is its own."""
        ...


class Backend(Protocol):
    """What `store=` accepts: it makes a tier for each function."""

    def tier_for(self, cache: Any, function: Callable[..., Any]) -> Tier:
        """Return the tier of a function, whose cache this is; raises what is wrong with it."""
        ...
