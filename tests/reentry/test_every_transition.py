"""Ctrl-C at every signal check of every transition, with others who wait, queue or take over meanwhile.

One thread plays all callers, each step by step as the driver of threads does. One of them is struck in one
step; then all the others go on to their end.
"""

from contextlib import suppress
from itertools import product

import pytest

from singleflight.common.errors import FlightTimeout
from singleflight.core.call import NONE
from singleflight.core.controls import clear, invalidate, put
from singleflight.drivers import threads as _threads
from singleflight.locks import waitgraph
from singleflight.locks.slots import Hold
from singleflight.locks.waiters import Waiter, new_waiter
from singleflight.storage.record import AgeingRecord

from ..core.conftest import Work
from ..sampling import one_in
from .callers import Caller, Holder, all_go_on, followers_of, six
from .checks import struck


class World:
    """One function, its callers and holders."""

    def __init__(self, make, **options):
        self.memo = make(**{"grace": 50, "flight_timeout": None, "listener": None, **options})
        self.callers, self.holders = [], []

    def caller(self, board=True, renew=False):
        made = Caller(self.memo, len(self.callers) + 1, renew=renew)
        self.callers.append(made)
        if board:
            made.take(made.board)
        return made

    def holder(self, *keys):
        made = Holder(self.memo, 100 + len(self.holders), *keys)
        self.holders.append(made)
        return made

    def flown(self, followers, fails=True):
        """A leader whose flight has failed or landed, and those who are to go on."""
        leader, *others = [self.caller() for _ in range(1 + followers)]
        with pytest.raises(ValueError):
            leader.take(leader.fail)
        return others

    def finish(self):
        return all_go_on([*self.callers, *self.holders])


def lands(world, value="value", followers=2, **how):
    leader = world.caller(**how)
    for _ in range(followers):
        world.caller()
    return leader, lambda: leader.land(value)


def fails(world, followers=2):
    leader, _ = lands(world, followers=followers)
    return leader, leader.fail


def landed_for_holders(world):
    leader, land = lands(world)
    world.holder(), world.holder()
    return leader, land


def holder_before(world):
    """A lock's holder has the key, and callers wait behind it."""
    holder = world.holder()
    world.caller(), world.caller()
    return holder


def gives_up(world, followers, behind=None):
    if behind is not None:
        world.holder()
    else:
        world.caller()
    first, *_ = [world.caller() for _ in range(followers)]
    return first, first.give_up


def takes_over(world, followers, then=lambda _: None):
    first, *_ = world.flown(followers)
    then(world.memo)
    return first, first.awake


def gives_up_unclaimed(world, followers):
    first, *_ = world.flown(followers)
    return first, first.give_up


def detached(world):
    leader, land = lands(world)
    invalidate(world.memo, "k")
    world.caller(), world.caller()
    return leader, land


def awakes_detached(world):
    leader, land = lands(world)
    invalidate(world.memo, "k")
    leader.take(land)
    return world.callers[1], world.callers[1].awake


def put_meanwhile(memo):
    put(memo, "k", "put")


def stale(world):
    world.memo.store.put(AgeingRecord("k", "old", 90.0, 10.0, grace=50.0, refresh_at=100.0))
    caller = world.caller(board=False)
    return caller, caller.board


def begins(world):
    """It sees to a renewal, runs it, and lands it."""
    caller, _ = stale(world)
    caller.take(caller.board)
    return caller, caller.end


def unseats(world, followers=2):
    leader, _ = lands(world, followers=followers)
    leader.call.flight.due = 0.0
    return world.callers[1], world.callers[1].look


def boards_overdue(world):
    leader, _ = lands(world, followers=2)
    leader.call.flight.due = 0.0
    leader.call.flight.work = work = Work()
    work.began = True
    caller = world.caller(board=False)
    return caller, caller.board


def joins(world, others=1):
    for _ in range(others):
        world.caller()
    caller = world.caller(board=False)
    return caller, caller.board


def queues(world):
    world.holder()
    caller = world.caller(board=False)
    return caller, caller.board


def released(world):
    holder_before(world)
    first = world.holders[0]
    return first, first.release


def controlled(world, step):
    """Somebody who makes no call drops or puts a value while one is fetched, and others queue."""
    lands(world)
    world.holder()
    world.caller()
    return None, lambda: step(world.memo)


