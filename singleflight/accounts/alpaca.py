"""An account at Alpaca, on alpaca-py's own clients."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import single_flight_ttl
from .alpaca_clients import Clients
from .alpaca_data import AlpacaPrices
from .alpaca_settings import Settings, checked_wait
from .alpaca_stream import PriceStream
from .alpaca_trading import (
    ACCOUNT_GRACE,
    ACCOUNT_TTL,
    ASSET_TTL,
    AlpacaTrading,
    check_order,
    listed,
    until_the_bell,
)
from .interface import AccountInterface, check_price_type, normal_symbol, price_cache_grace, price_cache_time
from .readings import LONGEST_FLIGHT, MOST_AT_ONCE, MOST_KEPT, Quote, Rules, by_kind, kind_of
from .workers import Workers, together

if TYPE_CHECKING:
    from alpaca.trading.models import Asset, Clock, Order, Position, TradeAccount
    from alpaca.trading.requests import OrderRequest

__all__ = ["AlpacaAccount"]


def _account_key(account: AccountInterface) -> Hashable:
    return account.id


def _asset_key(account: AccountInterface, symbol: str) -> tuple[Hashable, str]:
    return account.id, normal_symbol(symbol)


class AlpacaAccount(AccountInterface):
    """An account at Alpaca: prices of stocks, crypto and options, and trading.

    Crypto is spelt BTC/USD or, as positions do, BTCUSD, an option AAPL261218C00200000; all else is a stock.

    Args:
        id: names the account in keys and log lines. Accounts with the same id share their prices and
            balances, on purpose: give a paper account and a live one different ids.
        api_key, secret_key: default to the environment variables `APCA_API_KEY_ID` and
            `APCA_API_SECRET_KEY`, read now. Crypto prices need none; all else does.
        url: replaces both service origins (market data and trading), such as `http://127.0.0.1:8000`.
            Default None: Alpaca's own.
        paper: True for a paper account (the default): its trading service is asked. Prices do not depend
            on it.
        timeout: seconds that a request waits for a connection, and then for each next part of the answer
            (default 10; alpaca-py itself would wait for ever).
        retries: how often a request that is answered 429 or 504 is sent again (default 3).
        retry_wait: seconds between these attempts (default 3).
        no_price_ttl: for how many seconds the broker's word that there is no price is believed, in which no
            request is made for it (default 5, at most the ttl of prices; 0: not at all). That is a side of
            the quote that is empty, an unknown or refused symbol, or a login that is refused.
        max_price_age: how many seconds old a price may be by the broker's own time (default None: any age).
            One that is older is no price.
        fallback: what stands in for a price that the broker does not have, in this order: "last" (trade),
            "close" (of the latest day), "bid", "ask", "mid". Prices come from snapshots then, one request for
            all types (default: nothing stands in).
        oauth_token: a login in place of `api_key` and `secret_key`.
        data_url, trading_url: replace one service origin each (default: `url`).
        sandbox: True to have market data from the broker's sandbox (default False).
        feed: where prices of stocks come from: "iex", "sip", "delayed_sip", "otc", "boats" or "overnight"
            (default None: the best of the subscription); `option_feed`: "indicative" or "opra".
        price_grace: for how many seconds past its ttl a price is served at once while it is renewed, and
            while that fails (default None: `PRICE_CACHE_GRACE`, or 0). `entry` shows its age and state.
        gather: for how many seconds a request for one price waits for others, which travel with it, such as
            0.01 (default 0: each is a request of its own). So do symbols that were asked for within the last
            two ttls and whose prices have run out, up to 50 in all.
        requests_per_minute: how many requests are sent in any minute at most, to market data and to trading
            each, by all accounts of one key pair in this process (default None: as many as the service
            takes). Of several numbers the smallest holds, while an account with it lives that has made
            requests.
        stream_url: replaces the origin of the streams, such as `ws://127.0.0.1:8001`.
        currency: of the prices of stocks, such as "EUR" (default None: US dollars).

    Raises `TypeError` or `ValueError`, naming the argument, for what cannot be right.

    A failure at the broker makes the price None and is logged at WARNING with its cause. It is not stored;
    the broker's word that there is no price is, for `no_price_ttl`, and is logged once until it changes. What
    is wrong on this side raises when a price is asked for: `ValueError` for a stock without credentials,
    `ImportError` without alpaca-py, `RuntimeError` with one that cannot be given a timeout.

    Safe to use from any thread, and from tasks: alpaca-py has no client to await, so that
    `aget_instrument_current_price` makes its request in a thread of the account's own, of which there are
    at most 64. alpaca-py is imported and its client made, once per account, when the first price is asked
    for; a forked child makes its own. With the default limits a request ends within the minute that a
    flight may take; with longer ones those who wait may send another while the first still runs.

    >>> account = AlpacaAccount("paper", " key", "secret")
    Traceback (most recent call last):
    ValueError: api_key: expected printable ASCII without white space around it
    >>> account = AlpacaAccount("paper", "key", "secret", timeout=5)
    >>> account.get_instrument_current_price("ASML")  # doctest: +SKIP
    984.75
    """

    def __init__(
        self,
        id: Hashable,  # noqa: A002
        api_key: str | None = None,
        secret_key: str | None = None,
        *,
        url: str | None = None,
        paper: bool = True,
        timeout: float = 10.0,
        retries: int = 3,
        retry_wait: float = 3.0,
        no_price_ttl: float = 5.0,
        max_price_age: float | None = None,
        fallback: Iterable[str] = (),
        oauth_token: str | None = None,
        data_url: str | None = None,
        trading_url: str | None = None,
        sandbox: bool = False,
        feed: str | None = None,
        option_feed: str | None = None,
        currency: str | None = None,
        price_grace: float | None = None,
        stream_url: str | None = None,
        gather: float = 0.0,
        requests_per_minute: int | None = None,
    ) -> None:
        super().__init__(id)
        settings = Settings.checked(
            api_key=api_key,
            secret_key=secret_key,
            url=url,
            paper=paper,
            timeout=timeout,
            retries=retries,
            retry_wait=retry_wait,
            no_price_ttl=no_price_ttl,
            max_price_age=max_price_age,
            fallback=fallback,
            oauth_token=oauth_token,
            data_url=data_url,
            trading_url=trading_url,
            sandbox=sandbox,
            feed=feed,
            option_feed=option_feed,
            currency=currency,
            price_grace=price_grace,
            stream_url=stream_url,
            gather=gather,
            requests_per_minute=requests_per_minute,
        )
        self.paper: bool = settings.paper
        self._clients = Clients(id, settings)
        rules = Rules(
            price_cache_time,
            settings.no_price_ttl,
            settings.max_price_age,
            settings.fallback,
            price_cache_grace if settings.price_grace is None else partial(float, settings.price_grace),
        )
        self._prices = AlpacaPrices(id, self._clients, rules, settings.gather)
        self._trading = AlpacaTrading(self._clients)
        self._apart = Workers()  # for the other kinds of instruments in a call for many prices

    def __repr__(self) -> str:
        return f"AlpacaAccount({self.id!r}, paper={self.paper})"

    # -- prices: what `AccountInterface` asks its subclasses for -------------------------------------

    def _get_instrument_current_price_impl(self, symbol: str, price_type: str) -> float | None:
        return self._prices.one(symbol, price_type)

    def _get_instrument_current_prices_impl(
        self, symbols: Sequence[str], price_type: str
    ) -> dict[str, float]:
        return self._prices.many(symbols, price_type)

    def get_instrument_current_prices(  # type: ignore[override]  # pyright: ignore
        self, symbols: Iterable[str], price_type: str = "bid"
    ) -> dict[str, float]:
        """See `AccountInterface.get_instrument_current_prices`.

        Stocks, crypto and options are asked for at the same time, and do not wait for one another; nor do the
        requests for more than 50 of a kind.
        """
        symbols, parts = self._parts(symbols, price_type)
        one = super().get_instrument_current_prices
        if len(parts) < 2:
            return one(symbols, price_type)
        first, *others = parts
        started = [self._apart.start(one, some, price_type) for some in others]
        found = one(first, price_type)
        for other in started:
            found.update(other.result())
        return {symbol: found[symbol] for symbol in symbols if symbol in found}

    async def aget_instrument_current_prices(  # type: ignore[override]  # pyright: ignore
        self, symbols: Iterable[str], price_type: str = "bid"
    ) -> dict[str, float]:
        """`get_instrument_current_prices` for tasks."""
        symbols, parts = self._parts(symbols, price_type)
        one = super().aget_instrument_current_prices
        if len(parts) < 2:
            return await one(symbols, price_type)
        found: dict[str, float] = {}
        for part in await together(one(some, price_type) for some in parts):
            found.update(part)
        return {symbol: found[symbol] for symbol in symbols if symbol in found}

    def _parts(self, symbols: Any, price_type: str) -> tuple[Any, list[list[str]]]:
        """The symbols, and those that are asked for apart; none where the loader is to refuse them.

        Each kind of instrument is a part. So is each request's worth of symbols that are not stored.
        """
        if isinstance(symbols, (str, bytes)) or not isinstance(symbols, Iterable):
            return symbols, []
        symbols = list(symbols)
        if not all(isinstance(symbol, str) and symbol.strip() for symbol in symbols):
            return symbols, []
        check_price_type(price_type)
        kinds = by_kind(symbols)
        for kind in kinds:
            self._clients.require(kind)  # before any of them is asked for
        parts: list[list[str]] = []
        for some in kinds.values():
            missing: list[str] = []
            if len(some) > MOST_AT_ONCE:
                entry = self.get_instrument_current_price.entry
                missing = [symbol for symbol in some if entry(symbol, price_type) is None][MOST_AT_ONCE:]
            later = set(missing)
            parts.append([symbol for symbol in some if symbol not in later])
            parts += [missing[at : at + MOST_AT_ONCE] for at in range(0, len(missing), MOST_AT_ONCE)]
        return symbols, parts

    def get_position_prices(self, price_type: str = "bid") -> dict[str, float]:
        """The current prices of all that is held.

        Args:
            price_type: "bid" (the default), "ask", "mid" or "last".

        Returns the prices by the positions' symbols as the broker spells them, such as "BTCUSD"; a position
        without a price is missing. They are those of `get_instrument_current_price`. Raises what
        `get_positions` and `get_instrument_current_prices` raise.

        Safe to use from any thread. On an event loop's thread await `aget_position_prices` instead.
        """
        check_price_type(price_type)
        held = {position.symbol: listed(position) for position in self.get_positions()}
        found = self.get_instrument_current_prices(list(held.values()), price_type)
        return {symbol: found[one] for symbol, one in held.items() if one in found}

    async def aget_position_prices(self, price_type: str = "bid") -> dict[str, float]:
        """`get_position_prices` for tasks."""
        check_price_type(price_type)
        held = {position.symbol: listed(position) for position in await self.aget_positions()}
        found = await self.aget_instrument_current_prices(list(held.values()), price_type)
        return {symbol: found[one] for symbol, one in held.items() if one in found}

    def get_quote(self, symbol: str) -> Quote | None:
        """The bid and the ask of one moment, with the broker's own time.

        Args:
            symbol: the instrument; white space around it and its case do not matter.

        Prices of type "bid", "ask" and "mid" come from this quote, and it lives as long as they do. Returns
        a `Quote` with None for a side that is empty; None where there is no quote, for the reasons for which
        `get_instrument_current_price` gives None, and raises what that raises.

        Safe to use from any thread. On an event loop's thread await `aget_quote` instead.
        """
        return self._prices.quote(normal_symbol(symbol))

    async def aget_quote(self, symbol: str) -> Quote | None:
        """`get_quote` for tasks."""
        return await self._workers.run(self._prices.quote, normal_symbol(symbol))

    def put_quote(
        self,
        symbol: str,
        bid: float | None,
        ask: float | None,
        *,
        time: datetime | None = None,
        feed: str | None = None,
    ) -> bool:
        """Store a quote that came another way, with the checks of the getters.

        Args:
            symbol: the instrument; white space around it and its case do not matter.
            bid, ask: its sides. One that is not a positive finite number is empty: its price is dropped.
            time: the broker's own; a quote that is older than the one that is stored is left out.
            feed: where it came from.

        A request that is in progress keeps its own callers; its prices are not stored. Returns True if there
        was a price to store. Raises `TypeError` or `ValueError` for a bad symbol, and `TypeError` for a bad
        `time`.

        Safe to use from any thread and task.
        """
        return self._prices.put(normal_symbol(symbol), {"bid": bid, "ask": ask}, time, feed)

    def put_trade(self, symbol: str, price: float | None, *, time: datetime | None = None) -> bool:
        """Store the last trade that came another way; see `put_quote`."""
        return self._prices.put(normal_symbol(symbol), {"last": price}, time, None)

    def stream_prices(self, symbols: Iterable[str], *, data_timeout: float | None = None) -> PriceStream:
        """Have the prices of these instruments from the broker's streams, in a thread of its own.

        Args:
            symbols: the instruments: stocks, crypto, options, or some of each.
            data_timeout: connect again after so many seconds without data (default None: only when the
                connection ends).

        Fills what the getters find, as `put_quote` does, so no request is made for what is streamed. It
        connects again whenever the connection ends; prices meanwhile end with their ttl, and are asked for
        then. It ends by itself where the broker refuses it.

        Returns a `PriceStream` with `stop()`, `wait()` and `error`; or use it in a `with` statement. Raises
        `ValueError` without keys (a token will not do), for a feed without a stream, and where the account
        has an origin of its own for data and no `stream_url`; `TypeError` or `ValueError` for bad symbols.

        Safe to use from any thread. With the stream comes an import of alpaca-py, over a second long.
        """
        if isinstance(symbols, (str, bytes)) or not isinstance(symbols, Iterable):
            raise TypeError(f"symbols: expected many, got {symbols!r}")
        if data_timeout is not None and checked_wait("data_timeout", data_timeout) == 0:
            raise ValueError("data_timeout: must be more than 0 seconds; None for no such limit")
        kinds: dict[str, list[str]] = {}
        for symbol in symbols:
            kind, listed_as = kind_of(normal_symbol(symbol))
            kinds.setdefault(kind, []).append(listed_as)
        settings = self._clients.settings
        if not kinds:
            raise ValueError("symbols: cannot be empty")
        if not settings.api_key:
            raise ValueError("api_key and secret_key: a stream needs them")
        if settings.data_url is not None and settings.stream_url is None:
            raise ValueError("stream_url: needed where the origin for data is not Alpaca's own")

        def take(message: dict[str, Any], time: datetime) -> None:
            if message["T"] == "t":
                self.put_trade(message["S"], message.get("p"), time=time)
            else:
                feed = settings.feed or "iex"
                self.put_quote(message["S"], message.get("bp"), message.get("ap"), time=time, feed=feed)

        return PriceStream(self.id, settings, kinds, take, data_timeout)

    # -- the account --------------------------------------------------------------------------------

    @single_flight_ttl(
        key=_account_key,
        ttl=ACCOUNT_TTL,
        grace=ACCOUNT_GRACE,
        maxsize=MOST_KEPT,
        flight_timeout=LONGEST_FLIGHT,
        name="get_account",
    )
    def get_account(self) -> TradeAccount:
        """The account's balances and state, asked for once for all concurrent callers.

        Stored for 5 seconds. For 25 more it is served at once while one request renews it, so that a broker
        that is away for a while empties no screen; nothing older than half a minute is served.

        An order that this account submits invalidates it, and also a request in progress: no caller that
        comes after `submit_order` was called gets the state of before.

        Returns alpaca-py's `TradeAccount`. All callers share the object: to change it, take its
        `model_copy()`.

        Raises alpaca-py's `APIError`, or what requests raises, where the broker cannot be asked, and
        `FlightTimeout` and `FlightDeadlock` as `get_instrument_current_price` does. Failures are
        not stored; one of the callers that waited tries once more for all of them.

        Safe to use from any thread. On an event loop's thread await `aget_account` instead.
        """
        return self._trading.account()

    @get_account.twin
    async def aget_account(self) -> TradeAccount:
        """`get_account` for tasks: awaited, and asked for once for all threads and tasks."""
        return await self._trading.workers.run(self._trading.account)

    # -- positions ----------------------------------------------------------------------------------

    @single_flight_ttl(
        key=_account_key,
        ttl=0,
        maxsize=MOST_KEPT,
        flight_timeout=LONGEST_FLIGHT,
        name="get_positions",
    )
    def get_positions(self) -> tuple[Position, ...]:
        """All open positions, as they are now: callers at the same time share a request.

        Nothing is stored: a caller that comes after the answer asks again. An order that this account submits
        keeps later callers from joining a request that was made before it.

        Returns a tuple of alpaca-py's `Position`, empty only where the broker says that there are none.
        Those who waited together share it and what is in it.

        Raises what `get_account` raises. A failure is never an empty answer: that would tell a caller
        that everything has been sold.
        """
        return self._trading.positions()

    @get_positions.twin
    async def aget_positions(self) -> tuple[Position, ...]:
        """`get_positions` for tasks: awaited, and asked for once for all threads and tasks."""
        return await self._trading.workers.run(self._trading.positions)

    # -- the clock, and what can be traded ----------------------------------------------------------

    @single_flight_ttl(
        key=_account_key,
        ttl=until_the_bell,
        maxsize=MOST_KEPT,
        flight_timeout=LONGEST_FLIGHT,
        name="get_clock",
    )
    def get_clock(self) -> Clock:
        """Return True if the market is open, and when it opens and closes next.

        Stored for a minute, but not past the moment at which it opens or closes: `is_open` is never out
        of date by more than the request took. `timestamp` is when the broker was asked.

        Returns alpaca-py's `Clock`, one object for all callers. Raises what `get_account` raises.
        """
        return self._trading.clock()

    @get_clock.twin
    async def aget_clock(self) -> Clock:
        """`get_clock` for tasks: awaited, and asked for once for all threads and tasks."""
        return await self._trading.workers.run(self._trading.clock)

    @single_flight_ttl(
        key=_asset_key,
        ttl=ASSET_TTL,
        maxsize=MOST_KEPT,
        flight_timeout=LONGEST_FLIGHT,
        name="get_asset",
    )
    def get_asset(self, symbol: str) -> Asset:
        """What the broker says about an instrument: its name, whether it can be traded, in which steps.

        Args:
            symbol: the instrument; white space around it and its case do not matter.

        Stored for a day. `invalidate` it to see a change before that.

        Returns alpaca-py's `Asset`, one object for all callers. Raises what `get_account` raises, with the
        status 404 for an unknown symbol; `ValueError` for an empty one, and `TypeError` for one that is no
        string, before anything is asked.
        """
        return self._trading.asset(normal_symbol(symbol))

    @get_asset.twin
    async def aget_asset(self, symbol: str) -> Asset:
        """`get_asset` for tasks: awaited, and asked for once for all threads and tasks."""
        return await self._trading.workers.run(self._trading.asset, normal_symbol(symbol))

    # -- orders -------------------------------------------------------------------------------------

    def submit_order(self, order: OrderRequest) -> Order:
        """Send an order. Each call sends one: two that look the same are two orders.

        Args:
            order: one of alpaca-py's requests, such as `MarketOrderRequest`.

        The balances and positions are invalidated twice, before the order is sent and when its answer has
        come or has failed to come. Before: from then on the broker may fill it at any moment, and no caller
        is to get, or to wait for, the state until now. After: a request in between may have been answered
        before the order was seen.

        An order that is answered 429 is sent again, as often as `retries` says; no other one is, since the
        broker may have taken it.

        Returns alpaca-py's `Order`. Raises `TypeError` for what is no such request, before anything is done,
        and `APIError` where the broker refuses it. After a timeout, a lost
        connection or a 5xx it may have been taken all the same: with a `client_order_id` of your own in the
        request you can look for it, and sending it again with the same one cannot double it.

        Safe to use from any thread. On an event loop's thread await `asubmit_order` instead.
        """
        check_order(order)
        client = self._trading.client("orders")
        self._invalidate_balances()
        try:
            sent: Order = client.submit_order(order)
            return sent
        finally:
            self._invalidate_balances()

    async def asubmit_order(self, order: OrderRequest) -> Order:
        """`submit_order` for tasks. A task that is cancelled while it waits does not take the order back."""
        # All of it in the thread: balances are invalidated at the end of the request, also when no task waits
        # for that end any more.
        return await self._trading.workers.run(self.submit_order, order)

    def _invalidate_balances(self) -> None:
        self.get_account.invalidate()
        self.get_positions.invalidate()
