"""core: one run for many callers, what is stored under which key, and how to look at it."""

import asyncio
import contextlib
import functools
import gc
import inspect
import logging
import pydoc
import threading
import weakref

import cachetools
import pytest

import singleflight
from singleflight import UnhashableKey, caches, report, single_flight_ttl
from singleflight.testing import FakeClock, Recorder, stampede

from ..drivers import Executions, InThread, suspends, until
from .conftest import outcomes


def test_many_callers_make_one_run(scene):
    """However many callers ask for a key at once, the function runs once and all of them get its value.

    Elsewhere: `functools.lru_cache` lets all of them run it.
    """
    one = scene()
    gate = one.hold(0)
    callers = one.herd(20)
    gate.set()
    assert outcomes(callers) == [0] * 20
    assert one.runs == 1


def test_every_caller_gets_the_same_object(driver):
    """Leader, followers and later callers get the same object, which they share."""

    async def fetch():
        return []

    fetch = driver.decorate(fetch)
    driver.start(fetch, count=6)
    first, *others = driver.outcomes()
    assert all(other is first for other in others)
    assert driver.call(fetch) is first


def test_with_copy_every_caller_gets_an_object_of_its_own(scene):
    """With `copy` leader, followers, later callers and `entry` get copies, and none the stored object."""
    one = scene(copy=list)
    gate = one.hold(0, ["value"])
    callers = one.herd(3)
    gate.set()
    values = [*outcomes(callers), one.call(), one.fetch.entry().value]
    assert values == [["value"]] * 5
    for value in values:
        value.append("changed")
    assert len({id(value) for value in values}) == 5
    assert one.call() == ["value"]


def test_what_a_copy_raises_is_its_own_callers_alone(scene):
    """An exception of `copy` reaches that caller, which counts as served; the value stays."""
    broken = []
    one = scene(copy=lambda value: [*value, *(1 / 0 for _ in broken)])
    one.script[0] = [["value"]]
    broken.append("once")
    with pytest.raises(ZeroDivisionError):
        one.call()
    broken.clear()
    assert one.call() == ["value"]
    assert (one.fetch.stats().fetches, one.fetch.stats().hits, one.clean()) == (1, 1, True)


def test_a_caller_between_publishing_and_cleaning_up_finds_the_value(crowd):
    """A caller that comes after the value is stored and before the key is free does not run it again."""
    clock, came = FakeClock(), []

    class Old:
        def __del__(self):  # destroyed when the new value takes its place, by the leader that is landing
            late = InThread(ask, ())
            came.append((late.outcome(), len(runs)))

    async def ask():
        return fetch()

    runs = []

    @single_flight_ttl(ttl=60, timer=clock)
    def fetch():
        runs.append(1)
        return Old() if len(runs) == 1 else "new"

    fetch()
    clock.advance(60)
    crowd.add(fetch)
    assert crowd.join() == ["new"]
    assert came == [("new", 2)]


def test_a_value_that_came_between_the_two_checks_is_found():
    """A caller that misses looks again before it runs the function: a value stored meanwhile is served."""
    meanwhile = []

    def timer():
        while meanwhile:
            meanwhile.pop()()
        return now

    @single_flight_ttl(ttl=60, timer=timer)
    def fetch():
        return "fetched"

    now = 0.0
    fetch()
    now = 61.0
    meanwhile.append(lambda: fetch.put("put meanwhile"))  # when the first check has read the old entry
    assert fetch() == "put meanwhile"
    assert fetch.stats().calls == 1


def test_no_more_executions_than_the_limit_run_at_once(driver):
    """With `max_flights` leaders of all keys stand in line, first come, first served; nobody else does."""
    gates, begun = {key: driver.gate() for key in "abc"}, Executions()
    order = []

    async def fetch(key):
        order.append(key)
        begun.begin()
        await gates[key]
        return key

    fetch = driver.decorate(fetch, key=lambda key: key, max_flights=1)
    fetch.put("hit", "stored")
    callers = [driver.start(fetch, "a")]
    begun.wait_for(1)
    for key in "bc":
        callers.append(driver.start(fetch, key))
        until(lambda key=key: any(flight.queued and flight.key == key for flight in fetch.flights()))
    assert (driver.call(fetch, "stored"), order) == ("hit", ["a"])
    for key in "cba":
        gates[key].set()
    assert ([caller.outcome() for caller in callers], order) == (list("abc"), list("abc"))


