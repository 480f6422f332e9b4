"""The price board's --outage: what users see while the broker fails, without and with grace."""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from board_screen import Screen
from command_line import told_as_part
from market_server import MarketServer

from singleflight import SingleFlightFunction, single_flight_ttl
from singleflight.accounts import AlpacaAccount

RETRIED = 1.0  # seconds after which a renewal that failed is tried again, at the earliest
Say = Callable[..., None]


class View:
    """One way to keep a price, and what was seen of it."""

    def __init__(self, account: AlpacaAccount, symbol: str, ttl: float, grace: float) -> None:
        self.symbol = symbol
        self.fetches: list[float] = []  # appending is atomic
        self.missed = self.slow = self.looks = 0

        def fetch(symbol: str) -> float | None:
            self.fetches.append(time.monotonic())
            return account._get_instrument_current_price_impl(symbol, "bid")

        name = "with grace" if grace else "without grace"
        self.price: SingleFlightFunction[[str], float | None] = single_flight_ttl(
            fetch, ttl=ttl, grace=grace, name=name
        )

    def look(self, widgets: int) -> Look:
        """Have all widgets look at once, in threads that are under way when this returns."""
        return Look(self, widgets, len(self.fetches), self.price.entry(self.symbol))


@dataclass
class Look:
    """All widgets look at the price once."""

    view: View
    widgets: int
    fetched: int  # how many requests there were before
    before: Any  # the entry that there was
    seen: list[tuple[float | None, float]] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.threads = [threading.Thread(target=self._widget, daemon=True) for _ in range(self.widgets)]
        for thread in self.threads:
            thread.start()

    def _widget(self) -> None:
        began = time.monotonic()
        price = self.view.price(self.view.symbol)
        self.seen.append((price, time.monotonic() - began))

    def cells(self) -> list[str]:
        """What the widgets saw, how old it was, the longest wait, and the requests that were made."""
        for thread in self.threads:
            thread.join(30)
        prices = [price for price, _ in self.seen]
        wait = max(wait for _, wait in self.seen)
        view = self.view
        view.looks += self.widgets
        view.missed += prices.count(None)
        view.slow += sum(wait > 0.05 for _, wait in self.seen)
        missing = prices.count(None)
        shown = next((f"${price:,.2f}" for price in prices if price is not None), "no price")
        if 0 < missing < self.widgets:
            shown = f"{missing} none"
        age = ""
        if shown != "no price":
            old = self.before is not None and self.before.value in prices
            age = f"{self.before.age:.{self.before.age < 10:d}f} s" if old else "new"
            age += " stale" * (old and self.before.state == "stale")
        return [shown, age, f"{wait:.2f}", str(len(view.fetches) - self.fetched)]


def show_outage(
    screen: Screen,
    server: MarketServer,
    account: AlpacaAccount,
    symbol: str,
    widgets: int,
    outage: float,
    say: Say,
) -> None:
    """Let the server fail for so many seconds and print, as it goes, what the widgets see."""
    ttl, tick, grace = outage / 3, outage / 6, 2 * outage + RETRIED
    fails, works = outage / 2, outage * 3 / 2
    end = works + RETRIED + ttl
    views = [View(account, symbol, ttl, 0), View(account, symbol, ttl, grace)]
    screen.line(f"{widgets} widgets look at {symbol} every {tick:.2g} s. A price lives {ttl:.2g} s.", "bold")
    screen.line(f"The server fails for {outage:g} s. One side has a grace of {grace:g} s.")
    screen.line()
    side = f" {'users see':>10} {'age':>11} {'wait':>4} {'req':>3}"
    heads = "".join(f" |{name:^{len(side)}}" for name in ("without grace", "with grace"))
    screen.line(f"{'':12}{heads.rstrip()}")
    screen.line(f"{'time':>6}  {'':4}" + f" |{side}" * 2)
    with Warnings() as warnings:
        start = time.monotonic()
        number = 0
        while (at := number * tick) < end:
            say(f"outage: {at:.1f} of {end:.1f} s ...", passing=True)
            time.sleep(max(0.0, start + at - time.monotonic()))
            server.prices[symbol] = round(server.prices[symbol] + 0.25, 2)
            server.outage = fails <= at < works
            looks = [view.look(widgets) for view in views]
            time.sleep(max(0.0, start + at + tick - 0.01 - time.monotonic()))  # renewals take a moment
            rows = [look.cells() for look in looks]
            number = max(number + 1, math.ceil((time.monotonic() - start) / tick))
            say("")
            told = "DOWN" if server.outage else "up"
            screen.line(
                f"{at:4.1f} s  {told:4}"
                + "".join(f" | {seen:>10} {age:>11} {wait:>4} {made:>3}" for seen, age, wait, made in rows)
            )
    screen.line()
    for view, name in zip(views, ("without grace", "with grace"), strict=True):
        screen.line(
            f"{name + ':':15}{view.missed} of {view.looks} looks found no price, "
            f"{view.slow} had to wait; {len(view.fetches)} requests"
        )
    if warnings.seen:
        screen.line()
        screen.line(f"From the log, {sum(warnings.seen.values())} warnings in all:", "bold")
        for line, times in warnings.seen.items():
            screen.paragraph(f"{times:3} x {line}", "  ", "      ")


class Warnings(logging.Handler):
    """Counts the library's warnings by their text, for as long as its `with` block lasts."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        self.seen[line] = self.seen.get(line, 0) + 1

    def __enter__(self) -> Self:
        logging.getLogger("singleflight").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("singleflight").removeHandler(self)


if __name__ == "__main__":
    sys.exit(told_as_part(__doc__, "price_board.py --outage"))
