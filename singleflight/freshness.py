"""How a value ages: pure functions from numbers to numbers, no clock and no lock.

A value that landed at `landed` with a lifetime of `ttl` seconds is *fresh* while `now < landed + ttl`,
*stale* (it may still be served while it is renewed) for `grace` seconds after that, and then *expired*. A
ttl of `math.inf` (what users write as `None`) never runs out; a ttl of 0 is not stored at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from datetime import timedelta
from math import inf, log
from typing import TYPE_CHECKING, Any

from .durations import real, seconds
from .messages import Shown, shown

if TYPE_CHECKING:
    from .entries import Entry

__all__ = ["TTL", "AdaptiveTTL", "Ageing", "Landing", "fresh_for"]

_RETRY_FLOOR = 1.0  # seconds between attempts to renew a value when renewing fails


@dataclass(slots=True, unsafe_hash=True, repr=False)  # not frozen: that takes five times as long to make
class Landing(Shown):
    """What a callable `ttl` decides on: one flight that has just ended well.

    `duration` is how long the function took, in seconds; `followers` how many callers waited for it;
    `previous` the entry that this one replaces (perhaps past its ttl), or None.
    """

    key: Hashable
    value: Any
    error: BaseException | None = None
    duration: float = 0.0
    followers: int = 0
    previous: Entry | None = None


def fresh_for(landed: float, ttl: float, now: float) -> float:
    """For how many more seconds a value is fresh; 0 or less when it is not."""
    return landed + ttl - now


@dataclass(frozen=True, slots=True)
class Ageing:
    """How the values of one function age beside their ttl.

    Args:
        grace: for how many seconds past its ttl a value may be served while it is renewed.
        refresh_ahead: the part of the ttl after which it is renewed ahead of time, "xfetch", or None.
        jitter: the part of the ttl by which it is shortened at most, by chance.
        failure_ttl: for how many seconds an exception is stored where there is no value.
        chance: returns a number from 0 to 1, 1 excluded.
    """

    grace: float = 0.0
    refresh_ahead: float | str | None = None
    jitter: float = 0.0
    failure_ttl: float = 0.0
    # Made by a factory: dataclasses asks a default for its `__class__`, which a sandbox may forbid that has
    # put a proxy in place of what is not deterministic (Temporal's).
    chance: Callable[[], float] = field(default_factory=lambda: random.random)

    @property
    def is_plain(self) -> bool:
        """Whether values only live for their ttl."""
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


class AdaptiveTTL:
    """A `ttl` that grows for keys that many callers wait for, and falls back when they do not.

    Args:
        base: the ttl of a key in quiet times, in seconds or as a `timedelta`.
        maximum: what it grows to at most.
        factor: by how much it grows at each landing that more than `followers` callers waited for.
        followers: how many may wait without its growing.

    >>> ttl = AdaptiveTTL(base=10, maximum=60)
    >>> ttl(Landing("ASML", 984.75, followers=2)), ttl(Landing("ASML", 984.75, followers=50))
    (10.0, 20.0)

    It keeps nothing of its own: what it goes by is the landing's `previous` entry. So it may be shared by
    several functions, composes with `grace` and `jitter`, and is safe to use from any thread.
    """

    def __init__(
        self,
        base: float | timedelta,
        maximum: float | timedelta,
        factor: float = 2,
        followers: int = 5,
    ) -> None:
        self.base, self.maximum = seconds(base, "base"), seconds(maximum, "maximum")
        if not 0 < self.base < inf:
            raise ValueError(f"base: must be positive and finite, got {shown(base)}")
        if self.maximum < self.base:
            raise ValueError(f"maximum: must be at least base ({shown(base)}), got {shown(maximum)}")
        number = real(factor, "factor", "a number")
        if not 1 < number < inf:
            raise ValueError(f"factor: must be more than 1 and finite, got {shown(factor)}")
        if isinstance(followers, bool) or not isinstance(followers, int):
            raise TypeError(f"followers: expected a whole number, got {shown(followers)}")
        if followers < 0:
            raise ValueError(f"followers: cannot be negative, got {followers}")
        self.factor = factor if type(factor) is int else number
        self.followers = followers

    def __call__(self, landing: Landing) -> float:
        """The ttl of what has just landed, in seconds."""
        if landing.followers <= self.followers:
            return self.base
        before = self.base if landing.previous is None else landing.previous.ttl
        level = self.base
        while level < before and level < self.maximum:  # `before` may have been shortened by jitter
            level *= self.factor
        return min(level * self.factor, self.maximum)

    def __repr__(self) -> str:
        return (
            f"AdaptiveTTL(base={self.base!r}, maximum={self.maximum!r}, factor={self.factor!r}, "
            f"followers={self.followers!r})"
        )


TTL = float | int | timedelta | Callable[[Landing], "float | int | timedelta | None"] | None
"""What the option `ttl` takes."""
