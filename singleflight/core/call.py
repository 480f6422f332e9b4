"""One call on its way through the decision maker."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Any, TypeVar

from ..locks.waiters import Actor, Waiter

__all__ = [
    "HIT",
    "JOIN",
    "LEAD",
    "NONE",
    "SHARE",
    "Call",
    "Decision",
    "Nobody",
    "background",
    "new_call",
]


class Decision(Enum):
    """What a caller does next.

    HIT: take the record's value. LEAD: run the function and land the flight. JOIN: wait at the latch, then
    `awake`. SHARE: take the flight's outcome. NONE: nothing is held (not boarded yet, or left).
    """

    HIT = "hit"
    LEAD = "lead"
    JOIN = "join"
    SHARE = "share"
    NONE = "none"


HIT, LEAD, JOIN, SHARE, NONE = Decision  # reading a member of an enum class runs Python code


class Call(Waiter):
    """One call on its way: who asks for which key, and what was decided. Its own caller's alone.

    Made by `boarding_of`, or for tasks by `tasks.task_boarding`.

    The fields are written in the same critical section as the decision itself, so that `abandon` can undo
    it wherever an interrupt strikes.
    """

    __slots__ = (
        "before",
        "decision",
        "flight",
        "key",
        "latch",
        "overdue",
        "place",
        "record",
        "renew",
        "renewal",
        "served",
        "wants_events",
    )

    key: Hashable
    renew: bool  # a fresh value does not satisfy this call
    wants_events: bool  # whether anybody may want its events
    decision: Decision
    before: int | None  # while it is noted as waiting: the waits there were before
    # The other fields are written with the decision that they belong to: `flight` with LEAD, JOIN and SHARE,
    # `latch`, `place` (how many follow by then) and what an waiter has beside with JOIN, `record`,
    # `served` (in which way, as `Answer` has it) and `overdue` (a renewal that takes too long) with HIT.
    flight: Any
    latch: Any
    place: int
    record: Any
    renewal: Call | None  # what this caller is to have renewed in the background, if anything
    overdue: Any
    served: str
    loop: Any = None  # the event loop that a task runs on
    background = False  # whether nobody waits for what it leads
    follows = False  # whether it waits later, if at all, for the flights that it joins (see `bulk`)


B = TypeVar("B", bound=Call)


def new_call(
    kind: type[B], key: Hashable, actor: Actor, thread: Actor, blocks: Actor, renew: bool = False
) -> B:
    """A call of this kind for which nothing is decided yet (no `__init__`: see `slots.new_slot`)."""
    call = kind()
    call.key = key
    call.actor = actor
    call.thread = thread
    call.blocks = blocks
    call.renew = renew
    call.wants_events = False
    call.decision = NONE
    call.before = call.renewal = None
    return call


class Nobody:
    """Leads a renewal until a thread is free for it."""

    def __str__(self) -> str:
        return "nobody yet"


class Background(Call):
    """One that no caller waits for: it renews a value. Who runs it is known once it begins."""

    __slots__ = ()
    background = True


def background(key: Hashable) -> Call:
    """Such a one."""
    nobody = Nobody()
    return new_call(Background, key, nobody, None, nobody, renew=True)
