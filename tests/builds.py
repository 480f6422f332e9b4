"""What some builds of CPython do in another way, with this library or without."""

import sys

import pytest

from singleflight.decorator.wrapt_types import wrapt_was_built
from singleflight.telemetry.counters import has_global_lock

__all__ = ["collects_classes", "wrapt_built"]

collects_classes = pytest.mark.skipif(
    not has_global_lock() and sys.version_info < (3, 14),
    reason="Python 3.13's free-threaded build keeps classes and code for good once a thread was started",
)
"""For tests of what goes with the last use of a decorated function, which has a class of its own."""

wrapt_built = pytest.mark.skipif(not wrapt_was_built, reason="wrapt has no C extension here")
