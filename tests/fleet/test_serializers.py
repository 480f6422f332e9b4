"""Values come back equal and of the same types, or not at all: then an error names the part."""

import gc
import subprocess
import sys
import threading
from collections import OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial, wraps
from math import inf, nan
from pathlib import Path
from typing import Any
from uuid import UUID, uuid1
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from singleflight import SingleFlightError
from singleflight.fleet.annotations import returned
from singleflight.fleet.refusals import UnportableValue, Unreadable
from singleflight.fleet.roundtrips import difference
from singleflight.fleet.serializers import Codec, checked_serializer

from . import typed as t

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    | st.binary(max_size=4),
    lambda parts: (
        st.lists(parts, max_size=3) | st.dictionaries(st.text("abc", max_size=2), parts, max_size=3)
    ),
    max_leaves=8,
)
MOMENT = datetime(2024, 1, 1, 12, 30, tzinfo=UTC)
QUOTE = t.Quote("ASML", Decimal("984.750"), MOMENT, ["a"], t.Quote("X", Decimal("NaN")))


def sent(function, value):
    """A value as another process gets it."""
    codec = Codec(function)
    return Codec(function).open(*codec.enclose(value))


@settings(deadline=None)
@given(PLAIN)
def test_plain_values(value):
    """Without an annotation: what MessagePack has, in every nesting."""
    assert difference(value, sent(t.plain, value)) is None


class Text(str):
    __slots__ = ()


