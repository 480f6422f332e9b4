"""Single calls that miss within a window are loaded by one call of the loader."""

import asyncio
from datetime import timedelta

import pytest

from singleflight import FlightDeadlock, FlightTimeout, Unchanged, current_flight, single_flight_ttl
from singleflight.core.call import JOIN
from singleflight.core.window import Stay
from singleflight.testing import FakeClock, Recorder

from ..drivers import Executions, suspends, until

LONG = 30.0
"""Seconds for which a window is open that is to be full before."""


class Refused(Exception):
    pass


def outcomes(callers):
    """What they returned or raised."""
    return [caller.outcome() for caller in callers]


class Desk:
    """A function whose body is never to run, and a loader that gathers; `loads` has what it was asked for."""

    def __init__(self, driver, respond=None, gather=LONG, max_batch=None, **options):
        self.driver, self.loads, self.begun, self.seen = driver, [], Executions(), Recorder()
        self.gates = {}
        respond = respond or (lambda items: {item: item.upper() for item in items})

        async def price(symbol, kind="bid"):
            raise AssertionError("the getter's body runs")

        async def prices(symbols, kind="bid"):
            self.loads.append("".join(sorted(symbols)) + kind.removeprefix("bid"))
            gate = self.gates.get(self.begun.begin())
            if gate is not None:
                await gate
            return respond(symbols)

        options = {"key": lambda symbol, kind="bid": (symbol, kind), "listener": self.seen, **options}
        self.price = driver.decorate(price, **options)
        self.prices = driver.loader(self.price, prices, gather=gather, max_batch=max_batch)

    def hold(self, number):
        """Hold this load at a gate, which is returned."""
        self.gates[number] = self.driver.gate()
        return self.gates[number]

    def start(self, run, *args):
        """A caller whose call is in a window by now."""
        before = self.gathered()
        caller = self.driver.start(run, *args)
        until(lambda: self.gathered() == before + 1)
        return caller

    def gathered(self):
        return sum(flight.kind == "bulk" for flight in self.price.flights())

    def follow(self, run, *args):
        """A caller that waits for another one's flight."""
        before = sum(flight.followers for flight in self.price.flights())
        caller = self.driver.start(run, *args)
        until(lambda: sum(flight.followers for flight in self.price.flights()) == before + 1)
        return caller


@pytest.fixture
def desk(driver):
    """Makes them."""
    return lambda *args, **options: Desk(driver, *args, **options)


def test_single_calls_become_one_call(desk):
    """Callers of different keys are loaded by one call of the loader, whatever they are."""
    one = desk(max_batch=4)
    callers = [one.start(one.price, symbol) for symbol in "abc"]
    callers.append(one.driver.start(one.price, "d"))
    assert outcomes(callers) == ["A", "B", "C", "D"]
    assert one.loads == ["abcd"]
    stats = one.price.stats()
    assert (stats.fetches, stats.waits, stats.calls, stats.errors) == (4, 0, 1, 0)


def test_a_window_closes(desk):
    """Without others the first caller waits for no longer than the window is open."""
    one = desk(gather=timedelta(milliseconds=5))
    assert [one.driver.call(one.price, symbol) for symbol in "ab"] == ["A", "B"]
    assert one.loads == ["a", "b"]


def test_a_full_window_is_sent_off(desk):
    """The caller that fills a window sends it off; the next one opens another."""
    one = desk(max_batch=2)
    callers = [one.driver.start(one.price, symbol) for symbol in "abcd"]
    assert outcomes(callers) == ["A", "B", "C", "D"]
    assert sorted(map(len, one.loads)) == [2, 2]


def test_followers_of_a_key_in_a_window(desk):
    """A key is in a window once: who asks for it too follows its flight."""
    one = desk(max_batch=2)
    callers = [one.start(one.price, "a"), one.follow(one.price, "a")]
    callers.append(one.driver.start(one.price, "b"))
    assert outcomes(callers) == ["A", "A", "B"]
    assert one.loads == ["ab"]
    assert (one.price.stats().fetches, one.price.stats().waits) == (2, 1)


