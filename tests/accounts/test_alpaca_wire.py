"""How requests travel: logins, origins, feeds; connections that end; answers that are not the service's."""

import copy
import logging
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest

from singleflight.accounts import AlpacaAccount
from singleflight.accounts.alpaca_adapter import UnexpectedAnswer


@pytest.fixture
def headers(server, monkeypatch):
    """The headers of each request, by lower-case name."""
    seen, answer = [], server.answer

    def spy(target, sent=None, headers=None):
        seen.append({name.lower(): value for name, value in headers.items()})
        return answer(target, sent, headers)

    monkeypatch.setattr(server, "answer", spy)
    return seen


@pytest.fixture
def ends(server, market_server):
    """Ends so many of the next connections without an answer."""
    left = []

    def end(count):
        left.extend([None] * count)

    server.before_answer = lambda path, symbols: (left and (left.pop() or market_server.DROP)) or None
    return end


def order(symbol="ASML"):
    from alpaca.trading.enums import OrderSide, TimeInForce
    from alpaca.trading.requests import MarketOrderRequest

    return MarketOrderRequest(symbol=symbol, qty=1, side=OrderSide.BUY, time_in_force=TimeInForce.DAY)


class TestConnections:
    """Servers end idle ones."""

    def test_a_get_is_sent_once_more(self, account, server, ends, caplog):
        """On a connection that had been used; prices and the account alike."""
        account.get_instrument_current_price("ASML")
        account.get_account()
        ends(1)
        assert account.get_instrument_current_price("AAPL") == 190.5
        ends(1)
        assert account.get_positions() == ()
        assert len(server.requests) == 6
        assert caplog.records == []

    def test_but_once(self, account, server, ends):
        """A second end is a failure, and so is the first on a new connection."""
        ends(1)
        assert account.get_instrument_current_price("ASML") is None
        account.get_instrument_current_price("ASML")
        ends(2)
        assert account.get_instrument_current_price("AAPL") is None
        assert len(server.requests) == 4

    def test_an_order_is_not(self, account, server, ends):
        """The broker may have taken it."""
        account.submit_order(order())
        ends(1)
        with pytest.raises(Exception, match="aborted"):
            account.submit_order(order())
        assert server.requests.count("/v2/orders") == 2

    def test_through_a_proxy(self, open_account, server, ends, monkeypatch):
        """The same: a proxy's connections end, too."""
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("http_proxy", server.url)
        account = open_account(url="http://market.example")
        server.prices["AAPL"] = 190.5
        ends(1)
        assert account.get_instrument_current_price("ASML") is None
        account.get_instrument_current_price("ASML")
        ends(1)
        account.get_instrument_current_price("AAPL")
        assert len(server.requests) == 4
        assert server.requests[0].startswith("http://market.example/v2/stocks/")

    def test_a_hundred_threads(self, account, server, caplog, meeting):
        """Each has a connection, and none is thrown away with a warning."""
        symbols = [f"S{number}" for number in range(100)]
        server.prices.update(dict.fromkeys(symbols, 1.5))
        server.before_answer = meeting(100)
        with ThreadPoolExecutor(100) as pool:
            assert list(pool.map(account.get_instrument_current_price, symbols, timeout=50)) == [1.5] * 100
        assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


class TestAnswers:
    """What answers may not be the service."""

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            (
                (302, b"", {"Location": "https://portal.example/"}),
                "HTTP 302 a redirect to https://portal.example/",
            ),
            ((307, b""), "HTTP 307 a redirect to nowhere"),
            (
                (200, b"<p>Log in", {"Content-Type": "text/html; charset=utf-8"}),
                "HTTP 200 a page of HTML in place of JSON",
            ),
        ],
    )
    def test_it_is_said_with_its_status(self, account, server, caplog, answer, said):
        """None for a price, and an error for the account."""
        server.before_answer = lambda path, symbols: answer
        assert account.get_instrument_current_price("ASML") is None
        assert caplog.messages[-1] == (
            f"[Account 1] Failed to fetch bid price for ASML: UnexpectedAnswer: {said}"
        )
        with pytest.raises(UnexpectedAnswer) as caught:
            account.get_account()
        assert pickle.loads(pickle.dumps(caught.value)).status_code == answer[0]


