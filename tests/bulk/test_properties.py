"""Random overlapping batches from threads and tasks: each key once per ttl, everybody what they asked."""

import asyncio
import collections
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleflight.testing import FakeClock

from ..drivers import suspends
from .conftest import TURNS, BulkDriver

KEYS = "ABCDEFGH"
BATCHES = st.lists(st.lists(st.sampled_from(KEYS + KEYS.lower()), max_size=6), min_size=2, max_size=8)


async def breathe():
    """Let the others run."""
    if suspends():
        await asyncio.sleep(0)
    else:
        threading.Event().wait(0.0001)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
@settings(max_examples=40, deadline=None)
@given(rounds=st.lists(BATCHES, min_size=1, max_size=3), max_batch=st.sampled_from([None, 1, 2, 3]))
def test_every_key_is_fetched_once_per_ttl(turns, rounds, max_batch):
    """Whoever asks for what at the same time: one fetch per key and ttl, and exact answers in order."""
    clock, driver = FakeClock(), BulkDriver(*turns)
    fetched = collections.Counter()

    async def price(symbol):
        fetched[symbol.upper()] += 1
        await breathe()
        return symbol.upper(), clock()

    async def prices(symbols):
        assert len(set(map(str.upper, symbols))) == len(symbols) <= (max_batch or 100)
        fetched.update(map(str.upper, symbols))
        await breathe()
        return {symbol.upper(): (symbol.upper(), clock()) for symbol in symbols}

    async def bulk(items):
        return await prices(items)

    async def single(items):
        return {items[0]: await price(items[0])} if items else {}

    try:
        price = driver.decorate(price, key=str.upper, ttl=60, timer=clock)
        prices = driver.loader(price, prices, max_batch=max_batch)
        asked = 0
        for batches in rounds:
            fetched.clear()
            callers = []
            for number, items in enumerate(batches):
                alone = number % 3 == 2
                wanted = items[:1] if alone else items
                callers.append((wanted, driver.start(single if alone else bulk, wanted)))
                asked += len({item.upper() for item in wanted})
            for wanted, caller in callers:
                answer = caller.outcome()
                assert list(answer) == list(dict.fromkeys(wanted))
                assert answer == {item: (item.upper(), clock()) for item in wanted}
            assert set(fetched) == {item.upper() for wanted, _ in callers for item in wanted}
            assert set(fetched.values()) <= {1}
            clock.advance(60)
        stats = price.stats()
        assert stats.hits + stats.waits + stats.fetches == asked
        assert (stats.errors, stats.timeouts, stats.in_flight) == (0, 0, 0)
        assert stats.locks == stats.idle_locks
    finally:
        driver.close()


@pytest.mark.timeout(200)
@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
@settings(max_examples=40, deadline=None)
@given(
    batches=BATCHES,
    failing=st.sets(st.sampled_from(KEYS), max_size=2),
    missing=st.sets(st.sampled_from(KEYS), max_size=2),
    retries=st.sampled_from([0, 1, None]),
    cancelled=st.sets(st.integers(0, 7), max_size=3),
)
def test_whatever_fails_every_call_ends_and_is_counted(turns, batches, failing, missing, retries, cancelled):
    """With failures, missing keys and cancelled tasks: no call hangs, none is answered wrongly or lost."""
    driver = BulkDriver(*turns)

    async def price(symbol):
        return symbol.upper()

    async def body(symbols):
        await breathe()
        if failing.intersection(map(str.upper, symbols)):
            raise ValueError(symbols)
        return {symbol: symbol.upper() for symbol in symbols if symbol.upper() not in missing}

    try:
        price = driver.decorate(price, key=str.upper, follower_retries=retries)
        prices = driver.loader(price, body, max_batch=2)
        asked, callers = 0, []
        for number, items in enumerate(batches):
            callers.append((items, driver.start(prices, items)))
            asked += len({item.upper() for item in items})
            if number in cancelled and hasattr(callers[-1][1], "cancel"):
                callers[-1][1].cancel()
        unknown = 0
        for items, caller in callers:
            outcome = caller.outcome()
            if isinstance(outcome, asyncio.CancelledError):
                unknown += len({item.upper() for item in items})  # perhaps it had not begun
            elif isinstance(outcome, ValueError):
                assert failing
            else:
                wanted = [item for item in dict.fromkeys(items) if item.upper() not in missing]
                assert list(outcome.items()) == [(item, item.upper()) for item in wanted]
        for loop in driver.loops:
            loop.run(breathe)
    finally:
        driver.close()
    stats = price.stats()
    received = stats.hits + stats.waits + stats.fetches + stats.errors + stats.timeouts
    assert asked - unknown <= received <= asked
    assert stats.in_flight == 0
    assert stats.locks == stats.idle_locks
