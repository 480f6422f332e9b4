"""Turns and those that queue for them, one thread playing everybody."""

import asyncio
import sys
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from singleflight import KeyedLocks
from singleflight.common.errors import FlightDeadlock, FlightTimeout
from singleflight.locks import keyed, waiters, waitgraph
from singleflight.locks.keyed import Queued
from singleflight.locks.latch import LOOK, LOOK_AGAIN, Latch
from singleflight.locks.slots import Hold, ahead
from singleflight.locks.table import Slots, keys_of, new_slot
from singleflight.locks.waiters import Waiter, current_actor, get_ident, new_waiter
from singleflight.testing import FakeClock


def hold(actor, *keys, waiter=Waiter, release=None):
    return Hold(keys or ("k",), new_waiter(waiter, actor, actor, actor), release)


class Dead(Waiter):
    def is_dead(self):
        return True


def test_who_acts():
    """The task, the loop in one of its callbacks, or the thread; also before anybody has imported asyncio."""
    detour = waiters._running_loop_if_any

    async def run():
        loop, called_back = asyncio.get_running_loop(), []
        with patch.object(waiters, "running_loop", detour):
            assert current_actor() is asyncio.current_task()
            assert waiters.running_loop is not detour  # it is gone another time
            assert current_actor() is asyncio.current_task()
        with patch.object(waiters, "running_loop", detour):
            loop.call_soon(lambda: called_back.append(current_actor()))
            while not called_back:
                await asyncio.sleep(0)
        assert called_back == [loop]

    asyncio.run(run())
    with patch.object(waiters, "running_loop", detour):
        with patch.dict(sys.modules):
            del sys.modules["asyncio"]
            assert current_actor() == get_ident()
            assert waiters.running_loop is detour
        assert current_actor() == get_ident()


def test_who_is_above_is_asked_once_and_again_where_that_may_have_changed():
    """Its leader waits for the asker or not; what was seen holds until it looks again."""

    class Child(Waiter):
        awaited_by = frozenset({2})

        def above(self, turn):
            assert turn is wanted
            return self.awaited_by

        def climb(self):
            return self.awaited_by

    child, wanted = new_waiter(Child, 1, 1, 1), hold(2)
    assert child.is_below(wanted)
    child.awaited_by = frozenset()
    assert child.is_below(wanted)
    child.look_again()
    assert not child.is_below(wanted)
    child.awaited_by = frozenset({2})
    child.begin()
    assert (child.awaited_outside, child.noted) == (False, frozenset())
    assert child.is_below(wanted)
    assert not hold(1).waiter.is_below(wanted)


def test_a_hold_is_given_up_for_its_owner_when_that_is_dead():
    """And not before, whoever waits for it and looks."""
    released = []
    alive, dead = hold(1, release=released.append), hold(2, waiter=Dead, release=released.append)
    for turn in (alive, dead, hold(3, waiter=Dead)):
        turn.see_to()
    assert released == [dead]


def test_a_hold_opens_its_gate_with_its_last_key():
    """As long as one of its keys is missing there is nothing to wake it for."""
    mine, slots = hold(1, "a", "b"), [new_slot("a"), new_slot("b")]
    mine.latch, mine.slots = Latch(), slots
    slots[0].turn = mine
    assert (mine.missing, mine.admit()) == (True, None)
    slots[1].turn = mine
    assert (mine.missing, mine.admit()) == (False, mine.latch)


def callers(slot):
    """Callers of whom none has come to lead yet have the key."""
    slot.turn = hold(None)
    assert slot.turn.leader is None
    return slot.turn


def test_overtaking_callers_that_nobody_leads():
    """Whoever is first in the queue takes the key, and they queue behind it."""
    mine, other, slots = hold(1, "a", "b"), hold(2, "b"), [new_slot("a"), new_slot("b")]
    mine.slots = slots
    slots[0].turn = mine
    before = callers(slots[1])
    slots[1].line_up(mine), slots[1].line_up(other)
    assert Slots.overtake(mine)
    assert slots[1].turn is mine
    assert list(slots[1].queue) == [other, before]


@pytest.mark.parametrize("why", ["somebody leads them", "another is first", "nobody has it", "nobody queues"])
def test_overtaking_is_all_or_nothing(why):
    """Where one of the keys cannot be taken none is."""
    mine, other, slots = hold(1, "a", "b"), hold(2, "b"), [new_slot("a"), new_slot("b")]
    mine.slots = slots
    before = [callers(slot) for slot in slots]
    if why == "somebody leads them":
        before[1] = slots[1].turn = other
    elif why == "another is first":
        slots[1].line_up(other)
    elif why == "nobody has it":
        before[1] = slots[1].turn = None
    for slot in slots[: 1 if why == "nobody queues" else 2]:
        slot.line_up(mine)
    queued = [list(slot.queue) for slot in slots]
    assert not Slots.overtake(mine)
    assert [slot.turn for slot in slots] == before
    assert [list(slot.queue) for slot in slots] == queued


