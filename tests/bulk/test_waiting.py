"""How long bulk callers wait, and how long their flights may take: for the call, and for each request."""

import asyncio
import itertools

import pytest

from singleflight import FlightTimeout
from singleflight.testing import FakeClock, Recorder

from ..drivers import Executions, stubbornly, until
from ..patience import Patience


class Slow:
    """A getter and a loader; each execution waits at a gate of its own, through cancellations."""

    def __init__(self, driver, gates=10, max_batch=None, **options):
        self.driver, self.ran, self.begun, self.seen = driver, [], Executions(), Recorder()
        self.gates = [driver.gate() for _ in range(gates)]
        self.stubborn = True

        async def price(symbol):
            await self.hold(symbol)
            return symbol.lower()

        async def prices(symbols):
            await self.hold("".join(symbols))
            return {symbol: symbol.lower() for symbol in symbols}

        self.price = driver.decorate(price, key=lambda symbol: symbol, listener=self.seen, **options)
        self.prices = driver.loader(self.price, prices, max_batch=max_batch)

    async def hold(self, what):
        self.ran.append(what)
        gate = self.gates[self.begun.begin()]
        await (stubbornly(gate) if self.stubborn else gate)

    def start(self, run, *args):
        """A caller whose execution has begun."""
        before = self.begun.begun
        caller = self.driver.start(run, *args)
        self.begun.wait_for(before + 1)
        return caller

    def join(self, run, *args):
        """A caller that waits."""
        before = self.seen.count("wait")
        caller = self.driver.start(run, *args)
        self.seen.wait_for("wait", before + 1)
        return caller


def test_the_patience_is_the_calls(driver, monkeypatch):
    """However many flights it waits for one after another, each wait has what the ones before it left."""
    patience = Patience(monkeypatch)
    slow = Slow(driver, wait_timeout=1000)
    leaders = [slow.start(slow.price, symbol) for symbol in "ABC"]
    bulk = slow.join(slow.prices, list("ABC"))
    for number in range(3):
        until(lambda number=number: len(patience.waits) == number + 1)
        assert slow.seen.count("wait") == number + 1
        patience.advance(300)
        slow.gates[number].set()
    assert bulk.outcome() == {"A": "a", "B": "b", "C": "c"}
    assert [leader.outcome() for leader in leaders] == ["a", "b", "c"]
    assert patience.waits == [1000, 700, 400]


def test_what_is_loaded_in_between_takes_no_patience(driver, monkeypatch):
    """Only waits are counted: the time that a loader of its own takes is none."""
    patience = Patience(monkeypatch)
    slow = Slow(driver, wait_timeout=1000)
    slow.start(slow.price, "A")
    bulk = slow.start(slow.prices, ["A", "B"])
    patience.advance(5000)
    slow.gates[1].set()
    slow.seen.wait_for("wait")
    until(lambda: patience.waits)
    slow.gates[0].set()
    assert bulk.outcome() == {"A": "a", "B": "b"}
    assert patience.waits == [1000]


def test_a_call_that_waited_too_long_in_all_is_over(driver, monkeypatch):
    """Two waits that are each within the limit and together are not: FlightTimeout, and not before."""
    patience = Patience(monkeypatch, look=0.005)
    slow = Slow(driver, wait_timeout=1000)
    slow.start(slow.price, "A")
    slow.start(slow.price, "B")
    bulk = slow.join(slow.prices, ["A", "B"])
    patience.advance(600)
    slow.gates[0].set()
    slow.seen.wait_for("wait", 2)
    patience.advance(399)
    looked = len(patience.waits)
    until(lambda: len(patience.waits) > looked + 2)
    assert not bulk.done()
    patience.advance(1)
    outcome = bulk.outcome()
    assert type(outcome) is FlightTimeout
    assert "waited 1e+03 s" in str(outcome)
    assert slow.price.stats().timeouts == 1


@pytest.mark.parametrize("patient", [0, 5])
def test_no_pause_is_longer_than_the_patience(driver, monkeypatch, patient):
    """A caller looks again when its patience is over, and not at the next full second."""
    patience = Patience(monkeypatch)
    slow = Slow(driver, wait_timeout=patient)
    slow.start(slow.price, "A")
    bulk = slow.join(slow.prices, ["A"])
    until(lambda: patience.waits)
    assert patience.waits[0] == patient
    if not patient:
        assert type(bulk.outcome()) is FlightTimeout


def test_each_request_has_its_own_flight_timeout(driver, monkeypatch):
    """The second of several requests may take as long as the first: its time begins when it does."""
    patience = Patience(monkeypatch, look=0.005)
    slow = Slow(driver, max_batch=1, flight_timeout=100)
    bulk = slow.start(slow.prices, ["A", "B"])
    patience.advance(90)
    slow.gates[0].set()
    slow.begun.wait_for(2)
    early = slow.join(slow.price, "B")
    patience.advance(90)
    late = slow.join(slow.price, "B")
    assert slow.ran == ["A", "B"]
    slow.gates[1].set()
    assert bulk.outcome() == {"A": "a", "B": "b"}
    assert (early.outcome(), late.outcome()) == ("b", "b")
    assert slow.price.stats().calls == 2


