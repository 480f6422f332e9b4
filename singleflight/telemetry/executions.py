"""Executions of a function, and the context managers of observers that are entered around each of them.

A listener may have an attribute `executing`, a callable that takes an `Execution` and returns a context
manager. That is entered right before the user's function is called, in the very thread or task and context in
which it runs, and exited right after. So a tracer's span can be current meanwhile, which no event could do.
Where its attribute `gathered` is called, a caller has been served by an execution that another one began.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from types import TracebackType
from typing import Any, Protocol

from ..common.keys import plain
from ..common.messages import shown

__all__ = ["Around", "Execution", "Running"]

Around = tuple[object, Callable[[Any], Any]]
"""A listener, and its `executing`."""


class Executed(Protocol):
    """The fields of a flight that are told of its execution."""

    key: Hashable
    kind: str
    background: bool


class Execution:
    """One execution of a function, or of its bulk loader: what an observer's `executing` receives.

    `name` is the function's name, `keys` what it runs for (one key, except in a bulk loader). `kind` is
    "call", "refresh" or "bulk". `background` is True if it renews a value that no caller waits for. `timer`
    is the function's own clock. The `wait` and `share` events of its followers have the same object as their
    `execution`. It can be weakly referenced, and is equal to itself alone. In `notes` each observer may keep
    what it knows of it, by itself as the key.
    """

    __slots__ = ("__weakref__", "background", "keys", "kind", "name", "notes", "timer")

    def __init__(
        self, name: str, keys: tuple[Hashable, ...], kind: str, background: bool, timer: Callable[[], float]
    ) -> None:
        self.name: str = name
        self.keys: tuple[Hashable, ...] = keys
        self.kind: str = kind
        self.background: bool = background
        self.timer: Callable[[], float] = timer
        self.notes: dict[Any, Any] = {}

    @classmethod
    def of(cls, flights: Sequence[Any], name: str, timer: Callable[[], float]) -> Execution:
        """Return the execution of these flights, which know it from now on."""
        first: Executed = flights[0]
        execution = cls(
            name, tuple(plain(flight.key) for flight in flights), first.kind, first.background, timer
        )
        for flight in flights:
            flight.execution = execution
        return execution

    def __repr__(self) -> str:
        return f"Execution(name={self.name!r}, keys={shown(self.keys)}, kind={self.kind!r})"


class Running:
    """Enters the context managers of all observers, and exits them; the outcome is not theirs to change.

    An Exception that one of them raises is dropped, and its listener passed to `blame`, which raises none.
    Anything else (an interrupt) passes on once the others were exited. `telling.active` is True while any of
    them runs.
    """

    __slots__ = ("_around", "_blame", "_entered", "_execution", "_left", "_telling")

    def __init__(
        self, execution: Execution, around: tuple[Around, ...], blame: Callable[[object], None], telling: Any
    ) -> None:
        self._execution, self._around = execution, around
        self._blame, self._telling = blame, telling
        self._entered: tuple[tuple[object, Callable[..., Any], Any], ...] = ()
        self._left = 0  # how many of these are still to be exited

    def __enter__(self) -> None:
        try:
            self._telling.active = True
            for listener, executing in self._around:
                self._enter(listener, executing)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        finally:
            self._telling.active = False

    def _enter(self, listener: object, executing: Callable[[Any], Any]) -> None:
        before = self._entered
        place = len(before)
        try:
            manager = executing(self._execution)
            enter, leave = type(manager).__enter__, type(manager).__exit__
            # No call until it is entered: an interrupt that strikes in this frame finds it noted.
            self._entered = (*before, (listener, leave, manager))
            self._left = place + 1
            enter(manager)
        except Exception:
            self._left, self._entered = place, before
            self._blame(listener)
        except BaseException as struck:
            if struck.__traceback__ is None or struck.__traceback__.tb_next is not None:  # within `enter`
                self._left, self._entered = place, before
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._telling.active = True
            try:
                self._leave(kind, error, traceback)
            except BaseException:  # an interrupt: for those that are left
                self._leave(kind, error, traceback)
                raise
        finally:
            self._telling.active = False
            del error, traceback  # or this frame and an exception would keep each other

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            while self._left:
                # No call until `leave`: an interrupt finds it exited, or not begun.
                place = self._left = self._left - 1
                listener, leave, manager = self._entered[place]
                try:
                    leave(manager, kind, error, traceback)
                except Exception:
                    self._blame(listener)
        finally:
            del error, traceback
