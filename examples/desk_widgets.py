"""The desk's ten widgets: how they get their prices from an account, and what that took. No page, no browser.

Half of the widgets are tasks and half are threads. Each asks for every symbol, one after another and in an
order of its own. `examples/desk.py` shows them in the browser.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
from collections import deque
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from command_line import told_as_part
from market_server import MarketServer

from singleflight import Answer
from singleflight.accounts import AccountInterface, AlpacaAccount, Quote

__all__ = ["NAMES", "Cell", "Desk", "Run", "Widget"]

NAMES = (
    *("Watchlist", "Positions", "Order ticket", "Profit and loss", "Risk limits"),
    *("Alerts", "Rebalancer", "Ticker", "Heat map", "Blotter"),
)
MINUTE = 60  # seconds of which the requests are kept, one number each
EVERY = 2.0  # seconds between the desk's own refreshes
SAME = 0.1  # seconds that two looks at the landing of one price may differ by
Price = Answer[float | None]
_getter = AccountInterface.get_instrument_current_price


@dataclass(slots=True)
class Cell:
    """A price on the screen, None for none, and when it landed."""

    price: float | None
    landed: float
    is_bid: bool = True


@dataclass(slots=True)
class Widget:
    """What one widget shows, and how long it waited for that."""

    name: str
    kind: str  # "task" or "thread"
    cells: dict[str, Cell] = field(default_factory=dict)
    waited: float | None = None


@dataclass(slots=True)
class Run:
    """One refresh of all widgets: its requests to the broker, its waits, and how its prices were served."""

    began: int  # the requests that had been made before
    requests: int = 0
    longest: float = 0.0
    served: list[str] = field(default_factory=list)  # "asked", "joined" or "stored", for each price
    ended: bool = False


class Desk:
    """Ten widgets, their accounts, and the market that these ask. To be used on one event loop.

    Args:
        market: the server; it is running.
        accounts: those to choose from. What each shows is kept apart.
        symbols: what each widget shows.
        ttl: seconds that a price lives, which the accounts know from `PRICE_CACHE_TIME`.
    """

    def __init__(
        self, market: MarketServer, accounts: Sequence[AlpacaAccount], symbols: Sequence[str], ttl: float
    ) -> None:
        self.market, self.symbols, self.ttl = market, list(symbols), ttl
        self.accounts = {str(account.id): account for account in accounts}
        self.chosen = next(iter(self.accounts))
        self.decorated = True
        self.repeated = False  # refresh every two seconds
        self.refreshes = 0  # that have ended
        self.runs: dict[bool, Run | None] = {True: None, False: None}  # the last ones with and without
        self.minute: deque[int] = deque([0] * MINUTE, MINUTE)  # requests in each second, this one the last
        self._boards = {name: self._board() for name in self.accounts}
        # By account and symbol: the stored price whose quote was looked at last. Each write is atomic, and
        # widgets that write at the same time write the same.
        self._known: dict[tuple[str, str], Cell] = {}
        self._run: Run | None = None
        self._requests = 0
        self._second = int(time.monotonic())
        self._threads = ThreadPoolExecutor(len(NAMES), "widget")
        self._chance = random.Random(7)

    @property
    def widgets(self) -> list[Widget]:
        """Those of the account that was chosen."""
        return self._boards[self.chosen]

    @property
    def is_refreshing(self) -> bool:
        """Return True while widgets wait for their prices."""
        return self._run is not None and not self._run.ended

    @property
    def last_run(self) -> Run | None:
        """The last refresh, also while it is going on."""
        return self._run

    def age(self, cell: Cell) -> float:
        """The seconds since its price landed."""
        return time.monotonic() - cell.landed

    def choose(self, name: str) -> Awaitable[bool] | None:
        """Show another account from now on; return the refresh that its widgets want, to be awaited.

        At once: a page that is drawn between the click and the refresh shows the account that was chosen.
        """
        if name == self.chosen:
            return None
        self.chosen = name
        return self.refresh()

    async def refresh(self) -> bool:
        """Have all widgets ask for all their prices; return False if they are doing that already."""
        if self.is_refreshing:
            return False
        self.count()
        run = self._run = self.runs[self.decorated] = Run(self._requests)
        account, widgets = self.accounts[self.chosen], self.widgets
        loop = asyncio.get_running_loop()
        bypassed = contextlib.nullcontext() if self.decorated else _getter.bypass()
        try:
            with bypassed:
                await asyncio.gather(
                    *(
                        self._task(number, widget, account, run)
                        if widget.kind == "task"
                        else loop.run_in_executor(self._threads, self._thread, number, widget, account, run)
                        for number, widget in enumerate(widgets)
                    )
                )
        finally:
            run.longest = max(widget.waited or 0.0 for widget in widgets)
            run.ended = True
            self.refreshes += 1
            self.count()
        return True

    def drop(self) -> None:
        """Drop all stored prices, so that the next refresh finds none."""
        _getter.invalidate_where(lambda _: True)

    async def live(self) -> None:
        """Count requests, move the market's prices and refresh the widgets, until it is cancelled."""
        due = 0.0
        while True:
            await asyncio.sleep(0.25)
            self.count()
            if not self.market.weekend:
                self._move()
            if self.repeated and time.monotonic() >= due:
                due = time.monotonic() + EVERY
                await self.refresh()

    def count(self) -> None:
        """Take the requests that the market has seen into the counts."""
        with self.market.lock:
            new = len(self.market.requests)
            self.market.requests.clear()
        now = int(time.monotonic())
        self.minute.extend([0] * min(now - self._second, MINUTE))
        self._second = now
        self.minute[-1] += new
        self._requests += new
        if self._run is not None:
            self._run.requests = self._requests - self._run.began

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _board(self) -> list[Widget]:
        return [Widget(name, "thread" if number % 2 else "task") for number, name in enumerate(NAMES)]

    def _move(self) -> None:
        for symbol in self.symbols:
            price = self.market.prices[symbol]
            self.market.prices[symbol] = round(price * (1 + self._chance.uniform(-2e-4, 2e-4)), 2)

    def _order(self, number: int) -> list[str]:
        first = number % len(self.symbols)
        return self.symbols[first:] + self.symbols[:first]

    async def _task(self, number: int, widget: Widget, account: AlpacaAccount, run: Run) -> None:
        began = time.monotonic()
        for symbol in self._order(number):
            answer = await account.aget_instrument_current_price.answer(symbol)
            if self._is_news(account, symbol, answer):
                self._note(account, symbol, answer, await account.aget_quote(symbol))
            self._show(widget, account, symbol, answer, run)
        widget.waited = time.monotonic() - began

    def _thread(self, number: int, widget: Widget, account: AlpacaAccount, run: Run) -> None:
        began = time.monotonic()
        for symbol in self._order(number):
            answer = account.get_instrument_current_price.answer(symbol)
            if self._is_news(account, symbol, answer):
                self._note(account, symbol, answer, account.get_quote(symbol))
            self._show(widget, account, symbol, answer, run)
        widget.waited = time.monotonic() - began

    def _is_news(self, account: AlpacaAccount, symbol: str, answer: Price) -> bool:
        """Return True for a price whose quote was not looked at. It is stored, too: no request is made."""
        known = self._known.get((str(account.id), symbol))
        is_known = known is not None and abs(known.landed - landing(answer)) < SAME
        return answer.stored and answer.fresh_for > 2 * SAME and not is_known

    def _note(self, account: AlpacaAccount, symbol: str, answer: Price, quote: Quote | None) -> None:
        is_bid = quote is None or quote.bid is not None
        self._known[str(account.id), symbol] = Cell(answer.value, landing(answer), is_bid)

    def _show(self, widget: Widget, account: AlpacaAccount, symbol: str, answer: Price, run: Run) -> None:
        cell = Cell(answer.value, landing(answer))
        if answer.stored:
            cell.is_bid = self._known.get((str(account.id), symbol), cell).is_bid
        widget.cells[symbol] = cell
        how = {"hit": "stored", "stale_hit": "stored", "wait": "joined"}.get(answer.served, "asked")
        run.served.append(how)  # atomic


def landing(answer: Price) -> float:
    """When a price landed, by the monotonic clock."""
    return time.monotonic() - answer.age


if __name__ == "__main__":
    sys.exit(told_as_part(__doc__, "desk.py"))