def test_what_differs_in_more_than_the_item_is_not_gathered(desk):
    """Calls with other arguments beside the item have windows of their own."""
    one = desk(max_batch=2)
    callers = [one.start(one.price, "a"), one.start(one.price, "a", "ask")]
    callers += [one.driver.start(one.price, "b"), one.driver.start(one.price, "b", "ask")]
    assert outcomes(callers) == ["A", "A", "B", "B"]
    assert sorted(one.loads) == ["ab", "abask"]


def test_every_way_to_ask_for_one_key(desk):
    """A bulk call for one key, `answer` and `refresh` are gathered too."""
    one = desk(max_batch=4)
    callers = [one.start(one.price, "a"), one.start(one.prices, ["b"]), one.start(one.price.refresh, "c")]
    callers.append(one.driver.start(one.prices, ["d"]))
    assert outcomes(callers) == ["A", {"b": "B"}, "C", {"d": "D"}]
    assert one.loads == ["abcd"]
    assert one.price.stats().refreshes == 1


def test_a_bulk_call_for_one_key_opens_a_window(desk):
    """As a single call does; who comes for another key meanwhile is loaded with it."""
    one = desk(max_batch=2)
    first = one.start(one.prices, ["a"])
    assert one.driver.call(one.price, "b") == "B"
    assert first.outcome() == {"a": "A"}
    assert one.loads == ["ab"]


def test_a_bulk_call_for_several_keys_is_sent_at_once(desk):
    """Only calls for one key wait for others."""
    one = desk()
    assert one.driver.call(one.prices, ["a", "b"]) == {"a": "A", "b": "B"}
    assert one.loads == ["ab"]


def test_missing_keys(desk):
    """What the loader leaves out is None for a single caller, not in a bulk answer, and not stored."""
    one = desk(lambda items: {"a": "A"}, max_batch=3)
    callers = [one.start(one.price, "a"), one.start(one.price, "x"), one.driver.start(one.prices, ["y"])]
    assert outcomes(callers) == ["A", None, {}]
    assert one.loads == ["axy"]
    assert one.price.entry("x") is None


def test_extra_items_are_stored(desk):
    """What the loader brings unasked is stored."""
    one = desk(lambda items: {"a": "A", "b": "B"}, gather=0.001)
    assert one.driver.call(one.price, "a") == "A"
    assert one.driver.call(one.price, "b") == "B"
    assert one.loads == ["a"]


def test_a_loader_that_raises_fails_every_caller(desk):
    """Each caller of the window gets the loader's error at once; the keys are free."""
    fails = [True]

    def respond(items):
        if fails.pop():
            raise Refused("down")
        return {item: item.upper() for item in items}

    fails[:0] = [False] * 9
    one = desk(respond, max_batch=3)
    callers = [one.start(one.price, symbol) for symbol in "ab"]
    callers.append(one.driver.start(one.price, "c"))
    errors = outcomes(callers)
    assert [(type(error), error.args) for error in errors] == [(Refused, ("down",))] * 3
    assert len(set(map(id, errors))) == 3
    stats = one.price.stats()
    assert (stats.errors, stats.calls, stats.failures, stats.in_flight) == (3, 1, 1, 0)
    assert outcomes([one.driver.start(one.price, symbol) for symbol in "abc"]) == ["A", "B", "C"]


def test_followers_of_a_failed_key_try_again(desk):
    """Who follows a key of a window flies again when the loader fails, as after any flight."""
    fails = [True]

    def respond(items):
        if fails:
            fails.clear()
            raise Refused("down")
        return {item: item.upper() for item in items}

    one = desk(respond, gather=0.01)
    gate = one.hold(0)
    first = one.start(one.price, "a")
    one.begun.wait_for(1)
    follower = one.follow(one.price, "a")
    gate.set()
    assert type(first.outcome()) is Refused
    assert follower.outcome() == "A"
    assert one.loads == ["a", "a"]


def test_a_refused_value_is_its_callers(desk):
    """A value that `cache_if` refuses is returned to the caller of its key, and the others are stored."""
    one = desk(max_batch=2, cache_if=lambda value: value != "A")
    callers = [one.start(one.price, "a"), one.driver.start(one.price, "b")]
    assert outcomes(callers) == ["A", "B"]
    assert (one.price.entry("a"), one.price.entry("b").value) == (None, "B")


