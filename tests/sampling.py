"""A sample of what is long: the usual run takes it, and `nox -s sweeps` the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["one_in"]


def one_in(number: int, cases: Iterable[Any], *, keep: int = 0, packed: bool = True) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`, all of them long but each so-manyth, from `keep` on.

    Args:
        packed: whether a tuple holds several arguments (default), or is one.
    """
    return [
        pytest.param(
            *(case if packed and type(case) is tuple else (case,)),
            marks=() if place % number == keep else pytest.mark.long,
        )
        for place, case in enumerate(cases)
    ]
