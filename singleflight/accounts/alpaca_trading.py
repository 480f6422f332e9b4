"""Alpaca's trading service through alpaca-py: the account, its positions, the clock, assets and orders.

Unlike prices these raise when the broker fails: an order is no better for None, and no positions is not
the same as positions that could not be had.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .. import Landing, single_flight_ttl
from .alpaca_clients import MISSING, Limits, set_limits
from .interface import LONGEST_FLIGHT, MOST_KEPT, AccountInterface, normal_symbol
from .workers import Workers

if TYPE_CHECKING:
    from alpaca.trading.models import Asset, Clock, Order, Position, TradeAccount
    from alpaca.trading.requests import OrderRequest

__all__ = ["AlpacaTrading", "open_trading"]

_ACCOUNT_TTL = 5.0
_ACCOUNT_GRACE = 25.0  # so that no balance is older than half a minute
_CLOCK_TTL = 60.0
_ASSET_TTL = 24 * 60 * 60.0


def open_trading(
    kind: str, api_key: str | None, secret_key: str | None, url: str | None, limits: Limits, paper: bool
) -> Any:
    """A new client with its limits set: `kind` is "trading" for what reads, or "orders".

    Orders are sent again only after 429, which says that the broker did not look at it. After 504 the
    first one may have been filled, and a second one would double it.

    Raises `ImportError`, naming the extra, without alpaca-py, and `RuntimeError` with an alpaca-py whose
    limits cannot be set.
    """
    try:
        from alpaca.trading.client import TradingClient
    except ImportError as error:
        raise ImportError(f"{MISSING} ({error})") from error
    client = TradingClient(api_key, secret_key, paper=paper, url_override=url)
    if kind == "orders":
        set_limits(client, limits, retried=(429,))
    else:
        set_limits(client, limits)
    return client


def _account_key(account: AlpacaTrading) -> Hashable:
    return account.id


def _asset_key(account: AlpacaTrading, symbol: str) -> tuple[Hashable, str]:
    return account.id, normal_symbol(symbol)


def _until_the_bell(landing: Landing) -> float:
    """How long a clock may be shown: never past the moment at which the market opens or closes."""
    clock: Any = landing.value
    bell = clock.next_close if clock.is_open else clock.next_open
    left: float = (bell - clock.timestamp).total_seconds() - landing.duration
    return min(_CLOCK_TTL, max(0.0, left))


class AlpacaTrading(AccountInterface):
    """The part of `AlpacaAccount` that talks to the trading service."""

    def __init__(self, id: Hashable) -> None:  # noqa: A002
        super().__init__(id)
        # Not those that fetch prices: a market data service that hangs is not to hold up an order.
        self._trading_workers = Workers()

    @abstractmethod
    def _trading_client(self, kind: str) -> Any:
        """alpaca-py's `TradingClient`: the one for "trading", or the one for "orders"."""

    # -- the account --------------------------------------------------------------------------------

    @single_flight_ttl(
        key=_account_key,
        ttl=_ACCOUNT_TTL,
        grace=_ACCOUNT_GRACE,
        maxsize=MOST_KEPT,
        flight_timeout=LONGEST_FLIGHT,
        name="get_account",
    )
    def get_account(self) -> TradeAccount:
        """The account's balances and state, asked for once however many ask.

        Kept for 5 seconds. For 25 more it is served at once while one request renews it, so that a broker
        that is away for a while empties no screen; nothing older than half a minute is served.

        An order that this account submits makes it forgotten, and also what is on its way at that moment:
        nobody who asks after `submit_order` was called gets what was so before.

        Returns alpaca-py's `TradeAccount`. All callers share the object: to change it, take its
        `model_copy()`.

        Raises alpaca-py's `APIError`, or what requests raises, where the broker cannot be asked, and
        `FlightTimeout` and `FlightDeadlock` as `get_instrument_current_price` does. Failures are not kept;
        of those who waited one tries once more for all of them.

        Safe to use from any thread. On an event loop's thread await `aget_account` instead.
        """
        return self._get_account_impl()

    @get_account.twin
    async def aget_account(self) -> TradeAccount:
        """`get_account` for tasks: awaited, and asked for once however many threads and tasks ask."""
        return await self._trading_workers.run(self._get_account_impl)

    def _get_account_impl(self) -> TradeAccount:
        found: TradeAccount = self._trading_client("trading").get_account()
        return found

    # -- positions ----------------------------------------------------------------------------------

    @single_flight_ttl(
        key=_account_key,
        ttl=0,
        maxsize=MOST_KEPT,
        flight_timeout=LONGEST_FLIGHT,
        name="get_positions",
    )
    def get_positions(self) -> tuple[Position, ...]:
        """All open positions, as they are now: those who ask at the same time share a request.

        Nothing is kept: whoever comes after the answer asks again. An order that this account submits
        keeps later callers from joining a request that was made before it.

        Returns a tuple of alpaca-py's `Position`, empty only where the broker says that there are none.
        Those who waited together share it and what is in it.

        Raises what `get_account` raises. A failure is never an empty answer: that would tell a caller
        that everything has been sold.
        """
        return self._get_positions_impl()

    @get_positions.twin
    async def aget_positions(self) -> tuple[Position, ...]:
        """`get_positions` for tasks: awaited, and asked for once however many threads and tasks ask."""
        return await self._trading_workers.run(self._get_positions_impl)

    def _get_positions_impl(self) -> tuple[Position, ...]:
        return tuple(self._trading_client("trading").get_all_positions())

    # -- the clock, and what can be traded ----------------------------------------------------------

    @single_flight_ttl(
        key=_account_key,
        ttl=_until_the_bell,
        maxsize=MOST_KEPT,
        flight_timeout=LONGEST_FLIGHT,
        name="get_clock",
    )
    def get_clock(self) -> Clock:
        """Whether the market is open, and when it opens and closes next.

        Kept for a minute, but not past the moment at which it opens or closes: `is_open` is never out
        of date by more than the request took. `timestamp` is when the broker was asked.

        Returns alpaca-py's `Clock`, one object for all callers. Raises what `get_account` raises.
        """
        return self._get_clock_impl()

    @get_clock.twin
    async def aget_clock(self) -> Clock:
        """`get_clock` for tasks: awaited, and asked for once however many threads and tasks ask."""
        return await self._trading_workers.run(self._get_clock_impl)

    def _get_clock_impl(self) -> Clock:
        found: Clock = self._trading_client("trading").get_clock()
        return found

    @single_flight_ttl(
        key=_asset_key,
        ttl=_ASSET_TTL,
        maxsize=MOST_KEPT,
        flight_timeout=LONGEST_FLIGHT,
        name="get_asset",
    )
    def get_asset(self, symbol: str) -> Asset:
        """What the broker says about an instrument: its name, whether it can be traded, in which steps.

        Args:
            symbol: the instrument; white space around it and its case do not matter.

        Kept for a day. `invalidate` it to see a change before that.

        Returns alpaca-py's `Asset`, one object for all callers. Raises what `get_account` raises, with the
        status 404 for an unknown symbol; `ValueError` for an empty one, and `TypeError` for one that is no
        string, before anything is asked.
        """
        return self._get_asset_impl(normal_symbol(symbol))

    @get_asset.twin
    async def aget_asset(self, symbol: str) -> Asset:
        """`get_asset` for tasks: awaited, and asked for once however many threads and tasks ask."""
        return await self._trading_workers.run(self._get_asset_impl, normal_symbol(symbol))

    def _get_asset_impl(self, symbol: str) -> Asset:
        # alpaca-py puts it into the path as it is: BTC/USD would be two parts of it.
        found: Asset = self._trading_client("trading").get_asset(quote(symbol, safe=""))
        return found

    # -- orders -------------------------------------------------------------------------------------

    def submit_order(self, order: OrderRequest) -> Order:
        """Send an order. Each call sends one: two that look the same are two orders.

        Args:
            order: one of alpaca-py's requests, such as `MarketOrderRequest`.

        What is known of the account is forgotten twice, before the order is sent and when its answer is
        there or has failed to come. Before: from then on the broker may fill it at any moment, and nobody
        is to be served, or to wait for, what was so until now. After: what was asked for in between may have
        been answered before the order was seen.

        An order that is answered 429 is sent again, as often as `retries` says; no other one is, since the
        broker may have taken it.

        Returns alpaca-py's `Order`. Raises `APIError` where the broker refuses it. After a timeout, a lost
        connection or a 5xx it may have been taken all the same: with a `client_order_id` of your own in the
        request you can look for it, and sending it again with the same one cannot double it.

        Safe to use from any thread. On an event loop's thread await `asubmit_order` instead.
        """
        client = self._trading_client("orders")
        self._forget_balances()
        try:
            sent: Order = client.submit_order(order)
            return sent
        finally:
            self._forget_balances()

    async def asubmit_order(self, order: OrderRequest) -> Order:
        """`submit_order` for tasks. A task that is cancelled while it waits does not take the order back."""
        # All of it in the thread: what is known is forgotten at the end of the request, also where nobody
        # waits for that end any more.
        return await self._trading_workers.run(self.submit_order, order)

    def _forget_balances(self) -> None:
        self.get_account.invalidate()
        self.get_positions.invalidate()
