"""Races and slips that were found once, each by the smallest story that shows it."""

import gc
import threading
import weakref

import pytest

from singleflight import FlightDeadlock, KeyedLocks, single_flight_ttl
from singleflight.core import controls, coordinator, landing
from singleflight.core.call import Call, new_call
from singleflight.drivers import threads
from singleflight.locks import slots, waitgraph
from singleflight.locks.mutex import inside, mutex
from singleflight.locks.waiters import new_waiter
from singleflight.testing import Recorder

from ..amid import amid


def test_a_follower_of_a_failed_refresh_does_not_get_the_old_value(crowd, gate):
    """refresh promises a call: one that joined a failing refresh tries itself, or gets the failure."""
    seen, state = Recorder(wants={"fetch"}), ["fine"]

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch():
        if state[0] == "fine":
            return "old"
        gate.pass_()
        raise ConnectionError("down")

    fetch()
    state[0] = "down"
    crowd.add(fetch.refresh)
    seen.wait_for("fetch", 2)
    crowd.add(fetch.refresh)
    while fetch.flights()[0].followers < 1:
        pass
    gate.set()
    assert [type(outcome) for outcome in crowd.join()] == [ConnectionError] * 2
    assert fetch() == "old"


def test_put_wins_over_a_flight_that_began_before_it_stored(monkeypatch):
    """A flight that starts after put has detached, and lands after it has stored, is refused."""
    answers = iter(["asked before the put"])
    led = []

    @single_flight_ttl(ttl=60)
    def fetch():
        return next(answers)

    memo = fetch._self_cache
    store_put = memo.store.put

    def put_amid_a_flight(record, publisher=None):
        if publisher is not None or led:
            return store_put(record, publisher)
        led.append(1)
        call = new_call(Call, (), "another", "another", "another")
        coordinator.board(memo, call)  # begins: nothing is stored yet
        stored = store_put(record)
        landing.land(memo, call.flight, next(answers))  # lands: the put value is there
        return stored

    monkeypatch.setattr(memo.store, "put", put_amid_a_flight)
    controls.put(memo, (), "put")
    assert fetch.entry().value == "put"


@pytest.mark.parametrize("name", ["sorted", "tuple", "TypeError", "hash", "id"])
def test_parameters_may_be_called_like_builtins(name):
    """The compiled call uses none of the names that parameters may have."""
    space = {}
    exec(f"def fetch({name}=1, **more): return [{name}, more]", space)
    fetch = single_flight_ttl(ttl=60)(space["fetch"])
    assert fetch(b=2, a=3) is fetch(a=3, b=2)
    with pytest.raises(TypeError, match="'a'"):
        fetch(a=[])


def test_the_wrapped_function_of_a_class_method_gets_the_class():
    """__wrapped__ of a bound class method is bound to that class."""

    class Base:
        @single_flight_ttl(ttl=60)
        @classmethod
        def make(cls):
            return cls

    class Child(Base):
        pass

    assert Child.make.__wrapped__() is Child


def test_a_listener_that_cannot_say_what_it_wants_breaks_nothing(caplog):
    """A raising `wants` is logged once and counts as wanting nothing."""

    class Broken:
        @property
        def wants(self):
            raise RuntimeError("broken")

        def __call__(self, event):
            raise AssertionError

    fetch = single_flight_ttl(ttl=60, listener=Broken())(lambda: 1)
    assert (fetch(), fetch()) == (1, 1)
    assert caplog.text.count("failed; told once") == 1


def test_a_function_and_a_clock_that_both_raise_do_not_keep_the_key():
    """When function and timer both raise, the next call works."""
    broken = []

    def timer():
        if broken:
            raise OSError("clock")
        return 0.0

    @single_flight_ttl(ttl=60, timer=timer)
    def fetch(fail):
        if fail:
            broken.append(1)
            raise ValueError
        return 1

    with pytest.raises(ValueError):
        fetch(True)
    broken.clear()
    assert fetch.flights() == ()
    with pytest.raises(ValueError):
        fetch(True)


