"""Idle locks against a list that is searched."""

import gc
import weakref

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from singleflight import single_flight_ttl
from singleflight.locks.slots import Hold
from singleflight.locks.table import Idle, Slots
from singleflight.locks.unsettled import After
from singleflight.locks.waiters import Waiter, get_ident, new_waiter

KEYS = st.integers(0, 9)


class IdleMachine(RuleBasedStateMachine):
    """Locks become idle, are used again, forgotten and evicted; the model has the oldest first."""

    limit = 4

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.idle = Idle(self.limit)
        self.model = []

    @rule(key=KEYS)
    def becomes_idle(self, key):
        if key in [key for key, _ in self.model]:
            return  # it is idle already: only a live one becomes idle
        self.model.append((key, self.now))
        over = self.limit is not None and len(self.model) > self.limit
        assert self.idle.add(key, self.now) == (self.model.pop(0) if over else None)

    @rule(key=KEYS)
    def is_used_again(self, key):
        expected = next((pair for pair in self.model if pair[0] == key), None)
        assert self.idle.pop(key) == expected
        self.model = [pair for pair in self.model if pair is not expected]

    @rule()
    def oldest_goes(self):
        assert self.idle.pop_oldest() == (self.model.pop(0) if self.model else None)

    @rule(older_than=st.sampled_from([0.0, 1.0, 5.0]))
    def evict(self, older_than):
        old = [pair for pair in self.model if pair[1] <= self.now - older_than]
        assert self.idle.pop_older(self.now - older_than) == old
        self.model = self.model[len(old) :]

    @rule(step=st.sampled_from([0.5, 3.0]))
    def tick(self, step):
        self.now += step

    @invariant()
    def the_same_in_the_same_order(self):
        assert self.idle.keys() == [key for key, _ in self.model]
        assert len(self.idle) == len(self.model)


class One(IdleMachine):
    """Room for one."""

    limit = 1


class All(IdleMachine):
    """No limit."""

    limit = None


@pytest.mark.parametrize("examples", [20, pytest.param(80, marks=pytest.mark.long)])
@pytest.mark.parametrize("machine", [IdleMachine, One, All])
def test_any_order(machine, examples):
    """Whatever is taken, released and evicted, in any order: it does as the model."""
    run_state_machine_as_test(
        machine, settings=settings(max_examples=examples, stateful_step_count=50, deadline=None)
    )


@pytest.mark.parametrize("leave", ["pop", "limit", "pop_older"])
def test_nothing_of_a_key_is_kept(leave):
    """A key that is no longer idle is not referred to, whichever dictionary it was in."""

    class Key:
        pass

    gc.disable()
    try:
        idle = Idle(6)
        keys = [Key() for _ in range(9)]
        seen = [weakref.ref(key) for key in keys]
        for number, key in enumerate(keys):
            idle.add(key, float(number))
        assert idle._older
        assert idle._younger
        if leave == "pop":
            for key in keys[3:]:
                idle.pop(key)
        elif leave == "limit":
            for number in range(6):
                idle.add(number, 9.0)
        else:
            idle.pop_older(9.0)
        keys.clear()
        del key
        assert [ref() for ref in seen] == [None] * 9
    finally:
        gc.enable()


def test_the_registrys_own_key_object_comes_back():
    """A key that is used again is not destroyed on the way: the slot has the object that was kept."""

    class Key:
        def __eq__(self, other):
            return True

        def __hash__(self):
            return 1

    slots, first = Slots(None), Key()
    slots.vacate(slots.enter(first), After())
    assert slots.enter(Key()).key is first


def test_a_key_forgotten_while_the_order_is_turned_round_stays_forgotten():
    """A handler may come in after the locks were copied and before the copy is used."""

    class Forgetting(dict):
        def items(self):
            pairs = dict(super().items())
            idle._younger.pop("b")
            return pairs.items()

    idle = Idle(None)
    for key in "abc":
        idle.add(key, 0.0)
    idle._younger = Forgetting(idle._younger)
    assert [pair[0] for pair in (idle.pop_oldest(), idle.pop_oldest())] == ["a", "c"]
    assert idle.pop_oldest() is None


