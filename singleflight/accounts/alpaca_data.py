"""Alpaca's market data through alpaca-py: clients with limits, and the price in an answer.

alpaca-py is imported inside `open_feed`, when the first price is asked for: it takes over a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Feed", "Limits", "NoPrice", "cause_of", "open_feed", "price_in"]

_CONNECTIONS = 64  # kept open per client; requests' own ten are fewer than a dashboard's threads
_RETRIED = (429, 504)  # too many requests; the gateway had no answer in time
_LONGEST_CAUSE = 300  # characters of a server's answer that are worth a log line


class NoPrice(Exception):
    """The broker answered, but not with a price; the message says with what."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait for a server and how often to ask it again; seconds and a count."""

    timeout: float
    retries: int
    retry_wait: float


@dataclass(frozen=True, slots=True)
class Feed:
    """One of alpaca-py's data clients. Each call is one request and gives a mapping from symbols."""

    client: Any
    quotes: Callable[[str], Any]
    trades: Callable[[str], Any]


def open_feed(
    kind: str, api_key: str | None, secret_key: str | None, url: str | None, limits: Limits
) -> Feed:
    """A new client with its limits set: `kind` is "stock" or "crypto"; `url` replaces the origin.

    Raises `ImportError`, naming the extra, without alpaca-py, and `RuntimeError` with an alpaca-py whose
    limits cannot be set.
    """
    try:
        from alpaca.data import historical, requests
    except ImportError as error:
        needed = "AlpacaAccount needs alpaca-py; install the extra: pip install 'singleflight-kit[alpaca]'"
        raise ImportError(f"{needed} ({error})") from error
    if kind == "crypto":
        crypto = historical.CryptoHistoricalDataClient(api_key, secret_key, url_override=url)
        set_limits(crypto, limits)
        return Feed(
            crypto,
            lambda symbol: crypto.get_crypto_latest_quote(
                requests.CryptoLatestQuoteRequest(symbol_or_symbols=symbol)
            ),
            lambda symbol: crypto.get_crypto_latest_trade(
                requests.CryptoLatestTradeRequest(symbol_or_symbols=symbol)
            ),
        )
    stock = historical.StockHistoricalDataClient(api_key, secret_key, url_override=url)
    set_limits(stock, limits)
    return Feed(
        stock,
        lambda symbol: stock.get_stock_latest_quote(
            requests.StockLatestQuoteRequest(symbol_or_symbols=symbol)
        ),
        lambda symbol: stock.get_stock_latest_trade(
            requests.StockLatestTradeRequest(symbol_or_symbols=symbol)
        ),
    )


def set_limits(client: Any, limits: Limits) -> None:
    """Set what alpaca-py's constructors do not take, or raise `RuntimeError` where it cannot be set."""
    for name in ("_session", "_retry", "_retry_wait", "_retry_codes"):
        if not hasattr(client, name):
            raise RuntimeError(
                f"alpaca-py has changed: its {type(client).__name__} has no {name}, so that timeout, retries "
                f"and retry_wait cannot be set; please report this"
            )
    client._retry = limits.retries
    client._retry_wait = limits.retry_wait
    client._retry_codes = list(_RETRIED)

    from requests.adapters import HTTPAdapter

    class TimeoutAdapter(HTTPAdapter):
        """Supplies the timeout that alpaca-py never sends."""

        def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("timeout") is None:
                kwargs["timeout"] = limits.timeout
            return super().send(request, *args, **kwargs)

    for scheme in ("https://", "http://"):
        client._session.mount(scheme, TimeoutAdapter(pool_maxsize=_CONNECTIONS))


def price_in(feed: Feed, symbol: str, price_type: str) -> float:
    """Make one request and return the price: a positive finite number. Raises `NoPrice`, and much else."""
    ask = feed.trades if price_type == "last" else feed.quotes
    found = ask(symbol).get(symbol)
    if found is None:
        raise NoPrice("unknown symbol")
    if price_type == "last":
        told = {"last": found.price}
    else:
        told = {
            side: getattr(found, f"{side}_price") for side in ("bid", "ask") if price_type in (side, "mid")
        }
    sides = [float(side) for side in told.values()]
    price = sum(side / len(sides) for side in sides)
    if all(math.isfinite(side) and side > 0 for side in sides) and price > 0:
        return price
    raise NoPrice("not a price: " + ", ".join(f"{side} {number!r}" for side, number in told.items()))


def cause_of(error: Exception) -> str:
    """An error in one line of reasonable length: its type, the HTTP status if it has one, its text."""
    text = " ".join(str(error).split())
    if isinstance(error, NoPrice):
        return text
    status = getattr(error, "status_code", None)
    if status is not None:
        text = f"HTTP {status} {text}".rstrip()
    if len(text) > _LONGEST_CAUSE:
        text = text[:_LONGEST_CAUSE] + "..."
    return f"{type(error).__name__}: {text}"
