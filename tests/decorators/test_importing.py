"""The library can be imported where a sandbox has put proxies in place of what is not deterministic."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import importlib, sys, types

class Restricted:
    # As Temporal's workflow sandbox: what is inside may be handed on, but not looked at.
    def __init__(self, inside):
        object.__setattr__(self, "inside", inside)
    def __getattribute__(self, name):
        if name == "__class__":
            raise RuntimeError("restricted")
        return getattr(object.__getattribute__(self, "inside"), name)
    def __call__(self, *args, **kwargs):
        raise RuntimeError("restricted")

import wrapt, cachetools, uuid, secrets, tempfile, asyncio, logging, inspect, dataclasses  # passed through
for name, members in RESTRICTED.items():
    real = importlib.import_module(name)
    fake = types.ModuleType(name)
    vars(fake).update(vars(real))
    for member in members:
        setattr(fake, member, Restricted(getattr(real, member)))
    sys.modules[name] = fake

import singleflight, singleflight.testing
import singleflight.drivers.tasks, singleflight.drivers.bulk_tasks

print("imported")
"""
RESTRICTED = {
    "random": {"random": ("random", "randint", "choice", "uniform", "Random")},
    "time": {"time": ("time", "monotonic", "perf_counter", "sleep", "time_ns", "monotonic_ns")},
    "os": {"os": ("urandom", "getpid", "getenv")},
}


@pytest.mark.parametrize("module", RESTRICTED)
def test_import_asks_no_proxy_what_it_is(module):
    """Import looks at nothing of `random`, `time` and `os`; it keeps what it needs for later."""
    program = f"RESTRICTED = {RESTRICTED[module]!r}\n" + PROGRAM
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=40, cwd=ROOT, check=False
    )
    assert done.stdout == "imported\n", done.stderr


def test_import_derives_no_class_from_a_proxy():
    """A stand-in may be called, but is no class: `threading.local` is only made, never a base."""
    program = "import asyncio, threading; local = threading.local; threading.local = lambda: local()\n"
    program += "RESTRICTED = {}\n" + PROGRAM
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=40,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout == "imported\n", done.stderr
