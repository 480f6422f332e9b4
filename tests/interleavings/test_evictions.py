"""A class that is told of hits while others store, evict and drop: its cache and the index stay in step."""

import gc

import cachetools
import pytest

from ..sampling import one_in
from ..scheduler.explore import Found, explore
from ..scheduler.library import Library
from .world import World

MODULES = ("store", "policy", "expiry", "cache", "callforms")


class Full(World):
    """A function with room for two, which has A and B; what is asked for anew may be fetched again."""

    def __init__(self, library, schedule, tracer=None, policy=cachetools.LRUCache, **options):
        super().__init__(library, schedule, tracer, policy=policy, maxsize=2, **options)
        self.most_executions = 9
        self.put("A"), self.put("B")

    def expire(self):
        """What a look at the counts does."""
        self.plain.stats()

    def run(self):
        super().run()
        store = self.plain._self_cache.store
        held = dict(store._cache.items())
        assert held == {record.place: record for record in store.records()}, "the index is out of step"
        assert len(held) <= 2, "it holds too many"
        told = set(cachetools.Cache.__iter__(store._cache._order))
        assert told == set(held), "the class is out of step"
        assert not store._torn, "it was left torn"
        return self


def hits_and_an_eviction(world):
    world.thread(world.call, "A", "B")
    world.thread(world.call, "C")


def hits_and_an_invalidation(world):
    world.thread(world.call, "A", "A")
    world.thread(world.invalidate, "A")
    world.thread(world.put, "C")


def hits_and_what_runs_out(world):
    world.thread(world.call, "A", "B")
    world.scheduler.now += 61
    world.thread(world.put, "C")
    world.thread(world.expire)


def two_evictions(world):
    world.thread(world.call, "C", "A")
    world.thread(world.call, "D", "B")


def tasks_and_a_bulk_call(world):
    world.tasks((world.call_in_task, "A", "C"), (world.call_in_task, "B"))
    world.thread(world.load, "A", "D")


SCENES = {
    scene.__name__: scene
    for scene in (
        *(hits_and_an_eviction, hits_and_an_invalidation, hits_and_what_runs_out),
        *(two_evictions, tasks_and_a_bulk_call),
    )
}


def model(library, scene, tracer=None, **options):
    def run(schedule):
        gc.disable()  # as in `world.model`
        try:
            world = Full(library, schedule, tracer, **options)
            scene(world)
            return world.run().scheduler
        finally:
            gc.enable()

    return run


@pytest.mark.parametrize("policy", [cachetools.LRUCache, cachetools.LFUCache])
@pytest.mark.parametrize("scene", one_in(3, SCENES.values()), ids=SCENES)
def test_every_schedule(library, scene, policy):
    """With two preemptions."""
    assert explore(model(library, scene, policy=policy), 2) > 10


@pytest.mark.parametrize("weigh", [None, lambda value: 1])
@pytest.mark.parametrize("scene", one_in(6, SCENES.values(), keep=1), ids=SCENES)
def test_one_switch_at_every_line(library, scene, weigh):
    """Of what stores, evicts and tells the class, weighed or not."""
    with library.lines(*MODULES) as lines:
        assert explore(model(library, scene, lines, weigh=weigh), 1) > 40


PLANTED = {
    "a hit is told without the lock": (
        hits_and_an_eviction,
        {
            "store": {
                """            with self._lock:
                if record.place is not None and not self._torn:
""": """            if True:
                if record.place is not None and not self._torn:
"""
            }
        },
    ),
    "what runs out is not told to the class": (
        hits_and_what_runs_out,
        {"policy": {"        for place, _ in gone:\n            self._take_out(place)\n": ""}},
    ),
    "what is evicted stays in the index": (
        hits_and_an_eviction,
        {"policy": {"                gone.append(Cache.__getitem__(lives, place))\n": ""}},
    ),
}


@pytest.mark.parametrize(("scene", "mutation"), one_in(2, PLANTED.values(), keep=1), ids=PLANTED)
def test_a_planted_bug_is_found(library, scene, mutation):
    """Its schedule shows it again, and the library as it is passes there."""
    mutant = Library(mutation)
    try:
        with mutant.lines(*MODULES) as lines:
            broken = model(mutant, scene, lines)
            with pytest.raises(Found) as found:
                explore(broken, 2)
            schedule, why = found.value.schedule, found.value.why
            with pytest.raises(type(why)):
                broken(schedule)
    finally:
        mutant.forget()
    with library.lines(*MODULES) as lines:
        model(library, scene, lines)(schedule)
