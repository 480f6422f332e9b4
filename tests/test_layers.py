"""Which module may import which: read from the source, so that the drawing in ARCHITECTURE.md stays true."""

import ast
import re
import subprocess
import sys
from abc import ABC
from pathlib import Path

import pytest

import singleflight
from singleflight.accounts import AccountInterface, AlpacaAccount

PACKAGE = Path(__file__).parents[1] / "singleflight"
EVERYTHING = sorted(PACKAGE.rglob("*.py"))
OURS = [path for path in EVERYTHING if path.parent.name != "accounts"]

# A room imports only from rooms above its own line (ARCHITECTURE.md draws them the other way up).
ROOMS = [
    "common",
    "locks",
    "storage",
    "fleet",
    "telemetry",
    "core",
    "drivers",
    "process",
    "redis",
    "testing",
    "decorator",
    "live",
    "timeline",
]
LEVEL = {name: number for number, name in enumerate(ROOMS)}

# The only third parties, and the only modules that import them.
DOORS = {
    "cachetools": {"storage/expiry", "storage/policy"},
    "wrapt": {"decorator/wrapt_types"},
    "msgspec": {"fleet/serializers"},
    "pydantic": {"fleet/serializers"},
    "alpaca": {"accounts"},
    "requests": {"accounts"},
    "prometheus_client": {"prometheus"},
    "opentelemetry": {"opentelemetry"},
    "rich": {"live/screen"},
}
# What users name beside the rooms: thin, and above all of them.
FRONTS = {"web", "prometheus", "opentelemetry", "__main__"}


def name_of(path):
    """`core/call`; `testing` for a package's own file; nothing for the whole package's."""
    place = path.relative_to(PACKAGE).with_suffix("")
    return str(place.parent if place.name == "__init__" else place).removeprefix(".")


def imports(path):
    """The modules that a module imports, also inside its functions and for type checkers; ours as paths."""
    package = path.parent
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.ImportFrom):
            base = [package, *package.parents][node.level - 1].joinpath(*(node.module or "").split("."))
            for alias in node.names:
                module = (base / alias.name).with_suffix(".py")
                yield base / alias.name if module.exists() else base


def ours(path):
    """The modules of this package that one imports."""
    return {str(found.relative_to(PACKAGE)) for found in imports(path) if isinstance(found, Path)}


def test_the_rooms_are_those_of_the_list():
    """With the accounts, which use the library as any program does; and the modules that users name."""
    found = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert found == {*ROOMS, "accounts", "py.typed", "__init__.py", *(f"{name}.py" for name in FRONTS)}
    assert len(found) <= 20


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_arrows_point_one_way(path):
    """A module imports only from its own room and from those below."""
    room = name_of(path).partition("/")[0]
    for imported in ours(path):
        assert LEVEL[imported.partition("/")[0]] <= LEVEL.get(room, len(ROOMS)), imported


def test_the_picture_shows_the_rooms_and_their_modules():
    """ARCHITECTURE.md draws the rooms in the order of their arrows, and names each module in its room."""
    text = (PACKAGE.parent / "ARCHITECTURE.md").read_text()
    picture = text.partition("## The rooms")[2].partition("\n## ")[0]
    parts = re.split(r"^    (\w+)/", picture, flags=re.MULTILINE)[1:]
    assert parts[::2] == ["accounts", *reversed(ROOMS)]
    for room, words in zip(parts[::2], parts[1::2], strict=True):
        modules = {path.stem for path in (PACKAGE / room).glob("*.py")} - {"__init__"}
        if room != "accounts":
            assert modules <= set(re.findall(r"\w+", words)), room


def test_there_is_no_cycle():
    """No module comes back to itself by its imports, not even by those for type checkers."""
    arrows = {name_of(path): ours(path) for path in OURS}
    done = set()

    def walk(name, way):
        assert name not in way, " -> ".join([*way, name])
        if name not in done:
            for other in sorted(arrows[name]):
                walk(other, [*way, name])
        done.add(name)

    for name in arrows:
        walk(name, [])
    assert len(done) > 40


def written(path):
    """The attributes that a module assigns, of other objects than `self`."""
    for node in ast.walk(ast.parse(path.read_text())):
        stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if stored and ast.unparse(node.value) != "self":
            yield node.attr


@pytest.mark.parametrize(
    ("field", "writers"),
    [
        *(
            (field, {"core/transitions"})
            for field in ("state", "followers", "doomed", "deserted", "detached")
        ),
        ("turn", {"core/transitions", "locks/table"}),  # the latter that of a plain hold, or nobody's
    ],
)
def test_one_file_changes_flights(field, writers):
    """Nobody else assigns a flight's state or a slot's turn."""
    assert {name_of(path) for path in OURS if field in written(path)} == writers


