"""The registry of slots, one for each key, live or idle. Every method is called under the mutex.

An idle lock has no state: all there is to it is its key and since when it has been idle. A handler or
finaliser that comes back in the midst of a method may only `forget` and look. Every step is a single
operation of a dictionary, so it finds a lock there or not; and a lock that is lost is made anew.

A key may be *spoilt* once it is here: it has changed, or raises when it is hashed or compared. A dictionary
lets go of nothing without that hash. So a slot is given up by identity, and whatever is not found under its
own key any more is put aside, where everybody sees it and nobody can come to it by an equal key.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Hashable
from contextlib import suppress
from math import inf
from typing import Any

from ..common.keys import InstanceKey, check_room
from .slots import Hold, Slot, Turn
from .waiters import get_ident
from .waitgraph import Cycle, forget_the_gone

__all__ = ["Idle", "Slots", "is_sound", "keys_of", "new_slot", "register", "registries"]


def new_slot(key: Hashable) -> Slot:
    """The place of a key that becomes live.

    A Python-level `__init__` runs in an interpreter loop of its own, which costs as much as the object. So
    functions make what every miss needs one of: slots, flights, records and calls.
    """
    slot = Slot()
    slot.key = key
    if type(key) is not tuple:
        slot.hash = hash(key)
    slot.turn = None
    slot.queue = ()
    return slot


IdleLock = tuple[Hashable, float]
"""The very key object that the registry has, and since when (`time.monotonic`) nobody holds it."""

_BARE = frozenset({int, str, bytes, float, bool, type(None)})
"""Types of keys that nobody's code is run for; subclasses are not among them."""


class Idle:
    """Idle locks, the least recently used first to go.

    A dictionary keeps the order of insertion, but taking from its front again and again walks over the
    holes that were left there. Taking from its end does not. So locks come in at the end of `_younger`; when
    `_older` is used up they are turned round into it, once, and then taken from its end. A key that is used
    again is simply taken out. Known cost: the turning round, as long as all that is idle, in one piece;
    a dictionary that grows does the same.

    What is kept for a key is since when it is idle. A key of the user's own making comes with it: whoever
    uses it again needs the very object, so that it is not destroyed under the mutex.

    Args:
        limit: how many are kept; None for all.
    """

    __slots__ = ("_older", "_room", "_spoilt", "_younger")

    def __init__(self, limit: int | None) -> None:
        self._room = inf if limit is None else limit  # what the limit leaves for these two
        self._younger: dict[Hashable, IdleLock | float] = {}  # the oldest first
        # The oldest last; all older than any of `_younger`.
        self._older: dict[Hashable, IdleLock | float] = {}
        self._spoilt: list[IdleLock] = []  # whose keys were found spoilt

    def __len__(self) -> int:
        return len(self._younger) + len(self._older) + len(self._spoilt)

    def keys(self) -> list[Hashable]:
        """The oldest first."""
        return [*(key for key, _ in self._spoilt), *reversed(self._older), *self._younger]

    def add(self, key: Hashable, since: float) -> Any:
        """The youngest; returns what goes for it, if anything, to be let go of after the mutex is free."""
        younger = self._younger
        try:
            younger[key] = since if type(key) in _BARE else (key, since)
        except Exception:  # the key's own
            return key, since
        older = self._older
        if len(younger) + len(older) <= self._room:
            return None
        if older:
            try:
                pair = older.popitem()  # in line: `pop_oldest`
            except KeyError:  # a handler has just forgotten it
                return None
            return pair if isinstance(pair[1], float) else pair[1]
        return self.pop_oldest()

    def pop(self, key: Hashable) -> IdleLock | None:
        """Take one out, if it is there. One that cannot be compared with the key is left where it is."""
        try:
            lock = self._younger.pop(key, None)
            if lock is None:
                lock = self._older.pop(key, None)
        except Exception:  # a key's own
            return None
        return lock if lock is None or isinstance(lock, tuple) else (key, lock)

    def put_aside(self, lock: IdleLock) -> None:
        """Its key was found spoilt: it is one of the next to go."""
        self._spoilt.append(lock)
        self._room -= 1

    def pop_oldest(self) -> IdleLock | None:
        """Take the oldest out, if there is any; spoilt ones first, where they were found."""
        if not self._older:
            self._turn_round()
            if self._spoilt:
                self._room += 1
                return self._spoilt.pop()
        try:
            key, lock = self._older.popitem()
        except KeyError:  # there was none, or a handler has just forgotten it
            return None
        return lock if lock is None or isinstance(lock, tuple) else (key, lock)

    def pop_older(self, since: float) -> list[IdleLock]:
        """Take out those that have been idle since then or longer, and those that are spoilt."""
        gone: list[IdleLock] = []
        while True:
            if not self._older:
                self._turn_round()
                while self._spoilt:
                    self._room += 1
                    gone.append(self._spoilt.pop())
            oldest = self.pop_oldest()
            if oldest is None:
                return gone
            if oldest[1] > since:
                try:
                    self._older[oldest[0]] = oldest[1] if type(oldest[0]) in _BARE else oldest  # where it was
                except Exception:  # the key's own
                    gone.append(oldest)
                return gone
            gone.append(oldest)

    def _turn_round(self) -> None:
        younger = self._younger
        try:
            turned = dict(reversed(younger.items()))
        except Exception:  # a key's own
            turned = {}
            for key, lock in reversed(list(younger.items())):
                with suppress(Exception):
                    turned.setdefault(key, lock)
        self._older, self._younger = turned, {}
        if len(turned) > len(younger):  # a handler has forgotten some before it was done
            with suppress(Exception):
                for key in turned.keys() - younger.keys():
                    turned.pop(key, None)
        elif len(turned) < len(younger):  # keys that raise, or have become equal
            kept = set(map(id, turned.values()))
            for key, lock in younger.items():
                if id(lock) not in kept:
                    self.put_aside(lock if isinstance(lock, tuple) else (key, lock))


