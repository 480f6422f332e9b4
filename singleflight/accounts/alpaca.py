"""An account at Alpaca, on alpaca-py's own clients."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any
from urllib.parse import urlsplit

from .. import KeyedLocks, SingleFlightError
from .alpaca_clients import Limits, cause_of
from .alpaca_data import Feed, NoPrice, found_by, open_feed, price_in, refused_by
from .alpaca_trading import AlpacaTrading, open_trading
from .interface import in_line, log

__all__ = ["AlpacaAccount"]

_TOLD = {"stock": "data", "crypto": "crypto data", "trading": "trading", "orders": "order"}
_NEED_KEYS = {"stock": "stock prices", "trading": "balances and assets", "orders": "orders"}


class AlpacaAccount(AlpacaTrading):
    """An account at Alpaca: prices of stocks, and of crypto where the symbol has a slash, and trading.

    Args:
        id: names the account in keys and log lines. Accounts with the same id share their prices and
            balances, on purpose: give a paper account and a live one different ids.
        api_key, secret_key: default to the environment variables `APCA_API_KEY_ID` and
            `APCA_API_SECRET_KEY`, read now. Crypto prices can be had without; all else needs them.
        url: replaces both service origins (market data and trading), such as `http://127.0.0.1:8000`.
            Default None: Alpaca's own.
        paper: whether this is a paper account (default True): which trading service is asked. Prices do
            not depend on it.
        timeout: seconds that a request waits for a connection, and then for each next part of the answer
            (default 10; alpaca-py itself would wait for ever).
        retries: how often a request that is answered 429 or 504 is sent again (default 3).
        retry_wait: seconds between these attempts (default 3).

    Raises `TypeError` or `ValueError`, naming the argument, for what cannot be right.

    Whatever the broker does wrong makes the price None, is logged once at WARNING with its cause, and is
    not kept. What is wrong on this side raises when a price is asked for: `ValueError` for a stock without
    credentials, `ImportError` without alpaca-py, `RuntimeError` with one that cannot be given a timeout.

    Safe to use from any thread, and from tasks: alpaca-py has no client to await, so that
    `aget_instrument_current_price` makes its request in a thread of the account's own, of which there are
    at most 64. alpaca-py is imported and its client made, once per account, when the first price is asked
    for; a forked child makes its own. With the default limits a request ends within the minute that a
    flight may take; with longer ones those who wait may send another while the first still runs.

    >>> account = AlpacaAccount("paper", " key", "secret")
    Traceback (most recent call last):
    ValueError: api_key: expected printable ASCII without white space around it
    >>> account = AlpacaAccount("paper", "key", "secret", timeout=5)
    >>> account.get_instrument_current_price("ASML")  # doctest: +SKIP
    984.75
    """

    def __init__(
        self,
        id: Hashable,  # noqa: A002
        api_key: str | None = None,
        secret_key: str | None = None,
        *,
        url: str | None = None,
        paper: bool = True,
        timeout: float = 10.0,
        retries: int = 3,
        retry_wait: float = 3.0,
    ) -> None:
        super().__init__(id)
        self._api_key = _credential("api_key", api_key, "APCA_API_KEY_ID")
        self._secret_key = _credential("secret_key", secret_key, "APCA_API_SECRET_KEY")
        if self._api_key and not self._secret_key:
            raise ValueError("secret_key: missing beside api_key; pass it or set APCA_API_SECRET_KEY")
        if self._secret_key and not self._api_key:
            raise ValueError("api_key: missing beside secret_key; pass it or set APCA_API_KEY_ID")
        self._url = None if url is None else _origin(url)
        if not isinstance(paper, bool):
            raise TypeError(f"paper: expected True or False, got {paper!r}")
        self.paper = paper
        if isinstance(retries, bool) or not isinstance(retries, int):
            raise TypeError(f"retries: expected a whole number, got {retries!r}")
        if retries < 0:
            raise ValueError(f"retries: cannot be negative, got {retries}")
        self._limits = Limits(_wait("timeout", timeout), retries, _wait("retry_wait", retry_wait))
        if self._limits.timeout == 0:
            raise ValueError("timeout: must be more than 0 seconds")
        # By kind and process: each is made once, under its kind's lock. Sockets cannot be shared with a
        # forked child, and the parent's stay referenced there, since closing them would say goodbye for it.
        self._clients: dict[tuple[str, int], Any] = {}
        self._opening = KeyedLocks()

    def __repr__(self) -> str:
        return f"AlpacaAccount({self.id!r}, paper={self.paper})"

    def _get_instrument_current_price_impl(self, symbol: str, price_type: str) -> float | None:
        feed = self._feed("crypto" if "/" in symbol else "stock")
        try:
            return price_in(found_by(feed, [symbol], price_type), symbol, price_type)
        except SingleFlightError:
            raise  # ours, not the broker's
        except Exception as error:
            self._complain(price_type, in_line(symbol), error)
            return None

    def _get_instrument_current_prices_impl(
        self, symbols: Sequence[str], price_type: str
    ) -> dict[str, float]:
        """One request for the stocks among the symbols and one for the crypto.

        What has no price is left out: each such symbol is logged as the single getter would log it, and a
        request that fails is logged once and leaves out its own symbols, not those of the other one. A
        symbol that the broker refuses by name (HTTP 400) is set aside, and the others are asked for again:
        one that is misspelt is not to blank a whole screen.
        """
        asked: dict[str, list[str]] = {"stock": [], "crypto": []}
        for symbol in symbols:
            asked["crypto" if "/" in symbol else "stock"].append(symbol)
        feeds = {kind: self._feed(kind) for kind, some in asked.items() if some}  # what is wrong here raises
        prices: dict[str, float] = {}
        for kind, feed in feeds.items():
            prices.update(self._prices_from(feed, asked[kind], price_type))
        return {symbol: prices[symbol] for symbol in symbols if symbol in prices}

    def _prices_from(self, feed: Feed, symbols: list[str], price_type: str) -> dict[str, float]:
        found: Any = None
        while found is None and symbols:
            try:
                found = found_by(feed, symbols, price_type)
            except SingleFlightError:
                raise  # ours, not the broker's
            except Exception as error:
                refused = refused_by(error, symbols)
                self._complain(price_type, _named(refused or symbols), error)
                symbols = [symbol for symbol in symbols if symbol not in refused] if refused else []
        prices: dict[str, float] = {}
        for symbol in symbols:
            try:
                prices[symbol] = price_in(found, symbol, price_type)
            except Exception as error:
                self._complain(price_type, in_line(symbol), error)
        return prices

    def _complain(self, price_type: str, what: str, error: Exception) -> None:
        cause = str(error) if isinstance(error, NoPrice) else cause_of(error)
        log.warning("[Account %s] Failed to fetch %s price for %s: %s", self.id, price_type, what, cause)

    def _feed(self, kind: str) -> Feed:
        """The client for the prices of "stock" or "crypto"."""
        feed: Feed = self._client(
            kind, lambda: open_feed(kind, self._api_key, self._secret_key, self._url, self._limits)
        )
        return feed

    def _trading_client(self, kind: str) -> Any:
        return self._client(
            kind,
            lambda: open_trading(kind, self._api_key, self._secret_key, self._url, self._limits, self.paper),
        )

    def _client(self, kind: str, make: Callable[[], Any]) -> Any:
        """The account's client of this kind, made when it is first needed."""
        here = kind, os.getpid()
        client = self._clients.get(here)
        if client is not None:
            return client
        if kind in _NEED_KEYS and not self._api_key:
            raise ValueError(
                f"api_key and secret_key: {_NEED_KEYS[kind]} need them; pass them or set APCA_API_KEY_ID and "
                f"APCA_API_SECRET_KEY"
            )
        with self._opening(here):
            client = self._clients.get(here)
            if client is not None:
                return client
            client = self._clients[here] = make()
        log.info("Alpaca %s client initialized for account %s.", _TOLD[kind], self.id)
        return client


