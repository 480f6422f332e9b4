"""The hit path in C, where it was built: which calls take it, and how they are described to it.

This is about speed alone. What a call does, and what it raises, is said by the compiled Python call
(`callforms`). That one serves where `_hits` was not built, where `SINGLEFLIGHT_PURE=1` was set at import, and
where a function's calls are not simple; and it is what wrong arguments go to.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from math import inf
from typing import Any, NoReturn

from ..core.cache import Cache
from ..core.options import OFF
from ..storage.record import Record, record_of
from ..telemetry.counters import has_global_lock
from .keyforms import KeyForm
from .keyparts import KeyParts, parts_of
from .parameters import Parameters
from .wrapt_types import wrapt_was_built

__all__ = ["Accelerator", "accelerated", "is_simple"]


def _built() -> Any:
    """The extension; None where it was not built, is not wanted, or does not find its way here."""
    if os.environ.get("SINGLEFLIGHT_PURE", "").lower() not in OFF:
        return None
    if not has_global_lock():
        return None
    if not wrapt_was_built:
        return None  # classes that C makes would lack what wrapt's metaclass puts into them
    try:
        from . import _hits  # type: ignore[attr-defined]
    except ImportError:  # not built, not for this interpreter, or a subinterpreter with a lock of its own
        return None
    try:
        _hits.trust(time.monotonic)
        return _hits if _finds(_hits) else None
    except Exception:  # records are not laid out as it expects
        return None


def _finds(hits: Any) -> bool:
    """Return True if it finds a fresh record and counts its hits, and leaves alone one that has run out."""
    fresh, gone = record_of("fresh", object(), 0.0, inf), record_of("gone", None, 0.0, -inf)
    core = hits.Core(Record, {"fresh": fresh, "gone": gone}, time.monotonic, _finds)
    found = [core.find(key) for key in ("fresh", "gone", "fresh", "none")]
    return found == [fresh.value, hits.Core, fresh.value, hits.Core] and (fresh.hits, gone.hits) == (2.0, 0.0)


_hits = _built()

accelerated: bool = _hits is not None
"""True if hits are served in C in this process, that is, if the extension was built and not switched off."""

_BY_PLACE_ALONE = inspect.Parameter.POSITIONAL_ONLY
_PLACED = (_BY_PLACE_ALONE, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_SIMPLE = (*_PLACED, inspect.Parameter.KEYWORD_ONLY)
_ASKED = KeyParts((), ())  # the user's function makes the key


class Accelerator:
    """What C knows of the calls of one function.

    Its compiled Python calls ask `find`. Beside that the function itself is called in C, if its calls are
    simple: then its class is one of two that are made below the one that `furnish` is given.

    Args:
        cache: the function's; `lookup` is what finds a record in its index now.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._finder = self._core(cache.store.lookup.__self__, None)  # type: ignore[attr-defined]
        self._caller: Any = None
        self._seeker: Any = None
        self._base: Any = None
        self._kinds: dict[bool, Any] = {}
        self._call: Any = None
        cache.fast_paths.append(self)

    @classmethod
    def of(cls, cache: Cache) -> Accelerator | None:
        """One for a function with this cache, or None where hits are not served in C.

        Nor are they with `copy`, nor where the policy is told of each.
        """
        return cls(cache) if accelerated and cache.copy is None and not cache.tells_hits else None

    def __setitem__(self, _name: str, lookup: Any) -> None:
        """The cache's look-up was replaced (see `Cache.fast_paths`): here its dictionary is what counts."""
        for core in (self._finder, self._caller, self._seeker):
            if core is not None:
                core.look_in(lookup.__self__)

    def names(self) -> dict[str, Any]:
        """What the compiled Python calls refer to."""
        return {"find": self._finder.find, "nowhere": type(self._finder)}

    def furnish(self, base: Any) -> None:
        """The function is to be called in C: this class of it has all but that."""
        self._base = base

    def kind(self, as_method: bool) -> Any:
        """The class of the function: with `as_method` it is called with the instance, and binds nothing."""
        if as_method not in self._kinds:
            self._kinds[as_method] = kind = _hits.make(self._base, as_method)
            for name in ("__annotations__", "__doc__"):
                _hits.show(kind, name, vars(self._base)[name])
            _hits.show(kind, "__call__", self._call)
        return self._kinds[as_method]

    def describe(
        self,
        compiled: Callable[[bool], Any],
        waits: bool,
        parameters: Parameters,
        form: KeyForm,
        names: dict[str, Any],
        owner: Any = None,
        sure: bool = False,
    ) -> None:
        """Say how calls are read from now on.

        Args:
            compiled: makes the Python call; given True, one that asks `seek` before it makes a key.
            waits: that is a coroutine function, so it looks for hits itself (`seek`, `find`).
            names: what that refers to.
            owner: what stands for a first argument that may be an instance; None if there are none.
            sure: it is one.
        """
        taken = list(parameters.signature.parameters.values())
        known = tuple(parameter.name for parameter in taken)
        placed = sum(parameter.kind in _PLACED for parameter in taken)
        key = names["_sf_make_key"] if form.own else None
        parts = parts_of(form, key, known, owner is not None, sure)
        if len(taken) > _hits.MOST or (parts is not None and len(parts.places) > _hits.MOST + 1):
            parts = None
        elif parts is None and form.own and not waits:
            parts = _ASKED
        # A clock of the user's is asked once for a call, so where there is one nothing looks twice.
        call = compiled(waits and parts is not None and self._cache.timer is time.monotonic)
        with self._cache.switching:
            self._caller = core = self._core(self._finder.index, call)
            self._seeker = core = self._core(self._finder.index, call) if waits else core
        self._call = staticmethod(call)
        for kind in self._kinds.values():
            _hits.show(kind, "__call__", self._call)
        names["_sf_seek"] = core.seek
        if parts is None:
            return
        core.shape(
            known,
            tuple(core if parameter.default is parameter.empty else parameter.default for parameter in taken),
            sum(parameter.kind is _BY_PLACE_ALONE for parameter in taken),
            placed,
            known[placed:] or None,
            parts.places,
            parts.paths,
            parts.lone,
            key,
            parts.code,
            names["_sf_known"],
            owner,
            names["_sf_driver"],
            names["_sf_cache"],
            names["_sf_run"],
            _refusing(names["_sf_unhashable"], known, owner),
        )

    def attach(self, made: Any, as_method: bool) -> None:
        """Have this function called as it was described last."""
        kind = self.kind(as_method)
        if type(made) is not kind:
            _hits.become(made, kind)
        _hits.attach(made, self._caller)

    def _core(self, index: Any, call: Any) -> Any:
        return _hits.Core(Record, index, self._cache.timer, call)


def is_simple(parameters: Parameters, form: KeyForm) -> bool:
    """Return True if calls with these parameters, and keys of this form, can be read in C."""
    taken = parameters.signature.parameters.values()
    return parameters.exact and not form.typed and all(each.kind in _SIMPLE for each in taken)


def _refusing(
    unhashable: Callable[..., TypeError], names: tuple[str, ...], owner: Callable[[Any], Any] | None
) -> Callable[..., NoReturn]:
    """What raises in the place of an error that came up while a key was looked for."""

    def refuse(error: TypeError, key: Any, *arguments: Any) -> NoReturn:
        named = dict(zip(names, arguments, strict=True))
        if owner is not None:  # of an instance, what stands for it
            named[names[0]] = owner(arguments[0])
        raised = unhashable(error, key, named)
        if raised is not error:
            raised.__context__ = error
        raise raised from None

    return refuse
