"""Prices of what one holds, and kinds of instruments that do not wait for one another."""

import json
import logging
from urllib.parse import parse_qs, urlsplit

import pytest

from singleflight.accounts import AlpacaAccount
from singleflight.accounts.readings import kind_of

CONTRACT = "AAPL261218C00200000"


def asked(server):
    return {
        (urlsplit(target).path, *parse_qs(urlsplit(target).query).get("symbols", []))
        for target in server.requests
    }


class TestPositions:
    """As the broker spells them."""

    @pytest.mark.parametrize("way", ["thread", "task"])
    def test_each_kind(self, account, server, loop, way):
        """Stocks, crypto and options, each at its own service; by the positions' symbols."""
        server.held.update({"AAPL": 3.0, "BTC/USD": 0.5, CONTRACT: 1.0})
        if way == "thread":
            found = account.get_position_prices()
        else:
            found = loop.run(account.aget_position_prices, "bid")
        assert list(found.items()) == [("AAPL", 190.5), ("BTCUSD", 64000.5), (CONTRACT, 12.35)]
        assert asked(server) == {
            ("/v2/positions",),
            ("/v2/stocks/quotes/latest", "AAPL"),
            ("/v1beta3/crypto/us/latest/quotes", "BTC/USD"),
            ("/v1beta1/options/quotes/latest", CONTRACT),
        }

    def test_one_without_a_price_is_missing(self, account, server):
        """The others are there."""
        server.held.update({"AAPL": 3.0, "MSFT": 1.0})
        server.sides["AAPL"] = (0, 191)
        assert account.get_position_prices() == {"MSFT": 410.2}
        assert account.get_position_prices("ask") == {"AAPL": 191, "MSFT": 410.7}

    @pytest.mark.parametrize("way", ["thread", "task"])
    def test_a_bad_type(self, account, server, loop, way):
        """Raises before the positions are asked for."""
        with pytest.raises(ValueError, match=r"^price_type: "):
            if way == "thread":
                account.get_position_prices("high")
            else:
                loop.run(account.aget_position_prices, "high")
        assert server.requests == []

    def test_nothing_held(self, account, server):
        """Nothing is asked for."""
        assert account.get_position_prices() == {}
        assert asked(server) == {("/v2/positions",)}

    def test_the_getter_takes_their_spelling(self, account, server):
        """One request for both spellings of a pair; the key is as it was spelt."""
        assert account.get_instrument_current_price("BTCUSD") == 64000.5
        assert account.get_instrument_current_price("BTC/USD", "ask") == 64001.0
        assert account.get_instrument_current_price(CONTRACT, "last") == 12.35
        assert account.get_instrument_current_price.entry("btcusd").key == (1, "BTCUSD", "bid")
        assert len(server.requests) == 2

    @pytest.mark.parametrize(
        ("symbol", "kind"),
        [
            ("ETHUSDT", ("crypto", "ETH/USDT")),
            ("USDTUSD", ("crypto", "USDT/USD")),
            ("LTCBTC", ("crypto", "LTC/BTC")),
            ("GBUSD", ("stock", "GBUSD")),
            ("USD", ("stock", "USD")),
            ("BRK.B", ("stock", "BRK.B")),
            ("BRK/B", ("stock", "BRK.B")),
            ("F261218P00010500", ("option", "F261218P00010500")),
        ],
    )
    def test_kinds(self, symbol, kind):
        """By the spelling; a stock has at most five letters."""
        assert kind_of(symbol) == kind

    def test_an_unknown_exchange_costs_no_position(self, account, server, caplog):
        """alpaca-py refuses it, and with it all others; anything else that is wrong raises as before."""
        server.held.update({"AAPL": 3.0, "MSFT": 1.0})
        sent = server._traded("/v2/positions", None)[1]
        sent[0]["exchange"] = "MARS"
        server.before_answer = lambda path, symbols: (200, json.dumps(sent).encode())
        with caplog.at_level(logging.INFO, logger="singleflight.accounts"):
            assert [position.symbol for position in account.get_positions()] == ["AAPL", "MSFT"]
        assert "'MARS'" in caplog.text
        sent[1]["side"] = "both"
        with pytest.raises(ValueError, match="side"):
            account.get_positions()


class TestKindsApart:
    """Crypto does not wait for stocks."""

    @pytest.mark.parametrize("way", ["thread", "task"])
    def test_a_caller_who_joins(self, account, server, crowd, loop, gate, until, way):
        """Whoever waits for crypto alone has it while the stocks of the same call are still on their way."""
        symbols = ["AAPL", "BTC/USD", CONTRACT]
        server.before_answer = lambda path, asked: gate.pass_() if "stocks" in path else None
        if way == "thread":
            crowd.add(account.get_instrument_current_prices, symbols)
        else:
            task = loop.start(account.aget_instrument_current_prices, symbols)
        until(lambda: account.get_instrument_current_price.entry("BTC/USD"))
        assert account.get_instrument_current_price("BTC/USD") == 64000.5
        gate.set()
        (found,) = crowd.join() if way == "thread" else [task.outcome()]
        assert list(found.items()) == [("AAPL", 190.5), ("BTC/USD", 64000.5), (CONTRACT, 12.35)]
        assert len(server.requests) == 3

    def test_a_failure_of_one(self, account, server):
        """The others are there."""
        server.before_answer = lambda path, asked: (503, b"{}") if "crypto" in path else None
        assert account.get_instrument_current_prices(["BTC/USD", "AAPL"]) == {"AAPL": 190.5}

    def test_what_is_wrong_on_this_side(self, server, loop):
        """Raises before anything is asked."""
        pytest.importorskip("alpaca")
        bare = AlpacaAccount("bare", url=server.url)
        with pytest.raises(ValueError, match="APCA_API_KEY_ID"):
            bare.get_instrument_current_prices(["BTC/USD", "AAPL"])
        with pytest.raises(ValueError, match="APCA_API_KEY_ID"):
            loop.run(bare.aget_instrument_current_prices, ["BTC/USD", "AAPL"])
        assert server.requests == []
