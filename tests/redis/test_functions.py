"""Decorated functions with `store=`: each store of these tests is a process of its own to the server."""

import asyncio
import os
import threading

import pytest

from singleflight import FlightDeadlock, FlightTimeout, Unchanged, single_flight_ttl
from singleflight.redis import RemoteFailure

from ..drivers import PATIENCE, until
from .fleets import LEASE, Loads, called, start, waits_elsewhere

COLOURS = ["threads", "tasks"]


@pytest.fixture(params=COLOURS)
def other(request):
    return request.param


def test_one_process_calls_and_the_other_waits_for_it(fleet, pool, colour, other):
    """Both receive the value of the one call, and the second names the process that it waits for."""
    body = Loads()
    a, b = fleet(body, colour), fleet(body, other)
    body.gate.clear()
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    second = start(pool, b, "ASML")
    flight = waits_elsewhere(b)
    assert flight.leader.startswith("process ")
    body.gate.set()
    assert (first.result(PATIENCE), second.result(PATIENCE)) == (984.75, 984.75)
    assert body.calls == ["ASML"]
    one, two = a.stats(), b.stats()
    assert (one.calls, one.fetches, one.shared_hits, one.shared_waits) == (1, 1, 0, 0)
    assert (two.calls, two.fetches, two.shared_hits, two.shared_waits) == (0, 1, 0, 1)
    assert called(b, "ASML") == 984.75
    assert b.stats().hits == 1


def test_what_another_process_has_stored_is_found(fleet, colour, other):
    """It is a fetch that executes nothing, and a hit from then on."""
    body = Loads()
    a, b = fleet(body, colour), fleet(body, other)
    assert called(a, "ASML") == called(b, "ASML") == called(b, "ASML") == 984.75
    assert body.calls == ["ASML"]
    stats = b.stats()
    assert (stats.fetches, stats.calls, stats.hits, stats.shared_hits) == (1, 0, 1, 1)


def test_different_keys_are_different_flights(fleet):
    """One process does not hold up another one for another key."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert (a("ASML"), b("SAP"), b("ASML"), a("SAP")) == (1, 2, 1, 2)


def test_a_failing_function_runs_as_often_as_in_one_process(fleet, pool, colour):
    """Twice for six processes; all but the two that ran it receive what was told of the second call."""
    body = Loads(lambda n: ValueError(f"call {n}"))
    body.gate.clear()
    processes = [fleet(body, colour) for _ in range(6)]
    first = start(pool, processes[0], "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    others = [start(pool, each, "ASML") for each in processes[1:]]
    for each in processes[1:]:
        waits_elsewhere(each)
    body.gate.set()
    assert str(first.exception(PATIENCE)) == "call 1"
    errors = [each.exception(PATIENCE) for each in others]
    assert body.calls == ["ASML"] * 2
    own = [error for error in errors if type(error) is ValueError]
    told = [error for error in errors if type(error) is RemoteFailure]
    assert len(own) == 1
    assert str(own[0]) == "call 2"
    assert len(told) == 4
    assert {(error.type_name, error.message, error.__cause__) for error in told} == {
        ("builtins.ValueError", "call 2", None)
    }
    stats = [each.stats() for each in processes]
    assert sum(each.failures for each in stats) == 2
    assert sum(each.errors for each in stats) == 6


def test_none_is_shared_and_not_stored(fleet, pool):
    """Under the same budget: it runs twice for those who wait, and again for the next caller."""
    body = Loads(lambda n: None)
    body.gate.clear()
    processes = [fleet(body) for _ in range(4)]
    first = start(pool, processes[0], "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    others = [start(pool, each, "ASML") for each in processes[1:]]
    for each in processes[1:]:
        waits_elsewhere(each)
    body.gate.set()
    assert [each.result(PATIENCE) for each in (first, *others)] == [None] * 4
    assert len(body.calls) == 2
    assert processes[1]("ASML") is None
    assert len(body.calls) == 3


def test_an_invalidated_value_is_gone_for_all(fleet, colour):
    """The other process's near entry goes by the bus."""
    body = Loads(lambda n: n)
    a, b = fleet(body, colour), fleet(body, colour)
    assert (called(a, "ASML"), called(b, "ASML")) == (1, 1)
    assert a.invalidate("ASML")
    until(lambda: b.entry("ASML") is None)
    assert called(b, "ASML") == 2
    assert called(a, "ASML") == 2


