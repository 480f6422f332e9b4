"""The decision maker, driven step by step by one thread that plays many actors, against a simple model."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from singleflight.common.errors import FlightDeadlock
from singleflight.core import controls
from singleflight.core.call import Boarding, Verdict, boarding_of
from singleflight.core.coordinator import Memo
from singleflight.core.options import Options, is_not_none
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
        self.memo = Memo("model", options, Counts())
        self.under_way = {}  # actor -> its boarding
        self.received = 0
        self.landed = {}  # key -> the values that may be served
        self.numbers = iter(range(10**9))

    def settle(self, actor, verdict):
        boarding = self.under_way[actor]
        if verdict is Verdict.HIT:
            assert boarding.record.value in self.landed[boarding.key]
        if verdict in (Verdict.HIT, Verdict.SHARE):
            del self.under_way[actor]
        elif verdict is Verdict.NONE:
            self.settle_board(actor, boarding)
            return

    def settle_board(self, actor, boarding):
        try:
            verdict = self.memo.board(boarding)
        except FlightDeadlock:
            del self.under_way[actor]
            return
        if verdict is Verdict.HIT:
            assert boarding.record.value in self.landed[boarding.key]
            del self.under_way[actor]

    @rule(actor=ACTORS, key=KEYS)
    def call(self, actor, key):
        if actor in self.under_way:
            return
        self.received += 1
        boarding = self.under_way[actor] = boarding_of(Boarding, key, actor, actor, actor)
        self.settle_board(actor, boarding)

    @rule(actor=ACTORS)
    def wake(self, actor):
        boarding = self.under_way.get(actor)
        if boarding and boarding.verdict is Verdict.JOIN and boarding.gate.wait(0):
            self.settle(actor, self.memo.awake(boarding))

    @rule(actor=ACTORS, timed_out=st.booleans())
    def give_up(self, actor, timed_out):
        boarding = self.under_way.get(actor)
        if boarding and boarding.verdict is Verdict.JOIN and self.memo.leave(boarding, timed_out):
            del self.under_way[actor]

    @rule(actor=ACTORS, how=st.sampled_from(["value", "value", "none", "error", "abort"]))
    def end(self, actor, how):
        boarding = self.under_way.get(actor)
        if not boarding or boarding.verdict is not Verdict.LEAD:
            return
        flight = boarding.flight
        if how == "value":
            value = next(self.numbers)
            if not flight.detached:
                self.landed[boarding.key] = {value}
            self.memo.land(flight, value)
        elif how == "none":
            self.memo.land(flight, None)
        else:
            self.memo.fail(flight, ValueError() if how == "error" else KeyboardInterrupt())
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
        for boarding in self.under_way.values():
            if boarding.verdict is Verdict.JOIN and not boarding.flight.has_opened(boarding.gate):
                assert any(
                    other.verdict is Verdict.LEAD and other.flight is boarding.flight
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


TestMemo, TestMemoNoRetries, TestMemoEveryFollower = (
    MemoMachine.TestCase,
    NoRetries.TestCase,
    EveryFollower.TestCase,
)
for case in (TestMemo, TestMemoNoRetries, TestMemoEveryFollower):
    case.settings = settings(max_examples=80, stateful_step_count=60, deadline=None)
del case  # or it would be collected once more
