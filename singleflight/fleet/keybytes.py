"""Canonical bytes of a key: equal keys have equal bytes in every process, different keys different ones.

What is equal in a dictionary is one key here: `1`, `True`, `1.0` and `Decimal(1)`; a named tuple and a tuple;
a member of an `IntEnum` and its number; aware datetimes of one moment. A key is made of

- `None`, str, bytes, bool, int, float, `Decimal`, `Fraction` (a number is written as its exact ratio),
- `date`, `datetime`, `timedelta`, `UUID`, members of enums, classes,
- tuples and frozensets of such parts, and frozen dataclasses with such fields, known by their qualified name.

Of subclasses those are taken that compare as their base does. All else is an `UnportableKey` that names the
part: an object whose `__eq__` is its own is equal to what only that method knows. So is NaN, which equals
nothing, and a local time that the clocks show twice or skip, which equals no time of another zone.

The bytes are a tag, a length of four bytes and the content, which for containers is that of their parts one
after another. So they can be taken apart in one way only, and no text in a key can imitate another key.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import field, fields, is_dataclass, make_dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum, Flag
from fractions import Fraction
from math import isinf, isnan
from types import NoneType
from typing import Any
from uuid import UUID

from ..common.keys import EACH, LONE, InstanceKey
from ..common.messages import kind_of, shown
from .refusals import UnportableKey

__all__ = ["DEEPEST", "LONGEST", "key_bytes", "name_of_class"]

LONGEST = 65_536  # bytes of a whole key
DEEPEST = 32  # containers around one part
_WIDEST = 32_768  # bits of a number; of a ratio, of each side
_EXPONENT = 20_000  # digits; what a Decimal of more would cost to write out is not tried
_EPOCH = datetime(1, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


def key_bytes(key: Any) -> bytes:
    """Return the canonical bytes of a key, or raise `UnportableKey`.

    Reads the key only. A zone's `utcoffset` runs, and the attributes of a dataclass are read, so no lock is
    to be held. Safe to call from any thread and task.

    >>> key_bytes(("acct-1", 1)) == key_bytes(("acct-1", True)) != key_bytes(("acct-1", "1"))
    True
    >>> key_bytes(("acct-1", [1]))
    Traceback (most recent call last):
    singleflight.fleet.refusals.UnportableKey: key[1]: a list cannot be part of a key that processes share
    """
    return _Writer().part(key, "key", 0)


class _Writer:
    """Writes one key, and counts what it has written: shared parts may be endless when written out."""

    __slots__ = ("room",)

    def __init__(self) -> None:
        self.room = LONGEST

    def part(self, value: Any, where: str, depth: int) -> bytes:
        if depth > DEEPEST:
            raise UnportableKey(f"{where}: a key may be nested {DEEPEST} deep")
        if value is None:
            return self.chunk(b"N", b"", where)
        kind = type(value)
        if kind in _OFTEN:
            return _OFTEN[kind](self, value, where, depth)
        for base, write in _BASES:
            if issubclass(kind, base):
                _check_same_equality(kind, base, where)
                return write(self, value, where, depth)
        if issubclass(kind, Enum):
            _check_same_equality(kind, object, where)
            member = value._value_ if issubclass(kind, Flag) else value._name_
            return self.joined(b"E", [self.of_class(kind, where), self.part(member, where, depth + 1)], where)
        if is_dataclass(kind):
            return self.of_dataclass(value, where, depth)
        if issubclass(kind, type):
            _check_same_equality(kind, type, where)
            return self.joined(b"C", [self.of_class(value, where)], where)
        if value is EACH or value is LONE:  # behind the types in a key with `typed=True`
            return self.chunk(b"T", b"each" if value is EACH else b"lone", where)
        raise _refusal(value, where)

    def chunk(self, tag: bytes, content: bytes, where: str, parts: int = 0) -> bytes:
        """A tag, a length and the content; of that, `parts` bytes were counted before."""
        self.room -= 5 + len(content) - parts
        if self.room < 0:
            raise UnportableKey(f"{where}: a key may have {LONGEST} bytes in all")
        return tag + len(content).to_bytes(4, "big") + content

    def joined(self, tag: bytes, parts: list[bytes], where: str) -> bytes:
        content = b"".join(parts)
        return self.chunk(tag, content, where, len(content))

    def of_class(self, kind: type, where: str) -> bytes:
        name = name_of_class(kind)
        if name is None:
            raise UnportableKey(
                f"{where}: {kind.__qualname__} is not found under its name in its module, so another process "
                f"could not tell it from a class of the same name; define it at the top of a module"
            )
        return self.of_text(name, where, 0)

    def of_text(self, value: str, where: str, _: int) -> bytes:
        if str.__len__(value) > LONGEST:  # before it is written at up to four times its length
            raise UnportableKey(f"{where}: a key may have {LONGEST} bytes in all")
        return self.chunk(b"s", str.encode(value, "utf-8", "surrogatepass"), where)

    def of_bytes(self, value: bytes, where: str, _: int) -> bytes:
        return self.chunk(b"b", bytes.__getitem__(value, slice(None)), where)

    def of_int(self, value: int, where: str, _: int) -> bytes:
        return self.ratio(*int.as_integer_ratio(value), where)

    def of_fraction(self, value: Fraction, where: str, _: int) -> bytes:
        return self.ratio(*Fraction.as_integer_ratio(value), where)

    def of_float(self, value: float, where: str, _: int) -> bytes:
        if isnan(value):
            raise UnportableKey(f"{where}: NaN equals nothing, so it is no key")
        if isinf(value):
            return self.chunk(b"f", b"+" if float.__gt__(value, 0.0) else b"-", where)
        return self.ratio(*float.as_integer_ratio(value), where)

    def of_decimal(self, value: Decimal, where: str, depth: int) -> bytes:
        if not Decimal.is_finite(value):
            number = "nan" if Decimal.is_nan(value) else Decimal.__str__(value)
            return self.of_float(float(number), where, depth)
        _, digits, exponent = Decimal.as_tuple(value)
        most = max(abs(Decimal.adjusted(value)), abs(int(exponent)), len(digits))
        if most > _EXPONENT and not Decimal.is_zero(value):
            raise _too_wide(where)
        return self.ratio(*Decimal.as_integer_ratio(value), where)

    def ratio(self, over: int, under: int, where: str) -> bytes:
        """A number in lowest terms, so it is the same whatever type it was given as."""
        if max(over.bit_length(), under.bit_length()) > _WIDEST:
            raise _too_wide(where)
        if under == 1:
            return self.chunk(b"i", _signed(over), where)
        return self.joined(b"q", [self.chunk(b"i", _signed(side), where) for side in (over, under)], where)

    def of_tuple(self, value: tuple[Any, ...], where: str, depth: int) -> bytes:
        items = enumerate(tuple.__iter__(value))
        parts = [self.part(item, f"{where}[{place}]", depth + 1) for place, item in items]
        return self.joined(b"(", parts, where)

    def of_frozenset(self, value: frozenset[Any], where: str, depth: int) -> bytes:
        items: Iterator[Any] = frozenset.__iter__(value)
        parts = sorted(self.part(item, f"{where}{{...}}", depth + 1) for item in items)
        return self.joined(b"{", parts, where)

    def of_dataclass(self, value: Any, where: str, depth: int) -> bytes:
        kind = type(value)
        names = _compared_fields(kind)
        if names is None:
            raise UnportableKey(
                f"{where}: {kind.__qualname__} is a dataclass that is not frozen, or does not compare as its "
                f"fields do, so it cannot be part of a key that processes share"
            )
        parts = [self.of_class(kind, where)]
        for name in names:
            parts.append(self.of_text(name, where, 0))
            parts.append(self.part(getattr(value, name), f"{where}.{name}", depth + 1))
        return self.joined(b"D", parts, where)

    def of_datetime(self, value: datetime, where: str, _: int) -> bytes:
        """A naive one as it is, an aware one as its moment."""
        # Without a subclass's own ways.
        clock = datetime.combine(datetime.date(value), datetime.timetz(value))
        since = clock.replace(tzinfo=None) - _EPOCH
        first, second = (clock.replace(fold=fold).utcoffset() for fold in (0, 1))
        if first != second:
            raise UnportableKey(
                f"{where}: {clock} is a local time that the clocks show twice or skip; convert it to UTC"
            )
        if first is None:
            return self.chunk(b"l", _signed(since // _MICROSECOND), where)
        return self.chunk(b"m", _signed((since - first) // _MICROSECOND), where)

    def of_date(self, value: date, where: str, _: int) -> bytes:
        return self.chunk(b"d", _signed(date.toordinal(value)), where)

    def of_timedelta(self, value: timedelta, where: str, _: int) -> bytes:
        return self.chunk(b"t", _signed(timedelta.__floordiv__(value, _MICROSECOND)), where)

    def of_uuid(self, value: UUID, where: str, _: int) -> bytes:
        return self.chunk(b"u", value.int.to_bytes(16, "big"), where)


# A datetime is a date, so it comes first. What is neither a subclass of these nor an enum may be a dataclass.
_BASES: tuple[tuple[type, Callable[[_Writer, Any, str, int], bytes]], ...] = (
    (str, _Writer.of_text),
    (int, _Writer.of_int),
    (tuple, _Writer.of_tuple),
    (float, _Writer.of_float),
    (bytes, _Writer.of_bytes),
    (datetime, _Writer.of_datetime),
    (date, _Writer.of_date),
    (UUID, _Writer.of_uuid),
    (Decimal, _Writer.of_decimal),
    (frozenset, _Writer.of_frozenset),
    (timedelta, _Writer.of_timedelta),
    (Fraction, _Writer.of_fraction),
)


_OFTEN = {kind: write for kind, write in _BASES if kind in (str, int, tuple)}


def name_of_class(kind: type) -> str | None:
    """Return the module and qualified name under which it is found; None if another object is, or nothing.

    >>> name_of_class(Decimal), name_of_class(type("Local", (), {}))
    ('decimal.Decimal', None)
    """
    if kind is NoneType:
        return "types.NoneType"
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return f"{kind.__module__}.{kind.__qualname__}" if found is kind else None


def _check_same_equality(kind: type, base: type, where: str) -> None:
    """Refuse a subclass that decides itself what it is equal to."""
    hashes: tuple[Any, ...] = (base.__hash__, Enum.__hash__ if base is object else base.__hash__)
    if kind is not base and not (kind.__eq__ is base.__eq__ and kind.__hash__ in hashes):
        raise UnportableKey(
            f"{where}: {kind.__qualname__} has an __eq__ or __hash__ of its own, so it cannot be part of a "
            f"key that processes share"
        )


_compared: weakref.WeakKeyDictionary[type, tuple[str, ...] | None] = weakref.WeakKeyDictionary()


def _compared_fields(kind: Any) -> tuple[str, ...] | None:
    """Return the fields that a frozen dataclass compares; None if it compares in a way of its own.

    A method that `dataclass` wrote is known by its code: a class made of the same fields has the same.
    """
    if kind not in _compared:
        every = fields(kind)
        alike = [(each.name, Any, field(compare=each.compare, hash=each.hash)) for each in every]
        twin: Any = make_dataclass("Twin", alike, frozen=True)
        same = kind.__dataclass_params__.frozen and all(
            _text_of(getattr(kind, name)) == _text_of(getattr(twin, name)) for name in ("__eq__", "__hash__")
        )
        _compared[kind] = tuple(each.name for each in every if each.compare) if same else None
    return _compared[kind]


def _text_of(method: Any) -> Any:
    code = getattr(method, "__code__", None)
    return code and (code.co_code, code.co_names, code.co_consts, code.co_varnames)


def _signed(number: int) -> bytes:
    """An integer in as few bytes as it needs."""
    return number.to_bytes((number.bit_length() + 8) // 8, "big", signed=True)


def _too_wide(where: str) -> UnportableKey:
    return UnportableKey(f"{where}: a number in a key may have {_WIDEST} bits")


def _refusal(value: Any, where: str) -> UnportableKey:
    if isinstance(value, InstanceKey):
        return UnportableKey(
            f"{where}: {shown(value)} has no name in other processes; pass key= with what identifies it"
        )
    return UnportableKey(f"{where}: {kind_of(value)} cannot be part of a key that processes share")