def test_a_later_caller_finds_the_value_for_its_whole_ttl(scene):
    """A caller that comes after the landing is served without a run until the ttl has passed."""
    one = scene()
    one.call()
    one.clock.advance(59.999)
    assert [one.call() for _ in range(4)] == [0] * 4
    one.clock.advance(0.001)
    assert one.call() == 1


def test_distinct_keys_run_in_parallel(driver):
    """Callers of ten keys are inside the function at the same time.

    Elsewhere: a lock around the whole cache serialises them.
    """
    inside, gate = [], driver.gate()

    async def fetch(key):
        inside.append(key)
        if len(inside) == 10:
            gate.set()
        await gate
        return key

    fetch = driver.decorate(fetch)
    for key in range(10):
        driver.start(fetch, key)
    assert driver.outcomes() == list(range(10))


class SameHash:
    """Keys of one hash."""

    def __init__(self, name):
        self.name = name

    def __hash__(self):
        return 1

    def __eq__(self, other):
        return self.name == other.name


def test_colliding_hashes_never_share_a_lock(scene):
    """Keys that are not equal do not wait for one another, though their hashes are the same.

    Elsewhere: striped locks make one wait for the other.
    """
    one = scene(key=lambda key: key)
    gate = one.hold(0)
    slow = one.ask(SameHash("slow"))
    assert one.call(SameHash("quick")) == 1
    gate.set()
    assert slow.outcome() == 0


def test_a_none_may_be_a_value(driver):
    """None is not stored, unless `cache_if` accepts it."""
    runs = []

    async def fetch(key):
        runs.append(key)

    for options, expected in (({}, 2), ({"cache_if": lambda value: True}, 1)):
        runs.clear()
        twice = driver.decorate(fetch, **options)
        assert [driver.call(twice, "A"), driver.call(twice, "A")] == [None, None]
        assert len(runs) == expected


def test_ttl_zero_coalesces_and_stores_nothing(scene):
    """With a ttl of 0 callers share the run that is in progress, and the next one runs again."""
    one = scene(ttl=0)
    gate = one.hold(0)
    callers = one.herd(6)
    gate.set()
    assert outcomes(callers) == [0] * 6
    assert one.fetch.entry() is None
    assert one.call() == 1


def test_a_key_by_name_has_what_is_named_and_the_instance(driver):
    """Calls equal in what is named, or not ignored, are one; a method's instance counts by identity."""

    class Account:
        def __eq__(self, other):
            return isinstance(other, Account)

        __hash__ = None

    async def price(self, symbol, price_type="bid", session=None):
        return object()

    mine, yours = Account(), Account()
    for options in ({"key": ("symbol", "price_type")}, {"ignore": "session"}):
        fetch = driver.decorate(price, **options)
        calls = [(mine, "A"), (mine, "B"), (yours, "A")]
        first, other_symbol, other_account = (driver.call(fetch.of(of), symbol) for of, symbol in calls)
        assert driver.call(fetch.of(mine), "A", "bid", []) is first
        assert len({first, other_symbol, other_account, driver.call(fetch.of(mine), "A", "ask")}) == 4
    gone = weakref.ref(yours)
    del yours, calls
    driver.callers.clear()
    gc.collect()
    assert gone() is None
    assert fetch.stats().entries == 3


def test_class_and_static_methods_take_names():
    """A class method's class counts as an instance does; of a static method what is named alone counts."""

    class Rates:
        @single_flight_ttl(ttl=60, key="currency")
        @classmethod
        def above(cls, currency, day=1):
            return cls, day

        @classmethod
        @single_flight_ttl(ttl=60, key="currency")
        def below(cls, currency, day=1):
            return cls, day

        @single_flight_ttl(ttl=60, key="currency")
        @staticmethod
        def static(day, currency):
            return day

    class Others(Rates):
        pass

    for owner in (Rates, Others):
        assert owner.above("EUR", 1) == owner.above("EUR", 2) == (owner, 1)
        assert owner.below("EUR", 1) == owner.below("EUR", 2) == (owner, 1)
        assert owner.static(1, "EUR") == owner.static(2, "EUR") == 1


