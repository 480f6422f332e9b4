"""Who waits for whom, and whether a wait would close a cycle.

A wait adds its edges under the mutex, after looking for a path from what it waits for back to whoever
asks. A turn that changes hands passes to somebody who is not waiting at that moment, so no cycle closes
without a new wait.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from collections.abc import Set as AbstractSet

from ..common import patches
from ..common.messages import shown
from .mutex import inside, mutex
from .slots import Told, Turn
from .waiters import Actor, Waiter

__all__ = [
    "Cycle",
    "begin_waiting",
    "below",
    "cycle",
    "describe",
    "end_waiting",
    "forget_the_gone",
    "holds_up",
    "keep_waiting",
    "note",
    "refusal",
    "reset_after_fork",
    "waiting",
    "waits",
]

# Who waits for which turn, the last on top (see begin_waiting). Written under the mutex; taken out by its own
# actor without it, or under it once that actor's loop is gone.
waiting: dict[Actor | None, tuple[Turn, ...]] = {}

Cycle = list[tuple[Hashable, Turn]]


# Of those who wait in the library while somebody may wait for them outside it: who is above them, as far as
# they looked. Written under the mutex.
below: dict[Actor, dict[Waiter, None]] = {}


def cycle(waiter: Waiter, wanted: Turn, bounded: bool = False) -> Cycle | None:
    """The cycle that would close if somebody waited for a turn, or None; call under the mutex.

    With `bounded` the wait ends by itself, so it is not refused where a cycle is in doubt (see `Job`).

    Begins with the key and turn that the waiter holds up, then each that the one before waits for. Every
    wait adds edges only here, and every cycle needs a last one, so whoever would close it is told, and
    nobody else. (Waits outside the library add edges too: who may be part of those asks again.)
    """
    while True:
        found, through = _blocked(waiter, wanted, bounded, ())
        if all(_still_below(other, leader) for other, leader in through):
            return found


Through = tuple[tuple[Waiter, Actor], ...]  # waits that hold up a leader only because it waits for the waiter


def _blocked(
    waiter: Waiter, wanted: Turn, bounded: bool, within: tuple[object, ...]
) -> tuple[Cycle | None, Through]:
    """The cycle, if there is one; where any blocker lets it through, one that each of them is part of."""
    told: Told = {}
    first: list[tuple[Turn, Cycle, Through]] = [
        (turn, [(key, turn)], ()) for key, turn in wanted.blockers(told)
    ]
    if wanted.any_of is None:
        return _search(waiter, first, bounded, told, within)
    found: Cycle | None = None
    through: Through = ()
    for begin in first:
        other, because = _search(waiter, [begin], bounded, {}, (*within, wanted.any_of))
        if other is None:
            return None, ()
        found, through = found or other, (*through, *because)
    return found, through


def _search(
    waiter: Waiter,
    todo: list[tuple[Turn, Cycle, Through]],
    bounded: bool,
    told: Told,
    within: tuple[object, ...],
) -> tuple[Cycle | None, Through]:
    """Look for a way back to the waiter, from these turns, each with the way to it.

    `within` are the lines whose seats are being looked at: who waits in one of these gets no further than
    the others there do.
    """
    seen: set[int] = set()
    outside: tuple[Cycle | None, Through] = None, ()  # a cycle that is closed outside the library
    while todo:
        turn, path, through = todo.pop()
        if turn.leader is None or id(turn) in seen:
            continue
        seen.add(id(turn))
        if turn.life is not None and turn.life() is None:
            continue  # nobody waits for its thread, which has ended; another one may have its identifier
        job = turn.job
        if job is not None:
            if job.is_over():
                turn.unbind(job)
            elif bounded and job.is_in_doubt():
                continue
        if turn.leader == waiter.blocks or turn.thread == waiter.blocks:
            return [path[-1], *path[:-1]], through
        if outside[0] is None and waiter.is_below(turn):
            outside = [path[-1], *path[:-1]], through
        for held_up_by, other in _waits_of(turn):
            because = through if other is None or other is waiter else (*through, (other, turn.leader))
            line = held_up_by.any_of
            if line is not None:
                if held_up_by.is_over():
                    continue
                if line in within:
                    return [path[-1], *path[:-1]], because
                rest, why = _blocked(waiter, held_up_by, bounded, within)
                if rest is not None:
                    return [rest[0], *path, *rest[1:]], (*because, *why)
                continue
            for key, blocker in held_up_by.blockers(told):
                todo.append((blocker, [*path, (key, blocker)], because))
    return outside


def holds_up(turn: Turn, other: Turn) -> bool:
    """Return True if the leader of another turn waits for this one, if need be by way of others.

    Call under the mutex. Waits in a line, which any of several may end, are left out.
    """
    told: Told = {}
    seen: set[int] = set()
    todo = [other]
    while todo:
        at = todo.pop()
        if at.leader is None or id(at) in seen:
            continue
        seen.add(id(at))
        for wanted, _ in _waits_of(at):
            line = wanted.any_of
            if line is None:
                todo += [blocker for _, blocker in wanted.blockers(told)]
        if turn in todo:
            return True
    return False


def _waits_of(turn: Turn) -> Iterator[tuple[Turn, Waiter | None]]:
    """What a turn's leader waits for, and what blocks the thread it runs on, or those that it waits for."""
    # A signal handler may lead a turn on top of a wait that it interrupted: that wait holds up what the
    # leader had before, and not this.
    thread, leader = turn.thread, turn.leader
    for wait in waiting.get(thread, ())[turn.depth :]:
        yield wait, None
    if leader != thread:
        for wait in waiting.get(leader, ()):
            yield wait, None
    for other in list(below.get(leader, ())):
        for wait in waiting.get(other.blocks, ()):
            yield wait, other


