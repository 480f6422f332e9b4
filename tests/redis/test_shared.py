"""What the tier of one function does where something was changed here or elsewhere: no server is asked."""

import asyncio
from types import SimpleNamespace

import pytest

from singleflight import single_flight_ttl
from singleflight.common.keys import plain
from singleflight.fleet.claims import Claim, Release
from singleflight.fleet.cuts import Numbers
from singleflight.fleet.drops import Drop
from singleflight.fleet.keybytes import key_bytes
from singleflight.redis import shared
from singleflight.redis.entries import Terms
from singleflight.redis.scripts import News
from singleflight.redis.shared import SharedFunction
from singleflight.storage.record import WeighedRecord

from .passages import AWAY, PERIOD, REFUSED, Codec, Link, Struck

OTHER = b"o" * 8


class Noting(Link):
    """One that also notes what the server is to be told; it sends nothing."""

    def __init__(self):
        super().__init__()
        self.told = []
        self.clients = SimpleNamespace(call_all=self._call_all)

    def add(self, function):
        self.all.append(function)

    def note(self, kind, function, name=b"", payload=None):
        drop = Drop(kind, function.digest, name, len(self.noted) + 1, payload)
        self.noted[drop] = drop
        return drop

    def note_cut(self, function, tags):
        return [self.note("cut", function, function.tag_digest(tag)) for tag in tags]

    def in_order(self, drop):
        return [drop]

    def orders(self, drop):
        return [SimpleNamespace(call=drop, done=lambda _: None)]

    def _call_all(self, calls):
        self.told += calls
        if self.away:
            raise AWAY
        return [b"1" if index == 0 else [b"3", b"4"] for index in range(len(calls))]

    away = False


@pytest.fixture
def tier():
    """The tier of a function that has two values, and stands alone."""
    function = single_flight_ttl(ttl=60, name="prices", timer=lambda: 1000.0)(lambda key: key)
    function("a"), function("b")
    made = SharedFunction(Noting(), function._self_cache, Terms(10.0, 1000, None, ()), Codec(), 7, "prices")
    made.function = function
    made.learn(Numbers(3, 4), era=3)
    return made


def known_as(tier, key):
    return tier.known_as(key_bytes((key,)))


def a_record(key):
    record = WeighedRecord(key, b"x", 1000.0, 60.0, 0.0, 1060.0)
    record.tags, record.weight = ("blue",), 1
    return record


def news(kind, key=b"", number=0):
    return News(kind, b"f" * 16, key, OTHER, number)


def test_a_function_that_is_defined_again_is_known_by_what_it_is(tier):
    """Not by the object that stands for it: a reload and a notebook's cell make another one."""
    assert tier.is_again(SimpleNamespace(identity="prices")) is True
    assert tier.is_again(SimpleNamespace(identity="other")) is False


def test_a_record_that_is_put_is_no_older_than_any(tier):
    """Nobody knows when the server was told of it: a renewal takes any value that is there."""
    record, tell = tier.put(("a",), a_record(("a",)))
    assert (record.born, record.ttl, record.value) == (0, 10.0, b"x")
    assert record.tags == tier.marks(known_as(tier, "a"), ("blue",))
    (drop,) = tier.link.noted
    assert (drop.kind, drop.name, drop.payload[0]) == ("put", known_as(tier, "a"), key_bytes(("a",)))
    envelope = drop.payload[1]
    assert (envelope.payload, envelope.ttl, envelope.tags) == (b"x", 60.0, ("blue",))
    tell()
    assert [drop.kind for drop, _ in tier.link.confirmed] == ["put"]


def test_the_server_is_told_at_once_where_a_thread_may_wait(tier):
    """All that is noted, in order."""
    told = [tier.drop(("a",)), tier.cut(("blue", "red"))]
    assert [(drop.kind, drop.name, drop.payload) for drop in tier.link.noted] == [
        ("drop", known_as(tier, "a"), key_bytes(("a",))),
        ("cut", tier.tag_digest("blue"), None),
        ("cut", tier.tag_digest("red"), None),
    ]
    for tell in told:
        tell()
    assert len(tier.link.told) == 4
    assert [drop.kind for drop, _ in tier.link.confirmed] == ["drop", "cut", "cut"]
    assert tier.link.keeper.orders == []


