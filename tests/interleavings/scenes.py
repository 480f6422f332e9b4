"""Scenes: who is there, and what they do. Each fills a `World`; `OPTIONS` holds what else a scene needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .world import Scene, World

__all__ = ["FORKS", "SCENES", "Setting"]

Setting = tuple[Scene, int, dict[str, Any]]
"""A scene, up to how many preemptions it is explored, and the options of its world."""

SCENES: dict[str, Setting] = {}
FORKS: dict[str, Setting] = {}


def scene(
    name: str, preemptions: int = 2, into: dict[str, Setting] = SCENES, **options: Any
) -> Callable[[Scene], Scene]:
    def add(fill: Scene) -> Scene:
        into[name] = fill, preemptions, options
        return fill

    return add


# -- one function, threads and tasks -------------------------------------------------------------------


@scene("two threads, one key", preemptions=3)
def two_threads(world: World) -> None:
    world.thread(world.call, "A")
    world.thread(world.call, "A")


@scene("three threads, one key")
def three_threads(world: World) -> None:
    two_threads(world)
    world.thread(world.call, "A")


@scene("four threads, one key", preemptions=1)
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


@scene("two threads, an invalidation and a put", preemptions=1)
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


# -- circles -------------------------------------------------------------------------------------------

CROSSWISE = {"A": "B", "B": "A"}


def may_deadlock(world: World) -> None:
    """No matter who: somebody is refused, nobody hangs."""
    world.may_raise = (world.library.package.FlightDeadlock,)
    world.most_executions = 9


@scene("two threads in a circle", nested=CROSSWISE)
def circle_of_threads(world: World) -> None:
    may_deadlock(world)
    world.thread(world.call, "A")
    world.thread(world.call, "B")


@scene("a thread and a task in a circle", nested=CROSSWISE)
def circle_of_both(world: World) -> None:
    may_deadlock(world)
    world.thread(world.call, "A")
    world.tasks((world.call_in_task, "B"))


@scene("two loops in a circle", nested=CROSSWISE)
def circle_of_loops(world: World) -> None:
    may_deadlock(world)
    world.tasks((world.call_in_task, "A"))
    world.tasks((world.call_in_task, "B"))


@scene("three threads in a circle", preemptions=1, nested={"A": "B", "B": "C", "C": "A"})
def circle_of_three(world: World) -> None:
    may_deadlock(world)
    for key in "ABC":
        world.thread(world.call, key)


# -- keyed locks ---------------------------------------------------------------------------------------


@scene("three threads take a lock")
def locks(world: World) -> None:
    for _ in range(3):
        world.thread(world.take, "a")


@scene("threads and tasks take two locks crosswise")
def locks_crosswise(world: World) -> None:
    world.thread(world.take, "a", "b")
    world.thread(world.take, "b", "a")
    world.tasks((world.take_in_task, "b"), (world.take_in_task, "a"))


@scene("a task that waits for a lock is cancelled")
def lock_cancelled(world: World) -> None:
    world.tasks((world.take_in_task, "a"), cancels=0)
    world.thread(world.take, "a")


# -- bulk ----------------------------------------------------------------------------------------------


@scene("two bulk calls overlap", preemptions=3)
def bulk(world: World) -> None:
    world.thread(world.load, "A", "B")
    world.thread(world.load, "B", "A")


@scene("two bulk calls and a single one")
def bulk_and_single(world: World) -> None:
    world.thread(world.load, "A", "B")
    world.thread(world.load, "B", "C")
    world.thread(world.call, "C")


@scene("a thread's bulk call, a task's, and a single one")
def bulk_mixed(world: World) -> None:
    world.thread(world.load, "A", "B")
    world.tasks((world.load_in_task, "B", "A"), (world.call_in_task, "A"))


@scene("two bulk calls and an invalidation", preemptions=1)
def bulk_invalidated(world: World) -> None:
    world.most_executions = 4
    bulk(world)
    world.thread(world.invalidate, "A")


@scene("a bulk loader fails once", fails=(True,))
def bulk_fails(world: World) -> None:
    world.most_executions = 4
    bulk(world)


@scene("a bulk call in a task is cancelled")
def bulk_cancelled(world: World) -> None:
    world.most_executions = 4
    world.tasks((world.load_in_task, "A", "B"), cancels=0)
    world.thread(world.load, "B", "A")


# -- renewal -------------------------------------------------------------------------------------------


def stale(world: World, *keys: str) -> None:
    """These have values that are past their ttl, and within their grace."""
    for key in keys:
        world.put(key)
    world.scheduler.now += 90


@scene("two threads find a stale value", preemptions=3, grace=60)
def renewed(world: World) -> None:
    stale(world, "A")
    two_threads(world)


@scene("a thread and a task find a stale value", grace=60)
def renewed_mixed(world: World) -> None:
    stale(world, "A")
    thread_and_tasks(world)


@scene("a renewal fails", grace=60, fails=(True,))
def renewal_fails(world: World) -> None:
    renewed(world)
    world.may_raise = ()


@scene("a stale value is invalidated while it is renewed", grace=60)
def renewal_invalidated(world: World) -> None:
    renewed(world)
    world.most_executions = 2
    world.thread(world.invalidate, "A")


@scene("a value is put while the stale one is renewed", grace=60)
def renewal_and_put(world: World) -> None:
    renewed(world)
    world.thread(world.put, "A")


@scene("a bulk call and a single one find stale values", grace=60)
def renewed_in_bulk(world: World) -> None:
    stale(world, "A", "B")
    world.thread(world.load, "A", "B")
    world.thread(world.call, "B")


# -- fork: a process each, so few preemptions ----------------------------------------------------------


@scene("a thread forks while another fetches", into=FORKS)
def forks(world: World) -> None:
    world.thread(world.call, "A")
    world.thread(world.fork, "A", "B")


@scene("a thread forks while one fetches and one waits", 1, into=FORKS)
def forks_with_a_follower(world: World) -> None:
    two_threads(world)
    world.thread(world.fork, "A")


@scene("a thread forks while one holds and one awaits a lock", 1, into=FORKS, nested={"A": "B"})
def forks_with_two_flights(world: World) -> None:
    world.thread(world.call, "A")
    world.thread(world.call, "B")
    world.thread(world.fork, "B", "A")
