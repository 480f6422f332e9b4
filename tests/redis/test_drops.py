"""What is dropped and put here reaches the server, whatever this process knows of it, and once."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from cachetools import LRUCache

from singleflight import single_flight_ttl
from singleflight.core.landing import new_record
from singleflight.fleet.cuts import Numbers
from singleflight.fleet.drops import Drop
from singleflight.redis import link as links
from singleflight.redis import scripts, shared
from singleflight.redis.clients import Kind, Trouble
from singleflight.redis.texts import PUT

from ..children import in_child
from ..drivers import PATIENCE, until
from .fleets import Fleet, Loads, called, link_of, start, waits_elsewhere


class Struck(BaseException):
    """An interrupt, at a place of the test's choice."""


@pytest.fixture
def deaf():
    """Has a process hear nothing, as where its user lacks the right to subscribe."""

    def deafen(function):
        bus = function._self_cache.tier.link.bus
        bus.start = lambda: None
        bus._tried.set()

    return deafen


@pytest.fixture
def soon(monkeypatch):
    """Has drops that were refused be sent again soon."""
    monkeypatch.setattr(links, "_RETRY", 0.02)


@pytest.mark.parametrize("drop", ["invalidate", "put", "clear"])
def test_a_process_that_has_asked_nothing_yet_may_drop(fleet, drop):
    """Also after others have cleared the function, so that its entries have other names."""
    body = Loads(lambda n: n)
    a, b, c = (fleet(body) for _ in range(3))
    a.cache_clear()
    assert b("ASML") == 1
    {"put": lambda: c.put(70, "ASML"), "clear": c.cache_clear, "invalidate": lambda: c.invalidate("ASML")}[
        drop
    ]()
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == (70 if drop == "put" else 2)


@pytest.mark.parametrize("where", ["thread", "loop"])
@pytest.mark.parametrize("drop", ["invalidate", "put"])
def test_a_drop_reaches_what_has_its_name_since_the_epoch_was_lost(fleet, direct, drop, where):
    """As on a server that came back empty, before this process has heard of that."""
    body = Loads(lambda n: n)
    a, b, c = (fleet(body) for _ in range(3))
    a.cache_clear()
    assert a("other") == 1
    assert direct.delete(scripts.epoch_key("sf", a._self_cache.tier.digest))
    assert b("ASML") == 2

    def change():
        a.put(70, "ASML") if drop == "put" else a.invalidate("ASML")

    async def main():
        change()

    asyncio.run(main()) if where == "loop" else change()
    assert fleet.store_of(a).flush(PATIENCE)
    assert c("ASML") == (70 if drop == "put" else 3)


def test_a_drop_after_a_gap_reaches_the_server(fleet):
    """Names are asked for anew."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    a.cache_clear()
    assert (a("ASML"), b("ASML")) == (1, 1)
    a._self_cache.tier.link._gap(False)
    a.invalidate("ASML")
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 2


def test_a_drop_on_an_event_loop_reaches_the_server(fleet):
    """By the keeper."""
    body = Loads(lambda n: n)
    a, b, c = (fleet(body) for _ in range(3))
    a.cache_clear()
    assert b("ASML") == 1

    async def main():
        c.invalidate("ASML")
        assert await fleet.store_of(c).flush()

    asyncio.run(main())
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 2


def test_what_is_put_is_dropped_by_others(fleet):
    """Near, too, and whatever was known here when it was put."""
    body = Loads(lambda n: n)
    a, b, c = (fleet(body) for _ in range(3))
    a.cache_clear()
    b.put(70, "ASML")
    assert b._self_cache.tier.link.bus.ready(PATIENCE)
    b.put(70, "ASML")
    assert c("ASML") == 70
    c.invalidate("ASML")
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 1


def test_what_is_put_with_tags_is_found_by_others(fleet):
    """Until one of them is invalidated."""
    body = Loads(lambda n: n)
    a, b, c = (fleet(body, tags=lambda landing: ["eu"]) for _ in range(3))
    a.put(70, "ASML")
    assert b("ASML") == 70
    b.invalidate_tag("eu")
    assert c("ASML") == 1


def test_a_deaf_process_asks_for_cuts_each_time(fleet, deaf):
    """It could not hear of one."""
    body = Loads(lambda n: n)
    a = fleet(body, tags=lambda landing: ["eu"])
    b = fleet(body, tags=lambda landing: ["eu"], terms={"near_ttl": 1e-6})
    deaf(b)
    assert (a("ASML"), b("ASML")) == (1, 1)
    a.invalidate_tag("eu")
    assert b("ASML") == 2


def test_a_deaf_process_asks_for_the_epoch_each_time(fleet, deaf):
    """It could not hear that all was dropped."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body, terms={"near_ttl": 1e-6})
    deaf(b)
    assert (a("ASML"), b("ASML")) == (1, 1)
    a.cache_clear()
    assert b("ASML") == 2


