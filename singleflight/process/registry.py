"""The list of all living decorated functions of this process, and a report of what they do."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

from ..common.messages import listed, shown
from ..core import controls
from ..core.cache import Cache
from ..core.controls import info, name_of
from ..core.flight import FLYING, Flight
from ..drivers import pool
from ..locks import keyed
from ..locks.mutex import mutex, new_lock
from ..locks.slots import Turn
from ..storage.ttl import named_tags
from ..telemetry.kinds import ALL_KINDS, refuse_unfit_listener

__all__ = [
    "all_caches",
    "attend",
    "check_decorated",
    "functions",
    "invalidate_tag",
    "observe",
    "observe_each",
    "register",
    "report",
]

_observers: tuple[Observer, ...] = ()  # of all functions; replaced as a whole, as the next two are
_visits: tuple[Callable[[Cache], object], ...] = ()
# Replaced as a whole under `_registering`, so that readers need no lock.
_functions: tuple[weakref.ref[Any], ...] = ()
_registering = new_lock()


def register(function: Any) -> None:
    """Add a decorated function to the list for as long as it lives; who observes all observes it, too."""
    global _functions
    with _registering:
        _functions = (*(ref for ref in _functions if ref() is not None), weakref.ref(function))
        for observer in _observers:
            observer.add(function._self_cache)
        for visit in _visits:
            visit(function._self_cache)


def attend(visit: Callable[[Cache], object]) -> None:
    """Have the state of each decorated function visited, now or when it is made; with twins repeatedly.

    May be repeated: then all that there are now are visited once more.
    This is under the lock of the list: the visit only notes something.
    """
    global _visits
    with _registering:
        if visit not in _visits:
            _visits = (*_visits, visit)
        for cache in all_caches():
            visit(cache)


def functions() -> tuple[Any, ...]:
    """Return every living decorated function, in the order of decoration."""
    return tuple(function for ref in _functions if (function := ref()) is not None)


def all_caches() -> list[Any]:
    """Return the state of each of them; twins share one."""
    return list(dict.fromkeys(function._self_cache for function in functions()))


def invalidate_tag(*tags: str) -> int:
    """Remove the entries of all decorated functions that have one of these tags. Return how many there were.

    See the method of the same name, which does this for one function. Safe to call from any thread and task.

    >>> from singleflight import invalidate_tag, single_flight_ttl
    >>> @single_flight_ttl(ttl=60, tags=lambda landing: [f"user:{landing.value['user']}"])
    ... def order(number):
    ...     return {"user": 7, "number": number}
    >>> _ = order(1), order(2)
    >>> invalidate_tag("user:7"), order.stats().entries
    (2, 0)
    """
    named = named_tags(tags)
    return sum(controls.invalidate_tag(cache, named) for cache in all_caches())


def report() -> str:
    """Return all decorated functions and their flights as text, with leaders, ages and numbers of waiters.

    Use it when a service seems to hang. It is safe to call from a signal handler and from any thread. It
    waits at most a tenth of a second for the library's mutex, and then reads without it.

    >>> "functions" in report()
    True
    """
    every = all_caches()
    held = mutex.acquire(timeout=0.1)
    try:
        turns = [_turns(cache) for cache in every]
    finally:
        if held:
            mutex.release()
    # Outside the mutex: the keys' own __repr__, the clock, and the names of threads.
    lines = [f"singleflight: {len(every)} decorated functions"]
    for cache, found in zip(every, turns, strict=True):
        lines += _told(cache, found)
    return "\n".join(lines)


Heard = Callable[[Any], object]


class Observer:
    """What listens, and the functions whose events it is told of. All is done under `_registering`.

    Args:
        listener_of: the listener for a function of this name.
        hits: whether it wants hits.
    """

    def __init__(self, listener_of: Callable[[str], Heard], hits: bool) -> None:
        self._listener_of, self._hits = listener_of, hits
        self._observed: list[tuple[weakref.ref[Cache], Heard]] = []  # each once; its twins share it

    def add(self, cache: Cache) -> None:
        """From now on it is told of this function's events."""
        self._observed = [pair for pair in self._observed if pair[0]() is not None]
        if not any(ref() is cache for ref, _ in self._observed):
            listener = self._listener_of(cache.name)
            self._observed.append((weakref.ref(cache), listener))
            cache.observe(listener, self._hits)

    def stop(self) -> None:
        """It is not told of anything any more; may be repeated."""
        while self._observed:
            ref, listener = self._observed.pop()
            cache = ref()
            if cache is not None:
                cache.unobserve(listener)


