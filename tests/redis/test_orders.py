"""What is changed in one process while it asks, and by several ways: changes count in their order."""

import asyncio
import math
import threading

import pytest

from singleflight.redis.texts import CUT, PUT, RAISE

from ..drivers import PATIENCE, until
from .fleets import Loads, called, link_of, start, waits_elsewhere


class Held:
    """Has what would send one of these scripts wait, once, until it is let go."""

    def __init__(self, function, *scripts):
        clients = link_of(function).clients
        self._scripts, self._call_all = scripts, clients.call_all
        self.entered, self.gate = threading.Event(), threading.Event()
        clients.call_all = self._calls

    def _calls(self, calls):
        if not self.entered.is_set() and any(call.script in self._scripts for call in calls):
            self.entered.set()
            assert self.gate.wait(PATIENCE)
        return self._call_all(calls)


def in_eu(landing):
    return ["eu"]


# -- while it asks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["pending", "first_for"])
def test_what_is_cut_while_a_claim_looks_for_cuts_is_not_near(fleet, pool, which):
    """Its question reaches the server before the cut does: what it finds is of before."""
    body = Loads(lambda n: n)
    a, b = (fleet(body, tags=in_eu) for _ in range(2))
    assert a("warm") == 1
    assert b("ASML") == 2
    link = link_of(a)
    held, cuts = Held(a, CUT), []
    look = getattr(link, which)

    def looking(*args):
        seen = look(*args)
        if not cuts:
            cuts.append(pool.submit(a.invalidate_tag, "eu"))
            assert held.entered.wait(PATIENCE)
        return seen

    if which == "first_for":  # a drop of another key is to be confirmed
        link.note("drop", a._self_cache.tier, b"other", b"other")
    setattr(link, which, looking)
    assert a("ASML") == 2
    held.gate.set()
    cuts[0].result(PATIENCE)
    assert a("ASML") == 3


def test_what_is_missed_while_a_claim_looks_for_numbers_is_not_near(fleet):
    """It asks by an epoch that was the last one before messages were lost."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert a("warm") == 1
    assert b("ASML") == 2
    tier, missed = a._self_cache.tier, []
    known_numbers, tier.heard = tier.known_numbers, lambda news: missed.append(news.kind)

    def looking():
        numbers = known_numbers()
        if not missed:
            b.cache_clear()
            until(lambda: missed)
            tier.link._gap(False)
        return numbers

    tier.known_numbers = looking
    assert a("ASML") == 2
    assert a("ASML") == 3


# -- by several ways ------------------------------------------------------------------------------------


@pytest.fixture
def unhurried(fleet):
    """Makes processes that wait long for the server, and so for one another's changes."""
    return lambda body, **options: fleet(body, tags=in_eu, terms={"timeout": 3 * PATIENCE}, **options)


def by_keeper(change, *args):
    """Make a change on an event loop: the keeper tells the server."""

    async def main():
        change(*args)

    asyncio.run(main())


def asked(function):
    """Return a list that grows with each who wants to send a change: True, or False if it is to wait."""
    link, seen = link_of(function), []
    takes = link.takes

    def taking(*args, **options):
        taken = takes(*args, **options)
        seen.append(taken is not None)
        return taken

    link.takes = taking
    return seen


def flush(function):
    assert link_of(function).keeper.flush(PATIENCE)


@pytest.mark.parametrize("way", ["thread", "loop"])
def test_what_is_put_and_then_cut_is_dropped(unhurried, pool, way):
    """Though the keeper sends what was put last."""
    body = Loads(lambda n: n)
    a, b = unhurried(body), unhurried(body)
    assert a("warm") == 1
    held, seen = Held(a, PUT), asked(a)
    by_keeper(a.put, 70, "ASML")
    assert held.entered.wait(PATIENCE)
    if way == "thread":
        cut = pool.submit(a.invalidate_tag, "eu")
        until(lambda: cut.done() or False in seen)
    else:
        by_keeper(a.invalidate_tag, "eu")
    held.gate.set()
    if way == "thread":
        cut.result(PATIENCE)
    flush(a)
    assert (a("ASML"), b("ASML")) == (2, 2)


@pytest.mark.parametrize("before", ["cache_clear", "invalidate_tag"])
def test_what_is_put_after_all_was_dropped_is_served(unhurried, pool, before):
    """Though that is still to be sent, by the keeper."""
    body = Loads(lambda n: n)
    a, b = unhurried(body), unhurried(body)
    assert a("warm") == 1
    held, seen = Held(a, RAISE, CUT), asked(a)
    by_keeper(getattr(a, before), *(["eu"] if before == "invalidate_tag" else []))
    assert held.entered.wait(PATIENCE)
    put = pool.submit(a.put, 70, "ASML")
    until(lambda: put.done() or False in seen)
    held.gate.set()
    put.result(PATIENCE)
    flush(a)
    assert (a("ASML"), b("ASML")) == (70, 70)


@pytest.mark.parametrize("kind", ["clear", "cut"])
def test_a_bulk_call_drops_all_once(unhurried, pool, colour, kind):
    """Or others would look for what it has loaded under the name that the last drop has given it."""
    sent = []
    a, b = (unhurried(Loads()) for _ in range(2))

    def loading(symbols):
        return dict.fromkeys(symbols, 1)

    async def loading_in_task(symbols):
        return loading(symbols)

    many, others = a.bulk(loading_in_task if colour == "tasks" else loading), b.bulk(lambda symbols: {})
    assert a("warm")
    tier = a._self_cache.tier
    clients = tier.link.clients
    call_all, acall_all = clients.call_all, clients.acall_all

    def noting(calls):
        sent.extend(call.script for call in calls)
        return call_all(calls)

    def noting_in_task(calls):
        sent.extend(call.script for call in calls)
        return acall_all(calls)

    clients.call_all, clients.acall_all = noting, noting_in_task
    tier.drop_all() if kind == "clear" else tier.cut(("eu",))
    assert called(many, ["A", "B", "C"]) == {"A": 1, "B": 1, "C": 1}
    assert sent.count(RAISE if kind == "clear" else CUT) == 1
    assert others(["A", "B", "C"]) == {"A": 1, "B": 1, "C": 1}