class Unsound(str):
    """Equal to whatever it is compared with."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other):
        return True


@pytest.mark.parametrize("function", [t.plain, t.anything, t.an_object, t.a_variable])
@pytest.mark.parametrize(
    ("value", "where", "what"),
    [
        ((1, 2), "value", "a tuple"),
        ({"a": [1, {2}]}, "value['a'][1]", "a set"),
        ([Text("a")], "value[0]", "a Text"),
        ({1: 2}, "value, the key 1", "an int"),
        ({Text("a"): 2}, "value, the key 'a'", "a Text"),
        (QUOTE, "value", "a Quote"),
        ([t.Level.LOW], "value[0]", "a Level"),
        (MOMENT, "value", "a datetime"),
        (OrderedDict(), "value", "an OrderedDict"),
        (Decimal(1), "value", "a Decimal"),
        (bytearray(), "value", "a bytearray"),
    ],
    ids=lambda each: getattr(each, "__name__", type(each).__name__),
)
def test_without_an_annotation_nothing_becomes_something_else(function, value, where, what):
    """The error names the function and the part, and says what to do."""
    with pytest.raises(UnportableValue) as caught:
        Codec(function).enclose(value)
    assert str(caught.value).startswith(f"{function.__name__}: {where}: {what} comes back as one only if ")
    assert "annotate the return type" in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, SingleFlightError)


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (t.a_str, "\u20ac"),
        (t.a_float, nan),
        (t.a_float, -inf),
        (t.a_float, -0.0),
        (t.a_price, 1.5),
        (t.an_int, -(2**63)),
        (t.a_quote, QUOTE),
        (t.a_quote_or_none, QUOTE),
        (t.a_quote_or_none, None),
        (t.a_quote, None),
        (t.quotes, [QUOTE, QUOTE]),
        (t.quotes_by_number, {1: QUOTE, -2: QUOTE}),
        (t.loose, {"a": [1, 2.5, None, {"b": b"c"}]}),
        (t.bare, {1: "a", "b": [2], (1, 2): 3}),
        (t.a_tuple, (1, "a")),
        (t.tuples, (t.Point(1), t.Point(2, 3))),
        (t.sets, ({1, 2}, frozenset(["a", "b"]))),
        (t.pairs, t.Pair(1, 2)),
        (t.numbers, [Decimal("1.10"), Decimal("NaN"), Decimal("-Infinity"), Decimal("1E+9")]),
        (t.a_moment, MOMENT),
        (t.a_moment, MOMENT.replace(tzinfo=None)),
        (t.enums, (t.Colour.BLUE, t.Level.LOW, t.Side.BUY)),
        (t.identifiers, [UUID(int=7), uuid1()]),
        (t.some_bytes, b"\xff\x00"),
        (t.a_row, {"symbol": "ASML"}),
        (t.a_literal, 1),
        (t.limited, 1),
        (t.a_wide, t.Wide(2.0)),
        (t.a_struct, t.Struct("a", [t.Struct("b")])),
        (t.a_model, t.Model(name="a", price=Decimal("1.10"), many=[t.Model(name="b")])),
        (t.models, {"a": [t.Model(name="a")]}),
        (t.renamed, t.Renamed(Name="a")),
        (t.validated, [t.Validated("a", 2)]),
        (t.written, t.Written(numbers="[1, 2]")),
        (t.one_of_two, t.Other("a")),
        (t.one_of_two, QUOTE.parent and t.Quote("a", Decimal(1))),
        (t.a_path, Path("a/b")),
        (t.a_deque, deque([1, 2])),
        (t.an_ordered_dict, OrderedDict(b=1, a=2)),
        (t.a_default_dict, defaultdict(list, a=[1])),
        (t.only_the_parameters_are_missing, QUOTE),
        (t.awaited, QUOTE),
    ],
    ids=lambda each: getattr(each, "__name__", type(each).__name__),
)
def test_typed_values_come_back(function, value):
    """Equal, and of the same type in every part."""
    again = sent(function, value)
    assert difference(value, again) is None
    assert type(again) is type(value)
    assert again == value or difference(value, value) is None  # NaN is equal to nothing


@pytest.mark.parametrize(
    ("function", "value", "message"),
    [
        (t.a_float, 1, "value: an int would come back as a float"),
        (t.an_int, True, "does not fit"),
        (t.an_int, 1.0, "value: a float would come back as an int|does not fit"),
        (t.an_int, 2**64, "msgspec/1 cannot write 18446744073709551616: .*OverflowError"),
        (t.a_str, "\ud800", "msgspec/1 cannot write .*UnicodeEncodeError"),
        (t.a_str, Text("a"), "value: a Text would come back as a str|cannot write"),
        (t.a_str, t.Side.BUY, "value: a Side would come back as a str"),
        (t.a_quote, t.DetailedQuote("A", Decimal(1)), "value: a DetailedQuote would come back as a Quote"),
        (t.a_quote, {"symbol": "A", "bid": "1"}, "value: a dict would come back as a Quote"),
        (t.a_quote, "A", "does not fit the return annotation"),
        (t.a_quote, t.Quote("A", 1), r"value\.bid: an int would come back as a Decimal"),
        (
            t.a_quote,
            t.Quote("A", Decimal(1), parent=t.DetailedQuote("B", Decimal(1))),
            r"value\.parent: a Detailed",
        ),
        (t.a_quote, t.Quote("A", Decimal(1), tags=("a",)), r"value\.tags: a tuple would come back as a list"),
        (t.quotes, (QUOTE,), "value: a tuple would come back as a list"),
        (t.quotes, deque([QUOTE]), "value: a deque would come back as a list|cannot write"),
        (t.loose, {"a": (1,)}, r"value\['a'\]: a tuple would come back as a list"),
        (t.loose, {"a": Decimal(1)}, r"value\['a'\]: a Decimal would come back as a str"),
        (t.loose, {"a": QUOTE}, r"value\['a'\]: a Quote would come back as a dict"),
        (t.loose, OrderedDict(a=1), "value: an OrderedDict would come back as a dict"),
        (t.bare, {frozenset([1]): 3}, "value, the key frozenset.*: a frozenset would come back as a tuple"),
        (
            t.a_moment,
            MOMENT.astimezone(timezone(timedelta(hours=2))),
            r"value: .* would come back in .*, convert",
        ),
        (
            t.a_moment,
            MOMENT.astimezone(ZoneInfo("Europe/Berlin")),
            r"value: .* would come back in .*, convert",
        ),
        (t.a_row, {"symbol": "A", "more": 1}, "value: .* would come back as"),
        (t.limited, 0, "does not fit"),
        (t.a_struct, t.Other("a"), "value: an Other would come back as a Struct|does not fit"),
        (t.a_model, t.PricedModel(name="a"), "value: a PricedModel would come back as a Model|cannot write"),
        (t.a_model, {"name": "a"}, "value: a dict would come back as a Model|cannot write"),
        (t.hiding, t.Hiding(name="a", secret="b"), r"value\.secret: 'b' would come back as ''|value\.secret"),
        (t.one_of_two, t.DetailedQuote("A", Decimal(1)), "DetailedQuote would come back|cannot write"),
        (t.a_deque, deque([1], maxlen=3), "value: deque.* would come back as deque"),
        (t.a_default_dict, defaultdict(lambda: [0], a=[1]), "value: .* would come back as"),
    ],
    ids=lambda each: getattr(each, "__name__", type(each).__name__),
)
def test_typed_values_that_would_be_changed(function, value, message):
    """They are refused; the error names the part, and what would have become of it."""
    with pytest.raises(UnportableValue, match=message) as caught:
        Codec(function).enclose(value)
    assert str(caught.value).startswith(f"{function.__name__}: ")


def instances(parts):
    return st.one_of(
        st.lists(parts, max_size=2),
        st.lists(parts, max_size=2).map(tuple),
        st.lists(parts, max_size=2).map(deque),
        st.dictionaries(st.sampled_from(["a", Text("a"), 1, t.Side.BUY, None, 1.5]), parts, max_size=2),
        st.builds(t.Quote, parts, parts, parts, parts, parts),
        st.builds(t.DetailedQuote, parts, parts),
        st.builds(t.Pair, parts, parts),
        st.builds(t.Wide, parts),
        st.builds(t.Struct, parts, parts),
        st.builds(t.Point, parts, parts),
        st.builds(t.Model.model_construct, name=parts, price=parts, many=parts),
        st.builds(t.PricedModel.model_construct, name=parts, price=parts, many=st.just([])),
    )


LEAF = st.sampled_from(
    [
        *(None, True, 0, 1, 2**63, 2**70, 1.0, -0.0, nan, "", "a", "red", "\ud800", Text("a")),
        *(Unsound("a"), b"", b"a", bytearray(b"a"), object(), {}, [], frozenset(), {1, 2}, Path("a")),
        *(Decimal(1), Decimal("1.0"), Decimal("NaN"), timedelta(1), UUID(int=1), MOMENT.date(), MOMENT),
        *(MOMENT.replace(tzinfo=None), MOMENT.astimezone(ZoneInfo("Europe/Berlin"))),
        *(t.Colour.RED, t.Level.LOW, t.Side.BUY),
    ]
)


def likely(right):
    """Mostly what the annotation says."""
    return st.integers(0, 9).flatmap(lambda chance: right if chance else LEAF)


TEXT, NUMBER = likely(st.text(max_size=2)), likely(st.integers(-9, 9))
DECIMAL, FLOAT = likely(st.decimals()), likely(st.floats())
ROW = st.builds(
    t.Quote, TEXT, DECIMAL, likely(st.none() | st.datetimes()), likely(st.lists(TEXT, max_size=2))
)
STRUCT = st.builds(t.Struct, TEXT)
MODEL = st.builds(t.Model.model_construct, name=TEXT, price=DECIMAL, many=st.just([]))
LIKELY = {
    "a_quote": likely(ROW),
    "quotes": likely(st.lists(ROW, max_size=2)),
    "quotes_by_number": likely(st.dictionaries(NUMBER.filter(lambda key: key.__hash__), ROW, max_size=2)),
    "loose": likely(st.dictionaries(st.text(max_size=2), NUMBER | FLOAT | st.lists(TEXT), max_size=3)),
    "a_tuple": likely(st.tuples(NUMBER, TEXT)),
    "tuples": likely(st.lists(st.builds(t.Point, NUMBER, NUMBER), max_size=2).map(tuple)),
    "pairs": likely(st.builds(t.Pair, NUMBER, NUMBER)),
    "numbers": likely(st.lists(DECIMAL, max_size=3)),
    "enums": likely(st.tuples(*map(likely, map(st.sampled_from, (t.Colour, t.Level, t.Side))))),
    "a_wide": likely(st.builds(t.Wide, FLOAT)),
    "a_struct": likely(st.builds(t.Struct, TEXT, likely(st.lists(STRUCT, max_size=2)))),
    "a_model": likely(st.builds(t.Model.model_construct, name=TEXT, price=DECIMAL, many=st.lists(MODEL))),
    "one_of_two": likely(ROW | st.builds(t.Other, TEXT)),
    "plain": likely(st.lists(TEXT | NUMBER | FLOAT, max_size=2)),
}
ANY_VALUE = st.recursive(LEAF, instances, max_leaves=6)


@st.composite
def returns(draw):
    """The name of a function, and what it returns: more or less what it says."""
    if draw(st.integers(0, 3)):
        name = draw(st.sampled_from(sorted(LIKELY)))
        return name, draw(LIKELY[name])
    return draw(st.sampled_from(sorted(t.VALUES))), draw(ANY_VALUE)


def told(value):
    """A value as text with the type of each part: what `difference` has no hand in."""
    kind = type(value)
    if kind in (list, tuple, deque, t.Point):
        parts = list(map(told, value))
    elif kind is dict:
        parts = [(told(name), told(part)) for name, part in value.items()]
    elif kind in (set, frozenset):
        parts = sorted(map(told, value))
    elif kind.__module__ == t.__name__ and not issubclass(kind, str | int) and kind is not t.Colour:
        names = getattr(kind, "__struct_fields__", None) or getattr(kind, "__dataclass_fields__", None)
        parts = [(name, told(getattr(value, name))) for name in names or kind.model_fields]
    else:
        parts = [repr(value)]
    return f"{kind.__module__}.{kind.__qualname__}({parts})"


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(returns())
def test_no_value_is_changed_silently(returned):
    """Whatever a function returns, whatever it is annotated with: it comes back as it was, or is refused."""
    name, value = returned
    codec = Codec(getattr(t, name))
    with suppress(UnportableValue):
        enclosed = codec.enclose(value)
        assert told(codec.open(*enclosed)) == told(value)


def test_what_is_no_field_is_not_lost():
    """An attribute that was set, a private one; one that is no argument comes back."""
    quote = t.Quote("A", Decimal(1))
    quote.seen = 1
    private = t.WithPrivate(name="a")
    private._seen = 1
    for function, value in ((t.a_quote, quote), (t.with_private, private)):
        with pytest.raises(UnportableValue, match=r"value\.seen: an int would be lost|'_seen'"):
            Codec(function).enclose(value)
    stamped = t.Stamped("a")
    stamped.secret = "b"
    assert sent(t.a_stamped, stamped) == stamped


def test_what_an_object_is_made_of_is_compared():
    """What has no parts to compare is compared itself; and what comes back with more is another."""

    class Stateless:
        pass

    less, more = t.Wide(1.0), t.Wide(1.0)
    more.seen = 1
    assert difference(Stateless(), Stateless()) is not None
    assert difference(less, more) is not None
    assert difference(more, less) == "value.seen: an int would be lost"
    assert difference(less, t.Wide(1.0)) is None


def test_pydantic_has_its_own():
    """Its classes are checked by its own rules, also those that msgspec would take for dataclasses."""
    codec = Codec(t.validated)
    assert codec.open("value", b'[{"name": "a", "even": 2}]') == [t.Validated("a", 2)]
    with pytest.raises(Unreadable, match="payload"):
        codec.open("value", b'[{"name": "a", "even": 3}]')


def test_an_error_is_enough(recwarn):
    """pydantic does not warn of what is refused."""
    with pytest.raises(UnportableValue):
        Codec(t.a_model).enclose(t.Model.model_construct(name=1))
    assert not recwarn.list


def test_what_was_computed_may_be_lost():
    """A cached property is computed again."""
    wide = t.Wide(2.0)
    assert wide.area == 4.0
    assert vars(sent(t.a_wide, wide)) == {"width": 2.0}


def test_a_value_without_an_end():
    """It contains itself: an error, and no stack overflow."""
    endless = []
    endless.append(endless)
    for function in (t.plain, t.bare, t.loose):
        with pytest.raises(UnportableValue):
            Codec(function).enclose(endless if function is t.plain else {"a": endless})


@pytest.mark.parametrize("function", [t.an_unknown, t.many_unknown])
def test_a_type_that_nobody_knows(function):
    """An error at decoration: it names the function and says what both libraries lack."""
    with pytest.raises(
        UnportableValue, match=rf"^{function.__name__}: its return annotation .*Unknown.*serializer="
    ):
        Codec(function)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=30), st.sampled_from([t.plain, t.a_quote, t.models, t.loose, t.an_int, t.sets]))
def test_foreign_payloads(payload, function):
    """They are values of the annotated type, or unreadable; nothing else is raised."""
    try:
        value = Codec(function).open("value", payload)
    except Unreadable as unreadable:
        assert unreadable.reason == "payload"  # noqa: PT017
    else:
        Codec(function).enclose(value)  # it is one of those that are sent


def test_plain_payloads_hold_plain_values():
    """MessagePack's own times and extensions, and other keys, are unreadable."""
    import msgspec

    for value in (MOMENT, {1: 2}, msgspec.msgpack.Ext(5, b"a"), [{1.5: 2}]):
        with pytest.raises(Unreadable, match="payload"):
            Codec(t.plain).open("value", msgspec.msgpack.encode(value))


