"""Which module may import which: read from the source, so that the drawing in ARCHITECTURE.md stays true."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import singleflight

PACKAGE = Path(__file__).parents[1] / "singleflight"
MODULES = sorted(PACKAGE.glob("*.py"))
EVERYTHING = sorted(PACKAGE.rglob("*.py"))

# A module imports from layers above its own line only.
LAYERS = [
    {"lives", "messages"},
    {"sections", "jobs", "frames"},
    {
        "errors",
        "durations",
        "slips",
        "counts",
        "gates",
        "awaiting",
        "shareable",
        "patches",
        "pickles",
        "herds",
    },
    {"colours", "outcomes", "parameters", "events", "turns", "freshness", "renewing", "proxies"},
    {"keys", "binding"},
    {"_compile"},
    {"entries", "circles", "askers", "options", "unsettled"},
    {"slots"},
    {"queues", "order", "crowds"},
    {"locks", "boarding", "store"},
    {"flights"},
    {"telling", "views"},
    {"remembered"},
    {"landing"},
    {"unseating"},
    {"leaving"},
    {"serving"},
    {"memo"},
    {"_threads", "control", "batches"},
    {"_asyncio", "surface", "registry", "bulk"},
    {"requested"},
    {"_bulk_threads", "_bulk_asyncio"},
    {"loader", "stampedes"},
    {"wiring", "draining", "testing"},
    {"bound"},
    {"decorator"},
    {"public"},
    {"__init__"},
]
LEVEL = {name: number for number, layer in enumerate(LAYERS) for name in layer}

# The only third parties, and the only modules that import them.
DOORS = {"cachetools": {"order"}, "wrapt": {"proxies"}, "alpaca": {"accounts"}, "requests": {"accounts"}}


def running(tree):
    """The nodes that are there when the program runs: without what is for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                yield other
                yield from running(other)
        else:
            yield node
            yield from running(node)


def imports(path, nodes=running):
    """The modules that a module imports, also inside its functions; relative ones begin with a dot."""
    for node in nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield "." * node.level + node.module
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + alias.name for alias in node.names)


def test_every_module_has_its_layer():
    """The list above names the modules there are."""
    assert set(LEVEL) == {path.stem for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_arrows_point_one_way(path):
    """A module imports only from layers below its own."""
    for imported in imports(path):
        if imported.startswith(".") or imported.split(".")[0] == "singleflight":
            target = imported.lstrip(".").removeprefix("singleflight.")
            assert LEVEL[target] < LEVEL[path.stem], f"{path.stem} imports {target}"


def test_each_dependency_has_one_door():
    """Only the order imports cachetools, only the proxies wrapt, only accounts alpaca; nothing else is."""
    found = {}
    for path in EVERYTHING:
        for imported in imports(path):
            top = imported.split(".")[0]
            if top and top not in sys.stdlib_module_names and top != "singleflight":
                door = path.stem if path.parent == PACKAGE else path.parent.name
                found.setdefault(top, set()).add(door)
    assert found == DOORS


def test_accounts_use_the_public_surface():
    """What accounts take from the library is what `singleflight` exports."""
    for path in sorted((PACKAGE / "accounts").glob("*.py")):
        taken = {name.removeprefix("..") for name in imports(path) if name.startswith("..")}
        assert taken <= set(singleflight.__all__), path


def test_the_core_has_no_event_loop():
    """Threads need no asyncio: the modules that import it are loaded by the first coroutine function."""
    program = (
        "import sys, singleflight; print(*[name for name in sys.modules if name.startswith('singleflight.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
    )
    assert {"singleflight._threads"} <= set(done.stdout.split())
    assert not {f"singleflight.{name}" for name in ("_asyncio", "_bulk_asyncio", "awaiting", "crowds")} & set(
        done.stdout.split()
    )
    users = {path.stem for path in EVERYTHING if "asyncio" in {name.split(".")[0] for name in imports(path)}}
    assert users - {"workers"} == {
        "_asyncio",
        "_bulk_asyncio",
        "awaiting",
        "crowds",
        "herds",
    }  # the workers are the accounts'


def test_importing_is_light():
    """Importing the package and its accounts brings in neither alpaca-py nor pandas."""
    program = "import sys, singleflight.accounts; "
    program += "print(*{'alpaca', 'pandas', 'requests'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.split() == []


def test_init_only_re_exports():
    """`__init__` holds a docstring, imports, the version and the list of its names."""
    docstring, *rest = ast.parse((PACKAGE / "__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert {type(node) for node in rest} == {ast.ImportFrom, ast.Assign}
    assigned = {ast.unparse(node.targets[0]) for node in rest if isinstance(node, ast.Assign)}
    assert assigned == {"__version__", "__all__"}


def test_init_exports_what_it_imports():
    """Every name that `__init__` imports is in `__all__`, and the reverse."""
    body = ast.parse((PACKAGE / "__init__.py").read_text()).body
    names = [alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(names) == sorted(singleflight.__all__)


@pytest.mark.parametrize("path", EVERYTHING, ids=lambda path: path.stem)
def test_modules_are_short(path):
    """A module of more than 600 lines is two modules."""
    assert len(path.read_text().splitlines()) <= 600
