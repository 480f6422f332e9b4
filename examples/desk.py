"""A trading desk in the browser: ten widgets that want the same five prices, with and without the decorator.

The page counts the requests that reach the broker, how long the widgets wait and how old their prices are. A
switch takes the decorator away, one button has the broker fail, and one makes it weekend, when stocks have no
bid. Account 1 keeps its prices through both, account 2 does not. The broker is the examples' market server on
loopback, asked by the real alpaca-py. The page is NiceGUI's; it loads nothing from elsewhere. In a checkout:

    pip install -e '.[desk]'
    python examples/desk.py
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import logging
import os
import socket
import sys
import time
import webbrowser
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Self

from command_line import number_in, parser_for
from desk_widgets import Cell, Desk, Widget
from market_server import MarketServer

from singleflight.accounts import AlpacaAccount

SYMBOLS = ["ASML", "AAPL", "MSFT", "NVDA", "TSLA"]
ALLOWED = 200  # requests a minute, by Alpaca's documentation
GRACE = 300.0  # seconds
ACCOUNTS = {  # what each shows when the broker has no price
    "1": f"keeps a price for {GRACE:g} s past its time, and without a bid takes the last trade or the close.",
    "2": "shows bids alone, and none that is past its time: it has no price then.",
}
ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><rect width='16' height='16' rx='3'"
    " fill='#1457d9'/><path d='M4 12V8M8 12V4M12 12V6' stroke='#fff' stroke-width='2'/></svg>"
)


def main() -> int:
    options = parsed()
    try:
        from nicegui import ui
    except ImportError as error:
        print(f"desk: {error}; install what it needs: pip install -e '.[desk]'", file=sys.stderr)
        return 1
    import uvicorn
    from fastapi import FastAPI

    os.environ["PRICE_CACHE_TIME"] = str(options.ttl)
    os.environ["no_proxy"] = "127.0.0.1"  # loopback, also where a proxy is set
    try:
        listening = socket.create_server(("127.0.0.1", options.port))
    except OSError as error:
        print(f"desk: --port {options.port}: {os.strerror(error.errno or errno.EIO)}", file=sys.stderr)
        return 1
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with listening, MarketServer(options.latency) as market, Lines() as lines:
        accounts = [
            AlpacaAccount(
                1, "key-1", "secret", url=market.url, price_grace=GRACE, fallback=("last", "close")
            ),
            AlpacaAccount(2, "key-2", "secret", url=market.url, price_grace=0),
        ]
        desk = Desk(market, accounts, SYMBOLS, options.ttl)
        try:
            for account in accounts:  # the first price has alpaca-py imported
                account.get_instrument_current_price(SYMBOLS[0])
        except (ImportError, RuntimeError) as error:
            print(f"desk: {error}", file=sys.stderr)
            return 1
        desk.drop()
        market.reset()

        @contextlib.asynccontextmanager
        async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
            living = asyncio.create_task(desk.live())
            print(f"The desk is at {url} until you press Ctrl-C.", flush=True)
            if options.open:
                webbrowser.open(url)
            yield
            living.cancel()

        app = FastAPI(lifespan=lifespan)
        ui.run_with(
            app,
            root=partial(page, desk, lines),
            title="Trading desk",
            favicon=ICON,
            dark=None,  # as the browser has it
            language="en-GB",
            tailwind=False,
            show_welcome_message=False,
        )
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        with contextlib.suppress(KeyboardInterrupt):  # the way to end it
            uvicorn.Server(config).run(sockets=[listening])
        desk.close()
    return 0


def page(desk: Desk, lines: Lines) -> None:
    """The page, as each browser gets it; all of them look at the same desk."""
    from nicegui import ui

    ui.add_css(Path(__file__).with_suffix(".css"))
    with ui.element("main").classes("desk"):
        with ui.element("header"):
            with ui.element("div"):
                ui.html("Trading desk", tag="h1", sanitize=False)
                about = ui.html(tag="p", sanitize=False)
            state = ui.html(tag="p", sanitize=False).classes("state").props('role="status"')
        with ui.element("section").classes("controls").props('aria-label="Controls"'):
            with ui.element("div"):
                refresh = ui.button("Refresh", on_click=desk.refresh, color=None)
                drop = ui.button("Drop prices", on_click=desk.drop, color=None)
            account = ui.toggle({name: f"Account {name}" for name in desk.accounts}, value=desk.chosen)
            account.on_value_change(lambda event: desk.choose(event.value)).props(
                "no-caps unelevated spread toggle-color=chosen toggle-text-color=chosen"
            )
            with ui.element("div"):
                ui.switch("Decorator").bind_value(desk, "decorated")
                ui.switch("Every 2 s").bind_value(desk, "repeated")
            with ui.element("div"):
                outage = ui.button("Outage", on_click=lambda: flip(desk, "outage"), color=None)
                weekend = ui.button("Weekend", on_click=lambda: flip(desk, "weekend"), color=None)
        for button, kind in ((refresh, "primary"), (drop, ""), (outage, "bad"), (weekend, "warn")):
            button.classes(kind).props("no-caps unelevated")
        tiles = ui.html(tag="section", sanitize=False).classes("tiles").props('aria-label="Counts"')
        with ui.element("section").classes("widgets").props('aria-label="Widgets"'):
            widgets = [ui.html(tag="article", sanitize=False).classes("card") for _ in desk.widgets]
        log = ui.html(tag="section", sanitize=False).classes("card log").props('aria-label="Log"')

    def update() -> None:
        about.content = (
            f"Ten widgets want the same five prices. Account {desk.chosen} {ACCOUNTS[desk.chosen]}"
        )
        state.content = state_html(desk)
        tiles.content = tiles_html(desk)
        longest = max(1.0, *(run.longest for run in desk.runs.values() if run), *waits(desk))
        for shown, widget in zip(widgets, desk.widgets, strict=True):
            shown.content = widget_html(desk, widget, longest)
        log.content = log_html(lines)
        refresh.set_enabled(not desk.is_refreshing)
        account.set_value(desk.chosen)
        for button, is_on in ((outage, desk.market.outage), (weekend, desk.market.weekend)):
            button.classes(add="on" if is_on else "", remove="" if is_on else "on")
            button.props(f"aria-pressed={str(is_on).lower()}")

    update()
    ui.timer(0.25, update)
    if not desk.refreshes:
        ui.timer(0.1, desk.refresh, once=True)


def flip(desk: Desk, fault: str) -> None:
    """Switch one of the market's faults on or off."""
    setattr(desk.market, fault, not getattr(desk.market, fault))


