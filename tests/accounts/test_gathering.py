"""Single prices that are asked for at about the same time travel in one request."""

import asyncio
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest

SYMBOLS = [f"S{number}" for number in range(50)]


@pytest.fixture
def account(open_account):
    """One that gathers for a moment."""
    return open_account(gather=0.02)


@pytest.fixture
def patient(open_account):
    """One that gathers for longer than any test takes, unless a request is full."""
    return open_account(gather=50)


@pytest.fixture(autouse=True)
def market(server):
    """Fifty symbols, which fill one request."""
    server.prices.update(dict.fromkeys(SYMBOLS, 100.0))


def asked(server):
    return sorted(parse_qs(urlsplit(target).query)["symbols"][0] for target in server.requests)


@pytest.mark.parametrize("fault", [None, "weekend", "wrong keys"])
def test_fifty_threads(patient, server, fault):
    """One request for them all, and none in the refreshes after it, priced or not."""
    server.weekend = fault == "weekend"
    server.secrets = {} if fault == "wrong keys" else None
    counts = []
    with ThreadPoolExecutor(50) as pool:
        for _ in range(3):
            server.reset()
            prices = list(pool.map(patient.get_instrument_current_price, SYMBOLS, timeout=50))
            assert prices == [None if fault else 100.0] * 50
            counts.append(len(server.requests))
    assert counts == [1, 0, 0]


def test_fifty_tasks(patient, server, loop):
    """They are gathered too, in the threads in which their requests are made."""

    async def burst():
        return await asyncio.gather(*map(patient.aget_instrument_current_price, SYMBOLS))

    assert loop.run(burst) == [100.0] * 50
    assert len(server.requests) == 1


def test_each_kind_and_type_apart(account, server, crowd):
    """One request for each kind of instrument, and for quotes and trades; bid and ask share a quote."""
    for symbol, kind in [
        ("ASML", "bid"),
        ("AAPL", "bid"),
        ("ASML", "ask"),
        ("BTC/USD", "bid"),
        ("ASML", "last"),
    ]:
        crowd.add(account.get_instrument_current_price, symbol, kind)
    assert crowd.join() == [984.75, 190.5, 985.25, 64000.5, 984.75]
    assert len(server.requests) <= 4
    assert {"BTC/USD"} <= set(asked(server))


def test_a_failure_is_each_ones(account, server, crowd):
    """All have None, and the next callers ask again."""
    server.outage = True
    for symbol in SYMBOLS[:5]:
        crowd.add(account.get_instrument_current_price, symbol)
    assert crowd.join() == [None] * 5
    server.outage = False
    assert account.get_instrument_current_price("S0") == 100.0


def test_one_that_is_refused_leaves_the_others(account, server, crowd):
    """As in a call for many."""
    server.unknown_is_400 = True
    for symbol in ("S0", "XYZ", "S1"):
        crowd.add(account.get_instrument_current_price, symbol)
    assert crowd.join() == [100.0, None, 100.0]


def test_bypassed(patient, server):
    """Nobody waits for others."""
    with patient.get_instrument_current_price.bypass():
        assert patient.get_instrument_current_price("S0") == 100.0
    assert len(server.requests) == 1


def test_copies(account):
    """They gather by themselves, also after a price."""
    account.get_instrument_current_price("S0")
    for other in (pickle.loads(pickle.dumps(account)), copy.copy(account)):
        assert other.get_instrument_current_price("S0", "last") == 100.0


@pytest.mark.parametrize(("gather", "error"), [(-1, ValueError), ("soon", TypeError)])
def test_bad_ones(open_account, gather, error):
    """They are named."""
    with pytest.raises(error, match=r"^gather: "):
        open_account(gather=gather)
