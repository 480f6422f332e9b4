"""A trading dashboard's burst: widgets that all ask for the same prices, without and with the decorator.

By default it starts its own market-data server on loopback, which speaks Alpaca's wire format; alpaca-py's
real client talks to it over HTTP. With APCA_API_KEY_ID and APCA_API_SECRET_KEY set, --live talks to Alpaca.
The widgets are threads, tasks of an event loop, or half of them each: --mode says which.
With --bulk each of them asks for all its prices in one call.
With --processes each of them has so many widgets, and with --store their calls are those of one fleet.
With --save both bursts are drawn over time, as a page.
With --outage the server fails for a while instead, and the board shows what users see meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from unittest.mock import patch

from board_screen import Screen, show
from command_line import number_in, parser_for, place_for
from fleet_board import fleet_runs
from local_store import store_at, store_named
from market_server import MarketServer
from outage import show_outage
from widgets import CountingAccount, LogLines, Run, burst, ready_account, say, size_of

from singleflight import timeline
from singleflight.accounts import AccountInterface

SYMBOLS = ["ASML", "AAPL", "MSFT", "NVDA", "TSLA"]
getter = AccountInterface.get_instrument_current_price


def main() -> int:
    options = parsed()
    if options.live and not (os.environ.get("APCA_API_KEY_ID") and os.environ.get("APCA_API_SECRET_KEY")):
        print("--live needs APCA_API_KEY_ID and APCA_API_SECRET_KEY in the environment.", file=sys.stderr)
        return 2
    os.environ["PRICE_CACHE_TIME"] = str(options.ttl)
    screen = Screen()
    try:
        with market(options) as server:
            if options.processes > 1:
                with store_at(options.store) if options.store else contextlib.nullcontext() as store:
                    runs, lines = fleet_runs(options, server, store)
            else:
                with LogLines() as log:
                    lines = log.lines
                    say("importing alpaca-py ...")
                    account = ready_account(options.symbols, None if server is None else server.url)
                    if options.outage is not None and server is not None:
                        say("")
                        look = options.symbols[0], options.widgets, options.outage
                        show_outage(screen, server, account, *look, say)
                        return 0
                    runs = both_runs(options, account, server)
    except (ImportError, RuntimeError, ValueError) as error:
        say("")
        print(f"price_board: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("")
        print("price_board: interrupted", file=sys.stderr)
        return 130
    say("")
    show(screen, runs, options, lines)
    if options.live and all(run.missing == len(run.waits) * len(options.symbols) for run in runs):
        print("price_board: not one price came; the log lines say why.", file=sys.stderr)
        return 1
    return 0


def both_runs(
    options: argparse.Namespace, account: CountingAccount, server: MarketServer | None
) -> list[Run]:
    runs, recordings = [], {}
    for name in ("undecorated", "decorated"):
        account.asked = 0
        if server is not None:
            server.reset()
        with recording(name, account, options) as seen:
            run = burst(name, account, options)
        recordings[name] = seen
        run.requests = account.asked if server is None else len(server.requests)
        runs.append(run)
    if options.save:
        title = f"{size_of(options.widgets, options.symbols)}, at once"
        timeline.save_together(options.save, recordings, title=title)
    return runs


@contextlib.contextmanager
def recording(
    name: str, account: CountingAccount, options: argparse.Namespace
) -> Iterator[timeline.Timeline]:
    """One of the two bursts, recorded if its drawing is wanted: requests of the one, calls of the other."""
    seen = timeline.record(getter)
    with contextlib.ExitStack() as block:
        if name == "undecorated":
            block.enter_context(getter.bypass())
            if options.save:
                one = "_get_instrument_current_price_impl"
                tracked = seen.track(getattr(account, one), name="requests", key=lambda symbol, _: symbol)
                block.enter_context(patch.object(account, one, tracked))
        if options.save:
            block.enter_context(seen)
        yield seen


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


def parsed() -> argparse.Namespace:
    parser = parser_for(__doc__)
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
    parser.add_argument("--processes", type=process_count, default=1, help="each has all widgets (default 1)")
    parser.add_argument(
        "--store",
        type=store_named,
        metavar="URL",
        help="make the processes one fleet, by this Redis or Valkey server; 'local' starts one",
    )
    parser.add_argument(
        "--kill-leader", action="store_true", help="once more, and kill a process in the middle of its calls"
    )
    parser.add_argument(
        "--outage",
        type=outage,
        nargs="?",
        const=3.0,
        metavar="SECONDS",
        help="let the server fail for so long (default 3), and show what users see without and with grace",
    )
    parser.add_argument(
        "--save",
        type=place_for,
        metavar="PAGE",
        help="draw both bursts over time, and write that page (an HTML file)",
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
        if options.processes > 1:
            parser.error("argument --outage: not with --processes")
    if options.save and (options.bulk or options.processes > 1 or options.outage is not None):
        parser.error("argument --save: not with --bulk, --processes or --outage")
    if options.store and options.processes == 1:
        parser.error("argument --store: needs --processes, two at least")
    if options.kill_leader and (not options.store or options.live or options.bulk):
        parser.error(
            "argument --kill-leader: needs --store, a server of ours, and widgets that ask for one price"
        )
    return options


def widget_count(text: str) -> int:
    return int(number_in(text, 1, 500, whole=True))


def process_count(text: str) -> int:
    return int(number_in(text, 1, 16, whole=True))


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
