"""Typical uses, which mypy and pyright must accept; checked, never run."""

import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping
from datetime import timedelta
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar, assert_type, cast, overload

from alpaca.trading.models import Asset, Clock, Order, Position, TradeAccount
from alpaca.trading.requests import MarketOrderRequest
from cachetools import LFUCache, LRUCache

from singleflight import (
    Answer,
    BoundBulkLoader,
    BoundSingleFlight,
    BulkLoader,
    Entry,
    Explanation,
    FlightDeadlock,
    FlightInfo,
    FlightTimeout,
    KeyedLocks,
    Landing,
    Listener,
    LoggingListener,
    SingleFlightFunction,
    Stats,
    UnhashableKey,
    caches,
    report,
    single_flight_ttl,
)
from singleflight.accounts import AccountInterface, AlpacaAccount, Quote
from singleflight.telemetry.events import Event, Land
from singleflight.testing import FakeClock, Recorder, Stampede, stampede

Q = ParamSpec("Q")
T = TypeVar("T")

# -- functions: parameters, defaults and the return type are kept -------------------------------------------


@single_flight_ttl(ttl=60)
def price(symbol: str, price_type: str = "bid", *, exact: bool = False) -> float:
    return 1.0


assert_type(price("A"), float)
assert_type(price("A", "ask", exact=True), float)
assert_type(price(symbol="A", price_type="ask"), float)
wanted: Callable[[str], float] = price
assert_type(price.__wrapped__("A"), float)
assert_type(price.__name__, str)

# -- the control surface takes the same arguments ------------------------------------------------------------

assert_type(price.invalidate("A"), bool)
assert_type(price.invalidate("A", "ask", exact=True), bool)
assert_type(price.invalidate_where(lambda key: key[0] == "A"), int)
assert_type(price.entry("A"), Entry[float] | None)
stored = price.entry("A")
if stored is not None:
    assert_type(stored.value, float)
    assert_type(stored.hits, int)
    wider: Entry[float | str] = stored
    assert_type(price.name, str)
    assert_type(price.clear(), int)
assert_type(price.refresh("A", exact=True), float)
assert_type(price.answer("A", exact=True), Answer[float])
assert_type(price.answer("A").value, float)
assert_type(price.answer("A").cache_status("app", key=True), str)
assert_type(price.explain("A"), Explanation)
assert_type(price.stats(), Stats)
assert_type(price.stats().hit_rate, float)
assert_type(price.flights(), tuple[FlightInfo, ...])
assert_type(price.cache_info().hits, int)
price.put(1.0, "A")
price.put(1.0, "A", exact=True)
price.cache_clear()
price.cache_parameters()["ttl"]
with price.bypass():
    pass
with price.locks("A"):
    pass

# -- options -------------------------------------------------------------------------------------------------


def lifetime(landing: Landing) -> timedelta:
    return timedelta(seconds=landing.duration)


def forever_or_not(landing: Landing) -> float | None:
    return None if landing.followers else 1.5


def same(symbol: str, *_: object) -> Hashable:
    return symbol.upper()


def listen(event: Event) -> None:
    if isinstance(event, Land):
        assert_type(event.duration, float)


class OnlyLandings:
    wants = frozenset({"land"})

    def __call__(self, event: Event, /) -> None: ...


listener: Listener = OnlyLandings()
quiet: Listener = LoggingListener(logging.getLogger(__name__), logging.INFO, wants={"land"})


@single_flight_ttl(
    ttl=lifetime,
    key=same,
    maxsize=None,
    max_idle_locks=0,
    cache_if=bool,
    follower_retries=None,
    wait_timeout=timedelta(seconds=1),
    timer=FakeClock(),
    listener=Recorder(wants={"land"}),
    name="everything",
)
def everything(symbol: str) -> list[int]:
    return [1]


@single_flight_ttl(ttl=forever_or_not, listener=listen, key=lambda symbol: symbol)
def something(symbol: str) -> None: ...


@single_flight_ttl(ttl=60, key="symbol", typed=True)
def by_name(symbol: str, session: object = None) -> float:
    return 1.0


@single_flight_ttl(ttl=60, key=("symbol", "session.id"))
async def by_names(symbol: str, session: Any) -> float:
    return 1.0


ignoring = (
    single_flight_ttl(ttl=60, ignore="session")(by_name.__wrapped__),
    single_flight_ttl(by_name.__wrapped__, ttl=60, ignore=["session"]),
    single_flight_ttl(by_name.__wrapped__, ttl=60, ignore={"session"}, typed=False),
)
named_price: float = by_name("A", session=1) + ignoring[0]("A") + ignoring[1]("A", 2)


