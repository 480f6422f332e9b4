"""Who waits for whom, laid out by hand: every kind of way back to whoever asks."""

from unittest.mock import patch

import pytest

from singleflight.locks import waitgraph
from singleflight.locks.mutex import inside, mutex
from singleflight.locks.slots import Turn
from singleflight.locks.waiters import Waiter, new_waiter
from singleflight.locks.waitgraph import (
    begin_waiting,
    cycle,
    describe,
    end_waiting,
    forget_the_gone,
    keep_waiting,
    note,
    reset_after_fork,
    waits,
)


class Held(Turn):
    """A key that somebody has; or, with others named, one that is held up by those."""

    def __init__(self, key, leader=None, thread=None, by=None):
        self.key, self.leader, self.thread = key, leader, leader if thread is None else thread
        self.number = self.depth = 0
        self.by = [self] if by is None else by

    def blockers(self, told):
        assert told is not None
        return iter([(turn.key, turn) for turn in self.by])


class Child(Waiter):
    """Somebody whom others wait for outside the library: `awaited_by`."""

    awaited_by = frozenset()

    def above(self, turn):
        assert isinstance(turn, Turn)
        return self.awaited_by

    def climb(self):
        return self.awaited_by


def below_somebody(waiter, *awaited_by):
    made = new_waiter(Child, waiter, waiter, waiter)
    made.awaited_by = frozenset(awaited_by)
    return made


@pytest.fixture
def waiting():
    """Who waits for what; nobody else does meanwhile."""
    with patch.dict(waitgraph.waiting, clear=True), patch.dict(waitgraph.below, clear=True):
        yield waitgraph.waiting


def waiter(actor):
    return new_waiter(Waiter, actor, actor, actor)


def keys(found):
    return None if found is None else [key for key, _ in found]


A, B, C, D = "ABCD"


def test_the_cycle_begins_with_what_the_asker_holds_up(waiting):
    """1 has A and asks for B, 2 has B and waits for C, 3 has C and waits for D, 4 has D and waits for A."""
    turns = {key: Held(key, number) for number, key in enumerate("ABCD", 1)}
    for number, key in [(2, C), (3, D), (4, A)]:
        begin_waiting(number, turns[key])
    assert keys(cycle(waiter(1), turns[B])) == [A, B, C, D]
    end_waiting(3, 0)
    assert cycle(waiter(1), turns[B]) is None


def test_a_thread_holds_up_every_task_that_runs_on_it(waiting):
    """Who asks is known as the leader of what it has, or as the thread where that runs."""
    assert keys(cycle(waiter(1), Held(A, "task", thread=1))) == [A]
    assert keys(cycle(waiter("task"), Held(A, "task", thread=1))) == [A]
    assert cycle(waiter(2), Held(A, "task", thread=1)) is None
    begin_waiting(1, Held(B, 2))
    assert keys(cycle(waiter(2), Held(A, "task", thread=1))) == [B, A]
    end_waiting(1, 0)
    begin_waiting("task", Held(B, 2))
    assert keys(cycle(waiter(2), Held(A, "task", thread=1))) == [B, A]


def test_what_nobody_leads_holds_nobody_up(waiting):
    """Whatever else is in the way is looked at all the same."""
    assert keys(cycle(waiter(1), Held(A, by=[Held(B, 1), Held(C), Held(D)]))) == [B]
    assert cycle(waiter(None), Held(A, by=[Held(C)])) is None


def test_a_cycle_of_others_is_walked_once(waiting):
    """It is theirs to notice; the walk ends."""
    b, c = Held(B, 2), Held(C, 3)
    begin_waiting(2, c), begin_waiting(3, b)
    assert cycle(waiter(1), b) is None


def test_what_was_waited_for_before_does_not_hold_up_what_came_on_top(waiting):
    """A signal handler has a key on top of the wait that it interrupted."""
    begin_waiting(2, Held(A, 1))
    before, on_top = Held(B, 2), Held(C, 2)
    on_top.depth = 1
    assert keys(cycle(waiter(1), before)) == [A, B]
    assert cycle(waiter(1), on_top) is None
    begin_waiting(2, Held(D, 1))
    assert keys(cycle(waiter(1), on_top)) == [D, C]


def test_who_is_awaited_outside_holds_up_whoever_awaits(waiting):
    """2 has B and awaits 3, which waits for A; and 2 may have stopped to await it since that was noted."""
    child = below_somebody(3, 2)
    note(child, child.climb())
    begin_waiting(3, Held(A, 1))
    assert keys(cycle(waiter(1), Held(B, 2))) == [A, B]
    child.awaited_by = frozenset({5})
    assert cycle(waiter(1), Held(B, 2)) is None
    assert waitgraph.below == {5: {child: None}}
    assert child.noted == {5}


