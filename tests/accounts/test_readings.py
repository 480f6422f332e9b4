"""What the broker answers, and what fails: what is remembered, what is shared, what is logged."""

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from singleflight.accounts import Quote

SYMBOLS = [f"S{number}" for number in range(50)]


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def asked(server):
    """The symbols of each request."""
    return [parse_qs(urlsplit(target).query)["symbols"][0] for target in server.requests]


@pytest.fixture
def refresh(server):
    """Ten threads ask for fifty prices each, one by one or at once; gives the number of requests."""
    server.prices.update(dict.fromkeys(SYMBOLS, 100.0))

    def run(account, kinds=("bid",), bulk=False):
        server.reset()

        def widget():
            if bulk:
                return [account.get_instrument_current_prices(SYMBOLS, kind) for kind in kinds]
            return [
                account.get_instrument_current_price(symbol, kind) for kind in kinds for symbol in SYMBOLS
            ]

        with ThreadPoolExecutor(10) as pool:
            for done in [pool.submit(widget) for _ in range(10)]:
                done.result(timeout=50)
        return len(server.requests)

    return run


def requests_of(account, refresh, **options):
    return [refresh(account, **options) for _ in range(3)]


class TestRefreshes:
    """Three of them inside one ttl, each by ten widgets that ask for fifty prices."""

    def test_priced(self, account, refresh):
        """A request for each price, once."""
        assert requests_of(account, refresh) == [50, 0, 0]

    @pytest.mark.parametrize("bulk", [False, True])
    def test_a_weekend(self, account, server, refresh, caplog, bulk):
        """No bid is an answer: as few requests, and one WARNING for each price."""
        server.weekend = True
        first, *others = requests_of(account, refresh, bulk=bulk)
        assert first == (1 if bulk else 50)
        assert others == [0, 0]
        assert len(warnings(caplog)) == 50

    @pytest.mark.parametrize("bulk", [False, True])
    def test_wrong_keys(self, account, server, refresh, caplog, bulk):
        """A login that is refused is an answer too."""
        server.secrets = {}
        first, *others = requests_of(account, refresh, bulk=bulk)
        assert first == (1 if bulk else 50)
        assert others == [0, 0]
        assert len(warnings(caplog)) == (1 if bulk else 50)

    def test_three_types(self, account, refresh):
        """One quote has three of them."""
        assert requests_of(account, refresh, kinds=("bid", "ask", "mid")) == [50, 0, 0]