@single_flight_ttl(ttl=None, listener=listener)
def nothing() -> int:
    return 1


def undecorated(x: int) -> str:
    return ""


assert_type(everything("A"), list[int])
assert_type(nothing(), int)
called_directly = single_flight_ttl(undecorated, ttl=timedelta(minutes=1))
assert_type(called_directly(1), str)
assert_type(single_flight_ttl(ttl=0)(undecorated).entry(1), Entry[str] | None)


@single_flight_ttl(ttl=60)
def same_type(value: T) -> T:
    return value


assert_type(same_type(1), int)

# -- methods, bound and unbound ------------------------------------------------------------------------------


class Account:
    @single_flight_ttl(key=lambda self, symbol, price_type="bid": (symbol, price_type), ttl=60)
    def get(self, symbol: str, price_type: str = "bid") -> int:
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

    def all_of_them(self) -> None:
        assert_type(self.get("A"), int)
        assert_type(self.of_class("A"), bytes)
        assert_type(self.of_class_below("A"), bytes)
        assert_type(self.static("A"), complex)
        assert_type(self.static_below("A"), complex)


class Margin(Account):
    def get_twice(self, symbol: str) -> int:
        return super().get(symbol) + self.get(symbol)


account = Account()
assert_type(account.get("A", price_type="ask"), int)
assert_type(Account.get(account, "A"), int)
assert_type(Margin().get("A"), int)
by_symbol: Callable[[str], int] = account.get
by_account: Callable[[Account, str], int] = Account.get
bound: BoundSingleFlight[[str], complex] | SingleFlightFunction[[str], complex] = account.static

assert_type(account.get.invalidate("A"), bool)
assert_type(Account.get.invalidate(account, "A"), bool)
assert_type(account.get.entry("A"), Entry[int] | None)
assert_type(Account.get.entry(account, "A", price_type="ask"), Entry[int] | None)
assert_type(account.get.refresh("A"), int)
assert_type(account.get.answer("A"), Answer[int])
assert_type(Account.get.answer(account, "A"), Answer[int])
assert_type(Account.get.refresh(account, "A"), int)
assert_type(account.get.explain("A"), Explanation)
assert_type(account.get.stats(), Stats)
account.get.put(1, "A")
Account.get.put(1, account, "A")
account.get.cache_clear()
assert_type(account.get.clear(), int)
assert_type(Account.get.clear(), int)
assert_type(account.get.name, str)
assert_type(Account.get.name, str)

assert_type(Account.of_class("A"), bytes)
assert_type(account.of_class("A"), bytes)
assert_type(Account.of_class.invalidate("A"), bool)
assert_type(account.of_class.refresh("A"), bytes)
assert_type(Account.of_class_below("A"), bytes)
assert_type(account.of_class_below("A"), bytes)
assert_type(Account.static("A"), complex)
assert_type(account.static("A"), complex)
assert_type(Account.static.entry("A"), Entry[complex] | None)
assert_type(account.static.refresh("A"), complex)
assert_type(Account.static_below("A"), complex)
assert_type(account.static_below("A"), complex)
assert_type(Account.static_below.entry("A"), Entry[complex] | None)
assert_type(account.static_below.entry("A"), Entry[complex] | None)


class Box(Generic[T]):
    @single_flight_ttl(ttl=60)
    def get(self, value: T) -> list[T]:
        return [value]


assert_type(Box[int]().get(1), list[int])

# -- methods of a Protocol, and methods that override others -------------------------------------------------


class Prices(Protocol):
    def price(self, symbol: str) -> float: ...
    def all_prices(self) -> list[float]: ...
    def exact_price(self, *, symbol: str) -> float: ...
    async def aprice(self, symbol: str) -> float: ...
    def prices(self, symbols: Iterable[str]) -> dict[str, float]: ...
    def copied(self) -> Self: ...


class BasePrices:
    @single_flight_ttl(ttl=60)
    def price(self, symbol: str) -> float:
        return 1.0

    @single_flight_ttl(ttl=60)
    def all_prices(self) -> list[float]:
        return []

    @single_flight_ttl(ttl=60)
    def exact_price(self, *, symbol: str) -> float:
        return 1.0

    @price.twin
    async def aprice(self, symbol: str) -> float:
        return 1.0

    @price.bulk
    def prices(self, symbols: Iterable[str]) -> dict[str, float]:
        return {}

    @single_flight_ttl(ttl=60)
    def copied(self) -> Self:
        return self


