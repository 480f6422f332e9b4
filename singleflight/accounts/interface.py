"""What every account offers, and the price getter that all of them share."""

from __future__ import annotations

import logging
import math
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from .. import Landing, single_flight_ttl
from .readings import LONGEST_FLIGHT, MOST_AT_ONCE, MOST_KEPT, source_of
from .workers import Workers

__all__ = [
    "LONGEST_FLIGHT",
    "MOST_KEPT",
    "PRICE_TYPES",
    "AccountInterface",
    "check_price_type",
    "normal_symbol",
    "price_cache_grace",
    "price_cache_time",
]

log: logging.Logger = logging.getLogger("singleflight.accounts")

PRICE_TYPES = ("bid", "ask", "mid", "last")
DEFAULT_PRICE_CACHE_TIME = 60.0
_LONGEST_SYMBOL = 64  # characters that a log line shows

_complained: set[tuple[str, str]] = set()  # variables and values that were logged; guarded by `_complaining`
_complaining = threading.Lock()


def price_cache_time() -> float:
    """How long a price lives, in seconds: the environment variable `PRICE_CACHE_TIME`, or 60.

    Read whenever a price lands, so that a change applies to the prices that land after it. 0 keeps nothing.
    A value that is not a number of seconds (or negative, or NaN) is logged once, and 60 is used.
    """
    return _seconds_in("PRICE_CACHE_TIME", DEFAULT_PRICE_CACHE_TIME)


def price_cache_grace() -> float:
    """How long past that a price may be served, in seconds: the variable `PRICE_CACHE_GRACE`, or 0.

    Read whenever a price lands, as `price_cache_time` is.
    """
    return _seconds_in("PRICE_CACHE_GRACE", 0.0)


def _seconds_in(variable: str, usual: float) -> float:
    text = os.environ.get(variable)
    if text is None:
        return usual
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if number >= 0:
        return number
    with _complaining:
        new = (variable, text) not in _complained
        _complained.add((variable, text))
    if new:
        log.warning("%s is no number of seconds: %r; using %g", variable, text, usual)
    return usual


def money(price: float) -> str:
    """A price for people: cents, or four significant digits below a dollar.

    >>> money(984.75), money(64000.5), money(0.5), money(0.00001234)
    ('$984.75', '$64,000.50', '$0.5000', '$0.00001234')
    """
    decimals = 3 - math.floor(math.log10(price)) if 0 < price < 1 else 2
    return f"${price:,.{decimals}f}"


def in_line(symbol: str) -> str:
    """A symbol as log lines show it: whatever a caller passes, it stays within its line.

    >>> in_line("BRK.B"), in_line("AS\\nML")
    ('BRK.B', "'AS\\\\nML'")
    """
    shown = symbol if symbol.isprintable() else ascii(symbol)
    return shown if len(shown) <= _LONGEST_SYMBOL else f"{shown[:_LONGEST_SYMBOL]}..."


def normal_symbol(symbol: str) -> str:
    """A symbol as brokers write it, or an error that says what is wrong with it."""
    if not isinstance(symbol, str):
        raise TypeError(f"symbol: expected a string, got {symbol!r}")
    normal = symbol.strip().upper()
    if not normal:
        raise ValueError("symbol: cannot be empty")
    return normal


def distinct(normal: Mapping[str, str]) -> list[str]:
    """The symbols to ask for, each once."""
    return list(dict.fromkeys(normal.values()))


def price_key(account: AccountInterface, symbol: str, price_type: str = "bid") -> tuple[Hashable, str, str]:
    """What makes two price calls the same, or an error that names the argument that is wrong."""
    normal = normal_symbol(symbol)
    check_price_type(price_type)
    return account.id, normal, price_type


def check_price_type(price_type: str) -> None:
    """Raise `ValueError` for what is no type of price."""
    if price_type not in PRICE_TYPES:
        raise ValueError(f"price_type: expected one of {', '.join(PRICE_TYPES)}, got {price_type!r}")