def test_whoever_is_ahead_is_named_once():
    """In order: who has the key, then who is nearer; in one walk, only those that were not named yet."""
    slot, holds = new_slot("k"), [hold(number) for number in range(5)]
    slot.turn = holds[0]
    for turn in holds[1:4]:
        slot.line_up(turn)
    told = {}
    assert list(ahead(holds[2], slot, told)) == [("k", holds[0]), ("k", holds[1])]
    assert list(ahead(holds[1], slot, told)) == []
    assert list(ahead(holds[3], slot, told)) == [("k", holds[2])]
    assert list(ahead(holds[4], slot, told)) == [("k", holds[3])]  # not there yet: it will be behind them all
    assert list(ahead(holds[1], slot, {})) == [("k", holds[0])]
    told = {}
    assert list(ahead(holds[1], slot, told)) == [("k", holds[0])]
    assert list(ahead(holds[3], slot, told)) == [("k", holds[1]), ("k", holds[2])]
    slot.turn = None
    assert list(ahead(holds[2], slot, {})) == [("k", holds[1])]


@pytest.fixture
def clock():
    clock = FakeClock(100.0)
    with patch.object(keyed, "time", SimpleNamespace(monotonic=clock)):
        yield clock


@pytest.mark.parametrize(("awaited_outside", "look"), [(False, LOOK), (True, LOOK_AGAIN)])
def test_how_long_a_lock_is_waited_for(clock, awaited_outside, look):
    """Until it is time to look, or to give up if that is earlier, and never less than not at all."""
    mine = hold(1)
    mine.waiter.awaited_outside = awaited_outside
    assert Queued(mine, Latch(), None).pause() == look
    queued = Queued(mine, Latch(), 2.0)
    assert (queued.pause(), queued.is_over()) == (look, False)
    clock.advance(2.0 - look / 2)
    assert queued.pause() == pytest.approx(look / 2)
    clock.advance(look / 2)
    assert (queued.pause(), queued.is_over()) == (0.0, True)
    clock.advance(5.0)
    assert (queued.pause(), queued.is_over()) == (0.0, True)
    assert not Queued(mine, Latch(), None).is_over()


def test_who_gives_up_is_told_how_long_and_for_what(clock):
    """The message names every key."""
    locks, mine = KeyedLocks(), hold(1, "a", 2)
    for key in mine.keys:
        slot = locks.enter(key)
        slot.turn = hold(9)
        mine.slots.append(slot)
        slot.line_up(mine)
    queued = Queued(mine, Latch(), 1.5)
    assert queued.look() is False
    clock.advance(1.5)
    with pytest.raises(FlightTimeout, match=r"^waited 1.5 s for 'a', 2$"):
        queued.look()
    for slot in mine.slots:
        slot.turn = mine
    assert queued.look() is True


def test_looking_gives_up_the_holds_of_the_dead(clock):
    """Whoever waits looks whether those ahead can still end."""
    locks, mine = KeyedLocks(), hold(1)
    slot = locks.enter("k")
    slot.turn = dead = hold(2, waiter=Dead, release=locks.release)
    dead.slots, mine.slots = [slot], [slot]
    slot.line_up(mine)
    assert Queued(mine, Latch(), None).look() is True
    assert slot.turn is mine


class Child(Waiter):
    """Somebody whom others wait for outside the library: `awaited_by`."""

    awaited_by = frozenset()

    def climb(self):
        return self.awaited_by


@pytest.mark.parametrize("awaited_outside", [True, False])
def test_a_cycle_that_is_closed_while_a_lock_is_waited_for(awaited_outside):
    """Who may come to be awaited looks again, and is told; nobody else looks."""
    locks = KeyedLocks()
    slot, mine, child = locks.enter("k"), hold(1, waiter=Child), new_waiter(Child, 1, 1, 1)
    mine.waiter = child
    child.awaited_outside = awaited_outside
    slot.turn, mine.slots = hold(2), [slot]
    slot.line_up(mine)
    queued = Queued(mine, Latch(), None)
    with patch.dict(waitgraph.below, clear=True):
        assert queued.look() is False
        child.awaited_by = frozenset({2})
        if awaited_outside:
            with pytest.raises(FlightDeadlock, match=r"^waiting would never end: 'k' -> 'k'$"):
                queued.look()
            assert waitgraph.below == {2: {child: None}}
            slot.turn = mine
            assert queued.look() is True
        else:
            assert queued.look() is False


def test_looking_at_a_key_that_nobody_has():
    """It was given up, and has not been handed on yet: there is nothing to see to."""
    slot, mine = new_slot("k"), hold(1)
    mine.slots = [slot]
    slot.line_up(mine)
    assert Queued(mine, Latch(), None).look() is False


def test_the_keys_that_an_actor_took_in_between_are_named():
    """Of those on the cycle alone, in the order in which they were taken."""
    locks = KeyedLocks()
    first, wanted = hold(1, "A"), hold(2, "W")
    taken = {"A": first, "B": hold(1, "B"), "C": hold(1, "C"), "X": hold(3, "X"), "W": wanted}
    for key in "CXBAW":
        locks.enter(key).turn = taken[key]
    assert keys_of([("A", first)], wanted) == ["A", "B", "C", "A"]
    assert keys_of([("C", taken["C"]), ("W", wanted)], wanted) == ["C", "W", "C"]
    assert keys_of([("A", first)], taken["B"]) == ["A", "C", "A"]
    assert keys_of(None, wanted) is None
    locks.enter("Y")  # nobody's
    assert keys_of([("W", wanted)], first) == ["W", "W"]
