"""The server's clock is set while a fleet is at work: lives move by the step, what was dropped is not served.

The clock is set in the scripts' text: nothing else reads it for what is judged here. Keys expire as they do.
"""

import asyncio
import re
import threading

import pytest

from singleflight import single_flight_ttl
from singleflight.fleet.cuts import Known
from singleflight.redis import scripts, texts

from ..drivers import PATIENCE, until
from .fleets import Loads, link_of, start, waits_elsewhere

HOUR = 3600 * 1000
TIME = re.compile(r"local now = time\[1\] \* 1000 \+ math\.floor\(time\[2\] / 1000\)")


@pytest.fixture
def clock(monkeypatch):
    """Sets the server's clock, so many milliseconds ahead; for some scripts alone, as another node's."""
    scripts_of = {name: getattr(texts, name) for name in texts.__all__ if name.isupper()}

    def step(milliseconds, only=tuple(scripts_of)):
        for name in only:
            plain = scripts_of[name]
            text, times = TIME.subn(rf"\g<0> + {milliseconds}", plain.text)
            assert times == ("redis.call('TIME')" in plain.text)
            monkeypatch.setattr(texts, name, texts._script(plain.name, text))

    return step


def in_eu(landing):
    return ["eu"]


@pytest.fixture
def processes(fleet):
    """Makes processes with one body, which counts, and one tag."""
    body = Loads(lambda n: n)
    return lambda count, **options: [fleet(body, tags=in_eu, **options) for _ in range(count)], body


def until_entered(body, times):
    for _ in range(times):
        assert body.entered.acquire(timeout=PATIENCE)


def numbers_of(function, direct):
    """What the server has: the function's numbers, and the last cut of its tag."""
    tier = function._self_cache.tier
    last = direct.get(scripts.last_cut_key("sf", tier.digest))
    return scripts.number(last), scripts.number(direct.get(scripts.cut_key("sf", tier.tag_digest("eu"))))


# -- tags ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [(0,), (-2000,), (2000,), (-HOUR,), (HOUR,), (HOUR, 0), (-2000, 0, -2000)])
@pytest.mark.parametrize("only", [None, ("CUT",)])
def test_a_tag_is_dropped_whatever_the_clock(processes, clock, steps, only):
    """After each step, for who has it near, who asks, and who has just started."""
    make, body = processes
    a, b, new = make(3)
    for last, step in enumerate([0, *steps]):
        a.invalidate_tag("eu")
        until(lambda: b.entry("ASML") is None)
        assert b("ASML") == a("ASML") == last + 1
        clock(step, *([] if only is None else [only]))
    b.invalidate_tag("eu")
    assert new("ASML") == len(steps) + 2
    until(lambda: a.entry("ASML") is None)
    assert a("ASML") == b("ASML") == new("ASML") == len(body.calls)


@pytest.mark.parametrize("step", [-HOUR, -2000, 2000])
def test_what_was_on_its_way_is_not_served(processes, clock, pool, step):
    """It began before its tag was invalidated, whatever the clock says of that."""
    make, body = processes
    a, b, new = make(3)
    assert b("other") == 1
    body.gate.clear()
    first = start(pool, a, "ASML")
    until_entered(body, 2)
    clock(step, ["CUT"])
    b.invalidate_tag("eu")
    clock(0)
    body.gate.set()
    assert first.result(PATIENCE) == 2
    assert new("ASML") == 3
    assert b("ASML") == 3


def test_who_waited_and_then_leads_knows_of_later_cuts(fleet, clock, pool):
    """What it loads is served to others."""
    body = Loads(lambda n: ValueError("not now") if n == 2 else n)
    a, b, c = (fleet(body, tags=in_eu) for _ in range(3))
    assert c("other") == 1
    body.gate.clear()
    first = start(pool, a, "ASML")
    until_entered(body, 2)
    second = start(pool, b, "ASML")
    waits_elsewhere(b)
    clock(-HOUR, ["CUT"])
    c.invalidate_tag("eu")
    until(lambda: b._self_cache.tier.latest().cut)
    body.gate.set()
    with pytest.raises(ValueError, match="not now"):
        first.result(PATIENCE)
    assert second.result(PATIENCE) == c("ASML") == 3


