"""`executing`: what an observer has entered around each execution, in the place where the function runs."""

import _thread
import asyncio
import gc
import linecache
import logging
import signal
import sys
import threading
import weakref
from contextlib import contextmanager
from contextvars import ContextVar

import pytest

from singleflight import Execution, single_flight_ttl
from singleflight.process.registry import observe
from singleflight.telemetry import executions
from singleflight.testing import FakeClock, Recorder

from ..bulk.conftest import driving
from ..drivers import Executions, suspends, until
from .conftest import TURNS

inside = ContextVar("inside", default=())


def here():
    """The thread that runs this, and its task."""
    return threading.get_ident(), asyncio.current_task() if suspends() else None


class Observer(Recorder):
    """Records executions: where each was entered, how it was left, and that it was current meanwhile."""

    def __init__(self, name="observer", wants=()):
        super().__init__(wants)
        self.name, self.executions, self.places, self.left = name, [], [], []

    @contextmanager
    def executing(self, execution):
        self.executions.append(execution)
        self.places.append(here())
        token = inside.set((*inside.get(), self.name))
        try:
            yield
        except BaseException as error:
            self.left.append(type(error))
            raise
        else:
            self.left.append(None)
        finally:
            inside.reset(token)
            assert here() == self.places[-1] or len(self.places) > 1

    def shapes(self):
        return [(each.keys, each.kind, each.background) for each in self.executions]


@pytest.fixture(params=TURNS.values(), ids=TURNS)
def driver(request):
    """Threads, tasks or both; with loaders."""
    yield from driving(*request.param)


def test_it_is_entered_where_the_function_runs(driver, observing):
    """In the same thread or task and context; once for each execution; no more when observing has ended."""
    seen, places = Observer(), []

    async def fetch(key):
        places.append((here(), inside.get()))
        return key

    fetch = driver.decorate(fetch, ttl=60, key=lambda key: key, name="prices")
    stop = observing(seen, fetch.plain or fetch.coroutine)
    for key in ("a", "b", "a", "b"):
        assert driver.call(fetch, key) == key
    assert [inner for _, inner in places] == [("observer",)] * 2
    assert seen.places == [place for place, _ in places]
    assert seen.shapes() == [("a", "call", False), ("b", "call", False)] or seen.shapes() == [
        (("a",), "call", False),
        (("b",), "call", False),
    ]
    assert {each.name for each in seen.executions} == {"prices"}
    assert seen.left == [None, None]
    stop()
    assert driver.call(fetch, "c") == "c"
    assert places[-1][1] == ()
    assert len(seen.executions) == 2
    assert fetch._self_cache.is_direct


def test_what_it_tells(observing):
    """The function's own clock, and notes of its own; it is equal to itself alone."""
    clock, seen = FakeClock(), Observer()
    fetch = single_flight_ttl(ttl=60, timer=clock, name="prices")(lambda key: key)
    observing(seen, fetch)
    fetch("a"), fetch.refresh("a")
    first, second = seen.executions
    assert first.timer is second.timer is clock
    first.notes[seen] = "known"
    assert (first.notes, second.notes) == ({seen: "known"}, {})
    assert first != second
    assert first in {first}
    assert repr(first) == "Execution(name='prices', keys=(('a',),), kind='call')"


def test_what_it_tells_in_every_way_to_call(driver, observing):
    """The same; the function has its very arguments within it."""
    clock, seen, given = FakeClock(), Observer(), []

    async def price(symbol, *, side):
        given.append((symbol, side))

    price = driver.decorate(price, timer=clock)
    observing(seen, price.plain or price.coroutine)

    async def ask():
        await price("A", side="bid")

    driver.call(ask)
    (execution,) = seen.executions
    assert (execution.timer, execution.keys) == (clock, (("A", "bid"),))
    assert given == [("A", "bid")]


def test_a_failure_passes_through(driver, observing):
    """The context manager sees it and cannot swallow it: the caller receives the function's own error."""
    left = []

    class Swallows:
        wants = frozenset()

        def __call__(self, event):
            raise AssertionError

        def executing(self, execution):
            return self

        def __enter__(self):
            return "unused"

        def __exit__(self, kind, error, traceback):
            left.append((kind, str(error), traceback is not None))
            return True

    async def fetch(key):
        raise ValueError(key)

    fetch = driver.decorate(fetch, ttl=60)
    observing(Swallows(), fetch.plain or fetch.coroutine)
    outcome = driver.start(fetch, "a").outcome()
    assert isinstance(outcome, ValueError)
    assert left == [(ValueError, "a", True)]
    stats = fetch.stats()
    assert (stats.calls, stats.failures, stats.errors) == (1, 1, 1)


