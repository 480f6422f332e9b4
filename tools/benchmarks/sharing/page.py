"""The tables, and the page of the docs: all its figures are the run's."""

from __future__ import annotations

import datetime
import os
import platform
import re
from pathlib import Path
from typing import Any

from sharing.contenders import LOAD, Aiocache, Cashews, Contender, Dogpile, Tasks, Threads, version_of
from sharing.crew import PROCESSES, SLEEP, Seen
from sharing.marks import Mark, percentile

COMMAND = "python tools/benchmarks/fleet.py --page docs/fleet-peers.md"


def surroundings(server: Any) -> str:
    with server.connect() as ours:
        ours.sendall(b"INFO server\r\n")
        told = ours.recv(65536).decode()
    name = "Valkey" if "valkey_version" in told else "Redis"
    number = re.search(
        r"(?:valkey|redis)_version:(\S+)" if name == "Redis" else r"valkey_version:(\S+)", told
    )
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    where = f"{platform.system()} ({platform.machine()}), {os.cpu_count()} cores{load}"
    return f"{python} on {where}; {name} {number[1] if number else '?'} on loopback"


def milliseconds(found: list[float]) -> str:
    if not found:
        return "no process waits"
    return " / ".join(f"{percentile(found, part) * 1e3:.3g}" for part in (0.5, 0.95, 0.99))


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def herd(kinds: list[type[Contender]], seen: dict[str, Seen]) -> str:
    head = ["", "loads", "most for one key", "wake p50 / p95 / p99, ms", "commands per call"]
    rows = []
    for each in kinds:
        of = seen[each.name]
        wakes = milliseconds(of.wakes if each is not Aiocache else [])
        rows.append(
            [each.name, str(sum(of.loads.values())), str(of.most), wakes, f"{of.commands / of.calls:.3g}"]
        )
        if of.errors:
            print(f"{each.name}: {len(of.errors)} calls failed, such as {of.errors[0]}")
    rows.append([SLEEP, "", "", milliseconds(seen[SLEEP].wakes), ""])
    return table(head, rows)


def judged(seen: dict[str, Seen]) -> list[Mark]:
    """How this library does beside the others, for threads and tasks each."""
    marks = []
    for ours in (Threads.name, Tasks.name):
        of = seen[ours]
        loads, keys = sum(of.loads.values()), len(of.loads)
        marks.append(Mark(f"{ours}: loads of {keys} keys", str(loads), str(keys), loads == keys))
        middle, high = (percentile(of.wakes, part) for part in (0.5, 0.95))
        for theirs, part, what, mine in (
            (Dogpile.name, 20, 0.5, middle),
            (Cashews.name, 3, 0.5, middle),
            (Dogpile.name, 20, 0.95, high),
        ):
            if theirs in seen:
                ratio = percentile(seen[theirs].wakes, what) / mine
                name = f"{ours}: wake p{what * 100:.0f}, by {theirs}'s"
                marks.append(Mark(name, f"1/{ratio:.3g}", f"1/{part}", ratio >= part))
        marks.append(Mark(f"{ours}: wake p95", f"{high * 1e3:.3g} ms", "10 ms", high < 0.01))
        for theirs, part in ((Dogpile.name, 4), (Cashews.name, 15)):
            if theirs in seen:
                other = seen[theirs]
                ratio = other.commands / other.calls / (of.commands / of.calls)
                name = f"{ours}: commands per call, by {theirs}'s"
                marks.append(Mark(name, f"1/{ratio:.3g}", f"1/{part}", ratio >= part))
    return marks


def line(mark: Mark) -> str:
    return f"{'met   ' if mark.met else 'MISSED'}  {mark.what}: {mark.figure}  (mark {mark.limit})"


def write(
    path: Path, told: str, kinds: list[type[Contender]], seen: dict[str, Seen], marks: list[Mark]
) -> None:
    """Write the page."""
    today = datetime.date.today().isoformat()
    setups = [[each.name, version_of(each), each.setup] for each in kinds]
    rows = [[mark.what, mark.figure, mark.limit, "" if mark.met else "**missed**"] for mark in marks]
    path.write_text(f"""---
hide-toc: true
---

<!-- This file is written by tools/benchmarks/fleet.py --page: change the words in tools/benchmarks/sharing/page.py. -->

# One call for a fleet, compared

What `store=` does on a Redis or Valkey server, and what other libraries do there. This command writes the whole page:

    {COMMAND}

It needs a checkout with the extra `bench`, and some minutes (fewer with `--quick`). This page was made on {today} with
{told}. The
figures are those of one run on a shared machine: compare them with one another.

{table(["library", "version", "set up as"], setups)}

## {PROCESSES} processes ask for a cold key at once

The load takes {LOAD * 1e3:.0f} ms. The contenders take turns at each key, on one server. A *wake* is the time from the
end of the load to the moment when a process that waited has the value. Commands are those that clients send; what a
script does on the server is not counted. In the last row the processes only sleep for as long, without any server: so late
does this machine wake them.

{herd(kinds, seen)}

dogpile.cache and redis-py's `Lock` look again every tenth of a second, and cashews asks the server while it waits.
aiocache waits for an event of its own process, so other processes do not wait. This library's processes wait for a
message.

## What is measured of this library

{table(["", "measured", "at most", ""], rows)}

A *near hit* finds its value in its own process, a *remote hit* finds another process's on the server. [Sharing between
processes](howto/fleet.md) says how to use it, [operating](operating.md) what it needs of a server.
""")
