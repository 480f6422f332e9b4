"""Freshness against a simple model: one thread plays all readers, the pool's threads and the loops.

The model says what each reader gets and whether it is the one to start a renewal. So it is never a value past
its grace, a fresh value is recomputed only ahead of time, two renewals never run at once, a stale value never
outlives a newer landing, and what failed is not tried again before its time.
"""

from dataclasses import dataclass
from math import inf
from typing import Any

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

from singleflight.core import controls, coordinator, landing, leaving
from singleflight.core import renewal as renewals
from singleflight.core.call import Call, Decision, new_call
from singleflight.core.coordinator import new_cache
from singleflight.core.flight import FLYING, UNCLAIMED
from singleflight.core.options import Options
from singleflight.core.shareable import is_not_none
from singleflight.telemetry.counters import Counts
from singleflight.testing import FakeClock

ACTORS = 4
ANY = st.integers(0, 11)
KEYS = st.sampled_from("AAAB")
OUTCOMES = st.sampled_from(["value", "value", "none", "error", "error", "abort"])
FATES = st.sampled_from(["queued", "queued", "in line", "task", "task", "interrupted"])
TTL = 10.0


@dataclass
class Stored:
    """What is stored for a key: until when it is fresh, until when it is served, and when to renew it."""

    value: Any
    end: float
    gone: float
    due: float
    error: Any = None


class Task(Call):
    """A reader that is a task."""

    loop = "a loop"


class Loop:
    """A task's work, as far as it is asked."""

    began = True

    def __init__(self):
        self.loop, self.dead = object(), False

    def is_dead(self):
        return self.dead

    def stop(self):
        raise AssertionError("a renewal is not stopped")


