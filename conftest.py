"""Runs each Python code block of README and docs and each doctest; and everything on two cores."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from unittest import SkipTest

import pytest
from sybil import Example, Lexeme, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser
from sybil.sybil import SybilCollection

PROCESSES = 2
SHOWN_SERVER = "redis://localhost:6379"  # as the documentation writes it
TUTORIAL = "docs/tutorial.md"  # the one page whose blocks continue one another


class StandaloneCodeBlockParser(CodeBlockParser):
    """Runs each Python block as a script of its own, so that readers can copy it alone."""

    language = "python"

    def evaluate(self, example: Example) -> None:
        """Run the block in a new namespace; one that names a server, with one of our own."""
        example.namespace = {"__name__": "__main__"}
        with a_server() if SHOWN_SERVER in example.parsed else nullcontext(SHOWN_SERVER) as url:
            parsed = example.parsed
            example.parsed = Lexeme(parsed.replace(SHOWN_SERVER, url), parsed.offset, parsed.line_offset)
            try:
                PythonEvaluator()(example)
            finally:
                for value in example.namespace.values():
                    if type(value).__name__ == "RedisStore":
                        value.close()


@contextmanager
def a_server() -> Iterator[str]:
    """The URL of an empty server. Skips where none can be started, but not in CI."""
    from tests.redis.server import Server, binaries

    found = binaries()
    if not found and not os.environ.get("CI"):
        raise SkipTest("no Redis or Valkey server here")
    server = Server(next(iter(found.values())))
    try:
        yield server.url
    finally:
        server.close()


pytest_collect_file = SybilCollection(
    [
        Sybil([StandaloneCodeBlockParser(), SkipParser()], patterns=["*.md"], excludes=[TUTORIAL]),
        Sybil([PythonCodeBlockParser()], pattern=TUTORIAL),
        Sybil([DocTestParser(ELLIPSIS | NORMALIZE_WHITESPACE)], pattern="*.py", path="singleflight"),
    ]
).pytest()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Run everything in two processes; what is named on the command line in one, unless `-n` says more."""
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    option = config.option
    everything = config.args_source is config.ArgsSource.TESTPATHS
    if everything and option.numprocesses is None and option.dist == "no" and not option.usepdb:
        option.numprocesses = PROCESSES


def pytest_collection_finish():
    """Spare the collector the thousands of tests themselves: many of them have it run."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter):
    """Say in which of its two builds the library was tested."""
    import singleflight

    where = "in C" if singleflight.accelerated else "in Python; THE TESTS OF THE HIT PATH IN C WERE SKIPPED"
    terminalreporter.write_line(f"Hits were served {where}.")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep a page's blocks, and a module's doctests, in one process, in order: they continue one another."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            return path if path.endswith(".md") or path.startswith("singleflight/") else nodeid

    return Scheduling(config, log) if config.option.dist == "load" else None
