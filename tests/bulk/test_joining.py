"""Bulk calls that overlap, with one another and with single calls: who fetches, who waits, who retries."""

import asyncio
import itertools
import threading

import pytest

from singleflight import FlightDeadlock, FlightTimeout
from singleflight.testing import Recorder

from ..drivers import until


class Held:
    """A getter and a loader; each execution waits at a gate of its own. `ran` says what for."""

    def __init__(self, driver, respond=None, gates=20, **options):
        max_batch = options.pop("max_batch", None)
        self.seen, self.ran = Recorder(), []
        self.gates = [driver.gate() for _ in range(gates)]
        self.numbers = itertools.count()
        self.begun = threading.Semaphore(0)
        respond = respond or (lambda number, items: {item: item.lower() for item in items})

        async def price(symbol):
            number = self.begin(symbol)
            await self.gates[number]
            return respond(number, [symbol])[symbol]

        async def prices(symbols):
            number = self.begin("".join(symbols))
            await self.gates[number]
            return respond(number, symbols)

        self.price = driver.decorate(price, key=lambda symbol: symbol, listener=self.seen, **options)
        self.prices = driver.loader(self.price, prices, max_batch=max_batch)

    def begin(self, items):
        self.ran.append(items)
        self.begun.release()
        return next(self.numbers)

    def wait(self, executions=1):
        for _ in range(executions):
            assert self.begun.acquire(timeout=10)

    def followers(self):
        return {flight.key: flight.followers for flight in self.price.flights()}

    def open(self, *numbers):
        for number in numbers or range(len(self.gates)):
            self.gates[number].set()

    def settled(self):
        stats = self.price.stats()
        assert self.price.flights() == ()
        assert stats.locks == stats.idle_locks
        return stats


def received(stats):
    return stats.hits + stats.stale_hits + stats.waits + stats.fetches + stats.errors + stats.timeouts


def test_overlapping_batches_fetch_every_key_once(driver):
    """A second batch asks only for what the first one does not bring, and waits for the rest."""
    held = Held(driver)
    first = driver.start(held.prices, list("ABC"))
    held.wait()
    second = driver.start(held.prices, list("DBEA"))
    held.wait()
    assert held.ran == ["ABC", "DE"]
    assert held.followers() == {"A": 1, "B": 1, "C": 0, "D": 0, "E": 0}
    assert {flight.kind for flight in held.price.flights()} == {"bulk"}
    held.open(1)
    held.seen.wait_for("wait")
    held.open(0)
    assert first.outcome() == {"A": "a", "B": "b", "C": "c"}
    assert list(second.outcome().items()) == [("D", "d"), ("B", "b"), ("E", "e"), ("A", "a")]
    stats = held.settled()
    assert (stats.fetches, stats.waits, stats.calls, received(stats)) == (5, 2, 2, 7)


def test_batches_that_overlap_both_ways_never_deadlock(driver):
    """{A, B} and {B, C, A}: each lands what it leads before it waits for the other, in whatever order."""
    held = Held(driver)
    single = driver.start(held.price, "B")
    held.wait()
    one = driver.start(held.prices, list("AB"))
    held.wait()
    two = driver.start(held.prices, list("BCA"))
    held.wait()
    assert held.ran == ["B", "A", "C"]
    held.open(2)
    held.open(1)
    held.seen.wait_for("wait", 2)
    held.open(0)
    assert single.outcome() == "b"
    assert one.outcome() == {"A": "a", "B": "b"}
    assert list(two.outcome()) == ["B", "C", "A"]
    assert held.settled().calls == 3


def test_a_single_caller_joins_a_batch_and_the_reverse(driver):
    """A single caller waits for the batch that fetches its key; a batch waits for single flights."""
    held = Held(driver)
    bulk = driver.start(held.prices, list("AB"))
    held.wait()
    single = driver.start(held.price, "A")
    held.seen.wait_for("wait")
    other = driver.start(held.price, "C")
    held.wait()
    last = driver.start(held.prices, list("CA"))
    held.seen.wait_for("wait", 2)
    held.open()
    assert bulk.outcome() == {"A": "a", "B": "b"}
    assert (single.outcome(), other.outcome()) == ("a", "c")
    assert last.outcome() == {"C": "c", "A": "a"}
    assert held.ran == ["AB", "C"]
    assert held.settled().waits == 3


