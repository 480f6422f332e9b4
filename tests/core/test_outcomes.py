"""Copies of exceptions, over kinds that are awkward to copy."""

import io
import json
import subprocess
import sys
import urllib.error
import weakref

import pytest

from singleflight.core.outcome import copy_of, raise_shared, without_drivers


class KeywordOnly(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class FromNew(Exception):
    def __new__(cls, first, second):
        self = super().__new__(cls, first)
        self.second = second
        return self

    def __init__(self, first, second):
        pass


class Slotted(Exception):
    __slots__ = ("__private", "never_set", "place")

    def __init__(self, place):
        super().__init__(place)
        self.place, self.__private = place, "p"

    def private(self):
        return self.__private


class SlottedChild(Slotted):
    __slots__ = ("more",)


class OwnOSError(OSError):
    def __init__(self, where):
        super().__init__(5, "own", where)
        self.where = where


class Counted(Exception):
    made = 0

    def __init__(self):
        Counted.made += 1


class OwnGroup(ExceptionGroup):
    def derive(self, excs):
        return OwnGroup(self.message, excs)


class TwoBases(KeyError, AttributeError):
    pass


class Mixin:
    pass


class Mixed(Mixin, ValueError):
    pass


def noted():
    error = ValueError("x")
    error.add_note("one")
    return error


def child():
    error = SlottedChild("here")
    error.more = [1]
    return error


def blocking():
    return BlockingIOError(11, "again", 5)


KINDS = {
    "plain": lambda: ValueError("a", 1),
    "empty": lambda: Exception(),
    "keyword only": lambda: KeywordOnly(code=3),
    "own new": lambda: FromNew(1, 2),
    "slots": lambda: Slotted("here"),
    "inherited slots": child,
    "errno": lambda: OSError(2, "gone", "a"),
    "two filenames": lambda: OSError(2, "gone", "a", None, "b"),
    "own OSError": lambda: OwnOSError("w"),
    "written": blocking,
    "decode": lambda: UnicodeDecodeError("utf-8", b"abc", 0, 1, "bad"),
    "encode": lambda: UnicodeEncodeError("ascii", "äb", 0, 1, "bad"),
    "group": lambda: ExceptionGroup("two", [ValueError(1), KeyError(2)]),
    "own group": lambda: OwnGroup("two", [ValueError(1)]),
    "import": lambda: ImportError("no", name="m", path="p"),
    "name": lambda: NameError("n", name="n"),
    "attribute": lambda: AttributeError("a", name="a", obj=3),
    "syntax": lambda: SyntaxError("bad", ("f", 1, 2, "text", 1, 4)),
    "stop": lambda: StopIteration(4),
    "two bases": lambda: TwoBases("k"),
    "mixed": lambda: Mixed("m"),
    "json": lambda: json.JSONDecodeError("m", "doc", 1),
    "process": lambda: subprocess.CalledProcessError(1, ["cmd"], b"out"),
    "http": lambda: urllib.error.HTTPError("http://u", 404, "m", {}, io.BytesIO()),
    "notes": noted,
}
FIELDS = [
    "errno",
    "strerror",
    "filename",
    "filename2",
    "characters_written",
    "code",
    "first",
    "second",
    "place",
    "more",
    "encoding",
    "object",
    "start",
    "end",
    "reason",
    "message",
    "exceptions",
    "name",
    "path",
    "obj",
    "lineno",
    "offset",
    "text",
    "end_offset",
    "value",
    "msg",
    "doc",
    "pos",
    "cmd",
    "returncode",
    "output",
    "url",
    "where",
    "__notes__",
]
MISSING = object()


def read(error, name):
    try:
        return getattr(error, name, MISSING)
    except (KeyError, ValueError):
        return MISSING


@pytest.fixture(params=KINDS)
def error(request):
    error = KINDS[request.param]()
    yield error
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # newer Pythons warn about one that nobody closed


def test_a_copy_has_the_same_type_args_and_text(error):
    """A copy is a different object that looks the same."""
    copy = copy_of(error, None)
    assert copy is not error
    assert type(copy) is type(error)
    assert (copy.args, str(copy), repr(copy)) == (error.args, str(error), repr(error))


def test_a_copy_has_the_same_attributes(error):
    """Attributes, slots and built-in fields are the same; what was never set stays unset."""
    copy = copy_of(error, None)
    assert {name: read(copy, name) for name in FIELDS} == {name: read(error, name) for name in FIELDS}
    assert set(vars(copy)) == set(vars(error))


def test_a_copy_has_the_same_cause_and_context(error):
    """The chain survives, and whether the context is shown."""
    error.__cause__, error.__context__ = KeyError("cause"), ValueError("context")
    for suppress in (True, False):
        error.__suppress_context__ = suppress
        copy = copy_of(error, None)
        assert copy.__cause__ is error.__cause__
        assert copy.__context__ is error.__context__
        assert copy.__suppress_context__ is suppress


def test_a_copy_has_the_traceback_it_is_given(error):
    """The original's own traceback is not touched."""
    try:
        raise error
    except type(error):
        traceback = error.__traceback__
    copy = copy_of(error, None)
    assert copy.__traceback__ is None
    assert copy_of(error, traceback).__traceback__ is traceback
    assert error.__traceback__ is traceback


def test_a_copy_can_be_copied(error):
    """A copy of a copy is as faithful."""
    again = copy_of(copy_of(error, None), None)
    assert (type(again), again.args, str(again)) == (type(error), error.args, str(error))


def test_a_copied_group_can_be_split():
    """The parts of a copied group are the parts of the original."""
    error = KINDS["own group"]()
    copy = copy_of(error, None)
    matched, rest = copy.split(ValueError)
    assert matched.exceptions == error.exceptions
    assert rest is None


def test_private_slots_are_copied():
    """A name-mangled slot is a field like any other."""
    assert copy_of(Slotted("x"), None).private() == "p"


def test_what_is_watched_is_copied():
    """A weak reference to the original is none to the copy."""
    error = Counted()
    watched = weakref.ref(error)
    copy = copy_of(error, None)
    assert copy is not error
    assert (weakref.getweakrefcount(copy), watched()) == (0, error)


def test_no_code_of_the_exception_runs():
    """Copying does not call the constructor."""
    error = Counted()
    before = Counted.made
    assert type(copy_of(error, None)) is Counted
    assert Counted.made == before


def test_a_note_on_a_copy_stays_there():
    """Notes are copied, not shared."""
    error = noted()
    copy_of(error, None).add_note("two")
    assert error.__notes__ == ["one"]


@pytest.mark.parametrize("kind", [ValueError, Counted, Mixed])
def test_an_attribute_set_on_a_copy_stays_there(kind):
    """Each copy has its own attributes."""
    error = kind()
    copy_of(error, None).mine = 1
    assert not hasattr(error, "mine")


def test_attributes_are_the_same_objects():
    """What an attribute refers to is shared, as the value of a flight is."""
    error = ValueError("x")
    error.response = object()
    assert copy_of(error, None).response is error.response


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in Python 3.12")
def test_name_from_is_copied():
    """A field of later versions."""
    error = ImportError("x", name_from="y")
    assert copy_of(error, None).name_from == "y"


def test_what_an_attribute_was_set_to_is_that_object():
    """Also where what the args make of it is equal to it."""
    error = OSError(2, "gone")
    error.errno = 2.0
    assert type(copy_of(error, None).errno) is float


def failed_through(*modules):
    """A traceback through one frame each in modules of these names; `MISSING`: in one without a name."""
    called = None
    for number, module in reversed(list(enumerate(modules))):
        line = "raise LookupError" if called is None else "called()"
        namespace = {"called": called} if module is MISSING else {"called": called, "__name__": module}
        exec(f"def frame_{number}():\n    {line}\n", namespace)
        called = namespace[f"frame_{number}"]
    try:
        called()
    except LookupError as error:
        return error.__traceback__.tb_next  # without the frame of this function


def numbers(traceback):
    """Which of the frames a traceback has."""
    found = []
    while traceback is not None:
        found.append(int(traceback.tb_frame.f_code.co_name.removeprefix("frame_")))
        traceback = traceback.tb_next
    return found


THREADS, SHARED = "singleflight.drivers.threads", "singleflight.redis.shared"


@pytest.mark.parametrize(
    ("modules", "left"),
    [
        ([THREADS, "prices"], [1]),
        ([THREADS, "prices", "urllib.error"], [1, 2]),
        ([THREADS, THREADS, SHARED, THREADS, "prices", "urllib.error"], [4, 5]),
        ([THREADS, "prices", THREADS, "prices"], [1, 2, 3]),
        (["prices", "prices"], [1]),
        (["prices"], [0]),
        ([THREADS, THREADS], [1]),
        ([THREADS, "singleflight.accounts.gate", "prices"], [1, 2]),
    ],
)
def test_a_shared_traceback_begins_with_the_function(modules, left):
    """Who caught the exception, and who ran the function, is left out; what the function called is not."""
    assert numbers(without_drivers(failed_through(*modules))) == left


class Text(str):
    def startswith(self, *_):
        raise AssertionError("not to be called")


@pytest.mark.parametrize("name", [MISSING, None, 5, Text(THREADS)], ids=["none", "None", "a number", "own"])
def test_a_module_without_a_name_is_a_users(name):
    """What its globals have for a name, if that is no plain text, is not looked at."""
    assert numbers(without_drivers(failed_through(THREADS, name, "prices"))) == [1, 2]


def test_a_shared_error_has_the_traceback_that_it_is_given():
    """It leads from who is told to where the function failed."""
    error, traceback = ValueError("x"), failed_through("prices", "prices")
    with pytest.raises(ValueError, match="x") as caught:
        raise_shared(error, traceback)
    told = caught.value.__traceback__
    while told is not traceback:
        assert told is not None
        told = told.tb_next
    assert error.__traceback__ is None