def test_those_who_wait_for_what_is_cut_do_not_all_load(fleet, pool):
    """One leads for the others, though they have passed over what was stored, and what came next."""
    held = threading.Event()
    body = Loads(lambda n: held.wait(PATIENCE) and n if n == 3 else n)
    a, b, c, d = (fleet(body, tags=in_eu) for _ in range(4))
    assert a("ASML") == b("ASML") == c("ASML") == d("ASML") == 1

    def cut():
        d.invalidate_tag("eu")
        newest = d._self_cache.tier.latest().cut
        until(lambda: all(each._self_cache.tier.latest().cut == newest for each in (a, b, c)))

    cut()
    body.gate.clear()
    flights = [start(pool, a, "ASML")]
    until_entered(body, 2)
    for each in (b, c):
        flights.append(start(pool, each, "ASML"))
        waits_elsewhere(each)
    cut()
    body.gate.set()
    until_entered(body, 1)

    def waits_again(each):
        claims = [passage.claim for passage in each._self_cache.tier.flying.copy().values()]
        return any(claim.state == "waiting" and claim._passed_over == 2 for claim in claims)

    until(lambda: waits_again(b) or waits_again(c))
    held.set()
    assert [flight.result(PATIENCE) for flight in flights] == [2, 3, 3]
    assert len(body.calls) == 3


# -- what is put -----------------------------------------------------------------------------------------


def test_what_is_put_after_a_cut_is_served(processes, clock):
    """By a process that has asked nothing yet, too, whatever the clock says."""
    make, body = processes
    a, b, new = make(3)
    assert a("ASML") == b("ASML") == 1
    clock(-HOUR)
    a.invalidate_tag("eu")
    a.put(70, "ASML")
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 70
    new.put(71, "ASML")
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 71
    assert len(body.calls) == 1


def test_what_is_put_in_one_breath_with_a_cut_is_served(fleet, processes, clock):
    """Both go in one pipeline: what is put cannot know of the cut, and is sent once more."""
    make, body = processes
    a, b = make(2)
    assert a("ASML") == b("ASML") == 1
    clock(-HOUR)

    async def main():
        a.invalidate_tag("eu")
        a.put(70, "ASML")
        assert await fleet.store_of(a).flush()

    asyncio.run(main())
    until(lambda: b.entry("ASML") is None)
    assert b("ASML") == 70
    assert len(body.calls) == 1


def test_what_is_put_is_sent_again_once_alone(processes):
    """Though others make one cut after another meanwhile."""
    make, _ = processes
    a, b = make(2)
    tier, sent = a._self_cache.tier, []
    calls_of = tier.calls_of

    def meddled(drop, numbers):
        sent.append(numbers.cut)
        b.invalidate_tag("eu")
        return calls_of(drop, numbers)

    tier.calls_of = meddled
    a.put(70, "ASML")
    assert len(sent) == 2
    assert 0 == sent[0] < sent[1]
    assert not link_of(a).pending()


def test_what_is_put_without_a_tag_is_sent_once(fleet, processes):
    """No cut concerns it."""
    make, body = processes
    make(1)[0].invalidate_tag("eu")
    a = fleet(body)
    tier, sent = a._self_cache.tier, []
    calls_of = tier.calls_of
    tier.calls_of = lambda *args: sent.append(args) or calls_of(*args)
    a.put(70, "ASML")
    assert len(sent) == 1


# -- numbers that are lost -------------------------------------------------------------------------------


def lose_numbers(function, direct):
    """They were evicted, and what they concern was not."""
    tier = function._self_cache.tier
    assert direct.delete(scripts.last_cut_key("sf", tier.digest))


def test_numbers_that_are_lost_go_on_above_those_that_are_known(processes, clock, direct):
    """Where the process that invalidates has heard of them."""
    make, _ = processes
    a, b, c = make(3)
    a.invalidate_tag("eu")
    assert a("ASML") == b("ASML") == c("ASML") == 1
    before, _ = numbers_of(a, direct)
    for last, who in enumerate((a, b), 1):
        lose_numbers(a, direct)
        clock(-HOUR * last)
        who.invalidate_tag("eu")
        after, cut = numbers_of(a, direct)
        assert before < after == cut
        before = after
        until(lambda: all(each.entry("ASML") is None for each in (a, b, c)))
        assert c("ASML") == a("ASML") == b("ASML") == last + 1


def test_a_value_tells_of_a_number_that_was_lost(processes, clock, direct):
    """Who has received one invalidates above that."""
    make, body = processes
    a, new, newer = make(3)
    a.invalidate_tag("eu")
    before, _ = numbers_of(a, direct)
    assert a("ASML") == 1
    lose_numbers(a, direct)
    direct.delete(scripts.cut_key("sf", a._self_cache.tier.tag_digest("eu")))
    clock(-HOUR)
    assert new("ASML") == 1
    new.invalidate_tag("eu")
    assert before < numbers_of(a, direct)[0]
    assert newer("ASML") == len(body.calls) == 2


