"""`python -m singleflight`: look at running processes, or see what the library is for."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys

from .common.messages import visible
from .live import demo, screen, sockets
from .live.snapshot import MOST_ENTRIES

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; return the exit status."""
    options = _parsed(arguments)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")  # bars and keys may have characters that the terminal's encoding lacks
    try:
        status = _run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has seen enough
        _write_nowhere()
        return 1
    except (sockets.NotServed, RuntimeError, OSError) as error:
        print(f"singleflight {options.command}: {visible(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0 if options.command == "top" else 130
    return status


def _run(options: argparse.Namespace) -> int:
    if options.command == "demo":
        return demo.run(sys.stdout, options.speed)
    if options.command == "report":
        return _report(options)
    fields = {heading: field for field, heading in screen.COLUMNS.items()}
    seen = options.pid, options.directory, options.interval, fields[options.sort], options.once
    return screen.run(*seen, sys.stdout)


def _write_nowhere() -> None:
    """What is left in the buffer would raise again when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _report(options: argparse.Namespace) -> int:
    if not options.json and not options.entries:
        told = sockets.ask(options.pid, options.directory, want="report")["report"]
        print("\n".join(map(visible, told.split("\n"))))
        return 0
    question = {"want": "snapshot", "entries": options.entries, "values": options.values}
    seen = sockets.ask(options.pid, options.directory, **question)["snapshot"]
    if options.json:
        print(json.dumps(seen, indent=2))
        return 0
    print(screen.plain({options.pid: seen}, {}, "received", 120, 10_000))
    for function in seen["functions"]:
        print(f"\n{visible(function['name'])}: {function['number_of_entries']:,} entries")
        for entry in function["entries"]:
            value = f" = {visible(entry['value'])}" if "value" in entry else ""
            served = f"{entry['hits']:>8,} hits, {entry['age']:7.1f} s old, {entry['state']:7}"
            print(f"  {served} {visible(entry['key'])}{value}")
    return 0


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m singleflight",
        description="Look at running processes, or see what the library is for.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    directory = argparse.ArgumentParser(add_help=False)
    directory.add_argument("--directory", help="where the sockets lie, if it is not the usual folder")

    top = commands.add_parser(
        "top", parents=[directory], help="a live view of processes that called singleflight.live.serve()"
    )
    top.add_argument("pid", type=_pid, nargs="*", help="the processes (default: all of this user)")
    top.add_argument("--interval", type=_seconds, default=1.0, help="seconds between two looks (default 1)")
    top.add_argument(
        "--sort",
        metavar="COLUMN",
        choices=list(screen.COLUMNS.values()),
        default="calls/s",
        help="by this column (default: calls/s)",
    )
    top.add_argument("--once", action="store_true", help="print what there is as plain text, and end")

    report = commands.add_parser(
        "report", parents=[directory], help="what one process is doing: flights, leaders, waiters, ages"
    )
    report.add_argument("pid", type=_pid, help="the process, which called singleflight.live.serve()")
    report.add_argument("--json", action="store_true", help="all that is known, for other programs")
    report.add_argument(
        "--entries",
        type=_entries,
        default=0,
        metavar="N",
        help="also each function's N entries with the most hits",
    )
    report.add_argument("--values", action="store_true", help="with their values, if the process allows it")

    shown = commands.add_parser("demo", help="a stampede in 20 seconds: no account, no server")
    shown.add_argument("--speed", type=_speed, default=1.0, help="how many times as fast (default 1)")
    options = parser.parse_args(arguments)
    if options.command == "report" and options.values and not options.entries:
        report.error("argument --values: needs --entries")
    return options


def _pid(text: str) -> int:
    return int(_number(int, text, 1, 2**31, "the number of a process"))


def _entries(text: str) -> int:
    return int(_number(int, text, 1, MOST_ENTRIES, f"a whole number from 1 to {MOST_ENTRIES}"))


def _seconds(text: str) -> float:
    return _number(float, text, 0.05, 3600, "seconds, from 0.05 to 3600")


def _speed(text: str) -> float:
    return _number(float, text, 0.1, 100, "a number from 0.1 to 100")


def _number(kind: type[float], text: str, least: float, most: float, expected: str) -> float:
    """Return the number that an option was given, or raise the error that says what is expected."""
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return number


if __name__ == "__main__":
    sys.exit(main())
