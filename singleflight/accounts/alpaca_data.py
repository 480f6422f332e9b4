"""Alpaca's market data through alpaca-py: prices as the account's getters ask for them.

alpaca-py is imported inside `open_feed`, when the first price is asked for: it takes over a second.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from .. import KeyedLocks, SingleFlightError, current_flight
from .alpaca_clients import Clients, cause_of, importing, set_limits
from .alpaca_settings import Settings
from .interface import PRICE_TYPES, AccountInterface, in_line, log
from .readings import MOST_KEPT, NoPrice, Quote, Reading, Readings, Rules, by_kind, kind_of

__all__ = ["AlpacaPrices"]

_getter: Any = AccountInterface.get_instrument_current_price  # whose keys begin with an account's id

_MOST_DUE = 500  # prices that are remembered as asked for, to be brought along; see `AlpacaPrices.due`
_AROUND = re.compile(r"[\s\"'`{}\[\]():;,]+")  # what may stand around a symbol in a server's text


class AlpacaPrices(Readings):
    """The part of an account that asks for prices: of stocks, of crypto and of options.

    Safe to use from any thread.
    """

    def __init__(self, account: Hashable, clients: Clients, rules: Rules, gather: float = 0.0) -> None:
        super().__init__(account, rules)
        self._gather = gather
        self._gathered = self.gathered(gather) if gather else None
        self._clients = clients
        # By price type and symbol: why there was no price when it was last said. Written by the flights of
        # these prices. If several threads write at the same time, a line may be lost or logged twice.
        self._said: dict[tuple[str, str], str] = {}
        self._putting = KeyedLocks(max_idle=0)  # by symbol
        self._timer = time.monotonic
        # By symbol and price type, the oldest first: when it was last asked for and not stored. Only filled
        # if calls are gathered; written by the flights of these prices. If several threads write at the same
        # time, no more is lost than a place in a request.
        self._asked: dict[tuple[str, str], float] = {}

    def __reduce__(self) -> tuple[type[AlpacaPrices], tuple[Any, ...]]:
        """A copy gathers by itself, and has said nothing yet."""
        return AlpacaPrices, (self.account, self._clients, self.rules, self._gather)

    def feed(self, kind: str) -> Feed:
        """The client for the prices of "stock", "crypto" or "option"."""
        return self._clients.get(kind, open_feed)

    def one(self, symbol: str, price_type: str) -> float | None:
        """A price, of a reading that is there or is asked for now.

        What the broker does wrong is logged and gives None; what we do wrong raises.
        """
        if current_flight() is None:  # bypassed, or switched off: nothing is to be shared
            return self._price(symbol, price_type, self.ask([symbol], price_type).get(symbol))
        self._forget_spent([symbol], price_type)
        return self._price(symbol, price_type, self._single(symbol, price_type))

    def many(self, symbols: Sequence[str], price_type: str) -> dict[str, float]:
        """Many prices: one request for each kind of instrument among them.

        What has no price is left out: each such symbol is logged as `one` would log it, and a request that
        fails is logged once and leaves out its own symbols, not those of another one. A symbol that the
        broker refuses by name (HTTP 400) is set aside, and the others are asked for again: one that is
        misspelt is not to blank a whole screen.
        """
        kinds = by_kind(symbols)
        for kind in kinds:
            self.feed(kind)  # what is wrong on this side raises before anything is asked
        readings: dict[str, Reading] = {}
        for some in kinds.values():
            if current_flight() is None:
                readings.update(self.ask(some, price_type))
            else:
                self._forget_spent(some, price_type)
                readings.update(self.readings(some, price_type))
        found = {symbol: self._price(symbol, price_type, readings.get(symbol)) for symbol in symbols}
        return {symbol: price for symbol, price in found.items() if price is not None}

    def quote(self, symbol: str) -> Quote | None:
        """Both sides with their time."""
        reading = self._single(symbol, "bid")
        self._note(symbol, "bid", reading)
        return None if reading is None else reading.quote()

    def _single(self, symbol: str, price_type: str) -> Reading | None:
        """Return one reading. If it is not stored, and calls are gathered, its request is for several."""
        if self._gathered is not None and self.reading.entry(symbol, price_type) is None:
            return self._gathered(symbol, price_type)
        return self.reading(symbol, price_type)

    def due(self, symbols: list[str], price_type: str, most: int) -> list[str]:
        """Other symbols of this kind that were asked for lately, and whose prices have run out since.

        A screen that shows fifty prices asks for the first one, waits, and asks for the next. Once it has
        asked for all of them, the first request after their ttl has the others along. "Lately" is within two
        ttls: hits are not seen here, so a price that is asked for all the time is seen once in each ttl.
        A symbol that is not asked for any more, or that the broker refuses, drops out.
        """
        kind, what = kind_of(symbols[0])[0], self.what(price_type)
        requested: set[Hashable] = {flight.key for flight in self.reading.flights()}
        taken: set[Hashable] = {(self.account, kind_of(symbol)[1], what) for symbol in symbols}
        if taken <= requested:
            return []  # nothing is to be requested: these are waited for
        taken |= requested
        since = self._timer() - 2 * self.rules.ttl()
        found: list[str] = []
        for (symbol, its_type), asked in self._asked.copy().items():
            if asked <= since:
                self._asked.pop((symbol, its_type), None)
                continue
            if len(found) == most:
                break
            its_kind, listed = kind_of(symbol)
            key = self.account, listed, self.what(its_type)
            if (its_kind, key[2]) == (kind, what) and key not in taken and self._is_due(symbol, its_type):
                taken.add(key)
                found.append(symbol)
        return found

    def _is_due(self, symbol: str, price_type: str) -> bool:
        """Return True if the next caller of this price would have to wait for a request, or a renewal."""
        entry = _getter.entry(SimpleNamespace(id=self.account), symbol, price_type)
        if entry is not None and entry.state != "stale":
            return False
        self._forget_spent([symbol], price_type)
        return self.reading.entry(symbol, price_type) is None

    def _note(self, symbol: str, price_type: str, reading: Reading | None) -> None:
        """Remember that it was asked for; see `due`."""
        if self._gathered is None or reading is None:
            return
        self._asked.pop((symbol, price_type), None)
        if reading.problem is None:
            self._asked[symbol, price_type] = self._timer()
            for each in list(self._asked.copy())[:-_MOST_DUE]:
                self._asked.pop(each, None)

    def put(self, symbol: str, numbers: Mapping[str, Any], time: datetime | None, feed: str | None) -> bool:
        """Take a quote or trade from elsewhere, such as a stream; see `AlpacaAccount.put_quote`.

        Whatever of it is a price is stored. The prices that it does not have are dropped where the reading
        before it had them, so that no two are of different quotes.
        """
        listed = kind_of(symbol)[1]
        if time is not None and not isinstance(time, datetime):
            raise TypeError(f"time: expected a datetime, got {time!r}")
        if time is not None and time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        # One after another: no two prices of a symbol are to be of different quotes.
        with self._putting(listed):
            return self._put(symbol, listed, numbers, time, feed)

    def _put(
        self,
        symbol: str,
        listed: str,
        numbers: Mapping[str, Any],
        time: datetime | None,
        feed: str | None,
    ) -> bool:
        its_kind = "last" if "last" in numbers else "bid"
        entry = self.reading.entry(symbol, its_kind)
        before = None if entry is None else entry.value
        times = {} if time is None else dict.fromkeys(numbers, time)
        concerned = {(listed, price_type) for price_type in ("bid", "ask", "mid", "last")}
        if before is not None:
            known = before.times.get(its_kind)
            if time is not None and known is not None and time < known:
                return False  # a later one is there
            concerned |= before.taken
            if before.problem is None:  # a snapshot has numbers that this one leaves as they are
                numbers = {**before.numbers, **numbers}
                times = {**before.times, **times}
        reading = Reading(listed, numbers, self.rules, times, feed)
        if its_kind == "last" and self.what("last") == "trade":
            concerned = {each for each in concerned if each[1] == "last"}
        elif self.what("bid") == "quote":
            concerned = {each for each in concerned if each[1] != "last"}
        self.reading.put(reading, symbol, its_kind)
        me = SimpleNamespace(id=self.account)
        for spelt, price_type in concerned:
            if reading.has(price_type):
                _getter.put(reading.best(price_type)[0], me, spelt, price_type)
                reading.taken.add((spelt, price_type))
            else:
                _getter.invalidate(me, spelt, price_type)
        return bool(reading.taken)

    def ask(self, symbols: list[str], price_type: str) -> dict[str, Reading]:
        """Make one request, and more where the broker refuses symbols by name; see `Readings.ask`."""
        kind = kind_of(symbols[0])[0]
        feed = self.feed(kind)
        asked = {symbol: kind_of(symbol)[1] for symbol in symbols}
        what = self.what(price_type)
        found: Any = None
        readings: dict[str, Reading] = {}
        while found is None and asked:
            try:
                found = feed.asking(what)(list(dict.fromkeys(asked.values())))
            except SingleFlightError:
                raise  # ours, not the broker's
            except Exception as error:
                cause = cause_of(error)
                refused = {
                    symbol: one for symbol, one in asked.items() if one in refused_by(error, asked.values())
                }
                if not refused:
                    if getattr(error, "status_code", None) == 400:  # perhaps because of one of them
                        for symbol, each in itertools.product(asked, PRICE_TYPES):
                            self._asked.pop((symbol, each), None)
                    self._complain(price_type, list(asked), cause)
                    return readings
                self._say(price_type, list(refused), cause)
                for symbol, one in refused.items():
                    readings[symbol] = Reading(one, {}, self.rules, problem=cause)
                    del asked[symbol]
        for symbol, one in asked.items():
            try:
                readings[symbol] = reading_in(
                    (found or {}).get(one), one, self.what(price_type), self.rules, feed.terms.get("feed")
                )
            except Exception as error:
                self._complain(price_type, [symbol], cause_of(error))
        return readings

    def _price(self, symbol: str, price_type: str, reading: Reading | None) -> float | None:
        """Take a price from a reading; say why there is none, once until that changes."""
        self._note(symbol, price_type, reading)
        if reading is None:  # it failed, and that was logged
            return None
        try:
            price, its_type = reading.best(price_type)
        except NoPrice as cause:
            self._say(price_type, [symbol], str(cause))
            return None
        reading.taken.add((symbol, price_type))
        if price_type != "last" and self.rules.grace() > 0:
            self._forget_stale(symbol, price_type)
        if its_type == price_type:
            self._said.pop((price_type, symbol), None)
        elif self._said.get((price_type, symbol)) != its_type:
            self._said[price_type, symbol] = its_type
            text = "[Account %s] No %s price for %s: its %s price stands in"
            log.info(text, self.account, price_type, in_line(symbol), its_type)
        return price

    def _forget_spent(self, symbols: Iterable[str], price_type: str) -> None:
        """Drop the readings that are not to be believed any more about this type of price.

        A reading without such a price is believed for `no_price_ttl`, by the account that asked. One with it
        gives it once, and as long as the getter has another price of it: where a price was invalidated a new
        one is wanted, and the others of its quote go with it.
        """
        for symbol in symbols:
            entry = self.reading.entry(symbol, price_type)
            reading = None if entry is None else entry.value
            if entry is None or reading is None:
                continue
            is_mine = reading.rules is self.rules
            if reading.problem is not None:
                spent = not is_mine
            elif not reading.has(price_type):
                spent = not is_mine or entry.age >= min(self.rules.no_price_ttl, entry.ttl)
            else:
                taken = reading.taken
                spent = (symbol, price_type) in taken or (
                    bool(taken) and not any(map(self._is_stored, taken))
                )
            if spent:
                self.reading.invalidate(symbol, price_type)
                for other, its_type in reading.taken - {(symbol, price_type)}:
                    _getter.invalidate(SimpleNamespace(id=self.account), other, its_type)

    def _forget_stale(self, symbol: str, price_type: str) -> None:
        """Drop the other prices of an older quote that are past their ttl: there is a later one now."""
        me = SimpleNamespace(id=self.account)
        for other in {"bid", "ask", "mid"} - {price_type}:
            entry = _getter.entry(me, symbol, other)
            if entry is not None and entry.state == "stale":
                _getter.invalidate(me, symbol, other)

    def _is_stored(self, taken: tuple[str, str]) -> bool:
        return _getter.entry(SimpleNamespace(id=self.account), *taken) is not None

    def _say(self, price_type: str, symbols: list[str], cause: str) -> None:
        """Log why there is no price, but not again for those of which it was the last thing said."""
        new = [symbol for symbol in symbols if self._said.get((price_type, symbol)) != cause]
        if new:
            if len(self._said) > MOST_KEPT:
                self._said.clear()
            self._said.update(dict.fromkeys(((price_type, symbol) for symbol in new), cause))
            self._complain(price_type, new, cause)

    def _complain(self, price_type: str, symbols: list[str], cause: str) -> None:
        text = "[Account %s] Failed to fetch %s price for %s: %s"
        log.warning(text, self.account, price_type, _named(symbols), cause)


def _named(symbols: list[str]) -> str:
    shown = in_line(", ".join(symbols))
    return shown if len(symbols) == 1 else f"{len(symbols)} symbols ({shown})"


@dataclass(frozen=True, slots=True)
class Feed:
    """One of alpaca-py's data clients."""

    kind: str
    client: Any
    requests: Any  # alpaca-py's module of them
    terms: Mapping[str, str]  # feed and currency, for each request

    def asking(self, what: str) -> Callable[[list[str]], Any]:
        """What makes one request for a "quote", "trade" or "snapshot" of each symbol.

        It gives a mapping from symbols, without those that the broker left out, of what it sent.
        """
        latest = "" if what == "snapshot" else "latest_"
        request = getattr(self.requests, f"{self.kind}_{latest}{what}_request".title().replace("_", ""))
        method = getattr(self.client, f"get_{self.kind}_{latest}{what}")
        return lambda symbols: method(request(symbol_or_symbols=symbols, **self.terms))


