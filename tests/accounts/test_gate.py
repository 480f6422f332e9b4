"""The gate: what a rate limit means for all requests of one key pair."""

import asyncio
import gc
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest

from singleflight.accounts.gate import Gate, GateShut, gate_of
from singleflight.testing import FakeClock

from ..children import in_child

SYMBOLS = [f"S{number}" for number in range(20)]
SHUT = {"Retry-After": "0.2"}


class Who:
    """Names a rate."""


def advance(gate, clock, seconds):
    """Time passes, also for those who wait."""
    clock.advance(seconds)
    with gate._changed:
        gate._changed.notify_all()


def limited(rate, clock, **options):
    """A gate with a bucket, and who named its rate."""
    gate, who = Gate(timer=clock, **options), Who()
    gate.keep_to(rate, who)
    return gate, who


def answer(gate, status=200, urgent=False, **headers):
    """One request through the gate that does not wait."""
    with gate.passing(urgent, patience=0) as answered:
        answered(status, {name.replace("_", "-"): str(value) for name, value in headers.items()})


class TestAlone:
    """The gate by itself, on a clock that stands still."""

    @pytest.mark.parametrize(
        ("headers", "pause"),
        [
            ({}, 3),
            ({"Retry_After": "7"}, 7),
            ({"Retry_After": formatdate(time.time() + 3600, usegmt=True)}, 120),
            ({"Retry_After": "soon"}, 3),
            ({"Retry_After": "inf"}, 3),
            ({"Retry_After": "-5"}, 0),
            ({"Retry_After": "86400"}, 120),
            ({"X_Ratelimit_Reset": "1000000060", "Date": "Sun, 09 Sep 2001 01:46:40 GMT"}, 60),
            ({"X_Ratelimit_Reset": "1000000060", "Date": "then"}, 0),
            ({"X_Ratelimit_Reset": "1000000060", "Retry_After": "5"}, 5),
        ],
    )
    def test_a_429_shuts_it(self, headers, pause):
        """Until Retry-After, else the reset by the service's own clock, else for a pause; never for long."""
        clock = FakeClock(1000)
        gate = Gate(pause=3, timer=clock)
        answer(gate, 429, **headers)
        if pause:
            clock.advance(pause - 0.01)
            with pytest.raises(GateShut):
                answer(gate)
            clock.advance(0.02)
        answer(gate)
        assert not gate.is_shut

    def test_one_request_tries(self):
        """The others wait for its answer; another 429 shuts it again, and no answer lets the next one try."""
        clock = FakeClock(1000)
        gate = Gate(pause=3, timer=clock)
        answer(gate, 429)
        clock.advance(3)
        with gate.passing(patience=0) as answered:
            with pytest.raises(GateShut):
                answer(gate)
            answered(429, {})
        with pytest.raises(GateShut):
            answer(gate)
        clock.advance(3)
        with pytest.raises(OSError), gate.passing(patience=0):
            raise OSError
        assert gate.is_shut
        with gate.passing(patience=0) as answered:
            answered(500, {})
        answer(gate)
        assert not gate.is_shut

    def test_no_more_at_a_time_than_are_left(self):
        """By what the service said last; a new window has them all again."""
        clock = FakeClock(1000)
        gate = Gate(timer=clock)
        reset = round(time.time()) + 60
        answer(gate, X_Ratelimit_Limit=3, X_Ratelimit_Remaining=2, X_Ratelimit_Reset=reset)
        with gate.passing(patience=0), gate.passing(patience=0), pytest.raises(GateShut):
            answer(gate)
        answer(gate, X_Ratelimit_Limit=3, X_Ratelimit_Remaining=0, X_Ratelimit_Reset=reset)
        answer_of_before = {"X_Ratelimit_Remaining": 1, "X_Ratelimit_Reset": reset}
        with pytest.raises(GateShut):
            answer(gate, **answer_of_before)
        assert gate.left == 0
        clock.advance(62)
        with gate.passing(patience=0), gate.passing(patience=0), gate.passing(patience=0):
            with pytest.raises(GateShut):
                answer(gate)

    def test_a_service_that_says_nothing(self):
        """Everybody passes."""
        gate = Gate()
        with gate.passing(patience=0), gate.passing(patience=0) as answered:
            answered(200, {"X-Ratelimit-Remaining": "many"})
        answer(gate)
        assert gate.left is None

    def test_one_for_each_key_pair_and_service(self, monkeypatch):
        """And for each process."""
        gate = gate_of("data", "http://x", "key", 3)
        assert gate is gate_of("data", "http://x", "key", 5)
        others = [("trading", "http://x", "key"), ("data", "http://y", "key"), ("data", "http://x", "other")]
        assert all(gate_of(*other, 3) is not gate for other in others)
        monkeypatch.setattr("os.getpid", lambda: -1)  # as in a child
        assert gate_of("data", "http://x", "key", 3) is not gate


