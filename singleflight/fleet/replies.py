"""What the server says to a claim: its answers, and the wakes that come by the process's own channel.

Times are whole milliseconds: `left` until it ends, `fresh` until it is stale, `birth` by the server's clock.
Dataclasses and no tuples: a `Refused` equals no `Absent`. Only `Found`, which no other is like, is a tuple:
it is made for every value that comes from the server, and takes a third of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = [
    "AGAIN",
    "Absent",
    "Answer",
    "Found",
    "Leased",
    "Oversized",
    "Passed",
    "Refused",
    "Renewing",
    "Told",
    "Waiting",
    "Wake",
]


class Found(NamedTuple):
    """A value is stored."""

    envelope: bytes
    left: int
    fresh: int
    birth: int


@dataclass(frozen=True, slots=True)
class Leased:
    """The lease is this claim's. `retries` is what its chain of flights has left, None if none is noted."""

    retries: int | None
    birth: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another flight has the lease for `left` more, and this process's channel is among its waiters.

    `chain` names the chain of flights that it belongs to: a flight and those that retry it.
    """

    left: int
    leader: str
    chain: bytes


@dataclass(frozen=True, slots=True)
class Passed:
    """The chain that this claim waited for has ended meanwhile, with what is not stored; see `Wake`."""

    envelope: bytes


@dataclass(frozen=True, slots=True)
class Renewing:
    """Another flight renews the value, and this process's channel is not among its waiters."""

    left: int
    leader: str


@dataclass(frozen=True, slots=True)
class Oversized:
    """The stored value has more bytes than this process accepts."""

    size: int


@dataclass(frozen=True, slots=True)
class Absent:
    """No value is stored, said of a look that takes no lease."""


@dataclass(frozen=True, slots=True)
class Told:
    """The lease was this claim's until now: what it told took effect, and so many processes were woken."""

    woken: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The lease was no longer this claim's: what it told changed nothing."""


Answer: TypeAlias = Found | Leased | Waiting | Passed | Renewing | Oversized | Absent | Told | Refused


_NOTHING: Final = Found(b"", 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Wake:
    """A message to those who wait for a name.

    kind    sent when                                                         with
    value   the leader stored a value, or one was put                         `found`, `chain`
    passed  it shares what is not stored: a refused value or a failure; or,   `found` with times of 0,
            if the envelope is empty, each is to run the function by itself   `chain`
    again   it gave up the lease, the entry was dropped, or the value is too  -
            long for a message
    """

    kind: Literal["value", "passed", "again"]
    found: Found = _NOTHING
    chain: bytes = b""


AGAIN: Final = Wake("again")
