"""The account price getter, on alpaca-py's real clients and a loopback server with Alpaca's wire format."""

import importlib.util
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from singleflight.accounts import AccountInterface, AlpacaAccount

pytest.importorskip("alpaca")
EXAMPLES = Path(__file__).parents[2] / "examples"
spec = importlib.util.spec_from_file_location("market_server", EXAMPLES / "market_server.py")
market_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(market_server)
getter = AccountInterface.get_instrument_current_price


@pytest.fixture
def server():
    """A market with a few prices."""
    with market_server.MarketServer() as server:
        yield server


@pytest.fixture
def account(server):
    """An account on it, with nothing cached."""
    getter.cache_clear()
    yield AlpacaAccount(1, "key", "secret", url=server.url, retries=0)
    getter.cache_clear()


def test_ten_threads_make_one_request(account, server, crowd, gate):
    """Ten threads that ask for one price make one request and share the answer."""
    server.before_answer = lambda path, symbols: gate.pass_()
    crowd.add(account.get_instrument_current_price, "ASML", count=10)
    while not (getter.flights() and getter.flights()[0].followers == 9):
        pass
    gate.set()
    assert crowd.join() == [984.75] * 10
    assert len(server.requests) == 1


def test_each_price_type_is_its_own(account, server):
    """bid, ask, mid and last never serve one another, and each is one request."""
    prices = [account.get_instrument_current_price("ASML", kind) for kind in ("bid", "ask", "mid", "last")]
    assert prices == [984.75, 985.25, 985.0, 984.75]
    assert len(server.requests) == 4
    assert sum("trades" in request for request in server.requests) == 1


def test_symbols_are_stripped_and_upper_cased(account, server):
    """The same instrument, however it is written, is one key."""
    assert account.get_instrument_current_price(" asml ") == account.get_instrument_current_price("ASML")
    assert len(server.requests) == 1


def test_crypto_goes_to_the_crypto_client(account, server):
    """A symbol with a slash is asked for at the crypto endpoint."""
    assert account.get_instrument_current_price("BTC/USD", "last") == 64000.5
    assert "/crypto/" in server.requests[0]


def test_accounts_do_not_hold_each_other_up(account, server, crowd):
    """Two accounts asking for one symbol make two overlapping calls; one id shares."""
    together = threading.Barrier(2)

    def meet(path, symbols):
        together.wait(10)

    server.before_answer = meet
    other = AlpacaAccount(2, "key", "secret", url=server.url, retries=0)
    crowd.add(account.get_instrument_current_price, "ASML")
    crowd.add(other.get_instrument_current_price, "ASML")
    assert crowd.join() == [984.75] * 2
    server.before_answer = None
    same_id = AlpacaAccount(1, "key", "secret", url=server.url, retries=0)
    assert same_id.get_instrument_current_price("ASML") == 984.75
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"{}"),
        (500, b'{"message":"no"}'),
        (503, b"busy"),
        (429, b'{"message":"slow down"}'),
        (200, b"not json"),
        (200, b""),
        (200, b"{}"),
        (200, b"[]"),
        (200, b'{"quotes":null}'),
        (200, b'{"quotes":{}}'),
        (200, b'{"quotes":{"ASML":null}}'),
        (200, b'{"quotes":{"ASML":{"t":"2026-01-02T15:04:05Z","bp":0,"bs":1,"ap":1,"as":1}}}'),
        (200, b'{"quotes":{"ASML":{"t":"2026-01-02T15:04:05Z","bp":-5,"bs":1,"ap":1,"as":1}}}'),
        (200, b'{"quotes":{"ASML":{"x":1}}}'),
    ],
)
def test_whatever_goes_wrong_is_none_and_not_kept(account, server, caplog, status, body):
    """A failure is None, one WARNING with its cause, and the next caller asks again."""
    server.before_answer = lambda path, symbols: (status, body)
    assert account.get_instrument_current_price("ASML") is None
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1
    assert "[Account 1] Failed to fetch bid price for ASML: " in caplog.text
    server.before_answer = None
    assert account.get_instrument_current_price("ASML") == 984.75


def test_a_dead_server_is_none(account, server):
    """Nobody listening is a failure like others."""
    dead = AlpacaAccount(1, "key", "secret", url="http://127.0.0.1:9", retries=0)
    assert dead.get_instrument_current_price("ASML") is None


