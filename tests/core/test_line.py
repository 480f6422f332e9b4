"""A line for seats, step by step: who has one, who is next, and who is skipped."""

import asyncio
import threading
from collections import deque

import pytest

from singleflight.locks.latch import Latch
from singleflight.locks.line import Line, Seat
from singleflight.locks.mutex import inside, mutex
from singleflight.locks.task_waiters import task_waiter
from singleflight.locks.waiters import thread_waiter


@pytest.fixture
def line():
    return Line(1)


def take(line, key):
    """A seat of this thread, or a place in the line, where it waits at a latch."""
    seat = Seat(line, key, thread_waiter(), key)
    with mutex:
        line._take(seat)
        seat.latch = Latch() if seat.missing else None
    return seat


def in_a_thread(act):
    """What a thread returns that has ended."""
    found = []
    thread = threading.Thread(target=lambda: found.append(act()), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    return found[0]


def test_a_seat_that_is_given_up_goes_to_the_first_in_line(line):
    """It has the seat before it is woken, and its latch is open then; the others still wait."""
    first, second, third = (take(line, key) for key in "abc")
    assert [seat.missing for seat in (first, second, third)] == [False, True, True]
    assert [line.is_queued(key) for key in "abc"] == [False, True, True]
    line.release(first)
    assert (list(line.taken), list(line.queue)) == ([second], [third])
    assert (second.latch.wait(0), third.latch.wait(0)) == (True, False)
    assert (second.is_over(), third.is_over(), third.in_the_way()) == (True, False, [second])


def test_the_line_is_read_under_the_mutex(line):
    """Without a global interpreter lock others would change it meanwhile, which a deque raises."""

    class Guarded(deque):
        def __iter__(self):
            assert inside()
            return super().__iter__()

        def copy(self):
            return list(self)

    seats = [take(line, key) for key in "ab"]
    line.queue = Guarded(line.queue)
    assert [line.is_queued(seat.owner) for seat in seats] == [False, True]


def test_who_leaves_the_line_lets_nobody_through(line):
    """Giving up a place takes it out, also where that is repeated; the next one has the same chance."""
    first, second, third = (take(line, key) for key in "abc")
    line.release(second), line.release(second)
    assert (list(line.taken), list(line.queue)) == ([first], [third])
    line.release(first)
    assert list(line.taken) == [third]


def test_whose_thread_has_ended_is_skipped(line):
    """A thread that ended in line is never let in; one that is there is."""
    first = take(line, "a")
    gone = in_a_thread(lambda: take(line, "b"))
    third = take(line, "c")
    assert (gone.is_dead(), third.is_dead()) == (True, False)
    line.release(first)
    assert (list(line.taken), list(line.queue)) == ([third], [])
    assert (gone.latch.wait(0), third.latch.wait(0)) == (False, True)


def test_whose_thread_has_ended_holds_a_seat_up_no_more(line):
    """Whoever waits sees to those who have the seats: one whose thread has ended is taken out."""
    gone = in_a_thread(lambda: take(line, "a"))
    waiting = take(line, "b")
    (blocker,) = waiting.in_the_way()
    blocker.see_to()
    assert (blocker, list(line.taken)) == (gone, [waiting])


def test_a_seat_of_a_task_is_not_its_thread():
    """It is dead with its event loop, and not with the thread that this ran on when it was taken."""

    async def take_one():
        return Seat(Line(1), "a", task_waiter("a test"), None)

    assert asyncio.run(take_one()).life is None


def test_in_a_forked_child_only_its_own_seats_are_taken():
    """Nobody stands in line there, and who held a seat elsewhere holds none."""
    line = Line(2)
    mine, _elsewhere = take(line, "a"), in_a_thread(lambda: take(line, "b"))
    queued = take(line, "c")
    line.after_fork()
    assert (list(line.taken), list(line.queue), queued.missing) == ([mine], [], True)
    assert [take(line, key).missing for key in "de"] == [False, True]
