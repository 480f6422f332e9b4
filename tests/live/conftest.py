"""A process of its own that shows itself, and what is asked of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from singleflight.process import registry

PATIENCE = 30.0

PROGRAM = """
import json, sys, threading
from singleflight import live, single_flight_ttl

@single_flight_ttl(ttl=60, name="quick")
def quick(key):
    return f"value of {key}"

@single_flight_ttl(ttl=60, key=lambda key: key, name="slow")
def slow(key):
    if key == "broken":
        raise OSError(key)
    begun.set()
    ended.wait(60)

begun, ended = threading.Event(), threading.Event()
live.serve(sys.argv[1], values=len(sys.argv) > 2)
quick("a"), quick("a"), quick("b")
try:
    slow("broken")
except OSError:
    pass
threading.Thread(target=slow, args=("monthly",), name="the leader", daemon=True).start()
assert begun.wait(30)
print("ready", flush=True)
sys.stdin.readline()
"""


class Shown:
    """The process, and the commands run against it."""

    def __init__(self, folder, *flags):
        self.folder = str(folder)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, self.folder, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"
        self.pid = self.process.pid

    def run(self, *arguments):
        """Run `python -m singleflight` with this folder; what came of it."""
        return command(*arguments, "--directory", self.folder)

    def end(self):
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


def command(*arguments, **environment):
    """Run `python -m singleflight`."""
    return subprocess.run(
        [sys.executable, "-m", "singleflight", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "120", **environment},
    )


@pytest.fixture(autouse=True)
def nothing_decorated(monkeypatch):
    """Only the test's own functions are shown: others that are alive might be busier."""
    monkeypatch.setattr(registry, "_functions", ())


@pytest.fixture
def folder(tmp_path):
    """A folder that nobody else may enter, by a path that is short enough."""
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def shown(folder):
    """A process that shows itself there."""
    process = Shown(folder)
    yield process
    process.end()


@pytest.fixture
def open_handed(folder):
    """One that shows values, too."""
    process = Shown(folder, "values")
    yield process
    process.end()


def loaded(done):
    """The JSON that a command wrote."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