def observe(listener: Callable[[Any], object], *observed: Any) -> Callable[[], None]:
    """Have a listener told of events of these decorated functions, or else of all, also future ones.

    Args:
        listener: what is called with each event; see `Listener`. Whether it wants "hit" is read once, here; a
            function whose hits are wanted serves them the longer way until this ends.
        observed: decorated functions or bound methods (which stand for their function); none: all.

    Returns a callable that ends it; it may be called more than once. Calls that are in progress when this
    begins are not told. The function's own listener hears first. What the listener raises is logged once for
    each function, and dropped.

    Raises `TypeError` and `ValueError` for a listener, or what it wants, or a function that is none.

    Safe to call from any thread and task.

    >>> from singleflight import single_flight_ttl
    >>> from singleflight.testing import Recorder
    >>> @single_flight_ttl(ttl=60)
    ... def price(symbol):
    ...     return 984.75
    >>> seen = Recorder()
    >>> stop = observe(seen, price)
    >>> price("ASML") == price("ASML")
    True
    >>> stop()
    >>> price("ASML"), seen.kinds()
    (984.75, ['fetch', 'land', 'hit'])
    """
    if not callable(listener):
        raise TypeError(f"listener: expected a callable, got {shown(listener)}")
    refuse_unfit_listener(listener)
    check_decorated("observe", observed)
    return observe_each(lambda _: listener, *observed, hits="hit" in getattr(listener, "wants", ALL_KINDS))


def check_decorated(whose: str, observed: tuple[Any, ...]) -> None:
    """Raise `TypeError` if one of these is no decorated function, naming who expects them."""
    for function in observed:
        if not isinstance(getattr(function, "_self_cache", None), Cache):
            raise TypeError(f"{whose}: expected decorated functions, got {shown(function)}")


def observe_each(
    listener_of: Callable[[str], Callable[[Any], object]], *observed: Any, hits: bool
) -> Callable[[], None]:
    """As `observe`, with a listener for each function: events of two functions of one name stay apart.

    Args:
        listener_of: called once for each function, with its name, under a lock of the registry: it must
            neither raise nor wait. Returns its listener.
        observed: see `observe`; `check_decorated` before.
        hits: whether the listeners want hits.
    """
    observer = Observer(listener_of, hits)

    def stop() -> None:
        global _observers
        with _registering:
            _observers = tuple(other for other in _observers if other is not observer)
            observer.stop()

    def begin() -> None:
        global _observers
        with _registering:
            if not observed:
                _observers = (*_observers, observer)
            for cache in [function._self_cache for function in observed] or all_caches():
                observer.add(cache)

    try:
        begin()
    except BaseException:  # an interrupt: nobody could end what has begun
        stop()
        raise
    return stop


def _turns(cache: Any) -> list[tuple[Turn, int]]:
    """Return what has each taken key, and how many callers queue behind it."""
    found = [(slot.turn, len(slot.queue)) for slot in cache.locks.live() if slot.turn is not None]
    return found + [(flight, 0) for flight in list(cache.adrift)]


def _told(cache: Any, found: list[tuple[Turn, int]]) -> list[str]:
    now = cache.time_or(0.0)
    flying = [turn for turn, _ in found if isinstance(turn, Flight) and turn.state is FLYING]
    lines = [f"{cache.name}: {len(cache.store.index)} entries, {len(flying)} flights"]
    for turn, queued in found:
        if not isinstance(turn, Flight):
            keys = listed(getattr(turn, "keys", (turn.key,)))
            lines.append(f"  lock {keys}: held by {name_of(turn.leader)}, {queued} queued")
    flying.sort(key=lambda flight: flight.started)
    return lines + [f"  {info(flight, cache, now)}" for flight in flying]


def _after_fork() -> None:
    """Give a forked child new locks and its own counts, without flights, with the values it inherited."""
    global _registering
    _registering = new_lock()
    keyed.after_fork()
    pool.after_fork()
    for cache in all_caches():
        cache.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