class OtherPrices(BasePrices):
    @single_flight_ttl(ttl=30)
    def price(self, symbol: str, price_type: str = "bid") -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1.0

    @single_flight_ttl(ttl=30)
    def all_prices(self) -> list[float]:
        return super().all_prices()


class StaticPrice:
    @single_flight_ttl(ttl=60)
    @staticmethod
    def price(symbol: str) -> float:
        return 1.0


class OnlyPrice(Protocol):
    def price(self, symbol: str) -> float: ...


base_prices: Prices = BasePrices()
other_prices: Prices = OtherPrices()
one_price: OnlyPrice = OtherPrices()
static_price: OnlyPrice = StaticPrice()


# -- overloads: kept; the control surface by a cast ----------------------------------------------------------


@overload
def load(name: str) -> str: ...
@overload
def load(name: int) -> int: ...
@single_flight_ttl(ttl=60)
def load(name: str | int) -> str | int:
    return name


assert_type(load("A"), str)
assert_type(load(1), int)
load_controls = cast("SingleFlightFunction[..., Any]", load)
assert_type(load_controls.invalidate("A"), bool)

# -- decorators above ours ------------------------------------------------------------------------------------


def traced(function: Callable[Q, T]) -> Callable[Q, T]:
    return function


def watched(function: SingleFlightFunction[Q, T]) -> SingleFlightFunction[Q, T]:
    return function


class Wrapped(ABC):
    @traced
    @single_flight_ttl(ttl=60)
    def traced(self, symbol: str) -> int:
        return 1

    @watched
    @single_flight_ttl(ttl=60)
    def watched(self, symbol: str) -> int:
        return 1

    @property
    @single_flight_ttl(ttl=60)
    def value(self) -> int:
        return 1

    @functools.cached_property
    @single_flight_ttl(ttl=60)
    def kept(self) -> int:
        return 1

    @abstractmethod
    @single_flight_ttl(ttl=60)
    def wanted(self, symbol: str) -> int: ...

    other_name = watched


def wrapped(here: Wrapped) -> None:
    assert_type(here.traced("A"), int)
    assert_type(here.watched("A"), int)
    assert_type(here.watched.invalidate("A"), bool)
    assert_type(here.value, int)
    assert_type(here.kept, int)
    assert_type(here.wanted("A"), int)
    assert_type(here.other_name("A"), int)


# -- coroutine functions: awaited where the original is, plain where the control surface is -----------------


@single_flight_ttl(ttl=60)
async def aprice(symbol: str, *, exact: bool = False) -> float:
    return 1.0


class AsyncAccount:
    @single_flight_ttl(key=lambda self, symbol: symbol, ttl=60)
    async def get(self, symbol: str) -> int:
        return 1

    @single_flight_ttl(ttl=60)
    @classmethod
    async def of_class(cls, name: str) -> bytes:
        return b""

    @single_flight_ttl(ttl=60)
    @staticmethod
    async def static(symbol: str) -> complex:
        return 1j


asyncly: Callable[[str], Awaitable[float]] = aprice
exactly: Callable[[str], Coroutine[Any, Any, float]] = aprice.__wrapped__
by_symbol_later: Callable[[str], Awaitable[int]] = AsyncAccount().get


async def later(account: AsyncAccount) -> None:
    assert_type(await aprice("A", exact=True), float)
    assert_type(await aprice.refresh("A"), float)
    assert_type(await aprice.answer("A"), Answer[float])
    assert_type(aprice.entry("A"), Entry[float] | None)
    assert_type(aprice.invalidate("A", exact=True), bool)
    aprice.put(1.0, "A")
    assert_type(account.get.entry("A"), Entry[int] | None)
    assert_type(AsyncAccount.get.entry(account, "A"), Entry[int] | None)
    account.get.put(1, "A")
    AsyncAccount.get.put(1, account, "A")
    assert_type(await account.get("A"), int)
    assert_type(await AsyncAccount.get(account, "A"), int)
    assert_type(await account.get.refresh("A"), int)
    assert_type(await account.get.answer("A"), Answer[int])
    assert_type(await AsyncAccount.get.refresh(account, "A"), int)
    assert_type(account.get.explain("A"), Explanation)
    assert_type(await AsyncAccount.of_class("A"), bytes)
    assert_type(await account.of_class.refresh("A"), bytes)
    assert_type(await AsyncAccount.static("A"), complex)
    assert_type(await account.static.refresh("A"), complex)


