"""What a snapshot holds, and what it does not."""

import asyncio
import json
import threading

import pytest

from singleflight import single_flight_ttl, web
from singleflight.live import snapshot
from singleflight.live.snapshot import MOST_FLIGHTS, MOST_FUNCTIONS
from singleflight.process.registry import report

from ..drivers import PATIENCE, Gate


def of(name, **asked):
    """What is told of the function of this name."""
    (found,) = [function for function in snapshot(**asked)["functions"] if function["name"] == name]
    return found


class Careless:
    """A key or value that must not be looked at, or may raise."""

    looked_at = 0

    def __repr__(self):
        Careless.looked_at += 1
        raise OSError("the session is closed")


def test_its_numbers_are_those_of_stats():
    """Every field of `stats()`, with the sum of the calls received; and it is data that JSON can write."""
    fetch = single_flight_ttl(ttl=60, maxsize=2, name="numbers")(lambda key: 1 // key)
    for key in (1, 1, 2, 3, 3):
        fetch(key)
    with pytest.raises(ZeroDivisionError):
        fetch(0)
    stats = fetch.stats()
    told = of("numbers")
    assert json.loads(json.dumps(told)) == told
    assert told["number_of_entries"] == stats.entries == 2
    for field in ("hits", "waits", "fetches", "errors", "calls", "failures", "evictions", "in_flight"):
        assert told[field] == getattr(stats, field), field
    assert told["received"] == 6
    assert (told["maxsize"], told["hit_rate"]) == (2, stats.hit_rate)
    assert "entries" not in told


def test_functions_of_one_name_have_different_ids():
    """And each keeps its own."""
    functions = [single_flight_ttl(ttl=60, name="one of two")(lambda key: key) for _ in range(2)]
    first, second = ({f["id"] for f in snapshot()["functions"] if f["name"] == "one of two"} for _ in "ab")
    assert len(first) == len(functions)
    assert first == second


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"entries": "x"}, TypeError),
        ({"entries": True}, TypeError),
        ({"entries": 1.5}, TypeError),
        ({"entries": -1}, ValueError),
        ({"entries": 1001}, ValueError),
        ({"entries": 1, "values": "no"}, TypeError),
    ],
)
def test_wrong_arguments(arguments, error):
    """They are named, here as on the page."""
    for ask in (snapshot, lambda **asked: web.page(**asked)):
        with pytest.raises(error, match=rf"^{'values' if len(arguments) == 2 else 'entries'}: expected "):
            ask(**arguments)


def test_flights_are_told_with_leader_and_waiters():
    """The oldest first, twenty at most; the others are counted."""
    gate = Gate()
    entered = threading.Semaphore(0)

    async def fetch(key):
        entered.release()
        await gate

    fetch = single_flight_ttl(ttl=60, key=lambda key: key, name="flights")(fetch)

    async def main():
        calls = [asyncio.ensure_future(fetch(key)) for key in [*range(MOST_FLIGHTS + 3), 0]]
        for _ in range(MOST_FLIGHTS + 3):
            while not entered.acquire(blocking=False):
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        told = of("flights")
        gate.set()
        await asyncio.gather(*calls)
        return told

    told = asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert [flight["key"] for flight in told["flights"]] == [str(key) for key in range(MOST_FLIGHTS)]
    assert told["flights_left_out"] == 3
    first = told["flights"][0]
    assert (first["followers"], first["kind"], first["detached"]) == (1, "call", False)
    assert "flights" in first["leader"]


def test_no_value_is_looked_at_unless_asked():
    """Nor an entry; with `values` each as a short text, and what a `__repr__` raises harms nobody."""
    fetch = single_flight_ttl(ttl=60, name="careless")(lambda key: Careless())
    fetch(1)
    Careless.looked_at = 0
    assert of("careless", entries=5)["entries"][0].keys() == {"key", "age", "ttl", "state", "hits"}
    assert Careless.looked_at == 0
    assert of("careless", entries=5, values=True)["entries"][0]["value"] == (
        "<Careless, whose repr raised OSError>"
    )


def test_keys_and_values_are_short():
    """Two hundred characters each."""
    fetch = single_flight_ttl(ttl=60, name="long")(lambda key: "v" * 10_000)
    fetch("k" * 10_000)
    (entry,) = of("long", entries=5, values=True)["entries"]
    assert len(entry["key"]) <= 200
    assert len(entry["value"]) <= 200


def test_the_entries_with_the_most_hits():
    """As many as asked for."""
    fetch = single_flight_ttl(ttl=None, key=lambda key: key, name="most hits")(lambda key: key)
    for key in range(20):
        for _ in range(key + 1):
            fetch(key)
    entries = of("most hits", entries=3)["entries"]
    assert [(entry["key"], entry["hits"], entry["ttl"]) for entry in entries] == [
        ("19", 19, None),
        ("18", 18, None),
        ("17", 17, None),
    ]


def test_stored_failures_are_shown_as_such():
    """An entry that holds an exception shows it as its value."""

    @single_flight_ttl(ttl=60, failure_ttl=60, name="failing")
    def fetch(key):
        raise OSError("no market")

    with pytest.raises(OSError):
        fetch(1)
    (entry,) = of("failing", entries=3, values=True)["entries"]
    assert entry["value"] == "OSError('no market')"


def test_functions_are_bounded():
    """The busiest are told, the others are counted."""
    made = [
        single_flight_ttl(ttl=60, name=f"bounded {n}")(lambda key: key) for n in range(MOST_FUNCTIONS + 5)
    ]
    for fetch in made[5:]:
        fetch(1)
    told = snapshot()
    names = {function["name"] for function in told["functions"]}
    assert len(told["functions"]) == MOST_FUNCTIONS
    assert told["functions_left_out"] >= 5
    assert not {f"bounded {n}" for n in range(5)} & names


@pytest.mark.parametrize("entries", [-1, 1001])
def test_bad_numbers(entries):
    """They are refused with the name of the argument."""
    with pytest.raises(ValueError, match=r"^entries: "):
        snapshot(entries=entries)


def test_a_function_whose_timer_raises_is_read_without_it():
    """It, and all others, are shown; the report names it, too."""
    broken = []

    def timer():
        if broken:
            raise OSError("no clock")
        return 0.0

    gate = Gate()
    entered = threading.Event()

    def body(key):
        if key == "slow":
            entered.set()
            gate.pass_()
        return key

    fetch = single_flight_ttl(ttl=60, timer=timer, name="without clock")(body)
    other = single_flight_ttl(ttl=60, name="with clock")(lambda key: key)
    fetch("ASML")
    other("ASML")
    flight = threading.Thread(target=fetch, args=("slow",), daemon=True)
    flight.start()
    try:
        assert entered.wait(PATIENCE)
        broken.append(True)
        told = of("without clock", entries=5)
        assert (told["calls"], told["number_of_entries"], told["flights"]) == (1, 1, [])
        assert [entry["key"] for entry in told["entries"]] == ["('ASML',)"]
        assert of("with clock")["calls"] == 1
        assert "without clock: 1 entries, 1 flights" in report()
    finally:
        broken.clear()
        gate.set()
        flight.join(PATIENCE)
    assert not flight.is_alive()
