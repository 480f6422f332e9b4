"""Single prices that are asked for at about the same time travel in one request."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest

SYMBOLS = [f"S{number}" for number in range(50)]


@pytest.fixture
def account(open_account, server):
    """One that gathers for long enough that a loaded machine does not matter."""
    server.prices.update(dict.fromkeys(SYMBOLS, 100.0))
    return open_account(gather=0.1)


def asked(server):
    return sorted(parse_qs(urlsplit(target).query)["symbols"][0] for target in server.requests)


@pytest.mark.parametrize("fault", [None, "weekend", "wrong keys"])
def test_ten_threads_with_five_symbols_each(account, server, fault):
    """Five requests at most, and none in the refreshes after it, priced or not."""
    server.weekend = fault == "weekend"
    server.secrets = {} if fault == "wrong keys" else None

    def widget(first):
        return [account.get_instrument_current_price(symbol) for symbol in SYMBOLS[first::10]]

    counts = []
    with ThreadPoolExecutor(10) as pool:
        for _ in range(3):
            server.reset()
            prices = [price for some in pool.map(widget, range(10), timeout=50) for price in some]
            assert prices == [None if fault else 100.0] * 50
            counts.append(len(server.requests))
    assert counts[0] <= 5
    assert counts[1:] == [0, 0]


def test_fifty_threads(account, server):
    """One request, which leaves as soon as it is full."""
    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(account.get_instrument_current_price, SYMBOLS, timeout=50)) == [100.0] * 50
    assert len(server.requests) <= 2


def test_tasks(account, server, loop):
    """They are gathered too, with the threads in which their requests are made."""
    import asyncio

    async def burst():
        return await asyncio.gather(*map(account.aget_instrument_current_price, SYMBOLS))

    assert loop.run(burst) == [100.0] * 50
    assert len(server.requests) <= 2


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


def test_bypassed(account, server):
    """Nobody waits for others."""
    with account.get_instrument_current_price.bypass():
        assert account.get_instrument_current_price("S0") == 100.0
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