# -- methods that return their own instance ------------------------------------------------------------------


class Chained:
    @single_flight_ttl(ttl=60)
    def with_number(self) -> tuple[Self, int]:
        return self, 1

    @single_flight_ttl(ttl=60)
    async def itself(self) -> Self:
        return self

    @single_flight_ttl(ttl=60)
    @classmethod
    async def make(cls, number: int) -> Self:
        return cls()

    @itself.twin
    def with_number_now(self) -> list[Self]:
        return [self]

    @with_number.bulk
    def many(self) -> dict[str, Self]:
        return {}


class ChainedBelow(Chained):
    @single_flight_ttl(ttl=60)
    def with_number(self) -> tuple[Self, int]:
        return self, 2


TLink = TypeVar("TLink", bound="Link")


class Link:
    @single_flight_ttl(ttl=60)
    def itself(self) -> Self:
        return self

    @single_flight_ttl(ttl=60)
    def numbered(self, number: int = 1, *, name: str = "") -> Self:
        return self

    @single_flight_ttl(ttl=60)
    def of_variable(self: TLink) -> TLink:  # noqa: PYI019
        return self

    @itself.twin
    def twin(self) -> Self:
        return self

    @single_flight_ttl(ttl=60)
    def several(self) -> list[Self]:
        return [self]

    @single_flight_ttl(ttl=60)
    def perhaps(self) -> Self | None:
        return None

    @single_flight_ttl(ttl=60)
    @classmethod
    def make(cls, number: int = 1) -> Self:
        return cls()

    @classmethod
    @single_flight_ttl(ttl=60)
    def make_below(cls, number: int = 1) -> Self:
        return cls()

    @single_flight_ttl(ttl=60)
    @classmethod
    def make_several(cls) -> list[Self]:
        return [cls()]

    # static methods that look alike: they are not bound
    @single_flight_ttl(ttl=60)
    @staticmethod
    def named(name: str) -> "Link":
        return Link()

    @staticmethod
    @single_flight_ttl(ttl=60)
    def named_below(name: str) -> "Link":
        return Link()

    @single_flight_ttl(ttl=60)
    @staticmethod
    def upper(name: str) -> str:
        return name

    @staticmethod
    @single_flight_ttl(ttl=60)
    def upper_below(name: str) -> str:
        return name

    def chain(self) -> Self:
        assert_type(self.of_variable(), Self)
        return self.itself().numbered(2).make()

    @classmethod
    def chain_of_class(cls) -> Self:
        return cls.make().itself()


class LinkBelow(Link):
    def chain(self) -> Self:
        return super().itself()


assert_type(Link().itself(), Link)
assert_type(LinkBelow().itself(), LinkBelow)
assert_type(LinkBelow().itself.refresh(), LinkBelow)
assert_type(LinkBelow().itself.invalidate(), bool)
assert_type(LinkBelow().numbered(2, name="a"), LinkBelow)
assert_type(LinkBelow().numbered.entry(name="a"), Entry[LinkBelow] | None)
assert_type(Link().of_variable(), Link)
assert_type(LinkBelow().of_variable(), LinkBelow)
assert_type(LinkBelow().twin(), LinkBelow)
assert_type(LinkBelow().several(), list[LinkBelow])
assert_type(LinkBelow().perhaps(), LinkBelow | None)
assert_type(Link.itself(Link()), Link)
assert_type(Link.make(2), Link)
assert_type(LinkBelow.make(2), LinkBelow)
assert_type(LinkBelow().make(), LinkBelow)
assert_type(LinkBelow.make.refresh(2), LinkBelow)
assert_type(LinkBelow.make_below(2), LinkBelow)
assert_type(LinkBelow().make_below(), LinkBelow)
assert_type(LinkBelow.make_several(), list[LinkBelow])
assert_type(LinkBelow().make_several(), list[LinkBelow])
assert_type(LinkBelow().named("a"), Link)
assert_type(Link().named("a"), Link)
assert_type(Link.named("a"), Link)
assert_type(Link().named_below("a"), Link)
assert_type(LinkBelow().named_below("a"), Link)
assert_type(Link().upper("a"), str)
assert_type(Link().upper_below("a"), str)
assert_type(Link.upper_below.entry("a"), Entry[str] | None)


def links(either: Link | LinkBelow) -> None:
    assert_type(either.itself(), Link | LinkBelow)


