"""What `put` asks, stores and tells; and what it makes of the flights of its key."""

from unittest.mock import patch

import pytest

from singleflight import Unchanged, single_flight_ttl
from singleflight.core import controls
from singleflight.storage.ttl import Landing
from singleflight.testing import Recorder

from .conftest import in_flight


@pytest.fixture
def asked():
    """What the options were asked."""
    return []


@pytest.fixture
def price(clock, seen, asked):
    """A function, each of whose values says for how long it is kept; its options note what they are asked."""

    def asking(option, answer):
        return lambda landing: (asked.append((option, landing)), answer(landing))[1]

    options = {
        "ttl": asking("ttl", lambda landing: landing.value),
        "tags": asking("tags", lambda landing: [f"tag {landing.value}"]),
        "grace": asking("grace", lambda landing: landing.value / 2),
        "failure_ttl": 60,
    }

    @single_flight_ttl(timer=clock, listener=seen, name="price", **options)
    def price(symbol):
        raise LookupError(symbol)

    return price


def stored(function):
    [record] = function._self_cache.store.records()
    return record


def test_what_is_no_value_is_refused(price):
    """What is returned to keep a value, and what one use spends; nothing has changed then."""
    price.put(10, "ASML")
    with pytest.raises(TypeError) as refused:
        price.put(Unchanged, "ASML")
    assert str(refused.value) == "put: expected a value; Unchanged is what a function returns"
    with pytest.raises(TypeError, match=r"^price: put was given a generator, "):
        price.put((letter for letter in "ab"), "ASML")
    assert stored(price).value == 10


def test_all_options_are_asked_with_one_landing(price, clock, asked):
    """It took no time and nobody waited for it; the entry that it replaces is shown as it is now."""
    price.put(10, "ASML")
    landing = Landing(("ASML",), 10, error=None, duration=0.0, followers=0, previous=None)
    assert asked == [(option, landing) for option in ("ttl", "tags", "grace")]
    asked.clear()
    clock.advance(12)
    price.put(20, "ASML")
    [(_, landing), *_] = asked
    previous = landing.previous
    assert (landing.key, landing.value, landing.duration, landing.followers) == (("ASML",), 20, 0.0, 0)
    assert (previous.key, previous.value, previous.age, previous.state) == (("ASML",), 10, 12.0, "stale")
    assert asked == [(option, landing) for option in ("ttl", "tags", "grace")]


def test_a_failure_is_nothing_that_is_replaced(price, asked):
    """A stored exception is no entry."""
    with pytest.raises(LookupError):
        price("ASML")
    price.put(10, "ASML")
    assert [landing.previous for _, landing in asked] == [None] * 3


def test_what_is_stored(price, clock):
    """The value with its own ttl, tags and grace, from now on."""
    price.put(10, "ASML")
    record = stored(price)
    assert (record.key, record.value, record.landed) == (("ASML",), 10, clock())
    assert (record.ttl, record.grace, record.tags) == (10.0, 5.0, ("tag 10",))


def test_what_is_never_renewed_too_early(clock):
    """With xfetch a renewal begins the earlier, the longer the function took: this took no time."""
    price = single_flight_ttl(ttl=10, refresh_ahead="xfetch", timer=clock)(lambda symbol: 1)
    price._self_cache.options.ageing.chance = lambda: 0.9
    price.put(7, "ASML")
    assert stored(price).refresh_at == clock() + 10


def test_it_is_told(price, seen):
    """What was put, and then that it is served."""
    price.put(10, "ASML")
    assert price("ASML") == 10
    assert [(event.kind, event.key) for event in seen.events] == [("put", ("ASML",)), ("hit", ("ASML",))]
    assert seen.of("put")[0].value == 10


@pytest.mark.parametrize(("age", "kind"), [(0.0, "evict"), (9.5, "evict"), (10.0, "expire")])
def test_what_leaves_for_it_is_told(clock, seen, age, kind):
    """As evicted, or as expired where its time was over."""
    price = single_flight_ttl(ttl=10, maxsize=1, timer=clock, listener=seen)(lambda symbol: 1)
    price.put(7, "ASML")
    clock.advance(age)
    price.put(8, "SAP")
    assert [(event.kind, event.key) for event in seen.events[1:]] == [("put", ("SAP",)), (kind, ("ASML",))]


def test_who_wants_no_hits_slows_none_down(clock):
    """The next reader takes the fast way, as after a call."""
    price = single_flight_ttl(ttl=10, timer=clock, listener=Recorder(wants={"put"}))(lambda symbol: 1)
    price.put(7, "ASML")
    assert stored(price).deadline == clock() + 10


def test_a_flight_that_began_in_between_is_detached(memo):
    """Nobody is to join it: the store refuses what it brings."""
    flights = [in_flight(memo, due=False)]
    put = memo.store.put

    def while_another_begins(*arguments):
        flights.append(in_flight(memo, due=False))
        return put(*arguments)

    with patch.object(memo.store, "put", while_another_begins):
        controls.put(memo, "k", 7)
    assert [flight.detached for flight in flights] == [True, True]
    assert memo.locks.slot("k") is None
    assert controls.entry(memo, "k").value == 7


def test_what_is_too_heavy_drops_what_is_there(clock):
    """It is not stored, and neither is what it was to replace."""
    price = single_flight_ttl(ttl=10, maxsize=5, weigh=lambda value: value, timer=clock)(lambda symbol: 1)
    price.put(5, "ASML")
    assert stored(price).weight == 5
    price.put(6, "ASML")
    assert price._self_cache.store.records() == []


def test_a_copy_is_stored(clock):
    """Of what was put, whatever is done to that later."""
    price, mine = single_flight_ttl(ttl=10, copy=list, timer=clock)(lambda symbol: []), [1]
    price.put(mine, "ASML")
    kept = stored(price).value
    assert (kept, kept is mine) == ([1], False)
