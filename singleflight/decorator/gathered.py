"""A loader that single calls are gathered for: how such a call becomes a part of a call of the loader."""

from __future__ import annotations

import math
from collections.abc import Hashable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from ..common.durations import seconds
from ..core.bulk_call import Request
from ..core.gathering import Arguments, Gathering, group_of
from ..core.window import Load
from .loading import Loading
from .parameters import names_by_place, places_by_name

if TYPE_CHECKING:
    from .assembly import Assembly

__all__ = ["Gathered", "check_gather"]


def check_gather(gather: Any, max_batch: int | None) -> float:
    """Return for how many seconds calls are gathered; `TypeError` or `ValueError` if that makes no sense."""
    window = seconds(gather, "gather")
    if window == 0:
        raise ValueError("gather: must be more than 0 seconds; leave it out to gather nothing")
    if math.isinf(window):
        raise ValueError("gather: must be finite: the first call waits for so long")
    if max_batch == 1:
        raise ValueError("gather: with max_batch=1 there is nothing to gather; raise it, or leave one out")
    return window


class Gathered(Loading):
    """The same as `Loading`, for a loader that gathers single calls of the function."""

    gather: float | None

    def __init__(self, wrapped: Any, assembly: Assembly, max_batch: int | None, gather: float) -> None:
        super().__init__(wrapped, assembly, max_batch)
        self.gather, self._open_for = gather, gather
        self._wrapped = wrapped
        cache, name = assembly.cache, assembly.called
        colour, other = ("coroutine", "plain") if self.coroutine else ("plain", "coroutine")
        if not any(each.coroutine is self.coroutine for each in assembly.twins.assemblies):
            raise TypeError(
                f"gather: {self.called} is a {colour} function and {name} a {other} one, so no call of "
                f"{name} can run it; give {name} a {colour} twin first, or make {self.called} {other}"
            )
        gathering = cache.gathering or Gathering(cache, _driver)
        if gathering.has(self.coroutine):
            raise ValueError(f"gather: another {colour} loader of {name} gathers its calls already")
        gathering.gather(self)
        cache.gathering = gathering
        cache.choose_way()

    def part(self, arguments: Arguments) -> tuple[Hashable, Any] | None:
        """Return what all calls of one window have in common, and a call's item; None if it has none."""
        places = self._places_asked()
        place, args, words = self._placed(arguments, places)
        if len(args) <= place:
            return None
        own_words = self._renamed(args, words, places, self._names)
        return self._part(args[:place], args[place + 1 :], own_words, args[place])

    def load(self, arguments: Arguments) -> Load:
        """Return how the loader is called for those that have the same in common with this call."""
        places = self._places_asked()
        place, args, words = self._placed(arguments, places)
        before, after = args[:place], args[place + 1 :]
        own_words = self._renamed(args, words, places, self._names)
        words = self._renamed(args, words, places, names_by_place(self.assembly.parameters.signature))
        is_met = bool(before) and self.assembly.twins.has_met(before[0])
        split, function, leading = self.assembly.split(is_met), self._wrapped, before

        def key_of(item: Any) -> Hashable:
            key: Hashable = split(*before, item, *after, **words)[0]
            return key

        if before and self._binds and not self._is_bound:
            whose = (None, before[0]) if self.assembly.of_class else (before[0], type(before[0]))
            function, leading = function.__get__(*whose), ()

        def run(items: list[Any]) -> Any:
            return function(*leading, items, *after, **own_words)

        return Load(key_of, run, self._open_for, self.max_batch)

    def _prepare(
        self, request: Request, before: tuple[Any, ...], after: tuple[Any, ...], words: dict[str, Any]
    ) -> None:
        load = partial(Load, request.key_of, request.run, self._open_for, self.max_batch)
        request.gathers = partial(self._part, before, after, words), load

    def _part(
        self, before: tuple[Any, ...], after: tuple[Any, ...], words: dict[str, Any], item: Any
    ) -> tuple[Hashable, Any]:
        """Return what stands for all that the loader is called with but the item, and this.

        An instance is itself alone. Of equal items of different types a mapping has only one, so these have
        windows of their own.
        """
        if not all(each.parameters.exact for each in self.assembly.twins.assemblies):
            # A call may leave out a default that another one shows, or give by name what that gives by place.
            meant = self._canonical(*before, item, *after, **words)
            if meant is not None:
                after, words = meant[0][len(before) + 1 :], meant[1]
        names = sorted(words)
        common = group_of((*after, *map(words.get, names)))
        return (tuple(map(id, before)), tuple(names), common, type(item)), item

    def _places_asked(self) -> dict[str, int]:
        """Where what has a name may stand in calls of the function and of its twins."""
        signatures = [each.parameters.signature for each in self.assembly.twins.assemblies]
        return {name: place for each in signatures for name, place in places_by_name(each).items()}


@cache
def _driver(coroutine: bool) -> Any:
    """The module that drives gathered calls of one colour."""
    if coroutine:
        from ..drivers import gather_tasks  # with its asyncio only where it is needed

        return gather_tasks
    from ..drivers import gather_threads

    return gather_threads
