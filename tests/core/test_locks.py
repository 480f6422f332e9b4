"""Keyed locks: what they refuse, and what becomes of them when something cuts in."""

import asyncio
import threading
from unittest.mock import patch

import pytest

from singleflight import FlightDeadlock, FlightTimeout, KeyedLocks, UnhashableKey
from singleflight.core.transitions import new_flight
from singleflight.locks import keyed, table
from singleflight.locks.keyed import Queued
from singleflight.locks.mutex import inside, mutex
from singleflight.locks.slots import Hold
from singleflight.locks.unsettled import settle, unsettled
from singleflight.locks.waiters import Waiter, descends, new_waiter
from singleflight.locks.waitgraph import below, waiting
from singleflight.storage.store import Store

from ..amid import amid


@pytest.mark.parametrize(
    ("max_idle", "error", "message"),
    [
        (-1, ValueError, "max_idle: cannot be negative, got -1"),
        (1.0, TypeError, "max_idle: expected a whole number or None, got 1.0"),
        (True, TypeError, "max_idle: expected a whole number or None, got True"),
    ],
)
def test_a_bad_limit_is_named(max_idle, error, message):
    """With what was given."""
    with pytest.raises(error) as raised:
        KeyedLocks(max_idle)
    assert str(raised.value) == message


def test_bad_keys_are_named():
    """An error when the statement is made, before anything is waited for."""
    locks = KeyedLocks()
    with pytest.raises(TypeError) as none:
        locks()
    assert str(none.value) == "locks() needs at least one key"
    with pytest.raises(UnhashableKey) as raised:
        locks("a", [])
    assert str(raised.value) == "key 2: [] cannot be hashed"
    for ask in (locks.held, locks.waiting):
        with pytest.raises(UnhashableKey, match=r"^key: \[\] cannot be hashed$"):
            ask([])
    with pytest.raises(ValueError, match=r"^timeout: "):
        locks("a", timeout=-1)
    with pytest.raises(ValueError, match=r"^older_than: "):
        locks.evict_idle(-1)


def test_it_shows_how_many_there_are():
    """Live and idle; a registry without any is true all the same."""
    locks = KeyedLocks()
    assert bool(locks)
    with locks("a"):
        pass
    with locks("b", "c"):
        assert repr(locks) == "<KeyedLocks: 2 live, 1 idle>"


def test_a_statement_may_be_used_again_and_left_twice():
    """Leaving what is not held does nothing."""
    locks = KeyedLocks()
    statement = locks("a")
    statement.__exit__(None, None, None)
    for _ in range(2):
        with statement:
            assert locks.held("a")
        statement.__exit__(None, None, None)
        assert not locks.held("a")

    async def run():
        async with statement:
            assert locks.held("a")
        await statement.__aexit__(None, None, None)
        assert not locks.held("a")

    asyncio.run(run())


def test_giving_up_is_done_once_more_after_an_interrupt():
    """Whatever it had not given up is then; the interrupt goes on."""
    locks = KeyedLocks()
    statement, hold = locks("a"), Hold(("a",), new_waiter(Waiter, 1, 1, 1))
    with patch.object(locks, "_give_up", side_effect=[KeyboardInterrupt, None]) as give_up:
        with pytest.raises(KeyboardInterrupt):
            locks.release(hold)
        assert [call.args[0] for call in give_up.call_args_list] == [hold, hold]
    statement.__enter__()
    hold = statement._hold
    with patch.object(locks, "release", side_effect=KeyboardInterrupt) as release:
        with pytest.raises(KeyboardInterrupt):
            statement.__exit__(None, None, None)
        assert [call.args for call in release.call_args_list] == [(hold,)]
    assert not locks.held("a")  # whoever comes next has given it up


def test_what_is_given_up_amid_a_section_is_after_it():
    """A finaliser may leave a block anywhere; the key is free once the section is left, not before."""
    locks = KeyedLocks()
    statements = [locks("a"), locks("b")]
    for statement in statements:
        statement.__enter__()
    with mutex:
        for statement in statements:
            statement.__exit__(None, None, None)
        settle()
        assert len(unsettled) == 2
        assert locks.held("a")
    with locks("c"):
        pass
    assert not unsettled
    assert [locks.held(key) for key in "ab"] == [False, False]


