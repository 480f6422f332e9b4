"""How long a thread stands at a gate."""

import threading

import pytest

from singleflight.gates import Gate


class Turnstile:
    """A lock that is never free, and notes for how long it was waited for."""

    def __init__(self):
        self.asked = []

    def acquire(self, timeout):
        self.asked.append(timeout)
        return False


@pytest.mark.parametrize(
    ("timeout", "asked"), [(0.25, 0.25), (0.0, 0.0), (-1.0, 0.0), (float("inf"), threading.TIMEOUT_MAX)]
)
def test_a_wait_is_as_long_as_it_is_asked_to_be(timeout, asked):
    """Not at all where the time is over, and no longer than the platform can."""
    gate = Gate()
    gate._turnstile = Turnstile()
    assert gate.wait(timeout) is False
    assert gate._turnstile.asked == [asked]


def test_everybody_passes_an_open_gate():
    """One after another, and however often it is opened."""
    gate = Gate()
    assert not gate.wait(0.0)
    gate.open(), gate.open()
    assert gate.wait(0.0)
    assert gate.wait(0.0)