def _price_ttl(landing: Landing) -> float:
    key: Any = landing.key
    source = source_of(key, landing.value)
    return price_cache_time() if source is None else min(price_cache_time(), source.left)


def _price_grace(landing: Landing) -> float:
    key: Any = landing.key
    source = source_of(key, landing.value)
    return price_cache_grace() if source is None else source.rules.grace()


class PriceLog:
    """A listener that tells, at DEBUG and in the account's name, what the price getter does.

    It wants nothing while DEBUG is off. For hits that is asked when a price lands: those of a price that
    landed before DEBUG was switched on are not told.
    """

    kinds: frozenset[str] = frozenset({"fetch", "land", "share", "hit"})

    @property
    def wants(self) -> Collection[str]:
        """All that there are lines for, or nothing."""
        return self.kinds if log.isEnabledFor(logging.DEBUG) else ()

    def __call__(self, event: Any) -> None:
        """Write the event's line, if there is one to write."""
        account, symbol, price_type = event.key
        line = self.line(event, in_line(symbol), price_type)
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
    """An account at a broker: a subclass says how to ask for a price, and callers share the asking.

    Args:
        id: names the account in keys and log lines; anything hashable. Accounts with the same id share
            their prices, on purpose: give accounts that see different prices (paper and live) different
            ids.

    Raises `TypeError` for an id that cannot be hashed.

    >>> class Fixed(AccountInterface):
    ...     def _get_instrument_current_price_impl(self, symbol, price_type):
    ...         print(f"asking for the {price_type} price of {symbol}")
    ...         return 984.75
    >>> account = Fixed("an example")
    >>> account.get_instrument_current_price("ASML"), account.get_instrument_current_price(" asml ")
    asking for the bid price of ASML
    (984.75, 984.75)
    """

    def __init__(self, id: Hashable) -> None:  # noqa: A002
        try:
            hash(id)
        except TypeError:
            raise TypeError(f"id: must be hashable, got {id!r}") from None
        self.id = id
        self._workers = Workers()

    @single_flight_ttl(
        key=price_key,
        ttl=_price_ttl,
        grace=_price_grace,
        maxsize=MOST_KEPT,
        flight_timeout=LONGEST_FLIGHT,
        listener=PriceLog(),
        name="get_instrument_current_price",
    )
    def get_instrument_current_price(self, symbol: str, price_type: str = "bid") -> float | None:
        """The current price of an instrument, asked for once for all concurrent callers.

        Args:
            symbol: the instrument; white space around it and its case do not matter.
            price_type: "bid" (the default), "ask", "mid" or "last"; these never serve one another.

        Returns a price that landed at most `PRICE_CACHE_TIME` seconds ago (default 60), with
        `PRICE_CACHE_GRACE` (default 0) so many more while it is renewed or cannot be, or None if the
        broker has none or could not be asked. None is not stored: one of the callers that waited tries once
        more for all of them, and the next caller asks again.

        Raises `ValueError` for an empty symbol or an unknown price type and `TypeError` for a symbol that
        is no string, before anything is asked; `FlightDeadlock` if waiting would never end; and what
        the account raises because it is not set up to ask.

        A request that hangs keeps its own caller for as long as it hangs, and all others for a minute: then
        they make a new one, and a price that comes later is not stored. While four hang already, the others
        get `FlightTimeout`.

        Safe to use from any thread; symbols and accounts do not hold each other up. On an event loop's thread
        it would block that loop: await `aget_instrument_current_price` there.
        """
        _, symbol, price_type = price_key(self, symbol, price_type)
        return self._get_instrument_current_price_impl(symbol, price_type)

    @get_instrument_current_price.twin
    async def aget_instrument_current_price(self, symbol: str, price_type: str = "bid") -> float | None:
        """The same price, for tasks: awaited, and asked for once for all threads and tasks.

        Arguments, return value and what is raised are those of `get_instrument_current_price`. It raises,
        too, `FlightTimeout` in the caller whose own request took longer than a minute while others waited.

        A caller may be cancelled, or put a timeout around it; the others still get the price. When the last
        caller has left, the request continues in its thread, since it cannot be taken back, and its price is
        dropped; a caller that comes meanwhile makes a new one.

        Safe to use on any number of event loops, and with callers in threads.
        """
        _, symbol, price_type = price_key(self, symbol, price_type)
        return await self._aget_instrument_current_price_impl(symbol, price_type)

    @get_instrument_current_price.bulk(max_batch=MOST_AT_ONCE)
    def get_instrument_current_prices(
        self, symbols: Iterable[str], price_type: str = "bid"
    ) -> dict[str, float]:
        """Many current prices: one request for those that are neither stored nor being asked for.

        Args:
            symbols: the instruments; a symbol's case and the white space around it do not matter.
            price_type: "bid" (the default), "ask", "mid" or "last".

        Returns the prices in the order asked and by the symbols as they were spelt. They are those of
        `get_instrument_current_price`, stored one by one, so that either finds what the other has fetched,
        and waits for what it is fetching.

        A symbol without a price is missing, whatever the reason: where `get_instrument_current_price` gives
        None. So the symbols of a request that failed are all missing,
        with one WARNING for the request. Compare the answer with what you asked for, and never take a
        missing price for a price of 0. A single caller that waits for it receives None.

        More than 50 are asked for in several requests, one after another. Raises what
        `get_instrument_current_price` raises, and `TypeError` for a string in place of the symbols. Safe to
        use from any thread; on an event loop's thread await `aget_instrument_current_prices`.
        """
        normal = self._normal(symbols, price_type)
        return self._as_asked(normal, self._get_instrument_current_prices_impl(distinct(normal), price_type))

    @get_instrument_current_price.bulk(max_batch=MOST_AT_ONCE)
    async def aget_instrument_current_prices(
        self, symbols: Iterable[str], price_type: str = "bid"
    ) -> dict[str, float]:
        """The same prices, for tasks: see `get_instrument_current_prices`."""
        normal = self._normal(symbols, price_type)
        found = await self._aget_instrument_current_prices_impl(distinct(normal), price_type)
        return self._as_asked(normal, found)

    def _normal(self, symbols: Iterable[str], price_type: str) -> dict[str, str]:
        return {symbol: price_key(self, symbol, price_type)[1] for symbol in symbols}

    @staticmethod
    def _as_asked(normal: Mapping[str, str], found: Mapping[str, float]) -> dict[str, float]:
        return {symbol: found[one] for symbol, one in normal.items() if found.get(one) is not None}

    @abstractmethod
    def _get_instrument_current_price_impl(self, symbol: str, price_type: str) -> float | None:
        """Ask the broker, once; None where there is no price. The symbol is stripped and in upper case."""

    async def _aget_instrument_current_price_impl(self, symbol: str, price_type: str) -> float | None:
        """Ask the broker from a task: here with the blocking call, in a thread.

        Override it for a broker whose client can be awaited.
        """
        return await self._workers.run(self._get_instrument_current_price_impl, symbol, price_type)

    def _get_instrument_current_prices_impl(
        self, symbols: Sequence[str], price_type: str
    ) -> dict[str, float]:
        """Ask the broker for many prices: here one by one. Symbols without a price are left out.

        Override it for a broker that takes many symbols at once. The symbols are stripped, in upper case
        and distinct. A broker's failure leaves its symbols out, as it makes one price None.
        """
        found = {symbol: self._get_instrument_current_price_impl(symbol, price_type) for symbol in symbols}
        return {symbol: price for symbol, price in found.items() if price is not None}

    async def _aget_instrument_current_prices_impl(
        self, symbols: Sequence[str], price_type: str
    ) -> dict[str, float]:
        """Ask the broker for many prices from a task: here with the blocking call, in a thread."""
        return await self._workers.run(self._get_instrument_current_prices_impl, symbols, price_type)
