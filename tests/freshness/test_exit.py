"""What becomes of renewals when the interpreter exits; each test starts one."""

import subprocess
import sys

import pytest

EXIT = """
import sys, threading, time
from singleflight import single_flight_ttl
from singleflight.testing import FakeClock
clock, begun = FakeClock(), threading.Event()

@single_flight_ttl(ttl=10, grace=50, timer=clock)
def fetch(key):
    if clock() > 0:
        begun.set()
        time.sleep(0.2)
        if key == 0:
            print("renewed", flush=True)
    return key

for key in range(10):
    fetch(key)
clock.advance(10)
for key in range({keys}):
    fetch(key)
{then}
"""


@pytest.mark.parametrize(
    ("keys", "then"),
    [
        (1, "begun.wait(10)"),
        (1, "begun.wait(10); raise SystemExit(0)"),
        (8, ""),
        (1, "begun.wait(10); clock.advance(-9); clock.advance(9)\nimport atexit; atexit.register(fetch, 1)"),
    ],
    ids=["in flight", "SystemExit", "queued", "at exit itself"],
)
def test_the_interpreter_exits_while_renewing(keys, then):
    """It waits for what has begun, and no longer; nothing is printed to stderr."""
    code = EXIT.replace("{keys}", str(keys)).replace("{then}", then)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("renewed")


def test_the_interpreter_exits_while_a_task_renews():
    """asyncio.run cancels it; nothing is printed."""
    code = """
import asyncio
from singleflight import single_flight_ttl
from singleflight.testing import FakeClock
clock = FakeClock()

@single_flight_ttl(ttl=10, grace=50, timer=clock)
async def fetch():
    if clock() > 0:
        await asyncio.Event().wait()

async def main():
    fetch.put(1)
    clock.advance(10)
    assert await fetch() == 1

asyncio.run(main(), debug=True)
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
