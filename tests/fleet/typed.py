"""Types of values as users have them; their module has string annotations."""

from __future__ import annotations

import inspect
from collections import OrderedDict, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID

import msgspec
import pydantic

if TYPE_CHECKING:
    from nowhere import Missing

T = TypeVar("T")
Price = NewType("Price", float)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Side(StrEnum):
    BUY = "buy"


class Point(NamedTuple):
    x: int
    y: int = 0


class Row(TypedDict, total=False):
    symbol: str
    price: float


@dataclass
class Quote:
    symbol: str
    bid: Decimal
    at: datetime | None = None
    tags: list[str] = field(default_factory=list)
    parent: Quote | None = None


@dataclass
class DetailedQuote(Quote):
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Pair(Generic[T]):
    first: T
    second: T


@dataclass
class Wide:
    width: float

    @cached_property
    def area(self):
        return self.width**2


@dataclass
class Stamped:
    name: str
    secret: str = field(default="", init=False)


@dataclass
class Other:
    name: str


class Struct(msgspec.Struct, tag="struct"):
    name: str
    many: list[Struct] = []


class Model(pydantic.BaseModel):
    name: str
    price: Decimal = Decimal(0)
    many: list[Model] = []


class Unfinished(pydantic.BaseModel):
    later: list[LaterToo] = []  # noqa: F821


class PricedModel(Model):
    venue: str = "XAMS"


class Hiding(pydantic.BaseModel):
    name: str
    secret: str = pydantic.Field(default="", exclude=True)


class WithPrivate(pydantic.BaseModel):
    name: str
    _seen: int = 0


class Renamed(pydantic.BaseModel):
    name: str = pydantic.Field(alias="Name")


class Written(pydantic.BaseModel):
    numbers: pydantic.Json[list[int]]


@pydantic.dataclasses.dataclass
class Validated:
    name: str
    even: Annotated[int, pydantic.Field(multiple_of=2)] = 0


class Unknown:
    pass


def plain(): ...
def anything() -> Any: ...
def an_object() -> object: ...
def a_variable() -> T: ...
def a_str() -> str: ...
def a_float() -> float: ...
def a_price() -> Price: ...
def an_int() -> int: ...
def a_quote() -> Quote: ...
def a_quote_or_none() -> Quote | None: ...
def quotes() -> list[Quote]: ...
def quotes_by_number() -> dict[int, Quote]: ...
def loose() -> dict[str, Any]: ...
def bare() -> dict: ...
def a_tuple() -> tuple[int, str]: ...
def tuples() -> tuple[Point, ...]: ...
def sets() -> tuple[set[int], frozenset[str]]: ...
def pairs() -> Pair[int]: ...
def numbers() -> list[Decimal]: ...
def moments() -> list[datetime | date | timedelta]: ...
def a_moment() -> datetime: ...
def enums() -> tuple[Colour, Level, Side]: ...
def texts() -> list[str]: ...
def identifiers() -> list[UUID]: ...
def some_bytes() -> bytes: ...
def a_row() -> Row: ...
def a_literal() -> Literal["a", 1]: ...
def limited() -> Annotated[int, msgspec.Meta(gt=0)]: ...
def a_wide() -> Wide: ...
def a_stamped() -> Stamped: ...
def a_struct() -> Struct: ...
def a_sequence() -> Sequence[int]: ...
def a_model() -> Model: ...
def models() -> dict[str, list[Model]]: ...
def hiding() -> Hiding: ...
def with_private() -> WithPrivate: ...
def renamed() -> Renamed: ...
def validated() -> list[Validated]: ...
def one_of_two() -> Quote | Other: ...
def a_path() -> Path: ...
def a_deque() -> deque[int]: ...
def an_ordered_dict() -> OrderedDict[str, int]: ...
def a_default_dict() -> defaultdict[str, list[int]]: ...
def an_unknown() -> Unknown: ...
def many_unknown() -> dict[str, list[Unknown]]: ...
def missing() -> Missing: ...
def later() -> list[Later]: ...  # noqa: F821
def written() -> Written: ...
def unfinished() -> Unfinished: ...
def only_the_parameters_are_missing(a: Missing) -> Quote: ...
async def awaited() -> Quote: ...


UNKNOWN = {"missing", "later", "unfinished", "an_unknown", "many_unknown"}
VALUES = {
    name
    for name, function in list(vars().items())
    if inspect.isfunction(function) and function.__module__ == __name__ and name not in UNKNOWN
}
