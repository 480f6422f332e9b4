"""Failures, retries and aborts: who sees them, and who flies again."""

import asyncio
import itertools

import pytest

from singleflight.testing import Recorder


def herd(driver, run, callers, **options):
    """A leader held at a gate with `callers - 1` followers, then released."""
    seen, gate = Recorder(), driver.gate()

    async def fetch():
        await gate
        return run()

    fetch = driver.decorate(fetch, listener=seen, **options)
    driver.start(fetch)
    seen.wait_for("fetch")
    driver.start(fetch, count=callers - 1)
    seen.wait_for("wait", callers - 1)
    gate.set()
    return fetch, driver.outcomes()


@pytest.mark.parametrize(("retries", "calls"), [(0, 1), (1, 2), (3, 4), (None, 20)])
def test_a_failing_function_runs_as_often_as_its_budget_says(driver, retries, calls):
    """With N callers a failing function runs 1 + follower_retries times; with None once for each."""
    numbers = itertools.count()

    def fail():
        raise ValueError(next(numbers))

    fetch, outcomes = herd(driver, fail, 20, follower_retries=retries)
    assert next(numbers) == calls
    assert {type(outcome) for outcome in outcomes} == {ValueError}
    stats = fetch.stats()
    assert (stats.errors, stats.failures, stats.entries) == (20, calls, 0)
    assert stats.locks == stats.idle_locks


@pytest.mark.parametrize(("retries", "calls"), [(0, 1), (1, 2), (3, 4), (None, 20)])
def test_a_refused_value_spends_the_same_budget(driver, retries, calls):
    """A value that cache_if refuses is tried again as a failure is."""
    ran = []
    fetch, outcomes = herd(driver, lambda: ran.append(1), 20, follower_retries=retries)
    assert len(ran) == calls
    assert outcomes == [None] * 20
    stats = fetch.stats()
    assert (stats.fetches, stats.waits, stats.calls) == (calls, 20 - calls, calls)


def test_the_first_success_ends_the_chain(driver):
    """When a retry succeeds, everybody who still waits gets its value."""
    numbers = itertools.count(1)

    def run():
        if (number := next(numbers)) < 3:
            raise ValueError(number)
        return number

    fetch, outcomes = herd(driver, run, 10, follower_retries=None)
    assert sum(isinstance(outcome, ValueError) for outcome in outcomes) == 2
    assert outcomes.count(3) == 8
    assert fetch.stats().calls == 3


def test_a_failure_is_shared_by_copies(driver):
    """Each follower gets a copy with the same type, args, attributes, notes and cause; none is stored."""

    def fail():
        error = OSError(2, "gone", "file.txt")
        error.extra = [1]
        error.add_note("a note")
        raise error from KeyError("cause")

    fetch, outcomes = herd(driver, fail, 10, follower_retries=0)
    assert len(set(map(id, outcomes))) == 10
    for error in outcomes:
        assert (type(error), error.args, error.filename) == (FileNotFoundError, (2, "gone"), "file.txt")
        assert (error.extra, error.__notes__) == ([1], ["a note"])
        assert isinstance(error.__cause__, KeyError)
        traceback, names = error.__traceback__, []
        while traceback is not None:
            names.append(traceback.tb_frame.f_code.co_name)
            traceback = traceback.tb_next
        assert names[-1] == "fail"
        assert names.count("fail") == 1
        assert len(names) < 15
    assert fetch.entry() is None
    with pytest.raises(FileNotFoundError):
        driver.call(fetch)
    assert fetch.stats().calls == 2


def test_a_newcomer_inherits_what_is_left_of_the_budget(driver):
    """Who joins the chain's last flight shares its failure instead of starting another."""
    gates, seen, numbers = [driver.gate(), driver.gate()], Recorder(), itertools.count()

    async def fetch():
        number = next(numbers)
        await gates[number]
        raise ValueError(number)

    fetch = driver.decorate(fetch, follower_retries=1, listener=seen)
    driver.start(fetch, count=2)
    seen.wait_for("wait")
    gates[0].set()
    seen.wait_for("fetch", 2)
    driver.start(fetch, count=3)
    seen.wait_for("wait", 4)
    gates[1].set()
    outcomes = driver.outcomes()
    assert [outcome.args for outcome in outcomes[2:]] == [(1,)] * 3
    assert next(numbers) == 2