# -- over the end of a store -----------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["invalidate", "put", "cache_clear", "invalidate_tag"])
def test_what_is_not_told_when_a_store_is_closed_is_told_later(unhurried, change):
    """By a call that needs it, or whatever else has the store connect again."""
    body = Loads(lambda n: n)
    a, b = unhurried(body), unhurried(body)
    assert (a("ASML"), b("ASML")) == (1, 1)
    link = link_of(a)
    with link.lock:
        link.breaker.failed(link.breaker.period, 0.0, 0.0)
        link.breaker.probe_at = math.inf
    arguments = {"put": (70, "ASML"), "cache_clear": (), "invalidate_tag": ("eu",), "invalidate": ("ASML",)}
    getattr(a, change)(*arguments[change])
    link.close()
    assert a("other") == 2
    flush(a)
    until(lambda: b.entry("ASML") is None)
    newest = 70 if change == "put" else 3
    assert (b("ASML"), a("ASML")) == (newest, newest)


# -- what may have been missed -----------------------------------------------------------------------------


def miss(function):
    """Cut the connection by which it listens, and wait until it listens again."""
    link = link_of(function)
    era = link.era
    link.bus._line.cut()
    until(lambda: link.era > era and link.bus.up)


def test_what_is_led_while_messages_are_missed_is_shared(fleet, pool):
    """Its lease says that its key was not dropped: nobody else runs it again, here neither."""
    body = Loads(lambda n: n)
    a, b, c = (fleet(body) for _ in range(3))
    body.gate.clear()
    first = pool.submit(a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    second = pool.submit(b, "ASML")
    waits_elsewhere(b)
    miss(a)
    assert a.flights()[0].detached
    third = pool.submit(a, "ASML")
    waits_elsewhere(a)
    body.gate.set()
    assert [each.result(PATIENCE) for each in (first, second, third)] == [1, 1, 1]
    assert (c("ASML"), a("ASML"), len(body.calls)) == (1, 1, 1)


@pytest.mark.parametrize("told", [True, False])
def test_what_is_led_and_dropped_while_messages_are_missed_is_not(fleet, pool, told):
    """By another process, or here, where that is still to be told."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert b("warm") == 1
    body.gate.clear()
    first = pool.submit(a, "ASML")
    until(lambda: len(body.calls) == 2)
    if told:
        b.invalidate("ASML")
    miss(a)
    if not told:
        a._self_cache.tier.drop(("ASML",))
    body.gate.set()
    assert first.result(PATIENCE) == 2
    assert b("ASML") == 3
    assert a("ASML") == (3 if told else 4)  # it tells that first


def test_what_ran_alone_while_messages_were_missed_is_joined_by_nobody(fleet, pool, colour):
    """Its key may have been dropped since it began; a flight that may not be tried again would be shared."""
    body = Loads(lambda n: n)
    a, b = fleet(body, colour, follower_retries=0), fleet(body)
    assert (called(a, "warm"), b("ASML")) == (1, 2)
    link = link_of(a)
    with link.lock:
        link.breaker.failed(link.breaker.period, 0.0, 0.0)
        link.breaker.probe_at = math.inf
    body.gate.clear()
    alone = start(pool, a, "ASML")
    until(lambda: len(body.calls) == 3)
    a._self_cache.tier.heard = lambda news: None
    b.invalidate("ASML")
    with link.lock:
        link.breaker.probe_at = 0.0
    link.keeper.nudge()
    until(lambda: not link.is_away())
    later = start(pool, a, "ASML")
    until(lambda: len(body.calls) == 4)
    body.gate.set()
    assert (alone.result(PATIENCE), later.result(PATIENCE)) == (3, 4)


# -- news of what is here already ------------------------------------------------------------------------


@pytest.mark.parametrize("late", [True, False])
def test_a_value_that_is_here_already_is_not_looked_for_again(fleet, pool, late):
    """The news of it may come after the value: nobody has a newer one, so that would be loaded."""
    body = Loads(lambda n: n)
    a, b = fleet(body), fleet(body)
    assert (a("ASML"), b("ASML")) == (1, 1)
    tier, gate, heard = b._self_cache.tier, threading.Event(), []
    hear = tier.heard

    def hearing(news):
        assert gate.wait(PATIENCE)
        hear(news)
        heard.append(news.kind)

    tier.heard = hearing
    body.gate.clear()
    first = pool.submit(a.refresh, "ASML")
    until(lambda: len(body.calls) == 2)
    if late:
        second = pool.submit(b.refresh, "ASML")
        waits_elsewhere(b)
    body.gate.set()
    assert first.result(PATIENCE) == 2
    if late:
        assert second.result(PATIENCE) == 2
    gate.set()
    until(lambda: heard == ["new"])
    [record] = tier.cache.store.records()
    assert (record.refresh_at <= tier.cache.timer()) is not late


def test_a_store_that_is_closed_keeps_the_lock_of_what_is_untold(fleet):
    """Another thread may be noting a change just then."""
    link = link_of(fleet(Loads()))
    lock = link.lock
    link.close()
    assert link.lock is lock
