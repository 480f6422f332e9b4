"""One call on its way through the decision maker."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Any, TypeVar

from ..locks.waiters import Actor, Asker

__all__ = [
    "HIT",
    "JOIN",
    "LEAD",
    "NONE",
    "SHARE",
    "Boarding",
    "Nobody",
    "Verdict",
    "background",
    "boarding_of",
]


class Verdict(Enum):
    """What a caller does next.

    HIT: take the record's value. LEAD: run the function and land the flight. JOIN: wait at the gate, then
    `awake`. SHARE: take the flight's outcome. NONE: nothing is held (not boarded yet, or left).
    """

    HIT = "hit"
    LEAD = "lead"
    JOIN = "join"
    SHARE = "share"
    NONE = "none"


HIT, LEAD, JOIN, SHARE, NONE = Verdict  # reading a member of an enum class runs Python code


class Boarding(Asker):
    """One call on its way: who asks for which key, and what was decided. Its own caller's alone.

    Made by `boarding_of`, or for tasks by `tasks.task_boarding`.

    The fields are written in the same critical section as the decision itself, so that `abandon` can undo
    it wherever an interrupt strikes.
    """

    __slots__ = (
        "before",
        "flight",
        "gate",
        "key",
        "overdue",
        "place",
        "record",
        "renew",
        "renewal",
        "told",
        "verdict",
    )

    key: Hashable
    renew: bool  # a fresh value does not satisfy this call
    told: bool  # whether anybody may want its events
    verdict: Verdict
    before: int | None  # while it is noted as waiting: the waits there were before
    # The other fields are written with the verdict that they belong to: `flight` with LEAD, JOIN and SHARE,
    # `gate`, `place` (how many follow by then) and what an asker has beside with JOIN, `record`, `renewal`
    # (what this caller is to have renewed in the background, if anything) and `overdue` (a renewal that takes
    # too long) with HIT.
    flight: Any
    gate: Any
    place: int
    record: Any
    renewal: Boarding | None
    overdue: Any
    loop: Any = None  # the event loop that a task runs on
    background = False  # whether nobody waits for what it leads
    follows = False  # whether it waits later, if at all, for the flights that it joins (see `bulk`)


B = TypeVar("B", bound=Boarding)


def boarding_of(
    kind: type[B], key: Hashable, actor: Actor, thread: Actor, waiter: Actor, renew: bool = False
) -> B:
    """A call of this kind for which nothing is decided yet (no `__init__`: see `slots.new_slot`)."""
    boarding = kind()
    boarding.key = key
    boarding.actor = actor
    boarding.thread = thread
    boarding.waiter = waiter
    boarding.renew = renew
    boarding.told = False
    boarding.verdict = NONE
    boarding.before = None
    return boarding


class Nobody:
    """Leads a renewal until a thread is free for it."""

    def __str__(self) -> str:
        return "nobody yet"


class Background(Boarding):
    """One that no caller waits for: it renews a value. Who runs it is known once it begins."""

    __slots__ = ()
    background = True


def background(key: Hashable) -> Boarding:
    """Such a one."""
    nobody = Nobody()
    return boarding_of(Background, key, nobody, None, nobody, renew=True)
