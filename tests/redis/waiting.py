"""Waits for what nothing tells: another process, or a thread of ours that has done its work."""

import time

__all__ = ["wait_until"]


def wait_until(true, patience=20.0):
    """Return when it is true; fail loudly if it never is."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.003)
