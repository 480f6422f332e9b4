"""House rules that a reader would check by hand."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = [
    path for pattern in ("**/*.py", "*.md", "docs/*.md", "*.toml", ".ci/run") for path in ROOT.glob(pattern)
]
MINE = [path for path in FILES if not any(part.startswith(".venv") or part == ".nox" for part in path.parts)]


def test_architecture_is_short():
    """ARCHITECTURE.md stays under 150 lines."""
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) < 150


def test_ci_runs_the_readmes_test_command():
    """CI calls the very command that the README names."""
    (command,) = re.findall(r"^    (.*pytest.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text()


def test_no_paths_of_one_machine():
    """No committed file names a folder of somebody's machine."""
    pattern = re.compile(r"(^|[^A-Za-z0-9_.])/" + "(home|ro" + "ot|wo" + r"rk|Users)/")
    assert [path for path in MINE if pattern.search(path.read_text())] == []


def imports(path):
    """The names of the modules that a module imports when it is run, relative ones with their dots."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            found |= {base} if node.module else {base + alias.name for alias in node.names}
    return found


LAYERS = [
    {"errors", "durations", "counts"},
    {"outcomes", "keys", "events", "turns", "_compile", "freshness"},
    {"entries", "locks", "options", "testing"},
    {"store"},
    {"flights"},
    {"boarding", "telling"},
    {"remembered"},
    {"memo"},
    {"_threads", "control"},
    {"surface", "registry", "wiring"},
    {"decorator"},
    {"__init__"},
]


def test_arrows_point_one_way():
    """A module imports only from layers below its own."""
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    for path in (ROOT / "singleflight").glob("*.py"):
        name = path.stem
        for imported in imports(path):
            if imported.startswith("."):
                target = imported.lstrip(".")
                assert level[target] < level[name], f"{name} imports {target}"


def test_each_dependency_has_one_door():
    """Only the store imports cachetools, only the decorator wrapt, and nobody alpaca or asyncio at import."""
    for path in (ROOT / "singleflight").rglob("*.py"):
        text = path.read_text()
        assert ("cachetools import" in text) == (path.stem == "store"), path
        assert ("from wrapt" in text) == (path.stem == "decorator"), path
        assert not {"alpaca", "pandas", "asyncio"} & {name.split(".")[0] for name in imports(path)}


def test_modules_are_short():
    """No module of the package passes 300 lines."""
    assert [
        path for path in (ROOT / "singleflight").rglob("*.py") if len(path.read_text().splitlines()) > 300
    ] == []
