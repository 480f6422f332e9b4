"""A decision maker to interrupt: see `tests/core`."""

import pytest

from ..core.conftest import clock, make, seen, waiting
from .checks import unwatch

__all__ = ["clock", "make", "seen", "waiting"]


@pytest.fixture(autouse=True, scope="module")
def unwatched():
    """Tests elsewhere run at full speed."""
    yield
    unwatch()
