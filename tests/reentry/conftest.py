"""A decision maker to interrupt: see `tests/core`."""

import gc

import pytest

from singleflight.locks import waitgraph

from ..core.conftest import clock, make, seen, waiting
from .checks import unwatch

__all__ = ["clock", "make", "seen", "waiting"]


@pytest.fixture(autouse=True, scope="module")
def unwatched():
    """Tests elsewhere run at full speed."""
    yield
    unwatch()


@pytest.fixture(autouse=True, scope="module")
def nobody_waits():
    """Tasks that earlier tests left on loops that stand still are gone: they wait while they are there."""
    if waitgraph.waiting:
        gc.unfreeze()  # they may be what was there when this file began
        gc.collect()
        gc.freeze()
