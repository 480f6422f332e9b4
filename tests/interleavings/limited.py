"""Scenes of calls that have a limit: `max_flights`, and `soft_timeout` for a stale value."""

from __future__ import annotations

from .calls import thread_and_tasks, two_threads
from .combined import CROSSWISE, may_deadlock, stale
from .settings import FORKS, SOFT, feature, scene
from .world import World

__all__ = ["three_keys"]


# -- a line for one seat, or two ---------------------------------------------------------------------


@feature("three threads, one seat", max_flights=1)
def three_keys(world: World) -> None:
    for key in "ABC":
        world.thread(world.call, key)


@feature("four threads, two seats", 1, max_flights=2)
def two_seats(world: World) -> None:
    three_keys(world)
    world.thread(world.call, "D")


@feature("one waits for whom stands in line", max_flights=1)
def follower_of_one_in_line(world: World) -> None:
    two_threads(world)
    world.thread(world.call, "B")


@feature("one seat, somebody looks on", max_flights=1)
def line_looked_at(world: World) -> None:
    world.thread(world.call, "A")
    world.thread(world.call, "B")
    world.thread(world.look_on)


@feature("one seat, a thread and two loops", max_flights=1)
def line_of_two_loops(world: World) -> None:
    world.thread(world.call, "A")
    world.tasks((world.call_in_task, "B"))
    world.tasks((world.call_in_task, "C"))


@feature("one seat, a thread and a loop, two keys", max_flights=1)
def line_mixed(world: World) -> None:
    world.thread(world.call, "B")
    world.tasks((world.call_in_task, "A"), (world.call_in_task, "B"))


@feature("one seat, and it fails once", max_flights=1, fails=(True,))
def line_fails(world: World) -> None:
    world.most_executions = 3
    follower_of_one_in_line(world)


@feature("one seat, who has it is cancelled", max_flights=1)
def seated_cancelled(world: World) -> None:
    world.tasks((world.call_in_task, "A"), (world.call_in_task, "B"), cancels=0)
    world.thread(world.call, "C")


@feature("one seat, who stands in line is cancelled", max_flights=1)
def queued_cancelled(world: World) -> None:
    world.tasks((world.call_in_task, "A"), (world.call_in_task, "B"), cancels=1)
    world.thread(world.call, "C")


@feature("one seat, the leader of a thread is cancelled in line", 1, max_flights=1)
def queued_leader_cancelled(world: World) -> None:
    world.most_executions = 3
    world.thread(world.call, "A")
    world.tasks((world.call_in_task, "B"), cancels=0)
    world.thread(world.call, "B")


@feature("one seat, a leader gives up in line", max_flights=1, lasts=10, wait_timeout=5)
def leader_gives_up_in_line(world: World) -> None:
    world.may_wait_out = True
    world.may_raise = (world.library.package.FlightTimeout,)
    world.thread(world.call, "A", "B")
    world.thread(world.call, "B", "A")


@feature("one seat, somebody gives up in line", 1, max_flights=1, lasts=10, wait_timeout=5)
def gives_up_in_line(world: World) -> None:
    world.may_wait_out = True
    world.may_raise = (world.library.package.FlightTimeout,)
    follower_of_one_in_line(world)


PATIENT = {"max_flights": 1, "lasts": 8, "wait_timeout": 5, "follower_retries": 0}


@feature("one seat, a leader gives up in line before its follower", 1, **PATIENT)
def gives_up_before_its_follower(world: World) -> None:
    world.may_wait_out = True
    world.may_raise = (world.library.package.FlightTimeout,)
    world.thread(world.call, "A")
    world.thread(world.call, "B")
    world.thread(world.late, 3, world.call, "B")


@feature("one seat, tasks give up in line", 1, max_flights=1, lasts=10, wait_timeout=5)
def tasks_give_up_in_line(world: World) -> None:
    world.may_wait_out = True
    world.may_raise = (world.library.package.FlightTimeout,)
    line_mixed(world)


@feature("one seat, who has it takes too long", max_flights=1, lasts=10, flight_timeout=5)
def takes_too_long_seated(world: World) -> None:
    world.may_wait_out, world.most_executions = True, 2
    two_threads(world)


@feature("one seat, who stands in line does not take too long", 0, max_flights=1, lasts=10, flight_timeout=15)
def long_in_line(world: World) -> None:
    world.may_wait_out = True
    three_keys(world)
    world.thread(world.call, "C")


@feature("one seat, and whom stands in line is invalidated", max_flights=1)
def invalidated_in_line(world: World) -> None:
    world.most_executions = 3
    follower_of_one_in_line(world)
    world.thread(world.invalidate, "A")


