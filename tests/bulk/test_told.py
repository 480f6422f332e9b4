"""What bulk calls tell: events of every key, errors that lead to where they were raised, and warnings."""

import asyncio
import contextvars
import threading
import warnings

import pytest

from singleflight import FlightDeadlock, FlightTimeout, configure_renewal, single_flight_ttl
from singleflight.locks.mutex import mutex
from singleflight.testing import FakeClock, Recorder

from ..amid import amid
from ..drivers import until
from ..patience import Patience


class Told:
    """A getter and a loader under one clock; `seen` has the events. What is in `fails` is raised."""

    def __init__(self, driver, answers, fails=None, **options):
        self.driver, self.clock, self.seen = driver, FakeClock(100.0), Recorder()
        self.gate, self.begun = driver.gate(), threading.Semaphore(0)

        async def price(symbol):
            self.begun.release()
            await self.gate
            return where_it_fails(symbol)

        async def prices(symbols):
            self.begun.release()
            await self.gate
            return {symbol: where_it_fails(symbol) for symbol in (answers or symbols)}

        def where_it_fails(symbol):
            if symbol == fails:
                raise LookupError(symbol)
            return symbol.lower()

        options = {"key": lambda symbol: symbol, "timer": self.clock, "listener": self.seen, **options}
        self.price = driver.decorate(price, **options)
        self.prices = driver.loader(self.price, prices)

    def start(self, run, *args):
        """A caller whose execution has begun."""
        caller = self.driver.start(run, *args)
        assert self.begun.acquire(timeout=10)
        return caller

    def events(self, kind, *names):
        """What these events tell, with their keys, in order of the keys."""
        told = [(event.key, *(getattr(event, name) for name in names)) for event in self.seen.of(kind)]
        return sorted(told, key=lambda each: each[0])


def test_who_shares_is_told_of(driver):
    """A bulk caller that shares another's flight: the value, and how old it is."""
    told = Told(driver, "")
    single = told.start(told.price, "A")
    bulk = driver.start(told.prices, ["A"])
    told.seen.wait_for("wait")
    told.gate.set()
    assert (single.outcome(), bulk.outcome()) == ("a", {"A": "a"})
    told.seen.wait_for("share")
    assert told.events("share", "value", "error", "age") == [("A", "a", None, 0)]
    assert told.events("wait", "followers") == [("A", 1)]


def test_what_a_stored_failure_stops_is_not_begun(driver):
    """A call that finds a stored failure begins nothing for the keys after it: that it left is told."""
    told = Told(driver, "", fails="A", failure_ttl=60)
    told.gate.set()
    with pytest.raises(LookupError):
        driver.call(told.price, "A")
    before = len(told.seen.kinds())
    with pytest.raises(LookupError):
        driver.call(told.prices, ["A", "B", "C"])
    assert told.seen.kinds()[before:] == ["stored_failure", "left", "left"]
    assert told.price.stats().errors == 4


def test_how_long_a_call_has_waited_is_told(driver, monkeypatch):
    """The first share tells how long it waited for that one, the second how long in all."""
    patience = Patience(monkeypatch)
    seen, gates = Recorder(), {symbol: driver.gate() for symbol in "AB"}

    async def price(symbol):
        await gates[symbol]
        return symbol.lower()

    async def prices(symbols):
        raise AssertionError

    price = driver.decorate(price, key=lambda symbol: symbol, listener=seen, wait_timeout=1000)
    prices = driver.loader(price, prices)
    for number, symbol in enumerate("AB", 1):
        driver.start(price, symbol)
        seen.wait_for("fetch", number)
    bulk = driver.start(prices, ["A", "B"])
    for number, symbol in enumerate("AB", 1):
        until(lambda number=number: len(patience.waits) == number)
        patience.advance(300)
        gates[symbol].set()
        seen.wait_for("share", number)
    assert bulk.outcome() == {"A": "a", "B": "b"}
    assert [(event.key, event.waited) for event in seen.of("share")] == [("A", 300), ("B", 600)]


def test_a_failing_loader_is_told_of_for_every_key(driver):
    """One landing with the error for each key that it was called for."""
    told = Told(driver, "", fails="B")
    told.gate.set()
    with pytest.raises(LookupError):
        driver.call(told.prices, ["A", "B"])
    told.seen.wait_for("land", 2)
    events = told.events("land", "stored", "retried", "followers")
    assert events == [("A", False, False, 0), ("B", False, False, 0)]
    assert {event.error.args for event in told.seen.of("land")} == {("B",)}