def test_one_key_fails_alone(desk):
    """What `ttl` raises for one key is the error of that key's caller."""

    def ttl(landing):
        if landing.value == "B":
            raise Refused("no b")
        return 60

    one = desk(max_batch=3, ttl=ttl)
    callers = [one.start(one.price, symbol) for symbol in "ab"]
    callers.append(one.driver.start(one.price, "c"))
    first, second, third = outcomes(callers)
    assert (first, type(second), third) == ("A", Refused, "C")
    assert one.price.stats().errors == 1


def test_the_first_caller_fails_alone(desk):
    """The same where it is the caller that opened the window."""

    def ttl(landing):
        if landing.value == "A":
            raise Refused("no a")
        return 60

    one = desk(max_batch=2, ttl=ttl)
    callers = [one.start(one.price, "a"), one.driver.start(one.price, "b")]
    first, second = outcomes(callers)
    assert (type(first), second) == (Refused, "B")


@pytest.mark.parametrize("error", [FlightTimeout, FlightDeadlock])
@pytest.mark.parametrize("opens", [True, False])
def test_one_key_fails_with_what_is_shared_with_nobody(desk, opens, error):
    """As where `cache_if` asks for what waits for it: its caller receives that, whoever opened the window."""

    def cache_if(value):
        if value == "A":
            raise error("it asks for itself")
        return True

    one = desk(max_batch=2, cache_if=cache_if)
    first = one.start(one.price, "a" if opens else "b")
    second = one.driver.start(one.price, "b" if opens else "a")
    failed, other = outcomes([first, second] if opens else [second, first])
    assert (type(failed), str(failed), other) == (error, "it asks for itself", "B")
    assert one.loads == (["ab"] if opens else ["ab", "a"])
    stats = one.price.stats()
    assert (stats.fetches, stats.errors + stats.timeouts) == (1, 1)


@pytest.mark.parametrize("in_bulk", [False, True])
def test_who_is_told_nothing_of_its_key_does_not_wait_for_others_again(desk, in_bulk):
    """A refused loader says nothing about a member's key: that is loaded at once, and alone."""
    fails = [True]

    def respond(items):
        if fails:
            fails.clear()
            raise FlightDeadlock("it waits for itself")
        return {item: item.upper() for item in items}

    one = desk(respond, max_batch=2)
    first = one.start(one.price, "a")
    member = one.driver.start(one.prices, ["b"]) if in_bulk else one.driver.start(one.price, "b")
    assert type(first.outcome()) is FlightDeadlock
    assert member.outcome() == ({"b": "B"} if in_bulk else "B")
    assert one.loads == ["ab", "b"]


def test_stored_failures(desk):
    """With `failure_ttl` the error is stored for each key."""

    def respond(items):
        raise Refused("down")

    one = desk(respond, max_batch=2, failure_ttl=60)
    callers = [one.start(one.price, "a"), one.driver.start(one.price, "b")]
    assert [type(error) for error in outcomes(callers)] == [Refused] * 2
    again = [one.driver.start(one.price, symbol) for symbol in "ab"]
    assert [type(error) for error in outcomes(again)] == [Refused] * 2
    assert one.loads == ["ab"]


def test_invalidated_in_a_window(desk):
    """Whoever asked before gets the value; who asks afterwards opens another window, and that is stored."""
    count = iter(range(1, 9))

    def respond(items):
        number = next(count)
        return {item: f"{item}{number}" for item in items}

    one = desk(respond, gather=1.0, max_batch=2)
    before = one.start(one.price, "a")
    assert one.price.invalidate("a") is True
    after = [one.start(one.price, "a"), one.driver.start(one.price, "b")]
    assert outcomes(after) == ["a1", "b1"]
    assert before.outcome() == "a2"
    assert one.loads == ["ab", "a"]
    assert one.price.entry("a").value == "a1"