@feature("one seat, and a put", max_flights=1)
def put_in_line(world: World) -> None:
    world.most_executions = 3
    follower_of_one_in_line(world)
    world.thread(world.put, "A")


@feature("one seat, a renewal stands in line", max_flights=1, grace=60)
def renewal_in_line(world: World) -> None:
    stale(world, "A")
    follower_of_one_in_line(world)


@feature("one seat, a renewal of a loop stands in line", max_flights=1, grace=60)
def task_renews_in_line(world: World) -> None:
    stale(world, "A")
    world.tasks((world.call_in_task, "A"))
    world.thread(world.call, "B")


@feature("one seat, two bulk calls", max_flights=1)
def bulk_in_line(world: World) -> None:
    world.thread(world.load, "A", "B")
    world.thread(world.load, "B", "C")
    world.thread(world.call, "C")


@feature("one seat, a thread's bulk call and a task's", max_flights=1)
def bulk_in_line_mixed(world: World) -> None:
    world.thread(world.load, "A", "B")
    world.tasks((world.load_in_task, "C", "D"), (world.call_in_task, "A"))


@feature("one seat, a bulk call in a task is cancelled", max_flights=1)
def bulk_cancelled_in_line(world: World) -> None:
    world.most_executions = 5
    world.tasks((world.load_in_task, "A", "B"), cancels=0)
    world.thread(world.load, "B", "C")


@feature("one seat, a bulk call gives up", max_flights=1, lasts=10, wait_timeout=5)
def bulk_gives_up_in_line(world: World) -> None:
    world.may_wait_out, world.most_executions = True, 5
    world.may_raise = (world.library.package.FlightTimeout,)
    world.thread(world.load, "A", "B")
    world.thread(world.load, "B", "C")


@feature("one seat, the loop that has it dies", max_flights=1)
def loop_dies_seated(world: World) -> None:
    world.may_wait_out, world.most_executions = True, 5
    world.tasks((world.call_in_task, "A"), (world.call_in_task, "B"), dies=3)
    world.thread(world.call, "C", "B", "A")


@feature("one seat, and a cycle over the line", max_flights=1, nested={"A": "B"})
def cycle_over_the_line(world: World) -> None:
    may_deadlock(world)
    world.thread(world.call, "A")
    world.thread(world.call, "B")


@feature("two seats, and a cycle over the line", max_flights=2, nested={"A": "C", "B": "C"})
def cycle_over_two_seats(world: World) -> None:
    may_deadlock(world)
    world.thread(world.call, "A")
    world.thread(world.call, "B")


@feature("two seats, a cycle over the line of two loops", 1, max_flights=2, nested={"A": "C", "B": "C"})
def cycle_of_loops_over_the_line(world: World) -> None:
    may_deadlock(world)
    world.tasks((world.call_in_task, "A"))
    world.tasks((world.call_in_task, "B"))


@feature("two seats, one of which comes free", max_flights=2, nested={"A": "B"})
def no_cycle_over_the_line(world: World) -> None:
    world.may_raise = ()
    world.thread(world.call, "A")
    world.thread(world.call, "C")


@scene("a thread forks while one has the seat and one stands in line", 1, into=FORKS, max_flights=1)
def forks_with_a_line(world: World) -> None:
    world.thread(world.call, "A")
    world.thread(world.call, "B")
    world.thread(world.fork, "C", "A", "B")


# -- a little patience for a stale value -------------------------------------------------------------


@feature("two threads wait softly", **SOFT)
def soft(world: World) -> None:
    stale(world, "A")
    two_threads(world)


@feature("a thread and two tasks wait softly", 1, **SOFT)
def soft_mixed(world: World) -> None:
    stale(world, "A")
    thread_and_tasks(world)


@feature("two threads wait softly, too long", **SOFT, lasts=10)
def soft_too_long(world: World) -> None:
    world.may_wait_out = True
    soft(world)


@feature("a thread and two tasks wait softly, too long", 1, **SOFT, lasts=10)
def soft_tasks_too_long(world: World) -> None:
    world.may_wait_out = True
    stale(world, "A")
    thread_and_tasks(world)


@feature("two threads wait softly, and it fails", **SOFT, fails=(True,))
def soft_fails(world: World) -> None:
    world.may_raise, world.most_executions = (), 2
    soft(world)


@feature("two loops wait softly, and it fails", 1, **SOFT, fails=(True, True))
def soft_fails_in_tasks(world: World) -> None:
    world.may_raise = ()
    world.most_executions = 2
    stale(world, "A")
    world.tasks((world.call_in_task, "A"))
    world.tasks((world.call_in_task, "A"), (world.call_in_task, "A"))