def test_a_key_names_attributes(driver):
    """A key may name attributes; equal ones are one key, and what reading one raises reaches the caller."""

    class Account:
        def __init__(self, number):
            self.number = number

    async def price(self, symbol):
        return object()

    fetch = driver.decorate(price, key=("self.number", "symbol"))
    one, same, other = (driver.call(fetch.of(Account(number)), "A") for number in (1, 1, 2))
    assert one is same is not other
    with pytest.raises(AttributeError, match="number"):
        driver.call(fetch.of(object()), "A")
    assert (fetch.stats().entries, fetch.stats().locks - fetch.stats().idle_locks) == (2, 0)


@pytest.mark.parametrize(
    "options", [{}, {"key": "number"}, {"ignore": "unit"}, {"key": lambda number, unit: number}]
)
def test_typed_keys_tell_equal_arguments_apart(driver, options):
    """With `typed=True` equal arguments of different types are different keys, which are shown plain."""

    async def double(number, unit="EUR"):
        return number

    double = driver.decorate(double, typed=True, **options)
    for number in (1, 1.0, True, 1):
        assert repr(driver.call(double, number)) == repr(number)
        assert repr(double.explain(number).key) == repr(double.entry(number).key)
    assert double.invalidate(1.0) is True
    assert (double.entry(1.0), double.entry(True).value) == (None, True)
    assert double.stats().calls == 3


def test_threads_and_tasks_share_a_run(loops, gate):
    """A plain function and its coroutine twin share one call, whichever is called first.

    Elsewhere: threads cannot take part in the calls of async-lru.
    """
    seen = Recorder()

    @single_flight_ttl(ttl=60, listener=seen)
    def plain():
        gate.pass_()
        return object()

    @plain.twin
    async def coroutine():
        return object()

    async def ask():
        return plain()

    thread, loop = InThread(ask, ()), loops()
    seen.wait_for("fetch")
    task = loop.start(coroutine)
    seen.wait_for("wait")
    gate.set()
    assert thread.outcome() is task.outcome()
    assert plain.stats().calls == 1


def test_a_twin_shares_all_but_its_colour():
    """Twins share values, controls and counts; `refresh` calls the function on which it is called."""

    @single_flight_ttl(ttl=60)
    def plain(key):
        return "plain"

    @plain.twin
    async def coroutine(key):
        return "coroutine"

    plain.put("put", "A")
    assert asyncio.run(coroutine("A")) == "put"
    assert [asyncio.run(coroutine.refresh("A")), plain("A")] == ["coroutine"] * 2
    assert coroutine.invalidate("A") is True
    assert plain("A") == "plain"
    assert plain.stats() == coroutine.stats()


def test_a_twin_needs_the_named_parameters_alone():
    """Twins need the parameters that the key names, and no others in common; else they are refused."""

    @single_flight_ttl(ttl=60, key="symbol")
    def plain(symbol):
        return object()

    @plain.twin
    async def coroutine(session, symbol):
        return object()

    assert plain("A") is asyncio.run(coroutine(object(), "A"))
    with pytest.raises(TypeError, match="symbol, which key= names"):
        plain.twin(lambda ticker: None)


def test_event_loops_share_a_run(loops, gate):
    """Tasks of four event loops make one call, and each gets its value on its own loop.

    Elsewhere: async-lru calls once for each loop.
    """
    seen = Recorder()

    @single_flight_ttl(ttl=60, listener=seen)
    async def fetch():
        await asyncio.to_thread(gate.pass_)
        return object()

    callers = [loop.start(fetch) for loop in (loops(), loops(), loops(), loops())]
    seen.wait_for("wait", 3)
    gate.set()
    assert len({id(value) for value in outcomes(callers)}) == 1
    assert fetch.stats().calls == 1


def test_waiting_for_another_loop_blocks_neither(loops, gate):
    """While a task waits for a run on another loop or in a thread, neither loop is blocked."""
    seen = Recorder()

    @single_flight_ttl(ttl=60, listener=seen)
    async def fetch():
        await asyncio.to_thread(gate.pass_)
        return 1

    async def something_else():
        await asyncio.sleep(0)
        return "went on"

    here, there = loops(), loops()
    callers = [here.start(fetch), there.start(fetch)]
    seen.wait_for("wait")
    assert [here.run(something_else), there.run(something_else)] == ["went on"] * 2
    gate.set()
    assert outcomes(callers) == [1, 1]


