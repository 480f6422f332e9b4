"""AlpacaAccount on alpaca-py's real clients and a loopback server with Alpaca's wire format."""

import logging
import socket
from urllib.parse import parse_qs, urlsplit

import pytest

from singleflight import FlightDeadlock
from singleflight.accounts import AccountInterface
from singleflight.accounts.gate import Gate

getter = AccountInterface.get_instrument_current_price
QUOTE = b'{"quotes":{"ASML":{"t":"2026-01-02T15:04:05Z","bp":%b,"bs":1,"ap":%b,"as":1}}}'
TRADE = b'{"trades":{"ASML":{"t":"2026-01-02T15:04:05Z","p":%b,"s":1}}}'


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


class TestPrices:
    """One request for each price, from the right place."""

    def test_ten_threads_make_one_request(self, account, server, crowd, gate, followers):
        """Ten threads that ask for one price share one answer."""
        server.before_answer = lambda path, symbols: gate.pass_()
        crowd.add(account.get_instrument_current_price, "ASML", count=10)
        followers(9)
        gate.set()
        assert crowd.join() == [984.75] * 10
        assert len(server.requests) == 1

    def test_each_price_type_is_its_own(self, account, server):
        """bid, ask, mid and last never serve one another: one quote has three of them, the trade the last."""
        kinds = ("bid", "ask", "mid", "last")
        for _ in range(2):
            prices = [account.get_instrument_current_price("ASML", kind) for kind in kinds]
            assert prices == [984.75, 985.25, 985.0, 984.75]
        paths = [urlsplit(request).path for request in server.requests]
        assert paths == ["/v2/stocks/quotes/latest", "/v2/stocks/trades/latest"]

    def test_crypto(self, account, server):
        """A symbol with a slash is asked for at the crypto endpoint, by its whole name."""
        assert account.get_instrument_current_price("btc/usd", "last") == 64000.5
        assert account.get_instrument_current_price("BTC/USD") == 64000.5
        asked = [urlsplit(request) for request in server.requests]
        assert [request.path for request in asked] == [
            "/v1beta3/crypto/us/latest/trades",
            "/v1beta3/crypto/us/latest/quotes",
        ]
        assert {parse_qs(request.query)["symbols"][0] for request in asked} == {"BTC/USD"}

    def test_accounts_do_not_hold_each_other_up(self, open_account, server, crowd, meeting):
        """Two accounts, one symbol: two requests at the same time."""
        server.before_answer = meeting(2)
        for name in (1, 2):
            crowd.add(open_account(name).get_instrument_current_price, "ASML")
        assert crowd.join() == [984.75] * 2

    def test_two_symbols_are_two_requests_at_a_time(self, account, server, crowd, meeting):
        """One account, two symbols: two requests at the same time."""
        server.before_answer = meeting(2)
        for symbol in ("ASML", "AAPL"):
            crowd.add(account.get_instrument_current_price, symbol)
        assert crowd.join() == [984.75, 190.5]

    def test_an_unknown_price_type_never_becomes_a_price(self, account):
        """Not even where the check before it was gone round."""
        with pytest.raises(ValueError, match="price_type"):
            getter.__wrapped__(account, "ASML", "high")


