"""The words of the page, and what is said of others only if the run has shown it."""

from __future__ import annotations

from collections.abc import Callable

from comparing.peers import PEERS, Peer

OURS = PEERS[0].name

MADE_BY_HAND = """\
---
hide-toc: true
---

<!-- This file is written by tools/benchmarks/run.py --page: change the words in tools/benchmarks/comparing/notes.py. -->

# Compared with other libraries

What this library and seven others do in the same situations, and how long each takes for the same work.

## At a glance

What callers saw, in a run: <span class="mark full">●</span> as the row says,
<span class="mark half">◐</span> in part, or with one call more, <span class="mark empty">○</span> not so. A dash means that the library has no way to do this, or that the question does not arise. Point at a mark, or tap it, for
the words; [the words of all](#the-same-in-words) are below.

### Threads ask

:::{container} wide marks
<THREADS_MARKS>
:::

### Tasks ask

:::{container} wide marks
<TASKS_MARKS>
:::

A library that does not serve threads, or coroutine functions, is not in that table. For how many calls are made the
marks are: <span class="mark full">●</span> 1, <span class="mark half">◐</span> 2, <span class="mark empty">○</span> one
for each caller. This library makes a second call on purpose when the first one fails or brings `None`; options change
that, [as below](#where-another-is-better).

## How the page is made

This command writes the whole page:

    <COMMAND>

It needs a checkout with the extra `bench`, and some minutes (fewer with `--quick`). This page was
made on <DATE> with <MACHINE>. <LOAD>
Each library is set up against stampedes as its own documentation recommends, with its store in the process's
memory, a ttl of a minute, and room for 1024 entries:

:::{container} wide
<SETUPS>
:::

<LEFT_OUT>

## The same in words

Each cell was found in a process of its own, which plays the case with real threads or tasks. The cell says what the
callers saw: "1 call" means that the function ran once and every caller got its value, "2 calls" that it ran again, "10
calls in turn" that it ran for one caller after another, "10 calls at once" that it ran for all of them. "n/a" means
that the library has no way to do this.

### Threads, in words

:::{container} wide
<THREADS>
:::

### Tasks, in words

:::{container} wide
<TASKS>
:::

### What is not compared

Mishaps are not on this page: callers that wait for one another, processes and event loops that end or fork at a bad
moment, a call that is interrupted while others wait for it. Some of them leave callers of other libraries waiting for
ever. A reproduction helps the authors of that library and belongs there; here it would only be a recipe. So such cases
are played with this library alone. {doc}`promises` lists each of them with the test that shows it.

### Set up otherwise

Other ways to set up the same libraries, and the cells that change:

<OTHERS>

:::{container} wide
<VARIANTS>
:::

## How long it takes

The first row has this library's times. The other rows have the ratio of its time to theirs for the same work: 0.5 means
half their time, and **bold** means that they are faster. All libraries take turns in one process, and the best of many
rounds counts. Libraries that take a key function get the same one. Ratios carry over to other machines better than
times do, but only roughly.

:::{container} wide
<TIMES>
:::

- A *hit* finds a value. A *miss* calls a function that returns at once, and stores its value, in a full cache if the
  library has a limit.
- *100 threads on a key*: from the moment when the function may return until the last thread has its value. *1000 tasks
  on a key*: from the creation of the first task until the last task has its value.
- *Memory*: how much the process grows for an entry, key and value included (50 000 entries; Linux only).
- *Import*: the time of the processor to import the library and decorate one function, in a fresh interpreter that has
  imported `typing` and `threading`; without the interpreter's own start.

## Where another is better

In this run these were clearly faster or smaller (and by how much):

<BETTER>

The run does not show what else these libraries offer. According to their documentation dogpile.cache, cashews and
aiocache can also share values between processes, on more kinds of servers and in files; here `store=` does it on a Redis
or Valkey server ({doc}`fleet-peers`). cachetools and cachebox have more kinds of caches. cashews has more kinds of
decorators, such as rate limits and circuit breakers. {doc}`limits` says what this library does not do.
"""

# A case, whether a cell of another library is the better one there, and what is then said of those that have such a cell.
Better = tuple[tuple[str, ...], Callable[[str, str], bool], str]
NOTES: list[Better] = [
    (
        ("threads.failing", "tasks.failing"),
        lambda ours, theirs: theirs == "1 call" != ours,
        "With {names} a failing function is called once for all waiting callers. Here one of the waiting callers"
        " tries again; `follower_retries=0` makes it one call.",
    ),
    (
        ("threads.nothing", "tasks.nothing"),
        lambda ours, theirs: theirs == "1 call, stored" != ours,
        "With {names} `None` is stored like any value. Here that takes `cache_if=lambda value: True`.",
    ),
    (
        ("threads.expired", "tasks.expired"),
        lambda ours, theirs: "the old value" in theirs and "the old value" not in ours,
        "With {names} all callers but one get the old value without waiting when it has expired. Here that takes"
        " `grace=…`.",
    ),
    (
        ("threads.mutable", "tasks.mutable"),
        lambda ours, theirs: theirs == "do not see it" != ours,
        "With {names} a list that one caller changes does not change for the others (lists, dicts and sets are"
        " copied). Here they share it.",
    ),
]


def notes(found: dict[tuple[str, str], str], peers: list[Peer]) -> list[str]:
    lines = []
    for cases, better, sentence in NOTES:
        names = [peer.name for peer in peers if any(_is(found, peer, case, better) for case in cases)]
        if names:
            listed = " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
            lines.append("- " + sentence.format(names=listed))
    return lines


def _is(found, peer, case, better) -> bool:
    cell = found.get((peer.name, case))
    return cell is not None and better(found[OURS, case], cell)