def test_invalidated_while_it_is_loaded(desk):
    """The caller of the window gets its value, which is not stored."""
    one = desk(max_batch=2)
    gate = one.hold(0)
    callers = [one.start(one.price, "a"), one.driver.start(one.price, "b")]
    one.begun.wait_for(1)
    assert one.price.invalidate("a") is True
    gate.set()
    assert outcomes(callers) == ["A", "B"]
    assert (one.price.entry("a"), one.price.entry("b").value) == (None, "B")


def test_a_value_that_is_put_while_its_key_is_loaded(desk):
    """The caller gets what was loaded; the value that was put stays."""
    one = desk(max_batch=2)
    gate = one.hold(0)
    callers = [one.start(one.price, "a"), one.driver.start(one.price, "b")]
    one.begun.wait_for(1)
    one.price.put("new", "a")
    gate.set()
    assert outcomes(callers) == ["A", "B"]
    assert one.price.entry("a").value == "new"


def test_a_tag_that_is_invalidated_meanwhile(desk):
    """What lands with a tag that was invalidated while it was loaded is not stored."""
    one = desk(max_batch=2, tags=lambda landing: [landing.value])
    gate = one.hold(0)
    callers = [one.start(one.price, "a"), one.driver.start(one.price, "b")]
    one.begun.wait_for(1)
    one.price.invalidate_tag("A")
    gate.set()
    assert outcomes(callers) == ["A", "B"]
    assert (one.price.entry("a"), one.price.entry("b").value) == (None, "B")


def test_each_caller_gets_a_copy(desk):
    """With `copy` no two callers get the same object."""
    one = desk(lambda items: {item: [item] for item in items}, max_batch=2, copy=True)
    callers = [one.start(one.price, "a"), one.follow(one.price, "a"), one.driver.start(one.price, "b")]
    first, second, _ = outcomes(callers)
    assert first == second == ["a"]
    assert first is not second is not one.price.entry("a").value


def test_the_loader_knows_its_flights(desk):
    """`current_flight` tells the loader the keys of all callers, and `Unchanged` keeps one's value."""
    told = []

    def respond(items):
        flight = current_flight()
        told.append((sorted(flight.key), flight.kind))
        return {item: Unchanged if item in flight.entries else item.upper() for item in items}

    one = desk(respond, max_batch=2)
    one.price.put("kept", "a")
    callers = [one.start(one.price.refresh, "a"), one.driver.start(one.price, "b")]
    assert outcomes(callers) == ["kept", "B"]
    assert told == [([("a", "bid"), ("b", "bid")], "bulk")]


def test_a_gathered_call_is_one_execution(desk):
    """With `max_flights=1` a window takes one seat, whatever it loads."""
    one = desk(max_batch=2, max_flights=1)
    gate = one.hold(0)
    callers = [one.start(one.price, "a"), one.driver.start(one.price, "b")]
    one.begun.wait_for(1)
    callers += [one.start(one.price, "c"), one.driver.start(one.price, "d")]
    until(lambda: sum(flight.queued for flight in one.price.flights()) == 1)
    assert one.loads == ["ab"]
    gate.set()
    assert outcomes(callers) == ["A", "B", "C", "D"]
    assert one.loads == ["ab", "cd"]


def test_members_that_time_out_in_line_are_counted_once(desk, monkeypatch):
    """Where a window gets no seat in time its members call anew; each caller counts as one timeout."""
    monkeypatch.setattr(Stay, "_look", lambda stay, flight: JOIN)  # it would time out by itself as soon
    one = desk(max_batch=2, max_flights=1, wait_timeout=0.05, gather=0.3)
    gate = one.hold(0)
    first = one.driver.start(one.prices, ["a", "b"])
    one.begun.wait_for(1)
    callers = [one.start(one.price, "c"), one.driver.start(one.price, "d")]
    assert [type(error) for error in outcomes(callers)] == [FlightTimeout] * 2
    gate.set()
    assert first.outcome() == {"a": "A", "b": "B"}
    stats = one.price.stats()
    assert (stats.fetches, stats.timeouts, stats.errors, stats.calls) == (2, 2, 0, 1)
    until(lambda: one.seen.count("land") + one.seen.count("abort") >= 4)
    lands = [event.counted for event in one.seen.events if event.kind in ("land", "abort")]
    timeouts = one.seen.of("timeout")
    assert lands.count("timeouts") + sum(not event.leads for event in timeouts) == 2


