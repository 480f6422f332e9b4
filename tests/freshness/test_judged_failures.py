"""failure_ttl as a callable: which exceptions are stored, for how long, and what its faults do."""

import logging
from datetime import timedelta
from math import nan

import pytest

from singleflight import FlightDeadlock, single_flight_ttl


class NotFound(Exception):
    """Stored for a minute."""


class Busy(Exception):
    """Not stored."""


class Abort(BaseException):
    """Neither stored nor shared."""


def judge(error):
    return timedelta(minutes=1) if isinstance(error, NotFound) else 0


def test_each_exception_has_its_own_ttl(source):
    """Seconds or a timedelta store that exception for so long; 0 does not store it."""
    one = source(failure_ttl=judge)
    one.script |= {0: [Busy()], 1: [NotFound()], 2: [NotFound()]}
    with pytest.raises(Busy):
        one.call()
    for _ in range(3):
        with pytest.raises(NotFound):
            one.call()
    assert one.executions.begun == 2
    one.clock.advance(59.9)
    with pytest.raises(NotFound):
        one.call()
    one.clock.advance(0.2)
    with pytest.raises(NotFound):
        one.call()
    assert one.executions.begun == 3
    assert one.fetch.stats().failures == 3
    assert one.sums()


def test_it_is_asked_once_for_each_failed_execution(source):
    """Followers, later callers and values do not ask it."""
    asked = []
    one = source(failure_ttl=lambda error: (asked.append(type(error)), 30)[1], follower_retries=0)
    gate = one.hold(0, NotFound())
    callers = [one.driver.start(one.fetch) for _ in range(3)]
    one.seen.wait_for("wait", 2)
    gate.set()
    assert {type(caller.outcome()) for caller in callers} == {NotFound}
    with pytest.raises(NotFound):
        one.call()
    assert one.call("B") == 1
    assert asked == [NotFound]


BAD = {
    "raises": lambda error: 1 / 0,
    "negative": lambda error: -1,
    "not a number": lambda error: nan,
    "a bool": lambda error: True,
    "a string": lambda error: "60",
    "nothing": lambda error: None,
}


@pytest.mark.parametrize("fault", BAD.values(), ids=BAD)
def test_a_fault_of_it_hides_nothing(source, caplog, fault):
    """Callers receive the function's own error, which is not stored; the fault is logged; the key is free."""
    caplog.set_level(logging.WARNING, "singleflight")
    one = source(failure_ttl=fault)
    one.script[0] = [NotFound()]
    with pytest.raises(NotFound) as raised:
        one.call()
    assert raised.value.__context__ is None
    assert one.fetch.flights() == ()
    assert one.call() == 1
    (record,) = caplog.records
    assert "could not be stored" in record.getMessage()
    assert ("failure_ttl" in record.getMessage()) is (fault is not BAD["raises"])
    assert record.exc_info  # which line of it


def test_an_abort_of_it_aborts_the_flight(source):
    """A BaseException is raised to the leader's caller alone; a follower calls anew."""
    raising = [Abort()]
    one = source(failure_ttl=lambda error: (_ for _ in ()).throw(raising.pop()) if raising else 0)
    gate = one.hold(0, NotFound())
    leader = one.driver.start(one.fetch)
    one.executions.wait_for(1)
    follower = one.driver.start(one.fetch)
    one.seen.wait_for("wait", 1)
    gate.set()
    assert isinstance(leader.outcome(), Abort)
    assert follower.outcome() == 1
    assert one.fetch.flights() == ()
    assert one.fetch.stats().locks == one.fetch.stats().idle_locks
    assert one.sums()


def test_it_says_when_a_renewal_is_tried_again(source):
    """A renewal that failed is tried again after its answer; after 1 s where that is 0."""
    one = source(ttl=10, grace=100, failure_ttl=judge)
    one.script |= {1: [NotFound()], 2: [Busy()]}
    assert one.call() == 0
    one.clock.advance(11)
    assert one.call() == 0
    one.executions.wait_for(2)
    one.settle()
    one.clock.advance(59)
    assert one.call() == 0
    assert one.executions.begun == 2
    one.clock.advance(1)
    assert one.call() == 0
    one.executions.wait_for(3)
    one.settle()
    one.clock.advance(1)
    one.call()
    one.executions.wait_for(4)


def test_it_runs_under_no_lock(source):
    """It may call the function for another key, whose value is stored."""
    one = source(failure_ttl=lambda error: (one.fetch.put("put", "B"), one.fetch.stats(), 30)[2])
    one.script[0] = [NotFound()]
    with pytest.raises(NotFound):
        one.call()
    assert one.fetch.entry("B").value == "put"


def test_what_says_nothing_about_the_key_is_not_asked_for():
    """A deadlock, a timeout or an abort of the function is never stored, so it is not asked."""
    asked = []

    @single_flight_ttl(ttl=60, failure_ttl=lambda error: (asked.append(error), 60)[1])
    def fetch():
        return fetch()

    with pytest.raises(FlightDeadlock):
        fetch()

    @single_flight_ttl(ttl=60, failure_ttl=lambda error: (asked.append(error), 60)[1])
    def abort():
        raise Abort

    with pytest.raises(Abort):
        abort()
    assert asked == []


def test_a_coroutine_function_is_refused_at_decoration():
    """As for the other callables."""

    async def later(error):
        return 60

    with pytest.raises(TypeError, match="failure_ttl: expected a plain callable"):
        single_flight_ttl(ttl=60, failure_ttl=later)
