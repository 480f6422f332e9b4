"""What a broker said about one instrument, and the prices in it.

A *reading* is one answer: the two sides of a quote, or a trade, with the time that the broker gave it. Bid,
ask and mid come from one reading, so that they are of one moment and never cross. A reading is stored in
addition to the prices, and for as long as they are. Each kind of price is taken from it once: a price that
was invalidated is asked for anew.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

from .. import Landing, single_flight_ttl
from .gate import LONGEST_PAUSE

__all__ = ["LONGEST_FLIGHT", "MOST_AT_ONCE", "MOST_KEPT", "NoPrice", "Quote", "Reading", "Readings", "Rules"]

MOST_KEPT = 16_384  # values of all accounts together: a market's symbols, not only a screen's
MOST_AT_ONCE = 50  # symbols in one request
LONGEST_FLIGHT = 60.0  # seconds: no healthy request takes that long, and its price would be a minute old
# A request may wait at the gate before that, and no second one is to be made meanwhile.
_LONGEST_READING = LONGEST_PAUSE + LONGEST_FLIGHT

_CONTRACT = re.compile(r"[A-Z]{1,6}\d{6}[CP]\d{8}")  # an option: root, day, call or put, strike
_PAIR = re.compile(r"([A-Z]{2,}?)(USD[CT]?|BTC)")  # crypto as positions spell it; a stock has five letters
_SHARE_CLASS = re.compile(r"([A-Z]{1,5})[/-]([A-Z])")


def kind_of(symbol: str) -> tuple[str, str]:
    """The kind of an instrument ("stock", "crypto" or "option"), and its symbol as the data service lists it.

    >>> kind_of("AAPL"), kind_of("BRK/B"), kind_of("BRK-B")
    (('stock', 'AAPL'), ('stock', 'BRK.B'), ('stock', 'BRK.B'))
    >>> kind_of("BTC/USD"), kind_of("BTCUSD"), kind_of("AAPL261218C00200000")
    (('crypto', 'BTC/USD'), ('crypto', 'BTC/USD'), ('option', 'AAPL261218C00200000'))
    """
    if found := _SHARE_CLASS.fullmatch(symbol):
        return "stock", f"{found[1]}.{found[2]}"
    if "/" in symbol:
        return "crypto", symbol
    if _CONTRACT.fullmatch(symbol):
        return "option", symbol
    if len(symbol) > 5 and (found := _PAIR.fullmatch(symbol)):
        return "crypto", f"{found[1]}/{found[2]}"
    return "stock", symbol


def by_kind(symbols: Iterable[str]) -> dict[str, list[str]]:
    """The symbols of each kind of instrument among them, in their order."""
    kinds: dict[str, list[str]] = {}
    for symbol in symbols:
        kinds.setdefault(kind_of(symbol.strip().upper())[0], []).append(symbol)
    return kinds


class NoPrice(Exception):
    """The broker answered, but not with a price; the message says with what."""


@dataclass(frozen=True, slots=True)
class Quote:
    """Both sides of one quote, None where a side is empty.

    `time` is the broker's own, of the quote and not of the request; `feed` the feed that was asked for, None
    for the one that the service chooses.
    """

    symbol: str
    bid: float | None
    ask: float | None
    time: datetime | None
    feed: str | None = None

    @property
    def mid(self) -> float | None:
        """The middle of both sides, None without one of them."""
        return None if self.bid is None or self.ask is None else self.bid / 2 + self.ask / 2


@dataclass(frozen=True, slots=True)
class Rules:
    """An account's rules about prices; all in seconds.

    `ttl` gives the lifetime of a price that lands now. `no_price_ttl` is for how long the broker's word that
    there is no price is believed; `max_price_age` how old a price may be by its own time, None for any age;
    `fallback` names the types that stand in, in this order, for one that has no price. `grace` gives for how
    long past its ttl a price that lands now may be served while it cannot be renewed.
    """

    ttl: Callable[[], float]
    no_price_ttl: float = 5.0
    max_price_age: float | None = None
    fallback: tuple[str, ...] = ()
    grace: Callable[[], float] = lambda: 0.0


@dataclass(slots=True, eq=False)
class Reading:
    """One answer about one instrument.

    Args:
        symbol: as the data service lists it.
        numbers: what stands for each type but "mid", as it came.
        rules: those of the account that asked.
        times: the broker's own, for each of the numbers.
        feed: which was asked for.
        problem: why there is no price at all, if so: the broker does not know the symbol, or refuses it.
    """

    symbol: str
    numbers: Mapping[str, Any]
    rules: Rules
    times: Mapping[str, datetime] = field(default_factory=dict)
    feed: str | None = None
    problem: str | None = None
    # The prices that were taken from it, by symbol (as asked) and type; added to by the flights of these.
    taken: set[tuple[str, str]] = field(default_factory=set)

    def price(self, price_type: str) -> float:
        """A positive finite number of just this type, or `NoPrice`."""
        if self.problem is not None:
            raise NoPrice(self.problem)
        sides = ("bid", "ask") if price_type == "mid" else (price_type,)
        quoted: dict[str, Any] = {side: self.numbers.get(side) for side in sides}
        price = sum(number / len(sides) if is_price(number) else -math.inf for number in quoted.values())
        if price <= 0:
            shown = ", ".join(f"{side} {number!r}" for side, number in quoted.items())
            raise NoPrice(f"not a price: {shown}")
        if self.good_for(price_type) <= 0:
            raise NoPrice(f"too old: of {self.times[sides[0]]}")
        return price

    def best(self, price_type: str) -> tuple[float, str]:
        """A price of this type or of the first that stands in for it, and its type; or `NoPrice`."""
        try:
            return self.price(price_type), price_type
        except NoPrice as cause:
            for other in self.rules.fallback:
                with suppress(NoPrice):
                    return self.price(other), other
            raise cause

    def has(self, price_type: str) -> bool:
        """Return True if it holds a price of this type, or one that stands in for it."""
        try:
            self.best(price_type)
        except NoPrice:
            return False
        return True

    def good_for(self, price_type: str) -> float:
        """For how many more seconds the own time of a price is recent enough."""
        time = self.times.get("bid" if price_type == "mid" else price_type)
        if self.rules.max_price_age is None or time is None:
            return math.inf
        return self.rules.max_price_age - (datetime.now(UTC) - time).total_seconds()

    def lifetime(self) -> float:
        """For how many seconds it is stored, from now."""
        ttl = self.rules.ttl()
        return min(ttl, self.rules.no_price_ttl) if self.problem is not None else ttl

    def quote(self) -> Quote | None:
        """Both sides; None where there is no quote that is recent enough."""
        if self.problem is not None or self.good_for("bid") <= 0:
            return None
        sides: list[Any] = [self.numbers.get(side) for side in ("bid", "ask")]
        bid, ask = (number if is_price(number) else None for number in sides)
        return Quote(self.symbol, bid, ask, self.times.get("bid"), self.feed)


def is_price(number: Any) -> bool:
    """Return True for a positive finite number."""
    return (
        isinstance(number, (int, float))
        and not isinstance(number, bool)
        and math.isfinite(number)
        and number > 0
    )


def _reading_key(readings: Any, symbol: str, price_type: str) -> tuple[Hashable, str, str]:
    return readings.account, kind_of(symbol)[1], readings.what(price_type)


def what_of(price_type: str) -> str:
    """The answer that has prices of this type."""
    return "trade" if price_type == "last" else "quote"


def _reading_ttl(landing: Landing) -> float:
    reading: Any = landing.value
    return float(reading.lifetime())


class Readings(ABC):
    """The part of an account that asks for readings, and shares them by the account's id.

    Args:
        account: the account's id.
        rules: for the readings that it asks for.

    Safe to use from any thread.
    """

    def __init__(self, account: Hashable, rules: Rules) -> None:
        self.account = account
        self.rules = rules

    def what(self, price_type: str) -> str:
        """The answer to ask for: where other types may stand in, one that has them all."""
        return "snapshot" if self.rules.fallback else what_of(price_type)

    @single_flight_ttl(
        key=_reading_key,
        ttl=_reading_ttl,
        maxsize=MOST_KEPT,
        flight_timeout=_LONGEST_READING,
        name="readings",
    )
    def reading(self, symbol: str, price_type: str) -> Reading | None:
        """The reading that has prices of this type; None if the request failed, which was logged."""
        return self.ask([symbol], price_type).get(symbol)

    @reading.bulk(max_batch=MOST_AT_ONCE)
    def readings(self, symbols: Iterable[str], price_type: str) -> dict[str, Reading]:
        """Many of one kind of instrument, without those whose request failed."""
        return self.ask(list(symbols), price_type)

    def gathered(self, window: float) -> Callable[[str, str], Reading | None]:
        """`reading`, whose calls within so many seconds of each other are one request for each kind.

        What is left of a request's room is for those that are `due`. Each call of this makes a function of
        its own; keep it.
        """

        @single_flight_ttl(
            key=partial(_reading_key, self), ttl=0, maxsize=MOST_KEPT, name="gathered readings"
        )
        def reading(symbol: str, price_type: str) -> Reading | None:
            return self.reading(symbol, price_type)

        @reading.bulk(max_batch=MOST_AT_ONCE, gather=window)
        def readings(symbols: Iterable[str], price_type: str) -> dict[str, Reading]:
            found: dict[str, Reading] = {}
            for some in by_kind(symbols).values():
                others = self.due(some, price_type, MOST_AT_ONCE - len(some))
                found.update(self.readings([*some, *others], price_type))
            return {symbol: found[symbol] for symbol in symbols if symbol in found}

        return reading

    @abstractmethod
    def due(self, symbols: list[str], price_type: str, most: int) -> list[str]:
        """Other symbols, at most so many, that a request for these may bring along."""

    @abstractmethod
    def ask(self, symbols: list[str], price_type: str) -> dict[str, Reading]:
        """Ask the broker about instruments of one kind; log what fails, and leave it out."""


@dataclass(frozen=True, slots=True)
class Source:
    """The stored reading that a price is of: for how many more seconds it is stored, and by which rules."""

    left: float
    rules: Rules


def source_of(key: tuple[Hashable, str, str], price: Any) -> Source | None:
    """The source of a price of the getter; None where its account has no readings, or another one by now."""
    account, symbol, price_type = key
    readings: Any = Readings.reading
    for what in (what_of, lambda _: "snapshot"):
        entry = readings.entry(SimpleNamespace(account=account, what=what), symbol, price_type)
        if entry is not None and entry.value.has(price_type):
            its_price, its_type = entry.value.best(price_type)
            if its_price == price:
                left = min(entry.ttl - entry.age, entry.value.good_for(its_type))
                return Source(max(0.0, left), entry.value.rules)
    return None
