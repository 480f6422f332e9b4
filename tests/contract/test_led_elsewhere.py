"""What a call does where it does not just run its function: others gather it, or a store's tier leads it."""

import contextvars
from types import SimpleNamespace

import pytest

from singleflight.core.call import LEAD, NONE, SHARE
from singleflight.core.landing import land, settle_flight
from singleflight.core.renewal import begin_renewal
from singleflight.locks.mutex import mutex
from singleflight.locks.unsettled import After
from singleflight.locks.waiters import get_ident
from singleflight.testing import FakeClock, Recorder

from ..drivers import Driver, until


@pytest.fixture(params=["thread", 0], ids=["threads", "tasks"])
def driver(request):
    """Threads with a plain function, or tasks with a coroutine function."""
    driver = Driver(request.param)
    try:
        yield driver
    finally:
        driver.close()
    assert driver.reports() == []


class Gathers:
    """Stands in for what gathers calls: notes what it is asked for, and answers in these ways, in turn."""

    def __init__(self, *ways):
        self.ways, self.asked, self.colours = list(ways), [], []

    def driver(self, coroutine):
        self.colours.append(coroutine)
        return SimpleNamespace(gather=self.in_task if coroutine else self.gather, renew=self.renew)

    def gather(self, cache, call, how, alone):
        self.asked.append((cache, call.key, call.renew, how, alone))
        return self.ways.pop(0)(cache, call)

    async def in_task(self, *asked):
        return self.gather(*asked)

    def renew(self, cache, renewal, how):
        self.asked.append((cache, renewal.key, how))
        return self.ways.pop(0)(cache, renewal)


def leads(cache, call):
    """Nobody gathers it."""
    return LEAD, None


def shares(cache, call):
    """It was loaded together with others."""
    land(cache, call.flight, "gathered")
    return SHARE, "gathered"


def calls_anew(alone):
    """Its flight ends without an outcome."""

    def end(cache, call):
        after = After()
        with mutex:
            settle_flight(cache, call.flight, KeyboardInterrupt(), after)
        after.run()
        call.decision = NONE
        return NONE, alone

    return end


class Prices:
    """A function that calls may be gathered for, or led by a tier."""

    def __init__(self, driver, gathering=None, tier=None, **options):
        self.driver, self.runs, self.clock, self.seen = driver, [], FakeClock(), Recorder()

        async def price(symbol, *, side="bid"):
            self.runs.append((symbol, side))
            return f"{symbol} {side}"

        options = {"ttl": 10, "timer": self.clock, "listener": self.seen, **options}
        self.price = driver.decorate(price, **options)
        self.cache = self.price._self_cache
        self.cache.gathering = gathering
        self.cache.tier = tier and tier(self.cache)
        self.cache.choose_way()

    def call(self, *how, **more):
        async def ask():
            return await self.price(*how, **more)

        return self.driver.call(ask)

    def answer(self, *how, **more):
        async def ask():
            answer = (self.price.plain or self.price.coroutine).answer(*how, **more)
            return answer if self.price.coroutine is None else await answer

        return self.driver.call(ask)

    def refresh(self, *how, **more):
        async def ask():
            return await self.price.refresh(*how, **more)

        return self.driver.call(ask)


HOW = ("A",), {"side": "ask"}


def test_a_call_of_its_own(driver):
    """Where nobody leads it elsewhere its function receives the arguments, each in its way."""
    prices = Prices(driver)
    assert prices.call("A", side="ask") == "A ask"
    assert (prices.refresh("A", side="ask"), prices.call("B")) == ("A ask", "B bid")
    assert prices.runs == [("A", "ask"), ("A", "ask"), ("B", "bid")]


def test_who_is_not_gathered_runs_the_function(driver):
    """With its own arguments; its answer says that it fetched."""
    gathering = Gathers(leads)
    prices = Prices(driver, gathering)
    answer = prices.answer("A", side="ask")
    assert (answer.value, answer.served, answer.stored) == ("A ask", "fetch", True)
    assert gathering.asked == [(prices.cache, ("A", "ask"), False, HOW, False)]
    assert (prices.runs, prices.seen.count("fetch")) == ([("A", "ask")], 1)
    assert gathering.colours == [driver.turns != ("thread",)]


def test_who_is_gathered_takes_what_came(driver):
    """Its own function is not run; its answer says that it fetched."""
    gathering = Gathers(shares)
    prices = Prices(driver, gathering)
    answer = prices.answer("A", side="ask")
    assert (answer.value, answer.served, answer.stored) == ("gathered", "fetch", True)
    assert (prices.runs, prices.call("A", side="ask")) == ([], "gathered")
    assert len(gathering.asked) == 1


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("refresh", [True, False])
def test_who_calls_anew_is_alone_if_so_told(driver, alone, refresh):
    """Everything else is as it was, a refresh as well."""
    gathering = Gathers(calls_anew(alone), shares)
    prices = Prices(driver, gathering)
    assert (prices.refresh if refresh else prices.call)("A", side="ask") == "gathered"
    asked = prices.cache, ("A", "ask"), refresh, HOW
    assert gathering.asked == [(*asked, False), (*asked, alone)]
    assert prices.runs == []


