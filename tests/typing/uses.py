"""Typical uses, which mypy and pyright must accept; checked, never run."""

from datetime import timedelta
from typing import assert_type

from singleflight import Entry, KeyedLocks, Landing, Stats, caches, report, single_flight_ttl


@single_flight_ttl(ttl=60)
def price(symbol: str, price_type: str = "bid") -> float:
    return 1.0


assert_type(price("A"), float)
assert_type(price("A", price_type="ask"), float)
assert_type(price.invalidate("A"), bool)
assert_type(price.entry("A"), Entry | None)
assert_type(price.refresh("A"), float)
assert_type(price.stats(), Stats)
price.put(1.0, "A")
with price.bypass():
    pass
with price.locks("A"):
    pass


def ttl(landing: Landing) -> timedelta:
    return timedelta(seconds=1)


class Account:
    @single_flight_ttl(key=lambda self, symbol: symbol, ttl=ttl)
    def get(self, symbol: str) -> int:
        return 1

    @single_flight_ttl(ttl=None)
    @staticmethod
    def static(symbol: str) -> int:
        return 1

    @staticmethod
    @single_flight_ttl(ttl=None)
    def static_below(symbol: str) -> int:
        return 1


account = Account()
assert_type(account.get("A"), int)
assert_type(Account.get(account, "A"), int)
assert_type(account.get.invalidate("A"), bool)
assert_type(Account.get.invalidate(account, "A"), bool)
assert_type(account.get.refresh("A"), int)
assert_type(Account.static_below("A"), int)

locks = KeyedLocks(max_idle=3)
with locks("a", "b", timeout=timedelta(seconds=1)):
    pass
assert_type(locks.held("a"), bool)
assert_type(report(), str)
for cached in caches():
    cached.cache_clear()
