"""The store and the registry of slots where keys are spoilt: what leaves by identity, and who sees it."""

import gc
import sys
import weakref

import pytest

from singleflight.common.keys import Instances
from singleflight.locks.table import Idle, Slots
from singleflight.locks.unsettled import After
from singleflight.storage.record import record_of
from singleflight.storage.store import Store

from ..spoilt import SPOIL, Key, become_another


@pytest.fixture(params=SPOIL.values(), ids=SPOIL)
def spoil(request):
    """What happens to a key."""
    return request.param


def filled(*names, maxsize=None):
    store, keys = Store(maxsize), [Key(name) for name in names]
    for number, key in enumerate(keys):
        store.put(record_of(key, key.first, float(number), 100.0))
    return store, keys


def values(store):
    return [record.value for record in store.records()]


@pytest.mark.parametrize("leave", ["evicted", "run out", "discarded"])
def test_readers_see_one_index_or_the_other_as_a_whole(spoil, leave):
    """Who looks into the one that was replaced finds what it held; what has left is closed."""
    store, keys = filled("A", "B", maxsize=2)
    records, looked_before = store.records(), store.lookup
    told = []
    store.moved = lambda: told.append((store.lookup(Key("B")), store.is_owned()))
    spoil(keys[0])
    if leave == "evicted":
        gone = store.put(record_of("C", "C", 5.0, 100.0))
    elif leave == "run out":
        gone = store.expire(100.5)
    else:
        gone = store.discard(records[:1])
    assert gone == records[:1]
    assert records[0].deadline == float("-inf")
    found = store.lookup(Key("B"))
    assert found is records[1]
    assert looked_before(Key("B")) is records[1]
    if told:  # one that raises only when compared leaves by its own key
        assert told == [(records[1], False)]


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="a tuple remembers its hash there, so its entry leaves by its own key"
)
@pytest.mark.parametrize("leave", ["evicted", "discarded", "instance died"])
def test_every_spoilt_entry_leaves_at_once_and_is_counted(leave):
    """So that one walk pays for all of them; the sound ones keep their places."""

    class Thing:
        pass

    for attempt in range(100):
        store, keys = filled(*(f"{name}{attempt}" for name in "ABCDE"), maxsize=6)
        sound = [store.find(keys[number]) for number in (1, 3, 4)]
        instances, thing, last = Instances(store.forget), Thing(), Key("F")
        store.put(record_of((instances.meet(thing), last), "F", 5.0, 100.0))
        for key in (keys[0], keys[2], last):
            become_another(key)
        spoilt = [record for record in store.records() if record not in sound]
        if not any(store.find(record.key) is record for record in spoilt):
            break  # else a dictionary came upon one by its identity: then it leaves by its own key
    if leave == "evicted":
        gone = store.put(record_of("G", "G", 6.0, 100.0))
        assert set(gone) == set(spoilt)
        store.drop("G")
    elif leave == "discarded":
        store.discard(store.records()[:1])
    else:
        del thing
        gc.collect()
    assert store.evictions == {"evicted": 3, "discarded": 2, "instance died": 2}[leave]
    assert store.records() == sound
    assert [store.put(record_of(number, number, 9.0, 100.0)) for number in range(3)] == [[], [], []]
    assert store.put(record_of("H", "H", 9.0, 100.0)) == sound[:1]