def test_a_flight_from_before_an_invalidation_is_not_stored(fleet, pool):
    """Nor does anybody join it from then on."""
    body = Loads(lambda n: n)
    body.gate.clear()
    a, b = fleet(body), fleet(body)
    old = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    b.invalidate("ASML")
    until(lambda: a.flights()[0].detached)
    new = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    body.gate.set()
    assert {old.result(PATIENCE), new.result(PATIENCE)} == {1, 2} or body.calls == ["ASML"] * 2
    assert len(body.calls) == 2
    value = a("ASML")
    assert b("ASML") == value
    assert len(body.calls) == 2
    assert a.stats().refused == 1


def test_what_is_put_is_put_for_all(fleet):
    """It takes the place of what others have near."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert b("ASML") == 1
    a.put(7, "ASML")
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 7
    assert a("ASML") == 7
    assert len(body.calls) == 1


def test_a_cleared_function_is_cleared_for_all(fleet):
    """All its keys, also those that the clearing process has never seen."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert (b("ASML"), b("SAP")) == (1, 2)
    a.cache_clear()
    until(lambda: b.entry("ASML") is None and b.entry("SAP") is None)
    assert (b("ASML"), a("ASML"), a("SAP")) == (3, 3, 4)


def test_a_tag_is_invalidated_for_all(fleet):
    """Also what this process has never seen; other entries stay."""
    body = Loads(lambda n: n)
    a, b, c = (fleet(body, tags=lambda landing: [landing.key[0].lower()]) for _ in range(3))
    assert (b("ASML"), b("SAP")) == (1, 2)
    a.invalidate_tag("asml")
    until(lambda: b.entry("ASML") is None)
    assert b.entry("SAP") is not None
    assert (c("SAP"), c("ASML"), b("ASML")) == (2, 3, 3)


