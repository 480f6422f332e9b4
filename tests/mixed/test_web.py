"""The FastAPI example over real HTTP: httpx asks a uvicorn that asks a market, all on loopback."""

import asyncio
import importlib
import threading
from pathlib import Path

import pytest

from ..drivers import PATIENCE, until

for needed in ("fastapi", "httpx", "uvicorn"):
    pytest.importorskip(needed)


@pytest.fixture
def example(monkeypatch):
    """The example's module, with nothing stored."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    module = importlib.import_module("fastapi_prices")
    module.Market.aprice.cache_clear()
    return module


@pytest.fixture
def service(example):
    """The market, a gate that holds its answers back, and the origin of the app that asks it."""
    gate = threading.Event()

    def hold(path, symbols):
        assert gate.wait(PATIENCE), "the gate was never opened"

    with example.MarketServer() as market, example.serving(example.make_app(market.url)) as origin:
        market.before_answer = hold
        try:
            yield market, gate, origin
        finally:
            gate.set()


async def when(condition, gate):
    """Open the gate once the condition holds."""
    try:
        await asyncio.to_thread(until, condition)
    finally:
        gate.set()


def waiting(example):
    return sum(flight.followers for flight in example.Market.aprice.flights())


def prices(answers):
    """What a burst's answers hold beside how they were served."""
    return [price for price, _ in answers]


def test_a_burst_makes_one_call_upstream(example, service):
    """Thirty requests wait together, at an endpoint that awaits and at one that runs in threads."""
    market, gate, origin = service

    async def main():
        asking = asyncio.create_task(example.burst(origin, 30))
        await when(lambda: waiting(example) == 29, gate)
        return await asyncio.wait_for(asking, PATIENCE)

    assert prices(asyncio.run(main())) == [984.75] * 30
    assert len(market.requests) == 1
    assert prices(asyncio.run(example.burst(origin, 30))) == [984.75] * 30  # from what is stored
    assert len(market.requests) == 1
    stats = example.Market.aprice.stats()
    assert (stats.calls, stats.waits, stats.hits) == (1, 29, 30)


@pytest.mark.parametrize("endpoint", ["prices", "prices-in-a-thread"])
def test_either_endpoint_asks(example, service, endpoint):
    """And what one has asked for the other finds; what the market does not have is not kept."""
    import httpx

    market, gate, origin = service
    gate.set()
    with httpx.Client(base_url=origin, timeout=PATIENCE, trust_env=False) as client:
        for path in (endpoint, "prices", "prices-in-a-thread"):
            assert client.get(f"/{path}/aapl").json() == {"symbol": "AAPL", "price": 190.5}
        assert len(market.requests) == 1
        for _ in range(2):
            assert client.get(f"/{endpoint}/XYZ").status_code == 404
        assert len(market.requests) == 3


def test_a_browser_that_goes_away_disturbs_nobody(example, service):
    """The first to ask gives up while the others wait."""
    import httpx

    market, gate, origin = service

    async def main():
        async with httpx.AsyncClient(base_url=origin, timeout=PATIENCE, trust_env=False) as client:
            first = asyncio.create_task(client.get("/prices/ASML"))
            await asyncio.to_thread(until, lambda: market.requests)
            asking = asyncio.create_task(example.burst(origin, 4))
            await asyncio.to_thread(until, lambda: waiting(example) == 4)
            first.cancel()
            await asyncio.wait([first], timeout=PATIENCE)
            gate.set()
            return first.cancelled(), await asyncio.wait_for(asking, PATIENCE)

    gone, answers = asyncio.run(main())
    assert (gone, prices(answers)) == (True, [984.75] * 4)
    assert len(market.requests) == 1
