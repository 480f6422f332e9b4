"""Cancel every caller at every step, in every order that Hypothesis thinks of: the invariants hold."""

import asyncio
import gc
import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisWarning

from singleflight import KeyedLocks, single_flight_ttl
from singleflight.locks.waitgraph import waiting

from ..sampling import one_in
from . import steps

GENERAL = settings(max_examples=300, deadline=None)


class Refused(Exception):
    pass


class World:
    """Callers of one function on a deterministic loop, some of which are cancelled at some steps.

    `callers` holds for each caller the keys that it asks for, one after another; `cancels` holds pairs of a
    step and a caller. `fails` says which executions fail, in their order (the others return their number);
    `unwinding` says for how many steps each lives on at its end.
    """

    def __init__(self, callers, plan=(), cancels=(), fails=(), unwinding=0, **options):
        self.loop = steps.StepLoop(plan)
        self.fails, self.unwinding = iter(fails), unwinding
        self.running, self.wrong, self.received, self.calls = {}, [], 0, 0
        self.fetch = single_flight_ttl(
            self.execute,
            key=lambda key: key,
            timer=self.loop.time,
            **{"ttl": 60, "max_idle_locks": 0, **options},
        )
        self.callers = callers
        self.cancelled = {caller for _, caller in cancels}
        self.tasks = []
        for step, caller in cancels:
            self.loop.at(step, lambda caller=caller: self.tasks and self.tasks[caller].cancel())
        self.results = steps.run(self.loop, self.main())
        self.check()

    async def execute(self, key):
        self.calls += 1
        number = self.calls
        self.running[key] = self.running.get(key, 0) + 1
        if self.running[key] > 1:
            self.wrong.append(f"{self.running[key]} executions of {key} at once")
        try:
            for _ in range(2):
                await asyncio.sleep(0)
            if next(self.fails, False):
                raise Refused(number)
            return number
        finally:
            try:
                for _ in range(self.unwinding):
                    await asyncio.sleep(0)
            finally:
                self.running[key] -= 1

    async def call(self, keys):
        values = []
        for key in keys:
            self.received += 1
            values.append(await self.fetch(key))
        return values

    async def main(self):
        self.tasks = [self.loop.create_task(self.call(keys)) for keys in self.callers]
        await asyncio.wait(self.tasks)
        while self.fetch.flights():  # cancelled work that unwinds
            await asyncio.sleep(1)
        await asyncio.sleep(1)
        return await asyncio.gather(*self.tasks, return_exceptions=True)

    def check(self):
        assert self.wrong == []
        assert self.loop.reports == []
        assert self.fetch.flights() == ()
        assert (len(self.fetch.locks), self.fetch.locks.idle, waiting) == (0, 0, {})
        assert not any(self.running.values())
        stats = self.fetch.stats()
        counted = stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts
        assert counted == self.received
        assert (stats.timeouts, stats.in_flight, stats.calls) == (0, 0, self.calls)
        for caller, result in enumerate(self.results):
            if isinstance(result, asyncio.CancelledError):
                assert caller in self.cancelled, f"caller {caller} was cancelled, and nobody cancelled it"
            elif not isinstance(result, list):
                assert isinstance(result, Refused), result
        return self


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """Nothing complains when it is destroyed, either (pytest turns what cannot be raised into a warning)."""
    yield
    gc.collect()
    complaints = [each for each in recwarn if not issubclass(each.category, HypothesisWarning)]
    assert [str(each.message) for each in complaints] == []


def nobody_cares(_event):
    """A listener: calls tell their events."""


SCENES = {
    "one key": {"callers": ["A", "A", "A"]},
    "one key, slow to end": {"callers": ["A", "A", "A"], "unwinding": 2},
    "nothing is stored": {"callers": ["AA", "AA"], "ttl": 0, "unwinding": 1},
    "two keys": {"callers": ["AB", "BA", "AB"]},
    "it fails once": {"callers": ["A", "A", "A"], "fails": [True]},
    "it fails": {"callers": ["A", "A", "A"], "fails": [True] * 5, "unwinding": 1},
    "it fails and is not retried": {"callers": ["A", "A"], "fails": [True], "follower_retries": 0},
}


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_one_caller_is_cancelled_at_every_step(scene):
    """Whoever it is and whenever it is: no double run, no hang, nothing left, all counted."""
    ends = World(**scene).loop.steps
    for caller in range(len(scene["callers"])):
        for step in range(ends + 1):
            world = World(**scene, cancels=[(step, caller)])
            others = [result for each, result in enumerate(world.results) if each != caller]
            if "fails" not in scene:
                assert all(isinstance(result, list) for result in others)


@pytest.mark.parametrize("scene", one_in(3, SCENES.values(), keep=0), ids=SCENES)
def test_followers_that_wait_the_longer_way_fare_alike(scene):
    """With a timeout and a listener each caller gets the same at the same step, whoever is cancelled when."""
    longer = {"wait_timeout": 1000, "listener": nobody_cares}
    ends = World(**scene).loop.steps
    for caller, step in itertools.product(range(len(scene["callers"])), range(ends + 1)):
        usual, other = (World(**scene, **way, cancels=[(step, caller)]) for way in ({}, longer))
        for world in (usual, other):
            world.seen = list(map(repr, world.results)), world.loop.steps, world.fetch.stats()
        assert usual.seen == other.seen