class TestNoPrice:
    """The broker's word that there is none is believed for a while; a failure never is."""

    @pytest.mark.parametrize(
        "fault", ["zero", "unknown", "refused", "login", "subscription", "many", "null side"]
    )
    def test_it_is_believed(self, account, server, caplog, fault):
        """One request and one WARNING, however often it is asked for; in bulk, too."""
        symbol = "XYZ" if fault in ("unknown", "refused") else "ASML"
        if fault == "zero":
            server.sides["ASML"] = (0, 985.25)
        elif fault == "null side":
            server.sides["ASML"] = (-1, 985.25)
        elif fault == "refused":
            server.unknown_is_400 = True
        elif fault == "login":
            server.secrets = {}
        elif fault == "subscription":
            server.before_answer = lambda path, symbols: (403, b'{"message":"no subscription"}')
        elif fault == "many":
            server.sides["ASML"] = (0, 985.25)
            assert account.get_instrument_current_prices([symbol]) == {}
        for _ in range(3):
            assert account.get_instrument_current_price(symbol) is None
            assert account.get_instrument_current_prices([symbol]) == {}
        assert len(server.requests) == 1
        assert len(warnings(caplog)) == 1
        assert account.get_instrument_current_price.entry(symbol) is None

    def test_only_for_a_while(self, open_account, server, until):
        """Then the next caller asks, and finds the price that has come."""
        account = open_account(no_price_ttl=0.05)
        server.weekend = True
        assert account.get_instrument_current_price("ASML") is None
        server.weekend = False
        until(lambda: account.get_instrument_current_price("ASML") == 984.75)
        server.weekend = True
        assert account.get_instrument_current_price("AAPL") is None
        server.weekend = False
        until(lambda: account.get_instrument_current_prices(["AAPL"]) == {"AAPL": 190.5})
        assert len(server.requests) == 4

    @pytest.mark.parametrize("fault", ["unknown", "login"])
    def test_a_refusal_only_for_a_while(self, open_account, server, until, fault):
        """A symbol may come to be listed, and a login to be valid."""
        account = open_account(no_price_ttl=0.05)
        price = server.prices.pop("AAPL") if fault == "unknown" else server.prices["AAPL"]
        server.secrets = {} if fault == "login" else None
        assert account.get_instrument_current_price("AAPL") is None
        server.prices["AAPL"], server.secrets = price, None
        until(lambda: account.get_instrument_current_price("AAPL") == price)
        assert len(server.requests) == 2

    def test_never_longer_than_a_price(self, account, server, monkeypatch):
        """With no ttl nothing is believed."""
        monkeypatch.setenv("PRICE_CACHE_TIME", "0")
        server.weekend = True
        for _ in range(2):
            assert account.get_instrument_current_price("ASML") is None
            assert account.get_instrument_current_price("XYZ") is None
        assert len(server.requests) == 4

    def test_by_the_account_that_asked(self, open_account, server):
        """Another one with the same id makes its own request."""
        server.weekend = True
        for account in (open_account(1), open_account(1)):
            assert account.get_instrument_current_price("ASML") is None
            assert account.get_instrument_current_price("XYZ") is None
        assert len(server.requests) == 4

    @pytest.mark.parametrize(
        "answer", [(429, b"{}"), (500, b"{}"), (503, b""), (400, b'{"message":"malformed"}'), (0, b"")]
    )
    def test_a_failure_is_not(self, account, server, caplog, answer):
        """The next caller asks, and each failure is logged."""
        server.before_answer = lambda path, symbols: answer
        for _ in range(2):
            assert account.get_instrument_current_price("ASML") is None
            assert account.get_instrument_current_prices(["ASML"]) == {}
        assert len(server.requests) == len(warnings(caplog)) == 4

    def test_logged_once_a_change(self, open_account, server, caplog):
        """A new cause is a change, and so is a price in between."""
        account = open_account(no_price_ttl=0)
        get = account.get_instrument_current_price
        for sides in [(0, 10), (0, 11), (-1, 11), (5, 11), (-1, 11)]:
            server.sides["ASML"] = sides
            get("ASML")
            get.invalidate("ASML")
        assert [line.rpartition(": ")[2] for line in warnings(caplog)] == ["bid 0.0", "bid -1.0", "bid -1.0"]

    def test_one_bad_quote_costs_one_price(self, account, server, caplog):
        """The others of its request are there, and a bad one is a failure: asked for again."""
        server.broken = {"AAPL"}
        symbols = ["ASML", "AAPL", "MSFT"]
        for _ in range(2):
            assert account.get_instrument_current_prices(symbols) == {"ASML": 984.75, "MSFT": 410.2}
        assert asked(server) == ["ASML,AAPL,MSFT", "AAPL"]
        assert [line.partition(": ")[0] for line in warnings(caplog)] == [
            "[Account 1] Failed to fetch bid price for AAPL"
        ] * 2

    def test_refused_symbols_are_remembered(self, account, server):
        """A bulk call does not find them one by one again."""
        server.unknown_is_400 = True
        symbols = ["ASML", "X", "Y", "Z"]
        for _ in range(2):
            assert account.get_instrument_current_prices(symbols) == {"ASML": 984.75}
        assert asked(server) == ["ASML,X,Y,Z", "ASML,Y,Z", "ASML,Z", "ASML"]

    @pytest.mark.parametrize(("option", "value"), [("no_price_ttl", -1), ("max_price_age", 0)])
    def test_bad_options(self, open_account, option, value):
        """They are named."""
        with pytest.raises(ValueError, match=f"^{option}: "):
            open_account(**{option: value})