class TestAnnotations:
    """What a function says that it returns."""

    def test_strings_are_looked_up(self):
        """In the function's module; a parameter's type may be there for type checkers only."""
        assert returned(t.quotes) == list[t.Quote]
        assert returned(t.a_quote_or_none) == t.Quote | None
        assert returned(t.only_the_parameters_are_missing) is t.Quote

    def test_what_comes_of_awaiting(self):
        """A coroutine function's own annotation; the last argument of an awaitable."""

        def coroutine() -> Coroutine[Any, Any, t.Quote]: ...
        def awaitable() -> Awaitable[list[int]]: ...
        def bare() -> Awaitable: ...

        assert [returned(each) for each in (t.awaited, coroutine, awaitable, bare)] == [
            t.Quote,
            t.Quote,
            list[int],
            Any,
        ]

    def test_other_callables(self):
        """Partials, methods, objects, and wrappers, whose names are those of what they wrap."""

        class Fetch:
            def __call__(self) -> int: ...
            def method(self) -> str: ...

        @wraps(t.quotes)
        def wrapper(*args): ...

        found = [returned(each) for each in (partial(t.a_quote), Fetch(), Fetch().method, wrapper, len)]
        assert found == [t.Quote, int, str, list[t.Quote], Any]

    def test_what_is_defined_later(self, monkeypatch):
        """It is looked up again by the first use; then the codec is as any other."""
        codec = Codec(t.later)

        @dataclass
        class Later:
            name: str

        monkeypatch.setattr(t, "Later", Later, raising=False)
        assert codec.open(*codec.enclose([Later("a")])) == [Later("a")]
        assert codec.fingerprint() == Codec(t.later).fingerprint()

    def test_a_model_that_is_finished_later(self, monkeypatch):
        """As pydantic has it: a field's type is found when it is needed."""
        codec = Codec(t.unfinished)
        with pytest.raises(UnportableValue, match=r"^unfinished: its return annotation .*LaterToo"):
            codec.enclose(1)
        monkeypatch.setattr(t, "LaterToo", t.Model, raising=False)
        value = t.Unfinished(later=[t.Model(name="a")]) if t.Unfinished.model_rebuild() else None
        assert codec.open(*codec.enclose(value)) == value

    def test_what_is_never_defined(self):
        """The first use says what is missing, and what to do."""
        codec = Codec(t.missing)
        for use in (codec.fingerprint, lambda: codec.enclose(1), lambda: codec.open("value", b"")):
            with pytest.raises(
                UnportableValue, match=r"^missing: its return annotation .*'Missing'.*serializer="
            ):
                use()


