"""`answer`: a call, and how that very call was served; as an RFC 9211 `Cache-Status` member."""

import asyncio
import pickle

import cachetools
import pytest

from singleflight import Answer, single_flight_ttl
from singleflight.drivers import threads
from singleflight.testing import FakeClock, Recorder

from ..drivers import Executions, InThread, suspends, until


class Asked:
    """A function under its own clock that returns the number of its execution; each may be held at a gate."""

    def __init__(self, driver, **options):
        self.driver, self.clock, self.seen = driver, FakeClock(100.0), Recorder()
        self.executions, self.gates, self.brings = Executions(), {}, {}

        async def fetch(key="A"):
            number = self.executions.begin()
            if number in self.gates:
                await self.gates[number]
            brought = self.brings.get(number, number)
            if isinstance(brought, Exception):
                raise brought
            return brought

        options = {"ttl": 10, "timer": self.clock, "listener": self.seen, **options}
        self.fetch = driver.decorate(fetch, key=lambda key="A": key, **options)

    async def ask(self, *args):
        plain, coroutine = self.fetch.plain, self.fetch.coroutine
        if coroutine is None or (plain is not None and not suspends()):
            return plain.answer(*args)
        return await coroutine.answer(*args)

    def call(self, *args):
        return self.driver.call(self.ask, *args)

    def hold(self, number=0):
        self.gates[number] = self.driver.gate()
        return self.gates[number]


def test_a_fetch_and_a_hit(driver):
    """The first call fetches, the next one is a hit of that age."""
    asked = Asked(driver)
    first = asked.call()
    asked.clock.advance(3)
    second = asked.call()
    assert first == Answer(0, "fetch", "A", 0.0, 10.0, 0.0, stored=True)
    assert second == Answer(0, "hit", "A", 3.0, 7.0, 0.0, stored=True)
    assert [each.cache_status("app") for each in (first, second)] == [
        "app; fwd=miss; stored; ttl=10",
        "app; hit; ttl=7",
    ]


def test_it_counts_as_a_call(driver):
    """Fetch, wait, hit and error are counted as those of plain calls are."""
    asked = Asked(driver)
    gate = asked.hold()
    driver.start(asked.ask)
    asked.executions.wait_for(1)
    driver.start(asked.ask)
    asked.seen.wait_for("wait")
    gate.set()
    assert [outcome.served for outcome in driver.outcomes()] == ["fetch", "wait"]
    asked.call()
    asked.brings[1] = ConnectionError("down")
    with pytest.raises(ConnectionError, match="down"):
        asked.call("B")
    stats = asked.fetch.stats()
    assert (stats.fetches, stats.waits, stats.hits, stats.errors) == (1, 1, 1, 1)


def test_a_wait_is_collapsed(driver):
    """Whoever waited for another caller's flight is told so, and how old the value is."""
    asked = Asked(driver)
    gate = asked.hold()
    leader = driver.start(asked.ask)
    asked.executions.wait_for(1)
    follower = driver.start(asked.ask)
    asked.seen.wait_for("wait")
    gate.set()
    leader.outcome()
    assert follower.outcome() == Answer(0, "wait", "A", 0.0, 10.0, 0.0, stored=True)
    assert follower.outcome().cache_status("app") == "app; fwd=miss; stored; collapsed; ttl=10"


def test_who_comes_while_the_value_lands_finds_no_older_one():
    """A flight that somebody joins in that moment took the place of nothing."""
    landing, joined = [], []

    def timer():
        if landing:  # between the look for followers and the landing itself
            landing.clear()
            joined.append(InThread(blocking_answer, ()))
            until(lambda: rate.flights()[0].followers)
        return 100.0

    @single_flight_ttl(ttl=10, timer=timer)
    def rate():
        landing.append(True)
        return 1.08

    async def blocking_answer():
        return rate.answer()

    leader, follower = rate.answer(), joined[0].outcome()
    assert leader.cache_status("app") == "app; fwd=miss; stored; ttl=10"
    assert follower.cache_status("app") == "app; fwd=miss; stored; collapsed; ttl=10"
    assert rate.stats().entries == 1


def test_a_stale_hit(driver):
    """Within the grace a stale value is served; its ttl is negative."""
    asked = Asked(driver, grace=60)
    asked.call()
    gate = asked.hold(1)
    asked.clock.advance(12.5)
    answer = asked.call()
    gate.set()
    until(lambda: not asked.fetch.flights())
    assert answer == Answer(0, "stale_hit", "A", 12.5, 0.0, 57.5, stored=True, overdue=2.5)
    assert answer.cache_status("app") == "app; hit; ttl=-3"


def test_a_value_that_has_run_out_is_replaced(driver):
    """A fetch where there had been a value goes forward because that is stale."""
    asked = Asked(driver)
    asked.call()
    asked.clock.advance(11)
    answer = asked.call()
    assert (answer.value, answer.served, answer.replaced) == (1, "fetch", True)
    assert answer.cache_status("app") == "app; fwd=stale; stored; ttl=10"


def test_a_value_that_is_not_stored(driver):
    """What `cache_if` refuses, and what was invalidated in flight, is told apart from what was stored."""
    asked = Asked(driver)
    asked.brings[0] = None
    refused = asked.call()
    assert refused == Answer(None, "fetch", "A", 0.0, 0.0, 0.0)
    gate = asked.hold(1)
    caller = driver.start(asked.ask)
    asked.executions.wait_for(2)
    asked.fetch.invalidate("A")
    gate.set()
    assert caller.outcome() == Answer(1, "fetch", "A", 0.0, 0.0, 0.0)
    assert caller.outcome().cache_status("app") == "app; fwd=miss"