def test_an_abort_is_told_of_for_every_key(driver):
    """Whatever ends the loader from outside is an abort of each of its keys."""
    seen = Recorder()

    async def price(symbol):
        return symbol

    async def prices(symbols):
        raise KeyboardInterrupt

    price = driver.decorate(price, key=lambda symbol: symbol, listener=seen)
    with pytest.raises(KeyboardInterrupt):
        driver.call(driver.loader(price, prices), ["A", "B"])
    seen.wait_for("abort", 2)
    assert sorted(event.key for event in seen.of("abort")) == ["A", "B"]
    assert seen.count("land") == 0


def test_what_lands_is_told_of_for_every_key(driver):
    """Each landing tells value, ttl and whether it is stored; what came unasked and what is refused, too."""
    told = Told(driver, "ABX", cache_if=lambda value: value != "b", ttl=lambda landing: ord(landing.value))
    told.gate.set()
    assert driver.call(told.prices, ["A", "B"]) == {"A": "a", "B": "b"}
    told.seen.wait_for("land", 3)
    assert told.events("land", "value", "stored", "ttl") == [
        ("A", "a", True, 97),
        ("B", "b", False, None),
        ("X", "x", True, 120),
    ]
    assert told.events("fetch", "flight") == [("A", "bulk"), ("B", "bulk")]
    stats = told.price.stats()
    assert (stats.fetches, stats.calls, stats.uncached, stats.entries) == (2, 1, 1, 2)


def test_what_goes_for_a_batch_is_told_of(driver):
    """Entries that are evicted, or have run out, when the values of a batch are stored."""
    told = Told(driver, "", maxsize=2)
    told.gate.set()
    driver.call(told.prices, ["A", "B"])
    driver.call(told.prices, ["C", "D"])
    told.seen.wait_for("evict", 2)
    assert told.events("evict") == [("A",), ("B",)]
    told.clock.advance(61)
    driver.call(told.prices, ["E", "F"])
    told.seen.wait_for("expire", 2)
    assert told.events("expire") == [("C",), ("D",)]


def test_an_unasked_value_whose_landing_fails_leaves_its_key_free(driver):
    """What `cache_if` or `ttl` raises for it is nobody's failure: the answer comes, its key is free."""

    def refuse(value):
        if value == "x":
            raise LookupError(value)
        return True

    told = Told(driver, "AXY", cache_if=refuse)
    told.gate.set()
    assert driver.call(told.prices, ["A"]) == {"A": "a"}
    assert told.price.flights() == ()
    assert [told.price.entry(symbol) is not None for symbol in "AXY"] == [True, False, True]
    with pytest.raises(LookupError):
        driver.call(told.price, "X")
    stats = told.price.stats()
    assert (stats.fetches, stats.errors, stats.locks) == (1, 1, stats.idle_locks)