class Mine:
    """A serialiser of a user's."""

    name = "mine/1"
    made = b"bytes"

    def dumps(self, value):
        return self.made

    def loads(self, data):
        if data != self.made:
            raise LookupError
        return (1, 2)


class TestSerializer:
    """The option `serializer`."""

    def test_it_is_taken_at_its_word(self):
        """The annotation is not looked at, and nothing is compared; None is None all the same."""
        codec = Codec(t.missing, Mine())
        assert codec.enclose(object()) == ("value", b"bytes")
        assert codec.open("value", b"bytes") == (1, 2)
        assert codec.open(*codec.enclose(None)) is None

    def test_what_it_raises(self):
        """Writing: an error with its own as the cause. Reading: unreadable."""
        with pytest.raises(Unreadable, match="payload"):
            Codec(t.plain, Mine()).open("value", b"other")
        mine = Mine()
        mine.dumps = lambda value: 1 / 0
        with pytest.raises(UnportableValue, match=r"plain: mine/1 cannot write 'a': .*division") as caught:
            Codec(t.plain, mine).enclose("a")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)

    def test_it_has_to_write_bytes(self):
        """A text is none."""
        mine = Mine()
        mine.made = "text"
        with pytest.raises(UnportableValue, match="plain: mine/1 wrote a str instead of bytes"):
            Codec(t.plain, mine).enclose("a")

    def test_it_is_checked(self):
        """An error that names the option."""
        mine = Mine()
        assert checked_serializer(mine) is mine
        assert checked_serializer(None) is None
        nameless, numbered = Mine(), Mine()
        nameless.name, numbered.name = "", 1
        for bad in ("msgspec", Mine, object(), nameless, numbered):
            with pytest.raises(TypeError, match=r"^serializer: expected "):
                checked_serializer(bad)


