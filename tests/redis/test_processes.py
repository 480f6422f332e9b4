"""Real processes: what one of them calls serves all, whatever becomes of it."""

import signal
import time

import pytest

from singleflight import FlightDeadlock, FlightTimeout

from .members import Members
from .waiting import wait_until

PATIENCE = 20.0
WAYS = ["thread", "task", "bulk"]


@pytest.fixture
def members(url, tmp_path):
    """Makes processes on the server that all tests share."""
    made = Members(url, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("ways", [["thread"] * 2, ["task"] * 2, ["thread", "task", "bulk"]], ids=" ".join)
def test_each_of_fifty_keys_is_loaded_once_by_eight_processes(members, ways):
    """And every caller of all of them receives what that load has brought."""
    symbols = [f"S{number}" for number in range(50)]
    asking = []
    for number in range(8):
        shift = number * 6
        asking.append(members().begin("many", symbols[shift:] + symbols[:shift], ways))
    answers = [each for asked in asking for each in asked.result(PATIENCE)]
    assert members.loads() == dict.fromkeys(symbols, 1)
    assert len(answers) == 8 * 50 * len(ways)
    assert {symbol for symbol, _, _ in answers} == set(symbols)
    assert len({tuple(each) for each in answers}) == 50


@pytest.mark.parametrize("way", WAYS)
def test_a_leader_that_is_killed_is_replaced(members, way):
    """As soon as its lease ends; nobody else notices."""
    a, b, c = members(gate=True), members(), members()
    a.call("ASML")
    a.has_entered("ASML")
    waiting = [b.call("ASML", way), c.call("ASML", way)]
    b.waits_elsewhere()
    c.waits_elsewhere()
    a.kill()
    killed = time.monotonic()
    values = [each.result(PATIENCE) for each in waiting]
    assert values[0] == values[1]
    assert values[0][1] in (b.pid, c.pid)
    assert time.monotonic() - killed < 1.2 + 1.0  # 1.2 leases, and what busy cores take
    assert members.loads() == {"ASML": 2}


@pytest.mark.parametrize("way", WAYS)
def test_a_leader_that_was_stopped_past_its_lease_changes_nothing(members, way):
    """Its own callers receive its value; the newer one stays with all others."""
    a, b = members(gate=True, store={"lease": 0.3}), members(store={"lease": 0.3})
    old = a.call("ASML", way)
    a.has_entered("ASML")
    new = b.call("ASML")
    b.waits_elsewhere()
    a.stop()
    assert new.result(PATIENCE) == ["ASML", b.pid, 1]
    a.kill(signal.SIGCONT)
    a.do("open")
    assert old.result(PATIENCE) == ["ASML", a.pid, 1]
    assert members.loads() == {"ASML": 2}
    assert [each.call("ASML").result(PATIENCE) for each in (a, members())] == [["ASML", b.pid, 1]] * 2
    stats = a.do("stats")
    assert stats.refused + stats.leases_lost == 1  # told when it lands, or found by its keeper before


@pytest.mark.parametrize("way", ["thread", "task"])
def test_a_follower_that_gives_up_is_noticed_by_nobody(members, way):
    """It alone is told that it has waited for too long; all others receive the value."""
    a, b, c = members(gate=True), members(wait_timeout=0.05), members()
    first = a.call("ASML")
    a.has_entered("ASML")
    other = c.call("ASML", way)
    c.waits_elsewhere()
    assert isinstance(b.call("ASML", way).exception(PATIENCE), FlightTimeout)
    a.do("open")
    assert first.result(PATIENCE) == other.result(PATIENCE) == ["ASML", a.pid, 1]
    assert members.loads() == {"ASML": 1}
    assert b.do("left") == (0, 0)


@pytest.mark.parametrize("ahead", [-7200.0, 7200.0])
def test_the_clock_of_a_process_means_nothing(members, ahead):
    """Lives and waits are measured by the server, and as durations."""
    a, b = members(gate=True, ahead=ahead), members()
    first = a.call("ASML")
    a.has_entered("ASML")
    second = b.call("ASML")
    b.waits_elsewhere()
    a.do("open")
    assert first.result(PATIENCE) == second.result(PATIENCE) == ["ASML", a.pid, 1]
    b.do("invalidate", "ASML")
    wait_until(lambda: not a.do("has", "ASML"))
    assert a.call("ASML").result(PATIENCE) == b.call("ASML").result(PATIENCE) == ["ASML", a.pid, 2]


def test_a_fork_inside_a_function_changes_nothing_for_others(members):
    """The child returns to its caller; the lease is its parent's, who stores what it brings itself."""
    a, b = members(gate=True, forks="load"), members()
    first = a.call("ASML")
    a.has_entered("ASML")
    second = b.call("ASML")
    b.waits_elsewhere()
    assert a.do("child") == ["ASML", "child"]
    assert not second.done()
    a.do("open")
    assert first.result(PATIENCE) == second.result(PATIENCE) == ["ASML", a.pid, 1]
    assert members.loads() == {"ASML": 1}


def test_a_fork_while_a_flight_waits_elsewhere(members):
    """The child is sent nothing: it runs the function. Its parent receives what it waits for."""
    a, b = members(gate=True), members(forks="wait")
    first = a.call("ASML")
    a.has_entered("ASML")
    second = b.call("ASML")
    b.waits_elsewhere()
    assert b.do("child") == ["ASML", "child"]
    assert not second.done()
    a.do("open")
    assert first.result(PATIENCE) == second.result(PATIENCE) == ["ASML", a.pid, 1]
    assert members.loads() == {"ASML": 1}


# -- cycles --------------------------------------------------------------------------------------------


def rounds_of(members, ring, inner, outer, rounds):
    """Have each process of a ring call for what the next one is calling; return what came of each round."""
    size = len(ring)
    to = [(at + 1) % size for at in range(size)]
    made = [
        members(gate=True, inner={f"{ring[at]}{n}": (f"{ring[to[at]]}{n}", inner) for n in range(rounds)})
        for at in range(size)
    ]
    for number in range(rounds):
        calls = []
        for symbol, member in zip(ring, made, strict=True):
            calls.append(member.call(f"{symbol}{number}", outer))
            member.has_entered(f"{symbol}{number}")
        for member in made:
            member.do("open")
        yield [each.exception(PATIENCE) for each in calls]
        for member in made:
            member.do("shut")


CYCLES = [("thread", "thread"), ("thread", "bulk"), ("bulk", "thread"), ("bulk", "bulk"), ("task", "task")]


@pytest.mark.parametrize(("outer", "inner"), CYCLES)
@pytest.mark.parametrize("ring", ["AB", "ABC"])
def test_a_ring_of_processes_ends_with_an_error(members, ring, outer, inner):
    """At least one of them is told of the cycle; all end. Who waited for that one may load its key itself."""
    judge_rounds(members, ring, outer, inner, 2)


def judge_rounds(members, ring, outer, inner, rounds):
    for errors in rounds_of(members, ring, inner, outer, rounds):
        told = [str(error) for error in errors if isinstance(error, FlightDeadlock)]
        assert told
        assert any(all(f"'{symbol}" in text for symbol in ring) for text in told)


long = pytest.mark.long


@pytest.mark.parametrize(
    "way", ["thread", pytest.param("task", marks=long), pytest.param("bulk", marks=long)]
)
@pytest.mark.parametrize("both", [False, True], ids=["one", "both"])
def test_a_ring_that_goes_by_callers_of_the_same_process_ends(members, way, both):
    """They wait for the other process already, and belong to no flight that others wait for."""
    a = members(gate=True, inner={"A": ("B", "thread")})
    b = members(gate=True, inner={"B": ("A", "thread")})
    calls = [a.call("A", way)]
    a.has_entered("A")
    if not both:
        waiting = b.call("A", way)
        b.waits_elsewhere()
    calls.append(b.call("B", way))
    b.has_entered("B")
    if both:
        waiting = b.call("A", way)
        b.waits_elsewhere()
        calls.append(a.call("B", way))
        a.waits_elsewhere()
    a.do("open")
    b.do("open")
    errors = [each.exception(PATIENCE) for each in calls]
    assert any(isinstance(error, FlightDeadlock) for error in errors)
    waiting.exception(PATIENCE)


@pytest.mark.long
@pytest.mark.parametrize(("outer", "inner"), CYCLES)
def test_rings_end_every_time(members, outer, inner):
    """Whoever comes to wait last."""
    judge_rounds(members, "AB", outer, inner, 100)