def test_a_shared_error_leads_to_where_it_was_raised(driver):
    """Who followed in bulk sees in its traceback where the function failed, not where others waited."""
    told = Told(driver, "", fails="A", follower_retries=0)
    single = told.start(told.price, "A")
    bulk = driver.start(told.prices, ["A"])
    told.seen.wait_for("wait")
    told.gate.set()
    assert type(single.outcome()) is LookupError
    error, names = bulk.outcome(), []
    assert error is not single.outcome()
    traceback = error.__traceback__
    while traceback is not None:
        names.append(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    assert names[-1] == "where_it_fails"


def test_what_was_not_called_for_is_no_call(driver):
    """Keys that a call was to load when it found a stored failure: free again, aborted, not executed."""
    told = Told(driver, "", fails="B", failure_ttl=60)
    told.gate.set()
    with pytest.raises(LookupError):
        driver.call(told.price, "B")
    with pytest.raises(LookupError):
        driver.call(told.prices, ["A", "B"])
    assert told.price.flights() == ()
    assert told.events("abort", "followers") == [("A", 0)]
    stats = told.price.stats()
    assert (stats.calls, stats.failures, stats.errors) == (1, 1, 3)
    assert driver.call(told.prices, ["A"]) == {"A": "a"}


@pytest.mark.parametrize("asked", ["A", "B"])
def test_a_cycle_names_the_key_that_was_asked_for_alone(driver, asked):
    """The keys of one batch do not ask for each other: a loader that asks for one of its own names that."""
    found = []

    async def price(symbol):
        return symbol

    async def prices(symbols):
        try:
            await price(asked)
        except FlightDeadlock as error:
            found.append(str(error))
        return dict.fromkeys(symbols, 1)

    price = driver.decorate(price, key=lambda symbol: symbol)
    prices = driver.loader(price, prices)
    assert driver.call(prices, ["A", "B"]) == {"A": 1, "B": 1}
    (message,) = found
    assert f"waiting would never end: '{asked}' -> '{asked}'" in message


def test_a_cycle_that_a_bulk_caller_closes_counts_as_an_error(driver):
    """Who is refused because it would wait for itself is an error and no timeout; nothing is left counted."""
    seen = Recorder()

    async def price(symbol):
        return await prices([symbol])

    async def body(symbols):
        return dict.fromkeys(symbols, 1)

    price = driver.decorate(price, key=lambda symbol: symbol, listener=seen)
    prices = driver.loader(price, body)
    with pytest.raises(FlightDeadlock, match="'A' -> 'A'"):
        driver.call(price, "A")
    stats = price.stats()
    assert (stats.errors, stats.timeouts, stats.waits, stats.fetches) == (2, 0, 0, 0)
    assert seen.count("deadlock") == 1
    assert stats.locks == stats.idle_locks


USER = contextvars.ContextVar("user", default="nobody")


@pytest.mark.parametrize("pool", ["a thread", "in line"])
def test_a_renewal_runs_in_the_context_of_who_found_the_value_stale(pool):
    """The loader sees that caller's context variables; what it sets there is not the caller's."""
    clock, users = FakeClock(), []

    @single_flight_ttl(ttl=60, grace=60, timer=clock, key=lambda symbol: symbol)
    def price(symbol):
        raise AssertionError

    @price.bulk
    def prices(symbols):
        users.append(USER.get())
        USER.set("the loader")
        return dict.fromkeys(symbols, "new")

    def call():
        USER.set("alice")
        return prices(["A"]), USER.get()

    hang = threading.Event()
    if pool == "in line":
        configure_renewal(threads=1, queued=0)
    try:
        if pool == "in line":
            blocker = single_flight_ttl(ttl=60, grace=60, timer=clock)(lambda: clock() and hang.wait(10))
            blocker.put(1)
        price.put("old", "A")
        clock.advance(60)
        if pool == "in line":
            blocker()
        answer, user = contextvars.copy_context().run(call)
        until(lambda: not price.flights())
        assert answer == {"A": "new" if pool == "in line" else "old"}
        assert (users, user) == (["alice"], "alice")
    finally:
        hang.set()
        configure_renewal()


@pytest.mark.parametrize("strike", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_while_renewing_in_line_is_the_callers(strike):
    """Ctrl-C in the loader that a bulk caller runs itself is raised to it; the value stays and is renewed."""
    clock, loads, hang = FakeClock(), [], threading.Event()

    @single_flight_ttl(ttl=60, grace=60, timer=clock, key=lambda symbol: symbol)
    def price(symbol):
        raise AssertionError

    @price.bulk
    def prices(symbols):
        loads.append(symbols)
        if len(loads) == 1:
            raise strike
        return dict.fromkeys(symbols, "new")

    configure_renewal(threads=1, queued=0)
    try:
        blocker = single_flight_ttl(ttl=60, grace=60, timer=clock)(lambda: clock() and hang.wait(10))
        blocker.put(1)
        price.put("old", "A")
        price.put("old", "B")
        clock.advance(60)
        blocker()
        with pytest.raises(strike):
            prices(["A", "B"])
        assert price.flights() == ()
        assert [price.entry(symbol).value for symbol in "AB"] == ["old", "old"]
        assert prices(["A", "B"]) == {"A": "new", "B": "new"}
        stats = price.stats()
        assert (stats.failures, stats.refreshes, stats.locks) == (0, 2, stats.idle_locks)
    finally:
        hang.set()
        configure_renewal()


@pytest.mark.parametrize("debug", [False, True])
def test_a_bulk_call_that_blocks_a_loop_is_told_of_in_debug_mode(debug):
    """A plain loader that waits on a loop's thread for somebody else: once, as for single calls."""
    seen, gates = Recorder(), {"A": threading.Event(), "B": threading.Event()}

    @single_flight_ttl(ttl=60, key=lambda symbol: symbol, listener=seen)
    def price(symbol):
        assert gates[symbol].wait(10)
        return symbol

    @price.bulk
    def prices(symbols):
        raise AssertionError

    def lead_and_open(number, symbol):
        price(symbol)

    def open_it(number, symbol):
        seen.wait_for("wait", number)
        gates[symbol].set()

    async def main():
        for number, symbol in enumerate("AB", 1):
            threads = [
                threading.Thread(target=run, args=(number, symbol)) for run in (lead_and_open, open_it)
            ]
            threads[0].start()
            seen.wait_for("fetch", number)
            threads[1].start()
            assert prices([symbol]) == {symbol: symbol}
            for thread in threads:
                thread.join(10)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main(), debug=debug)
    told = [each for each in caught if issubclass(each.category, RuntimeWarning)]
    assert len(told) == debug


@pytest.mark.parametrize("section", ["the mutex", "its store", "another's store"])
@pytest.mark.parametrize("colour", ["plain", "coroutine"])
def test_a_bulk_call_amid_a_section_runs_its_loader(section, colour):
    """A finaliser or signal handler that comes back while its thread is inside calls directly, all items."""
    loads = []

    @single_flight_ttl(ttl=60, key=lambda symbol: symbol)
    def price(symbol):
        raise AssertionError

    @price.bulk
    def prices(symbols):
        loads.append(list(symbols))
        return dict.fromkeys(loads[-1], 1)

    @price.bulk
    async def aprices(symbols):
        return prices.__wrapped__(symbols)

    other = single_flight_ttl(ttl=60)(lambda: 1)
    lock = {
        "the mutex": mutex,
        "its store": price._self_cache.store._lock,
        "another's store": other._self_cache.store._lock,
    }[section]

    async def call():
        with lock:
            return await aprices(iter(["A", "B"]))

    if colour == "plain":
        answer = amid(lock, lambda: prices(iter(["A", "B"])))
    elif section == "another's store":
        pytest.skip("a task does not block its thread: it may wait there")
    else:
        answer = asyncio.run(call())
    assert answer == {"A": 1, "B": 1}
    assert loads == [["A", "B"]]
    assert price.stats().entries == 0


def test_a_plain_loader_that_is_none_is_refused():
    """A loader that returns something to be awaited fails its keys with a TypeError that says so."""

    @single_flight_ttl(ttl=60)
    def price(symbol):
        return symbol

    async def fetch_all():
        raise AssertionError

    @price.bulk
    def prices(symbols):
        return fetch_all()

    with pytest.raises(TypeError, match="awaited"):
        prices(["A", "B"])
    assert price.flights() == ()
    assert price.stats().errors == 2


def test_a_coroutine_is_no_answer_of_a_loader(driver):
    """The error says what came and what to do; whoever else has the coroutine may still await it."""
    kept = []

    async def fetch_all():
        raise AssertionError

    async def prices(symbols):
        kept.append(fetch_all())
        return kept[0]

    async def price(symbol):
        return symbol

    price = driver.decorate(price, name="price")
    with pytest.raises(TypeError, match=r"^price: its loader returned a coroutine.* await"):
        driver.call(driver.loader(price, prices), ["A", "B"])
    assert price.flights() == ()
    kept.pop().close()


def test_a_bytearray_is_no_collection_of_items():
    """As a string is none."""

    @single_flight_ttl(ttl=60)
    def price(symbol):
        return symbol

    prices = price.bulk(lambda symbols: dict.fromkeys(symbols, 1))
    with pytest.raises(TypeError, match="symbols"):
        prices(bytearray(b"AB"))


def test_the_name_of_the_items_is_the_loaders(driver):
    """Errors about the items call them as the loader's parameter is called."""

    async def price(symbol):
        return symbol

    async def prices(wanted):
        return {}

    price = driver.decorate(price)
    with pytest.raises(TypeError, match=r"^wanted: "):
        driver.call(driver.loader(price, prices), 5)


@pytest.mark.parametrize("after", [0, 1])
def test_keys_are_asked_for_in_the_order_of_the_call(driver, after):
    """Whatever is served at once or fetched by others, the loader gets the rest as it was asked."""
    told = Told(driver, "")
    told.gate.set()
    for symbol in "AC"[:after]:
        driver.call(told.price, symbol)
    loads = [event.key for event in told.seen.of("fetch")]
    driver.call(told.prices, list("BACD"))
    assert [event.key for event in told.seen.of("fetch")][len(loads) :] == ["B", *"A"[after:], "C", "D"]


def test_timed_out_is_told_of(driver, monkeypatch):
    """A bulk caller that gives up tells for which key, and how long it has waited in all."""
    patience = Patience(monkeypatch, look=0.005)
    told = Told(driver, "", wait_timeout=100)
    told.start(told.price, "A")
    bulk = driver.start(told.prices, ["A"])
    told.seen.wait_for("wait")
    until(lambda: patience.waits)
    patience.advance(100)
    assert type(bulk.outcome()) is FlightTimeout
    assert told.events("timeout", "waited") == [("A", 100)]


def test_the_leader_of_a_plain_loader_on_a_loop_is_its_task():
    """flights() names the task that called, as for single calls, and not the loop's thread."""
    names = []

    @single_flight_ttl(ttl=60)
    def price(symbol):
        names.extend(flight.leader for flight in price.flights())

    @price.bulk
    def prices(symbols):
        names.extend(flight.leader for flight in price.flights())
        return dict.fromkeys(symbols, 1)

    async def call():
        price("A")
        return prices(["B", "C"])

    async def main():
        return await asyncio.create_task(call(), name="dashboard")

    assert asyncio.run(main()) == {"B": 1, "C": 1}
    assert len(names) == 3
    assert all("dashboard" in name for name in names)
