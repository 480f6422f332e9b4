"""Turns at keys: what occupies a key's slot, who waits for it, and whether that would ever end.

A slot is *live* while somebody occupies it or queues for it, and *idle* otherwise. What occupies a slot
is a *turn*: a plain hold (`with locks(key):`) or a flight.

One process-wide `mutex` guards all slots and turns of all registries, because circles of waiting cross
functions. It is held for microseconds, never together with a store's lock, and runs nothing of the user's
but a key's `__hash__` and `__eq__`. It is re-entrant only so that a finaliser or signal handler that comes
back in the midst of a section can notice (`inside`) and keep out, instead of hanging.

Waiting: a turn has a gate, made when the first waiter comes. The gate is a turnstile: whoever opens it
releases one lock once, and every waiter that passes lets the next one through, so that opening costs the
same for one waiter as for a thousand.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from itertools import count, islice
from threading import get_ident
from typing import Any

__all__ = [
    "LOOK",
    "Actor",
    "Circle",
    "Gate",
    "Hold",
    "Slot",
    "Told",
    "Turn",
    "ahead",
    "begin_waiting",
    "circle",
    "current_actor",
    "describe",
    "end_waiting",
    "inside",
    "keep_waiting",
    "mutex",
    "numbers",
    "reset_after_fork",
    "waits",
]

mutex: Any = threading.RLock()
inside: Callable[[], bool] = mutex._is_owned
"""Whether this very thread is inside a section of the mutex, as only a re-entering caller can find."""

Actor = Hashable
"""Who holds and waits: a thread, by its identifier."""

LOOK = 1.0  # seconds after which a waiting thread looks for itself whether its gate has opened

current_actor: Callable[[], Actor] = get_ident

# Who waits for which turn (the last one; see begin_waiting). An entry is written by its own actor.
_waiting: dict[Actor, tuple[Turn, ...]] = {}


class Gate:
    """Shut until it is opened, once; then everybody passes.

    `open` may be called again: a waiter that is interrupted at the wrong moment cannot know whether it has
    the turnstile, so it opens, and a second release does no harm.
    """

    __slots__ = ("_turnstile",)

    def __init__(self) -> None:
        self._turnstile = threading.Lock()
        self._turnstile.acquire()

    def open(self) -> None:
        """Let everybody through."""
        with suppress(RuntimeError):  # open already
            self._turnstile.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait in a thread until the gate is open; False when `timeout` seconds passed first."""
        if timeout is None:
            passed = self._turnstile.acquire()
        else:
            passed = self._turnstile.acquire(timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        if passed:
            self.open()  # for the next one
        return passed


class Slot:
    """A key's place in the registry. All fields are guarded by the mutex.

    `turn` occupies the slot; `queue` holds the turns that will, first come, first served. A key has a
    slot while it is live; when it is live again it is another one.
    """

    __slots__ = ("key", "queue", "turn")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.turn: Turn | None = None
        self.queue: deque[Turn] | tuple[()] = ()  # a deque from the first waiter on: it is large

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

numbers = count(1)


class Turn:
    """One occupation of one or more slots, now or later. All fields are guarded by the mutex.

    `leader` is the actor that has it, or None while it waits for somebody to claim it; `gate` opens when
    what its waiters wait for has come.
    """

    __slots__ = ("depth", "gate", "key", "leader", "number")

    def __init__(self, key: Hashable, leader: Actor | None) -> None:
        self.key = key
        self.leader = leader
        self.number = 0  # when it was claimed, among all turns
        self.depth = 0  # how many waits its leader had begun before; those do not hold this turn up
        self.gate: Gate | None = None

    def orphan(self) -> None:
        """The thread that had it does not exist in this forked child."""

    def admit(self) -> Gate | None:
        """One slot more is this turn's now; returns a gate to open once the mutex is free."""
        raise NotImplementedError

    def blockers(self, told: Told) -> Iterator[tuple[Hashable, Turn]]:
        """What those who wait for this turn are held up by: a key and the turn that has it or is next.

        `told` remembers, for one walk, how much of each slot's queue has been named.
        """
        raise NotImplementedError

    def waiters(self) -> int:
        """How many actors wait for it, its own leader not counted."""
        raise NotImplementedError


Circle = list[tuple[Hashable, Turn]]


class Hold(Turn):
    """A plain lock on one or more keys: it takes or queues for all of them in one step.

    Because all its places in all queues are taken at once, two holds never wait for each other; its owner
    goes on when no slot is `missing`. A slot is its own by being assigned to it, and nothing else counts.
    """

    __slots__ = ("keys", "slots")

    def __init__(self, keys: tuple[Hashable, ...], leader: Actor) -> None:
        super().__init__(keys, leader)
        self.number = next(numbers)
        self.keys = keys
        self.slots: list[Slot] = []

    @property
    def missing(self) -> bool:
        """Whether a slot that it queues for is not its own yet."""
        return any(slot.turn is not self for slot in self.slots)

    def admit(self) -> Gate | None:
        """One slot more; the gate opens with the last."""
        return None if self.missing else self.gate

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


def circle(me: Actor, wanted: Turn) -> Circle | None:
    """The circle that would close if `me` waited for a turn, or None; call under the mutex.

    Begins with the key and turn that `me` has, then each that the one before waits for. Every wait adds
    edges only here, and every circle needs a last one, so whoever would close it is told, and nobody else.
    """
    told: Told = {}
    todo: list[tuple[Turn, Circle]] = [(turn, [(key, turn)]) for key, turn in wanted.blockers(told)]
    seen: set[int] = set()
    while todo:
        turn, path = todo.pop()
        if turn.leader == me:
            return [path[-1], *path[:-1]]
        if id(turn) in seen or turn.leader is None:
            continue
        seen.add(id(turn))
        # A signal handler may lead a turn on top of a wait that it interrupted: that wait holds up
        # what the leader had before, and not this.
        for held_up_by in _waiting.get(turn.leader, ())[turn.depth :]:
            todo += [(blocker, [*path, (key, blocker)]) for key, blocker in held_up_by.blockers(told)]
    return None


def describe(keys: list[Hashable]) -> str:
    """A circle as text. Runs the keys' `__repr__`: never call it under the mutex."""
    return " -> ".join(map(repr, keys))


def waits(me: Actor) -> int:
    """How many waits of `me` are under way: more than one where signal handlers wait on top."""
    return len(_waiting.get(me, ()))


def begin_waiting(me: Actor, turn: Turn) -> None:
    """Note that `me` waits for a turn, on top of what it waits for already; call under the mutex."""
    _waiting[me] = (*_waiting.get(me, ()), turn)


def keep_waiting(me: Actor, turn: Turn) -> None:
    """Note that `me` now waits for this turn instead; call under the mutex."""
    _waiting[me] = (*_waiting.get(me, ())[:-1], turn)


def end_waiting(me: Actor, before: int) -> None:
    """Go back to the `waits` there were before; may be repeated. The entry is its actor's own."""
    left = _waiting.get(me, ())[:before]
    if left:
        _waiting[me] = left
    else:
        _waiting.pop(me, None)


def reset_after_fork() -> None:
    """In a forked child: nobody else is in the mutex, and nobody waits."""
    mutex._at_fork_reinit()
    _waiting.clear()
