"""A scheduling point at every line of chosen code, by `sys.monitoring` or, before 3.12, `sys.settrace`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import CodeType
from typing import Any, Self

from .baton import running

__all__ = ["Lines", "codes_within"]

_TOOL = 4  # Hypothesis and coverage have others


class Lines:
    """Pass it as `tracer`; within `with`, these code objects have a point at each of their lines."""

    def __init__(self, codes: Iterable[CodeType]) -> None:
        self._codes = frozenset(codes)

    def begin(self) -> None:
        """An actor begins, on its own thread."""
        if sys.version_info < (3, 12):
            sys.settrace(self._called)

    def end(self) -> None:
        """It has ended."""
        if sys.version_info < (3, 12):
            sys.settrace(None)

    def __enter__(self) -> Self:
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            monitoring.use_tool_id(_TOOL, "scheduler")
            monitoring.register_callback(_TOOL, monitoring.events.LINE, self._point)
            for code in self._codes:
                monitoring.set_local_events(_TOOL, code, monitoring.events.LINE)
        return self

    def __exit__(self, *_: object) -> None:
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            for code in self._codes:
                monitoring.set_local_events(_TOOL, code, 0)
            monitoring.register_callback(_TOOL, monitoring.events.LINE, None)
            monitoring.free_tool_id(_TOOL)

    def _called(self, frame: Any, event: str, _: Any) -> Any:
        return self._traced if frame.f_code in self._codes else None

    def _traced(self, frame: Any, event: str, _: Any) -> Any:
        if event == "line":
            self._point()
        return self._traced

    @staticmethod
    def _point(*_: object) -> None:
        scheduler = running()
        if scheduler is not None:
            scheduler.point()


def codes_within(code: CodeType) -> Iterable[CodeType]:
    """A code object and all that are within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes_within(constant)