def test_single_callers_receive_none_for_a_missing_key(driver):
    """A missing key is None for a single caller that waited, absent from a bulk answer, and not stored."""
    held = Held(driver, lambda number, items: {}, follower_retries=0)
    bulk = driver.start(held.prices, ["A"])
    held.wait()
    single = driver.start(held.price, "A")
    other = driver.start(held.prices, ["A"])
    held.seen.wait_for("wait", 2)
    held.open()
    assert [caller.outcome() for caller in (bulk, single, other)] == [{}, None, {}]
    assert held.price.entry("A") is None
    stats = held.settled()
    assert (stats.fetches, stats.waits, stats.uncached) == (1, 2, 1)


@pytest.mark.parametrize(("retries", "calls"), [(0, 1), (1, 2), (3, 4), (None, 8)])
@pytest.mark.parametrize("how", ["raises", "leaves out"])
def test_a_failing_loader_runs_as_often_as_the_budget_says(driver, how, retries, calls):
    """With N bulk callers it runs 1 + follower_retries times for each key, and retries travel together."""

    def respond(number, items):
        if how == "raises":
            raise ValueError(number)
        return {}

    held = Held(driver, respond, follower_retries=retries)
    driver.start(held.prices, list("AB"))
    held.wait()
    driver.start(held.prices, list("AB"), count=7)
    held.seen.wait_for("wait", 7)
    held.open()
    outcomes = driver.outcomes()
    assert held.ran == ["AB"] * calls
    stats = held.settled()
    if how == "raises":
        assert {type(outcome) for outcome in outcomes} == {ValueError}
        assert (stats.errors, stats.failures, stats.calls) == (16, calls, calls)
    else:
        assert outcomes == [{}] * 8
        assert (stats.fetches, stats.waits, stats.uncached) == (2 * calls, 16 - 2 * calls, 2 * calls)


def test_busy_callers_follow_from_the_start(driver):
    """Callers that are busy with loads of their own share a failure as those do that wait for it."""

    def respond(number, items):
        if "X" in items:
            raise ValueError(number)
        return dict.fromkeys(items, 1)

    held = Held(driver, respond, follower_retries=0)
    driver.start(held.prices, ["X"])
    held.wait()
    for item in "ABCD":
        driver.start(held.prices, ["X", item])
        held.wait()
    assert held.followers()["X"] == 4
    held.open(0)
    assert driver.callers[0].outcome().args == (0,)
    held.open()
    assert [outcome.args for outcome in driver.outcomes()] == [(0,)] * 5
    assert held.ran == ["X", "A", "B", "C", "D"]
    stats = held.settled()
    assert (stats.errors, stats.fetches, stats.failures) == (5, 4, 1)


def test_a_raising_loader_fails_its_own_keys_alone(driver):
    """Its caller gets the exception; what others fetch for that caller lands as if nothing had happened."""

    def respond(number, items):
        if "A" in items:
            raise ValueError("A")
        return dict.fromkeys(items, 1)

    held = Held(driver, respond)
    other = driver.start(held.prices, ["B"])
    held.wait()
    failing = driver.start(held.prices, ["A", "B"])
    held.wait()
    held.open(1)
    assert failing.outcome().args == ("A",)
    assert held.followers() == {"B": 0}
    held.open()
    assert other.outcome() == {"B": 1}
    stats = held.settled()
    assert (stats.errors, stats.fetches, stats.failures, stats.calls) == (2, 1, 1, 2)


def test_what_is_not_called_for_is_an_abort(driver):
    """When the first of several calls raises, the others' keys are free, and their followers fly on."""

    def respond(number, items):
        if number == 0:
            raise ValueError("first")
        return dict.fromkeys(items, number)

    held = Held(driver, respond, max_batch=1, follower_retries=0)
    failing = driver.start(held.prices, list("ABC"))
    held.wait()
    follower = driver.start(held.prices, list("CB"))
    single = driver.start(held.price, "A")
    held.seen.wait_for("wait", 2)
    held.open()
    assert failing.outcome().args == ("first",)
    assert single.outcome().args == ("first",)
    assert list(follower.outcome().items()) == [("C", 1), ("B", 2)]
    assert held.ran == ["A", "C", "B"]
    stats = held.settled()
    assert (stats.errors, stats.fetches, stats.calls, received(stats)) == (4, 2, 3, 6)


def test_a_joined_failure_surfaces_as_a_copy(driver):
    """One of two joined flights fails: its error is raised, the other flight is left in peace."""

    def respond(number, items):
        if number == 0:
            raise ValueError("A")
        return dict.fromkeys(items, 1)

    held = Held(driver, respond, follower_retries=0)
    one = driver.start(held.price, "A")
    held.wait()
    two = driver.start(held.price, "B")
    held.wait()
    bulk = driver.start(held.prices, list("AB"))
    held.seen.wait_for("wait")
    held.open(0)
    error = bulk.outcome()
    assert (type(error), error.args) == (ValueError, ("A",))
    assert error is not one.outcome()
    assert held.followers() == {"B": 0}
    held.open()
    assert two.outcome() == 1
    stats = held.settled()
    assert (stats.errors, stats.fetches) == (3, 1)