class Breaks:
    """Raises, where it is told to."""

    wants = frozenset()

    def __init__(self, where, error):
        self.where, self.error, self.steps, self.left = where, error, [], []

    def __call__(self, event):
        raise AssertionError

    def executing(self, execution):
        self._step("make")
        return self

    def __enter__(self):
        self._step("enter")

    def __exit__(self, *told):
        self.left.append(told)
        self._step("exit")

    def _step(self, step):
        self.steps.append(step)
        if step == self.where:
            raise self.error


@pytest.mark.parametrize("where", ["make", "enter", "exit"])
def test_what_it_raises_is_logged_once_and_dropped(driver, observing, caplog, where):
    """The function runs all the same, and the other observers are entered and left around it."""
    broken, before, after = Breaks(where, OSError("no room")), Observer("before"), Observer("after")
    ran = []

    async def fetch(key):
        ran.append(inside.get())
        return key

    fetch = driver.decorate(fetch, ttl=60)
    for observer in (before, broken, after):
        observing(observer, fetch.plain or fetch.coroutine)
    with caplog.at_level(logging.ERROR, "singleflight"):
        assert [driver.call(fetch, key) for key in "abc"] == ["a", "b", "c"]
    assert ran == [("before", "after")] * 3
    assert before.left == after.left == [None] * 3
    assert broken.steps == ["make", "enter", "exit"][: ["make", "enter", "exit"].index(where) + 1] * 3
    assert len([line for line in caplog.messages if "Breaks" in line]) == 1


@pytest.mark.parametrize("where", ["make", "enter", "exit"])
def test_the_log_may_fail_too(observing, where):
    """A filter of the log that raises is the caller's as little as the observer is."""

    def broken_filter(record):
        filtered.append(record)
        raise OSError("no log")

    broken, filtered = Breaks(where, OSError("no room")), []
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    observing(broken, fetch)
    logger = logging.getLogger("singleflight")
    logger.addFilter(broken_filter)
    try:
        assert fetch("a") == "a"
    finally:
        logger.removeFilter(broken_filter)
    assert broken.steps[-1] == where
    assert len(filtered) == 1


def test_no_context_manager_at_all(observing, caplog):
    """That is a failure of the observer, like any other."""

    def listener(event):
        raise AssertionError

    listener.wants, listener.executing = frozenset(), lambda execution: None
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    observing(listener, fetch)
    with caplog.at_level(logging.ERROR, "singleflight"):
        assert fetch(1) == 1
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("where", ["make", "enter", "exit"])
def test_an_interrupt_in_it_passes(observing, where):
    """The other observers are left, the key is free, and an execution that was not run is not run."""
    struck, outer, inner = Breaks(where, KeyboardInterrupt()), Observer("outer"), Observer("inner")
    ran, told = [], Breaks(None, None)
    fetch = single_flight_ttl(ttl=60)(lambda key: ran.append(key) or key)
    for observer in (outer, told, struck, inner):
        observing(observer, fetch)
    with pytest.raises(KeyboardInterrupt):
        fetch(1)
    assert ran == ([1] if where == "exit" else [])
    assert outer.left == [KeyboardInterrupt if where != "exit" else None]
    assert len(inner.left) == (where == "exit")
    assert struck.steps == ["make", "enter", "exit"][: ["make", "enter", "exit"].index(where) + 1]
    ((kind, error, traceback),) = told.left
    if where == "exit":
        assert (kind, error, traceback) == (None, None, None)
    else:
        assert (kind, error) == (KeyboardInterrupt, struck.error)
        assert traceback is not None
    assert fetch.flights() == ()
    struck.where = None
    assert fetch(1) == 1
    assert inside.get() == ()


def test_an_interrupt_on_the_way_out_hides_no_failure(observing):
    """Those that are left after it see how the function ended."""
    outer, struck = Breaks(None, None), Breaks("exit", KeyboardInterrupt())

    def fetch():
        raise failure

    failure = ValueError()
    fetch = single_flight_ttl(ttl=60)(fetch)
    observing(outer, fetch), observing(struck, fetch)
    with pytest.raises(KeyboardInterrupt):
        fetch()
    ((kind, error, traceback),) = outer.left
    assert (kind, error) == (ValueError, failure)
    assert traceback is not None


