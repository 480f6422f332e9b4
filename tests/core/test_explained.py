"""What a call would do, in each state that a key can be in; and a flight that loses its key from outside."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from singleflight import single_flight_ttl
from singleflight.core import controls, coordinator, landing
from singleflight.core.call import HIT, JOIN, LEAD, Nobody
from singleflight.core.controls import detach_flight
from singleflight.core.flight import LANDED, UNCLAIMED
from singleflight.locks.slots import Hold
from singleflight.storage.record import AgeingRecord
from singleflight.telemetry.views import FlightInfo
from singleflight.testing import FakeClock

from ..drivers import PATIENCE
from .conftest import caller, in_flight


class Source:
    """A function with a clock, and a gate that a test may shut."""

    def __init__(self):
        self.clock, self.gate, self.entered = FakeClock(), threading.Event(), threading.Semaphore(0)
        self.gate.set()
        self.fails = False
        self.read = single_flight_ttl(ttl=10, grace=20, failure_ttl=5, timer=self.clock, name="read")(
            self._load
        )

    def _load(self, symbol):
        self.entered.release()
        assert self.gate.wait(PATIENCE)
        if self.fails:
            raise ValueError(symbol)
        return symbol

    def told(self):
        made = self.read.explain("ASML")
        assert made.key == ("ASML",)
        return made.would, made.entry and made.entry.value, made.flight, made.fresh_for, made.stale_for


@pytest.fixture
def source():
    return Source()


def test_a_value_that_ages(source):
    """To the moment: fresh, stale, and no longer there."""
    assert source.told() == ("fetch", None, None, 0.0, 0.0)
    source.read("ASML")
    for passed, told in [
        (0.0, ("hit", "ASML", None, 10.0, 20.0)),
        (9.5, ("hit", "ASML", None, 0.5, 20.0)),
        (0.5, ("stale_hit", "ASML", None, 0.0, 20.0)),
        (19.5, ("stale_hit", "ASML", None, 0.0, 0.5)),
        (0.5, ("fetch", None, None, 0.0, 0.0)),
    ]:
        source.clock.advance(passed)
        assert source.told() == told


def test_a_failure_that_is_stored(source):
    """It would be raised: there is no entry."""
    source.fails = True
    with pytest.raises(ValueError, match="ASML"):
        source.read("ASML")
    assert source.told() == ("hit", None, None, 5.0, 0.0)
    assert source.read.explain("ASML").entry is None


def test_a_function_that_is_bypassed(source):
    """Every call runs it, whatever there is."""
    source.read("ASML")
    with source.read.bypass():
        assert source.told() == ("fetch", None, None, 0.0, 0.0)
    assert source.told()[0] == "hit"


def test_a_value_that_is_being_renewed(source):
    """The renewal is shown; a call does not wait for it."""
    source.read("ASML")
    source.clock.advance(10)
    source.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        renewal = pool.submit(source.read.refresh, "ASML")
        for _ in range(2):
            assert source.entered.acquire(timeout=PATIENCE)
        try:
            would, entry, flight, *rest = source.told()
            assert (would, entry, flight.kind, rest) == ("stale_hit", "ASML", "refresh", [0.0, 20.0])
        finally:
            source.gate.set()
        assert renewal.result(PATIENCE) == "ASML"


def test_a_flight_that_a_bypassed_call_does_not_join(source):
    """It is shown, and the sentence does not say that it would be waited for."""
    source.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(source.read, "ASML")
        assert source.entered.acquire(timeout=PATIENCE)
        try:
            assert "ASML',) would wait for the call by thread " in str(source.read.explain("ASML"))
            with source.read.bypass():
                made = source.read.explain("ASML")
            assert (made.would, made.flight.key) == ("fetch", ("ASML",))
            assert str(made).startswith("('ASML',) would be fetched: it would not join the call by thread ")
        finally:
            source.gate.set()
        assert first.result(PATIENCE) == "ASML"


def told(cache):
    made = controls.explain(cache, "k")
    return made.would, made.flight is not None, str(made).partition("would ")[2].partition(":")[0]


def test_a_lock_that_is_held(memo):
    """There is no flight: its owner is waited for."""
    slot = memo.locks.enter("k")
    slot.turn = Hold(("k",), caller(actor="owner"), None)
    assert told(memo) == ("wait", False, "wait")


@pytest.mark.parametrize(("due", "would"), [(999.9, "fetch"), (1000.0, "fetch"), (1000.1, "wait")])
def test_a_flight_that_takes_too_long(memo, seconds, due, would):
    """The next caller takes its key."""
    in_flight(memo, due=False).due = due
    assert told(memo)[:2] == (would, True)
    assert coordinator.board(memo, caller(actor="next")) is (LEAD if would == "fetch" else JOIN)


def test_a_flight_that_nobody_leads_yet(memo):
    """The next caller does: it is none in progress."""
    first = in_flight(memo, due=False)
    assert coordinator.board(memo, caller(actor="follower")) is JOIN
    landing.land(memo, first, None)
    assert first.successor.state is UNCLAIMED
    assert told(memo) == ("fetch", False, "be fetched")


def test_a_flight_that_an_interrupt_left_at_its_key(memo):
    """It is over, and nobody waits for it."""
    in_flight(memo, due=False, state=LANDED)
    assert told(memo) == ("fetch", False, "be fetched")


def test_a_renewal_that_waits_for_a_thread(make, clock):
    """Once the value is no longer served the next caller runs it by itself."""
    memo = make(grace=5)
    memo.store.put(AgeingRecord("k", 1, 88.0, 10.0, grace=5.0, refresh_at=98.0))
    assert coordinator.board(memo, caller()) is HIT
    assert told(memo) == ("stale_hit", True, "be a stale hit")
    clock.set(104.0)
    assert told(memo) == ("fetch", True, "be fetched")
    assert coordinator.board(memo, caller()) is LEAD
    assert told(memo) == ("wait", True, "wait for the call by caller, in flight for 0 s with 0 waiting")


def test_a_flight_that_ends_while_it_is_to_lose_its_key(memo, monkeypatch):
    """Its successor is flying by then, and keeps the key."""
    first, follower = in_flight(memo, due=False), caller(actor="follower")
    assert coordinator.board(memo, follower) is JOIN

    def ended():
        landing.land(memo, first, None)
        assert coordinator.awake(memo, follower) is LEAD
        return False

    monkeypatch.setattr(controls, "inside", ended)  # asked before the section begins
    detach_flight(memo, first)
    assert follower.flight is first.successor
    assert (follower.flight.slot.turn, follower.flight.detached) == (follower.flight, False)


class Named:
    """Leads, as a task does."""

    def get_name(self):
        return "reader"


@pytest.mark.parametrize(
    ("leader", "name"),
    [
        (threading.get_ident(), f"thread {threading.current_thread().name!r}"),
        (-1, "thread -1"),
        (Named(), "task 'reader'"),
        (Nobody(), "nobody yet"),
    ],
    ids=["this thread", "a thread that has gone", "a task", "nobody"],
)
def test_who_leads_a_flight(leader, name):
    """The thread or task by its name; a thread that has ended by its number."""
    assert controls.name_of(leader) == name


@pytest.mark.parametrize("queued", [True, False])
def test_what_is_shown_of_a_flight(memo, clock, queued):
    """Everything, each in its place; who leads it in another process comes first."""
    flight = in_flight(memo, due=False)
    assert coordinator.board(memo, caller(actor="follower")) is JOIN
    flight.detached = True
    memo.line = SimpleNamespace(is_queued=lambda asked: asked is flight and queued)
    memo.tier = SimpleNamespace(leader_of=lambda asked: "other" if asked is flight else None)
    clock.advance(2)
    told = ("model", "k", "other", 2.0, 1, "call", True, queued)
    assert controls.info(flight, memo, memo.timer()) == FlightInfo(*told)
    memo.tier.leader_of = lambda asked: None
    assert controls.info(flight, memo, 0.0) == FlightInfo("model", "k", "leader", 0.0, *told[4:])


def test_a_flight_and_one_that_has_lost_its_key(source):
    """It is waited for while it has its key, once; a flight that has ended has none to lose."""
    source.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(source.read, "ASML")
        assert source.entered.acquire(timeout=PATIENCE)
        try:
            would, entry, flight, *rest = source.told()
            assert (would, entry, flight.key, rest) == ("wait", None, ("ASML",), [0.0, 0.0])
            cache = source.read._self_cache
            [slot] = cache.locks.live()
            lost = slot.turn
            detach_flight(cache, lost)
            assert source.told()[:3] == ("fetch", None, None)
            second = pool.submit(source.read, "ASML")
            assert source.entered.acquire(timeout=PATIENCE)
            detach_flight(cache, lost)
            assert source.told()[0] == "wait"
        finally:
            source.gate.set()
        assert first.result(PATIENCE) == second.result(PATIENCE) == "ASML"
    assert source.told()[0] == "hit"
