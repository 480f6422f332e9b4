"""Balances, positions, the clock, assets and orders, on alpaca-py's real client and a loopback server."""

import asyncio
import json
import logging
import os
from types import SimpleNamespace

import pytest

from singleflight import Landing, single_flight_ttl
from singleflight.accounts import AlpacaAccount
from singleflight.accounts.alpaca_trading import until_the_bell
from singleflight.testing import FakeClock

from ..drivers import eventually

READERS = ("get_account", "get_positions", "get_clock", "get_asset")


@pytest.fixture
def buy(server):
    """Makes orders for so many shares."""
    pytest.importorskip("alpaca")
    from alpaca.trading.enums import OrderSide, TimeInForce
    from alpaca.trading.requests import MarketOrderRequest

    def make(symbol="ASML", qty=2, **more):
        return MarketOrderRequest(
            symbol=symbol, qty=qty, side=OrderSide.BUY, time_in_force=TimeInForce.DAY, **more
        )

    return make


@pytest.fixture
def held_up(server, make_gate):
    """Holds up answers on one path, as they were when their requests came; gives the gate."""
    waiting = {}

    def hold(path):
        gate = make_gate()
        waiting[path] = gate
        return gate

    def before(path, symbols):
        gate = waiting.pop(path, None)  # the next request only
        if gate is None:
            return None
        if path == "/v2/orders":
            gate.pass_()
            return None
        with server.lock:
            status, found = server._traded(path, None)
        gate.pass_()
        return status, json.dumps(found).encode()

    server.before_answer = before
    return hold


def call(account, name):
    return getattr(account, name)(*(("ASML",) if name.endswith("get_asset") else ()))


def asked(server, path="/v2/account"):
    return server.requests.count(path)


class TestReading:
    """What the broker says, asked for once."""

    def test_what_comes(self, account, server):
        """alpaca-py's own objects."""
        server.held["AAPL"] = 3.0
        assert account.get_account().cash == "100000.00"
        (position,) = account.get_positions()
        assert (position.symbol, position.qty) == ("AAPL", "3")
        assert account.get_clock().is_open
        assert account.get_asset(" asml").symbol == "ASML"
        assert server.requests == ["/v2/account", "/v2/positions", "/v2/clock", "/v2/assets/ASML"]

    @pytest.mark.parametrize("name", READERS)
    def test_ten_threads_and_tasks_make_one_request(
        self, account, server, crowd, loop, gate, followers, name
    ):
        """Whoever asks while a request is under way shares its answer, the very object."""
        server.before_answer = lambda path, symbols: gate.pass_()
        crowd.add(call, account, name, count=5)
        followers(4, getattr(AlpacaAccount, name))
        arguments = ("ASML",) if name == "get_asset" else ()
        tasks = [loop.start(getattr(account, f"a{name}"), *arguments) for _ in range(5)]
        followers(9, getattr(AlpacaAccount, name))
        gate.set()
        answers = [*crowd.join(), *(task.outcome() for task in tasks)]
        assert all(answer is answers[0] for answer in answers)
        assert len(server.requests) == 1

    @pytest.mark.parametrize("name", READERS)
    def test_a_task_may_be_first(self, account, server, loop, name):
        """It makes the request in a thread, and what it brings serves threads."""
        arguments = ("ASML",) if name == "get_asset" else ()
        first = loop.run(getattr(account, f"a{name}"), *arguments)
        assert first == call(account, name)
        assert len(server.requests) == (2 if name == "get_positions" else 1)

    def test_accounts_have_their_own(self, open_account, server):
        """Those with one id share."""
        for name in (1, 1, 2):
            open_account(name).get_account()
        assert asked(server) == 2

    def test_positions_are_not_kept(self, account, server):
        """Each caller who comes later asks again; none are none."""
        assert account.get_positions() == ()
        server.held["AAPL"] = 3.0
        assert len(account.get_positions()) == 1
        assert account.get_positions.entry() is None

    def test_crypto_is_one_part_of_the_path(self, account, server):
        """Its slash is no separator, and no symbol leads elsewhere."""
        assert account.get_asset("btc/usd").symbol == "BTC/USD"
        assert server.requests == ["/v2/assets/BTC%2FUSD"]
        with pytest.raises(Exception, match="not found"):
            account.get_asset("../account?x=1")
        assert server.requests[-1] == "/v2/assets/..%2FACCOUNT%3FX%3D1"

    @pytest.mark.parametrize(("symbol", "error"), [(" ", ValueError), (None, TypeError)])
    def test_bad_symbols_raise_before_any_flight(self, account, server, loop, symbol, error):
        """As they do for prices."""
        with pytest.raises(error, match="symbol"):
            account.get_asset(symbol)
        with pytest.raises(error, match="symbol"):
            loop.run(account.aget_asset, symbol)
        assert server.requests == []


