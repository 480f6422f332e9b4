"""The bytes of a key: equal for equal keys, different for different ones, none for what has no meaning."""

import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum, auto
from fractions import Fraction
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from singleflight import SingleFlightError, single_flight_ttl
from singleflight.common.keys import typed, typed_throughout
from singleflight.fleet.keybytes import DEEPEST, LONGEST, key_bytes
from singleflight.fleet.refusals import UnportableKey

BERLIN = ZoneInfo("Europe/Berlin")
ROOT = Path(__file__).parents[2]


class Colour(Enum):
    RED = 1
    BLUE = 2
    SCARLET = 1  # noqa: PIE796 (another name of RED)


class Shape(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Side(StrEnum):
    BUY = "buy"


class Rights(Flag):
    READ = auto()
    WRITE = auto()


class Bits(IntFlag):
    ONE = 1
    TWO = 2


class Point(NamedTuple):
    x: Any
    y: Any


@dataclass(frozen=True)
class Symbol:
    name: Any
    venue: Any = None
    note: Any = field(default=None, compare=False)
    more: Any = field(default=None, hash=False)


@dataclass(frozen=True, slots=True, order=True)
class Ticker:
    name: Any
    venue: Any = None


@dataclass(frozen=True)
class Future(Symbol):
    month: Any = 1


class SymbolToo(Symbol):
    """No dataclass itself, and equal to its own kind alone."""


class Text(str):
    __slots__ = ()


class Tagged(str):
    __slots__ = ()

    def __eq__(self, other):
        return str.__eq__(self.lower(), other.lower())

    def __hash__(self):
        return hash(self.lower())


class Loose(int):
    __slots__ = ()
    __hash__ = int.__hash__

    def __eq__(self, other):
        return True


class OwnHash(str):
    __slots__ = ()
    __eq__ = str.__eq__

    def __hash__(self):
        return 1


@dataclass(frozen=True)
class OwnEquality:
    name: str

    def __eq__(self, other):
        return isinstance(other, OwnEquality) and self.name.lower() == other.name.lower()

    def __hash__(self):
        return hash(self.name.lower())


@dataclass(frozen=True)
class OwnHashOfFields:
    name: str

    def __hash__(self):
        return 1


@dataclass(eq=False)
class ByIdentity:
    name: str


@dataclass(frozen=True, eq=False)
class FrozenByIdentity:
    name: str


@dataclass(frozen=True, eq=False)
class HalfCompared(Symbol):
    more: int = 0  # its inherited `__eq__` does not look at it


@dataclass(unsafe_hash=True)
class Thawed:
    name: str


@dataclass(frozen=True)
class TextWithFields(str):
    name: str = ""


ZONES = [UTC, timezone(timedelta(hours=2)), timezone(timedelta(hours=-5, minutes=-30, seconds=7)), BERLIN]


def unambiguous(moment):
    return moment.replace(fold=0).utcoffset() == moment.replace(fold=1).utcoffset()


NUMBERS = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.sampled_from([2**53, 2**53 + 1, 2**53 - 1, -(2**63), 2**64, 10**400]),
    st.floats(allow_nan=False),
    st.sampled_from([0.0, -0.0, 0.1, 0.5, 1.0, float(2**53), 5e-324, 1.7e308, float("inf"), -float("inf")]),
    st.decimals(allow_nan=False).filter(lambda number: abs(number.adjusted()) < 9000),
    st.sampled_from(list(map(Decimal, ["1", "1.0", "0.1", "0.5", "-0", "0E+99999", "1E+2", "Infinity"]))),
    st.fractions(max_denominator=8),
    st.sampled_from([*Level, *Bits, Bits.ONE | Bits.TWO]),
)
MOMENTS = st.builds(
    lambda since, zone: (datetime(2024, 1, 1, tzinfo=UTC) + since).astimezone(zone),
    st.timedeltas(timedelta(0), timedelta(hours=5)) | st.sampled_from([timedelta(0), timedelta(hours=2)]),
    st.sampled_from(ZONES),
)
LEAVES = st.one_of(
    st.none(),
    NUMBERS,
    st.text(max_size=3),
    st.text(st.sampled_from("ab\ud800\udc00\U00010000"), max_size=2).map(Text),
    st.sampled_from([*Colour, *Shape, *Side, "buy", "RED", *Rights, Rights.READ | Rights.WRITE]),
    st.binary(max_size=3),
    MOMENTS,
    st.datetimes(timezones=st.sampled_from(ZONES)).filter(unambiguous),
    st.datetimes(),
    st.dates(),
    st.sampled_from([date(2024, 1, 1), datetime(2024, 1, 1), datetime(2024, 1, 1, fold=1)]),
    st.timedeltas(),
    st.sampled_from([UUID(int=0), UUID(int=1), int, bool, str, Colour, Symbol, type(None)]),
)


@st.composite
def one_of_these(draw, named):
    """A strategy with a short name: Hypothesis would write each out in full, wherever it is nested."""
    return draw(globals()[named])