class TestOneQuote:
    """bid, ask and mid are of one moment."""

    def test_they_do_not_cross(self, account, server):
        """A price that falls between two questions does not make the bid higher than the ask."""
        assert account.get_instrument_current_price("ASML", "bid") == 984.75
        server.prices["ASML"] = 900.0
        assert account.get_instrument_current_price("ASML", "ask") == 985.25
        assert account.get_instrument_current_prices(["ASML"], "mid") == {"ASML": 985.0}
        assert len(server.requests) == 1

    def test_they_end_together(self, account):
        """A price that was taken later does not live longer."""
        get = account.get_instrument_current_price
        get("ASML", "bid")
        before = time.monotonic()
        get("ASML", "ask")
        reading = account._prices.reading.entry("ASML", "bid")
        left = reading.ttl - reading.age + time.monotonic() - before  # of it, when the ask was asked for
        bid, ask = (get.entry("ASML", side) for side in ("bid", "ask"))
        assert ask.ttl <= left
        assert ask.ttl < bid.ttl < 60

    @pytest.mark.parametrize("forget", ["invalidate", "refresh", "clear", "cache_clear", "put"])
    def test_the_controls_ask_anew(self, account, server, forget):
        """What is forgotten of the getter is asked for, and the others of its quote follow."""
        get = account.get_instrument_current_price
        assert (get("ASML", "bid"), get("ASML", "ask")) == (984.75, 985.25)
        server.prices["ASML"] = 900.0
        if forget == "put":
            get.put(77.0, "ASML", "bid")
            assert get("ASML", "bid") == 77.0
            return
        control = getattr(type(account).get_instrument_current_price if forget == "clear" else get, forget)
        control(*(("ASML", "bid") if forget in ("invalidate", "refresh") else ()))
        assert (get("ASML", "bid"), get("ASML", "ask")) == (900.0, 900.5)
        assert len(server.requests) == 2

    def test_two_types_at_the_same_time(self, account, server, crowd, gate, until):
        """One request for both, though they are two flights."""
        server.before_answer = lambda path, symbols: gate.pass_()
        crowd.add(account.get_instrument_current_price, "ASML", "bid")
        crowd.add(account.get_instrument_current_price, "ASML", "ask")
        until(lambda: sum(flight.followers for flight in type(account._prices).reading.flights()) == 1)
        gate.set()
        assert sorted(crowd.join()) == [984.75, 985.25]
        assert len(server.requests) == 1

    def test_a_side_that_comes_back_takes_the_others_along(self, open_account, server):
        """The ask of the quote without a bid is not shown beside the bid of a later one."""
        account = open_account(no_price_ttl=0)
        get = account.get_instrument_current_price
        server.sides["ASML"] = (0, 10)
        assert (get("ASML", "ask"), get("ASML", "bid")) == (10, None)
        server.sides["ASML"] = (20, 21)
        assert (get("ASML", "bid"), get("ASML", "ask")) == (20, 21)

    def test_the_quote_itself(self, account, server, loop):
        """With the broker's own time; without a request where its prices are there."""
        server.stamp = "2026-01-02T15:04:05.123456789Z"
        account.get_instrument_current_price("ASML")
        quote = account.get_quote(" asml")
        time = datetime(2026, 1, 2, 15, 4, 5, 123456, UTC)
        assert quote == Quote("ASML", 984.75, 985.25, time, None) == loop.run(account.aget_quote, "ASML")
        assert quote.mid == 985.0
        assert account.get_quote("XYZ") is None
        server.sides["AAPL"] = (0, 191)
        assert (account.get_quote("AAPL").bid, account.get_quote("AAPL").mid) == (None, None)
        assert len(server.requests) == 3

    def test_the_quote_first(self, account, server):
        """Prices are taken from it."""
        account.get_quote("ASML")
        assert account.get_instrument_current_price("ASML", "mid") == 985.0
        assert len(server.requests) == 1

    @pytest.mark.parametrize("kind", ["bid", "last"])
    def test_an_old_price_is_none(self, open_account, server, caplog, kind):
        """By the broker's own time; said once."""
        account = open_account(max_price_age=60)
        server.stamp = "2026-01-02T15:04:05Z"
        for _ in range(2):
            assert account.get_instrument_current_price("ASML", kind) is None
        assert account.get_instrument_current_prices(["ASML"], kind) == {}
        assert account.get_quote("ASML") is None
        (line,) = warnings(caplog)
        assert line.endswith(": too old: of 2026-01-02 15:04:05+00:00")

    def test_a_price_ends_when_it_is_too_old(self, open_account, server):
        """Before its ttl, if its own time says so."""
        account = open_account(max_price_age=60)
        server.stamp = (datetime.now(UTC) - timedelta(seconds=40)).isoformat()
        assert account.get_instrument_current_price("ASML") == 984.75
        assert 10 < account.get_instrument_current_price.entry("ASML").ttl <= 20

    @pytest.mark.parametrize("way", ["bypass", "switched off"])
    def test_bypassed(self, account, server, monkeypatch, way):
        """Nothing is shared, and nothing believed."""
        server.weekend = True
        get = account.get_instrument_current_price
        if way == "bypass":
            with get.bypass():
                assert [get("ASML"), get("ASML", "ask"), get("ASML")] == [None, 985.25, None]
        else:
            monkeypatch.setenv("SINGLEFLIGHT_DISABLED", "1")
            assert [get("ASML"), get("ASML", "ask"), get("ASML")] == [None, 985.25, None]
        assert len(server.requests) == 3


