"""A bulk call that is to be struck, and what others do meanwhile: they come, and go on, while its loader runs
or as it is about to wait.
"""

from contextlib import suppress
from threading import get_ident
from types import SimpleNamespace

import pytest

from singleflight import single_flight_ttl
from singleflight.common.errors import FlightDeadlock, FlightTimeout
from singleflight.core.bulk_call import BulkCall
from singleflight.core.controls import invalidate, put
from singleflight.drivers import pool as renewing
from singleflight.storage.record import AgeingRecord, record_of
from singleflight.testing import FakeClock

from .callers import BulkCaller, Caller, Holder
from .checks import spared

__all__ = ["SCENES", "Pool", "World", "refuse_ttl"]


def others_go_on(steps):
    """They are not struck."""
    with spared():
        while steps:
            steps.pop(0)()


class Pool(renewing._Pool):
    """A pool of threads, or none: what they are given runs later, on this thread."""

    def __init__(self, threads):
        super().__init__(threads, 0)
        self.jobs = []
        self.executor = SimpleNamespace(submit=lambda *job: self.jobs.append(job))

    def go_on(self):
        while self.jobs:
            run, job = self.jobs.pop()
            run(job)
        taken, self._jobs = self._jobs, {}
        return "a place in the pool is taken" if taken else None


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

        self.fetch, self.memo = fetch, fetch._self_cache
        self.bulk = fetch.bulk(self.load, max_batch=max_batch)
        self.callers, self.items, self.boarded, self.struck = [], "ABC", False, False
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
                try:
                    self.bulk(list(self.items))
                except KeyboardInterrupt:
                    self.struck = True


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


def in_a_cycle(world):
    """Who has B waits for this thread."""
    world.single("Z", get_ident())
    leader = world.single("B")
    world.single("C")
    world.callers.append(Caller(world.memo, 2, "Z"))
    world.callers[-1].take(world.callers[-1].board)
    assert leader.call.actor == 2


def overdue(world):
    """Somebody else has A and C, and takes too long."""
    leaders = [world.single("A"), world.single("C")]
    world.single("C")

    def due():
        for leader in leaders:
            leader.call.flight.due = 0.0

    world.while_loading.append(due)


def too_many(world):
    """B takes too long, as others do that were left running; the value of A is to be renewed."""
    stale(world, "A")
    world.single("B").call.flight.due = 0.0
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


def refuse_ttl(value):
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
    "it would wait for ever": in_a_cycle,
    "others take too long": overdue,
    "too many take too long": too_many,
    "values are put": put_meanwhile,
    "what it waits for is invalidated": dropped_elsewhere,
    "some values are fresh": partly_fresh,
    "a ttl cannot be had": asked,
}
