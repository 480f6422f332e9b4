"""Scenes of what drops values while others land: tags, `clear` of one instance; and of what keeps them.

What keeps them: `Unchanged`. And answers, which say how a call was served, and copies.
"""

from __future__ import annotations

from typing import Any

from .calls import thread_and_tasks, two_threads
from .combined import stale
from .settings import SOFT, feature
from .world import World

__all__: list[str] = []


def tags_of(landing: Any) -> list[str]:
    """Every value has two: its key's, and that of all."""
    return [landing.key, "all"]


# -- tags ----------------------------------------------------------------------------------------------


@feature("two threads, and their tag is invalidated", tags=tags_of)
def tag(world: World) -> None:
    world.most_executions = 2
    two_threads(world)
    world.thread(world.cut, "A", "A")


@feature("a thread and two tasks, and their tag is invalidated", 1, tags=tags_of)
def tag_mixed(world: World) -> None:
    world.most_executions = 2
    thread_and_tasks(world)
    world.thread(world.cut, "A", "A")


@feature("two keys, and a tag of both is invalidated", tags=tags_of)
def tag_of_both(world: World) -> None:
    world.most_executions = 4
    world.thread(world.call, "A", "B")
    world.thread(world.call, "B", "A")
    world.thread(world.cut, "all", "A", "B")


@feature("two threads, and their tag is invalidated everywhere", tags=tags_of)
def tag_everywhere(world: World) -> None:
    world.most_executions = 2
    two_threads(world)
    world.thread(lambda: world.cut("A", "A", everywhere=True))


@feature("two threads, and their fixed tag is invalidated", tags=("all",))
def fixed_tag(world: World) -> None:
    world.most_executions = 2
    two_threads(world)
    world.thread(lambda: world.cut("all", "A", detaches=True, everywhere=True))


@feature("a put, a thread, and a tag is invalidated", tags=tags_of)
def tag_and_put(world: World) -> None:
    world.most_executions = 2
    world.thread(world.call, "A", "A")
    world.thread(world.put, "A")
    world.thread(world.cut, "A", "A")


@feature("a tag is invalidated, and a key", tags=tags_of)
def tag_and_invalidation(world: World) -> None:
    world.most_executions = 3
    two_threads(world)
    world.thread(world.cut, "A", "A")
    world.thread(world.invalidate, "A")


@feature("it fails once, and its tag is invalidated", tags=tags_of, fails=(True,), follower_retries=None)
def tag_and_failure(world: World) -> None:
    world.most_executions = 3
    two_threads(world)
    world.thread(world.cut, "A", "A")


@feature("tags are invalidated, and forgotten", tags=tags_of, follower_retries=None)
def tags_forgotten(world: World) -> None:
    world.plain._self_cache.store._most_cuts = 1  # it looks each time which of them still matter
    world.most_executions = 3
    two_threads(world)
    world.thread(world.cut, "A", "A")
    world.thread(world.cut, "other", "Z")


@feature("a stale value's tag is invalidated while it is renewed", tags=tags_of, grace=60)
def tag_and_renewal(world: World) -> None:
    stale(world, "A")
    world.most_executions = 2
    two_threads(world)
    world.thread(world.cut, "A", "A")


@feature("one waits softly, and its tag is invalidated", tags=tags_of, **SOFT)
def tag_and_soft(world: World) -> None:
    stale(world, "A")
    world.most_executions = 2
    world.thread(world.call, "A", "A")
    world.thread(world.cut, "A", "A")


@feature("two wait softly, and their tag is invalidated", 1, tags=tags_of, **SOFT)
def tag_and_two_soft(world: World) -> None:
    tag_and_renewal(world)


@feature("a bulk call and a single one, and a tag is invalidated", tags=tags_of)
def tag_and_bulk(world: World) -> None:
    world.most_executions = 3
    world.thread(world.load, "A", "B")
    world.thread(world.call, "B")
    world.thread(world.cut, "B", "B")


