"""Bugs planted in the library are found, each, and the schedule that is printed shows them again."""

import os
from dataclasses import dataclass

import pytest

from ..sampling import one_in
from ..scheduler.explore import Found, explore
from ..scheduler.library import Library, Mutation
from .conftest import LONG_WAY
from .scenes import FEATURES, FORKS, SCENES
from .world import model


@dataclass(frozen=True)
class Planted:
    """A bug, the scene that shows it, and what is said of it."""

    scene: str
    said: str | None
    mutation: Mutation


PLANTED = {
    "a lock is evicted between look-up and acquire": Planted(
        "three threads take a lock",
        "two hold one of",
        {
            "keyed": {
                """        with mutex:
            self._take(hold)
""": """        with mutex:
            looked_up = [self.enter(key) for key in hold.keys]
        with mutex:
            for slot in looked_up:
                self.place(hold, slot)
"""
            }
        },
    ),
    "the key is free before the value is published": Planted(
        "two threads, one key",
        "at most 1 executions were expected",
        {
            "landing": {
                "                gone = cache.store.put(record, flight)\n": "                gone = []\n",
                "    if flight.wants_events:\n        if ended": (
                    "    if stored:\n"
                    "        cache.store.put(record, flight)\n"
                    "    if flight.wants_events:\n        if ended"
                ),
            }
        },
    ),
    "a wake-up is lost": Planted(
        "two threads, one key",
        "a lost wake-up",
        {
            "landing": {
                """    try:
        with mutex:
            ended = finish(cache, flight, value, None""": """    latch = flight.latch
    try:
        with mutex:
            flight.latch = latch
            ended = finish(cache, flight, value, None"""
            }
        },
    ),
    "a newcomer renews the budget of retries": Planted(
        "it fails always, and who waits is told",
        "waited for more flights than it may",
        {
            "coordinator": {
                """            elif turn.leader is None or turn.unbegun:
""": """            elif turn.leader is None or turn.unbegun:
                turn.retries = cache.options.follower_retries
"""
            }
        },
    ),
    "an invalidation between landing and storing is overlooked": Planted(
        "two threads and an invalidation",
        "which is older than",
        {"store": {"                publisher.detached\n": "                False\n"}},
    ),
    "a cancelled follower is still counted": Planted(
        "the other of two tasks is cancelled",
        "2 calls were made",
        {
            "transitions": {
                """    if flight is not None:
        flight.followers -= 1
""": ""
            }
        },
    ),
    "the baton is handed to a loop that is dead": Planted(
        "a thread comes when a loop has died amid a chain",
        "a lost wake-up",
        {
            "coordinator": {
                "            elif turn.leader is None or turn.unbegun:\n": (
                    "            elif (turn.leader is None and not turn.followers) or turn.unbegun:\n"
                ),
            },
            "transitions": {
                "    if flight.state is UNCLAIMED and flight not in flight.slot.queue:\n": (
                    "    if flight.state is UNCLAIMED and flight.slot.turn is not flight"
                    " and flight not in flight.slot.queue:\n"
                ),
            },
        },
    ),
    "the own wait of a follower that leads next hides others": Planted(
        "three threads in a cycle",
        "still running after",
        {
            "coordinator": {
                "            end_wait(call)  # first: a wait that is over does not hold up what it"
                " leads now\n": ""
            }
        },
    ),
    "a stale flight disturbs its successor": Planted(
        "a thread, two tasks and an invalidation",
        "a second execution",
        {
            "transitions": {"    current = slot.turn is flight\n": "    current = True\n"},
            "table": {  # which look for themselves whether it is theirs
                """            live = by_key[key] is slot  # KeyError: it has changed
            if live:
                del by_key[key]  # first: an interrupt after it leaves nothing behind
""": """            live = by_key.pop(key, None) is not None
"""
            },
        },
    ),
    "the fork hook is missing": Planted(
        "a thread forks while another fetches",
        "in the child",
        {"registry": {"    os.register_at_fork(after_in_child=_after_fork)\n": "    pass\n"}},
    ),
}