@pytest.mark.parametrize("answer", [["A"], None, 5, "A"])
def test_a_loader_returns_a_mapping(driver, answer):
    """Anything else fails its flights with a TypeError that says so."""
    held = Held(driver, lambda number, items: answer)
    held.open()
    with pytest.raises(TypeError, match="mapping"):
        driver.call(held.prices, ["A", "B"])
    stats = held.settled()
    assert (stats.errors, stats.failures, stats.calls) == (2, 1, 1)


@pytest.mark.parametrize("option", ["ttl", "cache_if"])
def test_what_a_callable_option_raises_fails_its_key(driver, option):
    """What ttl or cache_if raises for one key is raised to the caller, once the others have landed."""

    def refuse(landing):
        value = landing if option == "cache_if" else landing.value
        if value == "b":
            raise LookupError(value)
        return 60

    held = Held(driver, **{option: refuse})
    held.open()
    with pytest.raises(LookupError):
        driver.call(held.prices, list("ABC"))
    assert [held.price.entry(item) is not None for item in "ABC"] == [True, False, True]
    stats = held.settled()
    assert (stats.fetches, stats.errors, stats.failures, stats.calls) == (2, 1, 1, 1)


def test_invalidating_detaches_one_key_of_a_batch(driver):
    """Its callers get the value, it is not stored, and a newcomer fetches anew; the others are stored."""
    held = Held(driver)
    bulk = driver.start(held.prices, list("AB"))
    held.wait()
    assert held.price.invalidate("A")
    again = driver.start(held.prices, list("AB"))
    held.wait()
    assert held.ran == ["AB", "A"]
    held.open()
    assert bulk.outcome() == again.outcome() == {"A": "a", "B": "b"}
    held.settled()


def test_wait_timeout_bounds_the_whole_wait(driver):
    """A bulk caller waits no longer than wait_timeout in all, and leaves everything that it followed."""
    held = Held(driver, wait_timeout=0.05)
    driver.start(held.prices, list("AB"))
    held.wait()
    late = driver.start(held.prices, list("ABC"))
    held.wait()
    held.open(1)
    assert type(late.outcome()) is FlightTimeout
    assert held.followers() == {"A": 0, "B": 0}
    held.open()
    assert driver.outcomes()[0] == {"A": "a", "B": "b"}
    stats = held.settled()
    assert (stats.timeouts, stats.fetches, received(stats)) == (2, 3, 5)


@pytest.mark.parametrize("max_batch", [None, 2])
def test_the_keys_of_a_batch_are_due_together(driver, max_batch):
    """They are lost all at once, so who takes them over asks once, however long it took to lead them all."""
    held = Held(driver, flight_timeout=60, max_batch=max_batch)
    bulk = driver.start(held.prices, list("ABCD"))
    for number in range(1 if max_batch is None else 2):
        held.wait()
        turns = {slot.key: slot.turn.due for slot in held.price.locks.live() if slot.turn is not None}
        assert len({turns[key] for key in held.ran[number]}) == 1
        held.open(number)
    assert bulk.outcome() == {"A": "a", "B": "b", "C": "c", "D": "d"}
    held.settled()


def test_flight_timeout_frees_the_keys_of_a_batch(driver):
    """A batch that takes too long loses its keys to those who wait."""

    def respond(number, items):
        return dict.fromkeys(items, number)

    held = Held(driver, respond, flight_timeout=0.05)
    slow = driver.start(held.prices, list("AB"))
    held.wait()
    other = driver.start(held.prices, list("AB"))
    held.wait()
    held.open(1)
    assert other.outcome() == {"A": 1, "B": 1}
    assert held.ran == ["AB", "AB"]
    held.open()
    assert slow.outcome() == {"A": 0, "B": 0} or type(slow.outcome()) is FlightTimeout
    assert [held.price.entry(item).value for item in "AB"] == [1, 1]
    held.settled()


def test_a_loader_that_asks_for_its_own_key_raises(driver):
    """Waiting for oneself is a deadlock, found at once: single or bulk, from inside the loader."""
    found = []

    async def price(symbol):
        return 1

    async def prices(symbols):
        for call, argument in ((price, "A"), (prices, ["A"])):
            try:
                await call(argument)
            except FlightDeadlock as error:
                found.append(str(error))
        return dict.fromkeys(symbols, 1)

    price = driver.decorate(price, key=lambda symbol: symbol)
    prices = driver.loader(price, prices)
    assert driver.call(prices, list("BA")) == {"B": 1, "A": 1}
    assert ["'A' -> 'A'" in text for text in found] == [True, True]
    assert price.flights() == ()


