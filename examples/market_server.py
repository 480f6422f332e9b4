"""A market-data server on loopback that speaks Alpaca's wire format, for the price board and the tests."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

__all__ = ["DROP", "MarketServer"]

DROP = (0, b"")  # as an answer: close the connection without one

_TIME = "2026-01-02T15:04:05.123456789Z"


class MarketServer:
    """Answers latest quotes and trades for stocks and crypto.

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
        self.requests: list[str] = []  # guarded by `lock`, as `_seconds`
        self.lock = threading.Lock()
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

    def answer(self, target: str) -> tuple[int, bytes]:
        """The status and body for one request."""
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
        if self.rate_limit is not None and in_second > self.rate_limit:
            return 429, b'{"message":"too many requests"}'
        if self.failures and int(seen * self.failures) > int((seen - 1) * self.failures):
            return 500, b'{"message":"internal server error"}'
        if parts.path.endswith(("/trades/latest", "/latest/trades")):
            return 200, json.dumps({"trades": self._each(symbols, self._trade)}).encode()
        if parts.path.endswith(("/quotes/latest", "/latest/quotes")):
            return 200, json.dumps({"quotes": self._each(symbols, self._quote)}).encode()
        return 404, b'{"message":"not found"}'

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
        server: Any = self.server
        status, body = server.market.answer(self.path)
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
