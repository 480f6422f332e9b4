"""A web service whose pages all want the same price: forty requests at once, one call upstream.

One endpoint awaits a decorated coroutine. The other is a plain function, which FastAPI runs in a thread, and
calls the coroutine's twin: both share each call. Each response says in its `Cache-Status` header (RFC 9211)
how it was served, and the browsers count that. The service, the market it asks and the browsers that ask
it are real HTTP, and all on loopback. It needs FastAPI, httpx and uvicorn; in a checkout:

    pip install -e '.[web]'
    python examples/fastapi_prices.py
    python examples/fastapi_prices.py --serve
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

from command_line import number_in, parser_for
from market_server import MarketServer

import singleflight
from singleflight import Answer, single_flight_ttl

try:
    import httpx
    import uvicorn
    from fastapi import FastAPI, HTTPException, Response
except ImportError as error:
    sys.exit(f"fastapi_prices: {error}; install what it needs: pip install -e '.[web]'")

QUOTES = "/v2/stocks/quotes/latest"


class Market:
    """The prices of a market that is asked over HTTP, by tasks and by threads."""

    def __init__(self, url: str) -> None:
        self.tasks = httpx.AsyncClient(base_url=url, timeout=10, trust_env=False)  # no proxy: it is loopback
        self.threads = httpx.Client(base_url=url, timeout=10, trust_env=False)

    # Without a `key` the market counts by identity and the arguments as they are: spell a symbol in one way.
    @single_flight_ttl(ttl=60, flight_timeout=30)
    async def aprice(self, symbol: str) -> float | None:
        return bid(await self.tasks.get(QUOTES, params={"symbols": symbol}), symbol)

    @aprice.twin
    def price(self, symbol: str) -> float | None:
        return bid(self.threads.get(QUOTES, params={"symbols": symbol}), symbol)

    async def close(self) -> None:
        await self.tasks.aclose()
        self.threads.close()


def bid(answer: httpx.Response, symbol: str) -> float | None:
    """The bid in an answer; None, which is not stored, where the market has none."""
    if answer.status_code == httpx.codes.BAD_REQUEST:  # that is no symbol
        return None
    quote = answer.raise_for_status().json()["quotes"].get(symbol)
    return float(quote["bp"]) if quote else None


def make_app(market_url: str) -> FastAPI:
    market = Market(market_url)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await singleflight.drain(timeout=10)  # calls that are being made use the connections
        await market.close()

    app = FastAPI(lifespan=lifespan)

    @app.get("/prices/{symbol}")
    async def price(symbol: str, response: Response) -> dict[str, float | str]:
        return shown(symbol, await market.aprice.answer(symbol.upper()), response)

    @app.get("/prices-in-a-thread/{symbol}")
    def price_in_a_thread(symbol: str, response: Response) -> dict[str, float | str]:
        return shown(symbol, market.price.answer(symbol.upper()), response)

    return app


def shown(symbol: str, answer: Answer[float | None], response: Response) -> dict[str, float | str]:
    header = {"Cache-Status": answer.cache_status("prices")}
    if answer.value is None:
        raise HTTPException(404, f"no price for {symbol}", header)
    response.headers.update(header)
    return {"symbol": symbol.upper(), "price": answer.value}


@contextlib.contextmanager
def serving(app: FastAPI, port: int = 0) -> Iterator[str]:
    """The app's origin, for as long as uvicorn serves it on a port of loopback; 0: a free one."""
    try:
        listening = socket.create_server(("127.0.0.1", port), backlog=256)
    except OSError as error:
        sys.exit(f"fastapi_prices: --port {port}: {os.strerror(error.errno or errno.EIO)}")
    with listening:
        # It listens already: who asks before uvicorn is ready waits, instead of being refused.
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(15)


async def burst(origin: str, browsers: int) -> list[tuple[float, str]]:
    """The price and status that so many browsers see which ask at once, half of them in a thread."""
    pages = [f"/{'prices-in-a-thread' if number % 2 else 'prices'}/asml" for number in range(browsers)]
    limits = httpx.Limits(max_connections=browsers)
    async with httpx.AsyncClient(base_url=origin, timeout=20, limits=limits, trust_env=False) as client:
        answers = await asyncio.gather(*map(client.get, pages))
    return [
        (float(page.raise_for_status().json()["price"]), page.headers["cache-status"]) for page in answers
    ]


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument(
        "--browsers", type=browser_count, default=40, help="how many ask at once (default 40)"
    )
    parser.add_argument("--serve", action="store_true", help="stay up, for browsers of your own")
    parser.add_argument("--port", type=port, default=0, help="of the service (default: a free one)")
    options = parser.parse_args()
    with MarketServer(latency=0.2) as market, serving(make_app(market.url), options.port) as origin:
        if options.serve:
            stay_up(origin)
        else:
            show(origin, market, options.browsers)


def stay_up(origin: str) -> None:
    """Return when Ctrl-C is pressed."""
    with contextlib.suppress(KeyboardInterrupt):  # which may come as soon as it is said
        print(f"{origin}/prices/asml and {origin}/prices-in-a-thread/asml", flush=True)
        print("answer until you press Ctrl-C. The header Cache-Status says how.", flush=True)
        while True:
            time.sleep(3600)


def show(origin: str, market: MarketServer, browsers: int) -> None:
    """A burst without the decorator, and one with it."""
    print(f"{browsers} browsers at once, half of them at each endpoint of {origin}")
    for name in ("undecorated", "decorated"):
        market.reset()
        with Market.aprice.bypass() if name == "undecorated" else contextlib.nullcontext():
            began = time.perf_counter()
            pages = asyncio.run(burst(origin, browsers))
        took = time.perf_counter() - began
        ((price, times),) = Counter(price for price, _ in pages).items()
        print(f"{name:12} {len(market.requests):3} calls upstream, {times} x ${price:.2f}, {took:.2f} s")
        for status, times in Counter(status.partition("; ttl=")[0] for _, status in pages).items():
            print(f"{times:15} x Cache-Status: {status}")
    print(Market.aprice.stats())


def browser_count(text: str) -> int:
    return int(number_in(text, 1, 500, whole=True))


def port(text: str) -> int:
    return int(number_in(text, 0, 65_535, whole=True))


if __name__ == "__main__":
    main()