def test_stale_values_are_renewed_together(desk):
    """Renewals of single callers are gathered too, also with callers that wait."""
    clock = FakeClock()
    one = desk(max_batch=3, ttl=60, grace=600, timer=clock)
    for symbol in "ab":
        one.price.put(f"old {symbol}", symbol)
    clock.advance(60)
    assert [one.driver.call(one.price, symbol) for symbol in "ab"] == ["old a", "old b"]
    assert one.driver.call(one.price, "c") == "C"
    until(lambda: not one.price.flights())
    assert one.loads == ["abc"]
    assert [one.price.entry(symbol).value for symbol in "abc"] == ["A", "B", "C"]
    stats = one.price.stats()
    assert (stats.calls, stats.refreshes, stats.stale_hits, stats.fetches) == (1, 1, 2, 1)


def test_renewals_alone_are_gathered(desk):
    """Where nobody waits a window is run in the background."""
    clock = FakeClock()
    one = desk(max_batch=2, ttl=60, grace=600, timer=clock)
    for symbol in "ab":
        one.price.put(f"old {symbol}", symbol)
    clock.advance(60)
    assert [one.driver.call(one.price, symbol) for symbol in "ab"] == ["old a", "old b"]
    until(lambda: not one.price.flights())
    assert one.loads == ["ab"]


def test_a_renewal_that_fails(desk):
    """Its value stays, and nobody is told; the callers of the same window are."""
    clock = FakeClock()

    def respond(items):
        raise Refused("down")

    one = desk(respond, max_batch=2, ttl=60, grace=600, timer=clock)
    one.price.put("old", "a")
    clock.advance(60)
    assert one.driver.call(one.price, "a") == "old"
    until(lambda: one.gathered() == 1)
    assert type(one.driver.start(one.price, "b").outcome()) is Refused
    until(lambda: not one.price.flights())
    assert one.driver.call(one.price, "a") == "old"


def test_a_slow_loader_is_waited_for_softly(desk):
    """With `soft_timeout` who finds a stale value waits for the window, and then takes that value."""
    clock = FakeClock()
    one = desk(gather=0.001, ttl=60, grace=600, soft_timeout=0.01, timer=clock)
    one.price.put("old", "a")
    clock.advance(60)
    gate = one.hold(0)
    assert one.driver.call(one.price, "a") == "old"
    gate.set()
    until(lambda: not one.price.flights())
    assert one.price.entry("a").value == "A"


def test_answers(desk, driver):
    """`answer` says that a gathered call fetched."""
    one = desk(max_batch=2)

    async def ask(symbol):
        if one.price.coroutine is None or (one.price.plain is not None and not suspends()):
            return one.price.plain.answer(symbol)
        return await one.price.coroutine.answer(symbol)

    callers = [one.start(ask, "a"), driver.start(ask, "b")]
    assert [(answer.value, answer.served, answer.stored) for answer in outcomes(callers)] == [
        ("A", "fetch", True),
        ("B", "fetch", True),
    ]


def test_events(desk):
    """Each key of a window is told of as the flight that it is."""
    one = desk(max_batch=2)
    callers = [one.start(one.price, "a"), one.driver.start(one.price, "b")]
    outcomes(callers)
    until(lambda: one.seen.count("land") == 2)
    assert one.seen.count("fetch") == 2
    assert one.seen.count("wait") == 0


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"gather": 0}, ValueError, "more than 0"),
        ({"gather": -1}, ValueError, "negative"),
        ({"gather": float("nan")}, ValueError, "NaN"),
        ({"gather": float("inf")}, ValueError, "finite"),
        ({"gather": True}, TypeError, "seconds"),
        ({"gather": "soon"}, TypeError, "seconds"),
        ({"gather": 1, "max_batch": 1}, ValueError, "max_batch=1"),
    ],
)
def test_bad_windows_are_refused_at_decoration(options, error, said):
    """Each error names the option, with and without a function to decorate."""

    @single_flight_ttl(ttl=60)
    def price(symbol):
        return symbol

    with pytest.raises(error, match=f"gather: .*{said}"):
        price.bulk(**options)
    with pytest.raises(error, match=f"gather: .*{said}"):
        price.bulk(lambda symbols: {}, **options)
    assert price("a") == "a"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gather": 0}, "must be more than 0 seconds; leave it out to gather nothing"),
        ({"gather": float("inf")}, "must be finite: the first call waits for so long"),
        (
            {"gather": 1, "max_batch": 1},
            "with max_batch=1 there is nothing to gather; raise it, or leave one out",
        ),
    ],
)
def test_what_is_wrong_with_a_window_is_said_in_full(options, said):
    """And what to do instead."""

    @single_flight_ttl(ttl=60)
    def price(symbol):
        return symbol

    with pytest.raises(ValueError, match="gather") as refused:
        price.bulk(**options)
    assert str(refused.value) == f"gather: {said}"


