"""Wrong uses, each of which mypy and pyright must reject; checked, never run."""

from singleflight import KeyedLocks, single_flight_ttl


@single_flight_ttl(ttl=60)
def price(symbol: str) -> float:
    return 1.0


class Account:
    @single_flight_ttl(ttl=60)
    def get(self, symbol: str) -> int:
        return 1


price(1)  # error
price()  # error
price("A", "B")  # error
text: str = price("A")  # error
price.invalidat("A")  # error
price.invalidate(1)  # error
Account().get(1)  # error
Account().get.entry(1)  # error
number: str = Account().get("A")  # error
single_flight_ttl(ttl="60")  # error
single_flight_ttl()  # error
single_flight_ttl(ttl=1, grace=3)  # error
KeyedLocks(max_idle="3")  # error
