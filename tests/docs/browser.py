"""Chromium, for looks at built pages as a reader has them, and a server that hands the pages out."""

from __future__ import annotations

import functools
import http.server
import json
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
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


# Opens each page in a frame as wide as a phone and notes how wide its contents are.
CHECKER = """<!doctype html><title>width</title><pre id="found"></pre><script>
async function look(name) {
  const frame = document.createElement("iframe");
  frame.style = "width: 390px; height: 844px; border: 0";
  frame.src = name;
  const loaded = new Promise((then) => (frame.onload = then));
  document.body.append(frame);
  await loaded;
  const root = frame.contentDocument.documentElement;
  const wide = [...frame.contentDocument.querySelectorAll("article *, main *")]
    .filter((one) => one.getBoundingClientRect().right > 391)
    .filter((one) => !one.closest("pre, .table-wrapper, svg, .wide, .scroll"))
    .map((one) => one.outerHTML.slice(0, 120));
  const found = [name, root.scrollWidth, frame.contentWindow.innerWidth, wide.slice(0, 3)];
  frame.remove();
  return found;
}
(async () => {
  const found = [];
  for (const name of NAMES) found.push(await look(name));
  document.getElementById("found").textContent = JSON.stringify(found);
})();
</script>"""


def widths(folder: Path, names: list[str], seconds: int = 10, timeout: float = 120) -> list[list[object]]:
    """Of each page in the folder: its name, its width and the window's on a phone, and what is too wide."""
    checker = folder / "widths-of-pages.html"
    checker.write_text(CHECKER.replace("NAMES", json.dumps(names)), encoding="utf-8")
    try:
        with served(folder) as address:
            shown = dom(f"{address}/{checker.name}", seconds=seconds, timeout=timeout)
    finally:
        checker.unlink()
    found = re.search(r'<pre id="found">(.*?)</pre>', shown, re.DOTALL)
    assert found is not None
    return json.loads(unescape(found[1]))