@pytest.mark.parametrize("foreign", [b"?", b"9" * 16, b"9" * 400, b"nan", b"-1", b"1e400"])
def test_foreign_bytes_for_numbers_are_none(fleet, direct, foreign):
    """Nor does a caller see an error; what is invalidated is dropped."""
    body = Loads(lambda n: n)
    a, b = fleet(body, tags=lambda landing: ["eu"]), fleet(body, tags=lambda landing: ["eu"])
    tier = a._self_cache.tier
    keys = (
        scripts.epoch_key("sf", tier.digest),
        scripts.last_cut_key("sf", tier.digest),
        scripts.cut_key("sf", tier.tag_digest("eu")),
    )
    for key in keys:
        direct.set(key, foreign, px=60_000)
    assert (a("ASML"), b("ASML")) == (1, 1)
    a.invalidate_tag("eu")
    until(lambda: b.entry("ASML") is None)
    assert (b("ASML"), a("ASML")) == (2, 2)
    a.cache_clear()
    until(lambda: b.entry("ASML") is None)
    assert (b("ASML"), a("ASML")) == (3, 3)


def test_a_put_that_is_confirmed_is_not_sent_again(fleet):
    """What others have put since would be lost."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    cache = a._self_cache
    record = new_record(cache, ("ASML",), 70, cache.timer(), 60.0, 0.0)
    _, tell = cache.tier.put(("ASML",), record)
    assert a("ASML") == 70  # it has sent that first
    b.put(71, "ASML")
    tell()
    until(lambda: a.entry("ASML") is None)
    assert a("ASML") == 71


@pytest.mark.parametrize("newest", [[b"5", None], [None, b"5"]])
def test_a_put_that_was_confirmed_meanwhile_is_not_sent_again(fleet, newest):
    """By the keeper, while a claim that had sent it first was told to send it again."""
    price = fleet(Loads(), tags=lambda landing: ["eu"])
    cache = price._self_cache
    record = new_record(cache, ("ASML",), 70, cache.timer(), 60.0, 0.0, ("eu",))
    cache.tier.put(("ASML",), record)
    [drop] = cache.tier.link.drops.unconfirmed()
    sending = cache.tier.sending(drop)
    assert len(next(sending)) == 2
    cache.tier.link.confirm(drop, 1)
    with pytest.raises(StopIteration):
        sending.send([1, newest])


def test_a_store_that_was_closed_connects_again(fleet):
    """At the next call."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert a("ASML") == 1
    store = fleet.store_of(b)
    store.close()
    assert b("ASML") == 1
    assert store.state == "connected"


