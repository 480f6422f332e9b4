"""Scenes of windows: single calls that are loaded together, and what happens to their callers."""

from __future__ import annotations

from .combined import CROSSWISE, may_deadlock, stale
from .settings import FORKS, feature, scene
from .world import World

__all__: list[str] = []

WINDOW = 0.01


@feature("two threads in a window", preemptions=3, gather=WINDOW)
def two(world: World) -> None:
    world.thread(world.call, "A")
    world.thread(world.call, "B")


@feature("three threads in a window, two ask for one key", preemptions=1, gather=WINDOW)
def three(world: World) -> None:
    two(world)
    world.thread(world.call, "A")


@feature("a window that is full", preemptions=1, gather=WINDOW, max_batch=2)
def full(world: World) -> None:
    two(world)
    world.thread(world.call, "C")


@feature("a thread and two tasks in a window", gather=WINDOW)
def mixed(world: World) -> None:
    world.thread(world.call, "A")
    world.tasks((world.call_in_task, "B"), (world.call_in_task, "C"))


@feature("two loops in a window", gather=WINDOW)
def two_loops(world: World) -> None:
    world.tasks((world.call_in_task, "A"))
    world.tasks((world.call_in_task, "B"))


@feature("a bulk call for one key in a window", preemptions=1, gather=WINDOW)
def bulk_of_one(world: World) -> None:
    world.thread(world.call, "A")
    world.thread(world.load, "B")
    world.tasks((world.load_in_task, "C"))


@feature("a window's loader fails once", preemptions=1, gather=WINDOW, fails=(True,))
def fails(world: World) -> None:
    world.most_executions = 4
    three(world)


@feature("a window and an invalidation", gather=WINDOW)
def invalidated(world: World) -> None:
    world.most_executions = 5
    two(world)
    world.thread(world.invalidate, "A")


@feature("a window, an invalidation and a second caller", gather=WINDOW)
def invalidated_and_asked(world: World) -> None:
    world.most_executions = 5
    world.thread(world.call, "A")
    world.thread(world.invalidate, "A")
    world.thread(world.call, "A")


@feature("a window and a put", gather=WINDOW)
def put(world: World) -> None:
    world.most_executions = 5
    two(world)
    world.thread(world.put, "A")


@feature("a window's opener is cancelled", preemptions=1, gather=WINDOW)
def opener_cancelled(world: World) -> None:
    world.most_executions = 3
    world.tasks((world.call_in_task, "A"), (world.call_in_task, "B"), cancels=0)
    world.thread(world.call, "A")


@feature("a window's opener is cancelled while it is loaded", preemptions=1, gather=WINDOW, lasts=1)
def opener_cancelled_late(world: World) -> None:
    world.may_wait_out = True
    world.most_executions = 4
    world.tasks((world.call_in_task, "A"), (world.call_in_task, "B"), cancels=0)


@feature("a window's member is cancelled", preemptions=1, gather=WINDOW)
def member_cancelled(world: World) -> None:
    world.most_executions = 4
    world.tasks((world.call_in_task, "A"), (world.call_in_task, "B"), cancels=1)
    world.thread(world.call, "C")


@feature("the only caller of a window is cancelled", gather=WINDOW)
def only_cancelled(world: World) -> None:
    world.most_executions = 2
    world.tasks((world.call_in_task, "A"), cancels=0)
    world.thread(world.call, "A")


@feature("a window takes too long", preemptions=1, gather=WINDOW, flight_timeout=5, lasts=7)
def too_long(world: World) -> None:
    world.may_wait_out = True
    world.may_raise = (world.library.package.FlightTimeout,)
    world.most_executions = 9
    two(world)
    world.tasks((world.call_in_task, "A"))


@feature("a member waits for so long", preemptions=1, gather=WINDOW, wait_timeout=5, lasts=7)
def waits_too_long(world: World) -> None:
    world.may_wait_out = True
    world.may_raise = (world.library.package.FlightTimeout,)
    two(world)
    world.tasks((world.call_in_task, "C"))


@feature("a loop dies with a window", preemptions=1, gather=WINDOW)
def loop_dies(world: World) -> None:
    world.may_wait_out = True
    world.most_executions = 6
    world.tasks((world.call_in_task, "A"), dies=3)
    world.thread(world.call, "B")
    world.thread(world.call, "A")


@feature("a window needs a seat", preemptions=1, gather=WINDOW, max_batch=2, max_flights=1)
def in_line(world: World) -> None:
    two(world)
    world.thread(world.call, "C")


@feature("stale values are renewed in a window", preemptions=1, gather=WINDOW, grace=60)
def renewed(world: World) -> None:
    stale(world, "A", "B")
    two(world)
    world.thread(world.call, "C")


@feature("a thread and a task find stale values, in a window", gather=WINDOW, grace=60)
def renewed_mixed(world: World) -> None:
    stale(world, "A", "B")
    world.thread(world.call, "A")
    world.tasks((world.call_in_task, "B"))


@feature("a stale value is renewed in a window and invalidated", preemptions=1, gather=WINDOW, grace=60)
def renewed_and_invalidated(world: World) -> None:
    world.most_executions = 4
    stale(world, "A")
    world.thread(world.call, "A")
    world.thread(world.call, "A")
    world.thread(world.invalidate, "A")


@feature("windows in a cycle", gather=WINDOW, nested=CROSSWISE)
def cycle(world: World) -> None:
    may_deadlock(world)
    two(world)


@feature("a cycle over a window", gather=WINDOW, nested={"A": "X", "X": "B"})
def cycle_over_a_member(world: World) -> None:
    may_deadlock(world)
    world.thread(world.call, "A")
    world.thread(world.load, "X", "Y")


@scene("a thread forks while a window is open", 1, into=FORKS, gather=WINDOW)
def forks(world: World) -> None:
    two(world)
    world.thread(world.fork, "A", "B")
