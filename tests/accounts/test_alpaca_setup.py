"""AlpacaAccount before it asks: its arguments, its clients, and what it imports when."""

import logging
import os
import subprocess
import sys
import textwrap

import pytest

from singleflight.accounts import AlpacaAccount


class TestClients:
    """When clients are made, and what they need."""

    def test_each_is_made_once(self, account, server, crowd, gate, caplog, monkeypatch, until):
        """Ten threads that ask for ten prices first make one client; one INFO line says so."""
        from alpaca.data import historical

        made = []

        class Slow(historical.StockHistoricalDataClient):
            def __init__(self, *args, **kwargs):
                made.append(self)
                gate.pass_()
                super().__init__(*args, **kwargs)

        monkeypatch.setattr(historical, "StockHistoricalDataClient", Slow)
        for number in range(10):
            server.prices[f"S{number}"] = 1.0 + number
        with caplog.at_level(logging.INFO, logger="singleflight.accounts"):
            for number in range(10):
                crowd.add(account.get_instrument_current_price, f"S{number}")
            until(lambda: len(made) + account._clients.opening.waiting(("stock", os.getpid())) == 10)
            gate.set()
            assert crowd.join() == [1.0 + number for number in range(10)]
        assert len(made) == 1
        assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
            ("INFO", "Alpaca data client initialized for account 1.")
        ]

    def test_crypto_has_its_own(self, account, caplog):
        """And a line of its own."""
        with caplog.at_level(logging.INFO, logger="singleflight.accounts"):
            account.get_instrument_current_price("BTC/USD")
            account.get_instrument_current_price("BTC/USD", "last")
        assert caplog.messages == ["Alpaca crypto data client initialized for account 1."]

    def test_alpaca_py_still_has_what_is_set(self, account):
        """A new alpaca-py without these private attributes fails here, and not silently."""
        for kind in ("stock", "crypto"):
            client = account._prices.feed(kind).client
            assert {"_retry", "_retry_wait", "_retry_codes", "_session"} <= vars(client).keys()

    @pytest.mark.parametrize("name", ["_retry", "_retry_wait", "_retry_codes", "_session"])
    def test_an_alpaca_py_without_them_is_refused(self, open_account, monkeypatch, name):
        """Loudly: a client without limits could hang for ever."""
        from alpaca.data import historical

        class Changed(historical.StockHistoricalDataClient):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                delattr(self, name)

        monkeypatch.setattr(historical, "StockHistoricalDataClient", Changed)
        with pytest.raises(RuntimeError, match=f"has no {name}"):
            open_account().get_instrument_current_price("ASML")

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
    def test_a_forked_child_makes_its_own_feeds(self, account, monkeypatch):
        """A connection in two processes would mix up their answers."""
        mine = account._prices.feed("stock")
        assert account._prices.feed("stock") is mine
        pid = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: pid + 1)  # as in a child
        assert account._prices.feed("stock").client is not mine.client

    def test_no_credentials(self, server, caplog):
        """A stock price raises and says what to set; crypto needs none."""
        pytest.importorskip("alpaca")
        bare = AlpacaAccount("bare", url=server.url)
        with pytest.raises(ValueError, match=r"APCA_API_KEY_ID.*APCA_API_SECRET_KEY"):
            bare.get_instrument_current_price("ASML")
        assert server.requests == []
        assert bare.get_instrument_current_price("BTC/USD") == 64000.5

    def test_credentials_from_the_environment(self, server, monkeypatch):
        """They are read when the account is made."""
        pytest.importorskip("alpaca")
        monkeypatch.setenv("APCA_API_KEY_ID", "from-env")
        monkeypatch.setenv("APCA_API_SECRET_KEY", "secret-env")
        account = AlpacaAccount("env", url=server.url)
        monkeypatch.delenv("APCA_API_KEY_ID")
        assert account.get_instrument_current_price("ASML") == 984.75
        assert account._prices.feed("stock").client._get_auth_headers() == {
            "APCA-API-KEY-ID": "from-env",
            "APCA-API-SECRET-KEY": "secret-env",
        }


