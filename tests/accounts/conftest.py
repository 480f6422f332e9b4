"""A market on loopback, an account on it, and ways to wait for what threads do."""

import importlib.util
import sys
import threading
import time
from pathlib import Path

import pytest

from singleflight.accounts import AccountInterface, AlpacaAccount
from singleflight.accounts.readings import Readings

from ..drivers import LoopThread

PATIENCE = 20.0
getter = AccountInterface.get_instrument_current_price
DECORATED = (
    getter,
    Readings.reading,
    AlpacaAccount.get_account,
    AlpacaAccount.get_positions,
    AlpacaAccount.get_clock,
    AlpacaAccount.get_asset,
)


def load_example(name):
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def market_server():
    """The examples' server module."""
    return load_example("market_server")


@pytest.fixture(scope="session")
def market_stream(market_server):
    """The examples' stream module."""
    pytest.importorskip("websockets.sync.server")
    pytest.importorskip("msgpack")
    sys.modules.setdefault("market_server", market_server)
    return load_example("market_stream")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Each test begins without prices, without settings from outside and without a proxy."""
    for name in (
        "APCA_API_KEY_ID",
        "APCA_API_SECRET_KEY",
        "PRICE_CACHE_TIME",
        "PRICE_CACHE_GRACE",
        "SINGLEFLIGHT_DISABLED",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for function in DECORATED:
        function.cache_clear()
    yield
    for function in DECORATED:
        function.cache_clear()


@pytest.fixture
def server(market_server):
    """A market with a few prices."""
    with market_server.MarketServer() as server:
        yield server


@pytest.fixture
def open_account(server):
    """Makes accounts on that market; without retries unless they are asked for."""
    pytest.importorskip("alpaca")

    def make(name=1, **options):
        return AlpacaAccount(
            name, "key", "secret", **{"url": server.url, "retries": 0, "retry_wait": 0, **options}
        )

    return make


@pytest.fixture
def account(open_account):
    """Account 1."""
    return open_account(1)


@pytest.fixture
def until():
    """Waits until something holds."""

    def wait_for(condition):
        give_up = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < give_up, f"never so; in flight: {[f.flights() for f in DECORATED]}"
            time.sleep(0)

    return wait_for


@pytest.fixture
def followers(until):
    """Waits until so many callers wait for a function's flights; the price getter's, if none is named."""

    def wait_for(count, function=getter):
        until(lambda: sum(flight.followers for flight in function.flights()) == count)

    return wait_for


@pytest.fixture
def meeting():
    """A barrier for the given number of requests: they pass only if they are in flight together."""

    def make(parties):
        barrier = threading.Barrier(parties)

        def meet(path, symbols):
            barrier.wait(PATIENCE)

        return meet

    return make


@pytest.fixture
def loops():
    """Makes loops in threads of their own; nothing may have been reported to them."""
    made = []

    def make():
        made.append(LoopThread())
        return made[-1]

    yield make
    for loop in made:
        loop.close()
    assert [report for loop in made for report in loop.reports] == []


@pytest.fixture
def loop(loops):
    """One of them."""
    return loops()
