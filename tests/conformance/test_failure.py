"""failure: which callers see an exception, how often it is tried again, and that nothing is left behind."""

import asyncio
import functools
import gc
import itertools
import traceback
import weakref

import pytest

from singleflight import FlightDeadlock, FlightTimeout, single_flight_ttl
from singleflight.testing import FakeClock

from .conftest import outcomes

CALLERS = 8
ABORTS = [KeyboardInterrupt, SystemExit, asyncio.CancelledError]


def failing(one, error):
    """What `CALLERS` callers get whose first run is held until all are there, and then raises."""
    gate = one.hold(0, error)
    callers = one.herd(CALLERS)
    gate.set()
    return outcomes(callers)


def test_an_error_is_shared_with_its_followers_and_not_stored(scene):
    """Callers that waited for a run that fails get its error; the next caller runs again."""
    one = scene(follower_retries=0)
    got = failing(one, ValueError("down"))
    assert [(type(error), error.args) for error in got] == [(ValueError, ("down",))] * CALLERS
    assert one.runs == 1
    assert one.call() == 1


@pytest.mark.parametrize("abort", [*ABORTS, BaseException, GeneratorExit])
def test_a_leader_that_panics_leaves_nobody_waiting(scene, abort):
    """Whatever ends the leader, every follower returns too, with a value of another run."""
    one = scene(follower_retries=0)
    first, *others = failing(one, abort())
    assert type(first) is abort
    assert others == [1] * (CALLERS - 1)


