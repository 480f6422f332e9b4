"""Ctrl-C at every signal check of a bulk call, with others who wait, queue or take over meanwhile.

One thread plays everybody. The others come, and go on, while the loader of the bulk call runs or as it is
about to wait; after it was struck they all go on to their end.
"""

import sys

import pytest

from singleflight import _bulk_threads, circles, single_flight_ttl
from singleflight._bulk_threads import ItemBoarding, _fly
from singleflight.boarding import boarding_of
from singleflight.bulk import BulkCall
from singleflight.control import invalidate
from singleflight.entries import AgeingRecord
from singleflight.testing import FakeClock

from .callers import Caller, Holder, all_go_on, six
from .checks import needs_opcodes, struck

pytestmark = needs_opcodes


class BulkCaller:
    """A thread's bulk call that leads nothing at first."""

    def __init__(self, memo, number, keys):
        def make(key):
            return boarding_of(ItemBoarding, key, number, number, number)

        self.over, self.keys = False, keys
        self.bulk = BulkCall(memo, [(key, key) for key in keys], lambda item: item, make, None)
        assert not self.bulk.look()
        self.bulk.board()

    def end(self):
        self.over = True
        self.bulk.done()

    def go_on(self):
        bulk = self.bulk
        follower = bulk.sweep()
        if bulk.failed is not None:
            bulk.give_up(ValueError())
            self.end()
        elif bulk.led:
            _fly(bulk.batch(), lambda items: dict.fromkeys(items, "later"))
        elif follower is not None:
            return False
        else:
            self.end()
        return True


def others_go_on(steps):
    """They are not struck."""
    tracing = sys.gettrace()
    sys.settrace(None)
    while steps:
        steps.pop(0)()
    sys.settrace(tracing)


class World:
    """A function, its bulk call, and what happens while its loader runs or when it waits."""

    wants = frozenset({"wait"})

    def __init__(self, **options):
        self.clock = FakeClock(100.0)
        options = {"follower_retries": 3, "key": lambda item: item, "grace": 50, **options}
        max_batch = options.pop("max_batch", None)

        @single_flight_ttl(ttl=10, timer=self.clock, listener=self, **options)
        def fetch(item):
            raise AssertionError

        self.memo, self.bulk = fetch._self_memo, fetch.bulk(self.load, max_batch=max_batch)
        self.callers, self.items, self.loads = [], "ABC", 0
        self.while_loading, self.when_it_waits, self.changed = [], [], {}

    def load(self, items):
        self.loads += 1
        others_go_on(self.while_loading)
        changed, self.changed = self.changed, {}
        if isinstance(changed, Exception):
            raise changed
        loaded = {**dict.fromkeys(items, "value"), **changed}
        return {key: value for key, value in loaded.items() if value != "left out"}

    def __call__(self, event):
        """As a listener: the bulk call is about to wait."""
        others_go_on(self.when_it_waits)

    def single(self, key):
        made = Caller(self.memo, len(self.callers) + 1, key)
        self.callers.append(made)
        made.take(made.board)
        return made

    def several(self, keys):
        self.callers.append(BulkCaller(self.memo, len(self.callers) + 1, keys))

    def holder(self, key):
        self.callers.append(Holder(self.memo, len(self.callers) + 1, key))

    def ends(self, caller, fails):
        """Somebody else's flight ends."""
        if not fails:
            caller.take(caller.land)
            return
        with pytest.raises(ValueError):
            caller.take(caller.fail)

    def received(self):
        """How many calls, each key of a bulk call being one."""
        others = sum(len(getattr(each, "keys", "k")) for each in self.callers if not isinstance(each, Holder))
        return others + len(self.items)


def alone(world):
    """Nobody else comes."""


def followed(world):
    """Two follow A, and a bulk call B and C."""
    world.while_loading = [
        lambda: world.single("A"),
        lambda: world.single("A"),
        lambda: world.several("BC"),
    ]


