"""Monkey-patching threading before and after the import, as gevent and eventlet do it."""

import subprocess
import sys
import textwrap

import pytest

# `seen` runs something and prints what was raised and what was warned of, and whether at a marked line.
PROGRAM = """
import threading, warnings
{early}
from singleflight import KeyedLocks, single_flight_ttl

locks, held, go = KeyedLocks(), threading.Event(), threading.Event()

@single_flight_ttl(ttl=60)
def itself():
    return itself()  # *

@single_flight_ttl(ttl=60)
def slow():
    held.set()
    assert go.wait(20)
    return 1

def hold():
    with locks("a"):
        slow()

def waits(wait, waiting):
    def leave():
        while not waiting():
            pass
        go.set()
    holder, leaver = threading.Thread(target=hold), threading.Thread(target=leave)
    holder.start()
    assert held.wait(20)
    leaver.start()
    seen(wait)
    holder.join(20)
    leaver.join(20)

def seen(run):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            run()
        except Exception as error:
            print(type(error).__name__, "patch first" in str(error), end=" ")
    for warning in told:
        line = open(warning.filename).readlines()[warning.lineno - 1]
        print(warning.category.__name__, "patch first" in str(warning.message), "*" in line, end=" ")
    print()

{late}
"""
PATCH = "truly = threading.get_ident; threading.get_ident = lambda: truly()"
DECORATING = """
def decorate():
    @single_flight_ttl(ttl=60)  # *
    def late():
        return 1
seen(decorate)
seen(decorate)
"""
TAKING = """
def take():
    with locks("a"):  # *
        pass
waits(take, lambda: locks.waiting("a"))
"""
CALLING = """
def call():
    slow()  # *
waits(call, lambda: any(flight.followers for flight in slow.flights()))
"""
REFUSING = """
def nest():
    with locks("b"), locks("b"):  # *
        pass
seen(nest)
seen(itself)
"""
SELF = "seen(itself)"


def outcome(tmp_path, early, late):
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(early=early, late=textwrap.dedent(late)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


WARNED = ["RuntimeWarning", "True", "True"]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        (DECORATING, [WARNED, []]),
        (TAKING, [WARNED]),
        (CALLING, [WARNED]),
        (REFUSING, [["FlightDeadlock", "True", *WARNED], ["FlightDeadlock", "True"]]),
        (SELF, [["FlightDeadlock", "True", *WARNED]]),
    ],
    ids=["decorating", "waiting for a lock", "waiting for a call", "refusing a lock", "refusing a call"],
)
def test_patching_after_the_import_is_told(tmp_path, what, told):
    """Once for each occasion, at the user's line; a refusal says that this may be its reason."""
    assert outcome(tmp_path, "", PATCH + what if what[0] == "\n" else f"{PATCH}\n{what}") == told


def test_it_is_told_to_a_module_without_a_name(tmp_path):
    """Whatever its globals have for it."""
    assert outcome(tmp_path, "", f"{PATCH}\n__name__ = 5\n{DECORATING}") == [WARNED, []]


def test_patching_before_the_import_is_right(tmp_path):
    """Whom the patch tells apart the library tells apart, and it says nothing."""
    told = outcome(tmp_path, PATCH, DECORATING + REFUSING + TAKING)
    assert told == [[], [], ["FlightDeadlock", "False"], ["FlightDeadlock", "False"], []]
