"""Cycles of waiting over several processes: found by edges on the server, which those who wait write.

A flight that waits for another process, while it runs inside flights that others may wait for, notes an
*edge* from each of these to what it waits for. Then it follows the edges from there: who comes back to a
flight that it runs in has closed a cycle. Every process writes before it reads, so the last one to wait sees
the whole cycle.

An edge is a field of a hash beside the entry's, named by chance, so that a wait is told from the next one.
What is read may be old: a cycle counts only if the very same edges are still there a moment later. Edges end
with the lease; one that was waited for longer is written again.

A flight that leads may also wait, in its process, for one that waits for another process and is inside of
nothing. That one writes the edge for it, and looks four times a second who waits for it; only while somebody
does is the server asked. A cycle that it is no part of it leaves to those who are, at first.

Only for flights that lead are edges written, so that all others pay nothing.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, Protocol

from .clients import Trouble
from .scripts import Call, Place, command

__all__ = ["LOOK", "PAUSE", "Edges"]

PAUSE = 0.05  # seconds between the two looks
LOOK = 0.25  # seconds between looks for who has come to wait
_DEEPEST = 32  # links of a cycle that are followed


class Node(Protocol):
    """A flight, as far as edges know it."""

    @property
    def place(self) -> Place:
        """Where its entry is."""
        ...

    @property
    def text(self) -> str:
        """Its key, as people are to read it."""
        ...


class _Edge(NamedTuple):
    of: bytes  # the edges' hash that it is in
    nonce: bytes
    target: bytes  # the flights' hash of what is waited for
    text: str  # the key of that


class Edges:
    """The edges of one wait, from the flights that it is inside of to what it waits for.

    Args:
        outer: the flights that it is inside of, the outermost first, and those that wait for it here.
        inside: how many of these it is inside of.
        target: the flight that waits, whose key another process leads.
        lease: milliseconds after which an edge ends.
    """

    __slots__ = ("_inside", "_lease", "_nonce", "_target", "outer")
    outer: Sequence[Node]

    def __init__(self, outer: Sequence[Node], inside: int, target: Node, lease: int) -> None:
        self.outer, self._inside, self._target, self._lease = outer, inside, target, lease
        self._nonce = os.urandom(8)

    def note(self) -> list[Call]:
        """Return what writes them, or writes them again."""
        target = self._target.place.flights
        value = len(target).to_bytes(2, "big") + target + self._target.text.encode(errors="replace")
        calls = []
        for each in self.outer:
            calls.append(command("HSET", _hash_of(each.place.flights), self._nonce, value))
            calls.append(command("PEXPIRE", _hash_of(each.place.flights), self._lease))
        return calls

    def forget(self) -> list[Call]:
        """Return what takes them back."""
        return [command("HDEL", _hash_of(each.place.flights), self._nonce) for each in self.outer]

    def look(self) -> Generator[list[Call], Any, list[_Edge] | None]:
        """Follow the edges from what is waited for; return those of a cycle, or None.

        Yields calls, and is sent their replies.
        """
        home = {each.place.flights for each in self.outer}
        frontier: list[list[_Edge]] = [[]]
        seen: set[bytes] = set()
        at = [self._target.place.flights]
        for _ in range(_DEEPEST):
            hashes = [_hash_of(name) for name in at]
            replies = yield [command("HGETALL", name) for name in hashes]
            paths, nexts = [], []
            for name, path, reply in zip(hashes, frontier, replies, strict=True):
                for edge in _edges(name, reply):
                    if edge.target in home:
                        return [*path, edge]
                    if edge.target not in seen:
                        seen.add(edge.target)
                        paths.append([*path, edge])
                        nexts.append(edge.target)
            if not nexts:
                return None
            frontier, at = paths, nexts
        return None

    def is_own(self, found: list[_Edge]) -> bool:
        """Return True if the wait itself is part of a cycle: it is inside of the flight that closes it."""
        return any(each.place.flights == found[-1].target for each in self.outer[: self._inside])

    def words(self, found: list[_Edge]) -> list[str]:
        """Return the keys of a cycle, in order, the first one twice."""
        names = [each.place.flights for each in self.outer]
        start = names.index(found[-1].target)
        until = self._inside if start < self._inside else start + 1
        inside = [each.text for each in self.outer[start:until]]
        return [*inside, self._target.text, *(edge.text for edge in found)]


def _hash_of(flights: bytes) -> bytes:
    return flights + b"w"


def _edges(name: bytes, reply: Any) -> list[_Edge]:
    """Return the edges that a hash has; what cannot be read is none."""
    if isinstance(reply, Trouble):
        return []
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    found = []
    for nonce, value in pairs:
        size = 2 + int.from_bytes(value[:2], "big")
        if len(value) >= size > 2:
            found.append(_Edge(name, nonce, value[2:size], value[size:].decode(errors="replace")))
    return found
