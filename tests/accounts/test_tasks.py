"""The price getter awaited: the twin of the one for threads, on the same flights."""

import asyncio
import concurrent.futures
import contextvars
import copy
import logging
import os
import pickle
import re
import threading
import time
import types

import pytest

from singleflight import FlightDeadlock, FlightTimeout
from singleflight.accounts import AccountInterface
from singleflight.accounts.workers import Workers

from ..drivers import InThread, eventually

NAME = "singleflight.accounts"
getter = AccountInterface.get_instrument_current_price
agetter = AccountInterface.aget_instrument_current_price


class Scripted(AccountInterface):
    """Answers with `price` once its gate is open, and remembers what it was asked, and in which threads."""

    def __init__(self, name="scripted", price=984.75, gate=None):
        super().__init__(name)
        self.price, self.gate = price, gate
        self.asked, self.threads = [], []

    def _get_instrument_current_price_impl(self, symbol, price_type):
        self.asked.append((symbol, price_type))
        self.threads.append(threading.current_thread())
        if self.gate is not None:
            self.gate.pass_()
        return self.price


class TestOnePrice:
    """However many ask, and in whichever way."""

    def test_ten_tasks_make_one_request(self, account, server, loop, gate, followers):
        """Through alpaca-py, which cannot be awaited."""
        server.before_answer = lambda path, symbols: gate.pass_()
        asking = [loop.start(account.aget_instrument_current_price, "ASML") for _ in range(10)]
        followers(9)
        gate.set()
        assert [task.outcome() for task in asking] == [984.75] * 10
        assert len(server.requests) == 1

    @pytest.mark.parametrize("first", ["thread", "task"])
    def test_threads_and_tasks_make_one_request(self, account, server, loops, crowd, gate, followers, first):
        """Two loops and five threads; whoever is first asks."""
        server.before_answer = lambda path, symbols: gate.pass_()
        tasks, others = loops(), loops()
        if first == "thread":
            crowd.add(account.get_instrument_current_price, " asml")
        asking = [loop.start(account.aget_instrument_current_price, "ASML") for loop in (tasks, others)]
        followers(len(asking) + len(crowd.threads) - 1)
        crowd.add(account.get_instrument_current_price, "ASML", count=5)
        followers(len(asking) + len(crowd.threads) - 1)
        gate.set()
        assert {task.outcome() for task in asking} | set(crowd.join()) == {984.75}
        assert len(server.requests) == 1

    def test_either_getter_finds_what_the_other_fetched(self, loop):
        """Same key, values, locks and counts, on the account and on the class."""
        account = Scripted(7)
        assert loop.run(account.aget_instrument_current_price, " asml") == 984.75
        assert account.get_instrument_current_price("ASML") == 984.75
        assert account.get_instrument_current_price("AAPL", "mid") == 984.75
        assert loop.run(account.aget_instrument_current_price, "aapl", "mid") == 984.75
        assert account.asked == [("ASML", "bid"), ("AAPL", "mid")]
        assert account.aget_instrument_current_price.entry("ASML").key == (7, "ASML", "bid")
        assert agetter.locks is getter.locks
        assert agetter.stats() == getter.stats()
        assert (getter.stats().calls, getter.stats().hits) == (2, 2)
        assert account.aget_instrument_current_price.invalidate("ASML")
        assert account.get_instrument_current_price.entry("ASML") is None

    def test_more_requests_at_a_time_than_the_loops_own_pool_makes(self, account, server, loop, meeting):
        """Twelve requests at a time, which is more than a small machine's `asyncio.to_thread` makes."""
        server.prices.update({f"S{number}": 1.0 + number for number in range(12)})
        server.before_answer = meeting(12)

        async def burst():
            return await asyncio.gather(
                *(account.aget_instrument_current_price(f"S{number}") for number in range(12))
            )

        assert loop.run(burst) == [1.0 + number for number in range(12)]

    @pytest.mark.parametrize(
        ("arguments", "error", "named"),
        [
            (("ASML", "high"), ValueError, "price_type"),
            (("ASML", ["bid"]), ValueError, "price_type"),
            ((" \t",), ValueError, "symbol"),
            ((None,), TypeError, "symbol"),
        ],
    )
    def test_bad_input_of_a_task_raises_before_any_flight(self, loop, arguments, error, named):
        """As the other one does: nobody is asked and nothing is counted, bypassed or not."""
        account = Scripted()
        with pytest.raises(error, match=named):
            loop.run(account.aget_instrument_current_price, *arguments)
        with agetter.bypass(), pytest.raises(error, match=named):
            loop.run(account.aget_instrument_current_price, *arguments)
        assert account.asked == []
        assert getter.stats().calls == 0


