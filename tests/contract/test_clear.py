"""clear: the entries and flights of one instance, or of all, go; counts stay."""

import functools
import gc
import sys
import weakref

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import FakeClock, Recorder

from ..drivers import Executions, Gate, InThread


class Owner:
    """Has methods."""

    name = "owner"


@pytest.fixture
def method(driver):
    """A method that returns the number of its execution, held at the gates of `holds`."""

    def make(holds=(), **options):
        executions, gates, seen = Executions(), {number: driver.gate() for number in holds}, Recorder()

        async def fetch(self, key="A"):
            number = executions.begin()
            if number in gates:
                await gates[number]
            return number

        made = driver.decorate(fetch, listener=seen, **options)
        made.executions, made.gates, made.seen = executions, gates, seen
        return made

    return make


def test_one_instances_entries_go(driver, method):
    """Those of others stay; the function's own `clear` drops what is left."""
    fetch, one, other = method(), Owner(), Owner()
    for instance, key in ((one, "A"), (one, "B"), (other, "A")):
        driver.call(fetch.of(instance), key)
    assert driver.call(fetch, one, "B") == 1  # a plain call on the instance finds it too
    assert fetch.of(one).clear() == 2
    assert driver.call(fetch.of(other)) == 2
    assert driver.call(fetch.of(one)) == 3
    assert fetch.clear() == 2
    assert fetch.stats().entries == 0
    assert fetch.of(one).clear() == fetch.clear() == 0


def test_counts_stay(driver, method):
    """All of them, hits of dropped entries too."""
    fetch, one = method(), Owner()
    for _ in range(3):
        driver.call(fetch.of(one))
    before = fetch.stats()
    fetch.of(one).clear()
    driver.call(fetch.of(one))
    fetch.clear()
    after = fetch.stats()
    assert (before.hits, before.fetches, before.calls) == (2, 1, 1)
    assert (after.hits, after.fetches, after.calls, after.evictions) == (2, 2, 2, 0)


def test_one_instances_flights_are_detached(driver, method):
    """Their callers get their outcome, which is not stored; another instance's flight is stored."""
    fetch, one, other = method(holds=[0, 1]), Owner(), Owner()
    callers = [driver.start(fetch.of(one))]
    fetch.executions.wait_for(1)
    callers += [driver.start(fetch.of(one)), driver.start(fetch.of(other))]
    fetch.executions.wait_for(2)
    fetch.seen.wait_for("wait", 1)
    assert fetch.of(one).clear() == 0  # flights are no entries
    assert sorted(flight.detached for flight in fetch.flights()) == [False, True]
    assert driver.call(fetch.of(one)) == 2
    for gate in fetch.gates.values():
        gate.set()
    assert [caller.outcome() for caller in callers] == [0, 0, 1]
    assert (fetch.of(one).entry().value, fetch.of(other).entry().value) == (2, 1)
    assert [event.key[1] for event in fetch.seen.events if event.kind == "invalidate"] == ["A"]


def test_a_flight_without_arguments_is_its_instances(driver):
    """Its key is the instance alone."""
    executions, gate = Executions(), driver.gate()

    async def fetch(self):
        number = executions.begin()
        if number == 0:
            await gate
        return number

    made, one = driver.decorate(fetch), Owner()
    caller = driver.start(made.of(one))
    executions.wait_for(1)
    assert made.of(one).clear() == 0
    assert [flight.detached for flight in made.flights()] == [True]
    gate.set()
    assert caller.outcome() == 0
    assert driver.call(made.of(one)) == 1


def test_a_flight_without_any_instance_is_nobodys():
    """A wrapper that takes anything, around what takes nothing, is called without an instance, too."""
    executions, gate = Executions(), Gate()

    def fetch():
        executions.begin()
        gate.pass_()
        return 0

    @single_flight_ttl(ttl=60)
    @functools.wraps(fetch)
    def wrapper(*args, **options):
        return fetch(*args, **options)

    class Local:
        pass

    async def call():
        return wrapper()

    Local.fetch = wrapper
    caller = InThread(call, ())
    executions.wait_for(1)
    assert Local().fetch.clear() == 0
    assert [flight.detached for flight in wrapper.flights()] == [False]
    gate.set()
    assert caller.outcome() == 0


def test_all_flights_are_detached(driver, method):
    """On the function itself."""
    fetch, one, other = method(holds=[0, 1]), Owner(), Owner()
    callers = [driver.start(fetch.of(one))]
    fetch.executions.wait_for(1)
    callers.append(driver.start(fetch.of(other)))
    fetch.executions.wait_for(2)
    assert fetch.clear() == 0
    assert [flight.detached for flight in fetch.flights()] == [True, True]
    for gate in fetch.gates.values():
        gate.set()
    assert [caller.outcome() for caller in callers] == [0, 1]
    assert fetch.stats().entries == 0


