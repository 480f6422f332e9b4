"""Ctrl-C at every signal check of a bulk call, with others who wait, queue or take over meanwhile.

One thread plays everybody. The others come, and go on, while the loader of the bulk call runs or as it is
about to wait; after it was struck they all go on to their end.
"""

import sys
from contextlib import suppress
from threading import get_ident

import pytest

from singleflight import _bulk_threads, circles, single_flight_ttl, unseating
from singleflight.bulk import BulkCall
from singleflight.control import invalidate, put
from singleflight.entries import AgeingRecord, record_of
from singleflight.errors import FlightDeadlock, FlightTimeout
from singleflight.testing import FakeClock

from .callers import BulkCaller, Caller, Holder, all_go_on, followers_of, six
from .checks import needs_opcodes, struck

pytestmark = needs_opcodes


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
    most_unseated = 4

    def __init__(self, **options):
        self.clock = FakeClock(100.0)
        options = {"ttl": 10, "follower_retries": 3, "key": lambda item: item, "grace": 50, **options}
        max_batch = options.pop("max_batch", None)

        @single_flight_ttl(timer=self.clock, listener=self, **options)
        def fetch(item):
            raise AssertionError

        self.memo, self.bulk = fetch._self_memo, fetch.bulk(self.load, max_batch=max_batch)
        self.callers, self.items, self.boarded = [], "ABC", False
        self.while_loading, self.when_it_waits, self.changes = [], [], []

    def load(self, items):
        others_go_on(self.while_loading)
        changed = self.changes.pop(0) if self.changes else {}
        if isinstance(changed, Exception):
            raise changed
        loaded = {**dict.fromkeys(items, "value"), **changed}
        return {key: value for key, value in loaded.items() if value != "left out"}

    def __call__(self, event):
        """As a listener: the bulk call is about to wait."""
        others_go_on(self.when_it_waits)

    def single(self, key, number=None):
        made = Caller(self.memo, number or len(self.callers) + 1, key)
        self.callers.append(made)
        made.take(made.board)
        return made

    def several(self, keys):
        self.callers.append(BulkCaller(self.memo, len(self.callers) + 1, keys))
        return self.callers[-1]

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

    def call(self):
        """The bulk call that is struck."""
        boarded = BulkCall.renewal

        def renewal(bulk):
            self.boarded = True
            return boarded(bulk)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BulkCall, "renewal", renewal)
            with suppress(FlightDeadlock, FlightTimeout):
                self.bulk(list(self.items))


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
    world.changes = [{"A": "left out", "C": "left out"}]


def refused(world):
    """A is not stored, nor C."""
    followed(world)
    world.changes = [{"A": None, "C": None}]


def unasked(world):
    """It brings more, for which somebody else comes to wait."""
    followed(world)
    world.changes = [{"D": "more", "E": None}]


def fails(world, *before):
    """Its loader raises, at once or after it has brought something."""
    followed(world)
    world.changes = [*before, ValueError()]


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


def another(world, fails=False, waits=False):
    """Another bulk call has B and C, and ends while the rest is loaded, or when this one waits."""
    leader = world.several("BC")
    world.single("B"), world.several("CB")
    end = leader.fail if fails else leader.go_on
    (world.when_it_waits if waits else world.while_loading).append(end)


def times_out(world):
    """Somebody else has B and C, and goes on for too long."""
    world.single("B"), world.single("C"), world.single("C")


def in_a_circle(world):
    """Who has B waits for this thread."""
    world.single("Z", get_ident())
    leader = world.single("B")
    world.single("C")
    world.callers.append(Caller(world.memo, 2, "Z"))
    world.callers[-1].take(world.callers[-1].board)
    assert leader.boarding.actor == 2


def overdue(world):
    """Somebody else has A and C, and takes too long."""
    leaders = [world.single("A"), world.single("C")]
    world.single("C")

    def due():
        for leader in leaders:
            leader.boarding.flight.due = 0.0

    world.while_loading.append(due)


def too_many(world):
    """B takes too long, as others do that were left running; the value of A is to be renewed."""
    stale(world, "A")
    world.single("B").boarding.flight.due = 0.0
    world.most_unseated = 0


def put_meanwhile(world):
    """A, for which others wait, and D, which is brought as well."""
    unasked(world)
    world.while_loading += [lambda: put(world.memo, "A", "put"), lambda: put(world.memo, "D", "put")]


def dropped_elsewhere(world):
    """It waits for A, which is invalidated and has no outcome for it."""
    leader = world.single("A")
    world.single("A")
    world.when_it_waits += [lambda: invalidate(world.memo, "A"), lambda: world.ends(leader, True)]


def partly_fresh(world):
    """B is fresh, for C there is a failure."""
    followed(world)
    world.memo.store.put(record_of("B", "fresh", 95.0, 10.0))
    world.memo.store.put(AgeingRecord("C", None, 95.0, 10.0, error=ValueError()))


def stale(world, keys="AB"):
    """Two values are to be renewed, for which there is no place in the pool."""
    for key in keys:
        world.memo.store.put(AgeingRecord(key, "old", 90.0, 10.0, grace=50.0, refresh_at=100.0))


def stale_in_vain(world):
    """And the loader raises then."""
    stale(world)
    fails(world)


def ttl(value):
    if value == "bad":
        raise ValueError
    return 10


def asked(world):
    """What `ttl` cannot be asked about: A, and D, which nobody asked for."""
    followed(world)
    world.changes = [{"A": "bad", "D": "bad", "E": "more"}]


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
    "stale values that are not renewed": stale_in_vain,
    "it fails the second time": lambda world: fails(world, {}),
    "another bulk call leads": another,
    "another bulk call fails": lambda world: another(world, fails=True),
    "it waits for another": lambda world: another(world, waits=True),
    "it waits for another that fails": lambda world: another(world, fails=True, waits=True),
    "it waits too long": times_out,
    "it would wait for ever": in_a_circle,
    "others take too long": overdue,
    "too many take too long": too_many,
    "values are put": put_meanwhile,
    "what it waits for is invalidated": dropped_elsewhere,
    "some values are fresh": partly_fresh,
    "a ttl cannot be had": asked,
}
OPTIONS = {
    "shared": {"follower_retries": 0},
    "retried": {},
    "kept": {"follower_retries": 0, "failure_ttl": 5},
    "one by one": {"max_batch": 1},
    "impatient": {"wait_timeout": 1e-9},
    "asked": {"ttl": ttl},
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
]


def wrong(world):
    """What is not as it should be once the bulk call was struck, if anything."""
    said, there = followers_of(world.memo, world.callers)
    if said != there:
        return f"{list(said.values())} followers, and there are {list(there.values())}"
    if not all_go_on(world.callers):
        return "hangs"
    if circles.waiting or circles.below:
        return "somebody waits"
    if world.memo.locks.live():
        return "a key is not free"
    if world.memo.batches:
        return "a batch is open"
    counted, received = six(world.memo), world.received()
    if not 0 <= received - counted <= (0 if world.boarded else len(world.items)):
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
        monkeypatch.setattr(unseating, "_MOST_UNSEATED", world.most_unseated)
        where = struck(number, world.call, times=2)
        if (problem := wrong(world)) is not None:
            found.append(f"{where}: {problem}")
        number += 1
    assert not found, "\n".join(found)
    assert number > 50
