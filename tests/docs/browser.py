"""Chromium, for looks at built pages as a reader has them, and a server that hands the pages out."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Say nothing of each request."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address under which the files of a folder can be had, by this machine alone."""
    handler = functools.partial(Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10)


def dom(url: str, seconds: int = 10, timeout: float = 120) -> str:
    """The page's elements as they are after so many seconds of the browser's own, hurried, clock."""
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        more = [f"--user-data-dir={profile}", f"--virtual-time-budget={seconds * 1000}", "--dump-dom", url]
        done = subprocess.run(
            [CHROMIUM, *OPTIONS, *more], capture_output=True, text=True, timeout=timeout, check=True
        )
    return done.stdout