class TestFailures:
    """What the broker does wrong is None, told once, and not kept."""

    @pytest.mark.parametrize(
        ("status", "body", "cause"),
        [
            (400, b'{"message":"invalid symbol: ASML"}', "APIError: HTTP 400 {"),
            (403, b'{"message":"forbidden"}', "APIError: HTTP 403"),
            (404, b"{}", "APIError: HTTP 404"),
            (429, b'{"message":"slow down"}', "APIError: HTTP 429"),
            (500, b'{"message":"no"}', "APIError: HTTP 500"),
            (503, b"", "APIError: HTTP 503"),
            (504, b"<html>\n<p>late</p>\n</html>", "APIError: HTTP 504 <html> <p>late</p> </html>"),
            (200, b"not json", "JSONDecodeError: "),
            (200, b"", "TypeError: "),
            (200, b"{}", "ValueError: "),
            (200, b"[]", "ValueError: "),
            (200, b'{"quotes":null}', "AttributeError: "),
            (200, b'{"quotes":{"ASML":{"x":1}}}', "ValidationError: "),
            (200, b'{"quotes":{}}', "unknown symbol"),
            (200, b'{"quotes":{"ASML":null}}', "unknown symbol"),
            (0, b"", "ConnectionError: "),
        ],
    )
    def test_each_kind(self, open_account, server, caplog, status, body, cause):
        """One WARNING with the cause, in one line; the next caller asks again, if none is to be believed."""
        account = open_account(no_price_ttl=0)
        server.before_answer = lambda path, symbols: (status, body)
        assert account.get_instrument_current_price("ASML") is None
        (line,) = warnings(caplog)
        assert line.startswith(f"[Account 1] Failed to fetch bid price for ASML: {cause}")
        assert "\n" not in line
        assert len(server.requests) == 1
        server.before_answer = None
        assert account.get_instrument_current_price("ASML") == 984.75

    @pytest.mark.parametrize("number", [b"0", b"-5", b"NaN", b"Infinity", b"1e999"])
    @pytest.mark.parametrize("kind", ["bid", "ask", "mid", "last"])
    def test_a_price_is_positive_and_finite(self, account, server, caplog, number, kind):
        """Anything else is no price, and the line says what came."""
        other = b"10"
        bodies = {"bid": QUOTE % (number, other), "ask": QUOTE % (other, number), "last": TRADE % number}
        server.before_answer = lambda path, symbols: (200, bodies.get(kind, bodies["bid"]))
        assert account.get_instrument_current_price("ASML", kind) is None
        assert "not a price: " in caplog.text

    def test_each_side_stands_alone(self, open_account, server):
        """A quote without a bid still has an ask; mid needs both."""
        account = open_account(no_price_ttl=0)
        server.before_answer = lambda path, symbols: (200, QUOTE % (b"0", b"10"))
        assert account.get_instrument_current_price("ASML", "ask") == 10
        server.before_answer = lambda path, symbols: (200, QUOTE % (b"10", b"0"))
        assert account.get_instrument_current_price("ASML", "bid") == 10
        assert account.get_instrument_current_price("ASML", "mid") is None

    def test_a_trade_without_a_price(self, account, server, caplog):
        """The trade's own gaps are failures too."""
        server.before_answer = lambda path, symbols: (
            200,
            b'{"trades":{"ASML":{"t":"2026-01-02T15:04:05Z"}}}',
        )
        assert account.get_instrument_current_price("ASML", "last") is None
        assert "Failed to fetch last price for ASML: ValidationError: " in caplog.text

    def test_nobody_listens(self, open_account, caplog):
        """A refused connection is a failure like others."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # and does not listen
            dead = open_account(url=f"http://127.0.0.1:{taken.getsockname()[1]}")
            assert dead.get_instrument_current_price("ASML") is None
        assert "ConnectionError: " in caplog.text

    def test_a_server_that_never_answers(self, open_account, server, gate, caplog):
        """The timeout ends the wait, though alpaca-py sets none."""
        server.before_answer = lambda path, symbols: gate.pass_()
        impatient = open_account(timeout=0.05)
        assert impatient.get_instrument_current_price("ASML") is None
        assert impatient.get_instrument_current_price("BTC/USD") is None
        assert caplog.text.count("ReadTimeout: ") == 2

    def test_a_long_answer_makes_a_short_line(self, account, server, caplog):
        """A page of HTML does not fill the log."""
        server.before_answer = lambda path, symbols: (500, b"x" * 100_000)
        assert account.get_instrument_current_price("ASML") is None
        assert len(warnings(caplog)[0]) < 500

    @pytest.mark.parametrize("symbol", ["AS\nML", "ASML\r\nERROR all is lost", "X" * 10_000, "A\x1b[2J"])
    def test_a_strange_symbol_stays_in_its_line(self, account, caplog, symbol):
        """It is unknown, and its log lines are one line each, without control characters."""
        with caplog.at_level(logging.DEBUG, logger="singleflight.accounts"):
            assert account.get_instrument_current_price(symbol) is None
        lines = [r.getMessage() for r in caplog.records if r.name == "singleflight.accounts"]
        assert any("Failed to fetch bid price for" in line for line in lines)
        assert all(line.isprintable() and len(line) < 500 for line in lines)

    def test_a_burst_on_a_failing_broker(self, account, server, crowd, gate, followers, caplog):
        """Ten callers make two requests at most: theirs, and one more by those who waited."""

        def fail(path, symbols):
            gate.pass_()
            return 500, b""

        server.before_answer = fail
        crowd.add(account.get_instrument_current_price, "ASML", count=10)
        followers(9)
        gate.set()
        assert crowd.join() == [None] * 10
        assert len(server.requests) == len(warnings(caplog)) == 2

    def test_interrupts_are_not_failures(self, account, monkeypatch):
        """What is no Exception passes through."""
        feed = account._prices.feed("stock")
        monkeypatch.setattr(feed.client, "get_stock_latest_quote", interrupt)
        with pytest.raises(KeyboardInterrupt):
            account.get_instrument_current_price("ASML")

    def test_a_deadlock_is_not_the_brokers(self, account, monkeypatch):
        """Asking for the price that is being fetched raises, and is not logged as the broker's failure."""
        feed = account._prices.feed("stock")
        monkeypatch.setattr(
            feed.client,
            "get_stock_latest_quote",
            lambda request: account.get_instrument_current_price("ASML"),
        )
        with pytest.raises(FlightDeadlock):
            account.get_instrument_current_price("ASML")