class Slots:
    """Slots by key. A slot is looked up and taken or queued for in one section of the mutex."""

    def __init__(self, max_idle: int | None) -> None:
        self._max_idle = max_idle
        self.by_key: dict[Hashable, Slot] = {}  # the live ones; guarded by the mutex, as these are
        self._spoilt: set[Slot] = set()  # live, and found by identity alone
        self._idle = Idle(max_idle)

    def slot(self, key: Hashable) -> Slot | None:
        """The live slot of a key, if it has one; None also where the key is spoilt and raises."""
        try:
            return self.by_key.get(key)
        except Exception as error:  # the key's own
            check_room(error)
            return None

    def enter(self, key: Hashable) -> Slot:
        """The live slot of a key; the caller takes it or queues for it before it leaves the mutex."""
        slot = self.by_key.get(key)
        if slot is None:
            idle, lock = self._idle, None
            try:
                if key in idle._younger or key in idle._older:
                    lock = idle.pop(key)
            except Exception:  # a key's own
                lock = None
            if lock is None or lock[0] is key:
                slot = Slot()  # in line: `new_slot`
                slot.key = key
                if type(key) is not tuple:
                    slot.hash = hash(key)
                slot.turn = None
                slot.queue = ()
                self.by_key[key] = slot
            else:
                slot = self._use_again(lock, key)
        return slot

    def _use_again(self, idle: IdleLock, key: Hashable) -> Slot:
        """A slot with the registry's own key object, so that it is not destroyed in here."""
        own: Any = idle[0]
        if type(own) is tuple:
            # Hashed anew: since Python 3.14 a tuple remembers its hash, whatever it holds by now.
            own = (*own,)
        try:
            slot = self.by_key[own] = new_slot(own)
        except Exception:  # its own: it is let go of later, and the equal one takes its place
            self._idle.put_aside(idle)
            slot = self.by_key[key] = new_slot(key)
        return slot

    @staticmethod
    def overtake(hold: Hold) -> bool:
        """Take what a hold lacks, if unclaimed flights have it; return True if it has all then.

        An unclaimed flight's callers may all be gone. All or nothing: who takes a slot that way waits for
        nobody after it.
        """
        missing = [slot for slot in hold.slots if slot.turn is not hold]
        for slot in missing:
            first = next(iter(slot.queue), None)
            if slot.turn is None or slot.turn.leader is not None or first is not hold:
                return False
        for slot in missing:
            assert slot.turn is not None
            slot.line_up(slot.turn)  # first: an interrupt after it loses nobody
            slot.turn = hold
            slot.step_out(hold)
        return True

    @staticmethod
    def place(hold: Hold, slot: Slot) -> None:
        """Give a slot to a hold, or have it queue there."""
        hold.slots.append(slot)
        if slot.turn is None and not slot.queue:
            slot.turn = hold
        else:
            slot.line_up(hold)

    def vacate(self, slot: Slot, after: list[Any], now: float | None = None) -> None:
        """The turn of this slot is over (`now`, by `time.monotonic`): the next one gets it, or it is idle."""
        if slot.queue:
            after += self._drop_the_dead(slot)
        if slot.queue:
            slot.turn = following = slot.queue[0]  # this assignment is what gives it the slot
            slot.step_out(following)
            latch = following.admit()
            if latch is not None:
                after.append(latch.open)
            return
        key, by_key = slot.key, self.by_key
        try:
            live = by_key[key] is slot  # KeyError: it has changed
            if live:
                del by_key[key]  # first: an interrupt after it leaves nothing behind
        except Exception as error:  # the key's own
            check_room(error)
            live = False
        if not live and (slot in self._spoilt or slot in by_key.values()):
            self._file_anew(slot)
        slot.turn = None
        # Nothing is to outlive an instance.
        if live and self._max_idle != 0 and not (type(key) is tuple and key and type(key[0]) is InstanceKey):
            if now is None:
                now = time.monotonic()
            idle = self._idle  # in line: `Idle.add`
            try:
                idle._younger[key] = now if type(key) in _BARE else (key, now)
                if len(idle._younger) + len(idle._older) > idle._room:
                    after.append(idle._older.popitem() if idle._older else (idle.pop_oldest(),))
            except KeyError:  # a handler has just forgotten it
                pass
            except Exception:  # the key's own
                after.append((key,))
        else:
            after.append((slot,))

    def _file_anew(self, without: Slot) -> None:
        """Take a slot out whose key does not lead to it; others like it are put aside."""
        kept, spoilt = dict[Hashable, Slot](), set(self._spoilt)
        for slot in list(self.by_key.values()):
            if slot is not without and not _file(slot, kept, self.by_key):
                spoilt.add(slot)
        spoilt.discard(without)
        # No call between these: an interrupt finds the old ones or the new ones.
        self.by_key = kept
        self._spoilt = spoilt

    def _drop_the_dead(self, slot: Slot) -> list[tuple[object]]:
        """Out of the queue with those at its front that would never go on, nor let anybody after them."""
        if slot.turn is not None:
            slot.step_out(slot.turn)  # an interrupt may have kept it in the queue when its turn came
        gone: list[tuple[object]] = []
        while slot.queue and slot.queue[0].is_dead():
            gone.append((slot.queue[0],))
            slot.step_out(slot.queue[0])
            gone.append((forget_the_gone(),))
        return gone

    def forget(self, key: Hashable) -> object:
        """Take a key's idle lock out, so that nothing keeps the key alive; returns it, to be let go of."""
        return self._idle.pop(key)

    def live(self) -> list[Slot]:
        """Every live slot."""
        return [*self.by_key.values(), *self._spoilt]

    def after_fork(self) -> None:
        """In a forked child: only the holds of the thread that forked are still held by somebody."""
        me = get_ident()
        slots, known = self.live(), self.by_key
        self.by_key, self._spoilt, self._idle = {}, set(), Idle(self._max_idle)
        for slot in slots:
            slot.queue = ()
            if isinstance(slot.turn, Hold) and slot.turn.thread == me and not slot.turn.missing:
                filed = False
                with suppress(RecursionError):  # it forked at the end of its stack
                    filed = _file(slot, self.by_key, known)
                if not filed:
                    self._spoilt.add(slot)
            elif slot.turn is not None:
                slot.turn.orphan()


