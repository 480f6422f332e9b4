"""Scenes of what calls are combined with: cycles, keyed locks, bulk calls, renewals, forks."""

from __future__ import annotations

from .calls import thread_and_tasks, two_threads
from .settings import FORKS, scene
from .world import World

__all__: list[str] = []


# -- cycles -------------------------------------------------------------------------------------------

CROSSWISE = {"A": "B", "B": "A"}


def may_deadlock(world: World) -> None:
    """No matter who: somebody is refused, nobody hangs."""
    world.may_raise = (world.library.package.FlightDeadlock,)
    world.most_executions = 9


@scene("two threads in a cycle", nested=CROSSWISE)
def cycle_of_threads(world: World) -> None:
    may_deadlock(world)
    world.thread(world.call, "A")
    world.thread(world.call, "B")


@scene("a thread and a task in a cycle", nested=CROSSWISE)
def cycle_of_both(world: World) -> None:
    may_deadlock(world)
    world.thread(world.call, "A")
    world.tasks((world.call_in_task, "B"))


@scene("two loops in a cycle", nested=CROSSWISE)
def cycle_of_loops(world: World) -> None:
    may_deadlock(world)
    world.tasks((world.call_in_task, "A"))
    world.tasks((world.call_in_task, "B"))


@scene("three threads in a cycle", preemptions=1, nested={"A": "B", "B": "C", "C": "A"})
def cycle_of_three(world: World) -> None:
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


@scene("two bulk calls and an invalidation")
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