def interrupt(*args):
    raise KeyboardInterrupt


class TestRetries:
    """alpaca-py's retries, as often and as far apart as was asked for."""

    @pytest.mark.parametrize("status", [429, 504])
    @pytest.mark.parametrize("retries", [0, 2])
    @pytest.mark.parametrize("symbol", ["ASML", "BTC/USD"])
    def test_the_count(self, open_account, server, status, retries, symbol):
        """1 + retries requests, then None."""
        server.before_answer = lambda path, symbols: (status, b'{"message":"no"}')
        eager = open_account(retries=retries, retry_wait=0)
        assert eager.get_instrument_current_price(symbol) is None
        assert len(server.requests) == 1 + retries

    def test_nothing_else_is_sent_again(self, open_account, server, monkeypatch):
        """Only 429 and 504 are, whatever alpaca-py itself would send again."""
        from alpaca.common import rest

        monkeypatch.setattr(rest, "DEFAULT_RETRY_EXCEPTION_CODES", [400, 500, 503])
        for status in (400, 500, 503):
            server.before_answer = lambda path, symbols, status=status: (status, b"{}")
            assert open_account(retries=2, retry_wait=0).get_instrument_current_price("ASML") is None
        assert len(server.requests) == 3

    def test_a_retry_that_works(self, open_account, server, caplog):
        """429, 429, 200 is a price, and no failure."""
        answers = [(429, b"{}"), (429, b"{}"), None]
        server.before_answer = lambda path, symbols: answers.pop(0)
        assert open_account(retries=2, retry_wait=0).get_instrument_current_price("ASML") == 984.75
        assert warnings(caplog) == []

    def test_the_wait(self, open_account, server, monkeypatch):
        """It sleeps for retry_wait seconds in between."""
        from alpaca.common import rest

        slept = []
        monkeypatch.setattr(rest.time, "sleep", slept.append)
        monkeypatch.setattr("singleflight.accounts.alpaca_clients.gate_of", lambda *which: Gate(pause=0))
        server.before_answer = lambda path, symbols: (429, b"{}")
        open_account(retries=2, retry_wait=7.5).get_instrument_current_price("ASML")
        assert slept == [7.5, 7.5]
