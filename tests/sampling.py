"""A sample of what is long: the usual run takes it, and `nox -s sweeps` the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["one_in"]


def one_in(number: int, cases: Iterable[Any], *, keep: int = 0) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`, all of them long but each so-manyth, from `keep` on."""
    return [
        case if place % number == keep else pytest.param(*_values(case), marks=pytest.mark.long)
        for place, case in enumerate(cases)
    ]


def _values(case: Any) -> tuple[Any, ...]:
    return case if type(case) is tuple else (case,)