def test_a_loader_of_the_wrong_colour_is_told_what_to_do():
    """A twin, or a loader of the other colour."""

    def plain(symbol):
        return symbol

    async def coroutine(symbol):
        return symbol

    def plain_many(symbols):
        return {}

    async def coroutine_many(symbols):
        return {}

    here = test_a_loader_of_the_wrong_colour_is_told_what_to_do.__qualname__ + ".<locals>"
    for getter, loader, colours in [
        (plain, coroutine_many, ("coroutine", "plain")),
        (coroutine, plain_many, ("plain", "coroutine")),
    ]:
        first, second = colours
        with pytest.raises(TypeError) as refused:
            single_flight_ttl(ttl=60)(getter).bulk(loader, gather=1)
        name, many = f"{here}.{getter.__name__}", f"{here}.{loader.__name__}"
        assert str(refused.value) == (
            f"gather: {many} is a {first} function and {name} a {second} one, so no call of {name} can run "
            f"it; give {name} a {first} twin first, or make {many} {second}"
        )
    price = single_flight_ttl(ttl=60)(plain)
    price.bulk(plain_many, gather=1)
    with pytest.raises(ValueError, match="another") as refused:
        price.bulk(plain_many, gather=1)
    assert str(refused.value) == (f"gather: another plain loader of {here}.plain gathers its calls already")
    price = single_flight_ttl(ttl=60)(coroutine)
    price.bulk(coroutine_many, gather=1)
    with pytest.raises(ValueError, match=r"gather: another coroutine loader of .*coroutine gathers"):
        price.bulk(coroutine_many, gather=1)


def test_loaders_that_cannot_gather_are_refused():
    """At most one loader of each colour gathers, and none that no call of the function could run."""

    @single_flight_ttl(ttl=60)
    def price(symbol):
        return symbol

    async def load_in_task(symbols):
        return {}

    with pytest.raises(TypeError, match=r"gather: .*load_in_task is a coroutine function and .*twin"):
        price.bulk(load_in_task, gather=1)
    price.bulk(lambda symbols: {}, gather=1)
    with pytest.raises(ValueError, match="gather: another plain loader"):
        price.bulk(lambda symbols: {}, gather=1)

    @price.twin
    async def aprice(symbol):
        return symbol

    assert price.bulk(load_in_task, gather=0.5).gather == 0.5
    assert price.bulk(lambda symbols: {}).gather is None


def test_calls_without_a_loader_of_their_colour():
    """They join a window that is open, and run their own function where there is none."""

    @single_flight_ttl(ttl=60)
    def price(symbol):
        return "own"

    @price.twin
    async def aprice(symbol):
        return "own"

    loads = []

    @price.bulk(gather=LONG, max_batch=2)
    def prices(symbols):
        loads.append(sorted(symbols))
        return dict.fromkeys(symbols, "loaded")

    async def scene():
        assert await aprice("a") == "own"
        first = asyncio.get_running_loop().run_in_executor(None, price, "b")
        while not price.flights() or price.flights()[0].kind != "bulk":
            await asyncio.sleep(0.001)
        return await asyncio.gather(first, aprice("c"))

    assert asyncio.run(scene()) == ["loaded", "loaded"]
    assert loads == [["b", "c"]]