def _named(symbols: list[str]) -> str:
    shown = in_line(", ".join(symbols))
    return shown if len(symbols) == 1 else f"{len(symbols)} symbols ({shown})"


def _credential(argument: str, value: str | None, variable: str) -> str | None:
    """A key that can travel in a header, or None. No message shows it: messages end up in logs."""
    source = argument
    if value is None:
        value, source = os.environ.get(variable) or None, variable
        if value is None:
            return None
    if not isinstance(value, str):
        raise TypeError(f"{source}: expected a string, got a {type(value).__name__}")
    if not value:
        raise ValueError(f"{source}: cannot be empty")
    if not (value.isascii() and value.isprintable()) or value != value.strip():
        raise ValueError(f"{source}: expected printable ASCII without white space around it")
    return value


def _origin(url: str) -> str:
    """The URL without a slash at its end; alpaca-py adds the version and the path."""
    if not isinstance(url, str):
        raise TypeError(f"url: expected a string, got {url!r}")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        path, beyond = parts.path, parts.query or parts.fragment
    except ValueError:
        usable, path, beyond = False, "", ""
    if not usable or beyond or any(letter.isspace() for letter in url):
        raise ValueError(f"url: expected an origin such as 'http://127.0.0.1:8000', got {url!r}")
    if path.rstrip("/").endswith(("/v2", "/v1beta3")):
        raise ValueError(f"url: leave the version out, alpaca-py adds it; got {url!r}")
    return url.rstrip("/")


def _wait(argument: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        raise TypeError(f"{argument}: expected seconds, got {value!r}")
    if not 0 <= value <= threading.TIMEOUT_MAX:
        raise ValueError(f"{argument}: expected a finite number of seconds, not negative, got {value!r}")
    return float(value)