def test_a_cut_by_who_knows_nothing_is_made_again(processes, clock, direct):
    """By who hears that its number is not above the last one."""
    make, _ = processes
    a, new, newer = make(3)
    assert a("ASML") == 1
    a.invalidate_tag("eu")
    before, _ = numbers_of(a, direct)
    until(lambda: a._self_cache.tier.numbers._heard == before)
    assert a("ASML") == 2
    lose_numbers(a, direct)
    clock(-HOUR)
    new.invalidate_tag("eu")
    until(lambda: numbers_of(a, direct)[1] > before)
    assert newer("ASML") == 3
    until(lambda: a.entry("ASML") is None)
    assert a("ASML") == new("ASML") == 3


def test_where_a_function_is_defined_again_either_hears_what_is_lost(fleet, clock, direct):
    """The older one alone knows the number that the next one is to be above."""
    body = Loads(lambda n: n)
    cutter = fleet(body, tags=in_eu)
    store = fleet.store_of(fleet(body, name="other"))

    def define():
        @single_flight_ttl(ttl=60, store=store, name="price", tags=in_eu)
        def price(symbol):
            return body(symbol)

        return price

    old = define()
    assert old("ASML") == 1
    old.invalidate_tag("eu")
    before, _ = numbers_of(old, direct)
    until(lambda: old._self_cache.tier.numbers._heard == before)
    new = define()
    assert new._self_cache.tier.numbers.ever.cut == 0
    with link_of(cutter).lock:
        cutter._self_cache.tier.numbers = Known()
    lose_numbers(old, direct)
    clock(-HOUR)
    cutter.invalidate_tag("eu")
    until(lambda: numbers_of(old, direct)[1] > before)


def test_an_epoch_that_is_lost_is_given_anew(processes, clock, direct):
    """Above those that are known; and who knows of a higher one asks."""
    make, _ = processes
    a, b, new = make(3)
    a.cache_clear()
    assert a("ASML") == b("ASML") == 1
    key = scripts.epoch_key("sf", a._self_cache.tier.digest)
    first = int(direct.get(key))
    assert direct.delete(key)
    clock(-HOUR)
    b.cache_clear()
    assert int(direct.get(key)) > first
    until(lambda: a.entry("ASML") is None)
    assert a("ASML") == b("ASML") == 2
    assert direct.delete(key)
    new.cache_clear()
    assert int(direct.get(key)) < first
    until(lambda: a.entry("ASML") is None and b.entry("ASML") is None)
    assert new("ASML") == 3
    assert a("ASML") == b("ASML") == 3


# -- lives and leases --------------------------------------------------------------------------------------


def test_lives_move_by_the_step(processes, clock):
    """Of what is stored, and no longer than it ever was; near entries age by this process's clock."""
    make, body = processes
    a, late, soon, later = make(4)
    assert a("ASML") == 1
    clock(-30_000)
    assert late("ASML") == 1
    assert late.entry("ASML").age < 5
    clock(50_000)
    assert soon("ASML") == 1
    assert 50 <= soon.entry("ASML").age < 60
    clock(60_000)
    assert later("ASML") == len(body.calls) == 2
    assert a.entry("ASML").value == 1


def test_a_lease_that_ends_early_is_refused_its_landing(processes, clock, pool):
    """One more load, whose value stays."""
    make, body = processes
    a, b, c = make(3, lease=60)
    body.gate.clear()
    first = start(pool, a, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    clock(61_000)
    second = start(pool, b, "ASML")
    assert body.entered.acquire(timeout=PATIENCE)
    body.gate.set()
    assert {first.result(PATIENCE), second.result(PATIENCE)} == {1, 2}
    assert a.stats().refused == 1
    assert c("ASML") == b("ASML")
    assert len(body.calls) == 2


def test_a_renewal_after_a_step_back_is_believed(processes, clock):
    """Though it seems to be older than what it takes the place of: at most one load more for each."""
    make, body = processes
    a, b = make(2, grace=60)
    assert a("ASML") == b("ASML") == 1
    clock(-HOUR)
    assert a.refresh("ASML") == 2
    until(lambda: b("ASML") > 1)
    assert b("ASML") in (2, 3)
    assert len(body.calls) <= 3
