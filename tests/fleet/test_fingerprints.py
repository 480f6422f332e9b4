"""Which values are of one version: the same in every process and Python, another when a field changes."""

import os
import subprocess
import sys
from dataclasses import dataclass, field, make_dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict, Union

import msgspec
import pydantic
import pytest

from singleflight.fleet.fingerprints import fingerprint, shape
from singleflight.fleet.serializers import Codec

from . import typed as t

ROOT = Path(__file__).parents[2]


def made(*fields):
    """A dataclass called `Quote`, whatever its fields."""
    kind = make_dataclass("Quote", fields, namespace={"__doc__": "Else its defaults are asked for theirs."})
    kind.__module__ = __name__
    return kind


class Inner:
    """Two versions of a class, in a class each, so that their names are alike."""

    class V1:
        @dataclass
        class Row:
            a: int

    class V2:
        @dataclass
        class Row:
            a: int
            b: int = 0


def renamed(kind):
    kind.__qualname__ = "Row"
    return kind


VERSIONS = [
    made(("a", int)),
    made(("a", int), ("b", int)),
    made(("a", int), ("b", int, 0)),
    made(("a", int), ("b", int, 1)),
    made(("a", int), ("b", int, True)),
    made(("a", int), ("b", float, 0)),
    made(("b", int), ("a", int)),
    made(("a", int), ("b", int | None, 0)),
    made(("a", int), ("b", list, field(default_factory=list))),
    made(("a", int), ("b", list, field(default_factory=dict))),
    made(("a", int), ("b", list[int], field(default_factory=list))),
    made(("a", int), ("b", int, field(default=0, init=False))),
    made(("a", renamed(Inner.V1.Row))),
    made(("a", list[renamed(Inner.V1.Row)])),
    made(("a", renamed(Inner.V2.Row))),
    made(("a", Literal["x"])),
    made(("a", Literal["x", "y"])),
    made(("a", Annotated[int, msgspec.Meta(gt=0)])),
    made(("a", Annotated[int, msgspec.Meta(gt=1)])),
]


def test_each_version_has_its_own():
    """A field added, retyped, renamed, moved, with a default, with another; in a class inside, too."""
    assert len({fingerprint("s", version) for version in VERSIONS}) == len(VERSIONS)
    assert len({fingerprint("s", list[version]) for version in VERSIONS}) == len(VERSIONS)


STRUCTS = [
    msgspec.defstruct("S", [("a", int)], module="m"),
    msgspec.defstruct("S", [("a", int, 0)], module="m"),
    msgspec.defstruct("S", [("a", int, 1)], module="m"),
    msgspec.defstruct("S", [("a", list, msgspec.field(default_factory=list))], module="m"),
    msgspec.defstruct("S", [("a", list, msgspec.field(default_factory=dict))], module="m"),
    msgspec.defstruct("S", [("a", int)], module="m", tag="t"),
    msgspec.defstruct("S", [("a", int)], module="m", array_like=True),
    msgspec.defstruct("S", [("a", int)], module="m", rename="upper"),
]
MODELS = [
    pydantic.create_model("M", a=int),
    pydantic.create_model("M", a=(int, 0)),
    pydantic.create_model("M", a=(int, 1)),
    pydantic.create_model("M", a=(str, 1)),
    pydantic.create_model("M", a=(int, pydantic.Field(alias="b"))),
    pydantic.create_model("M", a=(int, pydantic.Field(gt=0))),
    pydantic.create_model("M", a=(list, pydantic.Field(default_factory=list))),
    pydantic.create_model("M", a=int, __config__={"extra": "allow"}),
]
TUPLES = [
    NamedTuple("N", [("a", int)]),
    NamedTuple("N", [("a", str)]),
    NamedTuple("N", [("b", int)]),
    TypedDict("N", {"a": int}),
    TypedDict("N", {"a": int}, total=False),
    TypedDict("N", {"a": int, "b": int}),
    Enum("N", {"A": 1}),
    Enum("N", {"A": 2}),
    Enum("N", {"A": 1, "B": 2}),
]


@pytest.mark.parametrize("versions", [STRUCTS, MODELS, TUPLES], ids=["structs", "models", "tuples"])
def test_other_kinds_of_classes(versions):
    """Of msgspec, of pydantic, named tuples, typed dictionaries and enums."""
    assert len({fingerprint("s", version) for version in versions}) == len(versions)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (int | None, Optional[int]),  # noqa: UP045
        (int | None, None | int),
        (int | str, Union[str, int]),  # noqa: UP007
        (t.Price, float),
        (list[t.Quote] | t.Struct, t.Struct | list[t.Quote]),
    ],
)
def test_spellings_of_one_type(first, second):
    """It is the type that counts, however it is written."""
    assert fingerprint("s", first) == fingerprint("s", second)


def test_what_else_counts():
    """The serialiser and the user's version; where one ends and the next begins is no matter of chance."""
    given = [
        ("a", Any, None),
        ("b", Any, None),
        ("a", Any, "1"),
        ("a", Any, 1),
        ("a", Any, "None"),
        ("a", int, None),
    ]
    assert len({fingerprint(*each) for each in given}) == len(given)
    assert {len(fingerprint(*each)) for each in given} == {8}
    assert Codec(t.plain).fingerprint("1") != Codec(t.plain).fingerprint("2")


def test_types_that_contain_themselves():
    """Each class is described once."""
    text = shape(t.Quote)
    assert text.count("tests.fleet.typed.Quote: ") == 1
    assert "parent None | tests.fleet.typed.Quote" in text.replace(t.__name__, "tests.fleet.typed")


def test_defaults_without_a_text_of_their_own():
    """Where an object's text tells its place in memory, or raises, its type counts."""

    class Odd:
        def __repr__(self):
            raise RuntimeError

    class Usual:
        pass

    def version(default):
        return fingerprint("s", made(("a", Any, field(default_factory=lambda: 0)), ("b", Any, default)))

    for kind in (Odd, Usual):
        assert version(kind()) == version(kind())


FUNCTIONS = [
    *(
        t.plain,
        t.quotes,
        t.a_quote_or_none,
        t.quotes_by_number,
        t.tuples,
        t.sets,
        t.pairs,
        t.moments,
        t.enums,
    ),
    *(
        t.a_row,
        t.a_literal,
        t.limited,
        t.a_struct,
        t.a_sequence,
        t.models,
        t.renamed,
        t.validated,
        t.one_of_two,
    ),
    *(t.a_path, t.a_deque, t.an_ordered_dict, t.a_default_dict, t.identifiers, t.awaited),
]


def test_every_python_and_every_process_has_the_same():
    """The fingerprints as they were when this was written; also in a process with another hash seed."""
    names = [function.__name__ for function in FUNCTIONS]
    here = "".join(f"{name} {Codec(getattr(t, name)).fingerprint('v1').hex()}\n" for name in names)
    program = (
        "import sys, importlib; t = importlib.import_module('tests.fleet.typed')\n"
        "from singleflight.fleet.serializers import Codec\n"
        "for name in sys.argv[1:]: print(name, Codec(getattr(t, name)).fingerprint('v1').hex())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *names],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == (Path(__file__).parent / "fingerprints.txt").read_text()
    assert here == done.stdout
