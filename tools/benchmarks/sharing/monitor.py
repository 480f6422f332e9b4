"""Counts what clients send to a server, by MONITOR: what scripts do there is left out."""

from __future__ import annotations

import re
import socket
import threading
import time
from typing import Self
from urllib.parse import urlsplit

_LINE = re.compile(rb"\+(\d+\.\d+) \[(\d+) (\S+)\] \"([^\"]*)\"")


class Monitor:
    """Listens while its `with` block lasts. A segment says whose commands count when, by database."""

    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        self._socket = socket.create_connection((at.hostname, at.port), 10)
        self._lines: list[tuple[float, int, str]] = []  # time, database, command: the thread's until it ends
        self._segments: list[tuple[str, int, float, float]] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._socket.sendall(b"MONITOR\r\n")
        self._socket.settimeout(0.2)
        self._ended = False
        self._thread.start()
        time.sleep(0.05)  # until it listens: what is sent before is not counted
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join(10)
        self._socket.close()

    def _listen(self) -> None:
        rest = b""
        while True:
            try:
                read = self._socket.recv(65536)
            except TimeoutError:
                if self._ended:
                    return
                continue
            if not read:
                return
            *lines, rest = (rest + read).split(b"\r\n")
            for line in lines:
                found = _LINE.match(line)
                if found and found[3] != b"lua":
                    self._lines.append((float(found[1]), int(found[2]), found[4].decode().upper()))

    def segment(self, name: str, database: int, began: float, ended: float) -> None:
        self._segments.append((name, database, began, ended))

    def counts(self) -> dict[str, int]:
        """How many commands were sent in the segments of each name."""
        counts = dict.fromkeys((name for name, *_ in self._segments), 0)
        for name, database, began, ended in self._segments:
            counts[name] += sum(of == database and began <= when <= ended for when, of, _ in self._lines)
        return counts

    def commands(self, began: float, ended: float) -> list[str]:
        """What was sent between two times."""
        return [command for when, _, command in self._lines if began <= when <= ended]