def left_out(world):
    followed(world)
    world.changed = {"A": "left out", "C": "left out"}


def refused(world):
    """A is not stored, nor C."""
    followed(world)
    world.changed = {"A": None, "C": None}


def unasked(world):
    """It brings more, for which somebody else comes to wait."""
    followed(world)
    world.changed = {"D": "more", "E": None}


def fails(world):
    followed(world)
    world.changed = ValueError()


def queued(world):
    """Locks and callers queue behind A and C."""
    followed(world)
    world.while_loading += [lambda: world.holder("A"), lambda: world.holder("C"), lambda: world.single("C")]


def dropped(world):
    followed(world)
    world.while_loading += [lambda: invalidate(world.memo, "A"), lambda: world.single("A")]


def follows(world, fails=False, waits=False):
    """Somebody else has A, and ends while the rest is loaded, or when it waits."""
    leader = world.single("A")
    world.single("A")
    (world.when_it_waits if waits else world.while_loading).append(lambda: world.ends(leader, fails))


def behind_a_lock(world):
    """Somebody has the lock of B, and gives it up when it waits."""
    world.holder("B")
    world.when_it_waits.append(world.callers[0].release)


def stale(world):
    """Two values are to be renewed, for which there is no place in the pool."""
    for key in "AB":
        world.memo.store.put(AgeingRecord(key, "old", 90.0, 10.0, grace=50.0, refresh_at=100.0))


SCENES = {
    "alone": alone,
    "others follow": followed,
    "a key is left out": left_out,
    "two values are refused": refused,
    "it brings more": unasked,
    "it fails": fails,
    "locks and callers queue": queued,
    "a key is invalidated": dropped,
    "it follows": follows,
    "it follows what fails": lambda world: follows(world, fails=True),
    "it waits": lambda world: follows(world, waits=True),
    "it waits for what fails": lambda world: follows(world, fails=True, waits=True),
    "it queues behind a lock": behind_a_lock,
    "stale values": stale,
}
OPTIONS = {
    "shared": {"follower_retries": 0},
    "retried": {},
    "kept": {"follower_retries": 0, "failure_ttl": 5},
    "one by one": {"max_batch": 1},
}
FAIL = ["two values are refused", "it fails", "it follows what fails", "it waits for what fails"]
CASES = [
    *((scene, "shared") for scene in SCENES),
    *((scene, "retried") for scene in FAIL),
    *((scene, "kept") for scene in FAIL[1:]),
    *((scene, "one by one") for scene in ("others follow", "it fails", "stale values")),
]


def wrong(world):
    """What is not as it should be once the bulk call was struck, if anything."""
    if not all_go_on(world.callers):
        return "hangs"
    if circles.waiting or circles.below:
        return "somebody waits"
    if world.memo.locks.live():
        return "a key is not free"
    if world.memo.batches:
        return "a batch is open"
    counted, received = six(world.memo), world.received()
    undecided = (0, 1, len(world.items)) if not world.loads else (0,)  # one key of it, or all
    if received - counted not in undecided:
        return f"counts {counted} of {received}"
    return None


@pytest.mark.parametrize(("scene", "options"), CASES)
def test_a_bulk_call_that_is_interrupted_leaves_the_others_what_they_need(
    waiting, monkeypatch, scene, options
):
    """Nobody hangs, every key is free in the end, and what came to a decision is counted, once."""
    monkeypatch.setattr(_bulk_threads, "in_background", lambda run: False)
    number, where, found = 0, "start", []
    while where is not None:
        waiting.clear()
        world = World(**OPTIONS[options])
        SCENES[scene](world)
        where = struck(number, lambda world=world: world.bulk(list(world.items)), times=2)
        if (problem := wrong(world)) is not None:
            found.append(f"{where}: {problem}")
        number += 1
    assert not found, "\n".join(found)
    assert number > 50
