"""Alpaca's market data through alpaca-py: clients with limits, and the prices in an answer.

alpaca-py is imported inside `open_feed`, when the first price is asked for: it takes over a second.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .alpaca_clients import MISSING, Limits, set_limits

__all__ = ["Feed", "NoPrice", "found_by", "open_feed", "price_in", "refused_by"]

_AROUND = re.compile(r"[\s\"'`{}\[\]():;,]+")  # what may stand around a symbol in a server's text


class NoPrice(Exception):
    """The broker answered, but not with a price; the message says with what."""


@dataclass(frozen=True, slots=True)
class Feed:
    """One of alpaca-py's data clients. Each call is one request and gives a mapping from symbols."""

    client: Any
    quotes: Callable[[list[str]], Any]
    trades: Callable[[list[str]], Any]


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
        raise ImportError(f"{MISSING} ({error})") from error
    if kind == "crypto":
        crypto = historical.CryptoHistoricalDataClient(api_key, secret_key, url_override=url)
        set_limits(crypto, limits)
        return Feed(
            crypto,
            lambda symbols: crypto.get_crypto_latest_quote(
                requests.CryptoLatestQuoteRequest(symbol_or_symbols=symbols)
            ),
            lambda symbols: crypto.get_crypto_latest_trade(
                requests.CryptoLatestTradeRequest(symbol_or_symbols=symbols)
            ),
        )
    stock = historical.StockHistoricalDataClient(api_key, secret_key, url_override=url)
    set_limits(stock, limits)
    return Feed(
        stock,
        lambda symbols: stock.get_stock_latest_quote(
            requests.StockLatestQuoteRequest(symbol_or_symbols=symbols)
        ),
        lambda symbols: stock.get_stock_latest_trade(
            requests.StockLatestTradeRequest(symbol_or_symbols=symbols)
        ),
    )


def found_by(feed: Feed, symbols: list[str], price_type: str) -> Any:
    """Make one request: quotes or trades by symbol, without those that the broker left out."""
    return (feed.trades if price_type == "last" else feed.quotes)(symbols)


def refused_by(error: Exception, symbols: list[str]) -> list[str]:
    """Which of several symbols the broker refuses by name, having answered 400; empty if it names none.

    >>> error = Exception("invalid symbol: AS.ML")
    >>> error.status_code = 400
    >>> refused_by(error, ["AS", "AS.ML", "AAPL"])
    ['AS.ML']
    """
    if getattr(error, "status_code", None) != 400 or len(symbols) < 2:
        return []
    named = {word.rstrip(".") for word in _AROUND.split(str(error))}
    return [symbol for symbol in symbols if symbol in named]


def price_in(found: Any, symbol: str, price_type: str) -> float:
    """The price in what was found: a positive finite number. Raises `NoPrice`, and much else."""
    one = found.get(symbol)
    if one is None:
        raise NoPrice("unknown symbol")
    if price_type == "last":
        told = {"last": one.price}
    else:
        told = {side: getattr(one, f"{side}_price") for side in ("bid", "ask") if price_type in (side, "mid")}
    sides = [float(side) for side in told.values()]
    price = sum(side / len(sides) for side in sides)
    if all(math.isfinite(side) and side > 0 for side in sides) and price > 0:
        return price
    raise NoPrice("not a price: " + ", ".join(f"{side} {number!r}" for side, number in told.items()))
