"""Turns at keys: what occupies a key's slot, and who will after it.

A slot is *live* while somebody occupies it or queues for it, and *idle* otherwise. What occupies a slot
is a *turn*: a plain hold (`with locks(key):`) or a flight. Who waits for a turn stands at its latch, made
when the first one comes.

The mutex guards all slots and turns of all registries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from itertools import count, islice
from typing import Any

from .jobs import Job
from .latch import Latch
from .waiters import Actor, Waiter

__all__ = [
    "Hold",
    "Slot",
    "Told",
    "Turn",
    "ahead",
    "numbers",
]


class Slot:
    """A key's place in the registry. All fields are guarded by the mutex.

    `turn` occupies the slot; `queue` holds the turns that will, first come, first served. A key has a
    slot while it is live; when it is live again it is another one. Made by `table.new_slot`.
    """

    __slots__ = ("hash", "key", "queue", "turn")
    key: Hashable
    hash: int  # the key's, when the slot became live; not there for tuples (see `table.is_sound`)
    turn: Turn | None
    queue: deque[Turn] | tuple[()]  # a deque from the first waiter on: it is large

    def line_up(self, turn: Turn) -> None:
        """The last in the queue."""
        if isinstance(self.queue, tuple):
            self.queue = deque((turn,))
        else:
            self.queue.append(turn)

    def step_out(self, turn: Turn) -> None:
        """Out of the queue, wherever in it."""
        if isinstance(self.queue, deque) and turn in self.queue:
            self.queue.remove(turn)
            if not self.queue:
                self.queue = ()


Told = dict[Slot, int]

numbers: count[int] = count(1)


class Turn:
    """One occupation of one or more slots, now or later. All fields are guarded by the mutex.

    `leader` is the actor that has it, or None while it waits for somebody to claim it; `thread` is where the
    leader runs; `latch` opens when what its waiters wait for has come.
    """

    __slots__ = ("depth", "key", "latch", "leader", "number", "thread")
    key: Hashable
    leader: Actor | None
    thread: Actor | None
    number: int  # when it was claimed, among all turns
    depth: int  # how many waits its leader had begun before; those do not hold this turn up
    latch: Latch | None
    state: Any = None  # a flight's
    unbegun = False  # whether it is a renewal that nobody runs yet: see `Flight`
    life: Callable[[], object] | None = None  # of the thread that runs it, where that has to end it
    job: Job | None = None  # what its thread was doing when it was taken, where that may be over before it
    any_of: object = None  # the line it stands in: any of its blockers lets it through, and not only all

    def is_over(self) -> bool:
        """Return True if nothing is to be expected of it any more by those who wait."""
        return False

    def see_to(self) -> None:
        """Whoever waits for it looks whether it can still end, and ends it if not. Called under no lock."""

    def is_dead(self) -> bool:
        """Return True if its leader will never go on; asked of those that queue, too."""
        return False

    def orphan(self) -> None:
        """The thread that had it does not exist in this forked child."""

    def unbind(self, _job: Job, /) -> None:
        """The job in which its thread took it is over."""

    def admit(self) -> Latch | None:
        """One slot more is this turn's now; returns a latch to open once the mutex is free."""
        raise NotImplementedError

    def blockers(self, told: Told) -> Iterator[tuple[Hashable, Turn]]:
        """What those who wait for this turn are held up by: a key and the turn that has it or is next.

        `told` remembers, for one walk, how much of each slot's queue has been named.
        """
        raise NotImplementedError

    def waiters(self) -> int:
        """How many actors wait for it, its own leader not counted."""
        raise NotImplementedError


class Hold(Turn):
    """A plain lock on one or more keys: it takes or queues for all of them in one step.

    Because all its places in all queues are taken at once, two holds never wait for each other; its owner
    goes on when no slot is `missing`. A slot is its own by being assigned to it, and nothing else counts.
    """

    __slots__ = ("_release", "job", "keys", "slots", "token", "waiter")
    keys: tuple[Hashable, ...]
    key: Hashable
    leader: Actor | None
    depth: int
    latch: Latch | None

    def __init__(
        self, keys: tuple[Hashable, ...], waiter: Waiter, release: Callable[[Hold], None] | None = None
    ) -> None:
        self.key = self.keys = keys
        self.leader, self.thread = waiter.actor, waiter.thread
        self.depth, self.latch = 0, None
        self.job: Job | None = None
        self.waiter: Waiter = waiter
        self._release = release  # how its owner gives it up
        self.token: Any = None  # what its owner's context is to go back to
        self.number: int = next(numbers)
        self.slots: list[Slot] = []

    @property
    def missing(self) -> bool:
        """Return True if a slot that it queues for is not its own yet."""
        return any(slot.turn is not self for slot in self.slots)

    def see_to(self) -> None:
        """One of a task that will never run again is given up on its behalf."""
        if self._release is not None and self.is_dead():
            self._release(self)

    def in_the_way(self) -> list[Turn]:
        """What has the slots that it queues for."""
        return [slot.turn for slot in self.slots if slot.turn is not None and slot.turn is not self]

    def is_dead(self) -> bool:
        """Return True if its owner is a task whose event loop is gone."""
        return self.waiter.is_dead()

    def unbind(self, job: Job, /) -> None:
        """That job is over, so what its thread does now has nothing to do with this; call under the mutex."""
        leader: Actor | None = job.nobody() if self.leader == self.thread else self.leader
        # No call from here on: an interrupt finds it bound, or not.
        self.leader = leader
        self.thread = None
        self.job = None

    def admit(self) -> Latch | None:
        """One slot more; the latch opens with the last."""
        return None if self.missing else self.latch

    def blockers(self, told: Told) -> Iterator[tuple[Hashable, Turn]]:
        """Whoever is ahead in a slot that is still missing."""
        for slot in self.slots:
            if slot.turn is not self:
                yield from ahead(self, slot, told)

    def waiters(self) -> int:
        """Nobody waits for a hold itself; they queue for its slots."""
        return 0


def ahead(turn: Turn, slot: Slot, told: Told) -> Iterator[tuple[Hashable, Turn]]:
    """Whoever must be through with a slot before this turn may have it, but for those named already."""
    named = told.get(slot)
    position = slot.queue.index(turn) if turn in slot.queue else len(slot.queue)
    told[slot] = max(named or 0, position)
    if named is None and slot.turn is not None:
        yield slot.key, slot.turn
    for other in islice(slot.queue, named or 0, position):
        yield slot.key, other
