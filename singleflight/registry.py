"""Every decorated function alive in this process, and what they are doing."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from . import locks
from .flights import Flight, State, name_of
from .turns import mutex

if TYPE_CHECKING:
    from .decorator import SingleFlightFunction

__all__ = ["caches", "register", "report"]

# Replaced as a whole under `_registering`, so that readers need no lock.
_functions: tuple[weakref.ref[Any], ...] = ()
_registering = threading.Lock()


def register(function: SingleFlightFunction[..., Any]) -> None:
    """Remember a decorated function for as long as it lives."""
    global _functions
    with _registering:
        _functions = (*(ref for ref in _functions if ref() is not None), weakref.ref(function))


def caches() -> tuple[SingleFlightFunction[..., Any], ...]:
    """Every decorated function alive in the process, in the order of their decoration.

    >>> from singleflight import single_flight_ttl
    >>> @single_flight_ttl(ttl=60, name="prices")
    ... def price(symbol):
    ...     return 984.75
    >>> "prices" in [cached.cache_parameters()["name"] for cached in caches()]
    True

    Safe to call from any thread.
    """
    return tuple(function for ref in _functions if (function := ref()) is not None)


def report() -> str:
    """All decorated functions and their flights, with leaders, ages and numbers of waiters, as text.

    For a service that seems to hang: safe to call from a signal handler and from any thread. It waits at
    most a tenth of a second for the library's mutex and reads without it after that.

    >>> "functions" in report()
    True
    """
    held = mutex.acquire(timeout=0.1)
    try:
        lines = []
        functions = caches()
        for function in functions:
            lines += _told(function)
        return "\n".join([f"singleflight: {len(functions)} functions", *lines])
    finally:
        if held:
            mutex.release()


def _told(function: Any) -> list[str]:
    memo = function._self_memo
    now = memo.timer()
    flying = list(memo.adrift)
    lines = []
    for slot in memo.locks.live():
        turn = slot.turn
        if isinstance(turn, Flight) and turn.state is State.FLYING:
            flying.append(turn)
        elif turn is not None and turn.leader is not None:
            lines.append(f"  lock {slot.key!r}: held by {name_of(turn.leader)}, {len(slot.queue)} queued")
    lines += [f"  {flight.info(memo.name, now)}" for flight in sorted(flying, key=lambda f: f.started)]
    return [f"{memo.name}: {len(memo.store.index)} entries, {len(flying)} flights", *lines]


def _after_fork() -> None:
    """A forked child starts with no flights, fresh locks, the values it inherited and counts of its own."""
    global _registering
    _registering = threading.Lock()
    locks.after_fork()
    for function in caches():
        function._self_memo.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
