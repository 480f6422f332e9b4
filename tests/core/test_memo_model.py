"""The decision maker against a model that predicts every verdict, every count and every stored value."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from singleflight.core import controls, coordinator, landing, leaving
from singleflight.core.call import Call, Decision, new_call
from singleflight.core.coordinator import new_cache
from singleflight.core.options import Options, is_not_none
from singleflight.telemetry.counters import Counts
from singleflight.testing import FakeClock

ACTORS = st.integers(0, 5)
KEYS = st.sampled_from("AB")
TTL = 10


@dataclass(eq=False)
class Model:
    """One flight: `retries` left in its chain, and how it ended."""

    retries: int | None
    followers: set = field(default_factory=set)
    leader: int | None = None
    ended: str = ""  # "shared" or "nothing"
    outcome: Any = None


class MemoModel(RuleBasedStateMachine):
    """Actors come, wake, give up, land, fail and abort in any order; keys are invalidated and put."""

    retries = 1

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        options = Options.checked(
            ttl=TTL,
            maxsize=None,
            max_idle_locks=0,
            cache_if=is_not_none,
            follower_retries=self.retries,
            wait_timeout=None,
            timer=self.clock,
            listener=None,
        )
        self.memo = new_cache("model", options, Counts())
        self.calls = {}
        self.flights = {}  # key -> its current flight
        self.stored = {}  # key -> (value, landed)
        self.of = {}  # actor -> the flight it leads or follows
        self.counts = dict.fromkeys(
            ("hits", "waits", "fetches", "errors", "timeouts", "calls", "failures", "uncached"), 0
        )
        self.numbers = iter(range(10**9))

    def fresh(self, key):
        value, landed = self.stored.get(key, (None, float("-inf")))
        return value if self.clock() < landed + TTL else None

    def boards(self, actor):
        """An actor boards; everything about it is predicted."""
        call = self.calls[actor]
        key, flight = call.key, self.flights.get(call.key)
        decision = coordinator.board(self.memo, call)
        if self.fresh(key) is not None:
            assert decision is Decision.HIT
            assert call.record.value == self.fresh(key)
            self.counts["hits"] += 1
            del self.calls[actor]
        elif flight is not None and flight.leader is not None:
            assert decision is Decision.JOIN
            flight.followers.add(actor)
            self.of[actor] = flight
        else:
            assert decision is Decision.LEAD
            flight = self.flights[key] = flight or Model(self.retries)
            flight.leader = actor
            self.of[actor] = flight

    def waits(self, actor):
        return actor in self.of and self.of[actor].leader != actor

    def done(self, actor):
        del self.calls[actor], self.of[actor]

    @rule(actor=ACTORS, key=KEYS)
    def call(self, actor, key):
        if actor not in self.calls:
            self.calls[actor] = new_call(Call, key, actor, actor, actor)
            self.boards(actor)

    @rule(actor=ACTORS)
    def wake(self, actor):
        if not self.waits(actor):
            return
        call, flight = self.calls[actor], self.of[actor]
        key = call.key
        woken = call.latch.wait(0)
        assert woken or (flight.leader is not None and not flight.ended)
        if not woken:
            return
        decision = coordinator.awake(self.memo, call)
        if flight.ended == "shared":
            assert decision is Decision.SHARE
            assert flight.outcome in (call.flight.value, call.flight.error)
            self.done(actor)
        elif flight.ended:
            assert decision is Decision.NONE
            del self.of[actor]
            self.boards(actor)
        elif flight.leader is not None:
            assert decision is Decision.JOIN
        elif self.fresh(key) is not None:
            assert decision is Decision.HIT
            assert call.record.value == self.fresh(key)
            self.counts["waits"] += 1
            self.unjoin(key, flight, actor)
            self.done(actor)
        else:
            assert decision is Decision.LEAD
            flight.followers.remove(actor)
            flight.leader = actor

    def unjoin(self, key, flight, actor):
        flight.followers.discard(actor)
        if not flight.followers and flight.leader is None and self.flights.get(key) is flight:
            del self.flights[key]

    @rule(actor=ACTORS, timed_out=st.booleans())
    def give_up(self, actor, timed_out):
        if not self.waits(actor):
            return
        call, flight = self.calls[actor], self.of[actor]
        left = leaving.leave(self.memo, call, timed_out)
        assert left == (flight.ended != "shared")
        if left:
            self.counts["timeouts" if timed_out else "errors"] += 1
            self.unjoin(call.key, flight, actor)
            self.done(actor)

    @rule(actor=ACTORS, how=st.sampled_from(["value", "value", "refused", "error", "abort"]))
    def end(self, actor, how):
        flight = self.of.get(actor)
        if flight is None or flight.leader != actor:
            return
        call = self.calls.pop(actor)
        del self.of[actor]
        key, current = call.key, self.flights.get(call.key) is flight
        error = {"error": ValueError(actor), "abort": KeyboardInterrupt()}.get(how)
        value = next(self.numbers) + 1 if how == "value" else None
        if error is None:
            landing.land(self.memo, call.flight, value)
        else:
            landing.fail(self.memo, call.flight, error)
        if current:
            del self.flights[key]
        if how == "value" and current:
            self.stored[key] = value, self.clock()
        flight.outcome = value if error is None else error
        followers, served = flight.followers, len(flight.followers)
        again = how == "abort" or (how != "value" and current and flight.retries != 0)
        if followers and again:
            served = 0
            flight.ended = "nothing"
            if current:
                spent = how != "abort" and flight.retries is not None
                successor = Model(flight.retries - 1 if spent else flight.retries, followers)
                self.flights[key] = successor
                self.of.update(dict.fromkeys(followers, successor))
        else:
            flight.ended = "shared"
        self.counts["calls"] += 1
        if error is None:
            self.counts["fetches"] += 1
            self.counts["waits"] += served
            self.counts["uncached"] += not (value is not None and current)
        else:
            self.counts["errors"] += 1 + served
            self.counts["failures"] += how == "error"

    def detach(self, key):
        flight = self.flights.get(key)
        if flight is None or flight.leader is None:
            return False
        del self.flights[key]
        return True

    @rule(key=KEYS)
    def invalidate(self, key):
        there = self.fresh(key) is not None
        assert controls.invalidate(self.memo, key) == (self.detach(key) or there)
        self.stored.pop(key, None)

    @rule(key=KEYS)
    def put(self, key):
        value = next(self.numbers) + 1
        controls.put(self.memo, key, value)
        self.detach(key)
        self.stored[key] = value, self.clock()

    @rule(step=st.sampled_from([1, 20]))
    def tick(self, step):
        self.clock.advance(step)

    @invariant()
    def the_same_values_are_served(self):
        for key in "AB":
            entry = controls.entry(self.memo, key)
            assert (None if entry is None else entry.value) == self.fresh(key)

    @invariant()
    def the_same_counts(self):
        stats = controls.stats(self.memo)
        assert {name: getattr(stats, name) for name in self.counts} == self.counts

    @invariant()
    def the_same_flights(self):
        flying = {info.key: info.followers for info in controls.flights(self.memo) if not info.detached}
        assert flying == {key: len(f.followers) for key, f in self.flights.items() if f.leader is not None}
        assert len(self.memo.locks) == len(self.flights)

    def teardown(self):
        for _ in range(200):
            for actor in list(self.calls):
                self.end(actor, "error")
                self.wake(actor)
        assert not self.calls
        assert not self.flights
        assert len(self.memo.locks) == 0
        assert not self.memo.adrift


class NoRetries(MemoModel):
    """Outcomes are shared at once."""

    retries = 0


class ThreeRetries(MemoModel):
    """A budget that newcomers inherit."""

    retries = 3


class EveryFollower(MemoModel):
    """Each follower tries in turn."""

    retries = None


@pytest.mark.parametrize("examples", [30, pytest.param(150, marks=pytest.mark.long)])
@pytest.mark.parametrize("machine", [MemoModel, NoRetries, ThreeRetries, EveryFollower])
def test_any_order(machine, examples):
    """Whatever calls, ends, waits and gives up, in any order: it does as the model."""
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=60, deadline=None)
    )
