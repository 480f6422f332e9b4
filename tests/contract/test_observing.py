"""Listeners that come and go while a function is used: `process.registry.observe`."""

import asyncio
import gc
import logging
import threading
import weakref

import pytest

from singleflight import single_flight_ttl
from singleflight.process.registry import Observer, observe, observe_each
from singleflight.testing import Recorder

from ..builds import collects_classes
from ..drivers import PATIENCE, Gate


def test_events_are_told_from_then_on_and_until_the_end(driver):
    """Of calls that begin meanwhile: a hit on an entry that was there before, a miss; nothing afterwards."""

    async def fetch(key):
        return key

    fetch = driver.decorate(fetch, ttl=60)
    driver.call(fetch, "a")
    seen = Recorder()
    stop = observe(seen, fetch)
    try:
        assert driver.call(fetch, "a") == "a"
        assert driver.call(fetch, "b") == "b"
        assert driver.call(fetch, "b") == "b"
    finally:
        stop()
    assert seen.kinds() == ["hit", "fetch", "land", "hit"]
    assert driver.call(fetch, "b") == "b"
    assert driver.call(fetch, "c") == "c"
    stop()
    assert seen.kinds() == ["hit", "fetch", "land", "hit"]
    stats = fetch.stats()
    assert (stats.hits, stats.fetches) == (3, 3)


@pytest.mark.parametrize("wants", [{"land"}, {"fetch", "land"}, set()])
def test_only_what_is_wanted(observing, wants):
    """And who does not want hits leaves them the fast way."""
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    seen = Recorder(wants)
    observing(seen, fetch)
    assert fetch(1) == fetch(1) == 1
    assert set(seen.kinds()) == wants
    assert not fetch._self_cache.tell.watches_hits


def test_the_own_listener_hears_first_and_stays(observing):
    """Each listener is told of each event once, and the end of one is not the end of the others."""
    heard = []
    fetch = single_flight_ttl(ttl=60, listener=lambda event: heard.append(("own", event.kind)))(
        lambda key: key
    )
    stop = observing(lambda event: heard.append(("first", event.kind)), fetch)
    observing(lambda event: heard.append(("second", event.kind)), fetch)
    fetch(1)
    assert heard == [(who, kind) for kind in ("fetch", "land") for who in ("own", "first", "second")]
    heard.clear()
    stop()
    fetch(1)
    assert heard == [("own", "hit"), ("second", "hit")]


def test_one_listener_may_observe_twice(observing):
    """Each time it is told once more, until that time's end."""
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    seen = Recorder()
    stops = [observing(seen, fetch), observing(seen, fetch)]
    fetch(1)
    stops[0]()
    fetch(1)
    stops[0]()
    fetch(1)
    stops[1]()
    fetch(1)
    assert seen.kinds() == ["fetch", "fetch", "land", "land", "hit", "hit"]


def test_all_functions_also_later_ones_and_twins_once(observing):
    """Without functions it is told of all there are and will be; a function and its twin are one."""
    before = single_flight_ttl(ttl=60, name="before")(lambda key: key)
    names = []

    def listener(event):
        if event.name in ("before", "after"):
            names.append(event.name)

    listener.wants = {"land"}
    stop = observing(listener)
    after = single_flight_ttl(ttl=60, name="after")(lambda key: key)

    @after.twin
    async def aafter(key):
        return key

    before(1), after(1), asyncio.run(aafter(2))
    assert names == ["before", "after", "after"]
    stop()
    late = single_flight_ttl(ttl=60, name="after")(lambda key: key)
    before(2), after(3), late(1)
    assert names == ["before", "after", "after"]


def test_a_bound_method_stands_for_its_function(observing):
    """The events of all instances are told."""

    class Account:
        @single_flight_ttl(ttl=60)
        def price(self, symbol):
            return symbol

    seen = Recorder()
    observing(seen, Account().price)
    Account().price("a")
    assert seen.kinds() == ["fetch", "land"]


def test_a_flight_in_progress_is_not_told(observing):
    """Who begins to observe hears of callers that come from then on; the leader's flight began before."""
    gate, entered = Gate(), threading.Event()

    def fetch(key):
        entered.set()
        gate.pass_()
        return key

    fetch = single_flight_ttl(ttl=60)(fetch)
    leader = threading.Thread(target=fetch, args=(1,), daemon=True)
    leader.start()
    assert entered.wait(PATIENCE)
    seen = Recorder()
    observing(seen, fetch)
    follower = threading.Thread(target=fetch, args=(1,), daemon=True)
    follower.start()
    seen.wait_for("wait")
    gate.set()
    leader.join(PATIENCE)
    follower.join(PATIENCE)
    seen.wait_for("share")
    assert seen.kinds() == ["wait", "share"]


