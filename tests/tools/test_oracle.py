"""The oracle objects to what is wrong, and not to what only looks like it."""

import asyncio
from types import SimpleNamespace

import pytest

from tools.soak.load import Soak, SoakFailed, miscounts
from tools.soak.oracle import Oracle
from tools.soak.parts import Broken, Kind, Value

KIND = Kind("price", life=10.0, failure_life=2.0, keeps=True)


class Story:
    """What a well-behaved library tells the oracle, step by step; a test plants one wrong step."""

    def __init__(self):
        self.oracle = Oracle()

    def call(self, key="A", how="call", kind=KIND):
        return self.oracle.call_begins(kind, key, how)

    def execution(self, call, key="A"):
        return self.oracle.execution_begins(KIND, key, call, is_refresh=False)

    def end(self, execution, outcome="value"):
        self.oracle.execution_ends(execution, outcome)
        self.oracle.clock.lands([execution])
        self.oracle.clock()
        return Value(execution) if outcome == "value" else Broken(execution)

    def fetch(self, key="A", outcome="value"):
        call = self.call(key)
        got = self.end(self.execution(call, key), outcome)
        self.oracle.call_ends(call, got)
        return got

    def receive(self, outcome, call=None, key="A"):
        self.oracle.call_ends(call or self.call(key), outcome)

    def drop(self, key="A"):
        self.oracle.drop_ends(self.oracle.drop_begins(KIND, [key], "invalidate"))

    def said(self):
        """Its one complaint, without what came before it; None if it has none."""
        complaints = self.oracle.complaints
        assert len(complaints) <= 1, complaints
        return complaints[0].splitlines()[0] if complaints else None


@pytest.fixture
def story():
    return Story()


# -- what is wrong -------------------------------------------------------------------------------------


def test_a_value_of_another_key(story):
    """Who asks for B is not given A's value."""
    story.receive(story.fetch("A"), key="B")
    assert "another key" in story.said()


def test_a_value_of_another_function(story):
    """Nor that of a function of another name, for an equal key."""
    story.receive(story.fetch("A"), story.call(kind=Kind("rate", life=10.0)))
    assert "another key" in story.said()


def test_a_value_that_was_dropped_before_the_call(story):
    """After an invalidate nobody receives what began before it, stored or in flight."""
    value = story.fetch()
    story.drop()
    story.receive(value)
    assert "dropped" in story.said()


def test_a_flight_that_was_detached_before_the_call(story):
    """Whoever comes after an invalidate does not join the flight of before."""
    execution = story.execution(story.call())
    story.drop()
    late = story.call()
    story.receive(story.end(execution), late)
    assert "dropped" in story.said()


def test_a_put_that_was_dropped(story):
    """A value that was put is gone after a later invalidate, too."""
    put = story.oracle.put_begins(KIND, "A")
    story.oracle.drop_ends(story.oracle.drop_begins(KIND, ["A"], "put"), put)
    story.drop()
    story.receive(Value(put))
    assert "dropped" in story.said()


def test_a_value_that_has_run_out(story):
    """Nobody who calls after the end of its life receives it."""
    value = story.fetch()
    story.oracle.step(10.0)
    story.receive(value)
    assert "landed at 1000.0 when it was at least 1010.0" in story.said()


def test_a_failure_that_has_run_out(story):
    """A stored exception has a life of its own, shorter than a value's."""
    error = story.fetch(outcome="failure")
    story.oracle.step(2.0)
    story.receive(error)
    assert "landed at" in story.said()


def test_two_executions_of_a_key_at_once(story):
    """One at a time, where nothing detached the first."""
    story.execution(story.call())
    story.execution(story.call())
    assert "which nobody detached" in story.said()


def test_a_value_fetched_though_there_is_a_fresh_one(story):
    """Whoever comes after a landing finds the value."""
    story.fetch()
    story.execution(story.call())
    assert "is fresh" in story.said()


def test_a_value_before_its_execution_has_ended(story):
    """Nobody has what is not there yet."""
    execution = story.execution(story.call())
    story.receive(Value(execution))
    assert "has not ended" in story.said()


