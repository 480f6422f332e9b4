"""Coroutines that no asyncio task runs: what needs one says so, and what needs none works."""

import asyncio

import pytest

from singleflight import KeyedLocks, SingleFlightError, drain, single_flight_ttl

from ..drivers import PATIENCE


@single_flight_ttl(ttl=60, name="rates")
async def rate(currency):
    return currency.lower()


@rate.bulk
async def rates(currencies):
    return {currency: currency.lower() for currency in currencies}


@pytest.fixture(autouse=True)
def _empty():
    rate.cache_clear()


def by_hand(coroutine):
    """Without any event loop."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    finally:
        coroutine.close()
    raise AssertionError("it suspended")


def in_a_callback(coroutine):
    """With an event loop that runs, as some frameworks drive their own coroutines."""
    outcome = []

    def drive():
        try:
            outcome.append(by_hand(coroutine))
        except BaseException as error:
            outcome.append(error)

    async def main():
        asyncio.get_running_loop().call_soon(drive)
        while not outcome:
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


async def take(locks):
    async with locks("a"):
        return "had it"


LOCKS = KeyedLocks()
NEEDING = {
    "rates": lambda: rate("EUR"),
    "rates, anew": lambda: rate.refresh("EUR"),
    "rates, many": lambda: rates(["EUR", "USD"]),
    "async with locks(...)": lambda: take(LOCKS),
    "drain": drain,
}


@pytest.mark.parametrize("drive", [by_hand, in_a_callback])
@pytest.mark.parametrize("what", NEEDING)
def test_what_needs_a_task_says_so(drive, what):
    """A clear error that names it, whatever drives the coroutine; and nothing is left behind."""
    with pytest.raises(RuntimeError) as raised:
        drive(NEEDING[what]())
    assert str(raised.value).startswith(f"{what.partition(', ')[0]}: needs an asyncio task, and none runs")
    assert isinstance(raised.value, SingleFlightError)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    assert (rate.flights(), rate.stats().calls, len(rate.locks), len(LOCKS)) == ((), 0, 0, 0)
    assert asyncio.run(rate("EUR")) == "eur"


@pytest.mark.parametrize("drive", [by_hand, in_a_callback])
def test_a_hit_needs_none(drive):
    """What is stored is served, one key or many; with `bypass` nothing is waited for either."""
    rate.put("eur", "EUR")
    rate.put("usd", "USD")
    assert drive(rate("EUR")) == "eur"
    assert drive(rates(["EUR", "USD"])) == {"EUR": "eur", "USD": "usd"}
    with rate.bypass():
        assert drive(rate("CHF")) == "chf"
        assert drive(rates(["CHF"])) == {"CHF": "chf"}
    assert rate.stats().hits == 3
