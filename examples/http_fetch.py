"""An HTTP fetch on the standard library alone: thirty threads, three pages, three requests."""

from __future__ import annotations

import os
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from command_line import parser_for

from singleflight import single_flight_ttl

served: list[str] = []


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        served.append(self.path)
        body = f"the page {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@single_flight_ttl(ttl=30, wait_timeout=10)
def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as response:
        body: bytes = response.read()
    return body


def main() -> None:
    parser_for(__doc__).parse_args()
    os.environ["no_proxy"] = "127.0.0.1"  # loopback, also where a proxy is set
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with ThreadPoolExecutor(30) as pool:
            bodies = list(pool.map(fetch, [f"{origin}/{number % 3}" for number in range(30)]))
    finally:
        server.shutdown()
        server.server_close()
    stats = fetch.stats()
    print(f"{len(bodies)} calls, {len(served)} requests: {sorted(served)}")
    print(f"hits {stats.hits}, waits {stats.waits}, fetches {stats.fetches}")


if __name__ == "__main__":
    main()
