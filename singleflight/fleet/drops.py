"""What was changed here and is not yet confirmed by the server: a claim sends it first, or it is replayed.

A *drop* is noted before it is sent and forgotten when the server has confirmed it. In between

- a claim of its key sends it first, in the same pipeline (`first_for`): a process reads its own drops;
- the keeper sends what an event loop handed over, and all that is left after an outage (`unconfirmed`),
  before any claim of this process is asked.

The last drop of a key counts: a put after an invalidation is a put, which drops as well, and the reverse. A
cleared function forgets its drops before that. A function with more than `limit` drops forgets them for a
clear, which drops more than was asked for, and never less. Drops keep the order in which they were noted.

A put that is not confirmed when one of its tags is invalidated is a drop from then on (`Link.note_cut`): sent
after the cut, it would count as later. It is sent after all that it is to outlast, clears and cuts.

A drop is confirmed by identity: what was noted for the same key in the meantime stays. It may be sent twice,
but not at once: who sends one says so first (`Link.takes`), so that changes arrive in order.

Not thread-safe: call it under the store's own lock.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Literal, NamedTuple, TypeAlias

__all__ = ["Drop", "Drops"]

Kind: TypeAlias = Literal["drop", "put", "clear", "cut"]


_GROUP: dict[Kind, str] = {"drop": "key", "put": "key", "cut": "tag", "clear": "clear"}
_number = attrgetter("number")


class Drop(NamedTuple):
    """One change that the server is to be told of.

    Args:
        kind: "drop" and "put" concern one key, "cut" one tag, "clear" the whole function.
        function: the function's digest.
        name: the digest of the key or of the tag; empty for a clear.
        number: grows with each that is noted, so that no two are equal.
        payload: what a put stores, as the sender wants it.
    """

    kind: Kind
    function: bytes
    name: bytes
    number: int
    payload: Any = None


class Drops:
    """The drops that are not confirmed.

    Args:
        limit: how many of one function are kept apart, before all of them become a clear.
    """

    __slots__ = ("_limit", "_number", "_of")

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self._number = 0
        self._of: dict[bytes, dict[tuple[str, bytes], Drop]] = {}

    def note(self, kind: Kind, function: bytes, name: bytes = b"", payload: object = None) -> Drop:
        """Note a change before it is sent. Return what is to be sent and confirmed.

        Over the limit that is a clear of the function.
        """
        kept = self._of.setdefault(function, {})
        slot = (_GROUP[kind], name)
        kept.pop(slot, None)  # what is noted again goes to the end
        if kind == "clear" or len(kept) >= self._limit:
            kept.clear()
            kind, name, payload = "clear", b"", None
            slot = ("clear", b"")
        self._number += 1
        drop = kept[slot] = Drop(kind, function, name, self._number, payload)
        return drop

    def first_for(self, function: bytes, name: bytes) -> list[Drop]:
        """Return what a claim of this key sends first, in order: its own, the function's clear and cuts."""
        kept = self._of.get(function)
        if not kept:
            return []
        return [drop for (group, of), drop in kept.items() if group != "key" or of == name]

    def puts(self, function: bytes) -> list[Drop]:
        """Return what was put, in order."""
        return [drop for drop in self._of.get(function, {}).values() if drop.kind == "put"]

    def confirmed(self, drop: Drop) -> bool:
        """The server did it: forget it. Return False if it is not there: confirmed, or noted anew."""
        kept = self._of.get(drop.function, {})
        slot = (_GROUP[drop.kind], drop.name)
        if kept.get(slot) is not drop:
            return False
        del kept[slot]
        if not kept:
            del self._of[drop.function]
        return True

    def current(self, drop: Drop) -> Drop | None:
        """Return what is to be sent for a drop by now: also what took its place. None if it is confirmed."""
        kept = self._of.get(drop.function, {})
        later = kept.get((_GROUP[drop.kind], drop.name)) or kept.get(("clear", b""))
        return later if later is not None and later.number >= drop.number else None

    def unconfirmed(self) -> list[Drop]:
        """Return all that is to be sent, in order."""
        return sorted((drop for kept in self._of.values() for drop in kept.values()), key=_number)

    def __bool__(self) -> bool:
        return bool(self._of)

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))