class TestLogins:
    """What is sent, and what is not."""

    def test_netrc_is_left_alone(self, account, headers, monkeypatch, tmp_path):
        """Its `default` entry would go to the broker with every request."""
        (tmp_path / "netrc").write_text("default login me password mine\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        account.get_instrument_current_price("ASML")
        account.get_positions()
        account.submit_order(order())
        assert len(headers) == 3
        assert not any("authorization" in each for each in headers)
        assert all(each["apca-api-key-id"] == "key" for each in headers)

    def test_a_token(self, server, headers):
        """In place of keys, for prices and trading."""
        pytest.importorskip("alpaca")
        account = AlpacaAccount("token", oauth_token="abc", url=server.url)
        assert account.get_instrument_current_price("ASML") == 984.75
        assert account.get_instrument_current_price("BTC/USD") == 64000.5
        account.get_account()
        assert [each["authorization"] for each in headers] == ["Bearer abc"] * 3
        assert not any("apca-api-key-id" in each for each in headers)
        assert "abc" not in repr(account)

    def test_separate_origins(self, market_server, server, open_account):
        """One for market data, one for trading; `url` is for both."""
        with market_server.MarketServer() as other:
            account = open_account(data_url=other.url)
            account.get_instrument_current_price("ASML")
            account.get_account()
            assert [len(market.requests) for market in (server, other)] == [1, 1]
            account = open_account(2, trading_url=other.url + "/")
            account.get_account()
            assert [len(market.requests) for market in (server, other)] == [1, 2]

    def test_the_sandbox(self):
        """Its market data has an origin of its own."""
        pytest.importorskip("alpaca")
        account = AlpacaAccount("sand", "key", "secret", sandbox=True)
        for kind in ("stock", "crypto", "option"):
            assert account._prices.feed(kind).client._base_url.value == "https://data.sandbox.alpaca.markets"

    @pytest.mark.parametrize("fallback", [(), ("close",)])
    def test_feed_and_currency(self, open_account, server, fallback):
        """Are sent with each request that takes them; a feed without a subscription is no price."""
        terms = {"feed": "sip", "option_feed": "opra", "currency": "EUR"}
        account = open_account(fallback=fallback, no_price_ttl=0, **terms)
        assert account.get_instrument_current_price("ASML") is None
        assert account.get_instrument_current_price("AAPL261218C00200000") is None
        server.feeds |= {"sip", "opra"}
        server.reset()
        assert account.get_instrument_current_price("ASML") == 984.75
        assert account.get_instrument_current_price("AAPL", "last") == 190.5
        assert account.get_instrument_current_price("AAPL261218C00200000") == 12.35
        assert account.get_instrument_current_price("BTC/USD") == 64000.5
        asked = [parse_qs(urlsplit(target).query) for target in server.requests]
        assert [each.get("feed") for each in asked] == [["sip"], ["sip"], ["opra"], None]
        assert [each.get("currency") for each in asked] == [["EUR"], ["EUR"], None, None]
        assert account.get_quote("ASML").feed == "sip"

    @pytest.mark.parametrize(
        ("options", "error", "named"),
        [
            ({"oauth_token": "abc"}, ValueError, "oauth_token"),
            ({"api_key": None, "secret_key": None, "oauth_token": ""}, ValueError, "oauth_token"),
            ({"api_key": None, "secret_key": None, "oauth_token": 5}, TypeError, "oauth_token"),
            ({"data_url": "nowhere"}, ValueError, "data_url"),
            ({"trading_url": 5}, TypeError, "trading_url"),
            ({"sandbox": 1}, TypeError, "sandbox"),
            ({"feed": "cheap"}, ValueError, "feed"),
            ({"option_feed": "sip"}, ValueError, "option_feed"),
            ({"currency": "euro"}, ValueError, "currency"),
            ({"currency": 5}, ValueError, "currency"),
        ],
    )
    def test_bad_ones(self, options, error, named):
        """They are named."""
        with pytest.raises(error, match=f"^{named}: "):
            AlpacaAccount(**{"id": 1, "api_key": "key", "secret_key": "secret", **options})


def test_an_account_can_be_copied_at_any_time(account, loop):
    """Also after its first prices and balance, in threads and tasks; the copy makes clients of its own."""
    account.get_instrument_current_price("ASML")
    account.get_instrument_current_prices(["MSFT", "BTC/USD"])
    account.get_account()
    loop.run(account.aget_instrument_current_price, "TSLA")
    loop.run(account.aget_positions)
    account.put_quote("NVDA", 1, 2)
    for other in (pickle.loads(pickle.dumps(account)), copy.deepcopy(account), copy.copy(account)):
        assert other.get_instrument_current_price("AAPL", "last") == 190.5
    assert pickle.loads(pickle.dumps(account))._prices.feed("stock") is not account._prices.feed("stock")


def test_warnings_as_errors(server):
    """The import of alpaca-py warns; the first price comes all the same."""
    pytest.importorskip("alpaca")
    program = "import sys; from singleflight.accounts import AlpacaAccount; "
    program += "account = AlpacaAccount(1, 'key', 'secret', url=sys.argv[1]); "
    program += "print(account.get_instrument_current_price('ASML'), account.get_account().cash)"
    command = [sys.executable, "-W", "error::DeprecationWarning", "-c", program, server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.stdout == "984.75 100000.00\n", done.stderr
