"""One copy of the library for all tests that do not change it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from ..scheduler.library import Library


@pytest.fixture(scope="session")
def library() -> Library:
    """The library as it is, under the scheduler."""
    return Library()


@pytest.fixture(autouse=True)
def no_fork_warning() -> Iterator[None]:
    """Newer Pythons warn about forking with threads: that is what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