def test_refresh_calls_whatever_is_stored(fleet):
    """And the others see the new value."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert (a("ASML"), b("ASML")) == (1, 1)
    assert a.refresh("ASML") == 2
    until(lambda: b("ASML") == 2)
    assert len(body.calls) == 2


def test_a_newer_value_of_another_process_is_looked_for_by_the_next_read(fleet):
    """What is near stays until then; so does a failure, for as long as it is stored."""
    body, now = Loads(lambda n: ValueError("no price") if n == 2 else n), [0.0]
    options = {"failure_ttl": 60, "follower_retries": 0, "timer": lambda: now[0]}
    a, b = fleet(body, **options), fleet(body, **options)
    assert (a("ASML"), b("ASML")) == (1, 1)
    [near] = b._self_cache.store.records()
    for each in (a, b):
        with pytest.raises((ValueError, RemoteFailure), match="no price"):
            each("SAP")
    now[0] = 5.0
    assert a.refresh("SAP") == 3
    assert a.refresh("ASML") == 4
    until(lambda: near.refresh_at == 5.0)
    assert b.entry("ASML").value == 1
    with pytest.raises(RemoteFailure, match="no price"):
        b("SAP")
    until(lambda: b("ASML") == 4)
    assert b.stats().calls == 0


def test_a_value_that_cannot_be_weighed_fails_the_call(fleet, colour):
    """As in the process that loaded it; where that is stored, others invalidate it as any failure."""

    def weigh(value):
        raise ValueError(f"how heavy is {value}?")

    body, asked = Loads(lambda n: n), []
    failures = {"failure_ttl": lambda error: (asked.append(error), 60)[1], "follower_retries": 0}
    a, b = fleet(body), fleet(body, colour, terms={"near_ttl": 20}, weigh=weigh, **failures)
    assert called(a, "ASML") == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="how heavy is 1"):
            called(b, "ASML")
    assert (len(asked), body.calls) == (1, ["ASML"])
    [failure] = b._self_cache.store.records()
    a.invalidate("ASML")
    until(lambda: b._self_cache.store.records() == [])
    with pytest.raises(ValueError, match="how heavy is 2"):
        called(b, "ASML")
    assert failure.ttl == 20


def test_a_stale_value_is_renewed_by_one_process(fleet, pool):
    """The others serve theirs meanwhile, and find the new one then."""
    body = Loads(lambda n: n)
    now = [0.0]
    a, b = (fleet(body, ttl=10, grace=50, timer=lambda: now[0], terms={"near_ttl": 100}) for _ in range(2))
    assert (a("ASML"), b("ASML")) == (1, 1)
    assert body.entered.acquire(timeout=PATIENCE)
    body.gate.clear()
    now[0] = 11.0
    assert a("ASML") == 1
    assert body.entered.acquire(timeout=PATIENCE)
    assert b("ASML") == 1
    until(lambda: not b.flights())
    assert b("ASML") == 1
    body.gate.set()
    until(lambda: a("ASML") == 2)
    until(lambda: b("ASML") == 2)
    assert len(body.calls) == 2
    assert b.stats().calls == 0


def test_a_cycle_over_two_processes_is_an_error(fleet, pool):
    """At least one of them gets `FlightDeadlock`, which names the keys; both end."""
    barrier = threading.Barrier(2)

    def body_of(which):
        def body(symbol):
            if symbol == which[0]:
                barrier.wait(PATIENCE)
            return processes[which[0]](which[1])

        return body

    processes = {"A": fleet(body_of("AB")), "B": fleet(body_of("BA"))}
    calls = [start(pool, processes[key], key) for key in "AB"]
    errors = [each.exception(PATIENCE) for each in calls]
    assert any(isinstance(error, FlightDeadlock) for error in errors)
    assert all(error is not None for error in errors)
    assert "'A'" in str(errors)
    assert "'B'" in str(errors)


def test_a_caller_waits_for_another_process_as_long_as_it_may(fleet, pool):
    """Then it alone gets `FlightTimeout`."""
    body = Loads()
    body.gate.clear()
    a, b = fleet(body), fleet(body, wait_timeout=0.05)
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    with pytest.raises(FlightTimeout):
        b("ASML")
    body.gate.set()
    assert first.result(PATIENCE) == 984.75
    assert body.calls == ["ASML"]
    assert b.stats().timeouts == 1


def test_the_processes_of_a_cancelled_leader_go_on(fleet, pool):
    """A task that is cancelled frees its lease; the next process calls."""
    body = Loads()
    body.gate.clear()
    a, b = fleet(body, "tasks"), fleet(body)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    tasks = []

    async def main():
        tasks.append(asyncio.ensure_future(a("ASML")))
        ready.set()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]

    running = pool.submit(loop.run_until_complete, main())
    assert ready.wait(PATIENCE)
    assert body.entered.acquire(timeout=PATIENCE)
    second = start(pool, b, "ASML")
    waits_elsewhere(b)
    loop.call_soon_threadsafe(tasks[0].cancel)
    running.result(PATIENCE)
    assert body.entered.acquire(timeout=PATIENCE)
    body.gate.set()
    assert second.result(PATIENCE) == 984.75
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_unchanged_keeps_the_value_that_is_near(fleet):
    """It lands anew, for all."""
    body = Loads(lambda n: 1 if n == 1 else Unchanged)
    a, b = fleet(body), fleet(body)
    assert a("ASML") == 1
    assert a.refresh("ASML") == 1
    assert b("ASML") == 1
    assert len(body.calls) == 2


def explained(function, colour, *args):
    """What the server would answer, asked for in a thread or in a task."""
    if colour == "threads":
        return function.explain_fleet(*args)

    async def main():
        return await function.explain_fleet(*args)

    return asyncio.run(main())


def test_the_server_explains_what_it_would_answer(fleet, pool, colour):
    """Before, during and after a flight of another process; on an event loop it is awaited."""
    body = Loads()
    a, b = fleet(body), fleet(body)
    would = explained(b, colour, "ASML")
    assert (would.would, would.key, would.left, would.leader) == ("fetch", ("ASML",), 0.0, None)
    assert "would be fetched" in str(would)
    body.gate.clear()
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    would = explained(b, colour, "ASML")
    assert (would.would, would.key) == ("shared_wait", ("ASML",))
    assert 0 < would.left <= LEASE
    assert f"process {os.getpid()} on " in str(would)
    body.gate.set()
    first.result(PATIENCE)
    would = explained(b, colour, "ASML")
    assert (would.would, would.key, would.leader) == ("shared_hit", ("ASML",), None)
    assert 50 < would.left <= 60
    assert b.stats().fetches == 0


def test_only_functions_with_a_store_explain_what_the_server_would_answer():
    """The error says what is missing."""

    @single_flight_ttl(ttl=60)
    def alone():
        return 1

    with pytest.raises(TypeError, match="no store="):
        alone.explain_fleet()


def test_what_was_cleared_is_explained_as_it_is_by_now(fleet, colour):
    """A process that has heard of no epoch asks for it."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert a("SAP") == 1
    a.cache_clear()
    assert a("ASML") == 2
    assert explained(b, colour, "SAP").would == "fetch"
    assert explained(b, colour, "ASML").would == "shared_hit"
