"""Keyed locks in FastAPI's dependencies with a `yield`; the app runs in this process, without a server."""

import asyncio

import pytest

from singleflight import KeyedLocks

from ..drivers import PATIENCE

fastapi, httpx, anyio = (pytest.importorskip(needed) for needed in ("fastapi", "httpx", "anyio"))


def make_app(dependency, begun, go):
    """One endpoint, which goes on when it may."""
    app = fastapi.FastAPI()

    @app.get("/")
    async def endpoint(_=fastapi.Depends(dependency)):
        begun.append(len(begun))
        await asyncio.wait_for(go.wait(), PATIENCE)
        return "served"

    return app


async def ask_staggered(make_dependency, locks, workers=40, requests=5):
    """Status and time of each: the next one is sent once the one before is in the endpoint or waits."""
    begun, go = [], asyncio.Event()
    anyio.to_thread.current_default_thread_limiter().total_tokens = workers
    transport = httpx.ASGITransport(make_app(make_dependency(locks), begun, go), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app", trust_env=False) as client:
        asking = []
        for number in range(requests):
            asking.append(asyncio.create_task(client.get("/")))
            while not asking[-1].done() and (not begun or locks.waiting("k") < number):
                await asyncio.sleep(0)
        assert (begun, locks.waiting("k")) == ([0], requests - 1)
        go.set()
        answers = await asyncio.wait_for(asyncio.gather(*asking), PATIENCE)
    assert begun == list(range(requests))
    return [answer.status_code for answer in answers]


def plain(locks):
    def dependency():
        with locks("k", timeout=5 + PATIENCE):
            yield

    return dependency


def without_a_timeout(locks):
    def dependency():
        with locks("k"):
            yield

    return dependency


def in_a_task(locks):
    async def dependency():
        async with locks("k", timeout=5 + PATIENCE):
            yield

    return dependency


@pytest.mark.parametrize("make", [plain, without_a_timeout, in_a_task])
def test_staggered_requests_are_all_served(make):
    """Five requests for one lock, each begun while the one before has it or waits: 200, five times."""
    locks = KeyedLocks()
    assert asyncio.run(ask_staggered(make, locks)) == [200] * 5
    assert len(locks) == locks.idle == 1


def test_a_request_that_needs_the_lock_twice_is_refused():
    """A dependency and an endpoint in the same job would wait for themselves: that is told at once."""
    locks, refused = KeyedLocks(), []
    app = fastapi.FastAPI()

    def dependency():
        with locks("k", timeout=PATIENCE):
            try:
                with locks("k", timeout=PATIENCE):
                    yield
            except RuntimeError as error:
                refused.append(type(error).__name__)
                yield

    @app.get("/")
    def endpoint(_=fastapi.Depends(dependency)):
        return "served"

    async def main():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app", trust_env=False) as client:
            return (await asyncio.wait_for(client.get("/"), PATIENCE)).status_code

    assert asyncio.run(main()) == 200
    assert refused == ["FlightDeadlock"]
    assert not locks.held("k")
