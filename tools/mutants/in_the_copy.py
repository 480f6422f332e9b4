"""The `conftest.py` of mutmut's copy: the copy is what is tested, and what cannot hang is run first."""

import json
import os
import sys
from pathlib import Path

from hypothesis import Phase, settings
from mutmut.core import MutmutCallStack
from mutmut.state import state

import singleflight

assert Path(singleflight.__file__).is_relative_to(Path.cwd()), (
    f"the mutants are not in {singleflight.__file__}"
)

settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], database=None)  # no shrinking
settings.load_profile("mutants")


def pytest_collection_modifyitems(items):
    stats = Path("mutmut-stats.json")
    if stats.exists():
        durations = json.loads(stats.read_text())["duration_by_test"]
        items.sort(key=lambda item: ("/core/" not in item.nodeid, durations.get(item.nodeid, 0.0)))


def note_what_children_reach():
    """mutmut cannot see what a test reaches in a process that it forks."""
    if os.environ.get("MUTANT_UNDER_TEST") == "stats":
        for module in [name for name in sys.modules if name.startswith("singleflight.")]:
            for name in vars(sys.modules[module]):
                if name.startswith("mutants_x") and ("fork" in name or "orphan" in name):
                    function = name.removeprefix("mutants_").removesuffix("__mutmut")
                    state()._stats.add(f"{module}.{function}")


os.register_at_fork(after_in_parent=note_what_children_reach)

# Who calls whom is not asked for (`track_dependencies`). To note it crashes CPython 3.11 when a finalizer is
# called: the collector may run inside of `ContextVar.set`, which must not be entered once more then.
MutmutCallStack.set = MutmutCallStack.reset = lambda *_: None
