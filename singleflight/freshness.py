"""How long a value lives: pure functions from numbers to numbers, no clock and no lock.

A value that landed at `landed` with a lifetime of `ttl` seconds is fresh while `now < landed + ttl`. A
ttl of `math.inf` (what users write as `None`) never runs out; a ttl of 0 is not stored at all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .entries import Entry

__all__ = ["TTL", "Landing", "fresh_for"]


@dataclass(frozen=True, slots=True)
class Landing:
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


TTL = float | int | timedelta | Callable[[Landing], "float | int | timedelta | None"] | None
"""What the option `ttl` takes."""