@feature("a task's bulk call, and a tag of all is invalidated", tags=tags_of)
def tag_and_bulk_in_task(world: World) -> None:
    world.most_executions = 3
    world.tasks((world.load_in_task, "A", "B"))
    world.thread(world.call, "B")
    world.thread(world.cut, "all", "A", "B")


@feature("what a loader brings unasked, and its tag is invalidated", tags=tags_of, brings=("C",))
def tag_and_extra(world: World) -> None:
    world.most_executions = 2
    world.thread(world.load, "A")
    world.thread(world.cut, "C", "C")
    world.thread(world.call, "C")


@feature("what a loader brings unasked, and it is invalidated", brings=("C",))
def extra_invalidated(world: World) -> None:
    world.most_executions = 3
    world.thread(world.load, "A")
    world.thread(world.invalidate, "C")
    world.thread(world.call, "C")


@feature("one seat, and a tag is invalidated", tags=tags_of, max_flights=1)
def tag_in_line(world: World) -> None:
    world.most_executions = 3
    world.thread(world.call, "B")
    world.thread(world.call, "A", "A")
    world.thread(world.cut, "A", "A")


@feature("a task is cancelled, and its tag is invalidated", tags=tags_of)
def tag_and_cancellation(world: World) -> None:
    world.most_executions = 3
    world.tasks((world.call_in_task, "A"), cancels=0)
    world.thread(world.call, "A")
    world.thread(world.cut, "A", "A")


# -- clear ---------------------------------------------------------------------------------------------


@feature("an instance is cleared, two threads", owned=True)
def cleared(world: World) -> None:
    world.most_executions = 2
    world.thread(world.call, "xA")
    world.thread(world.call, "xA")
    world.thread(world.clear, "x", "A")


@feature("an instance is cleared, and another is not", owned=True)
def cleared_beside_another(world: World) -> None:
    world.most_executions = 3
    world.thread(world.call, "xA", "yA")
    world.thread(world.call, "yA")
    world.thread(world.clear, "x", "A")


@feature("an instance is cleared, a thread and two tasks", 1, owned=True)
def cleared_mixed(world: World) -> None:
    world.most_executions = 4
    world.thread(world.call, "xA")
    world.tasks((world.call_in_task, "xA"), (world.call_in_task, "yA"))
    world.thread(world.clear, "x", "A")


@feature("an instance is cleared while its value is renewed", owned=True, grace=60)
def cleared_while_renewed(world: World) -> None:
    stale(world, "xA")
    world.most_executions = 2
    world.thread(world.call, "xA")
    world.thread(world.call, "xA")
    world.thread(world.clear, "x", "A")


@feature("an instance is cleared, and a put", owned=True)
def cleared_and_put(world: World) -> None:
    world.most_executions = 2
    world.thread(world.call, "xA")
    world.thread(world.put, "xA")
    world.thread(world.clear, "x", "A")


@feature("a function is cleared, two keys")
def all_cleared(world: World) -> None:
    world.most_executions = 4
    world.thread(world.call, "A", "B")
    world.thread(world.call, "B")
    world.thread(world.clear, "", "A", "B")


@feature("a function is cleared amid a bulk call", brings=("C",))
def cleared_amid_bulk(world: World) -> None:
    world.most_executions = 4
    world.thread(world.load, "A", "B")
    world.thread(world.call, "C")
    world.thread(world.clear, "", "A", "B", "C")


# -- what is kept --------------------------------------------------------------------------------------


@feature("a stale value is kept", grace=60, unchanged=(True,))
def kept(world: World) -> None:
    stale(world, "A")
    two_threads(world)


@feature("a value that ran out is kept", unchanged=(True,))
def kept_when_it_ran_out(world: World) -> None:
    stale(world, "A")
    two_threads(world)


@feature("a value that ran out is kept by tasks", unchanged=(True,))
def kept_by_tasks(world: World) -> None:
    stale(world, "A")
    thread_and_tasks(world)


@feature("a value is kept, and invalidated", unchanged=(True, True))
def kept_and_invalidated(world: World) -> None:
    stale(world, "A")
    world.most_executions = 2
    two_threads(world)
    world.thread(world.invalidate, "A")


