"""The library's own log lines: what a filter or a handler of theirs raises is nobody's who calls."""

import logging
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest

from singleflight import single_flight_ttl
from singleflight.common.logs import log
from singleflight.redis.clients import Kind, Trouble
from singleflight.redis.link import Link


@pytest.fixture
def filtered():
    """The lines that came to a filter, which raises."""
    lines, logger = [], logging.getLogger("singleflight")

    def broken(record):
        lines.append(record.getMessage())
        raise OSError("no log")

    logger.addFilter(broken)
    yield lines
    logger.removeFilter(broken)


def test_a_line_says_where_it_comes_from(caplog):
    """The module that has something to say, and what was raised, where that is said."""
    with caplog.at_level(logging.INFO, "singleflight"):
        log.info("%s", 1), log.warning("%s", 2), log.error("%s", 3)
        try:
            raise ValueError
        except ValueError as error:
            log.exception("%s", 4)
            raised = error
        log.warning("%s", 5, exc_info=raised), log.error("%s", 6, exc_info=raised)
    lines, levels = caplog.records, [logging.INFO, logging.WARNING, logging.ERROR]
    assert [line.getMessage() for line in lines] == ["1", "2", "3", "4", "5", "6"]
    assert [line.levelno for line in lines] == [*levels, logging.ERROR, *levels[1:]]
    assert {(line.filename, line.funcName) for line in lines} == {
        ("test_logs.py", "test_a_line_says_where_it_comes_from")
    }
    assert [line.exc_info and line.exc_info[1] for line in lines] == [None] * 3 + [raised] * 3


@pytest.mark.parametrize("truth", [False, RuntimeError("asked")], ids=repr)
def test_an_error_is_logged_whatever_its_truth(caplog, truth):
    """It is the user's, and `logging` asks whether there is one."""

    class Untrue(Exception):
        def __bool__(self):
            if truth:
                raise truth
            return False

    error = Untrue()
    log.warning("%s", 1, exc_info=error), log.error("%s", 2, exc_info=error)
    try:
        raise error
    except Untrue:
        log.exception("%s", 3)
    assert [line.exc_info for line in caplog.records] == [
        (Untrue, error, None),
        (Untrue, error, None),
        (Untrue, error, error.__traceback__),
    ]


def alone(code):
    """Run this in an interpreter of its own, where nobody has imported `logging` yet."""
    preamble = "import sys, types\nfrom singleflight.common import logs\n"
    ran = subprocess.run(
        [sys.executable, "-c", preamble + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_nobody_asks_for_lines_who_has_not_imported_logging():
    """Nor does the question import it; half imported by another thread it cannot answer yet."""
    alone("""
        assert "logging" not in sys.modules
        assert not logs.is_logging(logs.DEBUG)
        sys.modules["logging"] = types.ModuleType("logging")
        assert not logs.is_logging(logs.DEBUG)
        del sys.modules["logging"]
        assert not logs.is_logging(50)
        assert "logging" not in sys.modules
    """)


def test_once_there_is_a_logger_it_is_asked_without_a_detour():
    """And has one handler that does nothing, or a line that nobody wants would go to the standard error."""
    alone("""
        import logging
        ours = logging.getLogger("singleflight")
        assert not logs.is_logging(logs.DEBUG)
        assert logs.is_logging == ours.isEnabledFor
        assert logs.levels is ours._cache
        assert logs.logger() is ours
        assert [type(handler) for handler in ours.handlers] == [logging.NullHandler]
        ours.setLevel(logs.DEBUG)
        assert logs.is_logging(logs.DEBUG)
    """)


def test_a_logger_without_a_cache_is_asked_each_time():
    """Of a class that a program has put in the place of the usual one."""
    alone("""
        import logging

        class Bare(logging.Logger):
            def __init__(self, name, level=0):
                super().__init__(name, level)
                del self._cache

            def isEnabledFor(self, level):
                return True

        logging.setLoggerClass(Bare)
        assert logs.is_logging(logs.DEBUG)
        assert logs.levels == {}
    """)


def test_an_error_of_the_function_is_its_callers(filtered):
    """Also where it could not be stored, which is logged."""

    def failure_ttl(error):
        raise LookupError

    @single_flight_ttl(ttl=60, failure_ttl=failure_ttl, follower_retries=0)
    def fetch():
        raise ValueError

    with pytest.raises(ValueError):
        fetch()
    assert len(filtered) == 1
    assert not fetch.flights()


def test_a_value_is_served_whatever_the_policy_does(filtered):
    """Its failure is logged once."""
    cache = single_flight_ttl(ttl=60)(lambda: 1)._self_cache
    cache.store = SimpleNamespace(used=lambda record: {}["no such"])
    cache.used(None), cache.used(None)
    assert len(filtered) == 1


def test_where_the_server_is_lost_calls_go_on(filtered):
    """What is wrong is logged once for each time, and for each right."""
    link = Link("redis://127.0.0.1:1", prefix="sf", lease=1.0, timeout=0.1)
    link.keeper.nudge = lambda: None  # nothing is to be sent
    try:
        assert link.failed(Trouble(Kind.REFUSED, "READONLY"), link.period())
        assert not link.failed(Trouble(Kind.AWAY, "lost"), link.period())
        assert link.is_away()
    finally:
        link.close()
    assert filtered == [
        "sf: READONLY; values are loaded by each process for itself",
        "sf: lost; this process works alone until it answers",
    ]


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
        log.info("an %s", "info"), log.warning("a %s", "warning"), log.error("an %s", "error")
        log.exception("an %s", "exception")
    finally:
        logger.removeFilter(broken), logger.removeHandler(handler), logger.setLevel(before)
    assert said == ["an info", "a warning", "an error", "an exception"]
