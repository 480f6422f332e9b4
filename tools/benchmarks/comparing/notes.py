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

# Beside other libraries

What this library and seven others do in the same situations, and how long the same work takes them. The whole page is
written by

    <COMMAND>

which needs the extra `bench` and some minutes (with `--quick` less). This one was made on <DATE> with <MACHINE>.
Each library is set up as its own documentation recommends it against stampedes, with its store in the
process's memory, a ttl of a minute, and room for 1024 entries:

<SETUPS>

<LEFT_OUT>

## What they do

Each cell is a process of its own, in which the case is played with real threads or tasks. It tells what the callers
saw: "1 call" means that the function ran once and everybody got its value, "2 calls" that it ran again, "10 calls in
turn" that it ran for one caller after another, "10 calls at once" that it ran for all of them. Libraries that do not
serve threads, or coroutine functions, are not in that table.

### Threads ask

:::{container} wide
<THREADS>
:::

### Tasks ask

:::{container} wide
<TASKS>
:::

"n/a" where the library offers no way to do it.

### What is not compared

Mishaps are not on this page: callers that wait for one another, processes and event loops that end or fork at a bad
moment, a call that is broken off while others wait for it. In other libraries some of them leave callers waiting for
ever. A reproduction of that helps the library's authors and belongs there; here it would only be a recipe. So such cases
are played with this library alone, where {doc}`promises` has each of them with the test that shows it.

### Set up otherwise

Other ways to set up the same libraries, where they show something else than above:

<OTHERS>

:::{container} wide
<VARIANTS>
:::

## How long it takes

The time of this library, and its ratio to the others' time for the same work: 0.5 means half their time, and **bold**
that they are faster. One process, all libraries in turns, the best of many rounds; where a library takes a key
function, it is the same one. Ratios carry over to other machines better than times, but not far.

:::{container} wide
<TIMES>
:::

- A *hit* finds its value, a *miss* calls a function that returns at once and stores its value, in a full cache where the
  library has a limit.
- *100 threads on a key*: from when the function may return to when the last thread has its value. *1000 tasks on a key*:
  from when the first task is made to when the last has its value.
- *Memory* is what the process grows by for an entry, its key and value included (50 000 entries; Linux only).

## Where another is better

In this run, clearly faster or smaller (and by how much):

<BETTER>

The run does not show what else they are for. By their documentation dogpile.cache, cashews and aiocache also keep
values outside of the process (Redis, Memcached, files), for several processes together; cachetools and cachebox have
more kinds of caches; and cashews has more kinds of decorators, such as rate limits and circuit breakers. {doc}`limits`
says what this library does not do.
"""

# A case, whether a cell of another library is the better one there, and what is then said of those that have such a cell.
Better = tuple[tuple[str, ...], Callable[[str, str], bool], str]
NOTES: list[Better] = [
    (
        ("threads.failing", "tasks.failing"),
        lambda ours, theirs: theirs == "1 call" != ours,
        "A failing function is called once for all that wait by {names}. Here one of those that wait tries again;"
        " `follower_retries=0` makes it one call.",
    ),
    (
        ("threads.nothing", "tasks.nothing"),
        lambda ours, theirs: theirs == "1 call, stored" != ours,
        "`None` is stored like any value by {names}. Here it takes `cache_if=lambda value: True`.",
    ),
    (
        ("threads.expired", "tasks.expired"),
        lambda ours, theirs: "the old value" in theirs and "the old value" not in ours,
        "When a value has expired, all but one of the callers get the old value without waiting with {names}. Here"
        " that takes `grace=…`.",
    ),
    (
        ("threads.mutable", "tasks.mutable"),
        lambda ours, theirs: theirs == "do not see it" != ours,
        "A list that a caller changes does not change for the others with {names}, which copies lists, dicts and"
        " sets. Here they share it.",
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