GATHERED = {
    "nobody wakes the members of a window": Planted(
        "two threads in a window",
        "a lost wake-up",
        {
            "window": {
                "        after.append(latch.open)\n": "",
                "        self.opener = None\n        after.append(self.latch.open)\n": (
                    "        self.opener = None\n"
                ),
            }
        },
    ),
    "a member is not seen in the wait-for graph": Planted(
        "a cycle over a window",
        "still running after",
        {
            "window": {
                """        begin_waiting(call.blocks, call.flight)
        if call.awaited_outside:
""": """        if call.awaited_outside:
"""
            }
        },
    ),
    "a cancelled opener takes its window along": Planted(
        "a window's opener is cancelled while it is loaded",
        "a second execution",
        {
            "gathering": {
                """        if window is not None and window.opener is call and window.work is None:
            window.give_up(error)
""": """        if window is not None and window.opener is call:
            window.give_up(error)
"""
            }
        },
    ),
    "a key is in a window twice": Planted(
        "a window, an invalidation and a second caller",
        "KeyError",
        {"window": {"not self.is_dead() and key not in self._keys": "not self.is_dead()"}},
    ),
    "a window that takes too long is not counted by all its callers": Planted(
        "a window takes too long",
        "3 calls were made",
        {
            "window": {
                """                else:
                    self._spare(flight)
""": """                if flight.state is not UNSEATED:
                    self._spare(flight)
"""
            }
        },
    ),
    "an invalidation in a window is overlooked": Planted(
        "a window, an invalidation and a second caller",
        "which is older than",
        {"store": {"                publisher.detached\n": "                False\n"}},
    ),
}
"""Bugs of windows."""


AT_ONCE = {
    "the key is free before the value is published": Planted(
        "two threads, one key",
        "at most 1 executions were expected",
        {
            "transitions": {
                """        if not sound or cache.store.put(record, flight) is None:
            return False
""": "",
                """    if not alone:
        _finish_stored(cache, flight, record, now)
    return True
""": """    if alone:
        cache.store.put(record, flight)
    return alone
""",
            }
        },
    ),
    "a value that landed meanwhile is overlooked": Planted(
        "two threads, one key",
        "at most 1 executions were expected",
        {
            "transitions": {
                """    with mutex:
        lookup = cache.store.lookup  # not before: it may have been replaced, and a value landed since
        record = lookup(key)
""": """    record = cache.store.lookup(key)
    with mutex:
"""
            }
        },
    ),
    "a key that is taken is taken": Planted(
        "two threads, one key",
        "at most 1 executions were expected",
        {"transitions": {"            if slot.turn is None:\n": "            if True:\n"}},
    ),
    "who joined after the value was stored gets nothing": Planted(
        "two threads, one key",
        "no attribute 'value'",
        {"transitions": {"flight.followers or flight.latch or slot.queue or flight.detached": "False"}},
    ),
    "a task that joined is not counted": Planted(
        "the other of two tasks is cancelled",
        "no attribute 'value'",
        {
            "coordinator": {
                "                follow(call, flight)\n    return call.decision is JOIN\n": (
                    "                call.decision = JOIN\n    return call.decision is JOIN\n"
                )
            }
        },
    ),
    "an invalidation between landing and storing is overlooked": PLANTED[
        "an invalidation between landing and storing is overlooked"
    ],
}
"""Bugs of the short ways of the usual miss; those above are looked for where it goes the long way."""


@pytest.mark.parametrize(
    "planted", one_in(2, (PLANTED | GATHERED).values(), packed=False), ids=PLANTED | GATHERED
)
def test_a_planted_bug_is_found(long_way, planted):
    """Within two preemptions; its schedule shows it again; and the library as it is passes there."""
    finds(long_way, planted, {**planted.mutation, **LONG_WAY})


@pytest.mark.parametrize("planted", AT_ONCE.values(), ids=AT_ONCE)
def test_a_bug_planted_in_the_usual_miss_is_found(library, planted):
    """The same of the short ways that the usual miss takes."""
    finds(library, planted, planted.mutation)


def finds(library, planted, mutation):
    if planted.scene in FORKS and not hasattr(os, "fork"):
        pytest.skip("needs fork")
    scene, _, options = {**SCENES, **FEATURES, **FORKS}[planted.scene]
    mutant = Library(mutation)
    try:
        broken = model(mutant, scene, **options)
        with pytest.raises(Found, match=planted.said) as found:
            explore(broken, preemptions=2)
        schedule, why = found.value.schedule, found.value.why
        assert repr(schedule) in str(found.value)
        with pytest.raises(type(why)) as again:
            broken(schedule)
        assert len(again.value.__notes__[0]) == len(why.__notes__[0])
    finally:
        mutant.forget()
    model(library, scene, **options)(schedule)
