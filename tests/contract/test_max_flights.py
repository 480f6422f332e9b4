"""`max_flights`: so many executions of a function run at once, over all keys, first come, first served."""

import asyncio
import threading

import pytest

from singleflight import FlightDeadlock, FlightTimeout, report, single_flight_ttl
from singleflight.drivers import seats
from singleflight.testing import FakeClock, Recorder

from ..bulk.conftest import driving
from ..drivers import Executions, until
from .conftest import TURNS


@pytest.fixture(params=TURNS.values(), ids=TURNS)
def driver(request):
    """Threads, tasks or both; with loaders."""
    yield from driving(*request.param)


class Desk:
    """A function each of whose executions is held at a gate of its key; `running` and `most` count them."""

    def __init__(self, driver, held="", **options):
        self.driver, self.begun, self.seen, self.order = driver, Executions(), Recorder(), []
        self.gates = {key: driver.gate() for key in held}
        self.running, self.most, self.lock = 0, 0, threading.Lock()

        async def fetch(key):
            return await self.work(key)

        async def load(keys):
            await self.work("".join(keys))
            return {key: key for key in keys}

        options = {"key": lambda key: key, "listener": self.seen, "max_flights": 2, **options}
        self.fetch = driver.decorate(fetch, **options)
        self.load = driver.loader(self.fetch, load)

    async def work(self, key):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.order.append(key)
        self.begun.begin()
        try:
            if key in self.gates:
                await self.gates[key]
        finally:
            with self.lock:
                self.running -= 1
        return key

    def start(self, key, run=None):
        """A caller whose execution has begun."""
        before = self.begun.begun
        caller = self.driver.start(run or self.fetch, key)
        self.begun.wait_for(before + 1)
        return caller

    def queue(self, key, run=None):
        """A caller whose flight stands in line."""
        caller = self.driver.start(run or self.fetch, key)
        first = key if isinstance(key, str) else key[0]
        until(lambda: any(flight.queued and flight.key == first for flight in self.fetch.flights()))
        return caller


@pytest.fixture
def desk(driver):
    """Makes them."""
    return lambda *args, **options: Desk(driver, *args, **options)


def test_no_more_than_that_run_at_once(desk):
    """Many callers of many keys: two executions at most, and everybody is served."""
    made = desk("abcdef")
    callers = [made.driver.start(made.fetch, key) for key in "abcdef"]
    made.begun.wait_for(2)
    for key in "abcdef":
        made.gates[key].set()
    assert [caller.outcome() for caller in callers] == list("abcdef")
    assert (made.most, made.fetch.stats().calls) == (2, 6)


def test_first_come_first_served(desk):
    """Who stands in line is let in in the order of coming."""
    made = desk("abcde", max_flights=1)
    callers = [made.start("a"), *(made.queue(key) for key in "bcde")]
    for key in "abcde":
        made.gates[key].set()
    assert [caller.outcome() for caller in callers] == list("abcde")
    assert made.order == list("abcde")


def test_hits_and_followers_do_not_stand_in_line(desk):
    """A stored value is served, and a flight is joined, while all seats are taken."""
    made = desk("b", max_flights=1)
    made.driver.call(made.fetch, "a")
    leader = made.start("b")
    assert made.driver.call(made.fetch, "a") == "a"
    before = made.seen.count("wait")
    follower = made.driver.start(made.fetch, "b")
    made.seen.wait_for("wait", before + 1)
    made.gates["b"].set()
    assert (leader.outcome(), follower.outcome()) == ("b", "b")


def test_followers_of_one_in_line_share_its_call(desk):
    """A key is taken while its leader stands in line: others of the key wait for that one."""
    made = desk("ab", max_flights=1)
    first = made.start("a")
    second = made.queue("b")
    before = made.seen.count("wait")
    third = made.driver.start(made.fetch, "b")
    made.seen.wait_for("wait", before + 1)
    made.gates["a"].set(), made.gates["b"].set()
    assert [caller.outcome() for caller in (first, second, third)] == ["a", "b", "b"]
    assert made.order == ["a", "b"]


def test_it_is_seen_who_stands_in_line(desk):
    """`flights()` and `report()` say which flights are in line; they are in flight."""
    made = desk("ab", max_flights=1)
    made.start("a"), made.queue("b")
    told = {flight.key: flight.queued for flight in made.fetch.flights()}
    assert told == {"a": False, "b": True}
    assert (made.fetch.stats().in_flight, report().count(", in line")) == (2, 1)
    made.gates["a"].set(), made.gates["b"].set()


def test_wait_timeout_bounds_the_line(desk):
    """A leader that is not let in within `wait_timeout` gets `FlightTimeout`; nothing was called for it."""
    made = desk("a", max_flights=1, wait_timeout=0)
    caller = made.start("a")
    with pytest.raises(FlightTimeout, match=r"waited 0 s for 'b', in line \(max_flights=1\)"):
        made.driver.call(made.fetch, "b")
    stats = made.fetch.stats()
    assert (stats.calls, stats.timeouts, stats.errors, stats.failures) == (0, 1, 0, 0)
    made.gates["a"].set()
    assert caller.outcome() == "a"
    assert made.driver.call(made.fetch, "b") == "b"
    stats = made.fetch.stats()
    assert stats.fetches + stats.timeouts == len(made.driver.callers)


