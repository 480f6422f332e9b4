"""A decision maker to interrupt: see `tests/core`."""

from ..core.conftest import clock, make, seen, waiting

__all__ = ["clock", "make", "seen", "waiting"]
