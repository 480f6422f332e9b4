"""Scenes of single calls: threads and tasks, failures, invalidation, cancellation, time-outs, dead loops."""

from __future__ import annotations

from .settings import scene
from .world import World

__all__ = ["thread_and_tasks", "two_threads"]


# -- one function, threads and tasks -------------------------------------------------------------------


@scene("two threads, one key", preemptions=3)
def two_threads(world: World) -> None:
    world.thread(world.call, "A")
    world.thread(world.call, "A")


@scene("three threads, one key")
def three_threads(world: World) -> None:
    two_threads(world)
    world.thread(world.call, "A")


@scene("four threads, one key")
def four_threads(world: World) -> None:
    three_threads(world)
    world.thread(world.call, "A")


@scene("two threads, two keys crosswise", preemptions=3)
def two_keys(world: World) -> None:
    world.thread(world.call, "A", "B")
    world.thread(world.call, "B", "A")


@scene("nothing is stored", ttl=0)
def not_stored(world: World) -> None:
    world.most_executions = 4
    world.thread(world.call, "A", "A")
    world.thread(world.call, "A", "A")


@scene("a value may run out meanwhile", ttl=1)
def runs_out(world: World) -> None:
    not_stored(world)


@scene("a thread and two tasks, one key")
def thread_and_tasks(world: World) -> None:
    world.thread(world.call, "A")
    world.tasks((world.call_in_task, "A"), (world.call_in_task, "A"))


@scene("a thread and two tasks, two keys")
def thread_and_tasks_two_keys(world: World) -> None:
    world.thread(world.call, "A", "B")
    world.tasks((world.call_in_task, "B", "A"), (world.call_in_task, "A"))


@scene("three loops, one key")
def three_loops(world: World) -> None:
    for _ in range(3):
        world.tasks((world.call_in_task, "A"))


# -- failures ------------------------------------------------------------------------------------------


@scene("it fails once, two threads", preemptions=3, fails=(True,))
def fails_once(world: World) -> None:
    world.most_executions = 2
    two_threads(world)


@scene("it fails always, three threads", fails=(True,) * 9)
def fails_always(world: World) -> None:
    world.most_executions = 3
    three_threads(world)


@scene("it fails always, and who waits is told", fails=(True,) * 9, listens=True)
def fails_always_and_tells(world: World) -> None:
    fails_always(world)


@scene("it fails always, every follower tries", fails=(True,) * 9, follower_retries=None)
def fails_for_everybody(world: World) -> None:
    fails_always(world)


@scene("it fails once, a thread and two tasks", fails=(True,))
def fails_mixed(world: World) -> None:
    world.most_executions = 2
    thread_and_tasks(world)


@scene("a failure is stored", fails=(True,), failure_ttl=5)
def failure_stored(world: World) -> None:
    world.most_executions = 2
    two_threads(world)


# -- invalidate and put --------------------------------------------------------------------------------


@scene("two threads and an invalidation")
def invalidated(world: World) -> None:
    world.most_executions = 2
    two_threads(world)
    world.thread(world.invalidate, "A")


@scene("two threads and a put")
def put(world: World) -> None:
    world.most_executions = 2
    two_threads(world)
    world.thread(world.put, "A")


@scene("two threads, an invalidation and a put")
def invalidated_and_put(world: World) -> None:
    world.most_executions = 2
    invalidated(world)
    world.thread(world.put, "A")


@scene("a thread, two tasks and an invalidation")
def invalidated_mixed(world: World) -> None:
    world.most_executions = 3
    thread_and_tasks(world)
    world.thread(world.invalidate, "A")


@scene("it fails, and is invalidated", fails=(True, True))
def fails_and_invalidated(world: World) -> None:
    world.most_executions = 3
    invalidated(world)


# -- cancellation, time-outs, dead loops ---------------------------------------------------------------


@scene("one of two tasks is cancelled", preemptions=3)
def cancelled(world: World) -> None:
    world.most_executions = 2
    world.tasks((world.call_in_task, "A"), (world.call_in_task, "A"), cancels=0)


@scene("the other of two tasks is cancelled", preemptions=3)
def follower_cancelled(world: World) -> None:
    world.tasks((world.call_in_task, "A"), (world.call_in_task, "A"), cancels=1)


@scene("a task is cancelled, a thread wants its value")
def cancelled_with_a_thread(world: World) -> None:
    world.most_executions = 2
    world.tasks((world.call_in_task, "A"), cancels=0)
    world.thread(world.call, "A")


@scene("a follower gives up", lasts=10, wait_timeout=5)
def gives_up(world: World) -> None:
    world.may_wait_out, world.most_executions = True, 2
    world.may_raise = (world.library.package.FlightTimeout,)
    two_threads(world)


@scene("a flight takes too long", lasts=10, flight_timeout=5)
def takes_too_long(world: World) -> None:
    world.may_wait_out, world.most_executions = True, 2
    two_threads(world)


@scene("a loop dies, a thread wants the value")
def loop_dies(world: World) -> None:
    world.may_wait_out, world.most_executions = True, 2
    world.tasks((world.call_in_task, "A"), dies=2)
    world.thread(world.call, "A")


@scene("a loop dies amid a chain of flights that fail", fails=(True,))
def loop_dies_amid_a_chain(world: World) -> None:
    world.may_wait_out, world.most_executions = True, 3
    world.tasks((world.call_in_task, "A"), (world.call_in_task, "A"), dies=4)
    world.thread(world.call, "A")


@scene("a thread comes when a loop has died amid a chain", fails=(True,))
def comes_after_a_dead_loop(world: World) -> None:
    world.most_executions = 2
    dead = world.tasks((world.call_in_task, "A"), (world.call_in_task, "A"), dies=2)
    world.thread(world.call, "A", after=dead)
