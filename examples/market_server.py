"""A broker's server on loopback that speaks Alpaca's wire format, for the price board and the tests.

It is as strict as the real one: symbols must fit the pattern of their kind, positions are spelt without a
slash, a login may be checked, feeds may need a subscription, and each key may have a limit of requests.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import NAMESPACE_URL, uuid5

__all__ = ["DROP", "MarketServer"]

DROP = (0, b"")  # as an answer: close the connection without one

_TIME = "2026-01-02T15:04:05.123456789Z"
_PATTERNS = {  # a symbol of each kind; what does not fit is answered 400
    "stocks": r"^[A-Z][A-Z0-9]{0,9}(\.[A-Z]{1,3})?$",
    "crypto": r"^[A-Z]+/[A-Z]+$",
    "options": r"^[A-Z]{1,6}\d{6}[CP]\d{8}$",
}
_FEEDS = {
    "stocks": ("iex", "sip", "delayed_sip", "otc", "boats", "overnight"),
    "options": ("indicative", "opra"),
    "crypto": (),
}
_DATA = re.compile(r"/(?:v2|v1beta[13])/(stocks|options|crypto)(?:/us)?/(.*)")
_WHAT = {
    **dict.fromkeys(("quotes/latest", "latest/quotes"), "quotes"),
    **dict.fromkeys(("trades/latest", "latest/trades"), "trades"),
    "snapshots": "snapshots",
}
_CLOCK = {  # in Alpaca's time zone, as Alpaca sends it: the moment above
    "timestamp": "2026-01-02T10:04:05.123456789-05:00",
    "next_open": "2026-01-05T09:30:00-05:00",
    "next_close": "2026-01-02T16:00:00-05:00",
}


Special = tuple[int, bytes] | tuple[int, bytes, dict[str, str]]  # status and body, and headers


class MarketServer:
    """Answers latest quotes, trades and snapshots of stocks, crypto and options, and trades for one account.

    Orders are filled at once, at the market's price. Faults to switch on:

    - `outage`: every answer is 503;
    - `weekend`: no stock has a bid, and the market is closed;
    - `sides`: bid and ask of single symbols, zero for none;
    - `secrets`: who may log in, others get 401; `feeds`: those of the subscription, others get 403;
    - `broken`: symbols whose quotes and trades lack their sizes;
    - `unknown_is_400`: an unknown symbol is refused by name, not left out;
    - `stamp`: the time that quotes and trades have (None: now);
    - `before_answer`: called first; it may wait, or answer itself.

    Args:
        latency: seconds that each answer takes.
        rate_limit: requests of one key to one service (data or trading) in each window, after which the
            answer is 429, with Retry-After; None for no limit.
        failures: the part of all requests, 0 to 1, that is answered 500, evenly spread.
        window: seconds of the limit's window.
        counts_refused: whether a request that is answered 429 counts, too, and keeps the window shut.
        clock: the time of the limit's windows and of the answers, in seconds since 1970.
    """

    def __init__(
        self,
        latency: float = 0.0,
        rate_limit: int | None = None,
        failures: float = 0.0,
        *,
        window: float = 1.0,
        counts_refused: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.latency, self.rate_limit, self.failures = latency, rate_limit, failures
        self.window, self.counts_refused, self.clock = window, counts_refused, clock
        self.prices = {
            "ASML": 984.75,
            "AAPL": 190.5,
            "MSFT": 410.2,
            "NVDA": 875.3,
            "TSLA": 242.1,
            "BTC/USD": 64000.5,
            "AAPL261218C00200000": 12.35,
        }
        self.cash = 100_000.0  # guarded by `lock`, as all that follows
        self.held: dict[str, float] = {}  # shares by symbol
        self.orders: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.refused = 0  # requests answered 429
        self.lock = threading.Lock()
        self.is_open = True  # the market: what its clock says
        self.outage = False
        self.weekend = False
        self.sides: dict[str, tuple[float | None, float | None]] = {}
        self.secrets: dict[str, str] | None = None  # by key; None: anybody
        self.feeds = {"iex", "delayed_sip", "otc", "boats", "overnight", "indicative"}
        self.broken: set[str] = set()
        self.unknown_is_400 = False
        self.stamp: str | None = None
        # By key and service: which one, and its count.
        self._windows: dict[tuple[str, str], tuple[int, int]] = {}
        # Called with path and symbols in the request's thread, under no lock; may wait, may answer itself.
        self.before_answer: Callable[[str, list[str]], Special | None] | None = None
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.market = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join(5)
        self._http.server_close()

    def reset(self) -> None:
        """Forget the requests seen so far."""
        with self.lock:
            self.requests.clear()
            self._windows.clear()
            self.refused = 0

    def answer(
        self, target: str, sent: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, dict[str, str]]:
        """The status, body and headers for one request; `sent` is what was posted."""
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        symbols = unquote(query.get("symbols", [""])[0]).split(",")
        login = {name.upper(): value for name, value in (headers or {}).items()}
        with self.lock:
            self.requests.append(target)
            seen = len(self.requests)
            is_admitted, extra = self._counted(login.get("APCA-API-KEY-ID") or "", _DATA.match(parts.path))
        if self.before_answer is not None:
            special = self.before_answer(parts.path, symbols)
            if special is not None:
                return special[0], special[1], {**extra, **(special[2] if len(special) == 3 else {})}
        if self.latency:
            time.sleep(self.latency)
        if self.outage:
            return 503, b'{"message":"service unavailable"}', extra
        if not is_admitted:
            return 429, b'{"message":"too many requests."}', extra
        if self.failures and int(seen * self.failures) > int((seen - 1) * self.failures):
            return 500, b'{"message":"internal server error"}', extra
        if not self._is_login(parts.path, login):
            return 401, b'{"message":"unauthorized."}', extra
        data = _DATA.match(parts.path)
        if data is not None:
            status, found = self._data(data[1], data[2], symbols, query)
        else:
            with self.lock:
                status, found = self._traded(parts.path, sent)
        return status, json.dumps(found).encode(), extra

    def _counted(self, key: str, data: object) -> tuple[bool, dict[str, str]]:
        """Count one request of a key, and say whether it is admitted; call under the lock."""
        if self.rate_limit is None:
            return True, {}
        now = self.clock()
        window = int(now / self.window)
        who = key, "data" if data else "trading"
        which, count = self._windows.get(who, (window, 0))
        if which != window:
            count = 0
        is_admitted = count < self.rate_limit
        if is_admitted or self.counts_refused:
            count += 1
        self._windows[who] = window, count
        reset = (window + 1) * self.window
        headers = {
            "X-Ratelimit-Limit": str(self.rate_limit),
            "X-Ratelimit-Remaining": str(max(0, self.rate_limit - count)),
            "X-Ratelimit-Reset": str(math.ceil(reset)),
        }
        if not is_admitted:
            self.refused += 1
            headers["Retry-After"] = str(math.ceil(reset - now))
        return is_admitted, headers

    def _is_login(self, path: str, headers: Mapping[str, str]) -> bool:
        if self.secrets is None or "/crypto/" in path:  # crypto needs no keys
            return True
        key = headers.get("APCA-API-KEY-ID")
        return key in self.secrets and self.secrets[key] == headers.get("APCA-API-SECRET-KEY")

    def _data(
        self, kind: str, path: str, symbols: list[str], query: Mapping[str, list[str]]
    ) -> tuple[int, dict[str, Any]]:
        """What the data service answers."""
        what = _WHAT.get(path)
        if what is None:
            return 404, {"message": "not found"}
        feed = query.get("feed", [None])[0]
        if feed is not None and feed not in _FEEDS[kind]:
            return 400, {"message": f"invalid feed: {feed}"}
        if feed is not None and feed not in self.feeds:
            return 403, {"message": f"subscription does not permit querying recent {feed.upper()} data"}
        for symbol in symbols:
            if not re.match(_PATTERNS[kind], symbol):
                return 400, {"message": f"invalid symbol: {symbol} does not match {_PATTERNS[kind]}"}
            if self.unknown_is_400 and symbol not in self.prices:
                return 400, {"message": f"invalid symbol: {symbol}"}
        make = {"quotes": self._quote, "trades": self._trade, "snapshots": self._snapshot}[what]
        found = {symbol: make(symbol) for symbol in symbols if symbol in self.prices}
        return 200, found if (kind, what) == ("stocks", "snapshots") else {what: found}

    def _traded(self, path: str, sent: bytes | None) -> tuple[int, Any]:
        """What the trading service answers; call under the lock."""
        if sent is not None and path == "/v2/orders":
            return self._order(json.loads(sent))
        if sent is None and path == "/v2/account":
            return 200, self._account()
        if sent is None and path == "/v2/positions":
            return 200, [self._position(symbol, shares) for symbol, shares in self.held.items()]
        if sent is None and path == "/v2/clock":
            return 200, {**_CLOCK, "is_open": self.is_open and not self.weekend}
        if sent is None and path.startswith("/v2/assets/"):
            symbol = self._listed(unquote(path.removeprefix("/v2/assets/")))
            if symbol in self.prices:
                return 200, self._asset(symbol)
            return 404, {"code": 40410000, "message": f"asset not found for {symbol}"}
        return 404, {"message": "not found"}

    def _order(self, asked: dict[str, Any]) -> tuple[int, Any]:
        symbol = self._listed(asked.get("symbol", ""))
        if symbol not in self.prices:
            return 422, {"code": 42210000, "message": f"asset {symbol!r} not found"}
        if any(order["client_order_id"] == asked.get("client_order_id") for order in self.orders):
            return 422, {"code": 40010001, "message": "client_order_id must be unique"}
        price = self.prices[symbol]
        shares = float(asked["qty"]) if asked.get("qty") else float(asked["notional"]) / price
        if asked["side"] == "buy" and shares * price > self.cash:
            return 403, {"code": 40310000, "message": "insufficient buying power"}
        if asked["side"] == "sell":
            shares = -shares
        self.cash -= shares * price
        self.held[symbol] = self.held.get(symbol, 0.0) + shares
        if not self.held[symbol]:
            del self.held[symbol]
        name = _uuid(f"order {len(self.orders)}")
        order = {
            **dict.fromkeys(("created_at", "updated_at", "submitted_at", "filled_at"), _TIME),
            "id": name,
            "client_order_id": name,
            "status": "filled",
            "filled_avg_price": str(price),
            "filled_qty": str(abs(shares)),
            "order_class": "simple",
            "extended_hours": False,
            **asked,
            "qty": str(abs(shares)),
        }
        self.orders.append(order)
        return 200, order

    def _account(self) -> dict[str, Any]:
        equity = self.cash + sum(shares * self.prices[symbol] for symbol, shares in self.held.items())
        return {
            "id": _uuid("account"),
            "account_number": "PA0000000001",
            "status": "ACTIVE",
            "currency": "USD",
            **dict.fromkeys(("cash", "buying_power"), f"{self.cash:.2f}"),
            **dict.fromkeys(("equity", "portfolio_value"), f"{equity:.2f}"),
        }

    def _position(self, symbol: str, shares: float) -> dict[str, Any]:
        price = self.prices[symbol]
        return {
            **self._kind_of(symbol),
            "asset_id": _uuid(symbol),
            "symbol": symbol.replace("/", ""),
            "qty": f"{shares:g}",
            "side": "long" if shares > 0 else "short",
            "avg_entry_price": str(price),
            **dict.fromkeys(("cost_basis", "market_value"), f"{shares * price:.2f}"),
            "current_price": str(price),
        }

    def _asset(self, symbol: str) -> dict[str, Any]:
        kind = self._kind_of(symbol)
        able = ("tradable", "marginable", "shortable", "easy_to_borrow", "fractionable")
        return {
            "id": _uuid(symbol),
            "class": kind["asset_class"],
            "exchange": kind["exchange"],
            "symbol": symbol,
            "name": f"{symbol}, an example",
            "status": "active",
            **dict.fromkeys(able, True),
        }

    @staticmethod
    def _kind_of(symbol: str) -> dict[str, str]:
        if "/" in symbol:
            return {"asset_class": "crypto", "exchange": "CRYPTO"}
        if re.match(_PATTERNS["options"], symbol):
            return {"asset_class": "us_option", "exchange": ""}
        return {"asset_class": "us_equity", "exchange": "NASDAQ"}

    def _listed(self, symbol: str) -> str:
        """A symbol as the market lists it: the trading service takes crypto without the slash, too."""
        return next((listed for listed in self.prices if listed.replace("/", "") == symbol), symbol)

    def _time(self) -> str:
        return self.stamp or datetime.now(UTC).isoformat().replace("+00:00", "789Z")

    def _trade(self, symbol: str) -> dict[str, Any]:
        price = self.prices[symbol]
        trade = {"t": self._time(), "x": "V", "p": price, "s": 100, "c": ["@"], "i": 1, "z": "C"}
        if symbol in self.broken:
            trade["s"] = None
        return trade

    def _quote(self, symbol: str) -> dict[str, Any]:
        price = self.prices[symbol]
        bid, ask = self.sides.get(symbol, (price, round(price + 0.5, 2)))
        if self.weekend and self._kind_of(symbol)["asset_class"] == "us_equity":
            bid = 0
        quote = {
            "t": self._time(),
            "ax": "V",
            "ap": ask,
            "as": 1 if ask else 0,
            "bx": "V",
            "bp": bid,
            "bs": 2 if bid else 0,
            "c": ["R"],
            "z": "C",
        }
        if symbol in self.broken:
            quote["bs"] = None
        return quote

    def _snapshot(self, symbol: str) -> dict[str, Any]:
        found = {"latestTrade": self._trade(symbol), "latestQuote": self._quote(symbol)}
        if self._kind_of(symbol)["asset_class"] != "us_option":
            price = self.prices[symbol]
            bar = {
                "t": self._time(),
                "o": price,
                "h": price,
                "l": price,
                "c": price,
                "v": 100,
                "n": 1,
                "vw": price,
            }
            found.update(minuteBar=bar, dailyBar=bar, prevDailyBar=bar)
        return found


def _uuid(name: str) -> str:
    return str(uuid5(NAMESPACE_URL, name))


class _Http(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    market: MarketServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away, after its timeout say, is no news; anything else is."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, sent: bytes | None) -> None:
        server: Any = self.server
        status, body, extra = server.market.answer(self.path, sent, self.headers)
        if (status, body) == DROP:
            self.close_connection = True
            return
        self.send_response(status)
        extra.setdefault("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in extra.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """For the header `Date`: the market's own time."""
        server: Any = self.server
        return super().date_time_string(server.market.clock() if timestamp is None else timestamp)

    def log_message(self, *args: Any) -> None:
        """Keep quiet: the board prints what matters."""