@pytest.mark.parametrize("abort", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_leader_frees_its_followers(scene, abort):
    """Only the leader gets `KeyboardInterrupt` and `SystemExit`; a follower takes over, retries or not.

    Elsewhere: some libraries raise it in the followers, too.
    """
    one = scene(follower_retries=0)
    one.script[1] = [abort()]
    got = failing(one, abort())
    assert [type(outcome) for outcome in got].count(abort) == 2
    assert got.count(2) == CALLERS - 2
    assert one.clean()


def test_a_factory_that_raises_before_it_returns_an_awaitable(loops):
    """If calling the coroutine function itself raises, the caller gets that and the key is free."""
    broken = [True]

    class Factory(functools.partial):
        def __call__(self):
            if broken:
                raise ValueError("no coroutine")
            return super().__call__()

    async def body():
        return 1

    fetch, loop = single_flight_ttl(ttl=60)(Factory(body)), loops()
    with pytest.raises(ValueError, match="no coroutine"):
        loop.run(fetch)
    assert fetch.flights() == ()
    broken.clear()
    assert loop.run(fetch) == 1


def test_every_follower_has_a_traceback_of_its_own(scene):
    """Each follower gets a copy of the exception, whose short traceback ends where the function raised.

    Elsewhere: one object is raised in all of them, and its traceback grows with each.
    """
    got = failing(scene(follower_retries=0), OSError(2, "gone"))
    assert len({id(error) for error in got}) == CALLERS
    for error in got:
        frames = traceback.extract_tb(error.__traceback__)
        raised = [frame for frame in frames if (frame.name, frame.line) == ("fetch", "raise step")]
        assert raised == [frames[-1]]
        assert len(frames) < 15


def test_cause_context_and_notes_survive(driver, scene):
    """A follower's copy has the type, args, attributes, cause, context and notes of the exception."""
    error = OSError(2, "gone", "file.txt")
    error.code = 7
    error.add_note("a note")
    error.__context__ = LookupError("context")
    error.__cause__ = KeyError("cause")
    for got in failing(scene(follower_retries=0), error):
        assert (type(got), got.args, got.filename, got.code) == (
            FileNotFoundError,
            (2, "gone"),
            "file.txt",
            7,
        )
        assert got.__notes__ == ["a note"]
        assert isinstance(got.__cause__, KeyError)
        assert isinstance(got.__context__, LookupError)


def test_a_failure_leaves_no_reference_cycle():
    """Objects that a failing function held are freed with its exception, without the collector."""

    class Held:
        pass

    held = []

    @single_flight_ttl(ttl=60)
    def fetch():
        local = Held()
        held.append(weakref.ref(local))
        raise ValueError

    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(ValueError):
                fetch()
            assert held.pop()() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(("retries", "runs"), [(0, 1), (1, 2), (3, 4), (None, 8)])
def test_waiters_on_a_failure_are_no_convoy(scene, retries, runs):
    """A failing function with N callers runs `1 + follower_retries` times, twice by default, not N times.

    Elsewhere: cachetools with `condition=` runs it once for each waiter, one after another.
    """
    one = scene(follower_retries=retries)
    one.script = {number: [ValueError(number)] for number in range(20)}
    got = failing(one, ValueError(0))
    assert {type(error) for error in got} == {ValueError}
    assert one.runs == runs


def test_the_first_success_ends_the_retries(scene):
    """When a retry succeeds, all callers that still wait get its value, and it is stored."""
    one = scene(follower_retries=5)
    one.script[1] = [ValueError()]
    got = failing(one, ValueError())
    assert got.count(2) == CALLERS - 2
    assert one.call() == 2


def test_a_newcomer_inherits_what_is_left_of_the_retries(scene):
    """A caller that joins a chain of retries shares its last failure; a call after the chain starts anew."""
    one = scene(follower_retries=1)
    first, second = one.hold(0, ValueError(0)), one.hold(1, ValueError(1))
    callers = one.herd(2)
    first.set()
    one.executions.wait_for(2)
    callers += one.join(count=3)
    second.set()
    assert [error.args for error in outcomes(callers)[2:]] == [(1,)] * 3
    assert one.runs == 2
    assert one.call() == 2


def test_a_retry_from_the_handler_is_a_new_flight(driver, scene):
    """Calling again while the failure is being handled runs the function again."""
    one = scene()
    one.script[0] = [ValueError()]

    async def ask():
        try:
            return await one.fetch()
        except ValueError:
            return await one.fetch()

    assert driver.call(ask) == 1


ENDS = {
    "value": ([5], {}),
    "refused": ([None], {}),
    "error": ([ValueError()], {}),
    "interrupt": ([KeyboardInterrupt()], {}),
    "ttl raises": ([], {"ttl": lambda landing: 1 / 0}),
    "cache_if raises": ([], {"cache_if": lambda value: 1 / 0}),
    "wait_timeout": ([], {"wait_timeout": 0}),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_registry_is_empty_after_every_outcome(driver, scene, end):
    """However a run ends, it leaves no flight and no lock."""
    script, options = ENDS[end]
    one = scene(**options, max_idle_locks=0, follower_retries=0)
    gate = one.hold(0, *script)
    callers = [one.ask()]
    if end == "wait_timeout":
        assert isinstance(driver.start(one.fetch).outcome(), FlightTimeout)
    else:
        callers += one.join(count=3)
    gate.set()
    outcomes(callers)
    assert (one.fetch.flights(), len(one.fetch.locks)) == ((), 0)


def test_a_failure_is_never_turned_into_a_value(scene):
    """Every caller of a failing function gets an exception, never None or an older value past its ttl."""
    one = scene()
    assert one.call() == 0
    one.script = {number: [ValueError(number)] for number in range(1, 9)}
    one.clock.advance(60)
    for _ in range(3):
        with pytest.raises(ValueError):
            one.call()
    assert one.fetch.entry() is None


def test_failure_ttl_keeps_exceptions_for_a_while(scene):
    """An exception is stored only for `failure_ttl`, and each caller meanwhile gets a copy."""
    one = scene(failure_ttl=5)
    one.script[0] = [ValueError("down")]
    got = []
    for _ in range(4):
        with pytest.raises(ValueError, match="down") as told:
            one.call()
        got.append(told.value)
    assert (one.runs, len({id(error) for error in got})) == (1, 4)
    one.clock.advance(5)
    assert one.call() == 1


def test_failure_ttl_may_judge_each_exception(scene):
    """A callable `failure_ttl` says for each exception how long it is stored, 0 for not at all."""
    one = scene(failure_ttl=lambda error: 5 if isinstance(error, LookupError) else 0, follower_retries=0)
    one.script |= {0: [OSError("busy")], 1: [LookupError("none")]}
    for error in (OSError, LookupError, LookupError):
        with pytest.raises(error):
            one.call()
    assert one.runs == 2
    one.clock.advance(5)
    assert one.call() == 2


def test_a_fault_of_failure_ttl_hides_no_error(scene):
    """If `failure_ttl` raises or returns no duration, callers get the function's error; the key is free."""
    faults = [lambda error: 1 / 0, lambda error: -1, lambda error: None]
    for fault in faults:
        one = scene(failure_ttl=fault)
        one.script[0] = [OSError("gone")]
        with pytest.raises(OSError, match="gone"):
            one.call()
        assert one.clean()
        assert one.call() == 1


def test_failure_ttl_keeps_no_refused_value(scene):
    """A value that `cache_if` refuses is not stored, whatever `failure_ttl` says."""
    one = scene(failure_ttl=5)
    one.script[0] = [None]
    assert [one.call(), one.call()] == [None, 1]


def test_a_refused_value_spends_the_retries(scene):
    """After a value that `cache_if` refuses callers retry as after a failure; it is shared, not stored."""
    one = scene(cache_if=lambda value: False)
    gate = one.hold(0)
    callers = one.herd(CALLERS)
    gate.set()
    assert sorted(outcomes(callers)) == [0] + [1] * (CALLERS - 1)
    assert (one.runs, one.fetch.stats().uncached, one.fetch.entry()) == (2, 2, None)


@pytest.mark.parametrize("option", ["ttl", "cache_if"])
def test_what_ttl_and_cache_if_raise_is_the_flights_failure(scene, option):
    """An exception of `ttl` or `cache_if` reaches leader and followers, and the key is free."""

    def refuse(_):
        raise LookupError(option)

    one = scene(**{option: refuse, "follower_retries": 0})
    gate = one.hold(0)
    callers = one.herd(4)
    gate.set()
    assert [error.args for error in outcomes(callers)] == [(option,)] * 4
    assert one.clean()


def test_what_key_raises_changes_nothing(driver, scene):
    """An exception of the key function reaches its caller; nothing has run and nothing is counted."""
    one = scene(key=lambda key: 1 / key)
    with pytest.raises(ZeroDivisionError):
        driver.call(one.fetch, 0)
    assert one.runs == one.fetch.stats().errors == 0
    assert driver.call(one.fetch, 1) == 0


@pytest.mark.parametrize("kind", [FlightDeadlock, FlightTimeout])
def test_deadlocks_and_timeouts_are_never_shared_or_stored(scene, kind):
    """Only the leader gets `FlightDeadlock` and `FlightTimeout`; its followers run the function again."""
    one = scene(follower_retries=0, failure_ttl=60)
    first, *others = failing(one, kind("no"))
    assert type(first) is kind
    assert others == [1] * (CALLERS - 1)


def test_each_kind_of_error_can_be_told():
    """Every error of the library is a `SingleFlightError`, and also the matching built-in error."""
    from singleflight import SingleFlightError, UnhashableKey

    for kind, standard in (
        (FlightTimeout, TimeoutError),
        (FlightDeadlock, RuntimeError),
        (UnhashableKey, TypeError),
    ):
        assert issubclass(kind, SingleFlightError)
        assert issubclass(kind, standard)


def test_a_failing_clock_loses_no_key():
    """The caller gets an exception of `timer`, and the next call works."""
    clock, broken = FakeClock(), itertools.count()

    def timer():
        if next(broken) == 0:
            raise OSError("no clock")
        return clock()

    fetch = single_flight_ttl(ttl=60, timer=timer)(lambda: 1)
    with pytest.raises(OSError, match="no clock"):
        fetch()
    assert fetch() == 1
    assert fetch.flights() == ()


class Query:
    """A key that its caller goes on to use."""

    def __init__(self, symbol):
        self.symbol = symbol

    def __hash__(self):
        return hash(self.symbol)

    def __eq__(self, other):
        return isinstance(other, Query) and other.symbol == self.symbol

    def __repr__(self):
        raise ConnectionError("no session")


def test_a_key_that_changes_harms_only_itself(scene):
    """A key that changes after it was passed in is evicted like any other: the limit holds.

    Elsewhere: some libraries outgrow their limit, or raise `KeyError` to callers with other keys.
    """
    one = scene(key=lambda query: query, maxsize=2)
    queries = [Query(symbol) for symbol in "ABCDEFGH"]
    for number, query in enumerate(queries):
        assert one.call(query) == number
        query.symbol = "changed"
    assert one.fetch.stats().entries <= 2
    assert one.call(Query("X")) == one.call(Query("X")) == 8
    assert one.clean()


def test_a_key_that_cannot_be_printed_is_named_all_the_same(scene):
    """Messages use a guarded text of the key, made after the state is settled."""
    one = scene(key=lambda query: query, wait_timeout=0)
    gate = one.hold(0)
    first = one.ask(Query("A"))
    with pytest.raises(FlightTimeout, match="<Query, whose repr raised ConnectionError>"):
        one.call(Query("A"))
    gate.set()
    assert first.outcome() == 0
    assert one.clean()


def test_the_end_of_the_stack_leaves_no_key_taken():
    """A function that calls itself until there is no more stack leaves every key free."""

    @single_flight_ttl(ttl=60)
    def size(level):
        return 1 + size(level + 1)

    with pytest.raises(RecursionError):
        size(0)
    stats = size.stats()
    assert (size.flights(), stats.in_flight, stats.locks) == ((), 0, stats.idle_locks)