def test_none_that_nobody_returned(story):
    """A failure is not turned into an empty value."""
    call = story.call()
    story.end(story.execution(call), "failure")
    story.receive(None, call)
    assert "received None" in story.said()


@pytest.mark.parametrize("error", [TimeoutError(), RuntimeError("deadlock"), asyncio.CancelledError()])
def test_an_exception_that_no_execution_raised(story, error):
    """Nobody is told of a timeout, a circle or a cancellation that was not theirs."""
    story.receive(error)
    assert "received" in story.said()


def test_an_exception_of_another_key(story):
    """Who asks for B is not given A's failure."""
    call = story.call("B")
    story.receive(story.fetch("A", "failure"), call)
    assert "another key" in story.said()


STATS = {"hits": 5, "stale_hits": 1, "waits": 2, "fetches": 3, "errors": 1, "timeouts": 1, "calls": 4}
STATS |= {"failures": 1, "in_flight": 0, "locks": 2, "idle_locks": 2}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, []),
        ({"hits": 4}, ["12 calls counted, 13 received"]),
        ({"waits": 3}, ["14 calls counted, 13 received"]),
        ({"calls": 5}, ["5 executions counted, 4 run"]),
        ({"failures": 0}, ["0 failures counted of 1"]),
        ({"in_flight": 1}, ["1 in flight"]),
        ({"locks": 3}, ["1 locks held"]),
    ],
)
def test_a_miscount(wrong, said):
    """What `stats()` says is compared with what was received and run."""
    stats = SimpleNamespace(**{**STATS, **wrong})
    assert miscounts(stats, received=13, calls=4, failures=1) == said


def test_memory_that_grows_with_the_calls():
    """One block for each call is found."""
    soak = Soak(seed=0)
    soak.rounds, soak.blocks, soak.received = 4, [900, 1000, 1100, 1200], [0, 5000, 10000, 15000]
    soak._check_memory()
    soak.blocks[2:] = [6000, 11000]
    with pytest.raises(SoakFailed, match="memory grows"):
        soak._check_memory()


def test_the_account_of_a_failure(story):
    """It says what is wrong, and what happened to that key before."""
    story.drop()
    story.receive(story.fetch(), key="A")
    story.receive(story.fetch("B"), key="A")
    (account,) = story.oracle.complaints
    first, *before = account.splitlines()
    assert first.startswith("price('A'): call [")
    assert [line.split(": ", 1)[1].split()[0] for line in before[:3]] == ["invalidate", "what", "execution"]


# -- what only looks wrong -----------------------------------------------------------------------------


def test_what_overlaps_is_allowed(story):
    """A caller of before the invalidate receives the detached flight's value, beside a new flight."""
    first = story.call()
    old = story.execution(first)
    story.drop()
    story.fetch()
    story.receive(story.end(old), first)
    assert story.said() is None


def test_what_was_claimed_before_a_drop_may_begin_after_it(story):
    """A leader may be slow to begin; then it is the one that was detached."""
    slow = story.call()
    story.drop()
    story.execution(story.call())
    story.execution(slow)
    assert story.said() is None


def test_a_step_back_lengthens_lives(story):
    """A value that has run out may be served again when the clock has gone back."""
    value = story.fetch()
    story.oracle.step(12.0)
    story.oracle.step(-5.0)
    story.receive(value)
    assert story.said() is None


def test_a_flight_that_ended_within_the_call_is_never_too_old(story):
    """A follower shares an outcome however far the clock has gone meanwhile."""
    call, other = story.call(), story.call()
    value = story.end(story.execution(call))
    story.oracle.step(100.0)
    story.receive(value, other)
    assert story.said() is None


def test_two_puts_at_once_may_end_in_either_order(story):
    """The one that began first may be the one that stays."""
    first, second = story.oracle.put_begins(KIND, "A"), story.oracle.put_begins(KIND, "A")
    story.oracle.clock.lands([first, second])
    story.oracle.clock(), story.oracle.clock()
    one = story.oracle.drop_begins(KIND, ["A"], "put")
    other = story.oracle.drop_begins(KIND, ["A"], "put")
    story.oracle.drop_ends(other, second)
    story.oracle.drop_ends(one, first)
    story.receive(Value(first))
    story.receive(Value(second))
    assert story.said() is None