class TestLifetimes:
    """How long what was read is served."""

    def test_the_account(self):
        """Five seconds, and 25 more while it is renewed or cannot be: then nobody is told the old state."""
        clock, answers = FakeClock(), ["first"]
        options = AlpacaAccount.get_account.cache_parameters()
        assert (options["ttl"], options["grace"], options["flight_timeout"]) == (5, 25, 60)

        @single_flight_ttl(ttl=options["ttl"], grace=options["grace"], timer=clock)
        def read():
            return answers.pop()  # an IndexError is the broker's failure

        assert read() == "first"
        clock.advance(4.9)
        assert read.explain().would == "hit"
        clock.advance(0.1)
        assert read.explain().would == "stale_hit"
        clock.advance(24.9)
        assert read() == "first"
        clock.advance(0.1)
        with pytest.raises(IndexError):
            read()

    def test_an_asset(self, account):
        """A day."""
        account.get_asset("ASML")
        assert account.get_asset.entry("ASML").ttl == 24 * 60 * 60

    @pytest.mark.parametrize(
        ("is_open", "close", "opens", "duration", "ttl"),
        [
            (True, 3600, 7200, 0, 60),
            (True, 20, 7200, 0, 20),
            (False, 20, 7200, 0, 60),
            (False, 7200, 30, 0, 30),
            (True, 20, 7200, 5, 15),
            (True, -1, 7200, 0, 0),
        ],
    )
    def test_the_clock(self, is_open, close, opens, duration, ttl):
        """A minute, but not past the bell that ends what it says."""
        from datetime import datetime, timedelta

        now = datetime(2026, 1, 2, 15)
        clock = SimpleNamespace(
            timestamp=now,
            is_open=is_open,
            next_close=now + timedelta(seconds=close),
            next_open=now + timedelta(seconds=opens),
        )
        assert until_the_bell(Landing(1, clock, duration=duration)) == ttl

    def test_the_clock_that_came(self, account, server):
        """alpaca-py's times can be subtracted."""
        account.get_clock()
        account.get_clock()
        assert account.get_clock.entry().ttl == 60
        assert len(server.requests) == 1


class TestFailures:
    """They raise, and nothing is made of them."""

    @pytest.mark.parametrize("name", READERS)
    def test_an_outage_raises(self, account, server, loop, name):
        """alpaca-py's error, for threads and for tasks; the next caller asks again."""
        from alpaca.common.exceptions import APIError

        server.outage = True
        with pytest.raises(APIError) as caught:
            call(account, name)
        assert caught.value.status_code == 503
        arguments = ("ASML",) if name == "get_asset" else ()
        with pytest.raises(APIError):
            loop.run(getattr(account, f"a{name}"), *arguments)
        server.outage = False
        call(account, name)
        assert len(server.requests) == 3

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (404, b"[]"),
            (429, b"[]"),
            (500, b"[]"),
            (200, b""),
            (200, b"null"),
            (200, b"{}"),
            (200, b'{"message":"try later"}'),
            (200, b"not json"),
            (200, b"[{}]"),
            (200, b"[null]"),
            (0, b""),
        ],
    )
    def test_a_failure_is_never_an_empty_list(self, account, server, status, body):
        """Whatever comes in its place."""
        server.before_answer = lambda path, symbols: (status, body)
        with pytest.raises(Exception):
            account.get_positions()

    def test_everybody_in_a_burst_is_told(self, account, server, crowd, gate, followers):
        """Ten callers, two requests, ten errors that keep their status."""
        from alpaca.common.exceptions import APIError

        def fail(path, symbols):
            gate.pass_()
            return 500, b'{"message":"no"}'

        server.before_answer = fail
        crowd.add(account.get_positions, count=10)
        followers(9, AlpacaAccount.get_positions)
        gate.set()
        assert [(type(error), error.status_code) for error in crowd.join()] == [(APIError, 500)] * 10
        assert len(server.requests) == 2

    def test_an_unknown_asset(self, account):
        """404."""
        with pytest.raises(Exception, match="not found") as caught:
            account.get_asset("XYZ")
        assert caught.value.status_code == 404

    @pytest.mark.parametrize("name", READERS)
    def test_the_limits_are_the_accounts(self, open_account, server, gate, name):
        """A timeout, and retries for 429 and 504."""
        from requests.exceptions import ReadTimeout

        server.before_answer = lambda path, symbols: (504, b"{}")
        with pytest.raises(Exception) as caught:
            call(open_account(retries=2, retry_wait=0), name)
        assert caught.value.status_code == 504
        assert len(server.requests) == 3
        server.before_answer = lambda path, symbols: gate.pass_()
        with pytest.raises(ReadTimeout):
            call(open_account(timeout=0.05), name)

    def test_trading_needs_credentials(self, server, buy):
        """It says what to set, and asks nobody."""
        bare = AlpacaAccount("bare", url=server.url)
        for ask in (bare.get_account, lambda: bare.submit_order(buy())):
            with pytest.raises(ValueError, match=r"APCA_API_KEY_ID.*APCA_API_SECRET_KEY"):
                ask()
        assert server.requests == []


