"""A trading dashboard's burst: widgets that all ask for the same prices, without and with the decorator.

By default it starts its own market-data server on loopback, which speaks Alpaca's wire format; alpaca-py's
real client talks to it over HTTP. With APCA_API_KEY_ID and APCA_API_SECRET_KEY set, --live talks to Alpaca.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

sys.path.insert(0, str(Path(__file__).parent))
from market_server import MarketServer

from singleflight.accounts import AccountInterface, AlpacaAccount

SYMBOLS = ["ASML", "AAPL", "MSFT", "NVDA", "TSLA"]


def main() -> int:
    options = parsed()
    if options.live and not (os.environ.get("APCA_API_KEY_ID") and os.environ.get("APCA_API_SECRET_KEY")):
        print("--live needs APCA_API_KEY_ID and APCA_API_SECRET_KEY in the environment.", file=sys.stderr)
        return 2
    os.environ["PRICE_CACHE_TIME"] = str(options.ttl)
    say("importing alpaca-py ...")
    with market(options) as server:
        url = None if server is None else server.url
        keys = (None, None) if options.live else ("key", "secret")
        account = AlpacaAccount(1, *keys, url=url, retries=0)
        account._client("data")  # made here, so that neither run pays for it
        getter = AccountInterface.get_instrument_current_price
        rows = []
        for name in ("undecorated", "decorated"):
            if server is not None:
                server.reset()
            say(f"{name}: {options.widgets} widgets x {len(options.symbols)} symbols ...")
            lines = LastLines()
            calls = getter.stats().calls
            with contextlib.ExitStack() as stack:
                if name == "undecorated":
                    stack.enter_context(getter.bypass())
                stack.enter_context(lines)
                wall, waits = burst(account, options.widgets, options.symbols)
            if server is not None:
                requests = len(server.requests)
            else:
                decorated = name == "decorated"
                requests = (
                    getter.stats().calls - calls if decorated else options.widgets * len(options.symbols)
                )
            rows.append((name, requests, wall, waits))
        say("")
    show(rows, options, lines.lines)
    return 0


def burst(account: AlpacaAccount, widgets: int, symbols: list[str]) -> tuple[float, list[float]]:
    """All widgets at once, each asking for every symbol; the wall time and each widget's, in seconds."""
    start = threading.Barrier(widgets + 1)
    waits = [0.0] * widgets

    def widget(number: int) -> None:
        start.wait(30)
        began = time.perf_counter()
        first = number % len(symbols)  # each widget has an order of its own
        for symbol in symbols[first:] + symbols[:first]:
            account.get_instrument_current_price(symbol)
        waits[number] = time.perf_counter() - began

    threads = [threading.Thread(target=widget, args=(number,)) for number in range(widgets)]
    for thread in threads:
        thread.start()
    start.wait(30)
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began, waits


def show(
    rows: list[tuple[str, int, float, list[float]]], options: argparse.Namespace, lines: list[str]
) -> None:
    where = "Alpaca" if options.live else f"a loopback server with {options.latency:g} s of latency"
    print(f"{options.widgets} widgets x {len(options.symbols)} symbols, at once, against {where}\n")
    print(f"{'':12} {'requests':>9} {'wall time':>10}   {'a widget waits (min / median / max)':>36}")
    for name, requests, wall, waits in rows:
        spread = " / ".join(f"{x:.2f}" for x in (min(waits), statistics.median(waits), max(waits)))
        print(f"{name:12} {requests:9} {wall:8.2f} s   {spread + ' s':>36}")
    if lines:
        print("\nFrom the decorated run's log:")
        for line in picked(lines):
            print(f"  {line}")


def picked(lines: list[str]) -> list[str]:
    """One line of each kind that is there, in order."""
    marks = ("Fetching", "Cached new", "Another thread", "Returning cached", "Failed")
    found = [next((line for line in lines if mark in line), None) for mark in marks]
    return sorted(line for line in found if line is not None)


class LastLines(logging.Handler):
    """Collects the getter's log lines for as long as its `with` block lasts."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        self.lines.append(f"{stamp},{int(record.msecs):03d} {record.levelname} {record.getMessage()}")

    def __enter__(self) -> Self:
        log = logging.getLogger("singleflight.accounts")
        log.addHandler(self)
        log.setLevel(logging.DEBUG)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("singleflight.accounts").removeHandler(self)


@contextlib.contextmanager
def market(options: argparse.Namespace) -> Iterator[MarketServer | None]:
    if options.live:
        yield None
        return
    with MarketServer(options.latency, options.rate_limit, options.failures) as server:
        for number, symbol in enumerate(options.symbols):
            server.prices.setdefault(symbol, 100.0 + number)
        yield server


def say(text: str) -> None:
    """Progress: one line that is written over on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--widgets", type=at_least_one, default=10, help="how many ask at once (default 10)")
    parser.add_argument("--symbols", default=",".join(SYMBOLS), help="comma-separated (default: five stocks)")
    parser.add_argument(
        "--latency", type=not_negative, default=0.2, help="of the server, in seconds (default 0.2)"
    )
    parser.add_argument(
        "--ttl", type=not_negative, default=60.0, help="how long a price lives, in seconds (default 60)"
    )
    parser.add_argument("--rate-limit", type=at_least_one, help="requests per second that the server answers")
    parser.add_argument(
        "--failures", type=fraction, default=0.0, help="part of the requests that fail, 0 to 1"
    )
    parser.add_argument("--live", action="store_true", help="talk to Alpaca instead of the loopback server")
    options = parser.parse_args()
    options.symbols = [symbol.strip().upper() for symbol in options.symbols.split(",") if symbol.strip()]
    if not options.symbols:
        parser.error("argument --symbols: name at least one")
    return options


def at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def not_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError("must be 0 or more seconds")
    return number


def fraction(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