def test_the_server_is_told_of_a_clear(tier):
    """With no key's name: they are hidden by an epoch."""
    tell = tier.drop_all()
    assert [(drop.kind, drop.name) for drop in tier.link.noted] == [("clear", b"")]
    tell()
    assert [drop.kind for drop, _ in tier.link.confirmed] == ["clear"]


@pytest.mark.parametrize("where", ["running_loop", "inside", "inside_other"])
def test_nobody_waits_where_others_would(tier, where, monkeypatch):
    """In an event loop, in a section, in one of a cache: the keeper tells."""
    monkeypatch.setattr(shared, "running_loop", lambda: object() if where == "running_loop" else None)
    monkeypatch.setattr(shared, "inside", lambda: where == "inside")
    monkeypatch.setattr(shared, "inside_other", lambda: where == "inside_other")
    tell = tier.drop(("a",))
    (drop,) = tier.link.noted
    tell()
    assert tier.link.keeper.orders == [drop]
    assert tier.link.told == []


def test_a_change_that_this_thread_is_sending_further_up_is_left_to_the_keeper(tier):
    """A signal handler or finaliser has interrupted that, and would wait for itself."""
    tell = tier.cut(("blue", "red"))
    _, red = tier.link.noted
    tier.link.taken.append(red)
    tell()
    assert tier.link.keeper.orders == [*tier.link.noted]
    assert tier.link.told == []


def test_what_an_interrupt_has_kept_from_being_told_is_left_to_the_keeper(tier):
    """All of it, and the interrupt goes on to whoever invalidated."""
    tell = tier.cut(("blue", "red"))

    def strike(calls):
        raise Struck

    tier.link.clients.call_all = strike
    with pytest.raises(Struck):
        tell()
    assert tier.link.keeper.orders[-2:] == [*tier.link.noted]
    assert tier.link.taken == []


def test_a_thread_waits_for_another_one_that_sends_the_same_change(tier, monkeypatch):
    """And finds then that nothing is left to be told."""
    slept, (drop,) = [], [tier.link.note("drop", tier, known_as(tier, "a"), key_bytes(("a",)))]
    monkeypatch.setattr(tier.link, "takes", lambda *_: None)

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            tier.link.confirm(drop, 0)

    monkeypatch.setattr(shared, "time", SimpleNamespace(sleep=sleep))
    tier._send(drop)
    assert slept == [0.002] * 3
    assert (tier.link.told, tier.link.keeper.orders) == ([], [])


@pytest.mark.parametrize("known", [True, False], ids=["numbers known", "numbers unknown"])
@pytest.mark.parametrize("where", ["thread", "task"])
@pytest.mark.parametrize("refused", [AWAY, REFUSED], ids=["lost", "refused"])
def test_a_server_that_does_not_say_explains_nothing(tier, where, known, refused):
    """Whichever question it refuses: that is noted as the trouble it is."""
    asked = []

    def call_all(calls):
        asked.append(calls)
        if refused is AWAY:
            raise refused
        return [refused] * len(calls)

    async def acall_all(calls):
        return call_all(calls)

    async def main():
        return await tier.explain(("a",))

    tier.link.clients = SimpleNamespace(call_all=call_all, acall_all=acall_all)
    if not known:
        tier.numbers.forget()
    explained = tier.explain(("a",)) if where == "thread" else asyncio.run(main())
    assert (explained.key, explained.would) == (plain(("a",)), "degraded")
    assert tier.link.troubles == [(refused, PERIOD)]
    assert (asked == [[tier.ask_numbers()]]) is not known


