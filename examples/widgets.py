"""The widgets of the price board: what a burst of them is, what it took, and what it logged."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from command_line import told_as_part

from singleflight.accounts import AlpacaAccount

__all__ = [
    "KINDS",
    "CountingAccount",
    "LogLines",
    "Run",
    "burst",
    "counted",
    "ready_account",
    "say",
    "shared_out",
    "size_of",
]

KINDS = ("thread", "task")  # what a widget can be
WIDGET = "widget"  # how the names of those threads begin


class CountingAccount(AlpacaAccount):
    """Counts what it asks the broker for: with --live there is no server to count it."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.asked = 0
        self._counting = threading.Lock()

    def _get_instrument_current_price_impl(self, symbol: str, price_type: str) -> float | None:
        with self._counting:
            self.asked += 1
        return super()._get_instrument_current_price_impl(symbol, price_type)

    def _get_instrument_current_prices_impl(
        self, symbols: Sequence[str], price_type: str
    ) -> dict[str, float]:
        with self._counting:
            self.asked += len({"/" in symbol for symbol in symbols})  # stocks, crypto
        return super()._get_instrument_current_prices_impl(symbols, price_type)


@dataclass
class Run:
    """What one burst took: requests made, seconds in all and for each widget, and prices not had."""

    name: str
    requests: int
    wall: float
    waits: list[float]
    missing: int


def ready_account(
    symbols: Sequence[str], url: str | None, kind: type[CountingAccount] = CountingAccount
) -> CountingAccount:
    """An account that has made its clients, so that no run pays for it; without a URL, Alpaca's own."""
    account = kind(1, retries=0) if url is None else kind(1, "key", "secret", url=url, retries=0)
    for symbol in {"/" in symbol: symbol for symbol in symbols}.values():
        account._get_instrument_current_price_impl(symbol, "bid")
    account.asked = 0
    return account


def burst(
    name: str,
    account: AlpacaAccount,
    options: argparse.Namespace,
    *,
    together: Callable[[], object] = lambda: None,
    told: Callable[..., object] | None = None,
) -> Run:
    """All widgets at once, each asking for every symbol, one after another or in one call.

    `together` is called when all are ready, and may wait for others that are to start with them. `told`
    receives the progress in place of `say`.
    """
    told = told or say
    widgets, mode = options.widgets, options.mode
    symbols: list[str] = options.symbols
    as_threads, as_tasks = shared_out(widgets, mode)
    start = threading.Barrier(len(as_threads) + bool(as_tasks) + 1)
    waits = [0.0] * widgets
    prices: list[float | None] = []  # appending is atomic
    interrupted = threading.Event()

    def order(number: int) -> list[str]:
        first = number % len(symbols)  # each widget has an order of its own
        return symbols[first:] + symbols[:first]

    def all_are_ready() -> bool:
        """Wait for the others; False if there was no start, which the main thread tells."""
        try:
            start.wait(30)
        except threading.BrokenBarrierError:
            return False
        return True

    def widget(number: int) -> None:
        if not all_are_ready():
            return
        began = time.perf_counter()
        if options.bulk:
            found = account.get_instrument_current_prices(order(number))
            prices.extend(map(found.get, symbols))
        else:
            prices.extend(map(account.get_instrument_current_price, order(number)))
        waits[number] = time.perf_counter() - began

    async def task(number: int) -> None:
        began = time.perf_counter()
        if options.bulk:
            found = await account.aget_instrument_current_prices(order(number))
            prices.extend(map(found.get, symbols))
        for symbol in () if options.bulk else order(number):
            if interrupted.is_set():
                return
            prices.append(await account.aget_instrument_current_price(symbol))
        waits[number] = time.perf_counter() - began

    async def tasks() -> None:
        if all_are_ready():  # holds up a loop on which nothing runs yet
            await asyncio.gather(*map(task, as_tasks))

    threads = [
        threading.Thread(target=widget, args=(number,), name=f"{WIDGET}-{number}", daemon=True)
        for number in as_threads
    ]
    if as_tasks:
        threads.append(threading.Thread(target=lambda: asyncio.run(tasks()), name="tasks", daemon=True))
    for thread in threads:
        thread.start()
    total = widgets * len(symbols)
    told(f"{name}, {mode}: {size_of(widgets, symbols)} ...")
    together()
    try:
        start.wait(30)
        began = time.perf_counter()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)
                told(f"{name}, {mode}: {len(prices)} of {total} prices ...", passing=True)
    except KeyboardInterrupt:
        interrupted.set()
        raise
    wall = time.perf_counter() - began
    return Run(name, 0, wall, waits, prices.count(None))


def shared_out(widgets: int, mode: str) -> tuple[range, range]:
    """The numbers of the widgets that are threads, and of those that are tasks."""
    threads = {"threads": widgets, "tasks": 0, "mixed": (widgets + 1) // 2}[mode]
    return range(threads), range(threads, widgets)


def size_of(widgets: int, symbols: list[str]) -> str:
    return f"{counted(widgets, 'widget')} x {counted(len(symbols), 'symbol')}"


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


class LogLines(logging.Handler):
    """Collects the widgets' log lines, by what they are, for as long as its `with` block lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: dict[str, list[str]] = {kind: [] for kind in KINDS}

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == threading.main_thread().ident:
            return  # no widget's: the clients are made there
        # What tasks do is logged on their loop's thread, or on one that makes a request for them.
        kind = "thread" if str(record.threadName).startswith(WIDGET) else "task"
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        self.lines[kind].append(f"{stamp},{int(record.msecs):03d} {record.levelname} {record.getMessage()}")

    def __enter__(self) -> Self:
        log = logging.getLogger("singleflight.accounts")
        log.addHandler(self)
        log.setLevel(logging.DEBUG)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("singleflight.accounts").removeHandler(self)


def say(text: str, passing: bool = False) -> None:
    """Progress: one line that is written over on a terminal; elsewhere plain lines, without passing ones."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text and not passing:
        print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(told_as_part(__doc__, "price_board.py"))
