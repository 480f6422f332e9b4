"""Who comes to a window, what its loader brings, and what is counted and told of it."""

from singleflight.core import coordinator
from singleflight.core.call import LEAD, background
from singleflight.locks.mutex import mutex
from singleflight.storage.record import AgeingRecord

from .conftest import watched


class Refused(Exception):
    pass


def leads(memo, key, actor=None, *awaited_by, **fields):
    """A call that leads the flight of its key."""
    call = watched(actor or f"caller of {key}", *awaited_by, key=key, **fields)
    assert coordinator.board(memo, call) is LEAD
    return call


def joins(one, key, *awaited_by, **fields):
    """A call that is a member."""
    call = leads(one.cache, key, None, *awaited_by, **fields)
    with mutex:
        assert one.may_wait(call)
        one.take_in(call, key.upper())
    return call


def renewal(memo, key):
    """A renewal that waits for somebody to run it."""
    memo.store.put(AgeingRecord(key, "old", 95.0, 10.0, grace=60.0))
    call = background(key)
    assert coordinator.board(memo, call) is LEAD
    return call


def added(one, call):
    """It is loaded too."""
    with mutex:
        one.add(call, call.key.upper())
    return call


def loads(one, values):
    """Its loader is called, and returns these; or raises this."""
    asked = one.begin()
    if isinstance(values, BaseException):
        try:
            raise values
        except type(values) as error:
            one.fail(error)
    else:
        one.land(values)
    return asked


def counted(memo):
    counts = memo.counts
    return counts.fetches, counts.errors, counts.timeouts


def told_left(seen):
    return [
        (event.key, event.error, event.counted, event.flight_id, event.leads) for event in seen.of("left")
    ]


class Held:
    """Something to wait for that is led by the other caller; its thread's job may be over."""

    any_of = life = None
    thread, leader, depth, number = 2, "other", 0, 0

    def __init__(self, job=None):
        self.job = job

    def blockers(self, told):
        yield "held", self
