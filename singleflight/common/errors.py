"""The exceptions that this library itself raises."""

from __future__ import annotations

__all__ = ["FlightDeadlock", "FlightTimeout", "NoTask", "SingleFlightError", "UnhashableKey"]


class SingleFlightError(Exception):
    """The base of every exception that this library raises by itself."""


class FlightTimeout(SingleFlightError, TimeoutError):
    """A caller waited as long as it was allowed to; other callers are not affected.

    Raised in the caller whose `wait_timeout` (or a keyed lock's `timeout`) ran out, in the caller whose
    coroutine function was cancelled because it took longer than `flight_timeout`, and in callers that come
    while too many such flights of their key are still running. Never shared with other callers and never
    stored.
    """


class FlightDeadlock(SingleFlightError, RuntimeError):
    """Waiting would never end: this caller already holds, directly or in a cycle, what it asks for.

    Raised in the thread or task that would close the cycle; the message names every key of it in order, as
    `'A' -> 'B' -> 'A'`. Never shared with other callers and never stored.
    """


class NoTask(SingleFlightError, RuntimeError):
    """A coroutine that may have to wait for others is not run by an asyncio task.

    Something else drives it: another framework's event loop, a callback, or `coroutine.send(None)`. Nothing
    was called and nothing changed.
    """


class UnhashableKey(SingleFlightError, TypeError):
    """An argument (or the result of `key`) cannot be hashed, so the call has no key.

    The message names the argument. Nothing was called and nothing changed.
    """