async def chained() -> None:
    assert_type(ChainedBelow().with_number(), tuple[ChainedBelow, int])
    assert_type(ChainedBelow().with_number.refresh(), tuple[ChainedBelow, int])
    assert_type(await ChainedBelow().itself(), ChainedBelow)
    assert_type(ChainedBelow().itself.invalidate(), bool)
    assert_type(await ChainedBelow.make(1), ChainedBelow)
    assert_type(await Chained().make(1), Chained)
    assert_type(ChainedBelow().with_number_now(), list[ChainedBelow])
    assert_type(ChainedBelow().many(), dict[str, ChainedBelow])


# -- twins: parameters and return types of their own --------------------------------------------------------


@price.twin
async def other_price(symbol: str, price_type: str = "bid", *, exact: bool = False) -> int:
    return 1


@aprice.twin
def blocking_price(symbol: str, *, exact: bool = True) -> float:
    return 1.0


class TwinAccount:
    @single_flight_ttl(ttl=60)
    def get(self, symbol: str) -> int:
        return 1

    @get.twin
    async def aget(self, symbol: str) -> int:
        return 1

    @single_flight_ttl(ttl=60)
    @classmethod
    def of_class(cls, name: str) -> bytes:
        return b""

    @of_class.twin
    @classmethod
    async def aof_class(cls, name: str) -> bytes:
        return b""

    @single_flight_ttl(ttl=60)
    @staticmethod
    def static(symbol: str) -> complex:
        return 1j

    @static.twin
    @staticmethod
    async def astatic(symbol: str) -> complex:
        return 1j


@other_price.twin
def third_price(symbol: str, price_type: str, *, exact: bool) -> float:
    return 1.0


async def twins(account: TwinAccount) -> None:
    assert_type(await other_price("A", "ask"), int)
    assert_type(blocking_price("A", exact=True), float)
    assert_type(third_price("A", "ask", exact=True), float)
    assert_type(account.get("A"), int)
    assert_type(await account.aget("A"), int)
    assert_type(await TwinAccount.aget(account, "A"), int)
    assert_type(await account.aget.refresh("A"), int)
    assert_type(account.aget.invalidate("A"), bool)
    assert_type(await TwinAccount.aof_class("A"), bytes)
    assert_type(await account.aof_class("A"), bytes)
    assert_type(await TwinAccount.astatic("A"), complex)
    assert_type(await account.astatic.refresh("A"), complex)


# -- bulk loaders: their own parameters and return type, bound and unbound ----------------------------------


@price.bulk
def many_prices(symbols: Iterable[str], price_type: str = "bid", *, exact: bool = False) -> dict[str, float]:
    return {}


@single_flight_ttl(ttl=60, copy=True, failure_ttl=lambda error: 5 if isinstance(error, KeyError) else 0)
def copied(symbol: str) -> list[str]:
    return [symbol]


def shallow(value: list[str]) -> list[str]:
    return value[:]


def for_how_long(error: Exception) -> timedelta:
    return timedelta(seconds=len(error.args))


class Ours(LFUCache[Any, Any]):
    pass


single_flight_ttl(copied, ttl=60, copy=shallow, failure_ttl=for_how_long)
single_flight_ttl(copied, ttl=60, policy=LRUCache, weigh=len)
single_flight_ttl(copied, ttl=60, policy=Ours, weigh=lambda value: 0.5 * len(value))
assert_type(price.stats().weight, float)
copied.put(["A"], "A")


@price.bulk(max_batch=50)
async def aprices(symbols: list[str], price_type: str = "bid", *, exact: bool = False) -> dict[str, int]:
    return {}


class BulkAccount:
    @single_flight_ttl(ttl=60)
    def get(self, symbol: str) -> int:
        return 1

    @get.bulk
    def many(self, symbols: Iterable[str]) -> dict[str, int]:
        return {}

    @get.bulk(max_batch=None, gather=timedelta(milliseconds=5))
    async def amany(self, symbols: Iterable[str]) -> Mapping[str, float]:
        return {}

    @single_flight_ttl(ttl=60)
    @classmethod
    def of_class(cls, name: str) -> bytes:
        return b""

    @of_class.bulk
    @classmethod
    def of_class_many(cls, names: Iterable[str]) -> dict[str, bytes]:
        return {}

    @of_class.bulk(max_batch=2, gather=0.01)
    @classmethod
    async def of_class_batch(cls, names: Iterable[str]) -> dict[str, bytes]:
        return {}

    @single_flight_ttl(ttl=60)
    @staticmethod
    def static(symbol: str) -> complex:
        return 1j

    @static.bulk
    @staticmethod
    def static_many(symbols: Iterable[str]) -> dict[str, complex]:
        return {}


