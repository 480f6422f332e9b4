"""Alpaca's market data through alpaca-py: prices as the account's getters ask for them.

alpaca-py is imported inside `open_feed`, when the first price is asked for: it takes over a second.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import SingleFlightError
from .alpaca_clients import MISSING, Clients, cause_of, set_limits
from .alpaca_settings import Settings
from .interface import in_line, log

__all__ = ["AlpacaPrices"]

_AROUND = re.compile(r"[\s\"'`{}\[\]():;,]+")  # what may stand around a symbol in a server's text


class AlpacaPrices:
    """The part of an account that asks for prices: of crypto where the symbol has a slash, else of stocks.

    Safe to use from any thread.
    """

    def __init__(self, account: Hashable, clients: Clients) -> None:
        self._account = account  # as log lines name it
        self._clients = clients

    def feed(self, kind: str) -> Feed:
        """The client for the prices of "stock" or "crypto"."""
        return self._clients.get(kind, open_feed)

    def one(self, symbol: str, price_type: str) -> float | None:
        """Ask for one price. What the broker does wrong is logged and gives None; what we do wrong raises."""
        feed = self.feed("crypto" if "/" in symbol else "stock")
        try:
            return price_in(found_by(feed, [symbol], price_type), symbol, price_type)
        except SingleFlightError:
            raise  # ours, not the broker's
        except Exception as error:
            self._complain(price_type, in_line(symbol), error)
            return None

    def many(self, symbols: Sequence[str], price_type: str) -> dict[str, float]:
        """Ask for many prices: one request for the stocks among the symbols and one for the crypto.

        What has no price is left out: each such symbol is logged as `one` would log it, and a request that
        fails is logged once and leaves out its own symbols, not those of the other one. A symbol that the
        broker refuses by name (HTTP 400) is set aside, and the others are asked for again: one that is
        misspelt is not to blank a whole screen.
        """
        asked: dict[str, list[str]] = {"stock": [], "crypto": []}
        for symbol in symbols:
            asked["crypto" if "/" in symbol else "stock"].append(symbol)
        feeds = {kind: self.feed(kind) for kind, some in asked.items() if some}  # what is wrong here raises
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
        text = "[Account %s] Failed to fetch %s price for %s: %s"
        log.warning(text, self._account, price_type, what, cause)


def _named(symbols: list[str]) -> str:
    shown = in_line(", ".join(symbols))
    return shown if len(symbols) == 1 else f"{len(symbols)} symbols ({shown})"


class NoPrice(Exception):
    """The broker answered, but not with a price; the message says with what."""


@dataclass(frozen=True, slots=True)
class Feed:
    """One of alpaca-py's data clients. Each call is one request and gives a mapping from symbols."""

    client: Any
    quotes: Callable[[list[str]], Any]
    trades: Callable[[list[str]], Any]


def open_feed(kind: str, settings: Settings) -> Feed:
    """A new client with its limits set: `kind` is "stock" or "crypto".

    Raises `ImportError`, naming the extra, without alpaca-py, and `RuntimeError` with an alpaca-py whose
    limits cannot be set.
    """
    try:
        from alpaca.data import historical, requests
    except ImportError as error:
        raise ImportError(f"{MISSING} ({error})") from error
    keys = settings.api_key, settings.secret_key
    if kind == "crypto":
        crypto = historical.CryptoHistoricalDataClient(*keys, url_override=settings.url)
        set_limits(crypto, settings.limits)
        return Feed(
            crypto,
            lambda symbols: crypto.get_crypto_latest_quote(
                requests.CryptoLatestQuoteRequest(symbol_or_symbols=symbols)
            ),
            lambda symbols: crypto.get_crypto_latest_trade(
                requests.CryptoLatestTradeRequest(symbol_or_symbols=symbols)
            ),
        )
    stock = historical.StockHistoricalDataClient(*keys, url_override=settings.url)
    set_limits(stock, settings.limits)
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
        quoted = {"last": one.price}
    else:
        quoted = {
            side: getattr(one, f"{side}_price") for side in ("bid", "ask") if price_type in (side, "mid")
        }
    sides = [float(side) for side in quoted.values()]
    price = sum(side / len(sides) for side in sides)
    if all(math.isfinite(side) and side > 0 for side in sides) and price > 0:
        return price
    raise NoPrice("not a price: " + ", ".join(f"{side} {number!r}" for side, number in quoted.items()))
