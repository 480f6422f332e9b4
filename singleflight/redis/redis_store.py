"""`RedisStore`: what a user passes as `store=`, checked, and what can be asked of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from math import inf
from typing import Any

from ..common.durations import seconds
from ..common.messages import shown
from ..core.cache import Cache
from ..fleet.envelopes import checked_signing_key
from ..fleet.failures import checked_errors
from ..fleet.names import checked_prefix
from ..fleet.serializers import Codec, checked_serializer
from ..locks.waiters import running_loop
from .entries import Terms
from .link import Link
from .shared import SharedFunction

__all__ = ["RedisStore"]

_UNSET: Any = object()


class RedisStore:
    """Values and flights that all processes share, on a Redis (7 or newer) or Valkey server.

    Passed to a decorator as `store=`, it makes the function's flights those of the whole fleet: for each key
    one process calls, the others receive its value. Each keeps what it received near, for `near_ttl` at most.

    Args:
        source: a URL (`redis://`, `rediss://`, `unix://`) or a client of redis-py or valkey-py, whose
            connection settings are copied; clients for Sentinel and Cluster too.
        prefix: what all names on the server begin with (default "sf").
        near_ttl: for how many seconds, or a `timedelta`, a process serves a value before it asks the server
            again (default 60).
        lease: for how many seconds a flight has the right to call for the fleet (default 5). It is renewed
            while the flight goes on, so that this is how long the others wait for a process that was killed.
        timeout: seconds for connecting and for each answer of the server (default 0.2). After that this
            process works alone, until the server answers again.
        max_value: the most bytes of a value that is shared (default 1 MiB). A larger one is returned and kept
            near; each process makes its own.
        serializer: an object with a `name`, `dumps(value) -> bytes` and `loads(bytes) -> value` (default: by
            the function's return annotation; without one, plain values only).
        signing_key: bytes that sign what is sent (HMAC-SHA256). With it nothing is read that was not signed.
        version: a string or whole number to be changed when values of older code are not to be used (default
            None).
        errors: an exception class or several that other processes may make anew from plain arguments. All
            other failures are raised there as `RemoteFailure`.

    Raises `TypeError` or `ValueError` naming the argument, and `ImportError` if no client library is
    installed. Nothing connects before the first miss. No error of the server reaches a caller. Safe to use
    from any thread and event loop, and after a fork. One store serves any number of functions.

    >>> from singleflight import single_flight_ttl
    >>> from singleflight.redis import RedisStore
    >>> shared = RedisStore("redis://localhost:6379", near_ttl=30)
    >>> @single_flight_ttl(ttl=60, store=shared)
    ... def price(symbol: str) -> float:
    ...     return 984.75
    >>> shared  # nothing has connected yet
    <RedisStore 'sf', connected>
    """

    def __init__(
        self,
        source: Any,
        *,
        prefix: str = "sf",
        near_ttl: float | timedelta = 60,
        lease: float | timedelta = 5,
        timeout: float | timedelta = 0.2,
        max_value: int = 1_048_576,
        serializer: Any = None,
        signing_key: bytes | None = None,
        version: str | int | None = None,
        errors: Any = (),
    ) -> None:
        self._serializer, self._version = checked_serializer(serializer), _checked_version(version)
        self._terms = Terms(
            _positive(near_ttl, "near_ttl"),
            _checked_size(max_value),
            checked_signing_key(signing_key),
            checked_errors(errors),
        )
        self._link = Link(
            source,
            prefix=checked_prefix(prefix),
            lease=_checked_lease(lease),
            timeout=_positive(timeout, "timeout"),
        )

    def with_(
        self,
        *,
        near_ttl: float | timedelta = _UNSET,
        max_value: int = _UNSET,
        serializer: Any = _UNSET,
        version: str | int | None = _UNSET,
        errors: Any = _UNSET,
    ) -> RedisStore:
        """Return the same store, with the same connections, and other settings for some functions.

        The arguments are those of `RedisStore`; what is left out stays as it is. Raises what that raises.
        """
        made = object.__new__(type(self))
        made._link, terms = self._link, self._terms
        made._serializer = self._serializer if serializer is _UNSET else checked_serializer(serializer)
        made._version = self._version if version is _UNSET else _checked_version(version)
        made._terms = Terms(
            terms.near_ttl if near_ttl is _UNSET else _positive(near_ttl, "near_ttl"),
            terms.max_value if max_value is _UNSET else _checked_size(max_value),
            terms.signing_key,
            terms.errors if errors is _UNSET else checked_errors(errors),
        )
        return made

    def tier_for(self, cache: Cache, function: Callable[..., Any]) -> SharedFunction:
        """Return the tier of a function; called by its decorator. Raises what is wrong with the two."""
        codec = Codec(function, self._serializer)
        identity = f"{getattr(function, '__module__', None)}.{getattr(function, '__qualname__', None)}"
        return SharedFunction(self._link, cache, self._terms, codec, self._version, identity)

    @property
    def state(self) -> str:
        """Return "connected" (also before it connects), "recovering", or "degraded since ..."."""
        return self._link.state(time.monotonic())

    def flush(self, timeout: float | timedelta = 5) -> Any:
        """Wait until the server has confirmed what was invalidated, put and cleared here.

        Args:
            timeout: for how many seconds to wait at most (default 5).

        Returns True if nothing is left. On the thread of an event loop, `await` what it returns. Needed only
        there, where `invalidate` and its like do not wait for the server.
        """
        limit = seconds(timeout, "timeout")
        if running_loop() is None:
            return self._link.keeper.flush(limit)
        return self._link.keeper.aflush(limit)

    def close(self) -> None:
        """Close the connections and end the threads; a later call makes new ones.

        It waits for the threads, so not on an event loop's thread; and for the server to confirm what was
        invalidated, put and cleared here, for `timeout` at most.
        """
        self._link.close()

    def __repr__(self) -> str:
        return f"<RedisStore {self._link.prefix!r}, {self.state}>"


def _positive(value: object, option: str) -> float:
    number = seconds(value, option)
    if not 0 < number < inf:
        raise ValueError(f"{option}: must be positive and finite, got {shown(value)}")
    return number


def _checked_lease(value: Any) -> float:
    lease = _positive(value, "lease")
    if lease < 0.001:  # which is what the server counts in
        raise ValueError(f"lease: must be at least a millisecond, got {shown(value)}")
    return lease


def _checked_size(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"max_value: expected a whole number of bytes, got {shown(value)}")
    if not 256 <= value <= 512 * 1024 * 1024:
        raise ValueError(f"max_value: must be from 256 bytes to 512 MiB, got {value}")
    return value


def _checked_version(value: object) -> str | int | None:
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return value
    raise TypeError(f"version: expected a string, a whole number or None, got {shown(value)}")