@pytest.mark.skipif(sys.platform == "win32", reason="needs a signal that only this test uses")
def test_an_interrupt_right_after_it_was_entered(observing):
    """Then it is left: it strikes between two calls, in the library's frame, where no other is below."""
    left = []

    class Entered(int):
        """A number that is entered by a function in C: it has a signal come, and is over before it does."""

        __enter__ = staticmethod(_thread.interrupt_main)

        def __exit__(self, kind, error, traceback):
            left.append(kind)

    def listener(event):
        raise AssertionError

    listener.wants, listener.executing = frozenset(), lambda execution: Entered(signal.SIGUSR1)
    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    observing(listener, fetch)
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)  # in C, too: it has no frame
    try:
        with pytest.raises(KeyboardInterrupt):
            fetch("a")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert left == [KeyboardInterrupt]
    assert fetch.flights() == ()


class AtLine:
    """Raises `KeyboardInterrupt` at the n-th line of `executions` that a signal could strike at."""

    UNSTRUCK = (
        *("enter(manager)", "self._left = place", "place = self._left", "listener, leave", "leave(", "try:"),
        *("self._telling.active", "del error", "finally:"),
    )

    def __init__(self, number):
        self.left, self.struck = number, False

    def __enter__(self):
        ours = executions.__file__
        sys.settrace(lambda frame, *_: self.local if frame.f_code.co_filename == ours else None)

    def __exit__(self, *_):
        sys.settrace(None)

    def local(self, frame, event, argument):
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        if event == "line" and not self.struck and not line.startswith(self.UNSTRUCK):
            self.left -= 1
            if self.left < 0:
                self.struck = True
                raise KeyboardInterrupt
        return self.local


def test_an_interrupt_at_any_line(observing):
    """Whatever was entered is left, in the order in which it has to be, and the key is free."""
    seen = [Observer("outer"), Observer("inner")]
    fetch = single_flight_ttl(ttl=60, key=lambda key: key)(lambda key: key)
    for observer in seen:
        observing(observer, fetch)
    fetch("first")
    number = 0
    while True:
        strike = AtLine(number)
        try:
            with strike:
                fetch(number)
        except KeyboardInterrupt:
            assert strike.struck
        if not strike.struck:
            break
        assert inside.get() == (), number
        assert fetch.flights() == ()
        assert fetch(number) == number
        number += 1
    assert number > 30
    assert len(seen[0].places) > number  # the last one was told, too
    for observer in seen:
        assert len(observer.left) == len([token for token in observer.places if token])


def test_a_loader_is_one_execution_for_all_its_keys(driver, observing):
    """One for each of its calls, with the keys of that call."""
    seen, ran = Observer(), []

    async def fetch(key):
        return key

    async def load(keys):
        ran.append((here(), inside.get(), list(keys)))
        return {key: key for key in keys}

    fetch = driver.decorate(fetch, ttl=60, key=lambda key: key)
    load = driver.loader(fetch, load, max_batch=2)
    observing(seen, fetch.plain or fetch.coroutine)
    assert driver.call(load, ["a", "b", "c"]) == {"a": "a", "b": "b", "c": "c"}
    assert [(place, keys) for place, _, keys in ran] == [
        (place, [key for (key,) in map(_parts, each.keys)])
        for place, each in zip(seen.places, seen.executions, strict=True)
    ]
    assert [inner for _, inner, _ in ran] == [("observer",)] * 2
    assert [(len(each.keys), each.kind) for each in seen.executions] == [(2, "bulk"), (1, "bulk")]
    assert driver.call(load, ["a", "c"]) == {"a": "a", "c": "c"}
    assert len(seen.executions) == 2


def _parts(key):
    return key if isinstance(key, tuple) else (key,)


def test_calls_that_are_gathered(driver, observing):
    """Whoever runs the loader enters; the calls that it loads are one execution."""
    seen = Observer()

    async def fetch(key):
        raise AssertionError("the loader does it")

    async def load(keys):
        assert inside.get() == ("observer",)
        return {key: key for key in keys}

    fetch = driver.decorate(fetch, ttl=60)
    driver.loader(fetch, load, gather=30, max_batch=3)
    observing(seen, fetch.plain or fetch.coroutine)
    callers = [driver.start(fetch, key) for key in "abc"]
    assert [caller.outcome() for caller in callers] == ["a", "b", "c"]
    assert sorted(_parts(key)[0] for each in seen.executions for key in each.keys) == ["a", "b", "c"]
    assert len(seen.executions) == fetch.stats().calls