def test_a_forked_child_serves_nothing_that_it_cannot_hear_about(fleet):
    """What is near may be dropped before it listens."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert (a("ASML"), b("ASML")) == (1, 1)
    assert in_child(lambda: (b("ASML"), b.stats().shared_hits)) == "(1, 1)"


def test_a_function_that_is_defined_twice_hears_with_both(fleet, url):
    """As after a reload, where others still have the older one."""
    body = Loads(lambda n: n)
    a = fleet(body)
    store = fleet.store_of(fleet(body, name="other"))

    def define():
        @single_flight_ttl(ttl=60, store=store, name="price")
        def price(symbol):
            return body(symbol)

        return price

    old, new = define(), define()
    assert (old("ASML"), new("ASML"), a("ASML")) == (1, 1, 1)
    a.invalidate("ASML")
    until(lambda: old.entry("ASML") is None and new.entry("ASML") is None)
    assert (old("ASML"), new("ASML")) == (2, 2)
    old.invalidate("ASML")
    until(lambda: new.entry("ASML") is None)
    assert new("ASML") == 3


def test_what_was_asked_before_a_gap_is_not_believed_after_it(fleet):
    """Cuts and epochs: a newer one may have been missed in between."""
    price = fleet(Loads(), tags=lambda landing: ["eu"])
    price("ASML")
    tier = price._self_cache.tier
    era = tier.link.era
    tier.link._gap(False)
    tier.learn(Numbers(7, 7), era)
    tier.link.learn_cuts({b"tag": 7}, era)
    assert tier.known_numbers() is None
    assert tier.link.known_cuts([b"tag"]) == {}
    tier.learn(Numbers(8, 9), tier.link.era)
    tier.link.learn_cuts({b"tag": 8}, tier.link.era)
    assert tier.known_numbers() == Numbers(8, 9)
    assert tier.link.known_cuts([b"tag"]) == {b"tag": 8}


@pytest.mark.parametrize("known", [0, 9])
def test_what_was_asked_before_an_epoch_was_heard_is_not_believed_after_it(fleet, known):
    """Also after one that is lower than the known one, as the server had lost that."""
    price = fleet(Loads())
    price("ASML")
    tier = price._self_cache.tier
    tier.numbers.forget()
    if known:
        tier.learn(Numbers(known, 0), tier.link.era)
    era = tier.link.era
    tier.heard(scripts.News("epoch", tier.digest, bytes(16), bytes(8), 8))
    tier.learn(Numbers(7, 0), era)
    assert tier.known_numbers() is None
    tier.learn(Numbers(8, 0), tier.link.era)
    assert tier.known_numbers() == Numbers(8, 0)


# -- a put that two would send at once ----------------------------------------------------------------


class Puts:
    """Has the puts of a process wait, before they are sent; `asked` is who may send one, or not."""

    def __init__(self, function):
        self.cache = function._self_cache
        self.link = self.cache.tier.link
        self.sent, self.asked, self.struck = [], [], None
        self.entered, self.gate = threading.Semaphore(0), threading.Event()
        takes, clients = self.link.takes, self.link.clients
        call_all, acall_all = clients.call_all, clients.acall_all

        def taking(drop, *args, **options):
            taken = takes(drop, *args, **options)
            self.asked.append(taken is not None)
            return taken

        def sending(calls):
            self._stop(calls)
            return call_all(calls)

        async def sending_in_task(calls):
            await asyncio.to_thread(self._stop, calls)
            return await acall_all(calls)

        self.link.takes, clients.call_all, clients.acall_all = taking, sending, sending_in_task

    def _stop(self, calls):
        if any(call.script is PUT for call in calls):
            self.sent.append(threading.current_thread().name)
            self.entered.release()
            assert self.gate.wait(PATIENCE)
            if len(self.sent) == 1 and self.struck is not None:
                raise self.struck

    def noted(self):
        """A put that nobody has sent, and that is not near; returns its drop, and what tells the server."""
        record = new_record(self.cache, ("ASML",), 70, self.cache.timer(), 60.0, 0.0)
        _, tell = self.cache.tier.put(("ASML",), record)
        [drop] = self.link.drops.unconfirmed()
        return drop, tell

    def wait_for(self, whom):  # "keeper", or another thread
        """Wait until one of them sends it."""
        assert self.entered.acquire(timeout=PATIENCE)
        assert [name == "singleflight-keeper" for name in self.sent] == [whom == "keeper"]


@pytest.fixture
def unhurried(fleet):
    """Makes processes that wait long for the server, and so for one another's puts."""
    return lambda body, colour="threads": fleet(body, colour, terms={"timeout": 3 * PATIENCE})


@pytest.mark.parametrize("way", ["a claim", "a bulk call", "whoever has put it"])
def test_a_put_that_the_keeper_is_sending_is_awaited(unhurried, pool, colour, way):
    """Sent once more at the same time it might arrive after what others have put since, and replace that."""
    body = Loads(lambda n: n)
    a, b = unhurried(body, colour), unhurried(body)
    load = a.bulk(gives_nothing_in_task if colour == "tasks" else gives_nothing)
    assert called(a, "warm") == 1
    puts = Puts(a)
    drop, tell = puts.noted()
    puts.link.keeper.hand_over(*puts.link.orders(drop))
    puts.wait_for("keeper")
    ways = {"a claim": (called, a, "ASML"), "a bulk call": (called, load, ["ASML"])}
    other = pool.submit(*ways.get(way, (tell,)))
    until(lambda: False in puts.asked)
    puts.gate.set()
    assert other.result(PATIENCE) == {"a claim": 70, "a bulk call": {"ASML": 70}}.get(way)
    b.put(71, "ASML")
    assert puts.link.keeper.flush(PATIENCE)
    assert len(puts.sent) == 1
    until(lambda: a.entry("ASML") is None)
    assert called(a, "ASML") == 71


