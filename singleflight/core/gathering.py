"""Which calls of a function are gathered, by which loader, and which windows are open."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol

from ..common.keys import typed_throughout
from ..locks.mutex import mutex
from ..locks.unsettled import After
from .cache import Cache
from .call import NONE, Call
from .flight import Flight
from .leaving import end_wait
from .window import Load, Window

__all__ = ["Arguments", "Gathering", "Loader", "group_of"]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Loader(Protocol):
    """A loader that gathers single calls; `decorator.loading` has it."""

    coroutine: bool
    """Whether it is a coroutine function, which a task runs, or a plain one, which a thread runs."""

    def part(self, arguments: Arguments, /) -> tuple[Hashable, Any] | None:
        """Return what all calls of one window have in common, and a call's item; None if it has none."""
        ...

    def load(self, arguments: Arguments, /) -> Load:
        """Return how it is called for those."""
        ...


class Gathering:
    """The loaders of one function that gather, one of each colour at most, and its open windows.

    A window is opened by a call that has a loader of its own colour, which runs it; others may join whatever
    their colour. `open` and `run_by` are guarded by the mutex.
    """

    __slots__ = ("_cache", "_loaders", "driver", "open", "run_by")

    def __init__(self, cache: Cache, driver: Callable[[bool], Any]) -> None:
        self._cache = cache
        self.driver: Callable[[bool], Any] = driver  # the module that drives gathered calls, by their colour
        self._loaders: dict[bool, Loader] = {}  # by whether they are coroutine functions
        self.open: dict[Hashable, Window] = {}
        self.run_by: dict[Call, Window] = {}  # those that have not ended, by who opened them

    def has(self, coroutine: bool) -> bool:
        """Return True if there is a loader of this colour."""
        return coroutine in self._loaders

    def gather(self, loader: Loader) -> None:
        """Gather calls for this loader, too."""
        self._loaders[loader.coroutine] = loader

    def part(self, arguments: Arguments) -> tuple[Hashable, Any] | None:
        """See `Loader.part`; all of them answer alike."""
        return next(iter(self._loaders.values())).part(arguments)

    def enter(
        self, call: Call, part: tuple[Hashable, Any], load: Load | Arguments, coroutine: bool, alone: bool
    ) -> Window | None:
        """A call that leads joins a window, or opens one, which it is the `opener` of then.

        None: there is none for it to join, and no loader that it could run; it leads as before.

        Args:
            part: see `Loader.part`.
            load: how the loader is called, or the arguments that say it.
            coroutine: its colour.
            alone: it is not to wait for others, nor they for it.
        """
        group, item = part
        loader = self._loaders.get(coroutine)
        after, gone = After(), []
        window: Window | None = None
        try:
            with mutex:
                found = None if alone else self._find(group, call)
                if found is not None and found.leader is not None and found.may_wait(call):
                    window = found
                    window.take_in(call, item)
                elif loader is not None:
                    how = load if isinstance(load, Load) else loader.load(load)
                    if found is None or found.leader is not None:
                        alone = alone or found is not None  # waiting for that one would never end
                        window = Window(self._cache, self, group, how, alone)
                        window.claim(call)
                        self._open(window)
                    else:
                        window = found
                        window.call_with(how)
                        gone = window.claim(call)
                    window.add(call, item)
                if window is not None and window.is_full():
                    after.append(window.full.open)
        finally:
            after.run()
        if window is not None:
            window.drop(gone)
        return window

    def enter_renewal(
        self, renewal: Call, part: tuple[Hashable, Any], arguments: Arguments, coroutine: bool
    ) -> tuple[Window | None, bool]:
        """The same for a renewal, which nobody waits for; and whether it opened the window.

        The driver has somebody run that then. For plain functions it is unclaimed until a thread is free.
        """
        group, item = part
        loader = self._loaders.get(coroutine)
        after, opened = After(), False
        try:
            with mutex:
                window = self._find(group, renewal)
                if window is None and loader is not None:
                    window = Window(self._cache, self, group, loader.load(arguments), False)
                    if coroutine:
                        window.claim(renewal)
                    self._open(window)
                    opened = True
                if window is not None:
                    window.add(renewal, item)
                    if window.is_full():
                        after.append(window.full.open)
        finally:
            after.run()
        return window, opened

    def begin(self, window: Window, call: Call) -> bool:
        """This call runs an unclaimed window from now on; False if another one does."""
        gone: list[Flight] = []
        with mutex:
            unclaimed = window.opener is None and bool(window.flights)
            if unclaimed:
                gone = window.claim(call)
        window.drop(gone)
        return unclaimed

    def leave(self, call: Call, window: Window | None, error: BaseException) -> None:
        """A call ends with an exception, wherever it is. May be repeated."""
        window = window or self.run_by.get(call)  # an interrupt may have struck before its driver knew
        if window is not None and window.opener is call and window.work is None:
            window.give_up(error)
        elif window is not None and call.decision is NONE:
            window.part_with(call, error)
        end_wait(call)

    def settle(self, call: Call, window: Window | None, error: BaseException, after: After) -> None:
        """The same where there was no room for it. Call under the mutex; may be repeated."""
        window = window or self.run_by.get(call)
        if window is not None and window.opener is call and window.work is None:
            window.settle(error, after)
        elif window is not None and call.decision is NONE:
            window.settle_member(call, after)
        end_wait(call)

    def claimed(self, window: Window, call: Call, /) -> None:
        """This call's driver runs it from now on. Called under the mutex."""
        self.run_by[call] = window

    def ended(self, window: Window, /) -> None:
        """It has ended. Called under the mutex; may be repeated."""
        self.forget(window)
        if window.opener is not None:
            self.run_by.pop(window.opener, None)

    def forget(self, window: Window, /) -> None:
        """Nobody is to join it any more. Called under the mutex; may be repeated."""
        try:
            if self.open.get(window.group) is window:
                del self.open[window.group]
        except Exception:  # the arguments' own: their `__eq__` or `__hash__`
            self.open = {}

    def after_fork(self) -> None:
        """In a forked child: who runs these is elsewhere, or returns here."""
        self.open, self.run_by = {}, {}

    def _find(self, group: Hashable, call: Call) -> Window | None:
        """The open window for this group. One that the call cannot join is open no more."""
        try:
            window = self.open.get(group)
        except Exception:  # see `forget`
            return None
        if window is None or window.is_fit(call.key) or (window.leader is None and window.has(call.flight)):
            return window
        window.shut()
        return None

    def _open(self, window: Window) -> None:
        if window.is_open:
            self.open[window.group] = window


def group_of(parts: tuple[Any, ...]) -> Hashable:
    """Return what stands for the arguments that calls of one window have in common.

    Those are equal and of the same types, in tuples too; what cannot be hashed is itself alone.
    """
    try:
        hash(parts)
        return typed_throughout(parts)
    except Exception:  # the arguments' own
        return tuple(map(id, parts))