def is_sound(slot: Slot, by_key: dict[Hashable, Slot]) -> bool:
    """Return True if a live slot's key still has the hash that it was filed with.

    A dictionary may find a changed key by its identity, before it compares hashes. So a tuple is looked up by
    a copy, which costs less than to remember its hash; for all else the hash is remembered. Raises what the
    key raises.
    """
    key: Any = slot.key
    if type(key) is tuple:
        return by_key.get((*key,)) is slot
    return hash(key) == slot.hash


def _file(slot: Slot, by_key: dict[Hashable, Slot], known: dict[Hashable, Slot]) -> bool:
    """File a slot that was known so far under its key. Return True if that is sound.

    A key that has changed must not be filed as what it is now: others may ask for that.
    """
    try:
        return is_sound(slot, known) and by_key.setdefault(slot.key, slot) is slot
    except Exception as error:  # the key's own
        check_room(error)
        return False


# Touched in single operations of the set alone, so no lock is needed: a registry may be made, or die, on any
# thread while others look. (A `WeakSet` is walked step by step, and raises when something dies meanwhile.)
_registries: set[weakref.ref[Slots]] = set()


class _Reference(weakref.ref["Slots"]):
    """Goes by identity: subclasses of `KeyedLocks` may compare their objects as they like."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__
    __ne__ = object.__ne__


def register(slots: Slots) -> None:
    """Remember a registry for as long as it lives."""
    _registries.add(_Reference(slots, _registries.discard))  # in C: no interrupt can cut the callback short


def registries() -> list[Slots]:
    """Every registry of keyed locks alive."""
    return [slots for ref in list(_registries) if (slots := ref()) is not None]


def keys_of(found: Cycle | None, wanted: Turn) -> list[Hashable] | None:
    """Every key of a cycle in order, also those that an actor took in between; call under the mutex.

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
