"""A filter of the log that raises is nobody's trouble: not the callers', nor that of the store's threads."""

import logging

import pytest

from ..drivers import until
from .fleets import Fleet, Loads, called, link_of


@pytest.fixture
def broken_log():
    """Has each line of the library's log raise; the lines that were to be written."""

    def broken(record):
        said.append(record.getMessage())
        raise OSError("no log")

    said, logger = [], logging.getLogger("singleflight")
    before = logger.level
    logger.addFilter(broken)
    logger.setLevel(logging.INFO)
    yield said
    logger.removeFilter(broken)
    logger.setLevel(before)


def test_a_server_that_is_lost_and_comes_back(own_server, broken_log, colour):
    """Each caller has its value, and the process finds the server again, whatever the log makes of that."""
    fleet = Fleet(own_server.url)
    try:
        price = fleet(Loads(lambda n: n), colour, terms={"timeout": 0.2})
        assert called(price, "ASML") == 1
        own_server.kill()
        until(lambda: not link_of(price).bus.up)
        assert called(price, "SAP") == 2
        assert fleet.store_of(price).state.startswith("degraded")
        own_server.start()
        until(lambda: fleet.store_of(price).state == "connected")
        assert called(price, "SAP") == 3
        until(lambda: link_of(price).bus.up)
        assert link_of(price).keeper._thread.is_alive()
        told = " | ".join(broken_log)
        assert "this process works alone until it answers" in told
        assert "the server is asked again, after" in told
    finally:
        fleet.close()


def test_a_value_that_cannot_be_shared(fleet, broken_log, colour):
    """It is returned all the same."""
    price = fleet(Loads("x" * 1000), colour, terms={"max_value": 256})
    assert called(price, "ASML") == "x" * 1000
    assert "cannot be shared" in " | ".join(broken_log)
