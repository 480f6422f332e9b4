"""Keys that cannot be printed, or would fill pages: messages name them all the same, once all is settled."""

import asyncio
import logging

import pytest

from singleflight import (
    FlightDeadlock,
    FlightTimeout,
    KeyedLocks,
    LoggingListener,
    UnhashableKey,
    caches,
    drain,
    report,
    single_flight_ttl,
)

from ..drivers import LoopThread
from .conftest import assert_quiet

PATIENCE = 10.0
NAMED = "<Row, whose repr raised RuntimeError>"


class Row:
    """A row of a database after its session was closed."""

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return hash(self.number)

    def __eq__(self, other):
        return isinstance(other, Row) and other.number == self.number

    def __repr__(self):
        raise RuntimeError("not bound to a session")


class Rude(Row):
    """Its repr is past `except Exception`."""

    def __repr__(self):
        raise SystemExit(3)


@pytest.fixture
def loop():
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.mark.parametrize("bulk", [False, True], ids=["single", "bulk"])
def test_a_flight_of_such_a_key_that_takes_too_long(loop, bulk):
    """The leader's caller gets FlightTimeout, its follower another flight's value; then all is quiet."""
    runs = []

    @single_flight_ttl(ttl=60, flight_timeout=0.1)
    async def load(row):
        runs.append(row)
        await asyncio.sleep(60 if len(runs) == 1 else 0)
        return "row"

    @load.bulk
    async def load_all(rows):
        runs.append(rows)
        await asyncio.sleep(60 if len(runs) == 1 else 0)
        return dict.fromkeys(rows, "row")

    async def main():
        first = load_all([Row(1), Row(2)]) if bulk else load(Row(1))
        both = [asyncio.create_task(first), asyncio.create_task(load(Row(1)))]
        _, pending = await asyncio.wait(both, timeout=PATIENCE)
        assert not pending, "a caller waits for ever"
        assert await drain(timeout=PATIENCE) is True
        return [task.exception() or task.result() for task in both]

    timed_out, value = loop.run(main)
    assert type(timed_out) is FlightTimeout
    assert NAMED in str(timed_out)
    assert str(timed_out).endswith("took longer than 0.1 s: cancelled")
    assert value == "row"
    assert loop.reports == []
    assert_quiet(load)


def test_a_repr_that_ends_the_program(loop):
    """Even then the flight has ended before its message is made, and nobody waits."""
    runs = []

    @single_flight_ttl(ttl=60, flight_timeout=0.1)
    async def load(row):
        runs.append(row)
        await asyncio.sleep(60 if len(runs) == 1 else 0)
        return "row"

    async def main():
        both = [asyncio.create_task(load(Rude(1))) for _ in range(2)]
        _, pending = await asyncio.wait(both, timeout=PATIENCE)
        assert not pending, "a caller waits for ever"
        return [task.exception() or task.result() for task in both]

    outcome = loop.start(main).outcome()
    assert_quiet(load)
    assert [type(each) for each in outcome] == [FlightTimeout, str]


def test_what_one_looks_at():
    """`report`, `flights`, `explain`, `entry` and their `repr` and `str` name such a key."""
    seen = []

    @single_flight_ttl(ttl=60)
    def load(row):
        (flight,) = load.flights()
        seen.append((str(flight), repr(flight), report(), str(load.explain(row)), repr(load.explain(row))))
        return row

    load(Row(1))
    load(Row(1))
    seen.append((str(load.explain(Row(1))), repr(load.entry(Row(1))), repr(load.explain(Row(1)))))
    assert all(NAMED in text for texts in seen for text in texts)
    assert load in caches()


def test_what_callers_are_told():
    """FlightDeadlock, FlightTimeout and UnhashableKey arrive as what they are, and name the key."""

    @single_flight_ttl(ttl=60)
    def load(row):
        return load(row)

    with pytest.raises(FlightDeadlock, match=NAMED):
        load(Row(1))

    locks = KeyedLocks()
    with locks(Row(1)):
        with pytest.raises(FlightDeadlock, match=NAMED), locks(Row(1)):
            pass

    @single_flight_ttl(ttl=60, key=lambda row: [row])
    def keyed(row):
        return row

    with pytest.raises(UnhashableKey, match=NAMED):
        keyed(Row(1))
    assert_quiet(load, keyed)


def test_events_and_log_lines(caplog):
    """Log lines and events name such a key, and a failing renewal is told with it."""
    caplog.set_level(logging.DEBUG, logger="singleflight")
    events = []

    @single_flight_ttl(ttl=60, listener=events.append)
    def load(row):
        return row

    load(Row(1))
    listener = LoggingListener()
    for event in events:
        listener(event)
        assert NAMED in repr(event)
    assert all(NAMED in line for line in caplog.messages)
    assert len(caplog.messages) >= 2 * len(events)


@pytest.mark.parametrize("make", [lambda: list(range(10**6)), lambda: ["x" * 10**6]], ids=["list", "string"])
def test_messages_have_bounds(make):
    """However long a key or an argument is, a message holds at most 200 characters of it."""

    @single_flight_ttl(ttl=60, key=lambda rows: rows)
    def keyed(rows):
        return rows

    @single_flight_ttl(ttl=60)
    def load(rows):
        return load(rows)

    with pytest.raises(UnhashableKey) as unhashable:
        keyed(make())
    with pytest.raises(FlightDeadlock) as deadlock:
        load(tuple(make()))
    with pytest.raises(TypeError) as text:
        load.bulk(lambda rows: {})(str(make()))
    locks = KeyedLocks()
    with pytest.raises(UnhashableKey) as lock:
        locks(make())
    for raised in (unhashable, deadlock, text, lock):
        assert len(str(raised.value)) < 700