# -- what the page shows -----------------------------------------------------------------------------


def state_html(desk: Desk) -> str:
    broker = ("bad", "Broker down") if desk.market.outage else ("good", "Broker up")
    market = ("warn", "Market closed") if desk.market.weekend else ("good", "Market open")
    return "".join(f'<span class="{kind}">{text}</span>' for kind, text in (broker, market))


def tiles_html(desk: Desk) -> str:
    """The counts: of the last refreshes with and without, of the last minute, and of what is shown now."""
    runs = {"without": desk.runs[False], "with": desk.runs[True]}
    requests = {name: run.requests if run else None for name, run in runs.items()}
    longest = {name: run.longest if run and run.ended else None for name, run in runs.items()}
    cells = [cell for widget in desk.widgets for cell in widget.cells.values()]
    ages = [desk.age(cell) for cell in cells if cell.price is not None]
    wanted = len(desk.widgets) * len(desk.symbols)
    oldest = age_text(max(ages)) if ages else "&ndash;"
    minute = sum(desk.minute)
    over = ' class="over"' if minute > ALLOWED else ""
    return "".join(
        (
            pair_html("Requests of one refresh", requests, "requests", "{:d}", wanted, desk.decorated),
            pair_html("Longest wait of a widget", longest, "waits", "{:.2f} s", 1, desk.decorated),
            served_html(desk),
            f'<div class="card"><h2>Oldest price</h2><p class="big" data-count="oldest">{oldest}</p>'
            f'<p class="note"><b data-count="priced">{len(ages)}</b> of {wanted} have a price</p></div>',
            f'<div class="card"><h2>Requests in a minute</h2><p class="big"><span{over} data-count="minute">'
            f'{minute}</span>{spark_svg(desk.minute)}</p><p class="note">Alpaca allows {ALLOWED}</p></div>',
        )
    )


def pair_html(
    title: str, numbers: Mapping[str, float | None], name: str, style: str, full: float, is_with: bool
) -> str:
    """Two bars, one for each way; `full` is the least that a bar of the whole length stands for."""
    most = max(full, *(number or 0 for number in numbers.values()))
    rows = []
    for way, number in numbers.items():
        shown = "&ndash;" if number is None else style.format(number)
        now = " now" if is_with == (way == "with") else ""
        rows.append(
            f'<p class="bar{now}"><span>{way}</span>{track_html((number or 0) / most)}'
            f'<b data-count="{name}-{way}">{shown}</b></p>'
        )
    return f'<div class="card"><h2>{title}</h2>{"".join(rows)}</div>'