def test_a_hit_takes_no_lock(crowd, gate):
    """A fresh value is served while another thread holds the key's lock."""

    @single_flight_ttl(ttl=60, key=lambda: "A")
    def fetch():
        return 1

    def hold():
        with fetch.locks("A"):
            held.set()
            gate.pass_()

    fetch()
    held = threading.Event()
    crowd.add(hold)
    assert held.wait(10)
    assert stampede(fetch, 4).outcomes == [1] * 4


def test_a_hit_starts_no_task():
    """A coroutine function's fresh value is returned at the first step, without suspending the caller."""

    @single_flight_ttl(ttl=60)
    async def fetch():
        return 1

    asyncio.run(fetch())
    with pytest.raises(StopIteration) as ended:
        fetch().send(None)
    assert ended.value.value == 1


@pytest.mark.parametrize("who", ["function", "key", "ttl", "cache_if", "listener", "destructor"])
def test_no_user_code_runs_under_a_lock(who):
    """While any of your code runs, other threads can use the same function, its values and its locks."""
    free = []

    def probe(name):
        if name == who and not free:
            free.append(None)
            free[0] = InThread(use_it, ()).outcome()

    async def use_it():
        fetch("other"), fetch.invalidate("other"), fetch.stats()
        with fetch.locks("another"):
            return "free"

    class Value:
        def __del__(self):
            probe("destructor")

    @single_flight_ttl(
        key=lambda key: (probe("key"), key)[1],
        ttl=lambda landing: (probe("ttl"), 60)[1],
        cache_if=lambda value: (probe("cache_if"), True)[1],
        listener=lambda event: probe("listener"),
        maxsize=1,
    )
    def fetch(key):
        probe("function")
        return Value()

    fetch("A"), fetch("B")
    fetch.cache_clear()
    gc.collect()
    assert free == ["free"]


def test_a_call_from_a_keys_own_hash_or_eq_does_not_hang(crowd):
    """`__hash__` and `__eq__` of keys run under a lock, and even a call from there returns."""

    class Key(SameHash):
        __hash__ = SameHash.__hash__

        def __eq__(self, other):
            inner.append(fetch("inner"))
            return self.name == other.name

    inner = []

    @single_flight_ttl(ttl=60, key=lambda key: key)
    def fetch(key):
        return "value"

    def ask():
        return [fetch(Key("A")), fetch(Key("A")), fetch(Key("B"))]

    crowd.add(ask)
    assert crowd.join() == [["value"] * 3]
    assert inner
    assert set(inner) == {"value"}


def test_arguments_are_one_call_however_they_are_written(driver):
    """Arguments by position, by name or by default are one call: the key is what the function receives."""

    async def fetch(a, b=2):
        return a, b

    fetch = driver.decorate(fetch)
    assert driver.call(fetch, 1) == (1, 2)
    for ask in (lambda: fetch(1, 2), lambda: fetch(1, b=2), lambda: fetch(b=2, a=1)):
        driver.call(ask)
    assert fetch.stats().calls == 1


def test_keys_compare_as_in_a_dictionary():
    """`1`, `1.0` and `True` are one key."""
    fetch = single_flight_ttl(ttl=60, key=lambda key: key)(lambda key: repr(key))
    assert [fetch(1), fetch(1.0), fetch(True)] == ["1", "1", "1"]


def test_an_unhashable_key_is_named():
    """An argument, or a key, that cannot be hashed raises `UnhashableKey` before anything is called."""

    @single_flight_ttl(ttl=60)
    def fetch(symbol, options):
        return 1

    @single_flight_ttl(ttl=60, key=lambda symbol: [symbol])
    def keyed(symbol):
        return 1

    with pytest.raises(UnhashableKey, match="options"):
        fetch("A", [])
    with pytest.raises(UnhashableKey):
        keyed("A")
    assert fetch.stats().calls == keyed.stats().calls == 0


class Account:
    """With a method under the default key."""

    def __init__(self, name="account"):
        self.name = name

    @single_flight_ttl(ttl=60)
    def price(self, symbol="A"):
        return f"{symbol} of {self.name}"