@feature("a stale value is kept, and invalidated", grace=60, unchanged=(True, True))
def stale_kept_and_invalidated(world: World) -> None:
    kept_and_invalidated(world)


@feature("a value is kept, and another is put", unchanged=(True, True))
def kept_and_put(world: World) -> None:
    stale(world, "A")
    world.most_executions = 2
    two_threads(world)
    world.thread(world.put, "A")


@feature("a value is kept, and its tag is invalidated", tags=tags_of, unchanged=(True, True))
def kept_and_tag(world: World) -> None:
    stale(world, "A")
    world.most_executions = 2
    two_threads(world)
    world.thread(world.cut, "A", "A")


@feature("a value is kept, and evicted", maxsize=1, unchanged=(True, True, True))
def kept_and_evicted(world: World) -> None:
    world.put("A")
    world.most_executions = 4
    world.thread(world.refresh, "A")
    world.thread(world.call, "B")
    world.thread(world.call, "A")


@feature("it fails, and is kept then", fails=(True,), unchanged=(True, True))
def kept_after_a_failure(world: World) -> None:
    stale(world, "A")
    world.most_executions = 3
    two_threads(world)
    world.thread(world.invalidate, "A")


@feature("a bulk call and a single one keep values", unchanged=(True, True))
def kept_in_bulk(world: World) -> None:
    stale(world, "A", "B")
    world.thread(world.load, "A", "B")
    world.thread(world.call, "B")


@feature("a bulk call keeps values, and one is put", unchanged=(True, True))
def kept_in_bulk_and_put(world: World) -> None:
    stale(world, "A", "B")
    world.most_executions = 4
    world.thread(world.load, "A", "B")
    world.tasks((world.load_in_task, "B"))
    world.thread(world.put, "B")


@feature("two wait softly for a value that is kept", **SOFT, unchanged=(True,))
def kept_softly(world: World) -> None:
    stale(world, "A")
    two_threads(world)


@feature("an instance is cleared while its value is kept", owned=True, unchanged=(True, True))
def kept_and_cleared(world: World) -> None:
    stale(world, "xA")
    cleared(world)


# -- answers, and copies -------------------------------------------------------------------------------


def two_ask(world: World) -> None:
    world.thread(world.answer, "A")
    world.thread(world.answer, "A")


@feature("two threads ask how")
def asked(world: World) -> None:
    two_ask(world)


@feature("a thread and two tasks ask how")
def asked_mixed(world: World) -> None:
    world.thread(world.answer, "A")
    world.tasks((world.answer_in_task, "A"), (world.answer_in_task, "A"))


@feature("two threads ask how, and an invalidation")
def asked_and_invalidated(world: World) -> None:
    world.most_executions = 2
    two_ask(world)
    world.thread(world.invalidate, "A")


@feature("it fails, two threads ask how, and a put", fails=(True,))
def asked_and_put(world: World) -> None:
    world.most_executions = 2
    two_ask(world)
    world.thread(world.put, "A")


@feature("two threads ask how, of a stale value", grace=60)
def asked_of_stale(world: World) -> None:
    stale(world, "A")
    two_ask(world)


@feature("two threads ask how, softly", **SOFT, fails=(True,))
def asked_softly(world: World) -> None:
    world.may_raise, world.most_executions = (), 2
    stale(world, "A")
    two_ask(world)


@feature("two threads ask how, and its tag is invalidated", tags=tags_of)
def asked_and_tag(world: World) -> None:
    world.most_executions = 2
    two_ask(world)
    world.thread(world.cut, "A", "A")


@feature("everybody has a copy, threads", copies=True)
def copied(world: World) -> None:
    world.most_executions = 3
    world.thread(world.call, "A")
    world.thread(world.load, "A", "B")
    world.thread(world.put, "A")


@feature("everybody has a copy, a stale value, and tasks", 1, copies=True, grace=60)
def copied_mixed(world: World) -> None:
    stale(world, "A")
    thread_and_tasks(world)