@pytest.mark.parametrize("limit", [0, 0.01])
def test_it_is_told_who_gave_up_in_line(desk, limit):
    """An event has the key and for how long it waited."""
    made = desk("a", max_flights=1, wait_timeout=limit)
    caller = made.start("a")
    with pytest.raises(FlightTimeout, match="in line"):
        made.driver.call(made.fetch, "b")
    (told,) = made.seen.of("timeout")
    assert (told.key, told.waited) == ("b", limit)
    made.gates["a"].set()
    assert caller.outcome() == "a"


def test_a_clock_that_fails_at_the_seat_is_no_failure(monkeypatch):
    """The flight goes on, and its duration counts from when it came."""
    clock, durations, broken = FakeClock(), [], []

    def timer():
        if broken:
            raise OSError(broken.pop())
        return clock()

    def ttl(landing):
        durations.append(landing.duration)
        return 60

    def fetch(key):
        clock.advance(2)
        return key

    fetched = single_flight_ttl(ttl=ttl, timer=timer, max_flights=1)(fetch)
    hold_back = seats.hold_back
    monkeypatch.setattr(seats, "hold_back", lambda flights: (hold_back(flights), broken.append("broken")))
    assert (fetched("a"), durations, broken) == ("a", [2.0], [])


def test_flight_timeout_counts_from_the_seat(desk):
    """While it stands in line a flight does not take too long, and its duration begins with its seat."""
    clock, durations = FakeClock(), []

    def ttl(landing):
        durations.append(landing.duration)
        return 60

    made = desk("ab", max_flights=1, flight_timeout=30, timer=clock, ttl=ttl)
    made.start("a")
    second = made.queue("b")
    clock.advance(7)
    flights = {turn.key: turn for turn in _turns(made)}
    assert flights["a"].due is not None
    assert flights["b"].due is None
    made.gates["a"].set()
    made.begun.wait_for(2)
    assert flights["b"].due is not None
    until(lambda: durations)  # the first has given up its seat before it lands
    clock.advance(1)
    made.gates["b"].set()
    assert second.outcome() == "b"
    until(lambda: len(durations) == 2)
    assert durations == [7.0, 1.0]


def _turns(made):
    return [slot.turn for slot in made.fetch.locks.live()]


def test_a_failing_execution_gives_its_seat_up(driver):
    """An exception frees the seat; the next one is let in."""

    async def fetch(key):
        raise ValueError(key)

    fetched = driver.decorate(fetch, max_flights=1, follower_retries=0)
    for key in "abc":
        with pytest.raises(ValueError, match=key):
            driver.call(fetched, key)
    assert fetched.stats().calls == 3


def test_a_bulk_call_is_one_execution(desk):
    """A loader's call takes one seat for all its keys, and stands in line as one."""
    made = desk(["ab", "c"], max_flights=1)
    bulk = made.start(["a", "b"], made.load)
    single = made.queue("c")
    other = made.queue(["d", "e"], made.load)
    for gate in made.gates.values():
        gate.set()
    assert (bulk.outcome(), single.outcome()) == ({"a": "a", "b": "b"}, "c")
    assert other.outcome() == {"d": "d", "e": "e"}
    assert made.most == 1
    assert sorted(made.order) == ["ab", "c", "de"]


def test_a_bulk_call_that_is_not_let_in_times_out(desk):
    """Its keys are counted as timeouts, are free again, and its loader was not called."""
    made = desk("a", max_flights=1, wait_timeout=0)
    caller = made.start("a")
    with pytest.raises(FlightTimeout, match="in line"):
        made.driver.call(made.load, ["b", "c"])
    assert (made.fetch.stats().timeouts, made.fetch.stats().calls, len(made.fetch.flights())) == (2, 0, 1)
    made.gates["a"].set()
    assert caller.outcome() == "a"
    assert made.driver.call(made.load, ["b", "c"]) == {"b": "b", "c": "c"}


def test_a_renewal_takes_a_seat(desk):
    """A background renewal stands in line like any execution, while its stale value is served."""
    clock = FakeClock()
    made = desk("b", max_flights=1, ttl=10, grace=100, timer=clock)
    made.driver.call(made.fetch, "a")
    clock.advance(11)
    caller = made.start("b")
    assert made.driver.call(made.fetch, "a") == "a"
    until(lambda: any(flight.queued and flight.key == "a" for flight in made.fetch.flights()))
    made.gates["b"].set()
    assert caller.outcome() == "b"
    until(lambda: not made.fetch.flights())
    assert made.fetch.entry("a").age == 0.0


