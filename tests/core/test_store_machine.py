"""The store against a simple model, and the pure parts by table."""

from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from singleflight.common.durations import lifetime, patience, seconds
from singleflight.core.outcome import copy_of
from singleflight.storage.record import record_of
from singleflight.storage.store import Store

KEYS = st.integers(0, 7)


class StoreMachine(RuleBasedStateMachine):
    """Random puts, drops, reads, clears and steps of time; the model is a dictionary of deadlines."""

    maxsize = 4
    per_entry = False

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.store = Store(self.maxsize, None if self.per_entry else 10.0)
        self.model = {}  # key -> record

    @rule(key=KEYS, ttl=st.sampled_from([1.0, 5.0, 10.0, 50.0]))
    def put(self, key, ttl):
        record = record_of(key, object(), self.now, ttl if self.per_entry else 10.0)
        gone = self.store.put(record)
        for old in gone:
            if old.fresh_for(self.now) > 0:
                assert len(self.model) == self.maxsize
                assert old.key != key
            if self.model.get(old.key) is old:
                del self.model[old.key]
        self.model[key] = record

    @rule(key=KEYS)
    def drop(self, key):
        assert self.store.drop(key) is self.model.pop(key, None)

    @rule(key=KEYS)
    def read(self, key):
        record = self.store.index.get(key)
        if record is not None and self.now < record.deadline:
            record.hits += 1

    @rule(step=st.sampled_from([0.5, 3.0, 20.0]))
    def tick(self, step):
        self.now += step

    @rule()
    def expire(self):
        for record in self.store.expire(self.now):
            assert record.fresh_for(self.now) <= 0
            assert self.model.pop(record.key) is record
        assert all(record.fresh_for(self.now) > 0 for record in self.model.values())

    @rule()
    def clear(self):
        self.store.clear()
        self.model.clear()

    @rule()
    def tear(self):
        """A mutation that was cut short: everything is made anew from the index."""
        self.store._torn = True

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def interrupted_put(self, data):
        """An interrupt after the cache was written and before the index."""
        key = data.draw(st.sampled_from(sorted(self.model)))
        self.store._cache.hold(record_of(key, None, self.now, 10.0))
        self.store._torn = True

    @invariant()
    def the_same_entries(self):
        if not self.store._torn:
            assert dict(self.store.index) == self.model
            assert len(self.model) <= self.maxsize
            held = dict(self.store._cache.items())
            assert held == {record.place: record for record in self.model.values()}


class PerEntryMachine(StoreMachine):
    """The same with a lifetime for each entry."""

    per_entry = True


TestStore = StoreMachine.TestCase
TestStorePerEntry = PerEntryMachine.TestCase
TestStore.settings = TestStorePerEntry.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)


def test_second_chance():
    """What was used since the hand last passed stays; what was not goes; the chances are bounded."""
    store = Store(3)
    for key in "abc":
        store.put(record_of(key, key, 0.0, 10.0))
    store.index["a"].hits += 1
    assert [record.key for record in store.put(record_of("d", "d", 0.0, 10.0))] == ["b"]
    assert [record.key for record in store.put(record_of("e", "e", 0.0, 10.0))] == ["c"]
    big = Store(100)
    for key in range(100):
        big.put(record_of(key, key, 0.0, 10.0))
        big.index[key].hits += 1
    assert len(big.put(record_of("new", 1, 0.0, 10.0))) == 1


def test_a_step_back_of_the_clock_loses_nothing():
    """Lives are lengthened by the step; nothing is raised."""
    store = Store(3)
    store.put(record_of("a", 1, 100.0, 10.0))
    store.put(record_of("b", 1, 50.0, 10.0))
    assert store.index["a"].fresh_for(50.0) == 60.0
    store.put(record_of("a", 2, 50.0, 10.0))
    assert len(store.expire(200.0)) == 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), (0, 0.0), (2.5, 2.5), (timedelta(minutes=1), 60.0), (float("inf"), float("inf"))],
)
def test_durations(value, expected):
    """Seconds and timedelta are durations."""
    assert seconds(value, "x") == expected


@pytest.mark.parametrize("value", [-1, float("nan"), timedelta(seconds=-1), 10**400])
def test_bad_durations(value):
    """Negative, NaN and overflowing ones are no durations; the option is named."""
    with pytest.raises(ValueError, match="x: "):
        seconds(value, "x")


def test_none_means_for_ever():
    """A lifetime or a patience without a limit."""
    assert lifetime(None, "ttl") == float("inf")
    assert patience(None, "wait_timeout") is None
    assert patience(float("inf"), "wait_timeout") is None


class KeywordOnly(Exception):
    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class Slotted(Exception):
    __slots__ = ("place",)

    def __init__(self, place):
        self.place = place


def made(error, **attributes):
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        KeyError("k"),
        OSError(2, "gone", "f"),
        KeywordOnly(code=3),
        Slotted("here"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"),
        ExceptionGroup("two", [ValueError(1), KeyError(2)]),
        ImportError("no", name="mod", path="p"),
        StopIteration(4),
        SyntaxError("bad", ("file", 1, 2, "text")),
        made(ValueError(), extra=[1], __notes__=["n"]),
    ],
)
def test_copies_of_exceptions_are_faithful(error):
    """Same type, args, attributes, cause, context and notes, without running the type's own code."""
    error.__cause__, error.__context__ = KeyError("cause"), ValueError("context")
    copy = copy_of(error, None)
    assert copy is not error
    assert (type(copy), copy.args, str(copy)) == (type(error), error.args, str(error))
    assert vars(copy) == vars(error)
    assert (copy.__cause__, copy.__context__) == (error.__cause__, error.__context__)
    for name in (
        "errno",
        "filename",
        "code",
        "place",
        "start",
        "exceptions",
        "name",
        "path",
        "value",
        "lineno",
    ):
        assert getattr(copy, name, None) == getattr(error, name, None)


def test_what_cannot_be_copied_is_shared():
    """The same object, with the traceback reset."""

    class Stubborn(Exception):
        __slots__ = ("place",)

        def __setattr__(self, name, value):
            raise RuntimeError

    Stubborn.place.__set__(error := Stubborn(), 1)
    Stubborn.place = property(lambda self: 1)
    assert copy_of(error, None).__traceback__ is None