def test_who_is_awaited_outside_and_does_not_wait(waiting):
    """It was noted, and has not begun to wait, or has ended: it holds nobody up."""
    child = below_somebody(3, 2)
    note(child, child.climb())
    assert cycle(waiter(1), Held(B, 2)) is None


def test_the_asker_is_not_asked_who_awaits_it(waiting):
    """What is noted of it is what it has just seen."""
    me = below_somebody(1, 2)
    note(me, me.climb())
    begin_waiting(1, Held(C, 1))
    me.climb = None
    assert keys(cycle(me, Held(B, 2))) == [C, B]


def test_a_cycle_that_is_closed_outside(waiting):
    """2 awaits the asker, which asks for what 3 has, who waits for what 2 has; one inside is told first."""
    begin_waiting(3, Held(B, 2))
    assert keys(cycle(below_somebody(1, 2), Held(C, 3))) == [B, C]
    assert keys(cycle(below_somebody(1, 3), Held(C, 3))) == [C]
    assert keys(cycle(below_somebody(1, 2, 3), Held(C, 3))) == [C]
    assert cycle(below_somebody(1, 4), Held(C, 3)) is None
    begin_waiting(2, Held(A, 1))
    assert keys(cycle(below_somebody(1, 2), Held(C, 3))) == [A, C, B]


def test_notes_of_who_is_above():
    """New ones take the place of the old, and an actor of whom nothing is noted is not kept."""
    first, second = waiter(1), waiter(2)
    with patch.dict(waitgraph.below, clear=True):
        note(first, frozenset({8, 9}))
        note(second, frozenset({9}))
        assert waitgraph.below == {8: {first: None}, 9: {first: None, second: None}}
        note(first, frozenset({7}))
        assert waitgraph.below == {7: {first: None}, 9: {second: None}}
        first.noted = frozenset({6, 9})  # a fork forgets what was noted
        note(first, frozenset())
        assert waitgraph.below == {7: {first: None}, 9: {second: None}}
        note(second, frozenset())
        assert waitgraph.below == {7: {first: None}}


def test_waits_on_top_of_waits(waiting):
    """The last begun is the one that goes on to wait for something else, or ends."""
    begin_waiting(1, A), begin_waiting(1, B), begin_waiting(1, C)
    assert (waiting, waits(1), waits(2)) == ({1: (A, B, C)}, 3, 0)
    keep_waiting(1, D), keep_waiting(2, A)
    assert waiting == {1: (A, B, D), 2: (A,)}
    end_waiting(1, 2), end_waiting(3, 1)
    assert waiting == {1: (A, B), 2: (A,)}
    end_waiting(1, 0), end_waiting(1, 0)
    assert waiting == {2: (A,)}


def test_a_closed_loop_takes_its_waits_with_it(waiting):
    """What is dropped is handed out, to be destroyed after the mutex; nobody else's is touched."""

    class Task:
        def __init__(self, closed):
            self.closed = closed

        def get_loop(self):
            return self

        def is_closed(self):
            return self.closed

    dead, alive = Task(True), Task(False)
    gone, kept = below_somebody(dead, 9), below_somebody(alive, 9)
    note(gone, gone.climb()), note(kept, kept.climb())
    begin_waiting(dead, A), begin_waiting(alive, B), begin_waiting(1, C)
    also_dead = Task(True)
    begin_waiting(also_dead, D)
    assert forget_the_gone() == [dead, (A,), also_dead, (D,), gone]
    assert waiting == {alive: (B,), 1: (C,)}
    assert waitgraph.below == {9: {kept: None}}
    assert gone.noted == frozenset()
    assert forget_the_gone() == []


def test_a_task_that_leaves_while_its_loop_is_looked_at(waiting):
    """It takes out its wait itself, under no lock."""

    class Leaving:
        def get_loop(self):
            return self

        def is_closed(self):
            end_waiting(self, 0)
            return True

    leaving = Leaving()
    begin_waiting(leaving, A)
    assert forget_the_gone() == [leaving, None]


def test_a_fork_amid_a_section(waiting):
    """The section goes on in the child; nobody waits there."""
    begin_waiting(1, A)
    note(waiter(1), frozenset({2}))
    with mutex:
        reset_after_fork()
        assert inside()
    assert not inside()
    assert (waiting, waitgraph.below) == ({}, {})


def test_a_cycle_as_text():
    """The keys as Python shows them."""
    assert describe(["A", 2, ("B",)]) == "'A' -> 2 -> ('B',)"