def test_a_key_forgotten_while_what_is_forgotten_is_looked_for_stays_forgotten():
    """A handler may forget a key once more, and another, while those are taken out that it forgot before."""

    class Forgetting(dict):
        def items(self):
            pairs = dict(super().items())
            self.pop("b")
            return pairs.items()

        def keys(self):
            assert idle.pop("b")
            yield from ("a", "c")

    idle = Idle(None)
    for key in "abc":
        idle.add(key, 0.0)
    idle._younger = Forgetting(idle._younger)
    assert [pair[0] for pair in (idle.pop_oldest(), idle.pop_oldest())] == ["a", "c"]
    assert idle.pop_oldest() is None


def test_a_turn_that_is_still_in_the_queue_gets_the_key_once():
    """An interrupt may come between its getting the key and its leaving the queue."""
    slots = Slots(None)
    slot = slots.enter("k")
    first, second, third = (Hold(("k",), new_waiter(Waiter, number, number, number)) for number in range(3))
    slot.turn = first
    slot.line_up(second), slot.line_up(third)
    slot.turn = second
    slots.vacate(slot, After())
    assert slot.turn is third


@pytest.mark.parametrize("somebody_follows", [True, False])
def test_those_that_will_never_go_on_are_passed_over_and_handed_out(somebody_follows):
    """They are destroyed by whoever gave the key up, after the mutex: destructors may do anything."""

    class Dead(Waiter):
        def is_dead(self):
            return True

    slots = Slots(None)
    slot = slots.enter("k")
    slot.turn = Hold(("k",), new_waiter(Waiter, 0, 0, 0))
    waiters = [new_waiter(Dead, number, number, number) for number in (1, 2)]
    seen = [weakref.ref(waiter) for waiter in waiters]
    for waiter in waiters:
        slot.line_up(Hold(("k",), waiter))
    alive = Hold(("k",), new_waiter(Waiter, 3, 3, 3)) if somebody_follows else None
    if somebody_follows:
        slot.line_up(alive)
    del waiters, waiter
    gone = After()
    slots.vacate(slot, gone)
    assert slot.turn is alive
    assert slots.live() == ([slot] if somebody_follows else [])
    assert [ref() is not None for ref in seen] == [True, True]
    del gone
    assert [ref() for ref in seen] == [None, None]


def test_room_for_one_idle_lock():
    """The last that was used is kept."""
    slots = Slots(1)
    for key in "ab":
        slots.vacate(slots.enter(key), After())
    assert slots._idle.keys() == ["b"]


def test_no_idle_lock_is_kept_for_an_instance():
    """Nothing of a key that begins with an instance is to outlive it; other tuples are like any key."""

    class Account:
        @single_flight_ttl(ttl=60)
        def price(self, symbol):
            return symbol

    @single_flight_ttl(ttl=60)
    def price(symbol):
        return symbol

    account = Account()
    account.price("A"), price("A")
    assert (Account.price.locks.idle, price.locks.idle) == (0, 1)


def test_a_slot_that_was_lost_at_a_fork_leaves_nothing():
    """In a forked child only the forking thread's own holds, of all their keys, are still there."""
    me = get_ident()
    slots = Slots(2)
    theirs, mine, partly = (
        Hold(("k",), new_waiter(Waiter, actor, actor, actor)) for actor in (me + 1, me, me)
    )
    lost, kept, part = slots.enter("lost"), slots.enter("kept"), slots.enter("part")
    slots.vacate(slots.enter("idle"), After())
    lost.turn, kept.turn, part.turn = theirs, mine, partly
    kept.line_up(partly)
    theirs.slots, mine.slots, partly.slots = [lost], [kept], [kept, part]
    slots.after_fork()
    assert slots.live() == [kept]
    assert slots._idle.keys() == []
    assert not kept.queue
    slots.vacate(lost, After())
    assert slots._idle.keys() == []
    for key in "abc":
        slots.vacate(slots.enter(key), After())
    assert slots._idle.keys() == ["b", "c"]
