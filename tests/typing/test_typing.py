"""Type checkers accept what is right and reject what is wrong."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..sampling import one_in

HERE = Path(__file__).parent
CHECKERS = {
    "mypy": ["mypy", "--strict", "--no-error-summary", "--cache-dir=/dev/null"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


def rejected(checker, path):
    """The lines of a file that a checker rejects."""
    command = [sys.executable, "-m", *CHECKERS[checker], str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=HERE)
    return {
        int(line) for line in re.findall(rf"{path.name}:(\d+)(?::\d+)?\s*[:-].*error", done.stdout)
    }, done.stdout


@pytest.mark.timeout(240)
@pytest.mark.parametrize("checker", one_in(2, CHECKERS))
def test_typical_uses_are_accepted(checker):
    """Functions, methods and the control surface keep their types."""
    lines, told = rejected(checker, HERE / "uses.py")
    assert not lines, told


@pytest.mark.timeout(240)
@pytest.mark.parametrize("checker", one_in(2, CHECKERS))
def test_wrong_uses_are_rejected(checker):
    """Each line marked as an error is one."""
    path = HERE / "misuses.py"
    marked = {n for n, line in enumerate(path.read_text().splitlines(), 1) if line.endswith("# error")}
    lines, told = rejected(checker, path)
    assert lines == marked, told
