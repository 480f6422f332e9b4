"""Ctrl-C at every signal check of a bulk call, with others who wait, queue or take over meanwhile.

One thread plays everybody. The others come, and go on, while the loader of the bulk call runs or as it is
about to wait; after it was struck they all go on to their end. Each place is struck the first time that the
call comes there; with EXPLORE_FURTHER=1 (`nox -s explore`) the second time, too.
"""

import os

import pytest

from singleflight.core import transitions
from singleflight.drivers import pool as renewing
from singleflight.locks import waitgraph
from singleflight.locks.mutex import inside

from ..sampling import one_in
from .bulk_scenes import SCENES, Pool, World, refuse_ttl
from .callers import all_go_on, followers_of, six
from .checks import struck, struck_task

TIMES = 2 if os.environ.get("EXPLORE_FURTHER") else 1
OPTIONS = {
    "shared": {"follower_retries": 0},
    "retried": {},
    "kept": {"follower_retries": 0, "failure_ttl": 5},
    "one by one": {"max_batch": 1},
    "impatient": {"wait_timeout": 1e-9},
    "asked": {"ttl": refuse_ttl},
    "in the background": {},
    "hasty": {"flight_timeout": 1000},
}
SPECIAL = {
    "it waits too long": "impatient",
    "a ttl cannot be had": "asked",
    "too many take too long": "hasty",
    "others take too long": "hasty",
}
FAIL = [
    "two values are refused",
    "it fails",
    "it follows what fails",
    "it waits for what fails",
    "another bulk call fails",
    "it waits for another that fails",
]
ONE_BY_ONE = [
    "others follow",
    "a key is left out",
    "it fails",
    "it fails the second time",
    "stale values",
    "stale values that are not renewed",
]
CASES = [
    *((scene, SPECIAL.get(scene, "shared")) for scene in SCENES),
    *((scene, "retried") for scene in FAIL),
    *((scene, "kept") for scene in (*FAIL[1:], "some values are fresh")),
    *((scene, "one by one") for scene in ONE_BY_ONE),
    *((scene, "in the background") for scene in ONE_BY_ONE[-2:]),
]


def wrong(world):
    """What is not as it should be once the bulk call was struck, if anything."""
    if inside():
        return "the mutex is held"
    said, there = followers_of(world.memo, world.callers)
    if said != there:
        return f"{list(said.values())} followers, and there are {list(there.values())}"
    if not all_go_on(world.callers):
        return "hangs"
    if waitgraph.waiting or waitgraph.below:
        return "somebody waits"
    if world.memo.locks.live():
        return "a key is not free"
    if world.memo.batches:
        return "a batch is open"
    counted, received = six(world.memo), world.received()
    if not 0 <= received - counted <= (0 if world.boarded else len(world.items)):
        return f"counts {counted} of {received}"
    return None


@pytest.mark.parametrize(("scene", "options"), one_in(40, CASES))
def test_a_bulk_call_that_is_interrupted_leaves_the_others_what_they_need(
    waiting, monkeypatch, scene, options
):
    """Nobody hangs, every key is free in the end, and what came to a decision is counted, once."""
    pool = Pool(threads=options == "in the background")
    monkeypatch.setattr(renewing, "_pool", pool)
    number, where, found = 0, "start", []
    while where is not None:
        waiting.clear()
        world = World(**OPTIONS[options])
        SCENES[scene](world)
        monkeypatch.setattr(transitions, "_MOST_UNSEATED", world.most_unseated)
        where = struck(number, world.call, TIMES)
        lost = None if world.struck or where is None else "the interrupt is lost"
        if (problem := lost or pool.go_on() or wrong(world)) is not None:
            found.append(f"{where}: {problem}")
        number += 1
    assert not found, "\n".join(found)
    assert number > 50


def loader_of(world):
    """Its loader for tasks."""

    async def load(items):
        return world.load(items)

    return load


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("scene", one_in(2, ["others follow", "it fails"]))
def test_a_task_that_loads_may_be_interrupted_while_its_flights_end(waiting, scene):
    """Where its loop goes on all the same, its caller does not hang, nor anybody else."""
    number, where, found = 0, "start", []
    while where is not None:
        waiting.clear()
        world = World(follower_retries=0)
        SCENES[scene](world)
        loading = world.fetch.bulk(loader_of(world))(list(world.items))
        with struck_task(number, loading) as (where, task):
            problem = wrong(world) if task.done() else "its caller hangs"
        if problem is not None:
            found.append(f"{where}: {problem}")
        number += 1
    assert not found, "\n".join(found)
    assert number > 50