def track_html(part: float) -> str:
    return f'<span class="track"><i style="width:{100 * part:.1f}%"></i></span>'


def served_html(desk: Desk) -> str:
    """How the prices of the last refresh were served."""
    run = desk.last_run
    served = Counter(run.served if run else ())
    total = max(1, served.total())
    ways = {"asked": "asked the broker", "joined": "joined a call", "stored": "found it stored"}
    parts = "".join(f'<i class="{way}" style="width:{100 * served[way] / total:.1f}%"></i>' for way in ways)
    rows = "".join(
        f'<span><i class="{way}"></i><b data-count="{way}">{served[way]}</b> {text}</span>'
        for way, text in ways.items()
    )
    return (
        f'<div class="card served" data-refreshes="{desk.refreshes}"><h2>Prices of the last refresh</h2>'
        f'<p class="track">{parts}</p>'
        f'<p class="legend">{rows}</p></div>'
    )


def spark_svg(minute: deque[int]) -> str:
    """A bar for each second."""
    most = max(10, *minute)
    bars = "".join(
        f'<rect x="{2 * place}" y="{24 * (1 - part):.1f}" width="1.5" height="{24 * part:.1f}"/>'
        for place, part in enumerate(count / most for count in minute)
        if part
    )
    width = 2 * len(minute)
    return f'<svg viewBox="0 0 {width} 24" preserveAspectRatio="none" aria-hidden="true">{bars}</svg>'


def widget_html(desk: Desk, widget: Widget, longest: float) -> str:
    rows = "".join(row_html(desk, symbol, widget.cells.get(symbol)) for symbol in desk.symbols)
    waited = "&ndash;" if widget.waited is None else f"{widget.waited:.2f} s"
    return (
        f'<h3 data-refreshes="{desk.refreshes}">{escape(widget.name)} <span class="kind">{widget.kind}</span>'
        f"</h3><table>{rows}</table>"
        f'<p class="bar"><span>waited</span>{track_html((widget.waited or 0) / longest)}<b>{waited}</b></p>'
    )


def row_html(desk: Desk, symbol: str, cell: Cell | None) -> str:
    price, note, kind = "&ndash;", "", ""
    if cell is not None and cell.price is None:
        price, kind = "no price", "none"
    elif cell is not None:
        age = desk.age(cell)
        kind = "old" if age >= desk.ttl else "fresh"
        price, note = f"{cell.price:,.2f}", age_text(age) + " old" * (kind == "old")
    mark = "" if cell is None or cell.price is None or cell.is_bid else '<abbr title="no bid">*</abbr>'
    return (
        f'<tr class="{kind}"><th scope="row">{escape(symbol)}{mark}</th><td>{price}</td>'
        f'<td class="age">{note}</td></tr>'
    )


def age_text(seconds: float) -> str:
    """An age, in minutes when it has many."""
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def waits(desk: Desk) -> list[float]:
    return [widget.waited or 0.0 for widget in desk.widgets]


def log_html(lines: Lines) -> str:
    rows = "".join(f"<li>{escape(line)}</li>" for line in lines.last) or "<li>Nothing to report.</li>"
    return f"<h2>From the log</h2><ol>{rows}</ol><p class='note'>* no bid: the last trade or the close</p>"


class Lines(logging.Handler):
    """The last lines that the library logged, for as long as its `with` block lasts."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.last: deque[str] = deque(maxlen=5)  # appending is atomic

    def emit(self, record: logging.LogRecord) -> None:
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        self.last.append(f"{stamp} {record.levelname} {record.getMessage()}")

    def __enter__(self) -> Self:
        log = logging.getLogger("singleflight")
        log.addHandler(self)
        log.setLevel(logging.INFO)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("singleflight").removeHandler(self)


def parsed() -> argparse.Namespace:
    parser = parser_for(__doc__)
    parser.add_argument("--port", type=port, default=8080, help="of the page; 0: a free one (default 8080)")
    parser.add_argument("--latency", type=pause, default=0.2, help="of the broker, in seconds (default 0.2)")
    parser.add_argument(
        "--ttl", type=lifetime, default=10.0, help="how long a price lives, in seconds (default 10)"
    )
    parser.add_argument("--open", action="store_true", help="open the page in your browser")
    return parser.parse_args()


def port(text: str) -> int:
    return int(number_in(text, 0, 65_535, whole=True))


def pause(text: str) -> float:
    return number_in(text, 0, 5)


def lifetime(text: str) -> float:
    return number_in(text, 1, 3600)


if __name__ == "__main__":
    sys.exit(main())