class Gathers(Observer):
    """Also records in whose place each call was served that another caller's execution served."""

    def __init__(self, error=None):
        super().__init__()
        self.error, self.served = error, []

    def gathered(self, execution):
        self.served.append((here(), execution))
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("failure", [None, LookupError("none")], ids=["value", "failure"])
def test_who_was_gathered_is_told_of_the_execution(driver, observing, failure):
    """In the caller's own thread or task, and only one that did not begin the execution; once."""
    seen, places, entered = Gathers(), [], []

    async def fetch(key):
        raise AssertionError("the loader does it")

    async def load(keys):
        entered.append(here())
        if failure is not None:
            raise failure
        return {key: key for key in keys}

    fetch = driver.decorate(fetch, ttl=60, follower_retries=0)
    driver.loader(fetch, load, gather=30, max_batch=2)
    observing(seen, fetch.plain or fetch.coroutine)

    async def ask(key):
        places.append(here())
        return await fetch(key)

    callers = [driver.start(ask, key) for key in "ab"]
    outcomes = [caller.outcome() for caller in callers]
    assert [getattr(outcome, "args", outcome) for outcome in outcomes] == (
        ["a", "b"] if failure is None else [failure.args] * 2
    )
    ((place, execution),) = seen.served
    assert [execution] == seen.executions
    assert place in places
    assert place not in entered


def test_what_it_raises_there_is_logged_and_dropped(driver, observing, caplog):
    """The caller has its value."""
    seen = Gathers(OSError("no room"))

    async def fetch(key):
        raise AssertionError("the loader does it")

    async def load(keys):
        return {key: key for key in keys}

    fetch = driver.decorate(fetch, ttl=60)
    driver.loader(fetch, load, gather=30, max_batch=2)
    observing(seen, fetch.plain or fetch.coroutine)
    with caplog.at_level(logging.ERROR, "singleflight"):
        callers = [driver.start(fetch, key) for key in "ab"]
        assert [caller.outcome() for caller in callers] == ["a", "b"]
    assert len([line for line in caplog.messages if "Gathers" in line]) == len(seen.served) == 1


def test_in_line_it_is_entered_when_it_is_let_in(driver, observing):
    """Waiting for a seat is no part of the execution."""
    seen, begun, gate = Observer(), Executions(), driver.gate()

    async def fetch(key):
        begun.begin()
        await gate
        return key

    fetch = driver.decorate(fetch, ttl=60, max_flights=1)
    observing(seen, fetch.plain or fetch.coroutine)
    first = driver.start(fetch, "a")
    begun.wait_for(1)
    second = driver.start(fetch, "b")
    until(lambda: any(flight.queued for flight in fetch.flights()))
    assert len(seen.executions) == 1
    gate.set()
    assert (first.outcome(), second.outcome()) == ("a", "b")
    assert seen.left == [None, None]


def test_renewals_run_in_the_context_of_their_caller(driver, observing):
    """In the pool and in tasks; nobody waits for them."""
    clock, seen, renewed = FakeClock(), Observer(), threading.Event()
    caller = ContextVar("caller", default=None)
    found = []

    async def fetch(key):
        found.append((caller.get(), inside.get()))
        if len(found) > 1:
            renewed.set()
        return len(found)

    fetch = driver.decorate(fetch, ttl=60, grace=60, timer=clock)
    observing(seen, fetch.plain or fetch.coroutine)

    async def ask(name):
        caller.set(name)
        return await fetch("a")

    assert driver.call(ask, "first") == 1
    clock.advance(61)
    assert driver.call(ask, "second") == 1
    assert renewed.wait(10)
    until(lambda: len(seen.left) == 2)
    assert found == [("first", ("observer",)), ("second", ("observer",))]
    assert [(each.kind, each.background) for each in seen.executions] == [("call", False), ("refresh", True)]