class TestStandIns:
    """Prices when the market is shut: of another type, where the account says so."""

    def test_one_request_has_them_all(self, open_account, server, refresh, caplog):
        """A weekend's widgets have numbers, from one snapshot each; said once a change."""
        account = open_account(fallback=("last", "close"))
        server.weekend = True
        with caplog.at_level(logging.INFO, logger="singleflight.accounts"):
            assert requests_of(account, refresh, kinds=("bid", "ask", "last")) == [50, 0, 0]
        assert account.get_instrument_current_price("S1", "bid") == 100.0
        assert account.get_instrument_current_price("S1", "ask") == 100.5
        assert warnings(caplog) == []
        lines = [line for line in caplog.messages if "S1:" in line]
        assert lines == ["[Account 1] No bid price for S1: its last price stands in"]

    @pytest.mark.parametrize(
        ("symbol", "path"),
        [
            ("ASML", "/v2/stocks/snapshots"),
            ("BTC/USD", "/v1beta3/crypto/us/snapshots"),
            ("AAPL261218C00200000", "/v1beta1/options/snapshots"),
        ],
    )
    def test_each_kind_has_snapshots(self, open_account, server, symbol, path):
        """Stocks, crypto and options."""
        account = open_account(fallback=["last"])
        server.sides[symbol] = (0, 0)
        assert account.get_instrument_current_price(symbol) == server.prices[symbol]
        assert account.get_instrument_current_prices([symbol], "mid") == {symbol: server.prices[symbol]}
        assert [urlsplit(target).path for target in server.requests] == [path]

    def test_in_their_order(self, open_account, server):
        """The close where there is no trade; nothing where nothing is."""
        account = open_account(fallback=("last", "close"), no_price_ttl=0)
        snapshot = server._snapshot("ASML")
        snapshot["latestQuote"].update(bp=0, bs=0)
        snapshot["latestTrade"] = None
        snapshot["dailyBar"] = None
        snapshot["prevDailyBar"]["c"] = 77.0
        server.before_answer = lambda path, symbols: (200, json.dumps({"ASML": snapshot}).encode())
        assert account.get_instrument_current_price("ASML") == 77.0
        assert account.get_instrument_current_price("ASML", "last") == 77.0
        snapshot["prevDailyBar"] = None
        account.get_instrument_current_price.invalidate("ASML")
        assert account.get_instrument_current_price("ASML") is None

    def test_a_quote_that_makes_no_sense_leaves_the_trade(self, open_account, server):
        """And a snapshot without any sense is a failure."""
        account = open_account(fallback=("close",))
        server.broken = {"ASML"}
        assert account.get_instrument_current_price("ASML") == 984.75
        server.before_answer = lambda path, symbols: (200, b'{"AAPL":{"latestTrade":{"p":1}}}')
        for _ in range(2):
            assert account.get_instrument_current_price("AAPL") is None
        assert len(server.requests) == 3

    def test_the_price_itself_comes_first(self, open_account):
        """Nothing stands in for what is there."""
        account = open_account(fallback=("last",))
        assert account.get_instrument_current_price("ASML", "ask") == 985.25
        assert account.get_instrument_current_price("ASML", "mid") == 985.0

    @pytest.mark.parametrize(
        ("value", "error"), [("last", TypeError), (5, TypeError), (["best"], ValueError), ([[]], ValueError)]
    )
    def test_bad_ones(self, open_account, value, error):
        """They are named."""
        with pytest.raises(error, match=r"^fallback: "):
            open_account(fallback=value)