class TestFailures:
    """None, told once, and not kept; what is no failure of the broker raises."""

    def test_none_once(self, account, server, loop, caplog):
        """One WARNING; the next caller asks again."""
        server.before_answer = lambda path, symbols: (503, b"")
        assert loop.run(account.aget_instrument_current_price, "ASML") is None
        (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert line.startswith("[Account 1] Failed to fetch bid price for ASML: APIError: HTTP 503")
        server.before_answer = None
        assert loop.run(account.aget_instrument_current_price, "ASML") == 984.75

    def test_a_mixed_burst_on_a_failing_broker(self, account, server, loop, crowd, gate, followers, caplog):
        """Tasks and threads make two requests at most: theirs, and one more by those who waited."""

        def fail(path, symbols):
            gate.pass_()
            return 500, b""

        server.before_answer = fail
        asking = [loop.start(account.aget_instrument_current_price, "ASML") for _ in range(5)]
        crowd.add(account.get_instrument_current_price, "ASML", count=5)
        followers(9)
        gate.set()
        assert [task.outcome() for task in asking] + crowd.join() == [None] * 10
        told = [r for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(server.requests) == len(told) == 2

    def test_a_cycle_through_the_accounts_thread_is_refused(self, loop):
        """Also through the thread in which the request is made."""

        class Circular(Scripted):
            def _get_instrument_current_price_impl(self, symbol, price_type):
                return self.get_instrument_current_price(symbol, price_type)

        with pytest.raises(FlightDeadlock):
            loop.run(Circular().aget_instrument_current_price, "ASML")

    def test_stop_iteration_is_an_error_like_others(self, loop):
        """A future cannot carry it; `next()` of nothing, in a broker's account, must not hang its callers."""

        class Empty(Scripted):
            def _get_instrument_current_price_impl(self, symbol, price_type):
                return next(iter(()))

        with pytest.raises(RuntimeError, match="StopIteration"):
            loop.run(Empty().aget_instrument_current_price, "ASML")

    def test_a_request_that_hangs_loses_its_price_after_a_minute(self, loop, gate, monkeypatch):
        """Whoever comes then asks anew; its own caller, a task, is told."""
        account = Scripted(gate=gate)
        hanging = loop.start(account.aget_instrument_current_price, "ASML")
        loop.run(eventually, lambda: account.asked)
        account.gate = None
        later = types.SimpleNamespace(monotonic=lambda: time.monotonic() + 61)
        monkeypatch.setattr("singleflight.core.flight.time", later)
        assert account.get_instrument_current_price("ASML") == 984.75
        assert isinstance(hanging.outcome(), FlightTimeout)
        assert account.asked == [("ASML", "bid")] * 2


class TestCancelling:
    """It concerns the caller alone."""

    def test_the_others_get_the_price(self, loop, gate, followers):
        """Also when the one that went was the first to ask."""
        account = Scripted(gate=gate)
        leader = loop.start(account.aget_instrument_current_price, "ASML")
        loop.run(eventually, lambda: account.asked)
        others = [loop.start(account.aget_instrument_current_price, "ASML") for _ in range(2)]
        followers(2)
        leader.cancel()
        assert isinstance(leader.outcome(), asyncio.CancelledError)
        gate.set()
        assert [other.outcome() for other in others] == [984.75] * 2
        assert len(account.asked) == 1

    def test_a_request_that_nobody_waits_for_is_dropped(self, loop, make_gate, until):
        """It cannot be taken back; whoever asks next neither waits for it nor gets its price."""
        first = make_gate()
        account = Scripted(gate=first)
        caller = loop.start(account.aget_instrument_current_price, "ASML")
        loop.run(eventually, lambda: account.asked)
        caller.cancel()
        assert isinstance(caller.outcome(), asyncio.CancelledError)
        until(lambda: not getter.flights())
        account.gate = None
        assert loop.run(account.aget_instrument_current_price, "ASML") == 984.75
        assert len(account.asked) == 2


class TestThreads:
    """The blocking requests are made in threads of the account's own."""

    def test_not_the_loops(self, loop, gate):
        """The loop goes on, and the request sees the caller's context."""
        user = contextvars.ContextVar("user", default="nobody")
        users = []

        class Asking(Scripted):
            def _get_instrument_current_price_impl(self, symbol, price_type):
                users.append(user.get())
                return super()._get_instrument_current_price_impl(symbol, price_type)

        account = Asking(gate=gate)

        async def main():
            user.set("somebody")
            asking = asyncio.create_task(account.aget_instrument_current_price("ASML"))
            await eventually(lambda: account.threads)
            assert not asking.done()
            gate.set()
            return await asking

        assert loop.run(main) == 984.75
        assert users == ["somebody"]
        assert account.threads[0] is not loop.thread

    def test_not_those_that_may_be_full_of_waiting_callers(self, loop):
        """A loop's own pool whose every thread waits for a price does not keep others from being fetched."""
        account = Scripted()
        key = ("scripted", "AAPL", "bid")

        async def main():
            asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
            async with getter.locks(key):
                waiting = asyncio.create_task(asyncio.to_thread(account.get_instrument_current_price, "AAPL"))
                await eventually(lambda: getter.locks.waiting(key) == 1)
                price = await account.aget_instrument_current_price("ASML")
            return price, await waiting

        assert loop.run(main) == (984.75, 984.75)
        assert account.asked == [("ASML", "bid"), ("AAPL", "bid")]
        assert account.threads[0].name.startswith("singleflight-account")

    def test_a_forked_child_makes_its_own_threads(self, monkeypatch):
        """A fork copies no threads."""
        workers = Workers()
        mine = workers._pool()
        assert workers._pool() is mine
        pid = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: pid + 1)  # as in a child
        assert workers._pool() is not mine

    def test_an_account_can_still_be_copied(self, loop):
        """After it was used; each copy has threads of its own."""
        account = Scripted()
        loop.run(account.aget_instrument_current_price, "ASML")
        account.threads.clear()
        for other in (copy.deepcopy(account), pickle.loads(pickle.dumps(account))):
            assert other._workers is not account._workers
            assert loop.run(other.aget_instrument_current_price, "ASML") == 984.75

    def test_a_client_that_can_be_awaited_needs_none(self, loop):
        """An account may say how to ask from a task."""

        class Awaited(Scripted):
            async def _aget_instrument_current_price_impl(self, symbol, price_type):
                await asyncio.sleep(0)
                return 1.25

        account = Awaited()
        assert loop.run(account.aget_instrument_current_price, "ASML") == 1.25
        assert account.get_instrument_current_price("ASML") == 1.25
        assert account.asked == []


class TestLogLines:
    """Those of the threads, word for word."""

    @pytest.mark.parametrize("leader", ["thread", "task"])
    def test_the_wording_for_tasks_and_threads(self, loop, gate, followers, caplog, leader):
        """One fetch, one cached, one that waited, one hit, whoever was first."""
        account = Scripted(1, gate=gate)

        async def in_thread():
            return account.get_instrument_current_price("ASML")

        starts = [
            lambda: InThread(in_thread, ()),
            lambda: loop.start(account.aget_instrument_current_price, "ASML"),
        ]
        with caplog.at_level(logging.DEBUG, logger=NAME):
            callers = []
            for start in starts if leader == "thread" else reversed(starts):
                callers.append(start())
                followers(len(callers) - 1)
                loop.run(eventually, lambda: account.asked)
            gate.set()
            assert [caller.outcome() for caller in callers] == [984.75] * 2
            loop.run(account.aget_instrument_current_price, "ASML")
        lines = sorted(f"{r.levelname} {r.getMessage()}" for r in caplog.records if r.name == NAME)
        expected = [
            r"DEBUG \[Account 1\] Another thread cached ASML while waiting: \$984\.75 \(age: \d+\.\ds\)",
            r"DEBUG \[Account 1\] Cached new bid price for ASML: \$984\.75",
            r"DEBUG \[Account 1\] Fetching fresh bid price for ASML \(holding symbol lock\)",
            r"DEBUG \[Account 1\] Returning cached price for ASML: \$984\.75 \(age: \d+\.\ds\)",
        ]
        assert len(lines) == len(expected)
        assert all(map(re.fullmatch, expected, lines)), lines
