"""Wrong uses, each of which mypy and pyright must reject; checked, never run."""

from collections.abc import Callable
from typing import Protocol, Self

from singleflight import Entry, KeyedLocks, single_flight_ttl
from singleflight.testing import FakeClock


@single_flight_ttl(ttl=60)
def price(symbol: str, *, exact: bool = False) -> float:
    return 1.0


class Account:
    @single_flight_ttl(ttl=60)
    def get(self, symbol: str) -> int:
        return 1

    @single_flight_ttl(ttl=60)
    @classmethod
    def of_class(cls, name: str) -> bytes:
        return b""

    @classmethod
    @single_flight_ttl(ttl=60)
    def of_class_below(cls, name: str) -> bytes:
        return b""

    @single_flight_ttl(ttl=60)
    @staticmethod
    def static(symbol: str) -> complex:
        return 1j

    @staticmethod
    @single_flight_ttl(ttl=60)
    def static_below(symbol: str) -> complex:
        return 1j


class Link:
    @single_flight_ttl(ttl=60)
    def itself(self, number: int = 1) -> Self:
        return self

    @single_flight_ttl(ttl=60)
    @classmethod
    def make(cls, number: int = 1) -> Self:
        return cls()

    @staticmethod
    @single_flight_ttl(ttl=60)
    def named_below(name: str) -> "Link":
        return Link()


class Prices(Protocol):
    def price(self, symbol: str) -> float: ...


class TextPrices:
    @single_flight_ttl(ttl=60)
    def price(self, symbol: str) -> str:
        return ""


class IntPrices:
    @single_flight_ttl(ttl=60)
    def price(self, symbol: int) -> float:
        return 1.0


class MorePrices:
    @single_flight_ttl(ttl=60)
    def price(self, symbol: str, price_type: str) -> float:
        return 1.0


@single_flight_ttl(ttl=60)
async def aprice(symbol: str) -> float:
    return 1.0


class AsyncAccount:
    @single_flight_ttl(ttl=60)
    async def get(self, symbol: str) -> int:
        return 1

    @get.twin
    def get_now(self, symbol: str) -> bytes:
        return b""


# Calls
price(1)  # error
price()  # error
price("A", "B")  # error
price("A", exact="no")  # error
price("A", other=1)  # error
text: str = price("A")  # error
takes_int: Callable[[int], float] = price  # error
Account().get(1)  # error
Account().get()  # error
Account.get("A")  # error
number: str = Account().get("A")  # error
Account.of_class(1)  # error
Account().of_class(1)  # error
Account.of_class_below(1)  # error
Account.static(1)  # error
Account().static(1)  # error
Account().static_below(1)  # error
Link().itself("A")  # error
Link().itself(1, 2)  # error
Link.itself()  # error
linked: str = Link().itself()  # error
Link().itself.entry("A")  # error
Link.make("A")  # error
Link().make(1, 2)  # error
made: str = Link.make()  # error
Link().named_below()  # error
Link().named_below(1)  # error
text_prices: Prices = TextPrices()  # error
int_prices: Prices = IntPrices()  # error
more_prices: Prices = MorePrices()  # error

# The control surface
price.invalidat("A")  # error
price.invalidate(1)  # error
price.invalidate()  # error
price.entry("A", "B")  # error
price.refresh("A", exact=1.5)  # error
price.answer("A", exact=1.5)  # error
price.put(1.0)  # error
price.put("1", "A")  # error
price.name = "other"  # error
Account().get.put("1", "A")  # error
Account.get.put("1", Account(), "A")  # error
single_flight_ttl(price, ttl=60, copy=1)  # error
single_flight_ttl(price, ttl=60, policy="LRUCache")  # error
single_flight_ttl(price, ttl=60, weigh=lambda value: "heavy")  # error
single_flight_ttl(price, ttl=60, failure_ttl=lambda error: "60")  # error
price.explain(b"A")  # error
price.stats(1)  # error
price.stats().hit  # error
price.entry("A").value  # error
Account().get.entry(1)  # error
Account().get.put(1)  # error
Account.get.invalidate("A")  # error
Account.of_class.entry(1)  # error
Account.static.refresh(1)  # error
wrong: str = Account().get.refresh("A")  # error


# Coroutine functions and twins
async def later(account: AsyncAccount) -> None:
    _text: str = await aprice("A")  # error
    await aprice(1)  # error
    _number: float = aprice("A")  # error
    await aprice.refresh(1)  # error
    _value: float = aprice.refresh("A")  # error
    await aprice.entry("A")  # error
    aprice.put("1", "A")  # error
    account.get.put(1.5, "A")  # error
    account.get.put(1, 2)  # error
    _entry: Entry[str] | None = aprice.entry("A")  # error
    await account.get(1)  # error
    _word: str = await account.get("A")  # error
    _other: str = await account.get.refresh("A")  # error
    await account.get_now("A")  # error
    account.get_now(1)  # error
    _third: int = account.get_now("A")  # error


price.twin(3)  # error
price.twin()  # error


# Bulk loaders
@price.bulk
def prices(symbols: list[str]) -> dict[str, float]:
    return {}


prices("A")  # error
prices([1])  # error
prices()  # error
prices.invalidate(["A"])  # error
_names: list[str] = prices(["A"])  # error
price.bulk(3)  # error
price.bulk(max_batch="many")  # error
price.bulk(gather="soon")  # error
price.bulk(batch=3)  # error

# Options
single_flight_ttl(ttl="60")  # error
single_flight_ttl()  # error
single_flight_ttl(60)  # error
single_flight_ttl(ttl=1, shelf_life=3)  # error
single_flight_ttl(ttl=1, grace="long")  # error
single_flight_ttl(ttl=1, refresh_ahead="early")  # error
single_flight_ttl(ttl=1, key=1)  # error
single_flight_ttl(ttl=1, key=["symbol"])  # error
single_flight_ttl(ttl=1, key=("symbol", 1))  # error
single_flight_ttl(ttl=1, ignore=1)  # error
single_flight_ttl(ttl=1, ignore=(1,))  # error
single_flight_ttl(ttl=1, typed="yes")  # error
single_flight_ttl(ttl=1, maxsize="many")  # error
single_flight_ttl(ttl=1, maxsize=1.5)  # error
single_flight_ttl(ttl=1, follower_retries=0.5)  # error
single_flight_ttl(ttl=1, wait_timeout="1s")  # error
single_flight_ttl(ttl=1, timer=0)  # error
single_flight_ttl(ttl=1, name=b"name")  # error
single_flight_ttl(ttl=lambda: 1)  # error

# The rest
KeyedLocks(max_idle="3")  # error
KeyedLocks()("a", timeout="1")  # error
KeyedLocks()([])  # error
FakeClock("now")  # error
