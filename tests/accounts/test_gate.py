"""The gate: what a rate limit means for all requests of one key pair."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest

from singleflight.accounts.gate import Gate, GateShut, gate_of

SYMBOLS = [f"S{number}" for number in range(20)]
SHUT = {"Retry-After": "0.2"}


class Clock:
    """Monotonic time that tests set."""

    now = 1000.0

    def __call__(self):
        return self.now


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
        clock = Clock()
        gate = Gate(pause=3, timer=clock)
        answer(gate, 429, **headers)
        if pause:
            clock.now += pause - 0.01
            with pytest.raises(GateShut):
                answer(gate)
            clock.now += 0.02
        answer(gate)
        assert not gate.is_shut

    def test_one_request_tries(self):
        """The others wait for its answer; another 429 shuts it again, and no answer lets the next one try."""
        clock = Clock()
        gate = Gate(pause=3, timer=clock)
        answer(gate, 429)
        clock.now += 3
        with gate.passing(patience=0) as answered:
            with pytest.raises(GateShut):
                answer(gate)
            answered(429, {})
        with pytest.raises(GateShut):
            answer(gate)
        clock.now += 3
        with pytest.raises(OSError), gate.passing(patience=0):
            raise OSError
        assert gate.is_shut
        with gate.passing(patience=0) as answered:
            answered(500, {})
        answer(gate)
        assert not gate.is_shut

    def test_no_more_at_a_time_than_are_left(self):
        """By what the service said last; a new window has them all again."""
        clock = Clock()
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
        clock.now += 62
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
        monkeypatch.setattr("singleflight.accounts.gate._LONGEST_PAUSE", 0.05)
        monkeypatch.setattr(Gate.passing.__wrapped__, "__defaults__", (False, 0.05))
        gate = gate_of("data", server.url, "key", 0)
        gate._must_try = gate._is_trying = True
        assert open_account().get_instrument_current_price("ASML") is None
        assert "GateShut: too many requests" in caplog.text


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