def test_who_calls_anew_answers_for_the_second_time(driver):
    """Its answer is that of the call that was served."""
    prices = Prices(driver, Gathers(calls_anew(True), leads))
    answer = prices.answer("A")
    assert (answer.value, answer.served, answer.stored) == ("A bid", "fetch", True)


def renews(accepted, value):
    """It is renewed together with others, and what comes is there by now."""

    def renew(cache, renewal):
        assert not renewal.flight.unbegun or begin_renewal(cache, renewal, get_ident())
        land(cache, renewal.flight, value)
        renewal.record = cache.store.find(renewal.key)
        return accepted

    return renew


def test_a_renewal_that_others_gather(driver):
    """The caller is served what was there, and renews nothing itself."""
    gathering = Gathers(renews(True, "new"))
    prices = Prices(driver, gathering, grace=60)
    prices.price.put("old", "A", side="ask")
    prices.clock.advance(11)
    assert prices.call("A", side="ask") == "old"
    assert prices.call("A", side="ask") == "new"
    assert gathering.asked == [(prices.cache, ("A", "ask"), HOW)]
    assert gathering.colours == [driver.turns != ("thread",)]
    assert (prices.runs, prices.price.flights()) == ([], ())


def test_a_renewal_that_nobody_gathers(driver):
    """It runs the function."""
    prices = Prices(driver, Gathers(lambda cache, renewal: None), grace=60)
    prices.price.put("old", "A")
    prices.clock.advance(11)
    assert prices.call("A") == "old"
    until(lambda: not prices.price.flights())
    assert (prices.call("A"), prices.runs) == ("A bid", [("A", "bid")])


def test_a_renewal_for_which_a_window_has_no_room():
    """It is done by then: a thread that calls takes what has come."""
    driver = Driver("thread")
    gathering = Gathers(renews(False, "new"))
    prices = Prices(driver, gathering, grace=60)
    prices.price.put("old", "A")
    prices.clock.advance(11)
    assert prices.call("A") == "new"
    assert prices.runs == []
    driver.close()


class Tier:
    """What `store=` makes, with nothing behind it: notes the keys and runs the function."""

    def __init__(self, cache):
        self.cache, self.led = cache, []

    def lead(self, flight, execute):
        value = execute()
        return self.came(flight, value)

    async def lead_in_task(self, flight, execute):
        value = await execute()
        return self.came(flight, value)

    def came(self, flight, value):
        self.led.append(flight.key)
        land(self.cache, flight, value)
        return value

    def counted(self):
        return {}


def test_a_tier_leads(driver):
    """It has the function run, and what it lands is the caller's."""
    prices = Prices(driver, tier=Tier)
    answer = prices.answer("A", side="ask")
    assert (answer.value, answer.served, answer.stored) == ("A ask", "fetch", True)
    assert (prices.call("A", side="ask"), prices.refresh("A", side="ask")) == ("A ask", "A ask")
    assert prices.cache.tier.led == [("A", "ask")] * 2
    assert prices.runs == [("A", "ask")] * 2
    assert (prices.seen.count("fetch"), prices.price.stats().calls) == (2, 2)


def test_a_tier_leads_renewals(driver):
    """What it lands is served from then on."""
    brought = iter(["old", "new"])

    async def price(symbol):
        return symbol, next(brought)

    clock = FakeClock()
    fetch = driver.decorate(price, ttl=10, grace=60, timer=clock)
    cache = fetch._self_cache
    cache.tier = Tier(cache)
    cache.choose_way()
    assert driver.call(fetch, "A") == ("A", "old")
    clock.advance(11)
    assert driver.call(fetch, "A") == ("A", "old")
    until(lambda: fetch.entry("A").value == ("A", "new"))
    assert cache.tier.led == [("A",)] * 2


def test_a_failure_of_a_tier_is_the_callers(driver):
    """And the key is free."""

    class Away(Tier):
        def came(self, flight, value):
            raise ConnectionError("no server")

    prices = Prices(driver, tier=Away)
    with pytest.raises(ConnectionError, match="no server"):
        prices.call("A")
    assert (prices.price.flights(), prices.price.stats().errors) == ((), 1)


def test_a_renewal_runs_in_a_copy_of_the_callers_context(driver):
    """It sees what its caller has set, and sets nothing for it."""
    context = contextvars.ContextVar("context", default="none")
    clock, seen = FakeClock(), []

    async def price():
        seen.append(context.get())
        context.set("the renewal's")
        return "new"

    fetch = driver.decorate(price, ttl=10, grace=60, timer=clock)
    fetch.put("old")
    clock.advance(11)

    async def ask():
        context.set("the caller's")
        assert await fetch() == "old"
        return context.get()

    assert driver.call(ask) == "the caller's"
    until(lambda: not fetch.flights())
    assert (seen, driver.call(fetch)) == (["the caller's"], "new")