def test_a_server_that_never_answers_is_given_up_on(account, server, gate):
    """The timeout bounds every request, though alpaca-py sets none."""
    server.before_answer = lambda path, symbols: gate.pass_()
    patient = AlpacaAccount(1, "key", "secret", url=server.url, timeout=0.1, retries=0)
    assert patient.get_instrument_current_price("ASML") is None


def test_retries_are_what_was_asked_for(account, server):
    """429 is tried again `retries` times."""
    server.before_answer = lambda path, symbols: (429, b'{"message":"no"}')
    eager = AlpacaAccount(1, "key", "secret", url=server.url, retries=2, retry_wait=0)
    assert eager.get_instrument_current_price("ASML") is None
    assert len(server.requests) == 3


def test_bad_input_raises_before_any_flight(account, server):
    """An unknown price type or an empty symbol is the caller's mistake."""
    with pytest.raises(ValueError, match="price_type"):
        account.get_instrument_current_price("ASML", "high")
    with pytest.raises(ValueError, match="symbol"):
        account.get_instrument_current_price("  ")
    with pytest.raises(TypeError, match="symbol"):
        account.get_instrument_current_price(7)
    with pytest.raises(ValueError, match="timeout"):
        AlpacaAccount(1, timeout=0)
    with pytest.raises(ValueError, match="retries"):
        AlpacaAccount(1, retries=-1)
    with pytest.raises(ValueError, match="url"):
        AlpacaAccount(1, url="nowhere")
    assert server.requests == []
    assert getter.stats().calls == 0


def test_price_cache_time_applies_to_what_lands_after(account, server, monkeypatch, caplog):
    """A change of the environment variable is seen by the next landing; 0 keeps nothing; nonsense is 60."""
    monkeypatch.setenv("PRICE_CACHE_TIME", "5")
    account.get_instrument_current_price("ASML")
    assert account.get_instrument_current_price.entry("ASML").ttl == 5
    monkeypatch.setenv("PRICE_CACHE_TIME", "0")
    account.get_instrument_current_price("AAPL")
    assert account.get_instrument_current_price.entry("AAPL") is None
    monkeypatch.setenv("PRICE_CACHE_TIME", "a while")
    for symbol in ("MSFT", "NVDA"):
        account.get_instrument_current_price(symbol)
        assert account.get_instrument_current_price.entry(symbol).ttl == 60
    assert caplog.text.count("PRICE_CACHE_TIME is no number") == 1


def test_each_client_is_made_once(account, server, crowd, caplog):
    """Ten threads that ask for ten prices first make one client, and one line says so."""
    with caplog.at_level(logging.INFO, logger="singleflight.accounts"):
        for _ in range(5):
            for symbol in ("ASML", "AAPL"):
                crowd.add(account.get_instrument_current_price, symbol)
        crowd.join()
    assert caplog.text.count("Alpaca data client initialized for account 1.") == 1


def test_the_log_lines(account, server, crowd, gate, caplog):
    """At DEBUG the getter tells what it does, in these words."""
    server.before_answer = lambda path, symbols: gate.pass_()
    with caplog.at_level(logging.DEBUG, logger="singleflight.accounts"):
        crowd.add(account.get_instrument_current_price, "ASML", count=2)
        while not (getter.flights() and getter.flights()[0].followers == 1):
            pass
        gate.set()
        crowd.join()
        account.get_instrument_current_price("ASML")
    for line in (
        "[Account 1] Fetching fresh bid price for ASML (holding symbol lock)",
        "[Account 1] Cached new bid price for ASML: $984.75",
        "[Account 1] Another thread cached ASML while waiting: $984.75 (age: 0.",
        "[Account 1] Returning cached price for ASML: $984.75 (age: 0.",
    ):
        assert line in caplog.text


def test_missing_keys_are_said(server, caplog, monkeypatch):
    """Without credentials a stock price is None and the log says why; crypto needs none."""
    monkeypatch.delenv("APCA_API_KEY_ID", raising=False)
    monkeypatch.delenv("APCA_API_SECRET_KEY", raising=False)
    getter.cache_clear()
    bare = AlpacaAccount("bare", url=server.url)
    assert bare.get_instrument_current_price("ASML") is None
    assert "APCA_API_KEY_ID" in caplog.text
    assert bare.get_instrument_current_price("BTC/USD") == 64000.5


def test_the_package_imports_without_alpaca():
    """Neither the core nor the accounts import alpaca-py or pandas before they are needed."""
    code = (
        "import sys, singleflight.accounts; "
        "print([name for name in ('alpaca', 'pandas', 'requests') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