def nested(parts):
    pairs = st.tuples(parts, parts)
    return st.one_of(
        st.lists(parts, max_size=3).map(tuple),
        st.frozensets(parts, max_size=3),
        pairs.map(lambda pair: Point(*pair)),
        st.builds(Symbol, parts, parts, parts),
        st.builds(Ticker, parts, parts),
        st.builds(Future, parts, parts, parts, parts),
        st.builds(SymbolToo, parts, parts),
    )


KEYS = st.recursive(one_of_these("LEAVES"), nested, max_leaves=6)
# Few different leaves, so that two keys are often equal, by one way or another.
ALIKE = st.sampled_from(
    [
        *(
            0,
            False,
            -0.0,
            1,
            True,
            1.0,
            Decimal("1.00"),
            Fraction(1),
            Level.LOW,
            Bits.ONE,
            Fraction(1, 2),
            0.5,
        ),
        *(Decimal("0.5"), Decimal("0.1"), 0.1, "", b"", "buy", Side.BUY, Text("buy"), (), frozenset(), None),
        *(Colour.RED, Colour.SCARLET, Shape.RED, 2**53, float(2**53), 2**53 + 1, float("inf")),
        *(Decimal("Infinity"), datetime(2024, 1, 1, 12), datetime(2024, 1, 1, 12, tzinfo=UTC)),
        datetime(2024, 1, 1, 13, tzinfo=BERLIN),
    ]
)
TWINS = st.recursive(one_of_these("ALIKE"), nested, max_leaves=4)


@settings(deadline=None, max_examples=250)
@given(st.tuples(KEYS, KEYS) | st.tuples(TWINS, TWINS))
def test_equal_keys_and_no_others_have_equal_bytes(pair):
    """For any two keys, however nested: their bytes are equal if and only if the keys are."""
    first, second = pair
    assert (key_bytes(first) == key_bytes(second)) is (first == second)
    if first == second:
        assert hash(first) == hash(second)


@settings(deadline=None)
@given(st.lists(ALIKE, min_size=25, max_size=25))
def test_as_many_keys_as_a_dictionary_has(keys):
    """Of many keys at once there are as many different bytes as a set of them has members."""
    assert len(set(map(key_bytes, keys))) == len(set(keys))


def respelt(key):
    """An equal key of other types, where there is one."""
    match key:
        case bool() | int() if type(key) in (bool, int):
            return Decimal(key)
        case float() if type(key) is float and key == key // 1 and abs(key) < 1e300:
            return int(key)
        case str() if type(key) is str:
            return Text(key)
        case datetime() if key.tzinfo:
            try:
                return key.astimezone(UTC)
            except OverflowError:
                return key
        case tuple() if type(key) is tuple and len(key) == 2:
            return Point(*map(respelt, key))
        case tuple() if type(key) is tuple:
            return tuple(map(respelt, key))
        case frozenset():
            return frozenset(sorted(map(respelt, key), key=repr, reverse=True))
        case Symbol() if type(key) is Symbol:
            return Symbol(respelt(key.name), respelt(key.venue), note="not compared")
    return key


@settings(deadline=None, max_examples=300)
@given(KEYS)
def test_an_equal_key_of_other_types_has_the_same_bytes(key):
    """Whichever of several equal keys a process happens to have."""
    other = respelt(key)
    assert other == key
    assert key_bytes(other) == key_bytes(key)