class FreshnessModel(RuleBasedStateMachine):
    """Readers, renewals and landings in any order; values are dropped and put, the clock goes either way."""

    grace, ahead, failure_ttl = 20.0, None, 0.0

    def __init__(self):
        super().__init__()
        self.clock = FakeClock(1000.0)
        options = Options.checked(
            ttl=TTL,
            maxsize=None,
            max_idle_locks=0,
            cache_if=is_not_none,
            follower_retries=0,
            wait_timeout=None,
            timer=self.clock,
            listener=None,
            grace=self.grace,
            refresh_ahead=self.ahead,
            failure_ttl=self.failure_ttl,
        )
        self.floor = self.failure_ttl or 1.0
        self.memo = new_cache("model", options, Counts())
        self.stored = {}  # key -> Stored
        self.current = {}  # key -> the flight that has it
        self.calls = {}  # actor -> its boarding, while it leads or follows
        self.queued = []  # renewals that wait for a thread
        self.running = []  # renewals that run: the boarding, and the Loop where a task runs it
        self.detached = set()
        self.taken = set()  # flights that a caller leads
        self.passed_on = set()  # those that had followers before they had a leader
        self.received = 0
        self.counts = dict.fromkeys(
            (
                *("hits", "stale_hits", "waits", "fetches", "errors", "timeouts"),
                *("calls", "failures", "uncached", "refreshes"),
            ),
            0,
        )
        self.numbers = iter(range(1, 10**9))

    # -- what the model says ---------------------------------------------------------------------------

    def store(self, key, value, error=None):
        now = self.clock()
        if error is not None:
            end = gone = now + self.failure_ttl
            due = inf
        else:
            end, gone = now + TTL, now + TTL + self.grace
            due = end if self.grace else inf
            due = due if self.ahead is None else min(due, now + TTL * self.ahead)
        self.stored[key] = Stored(value, end, gone, due, error)

    def served(self, key):
        stored = self.stored.get(key)
        return stored if stored is not None and self.clock() < stored.gone else None

    def is_dead(self, flight):
        return flight.work is not None and flight.work.dead

    def unseated(self, key, flight):
        """A dead renewal loses its key; its followers, if any, go to an unclaimed successor."""
        self.detached.add(flight)
        if key in self.stored:
            self.stored[key].due = self.clock()
        flight.work.dead = False  # its loop goes on after all, and what it brings comes too late
        self.current[key] = flight.successor
        self.passed_on.add(flight.successor)
        if flight.successor is None:
            del self.current[key]

    # -- readers -----------------------------------------------------------------------------------------

    def those_who(self, decision):
        return [actor for actor, call in self.calls.items() if call.decision is decision]

    def can_call(self):
        return len(self.calls) < ACTORS

    @precondition(lambda self: self.can_call() and self.served("A"))
    @rule(
        fate=FATES, age=st.sampled_from(["end", "due", "gone"]), late=st.sampled_from([0.0, 0.0, 0.5, -0.5])
    )
    def read_at_a_turning_point(self, fate, age, late):
        """About when it is to be renewed, stops being fresh or is gone."""
        when = getattr(self.stored["A"], age)
        if when < inf:
            self.clock.set(max(when + late, self.clock()))
            self.the_same_counts_and_sums()
        self.call("A", False, fate)

    @precondition(can_call)
    @rule(key=KEYS, renew=st.sampled_from([False] * 5 + [True]), fate=FATES)
    def call(self, key, renew, fate):
        self.received += 1
        actor = min(set(range(ACTORS)) - self.calls.keys())
        kind = Task if fate == "task" else Call
        self.calls[actor] = new_call(kind, key, actor, actor, actor, renew)
        self.boards(actor, fate)

    def boards(self, actor, fate):
        call = self.calls[actor]
        key, now = call.key, self.clock()
        stored, flight = self.served(key), self.current.get(key)
        decision = coordinator.board(self.memo, call)
        if stored is None or call.renew:
            if flight is not None and self.is_dead(flight):
                self.unseated(key, flight)
                flight = self.current.get(key)
            unclaimed = flight is not None and flight in self.passed_on and flight not in self.taken
            unbegun = flight not in self.taken and any(each.flight is flight for each in self.queued)
            if flight is None or unclaimed or unbegun:
                assert decision is Decision.LEAD
                assert flight is None or call.flight is flight
                self.current[key] = call.flight
                self.taken.add(call.flight)
            else:
                assert decision is Decision.JOIN
                assert call.flight is flight
            return
        assert decision is Decision.HIT
        assert call.record.value == stored.value
        assert call.record.error is stored.error or type(stored.error) is type(call.record.error)
        if stored.error is not None:
            self.counts["errors"] += 1
        elif now < stored.end:
            self.counts["hits"] += 1
        else:
            self.counts["stale_hits"] += 1
        del self.calls[actor]
        assert (call.renewal is not None) == (now >= stored.due and flight is None)
        if call.renewal is not None:
            stored.due = inf
            self.renewed(call, fate)
        elif flight is not None and self.is_dead(flight) and now >= stored.end and stored.due == inf:
            self.unseated(key, flight)
        leaving.done(self.memo, call)

    def renewed(self, call, fate):
        renewal, key = call.renewal, call.key
        self.current[key] = renewal.flight
        if fate == "interrupted":  # `done` sees to it
            del self.current[key]
            self.stored[key].due = self.clock()
            return
        call.renewal = None
        if call.loop is not None:
            loop = Loop()
            renewals.entrust_renewal(self.memo, renewal, loop, loop)
            self.running.append((renewal, loop))
        else:
            self.queued.append(renewal)
            if fate == "in line":
                self.begin(0, last=True)

    def some_wait(self):
        return bool(self.those_who(Decision.JOIN))

    @precondition(some_wait)
    @rule(number=ANY)
    def wake(self, number):
        waiting = self.those_who(Decision.JOIN)
        self.wakes(waiting[number % len(waiting)])

    def wakes(self, actor):
        call = self.calls[actor]
        if not call.latch.wait(0):
            return
        key, now = call.key, self.clock()
        decision = coordinator.awake(self.memo, call)
        if decision is Decision.SHARE:
            del self.calls[actor]
        elif decision is Decision.HIT:
            stored = self.served(key)
            assert call.record.value == stored.value
            assert now < stored.end
            self.counts["errors" if stored.error is not None else "waits"] += 1
            del self.calls[actor]
            self.left(key)
        elif decision is Decision.LEAD:
            assert self.current[key] is call.flight
            self.taken.add(call.flight)
        elif decision is Decision.NONE:
            self.boards(actor, "queued")

    @precondition(some_wait)
    @rule(number=ANY)
    def give_up(self, number):
        waiting = self.those_who(Decision.JOIN)
        actor = waiting[number % len(waiting)]
        call = self.calls[actor]
        if leaving.leave(self.memo, call, True):
            self.counts["timeouts"] += 1
            del self.calls[actor]
            self.left(call.key)

    def left(self, key):
        flight = self.current.get(key)
        if flight is not None and flight.state is UNCLAIMED and not flight.followers:
            del self.current[key]

    # -- flights -----------------------------------------------------------------------------------------

    @precondition(lambda self: self.queued)
    @rule(number=ANY)
    def begin(self, number, last=False):
        renewal = self.queued.pop(-1 if last else number % len(self.queued))
        flight = renewal.flight
        wanted = flight not in self.taken and flight not in self.detached
        thread = 100 + next(self.numbers)
        assert renewals.begin_renewal(self.memo, renewal, thread) == wanted
        if wanted:
            self.running.append((renewal, None))

    def alive(self):
        return [pair for pair in self.running if pair[1] is None or not pair[1].dead]

    @precondition(alive)
    @rule(number=ANY, how=OUTCOMES)
    def end_renewal(self, number, how):
        alive = self.alive()
        pair = alive[number % len(alive)]
        self.running.remove(pair)
        self.ends(pair[0].flight, how, background=True)
        leaving.done(self.memo, pair[0])

    @precondition(lambda self: self.those_who(Decision.LEAD))
    @rule(number=ANY, how=OUTCOMES)
    def end_call(self, number, how):
        leading = self.those_who(Decision.LEAD)
        call = self.calls.pop(leading[number % len(leading)])
        self.ends(call.flight, how, background=False)

    def ends(self, flight, how, background):
        key, now, followers = flight.key, self.clock(), flight.followers
        free, stored = flight not in self.detached, self.stored.get(key)
        servable = self.served(key)
        if how == "value":
            value = next(self.numbers)
            if free:
                self.store(key, value)
            landing.land(self.memo, flight, value)
        elif how == "none":
            landing.land(self.memo, flight, None)
        else:
            error = ValueError() if how == "error" else SystemExit()
            landing.fail(self.memo, flight, error)
        if flight.renews and free and how != "value" and stored is not None:
            stored.due = now if how == "abort" else now + self.floor
        keeps = how == "error" and self.failure_ttl and free and not background
        if keeps and (servable is None or servable.error is not None):
            self.store(key, None, error)
        counts, again = self.counts, how == "abort" and followers
        counts["calls"] += 1
        counts["refreshes"] += flight.kind == "refresh"
        counts["failures"] += how == "error"
        if how in ("value", "none"):
            counts["fetches"] += not background
            counts["waits"] += followers
            counts["uncached"] += how == "none" or not free
        else:
            counts["errors"] += (not background) + (0 if again else followers)
        if free:
            assert self.current.pop(key) is flight
            if again:
                self.current[key] = flight.successor
                self.passed_on.add(flight.successor)

    # -- from outside --------------------------------------------------------------------------------------

    def detach(self, key):
        flight = self.current.get(key)
        if flight is None or flight.state is not FLYING:
            return False
        self.detached.add(self.current.pop(key))
        return True

    @rule(key=KEYS, how=st.sampled_from(["put", "invalidate", "invalidate", *["look"] * 5]))
    def from_outside(self, key, how):
        if how == "look":
            assert controls.explain(self.memo, key).key == key
        else:
            getattr(self, how)(key)

    def invalidate(self, key):
        there = self.served(key) is not None
        assert controls.invalidate(self.memo, key) == (self.detach(key) or there)
        self.stored.pop(key, None)

    def put(self, key):
        value = next(self.numbers)
        controls.put(self.memo, key, value)
        self.detach(key)
        self.store(key, value)

    def loops(self):
        return [loop for _, loop in self.alive() if loop is not None]

    @precondition(loops)
    @rule(number=ANY, dies=st.sampled_from([False, False, True]))
    def a_loop_dies(self, number, dies):
        loops = self.loops()
        loops[number % len(loops)].dead = dies

    @rule(step=st.sampled_from([0.5, 1.0, 5.0, 5.0, 10.0, 10.0, 10.0, 20.0, 40.0, -1.0, -6.0, -25.0]))
    def tick(self, step):
        self.clock.advance(step)

    # -- what holds after each step --------------------------------------------------------------------------

    @invariant()
    def the_same_counts_and_sums(self):
        stats = controls.stats(self.memo)  # drops what has run out, before the clock steps back
        self.stored = {key: stored for key, stored in self.stored.items() if self.clock() < stored.gone}
        assert {name: getattr(stats, name) for name in self.counts} == self.counts
        six = stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts
        gone = sum(flight.followers for flight in self.detached if self.is_dead(flight))
        assert six + len(self.calls) >= self.received - gone
        assert stats.entries == len(self.stored)

    @invariant()
    def the_same_values(self):
        for key in "AB":
            entry, stored = controls.entry(self.memo, key), self.served(key)
            if stored is None or stored.error is not None:
                assert entry is None
            else:
                assert entry.value == stored.value
                assert entry.state == ("fresh" if self.clock() < stored.end else "stale")

    @invariant()
    def one_flight_for_a_key(self):
        flying = {info.key for info in controls.flights(self.memo) if not info.detached}
        assert flying == {key for key, flight in self.current.items() if flight.state is FLYING}
        mine = [renewal.flight.key for renewal, _ in self.running if renewal.flight not in self.detached]
        assert len(mine) == len(set(mine))

    def teardown(self):
        for _ in range(100):
            while self.queued:
                self.begin(0)
            for _, loop in self.running:
                if loop is not None:
                    loop.dead = False
            while self.running:
                self.end_renewal(0, "error")
            while self.those_who(Decision.LEAD):
                self.end_call(0, "error")
            for actor in self.those_who(Decision.JOIN):
                self.wakes(actor)
            if not (self.calls or self.queued or self.running):
                break
        assert not self.calls
        stats = controls.stats(self.memo)
        six = stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts
        assert six == self.received
        assert len(self.memo.locks) == 0
        assert not self.memo.adrift


class Ahead(FreshnessModel):
    """Renewed ahead of time, and without grace."""

    grace, ahead = 0.0, 0.5


class Everything(FreshnessModel):
    """All of it, with failures kept for longer than the floor."""

    ahead, failure_ttl = 0.5, 4.0


class FailuresOnly(FreshnessModel):
    """Exceptions are kept, values live for their ttl."""

    grace, failure_ttl = 0.0, 4.0


@pytest.mark.parametrize("examples", [30, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("machine", [FreshnessModel, Ahead, Everything, FailuresOnly])
def test_it_does_what_the_model_says(machine, examples):
    """Whatever is asked for and whenever: calls, controls, failures and time that passes."""
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=60, deadline=None)
    )
