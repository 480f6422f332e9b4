"""What some builds of CPython do in another way, with this library or without."""

import sys

import pytest

from singleflight.telemetry.counters import has_global_lock

__all__ = ["collects_classes"]

collects_classes = pytest.mark.skipif(
    not has_global_lock() and sys.version_info < (3, 14),
    reason="Python 3.13's free-threaded build keeps classes and code for good once a thread was started",
)
"""For tests of what goes with the last use of a decorated function, which has a class of its own."""