def open_feed(kind: str, settings: Settings) -> Feed:
    """A new client with its limits set: `kind` is "stock" or "crypto".

    Raises `ImportError`, naming the extra, without alpaca-py, and `RuntimeError` with an alpaca-py whose
    limits cannot be set.
    """
    with importing():
        from alpaca.data import historical, requests
    made = {
        "stock": historical.StockHistoricalDataClient,
        "crypto": historical.CryptoHistoricalDataClient,
        "option": historical.OptionHistoricalDataClient,
    }[kind]
    client: Any = made(
        settings.api_key,
        settings.secret_key,
        settings.oauth_token,
        raw_data=True,
        url_override=settings.data_url,
        sandbox=settings.sandbox,
    )
    set_limits(client, settings, "data")

    terms = {
        "stock": {"feed": settings.feed, "currency": settings.currency},
        "option": {"feed": settings.option_feed},
    }.get(kind, {})
    return Feed(kind, client, requests, {name: value for name, value in terms.items() if value})


def refused_by(error: Exception, symbols: Iterable[str]) -> Collection[str]:
    """Which symbols the broker refuses: all by 401 or 403, those that it names by 400; empty if it failed.

    >>> error = Exception("invalid symbol: AS.ML")
    >>> error.status_code = 400
    >>> refused_by(error, ["AS", "AS.ML", "AAPL"])
    ['AS.ML']
    """
    status = getattr(error, "status_code", None)
    if status in (401, 403):
        return list(symbols)
    if status != 400:
        return []
    named = {word.rstrip(".") for word in _AROUND.split(str(error))}
    return [symbol for symbol in symbols if symbol in named]


