"""Ask a server again without sending the page again: ETag, If-None-Match and 304, on the standard library.

Twenty threads want a page whose ttl is over. One of them asks; the server says that nothing has changed, and
the stored page is fresh for another ttl. Then the page changes, and the next request brings the new one.
"""

from __future__ import annotations

import hashlib
import os
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from command_line import parser_for

from singleflight import Unchanged, current_flight, single_flight_ttl
from singleflight.testing import FakeClock

text = "version 1"
answers: list[int] = []


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = text.encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:12]}"'
        known = self.headers.get("If-None-Match") == etag
        answers.append(304 if known else 200)
        self.send_response(answers[-1])
        self.send_header("ETag", etag)
        self.send_header("Content-Length", "0" if known else str(len(body)))
        self.end_headers()
        if not known:
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@dataclass(frozen=True)
class Page:
    body: str
    etag: str


clock = FakeClock()  # so that nobody has to wait for the ttl


@single_flight_ttl(ttl=30, timer=clock)
def page(url: str) -> Page:
    request = urllib.request.Request(url)  # our own server's
    flight = current_flight()
    previous = flight.previous if flight else None
    if previous is not None:
        request.add_header("If-None-Match", previous.value.etag)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return Page(response.read().decode(), response.headers["ETag"])
    except urllib.error.HTTPError as error:
        if error.code != 304:
            raise
        error.close()
        unchanged: Page = Unchanged
        return unchanged


def main() -> None:
    global text
    parser_for(__doc__).parse_args()
    os.environ["no_proxy"] = "127.0.0.1"  # loopback, also where a proxy is set
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    try:
        with ThreadPoolExecutor(20) as pool:
            for moment in ("the first time", "after its ttl", "changed"):
                if moment == "changed":
                    text = "version 2"
                answers.clear()
                bodies = [each.body for each in pool.map(page, [url] * 20)]
                print(f"{moment}: {len(bodies)} callers have {set(bodies)}, the server answered {answers}")
                clock.advance(31)
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
