"""Keyed locks, driven by one thread that plays many actors, against queues in plain lists."""

from types import SimpleNamespace
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from singleflight.common.errors import FlightDeadlock, FlightTimeout
from singleflight.locks import keyed as locks_module
from singleflight.locks import table as slots_module
from singleflight.locks.keyed import KeyedLocks
from singleflight.locks.slots import Hold
from singleflight.locks.waiters import Waiter, new_waiter
from singleflight.locks.waitgraph import end_waiting
from singleflight.testing import FakeClock

ACTORS = st.integers(0, 3)
KEYS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=3, unique=True).map(tuple)


class Parked(BaseException):
    """Raised where a real thread would go to sleep."""


class OpenOrParked:
    """A gate that never blocks: it can be asked whether it is open."""

    def __init__(self):
        self.is_open = False

    def open(self):
        self.is_open = True

    def wait(self, timeout=None):
        if timeout <= 0:
            return self.is_open
        raise Parked


class LocksMachine(RuleBasedStateMachine):
    """Holds of several keys are taken, queued for, granted, cancelled and released in any order."""

    max_idle = 2

    def __init__(self):
        super().__init__()
        self.clock = FakeClock(100.0)
        fake_time = SimpleNamespace(monotonic=self.clock)
        self.patches = [
            patch.object(locks_module, "time", fake_time),
            patch.object(slots_module, "time", fake_time),
            patch.object(locks_module, "Latch", OpenOrParked),
        ]
        for patched in self.patches:
            patched.start()
        self.locks = KeyedLocks(self.max_idle)
        self.queues = {}  # key -> the holds at it, whose turn it is first
        self.idle = []  # (key, since), least recently used first
        self.waiting = {}  # actor -> the hold it waits for
        self.granted = []

    # -- the model ------------------------------------------------------------------------------

    def is_granted(self, hold):
        return all(self.queues[key][0] is hold for key in hold.keys)

    def ahead_of(self, hold):
        for key in hold.keys:
            queue = self.queues[key]
            yield from queue[: queue.index(hold)]

    def closes_cycle(self, hold):
        todo, seen = list(self.ahead_of(hold)), set()
        while todo:
            other = todo.pop()
            if other.leader == hold.leader:
                return True
            if other.leader not in seen:
                seen.add(other.leader)
                wanted = self.waiting.get(other.leader)
                todo += self.ahead_of(wanted) if wanted is not None else []
        return False

    def queue(self, hold):
        for key in hold.keys:
            self.idle = [pair for pair in self.idle if pair[0] != key]
            self.queues.setdefault(key, []).append(hold)

    def unqueue(self, hold):
        for key in hold.keys:
            self.queues[key].remove(hold)
            if not self.queues[key]:
                del self.queues[key]
                self.idle.append((key, self.clock()))
                if self.max_idle is not None:
                    self.idle = self.idle[-self.max_idle :] if self.max_idle else []
        for actor, waiting in list(self.waiting.items()):
            if self.is_granted(waiting):
                assert waiting.latch.is_open
                end_waiting(actor, 0)
                self.granted.append(self.waiting.pop(actor))

    # -- the rules ------------------------------------------------------------------------------

    @rule(actor=ACTORS, keys=KEYS, at_once=st.booleans())
    def take(self, actor, keys, at_once):
        if actor in self.waiting:
            return
        hold = Hold(keys, new_waiter(Waiter, actor, actor, actor))
        self.queue(hold)
        granted, cycle = self.is_granted(hold), not self.is_granted(hold) and self.closes_cycle(hold)
        try:
            if at_once:
                self.locks.acquire(hold, 0)
            else:
                # What `acquire` does, but for giving up when parked.
                queued = self.locks._queue_for(hold, None)
                if queued is not None:
                    raise Parked
            assert granted
            self.granted.append(hold)
        except Parked:
            assert not granted
            assert not cycle
            self.waiting[actor] = hold
        except (FlightDeadlock, FlightTimeout) as error:
            assert not granted
            refused_as = type(error)
            self.locks.release(hold)
            self.unqueue(hold)
            expected = FlightDeadlock if cycle else FlightTimeout
            if refused_as is not expected:
                raise

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data):
        actor = data.draw(st.sampled_from(sorted(self.waiting)))
        hold = self.waiting.pop(actor)
        end_waiting(actor, 0)
        self.locks.release(hold)
        self.unqueue(hold)

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def release(self, data):
        hold = self.granted.pop(data.draw(st.integers(0, len(self.granted) - 1)))
        self.locks.release(hold)
        self.unqueue(hold)
        self.locks.release(hold)  # a second time does nothing

    @rule(older_than=st.sampled_from([0, 5, 60]))
    def evict_idle(self, older_than):
        old = [pair for pair in self.idle if pair[1] <= self.clock() - older_than]
        assert self.locks.evict_idle(older_than) == len(old)
        self.idle = [pair for pair in self.idle if pair not in old]

    @rule(step=st.sampled_from([1, 10]))
    def tick(self, step):
        self.clock.advance(step)

    # -- what holds -----------------------------------------------------------------------------

    @invariant()
    def the_same_keys_are_held_and_awaited(self):
        for key in "abcd":
            queue = self.queues.get(key, [])
            assert self.locks.held(key) == bool(queue)
            assert self.locks.waiting(key) == max(0, len(queue) - 1)

    @invariant()
    def the_same_locks_are_idle_in_the_same_order(self):
        assert self.locks._idle.keys() == [key for key, _ in self.idle]
        assert self.locks.idle == len(self.idle)
        assert len(self.locks) == len(self.idle) + len(self.queues)

    @invariant()
    def nobody_waits_for_ever(self):
        """Whoever waits is behind somebody who does not."""
        for hold in self.waiting.values():
            todo, seen = [hold], set()
            while todo:
                waiting = todo.pop()
                if waiting in seen:
                    continue
                seen.add(waiting)
                todo += [self.waiting[o.leader] for o in self.ahead_of(waiting) if o.leader in self.waiting]
            assert any(o.leader not in self.waiting for w in seen for o in self.ahead_of(w))

    def teardown(self):
        try:
            while self.granted or self.waiting:
                assert self.granted, "everybody waits"
                hold = self.granted.pop()
                self.locks.release(hold)
                self.unqueue(hold)
            assert len(self.locks) == self.locks.idle == len(self.idle)
        finally:
            for actor in self.waiting:
                end_waiting(actor, 0)
            for patched in self.patches:
                patched.stop()


class NoIdleLocks(LocksMachine):
    """None is kept."""

    max_idle = 0


class AllIdleLocks(LocksMachine):
    """All are kept."""

    max_idle = None


@pytest.mark.parametrize("examples", [20, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.parametrize("machine", [LocksMachine, NoIdleLocks, AllIdleLocks])
def test_locks_in_any_order(machine, examples):
    """Whoever takes, gives up and releases, in any order, the invariants hold."""
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=50, deadline=None)
    )