class TestBucket:
    """No more requests in any minute than was said."""

    def test_a_token_is_back_a_minute_after_the_answer(self):
        """While a request is in progress it has one."""
        clock = FakeClock()
        gate, _who = limited(2, clock)
        with gate.passing(patience=0):
            clock.advance(100)
            answer(gate)
            with pytest.raises(GateShut):
                answer(gate)
        clock.advance(59.9)
        with pytest.raises(GateShut):
            answer(gate)
        clock.advance(0.2)
        answer(gate)
        answer(gate)
        with pytest.raises(GateShut):
            answer(gate)

    @pytest.mark.parametrize("seed", range(20))
    def test_in_any_minute_of_the_service(self, seed):
        """However long requests travel, and whatever becomes of them."""
        luck, clock = random.Random(seed), FakeClock()
        rate = luck.choice([1, 2, 5])
        gate, _who = limited(rate, clock)
        flying, arrived, passed = [], [], 0
        for _ in range(600):
            if luck.random() < 0.3:
                clock.advance(luck.choice([0, 0.5, 5, 20, 60]))
            if flying and luck.random() < 0.5:
                passing, sent = flying.pop(luck.randrange(len(flying)))
                arrived.append(luck.uniform(sent, clock()))
                passing.__exit__(None, None, None)
            passing = gate.passing(patience=0)
            try:
                passing.__enter__()
            except GateShut:
                continue
            flying.append((passing, clock()))
            passed += 1
        for passing, _ in flying:
            passing.__exit__(None, None, None)
        assert passed > 20
        for start in arrived:
            assert sum(start <= one < start + 60 for one in arrived) <= rate

    def test_the_smallest_of_several_rates_holds(self):
        """Of those whose accounts live; none of them, no bucket."""
        gate, whos = Gate(timer=FakeClock()), [Who(), Who(), Who()]
        for who, rate in zip(whos, (5, 2, 9), strict=True):
            gate.keep_to(rate, who)
        assert gate.requests_per_minute == 2
        del who, whos[1]
        gc.collect()
        assert gate.requests_per_minute == 5
        for _ in range(5):
            answer(gate)
        with pytest.raises(GateShut):
            answer(gate)
        whos.clear()
        gc.collect()
        assert gate.requests_per_minute is None
        answer(gate)
        with pytest.raises(ValueError, match=r"^requests_per_minute: "):
            gate.keep_to(0, gate)

    @pytest.mark.parametrize(("rate", "reads"), [(20, 18), (5, 4), (2, 1), (1, 1)])
    def test_the_last_ones_are_for_urgent_requests(self, rate, reads):
        """A tenth of them, if there are so many: by the bucket, and by what the service says is left."""
        headers = {"X_Ratelimit_Limit": rate, "X_Ratelimit_Reset": round(time.time()) + 60}
        with_bucket, _who = limited(rate, FakeClock(), for_urgent=0.1)
        told = Gate(timer=FakeClock(), for_urgent=0.1)
        for gate in (with_bucket, told):
            done = 0
            for urgent in [False] * 30 + [True] * 30:
                try:
                    said = (
                        {} if gate is with_bucket else {**headers, "X_Ratelimit_Remaining": rate - done - 1}
                    )
                    answer(gate, urgent=urgent, **said)
                    done += 1
                except GateShut:
                    assert done >= (rate if urgent else reads)
            assert done == rate

    def test_orders_take_the_next_token(self, crowd, until):
        """Whoever else waits, and for however long."""
        clock, order = FakeClock(), []
        gate, _who = limited(1, clock)

        def request(name, urgent=False):
            with gate.passing(urgent, patience=1000):
                order.append(name)

        answer(gate)
        for number, (name, urgent) in enumerate([("read", False), ("again", False), ("order", True)]):
            crowd.add(request, name, urgent)
            until(lambda number=number: gate.waiting == number + 1)
        for number in range(3):
            advance(gate, clock, 60)
            until(lambda number=number: len(order) == number + 1)
        crowd.join()
        assert order == ["order", "read", "again"]

    def test_patience_ends(self, crowd, until):
        """Who has none left takes no token along."""
        clock = FakeClock()
        gate, _who = limited(1, clock)
        answer(gate)

        def give_up():
            with pytest.raises(GateShut), gate.passing(patience=30):
                pass

        crowd.add(give_up)
        until(lambda: gate.waiting)
        advance(gate, clock, 30)
        crowd.join()
        assert gate.waiting == 0
        clock.advance(30)
        answer(gate)

    def test_an_interrupt_at_any_line(self, monkeypatch):
        """Of the wait leaves the gate as it was."""
        monkeypatch.setattr(threading.Condition, "wait", lambda self, timeout: clock.advance(timeout))
        ours = {Gate._wait.__code__, Gate._pause_before.__code__, Gate._pause_for_token.__code__}
        for line in range(1000):
            clock = FakeClock()
            gate, _who = limited(1, clock)
            answer(gate, 429, Retry_After=7)
            left = line

            def trace(frame, event, _):
                nonlocal left
                if frame.f_code not in ours:
                    return None
                left -= event == "line"
                if left < 0:
                    raise KeyboardInterrupt
                return trace

            before = sys.gettrace()
            sys.settrace(trace)
            try:
                with gate.passing(patience=90):
                    break
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(before)
            assert gate.waiting == 0
            clock.advance(60)
            answer(gate)
        assert 20 < line < 999

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_has_a_gate_of_its_own(self):
        """Also if a thread of its parent is inside the parent's, whose bucket is empty."""
        gate, who = gate_of("data", "http://forked", "key", 3), Who()
        gate.keep_to(1, who)
        answer(gate)

        def child():
            answer(gate_of("data", "http://forked", "key", 3))
            return "passed"

        with gate._changed:
            assert in_child(child) == "'passed'"
        with pytest.raises(GateShut):
            answer(gate)