def test_while_the_server_is_not_asked_it_is_not_told(tier):
    """Nor where it is lost: what is noted is told when it is back."""
    tier.link.connected = None
    tier.drop(("a",))()
    assert (tier.link.told, tier.link.keeper.orders) == ([], [])
    tier.link.connected, tier.link.away = PERIOD, True
    tier.drop(("a",))()
    assert tier.link.troubles == [(AWAY, PERIOD)]
    assert len(tier.link.noted) == 2


def test_a_new_epoch_drops_all_that_is_here(tier):
    """It is known from then on."""
    tier.heard(news("epoch", number=5))
    assert tier.latest() == Numbers(5, 4)
    assert tier.link.era == 3
    assert tier.cache.store.records() == []


def test_the_epoch_that_is_known_drops_nothing(tier):
    """It is this process's own, which the message has overtaken."""
    tier.heard(news("epoch", number=3))
    assert len(tier.cache.store.records()) == 2


def test_an_epoch_that_goes_back_is_asked_for(tier):
    """It was lost on the server; an answer that is on its way may be older."""
    tier.heard(news("epoch", number=2))
    assert tier.known_numbers() is None
    assert tier.link.era == 4
    assert tier.cache.store.records() == []


def test_a_drop_detaches_the_flights_of_its_key(tier, monkeypatch):
    """Those on their way by the server, and those that run alone; no others."""
    detached = []
    monkeypatch.setattr(shared, "detach_flight", lambda *args: detached.append(args))
    ours, theirs = known_as(tier, "a"), known_as(tier, "b")
    tier.flying = {1: SimpleNamespace(digest=ours), 2: SimpleNamespace(digest=theirs)}
    tier.alone = {3: ours, 4: theirs}
    tier.heard(news("cut", ours))
    assert detached == []
    tier.heard(news("drop", ours))
    assert detached == [(tier.cache, 1), (tier.cache, 3)]


def test_the_lease_of_a_flight_that_lost_its_key_is_released(tier):
    """If it has one: whoever waits for it elsewhere is to go on."""
    handed, release = [], Release(None)

    def passage(renews, step):
        claim = SimpleNamespace(renews=renews, told_off=lambda: step)
        return SimpleNamespace(claim=claim, hand_over=handed.append)

    tier.flying = {1: passage(True, release), 2: passage(False, release), 3: passage(True, None)}
    for flight in (1, 2, 3, 4):
        tier.unseated(flight)
    assert handed == [release]
    assert handed[0] is release


def test_after_a_gap_nothing_near_is_served(tier, monkeypatch):
    """Nobody joins what runs here: a drop of its key may have been missed. What it leads is fenced."""
    detached = []
    monkeypatch.setattr(shared, "detach_flight", lambda *args: detached.append(args))
    flying = [SimpleNamespace(flight=n, claim=SimpleNamespace(runs=n == 1), fenced=False) for n in (1, 2)]
    tier.flying = {passage.flight: passage for passage in flying}
    tier.alone = {3: b"named"}
    near, _ = tier.put(("c",), a_record(("c",)))
    tier.forget_near()
    assert tier.known_numbers() is None
    assert detached == [(tier.cache, 1), (tier.cache, 3)]
    assert [passage.fenced for passage in flying] == [True, False]
    assert tier.cache.store.is_cut(near.tags, 0)


def test_in_a_forked_child_nothing_is_its_own(tier):
    """What flies is its parent's, what is near may have been dropped before the child listens."""
    claim = Claim("read", b"t", None)
    tier.flying, tier.alone = {1: SimpleNamespace(claim=claim)}, {2: b"named"}
    tier.count("degraded")
    tier.after_fork()
    assert claim.withdrawn
    assert tier.flying == tier.alone == {}
    assert tier.cache.store.records() == []
    assert tier.known_numbers() is None
    assert set(tier.counted().values()) == {0}


def test_a_renewal_that_another_process_does_is_looked_at_again(tier, monkeypatch):
    """After a second; its flight lands with nothing."""
    postponed, flight = [], object()
    monkeypatch.setattr(shared, "postpone", lambda *args: postponed.append(args))
    assert tier._land(flight, None) is None
    assert postponed == [(tier.cache, flight, 1.0)]