@pytest.mark.parametrize(
    "value",
    [
        *(
            [1],
            {},
            set(),
            bytearray(),
            memoryview(b"a"),
            object(),
            1j,
            time(1),
            range(2),
            Path("a"),
            len,
            ...,
        ),
        *(
            Tagged("a"),
            OwnHash("a"),
            Loose(1),
            OwnEquality("a"),
            ByIdentity("a"),
            FrozenByIdentity("a"),
            HalfCompared("a"),
        ),
        *(Thawed("a"), TextWithFields("a"), list[int], slice(1), (each for each in ())),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("where", ["key", "key[1].venue"])
def test_anything_else_is_refused(value, where):
    """With an error that is a TypeError and one of ours, and that names the part."""
    key = value if where == "key" else ("acct-1", Symbol("ASML", value))
    with pytest.raises(UnportableKey) as caught:
        key_bytes(key)
    assert str(caught.value).startswith(f"{where}: ")
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, SingleFlightError)


@pytest.mark.parametrize("value", [float("nan"), Decimal("nan"), Decimal("sNaN"), -Decimal("nan")], ids=str)
def test_not_a_number_is_no_key(value):
    """It equals nothing, itself neither."""
    with pytest.raises(UnportableKey, match=r"^key\[0\]: NaN equals nothing"):
        key_bytes((value,))


@pytest.mark.parametrize(
    "moment",
    [datetime(2024, 10, 27, 2, 30), datetime(2024, 3, 31, 2, 30), datetime(2024, 10, 27, 2, 30, fold=1)],
)
def test_a_local_time_that_is_none_or_two_is_refused(moment):
    """Such a datetime equals none of another zone, and both of its own."""
    with pytest.raises(UnportableKey, match="twice or skip; convert it to UTC"):
        key_bytes(moment.replace(tzinfo=BERLIN))
    assert key_bytes(moment) == key_bytes(moment.replace(fold=1 - moment.fold))


def test_texts_that_are_no_unicode():
    """Half a character is a text too, and another than its other half, both, or a question mark."""
    texts = ["\ud800", "\udc00", "\ud800\udc00", "\U00010000", "?", "\ufffd", ""]
    assert len(set(map(key_bytes, texts))) == len(texts)


def test_the_ends_of_time_are_keys():
    """A moment is counted beyond the years that a datetime can have."""
    last = datetime.max.replace(tzinfo=timezone(timedelta(hours=-23)))
    first = datetime.min.replace(tzinfo=timezone(timedelta(hours=23)))
    assert len({key_bytes(last), key_bytes(first), key_bytes(datetime.max), key_bytes(datetime.min)}) == 4


def test_classes_are_known_by_a_name_that_finds_them():
    """Two classes of one name that no module holds might be different in every process."""

    class Local(Enum):
        A = 1

    @dataclass(frozen=True)
    class Inner:
        a: int = 1

    for value in (Local.A, Local, Inner()):
        with pytest.raises(UnportableKey, match="is not found under its name in its module"):
            key_bytes((value,))


def test_the_default_key_of_a_method_is_refused():
    """An instance has no name in the fleet; the message says what to do."""

    class Account:
        @single_flight_ttl(ttl=60)
        def price(self, symbol):
            return 1

    account = Account()
    account.price("ASML")
    (entry,) = [account.price.entry("ASML")]
    with pytest.raises(UnportableKey, match=r"^key\[0\]: <Account at .*pass key= with what identifies it"):
        key_bytes(entry.key)


@pytest.mark.parametrize("make", [typed, typed_throughout, lambda key: typed(key[0])])
def test_keys_that_tell_types_apart(make):
    """With `typed=True` equal arguments of different types have different bytes, the same types the same."""
    one, same, other = (make((value, "a")) for value in (1, 1, 1.0))
    assert key_bytes(one) == key_bytes(same) != key_bytes(other)
    assert key_bytes(typed((1, "a"))) != key_bytes((1, "a"))


def test_depth_is_bounded():
    """So many containers around one part, and no more; the error comes before any recursion limit."""

    def deep(levels):
        return reduce(lambda inner, _: (inner,), range(levels), 1)

    assert key_bytes(deep(DEEPEST))
    for levels in (DEEPEST + 1, 100_000):
        with pytest.raises(UnportableKey, match=f"nested {DEEPEST} deep"):
            key_bytes(deep(levels))


def test_size_is_bounded():
    """Of texts, numbers, and of parts that are shared and so endless when written out."""
    assert len(key_bytes("a" * (LONGEST - 5))) == LONGEST
    shared = reduce(lambda inner, _: (inner, inner), range(30), "a")
    for value in ("a" * (LONGEST - 4), "\u20ac" * 30_000, b"a" * LONGEST, shared, tuple(range(20_000))):
        with pytest.raises(UnportableKey, match=f"{LONGEST} bytes in all"):
            key_bytes((value,))
    for number in (
        1 << 40_000,
        Decimal("1E+15000"),
        Decimal("1E-15000"),
        Decimal("1E+999999"),
        Fraction(1, 3**30_000),
    ):
        with pytest.raises(UnportableKey, match="a number in a key may have 32768 bits"):
            key_bytes((number,))
    assert key_bytes(Decimal("1E+9000")) == key_bytes(10**9000)


def test_a_subclass_is_read_as_its_base():
    """What a subclass does in other ways than comparing is not asked."""

    class Odd(tuple):
        __slots__ = ()

        def __iter__(self):
            raise AssertionError

        __len__ = __getitem__ = __iter__

    class Loud(str):
        __slots__ = ()

        def encode(self, *_):
            raise AssertionError

        __str__ = __len__ = encode

    assert key_bytes(Odd((1, 2))) == key_bytes((1, 2))
    assert key_bytes(Loud("a")) == key_bytes("a")


def test_other_processes_make_the_same_bytes():
    """Whatever their hash seed: of sets too."""
    program = (
        "from singleflight.fleet.keybytes import key_bytes\n"
        "from datetime import date; from decimal import Decimal\n"
        "key = ('acct', frozenset(['a', 'b', 'c', (1, 2)]), Decimal('0.1'), date(2024, 1, 2))\n"
        "print(key_bytes(key).hex())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1
    key = ("acct", frozenset([(1, 2), "c", "b", "a"]), Decimal("0.1"), date(2024, 1, 2))
    assert told.pop().strip() == key_bytes(key).hex()
