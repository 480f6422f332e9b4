"""The list of cases, and a process of its own for each, with a limit: nothing that a library does can stop the run.

Mishaps from which a library may never come back (waiting in circles, forks, loops that end, leaders that are
aborted) are played with this library alone. Nobody else's library is handed an input that could make it hang
or crash: `wanted` never pairs them, and `show` refuses to play them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from comparing.peers import Ours, Peer
from comparing.variants import named

LIMIT = 12.0  # seconds for a case that needs about one
MARK = "cell: "
COLOURS = ["threads", "tasks"]
GROUPS = [
    "One call",
    "Failure",
    "Aborts and cancellation",
    "Waiting in a cycle",
    "Loops and forks",
    "Invalidation",
    "Keys, values and instances",
]
HERE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Case:
    """One row. `run` returns what is shown; what it raises is shown as a crash.

    A case that is `alone` is a mishap, and is played with this library only.
    """

    name: str
    group: str
    title: str
    colour: str
    run: Callable[[Peer], str]
    alone: bool = False

    def suits(self, peer: Peer) -> bool:
        """Return True if the case may be played with this library."""
        return self.colour in peer.colours and (not self.alone or isinstance(peer, Ours))


CASES: dict[str, Case] = {}


def case(colour: str, group: str, title: str, alone: bool = False):
    """Adds a function to the list; its name becomes `colour.name`."""

    def add(run):
        name = f"{colour}.{run.__name__}"
        CASES[name] = Case(name, group, title, colour, run, alone)
        return run

    return add


def either(group: str, title: str):
    """A case for both colours: the function gets the colour first."""

    def add(run):
        for colour in COLOURS:
            name = f"{colour}.{run.__name__}"

            def one(peer, colour=colour):
                return run(colour, peer)

            CASES[name] = Case(name, group, title, colour, one)
        return run

    return add


def load() -> dict[str, Case]:
    """All cases, in the order of the page."""
    for module in ("threads", "tasks", "loops", "alike"):
        import_module(f"comparing.{module}")
    ordered = sorted(CASES.values(), key=lambda case: (COLOURS.index(case.colour), GROUPS.index(case.group)))
    return {case.name: case for case in ordered}


def show(peer: str, name: str) -> None:
    """Run one case here, print its cell, and leave without waiting for what still hangs."""
    case, library = load()[name], named(peer)
    if not case.suits(library):
        raise ValueError(f"{name} is not played with {peer}")
    print(MARK + case.run(library), flush=True)
    os._exit(0)


def cell(peer: str, name: str, limit: float = LIMIT, program: Iterable[str] = ()) -> str:
    """What the case shows for the library, found out in a process of its own."""
    program = list(program) or [sys.executable, "-m", "comparing", peer, name]
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(program, stdout=out, stderr=err, env=environment, start_new_session=True)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            return "hangs"
        finally:
            _end(process)
        out.seek(0)
        err.seek(0)
        return _read(code, out.read(), err.read())


def _end(process: subprocess.Popen[bytes]) -> None:
    """Also what the case forked; it may have left nobody."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(code: int, out: str, err: str) -> str:
    for line in reversed(out.splitlines()):
        if line.startswith(MARK):
            return line.removeprefix(MARK)
    if os.environ.get("COMPARING_DEBUG"):
        print(err, file=sys.stderr)
    if code < 0:
        return f"crashes ({signal.Signals(-code).name})"
    last = err.strip().splitlines()[-1] if err.strip() else "no word"
    return f"crashes ({last.split(':')[0].rsplit('.')[-1]})"


def cells(
    peers: Iterable[Peer], at_once: int = 4, leaving_out: Iterable[str] = ()
) -> dict[tuple[str, str], str]:
    """Every case with every library that it is played with, by (library, case)."""
    pairs = wanted(peers, leaving_out)
    with ThreadPoolExecutor(at_once) as pool:
        found = pool.map(lambda pair: cell(*pair, LIMIT), pairs)
        return dict(zip(pairs, found, strict=True))


def wanted(peers: Iterable[Peer], leaving_out: Iterable[str] = ()) -> list[tuple[str, str]]:
    """What is to be played: the names of a library and a case each."""
    cases = [case for case in load().values() if case.name not in set(leaving_out)]
    return [(peer.name, case.name) for case in cases for peer in peers if case.suits(peer)]