def test_inside_bypass_nothing_is_told_and_the_end_of_it_changes_nothing(observing):
    """A bypassed function stays so when an observer leaves, an observed one when a block ends."""
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    seen = Recorder()
    stop = observing(seen, fetch)
    with fetch.bypass():
        fetch(1)
        assert seen.kinds() == []
    fetch(1), fetch(1)
    assert seen.kinds() == ["fetch", "land", "hit"]
    with fetch.bypass():
        stop()
        fetch(1)
    assert fetch.stats().hits == 1
    fetch(1)
    assert fetch.stats().hits == 2
    assert seen.kinds() == ["fetch", "land", "hit"]


def test_hits_of_a_bulk_call_are_told(observing):
    """Also of entries that were there before."""
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    load = fetch.bulk(lambda keys: {key: key for key in keys})
    load([1, 2])
    seen = Recorder()
    observing(seen, fetch)
    assert load([2, 1, 3]) == {1: 1, 2: 2, 3: 3}
    assert [event.key for event in seen.of("hit")] == [(2,), (1,)]
    assert fetch.stats().hits == 2


def test_hits_of_an_answer_are_told(observing):
    """`answer` is a call like others."""
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    fetch(1)
    seen = Recorder()
    observing(seen, fetch)
    assert fetch.answer(1).served == "hit"
    assert seen.kinds() == ["hit"]


def test_a_listener_that_fails_is_logged_once_and_harms_nobody(observing, caplog):
    """The others are told, callers get their values."""
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    seen = Recorder()

    def broken(event):
        raise OSError("no room")

    observing(broken, fetch)
    observing(seen, fetch)
    with caplog.at_level(logging.ERROR, "singleflight"):
        assert [fetch(1), fetch(1), fetch(2)] == [1, 1, 2]
    assert seen.kinds() == ["fetch", "land", "hit", "fetch", "land"]
    assert len([line for line in caplog.messages if "broken" in line]) == 1


def test_a_listener_may_call_the_function(observing):
    """What it causes itself is not told, to no listener of that function."""
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    seen = Recorder()
    observing(lambda event: fetch("another"), fetch)
    observing(seen, fetch)
    fetch(1)
    assert {event.key for event in seen.events} == {(1,)}
    assert fetch.entry("another") is not None


@collects_classes
def test_nothing_is_kept_alive(observing):
    """An observer does not keep functions, nor a function past observers."""
    seen = Recorder()
    stop = observing(seen)
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    fetch(1)
    gone = weakref.ref(fetch), weakref.ref(fetch._self_cache)
    seen.clear()
    del fetch
    gc.collect()
    assert [ref() for ref in gone] == [None, None]
    stop()
    forgotten = weakref.ref(seen)
    del seen, stop
    observing.__closure__[0].cell_contents.clear()
    gc.collect()
    assert forgotten() is None


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ((3,), TypeError, r"^listener: expected a callable, got 3"),
        (
            (Recorder(), len),
            TypeError,
            "^observe: expected decorated functions, got <built-in",
        ),
        ((Recorder(), "price"), TypeError, r"^observe: expected decorated functions, got 'price'"),
    ],
)
def test_bad_input(arguments, error, told):
    """It is refused at once."""
    with pytest.raises(error, match=told):
        observe(*arguments)


def test_unknown_kinds():
    """They are refused as at decoration, and then nothing observes."""

    def listener(event):
        raise AssertionError

    listener.wants = {"hits"}
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    with pytest.raises(ValueError, match="no such kinds of events: 'hits'"):
        observe(listener, fetch)
    assert not fetch._self_cache.tell.has_listener


def test_a_listener_for_each_function():
    """Functions of one name are told apart; each listener is asked for once, also for later functions."""
    made = []

    def listener_of(name):
        made.append((name, Recorder()))
        return made[-1][1]

    first = single_flight_ttl(ttl=60, name="same")(lambda key: key)
    stop = observe_each(listener_of, first, first, hits=True)
    first(1), first(1)
    stop()
    first(1)
    assert [(name, seen.kinds()) for name, seen in made] == [("same", ["fetch", "land", "hit"])]
    made.clear()
    stop = observe_each(listener_of, hits=False)
    later = single_flight_ttl(ttl=60, name="same")(lambda key: key)
    later(1), first(2)
    stop()
    later(2)
    heard = [seen.kinds() for name, seen in made if name == "same" and seen.events]
    assert heard == [["fetch", "land"], ["fetch", "land"]]


def test_an_interrupt_while_it_begins_leaves_no_observer(monkeypatch):
    """Nobody has what would end it: so no function is observed, neither those before it nor later ones."""
    first, second = (single_flight_ttl(ttl=60)(lambda key: key) for _ in "ab")
    add, added = Observer.add, []

    def struck(self, cache):
        added.append(cache)
        if len(added) == 2:
            raise KeyboardInterrupt
        add(self, cache)

    seen = Recorder()
    monkeypatch.setattr(Observer, "add", struck)
    with pytest.raises(KeyboardInterrupt):
        observe(seen, first, second)
    added.clear()
    with pytest.raises(KeyboardInterrupt):
        observe(seen)
    monkeypatch.undo()
    third = single_flight_ttl(ttl=60)(lambda key: key)
    assert [function("ASML") for function in (first, second, third)] == ["ASML"] * 3
    assert seen.kinds() == []