def test_a_noted_hold_is_not_waited_for_any_more():
    """One whose owner had no room to give it up: it queues no more, and nobody is in a cycle by its wait."""
    locks = KeyedLocks()
    theirs, mine = (Hold(("a",), new_waiter(Waiter, name, name, name)) for name in ("they", "me"))
    locks._queue_for(theirs, None)
    locks._queue_for(mine, None)
    assert list(waiting) == ["me"]
    for _ in range(2):
        unsettled[mine] = locks._settle, mine, 0
        settle()
        assert (list(waiting), locks.waiting("a"), locks.held("a")) == ([], 0, True)
    locks.release(theirs)
    assert not locks.held("a")


def test_nothing_is_taken_amid_a_section():
    """Of the mutex; of a store what is free is. Idle locks are not evicted there either."""
    locks, store = KeyedLocks(), Store(None)
    with locks("idle"):
        pass
    with mutex:
        with pytest.raises(FlightDeadlock) as taken, locks("a"):
            pass
        assert str(taken.value) == "a keyed lock cannot be taken from inside the library's own section"
        assert locks.evict_idle() == 0
    assert locks.evict_idle() == 1
    theirs = Hold(("a",), new_waiter(Waiter, 7, 7, 7))
    locks.acquire(theirs, None)

    def take():
        with pytest.raises(FlightDeadlock) as waited, locks("a"):
            pass
        assert str(waited.value) == "a keyed lock cannot be waited for from inside the library's own section"
        with locks("free"):
            assert locks.held("free")

    amid(store._lock, take)
    assert locks.waiting("a") == 0
    locks.release(theirs)
    assert not locks.held("a")


def test_a_hold_knows_how_many_waits_it_came_on_top_of():
    """Of the thread that has it: those do not hold it up."""
    locks, hold = KeyedLocks(), Hold(("a",), new_waiter(Waiter, 8, 9, 8))
    with patch.dict(waiting, {9: ("one", "two")}):
        locks.acquire(hold, None)
    assert hold.depth == 2
    locks.release(hold)
    assert hold.slots == []


def test_what_is_evicted_is_destroyed_outside_the_mutex():
    """A destructor may do anything."""
    seen = []

    class Key:
        def __del__(self):
            seen.append(inside())

    locks = KeyedLocks(max_idle=1)
    with locks(Key()):
        pass
    assert seen == []
    with locks("b"):
        pass
    assert seen == [False]


def test_a_task_that_has_looked_in_vain_waits_on():
    """However often, until it has the key."""
    locks, theirs, looks, had_it = KeyedLocks(), Hold(("a",), new_waiter(Waiter, 7, 7, 7)), [], []
    locks.acquire(theirs, None)

    truly_look = Queued.look

    def look(queued):
        looks.append(queued)
        return truly_look(queued)

    async def take():
        async with locks("a"):
            had_it.append(theirs.slots)

    async def run():
        task = asyncio.create_task(take())
        while len(looks) < 3:
            assert not had_it
            await asyncio.sleep(0)
        locks.release(theirs)
        await asyncio.wait_for(task, 15)

    with patch.object(keyed, "LOOK", 0.001), patch.object(Queued, "look", look):
        asyncio.run(asyncio.wait_for(run(), 15))
    assert had_it == [[]]


@pytest.fixture
def nobody_waits():
    with patch.dict(waiting, clear=True), patch.dict(below, clear=True):
        yield


def test_giving_up_leaves_the_waits_that_there_were(nobody_waits):
    """A signal handler gives up; what it interrupted still waits."""
    locks, theirs = KeyedLocks(), Hold(("a",), new_waiter(Waiter, 7, 7, 7))
    locks.acquire(theirs, None)
    waiting[8] = ("outer",)
    with pytest.raises(FlightTimeout):
        locks.acquire(Hold(("a",), new_waiter(Waiter, 8, 8, 8)), 0)
    assert waiting == {8: ("outer",)}

    async def run():
        task = asyncio.current_task()
        waiting[task] = ("outer",)
        with pytest.raises(FlightTimeout):
            async with locks("a", timeout=0):
                pass
        return waiting.pop(task)

    assert asyncio.run(run()) == ("outer",)
    assert locks.waiting("a") == 0


