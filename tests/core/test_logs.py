"""What the library says in the log, whatever the program's filters and handlers make of it."""

import logging

import pytest

from singleflight.common.logs import log


def says():
    """Say something of each kind."""
    log.info("an %s", "info")
    log.warning("a %s", "warning")
    log.error("an %s", "error")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("an %s", "exception")


def test_what_is_said_has_the_place_where_it_was_said(caplog):
    """As with the logger itself; an exception is shown with it."""
    with caplog.at_level(logging.INFO, "singleflight"):
        says()
    assert caplog.messages == ["an info", "a warning", "an error", "an exception"]
    assert {(record.funcName, record.filename) for record in caplog.records} == {("says", "test_logs.py")}
    assert caplog.records[-1].exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("where", ["filter", "handler"])
def test_what_cannot_be_written_is_dropped(where):
    """Whoever says it goes on."""

    def broken(record):
        said.append(record.getMessage())
        raise OSError("no log")

    said, logger, handler = [], logging.getLogger("singleflight"), logging.NullHandler()
    handler.handle = broken
    logger.addFilter(broken) if where == "filter" else logger.addHandler(handler)
    before = logger.level
    logger.setLevel(logging.INFO)
    try:
        says()
    finally:
        logger.removeFilter(broken), logger.removeHandler(handler), logger.setLevel(before)
    assert said == ["an info", "a warning", "an error", "an exception"]
