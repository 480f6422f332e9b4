"""`python -m singleflight top`: the processes of this user that show themselves, second by second."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from .sockets import NotServed, ask, served

__all__ = ["COLUMNS", "Sample", "plain", "run", "sample"]

Row = dict[str, Any]
Sample = dict[int, Row]  # the snapshots, by process

COLUMNS: dict[str, str] = {
    "pid": "pid",
    "name": "function",
    "rate": "calls/s",
    "hit_rate": "hits",
    "received": "calls",
    "waits": "waits",
    "calls": "runs",
    "failures": "failed",
    "in_flight": "running",
    "longest": "longest",
    "number_of_entries": "entries",
}
"""What is shown of each function, and its heading; `--sort` takes these names."""

_NOBODY = "no process of this user shows itself; call singleflight.live.serve() in one"
_NO_RICH = "it needs rich: pip install 'singleflight-kit[top]'; or use --once"
_BLOCKS = "▏▎▍▌▋▊▉█"


def sample(pids: Iterable[int], directory: str | None = None) -> tuple[Sample, list[str]]:
    """Return the snapshots of these processes, or of all that show themselves; and why some have none."""
    wanted = list(pids)
    found, missing = {}, []
    for pid in wanted or served(directory):
        try:
            found[pid] = ask(pid, directory, want="snapshot")["snapshot"]
        except (NotServed, RuntimeError) as error:
            if wanted:
                missing.append(str(error))
    return found, missing


def rows(now: Sample, before: Sample, sort: str) -> list[Row]:
    """Return a row for each function of each process, with its rate since the sample before."""
    told = []
    for pid, process in now.items():
        old = before.get(pid)
        seconds = 0.0 if old is None else process["time"] - old["time"]
        earlier = {} if old is None else {f["name"]: f["received"] for f in old["functions"]}
        for function in process["functions"]:
            # Fewer calls than before: they were counted anew (`cache_clear`).
            more = function["received"] - earlier.get(function["name"], function["received"])
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
        row["name"],
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
        f"{received:,} calls received, {_counted(runs, 'run')}, {flying:,} in progress"
    )


def plain(now: Sample, before: Sample, sort: str = "rate", width: int = 100, height: int = 24) -> str:
    """Return the screen as text, without colours, at most so wide and about so high."""
    lines = [summary(now), ""]
    table = [list(COLUMNS.values()), *map(cells, rows(now, before, sort))]
    others = sum(max(len(line[i]) for line in table) + 2 for i in range(len(COLUMNS)) if i != 1)
    name_width = max(8, min(max(len(line[1]) for line in table), width - others))
    flying = flights_of(now)
    room = max(3, height - 5 - min(len(flying), height // 3))
    for line in table[: room + 1]:
        line[1] = line[1] if len(line[1]) <= name_width else line[1][: name_width - 1] + "…"
        widths = [max(len(other[i]) for other in table) for i in range(len(line))]
        lines.append(
            "  ".join(
                text.ljust(name_width) if place == 1 else text.rjust(widths[place])
                for place, text in enumerate(line)
            )[:width].rstrip()
        )
    if len(table) - 1 > room:
        lines.append(f"... {len(table) - 1 - room} more")
    if flying:
        lines.append("")
        shown = max(1, height - len(lines) - 1)
        lines += [_flight_line(flight, flying[0]["elapsed"], width) for flight in flying[:shown]]
        if len(flying) > shown:
            lines.append(f"... {len(flying) - shown} more in progress")
    return "\n".join(lines)


def _flight_line(flight: Row, longest: float, width: int) -> str:
    waiting = f", {flight['followers']} waiting" if flight["followers"] else ""
    state = "".join(f", {name}" for name in ("detached", "queued") if flight[name])
    text = f"{flight['name']} {flight['key']}: {flight['kind']} by {flight['leader']}{waiting}{state}"
    part = flight["elapsed"] / longest if longest > 0 else 0.0
    line = f"{flight['elapsed']:7.1f} s {bar(part, 10)} {text}"
    return line if len(line) <= width else line[: width - 1] + "…"


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
        for line in missing or [
            "no process of this user shows itself; call singleflight.live.serve() in one"
        ]:
            print(f"singleflight top: {line}", file=sys.stderr)
        return 1
    before: Sample = {}
    if once or not out.isatty():
        pause(interval)
        later, missing = sample(pids, directory)
        print(plain(later or now, now, sort, shutil.get_terminal_size().columns, 10_000), file=out)
        return 0
    try:
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        print(
            "singleflight top: it needs rich: pip install 'singleflight-kit[top]'; or use --once",
            file=sys.stderr,
        )
        return 2
    with Live(auto_refresh=False, screen=True) as live:
        while now:
            size = live.console.size
            live.update(_styled(Text, plain(now, before, sort, size.width, size.height - 1)), refresh=True)
            pause(interval)
            before = now
            now, missing = sample(pids, directory)
    for line in missing or ["the last process has ended"]:
        print(f"singleflight top: {line}", file=sys.stderr)
    return 0


def _styled(text: Any, screen: str) -> Any:
    """Return the same with colours: the heading, the bars, and what failed."""
    styled = text(screen, no_wrap=True, overflow="crop")
    first, _, rest = screen.partition("\n")
    styled.stylize("bold", 0, len(first))
    heading = rest.strip("\n").partition("\n")[0]
    start = screen.index(heading, len(first))
    styled.stylize("reverse", start, start + len(heading))
    styled.highlight_regex(r"[▏▎▍▌▋▊▉█]+", "cyan")
    styled.highlight_regex(r"\b\d+ waiting\b", "yellow")
    styled.highlight_regex(r"\b(detached|queued)\b", "magenta")
    return styled


def _counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