def main() -> None:
    """Show what the server answers, or have it stay up."""
    from command_line import number_in, parser_for  # for who runs it: those who import it may lack these

    def seconds(text: str) -> float:
        return number_in(text, 0, 60)

    def count(text: str) -> int:
        return int(number_in(text, 1, float("inf"), whole=True))

    parser = parser_for(__doc__)
    parser.add_argument("--serve", action="store_true", help="stay up until Ctrl-C")
    parser.add_argument("--latency", type=seconds, default=0.0, help="of each answer, in seconds (default 0)")
    parser.add_argument("--rate-limit", type=count, metavar="N", help="requests of one key in each minute")
    parser.add_argument("--outage", action="store_true", help="answer 503 to everything")
    parser.add_argument("--weekend", action="store_true", help="no stock has a bid, and the market is closed")
    options = parser.parse_args()
    with MarketServer(options.latency, options.rate_limit, window=60.0) as market:
        market.outage, market.weekend = options.outage, options.weekend
        print(f"A market at {market.url}, which answers as Alpaca does:\n", flush=True)
        for path in (
            "/v2/stocks/quotes/latest?symbols=ASML,NONE",
            "/v2/stocks/trades/latest?symbols=as ml",
            "/v2/clock",
        ):
            status, body, _ = market.answer(path)
            print(f"GET {path}\n    {status} {body.decode()}", flush=True)
        if options.serve:
            with contextlib.suppress(KeyboardInterrupt):  # which may come as soon as it is said
                print("\nIt stays up until you press Ctrl-C. To ask it:\n")
                print(f"    AlpacaAccount(1, 'key', 'secret', url={market.url!r})", flush=True)
                while True:
                    time.sleep(3600)


if __name__ == "__main__":
    main()
