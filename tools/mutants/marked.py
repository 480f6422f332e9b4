"""mutmut, which also changes functions below marks of ours: `python marked.py run ...` for `mutmut run ...`.

mutmut leaves functions with decorators as they are: it copies them for every mutant, and a decorator might do
something with each. Ours only note a function's code, or rename it, and that is what each copy needs as well:
it is found in the frames of whoever asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import libcst
from mutmut.mutation import file_mutation

MARKS = {"runs", "looked_through"}

arrange: Any = file_mutation.function_trampoline_arrangement
skips: Any = file_mutation.MutationVisitor._skip_node_and_children


def is_marked(node: libcst.CSTNode) -> bool:
    """Whether it is a function that has decorators, and each of them is a mark."""
    return (
        isinstance(node, libcst.FunctionDef) and bool(node.decorators) and all(map(is_mark, node.decorators))
    )


def is_mark(decorator: libcst.Decorator) -> bool:
    made = decorator.decorator
    called = made.func if isinstance(made, libcst.Call) else made
    return isinstance(called, libcst.Name) and called.value in MARKS


def skip(visitor: Any, node: libcst.CSTNode) -> bool:
    """What mutmut asks of each node: marks do not count."""
    return bool(skips(visitor, node.with_changes(decorators=()) if is_marked(node) else node))


def arranged(function: libcst.FunctionDef, *how: Any, **more: Any) -> tuple[Sequence[Any], ...]:
    """The function, its mutants, and what chooses between them, which runs nothing itself: it has no mark."""
    declared, functions, *rest = arrange(function, *how, **more)
    if is_marked(function):
        first, *others = functions
        functions = [first.with_changes(decorators=first.decorators[len(function.decorators) :]), *others]
    return declared, functions, *rest


def install() -> None:
    """Have mutmut do so. May be repeated."""
    module: Any = file_mutation
    module.function_trampoline_arrangement = arranged
    module.MutationVisitor._skip_node_and_children = skip


if __name__ == "__main__":
    from mutmut.__main__ import cli

    install()
    cli()