def test_many_threads_share_a_codec():
    """Also the first use, which may find the type at once in several."""
    codec, found, start = Codec(t.quotes), [], threading.Barrier(8, timeout=20)

    def use():
        start.wait()
        found.extend(codec.open(*codec.enclose([QUOTE])) for _ in range(50))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 400
    assert all(difference([QUOTE], value) is None for value in found)


@pytest.mark.parametrize(
    ("hidden", "function", "message"),
    [
        ("msgspec", "plain", "pip install 'singleflight-kit[redis]'"),
        ("pydantic", "one_of_two", "pydantic may know it, but is not installed"),
    ],
)
def test_what_is_not_installed(hidden, function, message, tmp_path):
    """The error says what to install; nothing is imported before a function needs it."""
    program = (
        "import sys\n"
        "from dataclasses import dataclass\n"
        "from singleflight.fleet.serializers import Codec\n"
        "assert not {'msgspec', 'pydantic'} & set(sys.modules)\n"
        f"sys.modules[{hidden!r}] = None\n"
        "@dataclass\nclass A: a: int\n"
        "@dataclass\nclass B: b: int\n"
        "def plain(): ...\n"
        "def one_of_two() -> A | B: ...\n"
        f"try: Codec({function})\nexcept TypeError as error: print(error)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        env={"PYTHONPATH": root},
    )
    assert message in done.stdout


def test_nothing_keeps_a_value():
    """What was written is free when its last user has gone."""
    gc.collect()
    codec = Codec(t.a_struct)
    before = sys.getrefcount(t.Struct)
    for _ in range(100):
        codec.open(*codec.enclose(t.Struct("a")))
    gc.collect()
    assert sys.getrefcount(t.Struct) <= before + 5
