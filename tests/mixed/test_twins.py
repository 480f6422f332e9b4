"""Two colours of one getter: same key, store, locks, flights and counts."""

import asyncio
import itertools

import pytest

from singleflight import single_flight_ttl
from singleflight.testing import Recorder

from ..drivers import Driver, InThread


@pytest.fixture
def account_class():
    """Either way round: a method with its twin."""

    class Account:
        def __init__(self, number):
            self.number, self.calls = number, []

        @single_flight_ttl(key=lambda self, symbol, kind="bid": (self.number, symbol, kind), ttl=60)
        def price(self, symbol, kind="bid"):
            self.calls.append("thread")
            return self.number, symbol, kind

        @price.twin
        async def aprice(self, symbol, kind="bid"):
            self.calls.append("task")
            return self.number, symbol, kind

        @single_flight_ttl(ttl=60)
        async def aquote(self, symbol):
            self.calls.append("task")
            return self.number, symbol

        @aquote.twin
        def quote(self, symbol):
            self.calls.append("thread")
            return self.number, symbol

    return Account


def test_what_one_fetches_the_other_finds(account_class):
    """Both ways, with the default key and with one of the user's, per instance."""

    async def main():
        one, other = account_class(1), account_class(2)
        assert await one.aprice("A") == one.price("A") == one.price("A", kind="bid") == (1, "A", "bid")
        assert one.calls == ["task"]
        assert other.price("A") == await other.aprice("A", "bid") == (2, "A", "bid")
        assert other.calls == ["thread"]
        assert one.quote("B") == await one.aquote("B") == (1, "B")
        assert await other.aquote("B") == other.quote("B") == (2, "B")
        assert (one.calls, other.calls) == (["task", "thread"], ["thread", "task"])

    asyncio.run(main())


def test_the_control_surface_is_one(account_class):
    """What is put, invalidated, counted or locked through one is so for the other."""

    async def main():
        account = account_class(3)
        account.price.put("mine", "A")
        assert await account.aprice("A") == "mine"
        assert account.aprice.entry("A").value == "mine"
        assert account.aprice.invalidate("A")
        assert account.price.entry("A") is None
        assert account.price.locks is account.aprice.locks
        assert await account.aprice.refresh("A") == (3, "A", "bid")
        assert account.price.refresh("A") == (3, "A", "bid")
        assert account.calls == ["task", "thread"]
        assert account.price.stats() == account.aprice.stats()
        with account.price.bypass():
            await account.aprice("A")
            account.price("A")
        assert account.calls == ["task", "thread", "task", "thread"]
        account.aprice.cache_clear()
        assert account.price.entry("A") is None
        assert account.price.stats().calls == 0

    asyncio.run(main())


@pytest.mark.parametrize("first", ["thread", "task"])
def test_a_retry_runs_the_colour_of_who_leads_it(first):
    """Whoever comes first leads in its own way, and a follower that flies again does so in its own."""
    driver = Driver(*(("thread", 0) if first == "thread" else (0, "thread")))
    try:
        gate, seen, numbers, ran = driver.gate(), Recorder(), itertools.count(), []

        @single_flight_ttl(ttl=60, listener=seen)
        def plain():
            ran.append("thread")
            gate.pass_()
            if next(numbers) == 0:
                raise ValueError
            return 7

        @plain.twin
        async def coroutine():
            ran.append("task")
            await gate
            if next(numbers) == 0:
                raise ValueError
            return 7

        async def ask():
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return plain()
            return await coroutine()

        driver.start(ask)
        seen.wait_for("fetch")
        driver.start(ask)
        seen.wait_for("wait")
        gate.set()
        outcomes = driver.outcomes()
        assert isinstance(outcomes[0], ValueError)
        assert outcomes[1] == 7
        assert ran == (["thread", "task"] if first == "thread" else ["task", "thread"])
    finally:
        driver.close()


def test_a_thread_follows_a_task_and_a_task_a_thread():
    """Each colour gets the other's value, failure included, without running its own function."""
    for turns in (("thread", 0), (0, "thread")):
        for fails in (False, True):
            driver = Driver(*turns)
            try:
                gate, seen = driver.gate(), Recorder()

                async def body(gate=gate, fails=fails):
                    await gate
                    if fails:
                        raise LookupError("both")
                    return [1]

                fetch = driver.decorate(body, listener=seen, follower_retries=0)
                driver.start(fetch)
                seen.wait_for("fetch")
                driver.start(fetch)
                seen.wait_for("wait")
                gate.set()
                one, other = driver.outcomes()
                if fails:
                    assert one is not other
                    assert (type(one), one.args) == (type(other), other.args) == (LookupError, ("both",))
                else:
                    assert one is other
                assert fetch.stats().calls == 1
                assert driver.reports() == []
            finally:
                driver.close()


def test_a_twin_takes_no_options_and_no_other_key():
    """It is called with the function alone; the key function must fit its parameters."""

    @single_flight_ttl(ttl=60, key=lambda symbol: symbol)
    def plain(symbol):
        return symbol

    with pytest.raises(TypeError):
        plain.twin(ttl=3)
    with pytest.raises(TypeError):

        @plain.twin
        async def other():
            return 1


def test_a_sync_caller_waits_in_a_worker_thread():
    """asyncio.to_thread with the plain twin joins the coroutine's flight."""
    seen = Recorder()

    @single_flight_ttl(ttl=60, listener=seen)
    async def coroutine():
        while not seen.count("wait"):
            await asyncio.sleep(0)
        return "task"

    @coroutine.twin
    def plain():
        return "thread"

    async def main():
        leader = asyncio.create_task(coroutine())
        await asyncio.sleep(0)
        return await asyncio.gather(leader, asyncio.to_thread(plain))

    async def in_thread():
        return asyncio.run(main())

    assert InThread(in_thread, ()).outcome() == ["task", "task"]