class Careful(Account):
    """Overrides the method, and calls the one above."""

    @single_flight_ttl(ttl=60)
    def price(self, symbol="A"):
        return super().price(symbol) + "!"


def test_no_instance_is_kept_alive():
    """With the default key a method's values are removed with their instance.

    Elsewhere: decorators that put `self` into the key keep every instance until its entry goes.
    """
    account = Account()
    account.price()
    alive, before = weakref.ref(account), Account.price.stats().entries
    del account
    assert alive() is None
    assert Account.price.stats().entries == before - 1


def test_no_instance_is_served_anothers_value():
    """If an `id()` is used again, the new instance does not get the old one's value.

    Elsewhere: several libraries serve it.
    """
    ids, reused = set(), 0
    for number in range(1000):
        account = Account(number)
        assert account.price() == f"A of {number}"
        reused += id(account) in ids
        ids.add(id(account))
        del account
    assert reused


def test_instances_are_told_apart_by_identity():
    """Instances need not be hashable, and two equal instances do not share a value."""

    class Equal:
        def __eq__(self, other):  # and so without a hash
            return True

        @single_flight_ttl(ttl=60)
        def price(self):
            return object()

    one, other = Equal(), Equal()
    assert one.price() is one.price()
    assert one.price() is not other.price()


def test_class_and_static_methods_may_be_decorated():
    """The decorator works above or below `@classmethod` and `@staticmethod`; each class has its values."""

    class Rates:
        @single_flight_ttl(ttl=60)
        @classmethod
        def of(cls):
            return cls.__name__

        @staticmethod
        @single_flight_ttl(ttl=60)
        def fixed(currency):
            return currency

    class Other(Rates):
        pass

    assert [Rates.of(), Other.of(), Rates().of()] == ["Rates", "Other", "Rates"]
    assert [Rates.fixed("EUR"), Rates().fixed("EUR")] == ["EUR", "EUR"]
    assert (Rates.of.stats().calls, Rates.fixed.stats().calls) == (2, 1)


def test_an_instance_that_cannot_be_told_apart_is_refused():
    """A method of a class with `__slots__` and without `__weakref__` raises at its first call."""

    class Slotted:
        __slots__ = ()

        @single_flight_ttl(ttl=60)
        def price(self):
            return 1

    with pytest.raises(TypeError, match="__weakref__"):
        Slotted().price()


def test_super_is_no_re_entry():
    """An override that calls `super().method()` with the same key calls a separate function."""
    assert Careful().price() == "A of account!"


def test_a_full_store_drops_what_was_not_used_lately():
    """At most `maxsize` values are kept; a value that is used stays when others come and are evicted."""
    fetch = single_flight_ttl(ttl=60, maxsize=8)(lambda key: key)
    for key in range(100):
        fetch("used")
        fetch(key)
        assert fetch.stats().entries <= 8
    assert fetch.entry("used").hits == 99
    assert fetch.stats().evictions == 101 - 8


@pytest.mark.parametrize(
    ("policy", "stays"),
    [(cachetools.LRUCache, "ac"), (cachetools.LFUCache, "ac"), (cachetools.FIFOCache, "bc")],
)
def test_a_policy_decides_who_goes(scene, policy, stays):
    """With `policy` a class of cachetools decides what a full store evicts; entries expire by their ttl."""
    one = scene(maxsize=2, policy=policy)
    for key in "abac":
        one.call(key)
    assert {key for key in "abc" if one.fetch.entry(key)} == set(stays)
    one.clock.advance(60)
    assert [one.fetch.entry(key) for key in "abc"] == [None] * 3


def test_maxsize_limits_weights(scene):
    """With `weigh`, `maxsize` limits the sum of the weights; a heavier value is shared and not stored."""
    one = scene(maxsize=5, weigh=lambda number: 2 if number < 3 else 6)  # values are 0, 1, 2, ...
    for key in "abc":
        one.call(key)
    assert (one.fetch.stats().weight, one.fetch.stats().evictions) == (4, 1)
    gate = one.hold(3)
    callers = one.herd(4, "d")
    gate.set()
    assert outcomes(callers) == [3] * 4
    assert one.fetch.entry("d") is None
    assert one.fetch.stats().weight == 4