def test_a_renewal_is_detached(driver, method):
    """A refresh in progress does not bring a value back."""
    fetch, one = method(holds=[1]), Owner()
    driver.call(fetch.of(one))
    renewal = driver.start(fetch.of(one).refresh)
    fetch.executions.wait_for(2)
    assert fetch.of(one).clear() == 1
    fetch.gates[1].set()
    assert renewal.outcome() == 1
    assert fetch.of(one).entry() is None
    assert fetch.seen.count("invalidate") == 1  # of one key, though both were there


def test_what_has_run_out_is_not_counted(driver, method):
    """It would not have been served."""
    clock = FakeClock()
    fetch, one = method(ttl=10, timer=clock), Owner()
    driver.call(fetch.of(one))
    clock.advance(11)
    assert fetch.of(one).clear() == 0


def test_it_keeps_no_key_alive(driver):
    """Nor does the lock of a key outlive its entry."""

    class Key:
        """Something that can be weakly referenced."""

    async def fetch(key):
        return 1

    made, key = driver.decorate(fetch), Key()
    gone = weakref.ref(key)
    driver.call(made, key)
    del key
    driver.callers.clear()
    assert made.stats().idle_locks == 1
    assert made.clear() == 1
    gc.collect()
    assert (made.stats().idle_locks, gone()) == (0, None)


def test_it_keeps_no_instance_alive(driver, method):
    """As calls do not."""
    fetch, one = method(), Owner()
    fetch.of(one).clear()
    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("options", [{"key": "key"}, {"key": ("key",)}, {"ignore": "key"}, {"typed": True}])
def test_keys_that_have_the_instance(driver, method, options):
    """By name, without ignored arguments, with types: they tell whose an entry is."""
    fetch, one, other = method(**options), Owner(), Owner()
    for instance in (one, other):
        driver.call(fetch.of(instance))
    assert fetch.of(one).clear() == 1
    assert (fetch.of(one).entry(), fetch.of(other).entry().value) == (None, 1)


@pytest.mark.parametrize(
    "key", [lambda self, key="A": key, lambda self, key="A": (self, key), ("self.name", "key"), "self"]
)
def test_with_a_key_of_its_own_a_bound_clear_is_refused(driver, method, key):
    """The key does not tell whose it is; the function's own `clear` works, and nothing has been dropped."""
    fetch, one = method(key=key), Owner()
    driver.call(fetch.of(one))
    with pytest.raises(TypeError, match=r"clear: .*key.*invalidate_where"):
        fetch.of(one).clear()
    assert fetch.clear() == 1


def test_class_methods_are_cleared_by_class():
    """The class takes the instance's place."""

    class Base:
        @single_flight_ttl(ttl=60)
        @classmethod
        def name_of(cls):
            return [cls.__name__]

        @classmethod
        @single_flight_ttl(ttl=60)
        def inner(cls):
            return [cls.__name__]

        @single_flight_ttl(ttl=60)
        @staticmethod
        def static():
            return 1

    class Child(Base):
        pass

    for method in ("name_of", "inner") if sys.version_info < (3, 13) else ("name_of",):
        first, second = getattr(Base, method)(), getattr(Child, method)()
        assert getattr(Child(), method).clear() == 1
        assert getattr(Base, method)() is first
        assert getattr(Child, method)() is not second
    assert Base.static() == 1
    assert (Base().static.clear(), Base.static.clear()) == (1, 0)


def test_twins_are_cleared_together():
    """By either of them."""

    class Account:
        @single_flight_ttl(ttl=60)
        def price(self, symbol):
            return 1

        @price.twin
        async def aprice(self, symbol):
            return 1

    one, other = Account(), Account()
    one.price("A"), other.price("A")
    assert one.aprice.clear() == 1
    assert (one.price.entry("A"), other.aprice.entry("A").value) == (None, 1)
    assert Account.aprice.clear() == 1


def test_values_are_destroyed_under_no_lock():
    """A destructor may use the function."""

    class Value:
        def __del__(self):
            seen.append(fetch.stats().entries)

    seen = []

    @single_flight_ttl(ttl=60)
    def fetch(key):
        return Value()

    fetch(1), fetch(2)
    assert fetch.clear() == 2
    gc.collect()
    assert seen == [0, 0]


def test_a_key_that_raises_is_told():
    """Though nothing can be looked up by it any more."""

    class Key:
        raises = False

        def __hash__(self):
            if self.raises:
                raise ValueError
            return 1

    seen, key = Recorder(), Key()
    fetch = single_flight_ttl(ttl=60, listener=seen)(lambda key: 1)
    fetch("A"), fetch(key)
    key.raises = True
    assert fetch.clear() == 2
    assert [event.key[0] for event in seen.of("invalidate")] == ["A", key]


def test_spoilt_keys_are_cleared_too():
    """Entries whose keys can no longer be found by their hash."""

    class Key:
        hashes = 1

        def __hash__(self):
            return self.hashes

    class Account:
        @single_flight_ttl(ttl=60)
        def price(self, symbol):
            return 1

    one, key = Account(), Key()
    one.price(key), one.price("A")
    key.hashes = 2
    assert one.price.clear() == 2
    assert Account.price.stats().entries == 0