class TestGrace:
    """A price that cannot be renewed is shown with its age."""

    def test_the_last_price_is_served(self, open_account, server, monkeypatch, until):
        """Past its ttl, while the broker is away, with its age; and the new one when the broker is back."""
        monkeypatch.setenv("PRICE_CACHE_TIME", "0.05")
        account = open_account(price_grace=60)
        get = account.get_instrument_current_price
        assert get("ASML") == 984.75
        server.outage = True
        until(lambda: get.entry("ASML").state == "stale")
        assert get("ASML") == 984.75
        until(lambda: len(server.requests) > 1)
        assert get("ASML") == 984.75
        assert account.get_instrument_current_prices(["ASML"]) == {"ASML": 984.75}
        assert get.entry("ASML").age > 0.05
        server.outage = False
        server.prices["ASML"] = 900.0
        until(lambda: get("ASML") == 900.0)

    def test_a_renewed_price_takes_the_others_along(self, open_account, server, monkeypatch, until):
        """The stale ask of an older quote is not served beside the bid of a new one."""
        monkeypatch.setenv("PRICE_CACHE_TIME", "0.05")
        account = open_account(price_grace=60)
        get = account.get_instrument_current_price
        get("ASML", "ask")
        get("ASML", "bid")
        monkeypatch.setenv("PRICE_CACHE_TIME", "60")
        until(lambda: get.entry("ASML", "bid").state == get.entry("ASML", "ask").state == "stale")
        server.prices["ASML"] = 1000.0
        until(lambda: get("ASML", "bid") == 1000.0)
        assert get("ASML", "ask") == 1000.5
        assert len(server.requests) == 2

    def test_none_is_the_default(self, account, monkeypatch, until):
        """Past its ttl a price is gone."""
        monkeypatch.setenv("PRICE_CACHE_TIME", "0.05")
        account.get_instrument_current_price("ASML")
        until(lambda: account.get_instrument_current_price.entry("ASML") is None)

    @pytest.mark.parametrize(
        ("variable", "option", "grace"), [(None, None, 0), ("7", None, 7), ("7", 3, 3), (None, 3, 3)]
    )
    def test_which_one(self, open_account, monkeypatch, variable, option, grace):
        """The account's, else the environment's, read when a price lands."""
        account = open_account(price_grace=option)
        if variable is not None:
            monkeypatch.setenv("PRICE_CACHE_GRACE", variable)
        account.get_instrument_current_price("ASML")
        assert account.get_instrument_current_price.explain("ASML").stale_for == grace

    def test_a_bad_one(self, open_account):
        """It is named."""
        with pytest.raises(ValueError, match=r"^price_grace: "):
            open_account(price_grace=-1)