def test_a_later_request_may_not_take_longer_than_flight_timeout(driver, monkeypatch):
    """When its own time is over it loses its key, as the first one does."""
    patience = Patience(monkeypatch, look=0.005)
    slow = Slow(driver, max_batch=1, flight_timeout=100)
    bulk = slow.start(slow.prices, ["A", "B"])
    patience.advance(90)
    slow.gates[0].set()
    slow.begun.wait_for(2)
    waiting = slow.join(slow.price, "B")
    patience.advance(100)
    slow.begun.wait_for(3)
    slow.gates[2].set()
    assert waiting.outcome() == "b"
    slow.gates[1].set()
    assert bulk.outcome() == {"A": "a", "B": "b"} or type(bulk.outcome()) is FlightTimeout
    assert slow.ran == ["A", "B", "B"]


def test_each_request_has_its_own_duration(driver):
    """What a ttl sees of a key is how long its own request took, and not those before it."""
    clock, durations = FakeClock(), {}

    def ttl(landing):
        durations[landing.key] = landing.duration
        return 60

    async def price(symbol):
        return symbol

    async def prices(symbols):
        clock.advance(0.25)
        return dict.fromkeys(symbols, 1)

    price = driver.decorate(price, key=lambda symbol: symbol, ttl=ttl, timer=clock)
    driver.call(driver.loader(price, prices, max_batch=2), list("ABCDE"))
    assert durations == dict.fromkeys("ABCDE", 0.25)


def test_flights_tell_when_their_request_began(driver):
    """The age of a flight in bulk is that of its own request."""
    clock = FakeClock()
    slow = Slow(driver, max_batch=1, timer=clock)
    slow.start(slow.prices, ["A", "B"])
    clock.advance(5)
    slow.gates[0].set()
    slow.begun.wait_for(2)
    clock.advance(2)
    (flight,) = slow.price.flights()
    assert (flight.key, flight.elapsed) == ("B", 2)


def test_who_cannot_board_times_out_for_every_key(driver, monkeypatch):
    """Too many executions of one key are left running: the keys behind it count as timeouts, too."""
    patience = Patience(monkeypatch)
    slow = Slow(driver, flight_timeout=100)
    for _ in range(5):  # each takes the key from the one before
        slow.start(slow.price, "A")
        patience.advance(100)
    before = slow.price.stats()
    with pytest.raises(FlightTimeout, match="'A'"):
        driver.call(slow.prices, ["A", "B", "C"])
    stats = slow.price.stats()
    assert (stats.timeouts - before.timeouts, stats.errors - before.errors) == (3, 0)
    assert len(slow.ran) == 5


def test_who_cannot_board_frees_what_it_leads(driver, monkeypatch):
    """Keys that it was to load for are errors or timeouts of nobody else: they can be fetched at once."""
    patience = Patience(monkeypatch)
    slow = Slow(driver, flight_timeout=100)
    for _ in range(5):
        slow.start(slow.price, "A")
        patience.advance(100)
    before = slow.price.stats()
    with pytest.raises(FlightTimeout, match="'A'"):
        driver.call(slow.prices, ["B", "A", "C"])
    stats = slow.price.stats()
    assert stats.timeouts + stats.errors - before.timeouts - before.errors == 3
    assert "B" not in {flight.key for flight in slow.price.flights()}
    slow.gates[5].set()
    assert driver.call(slow.prices, ["B", "C"]) == {"B": "b", "C": "c"}


@pytest.fixture
def tasks():
    """Tasks of one loop: their work can be cancelled."""
    from .conftest import BulkDriver

    driver = BulkDriver(0)
    yield driver
    driver.close()
    assert driver.reports() == []


@pytest.mark.parametrize("requests", ["the first", "a later one"])
def test_a_loader_that_is_cancelled_for_taking_too_long_names_its_keys(tasks, monkeypatch, requests):
    """The caller is told which keys took too long: those of that request, and no others."""
    patience = Patience(monkeypatch)
    slow = Slow(tasks, max_batch=2, flight_timeout=100)
    slow.stubborn = False
    bulk = slow.start(slow.prices, list("ABCD"))
    keys = "AB"
    if requests == "a later one":
        keys = "CD"
        slow.gates[0].set()
        slow.begun.wait_for(2)
    patience.advance(100)
    slow.start(slow.price, keys[0])  # takes the key from it
    outcome = bulk.outcome()
    assert type(outcome) is FlightTimeout
    assert f"'{keys[0]}', '{keys[1]}' took longer than 100 s" in str(outcome)
    assert not any(f"'{other}'" in str(outcome) for other in set("ABCD") - set(keys))


def test_the_error_of_the_first_key_is_raised(driver):
    """Where `cache_if` fails for several keys their flights have each its own; the caller gets the first."""

    def refuse(value):
        raise LookupError(value)

    numbers = itertools.count()

    async def price(symbol):
        return next(numbers)

    async def prices(symbols):
        return {symbol: symbol.lower() for symbol in reversed(symbols)}

    price = driver.decorate(price, cache_if=refuse)
    with pytest.raises(LookupError) as raised:
        driver.call(driver.loader(price, prices), list("BAC"))
    assert raised.value.args == ("b",)
    assert price.stats().errors == 3


def test_a_bulk_call_that_all_have_left_stores_nothing(tasks):
    """Its work is cancelled; what it brings all the same is no value of any of its keys."""
    slow = Slow(tasks, max_batch=2)
    bulk = slow.start(slow.prices, list("ABC"))
    bulk.cancel()
    assert type(bulk.outcome()) is asyncio.CancelledError
    slow.gates[0].set()
    slow.gates[1].set()
    until(lambda: not slow.price.flights())
    assert [slow.price.entry(symbol) for symbol in "ABC"] == [None] * 3
    slow.gates[2].set()
    slow.gates[3].set()
    assert tasks.call(slow.prices, list("ABC")) == {"A": "a", "B": "b", "C": "c"}
