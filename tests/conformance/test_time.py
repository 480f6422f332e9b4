"""time: one clock for lifetimes, another for waiting, and neither is the wall clock."""

import math
import time
from datetime import timedelta

import pytest

from singleflight import FlightTimeout, single_flight_ttl
from singleflight.testing import FakeClock

from ..drivers import Executions, stubbornly, until
from .conftest import outcomes


def test_a_clock_that_steps_back_lengthens_lives(scene):
    """If the clock steps back, lifetimes are longer by the step; nothing is lost and nothing raises."""
    one = scene()
    one.call()
    one.clock.advance(-30)
    assert (one.fetch.entry().age, one.fetch.entry().state) == (0.0, "fresh")
    one.clock.advance(89.9)
    assert one.call() == 0
    one.clock.advance(0.1)
    assert one.call() == 1


def test_zero_negative_and_infinite_durations():
    """A ttl of 0 stores nothing, infinity and `None` never expire, negative durations are refused by name."""
    clock = FakeClock()
    for ttl, stored in ((0, False), (timedelta(0), False), (math.inf, True), (None, True)):
        fetch = single_flight_ttl(ttl=ttl, timer=clock)(lambda: 1)
        fetch()
        clock.advance(1e12)
        assert (fetch.entry() is not None) is stored
    for option in ("ttl", "grace", "failure_ttl", "wait_timeout", "flight_timeout"):
        with pytest.raises(ValueError, match=option):
            single_flight_ttl(lambda: 1, **{"ttl": 60, option: -0.1})
    with pytest.raises(ValueError, match="ttl"):
        single_flight_ttl(lambda: 1, ttl=timedelta(seconds=-1))


def test_durations_may_be_timedeltas(scene):
    """Seconds and `timedelta` mean the same."""
    one = scene(ttl=timedelta(minutes=1), grace=timedelta(minutes=10))
    one.call()
    assert (one.fetch.entry().ttl, one.fetch.explain().stale_for) == (60.0, 600.0)


def test_a_life_counts_from_the_landing(scene):
    """However long the call took, its value lives for its whole ttl."""
    one = scene()
    gate = one.hold(0)
    caller = one.ask()
    one.clock.advance(1000)
    gate.set()
    caller.outcome()
    one.clock.advance(59.9)
    assert one.call() == 0


def test_the_end_of_a_life_is_exclusive(scene):
    """A value is fresh while its age is below its ttl, stale below ttl + grace, and then expired."""
    one = scene(grace=10)
    one.call()
    states = []
    for step in (59.5, 0.5, 9.5, 0.5):
        one.clock.advance(step)
        entry = one.fetch.entry()
        states.append(entry and entry.state)
    assert states == ["fresh", "stale", "stale", None]


def test_the_wall_clock_is_not_asked(monkeypatch):
    """Setting the system's time changes neither lifetimes nor waits."""
    fetch = single_flight_ttl(ttl=60)(lambda: object())
    value = fetch()
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert fetch() is value
    assert fetch.entry().age < 60


def test_wait_timeout_ends_one_followers_wait(driver, scene):
    """After `wait_timeout` a follower gets `FlightTimeout`; the leader and its value are not affected."""
    one = scene(wait_timeout=0.02)
    gate = one.hold(0)
    leader = one.ask()
    assert isinstance(driver.start(one.fetch).outcome(), FlightTimeout)
    gate.set()
    assert leader.outcome() == 0
    assert (one.call(), one.fetch.stats().timeouts) == (0, 1)


def test_patience_runs_on_real_time(driver, scene):
    """`wait_timeout` runs on real time, whether the `timer` stands still or runs ahead."""
    patient, impatient = scene(wait_timeout=60), scene(wait_timeout=0.02)
    gates = [patient.hold(0), impatient.hold(0)]
    leaders = [patient.ask(), impatient.ask()]
    (follower,) = patient.join()
    patient.clock.advance(1e6)
    assert isinstance(driver.start(impatient.fetch).outcome(), FlightTimeout)
    assert not follower.done()
    for gate in gates:
        gate.set()
    assert outcomes([*leaders, follower]) == [0, 0, 0]


def hanging(driver, runs, flight_timeout=0.05):
    """A function whose first runs hang through cancellations, at gates."""
    gates, executions = [driver.gate() for _ in range(runs)], Executions()

    async def fetch():
        number = executions.begin()
        if number < runs:
            await stubbornly(gates[number])
        return number

    fetch = driver.decorate(fetch, flight_timeout=flight_timeout)
    driver.start(fetch)
    executions.wait_for(1)
    return fetch, gates, executions


def test_flight_timeout_takes_the_key_from_a_leader_that_hangs(driver):
    """After `flight_timeout` followers move on to one new run; the old one's result is not stored."""
    fetch, gates, executions = hanging(driver, 1, flight_timeout=0.5)
    followers = [driver.start(fetch) for _ in range(4)]
    assert outcomes(followers) == [1] * 4
    gates[0].set()
    assert driver.callers[0].outcome() == 0
    assert (fetch.entry().value, executions.begun) == (1, 2)


def test_a_newcomer_sees_that_a_flight_is_overdue(driver):
    """A caller that finds a flight past its `flight_timeout` leads a new run, even if none has waited."""
    fetch, gates, _ = hanging(driver, 1)
    until(lambda: fetch.flights()[0].elapsed > 0.06)
    assert driver.call(fetch) == 1
    gates[0].set()


def test_a_flight_that_nobody_waits_for_may_take_its_time(driver):
    """If no other caller asks for it, a run longer than `flight_timeout` lands and is stored."""
    fetch, gates, _ = hanging(driver, 1)
    until(lambda: fetch.flights()[0].elapsed > 0.06)
    gates[0].set()
    assert driver.callers[0].outcome() == 0
    assert fetch.entry().value == 0


def test_at_most_four_runs_of_a_key_are_abandoned(driver):
    """At most four abandoned runs of a key; then callers get `FlightTimeout` until one has ended."""
    fetch, gates, executions = hanging(driver, 5)
    for begun in range(2, 6):
        driver.start(fetch)
        executions.wait_for(begun)
    assert isinstance(driver.start(fetch).outcome(), FlightTimeout)
    assert executions.begun == 5
    for gate in gates:
        gate.set()
    assert outcomes(driver.callers[:5]) == list(range(5))
