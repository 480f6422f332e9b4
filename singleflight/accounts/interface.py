"""What every account offers, and the price getter that all of them share."""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any

from .. import Landing, single_flight_ttl
from ..durations import seconds

__all__ = ["PRICE_TYPES", "AccountInterface", "price_cache_time"]

log = logging.getLogger("singleflight.accounts")

PRICE_TYPES = ("bid", "ask", "mid", "last")
DEFAULT_PRICE_CACHE_TIME = 60.0
_complained: set[str] = set()


def price_cache_time() -> float:
    """How long a price lives, in seconds: the environment variable `PRICE_CACHE_TIME`, or 60.

    Read whenever a price lands, so that a change applies to the prices that land after it. A value that is
    not a number of seconds is logged once, and 60 is used.
    """
    text = os.environ.get("PRICE_CACHE_TIME")
    if text is None:
        return DEFAULT_PRICE_CACHE_TIME
    try:
        return seconds(float(text), "PRICE_CACHE_TIME")
    except ValueError:
        if text not in _complained:
            _complained.add(text)
            log.warning(
                "PRICE_CACHE_TIME is no number of seconds: %r; using %g", text, DEFAULT_PRICE_CACHE_TIME
            )
        return DEFAULT_PRICE_CACHE_TIME


def money(price: float) -> str:
    """A price for people: cents, or four significant digits below a dollar."""
    return f"${price:,.2f}" if abs(price) >= 1 else f"${price:.4g}"


def normal_symbol(symbol: str) -> str:
    """The symbol as it is asked for and kept: stripped, in upper case. Raises `ValueError` if empty."""
    if not isinstance(symbol, str):
        raise TypeError(f"symbol: expected a string, got {symbol!r}")
    normal = symbol.strip().upper()
    if not normal:
        raise ValueError("symbol: cannot be empty")
    return normal


def _price_key(account: AccountInterface, symbol: str, price_type: str = "bid") -> tuple[Any, str, str]:
    if price_type not in PRICE_TYPES:
        raise ValueError(f"price_type: expected one of {', '.join(PRICE_TYPES)}, got {price_type!r}")
    return account.id, normal_symbol(symbol), price_type


def _price_ttl(_landing: Landing) -> float:
    return price_cache_time()


class _PriceLog:
    """Tells what the getter does, at DEBUG, in the account's name."""

    kinds = frozenset({"fetch", "land", "share", "hit"})

    @property
    def wants(self) -> Collection[str]:
        return self.kinds if log.isEnabledFor(logging.DEBUG) else ()

    def __call__(self, event: Any) -> None:
        account, symbol, price_type = event.key
        line = self.line(event, symbol, price_type)
        if line:
            log.debug("[Account %s] %s", account, line)

    @staticmethod
    def line(event: Any, symbol: str, price_type: str) -> str | None:
        """The text of one event; None where there is nothing to tell."""
        if event.kind == "fetch":
            return f"Fetching fresh {price_type} price for {symbol} (holding symbol lock)"
        price: Any = event.value
        if price is None or (event.kind == "land" and not event.stored):
            return None
        if event.kind == "land":
            return f"Cached new {price_type} price for {symbol}: {money(price)}"
        if event.kind == "share":
            return f"Another thread cached {symbol} while waiting: {money(price)} (age: {event.age:.1f}s)"
        if event.kind == "hit":
            return f"Returning cached price for {symbol}: {money(price)} (age: {event.age:.1f}s)"
        return None


class AccountInterface(ABC):
    """An account at a broker.

    Args:
        id: names the account in keys and log lines. Accounts with the same id share their prices, on
            purpose: give accounts that see different prices (paper and live) different ids.
    """

    def __init__(self, id: Any) -> None:  # noqa: A002
        try:
            hash(id)
        except TypeError:
            raise TypeError(f"id: must be hashable, got {id!r}") from None
        self.id = id

    @single_flight_ttl(
        key=_price_key, ttl=_price_ttl, listener=_PriceLog(), name="get_instrument_current_price"
    )
    def get_instrument_current_price(self, symbol: str, price_type: str = "bid") -> float | None:
        """The current price of an instrument, asked for once however many ask.

        Args:
            symbol: the instrument; white space around it and its case do not matter.
            price_type: "bid", "ask", "mid" or "last".

        Returns a price at most `PRICE_CACHE_TIME` seconds old (default 60), or None where the broker has
        none or could not be asked; None is not kept, the next caller asks again. Raises `ValueError` for an
        empty symbol or an unknown price type, before anything is asked.

        Safe to use from any thread; symbols and accounts do not hold each other up.
        """
        return self._get_instrument_current_price_impl(normal_symbol(symbol), price_type)

    @abstractmethod
    def _get_instrument_current_price_impl(self, symbol: str, price_type: str) -> float | None:
        """Ask the broker; None where there is no price. The symbol is stripped and in upper case."""
