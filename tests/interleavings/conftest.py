"""One copy of the library for all tests that do not change it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from ..scheduler.library import Library

LONG_WAY = {
    "cache": {
        "self.leads_at_once = True\n": "self.leads_at_once = False\n",
        "self.lands_at_once = (\n": "self.lands_at_once = False and (\n",
    }
}
"""A mutation: the usual miss goes the long way, too."""


@pytest.fixture(scope="session")
def library() -> Library:
    """The library as it is, under the scheduler."""
    return Library()


@pytest.fixture(scope="session")
def long_way() -> Library:
    """The same, where the usual miss takes no short way."""
    return Library(LONG_WAY)


@pytest.fixture(autouse=True)
def no_fork_warning() -> Iterator[None]:
    """Newer Pythons warn about forking with threads: that is what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
