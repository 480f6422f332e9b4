"""Callers that one thread plays, each step by step as the driver of threads does."""

from contextlib import suppress

from singleflight.core import coordinator, landing, leaving
from singleflight.core.bulk_call import BulkCall
from singleflight.core.call import HIT, JOIN, LEAD, NONE, SHARE, new_call
from singleflight.drivers.bulk_threads import ItemCall, fly
from singleflight.drivers.threads import ThreadCall, _served
from singleflight.locks.slots import Hold
from singleflight.locks.waiters import Waiter, new_waiter


class Caller:
    """A thread's call of the function."""

    def __init__(self, memo, number, key="k", renew=False):
        self.memo, self.over, self.decision = memo, False, NONE
        self.call = new_call(ThreadCall, key, number, number, number, renew)

    def take(self, step, *arguments):
        """A step, and what follows from it, as `threads.call` does."""
        try:
            step(*arguments)
        except BaseException as error:
            self.over = True
            try:
                leaving.abandon(self.memo, self.call, error)
            except BaseException as struck:
                leaving.abandon(self.memo, self.call, struck)
                raise
            finally:
                leaving.done(self.memo, self.call)
            raise
        finally:
            if self.over and self.decision is not LEAD:
                leaving.done(self.memo, self.call)

    def board(self):
        self.decision = coordinator.board(self.memo, self.call)

    def awake(self):
        self.decision = coordinator.awake(self.memo, self.call)

    def land(self, value="value"):
        landing.land(self.memo, self.call.flight, value)
        self.over = True

    def fail(self):
        raise ValueError

    def give_up(self):
        """It is struck by another error while it waits."""
        raise ValueError

    def look(self):
        coordinator.look(self.memo, self.call, 0.0)

    def end(self):
        """Take what it is served, and see to its renewal in line: the pool is full."""
        if self.decision is HIT:
            _served(self.memo, lambda: "renewed", self.call, (), {})
        leaving.done(self.memo, self.call)
        self.over = True

    def go_on(self):
        """What it does next, if there is anything to do."""
        if self.decision is LEAD:
            self.take(self.land)
        elif self.decision is SHARE or self.decision is HIT:
            self.take(self.end)
        elif self.decision is NONE:
            self.take(self.board)
        elif self.call.latch.wait(0.0) or self.call.flight.has_opened(self.call.latch):
            self.take(self.awake)
        else:
            return False
        return True

    def follows(self):
        """The calls that wait, or will."""
        return [self.call] if not self.over and self.decision is JOIN else []


class BulkCaller:
    """A thread's bulk call: it has boarded, and does what it is told to, or waits."""

    def __init__(self, memo, number, keys):
        def make(key):
            return new_call(ItemCall, key, number, number, number)

        self.over, self.keys, self.waits_for = False, keys, None
        self.bulk = BulkCall(memo, [(key, key) for key in keys], lambda item: item, make, None)
        assert not self.bulk.look()
        self.bulk.board()

    def end(self, error=None):
        """As `bulk_threads.call` does."""
        self.over = True
        if error is not None:
            self.bulk.give_up(error)
        self.bulk.done()

    def fail(self):
        """Its loader raises."""

        def load(items):
            raise ValueError

        with suppress(ValueError):
            fly(self.bulk.batch(), load)
        self.end(ValueError())

    def go_on(self):
        bulk, call = self.bulk, self.waits_for
        if call is not None:
            if not (call.latch.wait(0.0) or call.flight.has_opened(call.latch)):
                return False
            decision = coordinator.awake(bulk.memo, call)
            if decision is not JOIN:
                self.waits_for = None
                bulk.has_waited(call, decision, 0.0)
            return True
        follower = bulk.sweep()
        if bulk.failed is not None:
            self.end(ValueError())
        elif bulk.led:
            fly(bulk.batch(), lambda items: dict.fromkeys(items, "later"))
        elif follower is None:
            self.end()
        elif bulk.begin(follower):
            self.waits_for = follower
        return True

    def follows(self):
        """The calls that wait, or will."""
        return [call for call in self.bulk._calls if call.decision is JOIN]


class Holder:
    """Somebody who takes locks, and gives them up once it has all."""

    def __init__(self, memo, number, *keys):
        self.over = False
        self.locks, self.hold = memo.locks, Hold(keys or ("k",), new_waiter(Waiter, number, number, number))
        self.queued = self.locks._queue_for(self.hold, None)

    def release(self):
        """As `Held.__exit__` does."""
        self.over = True
        try:
            self.locks.release(self.hold)
        except BaseException:
            self.locks.release(self.hold)
            raise
        finally:
            self.locks._waits_no_more(self.hold.waiter, 0)

    def go_on(self):
        if self.hold.missing and not self.queued.look():
            return False
        self.release()
        return True

    def follows(self):
        """It makes no call."""
        return []


def followers_of(memo, callers):
    """How many each flight says it has, beside how many there are."""
    flights = {id(slot.turn): slot.turn for slot in memo.locks.live()}
    flights |= {id(turn): turn for slot in memo.locks.live() for turn in slot.queue}
    said = {key: flight.followers for key, flight in flights.items() if not isinstance(flight, Hold)}
    there = dict.fromkeys(said, 0)
    for call in (call for each in callers for call in each.follows()):
        latest = call.flight.latest()
        if latest is not None and id(latest) in there:
            there[id(latest)] += 1
    return said, there


def all_go_on(callers):
    """Everybody goes on to the end; whether nobody hangs."""
    for _ in range(50):
        busy = [each for each in callers if not each.over]
        moved = False
        for each in busy:
            try:
                moved |= each.go_on()
            except ValueError:  # a failure that was kept
                moved = True
        if not moved:
            return not busy
    return False


def six(memo):
    """All that is counted of calls received."""
    counts = memo.counts
    counted = counts.stale_hits + counts.waits + counts.fetches + counts.errors + counts.timeouts
    return counted + counts.all_hits(memo.store)