def _still_below(other: Waiter, leader: Actor) -> bool:
    """Return True if a leader still waits for somebody, who may have looked a while ago; else note it."""
    above = other.climb()
    if leader in above:
        return True
    note(other, above)
    return False


def note(waiter: Waiter, above: AbstractSet[Actor]) -> None:
    """Note who waits, outside the library, for somebody who waits in it; call under the mutex."""
    for actor in waiter.noted:
        others = below.get(actor)
        if others is not None:
            others.pop(waiter, None)
            if not others:
                del below[actor]
    waiter.noted = above
    for actor in above:
        below.setdefault(actor, {})[waiter] = None


def describe(keys: list[Hashable]) -> str:
    """A cycle as text. Runs the keys' `__repr__`: never call it under the mutex."""
    return " -> ".join(map(shown, keys))


def refusal(keys: list[Hashable]) -> str:
    """What a caller is told that would close this cycle. Never call it under the mutex."""
    patches.tell("refusing")
    return f"waiting would never end: {describe(keys)}{patches.hint()}"


def waits(me: Actor) -> int:
    """How many waits of `me` are under way: more than one where signal handlers wait on top."""
    return len(waiting[me]) if me in waiting else 0


def begin_waiting(me: Actor, turn: Turn) -> None:
    """Note that `me` waits for a turn, on top of what it waits for already; call under the mutex."""
    waiting[me] = (*waiting[me], turn) if me in waiting else (turn,)


def keep_waiting(me: Actor, turn: Turn) -> None:
    """Note that `me` now waits for this turn instead; call under the mutex."""
    waiting[me] = (*waiting.get(me, ())[:-1], turn)


def end_waiting(me: Actor | None, before: int) -> None:
    """Go back to the `waits` there were before; may be repeated. The entry is its actor's own."""
    if not before:
        waiting.pop(me, None)
    elif me in waiting:
        waiting[me] = waiting[me][:before]


def forget_the_gone() -> list[object]:
    """A loop was found closed: its tasks wait no more, and are not to be kept alive.

    Returns what is to be let go of when the mutex is free.
    """
    gone: list[object] = []
    with mutex:
        for actor in list(waiting):
            loop = getattr(actor, "get_loop", None)
            if loop is not None and loop().is_closed():
                gone += (actor, waiting.pop(actor, None))
        for waiter in {waiter: None for others in below.values() for waiter in others}:
            if waiter.blocks not in waiting:
                note(waiter, frozenset())
                gone.append(waiter)
    return gone


def reset_after_fork() -> None:
    """In a forked child: nobody else is in the mutex, and nobody waits."""
    if not inside():  # a handler may fork amid a section of its own thread, which goes on in the child
        mutex._at_fork_reinit()
    waiting.clear()
    below.clear()