loader: BulkLoader[[BulkAccount, Iterable[str]], dict[str, int]] = BulkAccount.many
bound_loader: BoundBulkLoader[[Iterable[str]], dict[str, int]] = BulkAccount().many
loads: Callable[[Iterable[str]], dict[str, float]] = many_prices


async def bulk(account: BulkAccount) -> None:
    assert_type(many_prices(["A"], "ask", exact=True), dict[str, float])
    assert_type(many_prices(symbols={"A"}), dict[str, float])
    assert_type(many_prices.__wrapped__(["A"]), dict[str, float])
    assert_type(many_prices.max_batch, int | None)
    assert_type(many_prices.gather, float | None)
    assert_type(await aprices(["A"]), dict[str, int])
    assert_type(account.many(["A"]), dict[str, int])
    assert_type(account.many.max_batch, int | None)
    assert_type(BulkAccount.many(account, ["A"]), dict[str, int])
    assert_type(await account.amany(("A", "B")), Mapping[str, float])
    assert_type(BulkAccount.of_class_many(["A"]), dict[str, bytes])
    assert_type(account.of_class_many(["A"]), dict[str, bytes])
    assert_type(await account.of_class_batch(["A"]), dict[str, bytes])
    assert_type(account.static_many(["A"]), dict[str, complex])
    assert_type(BulkAccount.static_many(["A"]), dict[str, complex])


# -- locks, the process, errors ------------------------------------------------------------------------------

locks = KeyedLocks(max_idle=3)
with locks("a", ("b", 1), timeout=timedelta(seconds=1)):
    pass
with locks(1):
    pass
assert_type(locks.held("a"), bool)
assert_type(locks.waiting("a"), int)
assert_type(locks.idle, int)
assert_type(len(locks), int)
assert_type(locks.evict_idle(older_than=3600), int)
assert_type(report(), str)
for cached in caches():
    cached.cache_clear()
problems: list[type[Exception]] = [FlightDeadlock, FlightTimeout, UnhashableKey]
late: type[TimeoutError] = FlightTimeout


async def prices(account: AccountInterface) -> None:
    assert_type(account.get_instrument_current_price("A", "ask"), float | None)
    assert_type(await account.aget_instrument_current_price("A", price_type="ask"), float | None)
    assert_type(await account.aget_instrument_current_price.refresh("A"), float | None)
    assert_type(account.get_instrument_current_prices(["A"], "ask"), dict[str, float])
    assert_type(await account.aget_instrument_current_prices(("A",), price_type="ask"), dict[str, float])


async def quotes(account: AlpacaAccount) -> None:
    assert_type(account.get_quote("A"), Quote | None)
    assert_type(await account.aget_quote("A"), Quote | None)
    assert_type(account.get_position_prices("ask"), dict[str, float])
    assert_type(await account.aget_position_prices(), dict[str, float])
    assert_type(account.put_quote("A", 1.0, None), bool)
    with account.stream_prices(["A"]) as stream:
        assert_type(stream.wait(1), bool)
        assert_type(stream.error, Exception | None)


async def trading(account: AlpacaAccount, order: MarketOrderRequest) -> None:
    assert_type(account.get_account(), TradeAccount)
    assert_type(await account.aget_account(), TradeAccount)
    assert_type(account.get_account.invalidate(), bool)
    assert_type(account.get_positions(), tuple[Position, ...])
    assert_type(await account.aget_positions(), tuple[Position, ...])
    assert_type(account.get_clock().is_open, bool)
    assert_type(await account.aget_clock(), Clock)
    assert_type(account.get_asset("A"), Asset)
    assert_type(await account.aget_asset.refresh("A"), Asset)
    assert_type(account.submit_order(order), Order)
    assert_type(await account.asubmit_order(order), Order)


# -- testing -------------------------------------------------------------------------------------------------


async def stampedes(account: AccountInterface) -> None:
    plain = stampede(account.get_instrument_current_price, n=5, args=("A",), timeout=3)
    assert_type(plain, Stampede[float | None])
    assert_type(plain.values, list[float | None])
    assert_type(plain.calls, int)
    awaited = await stampede(account.aget_instrument_current_price, args=("A",), kwargs={"price_type": "ask"})
    assert_type(awaited, Stampede[float | None])
    assert_type(stampede(lambda: 1, counting=lambda: 2).values, list[int])
