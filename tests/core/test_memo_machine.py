"""The decision maker, driven step by step by one thread that plays many actors, against a simple model."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from singleflight.common.errors import FlightDeadlock
from singleflight.core import controls, coordinator, landing, leaving
from singleflight.core.call import Call, Decision, new_call
from singleflight.core.coordinator import new_cache
from singleflight.core.options import Options
from singleflight.core.shareable import is_not_none
from singleflight.telemetry.counters import Counts
from singleflight.testing import FakeClock

ACTORS = st.integers(0, 5)
KEYS = st.sampled_from("AB")


class MemoMachine(RuleBasedStateMachine):
    """Actors board, wake, give up, land, fail and abort in any order, while keys are invalidated and put."""

    retries = 1

    def __init__(self):
        super().__init__()
        self.clock = FakeClock()
        options = Options.checked(
            ttl=10,
            maxsize=4,
            max_idle_locks=2,
            cache_if=is_not_none,
            follower_retries=self.retries,
            wait_timeout=None,
            timer=self.clock,
            listener=None,
        )
        self.memo = new_cache("model", options, Counts())
        self.under_way = {}  # actor -> its boarding
        self.received = 0
        self.landed = {}  # key -> the values that may be served
        self.numbers = iter(range(10**9))

    def settle(self, actor, decision):
        call = self.under_way[actor]
        if decision is Decision.HIT:
            assert call.record.value in self.landed[call.key]
        if decision in (Decision.HIT, Decision.SHARE):
            del self.under_way[actor]
        elif decision is Decision.NONE:
            self.settle_board(actor, call)
            return

    def settle_board(self, actor, call):
        try:
            decision = coordinator.board(self.memo, call)
        except FlightDeadlock:
            del self.under_way[actor]
            return
        if decision is Decision.HIT:
            assert call.record.value in self.landed[call.key]
            del self.under_way[actor]

    @rule(actor=ACTORS, key=KEYS)
    def call(self, actor, key):
        if actor in self.under_way:
            return
        self.received += 1
        call = self.under_way[actor] = new_call(Call, key, actor, actor, actor)
        self.settle_board(actor, call)

    @rule(actor=ACTORS)
    def wake(self, actor):
        call = self.under_way.get(actor)
        if call and call.decision is Decision.JOIN and call.latch.wait(0):
            self.settle(actor, coordinator.awake(self.memo, call))

    @rule(actor=ACTORS, timed_out=st.booleans())
    def give_up(self, actor, timed_out):
        call = self.under_way.get(actor)
        if call and call.decision is Decision.JOIN and leaving.leave(self.memo, call, timed_out):
            del self.under_way[actor]

    @rule(actor=ACTORS, how=st.sampled_from(["value", "value", "none", "error", "abort"]))
    def end(self, actor, how):
        call = self.under_way.get(actor)
        if not call or call.decision is not Decision.LEAD:
            return
        flight = call.flight
        if how == "value":
            value = next(self.numbers)
            if not flight.detached:
                self.landed[call.key] = {value}
            landing.land(self.memo, flight, value)
        elif how == "none":
            landing.land(self.memo, flight, None)
        else:
            landing.fail(self.memo, flight, ValueError() if how == "error" else KeyboardInterrupt())
        del self.under_way[actor]

    @rule(key=KEYS)
    def invalidate(self, key):
        controls.invalidate(self.memo, key)
        self.landed[key] = set()

    @rule(key=KEYS)
    def put(self, key):
        value = next(self.numbers)
        self.landed[key] = {value}
        controls.put(self.memo, key, value)

    @rule(step=st.sampled_from([1, 20]))
    def tick(self, step):
        self.clock.advance(step)

    @invariant()
    def at_most_one_flight_for_a_key(self):
        flying = [flight.key for flight in controls.flights(self.memo) if not flight.detached]
        assert len(flying) == len(set(flying))

    @invariant()
    def an_actor_that_waits_has_something_to_wait_for(self):
        for call in self.under_way.values():
            if call.decision is Decision.JOIN and not call.flight.has_opened(call.latch):
                assert any(
                    other.decision is Decision.LEAD and other.flight is call.flight
                    for other in self.under_way.values()
                )

    def teardown(self):
        for _ in range(100):
            for actor in list(self.under_way):
                self.end(actor, "error")
                self.wake(actor)
            if not self.under_way:
                break
        assert not self.under_way
        stats = controls.stats(self.memo)
        assert stats.locks == stats.idle_locks <= 2
        assert stats.in_flight == 0
        six = stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts
        assert six == self.received


class NoRetries(MemoMachine):
    """Outcomes are shared at once."""

    retries = 0


class EveryFollower(MemoMachine):
    """Each follower tries in turn."""

    retries = None


@pytest.mark.parametrize("examples", [20, pytest.param(80, marks=pytest.mark.long)])
@pytest.mark.parametrize("machine", [MemoMachine, NoRetries, EveryFollower])
def test_decisions_in_any_order(machine, examples):
    """Whatever callers and controls do, in any order, the invariants hold."""
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=60, deadline=None)
    )
