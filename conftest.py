"""Runs each Python code block of README and docs and each doctest; and everything in three processes."""

import ast
import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager, nullcontext
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from importlib.util import find_spec
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Example, Lexeme, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser
from sybil.sybil import SybilCollection

PROCESSES = 3  # on two cores: a third of the time most tests wait for something
WHOLE = ("test_dashboard.py", "test_desk.py", "test_perfetto_reader.py")  # what they start takes seconds
SHOWN_SERVER = "redis://localhost:6379"  # as the documentation writes it
TUTORIAL = "docs/tutorial.md"  # the one page whose blocks continue one another
# Libraries whose blocks are left out where they are not installed.
# The session `peers` has them all, and sets PEERS=1.
PEERS = {
    *("aiohttp", "celery", "django", "fastapi", "flask", "gunicorn", "httpx", "IPython", "nicegui"),
    *("requests", "sqlalchemy", "streamlit", "temporalio"),
}
APART = {"celery", "django", "IPython", "nicegui", "streamlit"}  # these configure a process as a whole


class StandaloneCodeBlockParser(CodeBlockParser):
    """Runs each Python block as a script of its own, so that readers can copy it alone."""

    language = "python"

    def evaluate(self, example: Example) -> None:
        """Run the block in a new namespace; one that names a server, with one of our own.

        A block of tests is run by pytest, and one with a library of `APART` in a process of its own.
        """
        example.namespace = {"__name__": "__main__"}
        tree = ast.parse(example.parsed)
        used = imported(tree)
        missing = sorted(name for name in used & PEERS if find_spec(name) is None)
        if missing and not os.environ.get("PEERS"):
            raise SkipTest(f"needs {', '.join(missing)}")
        tests = any(isinstance(node, FUNCTIONS) and node.name.startswith("test_") for node in tree.body)
        with a_server() if SHOWN_SERVER in example.parsed else nullcontext(SHOWN_SERVER) as url:
            parsed = example.parsed
            example.parsed = Lexeme(parsed.replace(SHOWN_SERVER, url), parsed.offset, parsed.line_offset)
            if tests or used & APART:
                return run_apart(
                    example.parsed, ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if tests else []
                )
            try:
                with tempfile.TemporaryDirectory(prefix="singleflight-") as folder, chdir(folder):
                    PythonEvaluator()(example)  # what it writes goes there
            finally:
                for value in example.namespace.values():
                    if type(value).__name__ == "RedisStore":
                        value.close()


FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


def imported(tree: ast.Module) -> set[str]:
    """The names of the packages that a block imports, wherever it does."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def run_apart(block: str, options: list[str]) -> None:
    """Run a block as a file of its own, in a folder and a process of its own."""
    with tempfile.TemporaryDirectory(prefix="singleflight-") as folder:
        file = Path(folder, "test_example.py" if options else "example.py")
        file.write_text(block, encoding="utf-8")
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        done = subprocess.run(
            [sys.executable, *options, file.name],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=50,
        )
        if done.returncode:
            raise AssertionError(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}")


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
    """Run everything in three processes; what is named on the command line in one, unless `-n` says more."""
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
    """Keep a page's blocks, and a module's doctests, in one process, in order: they continue one another.

    So are tests that share a browser or a server.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            whole = path.endswith((".md", *WHOLE)) or path.startswith("singleflight/")
            return path if whole else nodeid

    return Scheduling(config, log) if config.option.dist == "load" else None