def several_released(world):
    """Others queue for one of two locks, or for both, and so does a caller."""
    first = world.holder("k", "l")
    world.holder("l"), world.holder("l", "k"), world.caller()
    return first, first.release


def several_in_vain(world):
    """Somebody queues for two locks of which one is taken, and will not wait."""
    world.holder("k"), world.caller(), world.holder("l", "k")
    hold = Hold(("l", "k"), new_waiter(Waiter, 50, 50, 50))

    def acquire():
        with suppress(FlightTimeout):
            world.memo.locks.acquire(hold, 0)

    return None, acquire


SCENES = {
    "a miss": lambda world: joins(world, 0),
    "a follower comes": joins,
    "a second follower comes": lambda world: joins(world, 2),
    "a caller queues behind a lock": queues,
    "nobody waits for what lands": lambda world: lands(world, followers=0),
    "two wait for what lands": lands,
    "a renewal lands": lambda world: lands(world, renew=True),
    "what lands is not stored": lambda world: lands(world, None),
    "what lands is not stored, and nobody waits": lambda world: lands(world, None, 0),
    "locks queue behind what lands": landed_for_holders,
    "nobody waits for what fails": lambda world: fails(world, 0),
    "two wait for what fails": fails,
    "one takes over": lambda world: takes_over(world, 1),
    "one of two takes over": lambda world: takes_over(world, 2),
    "one of three takes over": lambda world: takes_over(world, 3),
    "a value was put before it took over": lambda world: takes_over(world, 1, put_meanwhile),
    "a value was put before one of two took over": lambda world: takes_over(world, 2, put_meanwhile),
    "the only follower gives up": lambda world: gives_up(world, 1),
    "one of two followers gives up": lambda world: gives_up(world, 2),
    "who queues behind a lock gives up": lambda world: gives_up(world, 1, "lock"),
    "one of two who queue behind a lock gives up": lambda world: gives_up(world, 2, "lock"),
    "the only one who could take over gives up": lambda world: gives_up_unclaimed(world, 1),
    "one of two who could take over gives up": lambda world: gives_up_unclaimed(world, 2),
    "what lands is detached": detached,
    "who waited for what was detached goes on": awakes_detached,
    "a stale value": stale,
    "a renewal": begins,
    "a follower unseats what takes too long": unseats,
    "the only follower unseats what takes too long": lambda world: unseats(world, 1),
    "a newcomer unseats what takes too long": boards_overdue,
    "a lock is given up to callers": released,
    "two locks are given up": several_released,
    "two locks are not to be had": several_in_vain,
    "what is fetched is invalidated": lambda world: controlled(world, lambda memo: invalidate(memo, "k")),
    "what is fetched is put": lambda world: controlled(world, put_meanwhile),
    "what is fetched is cleared": lambda world: controlled(world, clear),
}
OPTIONS = {
    "retried": {},
    "shared": {"follower_retries": 0},
    "kept": {"follower_retries": 0, "failure_ttl": 5},
    "asked": {"ttl": lambda value: 10},
}


def wrong(world, decided):
    """What is not as it should be once one of the callers was struck, if anything."""
    said, there = followers_of(world.memo, world.callers)
    if said != there:
        return f"{list(said.values())} followers, and there are {list(there.values())}"
    if not world.finish():
        return "hangs"
    if waitgraph.waiting or waitgraph.below:
        return "somebody waits"
    if world.memo.locks.live():
        return "the key is not free"
    counted, received = six(world.memo), len(world.callers)
    if counted != received and (decided or counted != received - 1):
        return f"counts {counted} of {received}"
    return None


@pytest.mark.parametrize(("scene", "options"), one_in(9, product(SCENES, OPTIONS)))
def test_whoever_is_interrupted_leaves_the_others_what_they_need(make, waiting, monkeypatch, scene, options):
    """Nobody hangs, the key is free in the end, and who came to a decision is counted, once."""
    monkeypatch.setattr(_threads, "in_background", lambda run: False)
    number, where, found = 0, "start", []
    while where is not None:
        waiting.clear()
        world = World(make, **OPTIONS[options])
        who, step = SCENES[scene](world)
        decided = not isinstance(who, Caller) or who.decision is not NONE
        where = struck(
            number, lambda who=who, step=step: who.take(step) if isinstance(who, Caller) else step()
        )
        if (problem := wrong(world, decided)) is not None:
            found.append(f"{where}: {problem}")
        number += 1
    assert not found, "\n".join(found)
    assert number > 1