@pytest.mark.parametrize("option", ["ttl", "cache_if"])
def test_what_a_callable_option_raises_is_the_flights_failure(driver, option):
    """An exception of ttl or cache_if is raised to everybody, nothing is stored, and the key is free."""

    def refuse(_):
        raise LookupError(option)

    fetch, outcomes = herd(driver, lambda: 1, 4, follower_retries=0, **{option: refuse})
    assert [outcome.args for outcome in outcomes] == [(option,)] * 4
    assert {type(outcome) for outcome in outcomes} == {LookupError}
    stats = fetch.stats()
    assert (stats.failures, stats.errors, stats.entries) == (1, 4, 0)
    assert fetch.flights() == ()
    with pytest.raises(LookupError):
        driver.call(fetch)


def test_a_key_that_raises_makes_no_flight(driver):
    """An exception of the key function reaches its caller alone; no flight was made."""

    def key(symbol):
        if symbol == "bad":
            raise LookupError(symbol)
        return symbol

    async def fetch(symbol):
        return symbol

    fetch = driver.decorate(fetch, key=key)
    with pytest.raises(LookupError):
        driver.call(fetch, "bad")
    assert fetch.stats().calls == 0
    assert driver.call(fetch, "good") == "good"


ABORTS = [KeyboardInterrupt, SystemExit, asyncio.CancelledError]


@pytest.mark.parametrize("kind", ABORTS)
def test_an_abort_reaches_nobody_else(driver, kind):
    """An abort of the function is its own caller's; a follower takes over and the rest share its value."""
    numbers = itertools.count()

    def run():
        if next(numbers) == 0:
            raise kind
        return 7

    fetch, outcomes = herd(driver, run, 6, follower_retries=0)
    assert isinstance(outcomes[0], kind)
    assert outcomes[1:] == [7] * 5
    stats = fetch.stats()
    assert (stats.calls, stats.failures, stats.errors, stats.waits, stats.fetches) == (2, 0, 1, 4, 1)


@pytest.mark.parametrize("aborts", [1, 3])
@pytest.mark.parametrize("kind", [*ABORTS, GeneratorExit])
def test_aborts_spend_nothing(driver, kind, aborts):
    """However many leaders are aborted, somebody takes over each time, also without any retries."""
    numbers = itertools.count()

    def run():
        if (number := next(numbers)) < aborts:
            raise kind
        return number

    fetch, outcomes = herd(driver, run, 8, follower_retries=0)
    assert sum(isinstance(outcome, kind) for outcome in outcomes) == aborts
    assert outcomes.count(aborts) == 8 - aborts
    assert (fetch.stats().calls, fetch.stats().failures) == (aborts + 1, 0)


@pytest.mark.parametrize("kind", ABORTS)
def test_an_abort_without_followers_leaves_the_key_free(driver, kind):
    """The next caller fetches, and nothing is left in the registry."""
    numbers = itertools.count()

    async def fetch():
        if next(numbers) == 0:
            raise kind
        return 1

    fetch = driver.decorate(fetch, max_idle_locks=0)
    with pytest.raises(kind):
        driver.call(fetch)
    assert (fetch.flights(), len(fetch.locks)) == ((), 0)
    assert driver.call(fetch) == 1


def test_an_abort_of_cache_if_is_an_abort(driver):
    """What is no Exception frees the key and reaches the leader's caller alone."""
    numbers = itertools.count()

    def cache_if(value):
        if next(numbers) == 0:
            raise SystemExit
        return True

    _, outcomes = herd(driver, lambda: 7, 4, follower_retries=0, cache_if=cache_if)
    assert isinstance(outcomes[0], SystemExit)
    assert outcomes[1:] == [7] * 3


def test_a_retry_from_the_handler_gets_a_new_flight(driver):
    """A call from inside a failed call's handler starts afresh."""
    numbers = itertools.count()

    async def fetch():
        if next(numbers) == 0:
            raise ValueError
        return 5

    async def ask():
        try:
            return await fetch()
        except ValueError:
            return await fetch()

    fetch = driver.decorate(fetch)
    assert driver.call(ask) == 5