@pytest.mark.parametrize("leave", ["run out", "discarded", "instance died"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_spoilt_entry_leaves_wherever_it_stands_among_others(spoil, leave, place):
    """Before sound ones, after them or between: nothing of it stays, and nobody finds it."""

    class Thing:
        pass

    instances, thing = Instances(lambda key: None), Thing()
    store, keys, owner = Store(None), [Key(name) for name in "ABC"], instances.meet(thing)
    for number, key in enumerate(keys):
        store.put(record_of((owner, key), number, float(number), 100.0))
    spoil(keys[place])
    if leave == "run out":
        gone = store.expire(1000.0)
        assert sorted(record.value for record in gone) == [0, 1, 2]
    elif leave == "discarded":
        assert len(store.discard(store.records())) == 3
    else:
        store.forget(owner)
    assert (store.index, store.records(), store._of_instance) == ({}, [], {})


@pytest.mark.parametrize("then", ["put", "drop", "expire", "clear", "forget", "discard"])
def test_a_torn_mutation_is_mended_with_spoilt_keys(spoil, then):
    """What stands beside the index is made anew without asking any key."""
    store, keys = filled("A", "B", "C")
    spoil(keys[0])
    store._torn = True
    if then == "put":
        store.put(record_of("D", "D", 5.0, 100.0))
        store.drop("D")
    elif then == "drop":
        store.drop("nothing")
    elif then == "expire":
        store.expire(5.0)
    elif then == "clear":
        assert len(store.clear()) == 3
    elif then == "forget":
        store.forget("nothing")
    else:
        store.discard([])
    assert values(store) == ([] if then == "clear" else ["A", "B", "C"])
    assert len(store.expire(1000.0)) == (0 if then == "clear" else 3)
    assert (values(store), store.index) == ([], {})


def test_a_sound_entry_is_not_taken_for_one_that_has_become_its_equal():
    """Who leaves is looked up, and what is found is compared with it."""
    store, keys = filled("A", "another")
    become_another(keys[0])
    first, second = store.records()
    assert store.discard([first]) == [first]
    assert store.records() == [second]
    assert store.lookup(Key("another")) is second


@pytest.mark.parametrize(
    "come_back", [lambda store, key: store.forget(key), lambda store, key: store.clear()]
)
def test_what_is_to_be_dropped_later_may_be_spoilt(spoil, come_back):
    """Whoever drops it on leaving a section is not harmed."""
    store, keys = filled("A", "B")
    with store._lock:
        come_back(store, keys[0])
        spoil(keys[0])
    assert store.put(record_of("C", "C", 5.0, 100.0)) == []
    assert "C" in values(store)
    assert "A" in values(store) or store.lookup("C").value == "C"


def test_after_a_fork_spoilt_keys_are_kept_and_leave(spoil):
    """The child makes its order anew without asking any key."""
    store, keys = filled("A", "B", maxsize=2)
    spoil(keys[0])
    store.after_fork()
    gone = store.put(record_of("C", "C", 5.0, 100.0))
    assert [record.value for record in gone] == ["A"]


# -- slots and idle locks ----------------------------------------------------------------------------------


def test_spoilt_slots_are_seen_until_they_are_vacated(spoil):
    """By everybody who looks at all of them; a newcomer with an equal key comes to none of them."""
    slots, keys = Slots(None), [Key(name) for name in "ABC"]
    live = [slots.enter(key) for key in keys]
    spoil(keys[0]), spoil(keys[1])
    slots.vacate(live[0], After())
    assert set(slots.live()) == set(live[1:])
    assert slots.slot(Key("C")) is live[2]
    newcomer = slots.enter(Key("another"))
    assert newcomer not in live
    for slot in (live[1], live[2], newcomer):
        slots.vacate(slot, After())
    assert slots.live() == []


def test_a_slot_whose_key_has_become_another_leaves_that_one_alone():
    """What is found by the key is compared with the slot that is to go."""
    slots, key = Slots(None), Key("A")
    slot, other = slots.enter(key), slots.enter(Key("another"))
    become_another(key)
    slots.vacate(slot, After())
    assert slots.live() == [other]
    assert slots.slot(Key("another")) is other


def test_idle_locks_are_limited_and_handed_out(spoil):
    """Each is returned by whoever takes it out, so that its key is destroyed under no lock."""
    idle, seen, gone = Idle(3), [], []
    for number in range(12):
        key = Key(str(number))
        seen.append(weakref.ref(key))
        gone.append(idle.add(key, float(number)))
        if number % 3 != 1:
            spoil(key)
        assert len(idle) == len(idle.keys()) <= 3
    del key
    while (oldest := idle.pop_oldest()) is not None:
        gone.append(oldest)
    assert len(idle) == 0
    gc.collect()
    held = [lock[0] for lock in gone if lock is not None]
    assert {id(ref()) for ref in seen} == {id(key) for key in held}


def test_old_idle_locks_are_evicted_whatever_their_keys_are(spoil):
    """The younger ones stay, within what is known of them."""
    idle, keys = Idle(None), [Key(name) for name in "ABCD"]
    for number, key in enumerate(keys):
        idle.add(key, float(number))
    spoil(keys[0]), spoil(keys[3])
    assert 1.0 in {lock[1] for lock in idle.pop_older(1.0)}
    idle.pop_older(9.0)
    assert len(idle) == 0


def test_a_child_keeps_the_holds_of_spoilt_keys(spoil):
    """The thread that forked gives them up as ever."""
    from singleflight.locks.slots import Hold
    from singleflight.locks.waiters import Waiter, get_ident, new_waiter

    slots, keys, me = Slots(2), [Key(name) for name in "AB"], get_ident()
    live = [slots.enter(key) for key in keys]
    for slot in live:
        slot.turn = Hold((slot.key,), new_waiter(Waiter, me, me, me))
        slot.turn.slots = [slot]
    spoil(keys[0])
    slots.after_fork()
    assert set(slots.live()) == set(live)
    for slot in live:
        slots.vacate(slot, After())
    assert slots.live() == []
