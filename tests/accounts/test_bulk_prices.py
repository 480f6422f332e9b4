"""How many prices are asked for at once: one request for stocks, one for crypto, nothing made up."""

import logging
from urllib.parse import parse_qs, urlsplit

import pytest

from singleflight.accounts import AccountInterface, AlpacaAccount

QUOTE = '{"t":"2026-01-02T15:04:05Z","bp":%s,"bs":1,"ap":11,"as":1}'
LOADED = ("ASML", "BTC/USD", "AAPL", "XYZ")


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def asked(server):
    """What was asked for, by path."""
    targets = [urlsplit(target) for target in server.requests]
    return [(target.path, parse_qs(target.query)["symbols"][0]) for target in targets]


class TestTheBrokersWay:
    """At Alpaca: its multi-symbol requests."""

    @pytest.mark.parametrize(
        ("kind", "stocks", "prices"),
        [
            ("bid", "quotes", [984.75, 64000.5, 190.5]),
            ("ask", "quotes", [985.25, 64001.0, 191.0]),
            ("mid", "quotes", [985.0, 64000.75, 190.75]),
            ("last", "trades", [984.75, 64000.5, 190.5]),
        ],
    )
    def test_one_request_each(self, account, server, kind, stocks, prices):
        """In the order asked, without the unknown one; quotes or trades as for one price."""
        found = account._get_instrument_current_prices_impl(LOADED, kind)
        assert list(found.items()) == list(zip(("ASML", "BTC/USD", "AAPL"), prices, strict=True))
        assert asked(server) == [
            (f"/v2/stocks/{stocks}/latest", "ASML,AAPL,XYZ"),
            (f"/v1beta3/crypto/us/latest/{stocks}", "BTC/USD"),
        ]

    def test_what_is_unknown_is_told(self, account, caplog):
        """In the words of the single getter."""
        account._get_instrument_current_prices_impl(LOADED, "bid")
        assert warnings(caplog) == ["[Account 1] Failed to fetch bid price for XYZ: unknown symbol"]

    def test_a_request_that_fails(self, account, server, caplog):
        """Its symbols are missing, with one line for all; those of the other request are there."""
        server.before_answer = lambda path, symbols: (503, b"{}") if "stocks" in path else None
        assert account._get_instrument_current_prices_impl(LOADED, "bid") == {"BTC/USD": 64000.5}
        (line,) = warnings(caplog)
        assert line.startswith(
            "[Account 1] Failed to fetch bid price for 3 symbols (ASML, AAPL, XYZ): APIError: HTTP 503"
        )
        assert len(server.requests) == 2

    @pytest.mark.parametrize(
        ("status", "body"), [(400, b"{}"), (429, b"{}"), (200, b""), (200, b"{}"), (200, b"no"), (0, b"")]
    )
    def test_whatever_goes_wrong(self, account, server, caplog, status, body):
        """Nothing is made of it."""
        server.before_answer = lambda path, symbols: (status, body)
        assert account._get_instrument_current_prices_impl(["ASML", "AAPL"], "bid") == {}
        assert len(warnings(caplog)) == len(server.requests) == 1

    def test_a_price_that_is_none_leaves_the_others(self, account, server, caplog):
        """Each symbol stands alone where the answer came."""
        quotes = ",".join(
            f'"{symbol}":{QUOTE % price}'
            for symbol, price in (("ASML", "0"), ("AAPL", "NaN"), ("MSFT", "410.2"))
        )
        server.before_answer = lambda path, symbols: (200, f'{{"quotes":{{{quotes}}}}}'.encode())
        found = account._get_instrument_current_prices_impl(["ASML", "AAPL", "MSFT", "TSLA"], "bid")
        assert found == {"MSFT": 410.2}
        assert len(warnings(caplog)) == 3

    def test_one_that_is_refused_by_name(self, account, server, caplog):
        """The others are asked for again without it."""

        def refuse(path, symbols):
            bad = [symbol for symbol in symbols if symbol in ("AS.ML", "X")]
            return (400, f'{{"message":"invalid symbol: {bad[0]}"}}'.encode()) if bad else None

        server.before_answer = refuse
        found = account._get_instrument_current_prices_impl(["ASML", "AS.ML", "X", "AAPL"], "bid")
        assert found == {"ASML": 984.75, "AAPL": 190.5}
        assert [symbols for _, symbols in asked(server)] == ["ASML,AS.ML,X,AAPL", "ASML,X,AAPL", "ASML,AAPL"]
        assert [line.partition(": ")[0] for line in warnings(caplog)] == [
            "[Account 1] Failed to fetch bid price for AS.ML",
            "[Account 1] Failed to fetch bid price for X",
        ]

    def test_what_is_wrong_on_this_side_raises(self, server):
        """Before anything is asked."""
        pytest.importorskip("alpaca")
        bare = AlpacaAccount("bare", url=server.url)
        with pytest.raises(ValueError, match="APCA_API_KEY_ID"):
            bare._get_instrument_current_prices_impl(["BTC/USD", "ASML"], "bid")
        assert server.requests == []
        assert bare._get_instrument_current_prices_impl(["BTC/USD"], "bid") == {"BTC/USD": 64000.5}

    def test_a_long_list_makes_a_short_line(self, account, server, caplog):
        """Fifty symbols are named by their number and the first few."""
        server.outage = True
        account._get_instrument_current_prices_impl([f"S{number}" for number in range(50)], "bid")
        (line,) = warnings(caplog)
        assert "price for 50 symbols (S0, S1, " in line
        assert len(line) < 300


def test_any_other_account_asks_one_by_one():
    """Until it says how its broker does it."""

    class Scripted(AccountInterface):
        def _get_instrument_current_price_impl(self, symbol, price_type):
            return {"ASML": 984.75, "AAPL": 190.5}.get(symbol)

    found = Scripted(1)._get_instrument_current_prices_impl(["AAPL", "XYZ", "ASML"], "bid")
    assert list(found.items()) == [("AAPL", 190.5), ("ASML", 984.75)]