def test_followers_are_told_of_the_execution(driver, observing):
    """Of the one that they wait for, in `wait` and `share`; a listener's lines and texts do not show it."""
    seen, begun, gate = Observer(wants={"wait", "share"}), Executions(), driver.gate()

    async def fetch(key):
        begun.begin()
        await gate
        return key

    fetch = driver.decorate(fetch, ttl=60)
    observing(seen, fetch.plain or fetch.coroutine)
    callers = [driver.start(fetch, "a")]
    begun.wait_for(1)
    callers += [driver.start(fetch, "a") for _ in range(3)]
    seen.wait_for("wait", 3)
    gate.set()
    assert [caller.outcome() for caller in callers] == ["a"] * 4
    (execution,) = seen.executions
    assert [event.execution for event in seen.events] == [execution] * 6
    assert "Execution(" not in repr(seen.events)
    assert isinstance(execution, Execution)
    assert repr(execution).startswith("Execution(name=")


def test_who_does_not_observe_leaves_no_trace(driver):
    """The events of a flight without executions say so."""
    seen, begun, gate = Recorder(), Executions(), driver.gate()

    async def fetch(key):
        begun.begin()
        await gate
        return key

    fetch = driver.decorate(fetch, ttl=60, listener=seen)
    assert fetch._self_cache.is_direct
    first = driver.start(fetch, "a")
    begun.wait_for(1)
    second = driver.start(fetch, "a")
    seen.wait_for("wait")
    gate.set()
    assert first.outcome() == second.outcome() == "a"
    assert [event.execution for event in (*seen.of("wait"), *seen.of("share"))] == [None, None]


def test_the_own_listener_may_have_it(driver):
    """At decoration, with events or without."""
    seen = Observer(wants={"land"})

    async def fetch(key):
        assert inside.get() == ("observer",)
        return key

    fetch = driver.decorate(fetch, ttl=60, listener=seen)
    assert driver.call(fetch, "a") == driver.call(fetch, "a") == "a"
    assert seen.kinds() == ["land"]
    assert seen.left == [None]


def test_inside_bypass_and_switched_off_there_is_none(driver, observing, monkeypatch):
    """Such calls are not the library's."""
    seen = Observer()

    async def fetch(key):
        return key

    fetch = driver.decorate(fetch, ttl=60)
    observing(seen, fetch.plain or fetch.coroutine)
    with fetch.bypass():
        assert driver.call(fetch, "a") == "a"
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")
    assert driver.call(fetch, "a") == "a"
    assert seen.executions == []


def test_calls_that_an_observer_makes_are_not_told(observing):
    """Or it would never end."""
    entered = []

    class Calls:
        wants = frozenset()

        def __call__(self, event):
            raise AssertionError

        @contextmanager
        def executing(self, execution):
            entered.append(execution.keys)
            fetch("before")
            yield
            fetch("after")

    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    observing(Calls(), fetch)
    assert fetch("a") == "a"
    assert entered == [(("a",),)]
    assert fetch.stats().calls == 3
    assert fetch("b") == "b"
    assert entered == [(("a",),), (("b",),)]


def test_nothing_is_kept(observing):
    """Neither what failed nor the flight; `Execution` knows no value."""

    class Thing(Exception):
        pass

    things = []

    def fetch(key):
        error = Thing(key)
        things.append(weakref.ref(error))
        try:
            raise error
        finally:
            del error

    fetch = single_flight_ttl(ttl=60, follower_retries=0)(fetch)
    observing(Observer(), fetch)
    gc.disable()
    try:
        with pytest.raises(Thing):
            fetch("a")
        assert [thing() for thing in things] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["executing", "gathered"])
@pytest.mark.parametrize("begin", [lambda one: single_flight_ttl(ttl=1, listener=one), observe])
def test_bad_input(begin, name):
    """An `executing` or `gathered` that is no callable is refused at once."""

    def listener(event):
        raise AssertionError

    setattr(listener, name, 3)
    with pytest.raises(TypeError, match=rf"^listener: {name}: expected a callable, got 3"):
        begin(listener)


def test_an_attribute_that_raises_is_none(observing):
    """The events are told."""
    heard = []

    class Odd:
        @property
        def executing(self):
            raise OSError

        def __call__(self, event):
            heard.append(event.kind)

    fetch = single_flight_ttl(ttl=60)(lambda key: key)
    observing(Odd(), fetch)
    assert fetch(1) == 1
    assert heard == ["fetch", "land"]
    assert fetch._self_cache.is_direct