BAD = [
    ({"ttl": -1}, ValueError),
    ({"ttl": float("nan")}, ValueError),
    ({"ttl": True}, TypeError),
    ({"maxsize": 0}, ValueError),
    ({"max_idle_locks": -1}, ValueError),
    ({"follower_retries": 1.5}, TypeError),
    ({"failure_ttl": -1}, ValueError),
    ({"grace": "1"}, TypeError),
    ({"refresh_ahead": 2}, ValueError),
    ({"jitter": 1}, ValueError),
    ({"wait_timeout": -1}, ValueError),
    ({"flight_timeout": "1"}, TypeError),
    ({"policy": dict}, TypeError),
    ({"weigh": 1}, TypeError),
    ({"unknown": 1}, TypeError),
]


@pytest.mark.parametrize(
    ("option", "error"), BAD, ids=lambda given: next(iter(given), None) if isinstance(given, dict) else ""
)
def test_bad_options_are_named_at_decoration(option, error):
    """A bad value, or an unknown option, raises `TypeError` or `ValueError` that names the option."""
    with pytest.raises(error, match=next(iter(option))):
        single_flight_ttl(lambda: 1, **{"ttl": 60, **option})


def test_what_cannot_be_shared_is_refused_at_decoration():
    """A generator function, or a plain wrapper around a coroutine function, is a `TypeError`."""

    def generator():
        yield 1

    async def agenerator():
        yield 1

    async def coroutine():
        return 1

    @functools.wraps(coroutine)
    def wrapper():
        return coroutine()

    for function, reason in ((generator, "generator"), (agenerator, "generator"), (wrapper, "async def")):
        with pytest.raises(TypeError, match=reason):
            single_flight_ttl(ttl=60)(function)


def test_a_decorated_function_stays_what_it_was():
    """Name, signature, docstring and kind are those of the function, which is its `__wrapped__`."""

    async def fetch(a, b=2):
        """What it does."""
        return a

    decorated = single_flight_ttl(ttl=60)(fetch)
    assert (decorated.__name__, decorated.__doc__) == ("fetch", "What it does.")
    assert inspect.signature(decorated) == inspect.signature(fetch)
    coroutine = decorated(1)
    assert asyncio.iscoroutine(coroutine)
    coroutine.close()
    assert decorated.__wrapped__ is fetch


def test_the_counts_sum_to_the_calls_received(driver):
    """Hits, stale hits, waits, fetches, errors and timeouts sum to the calls received, under contention."""

    async def fetch(key):
        if key == 3:
            raise ValueError(key)
        return None if key == 4 else key

    async def ask():
        for number in range(200):
            with contextlib.suppress(ValueError):
                await fetch(number % 7)

    fetch = driver.decorate(fetch, maxsize=3)
    driver.start(ask, count=6)
    driver.outcomes()
    stats = fetch.stats()
    six = stats.hits, stats.stale_hits, stats.waits, stats.fetches, stats.errors, stats.timeouts
    assert sum(six) == 6 * 200
    assert stats.misses == stats.waits + stats.fetches


def test_looking_counts_and_calls_nothing(scene):
    """`entry`, `explain`, `flights` and `stats` describe the current state and change nothing."""
    one = scene()
    assert (one.fetch.entry(), one.fetch.explain().would) == (None, "fetch")
    gate = one.hold(0)
    caller = one.ask()
    assert one.fetch.explain().would == "wait"
    assert [flight.kind for flight in one.fetch.flights()] == ["call"]
    gate.set()
    caller.outcome()
    one.clock.advance(5)
    entry = one.fetch.entry()
    assert (entry.value, entry.age, entry.ttl, entry.state, entry.hits) == (0, 5.0, 60.0, "fresh", 0)
    assert (one.fetch.explain().would, one.runs, one.fetch.stats().hits) == ("hit", 1, 0)


def test_bypass_runs_the_function_directly(scene):
    """Inside `bypass()` every call runs the function and counts nothing; then stored values are back."""
    one = scene()
    one.call()
    with one.fetch.bypass():
        assert [one.call(), one.call()] == [1, 2]
    assert one.call() == 0
    assert one.fetch.stats().calls == 1


def test_the_environment_switches_it_off(scene, monkeypatch):
    """With `SINGLEFLIGHT_DISABLED=1` every call runs its function, and the control methods stay."""
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")
    one = scene()
    assert [one.call(), one.call()] == [0, 1]
    assert one.fetch.entry() is None


