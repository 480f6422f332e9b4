"""A hold that queues for its keys, and the names of the keys that a circle of waiting goes through."""

from __future__ import annotations

import time
import weakref
from collections.abc import Hashable

from .circles import Circle, circle, note, refusal
from .errors import FlightDeadlock, FlightTimeout
from .gates import LOOK, LOOK_AGAIN, Gate
from .messages import listed
from .slots import Slots
from .turns import Hold, Turn, mutex

__all__ = ["Queued", "keys_of", "register", "registries"]

# By identity, which is free again only after the reference has left. Touched in single operations of the
# dictionary alone, so no lock is needed: a registry may be made, or die, on any thread while others look.
# (A `WeakSet` is iterated over step by step, and raises when something dies meanwhile.)
_registries: dict[int, weakref.ref[Slots]] = {}


def register(slots: Slots) -> None:
    """Remember a registry for as long as it lives."""
    identity, forget = id(slots), _registries.pop
    _registries[identity] = weakref.ref(slots, lambda _: forget(identity, None))


def registries() -> list[Slots]:
    """Every registry of keyed locks alive."""
    return [slots for ref in list(_registries.values()) if (slots := ref()) is not None]


class Queued:
    """A hold on its way to its keys, and for how long its owner is ready to wait."""

    __slots__ = ("_give_up", "gate", "hold", "timeout")

    def __init__(self, hold: Hold, gate: Gate, timeout: float | None) -> None:
        self.hold, self.gate, self.timeout = hold, gate, timeout
        self._give_up = None if timeout is None else time.monotonic() + timeout

    def pause(self) -> float:
        """For how many seconds to wait before looking."""
        pause = LOOK_AGAIN if self.hold.asker.uneasy else LOOK
        return pause if self._give_up is None else max(0.0, min(pause, self._give_up - time.monotonic()))

    def is_over(self) -> bool:
        """Whether its owner has waited long enough."""
        return self._give_up is not None and time.monotonic() >= self._give_up

    def circle(self) -> list[Hashable] | None:
        """The keys of the circle that its waiting closes, if it does; call under the mutex."""
        return keys_of(circle(self.hold.asker, self.hold, self._give_up is not None), self.hold)

    def look(self) -> bool:
        """Whether it has its keys after all (a wake-up may fall to an interrupt); raises to give up."""
        hold, found = self.hold, None
        for turn in [slot.turn for slot in hold.slots]:
            if turn is not None and turn is not hold:
                turn.see_to()
        with mutex:
            granted = not hold.missing or hold.overtake()
            if not granted and hold.asker.uneasy:
                hold.asker.look_again()
                note(hold.asker, hold.asker.climb())
                found = self.circle()
        if found is not None:
            raise FlightDeadlock(refusal(found))
        if not granted and self.is_over():
            raise FlightTimeout(f"waited {self.timeout:g} s for {listed(hold.keys)}")
        return granted


def keys_of(found: Circle | None, wanted: Turn) -> list[Hashable] | None:
    """Every key of a circle in order, also those that an actor took in between; call under the mutex.

    An actor that has A, and within it B, and then waits for C is told as `A -> B -> C`.
    """
    if found is None:
        return None
    live = [slot for locks in registries() for slot in locks.live()]
    turns = [(slot.key, slot.turn) for slot in live if slot.turn is not None and slot.turn is not wanted]
    turns.sort(key=lambda pair: pair[1].number)
    keys: list[Hashable] = []
    for key, turn in found:
        keys.append(key)
        keys += [k for k, other in turns if other.leader == turn.leader and other.number > turn.number]
    return [*keys, found[0][0]]
