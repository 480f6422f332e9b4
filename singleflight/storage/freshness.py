"""How a value ages: pure functions from numbers to numbers, no clock and no lock.

A value that landed at `landed` with a lifetime of `ttl` seconds is *fresh* while `now < landed + ttl`,
*stale* (it may still be served while it is renewed) for `grace` seconds after that, and then *expired*. A
ttl of `math.inf` (what users write as `None`) never runs out; a ttl of 0 is not stored at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf, log

__all__ = ["Ageing", "fresh_for"]

_RETRY_FLOOR = 1.0  # seconds between attempts to renew a value when renewing fails


def fresh_for(landed: float, ttl: float, now: float) -> float:
    """For how many more seconds a value is fresh; 0 or less when it is not."""
    return landed + ttl - now


class Ageing:
    """How the values of one function age beside their ttl. Never changed.

    Args:
        grace: for how many seconds past its ttl a value may be served while it is renewed.
        refresh_ahead: the part of the ttl after which it is renewed ahead of time, "xfetch", or None.
        jitter: the part of the ttl by which it is shortened at most, by chance.
        failure_ttl: for how many seconds an exception is stored where there is no value.
        chance: returns a number from 0 to 1, 1 excluded; None for `random.random`.
    """

    __slots__ = ("chance", "failure_ttl", "grace", "jitter", "refresh_ahead")
    grace: float
    refresh_ahead: float | str | None
    jitter: float
    failure_ttl: float
    chance: Callable[[], float]

    def __init__(
        self,
        grace: float = 0.0,
        refresh_ahead: float | str | None = None,
        jitter: float = 0.0,
        failure_ttl: float = 0.0,
        chance: Callable[[], float] | None = None,
    ) -> None:
        self.grace, self.refresh_ahead, self.jitter = grace, refresh_ahead, jitter
        self.failure_ttl = failure_ttl
        self.chance = random.random if chance is None else chance

    @property
    def is_plain(self) -> bool:
        """Return True if values only live for their ttl."""
        return not (self.grace or self.jitter or self.failure_ttl or self.refresh_ahead is not None)

    @property
    def retry_after(self) -> float:
        """For how many seconds a renewal that failed is not tried again."""
        return self.failure_ttl or _RETRY_FLOOR

    def shortened(self, ttl: float) -> float:
        """A ttl drawn uniformly from the last `jitter` part of it."""
        if not self.jitter or ttl == inf:
            return ttl
        return ttl * (1 - self.jitter * self.chance())

    def refresh_at(self, landed: float, ttl: float, duration: float) -> float:
        """When the first reader is to renew a value, though it is fresh; `inf` for never.

        "xfetch" is the probabilistic early expiry of Vattani, Chierichetti and Lowenstein (Optimal
        Probabilistic Cache Stampede Prevention, VLDB 2015) with beta = 1: a reader renews once
        `now - duration * log(random)` has passed the end. Drawing the random number when the value lands,
        instead of at each read, keeps a read to one comparison.
        """
        if self.refresh_ahead is None or ttl == inf:
            return inf
        if isinstance(self.refresh_ahead, str):
            ahead = -max(0.0, duration) * log(1.0 - self.chance())
            return max(landed, landed + ttl - ahead)
        return landed + ttl * self.refresh_ahead