@pytest.mark.parametrize("later", ["put", "invalidate"])
@pytest.mark.parametrize("first", ["keeper", "thread"])
def test_what_is_changed_later_arrives_later(unhurried, pool, first, later):
    """By an event loop and by a thread, in either order: each sends by a connection of its own."""
    body = Loads(lambda n: n)
    a, b = unhurried(body), unhurried(body)
    assert a("warm") == 1
    puts = Puts(a)

    async def in_loop(change, *args):
        change(*args)

    def change(where, *args):
        if where == "thread":
            return pool.submit(*args)
        return asyncio.run(in_loop(*args))

    before = change(first, a.put, 70, "ASML")
    puts.wait_for(first)
    second = (a.put, 71, "ASML") if later == "put" else (a.invalidate, "ASML")
    after = change("keeper" if first == "thread" else "thread", *second)
    until(lambda: False in puts.asked)
    puts.gate.set()
    for each in (before, after):
        assert each is None or each.result(PATIENCE) in (None, True)
    assert puts.link.keeper.flush(PATIENCE)
    assert b("ASML") == (71 if later == "put" else 2)


def gives_nothing(keys):
    return {}


async def gives_nothing_in_task(keys):
    return {}


@pytest.mark.parametrize("struck", [None, Struck(), Trouble(Kind.REFUSED, "no")], ids=repr)
def test_a_put_that_a_claim_is_sending_is_left_to_it(unhurried, pool, colour, soon, struck):
    """By the keeper; but not where it was not answered."""
    body = Loads(lambda n: n)
    a, b = unhurried(body, colour), unhurried(body)
    assert called(a, "warm") == 1
    puts = Puts(a)
    puts.struck = struck
    drop, _ = puts.noted()
    claim = start(pool, a, "ASML")
    puts.wait_for("claim")
    puts.link.keeper.hand_over(*puts.link.orders(drop))
    until(lambda: False in puts.asked)
    puts.gate.set()
    if isinstance(struck, Struck):
        with pytest.raises(Struck):
            claim.result(PATIENCE)
    else:
        assert claim.result(PATIENCE) == (70 if struck is None else 2)
    assert puts.link.keeper.flush(PATIENCE)
    assert len(puts.sent) == (1 if struck is None else 2)
    assert b("ASML") == 70


def test_for_how_long_a_change_is_on_its_way(fleet, monkeypatch):
    """Until it was answered, or cannot be any more; after an outage it is sent anyway. Each key by itself."""
    tier = fleet(Loads())._self_cache.tier
    link, now = tier.link, SimpleNamespace(at=1000.0)
    monkeypatch.setattr(links, "time", SimpleNamespace(monotonic=lambda: now.at))
    put, other = link.note("put", tier, b"k"), link.note("drop", tier, b"o")
    cut, clear = Drop("cut", b"f", b"k", 0), Drop("clear", b"f", b"", 0)
    mine, none, others, nothing = [link.takes(each) for each in (put, put, other, other)]
    assert none is nothing is None
    for each in (cut, cut, clear, clear):
        link.sent(link.takes(each))
    link.sent(others), link.sent(others)
    assert link.takes(put) is None
    assert link.takes(other) is not None
    later = link.note("drop", tier, b"k")
    now.at += 3 * link.timeout - 0.001
    assert link.takes(later) is None
    now.at += 0.001
    second, none, third = link.takes(later), link.takes(later), link.takes(put, True)
    assert none is None
    for each in (mine, second):
        link.sent(each)
    assert link.takes(later) is None
    link.sent(third)
    assert link.takes(later) is not None
    link.confirm(later, 1), link.confirm(other, 1)


# -- what ends in the middle ---------------------------------------------------------------------------


def strike(*_):
    raise Struck


def flushed(function):
    """Wait until all that a process has changed is told."""
    return link_of(function).keeper.flush(PATIENCE)