def test_a_refused_reentry_leaves_no_reference_cycle():
    """The error of a re-entry is gone when its handler is, without the collector."""

    class Local:
        pass

    alive = []

    @single_flight_ttl(ttl=60)
    def fetch():
        local = Local()
        alive.append(weakref.ref(local))
        return fetch()

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(FlightDeadlock) as caught:
            fetch()
        del caught
        assert alive[0]() is None
    finally:
        gc.enable()


def test_nothing_idle_outlives_an_instance():
    """Locks of a dead instance's keys are not kept, nor the other arguments in them."""

    class Argument:
        pass

    class Owner:
        @single_flight_ttl(ttl=60, maxsize=None)
        def value(self, argument):
            return 1

    argument = Argument()
    gone = weakref.ref(argument)
    Owner().value(argument)
    del argument
    assert gone() is None
    assert len(Owner.value.locks) == 0


def test_a_wait_of_a_signal_handler_does_not_hide_the_one_below_it(crowd, make_gate):
    """A thread that leads z and waits for x still does so while a handler on top of it waits for y."""
    z_led, x_asks, done = make_gate(), make_gate(), make_gate()
    locks = KeyedLocks()
    me = []

    def below():
        with locks("z"):
            me.append(threading.get_ident())
            z_led.set()
            x_asks.pass_()

    crowd.add(below)
    z_led.pass_()
    with locks("x"):
        # What the handler and the wait below it look like from outside: two waits, one on top.
        x_turn = locks.slot("x").turn
        y_turn = slots.Hold(("y",), new_waiter(slots.Waiter, "nobody", "nobody", "nobody"))
        with mutex:
            waitgraph.begin_waiting(me[0], slots.Hold(("x",), new_waiter(slots.Waiter, me[0], me[0], me[0])))
            waitgraph.waiting[me[0]][0].slots = [locks.slot("x")]
            waitgraph.begin_waiting(me[0], y_turn)
        try:
            with pytest.raises(FlightDeadlock), locks("z", timeout=5):
                pass
            assert x_turn.leader == threading.get_ident()
        finally:
            waitgraph.end_waiting(me[0], 0)
            x_asks.set()
    done.set()


def test_lining_up_names_each_waiter_once(crowd, gate, monkeypatch):
    """Looking for a cycle behind n queued locks takes steps in proportion to n, under the mutex."""
    locks = KeyedLocks()
    named = []
    ahead = slots.ahead

    def counted(*args):
        for pair in ahead(*args):
            named.append(pair)
            yield pair

    def hold():
        with locks("k"):
            gate.pass_()

    def queue():
        with locks("k"):
            pass

    crowd.add(hold)
    while not locks.held("k"):
        pass
    for number in range(30):
        crowd.add(queue)
        while locks.waiting("k") <= number:
            pass
    monkeypatch.setattr(slots, "ahead", counted)
    probe = slots.Hold(("k",), new_waiter(slots.Waiter, "probe", "probe", "probe"))
    with mutex:
        probe.slots = [locks.slot("k")]
        assert waitgraph.cycle(new_waiter(slots.Waiter, "probe", "probe", "probe"), probe) is None
    assert len(named) <= 31
    gate.set()


def test_a_lock_released_amid_a_section_is_given_up_after_it():
    """A finaliser that leaves a `with locks` block inside the library's own section does not upset it."""
    locks = KeyedLocks()
    held = locks("k")
    held.__enter__()
    with mutex:
        held.__exit__(None, None, None)
        assert locks.held("k")
    with locks("other"):
        pass
    assert not locks.held("k")


def test_a_lock_is_not_waited_for_inside_a_store(crowd, gate):
    """A finaliser inside a store's section may not wait for a key: its holder may need that store."""
    locks, holding = KeyedLocks(), threading.Event()

    def hold():
        with locks("k"):
            holding.set()
            gate.pass_()

    crowd.add(hold)
    assert holding.wait(10)
    fetch = single_flight_ttl(ttl=60)(lambda: 1)

    def take():
        with pytest.raises(FlightDeadlock), locks("k", timeout=5):
            pass

    amid(fetch._self_cache.store._lock, take)
    gate.set()


