"""For how long a value that was found on the server may be served here: pure arithmetic, no clock.

The server says how many milliseconds an entry has left; no client's wall clock is compared with anything.
What is left is counted from *before* the question was sent, so an entry never lives longer here than there.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

__all__ = ["NearTimes", "near_times"]


class NearTimes(NamedTuple):
    """The times of an entry found on the server, by the clock and in the seconds of this process.

    `landed` is when it landed in the process that loaded it, as far as is known here.
    """

    landed: float
    ttl: float
    grace: float
    refresh_at: float


def near_times(
    asked: float, left: int, ttl: float, grace: float, refresh_after: float, near_ttl: float
) -> NearTimes:
    """Return the times that a value gets here.

    Args:
        asked: when the question was about to be sent, by the function's timer.
        left: the milliseconds that the server's entry has left, fresh and stale; 0 or less if it has gone.
        ttl: for how many seconds from its landing it is fresh (`inf`: for ever).
        grace: for how many seconds more it may be served.
        refresh_after: how many seconds after its landing the next read starts a renewal (`inf`: never).
        near_ttl: for how many seconds it is served here, at most, before the server is asked again.

    A server whose clock was set back may say that more is left than there ever was: then it landed when it
    was asked for. Where nothing is left the value has expired at `asked`.

    >>> near_times(asked=100.0, left=25_000, ttl=20.0, grace=10.0, refresh_after=16.0, near_ttl=60.0)
    NearTimes(landed=95.0, ttl=20.0, grace=10.0, refresh_at=111.0)
    >>> near_times(asked=100.0, left=25_000, ttl=20.0, grace=10.0, refresh_after=16.0, near_ttl=5.0)
    NearTimes(landed=95.0, ttl=10.0, grace=0.0, refresh_at=111.0)
    """
    remaining = max(left, 0) / 1000
    if ttl == inf:
        age, ttl, grace = 0.0, remaining, 0.0
    else:
        age = min(max(ttl + grace - remaining, 0.0), ttl + grace)
    landed = asked - age
    near = age + near_ttl
    fresh = min(ttl, near)
    return NearTimes(landed, fresh, max(0.0, min(ttl + grace, near) - fresh), landed + refresh_after)
