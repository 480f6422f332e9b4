"""copy, failure_ttl and clear, for what loaders bring."""

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import Recorder

from ..drivers import Executions


class Missing(Exception):
    """What a loader raises."""


@pytest.fixture
def pair(driver):
    """A getter, and a loader that is held at its gate once it has begun."""

    def make(body=None, **options):
        gate, executions, seen = driver.gate(), Executions(), Recorder()

        async def fetch(symbol):
            return [symbol]

        async def load(symbols):
            executions.begin()
            await gate
            return {symbol: [symbol] for symbol in symbols}

        getter = driver.decorate(fetch, listener=seen, **options)
        loader = driver.loader(getter, body or load)
        loader.gate, loader.executions, loader.seen = gate, executions, seen
        return getter, loader

    return make


def test_each_item_of_each_answer_is_a_copy(driver, pair):
    """Loaded, stored or joined, and for two items of one key."""
    getter, loader = pair(copy=True, key=lambda symbol: symbol.upper())
    callers = [driver.start(loader, ["a", "A", "b"])]
    loader.executions.wait_for(1)
    callers += [driver.start(loader, ["b"]), driver.start(getter, "a")]
    loader.seen.wait_for("wait", 2)
    loader.gate.set()
    first, second, single = [caller.outcome() for caller in callers]
    again = driver.call(loader, ["a", "b"])
    assert (first, second, single) == ({"a": ["a"], "A": ["a"], "b": ["b"]}, {"b": ["b"]}, ["a"])
    assert again == {"a": ["a"], "b": ["b"]}
    stored = [event.value for event in loader.seen.events if event.kind == "land"]
    values = [*first.values(), *second.values(), single, *again.values(), *stored]
    assert len({id(value) for value in values}) == 9


class Comparing(type):
    """Its classes cannot be hashed."""

    def __eq__(cls, other):
        return NotImplemented


class Unhashable(metaclass=Comparing):
    """A value whose class cannot be."""


def test_a_value_may_be_of_a_class_that_cannot_be_hashed(driver, pair):
    """It is shared and stored like any other."""
    value = Unhashable()

    async def load(symbols):
        return dict.fromkeys(symbols, value)

    getter, loader = pair(load, ttl=60)
    assert driver.call(loader, ["a", "b"]) == {"a": value, "b": value}
    assert driver.call(getter, "a") is value
    assert getter.stats().hits == 1


def test_what_a_copy_raises_is_the_bulk_callers(driver, pair):
    """The values stay, and the next answer is complete."""
    raising = []

    def refuse(value):
        if raising:
            raise raising.pop()
        return list(value)

    getter, loader = pair(copy=refuse)
    loader.gate.set()
    for _ in range(2):
        raising.append(TypeError("copy"))
        with pytest.raises(TypeError, match="copy") as raised:
            driver.call(loader, ["a", "b"])
        assert type(raised.value) is TypeError
    assert driver.call(loader, ["a", "b"]) == {"a": ["a"], "b": ["b"]}
    stats = getter.stats()
    assert (stats.calls, stats.fetches, stats.hits, stats.errors, stats.failures) == (1, 2, 4, 0, 0)
    assert (getter.flights(), stats.locks) == ((), stats.idle_locks)


def test_a_bypassed_loader_gives_its_own_answer(driver, pair):
    """Nothing is copied."""
    getter, loader = pair(copy=lambda value: 1 / 0)
    loader.gate.set()
    with getter.bypass():
        assert driver.call(loader, ["a"]) == {"a": ["a"]}


def test_failure_ttl_is_asked_once_for_a_loader_call(driver, pair):
    """Its answer holds for each key that the loader was called for."""
    asked = []

    async def load(symbols):
        raise Missing

    getter, loader = pair(load, failure_ttl=lambda error: (asked.append(error), 60)[1], follower_retries=0)
    with pytest.raises(Missing):
        driver.call(loader, ["a", "b", "c"])
    for symbol in "abc":
        with pytest.raises(Missing):
            driver.call(getter, symbol)
    assert len(asked) == 1
    assert getter.stats().calls == 1


def test_a_fault_of_failure_ttl_is_logged_once_and_hides_nothing(driver, pair, caplog):
    """The caller gets the loader's error, and nothing is stored."""

    async def load(symbols):
        raise Missing

    getter, loader = pair(load, failure_ttl=lambda error: "soon")
    with pytest.raises(Missing):
        driver.call(loader, ["a", "b"])
    assert driver.call(getter, "a") == ["a"]
    assert [record.levelname for record in caplog.records if "failure_ttl" in record.getMessage()] == [
        "WARNING"
    ]


def test_an_abort_of_failure_ttl_aborts_the_loader_call(driver, pair):
    """The caller gets it, and nobody asks whether it is true; the keys are free and nothing is stored."""

    class Abort(BaseException):
        def __bool__(self):
            return False

    def abort(error):
        raise Abort

    async def load(symbols):
        raise Missing

    getter, loader = pair(load, failure_ttl=abort)
    with pytest.raises(Abort):
        driver.call(loader, ["a", "b"])
    assert driver.call(getter, "a") == ["a"]
    stats = getter.stats()
    assert (getter.flights(), stats.locks, stats.entries) == ((), stats.idle_locks, 1)


def test_failure_ttl_judges_what_a_single_key_fails_with(driver, pair):
    """A value that cannot be shared, or that `cache_if` raises for, is that key's failure."""
    asked = []

    def picky(value):
        if value == ["a"]:
            raise Missing
        return True

    getter, loader = pair(
        cache_if=picky, failure_ttl=lambda error: (asked.append(type(error)), 60)[1], follower_retries=0
    )
    loader.gate.set()
    with pytest.raises(Missing):
        driver.call(loader, ["a", "b"])
    with pytest.raises(Missing):
        driver.call(getter, "a")
    assert getter.entry("b").value == ["b"]
    assert asked == [Missing]


def test_clear_detaches_a_loader_call(driver, pair):
    """Its caller gets the answer; nothing of it is stored, also not what it brings unasked."""
    gate, executions = driver.gate(), Executions()

    async def load(symbols):
        executions.begin()
        await gate
        return {symbol: [symbol] for symbol in [*symbols, "extra"]}

    getter, loader = pair(load)
    caller = driver.start(loader, ["a", "b"])
    executions.wait_for(1)
    assert getter.clear() == 0
    gate.set()
    assert caller.outcome() == {"a": ["a"], "b": ["b"]}
    assert getter.stats().entries == 0


def test_clear_of_an_instance_with_a_loader():
    """Another instance's values stay, whichever way they came."""

    class Account:
        @single_flight_ttl(ttl=60, copy=True)
        def price(self, symbol):
            return [symbol]

        @price.bulk
        def prices(self, symbols):
            return {symbol: [symbol] for symbol in symbols}

    one, other = Account(), Account()
    one.prices(["AB"]), one.prices(["C", "D"]), other.prices(["C"])
    assert one.price.clear() == 3
    assert other.price.entry("C").value == ["C"]
    assert Account.price.clear() == 1
