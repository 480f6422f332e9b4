"""Lifetimes that depend on the value: the `Landing` that a callable `ttl` receives, and `AdaptiveTTL`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from ..common.durations import real, seconds
from ..common.messages import Shown, shown

if TYPE_CHECKING:
    from datetime import timedelta

    from .entry import Entry

__all__ = ["AdaptiveTTL", "Landing", "Tags", "checked_tags", "named_tags"]


@dataclass(slots=True, unsafe_hash=True, repr=False)  # not frozen: that takes five times as long to make
class Landing(Shown):
    """A flight that has just ended with a value; a callable `ttl` receives it.

    `duration` is how many seconds the function took; `followers` is the number of callers that waited for it;
    `previous` is the entry that this one replaces (perhaps past its ttl), or None.
    """

    key: Hashable
    value: Any
    error: BaseException | None = None
    duration: float = 0.0
    followers: int = 0
    previous: Entry[Any] | None = None


class AdaptiveTTL:
    """A `ttl` that grows while many callers wait for a key, and otherwise returns to its base.

    Args:
        base: the ttl of a key in quiet times, in seconds or as a `timedelta`.
        maximum: the largest ttl.
        factor: the ttl is multiplied by this at each landing with more than `followers` followers.
        followers: the largest number of followers at which the ttl does not grow.

    >>> ttl = AdaptiveTTL(base=10, maximum=60)
    >>> ttl(Landing("ASML", 984.75, followers=2)), ttl(Landing("ASML", 984.75, followers=50))
    (10.0, 20.0)

    It is stateless: it reads the ttl of the landing's `previous` entry. So several functions may share it, it
    works with `grace` and `jitter`, and it is safe to use from any thread.
    """

    base: float
    maximum: float

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
        self.factor: float = factor if type(factor) is int else number
        self.followers = followers

    def __call__(self, landing: Landing) -> float:
        """Return the ttl of the value that has just landed, in seconds."""
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


Tags = tuple[str, ...] | Callable[[Landing], object]
"""What the option `tags` is once it is checked: the tags of all entries, or who is asked for those of one."""


def checked_tags(tags: object, option: str = "tags") -> tuple[str, ...]:
    """Return tags, each once; one string is one tag. Raises `TypeError`, naming the option."""
    if isinstance(tags, str):
        return (tags,)
    if not isinstance(tags, Iterable) or isinstance(tags, (bytes, bytearray)):
        raise TypeError(f"{option}: expected strings, got {shown(tags)}")
    return tuple(dict.fromkeys(_string(tag, option) for tag in tags))


def named_tags(tags: tuple[object, ...]) -> tuple[str, ...]:
    """Return the tags that are to be invalidated, each once; at least one."""
    if not tags:
        raise TypeError("invalidate_tag: expected at least one tag")
    return checked_tags(tags, "invalidate_tag")


def _string(tag: object, option: str) -> str:
    if not isinstance(tag, str):
        raise TypeError(f"{option}: expected strings, got {shown(tag)}")
    return tag


if TYPE_CHECKING:
    TTL = float | int | timedelta | Callable[[Landing], "float | int | timedelta | None"] | None
    """The types that the option `ttl` accepts."""
