"""The store where something is cut short, comes back, or waits."""

from types import SimpleNamespace

import pytest

from singleflight.common.keys import InstanceKey
from singleflight.storage.record import TaggedRecord, record_of
from singleflight.storage.store import Store

from ..amid import amid

LEAVE = {
    "dropped": lambda store: store.drop("k"),
    "forgotten": lambda store: store.forget("k"),
    "cleared": lambda store: store.clear(),
    "run out": lambda store: store.expire(10.0),
    "replaced": lambda store: store.put(record_of("k", 2, 0.0, 10.0)),
    "evicted": lambda store: store.put(record_of("other", 2, 0.0, 10.0)),
}


@pytest.mark.parametrize("leave", LEAVE)
def test_what_has_left_is_closed_for_good(leave):
    """Whoever found it before, and reads it only now, finds it closed, also after an attempt to reopen it."""
    store, record = Store(1), record_of("k", 1, 0.0, 10.0)
    store.put(record)
    assert record.deadline == 10.0
    LEAVE[leave](store)
    assert (record.deadline, record.place) == (float("-inf"), None)
    record.reopen()
    assert record.deadline == float("-inf")


def test_what_is_held_nowhere_yet_is_not_opened():
    """Readers may take the fast path from its storing on, and not before."""
    record = record_of("k", 1, 0.0, 10.0)
    record.deadline = float("-inf")
    record.reopen()
    assert record.deadline == float("-inf")


@pytest.mark.parametrize("leave", LEAVE)
def test_what_has_left_is_destroyed_outside_the_lock(leave):
    """A destructor may do anything, so it does not run in a section of the store."""
    owned = []

    class Value:
        def __del__(self):
            owned.append(store.is_owned())

    store = Store(1)
    store.put(record_of("k", Value(), 0.0, 10.0))
    LEAVE[leave](store)
    assert owned == [False]


class Fragile:
    """A key whose comparison raises at the n-th time from when `left` was set."""

    left = None

    def __hash__(self):
        return 1

    def __eq__(self, other):
        if Fragile.left is not None:
            Fragile.left -= 1
            if not Fragile.left:
                raise KeyboardInterrupt
        return self is other


@pytest.fixture
def fragile():
    yield
    Fragile.left = None


def test_a_put_that_is_cut_short_leaves_nothing(fragile):
    """What was in the cache already and not yet stored is neither stored nor told to have run out."""
    store, first = Store(None), record_of(Fragile(), 1, 0.0, 10.0)
    store.put(first)
    Fragile.left = 2  # the first is the look for what is replaced
    with pytest.raises(KeyboardInterrupt):
        store.put(record_of(Fragile(), 2, 0.0, 10.0))
    Fragile.left = None
    assert store.records() == [first]
    assert store.expire(100.0) == [first]
    assert (store.expirations, store.records()) == (1, [])


@pytest.mark.parametrize("then", ["expire", "drop", "clear", "put"])
def test_a_drop_that_is_cut_short_leaves_everything(fragile, then):
    """What has left the cache, and is still stored, still runs out."""
    store = Store(None)
    first, second = (record_of(Fragile(), number, 0.0, 10.0) for number in range(2))
    store.put(first), store.put(second)
    Fragile.left = 2
    with pytest.raises(KeyboardInterrupt):
        store.drop(second.key)
    Fragile.left = None
    assert store.records() == [first, second]
    if then == "put":
        assert store.put(record_of("k", 1, 20.0, 10.0)) == [first, second]
        assert store.expirations == 2
    elif then == "clear":
        assert store.clear() == [first, second]
        assert store.put(record_of("k", 1, 0.0, 10.0)) == []
    else:
        dropped = [store.drop(first.key)] if then == "drop" else []
        assert dropped + store.expire(100.0) == [first, second]


def test_forgetting_never_waits(crowd, make_gate):
    """It is called from anywhere; whoever is inside drops what it was told on leaving."""
    store, inside, go_on = Store(None), make_gate(), make_gate()
    store.put(record_of("k", 1, 0.0, 10.0))

    def hold():
        with store._lock:
            inside.set()
            go_on.pass_()
        store.expire(0.0)

    crowd.add(hold)
    inside.pass_()
    store.forget("k")
    assert len(store.records()) == 1
    go_on.set()
    crowd.join()
    assert store.records() == []


COME_BACK = {
    "drop": (lambda store: [store.drop("a").key], ["a"], ["b"]),
    "clear": (lambda store: [record.key for record in store.clear()], ["a", "b"], []),
    "forget": (lambda store: store.forget("b"), None, ["a"]),
    "expire": (lambda store: store.expire(100.0), [], ["a", "b"]),
    "put": (lambda store: store.put(record_of("c", 1, 0.0, 10.0)), None, ["a", "b"]),
}

LEAVE_IT = {
    "drop": lambda store: store.drop("d"),
    "clear": lambda store: store.clear(),
    "expire": lambda store: store.expire(0.0),
    "put": lambda store: store.put(record_of("d", 1, 0.0, 10.0)),
}


@pytest.mark.parametrize("operation", COME_BACK)
@pytest.mark.parametrize("section", LEAVE_IT)
def test_who_comes_back_amid_a_section_changes_nothing(operation, section):
    """What it wanted dropped is told as dropped, and is once a section is left."""
    store = Store(None)
    for key in "ab":
        store.put(record_of(key, 1, 0.0, 10.0))
    come_back, told, left = COME_BACK[operation]
    with store._lock:
        assert come_back(store) == told
        assert sorted(store.index) == ["a", "b"]
    LEAVE_IT[section](store)
    assert sorted(store.index) == {"clear": [], "put": [*left, "d"]}.get(section, left)
    assert not store._unwanted


