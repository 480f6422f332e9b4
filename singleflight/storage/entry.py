"""A stored value as users see it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..common.messages import Shown

__all__ = ["Entry"]

V_co = TypeVar("V_co", covariant=True)


@dataclass(frozen=True, slots=True, repr=False)
class Entry(Shown, Generic[V_co]):
    """A stored value with its times, as it was at one moment.

    `age` and `ttl` are in seconds (`math.inf`: never runs out), `state` is "fresh" or "stale", and `hits`
    counts the callers it has served (on free-threaded builds about: threads at the same time may count as
    one). The value is the very object that all callers receive. With `copy`, what `entry(...)` returns has a
    copy of it; landings and explanations show the stored object. `weight` is what `weigh` said, or 1.
    """

    key: Hashable
    value: V_co
    age: float
    ttl: float
    state: str
    hits: int
    weight: float = 1
