"""Exceptions that strike where something is ended: no room on the stack or in memory, or an interrupt."""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["FAULTS", "Struck", "striking"]


class Struck(BaseException):
    """What an interrupt raises."""


FAULTS = {"no room": RecursionError, "no memory": MemoryError, "an interrupt": Struck}


def striking(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, fault: Any, times: int = 1) -> list[int]:
    """Have a function raise so many times, and do nothing else then; how many times are left."""
    before, left = getattr(owner, name), [times]

    def strike(*args: Any, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise fault
        return before(*args, **kwargs)

    monkeypatch.setattr(owner, name, strike)
    return left
