"""fleet: with `store=RedisStore(...)`, what all processes may rely on that have the function."""

import os
import select
import signal
import threading
from contextlib import suppress

import pytest

from singleflight import FlightDeadlock
from singleflight.redis import RemoteFailure, UnportableValue

from ..drivers import PATIENCE, until
from ..redis.fleets import Fleet, Loads, called, start, waits_elsewhere


@pytest.fixture(params=["threads", "tasks"])
def colour(request):
    return request.param


def test_many_processes_make_one_call(fleet, pool, colour):
    """However many processes ask for a key at once, one runs the function, and all get its value."""
    body = Loads()
    body.gate.clear()
    processes = [fleet(body, colour) for _ in range(5)]
    first = start(pool, processes[0], "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    others = [start(pool, each, "ASML") for each in processes[1:]]
    for each in processes[1:]:
        waits_elsewhere(each)
    body.gate.set()
    assert [call.result(PATIENCE) for call in (first, *others)] == [984.75] * 5
    assert body.calls == ["ASML"]


def test_a_later_process_finds_the_value(fleet, colour):
    """A process that comes later is served what another one has stored, and does not run the function."""
    body = Loads()
    assert called(fleet(body, colour), "ASML") == called(fleet(body, colour), "ASML") == 984.75
    assert body.calls == ["ASML"]


def test_a_failing_function_runs_twice_for_the_fleet(fleet, pool, colour):
    """`follower_retries` counts for all processes together; the others raise what they are told of."""
    body = Loads(lambda n: ValueError(f"call {n}"))
    body.gate.clear()
    processes = [fleet(body, colour) for _ in range(4)]
    first = start(pool, processes[0], "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    others = [start(pool, each, "ASML") for each in processes[1:]]
    for each in processes[1:]:
        waits_elsewhere(each)
    body.gate.set()
    errors = [call.exception(PATIENCE) for call in (first, *others)]
    assert len(body.calls) == 2
    assert sorted(type(error).__name__ for error in errors) == ["RemoteFailure"] * 2 + ["ValueError"] * 2
    assert {error.message for error in errors if isinstance(error, RemoteFailure)} == {"call 2"}


class Child:
    """A process of its own that calls a function, whose body says so and waits until it is told to go on."""

    def __init__(self, price):
        self._told, self._tells = os.pipe(), os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.write(self._tells[1], str(price("ASML")).encode())
            finally:
                os._exit(0)

    def body(self, symbol):
        """Run by the child alone."""
        os.write(self._tells[1], b"!")
        os.read(self._told[0], 1)
        return 1

    def hear(self):
        """Wait for the next word of the child."""
        assert select.select([self._tells[0]], [], [], PATIENCE)[0]
        return os.read(self._tells[0], 100).decode()

    def go_on(self):
        os.write(self._told[1], b"!")

    def end(self):
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        for end in (*self._told, *self._tells):
            os.close(end)


@pytest.fixture
def child(fleet):
    """Such a process, in its call, and a function of this process under the same name."""
    body = Loads(2)
    here = os.getpid()
    ours = fleet(lambda symbol: body(symbol) if os.getpid() == here else made[0].body(symbol), lease=0.3)
    made = [Child.__new__(Child)]
    made[0].__init__(ours)
    try:
        assert made[0].hear() == "!"
        yield made[0], ours
    finally:
        made[0].end()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_is_gone_is_replaced_when_its_lease_ends(child, pool):
    """Nobody waits for a process that was killed for longer than until its lease ends."""
    process, price = child
    waiting = start(pool, price, "ASML")
    waits_elsewhere(price)
    os.kill(process.pid, signal.SIGKILL)
    assert waiting.result(PATIENCE) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_comes_after_its_lease_is_not_stored(child, fleet):
    """A process that was paused for too long has its value for its own callers; the newer one stays."""
    process, price = child
    os.kill(process.pid, signal.SIGSTOP)
    assert price("ASML") == 2
    os.kill(process.pid, signal.SIGCONT)
    process.go_on()
    assert process.hear() == "1"
    assert called(fleet(Loads(3)), "ASML") == 2


def test_what_is_dropped_in_one_process_is_dropped_in_all(fleet, colour):
    """After `invalidate`, `put` and `cache_clear` no process goes on serving what it has near."""
    body = Loads(lambda n: n)
    a, b = fleet(body, colour), fleet(body, colour)
    assert called(a, "ASML") == called(b, "ASML") == 1
    a.invalidate("ASML")
    until(lambda: b.entry("ASML") is None)
    assert called(b, "ASML") == 2
    a.put(7, "ASML")
    until(lambda: b.entry("ASML") is None)
    assert called(b, "ASML") == 7
    a.cache_clear()
    until(lambda: b.entry("ASML") is None)
    assert called(b, "ASML") == 3


def test_without_a_server_each_process_works_alone(own_server, colour):
    """No error of the server reaches a caller, and no caller waits for it once it is known to be away."""
    fleet = Fleet(own_server.url)
    try:
        body = Loads(lambda n: n)
        a, b = fleet(body, colour), fleet(body, colour)
        assert (called(a, "A"), called(b, "A")) == (1, 1)
        own_server.kill()
        assert called(a, "B") + called(b, "B") == 5
        assert (called(a, "B"), len(body.calls)) == (a.entry("B").value, 3)
    finally:
        fleet.close()


def test_a_cycle_over_processes_is_an_error(fleet, pool):
    """Flights of two processes that would wait for each other raise `FlightDeadlock`, naming the keys."""
    barrier = threading.Barrier(2)

    def body_of(own, other):
        def body(symbol):
            if symbol == own:
                barrier.wait(PATIENCE)
            return processes[own](other)

        return body

    processes = {"A": fleet(body_of("A", "B")), "B": fleet(body_of("B", "A"))}
    errors = [start(pool, processes[key], key).exception for key in "AB"]
    assert any(isinstance(error(PATIENCE), FlightDeadlock) for error in errors)


def test_no_value_comes_back_as_something_else(fleet):
    """What would change its type on the way raises at the first landing; nothing is pickled."""
    with pytest.raises(UnportableValue, match="annotate"):
        fleet(Loads((1, 2)))("ASML")
    a, b = fleet(Loads({"bid": 1, "ask": None})), fleet(Loads())
    assert a("ASML") == b("ASML") == {"bid": 1, "ask": None}


def test_a_hit_asks_no_server(fleet, direct):
    """What is near is served without a word to the server, for at most `near_ttl`."""
    body = Loads()
    now = [0.0]
    price = fleet(body, timer=lambda: now[0], terms={"near_ttl": 5})
    assert price("ASML") == 984.75
    asked = direct.info("stats")["total_commands_processed"]
    for _ in range(100):
        price("ASML")
    # Of the keeper, the bus and this test.
    assert direct.info("stats")["total_commands_processed"] - asked < 20
    now[0] = 6.0
    assert price("ASML") == 984.75
    assert price.stats().shared_hits == 1
    assert body.calls == ["ASML"]
