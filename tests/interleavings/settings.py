"""Where scenes are listed, each with what it needs beside its actors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .world import Scene

__all__ = ["FEATURES", "FORKS", "SCENES", "SOFT", "Setting", "feature", "scene"]

Setting = tuple[Scene, int, dict[str, Any]]
"""A scene, up to how many preemptions it is explored, and the options of its world."""

SCENES: dict[str, Setting] = {}
FEATURES: dict[str, Setting] = {}
"""Those of options that few functions have."""
FORKS: dict[str, Setting] = {}
SOFT = {"grace": 60, "soft_timeout": 5}


def scene(
    name: str, preemptions: int = 2, into: dict[str, Setting] = SCENES, **options: Any
) -> Callable[[Scene], Scene]:
    def add(fill: Scene) -> Scene:
        into[name] = fill, preemptions, options
        return fill

    return add


feature = partial(scene, into=FEATURES)
