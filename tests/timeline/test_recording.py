"""Recordings of real calls: what callers received is counted as `stats()` counts it, within the limits."""

import asyncio
import gc
import random
import subprocess
import sys
import threading
import time
import weakref

import pytest

from singleflight import single_flight_ttl, timeline
from singleflight.telemetry.kinds import ALL_KINDS
from singleflight.testing import FakeClock
from singleflight.timeline.notes import KEPT, RECEIVED, WITHOUT_KEY

from ..drivers import PATIENCE, Gate, until

KEYS = "abcdefg"
STEPS = 25  # of each thread and task


def counted(function):
    stats = function.stats()
    return {name: getattr(stats, name) for name in (*RECEIVED, "calls")}


def recorded(seen):
    return {name: getattr(seen.totals, name) for name in (*RECEIVED, "calls")}


def bars(seen):
    """All bars of all keys."""
    lanes = [lane for function in seen.chart().functions for lane in function.lanes]
    return [bar for lane in lanes for bar in lane.flights + lane.waits]


class Load:
    """Threads, tasks, bulk calls and cancellations on one function, for a moment."""

    def __init__(self, seed, gather, **options):
        self.seed = seed
        self.random = random.Random(seed)

        @single_flight_ttl(name="f", **options)
        def get(key):
            time.sleep(self.pause())
            return self.brought(key)

        @get.twin
        async def aget(key):
            await asyncio.sleep(self.pause())
            return self.brought(key)

        @get.bulk(max_batch=3, gather=0.002 if gather else None)
        def many(keys):
            time.sleep(self.pause())
            self.brought(None)
            return {key: key for key in keys if self.random.random() < 0.9} | {"extra": 1}

        @aget.bulk(max_batch=4, gather=0.002 if gather else None)
        async def amany(keys):
            await asyncio.sleep(self.pause())
            self.brought(None)
            return {key: key for key in keys if self.random.random() < 0.9}

        self.get, self.aget, self.many, self.amany = get, aget, many, amany

    def pause(self):
        return self.random.random() * 0.004

    def brought(self, key):
        if self.random.random() < 0.15:
            raise OSError("away")
        return None if self.random.random() < 0.1 else key

    def thread(self, number):
        choose = random.Random(f"{self.seed} {number}")
        for _ in range(STEPS):
            kind, key = choose.random(), choose.choice(KEYS)
            try:
                if kind < 0.6:
                    self.get(key)
                elif kind < 0.75:
                    self.many(choose.sample(KEYS, choose.randint(1, 5)))
                elif kind < 0.8:
                    self.get.invalidate(key)
                elif kind < 0.85:
                    self.get.put(1, key)
                elif kind < 0.9:
                    self.get.refresh(key)
                elif kind < 0.93:
                    self.get.clear()
                else:
                    self.get.answer(key)
            except Exception:
                continue

    async def task(self, number):
        choose = random.Random(f"{self.seed} task {number}")
        for _ in range(STEPS):
            kind, key = choose.random(), choose.choice(KEYS)
            keys, limit = choose.sample(KEYS, choose.randint(1, 5)), choose.random() * 0.004
            try:
                if kind < 0.5:
                    await self.aget(key)
                elif kind < 0.7:
                    await self.amany(keys)
                elif kind < 0.85:
                    await asyncio.wait_for(self.aget(key), limit)
                elif kind < 0.95:
                    await asyncio.wait_for(self.amany(keys), limit)
                else:
                    await self.aget.refresh(key)
            except Exception:
                pass
            await asyncio.sleep(0)

    async def tasks(self):
        await asyncio.gather(*map(self.task, range(6)))

    def run(self):
        runs = [lambda number=number: self.thread(number) for number in range(4)]
        runs += [lambda: asyncio.run(self.tasks())] * 2
        threads = [threading.Thread(target=run, daemon=True) for run in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        until(lambda: self.get.stats().in_flight == 0)


OPTIONS = {
    "plain": {"ttl": 0.01},
    "grace": {"ttl": 0.005, "grace": 0.02, "soft_timeout": 0.002},
    "failures": {"ttl": 0.01, "failure_ttl": 0.005, "follower_retries": 0},
    "wait_timeout": {"ttl": 0.01, "wait_timeout": 0.003},
    "flight_timeout": {"ttl": 0.01, "flight_timeout": 0.003},
    "in line": {"ttl": 0.01, "max_flights": 2, "wait_timeout": 0.01},
    "ahead": {"ttl": 0.006, "refresh_ahead": 0.5, "grace": 0.01, "maxsize": 3},
    "nothing stored": {"ttl": 0, "follower_retries": 2},
}


@pytest.mark.parametrize("gather", [False, True], ids=["single", "gathered"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_caller_is_counted_as_in_the_stats(options, gather):
    """Under load: the sums of a recording are those of `stats()`, and whatever began has ended."""
    load = Load(gather, gather, **options)
    with timeline.record(load.get) as seen:
        load.run()
        until(lambda: recorded(seen) == counted(load.get))
        # The last callers may still be told of: a landing is told after its transition.
        until(lambda: not [bar for bar in bars(seen) if bar.goes_on])
    assert recorded(seen) == counted(load.get)
    assert seen.totals.callers > 10
    assert not [bar for bar in bars(seen) if bar.goes_on or bar.began_before or bar.how == "ended unseen"]


def test_a_burst(driver):
    """One call, nine waits for it, and hits; the waits are those of the callers, in their own names."""
    gate = driver.gate()

    async def price(symbol):
        await gate
        return 984.75

    price = driver.decorate(price)
    with timeline.record(price) as seen:
        driver.start(price, "ASML")
        until(lambda: seen.chart().functions)
        for followers in range(1, 10):
            driver.start(price, "ASML")
            until(lambda: price.flights()[0].followers == followers)
        until(lambda: len(bars(seen)) == 10)
        gate.set()
        driver.outcomes()
        driver.call(price, "ASML")
        until(lambda: recorded(seen) == counted(price))
    (function,) = seen.chart().functions
    (lane,) = function.lanes
    assert (lane.label, lane.key) == ("ASML", "('ASML',)")
    assert [bar.how for bar in lane.flights] == ["stored"]
    assert [bar.how for bar in lane.waits] == ["served"] * 9
    assert {bar.flight_id for bar in lane.waits} == {lane.flights[0].flight_id}
    assert len({bar.actor for bar in lane.waits}) == 9
    assert [mark.what for mark in lane.marks] == ["hit"]
    assert (seen.totals.callers, seen.totals.calls, seen.totals.saved) == (11, 1, 10)


def test_a_cancelled_follower_and_a_cancelled_leader():
    """Both waits end where their tasks were cancelled; the call goes on for the others."""

    async def main():
        gate = asyncio.Event()

        @single_flight_ttl(ttl=60)
        async def price(symbol):
            await gate.wait()
            return 1

        with timeline.record(price) as seen:
            tasks = [asyncio.create_task(price("a"), name=f"task-{number}") for number in range(4)]
            while price.stats().in_flight == 0 or price.flights()[0].followers < 3:
                await asyncio.sleep(0)
            tasks[0].cancel(), tasks[2].cancel()
            await asyncio.sleep(0.01)
            gate.set()
            await asyncio.gather(*tasks, return_exceptions=True)
        (lane,) = seen.chart().functions[0].lanes
        assert sorted((bar.actor, bar.how) for bar in lane.waits) == [
            ("task-1", "served"),
            ("task-2", "left"),
            ("task-3", "served"),
        ]
        assert [(mark.what, mark.actor) for mark in lane.marks] == [("left", "task-0")]
        assert [(bar.how, bar.goes_on) for bar in lane.flights] == [("stored", False)]
        assert recorded(seen) == counted(price)

    asyncio.run(main())


def test_a_recording_in_the_middle_of_a_call():
    """What began before is open on the left, what goes on is open on the right."""
    gate, entered = Gate(), threading.Event()

    def fetch(key):
        entered.set()
        gate.pass_()
        return key

    fetch = single_flight_ttl(ttl=60)(fetch)
    threads = [threading.Thread(target=fetch, args=("a",), daemon=True) for _ in range(2)]
    threads[0].start()
    assert entered.wait(PATIENCE)
    with timeline.record(fetch) as seen:
        threads[1].start()
        until(lambda: bars(seen))
    page = seen.chart()
    gate.set()
    for thread in threads:
        thread.join(PATIENCE)
    (lane,) = page.functions[0].lanes
    assert [(bar.began_before, bar.goes_on) for bar in lane.flights] == [(True, True)]
    assert [(bar.began_before, bar.goes_on) for bar in lane.waits] == [(False, True)]
    assert seen.chart() == page


def test_one_may_look_while_it_records():
    """A chart is made of what there is so far."""
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    with timeline.record(fetch) as seen:
        fetch(1)
        assert seen.chart().goes_on
        assert seen.totals.callers == 1
        fetch(2)
        assert seen.totals.callers == 2
    fetch(3)
    assert seen.totals.callers == 2
    assert not seen.chart().goes_on
    assert repr(seen) == "<Timeline: over, 4 events>"


def test_all_functions_also_later_ones():
    """Two functions of one name stay apart, whatever the sequence numbers of their events."""
    first = single_flight_ttl(ttl=60, name="same name")(lambda key: key)
    with timeline.record() as seen:
        second = single_flight_ttl(ttl=60, name="same name")(lambda key: key)
        for key in (1, 2, 1):
            first(key), second(key)
    mine = [function for function in seen.chart().functions if function.name == "same name"]
    assert [(function.totals.callers, function.totals.calls) for function in mine] == [(3, 2)] * 2


def test_without_hits():
    """They are left as fast as they were, and out of the numbers."""
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    with timeline.record(fetch, hits=False) as seen:
        fetch(1), fetch(1)
        assert not fetch._self_cache.tell.watches_hits
    assert (seen.totals.hits, seen.totals.fetches) == (0, 1)
    assert fetch.stats().hits == 1


def test_what_is_not_kept_is_counted():
    """Beyond `most` events are in the numbers, and the page says how many there were."""
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    with timeline.record(fetch, most=5) as seen:
        for key in range(10):
            fetch(key), fetch(key)
    assert recorded(seen) == counted(fetch)
    assert seen.dropped == 25
    assert sum(lane.size for lane in seen.chart().functions[0].lanes) < 5
    assert len(seen._recorder.lanes) <= 2


def test_nothing_of_the_users_is_kept():
    """Neither values nor keys nor errors: they go as if nobody recorded."""

    class Thing:
        pass

    def fetch(thing, kind):
        if kind == "bad":
            raise LookupError(thing)
        return values.pop()

    fetch = single_flight_ttl(ttl=60, max_idle_locks=0)(fetch)
    key, values = Thing(), [Thing()]
    gone = [weakref.ref(key), weakref.ref(values[0])]
    with timeline.record(fetch) as seen:
        fetch(key, "good"), fetch(key, "good")
        with pytest.raises(LookupError):
            fetch(key, "bad")
        fetch.clear()
        del key
        gc.collect()
        assert [ref() for ref in gone] == [None, None]
    assert seen.totals.callers == 3


def test_keys_that_cannot_be_shown_or_are_long():
    """Their text is bounded, and a key that raises harms nobody."""

    class Rude:
        def __repr__(self):
            raise RuntimeError("no")

    fetch = single_flight_ttl(ttl=60, key=lambda key: key)(lambda key: 1)
    with timeline.record(fetch) as seen:
        for key in (Rude(), "x" * 100_000, 10**5000, float("nan"), None, ("a", ("b",)), ""):
            fetch(key)
    lanes = seen.chart().functions[0].lanes
    assert len(lanes) == 7
    assert all(len(lane.key) <= 200 and 0 < len(lane.label) <= 200 for lane in lanes)


def test_a_clock_of_ones_own():
    """Times are those of `timer`."""
    clock = FakeClock(100.0)
    fetch = single_flight_ttl(ttl=60)(lambda key: clock.advance(2.0))
    with timeline.record(fetch, timer=clock) as seen:
        clock.advance(1.0)
        fetch(1)
        clock.advance(4.0)
    (bar,) = bars(seen)
    assert (bar.start, bar.end, seen.chart().lasted) == (1.0, 3.0, 7.0)


def test_tracked_functions():
    """Plain and coroutine functions, with names, keys and errors; outside the block they are as before."""
    seen = timeline.record()

    def ask(symbol, *, side="bid"):
        if symbol == "bad":
            raise OSError
        return symbol + side

    async def aask(symbol):
        return symbol

    plain = seen.track(ask, name="the broker")
    keyed = seen.track(aask, key=lambda symbol: symbol.lower())
    assert plain("a") == "abid"
    with seen:
        assert plain("a", side="ask") == "aask"
        with pytest.raises(OSError):
            plain("bad")
        assert asyncio.run(keyed("B")) == "B"
    assert asyncio.run(keyed("B")) == "B"
    functions = {function.name: function for function in seen.chart().functions}
    broker = functions.pop("the broker")
    assert [lane.label for lane in broker.lanes] == ["('a', \"side='ask'\")", "bad"]
    assert [bar.how for lane in broker.lanes for bar in lane.flights] == ["returned", "failed"]
    (coroutine,) = functions.values()
    assert coroutine.name.endswith("aask")
    assert [lane.label for lane in coroutine.lanes] == ["b"]
    assert seen.totals.tracked == 3


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (lambda: timeline.record(len), TypeError, "^record: expected decorated functions"),
        (lambda: timeline.record(most=0), ValueError, "^most: expected at least 1"),
        (lambda: timeline.record(most=True), TypeError, "^most: expected a whole number"),
        (lambda: timeline.record(most=1.5), TypeError, "^most: "),
        (lambda: timeline.record(hits=1), TypeError, "^hits: "),
        (lambda: timeline.record(timer=3), TypeError, "^timer: "),
        (lambda: timeline.record().track(3), TypeError, "^function: "),
        (lambda: timeline.record().track(len, name=3), TypeError, "^name: "),
        (lambda: timeline.record().track(len, key="a"), TypeError, "^key: "),
        (lambda: timeline.svg_of({"": 3}), TypeError, "^timelines: "),
        (lambda: timeline.svg_of({}), ValueError, "^timelines: expected at least one"),
        (lambda: timeline.svg_of([timeline.record()]), TypeError, "^timelines: "),
        (lambda: timeline.record().to_svg(title=3), TypeError, "^title: expected a string"),
        (lambda: timeline.record().save("x.html", title=3), TypeError, "^title: expected a string"),
        (lambda: timeline.record().save(3), TypeError, "^path: expected a path, got 3"),
        (lambda: timeline.record().to_perfetto(3), TypeError, "^path: expected a path, got 3"),
        (lambda: timeline.save_together("x.html", {}), ValueError, "^timelines: expected at least one"),
        (lambda: timeline.svg_of({}, width=10), ValueError, "^width: "),
        (lambda: timeline.svg_of({}, width=1.5), TypeError, "^width: "),
    ],
)
def test_bad_input(wrong, error, said):
    """Each error names the argument."""
    with pytest.raises(error, match=said):
        wrong()


def test_a_timeline_records_once():
    """A second block is an error, and the first recording stays."""
    seen = timeline.record()
    with seen:
        pass
    with pytest.raises(RuntimeError, match="records once"):
        seen.__enter__()


def test_every_kind_of_event_is_known():
    """What is kept of an event is there, for all kinds that there are."""
    from singleflight.telemetry.events import BY_KIND

    assert set(KEPT) == ALL_KINDS
    assert WITHOUT_KEY < ALL_KINDS
    for kind, kept in KEPT.items():
        assert set(kept) <= set(BY_KIND[kind].__dataclass_fields__), kind


def test_nothing_is_imported_until_asked():
    """`import singleflight` does not bring the timeline."""
    program = "import sys, singleflight; print([name for name in sys.modules if 'timeline' in name])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.strip() == "[]"
