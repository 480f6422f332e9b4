"""Makes `docs/promises.md` from the docstrings of this folder's tests: `python tests/conformance/page.py`."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "promises.md"
CATEGORIES = (
    "core",
    "failure",
    "cancellation",
    "freshness",
    "invalidation",
    "bulk",
    "gathering",
    "locks",
    "time",
    "fork",
    "fleet",
)

HEAD = """\
% Made by `python tests/conformance/page.py` from the docstrings of the tests; a test compares the two.

# What is promised, and the test that shows it

Each row is a promise and the name of the test that shows it, in `tests/conformance/`. Many of the tests are
run four times: for callers that are threads, tasks, or both, with a thread or a task first. To run one of
them, or all, in a checkout with the extra `test`:

    pytest tests/conformance -k test_many_callers_make_one_run
    pytest tests/conformance

*Elsewhere* says what other Python libraries are known to do, in the releases that were current when it was
written. Mishaps that leave callers of other libraries waiting are not described. {doc}`limits` has the
promises in short, and what is not promised.
"""


class Promise(NamedTuple):
    """One test, as its docstring has it."""

    test: str
    text: str
    elsewhere: str


def about(category: str) -> str:
    """What the category is about: the rest of its module's docstring."""
    tree = ast.parse((HERE / f"test_{category}.py").read_text(encoding="utf-8"))
    name, _, rest = (ast.get_docstring(tree) or "").partition(": ")
    assert name == category, f"test_{category}.py: its docstring begins with {name!r}"
    return rest[:1].upper() + rest[1:]


def promises(category: str) -> Iterator[Promise]:
    """The tests of one category, in the order of the file."""
    tree = ast.parse((HERE / f"test_{category}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            text, *more = inspect.cleandoc(ast.get_docstring(node) or "").split("\n\n")
            yield Promise(node.name, text, " ".join(" ".join(more).split()))


def render() -> str:
    """The page."""
    lines = [HEAD]
    for category in CATEGORIES:
        lines += [
            f"## {category.capitalize()}",
            "",
            about(category),
            "",
            "| promise | test |",
            "| --- | --- |",
        ]
        for test, text, elsewhere in promises(category):
            assert "|" not in text + elsewhere, f"{test}: a cell of a table has no bars"
            lines.append(f"| {text}{elsewhere and f' *{elsewhere}*'} | `{test}` |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