class TestInLine:
    """Who waits."""

    def test_urgent_ones_first(self, crowd, until):
        """Then the others, as they came."""
        gate, order = Gate(), []

        def request(name, urgent=False):
            with gate.passing(urgent, patience=20) as answered:
                order.append(name)
                answered(200, {})

        answer(gate, 429, Retry_After="0.2")
        for number, (name, urgent) in enumerate([("read", False), ("again", False), ("order", True)]):
            crowd.add(request, name, urgent)
            until(lambda number=number: gate.waiting == number + 1)
        crowd.join()
        assert order == ["order", "read", "again"]
        assert gate.waiting == 0

    def test_who_gives_up_leaves_the_line(self, crowd, until):
        """The next one is not held up by it."""
        gate = Gate()
        answer(gate, 429, Retry_After="0.2")
        with pytest.raises(GateShut), gate.passing(urgent=True, patience=0.01):
            pass
        assert gate.waiting == 0
        crowd.add(answer_late, gate)
        crowd.join()


def answer_late(gate):
    with gate.passing(patience=20) as answered:
        answered(200, {})


class TestAccounts:
    """Of one key pair, on a server with a limit."""

    @pytest.mark.parametrize("counts_refused", [False, True])
    def test_two_accounts_of_one_key_pair(self, market_server, open_account, counts_refused):
        """bid, ask and last of each symbol: no answer is None for want of a request, few are refused."""
        market = market_server.MarketServer(rate_limit=30, window=1.0, counts_refused=counts_refused)
        market.prices.update(dict.fromkeys(SYMBOLS, 100.0))

        def widget(account):
            return [
                account.get_instrument_current_price(symbol, kind)
                for kind in ("bid", "ask", "last")
                for symbol in SYMBOLS
            ]

        with market as server, ThreadPoolExecutor(20) as pool:
            accounts = [open_account(name, url=server.url, retries=3, retry_wait=0.1) for name in (1, 2)]
            widgets = [pool.submit(widget, account) for account in accounts for _ in range(10)]
            answers = [price for done in widgets for price in done.result(timeout=50)]
            assert None not in answers
            assert len(answers) == 20 * 60
            assert server.refused <= 5
            assert len(server.requests) <= 85

    def test_a_429_is_told_to_the_others(self, open_account, server, crowd, until):
        """Another account with these keys waits; trading, and other keys, do not."""
        first, second = open_account(1), open_account(2)
        other = open_account(3, retry_wait=0)
        other_keys = type(first)(4, "other", "secret", url=server.url, retries=0)
        gate = gate_of("data", server.url, "key", 0)
        gate._learn(429, {"Retry-After": "0.3"})
        crowd.add(second.get_instrument_current_price, "ASML")
        until(lambda: gate.waiting == 1)
        assert server.requests == []
        assert first.get_account().cash == "100000.00"
        assert other_keys.get_instrument_current_price("ASML") == 984.75
        assert crowd.join() == [984.75]
        assert other.get_instrument_current_price("ASML") == 984.75

    def test_whoever_asks_again_makes_no_second_request(self, open_account, server, crowd, until):
        """While the first one waits at the gate: that may take longer than the getter's flight."""
        account = open_account()
        get, readings = account.get_instrument_current_price, type(account._prices).reading
        gate = gate_of("data", server.url, "key", 0)
        gate._learn(429, {"Retry-After": "100"})
        crowd.add(get, "ASML")
        until(lambda: gate.waiting == 1)
        get.invalidate("ASML")  # detaches the flight, as a timeout does
        crowd.add(get, "ASML")
        until(lambda: [flight.followers for flight in readings.flights()] == [1])
        with gate._changed:
            gate._shut_until = 0.0
            gate._changed.notify_all()
        assert crowd.join() == [984.75] * 2
        assert len(server.requests) == 1
        limits = [
            each.cache_parameters()["flight_timeout"]
            for each in (type(account).get_instrument_current_price, readings)
        ]
        assert limits == [60, 60 + 120]

    def test_an_order_does_not_wait_for_long(self, open_account, server):
        """No longer than for an answer: an order that comes a minute late is another order."""
        pytest.importorskip("alpaca")
        from alpaca.trading.enums import OrderSide, TimeInForce
        from alpaca.trading.requests import MarketOrderRequest

        account = open_account(timeout=0.05)
        gate_of("trading", server.url, "key", 0)._learn(429, {"Retry-After": "100"})
        order = MarketOrderRequest(symbol="ASML", qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.DAY)
        with pytest.raises(GateShut):
            account.submit_order(order)
        assert server.requests == []

    def test_a_price_that_may_not_be_asked_for(self, open_account, server, caplog, monkeypatch):
        """None in the end, as any failure."""
        monkeypatch.setattr("singleflight.accounts.gate.LONGEST_PAUSE", 0.05)
        monkeypatch.setattr(Gate.passing.__wrapped__, "__defaults__", (False, 0.05))
        gate = gate_of("data", server.url, "key", 0)
        gate._must_try = gate._trying = True
        assert open_account().get_instrument_current_price("ASML") is None
        assert "GateShut: too many requests" in caplog.text


