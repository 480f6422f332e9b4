"""A trading dashboard's burst: widgets that all ask for the same prices, without and with the decorator.

By default it starts its own market-data server on loopback, which speaks Alpaca's wire format; alpaca-py's
real client talks to it over HTTP. With APCA_API_KEY_ID and APCA_API_SECRET_KEY set, --live talks to Alpaca.
The widgets are threads, tasks of an event loop, or half of them each: --mode says which.
With --bulk each of them asks for all its prices in one call.
With --outage the server fails for a while instead, and the board shows what users see meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from market_server import MarketServer
from outage import show_outage

from singleflight.accounts import AccountInterface, AlpacaAccount

SYMBOLS = ["ASML", "AAPL", "MSFT", "NVDA", "TSLA"]
KINDS = ("thread", "task")  # what a widget can be
WIDGET = "widget"  # how the names of those threads begin
WORDINGS = ("Fetching", "Cached new", "Another thread", "Returning cached", "Failed")
getter = AccountInterface.get_instrument_current_price


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


def main() -> int:
    options = parsed()
    if options.live and not (os.environ.get("APCA_API_KEY_ID") and os.environ.get("APCA_API_SECRET_KEY")):
        print("--live needs APCA_API_KEY_ID and APCA_API_SECRET_KEY in the environment.", file=sys.stderr)
        return 2
    os.environ["PRICE_CACHE_TIME"] = str(options.ttl)
    try:
        with market(options) as server, LogLines() as log:
            account = ready_account(options, server)
            if options.outage is not None and server is not None:
                say("")
                show_outage(server, account, options.symbols[0], options.widgets, options.outage, say)
                return 0
            runs = both_runs(options, account, server)
    except (ImportError, ValueError) as error:
        say("")
        print(f"price_board: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("")
        print("price_board: interrupted", file=sys.stderr)
        return 130
    say("")
    show(runs, options, log.lines)
    if options.live and all(run.missing == options.widgets * len(options.symbols) for run in runs):
        print("price_board: not one price came; the log lines say why.", file=sys.stderr)
        return 1
    return 0


def ready_account(options: argparse.Namespace, server: MarketServer | None) -> CountingAccount:
    """An account that has made its clients, so that no run pays for it."""
    say("importing alpaca-py ...")
    account = (
        CountingAccount(1, retries=0)
        if server is None
        else CountingAccount(1, "key", "secret", url=server.url, retries=0)
    )
    with getter.bypass():
        for symbol in {"/" in symbol: symbol for symbol in options.symbols}.values():
            account.get_instrument_current_price(symbol)
    return account


def both_runs(
    options: argparse.Namespace, account: CountingAccount, server: MarketServer | None
) -> list[Run]:
    runs = []
    for name in ("undecorated", "decorated"):
        account.asked = 0
        if server is not None:
            server.reset()
        with getter.bypass() if name == "undecorated" else contextlib.nullcontext():
            run = burst(name, account, options)
        run.requests = account.asked if server is None else len(server.requests)
        runs.append(run)
    return runs


def burst(name: str, account: AlpacaAccount, options: argparse.Namespace) -> Run:
    """All widgets at once, each asking for every symbol, one after another or in one call."""
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

    def widget(number: int) -> None:
        start.wait(30)
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
        start.wait(30)  # holds up a loop on which nothing runs yet
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
    say(f"{name}, {mode}: {size_of(widgets, symbols)} ...")
    try:
        start.wait(30)
        began = time.perf_counter()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)
                say(f"{name}, {mode}: {len(prices)} of {total} prices ...", passing=True)
    except KeyboardInterrupt:
        interrupted.set()
        raise
    wall = time.perf_counter() - began
    return Run(name, 0, wall, waits, prices.count(None))


def shared_out(widgets: int, mode: str) -> tuple[range, range]:
    """The numbers of the widgets that are threads, and of those that are tasks."""
    threads = {"threads": widgets, "tasks": 0, "mixed": (widgets + 1) // 2}[mode]
    return range(threads), range(threads, widgets)


def show(runs: list[Run], options: argparse.Namespace, lines: dict[str, list[str]]) -> None:
    where = "Alpaca" if options.live else f"a loopback server with {options.latency:g} s of latency"
    kinds = dict(zip(KINDS, map(len, shared_out(options.widgets, options.mode)), strict=True))
    told = " and ".join(counted(number, kind) for kind, number in kinds.items() if number)
    way = ", each in one call" if options.bulk else ""
    print(f"{size_of(options.widgets, options.symbols)}, at once, by {told}{way}, against {where}\n")
    missing = any(run.missing for run in runs)
    heads = ["requests", "wall time", "a widget waits (min / median / max)"] + ["no price"] * missing
    print(f"{'':12}" + "".join(f" {head:>{len(head) + 1}}" for head in heads))
    for run in runs:
        spread = [min(run.waits), statistics.median(run.waits), max(run.waits)]
        waited = " / ".join(f"{seconds:.2f}" for seconds in spread) + " s"
        cells = [str(run.requests), f"{run.wall:.2f} s", waited] + [str(run.missing)] * missing
        row = "".join(f" {cell:>{len(head) + 1}}" for cell, head in zip(cells, heads, strict=True))
        print(f"{run.name:12}{row}")
    for kind in KINDS:
        if lines[kind]:
            print(f"\nFrom the log of the {kind}s:")
            for line in picked(lines[kind]):
                print(f"  {line}")


def size_of(widgets: int, symbols: list[str]) -> str:
    return f"{counted(widgets, 'widget')} x {counted(len(symbols), 'symbol')}"


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def picked(lines: list[str]) -> list[str]:
    """One line of each wording that is there, the earliest first."""
    found = [next((line for line in lines if wording in line), None) for wording in WORDINGS]
    return sorted((line for line in found if line is not None), key=lambda line: line[:12])


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


@contextlib.contextmanager
def market(options: argparse.Namespace) -> Iterator[MarketServer | None]:
    if options.live:
        yield None
        return
    os.environ["no_proxy"] = "127.0.0.1"  # loopback, also where a proxy is set
    with MarketServer(options.latency, options.rate_limit, options.failures) as server:
        for number, symbol in enumerate(options.symbols):
            server.prices.setdefault(symbol, 100.0 + number)
        yield server


def say(text: str, passing: bool = False) -> None:
    """Progress: one line that is written over on a terminal; elsewhere plain lines, without passing ones."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text and not passing:
        print(text, file=sys.stderr, flush=True)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--widgets", type=widget_count, default=10, help="how many ask at once (default 10)")
    parser.add_argument("--symbols", default=",".join(SYMBOLS), help="comma-separated (default: five stocks)")
    parser.add_argument(
        "--mode",
        choices=("threads", "tasks", "mixed"),
        default="threads",
        help="what the widgets are: threads, tasks, or half of them each (default threads)",
    )
    parser.add_argument("--latency", type=pause, default=0.2, help="of the server, in seconds (default 0.2)")
    parser.add_argument(
        "--ttl", type=lifetime, default=60.0, help="how long a price lives, in seconds (default 60)"
    )
    parser.add_argument("--rate-limit", type=limit, help="requests per second that the server answers")
    parser.add_argument(
        "--failures", type=fraction, default=0.0, help="part of the requests that fail, 0 to 1 (default 0)"
    )
    parser.add_argument("--bulk", action="store_true", help="each widget asks for all symbols in one call")
    parser.add_argument(
        "--outage",
        type=outage,
        nargs="?",
        const=3.0,
        metavar="SECONDS",
        help="let the server fail for so long (default 3), and show what users see without and with grace",
    )
    parser.add_argument("--live", action="store_true", help="talk to Alpaca instead of the loopback server")
    options = parser.parse_args()
    # Each symbol once: two of a kind would be one price, and the counts would not add up.
    options.symbols = list(dict.fromkeys(s.strip().upper() for s in options.symbols.split(",") if s.strip()))
    if not options.symbols:
        parser.error("argument --symbols: name at least one")
    if options.outage is not None:
        if options.live:
            parser.error("argument --outage: not with --live, whose server is not ours to stop")
        if options.mode != "threads" or options.bulk:
            parser.error("argument --outage: its widgets are threads that ask for one price")
        if options.outage < 10 * options.latency:
            parser.error("argument --outage: expected ten times the latency, at least")
    return options


def number_in(text: str, least: float, most: float, whole: bool = False) -> float:
    """The number that a flag was given, or an error that says what it expects."""
    span = f"from {least:g} to {most:g}" if most < float("inf") else f"of at least {least:g}"
    try:
        number = float(int(text) if whole else float(text))
    except ValueError:
        number = float("nan")
    if not least <= number <= most or number == float("inf"):
        raise argparse.ArgumentTypeError(f"expected a {'whole ' * whole}number {span}, got {text!r}")
    return number


def widget_count(text: str) -> int:
    return int(number_in(text, 1, 500, whole=True))


def limit(text: str) -> int:
    return int(number_in(text, 1, float("inf"), whole=True))


def pause(text: str) -> float:
    return number_in(text, 0, 5)


def lifetime(text: str) -> float:
    return number_in(text, 0, float("inf"))


def outage(text: str) -> float:
    return number_in(text, 1, 60)


def fraction(text: str) -> float:
    return number_in(text, 0, 1)


if __name__ == "__main__":
    sys.exit(main())