def test_events_are_numbered_without_a_gap(scene):
    """A listener gets an event for each step, after it is complete, with a number that gives the order."""
    one = scene()
    gate = one.hold(0)
    callers = one.herd(4)
    gate.set()
    outcomes(callers)
    one.call()
    assert [event.sequence for event in one.seen.events] == list(range(1, 10))
    assert one.seen.kinds()[:4] == ["fetch", "wait", "wait", "wait"]
    assert sorted(one.seen.kinds()[4:]) == ["hit", "land", "share", "share", "share"]


def test_a_listener_gets_only_what_it_wants():
    """A listener that declares the kinds it wants gets those and no others."""
    seen = Recorder(wants={"land"})
    fetch = single_flight_ttl(ttl=60, listener=seen)(lambda: 1)
    fetch(), fetch(), fetch.invalidate()
    assert seen.kinds() == ["land"]


def test_a_listener_disturbs_nobody(caplog):
    """An exception of a listener is logged once and dropped; calls that it makes itself give no events."""
    told = []

    def listener(event):
        told.append(event.kind)
        fetch("its own")
        raise ValueError("a bad listener")

    @single_flight_ttl(ttl=60, listener=listener)
    def fetch(key):
        return key

    with caplog.at_level(logging.WARNING, "singleflight"):
        assert [fetch("A"), fetch("A")] == ["A", "A"]
    assert told == ["fetch", "land", "hit"]
    assert len(caplog.records) == 1


def test_the_process_can_be_looked_at(scene):
    """`caches()` lists every living decorated function, `report()` who runs what and how many wait."""
    one = scene(name="price of cheese")
    assert any(cached.cache_parameters()["name"] == "price of cheese" for cached in caches())
    gate = one.hold(0)
    callers = one.herd(3)
    assert "price of cheese ('A',): call by " in report()
    assert "2 waiting" in report()
    gate.set()
    outcomes(callers)


def test_drain_waits_for_what_is_in_flight(scene):
    """`drain_sync` returns False while a run is in progress, and True once there is none."""
    one = scene()
    gate = one.hold(0)
    caller = one.ask()
    assert singleflight.drain_sync(timeout=0.01) is False
    gate.set()
    assert singleflight.drain_sync(timeout=10) is True
    assert caller.outcome() == 0


def test_a_call_is_handed_on_as_it_was_made():
    """Left-out arguments stay left out, also below a wrapper that provides them; equal calls share a key."""

    def provide_session(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **{"session": "provided", **kwargs})

        return wrapper

    @single_flight_ttl(ttl=60)
    @provide_session
    def user(number, session=None):
        return number, session

    assert user(1) == user(number=1) == (1, "provided")
    assert user(2, session="mine") == (2, "mine")
    assert user.stats().calls == 2


def test_a_function_shows_its_name_options_and_controls():
    """`name` is what events and reports call it; `repr` and `help` show the options, `dir` the controls."""

    @single_flight_ttl(ttl=60, grace=5, name="prices")
    def rate(symbol):
        """A rate."""

    assert rate.name == "prices"
    assert "prices(ttl=60, grace=5.0)" in repr(rate)
    assert {"invalidate", "refresh", "stats"} <= set(dir(rate))
    told = pydoc.render_doc(rate)
    assert "A rate." in told
    assert "prices(ttl=60, grace=5.0)" in told
    assert rate.__doc__ == "A rate."


def test_an_answer_says_how_its_own_call_was_served(driver):
    """`answer` returns the value and how this very call was served, whatever has been stored since."""

    def put(_event):
        fetch.put("newer")

    put.wants = {"land"}

    async def fetched():
        return "older"

    async def ask():
        plain = fetch.coroutine is None or (fetch.plain is not None and not suspends())
        return fetch.plain.answer() if plain else await fetch.coroutine.answer()

    fetch = driver.decorate(fetched, listener=put)
    first, second = driver.call(ask), driver.call(ask)
    assert (first.value, first.served, first.stored) == ("older", "fetch", True)
    assert (second.value, second.served) == ("newer", "hit")
    assert first.cache_status("app").startswith("app; fwd=miss; stored; ttl=")
