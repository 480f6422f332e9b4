"""A broker's server on loopback that speaks Alpaca's wire format, for the price board and the tests."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import NAMESPACE_URL, uuid5

__all__ = ["DROP", "MarketServer"]

DROP = (0, b"")  # as an answer: close the connection without one

_TIME = "2026-01-02T15:04:05.123456789Z"
_CLOCK = {  # in Alpaca's time zone, as Alpaca sends it: the moment above
    "timestamp": "2026-01-02T10:04:05.123456789-05:00",
    "next_open": "2026-01-05T09:30:00-05:00",
    "next_close": "2026-01-02T16:00:00-05:00",
}


class MarketServer:
    """Answers latest quotes and trades for stocks and crypto, and trades for one account.

    Orders are filled at once, at the market's price. While `outage` is set every answer is 503.

    Args:
        latency: seconds that each answer takes.
        rate_limit: requests per second after which the answer is 429; None for no limit.
        failures: the part of all requests, 0 to 1, that is answered 500, evenly spread.
    """

    def __init__(self, latency: float = 0.0, rate_limit: int | None = None, failures: float = 0.0) -> None:
        self.latency, self.rate_limit, self.failures = latency, rate_limit, failures
        self.prices = {
            "ASML": 984.75,
            "AAPL": 190.5,
            "MSFT": 410.2,
            "NVDA": 875.3,
            "TSLA": 242.1,
            "BTC/USD": 64000.5,
        }
        self.cash = 100_000.0  # guarded by `lock`, as all that follows
        self.held: dict[str, float] = {}  # shares by symbol
        self.orders: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.is_open = True  # the market: what its clock says
        self.outage = False
        self._seconds: dict[int, int] = {}
        # Called with path and symbols in the request's thread, under no lock; may wait, may answer itself.
        self.before_answer: Callable[[str, list[str]], tuple[int, bytes] | None] | None = None
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
            self._seconds.clear()

    def answer(self, target: str, sent: bytes | None = None) -> tuple[int, bytes]:
        """The status and body for one request; `sent` is what was posted."""
        parts = urlsplit(target)
        symbols = unquote(parse_qs(parts.query).get("symbols", [""])[0]).split(",")
        with self.lock:
            self.requests.append(target)
            seen = len(self.requests)
            second = int(time.monotonic())
            self._seconds[second] = in_second = self._seconds.get(second, 0) + 1
        if self.before_answer is not None:
            special = self.before_answer(parts.path, symbols)
            if special is not None:
                return special
        if self.latency:
            time.sleep(self.latency)
        if self.outage:
            return 503, b'{"message":"service unavailable"}'
        if self.rate_limit is not None and in_second > self.rate_limit:
            return 429, b'{"message":"too many requests"}'
        if self.failures and int(seen * self.failures) > int((seen - 1) * self.failures):
            return 500, b'{"message":"internal server error"}'
        if parts.path.endswith(("/trades/latest", "/latest/trades")):
            return 200, json.dumps({"trades": self._each(symbols, self._trade)}).encode()
        if parts.path.endswith(("/quotes/latest", "/latest/quotes")):
            return 200, json.dumps({"quotes": self._each(symbols, self._quote)}).encode()
        with self.lock:
            status, found = self._traded(parts.path, sent)
        return status, json.dumps(found).encode()

    def _traded(self, path: str, sent: bytes | None) -> tuple[int, Any]:
        """What the trading service answers; call under the lock."""
        if sent is not None and path == "/v2/orders":
            return self._order(json.loads(sent))
        if sent is None and path == "/v2/account":
            return 200, self._account()
        if sent is None and path == "/v2/positions":
            return 200, [self._position(symbol, shares) for symbol, shares in self.held.items()]
        if sent is None and path == "/v2/clock":
            return 200, {**_CLOCK, "is_open": self.is_open}
        if sent is None and path.startswith("/v2/assets/"):
            symbol = unquote(path.removeprefix("/v2/assets/"))
            if symbol in self.prices:
                return 200, self._asset(symbol)
            return 404, {"code": 40410000, "message": f"asset not found for {symbol}"}
        return 404, {"message": "not found"}

    def _order(self, asked: dict[str, Any]) -> tuple[int, Any]:
        symbol = asked.get("symbol")
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
            "symbol": symbol,
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
        return {"asset_class": "us_equity", "exchange": "NASDAQ"}

    def _each(self, symbols: list[str], make: Any) -> dict[str, Any]:
        return {symbol: make(self.prices[symbol]) for symbol in symbols if symbol in self.prices}

    @staticmethod
    def _trade(price: float) -> dict[str, Any]:
        return {"t": _TIME, "x": "V", "p": price, "s": 100, "c": ["@"], "i": 1, "z": "C"}

    @staticmethod
    def _quote(price: float) -> dict[str, Any]:
        ask = round(price + 0.5, 2)
        return {
            "t": _TIME,
            "ax": "V",
            "ap": ask,
            "as": 1,
            "bx": "V",
            "bp": price,
            "bs": 2,
            "c": ["R"],
            "z": "C",
        }


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
        status, body = server.market.answer(self.path, sent)
        if (status, body) == DROP:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Keep quiet: the board prints what matters."""
