"""Every claim about bulk calls is made about each of these drivers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import singleflight

from ..drivers import Driver, Pair, blocking

TURNS = {
    "threads": ("thread",),
    "tasks": (0,),
    "mixed": ("thread", 0, "thread", 1),
    "mixed, a task first": (0, "thread", 1, "thread"),
}


class BulkDriver(Driver):
    """Decorates loaders as well."""

    def loader(self, getter: Pair, body, /, **options) -> Pair:
        """The body as a bulk loader of the getter, in the colours that this driver's callers have."""
        of = getter.plain if getter.plain is not None else getter.coroutine
        plain = of.bulk(self._plain(body), **options) if "thread" in self.turns else None
        return Pair(plain, of.bulk(body, **options) if self.loops else None)


def driving(*turns: str | int) -> Iterator[BulkDriver]:
    """What a fixture yields from: a driver, at whose end nothing is in flight, and no loop complains."""
    driver = BulkDriver(*turns)
    try:
        yield driver
    finally:
        driver.close()
        assert singleflight.drain_sync(timeout=10)
    assert driver.reports() == []


@pytest.fixture(params=TURNS.values(), ids=TURNS)
def driver(request: pytest.FixtureRequest) -> Iterator[BulkDriver]:
    """Threads with plain loaders, tasks with coroutine functions, or both with a pair of each."""
    yield from driving(*request.param)


__all__ = ["BulkDriver", "blocking", "driving"]
