"""Alpaca's trading service through alpaca-py: the account, its positions, the clock, assets and orders.

Unlike prices these raise when the broker fails: an order is no better for None, and no positions is not
the same as positions that could not be had.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .. import Landing
from .alpaca_clients import Clients, importing, set_limits
from .alpaca_settings import Settings
from .interface import log
from .workers import Workers

if TYPE_CHECKING:
    from alpaca.trading.models import Asset, Clock, Position, TradeAccount

__all__ = [
    "ACCOUNT_GRACE",
    "ACCOUNT_TTL",
    "ASSET_TTL",
    "AlpacaTrading",
    "check_order",
    "listed",
    "until_the_bell",
]

ACCOUNT_TTL = 5.0
ACCOUNT_GRACE = 25.0  # so that no balance is older than half a minute
_CLOCK_TTL = 60.0
ASSET_TTL = 24 * 60 * 60.0


class AlpacaTrading:
    """The part of an account that talks to the trading service: each method is one request.

    Safe to use from any thread.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        # Not those that fetch prices: a market data service that hangs is not to hold up an order.
        self.workers: Workers = Workers()

    def client(self, kind: str) -> Any:
        """alpaca-py's `TradingClient`: the one for "trading", or the one for "orders"."""
        return self._clients.get(kind, open_trading)

    def account(self) -> TradeAccount:
        """Ask for balances and state."""
        found: TradeAccount = self.client("trading").get_account()
        return found

    def positions(self) -> tuple[Position, ...]:
        """Ask for all open positions."""
        sent = self.client("trading").get("/positions")
        if not isinstance(sent, list):
            raise TypeError(f"positions: expected a list, got a {type(sent).__name__}")
        return tuple(map(position_in, sent))

    def clock(self) -> Clock:
        """Ask for the market's clock."""
        found: Clock = self.client("trading").get_clock()
        return found

    def asset(self, symbol: str) -> Asset:
        """Ask what an instrument is; the symbol is stripped and in upper case."""
        # alpaca-py puts it into the path as it is: BTC/USD would be two parts of it.
        found: Asset = self.client("trading").get_asset(quote(symbol, safe=""))
        return found


def open_trading(kind: str, settings: Settings) -> Any:
    """A new client with its limits set: `kind` is "trading" for what reads, or "orders".

    Orders are sent again only after 429, which says that the broker did not look at it. After 504 the
    first one may have been filled, and a second one would double it.

    Raises `ImportError`, naming the extra, without alpaca-py, and `RuntimeError` with an alpaca-py whose
    limits cannot be set.
    """
    with importing():
        from alpaca.trading.client import TradingClient
    client = TradingClient(
        settings.api_key,
        settings.secret_key,
        settings.oauth_token,
        paper=settings.paper,
        url_override=settings.trading_url,
    )
    if kind == "orders":
        set_limits(client, settings, "trading", retried=(429,), urgent=True)
    else:
        set_limits(client, settings, "trading")
    return client


def position_in(sent: Any) -> Position:
    """One position. An exchange that alpaca-py has never heard of does not cost it."""
    from alpaca.trading.models import Position

    try:
        return Position(**sent)
    except ValueError as error:  # pydantic's
        told: Any = error
        if {each["loc"] for each in told.errors()} != {("exchange",)}:
            raise
        log.info("exchange %r of a position is unknown to alpaca-py", sent["exchange"])
        return Position(**{**sent, "exchange": ""})


def check_order(order: object) -> None:
    """Raise `TypeError` for what is none of alpaca-py's requests."""
    if not callable(getattr(order, "to_request_fields", None)):
        raise TypeError(f"order: expected a request such as MarketOrderRequest, got {type(order).__name__}")


def listed(position: Position) -> str:
    """A position's symbol as the data service lists it: crypto has a slash there."""
    symbol = position.symbol
    if position.asset_class.value != "crypto" or "/" in symbol:
        return symbol
    return re.sub(r"(USD[CT]?|BTC)$", r"/\1", symbol)


def until_the_bell(landing: Landing) -> float:
    """How long a clock may be shown: never past the moment at which the market opens or closes."""
    clock: Any = landing.value
    bell = clock.next_close if clock.is_open else clock.next_open
    left: float = (bell - clock.timestamp).total_seconds() - landing.duration
    return min(_CLOCK_TTL, max(0.0, left))