def test_a_call_is_made_directly_inside_a_store(crowd, gate):
    """A finaliser inside another store's section calls the function itself, and nobody failed."""
    begun, runs = threading.Event(), []

    @single_flight_ttl(ttl=60)
    def fetch(key, *, side):
        runs.append((key, side))
        if len(runs) == 1:
            begun.set()
            gate.pass_()
        return len(runs)

    crowd.add(lambda: fetch("k", side="bid"))
    assert begun.wait(10)
    other = single_flight_ttl(ttl=60)(lambda: 1)
    assert amid(other._self_cache.store._lock, lambda: fetch("k", side="bid")) == 2
    (flight,) = fetch.flights()
    assert flight.followers == 0
    gate.set()
    assert crowd.join() == [2]
    assert runs == [("k", "bid")] * 2
    stats = fetch.stats()
    assert (stats.calls, stats.fetches, stats.waits, stats.errors, stats.timeouts) == (1, 1, 0, 0, 0)


def test_a_key_that_falls_to_a_call_that_may_not_wait_for_it_is_free(crowd, gate, monkeypatch):
    """It has queued behind a hold, which ends just before it leaves: nobody is left to claim its flight."""
    fetch = single_flight_ttl(ttl=60, key=lambda key: key)(lambda key: key)
    held = threading.Event()

    def hold():
        with fetch.locks("k"):
            held.set()
            gate.pass_()

    def let_go():
        gate.set()
        crowd.join()
        return True

    crowd.add(hold)
    assert held.wait(10)
    monkeypatch.setattr(threads, "inside_other", let_go)
    assert fetch("k") == "k"
    stats = fetch.stats()
    assert (stats.calls, stats.in_flight, stats.locks) == (0, 0, stats.idle_locks)
    monkeypatch.undo()
    assert (fetch("k"), fetch.stats().calls) == ("k", 1)


def test_a_bypass_within_a_bypass_of_a_handler(monkeypatch):
    """A handler that opens a block while one is being opened does not hang, and both end."""
    fetch = single_flight_ttl(ttl=60)(lambda: object())
    memo = fetch._self_cache
    shut, nested = memo.shut, []

    def interrupted():
        if not nested:
            nested.append(1)
            with fetch.bypass():
                pass
        shut()

    monkeypatch.setattr(type(memo), "shut", lambda self: interrupted())
    with fetch.bypass():
        assert fetch() is not fetch()
    monkeypatch.undo()
    assert fetch() is fetch()


def test_users_keys_are_destroyed_outside_the_locks():
    """The key object that a dictionary keeps is let go of after the store's lock is free."""
    found = []

    class Key:
        def __init__(self, number):
            self.number = number

        def __hash__(self):
            return hash(self.number)

        def __eq__(self, other):
            return self.number == other.number

        def __del__(self):
            memo = fetch._self_cache
            found.append(memo.store.is_owned() or inside())

    @single_flight_ttl(ttl=60, key=lambda number: Key(number), maxsize=2, max_idle_locks=0)
    def fetch(number):
        return number

    for number in (1, 1, 2, 3, 1, 4):
        fetch(number)
        fetch.refresh(number)
    fetch.invalidate(1)
    fetch.cache_clear()
    assert found
    assert not any(found)


def test_a_follower_that_leads_next_can_close_a_cycle(crowd, gate):
    """Its own wait was counted as one from before what it leads, so what it waited for next was not seen."""
    seen, leaders = Recorder(wants={"fetch", "wait"}), iter(["it aborts", "it asks for C"])

    @single_flight_ttl(ttl=60, listener=seen)
    def fetch(key):
        if key == "C":
            seen.wait_for("wait", 2)  # the follower, which leads now, waits for this
            return fetch("B")
        if next(leaders) == "it aborts":
            gate.pass_()
            raise SystemExit
        crowd.add(fetch, "C")
        seen.wait_for("fetch", 3)
        return fetch("C")

    crowd.add(fetch, "B")
    seen.wait_for("fetch")
    crowd.add(fetch, "B")
    seen.wait_for("wait")
    gate.set()
    aborted, *others = crowd.join()
    assert type(aborted) is SystemExit
    assert FlightDeadlock in {type(outcome) for outcome in others}
