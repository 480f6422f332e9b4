"""Where scenes are listed, each with what it needs beside its actors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .world import Scene

__all__ = ["FORKS", "SCENES", "Setting", "scene"]

Setting = tuple[Scene, int, dict[str, Any]]
"""A scene, up to how many preemptions it is explored, and the options of its world."""

SCENES: dict[str, Setting] = {}
FORKS: dict[str, Setting] = {}


def scene(
    name: str, preemptions: int = 2, into: dict[str, Setting] = SCENES, **options: Any
) -> Callable[[Scene], Scene]:
    def add(fill: Scene) -> Scene:
        into[name] = fill, preemptions, options
        return fill

    return add