@feature(
    "two threads wait softly, it fails, and nobody tries again", **SOFT, fails=(True,), follower_retries=0
)
def soft_fails_for_good(world: World) -> None:
    soft_fails(world)


@feature("a failure is stored, where two wait softly", **SOFT, failure_ttl=5, fails=(True,))
def soft_failure_stored(world: World) -> None:
    world.may_raise = ()
    soft(world)


@feature("one waits softly, and an invalidation", **SOFT)
def one_soft_invalidated(world: World) -> None:
    stale(world, "A")
    world.most_executions = 2
    world.thread(world.call, "A", "A")
    world.thread(world.invalidate, "A")


@feature("one waits softly, and a put", **SOFT)
def one_soft_put(world: World) -> None:
    stale(world, "A")
    world.thread(world.call, "A", "A")
    world.thread(world.put, "A")


@feature("it fails, is invalidated, and one waits softly", **SOFT, fails=(True,))
def one_soft_fails_and_invalidated(world: World) -> None:
    one_soft_invalidated(world)
    world.most_executions = 3


@feature("two wait softly, and an invalidation", 1, **SOFT)
def soft_invalidated(world: World) -> None:
    world.most_executions = 3
    soft(world)
    world.thread(world.invalidate, "A")


@feature("two wait softly, and a put", 1, **SOFT)
def soft_put(world: World) -> None:
    world.most_executions = 2
    soft(world)
    world.thread(world.put, "A")


@feature("it fails, is invalidated, and two wait softly", 1, **SOFT, fails=(True,))
def soft_fails_and_invalidated(world: World) -> None:
    world.most_executions = 3
    soft(world)
    world.thread(world.invalidate, "A")


@feature("one that waits softly is cancelled", **SOFT)
def soft_cancelled(world: World) -> None:
    stale(world, "A")
    world.tasks((world.call_in_task, "A"), (world.call_in_task, "A"), cancels=0)


@feature("one that waits softly for a thread is cancelled", 1, **SOFT)
def soft_cancelled_with_a_thread(world: World) -> None:
    stale(world, "A")
    world.thread(world.call, "A")
    world.tasks((world.call_in_task, "A"), cancels=0)


@feature("a loop dies that renews, a thread waits softly", **SOFT)
def soft_loop_dies(world: World) -> None:
    world.may_wait_out, world.most_executions = True, 2
    stale(world, "A")
    world.tasks((world.call_in_task, "A"), dies=3)
    world.thread(world.call, "A")


@feature("two wait softly crosswise", 1, **SOFT, nested=CROSSWISE)
def soft_crosswise(world: World) -> None:
    may_deadlock(world)
    world.may_wait_out = True
    stale(world, "A", "B")
    world.thread(world.call, "A")
    world.thread(world.call, "B")


@feature(
    "a renewal takes too long for who waits softly", 1, grace=60, soft_timeout=9, lasts=20, flight_timeout=5
)
def soft_unseats(world: World) -> None:
    world.may_wait_out, world.most_executions = True, 3
    soft(world)


@feature("who waits softly has less patience", grace=60, soft_timeout=9, lasts=20, wait_timeout=5)
def soft_gives_up(world: World) -> None:
    world.may_wait_out, world.may_raise = True, ()
    soft(world)


@feature("a bulk call and a single one wait softly", **SOFT)
def soft_bulk(world: World) -> None:
    stale(world, "A", "B")
    world.thread(world.load, "A", "B")
    world.thread(world.call, "B")


@feature("a task's bulk call and a thread wait softly", **SOFT, fails=(True,))
def soft_bulk_mixed(world: World) -> None:
    world.may_raise = ()
    stale(world, "A", "B")
    world.tasks((world.load_in_task, "A", "B"))
    world.thread(world.call, "B")


@feature("one seat, and one waits softly", **SOFT, max_flights=1)
def soft_in_line(world: World) -> None:
    stale(world, "A")
    world.thread(world.call, "A")
    world.thread(world.call, "B")


@feature("one seat, and one waits softly, too long", 1, **SOFT, max_flights=1, lasts=10)
def soft_in_line_too_long(world: World) -> None:
    world.may_wait_out = True
    soft_in_line(world)


@feature("two wait softly, too long, and a put", 1, **SOFT, lasts=10)
def soft_too_long_and_put(world: World) -> None:
    world.may_wait_out, world.most_executions = True, 3
    soft(world)
    world.thread(world.put, "A")