class TestArguments:
    """What cannot be right raises at once, naming the argument."""

    @pytest.mark.parametrize(
        ("options", "error", "named"),
        [
            ({"id": {}}, TypeError, "id"),
            ({"api_key": 7}, TypeError, "api_key"),
            ({"api_key": ""}, ValueError, "api_key"),
            ({"secret_key": "secret\n"}, ValueError, "secret_key"),
            ({"secret_key": None}, ValueError, "secret_key"),
            ({"api_key": None}, ValueError, "api_key"),
            ({"url": "nowhere"}, ValueError, "url"),
            ({"url": "http://"}, ValueError, "url"),
            ({"url": "ftp://host"}, ValueError, "url"),
            ({"url": "http://host:port"}, ValueError, "url"),
            ({"url": "http://host/v2/"}, ValueError, "url.*version"),
            ({"url": "http://host?x=1"}, ValueError, "url"),
            ({"url": 5}, TypeError, "url"),
            ({"paper": "yes"}, TypeError, "paper"),
            ({"timeout": 0}, ValueError, "timeout"),
            ({"timeout": -1}, ValueError, "timeout"),
            ({"timeout": float("nan")}, ValueError, "timeout"),
            ({"timeout": float("inf")}, ValueError, "timeout"),
            ({"timeout": "10"}, TypeError, "timeout"),
            ({"timeout": True}, TypeError, "timeout"),
            ({"retries": -1}, ValueError, "retries"),
            ({"retries": 1.5}, TypeError, "retries"),
            ({"retries": True}, TypeError, "retries"),
            ({"retry_wait": -1}, ValueError, "retry_wait"),
            ({"retry_wait": float("inf")}, ValueError, "retry_wait"),
        ],
    )
    def test_bad_ones(self, options, error, named):
        """No client is made and nothing is asked."""
        arguments = {"id": 1, "api_key": "key", "secret_key": "secret", **options}
        with pytest.raises(error, match=f"^{named}"):
            AlpacaAccount(**arguments)

    def test_no_message_shows_a_key(self, monkeypatch):
        """Errors and repr end up in logs."""
        monkeypatch.setenv("APCA_API_SECRET_KEY", "hush hush ")
        with pytest.raises(ValueError, match=r"^APCA_API_SECRET_KEY: ") as caught:
            AlpacaAccount(1, "key")
        assert "hush" not in str(caught.value)
        account = AlpacaAccount(1, "key", "hush")
        assert repr(account) == "AlpacaAccount(1, paper=True)"

    def test_a_slash_at_the_end_of_the_url_is_fine(self, open_account, server):
        """It is taken off."""
        assert open_account(url=server.url + "/").get_instrument_current_price("ASML") == 984.75


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class TestImports:
    """alpaca-py is imported where it is used."""

    def test_nothing_heavy_is_imported_early(self):
        """Not by importing the accounts, and not by making one."""
        heavy = """
            import sys
            from singleflight.accounts import AlpacaAccount
            AlpacaAccount(1, "key", "secret")
            print([name for name in ("alpaca", "pandas", "requests", "pydantic") if name in sys.modules])
        """
        assert run(heavy) == "[]"

    def test_without_alpaca_py(self):
        """The package imports; the first price raises an ImportError that names the extra."""
        blocked = """
            import sys

            class Blocker:
                def find_spec(self, name, path=None, target=None):
                    if name.partition(".")[0] in ("alpaca", "pandas"):
                        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

            sys.meta_path.insert(0, Blocker())
            from singleflight.accounts import AlpacaAccount
            try:
                AlpacaAccount(1, "key", "secret").get_instrument_current_price("ASML")
            except ImportError as error:
                print(error)
        """
        assert "pip install 'singleflight-kit[alpaca]'" in run(blocked)
