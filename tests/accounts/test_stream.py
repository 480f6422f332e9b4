"""Prices that come another way: put by hand, or from a stream; what the getters find of them."""

import asyncio
import contextlib
import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest

from singleflight.accounts import AlpacaAccount, alpaca_stream
from singleflight.accounts.alpaca_stream import StreamRefused

NOW = datetime(2026, 1, 2, 15, tzinfo=UTC)
CONTRACT = "AAPL261218C00200000"


class TestPut:
    """With the checks that a request's answer gets."""

    def test_all_its_prices(self, account, server):
        """bid, ask and mid, and the quote; without a request."""
        get = account.get_instrument_current_price
        assert account.put_quote(" asml", 77, 78, time=NOW, feed="iex")
        assert [get("ASML", kind) for kind in ("bid", "ask", "mid")] == [77, 78, 77.5]
        assert (account.get_quote("ASML").time, account.get_quote("ASML").feed) == (NOW, "iex")
        assert account.put_trade("ASML", 79)
        assert get("ASML", "last") == 79
        assert get("ASML", "bid") == 77
        assert server.requests == []
        assert get.entry("ASML").ttl == pytest.approx(60, abs=0.5)

    @pytest.mark.parametrize("bad", [0, 0.0, -1.0, float("nan"), float("inf"), "99", None, True, [1]])
    def test_what_is_no_price(self, account, server, bad):
        """Is never served; the price of before goes, and the other side stands alone."""
        get = account.get_instrument_current_price
        get("ASML", "bid")
        get("ASML", "last")
        account.get_instrument_current_price("ASML", "mid")
        assert account.put_quote("ASML", bad, 78)
        assert not account.put_trade("ASML", bad)
        server.reset()
        assert [get("ASML", kind) for kind in ("bid", "mid", "ask")] == [None, None, 78]
        assert server.requests == []
        assert get("ASML", "last") is None
        assert not account.put_quote("AAPL", bad, bad)

    def test_an_older_one_is_left_out(self, account):
        """By the broker's own time; without one it is taken."""
        account.put_quote("ASML", 77, 78, time=NOW)
        assert not account.put_quote("ASML", 70, 71, time=NOW - timedelta(seconds=1))
        assert account.get_instrument_current_price("ASML") == 77
        assert account.put_quote("ASML", 80, 81, time=datetime(2026, 1, 2, 15, 1))
        assert account.put_quote("ASML", 70, 71)
        assert account.get_instrument_current_price("ASML") == 70

    def test_one_that_is_too_old_is_none(self, open_account):
        """As from a request."""
        account = open_account(max_price_age=60)
        assert not account.put_quote("ASML", 77, 78, time=NOW)
        assert account.put_quote("ASML", 77, 78, time=datetime.now(UTC))

    def test_a_request_on_its_way(self, account, server, crowd, gate, until):
        """Its own caller has its price; all others have what was put."""
        server.before_answer = lambda path, symbols: gate.pass_()
        crowd.add(account.get_instrument_current_price, "ASML")
        until(lambda: server.requests)
        account.put_quote("ASML", 77, 78)
        gate.set()
        assert crowd.join() == [984.75]
        assert account.get_instrument_current_price("ASML") == 77
        assert account.get_instrument_current_price("ASML", "ask") == 78

    def test_both_spellings(self, account):
        """A pair that was asked for without its slash is put, too."""
        account.get_instrument_current_price("BTCUSD")
        account.put_quote("BTC/USD", 7, 8)
        assert account.get_instrument_current_price("BTCUSD") == 7
        assert account.get_instrument_current_price("BTC/USD") == 7

    def test_a_snapshot_keeps_its_other_numbers(self, open_account, server):
        """Where prices stand in for others."""
        account = open_account(fallback=("last",))
        assert account.get_instrument_current_price("ASML", "bid") == 984.75
        account.put_quote("ASML", 0, 990)
        assert account.get_instrument_current_price("ASML", "bid") == 984.75
        account.put_trade("ASML", 900)
        assert account.get_instrument_current_price("ASML", "bid") == 900
        assert account.get_instrument_current_price("ASML", "ask") == 990
        assert len(server.requests) == 1

    def test_many_threads(self, account):
        """The sides that are read are of one quote."""
        done = threading.Event()

        def put(start):
            for number in range(start, 400, 4):
                account.put_quote("ASML", 1000 + number, 1000.5 + number)

        threads = [threading.Thread(target=put, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        done.set()
        get = account.get_instrument_current_price
        assert get("ASML", "ask") - get("ASML", "bid") == 0.5
        assert account.get_quote("ASML").bid == get("ASML", "bid")

    @pytest.mark.parametrize(("symbol", "error"), [("", ValueError), (None, TypeError)])
    def test_bad_symbols(self, account, symbol, error):
        """They are named."""
        with pytest.raises(error, match="symbol"):
            account.put_quote(symbol, 1, 2)
        with pytest.raises(error, match="symbol"):
            account.put_trade(symbol, 1)

    @pytest.mark.parametrize("time", ["2026-01-02", 0, 1767366245.0])
    def test_bad_times(self, account, time):
        """They are named."""
        with pytest.raises(TypeError, match=r"^time: "):
            account.put_quote("ASML", 1, 2, time=time)
        with pytest.raises(TypeError, match=r"^time: "):
            account.put_trade("ASML", 1, time=time)
        assert account.get_instrument_current_price.entry("ASML") is None


class TestStream:
    """From alpaca-py's own client, of a websocket on loopback."""

    @pytest.fixture
    def stream(self, server, market_stream):
        """The market's stream."""
        with market_stream.MarketStream(server) as stream:
            yield stream

    @pytest.fixture
    def streaming(self, open_account, stream, until):
        """An account on it, and its stream, which has subscribed."""
        account = open_account(stream_url=stream.url)
        with account.stream_prices(["ASML", "aapl"]) as prices:
            until(lambda: stream.connections)
            yield account, prices

    def test_it_fills_what_the_getters_find(self, streaming, server, stream, until):
        """Quotes and trades, without a request."""
        account, prices = streaming
        get = account.get_instrument_current_price
        stream.quote("ASML")
        stream.trade("AAPL", p=191.0)
        until(lambda: get.entry("ASML", "mid") and get.entry("AAPL", "last"))
        assert [get("ASML", kind) for kind in ("bid", "ask", "mid")] == [984.75, 985.25, 985.0]
        assert get("AAPL", "last") == 191.0
        assert account.get_quote("ASML").feed == "iex"
        assert abs((datetime.now(UTC) - account.get_quote("ASML").time).total_seconds()) < 30
        assert server.requests == []
        assert prices.is_running
        prices.stop()
        assert not prices.is_running
        assert prices.error is None
        prices.stop()

    def test_zero_bids_and_nonsense(self, streaming, stream, until, caplog):
        """Are no prices, and the rest of their frame is there."""
        account, _ = streaming
        get = account.get_instrument_current_price
        stream.send(
            {"T": "q", "S": "ASML", "bp": 0, "ap": 5},
            {"T": "q", "S": "ASML", "t": "now"},
            {"T": "q", "S": "AAPL", "bp": 6, "ap": 7},
        )
        until(lambda: get.entry("AAPL"))
        assert (get.entry("ASML", "bid"), get.entry("ASML", "ask").value) == (None, 5)
        assert "was not understood" in caplog.text

    def test_it_connects_again(self, streaming, server, stream, until):
        """After a dropped connection; meanwhile prices are asked for once their ttl has ended."""
        account, prices = streaming
        get = account.get_instrument_current_price
        stream.quote("ASML")
        until(lambda: get.entry("ASML"))
        stream.drop()
        get.invalidate("ASML")
        assert get("ASML") == 984.75
        assert len(server.requests) == 1
        until(lambda: stream.connections)
        assert stream.logins == 2
        stream.quote("ASML", bp=77.0)
        until(lambda: get("ASML") == 77.0)
        assert prices.is_running

    @pytest.mark.parametrize("says", [None, (402, "auth failed"), (409, "insufficient subscription")])
    def test_a_refused_login_ends_it(self, open_account, server, stream, caplog, says):
        """With an error; alpaca-py would try for ever."""
        stream.says = says
        server.secrets = {}
        account = open_account(stream_url=stream.url)
        prices = account.stream_prices(["ASML", "BTC/USD", CONTRACT])
        assert prices.wait(20)
        assert isinstance(prices.error, StreamRefused)
        assert caplog.messages[-1] == f"[Account 1] Price stream ended: {prices.error}"
        prices.stop()

    def test_a_cancellation_that_is_lost(self, open_account, monkeypatch):
        """It is repeated, and stopping ends: `asyncio.wait_for` of Python 3.11 drops some, for alpaca-py."""
        lost = threading.Event()

        class Client:
            def subscribe_quotes(self, *_):
                pass

            subscribe_trades = subscribe_quotes

            async def _run_forever(self):
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                lost.set()
                await asyncio.Event().wait()

            async def close(self):
                pass

        monkeypatch.setattr(alpaca_stream, "client_for", lambda *_: Client())
        prices = open_account(stream_url="ws://127.0.0.1:1").stream_prices(["ASML"])
        stopping = threading.Thread(target=prices.stop, daemon=True)
        stopping.start()
        assert lost.wait(20)
        stopping.join(20)
        assert not stopping.is_alive()
        assert not prices.is_running
        assert prices.error is None

    def test_another_connection_is_waited_for(self, open_account, stream, until):
        """Too many connections are not for ever."""
        stream.says = (406, "connection limit exceeded")
        with open_account(stream_url=stream.url).stream_prices(["ASML"]) as prices:
            until(lambda: stream.logins)
            stream.says = None
            until(lambda: stream.connections)
            assert prices.error is None

    def test_each_kind_has_its_stream(self, open_account, server, stream, until):
        """Stocks, crypto and options."""
        account = open_account(stream_url=stream.url)
        symbols = ["ASML", "BTCUSD", CONTRACT]
        with account.stream_prices(symbols):
            until(lambda: len(stream.connections) == 3)
            for symbol in ("ASML", "BTC/USD", CONTRACT):
                stream.quote(symbol)
            get = account.get_instrument_current_price
            until(lambda: all(get.entry(symbol) for symbol in ("ASML", "BTC/USD", CONTRACT)))
        assert account.get_instrument_current_prices(["BTC/USD", CONTRACT]) == {
            "BTC/USD": 64000.5,
            CONTRACT: 12.35,
        }
        assert server.requests == []

    def test_before_it_has_connected(self, open_account, stream):
        """It can be stopped at any time."""
        open_account(stream_url=stream.url).stream_prices(["ASML"]).stop()

    @pytest.mark.parametrize(
        ("options", "symbols", "error", "named"),
        [
            ({}, "ASML", TypeError, "symbols"),
            ({}, 5, TypeError, "symbols"),
            ({}, [], ValueError, "symbols"),
            ({}, [" "], ValueError, "symbol"),
            ({"stream_url": None}, ["ASML"], ValueError, "stream_url"),
            ({"feed": "otc"}, ["ASML"], ValueError, "feed"),
            ({"api_key": None, "secret_key": None}, ["ASML"], ValueError, "api_key"),
        ],
    )
    def test_bad_ones(self, server, options, symbols, error, named):
        """Raise, naming what is wrong."""
        pytest.importorskip("alpaca")
        usual = {
            "api_key": "key",
            "secret_key": "secret",
            "url": server.url,
            "stream_url": "ws://127.0.0.1:1",
        }
        account = AlpacaAccount(1, **{**usual, **options})
        with pytest.raises(error, match=f"^{named}"):
            account.stream_prices(symbols)

    @pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), ("soon", TypeError)])
    def test_bad_data_timeouts(self, open_account, value, error):
        """They are named."""
        with pytest.raises(error, match=r"^data_timeout: "):
            open_account(stream_url="ws://127.0.0.1:1").stream_prices(["ASML"], data_timeout=value)

    @pytest.mark.parametrize("name", ["_auth", "_dispatch", "_run_forever"])
    def test_an_alpaca_py_without_them_is_refused(self, open_account, monkeypatch, name):
        """Loudly: a refused login would be tried for ever."""
        from alpaca.data.live import StockDataStream, websocket

        monkeypatch.delattr(websocket.DataStream, name)
        assert not hasattr(StockDataStream, name)
        with pytest.raises(RuntimeError, match=f"has no {name}"):
            open_account(stream_url="ws://127.0.0.1:1").stream_prices(["ASML"])

    def test_the_origin_is_a_websockets(self, open_account):
        """Else it is refused."""
        with pytest.raises(ValueError, match=r"^stream_url: .*ws://"):
            open_account(stream_url="http://127.0.0.1:1")


@pytest.fixture(autouse=True)
def quiet():
    """alpaca-py writes each failed connection with its traceback."""
    logger = logging.getLogger("alpaca")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
