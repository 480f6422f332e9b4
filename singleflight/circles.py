"""Who waits for whom, and whether a wait would close a circle.

A wait adds its edges under the mutex, after looking for a path from what it waits for back to whoever
asks. A turn that changes hands passes to somebody who is not waiting at that moment, so no circle closes
without a new wait.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator

from .turns import Actor, Asker, Told, Turn, inside, mutex

__all__ = [
    "Circle",
    "begin_waiting",
    "circle",
    "describe",
    "end_waiting",
    "keep_waiting",
    "reset_after_fork",
    "waiting",
    "waits",
]

# Who waits for which turn, the last on top (see begin_waiting). Written under the mutex, but taken out by
# its own actor alone.
waiting: dict[Actor | None, tuple[Turn, ...]] = {}

Circle = list[tuple[Hashable, Turn]]


def circle(asker: Asker, wanted: Turn) -> Circle | None:
    """The circle that would close if somebody waited for a turn, or None; call under the mutex.

    Begins with the key and turn that the asker holds up, then each that the one before waits for. Every
    wait adds edges only here, and every circle needs a last one, so whoever would close it is told, and
    nobody else. (Waits outside the library add edges too: who may be part of those asks again.)
    """
    told: Told = {}
    todo: list[tuple[Turn, Circle]] = [(turn, [(key, turn)]) for key, turn in wanted.blockers(told)]
    seen: set[int] = set()
    while todo:
        turn, path = todo.pop()
        if turn.leader is None or id(turn) in seen:
            continue
        seen.add(id(turn))
        if asker.holds_up(turn):
            return [path[-1], *path[:-1]]
        for held_up_by in _waits_of(turn):
            todo += [(blocker, [*path, (key, blocker)]) for key, blocker in held_up_by.blockers(told)]
    return None


def _waits_of(turn: Turn) -> Iterator[Turn]:
    """What a turn's leader waits for, and, for a task, what the thread it runs on is blocked by."""
    # A signal handler may lead a turn on top of a wait that it interrupted: that wait holds up what the
    # leader had before, and not this.
    thread = turn.thread
    yield from waiting.get(thread, ())[turn.depth :]
    if turn.leader != thread:
        yield from waiting.get(turn.leader, ())


def describe(keys: list[Hashable]) -> str:
    """A circle as text. Runs the keys' `__repr__`: never call it under the mutex."""
    return " -> ".join(map(repr, keys))


def waits(me: Actor) -> int:
    """How many waits of `me` are under way: more than one where signal handlers wait on top."""
    return len(waiting[me]) if me in waiting else 0


def begin_waiting(me: Actor, turn: Turn) -> None:
    """Note that `me` waits for a turn, on top of what it waits for already; call under the mutex."""
    waiting[me] = (*waiting[me], turn) if me in waiting else (turn,)


def keep_waiting(me: Actor, turn: Turn) -> None:
    """Note that `me` now waits for this turn instead; call under the mutex."""
    waiting[me] = (*waiting.get(me, ())[:-1], turn)


def end_waiting(me: Actor, before: int) -> None:
    """Go back to the `waits` there were before; may be repeated. The entry is its actor's own."""
    if not before:
        waiting.pop(me, None)
    elif me in waiting:
        waiting[me] = waiting[me][:before]


def reset_after_fork() -> None:
    """In a forked child: nobody else is in the mutex, and nobody waits."""
    if not inside():  # a handler may fork amid a section of its own thread, which goes on in the child
        mutex._at_fork_reinit()
    waiting.clear()