def test_it_tells_what_happened_to_this_call(driver):
    """Another value that is stored before the caller goes on changes nothing about its answer."""

    def put(event):
        asked.fetch.put("newer", "A")
        asked.clock.advance(1)

    put.wants = {"land"}
    asked = Asked(driver, listener=put)
    answer = asked.call()
    assert answer == Answer(0, "fetch", "A", 1.0, 9.0, 0.0, stored=True)
    assert asked.fetch.entry("A").value == "newer"


def test_with_a_listener_for_hits(driver):
    """A hit that takes the longer way is a hit all the same."""

    def listen(event):
        pass

    listen.wants = {"hit"}
    asked = Asked(driver, listener=listen)
    assert [asked.call().served for _ in range(2)] == ["fetch", "hit"]


def test_a_hit_takes_the_short_way(monkeypatch):
    """Without a listener it makes no decision, counts once, has a copy of its own, and ends with its ttl."""
    clock = FakeClock(100.0)
    fetch = single_flight_ttl(ttl=10, timer=clock, copy=list)(lambda key: [key])
    fetch.answer("A")
    with monkeypatch.context() as without:
        without.setattr(threads, "board", None)
        first, second = fetch.answer("A"), fetch.answer("A")
    assert (first.served, first.value, first == second) == ("hit", ["A"], True)
    assert first.value is not second.value
    assert (fetch.entry("A").hits, fetch.stats().hits) == (2, 2)
    clock.advance(10)
    assert fetch.answer("A").served == "fetch"


def test_what_is_left_of_a_stale_value(driver):
    """`stale_for` ends with the grace; a value that is refused then had one before it."""
    asked = Asked(driver, grace=60)
    asked.call()
    gate = asked.hold(1)
    asked.clock.advance(69.5)
    assert asked.call().stale_for == 0.5
    asked.executions.wait_for(2)
    asked.brings[1] = None
    gate.set()
    until(lambda: not asked.fetch.flights())
    asked.brings[2] = None
    asked.clock.advance(1)
    assert asked.call() == Answer(None, "fetch", "A", 0.0, 0.0, 0.0, replaced=True)


def test_bypassed_and_switched_off(driver, monkeypatch):
    """The function is run directly, and the answer says so."""
    asked = Asked(driver)
    with asked.fetch.bypass():
        answer = asked.call()
    assert answer == Answer(0, "bypass", "A", 0.0, 0.0, 0.0)
    assert answer.cache_status("app") == "app; fwd=bypass"
    monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")
    assert asked.call().served == "bypass"


def test_a_hit_of_it_is_a_use(driver):
    """The policy is told which entry has served."""
    asked = Asked(driver, policy=cachetools.LRUCache, maxsize=2, listener=None)
    asked.call("A")
    asked.call("B")
    assert asked.call("A").served == "hit"
    asked.call("C")
    assert [asked.call(key).served for key in ("A", "B")] == ["hit", "fetch"]


def test_on_bound_methods_the_instance_is_applied(driver):
    """Each instance has its own answers; a call on the class passes the instance."""

    class Account:
        @single_flight_ttl(ttl=60)
        def price(self, symbol):
            return symbol.lower()

        @price.twin
        async def aprice(self, symbol):
            return symbol.lower()

        @single_flight_ttl(ttl=60)  # above: since Python 3.13 a class method binds what is below it itself
        @classmethod
        def fees(cls):
            return 1

    account = Account()
    assert account.price.answer("A").served == "fetch"
    assert (account.price.answer("A").served, Account().price.answer("A").served) == ("hit", "fetch")
    assert Account.price.answer(account, "A").served == "hit"
    assert asyncio.run(account.aprice.answer("A")).served == "hit"
    assert [Account.fees.answer().served for _ in range(2)] == ["fetch", "hit"]


def test_an_answer_travels():
    """It is equal to another one of the same content, cannot be changed, and can be pickled."""
    answer = Answer(1, "hit", "A", 0.0, 1.0, 0.0, stored=True)
    assert pickle.loads(pickle.dumps(answer)) == answer
    with pytest.raises(AttributeError):
        answer.value = 2


NAMES = {
    "a token": ("cdn.example:8080/*", "cdn.example:8080/*"),
    "with a space": ("my cache", '"my cache"'),
    "a digit first": ("9lives", '"9lives"'),
    "nothing": ("", '""'),
    "quotes and backslashes": ('a"b\\c', '"a\\"b\\\\c"'),
    "a line break": ("a\r\nSet-Cookie: x", '"a\\\\r\\\\nSet-Cookie: x"'),
    "beyond ASCII": ("café €", '"caf\\\\xe9 \\\\u20ac"'),
}


@pytest.mark.parametrize(("name", "written"), NAMES.values(), ids=NAMES)
def test_the_name_is_a_token_or_a_string(name, written):
    """Whatever it is, the header has one line of visible ASCII."""
    answer = Answer(1, "hit", "A", 0.0, 1.0, 0.0, stored=True)
    assert answer.cache_status(name) == f"{written}; hit; ttl=1"


def test_the_key_is_told_only_on_request():
    """As a string of visible ASCII."""
    answer = Answer(1, "hit", ("é\n", 1), 0.0, float("inf"), 0.0, stored=True)
    assert answer.cache_status("a") == "a; hit"
    assert answer.cache_status("a", key=True) == "a; hit; key=\"('\\\\xe9\\\\n', 1)\""
    with pytest.raises(TypeError, match="name: expected a string, got 7"):
        answer.cache_status(7)
