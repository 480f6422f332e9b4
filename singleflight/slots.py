"""The registry of slots, one for each key, live or idle. Every method is called under the mutex."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable

from .gates import Gate
from .keys import InstanceKey
from .turns import Hold, Slot, get_ident

__all__ = ["Slots"]


class Slots:
    """Slots by key. A slot is looked up and taken or queued for in one section of the mutex."""

    def __init__(self, max_idle: int | None) -> None:
        self._max_idle = max_idle
        self._live: dict[Hashable, Slot] = {}  # both guarded by the mutex
        self._idle: OrderedDict[Hashable, Slot] = OrderedDict()  # least recently used first

    def slot(self, key: Hashable) -> Slot | None:
        """The live slot of a key, if it has one."""
        return self._live.get(key)

    def enter(self, key: Hashable) -> Slot:
        """The live slot of a key; the caller takes it or queues for it before it leaves the mutex."""
        slot = self._live.get(key)
        if slot is None:
            slot = self._idle.pop(key, None)
            if slot is None:
                slot = Slot(key)
            self._live[slot.key] = slot  # its own key object, so that no other is dropped in here
        return slot

    def vacate(self, slot: Slot) -> tuple[Gate | None, Slot | None]:
        """The turn of this slot is over: the next one gets it, or it becomes idle.

        Returns a gate to open and an evicted slot to let go of, both once the mutex is free.
        """
        if slot.turn is not None:
            slot.step_out(slot.turn)  # an interrupt may have kept it in the queue when its turn came
        if slot.queue:
            slot.turn = following = slot.queue[0]  # this assignment is what gives it the slot
            slot.step_out(following)
            return following.admit(), None
        key = slot.key
        live = self._live.get(key) is slot
        if live:
            del self._live[key]  # first: an interrupt after it leaves nothing behind
        slot.turn = None
        of_instance = type(key) is tuple and key and type(key[0]) is InstanceKey
        if self._max_idle == 0 or not live or of_instance:  # nothing is to outlive an instance
            return None, slot
        slot.idle_since = time.monotonic()
        self._idle[slot.key] = slot
        if self._max_idle is not None and len(self._idle) > self._max_idle:
            return None, self._idle.popitem(last=False)[1]
        return None, None

    def forget(self, key: Hashable) -> Slot | None:
        """Take a key's idle lock out, so that nothing keeps the key alive; returns it, to be let go of."""
        return self._idle.pop(key, None)

    def live(self) -> list[Slot]:
        """Every live slot."""
        return list(self._live.values())

    def after_fork(self) -> None:
        """In a forked child: only the holds of the thread that forked are still held by somebody."""
        me = get_ident()
        live, self._live, self._idle = self._live, {}, OrderedDict()
        for key, slot in live.items():
            slot.queue = ()
            if isinstance(slot.turn, Hold) and slot.turn.thread == me and not slot.turn.missing:
                self._live[key] = slot
            elif slot.turn is not None:
                slot.turn.orphan()
