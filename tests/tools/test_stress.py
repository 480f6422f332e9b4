"""A moment of each stress case; `nox -s stress` gives them a minute."""

import sys

import pytest

from tools.stress import calls, surroundings  # noqa: F401  # they add their cases
from tools.stress.together import CASES


@pytest.fixture(autouse=True)
def eager():
    """Threads take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_moment_of(case):
    """It holds for a fifth of a second."""
    case(0.2)
