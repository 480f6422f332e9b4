"""Every schedule with at most so many preemptions, one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .baton import Choice, Schedule, Scheduler

__all__ = ["Found", "Model", "explore"]

Model = Callable[[Schedule], Scheduler]
"""Runs something under a schedule and checks it; returns the scheduler that it ran under."""


class Found(AssertionError):
    """A schedule under which a model fails; `schedule` replays it."""

    def __init__(self, schedule: Schedule, runs: int, why: BaseException) -> None:
        super().__init__(f"after {runs} runs, schedule {tuple(schedule)!r}: {type(why).__name__}: {why}")
        self.schedule, self.runs, self.why = tuple(schedule), runs, why


@dataclass(frozen=True)
class _Branch:
    schedule: tuple[tuple[int, int], ...]
    length: int  # up to which choice the schedule speaks
    preemptions: int


def explore(model: Model, preemptions: int = 2, most: int = 1_000_000) -> int:
    """Run the model under every schedule with at most so many preemptions; how many there were.

    Each schedule is run once, those with fewer preemptions first: from one that was run come those that make
    one more move that is not the plain one, later than all others. Raises `Found` with the first under which
    the model fails, and `AssertionError` if there are more than `most`.
    """
    todo: list[list[_Branch]] = [[] for _ in range(preemptions + 1)]  # those with the fewest first
    todo[0].append(_Branch((), 0, 0))
    runs = 0
    while branches := next(filter(None, todo), None):
        branch = branches.pop()
        runs += 1
        assert runs <= most, f"there are more than {most} schedules"
        try:
            choices = model(branch.schedule).choices
        except Exception as error:
            raise Found(branch.schedule, runs, error) from error
        for longer in _longer(branch, choices, preemptions):
            todo[longer.preemptions].append(longer)
    return runs


def _longer(branch: _Branch, choices: list[Choice], most: int) -> list[_Branch]:
    """The schedules that make one more move, from the last choice to the first."""
    return [
        _Branch(
            (*branch.schedule, (at - branch.length, move)),
            at + 1,
            branch.preemptions + (move >= choice.free),
        )
        for at, choice in reversed(list(enumerate(choices)))
        if at >= branch.length
        for move in range(1, choice.moves)
        if branch.preemptions + (move >= choice.free) <= most
    ]