class TestAMinute:
    """Real limits, on a clock that moves only while every caller waits."""

    @pytest.fixture
    def clock(self):
        return FakeClock(1_800_000_030)

    @pytest.fixture
    def gates(self, clock, monkeypatch):
        """Those of the accounts, by service, key and so on; on that clock."""
        made = {}

        def gate_of(service, *named):
            return made.setdefault((service, *named[:-1]), Gate(pause=3, timer=clock))

        monkeypatch.setattr("singleflight.accounts.alpaca_clients.gate_of", gate_of)
        return made

    @pytest.fixture
    def patiently(self, clock, gates):
        """Runs callers to their end; a second passes whenever all that are left wait at a gate."""

        def run(callers):
            lock, busy = threading.Lock(), len(callers)

            def one(call):
                nonlocal busy
                try:
                    return call()
                finally:
                    with lock:
                        busy -= 1

            with ThreadPoolExecutor(len(callers)) as pool:
                done = [pool.submit(one, call) for call in callers]
                give_up = time.monotonic() + 50
                while busy:
                    assert time.monotonic() < give_up
                    time.sleep(0)
                    for gate in gates.values():
                        with gate._changed:
                            if gate._line and not gate._flying and gate._pause_before(gate._line[0]):
                                clock.advance(1)
                                gate._changed.notify_all()
                return [each.result() for each in done]

        return run

    @pytest.mark.parametrize("counts_refused", [False, True])
    @pytest.mark.parametrize("used", [0, 150])
    def test_two_accounts_of_one_key_pair(
        self, market_server, open_account, patiently, clock, counts_refused, used
    ):
        """200 a minute; bid, ask and last of 50 symbols each: no None, at most 5 rejected.

        Also if another program has used most of the minute.
        """
        symbols = [f"S{number}" for number in range(50)]

        def widget(account):
            return [
                account.get_instrument_current_price(symbol, kind)
                for kind in ("bid", "ask", "last")
                for symbol in symbols
            ]

        market = market_server.MarketServer(
            rate_limit=200, window=60.0, counts_refused=counts_refused, clock=clock
        )
        market.prices.update(dict.fromkeys(symbols, 100.0))
        with market as server:
            for _ in range(used):
                server.answer("/v2/stocks/quotes/latest?symbols=S0", None, {"APCA-API-KEY-ID": "key"})
            accounts = [open_account(name, url=server.url, retries=3) for name in (1, 2)]
            answers = patiently([lambda a=account: widget(a) for account in accounts for _ in range(10)])
            assert {price for prices in answers for price in prices} == {100.0, 100.5}
            assert server.refused <= 5
            assert len(server.requests) <= used + 200 + 5
            assert (clock() >= 1_800_000_060) == bool(used)

    def test_a_bucket_before_a_service_that_says_nothing(
        self, market_server, open_account, patiently, clock, gates
    ):
        """Nothing is rejected at all; of two rates the smaller one holds."""
        market = market_server.MarketServer(rate_limit=20, window=60.0, clock=clock)
        market.prices.update(dict.fromkeys(SYMBOLS, 100.0))
        answer, silent = market.answer, {}
        market.answer = lambda *asked: (*answer(*asked)[:2], silent.copy())
        with market as server:
            accounts = [
                open_account(name, url=server.url, requests_per_minute=rate)
                for name, rate in ((1, 20), (2, 50), (3, None))
            ]
            calls = [
                lambda a=account, s=symbol: a.get_instrument_current_price(s)
                for account in accounts
                for symbol in SYMBOLS[:13]
            ]
            assert patiently(calls) == [100.0] * 39
            assert (server.refused, len(server.requests)) == (0, 39)
            assert 60 <= clock() - 1_800_000_030 < 120

    def test_trading_has_a_bucket_too(self, open_account, server, clock, gates, crowd, until):
        """Of its own."""
        account = open_account(requests_per_minute=1)
        account.get_instrument_current_price("ASML")
        assert account.get_account().cash == "100000.00"
        crowd.add(account.get_positions)
        until(lambda: sum(gate.waiting for gate in gates.values()) == 1)
        (gate,) = [gate for gate in gates.values() if gate.waiting]
        assert len(server.requests) == 2
        advance(gate, clock, 60)
        assert crowd.join() == [()]

    def test_a_get_that_is_sent_once_more_takes_another_token(
        self, open_account, server, market_server, clock, gates, crowd, until
    ):
        """The service may have counted both."""
        account = open_account(requests_per_minute=3)
        account.get_instrument_current_price("ASML")
        answers = [market_server.DROP, None]
        server.before_answer = lambda path, symbols: answers.pop(0) if answers else None
        assert account.get_instrument_current_price("AAPL") == 190.5
        crowd.add(account.get_instrument_current_price, "MSFT")
        (gate,) = gates.values()
        until(lambda: gate.waiting == 1)
        advance(gate, clock, 60)
        assert crowd.join() == [410.2]
        assert len(server.requests) == 4

    def test_a_task_that_is_cancelled_while_its_request_waits(
        self, open_account, server, clock, gates, loop, until
    ):
        """Is free at once; its request has its turn, and the next one the turn after it."""
        account = open_account(requests_per_minute=1)
        account.get_instrument_current_price("ASML")
        (gate,) = gates.values()
        left, stays = (
            loop.start(account.aget_instrument_current_price, symbol) for symbol in ("AAPL", "MSFT")
        )
        until(lambda: gate.waiting == 2)
        left.cancel()
        assert isinstance(left.outcome(), asyncio.CancelledError)
        while gate.waiting:
            was = gate.waiting
            advance(gate, clock, 60)
            until(lambda was=was: gate.waiting < was and not gate._flying)
        assert stays.outcome() == 410.2
        assert len(server.requests) == 3

    @pytest.mark.parametrize(
        ("value", "error"),
        [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("9", TypeError), (True, TypeError)],
    )
    def test_bad_ones(self, open_account, value, error):
        """They are named."""
        with pytest.raises(error, match=r"^requests_per_minute: "):
            open_account(requests_per_minute=value)


def test_threads_at_the_same_time():
    """So many at a time as are left, whatever they do."""
    gate, most, lock = Gate(), [], threading.Lock()
    reset = str(round(time.time()) + 60)
    flying = 0

    def request(_):
        nonlocal flying
        with gate.passing(patience=20) as answered:
            with lock:
                flying += 1
                most.append(flying)
            with lock:
                flying -= 1
            answered(200, {"X-Ratelimit-Remaining": "4", "X-Ratelimit-Reset": reset})

    request(0)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(request, range(400), timeout=50))
    assert max(most) <= 4
    assert gate.waiting == 0