def reading_in(raw: Any, symbol: str, what: str, rules: Rules, feed: str | None = None) -> Reading:
    """What the broker's answer says of one symbol. Raises `ValidationError` where it makes no sense."""
    if raw is None:
        return Reading(symbol, {}, rules, problem="unknown symbol")
    numbers: dict[str, Any] = {}
    times: dict[str, datetime] = {}
    if what == "snapshot":
        parts = {"quote": raw.get("latestQuote"), "trade": raw.get("latestTrade")}
        parts["bar"] = raw.get("dailyBar") or raw.get("prevDailyBar")
    else:
        parts = {what: raw}
    wrong: Exception | None = None
    for part, sent in parts.items():
        if sent is not None:
            try:
                read_into(numbers, times, part, symbol, sent)
            except ValueError as error:
                wrong = error
    if wrong is not None and not numbers:
        raise wrong
    return Reading(symbol, numbers, rules, times, feed)


def read_into(numbers: dict[str, Any], times: dict[str, datetime], part: str, symbol: str, sent: Any) -> None:
    """Add the numbers of a quote, trade or bar, and their times, as alpaca-py understands them."""
    from alpaca.data.models.bars import Bar
    from alpaca.data.models.quotes import Quote as AlpacaQuote
    from alpaca.data.models.trades import Trade

    if part == "quote":
        quote = AlpacaQuote(symbol, sent)
        new: dict[str, float] = {"bid": quote.bid_price, "ask": quote.ask_price}
        time = quote.timestamp
    elif part == "trade":
        trade = Trade(symbol, sent)
        new, time = {"last": trade.price}, trade.timestamp
    else:
        bar = Bar(symbol, sent)
        new, time = {"close": bar.close}, bar.timestamp
    numbers.update(new)
    # A time without a zone is taken for UTC.
    times.update(dict.fromkeys(new, time if time.tzinfo else time.replace(tzinfo=UTC)))