@pytest.mark.parametrize(
    "operation",
    [
        lambda store: store.drop("nothing"),
        lambda store: store.forget("nothing"),
        lambda store: store.expire(0.0),
        lambda store: store.put(record_of("d", 1, 0.0, 10.0)),
    ],
)
def test_who_was_used_is_remembered_through_every_section(operation):
    """Nothing is made anew, and its order lost, after a section that ended well."""
    store = Store(3)
    for key in "abc":
        store.put(record_of(key, 1, 0.0, 10.0))
    store.index["a"].hits += 1
    store.put(record_of("d", 1, 0.0, 10.0))
    operation(store)
    assert [store.put(record_of(key, 1, 0.0, 10.0))[0].key for key in "ef"] == ["c", "a"]


@pytest.mark.parametrize(
    ("detached", "previous", "stored", "taken"),
    [
        (False, None, None, True),
        (False, "before", "before", True),
        (False, "before", None, True),  # it ran out, or was evicted
        (False, None, "another", False),
        (False, "before", "another", False),
        (True, None, None, False),
        (True, "before", "before", False),
        (True, None, "another", False),
    ],
)
def test_who_may_publish(detached, previous, stored, taken):
    """Who is not detached, where what is stored is what was there when it began."""
    records = {name: record_of("k", name, 0.0, 10.0) for name in ("before", "another", "new")}
    store = Store(None)
    if stored:
        store.put(records[stored])
    publisher = SimpleNamespace(detached=detached, previous=records.get(previous))
    assert store.put(records["new"], publisher) == ([] if taken else None)
    assert store.index.get("k") is (records["new"] if taken else records.get(stored))


def test_what_runs_out_at_this_very_moment_makes_room():
    """Nothing that is fresh goes for a value that lands when another's time is over."""
    store = Store(2)
    fresh, over = record_of("fresh", 1, 0.0, 50.0), record_of("over", 1, 0.0, 1.0)
    store.put(fresh), store.put(over)
    assert store.put(record_of("new", 1, 1.0, 10.0)) == [over]
    assert (store.expirations, store.evictions) == (1, 0)


def tagged(key, tag):
    """A value with a tag."""
    record = TaggedRecord(key, 1, 0.0, 10.0)
    record.tags = (tag,)
    return record


def old(number, previous=None):
    """What began at that time, and may publish."""
    return SimpleNamespace(detached=False, previous=previous, number=number)


def test_a_cut_takes_out_what_has_the_tag_and_refuses_what_is_older():
    """Whoever began at that very moment or later is not older; other tags are not touched."""
    store, first, other = Store(10), tagged("k", "t"), tagged("o", "other")
    store.put(first), store.put(other)
    assert store.cut(("t", "none"), 5) == [first]
    assert (store.records(), store.last_cut, store._torn) == ([other], 5, False)
    assert store.put(tagged("k", "t"), old(4)) is None
    assert store.put(tagged("l", "t"), old(5)) == []
    store.cut(("t",), 3)
    assert (store.last_cut, store.is_cut(("t",), 4), store.is_cut(("t",), 5)) == (5, True, False)


def test_a_cut_amid_a_section_is_made_by_that_section():
    """It tells what there is with the tag, and takes that out once the section is over."""
    store, first = Store(10), tagged("k", "t")
    store.put(first)
    assert amid(store._lock, lambda: (store.cut(("t", "none"), 5), store.find("k"))) == ([first], first)
    store.settle()
    assert (store.records(), store.put(tagged("k", "t"), old(4))) == ([], None)


def test_what_is_discarded_amid_a_section_is_dropped_by_it():
    """It tells what there still is of these."""
    store, first, gone = Store(10), tagged("k", "t"), tagged("gone", "t")
    store.put(first)
    assert amid(store._lock, lambda: store.discard([first, gone])) == [first]
    store.settle()
    assert store.records() == []


def test_after_a_discard_nothing_is_torn():
    """The next mutation makes nothing anew."""
    store, first = Store(10), tagged("k", "t")
    store.put(first)
    assert (store.discard([first]), store._torn) == ([first], False)


def test_cuts_are_forgotten_that_nothing_older_can_meet():
    """Those from after the oldest flight stay, and the next look is when there are twice as many."""
    store = Store(10)
    for number in range(1, 101):
        assert store.has_many_cuts() == (number > 64)
        store.cut((f"t{number}",), number)
    amid(store._lock, lambda: store.forget_cuts(100))
    assert len(store._cuts) == 100
    store.forget_cuts(40)
    assert (len(store._cuts), store.is_cut(("t41",), 40), store.has_many_cuts()) == (60, True, False)
    for number in range(101, 161):
        store.cut((f"t{number}",), number)
    assert store.has_many_cuts()
    store.forget_cuts(160)
    assert (store._cuts, store.has_many_cuts()) == ({}, False)


def test_the_records_of_an_instance_are_its_own():
    """They are found by the instance, and others are not."""
    store = Store(10)
    mine, other = InstanceKey(Owner()), InstanceKey(Owner())
    records = [record_of((owner, "k"), 1, 0.0, 10.0) for owner in (mine, other)]
    for record in records:
        store.put(record)
    assert store.records_of(mine) == records[:1]
    assert store.records_of(InstanceKey(Owner())) == []


class Owner:
    """What has a method."""