def test_calling_itself_beyond_the_limit_is_a_deadlock(driver):
    """A function that calls itself for other keys needs a seat for each; where it has all, it is told."""

    async def fetch(number):
        return number if number == 0 else await fetched(number - 1)

    fetched = driver.decorate(fetch, key=lambda number: number, max_flights=3, follower_retries=0)
    assert driver.call(fetched, 2) == 0
    fetched.cache_clear()
    with pytest.raises(FlightDeadlock, match=r"waiting would never end: .*3.*2.*1.* \(max_flights=3\)"):
        driver.call(fetched, 3)
    assert fetched.flights() == ()
    assert driver.call(fetched, 2) == 0


def test_a_circle_through_two_keys_and_the_line(driver):
    """With all seats taken by callers that wait for keys whose leaders stand in line, the last is told."""
    inside, go = Executions(), driver.gate()

    async def fetch(key):
        if key in ("a", "b"):
            inside.begin()
            await go
            return await fetched("c")
        return key

    fetched = driver.decorate(fetch, key=lambda key: key, max_flights=2, follower_retries=0)
    callers = [driver.start(fetched, key) for key in "ab"]
    inside.wait_for(2)
    go.set()
    outcomes = [caller.outcome() for caller in callers]
    # The one leads "c" and stands in line behind itself and the other, which then waits for "c".
    assert any(isinstance(outcome, FlightDeadlock) for outcome in outcomes), outcomes
    assert fetched.flights() == ()


def test_a_free_seat_elsewhere_is_no_circle(driver):
    """While another execution may still end, standing in line behind oneself is waiting, and no deadlock."""
    inside, gate = Executions(), driver.gate()

    async def fetch(key):
        if key == "other":
            inside.begin()
            await gate
        if key == "outer":
            inside.begin()
            return await fetched("inner")
        return key

    fetched = driver.decorate(fetch, key=lambda key: key, max_flights=2)
    other = driver.start(fetched, "other")
    inside.wait_for(1)
    outer = driver.start(fetched, "outer")
    until(lambda: any(flight.queued for flight in fetched.flights()))
    gate.set()
    assert (other.outcome(), outer.outcome()) == ("other", "inner")


def test_who_follows_one_in_line_may_still_be_let_through(driver):
    """A holder of a seat that waits for a key in line closes no circle while another holder goes on."""
    inside, first, second = Executions(), driver.gate(), driver.gate()

    async def fetch(key):
        inside.begin()
        if key == "goes on":
            await first
        if key == "joins":
            await second
            return await fetched("queued")
        return key

    fetched = driver.decorate(fetch, key=lambda key: key, max_flights=2)
    callers = [driver.start(fetched, key) for key in ("goes on", "joins")]
    inside.wait_for(2)
    callers.append(driver.start(fetched, "queued"))
    until(lambda: any(flight.queued for flight in fetched.flights()))
    second.set()
    until(lambda: any(flight.followers for flight in fetched.flights()))
    first.set()
    assert [caller.outcome() for caller in callers] == ["goes on", "queued", "queued"]


def test_a_cancelled_leader_leaves_the_line():
    """A task that is cancelled in line goes; the next one is let in in its place."""

    async def main():
        gate, order = asyncio.Event(), []

        @single_flight_ttl(ttl=60, max_flights=1, key=lambda key: key)
        async def fetch(key):
            order.append(key)
            if key == "a":
                await gate.wait()
            return key

        tasks = [asyncio.ensure_future(fetch(key)) for key in "abc"]
        while sum(flight.queued for flight in fetch.flights()) < 2:
            await asyncio.sleep(0)
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        gate.set()
        assert (await tasks[0], await tasks[2], order) == ("a", "c", ["a", "c"])
        stats = fetch.stats()
        assert (stats.calls, stats.fetches, stats.errors) == (2, 2, 1)

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_loop_that_is_closed_gives_its_seat_up():
    """A seat of a task whose event loop is gone goes to the next one in line."""
    loop, inside = asyncio.new_event_loop(), threading.Event()

    async def forever(key):
        inside.set()
        await asyncio.get_running_loop().create_future()

    fetch = single_flight_ttl(ttl=60, max_flights=1, key=lambda key: key)(forever)
    plain = fetch.twin(lambda key: key)
    task = loop.create_task(fetch("a"))
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    assert inside.is_set()
    for each in asyncio.all_tasks(loop):
        each._log_destroy_pending = False
    loop.close()
    outcome = []
    thread = threading.Thread(target=lambda: outcome.extend(map(plain, "ba")), daemon=True)
    thread.start()
    thread.join(10)
    assert outcome == ["b", "a"]  # and who asks for the other key finds that its flight is over
    del task


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, "2"])
def test_a_bad_limit_is_named_at_decoration(bad):
    """`max_flights` is a whole number of at least 1, or None."""
    with pytest.raises((TypeError, ValueError), match="max_flights"):
        single_flight_ttl(ttl=60, max_flights=bad)(len)
