"""Where a process's claims wait for what comes by its channel: names, and who waits at each.

A claim registers its mailbox before it asks the server, and leaves when it ends. A wake goes to all that are
registered under its name at that moment; the last wake in a box counts. After a *gap* (the connection of the
bus was away, so wakes may be lost) all are told to ask again.

Not thread-safe: call it under the lock of the claims. Tell the boxes that are returned when it is free.
"""

from __future__ import annotations

from collections.abc import Callable

from .replies import AGAIN, Wake

__all__ = ["Mailbox", "Mailboxes"]


class Mailbox:
    """Holds the last wake until its claim takes it.

    Args:
        ring: tells whoever waits that there is one. It must not block or raise, and may be called too often.
    """

    __slots__ = ("ring", "wake")

    def __init__(self, ring: Callable[[], object]) -> None:
        self.ring: Callable[[], object] = ring
        self.wake: Wake | None = None

    def take(self) -> Wake | None:
        """Return the wake, and empty the box."""
        wake, self.wake = self.wake, None
        return wake


class Mailboxes:
    """The boxes of a process, by name (a digest and a fingerprint, as one string of bytes)."""

    __slots__ = ("_boxes",)

    def __init__(self) -> None:
        self._boxes: dict[bytes, list[Mailbox]] = {}

    def register(self, name: bytes, box: Mailbox) -> None:
        """Put wakes for this name into the box from now on, which is emptied. May be repeated."""
        box.wake = None
        boxes = self._boxes.setdefault(name, [])
        if box not in boxes:
            boxes.append(box)

    def leave(self, name: bytes, box: Mailbox) -> None:
        """Put nothing more into the box. May be repeated."""
        boxes = self._boxes.get(name, [])
        if box in boxes:
            boxes.remove(box)
            if not boxes:
                del self._boxes[name]

    def deliver(self, name: bytes, wake: Wake) -> list[Mailbox]:
        """A wake came: put it into the boxes of this name, and return those to ring."""
        boxes = self._boxes.get(name, [])
        for box in boxes:
            box.wake = wake
        return boxes.copy()

    def gap(self) -> list[Mailbox]:
        """Wakes may be lost: all are to ask again. Return those to ring."""
        return [box for name in self._boxes for box in self.deliver(name, AGAIN)]

    def __len__(self) -> int:
        return sum(map(len, self._boxes.values()))