def test_loaders_that_wait_for_each_other_raise(driver):
    """{A} asks for B while {B} asks for A: one of them is told, and nobody hangs."""
    gates = [driver.gate(), driver.gate()]

    async def price(symbol):
        return symbol

    async def prices(symbols):
        (symbol,) = symbols
        gates["AB".index(symbol)].set()
        await gates["BA".index(symbol)]
        other = await prices(["BA"["AB".index(symbol)]])
        return {symbol: other}

    price = driver.decorate(price, key=lambda symbol: symbol, follower_retries=0)
    prices = driver.loader(price, prices)
    callers = [driver.start(prices, ["A"]), driver.start(prices, ["B"])]
    outcomes = [caller.outcome() for caller in callers]
    assert FlightDeadlock in map(type, outcomes)
    assert price.flights() == ()


def test_nobody_is_left_behind_a_plain_lock(driver):
    """A key whose lock somebody holds is waited for; what is not held is loaded meanwhile."""
    held = Held(driver)
    held.open()
    with held.price.locks("B"):
        bulk = driver.start(held.prices, list("AB"))
        held.wait()
        until(lambda: held.price.entry("A"))
        assert not bulk.done()
        assert held.ran == ["A"]
    assert bulk.outcome() == {"A": "a", "B": "b"}
    assert held.ran == ["A", "B"]
    held.settled()


@pytest.mark.parametrize("strike", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_an_abort_is_not_shared(driver, strike):
    """An interrupt in the loader reaches its caller alone; the followers fly on, in one call."""

    def respond(number, items):
        if number == 0:
            raise strike
        return dict.fromkeys(items, number)

    held = Held(driver, respond, follower_retries=0)
    struck = driver.start(held.prices, list("ABC"))
    held.wait()
    follower = driver.start(held.prices, list("CA"))
    held.seen.wait_for("wait")
    held.open()
    assert type(struck.outcome()) is strike
    assert follower.outcome() == {"C": 1, "A": 1}
    assert held.ran == ["ABC", "CA"]
    stats = held.settled()
    assert (stats.failures, stats.calls, received(stats)) == (0, 2, 5)


@pytest.mark.parametrize("strike", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
@pytest.mark.parametrize("busy", [False, True])
def test_an_aborted_flight_that_was_invalidated_is_flown_anew(driver, strike, busy):
    """Nothing takes the place of a detached flight: a bulk caller that followed it loads that key itself."""

    def respond(number, items):
        if number == 0:
            raise strike
        return dict.fromkeys(items, number)

    held = Held(driver, respond, follower_retries=0)
    struck = driver.start(held.price, "A")
    held.wait()
    follower = driver.start(held.prices, ["A", "B"] if busy else ["A"])
    if busy:
        held.wait()
    else:
        held.seen.wait_for("wait")
    assert held.price.invalidate("A")
    held.open(0)
    assert type(struck.outcome()) is strike
    held.open()
    assert follower.outcome() == ({"A": 2, "B": 1} if busy else {"A": 1})
    assert held.ran == (["A", "B", "A"] if busy else ["A", "A"])
    assert held.price.entry("A") is not None
    stats = held.settled()
    assert (stats.errors, stats.fetches, received(stats)) == (1, 1 + busy, 2 + busy)


def test_who_has_failed_begins_nothing_more(driver):
    """A bulk caller that finds one of its flights failed does not fly what another one left behind."""

    def respond(number, items):
        if number == 0:
            raise ValueError("A")
        if number == 1:
            raise KeyboardInterrupt
        return dict.fromkeys(items, number)

    held = Held(driver, respond, follower_retries=0)
    failing = driver.start(held.price, "A")
    held.wait()
    struck = driver.start(held.price, "B")
    held.wait()
    bulk = driver.start(held.prices, ["A", "B", "C"])
    held.wait()
    assert held.followers() == {"A": 1, "B": 1, "C": 0}
    held.open(0, 1)
    assert [type(caller.outcome()) for caller in (failing, struck)] == [ValueError, KeyboardInterrupt]
    held.open(2)
    assert type(bulk.outcome()) is ValueError
    assert held.ran == ["A", "B", "C"]
    assert [event.key for event in held.seen.of("abort")] == ["B"]
    stats = held.settled()
    assert (stats.errors, stats.fetches, stats.timeouts) == (4, 1, 0)
