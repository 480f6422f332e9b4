"""How a call of a bulk loader becomes a bulk call."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from ..common.frames import looked_through
from ..core.bulk_call import Request
from ..core.functions import is_coroutine_function, refuse_unfit
from ..drivers import bulk_threads
from .binding import Binder
from .callforms import CallForms, can_bind
from .keyforms import KeyForm
from .parameters import names_by_place, parameters_of, places_by_name
from .signatures import check_loader

if TYPE_CHECKING:
    from ..core.gathering import Arguments
    from .assembly import Assembly

__all__ = ["Loading"]


class Loading:
    """Turns calls of one loader, or of its bound methods, into bulk calls."""

    gather: float | None = None  # for how many seconds single calls are gathered (see `gathered`)

    def __init__(self, wrapped: Any, assembly: Assembly, max_batch: int | None) -> None:
        self.assembly = assembly
        self.max_batch = max_batch
        self._static = isinstance(wrapped, staticmethod)
        of_class = isinstance(wrapped, classmethod)
        function = wrapped.__func__ if self._static or of_class else wrapped
        self._is_bound = getattr(function, "__self__", None) is not None  # to another object, for good
        refuse_unfit(function, "bulk")
        called = getattr(function, "__qualname__", type(function).__qualname__)
        parameters = parameters_of(function)
        self._names = names_by_place(parameters.signature)
        self._places = places_by_name(parameters.signature)
        self._of_instance = of_class or (not self._static and self._names[:1] in (["self"], ["cls"]))
        if of_class is not assembly.of_class:
            raise TypeError(f"bulk: only one of {called} and {assembly.called} is a class method")
        # What the arguments of a call stand for: its args and kwargs in canonical form, or None.
        self._canonical: Callable[..., tuple[tuple[Any, ...], dict[str, Any]] | None] = _unknown
        self._exact = parameters.exact
        self._fits = check_loader(called, parameters, assembly.called, assembly.parameters, self._of_instance)
        if self._fits:
            if self._exact:
                self._canonical = CallForms(function, parameters, KeyForm(), False).arguments()
            else:
                self._canonical = _fitting(Binder(parameters, True))
        self.coroutine: bool = is_coroutine_function(function)
        self._binds = of_class or can_bind(function, parameters)
        self.called = called
        if self.coroutine:
            from ..drivers import bulk_tasks  # with its asyncio only where it is needed

            self._drive: Callable[[Request], Any] = bulk_tasks.call
        else:
            self._drive = bulk_threads.call

    @looked_through
    def __call__(
        self, wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Serve a call, as wrapt passes it on."""
        bound = instance is not None and not self._is_bound
        came = ((instance, *args) if bound else args), kwargs
        meant = self._canonical(*came[0], **kwargs) or came
        # Where single calls' parameters are a guess their keys are made of what came, and so are these.
        known = meant if self.assembly.parameters.exact else came
        place, args, words = self._placed(known, self._places, bound)
        name = self._names[place] if place < len(self._names) else "items"
        if len(args) <= place:
            raise TypeError(f"{self.assembly.called}: bulk: the items are missing")
        before, items, after = args[:place], args[place], args[place + 1 :]
        # They go by the names that the function has for them.
        named = self._renamed(args, words, self._places, names_by_place(self.assembly.parameters.signature))
        split = self.assembly.split(bound)

        def key_of(item: Any) -> Hashable:
            key: Hashable = split(*before, item, *after, **named)[0]
            return key

        # The loader itself gets its other arguments as they came.
        placed, others = meant if self._exact else came
        leading, trailing = placed[1 if bound else 0 : place], placed[place + 1 :]

        def run(some: Any) -> Any:
            if len(placed) > place:
                return wrapped(*leading, some, *trailing, **others)
            return wrapped(*leading, **{**others, name: some})

        request = Request(self.assembly.cache, items, name, key_of, run, self.max_batch)
        self._prepare(request, before, after, words)
        return self._drive(request)

    def _prepare(
        self, request: Request, before: tuple[Any, ...], after: tuple[Any, ...], words: dict[str, Any]
    ) -> None:
        """A call is about to be served, in which these stand before, after and beside the items."""

    def _placed(
        self, arguments: Arguments, places: dict[str, int], bound: bool = False
    ) -> tuple[int, tuple[Any, ...], dict[str, Any]]:
        """Return where the item stands, and them with that, if there is one, and the instance by place."""
        args, words = arguments
        place = 1 if bound or self._has_instance(args) else 0
        if len(args) <= place:
            for name, value in words.items():
                if places.get(name) == len(args):
                    others = {other: words[other] for other in words if other != name}
                    return self._placed(((*args, value), others), places, bound)
        return place, args, words

    def _renamed(
        self, args: tuple[Any, ...], words: dict[str, Any], places: dict[str, int], names: list[str]
    ) -> dict[str, Any]:
        """Return what is given by name, beside these, under the names of the parameters in those places."""
        if not self._fits:  # what stands where is not known
            return words
        known_as = {name: names[place] for name, place in places.items() if len(args) <= place < len(names)}
        renamed: dict[str, Any] = {}
        for name, value in words.items():
            renamed = dict(**renamed, **{known_as.get(name, name): value})  # no name comes twice
        return renamed

    def _has_instance(self, args: tuple[Any, ...]) -> bool:
        """Return True if the first argument of a plain call is the instance or class of the method."""
        if self._static or not args:
            return False
        twins = self.assembly.twins
        return self._of_instance or twins.has_met(args[0]) or twins.is_owner(args[0])


def _unknown(*_args: Any, **_kwargs: Any) -> None:
    """Return None: the parameters of the loader are unknown, so its calls are taken as written."""


def _fitting(binder: Binder) -> Callable[..., Any]:
    """Return what binds a call; None if an argument is given twice, or may be another one (see `Binder`)."""

    def canonical(*args: Any, **kwargs: Any) -> Any:
        if args and binder.guarded and binder.repeats(args):
            return None
        try:
            return binder.bind(*args, **kwargs)
        except TypeError:
            return None

    return canonical