class TestOrders:
    """Each is sent once, and makes what is known of the account forgotten."""

    def test_two_that_look_the_same_are_two(self, account, server, crowd, meeting, buy):
        """They are not one call, even at the same time."""
        server.before_answer = meeting(2)
        order = buy()
        crowd.add(account.submit_order, order, count=2)
        first, second = crowd.join()
        assert first.id != second.id
        assert first.status.value == "filled"
        assert server.held == {"ASML": 4.0}

    def test_from_a_task(self, account, server, loop, buy):
        """The same."""
        assert loop.run(account.asubmit_order, buy()).symbol == "ASML"
        assert server.held == {"ASML": 2.0}

    @pytest.mark.parametrize("way", ["thread", "task"])
    def test_the_balance_after_it(self, account, server, loop, buy, way):
        """Nobody is told the one before, though that was kept."""
        assert account.get_account().cash == "100000.00"
        if way == "thread":
            account.submit_order(buy())
        else:
            loop.run(account.asubmit_order, buy())
        assert account.get_account().cash == "98030.50"
        assert asked(server) == 2

    def test_other_accounts_keep_theirs(self, open_account, server, buy):
        """An order concerns one id, through whichever object it was sent."""
        mine, again, other = open_account(1), open_account(1), open_account(2)
        mine.get_account()
        other.get_account()
        again.submit_order(buy())
        assert mine.get_account.entry() is None
        assert other.get_account.entry() is not None

    def test_a_fetch_under_way_is_not_stored(self, account, server, crowd, held_up, until, buy):
        """Its own caller gets what it asked for; nobody else does."""
        gate = held_up("/v2/account")
        crowd.add(account.get_account)
        until(lambda: asked(server) == 1)
        account.submit_order(buy())
        assert account.get_account().cash == "98030.50"  # does not wait for the one under way
        gate.set()
        (early,) = crowd.join()
        assert early.cash == "100000.00"
        assert account.get_account().cash == "98030.50"
        assert asked(server) == 2

    def test_positions_under_way_are_not_joined(self, account, server, crowd, held_up, until, buy):
        """They were asked for before the order."""
        gate = held_up("/v2/positions")
        crowd.add(account.get_positions)
        until(lambda: asked(server, "/v2/positions") == 1)
        account.submit_order(buy())
        assert [position.symbol for position in account.get_positions()] == ["ASML"]
        gate.set()
        assert crowd.join() == [()]

    def test_nothing_old_is_served_while_it_is_sent(self, account, server, crowd, held_up, until, buy):
        """That is what the first forgetting is for: the broker may fill it long before it answers."""
        account.get_account()
        gate = held_up("/v2/orders")
        crowd.add(account.submit_order, buy())
        until(lambda: asked(server, "/v2/orders") == 1)
        assert account.get_account.entry() is None
        gate.set()
        crowd.join()

    def test_what_was_read_while_it_was_sent_is_not_kept(self, account, server, crowd, held_up, until, buy):
        """That is what the second is for: it may have been answered before the order was seen."""
        gate = held_up("/v2/orders")
        crowd.add(account.submit_order, buy())
        until(lambda: asked(server, "/v2/orders") == 1)
        assert account.get_account().cash == "100000.00"
        gate.set()
        crowd.join()
        assert account.get_account().cash == "98030.50"

    @pytest.mark.parametrize("answer", [(503, b"{}"), (403, b"{}"), (200, b"not json"), (0, b"")])
    def test_one_that_fails_is_forgotten_after_too(self, account, server, answer, buy):
        """The broker may have taken it all the same. It raises, and is not sent again."""

        def before(path, symbols):
            if path == "/v2/orders":
                account.get_account()  # read while it is sent
                return answer
            return None

        server.before_answer = before
        with pytest.raises(Exception):
            account.submit_order(buy())
        assert account.get_account.entry() is None
        assert asked(server, "/v2/orders") == 1

    def test_an_interrupt_forgets_too(self, account, monkeypatch, buy):
        """As any other way out does."""

        def interrupt(order):
            account.get_account()
            raise KeyboardInterrupt

        monkeypatch.setattr(account._trading.client("orders"), "submit_order", interrupt)
        with pytest.raises(KeyboardInterrupt):
            account.submit_order(buy())
        assert account.get_account.entry() is None

    def test_a_cancelled_task_does_not_take_it_back(self, account, server, loop, held_up, until, buy):
        """The order goes on, and what was read meanwhile is forgotten when it ends."""
        gate = held_up("/v2/orders")
        sending = loop.start(account.asubmit_order, buy())
        loop.run(eventually, lambda: asked(server, "/v2/orders") == 1)
        sending.cancel()
        assert isinstance(sending.outcome(), asyncio.CancelledError)
        account.get_account()
        assert account.get_account.entry() is not None
        gate.set()
        until(lambda: account.get_account.entry() is None)
        assert server.held == {"ASML": 2.0}

    def test_sent_again_only_where_it_was_not_looked_at(self, open_account, server, buy):
        """After 429, as often as `retries` says; not after 504, where a second one might double it."""
        account = open_account(retries=2, retry_wait=0)
        for status, sent in ((429, 3), (504, 1), (500, 1)):
            server.reset()
            server.before_answer = lambda path, symbols, status=status: (status, b"{}")
            with pytest.raises(Exception) as caught:
                account.submit_order(buy())
            assert caught.value.status_code == status
            assert asked(server, "/v2/orders") == sent

    @pytest.mark.parametrize("order", [None, 5, {"symbol": "ASML"}])
    def test_what_is_no_order(self, account, server, loop, order):
        """It is named before anything is done: the stored balances stay."""
        account.get_account()
        with pytest.raises(TypeError, match=r"^order: expected a request such as MarketOrderRequest, got "):
            account.submit_order(order)
        with pytest.raises(TypeError, match=r"^order: "):
            loop.run(account.asubmit_order, order)
        account.get_account()
        assert asked(server, "/v2/account") == 1

    def test_an_order_has_a_timeout(self, open_account, server, gate, buy):
        """It raises; whether the broker took it is for the caller to find out."""
        from requests.exceptions import ReadTimeout

        server.before_answer = lambda path, symbols: gate.pass_()
        with pytest.raises(ReadTimeout):
            open_account(timeout=0.05).submit_order(buy())

    def test_prices_that_hang_do_not_hold_it_up(self, account, server, loop, gate, buy):
        """The threads for prices may all be taken."""
        symbols = [f"S{number}" for number in range(70)]
        server.before_answer = lambda path, symbols: gate.pass_() if "stocks" in path else None
        hanging = [loop.start(account.aget_instrument_current_price, symbol) for symbol in symbols]
        loop.run(eventually, lambda: len(server.requests) == 64)
        assert loop.run(account.asubmit_order, buy()).symbol == "ASML"
        assert not any(task.done() for task in hanging)
        gate.set()
        assert [task.outcome() for task in hanging] == [None] * 70

    @pytest.mark.parametrize("name", READERS)
    def test_prices_that_hang_hold_up_no_reader(self, account, server, loop, gate, name):
        """What is asked of the trading service has threads that no price can take."""
        symbols = [f"S{number}" for number in range(64)]
        server.before_answer = lambda path, symbols: gate.pass_() if "stocks" in path else None
        hanging = [loop.start(account.aget_instrument_current_price, symbol) for symbol in symbols]
        loop.run(eventually, lambda: len(server.requests) == 64)
        arguments = ("ASML",) if name == "get_asset" else ()
        assert loop.run(getattr(account, f"a{name}"), *arguments) is not None
        assert not any(task.done() for task in hanging)
        gate.set()
        assert [task.outcome() for task in hanging] == [None] * 64


class TestClients:
    """The trading service's clients are made as those for prices are."""

    def test_once_each(self, account, buy, caplog):
        """One for reading, one for orders; a line each."""
        with caplog.at_level(logging.INFO, logger="singleflight.accounts"):
            for _ in range(2):
                account.get_positions()
                account.submit_order(buy())
        assert [r.getMessage() for r in caplog.records] == [
            "Alpaca trading client initialized for account 1.",
            "Alpaca order client initialized for account 1.",
        ]

    def test_paper_and_live(self):
        """Each has a service of its own."""
        pytest.importorskip("alpaca")
        for paper, host in (
            (True, "https://paper-api.alpaca.markets"),
            (False, "https://api.alpaca.markets"),
        ):
            account = AlpacaAccount("where", "key", "secret", paper=paper)
            for kind in ("trading", "orders"):
                assert account._trading.client(kind)._base_url.value == host

    def test_a_forked_child_makes_its_own_clients(self, account, monkeypatch):
        """As for prices."""
        mine = account._trading.client("orders")
        assert account._trading.client("orders") is mine
        pid = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: pid + 1)  # as in a child
        assert account._trading.client("orders") is not mine