def test_a_predicate_that_raises(fleet):
    """What it had picked by then is dropped here; so all is dropped for the others, and soon."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert (a("ASML"), b("ASML")) == (1, 1)
    with pytest.raises(Struck):
        a.invalidate_where(strike)
    assert fleet.store_of(a).flush(PATIENCE)
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 2


def test_a_put_that_the_policy_cannot_take(fleet):
    """It fails here, and what it was to replace is gone here; so is it for the others."""

    class Rude(LRUCache):
        def __setitem__(self, key, value):
            if rude:
                raise RuntimeError("rude")
            super().__setitem__(key, value)

    rude, body = [], Loads(lambda n: n)
    a, b = fleet(body, policy=Rude, maxsize=10), fleet(body)
    assert (a("ASML"), b("ASML")) == (1, 1)
    rude.append(True)
    with pytest.raises(RuntimeError, match="rude"):
        a.put(70, "ASML")
    assert fleet.store_of(a).flush(PATIENCE)
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 2


@pytest.mark.parametrize("change", ["invalidate", "clear", "tag", "put"])
@pytest.mark.parametrize("where", ["before it is dropped here", "before it is sent", "while it is sent"])
def test_a_drop_that_is_interrupted(fleet, monkeypatch, change, where):
    """It raises that, and is told to the others all the same: here it may have been made."""
    body = Loads(lambda n: n)
    a, b = (fleet(body, tags=lambda landing: ["eu"]) for _ in range(2))
    assert (a("ASML"), b("ASML")) == (1, 1)
    cache = a._self_cache
    ways = {
        "invalidate": lambda: a.invalidate("ASML"),
        "clear": a.cache_clear,
        "tag": lambda: a.invalidate_tag("eu"),
        "put": lambda: a.put(70, "ASML"),
    }
    with monkeypatch.context() as patch, pytest.raises(Struck):
        if where == "while it is sent":
            patch.setattr(cache.tier.link.clients, "call_all", strike)
            cache.tier.link.keeper.hand_over = lambda *orders: handed.extend(orders)
        elif where == "before it is sent":
            patch.setattr(cache.tier.link, "period", strike)
        else:
            for name in ("drop", "clear", "cut", "put"):
                patch.setattr(cache.store, name, strike)
        handed = []
        ways[change]()
    if where == "while it is sent":
        del cache.tier.link.keeper.hand_over
        cache.tier.link.keeper.hand_over(*handed)
    assert fleet.store_of(a).flush(PATIENCE)
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") in (2, 70)


@pytest.mark.parametrize("change", ["invalidate", "put"])
def test_an_interrupt_that_is_kept(unhurried, monkeypatch, change):
    """As notebooks keep the last one, and with it the frames: what was being sent is told to the others."""
    body = Loads(lambda n: n)
    a, b = unhurried(body), unhurried(body)
    assert (a("ASML"), b("ASML")) == (1, 1)
    clients, me = link_of(a).clients, threading.get_ident()
    call_all = clients.call_all
    monkeypatch.setattr(
        clients, "call_all", lambda calls: strike() if threading.get_ident() == me else call_all(calls)
    )
    with pytest.raises(Struck) as kept:
        a.invalidate("ASML") if change == "invalidate" else a.put(70, "ASML")
    assert flushed(a)
    assert kept.traceback
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == (2 if change == "invalidate" else 70)


@pytest.mark.parametrize("where", ["before it is sent", "after it was sent"])
def test_a_change_from_inside_of_another_one(unhurried, monkeypatch, where):
    """By a signal handler or finaliser: it does not wait for its own thread, and arrives second."""
    body = Loads(lambda n: n)
    a, b = unhurried(body), unhurried(body)
    assert (a("ASML"), b("ASML")) == (1, 1)
    clients, me = link_of(a).clients, threading.get_ident()
    call_all, handler = clients.call_all, [lambda: a.invalidate("ASML")]

    def interrupted(calls):
        replies = call_all(calls) if where == "after it was sent" else None
        if threading.get_ident() == me and handler:
            handler.pop()()
        return replies or call_all(calls)

    monkeypatch.setattr(clients, "call_all", interrupted)
    monkeypatch.setattr(shared, "time", SimpleNamespace(sleep=strike))
    a.put(70, "ASML")
    assert not handler
    assert flushed(a)
    until(lambda: b.entry("ASML") is None)
    assert (a("ASML"), b("ASML")) == (2, 2)


class Interrupts:
    """A breaker that has a handler run, once, where it is asked in a section of the link."""

    def __init__(self, breaker, handler):
        self._breaker, self._handlers = breaker, [handler]

    def __getattr__(self, name):
        if self._handlers:
            self._handlers.pop()()
        return getattr(self._breaker, name)


def test_a_handler_that_calls_from_inside_of_a_section(fleet, pool):
    """It waits for nobody: whoever it waited for would need what its own thread holds."""
    body, seen = Loads(lambda n: n), []
    a = fleet(body, terms={"timeout": 3 * PATIENCE}, wait_timeout=PATIENCE)
    assert a("warm") == 1
    assert body.entered.acquire(timeout=PATIENCE)
    link = link_of(a)
    body.gate.clear()
    leader = pool.submit(a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)

    def handler():
        body.gate.set()
        seen.append(a("ASML"))
        assert not leader.done()

    breaker = link.breaker
    link.breaker = Interrupts(breaker, handler)
    assert link.period() == breaker.period
    link.breaker = breaker
    assert seen == [3]
    assert leader.result(PATIENCE) == 2


# -- what the server refuses --------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["thread", "loop"])
def test_a_drop_that_is_refused_is_sent_again(fleet, direct, soon, where):
    """By the keeper, until the server takes it."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert (a("ASML"), b("ASML")) == (1, 1)
    place = a._self_cache.tier.place_of(("ASML",))
    direct.set(place.flights, "not ours", px=60_000)

    async def main():
        a.invalidate("ASML")

    asyncio.run(main()) if where == "loop" else a.invalidate("ASML")
    assert not fleet.store_of(a).flush(0.1)
    assert b.entry("ASML") is not None
    direct.delete(place.flights)
    assert fleet.store_of(a).flush(PATIENCE)
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 2


