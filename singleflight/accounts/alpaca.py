"""An account at Alpaca, on alpaca-py's own clients."""

from __future__ import annotations

import math
import os
from typing import Any

from .. import KeyedLocks, SingleFlightError
from ..durations import seconds
from .interface import AccountInterface, log

__all__ = ["AlpacaAccount"]

_MISSING = "AlpacaAccount needs alpaca-py; install the extra: pip install 'singleflight-kit[alpaca]'"


class AlpacaAccount(AccountInterface):
    """An account at Alpaca.

    Args:
        id: names the account; accounts with one id share their prices.
        api_key, secret_key: default to the environment variables `APCA_API_KEY_ID` and
            `APCA_API_SECRET_KEY`. Needed for stocks; crypto prices can be had without.
        url: replaces both service origins, such as `http://127.0.0.1:8000`.
        paper: whether this is a paper account.
        timeout: seconds that one request may take (alpaca-py itself sets no limit).
        retries: how often a request that is answered 429 or 504 is tried again.
        retry_wait: seconds between these tries.

    Whatever the broker does wrong becomes None, is logged once at WARNING, and is not kept. Safe to use
    from any thread. alpaca-py is imported when the first price is asked for.

        account = AlpacaAccount("1")
        account.get_instrument_current_price("ASML")
    """

    def __init__(
        self,
        id: Any,  # noqa: A002
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
        if isinstance(retries, bool) or not isinstance(retries, int):
            raise TypeError(f"retries: expected a whole number, got {retries!r}")
        if retries < 0:
            raise ValueError(f"retries: cannot be negative, got {retries}")
        if url is not None and not (isinstance(url, str) and url.startswith(("http://", "https://"))):
            raise ValueError(f"url: expected an origin such as 'https://host', got {url!r}")
        self._timeout = seconds(timeout, "timeout")
        if not 0 < self._timeout < math.inf:
            raise ValueError(f"timeout: must be more than 0 and finite, got {timeout!r}")
        self._retries = retries
        self._retry_wait = seconds(retry_wait, "retry_wait")
        self._api_key = api_key or os.environ.get("APCA_API_KEY_ID")
        self._secret_key = secret_key or os.environ.get("APCA_API_SECRET_KEY")
        self._url = url.rstrip("/") if url is not None else None
        self.paper = paper
        self._clients: dict[str, Any] = {}  # by kind; each made once, under its kind's lock
        self._making = KeyedLocks()

    def _get_instrument_current_price_impl(self, symbol: str, price_type: str) -> float | None:
        try:
            return self._ask(symbol, price_type)
        except SingleFlightError:
            raise
        except Exception as error:
            self._failed(symbol, price_type, f"{type(error).__name__}: {error}")
            return None

    def _ask(self, symbol: str, price_type: str) -> float | None:
        """One request: the trade for the last price, the quote for the others."""
        requests = _requests()
        crypto = "/" in symbol
        client = self._client("crypto" if crypto else "data")
        if price_type == "last":
            kind = requests.CryptoLatestTradeRequest if crypto else requests.StockLatestTradeRequest
            ask = client.get_crypto_latest_trade if crypto else client.get_stock_latest_trade
        else:
            kind = requests.CryptoLatestQuoteRequest if crypto else requests.StockLatestQuoteRequest
            ask = client.get_crypto_latest_quote if crypto else client.get_stock_latest_quote
        answer = ask(kind(symbol_or_symbols=symbol)).get(symbol)
        price = None if answer is None else _price(answer, price_type)
        if price is None:
            self._failed(symbol, price_type, "unknown symbol" if answer is None else "no price")
        return price

    def _failed(self, symbol: str, price_type: str, cause: str) -> None:
        log.warning("[Account %s] Failed to fetch %s price for %s: %s", self.id, price_type, symbol, cause)

    def _client(self, kind: str) -> Any:
        client = self._clients.get(kind)
        if client is None:
            with self._making(kind):
                client = self._clients.get(kind)
                if client is None:
                    client = self._clients[kind] = self._make_client(kind)
                    log.info("Alpaca %s client initialized for account %s.", kind, self.id)
        return client

    def _make_client(self, kind: str) -> Any:
        try:
            from alpaca.data.historical import CryptoHistoricalDataClient, StockHistoricalDataClient
        except ImportError as error:
            raise ImportError(_MISSING) from error
        make = CryptoHistoricalDataClient if kind == "crypto" else StockHistoricalDataClient
        if kind == "data" and not (self._api_key and self._secret_key):
            raise ValueError(
                "api_key and secret_key, or APCA_API_KEY_ID and APCA_API_SECRET_KEY, are not set"
            )
        client = make(self._api_key, self._secret_key, url_override=self._url)
        # Private attributes of alpaca-py: its constructor takes neither a timeout nor retries.
        for name, value in (("_retry", self._retries), ("_retry_wait", self._retry_wait)):
            if not hasattr(client, name):
                raise RuntimeError(f"this alpaca-py has no {name}: its retries cannot be set")
            setattr(client, name, value)
        _set_timeout(client._session, self._timeout)
        return client


def _requests() -> Any:
    try:
        from alpaca.data import requests
    except ImportError as error:
        raise ImportError(_MISSING) from error
    return requests


def _price(answer: Any, price_type: str) -> float | None:
    """The price in a quote or trade; None unless it is a positive finite number."""
    if price_type == "last":
        return _sane(answer.price)
    bid, ask = _sane(answer.bid_price), _sane(answer.ask_price)
    if price_type == "mid":
        return None if bid is None or ask is None else (bid + ask) / 2
    return bid if price_type == "bid" else ask


def _sane(price: Any) -> float | None:
    number = float(price)
    return number if math.isfinite(number) and number > 0 else None


def _set_timeout(session: Any, timeout: float) -> None:
    """Give every request of this session a time limit, in seconds."""
    from requests.adapters import HTTPAdapter

    class TimeoutAdapter(HTTPAdapter):
        def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("timeout") is None:
                kwargs["timeout"] = timeout
            return super().send(request, *args, **kwargs)

    for scheme in ("https://", "http://"):
        session.mount(scheme, TimeoutAdapter())
