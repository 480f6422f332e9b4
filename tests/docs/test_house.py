"""House rules that a reader would check by hand."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SKIPPED = re.compile(r"\.(?!ci$|gitignore$)|__pycache__$|_build$|build$|dist$|.*\.(egg-info|so|pyd)$")


def ours(folder=ROOT):
    """The project's own files: what is committed, or all there is where there is no repository."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]
    return list(walk(ROOT))


def walk(folder):
    for path in sorted(folder.iterdir()):
        if SKIPPED.match(path.name):
            continue
        if path.is_dir():
            yield from walk(path)
        else:
            yield path


def texts():
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ours()}


def commands():
    """The commands that the README shows, one a line."""
    return re.findall(r"^    (python3 -m venv .*)$", README, re.MULTILINE)


def test_architecture_is_short():
    """ARCHITECTURE.md stays under 150 lines."""
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) < 150


def test_the_readme_has_two_complete_commands():
    """One runs the price board, one the tests, each from nothing but Python."""
    board, tests = commands()
    for command in (board, tests):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -e '.[")
    assert board.endswith(" && .venv/bin/python examples/price_board.py")
    assert tests.endswith(" && .venv/bin/pytest -q")


def test_ci_runs_the_readmes_test_command():
    """CI calls the very command that the README names."""
    (command,) = [command for command in commands() if "pytest" in command]
    assert command in [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]


def test_nobody_is_told_to_install_the_other_project():
    """Every command that installs from the index names the distribution, not the import."""
    told = re.compile(
        r"(pip|uv|poetry|pdm)( pip)? (install|add)\s+(-\S+\s+)*['\"]?single" + r"flight(?!-kit)"
    )
    assert [name for name, text in texts().items() if told.search(text)] == []


def test_no_paths_of_one_machine():
    """No committed file names a folder of somebody's machine, nor a package registry."""
    folders = re.compile(r"(^|[^A-Za-z0-9_.])/" + "(home|ro" + "ot|wo" + r"rk|Users)/", re.MULTILINE)
    registries = re.compile(
        "index" + "-url|python" + r"hosted\.org|py" + r"pi\.(org|python)|arti" + "factory"
    )
    for rule in (folders, registries):
        assert [name for name, text in texts().items() if rule.search(text)] == []


PUBLIC = [
    *(f"decorator/{name}.py" for name in ("decorate", "function", "loader", "surface")),
    *("locks/keyed.py", "process/drain.py", "process/registry.py", "redis/redis_store.py", "storage/ttl.py"),
    *(f"telemetry/{name}.py" for name in ("counters", "emitter", "events", "views")),
    *(f"testing/{name}.py" for name in ("__init__", "callers", "stampede")),
]


@pytest.mark.parametrize("module", PUBLIC)
def test_docstrings_say_when_true_is_returned(module):
    """A function that returns a bool says "Return True if", or False; no docstring begins with "Whether"."""
    tree = ast.parse((ROOT / "singleflight" / module).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        says = ast.get_docstring(node) or ""
        summary = says.partition("\n\n")[0]
        assert "hether" not in summary, summary
        if says and isinstance(getattr(node, "returns", None), ast.Name) and node.returns.id == "bool":
            assert re.search(r"\bReturns? (True|False)\b", says), f"{node.name}: {summary}"


def test_the_support_page_names_what_is_required():
    """Each Python of the classifiers has its row, and each required library and extra its lowest version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs" / "support.md").read_text(encoding="utf-8")
    versions = re.findall(r"Python :: (3\.\d+)$", "\n".join(project["classifiers"]), re.MULTILINE)
    assert re.findall(r"^\| (3\.\d+) \|", page, re.MULTILINE) == versions
    extras = project["optional-dependencies"]
    own = ("alpaca", "opentelemetry", "prometheus", "redis", "top", "valkey")
    needed = {*project["dependencies"], *(each for extra in own for each in extras[extra])}
    told = set(re.findall(r"^\| (\S+) \| (\S+) and later \|", page, re.MULTILINE))
    assert told == {tuple(each.split(">=")) for each in needed}