def test_a_refused_drop_does_not_keep_a_process_alone(own_server, soon):
    """After an outage the server is asked again, and that drop is sent as soon as it is taken."""
    fleet = Fleet(own_server.url)
    try:
        body = Loads(lambda n: n)
        a, b = fleet(body, terms={"timeout": 0.2}), fleet(body)
        assert (a("ASML"), b("ASML")) == (1, 1)
        place = a._self_cache.tier.place_of(("ASML",))
        own_server.do("SET", place.flights, "not ours", "PX", 60_000)
        own_server.pause()
        a.invalidate("ASML")
        assert fleet.store_of(a).state.startswith("degraded")
        own_server.resume()
        until(lambda: fleet.store_of(a).state == "connected")
        assert a("ASML") == 2  # alone, since what is stored was dropped
        own_server.do("DEL", place.flights)
        assert fleet.store_of(a).flush(PATIENCE)
        assert a.stats().calls == 2
    finally:
        fleet.close()


def test_who_comes_after_a_tag_was_invalidated_is_not_served_what_was_refused(fleet, pool):
    """A flight that has lost its lease has its value for those who came before alone."""
    body = Loads(lambda n: n)
    price = fleet(body, tags=lambda landing: ["eu"])
    body.gate.clear()
    first = start(pool, price, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    tier = price._self_cache.tier
    tier.heard = lambda news: None
    other = fleet(body, tags=lambda landing: ["eu"])
    other.invalidate("ASML")
    price.invalidate_tag("eu")
    late = start(pool, price, "ASML")
    until(lambda: price.flights()[0].followers == 1)
    body.gate.set()
    assert first.result(PATIENCE) == 1
    assert late.result(PATIENCE) == 2


@pytest.mark.parametrize("detached", [False, True])
def test_who_comes_after_a_tag_was_invalidated_is_not_served_what_began_before(fleet, pool, detached):
    """Though it joins the flight that did, by way of another process too, which has detached it meanwhile."""
    body = Loads(lambda n: n)
    a, b = (fleet(body, tags=lambda landing: ["eu"]) for _ in range(2))
    body.gate.clear()
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    second = start(pool, b, "ASML")
    waits_elsewhere(b)
    b.invalidate_tag("eu")
    late = start(pool, b, "ASML")
    until(lambda: b.flights()[0].followers == 1)
    if detached:
        a._self_cache.tier.forget_near()
    body.gate.set()
    assert first.result(PATIENCE) == 1
    assert second.result(PATIENCE) in (1, 2)
    assert late.result(PATIENCE) >= 2
