"""The list of what is mutated is complete."""

from pathlib import Path

import singleflight
from tools.mutants.run import LEFT_OUT, TESTS

PACKAGE = Path(singleflight.__file__).parent
HERE = Path(__file__).parents[1]


def test_every_module_is_mutated_or_left_out_for_a_reason():
    """Once each."""
    listed = [*TESTS, *(name for names in LEFT_OUT.values() for name in names)]
    assert sorted(listed) == sorted(path.stem for path in PACKAGE.glob("*/*.py") if path.stem != "__init__")


def test_the_tests_named_exist():
    """A name that is wrong would leave its mutants to survive."""
    assert [path for paths in TESTS.values() for path in paths if not (HERE / path).exists()] == []