def test_state_is_not_inherited():
    """All that is known of a function is in one class, with none of ours above or below it."""
    bases = {
        node.name: [ast.unparse(base) for base in node.bases]
        for path in OURS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert bases["Cache"] == bases["Store"] == []
    assert not {"Cache", "Store"} & {base for each in bases.values() for base in each}


def test_each_dependency_has_one_door():
    """Only the expiry imports cachetools, only the types wrapt, and so on; nothing else is imported."""
    found = {}
    for path in EVERYTHING:
        for imported in imports(path):
            top = "" if isinstance(imported, Path) else imported.split(".")[0]
            if top and top not in {*sys.stdlib_module_names, "annotationlib"}:  # new in Python 3.14
                door = "accounts" if path.parent.name == "accounts" else name_of(path)
                found.setdefault(top, set()).add(door)
    assert found == DOORS


def test_accounts_use_the_public_surface():
    """What accounts take from the library is what `singleflight` exports."""
    for path in sorted((PACKAGE / "accounts").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                assert node.module is None, path
                assert {alias.name for alias in node.names} <= set(singleflight.__all__), path


def test_an_account_has_one_base():
    """An account is the interface and holds its parts; it inherits from no chain of them."""
    assert AlpacaAccount.__mro__ == (AlpacaAccount, AccountInterface, ABC, object)


def test_the_core_has_no_event_loop():
    """Threads need no asyncio: the modules that import it are loaded by the first coroutine function.

    `asyncio_edges` names its types alone.
    """
    program = (
        "import sys, singleflight; singleflight.single_flight_ttl(len, ttl=60, key=id)('a'); "
        "print(*[name for name in sys.modules if name.startswith('singleflight.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
    )
    loaded = set(done.stdout.split())
    assert "singleflight.drivers.threads" in loaded
    with_a_loop = {"drivers/tasks", "drivers/bulk_tasks", "locks/task_waiters"}
    assert not {f"singleflight.{name.replace('/', '.')}" for name in with_a_loop} & loaded
    users = {name_of(path) for path in EVERYTHING if "asyncio" in map(str, imports(path))}
    others = {"testing/callers", "redis/bus", "redis/clients"}
    assert (
        users - {"accounts/workers", "accounts/alpaca_stream", "locks/asyncio_edges"} == with_a_loop | others
    )


def test_importing_is_light():
    """Importing the package and its accounts brings in neither alpaca-py nor pandas."""
    program = "import sys, singleflight.accounts; "
    program += "print(*{'alpaca', 'pandas', 'requests'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
    )
    assert done.stdout.split() == []


def test_init_only_re_exports():
    """`__init__` holds a docstring, imports, the version, the list of its names, and finds late ones."""
    docstring, *rest = ast.parse((PACKAGE / "__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr)
    late = [node for node in rest if isinstance(node, ast.If)]
    assert [ast.unparse(node.test) for node in late] == ["_TYPE_CHECKING"]
    assert [node.name for node in rest if isinstance(node, ast.FunctionDef)] == ["__getattr__", "__dir__"]
    rest = [node for node in rest if not isinstance(node, ast.FunctionDef | ast.If)] + late[0].body
    assert {type(node) for node in rest} == {ast.ImportFrom, ast.Assign}
    assigned = {ast.unparse(node.targets[0]) for node in rest if isinstance(node, ast.Assign)}
    assert assigned == {"__version__", "__all__", "_LATE"}


def test_init_finds_late_names_where_checkers_do():
    """The table of the names that come late is what type checkers are told."""
    body = ast.parse((PACKAGE / "__init__.py").read_text()).body
    told = next(node.body for node in body if isinstance(node, ast.If))
    assert {node.module: tuple(alias.name for alias in node.names) for node in told} == singleflight._LATE


def test_init_exports_what_it_imports():
    """Every name that `__init__` imports is in `__all__`, and the reverse."""
    body = ast.parse((PACKAGE / "__init__.py").read_text()).body
    body += [node for each in body if isinstance(each, ast.If) for node in each.body]
    names = [
        alias.name for node in body if isinstance(node, ast.ImportFrom) and node.level for alias in node.names
    ]
    assert sorted(names) == sorted(singleflight.__all__)


@pytest.mark.parametrize("path", EVERYTHING, ids=name_of)
def test_modules_are_short(path):
    """A module of more than 600 lines is two modules."""
    assert len(path.read_text().splitlines()) <= 600
