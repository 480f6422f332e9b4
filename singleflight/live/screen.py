"""`python -m singleflight top`: the processes of this user that show themselves, second by second."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

from ..common.messages import visible
from .sockets import NoAnswer, NotServed, ask, served

__all__ = ["COLUMNS", "Sample", "plain", "run", "sample"]

Row = dict[str, Any]
Sample = dict[int, Row]  # the snapshots, by process

COLUMNS: dict[str, str] = {
    "pid": "pid",
    "name": "function",
    "rate": "calls/s",
    "hit_rate": "hits",
    "received": "received",
    "waits": "waits",
    "calls": "runs",
    "failures": "failed",
    "in_flight": "running",
    "longest": "longest",
    "number_of_entries": "entries",
}
"""What is shown of each function, and its heading; `--sort` takes the headings."""

_DISPENSABLE = ("number_of_entries", "longest", "in_flight", "waits", "failures")
"""Columns that a narrow terminal leaves out, the first one first, to have room for the names."""

_NAME = 20  # characters of a function's name for which columns are left out
_PATIENCE = 2.0  # seconds in which a process should answer
_AT_ONCE = 16  # processes that are asked at the same time

_BLOCKS = "▏▎▍▌▋▊▉█"


def sample(
    pids: Iterable[int], directory: str | None = None, before: Sample | None = None
) -> tuple[Sample, list[str]]:
    """Return the snapshots of these processes, or of all that show themselves; and why some have none.

    All are asked at the same time, so that one that hangs does not keep the others waiting. One that does not
    answer is as it was in the sample `before`.
    """
    wanted = list(dict.fromkeys(pids))
    asked = wanted or served(directory)
    found: Sample = {}
    missing: list[str] = []

    def answer_of(pid: int) -> Row | Exception:
        try:
            answer: Row = ask(pid, directory, _PATIENCE, want="snapshot")["snapshot"]
        except (NotServed, RuntimeError) as error:
            return error
        return answer

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for pid, answer in zip(asked, threads.map(answer_of, asked), strict=True):
            if not isinstance(answer, Exception):
                found[pid] = answer
            elif wanted or isinstance(answer, NoAnswer):  # else it has ended just now
                missing.append(str(answer))
                if isinstance(answer, NoAnswer) and before is not None and pid in before:
                    found[pid] = before[pid]
    return found, missing


def rows(now: Sample, before: Sample, sort: str) -> list[Row]:
    """Return a row for each function of each process, with its rate since the sample before."""
    told = []
    for pid, process in now.items():
        old = before.get(pid)
        seconds = 0.0 if old is None else process["time"] - old["time"]
        earlier = {} if old is None else {f["id"]: f["received"] for f in old["functions"]}
        for function in process["functions"]:
            # Fewer calls than before: they were counted anew (`cache_clear`).
            more = function["received"] - earlier.get(function["id"], function["received"])
            rate = max(0, more) / seconds if seconds > 0 else 0.0
            longest = max((flight["elapsed"] for flight in function["flights"]), default=0.0)
            told.append({**function, "pid": pid, "rate": rate, "longest": longest})
    ascending = sort in ("pid", "name")
    return sorted(told, key=lambda row: (row[sort], row["name"]), reverse=not ascending)


def flights_of(now: Sample) -> list[Row]:
    """Return all flights in progress, the longest first."""
    found = [
        {**flight, "pid": pid, "name": function["name"]}
        for pid, process in now.items()
        for function in process["functions"]
        for flight in function["flights"]
    ]
    return sorted(found, key=lambda flight: -float(flight["elapsed"]))


def cells(row: Row) -> list[str]:
    """Return what is shown of one function."""
    rate, received = row["rate"], row["received"]
    return [
        str(row["pid"]),
        visible(row["name"]),
        f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}",
        f"{row['hit_rate']:.0%}" if received else "-",
        f"{received:,}",
        f"{row['waits']:,}",
        f"{row['calls']:,}",
        f"{row['failures']:,}",
        str(row["in_flight"]),
        f"{row['longest']:.1f} s" if row["longest"] else "-",
        f"{row['number_of_entries']:,}",
    ]


def summary(now: Sample) -> str:
    """Return one line about all of them."""
    functions = [function for process in now.values() for function in process["functions"]]
    processes = f"{_counted(len(now), 'process', 'processes')}, " if len(now) > 1 else ""
    received, runs = (sum(f[field] for f in functions) for field in ("received", "calls"))
    flying = sum(f["in_flight"] for f in functions)
    left_out = sum(process["functions_left_out"] for process in now.values())
    more = f" ({left_out} more are not shown)" if left_out else ""
    return (
        f"{processes}{_counted(len(functions), 'function')}{more}: "
        f"{_counted(received, 'call')} received, {_counted(runs, 'run')}, {flying:,} in progress"
    )


def plain(
    now: Sample,
    before: Sample,
    sort: str = "rate",
    width: int = 100,
    height: int = 24,
    notes: Sequence[str] = (),
) -> str:
    """Return the screen as text, without colours, at most so wide and about so high."""
    lines = [_cut(summary(now), width), *(_cut(visible(note), width) for note in notes), ""]
    table = [list(COLUMNS.values()), *map(cells, rows(now, before, sort))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    places, name_width = _columns(widths, sort, width)
    flying = flights_of(now)
    room = max(3, height - 4 - len(notes) - 1 - min(len(flying), height // 3))
    for line in table[: room + 1]:
        # The end of a qualified name tells more than its beginning.
        line[1] = line[1] if len(line[1]) <= name_width else "…" + line[1][1 - name_width :]
        texts = (line[i].ljust(name_width) if i == 1 else line[i].rjust(widths[i]) for i in places)
        lines.append("  ".join(texts)[:width].rstrip())
    if len(table) - 1 > room:
        lines.append(f"... {len(table) - 1 - room} more")
    if flying:
        lines.append("")
        shown = max(1, height - len(lines) - 1)
        lines += [_flight_line(flight, flying[0]["elapsed"], width) for flight in flying[:shown]]
        if len(flying) > shown:
            lines.append(f"... {len(flying) - shown} more in progress")
    return "\n".join(lines)


def _columns(widths: list[int], sort: str, width: int) -> tuple[list[int], int]:
    """Return the places of the columns that are shown, and how wide names are."""
    names = list(COLUMNS)
    chosen = list(range(len(names)))
    dispensable = [names.index(name) for name in _DISPENSABLE if name != sort]
    while True:
        room = width - sum(widths[place] + 2 for place in chosen if place != 1)
        if room >= min(widths[1], _NAME) or not dispensable:
            return chosen, max(8, min(widths[1], room))
        chosen.remove(dispensable.pop(0))


def _flight_line(flight: Row, longest: float, width: int) -> str:
    waiting = f", {flight['followers']} waiting" if flight["followers"] else ""
    state = "".join(f", {name}" for name in ("detached", "queued") if flight[name])
    part = flight["elapsed"] / longest if longest > 0 else 0.0
    head = f"{flight['elapsed']:7.1f} s {bar(part, 10)} "
    call = visible(f"{flight['name']} {flight['key']}")
    tail = visible(f": {flight['kind']} by {flight['leader']}{waiting}{state}")
    return _cut(head + _cut(call, max(12, width - len(head) - len(tail))) + tail, width)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def bar(part: float, width: int) -> str:
    """Return a bar that is so much of its width long.

    >>> bar(0.5, 4)
    '██  '
    """
    eighths = round(max(0.0, min(1.0, part)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BLOCKS[rest - 1] if rest else "")).ljust(width)


def run(
    pids: list[int],
    directory: str | None,
    interval: float,
    sort: str,
    once: bool,
    out: TextIO,
    pause: Callable[[float], object] = time.sleep,
) -> int:
    """Show the processes until they are gone, or the user interrupts; return the exit status."""
    now, missing = sample(pids, directory)
    if not now:
        whose = "" if directory is None else f" in {directory}"
        nobody = f"no process of this user shows itself{whose}; call singleflight.live.serve() in one"
        for line in missing or [nobody]:
            _complain(line)
        return 1
    before: Sample = {}
    if once or not out.isatty():
        pause(interval)
        later, missing = sample(pids, directory, now)
        width = shutil.get_terminal_size().columns
        print(plain(later or now, now, sort, width, 10_000, missing), file=out)
        return 0
    try:
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        _complain("it needs rich: pip install 'singleflight-kit[top]'; or use --once")
        return 2
    with Live(auto_refresh=False, screen=True) as live:
        while now:
            size = live.console.size
            text = plain(now, before, sort, size.width, size.height - 1, missing)
            live.update(_styled(Text, text), refresh=True)
            pause(interval)
            before = now
            now, missing = sample(pids, directory, before)
    for line in missing or ["the last process has ended"]:
        _complain(line)
    return 0


def _complain(line: str) -> None:
    print(f"singleflight top: {visible(line)}", file=sys.stderr)


def _styled(text: Any, screen: str) -> Any:
    """Return the same with colours: the heading, the bars, and what failed."""
    styled = text(screen, no_wrap=True, overflow="crop")
    first, _, _ = screen.partition("\n")
    styled.stylize("bold", 0, len(first))
    start = screen.index("\n\n") + 2  # below the summary and the notes
    heading = screen[start:].partition("\n")[0]
    styled.stylize("reverse", start, start + len(heading))
    styled.highlight_regex(r"[▏▎▍▌▋▊▉█]+", "cyan")
    styled.highlight_regex(r"\b\d+ waiting\b", "yellow")
    styled.highlight_regex(r"\b(detached|queued)\b", "magenta")
    return styled


def _counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