class Child(Waiter):
    """Somebody whom 5 awaits outside the library."""

    def stand_at(self, latch, watcher=None, watched=None):
        self.stood = latch

    def climb(self):
        return frozenset({5})

    def look_again(self):
        self.noted_then = {actor: list(waiters) for actor, waiters in below.items()}
        super().look_again()


def test_who_awaits_a_waiter_is_noted_while_it_waits(nobody_waits):
    """And not before it has begun nor after it has ended."""
    locks, theirs, child = KeyedLocks(), Hold(("a",), new_waiter(Waiter, 7, 7, 7)), new_waiter(Child, 8, 8, 8)
    child.awaited_outside = True
    locks.acquire(theirs, None)
    mine = Hold(("a",), child)
    with pytest.raises(FlightTimeout):
        locks.acquire(mine, 0)
    assert child.noted_then == {5: [child]}
    assert child.stood is mine.latch
    assert (below, child.noted) == ({}, frozenset())


def test_who_holds_and_how_many_wait():
    """Callers whose flight nobody leads yet hold nothing, and each of them waits."""
    locks = KeyedLocks()
    assert (locks.held("k"), locks.waiting("k")) == (False, 0)
    slot = locks.enter("k")
    assert (locks.held("k"), locks.waiting("k")) == (False, 0)
    slot.turn = callers = new_flight(None, slot, 1, followers=3)
    assert (locks.held("k"), locks.waiting("k")) == (False, 3)
    callers.leader = 1
    slot.line_up(Hold(("k",), new_waiter(Waiter, 7, 7, 7)))
    slot.line_up(new_flight(None, slot, 1, followers=2))
    assert (locks.held("k"), locks.waiting("k")) == (True, 3 + 1 + 2)
    slot.turn = None
    assert (locks.held("k"), locks.waiting("k")) == (False, 1 + 2)


def test_whoever_closes_a_cycle_is_told_its_keys():
    """And has none of them."""
    locks = KeyedLocks()
    with locks("a"):
        with pytest.raises(FlightDeadlock, match=r"^waiting would never end: 'a' -> 'a'$"), locks("b", "a"):
            pass
        assert not locks.held("b")
        assert locks.waiting("a") == 0
        assert threading.get_ident() not in waiting


@pytest.mark.parametrize("where", ["the same task", "another task"])
def test_what_a_task_begins_inside_a_block_descends_from_it(where):
    """Until the block is left, be it in another task, whose context is another."""
    locks, seen = KeyedLocks(), []

    async def run():
        statement = locks("a")
        seen.append(descends.get())
        await statement.__aenter__()
        seen.append(descends.get())
        leave = statement.__aexit__(None, None, None)
        await (leave if where == "the same task" else asyncio.create_task(leave))
        seen.append(descends.get())
        assert not locks.held("a")

    asyncio.run(run())
    assert seen == [False, True, where != "the same task"]


@pytest.mark.parametrize("taken", [("another",), ("another", "one more")])
def test_idle_locks_that_go_for_others_are_destroyed_outside_the_mutex(taken):
    """Their keys' destructors may do anything, also take a lock."""
    seen = []

    class Key:
        def __del__(self):
            seen.append(inside())

    locks = KeyedLocks(max_idle=len(taken))
    for _ in taken:
        with locks(Key()):
            pass
    with locks(*taken):
        assert seen == []
    assert seen == [False] * len(taken)


def test_a_registry_that_is_gone_leaves_nothing_behind():
    """However many are made and dropped."""
    several = [KeyedLocks(), KeyedLocks()]
    known = [ref for ref in table._registries if any(ref() is locks for locks in several)]
    assert len(known) == 2
    several.clear()
    assert not any(ref in table._registries for ref in known)


def test_registries_are_told_apart_by_identity():
    """A subclass may compare its objects, or make them unhashable: each is known, for cycles and forks."""

    class Equal(KeyedLocks):
        def __eq__(self, other):
            return isinstance(other, Equal)

    several = [Equal(), Equal()]
    assert [sum(locks is each for each in table.registries()) for locks in several] == [1, 1]
    known = [ref for ref in table._registries if any(ref() is locks for locks in several)]
    several.clear()
    assert not any(ref in table._registries for ref in known)