@pytest.mark.parametrize("scene", one_in(5, SCENES.values(), keep=2), ids=SCENES)
def test_two_callers_are_cancelled_at_every_pair_of_steps(scene):
    """Also both at once, and the second while the first one's work unwinds."""
    ends = World(**scene).loop.steps
    for first, second in itertools.combinations(range(len(scene["callers"])), 2):
        for one, other in itertools.product(range(ends + 1), repeat=2):
            World(**scene, cancels=[(one, first), (other, second)])


@pytest.mark.parametrize("unwinding", [0, 2])
def test_everybody_is_cancelled_and_somebody_comes(unwinding):
    """Two callers are cancelled together at any step; a third comes at any other and gets its value."""
    scene = {"callers": ["A", "A", "BA"], "unwinding": unwinding}
    for step in range(World(**scene).loop.steps + 1):
        world = World(**scene, cancels=[(step, 0), (step, 1)])
        assert isinstance(world.results[2], list)


PLANS = st.lists(st.integers(0, 4), max_size=80)
CANCELS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 2)), max_size=4)


@GENERAL
@given(
    plan=PLANS,
    cancels=CANCELS,
    callers=st.lists(st.text("AB", min_size=1, max_size=3), min_size=3, max_size=3),
    fails=st.lists(st.booleans(), max_size=4),
    unwinding=st.integers(0, 2),
    retries=st.sampled_from([0, 1, None]),
    ttl=st.sampled_from([0, 60]),
)
@example([], [], ["A", "A", "A"], [], 0, 1, 60)
def test_any_order_and_any_cancellations(plan, cancels, callers, fails, unwinding, retries, ttl):
    """Whatever the order of what is ready, the invariants hold; without cancellations nobody sees one."""
    World(callers, plan, cancels, fails, unwinding, follower_retries=retries, ttl=ttl)


@GENERAL
@given(plan=PLANS, callers=st.lists(st.text("AB", min_size=1, max_size=3), min_size=1, max_size=5))
def test_any_order_makes_one_call_per_key(plan, callers):
    """Undisturbed, each key is fetched exactly once, and all get its value."""
    world = World(callers, plan)
    assert world.calls == len(set("".join(callers)))
    values = {}
    for keys, results in zip(callers, world.results, strict=True):
        for key, value in zip(keys, results, strict=True):
            assert values.setdefault(key, value) == value


class Locked:
    """Tasks that take keys of one registry, some of which are cancelled at some steps."""

    def __init__(self, statements, plan=(), cancels=()):
        self.loop, self.locks, self.inside, self.wrong = (
            steps.StepLoop(plan),
            KeyedLocks(max_idle=0),
            set(),
            [],
        )
        self.statements, self.tasks = statements, []
        for step, task in cancels:
            self.loop.at(step, lambda task=task: task < len(self.tasks) and self.tasks[task].cancel())
        results = steps.run(self.loop, self.main())
        assert self.wrong == []
        assert self.loop.reports == []
        assert not self.inside
        assert len(self.locks) == 0
        cancelled = {task for _, task in cancels}
        for task, result in enumerate(results):
            assert result is None or (task in cancelled and isinstance(result, asyncio.CancelledError))

    async def take(self, keys):
        async with self.locks(*keys):
            self.wrong += self.inside.intersection(keys)
            self.inside.update(keys)
            try:
                await asyncio.sleep(0)
            finally:
                self.inside.difference_update(keys)

    async def main(self):
        self.tasks = [self.loop.create_task(self.take(keys)) for keys in self.statements]
        return await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.mark.parametrize(
    "statements",
    one_in(3, [["a", "a", "a"], ["ab", "a", "b"], ["ab", "bc", "ca"], ["a", "ab", "b", "a"]], keep=1),
)
def test_lock_statements_are_cancelled_at_every_step(statements):
    """One or two of the tasks at any steps: exclusive, no hang, and an empty registry."""
    ends = Locked(statements).loop.steps
    moments = list(itertools.product(range(ends + 1), range(len(statements))))
    for one in moments:
        Locked(statements, cancels=[one])
    for one, other in itertools.combinations(moments, 2):
        if one[1] != other[1]:
            Locked(statements, cancels=[one, other])


@GENERAL
@given(plan=PLANS, cancels=CANCELS, statements=st.lists(st.text("abc", min_size=1, max_size=3), max_size=5))
def test_lock_statements_in_any_order(plan, cancels, statements):
    """The same with ready queues in any order."""
    Locked(statements, plan, cancels)


def test_the_loop_itself_finds_what_hangs():
    """A future that nobody resolves is told at once, and a timer is waited for in no time."""

    async def forever():
        await asyncio.get_running_loop().create_future()

    loop = steps.StepLoop()
    with pytest.raises(steps.Stuck):
        steps.run(loop, forever())
    loop = steps.StepLoop()
    steps.run(loop, asyncio.sleep(1_000_000))
    assert loop.time() >= 1_001_000
